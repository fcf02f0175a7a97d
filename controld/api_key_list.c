/* /key/list and /key/aliases. */

#include <stdlib.h>
#include <string.h>
#include "access.h"
#include "api.h"
#include "conf.h"
#include "key.h"
#include "query.h"
#include "kt_key.h"
#include "kt_money.h"
#include "owner.h"
#include "db.h"
#include "tx.h"
#include "user.h"


const arg_t  key_aliases_args[] = {
    { "page", F_INT, 0 },
    { "size", F_INT, 0 },
    { "search", F_STR, 0 },
    { "team_id", F_STR, 0 },
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
    { "substring_matching", F_BOOL, 0 },
    { "project_id", F_STR, 0 },
    { "status", F_STR, 0 },
    { NULL, 0, 0 }
};


#define LIST_SIZE_MAX   100
#define LIST_PARAMS     12


typedef struct {
    buf_t        where;
    const char  *param[LIST_PARAMS];
    int          n;
} filter_t;


static int
list_int(req_t *r, const char *name, int64_t def, int64_t max, int64_t *v)
{
    const char  *s;

    *v = def;
    s = http_arg(r, name);

    if (s == NULL) {
        return 0;
    }

    if (kt_int_parse(s, strlen(s), v) == KT_OK && *v >= 1 && *v <= max) {
        return 0;
    }

    fail_arg(r, name, "int_parsing", "Input should be a valid integer in its range",
             s);

    return -1;
}


static int
list_true(req_t *r, const char *arg)
{
    const char  *v;

    v = http_arg(r, arg);

    return v && (!strcmp(v, "true") || !strcmp(v, "True") || !strcmp(v, "1"));
}


/* Adds a parameter; its number. */

static int
list_param(filter_t *f, const char *v)
{
    f->param[f->n++] = v;

    return f->n;
}


static void
list_filter(req_t *r, filter_t *f, const char *arg, const char *cond)
{
    const char  *v;

    v = http_arg(r, arg);

    if (v == NULL || !*v || f->n == LIST_PARAMS) {
        return;
    }

    buf_printf(&f->where, " AND %s $%d", cond, list_param(f, v));
}


static void
list_refuse(req_t *r, const char *param, const char *whose)
{
    fail_proxy(r, 403, "bad_request_error", param, "You are not authorized to check"
               " %s keys", whose);
}


/*
 * Who is no admin sees his own keys, those of one team that he belongs to if he asks
 * for it, and with include_team_keys those of the teams that he administers.
 */

static int
list_scope(req_t *r, filter_t *f, int deleted)
{
    int          rc, n;
    const char  *user, *team, *org, *role;

    if (access_reads_all(r)) {
        return 0;
    }

    access_scoped(r);
    user = http_arg(r, "user_id");
    team = http_arg(r, "team_id");
    org = http_arg(r, "organization_id");

    if (r->caller_user == NULL) {
        fail_proxy(r, 403, "bad_request_error", "user_id", "You are not authorized to"
                   " access this endpoint. No 'user_id' is associated with your API"
                   " key.");
        return -1;
    }

    if (user && *user && strcmp(user, r->caller_user)) {
        list_refuse(r, "user_id", "another user's");
        return -1;
    }

    if (team && *team) {
        rc = access_team_role(r, team, &role);

        if (rc >= 0 && role == NULL) {
            list_refuse(r, "team_id", "this team's");
        }

        if (r->status) {
            return -1;
        }
    }

    if (org && *org) {
        rc = access_org_member(r, org);

        if (rc == 0) {
            list_refuse(r, "organization_id", "this organization's");
        }

        if (rc <= 0) {
            return -1;
        }
    }

    n = list_param(f, r->caller_user);

    if (list_true(r, "include_team_keys") && !deleted) {
        buf_printf(&f->where, " AND (k.user_id = $%d OR k.team_id IN (SELECT team_id"
                   " FROM memberships WHERE user_id = $%d AND role = 'admin' AND NOT"
                   " implicit))", n, n);
    } else if (list_true(r, "include_created_by_keys") && !deleted) {
        buf_printf(&f->where, " AND (k.user_id = $%d OR k.created_by = $%d)", n, n);
    } else {
        buf_printf(&f->where, " AND k.user_id = $%d", n);
    }

    return 0;
}


/* A key that was regenerated is found by the hash that it has now. */

