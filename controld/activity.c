#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "activity.h"
#include "kt_money.h"
#include "usage.h"


#define ACT_DAY    0
#define ACT_MODEL  1
#define ACT_GROUP  2
#define ACT_PROVIDER  3
#define ACT_ROUTE  4
#define ACT_VALUES 5
#define ACT_NVALUES 8
#define ACT_TOKEN  13
#define ACT_ENTITY 14

enum { V_SPEND, V_IN, V_OUT, V_CR, V_CW, V_OK, V_FAILED, V_REQUESTS };


const char *
activity_endpoint(arena_t *a, const char *route)
{
    size_t                    i;
    static const char *const  names[][2] = {
        { "chat", "/chat/completions" }, { "completions", "/completions" },
        { "embeddings", "/embeddings" }, { "messages", "/v1/messages" },
        { "responses", "/responses" }, { "images", "/images/generations" },
        { "speech", "/audio/speech" }, { "audio", "/audio/transcriptions" },
        { "moderations", "/moderations" }, { "rerank", "/rerank" },
        { "gemini", "/v1beta/models/generateContent" }, { "", "unknown" }
    };

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(route, names[i][0]) == 0) {
            return names[i][1];
        }
    }

    return arena_printf(a, "/%s", route);
}


void
activity_init(activity_t *t, req_t *r, int by_team)
{
    memset(t, 0, sizeof(*t));
    t->r = r;
    t->by_team = by_team;
    sums_init(&t->sums, &r->a, 256);
    sums_init(&t->days, &r->a, 64);
    sums_init(&t->keys, &r->a, 64);
    sums_init(&t->teams, &r->a, 16);
    buf_init(&t->key, &r->a);
    t->total = arena_alloc(&r->a, sizeof(sum_t));
}


static void
activity_count(sums_t *t, sum_t *s, PGresult *res, int row)
{
    int  i;

    for (i = 0; i < ACT_NVALUES; i++) {
        sums_add(t, s, i, db_int(res, row, ACT_VALUES + i));
    }
}


/*
 * Keys of the sums: day, then one letter for the breakdown and the name; a token
 * behind it makes the key within it, which sorts right after.
 */

static void
activity_name(activity_t *t, PGresult *res, int row, int what, char kind,
    const char *name)
{
    buf_t  *key = &t->key;

    key->len = 0;
    buf_puts(key, PQgetvalue(res, row, ACT_DAY));
    buf_putc(key, '\x01');
    buf_putc(key, kind);
    buf_puts(key, name);

    if (what & ACT_NAMES) {
        activity_count(&t->sums, sums_get(&t->sums, key->p), res, row);
    }

    if (what & ACT_KEYS) {
        buf_putc(key, '\x02');
        buf_puts(key, PQgetvalue(res, row, ACT_TOKEN));
        activity_count(&t->sums, sums_get(&t->sums, key->p), res, row);
    }
}


static const char *
activity_known(const char *s)
{
    return *s ? s : "unknown";
}


void
activity_row(activity_t *t, PGresult *res, int row, int what)
{
    const char  *day, *token, *entity;

    day = PQgetvalue(res, row, ACT_DAY);
    token = PQgetvalue(res, row, ACT_TOKEN);
    entity = PQgetvalue(res, row, ACT_ENTITY);

    if (what & ACT_TOTAL) {
        activity_count(&t->days, sums_get(&t->days, day), res, row);
        activity_count(&t->days, t->total, res, row);
    }

    activity_name(t, res, row, what, 'm', activity_known(PQgetvalue(res, row, ACT_MODEL)));
    activity_name(t, res, row, what, 'g', activity_known(PQgetvalue(res, row, ACT_GROUP)));
    activity_name(t, res, row, what, 'p',
                  activity_known(PQgetvalue(res, row, ACT_PROVIDER)));
    activity_name(t, res, row, what, 'e',
                  activity_endpoint(&t->r->a, PQgetvalue(res, row, ACT_ROUTE)));

    if (*entity) {
        activity_name(t, res, row, what, 'x', entity);
        sums_get(&t->teams, entity);
    }

    if (what & ACT_KEYS) {
        activity_name(t, res, row, ACT_NAMES, 'k', token);
        sums_get(&t->keys, token);
    }
}


