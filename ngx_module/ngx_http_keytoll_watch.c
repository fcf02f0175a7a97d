
/*
 * Announcements of changed policies: a connection that does nothing but
 * listen.  The function library publishes the names of what it changed, one a
 * line, or "*"; cache.c drops what depends on them.
 *
 *   DOWN -> CONNECTING -> ASKED -> LIVE     any -> DOWN, back after a while
 *
 * Only a LIVE worker uses the cache.  Becoming LIVE empties it: nobody knows
 * what was missed.  A connection that is silent for three pings is dead.
 *
 * Who changed a policy is answered when the announcement is in this socket
 * (controld waits for that), and epoll reports in the order of arrival: it is
 * read before any request that was sent after the answer.
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_WATCH_PING   1000      /* ms                        */
#define NGX_HTTP_KEYTOLL_WATCH_DEAD   3
#define NGX_HTTP_KEYTOLL_WATCH_MAX    2000


typedef enum {
    NGX_HTTP_KEYTOLL_W_DOWN = 0,
    NGX_HTTP_KEYTOLL_W_CONNECTING,
    NGX_HTTP_KEYTOLL_W_ASKED,
    NGX_HTTP_KEYTOLL_W_LIVE
} ngx_http_keytoll_watch_state_e;


typedef struct {
    ngx_http_keytoll_watch_state_e   state;
    ngx_peer_connection_t            peer;
    redisReader                     *reader;
    ngx_log_t                       *log;
    ngx_event_t                      timer;     /* connect again, or ping    */
    ngx_msec_t                       wait;
    ngx_uint_t                       silent;    /* pings without an answer   */
} ngx_http_keytoll_watch_t;


static void ngx_http_keytoll_watch_enter(
    ngx_http_keytoll_watch_state_e state);
static void ngx_http_keytoll_watch_timer(ngx_event_t *ev);
static void ngx_http_keytoll_watch_connect(void);
static void ngx_http_keytoll_watch_write(ngx_event_t *wev);
static void ngx_http_keytoll_watch_read(ngx_event_t *rev);
static ngx_int_t ngx_http_keytoll_watch_send(u_char *p, size_t len);
static ngx_int_t ngx_http_keytoll_watch_ask(void);
static ngx_int_t ngx_http_keytoll_watch_replies(void);
static void ngx_http_keytoll_watch_message(redisReply *payload);
static void ngx_http_keytoll_watch_fail(void);


static char  *ngx_http_keytoll_watch_names[] = {
    "down", "connecting", "asked", "live"
};


static ngx_http_keytoll_watch_t  ngx_http_keytoll_watch;
static ngx_connection_t          ngx_http_keytoll_watch_dumb;


void
ngx_http_keytoll_watch_init(ngx_cycle_t *cycle)
{
    ngx_http_keytoll_watch_t  *w;

    w = &ngx_http_keytoll_watch;

    ngx_memzero(w, sizeof(ngx_http_keytoll_watch_t));

    w->log = cycle->log;
    w->wait = 50;

    ngx_http_keytoll_watch_dumb.fd = (ngx_socket_t) -1;
    ngx_http_keytoll_watch_dumb.log = cycle->log;

    w->timer.handler = ngx_http_keytoll_watch_timer;
    w->timer.data = &ngx_http_keytoll_watch_dumb;
    w->timer.log = cycle->log;
    w->timer.cancelable = 1;

    ngx_add_timer(&w->timer, 1);
}


void
ngx_http_keytoll_watch_exit(void)
{
    ngx_http_keytoll_watch_t  *w;

    w = &ngx_http_keytoll_watch;

    ngx_http_keytoll_watch_enter(NGX_HTTP_KEYTOLL_W_DOWN);

    if (w->peer.connection) {
        ngx_close_connection(w->peer.connection);
        w->peer.connection = NULL;
    }
}


static void
ngx_http_keytoll_watch_enter(ngx_http_keytoll_watch_state_e state)
{
    ngx_http_keytoll_watch.state = state;
    ngx_http_keytoll_gauge()->watch = state;
}


/* state: of a worker, as its gauge has it. */

const char *
ngx_http_keytoll_watch_name(ngx_uint_t state)
{
    return state <= NGX_HTTP_KEYTOLL_W_LIVE
           ? ngx_http_keytoll_watch_names[state] : "unknown";
}


/* Whether every change is heard of. */

ngx_uint_t
ngx_http_keytoll_watch_live(void)
{
    return ngx_http_keytoll_watch.state == NGX_HTTP_KEYTOLL_W_LIVE;
}


