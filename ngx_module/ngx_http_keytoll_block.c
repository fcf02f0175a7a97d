
/*
 * "keytoll_lease on": a hot key takes blocks of quota from Redis and is
 * admitted from them here, without asking (lua/block.lua).
 *
 * An entry is what requests of one group have in common (call.c): it measures
 * how many come and holds the block in use and the next.  A block lives until
 * its last request is settled; what is left of it is given back when it ends,
 * at the latest with the second of Redis' clock that it was taken in.  What
 * does not fit a block, or has none, is asked of Redis as ever.
 *
 *   entry: cold -> asked -> with a block -> ... -> cold
 *   block: open -> ended (not used any more) -> gone (settled, no reader)
 *
 * A change of policy ends the blocks that rely on it; whoever made the change
 * waits until none can be used, whether or not we heard of it.
 */


#include "ngx_http_keytoll_block.h"


#define NGX_HTTP_KEYTOLL_BLOCK_MIN    8
#define NGX_HTTP_KEYTOLL_BLOCK_MAX    1000
#define NGX_HTTP_KEYTOLL_BLOCK_LEASE  "60000"
#define NGX_HTTP_KEYTOLL_BLOCK_TICK   100       /* ms                        */
#define NGX_HTTP_KEYTOLL_BLOCK_RENEW  20        /* ticks                     */
#define NGX_HTTP_KEYTOLL_BLOCK_EARLY  10        /* ms, clocks and the way    */
#define NGX_HTTP_KEYTOLL_BLOCK_HOT    4         /* requests in one span      */


typedef struct {
    ngx_http_keytoll_entry_t      *entry;
    ngx_msec_t                     sent;
    uint64_t                       mark;        /* of the cache              */
    ngx_http_keytoll_block_t      *block;
} ngx_http_keytoll_ask_t;


static ngx_int_t ngx_http_keytoll_block_use(ngx_http_keytoll_block_t *b,
    ngx_http_keytoll_ctx_t *ctx, int64_t *need);
static void ngx_http_keytoll_block_ask(ngx_http_keytoll_entry_t *e,
    ngx_msec_t now);
static void ngx_http_keytoll_block_reply(void *data, redisReply *reply,
    ngx_uint_t last);
static ngx_int_t ngx_http_keytoll_block_keep(ngx_http_keytoll_block_t *b,
    redisReply *group, redisReply *receipt);
static void ngx_http_keytoll_block_end(ngx_http_keytoll_block_t **bp,
    ngx_uint_t give_back);
static void ngx_http_keytoll_block_unref(ngx_http_keytoll_block_t *b);
static void ngx_http_keytoll_block_ended(void *data, redisReply *reply,
    ngx_uint_t last);
static void ngx_http_keytoll_block_tick(ngx_event_t *ev);
static void ngx_http_keytoll_block_renew(void);


static ngx_queue_t                ngx_http_keytoll_blocks;
static ngx_event_t                ngx_http_keytoll_block_ev;
static ngx_connection_t           ngx_http_keytoll_block_dumb;
static ngx_uint_t                 ngx_http_keytoll_ticks;


/* The clock itself: the event loop's may be a whole turn old. */

static ngx_msec_t
ngx_http_keytoll_block_now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_BOOTTIME, &ts);

    return (ngx_msec_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}


/* With the first entry. */

void
ngx_http_keytoll_block_init(void)
{
    ngx_queue_init(&ngx_http_keytoll_blocks);

    ngx_http_keytoll_block_dumb.fd = (ngx_socket_t) -1;
    ngx_http_keytoll_block_ev.handler = ngx_http_keytoll_block_tick;
    ngx_http_keytoll_block_ev.data = &ngx_http_keytoll_block_dumb;
    ngx_http_keytoll_block_ev.log = ngx_cycle->log;
    ngx_http_keytoll_block_ev.cancelable = 1;
}


/*
 * Admits ctx from a block: NGX_OK; NGX_DECLINED when Redis has to be asked.
 * Takes note of the demand in any case.
 */

