
/*
 * What a request may cost, before it is admitted.
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_CLAMP_MIN    16        /* no shorter answer         */
#define NGX_HTTP_KEYTOLL_TYP_OUT      256       /* answer without a cap      */
#define NGX_HTTP_KEYTOLL_BOUND_OUT    16384     /* ... model cap unknown     */
#define NGX_HTTP_KEYTOLL_TYP_IMAGE    1000      /* tokens of one image       */
#define NGX_HTTP_KEYTOLL_BOUND_IMAGE  50000     /* ... the dearest in detail */
#define NGX_HTTP_KEYTOLL_BOUND_IN     1048576   /* text that is elsewhere    */
#define NGX_HTTP_KEYTOLL_DRAWN_IMAGE  8192      /* tokens of one to be drawn */
#define NGX_HTTP_KEYTOLL_UNIT_DOCS    100       /* documents to a query      */
#define NGX_HTTP_KEYTOLL_BYTES_MS     8         /* of audio, at 64 kbit/s    */


static ngx_int_t ngx_http_keytoll_price(ngx_http_keytoll_ctx_t *ctx,
    int64_t *max_in);
static ngx_http_keytoll_model_t *ngx_http_keytoll_image_row(
    ngx_http_keytoll_ctx_t *ctx, ngx_http_keytoll_model_t *m);
static void ngx_http_keytoll_text_tokens(ngx_http_keytoll_ctx_t *ctx,
    int64_t max_in);
static void ngx_http_keytoll_out_tokens(ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_other_units(ngx_http_keytoll_ctx_t *ctx);
static ngx_int_t ngx_http_keytoll_sums(ngx_http_keytoll_ctx_t *ctx);


/* The flags of kt_admit: what is known of the model and its price. */

int64_t
ngx_http_keytoll_flags(ngx_http_keytoll_ctx_t *ctx)
{
    ngx_http_keytoll_loc_conf_t  *klcf;

    if (ctx->why) {
        return 2;
    }

    if (ctx->class == KT_ROUTE_READ) {
        return 1;
    }

    if (ctx->scan == NULL) {
        return 4 | 8;
    }

    if (ctx->model.len == 0) {
        return 1 | 8;
    }

    if (!ctx->known) {
        return 2;
    }

    klcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_keytoll_module);

    return (ctx->price.free && (klcf->free_models
                                || ctx->class == KT_ROUTE_COUNT) ? 1 : 0)
           | (ctx->price.none ? 4 : 0);
}


/*
 * Two estimates: the bound that meters of money hold (every byte of text a
 * token, every cap counted) and the usual tokens that TPM reserves where it is
 * not strict.
 */

ngx_int_t
ngx_http_keytoll_estimate(ngx_http_keytoll_ctx_t *ctx)
{
    int64_t  max_in;

    if (ctx->scan == NULL) {
        return NGX_OK;
    }

    if (ngx_http_keytoll_price(ctx, &max_in) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ctx->class == KT_ROUTE_COUNT) {

        /* providers count for nothing */

        ctx->price.free = 1;
        ctx->price.none = 0;

        return NGX_OK;
    }

    ngx_http_keytoll_text_tokens(ctx, max_in);
    ngx_http_keytoll_out_tokens(ctx);
    ngx_http_keytoll_other_units(ctx);

    return ngx_http_keytoll_sums(ctx);
}


static ngx_int_t
ngx_http_keytoll_price(ngx_http_keytoll_ctx_t *ctx, int64_t *max_in)
{
    ngx_pool_t                *pool;
    ngx_http_keytoll_model_t  *m;

    pool = ctx->request->pool;
    m = ngx_http_keytoll_registry_find(&ctx->model);

    ctx->known = m != NULL;
    ngx_memzero(&ctx->price, sizeof(kt_price_t));
    ctx->price.none = 1;
    ctx->max_out_tok = -1;
    *max_in = -1;

    if (m == NULL) {
        return NGX_OK;
    }

    ctx->max_out_tok = m->max_out_tok;
    *max_in = m->max_in_tok;

    if (m->upstream.len) {
        ctx->upstream_model.data = ngx_pstrdup(pool, &m->upstream);
        ctx->upstream_model.len = m->upstream.len;
    }

    if (m->provider.len) {
        ctx->provider.data = ngx_pstrdup(pool, &m->provider);
        ctx->provider.len = m->provider.len;
    }

    if (m->id.len) {
        ctx->model_id.data = ngx_pstrdup(pool, &m->id);
        ctx->model_id.len = m->id.len;
    }

    if ((m->upstream.len && ctx->upstream_model.data == NULL)
        || (m->provider.len && ctx->provider.data == NULL)
        || (m->id.len && ctx->model_id.data == NULL))
    {
        return NGX_ERROR;
    }

    if (ctx->class == KT_ROUTE_IMAGES) {
        m = ngx_http_keytoll_image_row(ctx, m);
    }

    ctx->price = m->price;

    /* a price that this route is not paid by is none, nor is that of less */

    if (!kt_price_applies(&ctx->price, ctx->route.pay)
        || (ctx->scan->service == KT_SERVICE_PRIORITY && !ctx->price.free
            && !(ctx->price.services & (1 << KT_SERVICE_PRIORITY))))
    {
        ctx->price.none = 1;
        ctx->price.free = 0;
    }

    return NGX_OK;
}


