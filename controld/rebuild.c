#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bg.h"
#include "conf.h"
#include "db.h"
#include "kt_schema.h"
#include "ledger.h"
#include "log.h"
#include "metrics.h"
#include "policy.h"
#include "rds.h"
#include "rebuild.h"
#include "registry.h"
#include "util.h"


#define REBUILD_POLL_MS   250
#define REBUILD_DONE_TTL  "7200"          /* as long as journals can replay    */
#define REBUILD_TOMB_TTL  "172800"
#define REBUILD_SADD      1000

/* Rows that the sweeper made and no settlement corrected. */
#define REBUILD_LOST      "(ending = 'lost' AND estimated AND NOT fixed)"


static int
rebuild_done_batch(const char *hour, PGresult *res, int from, int to)
{
    int          ok;
    arena_t      a;
    rds_cmd_t    c;
    const char  *key;

    arena_init(&a);
    key = arena_printf(&a, KT_REDIS_DONE "%s", hour);
    rds_cmd(&c, &a, "SADD");
    rds_arg(&c, key);

    for (; from < to; from++) {
        rds_arg(&c, PQgetvalue(res, from, 1));
    }

    ok = rds_ok(rds_run(&c))
         && rds_ok(rds_do(&a, "EXPIRE", key, REBUILD_DONE_TTL));
    arena_free(&a);

    return ok ? 0 : -1;
}


/* Ids that the journals may replay: Redis must know that they are charged. */

static int
rebuild_done(void)
{
    int        i, from, rc;
    PGresult  *res;

    res = db_q0("SELECT floor(extract(epoch FROM started_at) / 3600)::bigint, rid"
                " FROM ledger WHERE (recorded_at > now() - interval '2 hours'"
                " OR started_at > now() - interval '2 hours' OR fixed)"
                " AND started_at > now() - interval '26 hours'"
                " AND NOT " REBUILD_LOST " ORDER BY 1");

    if (!db_ok(res)) {
        db_log("rebuild failed", res);
        PQclear(res);
        return -1;
    }

    rc = 0;

    for (i = 1, from = 0; i <= PQntuples(res) && rc == 0; i++) {
        if (i == PQntuples(res) || i - from == REBUILD_SADD
            || strcmp(PQgetvalue(res, i, 0), PQgetvalue(res, from, 0)))
        {
            rc = rebuild_done_batch(PQgetvalue(res, from, 0), res, from, i);
            from = i;
        }
    }

    PQclear(res);

    return rc;
}


static int
rebuild_tomb_batch(PGresult *res, int from, int to)
{
    int        i, sent, ok;
    arena_t    a;
    rds_cmd_t  c;

    arena_init(&a);
    ok = 1;

    for (i = from, sent = 0; i < to && ok; i++) {
        rds_cmd(&c, &a, "SET");
        rds_arg(&c, arena_printf(&a, KT_REDIS_HOLD "%s", PQgetvalue(res, i, 0)));
        rds_arg(&c, arena_printf(&a, "T\t%s\t%s", PQgetvalue(res, i, 1),
                                 PQgetvalue(res, i, 2)));
        rds_arg(&c, "EX");
        rds_arg(&c, REBUILD_TOMB_TTL);
        ok = rds_send(&c) == 0;
        sent += ok;
    }

    for (; sent > 0; sent--) {
        ok &= rds_ok(rds_wait());
    }

    arena_free(&a);

    return ok ? 0 : -1;
}


/*
 * Requests that the sweeper charged and nobody corrected: their settlement may
 * still come, then it replaces the charge.  The event is the template that the
 * sweeper had, for a settlement that has none.
 */

static int
rebuild_tombs(void)
{
    int        i, n, rc;
    PGresult  *res;

    res = db_q0("SELECT rid, cost_nusd, json_strip_nulls(json_build_object('id',"
                " rid, 't0', floor(extract(epoch FROM admitted_at) * 1000)::bigint,"
                " 't1', floor(extract(epoch FROM ended_at) * 1000)::bigint,"
                " 'm', model, 'um', upstream_model, 'p', provider, 'rt', route,"
                " 'in', prompt_tokens, 'out', completion_tokens, 'cost',"
                " cost_nusd::text, 'ucr', cost_ucr::text, 'st', http_status, 'end',"
                " ending, 'est', 1, 'stm', stream::int, 'ip', client_ip, 'cust',"
                " customer_id, 'tags', tags, 'node', node))"
                " FROM ledger WHERE " REBUILD_LOST
                " AND started_at > now() - interval '48 hours'");

    if (!db_ok(res)) {
        db_log("rebuild failed", res);
        PQclear(res);
        return -1;
    }

    rc = 0;

    for (i = 0; i < PQntuples(res) && rc == 0; i += n) {
        n = PQntuples(res) - i < REBUILD_SADD ? PQntuples(res) - i : REBUILD_SADD;
        rc = rebuild_tomb_batch(res, i, i + n);
    }

    PQclear(res);

    return rc;
}


