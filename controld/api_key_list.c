/* /key/info and /key/list. */

#include <stdlib.h>
#include <string.h>
#include "access.h"
#include "api.h"
#include "conf.h"
#include "key.h"
#include "kt_key.h"
#include "kt_money.h"
#include "owner.h"
#include "db.h"


const arg_t  key_info_args[] = {
    { "key", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  key_list_args[] = {
    { "page", F_INT, 0 },
    { "size", F_INT, 0 },
    { "user_id", F_STR, 0 },
    { "team_id", F_STR, 0 },
    { "organization_id", F_STR, 0 },
    { "key_hash", F_STR, 0 },
    { "key_alias", F_STR, 0 },
    { "return_full_object", F_BOOL, 0 },
    { "include_team_keys", F_BOOL, 0 },
    { "include_created_by_keys", F_BOOL, 0 },
    { "sort_by", F_STR, 0 },
    { "sort_order", F_STR, 0 },
    { "expand", F_STR, 0 },
    { "status", F_STR, 0 },
    { NULL, 0, 0 }
};


#define LIST_SIZE_MAX   100
#define LIST_PARAMS     10


typedef struct {
    buf_t        where;
    const char  *param[LIST_PARAMS];
    int          n;
} filter_t;


void
api_key_info(req_t *r)
{
    jv_t        *rows, *out;
    PGresult    *res;
    const char  *sent, *token;

    sent = http_arg(r, "key");

    if (sent == NULL) {
        sent = r->caller_token;
    }

    token = key_token(r, sent);

    access_scoped(r);

    if (!access_reads_all(r) && strcmp(token, r->caller_token)) {
        fail_proxy(r, 403, "auth_error", "key", "You are not allowed to access"
                   " this key's info. Your role=%s", access_role_name(r));
        return;
    }

    res = db_q("SELECT ent, kt_key_json(k) FROM keys k WHERE token = $1", token);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return;
    }

    rows = owner_rows(r, res, 0, 1);
    PQclear(res);

    if (rows->n == 0) {
        fail_proxy(r, 404, "not_found_error", "key", "Key not found in database");
        return;
    }

    json_del(rows->head, "token");
    out = json_obj(&r->a);
    json_set(out, "key", json_string(&r->a, sent));
    json_set(out, "info", rows->head);
    reply_json(r, 200, out);
}


static int
list_int(req_t *r, const char *name, int64_t def, int64_t max, int64_t *v)
{
    jv_t        *o, *d, *e, *loc;
    const char  *s;

    *v = def;
    s = http_arg(r, name);

    if (s == NULL) {
        return 0;
    }

    if (kt_int_parse(s, strlen(s), v) == KT_OK && *v >= 1 && *v <= max) {
        return 0;
    }

    loc = json_arr(&r->a);
    json_push(loc, json_string(&r->a, "query"));
    json_push(loc, json_string(&r->a, name));
    e = json_obj(&r->a);
    json_set(e, "type", json_string(&r->a, "int_parsing"));
    json_set(e, "loc", loc);
    json_set(e, "msg", json_string(&r->a, "Input should be a valid integer in its"
                                   " range"));
    json_set(e, "input", json_string(&r->a, s));
    d = json_arr(&r->a);
    json_push(d, e);
    o = json_obj(&r->a);
    json_set(o, "detail", d);
    reply_json(r, 422, o);

    return -1;
}


static void
list_filter(req_t *r, filter_t *f, const char *arg, const char *cond)
{
    const char  *v;

    v = http_arg(r, arg);

    if (v == NULL || !*v || f->n == LIST_PARAMS) {
        return;
    }

    if (strcmp(arg, "key_hash") == 0) {
        v = key_token(r, v);
    }

    f->param[f->n++] = v;
    buf_printf(&f->where, " AND %s $%d", cond, f->n);
}


static int
list_true(req_t *r, const char *arg)
{
    const char  *v;

    v = http_arg(r, arg);

    return v && (!strcmp(v, "true") || !strcmp(v, "True") || !strcmp(v, "1"));
}


/* Column and direction from the two closed sets; NULL after answering. */

static const char *
list_order(req_t *r)
{
    size_t                    i;
    const char               *by, *dir;
    static const char *const  cols[][2] = {
        { "spend", "kt_used(k.ent, kt_period_id(k.period_kind, k.period_len_s,"
                   " k.period_id, k.period_end_s, kt_now_s()))" },
        { "max_budget", "k.max_budget_nusd" }, { "created_at", "k.created_at" },
        { "updated_at", "k.updated_at" }, { "token", "k.token" },
        { "key_alias", "k.key_alias" }
    };

    by = http_arg(r, "sort_by");
    dir = http_arg(r, "sort_order");
    dir = dir && strcasecmp(dir, "asc") == 0 ? "ASC" : "DESC";

    if (by == NULL) {
        return arena_printf(&r->a, "k.created_at %s, k.token %s", dir, dir);
    }

    for (i = 0; i < sizeof(cols) / sizeof(cols[0]); i++) {
        if (strcmp(by, cols[i][0]) == 0) {
            return arena_printf(&r->a, "%s %s NULLS LAST, k.token %s", cols[i][1],
                                dir, dir);
        }
    }

    fail_proxy(r, 400, "bad_request_error", "sort_by", "Invalid sort column. Must be"
               " one of: spend, max_budget, created_at, updated_at, token,"
               " key_alias");

    return NULL;
}


static void
list_reply(req_t *r, jv_t *keys, int64_t total, int64_t page, int64_t size)
{
    jv_t  *out;

    out = json_obj(&r->a);
    json_set(out, "keys", keys);
    json_set(out, "total_count", json_int(&r->a, total));
    json_set(out, "current_page", json_int(&r->a, page));
    json_set(out, "total_pages", json_int(&r->a, (total + size - 1) / size));
    reply_json(r, 200, out);
}


static void
list_deleted(req_t *r, filter_t *f, int64_t page, int64_t size, int full)
{
    int          i;
    jv_t        *keys;
    int64_t      total;
    PGresult    *res;
    const char  *sql;

    sql = arena_printf(&r->a, "SELECT count(*) OVER (), token, row ||"
        " jsonb_build_object('deleted_at', kt_ts(deleted_at), 'deleted_by',"
        " deleted_by, 'spend', kt_usd(spend_nusd)) FROM deleted_keys k WHERE true%s"
        " ORDER BY deleted_at DESC, id DESC LIMIT %lld OFFSET %lld", f->where.p,
        (long long) size, (long long) ((page - 1) * size));
    res = db_dynamic(sql, f->n, f->param);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return;
    }

    keys = json_arr(&r->a);
    total = PQntuples(res) ? db_int(res, 0, 0) : 0;

    for (i = 0; i < PQntuples(res); i++) {
        json_push(keys, full ? json_raw(&r->a, PQgetvalue(res, i, 2))
                             : json_string(&r->a, PQgetvalue(res, i, 1)));
    }

    PQclear(res);
    list_reply(r, keys, total, page, size);
}


