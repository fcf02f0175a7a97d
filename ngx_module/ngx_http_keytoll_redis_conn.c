
/*
 * The connection itself: opening it, its first commands, bytes out and in,
 * deadlines, and its end.
 */


#include "ngx_http_keytoll_redis.h"


#define NGX_HTTP_KEYTOLL_BACKOFF_MAX  500       /* ms                        */
#define NGX_HTTP_KEYTOLL_ELEMENTS     4096      /* of one array in a reply   */


static void ngx_http_keytoll_redis_hello(void);
static void ngx_http_keytoll_redis_auth_reply(void *data, redisReply *reply,
    ngx_uint_t last);
static void ngx_http_keytoll_redis_info_reply(void *data, redisReply *reply,
    ngx_uint_t last);
static void ngx_http_keytoll_redis_read(ngx_event_t *rev);
static ngx_int_t ngx_http_keytoll_redis_replies(void);
static void ngx_http_keytoll_redis_fail(const char *why);


#if (HIREDIS_MAJOR < 1)

static redisReplyObjectFunctions  ngx_http_keytoll_redis_fn;
static redisReplyObjectFunctions *ngx_http_keytoll_redis_default_fn;


static void *
ngx_http_keytoll_redis_array(const redisReadTask *task, int elements)
{
    if (elements > NGX_HTTP_KEYTOLL_ELEMENTS) {
        return NULL;
    }

    return ngx_http_keytoll_redis_default_fn->createArray(task, elements);
}

#endif


/*
 * A reader that refuses arrays of a length that Redis never sends: to free
 * one, hiredis visits every element that was announced, for seconds.
 */

redisReader *
ngx_http_keytoll_redis_reader(void)
{
    redisReader  *reader;

    reader = redisReaderCreate();
    if (reader == NULL) {
        return NULL;
    }

#if (HIREDIS_MAJOR < 1)

    if (ngx_http_keytoll_redis_default_fn == NULL) {
        ngx_http_keytoll_redis_default_fn = reader->fn;
        ngx_http_keytoll_redis_fn = *reader->fn;
        ngx_http_keytoll_redis_fn.createArray = ngx_http_keytoll_redis_array;
    }

    reader->fn = &ngx_http_keytoll_redis_fn;

#else

    reader->maxelements = NGX_HTTP_KEYTOLL_ELEMENTS;

#endif

    return reader;
}


void
ngx_http_keytoll_redis_connect(ngx_event_t *ev)
{
    ngx_int_t                      rv;
    ngx_connection_t              *c;
    ngx_http_keytoll_redis_t      *rc;
    ngx_http_keytoll_main_conf_t  *kmcf;

    rc = &ngx_http_keytoll_redis;
    kmcf = ngx_http_keytoll_conf();

    if (rc->state != NGX_HTTP_KEYTOLL_R_DOWN) {
        return;
    }

    ngx_memzero(&rc->peer, sizeof(ngx_peer_connection_t));

    rc->peer.sockaddr = kmcf->redis->sockaddr;
    rc->peer.socklen = kmcf->redis->socklen;
    rc->peer.name = &kmcf->redis->name;
    rc->peer.get = ngx_event_get_peer;
    rc->peer.log = rc->log;
    rc->peer.log_error = NGX_ERROR_ERR;

    rc->reader = ngx_http_keytoll_redis_reader();
    if (rc->reader == NULL) {
        ngx_http_keytoll_redis_fail("out of memory");
        return;
    }

    rv = ngx_event_connect_peer(&rc->peer);

    if (rv == NGX_ERROR || rv == NGX_BUSY || rv == NGX_DECLINED) {
        ngx_http_keytoll_redis_fail("connect() failed");
        return;
    }

    c = rc->peer.connection;
    c->read->handler = ngx_http_keytoll_redis_read;
    c->write->handler = ngx_http_keytoll_redis_write;
    c->read->log = rc->log;
    c->write->log = rc->log;
    c->log = rc->log;

    if (c->sockaddr && c->sockaddr->sa_family != AF_UNIX) {
        (void) ngx_tcp_nodelay(c);
    }

    ngx_http_keytoll_redis_enter(NGX_HTTP_KEYTOLL_R_CONNECTING);
    rc->out_len = 0;
    rc->out_sent = 0;

    if (rv == NGX_AGAIN) {
        ngx_add_timer(&rc->deadline, ngx_max(rc->timeout,
                                             NGX_HTTP_KEYTOLL_UP));
        return;
    }

    ngx_http_keytoll_redis_hello();
}


