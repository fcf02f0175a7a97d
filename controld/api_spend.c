/* /spend/keys, /spend/users, /spend/calculate. */

#include <string.h>
#include "access.h"
#include "api.h"
#include "kt_reqscan.h"
#include "owner.h"
#include "price.h"
#include "usage.h"


const arg_t  spend_users_args[] = {
    { "user_id", F_STR, 0 },
    { NULL, 0, 0 }
};

const field_t  spend_calculate_body[] = {
    { "model", F_STR, NULL, 0 },
    { "messages", F_LIST, NULL, 0 },
    { "completion_response", F_OBJ, NULL, 0 },
    { NULL, 0, NULL, 0 }
};


/* Rows of keys or users, dearest first. */

static void
spend_objects(usage_sql_t *q)
{
    jv_t      *rows;
    PGresult  *res;

    buf_printf(&q->sql, " ORDER BY coalesce(m.used_nusd, 0) DESC, o.ent LIMIT %d",
               USAGE_ROWS + 1);
    res = usage_run(q);

    if (res == NULL) {
        return;
    }

    if (PQntuples(res) > USAGE_ROWS) {
        usage_truncated(q->r);
    }

    rows = owner_rows(q->r, res, 0, 1);
    PQclear(res);
    reply_json(q->r, 200, rows);
}


#define SPEND_USED                                                            \
    " o LEFT JOIN meters m ON m.ent = o.ent AND m.period_id = kt_period_id("  \
    "o.period_kind, o.period_len_s, o.period_id, o.period_end_s, kt_now_s())" \
    " WHERE "


void
api_spend_keys(req_t *r)
{
    usage_sql_t  q;
    usage_who_t  w;

    usage_who(r, &w);
    usage_sql(&q, r, "SELECT o.ent, kt_key_json(o) FROM keys" SPEND_USED
              "o.team_id IS DISTINCT FROM 'litellm-dashboard'");

    if (!w.all) {
        usage_param(&q, w.user ? " AND o.user_id = " : " AND o.token = ",
                    w.user ? w.user : w.token, "");
    }

    spend_objects(&q);
}


void
api_spend_users(req_t *r)
{
    usage_sql_t  q;
    usage_who_t  w;
    const char  *id;

    usage_who(r, &w);
    usage_sql(&q, r, "SELECT o.ent, kt_user_json(o) FROM users" SPEND_USED
              "NOT o.implicit");
    id = http_arg(r, "user_id");

    if (!w.all) {
        usage_param(&q, " AND o.user_id = ", w.user ? w.user : "", "");
    }

    if (id && *id) {
        usage_param(&q, " AND o.user_id = ", id, "");
    }

    spend_objects(&q);
}


/* ---------------------------------------------------------------- calculation */


static void
calculate_fail(req_t *r, const char *text)
{
    fail_proxy(r, 400, "None", NULL, "Bad Request - %s", text);
}


/* Tokens of the prompt as the gate estimates them: a quarter of its bytes. */

static int
calculate_messages(req_t *r, kt_usage_t *u)
{
    jv_t         *o;
    const char   *text;
    kt_reqscan_t  scan;

    o = json_obj(&r->a);
    json_set(o, "messages", json_copy(&r->a, json_get(r->json, "messages")));
    text = json_text(&r->a, o);

    if (kt_reqscan((const unsigned char *) text, strlen(text), &scan) != KT_OK) {
        calculate_fail(r, "messages can not be read");
        return -1;
    }

    u->in_tok = (scan.text_bytes + 3) / 4;

    return 0;
}


static int
calculate_response(req_t *r, const jv_t *resp, kt_usage_t *u)
{
    const jv_t  *v;
    const char  *text;

    v = json_get(resp, "usage");
    v = v ? v : json_get(resp, "usageMetadata");
    text = v && v->type == J_OBJ ? json_text(&r->a, v) : NULL;

    if (text == NULL
        || kt_usage_merge(u, KT_SHAPE_ANY, (const unsigned char *) text, strlen(text))
           != KT_OK || !u->seen)
    {
        calculate_fail(r, "completion_response has no usage");
        return -1;
    }

    return 0;
}


static void
calculate_price(req_t *r, const char *name, const kt_usage_t *u)
{
    int             err;
    jv_t           *o;
    int64_t         nusd;
    kt_price_t      price;
    const model_t  *list, *m;

    list = registry_load(&r->a, &err);

    if (err) {
        fail_db(r);
        return;
    }

    memset(&price, 0, sizeof(price));
    m = price_model(list, name);

    if (m) {
        price_of(&r->a, m, &price);
    }

    if (m == NULL || price.none) {
        fail_proxy(r, 400, "None", "model", "This model isn't mapped yet. model=%s has no"
                   " price. Add it with /model/new or import a price list", name);
        return;
    }

    if (kt_price_cost(&price, u, &nusd) != KT_OK) {
        calculate_fail(r, "the cost is out of range");
        return;
    }

    o = json_obj(&r->a);
    json_set(o, "cost", json_usd(&r->a, nusd));
    reply_json(r, 200, o);
}


void
api_spend_calculate(req_t *r)
{
    kt_usage_t   u;
    const jv_t  *resp;
    const char  *model;

    access_scoped(r);                    /* prices are nobody's                */
    memset(&u, 0, sizeof(u));
    model = json_str(r->json, "model");
    resp = json_get(r->json, "completion_response");
    model = model ? model : json_str(resp, "model");

    if (json_is_null(resp) && model == NULL) {
        calculate_fail(r, "Either 'model' or 'completion_response' must be provided");

    } else if (model == NULL) {
        calculate_fail(r, "completion_response has no model");

    } else if (json_is_null(resp) && json_is_null(json_get(r->json, "messages"))) {
        calculate_fail(r, "messages must be provided if 'model' is provided");

    } else if ((json_is_null(resp) ? calculate_messages(r, &u)
                                   : calculate_response(r, resp, &u)) == 0)
    {
        calculate_price(r, model, &u);
    }
}
