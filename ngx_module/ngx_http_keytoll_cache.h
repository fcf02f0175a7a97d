
/*
 * The tables of cache.c and denial.c in shared memory.  All of it is read and
 * written under the mutex of the pool.
 */


#ifndef _NGX_HTTP_KEYTOLL_CACHE_H_INCLUDED_
#define _NGX_HTTP_KEYTOLL_CACHE_H_INCLUDED_


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_WAYS       4
#define NGX_HTTP_KEYTOLL_SLOTS      4096        /* of changes, by name       */
#define NGX_HTTP_KEYTOLL_BLOB       512
#define NGX_HTTP_KEYTOLL_DENY_MS    60000       /* asked again after         */


typedef struct {
    uint64_t                       seq;         /* the mark it was stored at */
    ngx_msec_t                     until;       /* 0: free                   */
    u_char                         token[KT_KEY_TOKEN_LEN];
} ngx_http_keytoll_unknown_t;


typedef struct {
    uint64_t                       seq;
    ngx_msec_t                     until;
    ngx_msec_t                     stored;
    u_char                         token[KT_KEY_TOKEN_LEN];
    uint32_t                       hash[2];     /* of what was asked         */
    uint16_t                       entity;      /* slot of who refused       */
    uint16_t                       reason;
    uint16_t                       len[NGX_HTTP_KEYTOLL_FIELDS];
    u_char                         blob[NGX_HTTP_KEYTOLL_BLOB];
} ngx_http_keytoll_denial_t;


typedef struct {
    uint64_t                       seq;         /* 0: changes went unheard   */
    time_t                         when;        /* 0: free                   */
    ngx_uint_t                     unlimited;
    u_char                         token[KT_KEY_TOKEN_LEN];
} ngx_http_keytoll_seen_t;


struct ngx_http_keytoll_cache_s {
    ngx_slab_pool_t               *pool;        /* its mutex is ours         */
    uint64_t                       seq;
    uint64_t                       flushed;
    uint64_t                       latest;      /* change of any name        */
    uint64_t                       changed[NGX_HTTP_KEYTOLL_SLOTS];

    ngx_uint_t                     nunknown;    /* sets                      */
    ngx_uint_t                     ndenials;
    ngx_uint_t                     nseen;
    ngx_http_keytoll_unknown_t    *unknown;
    ngx_http_keytoll_denial_t     *denials;
    ngx_http_keytoll_seen_t       *seen;
};


/* NULL without a zone. */
ngx_http_keytoll_cache_t *ngx_http_keytoll_cache(void);

/* Where a change of the entity, or of the key, is noted. */
uint16_t ngx_http_keytoll_slot(u_char *name, size_t len);
uint16_t ngx_http_keytoll_key_slot(u_char *token);

uint32_t ngx_http_keytoll_token_hash(u_char *token);
ngx_uint_t ngx_http_keytoll_token_is(u_char *a, u_char *b);

/* Under the mutex: neither has changed since the mark. */
ngx_uint_t ngx_http_keytoll_fresh(ngx_http_keytoll_cache_t *cache,
    uint64_t seq, uint16_t key, uint16_t entity);

void ngx_http_keytoll_deny_unknown(ngx_http_keytoll_cache_t *cache,
    u_char *token, uint64_t mark);


#endif /* _NGX_HTTP_KEYTOLL_CACHE_H_INCLUDED_ */
