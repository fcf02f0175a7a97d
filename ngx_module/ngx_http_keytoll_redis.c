
/*
 * What the worker asks of Redis, over one connection (redis_conn.c): pipelined,
 * flushed once per turn of the event loop, replies matched to operations in
 * order.
 *
 *   DOWN -> CONNECTING -> HELLO -> READY
 *   any -> DOWN            error, close, two deadlines without a reply; comes
 *                          back after a back-off (50 ms doubled to half a
 *                          second: a Redis that is back is soon used)
 *
 * While not READY, send() answers NGX_BUSY at once: nothing queues here, the
 * caller's policy decides.  Every operation's handler is called once with
 * last set, with its reply or, when the connection is lost, with NULL.  One
 * that misses its deadline is told so before (NULL, last 0), but keeps its
 * place until its reply has been read, so replies never shift.
 */


#include "ngx_http_keytoll_redis.h"


#define NGX_HTTP_KEYTOLL_OUT_MAX      (64 << 20)


static ngx_int_t ngx_http_keytoll_redis_reserve(size_t len);
static void ngx_http_keytoll_redis_flush(ngx_event_t *ev);


static char  *ngx_http_keytoll_redis_names[] = {
    "down", "connecting", "hello", "ready"
};


ngx_http_keytoll_redis_t  ngx_http_keytoll_redis;

static ngx_connection_t   ngx_http_keytoll_redis_dumb;


ngx_int_t
ngx_http_keytoll_redis_init(ngx_cycle_t *cycle)
{
    ngx_http_keytoll_redis_t      *rc;
    ngx_http_keytoll_main_conf_t  *kmcf;

    rc = &ngx_http_keytoll_redis;
    kmcf = ngx_http_keytoll_conf();

    ngx_memzero(rc, sizeof(ngx_http_keytoll_redis_t));

    rc->log = cycle->log;
    rc->timeout = kmcf->redis_timeout;
    rc->wait = 50;
    rc->starting = 1;

    rc->ops = ngx_calloc(NGX_HTTP_KEYTOLL_OPS * sizeof(ngx_http_keytoll_op_t),
                         cycle->log);
    if (rc->ops == NULL) {
        return NGX_ERROR;
    }

    ngx_http_keytoll_redis_dumb.fd = (ngx_socket_t) -1;
    ngx_http_keytoll_redis_dumb.log = cycle->log;

    rc->deadline.handler = ngx_http_keytoll_redis_late;
    rc->deadline.data = &ngx_http_keytoll_redis_dumb;
    rc->deadline.log = cycle->log;

    rc->backoff.handler = ngx_http_keytoll_redis_connect;
    rc->backoff.data = &ngx_http_keytoll_redis_dumb;
    rc->backoff.log = cycle->log;
    rc->backoff.cancelable = 1;

    rc->flush.handler = ngx_http_keytoll_redis_flush;
    rc->flush.data = &ngx_http_keytoll_redis_dumb;
    rc->flush.log = cycle->log;

    ngx_post_event(&rc->backoff, &ngx_posted_events);

    return NGX_OK;
}


/*
 * The process ends.  Bytes that are still queued get one bounded chance;
 * what does not make it is in the journal.
 */

void
ngx_http_keytoll_redis_exit(void)
{
    ssize_t                    n;
    struct pollfd              pfd;
    ngx_http_keytoll_redis_t  *rc;

    rc = &ngx_http_keytoll_redis;

    if (rc->peer.connection == NULL) {
        return;
    }

    while (rc->state == NGX_HTTP_KEYTOLL_R_READY
           && rc->out_sent < rc->out_len)
    {
        pfd.fd = rc->peer.connection->fd;
        pfd.events = POLLOUT;

        if (poll(&pfd, 1, 100) != 1) {
            break;
        }

        n = send(pfd.fd, rc->out + rc->out_sent, rc->out_len - rc->out_sent,
                 MSG_DONTWAIT);
        if (n <= 0) {
            break;
        }

        rc->out_sent += n;
    }

    ngx_close_connection(rc->peer.connection);
    rc->peer.connection = NULL;
    ngx_http_keytoll_redis_enter(NGX_HTTP_KEYTOLL_R_DOWN);
}


void
ngx_http_keytoll_redis_enter(ngx_http_keytoll_redis_state_e state)
{
    ngx_http_keytoll_redis.state = state;
    ngx_http_keytoll_gauge()->redis = state;
}


/* state: of a worker, as its gauge has it. */

const char *
ngx_http_keytoll_redis_name(ngx_uint_t state)
{
    return state <= NGX_HTTP_KEYTOLL_R_READY
           ? ngx_http_keytoll_redis_names[state] : "unknown";
}


/*
 * For reply handlers: microseconds from the command to its reply, or until it
 * was given up.
 */

uint64_t
ngx_http_keytoll_redis_took(void)
{
    return ngx_http_keytoll_redis.took_us;
}


ngx_uint_t
ngx_http_keytoll_redis_ready(void)
{
    return ngx_http_keytoll_redis.state == NGX_HTTP_KEYTOLL_R_READY;
}


/* The worker is young: its first connection has neither failed nor answered. */

ngx_uint_t
ngx_http_keytoll_redis_starting(void)
{
    return ngx_http_keytoll_redis.starting;
}


void
ngx_http_keytoll_redis_started(void)
{
    ngx_http_keytoll_redis.starting = 0;
}


/* Asks for one flush at the end of this turn of the event loop. */

