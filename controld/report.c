#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "kt_money.h"
#include "report.h"


enum { R_COST, R_IN, R_OUT };


void
report_init(report_t *t, req_t *r)
{
    t->r = r;
    sums_init(&t->sums, &r->a, 256);
    buf_init(&t->key, &r->a);
}


/* Keys are the day, of which all have five digits for two centuries, and the name. */

static sum_t *
report_get(report_t *t, const char *day, const char *name)
{
    t->key.len = 0;
    buf_puts(&t->key, day);
    buf_putc(&t->key, '\x01');
    buf_puts(&t->key, name);

    return sums_get(&t->sums, t->key.p);
}


static const char *
report_name(const sum_t *s)
{
    return strchr(s->key, 1) + 1;
}


static int64_t
report_day(const sum_t *s)
{
    return strtoll(s->key, NULL, 10);
}


void
report_totals(report_t *t, PGresult *res)
{
    int  i;

    for (i = 0; i < PQntuples(res); i++) {
        sums_add(&t->sums, report_get(t, PQgetvalue(res, i, 0), PQgetvalue(res, i, 1)), R_COST,
                 db_int(res, i, 2));
    }
}


static void
report_usd(buf_t *b, const char *before, int64_t nusd)
{
    char  text[KT_MONEY_TEXT];

    kt_money_format(nusd, KT_MONEY_USD, text);
    buf_puts(b, before);
    buf_puts(b, text);
}


static void
report_text(buf_t *b, const char *before, const char *s)
{
    buf_puts(b, before);
    json_quote(b, s, strlen(s));
}


/* The text of the rows of one day and name, at the sum. */

static buf_t *
report_detail(arena_t *a, sum_t *s)
{
    buf_t  *b;

    if (s->ref == NULL) {
        b = arena_alloc(a, sizeof(buf_t));
        buf_init(b, a);
        s->ref = b;

    } else {
        b = (buf_t *) (uintptr_t) s->ref;
        buf_putc(b, ',');
    }

    return b;
}


void
report_rows(report_t *t, PGresult *res)
{
    int     i;
    buf_t  *b;

    for (i = 0; i < PQntuples(res); i++) {
        b = report_detail(&t->r->a, report_get(t, PQgetvalue(res, i, 0),
                                               PQgetvalue(res, i, 1)));
        report_text(b, "{\"model\":", PQgetvalue(res, i, 2));
        report_text(b, ",\"api_key\":", PQgetvalue(res, i, 3));
        report_usd(b, ",\"spend\":", db_int(res, i, 4));
        buf_printf(b, ",\"total_tokens\":%s}", PQgetvalue(res, i, 5));
    }

    if (PQntuples(res) == REPORT_NEWEST) {
        usage_truncated(t->r);
    }
}


int
report_rest(report_t *t, usage_sql_t *q, const char *none)
{
    int        i;
    sum_t    **all;
    size_t     k, n;
    int64_t    rest;
    PGresult  *res;

    res = usage_run(q);

    if (res == NULL) {
        return -1;
    }

    n = t->sums.n;
    all = sums_all(&t->sums);

    for (i = 0; i < PQntuples(res); i++) {
        rest = db_int(res, i, 2);
        report_get(t, PQgetvalue(res, i, 0), none)->a += rest;
    }

    for (k = 0; k < n; k++) {
        report_get(t, arena_dup(&t->r->a, all[k]->key, strcspn(all[k]->key, "\x01")),
                   none)->a -= all[k]->v[R_COST];
    }

    PQclear(res);
    all = sums_all(&t->sums);

    for (k = 0; k < t->sums.n; k++) {
        sums_add(&t->sums, all[k], R_COST, all[k]->a);
        all[k]->a = 0;
    }

    return 0;
}


static int
report_dearest(const void *x, const void *y)
{
    sum_t *const  *a = x;
    sum_t *const  *b = y;

    if ((*a)->v[R_COST] != (*b)->v[R_COST]) {
        return (*a)->v[R_COST] < (*b)->v[R_COST] ? 1 : -1;
    }

    return strcmp((*a)->key, (*b)->key);
}


/* Sorted by day; the end of the day that begins at i. */

static size_t
report_until(sum_t **all, size_t n, size_t i)
{
    size_t  k;

    for (k = i + 1; k < n && report_day(all[k]) == report_day(all[i]); k++) { /* void */ }

    return k;
}


/* Sums that are nothing and have no rows are not worth a word. */

static size_t
report_sorted(report_t *t, sum_t ***out)
{
    size_t   i, n;
    sum_t  **all;

    all = sums_sorted(&t->sums);

    for (i = 0, n = 0; i < t->sums.n; i++) {
        if (all[i]->v[R_COST] || all[i]->ref) {
            all[n++] = all[i];
        }
    }

    *out = all;

    return n;
}