/* Everything a new connection needs goes out in one write. */

static void
ngx_http_keytoll_redis_hello(void)
{
    ngx_str_t                      argv[3];
    ngx_http_keytoll_main_conf_t  *kmcf;

    kmcf = ngx_http_keytoll_conf();

    ngx_http_keytoll_redis_enter(NGX_HTTP_KEYTOLL_R_HELLO);

    if (kmcf->redis_password.len) {
        ngx_str_set(&argv[0], "AUTH");
        argv[1] = kmcf->redis_user;
        argv[2] = kmcf->redis_password;

        if (ngx_http_keytoll_redis_queue(ngx_http_keytoll_redis_auth_reply,
                                         NULL, argv, 3)
            != NGX_OK)
        {
            ngx_http_keytoll_redis_fail("out of memory");
            return;
        }
    }

    ngx_str_set(&argv[0], "INFO");
    ngx_str_set(&argv[1], "server");

    if (ngx_http_keytoll_redis_queue(ngx_http_keytoll_redis_info_reply, NULL,
                                     argv, 2)
        != NGX_OK)
    {
        ngx_http_keytoll_redis_fail("out of memory");
    }
}


static void
ngx_http_keytoll_redis_auth_reply(void *data, redisReply *reply,
    ngx_uint_t last)
{
    if (reply && reply->type == REDIS_REPLY_ERROR) {
        ngx_http_keytoll_redis_fail("AUTH was refused, check the user and "
                                    "password of \"keytoll_redis\"");
    }
}


/*
 * A run_id that differs from the one before means that Redis restarted or
 * another one took over: it may have forgotten the latest settlements and
 * holds, so everything that the journal still keeps is sent again.
 */

static void
ngx_http_keytoll_redis_info_reply(void *data, redisReply *reply,
    ngx_uint_t last)
{
    u_char                    *p;
    ngx_uint_t                 changed;
    ngx_http_keytoll_redis_t  *rc;

    rc = &ngx_http_keytoll_redis;

    if (reply == NULL) {
        return;
    }

    if (reply->type != REDIS_REPLY_STRING) {
        ngx_http_keytoll_redis_fail(reply->type == REDIS_REPLY_ERROR
                                    ? "INFO was refused"
                                    : "no answer to INFO");
        return;
    }

    p = (u_char *) ngx_strstr(reply->str, "run_id:");
    if (p == NULL || ngx_strlen(p) < 7 + sizeof(rc->run_id)) {
        ngx_http_keytoll_redis_fail("no run_id in the answer to INFO");
        return;
    }

    p += 7;
    changed = ngx_memcmp(p, rc->run_id, sizeof(rc->run_id)) != 0;
    ngx_memcpy(rc->run_id, p, sizeof(rc->run_id));

    ngx_http_keytoll_redis_enter(NGX_HTTP_KEYTOLL_R_READY);
    rc->wait = 50;
    ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_REDIS_CONNECTS, 1);

    if (rc->failing) {
        rc->failing = 0;
        ngx_log_error(NGX_LOG_NOTICE, rc->log, 0,
                      "keytoll: redis %V is back", rc->peer.name);
    }

    if (changed && rc->known) {
        ngx_log_error(NGX_LOG_NOTICE, rc->log, 0, "keytoll: redis %V has a "
                      "new run_id, replaying the journal", rc->peer.name);
        ngx_http_keytoll_journal_replay();
        ngx_http_keytoll_renew(1);
    }

    rc->known = 1;

    ngx_http_keytoll_registry_refresh();
    ngx_http_keytoll_settle_retry();
}


