
/*
 * Variables for routing and logs.  None holds a key; all are evaluated anew,
 * since most are unknown until the request has been admitted.
 */


#include "ngx_http_keytoll_module.h"


typedef enum {
    NGX_HTTP_KEYTOLL_V_KEY_ID = 0,
    NGX_HTTP_KEYTOLL_V_REQUEST_ID,
    NGX_HTTP_KEYTOLL_V_ALIAS,
    NGX_HTTP_KEYTOLL_V_USER,
    NGX_HTTP_KEYTOLL_V_TEAM,
    NGX_HTTP_KEYTOLL_V_ORG,
    NGX_HTTP_KEYTOLL_V_MODEL,
    NGX_HTTP_KEYTOLL_V_UPSTREAM_MODEL,
    NGX_HTTP_KEYTOLL_V_PROVIDER,
    NGX_HTTP_KEYTOLL_V_ROUTE,
    NGX_HTTP_KEYTOLL_V_STREAM,
    NGX_HTTP_KEYTOLL_V_VERDICT,
    NGX_HTTP_KEYTOLL_V_IN,
    NGX_HTTP_KEYTOLL_V_OUT,
    NGX_HTTP_KEYTOLL_V_COST,
    NGX_HTTP_KEYTOLL_V_ESTIMATED
} ngx_http_keytoll_variable_e;


static ngx_int_t ngx_http_keytoll_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_keytoll_identity(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, char *kind, ngx_str_t *out);


static ngx_http_variable_t  ngx_http_keytoll_vars[] = {

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

    { ngx_string("keytoll_verdict"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_VERDICT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_tokens_in"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_IN, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_tokens_out"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_OUT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_cost"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_COST, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("keytoll_estimated"), NULL, ngx_http_keytoll_variable,
      NGX_HTTP_KEYTOLL_V_ESTIMATED, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


static ngx_int_t
ngx_http_keytoll_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    u_char                  *p;
    int64_t                  n;
    ngx_str_t                s;
    ngx_http_keytoll_ctx_t  *ctx;

    ctx = ngx_http_keytoll_get_ctx(r->main);

    if (ctx == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    ngx_str_null(&s);
    n = -1;

    switch ((ngx_http_keytoll_variable_e) data) {

    case NGX_HTTP_KEYTOLL_V_KEY_ID:
        s.data = ctx->token;
        s.len = ctx->token[0] ? 8 : 0;
        break;

    case NGX_HTTP_KEYTOLL_V_REQUEST_ID:
        s.data = ctx->rid;
        s.len = KT_RID_LEN;
        break;

    case NGX_HTTP_KEYTOLL_V_ALIAS:
        s = ctx->alias;
        break;

    case NGX_HTTP_KEYTOLL_V_USER:
        (void) ngx_http_keytoll_identity(r, ctx, "user:", &s);
        break;

    case NGX_HTTP_KEYTOLL_V_TEAM:
        (void) ngx_http_keytoll_identity(r, ctx, "team:", &s);
        break;

    case NGX_HTTP_KEYTOLL_V_ORG:
        (void) ngx_http_keytoll_identity(r, ctx, "org:", &s);
        break;

    case NGX_HTTP_KEYTOLL_V_MODEL:
        s = ctx->model;
        break;

    case NGX_HTTP_KEYTOLL_V_UPSTREAM_MODEL:
        s = ctx->upstream_model.len ? ctx->upstream_model : ctx->model;
        break;

    case NGX_HTTP_KEYTOLL_V_PROVIDER:
        s = ctx->provider;
        break;

    case NGX_HTTP_KEYTOLL_V_ROUTE:
        s = ngx_http_keytoll_class_names[ctx->class];
        break;

    case NGX_HTTP_KEYTOLL_V_STREAM:
        n = ctx->streaming;
        break;

    case NGX_HTTP_KEYTOLL_V_VERDICT:
        if (ctx->reason == KT_ADMITTED
            && ctx->state < NGX_HTTP_KEYTOLL_ADMITTED)
        {
            break;
        }

        s.data = (u_char *) kt_reason((int) ctx->reason)->name;
        s.len = ngx_strlen(s.data);
        break;

    case NGX_HTTP_KEYTOLL_V_IN:
        n = ctx->usage.in_tok;
        break;

    case NGX_HTTP_KEYTOLL_V_OUT:
        n = ctx->usage.out_tok;
        break;

    case NGX_HTTP_KEYTOLL_V_COST:
        n = ctx->cost_nusd;
        break;

    case NGX_HTTP_KEYTOLL_V_ESTIMATED:
        n = ctx->estimated;
        break;
    }

    if (n >= 0) {
        p = ngx_pnalloc(r->pool, NGX_INT64_LEN);
        if (p == NULL) {
            return NGX_ERROR;
        }

        s.data = p;
        s.len = ngx_sprintf(p, "%L", n) - p;
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
