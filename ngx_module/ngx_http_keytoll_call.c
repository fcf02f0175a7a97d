
/*
 * One call of kt_admit for all requests of a turn of the event loop.
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


typedef struct {
    ngx_uint_t                     first;
    ngx_uint_t                     last;
    ngx_uint_t                     n;
} ngx_http_keytoll_group_t;


typedef struct {
    ngx_queue_t                    queue;       /* of calls without a reply  */
    ngx_uint_t                     n;
    uint64_t                       mark;        /* of the cache, when sent   */
    ngx_uint_t                     ngroups;
    ngx_uint_t                     strangers;   /* among the n               */
    ngx_http_keytoll_pending_t     item[NGX_HTTP_KEYTOLL_CALL];
    ngx_http_keytoll_group_t       group[NGX_HTTP_KEYTOLL_CALL];
} ngx_http_keytoll_call_t;


static void ngx_http_keytoll_group(ngx_http_keytoll_call_t *call);
static void ngx_http_keytoll_join(ngx_http_keytoll_call_t *call,
    ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_call_reply(void *data, redisReply *reply,
    ngx_uint_t last);
static void ngx_http_keytoll_verdict(ngx_http_keytoll_call_t *call,
    ngx_http_keytoll_pending_t *pending, redisReply *group,
    redisReply *verdict);
static void ngx_http_keytoll_refused(ngx_http_keytoll_call_t *call,
    ngx_http_keytoll_ctx_t *ctx, redisReply *verdict, ngx_int_t code);
static void ngx_http_keytoll_count_after(ngx_http_keytoll_call_t *call,
    ngx_http_keytoll_group_t *g, redisReply *group);
static void ngx_http_keytoll_for_all(ngx_http_keytoll_ctx_t *ctx,
    ngx_int_t code, redisReply *reply);
static void ngx_http_keytoll_late(ngx_http_keytoll_call_t *call,
    ngx_uint_t last);
static void ngx_http_keytoll_call_done(ngx_http_keytoll_call_t *call);


static ngx_http_keytoll_call_t  *ngx_http_keytoll_open;     /* not yet sent  */
static ngx_queue_t               ngx_http_keytoll_calls;
static ngx_uint_t                ngx_http_keytoll_strangers;


void
ngx_http_keytoll_call_init(void)
{
    ngx_queue_init(&ngx_http_keytoll_calls);
}


/* Adds a request to this turn's call; it is answered in any case. */

void
ngx_http_keytoll_call_add(ngx_http_keytoll_ctx_t *ctx)
{
    ngx_http_keytoll_call_t     *call;
    ngx_http_keytoll_pending_t  *pending;

    call = ngx_http_keytoll_open;

    if (call == NULL) {
        call = ngx_alloc(sizeof(ngx_http_keytoll_call_t), ngx_cycle->log);
        if (call == NULL) {
            ngx_http_keytoll_unavailable(ctx, KT_REDIS_DOWN);
            return;
        }

        call->n = 0;
        ngx_http_keytoll_open = call;
    }

    pending = &call->item[call->n++];
    pending->ctx = ctx;
    pending->passed = 0;
    ngx_memcpy(pending->rid, ctx->rid, KT_RID_LEN);
    ctx->pending = pending;

    if (call->n == NGX_HTTP_KEYTOLL_CALL) {
        ngx_http_keytoll_call_send();
    }
}


static ngx_uint_t
ngx_http_keytoll_same(ngx_str_t *a, ngx_str_t *b)
{
    return a->len == b->len
           && (a->len == 0 || ngx_memcmp(a->data, b->data, a->len) == 0);
}


/* Requests of one group differ in cost only. */

static ngx_uint_t
ngx_http_keytoll_alike(ngx_http_keytoll_ctx_t *a, ngx_http_keytoll_ctx_t *b)
{
    return ngx_memcmp(a->token, b->token, KT_KEY_TOKEN_LEN) == 0
           && a->class == b->class
           && a->flags == b->flags
           && ngx_http_keytoll_same(&a->model, &b->model)
           && ngx_http_keytoll_same(&a->params, &b->params)
           && ngx_http_keytoll_same(&a->request->uri, &b->request->uri)
           && ngx_http_keytoll_same(&a->customer, &b->customer)
           && ngx_http_keytoll_same(&a->tag_names, &b->tag_names);
}


/* Requests that ended before the call was sent leave it. */

static void
ngx_http_keytoll_group(ngx_http_keytoll_call_t *call)
{
    ngx_uint_t                   i, n;
    ngx_http_keytoll_pending_t  *pending;

    n = call->n;
    call->n = 0;
    call->ngroups = 0;
    call->strangers = 0;

    for (i = 0; i < n; i++) {
        if (call->item[i].ctx == NULL) {
            continue;
        }

        pending = &call->item[call->n];
        *pending = call->item[i];
        pending->ctx->pending = pending;
        call->strangers += pending->ctx->stranger;

        ngx_http_keytoll_join(call, pending->ctx);
    }
}


static void
ngx_http_keytoll_join(ngx_http_keytoll_call_t *call,
    ngx_http_keytoll_ctx_t *ctx)
{
    ngx_uint_t                 i;
    ngx_http_keytoll_group_t  *g;

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


void
ngx_http_keytoll_call_send(void)
{
    u_char                    *p, lease[NGX_INT64_LEN];
    u_char                     numbers[2 * NGX_HTTP_KEYTOLL_CALL * 5];
    ngx_str_t                 *a, argv[6 + NGX_HTTP_KEYTOLL_CALL
                                        * (NGX_HTTP_KEYTOLL_GROUP_ARGS + 3)];
    ngx_uint_t                 i, j, k;
    ngx_http_keytoll_ctx_t    *ctx;
    ngx_http_keytoll_call_t   *call;
    ngx_http_keytoll_group_t  *g;

    call = ngx_http_keytoll_open;
    ngx_http_keytoll_open = NULL;

    if (call == NULL) {
        return;
    }

    ngx_http_keytoll_group(call);

    if (call->n == 0) {
        ngx_free(call);
        return;
    }

    call->mark = ngx_http_keytoll_cache_mark();

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
        a->len = p - a->data;
        ngx_http_keytoll_option_found(ctx, a++);
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

    if (ngx_http_keytoll_redis_send(ngx_http_keytoll_call_reply, call, argv,
                                    a - argv)
        == NGX_OK)
    {
        ngx_queue_insert_tail(&ngx_http_keytoll_calls, &call->queue);
        ngx_http_keytoll_strangers += call->strangers;
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


/* NGX_ERROR unless it is one that kt_admit can give. */

static ngx_int_t
ngx_http_keytoll_code(redisReply *reply)
{
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements) {
        reply = reply->element[0];
    }

    return reply->type == REDIS_REPLY_INTEGER
           && reply->integer >= KT_ADMITTED && reply->integer < KT_KEY_MISSING
           ? (ngx_int_t) reply->integer : NGX_ERROR;
}


static void
ngx_http_keytoll_call_reply(void *data, redisReply *reply, ngx_uint_t last)
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
                ngx_http_keytoll_verdict(call, &call->item[k], group,
                             group->element[NGX_HTTP_KEYTOLL_GROUP_HEAD + j]);
                continue;
            }

            ctx = call->item[k].ctx;
            call->item[k].ctx = NULL;

            if (ctx) {
                ctx->pending = NULL;
                ctx->redis_us += ngx_http_keytoll_redis_took();
                ngx_http_keytoll_for_all(ctx, code, reply);
            }
        }
    }

    ngx_http_keytoll_call_done(call);
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
            ngx_http_keytoll_admit_again(ctx);
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
ngx_http_keytoll_verdict(ngx_http_keytoll_call_t *call,
    ngx_http_keytoll_pending_t *pending, redisReply *group,
    redisReply *verdict)
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
    ctx->redis_us += ngx_http_keytoll_redis_took();

    switch (code) {

    case NGX_ERROR:
        ngx_http_keytoll_unavailable(ctx, KT_REDIS_DOWN);
        return;

    case KT_PARAMS:
        if (ngx_http_keytoll_admit_params(ctx, verdict) != NGX_OK) {
            ngx_http_keytoll_answer(ctx, ctx->why ? ngx_http_keytoll_why(ctx)
                                                  : KT_INTERNAL,
                                    verdict);
        }

        return;

    case KT_ADMITTED:
        ngx_http_keytoll_granted(ctx, group, receipt, call->mark);
        return;

    case KT_ENTITY_MISSING:
        ngx_http_keytoll_unavailable(ctx, KT_ENTITY_MISSING);
        return;

    case KT_ALIAS:
        if (ngx_http_keytoll_admit_alias(ctx, verdict) != NGX_OK) {
            ngx_http_keytoll_answer(ctx, KT_INTERNAL, NULL);
        }

        return;

    default:
        ngx_http_keytoll_refused(call, ctx, verdict, code);
    }
}


