
/*
 * What the operator asks of a request besides limits: litellm-api 11.2, rows
 * 2, 31, 32 and 38.  A request that breaks a rule still hears first what is
 * wrong with its key.
 */


#include "ngx_http_keytoll_module.h"


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
