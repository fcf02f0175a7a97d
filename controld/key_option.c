/*
 * Options of keys besides limits: what their bodies must have, a lower rate in
 * place of a spent budget, cheaper models in place of one that a budget does
 * not reach.  The first two are kept in metadata, as LiteLLM does.
 */

#include <string.h>
#include "key.h"
#include "kt_money.h"
#include "tx.h"
#include "util.h"


#define OPTION_PARAMS  64            /* names that a body must have            */
#define OPTION_FALLS   64            /* models that have cheaper ones          */
#define OPTION_CHEAP   8             /* of each; a round trip to Redis for one */
#define OPTION_BYTES   4096          /* of all names: the gate reads them      */


static int
option_params(req_t *r, const jv_t *v)
{
    const jv_t  *c;

    if (json_is_null(v)) {
        return 0;
    }

    if (v->type != J_ARR) {
        fail_field(r, "enforced_params", "list_type", "Input should be a valid list", v);
        return -1;
    }

    for (c = v->head; c; c = c->next) {
        if (c->type != J_STR || !util_param_ok(c->s)) {
            fail_proxy(r, 400, "bad_request_error", "enforced_params", "enforced_params"
                       " are names of 1 to 64 bytes, or two with a point between them");
            return -1;
        }
    }

    if (v->n > OPTION_PARAMS) {
        fail_proxy(r, 400, "bad_request_error", "enforced_params", "enforced_params are"
                   " at most %d", OPTION_PARAMS);
        return -1;
    }

    return 0;
}


static int
option_flag(req_t *r, const jv_t *v)
{
    if (json_is_null(v) || v->type == J_TRUE || v->type == J_FALSE) {
        return 0;
    }

    fail_field(r, "throttle_on_budget_exceeded", "bool_type",
               "Input should be a valid boolean", v);

    return -1;
}


static int
option_percentage(req_t *r, const jv_t *v)
{
    int64_t  n;

    if (json_is_null(v)
        || (v->type == J_NUM && kt_int_parse(v->s, v->len, &n) == KT_OK && n >= 1
            && n <= 99))
    {
        return 0;
    }

    fail_proxy(r, 400, "bad_request_error", "budget_exceeded_throttle_percentage",
               "budget_exceeded_throttle_percentage is an integer from 1 to 99");

    return -1;
}


static int
option_cheaper(req_t *r, const jv_t *list, size_t *bytes)
{
    const jv_t  *c;

    *bytes += strlen(list->key);

    if (list->type != J_ARR || list->n == 0 || list->n > OPTION_CHEAP) {
        fail_proxy(r, 400, "bad_request_error", "budget_fallbacks", "budget_fallbacks of"
                   " %.255s are a list of 1 to %d models", list->key, OPTION_CHEAP);
        return -1;
    }

    for (c = list->head; c; c = c->next) {
        if (c->type != J_STR || !util_id_ok(c->s)) {
            fail_proxy(r, 400, "bad_request_error", "budget_fallbacks", "budget_fallbacks"
                       " of %.255s: a model is a text of 1 to 255 bytes without control"
                       " characters", list->key);
            return -1;
        }

        if (strcmp(c->s, list->key) == 0) {
            fail_proxy(r, 400, "bad_request_error", "budget_fallbacks", "budget_fallbacks"
                       " of %.255s: it can not stand in for itself", list->key);
            return -1;
        }

        *bytes += strlen(c->s);
    }

    return 0;
}