ngx_int_t
ngx_http_keytoll_block_take(ngx_http_keytoll_ctx_t *ctx)
{
    int64_t                    need[NGX_HTTP_KEYTOLL_AMOUNTS];
    ngx_msec_t                 now;
    ngx_http_keytoll_entry_t  *e;

    e = ngx_http_keytoll_entry(ctx);

    if (e == NULL) {
        return NGX_DECLINED;
    }

    need[0] = ctx->bound_nusd;
    need[1] = NGX_HTTP_KEYTOLL_CREDIT;
    need[2] = ctx->in_bound;
    need[3] = ctx->in_typ;
    need[4] = ctx->out_bound;
    need[5] = ctx->out_typ;

    now = ngx_http_keytoll_block_now();

    ngx_http_keytoll_demand(e, need, now);

    while (e->block) {

        if ((ngx_msec_int_t) (e->block->stop - now) > 0
            && ngx_http_keytoll_block_use(e->block, ctx, need) == NGX_OK)
        {
            if (e->block->left_n * 2 < e->block->n && e->next == NULL) {
                ngx_http_keytoll_block_ask(e, now);
            }

            return NGX_OK;
        }

        if (e->next == NULL
            && (ngx_msec_int_t) (e->block->stop - now) > 0
            && e->block->left_n * 8 > e->block->n)
        {
            /* it is this request that is large */

            return NGX_DECLINED;
        }

        ngx_http_keytoll_block_end(&e->block, 1);
        e->block = e->next;
        e->next = NULL;
    }

    ngx_http_keytoll_block_ask(e, now);

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_keytoll_block_use(ngx_http_keytoll_block_t *b,
    ngx_http_keytoll_ctx_t *ctx, int64_t *need)
{
    ngx_uint_t  i;

    if (b->left_n == 0) {
        return NGX_DECLINED;
    }

    for (i = 0; i < NGX_HTTP_KEYTOLL_AMOUNTS; i++) {
        if (need[i] > b->left[i]) {
            return NGX_DECLINED;
        }
    }

    if (ngx_http_keytoll_granted_block(ctx, b) != NGX_OK) {
        return NGX_DECLINED;
    }

    b->left_n--;

    for (i = 0; i < NGX_HTTP_KEYTOLL_AMOUNTS; i++) {
        b->left[i] -= need[i];
    }

    /* to the client, what is left of the block has not been used */

    ctx->after.n = b->left_n;
    ctx->after.in_bound = b->left[2];
    ctx->after.in_typ = b->left[3];
    ctx->after.out_bound = b->left[4];
    ctx->after.out_typ = b->left[5];

    ctx->block = b;
    b->refs++;
    b->unsettled++;

    ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_LEASED, 1);

    return NGX_OK;
}


static u_char *
ngx_http_keytoll_block_amounts(u_char *p, int64_t *v)
{
    p = ngx_http_keytoll_amount(p, v[0]);
    p = ngx_http_keytoll_amount(p, v[1]);
    p = ngx_http_keytoll_amount(p, 0);

    return ngx_cpymem(p, &v[2], 4 * sizeof(int64_t));
}


