/* Users change and go: /user/update, /user/bulk_update, /user/delete. */

#include <string.h>
#include "access.h"
#include "api.h"
#include "db.h"
#include "key.h"
#include "kt_schema.h"
#include "owner.h"
#include "policy.h"
#include "tx.h"
#include "user.h"


const field_t  user_update_body[] = {
    { "user_id", F_ID, NULL, 0 },
    { "user_role", F_ENUM, NULL, 0, "proxy_admin|proxy_admin_viewer|org_admin|"
      "internal_user|internal_user_viewer" },
    { "metadata", F_OBJ, NULL, 0 },
    { "spend", F_USD, NULL, 0 },
    { "password", F_STR, NULL, 0 },
    USER_FIELDS,
    { NULL, 0, NULL, 0 }
};

const field_t  user_bulk_body[] = {
    { "users", F_LIST, NULL, 0 },
    { "all_users", F_BOOL, NULL, 0 },
    { "user_updates", F_OBJ, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  user_delete_body[] = {
    { "user_ids", F_STRS, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};


#define USER_BULK_MAX  500


/* An id as entities spell it. */

static const char *
user_enc(req_t *r, const char *id)
{
    size_t  n;
    char    out[KT_ENT_MAX];

    return kt_id_encode(id, strlen(id), out, sizeof(out), &n) == KT_OK
           ? arena_str(&r->a, out) : "";
}


/* Values that say nothing: LiteLLM passes them over here, unlike elsewhere. */

static void
user_drop_empty(req_t *r)
{
    jv_t  *c, *next;

    for (c = r->json->head; c; c = next) {
        next = c->next;

        if ((c->type == J_NULL && strcmp(c->key, "max_budget"))
            || ((c->type == J_ARR || c->type == J_OBJ) && c->n == 0))
        {
            json_del(r->json, c->key);
        }
    }
}


static int
user_may_update(req_t *r, const char *id)
{
    if (access_admin(r)) {
        return 0;
    }

    if (!access_self(r, id)) {
        fail_repr(r, 403, "User does not have permission to update this user. Only"
                  " PROXY_ADMIN can update other users.");
        return -1;
    }

    return 0;
}


static int
user_write(req_t *r, rowset_t *rs, const char *id)
{
    int          i;
    PGresult    *res;
    const char  *sql, *params[ROWSET_MAX + 1];

    row_expr(rs, "updated_at", "now()");
    row_expr(rs, "implicit", "false");
    row_set(rs, "updated_by", "text", tx_actor(r));
    sql = row_update(&r->a, "users", rs, 1, "WHERE user_id = $1 RETURNING ent");
    params[0] = id;

    for (i = 0; i < rs->n; i++) {
        params[i + 1] = rs->val[i];
    }

    res = tx_dynamic(r, sql, rs->n + 1, params);

    if (res == NULL) {
        return -1;
    }

    tx_touch(r, PQgetvalue(res, 0, 0));
    PQclear(res);

    return 0;
}


/* The user that the body names, made if there is none; locked. */

static int
user_target(req_t *r, const char **id, int64_t *version)
{
    PGresult    *res;
    const char  *email;

    *id = json_str(r->json, "user_id");
    email = json_str(r->json, "user_email");

    if (*id == NULL && email == NULL) {
        fail_field(r, NULL, "value_error", "Value error, Either user_id or user_email"
                   " must be provided", r->json);
        return -1;
    }

    if (*id == NULL && user_by_email(r, email, id) != 0) {
        return -1;
    }

    if (user_may_update(r, *id) != 0
        || user_ensure(r, id, *id ? NULL : email) != 0)
    {
        return -1;
    }

    res = tx_q(r, "SELECT version FROM users WHERE user_id = $1 FOR NO KEY UPDATE", *id);

    if (res == NULL) {
        return -1;
    }

    *version = db_int(res, 0, 0);
    PQclear(res);

    return 0;
}


/* A new address must be nobody else's. */

static int
user_check_email(req_t *r, rowset_t *rs, const char *id)
{
    const char  *email, *other;

    email = json_str(r->json, "user_email");

    if (email == NULL) {
        return 0;
    }

    email = user_trim(&r->a, email);
    row_set(rs, "user_email", "text", email);

    if (user_by_email(r, email, &other) != 0) {
        return -1;
    }

    if (other && strcmp(other, id)) {
        fail_repr(r, 409, "User with email %s already exists", email);
        return -1;
    }

    return 0;
}


static int
user_update_tx(req_t *r, const char **id, jv_t **row)
{
    int64_t      version;
    jv_t        *before;
    rowset_t     rs;
    const char  *role;

    memset(&rs, 0, sizeof(rs));
    role = json_str(r->json, "user_role");

    if (role && strcmp(role, "internal_user") == 0
        && json_get(r->json, "max_budget") == NULL && user_default_budget(r) != 0)
    {
        return -1;
    }

    if (user_target(r, id, &version) != 0 || tx_match(r, version) != 0
        || user_row(r, *id, &before) != 0 || user_check_email(r, &rs, *id) != 0
        || fields_read(r, user_update_body, &rs, 0) != 0
        || fields_metadata(r, &rs, 0) != 0 || user_role(r, &rs) != 0
        || user_password(r, &rs) != 0 || user_write(r, &rs, *id) != 0
        || user_row(r, *id, row) != 0
        || owner_submeters(r, arena_printf(&r->a, "user:%s", user_enc(r, *id)),
                           *row) != 0)
    {
        return -1;
    }

    return tx_audit(r, "updated", "LiteLLM_UserTable", *id,
                    before ? json_text(&r->a, before) : NULL,
                    json_text(&r->a, *row));
}


/* One update of r->json with its commit; the row, or NULL after answering. */

static jv_t *
user_update(req_t *r, const char **id)
{
    int          rc;
    jv_t        *row;
    int64_t      spend, used;
    const char  *ent;

    user_drop_empty(r);
    rc = field_usd(r, "spend", &spend);

    if (rc < 0 || owner_check_limits(r) != 0 || tx_begin(r) != 0
        || user_update_tx(r, id, &row) != 0 || tx_commit(r) != 0)
    {
        return NULL;
    }

    ent = arena_printf(&r->a, "user:%s", user_enc(r, *id));

    if (rc > 0 && owner_adjust(r, ent, spend) != 0) {
        return NULL;
    }

    policy_used(&r->a, &ent, 1, &used);
    json_set(row, "spend", json_usd(&r->a, rc > 0 ? spend : used));

    return row;
}


void
api_user_update(req_t *r)
{
    jv_t        *row, *out;
    const char  *id;

    row = user_update(r, &id);

    if (row) {
        out = json_obj(&r->a);
        json_set(out, "user_id", json_string(&r->a, id));
        json_set(out, "data", row);
        reply_json(r, 200, out);
    }
}


static jv_t *
user_bulk_one(req_t *r, jv_t *item)
{
    int          tries;
    jv_t        *row, *o;
    const char  *id;

    tries = 0;
    r->touched = NULL;
    r->touch_end = &r->touched;

    do {
        r->json = json_copy(&r->a, item);
        id = json_str(item, "user_id");
        row = fields_check(r, user_update_body) == 0 ? user_update(r, &id) : NULL;
    } while (row == NULL && tx_item_again(r, &tries));

    o = json_obj(&r->a);
    json_set(o, "user_id", json_string(&r->a, id));
    json_set(o, "user_email", json_string(&r->a, json_str(row ? row : item,
                                                          "user_email")));
    json_set(o, "success", json_bool(&r->a, row != NULL));

    if (row == NULL) {
        tx_item_failed(r);
        json_set(o, "error", json_string(&r->a, key_taken_error(r)));
    }

    json_set(o, "updated_user", row ? row : json_null(&r->a));

    return o;
}


/* {all_users: true, user_updates: {...}} as a list of updates. */

static jv_t *
user_bulk_all(req_t *r, const jv_t *updates)
{
    int          i;
    jv_t        *list, *o;
    PGresult    *res;
    const jv_t  *c;

    res = db_q0("SELECT user_id FROM users WHERE NOT implicit ORDER BY user_id"
                " LIMIT 501");

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return NULL;
    }

    list = json_arr(&r->a);

    for (i = 0; i < PQntuples(res); i++) {
        o = json_obj(&r->a);

        for (c = updates->head; c; c = c->next) {
            json_set(o, c->key, json_copy(&r->a, c));
        }

        json_set(o, "user_id", json_string(&r->a, arena_str(&r->a,
                                                            PQgetvalue(res, i, 0))));
        json_del(o, "user_email");
        json_push(list, o);
    }

    PQclear(res);

    return list;
}


void
api_user_bulk_update(req_t *r)
{
    int       all;
    jv_t     *list, *updates, *results, *out, *row, *c, *next;
    int64_t   good, bad;

    all = 0;
    list = json_get(r->json, "users");
    updates = json_get(r->json, "user_updates");

    if (field_bool(r, "all_users", &all) < 0) {
        return;
    }

    if (all && !json_is_null(updates)) {
        list = user_bulk_all(r, updates);

        if (list == NULL) {
            return;
        }
    }

    if (json_is_null(list) || list->n == 0) {
        fail_detail_error(r, 400, "Must specify either 'users' for individual updates or"
                          " 'all_users=True' with 'user_updates' for bulk updates");
        return;
    }

    if (list->n > USER_BULK_MAX) {
        fail_detail_error(r, 400, "Maximum %d users can be updated at once. Found %zu"
                          " users.", USER_BULK_MAX, list->n);
        return;
    }

    results = json_arr(&r->a);
    good = bad = 0;

    for (c = list->head; c; c = next) {
        next = c->next;

        if (c->type != J_OBJ) {
            bad++;
            continue;
        }

        row = user_bulk_one(r, c);
        good += json_get(row, "success")->type == J_TRUE;
        bad += json_get(row, "success")->type != J_TRUE;
        json_push(results, row);
    }

    out = json_obj(&r->a);
    json_set(out, "results", results);
    json_set(out, "total_requested", json_int(&r->a, good + bad));
    json_set(out, "successful_updates", json_int(&r->a, good));
    json_set(out, "failed_updates", json_int(&r->a, bad));
    reply_json(r, 200, out);
}


static int
user_delete_one(req_t *r, const char *id)
{
    int          i, rc;
    jv_t        *row;
    PGresult    *res;

    if (user_row(r, id, &row) != 0) {
        return -1;
    }

    if (row == NULL) {
        fail_detail_error(r, 404, "User not found, passed user_id=%s", id);
        return -1;
    }

    if (keys_delete(r, "user_id = $1::text", id, NULL) < 0) {
        return -1;
    }

    res = tx_q(r, "WITH o AS (DELETE FROM organization_memberships WHERE user_id = $1),"
               " m AS (DELETE FROM memberships WHERE user_id = $1 RETURNING ent),"
               " s AS (DELETE FROM submeters WHERE owner = kt_ent('user', $1) RETURNING ent),"
               " u AS (DELETE FROM users WHERE user_id = $1 RETURNING ent)"
               " SELECT ent FROM (TABLE m UNION ALL TABLE s UNION ALL TABLE u) x", id);

    if (res == NULL) {
        return -1;
    }

    rc = 0;

    for (i = 0; i < PQntuples(res) && rc == 0; i++) {
        rc = tx_gone(r, PQgetvalue(res, i, 0));
    }

    PQclear(res);

    return rc != 0 ? -1 : tx_audit(r, "deleted", "LiteLLM_UserTable", id,
                                   json_text(&r->a, row), NULL);
}


static int
user_repeated(const jv_t *ids, const jv_t *item)
{
    const jv_t  *c;

    for (c = ids->head; c != item && strcmp(c->s, item->s); c = c->next) { /* void */ }

    return c != item;
}


void
api_user_delete(req_t *r)
{
    int64_t      n;
    const jv_t  *ids, *c;

    ids = json_get(r->json, "user_ids");

    if (tx_begin(r) != 0) {
        return;
    }

    for (n = 0, c = ids->head; c; c = c->next) {
        if (user_repeated(ids, c)) {
            continue;
        }

        if (user_delete_one(r, c->s) != 0) {
            return;
        }

        n++;
    }

    if (tx_commit(r) == 0) {
        reply_json(r, 200, json_int(&r->a, n));
    }
}
