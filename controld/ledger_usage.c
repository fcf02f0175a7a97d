#include <inttypes.h>
#include <string.h>
#include "db.h"
#include "kt_key.h"
#include "ledger_usage.h"
#include "sums.h"


#define DAY_S      86400
#define DIM_TEXTS  10
#define DIM_ID     37                    /* a uuid with its NUL                */


enum { U_REQ, U_FAIL, U_IN, U_OUT, U_CR, U_CW, U_NUSD, U_UCR, U_PARTS };
enum { T_KIND, T_NAME, T_TOKEN, T_USER, T_TEAM, T_ORG, T_MODEL, T_UPSTREAM, T_PROVIDER,
       T_ROUTE };

typedef struct {
    char         kind;                   /* of the sum                         */
    const char  *text[DIM_TEXTS];        /* of the dimension                   */
    char         id[DIM_ID];
} dim_t;

struct usage_s {
    arena_t     *arena;
    sums_t       sums;
    buf_t        key;
};


usage_t *
usage_new(arena_t *a, size_t events)
{
    usage_t  *u;

    u = arena_alloc(a, sizeof(usage_t));
    u->arena = a;
    sums_init(&u->sums, a, events * 5 + 16);
    buf_init(&u->key, a);

    return u;
}


/* The first day of the month of a day, both counted from 1970. */

static int64_t
usage_month(int64_t day)
{
    int64_t  z, doe, yoe, doy;

    z = day + 719468;
    doe = z % 146097;
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100);

    return day - (doy - (153 * ((5 * doy + 2) / 153) + 2) / 5);
}


/* The twin of kt_usage_dim() in sql/020_usage.sql. */

static void
usage_dim(dim_t *d, const char *text, size_t len)
{
    int   i, k;
    char  hash[65];

    kt_key_token(text, len, hash);

    for (i = 0, k = 0; i < 32; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20) {
            d->id[k++] = '-';
        }

        d->id[k++] = hash[i];
    }

    d->id[k] = '\0';
}


static sum_t *
usage_get(usage_t *u, char kind, const char *const *text, int64_t day)
{
    int     i;
    dim_t  *d;
    sum_t  *s;
    size_t  at, end;

    u->key.len = 0;
    buf_putc(&u->key, kind);
    at = u->key.len;

    for (i = 0; i < DIM_TEXTS; i++) {
        buf_puts(&u->key, i ? "\x1f" : "");
        buf_puts(&u->key, text[i]);
    }

    end = u->key.len;
    buf_printf(&u->key, "\x01%" PRId64, day);
    s = sums_get(&u->sums, u->key.p);

    if (s->ref == NULL) {
        d = arena_alloc(u->arena, sizeof(dim_t));
        d->kind = kind;
        memcpy(d->text, text, sizeof(d->text));
        usage_dim(d, s->key + at, end - at);
        s->ref = d;
        s->a = day;
    }

    return s;
}


static void
usage_count(usage_t *u, sum_t *s, const event_t *e, const event_t *old)
{
    sums_t               *t = &u->sums;
    static const event_t  none;

    s->v[U_REQ] += old == NULL;
    s->v[U_FAIL] += (e->status >= 400) - (old && old->status >= 400);
    old = old ? old : &none;
    sums_add(t, s, U_IN, e->in_tok - old->in_tok);
    sums_add(t, s, U_OUT, e->out_tok - old->out_tok);
    sums_add(t, s, U_CR, e->cr_tok - old->cr_tok);
    sums_add(t, s, U_CW, e->cw_tok - old->cw_tok);
    sums_add(t, s, U_NUSD, e->cost_nusd - old->cost_nusd);
    sums_add(t, s, U_UCR, e->cost_ucr - old->cost_ucr);
}


/* Without the key: of everything, a team, an organization or a tag. */

static sum_t *
usage_coarse(usage_t *u, const char *kind, const char *name,
    const char *const *text, int64_t day)
{
    const char  *coarse[DIM_TEXTS] = { kind, name, "", "", "", "", text[T_MODEL],
                                       text[T_UPSTREAM], text[T_PROVIDER],
                                       text[T_ROUTE] };

    return usage_get(u, *kind, coarse, day);
}


static int
usage_seen(char *const *tags, size_t n, const char *tag)
{
    size_t  i;

    for (i = 0; i < n && strcmp(tags[i], tag); i++) { /* void */ }

    return i < n;
}


static void
usage_tags(usage_t *u, const char **text, const event_t *e, const event_t *old,
    const char *tags, int64_t day)
{
    char    *p, *next, **seen;
    size_t   n;

    for (n = 1, p = strchr(tags, '\x1f'); p; p = strchr(p + 1, '\x1f')) {
        n++;
    }

    seen = arena_alloc(u->arena, n * sizeof(char *));
    n = 0;

    for (p = arena_str(u->arena, tags); p && *tags; p = next) {
        next = strchr(p, '\x1f');

        if (next) {
            *next++ = '\0';
        }

        if (!*p || usage_seen(seen, n, p)) {
            continue;
        }

        seen[n++] = p;
        text[T_KIND] = "l";
        text[T_NAME] = p;
        usage_count(u, usage_get(u, 'l', text, day), e, old);
        usage_count(u, usage_coarse(u, "n", p, text, day), e, old);
    }
}