void
ngx_http_keytoll_redis_write(ngx_event_t *wev)
{
    int                        err;
    ssize_t                    n;
    socklen_t                  len;
    ngx_connection_t          *c;
    ngx_http_keytoll_redis_t  *rc;

    rc = &ngx_http_keytoll_redis;
    c = wev->data;

    if (c != rc->peer.connection) {
        return;
    }

    if (rc->state == NGX_HTTP_KEYTOLL_R_CONNECTING) {

        err = 0;
        len = sizeof(int);

        if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, (void *) &err, &len) == -1
            || err)
        {
            ngx_http_keytoll_redis_fail("connect() failed");
            return;
        }

        if (rc->deadline.timer_set) {
            ngx_del_timer(&rc->deadline);
        }

        ngx_http_keytoll_redis_hello();

        if (rc->peer.connection != c) {
            return;
        }
    }

    while (rc->out_sent < rc->out_len) {
        n = c->send(c, rc->out + rc->out_sent, rc->out_len - rc->out_sent);

        if (n == NGX_AGAIN) {
            break;
        }

        if (n <= 0) {
            ngx_http_keytoll_redis_fail("write failed");
            return;
        }

        rc->out_sent += n;
    }

    if (rc->out_sent == rc->out_len) {
        rc->out_sent = 0;
        rc->out_len = 0;
    }

    if (ngx_handle_write_event(wev, 0) != NGX_OK) {
        ngx_http_keytoll_redis_fail("write event failed");
    }
}


static void
ngx_http_keytoll_redis_read(ngx_event_t *rev)
{
    ssize_t                    n;
    ngx_connection_t          *c;
    ngx_http_keytoll_redis_t  *rc;

    static u_char  buf[65536];

    rc = &ngx_http_keytoll_redis;
    c = rev->data;

    if (c != rc->peer.connection) {
        return;
    }

    /* set by ngx_shutdown_timer_handler(), which calls every read handler */

    if (c->close) {
        ngx_http_keytoll_redis_fail("worker_shutdown_timeout");
        return;
    }

    for ( ;; ) {
        n = c->recv(c, buf, sizeof(buf));

        if (n == NGX_AGAIN) {
            break;
        }

        if (n <= 0) {
            ngx_http_keytoll_redis_fail(n == 0 ? "connection closed"
                                               : "read failed");
            return;
        }

        if (redisReaderFeed(rc->reader, (char *) buf, n) != REDIS_OK
            || ngx_http_keytoll_redis_replies() != NGX_OK)
        {
            if (rc->peer.connection == c) {
                ngx_http_keytoll_redis_fail("malformed reply");
            }

            return;
        }
    }

    if (ngx_handle_read_event(rev, 0) != NGX_OK) {
        ngx_http_keytoll_redis_fail("read event failed");
    }
}


static ngx_int_t
ngx_http_keytoll_redis_replies(void)
{
    uint64_t                   now_us;
    redisReply                *reply;
    ngx_uint_t                 replica;
    redisReader               *reader;
    ngx_http_keytoll_op_t      op;
    ngx_http_keytoll_redis_t  *rc;

    rc = &ngx_http_keytoll_redis;
    reader = rc->reader;
    now_us = ngx_http_keytoll_now_us();

    for ( ;; ) {
        reply = NULL;

        if (redisReaderGetReply(reader, (void **) &reply) != REDIS_OK) {
            return NGX_ERROR;
        }

        if (reply == NULL) {
            break;
        }

        if (rc->head == rc->tail) {
            freeReplyObject(reply);
            return NGX_ERROR;
        }

        op = rc->ops[rc->head++ & (NGX_HTTP_KEYTOLL_OPS - 1)];

        rc->took_us = now_us - op.sent_us;
        ngx_http_keytoll_observe(rc->took_us);

        if (reply->type == REDIS_REPLY_ERROR) {
            ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_REDIS_ERRORS, 1);

            if (ngx_time() - rc->logged >= 1) {
                rc->logged = ngx_time();
                ngx_log_error(NGX_LOG_ERR, rc->log, 0,
                              "keytoll: redis %V answered \"%s\"",
                              rc->peer.name, reply->str);
            }
        }

        replica = reply->type == REDIS_REPLY_ERROR
                  && ngx_strncmp(reply->str, "READONLY", 8) == 0;

        op.handler(op.data, reply, 1);

        freeReplyObject(reply);

        if (rc->reader != reader) {

            /* the handler closed the connection */

            return NGX_ERROR;
        }

        if (replica) {

            /* the address may lead to the new master by now */

            ngx_http_keytoll_redis_fail("is not the master");
            return NGX_ERROR;
        }
    }

    if (rc->deadline.timer_set) {
        ngx_del_timer(&rc->deadline);
    }

    if (rc->head != rc->tail) {
        ngx_msec_int_t  left;

        left = (ngx_msec_int_t)
                (rc->ops[rc->head & (NGX_HTTP_KEYTOLL_OPS - 1)].deadline
                 - ngx_current_msec);

        ngx_add_timer(&rc->deadline, left > 1 ? (ngx_msec_t) left : 1);
    }

    return NGX_OK;
}


