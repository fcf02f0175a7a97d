
/*
 * What is known without asking Redis, in the zone that all workers share:
 * keys that do not exist, refusals that stay until their end, keys that have
 * passed lately.  Refusals are denial.c's.
 *
 * Every change of policy is announced with the names of what changed
 * (watch.c); an entry falls when its key or the entity that refused changes.
 * An answer is stored only if neither changed since its question was sent
 * (mark), so an old answer never survives the change that made it wrong.  A
 * worker that hears no announcements neither reads nor writes.
 *
 * Tables are arrays of sets of four; the entry that ends first is evicted.
 */


#include "ngx_http_keytoll_cache.h"


#define NGX_HTTP_KEYTOLL_SEEN_S     60


/* Tables in what the zone has left: most of it for refusals. */

ngx_int_t
ngx_http_keytoll_cache_init(ngx_slab_pool_t *pool,
    ngx_http_keytoll_shm_t *shm, size_t size)
{
    size_t                     set;
    ngx_http_keytoll_cache_t  *cache;

    cache = ngx_slab_calloc(pool, sizeof(ngx_http_keytoll_cache_t));
    if (cache == NULL) {
        return NGX_ERROR;
    }

    cache->pool = pool;

    set = NGX_HTTP_KEYTOLL_WAYS * sizeof(ngx_http_keytoll_unknown_t);
    cache->nunknown = ngx_max(size / 8 / set, 1);
    cache->unknown = ngx_slab_calloc(pool, cache->nunknown * set);

    set = NGX_HTTP_KEYTOLL_WAYS * sizeof(ngx_http_keytoll_seen_t);
    cache->nseen = ngx_max(size / 8 / set, 1);
    cache->seen = ngx_slab_calloc(pool, cache->nseen * set);

    set = NGX_HTTP_KEYTOLL_WAYS * sizeof(ngx_http_keytoll_denial_t);
    cache->ndenials = ngx_max(size / 2 / set, 1);
    cache->denials = ngx_slab_calloc(pool, cache->ndenials * set);

    if (cache->unknown == NULL || cache->seen == NULL
        || cache->denials == NULL)
    {
        return NGX_ERROR;
    }

    shm->cache = cache;

    return NGX_OK;
}


ngx_http_keytoll_cache_t *
ngx_http_keytoll_cache(void)
{
    ngx_http_keytoll_shm_t        *shm;
    ngx_http_keytoll_main_conf_t  *kmcf;

    kmcf = ngx_http_keytoll_conf();

    if (kmcf->zone == NULL) {
        return NULL;
    }

    shm = kmcf->zone->data;

    return shm->cache;
}


/* A token is a hash already. */

uint32_t
ngx_http_keytoll_token_hash(u_char *token)
{
    u_char      c;
    uint32_t    hash;
    ngx_uint_t  i;

    for (i = 0, hash = 0; i < 8; i++) {
        c = token[i];
        hash = hash << 4 | ((c <= '9' ? c - '0' : c - 'a' + 10) & 0xf);
    }

    return hash;
}


uint16_t
ngx_http_keytoll_key_slot(u_char *token)
{
    return ngx_http_keytoll_token_hash(token) % NGX_HTTP_KEYTOLL_SLOTS;
}


uint16_t
ngx_http_keytoll_slot(u_char *name, size_t len)
{
    if (len == 4 + KT_KEY_TOKEN_LEN && ngx_strncmp(name, "key:", 4) == 0) {
        return ngx_http_keytoll_key_slot(name + 4);
    }

    return ngx_crc32_short(name, len) % NGX_HTTP_KEYTOLL_SLOTS;
}


/* To be taken before a question is sent whose answer may be stored. */