static void
list_live(req_t *r, filter_t *f, int64_t page, int64_t size, int full)
{
    int          i;
    jv_t        *keys;
    int64_t      total;
    PGresult    *res;
    const char  *sql, *order;

    order = list_order(r);

    if (order == NULL) {
        return;
    }

    res = db_dynamic(arena_printf(&r->a, "SELECT count(*) FROM keys k WHERE true%s",
                                  f->where.p), f->n, f->param);
    total = db_ok(res) ? db_int(res, 0, 0) : -1;
    PQclear(res);
    sql = arena_printf(&r->a, "SELECT k.ent, k.token, %s FROM keys k WHERE true%s"
                       " ORDER BY %s LIMIT %lld OFFSET %lld",
                       full ? "kt_key_json(k)" : "NULL", f->where.p, order,
                       (long long) size, (long long) ((page - 1) * size));
    res = total < 0 ? NULL : db_dynamic(sql, f->n, f->param);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return;
    }

    if (full) {
        keys = owner_rows(r, res, 0, 2);

    } else {
        keys = json_arr(&r->a);

        for (i = 0; i < PQntuples(res); i++) {
            json_push(keys, json_string(&r->a, PQgetvalue(res, i, 1)));
        }
    }

    PQclear(res);
    list_reply(r, keys, total, page, size);
}


void
api_key_list(req_t *r)
{
    int          full;
    int64_t      page, size;
    filter_t     f;
    const char  *status;

    if (list_int(r, "page", 1, 1000000000, &page) != 0
        || list_int(r, "size", 10, LIST_SIZE_MAX, &size) != 0)
    {
        return;
    }

    memset(&f, 0, sizeof(f));
    buf_init(&f.where, &r->a);
    buf_puts(&f.where, " AND k.team_id IS DISTINCT FROM 'litellm-dashboard'");
    list_filter(r, &f, "user_id", "k.user_id =");
    list_filter(r, &f, "team_id", "k.team_id =");
    list_filter(r, &f, "organization_id", "k.organization_id =");
    list_filter(r, &f, "key_hash", "k.token =");
    list_filter(r, &f, "key_alias", "k.key_alias =");
    full = list_true(r, "return_full_object") || http_arg(r, "expand") != NULL;
    status = http_arg(r, "status");

    if (status && strcmp(status, "deleted")) {
        fail_proxy(r, 400, "bad_request_error", "status", "Invalid status value."
                   " Currently only 'deleted' is supported.");

    } else if (status) {
        list_deleted(r, &f, page, size, full);

    } else {
        list_live(r, &f, page, size, full);
    }
}
