/*
 * One mutation: rows, outbox and audit in one transaction, then the push.
 */

#ifndef CTL_TX_H
#define CTL_TX_H

#include "db.h"
#include "http.h"


/* A request of the daemon's own, with all rights; its arena is the caller's to free. */
void tx_own(req_t *r);

/* -1 (and an answer) when the database is gone. */
int tx_begin(req_t *r);

#define TX_TRIES  4                /* of what collided with another request   */

/*
 * Another request was in the way (a deadlock, or what was looked at is no more): rolls
 * back and answers 409.  As long as nothing was committed the request is carried out
 * again, from the start, before that answer is given; of many items, the item.
 */
void tx_collided(req_t *r);

/* 1 when an item that failed so is to be tried again: `tries` counts, from 0. */
int tx_item_again(req_t *r, int *tries);

/* An item of many is given up, and the claim of the Idempotency-Key with it. */
void tx_item_failed(req_t *r);

/* Statement of the transaction.  NULL after answering and rolling back. */
PGresult *tx_query(req_t *r, const char *sql, int n, const char *const *params);
PGresult *tx_dynamic(req_t *r, const char *sql, int n, const char *const *params);
#define tx_q(r, sql, ...)                                                      \
    tx_query(r, sql, (int) (sizeof((const char *[]){ __VA_ARGS__ }) / sizeof(char *)), \
             (const char *const[]){ __VA_ARGS__ })

/* Whether the statement gives a row, 1 or 0; -1 after answering. */
int tx_any(req_t *r, const char *sql, int n, const char *const *params);
#define tx_is(r, sql, ...)                                                     \
    tx_any(r, sql, (int) (sizeof((const char *[]){ __VA_ARGS__ }) / sizeof(char *)), \
           (const char *const[]){ __VA_ARGS__ })

/* The same outside of a transaction. */
int db_any(req_t *r, const char *sql, int n, const char *const *params);
#define db_is(r, sql, ...)                                                     \
    db_any(r, sql, (int) (sizeof((const char *[]){ __VA_ARGS__ }) / sizeof(char *)), \
           (const char *const[]){ __VA_ARGS__ })

/* The entity is pushed after the commit. */
void tx_touch(req_t *r, const char *ent);

/* The entity is deleted from Redis after the commit. -1 after answering. */
int tx_gone(req_t *r, const char *ent);

/* The model registry is compiled anew after the commit. */
void tx_registry(req_t *r);

/* Audit row; before and after are JSON texts or NULL.  -1 after answering. */
int tx_audit(req_t *r, const char *action, const char *type, const char *id,
    const char *before, const char *after);

/*
 * Writes the outbox, commits, pushes.  0, or -1 after answering.  A failed push
 * is no failure: the header x-keytoll-propagated: false is added and the relay
 * delivers.
 */
int tx_commit(req_t *r);

/*
 * If-Match of a client that changes only what it has seen: 0, or -1 after
 * answering 412 because the version is another.  tx_commit() answers 501 to If-Match
 * that no handler has asked about.
 */
int tx_match(req_t *r, int64_t version);

/* ETag of a version. */
void tx_etag(req_t *r, int64_t version);

/* Who is acting, for created_by and the audit. */
const char *tx_actor(req_t *r);


#endif
