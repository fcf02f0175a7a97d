#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "bg.h"
#include "db.h"
#include "kt_key.h"
#include "kt_schema.h"
#include "log.h"
#include "metrics.h"
#include "policy.h"
#include "rds.h"
#include "recon.h"
#include "util.h"


#define RECON_MS     60000
#define RECON_PAGE   "500"
#define RECON_PAGES  10              /* a minute                              */
#define RECON_TRIES  20              /* of a page, when all is compared now   */
#define RECON_LOGS   10              /* differences of a round that are logged */


/* The names of kt_policy, each table by its index. */

#define RECON_NAMES(table)                                                    \
    "(SELECT ent FROM " table " WHERE ent > $1 ORDER BY ent LIMIT " RECON_PAGE ")"

#define RECON_SQL_NAMES                                                       \
    "SELECT coalesce(array_agg(ent), '{}'), coalesce(max(ent), '') FROM ("    \
    "SELECT ent FROM (" RECON_NAMES("keys") " UNION ALL " RECON_NAMES("users") \
    " UNION ALL " RECON_NAMES("teams") " UNION ALL " RECON_NAMES("memberships") \
    " UNION ALL " RECON_NAMES("organization_memberships") " UNION ALL "       \
    RECON_NAMES("organizations") " UNION ALL " RECON_NAMES("customers")       \
    " UNION ALL " RECON_NAMES("customer_default") " UNION ALL "               \
    RECON_NAMES("tags") " UNION ALL " RECON_NAMES("submeters") " UNION ALL "  \
    RECON_NAMES("proxy") " UNION ALL " RECON_NAMES("masters") ") x ORDER BY ent" \
    " LIMIT " RECON_PAGE ") p"


/* A round over all names. */

typedef struct {
    char     last[KT_ENT_MAX + 1];   /* where it is                           */
    int      print;
    int64_t  drifted;
    int64_t  sum_nusd;
} recon_t;

typedef enum {
    RECON_NEXT = 0,
    RECON_END,                       /* there are no more names               */
    RECON_BUSY,                      /* something is between the two          */
    RECON_FAILED
} recon_e;


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
recon_differs(recon_t *t, const char *name, int64_t redis, const char *postgres)
{
    if (t->print) {
        printf("%s redis %" PRId64 " postgres %s\n", name, redis, postgres);

    } else if (t->drifted < RECON_LOGS) {
        log_event(LOG_WARN, "Redis and PostgreSQL differ", "entity", name, "redis_nusd",
                  log_f("%" PRId64, redis), "postgres_nusd", postgres, NULL);
    }
}


/* Rows of (name, used), both of one quiet moment or not counted. */

static recon_e
recon_rows(recon_t *t, arena_t *a, PGresult *res)
{
    int           i, n;
    int64_t      *used, d;
    const char  **names;

    n = PQntuples(res);
    names = arena_alloc(a, (size_t) (n + 1) * sizeof(char *));
    used = arena_alloc(a, (size_t) (n + 1) * sizeof(int64_t));

    for (i = 0; i < n; i++) {
        names[i] = PQgetvalue(res, i, 0);
    }

    if (n && policy_used_redis(a, names, (size_t) n, used) != 0) {
        return RECON_FAILED;
    }

    if (!recon_quiet(a)) {
        return RECON_BUSY;
    }

    for (i = 0; i < n; i++) {
        d = used[i] - db_int(res, i, 1);

        if (d) {
            recon_differs(t, names[i], used[i], PQgetvalue(res, i, 1));
            t->drifted++;
            t->sum_nusd += d < 0 ? -d : d;
        }
    }

    return RECON_NEXT;
}


static recon_e
recon_page(recon_t *t, arena_t *a)
{
    recon_e      rc;
    PGresult    *page, *res;
    const char  *last;

    if (!recon_quiet(a)) {
        return RECON_BUSY;
    }

    page = db_q(RECON_SQL_NAMES, t->last);

    if (!db_ok(page)) {
        PQclear(page);
        return RECON_FAILED;
    }

    last = PQgetvalue(page, 0, 1);

    if (!*last) {
        PQclear(page);
        return RECON_END;
    }

    res = db_q("SELECT name, used FROM kt_policy WHERE name = ANY ($1::text[])",
               PQgetvalue(page, 0, 0));
    rc = db_ok(res) ? recon_rows(t, a, res) : RECON_FAILED;
    PQclear(res);

    if (rc == RECON_NEXT) {
        snprintf(t->last, sizeof(t->last), "%s", last);
    }

    PQclear(page);

    return rc;
}


static void
recon_some(recon_t *t)
{
    int      i;
    recon_e  rc;
    arena_t  a;

    rc = RECON_NEXT;

    for (i = 0; i < RECON_PAGES && rc == RECON_NEXT; i++) {
        arena_init(&a);
        rc = recon_page(t, &a);
        arena_free(&a);
    }

    if (rc == RECON_END) {
        METRIC_SET(drift_entities, t->drifted);
        METRIC_SET(drift_nusd, t->sum_nusd);
        memset(t, 0, sizeof(*t));
    }
}


int
recon_run(void)
{
    int      tries;
    recon_e  rc;
    arena_t  a;
    recon_t  t;

    memset(&t, 0, sizeof(t));
    t.print = 1;
    tries = 0;

    do {
        arena_init(&a);
        rc = recon_page(&t, &a);
        arena_free(&a);

        if (rc == RECON_BUSY) {
            bg_sleep_ms(250);
        }

        tries = rc == RECON_BUSY ? tries + 1 : 0;

    } while (rc == RECON_NEXT || (rc == RECON_BUSY && tries < RECON_TRIES));

    if (rc != RECON_END) {
        fputs(rc == RECON_BUSY
              ? "keytoll-controld: spend is on its way to PostgreSQL all the time; try again"
                " when there is less traffic\n"
              : "keytoll-controld: Redis or PostgreSQL does not answer\n", stderr);
        return -1;
    }

    return t.drifted ? 1 : 0;
}


void *
recon_thread(void *arg)
{
    PGconn   *c;
    recon_t   t;

    c = NULL;
    memset(&t, 0, sizeof(t));

    while (!atomic_load(&bg_stopping)) {
        bg_sleep_ms(RECON_MS);

        if (!atomic_load(&bg_stopping) && bg_single(&c, DB_LOCK_RECON)) {
            recon_some(&t);
        }
    }

    PQfinish(c);
    rds_close();
    db_close();
    kt_key_thread_end();

    return NULL;
}