void
usage_add(usage_t *u, const event_t *e, const event_t *old)
{
    int64_t         day;
    const event_t  *who = old ? old : e;
    const char     *text[DIM_TEXTS] = {
        "k", "", who->token, who->user, who->team, who->org, who->model, who->upstream,
        who->provider, who->route
    };

    for (int i = T_TOKEN; i <= T_ORG; i++) {
        text[i] = text[i] ? text[i] : "";
    }

    day = e->rid_ms / 1000 / DAY_S;
    usage_count(u, usage_get(u, 'k', text, day), e, old);
    usage_count(u, usage_get(u, 'm', text, usage_month(day)), e, old);
    usage_count(u, usage_coarse(u, "g", "", text, day), e, old);

    if (*text[T_TEAM]) {
        usage_count(u, usage_coarse(u, "t", text[T_TEAM], text, day), e, old);
    }

    if (*text[T_ORG]) {
        usage_count(u, usage_coarse(u, "o", text[T_ORG], text, day), e, old);
    }

    if (who->customer && *who->customer) {
        text[T_KIND] = "c";
        text[T_NAME] = who->customer;
        usage_count(u, usage_get(u, 'c', text, day), e, old);
    }

    usage_tags(u, text, e, old, who->tags ? who->tags : "", day);
}


/* ------------------------------------------------------------------ writing */


/* Into the partition itself: only there PostgreSQL tells which rows are new. */

#define USAGE_UPSERT(table)                                                   \
    "WITH up AS (INSERT INTO " table " AS s (dim, kind, day, requests, failed,"\
    " prompt_tokens, completion_tokens, cache_read_tokens, cache_write_tokens,"\
    " cost_nusd, cost_ucr, parts) SELECT d, k::\"char\","                     \
    " date '1970-01-01' + t::int, v1, v2, v3, v4, v5, v6, v7, v8, v9 FROM"    \
    " unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[],"             \
    " $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],"  \
    " $10::bigint[], $11::bigint[], $12::bigint[])"                           \
    " AS x(d, k, t, v1, v2, v3, v4, v5, v6, v7, v8, v9)"                      \
    " ON CONFLICT (dim, kind, day) DO UPDATE SET"                             \
    " requests = s.requests + EXCLUDED.requests,"                             \
    " failed = s.failed + EXCLUDED.failed,"                                   \
    " prompt_tokens = s.prompt_tokens + EXCLUDED.prompt_tokens,"              \
    " completion_tokens = s.completion_tokens + EXCLUDED.completion_tokens,"  \
    " cache_read_tokens = s.cache_read_tokens + EXCLUDED.cache_read_tokens,"  \
    " cache_write_tokens = s.cache_write_tokens + EXCLUDED.cache_write_tokens,"\
    " cost_nusd = s.cost_nusd + EXCLUDED.cost_nusd,"                          \
    " cost_ucr = s.cost_ucr + EXCLUDED.cost_ucr,"                             \
    " parts = s.parts + EXCLUDED.parts"                                       \
    " RETURNING dim, kind, day - date '1970-01-01' AS t, xmax = 0 AS fresh)"  \
    " SELECT dim, kind, t FROM up WHERE fresh"

typedef struct {
    const char  *kinds;
    const char  *sql;
} part_t;

/* Those without the key come last: new rows of the others are their parts. */

static const part_t  usage_parts[] = {
    { "k", USAGE_UPSERT("usage_sums_key") },
    { "m", USAGE_UPSERT("usage_sums_month") },
    { "cl", USAGE_UPSERT("usage_sums_name") },
    { "gton", USAGE_UPSERT("usage_sums_total") }
};

#define USAGE_NPARTS  (sizeof(usage_parts) / sizeof(usage_parts[0]))


static const char *
usage_index_key(buf_t *b, const char *id, char kind, int64_t day)
{
    b->len = 0;
    buf_puts(b, id);
    buf_putc(b, kind);
    buf_printf(b, "%" PRId64, day);

    return b->p;
}


/* Marks the sums whose row was not there before: fresh[i] for s[i]. */

static void
usage_fresh(arena_t *a, PGresult *res, sum_t **s, size_t n, char *fresh)
{
    int           i;
    buf_t         b;
    size_t        k;
    sums_t        index;
    const dim_t  *d;

    sums_init(&index, a, n);
    buf_init(&b, a);

    for (k = 0; k < n && PQntuples(res); k++) {
        d = s[k]->ref;
        sums_get(&index, usage_index_key(&b, d->id, d->kind, s[k]->a))->a = (int64_t) k;
    }

    for (i = 0; i < PQntuples(res); i++) {
        fresh[sums_get(&index, usage_index_key(&b, PQgetvalue(res, i, 0),
                       *PQgetvalue(res, i, 1), db_int(res, i, 2)))->a] = 1;
    }
}


