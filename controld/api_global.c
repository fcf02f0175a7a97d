/* /global/spend* and /global/activity*: reports over the sums by day. */

#include <inttypes.h>
#include <string.h>
#include "access.h"
#include "api.h"
#include "conf.h"
#include "key.h"
#include "kt_money.h"
#include "usage.h"


const arg_t  usage_range_args[] = {
    { "start_date", F_STR, 0 },
    { "end_date", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  global_logs_args[] = {
    { "api_key", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  global_limit_args[] = {
    { "limit", F_INT, 0 },
    { "start_date", F_STR, 0 },
    { "end_date", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  global_exceptions_args[] = {
    { "start_date", F_STR, 0 },
    { "end_date", F_STR, 0 },
    { "model_group", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  global_tags_args[] = {
    { "start_date", F_STR, 0 },
    { "end_date", F_STR, 0 },
    { "tags", F_STR, 0 },
    { NULL, 0, 0 }
};

const field_t  global_end_users_body[] = {
    { "api_key", F_STR, NULL, 0 },
    { "startTime", F_STR, NULL, 0 },
    { "endTime", F_STR, NULL, 0 },
    { NULL, 0, NULL, 0 }
};


#define GLOBAL_END_USERS  100


static int64_t
global_limit(req_t *r)
{
    int64_t      v;
    const char  *s;

    s = http_arg(r, "limit");

    return s && kt_int_parse(s, strlen(s), &v) == KT_OK && v < USAGE_ROWS ? v
           : USAGE_ROWS;
}


/* {"daily_data":[...],"sum_api_requests","sum_total_tokens"} of a CTE "d". */

#define GLOBAL_ACTIVITY                                                       \
    "'daily_data', coalesce(json_agg(json_build_object('date', to_char(day,"  \
    " 'Mon DD'), 'api_requests', n, 'total_tokens', t) ORDER BY day),"        \
    " '[]'::json), 'sum_api_requests', coalesce(sum(n), 0)::bigint,"          \
    " 'sum_total_tokens', coalesce(sum(t), 0)::bigint"


void
api_global_activity(req_t *r)
{
    int64_t      from, to;
    usage_sql_t  q;
    usage_who_t  w;

    usage_who(r, &w);

    if (usage_dates(r, &from, &to) != 0) {
        return;
    }

    usage_sql(&q, r, "WITH d AS (SELECT u.day, sum(u.requests)::bigint AS n,"
              " sum(u.prompt_tokens + u.completion_tokens)::bigint AS t");
    usage_from(&q, 'g', &w, from, to);
    buf_puts(&q.sql, " GROUP BY u.day) SELECT json_build_object(" GLOBAL_ACTIVITY
             ") FROM d");
    usage_reply_one(&q);
}


void
api_global_activity_model(req_t *r)
{
    int64_t      from, to;
    usage_sql_t  q;
    usage_who_t  w;

    usage_who(r, &w);

    if (usage_dates(r, &from, &to) != 0) {
        return;
    }

    usage_sql(&q, r, "WITH d AS (SELECT x.model, u.day, sum(u.requests)::bigint AS n,"
              " sum(u.prompt_tokens + u.completion_tokens)::bigint AS t");
    usage_from(&q, 'g', &w, from, to);
    buf_puts(&q.sql, " GROUP BY 1, 2) SELECT json_build_object('model', model, "
             GLOBAL_ACTIVITY ") FROM d GROUP BY model ORDER BY sum(n) DESC, model");
    usage_reply_list(&q);
}


/* Requests that ended as rate limits (429), by the day that they came in. */

static void
global_exceptions(req_t *r, int by_deployment)
{
    int64_t      from, to;
    usage_sql_t  q;
    const char  *group;

    if (usage_dates(r, &from, &to) != 0) {
        return;
    }

    usage_sql(&q, r, "WITH d AS (SELECT upstream_model || CASE WHEN provider <> '' THEN"
              " '-' || provider ELSE '' END AS api_base, (started_at AT TIME ZONE"
              " 'UTC')::date AS day, count(*) AS n FROM ledger WHERE http_status = 429"
              " AND kind = 'request'");
    usage_param(&q, " AND started_at >= ", usage_day_text(&r->a, from), "::date");
    usage_param(&q, " AND started_at < ", usage_day_text(&r->a, to + 1), "::date");
    group = http_arg(r, "model_group");

    if (group && *group) {
        usage_param(&q, " AND model = ", group, "");
    }

    buf_puts(&q.sql, by_deployment ? " GROUP BY 1, 2)" : " GROUP BY 1, 2), e AS"
             " (SELECT day, sum(n)::bigint AS n FROM d GROUP BY day)");
    buf_printf(&q.sql, " SELECT json_build_object(%s'daily_data', coalesce(json_agg("
               "json_build_object('date', to_char(day, 'Mon DD'),"
               " 'num_rate_limit_exceptions', n) ORDER BY day), '[]'::json),"
               " 'sum_num_rate_limit_exceptions', coalesce(sum(n), 0)::bigint) FROM %s",
               by_deployment ? "'api_base', api_base, " : "",
               by_deployment ? "d GROUP BY api_base ORDER BY sum(n) DESC, api_base"
                             : "e");

    if (by_deployment) {
        usage_reply_list(&q);
    } else {
        usage_reply_one(&q);
    }
}


void
api_global_exceptions(req_t *r)
{
    global_exceptions(r, 0);
}


void
api_global_exceptions_deployment(req_t *r)
{
    global_exceptions(r, 1);
}


void
api_global_spend(req_t *r)
{
    char         max[KT_MONEY_TEXT];
    usage_sql_t  q;
    usage_who_t  w;

    usage_who(r, &w);
    kt_money_format(conf.max_budget_nusd < 0 ? 0 : conf.max_budget_nusd, KT_MONEY_USD,
                    max);
    usage_sql(&q, r, "SELECT json_build_object('spend', kt_usd(coalesce("
              "sum(u.cost_nusd), 0)::bigint), 'max_budget', ");
    usage_param(&q, "", max, "::json)");
    usage_from(&q, 'g', &w, usage_today() - 29, usage_today());
    usage_reply_one(&q);
}


void
api_global_spend_logs(req_t *r)
{
    usage_sql_t  q;
    usage_who_t  w;
    const char  *key;

    usage_who(r, &w);
    key = http_arg(r, "api_key");
    usage_sql(&q, r, "SELECT json_build_object('date', u.day::text, 'spend',"
              " kt_usd(sum(u.cost_nusd)::bigint))");

    if (key && *key) {
        w.all = 0;
    }

    usage_from(&q, 'g', &w, usage_today() - 29, usage_today());

    if (key && *key) {
        usage_param(&q, " AND x.kind = 'k' AND x.token" USAGE_KEY, key_token(r, key),
                    USAGE_KEY_END);
    }

    buf_puts(&q.sql, " GROUP BY u.day ORDER BY u.day");
    usage_reply_list(&q);
}


void
api_global_spend_keys(req_t *r)
{
    int64_t      from, to;
    usage_sql_t  q;
    usage_who_t  w;

    usage_who(r, &w);

    if (usage_dates_spend(r, &from, &to) != 0) {
        return;
    }

    usage_sql(&q, r, "WITH s AS (SELECT x.token, sum(u.cost_nusd)::bigint AS c");
    usage_from_keys(&q, &w, from, to, NULL, NULL);
    buf_printf(&q.sql, " AND x.token <> '' GROUP BY 1 ORDER BY c DESC, x.token LIMIT %" PRId64 ") SELECT json_build_object("
               "'api_key', s.token, 'key_alias', coalesce(k.key_alias, d.key_alias),"
               " 'key_name', coalesce(k.key_name, d.row->>'key_name'), 'total_spend',"
               " kt_usd(s.c)) FROM s LEFT JOIN keys k USING (token) LEFT JOIN LATERAL"
               " (SELECT key_alias, row FROM deleted_keys WHERE token = s.token AND"
               " k.token IS NULL ORDER BY id DESC LIMIT 1) d ON true ORDER BY s.c DESC,"
               " s.token", global_limit(r));
    usage_reply_list(&q);
}


void
api_global_spend_models(req_t *r)
{
    int64_t      from, to;
    usage_sql_t  q;
    usage_who_t  w;

    usage_who(r, &w);

    if (usage_dates_spend(r, &from, &to) != 0) {
        return;
    }

    usage_sql(&q, r, "SELECT json_build_object('model', x.model, 'total_spend',"
              " kt_usd(sum(u.cost_nusd)::bigint), 'total_tokens',"
              " sum(u.prompt_tokens + u.completion_tokens)::bigint)");
    usage_from(&q, 'g', &w, from, to);
    buf_printf(&q.sql, " GROUP BY x.model ORDER BY sum(u.cost_nusd) DESC, x.model"
               " LIMIT %" PRId64, global_limit(r));
    usage_reply_list(&q);
}


void
api_global_spend_provider(req_t *r)
{
    int64_t      from, to;
    usage_sql_t  q;
    usage_who_t  w;

    usage_who(r, &w);

    if (usage_dates(r, &from, &to) != 0) {
        return;
    }

    usage_sql(&q, r, "SELECT json_build_object('provider', coalesce(nullif(x.provider,"
              " ''), 'unknown'), 'spend', kt_usd(sum(u.cost_nusd)::bigint))");
    usage_from(&q, 'g', &w, from, to);
    buf_puts(&q.sql, " GROUP BY x.provider ORDER BY sum(u.cost_nusd) DESC, x.provider");
    usage_reply_list(&q);
}


/* ------------------------------------------------------- end users and tags */


static int
global_time(req_t *r, const char *name, int64_t *day)
{
    const char  *s;

    s = json_str(r->json, name);

    if (s == NULL || !*s) {
        return 0;
    }

    *day = strlen(s) >= 10 ? usage_day(arena_dup(&r->a, s, 10)) : -1;

    if (*day < 0) {
        fail_detail_error(r, 400, "Invalid date: %.40s. Expected: YYYY-MM-DD", s);
        return -1;
    }

    return 0;
}


/*
 * Names with their sums: of everybody from the sums, of one caller from his rows of
 * the ledger, which are few.
 */

static void
global_names(usage_sql_t *q, char kind, const usage_who_t *w, int64_t from, int64_t to)
{
    const char  *name;

    name = kind == 'c' ? "l.customer_id" : "t.name";

    if (w->all) {
        buf_puts(&q->sql, "x.name AS name, sum(u.requests)::bigint AS n,"
                 " sum(u.cost_nusd)::bigint AS c");
        usage_from(q, kind, w, from, to);
        buf_printf(&q->sql, " AND x.kind = '%c'", kind);
        return;
    }

    buf_printf(&q->sql, "%s AS name, count(*) AS n, sum(l.cost_nusd)::bigint AS c FROM"
               " ledger l%s WHERE l.kind = 'request' AND %s IS NOT NULL", name,
               kind == 'c' ? "" : " CROSS JOIN LATERAL (SELECT DISTINCT unnest(l.tags)"
                                  " AS name) t", name);
    usage_param(q, " AND l.started_at >= ", usage_day_text(&q->r->a, from), "::date");
    usage_param(q, " AND l.started_at < ", usage_day_text(&q->r->a, to + 1), "::date");
    usage_param(q, w->user ? " AND l.user_id = " : " AND l.token" USAGE_KEY,
                w->user ? w->user : w->token, w->user ? "" : USAGE_KEY_END);
}


void
api_global_end_users(req_t *r)
{
    int64_t      from, to;
    usage_sql_t  q;
    usage_who_t  w;
    const char  *key;

    usage_who(r, &w);
    to = usage_today();
    from = to - 29;

    if (global_time(r, "startTime", &from) != 0 || global_time(r, "endTime", &to) != 0) {
        return;
    }

    key = json_str(r->json, "api_key");
    usage_sql(&q, r, "SELECT json_build_object('end_user', name, 'total_count', n,"
              " 'total_spend', kt_usd(c)) FROM (SELECT ");
    global_names(&q, 'c', &w, from, to);

    if (key && *key) {
        usage_param(&q, w.all ? " AND x.token" USAGE_KEY : " AND l.token" USAGE_KEY,
                    key_token(r, key), USAGE_KEY_END);
    }

    buf_printf(&q.sql, " GROUP BY 1 ORDER BY 3 DESC, 1 LIMIT %d) s", GLOBAL_END_USERS);
    usage_reply_list(&q);
}


void
api_global_all_end_users(req_t *r)
{
    usage_sql_t  q;

    usage_sql(&q, r, "SELECT json_build_object('end_users', coalesce(json_agg(name ORDER"
              " BY name), '[]'::json)) FROM (SELECT DISTINCT name FROM usage_dims WHERE"
              " kind = 'c' AND name <> '' ORDER BY name LIMIT 10000) s");
    usage_reply_one(&q);
}


void
api_global_all_tag_names(req_t *r)
{
    usage_sql_t  q;
    usage_who_t  w;

    usage_who(r, &w);

    if (w.all) {
        usage_sql(&q, r, "WITH s AS (SELECT DISTINCT name FROM usage_dims WHERE kind = 'n'"
                  " AND name <> '' ORDER BY name LIMIT 10000)");
    } else {
        usage_sql(&q, r, "WITH s AS (SELECT ");
        global_names(&q, 'n', &w, usage_today() - USAGE_DAYS, usage_today());
        buf_puts(&q.sql, " GROUP BY 1)");
    }

    buf_puts(&q.sql, " SELECT json_build_object('tag_names', coalesce(json_agg(name"
             " ORDER BY name), '[]'::json)) FROM s");
    usage_reply_one(&q);
}


/* `shape` makes one object of name, n (requests) and c (nano-USD). */

static void
global_tags(req_t *r, const char *shape, int wrap)
{
    int64_t      from, to;
    usage_sql_t  q;
    usage_who_t  w;
    const char  *tags;

    usage_who(r, &w);

    if (usage_dates_spend(r, &from, &to) != 0) {
        return;
    }

    tags = http_arg(r, "tags");
    tags = tags && strcmp(tags, "all-tags") ? usage_ids(&r->a, tags) : NULL;
    usage_sql(&q, r, "WITH s AS (SELECT ");
    global_names(&q, 'n', &w, from, to);

    if (tags) {
        usage_param(&q, w.all ? " AND x.name = ANY (" : " AND t.name = ANY (", tags,
                    "::text[])");
    }

    buf_puts(&q.sql, " GROUP BY 1 ORDER BY 3 DESC, 1 LIMIT 10000) SELECT ");
    buf_printf(&q.sql, wrap ? "json_build_object('spend_per_tag', coalesce(json_agg(%s"
               " ORDER BY c DESC, name), '[]'::json)) FROM s"
               : "%s FROM s ORDER BY c DESC, name", shape);

    if (wrap) {
        usage_reply_one(&q);
    } else {
        usage_reply_list(&q);
    }
}


void
api_global_spend_tags(req_t *r)
{
    global_tags(r, "json_build_object('name', name, 'spend', kt_usd(c), 'log_count', n)",
                1);
}


void
api_spend_tags(req_t *r)
{
    global_tags(r, "json_build_object('individual_request_tag', name, 'log_count', n,"
                " 'total_spend', kt_usd(c))", 0);
}


void
api_global_refresh(req_t *r)
{
    jv_t  *o;

    o = json_obj(&r->a);              /* the sums are always those of the ledger */
    json_set(o, "message", json_string(&r->a, "MonthlyGlobalSpend view refreshed"));
    json_set(o, "status", json_string(&r->a, "success"));
    reply_json(r, 200, o);
}
