
/*
 * Refusals that are given again without asking Redis.
 *
 * One is kept only where nothing but time or a change of policy lifts it:
 * blocked, expired, a model or route that is not allowed, a budget that is
 * spent with nothing held, RPM until its retry time.
 */


#include "ngx_http_keytoll_cache.h"


#define NGX_HTTP_KEYTOLL_F_ENTITY   1           /* fields of the reply       */
#define NGX_HTTP_KEYTOLL_F_LIMIT    3
#define NGX_HTTP_KEYTOLL_F_USED     4
#define NGX_HTTP_KEYTOLL_F_HELD     5
#define NGX_HTTP_KEYTOLL_F_END      6
#define NGX_HTTP_KEYTOLL_F_RETRY    7
#define NGX_HTTP_KEYTOLL_F_NOW      9
#define NGX_HTTP_KEYTOLL_F_LEFT     16
#define NGX_HTTP_KEYTOLL_F_LASTS    17


static ngx_msec_t ngx_http_keytoll_lasts(ngx_uint_t reason,
    redisReply *reply);
static void ngx_http_keytoll_first_join(ngx_http_keytoll_ctx_t *ctx,
    ngx_msec_t lasts, uint16_t entity);
static void ngx_http_keytoll_store(ngx_http_keytoll_denial_t *d,
    redisReply *reply);
static ngx_int_t ngx_http_keytoll_replay(ngx_http_keytoll_ctx_t *ctx,
    ngx_http_keytoll_denial_t *d, ngx_uint_t *reason, redisReply *reply);


/* Two independent hashes of all that a verdict depends on but the key. */

void
ngx_http_keytoll_cache_hash(ngx_http_keytoll_ctx_t *ctx, uint32_t *hash)
{
    u_char      head[2];
    uint32_t    crc, murmur;
    ngx_str_t  *part[5];
    ngx_uint_t  i;

    part[0] = &ctx->model;
    part[1] = &ctx->request->uri;
    part[2] = &ctx->customer;
    part[3] = &ctx->tag_names;
    part[4] = ngx_http_keytoll_registry_gen();

    head[0] = (u_char) ctx->class;
    head[1] = (u_char) ctx->flags;

    ngx_crc32_init(crc);
    ngx_crc32_update(&crc, head, sizeof(head));
    murmur = ngx_murmur_hash2(head, sizeof(head));

    for (i = 0; i < 5; i++) {
        ngx_crc32_update(&crc, part[i]->data, part[i]->len);
        ngx_crc32_update(&crc, (u_char *) "\t", 1);
        murmur = murmur * 31 + ngx_murmur_hash2(part[i]->data, part[i]->len);
    }

    ngx_crc32_final(crc);

    hash[0] = crc;
    hash[1] = murmur;
}


/* Refuses the request if that is certain without Redis. */

ngx_uint_t
ngx_http_keytoll_cache_denied(ngx_http_keytoll_ctx_t *ctx)
{
    uint16_t                    key;
    uint32_t                    hash[2];
    ngx_uint_t                  i, found, reason;
    redisReply                  reply;
    ngx_http_keytoll_cache_t   *cache;
    ngx_http_keytoll_denial_t  *d, copy;

    cache = ngx_http_keytoll_cache();

    if (cache == NULL || ctx->why || !ngx_http_keytoll_watch_live()) {
        return 0;
    }

    ngx_http_keytoll_cache_hash(ctx, hash);

    key = ngx_http_keytoll_key_slot(ctx->token);
    d = cache->denials + NGX_HTTP_KEYTOLL_WAYS
                         * ((hash[0]
                             ^ ngx_http_keytoll_token_hash(ctx->token))
                            % cache->ndenials);
    found = 0;

    ngx_shmtx_lock(&cache->pool->mutex);

    for (i = 0; i < NGX_HTTP_KEYTOLL_WAYS; i++, d++) {
        if (d->until && d->hash[0] == hash[0] && d->hash[1] == hash[1]
            && ngx_http_keytoll_token_is(d->token, ctx->token))
        {
            if ((ngx_msec_int_t) (d->until - ngx_current_msec) > 0
                && ngx_http_keytoll_fresh(cache, d->seq, key, d->entity))
            {
                copy = *d;
                found = 1;
            }

            break;
        }
    }

    ngx_shmtx_unlock(&cache->pool->mutex);

    if (!found || ngx_http_keytoll_replay(ctx, &copy, &reason, &reply)
                  != NGX_OK)
    {
        return 0;
    }

    ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_CACHE_HITS, 1);
    ngx_http_keytoll_answer(ctx, reason, &reply);

    return 1;
}


