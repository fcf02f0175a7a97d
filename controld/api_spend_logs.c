/* /spend/logs: rows of the ledger, or their sums by day. */

#include <string.h>
#include <strings.h>
#include "access.h"
#include "api.h"
#include "spend_logs.h"
#include "sums.h"
#include "usage.h"


const arg_t  spend_logs_args[] = {
    { "api_key", F_STR, 0 },
    { "user_id", F_STR, 0 },
    { "request_id", F_STR, 0 },
    { "start_date", F_STR, 0 },
    { "end_date", F_STR, 0 },
    { "summarize", F_BOOL, 0 },
    { "format", F_STR, 0 },
    { NULL, 0, 0 }
};


/* ----------------------------------------------------------------- /spend/logs */


static void
logs_fail(req_t *r, int status, const char *text)
{
    fail_proxy(r, status, "internal_error", NULL, "/spend/logs Error(%s)", text);
}


/* Amounts of one day under one name: users, models, keys. */

static jv_t *
logs_map(arena_t *a, sum_t **all, size_t n, char kind, jv_t *o)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        if (*all[i]->key == kind) {
            json_set(o, all[i]->key + 1, json_usd(a, all[i]->v[0]));
        }
    }

    return o;
}


static void
logs_day(req_t *r, jv_t *list, const char *day, sums_t *t, int64_t total)
{
    jv_t   *o;
    sum_t  **all;

    all = sums_sorted(t);
    o = json_obj(&r->a);
    json_set(o, "startTime", json_string(&r->a, day));
    json_set(o, "spend", json_usd(&r->a, total));
    json_set(o, "users", logs_map(&r->a, all, t->n, 'u', json_obj(&r->a)));
    json_set(o, "models", logs_map(&r->a, all, t->n, 'm', json_obj(&r->a)));
    logs_map(&r->a, all, t->n, 'k', o);
    json_push(list, o);
}


static void
logs_sum(arena_t *a, sums_t *t, const char *kind, const char *name, int64_t cost)
{
    sums_add(t, sums_get(t, arena_printf(a, "%s%s", kind, name)), 0, cost);
}


/* Rows (day, user, model, token, cost) by day; days without traffic are zeros. */

static void
logs_days(req_t *r, PGresult *res, int64_t from, int64_t to)
{
    int      i;
    jv_t    *list;
    sums_t   t;
    int64_t  day, total, cost;

    list = json_arr(&r->a);

    for (day = from, i = 0; day <= to; day++) {
        sums_init(&t, &r->a, 16);
        total = 0;

        for (/* void */; i < PQntuples(res) && db_int(res, i, 0) == day; i++) {
            cost = db_int(res, i, 4);
            total += cost;

            logs_sum(&r->a, &t, "u", PQgetvalue(res, i, 1), cost);
            logs_sum(&r->a, &t, "m", PQgetvalue(res, i, 2), cost);

            if (*PQgetvalue(res, i, 3)) {
                logs_sum(&r->a, &t, "k", PQgetvalue(res, i, 3), cost);
            }
        }

        logs_day(r, list, usage_day_text(&r->a, day), &t, total);
    }

    reply_json(r, 200, list);
}


static void
logs_summary(req_t *r, const char *token, const char *user, int64_t from, int64_t to)
{
    PGresult    *res;
    usage_sql_t  q;
    usage_who_t  w;

    usage_who(r, &w);

    if (to - from >= USAGE_DAYS * 10) {
        logs_fail(r, 400, "too many days");
        return;
    }

    usage_sql(&q, r, "SELECT u.day - date '1970-01-01', x.user_id, x.model, x.token,"
              " sum(u.cost_nusd)::bigint");
    usage_from(&q, 'k', &w, from, to);
    logs_and(&q, " AND x.token" USAGE_KEY, token, USAGE_KEY_END);
    logs_and(&q, " AND x.user_id = ", w.all ? user : NULL, "");
    buf_puts(&q.sql, " GROUP BY 1, 2, 3, 4 ORDER BY 1");
    res = usage_run(&q);

    if (res) {
        logs_days(r, res, from, to);
        PQclear(res);
    }
}


static const char *const  logs_columns[] = {
    "request_id", "call_type", "api_key", "spend", "total_tokens", "prompt_tokens",
    "completion_tokens", "startTime", "endTime", "model", "model_group",
    "custom_llm_provider", "user", "team_id", "organization_id", "end_user",
    "request_tags", "requester_ip_address", "status"
};

