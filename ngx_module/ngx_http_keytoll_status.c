
/*
 * keytoll_status: the counters of all workers, as JSON or for Prometheus.
 */


#include "ngx_http_keytoll_module.h"

#include <signal.h>


#define NGX_HTTP_KEYTOLL_STATUS_SIZE   32768    /* and for each worker:      */
#define NGX_HTTP_KEYTOLL_STATUS_LINE   512


typedef struct {
    char                          *name;
    char                          *help;
} ngx_http_keytoll_metric_t;


/* What the workers have in hand, together. */

typedef struct {
    ngx_uint_t                     n;
    ngx_uint_t                     active;
    ngx_uint_t                     pending;
    uint64_t                       lag_ms;
    ngx_uint_t                     segments;
    ngx_uint_t                     journal;
    ngx_http_keytoll_gauge_t      *worker[NGX_MAX_PROCESSES];
} ngx_http_keytoll_workers_t;


static ngx_int_t ngx_http_keytoll_status_handler(ngx_http_request_t *r);
static void ngx_http_keytoll_workers(ngx_http_keytoll_shm_t *shm,
    ngx_http_keytoll_workers_t *w);
static u_char *ngx_http_keytoll_status_json(u_char *p,
    ngx_http_keytoll_shm_t *shm, ngx_http_keytoll_workers_t *w);
static ngx_uint_t ngx_http_keytoll_broken(ngx_http_keytoll_gauge_t *g);
static u_char *ngx_http_keytoll_json_worker(u_char *p,
    ngx_http_keytoll_shm_t *shm, ngx_http_keytoll_gauge_t *g);
static u_char *ngx_http_keytoll_status_prometheus(u_char *p,
    ngx_http_keytoll_shm_t *shm, ngx_http_keytoll_workers_t *w);
static u_char *ngx_http_keytoll_prometheus_workers(u_char *p,
    ngx_http_keytoll_shm_t *shm, ngx_http_keytoll_workers_t *w);
static u_char *ngx_http_keytoll_prometheus_redis(u_char *p,
    ngx_http_keytoll_shm_t *shm);


/* Behind "keytoll_", all of them counters. */

static ngx_http_keytoll_metric_t
    ngx_http_keytoll_metrics[NGX_HTTP_KEYTOLL_N_MAX] =
{
    { "admitted_total", "Requests sent upstream." },
    { "unreserved_total",
      "Requests sent upstream while Redis was unavailable." },
    { "settled_total", "Settlements that Redis applied." },
    { "duplicates_total", "Settlements dropped as duplicates." },
    { "late_total", "Settlements whose hold was gone." },
    { "released_total", "Admissions given back unused." },
    { "estimated_total", "Requests charged by estimate." },
    { "aborted_total", "Responses that did not end." },
    { "unreadable_total", "Responses whose usage was encoded." },
    { "input_tokens_total", "Prompt tokens settled." },
    { "output_tokens_total", "Completion tokens settled." },
    { "cost_nusd_total", "Cost settled, nano-USD." },
    { "redis_calls_total", "Commands sent to Redis." },
    { "redis_errors_total", "Error replies of Redis." },
    { "redis_timeouts_total", "Commands without timely reply." },
    { "redis_connects_total", "Connections made to Redis." },
    { "journal_bytes_total", "Bytes written to journals." },
    { "journal_errors_total", "Failed journal writes." },
    { "replayed_total", "Settlements read back from journals." },
    { "adopted_total", "Journals of dead processes taken over." },
    { "leased_total", "Requests admitted from a block of quota." },
    { "cache_hits_total", "Refusals answered from shared memory." },
    { "cache_stored_total", "Refusals put in shared memory." },
    { "cache_emptied_total", "Times a change emptied the cache." }
};