void
ngx_http_keytoll_redis_late(ngx_event_t *ev)
{
    uint64_t                   now_us;
    ngx_uint_t                 i, missed;
    ngx_http_keytoll_op_t     *op;
    ngx_http_keytoll_redis_t  *rc;

    rc = &ngx_http_keytoll_redis;

    if (rc->state < NGX_HTTP_KEYTOLL_R_READY) {
        ngx_http_keytoll_redis_fail("timed out");
        return;
    }

    if (rc->head == rc->tail) {
        return;
    }

    op = &rc->ops[rc->head & (NGX_HTTP_KEYTOLL_OPS - 1)];

    if (op->answered) {
        ngx_http_keytoll_redis_fail("timed out");
        return;
    }

    missed = 0;
    now_us = ngx_http_keytoll_now_us();

    for (i = rc->head; i != rc->tail; i++) {
        op = &rc->ops[i & (NGX_HTTP_KEYTOLL_OPS - 1)];

        if ((ngx_msec_int_t) (op->deadline - ngx_current_msec) > 0) {
            break;
        }

        if (!op->answered) {
            op->answered = 1;
            missed++;
            rc->took_us = now_us - op->sent_us;
            op->handler(op->data, NULL, 0);

            if (rc->state != NGX_HTTP_KEYTOLL_R_READY) {
                return;
            }
        }
    }

    ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_REDIS_TIMEOUTS, missed);

    ngx_add_timer(&rc->deadline, rc->timeout);
}


/* Detach first, then answer everybody, then come back later. */

static void
ngx_http_keytoll_redis_fail(const char *why)
{
    uint64_t                   now_us;
    ngx_uint_t                 head, tail;
    redisReader               *reader;
    ngx_connection_t          *c;
    ngx_http_keytoll_op_t     *op;
    ngx_http_keytoll_redis_t  *rc;

    rc = &ngx_http_keytoll_redis;

    if (!rc->failing || why != rc->why || ngx_time() - rc->logged >= 10) {
        rc->logged = ngx_time();
        rc->why = why;
        ngx_log_error(NGX_LOG_ERR, rc->log, 0,
                      "keytoll: redis %V: %s, will come back in %M ms",
                      &ngx_http_keytoll_conf()->redis->name, why, rc->wait);
    }

    rc->failing = 1;
    rc->starting = 0;
    ngx_http_keytoll_redis_enter(NGX_HTTP_KEYTOLL_R_DOWN);

    c = rc->peer.connection;
    rc->peer.connection = NULL;

    reader = rc->reader;
    rc->reader = NULL;

    head = rc->head;
    tail = rc->tail;
    now_us = ngx_http_keytoll_now_us();
    rc->head = 0;
    rc->tail = 0;
    rc->out_len = 0;
    rc->out_sent = 0;

    if (c) {
        ngx_close_connection(c);
    }

    if (reader) {
        redisReaderFree(reader);
    }

    if (rc->deadline.timer_set) {
        ngx_del_timer(&rc->deadline);
    }

    ngx_http_keytoll_registry_lost();
    ngx_http_keytoll_redis_post();

    for ( /* void */ ; head != tail; head++) {
        op = &rc->ops[head & (NGX_HTTP_KEYTOLL_OPS - 1)];
        rc->took_us = now_us - op->sent_us;
        op->handler(op->data, NULL, 1);
    }

    if (!rc->backoff.timer_set) {
        ngx_add_timer(&rc->backoff, rc->wait + (ngx_msec_t) ngx_random()
                                               % (rc->wait / 4 + 1));
        rc->wait = ngx_min(rc->wait * 2, NGX_HTTP_KEYTOLL_BACKOFF_MAX);
    }
}
