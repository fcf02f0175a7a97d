/* /spend/logs and its pages: rows of the ledger. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "access.h"
#include "api.h"
#include "key.h"
#include "kt_money.h"
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


#define LOGS_ID    "((l.answer_id <> '' AND l.answer_id = "
#define LOGS_SIZE  1000


/* ---------------------------------------------------------------- visibility */


/* Teams and organizations whose rows the caller may see, as text[]; -1 answered. */

static int
logs_reach(req_t *r, const char **teams, const char **orgs)
{
    PGresult  *res;

    res = db_q("SELECT coalesce(array_agg(t.team_id), '{}'), (SELECT coalesce("
        "array_agg(organization_id), '{}') FROM organization_memberships WHERE user_id ="
        " $1 AND user_role = 'org_admin') FROM memberships m JOIN teams t USING (team_id)"
        " WHERE m.user_id = $1 AND NOT m.implicit AND (m.role = 'admin' OR"
        " '/spend/logs' = ANY (t.team_member_permissions))", r->caller_user);

    if (!db_ok(res)) {
        db_log("spend/logs failed", res);
        PQclear(res);
        fail_db(r);
        return -1;
    }

    *teams = arena_str(&r->a, PQgetvalue(res, 0, 0));
    *orgs = arena_str(&r->a, PQgetvalue(res, 0, 1));
    PQclear(res);

    return 0;
}


/*
 * What the caller may see.  Without a wider reach the user is his own, whoever he
 * asks for, as LiteLLM has it; *user is then cleared.
 */

static int
logs_visible(usage_sql_t *q, const char **user)
{
    req_t        *r = q->r;
    const char   *teams, *orgs;
    usage_who_t   w;

    usage_who(r, &w);

    if (w.all) {
        return 0;
    }

    if (w.user == NULL) {
        usage_param(q, " AND l.token = ", w.token, "");
        return 0;
    }

    if (logs_reach(r, &teams, &orgs) != 0) {
        return -1;
    }

    usage_param(q, " AND (l.user_id = ", w.user, "");

    if (strcmp(teams, "{}") == 0 && strcmp(orgs, "{}") == 0) {
        *user = NULL;

    } else {
        usage_param(q, " OR l.team_id = ANY (", teams, "::text[])");
        usage_param(q, " OR l.organization_id = ANY (", orgs, "::text[])");
    }

    buf_puts(&q->sql, ")");

    return 0;
}


static void
logs_and(usage_sql_t *q, const char *before, const char *v, const char *after)
{
    if (v && *v) {
        usage_param(q, before, v, after);
    }
}


static void
logs_and_id(usage_sql_t *q, const char *id)
{
    if (id && *id) {
        usage_param(q, " AND " LOGS_ID, id, "");
        buf_printf(&q->sql, ") OR l.rid = $%d)", q->n);
    }
}


static const char *
logs_token(req_t *r)
{
    const char  *key;

    key = http_arg(r, "api_key");

    return key && *key ? key_token(r, key) : NULL;
}


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
    logs_and(&q, " AND x.token = ", token, "");
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

    logs_and(&q, " AND l.token = ", logs_token(r), "");
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


/* -------------------------------------------------------------------- pages */


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

    logs_and(q, " AND l.token = ", logs_token(r), "");
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
        usage_param(q, " AND l.token IN (SELECT token FROM keys WHERE key_alias LIKE ",
                    usage_like(&r->a, alias), ")");
    }

    text = http_arg(r, "error_message");

    if (text && *text) {
        usage_param(q, " AND coalesce(nullif(l.reason, ''), l.ending) LIKE ",
                    usage_like(&r->a, text), "");
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