/* "quality/WxH/model" or "WxH/model", with "-x-" as LiteLLM writes it. */

static ngx_http_keytoll_model_t *
ngx_http_keytoll_image_row(ngx_http_keytoll_ctx_t *ctx,
    ngx_http_keytoll_model_t *m)
{
    char                      *x;
    u_char                     text[2 * KT_REQ_WORD + KT_ID_MAX + 8];
    size_t                     width;
    ngx_str_t                  name, *base;
    ngx_uint_t                 i;
    kt_reqscan_t              *s;
    ngx_http_keytoll_model_t  *row;

    s = ctx->scan;
    x = strchr(s->size, 'x');

    if (x == NULL) {
        return m;
    }

    width = x - s->size;

    for (i = 0; i < 4; i++) {
        base = i & 1 ? &ctx->upstream_model : &ctx->model;

        if (base->len == 0 || base->len > KT_ID_MAX
            || (i < 2 && s->quality[0] == '\0'))
        {
            continue;
        }

        name.data = text;
        name.len = ngx_sprintf(text, "%s%s%*s-x-%s/%V",
                               i < 2 ? s->quality : "", i < 2 ? "/" : "",
                               width, s->size, x + 1, base)
                   - text;

        row = ngx_http_keytoll_registry_find(&name);

        if (row) {
            return row;
        }
    }

    return m;
}


static void
ngx_http_keytoll_text_tokens(ngx_http_keytoll_ctx_t *ctx, int64_t max_in)
{
    int64_t        elsewhere;
    kt_reqscan_t  *s;

    s = ctx->scan;

    ctx->in_bound = s->text_bytes + s->images * NGX_HTTP_KEYTOLL_BOUND_IMAGE;
    ctx->in_typ = (s->text_bytes + 3) / 4
                  + s->images * NGX_HTTP_KEYTOLL_TYP_IMAGE;

    if (s->remote) {
        elsewhere = max_in > 0 ? max_in : NGX_HTTP_KEYTOLL_BOUND_IN;
        ctx->in_bound = ngx_max(ctx->in_bound, elsewhere);
    }
}


/* The cap that this route knows; one of another dialect is none. */

static int64_t
ngx_http_keytoll_cap(ngx_http_keytoll_ctx_t *ctx)
{
    ngx_uint_t     known;
    kt_reqscan_t  *s;

    s = ctx->scan;

    switch (ctx->class) {

    case KT_ROUTE_CHAT:
        known = s->caps[0].len || s->caps[1].len;
        break;

    case KT_ROUTE_RESPONSES:
        known = s->caps[2].len != 0;
        break;

    case KT_ROUTE_GEMINI:
        known = s->gen_cap.len != 0;
        break;

    default:
        known = s->caps[0].len != 0;
    }

    return known ? s->max_tok : -1;
}


static void
ngx_http_keytoll_out_tokens(ngx_http_keytoll_ctx_t *ctx)
{
    int64_t        n, cap, asked;
    kt_reqscan_t  *s;

    s = ctx->scan;
    n = s->n > 0 ? s->n : 1;

    switch (ctx->route.pay) {

    case KT_PAY_INPUT:
    case KT_PAY_QUERY:
        ctx->out_bound = 0;
        ctx->out_typ = 0;
        return;

    case KT_PAY_IMAGE:
        ctx->out_bound = NGX_HTTP_KEYTOLL_DRAWN_IMAGE * n;
        ctx->out_typ = NGX_HTTP_KEYTOLL_TYP_IMAGE * n;
        return;

    case KT_PAY_SPEECH:

        /* twenty tokens a second, at fifteen characters spoken */

        ctx->out_bound = ctx->max_out_tok >= 0 ? ctx->max_out_tok
                                               : NGX_HTTP_KEYTOLL_BOUND_OUT;
        ctx->out_typ = ngx_min(2 * s->chars, ctx->out_bound);
        return;

    default:
        break;
    }

    /* every element of "prompt" is answered */

    n *= s->prompts > 1 ? s->prompts : 1;

    asked = ngx_http_keytoll_cap(ctx);
    cap = asked >= 0 ? asked
          : ctx->max_out_tok >= 0 ? ctx->max_out_tok
          : NGX_HTTP_KEYTOLL_BOUND_OUT;

    if (ctx->clamp && cap > ctx->clamp) {
        cap = ctx->clamp;
        asked = cap;
    }

    ctx->out_bound = cap * n;
    ctx->out_typ = (asked >= 0 ? asked
                    : ngx_min(cap, NGX_HTTP_KEYTOLL_TYP_OUT)) * n;
}


