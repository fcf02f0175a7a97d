#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "access.h"
#include "usage.h"
#include "util.h"


#define DAY_S          86400
#define USAGE_RECENT   30


static int64_t
usage_days(int64_t y, int64_t m, int64_t d)
{
    int64_t  era, yoe, doy;

    y -= m <= 2;
    era = y / 400;
    yoe = y - era * 400;
    doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;

    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}


static void
usage_civil(int64_t day, int64_t *y, int64_t *m, int64_t *d)
{
    int64_t  z, era, doe, yoe, doy, mp;

    z = day + 719468;
    era = z / 146097;
    doe = z - era * 146097;
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    mp = (5 * doy + 2) / 153;
    *d = doy - (153 * mp + 2) / 5 + 1;
    *m = mp < 10 ? mp + 3 : mp - 9;
    *y = yoe + era * 400 + (*m <= 2);
}


int64_t
usage_day(const char *s)
{
    int      i;
    int64_t  y, m, d, y2, m2, d2, day;

    for (i = 0; i < 10; i++) {
        if (i == 4 || i == 7 ? s[i] != '-' : s[i] < '0' || s[i] > '9') {
            return -1;
        }
    }

    if (s[10]) {
        return -1;
    }

    y = strtol(s, NULL, 10);
    m = strtol(s + 5, NULL, 10);
    d = strtol(s + 8, NULL, 10);

    if (y < 1970 || y > 9998 || m < 1 || m > 12 || d < 1 || d > 31) {
        return -1;
    }

    day = usage_days(y, m, d);
    usage_civil(day, &y2, &m2, &d2);

    return y == y2 && m == m2 && d == d2 ? day : -1;
}


const char *
usage_day_text(arena_t *a, int64_t day)
{
    int64_t  y, m, d;

    usage_civil(day, &y, &m, &d);

    return arena_printf(a, "%04" PRId64 "-%02" PRId64 "-%02" PRId64, y, m, d);
}


int64_t
usage_today(void)
{
    return util_now_s() / DAY_S;
}


int
usage_dates(req_t *r, int64_t *from, int64_t *to)
{
    const char  *s, *e;

    s = http_arg(r, "start_date");
    e = http_arg(r, "end_date");

    if (s == NULL || !*s || e == NULL || !*e) {
        fail_detail_error(r, 400, "Please provide start_date and end_date");
        return -1;
    }

    *from = usage_day(s);
    *to = usage_day(e);

    if (*from < 0 || *to < 0) {
        fail_detail_error(r, 400, "Invalid date: %.40s. Expected: YYYY-MM-DD",
                          *from < 0 ? s : e);
        return -1;
    }

    if (*from > *to) {
        fail_detail_error(r, 400, "start_date is after end_date");
        return -1;
    }

    return 0;
}


int
usage_dates_spend(req_t *r, int64_t *from, int64_t *to)
{
    if (http_arg(r, "start_date") || http_arg(r, "end_date")) {
        return usage_dates(r, from, to);
    }

    *to = usage_today();
    *from = *to - USAGE_RECENT + 1;

    return 0;
}


void
usage_who(req_t *r, usage_who_t *w)
{
    const jv_t  *v;

    memset(w, 0, sizeof(*w));
    access_scoped(r);
    v = json_get(json_get(r->caller_row, "permissions"), "get_spend_routes");

    if (access_reads_all(r) || (v && v->type == J_TRUE)) {
        w->all = 1;

    } else if (r->caller_user) {
        w->user = r->caller_user;

    } else {
        w->token = r->caller_key ? r->caller_key : r->caller_token;
    }
}


/* ------------------------------------------------------------------- queries */


void
usage_sql(usage_sql_t *q, req_t *r, const char *text)
{
    q->r = r;
    q->n = 0;
    buf_init(&q->sql, &r->a);
    buf_puts(&q->sql, text);
}


