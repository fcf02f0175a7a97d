
/*
 * Admission: what requests may cost, one call of kt_admit for all that came
 * in this turn of the event loop, its answers.
 *
 * A call is an object of its own.  When a request ends first, or gives up at
 * the deadline, its place stays until the reply has come: a grant that nobody
 * waits for any more is released at once.  When the connection is lost first,
 * Redis may or may not have reserved: the release then goes without a
 * receipt.  A request that passed all the same (policy "allow" or "cached")
 * is settled under the same id, so nothing is released.
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_CALL         128       /* requests in one call      */
#define NGX_HTTP_KEYTOLL_GROUP_ARGS   9
#define NGX_HTTP_KEYTOLL_GROUP_HEAD   6         /* of a reply, then verdicts */
#define NGX_HTTP_KEYTOLL_TRIES        50        /* STALE answers in a row    */
#define NGX_HTTP_KEYTOLL_CREDIT       1000000   /* a call costs 1 credit     */
#define NGX_HTTP_KEYTOLL_SEEN         4096
#define NGX_HTTP_KEYTOLL_BASE         1000000000


typedef struct {
    time_t                         when;
    u_char                         token[KT_KEY_TOKEN_LEN];
} ngx_http_keytoll_seen_t;


/* One request of a call under way. */

typedef struct {
    ngx_http_keytoll_ctx_t        *ctx;         /* NULL: nobody waits        */
    ngx_uint_t                     passed;      /* without the answer        */
    ngx_uint_t                     next;        /* of its group              */
    u_char                         rid[KT_RID_LEN];
} ngx_http_keytoll_pending_t;


typedef struct {
    ngx_uint_t                     first;
    ngx_uint_t                     last;
    ngx_uint_t                     n;
} ngx_http_keytoll_group_t;


typedef struct {
    ngx_uint_t                     n;
    ngx_uint_t                     ngroups;
    ngx_http_keytoll_pending_t     item[NGX_HTTP_KEYTOLL_CALL];
    ngx_http_keytoll_group_t       group[NGX_HTTP_KEYTOLL_CALL];
} ngx_http_keytoll_call_t;


