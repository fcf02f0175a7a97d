/* /spend/logs by page: v2, ui, session, one. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "access.h"
#include "api.h"
#include "kt_money.h"
#include "query.h"
#include "spend_logs.h"


const arg_t  spend_page_args[] = {
    { "api_key", F_STR, 0 },
    { "user_id", F_STR, 0 },
    { "request_id", F_STR, 0 },
    { "session_id", F_STR, 0 },
    { "team_id", F_STR, 0 },
    { "min_spend", F_USD, 0 },
    { "max_spend", F_USD, 0 },
    { "start_date", F_STR, 0 },
    { "end_date", F_STR, 0 },
    { "page", F_INT, 0 },
    { "page_size", F_INT, 0 },
    { "status_filter", F_STR, 0 },
    { "model", F_STR, 0 },
    { "model_id", F_STR, 0 },
    { "model_group", F_STR, 0 },
    { "key_alias", F_STR, 0 },
    { "end_user", F_STR, 0 },
    { "error_code", F_STR, 0 },
    { "error_message", F_STR, 0 },
    { "sort_by", F_STR, 0 },
    { "sort_order", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  spend_one_args[] = {
    { "start_date", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  spend_session_args[] = {
    { "session_id", F_STR, F_REQUIRED },
    { "page", F_INT, 0 },
    { "page_size", F_INT, 0 },
    { NULL, 0, 0 }
};


#define LOGS_SIZE  1000


static int
logs_page(req_t *r, int64_t *page, int64_t *size)
{
    const char  *s;

    *page = 1;
    *size = 50;
    s = http_arg(r, "page");

    if (s && *s) {
        kt_int_parse(s, strlen(s), page);
    }

    s = http_arg(r, "page_size");

    if (s && *s) {
        kt_int_parse(s, strlen(s), size);
    }

    if (*size > LOGS_SIZE || *page > 1000000000) {
        fail_arg(r, *size > LOGS_SIZE ? "page_size" : "page", "less_than_equal",
                 "Input should be less than or equal to 1000", s ? s : "");
        return -1;
    }

    return 0;
}


/* "YYYY-MM-DD HH:MM:SS" or a day alone; 0, or -1 after answering. */

static int
logs_time(req_t *r, usage_sql_t *q, const char *name, const char *before,
    const char *after)
{
    const char  *s, *clock;

    s = http_arg_form(r, name);

    if (s == NULL || !*s) {
        fail_proxy(r, 400, "bad_request", NULL, "Start date and end date are required");
        return -1;
    }

    clock = strlen(s) > 10 ? s + 11 : "00:00:00";

    if (usage_day(strlen(s) > 10 ? arena_dup(&r->a, s, 10) : s) < 0
        || (strlen(s) > 10 && s[10] != ' ' && s[10] != 'T')
        || strlen(clock) != 8 || strspn(clock, "0123456789:") != 8
        || clock[2] != ':' || clock[5] != ':' || atoi(clock) > 23
        || atoi(clock + 3) > 59 || atoi(clock + 6) > 59)
    {
        fail_proxy(r, 400, "bad_request", name, "Invalid date format: %.40s. Expected:"
                   " YYYY-MM-DD HH:MM:SS", s);
        return -1;
    }

    usage_param(q, before, arena_printf(&r->a, "%.10s %s", s, clock),
                strlen(s) > 10 ? "::timestamptz" : after);

    return 0;
}


/* ORDER BY of the two closed sets; NULL after answering. */