/* Others will be asked for: what is remembered of the question and its mark. */

void
ngx_http_keytoll_cache_first(ngx_http_keytoll_ctx_t *ctx, uint64_t mark)
{
    ctx->first.mark = mark;
    ctx->first.flags = ctx->flags;
    ctx->first.lasts = NGX_HTTP_KEYTOLL_DENY_MS;
    ctx->first.entity = ngx_http_keytoll_key_slot(ctx->token);
    ctx->first.lost = mark == 0;
}


/* One of the others is refused, too. */

void
ngx_http_keytoll_cache_other(ngx_http_keytoll_ctx_t *ctx, ngx_uint_t reason,
    redisReply *reply)
{
    ngx_msec_t   lasts;
    redisReply  *name;

    lasts = ngx_http_keytoll_lasts(reason, reply);

    if (lasts == 0) {
        ctx->first.lost = 1;
        return;
    }

    name = reply->element[NGX_HTTP_KEYTOLL_F_ENTITY];

    ngx_http_keytoll_first_join(ctx, lasts,
                                ngx_http_keytoll_slot((u_char *) name->str,
                                                      name->len));
}


/* An entry names one entity besides the key: two can not be kept. */

static void
ngx_http_keytoll_first_join(ngx_http_keytoll_ctx_t *ctx, ngx_msec_t lasts,
    uint16_t entity)
{
    uint16_t  key;

    key = ngx_http_keytoll_key_slot(ctx->token);

    ctx->first.lasts = ngx_min(ctx->first.lasts, lasts);

    if (ctx->first.entity == key) {
        ctx->first.entity = entity;

    } else if (entity != key && entity != ctx->first.entity) {
        ctx->first.lost = 1;
    }
}


/* mark: from before the question was sent; 0 keeps nothing. */

void
ngx_http_keytoll_cache_deny(ngx_http_keytoll_ctx_t *ctx, ngx_uint_t reason,
    redisReply *reply, uint64_t mark)
{
    uint16_t                    key, entity;
    uint32_t                    hash[2];
    ngx_msec_t                  lasts;
    ngx_uint_t                  i;
    redisReply                 *name;
    ngx_http_keytoll_cache_t   *cache;
    ngx_http_keytoll_denial_t  *d, *set;

    cache = ngx_http_keytoll_cache();

    if (cache == NULL || mark == 0 || ctx->why) {
        return;
    }

    if (reason == KT_KEY_UNKNOWN) {
        ngx_http_keytoll_deny_unknown(cache, ctx->token, mark);
        return;
    }

    lasts = ngx_http_keytoll_lasts(reason, reply);

    if (lasts == 0) {
        return;
    }

    name = reply->element[NGX_HTTP_KEYTOLL_F_ENTITY];

    key = ngx_http_keytoll_key_slot(ctx->token);
    entity = ngx_http_keytoll_slot((u_char *) name->str, name->len);

    if (ctx->tried) {
        ngx_http_keytoll_first_join(ctx, lasts, entity);

        if (ctx->first.lost) {
            return;
        }

        mark = ctx->first.mark;
        lasts = ctx->first.lasts;
        entity = ctx->first.entity;
        ctx->flags = ctx->first.flags;
    }

    ngx_http_keytoll_cache_hash(ctx, hash);

    set = cache->denials + NGX_HTTP_KEYTOLL_WAYS
                           * ((hash[0]
                               ^ ngx_http_keytoll_token_hash(ctx->token))
                              % cache->ndenials);

    ngx_shmtx_lock(&cache->pool->mutex);

    if (ngx_http_keytoll_fresh(cache, mark, key, entity)) {
        d = set;

        for (i = 0; i < NGX_HTTP_KEYTOLL_WAYS; i++) {
            if (set[i].until && set[i].hash[0] == hash[0]
                && set[i].hash[1] == hash[1]
                && ngx_http_keytoll_token_is(set[i].token, ctx->token))
            {
                d = &set[i];
                break;
            }

            if (set[i].until == 0
                || (d->until
                    && (ngx_msec_int_t) (set[i].until - d->until) < 0))
            {
                d = &set[i];
            }
        }

        d->seq = mark;
        d->stored = ngx_current_msec;
        d->until = ngx_current_msec + lasts;
        d->until += d->until == 0;
        ngx_memcpy(d->token, ctx->token, KT_KEY_TOKEN_LEN);
        d->hash[0] = hash[0];
        d->hash[1] = hash[1];
        d->entity = entity;
        d->reason = (uint16_t) reason;
        ngx_http_keytoll_store(d, reply);
    }

    ngx_shmtx_unlock(&cache->pool->mutex);

    ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_CACHE_STORED, 1);
}


