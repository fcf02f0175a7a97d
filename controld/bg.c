#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "bg.h"
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


#define OUTBOX_POLL_MS   200
#define OUTBOX_BATCH     500
#define OUTBOX_GRACE     "500 milliseconds"   /* the handler pushes by itself  */
#define SWEEP_MAX        "200"
#define RECON_MS         60000


atomic_int  bg_stopping;

static pthread_t  bg_threads[5];
static int        bg_nthreads;


void
bg_sleep_ms(int ms)
{
    struct timespec  ts;

    for (; ms > 0 && !atomic_load(&bg_stopping); ms -= 20) {
        ts.tv_sec = 0;
        ts.tv_nsec = (ms < 20 ? ms : 20) * 1000000L;
        nanosleep(&ts, NULL);
    }
}


/* Delivers one batch of rows in a transaction that holds them. */

static int
outbox_batch(arena_t *a)
{
    int           i, n, registry, rc;
    size_t        k;
    int64_t      *vs;
    PGresult     *res;
    const char  **names;

    if (db_begin() != 0) {
        return -1;
    }

    res = db_q0("DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE"
                " created_at < now() - interval '" OUTBOX_GRACE "' ORDER BY id"
                " LIMIT 500 FOR UPDATE SKIP LOCKED) RETURNING ent, op, version");

    if (!db_ok(res)) {
        db_log("outbox failed", res);
        PQclear(res);
        db_rollback();
        return -1;
    }

    n = PQntuples(res);
    names = arena_alloc(a, (size_t) (n + 1) * sizeof(char *));
    vs = arena_alloc(a, (size_t) (n + 1) * sizeof(int64_t));
    registry = 0;

    for (i = 0, k = 0; i < n; i++) {
        if (strcmp(PQgetvalue(res, i, 1), "registry") == 0) {
            registry = 1;
            continue;
        }

        names[k] = PQgetvalue(res, i, 0);
        vs[k++] = db_int(res, i, 2);
    }

    rc = policy_push(a, names, vs, k);

    if (rc == 0 && registry) {
        rc = registry_push(0);
    }

    PQclear(res);

    if (rc) {
        db_rollback();
        return -1;
    }

    if (db_commit() != 0) {
        return -1;
    }

    METRIC_ADD(outbox_relayed, n);

    return n;
}


void *
outbox_thread(void *arg)
{
    int      n;
    arena_t  a;

    while (!atomic_load(&bg_stopping)) {
        arena_init(&a);
        n = outbox_batch(&a);
        arena_free(&a);

        if (n < OUTBOX_BATCH) {
            bg_sleep_ms(OUTBOX_POLL_MS);
        }
    }

    rds_close();
    db_close();

    return NULL;
}


/* 1 when this daemon is the one; the lock lives as long as the connection. */

static int
bg_single(PGconn **c, int lock)
{
    int          ok;
    PGresult    *r;
    const char  *params[1];

    if (*c && PQstatus(*c) == CONNECTION_OK) {
        r = PQexec(*c, "SELECT 1");
        ok = db_ok(r);
        PQclear(r);

        if (ok) {
            return 1;
        }
    }

    PQfinish(*c);
    *c = db_open();

    if (*c == NULL) {
        return 0;
    }

    params[0] = log_f("%d", lock);
    r = PQexecParams(*c, "SELECT pg_try_advisory_lock($1::bigint)", 1, NULL, params,
                     NULL, NULL, 0);
    ok = db_ok(r) && *PQgetvalue(r, 0, 0) == 't';
    PQclear(r);

    if (!ok) {
        PQfinish(*c);
        *c = NULL;
    }

    return ok;
}


static void
sweep_once(arena_t *a)
{
    int          i;
    int64_t      left;
    rds_cmd_t    c;
    redisReply  *r;

    for (i = 0, left = 1; i < 100 && left > 0; i++) {
        left = 0;
        rds_fcall(&c, a, "kt_sweep");
        rds_arg(&c, SWEEP_MAX);
        r = rds_run(&c);

        if (!rds_is_error(r) && r->type == REDIS_REPLY_ARRAY && r->elements == 2) {
            METRIC_ADD(swept, r->element[0]->integer);
            left = r->element[0]->integer ? r->element[1]->integer : 0;
        }

        if (r) {
            freeReplyObject(r);
        }
    }
}