static void
ngx_http_keytoll_block_ask(ngx_http_keytoll_entry_t *e, ngx_msec_t now)
{
    u_char                     flags[NGX_INT64_LEN], n[NGX_INT64_LEN + 1];
    u_char                     amounts[KT_HOLD_AMOUNTS];
    ngx_str_t                 *a, argv[18];
    ngx_uint_t                 i, rate;
    ngx_http_keytoll_ask_t    *ask;
    ngx_http_keytoll_block_t  *b;

    rate = ngx_max(e->rate, e->demand);

    if (e->asked || rate < NGX_HTTP_KEYTOLL_BLOCK_HOT
        || (ngx_msec_int_t) (e->cold - now) > 0)
    {
        return;
    }

    b = ngx_calloc(sizeof(ngx_http_keytoll_block_t), ngx_cycle->log);
    ask = ngx_alloc(sizeof(ngx_http_keytoll_ask_t), ngx_cycle->log);

    if (b == NULL || ask == NULL
        || ngx_http_keytoll_rid(b->bid) != NGX_OK)
    {
        goto failed;
    }

    b->n = ngx_min(ngx_max(rate * 4, NGX_HTTP_KEYTOLL_BLOCK_MIN),
                   NGX_HTTP_KEYTOLL_BLOCK_MAX);
    b->left_n = b->n;

    for (i = 0; i < NGX_HTTP_KEYTOLL_AMOUNTS; i++) {

        if (e->most[i] > NGX_MAX_OFF_T_VALUE / (int64_t) b->n) {
            goto failed;
        }

        b->left[i] = e->most[i] * (int64_t) b->n;
    }

    ask->entry = e;
    ask->block = b;
    ask->sent = now;
    ask->mark = ngx_http_keytoll_cache_mark();

    a = argv;
    ngx_str_set(a, "FCALL"); a++;
    ngx_str_set(a, "kt_admit"); a++;
    ngx_str_set(a, "1"); a++;
    ngx_str_set(a, KT_REDIS_GEN); a++;
    *a++ = *ngx_http_keytoll_registry_gen();
    ngx_str_set(a, NGX_HTTP_KEYTOLL_BLOCK_LEASE); a++;
    a->data = e->token; a->len = KT_KEY_TOKEN_LEN; a++;
    *a++ = e->model;
    *a++ = e->class;
    *a++ = e->uri;
    a->data = flags; a->len = ngx_sprintf(flags, "%ui", e->flags) - flags;
    a++;
    *a++ = e->customer;
    *a++ = e->tag_names;
    *a++ = e->provider;
    ngx_str_set(a, "1"); a++;
    a->data = b->bid; a->len = KT_RID_LEN; a++;
    a->data = amounts;
    a->len = ngx_http_keytoll_block_amounts(amounts, b->left) - amounts; a++;
    a->data = n; a->len = ngx_sprintf(n, "*%ui", b->n) - n; a++;

    if (ngx_http_keytoll_redis_send(ngx_http_keytoll_block_reply, ask, argv,
                                    a - argv)
        == NGX_OK)
    {
        e->asked = 1;
        return;
    }

failed:

    if (b) {
        ngx_free(b);
    }

    if (ask) {
        ngx_free(ask);
    }
}


static void
ngx_http_keytoll_block_reply(void *data, redisReply *reply, ngx_uint_t last)
{
    int64_t                    now_ms, stop_ms;
    redisReply                *group, *v;
    ngx_http_keytoll_ask_t    *ask;
    ngx_http_keytoll_entry_t  *e;
    ngx_http_keytoll_block_t  *b;

    if (!last) {
        return;
    }

    ask = data;
    e = ask->entry;
    b = ask->block;

    e->asked = 0;

    if (reply == NULL || reply->type != REDIS_REPLY_ARRAY
        || reply->elements != 3
        || reply->element[0]->type != REDIS_REPLY_INTEGER
        || reply->element[0]->integer != KT_ADMITTED
        || reply->element[1]->type != REDIS_REPLY_STRING)
    {
        goto none;
    }

    group = reply->element[2];

    if (group->type != REDIS_REPLY_ARRAY || group->elements != 7) {
        goto none;
    }

    v = group->element[6];

    if (v->type != REDIS_REPLY_ARRAY || v->elements != 2
        || v->element[0]->type != REDIS_REPLY_STRING
        || v->element[1]->type != REDIS_REPLY_STRING)
    {
        goto none;
    }

    now_ms = strtoll(reply->element[1]->str, NULL, 10);
    stop_ms = strtoll(v->element[0]->str, NULL, 10);

    if (stop_ms == 0) {
        goto none;
    }

    /* from here on it is reserved: used, or given back */

    b->refs = 1;
    ngx_queue_insert_tail(&ngx_http_keytoll_blocks, &b->queue);
    b->stop = ask->sent + (ngx_msec_t) (stop_ms - now_ms)
              - NGX_HTTP_KEYTOLL_BLOCK_EARLY;

    if (!ngx_http_keytoll_block_ev.timer_set) {
        ngx_add_timer(&ngx_http_keytoll_block_ev,
                      NGX_HTTP_KEYTOLL_BLOCK_TICK);
    }

    if (ngx_http_keytoll_block_keep(b, group, v->element[1]) != NGX_OK
        || stop_ms - now_ms <= NGX_HTTP_KEYTOLL_BLOCK_EARLY || e->next)
    {
        ngx_http_keytoll_block_end(&b, 1);

    } else if (e->block) {
        e->next = b;

    } else {
        e->block = b;
    }

    ngx_http_keytoll_cache_seen(e->token,
                              group->element[5]->type == REDIS_REPLY_INTEGER
                              && group->element[5]->integer == 0, ask->mark);

    ngx_free(ask);
    return;

none:

    /* near a limit, or refused: one by one for a while */

    e->cold = ngx_http_keytoll_block_now() + NGX_HTTP_KEYTOLL_BLOCK_TICK;

    ngx_free(b);
    ngx_free(ask);
}


