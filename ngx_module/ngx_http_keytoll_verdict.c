
/*
 * Refusals: one reason, rendered once, in LiteLLM's envelope (litellm-api 0.2
 * and 11.2), with the numbers in x-keytoll-* headers.
 *
 * The reply of kt_admit names the entity and its amounts:
 *   1 entity, 2 alias, 3 limit, 4 used, 5 held, 6 period end s, 7 retry ms,
 *   8 need, 9 now ms, 10 allowed models by tab, 11 expires ms, 12 status,
 *   13 and 14 option.c's, 15 and 16 limits of all levels and what is left,
 *   17 denial.c's
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_HEARD   65536  /* preread of a stream by default    */
#define NGX_HTTP_KEYTOLL_WINDOW  60     /* seconds of RPM and TPM            */


static ngx_uint_t ngx_http_keytoll_unheard(ngx_http_request_t *r);
static void ngx_http_keytoll_heard(ngx_http_request_t *r);
static void ngx_http_keytoll_parse(ngx_http_keytoll_refusal_t *f,
    redisReply *reply);
static kt_reason_info_t ngx_http_keytoll_info(ngx_http_request_t *r,
    ngx_uint_t reason, ngx_http_keytoll_refusal_t *f);
static int64_t ngx_http_keytoll_retry(ngx_uint_t reason, int status,
    ngx_http_keytoll_refusal_t *f);
static ngx_int_t ngx_http_keytoll_envelope(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_uint_t reason, kt_reason_info_t *info,
    ngx_str_t *body);
static ngx_uint_t ngx_http_keytoll_is_of_key(ngx_uint_t reason);
static void ngx_http_keytoll_rate_type(ngx_http_request_t *r,
    ngx_uint_t reason, ngx_str_t *v);
static ngx_int_t ngx_http_keytoll_refusal_headers(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_uint_t reason, kt_reason_info_t *info,
    ngx_http_keytoll_refusal_t *f);
static ngx_int_t ngx_http_keytoll_send(ngx_http_request_t *r,
    ngx_uint_t status, ngx_str_t *body);


ngx_int_t
ngx_http_keytoll_refuse(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx,
    ngx_uint_t reason, redisReply *reply)
{
    u_char                      *text, *last;
    ngx_int_t                    rc;
    ngx_str_t                    body;
    ngx_uint_t                   level;
    kt_reason_info_t             info;
    ngx_http_keytoll_refusal_t   f;

    ctx->reason = reason;

    if (reply == NULL && ngx_http_keytoll_unheard(r)) {

        rc = ngx_http_read_client_request_body(r, ngx_http_keytoll_heard);

        ngx_http_finalize_request(r, rc >= NGX_HTTP_SPECIAL_RESPONSE
                                     ? rc : NGX_DONE);
        return NGX_DONE;
    }

    ngx_http_keytoll_parse(&f, reply);

    info = ngx_http_keytoll_info(r, reason, &f);

    f.retry_s = ngx_http_keytoll_retry(reason, info.status, &f);

    ctx->status = info.status;

    if (ctx->state < NGX_HTTP_KEYTOLL_SETTLED) {
        ctx->state = NGX_HTTP_KEYTOLL_REFUSED;
    }

    ngx_http_keytoll_count_refused(reason);

    if (f.entity.len) {
        ctx->entity.data = ngx_pstrdup(r->pool, &f.entity);
        ctx->entity.len = ctx->entity.data ? f.entity.len : 0;
    }

    text = ngx_pnalloc(r->pool, NGX_HTTP_KEYTOLL_TEXT);
    if (text == NULL) {
        goto failed;
    }

    last = ngx_http_keytoll_message(text, r, ctx, reason, &f);

    level = info.status >= 500 ? NGX_LOG_ERR : NGX_LOG_INFO;

    ngx_log_error(level, r->connection->log, 0,
                  "keytoll: refused %s, key %*s, entity \"%V\", model \"%V\"",
                  info.name, (size_t) (ctx->token[0] ? 8 : 0), ctx->token,
                  &f.entity, &ctx->model);

    body.data = text;
    body.len = last - text;

    if (ngx_http_keytoll_envelope(r, ctx, reason, &info, &body) != NGX_OK
        || ngx_http_keytoll_refusal_headers(r, ctx, reason, &info, &f)
           != NGX_OK)
    {
        goto failed;
    }

    if (r->headers_in.chunked && r->request_body == NULL) {

        /* client_max_body_size does not bound a discarded chunked body */

        r->keepalive = 0;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        ngx_http_finalize_request(r, rc);
        return NGX_DONE;
    }

    ngx_http_finalize_request(r, ngx_http_keytoll_send(r, info.status,
                                                       &body));
    return NGX_DONE;

failed:

    ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
    return NGX_DONE;
}


