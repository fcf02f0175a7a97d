#include "metrics.h"


metrics_t  metrics;


typedef struct {
    const char    *name;
    const char    *type;
    const char    *help;
    atomic_llong  *value;
} metric_t;

static const metric_t  metric_list[] = {
    { "keytoll_policy_pushes_total", "counter",
      "Entities pushed to Redis", &metrics.pushes },
    { "keytoll_policy_push_failures_total", "counter",
      "Pushes that failed and were left to the outbox", &metrics.push_failures },
    { "keytoll_outbox_relayed_total", "counter",
      "Outbox rows delivered by the relay", &metrics.outbox_relayed },
    { "keytoll_outbox_stuck", "gauge",
      "Outbox rows that Redis refused", &metrics.outbox_stuck },
    { "keytoll_ledger_rows_total", "counter",
      "Ledger rows written", &metrics.ledger_rows },
    { "keytoll_ledger_duplicates_total", "counter",
      "Events that were in the ledger already", &metrics.ledger_duplicates },
    { "keytoll_ledger_fixes_total", "counter",
      "Estimates replaced by the real count", &metrics.ledger_fixes },
    { "keytoll_ledger_rejects_total", "counter",
      "Events that could not be read and were parked", &metrics.ledger_rejects },
    { "keytoll_ledger_batches_total", "counter",
      "Ledger transactions", &metrics.ledger_batches },
    { "keytoll_leases_swept_total", "counter",
      "Expired leases that were charged", &metrics.swept },
    { "keytoll_rebuilds_total", "counter",
      "Rebuilds of Redis", &metrics.rebuilds },
    { "keytoll_rebuild_milliseconds", "gauge",
      "Duration of the last rebuild", &metrics.rebuild_ms },
    { "keytoll_drift_entities", "gauge",
      "Entities whose use differs between Redis and PostgreSQL",
      &metrics.drift_entities },
    { "keytoll_drift_nanousd", "gauge",
      "Sum of the absolute differences", &metrics.drift_nusd }
};


void
metrics_http(int status, int64_t us)
{
    int  class;

    class = status / 100;
    METRIC_ADD(http[class >= 1 && class <= 5 ? class : 0], 1);
    METRIC_ADD(http_us, us);
}


void
metrics_render(buf_t *b)
{
    int     i;
    size_t  k;

    buf_puts(b, "# HELP keytoll_http_requests_total Admin API requests\n"
                "# TYPE keytoll_http_requests_total counter\n");

    for (i = 1; i <= 5; i++) {
        buf_printf(b, "keytoll_http_requests_total{class=\"%dxx\"} %lld\n", i,
                   atomic_load(&metrics.http[i]));
    }

    buf_printf(b, "# HELP keytoll_http_microseconds_total Time spent on them\n"
               "# TYPE keytoll_http_microseconds_total counter\n"
               "keytoll_http_microseconds_total %lld\n",
               atomic_load(&metrics.http_us));

    for (k = 0; k < sizeof(metric_list) / sizeof(metric_list[0]); k++) {
        buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n%s %lld\n",
                   metric_list[k].name, metric_list[k].help,
                   metric_list[k].name, metric_list[k].type,
                   metric_list[k].name, atomic_load(metric_list[k].value));
    }
}