static int
usage_write(arena_t *a, const char *sql, sum_t **s, size_t n, char *fresh)
{
    int           rc, v;
    size_t        i;
    int64_t      *num[SUM_VALUES + 1];
    PGresult     *res;
    const char  **text[2];
    const char   *params[SUM_VALUES + 3];

    if (n == 0) {
        return 0;
    }

    for (v = 0; v < 2; v++) {
        text[v] = arena_alloc(a, n * sizeof(char *));
    }

    for (v = 0; v <= SUM_VALUES; v++) {
        num[v] = arena_alloc(a, n * sizeof(int64_t));
    }

    for (i = 0; i < n; i++) {
        text[0][i] = ((const dim_t *) s[i]->ref)->id;
        text[1][i] = arena_dup(a, &((const dim_t *) s[i]->ref)->kind, 1);
        num[0][i] = s[i]->a;

        for (v = 0; v < SUM_VALUES; v++) {
            num[v + 1][i] = s[i]->v[v];
        }
    }

    params[0] = db_array(a, text[0], n);
    params[1] = db_array(a, text[1], n);

    for (v = 0; v <= SUM_VALUES; v++) {
        params[v + 2] = db_array_ints(a, num[v], n);
    }

    res = db_query(sql, SUM_VALUES + 3, params);
    rc = ledger_result(res, 1);

    if (rc == 0) {
        usage_fresh(a, res, s, n, fresh);
        PQclear(res);
    }

    return rc;
}


/* The dimensions of rows that were not there before, most of them known already. */

static int
usage_write_dims(arena_t *a, sum_t **s, size_t n, const char *fresh)
{
    int           t;
    size_t        i, k;
    PGresult     *res;
    const dim_t  *d;
    const char  **text[DIM_TEXTS + 1];
    const char   *params[DIM_TEXTS + 1];

    for (t = 0; t <= DIM_TEXTS; t++) {
        text[t] = arena_alloc(a, (n + 1) * sizeof(char *));
    }

    for (i = 0, k = 0; i < n; i++) {
        d = s[i]->ref;

        if (fresh[i] && d->kind != 'm') {
            text[DIM_TEXTS][k] = d->id;

            for (t = 0; t < DIM_TEXTS; t++) {
                text[t][k] = d->text[t];
            }

            k++;
        }
    }

    if (k == 0) {
        return 0;
    }

    for (t = 0; t <= DIM_TEXTS; t++) {
        params[t] = db_array(a, text[t], k);
    }

    res = db_q("INSERT INTO usage_dims (kind, name, token, user_id, team_id,"
        " organization_id, model, upstream_model, provider, route, dim) SELECT"
        " k::\"char\", n, t, u, e, o, m, p, r, w, d FROM unnest($1::text[], $2::text[],"
        " $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],"
        " $9::text[], $10::text[], $11::uuid[]) AS x(k, n, t, u, e, o, m, p, r, w, d)"
        " ON CONFLICT DO NOTHING", params[0], params[1], params[2], params[3],
        params[4], params[5], params[6], params[7], params[8], params[9], params[10]);

    return ledger_result(res, 0);
}


/* A new row by key is one more part of those without it. */

static void
usage_part(usage_t *u, const sum_t *s)
{
    const dim_t  *d = s->ref;

    if (d->kind == 'l') {
        usage_coarse(u, "n", d->text[T_NAME], d->text, s->a)->v[U_PARTS]++;
    }

    if (d->kind != 'k') {
        return;
    }

    usage_coarse(u, "g", "", d->text, s->a)->v[U_PARTS]++;

    if (*d->text[T_TEAM]) {
        usage_coarse(u, "t", d->text[T_TEAM], d->text, s->a)->v[U_PARTS]++;
    }

    if (*d->text[T_ORG]) {
        usage_coarse(u, "o", d->text[T_ORG], d->text, s->a)->v[U_PARTS]++;
    }
}


int
usage_store(arena_t *a, usage_t *u)
{
    int           rc;
    char         *fresh;
    size_t        i, k, n, done;
    sum_t       **all, **list;
    const dim_t  *d;

    if (u->sums.over) {
        return -2;
    }

    n = u->sums.n;
    all = sums_sorted(&u->sums);
    list = arena_alloc(a, (n + 1) * sizeof(sum_t *));
    fresh = arena_alloc(a, n + 1);

    for (k = 0, done = 0; k < USAGE_NPARTS; k++) {
        size_t  first = done;

        for (i = 0; i < n; i++) {
            d = all[i]->ref;

            if (strchr(usage_parts[k].kinds, d->kind)) {
                list[done++] = all[i];
            }
        }

        rc = usage_write(a, usage_parts[k].sql, list + first, done - first,
                         fresh + first);

        if (rc) {
            return rc;
        }

        for (i = first; i < done; i++) {
            if (fresh[i]) {
                usage_part(u, list[i]);
            }
        }
    }

    return usage_write_dims(a, list, n, fresh);
}
