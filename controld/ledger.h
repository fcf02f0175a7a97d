/*
 * The ledger consumer: from the Redis stream to PostgreSQL, exactly once.  An
 * event is one settled request or adjustment; a row and its sums are written in
 * one transaction, the sums only from rows that were really inserted, and the
 * stream entry is acknowledged after the commit.
 */

#ifndef CTL_LEDGER_H
#define CTL_LEDGER_H

#include <stdint.h>
#include "arena.h"


#define LEDGER_LINES_MAX  4096
#define LEDGER_TEXT_MAX   255         /* bytes of a text of a row               */
#define LEDGER_TAGS_MAX   64


typedef enum { EV_OK, EV_LATE, EV_LOST, EV_FIX, EV_ADJ } event_code_t;

typedef struct {
    const char  *ent;
    int64_t      period_id;
    int          bits;
} charge_t;

typedef struct {
    /* as it stood in the stream */
    const char    *entry_id;
    int            position;
    const char    *raw[3];               /* event, receipt, code               */
    size_t         rawlen[3];

    event_code_t   code;
    const char    *rid;
    int64_t        rid_ms;
    int64_t        t0_ms;                /* the gate's clock                   */
    int64_t        admit_ms;             /* Redis' clock                       */
    int64_t        t1_ms;
    int64_t        ttft_ms;              /* -1: unknown                        */
    const char    *token;
    const char    *user;
    const char    *team;
    const char    *org;
    const char    *customer;
    const char    *tags;                 /* joined with \x1f                   */
    const char    *model;
    const char    *upstream;
    const char    *provider;
    const char    *route;
    const char    *answer_id;
    const char    *ending;
    const char    *ip;
    const char    *node;
    const char    *why;
    int64_t        in_tok;
    int64_t        out_tok;
    int64_t        cr_tok;
    int64_t        cw_tok;
    int64_t        rs_tok;
    int64_t        cost_nusd;
    int64_t        cost_ucr;
    int64_t        status;
    int            estimated;
    int            stream;
    int            fixed;
    size_t         ncharges;
    charge_t      *charges;
} event_t;


/*
 * Reads one event; NULL and *why when it has no id, cost or receipt.  Whatever
 * else is malformed is cleaned, cut or left out: money is never parked for it.
 */
event_t *event_parse(arena_t *a, const char *const raw[3], const size_t len[3],
    const char **why);

/* Empties every optional text and count, for an event that was refused. */
void event_bare(event_t *e);

/*
 * The string itself when it is UTF-8 without control characters of at most `max`
 * bytes, else a copy that is.
 */
const char *clean_text(arena_t *a, const char *s, size_t max);

/* A copy of broken JSON text, as long as it: broken UTF-8 and NULs become '?'. */
const char *clean_json(arena_t *a, const char *p, size_t len);

/*
 * Stores events in the open transaction: rows, meters, daily sums.  0, -1 when
 * the database is gone, -2 when it refused a value.  Counts go to the metrics.
 */
int ledger_store(arena_t *a, event_t **events, size_t n);

/*
 * 0, -1 when the database is gone, -2 when it refused a value; without `rows` the
 * result is cleared, as it is after an error.
 */
int ledger_result(void *pgresult, int rows);

/* Parks one event in ledger_rejects, in the open transaction.  0 or -1. */
int ledger_reject(const event_t *e, const char *why);

/*
 * Takes one batch off the stream.  Returns the entries handled, 0 when there was
 * nothing, -1 on an error.  `own` is set during a rebuild, which holds the lock
 * that everybody else waits for.
 */
int ledger_step(int own, int block_ms);

void *ledger_thread(void *arg);


#endif
