#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "db.h"
#include "ledger.h"
#include "ledger_usage.h"
#include "metrics.h"
#include "sums.h"


#define BIT_UCR    8
#define BIT_MONEY  16

enum { M_NUSD, M_UCR, M_REQ, M_TOK };


int
ledger_result(void *pgresult, int rows)
{
    int          bad;
    PGresult    *res = pgresult;
    const char  *state;

    if (db_ok(res)) {
        if (!rows) {
            PQclear(res);
        }

        return 0;
    }

    state = db_state(res);
    bad = strncmp(state, "22", 2) == 0 || strncmp(state, "23", 2) == 0
          || strncmp(state, "54", 2) == 0;
    db_log("the ledger was refused", res);
    PQclear(res);

    return bad ? -2 : -1;
}


static int
store_meters(arena_t *a, sums_t *t)
{
    size_t        i;
    sum_t       **s;
    int64_t      *n[5];
    const char  **ents;
    PGresult     *res;

    if (t->n == 0 || t->over) {
        return t->over ? -2 : 0;
    }

    s = sums_sorted(t);
    ents = arena_alloc(a, t->n * sizeof(char *));

    for (i = 0; i < 5; i++) {
        n[i] = arena_alloc(a, t->n * sizeof(int64_t));
    }

    for (i = 0; i < t->n; i++) {
        ents[i] = s[i]->ref;
        n[0][i] = s[i]->a;
        n[1][i] = s[i]->v[M_NUSD];
        n[2][i] = s[i]->v[M_UCR];
        n[3][i] = s[i]->v[M_REQ];
        n[4][i] = s[i]->v[M_TOK];
    }

    res = db_q("INSERT INTO meters (ent, period_id, used_nusd, used_ucr, requests,"
        " tokens) SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[],"
        " $4::bigint[], $5::bigint[], $6::bigint[])"
        " ON CONFLICT (ent, period_id) DO UPDATE SET"
        " used_nusd = meters.used_nusd + EXCLUDED.used_nusd,"
        " used_ucr = meters.used_ucr + EXCLUDED.used_ucr,"
        " requests = meters.requests + EXCLUDED.requests,"
        " tokens = meters.tokens + EXCLUDED.tokens",
        db_array(a, ents, t->n), db_array_ints(a, n[0], t->n),
        db_array_ints(a, n[1], t->n), db_array_ints(a, n[2], t->n),
        db_array_ints(a, n[3], t->n), db_array_ints(a, n[4], t->n));

    return ledger_result(res, 0);
}


static const char *
store_sum_key(buf_t *b, const char *ent, int64_t n)
{
    b->len = 0;
    buf_puts(b, ent);
    buf_printf(b, "\x01%020" PRId64, n);

    return b->p;
}


/* Adds one row (old NULL) or the change from an estimate to both sums. */

static void
store_add(sums_t *meters, usage_t *usage, const event_t *e, const event_t *old)
{
    size_t           i;
    buf_t            b;
    sum_t           *s;
    const charge_t  *c;

    buf_init(&b, meters->arena);

    if (e->code != EV_ADJ) {
        usage_add(usage, e, old);
    }

    for (i = 0; i < e->ncharges; i++) {
        c = &e->charges[i];

        if (c->bits & BIT_MONEY) {
            s = sums_get(meters, store_sum_key(&b, c->ent, c->period_id));
            s->ref = c->ent;
            s->a = c->period_id;

            if (c->bits & BIT_UCR) {
                sums_add(meters, s, M_UCR, e->cost_ucr - (old ? old->cost_ucr : 0));
            } else {
                sums_add(meters, s, M_NUSD, e->cost_nusd - (old ? old->cost_nusd : 0));
            }

            sums_add(meters, s, M_REQ, old == NULL && e->code != EV_ADJ);
            sums_add(meters, s, M_TOK, e->in_tok + e->out_tok
                                       - (old ? old->in_tok + old->out_tok : 0));
        }
    }
}


#define STORE_TEXTS  16
#define STORE_INTS   17

static const char  store_insert[] =
    "INSERT INTO ledger (rid, token, user_id, team_id, organization_id, customer_id,"
    " tags, model, upstream_model, provider, route, answer_id, ending, client_ip,"
    " node, reason, started_at, admitted_at, ended_at, first_token_at,"
    " prompt_tokens, completion_tokens, cache_read_tokens, cache_write_tokens,"
    " reasoning_tokens, cost_nusd, cost_ucr, http_status, estimated, stream, late,"
    " fixed, kind)"
    " SELECT t1, t2, t3, t4, t5, t6, string_to_array(t7, E'\\x1f'), t8, t9, t10, t11,"
    " t12, t13, t14, t15, t16, to_timestamp(n1 / 1000.0), to_timestamp(n2 / 1000.0),"
    " to_timestamp(n3 / 1000.0), CASE WHEN n4 >= 0 THEN to_timestamp((n2 + n4) / 1000.0)"
    " END, n5, n6, n7, n8, n9, n10, n11, n12::int, n13 = 1, n14 = 1, n15 = 1, n16 = 1,"
    " CASE n17 WHEN 1 THEN 'adjustment' ELSE 'request' END"
    " FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],"
    " $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[],"
    " $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::bigint[],"
    " $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[], $22::bigint[],"
    " $23::bigint[], $24::bigint[], $25::bigint[], $26::bigint[], $27::bigint[],"
    " $28::bigint[], $29::bigint[], $30::bigint[], $31::bigint[], $32::bigint[],"
    " $33::bigint[]) AS x(t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, t11, t12, t13, t14,"
    " t15, t16, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11, n12, n13, n14, n15, n16,"
    " n17) ON CONFLICT (rid, started_at) DO NOTHING RETURNING rid";