void
usage_param(usage_sql_t *q, const char *before, const char *value,
    const char *after)
{
    if (q->n == USAGE_PARAMS) {
        abort();
    }

    q->param[q->n++] = value;
    buf_puts(&q->sql, before);
    buf_printf(&q->sql, "$%d", q->n);
    buf_puts(&q->sql, after);
}


static void
usage_and_who(usage_sql_t *q, const usage_who_t *w)
{
    if (w->user) {
        usage_param(q, " AND x.user_id = ", w->user, "");

    } else if (w->token) {
        usage_param(q, " AND x.token" USAGE_KEY, w->token, USAGE_KEY_END);
    }
}


void
usage_and(usage_sql_t *q, char coarse, const usage_who_t *w, int64_t from, int64_t to)
{
    buf_printf(&q->sql, " AND u.kind = '%c'", w->all ? coarse : 'k');
    usage_param(q, " AND u.day >= ", usage_day_text(&q->r->a, from), "::date");
    usage_param(q, " AND u.day <= ", usage_day_text(&q->r->a, to), "::date");

    if (!w->all) {
        buf_puts(&q->sql, " AND x.kind = 'k'");
    }

    usage_and_who(q, w);
}


void
usage_from(usage_sql_t *q, char coarse, const usage_who_t *w, int64_t from,
    int64_t to)
{
    buf_puts(&q->sql, USAGE_JOIN " WHERE true");
    usage_and(q, coarse, w, from, to);
}


/* The dimensions that sums by key are asked of; nothing when it is all of them. */

typedef struct {
    const usage_who_t  *who;
    const char         *cond;
    const char         *value;
} usage_of_t;


/* One span of sums by key: kind, first day, last day, sign. */

static void
usage_span(usage_sql_t *q, const usage_of_t *of, char kind, int64_t from, int64_t to,
    int sign)
{
    int          first;
    const char  *at;

    if (from > to) {
        return;
    }

    first = q->sql.p[q->sql.len - 1] == '(';
    buf_printf(&q->sql, "%sSELECT %d AS sign, s.* FROM usage_sums s WHERE s.kind = '%c'",
               first ? "" : " UNION ALL ", sign, kind);
    usage_param(q, " AND s.day >= ", usage_day_text(&q->r->a, from), "::date");
    usage_param(q, " AND s.day <= ", usage_day_text(&q->r->a, to), "::date");

    if (of->cond == NULL && of->who->all) {
        return;
    }

    buf_puts(&q->sql, " AND s.dim IN (SELECT x.dim FROM usage_dims x WHERE x.kind = 'k'");
    usage_and_who(q, of->who);

    if (of->cond) {
        at = strchr(of->cond, '?');
        usage_param(q, arena_dup(&q->r->a, of->cond, (size_t) (at - of->cond)), of->value,
                    at + 1);
    }

    buf_putc(&q->sql, ')');
}


/*
 * A part of a month: the days, or the month without the other days, whichever are
 * fewer.
 */

static void
usage_span_month(usage_sql_t *q, const usage_of_t *of, int64_t month, int64_t next,
    int64_t from, int64_t to)
{
    if (to - from + 1 <= (next - month) / 2) {
        usage_span(q, of, 'k', from, to, 1);
        return;
    }

    usage_span(q, of, 'm', month, month, 1);
    usage_span(q, of, 'k', month, from - 1, -1);
    usage_span(q, of, 'k', to + 1, next - 1, -1);
}