#define LOGS_COLUMNS  (sizeof(logs_columns) / sizeof(logs_columns[0]))


static void
logs_csv_row(req_t *r, const char *text, size_t len)
{
    size_t       i;
    const jv_t  *row, *v;
    const char  *err;

    row = json_parse(&r->a, text, len, &err);

    for (i = 0; i < LOGS_COLUMNS; i++) {
        v = json_get(row, logs_columns[i]);

        if (v && v->type == J_NUM) {
            usage_csv_number(&r->out, v->s, i == 0);

        } else if (v && v->type == J_ARR) {
            usage_csv_cell(&r->out, v->n ? json_text(&r->a, v) : "", i == 0);

        } else {
            usage_csv_cell(&r->out, v && v->type == J_STR ? v->s : "", i == 0);
        }
    }

    buf_puts(&r->out, "\r\n");
}


static void
logs_csv(req_t *r, PGresult *res, int n)
{
    int     i;
    size_t  k;

    r->status = 200;
    r->content_type = "text/csv; charset=utf-8";
    reply_header(r, "Content-Disposition", "attachment; filename=\"spend_logs.csv\"");

    for (k = 0; k < LOGS_COLUMNS; k++) {
        usage_csv_cell(&r->out, logs_columns[k], k == 0);
    }

    buf_puts(&r->out, "\r\n");

    for (i = 0; i < n; i++) {
        logs_csv_row(r, PQgetvalue(res, i, 0), (size_t) PQgetlength(res, i, 0));
    }
}


static void
logs_json(req_t *r, PGresult *res, int n)
{
    int  i;

    r->status = 200;
    r->content_type = "application/json";
    buf_putc(&r->out, '[');

    for (i = 0; i < n; i++) {
        buf_puts(&r->out, i ? "," : "");
        buf_add(&r->out, PQgetvalue(res, i, 0), (size_t) PQgetlength(res, i, 0));
    }

    buf_putc(&r->out, ']');
}


static void
logs_rows(req_t *r, int csv, const char *user, int64_t from, int64_t to)
{
    int          n;
    PGresult    *res;
    usage_sql_t  q;

    usage_sql(&q, r, "SELECT kt_spend_json(l) FROM ledger l WHERE l.kind = 'request'");

    if (logs_visible(&q, &user) != 0) {
        return;
    }

    logs_and(&q, " AND l.token" USAGE_KEY, logs_token(r), USAGE_KEY_END);
    logs_and(&q, " AND l.user_id = ", user, "");
    logs_and_id(&q, http_arg(r, "request_id"));

    if (from >= 0) {
        usage_param(&q, " AND l.started_at >= ", usage_day_text(&r->a, from), "::date");
        usage_param(&q, " AND l.started_at < ", usage_day_text(&r->a, to + 1), "::date");
    }

    buf_printf(&q.sql, " ORDER BY l.started_at DESC, l.rid LIMIT %d", USAGE_ROWS + 1);
    res = usage_run(&q);

    if (res == NULL) {
        return;
    }

    n = PQntuples(res);

    if (n > USAGE_ROWS) {
        n = USAGE_ROWS;
        usage_truncated(r);
    }

    if (csv) {
        logs_csv(r, res, n);
    } else {
        logs_json(r, res, n);
    }

    PQclear(res);
}


static const char *
logs_date(req_t *r, const char *name)
{
    const char  *s;

    s = http_arg(r, name);

    return s && *s ? s : NULL;
}


void
api_spend_logs(req_t *r)
{
    int          csv;
    int64_t      first, last;
    const char  *user, *request, *from, *to, *sum;

    access_scoped(r);
    csv = usage_csv(r);

    if (csv < 0) {
        return;
    }

    user = http_arg(r, "user_id");
    request = http_arg(r, "request_id");
    from = logs_date(r, "start_date");
    to = logs_date(r, "end_date");
    sum = http_arg(r, "summarize");
    first = from ? usage_day(from) : 0;
    last = to ? usage_day(to) : 0;

    if (first < 0 || last < 0) {
        logs_fail(r, 400, "start_date and end_date must be YYYY-MM-DD");

    } else if (from && to && first > last) {
        logs_fail(r, 400, "start_date is after end_date");

    } else if (from && to && request == NULL && !csv
               && (sum == NULL || (strcasecmp(sum, "false") && strcmp(sum, "0"))))
    {
        logs_summary(r, logs_token(r), user, first, last);

    } else {
        logs_rows(r, csv, user, from && to ? first : -1, from && to ? last : -1);
    }
}
