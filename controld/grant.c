#include <inttypes.h>
#include <string.h>
#include "access.h"
#include "db.h"
#include "grant.h"
#include "grant_bound.h"
#include "kt_duration.h"
#include "kt_money.h"
#include "util.h"


const grant_number_t  grant_numbers[GRANT_NUMBERS] = {
    { "max_budget", KT_MONEY_USD },
    { "tpm_limit", 0 },
    { "rpm_limit", 0 },
    { "max_parallel_requests", 0 }
};


/*
 * Did the client say it himself?  What the defaults and upper bounds of the operator filled
 * in gives way to the bounds of the calling key instead of being refused.
 */

static int
grant_said(req_t *r, const char *name)
{
    const jv_t  *body;
    const char  *err;

    body = json_parse(&r->a, r->body.p, r->body.len, &err);

    return !json_is_null(json_get(body, name))
           || !json_is_null(json_get(json_get(body, "metadata"), name))
           || (strcmp(name, "allowed_routes") == 0
               && !json_is_null(json_get(body, "key_type")));
}


static int
grant_one_number(req_t *r, const bound_t *b, const char *name, int scale, int fill)
{
    int64_t      want, have;
    const jv_t  *v, *lim;

    lim = json_get(b->row, name);

    if (!grant_value(lim, scale, &have)) {
        return 0;
    }

    v = json_get(r->json, name);

    if (grant_value(v, scale, &want)
        && (want <= have || !fill || grant_said(r, name)))
    {
        return want > have ? grant_refuse(r, name, lim->s, b) : 0;
    }

    if (fill) {
        json_set(r->json, name, json_copy(&r->a, lim));
        return 0;
    }

    /* "null" would lift the limit that binds the caller's own key */

    return v && b->closed ? grant_refuse(r, name, lim->s, b) : 0;
}


/* What the key has of a list after this request. */

static const jv_t *
grant_list(req_t *r, const bound_t *own, const char *name, const char *was)
{
    const jv_t  *l;

    l = json_get(r->json, name);

    return l ? l : json_get(own->row, was);
}


int
grant_wanted(req_t *r, const bound_t *own, const jv_t **want)
{
    size_t       i;
    PGresult    *res;
    const jv_t  *c, *l;
    const char  *err, *text[2], **names;

    for (i = 0; i < 2; i++) {
        l = i ? grant_list(r, own, "access_group_ids", "own_groups")
              : grant_list(r, own, "models", "own_models");
        names = arena_alloc(&r->a, (l ? l->n + 1 : 1) * sizeof(char *));
        text[i] = "{}";

        if (l && l->type == J_ARR) {
            size_t  n = 0;

            for (c = l->head; c; c = c->next) {
                names[n++] = c->type == J_STR ? c->s : "";
            }

            text[i] = db_array(&r->a, names, n);
        }
    }

    res = db_q("SELECT kt_models($1::text[], $2::text[])", text[0], text[1]);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    *want = db_str(res, 0, 0) ? json_parse_big(&r->a, PQgetvalue(res, 0, 0),
                                               (size_t) PQgetlength(res, 0, 0), &err)
                              : NULL;
    PQclear(res);

    return 0;
}


