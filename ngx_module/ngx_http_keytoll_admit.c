
/*
 * Admission: what the request may cost, one call of kt_admit, its answer.
 *
 * A pending call is an object of its own.  When its request ends first, or
 * gives up at the deadline, the object stays until the reply has come: a
 * grant that nobody waits for any more is released at once.  When the
 * connection is lost first, Redis may or may not have reserved: the release
 * then goes without a receipt.  A request that passed all the same (policy
 * "allow" or "cached") is settled under the same id, so nothing is released.
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_ADMIT_ARGS   23
#define NGX_HTTP_KEYTOLL_TRIES        50        /* STALE answers in a row    */
#define NGX_HTTP_KEYTOLL_CREDIT       1000000   /* a call costs 1 credit     */
#define NGX_HTTP_KEYTOLL_SEEN         4096


typedef struct {
    time_t                         when;
    u_char                         token[KT_KEY_TOKEN_LEN];
} ngx_http_keytoll_seen_t;


typedef struct {
    ngx_http_keytoll_ctx_t        *ctx;         /* NULL: nobody waits        */
    ngx_uint_t                     passed;      /* without the answer        */
    u_char                         rid[KT_RID_LEN];
} ngx_http_keytoll_pending_t;


static ngx_int_t ngx_http_keytoll_send_admit(ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_admit_reply(void *data, redisReply *reply,
    ngx_uint_t last);
static void ngx_http_keytoll_granted(ngx_http_keytoll_ctx_t *ctx,
    redisReply *reply);
static ngx_int_t ngx_http_keytoll_keep(ngx_http_keytoll_ctx_t *ctx,
    redisReply *reply);
static void ngx_http_keytoll_dispatch(ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_late(ngx_http_keytoll_pending_t *pending,
    ngx_uint_t last);
static void ngx_http_keytoll_release(u_char *rid, redisReply *reply);
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
    ngx_uint_t               reason;
    ngx_queue_t             *q, todo;
    ngx_http_keytoll_ctx_t  *ctx;

    ngx_queue_init(&todo);

    if (ngx_queue_empty(&ngx_http_keytoll_waiting)
        || ngx_http_keytoll_redis_starting())
    {
        return;
    }

    ngx_queue_add(&todo, &ngx_http_keytoll_waiting);
    ngx_queue_init(&ngx_http_keytoll_waiting);

    while (!ngx_queue_empty(&todo)) {
        q = ngx_queue_head(&todo);
        ngx_queue_remove(q);

        ctx = ngx_queue_data(q, ngx_http_keytoll_ctx_t, queue);
        ctx->queued = 0;

        if (!ngx_http_keytoll_redis_ready()) {
            reason = KT_REDIS_DOWN;

        } else if (!ngx_http_keytoll_registry_ready()) {
            reason = KT_NOT_READY;

        } else if (ngx_http_keytoll_estimate(ctx) != NGX_OK) {
            ctx->why = "the request may cost more than can be counted";
            ngx_http_keytoll_answer(ctx, KT_BODY_INVALID, NULL);
            continue;

        } else if (ngx_http_keytoll_send_admit(ctx) == NGX_OK) {
            continue;

        } else {
            reason = KT_REDIS_DOWN;
        }

        ngx_http_keytoll_unavailable(ctx, reason);
    }
}


static ngx_int_t
ngx_http_keytoll_customer(ngx_http_keytoll_ctx_t *ctx, ngx_str_t *out)
{
    size_t  len;

    ngx_str_null(out);

    if (ctx->scan == NULL || ctx->scan->user_len == 0) {
        return NGX_OK;
    }

    out->data = ngx_pnalloc(ctx->request->pool, KT_ENT_MAX);
    if (out->data == NULL) {
        return NGX_ERROR;
    }

    if (kt_ent_name("customer", ctx->scan->user, ctx->scan->user_len,
                    (char *) out->data, KT_ENT_MAX, &len)
        != KT_OK)
    {
        return NGX_ERROR;
    }

    out->len = len;

    return NGX_OK;
}


/* metadata.tags of the body as entity names, separated by tabs. */

static ngx_int_t
ngx_http_keytoll_tags(ngx_http_keytoll_ctx_t *ctx, ngx_str_t *out)
{
    size_t       len;
    u_char      *p;
    ngx_uint_t   i;

    ngx_str_null(out);

    if (ctx->ntags == 0) {
        return NGX_OK;
    }

    p = ngx_pnalloc(ctx->request->pool, ctx->ntags * (KT_ENT_MAX + 1));
    if (p == NULL) {
        return NGX_ERROR;
    }

    out->data = p;

    for (i = 0; i < ctx->ntags; i++) {

        if (kt_ent_name("tag", (char *) ctx->tags[i].data, ctx->tags[i].len,
                        (char *) p, KT_ENT_MAX, &len)
            != KT_OK)
        {
            return NGX_ERROR;
        }

        p += len;
        *p++ = '\t';
    }

    out->len = p - out->data;

    return NGX_OK;
}


static u_char *
ngx_http_keytoll_number(u_char *p, ngx_str_t *out, int64_t v)
{
    out->data = p;
    p = ngx_sprintf(p, "%L", v);
    out->len = p - out->data;

    return p;
}


static ngx_int_t
ngx_http_keytoll_send_admit(ngx_http_keytoll_ctx_t *ctx)
{
    u_char                      *p, numbers[10 * NGX_INT64_LEN];
    int64_t                      flags;
    ngx_str_t                   *a, argv[NGX_HTTP_KEYTOLL_ADMIT_ARGS];
    ngx_http_keytoll_pending_t  *pending;

    a = argv;
    p = numbers;

    flags = ctx->why ? 2
            : ctx->scan == NULL ? 4 | 8
            : !ctx->known ? 2
            : (ctx->price.free ? 1 : 0) | (ctx->price.none ? 4 : 0);

    ngx_str_set(a, "FCALL"); a++;
    ngx_str_set(a, "kt_admit"); a++;
    ngx_str_set(a, "1"); a++;
    ngx_str_set(a, KT_REDIS_GEN); a++;
    a->data = ctx->rid; a->len = KT_RID_LEN; a++;
    a->data = ctx->token; a->len = KT_KEY_TOKEN_LEN; a++;
    *a++ = ctx->model;
    *a++ = *ngx_http_keytoll_registry_gen();
    *a++ = ngx_http_keytoll_class_names[ctx->class];
    *a++ = ctx->request->uri;
    p = ngx_http_keytoll_number(p, a++, ctx->bound_nusd);
    p = ngx_http_keytoll_number(p, a++, ctx->typ_nusd);
    p = ngx_http_keytoll_number(p, a++, NGX_HTTP_KEYTOLL_CREDIT);
    p = ngx_http_keytoll_number(p, a++, ctx->in_bound);
    p = ngx_http_keytoll_number(p, a++, ctx->in_typ);
    p = ngx_http_keytoll_number(p, a++, ctx->out_bound);
    p = ngx_http_keytoll_number(p, a++, ctx->out_typ);
    p = ngx_http_keytoll_number(p, a++, ctx->in_nusd);
    p = ngx_http_keytoll_number(p, a++, NGX_HTTP_KEYTOLL_LEASE);
    (void) ngx_http_keytoll_number(p, a++, flags);

    if (ngx_http_keytoll_customer(ctx, a++) != NGX_OK
        || ngx_http_keytoll_tags(ctx, a++) != NGX_OK
        || ngx_http_keytoll_template(ctx) != NGX_OK)
    {
        return NGX_ERROR;
    }

    *a++ = ctx->template;

    pending = ngx_alloc(sizeof(ngx_http_keytoll_pending_t),
                        ctx->request->connection->log);
    if (pending == NULL) {
        return NGX_ERROR;
    }

    pending->ctx = ctx;
    pending->passed = 0;
    ngx_memcpy(pending->rid, ctx->rid, KT_RID_LEN);

    if (ngx_http_keytoll_redis_send(ngx_http_keytoll_admit_reply, pending,
                                    argv, a - argv)
        != NGX_OK)
    {
        ngx_free(pending);
        return NGX_ERROR;
    }

    ctx->pending = pending;

    return NGX_OK;
}


static void
ngx_http_keytoll_admit_reply(void *data, redisReply *reply, ngx_uint_t last)
{
    ngx_int_t                    code;
    redisReply                  *first;
    ngx_http_keytoll_ctx_t      *ctx;
    ngx_http_keytoll_pending_t  *pending;

    pending = data;

    if (reply == NULL) {
        ngx_http_keytoll_late(pending, last);
        return;
    }

    ctx = pending->ctx;
    pending->ctx = NULL;

    code = NGX_ERROR;

    if (reply->type == REDIS_REPLY_ARRAY && reply->elements > 1) {
        first = reply->element[0];
        code = first->type == REDIS_REPLY_INTEGER ? (ngx_int_t) first->integer
                                                  : NGX_ERROR;
    }

    if (ctx == NULL) {

        /* nobody waits any more; what was reserved is given back */

        if (code == KT_ADMITTED && !pending->passed) {
            ngx_http_keytoll_release(pending->rid, reply);
        }

    } else {
        ctx->pending = NULL;
    }

    ngx_free(pending);

    if (ctx == NULL) {
        return;
    }

    switch (code) {

    case NGX_ERROR:
        ngx_http_keytoll_unavailable(ctx, KT_REDIS_DOWN);
        return;

    case KT_ADMITTED:
        ngx_http_keytoll_granted(ctx, reply);
        return;

    case KT_ENTITY_MISSING:
        ngx_http_keytoll_unavailable(ctx, KT_ENTITY_MISSING);
        return;

    case KT_NOT_READY:
        ngx_http_keytoll_registry_lost();
        ngx_http_keytoll_registry_refresh();
        ngx_http_keytoll_unavailable(ctx, KT_NOT_READY);
        return;

    case KT_STALE:
        if (ctx->tries++ < NGX_HTTP_KEYTOLL_TRIES) {
            ngx_queue_insert_tail(&ngx_http_keytoll_waiting, &ctx->queue);
            ctx->queued = 1;
            ngx_http_keytoll_registry_stale(reply->element[1]);
            return;
        }

        ngx_http_keytoll_unavailable(ctx, KT_STALE);
        return;

    case KT_MODEL_UNKNOWN:
        ngx_http_keytoll_answer(ctx, ctx->why ? KT_BODY_INVALID : code, reply);
        return;

    default:
        ngx_http_keytoll_answer(ctx, code, reply);
    }
}


/* The deadline has passed; with last, the connection is gone. */

static void
ngx_http_keytoll_late(ngx_http_keytoll_pending_t *pending, ngx_uint_t last)
{
    ngx_http_keytoll_ctx_t  *ctx;

    ctx = pending->ctx;
    pending->ctx = NULL;

    if (ctx) {

        /* marks pending as passed if the policy lets the request go on */

        ngx_http_keytoll_unavailable(ctx, KT_REDIS_DOWN);
    }

    if (!last) {
        return;
    }

    if (!pending->passed) {
        ngx_http_keytoll_release(pending->rid, NULL);
    }

    ngx_free(pending);
}


static void
ngx_http_keytoll_granted(ngx_http_keytoll_ctx_t *ctx, redisReply *reply)
{
    if (ngx_http_keytoll_keep(ctx, reply) != NGX_OK) {
        ngx_http_keytoll_release(ctx->rid, reply);
        ngx_http_keytoll_answer(ctx, KT_INTERNAL, NULL);
        return;
    }

    ngx_http_keytoll_dispatch(ctx);
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


/* Copies the grant: the reply is freed when its handler returns. */

static ngx_int_t
ngx_http_keytoll_keep(ngx_http_keytoll_ctx_t *ctx, redisReply *reply)
{
    u_char      *p;
    ngx_pool_t  *pool;
    redisReply  *receipt;

    pool = ctx->request->pool;

    if (reply->elements < 9
        || reply->element[1]->type != REDIS_REPLY_STRING
        || ngx_http_keytoll_copy(pool, &ctx->rates, reply->element[2])
           != NGX_OK
        || ngx_http_keytoll_copy(pool, &ctx->alias, reply->element[5])
           != NGX_OK
        || ngx_http_keytoll_copy(pool, &ctx->key_spend, reply->element[6])
           != NGX_OK
        || ngx_http_keytoll_copy(pool, &ctx->key_limit, reply->element[7])
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    receipt = reply->element[1];

    p = ngx_pnalloc(pool, receipt->len + 3 + NGX_INT64_LEN
                          + ctx->template.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ctx->hold.data = p;
    ctx->receipt_len = receipt->len;

    p = ngx_cpymem(p, receipt->str, receipt->len);
    p = ngx_sprintf(p, "=\t%L\t%V", ctx->in_nusd, &ctx->template);

    ctx->hold.len = p - ctx->hold.data;

    ngx_http_keytoll_remember(ctx->token,
                              reply->element[8]->type == REDIS_REPLY_INTEGER
                              && reply->element[8]->integer == 0);

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
 * Without a reply it is not known whether anything was granted.
 */

static void
ngx_http_keytoll_release(u_char *rid, redisReply *reply)
{
    kt_record_t  rec;

    if (reply && (reply->elements < 2
                  || reply->element[1]->type != REDIS_REPLY_STRING))
    {
        return;
    }

    ngx_memzero(&rec, sizeof(kt_record_t));

    rec.type = KT_RECORD_SETTLE;
    rec.nfields = 7;
    rec.field[0].data = rid;
    rec.field[0].len = KT_RID_LEN;
    rec.field[1].data = (u_char *) (reply ? reply->element[1]->str : "");
    rec.field[1].len = reply ? reply->element[1]->len : 0;
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
        || ngx_http_keytoll_template(ctx) != NGX_OK)
    {
        ngx_http_keytoll_answer(ctx, reason, NULL);
        return;
    }

    p = ngx_pnalloc(r->pool, 256 + KT_REQ_TEXT
                             + ctx->template.len);
    if (p == NULL) {
        ngx_http_keytoll_answer(ctx, KT_INTERNAL, NULL);
        return;
    }

    if (pending) {
        pending->passed = 1;
    }

    ctx->unreserved = 1;
    ctx->hold.data = p;

    p = ngx_sprintf(p, "1\t%uL\t%V\nkey:%*s\t0\t0\t0\t64\n",
                    ctx->admit_ms, &ctx->model, (size_t) KT_KEY_TOKEN_LEN,
                    ctx->token);
    ctx->receipt_len = p - ctx->hold.data;

    p = ngx_sprintf(p, "=\t%L\t%V", ctx->in_nusd, &ctx->template);
    ctx->hold.len = p - ctx->hold.data;

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
