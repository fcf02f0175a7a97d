#include <string.h>
#include "access.h"
#include "api.h"
#include "db.h"
#include "key.h"
#include "kt_money.h"
#include "kt_schema.h"
#include "owner.h"
#include "policy.h"
#include "tx.h"
#include "user.h"
#include "util.h"


const field_t  user_new_body[] = {
    { "user_id", F_ID, NULL, 0 },
    { "user_role", F_ENUM, NULL, 0, "proxy_admin|proxy_admin_viewer|org_admin|"
      "internal_user|internal_user_viewer" },
    { "metadata", F_OBJ, NULL, 0 },
    { "spend", F_USD, NULL, 0 },
    { "team_id", F_ID, NULL, 0 },
    { "teams", F_LIST, NULL, 0 },
    { "organizations", F_LIST, NULL, 0 },
    { "auto_create_key", F_BOOL, NULL, 0 },
    { "send_invite_email", F_BOOL, NULL, 0 },
    { "key_alias", F_NAME, NULL, 0 },
    { "duration", F_STR, NULL, 0 },
    { "config", F_OBJ, NULL, 0 },
    { "permissions", F_OBJ, NULL, 0 },
    { "aliases", F_OBJ, NULL, 0 },
    USER_FIELDS,
    { NULL, 0, NULL, 0 }
};

/* The key of a new user carries the limits, but not the user's budget. */

static const field_t  user_key_fields[] = {
    { "key_alias", F_NAME, "key_alias", 0 },
    { "models", F_STRS, "models", 1 },
    { "max_parallel_requests", F_INT, "max_parallel_requests", 0 },
    { "tpm_limit", F_INT, "tpm_limit", 0 },
    { "rpm_limit", F_INT, "rpm_limit", 0 },
    { "budget_duration", F_PERIOD, NULL, 0 },
    { "budget_enforcement", F_ENFORCE, "budget_enforcement", 0 },
    { "duration", F_EXPIRES, "expires", 0 },
    { "allowed_cache_controls", F_STRS, "allowed_cache_controls", 1 },
    { "config", F_OBJ, "config", 1 },
    { "permissions", F_OBJ, "permissions", 1 },
    { "aliases", F_OBJ, "aliases", 1 },
    { "blocked", F_BOOL, "blocked", 0 },
    { NULL, 0, NULL, 0 }
};

static int
user_check_free(req_t *r, const char *id, rowset_t *rs)
{
    int          taken;
    PGresult    *res;
    const char  *email;

    res = tx_q(r, "SELECT 1 FROM users WHERE user_id = $1 AND NOT implicit", id);

    if (res == NULL) {
        return -1;
    }

    taken = PQntuples(res) > 0;
    PQclear(res);

    if (taken) {
        fail_repr(r, 409, "User with id %s already exists", id);
        return -1;
    }

    email = json_str(r->json, "user_email");

    if (email == NULL) {
        return 0;
    }

    email = user_trim(&r->a, email);
    row_set(rs, "user_email", "text", email);
    res = tx_q(r, "SELECT 1 FROM users WHERE lower(user_email) = lower($1)", email);

    if (res == NULL) {
        return -1;
    }

    taken = PQntuples(res) > 0;
    PQclear(res);

    if (taken) {
        fail_repr(r, 409, "User with email %s already exists", email);
        return -1;
    }

    return 0;
}


static int
user_add_team(req_t *r, const char *user_id, const char *team_id,
    const char *role, const jv_t *budget)
{
    int          known;
    int64_t      nusd;
    PGresult    *res;
    const char  *id;

    res = tx_q(r, "SELECT 1 FROM teams WHERE team_id = $1 AND NOT implicit",
               team_id);

    if (res == NULL) {
        return -1;
    }

    known = PQntuples(res) > 0;
    PQclear(res);

    if (!known) {
        return 0;                        /* LiteLLM swallows a missing team    */
    }

    if (owner_member(r, team_id, user_id, role, NULL, 0) != 0) {
        return -1;
    }

    if (user_joined(r, user_id, team_id) != 0) {
        return -1;
    }

    if (json_is_null(budget)
        || kt_money_parse(budget->s ? budget->s : "", budget->len, KT_MONEY_USD, &nusd)
           != KT_OK || nusd < 0)
    {
        return 0;
    }

    id = owner_budget(r, NULL, nusd, -1, -1, -1, NULL);
    res = id ? tx_q(r, "UPDATE memberships SET budget_id = $3 WHERE team_id = $1 AND"
                    " user_id = $2", team_id, user_id, id) : NULL;
    PQclear(res);

    return res ? 0 : -1;
}


static int
user_teams(req_t *r, const char *user_id)
{
    const jv_t  *c;
    const char  *team, *role;

    team = json_str(r->json, "team_id");

    if (team) {
        return user_add_team(r, user_id, team, "user", NULL);
    }

    c = json_get(r->json, "teams");

    if (!json_is_null(c) && c->type != J_ARR) {
        fail_field(r, "teams", "list_type", "Input should be a valid list", c);
        return -1;
    }

    for (c = c ? c->head : NULL; c; c = c->next) {
        team = c->type == J_STR ? c->s : json_str(c, "team_id");
        role = json_str(c, "user_role");

        if (team == NULL) {
            fail_field(r, "teams", "string_type", "Input should be a valid string",
                       c);
            return -1;
        }

        if (user_add_team(r, user_id, team,
                          role && !strcmp(role, "admin") ? "admin" : "user",
                          json_get(c, "max_budget_in_team")) != 0)
        {
            return -1;
        }
    }

    return 0;
}