static ngx_int_t ngx_http_keytoll_prepare(ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_join(ngx_http_keytoll_call_t *call,
    ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_send_call(ngx_http_keytoll_call_t *call);
static void ngx_http_keytoll_admit_reply(void *data, redisReply *reply,
    ngx_uint_t last);
static void ngx_http_keytoll_verdict(ngx_http_keytoll_pending_t *pending,
    redisReply *group, redisReply *verdict);
static void ngx_http_keytoll_count_after(ngx_http_keytoll_call_t *call,
    ngx_http_keytoll_group_t *g, redisReply *group);
static void ngx_http_keytoll_for_all(ngx_http_keytoll_ctx_t *ctx,
    ngx_int_t code, redisReply *reply);
static ngx_int_t ngx_http_keytoll_keep(ngx_http_keytoll_ctx_t *ctx,
    redisReply *group, redisReply *receipt);
static u_char *ngx_http_keytoll_hold_head(u_char *p,
    ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_dispatch(ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_alias(ngx_http_keytoll_ctx_t *ctx,
    redisReply *verdict);
static void ngx_http_keytoll_late(ngx_http_keytoll_call_t *call,
    ngx_uint_t last);
static ngx_int_t ngx_http_keytoll_copy(ngx_pool_t *pool, ngx_str_t *out,
    redisReply *v);
static void ngx_http_keytoll_release(u_char *rid, redisReply *receipt);
static void ngx_http_keytoll_unavailable(ngx_http_keytoll_ctx_t *ctx,
    ngx_uint_t reason);
static void ngx_http_keytoll_answer(ngx_http_keytoll_ctx_t *ctx,
    ngx_uint_t reason, redisReply *reply);
static void ngx_http_keytoll_remember(u_char *token, ngx_uint_t unlimited);
static ngx_uint_t ngx_http_keytoll_remembered(u_char *token);


static ngx_queue_t              ngx_http_keytoll_waiting;
static ngx_queue_t              ngx_http_keytoll_dispatching;
static ngx_http_keytoll_seen_t  ngx_http_keytoll_seen[NGX_HTTP_KEYTOLL_SEEN];


void
ngx_http_keytoll_admit_init(void)
{
    ngx_queue_init(&ngx_http_keytoll_waiting);
    ngx_queue_init(&ngx_http_keytoll_dispatching);
}


/* Queues the request for this turn's flush; the answer comes by resume(). */

void
ngx_http_keytoll_admit(ngx_http_keytoll_ctx_t *ctx)
{
    if (!ngx_http_keytoll_journal_ok()) {
        ngx_http_keytoll_answer(ctx, KT_JOURNAL_DOWN, NULL);
        return;
    }

    if (!ngx_http_keytoll_registry_ready()
        && !ngx_http_keytoll_redis_starting())
    {
        ngx_http_keytoll_unavailable(ctx, ngx_http_keytoll_redis_ready()
                                          ? KT_NOT_READY : KT_REDIS_DOWN);
        return;
    }

    ngx_queue_insert_tail(&ngx_http_keytoll_waiting, &ctx->queue);
    ctx->queued = 1;

    ngx_http_keytoll_redis_post();
}


/*
 * Sends what waits.  A worker that has just started holds its first requests
 * until it knows whether Redis is there, so a reload refuses nobody.
 */

void
ngx_http_keytoll_admit_flush(void)
{
    ngx_uint_t                reason;
    ngx_queue_t              *q, todo;
    ngx_http_keytoll_ctx_t   *ctx;
    ngx_http_keytoll_call_t  *call;

    ngx_queue_init(&todo);

    if (ngx_queue_empty(&ngx_http_keytoll_waiting)
        || ngx_http_keytoll_redis_starting())
    {
        return;
    }

    ngx_queue_add(&todo, &ngx_http_keytoll_waiting);
    ngx_queue_init(&ngx_http_keytoll_waiting);

    call = NULL;

    while (!ngx_queue_empty(&todo)) {
        q = ngx_queue_head(&todo);
        ngx_queue_remove(q);

        ctx = ngx_queue_data(q, ngx_http_keytoll_ctx_t, queue);
        ctx->queued = 0;

        reason = KT_REDIS_DOWN;

        if (ngx_http_keytoll_redis_ready()) {

            if (!ngx_http_keytoll_registry_ready()) {
                reason = KT_NOT_READY;

            } else if (ngx_http_keytoll_estimate(ctx) != NGX_OK) {
                ctx->why = "the request may cost more than can be counted";
                ngx_http_keytoll_answer(ctx, KT_BODY_INVALID, NULL);
                continue;

            } else if (ngx_http_keytoll_prepare(ctx) != NGX_OK) {
                reason = KT_INTERNAL;

            } else {
                if (call == NULL) {
                    call = ngx_alloc(sizeof(ngx_http_keytoll_call_t),
                                     ngx_cycle->log);
                    if (call) {
                        call->n = 0;
                        call->ngroups = 0;
                    }
                }

                if (call) {
                    ngx_http_keytoll_join(call, ctx);

                    if (call->n == NGX_HTTP_KEYTOLL_CALL) {
                        ngx_http_keytoll_send_call(call);
                        call = NULL;
                    }

                    continue;
                }
            }
        }

        ngx_http_keytoll_unavailable(ctx, reason);
    }

    if (call) {
        ngx_http_keytoll_send_call(call);
    }
}


static u_char *
ngx_http_keytoll_amount(u_char *p, int64_t v)
{
    int32_t  lo;
    int64_t  hi;

    hi = v / NGX_HTTP_KEYTOLL_BASE;
    lo = (int32_t) (v % NGX_HTTP_KEYTOLL_BASE);

    p = ngx_cpymem(p, &hi, sizeof(int64_t));

    return ngx_cpymem(p, &lo, sizeof(int32_t));
}


/*
 * What the call says of this request.  The amounts are packed as hold.lua
 * wants them, little-endian as every machine that we build for.
 */

static ngx_int_t
ngx_http_keytoll_prepare(ngx_http_keytoll_ctx_t *ctx)
{
    u_char  *p;

    p = ctx->amounts;
    p = ngx_http_keytoll_amount(p, ctx->bound_nusd);
    p = ngx_http_keytoll_amount(p, ctx->typ_nusd);
    p = ngx_http_keytoll_amount(p, NGX_HTTP_KEYTOLL_CREDIT);
    p = ngx_http_keytoll_amount(p, ctx->in_nusd);
    p = ngx_cpymem(p, &ctx->in_bound, sizeof(int64_t));
    p = ngx_cpymem(p, &ctx->in_typ, sizeof(int64_t));
    p = ngx_cpymem(p, &ctx->out_bound, sizeof(int64_t));
    ngx_memcpy(p, &ctx->out_typ, sizeof(int64_t));

    ctx->flags = ngx_http_keytoll_flags(ctx);
    ctx->flags |= ctx->aliased ? 16 : 0;

    if (ngx_http_keytoll_name_identity(ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_keytoll_template(ctx);
}


static ngx_uint_t
ngx_http_keytoll_same(ngx_str_t *a, ngx_str_t *b)
{
    return a->len == b->len && ngx_memcmp(a->data, b->data, a->len) == 0;
}


/* Requests of one group differ in cost only. */

static ngx_uint_t
ngx_http_keytoll_alike(ngx_http_keytoll_ctx_t *a, ngx_http_keytoll_ctx_t *b)
{
    return ngx_memcmp(a->token, b->token, KT_KEY_TOKEN_LEN) == 0
           && a->class == b->class
           && a->flags == b->flags
           && ngx_http_keytoll_same(&a->model, &b->model)
           && ngx_http_keytoll_same(&a->request->uri, &b->request->uri)
           && ngx_http_keytoll_same(&a->customer, &b->customer)
           && ngx_http_keytoll_same(&a->tag_names, &b->tag_names);
}


static void
ngx_http_keytoll_join(ngx_http_keytoll_call_t *call,
    ngx_http_keytoll_ctx_t *ctx)
{
    ngx_uint_t                   i;
    ngx_http_keytoll_group_t    *g;
    ngx_http_keytoll_pending_t  *pending;

    pending = &call->item[call->n];
    pending->ctx = ctx;
    pending->passed = 0;
    ngx_memcpy(pending->rid, ctx->rid, KT_RID_LEN);
    ctx->pending = pending;

    for (i = 0; i < call->ngroups; i++) {
        g = &call->group[i];

        if (ngx_http_keytoll_alike(call->item[g->first].ctx, ctx)) {
            call->item[g->last].next = call->n;
            g->last = call->n++;
            g->n++;
            return;
        }
    }

    g = &call->group[call->ngroups++];
    g->first = call->n;
    g->last = call->n++;
    g->n = 1;
}


static void
ngx_http_keytoll_send_call(ngx_http_keytoll_call_t *call)
{
    u_char                    *p, lease[NGX_INT64_LEN];
    u_char                     numbers[2 * NGX_HTTP_KEYTOLL_CALL * 5];
    ngx_str_t                 *a, argv[6 + NGX_HTTP_KEYTOLL_CALL
                                        * (NGX_HTTP_KEYTOLL_GROUP_ARGS + 3)];
    ngx_uint_t                 i, j, k;
    ngx_http_keytoll_ctx_t    *ctx;
    ngx_http_keytoll_group_t  *g;

    a = argv;
    p = numbers;

    ngx_str_set(a, "FCALL"); a++;
    ngx_str_set(a, "kt_admit"); a++;
    ngx_str_set(a, "1"); a++;
    ngx_str_set(a, KT_REDIS_GEN); a++;
    *a++ = *ngx_http_keytoll_registry_gen();
    a->data = lease;
    a->len = ngx_sprintf(lease, "%d", NGX_HTTP_KEYTOLL_LEASE) - lease; a++;

    for (i = 0; i < call->ngroups; i++) {
        g = &call->group[i];
        ctx = call->item[g->first].ctx;

        a->data = ctx->token; a->len = KT_KEY_TOKEN_LEN; a++;
        *a++ = ctx->model;
        *a++ = ngx_http_keytoll_class_names[ctx->class];
        *a++ = ctx->request->uri;
        a->data = p; p = ngx_sprintf(p, "%ui", ctx->flags);
        a->len = p - a->data; a++;
        *a++ = ctx->customer;
        *a++ = ctx->tag_names;
        *a++ = ctx->provider;
        a->data = p; p = ngx_sprintf(p, "%ui", g->n);
        a->len = p - a->data; a++;

        for (j = 0, k = g->first; j < g->n; j++, k = call->item[k].next) {
            ctx = call->item[k].ctx;
            a->data = ctx->rid; a->len = KT_RID_LEN; a++;
            a->data = ctx->amounts; a->len = KT_HOLD_AMOUNTS; a++;
            *a++ = ctx->template;
        }
    }

    if (ngx_http_keytoll_redis_send(ngx_http_keytoll_admit_reply, call, argv,
                                    a - argv)
        == NGX_OK)
    {
        return;
    }

    for (i = 0; i < call->n; i++) {
        ctx = call->item[i].ctx;
        call->item[i].ctx = NULL;

        if (ctx) {
            ctx->pending = NULL;
            ngx_http_keytoll_unavailable(ctx, KT_REDIS_DOWN);
        }
    }

    ngx_free(call);
}


static ngx_int_t
ngx_http_keytoll_code(redisReply *reply)
{
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements) {
        reply = reply->element[0];
    }

    return reply->type == REDIS_REPLY_INTEGER ? (ngx_int_t) reply->integer
                                              : NGX_ERROR;
}


static void
ngx_http_keytoll_admit_reply(void *data, redisReply *reply, ngx_uint_t last)
{
    ngx_int_t                  code;
    ngx_uint_t                 i, j, k;
    redisReply                *group;
    ngx_http_keytoll_ctx_t    *ctx;
    ngx_http_keytoll_call_t   *call;
    ngx_http_keytoll_group_t  *g;

    call = data;

    if (reply == NULL) {
        ngx_http_keytoll_late(call, last);
        return;
    }

    code = ngx_http_keytoll_code(reply);

    if (code == KT_ADMITTED && reply->elements != 2 + call->ngroups) {
        code = NGX_ERROR;
    }

    for (i = 0; i < call->ngroups; i++) {
        g = &call->group[i];
        group = code == KT_ADMITTED ? reply->element[2 + i] : NULL;

        if (group && (group->type != REDIS_REPLY_ARRAY
                      || group->elements
                         != NGX_HTTP_KEYTOLL_GROUP_HEAD + g->n))
        {
            group = NULL;
        }

        if (group) {
            ngx_http_keytoll_count_after(call, g, group);
        }

        for (j = 0, k = g->first; j < g->n; j++, k = call->item[k].next) {

            if (group) {
                ngx_http_keytoll_verdict(&call->item[k], group,
                             group->element[NGX_HTTP_KEYTOLL_GROUP_HEAD + j]);
                continue;
            }

            ctx = call->item[k].ctx;
            call->item[k].ctx = NULL;

            if (ctx) {
                ctx->pending = NULL;
                ngx_http_keytoll_for_all(ctx, code, reply);
            }
        }
    }

    ngx_free(call);
}


/*
 * The reply says what is left when all of the group are admitted; each client
 * is told what was left when he was.
 */

static void
ngx_http_keytoll_count_after(ngx_http_keytoll_call_t *call,
    ngx_http_keytoll_group_t *g, redisReply *group)
{
    ngx_uint_t                 j, k, n;
    ngx_uint_t                 admitted[NGX_HTTP_KEYTOLL_CALL];
    ngx_http_keytoll_ctx_t    *ctx;
    ngx_http_keytoll_after_t   after;

    n = 0;

    for (j = 0, k = g->first; j < g->n; j++, k = call->item[k].next) {
        if (ngx_http_keytoll_code(
                group->element[NGX_HTTP_KEYTOLL_GROUP_HEAD + j])
            == KT_ADMITTED)
        {
            admitted[n++] = k;
        }
    }

    ngx_memzero(&after, sizeof(ngx_http_keytoll_after_t));

    while (n) {
        ctx = call->item[admitted[--n]].ctx;

        if (ctx == NULL) {
            after.n++;
            continue;
        }

        ctx->after = after;

        after.n++;
        after.in_bound += ctx->in_bound;
        after.in_typ += ctx->in_typ;
        after.out_bound += ctx->out_bound;
        after.out_typ += ctx->out_typ;
    }
}


/* A reply that says one thing of every request of the call. */

static void
ngx_http_keytoll_for_all(ngx_http_keytoll_ctx_t *ctx, ngx_int_t code,
    redisReply *reply)
{
    switch (code) {

    case KT_NOT_READY:
        ngx_http_keytoll_registry_lost();
        ngx_http_keytoll_registry_refresh();
        ngx_http_keytoll_unavailable(ctx, KT_NOT_READY);
        return;

    case KT_STALE:
        if (reply->elements > 1 && ctx->tries++ < NGX_HTTP_KEYTOLL_TRIES) {
            ngx_queue_insert_tail(&ngx_http_keytoll_waiting, &ctx->queue);
            ctx->queued = 1;
            ngx_http_keytoll_registry_stale(reply->element[1]);
            return;
        }

        ngx_http_keytoll_unavailable(ctx, KT_STALE);
        return;

    default:
        ngx_http_keytoll_unavailable(ctx, KT_REDIS_DOWN);
    }
}


static void
ngx_http_keytoll_verdict(ngx_http_keytoll_pending_t *pending,
    redisReply *group, redisReply *verdict)
{
    ngx_int_t                code;
    redisReply              *receipt;
    ngx_http_keytoll_ctx_t  *ctx;

    ctx = pending->ctx;
    pending->ctx = NULL;

    code = ngx_http_keytoll_code(verdict);

    receipt = verdict->type == REDIS_REPLY_ARRAY && verdict->elements > 1
              ? verdict->element[1] : group->element[0];

    if (ctx == NULL) {

        /* nobody waits any more; what was reserved is given back */

        if (code == KT_ADMITTED && !pending->passed) {
            ngx_http_keytoll_release(pending->rid, receipt);
        }

        return;
    }

    ctx->pending = NULL;

    switch (code) {

    case NGX_ERROR:
        ngx_http_keytoll_unavailable(ctx, KT_REDIS_DOWN);
        return;

    case KT_ADMITTED:
        if (ngx_http_keytoll_keep(ctx, group, receipt) != NGX_OK) {
            ngx_http_keytoll_release(ctx->rid, receipt);
            ngx_http_keytoll_answer(ctx, KT_INTERNAL, NULL);
            return;
        }

        ngx_http_keytoll_dispatch(ctx);
        return;

    case KT_ENTITY_MISSING:
        ngx_http_keytoll_unavailable(ctx, KT_ENTITY_MISSING);
        return;

    case KT_ALIAS:
        ngx_http_keytoll_alias(ctx, verdict);
        return;

    case KT_MODEL_UNKNOWN:
        ngx_http_keytoll_answer(ctx, ctx->why ? KT_BODY_INVALID : code,
                                verdict);
        return;

    default:
        ngx_http_keytoll_answer(ctx, code, verdict);
    }
}


/* The key has another name for a model: priced by that, asked once more. */

static void
ngx_http_keytoll_alias(ngx_http_keytoll_ctx_t *ctx, redisReply *verdict)
{
    if (ctx->aliased || verdict->elements < 2
        || verdict->element[1]->len >= KT_REQ_TEXT
        || ngx_http_keytoll_copy(ctx->request->pool, &ctx->model,
                                 verdict->element[1])
           != NGX_OK)
    {
        ngx_http_keytoll_answer(ctx, KT_INTERNAL, NULL);
        return;
    }

    ctx->aliased = 1;
    ngx_str_null(&ctx->upstream_model);
    ngx_str_null(&ctx->provider);

    ngx_queue_insert_tail(&ngx_http_keytoll_waiting, &ctx->queue);
    ctx->queued = 1;

    ngx_http_keytoll_redis_post();
}


/* The deadline has passed; with last, the connection is gone. */

static void
ngx_http_keytoll_late(ngx_http_keytoll_call_t *call, ngx_uint_t last)
{
    ngx_uint_t                   i;
    ngx_http_keytoll_ctx_t      *ctx;
    ngx_http_keytoll_pending_t  *pending;

    for (i = 0; i < call->n; i++) {
        pending = &call->item[i];
        ctx = pending->ctx;
        pending->ctx = NULL;

        if (ctx) {

            /* marks it as passed if the policy lets the request go on */

            ngx_http_keytoll_unavailable(ctx, KT_REDIS_DOWN);
        }

        if (last && !pending->passed) {
            ngx_http_keytoll_release(pending->rid, NULL);
        }
    }

    if (last) {
        ngx_free(call);
    }
}


static ngx_int_t
ngx_http_keytoll_copy(ngx_pool_t *pool, ngx_str_t *out, redisReply *v)
{
    if (v->type != REDIS_REPLY_STRING) {
        return NGX_ERROR;
    }

    out->len = v->len;
    out->data = ngx_pnalloc(pool, v->len + 1);
    if (out->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(out->data, v->str, v->len);

    return NGX_OK;
}


static u_char *
ngx_http_keytoll_hold_head(u_char *p, ngx_http_keytoll_ctx_t *ctx)
{
    ctx->hold.data = p;
    *p++ = 'H';
    p = ngx_cpymem(p, ctx->amounts, KT_HOLD_AMOUNTS);
    ctx->receipt.data = p;

    return p;
}


static void
ngx_http_keytoll_hold_tail(u_char *p, ngx_http_keytoll_ctx_t *ctx)
{
    ctx->receipt.len = p - ctx->receipt.data;

    *p++ = '='; *p++ = '\t';
    p = ngx_cpymem(p, ctx->template.data, ctx->template.len);

    ctx->hold.len = p - ctx->hold.data;
}


/* Copies the grant: the reply is freed when its handler returns. */

static ngx_int_t
ngx_http_keytoll_keep(ngx_http_keytoll_ctx_t *ctx, redisReply *group,
    redisReply *receipt)
{
    u_char      *p;
    ngx_pool_t  *pool;

    pool = ctx->request->pool;

    if (receipt->type != REDIS_REPLY_STRING
        || ngx_http_keytoll_copy(pool, &ctx->rates, group->element[1])
           != NGX_OK
        || ngx_http_keytoll_copy(pool, &ctx->alias, group->element[2])
           != NGX_OK
        || ngx_http_keytoll_copy(pool, &ctx->key_spend, group->element[3])
           != NGX_OK
        || ngx_http_keytoll_copy(pool, &ctx->key_limit, group->element[4])
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    p = ngx_pnalloc(pool, KT_HOLD_HEAD + receipt->len + 2
                          + ctx->template.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    p = ngx_http_keytoll_hold_head(p, ctx);
    p = ngx_cpymem(p, receipt->str, receipt->len);
    ngx_http_keytoll_hold_tail(p, ctx);

    ngx_http_keytoll_remember(ctx->token,
                              group->element[5]->type == REDIS_REPLY_INTEGER
                              && group->element[5]->integer == 0);

    return NGX_OK;
}


/*
 * From here on the request costs something until it is settled.  It goes
 * upstream at the end of this turn, when its D is on disk.
 */

static void
ngx_http_keytoll_dispatch(ngx_http_keytoll_ctx_t *ctx)
{
    kt_record_t  rec;

    ctx->state = NGX_HTTP_KEYTOLL_ADMITTED;

    rec.type = KT_RECORD_DISPATCH;
    rec.nfields = 2;
    rec.field[0].data = ctx->rid;
    rec.field[0].len = KT_RID_LEN;
    rec.field[1].data = ctx->hold.data;
    rec.field[1].len = ctx->hold.len;

    if (ngx_http_keytoll_journal_add(&rec, &ctx->segment) != NGX_OK) {
        ngx_http_keytoll_finish(ctx);
        ngx_http_keytoll_answer(ctx, KT_JOURNAL_DOWN, NULL);
        return;
    }

    if (ctx->segment) {
        ctx->segment->open++;
    }

    ngx_queue_insert_tail(&ngx_http_keytoll_dispatching, &ctx->queue);
    ctx->queued = 1;

    ngx_http_keytoll_redis_post();
}


/* written: whether the journal took what was added in this turn. */

void
ngx_http_keytoll_dispatch_flush(ngx_uint_t written)
{
    ngx_queue_t             *q;
    ngx_http_keytoll_ctx_t  *ctx;

    while (!ngx_queue_empty(&ngx_http_keytoll_dispatching)) {
        q = ngx_queue_head(&ngx_http_keytoll_dispatching);
        ngx_queue_remove(q);

        ctx = ngx_queue_data(q, ngx_http_keytoll_ctx_t, queue);
        ctx->queued = 0;

        ctx->strip = ctx->streaming && ctx->scan
                     && (ctx->class == NGX_HTTP_KEYTOLL_CHAT
                         || ctx->class == NGX_HTTP_KEYTOLL_COMPLETIONS)
                     && ctx->scan->include_usage != KT_TRI_TRUE;

        if (!written) {
            ngx_http_keytoll_finish(ctx);
            ngx_http_keytoll_answer(ctx, KT_JOURNAL_DOWN, NULL);
            continue;
        }

        if (ngx_http_keytoll_splice(ctx->request, ctx) != NGX_OK) {
            ngx_http_keytoll_finish(ctx);
            ngx_http_keytoll_answer(ctx, KT_INTERNAL, NULL);
            continue;
        }

        ctx->state = NGX_HTTP_KEYTOLL_DISPATCHED;
        ctx->leased = ngx_current_msec;
        ngx_http_keytoll_active_add(ctx);

        ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_ADMITTED, 1);

        ngx_http_keytoll_resume(ctx);
    }
}


/*
 * Settles a grant for nothing: no cost, no ledger row, the slot is free.
 * Without a receipt it is not known whether anything was granted.
 */

static void
ngx_http_keytoll_release(u_char *rid, redisReply *receipt)
{
    kt_record_t  rec;

    ngx_memzero(&rec, sizeof(kt_record_t));

    rec.type = KT_RECORD_SETTLE;
    rec.nfields = 7;
    rec.field[0].data = rid;
    rec.field[0].len = KT_RID_LEN;

    if (receipt && receipt->type == REDIS_REPLY_STRING) {
        rec.field[1].data = (u_char *) receipt->str;
        rec.field[1].len = receipt->len;
    }

    rec.field[2].data = (u_char *) "0";
    rec.field[2].len = 1;
    rec.field[3] = rec.field[2];
    rec.field[4] = rec.field[2];
    rec.field[5] = rec.field[2];

    ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_RELEASED, 1);

    (void) ngx_http_keytoll_settle(&rec, NULL);
}


/*
 * Redis cannot be asked: the location's policy decides.  What passes is
 * settled later against the entities that the key has then.
 */

static void
ngx_http_keytoll_unavailable(ngx_http_keytoll_ctx_t *ctx, ngx_uint_t reason)
{
    u_char                       *p;
    ngx_http_request_t           *r;
    ngx_http_keytoll_loc_conf_t  *klcf;
    ngx_http_keytoll_pending_t   *pending;

    r = ctx->request;
    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);

    pending = ctx->pending;
    ctx->pending = NULL;

    if (ctx->why) {
        ngx_http_keytoll_answer(ctx, KT_BODY_INVALID, NULL);
        return;
    }

    if (klcf->failure == NGX_HTTP_KEYTOLL_FAIL_DENY
        || (klcf->failure == NGX_HTTP_KEYTOLL_FAIL_CACHED
            && !ngx_http_keytoll_remembered(ctx->token))
        || ngx_http_keytoll_estimate(ctx) != NGX_OK
        || (ctx->scan && !ctx->known)
        || ngx_http_keytoll_prepare(ctx) != NGX_OK)
    {
        ngx_http_keytoll_answer(ctx, reason, NULL);
        return;
    }

    p = ngx_pnalloc(r->pool, 256 + KT_HOLD_HEAD + KT_REQ_TEXT
                             + ctx->template.len);
    if (p == NULL) {
        ngx_http_keytoll_answer(ctx, KT_INTERNAL, NULL);
        return;
    }

    if (pending) {
        pending->passed = 1;
    }

    ctx->unreserved = 1;

    p = ngx_http_keytoll_hold_head(p, ctx);
    p = ngx_sprintf(p, "2\t%uL\t%V\nkey:%*s\t0\t64\n",
                    ctx->admit_ms, &ctx->model, (size_t) KT_KEY_TOKEN_LEN,
                    ctx->token);
    ngx_http_keytoll_hold_tail(p, ctx);

    ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_UNRESERVED, 1);

    ngx_http_keytoll_dispatch(ctx);
}


static void
ngx_http_keytoll_answer(ngx_http_keytoll_ctx_t *ctx, ngx_uint_t reason,
    redisReply *reply)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = ctx->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    (void) ngx_http_keytoll_refuse(r, ctx, reason, reply);

    ngx_http_run_posted_requests(c);
}


/* The request ends, or is answered: no reply may find it any more. */

void
ngx_http_keytoll_admit_stop(ngx_http_keytoll_ctx_t *ctx)
{
    ngx_http_keytoll_pending_t  *pending;

    if (ctx->queued) {
        ngx_queue_remove(&ctx->queue);
        ctx->queued = 0;
    }

    if (ctx->pending) {
        pending = ctx->pending;
        pending->ctx = NULL;
        ctx->pending = NULL;
    }

    ngx_http_keytoll_active_del(ctx);
}


/*
 * Keys without any limit that passed within the last minute, for
 * "keytoll_redis_failure cached".
 */

static void
ngx_http_keytoll_remember(u_char *token, ngx_uint_t unlimited)
{
    ngx_http_keytoll_seen_t  *s;

    s = &ngx_http_keytoll_seen[ngx_crc32_short(token, KT_KEY_TOKEN_LEN)
                               % NGX_HTTP_KEYTOLL_SEEN];

    ngx_memcpy(s->token, token, KT_KEY_TOKEN_LEN);
    s->when = unlimited ? ngx_time() : 0;
}


static ngx_uint_t
ngx_http_keytoll_remembered(u_char *token)
{
    ngx_http_keytoll_seen_t  *s;

    s = &ngx_http_keytoll_seen[ngx_crc32_short(token, KT_KEY_TOKEN_LEN)
                               % NGX_HTTP_KEYTOLL_SEEN];

    return s->when && ngx_time() - s->when <= 60
           && ngx_memcmp(s->token, token, KT_KEY_TOKEN_LEN) == 0;
}
