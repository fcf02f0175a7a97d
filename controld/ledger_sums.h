/*
 * Sums by a text key, collected in a hash table and written sorted, so that two
 * daemons take their row locks in the same order.
 */

#ifndef CTL_LEDGER_SUMS_H
#define CTL_LEDGER_SUMS_H

#include "ledger.h"


#define SUM_VALUES  9

typedef struct {
    const char  *key;
    const void  *ref;            /* of the owner                               */
    int64_t      a;              /* period id or day                           */
    int64_t      v[SUM_VALUES];
} sum_t;

typedef struct {
    arena_t  *arena;
    size_t    n;
    size_t    size;              /* power of two                               */
    int       over;              /* a sum did not fit: it can not be written   */
    sum_t   **slot;
} sums_t;


void sums_init(sums_t *t, arena_t *a, size_t expect);
sum_t *sums_get(sums_t *t, const char *key);
sum_t **sums_sorted(sums_t *t);

/* s->v[i] += v, s being one of t. */
void sums_add(sums_t *t, sum_t *s, int i, int64_t v);


/* Usage by day (sql/020_usage.sql). */

typedef struct usage_s  usage_t;

usage_t *usage_new(arena_t *a, size_t events);

/* Adds one row (old NULL) or the change from an estimate to what it was. */
void usage_add(usage_t *u, const event_t *e, const event_t *old);

/* Writes the sums in the open transaction; results as of ledger_store(). */
int usage_store(arena_t *a, usage_t *u);


#endif
