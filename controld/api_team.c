#include <inttypes.h>
#include <string.h>
#include "api.h"
#include "db.h"
#include "kt_money.h"
#include "owner.h"
#include "policy.h"
#include "tx.h"
#include "util.h"


const arg_t  team_info_args[] = {
    { "team_id", F_STR, 0 },
    { NULL, 0, 0 }
};


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
    { "tpm_limit", F_INT, "tpm_limit", 0 },
    { "rpm_limit", F_INT, "rpm_limit", 0 },
    { "budget_duration", F_PERIOD, NULL, 0 },
    { "budget_limits", F_LIST, "budget_limits", 1 },
    { "budget_enforcement", F_ENFORCE, "budget_enforcement", 0 },
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
    { "mcp_rpm_limit", F_META, NULL, 0 },
    { "rpm_limit_type", F_META, NULL, 0 },
    { "tpm_limit_type", F_META, NULL, 0 },
    { "allowed_passthrough_routes", F_META, NULL, 0 },
    { "allowed_vector_store_indexes", F_META, NULL, 0 },
    { "disable_global_guardrails", F_META, NULL, 0 },
    { "default_team_member_models", F_META, NULL, 0 },
    { "team_member_key_duration", F_META, NULL, 0 },
    { "object_permission", F_EXTRA, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  team_id_body[] = {
    { "team_id", F_ANY, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};


typedef struct {
    int          present;           /* any of the member fields was sent        */
    int64_t      budget;
    int64_t      rpm;
    int64_t      tpm;
    const char  *duration;
} member_limits_t;


/* organization_id: "" and null unset it. 1 when *org was set, -1 answered. */

static int
team_org(req_t *r, rowset_t *rs)
{
    int          known;
    PGresult    *res;
    const jv_t  *v;

    v = json_get(r->json, "organization_id");

    if (v == NULL) {
        return 0;
    }

    if (v->type == J_NULL || (v->type == J_STR && v->len == 0)) {
        row_set(rs, "organization_id", "text", NULL);
        return 0;
    }

    if (v->type != J_STR) {
        fail_field(r, "organization_id", "string_type",
                   "Input should be a valid string", v);
        return -1;
    }

    res = tx_q(r, "SELECT 1 FROM organizations WHERE organization_id = $1", v->s);

    if (res == NULL) {
        return -1;
    }

    known = PQntuples(res) > 0;
    PQclear(res);

    if (!known) {
        fail_repr(r, 400, "Organization not found for organization_id=%s", v->s);
        return -1;
    }

    row_set(rs, "organization_id", "text", v->s);

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


static int
team_member_limits(req_t *r, member_limits_t *m)
{
    int  a, b, c;

    m->budget = m->rpm = m->tpm = -1;
    a = field_usd(r, "team_member_budget", &m->budget);
    b = a < 0 ? -1 : field_int(r, "team_member_rpm_limit", &m->rpm);
    c = b < 0 ? -1 : field_int(r, "team_member_tpm_limit", &m->tpm);
    m->duration = json_str(r->json, "team_member_budget_duration");
    m->present = a > 0 || b > 0 || c > 0 || m->duration;

    return c < 0 ? -1 : 0;
}


/* The budgets row of members without one of their own. */

static int
team_member_budget(req_t *r, rowset_t *rs, const member_limits_t *m,
    const char *team_id, const char *current)
{
    const char  *id;
    const char  *alias;

    if (!m->present) {
        return 0;
    }

    alias = json_str(r->json, "team_alias");
    id = current ? current : arena_printf(&r->a, "team-%.100s-budget-%.8s",
                                          alias && util_id_ok(alias) ? alias
                                          : team_id, util_uuid(&r->a));
    id = owner_budget(r, id, m->budget, -1, m->rpm, m->tpm, m->duration);

    if (id == NULL) {
        return -1;
    }

    row_set(rs, "member_budget_id", "text", id);

    if (rs->meta == NULL) {
        rs->meta = json_obj(&r->a);
    }

    json_set(rs->meta, "team_member_budget_id", json_string(&r->a, id));

    return 0;
}


static int
team_add_user(req_t *r, const char *team_id, const char *user_id,
    const char *email)
{
    PGresult  *res;

    res = tx_q(r, "INSERT INTO users (user_id, user_email, user_role, teams) VALUES"
               " ($1, $2, 'internal_user', ARRAY[$3]) ON CONFLICT (user_id) DO"
               " UPDATE SET teams = array_append(array_remove(users.teams, $3), $3),"
               " implicit = false RETURNING ent", user_id, email, team_id);

    if (res == NULL) {
        return -1;
    }

    tx_touch(r, PQgetvalue(res, 0, 0));
    PQclear(res);

    return 0;
}


/* The id that an e-mail address stands for; a new one when it is unknown. */

static const char *
team_email_user(req_t *r, const char *email)
{
    PGresult    *res;
    const char  *id;

    res = tx_q(r, "SELECT user_id FROM users WHERE lower(user_email) = lower($1)",
               email);

    if (res == NULL) {
        return NULL;
    }

    id = PQntuples(res) ? arena_str(&r->a, PQgetvalue(res, 0, 0))
                        : util_uuid(&r->a);
    PQclear(res);

    return id;
}


static int
team_members(req_t *r, const char *team_id)
{
    const jv_t  *list, *c;
    const char  *role, *id, *email;

    list = json_get(r->json, "members_with_roles");

    if (!json_is_null(list) && list->type != J_ARR) {
        fail_field(r, "members_with_roles", "list_type",
                   "Input should be a valid list", list);
        return -1;
    }

    for (c = list ? list->head : NULL; c; c = c->next) {
        role = json_str(c, "role");
        id = json_str(c, "user_id");
        email = json_str(c, "user_email");

        if (role == NULL || (strcmp(role, "admin") && strcmp(role, "user"))
            || (id == NULL && email == NULL) || (id && !util_id_ok(id))
            || (email && !util_id_ok(email)))
        {
            fail_field(r, "members_with_roles", "value_error", "Value error, every"
                       " member needs a role (admin or user) and a user_id or"
                       " user_email", c);
            return -1;
        }

        id = id ? id : team_email_user(r, email);

        if (id == NULL || team_add_user(r, team_id, id, email) != 0
            || owner_member(r, team_id, id, role, email, 0) != 0)
        {
            return -1;
        }
    }

    return 0;
}


static int
team_creator(req_t *r, const char *team_id)
{
    if (tx_actor(r) == NULL) {
        return 0;
    }

    if (owner_user(r, tx_actor(r)) != 0) {
        return -1;
    }

    return owner_member(r, team_id, tx_actor(r), "admin", NULL, 0);
}


static int
team_row(req_t *r, const char *id, jv_t **row)
{
    PGresult    *res;
    const char  *err;

    res = tx_q(r, "SELECT kt_team_json(t) FROM teams t WHERE team_id = $1"
               " AND NOT implicit", id);

    if (res == NULL) {
        return -1;
    }

    *row = PQntuples(res) ? json_parse(&r->a, PQgetvalue(res, 0, 0),
                                       (size_t) PQgetlength(res, 0, 0), &err)
                          : NULL;
    PQclear(res);

    return 0;
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


void
api_team_new(req_t *r)
{
    jv_t             *row;
    int64_t           max, soft;
    rowset_t          rs;
    const jv_t       *v;
    const char       *id, *ent;
    member_limits_t   m;

    memset(&rs, 0, sizeof(rs));
    max = soft = -1;
    v = json_get(r->json, "team_id");

    if (!json_is_null(v) && (v->type != J_STR || !util_id_ok(v->s))) {
        fail_proxy(r, 400, "bad_request_error", "team_id", "team_id must be 1 to 255"
                   " bytes without control characters");
        return;
    }

    id = json_is_null(v) ? util_uuid(&r->a) : v->s;

    if (field_usd(r, "max_budget", &max) < 0
        || field_usd(r, "soft_budget", &soft) < 0
        || team_check_soft(r, max, soft) != 0 || team_member_limits(r, &m) != 0
        || owner_check_limits(r) != 0 || fields_read(r, team_body, &rs, 1) != 0
        || tx_begin(r) != 0 || team_org(r, &rs) != 0
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


static const char *
team_id_of(req_t *r)
{
    const jv_t  *v;

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


static int
team_update_tx(req_t *r, rowset_t *rs, const member_limits_t *m, const char *id,
    jv_t **row)
{
    jv_t        *before;
    const char  *ent;

    if (team_row(r, id, &before) != 0) {
        return -1;
    }

    if (before == NULL) {
        fail_repr(r, 404, "Team not found, passed team_id=%s", id);
        return -1;
    }

    if (team_org(r, rs) != 0
        || team_member_budget(r, rs, m, id, json_str(json_get(before, "metadata"),
                                                     "team_member_budget_id")) != 0
        || fields_metadata(r, rs, 0) != 0 || team_write(r, rs, id, &ent) != 0
        || team_row(r, id, row) != 0
        || team_check_soft(r, team_money(*row, "max_budget"),
                           team_money(*row, "soft_budget")) != 0
        || owner_submeters(r, ent, *row) != 0
        || tx_audit(r, "updated", "LiteLLM_TeamTable", id,
                    json_text(&r->a, before), json_text(&r->a, *row)) != 0)
    {
        return -1;
    }

    if (json_get(r->json, "organization_id") && team_bump_keys(r, id) != 0) {
        return -1;
    }

    return tx_commit(r);
}


static void
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


void
api_team_update(req_t *r)
{
    jv_t             *row, *out;
    rowset_t          rs;
    const char       *id;
    member_limits_t   m;

    memset(&rs, 0, sizeof(rs));
    id = team_id_of(r);

    if (id == NULL || team_member_limits(r, &m) != 0
        || owner_check_limits(r) != 0 || fields_read(r, team_body, &rs, 0) != 0
        || tx_begin(r) != 0 || team_update_tx(r, &rs, &m, id, &row) != 0)
    {
        return;
    }

    team_spend(r, id, row);
    out = json_obj(&r->a);
    json_set(out, "team_id", json_string(&r->a, id));
    json_set(out, "data", row);
    reply_json(r, 200, out);
}


static void
team_set_blocked(req_t *r, int blocked)
{
    jv_t        *row;
    PGresult    *res;
    const char  *id;

    id = team_id_of(r);

    if (id == NULL || tx_begin(r) != 0) {
        return;
    }

    res = tx_q(r, "UPDATE teams SET blocked = $2::boolean, status = CASE WHEN"
               " $2::boolean THEN status ELSE 'active' END, updated_at = now(),"
               " updated_by = $3 WHERE team_id = $1 AND NOT implicit RETURNING ent",
               id, blocked ? "true" : "false", tx_actor(r));

    if (res == NULL) {
        return;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        fail_detail_error(r, 404, "Team not found, passed team_id=%s", id);
        return;
    }

    tx_touch(r, PQgetvalue(res, 0, 0));
    PQclear(res);

    if (team_row(r, id, &row) != 0
        || tx_audit(r, blocked ? "blocked" : "unblocked", "LiteLLM_TeamTable", id,
                    NULL, NULL) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    team_spend(r, id, row);
    reply_json(r, 200, row);
}


void
api_team_block(req_t *r)
{
    team_set_blocked(r, 1);
}


void
api_team_unblock(req_t *r)
{
    team_set_blocked(r, 0);
}


static jv_t *
team_list(req_t *r, const char *sql, const char *id)
{
    jv_t      *rows;
    PGresult  *res;

    res = db_dynamic(sql, 1, &id);

    if (!db_ok(res)) {
        db_log("team/info failed", res);
        PQclear(res);
        fail_db(r);
        return NULL;
    }

    rows = owner_rows(r, res, 0, 1);
    PQclear(res);

    return rows;
}


void
api_team_info(req_t *r)
{
    jv_t        *team, *keys, *members, *out;
    const char  *id;

    id = http_arg(r, "team_id");

    if (id == NULL) {
        fail_proxy(r, 422, "auth_error", NULL,
                   "{'message': 'Malformed request. No team id passed in.'}");
        return;
    }

    team = team_list(r, "SELECT t.ent, kt_team_json(t)::jsonb ||"
        " jsonb_build_object('team_member_budget_table', (SELECT kt_budget_json(b)"
        " FROM budgets b WHERE b.budget_id = t.member_budget_id))"
        " FROM teams t WHERE t.team_id = $1 AND NOT t.implicit", id);

    if (team == NULL) {
        return;
    }

    if (team->n == 0) {
        fail_proxy(r, 404, "auth_error", NULL, "{'message': %s}",
                   py_repr(&r->a, arena_printf(&r->a, "Team not found, passed team"
                                               " id: %s.", id)));
        return;
    }

    keys = team_list(r, "SELECT k.ent, kt_key_json(k) FROM keys k WHERE k.team_id ="
                     " $1 ORDER BY k.created_at, k.token", id);
    members = keys == NULL ? NULL
        : team_list(r, "SELECT m.ent, kt_membership_json(m) FROM memberships m"
                    " WHERE m.team_id = $1 AND NOT m.implicit"
                    " ORDER BY m.created_at", id);

    if (members == NULL) {
        return;
    }

    out = json_obj(&r->a);
    json_set(out, "team_id", json_string(&r->a, id));
    json_set(out, "team_info", team->head);
    json_set(out, "keys", keys);
    json_set(out, "team_memberships", members);
    reply_json(r, 200, out);
}
