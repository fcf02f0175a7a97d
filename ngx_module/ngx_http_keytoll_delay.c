
/*
 * Answers in one piece wait for their end: their header then tells what they
 * cost.  Header and body go on together; those of a body that has grown long,
 * that is cut, or whose end does not come in time, as they would without us.
 * What is not known by then, and the cost of streams, is told in trailers, to
 * clients that ask for those ("TE: trailers").
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_DELAY_MAX  65536
#define NGX_HTTP_KEYTOLL_DELAY_BUF  4096
#define NGX_HTTP_KEYTOLL_DELAY_MS   1000


struct ngx_http_keytoll_waiting_s {
    ngx_chain_t                   *first;       /* copies of the body so far */
    ngx_chain_t                  **last;
    ngx_buf_t                     *buf;         /* the last of them          */
    size_t                         len;
    ngx_event_t                    timer;
};


static ngx_uint_t ngx_http_keytoll_is_whole(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_expect_trailers(ngx_http_request_t *r);
static ngx_uint_t ngx_http_keytoll_te_trailers(ngx_http_request_t *r);
static ngx_int_t ngx_http_keytoll_delay_copy(ngx_http_request_t *r,
    ngx_http_keytoll_waiting_t *w, u_char *p, size_t len);
static ngx_buf_t *ngx_http_keytoll_delay_buf(ngx_http_request_t *r,
    ngx_http_keytoll_waiting_t *w, size_t len);
static void ngx_http_keytoll_delay_timer(ngx_event_t *ev);
static void ngx_http_keytoll_delay_cleanup(void *data);


/*
 * NGX_OK: the header is to wait; NGX_DECLINED: it is not, and what the client
 * may expect is set.
 */

ngx_int_t
ngx_http_keytoll_delay(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    ngx_http_cleanup_t          *cln;
    ngx_http_keytoll_waiting_t  *w;

    if (r->header_only || r->headers_out.status != NGX_HTTP_OK) {
        return NGX_DECLINED;
    }

    if (!ngx_http_keytoll_is_whole(r, ctx)) {
        ngx_http_keytoll_expect_trailers(r);
        return NGX_DECLINED;
    }

    w = ngx_pcalloc(r->pool, sizeof(ngx_http_keytoll_waiting_t));
    cln = ngx_http_cleanup_add(r, 0);

    if (w == NULL || cln == NULL) {
        return NGX_ERROR;
    }

    w->last = &w->first;
    w->timer.handler = ngx_http_keytoll_delay_timer;
    w->timer.data = r;
    w->timer.log = r->connection->log;

    cln->handler = ngx_http_keytoll_delay_cleanup;
    cln->data = w;

    ctx->waiting = w;

    return NGX_OK;
}


/*
 * Without a length it is taken for whole only when it is JSON: sound is played
 * as it comes.  A stream may be JSON as well, an array that grows.
 */

static ngx_uint_t
ngx_http_keytoll_is_whole(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    ngx_str_t  *type;

    if (!ctx->read_json) {
        return 0;
    }

    if (r->headers_out.content_length_n >= 0) {
        return r->headers_out.content_length_n <= NGX_HTTP_KEYTOLL_DELAY_MAX;
    }

    type = &r->headers_out.content_type;

    return !ctx->streaming && type->len >= 16
           && ngx_strncasecmp(type->data, (u_char *) "application/json", 16)
              == 0
           && (type->len == 16 || type->data[16] == ';'
               || type->data[16] == ' ');
}


static void
ngx_http_keytoll_expect_trailers(ngx_http_request_t *r)
{
    ngx_str_t  v;

    if (r->headers_out.content_length_n >= 0
        || !ngx_http_keytoll_te_trailers(r))
    {
        return;
    }

    ngx_str_set(&v, "x-litellm-response-cost, x-litellm-key-spend");

    if (ngx_http_keytoll_set_header(r, "Trailer", &v) == NGX_OK) {
        r->expect_trailers = 1;
    }
}


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


/*
 * Takes a copy of what came; in is consumed.  NGX_DECLINED when the waiting is
 * over: what ngx_http_keytoll_delay_over() says is due.
 */

ngx_int_t
ngx_http_keytoll_delay_body(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_chain_t *in)
{
    size_t                       len;
    ngx_buf_t                   *b;
    ngx_chain_t                 *cl;
    ngx_http_keytoll_waiting_t  *w;

    w = ctx->waiting;

    for (cl = in, len = w->len; cl; cl = cl->next) {
        b = cl->buf;

        if (b->last_buf || b->in_file) {
            return NGX_DECLINED;
        }

        len += b->last - b->pos;
    }

    /* a provider that failed: the client is flushed what there is, no more */

    if (r->upstream->cleanup == NULL || len > NGX_HTTP_KEYTOLL_DELAY_MAX) {
        return NGX_DECLINED;
    }

    if (!w->timer.timer_set) {
        ngx_add_timer(&w->timer, NGX_HTTP_KEYTOLL_DELAY_MS);
    }

    for (cl = in; cl; cl = cl->next) {
        b = cl->buf;

        if (ngx_http_keytoll_delay_copy(r, w, b->pos, b->last - b->pos)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        b->pos = b->last;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_keytoll_delay_copy(ngx_http_request_t *r,
    ngx_http_keytoll_waiting_t *w, u_char *p, size_t len)
{
    size_t      n;
    ngx_buf_t  *b;

    for ( /* void */ ; len; len -= n, p += n) {
        b = w->buf;

        if (b == NULL || b->last == b->end) {
            b = ngx_http_keytoll_delay_buf(r, w, len);

            if (b == NULL) {
                return NGX_ERROR;
            }
        }

        n = ngx_min(len, (size_t) (b->end - b->last));

        b->last = ngx_cpymem(b->last, p, n);
        w->len += n;
    }

    return NGX_OK;
}


/* Of all that is to come, or as large as all before: few, and none in vain. */

static ngx_buf_t *
ngx_http_keytoll_delay_buf(ngx_http_request_t *r,
    ngx_http_keytoll_waiting_t *w, size_t len)
{
    ngx_chain_t  *cl;

    len = ngx_max(len, ngx_max(w->len, NGX_HTTP_KEYTOLL_DELAY_BUF));
    len = ngx_min(len, NGX_HTTP_KEYTOLL_DELAY_MAX - w->len);

    if (w->first == NULL && r->headers_out.content_length_n > 0) {
        len = (size_t) r->headers_out.content_length_n;
    }

    cl = ngx_alloc_chain_link(r->pool);
    if (cl == NULL) {
        return NULL;
    }

    cl->buf = ngx_create_temp_buf(r->pool, len);
    if (cl->buf == NULL) {
        return NULL;
    }

    cl->next = NULL;
    *w->last = cl;
    w->last = &cl->next;
    w->buf = cl->buf;

    return cl->buf;
}


/* The header is due, and then in: in front of it, what was copied. */

void
ngx_http_keytoll_delay_over(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_chain_t **in)
{
    ngx_http_keytoll_waiting_t  *w;

    w = ctx->waiting;
    ctx->waiting = NULL;

    ngx_http_keytoll_delay_cleanup(w);

    if (ctx->state != NGX_HTTP_KEYTOLL_SETTLED) {
        ngx_http_keytoll_expect_trailers(r);
    }

    *w->last = *in;
    *in = w->first;
}


static void
ngx_http_keytoll_delay_timer(ngx_event_t *ev)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = ev->data;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    ngx_http_keytoll_filter_due(r, ngx_http_keytoll_get_ctx(r));

    ngx_http_run_posted_requests(c);
}


static void
ngx_http_keytoll_delay_cleanup(void *data)
{
    ngx_http_keytoll_waiting_t *w = data;

    if (w->timer.timer_set) {
        ngx_del_timer(&w->timer);
    }
}