/* ------------------------------------------------------------------ metadata */


static const char *
activity_keys_of(arena_t *a, sums_t *t)
{
    size_t        i;
    sum_t       **all;
    const char  **names;

    all = sums_sorted(t);
    names = arena_alloc(a, (t->n + 1) * sizeof(char *));

    for (i = 0; i < t->n; i++) {
        names[i] = all[i]->key;
    }

    return db_array(a, names, t->n);
}


/* Puts the JSON of a two column result at the sums of their names. */

static int
activity_refs(activity_t *t, sums_t *sums, PGresult *res)
{
    int  i;

    if (!db_ok(res)) {
        db_log("a report failed", res);
        PQclear(res);
        fail_db(t->r);
        return -1;
    }

    for (i = 0; i < PQntuples(res); i++) {
        sums_get(sums, PQgetvalue(res, i, 0))->ref =
            arena_str(&t->r->a, PQgetvalue(res, i, 1));
    }

    PQclear(res);

    return 0;
}


/* Aliases of the keys and teams met, deleted keys too. */

static int
activity_metadata(activity_t *t)
{
    if (activity_refs(t, &t->keys, db_q("SELECT n.token, json_build_object('key_alias',"
            " coalesce(k.key_alias, d.key_alias), 'team_id', coalesce(k.team_id,"
            " d.team_id)) FROM unnest($1::text[]) AS n(token) LEFT JOIN keys k USING"
            " (token) LEFT JOIN LATERAL (SELECT key_alias, team_id FROM deleted_keys WHERE"
            " token = n.token AND k.token IS NULL ORDER BY id DESC LIMIT 1) d ON true",
            activity_keys_of(&t->r->a, &t->keys))) != 0)
    {
        return -1;
    }

    return !t->by_team ? 0 : activity_refs(t, &t->teams, db_q("SELECT team_id,"
        " json_build_object('team_alias', team_alias) FROM teams WHERE team_id = ANY"
        " ($1::text[])", activity_keys_of(&t->r->a, &t->teams)));
}


/* ------------------------------------------------------------------ the answer */


static void
activity_metrics(buf_t *b, const sum_t *s)
{
    char                      usd[KT_MONEY_TEXT];
    int                       i;
    static const char *const  names[] = {
        "", "prompt_tokens", "completion_tokens", "cache_read_input_tokens",
        "cache_creation_input_tokens", "successful_requests", "failed_requests",
        "api_requests"
    };

    kt_money_format(s->v[V_SPEND], KT_MONEY_USD, usd);
    buf_printf(b, "{\"spend\":%s", usd);

    for (i = V_IN; i <= V_REQUESTS; i++) {
        buf_printf(b, ",\"%s\":%" PRId64, names[i], s->v[i]);
    }

    buf_printf(b, ",\"total_tokens\":%" PRId64 "}", s->v[V_IN] + s->v[V_OUT]);
}


static const char *
activity_ref(sums_t *t, const char *name, const char *none)
{
    const char  *ref;

    ref = sums_get(t, name)->ref;

    return ref ? ref : none;
}


/* {"metrics":...,"metadata":{...} of a key. */

static void
activity_key(activity_t *t, buf_t *b, const char *token, const sum_t *s)
{
    json_quote(b, token, strlen(token));
    buf_puts(b, ":{\"metrics\":");
    activity_metrics(b, s);
    buf_puts(b, ",\"metadata\":");
    buf_puts(b, activity_ref(&t->keys, token, "{\"key_alias\":null,\"team_id\":null}"));
    buf_putc(b, '}');
}


