
/*
 * The end of a request: what it cost, and its ledger event.
 *
 * Charge by ending (DESIGN 5, nginx-craft C.3):
 *   usage seen                    exact
 *   aborted or complete without   the input estimate and what was streamed,
 *     usage, or unreadable          flagged as estimated
 *   refused by the provider, or   nothing
 *     never reached it
 */


#include "ngx_http_keytoll_module.h"


static ngx_uint_t ngx_http_keytoll_sent(ngx_http_request_t *r);
static void ngx_http_keytoll_charge(ngx_http_keytoll_ctx_t *ctx);
static kt_usage_t ngx_http_keytoll_priced(ngx_http_keytoll_ctx_t *ctx);
static int64_t ngx_http_keytoll_credits(ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_tokens(ngx_http_keytoll_ctx_t *ctx);
static u_char *ngx_http_keytoll_text(u_char *p, char *name, ngx_str_t *v);
static ngx_int_t ngx_http_keytoll_build(ngx_http_keytoll_ctx_t *ctx,
    ngx_uint_t final, ngx_str_t *out);


/*
 * Settles once, whichever comes first: the last byte, the log phase, the end
 * of the pool.
 */

void
ngx_http_keytoll_finish(ngx_http_keytoll_ctx_t *ctx)
{
    u_char        numbers[4][NGX_INT64_LEN + 1];
    ngx_str_t     event;
    ngx_uint_t    dispatched;
    kt_record_t   rec;

    if (ctx->state != NGX_HTTP_KEYTOLL_ADMITTED
        && ctx->state != NGX_HTTP_KEYTOLL_DISPATCHED)
    {
        return;
    }

    dispatched = ctx->state == NGX_HTTP_KEYTOLL_DISPATCHED
                 && ngx_http_keytoll_sent(ctx->request);

    ctx->state = NGX_HTTP_KEYTOLL_SETTLED;
    ngx_http_keytoll_active_del(ctx);
    ngx_http_keytoll_block_settled(ctx);

    ngx_str_null(&event);

    if (dispatched) {
        ngx_http_keytoll_charge(ctx);

        if (ngx_http_keytoll_build(ctx, 1, &event) != NGX_OK) {

            /* the journal's D stands: it will be charged as lost */

            ngx_log_error(NGX_LOG_CRIT, ctx->request->connection->log, 0,
                          "keytoll: no memory to settle %s", ctx->rid);
            return;
        }

    } else {
        ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_RELEASED, 1);
    }

    ngx_memzero(&rec, sizeof(kt_record_t));

    rec.type = KT_RECORD_SETTLE;
    rec.nfields = 7;
    rec.field[0].data = ctx->rid;
    rec.field[0].len = KT_RID_LEN;
    rec.field[1].data = ctx->receipt.data;
    rec.field[1].len = ctx->receipt.len;
    rec.field[2].data = numbers[0];
    rec.field[2].len = ngx_sprintf(numbers[0], "%L", ctx->cost_nusd)
                       - numbers[0];
    rec.field[3].data = numbers[1];
    rec.field[3].len = ngx_sprintf(numbers[1], "%L",
                                   ngx_http_keytoll_credits(ctx))
                       - numbers[1];
    rec.field[4].data = numbers[2];
    rec.field[4].len = ngx_sprintf(numbers[2], "%L",
                                   ctx->usage.in_tok - ctx->usage.cr_tok)
                       - numbers[2];
    rec.field[5].data = numbers[3];
    rec.field[5].len = ngx_sprintf(numbers[3], "%L", ctx->usage.out_tok)
                       - numbers[3];
    rec.field[6].data = event.data;
    rec.field[6].len = event.len;

    ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_COST_NUSD,
                           (ngx_atomic_int_t) ctx->cost_nusd);
    ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_IN_TOK,
                           (ngx_atomic_int_t) ctx->usage.in_tok);
    ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_OUT_TOK,
                           (ngx_atomic_int_t) ctx->usage.out_tok);

    if (ngx_http_keytoll_settle(&rec, ctx->segment,
                                ctx->block ? ctx->block->bid : NULL,
                                ctx->unreserved ? NULL : ctx->amounts)
        != NGX_OK)
    {
        ngx_log_error(NGX_LOG_CRIT, ctx->request->connection->log, 0,
                      "keytoll: could not settle %s, its lease will",
                      ctx->rid);
    }
}


