#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
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
#define RECON_LOOKS  5               /* that see the same difference          */
#define RECON_LOOK_MS  250
#define RECON_TRIES  5               /* of a page, when all is compared now   */
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

/* What both said of some entities at one time. */

typedef struct {
    size_t        n;
    const char  **name;
    int64_t      *redis;
    int64_t      *postgres;
} recon_look_t;

typedef enum {
    RECON_NEXT = 0,
    RECON_END,                       /* there are no more names               */
    RECON_BUSY,                      /* PostgreSQL is behind                  */
    RECON_FAILED
} recon_e;


/* Has everything that was in the stream at that time come to PostgreSQL? */

static int
recon_stored(arena_t *a, int64_t since_ms)
{
    int          stored;
    redisReply  *r;

    r = rds_do(a, "XRANGE", KT_REDIS_STREAM, "-", "+", "COUNT", "1");
    stored = !rds_is_error(r) && r->type == REDIS_REPLY_ARRAY
             && (r->elements == 0 || (r->element[0]->type == REDIS_REPLY_ARRAY
                 && r->element[0]->elements && r->element[0]->element[0]->str
                 && strtoll(r->element[0]->element[0]->str, NULL, 10) > since_ms));

    if (r) {
        freeReplyObject(r);
    }

    return stored;
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


/* What PostgreSQL and Redis say of these names now: -1 when one of them does not. */

static int
recon_look(arena_t *a, const char *names, recon_look_t *l)
{
    int        i;
    PGresult  *res;

    res = db_q("SELECT name, used FROM kt_policy WHERE name = ANY ($1::text[])", names);

    if (!db_ok(res)) {
        PQclear(res);
        return -1;
    }

    l->n = (size_t) PQntuples(res);
    l->name = arena_alloc(a, (l->n + 1) * sizeof(char *));
    l->redis = arena_alloc(a, (l->n + 1) * sizeof(int64_t));
    l->postgres = arena_alloc(a, (l->n + 1) * sizeof(int64_t));

    for (i = 0; i < PQntuples(res); i++) {
        l->name[i] = arena_str(a, PQgetvalue(res, i, 0));
        l->postgres[i] = db_int(res, i, 1);
    }

    PQclear(res);

    return l->n ? policy_used_redis(a, l->name, l->n, l->redis) : 0;
}


/*
 * Keeps of `l` what differs, and of that what differed by as much in `was`, if given:
 * what is on its way from one to the other comes and goes.
 */

static void
recon_keep(recon_look_t *l, const recon_look_t *was)
{
    size_t   i, k, n;
    int64_t  d;

    for (i = 0, n = 0; i < l->n; i++) {
        d = l->redis[i] - l->postgres[i];

        for (k = 0; was && k < was->n; k++) {
            if (strcmp(was->name[k], l->name[i]) == 0) {
                break;
            }
        }

        if (d == 0 || (was && (k == was->n || was->redis[k] - was->postgres[k] != d))) {
            continue;
        }

        l->name[n] = l->name[i];
        l->redis[n] = l->redis[i];
        l->postgres[n++] = l->postgres[i];
    }

    l->n = n;
}


static recon_e
recon_page(recon_t *t, arena_t *a)
{
    int           looks;
    size_t        i;
    int64_t       since_ms;
    PGresult     *page;
    const char   *names, *last;
    recon_look_t  l, was;

    page = db_q(RECON_SQL_NAMES, t->last);

    if (!db_ok(page)) {
        PQclear(page);
        return RECON_FAILED;
    }

    names = arena_str(a, PQgetvalue(page, 0, 0));
    last = arena_str(a, PQgetvalue(page, 0, 1));
    PQclear(page);

    if (!*last) {
        return RECON_END;
    }

    since_ms = util_now_ms();

    if (recon_look(a, names, &l) != 0) {
        return RECON_FAILED;
    }

    recon_keep(&l, NULL);

    for (looks = 1; l.n && looks < RECON_LOOKS; looks++) {
        bg_sleep_ms(RECON_LOOK_MS);
        was = l;

        if (recon_look(a, db_array(a, was.name, was.n), &l) != 0) {
            return RECON_FAILED;
        }

        recon_keep(&l, &was);
    }

    if (l.n && !recon_stored(a, since_ms)) {
        return RECON_BUSY;
    }

    for (i = 0; i < l.n; i++) {
        recon_differs(t, l.name[i], l.redis[i], log_f("%" PRId64, l.postgres[i]));
        t->drifted++;
        t->sum_nusd += l.redis[i] < l.postgres[i] ? l.postgres[i] - l.redis[i]
                                                  : l.redis[i] - l.postgres[i];
    }

    snprintf(t->last, sizeof(t->last), "%s", last);

    return RECON_NEXT;
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

        tries = rc == RECON_BUSY ? tries + 1 : 0;

    } while (rc == RECON_NEXT || (rc == RECON_BUSY && tries < RECON_TRIES));

    if (rc != RECON_END) {
        fputs(rc == RECON_BUSY
              ? "keytoll-controld: PostgreSQL is behind what Redis has for it; try again"
                " when the daemon has caught up\n"
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
