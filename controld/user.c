#include <inttypes.h>
#include <string.h>
#include "access.h"
#include "api.h"
#include "conf.h"
#include "db.h"
#include "kt_money.h"
#include "owner.h"
#include "password.h"
#include "settings.h"
#include "tx.h"
#include "user.h"
#include "util.h"


int
user_by_email(req_t *r, const char *email, const char **id)
{
    PGresult  *res;

    *id = NULL;
    res = tx_q(r, "SELECT user_id FROM users WHERE lower(user_email) = lower($1)"
               " AND NOT implicit", email);

    if (res == NULL) {
        return -1;
    }

    if (PQntuples(res)) {
        *id = arena_str(&r->a, PQgetvalue(res, 0, 0));
    }

    PQclear(res);

    return 0;
}


void
user_brief(jv_t *rows)
{
    jv_t  *c;

    for (c = rows->head; c; c = c->next) {
        if (json_get(c, "organization_memberships") == NULL) {
            json_del(c, "spend");
            json_del(c, "key_count");
        }
    }
}


jv_t *
user_rows(req_t *r, const char *ids)
{
    jv_t      *rows;
    PGresult  *res;

    res = access_reads_all(r)
          ? db_q("SELECT ent, kt_user_json(u) FROM users u WHERE user_id = ANY ($1::text[])"
                 " ORDER BY user_id", ids)
          : db_q("SELECT ent, kt_user_seen(u, $2) FROM users u WHERE user_id = ANY"
                 " ($1::text[]) ORDER BY user_id", ids,
                 r->caller_user ? r->caller_user : "");

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return NULL;
    }

    rows = owner_rows(r, res, 0, 1);
    PQclear(res);
    user_brief(rows);

    return rows;
}


int
user_row(req_t *r, const char *id, jv_t **row)
{
    PGresult    *res;
    const char  *err;

    *row = NULL;
    res = tx_q(r, "SELECT kt_user_json(u) FROM users u WHERE user_id = $1"
               " AND NOT implicit", id);

    if (res == NULL) {
        return -1;
    }

    if (PQntuples(res)) {
        *row = json_parse_big(&r->a, PQgetvalue(res, 0, 0),
                              (size_t) PQgetlength(res, 0, 0), &err);
    }

    PQclear(res);

    return 0;
}


int
user_role(req_t *r, rowset_t *rs)
{
    const char  *role;

    role = json_str(r->json, "user_role");

    if (role == NULL) {
        return 0;
    }

    if (strncmp(role, "proxy_admin", 11) == 0 && !access_admin(r)) {
        fail_proxy(r, 403, "auth_error", "user_role", "Only proxy admins can create"
                   " administrative users (proxy_admin, proxy_admin_viewer). Attempted"
                   " to create user with role: %s. Your role: %s", role,
                   access_role_name(r));
        return -1;
    }

    row_set(rs, "user_role", "text", role);

    return 0;
}


int
user_password(req_t *r, rowset_t *rs)
{
    const jv_t        *v, *min;
    const char        *hash;
    password_rules_t   rules;

    v = json_get(r->json, "password");

    if (json_is_null(v)) {
        return 0;
    }

    rules.min_length = 12;
    min = settings_get(r, "password_policy_min_length");

    if (min && min->type == J_NUM) {
        kt_int_parse(min->s, min->len, &rules.min_length);
    }

    rules.upper = settings_bool(r, "password_policy_require_uppercase", 1);
    rules.lower = settings_bool(r, "password_policy_require_lowercase", 1);
    rules.digit = settings_bool(r, "password_policy_require_digit", 1);
    rules.special = settings_bool(r, "password_policy_require_special", 1);

    if (r->status) {
        return -1;
    }

    if (password_weak(v->s, &rules)) {
        fail_proxy(r, 400, "bad_request_error", "password", "The password must have at"
                   " least %" PRId64 " characters%s%s%s%s", rules.min_length,
                   rules.upper ? ", an upper case letter" : "",
                   rules.lower ? ", a lower case letter" : "",
                   rules.digit ? ", a digit" : "",
                   rules.special ? ", a special character" : "");
        return -1;
    }

    hash = password_hash(&r->a, v->s);

    if (hash == NULL) {
        fail_proxy(r, 500, r->err_type, NULL, "The password could not be hashed");
        return -1;
    }

    row_set(rs, "password_hash", "text", hash);

    return 0;
}


static int
user_is_empty(const jv_t *v)
{
    return json_is_null(v) || ((v->type == J_ARR || v->type == J_OBJ) && v->n == 0);
}


