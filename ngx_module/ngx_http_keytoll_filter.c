
/*
 * The response: usage is counted as it passes, the usage event that we asked
 * for is taken out again, everything else goes on byte by byte as it came.
 *
 * Runs right behind the copy filter, before header, gzip and chunked filters:
 * it sees what the upstream sent.  With "keytoll_abort drain" a client that
 * left is hidden from the upstream module: the filter goes on swallowing the
 * response, so that its usage is known.
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_COPY_BUF  8192


static ngx_int_t ngx_http_keytoll_header_filter(ngx_http_request_t *r);
static ngx_int_t ngx_http_keytoll_send_header(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static ngx_int_t ngx_http_keytoll_send_joined(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_choose(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static ngx_int_t ngx_http_keytoll_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_int_t ngx_http_keytoll_pass(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_chain_t *in);
static ngx_int_t ngx_http_keytoll_coding(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_scan_buf(ngx_http_keytoll_ctx_t *ctx,
    ngx_buf_t *b);
static void ngx_http_keytoll_scan(ngx_http_keytoll_ctx_t *ctx, u_char *p,
    size_t len);
static void ngx_http_keytoll_keep_facts(ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_keep_id(ngx_http_keytoll_ctx_t *ctx);
static ngx_int_t ngx_http_keytoll_strip(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_chain_t *in, ngx_chain_t **out);
static ngx_int_t ngx_http_keytoll_strip_buf(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_buf_t *b, ngx_chain_t ***last,
    ngx_uint_t *whole);
static void ngx_http_keytoll_strip_end(ngx_http_keytoll_ctx_t *ctx);
static ngx_int_t ngx_http_keytoll_copy_out(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, u_char *p, size_t len, ngx_chain_t ***last);
static ngx_int_t ngx_http_keytoll_hold(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, u_char *p, size_t len);
static ngx_uint_t ngx_http_keytoll_event(ngx_http_keytoll_ctx_t *ctx,
    kt_sse_event_t *ev);
static void ngx_http_keytoll_usage(void *data, const unsigned char *obj,
    size_t len);
static void ngx_http_keytoll_sse_data(void *data, const unsigned char *p,
    size_t len);


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;


static ngx_int_t
ngx_http_keytoll_header_filter(ngx_http_request_t *r)
{
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

        if (ngx_http_keytoll_delay(r, ctx)) {
            return NGX_OK;
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


/* NGX_DECLINED when the answer is encoded in a way that we cannot read. */

static ngx_int_t
ngx_http_keytoll_coding(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    ngx_str_t  *v;

    if (r->headers_out.content_encoding == NULL
        || r->headers_out.content_encoding->hash == 0)
    {
        return NGX_OK;
    }

    v = &r->headers_out.content_encoding->value;

    if (v->len == 0
        || (v->len == 8
            && ngx_strncasecmp(v->data, (u_char *) "identity", 8) == 0))
    {
        return NGX_OK;
    }

    if ((v->len == 4 && ngx_strncasecmp(v->data, (u_char *) "gzip", 4) == 0)
        || (v->len == 6
            && ngx_strncasecmp(v->data, (u_char *) "x-gzip", 6) == 0))
    {
        ctx->strip = 0;
        return ngx_http_keytoll_inflate_init(r, ctx);
    }

    return NGX_DECLINED;
}


/* How the body will be read, if at all. */

static void
ngx_http_keytoll_choose(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    ngx_str_t  *ct;

    if (r->headers_out.status < 200 || r->headers_out.status > 299
        || ctx->scan == NULL)
    {
        ctx->strip = 0;
        return;
    }

    if (ngx_http_keytoll_coding(r, ctx) != NGX_OK) {
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "keytoll: the upstream sent \"Content-Encoding: %V\", "
                      "its usage cannot be read",
                      &r->headers_out.content_encoding->value);
        ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_UNREADABLE, 1);
        ctx->unreadable = 1;
        ctx->strip = 0;
        return;
    }

    ctx->resp = ngx_palloc(r->pool, sizeof(kt_respscan_t));
    if (ctx->resp == NULL) {
        return;
    }

    ct = &r->headers_out.content_type;
    r->filter_need_in_memory = 1;

    if (ct->len >= 17
        && ngx_strncasecmp(ct->data, (u_char *) "text/event-stream", 17) == 0)
    {
        ctx->read_sse = 1;
        kt_sse_init(&ctx->sse, ctx->sse_carry, sizeof(ctx->sse_carry));
        ctx->sse.on_data = ngx_http_keytoll_sse_data;
        ctx->sse.on_data_arg = ctx;

        if (ctx->strip) {
            ngx_http_clear_content_length(r);
            ngx_http_clear_accept_ranges(r);
            ngx_http_clear_etag(r);
        }

    } else {
        ctx->read_json = 1;
        ctx->strip = 0;
    }

    kt_respscan_init(ctx->resp, ngx_http_keytoll_usage, ctx);
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


/* Hands on, or swallows when the client has left and the rest is drained. */

