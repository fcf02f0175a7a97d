
/*
 * The response: usage is counted as it passes (scan.c), the usage event that we
 * asked for is taken out again (strip.c), everything else goes on byte by byte
 * as it came.
 *
 * Runs right behind the copy filter, before header, gzip and chunked filters:
 * it sees what the upstream sent.  With "keytoll_abort drain" a client that
 * left is hidden from the upstream module: the filter goes on swallowing the
 * response, so that its usage is known.
 */


#include "ngx_http_keytoll_module.h"


static ngx_int_t ngx_http_keytoll_header_filter(ngx_http_request_t *r);
static ngx_int_t ngx_http_keytoll_send_header(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static ngx_int_t ngx_http_keytoll_send_joined(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static ngx_int_t ngx_http_keytoll_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_int_t ngx_http_keytoll_pass(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_chain_t *in);
static ngx_int_t ngx_http_keytoll_both(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_chain_t *in);
static ngx_int_t ngx_http_keytoll_hand_on(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_chain_t *in);


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;


static ngx_int_t
ngx_http_keytoll_header_filter(ngx_http_request_t *r)
{
    ngx_int_t                rc;
    ngx_http_keytoll_ctx_t  *ctx;

    if (r != r->main) {
        return ngx_http_next_header_filter(r);
    }

    ctx = ngx_http_keytoll_get_ctx(r);

    if (ctx == NULL || ctx->state != NGX_HTTP_KEYTOLL_DISPATCHED
        || ctx->header)
    {
        return ngx_http_next_header_filter(r);
    }

    ctx->header = 1;
    ctx->status = r->headers_out.status;
    ctx->first_ms = ngx_http_keytoll_now_ms();

    if (ngx_http_keytoll_headers(r, ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    if (r->upstream) {
        ngx_http_keytoll_choose(r, ctx);

        rc = ngx_http_keytoll_delay(r, ctx);

        if (rc != NGX_DECLINED) {
            return rc;
        }
    }

    return ngx_http_keytoll_send_header(r, ctx);
}


static ngx_int_t
ngx_http_keytoll_send_header(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx)
{
    ngx_int_t                     rc;
    ngx_http_keytoll_loc_conf_t  *klcf;

    if (ngx_http_keytoll_cost_headers(r, ctx, &r->headers_out.headers)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    rc = ngx_http_next_header_filter(r);

    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);

    if (rc == NGX_ERROR && r->upstream && r->connection->error
        && klcf->abort == NGX_HTTP_KEYTOLL_ABORT_DRAIN)
    {
        ctx->gone = 1;
        return NGX_OK;
    }

    return rc;
}


/*
 * The body follows at once: a header longer than "postpone_output" would still
 * be written alone.  A write event that is "delayed" keeps it in r->out.
 */

static ngx_int_t
ngx_http_keytoll_send_joined(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx)
{
    ngx_int_t          rc;
    ngx_connection_t  *c;

    c = r->connection;

    if (r->stream || c->write->delayed) {
        return ngx_http_keytoll_send_header(r, ctx);
    }

    c->write->delayed = 1;
    rc = ngx_http_keytoll_send_header(r, ctx);
    c->write->delayed = 0;

    return rc;
}


static ngx_int_t
ngx_http_keytoll_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_int_t                rc;
    ngx_chain_t             *cl, *out;
    ngx_http_keytoll_ctx_t  *ctx;

    ctx = r == r->main
          ? ngx_http_get_module_ctx(r, ngx_http_keytoll_module) : NULL;

    if (ctx == NULL || !ctx->header
        || ctx->state != NGX_HTTP_KEYTOLL_DISPATCHED || in == NULL)
    {
        return ngx_http_keytoll_pass(r, ctx, in);
    }

    for (cl = in; cl; cl = cl->next) {

        ctx->body_bytes += cl->buf->last - cl->buf->pos;

        if (cl->buf->last_buf) {
            ctx->last = 1;
        }

        if (ctx->strip && !ctx->gone) {
            continue;
        }

        if (ctx->read_json || ctx->read_sse) {
            ngx_http_keytoll_scan_buf(ctx, cl->buf);
        }
    }

    if (!ctx->strip || ctx->gone) {

        if (ctx->last) {
            ngx_http_keytoll_finish(ctx);
        }

        return ngx_http_keytoll_pass(r, ctx, in);
    }

    if (ngx_http_keytoll_strip(r, ctx, in, &out) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ctx->last) {
        ngx_http_keytoll_finish(ctx);
    }

    if (out == NULL) {
        return NGX_OK;
    }

    rc = ngx_http_keytoll_pass(r, ctx, out);

    ngx_chain_update_chains(r->pool, &ctx->free, &ctx->busy, &out,
                            (ngx_buf_tag_t) &ngx_http_keytoll_module);

    return rc;
}


static ngx_int_t
ngx_http_keytoll_pass(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx,
    ngx_chain_t *in)
{
    ngx_int_t  rc;

    if (ctx == NULL || !ctx->header || r->upstream == NULL) {
        return ngx_http_next_body_filter(r, in);
    }

    if (ctx->waiting) {
        rc = ngx_http_keytoll_delay_body(r, ctx, in);

        return rc == NGX_DECLINED ? ngx_http_keytoll_both(r, ctx, in) : rc;
    }

    if (ctx->last && r->expect_trailers
        && ngx_http_keytoll_cost_headers(r, ctx, &r->headers_out.trailers)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_keytoll_hand_on(r, ctx, in);
}


/* The header that waited, the body that was kept, and in. */

static ngx_int_t
ngx_http_keytoll_both(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx,
    ngx_chain_t *in)
{
    ngx_int_t  rc;

    ngx_http_keytoll_delay_over(r, ctx, &in);

    rc = ngx_http_keytoll_send_joined(r, ctx);

    if (rc == NGX_ERROR || rc > NGX_OK) {
        return rc;
    }

    return ngx_http_keytoll_hand_on(r, ctx, in);
}


/*
 * The header has waited for as long as it may.  No event of the upstream has
 * led here: it goes on as if the client had become writable, and sees what
 * became of the connection.
 */

void
ngx_http_keytoll_filter_due(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    ngx_int_t          rc;
    ngx_buf_t         *b;
    ngx_chain_t        out;
    ngx_connection_t  *c;

    c = r->connection;
    rc = NGX_ERROR;

    b = ngx_calloc_buf(r->pool);

    if (b) {
        b->flush = 1;
        out.buf = b;
        out.next = NULL;

        rc = ngx_http_keytoll_both(r, ctx, &out);
    }

    if (rc == NGX_ERROR || rc > NGX_OK) {
        c->error = 1;
    }

    ngx_post_event(c->write, &ngx_posted_events);
}


/* Hands on, or swallows when the client has left and the rest is drained. */

static ngx_int_t
ngx_http_keytoll_hand_on(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx,
    ngx_chain_t *in)
{
    ngx_int_t                     rc;
    ngx_chain_t                  *cl;
    ngx_http_keytoll_loc_conf_t  *klcf;

    if (!ctx->gone) {
        rc = ngx_http_next_body_filter(r, in);

        if (rc != NGX_ERROR || !r->connection->error) {
            return rc;
        }

        klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);

        if (klcf->abort != NGX_HTTP_KEYTOLL_ABORT_DRAIN) {
            return rc;
        }

        ctx->gone = 1;
    }

    for (cl = in; cl; cl = cl->next) {
        cl->buf->pos = cl->buf->last;
        cl->buf->file_pos = cl->buf->file_last;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_keytoll_filter_init(ngx_conf_t *cf)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_keytoll_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_keytoll_body_filter;

    return NGX_OK;
}