/*
 * One breakdown of a day: all[i] onwards, of which those before `end` share `prefix`.
 * A key within a name may stand alone, when its name was cut off.
 */

static size_t
activity_breakdown(activity_t *t, buf_t *b, sum_t **all, size_t i, size_t end,
    const char *prefix)
{
    int          entity;
    size_t       n;
    const char  *name;
    static const sum_t  none;

    n = strlen(prefix);
    entity = prefix[n - 1] == 'x';
    buf_putc(b, '{');

    for (int first = 1; i < end && strncmp(all[i]->key, prefix, n) == 0; first = 0) {
        name = all[i]->key + n;
        buf_puts(b, first ? "" : ",");

        if (prefix[n - 1] == 'k') {
            activity_key(t, b, name, all[i++]);
            continue;
        }

        name = arena_dup(&t->r->a, name, strcspn(name, "\x02"));
        json_quote(b, name, strlen(name));
        buf_puts(b, ":{\"metrics\":");
        activity_metrics(b, strchr(all[i]->key + n, 2) ? &none : all[i]);
        buf_puts(b, ",\"metadata\":");
        buf_puts(b, entity ? activity_ref(&t->teams, name, "{}") : "{}");
        buf_puts(b, ",\"api_key_breakdown\":{");
        i += strchr(all[i]->key + n, 2) == NULL;

        for (int k = 0; i < end && strncmp(all[i]->key, prefix, n) == 0
                        && strncmp(all[i]->key + n, name, strlen(name)) == 0
                        && all[i]->key[n + strlen(name)] == 2; i++, k++)
        {
            buf_puts(b, k ? "," : "");
            activity_key(t, b, all[i]->key + n + strlen(name) + 1, all[i]);
        }

        buf_puts(b, "}}");
    }

    buf_putc(b, '}');

    return i;
}


/* The sums of one day stand together, their breakdowns in the order of the letters. */

