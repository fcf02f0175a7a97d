#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "bg.h"
#include "conf.h"
#include "db.h"
#include "kt_key.h"
#include "kt_schema.h"
#include "ledger.h"
#include "log.h"
#include "metrics.h"
#include "rds.h"
#include "util.h"


#define LEDGER_ENTRIES    256        /* stream entries of one transaction      */
#define LEDGER_CLAIM_MS   30000      /* idle this long: its reader is dead     */
#define LEDGER_LOOK_MS    5000       /* how often we look for such entries     */


typedef struct {
    size_t     n;
    size_t     size;
    event_t  **ev;
    event_t  **bad;
    size_t     nbad;
    size_t     entry;                /* events before those of this entry      */
    const char **why;
} batch_t;


static __thread int      ledger_grouped;
static __thread int      ledger_fresh;         /* own pending entries are done */
static __thread int64_t  ledger_claimed_ms;


static const char *
ledger_name(void)
{
    static __thread char  name[192];
    char                  host[64];

    if (!*name) {
        if (gethostname(host, sizeof(host)) != 0) {
            memcpy(host, "host", 5);
        }

        host[sizeof(host) - 1] = '\0';
        snprintf(name, sizeof(name), "%s:%.100s", host, conf.listen);
    }

    return name;
}


static void
ledger_group(arena_t *a)
{
    redisReply  *r;

    r = rds_do(a, "XGROUP", "CREATE", KT_REDIS_STREAM, KT_GROUP, "0", "MKSTREAM");
    ledger_grouped = r && (r->type != REDIS_REPLY_ERROR
                           || strncmp(r->str, "BUSYGROUP", 9) == 0);
    ledger_fresh = 0;

    if (r) {
        freeReplyObject(r);
    }
}


static void
batch_add(arena_t *a, batch_t *b, event_t *e, const char *why)
{
    event_t    **ev, **bad;
    const char **w;

    if (b->n + b->nbad == b->size) {
        b->size = b->size ? b->size * 2 : 1024;
        ev = arena_alloc(a, b->size * sizeof(event_t *));
        bad = arena_alloc(a, b->size * sizeof(event_t *));
        w = arena_alloc(a, b->size * sizeof(char *));

        if (b->n) {
            memcpy(ev, b->ev, b->n * sizeof(event_t *));
        }

        if (b->nbad) {
            memcpy(bad, b->bad, b->nbad * sizeof(event_t *));
            memcpy(w, b->why, b->nbad * sizeof(char *));
        }

        b->ev = ev;
        b->bad = bad;
        b->why = w;
    }

    if (why) {
        b->why[b->nbad] = why;
        b->bad[b->nbad++] = e;
    } else {
        b->ev[b->n++] = e;
    }
}


static void
batch_event(arena_t *a, batch_t *b, const char *id, const char *const raw[3],
    const size_t len[3], const char *why)
{
    int       k;
    event_t  *e;

    e = why ? NULL : event_parse(a, raw, len, &why);

    if (e == NULL) {
        e = arena_alloc(a, sizeof(event_t));
    } else {
        why = NULL;
    }

    e->entry_id = id;
    e->position = (int) (b->n + b->nbad - b->entry);

    for (k = 0; k < 3; k++) {
        e->raw[k] = raw[k];
        e->rawlen[k] = len[k];
    }

    batch_add(a, b, e, why);
}


/*
 * One stream entry: (e event, r receipt, c code) repeated; or, in place of e, es
 * with several events, one a line, that share what follows (lua/group.lua).
 */

static void
batch_entry(arena_t *a, batch_t *b, const char *id, redisReply *fields)
{
    int          k;
    size_t       i, len[3];
    const char  *raw[3], *why, *end, *p;
    redisReply  *name, *value;

    id = arena_str(a, id);
    b->entry = b->n + b->nbad;

    for (i = 0; i + 1 < fields->elements; i += 6) {
        why = NULL;

        for (k = 0; k < 3; k++) {
            raw[k] = "";
            len[k] = 0;

            if (i + 2 * (size_t) k + 1 < fields->elements) {
                name = fields->element[i + 2 * (size_t) k];
                value = fields->element[i + 2 * (size_t) k + 1];
                raw[k] = value->str;
                len[k] = (size_t) value->len;

                if (name->str[0] != "erc"[k]) {
                    why = "unexpected field";
                }
            } else {
                why = "incomplete entry";
            }
        }

        end = raw[0] + len[0];

        while (strcmp(fields->element[i]->str, "es") == 0
               && (p = memchr(raw[0], '\n', (size_t) (end - raw[0]))))
        {
            len[0] = (size_t) (p - raw[0]);
            batch_event(a, b, id, raw, len, why);
            raw[0] = p + 1;
        }

        len[0] = (size_t) (end - raw[0]);
        batch_event(a, b, id, raw, len, why);
    }
}