static int
grant_models(req_t *r, const bound_t *b, const bound_t *now, int fill)
{
    int          rc, own, said;
    const jv_t  *have, *want, *models, *groups;
    const char  *bad;

    have = json_get(b->row, "models");
    models = grant_list(r, now, "models", "own_models");
    groups = grant_list(r, now, "access_group_ids", "own_groups");
    said = json_get(r->json, "models") || json_get(r->json, "access_group_ids");

    if (json_is_null(have) || (!said && !fill)) {
        return 0;
    }

    own = b->closed;

    if ((json_is_null(models) || models->n == 0)
        && (json_is_null(groups) || groups->n == 0))
    {
        if (own && fill) {
            json_set(r->json, "models", json_copy(&r->a, have));
        }

        /* empty is "whatever the user or team may": bounded at use */

        return own && !fill
               ? grant_refuse(r, "models", json_text(&r->a, have), b) : 0;
    }

    if (grant_wanted(r, now, &want) != 0) {
        return -1;
    }

    if (want == NULL && !own) {
        return 0;                        /* all-team-models: the team decides  */
    }

    rc = grant_may(r, have, want, json_get(b->row, "names"), &bad);

    if (rc == 0 && own && fill && !grant_said(r, "models")
        && !grant_said(r, "access_group_ids"))
    {
        json_set(r->json, "models", json_copy(&r->a, have));
        json_del(r->json, "access_group_ids");
        return 0;
    }

    return rc == 0 ? grant_refuse(r, "models", json_text(&r->a, have), b)
                   : rc > 0 ? 0 : -1;
}


/* Limits that are no single numbers, which a key passes on. */

static const char *const  grant_wholes[] = {
    "model_rpm_limit", "model_tpm_limit", "enforced_params", "model_max_budget",
    "budget_limits", "budget_duration", "allowed_routes", "budget_enforcement"
};

#define GRANT_WHOLES  (sizeof(grant_wholes) / sizeof(grant_wholes[0]))
#define GRANT_META    3                  /* the first are part of the metadata   */


static int
grant_silent(const jv_t *v)
{
    return json_is_null(v) || ((v->type == J_OBJ || v->type == J_ARR) && v->n == 0);
}


/*
 * A new key has such limits of its maker where the body does not say others; new metadata
 * of a key keeps what they were where it has none.  grant_less() judges what is said.
 */

static void
grant_pass(req_t *r, const bounds_t *b, int create)
{
    size_t       i;
    const jv_t  *have, *want, *meta;
    const char  *name;

    meta = json_get(r->json, "metadata");

    for (i = 0; i < GRANT_WHOLES; i++) {
        name = grant_wholes[i];
        have = json_get(create ? b->key.row : b->own.row, name);
        want = json_get(r->json, name);

        if (json_is_null(have) || (!create && (i >= GRANT_META || want || !meta))) {
            continue;
        }

        if (i < GRANT_META && (create ? grant_silent(want) : want == NULL)) {
            want = json_get(meta, name);
        }

        if (create ? grant_silent(want)
                     || (strcmp(name, "enforced_params") && !grant_said(r, name))
                   : want == NULL)
        {
            json_set(r->json, name, json_copy(&r->a, have));
        }
    }

    /* nor does a default make a budget renew that does not */

    if (create && !json_is_null(json_get(b->key.row, "max_budget"))
        && json_is_null(json_get(b->key.row, "budget_duration"))
        && !grant_said(r, "budget_duration"))
    {
        json_del(r->json, "budget_duration");
    }
}


/* A key does not outlive the key that makes it. */

static int
grant_expiry(req_t *r, const bound_t *b, int fill)
{
    int             over;
    int64_t         end, left;
    const jv_t     *lim, *v;
    kt_duration_t   d;

    lim = json_get(b->row, "expires_s");

    if (!grant_value(lim, 0, &end)) {
        return 0;
    }

    v = json_get(r->json, "duration");

    if (v == NULL && !fill) {
        return 0;
    }

    over = json_is_null(v) || v->type != J_STR || strcmp(v->s, "-1") == 0
           || (kt_duration_parse(v->s, v->len, &d) == KT_OK
               && kt_duration_add(&d, util_now_s()) > end);

    if (over && fill && !grant_said(r, "duration")) {

        /* one less: the row may be written in the next second */

        left = end - util_now_s() - 1;
        json_set(r->json, "duration",
                 json_string(&r->a, arena_printf(&r->a, "%" PRId64 "s",
                                                 left > 1 ? left : 1)));
        return 0;
    }

    return over ? grant_refuse(r, "duration", "the expiry of your key", b) : 0;
}


