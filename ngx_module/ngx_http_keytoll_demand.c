
/*
 * Who asks how much: requests that differ in cost only, and how many of them
 * came of late.  Blocks are asked for and kept for these entries.
 */


#include "ngx_http_keytoll_block.h"


static ngx_uint_t ngx_http_keytoll_entry_is(ngx_http_keytoll_entry_t *e,
    ngx_http_keytoll_ctx_t *ctx);
static ngx_int_t ngx_http_keytoll_entry_init(ngx_http_keytoll_entry_t *e,
    ngx_http_keytoll_ctx_t *ctx, uint32_t *hash);


ngx_http_keytoll_entry_t  *ngx_http_keytoll_entries;


/* The entry of what ctx asks, NULL when its place is taken. */

ngx_http_keytoll_entry_t *
ngx_http_keytoll_entry(ngx_http_keytoll_ctx_t *ctx)
{
    uint32_t                   hash[2];
    ngx_http_keytoll_entry_t  *e;

    if (ngx_http_keytoll_entries == NULL) {
        ngx_http_keytoll_entries = ngx_calloc(NGX_HTTP_KEYTOLL_ENTRIES
                                              * sizeof(*e), ngx_cycle->log);
        if (ngx_http_keytoll_entries == NULL) {
            return NULL;
        }

        ngx_http_keytoll_block_init();
    }

    ngx_http_keytoll_cache_hash(ctx, hash);

    e = &ngx_http_keytoll_entries[hash[1] % NGX_HTTP_KEYTOLL_ENTRIES];

    if (e->data && e->hash[0] == hash[0] && e->hash[1] == hash[1]
        && ngx_http_keytoll_entry_is(e, ctx))
    {
        return e;
    }

    /* another's place, as long as that one is in use */

    if (e->block || e->next || e->asked
        || ngx_http_keytoll_entry_init(e, ctx, hash) != NGX_OK)
    {
        return NULL;
    }

    return e;
}


/* Hashes of what clients send can be made equal: all of it is compared. */

static ngx_uint_t
ngx_http_keytoll_entry_is(ngx_http_keytoll_entry_t *e,
    ngx_http_keytoll_ctx_t *ctx)
{
    ngx_str_t   *a[5], *b[5];
    ngx_uint_t   i;

    a[0] = &e->model;     b[0] = &ctx->model;
    a[1] = &e->uri;       b[1] = &ctx->request->uri;
    a[2] = &e->customer;  b[2] = &ctx->customer;
    a[3] = &e->tag_names; b[3] = &ctx->tag_names;
    a[4] = &e->provider;  b[4] = &ctx->provider;

    for (i = 0; i < 5; i++) {
        if (a[i]->len != b[i]->len
            || (a[i]->len
                && ngx_memcmp(a[i]->data, b[i]->data, a[i]->len) != 0))
        {
            return 0;
        }
    }

    return e->flags == ctx->flags
           && e->class.data == ngx_http_keytoll_class_names[ctx->class].data
           && ngx_memcmp(e->token, ctx->token, KT_KEY_TOKEN_LEN) == 0;
}


static ngx_int_t
ngx_http_keytoll_entry_init(ngx_http_keytoll_entry_t *e,
    ngx_http_keytoll_ctx_t *ctx, uint32_t *hash)
{
    u_char      *p;
    ngx_str_t   *to[5], *from[5];
    size_t       len;
    ngx_uint_t   i;

    if (e->data) {
        ngx_free(e->data);
    }

    ngx_memzero(e, sizeof(ngx_http_keytoll_entry_t));

    to[0] = &e->model;     from[0] = &ctx->model;
    to[1] = &e->uri;       from[1] = &ctx->request->uri;
    to[2] = &e->customer;  from[2] = &ctx->customer;
    to[3] = &e->tag_names; from[3] = &ctx->tag_names;
    to[4] = &e->provider;  from[4] = &ctx->provider;

    for (i = 0, len = 1; i < 5; i++) {
        len += from[i]->len;
    }

    p = ngx_alloc(len, ngx_cycle->log);
    if (p == NULL) {
        return NGX_ERROR;
    }

    e->data = p;

    for (i = 0; i < 5; i++) {
        to[i]->data = p;
        to[i]->len = from[i]->len;

        if (from[i]->len) {
            p = ngx_cpymem(p, from[i]->data, from[i]->len);
        }
    }

    ngx_memcpy(e->token, ctx->token, KT_KEY_TOKEN_LEN);
    e->hash[0] = hash[0];
    e->hash[1] = hash[1];
    e->class = ngx_http_keytoll_class_names[ctx->class];
    e->flags = ctx->flags;

    return NGX_OK;
}


/* most: the dearest request of late, what a block reserves for each. */

void
ngx_http_keytoll_demand(ngx_http_keytoll_entry_t *e, int64_t *need,
    ngx_msec_t now)
{
    ngx_uint_t  i;

    if (now - e->since > NGX_HTTP_KEYTOLL_BLOCK_SPAN) {
        e->rate = now - e->since > 2 * NGX_HTTP_KEYTOLL_BLOCK_SPAN
                  ? 0 : e->demand;
        e->since = now;
        e->demand = 0;

        for (i = 0; i < NGX_HTTP_KEYTOLL_AMOUNTS; i++) {
            e->most[i] -= e->most[i] / 8;
        }
    }

    e->demand++;

    for (i = 0; i < NGX_HTTP_KEYTOLL_AMOUNTS; i++) {
        e->most[i] = ngx_max(e->most[i], need[i]);
    }
}