void
usage_from_keys(usage_sql_t *q, const usage_who_t *w, int64_t from, int64_t to,
    const char *cond, const char *value)
{
    int64_t           y, m, d, first, last, next;
    const usage_of_t  of = { w, cond, value };

    buf_puts(&q->sql, " FROM (SELECT s.dim, sum(s.sign * s.requests)::bigint AS requests,"
             " sum(s.sign * s.prompt_tokens)::bigint AS prompt_tokens,"
             " sum(s.sign * s.completion_tokens)::bigint AS completion_tokens,"
             " sum(s.sign * s.cost_nusd)::bigint AS cost_nusd FROM (");
    usage_civil(from, &y, &m, &d);
    first = usage_days(y, m, 1);
    next = usage_days(y + m / 12, m % 12 + 1, 1);

    if (to < next) {
        usage_span_month(q, &of, first, next, from, to);

    } else {
        usage_span_month(q, &of, first, next, from, next - 1);
        usage_civil(to, &y, &m, &d);
        last = usage_days(y, m, 1);
        usage_span(q, &of, 'm', next, last - 1, 1);
        usage_span_month(q, &of, last, usage_days(y + m / 12, m % 12 + 1, 1), last, to);
    }

    buf_puts(&q->sql, ") s GROUP BY s.dim) u JOIN usage_dims x USING (dim) WHERE"
             " u.requests > 0");
}


PGresult *
usage_run(usage_sql_t *q)
{
    PGresult  *res;

    res = db_report(q->sql.p, q->n, q->param);

    if (!db_ok(res)) {
        db_log("a report failed", res);
        PQclear(res);
        fail_db(q->r);
        return NULL;
    }

    return res;
}


void
usage_reply_list(usage_sql_t *q)
{
    int        i;
    jv_t      *list;
    PGresult  *res;

    res = usage_run(q);

    if (res == NULL) {
        return;
    }

    list = json_arr(&q->r->a);

    for (i = 0; i < PQntuples(res); i++) {
        json_push(list, json_raw(&q->r->a, PQgetvalue(res, i, 0)));
    }

    PQclear(res);
    reply_json(q->r, 200, list);
}


void
usage_reply_one(usage_sql_t *q)
{
    PGresult  *res;

    res = usage_run(q);

    if (res) {
        reply_json(q->r, 200, json_raw(&q->r->a, PQgetvalue(res, 0, 0)));
        PQclear(res);
    }
}


void
usage_truncated(req_t *r)
{
    reply_header(r, "x-litellm-spend-logs-truncated", "true");
}


/* ----------------------------------------------------------------------- CSV */


int
usage_csv(req_t *r)
{
    const char  *format, *accept;

    format = http_arg(r, "format");
    accept = http_header(r, "Accept");

    if (format == NULL || !*format) {
        return accept && strncasecmp(accept, "text/csv", 8) == 0;
    }

    if (strcasecmp(format, "csv") && strcasecmp(format, "json")) {
        fail_arg(r, "format", "enum", "Input should be 'json' or 'csv'", format);
        return -1;
    }

    return strcasecmp(format, "csv") == 0;
}


void
usage_csv_number(buf_t *b, const char *text, int first)
{
    buf_puts(b, first ? "" : ",");
    buf_puts(b, text);
}


/*
 * Spreadsheets take what begins with one of these for a formula, whoever wrote it:
 * it gets a quote before it.
 */

void
usage_csv_cell(buf_t *b, const char *text, int first)
{
    const char  *p;

    buf_puts(b, first ? "" : ",");
    text = text ? text : "";

    if (strpbrk(text, ",\"\r\n\t=+-@") == NULL) {
        buf_puts(b, text);
        return;
    }

    buf_putc(b, '"');

    if (strchr("=+-@\t\r\n", *text)) {
        buf_putc(b, '\'');
    }

    for (p = text; *p; p++) {
        buf_puts(b, *p == '"' ? "\"" : "");
        buf_putc(b, *p);
    }

    buf_putc(b, '"');
}


const char *
usage_ids(arena_t *a, const char *list)
{
    char         *p, *next;
    size_t        n;
    const char  **ids;

    if (list == NULL || !*list) {
        return NULL;
    }

    ids = arena_alloc(a, (strlen(list) + 1) * sizeof(char *));

    for (n = 0, p = arena_str(a, list); p; p = next) {
        next = strchr(p, ',');

        if (next) {
            *next++ = '\0';
        }

        if (*p) {
            ids[n++] = p;
        }
    }

    return n ? db_array(a, ids, n) : NULL;
}