/* Refused, unless the same or something else can be asked in another way. */

static void
ngx_http_keytoll_refused(ngx_http_keytoll_call_t *call,
    ngx_http_keytoll_ctx_t *ctx, redisReply *verdict, ngx_int_t code)
{
    if (ctx->trying) {
        ngx_http_keytoll_cache_other(ctx, code, verdict);
        ngx_http_keytoll_admit_next(ctx);
        return;
    }

    switch (code) {

    case KT_MODEL_UNKNOWN:
        ngx_http_keytoll_answer(ctx, ctx->why ? ngx_http_keytoll_why(ctx)
                                              : KT_MODEL_UNKNOWN,
                                verdict);
        return;

    case KT_CHEAPER:
        if (ngx_http_keytoll_admit_clamp(ctx, verdict) != NGX_OK
            && ngx_http_keytoll_admit_cheaper(ctx, verdict, call->mark)
               != NGX_OK)
        {
            ngx_http_keytoll_answer(ctx, KT_INTERNAL, NULL);
        }

        return;

    case KT_BUDGET_EXCEEDED:
    case KT_BUDGET_HELD:
        if (ngx_http_keytoll_admit_clamp(ctx, verdict) == NGX_OK) {
            return;
        }

        break;

    case KT_KEY_UNKNOWN:
        ngx_http_keytoll_stranger_unknown();
        break;

    default:
        break;
    }

    ngx_http_keytoll_cache_deny(ctx, code, verdict, call->mark);
    ngx_http_keytoll_answer(ctx, code, verdict);
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

            ctx->redis_us += ngx_http_keytoll_redis_took();

            /* marks it as passed if the policy lets the request go on */

            ngx_http_keytoll_unavailable(ctx, KT_REDIS_DOWN);
        }

        if (last && !pending->passed) {
            ngx_http_keytoll_release(pending->rid, NULL);
        }
    }

    if (last) {
        ngx_http_keytoll_call_done(call);
    }
}