uint64_t
ngx_http_keytoll_cache_mark(void)
{
    uint64_t                   mark;
    ngx_http_keytoll_cache_t  *cache;

    cache = ngx_http_keytoll_cache();

    if (cache == NULL || !ngx_http_keytoll_watch_live()) {
        return 0;
    }

    ngx_shmtx_lock(&cache->pool->mutex);
    mark = ++cache->seq;
    ngx_shmtx_unlock(&cache->pool->mutex);

    return mark;
}


void
ngx_http_keytoll_cache_changed(u_char *name, size_t len, ngx_uint_t relief)
{
    ngx_http_keytoll_cache_t  *cache;

    cache = ngx_http_keytoll_cache();

    if (cache == NULL) {
        return;
    }

    ngx_shmtx_lock(&cache->pool->mutex);
    cache->changed[ngx_http_keytoll_slot(name, len)] = ++cache->seq;

    if (!relief) {
        cache->latest = cache->seq;
    }

    ngx_shmtx_unlock(&cache->pool->mutex);
}


/* Whatever may have changed while nobody listened. */

void
ngx_http_keytoll_cache_flush(void)
{
    ngx_http_keytoll_cache_t  *cache;

    cache = ngx_http_keytoll_cache();

    if (cache == NULL) {
        return;
    }

    ngx_shmtx_lock(&cache->pool->mutex);
    cache->flushed = ++cache->seq;
    ngx_shmtx_unlock(&cache->pool->mutex);

    ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_CACHE_EMPTIED, 1);
}


ngx_uint_t
ngx_http_keytoll_fresh(ngx_http_keytoll_cache_t *cache, uint64_t seq,
    uint16_t key, uint16_t entity)
{
    return seq > cache->flushed && seq > cache->changed[key]
           && seq > cache->changed[entity];
}


ngx_uint_t
ngx_http_keytoll_token_is(u_char *a, u_char *b)
{
    return ngx_memcmp(a, b, KT_KEY_TOKEN_LEN) == 0;
}


/* Whether Redis said lately that there is no such key. */

ngx_uint_t
ngx_http_keytoll_cache_unknown(u_char *token)
{
    uint16_t                     key;
    ngx_uint_t                   i, found;
    ngx_http_keytoll_cache_t    *cache;
    ngx_http_keytoll_unknown_t  *u;

    cache = ngx_http_keytoll_cache();

    if (cache == NULL || !ngx_http_keytoll_watch_live()) {
        return 0;
    }

    key = ngx_http_keytoll_key_slot(token);
    u = cache->unknown + NGX_HTTP_KEYTOLL_WAYS
                         * (ngx_http_keytoll_token_hash(token)
                            % cache->nunknown);
    found = 0;

    ngx_shmtx_lock(&cache->pool->mutex);

    for (i = 0; i < NGX_HTTP_KEYTOLL_WAYS; i++, u++) {
        if (u->until && ngx_http_keytoll_token_is(u->token, token)) {
            found = (ngx_msec_int_t) (u->until - ngx_current_msec) > 0
                    && ngx_http_keytoll_fresh(cache, u->seq, key, key);
            break;
        }
    }

    ngx_shmtx_unlock(&cache->pool->mutex);

    if (found) {
        ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_CACHE_HITS, 1);
    }

    return found;
}


void
ngx_http_keytoll_deny_unknown(ngx_http_keytoll_cache_t *cache, u_char *token,
    uint64_t mark)
{
    uint16_t                     key;
    ngx_uint_t                   i;
    ngx_http_keytoll_unknown_t  *u, *set;

    key = ngx_http_keytoll_key_slot(token);
    set = cache->unknown + NGX_HTTP_KEYTOLL_WAYS
                           * (ngx_http_keytoll_token_hash(token)
                              % cache->nunknown);

    ngx_shmtx_lock(&cache->pool->mutex);

    if (ngx_http_keytoll_fresh(cache, mark, key, key)) {
        u = set;

        for (i = 0; i < NGX_HTTP_KEYTOLL_WAYS; i++) {
            if (ngx_http_keytoll_token_is(set[i].token, token)) {
                u = &set[i];
                break;
            }

            if (set[i].until == 0
                || (u->until
                    && (ngx_msec_int_t) (set[i].until - u->until) < 0))
            {
                u = &set[i];
            }
        }

        u->seq = mark;
        u->until = ngx_current_msec + NGX_HTTP_KEYTOLL_DENY_MS;
        u->until += u->until == 0;
        ngx_memcpy(u->token, token, KT_KEY_TOKEN_LEN);
    }

    ngx_shmtx_unlock(&cache->pool->mutex);

    ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_CACHE_STORED, 1);
}