static void
ngx_http_keytoll_watch_timer(ngx_event_t *ev)
{
    ngx_http_keytoll_watch_t  *w;

    w = &ngx_http_keytoll_watch;

    if (w->state == NGX_HTTP_KEYTOLL_W_DOWN) {

        if (!ngx_exiting) {
            ngx_http_keytoll_watch_connect();
        }

        return;
    }

    if (++w->silent > NGX_HTTP_KEYTOLL_WATCH_DEAD
        || (w->state == NGX_HTTP_KEYTOLL_W_LIVE
            && ngx_http_keytoll_watch_send((u_char *) "PING" CRLF, 6)
               != NGX_OK))
    {
        ngx_http_keytoll_watch_fail();
        return;
    }

    ngx_add_timer(ev, NGX_HTTP_KEYTOLL_WATCH_PING);
}


static void
ngx_http_keytoll_watch_connect(void)
{
    ngx_int_t                      rc;
    ngx_connection_t              *c;
    ngx_http_keytoll_watch_t      *w;
    ngx_http_keytoll_main_conf_t  *kmcf;

    w = &ngx_http_keytoll_watch;
    kmcf = ngx_http_keytoll_conf();

    ngx_memzero(&w->peer, sizeof(ngx_peer_connection_t));

    w->peer.sockaddr = kmcf->redis->sockaddr;
    w->peer.socklen = kmcf->redis->socklen;
    w->peer.name = &kmcf->redis->name;
    w->peer.get = ngx_event_get_peer;
    w->peer.log = w->log;
    w->peer.log_error = NGX_ERROR_INFO;

    w->reader = ngx_http_keytoll_redis_reader();
    if (w->reader == NULL) {
        ngx_http_keytoll_watch_fail();
        return;
    }

    rc = ngx_event_connect_peer(&w->peer);

    if (rc == NGX_ERROR || rc == NGX_BUSY || rc == NGX_DECLINED) {
        ngx_http_keytoll_watch_fail();
        return;
    }

    c = w->peer.connection;
    c->read->handler = ngx_http_keytoll_watch_read;
    c->write->handler = ngx_http_keytoll_watch_write;
    c->read->log = w->log;
    c->write->log = w->log;
    c->log = w->log;

    ngx_http_keytoll_watch_enter(NGX_HTTP_KEYTOLL_W_CONNECTING);
    w->silent = 0;

    ngx_add_timer(&w->timer, NGX_HTTP_KEYTOLL_WATCH_PING);

    if (rc == NGX_OK) {
        ngx_http_keytoll_watch_write(c->write);
    }
}


static void
ngx_http_keytoll_watch_write(ngx_event_t *wev)
{
    ngx_connection_t          *c;
    ngx_http_keytoll_watch_t  *w;

    w = &ngx_http_keytoll_watch;
    c = wev->data;

    if (c != w->peer.connection
        || w->state != NGX_HTTP_KEYTOLL_W_CONNECTING)
    {
        return;
    }

    if (ngx_http_keytoll_watch_ask() != NGX_OK
        || ngx_handle_read_event(c->read, 0) != NGX_OK)
    {
        ngx_http_keytoll_watch_fail();
        return;
    }

    ngx_http_keytoll_watch_enter(NGX_HTTP_KEYTOLL_W_ASKED);
}


/* AUTH and SUBSCRIBE fit any socket buffer: sent whole or not at all. */

static ngx_int_t
ngx_http_keytoll_watch_ask(void)
{
    u_char                        *p, *last, buf[2048];
    ngx_int_t                      rc;
    ngx_http_keytoll_main_conf_t  *kmcf;

    kmcf = ngx_http_keytoll_conf();

    p = buf;
    last = buf + sizeof(buf);

    if (kmcf->redis_password.len) {
        p = ngx_slprintf(p, last, "*3" CRLF "$4" CRLF "AUTH" CRLF
                         "$%uz" CRLF "%V" CRLF "$%uz" CRLF "%V" CRLF,
                         kmcf->redis_user.len, &kmcf->redis_user,
                         kmcf->redis_password.len, &kmcf->redis_password);
    }

    p = ngx_slprintf(p, last, "*2" CRLF "$9" CRLF "SUBSCRIBE" CRLF
                     "$%uz" CRLF "%s" CRLF, sizeof(KT_REDIS_CHANGES) - 1,
                     KT_REDIS_CHANGES);

    rc = p == last ? NGX_ERROR : ngx_http_keytoll_watch_send(buf, p - buf);

    ngx_explicit_memzero(buf, sizeof(buf));

    return rc;
}


