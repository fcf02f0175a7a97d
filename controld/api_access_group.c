/*
 * /v1/access_group: groups with an id that keys and teams have in access_group_ids.
 */

#include <string.h>
#include "api.h"
#include "db.h"
#include "key.h"
#include "tx.h"
#include "util.h"


#define GROUP_FIELDS                                                          \
    { "description", F_STR, "description", 0 },                               \
    { "access_model_names", F_STRS, NULL, 0 },                                \
    { "access_mcp_server_ids", F_STRS, NULL, 0 },                             \
    { "access_agent_ids", F_STRS, NULL, 0 },                                  \
    { "assigned_team_ids", F_STRS, NULL, 0 },                                 \
    { "assigned_key_ids", F_STRS, NULL, 0 },                                  \
    { NULL, 0, NULL, 0 }

const field_t  access_group_body[] = {
    { "access_group_name", F_ID, "access_group_name", F_REQUIRED },
    GROUP_FIELDS
};

const field_t  access_group_update_body[] = {
    { "access_group_name", F_ID, "access_group_name", 0 },
    GROUP_FIELDS
};


static const char *
access_array(req_t *r, const jv_t *list, int keys)
{
    size_t        n;
    const jv_t   *c;
    const char  **items;

    items = arena_alloc(&r->a, (list->n + 1) * sizeof(char *));

    for (n = 0, c = list->head; c; c = c->next) {
        items[n++] = keys ? key_token(r, c->s) : c->s;
    }

    return db_array(&r->a, items, n);
}


/*
 * Brings access_group_ids of teams or keys in line with a list: those of it must be
 * there.  Whoever loses his only group and has no models of his own would have an empty
 * list, which means every model: one that matches nothing is left to him.  0, or -1
 * after answering.
 */

static int
access_assign(req_t *r, const char *id, const char *field, const char *table,
    const char *col, const char *what)
{
    int          i;
    PGresult    *res;
    const jv_t  *list;
    const char  *array;

    list = json_get(r->json, field);

    if (json_is_null(list)) {
        return 0;
    }

    array = access_array(r, list, strcmp(table, "keys") == 0);
    res = tx_dynamic(r, arena_printf(&r->a, "SELECT x FROM unnest($1::text[]) x WHERE NOT"
                     " EXISTS (SELECT 1 FROM %s WHERE %s = x) LIMIT 1", table, col), 1,
                     (const char *const[]){ array });

    if (res == NULL) {
        return -1;
    }

    if (PQntuples(res)) {
        fail_detail_error(r, 400, "%s not found: %s", what, PQgetvalue(res, 0, 0));
        PQclear(res);
        return -1;
    }

    PQclear(res);
    res = tx_dynamic(r, arena_printf(&r->a, "UPDATE %s SET access_group_ids = CASE WHEN %s ="
        " ANY ($2::text[]) THEN access_group_ids || $1::text ELSE array_remove("
        "access_group_ids, $1::text) END, models = CASE WHEN %s <> ALL ($2::text[]) AND"
        " models = '{}' AND cardinality(access_group_ids) = 1 THEN '{no-default-models}'"
        " ELSE models END WHERE (%s = ANY ($2::text[]) AND NOT"
        " access_group_ids @> ARRAY[$1::text]) OR (access_group_ids <> '{}' AND"
        " access_group_ids @> ARRAY[$1::text] AND %s <> ALL ($2::text[])) RETURNING ent",
        table, col, col, col, col), 2, (const char *const[]){ id, array });

    if (res == NULL) {
        return -1;
    }

    for (i = 0; i < PQntuples(res); i++) {
        tx_touch(r, PQgetvalue(res, i, 0));
    }

    PQclear(res);

    return 0;
}


static int
access_models(req_t *r, const char *id)
{
    PGresult    *res;
    const jv_t  *list;

    list = json_get(r->json, "access_model_names");

    if (json_is_null(list)) {
        return 0;
    }

    res = tx_q(r, "WITH gone AS (DELETE FROM access_group_models WHERE access_group_id = $1"
        " AND model_name <> ALL ($2::text[])) INSERT INTO access_group_models SELECT $1, m"
        " FROM (SELECT DISTINCT unnest($2::text[]) AS m) x ON CONFLICT DO NOTHING", id,
        access_array(r, list, 0));

    if (res == NULL) {
        return -1;
    }

    PQclear(res);

    return 0;
}


/* What is only kept: of servers and agents. */

static int
access_extra(req_t *r, const char *id)
{
    size_t                    i;
    PGresult                 *res;
    const jv_t               *v;
    static const char *const  names[] = { "access_mcp_server_ids", "access_agent_ids" };

    for (i = 0; i < 2; i++) {
        v = json_get(r->json, names[i]);

        if (json_is_null(v)) {
            continue;
        }

        res = tx_q(r, "UPDATE access_groups SET extra = extra || jsonb_build_object("
                   "$2::text, $3::jsonb) WHERE access_group_id = $1", id, names[i],
                   json_text(&r->a, v));

        if (res == NULL) {
            return -1;
        }

        PQclear(res);
    }

    return 0;
}


/* Wire JSON, locked; NULL without a group or after answering. */

static const char *
access_group_row(req_t *r, const char *id, int must)
{
    PGresult    *res;
    const char  *row;

    res = tx_q(r, "SELECT kt_access_group_json(g) FROM access_groups g WHERE"
               " access_group_id = $1 FOR UPDATE", id);

    if (res == NULL) {
        return NULL;
    }

    row = PQntuples(res) ? arena_str(&r->a, PQgetvalue(res, 0, 0)) : NULL;
    PQclear(res);

    if (row == NULL && must) {
        fail_detail_error(r, 404, "Access group '%s' not found", id);
    }

    return row;
}


