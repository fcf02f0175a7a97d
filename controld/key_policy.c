/* Who may create keys, for whom, and with which defaults and upper bounds. */

#include <inttypes.h>
#include <string.h>
#include "access.h"
#include "conf.h"
#include "db.h"
#include "key.h"
#include "kt_duration.h"
#include "kt_money.h"
#include "settings.h"
#include "tx.h"
#include "util.h"


/* Is a string in a list of the settings?  An absent list has everything. */

static int
policy_lists(const jv_t *list, const char *s)
{
    const jv_t  *c;

    if (json_is_null(list) || list->type != J_ARR) {
        return 1;
    }

    for (c = list->head; c; c = c->next) {
        if (c->type == J_STR && strcmp(c->s, s) == 0) {
            return 1;
        }
    }

    return 0;
}


/* Python's repr of a list of strings. */

static const char *
policy_repr(arena_t *a, const jv_t *list)
{
    buf_t        b;
    const jv_t  *c;

    buf_init(&b, a);
    buf_putc(&b, '[');

    for (c = list ? list->head : NULL; c; c = c->next) {
        buf_printf(&b, c == list->head ? "%s" : ", %s", py_repr(a, c->s ? c->s : ""));
    }

    buf_putc(&b, ']');

    return b.p;
}


static int
policy_required(req_t *r, const jv_t *rules)
{
    const jv_t  *list, *c;

    list = json_get(rules, "required_params");

    for (c = list && list->type == J_ARR ? list->head : NULL; c; c = c->next) {
        if (c->type == J_STR && json_is_null(json_get(r->json, c->s))) {
            fail_repr(r, 400, "Required param %s not in data", c->s);
            return -1;
        }
    }

    return 0;
}


static int
policy_personal(req_t *r, const jv_t *rules)
{
    const jv_t  *roles;

    if (!access_admin(r) && settings_bool(r, "default_team_disabled", 0)) {
        access_scoped(r);
        fail_repr(r, 400, "Personal key creation has been disabled by admin"
                  " (default_team_disabled). Pass a team_id.");
    }

    if (r->status) {
        return -1;
    }

    if (json_is_null(rules)) {
        return 0;
    }

    roles = json_get(rules, "allowed_user_roles");

    if (!policy_lists(roles, access_role_name(r))) {
        fail_repr(r, 400, "Personal key creation has been restricted by admin."
                  " Allowed roles=%s. Your role=%s", policy_repr(&r->a, roles),
                  access_role_name(r));
        return -1;
    }

    return policy_required(r, rules);
}


int
key_member_permits(req_t *r, const char *team_id, const char *route)
{
    int  rc;

    rc = access_team_permits(r, team_id, route);

    if (rc > 0) {
        return 0;
    }

    if (rc == 0) {
        fail_proxy(r, 401, "team_member_permission_error", route, "Team member does"
                   " not have permissions for endpoint: %s. You only have access to"
                   " the following endpoints: the ones in team_member_permissions of"
                   " team %s. To create keys for this team, please ask your proxy"
                   " admin to give you this permission.", route, team_id);
    }

    return -1;
}


static int
policy_team(req_t *r, const jv_t *rules, const char *team_id, const char *user_id,
    const char *route)
{
    int          known, other;
    const jv_t  *roles;
    const char  *role;

    known = access_team_role(r, team_id, &role);

    if (known < 0) {
        return -1;
    }

    other = user_id && (r->caller_user == NULL || strcmp(user_id, r->caller_user));

    if (role == NULL) {
        fail_repr(r, 400, "User=%s not assigned to team=%s",
                  r->caller_user ? r->caller_user : "None", team_id);
        return -1;
    }

    if (other && key_member_of(r, team_id, user_id) != 1) {
        fail_repr(r, 400, "User=%s not assigned to team=%s", user_id, team_id);
        return -1;
    }

    roles = json_get(rules, "allowed_team_member_roles");

    if (!policy_lists(roles, role)) {
        fail_repr(r, 400, "Team member role %s not in allowed_team_member_roles=%s",
                  role, policy_repr(&r->a, roles));
        return -1;
    }

    return key_member_permits(r, team_id, route) != 0
           || policy_required(r, rules) != 0 ? -1 : 0;
}