static int64_t
ngx_http_keytoll_reply_int(redisReply *reply, ngx_uint_t i)
{
    return reply->element[i]->type == REDIS_REPLY_STRING
           ? strtoll(reply->element[i]->str, NULL, 10) : 0;
}


/* How long, in ms, nothing but a change of policy can lift the refusal. */

static ngx_msec_t
ngx_http_keytoll_lasts(ngx_uint_t reason, redisReply *reply)
{
    size_t      len;
    int64_t     ms;
    ngx_uint_t  i;

    if (reply->type != REDIS_REPLY_ARRAY
        || reply->elements < NGX_HTTP_KEYTOLL_FIELDS)
    {
        return 0;
    }

    for (i = 1, len = 0; i < NGX_HTTP_KEYTOLL_FIELDS; i++) {
        if (reply->element[i]->type != REDIS_REPLY_STRING) {
            return 0;
        }

        len += i == NGX_HTTP_KEYTOLL_F_LEFT ? 0
               : i == NGX_HTTP_KEYTOLL_F_RETRY ? NGX_INT64_LEN
               : reply->element[i]->len;
    }

    if (len > NGX_HTTP_KEYTOLL_BLOB) {
        return 0;
    }

    ms = NGX_HTTP_KEYTOLL_DENY_MS;

    switch (reason) {

    case KT_KEY_BLOCKED:
    case KT_KEY_MODEL:
    case KT_KEY_EXPIRED:
    case KT_ENTITY_BLOCKED:
    case KT_ENTITY_MODEL:
    case KT_ROUTE_DENIED:
        return ms;

    case KT_BUDGET_EXCEEDED:
    case KT_CREDITS:

        /* what is held may come back, a smaller request may still fit */

        if (ngx_http_keytoll_reply_int(reply, NGX_HTTP_KEYTOLL_F_HELD) != 0
            || ngx_http_keytoll_reply_int(reply, NGX_HTTP_KEYTOLL_F_USED)
               < ngx_http_keytoll_reply_int(reply, NGX_HTTP_KEYTOLL_F_LIMIT))
        {
            return 0;
        }

        if (ngx_http_keytoll_reply_int(reply, NGX_HTTP_KEYTOLL_F_END)) {
            ms = ngx_http_keytoll_reply_int(reply, NGX_HTTP_KEYTOLL_F_END)
                 * 1000
                 - ngx_http_keytoll_reply_int(reply, NGX_HTTP_KEYTOLL_F_NOW);
        }

        break;

    case KT_RPM:

        /* the wait may be that of a request as large as this */

        if (ngx_http_keytoll_reply_int(reply, NGX_HTTP_KEYTOLL_F_LASTS) >= 0) {
            ms = ngx_http_keytoll_reply_int(reply, NGX_HTTP_KEYTOLL_F_LASTS);
        }

        break;

    default:
        return 0;
    }

    return ms <= 0 ? 0
                   : (ngx_msec_t) ngx_min(ms, NGX_HTTP_KEYTOLL_DENY_MS);
}