int
user_default_budget(req_t *r)
{
    const jv_t  *v;
    const char  *role;

    role = json_str(r->json, "user_role");

    if (role == NULL || strcmp(role, "internal_user") != 0) {
        return 0;
    }

    if (json_is_null(json_get(r->json, "max_budget"))) {
        v = settings_get(r, "max_internal_user_budget");

        if (v) {
            json_set(r->json, "max_budget", json_copy(&r->a, v));
        }
    }

    if (json_is_null(json_get(r->json, "budget_duration"))) {
        v = settings_get(r, "internal_user_budget_duration");

        if (v) {
            json_set(r->json, "budget_duration", json_copy(&r->a, v));
        }
    }

    return r->status ? -1 : 0;
}


int
user_defaults(req_t *r)
{
    const jv_t  *params, *c;
    const char  *role;

    role = json_str(r->json, "user_role");

    if (role && strcmp(role, "proxy_admin") == 0) {
        return 0;
    }

    params = settings_get(r, "default_internal_user_params");

    if (r->status) {
        return -1;
    }

    for (c = params && params->type == J_OBJ ? params->head : NULL; c; c = c->next) {
        if (strcmp(c->key, "available_teams") != 0
            && user_is_empty(json_get(r->json, c->key)))
        {
            json_set(r->json, c->key, json_copy(&r->a, c));
        }
    }

    return user_default_budget(r);
}


/* A row for somebody that only an address or an id is known of. */

static int
user_make(req_t *r, const char *id, const char *email)
{
    jv_t        *sent;
    rowset_t     rs;
    PGresult    *res;

    sent = r->json;
    r->json = json_obj(&r->a);
    memset(&rs, 0, sizeof(rs));

    if (user_defaults(r) != 0 || fields_read(r, user_new_body, &rs, 1) != 0
        || user_role(r, &rs) != 0)
    {
        r->json = sent;
        return -1;
    }

    if (json_str(r->json, "user_role") == NULL) {
        row_set(&rs, "user_role", "text", "internal_user");
    }

    r->json = sent;
    row_set(&rs, "user_id", "text", id);
    row_set(&rs, "user_email", "text", email);
    row_set(&rs, "implicit", "boolean", "false");
    row_set(&rs, "created_by", "text", tx_actor(r));
    row_set(&rs, "updated_by", "text", tx_actor(r));
    res = tx_q(r, "DELETE FROM users WHERE user_id = $1 AND implicit", id);

    if (res == NULL) {
        return -1;
    }

    PQclear(res);
    res = tx_dynamic(r, row_insert(&r->a, "users", &rs, "RETURNING ent"), rs.n,
                     rs.val);

    if (res == NULL) {
        return -1;
    }

    tx_touch(r, PQgetvalue(res, 0, 0));
    PQclear(res);

    return tx_audit(r, "created", "LiteLLM_UserTable", id, NULL, NULL);
}


int
user_ensure(req_t *r, const char **id, const char *email)
{
    int          known;
    const char  *other;

    other = NULL;

    if (email && user_by_email(r, email, &other) != 0) {
        return -1;
    }

    if (*id == NULL) {
        if (other) {
            *id = other;
            return 0;
        }

        *id = util_uuid(&r->a);
        return user_make(r, *id, email);
    }

    if (other && strcmp(other, *id) != 0) {
        fail_detail_error(r, 400, "user_email '%s' and user_id '%s' do not belong to"
                          " the same user.", email, *id);
        return -1;
    }

    known = tx_is(r, "SELECT 1 FROM users WHERE user_id = $1 AND NOT implicit", *id);

    if (known < 0) {
        return -1;
    }

    return known ? 0 : user_make(r, *id, email);
}


int
user_joined(req_t *r, const char *user_id, const char *team_id)
{
    PGresult  *res;

    res = tx_q(r, "UPDATE users SET teams = array_append(array_remove(teams, $2), $2)"
               " WHERE user_id = $1", user_id, team_id);
    PQclear(res);

    return res ? 0 : -1;
}


int
user_left(req_t *r, const char *user_id, const char *team_id)
{
    PGresult  *res;

    res = tx_q(r, "UPDATE users SET teams = array_remove(teams, $2) WHERE user_id = $1",
               user_id, team_id);
    PQclear(res);

    return res ? 0 : -1;
}


const char *
user_trim(arena_t *a, const char *s)
{
    size_t  n;

    s += strspn(s, " \t");
    n = strlen(s);

    while (n && (s[n - 1] == ' ' || s[n - 1] == '\t')) {
        n--;
    }

    return arena_dup(a, s, n);
}