static ngx_int_t
ngx_http_keytoll_status_handler(ngx_http_request_t *r)
{
    u_char                        *p;
    ngx_int_t                      rc;
    ngx_buf_t                     *b;
    ngx_chain_t                    out;
    ngx_http_keytoll_shm_t        *shm;
    ngx_http_keytoll_loc_conf_t   *klcf;
    ngx_http_keytoll_workers_t    *w;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);
    shm = ngx_http_keytoll_conf()->zone->data;

    w = ngx_palloc(r->pool, sizeof(ngx_http_keytoll_workers_t));
    if (w == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_keytoll_workers(shm, w);

    b = ngx_create_temp_buf(r->pool, NGX_HTTP_KEYTOLL_STATUS_SIZE
                                     + w->n * NGX_HTTP_KEYTOLL_STATUS_LINE);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (klcf->status == NGX_HTTP_KEYTOLL_STATUS_PROM) {
        p = ngx_http_keytoll_status_prometheus(b->pos, shm, w);
        ngx_str_set(&r->headers_out.content_type,
                    "text/plain; version=0.0.4");

    } else {
        p = ngx_http_keytoll_status_json(b->pos, shm, w);
        ngx_str_set(&r->headers_out.content_type, "application/json");
    }

    b->last = p;
    b->last_buf = 1;
    b->last_in_chain = 1;

    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = b->last - b->pos;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}


/* Those that are alive; a worker that was killed has left its gauge behind. */

static void
ngx_http_keytoll_workers(ngx_http_keytoll_shm_t *shm,
    ngx_http_keytoll_workers_t *w)
{
    uint64_t                   now_ms, oldest_ms;
    ngx_uint_t                 i;
    ngx_http_keytoll_gauge_t  *g;

    ngx_memzero(w, sizeof(ngx_http_keytoll_workers_t));

    now_ms = ngx_http_keytoll_now_ms();

    for (i = 0; i < NGX_MAX_PROCESSES; i++) {
        g = &shm->worker[i];

        if (g->pid == 0
            || (kill(g->pid, 0) == -1 && ngx_errno != NGX_EPERM))
        {
            continue;
        }

        w->worker[w->n++] = g;
        w->active += g->active;
        w->pending += g->pending;
        w->segments += g->segments;
        w->journal += g->journal;

        oldest_ms = g->oldest_ms;

        if (oldest_ms && now_ms > oldest_ms + w->lag_ms) {
            w->lag_ms = now_ms - oldest_ms;
        }
    }
}


static u_char *
ngx_http_keytoll_status_json(u_char *p, ngx_http_keytoll_shm_t *shm,
    ngx_http_keytoll_workers_t *w)
{
    uint64_t    n;
    ngx_uint_t  i, more;

    for (i = 0, n = 0; i < KT_ROUTES; i++) {
        n += shm->route[i];
    }

    p = ngx_sprintf(p, "{\"requests_total\":%uL", n);

    for (i = 0; i < NGX_HTTP_KEYTOLL_N_MAX; i++) {
        p = ngx_sprintf(p, ",\"%s\":%L", ngx_http_keytoll_metrics[i].name,
                        (int64_t) shm->n[i]);
    }

    p = ngx_sprintf(p, ",\"active_requests\":%ui,\"held_requests\":%ui,"
                    "\"pending_settlements\":%ui,"
                    "\"oldest_settlement_ms\":%uL,\"journal_segments\":%ui,"
                    "\"journal_held_bytes\":%ui,\"routes\":{",
                    w->active, w->active + w->pending, w->pending, w->lag_ms,
                    w->segments, w->journal);

    for (i = 0, more = 0; i < KT_ROUTES; i++) {
        if (shm->route[i]) {
            p = ngx_sprintf(p, "%s\"%V\":%uA", more++ ? "," : "",
                            &ngx_http_keytoll_class_names[i], shm->route[i]);
        }
    }

    p = ngx_sprintf(p, "},\"refused\":{");

    for (i = 1, more = 0; i < KT_REASON_MAX; i++) {
        if (shm->refused[i]) {
            p = ngx_sprintf(p, "%s\"%s\":%uA", more++ ? "," : "",
                            kt_reason((int) i)->name, shm->refused[i]);
        }
    }

    p = ngx_sprintf(p, "},\"redis_us\":{\"sum\":%uA,\"le\":{",
                    shm->redis.sum_us);

    for (i = 0, n = 0; i < NGX_HTTP_KEYTOLL_BUCKETS - 1; i++) {
        n += shm->redis.n[i];
        p = ngx_sprintf(p, "\"%ui\":%uL,", ngx_http_keytoll_bounds_us[i], n);
    }

    n += shm->redis.n[i];
    p = ngx_sprintf(p, "\"inf\":%uL},\"count\":%uL},\"workers\":[", n, n);

    for (i = 0; i < w->n; i++) {

        if (i) {
            *p++ = ',';
        }

        p = ngx_http_keytoll_json_worker(p, shm, w->worker[i]);
    }

    return ngx_sprintf(p, "]}\n");
}


