#include <string.h>
#include "access.h"
#include "api.h"
#include "budget.h"
#include "db.h"
#include "key.h"
#include "owner.h"
#include "query.h"
#include "team.h"
#include "tx.h"
#include "util.h"


const arg_t  org_list_args[] = {
    { "org_id", F_STR, 0 },
    { "org_alias", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  org_info_args[] = {
    { "organization_id", F_STR, 0 },
    { NULL, 0, 0 }
};


/* A deleted organization keeps its row, which refuses all its keys at once. */

const field_t  org_body[] = {
    { "organization_id", F_ANY, NULL, 0 },
    { "metadata", F_OBJ, NULL, 0 },
    FIELDS_BUDGET_ARGS,
    { "litellm_budget_table", F_OBJ, NULL, 0 },
    { "organization_alias", F_NAME, "organization_alias", 0 },
    { "models", F_STRS, "models", 1 },
    { "model_rpm_limit", F_META, NULL, 0 },
    { "model_tpm_limit", F_META, NULL, 0 },
    { "object_permission", F_EXTRA, NULL, F_REFUSED, "models" },
    { NULL, 0, NULL, 0 }
};

const field_t  org_ids_body[] = {
    { "organization_ids", F_ANY, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};

const field_t  org_info_body[] = {
    { "organizations", F_ANY, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

#define ORG_LIVE  " AND deleted_at IS NULL"


/*
 * Rows of a condition on o with one parameter; with an ETag if it is `one` that is
 * answered.  NULL after answering.
 */

static jv_t *
org_rows(req_t *r, const char *where, const char *param, int one)
{
    jv_t        *list;
    PGresult    *res;
    const char  *params[1];

    params[0] = param;
    res = db_dynamic(arena_printf(&r->a, "SELECT ent, kt_org_json(o), version FROM"
                     " organizations o WHERE %s" ORG_LIVE " ORDER BY created_at, organization_id",
                     where), 1, params);

    if (!db_ok(res)) {
        db_log("can not read organizations", res);
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


static void
org_reply(req_t *r, const char *id)
{
    jv_t  *list;

    list = org_rows(r, "organization_id = $1", id, 1);

    if (list && list->head) {
        reply_json(r, 200, list->head);
    }
}


/* Model limits of metadata and of the budget, audit and commit. */

static int
org_finish(req_t *r, const char *ent, const char *id, const char *action,
    const char *before)
{
    int          rc;
    jv_t        *row;
    PGresult    *res;
    const char  *err, *after;

    tx_touch(r, ent);
    res = tx_q(r, "SELECT json_build_object('metadata', o.metadata, 'model_max_budget',"
               " coalesce(b.model_max_budget, '{}')), kt_org_json(o) FROM organizations o LEFT JOIN"
               " budgets b USING (budget_id) WHERE o.organization_id = $1", id);

    if (res == NULL) {
        return -1;
    }

    row = json_parse_big(&r->a, PQgetvalue(res, 0, 0), (size_t) PQgetlength(res, 0, 0),
                     &err);
    after = arena_str(&r->a, PQgetvalue(res, 0, 1));
    PQclear(res);
    rc = owner_submeters(r, ent, row);

    if (rc != 0 || tx_audit(r, action, "LiteLLM_OrganizationTable", id, before,
                            after) != 0)
    {
        return -1;
    }

    return tx_commit(r);
}


void
api_organization_new(req_t *r)
{
    rowset_t     rs;
    PGresult    *res;
    const jv_t  *v;
    const char  *id, *ent;

    memset(&rs, 0, sizeof(rs));
    v = json_get(r->json, "organization_alias");

    if (json_is_null(v)) {
        fail_field(r, "organization_alias", "missing", "Field required", r->json);
        return;
    }

    v = json_get(r->json, "organization_id");
    id = json_is_null(v) ? util_uuid(&r->a) : field_body_id(r, "organization_id");

    if (id == NULL || budget_check(r) != 0
        || fields_read(r, org_body, &rs, 1) != 0
        || fields_metadata(r, &rs, 1) != 0 || tx_begin(r) != 0
        || budget_link(r, &rs, NULL, NULL) != 0 || budget_need(r, &rs) != 0)
    {
        return;
    }

    row_set(&rs, "organization_id", "text", id);
    row_set(&rs, "created_by", "text", tx_actor(r));
    row_set(&rs, "updated_by", "text", tx_actor(r));
    res = tx_dynamic(r, row_insert(&r->a, "organizations", &rs, "ON CONFLICT DO NOTHING"
                     " RETURNING ent"), rs.n, rs.val);

    if (res == NULL) {
        return;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        fail_detail_error(r, 400, "Organization already exists, organization_id=%s", id);
        return;
    }

    ent = arena_str(&r->a, PQgetvalue(res, 0, 0));
    PQclear(res);

    if (org_finish(r, ent, id, "created", NULL) == 0) {
        org_reply(r, id);
    }
}


/* Limits may come nested under litellm_budget_table: lifts them up. */

static void
org_flatten(req_t *r)
{
    jv_t  *o, *c, *next;

    o = json_get(r->json, "litellm_budget_table");

    for (c = o && o->type == J_OBJ ? o->head : NULL; c; c = next) {
        next = c->next;

        if (json_get(r->json, c->key) == NULL && strcmp(c->key, "budget_reset_at")
            && strcmp(c->key, "budget_id"))
        {
            json_set(r->json, c->key, json_copy(&r->a, c));
        }
    }
}


static int
org_write(req_t *r, rowset_t *rs, const char *id)
{
    int          i;
    PGresult    *res;
    const char  *sql, *params[ROWSET_MAX + 1];

    row_expr(rs, "updated_at", "now()");
    row_set(rs, "updated_by", "text", tx_actor(r));
    sql = row_update(&r->a, "organizations", rs, 1, "WHERE organization_id = $1");
    params[0] = id;

    for (i = 0; i < rs->n; i++) {
        params[i + 1] = rs->val[i];
    }

    res = tx_dynamic(r, sql, rs->n + 1, params);
    PQclear(res);

    return res ? 0 : -1;
}


/* Of metadata, what is sent is merged. */

static int
org_metadata(req_t *r, rowset_t *rs)
{
    jv_t        *meta;
    const jv_t  *v, *c;

    v = json_get(r->json, "metadata");

    if (!json_is_null(v) && v->type == J_OBJ) {
        meta = rs->meta ? rs->meta : json_obj(&r->a);

        for (c = v->head; c; c = c->next) {
            if (json_get(meta, c->key) == NULL) {
                json_set(meta, c->key, json_copy(&r->a, c));
            }
        }

        rs->meta = meta;
        json_del(r->json, "metadata");
    }

    return fields_metadata(r, rs, 0);
}


void
api_organization_update(req_t *r)
{
    rowset_t     rs;
    PGresult    *res;
    int64_t      version;
    const char  *id, *ent, *current, *before;

    memset(&rs, 0, sizeof(rs));
    id = field_body_id(r, "organization_id");
    org_flatten(r);

    if (id == NULL || budget_check(r) != 0
        || fields_read(r, org_body, &rs, 0) != 0 || org_metadata(r, &rs) != 0
        || tx_begin(r) != 0)
    {
        return;
    }

    res = tx_q(r, "SELECT ent, budget_id, kt_org_json(o), version FROM organizations o"
               " WHERE organization_id = $1" ORG_LIVE " FOR UPDATE", id);

    if (res == NULL) {
        return;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        fail_detail_error(r, 404, "Organization not found for organization_id=%s", id);
        return;
    }

    ent = arena_str(&r->a, PQgetvalue(res, 0, 0));
    current = db_str(res, 0, 1) ? arena_str(&r->a, db_str(res, 0, 1)) : NULL;
    before = arena_str(&r->a, PQgetvalue(res, 0, 2));
    version = db_int(res, 0, 3);
    PQclear(res);

    if (tx_match(r, version) == 0 && budget_link(r, &rs, ent, current) == 0 && org_write(r, &rs, id) == 0
        && org_finish(r, ent, id, "updated", before) == 0)
    {
        org_reply(r, id);
    }
}


static int
org_delete_team(req_t *r, const char *id)
{
    jv_t  *row;

    return team_row(r, id, &row) != 0 || team_delete(r, id) != 0
           || tx_audit(r, "deleted", "LiteLLM_TeamTable", id,
                       row ? json_text(&r->a, row) : NULL, NULL) != 0 ? -1 : 0;
}


/* Its teams and keys go with it; the row stays and refuses what is under way. */

static int
org_delete(req_t *r, const char *id, jv_t *out)
{
    int          i, rc;
    PGresult    *res;

    res = tx_q(r, "UPDATE organizations o SET deleted_at = now() WHERE organization_id ="
               " $1" ORG_LIVE " RETURNING ent, kt_org_json(o)", id);

    if (res == NULL) {
        return -1;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        fail_detail_error(r, 404, "Organization=%s not found", id);
        return -1;
    }

    tx_touch(r, PQgetvalue(res, 0, 0));
    json_push(out, json_raw(&r->a, arena_str(&r->a, PQgetvalue(res, 0, 1))));
    PQclear(res);
    res = tx_q(r, "SELECT team_id FROM teams WHERE organization_id = $1 ORDER BY team_id"
               " FOR UPDATE", id);

    if (res == NULL) {
        return -1;
    }

    for (i = 0, rc = 0; i < PQntuples(res) && rc == 0; i++) {
        rc = org_delete_team(r, arena_str(&r->a, PQgetvalue(res, i, 0)));
    }

    PQclear(res);

    if (rc != 0 || keys_delete(r, "organization_id = $1::text", id, NULL) < 0) {
        return -1;
    }

    res = tx_q(r, "DELETE FROM organization_memberships WHERE organization_id = $1", id);
    PQclear(res);

    return res ? tx_audit(r, "deleted", "LiteLLM_OrganizationTable", id,
                          json_text(&r->a, out->tail), NULL) : -1;
}


void
api_organization_delete(req_t *r)
{
    jv_t        *out;
    const jv_t  *ids, *c;

    ids = json_get(r->json, "organization_ids");

    if (ids->type != J_ARR) {
        fail_field(r, "organization_ids", "list_type", "Input should be a valid list",
                   ids);
        return;
    }

    if (tx_begin(r) != 0) {
        return;
    }

    out = json_arr(&r->a);

    for (c = ids->head; c; c = c->next) {
        if (org_delete(r, c->type == J_STR ? c->s : "", out) != 0) {
            return;
        }
    }

    if (tx_commit(r) == 0) {
        reply_json(r, 200, out);
    }
}


void
api_organization_list(req_t *r)
{
    jv_t        *list;
    query_t      q;
    PGresult    *res;
    const char  *id, *alias;

    id = http_arg(r, "org_id");
    alias = http_arg(r, "org_alias");
    query_init(&q, r);
    buf_puts(&q.where, ORG_LIVE);

    if (id && *id) {
        query_add(&q, "organization_id = $%d", id);
    } else if (alias && *alias) {
        query_add(&q, "strpos(lower(organization_alias), lower($%d)) > 0", alias);
    }

    if (!access_reads_all(r)) {
        access_scoped(r);
        query_add(&q, "organization_id IN (SELECT m.organization_id FROM"
                  " organization_memberships m WHERE m.user_id = $%d)",
                  r->caller_user && r->role != ROLE_NONE ? r->caller_user : "");
    }

    res = query_run(&q, "SELECT ent, kt_org_json(o) FROM organizations o WHERE true%s"
                    " ORDER BY created_at, organization_id");

    if (res) {
        list = owner_rows(r, res, 0, 1);
        PQclear(res);
        reply_json(r, 200, list);
    }
}


void
api_organization_info(req_t *r)
{
    int          rc;
    jv_t        *list;
    const char  *id;

    id = http_arg(r, "organization_id");
    rc = access_org_member(r, id ? id : "");

    if (rc == 0) {
        fail_detail_error(r, 404, "Organization not found");
    }

    if (rc <= 0) {
        return;
    }

    list = org_rows(r, "organization_id = $1", id ? id : "", 1);

    if (list && list->head) {
        reply_json(r, 200, list->head);

    } else if (list) {
        fail_detail_error(r, 404, "Organization not found");
    }
}


void
api_organization_info_list(req_t *r)
{
    size_t        i;
    jv_t         *list;
    const jv_t   *ids, *c;
    const char  **names;

    ids = json_get(r->json, "organizations");

    if (json_is_null(ids) || ids->type != J_ARR || ids->n == 0) {
        fail_detail_error(r, 400, "Specify list of organization id's to query. Passed"
                          " in=%s", ids ? json_text(&r->a, ids) : "[]");
        return;
    }

    names = arena_alloc(&r->a, (ids->n + 1) * sizeof(char *));

    for (i = 0, c = ids->head; c; c = c->next) {
        names[i++] = c->type == J_STR ? c->s : "";
    }

    list = org_rows(r, "organization_id = ANY ($1::text[])", db_array(&r->a, names, i), 0);

    if (list) {
        reply_json(r, 200, list);
    }
}
