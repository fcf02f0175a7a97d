#include <inttypes.h>
#include <string.h>
#include "access.h"
#include "api.h"
#include "db.h"
#include "grant.h"
#include "kt_money.h"
#include "owner.h"
#include "policy.h"
#include "settings.h"
#include "team.h"
#include "tx.h"
#include "util.h"


const field_t  team_body[] = {
    { "team_id", F_ID, NULL, 0 },
    { "organization_id", F_STR, NULL, 0 },
    { "metadata", F_OBJ, NULL, 0 },
    { "members_with_roles", F_LIST, NULL, 0 },
    { "team_member_budget", F_USD, NULL, 0 },
    { "team_member_rpm_limit", F_INT, NULL, 0 },
    { "team_member_tpm_limit", F_INT, NULL, 0 },
    { "team_member_budget_duration", F_STR, NULL, 0 },
    { "team_alias", F_NAME, "team_alias", 0 },
    { "models", F_STRS, "models", 1 },
    { "max_budget", F_USD, "max_budget_nusd", 0 },
    { "soft_budget", F_USD, "soft_budget_nusd", 0 },
    { "max_parallel_requests", F_INT, "max_parallel_requests", 0 },
    { "tpm_limit", F_INT, "tpm_limit", 0 },
    { "rpm_limit", F_INT, "rpm_limit", 0 },
    { "budget_duration", F_PERIOD, NULL, 0 },
    { "budget_limits", F_LIST, "budget_limits", 1 },
    { "budget_enforcement", F_ENFORCE, "budget_enforcement", F_ADMIN },
    { "admins", F_STRS, "admins", 1 },
    { "members", F_STRS, "members", 1 },
    { "team_member_permissions", F_STRS, "team_member_permissions", 1 },
    { "access_group_ids", F_STRS, "access_group_ids", 1 },
    { "policies", F_STRS, "policies", 1 },
    { "blocked", F_BOOL, "blocked", 1 },
    { "model_aliases", F_OBJ, "model_aliases", 0 },
    { "model_max_budget", F_OBJ, "model_max_budget", 1 },
    { "router_settings", F_OBJ, "router_settings", 0 },
    { "tags", F_TAGS, NULL, 0 },
    { "guardrails", F_META, NULL, 0 },
    { "prompts", F_META, NULL, 0 },
    { "model_rpm_limit", F_META, NULL, 0 },
    { "model_tpm_limit", F_META, NULL, 0 },
    { "mcp_rpm_limit", F_META, NULL, F_REFUSED },
    { "rpm_limit_type", F_META, NULL, 0 },
    { "tpm_limit_type", F_META, NULL, 0 },
    { "allowed_passthrough_routes", F_META, NULL, F_ADMIN },
    { "allowed_vector_store_indexes", F_META, NULL, 0 },
    { "disable_global_guardrails", F_META, NULL, 0 },
    { "default_team_member_models", F_TAGS, NULL, 0 },
    { "team_member_key_duration", F_META, NULL, 0 },
    { "object_permission", F_EXTRA, NULL, F_REFUSED, "models" },
    { NULL, 0, NULL, 0 }
};

/* organization_id: "" and null unset it.  -1 after answering. */

static int
team_org(req_t *r, rowset_t *rs, const char **org)
{
    int          known;
    PGresult    *res;
    const jv_t  *v;

    v = json_get(r->json, "organization_id");

    if (v == NULL) {
        return 0;
    }

    *org = v->type == J_STR && v->len ? v->s : NULL;
    row_set(rs, "organization_id", "text", *org);

    if (*org == NULL) {
        return 0;
    }

    res = tx_q(r, "SELECT 1 FROM organizations WHERE organization_id = $1"
               " AND deleted_at IS NULL", *org);

    if (res == NULL) {
        return -1;
    }

    known = PQntuples(res) > 0;
    PQclear(res);

    if (!known) {
        fail_repr(r, 400, "Organization not found for organization_id=%s", *org);
        return -1;
    }

    return 0;
}


static int
team_check_soft(req_t *r, int64_t max, int64_t soft)
{
    if (max >= 0 && soft >= 0 && soft >= max) {
        fail_repr(r, 400, "soft_budget (%s) must be strictly lower than max_budget"
                  " (%s)", py_float(&r->a, soft), py_float(&r->a, max));
        return -1;
    }

    return 0;
}


