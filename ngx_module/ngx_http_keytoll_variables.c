
/*
 * Variables for routing and logs.  None holds a key; all are evaluated anew,
 * since most are unknown until the request has been admitted, or has ended.
 */


#include "ngx_http_keytoll_module.h"


typedef enum {
    NGX_HTTP_KEYTOLL_V_VERDICT = 0,
    NGX_HTTP_KEYTOLL_V_REASON,
    NGX_HTTP_KEYTOLL_V_ENTITY,
    NGX_HTTP_KEYTOLL_V_KEY_ID,
    NGX_HTTP_KEYTOLL_V_REQUEST_ID,
    NGX_HTTP_KEYTOLL_V_ALIAS,
    NGX_HTTP_KEYTOLL_V_USER,
    NGX_HTTP_KEYTOLL_V_TEAM,
    NGX_HTTP_KEYTOLL_V_ORG,
    NGX_HTTP_KEYTOLL_V_CUSTOMER,
    NGX_HTTP_KEYTOLL_V_TAGS,
    NGX_HTTP_KEYTOLL_V_MODEL,
    NGX_HTTP_KEYTOLL_V_UPSTREAM_MODEL,
    NGX_HTTP_KEYTOLL_V_PROVIDER,
    NGX_HTTP_KEYTOLL_V_ROUTE,
    NGX_HTTP_KEYTOLL_V_STREAM,
    NGX_HTTP_KEYTOLL_V_IN,
    NGX_HTTP_KEYTOLL_V_OUT,
    NGX_HTTP_KEYTOLL_V_CACHE_READ,
    NGX_HTTP_KEYTOLL_V_CACHE_WRITE,
    NGX_HTTP_KEYTOLL_V_REASONING,
    NGX_HTTP_KEYTOLL_V_COST,
    NGX_HTTP_KEYTOLL_V_COST_USD,
    NGX_HTTP_KEYTOLL_V_ESTIMATED,
    NGX_HTTP_KEYTOLL_V_END,
    NGX_HTTP_KEYTOLL_V_TTFT,
    NGX_HTTP_KEYTOLL_V_REDIS_TIME
} ngx_http_keytoll_variable_e;


static ngx_int_t ngx_http_keytoll_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static void ngx_http_keytoll_text_variable(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_http_keytoll_variable_e which,
    ngx_str_t *s);
static int64_t ngx_http_keytoll_number_variable(ngx_http_keytoll_ctx_t *ctx,
    ngx_http_keytoll_variable_e which);
static ngx_int_t ngx_http_keytoll_decimal_variable(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_http_keytoll_variable_e which,
    ngx_str_t *s);
static void ngx_http_keytoll_verdict_variable(ngx_http_keytoll_ctx_t *ctx,
    ngx_str_t *s);
static ngx_int_t ngx_http_keytoll_tags_variable(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_str_t *s);
static ngx_int_t ngx_http_keytoll_identity(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, char *kind, ngx_str_t *out);


