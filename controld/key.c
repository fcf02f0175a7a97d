#include <inttypes.h>
#include <string.h>
#include "access.h"
#include "conf.h"
#include "grant.h"
#include "key.h"
#include "kt_key.h"
#include "kt_schema.h"
#include "owner.h"
#include "policy.h"
#include "settings.h"
#include "tx.h"
#include "util.h"


const char *
key_token(req_t *r, const char *sent)
{
    char  token[KT_KEY_TOKEN_LEN + 1];

    if (strncmp(sent, "sk-", 3) != 0) {
        return sent;
    }

    kt_key_token(sent, strlen(sent), token);

    return arena_str(&r->a, token);
}


static int
key_found(PGresult *res, req_t *r, key_ref_t *ref)
{
    memset(ref, 0, sizeof(*ref));

    if (PQntuples(res)) {
        ref->token = arena_str(&r->a, PQgetvalue(res, 0, 0));
        ref->user_id = arena_str(&r->a, db_str(res, 0, 1));
        ref->team_id = arena_str(&r->a, db_str(res, 0, 2));
        ref->version = db_int(res, 0, 3);
        ref->guaranteed = *PQgetvalue(res, 0, 4) == 't';
    }

    PQclear(res);

    return 0;
}


#define KEY_REF                                                               \
    "SELECT token, user_id, team_id, version, coalesce('guaranteed_throughput' IN"  \
    " (metadata->>'rpm_limit_type', metadata->>'tpm_limit_type'), false) FROM keys"


int
key_find(req_t *r, const char *sent, key_ref_t *ref)
{
    PGresult  *res;

    res = db_q(KEY_REF " WHERE token = kt_key_of($1)", key_token(r, sent));

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    return key_found(res, r, ref);
}


int
key_lock(req_t *r, const char *token, key_ref_t *ref)
{
    PGresult  *res;

    res = tx_q(r, KEY_REF " WHERE token = $1 FOR NO KEY UPDATE", token);

    return res ? key_found(res, r, ref) : -1;
}


int
key_hold_body(req_t *r, key_ref_t *ref, const char **sent)
{
    PGresult    *res;
    const jv_t  *v;
    const char  *alias;

    v = json_get(r->json, "key");
    alias = json_str(r->json, "key_alias");
    *sent = v && v->type == J_STR ? v->s : NULL;

    if (*sent) {
        return key_hold(r, *sent, ref);
    }

    if (alias == NULL) {
        fail_field(r, "key", "missing", "Field required", r->json);
        return -1;
    }

    res = db_q("SELECT coalesce(current_hash, token) FROM keys WHERE key_alias = $1",
               alias);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    *sent = PQntuples(res) ? arena_str(&r->a, PQgetvalue(res, 0, 0)) : "";
    PQclear(res);

    if (key_hold(r, *sent, ref) != 0) {
        return -1;
    }

    ref->by_alias = 1;

    return 0;
}


int
key_is_own(req_t *r, const key_ref_t *ref)
{
    return access_self(r, ref->user_id);
}


static const char *
key_masked(arena_t *a, const char *s)
{
    size_t  n;

    n = strlen(s);

    return n > 8 ? arena_printf(a, "%.4s****%s", s, s + n - 4) : "****";
}


