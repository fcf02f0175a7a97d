/* What a member may be given: of the models of his team, of the budget of his organization. */

#include <string.h>
#include "db.h"
#include "grant.h"
#include "kt_money.h"


static const jv_t *
grant_column(req_t *r, PGresult *res, int col)
{
    const char  *err;

    return db_str(res, 0, col)
           ? json_parse_big(&r->a, PQgetvalue(res, 0, col),
                            (size_t) PQgetlength(res, 0, col), &err) : NULL;
}


int
grant_member_models(req_t *r, const char *team_id, const char *models)
{
    int          rc;
    PGresult    *res;
    const jv_t  *have, *want, *also;
    const char  *bad;

    res = db_q("SELECT kt_allowed(t.models, t.access_group_ids, '{*,all-proxy-models}'),"
               " kt_allowed(array_remove($2::text[], 'no-default-models'), '{}',"
               " '{*,all-proxy-models,all-team-models}'), kt_alias_map(t.model_aliases,"
               " t.router_settings) FROM teams t WHERE t.team_id = $1", team_id, models);

    if (!db_ok(res) || PQntuples(res) == 0) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    have = grant_column(r, res, 0);
    want = grant_column(r, res, 1);
    also = grant_column(r, res, 2);
    PQclear(res);

    if (want == NULL) {
        return 0;                        /* the team decides                   */
    }

    rc = grant_may(r, have, want, also, &bad);

    if (rc == 0) {
        fail_detail_error(r, 400, "allowed_models: '%.255s' is not a model of the team."
                          " team_id=%s", bad, team_id);
    }

    return rc > 0 ? 0 : -1;
}


int
grant_org_member(req_t *r, const char *org_id)
{
    int          over;
    int64_t      nusd;
    PGresult    *res;
    const char  *max;

    if (field_usd(r, "max_budget_in_organization", &nusd) <= 0) {
        return r->status ? -1 : 0;
    }

    res = db_q("SELECT coalesce(o.max_budget_nusd, b.max_budget_nusd), kt_usd(coalesce("
               "o.max_budget_nusd, b.max_budget_nusd)) FROM organizations o LEFT JOIN"
               " budgets b USING (budget_id) WHERE o.organization_id = $1", org_id);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    over = PQntuples(res) && db_str(res, 0, 0) && nusd > db_int(res, 0, 0);
    max = over ? arena_str(&r->a, db_str(res, 0, 1)) : "";
    PQclear(res);

    if (over) {
        fail_detail_error(r, 400, "max_budget_in_organization (%s) exceeds the max_budget"
                          " (%s) of the organization. Organization: %s",
                          json_get(r->json, "max_budget_in_organization")->s, max, org_id);
    }

    return over ? -1 : 0;
}