/*
 * An HTTP/2 client that is answered while it sends sees its stream reset, and
 * some (curl before 8) lose the answer over that: a body of a usual size is
 * heard out.
 */

static ngx_uint_t
ngx_http_keytoll_unheard(ngx_http_request_t *r)
{
#if (NGX_HTTP_V2)

    return r->stream && !r->stream->in_closed && r->request_body == NULL
           && !r->discard_body
           && r->headers_in.content_length_n > 0
           && r->headers_in.content_length_n <= NGX_HTTP_KEYTOLL_HEARD;

#else

    return 0;

#endif
}


static void
ngx_http_keytoll_heard(ngx_http_request_t *r)
{
    ngx_http_keytoll_ctx_t  *ctx;

    ctx = ngx_http_keytoll_get_ctx(r);

    (void) ngx_http_keytoll_refuse(r, ctx, ctx->reason, NULL);
}


/* Status, type and param as the location's LiteLLM says them. */

static kt_reason_info_t
ngx_http_keytoll_info(ngx_http_request_t *r, ngx_uint_t reason,
    ngx_http_keytoll_refusal_t *f)
{
    kt_reason_info_t              info;
    ngx_http_keytoll_loc_conf_t  *klcf;

    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);

    info = kt_reason_in((int) reason, (kt_compat_t) klcf->compat);

    if (reason == KT_BUDGET_EXCEEDED && klcf->budget_status) {
        info.status = (int) klcf->budget_status;
    }

    if (reason == KT_ENTITY_MODEL) {

        if (ngx_http_keytoll_is(&f->models, "no-default-models")
            && ngx_http_keytoll_is(&f->kind, "user"))
        {
            info.type = "key_model_access_denied";

        } else if (ngx_http_keytoll_is(&f->kind, "user")) {
            info.type = "user_model_access_denied";

        } else if (ngx_http_keytoll_is(&f->kind, "org")) {
            info.type = "org_model_access_denied";
        }
    }

    return info;
}


/*
 * Seconds, where something comes back by itself; 0 where it does not.  Clients
 * of LiteLLM want a number of every rate: one that is too small for the request
 * says its window.
 */

static int64_t
ngx_http_keytoll_retry(ngx_uint_t reason, int status,
    ngx_http_keytoll_refusal_t *f)
{
    switch (reason) {

    case KT_RPM:
    case KT_TPM:
    case KT_PARALLEL:

        if (f->retry_ms <= 0 || ngx_http_keytoll_is(&f->limit, "0")) {
            return NGX_HTTP_KEYTOLL_WINDOW;
        }

        /* fall through */

    case KT_BUDGET_HELD:
        return (f->retry_ms + 999) / 1000;

    default:
        return status == NGX_HTTP_SERVICE_UNAVAILABLE ? 1 : 0;
    }
}


/* Anthropic's words for a status; everybody reads "message". */

static const char *
ngx_http_keytoll_anthropic_type(int status)
{
    switch (status) {

    case 401:
        return "authentication_error";

    case 403:
        return "permission_error";

    case 413:
        return "request_too_large";

    case 429:
        return "rate_limit_error";

    default:
        return status < 500 ? "invalid_request_error" : "api_error";
    }
}


/*
 * body: in, the text; out, the answer.  LiteLLM's envelope, FastAPI's for
 * routes that the key may not call, and on Anthropic's routes, since 1.101,
 * Anthropic's error object; errors of authentication keep LiteLLM's type there.
 */