/*
 * What is left of other limits is not what it was by the time it is told, and
 * the wait is that of a request of any size.
 */

static void
ngx_http_keytoll_store(ngx_http_keytoll_denial_t *d, redisReply *reply)
{
    u_char      *p;
    ngx_uint_t   i;
    redisReply  *e;

    p = d->blob;

    for (i = 1; i < NGX_HTTP_KEYTOLL_FIELDS; i++) {
        e = reply->element[i == NGX_HTTP_KEYTOLL_F_RETRY
                           ? NGX_HTTP_KEYTOLL_F_LASTS : i];
        d->len[i] = 0;

        if (i != NGX_HTTP_KEYTOLL_F_LEFT) {
            d->len[i] = (uint16_t) e->len;
            p = ngx_cpymem(p, e->str, e->len);
        }
    }
}


/* The reply that Redis would give now, in the request's pool. */

static ngx_int_t
ngx_http_keytoll_replay(ngx_http_keytoll_ctx_t *ctx,
    ngx_http_keytoll_denial_t *d, ngx_uint_t *reason, redisReply *reply)
{
    u_char       *p, *src;
    int64_t       retry, now;
    ngx_uint_t    i;
    ngx_msec_t    passed;
    redisReply   *e;

    e = ngx_pcalloc(ctx->request->pool, NGX_HTTP_KEYTOLL_FIELDS
                                        * (sizeof(redisReply)
                                           + sizeof(redisReply *)));
    p = ngx_pnalloc(ctx->request->pool, NGX_HTTP_KEYTOLL_BLOB
                                        + NGX_HTTP_KEYTOLL_FIELDS
                                        + 2 * NGX_INT64_LEN);
    if (e == NULL || p == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(reply, sizeof(redisReply));
    reply->type = REDIS_REPLY_ARRAY;
    reply->elements = NGX_HTTP_KEYTOLL_FIELDS;
    reply->element = (redisReply **) (e + NGX_HTTP_KEYTOLL_FIELDS);

    e[0].type = REDIS_REPLY_INTEGER;
    e[0].integer = d->reason;
    reply->element[0] = &e[0];

    for (i = 1, src = d->blob; i < NGX_HTTP_KEYTOLL_FIELDS; i++) {
        e[i].type = REDIS_REPLY_STRING;
        e[i].str = (char *) p;
        e[i].len = d->len[i];
        reply->element[i] = &e[i];

        p = ngx_cpymem(p, src, d->len[i]);
        *p++ = '\0';
        src += d->len[i];
    }

    passed = ngx_current_msec - d->stored;

    retry = ngx_http_keytoll_reply_int(reply, NGX_HTTP_KEYTOLL_F_RETRY);
    now = ngx_http_keytoll_reply_int(reply, NGX_HTTP_KEYTOLL_F_NOW);

    if (retry > 0) {
        e[NGX_HTTP_KEYTOLL_F_RETRY].str = (char *) p;
        p = ngx_sprintf(p, "%L", ngx_max(1, retry - (int64_t) passed));
        e[NGX_HTTP_KEYTOLL_F_RETRY].len
            = p - (u_char *) e[NGX_HTTP_KEYTOLL_F_RETRY].str;
        *p++ = '\0';
    }

    e[NGX_HTTP_KEYTOLL_F_NOW].str = (char *) p;
    p = ngx_sprintf(p, "%L", now + (int64_t) passed);
    e[NGX_HTTP_KEYTOLL_F_NOW].len
        = p - (u_char *) e[NGX_HTTP_KEYTOLL_F_NOW].str;

    *reason = d->reason;

    return NGX_OK;
}
