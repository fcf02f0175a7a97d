#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "activity_query.h"
#include "usage.h"


#define ACTIVITY_FINE   5000         /* rows that are told apart by key        */
#define ACTIVITY_SOME   2000         /* of more than those, the newest         */


typedef struct {
    int64_t  day;
    int64_t  parts;
} day_t;


/* `bare`: nothing is asked of the dimensions. */

static void
activity_from(usage_sql_t *s, const activity_ask_t *q, char kind, int64_t from, int64_t to,
    int bare)
{
    int           fine;
    const activity_kind_t  *k = q->kind;
    const char    *col;

    fine = kind == k->fine;
    col = fine ? k->column : "x.name";
    buf_printf(&s->sql, "%s WHERE u.kind = '%c'", bare ? " FROM usage_sums u" : USAGE_JOIN,
               kind);
    usage_param(s, " AND u.day >= ", usage_day_text(&s->r->a, from), "::date");
    usage_param(s, " AND u.day <= ", usage_day_text(&s->r->a, to), "::date");

    if (q->model || q->token || q->ids || q->not_ids || q->me || q->my_token) {
        buf_printf(&s->sql, " AND x.kind = '%c'", kind);
    }

    if (q->model) {
        usage_param(s, " AND coalesce(nullif(x.upstream_model, ''), x.model) = ",
                    q->model, "");
    }

    if (q->token) {
        usage_param(s, " AND x.token" USAGE_KEY, q->token, USAGE_KEY_END);
    }

    if (fine && !k->users) {
        buf_printf(&s->sql, " AND %s <> ''", col);
    }

    if (q->own_ids) {
        buf_printf(&s->sql, " AND (%s = ANY (", col);
        usage_param(s, "", q->ids, "::text[])");
        buf_printf(&s->sql, " OR (%s = ANY (", col);
        usage_param(s, "", q->own_ids, "::text[])");
        usage_param(s, " AND x.user_id = ", q->me, "))");

    } else if (q->ids) {
        buf_printf(&s->sql, " AND %s = ANY (", col);
        usage_param(s, "", q->ids, "::text[])");
    }

    if (q->not_ids) {
        buf_printf(&s->sql, " AND %s <> ALL (", col);
        usage_param(s, "", q->not_ids, "::text[])");
    }

    if (q->me && q->own_ids == NULL) {
        usage_param(s, " AND x.user_id = ", q->me, "");
    }

    if (q->my_token) {
        usage_param(s, " AND x.token" USAGE_KEY, q->my_token, USAGE_KEY_END);
    }
}


/* Whether the sums without the key can tell what is asked. */

static int
activity_coarse(const activity_ask_t *q)
{
    if (q->kind->coarse == 0 || q->token || q->me || q->my_token) {
        return 0;
    }

    return q->kind->coarse != 'g' || (q->ids == NULL && q->not_ids == NULL);
}


/* Rows by key of each day, newest first; NULL after answering. */

static day_t *
activity_counts(const activity_ask_t *q, size_t *n, int64_t *total)
{
    int          i;
    day_t       *days;
    PGresult    *res;
    usage_sql_t  s;

    usage_sql(&s, q->r, activity_coarse(q)
              ? "SELECT u.day - date '1970-01-01', sum(u.parts)::bigint"
              : "SELECT u.day - date '1970-01-01', count(*)");
    activity_from(&s, q, activity_coarse(q) ? q->kind->coarse : q->kind->fine, q->from,
                  q->to, activity_coarse(q) && !q->model && !q->ids && !q->not_ids);
    buf_puts(&s.sql, " GROUP BY u.day ORDER BY u.day DESC");
    res = usage_run(&s);

    if (res == NULL) {
        return NULL;
    }

    *n = (size_t) PQntuples(res);
    days = arena_alloc(&q->r->a, (*n + 1) * sizeof(day_t));

    for (i = 0, *total = 0; i < PQntuples(res); i++) {
        days[i].day = db_int(res, i, 0);
        days[i].parts = db_int(res, i, 1);
        *total += days[i].parts;
    }

    PQclear(res);

    return days;
}


