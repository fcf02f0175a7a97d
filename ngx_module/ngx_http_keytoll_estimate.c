
/*
 * What a request may cost, before it is admitted.
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_TYP_OUT      256       /* answer without a cap      */
#define NGX_HTTP_KEYTOLL_BOUND_OUT    16384     /* ... model cap unknown     */
#define NGX_HTTP_KEYTOLL_TYP_IMAGE    1000      /* tokens of one image       */
#define NGX_HTTP_KEYTOLL_BOUND_IMAGE  50000     /* ... the dearest in detail */


/*
 * Two estimates: the bound that a strict meter holds (every byte of text a
 * token, every cap counted) and a typical cost for the others.
 */

ngx_int_t
ngx_http_keytoll_estimate(ngx_http_keytoll_ctx_t *ctx)
{
    int64_t                    n, cap, asked;
    kt_reqscan_t              *s;
    ngx_http_keytoll_model_t  *m;

    s = ctx->scan;

    if (s == NULL) {
        return NGX_OK;
    }

    m = ngx_http_keytoll_registry_find(&ctx->model);

    ctx->known = m != NULL;
    ngx_memzero(&ctx->price, sizeof(kt_price_t));
    ctx->price.none = 1;
    ctx->max_out_tok = -1;

    if (m) {
        ctx->price = m->price;
        ctx->max_out_tok = m->max_out_tok;

        if (m->upstream.len) {
            ctx->upstream_model.data = ngx_pstrdup(ctx->request->pool,
                                                   &m->upstream);
            ctx->upstream_model.len = m->upstream.len;
        }

        if (m->provider.len) {
            ctx->provider.data = ngx_pstrdup(ctx->request->pool, &m->provider);
            ctx->provider.len = m->provider.len;
        }

        if ((m->upstream.len && ctx->upstream_model.data == NULL)
            || (m->provider.len && ctx->provider.data == NULL))
        {
            return NGX_ERROR;
        }
    }

    /* every element of "prompt" is answered */

    n = (s->n > 0 ? s->n : 1) * (s->prompts > 1 ? s->prompts : 1);

    ctx->in_bound = s->text_bytes + s->images * NGX_HTTP_KEYTOLL_BOUND_IMAGE;
    ctx->in_typ = (s->text_bytes + 3) / 4
                  + s->images * NGX_HTTP_KEYTOLL_TYP_IMAGE;

    /* a cap that this route does not know is none */

    asked = s->caps[0].len
            || (ctx->class == NGX_HTTP_KEYTOLL_CHAT && s->caps[1].len)
            ? s->max_tok : -1;

    if (ctx->class == NGX_HTTP_KEYTOLL_EMBEDDINGS) {
        ctx->out_bound = 0;
        ctx->out_typ = 0;

    } else {
        cap = asked >= 0 ? asked
              : ctx->max_out_tok >= 0 ? ctx->max_out_tok
              : NGX_HTTP_KEYTOLL_BOUND_OUT;

        ctx->out_bound = cap * n;

        ctx->out_typ = (asked >= 0 ? asked
                        : ngx_min(cap, NGX_HTTP_KEYTOLL_TYP_OUT)) * n;
    }

    if (kt_price_bound(&ctx->price, ctx->in_bound, ctx->out_bound,
                       &ctx->bound_nusd)
        != KT_OK
        || kt_price_bound(&ctx->price, ctx->in_typ, ctx->out_typ,
                          &ctx->typ_nusd)
           != KT_OK
        || kt_price_bound(&ctx->price, ctx->in_typ, 0, &ctx->in_nusd) != KT_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}