/* The breaker is open: Redis is not asked, its failure policy decides. */

static ngx_uint_t
ngx_http_keytoll_broken(ngx_http_keytoll_gauge_t *g)
{
    return ngx_strcmp(ngx_http_keytoll_redis_name(g->redis), "ready") != 0;
}


static u_char *
ngx_http_keytoll_json_worker(u_char *p, ngx_http_keytoll_shm_t *shm,
    ngx_http_keytoll_gauge_t *g)
{
    return ngx_sprintf(p, "{\"worker\":%ui,\"pid\":%P,\"redis\":\"%s\","
                       "\"breaker\":\"%s\",\"watch\":\"%s\","
                       "\"active_requests\":%uA,"
                       "\"pending_settlements\":%uA,"
                       "\"journal_segments\":%uA,"
                       "\"journal_held_bytes\":%uA}",
                       (ngx_uint_t) (g - shm->worker), g->pid,
                       ngx_http_keytoll_redis_name(g->redis),
                       ngx_http_keytoll_broken(g) ? "open" : "closed",
                       ngx_http_keytoll_watch_name(g->watch), g->active,
                       g->pending, g->segments, g->journal);
}


static u_char *
ngx_http_keytoll_family(u_char *p, char *name, char *type, char *help)
{
    return ngx_sprintf(p, "# HELP keytoll_%s %s\n# TYPE keytoll_%s %s\n",
                       name, help, name, type);
}


static u_char *
ngx_http_keytoll_gauge_line(u_char *p, char *name, char *help, uint64_t n)
{
    p = ngx_http_keytoll_family(p, name, "gauge", help);

    return ngx_sprintf(p, "keytoll_%s %uL\n", name, n);
}


static u_char *
ngx_http_keytoll_status_prometheus(u_char *p, ngx_http_keytoll_shm_t *shm,
    ngx_http_keytoll_workers_t *w)
{
    ngx_uint_t                  i;
    ngx_http_keytoll_metric_t  *m;

    p = ngx_http_keytoll_family(p, "requests_total", "counter",
                                "Requests that reached the gate.");

    for (i = 0; i < KT_ROUTES; i++) {
        p = ngx_sprintf(p, "keytoll_requests_total{route=\"%V\"} %uA\n",
                        &ngx_http_keytoll_class_names[i], shm->route[i]);
    }

    p = ngx_http_keytoll_family(p, "refused_total", "counter",
                                "Requests refused.");

    for (i = 1; i < KT_REASON_MAX; i++) {
        p = ngx_sprintf(p, "keytoll_refused_total{reason=\"%s\"} %uA\n",
                        kt_reason((int) i)->name, shm->refused[i]);
    }

    for (i = 0; i < NGX_HTTP_KEYTOLL_N_MAX; i++) {
        m = &ngx_http_keytoll_metrics[i];

        p = ngx_http_keytoll_family(p, m->name, "counter", m->help);
        p = ngx_sprintf(p, "keytoll_%s %L\n", m->name, (int64_t) shm->n[i]);
    }

    p = ngx_http_keytoll_prometheus_redis(p, shm);

    return ngx_http_keytoll_prometheus_workers(p, shm, w);
}


