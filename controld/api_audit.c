/* Who changed what: /audit. */

#include <string.h>
#include "api.h"
#include "db.h"
#include "kt_money.h"
#include "query.h"


const arg_t  audit_args[] = {
    { "page", F_INT, 0 },
    { "page_size", F_INT, 0 },
    { "changed_by", F_STR, 0 },
    { "changed_by_api_key", F_STR, 0 },
    { "action", F_STR, 0 },
    { "table_name", F_STR, 0 },
    { "object_id", F_STR, 0 },
    { "start_date", F_STR, 0 },
    { "end_date", F_STR, 0 },
    { "sort_order", F_STR, 0 },
    { NULL, 0, 0 }
};


#define AUDIT_ROW                                                             \
    "json_build_object('id', a.id::text, 'updated_at', kt_ts(a.at), 'changed_by'," \
    " coalesce(a.changed_by, a.actor), 'actor', a.actor, 'changed_by_api_key'," \
    " a.actor_key, 'action', a.action, 'table_name', a.object_type, 'object_id'," \
    " a.object_id, 'before_value', a.before, 'updated_values', a.after)"


/* YYYY-MM-DD, perhaps with a time: what PostgreSQL itself reads safely. */

static int
audit_date(query_t *q, const char *arg, const char *cond)
{
    size_t       n;
    const char  *s;

    s = http_arg_form(q->r, arg);

    if (s == NULL || !*s) {
        return 0;
    }

    n = strlen(s);

    if (n < 10 || n > 30 || strspn(s, "0123456789-T:. Z+") != n || s[4] != '-'
        || s[7] != '-' || s[5] > '1' || s[8] > '3')
    {
        fail_detail_error(q->r, 400, "Invalid date format: %s. Expected: YYYY-MM-DD", s);
        return -1;
    }

    query_add(q, cond, s);

    return 0;
}


void
api_audit(req_t *r)
{
    int          i;
    jv_t        *rows;
    query_t      q;
    PGresult    *res;
    const char  *order;

    query_init(&q, r);

    if (query_pages(&q, "page_size", 10, 100) != 0
        || audit_date(&q, "start_date", "a.at >= $%d::timestamptz") != 0
        || audit_date(&q, "end_date", "a.at < $%d::timestamptz + interval '1 day'") != 0)
    {
        return;
    }

    query_arg(&q, "changed_by", "coalesce(a.changed_by, a.actor) = $%d");
    query_arg(&q, "changed_by_api_key", "a.actor_key = $%d");
    query_arg(&q, "action", "a.action = $%d");
    query_arg(&q, "table_name", "a.object_type = $%d");
    query_arg(&q, "object_id", "a.object_id = $%d");
    order = http_arg(r, "sort_order");
    order = order && strcmp(order, "asc") == 0 ? "ASC" : "DESC";

    /* the log only grows: its last id says how long it is, but for what failed */

    res = query_page(&q, arena_printf(&r->a, "SELECT %s, " AUDIT_ROW " FROM audit a WHERE"
                     " true%%s ORDER BY a.id %s",
                     q.n ? "count(*) OVER ()" : "(SELECT max(id) FROM audit)", order));

    if (res == NULL) {
        return;
    }

    rows = json_arr(&r->a);

    for (i = 0; i < PQntuples(res); i++) {
        json_push(rows, json_raw(&r->a, arena_str(&r->a, PQgetvalue(res, i, 1))));
    }

    query_reply(&q, "audit_logs", rows, q.total);
    PQclear(res);
}


void
api_audit_one(req_t *r)
{
    int64_t    id;
    PGresult  *res;

    if (kt_int_parse(r->seg[0], strlen(r->seg[0]), &id) != KT_OK) {
        fail_detail_error(r, 404, "Audit log %s not found", r->seg[0]);
        return;
    }

    res = db_q("SELECT " AUDIT_ROW " FROM audit a WHERE id = $1", r->seg[0]);

    if (!db_ok(res)) {
        fail_db(r);

    } else if (PQntuples(res) == 0) {
        fail_detail_error(r, 404, "Audit log %s not found", r->seg[0]);

    } else {
        reply_json(r, 200, json_raw(&r->a, arena_str(&r->a, PQgetvalue(res, 0, 0))));
    }

    PQclear(res);
}