static void
list_hash(req_t *r, filter_t *f, int deleted)
{
    const char  *v;

    v = http_arg(r, "key_hash");

    if (v && *v) {
        buf_printf(&f->where, deleted ? " AND k.token = $%d"
                                      : " AND k.token = kt_key_of($%d)",
                   list_param(f, key_token(r, v)));
    }
}


static void
list_text_filter(req_t *r, filter_t *f, const char *arg, const char *col, int part)
{
    const char  *v;

    v = http_arg(r, arg);

    if (v == NULL || !*v) {
        return;
    }

    if (part) {
        buf_printf(&f->where, " AND %s ILIKE $%d", col,
                   list_param(f, query_pattern(&r->a, v)));
    } else {
        buf_printf(&f->where, " AND %s = $%d", col, list_param(f, v));
    }
}


#define LIST_SPEND                                                            \
    " LEFT JOIN meters m ON m.ent = k.ent AND m.period_id = kt_period_id("    \
    "k.period_kind, k.period_len_s, k.period_id, k.period_end_s, kt_now_s())"

/*
 * Column and direction from the two closed sets, and what is joined for it; NULL
 * after answering.  Nulls stand where LiteLLM's do, behind the rest or,
 * descending, before it, which is how indexes have them.  Spend is that of the
 * running period, so it alone reads all that the filter leaves.
 */