static const char *
logs_order(req_t *r)
{
    size_t                    i;
    const char               *by, *dir;
    static const char *const  cols[][2] = {
        { "spend", "l.cost_nusd" },
        { "total_tokens", "l.prompt_tokens + l.completion_tokens" },
        { "startTime", "l.started_at" }, { "endTime", "l.ended_at" }
    };

    by = http_arg(r, "sort_by");
    by = by && *by ? by : "startTime";
    dir = http_arg(r, "sort_order");
    dir = dir && *dir ? dir : "desc";

    if (strcasecmp(dir, "asc") && strcasecmp(dir, "desc")) {
        fail_proxy(r, 400, "bad_request", "sort_order", "Invalid sort_order: %.40s. Must"
                   " be one of: asc, desc", dir);
        return NULL;
    }

    for (i = 0; i < sizeof(cols) / sizeof(cols[0]); i++) {
        if (strcmp(by, cols[i][0]) == 0) {
            return arena_printf(&r->a, " ORDER BY %s %s, l.rid", cols[i][1],
                                strcasecmp(dir, "asc") ? "DESC" : "ASC");
        }
    }

    fail_proxy(r, 400, "bad_request", "sort_by", "Invalid sort_by: %.40s. Must be one of:"
               " spend, total_tokens, startTime, endTime", by);

    return NULL;
}


static void
logs_amount(usage_sql_t *q, const char *name, const char *before)
{
    int64_t      v;
    const char  *s;

    s = http_arg(q->r, name);

    if (s && *s && kt_money_parse(s, strlen(s), KT_MONEY_USD, &v) == KT_OK) {
        usage_param(q, before, arena_printf(&q->r->a, "%" PRId64, v), "::bigint");
    }
}


static int
logs_status(usage_sql_t *q)
{
    const char  *s;

    s = http_arg(q->r, "status_filter");

    if (s == NULL || !*s) {
        return 0;
    }

    if (strcmp(s, "success") && strcmp(s, "failure")) {
        fail_proxy(q->r, 400, "bad_request", "status_filter", "Invalid status_filter:"
                   " %.40s. Must be one of: success, failure", s);
        return -1;
    }

    buf_puts(&q->sql, *s == 's' ? " AND (l.http_status BETWEEN 200 AND 399 OR"
                                  " l.http_status = 0)"
                                : " AND NOT (l.http_status BETWEEN 200 AND 399 OR"
                                  " l.http_status = 0)");

    return 0;
}


static void
logs_filters(usage_sql_t *q, const char *user)
{
    req_t       *r = q->r;
    const char  *alias, *text;

    logs_and(q, " AND l.token" USAGE_KEY, logs_token(r), USAGE_KEY_END);
    logs_and(q, " AND l.user_id = ", user, "");
    logs_and(q, " AND l.rid = ", http_arg(r, "session_id"), "");
    logs_and(q, " AND l.team_id = ", http_arg(r, "team_id"), "");
    logs_and(q, " AND l.customer_id = ", http_arg(r, "end_user"), "");
    logs_and(q, " AND l.model = ", http_arg(r, "model_group"), "");
    logs_and(q, " AND coalesce(nullif(l.upstream_model, ''), l.model) = ",
             http_arg(r, "model"), "");
    logs_and(q, " AND '' = ", http_arg(r, "model_id"), "");
    logs_and(q, " AND l.http_status::text = ", http_arg(r, "error_code"), "");
    logs_and_id(q, http_arg(r, "request_id"));
    logs_amount(q, "min_spend", " AND l.cost_nusd >= ");
    logs_amount(q, "max_spend", " AND l.cost_nusd <= ");
    alias = http_arg(r, "key_alias");

    if (alias && *alias) {
        usage_param(q, " AND l.token IN (SELECT unnest(kt_key_hashes(token)) FROM keys"
                    " WHERE key_alias LIKE ",
                    query_pattern(&r->a, alias), ")");
    }

    text = http_arg(r, "error_message");

    if (text && *text) {
        usage_param(q, " AND coalesce(nullif(l.reason, ''), l.ending) LIKE ",
                    query_pattern(&r->a, text), "");
    }
}


/* Counts, then reads the page; `row` makes the JSON of one. */