static ngx_int_t
ngx_http_keytoll_block_keep(ngx_http_keytoll_block_t *b, redisReply *group,
    redisReply *receipt)
{
    u_char      *p;
    size_t       len;
    ngx_str_t   *to[5];
    redisReply  *from[5];
    ngx_uint_t   i;

    to[0] = &b->receipt;   from[0] = receipt;
    to[1] = &b->rates;     from[1] = group->element[1];
    to[2] = &b->alias;     from[2] = group->element[2];
    to[3] = &b->key_spend; from[3] = group->element[3];
    to[4] = &b->key_limit; from[4] = group->element[4];

    for (i = 0, len = 1; i < 5; i++) {
        if (from[i]->type != REDIS_REPLY_STRING) {
            return NGX_ERROR;
        }

        len += from[i]->len;
    }

    p = ngx_alloc(len, ngx_cycle->log);
    if (p == NULL) {
        return NGX_ERROR;
    }

    b->data = p;

    for (i = 0; i < 5; i++) {
        to[i]->data = p;
        to[i]->len = from[i]->len;
        p = ngx_cpymem(p, from[i]->str, from[i]->len);
    }

    return NGX_OK;
}


/* *bp is used no more; NULL is fine.  give_back: Redis still knows it. */

static void
ngx_http_keytoll_block_end(ngx_http_keytoll_block_t **bp,
    ngx_uint_t give_back)
{
    u_char                     n[NGX_INT64_LEN], amounts[KT_HOLD_AMOUNTS];
    ngx_str_t                  argv[7];
    ngx_http_keytoll_block_t  *b;

    b = *bp;
    *bp = NULL;

    if (b == NULL) {
        return;
    }

    if (give_back && b->left_n) {
        ngx_str_set(&argv[0], "FCALL");
        ngx_str_set(&argv[1], "kt_block_end");
        ngx_str_set(&argv[2], "1");
        ngx_str_set(&argv[3], KT_REDIS_GEN);
        argv[4].data = b->bid;
        argv[4].len = KT_RID_LEN;
        argv[5].data = n;
        argv[5].len = ngx_sprintf(n, "%ui", b->left_n) - n;
        argv[6].data = amounts;
        argv[6].len = ngx_http_keytoll_block_amounts(amounts, b->left)
                      - amounts;

        (void) ngx_http_keytoll_redis_send(ngx_http_keytoll_block_ended, NULL,
                                           argv, 7);
    }

    b->left_n = 0;

    ngx_http_keytoll_block_unref(b);
}


static void
ngx_http_keytoll_block_ended(void *data, redisReply *reply, ngx_uint_t last)
{
    /* what was not given back ends with the block's lease */
}


static void
ngx_http_keytoll_block_unref(ngx_http_keytoll_block_t *b)
{
    if (--b->refs) {
        return;
    }

    ngx_queue_remove(&b->queue);

    if (b->data) {
        ngx_free(b->data);
    }

    ngx_free(b);
}


/* The request is settled: its share of the block is. */

void
ngx_http_keytoll_block_settled(ngx_http_keytoll_ctx_t *ctx)
{
    if (ctx->block) {
        ctx->block->unsettled--;
    }
}


/* The request is gone: it reads nothing of the block any more. */

void
ngx_http_keytoll_block_leave(ngx_http_keytoll_ctx_t *ctx)
{
    if (ctx->block) {
        ngx_http_keytoll_block_unref(ctx->block);
        ctx->block = NULL;
    }
}


static void
ngx_http_keytoll_entry_end(ngx_http_keytoll_entry_t *e, ngx_uint_t give_back)
{
    ngx_http_keytoll_block_end(&e->block, give_back);
    ngx_http_keytoll_block_end(&e->next, give_back);
}