static ngx_int_t
ngx_http_keytoll_envelope(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx,
    ngx_uint_t reason, kt_reason_info_t *info, ngx_str_t *body)
{
    u_char                       *p;
    ngx_str_t                     text, param;
    ngx_uint_t                    anthropic;
    ngx_http_keytoll_loc_conf_t  *klcf;

    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);

    anthropic = klcf->compat == KT_COMPAT_1_104
                && kt_route_anthropic((char *) r->uri.data, r->uri.len);

    text = *body;
    param.data = (u_char *) (info->param ? info->param : "");
    param.len = ngx_strlen(param.data);

    if (reason == KT_KEY_EXPIRED && ctx->key_name.len) {
        param = ctx->key_name;
    }

    p = ngx_pnalloc(r->pool, ngx_http_keytoll_json_len(text.data, text.len)
                             + ngx_http_keytoll_json_len(param.data,
                                                         param.len)
                             + KT_RID_LEN + 256);
    if (p == NULL) {
        return NGX_ERROR;
    }

    body->data = p;

    if (reason == KT_ROUTE_DENIED) {
        p = ngx_sprintf(p, "{\"detail\":\"");
        p = ngx_http_keytoll_json(p, text.data, text.len);
        p = ngx_sprintf(p, "\"}");
        body->len = p - body->data;

        return NGX_OK;
    }

    p = ngx_sprintf(p, anthropic
                    ? "{\"type\":\"error\",\"error\":{\"message\":\""
                    : "{\"error\":{\"message\":\"");
    p = ngx_http_keytoll_json(p, text.data, text.len);
    p = ngx_sprintf(p, "\",\"type\":\"%s\",\"param\":",
                    anthropic && info->status != 401
                    ? ngx_http_keytoll_anthropic_type(info->status)
                    : info->type);

    if (param.len) {
        *p++ = '"';
        p = ngx_http_keytoll_json(p, param.data, param.len);
        *p++ = '"';

    } else {
        p = ngx_sprintf(p, "null");
    }

    p = ngx_sprintf(p, ",\"code\":\"%d\"}", info->status);

    if (anthropic) {
        p = ngx_sprintf(p, ",\"request_id\":\"%*s\"", (size_t) KT_RID_LEN,
                        ctx->rid);
    }

    *p++ = '}';
    body->len = p - body->data;

    return NGX_OK;
}


static void
ngx_http_keytoll_field(redisReply *reply, size_t i, size_t max, ngx_str_t *out)
{
    if (reply->element[i]->type == REDIS_REPLY_STRING) {
        out->data = (u_char *) reply->element[i]->str;
        out->len = ngx_min((size_t) reply->element[i]->len, max);
    }
}


static int64_t
ngx_http_keytoll_field_int(redisReply *reply, size_t i)
{
    ngx_str_t  s;

    ngx_str_null(&s);
    ngx_http_keytoll_field(reply, i, NGX_INT64_LEN, &s);

    if (s.len > 1 && s.data[0] == '-') {
        return - (int64_t) ngx_atoof(s.data + 1, s.len - 1);
    }

    return ngx_atoof(s.data, s.len);
}


static void
ngx_http_keytoll_parse(ngx_http_keytoll_refusal_t *f, redisReply *reply)
{
    u_char     *p, *last;
    ngx_str_t  *s;

    ngx_memzero(f, sizeof(ngx_http_keytoll_refusal_t));

    f->now_ms = ngx_http_keytoll_now_ms();

    if (reply == NULL) {
        return;
    }

    if (reply->elements == 4) {                     /* KT_PARAMS             */
        ngx_http_keytoll_field(reply, 2, 4096, &f->limits);
        ngx_http_keytoll_field(reply, 3, 4096, &f->left);
    }

    if (reply->elements < 13) {
        return;
    }

    ngx_http_keytoll_field(reply, 1, KT_ENT_MAX, &f->entity);
    ngx_http_keytoll_field(reply, 2, 256, &f->alias);
    ngx_http_keytoll_field(reply, 3, 32, &f->limit);
    ngx_http_keytoll_field(reply, 4, 32, &f->used);
    ngx_http_keytoll_field(reply, 5, 32, &f->held);
    f->reset_s = ngx_http_keytoll_field_int(reply, 6);
    f->retry_ms = ngx_http_keytoll_field_int(reply, 7);
    ngx_http_keytoll_field(reply, 8, 32, &f->need);
    f->now_ms = ngx_http_keytoll_field_int(reply, 9);
    ngx_http_keytoll_field(reply, 10, 65536, &f->models);
    f->expires_ms = ngx_http_keytoll_field_int(reply, 11);

    if (reply->elements >= NGX_HTTP_KEYTOLL_FIELDS) {
        ngx_http_keytoll_field(reply, 15, 4096, &f->limits);
        ngx_http_keytoll_field(reply, 16, 4096, &f->left);
    }

    if (f->entity.len == 0) {
        return;
    }

    f->kind = f->entity;

    last = f->entity.data + f->entity.len;
    p = ngx_strlchr(f->entity.data, last, ':');

    if (p) {
        f->kind.len = p - f->entity.data;
        f->id.data = p + 1;
        f->id.len = last - f->id.data;
    }

    /* "~m~<model>", "~w~<duration>" */

    for (p = f->entity.data; p + 3 < last; p++) {
        if (p[0] == '~' && p[2] == '~') {
            f->sort = p[1];
            f->part.data = p + 3;
            f->part.len = last - f->part.data;
            s = f->id.data && p >= f->id.data ? &f->id : &f->kind;
            s->len = p - s->data;
            break;
        }
    }
}


/* name is a constant; value lives as long as the request. */