int
key_member_of(req_t *r, const char *team_id, const char *user_id)
{
    return db_is(r, "SELECT 1 FROM memberships WHERE team_id = $1 AND user_id = $2"
                 " AND NOT implicit", team_id, user_id);
}


int
key_team_admin(req_t *r, const char *team_id)
{
    const char  *role;

    if (access_team_role(r, team_id, &role) < 0) {
        return -1;
    }

    return role && strcmp(role, "admin") == 0;
}


int
key_team_is_of(req_t *r, const char *team_id, const char *org_id)
{
    return db_is(r, "SELECT 1 FROM teams WHERE team_id = $1 AND organization_id = $2", team_id,
                 org_id);
}


static int
policy_team_known(req_t *r, const char *team_id)
{
    return db_is(r, "SELECT 1 FROM teams WHERE team_id = $1 AND NOT implicit", team_id);
}


int
key_may_create(req_t *r, const char **user_id, const char *team_id,
    const char *route)
{
    int          known, service;
    const jv_t  *rules, *team, *personal, *meta;

    rules = settings_get(r, "key_generation_settings");

    if (r->status) {
        return -1;
    }

    team = json_get(rules, "team_key_generation");
    personal = json_get(rules, "personal_key_generation");
    meta = json_get(r->json, "metadata");
    service = !json_is_null(json_get(meta, "service_account_id"));

    if (team_id && !json_is_null(rules)) {
        known = policy_team_known(r, team_id);

        if (known == 0) {
            fail_repr(r, 400, "Unable to find team object in database. Team ID: %s",
                      team_id);
        }

        if (known <= 0) {
            return -1;
        }
    }

    if (service && team_id == NULL) {
        fail_repr(r, 400, "team_id is required for service account keys. Please"
                  " specify `team_id` in the request body.");
        return -1;
    }

    if (access_admin(r)) {
        return team_id ? policy_required(r, team) : policy_personal(r, personal);
    }

    if (service) {
        route = "/key/service-account/generate";     /* it belongs to nobody */
    }

    if (team_id && policy_team(r, team, team_id, *user_id, route) != 0) {
        return -1;
    }

    if (team_id == NULL && policy_personal(r, personal) != 0) {
        return -1;
    }

    if (*user_id && !access_self(r, *user_id)) {
        fail_repr(r, 403, "User can only create keys for themselves. Got user_id=%s,"
                  " Your ID=%s", *user_id, r->caller_user ? r->caller_user : "None");
        return -1;
    }

    /* without an owner it would escape the limits of its maker */

    if (*user_id == NULL && (team_id == NULL || !service)) {
        *user_id = r->caller_user;
        access_self(r, *user_id);
    }

    return 0;
}


/* default_key_generate_params: for what the body leaves out. */

static int
policy_defaults(req_t *r)
{
    const jv_t  *params, *c, *v;

    params = settings_get(r, "default_key_generate_params");

    if (r->status) {
        return -1;
    }

    for (c = params && params->type == J_OBJ ? params->head : NULL; c; c = c->next) {
        v = json_get(r->json, c->key);

        if (strcmp(c->key, "key_type") == 0
            && !json_is_null(json_get(r->json, "allowed_routes")))
        {
            continue;
        }

        if (json_is_null(v)
            || ((v->type == J_ARR || v->type == J_OBJ) && v->n == 0
                && (strcmp(c->key, "models") == 0
                    || strcmp(c->key, "metadata") == 0)))
        {
            json_set(r->json, c->key, json_copy(&r->a, c));
        }
    }

    return 0;
}


static int
policy_duration(const jv_t *v, int64_t *s)
{
    kt_duration_t  d;

    if (v->type != J_STR) {
        return -1;
    }

    if (strcmp(v->s, "-1") == 0) {
        *s = INT64_MAX;
        return 0;
    }

    if (kt_duration_parse(v->s, v->len, &d) != KT_OK) {
        return -1;
    }

    *s = kt_duration_add(&d, util_now_s()) - util_now_s();

    return 0;
}