const char *
key_text(req_t *r, const char *name)
{
    char           out[KT_KEY_LEN + 1];
    const jv_t    *v;
    unsigned char  rnd[KT_KEY_RANDOM_LEN];

    v = json_get(r->json, name);

    if (json_is_null(v)) {
        util_random(rnd, sizeof(rnd));
        kt_key_generate(KT_SHARD, rnd, out);
        return arena_str(&r->a, out);
    }

    if (v->type != J_STR) {
        fail_field(r, name, "string_type", "Input should be a valid string", v);
        return NULL;
    }

    if (strncmp(v->s, "sk-", 3) != 0) {
        fail_repr(r, 400, strcmp(name, "key") ? "New key must start with 'sk-'."
                  " Received: %s" : "Invalid key format. LiteLLM Virtual Key must start with"
                  " 'sk-'. Received: %s", key_masked(&r->a, v->s));
        return NULL;
    }

    if (settings_bool(r, "disable_custom_api_keys", 0)) {
        fail_repr(r, 403, "Custom API keys are disabled (disable_custom_api_keys). Leave"
                  " '%s' out.", name);
    }

    if (r->status) {
        return NULL;
    }

    if (strcmp(v->s, conf.master_key) == 0) {
        fail_repr(r, 400, "Invalid key. It can not be the master key.");
        return NULL;
    }

    switch (kt_key_custom_ok(v->s, v->len)) {

    case KT_OK:
        return v->s;

    case KT_RANGE:
        fail_repr(r, 400, "Invalid key format. A custom key needs at least 16 and"
                  " at most 253 characters after 'sk-'. Received: %s",
                  key_masked(&r->a, v->s));
        return NULL;

    default:
        fail_repr(r, 400, "Invalid key format. A custom key consists of letters,"
                  " digits, '_' and '-' after 'sk-', and one that begins with"
                  " " KT_KEY_PREFIX " needs a valid checksum. Received: %s",
                  key_masked(&r->a, v->s));
        return NULL;
    }
}


int
key_type(req_t *r)
{
    jv_t                     *list;
    size_t                    i;
    const jv_t               *v, *said;
    static const char *const  types[][2] = {
        { "llm_api", "llm_api_routes" },
        { "management", "management_routes" },
        { "read_only", "info_routes" },
        { "default", NULL }
    };

    v = json_get(r->json, "key_type");

    if (json_is_null(v)) {
        return 0;
    }

    for (i = 0; i < 4 && (v->type != J_STR || strcmp(v->s, types[i][0])); i++) { /* void */ }

    if (i == 4) {
        fail_field(r, "key_type", "enum", "Input should be 'llm_api', 'management',"
                   " 'read_only' or 'default'", v);
        return -1;
    }

    if (types[i][1] == NULL) {
        return 0;
    }

    list = json_arr(&r->a);
    json_push(list, json_string(&r->a, types[i][1]));
    said = json_get(r->json, "allowed_routes");

    if (!json_is_null(said) && said->n
        && strcmp(json_text(&r->a, said), json_text(&r->a, list)) != 0)
    {
        fail_proxy(r, 400, "bad_request_error", "key_type", "key_type %s stands for"
                   " allowed_routes %s: pass one of the two", v->s,
                   json_text(&r->a, list));
        return -1;
    }

    json_set(r->json, "allowed_routes", list);

    return 0;
}


/*
 * soft_budget makes a budgets row of its own and links it; the limits of the budget that
 * the key was to have, by itself or by default, go on in that row.
 */

static int
key_soft_budget(req_t *r, rowset_t *rs)
{
    int          rc;
    int64_t      soft;
    PGresult    *res;
    const char  *id, *of;

    rc = field_usd(r, "soft_budget", &soft);

    if (rc <= 0) {
        return rc;
    }

    of = json_str(r->json, "budget_id");
    id = owner_budget(r, NULL, -1, soft, -1, -1, NULL);

    if (id == NULL) {
        return -1;
    }

    row_set(rs, "budget_id", "text", id);
    res = of ? tx_q(r, "UPDATE budgets n SET max_budget_nusd = o.max_budget_nusd,"
                    " max_parallel_requests = o.max_parallel_requests, tpm_limit ="
                    " o.tpm_limit, rpm_limit = o.rpm_limit, model_max_budget ="
                    " o.model_max_budget, budget_duration = o.budget_duration,"
                    " period_kind = o.period_kind, period_len_s = o.period_len_s,"
                    " period_id = o.period_id, period_end_s = o.period_end_s,"
                    " budget_enforcement = o.budget_enforcement FROM budgets o WHERE"
                    " n.budget_id = $1 AND o.budget_id = $2 RETURNING 1", id, of) : NULL;
    PQclear(res);

    return of && res == NULL ? -1 : 0;
}


