
/*
 * Taking out of a stream the usage event that only our own include_usage made
 * the provider send.
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_COPY_BUF  8192


static ngx_int_t ngx_http_keytoll_strip_buf(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_buf_t *b, ngx_chain_t ***last,
    ngx_uint_t *whole);
static void ngx_http_keytoll_strip_end(ngx_http_keytoll_ctx_t *ctx);
static ngx_int_t ngx_http_keytoll_copy_out(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, u_char *p, size_t len, ngx_chain_t ***last);
static ngx_int_t ngx_http_keytoll_hold(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, u_char *p, size_t len);


/*
 * Rebuilds the chain without our event.  A buffer that ends at an event's end
 * and lost nothing goes on untouched, which is the usual case; otherwise its
 * bytes are copied to buffers of ours and the original is consumed.
 */

ngx_int_t
ngx_http_keytoll_strip(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx,
    ngx_chain_t *in, ngx_chain_t **out)
{
    ngx_buf_t     *b, *n;
    ngx_uint_t     whole;
    ngx_chain_t   *cl, **last;

    *out = NULL;
    last = out;

    for ( /* void */ ; in; in = in->next) {
        b = in->buf;
        whole = 1;

        if (b->last_buf && ngx_buf_size(b) == 0) {
            ngx_http_keytoll_strip_end(ctx);
        }

        if (ngx_buf_in_memory(b) && b->last > b->pos
            && ngx_http_keytoll_strip_buf(r, ctx, b, &last, &whole) != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (whole && (ngx_buf_size(b) || ngx_buf_special(b))) {

            if (b->last_buf && ctx->held_len
                && ngx_http_keytoll_copy_out(r, ctx, ctx->held, ctx->held_len,
                                             &last)
                   != NGX_OK)
            {
                return NGX_ERROR;
            }

            cl = ngx_alloc_chain_link(r->pool);
            if (cl == NULL) {
                return NGX_ERROR;
            }

            cl->buf = b;
            cl->next = NULL;
            *last = cl;
            last = &cl->next;
            continue;
        }

        b->pos = b->last;

        if (b->last_buf && ctx->held_len
            && ngx_http_keytoll_copy_out(r, ctx, ctx->held, ctx->held_len,
                                         &last)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (b->flush || b->last_buf || b->sync || b->last_in_chain) {
            n = ngx_calloc_buf(r->pool);
            cl = ngx_alloc_chain_link(r->pool);
            if (n == NULL || cl == NULL) {
                return NGX_ERROR;
            }

            n->flush = b->flush;
            n->last_buf = b->last_buf;
            n->last_in_chain = b->last_in_chain;
            n->sync = !(n->flush || n->last_buf);

            cl->buf = n;
            cl->next = NULL;
            *last = cl;
            last = &cl->next;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_keytoll_strip_buf(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx,
    ngx_buf_t *b, ngx_chain_t ***last, ngx_uint_t *whole)
{
    u_char          *p, *start, *keep;
    size_t           used;
    ngx_uint_t       copy;
    kt_sse_event_t   ev;

    /*
     * start: where the current event begins in this buffer; keep: first byte
     * not yet handed on.  copy: the buffer can not go on as it is.
     */

    start = b->pos;
    keep = b->pos;
    copy = ctx->held_len != 0;

    for (p = b->pos; p < b->last; p += used) {

        if (kt_sse_next(&ctx->sse, p, b->last - p, &used, &ev) != KT_OK) {
            continue;
        }

        if (ngx_http_keytoll_event(ctx, &ev) && !ctx->pass_hold) {
            copy = 1;

            if (ngx_http_keytoll_copy_out(r, ctx, keep, start - keep, last)
                != NGX_OK)
            {
                return NGX_ERROR;
            }

            ctx->held_len = 0;
            keep = p + used;

        } else if (ctx->held_len) {

            if (ngx_http_keytoll_copy_out(r, ctx, ctx->held, ctx->held_len,
                                          last)
                != NGX_OK)
            {
                return NGX_ERROR;
            }

            ctx->held_len = 0;
        }

        ctx->pass_hold = 0;
        start = p + used;
    }

    if (start < b->last && !ctx->pass_hold) {

        /* the tail belongs to an event that is not complete yet */

        copy = 1;

        if (ngx_http_keytoll_copy_out(r, ctx, keep, start - keep, last)
            != NGX_OK
            || ngx_http_keytoll_hold(r, ctx, start, b->last - start)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        keep = b->last;

        if (ctx->held_len > NGX_HTTP_KEYTOLL_SSE_HOLD) {

            /* usage events are short: this one is none of ours */

            if (ngx_http_keytoll_copy_out(r, ctx, ctx->held, ctx->held_len,
                                          last)
                != NGX_OK)
            {
                return NGX_ERROR;
            }

            ctx->held_len = 0;
            ctx->pass_hold = 1;
        }
    }

    if (!copy) {
        return NGX_OK;
    }

    *whole = 0;

    return ngx_http_keytoll_copy_out(r, ctx, keep, b->last - keep, last);
}


/* The stream ends without the blank line of its last event. */

static void
ngx_http_keytoll_strip_end(ngx_http_keytoll_ctx_t *ctx)
{
    kt_sse_event_t  ev;

    if (kt_sse_end(&ctx->sse, &ev) == KT_OK
        && ngx_http_keytoll_event(ctx, &ev))
    {
        ctx->held_len = 0;
    }
}


static ngx_int_t
ngx_http_keytoll_hold(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx,
    u_char *p, size_t len)
{
    u_char  *n;
    size_t   size;

    if (ctx->held_len + len > ctx->held_size) {
        size = ngx_max(1024, 2 * (ctx->held_len + len));

        n = ngx_pnalloc(r->pool, size);
        if (n == NULL) {
            return NGX_ERROR;
        }

        if (ctx->held_len) {
            ngx_memcpy(n, ctx->held, ctx->held_len);
        }

        ctx->held = n;
        ctx->held_size = size;
    }

    ngx_memcpy(ctx->held + ctx->held_len, p, len);
    ctx->held_len += len;

    return NGX_OK;
}


static ngx_int_t
ngx_http_keytoll_copy_out(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx,
    u_char *p, size_t len, ngx_chain_t ***last)
{
    size_t        n;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    while (len) {
        cl = ngx_chain_get_free_buf(r->pool, &ctx->free);
        if (cl == NULL) {
            return NGX_ERROR;
        }

        b = cl->buf;

        if (b->start == NULL) {
            b->start = ngx_palloc(r->pool, NGX_HTTP_KEYTOLL_COPY_BUF);
            if (b->start == NULL) {
                return NGX_ERROR;
            }

            b->end = b->start + NGX_HTTP_KEYTOLL_COPY_BUF;
            b->tag = (ngx_buf_tag_t) &ngx_http_keytoll_module;
            b->temporary = 1;
        }

        n = ngx_min(len, NGX_HTTP_KEYTOLL_COPY_BUF);

        b->pos = b->start;
        b->last = ngx_cpymem(b->start, p, n);
        b->flush = 1;

        p += n;
        len -= n;

        **last = cl;
        *last = &cl->next;
    }

    return NGX_OK;
}
