#include <string.h>
#include <strings.h>
#include "kt_money.h"
#include "query.h"


void
query_init(query_t *q, req_t *r)
{
    memset(q, 0, sizeof(*q));
    q->r = r;
    q->page = 1;
    q->size = 50;
    buf_init(&q->where, &r->a);
    buf_puts(&q->where, "");
}


int
query_param(query_t *q, const char *value)
{
    if (q->n == QUERY_PARAMS_MAX) {
        return q->n;
    }

    q->param[q->n++] = value;

    return q->n;
}


void
query_add(query_t *q, const char *cond, const char *value)
{
    const char  *at;

    at = strstr(cond, "%d");
    buf_puts(&q->where, " AND ");
    buf_add(&q->where, cond, (size_t) (at - cond));
    buf_printf(&q->where, "%d%s", query_param(q, value), at + 2);
}


void
query_arg(query_t *q, const char *arg, const char *cond)
{
    const char  *v;

    v = http_arg(q->r, arg);

    if (v && *v) {
        query_add(q, cond, v);
    }
}


const char *
query_pattern(arena_t *a, const char *s)
{
    buf_t  b;

    buf_init(&b, a);
    buf_putc(&b, '%');

    for (/* void */; *s; s++) {
        if (*s == '%' || *s == '_' || *s == '\\') {
            buf_putc(&b, '\\');
        }

        buf_putc(&b, *s);
    }

    buf_putc(&b, '%');

    return b.p;
}


void
query_like(query_t *q, const char *arg, const char *col)
{
    const char  *v;

    v = http_arg(q->r, arg);

    if (v == NULL || !*v) {
        return;
    }

    buf_printf(&q->where, " AND %s ILIKE $%d", col,
               query_param(q, query_pattern(&q->r->a, v)));
}


static int
query_int(query_t *q, const char *arg, int64_t def, int64_t max, int64_t *v)
{
    const char  *s;

    *v = def;
    s = http_arg(q->r, arg);

    if (s == NULL || (kt_int_parse(s, strlen(s), v) == KT_OK && *v >= 1 && *v <= max)) {
        return 0;
    }

    fail_arg(q->r, arg, "int_parsing", "Input should be a valid integer in its range",
             s);

    return -1;
}


int
query_pages(query_t *q, const char *size_arg, int64_t def, int64_t max)
{
    return query_int(q, "page", 1, 1000000000, &q->page) != 0 ? -1
           : query_int(q, size_arg, def, max, &q->size);
}


const char *
query_order(query_t *q, const char *const *cols, const char *def, const char *id)
{
    size_t       i;
    buf_t        names;
    const char  *by, *dir;

    by = http_arg(q->r, "sort_by");
    dir = http_arg(q->r, "sort_order");
    dir = dir && strcasecmp(dir, "desc") == 0 ? "DESC" : "ASC";

    if (by == NULL || !*by) {
        return def;
    }

    buf_init(&names, &q->r->a);

    for (i = 0; cols[i]; i += 2) {
        if (strcmp(by, cols[i]) == 0) {
            return arena_printf(&q->r->a, "%s %s NULLS LAST, %s %s", cols[i + 1], dir,
                                id, dir);
        }

        buf_printf(&names, i ? ", %s" : "%s", cols[i]);
    }

    fail_detail_error(q->r, 400, "Invalid sort column. Must be one of: %s", names.p);

    return NULL;
}


static PGresult *
query_send(query_t *q, const char *sql, const char *tail)
{
    buf_t        b;
    PGresult    *res;
    const char  *at;

    at = strstr(sql, "%s");
    buf_init(&b, &q->r->a);
    buf_add(&b, sql, (size_t) (at - sql));
    buf_puts(&b, q->where.p);
    buf_puts(&b, at + 2);
    buf_puts(&b, tail);
    res = db_dynamic(b.p, q->n, q->param);

    if (db_ok(res)) {
        return res;
    }

    if (strncmp(db_state(res), "22", 2) == 0) {
        fail_detail_error(q->r, 400, "A query argument has the wrong form or is out of"
                          " range");
    } else {
        db_log("a listing failed", res);
        fail_db(q->r);
    }

    PQclear(res);

    return NULL;
}


PGresult *
query_run(query_t *q, const char *sql)
{
    return query_send(q, sql, "");
}


static PGresult *
query_slice(query_t *q, const char *sql, int64_t size, int64_t offset)
{
    return query_send(q, sql, arena_printf(&q->r->a, " LIMIT %lld OFFSET %lld",
                      (long long) size, (long long) offset));
}


PGresult *
query_page(query_t *q, const char *sql)
{
    PGresult  *res, *first;

    q->total = 0;
    res = query_slice(q, sql, q->size, (q->page - 1) * q->size);

    if (res && PQntuples(res)) {
        q->total = db_int(res, 0, 0);

    } else if (res && q->page > 1) {

        /* past the last page no row has the count */

        first = query_slice(q, sql, 1, 0);

        if (first == NULL) {
            PQclear(res);
            return NULL;
        }

        q->total = PQntuples(first) ? db_int(first, 0, 0) : 0;
        PQclear(first);
    }

    return res;
}


void
query_reply(query_t *q, const char *name, jv_t *rows, int64_t total)
{
    jv_t     *out;
    arena_t  *a;

    a = &q->r->a;
    out = json_obj(a);
    json_set(out, name, rows);
    json_set(out, "total", json_int(a, total));
    json_set(out, "page", json_int(a, q->page));
    json_set(out, "page_size", json_int(a, q->size));
    json_set(out, "total_pages", json_int(a, (total + q->size - 1) / q->size));
    reply_json(q->r, 200, out);
}
