
/*
 * Requests with keys that never passed here.  They wait behind those that did
 * and are asked about in bounded numbers, first come, first served: a flood of
 * made-up keys queues here and not in front of clients.
 *
 * While such a flood comes, Redis is first asked, before a body is read, in
 * one call of kt_known which of the keys there are, a fraction of what kt_admit
 * costs it.  Calls keep a distance, so that each has several keys.  Those that
 * exist are admitted in the usual way, a few milliseconds later than in quiet
 * times, and so are all when the call says anything else: only a master with
 * the generation that this worker has can tell that there is no such key.
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_STRANGERS    32        /* asked about at once       */
#define NGX_HTTP_KEYTOLL_SIEVE        128       /* in one call               */
#define NGX_HTTP_KEYTOLL_FLOOD        32        /* unknown keys in 2 s       */
#define NGX_HTTP_KEYTOLL_APART_MS     2         /* from sieve to sieve       */


typedef struct {
    ngx_uint_t                     n;
    uint64_t                       mark;        /* of the cache, when sent   */
    ngx_http_keytoll_pending_t     item[NGX_HTTP_KEYTOLL_SIEVE];
} ngx_http_keytoll_sieve_t;


static ngx_uint_t ngx_http_keytoll_flooded(void);
static ngx_http_keytoll_ctx_t *ngx_http_keytoll_stranger_next(void);
static void ngx_http_keytoll_stranger_pass(ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_strangers_sift(void);
static void ngx_http_keytoll_stranger_late(ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_sift_again(ngx_event_t *ev);
static ngx_int_t ngx_http_keytoll_sieve_send(ngx_http_keytoll_sieve_t *sieve);
static void ngx_http_keytoll_sieve_reply(void *data, redisReply *reply,
    ngx_uint_t last);
static u_char ngx_http_keytoll_sieve_says(ngx_http_keytoll_sieve_t *sieve,
    redisReply *reply, ngx_uint_t i);
static void ngx_http_keytoll_sieve_one(ngx_http_keytoll_sieve_t *sieve,
    ngx_http_keytoll_ctx_t *ctx, redisReply *reply, ngx_uint_t i);


static ngx_queue_t       ngx_http_keytoll_strange;
static ngx_uint_t        ngx_http_keytoll_sieves;    /* without a reply      */
static ngx_event_t       ngx_http_keytoll_apart;
static ngx_connection_t  ngx_http_keytoll_apart_dumb;
static time_t            ngx_http_keytoll_unknown_sec;
static ngx_uint_t        ngx_http_keytoll_unknown_now;
static ngx_uint_t        ngx_http_keytoll_unknown_before;


void
ngx_http_keytoll_stranger_init(void)
{
    ngx_queue_init(&ngx_http_keytoll_strange);

    ngx_http_keytoll_apart_dumb.fd = (ngx_socket_t) -1;
    ngx_http_keytoll_apart.handler = ngx_http_keytoll_sift_again;
    ngx_http_keytoll_apart.log = ngx_cycle->log;
    ngx_http_keytoll_apart.data = &ngx_http_keytoll_apart_dumb;
}


/* It waits for strangers_ask(). */

void
ngx_http_keytoll_stranger(ngx_http_keytoll_ctx_t *ctx)
{
    ctx->stranger = 1;
    ctx->queued = 1;
    ngx_queue_insert_tail(&ngx_http_keytoll_strange, &ctx->queue);
}


/*
 * Before the body is read: 1 when the request waits, to be answered or, should
 * its key exist, to be resumed for its body.
 */

ngx_uint_t
ngx_http_keytoll_stranger_unread(ngx_http_keytoll_ctx_t *ctx)
{
    if (!ngx_http_keytoll_flooded() || !ngx_http_keytoll_redis_ready()
        || !ngx_http_keytoll_registry_ready()
        || ngx_http_keytoll_cache_passed(ctx->token))
    {
        return 0;
    }

    ctx->state = NGX_HTTP_KEYTOLL_SIFT;

    ngx_http_keytoll_stranger(ctx);
    ngx_http_keytoll_redis_post();

    return 1;
}


/* Redis knew no such key. */

void
ngx_http_keytoll_stranger_unknown(void)
{
    time_t  past;

    past = ngx_time() - ngx_http_keytoll_unknown_sec;

    if (past) {
        ngx_http_keytoll_unknown_before = past == 1
                                          ? ngx_http_keytoll_unknown_now : 0;
        ngx_http_keytoll_unknown_now = 0;
        ngx_http_keytoll_unknown_sec = ngx_time();
    }

    ngx_http_keytoll_unknown_now++;
}


static ngx_uint_t
ngx_http_keytoll_flooded(void)
{
    time_t  past;

    past = ngx_time() - ngx_http_keytoll_unknown_sec;

    if (past > 1) {
        return 0;
    }

    return ngx_http_keytoll_unknown_now
           + (past ? 0 : ngx_http_keytoll_unknown_before)
           >= NGX_HTTP_KEYTOLL_FLOOD;
}


static ngx_http_keytoll_ctx_t *
ngx_http_keytoll_stranger_next(void)
{
    ngx_queue_t             *q;
    ngx_http_keytoll_ctx_t  *ctx;

    if (ngx_queue_empty(&ngx_http_keytoll_strange)) {
        return NULL;
    }

    q = ngx_queue_head(&ngx_http_keytoll_strange);
    ngx_queue_remove(q);

    ctx = ngx_queue_data(q, ngx_http_keytoll_ctx_t, queue);
    ctx->queued = 0;

    return ctx;
}


/* Not all of them need to be asked about, so there may be room again. */

void
ngx_http_keytoll_strangers_ask(void)
{
    ngx_uint_t               asked;
    ngx_http_keytoll_ctx_t  *ctx;

    while (!ngx_queue_empty(&ngx_http_keytoll_strange)) {

        if (ngx_http_keytoll_flooded() && ngx_http_keytoll_registry_ready()) {
            ngx_http_keytoll_strangers_sift();
            return;
        }

        asked = ngx_http_keytoll_call_strangers();

        if (asked >= NGX_HTTP_KEYTOLL_STRANGERS) {
            return;
        }

        while (asked++ < NGX_HTTP_KEYTOLL_STRANGERS) {
            ctx = ngx_http_keytoll_stranger_next();

            if (ctx == NULL) {
                break;
            }

            ngx_http_keytoll_stranger_pass(ctx);
        }

        ngx_http_keytoll_call_send();
    }
}


/* kt_admit has the last word; what it is asked may be in the body. */

static void
ngx_http_keytoll_stranger_pass(ngx_http_keytoll_ctx_t *ctx)
{
    if (ctx->state == NGX_HTTP_KEYTOLL_SIFT) {
        ctx->state = NGX_HTTP_KEYTOLL_SIFTED;
        ngx_http_keytoll_resume(ctx);
        return;
    }

    ngx_http_keytoll_ask(ctx);
}


/* One sieve at a time: what comes meanwhile shares the next. */

static void
ngx_http_keytoll_strangers_sift(void)
{
    ngx_uint_t                 i;
    ngx_http_keytoll_ctx_t    *ctx;
    ngx_http_keytoll_sieve_t  *sieve;

    if (ngx_http_keytoll_sieves || ngx_http_keytoll_apart.timer_set) {
        return;
    }

    ngx_add_timer(&ngx_http_keytoll_apart, NGX_HTTP_KEYTOLL_APART_MS);

    sieve = ngx_alloc(sizeof(ngx_http_keytoll_sieve_t), ngx_cycle->log);
    if (sieve == NULL) {
        return;
    }

    sieve->n = 0;

    while (sieve->n < NGX_HTTP_KEYTOLL_SIEVE) {
        ctx = ngx_http_keytoll_stranger_next();

        if (ctx == NULL) {
            break;
        }

        if (ctx->state == NGX_HTTP_KEYTOLL_SIFT
            || ngx_http_keytoll_answered(ctx) == NGX_OK)
        {
            ctx->pending = &sieve->item[sieve->n];
            sieve->item[sieve->n++].ctx = ctx;
        }
    }

    if (sieve->n == 0) {
        ngx_free(sieve);
        return;
    }

    if (ngx_http_keytoll_sieve_send(sieve) == NGX_OK) {
        ngx_http_keytoll_sieves++;
        return;
    }

    for (i = 0; i < sieve->n; i++) {
        ctx = sieve->item[i].ctx;
        ctx->pending = NULL;
        ngx_http_keytoll_stranger_late(ctx);
    }

    ngx_free(sieve);
}


/*
 * Redis did not say.  Only "keytoll_redis_failure allow" lets a key pass that
 * never passed before, and what it costs is in the body.
 */

static void
ngx_http_keytoll_stranger_late(ngx_http_keytoll_ctx_t *ctx)
{
    ngx_http_keytoll_loc_conf_t  *klcf;

    klcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_keytoll_module);

    if (ctx->state == NGX_HTTP_KEYTOLL_SIFT) {

        if (klcf->failure == NGX_HTTP_KEYTOLL_FAIL_ALLOW) {
            ngx_http_keytoll_stranger_pass(ctx);
            return;
        }

        ngx_http_keytoll_answer(ctx, KT_REDIS_DOWN, NULL);
        return;
    }

    ngx_http_keytoll_unavailable(ctx, KT_REDIS_DOWN);
}


static void
ngx_http_keytoll_sift_again(ngx_event_t *ev)
{
    ngx_http_keytoll_redis_post();
}


static ngx_int_t
ngx_http_keytoll_sieve_send(ngx_http_keytoll_sieve_t *sieve)
{
    ngx_str_t   argv[5 + NGX_HTTP_KEYTOLL_SIEVE];
    ngx_uint_t  i;

    sieve->mark = ngx_http_keytoll_cache_mark();

    ngx_str_set(&argv[0], "FCALL");
    ngx_str_set(&argv[1], "kt_known");
    ngx_str_set(&argv[2], "1");
    ngx_str_set(&argv[3], KT_REDIS_GEN);
    argv[4] = *ngx_http_keytoll_registry_gen();

    for (i = 0; i < sieve->n; i++) {
        argv[5 + i].data = sieve->item[i].ctx->token;
        argv[5 + i].len = KT_KEY_TOKEN_LEN;
    }

    return ngx_http_keytoll_redis_send(ngx_http_keytoll_sieve_reply, sieve,
                                       argv, 5 + sieve->n);
}


static void
ngx_http_keytoll_sieve_reply(void *data, redisReply *reply, ngx_uint_t last)
{
    ngx_uint_t                 i;
    ngx_http_keytoll_ctx_t    *ctx;
    ngx_http_keytoll_sieve_t  *sieve;

    sieve = data;

    for (i = 0; i < sieve->n; i++) {
        ctx = sieve->item[i].ctx;
        sieve->item[i].ctx = NULL;

        if (ctx == NULL) {
            continue;
        }

        ctx->pending = NULL;
        ctx->redis_us += ngx_http_keytoll_redis_took();
        ngx_http_keytoll_sieve_one(sieve, ctx, reply, i);
    }

    if (last) {
        ngx_free(sieve);
        ngx_http_keytoll_sieves--;

        ngx_http_keytoll_call_send();
        ngx_http_keytoll_redis_post();
    }
}


/* '0' or '1' as Redis knows the key, or 0 when it can not tell. */

static u_char
ngx_http_keytoll_sieve_says(ngx_http_keytoll_sieve_t *sieve,
    redisReply *reply, ngx_uint_t i)
{
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2
        || reply->element[0]->type != REDIS_REPLY_INTEGER
        || reply->element[0]->integer != KT_ADMITTED
        || reply->element[1]->type != REDIS_REPLY_STRING
        || reply->element[1]->len != sieve->n)
    {
        return 0;
    }

    return (u_char) reply->element[1]->str[i];
}


/* Nothing has been reserved: whoever leaves has nothing to give back. */

static void
ngx_http_keytoll_sieve_one(ngx_http_keytoll_sieve_t *sieve,
    ngx_http_keytoll_ctx_t *ctx, redisReply *reply, ngx_uint_t i)
{
    if (reply == NULL) {
        ngx_http_keytoll_stranger_late(ctx);
        return;
    }

    switch (ngx_http_keytoll_sieve_says(sieve, reply, i)) {

    case '0':
        ngx_http_keytoll_stranger_unknown();
        ngx_http_keytoll_cache_deny(ctx, KT_KEY_UNKNOWN, NULL, sieve->mark);
        ngx_http_keytoll_answer(ctx, KT_KEY_UNKNOWN, NULL);
        return;

    case '1':

        /* the next one is not asked about by name, be it refused or not */

        ngx_http_keytoll_cache_seen(ctx->token, 0, sieve->mark);
        break;

    default:
        break;
    }

    ngx_http_keytoll_stranger_pass(ctx);
}
