#include <string.h>
#include "api.h"
#include "budget.h"
#include "owner.h"
#include "tx.h"
#include "util.h"


const arg_t  customer_info_args[] = {
    { "end_user_id", F_STR, 0 },
    { NULL, 0, 0 }
};


const field_t  customer_body[] = {
    { "user_id", F_ANY, NULL, F_REQUIRED },
    FIELDS_BUDGET_ARGS,
    { "spend", F_USD, NULL, 0 },
    { "alias", F_NAME, "alias", 0 },
    { "blocked", F_BOOL, "blocked", 1 },
    { "allowed_model_region", F_STR, "allowed_model_region", 0 },
    { "default_model", F_NAME, "default_model", 0 },
    { "object_permission", F_EXTRA, NULL, F_REFUSED, "models" },
    { NULL, 0, NULL, 0 }
};

const field_t  customer_ids_body[] = {
    { "user_ids", F_ANY, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};


static int
customer_region(req_t *r)
{
    const jv_t  *v;

    v = json_get(r->json, "allowed_model_region");

    if (!json_is_null(v) && (v->type != J_STR || (strcmp(v->s, "eu")
                                                  && strcmp(v->s, "us"))))
    {
        fail_field(r, "allowed_model_region", "literal_error",
                   "Input should be 'eu' or 'us'", v);
        return -1;
    }

    return 0;
}


/* The rows of ids as wire objects; a single one has an ETag.  NULL after answering. */

static jv_t *
customer_rows(req_t *r, const char *ids, int one)
{
    jv_t      *list;
    PGresult  *res;

    res = db_q("SELECT ent, kt_customer_json(c), version FROM customers c WHERE"
               " $1::text[] IS NULL OR user_id = ANY ($1::text[]) ORDER BY created_at,"
               " user_id", ids);

    if (!db_ok(res)) {
        db_log("can not read customers", res);
        PQclear(res);
        fail_db(r);
        return NULL;
    }

    if (one && PQntuples(res) == 1) {
        tx_etag(r, db_int(res, 0, 2));
    }

    list = owner_rows(r, res, 0, 1);
    PQclear(res);

    return list;
}


static jv_t *
customer_row(req_t *r, const char *id)
{
    jv_t  *list;

    list = customer_rows(r, db_array(&r->a, &id, 1), 1);

    return list ? list->head : NULL;
}


static void
customer_missing(req_t *r, const char *param, const char *id)
{
    fail_proxy(r, 404, "not_found", param, "End User Id=%s does not exist in db", id);
}


/* Rows as the audit has them, by id, locked; NULL after answering. */

static jv_t *
customer_texts(req_t *r, const char *ids)
{
    int        i;
    jv_t      *o;
    PGresult  *res;

    res = tx_q(r, "SELECT user_id, kt_customer_json(c) FROM customers c WHERE user_id ="
               " ANY ($1::text[]) ORDER BY user_id FOR UPDATE", ids);

    if (res == NULL) {
        return NULL;
    }

    o = json_obj(&r->a);

    for (i = 0; i < PQntuples(res); i++) {
        json_set(o, arena_str(&r->a, PQgetvalue(res, i, 0)),
                 json_raw(&r->a, arena_str(&r->a, PQgetvalue(res, i, 1))));
    }

    PQclear(res);

    return o;
}


/* An audit row of each: `before` is customer_texts() of then. */

static int
customer_audit(req_t *r, const char *action, const char *ids, const jv_t *before)
{
    jv_t        *after;
    const jv_t  *c, *v, *list;

    after = customer_texts(r, ids);

    if (after == NULL) {
        return -1;
    }

    list = after->head ? after : before;

    for (c = list ? list->head : NULL; c; c = c->next) {
        v = json_get(before, c->key);

        if (tx_audit(r, action, "LiteLLM_EndUserTable", c->key, v ? json_text(&r->a, v) : NULL,
                     after->head ? json_text(&r->a, c) : NULL) != 0)
        {
            return -1;
        }
    }

    return 0;
}


/* The enforcement mode belongs to the budget row if there is one, else here. */

void
api_customer_new(req_t *r)
{
    int          made;
    jv_t        *row;
    rowset_t     rs;
    PGresult    *res;
    const char  *id, *budget;

    memset(&rs, 0, sizeof(rs));
    id = field_body_id(r, "user_id");

    if (id == NULL || customer_region(r) != 0 || budget_check(r) != 0
        || fields_read(r, customer_body, &rs, 1) != 0
        || fields_metadata(r, &rs, 1) != 0 || tx_begin(r) != 0)
    {
        return;
    }

    if (budget_link(r, &rs, NULL, NULL) != 0) {
        return;
    }

    row_set(&rs, "user_id", "text", id);
    res = tx_dynamic(r, row_insert(&r->a, "customers", &rs, "ON CONFLICT DO NOTHING"
                     " RETURNING ent, budget_id"), rs.n, rs.val);

    if (res == NULL) {
        return;
    }

    made = PQntuples(res);
    budget = made ? arena_str(&r->a, db_str(res, 0, 1)) : NULL;

    if (made) {
        tx_touch(r, PQgetvalue(res, 0, 0));
    }

    PQclear(res);

    if (!made) {
        fail_proxy(r, 400, "bad_request", "user_id", "Customer already exists, passed"
                   " user_id=%s. Please pass a new user_id.", id);
        return;
    }

    if ((budget && budget_models(r, budget) != 0)
        || customer_audit(r, "created", db_array(&r->a, &id, 1), NULL) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    row = customer_row(r, id);

    if (row) {
        reply_json(r, 200, row);
    }
}


/* Writes the row of an update; its budget, "" without one, NULL: answered. */

static const char *
customer_write(req_t *r, rowset_t *rs, const char *id)
{
    int          i;
    PGresult    *res;
    const char  *sql, *budget, *params[ROWSET_MAX + 1];

    if (rs->n == 0) {
        row_expr(rs, "blocked", "blocked");
    }

    sql = row_update(&r->a, "customers", rs, 1, "WHERE user_id = $1 RETURNING ent,"
                     " coalesce(budget_id, '')");
    params[0] = id;

    for (i = 0; i < rs->n; i++) {
        params[i + 1] = rs->val[i];
    }

    res = tx_dynamic(r, sql, rs->n + 1, params);

    if (res == NULL) {
        return NULL;
    }

    tx_touch(r, PQgetvalue(res, 0, 0));
    budget = arena_str(&r->a, PQgetvalue(res, 0, 1));
    PQclear(res);

    return budget;
}


/* Null, empty and zero values say nothing here; a block can be lifted. */

static void
customer_drop_empty(req_t *r)
{
    jv_t  *c, *next;

    for (c = r->json->head; c; c = next) {
        next = c->next;

        if (c->type == J_NULL || ((c->type == J_ARR || c->type == J_OBJ) && c->n == 0)) {
            json_del(r->json, c->key);
        }
    }
}


void
api_customer_update(req_t *r)
{
    jv_t        *row, *before;
    int64_t      version;
    rowset_t     rs;
    PGresult    *res;
    const char  *id, *ent, *current, *budget;

    memset(&rs, 0, sizeof(rs));
    customer_drop_empty(r);
    id = field_body_id(r, "user_id");

    if (id == NULL || customer_region(r) != 0 || budget_check(r) != 0
        || fields_read(r, customer_body, &rs, 0) != 0
        || fields_metadata(r, &rs, 0) != 0 || tx_begin(r) != 0)
    {
        return;
    }

    res = tx_q(r, "SELECT ent, budget_id, version FROM customers WHERE user_id = $1 FOR"
               " UPDATE", id);

    if (res == NULL) {
        return;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        customer_missing(r, "user_id", id);
        return;
    }

    ent = arena_str(&r->a, PQgetvalue(res, 0, 0));
    current = db_str(res, 0, 1) ? arena_str(&r->a, db_str(res, 0, 1)) : NULL;
    version = db_int(res, 0, 2);
    PQclear(res);
    before = tx_match(r, version) == 0 ? customer_texts(r, db_array(&r->a, &id, 1)) : NULL;

    if (before == NULL || budget_link(r, &rs, ent, current) != 0) {
        return;
    }

    budget = customer_write(r, &rs, id);

    if (budget == NULL || (*budget && budget_models(r, budget) != 0)
        || customer_audit(r, "updated", db_array(&r->a, &id, 1), before) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    row = customer_row(r, id);

    if (row) {
        reply_json(r, 200, row);
    }
}


void
api_customer_info(req_t *r)
{
    jv_t        *row, *out, *c, *next;
    const char  *id;

    id = http_arg(r, "end_user_id");

    if (id == NULL) {
        fail_field(r, "end_user_id", "missing", "Field required", NULL);
        return;
    }

    row = customer_row(r, id);

    if (row == NULL) {
        customer_missing(r, "end_user_id", id);
        return;
    }

    out = json_obj(&r->a);

    for (c = row->head; c; c = next) {
        next = c->next;

        if (c->type != J_NULL) {
            json_set(out, c->key, c);
        }
    }

    reply_json(r, 200, out);
}


void
api_customer_list(req_t *r)
{
    jv_t  *list;

    list = customer_rows(r, NULL, 0);

    if (list) {
        reply_json(r, 200, list);
    }
}


/* user_ids of the body as text[]; NULL after answering. */

static const char *
customer_ids(req_t *r, size_t *n)
{
    const jv_t   *list, *c;
    const char  **ids;

    list = json_get(r->json, "user_ids");

    if (json_is_null(list) || list->type != J_ARR) {
        fail_field(r, "user_ids", list ? "list_type" : "missing",
                   list ? "Input should be a valid list" : "Field required", r->json);
        return NULL;
    }

    ids = arena_alloc(&r->a, (list->n + 1) * sizeof(char *));

    for (*n = 0, c = list->head; c; c = c->next) {
        if (c->type != J_STR || !util_id_ok(c->s)) {
            fail_field(r, "user_ids", "string_type", "Input should be a valid string of"
                       " 1 to 255 bytes", c);
            return NULL;
        }

        ids[(*n)++] = c->s;
    }

    return db_array(&r->a, ids, *n);
}


/* The ids that have no row, separated by commas; "" when all have. */

static const char *
customer_absent(req_t *r, const char *ids)
{
    PGresult    *res;
    const char  *text;

    res = tx_q(r, "SELECT coalesce(string_agg(i, ', '), '') FROM unnest($1::text[]) i"
               " WHERE NOT EXISTS (SELECT 1 FROM customers WHERE user_id = i)", ids);
    text = res ? arena_str(&r->a, PQgetvalue(res, 0, 0)) : NULL;
    PQclear(res);

    return text;
}


void
api_customer_delete(req_t *r)
{
    int          i, n, rc;
    size_t       asked;
    jv_t        *out, *before;
    PGresult    *res;
    const char  *ids, *absent;

    ids = customer_ids(r, &asked);

    if (ids == NULL || tx_begin(r) != 0) {
        return;
    }

    absent = customer_absent(r, ids);

    if (absent == NULL || *absent) {
        if (absent) {
            fail_proxy(r, 404, "not_found", "user_ids", "End User Id(s)=%s do not exist"
                       " in db", absent);
        }

        return;
    }

    before = customer_texts(r, ids);

    if (before == NULL) {
        return;
    }

    res = tx_q(r, "WITH s AS (DELETE FROM submeters WHERE owner IN (SELECT ent FROM"
               " customers WHERE user_id = ANY ($1::text[])) RETURNING ent), c AS"
               " (DELETE FROM customers WHERE user_id = ANY ($1::text[]) RETURNING ent)"
               " TABLE c UNION ALL TABLE s", ids);

    if (res == NULL) {
        return;
    }

    n = PQntuples(res);

    for (i = 0, rc = 0; i < n && rc == 0; i++) {
        rc = tx_gone(r, PQgetvalue(res, i, 0));
    }

    PQclear(res);

    if (rc != 0 || customer_audit(r, "deleted", ids, before) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    out = json_obj(&r->a);
    json_set(out, "deleted_customers", json_int(&r->a, (int64_t) asked));
    json_set(out, "message", json_string(&r->a, arena_printf(&r->a, "Successfully"
             " deleted customers with ids: %s",
             json_text(&r->a, json_get(r->json, "user_ids")))));
    reply_json(r, 200, out);
}


/* Blocks or unblocks; a block makes the row if it is missing. */

static void
customer_set_blocked(req_t *r, int blocked)
{
    int          i;
    size_t       n;
    jv_t        *out, *rows, *before;
    PGresult    *res;
    const char  *ids;

    ids = customer_ids(r, &n);
    before = ids && tx_begin(r) == 0 ? customer_texts(r, ids) : NULL;

    if (before == NULL) {
        return;
    }

    res = blocked
        ? tx_q(r, "INSERT INTO customers (user_id, blocked) SELECT i, true FROM"
               " unnest($1::text[]) i ON CONFLICT (user_id) DO UPDATE SET blocked = true"
               " RETURNING ent", ids)
        : tx_q(r, "UPDATE customers SET blocked = false WHERE user_id ="
               " ANY ($1::text[]) RETURNING ent", ids);

    if (res == NULL) {
        return;
    }

    for (i = 0; i < PQntuples(res); i++) {
        tx_touch(r, PQgetvalue(res, i, 0));
    }

    PQclear(res);

    if (customer_audit(r, blocked ? "blocked" : "unblocked", ids, before) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    rows = customer_rows(r, ids, 0);

    if (rows) {
        out = json_obj(&r->a);
        json_set(out, "blocked_users", blocked ? rows : json_arr(&r->a));
        reply_json(r, 200, out);
    }
}


void
api_customer_block(req_t *r)
{
    customer_set_blocked(r, 1);
}


void
api_customer_unblock(req_t *r)
{
    customer_set_blocked(r, 0);
}