static const char *
list_order(req_t *r, const char **join)
{
    size_t                    i;
    const char               *by, *dir;
    static const char *const  cols[][2] = {
        { "spend", "coalesce(m.used_nusd, 0)" },
        { "max_budget", "k.max_budget_nusd" }, { "created_at", "k.created_at" },
        { "updated_at", "k.updated_at" }, { "token", "k.token" },
        { "key_alias", "k.key_alias" }
    };

    by = http_arg(r, "sort_by");
    dir = http_arg(r, "sort_order");
    dir = dir && strcasecmp(dir, "asc") == 0 ? "ASC" : "DESC";
    *join = by && strcmp(by, "spend") == 0 ? LIST_SPEND : "";

    if (by == NULL) {
        return arena_printf(&r->a, "k.created_at %s, k.token %s", dir, dir);
    }

    for (i = 0; i < sizeof(cols) / sizeof(cols[0]); i++) {
        if (strcmp(by, cols[i][0]) == 0) {
            return arena_printf(&r->a, "%s %s, k.token %s", cols[i][1],
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


/* Rows of a FROM clause under the filter; -1 after answering. */

static int64_t
list_count(req_t *r, const filter_t *f, const char *from)
{
    int64_t    n;
    PGresult  *res;

    res = db_dynamic(arena_printf(&r->a, "SELECT count(*) FROM %s", from), f->n,
                     f->param);
    n = db_ok(res) ? db_int(res, 0, 0) : -1;
    PQclear(res);

    if (n < 0) {
        fail_db(r);
    }

    return n;
}


static void
list_deleted(req_t *r, filter_t *f, int64_t page, int64_t size, int full)
{
    int          i;
    jv_t        *keys;
    int64_t      total;
    PGresult    *res;
    const char  *sql;

    total = list_count(r, f, arena_printf(&r->a, "deleted_keys k WHERE true%s",
                                          f->where.p));

    if (total < 0) {
        return;
    }

    sql = arena_printf(&r->a, "SELECT token, row || jsonb_build_object('deleted_at',"
        " kt_ts(deleted_at), 'deleted_by', deleted_by, 'spend', kt_usd(spend_nusd)) FROM"
        " deleted_keys k WHERE true%s ORDER BY deleted_at DESC, id DESC LIMIT %lld OFFSET"
        " %lld", f->where.p, (long long) size, (long long) ((page - 1) * size));
    res = db_dynamic(sql, f->n, f->param);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return;
    }

    keys = json_arr(&r->a);

    for (i = 0; i < PQntuples(res); i++) {
        json_push(keys, full ? json_raw(&r->a, PQgetvalue(res, i, 1))
                             : json_string(&r->a, PQgetvalue(res, i, 0)));
    }

    PQclear(res);
    list_reply(r, keys, total, page, size);
}


/* expand=user: the user of each key under "user", without a row null. */

static int
list_users(req_t *r, jv_t *keys)
{
    jv_t         *users, *k, *u;
    size_t        n;
    const char  **ids, *id;

    ids = arena_alloc(&r->a, (keys->n + 1) * sizeof(char *));

    for (n = 0, k = keys->head; k; k = k->next) {
        id = json_str(k, "user_id");

        if (id) {
            ids[n++] = id;
        }
    }

    users = user_rows(r, db_array(&r->a, ids, n));

    if (users == NULL) {
        return -1;
    }

    for (k = keys->head; k; k = k->next) {
        id = json_str(k, "user_id");

        for (u = users->head; u; u = u->next) {
            if (id && strcmp(json_str(u, "user_id"), id) == 0) {
                break;
            }
        }

        json_set(k, "user", u ? json_copy(&r->a, u) : json_null(&r->a));
    }

    return 0;
}


static void
list_live(req_t *r, filter_t *f, int64_t page, int64_t size, int full)
{
    int          i;
    jv_t        *keys;
    int64_t      total;
    PGresult    *res;
    const char  *sql, *order, *join, *expand;

    order = list_order(r, &join);

    if (order == NULL) {
        return;
    }

    /* the whole list is counted already */

    res = f->n ? db_dynamic(arena_printf(&r->a, "SELECT count(*) FROM keys k WHERE"
                            " true%s", f->where.p), f->n, f->param)
               : db_q0("SELECT sum(n)::bigint - (SELECT count(*) FROM keys WHERE team_id ="
                       " 'litellm-dashboard') FROM key_counts");
    total = db_ok(res) ? db_int(res, 0, 0) : -1;
    PQclear(res);
    sql = arena_printf(&r->a, "SELECT k.ent, coalesce(k.current_hash, k.token), %s FROM"
                       " keys k%s WHERE true%s ORDER BY %s LIMIT %lld OFFSET %lld",
                       full ? "kt_key_json(k)" : "NULL", join, f->where.p, order,
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
    expand = http_arg(r, "expand");

    if (expand && strcmp(expand, "user") == 0 && list_users(r, keys) != 0) {
        return;
    }

    list_reply(r, keys, total, page, size);
}


void
api_key_list(req_t *r)
{
    int          full, part;
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
    status = http_arg(r, "status");
    part = list_true(r, "substring_matching");

    if (list_scope(r, &f, status != NULL) != 0) {
        return;
    }

    list_text_filter(r, &f, "user_id", "k.user_id", part && access_reads_all(r));
    list_filter(r, &f, "team_id", "k.team_id =");
    list_filter(r, &f, "organization_id", "k.organization_id =");
    list_hash(r, &f, status != NULL);
    list_text_filter(r, &f, "key_alias", "k.key_alias", part);
    list_filter(r, &f, "project_id", status ? "k.row->>'project_id' ="
                                            : "k.extra->>'project_id' =");
    full = list_true(r, "return_full_object") || http_arg(r, "expand") != NULL;

    if (status && strcmp(status, "deleted")) {
        fail_proxy(r, 400, "bad_request_error", "status", "Invalid status value."
                   " Currently only 'deleted' is supported.");

    } else if (status) {
        list_deleted(r, &f, page, size, full);

    } else {
        list_live(r, &f, page, size, full);
    }
}


void
api_key_aliases(req_t *r)
{
    int          i;
    jv_t        *out, *list;
    int64_t      page, size, total;
    filter_t     f;
    PGresult    *res;
    const char  *from;

    memset(&f, 0, sizeof(f));
    buf_init(&f.where, &r->a);

    if (list_int(r, "page", 1, 1000000000, &page) != 0
        || list_int(r, "size", 50, LIST_SIZE_MAX, &size) != 0
        || list_scope(r, &f, 0) != 0)
    {
        return;
    }

    list_filter(r, &f, "team_id", "k.team_id =");
    list_text_filter(r, &f, "search", "k.key_alias", 1);
    from = arena_printf(&r->a, "(SELECT DISTINCT key_alias FROM keys k WHERE key_alias IS"
                        " NOT NULL%s) x", f.where.p);
    total = list_count(r, &f, from);

    if (total < 0) {
        return;
    }

    res = db_dynamic(arena_printf(&r->a, "SELECT key_alias FROM %s ORDER BY 1 LIMIT %lld"
                     " OFFSET %lld", from, (long long) size,
                     (long long) ((page - 1) * size)), f.n, f.param);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return;
    }

    list = json_arr(&r->a);

    for (i = 0; i < PQntuples(res); i++) {
        json_push(list, json_string(&r->a, arena_str(&r->a, PQgetvalue(res, i, 0))));
    }

    PQclear(res);
    out = json_obj(&r->a);
    json_set(out, "aliases", list);
    json_set(out, "total_count", json_int(&r->a, total));
    json_set(out, "current_page", json_int(&r->a, page));
    json_set(out, "total_pages", json_int(&r->a, (total + size - 1) / size));
    reply_json(r, 200, out);
}
