
/*
 * The life of a request: the PRECONTENT handler, the wait for its body and
 * for Redis, the end in the log phase.
 *
 * The handler runs again after every internal redirect (error_page,
 * try_files, X-Accel-Redirect), which wipes module contexts: the context is
 * the data of a pool cleanup and is found again there, so one request is
 * admitted and settled once.
 */


#include "ngx_http_keytoll_module.h"


ngx_http_request_body_filter_pt  ngx_http_keytoll_next_request_filter;


/* In the order of kt_route_class_t. */

ngx_str_t  ngx_http_keytoll_class_names[NGX_HTTP_KEYTOLL_CLASSES] = {
    ngx_string("chat"),
    ngx_string("completions"),
    ngx_string("embeddings"),
    ngx_string("messages"),
    ngx_string("responses"),
    ngx_string("gemini"),
    ngx_string("images"),
    ngx_string("speech"),
    ngx_string("audio"),
    ngx_string("moderations"),
    ngx_string("rerank"),
    ngx_string("score"),
    ngx_string("count"),
    ngx_string("read"),
    ngx_string("realtime"),
    ngx_string("other")
};


static u_char *ngx_http_keytoll_random(void);
static ngx_int_t ngx_http_keytoll_again(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static ngx_int_t ngx_http_keytoll_start(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static ngx_int_t ngx_http_keytoll_read(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static ngx_http_keytoll_ctx_t *ngx_http_keytoll_create_ctx(
    ngx_http_request_t *r);
static void ngx_http_keytoll_classify(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_body_done(ngx_http_request_t *r);
static ngx_int_t ngx_http_keytoll_wait(ngx_http_request_t *r);
static void ngx_http_keytoll_detach(void *data);
static void ngx_http_keytoll_ctx_cleanup(void *data);


ngx_int_t
ngx_http_keytoll_handler(ngx_http_request_t *r)
{
    ngx_int_t                     rc;
    ngx_http_keytoll_ctx_t       *ctx;
    ngx_http_keytoll_loc_conf_t  *klcf;

    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);

    if (r != r->main) {
        return NGX_DECLINED;
    }

    ctx = ngx_http_keytoll_get_ctx(r);

    if (ctx) {
        return ngx_http_keytoll_again(r, ctx);
    }

    if (!klcf->enable) {
        return NGX_DECLINED;
    }

    ctx = ngx_http_keytoll_create_ctx(r);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_keytoll_start(r, ctx);

    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_keytoll_stranger_unread(ctx)) {
        return ngx_http_keytoll_wait(r) == NGX_OK
               ? NGX_AGAIN : NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_keytoll_read(r, ctx);
}


static ngx_int_t
ngx_http_keytoll_read(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    ngx_int_t  rc;

    ctx->state = NGX_HTTP_KEYTOLL_BODY;

    r->request_body_in_single_buf = 1;
    r->request_body_in_clean_file = 1;

    rc = ngx_http_read_client_request_body(r, ngx_http_keytoll_body_done);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    ngx_http_finalize_request(r, NGX_DONE);

    return NGX_DONE;
}


/* Why a body that could be read is not taken. */

ngx_uint_t
ngx_http_keytoll_why(ngx_http_keytoll_ctx_t *ctx)
{
    return ctx->why_reason ? ctx->why_reason : KT_BODY_INVALID;
}


/*
 * The handler runs again: the phases go on after the verdict, the key turned
 * out to exist before the body was read, or error_page has sent the request
 * elsewhere.  One that was not admitted may be shown a file, but is never
 * proxied.
 */

static ngx_int_t
ngx_http_keytoll_again(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    ngx_http_core_loc_conf_t     *clcf;
    ngx_http_keytoll_loc_conf_t  *klcf;

    switch (ctx->state) {

    case NGX_HTTP_KEYTOLL_ADMITTED:
    case NGX_HTTP_KEYTOLL_DISPATCHED:
    case NGX_HTTP_KEYTOLL_SETTLED:
        return NGX_DECLINED;

    case NGX_HTTP_KEYTOLL_SIFTED:
        return ngx_http_keytoll_read(r, ctx);

    case NGX_HTTP_KEYTOLL_REFUSED:
        break;

    default:
        if (!r->internal) {
            return NGX_AGAIN;
        }

        /* the body could not be read: nobody waits for the verdict */

        ngx_http_keytoll_admit_stop(ctx);
        ctx->state = NGX_HTTP_KEYTOLL_REFUSED;
        ctx->why = "it could not be read";
        ctx->why_reason = 0;
    }

    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);
    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (!klcf->enable || clcf->handler == NULL) {
        return NGX_DECLINED;
    }

    return ngx_http_keytoll_refuse(r, ctx, ctx->why ? ngx_http_keytoll_why(ctx)
                                                    : ctx->reason, NULL);
}


/* What can be refused by the headers alone, before a byte of body is read. */

static ngx_int_t
ngx_http_keytoll_start(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    ngx_uint_t                    reason;
    ngx_http_keytoll_loc_conf_t  *klcf;

    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);

    ngx_http_keytoll_classify(r, ctx);

    reason = ngx_http_keytoll_read_key(r, ctx);

    ngx_http_keytoll_strip_headers(r, ctx);

    if (r->args.len && ngx_http_keytoll_mask_url(r)) {
        reason = KT_KEY_IN_URL;
    }

    if (reason == KT_ADMITTED) {
        reason = ngx_http_keytoll_content(r, ctx);
    }

    if (reason == KT_ADMITTED
        && r->headers_in.content_length_n > (off_t) klcf->max_body)
    {
        reason = KT_BODY_TOO_LARGE;
    }

    if (reason == KT_ADMITTED
        && ngx_http_keytoll_cache_unknown(ctx->token))
    {
        reason = KT_KEY_UNKNOWN;
    }

    ngx_http_keytoll_count_route(ctx->class);

    if (reason == KT_ADMITTED) {
        return NGX_OK;
    }

    return ngx_http_keytoll_refuse(r, ctx, reason, NULL);
}


/* Ten random bytes, drawn from OpenSSL a hundred at a time; NULL on failure. */

static u_char *
ngx_http_keytoll_random(void)
{
    static u_char      pool[1000];
    static ngx_uint_t  left;
    static ngx_pid_t   owner;

    if (left == 0 || owner != ngx_pid) {

        if (RAND_bytes(pool, sizeof(pool)) != 1) {
            return NULL;
        }

        left = sizeof(pool) / 10;
        owner = ngx_pid;
    }

    return pool + 10 * --left;
}


/* rid[KT_RID_LEN], not terminated; NGX_ERROR without randomness. */

ngx_int_t
ngx_http_keytoll_rid(u_char *rid)
{
    u_char  *random, text[KT_RID_LEN + 1];

    random = ngx_http_keytoll_random();

    if (random == NULL) {
        ngx_log_error(NGX_LOG_CRIT, ngx_cycle->log, 0,
                      "keytoll: no random bytes for a request id");
        return NGX_ERROR;
    }

    kt_rid_make((int64_t) ngx_http_keytoll_now_ms(), random, (char *) text);
    ngx_memcpy(rid, text, KT_RID_LEN);

    return NGX_OK;
}


static ngx_http_keytoll_ctx_t *
ngx_http_keytoll_create_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t      *pcln;
    ngx_http_cleanup_t      *cln;
    ngx_http_keytoll_ctx_t  *ctx;

    pcln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_keytoll_ctx_t));
    cln = ngx_http_cleanup_add(r, 0);

    if (pcln == NULL || cln == NULL) {
        return NULL;
    }

    ctx = pcln->data;
    ngx_memzero(ctx, sizeof(ngx_http_keytoll_ctx_t));

    pcln->handler = ngx_http_keytoll_ctx_cleanup;
    cln->handler = ngx_http_keytoll_detach;
    cln->data = ctx;

    ctx->request = r;
    ctx->admit_ms = ngx_http_keytoll_now_ms();

    if (ngx_http_keytoll_rid(ctx->rid) != NGX_OK) {
        return NULL;
    }

    ngx_http_set_ctx(r, ctx, ngx_http_keytoll_module);

    return ctx;
}