static void
logs_reply_page(usage_sql_t *q, const char *row, const char *order, int64_t page,
    int64_t size)
{
    int          i;
    jv_t        *out, *list;
    req_t       *r = q->r;
    int64_t      total;
    PGresult    *res;
    const char  *where;

    where = arena_str(&r->a, q->sql.p);
    buf_init(&q->sql, &r->a);
    buf_printf(&q->sql, "SELECT count(*) %s", where);
    res = usage_run(q);

    if (res == NULL) {
        return;
    }

    total = db_int(res, 0, 0);
    PQclear(res);
    buf_init(&q->sql, &r->a);
    buf_printf(&q->sql, "SELECT %s FROM (SELECT l %s%s LIMIT %" PRId64 " OFFSET %" PRId64
               ") p", row, where, order, size, (page - 1) * size);
    res = usage_run(q);

    if (res == NULL) {
        return;
    }

    list = json_arr(&r->a);

    for (i = 0; i < PQntuples(res); i++) {
        json_push(list, json_raw(&r->a, PQgetvalue(res, i, 0)));
    }

    PQclear(res);
    out = json_obj(&r->a);
    json_set(out, "data", list);
    json_set(out, "total", json_int(&r->a, total));
    json_set(out, "page", json_int(&r->a, page));
    json_set(out, "page_size", json_int(&r->a, size));
    json_set(out, "total_pages", json_int(&r->a, (total + size - 1) / size));
    reply_json(r, 200, out);
}


#define LOGS_SLIM  "(kt_spend_json(p.l)::jsonb - '{messages,response}'::text[])"


static void
logs_pages(req_t *r, const char *row)
{
    int64_t      page, size;
    usage_sql_t  q;
    const char  *order, *user;

    access_scoped(r);
    order = logs_order(r);

    if (order == NULL || logs_page(r, &page, &size) != 0) {
        return;
    }

    user = http_arg(r, "user_id");
    usage_sql(&q, r, "FROM ledger l WHERE l.kind = 'request'");

    if (logs_time(r, &q, "start_date", " AND l.started_at >= ", "::date") != 0
        || logs_time(r, &q, "end_date", " AND l.started_at <= ",
                     "::timestamptz + interval '1 day' - interval '1 microsecond'") != 0
        || logs_status(&q) != 0 || logs_visible(&q, &user) != 0)
    {
        return;
    }

    logs_filters(&q, user);
    logs_reply_page(&q, row, order, page, size);
}


void
api_spend_logs_v2(req_t *r)
{
    logs_pages(r, LOGS_SLIM);
}


void
api_spend_logs_ui(req_t *r)
{
    logs_pages(r, LOGS_SLIM " || '{\"session_total_count\": 1}'");
}


/* A session is one request here: its id is that of the request. */

void
api_spend_logs_session(req_t *r)
{
    int64_t      page, size;
    usage_sql_t  q;
    const char  *user;

    access_scoped(r);
    user = NULL;
    usage_sql(&q, r, "FROM ledger l WHERE l.kind = 'request'");

    if (logs_page(r, &page, &size) != 0 || logs_visible(&q, &user) != 0) {
        return;
    }

    logs_and_id(&q, http_arg(r, "session_id"));
    logs_reply_page(&q, LOGS_SLIM, " ORDER BY l.started_at, l.rid", page, size);
}


/* Prompts and answers are never stored: what there is of a row is that it is there. */

void
api_spend_logs_one(req_t *r)
{
    jv_t        *o;
    PGresult    *res;
    usage_sql_t  q;
    const char  *user;

    access_scoped(r);
    user = NULL;
    usage_sql(&q, r, "SELECT 1 FROM ledger l WHERE l.kind = 'request'");

    if (logs_visible(&q, &user) != 0) {
        return;
    }

    logs_and_id(&q, r->seg[0]);
    buf_puts(&q.sql, " LIMIT 1");
    res = usage_run(&q);

    if (res == NULL) {
        return;
    }

    if (PQntuples(res) == 0) {
        fail_detail_error(r, 404, "Request %.255s not found", r->seg[0]);

    } else {
        o = json_obj(&r->a);
        json_set(o, "messages", json_obj(&r->a));
        json_set(o, "response", json_obj(&r->a));
        json_set(o, "proxy_server_request", json_obj(&r->a));
        reply_json(r, 200, o);
    }

    PQclear(res);
}
