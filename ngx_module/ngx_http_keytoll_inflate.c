
/*
 * Answers that are compressed: a copy is decompressed for the scanners, the
 * client gets the bytes as they came.
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_INFLATE_BUF  16384
#define NGX_HTTP_KEYTOLL_INFLATE_FREE   (1 << 20)
#define NGX_HTTP_KEYTOLL_INFLATE_RATIO  100
#define NGX_HTTP_KEYTOLL_INFLATE_MAX  (256 << 20)


static void *ngx_http_keytoll_inflate_alloc(void *opaque, u_int items,
    u_int size);
static void ngx_http_keytoll_inflate_free(void *opaque, void *address);


ngx_int_t
ngx_http_keytoll_inflate_init(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx)
{
    z_stream  *zs;

    zs = ngx_pcalloc(r->pool, sizeof(z_stream));
    if (zs == NULL) {
        return NGX_ERROR;
    }

    zs->zalloc = ngx_http_keytoll_inflate_alloc;
    zs->zfree = ngx_http_keytoll_inflate_free;
    zs->opaque = r->pool;

    /* gzip with the largest window */

    if (inflateInit2(zs, MAX_WBITS + 16) != Z_OK) {
        return NGX_ERROR;
    }

    ctx->zs = zs;

    return NGX_OK;
}


/*
 * Hands what p decompresses to on to scan.  NGX_ERROR when it cannot be read
 * any further: it is broken, or more than we are willing to look at.
 */

ngx_int_t
ngx_http_keytoll_inflate(ngx_http_keytoll_ctx_t *ctx, u_char *p, size_t len,
    void (*scan)(ngx_http_keytoll_ctx_t *ctx, u_char *p, size_t len))
{
    int        rc;
    u_char     buf[NGX_HTTP_KEYTOLL_INFLATE_BUF];
    size_t     n;
    z_stream  *zs;

    zs = ctx->zs;
    zs->next_in = p;
    zs->avail_in = len;

    do {
        zs->next_out = buf;
        zs->avail_out = sizeof(buf);

        rc = inflate(zs, Z_SYNC_FLUSH);
        n = sizeof(buf) - zs->avail_out;

        if (n) {
            scan(ctx, buf, n);
        }

        if (rc == Z_STREAM_END) {

            /* members may follow each other */

            if (zs->avail_in && inflateReset(zs) != Z_OK) {
                return NGX_ERROR;
            }

        } else if (rc != Z_OK && rc != Z_BUF_ERROR) {
            return NGX_ERROR;
        }

        /* no answer of a model is as regular as that: a bomb */

        if (ctx->plain_bytes > NGX_HTTP_KEYTOLL_INFLATE_MAX
            || (ctx->plain_bytes > NGX_HTTP_KEYTOLL_INFLATE_FREE
                && ctx->plain_bytes / NGX_HTTP_KEYTOLL_INFLATE_RATIO
                   > ctx->body_bytes))
        {
            return NGX_ERROR;
        }

    } while (zs->avail_in || zs->avail_out == 0);

    return NGX_OK;
}


static void *
ngx_http_keytoll_inflate_alloc(void *opaque, u_int items, u_int size)
{
    return ngx_palloc(opaque, (size_t) items * size);
}


static void
ngx_http_keytoll_inflate_free(void *opaque, void *address)
{
    /* freed with the request */
}
