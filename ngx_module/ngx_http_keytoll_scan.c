
/*
 * Reading the answer: chooses how by its headers, then finds usage, the id and
 * other facts in whole JSON bodies or in each event of a stream.
 */


#include "ngx_http_keytoll_module.h"


static ngx_int_t ngx_http_keytoll_coding(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_scan(ngx_http_keytoll_ctx_t *ctx, u_char *p,
    size_t len);
static void ngx_http_keytoll_keep_facts(ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_keep_id(ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_usage(void *data, const unsigned char *obj,
    size_t len);
static void ngx_http_keytoll_sse_data(void *data, const unsigned char *p,
    size_t len);


/* How the body will be read, if at all. */

void
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


/* A buffer of the answer; the last one ends it. */

void
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


/*
 * One complete event.  Returns 1 for the one that only our own
 * include_usage made the provider send: usage and no choices.
 */

ngx_uint_t
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