static void
ngx_http_keytoll_other_units(ngx_http_keytoll_ctx_t *ctx)
{
    kt_reqscan_t  *s;

    s = ctx->scan;

    if (ctx->route.pay == KT_PAY_QUERY) {
        ctx->units = s->docs > 1 ? (s->docs + NGX_HTTP_KEYTOLL_UNIT_DOCS - 1)
                                   / NGX_HTTP_KEYTOLL_UNIT_DOCS : 1;

    } else if (ctx->route.pay == KT_PAY_AUDIO) {
        ctx->dur_ms = s->file_bytes / NGX_HTTP_KEYTOLL_BYTES_MS + 1;

        /* ten tokens a second are heard, as many may be written */

        ctx->in_typ += ctx->dur_ms / 100;
        ctx->in_bound += s->file_bytes / 10;
    }
}


/* Where a model can be paid by units or by tokens, units are what is held. */

static ngx_int_t
ngx_http_keytoll_sums(ngx_http_keytoll_ctx_t *ctx)
{
    kt_price_t      *p;
    kt_reqscan_t    *s;
    kt_price_ask_t   most, in;

    s = ctx->scan;
    p = &ctx->price;

    ngx_memzero(&most, sizeof(kt_price_ask_t));

    most.in_tok = ctx->in_bound;
    most.out_tok = ctx->out_bound;
    most.services = 1 << s->service;
    most.searches = s->searches;
    most.media_in = s->media_in || ctx->route.pay == KT_PAY_AUDIO;
    most.media_out = s->media_out || ctx->route.pay == KT_PAY_IMAGE
                     || ctx->route.pay == KT_PAY_SPEECH;

    /* whose models search unasked */

    if (s->searches == 0 && ctx->provider.len == sizeof("perplexity") - 1
        && ngx_strncmp(ctx->provider.data, "perplexity", ctx->provider.len)
           == 0)
    {
        most.searches = KT_REQ_SEARCHES;
    }

    in = most;
    in.in_tok = ctx->in_typ;
    in.out_tok = 0;
    in.searches = 0;

    /* who does not say which tier gets what his account is set to */

    most.services |= s->any_service ? 1 << KT_SERVICE_PRIORITY : 0;

    if (ctx->route.pay == KT_PAY_IMAGE && p->has_image) {
        most.images = s->n;
        in.images = s->n;

    } else if (ctx->route.pay == KT_PAY_SPEECH && p->has_char) {
        most.chars = s->chars;
        in.chars = s->chars;

    } else if (ctx->route.pay == KT_PAY_QUERY && p->has_query) {
        most.units = ctx->units;
        in.units = ctx->units;

    } else if (ctx->route.pay == KT_PAY_AUDIO && p->has_second) {
        most.dur_ms = s->file_bytes + 1;
        in.dur_ms = ctx->dur_ms;
    }

    if ((most.images || most.chars || most.units || most.dur_ms)
        && !(p->has_in && p->has_out))
    {
        most.in_tok = most.out_tok = 0;
        in.in_tok = 0;
    }

    if (kt_price_most(p, &most, &ctx->bound_nusd) != KT_OK
        || kt_price_most(p, &in, &ctx->in_nusd) != KT_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


/*
 * Lowers the cap of the answer until its bound is at most free_nusd and below
 * what it was: NGX_OK, or NGX_DECLINED when a useful answer would not fit.
 */

ngx_int_t
ngx_http_keytoll_clamp(ngx_http_keytoll_ctx_t *ctx, int64_t free_nusd)
{
    int64_t        n, low, high, mid, before;
    kt_reqscan_t  *s;

    s = ctx->scan;

    /* only a cap that the request names and the provider knows is lowered */

    if (s == NULL || s->form || ctx->price.none || ctx->price.free
        || ngx_http_keytoll_cap(ctx) < 0
        || (ctx->class != KT_ROUTE_CHAT && ctx->class != KT_ROUTE_COMPLETIONS
            && ctx->class != KT_ROUTE_MESSAGES
            && ctx->class != KT_ROUTE_RESPONSES))
    {
        return NGX_DECLINED;
    }

    n = (s->n > 0 ? s->n : 1) * (s->prompts > 1 ? s->prompts : 1);

    before = ctx->clamp;
    low = NGX_HTTP_KEYTOLL_CLAMP_MIN - 1;
    high = ctx->out_bound / n;

    while (high - low > 1) {
        mid = low + (high - low) / 2;
        ctx->clamp = mid;

        if (ngx_http_keytoll_estimate(ctx) == NGX_OK
            && ctx->bound_nusd <= free_nusd)
        {
            low = mid;

        } else {
            high = mid;
        }
    }

    ctx->clamp = low >= NGX_HTTP_KEYTOLL_CLAMP_MIN ? low : before;

    if (ngx_http_keytoll_estimate(ctx) != NGX_OK) {
        return NGX_DECLINED;
    }

    return ctx->clamp != before ? NGX_OK : NGX_DECLINED;
}