ngx_http_keytoll_ctx_t *
ngx_http_keytoll_get_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t      *cln;
    ngx_http_keytoll_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_keytoll_module);

    if (ctx == NULL && (r->internal || r->filter_finalize)) {

        /* see ngx_http_realip_module for the same recovery */

        for (cln = r->pool->cleanup; cln; cln = cln->next) {
            if (cln->handler == ngx_http_keytoll_ctx_cleanup) {
                ctx = cln->data;

                if (r == r->main) {
                    ngx_http_set_ctx(r, ctx, ngx_http_keytoll_module);
                }

                break;
            }
        }
    }

    return ctx;
}


static void
ngx_http_keytoll_classify(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    kt_route_find((char *) r->uri.data, r->uri.len,
                  (r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD)) != 0,
                  &ctx->route);

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD|NGX_HTTP_POST))) {
        ctx->route.class = KT_ROUTE_OTHER;
    }

    ctx->class = ctx->route.class;
}


/*
 * A chunked body tells its length at the end only.  One that has grown too
 * large is not kept, and is at its end for the reader, so that it is answered
 * at once.
 */

ngx_int_t
ngx_http_keytoll_request_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_chain_t                  *cl;
    ngx_http_keytoll_ctx_t       *ctx;
    ngx_http_keytoll_loc_conf_t  *klcf;

    ctx = ngx_http_get_module_ctx(r, ngx_http_keytoll_module);

    if (ctx == NULL || ctx->state != NGX_HTTP_KEYTOLL_BODY) {
        return ngx_http_keytoll_next_request_filter(r, in);
    }

    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);

    for (cl = in; cl; cl = cl->next) {
        ctx->body_len += ngx_buf_size(cl->buf);
    }

    if (ctx->body_len <= klcf->max_body && !ctx->too_large) {
        return ngx_http_keytoll_next_request_filter(r, in);
    }

    ctx->too_large = 1;
    r->keepalive = 0;

