#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <inttypes.h>
#include "db.h"
#include "log.h"
#include "metrics.h"
#include "policy.h"
#include "rds.h"


#define POLICY_WAIT_MAX  1000        /* ms, the longest life of a block       */
#define POLICY_WINDOW  8            /* batches in flight while pushing all     */


static __thread char     policy_why[200];
static __thread int64_t  policy_due;    /* ms that blocks may still be used */


const char *
policy_error(void)
{
    return policy_why;
}


/*
 * A gate may spend a block of quota for ms more that relies on what changed:
 * the change binds every request when that time is over (invariant 5).
 */

void
policy_wait(int64_t ms)
{
    struct timespec  ts;

    if (ms <= 0) {
        return;
    }

    if (ms > POLICY_WAIT_MAX) {
        ms = POLICY_WAIT_MAX;
    }

    ts.tv_sec = ms / 1000;
    ts.tv_nsec = ms % 1000 * 1000000;

    while (nanosleep(&ts, &ts) == -1 && errno == EINTR) {
        /* the rest */
    }
}


/*
 * Checks an array of "ok"|"stale" per pair, perhaps followed by a time to wait:
 * 0, -1 when Redis did not run the function (it is away, loading, full), -2
 * when the function failed.
 */

static int
policy_reply(redisReply *r)
{
    int  rc;

    rc = 0;

    if (rds_is_error(r) || r->type != REDIS_REPLY_ARRAY) {
        snprintf(policy_why, sizeof(policy_why), "%s",
                 r && r->str ? r->str : "no reply");
        rc = strncmp(policy_why, "ERR ", 4) == 0
             && strstr(policy_why, "user_function") ? -2 : -1;
        log_event(LOG_WARN, "Redis refused a policy", "error", policy_why, NULL);

    } else if (r->elements
               && r->element[r->elements - 1]->type == REDIS_REPLY_INTEGER)
    {
        if (policy_due < r->element[r->elements - 1]->integer) {
            policy_due = r->element[r->elements - 1]->integer;
        }
    }

    if (r) {
        freeReplyObject(r);
    }

    return rc;
}


static int
policy_send_sets(arena_t *a, PGresult *res)
{
    int        i;
    rds_cmd_t  c;

    if (PQntuples(res) == 0) {
        return 0;
    }

    rds_fcall(&c, a, "kt_policy_set");

    for (i = 0; i < PQntuples(res); i++) {
        rds_argn(&c, PQgetvalue(res, i, 0), (size_t) PQgetlength(res, i, 0));
        rds_argn(&c, PQgetvalue(res, i, 1), (size_t) PQgetlength(res, i, 1));
    }

    return policy_reply(rds_run(&c));
}


/* What was deleted and not made again meanwhile. */

static int
policy_send_dels(arena_t *a, const char *const *names, const int64_t *del_v,
    const char *there, size_t n)
{
    size_t     i, found;
    rds_cmd_t  c;

    rds_fcall(&c, a, "kt_policy_del");
    found = 0;

    for (i = 0; i < n; i++) {
        if (del_v[i] && !there[i]) {
            rds_arg(&c, names[i]);
            rds_arg(&c, arena_printf(a, "%" PRId64, del_v[i]));
            found++;
        }
    }

    return found ? policy_reply(rds_run(&c)) : 0;
}


static int
policy_push_batch(arena_t *a, const char *const *names, const int64_t *del_v,
    char *there, size_t n)
{
    int        k, rc;
    size_t     i;
    PGresult  *res;

    res = db_q("SELECT name, policy FROM kt_policy WHERE name = ANY ($1::text[])",
               db_array(a, names, n));

    if (!db_ok(res)) {
        db_log("can not compile policies", res);
        PQclear(res);
        return -1;
    }

    for (i = 0; del_v && i < n; i++) {
        for (k = 0; del_v[i] && !there[i] && k < PQntuples(res); k++) {
            there[i] = strcmp(PQgetvalue(res, k, 0), names[i]) == 0;
        }
    }

    rc = policy_send_sets(a, res);
    PQclear(res);

    return rc;
}


static size_t
policy_some(size_t left)
{
    return left < POLICY_BATCH ? left : POLICY_BATCH;
}


/*
 * First everything that is set: who named an entity that is gone no longer names it when
 * it goes.
 */

