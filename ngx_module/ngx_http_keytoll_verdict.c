
/*
 * Refusals: one reason, rendered once, in LiteLLM's envelope (litellm-api 0.2
 * and 11.2), with the numbers in x-keytoll-* headers.
 *
 * The reply of kt_admit names the entity and its amounts:
 *   1 entity, 2 alias, 3 limit, 4 used, 5 held, 6 period end s, 7 retry ms,
 *   8 need, 9 now ms, 10 allowed models by tab, 11 expires ms, 12 status
 */


#include "ngx_http_keytoll_module.h"


typedef struct {
    ngx_str_t                      entity;
    ngx_str_t                      kind;        /* entity up to the colon    */
    ngx_str_t                      id;          /* and behind it             */
    ngx_str_t                      alias;
    ngx_str_t                      limit;
    ngx_str_t                      used;
    ngx_str_t                      held;
    ngx_str_t                      need;
    ngx_str_t                      models;
    int64_t                        reset_s;
    int64_t                        retry_ms;
    int64_t                        now_ms;
    int64_t                        expires_ms;
} ngx_http_keytoll_refusal_t;


static void ngx_http_keytoll_parse(ngx_http_keytoll_refusal_t *f,
    redisReply *reply);
static u_char *ngx_http_keytoll_message(u_char *p, ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_uint_t reason,
    ngx_http_keytoll_refusal_t *f);
static u_char *ngx_http_keytoll_budget_text(u_char *p,
    ngx_http_keytoll_ctx_t *ctx, ngx_http_keytoll_refusal_t *f);
static u_char *ngx_http_keytoll_usd(u_char *p, ngx_str_t *nusd);
static const char *ngx_http_keytoll_error_type(ngx_uint_t reason,
    ngx_http_keytoll_refusal_t *f);
static ngx_int_t ngx_http_keytoll_refusal_headers(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_uint_t reason,
    ngx_http_keytoll_refusal_t *f);
static ngx_int_t ngx_http_keytoll_send(ngx_http_request_t *r,
    ngx_uint_t status, ngx_str_t *body);


/* Holds two ids of KT_ENT_MAX, an alias, a path and a list cut to the rest. */

#define NGX_HTTP_KEYTOLL_TEXT  16384


