#include <inttypes.h>
#include <string.h>
#include "access.h"
#include "api.h"
#include "conf.h"
#include "db.h"
#include "fields.h"
#include "kt_money.h"
#include "registry.h"
#include "seal.h"
#include "tx.h"
#include "util.h"


const arg_t  model_info_args[] = {
    { "litellm_model_id", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  models_args[] = {
    { "team_id", F_STR, 0 },
    { NULL, 0, 0 }
};


#define MODEL_CREATED  1677610602      /* LiteLLM's constant                   */


const field_t  model_new_body[] = {
    { "model_name", F_ANY, NULL, F_REQUIRED },
    { "litellm_params", F_ANY, NULL, F_REQUIRED },
    { "model_info", F_ANY, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  model_id_body[] = {
    { "id", F_ANY, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};


/* Copies params, secret values sealed.  NULL after answering. */

static jv_t *
model_seal(req_t *r, const jv_t *params, const char *id)
{
    jv_t        *o;
    const jv_t  *c;
    const char  *text;

    o = json_obj(&r->a);

    for (c = params->head; c; c = c->next) {
        if (!seal_is_secret(c->key) || json_is_null(c)
            || (c->type == J_STR && !strncmp(c->s, "os.environ/", 11)))
        {
            json_set(o, c->key, json_copy(&r->a, c));
            continue;
        }

        text = seal_text(&r->a, c->type == J_STR ? c->s : json_text(&r->a, c),
                         arena_printf(&r->a, "models|%s|%s", id, c->key));

        if (text == NULL) {
            fail_proxy(r, 500, r->err_type, NULL, "A secret could not be sealed");
            return NULL;
        }

        json_set(o, c->key, json_string(&r->a, text));
    }

    return o;
}


static int
model_price(req_t *r, rowset_t *rs, const jv_t *params, const char *name,
    const char *col)
{
    int64_t  v;

    v = registry_price(params, name);

    if (v == -2) {
        fail_repr(r, 400, "%s is not a price. Received: %.60s", name,
                  json_text(&r->a, json_get(params, name)));
        return -1;
    }

    if (v >= 0) {
        row_set(rs, col, "bigint", arena_printf(&r->a, "%" PRId64, v));
    }

    return 0;
}


static int
model_prices(req_t *r, rowset_t *rs, const jv_t *params, const jv_t *info)
{
    int64_t  out, in;

    out = registry_count(info, "max_output_tokens");
    in = registry_count(info, "max_input_tokens");

    if (out > 0) {
        row_set(rs, "max_output_tokens", "bigint",
                arena_printf(&r->a, "%" PRId64, out));
    }

    if (in > 0) {
        row_set(rs, "max_input_tokens", "bigint",
                arena_printf(&r->a, "%" PRId64, in));
    }

    return model_price(r, rs, params, "input_cost_per_token", "input_pusd")
           || model_price(r, rs, params, "output_cost_per_token", "output_pusd")
           || model_price(r, rs, params, "cache_read_input_token_cost",
                          "cache_read_pusd")
           || model_price(r, rs, params, "cache_creation_input_token_cost",
                          "cache_write_pusd")
           || model_price(r, rs, params, "output_cost_per_reasoning_token",
                          "reasoning_pusd") ? -1 : 0;
}


static int
model_check_body(req_t *r, const char **name, jv_t **params, jv_t **info)
{
    const jv_t  *v;

    v = json_get(r->json, "model_name");

    if (json_is_null(v) || v->type != J_STR) {
        fail_field(r, "model_name", v ? "string_type" : "missing",
                   v ? "Input should be a valid string" : "Field required",
                   v ? v : r->json);
        return -1;
    }

    if (!util_id_ok(v->s)) {
        fail_proxy(r, 400, "bad_request_error", "model_name", "model_name must be 1"
                   " to 255 bytes without control characters");
        return -1;
    }

    *name = v->s;
    *params = json_get(r->json, "litellm_params");

    if (json_is_null(*params) || (*params)->type != J_OBJ
        || json_str(*params, "model") == NULL)
    {
        fail_field(r, "litellm_params", "missing", "Field required", r->json);
        return -1;
    }

    *info = json_get(r->json, "model_info");

    if (json_is_null(*info)) {
        *info = json_obj(&r->a);

    } else if ((*info)->type != J_OBJ) {
        fail_field(r, "model_info", "dict_type",
                   "Input should be a valid dictionary", *info);
        return -1;
    }

    return 0;
}


static int
model_insert(req_t *r, rowset_t *rs, const char *id, const char **row)
{
    PGresult  *res;

    res = tx_dynamic(r, row_insert(&r->a, "models", rs, "ON CONFLICT DO NOTHING"
                     " RETURNING kt_model_json(models)"), rs->n, rs->val);

    if (res == NULL) {
        return -1;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        fail_repr(r, 400, "Model with id=%s already exists", id);
        return -1;
    }

    *row = arena_str(&r->a, PQgetvalue(res, 0, 0));
    PQclear(res);

    return 0;
}


void
api_model_new(req_t *r)
{
    jv_t        *params, *info, *sealed;
    rowset_t     rs;
    const char  *name, *id, *row;

    r->err_type = "auth_error";
    memset(&rs, 0, sizeof(rs));

    if (!conf.store_model_in_db) {
        fail_repr(r, 500, "Set `'STORE_MODEL_IN_DB='True'` in your env to enable"
                  " this feature.");
        return;
    }

    if (model_check_body(r, &name, &params, &info) != 0) {
        return;
    }

    id = json_str(info, "id");
    id = id && util_id_ok(id) ? id : util_uuid(&r->a);
    info = json_copy(&r->a, info);
    json_set(info, "id", json_string(&r->a, id));
    json_set(info, "db_model", json_bool(&r->a, 1));
    sealed = model_seal(r, params, id);

    if (sealed == NULL || model_prices(r, &rs, params, info) != 0) {
        return;
    }

    row_set(&rs, "model_id", "text", id);
    row_set(&rs, "model_name", "text", name);
    row_set(&rs, "source", "text", "api");
    row_set(&rs, "litellm_params", "jsonb", json_text(&r->a, sealed));
    row_set(&rs, "model_info", "jsonb", json_text(&r->a, info));
    row_set(&rs, "created_by", "text", "default_user_id");
    row_set(&rs, "updated_by", "text", "default_user_id");

    if (json_str(info, "mode")) {
        row_set(&rs, "mode", "text", json_str(info, "mode"));
    }

    if (tx_begin(r) != 0 || model_insert(r, &rs, id, &row) != 0
        || tx_audit(r, "created", "LiteLLM_ProxyModelTable", id, NULL, row) != 0)
    {
        return;
    }

    tx_registry(r);

    if (tx_commit(r) == 0) {
        reply_text(r, 200, "application/json", row);
    }
}


void
api_model_delete(req_t *r)
{
    PGresult    *res;
    const jv_t  *v;
    const char  *before;

    r->err_type = "auth_error";
    v = json_get(r->json, "id");

    if (json_is_null(v) || v->type != J_STR) {
        fail_field(r, "id", v ? "string_type" : "missing",
                   v ? "Input should be a valid string" : "Field required",
                   v ? v : r->json);
        return;
    }

    if (tx_begin(r) != 0) {
        return;
    }

    res = tx_q(r, "DELETE FROM models WHERE model_id = $1 AND source = 'api'"
               " RETURNING kt_model_json(models)", v->s);

    if (res == NULL) {
        return;
    }

    before = PQntuples(res) ? arena_str(&r->a, PQgetvalue(res, 0, 0)) : NULL;
    PQclear(res);

    if (before == NULL) {
        fail_repr(r, 400, "Model with id=%s not found in db", v->s);
        return;
    }

    if (tx_audit(r, "deleted", "LiteLLM_ProxyModelTable", v->s, before, NULL) != 0) {
        return;
    }

    tx_registry(r);

    if (tx_commit(r) == 0) {
        json_del(r->json, "id");
        r->json = json_obj(&r->a);
        json_set(r->json, "message",
                 json_string(&r->a, arena_printf(&r->a,
                             "Model: %s deleted successfully", v->s)));
        reply_json(r, 200, r->json);
    }
}


static void
model_set_price(req_t *r, jv_t *o, const char *name, int64_t pusd)
{
    char  tmp[32];

    if (pusd < 0) {
        json_set(o, name, json_null(&r->a));
        return;
    }

    kt_money_format(pusd, KT_MONEY_PICO, tmp);
    json_set(o, name, json_num(&r->a, tmp));
}


static void
model_set_count(req_t *r, jv_t *o, const char *name, int64_t v)
{
    json_set(o, name, v < 0 ? json_null(&r->a) : json_int(&r->a, v));
}


static jv_t *
model_info_json(req_t *r, const model_t *m)
{
    jv_t        *o, *params, *info;
    const jv_t  *c;

    params = json_obj(&r->a);

    for (c = m->params ? m->params->head : NULL; c; c = c->next) {
        if (!seal_is_secret(c->key)) {
            json_set(params, c->key, json_copy(&r->a, c));
        }
    }

    if (json_get(params, "model") == NULL) {
        json_set(params, "model", json_string(&r->a, m->name));
    }

    info = json_obj(&r->a);

    for (c = m->info ? m->info->head : NULL; c; c = c->next) {
        json_set(info, c->key, json_copy(&r->a, c));
    }

    json_set(info, "id", json_string(&r->a, m->id));
    json_set(info, "db_model", json_bool(&r->a, !strcmp(m->source, "api")));
    json_set(info, "key", json_string(&r->a, m->upstream ? m->upstream : m->name));
    model_set_count(r, info, "max_tokens", m->max_out);
    model_set_count(r, info, "max_input_tokens", m->max_in);
    model_set_count(r, info, "max_output_tokens", m->max_out);
    model_set_price(r, info, "input_cost_per_token", m->in_pusd);
    model_set_price(r, info, "output_cost_per_token", m->out_pusd);
    model_set_price(r, info, "cache_read_input_token_cost", m->cr_pusd);
    model_set_price(r, info, "cache_creation_input_token_cost", m->cw_pusd);
    json_set(info, "litellm_provider", json_string(&r->a, m->provider));
    json_set(info, "mode", json_string(&r->a, m->mode ? m->mode : "chat"));

    o = json_obj(&r->a);
    json_set(o, "model_name", json_string(&r->a, m->name));
    json_set(o, "litellm_params", params);
    json_set(o, "model_info", info);

    return o;
}


void
api_model_info(req_t *r)
{
    int          err;
    jv_t        *out, *list;
    model_t     *m;
    const char  *id;

    m = registry_load(&r->a, &err);

    if (err) {
        fail_db(r);
        return;
    }

    id = http_arg(r, "litellm_model_id");
    list = json_arr(&r->a);

    for (; m; m = m->next) {
        if (id == NULL || strcmp(id, m->id) == 0) {
            json_push(list, model_info_json(r, m));
        }
    }

    if (id && list->n == 0) {
        fail_repr(r, 400, "Model id = %s not found on litellm proxy", id);
        return;
    }

    out = json_obj(&r->a);
    json_set(out, "data", list);
    reply_json(r, 200, out);
}


/* The allow-list that applies to the caller, NULL for everything. */

static jv_t *
model_allowed(req_t *r)
{
    jv_t        *list;
    PGresult    *res;
    const char  *text, *err;

    access_scoped(r);                    /* the caller's own view              */

    if (access_reads_all(r)) {
        return NULL;
    }

    res = db_q("SELECT coalesce(kt_models(k.models, k.access_group_ids),"
               " CASE WHEN t.team_id IS NOT NULL THEN kt_models(t.models,"
               " t.access_group_ids) END) FROM keys k"
               " LEFT JOIN teams t ON t.team_id = k.team_id WHERE k.token = $1",
               r->caller_token);
    text = db_ok(res) && PQntuples(res) ? db_str(res, 0, 0) : NULL;
    list = text ? json_parse(&r->a, text, strlen(text), &err) : NULL;
    PQclear(res);

    return list;
}


static jv_t *
model_entry(req_t *r, const char *name)
{
    jv_t  *o;

    o = json_obj(&r->a);
    json_set(o, "id", json_string(&r->a, name));
    json_set(o, "object", json_string(&r->a, "model"));
    json_set(o, "created", json_int(&r->a, MODEL_CREATED));
    json_set(o, "owned_by", json_string(&r->a, "openai"));

    return o;
}


static jv_t *
model_visible(req_t *r)
{
    int          err;
    jv_t        *out, *allowed, *c;
    model_t     *m, *all;

    all = registry_load(&r->a, &err);

    if (err) {
        fail_db(r);
        return NULL;
    }

    out = json_arr(&r->a);
    allowed = model_allowed(r);

    for (m = all; m; m = m->next) {
        for (c = allowed ? allowed->head : NULL; c; c = c->next) {
            if (util_glob(c->s, m->name)) {
                break;
            }
        }

        if ((allowed == NULL || c) && !strchr(m->name, '*')) {
            json_push(out, model_entry(r, m->name));
        }
    }

    /* names that are granted although no model of the registry has them */

    for (c = allowed ? allowed->head : NULL; c; c = c->next) {
        for (m = all; m && strcmp(m->name, c->s); m = m->next) { /* void */ }

        if (m == NULL && !strchr(c->s, '*') && strcmp(c->s, "no-default-models")) {
            json_push(out, model_entry(r, c->s));
        }
    }

    return out;
}


void
api_models(req_t *r)
{
    jv_t        *out, *list;
    const char  *scope;

    scope = http_arg(r, "scope");

    if (scope && strcmp(scope, "expand")) {
        fail_detail(r, 400, arena_printf(&r->a, "Invalid scope parameter. Only"
                    " 'expand' is currently supported. Received: %s", scope));
        return;
    }

    list = model_visible(r);

    if (list) {
        out = json_obj(&r->a);
        json_set(out, "data", list);
        json_set(out, "object", json_string(&r->a, "list"));
        reply_json(r, 200, out);
    }
}


void
api_models_one(req_t *r)
{
    jv_t  *list, *c;

    list = model_visible(r);

    if (list == NULL) {
        return;
    }

    for (c = list->head; c; c = c->next) {
        if (strcmp(json_str(c, "id"), r->rest) == 0) {
            reply_json(r, 200, c);
            return;
        }
    }

    fail_detail(r, 404, arena_printf(&r->a, "The model `%s` does not exist or is not"
                                     " accessible", r->rest));
}
