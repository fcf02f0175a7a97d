
/*
 * Leases of running requests: renewed while they run, put back when Redis lost
 * them.
 */


#include "ngx_http_keytoll_module.h"


static void ngx_http_keytoll_renew_timer(ngx_event_t *ev);
static void ngx_http_keytoll_renew_reply(void *data, redisReply *reply,
    ngx_uint_t last);


static ngx_queue_t       ngx_http_keytoll_active;
static ngx_event_t       ngx_http_keytoll_renew_ev;
static ngx_connection_t  ngx_http_keytoll_renew_dumb;


void
ngx_http_keytoll_lease_init(ngx_cycle_t *cycle)
{
    ngx_queue_init(&ngx_http_keytoll_active);

    ngx_http_keytoll_renew_dumb.fd = (ngx_socket_t) -1;
    ngx_http_keytoll_renew_dumb.log = cycle->log;

    ngx_http_keytoll_renew_ev.handler = ngx_http_keytoll_renew_timer;
    ngx_http_keytoll_renew_ev.data = &ngx_http_keytoll_renew_dumb;
    ngx_http_keytoll_renew_ev.log = cycle->log;
    ngx_http_keytoll_renew_ev.cancelable = 1;

    ngx_add_timer(&ngx_http_keytoll_renew_ev, NGX_HTTP_KEYTOLL_LEASE / 6);
}


void
ngx_http_keytoll_active_add(ngx_http_keytoll_ctx_t *ctx)
{
    ngx_queue_insert_tail(&ngx_http_keytoll_active, &ctx->queue);
    ctx->active = 1;

    ngx_http_keytoll_gauge()->active++;
}


void
ngx_http_keytoll_active_del(ngx_http_keytoll_ctx_t *ctx)
{
    if (ctx->active) {
        ngx_queue_remove(&ctx->queue);
        ctx->active = 0;

        ngx_http_keytoll_gauge()->active--;
    }
}


/*
 * Extends the leases of running requests that are older than a third of a
 * lease; with restore, of all of them, and with the text of the hold so that
 * Redis can put back what it lost.
 */

void
ngx_http_keytoll_renew(ngx_uint_t restore)
{
    u_char                   lease[NGX_INT64_LEN];
    ngx_str_t                argv[5 + 2 * NGX_HTTP_KEYTOLL_BATCH];
    ngx_uint_t               n;
    ngx_queue_t             *q;
    ngx_http_keytoll_ctx_t  *ctx;

    ngx_str_set(&argv[0], "FCALL");
    ngx_str_set(&argv[1], "kt_renew");
    ngx_str_set(&argv[2], "1");
    ngx_str_set(&argv[3], KT_REDIS_GEN);
    argv[4].data = lease;
    argv[4].len = ngx_sprintf(lease, "%d", NGX_HTTP_KEYTOLL_LEASE) - lease;

    n = 5;

    for (q = ngx_queue_head(&ngx_http_keytoll_active);
         q != ngx_queue_sentinel(&ngx_http_keytoll_active);
         q = ngx_queue_next(q))
    {
        ctx = ngx_queue_data(q, ngx_http_keytoll_ctx_t, queue);

        /* those of a block go with it, unless all is lost */

        if (ctx->unreserved || (ctx->block && !restore && !ctx->own_hold)
            || (!restore && ngx_current_msec - ctx->leased
                            < NGX_HTTP_KEYTOLL_LEASE / 3))
        {
            continue;
        }

        ctx->leased = ngx_current_msec;
        ctx->own_hold |= restore;

        argv[n].data = ctx->rid;
        argv[n++].len = KT_RID_LEN;
        argv[n].data = ctx->hold.data;
        argv[n++].len = ctx->hold.len;

        if (n == 5 + 2 * NGX_HTTP_KEYTOLL_BATCH) {
            (void) ngx_http_keytoll_redis_send(ngx_http_keytoll_renew_reply,
                                               NULL, argv, n);
            n = 5;
        }
    }

    if (n > 5) {
        (void) ngx_http_keytoll_redis_send(ngx_http_keytoll_renew_reply, NULL,
                                           argv, n);
    }
}


static void
ngx_http_keytoll_renew_timer(ngx_event_t *ev)
{
    if (ngx_exiting && ngx_queue_empty(&ngx_http_keytoll_active)) {
        return;
    }

    ngx_http_keytoll_renew(0);
    ngx_add_timer(ev, NGX_HTTP_KEYTOLL_LEASE / 6);
}


static void
ngx_http_keytoll_renew_reply(void *data, redisReply *reply, ngx_uint_t last)
{
    /* a lease that could not be renewed is swept, and corrected later */
}