/* Requests with keys that never passed here, in calls without a reply. */

ngx_uint_t
ngx_http_keytoll_call_strangers(void)
{
    return ngx_http_keytoll_strangers;
}


/* Its strangers make room for those that wait. */

static void
ngx_http_keytoll_call_done(ngx_http_keytoll_call_t *call)
{
    if (call->strangers) {
        ngx_http_keytoll_strangers -= call->strangers;
        ngx_http_keytoll_redis_post();
    }

    ngx_queue_remove(&call->queue);
    ngx_free(call);
}


/*
 * The process ends.  What Redis may have granted meanwhile is given back by
 * whoever takes over the journal.
 */

void
ngx_http_keytoll_call_exit(void)
{
    ngx_uint_t                i;
    ngx_queue_t              *q;
    ngx_http_keytoll_call_t  *call;

    for (q = ngx_queue_head(&ngx_http_keytoll_calls);
         q != ngx_queue_sentinel(&ngx_http_keytoll_calls);
         q = ngx_queue_next(q))
    {
        call = ngx_queue_data(q, ngx_http_keytoll_call_t, queue);

        for (i = 0; i < call->n; i++) {
            if (!call->item[i].passed) {
                ngx_http_keytoll_release(call->item[i].rid, NULL);
            }
        }
    }
}


/*
 * Settles a grant for nothing: no cost, no ledger row, the slot is free.
 * Without a receipt it is not known whether anything was granted.
 */

void
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

    (void) ngx_http_keytoll_settle(&rec, NULL, NULL, NULL);
}