/* The rest of a change: models, assignments, audit, commit, answer. */

static void
access_finish(req_t *r, const char *id, const char *before)
{
    const char  *row;

    if (access_models(r, id) != 0 || access_extra(r, id) != 0
        || access_assign(r, id, "assigned_team_ids", "teams", "team_id", "Team") != 0
        || access_assign(r, id, "assigned_key_ids", "keys", "token", "Key") != 0)
    {
        return;
    }

    row = access_group_row(r, id, 1);

    if (row && tx_audit(r, before ? "updated" : "created", "LiteLLM_AccessGroupTable", id,
                        before, row) == 0 && tx_commit(r) == 0)
    {
        reply_text(r, before ? 200 : 201, "application/json", row);
    }
}


/* A name that another group has; -1 after answering. */

static int
access_name_free(req_t *r, const char *name, const char *id)
{
    int  n;

    if (name == NULL) {
        return 0;
    }

    n = tx_is(r, "SELECT 1 FROM access_groups WHERE access_group_name = $1 AND"
              " access_group_id <> $2", name, id);

    if (n < 0) {
        return -1;
    }

    if (n) {
        fail_detail_error(r, 409, "Access group '%s' already exists", name);
    }

    return n ? -1 : 0;
}


/* The number of the parameter that is the id. */

static int
access_id_param(const rowset_t *rs)
{
    int  i, n;

    for (i = 0, n = 0; i < rs->n; i++) {
        n += !rs->bare[i];

        if (!rs->bare[i] && strcmp(rs->col[i], "access_group_id") == 0) {
            break;
        }
    }

    return n;
}


void
api_access_group_new(req_t *r)
{
    rowset_t     rs;
    PGresult    *res;
    const char  *id, *sql;

    id = util_uuid(&r->a);
    memset(&rs, 0, sizeof(rs));
    row_set(&rs, "access_group_id", "text", id);
    row_set(&rs, "created_by", "text", tx_actor(r));
    row_set(&rs, "updated_by", "text", tx_actor(r));

    if (fields_read(r, access_group_body, &rs, 1) != 0 || tx_begin(r) != 0
        || access_name_free(r, json_str(r->json, "access_group_name"), id) != 0)
    {
        return;
    }

    sql = row_insert(&r->a, "access_groups", &rs, "");
    res = tx_dynamic(r, sql, rs.n, rs.val);

    if (res) {
        PQclear(res);
        access_finish(r, id, NULL);
    }
}


void
api_access_group_list(req_t *r)
{
    int        i;
    jv_t      *list;
    PGresult  *res;

    res = db_q0("SELECT kt_access_group_json(g) FROM access_groups g ORDER BY created_at,"
                " access_group_id");

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return;
    }

    list = json_arr(&r->a);

    for (i = 0; i < PQntuples(res); i++) {
        json_push(list, json_raw(&r->a, PQgetvalue(res, i, 0)));
    }

    PQclear(res);
    reply_json(r, 200, list);
}


void
api_access_group_info(req_t *r)
{
    PGresult  *res;

    res = db_q("SELECT kt_access_group_json(g) FROM access_groups g WHERE access_group_id ="
               " $1", r->seg[0]);

    if (!db_ok(res)) {
        fail_db(r);

    } else if (PQntuples(res) == 0) {
        fail_detail_error(r, 404, "Access group '%s' not found", r->seg[0]);

    } else {
        reply_json(r, 200, json_raw(&r->a, PQgetvalue(res, 0, 0)));
    }

    PQclear(res);
}


void
api_access_group_update(req_t *r)
{
    rowset_t     rs;
    PGresult    *res;
    const char  *id, *before, *sql;

    id = r->seg[0];
    memset(&rs, 0, sizeof(rs));

    if (fields_read(r, access_group_update_body, &rs, 0) != 0 || tx_begin(r) != 0) {
        return;
    }

    before = access_group_row(r, id, 1);

    if (before == NULL
        || access_name_free(r, json_str(r->json, "access_group_name"), id) != 0)
    {
        return;
    }

    row_set(&rs, "updated_by", "text", tx_actor(r));
    row_set(&rs, "access_group_id", "text", id);
    row_expr(&rs, "updated_at", "now()");
    sql = row_update(&r->a, "access_groups", &rs, 0, arena_printf(&r->a,
                     "WHERE access_group_id = $%d", access_id_param(&rs)));
    res = tx_dynamic(r, sql, rs.n, rs.val);

    if (res) {
        PQclear(res);
        access_finish(r, id, before);
    }
}


void
api_access_group_delete(req_t *r)
{
    PGresult    *res;
    const char  *id, *before;

    id = r->seg[0];

    if (tx_begin(r) != 0) {
        return;
    }

    before = access_group_row(r, id, 1);

    if (before == NULL) {
        return;
    }

    r->json = json_obj(&r->a);
    json_set(r->json, "assigned_team_ids", json_arr(&r->a));
    json_set(r->json, "assigned_key_ids", json_arr(&r->a));

    if (access_assign(r, id, "assigned_team_ids", "teams", "team_id", "Team") != 0
        || access_assign(r, id, "assigned_key_ids", "keys", "token", "Key") != 0)
    {
        return;
    }

    res = tx_q(r, "DELETE FROM access_groups WHERE access_group_id = $1", id);

    if (res == NULL) {
        return;
    }

    PQclear(res);

    if (tx_audit(r, "deleted", "LiteLLM_AccessGroupTable", id, before, NULL) == 0
        && tx_commit(r) == 0)
    {
        reply_text(r, 204, "application/json", "");
    }
}
