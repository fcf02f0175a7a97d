#include <inttypes.h>
#include <string.h>
#include "model.h"
#include "seal.h"
#include "util.h"


/* The sealed text of a secret; NULL after answering. */

static jv_t *
model_seal_one(req_t *r, const jv_t *v, const char *path)
{
    const char  *text;

    text = seal_text(&r->a, v->type == J_STR ? v->s : json_text(&r->a, v), path);

    if (text == NULL) {
        fail_proxy(r, 500, r->err_type, NULL, "A secret could not be sealed");
        return NULL;
    }

    return json_string(&r->a, text);
}


/* A copy in which every secret is sealed, however deep it stands. */

static jv_t *
model_seal_tree(req_t *r, const jv_t *v, const char *path)
{
    jv_t        *o, *n;
    const jv_t  *c;
    const char  *at;

    if (v->type == J_STR && strcmp(model_url_shown(&r->a, v->s), v->s) != 0) {
        return model_seal_one(r, v, path);      /* an address with a password in it */
    }

    if (v->type != J_OBJ && v->type != J_ARR) {
        return json_copy(&r->a, v);
    }

    o = v->type == J_OBJ ? json_obj(&r->a) : json_arr(&r->a);

    for (c = v->head; c; c = c->next) {
        at = c->key ? arena_printf(&r->a, "%s|%s", path, c->key) : path;

        if (c->key == NULL || !seal_is_secret(c->key) || json_is_null(c)
            || (c->type == J_STR && !strncmp(c->s, "os.environ/", 11)))
        {
            n = model_seal_tree(r, c, at);
        } else {
            n = model_seal_one(r, c, at);
        }

        if (n == NULL) {
            return NULL;
        }

        if (c->key) {
            json_set(o, c->key, n);
        } else {
            json_push(o, n);
        }
    }

    return o;
}


jv_t *
model_seal(req_t *r, const jv_t *params, const char *id)
{
    return model_seal_tree(r, params, arena_printf(&r->a, "models|%s", id));
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


int
model_prices(req_t *r, rowset_t *rs, const jv_t *params, const jv_t *info)
{
    size_t                    i;
    int64_t                   out, in;
    static const char *const  cols[] = {
        "input_pusd", "output_pusd", "cache_read_pusd", "cache_write_pusd",
        "reasoning_pusd", "max_output_tokens", "max_input_tokens"
    };

    for (i = 0; i < sizeof(cols) / sizeof(cols[0]); i++) {
        row_set(rs, cols[i], "bigint", NULL);
    }

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


int
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
