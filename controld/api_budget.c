#include <string.h>
#include "api.h"
#include "budget.h"
#include "owner.h"
#include "tx.h"
#include "util.h"


const arg_t  budget_settings_args[] = {
    { "budget_id", F_STR, 0 },
    { NULL, 0, 0 }
};


const field_t  budget_body[] = {
    { "budget_id", F_ANY, NULL, 0 },
    { "budget_reset_at", F_ANY, NULL, 0 },
    { "max_budget", F_USD, "max_budget_nusd", 0 },
    { "soft_budget", F_USD, "soft_budget_nusd", 0 },
    { "max_parallel_requests", F_INT, "max_parallel_requests", 0 },
    { "tpm_limit", F_INT, "tpm_limit", 0 },
    { "rpm_limit", F_INT, "rpm_limit", 0 },
    { "model_max_budget", F_OBJ, "model_max_budget", 1 },
    { "budget_duration", F_PERIOD, NULL, 0 },
    { "budget_enforcement", F_ENFORCE, "budget_enforcement", 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  budget_info_body[] = {
    { "budgets", F_ANY, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  budget_delete_body[] = {
    { "id", F_ANY, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};


/* Budgets have no column for it; every change of the row is by another transaction. */

#define BUDGET_VERSION  "b.xmin::text::bigint"


int
budget_check(req_t *r)
{
    if (!json_is_null(json_get(r->json, "budget_reset_at"))) {
        fail_detail_error(r, 400, "budget_reset_at follows from budget_duration and"
                          " can not be set");
        return -1;
    }

    return owner_check_limits(r);
}


/* Of a budget that is there already, null takes a limit away. */

static int
budget_has_limits(req_t *r, int there)
{
    const jv_t     *v;
    const field_t  *f;

    for (f = budget_body; f->name; f++) {
        v = f->type == F_ANY ? NULL : json_get(r->json, f->name);

        if (there ? v != NULL : !json_is_null(v)) {
            return 1;
        }
    }

    return 0;
}


const char *
budget_create(req_t *r, const char *id)
{
    int        made;
    PGresult  *res;
    rowset_t   rs;

    memset(&rs, 0, sizeof(rs));
    id = id ? id : util_uuid(&r->a);

    if (fields_read(r, budget_body, &rs, 1) != 0) {
        return NULL;
    }

    row_set(&rs, "budget_id", "text", id);
    row_set(&rs, "created_by", "text", tx_actor(r));
    row_set(&rs, "updated_by", "text", tx_actor(r));
    res = tx_dynamic(r, row_insert(&r->a, "budgets", &rs, "ON CONFLICT DO NOTHING"
                     " RETURNING budget_id"), rs.n, rs.val);

    if (res == NULL) {
        return NULL;
    }

    made = PQntuples(res);
    PQclear(res);

    if (!made) {
        fail_detail_error(r, 400, "Budget already exists, passed budget_id=%s", id);
        return NULL;
    }

    return id;
}


int
budget_need(req_t *r, rowset_t *rs)
{
    int          i;
    const char  *id;

    for (i = 0; i < rs->n; i++) {
        if (strcmp(rs->col[i], "budget_id") == 0) {
            return 0;
        }
    }

    id = budget_create(r, NULL);
    row_set(rs, "budget_id", "text", id);

    return id ? 0 : -1;
}


int
budget_change(req_t *r, const char *id)
{
    int          i, known;
    PGresult    *res;
    rowset_t     rs;
    const char  *sql, *params[ROWSET_MAX + 1];

    memset(&rs, 0, sizeof(rs));

    if (fields_read(r, budget_body, &rs, 0) != 0) {
        return -1;
    }

    row_expr(&rs, "updated_at", "now()");
    row_set(&rs, "updated_by", "text", tx_actor(r));
    sql = row_update(&r->a, "budgets", &rs, 1, "WHERE budget_id = $1 RETURNING 1");
    params[0] = id;

    for (i = 0; i < rs.n; i++) {
        params[i + 1] = rs.val[i];
    }

    res = tx_dynamic(r, sql, rs.n + 1, params);

    if (res == NULL) {
        return -1;
    }

    known = PQntuples(res);
    PQclear(res);

    if (!known) {
        fail_detail_error(r, 404, "Budget not found, passed budget_id=%s", id);
        return -1;
    }

    return 0;
}


/* 1, 0, or -1 after answering. */

static int
budget_ask(req_t *r, const char *sql, const char *a, const char *b)
{
    int          yes;
    PGresult    *res;
    const char  *params[2];

    params[0] = a;
    params[1] = b;
    res = tx_query(r, sql, b ? 2 : 1, params);

    if (res == NULL) {
        return -1;
    }

    yes = PQntuples(res) && *PQgetvalue(res, 0, 0) == 't';
    PQclear(res);

    return yes;
}


int
budget_link(req_t *r, rowset_t *rs, const char *ent, const char *current)
{
    int          rc;
    const jv_t  *v;
    const char  *id;

    v = json_get(r->json, "budget_id");

    if (!json_is_null(v)) {
        if (v->type != J_STR) {
            fail_field(r, "budget_id", "string_type",
                       "Input should be a valid string", v);
            return -1;
        }

        if (!json_is_null(json_get(r->json, "max_budget"))) {
            fail_field(r, NULL, "value_error", "Value error, Set either 'max_budget'"
                       " or 'budget_id', not both.", r->json);
            return -1;
        }

        rc = budget_ask(r, "SELECT true FROM budgets WHERE budget_id = $1", v->s,
                        NULL);

        if (rc == 0) {
            fail_detail_error(r, 400, "Budget not found, passed budget_id=%s", v->s);
        }

        row_set(rs, "budget_id", "text", v->s);

        return rc == 1 ? 0 : -1;
    }

    if (!budget_has_limits(r, current != NULL)) {
        return 0;
    }

    if (current == NULL) {
        id = budget_create(r, NULL);
        row_set(rs, "budget_id", "text", id);
        return id ? 0 : -1;
    }

    rc = budget_ask(r, "SELECT kt_budget_shared($1, $2)", current, ent);

    if (rc > 0) {
        fail_detail_error(r, 400, "Budget %s is shared: change it by /budget/update"
                          " or choose another budget_id", current);
    }

    return rc == 0 ? budget_change(r, current) : -1;
}


/* Clears res, rows of an entity and what its meters are made of.  NULL: -1. */

static int
budget_meters(req_t *r, PGresult *res)
{
    int          i, rc;
    jv_t        *row;
    const char  *err;

    if (res == NULL) {
        return -1;
    }

    for (i = 0, rc = 0; i < PQntuples(res) && rc == 0; i++) {
        row = json_parse_big(&r->a, PQgetvalue(res, i, 1),
                         (size_t) PQgetlength(res, i, 1), &err);
        rc = owner_submeters(r, arena_str(&r->a, PQgetvalue(res, i, 0)), row);
    }

    PQclear(res);

    return rc;
}


int
budget_models(req_t *r, const char *id)
{
    return budget_meters(r, tx_q(r, "SELECT x.ent, json_build_object('model_max_budget',"
               " coalesce(nullif(x.own, '{}'), b.model_max_budget), 'metadata', x.meta,"
               " 'budget_limits', x.windows) FROM (SELECT ent, budget_id, model_max_budget"
               " AS own, metadata AS meta, budget_limits AS windows FROM keys UNION ALL"
               " SELECT ent, budget_id, '{}', metadata, '[]' FROM organizations UNION ALL"
               " SELECT ent, budget_id, '{}', '{}', '[]' FROM customers UNION ALL"
               " SELECT ent, budget_id, '{}', '{}', '[]' FROM customer_default UNION ALL"
               " SELECT ent, budget_id, '{}', '{}', '[]' FROM tags) x JOIN budgets b"
               " USING (budget_id) WHERE b.budget_id = $1 AND (b.model_max_budget <> '{}'"
               " OR EXISTS (SELECT 1 FROM submeters WHERE owner = x.ent))", id));
}


int
budget_default(req_t *r, int other)
{
    return budget_meters(r, tx_q(r, "SELECT d.ent, json_build_object('model_max_budget',"
               " coalesce(b.model_max_budget, '{}')) FROM customer_default d LEFT JOIN"
               " budgets b USING (budget_id) WHERE $1::boolean OR (b.model_max_budget <>"
               " '{}' AND NOT EXISTS (SELECT 1 FROM submeters WHERE owner = d.ent))",
               other ? "true" : "false"));
}


/* The row, locked, as JSON text; NULL after answering or when there is none. */

static const char *
budget_row(req_t *r, const char *id, int64_t *version)
{
    PGresult    *res;
    const char  *row;

    res = tx_q(r, "SELECT kt_budget_json(b), " BUDGET_VERSION " FROM budgets b WHERE"
               " budget_id = $1 FOR NO KEY UPDATE", id);

    if (res == NULL) {
        return NULL;
    }

    row = PQntuples(res) ? arena_str(&r->a, PQgetvalue(res, 0, 0)) : NULL;
    *version = row ? db_int(res, 0, 1) : 0;
    PQclear(res);

    return row;
}


/* The text member `name` of the body; NULL after answering. */

static const char *
budget_body_id(req_t *r, const char *name)
{
    const jv_t  *v;

    v = json_get(r->json, name);

    if (json_is_null(v) || v->type != J_STR || !util_id_ok(v->s)) {
        fail_detail_error(r, 400, "%s is required", name);
        return NULL;
    }

    return v->s;
}


void
api_budget_new(req_t *r)
{
    int64_t      version;
    const jv_t  *v;
    const char  *id, *row;

    v = json_get(r->json, "budget_id");

    if (!json_is_null(v) && (v->type != J_STR || !util_id_ok(v->s))) {
        fail_field(r, "budget_id", "string_type", "Input should be a valid string of"
                   " 1 to 255 bytes", v);
        return;
    }

    if (budget_check(r) != 0 || tx_begin(r) != 0) {
        return;
    }

    id = budget_create(r, json_is_null(v) ? NULL : v->s);
    row = id && budget_models(r, id) == 0 ? budget_row(r, id, &version) : NULL;

    if (row && tx_audit(r, "created", "LiteLLM_BudgetTable", id, NULL, row) == 0
        && tx_commit(r) == 0)
    {
        tx_etag(r, version);
        reply_text(r, 200, "application/json", row);
    }
}


void
api_budget_update(req_t *r)
{
    int64_t      version;
    const char  *id, *before, *row;

    id = budget_body_id(r, "budget_id");

    if (id == NULL || budget_check(r) != 0 || tx_begin(r) != 0) {
        return;
    }

    before = budget_row(r, id, &version);

    if (r->status || (before && tx_match(r, version) != 0) || budget_change(r, id) != 0 || budget_models(r, id) != 0) {
        return;
    }

    row = budget_row(r, id, &version);

    if (row && tx_audit(r, "updated", "LiteLLM_BudgetTable", id, before, row) == 0
        && tx_commit(r) == 0)
    {
        tx_etag(r, version);
        reply_text(r, 200, "application/json", row);
    }
}


void
api_budget_delete(req_t *r)
{
    int64_t      version;
    PGresult    *res;
    const char  *id, *row;

    id = budget_body_id(r, "id");

    if (id == NULL || tx_begin(r) != 0) {
        return;
    }

    row = budget_row(r, id, &version);

    if (row == NULL) {
        if (!r->status) {
            fail_detail_error(r, 404, "Budget not found, passed id=%s", id);
        }

        return;
    }

    res = tx_q(r, "UPDATE budgets SET model_max_budget = '{}' WHERE budget_id = $1",
               id);

    if (res == NULL) {
        return;
    }

    PQclear(res);

    if (budget_models(r, id) != 0) {
        return;
    }

    res = tx_q(r, "SELECT kt_budget_unlink($1)", id);

    if (res == NULL) {
        return;
    }

    PQclear(res);
    res = tx_q(r, "DELETE FROM budgets WHERE budget_id = $1", id);

    if (res == NULL) {
        return;
    }

    PQclear(res);

    if (tx_audit(r, "deleted", "LiteLLM_BudgetTable", id, row, NULL) == 0
        && tx_commit(r) == 0)
    {
        reply_text(r, 200, "application/json", row);
    }
}


static void
budget_rows(req_t *r, PGresult *res)
{
    if (!db_ok(res)) {
        db_log("can not read budgets", res);
        PQclear(res);
        fail_db(r);
        return;
    }

    if (PQnfields(res) > 1 && !PQgetisnull(res, 0, 1)) {
        tx_etag(r, db_int(res, 0, 1));
    }

    reply_text(r, 200, "application/json", arena_str(&r->a, PQgetvalue(res, 0, 0)));
    PQclear(res);
}


void
api_budget_info(req_t *r)
{
    size_t        i;
    const jv_t   *list, *c;
    const char  **ids;

    list = json_get(r->json, "budgets");

    if (json_is_null(list) || list->type != J_ARR || list->n == 0) {
        fail_detail_error(r, 400, "Specify list of budget id's to query. Passed in=%s",
                          list ? json_text(&r->a, list) : "[]");
        return;
    }

    ids = arena_alloc(&r->a, (list->n + 1) * sizeof(char *));

    for (i = 0, c = list->head; c; c = c->next) {
        ids[i++] = c->type == J_STR ? c->s : "";
    }

    budget_rows(r, db_q("SELECT coalesce(json_agg(kt_budget_json(b) ORDER BY created_at,"
                        " budget_id), '[]'), CASE WHEN count(*) = 1 THEN"
                        " max(" BUDGET_VERSION ") END FROM budgets b WHERE budget_id ="
                        " ANY ($1::text[])", db_array(&r->a, ids, i)));
}


void
api_budget_list(req_t *r)
{
    budget_rows(r, db_q0("SELECT coalesce(json_agg(kt_budget_json(b) ORDER BY"
                         " created_at, budget_id), '[]') FROM budgets b"));
}


/* One setting as the settings page of LiteLLM wants it. */

static void
budget_setting(req_t *r, jv_t *list, const jv_t *row, const char *name,
    const char *type, const char *text)
{
    jv_t        *o;
    const jv_t  *v;

    v = json_get(row, name);
    o = json_obj(&r->a);
    json_set(o, "field_name", json_string(&r->a, name));
    json_set(o, "field_type", json_string(&r->a, type));
    json_set(o, "field_description", json_string(&r->a, text));
    json_set(o, "field_value", v ? json_copy(&r->a, v) : json_null(&r->a));
    json_set(o, "stored_in_db", json_bool(&r->a, 1));
    json_set(o, "field_default_value", json_null(&r->a));
    json_set(o, "premium_field", json_bool(&r->a, 0));
    json_set(o, "nested_fields", json_null(&r->a));
    json_push(list, o);
}


void
api_budget_settings(req_t *r)
{
    size_t       i;
    jv_t        *list, *row;
    PGresult    *res;
    const char  *id, *err;

    static const char *const  settings[][3] = {
        { "max_parallel_requests", "Integer", "Max concurrent requests" },
        { "tpm_limit", "Integer", "Max tokens per minute" },
        { "rpm_limit", "Integer", "Max requests per minute" },
        { "budget_duration", "String", "Period of the budget" },
        { "max_budget", "Float", "Requests fail at this cost, USD" },
        { "soft_budget", "Float", "An alert is raised at this cost, USD" },
        { "model_max_budget", "Object", "Limits per model" }
    };

    id = http_arg(r, "budget_id");
    res = id ? db_q("SELECT kt_budget_json(b), " BUDGET_VERSION " FROM budgets b WHERE"
                    " budget_id = $1", id) : NULL;
    row = db_ok(res) && PQntuples(res)
          ? json_parse_big(&r->a, PQgetvalue(res, 0, 0), (size_t) PQgetlength(res, 0, 0),
                       &err) : NULL;

    if (row) {
        tx_etag(r, db_int(res, 0, 1));
    }

    PQclear(res);

    if (row == NULL) {
        fail_detail_error(r, 404, "Budget not found, passed budget_id=%s",
                          id ? id : "None");
        return;
    }

    list = json_arr(&r->a);

    for (i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        budget_setting(r, list, row, settings[i][0], settings[i][1], settings[i][2]);
    }

    reply_json(r, 200, list);
}