static ngx_int_t
ngx_http_keytoll_pass(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx,
    ngx_chain_t *in)
{
    ngx_int_t                     rc;
    ngx_chain_t                  *cl;
    ngx_http_keytoll_loc_conf_t  *klcf;

    if (ctx == NULL || !ctx->header || r->upstream == NULL) {
        return ngx_http_next_body_filter(r, in);
    }

    if (ctx->delayed) {
        rc = ngx_http_keytoll_delay_body(r, ctx, in);

        if (rc != NGX_DECLINED) {
            return rc;
        }

        if (ngx_http_keytoll_delay_chain(r, ctx, &in) != NGX_OK) {
            return NGX_ERROR;
        }

        rc = ngx_http_keytoll_send_joined(r, ctx);

        if (rc == NGX_ERROR || rc > NGX_OK) {
            return rc;
        }

    } else if (ctx->last && r->expect_trailers
               && ngx_http_keytoll_cost_headers(r, ctx,
                                                &r->headers_out.trailers)
                  != NGX_OK)
    {
        return NGX_ERROR;
    }

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


static void
ngx_http_keytoll_scan_buf(ngx_http_keytoll_ctx_t *ctx, ngx_buf_t *b)
{
    kt_sse_event_t  ev;

    if (ngx_buf_in_memory(b) && b->last > b->pos) {

        if (ctx->zs == NULL) {
            ngx_http_keytoll_scan(ctx, b->pos, b->last - b->pos);

        } else if (ngx_http_keytoll_inflate(ctx, b->pos, b->last - b->pos,
                                            ngx_http_keytoll_scan)
                   != NGX_OK)
        {
            ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_UNREADABLE, 1);
            ctx->unreadable = 1;
            ctx->read_json = 0;
            ctx->read_sse = 0;
            return;
        }
    }

    if (!b->last_buf) {
        return;
    }

    if (ctx->read_json) {
        ngx_http_keytoll_keep_facts(ctx);

    } else if (kt_sse_end(&ctx->sse, &ev) == KT_OK) {
        (void) ngx_http_keytoll_event(ctx, &ev);
    }
}


/* A piece of the answer, in plain text. */

static void
ngx_http_keytoll_scan(ngx_http_keytoll_ctx_t *ctx, u_char *p, size_t len)
{
    u_char          *last;
    size_t           used;
    kt_sse_event_t   ev;

    ctx->plain_bytes += len;

    if (ctx->read_json) {
        kt_respscan_feed(ctx->resp, p, len);
        return;
    }

    for (last = p + len; p < last; p += used) {
        if (kt_sse_next(&ctx->sse, p, last - p, &used, &ev) == KT_OK) {
            (void) ngx_http_keytoll_event(ctx, &ev);
        }
    }
}


/* What the scanner found besides usage, before it starts over. */

static void
ngx_http_keytoll_keep_facts(ngx_http_keytoll_ctx_t *ctx)
{
    int64_t         ms;
    kt_respscan_t  *s;

    s = ctx->resp;

    ngx_http_keytoll_keep_id(ctx);

    if (s->tier_len) {
        ctx->usage.service = kt_usage_service(s->tier, s->tier_len);
        ctx->tier_seen = 1;
    }

    if (s->dur_len && !ctx->usage.has_dur) {
        ms = kt_usage_ms(s->duration, s->dur_len);

        if (ms >= 0) {
            ctx->usage.dur_ms = ms;
            ctx->usage.has_dur = 1;
        }
    }

    if (s->delta_bytes) {
        ctx->delta_bytes += s->delta_bytes;
        ctx->events++;
    }

    /* the last usage of a stream comes alone, or with its response */

    if (s->nusage && (s->choices_empty
                      || (s->type_len > 9
                          && ngx_strncmp(s->type, "response.", 9) == 0)))
    {
        ctx->final = 1;
    }
}


/* The first id; one that was cut in the middle of a character is cut before. */

static void
ngx_http_keytoll_keep_id(ngx_http_keytoll_ctx_t *ctx)
{
    size_t          n;
    kt_respscan_t  *s;

    s = ctx->resp;

    if (ctx->answer_id.len || s->id_len == 0) {
        return;
    }

    n = ngx_min(s->id_len, KT_RESP_ID);

    while (n && kt_json_clean(s->id, n) != KT_OK && n + 3 > s->id_len) {
        n--;
    }

    if (kt_json_clean(s->id, n) != KT_OK) {
        return;
    }

    ngx_memcpy(ctx->answer_id_data, s->id, n);
    ctx->answer_id.data = ctx->answer_id_data;
    ctx->answer_id.len = n;
}


/*
 * One complete event.  Returns 1 for the one that only our own
 * include_usage made the provider send: usage and no choices.
 */

static ngx_uint_t
ngx_http_keytoll_event(ngx_http_keytoll_ctx_t *ctx, kt_sse_event_t *ev)
{
    ngx_uint_t      ours;
    kt_respscan_t  *s;

    s = ctx->resp;
    ours = 0;

    if (ev->has_data && !kt_sse_is_done(ev)) {

        ngx_http_keytoll_keep_facts(ctx);

        ours = s->done && s->choices_empty && s->nusage;
    }

    kt_respscan_init(s, ngx_http_keytoll_usage, ctx);

    return ours;
}


static void
ngx_http_keytoll_sse_data(void *data, const unsigned char *p, size_t len)
{
    ngx_http_keytoll_ctx_t *ctx = data;

    kt_respscan_feed(ctx->resp, p, len);
}


static void
ngx_http_keytoll_usage(void *data, const unsigned char *obj, size_t len)
{
    ngx_http_keytoll_ctx_t *ctx = data;

    (void) kt_usage_merge(&ctx->usage,
                          ctx->class == NGX_HTTP_KEYTOLL_MESSAGES
                          ? KT_SHAPE_ANTHROPIC : KT_SHAPE_ANY,
                          obj, len);

    ctx->final |= ctx->read_json && !ctx->route.stream;
}


/*
 * Rebuilds the chain without our event.  A buffer that ends at an event's end
 * and lost nothing goes on untouched, which is the usual case; otherwise its
 * bytes are copied to buffers of ours and the original is consumed.
 */

static ngx_int_t
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


ngx_int_t
ngx_http_keytoll_filter_init(ngx_conf_t *cf)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_keytoll_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_keytoll_body_filter;

    return NGX_OK;
}