static void
store_row(const event_t *e, size_t i, const char **t[STORE_TEXTS],
    int64_t *n[STORE_INTS])
{
    size_t         k;
    const char    *text[STORE_TEXTS] = {
        e->rid, e->token, e->user, e->team, e->org, e->customer, e->tags, e->model,
        e->upstream, e->provider, e->route, e->answer_id, e->ending, e->ip,
        e->node, e->why
    };
    const int64_t  ints[STORE_INTS] = {
        e->rid_ms, e->admit_ms, e->t1_ms, e->ttft_ms, e->in_tok, e->out_tok,
        e->cr_tok, e->cw_tok, e->rs_tok, e->cost_nusd, e->cost_ucr, e->status,
        e->estimated, e->stream, e->code == EV_LATE, e->fixed, e->code == EV_ADJ
    };

    for (k = 0; k < STORE_TEXTS; k++) {
        t[k][i] = text[k];
    }

    for (k = 0; k < STORE_INTS; k++) {
        n[k][i] = ints[k];
    }
}


/* Inserts the rows; fresh[i] tells which of them were not there yet. */

static int
store_rows(arena_t *a, event_t **ev, size_t n, char *fresh)
{
    int           i, rc;
    size_t        k;
    sum_t        *s;
    sums_t        index;
    int64_t      *ints[STORE_INTS];
    PGresult     *res;
    const char  **text[STORE_TEXTS];
    const char   *params[STORE_TEXTS + STORE_INTS];

    for (k = 0; k < STORE_TEXTS; k++) {
        text[k] = arena_alloc(a, n * sizeof(char *));
    }

    for (k = 0; k < STORE_INTS; k++) {
        ints[k] = arena_alloc(a, n * sizeof(int64_t));
    }

    sums_init(&index, a, n);

    for (k = 0; k < n; k++) {
        store_row(ev[k], k, text, ints);
        sums_get(&index, ev[k]->rid)->a = (int64_t) k;
    }

    for (k = 0; k < STORE_TEXTS; k++) {
        params[k] = db_array(a, text[k], n);
    }

    for (k = 0; k < STORE_INTS; k++) {
        params[STORE_TEXTS + k] = db_array_ints(a, ints[k], n);
    }

    res = db_query(store_insert, STORE_TEXTS + STORE_INTS, params);
    rc = ledger_result(res, 1);

    if (rc) {
        return rc;
    }

    for (i = 0; i < PQntuples(res); i++) {
        s = sums_get(&index, PQgetvalue(res, i, 0));
        fresh[s->a] = 1;
    }

    METRIC_ADD(ledger_rows, PQntuples(res));
    METRIC_ADD(ledger_duplicates, n - (size_t) PQntuples(res));
    PQclear(res);

    return 0;
}


static const char *
store_text(arena_t *a, PGresult *res, int col)
{
    return arena_str(a, db_str(res, 0, col));
}


/* Replaces an estimate; 1 when it was there, *old is what it said. */