void
report_reply_days(report_t *t, const char *list, const char *name)
{
    buf_t   *b = &t->r->out;
    sum_t  **all;
    size_t   i, end, n;

    n = report_sorted(t, &all);
    t->r->status = 200;
    t->r->content_type = "application/json";
    buf_putc(b, '[');

    for (i = 0; i < n; /* void */) {
        end = report_until(all, n, i);
        buf_printf(b, "%s{\"group_by_day\":\"%s\",\"%s\":[", i ? "," : "",
                   usage_day_text(&t->r->a, report_day(all[i])), list);
        qsort(all + i, end - i, sizeof(sum_t *), report_dearest);

        for (size_t first = i; i < end; i++) {
            buf_printf(b, "%s{\"%s\":", i > first ? "," : "", name);
            report_text(b, "", report_name(all[i]));
            report_usd(b, ",\"total_spend\":", all[i]->v[R_COST]);
            buf_puts(b, ",\"metadata\":[");
            buf_puts(b, all[i]->ref ? ((const buf_t *) all[i]->ref)->p : "");
            buf_puts(b, "]}");
        }

        buf_puts(b, "]}");
    }

    buf_putc(b, ']');
}


static void
report_team_sums(report_t *t, sums_t *teams)
{
    buf_t   *b = &t->r->out;
    sum_t  **all;
    size_t   i;

    buf_puts(b, "],\"teams\":[");
    all = sums_sorted(teams);

    for (i = 0; i < teams->n; i++) {
        report_text(b, i ? "," : "", all[i]->key);
    }

    buf_puts(b, "],\"total_spend_per_team\":[");
    qsort(all, teams->n, sizeof(sum_t *), report_dearest);

    for (i = 0; i < teams->n; i++) {
        report_text(b, i ? ",{\"team_id\":" : "{\"team_id\":", all[i]->key);
        report_usd(b, ",\"total_spend\":", all[i]->v[R_COST]);
        buf_putc(b, '}');
    }

    buf_puts(b, "]}");
}


void
report_reply_teams(report_t *t)
{
    buf_t   *b = &t->r->out;
    sum_t  **all;
    sums_t   teams;
    size_t   i, end, n;

    n = report_sorted(t, &all);
    sums_init(&teams, &t->r->a, 64);
    t->r->status = 200;
    t->r->content_type = "application/json";
    buf_puts(b, "{\"daily_spend\":[");

    for (i = 0; i < n; /* void */) {
        end = report_until(all, n, i);
        buf_printf(b, "%s{\"date\":\"%s\"", i ? "," : "",
                   usage_day_text(&t->r->a, report_day(all[i])));

        for (/* void */; i < end; i++) {
            report_text(b, ",", report_name(all[i]));
            report_usd(b, ":", all[i]->v[R_COST]);
            sums_add(&teams, sums_get(&teams, report_name(all[i])), R_COST,
                     all[i]->v[R_COST]);
        }

        buf_putc(b, '}');
    }

    report_team_sums(t, &teams);
}


static void
report_key_sums(buf_t *b, const int64_t *v)
{
    report_usd(b, ",\"total_cost\":", v[R_COST]);
    buf_printf(b, ",\"total_input_tokens\":%" PRId64 ",\"total_output_tokens\":%" PRId64,
               v[R_IN], v[R_OUT]);
}


void
report_reply_keys(req_t *r, PGresult *res)
{
    int       i, k;
    buf_t    *b;
    sum_t    *s, **all;
    sums_t    keys;
    size_t    n;
    int64_t   v[3];

    sums_init(&keys, &r->a, (size_t) PQntuples(res));

    for (i = 0; i < PQntuples(res); i++) {
        s = sums_get(&keys, PQgetvalue(res, i, 0));
        b = report_detail(&r->a, s);
        report_text(b, "{\"model\":", PQgetvalue(res, i, 1));

        for (k = 0; k < 3; k++) {
            v[k] = db_int(res, i, 2 + k);
            sums_add(&keys, s, k, v[k]);
        }

        report_key_sums(b, v);
        buf_putc(b, '}');
    }

    all = sums_sorted(&keys);
    qsort(all, keys.n, sizeof(sum_t *), report_dearest);
    r->status = 200;
    r->content_type = "application/json";
    buf_putc(&r->out, '[');

    for (n = 0; n < keys.n && n < USAGE_ROWS; n++) {
        report_text(&r->out, n ? ",{\"api_key\":" : "{\"api_key\":", all[n]->key);
        report_key_sums(&r->out, all[n]->v);
        buf_puts(&r->out, ",\"model_details\":[");
        buf_puts(&r->out, ((const buf_t *) all[n]->ref)->p);
        buf_puts(&r->out, "]}");
    }

    if (n < keys.n) {
        usage_truncated(r);
    }

    buf_putc(&r->out, ']');
}
