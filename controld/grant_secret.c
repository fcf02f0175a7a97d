/*
 * Who may have the secret of a key that is there already.  It is worth the rights of its
 * user everywhere, and the money of whoever it is charged to.
 */

#include <string.h>
#include "access.h"
#include "db.h"
#include "grant.h"
#include "grant_bound.h"
#include "tx.h"


/* What the owner $1 is and the caller $2 is not. */

#define SECRET_SQL_PLACES                                                         \
    "SELECT 1 FROM users WHERE user_id = $1 AND user_role NOT IN"             \
    " ('internal_user', 'internal_user_viewer') UNION ALL"                    \
    " SELECT 1 FROM organization_memberships m WHERE user_id = $1 AND NOT EXISTS" \
    " (SELECT 1 FROM organization_memberships x WHERE x.organization_id ="    \
    " m.organization_id AND x.user_id = $2 AND (m.user_role IS DISTINCT FROM"  \
    " 'org_admin' OR x.user_role = 'org_admin')) UNION ALL"                   \
    " SELECT 1 FROM memberships m WHERE user_id = $1 AND NOT implicit AND NOT EXISTS" \
    " (SELECT 1 FROM memberships x WHERE x.team_id = m.team_id AND x.user_id = $2" \
    " AND NOT x.implicit AND (m.role IS DISTINCT FROM 'admin' OR x.role = 'admin'))" \
    " LIMIT 1"

/* Whose place in one team, or in its organization, has limits that bind what he spends. */

#define SECRET_SQL_SPENDS                                                         \
    "SELECT 1 FROM memberships m LEFT JOIN teams t USING (team_id) JOIN budgets b ON" \
    " b.budget_id = coalesce(m.budget_id, t.member_budget_id) WHERE m.team_id = $1" \
    " AND m.user_id = $2 AND (b.max_budget_nusd IS NOT NULL OR b.rpm_limit IS NOT NULL" \
    " OR b.tpm_limit IS NOT NULL OR b.max_parallel_requests IS NOT NULL) UNION ALL" \
    " SELECT 1 FROM teams t JOIN organization_memberships o USING (organization_id)" \
    " JOIN budgets b ON b.budget_id = o.budget_id WHERE t.team_id = $1 AND o.user_id" \
    " = $2 AND b.max_budget_nusd IS NOT NULL LIMIT 1"

/* Teams of the owner $1 where the caller $2 has a list of models: both lists. */

#define SECRET_SQL_LISTS                                                          \
    "SELECT json_build_object('models', kt_and_meant(kt_allowed(x.allowed_models," \
    " '{}', '{*,all-proxy-models,all-team-models}'), t.model_aliases,"        \
    " t.router_settings)), json_build_object('models', kt_and_meant(kt_allowed(" \
    "m.allowed_models, '{}', '{*,all-proxy-models,all-team-models}'),"        \
    " t.model_aliases, t.router_settings)) FROM memberships m JOIN memberships x" \
    " USING (team_id) JOIN teams t USING (team_id) WHERE m.user_id = $1 AND"  \
    " x.user_id = $2 AND cardinality(x.allowed_models) > 0"


static int
secret_refuse(req_t *r, const char *what)
{
    fail_repr(r, 403, "You are not authorized to regenerate this key: %s", what);

    return -1;
}


static const jv_t *
secret_row(req_t *r, PGresult *res, int row, int col)
{
    const char  *err;

    return json_parse_big(&r->a, PQgetvalue(res, row, col),
                          (size_t) PQgetlength(res, row, col), &err);
}


/* In no team has the owner models that the caller has not. */

static int
secret_lists(req_t *r, const char *owner)
{
    int          i, rc;
    bound_t      have, want;
    PGresult    *res;
    const char  *name;

    res = db_q(SECRET_SQL_LISTS, owner, r->caller_user);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    for (i = 0, rc = 1; i < PQntuples(res) && rc > 0; i++) {
        memset(&have, 0, sizeof(have));
        memset(&want, 0, sizeof(want));
        have.row = secret_row(r, res, i, 0);
        want.row = secret_row(r, res, i, 1);
        rc = have.row && want.row ? grant_less(r, &have, &want, &name) : 0;
    }

    PQclear(res);

    return rc == 0 ? secret_refuse(r, "its user may use models that you may not")
                   : rc > 0 ? 0 : -1;
}


/* The owner is nothing, anywhere, that the caller is not. */

static int
secret_owner(req_t *r, const char *owner)
{
    int          more;
    bound_t      have, want;
    const char  *name;

    more = db_is(r, SECRET_SQL_PLACES, owner, r->caller_user);

    if (more) {
        return more < 0 ? -1 : secret_refuse(r, "its user has rights that you do not have");
    }

    if (secret_lists(r, owner) != 0
        || grant_bound(r, &have, BOUND_USER, r->caller_user, NULL) != 0
        || grant_bound(r, &want, BOUND_USER, owner, NULL) != 0)
    {
        return -1;
    }

    more = grant_less(r, &have, &want, &name);

    return more == 0 ? secret_refuse(r, "its user has limits that are above yours")
                     : more > 0 ? 0 : -1;
}


/* A key of a team that is not the caller's: what he has in the team binds it no longer. */

static int
secret_team(req_t *r, const key_ref_t *ref, const bound_t *key)
{
    int          rc;
    bound_t      mine;
    const jv_t  *list, *want;
    const char  *bad;

    rc = db_is(r, SECRET_SQL_SPENDS, ref->team_id, r->caller_user);

    if (rc) {
        return rc < 0 ? -1 : secret_refuse(r, "what you spend in its team is limited");
    }

    if (ref->user_id) {
        return 0;                        /* its user's list binds it           */
    }

    if (grant_bound(r, &mine, BOUND_MEMBER, ref->team_id, r->caller_user) != 0) {
        return -1;
    }

    list = json_get(mine.row, "models");
    want = json_get(key->row, "models");
    rc = grant_may(r, list, want, NULL, &bad);

    if (rc > 0) {
        want = json_get(key->row, "reach");
        rc = json_is_null(want) ? 1 : grant_may(r, list, want, NULL, &bad);
    }

    return rc == 0 ? secret_refuse(r, "it may use models that you may not")
                   : rc > 0 ? 0 : -1;
}


static int
secret_key(req_t *r, const bound_t *key, const bound_t *own)
{
    int          rc;
    const char  *name;

    rc = grant_less(r, key, own, &name);

    if (rc == 0) {
        fail_proxy(r, 403, "auth_error", name, "This key may do more than yours: %s",
                   name);
    }

    return rc > 0 ? 0 : -1;
}


int
grant_secret(req_t *r, const key_ref_t *ref)
{
    bound_t  key, own;

    if (access_admin(r) || strcmp(ref->token, r->caller_key) == 0) {
        return 0;
    }

    if (grant_bound(r, &key, BOUND_KEY, r->caller_key, NULL) != 0
        || grant_bound(r, &own, BOUND_KEY, ref->token, NULL) != 0
        || secret_key(r, &key, &own) != 0)
    {
        return -1;
    }

    if (key_is_own(r, ref)) {
        return 0;
    }

    if (ref->user_id && secret_owner(r, ref->user_id) != 0) {
        return -1;
    }

    return ref->team_id ? secret_team(r, ref, &own) : 0;
}