ngx_int_t
ngx_http_keytoll_push_header(ngx_list_t *list, const char *name, size_t len,
    ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(list);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
#if (nginx_version >= 1023000)
    h->next = NULL;
#endif
    h->key.data = (u_char *) name;
    h->key.len = len;
    h->value = *value;

    return NGX_OK;
}


/* An empty value is left out. */

ngx_int_t
ngx_http_keytoll_dup_header(ngx_http_request_t *r, const char *name,
    size_t len, ngx_str_t *v)
{
    ngx_str_t  value;

    if (v->len == 0) {
        return NGX_OK;
    }

    value.len = v->len;
    value.data = ngx_pstrdup(r->pool, v);

    if (value.data == NULL) {
        return NGX_ERROR;
    }

    return ngx_http_keytoll_push_header(&r->headers_out.headers, name, len,
                                        &value);
}


/* Who has no key that holds is told nothing but that. */

static ngx_uint_t
ngx_http_keytoll_is_of_key(ngx_uint_t reason)
{
    switch (reason) {

    case KT_KEY_UNKNOWN:
    case KT_KEY_BLOCKED:
    case KT_KEY_EXPIRED:
    case KT_KEY_MISSING:
    case KT_KEY_MALFORMED:
    case KT_KEY_SHAPE:
    case KT_KEY_CONFLICT:
    case KT_KEY_IN_URL:
        return 1;

    default:
        return 0;
    }
}


/* The header's word; the text says "max_parallel_requests" in all versions. */

static void
ngx_http_keytoll_rate_type(ngx_http_request_t *r, ngx_uint_t reason,
    ngx_str_t *v)
{
    ngx_http_keytoll_loc_conf_t  *klcf;

    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);

    if (reason == KT_RPM) {
        ngx_str_set(v, "requests");

    } else if (reason == KT_TPM) {
        ngx_str_set(v, "tokens");

    } else if (klcf->compat == KT_COMPAT_1_81) {
        ngx_str_set(v, "max_parallel_requests");

    } else {
        ngx_str_set(v, "concurrent_requests");
    }
}


static ngx_int_t
ngx_http_keytoll_refusal_headers(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_uint_t reason, kt_reason_info_t *info,
    ngx_http_keytoll_refusal_t *f)
{
    u_char     buf[64];
    ngx_str_t  v;

    v.data = (u_char *) info->name;
    v.len = ngx_strlen(info->name);

    if (ngx_http_keytoll_set_header(r, "x-keytoll-reason", &v) != NGX_OK) {
        return NGX_ERROR;
    }

    v.data = ctx->rid;
    v.len = KT_RID_LEN;

    if (ngx_http_keytoll_set_header(r, "x-litellm-call-id", &v) != NGX_OK
        || ngx_http_keytoll_copy_header(r, "x-keytoll-entity", &f->entity)
           != NGX_OK
        || ngx_http_keytoll_copy_header(r, "x-keytoll-limit", &f->limit)
           != NGX_OK
        || ngx_http_keytoll_copy_header(r, "x-keytoll-used", &f->used)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (f->entity.len
        && ngx_http_keytoll_copy_header(r, "x-keytoll-held", &f->held)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (!ngx_http_keytoll_is_of_key(reason)
        && ngx_http_keytoll_told(r, reason, f) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (f->reset_s > 0) {
        v.data = buf;
        v.len = ngx_sprintf(buf, "%L", f->reset_s) - buf;

        if (ngx_http_keytoll_copy_header(r, "x-keytoll-reset", &v) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (f->retry_s) {
        v.data = buf;
        v.len = ngx_sprintf(buf, "%L", f->retry_s) - buf;

        if (ngx_http_keytoll_copy_header(r, "Retry-After", &v) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (reason == KT_RPM || reason == KT_TPM || reason == KT_PARALLEL) {

        ngx_http_keytoll_rate_type(r, reason, &v);

        if (ngx_http_keytoll_set_header(r, "rate_limit_type", &v) != NGX_OK) {
            return NGX_ERROR;
        }

        v.data = buf;
        v.len = ngx_http_keytoll_stamp(buf, f->now_ms + f->retry_s * 1000)
                - buf;

        if (ngx_http_keytoll_copy_header(r, "reset_at", &v) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_keytoll_send(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *body)
{
    ngx_int_t     rc;
    ngx_buf_t    *b;
    ngx_chain_t   out;

    r->headers_out.status = status;
    r->headers_out.content_length_n = body->len;
    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->pos = body->data;
    b->last = body->data + body->len;
    b->memory = 1;
    b->last_buf = 1;
    b->last_in_chain = 1;

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}
