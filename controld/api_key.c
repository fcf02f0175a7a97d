#include <string.h>
#include "api.h"
#include "key.h"
#include "kt_key.h"
#include "owner.h"
#include "policy.h"
#include "tx.h"
#include "util.h"


/* Shared by generate and update; owners, expiry and spend are handled apart. */

#define KEY_FIELDS                                                            \
    { "key_alias", F_NAME, "key_alias", 0 },                                  \
    { "models", F_STRS, "models", 1 },                                        \
    { "max_budget", F_USD, "max_budget_nusd", 0 },                            \
    { "max_parallel_requests", F_INT, "max_parallel_requests", 0 },           \
    { "tpm_limit", F_INT, "tpm_limit", 0 },                                   \
    { "rpm_limit", F_INT, "rpm_limit", 0 },                                   \
    { "budget_duration", F_PERIOD, NULL, 0 },                                 \
    { "budget_limits", F_LIST, "budget_limits", 1 },                          \
    { "budget_enforcement", F_ENFORCE, "budget_enforcement", F_ADMIN },       \
    { "duration", F_EXPIRES, "expires", 0 },                                  \
    { "allowed_cache_controls", F_STRS, "allowed_cache_controls", 1 },        \
    { "config", F_OBJ, "config", F_NOTNULL | F_ADMIN },                       \
    { "permissions", F_OBJ, "permissions", F_NOTNULL | F_ADMIN },             \
    { "model_max_budget", F_OBJ, "model_max_budget", 1 },                     \
    { "aliases", F_OBJ, "aliases", 1 },                                       \
    { "blocked", F_BOOL, "blocked", 0 },                                      \
    { "budget_id", F_ID, "budget_id", F_ADMIN },                              \
    { "organization_id", F_ID, "organization_id", 0 },                        \
    { "allowed_routes", F_STRS, "allowed_routes", 1 },                        \
    { "policies", F_STRS, "policies", 1 },                                    \
    { "access_group_ids", F_STRS, "access_group_ids", 1 },                    \
    { "router_settings", F_OBJ, "router_settings", 0 },                       \
    { "auto_rotate", F_BOOL, "auto_rotate", 1 },                              \
    { "rotation_interval", F_STR, "rotation_interval", 0 },                   \
    { "model_rpm_limit", F_META, NULL, 0 },                                   \
    { "model_tpm_limit", F_META, NULL, 0 },                                   \
    { "rpm_limit_type", F_META, NULL, 0 },                                    \
    { "tpm_limit_type", F_META, NULL, 0 },                                    \
    { "guardrails", F_META, NULL, 0 },                                        \
    { "prompts", F_META, NULL, 0 },                                           \
    { "tags", F_TAGS, NULL, 0 },                                              \
    { "enforced_params", F_META, NULL, 0 },                                   \
    { "allowed_passthrough_routes", F_META, NULL, F_ADMIN },                  \
    { "allowed_vector_store_indexes", F_META, NULL, 0 },                      \
    { "disable_global_guardrails", F_META, NULL, 0 },                         \
    { "mcp_rpm_limit", F_META, NULL, 0 },                                     \
    { "tag_rpm_limit", F_META, NULL, 0 },                                     \
    { "object_permission", F_EXTRA, NULL, 0 },                                \
    { "agent_id", F_EXTRA, NULL, 0 },                                         \
    { "project_id", F_EXTRA, NULL, 0 },                                       \
    { "budget_fallbacks", F_EXTRA, NULL, 0 },                                 \
    { "throttle_on_budget_exceeded", F_EXTRA, NULL, 0 }