static u_char *
ngx_http_keytoll_prometheus_workers(u_char *p, ngx_http_keytoll_shm_t *shm,
    ngx_http_keytoll_workers_t *w)
{
    ngx_uint_t  i;

    p = ngx_http_keytoll_gauge_line(p, "active_requests",
                                    "Requests upstream now.", w->active);
    p = ngx_http_keytoll_gauge_line(p, "held_requests",
                                    "Requests that Redis holds money for.",
                                    w->active + w->pending);
    p = ngx_http_keytoll_gauge_line(p, "pending_settlements",
                                    "Settlements not acknowledged yet.",
                                    w->pending);

    p = ngx_http_keytoll_family(p, "oldest_settlement_seconds", "gauge",
                                "Age of the oldest of them.");
    p = ngx_sprintf(p, "keytoll_oldest_settlement_seconds %uL.%03uL\n",
                    w->lag_ms / 1000, w->lag_ms % 1000);

    p = ngx_http_keytoll_gauge_line(p, "journal_segments",
                                    "Journal files still needed.",
                                    w->segments);
    p = ngx_http_keytoll_gauge_line(p, "journal_held_bytes",
                                    "Bytes in them.", w->journal);

    p = ngx_http_keytoll_family(p, "redis_up", "gauge",
                                "Whether the worker may ask Redis.");

    for (i = 0; i < w->n; i++) {
        p = ngx_sprintf(p, "keytoll_redis_up{worker=\"%ui\"} %d\n",
                        (ngx_uint_t) (w->worker[i] - shm->worker),
                        !ngx_http_keytoll_broken(w->worker[i]));
    }

    p = ngx_http_keytoll_family(p, "breaker_open", "gauge",
                                "Whether the failure policy decides.");

    for (i = 0; i < w->n; i++) {
        p = ngx_sprintf(p, "keytoll_breaker_open{worker=\"%ui\"} %ui\n",
                        (ngx_uint_t) (w->worker[i] - shm->worker),
                        ngx_http_keytoll_broken(w->worker[i]));
    }

    p = ngx_http_keytoll_family(p, "watch_live", "gauge",
                                "Whether the worker hears of changes.");

    for (i = 0; i < w->n; i++) {
        p = ngx_sprintf(p, "keytoll_watch_live{worker=\"%ui\"} %d\n",
                        (ngx_uint_t) (w->worker[i] - shm->worker),
                        ngx_strcmp(ngx_http_keytoll_watch_name(
                                       w->worker[i]->watch), "live") == 0);
    }

    return p;
}


static u_char *
ngx_http_keytoll_prometheus_redis(u_char *p, ngx_http_keytoll_shm_t *shm)
{
    uint64_t    n, sum_us;
    ngx_uint_t  i, us;

    p = ngx_http_keytoll_family(p, "redis_duration_seconds", "histogram",
                                "Time from a command to its reply.");

    for (i = 0, n = 0; i < NGX_HTTP_KEYTOLL_BUCKETS - 1; i++) {
        n += shm->redis.n[i];
        us = ngx_http_keytoll_bounds_us[i];

        p = ngx_sprintf(p, "keytoll_redis_duration_seconds_bucket"
                        "{le=\"%ui.%06ui\"} %uL\n", us / 1000000,
                        us % 1000000, n);
    }

    n += shm->redis.n[i];
    sum_us = shm->redis.sum_us;

    return ngx_sprintf(p, "keytoll_redis_duration_seconds_bucket"
                       "{le=\"+Inf\"} %uL\n"
                       "keytoll_redis_duration_seconds_sum %uL.%06uL\n"
                       "keytoll_redis_duration_seconds_count %uL\n",
                       n, sum_us / 1000000, sum_us % 1000000, n);
}


char *
ngx_http_keytoll_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_keytoll_loc_conf_t *klcf = conf;

    ngx_str_t                     *value;
    ngx_http_core_loc_conf_t      *clcf;
    ngx_http_keytoll_main_conf_t  *kmcf;

    if (klcf->status != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;
    klcf->status = NGX_HTTP_KEYTOLL_STATUS_JSON;

    if (cf->args->nelts == 2) {

        if (ngx_strcmp(value[1].data, "prometheus") == 0) {
            klcf->status = NGX_HTTP_KEYTOLL_STATUS_PROM;

        } else if (ngx_strcmp(value[1].data, "json") != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid value \"%V\" in \"%V\" directive, "
                               "it must be \"json\" or \"prometheus\"",
                               &value[1], &cmd->name);
            return NGX_CONF_ERROR;
        }
    }

    kmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_keytoll_module);
    kmcf->shown = 1;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_keytoll_status_handler;

    return NGX_CONF_OK;
}