void
ngx_http_keytoll_redis_post(void)
{
    ngx_http_keytoll_redis_t  *rc;

    rc = &ngx_http_keytoll_redis;

    if (!rc->flush.posted) {
        ngx_post_event(&rc->flush, &ngx_posted_events);
    }
}


ngx_int_t
ngx_http_keytoll_redis_send(ngx_http_keytoll_reply_pt handler, void *data,
    ngx_str_t *argv, ngx_uint_t argc)
{
    if (ngx_http_keytoll_redis.state != NGX_HTTP_KEYTOLL_R_READY) {
        return NGX_BUSY;
    }

    ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_REDIS_CALLS, 1);

    return ngx_http_keytoll_redis_queue(handler, data, argv, argc);
}


static ngx_int_t
ngx_http_keytoll_redis_reserve(size_t len)
{
    u_char                    *p;
    size_t                     size;
    ngx_http_keytoll_redis_t  *rc;

    rc = &ngx_http_keytoll_redis;

    if (rc->out_size - rc->out_len >= len) {
        return NGX_OK;
    }

    /* what was sent makes room, also when Redis never quite catches up */

    if (rc->out_sent) {
        rc->out_len -= rc->out_sent;
        ngx_memmove(rc->out, rc->out + rc->out_sent, rc->out_len);
        rc->out_sent = 0;

        if (rc->out_size - rc->out_len >= len) {
            return NGX_OK;
        }
    }

    size = ngx_max(rc->out_size * 2, 65536);

    while (size - rc->out_len < len) {
        size *= 2;
    }

    if (size > NGX_HTTP_KEYTOLL_OUT_MAX) {
        return NGX_ERROR;
    }

    p = ngx_alloc(size, rc->log);
    if (p == NULL) {
        return NGX_ERROR;
    }

    if (rc->out) {
        ngx_memcpy(p, rc->out, rc->out_len);
        ngx_free(rc->out);
    }

    rc->out = p;
    rc->out_size = size;

    return NGX_OK;
}


/* For the first commands of a connection; others come by send(). */

ngx_int_t
ngx_http_keytoll_redis_queue(ngx_http_keytoll_reply_pt handler, void *data,
    ngx_str_t *argv, ngx_uint_t argc)
{
    u_char                    *p;
    size_t                     len;
    ngx_msec_t                 wait;
    ngx_uint_t                 i;
    ngx_http_keytoll_op_t     *o;
    ngx_http_keytoll_redis_t  *rc;

    rc = &ngx_http_keytoll_redis;

    if (rc->tail - rc->head == NGX_HTTP_KEYTOLL_OPS) {
        return NGX_BUSY;
    }

    len = 1 + NGX_INT_T_LEN + 2;

    for (i = 0; i < argc; i++) {
        len += 1 + NGX_INT_T_LEN + 2 + argv[i].len + 2;
    }

    if (ngx_http_keytoll_redis_reserve(len) != NGX_OK) {
        return NGX_BUSY;
    }

    p = rc->out + rc->out_len;
    p = ngx_sprintf(p, "*%ui" CRLF, argc);

    for (i = 0; i < argc; i++) {
        p = ngx_sprintf(p, "$%uz" CRLF, argv[i].len);

        if (argv[i].len) {
            p = ngx_cpymem(p, argv[i].data, argv[i].len);
        }

        *p++ = CR; *p++ = LF;
    }

    rc->out_len = p - rc->out;

    /*
     * No client waits for a connection to come up; a deadline that is too
     * short for a busy Redis would keep it down.
     */

    wait = ngx_http_keytoll_registry_ready()
           ? rc->timeout : ngx_max(rc->timeout, NGX_HTTP_KEYTOLL_UP);

    o = &rc->ops[rc->tail++ & (NGX_HTTP_KEYTOLL_OPS - 1)];
    o->handler = handler;
    o->data = data;
    o->deadline = ngx_current_msec + wait;
    o->sent_us = ngx_http_keytoll_now_us();
    o->answered = 0;

    if (!rc->deadline.timer_set || rc->state == NGX_HTTP_KEYTOLL_R_HELLO) {
        ngx_add_timer(&rc->deadline, wait);
    }

    ngx_http_keytoll_redis_post();

    return NGX_OK;
}


/*
 * The end of a turn.  The journal first: nothing goes upstream, and no
 * settlement to Redis, that is not on disk.  Settlements leave before
 * admissions: what a client has just spent is counted before its next request
 * is judged.
 */

static void
ngx_http_keytoll_redis_flush(ngx_event_t *ev)
{
    ngx_uint_t                 written;
    ngx_http_keytoll_redis_t  *rc;

    rc = &ngx_http_keytoll_redis;

    written = ngx_http_keytoll_journal_sync() == NGX_OK;

    ngx_http_keytoll_settle_flush();
    ngx_http_keytoll_admit_flush();

    /* what began to wait meanwhile has posted it for itself */

    if (rc->flush.posted && !ngx_http_keytoll_admit_waits()) {
        ngx_delete_posted_event(&rc->flush);
    }

    if (rc->peer.connection
        && rc->state > NGX_HTTP_KEYTOLL_R_CONNECTING
        && rc->out_sent < rc->out_len)
    {
        ngx_http_keytoll_redis_write(rc->peer.connection->write);
    }

    /* a connection that was lost meanwhile may have let requests pass */

    if (ngx_http_keytoll_journal_sync() != NGX_OK) {
        written = 0;
    }

    ngx_http_keytoll_dispatch_flush(written);
}
