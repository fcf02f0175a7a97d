/* Counters of this process, printed as Prometheus text. */

#ifndef CTL_METRICS_H
#define CTL_METRICS_H

#include <stdatomic.h>
#include <stdint.h>
#include "arena.h"


typedef struct {
    atomic_llong  http[6];               /* by status / 100                    */
    atomic_llong  http_us;
    atomic_llong  pushes;
    atomic_llong  push_failures;
    atomic_llong  outbox_relayed;
    atomic_llong  outbox_stuck;
    atomic_llong  ledger_rows;
    atomic_llong  ledger_duplicates;
    atomic_llong  ledger_fixes;
    atomic_llong  ledger_rejects;
    atomic_llong  ledger_batches;
    atomic_llong  swept;
    atomic_llong  rebuilds;
    atomic_llong  rebuild_ms;
    atomic_llong  drift_entities;        /* of the last reconciliation         */
    atomic_llong  drift_nusd;
} metrics_t;

extern metrics_t  metrics;

void metrics_http(int status, int64_t us);
void metrics_render(buf_t *b);

#define METRIC_ADD(field, n)                                                  \
    atomic_fetch_add_explicit(&metrics.field, (long long) (n), memory_order_relaxed)
#define METRIC_SET(field, n)                                                  \
    atomic_store_explicit(&metrics.field, (long long) (n), memory_order_relaxed)


#endif