static int
ledger_lock(int own)
{
    int        ok;
    PGresult  *r;

    if (own) {
        return 1;
    }

    r = db_q("SELECT pg_try_advisory_xact_lock_shared($1::bigint)",
             log_f("%d", DB_LOCK_REBUILD));
    ok = db_ok(r) && *PQgetvalue(r, 0, 0) == 't';
    PQclear(r);

    return ok;
}


/* 0, -1: try again later, -2: a value was refused. */

static int
ledger_write(arena_t *a, event_t **ev, size_t n, event_t **bad,
    const char **why, size_t nbad, int own)
{
    int     rc;
    size_t  i;

    if (db_begin() != 0) {
        return -1;
    }

    if (!ledger_lock(own)) {
        db_rollback();
        bg_sleep_ms(20);
        return -1;
    }

    rc = ledger_store(a, ev, n);

    for (i = 0; i < nbad && rc == 0; i++) {
        log_event(LOG_ERROR, "a ledger event was parked", "entry",
                  bad[i]->entry_id, "reason", why[i], NULL);
        rc = ledger_reject(bad[i], why[i]);
    }

    if (rc) {
        db_rollback();
        return rc;
    }

    return db_commit();
}


/*
 * One by one, so that the event PostgreSQL refuses is alone: it is booked without
 * its optional fields, and parked only when that is refused too.
 */

static int
ledger_write_single(arena_t *a, batch_t *b, int own)
{
    int          rc;
    size_t       i;
    const char  *why;

    why = "PostgreSQL refused a value";

    for (i = 0; i < b->n; i++) {
        rc = ledger_write(a, &b->ev[i], 1, NULL, NULL, 0, own);

        if (rc == -2) {
            event_bare(b->ev[i]);
            rc = ledger_write(a, &b->ev[i], 1, NULL, NULL, 0, own);
        }

        if (rc == -2) {
            rc = ledger_write(a, NULL, 0, &b->ev[i], &why, 1, own);
        }

        if (rc) {
            return -1;
        }
    }

    return ledger_write(a, NULL, 0, b->bad, b->why, b->nbad, own);
}


static void
ledger_ack(arena_t *a, redisReply *entries)
{
    size_t       i;
    rds_cmd_t    ack, del;
    redisReply  *r;

    rds_cmd(&ack, a, "XACK");
    rds_arg(&ack, KT_REDIS_STREAM);
    rds_arg(&ack, KT_GROUP);
    rds_cmd(&del, a, "XDEL");
    rds_arg(&del, KT_REDIS_STREAM);

    for (i = 0; i < entries->elements; i++) {
        rds_arg(&ack, entries->element[i]->element[0]->str);
        rds_arg(&del, entries->element[i]->element[0]->str);
    }

    r = rds_run(&ack);

    if (r) {
        freeReplyObject(r);
    }

    r = rds_run(&del);

    if (r) {
        freeReplyObject(r);
    }
}


/*
 * wm: every entry with an id before it is committed.  The first entry that still
 * stands in the stream bounds it; without one, the time before we looked.
 */

static void
ledger_watermark(arena_t *a)
{
    int64_t      wm, old;
    redisReply  *t, *first, *cur, *r;

    t = rds_do(a, "TIME");
    first = rds_do(a, "XRANGE", KT_REDIS_STREAM, "-", "+", "COUNT", "1");
    cur = rds_do(a, "GET", KT_REDIS_WM);

    if (!rds_is_error(t) && !rds_is_error(first) && !rds_is_error(cur)) {
        wm = first->elements ? strtoll(first->element[0]->element[0]->str, NULL, 10)
             : strtoll(t->element[0]->str, NULL, 10) * 1000
               + strtoll(t->element[1]->str, NULL, 10) / 1000;
        old = cur->type == REDIS_REPLY_STRING ? strtoll(cur->str, NULL, 10) : 0;

        if (wm > old) {
            r = rds_do(a, "SET", KT_REDIS_WM, log_f("%" PRId64, wm));

            if (r) {
                freeReplyObject(r);
            }
        }
    }

    freeReplyObject(t);
    freeReplyObject(first);
    freeReplyObject(cur);
}


