
/*
 * The request body: brought into one piece, scanned, and where the provider
 * must read something else than the client wrote, spliced.
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_EDITS  5       /* model, usage, three caps          */


typedef struct {
    size_t                         off;
    size_t                         len;         /* bytes replaced            */
    ngx_str_t                      text;
} ngx_http_keytoll_edit_t;


static void ngx_http_keytoll_scan_body(ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_read_model(ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_find_model(ngx_http_keytoll_ctx_t *ctx);
static ngx_int_t ngx_http_keytoll_path(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static ngx_int_t ngx_http_keytoll_gather(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static ngx_uint_t ngx_http_keytoll_edits(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_http_keytoll_edit_t *e);


/*
 * KT_ADMITTED with ctx->scan and ctx->model set, or the reason to refuse.  For
 * KT_BODY_INVALID ctx->why says what is wrong.
 */

ngx_uint_t
ngx_http_keytoll_read_body(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    ngx_http_keytoll_loc_conf_t   *klcf;

    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);

    if (ctx->too_large) {
        return KT_BODY_TOO_LARGE;
    }

    if (r->request_body == NULL) {
        return KT_INTERNAL;
    }

    switch (ngx_http_keytoll_gather(r, ctx)) {

    case NGX_OK:
        break;

    case NGX_DECLINED:
        return KT_BODY_TOO_LARGE;

    default:
        return KT_INTERNAL;
    }

    if (ctx->body_len > klcf->max_body) {
        return KT_BODY_TOO_LARGE;
    }

    if (ctx->class == KT_ROUTE_OTHER || ctx->class == KT_ROUTE_READ
        || ctx->class == KT_ROUTE_REALTIME)
    {
        ngx_http_keytoll_read_identity(r, ctx);

        if (ctx->why == NULL) {
            ngx_http_keytoll_rules(r, ctx);
        }

        return ctx->why ? KT_BODY_INVALID : KT_ADMITTED;
    }

    ctx->scan = ngx_palloc(r->pool, sizeof(kt_reqscan_t));
    if (ctx->scan == NULL) {
        return KT_INTERNAL;
    }

    if (ctx->why == NULL) {
        ngx_http_keytoll_scan_body(ctx);
    }

    if (ctx->why == NULL) {
        ngx_http_keytoll_read_model(ctx);
    }

    if (ctx->why == NULL) {
        ngx_http_keytoll_read_identity(r, ctx);
    }

    if (ctx->why == NULL) {
        ngx_http_keytoll_rules(r, ctx);
    }

    if (ctx->why) {
        ctx->scan = NULL;
        return KT_BODY_INVALID;
    }

    ctx->streaming = ctx->scan->stream || ctx->route.stream;

    return KT_ADMITTED;
}


static void
ngx_http_keytoll_scan_body(ngx_http_keytoll_ctx_t *ctx)
{
    keytoll_rc_t  rc;

    switch (ctx->type) {

    case KT_TYPE_PLAIN:
    case KT_TYPE_FORM:
        rc = kt_reqscan(ctx->body, ctx->body_len, ctx->scan);
        break;

    case KT_TYPE_MULTIPART:
        if (ctx->route.form) {
            rc = kt_multipart(ctx->body, ctx->body_len, ctx->boundary,
                              ctx->boundary_len, ctx->scan);
            break;
        }

        ctx->why = "this route takes JSON";
        return;

    default:
        ctx->why = "the Content-Type is malformed";
        return;
    }

    if (rc != KT_OK) {
        ctx->why = ctx->scan->err ? ctx->scan->err : "malformed JSON";
        ctx->why_off = ctx->scan->err_off;
    }
}


/*
 * The model of the path is what a provider goes by that has it there; another
 * one in the body is overwritten with it.  LiteLLM takes a list by comma, which
 * would be several requests of several prices.
 */

static void
ngx_http_keytoll_read_model(ngx_http_keytoll_ctx_t *ctx)
{
    ngx_http_keytoll_find_model(ctx);

    if (ctx->why == NULL && ctx->model.len
        && ngx_strlchr(ctx->model.data, ctx->model.data + ctx->model.len, ','))
    {
        ctx->why = "one model at a time can be asked for";
    }
}


static void
ngx_http_keytoll_find_model(ngx_http_keytoll_ctx_t *ctx)
{
    ngx_str_t  *uri;

    if (ctx->route.model.len) {
        uri = &ctx->request->uri;

        ctx->model.data = uri->data + ctx->route.model.off;
        ctx->model.len = ctx->route.model.len;

        if (ctx->model.len >= KT_REQ_TEXT
            || kt_json_clean((char *) ctx->model.data, ctx->model.len)
               != KT_OK)
        {
            ctx->why = "the model of the path is out of range";
        }

        return;
    }

    ctx->model.data = (u_char *) ctx->scan->model;
    ctx->model.len = ctx->scan->model_len;

    if (ctx->model.len) {
        return;
    }

    if (ctx->class == KT_ROUTE_MODERATIONS) {

        /* the provider's own choice, said aloud */

        ngx_str_set(&ctx->model, "omni-moderation-latest");

    } else if (ctx->class != KT_ROUTE_COUNT) {
        ctx->why = "model is required";
    }
}


/*
 * One buffer as it is, several or a file copied together once.  NGX_DECLINED
 * when it is larger than keytoll_max_body.
 */

static ngx_int_t
ngx_http_keytoll_gather(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    off_t                          size;
    u_char                        *p;
    ssize_t                        n;
    ngx_buf_t                     *b;
    ngx_chain_t                   *cl;
    ngx_http_keytoll_loc_conf_t   *klcf;

    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);

    size = 0;

    for (cl = r->request_body->bufs; cl; cl = cl->next) {
        size += ngx_buf_size(cl->buf);
    }

    if (size > (off_t) klcf->max_body) {
        return NGX_DECLINED;
    }

    ctx->body_len = (size_t) size;

    cl = r->request_body->bufs;

    if (cl == NULL || size == 0) {
        ctx->body = (u_char *) "";
        return NGX_OK;
    }

    if (cl->next == NULL && ngx_buf_in_memory(cl->buf)) {
        ctx->body = cl->buf->pos;
        return NGX_OK;
    }

    p = ngx_palloc(r->pool, ctx->body_len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ctx->body = p;

    for ( /* void */ ; cl; cl = cl->next) {
        b = cl->buf;

        if (ngx_buf_in_memory(b)) {
            p = ngx_cpymem(p, b->pos, b->last - b->pos);
            continue;
        }

        while (b->file_pos < b->file_last) {
            n = ngx_read_file(b->file, p, (size_t) (b->file_last
                                                    - b->file_pos),
                              b->file_pos);
            if (n <= 0) {
                return NGX_ERROR;
            }

            p += n;
            b->file_pos += n;
        }
    }

    b = ngx_calloc_buf(r->pool);
    cl = ngx_alloc_chain_link(r->pool);
    if (b == NULL || cl == NULL) {
        return NGX_ERROR;
    }

    b->start = ctx->body;
    b->pos = ctx->body;
    b->last = p;
    b->end = p;
    b->memory = 1;
    b->last_buf = 1;

    cl->buf = b;
    cl->next = NULL;

    r->request_body->bufs = cl;
    r->request_body->buf = b;
    r->request_body->temp_file = NULL;

    return NGX_OK;
}


/*
 * Writes what the provider shall read.  Every slice is a buffer of its own
 * with start == pos: on a retry the upstream rewinds pos to start
 * (ngx_http_upstream_reinit).
 */

ngx_int_t
ngx_http_keytoll_splice(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    u_char                   *p;
    size_t                    len, at;
    ngx_buf_t                *b;
    ngx_uint_t                i, n;
    ngx_chain_t              *cl;
    ngx_http_keytoll_edit_t   e[NGX_HTTP_KEYTOLL_EDITS];

    if (!ctx->strip) {
        ngx_http_keytoll_accept_gzip(ctx);
    }

    if (ctx->scan == NULL) {
        return NGX_OK;
    }

    if (ngx_http_keytoll_path(r, ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    n = ngx_http_keytoll_edits(r, ctx, e);

    if (n == 0) {
        return NGX_OK;
    }

    len = ctx->body_len;

    for (i = 0; i < n; i++) {
        if (e[i].text.data == NULL) {
            return NGX_ERROR;
        }

        len += e[i].text.len - e[i].len;
    }

    b = ngx_create_temp_buf(r->pool, len);
    cl = ngx_alloc_chain_link(r->pool);
    if (b == NULL || cl == NULL) {
        return NGX_ERROR;
    }

    p = b->pos;
    at = 0;

    for (i = 0; i < n; i++) {
        p = ngx_cpymem(p, ctx->body + at, e[i].off - at);
        p = ngx_cpymem(p, e[i].text.data, e[i].text.len);
        at = e[i].off + e[i].len;
    }

    p = ngx_cpymem(p, ctx->body + at, ctx->body_len - at);

    b->last = p;
    b->last_buf = 1;

    cl->buf = b;
    cl->next = NULL;

    r->request_body->bufs = cl;
    r->request_body->buf = NULL;
    r->request_body->temp_file = NULL;

    r->headers_in.content_length_n = len;

    if (r->headers_in.content_length) {
        p = ngx_pnalloc(r->pool, NGX_SIZE_T_LEN);
        if (p == NULL) {
            return NGX_ERROR;
        }

        r->headers_in.content_length->value.data = p;
        r->headers_in.content_length->value.len = ngx_sprintf(p, "%uz", len)
                                                  - p;
    }

    return NGX_OK;
}


/* Puts the model that the provider shall read into a path that names one. */

static ngx_int_t
ngx_http_keytoll_path(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    u_char     *p, *uri;
    kt_span_t  *m;
    ngx_str_t  *name;

    m = &ctx->route.model;
    name = ctx->upstream_model.len ? &ctx->upstream_model : &ctx->model;

    if (m->len == 0 || name->len == 0
        || (m->len == name->len
            && ngx_memcmp(r->uri.data + m->off, name->data, m->len) == 0))
    {
        return NGX_OK;
    }

    uri = ngx_pnalloc(r->pool, r->uri.len + name->len);
    if (uri == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(uri, r->uri.data, m->off);
    p = ngx_cpymem(p, name->data, name->len);
    p = ngx_cpymem(p, r->uri.data + m->off + m->len,
                   r->uri.len - m->off - m->len);

    r->uri.data = uri;
    r->uri.len = p - uri;
    r->valid_unparsed_uri = 0;

    return NGX_OK;
}


/*
 * The model of the body: an alias, or a spelling that a lax parser could
 * misread, or none where there should be one.  Returns the number of edits.
 */

static ngx_uint_t
ngx_http_keytoll_edit_model(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_http_keytoll_edit_t *e)
{
    size_t         quote, len;
    u_char        *p, *raw;
    ngx_str_t     *name;
    ngx_uint_t     prefix;
    kt_reqscan_t  *s;

    s = ctx->scan;
    name = ctx->upstream_model.len ? &ctx->upstream_model : &ctx->model;

    if (s->model_span.len == 0) {

        if (ctx->route.model.len || name->len == 0 || s->form) {
            return 0;
        }

        p = ngx_pnalloc(r->pool,
                        ngx_http_keytoll_json_len(name->data, name->len)
                        + sizeof("\"model\":\"\","));
        e->off = s->insert_at;
        e->len = 0;
        e->text.data = p;

        if (p) {
            p = ngx_cpymem(p, "\"model\":\"", sizeof("\"model\":\"") - 1);
            p = ngx_http_keytoll_json(p, name->data, name->len);
            *p++ = '"';

            if (!s->empty) {
                *p++ = ',';
            }

            e->text.len = p - e->text.data;
        }

        return 1;
    }

    /* Gemini's bodies call it "models/name" */

    quote = s->form ? 0 : 1;
    raw = ctx->body + s->model_span.off + quote;
    len = s->model_span.len - 2 * quote;

    prefix = ctx->route.gemini && s->model_len > 7
             && ngx_strncmp(s->model, "models/", 7) == 0;

    if (prefix && len > 7 && ngx_strncmp(raw, "models/", 7) == 0) {
        raw += 7;
        len -= 7;
    }

    if (len == name->len && ngx_memcmp(raw, name->data, len) == 0) {
        return 0;
    }

    p = ngx_pnalloc(r->pool,
                    ngx_http_keytoll_json_len(name->data, name->len)
                    + sizeof("\"models/\""));
    e->off = s->model_span.off;
    e->len = s->model_span.len;
    e->text.data = p;

    if (p == NULL) {
        return 1;
    }

    if (s->form) {
        p = ngx_cpymem(p, name->data, name->len);

    } else {
        *p++ = '"';
        p = prefix ? ngx_cpymem(p, "models/", 7) : p;
        p = ngx_http_keytoll_json(p, name->data, name->len);
        *p++ = '"';
    }

    e->text.len = p - e->text.data;

    return 1;
}


/* The edits in body order. */

/* Every higher cap becomes the one that fits. */

static ngx_uint_t
ngx_http_keytoll_edit_caps(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx,
    ngx_http_keytoll_edit_t *e)
{
    ngx_str_t      text;
    ngx_uint_t     i, n;
    kt_reqscan_t  *s;

    s = ctx->scan;

    text.data = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    text.len = 0;

    if (text.data) {
        text.len = ngx_sprintf(text.data, "%L", ctx->clamp) - text.data;
    }

    for (i = 0, n = 0; i < 3; i++) {
        if (s->caps[i].len
            && ngx_atoof(ctx->body + s->caps[i].off, s->caps[i].len)
               > ctx->clamp)
        {
            e[n].off = s->caps[i].off;
            e[n].len = s->caps[i].len;
            e[n++].text = text;
        }
    }

    return n;
}


static void
ngx_http_keytoll_edit_usage(kt_reqscan_t *s, ngx_http_keytoll_edit_t *e)
{
    switch (s->so) {

    case KT_SO_ABSENT:
        e->off = s->insert_at;
        e->len = 0;
        ngx_str_set(&e->text, "\"stream_options\":{\"include_usage\":true},");
        break;

    case KT_SO_NULL:
        e->off = s->so_span.off;
        e->len = s->so_span.len;
        ngx_str_set(&e->text, "{\"include_usage\":true}");
        break;

    default:
        if (s->iu_span.len) {
            e->off = s->iu_span.off;
            e->len = s->iu_span.len;
            ngx_str_set(&e->text, "true");

        } else {
            e->off = s->so_insert;
            e->len = 0;

            if (s->so_empty) {
                ngx_str_set(&e->text, "\"include_usage\":true");

            } else {
                ngx_str_set(&e->text, "\"include_usage\":true,");
            }
        }
    }
}


static ngx_uint_t
ngx_http_keytoll_edits(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx,
    ngx_http_keytoll_edit_t *e)
{
    ngx_uint_t                i, k, n;
    kt_reqscan_t             *s;
    ngx_http_keytoll_edit_t   t;

    s = ctx->scan;
    n = ngx_http_keytoll_edit_model(r, ctx, e);

    if (ctx->clamp) {
        n += ngx_http_keytoll_edit_caps(r, ctx, e + n);
    }

    if (ctx->strip) {
        ngx_http_keytoll_edit_usage(s, e + n);
        n++;
    }

    /* by offset; those of one place stay in their order */

    for (i = 1; i < n; i++) {
        t = e[i];

        for (k = i; k > 0 && e[k - 1].off > t.off; k--) {
            e[k] = e[k - 1];
        }

        e[k] = t;
    }

    return n;
}