/* What can not be read is over: it must not slip through. */

static int
policy_over(req_t *r, const jv_t *max, const jv_t *v)
{
    int      over, scale;
    int64_t  a, b;

    if (strcmp(max->key, "duration") == 0 || strcmp(max->key, "budget_duration") == 0)
    {
        over = policy_duration(max, &b) == 0
               && (policy_duration(v, &a) != 0 || a > b);

    } else {
        scale = strcmp(max->key, "max_budget") ? 0 : KT_MONEY_USD;
        over = (max->type == J_NUM || max->type == J_STR)
               && kt_money_parse(max->s, max->len, scale, &b) == KT_OK
               && ((v->type != J_NUM && v->type != J_STR)
                   || kt_money_parse(v->s, v->len, scale, &a) != KT_OK || a > b);
    }

    if (over) {
        fail_repr(r, 400, "%s is over max limit set in config - user_value=%s;"
                  " max_value=%s", max->key, v->s ? v->s : "?", max->s);
    }

    return over;
}


/* upperbound_key_generate_params: caps; on create they also fill what is null. */

static int
policy_upper(req_t *r, int create)
{
    size_t                    i;
    jv_t                     *v;
    const jv_t               *params, *max;
    static const char *const  names[] = {
        "max_budget", "budget_duration", "duration", "max_parallel_requests",
        "tpm_limit", "rpm_limit"
    };

    params = settings_get(r, "upperbound_key_generate_params");

    for (i = 0; params && i < sizeof(names) / sizeof(names[0]); i++) {
        max = json_get(params, names[i]);
        v = json_get(r->json, names[i]);

        if (json_is_null(max) || (v == NULL && !create)) {
            continue;
        }

        if (json_is_null(v) || (v->type == J_STR && v->len == 0)) {
            json_set(r->json, names[i], json_copy(&r->a, max));

        } else if (policy_over(r, max, v)) {
            return -1;
        }
    }

    return r->status ? -1 : 0;
}


int
key_defaults(req_t *r, int create)
{
    return (create && policy_defaults(r) != 0) || policy_upper(r, create) != 0
           ? -1 : 0;
}


/* team_member_key_duration of a team, NULL for none.  -1 after answering. */

static int
policy_team_duration(req_t *r, const char *team_id, const jv_t **max)
{
    jv_t       *o;
    PGresult   *res;

    *max = NULL;
    res = db_q("SELECT metadata->>'team_member_key_duration' FROM teams WHERE team_id = $1",
               team_id);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    if (PQntuples(res) && db_str(res, 0, 0)) {
        o = json_obj(&r->a);
        json_set(o, "duration", json_string(&r->a, arena_str(&r->a, db_str(res, 0, 0))));
        *max = o->head;
    }

    PQclear(res);

    return 0;
}


/* Does the key end within these seconds anyway?  -1 after answering. */

static int
policy_ends(req_t *r, const char *token, int64_t most)
{
    return db_is(r, "SELECT 1 FROM keys WHERE token = $1 AND expires <= now() + $2::bigint *"
                 " interval '1 second'", token, arena_printf(&r->a, "%" PRId64, most));
}


int
key_team_duration(req_t *r, const char *team_id, const char *token, int fill)
{
    int          rc;
    int64_t      most, asked;
    const jv_t  *v, *max;

    if (team_id == NULL || access_admin(r)) {
        return 0;
    }

    if (policy_team_duration(r, team_id, &max) != 0) {
        return -1;
    }

    v = json_get(r->json, "duration");

    if (max == NULL || policy_duration(max, &most) != 0 || (v == NULL && !fill)) {
        return 0;
    }

    if (!json_is_null(v) && policy_duration(v, &asked) == 0 && asked <= most) {
        return 0;
    }

    if (fill) {
        rc = token ? policy_ends(r, token, most) : 0;

        if (rc == 0) {
            json_set(r->json, "duration", json_string(&r->a, max->s));
        }

        return rc < 0 ? -1 : 0;
    }

    fail_proxy(r, 403, "auth_error", "duration", "Keys of members of team %s end after %s"
               " (team_member_key_duration)", team_id, max->s);

    return -1;
}