/* The rows from `skip` on, `size` of them, found by the days that they are in. */

static PGresult *
activity_fetch(const activity_ask_t *q, const day_t *days, size_t n, int64_t skip, int64_t size)
{
    size_t       i, last;
    int64_t      have;
    usage_sql_t  s;

    for (i = 0; i < n && skip >= days[i].parts; i++) {
        skip -= days[i].parts;
    }

    for (last = i, have = -skip; last < n && have < size; last++) {
        have += days[last].parts;
    }

    usage_sql(&s, q->r, "SELECT " ACT_COLUMNS);
    buf_puts(&s.sql, q->kind->column);

    if (i == last) {
        activity_from(&s, q, q->kind->fine, q->from, q->to, 0);
        buf_puts(&s.sql, " LIMIT 0");

    } else {
        activity_from(&s, q, q->kind->fine, days[last - 1].day, days[i].day,
                      0);
        buf_printf(&s.sql, " ORDER BY u.day DESC, u.dim DESC LIMIT %" PRId64 " OFFSET %"
                   PRId64, size, skip);
    }

    return usage_run(&s);
}


static void
activity_page(const activity_ask_t *q)
{
    int          i;
    size_t       n;
    day_t       *days;
    int64_t      total;
    PGresult    *res;
    activity_t   t;

    days = activity_counts(q, &n, &total);
    res = days ? activity_fetch(q, days, n, (q->page - 1) * q->size, q->size) : NULL;

    if (res == NULL) {
        return;
    }

    activity_init(&t, q->r, q->kind->team);

    for (i = 0; i < PQntuples(res); i++) {
        activity_row(&t, res, i, ACT_ALL);
    }

    if (q->csv) {
        activity_reply_csv(&t, res);
    } else {
        activity_reply(&t, q->page, (total + q->size - 1) / q->size);
    }

    PQclear(res);
}


/* Days, names and totals of everything, without the keys. */

static int
activity_sum(const activity_ask_t *q, activity_t *t)
{
    int          i;
    PGresult    *res;
    usage_sql_t  s;

    usage_sql(&s, q->r, "SELECT " ACT_COLUMNS);
    buf_puts(&s.sql, q->kind->coarse == 'g' ? "''" : "x.name");
    activity_from(&s, q, q->kind->coarse, q->from, q->to, 0);
    res = usage_run(&s);

    if (res == NULL) {
        return -1;
    }

    for (i = 0; i < PQntuples(res); i++) {
        activity_row(t, res, i, ACT_TOTAL | ACT_NAMES);
    }

    PQclear(res);

    return 0;
}


/*
 * Everything at once.  Of very many rows the sums are exact, but only the newest rows
 * are told apart by key.
 */

static void
activity_aggregate(const activity_ask_t *q)
{
    int          i, many;
    size_t       n;
    day_t       *days;
    int64_t      total;
    PGresult    *res;
    activity_t   t;

    days = activity_counts(q, &n, &total);

    if (days == NULL) {
        return;
    }

    many = total > ACTIVITY_FINE;
    activity_init(&t, q->r, q->kind->team);

    if (many) {
        usage_truncated(q->r);

        if (activity_coarse(q) && !q->csv && activity_sum(q, &t) != 0) {
            return;
        }
    }

    res = activity_fetch(q, days, n, 0, q->csv ? USAGE_ROWS
                         : many && activity_coarse(q) ? ACTIVITY_SOME : ACTIVITY_FINE);

    if (res == NULL) {
        return;
    }

    for (i = 0; i < PQntuples(res); i++) {
        activity_row(&t, res, i, many && activity_coarse(q) && !q->csv ? ACT_KEYS
                                                                       : ACT_ALL);
    }

    if (q->csv) {
        activity_reply_csv(&t, res);
    } else {
        activity_reply(&t, 1, 1);
    }

    PQclear(res);
}


void
activity_run(const activity_ask_t *q, int aggregate)
{
    if (aggregate) {
        activity_aggregate(q);
    } else {
        activity_page(q);
    }
}