static ngx_http_variable_t  ngx_http_keytoll_vars[] = {

    { ngx_string("keytoll_verdict"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_VERDICT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_reason"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_REASON, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_entity"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_ENTITY, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_key_id"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_KEY_ID, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_request_id"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_REQUEST_ID, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_key_alias"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_ALIAS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_user"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_USER, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_team"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_TEAM, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_org"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_ORG, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_customer"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_CUSTOMER, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_tags"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_TAGS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_model"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_MODEL, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_upstream_model"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_UPSTREAM_MODEL, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_provider"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_PROVIDER, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_route"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_ROUTE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_stream"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_STREAM, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_tokens_in"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_IN, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_tokens_out"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_OUT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_tokens_cache_read"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_CACHE_READ, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_tokens_cache_write"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_CACHE_WRITE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_tokens_reasoning"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_REASONING, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_cost"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_COST, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_cost_usd"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_COST_USD, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_estimated"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_ESTIMATED, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_end"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_END, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_ttft_ms"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_TTFT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_redis_time"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_REDIS_TIME, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


static ngx_int_t
ngx_http_keytoll_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    ngx_int_t                     rc;
    ngx_str_t                     s;
    ngx_http_keytoll_ctx_t       *ctx;
    ngx_http_keytoll_variable_e   which;

    ctx = ngx_http_keytoll_get_ctx(r->main);

    if (ctx == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    ngx_str_null(&s);

    rc = NGX_OK;
    which = (ngx_http_keytoll_variable_e) data;

    switch (which) {

    case NGX_HTTP_KEYTOLL_V_VERDICT:
        ngx_http_keytoll_verdict_variable(ctx, &s);
        break;

    case NGX_HTTP_KEYTOLL_V_TAGS:
        rc = ngx_http_keytoll_tags_variable(r, ctx, &s);
        break;

    default:
        ngx_http_keytoll_text_variable(r, ctx, which, &s);

        if (s.len == 0) {
            rc = ngx_http_keytoll_decimal_variable(r, ctx, which, &s);
        }
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    if (s.len == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->data = s.data;
    v->len = s.len;
    v->valid = 1;
    v->no_cacheable = 1;
    v->not_found = 0;

    return NGX_OK;
}


static void
ngx_http_keytoll_text_variable(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_http_keytoll_variable_e which,
    ngx_str_t *s)
{
    switch (which) {

    case NGX_HTTP_KEYTOLL_V_REASON:
        if (ctx->reason != KT_ADMITTED) {
            s->data = (u_char *) kt_reason((int) ctx->reason)->name;
            s->len = ngx_strlen(s->data);
        }

        break;

    case NGX_HTTP_KEYTOLL_V_ENTITY:
        *s = ctx->entity;
        break;

    case NGX_HTTP_KEYTOLL_V_KEY_ID:
        s->data = ctx->token;
        s->len = ctx->token[0] ? 8 : 0;
        break;

    case NGX_HTTP_KEYTOLL_V_REQUEST_ID:
        s->data = ctx->rid;
        s->len = KT_RID_LEN;
        break;

    case NGX_HTTP_KEYTOLL_V_ALIAS:
        *s = ctx->alias;
        break;

    case NGX_HTTP_KEYTOLL_V_USER:
        (void) ngx_http_keytoll_identity(r, ctx, "user:", s);
        break;

    case NGX_HTTP_KEYTOLL_V_TEAM:
        (void) ngx_http_keytoll_identity(r, ctx, "team:", s);
        break;

    case NGX_HTTP_KEYTOLL_V_ORG:
        (void) ngx_http_keytoll_identity(r, ctx, "org:", s);
        break;

    case NGX_HTTP_KEYTOLL_V_CUSTOMER:
        *s = ctx->end_user;
        break;

    case NGX_HTTP_KEYTOLL_V_MODEL:
        *s = ctx->model;
        break;

    case NGX_HTTP_KEYTOLL_V_UPSTREAM_MODEL:
        *s = ctx->upstream_model.len ? ctx->upstream_model : ctx->model;
        break;

    case NGX_HTTP_KEYTOLL_V_PROVIDER:
        *s = ctx->provider;
        break;

    case NGX_HTTP_KEYTOLL_V_ROUTE:
        *s = ngx_http_keytoll_class_names[ctx->class];
        break;

    case NGX_HTTP_KEYTOLL_V_END:
        if (ctx->state == NGX_HTTP_KEYTOLL_SETTLED
            && ctx->reason == KT_ADMITTED)
        {
            s->data = (u_char *) ngx_http_keytoll_end(ctx);
            s->len = ngx_strlen(s->data);
        }

        break;

    default:
        break;
    }
}


/* Not negative, or -1 where there is none. */

static int64_t
ngx_http_keytoll_number_variable(ngx_http_keytoll_ctx_t *ctx,
    ngx_http_keytoll_variable_e which)
{
    switch (which) {

    case NGX_HTTP_KEYTOLL_V_STREAM:
        return ctx->streaming;

    case NGX_HTTP_KEYTOLL_V_IN:
        return ctx->usage.in_tok;

    case NGX_HTTP_KEYTOLL_V_OUT:
        return ctx->usage.out_tok;

    case NGX_HTTP_KEYTOLL_V_CACHE_READ:
        return ctx->usage.cr_tok;

    case NGX_HTTP_KEYTOLL_V_CACHE_WRITE:
        return ctx->usage.cw_tok;

    case NGX_HTTP_KEYTOLL_V_REASONING:
        return ctx->usage.rs_tok;

    case NGX_HTTP_KEYTOLL_V_COST:
        return ctx->cost_nusd;

    case NGX_HTTP_KEYTOLL_V_ESTIMATED:
        return ctx->estimated;

    case NGX_HTTP_KEYTOLL_V_TTFT:
        return ctx->first_ms >= ctx->admit_ms
               ? (int64_t) (ctx->first_ms - ctx->admit_ms) : -1;

    default:
        return -1;
    }
}


static ngx_int_t
ngx_http_keytoll_decimal_variable(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_http_keytoll_variable_e which,
    ngx_str_t *s)
{
    u_char     *p, buf[NGX_INT64_LEN];
    int64_t     n;
    ngx_str_t   nusd;

    p = ngx_pnalloc(r->pool, NGX_INT64_LEN + 8);
    if (p == NULL) {
        return NGX_ERROR;
    }

    s->data = p;

    switch (which) {

    case NGX_HTTP_KEYTOLL_V_COST_USD:
        nusd.data = buf;
        nusd.len = ngx_sprintf(buf, "%L", ctx->cost_nusd) - buf;
        p = ngx_http_keytoll_usd(p, &nusd);
        break;

    case NGX_HTTP_KEYTOLL_V_REDIS_TIME:
        if (ctx->redis_us) {
            p = ngx_sprintf(p, "%uL.%06uL", ctx->redis_us / 1000000,
                            ctx->redis_us % 1000000);
        }

        break;

    default:
        n = ngx_http_keytoll_number_variable(ctx, which);

        if (n >= 0) {
            p = ngx_sprintf(p, "%L", n);
        }
    }

    s->len = p - s->data;

    return NGX_OK;
}


static void
ngx_http_keytoll_verdict_variable(ngx_http_keytoll_ctx_t *ctx, ngx_str_t *s)
{
    if (ctx->reason != KT_ADMITTED
        || ctx->state == NGX_HTTP_KEYTOLL_REFUSED)
    {
        ngx_str_set(s, "refused");

    } else if (ctx->state < NGX_HTTP_KEYTOLL_ADMITTED) {
        return;

    } else if (ctx->unreserved) {
        ngx_str_set(s, "unreserved");

    } else {
        ngx_str_set(s, "admitted");
    }
}


static ngx_int_t
ngx_http_keytoll_tags_variable(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_str_t *s)
{
    u_char      *p;
    size_t       len;
    ngx_uint_t   i;

    for (i = 0, len = 0; i < ctx->ntags; i++) {
        len += ctx->tags[i].len + 1;
    }

    if (len == 0) {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    s->data = p;

    for (i = 0; i < ctx->ntags; i++) {

        if (i) {
            *p++ = ',';
        }

        p = ngx_cpymem(p, ctx->tags[i].data, ctx->tags[i].len);
    }

    s->len = p - s->data;

    return NGX_OK;
}


/* The receipt names the entities of the request, one a line. */

static ngx_int_t
ngx_http_keytoll_identity(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx,
    char *kind, ngx_str_t *out)
{
    u_char  *p, *last, *end;
    size_t   n;

    if (ctx->receipt.data == NULL) {
        return NGX_DECLINED;
    }

    n = ngx_strlen(kind);
    p = ctx->receipt.data;
    last = p + ctx->receipt.len;

    while (p < last) {
        end = ngx_strlchr(p, last, '\t');

        if (end && (size_t) (end - p) > n && ngx_strncmp(p, kind, n) == 0) {
            out->data = ngx_pnalloc(r->pool, end - p);

            return out->data
                   && kt_id_decode((char *) p + n, end - p - n,
                                   (char *) out->data, end - p, &out->len)
                      == KT_OK
                   ? NGX_OK : NGX_ERROR;
        }

        p = ngx_strlchr(p, last, LF);
        if (p == NULL) {
            break;
        }

        p++;
    }

    return NGX_DECLINED;
}


ngx_int_t
ngx_http_keytoll_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = ngx_http_keytoll_vars; v->name.len; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}
