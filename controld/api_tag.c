#include <string.h>
#include "api.h"
#include "budget.h"
#include "owner.h"
#include "tx.h"
#include "util.h"


const field_t  tag_body[] = {
    { "name", F_ANY, NULL, F_REQUIRED },
    FIELDS_BUDGET_ARGS,
    { "description", F_STR, "description", 0 },
    { "models", F_STRS, "models", 1 },
    { "model_info", F_OBJ, "model_info", 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  tag_name_body[] = {
    { "name", F_ANY, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};

const field_t  tag_names_body[] = {
    { "names", F_ANY, NULL, 0 },
    { NULL, 0, NULL, 0 }
};


static const char *
tag_name(req_t *r)
{
    const jv_t  *v;

    v = json_get(r->json, "name");

    if (json_is_null(v)) {
        fail_field(r, "name", "missing", "Field required", r->json);
        return NULL;
    }

    if (v->type != J_STR || !util_id_ok(v->s)) {
        fail_field(r, "name", "string_type", "Input should be a valid string of 1 to"
                   " 255 bytes", v);
        return NULL;
    }

    return v->s;
}


/* Rows by name, a single one with an ETag; names NULL: all.  NULL after answering. */

static jv_t *
tag_rows(req_t *r, const char *names)
{
    jv_t      *list;
    PGresult  *res;

    res = db_q("SELECT ent, kt_tag_json(g), version FROM tags g WHERE $1::text[] IS NULL OR"
               " tag_name = ANY ($1::text[]) ORDER BY created_at, tag_name", names);

    if (!db_ok(res)) {
        db_log("can not read tags", res);
        PQclear(res);
        fail_db(r);
        return NULL;
    }

    if (names && PQntuples(res) == 1) {
        tx_etag(r, db_int(res, 0, 2));
    }

    list = owner_rows(r, res, 0, 1);
    PQclear(res);

    return list;
}


static void
tag_reply(req_t *r, const char *name, const char *done)
{
    jv_t  *out, *list;

    list = tag_rows(r, db_array(&r->a, &name, 1));

    if (list == NULL) {
        return;
    }

    out = json_obj(&r->a);
    json_set(out, "message", json_string(&r->a, arena_printf(&r->a, "Tag %s %s"
             " successfully", name, done)));

    if (list->head) {
        json_set(out, "tag", list->head);
    }

    reply_json(r, 200, out);
}


/* A row as the audit has it; NULL after answering. */

static const char *
tag_text(req_t *r, const char *name)
{
    PGresult    *res;
    const char  *text;

    res = tx_q(r, "SELECT kt_tag_json(g) FROM tags g WHERE tag_name = $1", name);
    text = res == NULL ? NULL
           : PQntuples(res) ? arena_str(&r->a, PQgetvalue(res, 0, 0)) : "null";
    PQclear(res);

    return text;
}


/* The end of a write: what the budget says of models, audit, commit. */

static int
tag_finish(req_t *r, PGresult *res, const char *name, const char *action,
    const char *before)
{
    const char  *budget, *after;

    tx_touch(r, PQgetvalue(res, 0, 0));
    budget = db_str(res, 0, 1) ? arena_str(&r->a, db_str(res, 0, 1)) : NULL;
    PQclear(res);

    after = tag_text(r, name);

    if (after == NULL || (budget && budget_models(r, budget) != 0)
        || tx_audit(r, action, "LiteLLM_TagTable", name, before, after) != 0)
    {
        return -1;
    }

    return tx_commit(r);
}


void
api_tag_new(req_t *r)
{
    rowset_t     rs;
    PGresult    *res;
    const char  *name;

    memset(&rs, 0, sizeof(rs));
    name = tag_name(r);

    if (name == NULL || budget_check(r) != 0
        || fields_read(r, tag_body, &rs, 1) != 0 || tx_begin(r) != 0
        || budget_link(r, &rs, NULL, NULL) != 0)
    {
        return;
    }

    row_set(&rs, "tag_name", "text", name);
    row_set(&rs, "created_by", "text", tx_actor(r));
    row_set(&rs, "updated_by", "text", tx_actor(r));
    res = tx_dynamic(r, row_insert(&r->a, "tags", &rs, "ON CONFLICT DO NOTHING"
                     " RETURNING ent, budget_id"), rs.n, rs.val);

    if (res == NULL) {
        return;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        fail_detail(r, 400, arena_printf(&r->a, "Tag %s already exists", name));
        return;
    }

    if (tag_finish(r, res, name, "created", NULL) == 0) {
        tag_reply(r, name, "created");
    }
}


static void
tag_missing(req_t *r, const char *name)
{
    fail_detail(r, 404, arena_printf(&r->a, "Tag %s not found", name));
}


void
api_tag_update(req_t *r)
{
    int          i;
    rowset_t     rs;
    PGresult    *res;
    int64_t      version;
    const char  *name, *ent, *current, *before, *sql, *params[ROWSET_MAX + 1];

    memset(&rs, 0, sizeof(rs));
    name = tag_name(r);

    if (name == NULL || budget_check(r) != 0
        || fields_read(r, tag_body, &rs, 0) != 0 || tx_begin(r) != 0)
    {
        return;
    }

    res = tx_q(r, "SELECT ent, budget_id, version, kt_tag_json(g) FROM tags g WHERE"
               " tag_name = $1 FOR UPDATE", name);

    if (res == NULL) {
        return;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        tag_missing(r, name);
        return;
    }

    ent = arena_str(&r->a, PQgetvalue(res, 0, 0));
    current = db_str(res, 0, 1) ? arena_str(&r->a, db_str(res, 0, 1)) : NULL;
    version = db_int(res, 0, 2);
    before = arena_str(&r->a, PQgetvalue(res, 0, 3));
    PQclear(res);

    if (tx_match(r, version) != 0 || budget_link(r, &rs, ent, current) != 0) {
        return;
    }

    row_expr(&rs, "updated_at", "now()");
    row_set(&rs, "updated_by", "text", tx_actor(r));
    sql = row_update(&r->a, "tags", &rs, 1, "WHERE tag_name = $1 RETURNING ent,"
                     " budget_id");
    params[0] = name;

    for (i = 0; i < rs.n; i++) {
        params[i + 1] = rs.val[i];
    }

    res = tx_dynamic(r, sql, rs.n + 1, params);

    if (res && tag_finish(r, res, name, "updated", before) == 0) {
        tag_reply(r, name, "updated");
    }
}


void
api_tag_delete(req_t *r)
{
    int          i, rc;
    jv_t        *out;
    PGresult    *res;
    const char  *name, *before;

    name = tag_name(r);
    before = name && tx_begin(r) == 0 ? tag_text(r, name) : NULL;

    if (before == NULL) {
        return;
    }

    res = tx_q(r, "WITH g AS (DELETE FROM tags WHERE tag_name = $1 RETURNING ent), s AS"
               " (DELETE FROM submeters WHERE owner = kt_ent('tag', $1) RETURNING ent)"
               " TABLE g UNION ALL TABLE s", name);

    if (res == NULL) {
        return;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        tag_missing(r, name);
        return;
    }

    for (i = 0, rc = 0; i < PQntuples(res) && rc == 0; i++) {
        rc = tx_gone(r, PQgetvalue(res, i, 0));
    }

    PQclear(res);

    if (rc != 0 || tx_audit(r, "deleted", "LiteLLM_TagTable", name, before, NULL) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    out = json_obj(&r->a);
    json_set(out, "message", json_string(&r->a, arena_printf(&r->a, "Tag %s deleted"
             " successfully", name)));
    reply_json(r, 200, out);
}


/* The first name that no row has; NULL when all are there. */

static const char *
tag_absent(const jv_t *names, const jv_t *rows)
{
    const jv_t  *c, *t;

    for (c = names->head; c; c = c->next) {
        for (t = rows->head; t; t = t->next) {
            if (strcmp(json_str(t, "name"), c->s) == 0) {
                break;
            }
        }

        if (t == NULL) {
            return c->s;
        }
    }

    return NULL;
}


void
api_tag_info(req_t *r)
{
    size_t        i;
    jv_t         *out, *rows, *t, *next;
    const jv_t   *names, *c;
    const char  **ids, *absent;

    names = json_get(r->json, "names");

    if (json_is_null(names) || names->type != J_ARR) {
        fail_field(r, "names", names ? "list_type" : "missing",
                   names ? "Input should be a valid list" : "Field required", r->json);
        return;
    }

    ids = arena_alloc(&r->a, (names->n + 1) * sizeof(char *));

    for (i = 0, c = names->head; c; c = c->next) {
        if (c->type != J_STR) {
            fail_field(r, "names", "string_type", "Input should be a valid string", c);
            return;
        }

        ids[i++] = c->s;
    }

    rows = tag_rows(r, db_array(&r->a, ids, i));

    if (rows == NULL) {
        return;
    }

    absent = tag_absent(names, rows);

    if (absent) {
        fail_detail(r, 404, arena_printf(&r->a, "Tags not found: [%s]",
                                         py_repr(&r->a, absent)));
        return;
    }

    out = json_obj(&r->a);

    for (t = rows->head; t; t = next) {
        next = t->next;
        json_set(out, arena_str(&r->a, json_str(t, "name")), t);
    }

    reply_json(r, 200, out);
}


void
api_tag_list(req_t *r)
{
    jv_t  *list;

    list = tag_rows(r, NULL);

    if (list) {
        reply_json(r, 200, list);
    }
}