int
key_owners(req_t *r, const char *user_id, const char *team_id)
{
    if (user_id && owner_user(r, user_id) != 0) {
        return -1;
    }

    if (team_id && owner_team(r, team_id) != 0) {
        return -1;
    }

    return user_id && team_id
           ? owner_member(r, team_id, user_id, "user", NULL, 1) : 0;
}


int
key_row(req_t *r, const char *token, jv_t **row)
{
    PGresult    *res;
    const char  *err;

    res = tx_q(r, "SELECT kt_key_json(k) FROM keys k WHERE token = $1", token);

    if (res == NULL) {
        return -1;
    }

    *row = PQntuples(res) ? json_parse_big(&r->a, PQgetvalue(res, 0, 0),
                                           (size_t) PQgetlength(res, 0, 0), &err)
                          : NULL;
    PQclear(res);

    return 0;
}


int
key_same(const char *a, const char *b)
{
    return (a == NULL && b == NULL) || (a && b && strcmp(a, b) == 0);
}


/* The key is there already: 1 when it has the same owner, -1 after answering. */

static int
key_existing(req_t *r, key_new_t *k, const char *user_id, const char *team_id)
{
    if (key_row(r, k->token, &k->row) != 0) {
        return -1;
    }

    if (k->row == NULL || !key_same(json_str(k->row, "user_id"), user_id)
        || !key_same(json_str(k->row, "team_id"), team_id))
    {
        db_rollback();
        fail_repr(r, 400, "Key %s already exists and belongs to another owner.",
                  key_masked(&r->a, k->text));
        return -1;
    }

    k->existing = 1;
    reply_header(r, "x-keytoll-existing-key", "true");

    return 1;
}


/* The hash is one that a regenerated key has, or had. */

static int
key_hash_free(req_t *r, const char *hash)
{
    int  taken;

    taken = tx_is(r, "SELECT 1 FROM key_hashes WHERE hash = $1 UNION ALL SELECT 1 FROM keys"
                  " WHERE token = $1 AND current_hash IS NOT NULL", hash);

    if (taken < 0) {
        return -1;
    }

    if (taken) {
        fail_repr(r, 400, "This key is, or was, one that was regenerated. Choose"
                  " another.");
    }

    return taken ? -1 : 0;
}


static int
key_insert(req_t *r, rowset_t *rs, key_new_t *k)
{
    int          made;
    PGresult    *res;
    const char  *err;

    row_set(rs, "token", "text", k->token);
    row_set(rs, "key_name", "text",
            arena_printf(&r->a, "sk-...%s", k->text + strlen(k->text) - 4));
    row_set(rs, "created_by", "text", tx_actor(r));
    row_set(rs, "updated_by", "text", tx_actor(r));
    res = tx_dynamic(r, row_insert(&r->a, "keys", rs,
                     "ON CONFLICT (token) DO NOTHING RETURNING ent, kt_key_json(keys)"), rs->n,
                     rs->val);

    if (res == NULL) {
        return -1;
    }

    made = PQntuples(res) > 0;

    if (made) {
        tx_touch(r, PQgetvalue(res, 0, 0));
        k->row = json_parse_big(&r->a, PQgetvalue(res, 0, 1),
                                (size_t) PQgetlength(res, 0, 1), &err);
    }

    PQclear(res);

    return made;
}


