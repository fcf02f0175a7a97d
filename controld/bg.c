#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "bg.h"
#include "db.h"
#include "kt_key.h"
#include "kt_schema.h"
#include "ledger.h"
#include "log.h"
#include "metrics.h"
#include "policy.h"
#include "rds.h"
#include "rebuild.h"
#include "recon.h"
#include "registry.h"
#include "util.h"


#define OUTBOX_POLL_MS   200
#define OUTBOX_BATCH     500
#define OUTBOX_LOOK_MS   1000
#define OUTBOX_GRACE     "500 milliseconds"   /* the handler pushes by itself  */
#define SWEEP_MAX        "200"
#define ALERTS_MS        5000


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


/* Pushes the policies of a batch; why[i] is set of the rows that Redis refused. */

static int
outbox_policies(arena_t *a, PGresult *res, const char **why)
{
    int           i, n, rc;
    size_t        k;
    int64_t      *vs;
    const char  **names;

    n = PQntuples(res);
    names = arena_alloc(a, (size_t) (n + 1) * sizeof(char *));
    vs = arena_alloc(a, (size_t) (n + 1) * sizeof(int64_t));

    for (i = 0, k = 0; i < n; i++) {
        if (strcmp(PQgetvalue(res, i, 1), "registry")) {
            names[k] = PQgetvalue(res, i, 0);
            vs[k++] = db_int(res, i, 2);
        }
    }

    rc = policy_push(a, names, vs, k);

    if (rc != -2) {
        return rc;
    }

    /* one of them is bad: the others must not wait for it */

    for (i = 0, k = 0; i < n; i++) {
        if (strcmp(PQgetvalue(res, i, 1), "registry") == 0) {
            continue;
        }

        rc = policy_push(a, &names[k], &vs[k], 1);
        k++;

        if (rc == -1) {
            return -1;
        }

        if (rc == -2) {
            why[i] = arena_str(a, policy_error());
            log_event(LOG_ERROR, "Redis refuses an entity", "entity",
                      PQgetvalue(res, i, 0), "error", why[i], NULL);
        }
    }

    return 0;
}


/* Deletes the rows that were delivered and marks those that were refused. */

static int
outbox_settle(arena_t *a, PGresult *res, const char *const *why, int registry)
{
    int           i, done;
    size_t        ngood, nbad;
    const char  **good, **bad, **errors;

    good = arena_alloc(a, (OUTBOX_BATCH + 1) * sizeof(char *));
    bad = arena_alloc(a, (OUTBOX_BATCH + 1) * sizeof(char *));
    errors = arena_alloc(a, (OUTBOX_BATCH + 1) * sizeof(char *));
    ngood = nbad = 0;

    for (i = 0; i < PQntuples(res); i++) {
        if (why[i]) {
            errors[nbad] = why[i];
            bad[nbad++] = PQgetvalue(res, i, 3);

        } else if (registry || strcmp(PQgetvalue(res, i, 1), "registry")) {
            good[ngood++] = PQgetvalue(res, i, 3);
        }
    }

    done = db_done(db_q("DELETE FROM outbox WHERE id = ANY ($1::bigint[])",
                        db_array(a, good, ngood)));

    if (done && nbad) {
        done = db_done(db_q("UPDATE outbox SET attempts = attempts + 1, last_error ="
            " x.e, retry_at = now() + least(60, 2 ^ least(attempts, 6))"
            " * interval '1 second' FROM unnest($1::bigint[], $2::text[]) AS x(i, e)"
            " WHERE id = x.i", db_array(a, bad, nbad), db_array(a, errors, nbad)));
    }

    return done ? (int) ngood : -1;
}


/* Delivers one batch of rows in a transaction that holds them. */

static int
outbox_batch(arena_t *a)
{
    int           i, n, registry;
    PGresult     *res;
    const char  **why;

    if (db_begin() != 0) {
        return -1;
    }

    res = db_q0("SELECT ent, op, version, id FROM outbox WHERE created_at < now()"
                " - interval '" OUTBOX_GRACE "' AND (retry_at IS NULL OR retry_at <="
                " now()) ORDER BY id LIMIT 500 FOR UPDATE SKIP LOCKED");

    if (!db_ok(res)) {
        db_log("outbox failed", res);
        PQclear(res);
        db_rollback();
        return -1;
    }

    n = PQntuples(res);
    why = arena_alloc(a, (size_t) (n + 1) * sizeof(char *));

    for (i = 0, registry = 0; i < n; i++) {
        registry |= strcmp(PQgetvalue(res, i, 1), "registry") == 0;
    }

    if (outbox_policies(a, res, why) != 0) {
        n = -1;

    } else if (n) {
        n = outbox_settle(a, res, why, registry && registry_push(0) == 0);
    }

    PQclear(res);

    if (n < 0 || db_commit() != 0) {
        db_rollback();
        return -1;
    }

    METRIC_ADD(outbox_relayed, n);

    return n;
}


static void
outbox_stuck(void)
{
    PGresult  *res;

    res = db_q0("SELECT count(*) FROM outbox WHERE attempts > 0");

    if (db_ok(res)) {
        METRIC_SET(outbox_stuck, db_int(res, 0, 0));
    }

    PQclear(res);
}


void *
outbox_thread(void *arg)
{
    int      n;
    int64_t  looked;
    arena_t  a;

    looked = 0;

    while (!atomic_load(&bg_stopping)) {
        arena_init(&a);
        n = outbox_batch(&a);
        arena_free(&a);

        if (util_now_ms() - looked >= OUTBOX_LOOK_MS) {
            looked = util_now_ms();
            outbox_stuck();
        }

        if (n < OUTBOX_BATCH) {
            bg_sleep_ms(OUTBOX_POLL_MS);
        }
    }

    rds_close();
    db_close();
    kt_key_thread_end();

    return NULL;
}


int
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
    int64_t    parts, alerts;
    arena_t    a;
    PGconn    *c;

    c = NULL;
    parts = alerts = 0;

    while (!atomic_load(&bg_stopping)) {
        if (bg_single(&c, DB_LOCK_SWEEP)) {
            arena_init(&a);
            sweep_once(&a);
            arena_free(&a);

            db_done(db_q0("SELECT kt_expire()"));

            if (util_now_ms() - alerts >= ALERTS_MS) {
                alerts = util_now_ms();
                db_done(db_q0("SELECT kt_soft_alerts()"));
            }

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
    kt_key_thread_end();

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