static void
activity_day(activity_t *t, buf_t *b, const sum_t *day, sum_t **all, size_t n)
{
    size_t                    i, k, lo, hi, mid;
    const char               *prefix;
    static const char *const  names[][2] = {
        { "e", "endpoints" }, { "g", "model_groups" }, { "k", "api_keys" },
        { "m", "models" }, { "p", "providers" }, { "x", "entities" }
    };

    for (lo = 0, hi = n, prefix = arena_printf(&t->r->a, "%s\x01", day->key); lo < hi; ) {
        mid = (lo + hi) / 2;

        if (strcmp(all[mid]->key, prefix) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }

    buf_puts(b, "{\"date\":\"");
    buf_puts(b, usage_day_text(&t->r->a, strtoll(day->key, NULL, 10)));
    buf_puts(b, "\",\"metrics\":");
    activity_metrics(b, day);
    buf_puts(b, ",\"breakdown\":{\"mcp_servers\":{}");

    for (i = lo, k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
        buf_printf(b, ",\"%s\":", names[k][1]);
        i = activity_breakdown(t, b, all, i, n,
                arena_printf(&t->r->a, "%s\x01%s", day->key, names[k][0]));
    }

    buf_puts(b, "}}");
}


static int
activity_newest(const void *x, const void *y)
{
    int64_t        a, b;
    sum_t *const  *s = x;
    sum_t *const  *t = y;

    a = strtoll((*s)->key, NULL, 10);
    b = strtoll((*t)->key, NULL, 10);

    return a < b ? 1 : a > b ? -1 : 0;
}


static void
activity_totals(activity_t *t, buf_t *b, int64_t page, int64_t pages)
{
    char   usd[KT_MONEY_TEXT];
    sum_t *s = t->total;

    kt_money_format(s->v[V_SPEND], KT_MONEY_USD, usd);
    buf_printf(b, "],\"metadata\":{\"total_spend\":%s,\"total_prompt_tokens\":%" PRId64
               ",\"total_completion_tokens\":%" PRId64 ",\"total_tokens\":%" PRId64
               ",\"total_api_requests\":%" PRId64 ",\"total_successful_requests\":%" PRId64
               ",\"total_failed_requests\":%" PRId64
               ",\"total_cache_read_input_tokens\":%" PRId64
               ",\"total_cache_creation_input_tokens\":%" PRId64
               ",\"page\":%" PRId64 ",\"total_pages\":%" PRId64 ",\"has_more\":%s}}",
               usd, s->v[V_IN], s->v[V_OUT], s->v[V_IN] + s->v[V_OUT], s->v[V_REQUESTS],
               s->v[V_OK], s->v[V_FAILED], s->v[V_CR], s->v[V_CW], page, pages,
               page < pages ? "true" : "false");
}


int
activity_reply(activity_t *t, int64_t page, int64_t pages)
{
    size_t   i;
    buf_t   *b = &t->r->out;
    sum_t  **all, **days;

    if (activity_metadata(t) != 0) {
        return -1;
    }

    all = sums_sorted(&t->sums);
    days = sums_sorted(&t->days);
    qsort(days, t->days.n, sizeof(sum_t *), activity_newest);
    t->r->status = 200;
    t->r->content_type = "application/json";
    buf_puts(b, "{\"results\":[");

    for (i = 0; i < t->days.n; i++) {
        buf_puts(b, i ? "," : "");
        activity_day(t, b, days[i], all, t->sums.n);
    }

    activity_totals(t, b, page, pages);

    return 0;
}


int
activity_reply_csv(activity_t *t, PGresult *res)
{
    int          i, k;
    buf_t       *b = &t->r->out;
    char         usd[KT_MONEY_TEXT];
    const jv_t  *meta;
    const char  *err, *ref;

    if (activity_metadata(t) != 0) {
        return -1;
    }

    t->r->status = 200;
    t->r->content_type = "text/csv; charset=utf-8";
    reply_header(t->r, "Content-Disposition",
                 "attachment; filename=\"daily_activity.csv\"");
    buf_puts(b, "date,entity,api_key,key_alias,team_id,model,model_group,provider,"
             "endpoint,spend,prompt_tokens,completion_tokens,cache_read_input_tokens,"
             "cache_creation_input_tokens,successful_requests,failed_requests,"
             "api_requests\r\n");

    for (i = 0; i < PQntuples(res); i++) {
        ref = activity_ref(&t->keys, PQgetvalue(res, i, ACT_TOKEN), "{}");
        meta = json_parse(&t->r->a, ref, strlen(ref), &err);
        usage_csv_number(b, usage_day_text(&t->r->a, db_int(res, i, ACT_DAY)), 1);
        usage_csv_cell(b, PQgetvalue(res, i, ACT_ENTITY), 0);
        usage_csv_cell(b, PQgetvalue(res, i, ACT_TOKEN), 0);
        usage_csv_cell(b, json_str(meta, "key_alias"), 0);
        usage_csv_cell(b, json_str(meta, "team_id"), 0);
        usage_csv_cell(b, PQgetvalue(res, i, ACT_MODEL), 0);
        usage_csv_cell(b, PQgetvalue(res, i, ACT_GROUP), 0);
        usage_csv_cell(b, PQgetvalue(res, i, ACT_PROVIDER), 0);
        usage_csv_cell(b, activity_endpoint(&t->r->a, PQgetvalue(res, i, ACT_ROUTE)), 0);
        kt_money_format(db_int(res, i, ACT_VALUES), KT_MONEY_USD, usd);
        usage_csv_number(b, usd, 0);

        for (k = 1; k < ACT_NVALUES; k++) {
            usage_csv_number(b, PQgetvalue(res, i, ACT_VALUES + k), 0);
        }

        buf_puts(b, "\r\n");
    }

    return 0;
}
