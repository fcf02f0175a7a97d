/*
 * Usage by day (sql/020_usage.sql).  Sums are written sorted, so that two daemons
 * take their row locks in the same order.
 */

#ifndef CTL_LEDGER_USAGE_H
#define CTL_LEDGER_USAGE_H

#include "ledger.h"


typedef struct usage_s  usage_t;

usage_t *usage_new(arena_t *a, size_t events);

/* Adds one row (old NULL) or the change from an estimate to what it was. */
void usage_add(usage_t *u, const event_t *e, const event_t *old);

/* Writes the sums in the open transaction; results as of ledger_store(). */
int usage_store(arena_t *a, usage_t *u);


#endif