int
policy_push(arena_t *a, const char *const *names, const int64_t *del_v, size_t n)
{
    int      rc;
    char    *there;
    size_t   i, k;

    policy_due = 0;
    there = arena_alloc(a, n + 1);
    rc = 0;

    for (i = 0; i < n && rc == 0; i += k) {
        k = policy_some(n - i);
        rc = policy_push_batch(a, names + i, del_v ? del_v + i : NULL, there + i, k);
        METRIC_ADD(pushes, rc ? 0 : k);
    }

    for (i = 0; del_v && i < n && rc == 0; i += k) {
        k = policy_some(n - i);
        rc = policy_send_dels(a, names + i, del_v + i, there + i, k);
    }

    if (rc) {
        METRIC_ADD(push_failures, n);
        return rc;
    }

    policy_wait(policy_due);

    return 0;
}


/*
 * Runs `fn` over the rows of a result, POLICY_BATCH rows a call and `width`
 * columns a row, keeping POLICY_WINDOW calls in flight.
 */

static int
policy_pipeline(PGresult *res, const char *fn, int width)
{
    int        i, k, n, batch, sent, seen, rc;
    arena_t    a;
    rds_cmd_t  c;

    n = PQntuples(res);
    sent = seen = 0;
    rc = 0;

    for (batch = 0; batch < n && rc == 0; batch += POLICY_BATCH) {
        arena_init(&a);
        rds_fcall(&c, &a, fn);

        for (i = batch; i < n && i < batch + POLICY_BATCH; i++) {
            for (k = 0; k < width; k++) {
                rds_argn(&c, PQgetvalue(res, i, k),
                         (size_t) PQgetlength(res, i, k));
            }
        }

        rc = rds_send(&c);
        sent += rc == 0;
        arena_free(&a);

        if (sent - seen >= POLICY_WINDOW) {
            rc |= policy_reply(rds_wait());
            seen++;
        }
    }

    while (seen < sent) {
        rc |= policy_reply(rds_wait());
        seen++;
    }

    if (rc) {
        rds_close();
    }

    return rc;
}


int64_t
policy_push_all(void)
{
    int64_t    n;
    PGresult  *res;

    res = db_q0("SELECT name, policy FROM kt_policy");

    if (!db_ok(res)) {
        db_log("can not compile policies", res);
        PQclear(res);
        return -1;
    }

    n = PQntuples(res);

    if (policy_pipeline(res, "kt_policy_set", 2) != 0) {
        n = -1;
    }

    PQclear(res);

    return n;
}


int
policy_used_all(void)
{
    int        rc;
    PGresult  *res;

    res = db_q0("SELECT name, period_id, used FROM kt_policy");

    if (!db_ok(res)) {
        db_log("can not read meters", res);
        PQclear(res);
        return -1;
    }

    rc = policy_pipeline(res, "kt_used_set", 3);
    PQclear(res);

    return rc;
}


int
policy_used_redis(arena_t *a, const char *const *names, size_t n, int64_t *used)
{
    size_t       i;
    rds_cmd_t    c;
    redisReply  *r, *e;

    rds_fcall(&c, a, "kt_state");

    for (i = 0; i < n; i++) {
        rds_arg(&c, names[i]);
    }

    r = rds_run(&c);

    if (rds_is_error(r) || r->type != REDIS_REPLY_ARRAY || r->elements != n) {
        if (r) {
            freeReplyObject(r);
        }

        return -1;
    }

    for (i = 0; i < n; i++) {
        e = r->element[i];
        used[i] = e->type == REDIS_REPLY_ARRAY && e->elements > 1
                  && e->element[1]->str ? strtoll(e->element[1]->str, NULL, 10)
                                        : 0;
    }

    freeReplyObject(r);

    return 0;
}


void
policy_used(arena_t *a, const char *const *names, size_t n, int64_t *used)
{
    int        row;
    size_t     i;
    PGresult  *res;

    memset(used, 0, n * sizeof(int64_t));

    if (n == 0 || policy_used_redis(a, names, n, used) == 0) {
        return;
    }

    res = db_q("SELECT name, used FROM kt_policy WHERE name = ANY ($1::text[])",
               db_array(a, names, n));

    for (i = 0; db_ok(res) && i < n; i++) {
        for (row = 0; row < PQntuples(res); row++) {
            if (strcmp(PQgetvalue(res, row, 0), names[i]) == 0) {
                used[i] = db_int(res, row, 1);
            }
        }
    }

    PQclear(res);
}