int
team_row(req_t *r, const char *id, jv_t **row)
{
    PGresult    *res;
    const char  *err;

    res = tx_q(r, "SELECT kt_team_json(t) FROM teams t WHERE team_id = $1"
               " AND NOT implicit", id);

    if (res == NULL) {
        return -1;
    }

    *row = PQntuples(res) ? json_parse_big(&r->a, PQgetvalue(res, 0, 0),
                                           (size_t) PQgetlength(res, 0, 0), &err)
                          : NULL;
    PQclear(res);

    return 0;
}


/* Whoever makes a team gets what names it already: that is for proxy admins. */

static int
team_adopts(req_t *r, const char *id)
{
    int  named;

    if (access_admin(r)) {
        return 0;
    }

    named = tx_is(r, "SELECT 1 FROM keys WHERE team_id = $1 UNION ALL SELECT 1 FROM"
                  " memberships WHERE team_id = $1 LIMIT 1", id);

    if (named > 0) {
        fail_repr(r, 403, "Team id = %s is that of keys or members already. Only proxy"
                  " admins can create it. Please use a different team id.", id);
    }

    return named ? -1 : 0;
}


/* A team without limits of its own may exist because a key named it. */

static int
team_insert(req_t *r, rowset_t *rs, const char *id, const char **ent)
{
    jv_t      *row;
    PGresult  *res;

    if (team_row(r, id, &row) != 0) {
        return -1;
    }

    if (row) {
        fail_repr(r, 400, "Team id = %s already exists. Please use a different team"
                  " id.", id);
        return -1;
    }

    res = tx_q(r, "DELETE FROM teams WHERE team_id = $1 AND implicit", id);

    if (res == NULL) {
        return -1;
    }

    PQclear(res);

    if (team_adopts(r, id) != 0) {
        return -1;
    }

    row_set(rs, "team_id", "text", id);
    row_set(rs, "created_by", "text", tx_actor(r));
    row_set(rs, "updated_by", "text", tx_actor(r));
    res = tx_dynamic(r, row_insert(&r->a, "teams", rs, "RETURNING ent"), rs->n,
                     rs->val);

    if (res == NULL) {
        return -1;
    }

    *ent = arena_str(&r->a, PQgetvalue(res, 0, 0));
    PQclear(res);
    tx_touch(r, *ent);

    return 0;
}


/* Keys of a team whose refs changed with its organization. */

static int
team_bump_keys(req_t *r, const char *id)
{
    int        i;
    PGresult  *res;

    res = tx_q(r, "UPDATE keys SET version = version WHERE team_id = $1"
               " RETURNING ent", id);

    if (res == NULL) {
        return -1;
    }

    for (i = 0; i < PQntuples(res); i++) {
        tx_touch(r, PQgetvalue(res, i, 0));
    }

    PQclear(res);

    return 0;
}


static int
team_is_empty(const jv_t *v)
{
    return json_is_null(v) || ((v->type == J_ARR || v->type == J_OBJ) && v->n == 0);
}


/* default_team_params, and the budget of default_team_settings, where unset. */

static int
team_defaults(req_t *r)
{
    const jv_t  *params, *c;

    params = settings_get(r, "default_team_params");

    for (c = params && params->type == J_OBJ ? params->head : NULL; c; c = c->next) {
        if (team_is_empty(json_get(r->json, c->key))) {
            json_set(r->json, c->key, json_copy(&r->a, c));
        }
    }

    params = r->status ? NULL : settings_get(r, "default_team_settings");
    c = params && params->type == J_ARR && params->head
        ? json_get(params->head, "max_budget") : NULL;

    if (c && json_is_null(json_get(r->json, "max_budget"))) {
        json_set(r->json, "max_budget", json_copy(&r->a, c));
    }

    return r->status ? -1 : 0;
}


static const char *
team_new_id(req_t *r)
{
    const jv_t  *v;

    v = json_get(r->json, "team_id");

    return json_is_null(v) ? util_uuid(&r->a) : v->s;
}