static ngx_int_t
ngx_http_keytoll_watch_send(u_char *p, size_t len)
{
    ngx_connection_t  *c;

    c = ngx_http_keytoll_watch.peer.connection;

    return c->send(c, p, len) == (ssize_t) len ? NGX_OK : NGX_ERROR;
}


static void
ngx_http_keytoll_watch_read(ngx_event_t *rev)
{
    u_char                     buf[4096];
    ssize_t                    n;
    ngx_connection_t          *c;
    ngx_http_keytoll_watch_t  *w;

    w = &ngx_http_keytoll_watch;
    c = rev->data;

    if (c != w->peer.connection) {
        return;
    }

    for ( ;; ) {
        n = c->recv(c, buf, sizeof(buf));

        if (n == NGX_AGAIN) {
            break;
        }

        if (n <= 0
            || redisReaderFeed(w->reader, (char *) buf, n) != REDIS_OK
            || ngx_http_keytoll_watch_replies() != NGX_OK)
        {
            ngx_http_keytoll_watch_fail();
            return;
        }
    }

    if (ngx_handle_read_event(rev, 0) != NGX_OK) {
        ngx_http_keytoll_watch_fail();
    }
}


static ngx_uint_t
ngx_http_keytoll_watch_is(redisReply *reply, const char *word)
{
    return reply->type == REDIS_REPLY_STRING
           && ngx_strcmp(reply->str, word) == 0;
}


static ngx_int_t
ngx_http_keytoll_watch_replies(void)
{
    ngx_int_t                  rc;
    redisReply                *reply;
    ngx_http_keytoll_watch_t  *w;

    w = &ngx_http_keytoll_watch;

    for ( ;; ) {
        reply = NULL;

        if (redisReaderGetReply(w->reader, (void **) &reply) != REDIS_OK) {
            return NGX_ERROR;
        }

        if (reply == NULL) {
            return NGX_OK;
        }

        w->silent = 0;
        rc = NGX_OK;

        if (reply->type == REDIS_REPLY_ERROR) {
            ngx_log_error(NGX_LOG_ERR, w->log, 0,
                          "keytoll: redis %V answered \"%s\" to SUBSCRIBE, "
                          "refusals are not cached", w->peer.name,
                          reply->str);
            rc = NGX_ERROR;

        } else if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 3) {

            if (ngx_http_keytoll_watch_is(reply->element[0], "message")) {
                ngx_http_keytoll_watch_message(reply->element[2]);

            } else if (ngx_http_keytoll_watch_is(reply->element[0],
                                                 "subscribe"))
            {
                ngx_http_keytoll_cache_flush();
                ngx_http_keytoll_watch_enter(NGX_HTTP_KEYTOLL_W_LIVE);
                w->wait = 50;
            }
        }

        freeReplyObject(reply);

        if (rc != NGX_OK) {
            return rc;
        }
    }
}


static void
ngx_http_keytoll_watch_message(redisReply *payload)
{
    u_char      *p, *last, *end;
    ngx_uint_t   relief;

    if (payload->type != REDIS_REPLY_STRING) {
        return;
    }

    p = (u_char *) payload->str;
    last = p + payload->len;

    if (payload->len == 1 && *p == '*') {
        ngx_http_keytoll_cache_flush();
        ngx_http_keytoll_blocks_end(1);
        return;
    }

    relief = payload->len > 2 && p[0] == '~' && p[1] == LF;

    if (relief) {
        p += 2;
    }

    while (p < last) {
        end = ngx_strlchr(p, last, LF);

        if (end == NULL) {
            end = last;
        }

        ngx_http_keytoll_cache_changed(p, end - p, relief);

        if (!relief) {
            ngx_http_keytoll_blocks_changed(p, end - p);
        }

        p = end + 1;
    }
}


static void
ngx_http_keytoll_watch_fail(void)
{
    ngx_http_keytoll_watch_t  *w;

    w = &ngx_http_keytoll_watch;

    ngx_http_keytoll_watch_enter(NGX_HTTP_KEYTOLL_W_DOWN);

    if (w->peer.connection) {
        ngx_close_connection(w->peer.connection);
        w->peer.connection = NULL;
    }

    if (w->reader) {
        redisReaderFree(w->reader);
        w->reader = NULL;
    }

    if (w->timer.timer_set) {
        ngx_del_timer(&w->timer);
    }

    if (!ngx_exiting) {
        ngx_add_timer(&w->timer, w->wait);
        w->wait = ngx_min(w->wait * 2, NGX_HTTP_KEYTOLL_WATCH_MAX);
    }
}