/* [[stream, [[id, [fields]] ...]]] or nil. */

static redisReply *
ledger_entries(redisReply *r)
{
    if (r->type != REDIS_REPLY_ARRAY || r->elements == 0) {
        return NULL;
    }

    return r->element[0]->element[1];
}


static int
ledger_handle(arena_t *a, redisReply *entries, int own)
{
    int          rc;
    size_t       i;
    batch_t      b;
    redisReply  *e;

    memset(&b, 0, sizeof(b));

    for (i = 0; i < entries->elements; i++) {
        e = entries->element[i];

        if (e->elements == 2 && e->element[1]->type == REDIS_REPLY_ARRAY) {
            batch_entry(a, &b, e->element[0]->str, e->element[1]);
        }
    }

    rc = ledger_write(a, b.ev, b.n, b.bad, b.why, b.nbad, own);

    if (rc == -2) {
        rc = ledger_write_single(a, &b, own);
    }

    if (rc) {
        return -1;
    }

    METRIC_ADD(ledger_batches, 1);
    ledger_ack(a, entries);

    return (int) entries->elements;
}


/* Entries that a dead consumer read and never acknowledged. */

static int
ledger_claim(arena_t *a, int own)
{
    int          n;
    redisReply  *r;

    if (util_now_ms() - ledger_claimed_ms < LEDGER_LOOK_MS && !own) {
        return 0;
    }

    r = rds_do(a, "XAUTOCLAIM", KT_REDIS_STREAM, KT_GROUP, ledger_name(),
               own ? "0" : log_f("%d", LEDGER_CLAIM_MS), "0", "COUNT",
               log_f("%d", LEDGER_ENTRIES));
    n = 0;

    if (!rds_is_error(r) && r->elements >= 2 && r->element[1]->elements) {
        n = ledger_handle(a, r->element[1], own);

    } else {
        ledger_claimed_ms = util_now_ms();
    }

    if (r) {
        freeReplyObject(r);
    }

    return n;
}


int
ledger_step(int own, int block_ms)
{
    int          n;
    arena_t      a;
    redisReply  *r, *entries;

    arena_init(&a);

    if (!ledger_grouped) {
        ledger_group(&a);
    }

    n = ledger_grouped ? ledger_claim(&a, own) : -1;

    if (n) {
        arena_free(&a);
        return n;
    }

    r = ledger_fresh
        ? rds_do(&a, "XREADGROUP", "GROUP", KT_GROUP, ledger_name(), "COUNT",
                 log_f("%d", LEDGER_ENTRIES), "BLOCK", log_f("%d", block_ms),
                 "STREAMS", KT_REDIS_STREAM, ">")
        : rds_do(&a, "XREADGROUP", "GROUP", KT_GROUP, ledger_name(), "COUNT",
                 log_f("%d", LEDGER_ENTRIES), "STREAMS", KT_REDIS_STREAM, "0");

    if (rds_is_error(r)) {
        ledger_grouped = 0;                /* FLUSHALL took the group with it  */
        n = -1;

    } else {
        entries = ledger_entries(r);
        n = entries && entries->elements ? ledger_handle(&a, entries, own) : 0;

        if (!ledger_fresh && n == 0) {
            ledger_fresh = 1;
            n = own ? 1 : 0;
        }
    }

    if (r) {
        freeReplyObject(r);
    }

    ledger_watermark(&a);
    arena_free(&a);

    return n;
}


void *
ledger_thread(void *arg)
{
    while (!atomic_load(&bg_stopping)) {
        if (ledger_step(0, 250) < 0) {
            ledger_fresh = 0;              /* what was read is still pending   */
            bg_sleep_ms(100);
        }
    }

    rds_close();
    db_close();
    kt_key_thread_end();

    return NULL;
}