void *
sweep_thread(void *arg)
{
    int64_t    parts;
    arena_t    a;
    PGconn    *c;

    c = NULL;
    parts = 0;

    while (!atomic_load(&bg_stopping)) {
        if (bg_single(&c, DB_LOCK_SWEEP)) {
            arena_init(&a);
            sweep_once(&a);
            arena_free(&a);

            if (util_now_s() - parts > 3600) {
                parts = util_now_s();
                db_done(db_q0("SELECT kt_ledger_partitions(3)"));
            }
        }

        bg_sleep_ms(1000);
    }

    PQfinish(c);
    rds_close();
    db_close();

    return NULL;
}


/* Nothing in the stream, so Redis and PostgreSQL must agree. */

static int
recon_quiet(arena_t *a)
{
    int          quiet;
    redisReply  *r;

    r = rds_do(a, "XLEN", KT_REDIS_STREAM);
    quiet = !rds_is_error(r) && r->integer == 0;

    if (r) {
        freeReplyObject(r);
    }

    return quiet;
}


static void
recon_once(arena_t *a)
{
    int           i, n, drifted;
    int64_t      *used, d, sum;
    PGresult     *res;
    const char  **names;

    res = db_q0("SELECT name, used FROM kt_policy");
    n = db_ok(res) ? PQntuples(res) : 0;
    names = arena_alloc(a, (size_t) (n + 1) * sizeof(char *));
    used = arena_alloc(a, (size_t) (n + 1) * sizeof(int64_t));
    drifted = 0;
    sum = 0;

    for (i = 0; i < n; i++) {
        names[i] = PQgetvalue(res, i, 0);
    }

    for (i = 0; i < n; i += 500) {
        policy_used(a, names + i, (size_t) (n - i < 500 ? n - i : 500), used + i);
    }

    for (i = 0; i < n; i++) {
        d = used[i] - db_int(res, i, 1);

        if (d && drifted++ < 10) {
            log_event(LOG_WARN, "Redis and PostgreSQL differ", "entity", names[i],
                      "redis_nusd", log_f("%" PRId64, used[i]), "postgres_nusd",
                      PQgetvalue(res, i, 1), NULL);
        }

        sum += d < 0 ? -d : d;
    }

    PQclear(res);

    if (recon_quiet(a)) {
        METRIC_SET(drift_entities, drifted);
        METRIC_SET(drift_nusd, sum);
    }
}


void *
recon_thread(void *arg)
{
    arena_t   a;
    PGconn   *c;

    c = NULL;

    while (!atomic_load(&bg_stopping)) {
        bg_sleep_ms(RECON_MS);

        if (!atomic_load(&bg_stopping) && bg_single(&c, DB_LOCK_RECON)) {
            arena_init(&a);

            if (recon_quiet(&a)) {
                recon_once(&a);
            }

            arena_free(&a);
        }
    }

    PQfinish(c);
    rds_close();
    db_close();

    return NULL;
}


int
bg_start(void)
{
    size_t    i;
    sigset_t  all, old;
    void   *(*fns[])(void *) = { rebuild_thread, outbox_thread, ledger_thread,
                                 sweep_thread, recon_thread };

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);

    for (i = 0; i < sizeof(fns) / sizeof(fns[0]); i++) {
        if (pthread_create(&bg_threads[i], NULL, fns[i], NULL) != 0) {
            return -1;
        }

        bg_nthreads++;
    }

    pthread_sigmask(SIG_SETMASK, &old, NULL);

    return 0;
}


void
bg_stop(void)
{
    int  i;

    atomic_store(&bg_stopping, 1);

    for (i = 0; i < bg_nthreads; i++) {
        pthread_join(bg_threads[i], NULL);
    }
}
