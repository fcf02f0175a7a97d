
/*
 * Answers in one piece wait for their end: their header then tells what they
 * cost.  Header and body go on together; one that is long, or whose end does
 * not come, goes on as it is, without the cost.  Streams tell it in trailers,
 * to clients that ask for those ("TE: trailers").
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_DELAY_MAX  65536


static ngx_uint_t
ngx_http_keytoll_te_trailers(ngx_http_request_t *r)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return 0;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].key.len == 2
            && ngx_strncasecmp(h[i].key.data, (u_char *) "te", 2) == 0
            && ngx_strlcasestrn(h[i].value.data,
                                h[i].value.data + h[i].value.len,
                                (u_char *) "trailers", 8 - 1))
        {
            return 1;
        }
    }
}


/* Whether the header is to wait; what the client may expect is set. */

ngx_uint_t
ngx_http_keytoll_delay(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    ngx_str_t  v;

    if (r->header_only || r->headers_out.status != NGX_HTTP_OK) {
        return 0;
    }

    if (ctx->read_json && r->headers_out.content_length_n >= 0
        && r->headers_out.content_length_n <= NGX_HTTP_KEYTOLL_DELAY_MAX)
    {
        ctx->delayed = 1;
        return 1;
    }

    if (r->headers_out.content_length_n < 0
        && ngx_http_keytoll_te_trailers(r))
    {
        ngx_str_set(&v, "x-litellm-response-cost, x-litellm-key-spend");

        if (ngx_http_keytoll_set_header(r, "Trailer", &v) == NGX_OK) {
            r->expect_trailers = 1;
        }
    }

    return 0;
}


/*
 * Takes a copy of what came; in is consumed.  NGX_DECLINED when the waiting is
 * over: the header is due, then ctx->waiting, then in.
 */

ngx_int_t
ngx_http_keytoll_delay_body(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_chain_t *in)
{
    size_t        len;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    for (cl = in, len = 0; cl; cl = cl->next) {
        b = cl->buf;

        /* an unbuffered answer asks for a flush of every piece */

        if (b->last_buf || b->in_file || (b->flush && ngx_buf_size(b) == 0)) {
            return NGX_DECLINED;
        }

        len += b->last - b->pos;
    }

    if (ctx->waiting == NULL) {
        ctx->waiting = ngx_create_temp_buf(r->pool, ngx_max(len,
                              (size_t) r->headers_out.content_length_n));
        if (ctx->waiting == NULL) {
            return NGX_ERROR;
        }
    }

    if ((size_t) (ctx->waiting->end - ctx->waiting->last) < len) {
        return NGX_DECLINED;
    }

    for (cl = in; cl; cl = cl->next) {
        b = cl->buf;
        ctx->waiting->last = ngx_cpymem(ctx->waiting->last, b->pos,
                                        b->last - b->pos);
        b->pos = b->last;
    }

    return NGX_OK;
}


/* The copy, in front of in. */

ngx_int_t
ngx_http_keytoll_delay_chain(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_chain_t **in)
{
    ngx_chain_t  *cl;

    ctx->delayed = 0;

    if (ctx->waiting == NULL || ctx->waiting->last == ctx->waiting->pos) {
        return NGX_OK;
    }

    cl = ngx_alloc_chain_link(r->pool);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    cl->buf = ctx->waiting;
    cl->next = *in;
    *in = cl;

    return NGX_OK;
}