/* A Redis that forgot has a new epoch, by which the gates can tell. */

static int
rebuild_epoch(void)
{
    int            i, ok;
    char           text[17];
    arena_t        a;
    unsigned char  rnd[8];

    util_random(rnd, sizeof(rnd));

    for (i = 0; i < 8; i++) {
        snprintf(text + 2 * i, 3, "%02x", rnd[i]);
    }

    arena_init(&a);
    ok = rds_ok(rds_do(&a, "SET", KT_REDIS_EPOCH, text));
    arena_free(&a);

    return ok ? 0 : -1;
}


static int
rebuild_locked(arena_t *a)
{
    int      n;
    int64_t  pushed, t0;

    t0 = util_mono_us();

    if (rds_load_library(conf.functions_file) != 0) {
        return -1;
    }

    /* what the stream still holds belongs to the sums first */

    do {
        n = ledger_step(1, 1);
    } while (n > 0);

    pushed = n < 0 ? -1 : policy_push_all();

    if (pushed < 0 || policy_used_all() != 0 || rebuild_done() != 0
        || rebuild_tombs() != 0 || rebuild_epoch() != 0 || registry_push(1) != 0)
    {
        log_event(LOG_ERROR, "rebuild failed, trying again", NULL);
        return -1;
    }

    METRIC_ADD(rebuilds, 1);
    METRIC_SET(rebuild_ms, (util_mono_us() - t0) / 1000);
    log_event(LOG_INFO, "Redis rebuilt", "entities", log_f("%" PRId64, pushed),
              "ms", log_f("%" PRId64, (util_mono_us() - t0) / 1000), NULL);

    return 0;
}


static int
rebuild_lock(PGconn *c)
{
    int          ok;
    PGresult    *r;
    const char  *params[1];

    params[0] = log_f("%d", DB_LOCK_REBUILD);
    r = PQexecParams(c, "SELECT pg_advisory_lock($1::bigint)", 1, NULL, params,
                     NULL, NULL, 0);
    ok = db_ok(r);
    PQclear(r);

    return ok;
}


int
rebuild_run(int force)
{
    int      rc;
    arena_t  a;
    PGconn  *c;

    c = db_open();

    if (c == NULL || !rebuild_lock(c)) {
        PQfinish(c);
        return -1;
    }

    arena_init(&a);
    rc = 0;

    if (force) {
        rc = rds_ok(rds_do(&a, "DEL", KT_REDIS_GEN)) ? 0 : -1;
    }

    /* another daemon may have done it while we waited for the lock */

    if (rc == 0 && rds_gen(&a) != 1) {
        rc = rebuild_locked(&a);
    }

    arena_free(&a);
    PQfinish(c);                                   /* releases the lock        */

    return rc;
}


/*
 * The settings and views that policies are compiled with.  When they are not those
 * of the last full push, everything is pushed again; versions stay as they are.
 */

#define REBUILD_DIGEST                                                        \
    "SELECT to_jsonb(concat_ws('|', current_setting('keytoll.strict_default'),"  \
    " current_setting('keytoll.tpm_type'), (SELECT string_agg(checksum, ',' ORDER"  \
    " BY name) FROM schema_migrations))) AS d"

static int
rebuild_current(void)
{
    int        same;
    PGresult  *r;

    r = db_q0("SELECT 1 FROM settings, (" REBUILD_DIGEST ") x"
              " WHERE name = 'policy_digest' AND value = d");
    same = db_ok(r) ? PQntuples(r) : -1;
    PQclear(r);

    return same;
}


static int
rebuild_refresh(void)
{
    if (rds_load_library(conf.functions_file) != 0) {
        return -1;
    }

    switch (rebuild_current()) {

    case 1:
        break;

    case 0:
        if (policy_push_all() < 0
            || !db_done(db_q0("INSERT INTO settings (name, value) SELECT"
                              " 'policy_digest', d FROM (" REBUILD_DIGEST ") x"
                              " ON CONFLICT (name) DO UPDATE SET value ="
                              " EXCLUDED.value, updated_at = now()")))
        {
            return -1;
        }
        break;

    default:
        return -1;
    }

    return registry_push(0);
}


void *
rebuild_thread(void *arg)
{
    int      first;
    arena_t  a;

    first = 1;

    while (!atomic_load(&bg_stopping)) {
        arena_init(&a);

        switch (rds_gen(&a)) {

        case 0:
            rebuild_run(0);
            break;

        case 1:
            if (first && rebuild_refresh() == 0) {
                first = 0;
            }
            break;

        default:
            break;
        }

        arena_free(&a);
        bg_sleep_ms(REBUILD_POLL_MS);
    }

    rds_close();
    db_close();

    return NULL;
}
