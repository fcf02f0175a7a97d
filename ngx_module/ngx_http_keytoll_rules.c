
/*
 * What the operator asks of a request besides limits: litellm-api 11.2, rows
 * 2, 31, 32 and 38.  A request that breaks a rule still hears first what is
 * wrong with its key.
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_PARAM        255       /* bytes of a name that shows */


static void ngx_http_keytoll_break(ngx_http_keytoll_ctx_t *ctx,
    ngx_uint_t reason, const char *why);
static ngx_int_t ngx_http_keytoll_rules_names(ngx_http_keytoll_ctx_t *ctx,
    kt_reqparam_t *name, ngx_uint_t n);
static ngx_uint_t ngx_http_keytoll_in_form(ngx_http_keytoll_ctx_t *ctx,
    kt_reqparam_t *name);


/*
 * Sets ctx->why and ctx->why_reason.  Of a body that is not read, whatever it
 * is (a file, say), nothing is asked; headers are those of every request.
 */

void
ngx_http_keytoll_rules(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    ngx_http_keytoll_loc_conf_t  *klcf;

    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);

    if (ctx->scan && ctx->scan->away && !klcf->client_credentials) {
        ngx_http_keytoll_break(ctx, KT_BODY_AWAY, ctx->scan->away);
        return;
    }

    if (ctx->scan && klcf->enforce_user && ctx->end_user.len == 0) {
        ngx_http_keytoll_break(ctx, KT_USER_MISSING, "user");
        return;
    }

    if (klcf->reject_tags && ctx->ntags) {
        ngx_http_keytoll_break(ctx, KT_TAGS_DENIED, "tags");
        return;
    }

    if (ctx->scan && klcf->enforced_params) {
        (void) ngx_http_keytoll_rules_names(ctx, klcf->enforced_params->elts,
                                            klcf->enforced_params->nelts);
    }
}


/*
 * The members that a key asks of every body, by tab: NGX_OK, or NGX_DECLINED
 * with ctx->why set, or NGX_ERROR.  A route whose body is not read has none.
 */

ngx_int_t
ngx_http_keytoll_rules_params(ngx_http_keytoll_ctx_t *ctx, ngx_str_t *names)
{
    u_char         *p, *end, *tab;
    ngx_uint_t      n;
    kt_reqparam_t  *name;

    if (ctx->scan == NULL) {
        return NGX_OK;
    }

    end = names->data + names->len;

    for (p = names->data, n = 1; p < end; p++) {
        n += *p == '\t';
    }

    name = ngx_palloc(ctx->request->pool, n * sizeof(kt_reqparam_t));
    if (name == NULL) {
        return NGX_ERROR;
    }

    for (p = names->data, n = 0; p < end; p = tab + 1) {

        tab = ngx_strlchr(p, end, '\t');

        if (tab == NULL) {
            tab = end;
        }

        name[n].name = (char *) p;
        name[n++].len = tab - p;
    }

    return ngx_http_keytoll_rules_names(ctx, name, n);
}


/* All of n names, in one pass over the body. */

static ngx_int_t
ngx_http_keytoll_rules_names(ngx_http_keytoll_ctx_t *ctx, kt_reqparam_t *name,
    ngx_uint_t n)
{
    size_t       len;
    u_char      *why;
    ngx_uint_t   i;

    if (ctx->scan->form) {
        for (i = 0; i < n && ngx_http_keytoll_in_form(ctx, &name[i]); i++) {
            /* void */
        }

    } else {
        i = kt_reqparams(ctx->body, ctx->body_len, name, n);
    }

    if (i == n) {
        return NGX_OK;
    }

    len = ngx_min(name[i].len, NGX_HTTP_KEYTOLL_PARAM);

    why = ngx_pnalloc(ctx->request->pool, len + 1);
    if (why == NULL) {
        ngx_http_keytoll_break(ctx, KT_PARAM_MISSING, "what it must have");
        return NGX_ERROR;
    }

    ngx_cpystrn(why, (u_char *) name[i].name, len + 1);
    ngx_http_keytoll_break(ctx, KT_PARAM_MISSING, (char *) why);

    return NGX_DECLINED;
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
ngx_http_keytoll_in_form(ngx_http_keytoll_ctx_t *ctx, kt_reqparam_t *name)
{
    if (name->len != 4 && name->len != 5) {
        return 0;
    }

    if (name->len == 5 && ngx_memcmp(name->name, "model", 5) == 0) {
        return ctx->scan->model_len != 0;
    }

    return name->len == 4 && ngx_memcmp(name->name, "user", 4) == 0
           && ctx->scan->user_len != 0;
}