/* All blocks: of a Redis that is lost, or of a worker that ends. */

void
ngx_http_keytoll_blocks_end(ngx_uint_t give_back)
{
    ngx_uint_t  i;

    for (i = 0; ngx_http_keytoll_entries && i < NGX_HTTP_KEYTOLL_ENTRIES; i++) {
        ngx_http_keytoll_entry_end(&ngx_http_keytoll_entries[i], give_back);
    }
}


static ngx_uint_t
ngx_http_keytoll_block_names(ngx_http_keytoll_block_t *b, u_char *name,
    size_t len)
{
    u_char  *p, *last;

    if (b == NULL) {
        return 0;
    }

    p = b->receipt.data;
    last = p + b->receipt.len;

    while ((p = ngx_strlchr(p, last, LF)) != NULL) {
        p++;

        if ((size_t) (last - p) > len && p[len] == '\t'
            && ngx_memcmp(p, name, len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


/* The policy of name changed. */

void
ngx_http_keytoll_blocks_changed(u_char *name, size_t len)
{
    ngx_uint_t                 i;
    ngx_http_keytoll_entry_t  *e;

    for (i = 0; ngx_http_keytoll_entries && i < NGX_HTTP_KEYTOLL_ENTRIES; i++) {
        e = &ngx_http_keytoll_entries[i];

        if (ngx_http_keytoll_block_names(e->block, name, len)
            || ngx_http_keytoll_block_names(e->next, name, len))
        {
            ngx_http_keytoll_entry_end(e, 1);
        }
    }
}


static void
ngx_http_keytoll_block_tick(ngx_event_t *ev)
{
    ngx_uint_t                 i;
    ngx_msec_t                 now;
    ngx_http_keytoll_entry_t  *e;

    now = ngx_http_keytoll_block_now();

    for (i = 0; i < NGX_HTTP_KEYTOLL_ENTRIES; i++) {
        e = &ngx_http_keytoll_entries[i];

        if (e->block && (ngx_msec_int_t) (e->block->stop - now) <= 0) {
            ngx_http_keytoll_block_end(&e->block, 1);
            e->block = e->next;
            e->next = NULL;
        }
    }

    if (++ngx_http_keytoll_ticks % NGX_HTTP_KEYTOLL_BLOCK_RENEW == 0) {
        ngx_http_keytoll_block_renew();
    }

    if (!ngx_queue_empty(&ngx_http_keytoll_blocks)) {
        ngx_add_timer(ev, NGX_HTTP_KEYTOLL_BLOCK_TICK);
    }
}


/* Blocks whose requests still run. */

static void
ngx_http_keytoll_block_renew(void)
{
    ngx_str_t                  argv[5 + 2 * NGX_HTTP_KEYTOLL_BATCH];
    ngx_uint_t                 n;
    ngx_queue_t               *q;
    ngx_http_keytoll_block_t  *b;

    ngx_str_set(&argv[0], "FCALL");
    ngx_str_set(&argv[1], "kt_renew");
    ngx_str_set(&argv[2], "1");
    ngx_str_set(&argv[3], KT_REDIS_GEN);
    ngx_str_set(&argv[4], NGX_HTTP_KEYTOLL_BLOCK_LEASE);

    n = 5;

    for (q = ngx_queue_head(&ngx_http_keytoll_blocks);
         q != ngx_queue_sentinel(&ngx_http_keytoll_blocks);
         q = ngx_queue_next(q))
    {
        b = ngx_queue_data(q, ngx_http_keytoll_block_t, queue);

        if (b->unsettled == 0) {
            continue;
        }

        argv[n].data = b->bid;
        argv[n++].len = KT_RID_LEN;
        ngx_str_null(&argv[n]);
        n++;

        if (n == 5 + 2 * NGX_HTTP_KEYTOLL_BATCH) {
            (void) ngx_http_keytoll_redis_send(ngx_http_keytoll_block_ended,
                                               NULL, argv, n);
            n = 5;
        }
    }

    if (n > 5) {
        (void) ngx_http_keytoll_redis_send(ngx_http_keytoll_block_ended, NULL,
                                           argv, n);
    }
}