const field_t  key_generate_body[] = {
    KEY_FIELDS,
    { "key", F_STR, NULL, 0 },
    { "user_id", F_ID, NULL, 0 },
    { "team_id", F_ID, NULL, 0 },
    { "soft_budget", F_USD, NULL, 0 },
    { "spend", F_USD, NULL, F_ADMIN },
    { "metadata", F_OBJ, NULL, 0 },
    { "key_type", F_ENUM, NULL, 0, "llm_api|management|read_only|default" },
    { "send_invite_email", F_BOOL, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  key_update_body[] = {
    KEY_FIELDS,
    { "key", F_STR, NULL, 0 },
    { "spend", F_USD, NULL, F_ADMIN },
    { "metadata", F_OBJ, NULL, 0 },
    { "user_id", F_ID, "user_id", 0 },
    { "team_id", F_ID, "team_id", 0 },
    { "soft_budget", F_USD, "soft_budget_nusd", 0 },
    { "temp_budget_increase", F_META, NULL, F_ADMIN },
    { "temp_budget_expiry", F_META, NULL, F_ADMIN },
    { NULL, 0, NULL, 0 }
};

const field_t  key_delete_body[] = {
    { "keys", F_STRS, NULL, 0 },
    { "key_aliases", F_STRS, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  key_block_body[] = {
    { "key", F_ANY, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};


/* An id of the body: 0 and *id (NULL when absent or null), -1 after answering. */

static int
key_body_id(req_t *r, const char *name, const char **id)
{
    const jv_t  *v;

    *id = NULL;
    v = json_get(r->json, name);

    if (json_is_null(v)) {
        return 0;
    }

    if (v->type != J_STR) {
        fail_field(r, name, "string_type", "Input should be a valid string", v);
        return -1;
    }

    if (!util_id_ok(v->s)) {
        fail_proxy(r, 400, "bad_request_error", name, "%s must be 1 to 255 bytes"
                   " without control characters", name);
        return -1;
    }

    *id = v->s;

    return 0;
}


void
api_key_generate(req_t *r)
{
    jv_t        *out;
    key_new_t    k;
    const char  *user_id, *team_id;

    if (key_body_id(r, "user_id", &user_id) != 0
        || key_body_id(r, "team_id", &team_id) != 0
        || owner_check_limits(r) != 0 || tx_begin(r) != 0
        || key_create(r, key_generate_body, user_id, team_id, &k) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    out = k.row;
    key_echo(r, out);
    json_set(out, "key", json_string(&r->a, k.text));
    json_set(out, "token_id", json_string(&r->a, k.token));
    reply_json(r, 200, out);
}


/* The key that an update names: by key, or by alias.  NULL after answering. */

static const char *
key_target(req_t *r, const char **sent)
{
    PGresult    *res;
    const jv_t  *v;
    const char  *alias, *token;

    v = json_get(r->json, "key");
    alias = json_str(r->json, "key_alias");

    if (json_is_null(v) && alias) {
        res = tx_q(r, "SELECT token FROM keys WHERE key_alias = $1", alias);

        if (res == NULL) {
            return NULL;
        }

        token = PQntuples(res) ? arena_str(&r->a, PQgetvalue(res, 0, 0)) : "";
        PQclear(res);
        *sent = token;
        return token;
    }

    if (json_is_null(v)) {
        fail_field(r, "key", "missing", "Field required", r->json);
        return NULL;
    }

    if (v->type != J_STR) {
        fail_field(r, "key", "string_type", "Input should be a valid string", v);
        return NULL;
    }

    *sent = v->s;

    return key_token(r, v->s);
}


static int
key_temp_budget(req_t *r)
{
    if (!json_is_null(json_get(r->json, "temp_budget_increase"))
        != !json_is_null(json_get(r->json, "temp_budget_expiry")))
    {
        fail_field(r, NULL, "value_error", "Value error, temp_budget_increase and"
                   " temp_budget_expiry must be set together", r->json);
        return -1;
    }

    return 0;
}


static int
key_write(req_t *r, rowset_t *rs, const char *token)
{
    int          i;
    PGresult    *res;
    const char  *sql;
    const char  *params[ROWSET_MAX + 1];

    row_expr(rs, "updated_at", "now()");
    row_set(rs, "updated_by", "text", tx_actor(r));
    sql = row_update(&r->a, "keys", rs, 1,
                     "WHERE token = $1 RETURNING ent, user_id, team_id");
    params[0] = token;

    for (i = 0; i < rs->n; i++) {
        params[i + 1] = rs->val[i];
    }

    res = tx_dynamic(r, sql, rs->n + 1, params);

    if (res == NULL) {
        return -1;
    }

    tx_touch(r, PQgetvalue(res, 0, 0));
    i = key_owners(r, arena_str(&r->a, db_str(res, 0, 1)),
                   arena_str(&r->a, db_str(res, 0, 2)));
    PQclear(res);

    return i;
}


static int
key_update_tx(req_t *r, rowset_t *rs, const char *token, jv_t **row)
{
    jv_t  *before;

    if (key_row(r, token, &before) != 0) {
        return -1;
    }

    if (before == NULL) {
        fail_repr(r, 404, "Team not found, passed team_id=None");
        return -1;
    }

    if (key_check(r, token) != 0 || key_write(r, rs, token) != 0
        || key_row(r, token, row) != 0
        || owner_submeters(r, arena_printf(&r->a, "key:%s", token), *row) != 0
        || tx_audit(r, "updated", "LiteLLM_VerificationToken", token,
                    json_text(&r->a, before), json_text(&r->a, *row)) != 0)
    {
        return -1;
    }

    return tx_commit(r);
}


void
api_key_update(req_t *r)
{
    int          rc;
    jv_t        *row, *out, *c, *next;
    int64_t      spend, used;
    rowset_t     rs;
    const char  *token, *sent, *ent;

    memset(&rs, 0, sizeof(rs));
    sent = NULL;
    rc = field_usd(r, "spend", &spend);

    if (rc < 0 || key_temp_budget(r) != 0 || owner_check_limits(r) != 0
        || fields_read(r, key_update_body, &rs, 0) != 0
        || fields_metadata(r, &rs, 0) != 0 || tx_begin(r) != 0)
    {
        return;
    }

    token = key_target(r, &sent);

    if (token == NULL || key_update_tx(r, &rs, token, &row) != 0) {
        return;
    }

    ent = arena_printf(&r->a, "key:%s", token);

    if (rc > 0 && owner_adjust(r, ent, spend) != 0) {
        return;
    }

    policy_used(&r->a, &ent, 1, &used);
    json_set(row, "spend", json_usd(&r->a, rc > 0 ? spend : used));
    out = json_obj(&r->a);
    json_set(out, "key", json_string(&r->a, sent));

    for (c = row->head; c; c = next) {
        next = c->next;
        json_set(out, c->key, c);
    }

    reply_json(r, 200, out);
}


/* Tokens that a delete names; NULL after answering. */

static const char *
key_delete_tokens(req_t *r, const jv_t **sent)
{
    size_t        i;
    const jv_t   *c;
    const char  **list;

    *sent = json_get(r->json, "keys");

    if (json_is_null(*sent)) {
        *sent = json_get(r->json, "key_aliases");
    }

    if (json_is_null(*sent)) {
        fail_field(r, NULL, "value_error", "Value error, At least one of 'keys' or"
                   " 'key_aliases' must be provided.", r->json);
        return NULL;
    }

    if ((*sent)->type != J_ARR) {
        fail_field(r, (*sent)->key, "list_type", "Input should be a valid list",
                   *sent);
        return NULL;
    }

    list = arena_alloc(&r->a, ((*sent)->n + 1) * sizeof(char *));

    for (i = 0, c = (*sent)->head; c; c = c->next) {
        if (c->type != J_STR) {
            fail_field(r, (*sent)->key, "string_type",
                       "Input should be a valid string", c);
            return NULL;
        }

        list[i++] = strcmp((*sent)->key, "keys") ? c->s : key_token(r, c->s);
    }

    return db_array(&r->a, list, i);
}


static int
key_delete_rows(req_t *r, PGresult *res)
{
    int          i, k, n;
    PGresult    *sub;
    const char  *ent;

    for (i = 0; i < PQntuples(res); i++) {
        ent = PQgetvalue(res, i, 0);

        if (tx_gone(r, ent) != 0
            || tx_audit(r, "deleted", "LiteLLM_VerificationToken", ent + 4,
                        PQgetvalue(res, i, 1), NULL) != 0)
        {
            return -1;
        }

        sub = tx_q(r, "DELETE FROM submeters WHERE owner = $1 RETURNING ent", ent);
        n = sub ? PQntuples(sub) : 0;

        for (k = 0; k < n; k++) {
            if (tx_gone(r, PQgetvalue(sub, k, 0)) != 0) {
                PQclear(sub);
                return -1;
            }
        }

        if (sub == NULL) {
            return -1;
        }

        PQclear(sub);
    }

    return 0;
}


void
api_key_delete(req_t *r)
{
    int          rc, n;
    jv_t        *out;
    PGresult    *res;
    const jv_t  *sent;
    const char  *list;

    list = key_delete_tokens(r, &sent);

    if (list == NULL || tx_begin(r) != 0) {
        return;
    }

    res = tx_q(r, "WITH gone AS (DELETE FROM keys WHERE token = ANY ($1::text[])"
               " OR (key_alias = ANY ($1::text[]) AND $2 = 'key_aliases')"
               " RETURNING keys AS k), kept AS (INSERT INTO deleted_keys (token, key_alias,"
               " user_id, team_id, organization_id, row, spend_nusd, deleted_by,"
               " deleted_by_api_key, litellm_changed_by)"
               " SELECT (k).token, (k).key_alias, (k).user_id, (k).team_id,"
               " (k).organization_id, kt_key_json(k)::jsonb, kt_used((k).ent,"
               " kt_period_id((k).period_kind, (k).period_len_s, (k).period_id,"
               " (k).period_end_s, kt_now_s())), $3, $4, $5 FROM gone)"
               " SELECT (k).ent, kt_key_json(k) FROM gone ORDER BY 1",
               list, sent->key, tx_actor(r), r->caller_token, r->changed_by);

    if (res == NULL) {
        return;
    }

    n = PQntuples(res);
    rc = key_delete_rows(r, res);
    PQclear(res);

    if (rc == 0 && n == 0) {
        fail_repr(r, 404, "No keys found");
        return;
    }

    if (rc != 0 || tx_commit(r) != 0) {
        return;
    }

    out = json_obj(&r->a);
    json_set(out, "deleted_keys", json_copy(&r->a, sent));
    reply_json(r, 200, out);
}


static int
key_format_ok(const char *s)
{
    size_t  n;

    n = strlen(s);

    if (n < 3 || n > 100) {
        return 0;
    }

    if (strncmp(s, "sk-", 3) == 0) {
        return n > 3 && strspn(s + 3, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnop"
                               "qrstuvwxyz0123456789_-") == n - 3;
    }

    return n == 64 && strspn(s, "0123456789abcdefABCDEF") == 64;
}


static void
key_set_blocked(req_t *r, int blocked)
{
    jv_t        *row;
    int64_t      used;
    PGresult    *res;
    const jv_t  *v;
    const char  *token, *ent;

    v = json_get(r->json, "key");

    if (json_is_null(v)) {
        fail_field(r, "key", "missing", "Field required", r->json);
        return;
    }

    if (v->type != J_STR || !key_format_ok(v->s)) {
        fail_proxy(r, 400, "bad_request_error", "key", "Invalid key format.");
        return;
    }

    token = key_token(r, v->s);

    if (tx_begin(r) != 0) {
        return;
    }

    res = tx_q(r, "UPDATE keys SET blocked = $2::boolean, status = CASE WHEN"
               " $2::boolean THEN status ELSE 'active' END, updated_at = now(),"
               " updated_by = $3 WHERE token = $1 RETURNING ent", token,
               blocked ? "true" : "false", tx_actor(r));

    if (res == NULL) {
        return;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        fail_proxy(r, 404, "not_found_error", "key", "Key %s not found",
                   strncmp(v->s, "sk-", 3) ? v->s : token);
        return;
    }

    tx_touch(r, PQgetvalue(res, 0, 0));
    PQclear(res);

    if (key_row(r, token, &row) != 0
        || tx_audit(r, blocked ? "blocked" : "unblocked",
                    "LiteLLM_VerificationToken", token, NULL, NULL) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    ent = arena_printf(&r->a, "key:%s", token);
    policy_used(&r->a, &ent, 1, &used);
    json_set(row, "spend", json_usd(&r->a, used));
    reply_json(r, 200, row);
}


void
api_key_block(req_t *r)
{
    key_set_blocked(r, 1);
}


void
api_key_unblock(req_t *r)
{
    key_set_blocked(r, 0);
}