ngx_int_t
ngx_http_keytoll_refuse(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx,
    ngx_uint_t reason, redisReply *reply)
{
    size_t                       len;
    u_char                      *p, *text, *last;
    ngx_int_t                    rc;
    ngx_str_t                    body;
    ngx_uint_t                   level;
    const char                  *type;
    const kt_reason_info_t      *info;
    ngx_http_keytoll_refusal_t   f;

    ngx_http_keytoll_parse(&f, reply);

    info = kt_reason((int) reason);
    type = ngx_http_keytoll_error_type(reason, &f);

    ctx->reason = reason;
    ctx->status = info->status;

    if (ctx->state < NGX_HTTP_KEYTOLL_SETTLED) {
        ctx->state = NGX_HTTP_KEYTOLL_REFUSED;
    }

    ngx_http_keytoll_count_refused(reason);

    text = ngx_pnalloc(r->pool, NGX_HTTP_KEYTOLL_TEXT);
    if (text == NULL) {
        goto failed;
    }

    last = ngx_http_keytoll_message(text, r, ctx, reason, &f);

    level = info->status >= 500 ? NGX_LOG_ERR : NGX_LOG_INFO;

    ngx_log_error(level, r->connection->log, 0,
                  "keytoll: refused %s, key %*s, entity \"%V\", model \"%V\"",
                  info->name, (size_t) (ctx->token[0] ? 8 : 0), ctx->token,
                  &f.entity, &ctx->model);

    len = ngx_http_keytoll_json_len(text, last - text) + 256;

    p = ngx_pnalloc(r->pool, len);
    if (p == NULL) {
        goto failed;
    }

    body.data = p;

    if (reason == KT_ROUTE_DENIED) {
        p = ngx_sprintf(p, "{\"detail\":\"");
        p = ngx_http_keytoll_json(p, text, last - text);
        p = ngx_sprintf(p, "\"}");

    } else {
        p = ngx_sprintf(p, "{\"error\":{\"message\":\"");
        p = ngx_http_keytoll_json(p, text, last - text);
        p = ngx_sprintf(p, "\",\"type\":\"%s\",\"param\":", type);
        p = info->param ? ngx_sprintf(p, "\"%s\"", info->param)
                        : ngx_sprintf(p, "null");
        p = ngx_sprintf(p, ",\"code\":\"%d\"}}", info->status);
    }

    body.len = p - body.data;

    if (ngx_http_keytoll_refusal_headers(r, ctx, reason, &f) != NGX_OK) {
        goto failed;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        ngx_http_finalize_request(r, rc);
        return NGX_DONE;
    }

    ngx_http_finalize_request(r, ngx_http_keytoll_send(r, info->status,
                                                       &body));
    return NGX_DONE;

failed:

    ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
    return NGX_DONE;
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
    size_t  i;

    ngx_memzero(f, sizeof(ngx_http_keytoll_refusal_t));

    f->now_ms = ngx_http_keytoll_now_ms();

    if (reply == NULL || reply->elements < 13) {
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

    f->kind = f->entity;

    for (i = 0; i < f->entity.len; i++) {
        if (f->entity.data[i] == ':') {
            f->kind.len = i;
            f->id.data = f->entity.data + i + 1;
            f->id.len = f->entity.len - i - 1;
            break;
        }
    }
}


static ngx_uint_t
ngx_http_keytoll_is(ngx_str_t *s, const char *name)
{
    return s->len == ngx_strlen(name)
           && ngx_strncmp(s->data, name, s->len) == 0;
}


static const char *
ngx_http_keytoll_error_type(ngx_uint_t reason, ngx_http_keytoll_refusal_t *f)
{
    if (reason == KT_ENTITY_MODEL) {

        if (ngx_http_keytoll_is(&f->kind, "user")) {
            return "user_model_access_denied";
        }

        if (ngx_http_keytoll_is(&f->kind, "org")) {
            return "org_model_access_denied";
        }
    }

    return kt_reason((int) reason)->type;
}


/* nano-USD as text to dollars: "12345" is 0.000012345. */

static u_char *
ngx_http_keytoll_usd(u_char *p, ngx_str_t *nusd)
{
    u_char  *d, frac[9];
    size_t   n, whole;

    d = nusd->data;
    n = nusd->len;

    if (n == 0 || n > 30) {
        return ngx_cpymem(p, "0.0", 3);
    }

    if (*d == '-') {
        *p++ = '-';
        d++;
        n--;
    }

    whole = n > 9 ? n - 9 : 0;

    ngx_memset(frac, '0', 9);
    ngx_memcpy(frac + 9 - (n - whole), d + whole, n - whole);

    if (whole) {
        p = ngx_cpymem(p, d, whole);

    } else {
        *p++ = '0';
    }

    for (n = 9; n > 1 && frac[n - 1] == '0'; n--) { /* void */ }

    *p++ = '.';

    return ngx_cpymem(p, frac, n);
}


static u_char *
ngx_http_keytoll_stamp(u_char *p, int64_t ms)
{
    ngx_tm_t  tm;

    ngx_gmtime((time_t) (ms / 1000), &tm);

    return ngx_sprintf(p, "%4d-%02d-%02d %02d:%02d:%02d UTC", tm.ngx_tm_year,
                       tm.ngx_tm_mon, tm.ngx_tm_mday, tm.ngx_tm_hour,
                       tm.ngx_tm_min, tm.ngx_tm_sec);
}


static u_char *
ngx_http_keytoll_list(u_char *p, u_char *end, ngx_str_t *models)
{
    u_char  *m, *last;

    m = models->data;
    last = m + models->len;

    *p++ = '[';
    *p++ = '\'';

    for ( /* void */ ; m < last && p < end; m++) {
        if (*m == '\t') {
            p = ngx_cpymem(p, "', '", 4);
            continue;
        }

        *p++ = *m;
    }

    *p++ = '\'';
    *p++ = ']';

    return p;
}


/* An entity id as its owner wrote it. */

static ngx_str_t
ngx_http_keytoll_plain_id(ngx_http_request_t *r, ngx_str_t *id)
{
    size_t     len;
    ngx_str_t  out;

    out.data = ngx_pnalloc(r->pool, id->len + 1);
    out.len = 0;

    if (out.data
        && kt_id_decode((char *) id->data, id->len, (char *) out.data,
                        id->len + 1, &len)
           == KT_OK)
    {
        out.len = len;
    }

    return out;
}


static u_char *
ngx_http_keytoll_budget_text(u_char *p, ngx_http_keytoll_ctx_t *ctx,
    ngx_http_keytoll_refusal_t *f)
{
    u_char     *slash;
    ngx_str_t   id, team, user;

    id = ngx_http_keytoll_plain_id(ctx->request, &f->id);

    if (ngx_http_keytoll_is(&f->kind, "user")
        || ngx_http_keytoll_is(&f->kind, "customer"))
    {
        p = ngx_sprintf(p, "ExceededBudget: %s=%V over budget. Spend=",
                        ngx_http_keytoll_is(&f->kind, "user") ? "User"
                                                              : "End User",
                        &id);
        p = ngx_http_keytoll_usd(p, &f->used);
        p = ngx_cpymem(p, ", Budget=", 9);

        return ngx_http_keytoll_usd(p, &f->limit);
    }

    p = ngx_sprintf(p, "Budget has been exceeded! ");

    if (ngx_http_keytoll_is(&f->kind, "key")) {
        p = f->alias.len ? ngx_sprintf(p, "Key=%V (%V) ", &f->alias,
                                       &ctx->key_name)
                         : ngx_sprintf(p, "Key=%V ", &ctx->key_name);

    } else if (ngx_http_keytoll_is(&f->kind, "member")) {
        slash = ngx_strlchr(f->id.data, f->id.data + f->id.len, '/');

        if (slash) {
            team.data = f->id.data;
            team.len = slash - f->id.data;
            user.data = slash + 1;
            user.len = f->id.data + f->id.len - user.data;
            team = ngx_http_keytoll_plain_id(ctx->request, &team);
            user = ngx_http_keytoll_plain_id(ctx->request, &user);
            p = ngx_sprintf(p, "User=%V in Team=%V ", &user, &team);
        }

    } else if (ngx_http_keytoll_is(&f->kind, "team")) {
        p = ngx_sprintf(p, "Team=%V ", &id);

    } else if (ngx_http_keytoll_is(&f->kind, "org")) {
        p = ngx_sprintf(p, "Organization=%V ", &id);

    } else if (ngx_http_keytoll_is(&f->kind, "tag")) {
        p = ngx_sprintf(p, "Tag=%V ", &id);
    }

    p = ngx_sprintf(p, "Current cost: ");
    p = ngx_http_keytoll_usd(p, &f->used);
    p = ngx_sprintf(p, ", Max budget: ");

    return ngx_http_keytoll_usd(p, &f->limit);
}


static u_char *
ngx_http_keytoll_rate_text(u_char *p, ngx_http_keytoll_ctx_t *ctx,
    ngx_uint_t reason, ngx_http_keytoll_refusal_t *f)
{
    int64_t     left;
    ngx_str_t   kind, id;
    const char  *type;

    kind = f->kind;
    id = ngx_http_keytoll_plain_id(ctx->request, &f->id);

    if (ngx_http_keytoll_is(&kind, "key")) {
        ngx_str_set(&kind, "api_key");

    } else if (ngx_http_keytoll_is(&kind, "org")) {
        ngx_str_set(&kind, "organization");

    } else if (ngx_http_keytoll_is(&kind, "member")) {
        ngx_str_set(&kind, "team_member");

    } else if (ngx_http_keytoll_is(&kind, "customer")) {
        ngx_str_set(&kind, "end_user");
    }

    type = reason == KT_RPM ? "requests"
           : reason == KT_TPM ? "tokens" : "max_parallel_requests";

    left = ngx_atoof(f->limit.data, f->limit.len)
           - ngx_atoof(f->used.data, f->used.len);

    p = ngx_sprintf(p, "Rate limit exceeded for %V: %V. Limit type: %s. "
                    "Current limit: %V, Remaining: %L. Limit resets at: ",
                    &kind, &id, type, &f->limit, left > 0 ? left : 0);

    return ngx_http_keytoll_stamp(p, f->now_ms
                                     + (f->retry_ms > 0 ? f->retry_ms
                                                        : 60000));
}


/* Long inputs are cut so that the text fits NGX_HTTP_KEYTOLL_TEXT. */

static u_char *
ngx_http_keytoll_message(u_char *p, ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_uint_t reason,
    ngx_http_keytoll_refusal_t *f)
{
    u_char     *end;
    ngx_str_t   id;

    end = p + NGX_HTTP_KEYTOLL_TEXT - 8192;

    switch (reason) {

    case KT_KEY_MISSING:
        return ngx_sprintf(p, "Authentication Error, No api key passed in.");

    case KT_KEY_MALFORMED:
        return ngx_sprintf(p, "Authentication Error, Malformed API Key passed "
                           "in. Ensure Key has `Bearer ` prefix.");

    case KT_KEY_SHAPE:
        return ngx_sprintf(p, "Authentication Error, LiteLLM Virtual Key "
                           "expected, it has to start with 'sk-'.");

    case KT_KEY_UNKNOWN:
        return ngx_sprintf(p, "Authentication Error, Invalid proxy server "
                           "token passed. Received API Key = %V. Unable to "
                           "find token in cache or "
                           "`LiteLLM_VerificationTokenTable`", &ctx->key_name);

    case KT_KEY_BLOCKED:
        return ngx_sprintf(p, "Authentication Error, Key is blocked. Update "
                           "via `/key/unblock` if you're admin.");

    case KT_KEY_EXPIRED:
        p = ngx_sprintf(p, "Authentication Error - Expired Key. Key Expiry "
                        "time ");
        p = ngx_http_keytoll_stamp(p, f->expires_ms);
        p = ngx_sprintf(p, " and current time ");
        return ngx_http_keytoll_stamp(p, f->now_ms);

    case KT_KEY_MODEL:
    case KT_ENTITY_MODEL:
        p = ngx_sprintf(p, "%s not allowed to access model. This %s can only "
                        "access models=",
                        reason == KT_KEY_MODEL ? "key"
                        : ngx_http_keytoll_is(&f->kind, "user") ? "user"
                        : ngx_http_keytoll_is(&f->kind, "org") ? "org"
                        : "team",
                        reason == KT_KEY_MODEL ? "key"
                        : ngx_http_keytoll_is(&f->kind, "user") ? "user"
                        : ngx_http_keytoll_is(&f->kind, "org") ? "org"
                        : "team");
        p = ngx_http_keytoll_list(p, end, &f->models);
        return ngx_sprintf(p, ". Tried to access %V", &ctx->model);

    case KT_ENTITY_BLOCKED:
        id = ngx_http_keytoll_plain_id(r, &f->id);

        if (ngx_http_keytoll_is(&f->kind, "team")) {
            return ngx_sprintf(p, "Authentication Error, Team=%V is blocked. "
                               "Update via `/team/unblock` if your admin.",
                               &id);
        }

        return ngx_sprintf(p, "Authentication Error, %V=%V is blocked.",
                           &f->kind, &id);

    case KT_BUDGET_EXCEEDED:
        return ngx_http_keytoll_budget_text(p, ctx, f);

    case KT_BUDGET_HELD:
        id = ngx_http_keytoll_plain_id(r, &f->id);
        p = ngx_sprintf(p, "Budget is held by requests that are still running "
                        "for %V: %V. Held: ", &f->kind, &id);
        p = ngx_http_keytoll_usd(p, &f->held);
        p = ngx_sprintf(p, ", Current cost: ");
        p = ngx_http_keytoll_usd(p, &f->used);
        p = ngx_sprintf(p, ", Max budget: ");
        p = ngx_http_keytoll_usd(p, &f->limit);
        return ngx_sprintf(p, ". Try again when they are done.");

    case KT_RPM:
    case KT_TPM:
    case KT_PARALLEL:
        return ngx_http_keytoll_rate_text(p, ctx, reason, f);

    case KT_CREDITS:
        return ngx_sprintf(p, "Insufficient credits.");

    case KT_ROUTE_DENIED:
        return ngx_sprintf(p, "Virtual key is not allowed to call this route. "
                           "Tried to call route: %*s",
                           ngx_min(r->uri.len, 1024), r->uri.data);

    case KT_MODEL_UNKNOWN:
        return ngx_sprintf(p, "{'error': '%*s: Invalid model name passed in "
                           "model=%V. Call `/v1/models` to view available "
                           "models for your key.'}",
                           ngx_min(r->uri.len, 1024), r->uri.data,
                           &ctx->model);

    case KT_UNPRICED:
        id = ngx_http_keytoll_plain_id(r, &f->id);
        return ngx_sprintf(p, "%V: %V has a money limit, and no price is known "
                           "for %V%s. Add the model with a price by "
                           "`/model/new`.", &f->kind, &id, &ctx->model,
                           ctx->model.len ? " on this route" : "this route");

    case KT_KEY_CONFLICT:
        return ngx_sprintf(p, "Two different API keys were passed in. Send "
                           "the key in one header only.");

    case KT_KEY_IN_URL:
        return ngx_sprintf(p, "API keys in the URL are not accepted, they end "
                           "in logs. Send the key in the Authorization "
                           "header.");

    case KT_BODY_INVALID:
        p = ngx_sprintf(p, "Invalid request body: %s", ctx->why);
        return ctx->why_off ? ngx_sprintf(p, ", at byte %uz", ctx->why_off)
                            : p;

    case KT_BODY_TOO_LARGE:
        return ngx_sprintf(p, "Request size is too large, see "
                           "\"keytoll_max_body\".");

    case KT_BODY_ENCODED:
        return ngx_sprintf(p, "Content-Encoding of the request is not "
                           "supported. Send the body as it is.");

    case KT_NOT_READY:
    case KT_ENTITY_MISSING:
    case KT_STALE:
        return ngx_sprintf(p, "Limits are being loaded, try again in a "
                           "moment.");

    case KT_REDIS_DOWN:
        return ngx_sprintf(p, "Limits cannot be checked right now, try again "
                           "in a moment.");

    case KT_JOURNAL_DOWN:
        return ngx_sprintf(p, "The settlement journal cannot be written, no "
                           "request is accepted.");

    default:
        return ngx_sprintf(p, "Internal server error");
    }
}


ngx_int_t
ngx_http_keytoll_set_header(ngx_http_request_t *r, char *name,
    ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
#if (nginx_version >= 1023000)
    h->next = NULL;
#endif
    h->key.data = (u_char *) name;
    h->key.len = ngx_strlen(name);
    h->value = *value;

    return NGX_OK;
}


/* Header values live as long as the request; Redis' reply does not. */

static ngx_int_t
ngx_http_keytoll_copy_header(ngx_http_request_t *r, char *name, ngx_str_t *v)
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

    return ngx_http_keytoll_set_header(r, name, &value);
}