static int
store_fix(arena_t *a, const event_t *e, event_t *old)
{
    int        rc;
    PGresult  *res;

    memset(old, 0, sizeof(*old));
    res = db_q("WITH old AS (SELECT * FROM ledger WHERE rid = $1 AND started_at ="
        " to_timestamp($2::bigint / 1000.0) AND estimated AND NOT fixed FOR UPDATE)"
        " UPDATE ledger l SET prompt_tokens = $3, completion_tokens = $4,"
        " cache_read_tokens = $5, cache_write_tokens = $6, reasoning_tokens = $7,"
        " cost_nusd = $8, cost_ucr = $9, http_status = $10, answer_id = $11,"
        " ending = $12, estimated = $13::bigint = 1, fixed = true, ended_at ="
        " to_timestamp($14::bigint / 1000.0), stream = $15::bigint = 1 FROM old WHERE"
        " l.rid = old.rid AND l.started_at = old.started_at RETURNING"
        " old.prompt_tokens, old.completion_tokens, old.cache_read_tokens,"
        " old.cache_write_tokens, old.cost_nusd, old.cost_ucr, old.http_status,"
        " old.token, old.user_id, old.team_id, old.organization_id, old.customer_id,"
        " array_to_string(old.tags, E'\\x1f'), old.model, old.upstream_model,"
        " old.provider, old.route",
        e->rid, arena_printf(a, "%" PRId64, e->rid_ms),
        arena_printf(a, "%" PRId64, e->in_tok),
        arena_printf(a, "%" PRId64, e->out_tok),
        arena_printf(a, "%" PRId64, e->cr_tok),
        arena_printf(a, "%" PRId64, e->cw_tok),
        arena_printf(a, "%" PRId64, e->rs_tok),
        arena_printf(a, "%" PRId64, e->cost_nusd),
        arena_printf(a, "%" PRId64, e->cost_ucr),
        arena_printf(a, "%" PRId64, e->status), e->answer_id, e->ending,
        e->estimated ? "1" : "0", arena_printf(a, "%" PRId64, e->t1_ms),
        e->stream ? "1" : "0");
    rc = ledger_result(res, 1);

    if (rc) {
        return rc;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        return 0;
    }

    old->in_tok = db_int(res, 0, 0);
    old->out_tok = db_int(res, 0, 1);
    old->cr_tok = db_int(res, 0, 2);
    old->cw_tok = db_int(res, 0, 3);
    old->cost_nusd = db_int(res, 0, 4);
    old->cost_ucr = db_int(res, 0, 5);
    old->status = db_int(res, 0, 6);
    old->token = store_text(a, res, 7);
    old->user = store_text(a, res, 8);
    old->team = store_text(a, res, 9);
    old->org = store_text(a, res, 10);
    old->customer = store_text(a, res, 11);
    old->tags = store_text(a, res, 12);
    old->model = store_text(a, res, 13);
    old->upstream = store_text(a, res, 14);
    old->provider = store_text(a, res, 15);
    old->route = store_text(a, res, 16);
    PQclear(res);
    METRIC_ADD(ledger_fixes, 1);

    return 1;
}


/*
 * A fix whose estimate is not there is a row of its own; the estimate, should it
 * still come, is then the duplicate.
 */

static int
store_fixes(arena_t *a, event_t **ev, size_t n, sums_t *meters, usage_t *usage)
{
    int      rc;
    char     fresh;
    size_t   i;
    event_t  old;

    for (i = 0; i < n; i++) {
        rc = store_fix(a, ev[i], &old);

        if (rc < 0) {
            return rc;
        }

        if (rc == 1) {
            store_add(meters, usage, ev[i], &old);
            continue;
        }

        fresh = 0;
        ev[i]->fixed = 1;
        rc = store_rows(a, &ev[i], 1, &fresh);

        if (rc < 0) {
            return rc;
        }

        if (fresh) {
            store_add(meters, usage, ev[i], NULL);
        }
    }

    return 0;
}


int
ledger_store(arena_t *a, event_t **events, size_t n)
{
    int        rc;
    char      *fresh;
    size_t     i, rows, fixes, dup;
    sum_t     *s;
    sums_t     meters, seen;
    usage_t   *usage;
    event_t  **row, **fix;

    row = arena_alloc(a, (n + 1) * sizeof(event_t *));
    fix = arena_alloc(a, (n + 1) * sizeof(event_t *));
    fresh = arena_alloc(a, n + 1);

    for (i = 0, rows = n; i < n; i++) {
        rows += events[i]->ncharges;
    }

    sums_init(&meters, a, rows);
    usage = usage_new(a, n);
    sums_init(&seen, a, n);
    rows = fixes = dup = 0;

    for (i = 0; i < n; i++) {
        if (events[i]->code == EV_FIX) {
            fix[fixes++] = events[i];
            continue;
        }

        s = sums_get(&seen, events[i]->rid);

        if (s->a) {
            dup++;
            continue;
        }

        s->a = 1;
        row[rows++] = events[i];
    }

    METRIC_ADD(ledger_duplicates, dup);

    if (rows && (rc = store_rows(a, row, rows, fresh)) != 0) {
        return rc;
    }

    for (i = 0; i < rows; i++) {
        if (fresh[i]) {
            store_add(&meters, usage, row[i], NULL);
        }
    }

    rc = store_fixes(a, fix, fixes, &meters, usage);

    if (rc == 0) {
        rc = store_meters(a, &meters);
    }

    return rc ? rc : usage_store(a, usage);
}


int
ledger_reject(const event_t *e, const char *why)
{
    int          i;
    PGresult    *res;
    const char  *params[6];
    int          lens[6], formats[6];
    char         pos[16];

    snprintf(pos, sizeof(pos), "%d", e->position);
    memset(lens, 0, sizeof(lens));
    memset(formats, 0, sizeof(formats));
    params[0] = e->entry_id;
    params[1] = pos;
    params[5] = why;

    for (i = 0; i < 3; i++) {
        params[2 + i] = e->raw[i];
        lens[2 + i] = (int) e->rawlen[i];
        formats[2 + i] = 1;
    }

    if (db_conn() == NULL) {
        return -1;
    }

    res = PQexecParams(db_conn(), "INSERT INTO ledger_rejects (entry_id, position,"
        " event, receipt, code, reason) VALUES ($1, $2::int, $3::bytea, $4::bytea,"
        " $5::bytea, $6) ON CONFLICT DO NOTHING", 6, NULL, params, lens, formats, 0);
    METRIC_ADD(ledger_rejects, 1);

    return db_done(res) ? 0 : -1;
}