static int
user_organizations(req_t *r, const char *user_id)
{
    PGresult    *res;
    const jv_t  *c;

    c = json_get(r->json, "organizations");

    for (c = c && c->type == J_ARR ? c->head : NULL; c; c = c->next) {
        if (c->type != J_STR) {
            continue;
        }

        res = tx_q(r, "INSERT INTO organization_memberships (organization_id,"
                   " user_id, user_role) SELECT organization_id, $2,"
                   " 'internal_user' FROM organizations WHERE organization_id = $1"
                   " ON CONFLICT DO NOTHING", c->s, user_id);

        if (res == NULL) {
            return -1;
        }

        PQclear(res);
    }

    return 0;
}


static int
user_insert(req_t *r, rowset_t *rs, const char *id)
{
    PGresult  *res;

    res = tx_q(r, "DELETE FROM users WHERE user_id = $1 AND implicit", id);

    if (res == NULL) {
        return -1;
    }

    PQclear(res);
    row_set(rs, "user_id", "text", id);
    row_set(rs, "created_by", "text", tx_actor(r));
    row_set(rs, "updated_by", "text", tx_actor(r));
    res = tx_dynamic(r, row_insert(&r->a, "users", rs, "RETURNING ent"), rs->n,
                     rs->val);

    if (res == NULL) {
        return -1;
    }

    tx_touch(r, PQgetvalue(res, 0, 0));
    PQclear(res);

    /* the refs of the user's team keys depend on the user's own limits */

    res = tx_q(r, "UPDATE keys SET version = version WHERE user_id = $1"
               " AND team_id IS NOT NULL RETURNING ent", id);

    if (res == NULL) {
        return -1;
    }

    for (int i = 0; i < PQntuples(res); i++) {
        tx_touch(r, PQgetvalue(res, i, 0));
    }

    PQclear(res);

    return 0;
}


static void
user_reply(req_t *r, jv_t *row, key_new_t *k)
{
    jv_t                     *out, *c;
    size_t                    i;
    static const char *const  shown[] = {
        "user_id", "user_email", "user_alias", "user_role", "teams", "models",
        "max_budget", "spend", "max_parallel_requests", "tpm_limit", "rpm_limit",
        "budget_duration", "model_max_budget", "metadata", "created_at",
        "updated_at", "budget_enforcement"
    };

    out = k->row ? k->row : json_copy(&r->a, row);
    key_echo(r, out);

    for (i = 0; i < sizeof(shown) / sizeof(shown[0]); i++) {
        c = json_get(row, shown[i]);

        if (c) {
            json_set(out, shown[i], json_copy(&r->a, c));
        }
    }

    json_set(out, "key", json_string(&r->a, k->text ? k->text : ""));
    json_set(out, "token", json_null(&r->a));
    json_set(out, "token_id", json_null(&r->a));
    reply_json(r, 200, out);
}


static int
user_create(req_t *r, rowset_t *rs, const char *id, jv_t **row)
{
    int          rc;
    int64_t      spend;
    const char  *ent;
    PGresult    *res;

    if (user_check_free(r, id, rs) != 0 || user_insert(r, rs, id) != 0
        || user_teams(r, id) != 0 || user_organizations(r, id) != 0
        || user_row(r, id, row) != 0)
    {
        return -1;
    }

    res = tx_q(r, "SELECT ent FROM users WHERE user_id = $1", id);

    if (res == NULL) {
        return -1;
    }

    ent = arena_str(&r->a, PQgetvalue(res, 0, 0));
    PQclear(res);
    rc = field_usd(r, "spend", &spend);

    if (rc < 0 || (rc > 0 && spend > 0 && owner_seed(r, "users", ent, spend) != 0))
    {
        return -1;
    }

    if (rc > 0) {
        json_set(*row, "spend", json_usd(&r->a, spend));
    }

    if (owner_submeters(r, ent, *row) != 0) {
        return -1;
    }

    return tx_audit(r, "created", "LiteLLM_UserTable", id, NULL,
                    json_text(&r->a, *row));
}


void
api_user_new(req_t *r)
{
    int          make_key;
    jv_t        *row;
    rowset_t     rs;
    key_new_t    k;
    const jv_t  *v;
    const char  *id;

    memset(&rs, 0, sizeof(rs));
    memset(&k, 0, sizeof(k));
    make_key = 1;
    v = json_get(r->json, "user_id");

    if (!json_is_null(v) && (v->type != J_STR || !util_id_ok(v->s))) {
        fail_proxy(r, 400, "bad_request_error", "user_id", "user_id must be 1 to 255"
                   " bytes without control characters");
        return;
    }

    id = json_is_null(v) ? util_uuid(&r->a) : v->s;

    if (user_defaults(r) != 0 || field_bool(r, "auto_create_key", &make_key) < 0
        || owner_check_limits(r) != 0
        || fields_read(r, user_new_body, &rs, 1) != 0
        || fields_metadata(r, &rs, 1) != 0 || user_role(r, &rs) != 0
        || tx_begin(r) != 0 || user_create(r, &rs, id, &row) != 0
        || (make_key && key_create(r, user_key_fields, id,
                                   json_str(r->json, "team_id"), &k) != 0)
        || tx_commit(r) != 0)
    {
        return;
    }

    user_reply(r, row, &k);
}
