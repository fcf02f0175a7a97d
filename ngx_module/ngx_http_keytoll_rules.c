
/*
 * What the operator asks of a request besides limits: litellm-api 11.2, rows
 * 2, 31, 32 and 38.  A request that breaks a rule still hears first what is
 * wrong with its key.
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_PARAM        255       /* bytes of a name that shows */


static void ngx_http_keytoll_break(ngx_http_keytoll_ctx_t *ctx,
    ngx_uint_t reason, const char *why);
static ngx_uint_t ngx_http_keytoll_has(ngx_http_keytoll_ctx_t *ctx,
    ngx_str_t *name);


/* Of a body that has been scanned; sets ctx->why and ctx->why_reason. */

void
ngx_http_keytoll_rules(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    ngx_str_t                    *name;
    ngx_uint_t                    i;
    ngx_http_keytoll_loc_conf_t  *klcf;

    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);

    if (ctx->scan->away && !klcf->client_credentials) {
        ngx_http_keytoll_break(ctx, KT_BODY_AWAY, ctx->scan->away);
        return;
    }

    if (klcf->enforce_user && ctx->end_user.len == 0) {
        ngx_http_keytoll_break(ctx, KT_USER_MISSING, "user");
        return;
    }

    if (klcf->reject_tags && ctx->ntags) {
        ngx_http_keytoll_break(ctx, KT_TAGS_DENIED, "tags");
        return;
    }

    if (klcf->enforced_params == NULL) {
        return;
    }

    name = klcf->enforced_params->elts;

    for (i = 0; i < klcf->enforced_params->nelts; i++) {

        if (!ngx_http_keytoll_has(ctx, &name[i])) {
            ngx_http_keytoll_break(ctx, KT_PARAM_MISSING,
                                   (char *) name[i].data);
            return;
        }
    }
}


/*
 * The members that a key asks of every body, by tab: NGX_OK, or NGX_DECLINED
 * with ctx->why set, or NGX_ERROR.  A route whose body is not read has none.
 */

ngx_int_t
ngx_http_keytoll_rules_params(ngx_http_keytoll_ctx_t *ctx, ngx_str_t *names)
{
    u_char     *p, *end, *tab, *why;
    ngx_str_t   name;

    if (ctx->scan == NULL) {
        return NGX_OK;
    }

    end = names->data + names->len;

    for (p = names->data; p < end; p = tab + 1) {

        tab = ngx_strlchr(p, end, '\t');

        if (tab == NULL) {
            tab = end;
        }

        name.data = p;
        name.len = ngx_min(tab - p, NGX_HTTP_KEYTOLL_PARAM);

        if (ngx_http_keytoll_has(ctx, &name)) {
            continue;
        }

        why = ngx_pnalloc(ctx->request->pool, name.len + 1);
        if (why == NULL) {
            return NGX_ERROR;
        }

        ngx_cpystrn(why, name.data, name.len + 1);
        ngx_http_keytoll_break(ctx, KT_PARAM_MISSING, (char *) why);

        return NGX_DECLINED;
    }

    return NGX_OK;
}


static void
ngx_http_keytoll_break(ngx_http_keytoll_ctx_t *ctx, ngx_uint_t reason,
    const char *why)
{
    ctx->why_reason = reason;
    ctx->why = why;
}


/* Of a form only what the gate reads is known. */

static ngx_uint_t
ngx_http_keytoll_has(ngx_http_keytoll_ctx_t *ctx, ngx_str_t *name)
{
    if (!ctx->scan->form) {
        return kt_reqparam(ctx->body, ctx->body_len, (char *) name->data,
                           name->len);
    }

    if (ngx_http_keytoll_is(name, "model")) {
        return ctx->scan->model_len != 0;
    }

    return ngx_http_keytoll_is(name, "user") && ctx->scan->user_len != 0;
}
