#include <stdio.h>
#include <string.h>
#include "api.h"
#include "db.h"
#include "key.h"


const arg_t  spend_logs_args[] = {
    { "api_key", F_STR, 0 },
    { "user_id", F_STR, 0 },
    { "request_id", F_STR, 0 },
    { "start_date", F_STR, 0 },
    { "end_date", F_STR, 0 },
    { "summarize", F_BOOL, 0 },
    { NULL, 0, 0 }
};


#define SPEND_ROWS_MAX  10000


static int
spend_date_ok(const char *s)
{
    int   y, m, d, n;

    n = 0;

    return sscanf(s, "%4d-%2d-%2d%n", &y, &m, &d, &n) == 3 && n == 10
           && s[10] == '\0' && m >= 1 && m <= 12 && d >= 1 && d <= 31;
}


static void
spend_fail(req_t *r, int status, const char *text)
{
    fail_proxy(r, status, "internal_error", NULL, "/spend/logs Error(%s)", text);
}


/* One object per day, zeros where there was no traffic. */

static void
spend_summary(req_t *r, const char *token, const char *user, const char *from,
    const char *to)
{
    int        i;
    jv_t      *out;
    PGresult  *res;

    res = db_dynamic("SELECT json_build_object('startTime', d.day::text, 'spend',"
        " kt_usd(coalesce(sum(l.cost), 0)::bigint), 'users', coalesce((SELECT"
        " json_object_agg(u, kt_usd(c)) FROM (SELECT coalesce(user_id, '') u,"
        " sum(cost_nusd)::bigint c FROM ledger WHERE started_at >= d.day AND"
        " started_at < d.day + 1 AND ($1::text IS NULL OR token = $1) AND"
        " ($2::text IS NULL OR user_id = $2) GROUP BY 1) x), '{}'::json),"
        " 'models', coalesce((SELECT json_object_agg(m, kt_usd(c)) FROM (SELECT"
        " model m, sum(cost_nusd)::bigint c FROM ledger WHERE started_at >= d.day"
        " AND started_at < d.day + 1 AND ($1::text IS NULL OR token = $1) AND"
        " ($2::text IS NULL OR user_id = $2) GROUP BY 1) x), '{}'::json))::jsonb"
        " || coalesce((SELECT jsonb_object_agg(t, kt_usd(c)) FROM (SELECT token t,"
        " sum(cost_nusd)::bigint c FROM ledger WHERE started_at >= d.day AND"
        " started_at < d.day + 1 AND token IS NOT NULL AND ($1::text IS NULL OR"
        " token = $1) AND ($2::text IS NULL OR user_id = $2) GROUP BY 1) x),"
        " '{}'::jsonb)"
        " FROM (SELECT g::date AS day FROM generate_series($3::date, $4::date,"
        " interval '1 day') g) d LEFT JOIN LATERAL (SELECT sum(cost_nusd) AS cost"
        " FROM ledger WHERE started_at >= d.day AND started_at < d.day + 1 AND"
        " ($1::text IS NULL OR token = $1) AND ($2::text IS NULL OR user_id = $2)"
        " ) l ON true GROUP BY d.day ORDER BY d.day", 4,
        (const char *const[]){ token, user, from, to });

    if (!db_ok(res)) {
        db_log("spend/logs failed", res);
        PQclear(res);
        fail_db(r);
        return;
    }

    out = json_arr(&r->a);

    for (i = 0; i < PQntuples(res); i++) {
        json_push(out, json_raw(&r->a, PQgetvalue(res, i, 0)));
    }

    PQclear(res);
    reply_json(r, 200, out);
}


/* A condition for an argument that was given. */

static void
spend_cond(buf_t *b, const char **params, int *n, const char *v,
    const char *before, const char *after)
{
    if (v) {
        params[(*n)++] = v;
        buf_printf(b, " AND %s $%d%s", before, *n, after);
    }
}


static void
spend_rows(req_t *r, const char *token, const char *user, const char *request,
    const char *from, const char *to)
{
    int          i, n;
    buf_t        sql;
    PGresult    *res;
    const char  *params[5];

    n = 0;
    buf_init(&sql, &r->a);
    buf_puts(&sql, "SELECT kt_spend_json(l) FROM ledger l WHERE kind = 'request'");
    spend_cond(&sql, params, &n, token, "token =", "");
    spend_cond(&sql, params, &n, user, "user_id =", "");
    spend_cond(&sql, params, &n, from, "started_at >=", "::date");
    spend_cond(&sql, params, &n, to, "started_at <", "::date + 1");

    if (request) {
        params[n++] = request;
        buf_printf(&sql, " AND ((answer_id = $%d AND answer_id <> '') OR rid = $%d)",
                   n, n);
    }

    buf_printf(&sql, " ORDER BY started_at DESC, rid LIMIT %d", SPEND_ROWS_MAX + 1);
    res = db_dynamic(sql.p, n, params);

    if (!db_ok(res)) {
        db_log("spend/logs failed", res);
        PQclear(res);
        fail_db(r);
        return;
    }

    n = PQntuples(res);

    if (n > SPEND_ROWS_MAX) {
        n = SPEND_ROWS_MAX;
        reply_header(r, "x-litellm-spend-logs-truncated", "true");
    }

    r->status = 200;
    r->content_type = "application/json";
    buf_putc(&r->out, '[');

    for (i = 0; i < n; i++) {
        if (i) {
            buf_putc(&r->out, ',');
        }

        buf_add(&r->out, PQgetvalue(res, i, 0), (size_t) PQgetlength(res, i, 0));
    }

    buf_putc(&r->out, ']');
    PQclear(res);
}


void
api_spend_logs(req_t *r)
{
    const char  *token, *user, *request, *from, *to, *sum;

    token = http_arg(r, "api_key");
    token = token ? key_token(r, token) : NULL;
    user = http_arg(r, "user_id");
    request = http_arg(r, "request_id");
    from = http_arg(r, "start_date");
    to = http_arg(r, "end_date");
    sum = http_arg(r, "summarize");

    if ((from && !spend_date_ok(from)) || (to && !spend_date_ok(to))) {
        spend_fail(r, 400, "start_date and end_date must be YYYY-MM-DD");
        return;
    }

    if (from && to && strcmp(from, to) > 0) {
        spend_fail(r, 400, "start_date is after end_date");
        return;
    }

    if (from && to && request == NULL && (sum == NULL || strcasecmp(sum, "false"))) {
        spend_summary(r, token, user, from, to);
        return;
    }

    spend_rows(r, token, user, request, from && to ? from : NULL,
               from && to ? to : NULL);
}