/* Micro-credits: a call that costs anything costs one credit. */

static int64_t
ngx_http_keytoll_credits(ngx_http_keytoll_ctx_t *ctx)
{
    return ctx->cost_nusd > 0 ? NGX_HTTP_KEYTOLL_CREDIT : 0;
}


/* Whether any upstream, tried and given up or not, got a byte of it. */

static ngx_uint_t
ngx_http_keytoll_sent(ngx_http_request_t *r)
{
    ngx_uint_t                 i;
    ngx_http_upstream_state_t  *state;

    if (r->upstream && r->upstream->request_sent) {
        return 1;
    }

    if (r->upstream_states == NULL) {
        return 0;
    }

    state = r->upstream_states->elts;

    for (i = 0; i < r->upstream_states->nelts; i++) {
        if (state[i].bytes_sent > 0) {
            return 1;
        }
    }

    return 0;
}


static void
ngx_http_keytoll_charge(ngx_http_keytoll_ctx_t *ctx)
{
    kt_usage_t  *u, priced;

    u = &ctx->usage;

    if (!ctx->last) {
        ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_ABORTED, 1);
    }

    /* refused, or failed before an answer: the provider charges nothing */

    if (ctx->header ? (ctx->status < 200 || ctx->status > 299)
                    : !ctx->request->connection->error
                      && ctx->request->headers_out.status != 499
                      && ctx->request->err_status != 0)
    {
        ngx_memzero(u, sizeof(kt_usage_t));
        ctx->cost_nusd = 0;
        return;
    }

    if (ctx->scan == NULL || ctx->class == KT_ROUTE_COUNT) {
        ngx_memzero(u, sizeof(kt_usage_t));
        ctx->cost_nusd = 0;
        return;
    }

    if (!ctx->tier_seen && !u->has_service) {
        u->service = ctx->scan->service;
    }

    priced = ngx_http_keytoll_priced(ctx);

    if (ctx->estimated) {
        ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_ESTIMATED, 1);
    }

    if (kt_price_cost(&ctx->price, &priced, &ctx->cost_nusd) != KT_OK) {

        /* cannot be counted: never less than what was held for it */

        ctx->estimated = 1;
        ctx->cost_nusd = ctx->bound_nusd;
    }
}


/*
 * The usage that is paid for: units where the model has a price for them and
 * the answer did not count tokens that have one, else tokens.
 */

static kt_usage_t
ngx_http_keytoll_priced(ngx_http_keytoll_ctx_t *ctx)
{
    kt_usage_t   *u, units;
    kt_price_t   *p;
    ngx_uint_t    tokens;

    u = &ctx->usage;
    p = &ctx->price;

    tokens = u->has_in && p->has_in && p->has_out;

    ngx_memzero(&units, sizeof(kt_usage_t));
    units.searches = u->searches;

    switch (ctx->route.pay) {

    case KT_PAY_IMAGE:
        if (p->has_image && !tokens) {
            units.images = ctx->scan->n;
            return units;
        }

        break;

    case KT_PAY_SPEECH:
        if (p->has_char && !tokens) {
            units.chars = ctx->scan->chars;
            return units;
        }

        break;

    case KT_PAY_AUDIO:
        if (p->has_second && !tokens) {
            ctx->estimated = !u->has_dur;
            u->dur_ms = u->has_dur ? u->dur_ms : ctx->dur_ms;
            units.dur_ms = u->dur_ms;
            return units;
        }

        break;

    case KT_PAY_QUERY:
        if (p->has_query) {
            ctx->estimated = !u->has_units;
            u->units = u->has_units ? u->units : ctx->units;
            units.units = u->units;
            return units;
        }

        break;

    default:
        break;
    }

    ngx_http_keytoll_tokens(ctx);

    units = *u;
    units.units = 0;
    units.dur_ms = 0;

    return units;
}