void
api_team_new(req_t *r)
{
    jv_t            *row;
    int64_t          max, soft;
    rowset_t         rs;
    const char      *id, *ent, *org;
    member_limit_t   m;

    memset(&rs, 0, sizeof(rs));
    max = soft = -1;
    org = NULL;
    id = team_new_id(r);

    if (access_org_admin(r, json_str(r->json, "organization_id")) <= 0) {
        fail_proxy(r, 403, "auth_error", "organization_id", "Only proxy admins and"
                   " admins of the organization can create teams");
        return;
    }

    if (team_defaults(r) != 0 || field_usd(r, "max_budget", &max) < 0
        || field_usd(r, "soft_budget", &soft) < 0
        || team_check_soft(r, max, soft) != 0 || team_member_limits(r, &m) != 0
        || owner_check_limits(r) != 0 || fields_read(r, team_body, &rs, 1) != 0
        || tx_begin(r) != 0 || team_org(r, &rs, &org) != 0
        || grant_team(r, org) != 0
        || team_member_budget(r, &rs, &m, id, NULL) != 0
        || fields_metadata(r, &rs, 1) != 0
        || team_insert(r, &rs, id, &ent) != 0 || team_members(r, id) != 0
        || team_creator(r, id) != 0 || team_row(r, id, &row) != 0
        || team_bump_keys(r, id) != 0
        || owner_submeters(r, ent, row) != 0
        || tx_audit(r, "created", "LiteLLM_TeamTable", id, NULL,
                    json_text(&r->a, row)) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    reply_json(r, 200, row);
}


const char *
team_id_of(req_t *r)
{
    const jv_t  *v;

    if (r->seg[0]) {
        return r->seg[0];
    }

    v = json_get(r->json, "team_id");

    if (json_is_null(v)) {
        fail_field(r, "team_id", "missing", "Field required", r->json);
        return NULL;
    }

    if (v->type != J_STR) {
        fail_field(r, "team_id", "string_type", "Input should be a valid string",
                   v);
        return NULL;
    }

    return v->s;
}


static int
team_write(req_t *r, rowset_t *rs, const char *id, const char **ent)
{
    int          i;
    PGresult    *res;
    const char  *sql;
    const char  *params[ROWSET_MAX + 1];

    row_expr(rs, "updated_at", "now()");
    row_set(rs, "updated_by", "text", tx_actor(r));
    sql = row_update(&r->a, "teams", rs, 1, "WHERE team_id = $1 RETURNING ent");
    params[0] = id;

    for (i = 0; i < rs->n; i++) {
        params[i + 1] = rs->val[i];
    }

    res = tx_dynamic(r, sql, rs->n + 1, params);

    if (res == NULL) {
        return -1;
    }

    *ent = arena_str(&r->a, PQgetvalue(res, 0, 0));
    PQclear(res);
    tx_touch(r, *ent);

    return 0;
}


static int64_t
team_money(const jv_t *row, const char *name)
{
    int64_t      v;
    const jv_t  *n;

    n = json_get(row, name);

    return !json_is_null(n)
           && kt_money_parse(n->s, n->len, KT_MONEY_USD, &v) == KT_OK ? v : -1;
}


/* Admins of the organization that has the team, and of the one that gets it. */

static int
team_may_update(req_t *r, const char *now, const char *org)
{
    int  rc;

    rc = access_org_admin(r, now);

    if (rc == 0) {
        fail_repr(r, 403, "You do not have access to this team");
    }

    if (rc <= 0) {
        return -1;
    }

    if (json_get(r->json, "organization_id") == NULL || access_admin(r)) {
        return 0;
    }

    rc = access_org_admin(r, org);

    if (rc == 0) {
        fail_repr(r, 403, "Only proxy admins and admins of organization_id=%s can move"
                  " a team there", org ? org : "None");
    }

    return rc > 0 ? 0 : -1;
}


/* What must hold before a team becomes one of an organization. */

static int
team_may_move(req_t *r, const char *team_id, const char *org)
{
    PGresult    *res;
    const char  *why;

    if (org == NULL) {
        return 0;
    }

    res = tx_q(r, "SELECT CASE WHEN kt_allowed(o.models, '{}', '{*,all-proxy-models}')"
               " IS NOT NULL AND kt_allowed(t.models, t.access_group_ids,"
               " '{*,all-proxy-models}') IS NULL THEN 'the team may use all models, the"
               " organization may not' WHEN t.max_budget_nusd > coalesce(o.max_budget_nusd,"
               " b.max_budget_nusd) OR t.tpm_limit > coalesce(o.tpm_limit, b.tpm_limit)"
               " OR t.rpm_limit > coalesce(o.rpm_limit, b.rpm_limit) THEN 'limits of the"
               " team are above those of the organization' ELSE (SELECT 'Team has user_id '"
               " || json_agg(m.user_id)::text || ' that is not a member of the"
               " organization.' FROM memberships m WHERE m.team_id = t.team_id AND NOT"
               " m.implicit AND NOT EXISTS (SELECT 1 FROM organization_memberships x WHERE"
               " x.organization_id = o.organization_id AND x.user_id = m.user_id)"
               " AND m.user_id <> 'default_user_id' HAVING count(*) > 0) END"
               " FROM teams t, organizations o LEFT JOIN budgets b USING (budget_id)"
               " WHERE t.team_id = $1 AND o.organization_id = $2 AND t.organization_id IS"
               " DISTINCT FROM o.organization_id", team_id, org);

    if (res == NULL) {
        return -1;
    }

    why = PQntuples(res) && db_str(res, 0, 0) ? arena_str(&r->a, db_str(res, 0, 0))
                                              : NULL;
    PQclear(res);

    if (why) {
        fail_repr(r, 403, "Cannot move team to organization. %s", why);
    }

    return why ? -1 : 0;
}


/* JSON merge patch: an object is merged into the one that is there, which is locked. */

static int
team_merge(req_t *r, const char *id)
{
    jv_t        *meta;
    PGresult    *res;
    const char  *err;

    meta = json_get(r->json, "metadata");

    if (strcmp(r->method, "PATCH") != 0 || json_is_null(meta)) {
        return 0;
    }

    res = tx_q(r, "SELECT kt_merge_patch(metadata, $2::jsonb) FROM teams WHERE team_id ="
               " $1", id, json_text(&r->a, meta));

    if (res == NULL) {
        return -1;
    }

    meta = json_parse_big(&r->a, PQgetvalue(res, 0, 0),
                          (size_t) PQgetlength(res, 0, 0), &err);
    PQclear(res);
    json_set(r->json, "metadata", meta ? meta : json_obj(&r->a));

    return 0;
}


static int
team_update_tx(req_t *r, rowset_t *rs, const member_limit_t *m, const char *id,
    jv_t **row)
{
    int          moves;
    jv_t        *before;
    PGresult    *res;
    int64_t      version;
    const char  *ent, *org, *now, *budget;

    res = tx_q(r, "SELECT organization_id, version, member_budget_id FROM teams WHERE"
               " team_id = $1 AND NOT implicit FOR NO KEY UPDATE", id);

    if (res == NULL) {
        return -1;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        access_scoped(r);
        fail_repr(r, 404, "Team not found, passed team_id=%s", id);
        return -1;
    }

    now = arena_str(&r->a, db_str(res, 0, 0));
    version = db_int(res, 0, 1);
    budget = arena_str(&r->a, db_str(res, 0, 2));
    PQclear(res);
    org = NULL;

    if (team_row(r, id, &before) != 0 || team_merge(r, id) != 0 || team_org(r, rs, &org) != 0) {
        return -1;
    }

    moves = json_get(r->json, "organization_id") != NULL;

    if (team_may_update(r, now, org) != 0 || tx_match(r, version) != 0
        || (moves && team_may_move(r, id, org) != 0)
        || grant_team(r, moves ? org : now) != 0
        || team_member_budget(r, rs, m, id, budget) != 0
        || fields_metadata(r, rs, 0) != 0 || team_write(r, rs, id, &ent) != 0
        || team_row(r, id, row) != 0
        || team_check_soft(r, team_money(*row, "max_budget"),
                           team_money(*row, "soft_budget")) != 0
        || owner_submeters(r, ent, *row) != 0
        || tx_audit(r, "updated", "LiteLLM_TeamTable", id,
                    json_text(&r->a, before), json_text(&r->a, *row)) != 0
        || (moves && team_bump_keys(r, id) != 0))
    {
        return -1;
    }

    return tx_commit(r);
}


void
team_spend(req_t *r, const char *id, jv_t *row)
{
    int64_t      used;
    PGresult    *res;
    const char  *ent;

    res = db_q("SELECT kt_ent('team', $1)", id);
    ent = db_ok(res) ? arena_str(&r->a, PQgetvalue(res, 0, 0)) : "";
    PQclear(res);
    policy_used(&r->a, &ent, 1, &used);
    json_set(row, "spend", json_usd(&r->a, used));
}


static jv_t *
team_update(req_t *r, const char *id)
{
    jv_t            *row;
    rowset_t         rs;
    member_limit_t   m;

    memset(&rs, 0, sizeof(rs));

    if (id == NULL || team_member_limits(r, &m) != 0
        || owner_check_limits(r) != 0 || fields_read(r, team_body, &rs, 0) != 0
        || tx_begin(r) != 0 || team_update_tx(r, &rs, &m, id, &row) != 0)
    {
        return NULL;
    }

    team_spend(r, id, row);

    return row;
}


void
api_team_update(req_t *r)
{
    jv_t        *row, *out;
    const char  *id;

    id = team_id_of(r);
    row = team_update(r, id);

    if (row) {
        out = json_obj(&r->a);
        json_set(out, "team_id", json_string(&r->a, id));
        json_set(out, "data", row);
        reply_json(r, 200, out);
    }
}


void
api_team_patch(req_t *r)
{
    jv_t  *row;

    row = team_update(r, team_id_of(r));

    if (row) {
        reply_json(r, 200, row);
    }
}
