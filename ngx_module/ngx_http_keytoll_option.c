
/*
 * Options of a key that take another question: what its bodies must have, and
 * cheaper models where there is no money for the one that was asked for.  The
 * verdict says so, and a key without options never comes here.
 *
 *   call.c -> admit_params(), admit_cheaper() -> waiting, as in admit.c
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_LISTS        8         /* of members, for a request */


/*
 * The key asks for members of the body: looked for, asked once more.  The list
 * goes with the question, as it may change in between.  NGX_DECLINED with
 * ctx->why set when one is not there.
 */

ngx_int_t
ngx_http_keytoll_admit_params(ngx_http_keytoll_ctx_t *ctx,
    redisReply *verdict)
{
    ngx_int_t  rc;

    if (verdict->type != REDIS_REPLY_ARRAY || verdict->elements < 2
        || ctx->lists++ == NGX_HTTP_KEYTOLL_LISTS
        || ngx_http_keytoll_copy(ctx->request->pool, &ctx->params,
                                 verdict->element[1])
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    rc = ngx_http_keytoll_rules_params(ctx, &ctx->params);

    if (rc != NGX_OK) {
        return rc;
    }

    ngx_http_keytoll_admit_again(ctx);
    ngx_http_keytoll_redis_post();

    return NGX_OK;
}


/* There is no money for the model, and the key names others for that case. */

ngx_int_t
ngx_http_keytoll_admit_cheaper(ngx_http_keytoll_ctx_t *ctx,
    redisReply *verdict, uint64_t mark)
{
    if (ctx->tried || verdict->type != REDIS_REPLY_ARRAY
        || verdict->elements < 14
        || ngx_http_keytoll_copy(ctx->request->pool, &ctx->cheaper,
                                 verdict->element[13])
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    ctx->asked = ctx->model;
    ctx->trying = 1;

    ngx_http_keytoll_cache_first(ctx, mark);

    ngx_http_keytoll_admit_next(ctx);

    return NGX_OK;
}


/*
 * Asks for the next of them, each in its turn.  Behind the last, for what the
 * client wanted, so that he hears why that is refused.
 */

void
ngx_http_keytoll_admit_next(ngx_http_keytoll_ctx_t *ctx)
{
    u_char     *tab, *end;
    ngx_str_t  *list;

    list = &ctx->cheaper;
    end = list->data + list->len;

    ctx->model.len = 0;

    while (list->data < end
           && (ctx->model.len == 0 || ctx->model.len >= KT_REQ_TEXT))
    {
        tab = ngx_strlchr(list->data, end, '\t');

        ctx->model.data = list->data;
        ctx->model.len = (tab ? tab : end) - list->data;

        list->data = tab ? tab + 1 : end;
        list->len = end - list->data;
    }

    if (ctx->model.len == 0 || ctx->model.len >= KT_REQ_TEXT) {
        ctx->model = ctx->asked;
        ctx->trying = 0;
        ctx->tried = 1;
    }

    ctx->clamp = 0;
    ctx->aliased = 1;
    ngx_str_null(&ctx->upstream_model);
    ngx_str_null(&ctx->provider);

    ngx_http_keytoll_admit_again(ctx);
    ngx_http_keytoll_redis_post();
}


/* Behind the flags, what the body was found to have. */

void
ngx_http_keytoll_option_found(ngx_http_keytoll_ctx_t *ctx, ngx_str_t *flags)
{
    u_char  *p;

    if (ctx->params.len == 0) {
        return;
    }

    p = ngx_pnalloc(ctx->request->pool, flags->len + 1 + ctx->params.len);

    if (p == NULL) {
        return;                         /* it is asked for once more         */
    }

    ngx_sprintf(p, "%V\t%V", flags, &ctx->params);

    flags->data = p;
    flags->len += 1 + ctx->params.len;
}
