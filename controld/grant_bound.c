/* Rows that bound a grant, and how it is refused. */

#include "db.h"
#include "grant_bound.h"
#include "kt_money.h"


#define BOUND_SQL_KEY                                                             \
    "SELECT json_build_object('max_budget', kt_usd(coalesce(k.max_budget_nusd," \
    " b.max_budget_nusd)), 'tpm_limit', coalesce(k.tpm_limit, b.tpm_limit),"  \
    " 'rpm_limit', coalesce(k.rpm_limit, b.rpm_limit), 'max_parallel_requests'," \
    " coalesce(k.max_parallel_requests, b.max_parallel_requests), 'models',"  \
    " kt_models(k.models, k.access_group_ids), 'allowed_routes',"             \
    " nullif(k.allowed_routes, '{}'), 'own_models', to_json(k.models),"      \
    " 'own_groups', to_json(k.access_group_ids), 'expires_s', floor(extract(epoch FROM"  \
    " k.expires))::bigint, 'budget_duration', coalesce(k.budget_duration,"    \
    " b.budget_duration), 'model_max_budget', nullif(coalesce(nullif("        \
    "k.model_max_budget, '{}'), b.model_max_budget), '{}'), 'budget_limits'," \
    " nullif(k.budget_limits, '[]'), 'enforced_params', nullif("             \
    "k.metadata->'enforced_params', '[]'), 'throttle', kt_throttle("          \
    "k.metadata), 'service_account_id', k.metadata->'service_account_id',"    \
    " 'model_rpm_limit',"                                                     \
    " k.metadata->'model_rpm_limit', 'model_tpm_limit',"                      \
    " k.metadata->'model_tpm_limit', 'strict', kt_strict(coalesce("           \
    "k.budget_enforcement, b.budget_enforcement)), 'budget_enforcement', nullif(" \
    "coalesce(k.budget_enforcement, b.budget_enforcement), 'last_call')," \
    " 'permissions', nullif("    \
    "k.permissions, '{}'), 'config', nullif(k.config, '{}'),"                 \
    " 'allowed_passthrough_routes', k.metadata->'allowed_passthrough_routes'," \
    " 'temp', kt_usd(kt_temp_nusd(k.metadata)::bigint), 'reach', (SELECT"     \
    " json_agg(x) FROM (SELECT value FROM jsonb_each_text(kt_alias_map("      \
    "k.aliases, k.router_settings)) UNION SELECT jsonb_array_elements_text("  \
    "value) FROM jsonb_each(kt_falls(k.extra->'budget_fallbacks'))) y(x)))"   \
    " FROM keys k LEFT JOIN budgets b USING"                                  \
    " (budget_id) WHERE k.token = $1"

#define BOUND_SQL_USER                                                            \
    "SELECT json_build_object('max_budget', kt_usd(max_budget_nusd),"         \
    " 'tpm_limit', tpm_limit, 'rpm_limit', rpm_limit, 'max_parallel_requests'," \
    " max_parallel_requests, 'models', kt_user_models(models), 'budget_duration'," \
    " budget_duration, 'model_max_budget', nullif(model_max_budget, '{}'),"   \
    " 'budget_limits', nullif(budget_limits, '[]'), 'model_rpm_limit',"       \
    " metadata->'model_rpm_limit', 'model_tpm_limit', metadata->'model_tpm_limit'," \
    " 'strict', kt_strict(budget_enforcement)) FROM users WHERE user_id = $1"

#define BOUND_SQL_TEAM                                                            \
    "SELECT json_build_object('max_budget', kt_usd(max_budget_nusd),"         \
    " 'tpm_limit', tpm_limit, 'rpm_limit', rpm_limit, 'max_parallel_requests'," \
    " max_parallel_requests, 'models', kt_allowed(models, access_group_ids,"  \
    " '{*,all-proxy-models}'), 'names', kt_alias_map(model_aliases,"          \
    " router_settings)) FROM teams WHERE team_id = $1"

#define BOUND_SQL_MEMBER                                                          \
    "SELECT json_build_object('models', kt_and_meant(kt_allowed("             \
    "m.allowed_models, '{}', '{*,all-proxy-models,all-team-models}'),"        \
    " t.model_aliases, t.router_settings)) FROM memberships m LEFT JOIN teams t" \
    " USING (team_id) WHERE m.team_id = $1 AND m.user_id = $2"

#define BOUND_SQL_ORG                                                             \
    "SELECT json_build_object('max_budget', kt_usd(coalesce(o.max_budget_nusd," \
    " b.max_budget_nusd)), 'tpm_limit', coalesce(o.tpm_limit, b.tpm_limit),"  \
    " 'rpm_limit', coalesce(o.rpm_limit, b.rpm_limit), 'models',"             \
    " kt_allowed(o.models, '{}', '{*,all-proxy-models}')) FROM organizations o" \
    " LEFT JOIN budgets b USING (budget_id) WHERE o.organization_id = $1"


static const struct {
    const char  *what;
    const char  *sql;
} bound_rows[] = {
    [BOUND_KEY] = { "key", BOUND_SQL_KEY },
    [BOUND_USER] = { "user", BOUND_SQL_USER },
    [BOUND_TEAM] = { "team", BOUND_SQL_TEAM },
    [BOUND_MEMBER] = { "membership", BOUND_SQL_MEMBER },
    [BOUND_ORG] = { "organization", BOUND_SQL_ORG }
};


int
grant_bound(req_t *r, bound_t *b, bound_kind_t kind, const char *id, const char *of)
{
    int          known;
    PGresult    *res;
    const char  *err;

    b->what = bound_rows[kind].what;
    b->closed = kind == BOUND_KEY;
    b->row = NULL;
    res = db_query(bound_rows[kind].sql, of ? 2 : 1, (const char *const[]){ id, of });

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    if (PQntuples(res)) {
        b->row = json_parse_big(&r->a, PQgetvalue(res, 0, 0),
                                (size_t) PQgetlength(res, 0, 0), &err);
    }

    known = PQntuples(res);
    PQclear(res);

    if (known && b->row == NULL) {
        fail_repr(r, 500, "The limits of %s %s can not be read", b->what, id);
        return -1;
    }

    if (!known && kind == BOUND_KEY) {
        fail_proxy(r, 401, "auth_error", NULL, "Authentication Error, the key is gone");
        return -1;
    }

    return 0;
}


int
grant_value(const jv_t *v, int scale, int64_t *n)
{
    return !json_is_null(v) && (v->type == J_NUM || v->type == J_STR)
           && kt_money_parse(v->s, v->len, scale, n) == KT_OK;
}


int
grant_refuse(req_t *r, const char *name, const char *text, const bound_t *b)
{
    fail_proxy(r, 403, "auth_error", name, "%s exceeds what you have: %s is limited"
               " to %s by your %s", name, name, text, b->what);

    return -1;
}