static ngx_http_keytoll_seen_t *
ngx_http_keytoll_seen_set(ngx_http_keytoll_cache_t *cache, u_char *token)
{
    return cache->seen + NGX_HTTP_KEYTOLL_WAYS
                         * (ngx_http_keytoll_token_hash(token)
                            % cache->nseen);
}


/*
 * Keys that passed: whether anything limits them, for "keytoll_redis_failure
 * cached".  mark: from before the question was sent.
 */

void
ngx_http_keytoll_cache_seen(u_char *token, ngx_uint_t unlimited,
    uint64_t mark)
{
    ngx_uint_t                 i;
    ngx_http_keytoll_seen_t   *s, *set;
    ngx_http_keytoll_cache_t  *cache;

    cache = ngx_http_keytoll_cache();

    if (cache == NULL) {
        return;
    }

    set = ngx_http_keytoll_seen_set(cache, token);
    s = set;

    ngx_shmtx_lock(&cache->pool->mutex);

    for (i = 0; i < NGX_HTTP_KEYTOLL_WAYS; i++) {
        if (ngx_http_keytoll_token_is(set[i].token, token)) {
            s = &set[i];
            break;
        }

        if (set[i].when < s->when) {
            s = &set[i];
        }
    }

    s->seq = mark;
    s->when = ngx_time();
    s->unlimited = unlimited;
    ngx_memcpy(s->token, token, KT_KEY_TOKEN_LEN);

    ngx_shmtx_unlock(&cache->pool->mutex);
}


/* The key's entry, copied: 1, or 0 when there is none. */

static ngx_uint_t
ngx_http_keytoll_seen_find(ngx_http_keytoll_cache_t *cache, u_char *token,
    ngx_http_keytoll_seen_t *copy)
{
    ngx_uint_t                i, found;
    ngx_http_keytoll_seen_t  *s;

    s = ngx_http_keytoll_seen_set(cache, token);
    found = 0;

    ngx_shmtx_lock(&cache->pool->mutex);

    for (i = 0; i < NGX_HTTP_KEYTOLL_WAYS; i++, s++) {
        if (s->when && ngx_http_keytoll_token_is(s->token, token)) {
            *copy = *s;
            found = 1;
            break;
        }
    }

    ngx_shmtx_unlock(&cache->pool->mutex);

    return found;
}


/* Whether the key passed once, as far as the table remembers. */

ngx_uint_t
ngx_http_keytoll_cache_passed(u_char *token)
{
    ngx_http_keytoll_seen_t    s;
    ngx_http_keytoll_cache_t  *cache;

    cache = ngx_http_keytoll_cache();

    return cache && ngx_http_keytoll_seen_find(cache, token, &s);
}


/*
 * Whether the key passed within the last minute, nothing limited it, and no
 * policy has changed since: it may have been blocked, at any level.
 */

ngx_uint_t
ngx_http_keytoll_cache_unlimited(u_char *token)
{
    ngx_http_keytoll_seen_t    s;
    ngx_http_keytoll_cache_t  *cache;

    cache = ngx_http_keytoll_cache();

    return cache && ngx_http_keytoll_seen_find(cache, token, &s)
           && s.unlimited && s.seq > cache->latest && s.seq > cache->flushed
           && ngx_time() - s.when <= NGX_HTTP_KEYTOLL_SEEN_S;
}