/* Completes what the answer did not tell, or not to its end. */

static void
ngx_http_keytoll_tokens(ngx_http_keytoll_ctx_t *ctx)
{
    int64_t      out, est;
    kt_usage_t  *u;
    ngx_uint_t   input;

    u = &ctx->usage;
    input = ctx->route.pay == KT_PAY_INPUT || ctx->route.pay == KT_PAY_QUERY;

    if (u->has_in && (u->has_out || input) && (ctx->last || ctx->final)) {
        return;
    }

    ctx->estimated = 1;

    if (!u->has_in) {
        u->in_tok = ctx->in_typ;
    }

    if (input) {
        return;
    }

    switch (ctx->route.pay) {

    case KT_PAY_IMAGE:
    case KT_PAY_SPEECH:
        est = ctx->out_typ;
        break;

    default:
        out = ctx->delta_bytes;

        if (ctx->read_json && ctx->resp && !ctx->last) {
            out += ctx->resp->delta_bytes;
        }

        est = out ? ngx_max(ctx->events, (out + 2) / 3)
              : ctx->read_json ? (int64_t) (ctx->plain_bytes / 4) : 0;

        if (ctx->unreadable) {
            est = ngx_max(ctx->out_typ, (int64_t) (ctx->body_bytes / 4));
        }

        if (ctx->scan->background && !u->has_out) {

            /* it goes on when the answer has long been given */

            est = ctx->out_bound;
        }
    }

    out = ngx_max(u->out_tok, est);

    if (ctx->out_bound > 0 && out > ctx->out_bound) {
        out = ngx_max(u->out_tok, ctx->out_bound);
    }

    u->out_tok = out;
}


/* How it ended, in a word of the ledger's. */

char *
ngx_http_keytoll_end(ngx_http_keytoll_ctx_t *ctx)
{
    if (!ctx->header) {
        return ctx->request->err_status ? "error" : "aborted";
    }

    if (ctx->status == NGX_HTTP_SWITCHING_PROTOCOLS) {
        return "complete";
    }

    if (ctx->status < 200 || ctx->status > 299) {
        return "refused_upstream";
    }

    if (ctx->gone || ctx->request->connection->error) {
        return "aborted";
    }

    return ctx->last ? "complete" : "error";
}


/* ctx->template: what the ledger gets should this request never be settled. */

ngx_int_t
ngx_http_keytoll_template(ngx_http_keytoll_ctx_t *ctx)
{
    return ngx_http_keytoll_build(ctx, 0, &ctx->template);
}


