
/*
 * Admission: requests wait here for the end of the turn, call.c asks Redis,
 * and what it answers is carried out.
 *
 *   admit() -> waiting -> call.c -> granted() -> dispatching -> upstream
 *                      -> unavailable(), answer()
 */


#include "ngx_http_keytoll_module.h"




static ngx_int_t ngx_http_keytoll_name(ngx_http_keytoll_ctx_t *ctx);
static ngx_int_t ngx_http_keytoll_prepare(ngx_http_keytoll_ctx_t *ctx);
static ngx_int_t ngx_http_keytoll_keep(ngx_http_keytoll_ctx_t *ctx,
    redisReply *group, redisReply *receipt, uint64_t mark);
static u_char *ngx_http_keytoll_unresolved(u_char *p,
    ngx_http_keytoll_ctx_t *ctx);
static u_char *ngx_http_keytoll_hold_head(u_char *p,
    ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_dispatch(ngx_http_keytoll_ctx_t *ctx);


static ngx_queue_t  ngx_http_keytoll_waiting;
static ngx_queue_t  ngx_http_keytoll_dispatching;


void
ngx_http_keytoll_admit_init(void)
{
    ngx_queue_init(&ngx_http_keytoll_waiting);
    ngx_http_keytoll_stranger_init();
    ngx_queue_init(&ngx_http_keytoll_dispatching);
    ngx_http_keytoll_call_init();
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
 *
 * Keys that passed lately go first, in a call of their own; stranger.c has the
 * others.
 */

void
ngx_http_keytoll_admit_flush(void)
{
    ngx_queue_t             *q, todo;
    ngx_http_keytoll_ctx_t  *ctx;

    ngx_queue_init(&todo);

    if (ngx_http_keytoll_redis_starting()) {
        return;
    }

    if (!ngx_queue_empty(&ngx_http_keytoll_waiting)) {
        ngx_queue_add(&todo, &ngx_http_keytoll_waiting);
        ngx_queue_init(&ngx_http_keytoll_waiting);
    }

    while (!ngx_queue_empty(&todo)) {
        q = ngx_queue_head(&todo);
        ngx_queue_remove(q);

        ctx = ngx_queue_data(q, ngx_http_keytoll_ctx_t, queue);

        if (!ctx->stranger && !ngx_http_keytoll_cache_passed(ctx->token)) {
            ngx_http_keytoll_stranger(ctx);
            continue;
        }

        ctx->queued = 0;

        ngx_http_keytoll_ask(ctx);
    }

    ngx_http_keytoll_call_send();
    ngx_http_keytoll_strangers_ask();
}


/* Whether requests wait for the next flush, though Redis could be asked. */

ngx_uint_t
ngx_http_keytoll_admit_waits(void)
{
    return !ngx_queue_empty(&ngx_http_keytoll_waiting)
           && !ngx_http_keytoll_redis_starting();
}


/* Answers the request if Redis need not, or can not, be asked: NGX_DONE. */

ngx_int_t
ngx_http_keytoll_answered(ngx_http_keytoll_ctx_t *ctx)
{
    if (!ngx_http_keytoll_redis_ready()) {
        ngx_http_keytoll_unavailable(ctx, KT_REDIS_DOWN);
        return NGX_DONE;
    }

    if (!ngx_http_keytoll_registry_ready()) {
        ngx_http_keytoll_unavailable(ctx, KT_NOT_READY);
        return NGX_DONE;
    }

    if (ngx_http_keytoll_estimate(ctx) != NGX_OK) {

        if (ctx->trying) {
            ngx_http_keytoll_admit_next(ctx);
            return NGX_DONE;
        }

        ctx->why = "the request may cost more than can be counted";
        ngx_http_keytoll_answer(ctx, KT_BODY_INVALID, NULL);
        return NGX_DONE;
    }

    if (ngx_http_keytoll_name(ctx) != NGX_OK) {
        ngx_http_keytoll_answer(ctx, KT_INTERNAL, NULL);
        return NGX_DONE;
    }

    return !ctx->trying && ngx_http_keytoll_cache_denied(ctx) ? NGX_DONE
                                                               : NGX_OK;
}


/* Adds the request to this turn's call, unless it is answered at once. */

void
ngx_http_keytoll_ask(ngx_http_keytoll_ctx_t *ctx)
{
    ngx_http_keytoll_loc_conf_t  *klcf;

    if (ngx_http_keytoll_answered(ctx) == NGX_DONE) {
        return;
    }

    if (ngx_http_keytoll_prepare(ctx) != NGX_OK) {
        ngx_http_keytoll_answer(ctx, KT_INTERNAL, NULL);
        return;
    }

    klcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_keytoll_module);

    if (klcf->lease && ctx->why == NULL && ctx->params.len == 0
        && ngx_http_keytoll_block_take(ctx) == NGX_OK)
    {
        ngx_http_keytoll_dispatch(ctx);
        return;
    }

    ngx_http_keytoll_call_add(ctx);
}


/* The key has another name for a model: priced by that, asked once more. */

ngx_int_t
ngx_http_keytoll_admit_alias(ngx_http_keytoll_ctx_t *ctx, redisReply *verdict)
{
    if (ctx->aliased || verdict->type != REDIS_REPLY_ARRAY
        || verdict->elements < 2
        || verdict->element[1]->len >= KT_REQ_TEXT
        || ngx_http_keytoll_copy(ctx->request->pool, &ctx->model,
                                 verdict->element[1])
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    ctx->aliased = 1;
    ngx_str_null(&ctx->upstream_model);
    ngx_str_null(&ctx->provider);

    ngx_http_keytoll_admit_again(ctx);
    ngx_http_keytoll_redis_post();

    return NGX_OK;
}


/*
 * A strict budget has less left than the cap of the answer may cost: with
 * "keytoll_clamp_max_tokens on" a lower cap, asked once more.
 */

ngx_int_t
ngx_http_keytoll_admit_clamp(ngx_http_keytoll_ctx_t *ctx, redisReply *verdict)
{
    int64_t                       v[4];
    ngx_uint_t                    i;
    redisReply                   *e;
    ngx_http_keytoll_loc_conf_t  *klcf;

    /* limit, used, held, need, which last_call budgets leave empty */

    static const ngx_uint_t  field[] = { 3, 4, 5, 8 };

    klcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_keytoll_module);

    if (!klcf->clamp || ctx->why || verdict->type != REDIS_REPLY_ARRAY
        || verdict->elements < 9)
    {
        return NGX_DECLINED;
    }

    for (i = 0; i < 4; i++) {
        e = verdict->element[field[i]];

        if (e->type != REDIS_REPLY_STRING) {
            return NGX_DECLINED;
        }

        v[i] = ngx_atoof((u_char *) e->str, e->len);

        if (v[i] < 0) {
            return NGX_DECLINED;
        }
    }

    /* where it fits, something else refuses: a last call that still runs */

    if (v[3] != ctx->bound_nusd || v[0] - v[1] - v[2] >= v[3]
        || ngx_http_keytoll_clamp(ctx, v[0] - v[1] - v[2]) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    ngx_http_keytoll_admit_again(ctx);
    ngx_http_keytoll_redis_post();

    return NGX_OK;
}


/* Admitted against another generation of the registry: once more. */

void
ngx_http_keytoll_admit_again(ngx_http_keytoll_ctx_t *ctx)
{
    ngx_queue_insert_tail(&ngx_http_keytoll_waiting, &ctx->queue);
    ctx->queued = 1;
}


u_char *
ngx_http_keytoll_amount(u_char *p, int64_t v)
{
    int32_t  lo;
    int64_t  hi;

    hi = v / NGX_HTTP_KEYTOLL_BASE;
    lo = (int32_t) (v % NGX_HTTP_KEYTOLL_BASE);

    p = ngx_cpymem(p, &hi, sizeof(int64_t));

    return ngx_cpymem(p, &lo, sizeof(int32_t));
}


/* What the request is: requests of one name differ in cost only. */

static ngx_int_t
ngx_http_keytoll_name(ngx_http_keytoll_ctx_t *ctx)
{
    ctx->flags = ngx_http_keytoll_flags(ctx);
    ctx->flags |= (ctx->aliased ? 16 : 0)
                  | (ctx->tried || ctx->why ? 64 : 0);

    return ngx_http_keytoll_name_identity(ctx);
}


/*
 * What the call says of its cost.  The amounts are packed as hold.lua
 * wants them, little-endian as every machine that we build for.
 */

static ngx_int_t
ngx_http_keytoll_prepare(ngx_http_keytoll_ctx_t *ctx)
{
    u_char  *p;

    p = ctx->amounts;
    p = ngx_http_keytoll_amount(p, ctx->bound_nusd);
    p = ngx_http_keytoll_amount(p, NGX_HTTP_KEYTOLL_CREDIT);
    p = ngx_http_keytoll_amount(p, ctx->in_nusd);
    p = ngx_cpymem(p, &ctx->in_bound, sizeof(int64_t));
    p = ngx_cpymem(p, &ctx->in_typ, sizeof(int64_t));
    p = ngx_cpymem(p, &ctx->out_bound, sizeof(int64_t));
    ngx_memcpy(p, &ctx->out_typ, sizeof(int64_t));

    return ngx_http_keytoll_template(ctx);
}


ngx_int_t
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


/* The reply belongs to its caller and is freed when this returns. */

void
ngx_http_keytoll_granted(ngx_http_keytoll_ctx_t *ctx, redisReply *group,
    redisReply *receipt, uint64_t mark)
{
    if (ngx_http_keytoll_keep(ctx, group, receipt, mark) != NGX_OK) {
        ngx_http_keytoll_release(ctx->rid, receipt);
        ngx_http_keytoll_answer(ctx, KT_INTERNAL, NULL);
        return;
    }

    ngx_http_keytoll_dispatch(ctx);
}


static ngx_int_t
ngx_http_keytoll_keep(ngx_http_keytoll_ctx_t *ctx, redisReply *group,
    redisReply *receipt, uint64_t mark)
{
    u_char      *p;
    ngx_pool_t  *pool;

    pool = ctx->request->pool;

    if (receipt->type != REDIS_REPLY_STRING || receipt->len == 0
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

    ngx_http_keytoll_cache_seen(ctx->token,
                              group->element[5]->type == REDIS_REPLY_INTEGER
                              && group->element[5]->integer == 0, mark);

    return NGX_OK;
}


/* Granted from a block, whose strings live as long as the request. */

ngx_int_t
ngx_http_keytoll_granted_block(ngx_http_keytoll_ctx_t *ctx,
    ngx_http_keytoll_block_t *block)
{
    u_char  *p;

    p = ngx_pnalloc(ctx->request->pool, KT_HOLD_HEAD + block->receipt.len + 2
                                        + ctx->template.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    p = ngx_http_keytoll_hold_head(p, ctx);
    p = ngx_cpymem(p, block->receipt.data, block->receipt.len);
    ngx_http_keytoll_hold_tail(p, ctx);

    ctx->rates = block->rates;
    ctx->alias = block->alias;
    ctx->key_spend = block->key_spend;
    ctx->key_limit = block->key_limit;

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
 * Redis cannot be asked: the location's policy decides.  What passes is
 * settled later against the entities that the key has then.
 */

void
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
        ngx_http_keytoll_answer(ctx, ngx_http_keytoll_why(ctx), NULL);
        return;
    }

    if (klcf->failure == NGX_HTTP_KEYTOLL_FAIL_DENY
        || (klcf->failure == NGX_HTTP_KEYTOLL_FAIL_CACHED
            && (ctx->end_user.len || ctx->ntags
                || !ngx_http_keytoll_cache_unlimited(ctx->token)))
        || ngx_http_keytoll_estimate(ctx) != NGX_OK
        || (ctx->scan && !ctx->known)
        || ngx_http_keytoll_name(ctx) != NGX_OK
        || ngx_http_keytoll_prepare(ctx) != NGX_OK)
    {
        ngx_http_keytoll_answer(ctx, reason, NULL);
        return;
    }

    p = ngx_pnalloc(r->pool, 256 + KT_HOLD_HEAD + KT_REQ_TEXT
                             + ctx->customer.len + ctx->tag_names.len
                             + 8 * ctx->ntags + ctx->template.len);
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
    p = ngx_http_keytoll_unresolved(p, ctx);
    ngx_http_keytoll_hold_tail(p, ctx);

    ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_UNRESERVED, 1);

    ngx_http_keytoll_dispatch(ctx);
}


/* Receipt lines of the end user and the tags, for resolve() of settle.lua. */

static u_char *
ngx_http_keytoll_unresolved(u_char *p, ngx_http_keytoll_ctx_t *ctx)
{
    u_char  *name, *last;

    if (ctx->customer.len) {
        p = ngx_sprintf(p, "%V\t0\t64\n", &ctx->customer);
    }

    if (ctx->tag_names.len == 0) {
        return p;
    }

    last = ctx->tag_names.data + ctx->tag_names.len;

    for (name = ctx->tag_names.data; name < last; name++) {

        while (name < last && *name != '\t') {
            *p++ = *name++;
        }

        p = ngx_cpymem(p, "\t0\t64\n", sizeof("\t0\t64\n") - 1);
    }

    return p;
}


void
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