static int
option_falls(req_t *r, const jv_t *v)
{
    size_t       bytes;
    const jv_t  *c;

    bytes = 0;

    if (json_is_null(v)) {
        return 0;
    }

    if (v->type != J_OBJ) {
        fail_field(r, "budget_fallbacks", "dict_type",
                   "Input should be a valid dictionary", v);
        return -1;
    }

    if (v->n > OPTION_FALLS) {
        fail_proxy(r, 400, "bad_request_error", "budget_fallbacks", "budget_fallbacks are"
                   " for at most %d models", OPTION_FALLS);
        return -1;
    }

    for (c = v->head; c; c = c->next) {
        if (!util_id_ok(c->key)) {
            fail_proxy(r, 400, "bad_request_error", "budget_fallbacks", "budget_fallbacks:"
                       " a model is a text of 1 to 255 bytes without control characters");
            return -1;
        }

        if (option_cheaper(r, c, &bytes) != 0) {
            return -1;
        }
    }

    if (bytes > OPTION_BYTES) {
        fail_proxy(r, 400, "bad_request_error", "budget_fallbacks", "budget_fallbacks are"
                   " at most %d bytes of names", OPTION_BYTES);
        return -1;
    }

    return 0;
}


int
key_options(req_t *r)
{
    const jv_t               *o;
    size_t                    i;
    static const char *const  flag = "throttle_on_budget_exceeded";
    static const char *const  part = "budget_exceeded_throttle_percentage";

    for (i = 0; i < 2; i++) {
        o = i ? json_get(r->json, "metadata") : r->json;

        if (json_is_null(o) || o->type != J_OBJ) {
            continue;                          /* refused where it is read     */
        }

        if (option_params(r, json_get(o, "enforced_params")) != 0
            || option_flag(r, json_get(o, flag)) != 0
            || option_percentage(r, json_get(o, part)) != 0)
        {
            return -1;
        }
    }

    return option_falls(r, json_get(r->json, "budget_fallbacks"));
}


/*
 * A request that says nothing of throttling, rates or budget changes nothing of it: a key
 * whose plan lost its rate, or that was imported so, can still be blocked or regenerated.
 */

static int
option_asked(const req_t *r)
{
    size_t                    i;
    static const char *const  names[] = {
        "metadata", "throttle_on_budget_exceeded", "budget_exceeded_throttle_percentage",
        "rpm_limit", "tpm_limit", "budget_id", "budget_enforcement"
    };

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (json_get(r->json, names[i])) {
            return 1;
        }
    }

    return 0;
}


/* What a request means is worked out before: no alias of the key is a model here. */

static int
option_aliases(req_t *r, const jv_t *row)
{
    const jv_t  *falls, *aliases, *c, *m;

    falls = json_get(row, "budget_fallbacks");
    aliases = json_get(row, "aliases");

    if (json_is_null(falls) || json_is_null(aliases)) {
        return 0;
    }

    for (c = falls->head; c; c = c->next) {
        for (m = c->head; m && json_get(aliases, m->s) == NULL; m = m->next) {
            /* the next one */
        }

        if (m || json_get(aliases, c->key)) {
            fail_proxy(r, 400, "bad_request_error", "budget_fallbacks", "budget_fallbacks"
                       " name models: %.255s is an alias of the key", m ? m->s : c->key);
            return -1;
        }
    }

    return 0;
}


int
key_options_fit(req_t *r, const char *token, const jv_t *row)
{
    PGresult    *res;
    const jv_t  *on;
    const char  *why;

    if ((json_get(r->json, "budget_fallbacks") || json_get(r->json, "aliases"))
        && option_aliases(r, row) != 0)
    {
        return -1;
    }

    on = json_get(json_get(row, "metadata"), "throttle_on_budget_exceeded");

    if (json_is_null(on) || on->type != J_TRUE || !option_asked(r)) {
        return 0;
    }

    res = tx_q(r, "SELECT kt_throttle_wrong(k) FROM keys k WHERE token = $1", token);

    if (res == NULL) {
        return -1;
    }

    why = arena_str(&r->a, db_str(res, 0, 0));
    PQclear(res);

    if (why == NULL) {
        return 0;
    }

    fail_proxy(r, 400, "bad_request_error", "throttle_on_budget_exceeded",
               strcmp(why, "rate") == 0
               ? "throttle_on_budget_exceeded lowers rpm_limit and tpm_limit: the key"
                 " needs one of them"
               : "throttle_on_budget_exceeded does not go with a strict"
                 " budget_enforcement");

    return -1;
}