static ngx_int_t
ngx_http_keytoll_build(ngx_http_keytoll_ctx_t *ctx, ngx_uint_t final,
    ngx_str_t *out)
{
    size_t               len, n;
    u_char              *p;
    ngx_str_t            user, addr, alias;
    kt_usage_t          *u;
    ngx_http_request_t  *r;

    r = ctx->request;
    u = &ctx->usage;
    addr = r->connection->addr_text;
    alias = ctx->alias;

    user = ctx->end_user;

    len = 768 + ngx_http_keytoll_json_len(ctx->model.data, ctx->model.len)
          + ngx_http_keytoll_json_len(ctx->upstream_model.data,
                                      ctx->upstream_model.len)
          + ngx_http_keytoll_json_len(ctx->provider.data, ctx->provider.len)
          + ngx_http_keytoll_json_len(user.data, user.len)
          + ngx_http_keytoll_json_len(ctx->answer_id.data, ctx->answer_id.len)
          + ngx_http_keytoll_json_len(addr.data, addr.len)
          + ngx_http_keytoll_json_len(alias.data, alias.len)
          + ngx_http_keytoll_conf()->node.len;

    for (n = 0; n < ctx->ntags; n++) {
        len += ngx_http_keytoll_json_len(ctx->tags[n].data, ctx->tags[n].len)
               + 3;
    }

    p = ngx_pnalloc(r->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    out->data = p;

    p = ngx_sprintf(p, "{\"id\":\"%*s\",\"t0\":%uL,\"rt\":\"%V\",\"stm\":%d",
                    (size_t) KT_RID_LEN, ctx->rid, ctx->admit_ms,
                    &ngx_http_keytoll_class_names[ctx->class],
                    (int) ctx->streaming);

    p = ngx_http_keytoll_text(p, "m", &ctx->model);
    p = ngx_http_keytoll_text(p, "um", &ctx->upstream_model);
    p = ngx_http_keytoll_text(p, "p", &ctx->provider);
    p = ngx_http_keytoll_text(p, "ip", &addr);
    p = ngx_http_keytoll_text(p, "cust", &user);
    p = ngx_http_keytoll_text(p, "alias", &alias);
    p = ngx_http_keytoll_text(p, "node", &ngx_http_keytoll_conf()->node);

    if (ctx->ntags) {
        p = ngx_sprintf(p, ",\"tags\":");

        for (n = 0; n < ctx->ntags; n++) {
            *p++ = n ? ',' : '[';
            *p++ = '"';
            p = ngx_http_keytoll_json(p, ctx->tags[n].data, ctx->tags[n].len);
            *p++ = '"';
        }

        *p++ = ']';
    }

    if (!final) {
        p = ngx_sprintf(p, ",\"in\":%L,\"out\":0,\"cost\":\"%L\",\"ucr\":\"0\","
                        "\"st\":0,\"end\":\"lost\",\"est\":1}",
                        ctx->in_typ, ctx->in_nusd);
        out->len = p - out->data;
        return NGX_OK;
    }

    p = ngx_http_keytoll_text(p, "uid", &ctx->answer_id);

    p = ngx_sprintf(p, ",\"t1\":%uL,\"in\":%L,\"out\":%L,\"cr\":%L,\"cw\":%L,"
                    "\"rs\":%L,\"cost\":\"%L\",\"ucr\":\"%L\",\"st\":%ui,"
                    "\"end\":\"%s\",\"est\":%d",
                    ngx_http_keytoll_now_ms(), u->in_tok, u->out_tok,
                    u->cr_tok, u->cw_tok, u->rs_tok, ctx->cost_nusd,
                    ngx_http_keytoll_credits(ctx),
                    ctx->header ? ctx->status
                                : (ngx_uint_t) r->err_status,
                    ngx_http_keytoll_end(ctx), (int) ctx->estimated);

    if (ctx->first_ms > ctx->admit_ms) {
        p = ngx_sprintf(p, ",\"ttft\":%uL", ctx->first_ms - ctx->admit_ms);
    }

    *p++ = '}';

    out->len = p - out->data;

    return NGX_OK;
}


static u_char *
ngx_http_keytoll_text(u_char *p, char *name, ngx_str_t *v)
{
    if (v->len == 0) {
        return p;
    }

    p = ngx_sprintf(p, ",\"%s\":\"", name);
    p = ngx_http_keytoll_json(p, v->data, v->len);
    *p++ = '"';

    return p;
}


/* At most that many bytes are written by ngx_http_keytoll_json(). */

size_t
ngx_http_keytoll_json_len(u_char *p, size_t len)
{
    size_t  n, i;

    n = len;

    for (i = 0; i < len; i++) {
        if (p[i] < 0x20 || p[i] == '"' || p[i] == '\\' || p[i] == 0x7f) {
            n += 5;
        }
    }

    return n;
}


u_char *
ngx_http_keytoll_json(u_char *dst, u_char *p, size_t len)
{
    static u_char  hex[] = "0123456789abcdef";

    for ( /* void */ ; len; len--, p++) {

        if (*p == '"' || *p == '\\') {
            *dst++ = '\\';
            *dst++ = *p;

        } else if (*p < 0x20 || *p == 0x7f) {
            dst = ngx_cpymem(dst, "\\u00", 4);
            *dst++ = hex[*p >> 4];
            *dst++ = hex[*p & 0xf];

        } else {
            *dst++ = *p;
        }
    }

    return dst;
}