static int
grant_within(req_t *r, const bound_t *b, const bound_t *now, int fill)
{
    size_t  i;

    if (b->row == NULL) {
        return 0;
    }

    for (i = 0; i < GRANT_NUMBERS; i++) {
        if (grant_one_number(r, b, grant_numbers[i].name, grant_numbers[i].scale,
                             fill) != 0)
        {
            return -1;
        }
    }

    return grant_models(r, b, now, fill) != 0 || grant_expiry(r, b, fill) != 0 ? -1 : 0;
}


/*
 * The lists of members: of whom the key is for, and of whoever makes it, since what is
 * not his own key is not asked for his list at use.
 */

static int
grant_members(req_t *r, bounds_t *b, const char *user_id, const char *team_id, int create)
{
    int  rc;

    if (team_id == NULL) {
        return 0;
    }

    if (user_id && grant_bound(r, &b->holder, BOUND_MEMBER, team_id, user_id) != 0) {
        return -1;
    }

    if (create && user_id == NULL && grant_nobodys(r, team_id) != 0) {
        return -1;
    }

    if (r->caller_user == NULL || access_self(r, user_id)) {
        return 0;
    }

    rc = access_team_admin(r, team_id);

    if (rc == 0) {
        rc = grant_bound(r, &b->maker, BOUND_MEMBER, team_id, r->caller_user);
        b->maker.closed = 1;
    }

    return rc < 0 ? -1 : 0;
}


int
grant_key(req_t *r, const char *token, const char *user_id, const char *team_id,
    int create)
{
    bounds_t  b;

    if (access_admin(r)) {
        return 0;
    }

    memset(&b, 0, sizeof(b));

    if (grant_bound(r, &b.key, BOUND_KEY, r->caller_key, NULL) != 0
        || (token && grant_bound(r, &b.own, BOUND_KEY, token, NULL) != 0)
        || (team_id && grant_bound(r, &b.owner, BOUND_TEAM, team_id, NULL) != 0)
        || (team_id == NULL && user_id
            && grant_bound(r, &b.owner, BOUND_USER, user_id, NULL) != 0)
        || grant_members(r, &b, user_id, team_id, create) != 0)
    {
        return -1;
    }

    grant_service(r, &b.own);
    grant_pass(r, &b, create);

    return grant_within(r, &b.key, &b.own, create) != 0
           || grant_within(r, &b.owner, &b.own, 0) != 0
           || grant_within(r, &b.holder, &b.own, 0) != 0
           || grant_within(r, &b.maker, &b.own, create) != 0
           || grant_aliases(r, &b) != 0 || grant_fallbacks(r, &b) != 0 ? -1 : 0;
}


int
grant_team(req_t *r, const char *org_id)
{
    int          rc;
    size_t       i;
    bound_t      org;
    int64_t      want, have;
    const jv_t  *v, *lim, *models;
    const char  *bad;

    if (org_id == NULL) {
        return 0;
    }

    if (grant_bound(r, &org, BOUND_ORG, org_id, NULL) != 0) {
        return -1;
    }

    for (i = 0; i < 3; i++) {
        v = json_get(r->json, grant_numbers[i].name);
        lim = json_get(org.row, grant_numbers[i].name);

        if (grant_value(v, grant_numbers[i].scale, &want)
            && grant_value(lim, grant_numbers[i].scale, &have) && want > have)
        {
            fail_repr(r, 400, "Team %s (%s) exceeds organization's %s (%s)."
                      " Organization: %s", grant_numbers[i].name, v->s,
                      grant_numbers[i].name, lim->s, org_id);
            return -1;
        }
    }

    models = json_get(r->json, "models");

    if (json_is_null(models) || models->n == 0) {
        return 0;
    }

    rc = grant_may(r, json_get(org.row, "models"), models, NULL, &bad);

    if (rc == 0) {
        fail_repr(r, 400, "Model '%s' not in organization's allowed models."
                  " Organization: %s", bad, org_id);
    }

    return rc > 0 ? 0 : -1;
}
