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

#define SECRET_BOUND                                                              \
    "(b.max_budget_nusd IS NOT NULL OR b.rpm_limit IS NOT NULL OR b.tpm_limit IS NOT" \
    " NULL OR b.max_parallel_requests IS NOT NULL)"

/* Has the place of $2 in team $1, or in one where $3 is as well, limits of its own? */

#define SECRET_SQL_SPENDS                                                         \
    "SELECT 1 FROM memberships m JOIN teams t USING (team_id) JOIN budgets b ON" \
    " b.budget_id = coalesce(m.budget_id, t.member_budget_id) WHERE m.user_id = $2" \
    " AND (m.team_id = $1 OR EXISTS (SELECT 1 FROM memberships x WHERE x.team_id =" \
    " m.team_id AND x.user_id = $3 AND NOT x.implicit)) AND " SECRET_BOUND    \
    " UNION ALL SELECT 1 FROM organization_memberships o JOIN budgets b USING" \
    " (budget_id) WHERE o.user_id = $2 AND (o.organization_id IN (SELECT"     \
    " t.organization_id FROM teams t WHERE t.team_id = $1 OR EXISTS (SELECT 1 FROM" \
    " memberships x WHERE x.team_id = t.team_id AND x.user_id = $3 AND NOT"   \
    " x.implicit)) OR EXISTS (SELECT 1 FROM organization_memberships x WHERE" \
    " x.organization_id = o.organization_id AND x.user_id = $3)) AND "        \
    SECRET_BOUND " LIMIT 1"

/* Limits of user $1 that bind his keys of a team as well. */

#define SECRET_SQL_RATES                                                          \
    "SELECT 1 FROM users b WHERE user_id = $1 AND (rpm_limit IS NOT NULL OR"  \
    " tpm_limit IS NOT NULL OR max_parallel_requests IS NOT NULL)"

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


/*
 * The owner is nothing, anywhere, that the caller is not, and nothing limits the caller
 * where the owner's money would be spent.
 */

static int
secret_owner(req_t *r, const char *owner, const char *team_id)
{
    int          more;
    bound_t      have, want;
    const char  *name;

    more = db_is(r, SECRET_SQL_PLACES, owner, r->caller_user);

    if (more) {
        return more < 0 ? -1 : secret_refuse(r, "its user has rights that you do not have");
    }

    more = db_is(r, SECRET_SQL_SPENDS, team_id, r->caller_user, owner);

    if (more) {
        return more < 0 ? -1 : secret_refuse(r, "what you spend where its user is, is"
                                             " limited");
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


/*
 * What a caller who does not run the team spends there himself is limited: not so what
 * he spends by a key that is nobody's.
 */

int
grant_nobodys(req_t *r, const char *team_id)
{
    int  rc;

    if (r->caller_user == NULL) {
        return 0;                        /* the calling key bounds it          */
    }

    rc = access_team_admin(r, team_id);

    if (rc) {
        return rc < 0 ? -1 : 0;
    }

    rc = db_is(r, SECRET_SQL_SPENDS, team_id, r->caller_user, NULL);

    if (rc == 0) {
        rc = db_is(r, SECRET_SQL_RATES, r->caller_user);
    }

    if (rc > 0) {
        fail_repr(r, 403, "You are not authorized to have a service account key of team %s:"
                  " what you spend there yourself is limited", team_id);
    }

    return rc ? -1 : 0;
}


/* Of a service account: its models are those that the caller has in the team. */

static int
secret_service(req_t *r, const char *team_id, const bound_t *key)
{
    int          rc;
    bound_t      mine;
    const jv_t  *list, *want;
    const char  *bad;

    if (grant_nobodys(r, team_id) != 0
        || grant_bound(r, &mine, BOUND_MEMBER, team_id, r->caller_user) != 0)
    {
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

    if (ref->user_id) {
        return secret_owner(r, ref->user_id, ref->team_id);
    }

    return ref->team_id ? secret_service(r, ref->team_id, &own) : 0;
}
