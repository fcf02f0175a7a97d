
/*
 * keytoll_status: the counters of all workers, as JSON or for Prometheus.
 */


#include "ngx_http_keytoll_module.h"

#include <signal.h>


typedef struct {
    char                          *name;
    char                          *type;
    char                          *help;
} ngx_http_keytoll_metric_t;


static ngx_int_t ngx_http_keytoll_status_handler(ngx_http_request_t *r);
static u_char *ngx_http_keytoll_status_json(u_char *p,
    ngx_http_keytoll_shm_t *shm);
static u_char *ngx_http_keytoll_status_prometheus(u_char *p,
    ngx_http_keytoll_shm_t *shm);


static ngx_http_keytoll_metric_t
    ngx_http_keytoll_metrics[NGX_HTTP_KEYTOLL_N_MAX] =
{
    { "requests_total", "counter", "Requests that reached the gate." },
    { "admitted_total", "counter", "Requests sent upstream." },
    { "unreserved_total", "counter",
      "Requests passed while Redis was unavailable." },
    { "settled_total", "counter", "Settlements that Redis applied." },
    { "duplicates_total", "counter", "Settlements dropped as duplicates." },
    { "late_total", "counter", "Settlements whose hold was gone." },
    { "released_total", "counter", "Admissions given back unused." },
    { "estimated_total", "counter", "Requests charged by estimate." },
    { "aborted_total", "counter", "Responses that did not end." },
    { "unreadable_total", "counter", "Responses whose usage was encoded." },
    { "input_tokens_total", "counter", "Prompt tokens settled." },
    { "output_tokens_total", "counter", "Completion tokens settled." },
    { "cost_nusd_total", "counter", "Cost settled, nano-USD." },
    { "redis_calls_total", "counter", "Commands sent to Redis." },
    { "redis_errors_total", "counter", "Error replies of Redis." },
    { "redis_timeouts_total", "counter", "Commands without timely reply." },
    { "redis_connects_total", "counter", "Connections made to Redis." },
    { "journal_bytes_total", "counter", "Bytes written to journals." },
    { "journal_errors_total", "counter", "Failed journal writes." },
    { "replayed_total", "counter", "Settlements read back from journals." },
    { "adopted_total", "counter", "Journals of dead processes taken over." },
    { "cache_hits_total", "counter", "Refusals answered from shared memory." },
    { "cache_stored_total", "counter", "Refusals put in shared memory." },
    { "cache_emptied_total", "counter", "Times a change emptied the cache." }
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

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);
    shm = ngx_http_keytoll_conf()->zone->data;

    b = ngx_create_temp_buf(r->pool, 16384);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (klcf->status == NGX_HTTP_KEYTOLL_STATUS_PROM) {
        p = ngx_http_keytoll_status_prometheus(b->pos, shm);
        ngx_str_set(&r->headers_out.content_type,
                    "text/plain; version=0.0.4");

    } else {
        p = ngx_http_keytoll_status_json(b->pos, shm);
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


static void
ngx_http_keytoll_gauges(ngx_http_keytoll_shm_t *shm, ngx_uint_t *active,
    ngx_uint_t *pending)
{
    ngx_uint_t                 i;
    ngx_http_keytoll_gauge_t  *g;

    *active = 0;
    *pending = 0;

    for (i = 0; i < NGX_MAX_PROCESSES; i++) {
        g = &shm->worker[i];

        if (g->pid && (g->active || g->pending)
            && (kill(g->pid, 0) == 0 || ngx_errno == NGX_EPERM))
        {
            *active += g->active;
            *pending += g->pending;
        }
    }
}


static u_char *
ngx_http_keytoll_status_json(u_char *p, ngx_http_keytoll_shm_t *shm)
{
    ngx_uint_t  i, n, active, pending;

    *p++ = '{';

    for (i = 0; i < NGX_HTTP_KEYTOLL_N_MAX; i++) {
        p = ngx_sprintf(p, "\"%s\":%L,", ngx_http_keytoll_metrics[i].name,
                        (int64_t) shm->n[i]);
    }

    ngx_http_keytoll_gauges(shm, &active, &pending);

    p = ngx_sprintf(p, "\"active_requests\":%ui,\"pending_settlements\":%ui,"
                    "\"refused\":{", active, pending);

    for (i = 1, n = 0; i < KT_REASON_MAX; i++) {
        if (shm->refused[i]) {
            p = ngx_sprintf(p, "%s\"%s\":%uA", n++ ? "," : "",
                            kt_reason((int) i)->name, shm->refused[i]);
        }
    }

    return ngx_sprintf(p, "}}\n");
}


static u_char *
ngx_http_keytoll_status_prometheus(u_char *p, ngx_http_keytoll_shm_t *shm)
{
    ngx_uint_t                  i, active, pending;
    ngx_http_keytoll_metric_t  *m;

    for (i = 0; i < NGX_HTTP_KEYTOLL_N_MAX; i++) {
        m = &ngx_http_keytoll_metrics[i];

        p = ngx_sprintf(p, "# HELP keytoll_%s %s\n# TYPE keytoll_%s %s\n"
                        "keytoll_%s %L\n", m->name, m->help, m->name, m->type,
                        m->name, (int64_t) shm->n[i]);
    }

    ngx_http_keytoll_gauges(shm, &active, &pending);

    p = ngx_sprintf(p, "# HELP keytoll_active_requests Requests upstream now."
                    "\n# TYPE keytoll_active_requests gauge\n"
                    "keytoll_active_requests %ui\n"
                    "# HELP keytoll_pending_settlements Settlements not "
                    "acknowledged yet.\n"
                    "# TYPE keytoll_pending_settlements gauge\n"
                    "keytoll_pending_settlements %ui\n", active, pending);

    p = ngx_sprintf(p, "# HELP keytoll_refused_total Requests refused.\n"
                    "# TYPE keytoll_refused_total counter\n");

    for (i = 1; i < KT_REASON_MAX; i++) {
        p = ngx_sprintf(p, "keytoll_refused_total{reason=\"%s\"} %uA\n",
                        kt_reason((int) i)->name, shm->refused[i]);
    }

    return p;
}


char *
ngx_http_keytoll_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_keytoll_loc_conf_t *klcf = conf;

    ngx_str_t                  *value;
    ngx_http_core_loc_conf_t   *clcf;

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

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_keytoll_status_handler;

    return NGX_CONF_OK;
}