#if (NGX_HTTP_V2)
    if (r->stream) {

        /* answered by nginx */

        ctx->state = NGX_HTTP_KEYTOLL_REFUSED;
        ctx->reason = KT_BODY_TOO_LARGE;
        ngx_http_keytoll_count_refused(KT_BODY_TOO_LARGE);

        return NGX_HTTP_REQUEST_ENTITY_TOO_LARGE;
    }
#endif

    for (cl = in; cl; cl = cl->next) {
        cl->buf->pos = cl->buf->last;
    }

    r->lingering_close = 1;
    r->request_body->rest = 0;
    r->request_body->last_saved = 1;

    return NGX_OK;
}


static void
ngx_http_keytoll_body_done(ngx_http_request_t *r)
{
    ngx_uint_t               reason;
    ngx_http_keytoll_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_keytoll_module);

    r->preserve_body = 1;

    reason = ngx_http_keytoll_read_body(r, ctx);

    /* a key that is not known hears that first, and nothing of its body */

    if (reason != KT_ADMITTED && reason != KT_BODY_INVALID) {
        (void) ngx_http_keytoll_refuse(r, ctx, reason, NULL);
        return;
    }

    if (ngx_http_keytoll_wait(r) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    ctx->state = NGX_HTTP_KEYTOLL_ADMIT;

    ngx_http_keytoll_admit(ctx);
}


/* Nothing to do until Redis answers, but notice a client that leaves. */

static ngx_int_t
ngx_http_keytoll_wait(ngx_http_request_t *r)
{
    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    return ngx_handle_read_event(r->connection->read, 0);
}


/*
 * Called from events that are not the client's: nobody else will run the
 * posted requests.
 */

void
ngx_http_keytoll_resume(ngx_http_keytoll_ctx_t *ctx)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = ctx->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_core_run_phases;

    ngx_http_core_run_phases(r);
    ngx_http_run_posted_requests(c);
}


ngx_int_t
ngx_http_keytoll_log_handler(ngx_http_request_t *r)
{
    ngx_http_keytoll_ctx_t  *ctx;

    if (r != r->main) {
        return NGX_OK;
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_keytoll_module);

    if (ctx == NULL) {
        ctx = ngx_http_keytoll_get_ctx(r);
    }

    if (ctx) {
        ngx_http_keytoll_finish(ctx);
    }

    return NGX_OK;
}


/*
 * ngx_http_free_request() runs this before the log phase.  A pending admit
 * must not find its request; the settlement itself is left to the log phase,
 * which still has the upstream's state.
 */

static void
ngx_http_keytoll_detach(void *data)
{
    ngx_http_keytoll_admit_stop(data);
}


/* The last exit, should no log phase have run. */

static void
ngx_http_keytoll_ctx_cleanup(void *data)
{
    ngx_http_keytoll_finish(data);
    ngx_http_keytoll_block_leave(data);
}