static ngx_int_t
ngx_http_keytoll_refusal_headers(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_uint_t reason,
    ngx_http_keytoll_refusal_t *f)
{
    u_char                  buf[64];
    int64_t                 retry_s;
    ngx_str_t               v;
    const kt_reason_info_t *info;

    info = kt_reason((int) reason);

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

    if (f->reset_s > 0) {
        v.data = buf;
        v.len = ngx_sprintf(buf, "%L", f->reset_s) - buf;

        if (ngx_http_keytoll_copy_header(r, "x-keytoll-reset", &v) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    retry_s = 0;

    if (info->status == 429) {
        retry_s = f->retry_ms > 0 ? (f->retry_ms + 999) / 1000 : 60;

    } else if (info->status == 503) {
        retry_s = 1;
    }

    if (retry_s) {
        v.data = buf;
        v.len = ngx_sprintf(buf, "%L", retry_s) - buf;

        if (ngx_http_keytoll_copy_header(r, "Retry-After", &v) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (reason == KT_RPM || reason == KT_TPM || reason == KT_PARALLEL) {

        if (reason == KT_RPM) {
            ngx_str_set(&v, "requests");

        } else if (reason == KT_TPM) {
            ngx_str_set(&v, "tokens");

        } else {
            ngx_str_set(&v, "max_parallel_requests");
        }

        if (ngx_http_keytoll_set_header(r, "rate_limit_type", &v) != NGX_OK) {
            return NGX_ERROR;
        }

        v.data = buf;
        v.len = ngx_http_keytoll_stamp(buf, f->now_ms + retry_s * 1000) - buf;

        return ngx_http_keytoll_copy_header(r, "reset_at", &v);
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