int
key_create(req_t *r, const field_t *table, const char *user_id,
    const char *team_id, key_new_t *k)
{
    int          rc;
    int64_t      spend;
    rowset_t     rs;
    const char  *ent;

    memset(&rs, 0, sizeof(rs));
    memset(k, 0, sizeof(*k));
    k->text = key_text(r, "key");

    if (k->text == NULL || fields_read(r, table, &rs, 1) != 0
        || fields_metadata(r, &rs, 1) != 0)
    {
        return -1;
    }

    k->token = key_token(r, k->text);
    ent = arena_printf(&r->a, "key:%s", k->token);
    row_set(&rs, "user_id", "text", user_id);
    row_set(&rs, "team_id", "text", team_id);

    if (key_check(r, k->token) != 0 || key_soft_budget(r, &rs) != 0
        || key_owners(r, user_id, team_id) != 0)
    {
        return -1;
    }

    rc = json_is_null(json_get(r->json, "key")) || key_hash_free(r, k->token) == 0
         ? key_insert(r, &rs, k) : -1;

    if (rc > 0 && k->row == NULL) {
        fail_repr(r, 400, "The key is too large to be shown");
        return -1;
    }

    if (rc <= 0) {
        return rc < 0 || key_existing(r, k, user_id, team_id) < 0 ? -1 : 0;
    }

    rc = field_usd(r, "spend", &spend);

    if (rc < 0 || (rc > 0 && spend > 0 && owner_seed(r, "keys", ent, spend) != 0)
        || (owner_has_submeters(k->row)
            && owner_submeters(r, ent, k->row) != 0)
        || key_options_fit(r, k->token, k->row) != 0
        || key_guaranteed(r, k->token, NULL, k->row) != 0
        || tx_audit(r, "created", "LiteLLM_VerificationToken", k->token, NULL,
                    json_text(&r->a, k->row)) != 0)
    {
        return -1;
    }

    if (rc > 0) {
        json_set(k->row, "spend", json_usd(&r->a, spend));
    }

    return 0;
}


void
key_echo(req_t *r, jv_t *out)
{
    size_t                    i;
    const jv_t               *v, *meta;
    static const char *const  names[] = {
        "duration", "guardrails", "prompts", "tags", "enforced_params",
        "allowed_passthrough_routes", "allowed_vector_store_indexes",
        "rpm_limit_type", "tpm_limit_type", "model_rpm_limit", "model_tpm_limit",
        "mcp_rpm_limit", "tag_rpm_limit", "key_type", "send_invite_email",
        "disable_global_guardrails", "throttle_on_budget_exceeded",
        "budget_exceeded_throttle_percentage",
        "soft_budget"
    };

    meta = json_get(out, "metadata");

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        v = json_get(r->json, names[i]);
        v = json_is_null(v) ? json_get(meta, names[i]) : v;
        json_set(out, names[i], json_copy(&r->a, v));
    }
}


int
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


int
key_change(req_t *r, rowset_t *rs, const key_ref_t *ref, const char *action,
    jv_t **row)
{
    jv_t        *before;
    bound_t      was;
    const char  *ent;

    ent = arena_printf(&r->a, "key:%s", ref->token);

    if (key_row(r, ref->token, &before) != 0 || grant_now(r, ref->token, &was) != 0
        || key_check(r, ref->token) != 0 || key_write(r, rs, ref->token) != 0
        || grant_kept(r, ref->token, &was) != 0 || key_row(r, ref->token, row) != 0
        || owner_submeters(r, ent, *row) != 0
        || key_options_fit(r, ref->token, *row) != 0
        || key_guaranteed(r, ref->token, before, *row) != 0
        || tx_audit(r, action, "LiteLLM_VerificationToken", ref->token,
                    json_text(&r->a, before), json_text(&r->a, *row)) != 0)
    {
        return -1;
    }

    return 0;
}


void
key_spend(req_t *r, const char *token, jv_t *row)
{
    int64_t      used;
    const char  *ent;

    ent = arena_printf(&r->a, "key:%s", token);
    policy_used(&r->a, &ent, 1, &used);
    json_set(row, "spend", json_usd(&r->a, used));
}
