
/*
 * What a refusal says, in LiteLLM's words (litellm-api 11.2): clients in
 * production look for them.
 */


#include "ngx_http_keytoll_module.h"


ngx_uint_t
ngx_http_keytoll_is(ngx_str_t *s, const char *name)
{
    return s->len == ngx_strlen(name)
           && ngx_strncmp(s->data, name, s->len) == 0;
}


/* nano-USD as text to dollars: "12345" is 0.000012345. */

u_char *
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


u_char *
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
    last = models->len ? m + models->len : m;

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


/* Of "<team>/<user>" both, the user returned; of other ids all of it. */

static ngx_str_t
ngx_http_keytoll_member(ngx_http_keytoll_ctx_t *ctx,
    ngx_http_keytoll_refusal_t *f, ngx_str_t *of)
{
    u_char     *slash;
    ngx_str_t   first, user;

    first = f->id;
    ngx_str_null(&user);

    slash = ngx_http_keytoll_is(&f->kind, "member")
            || ngx_http_keytoll_is(&f->kind, "orgmember")
            ? ngx_strlchr(f->id.data, f->id.data + f->id.len, '/') : NULL;

    if (slash) {
        first.len = slash - f->id.data;
        user.data = slash + 1;
        user.len = f->id.len - first.len - 1;
        user = ngx_http_keytoll_plain_id(ctx->request, &user);
    }

    *of = ngx_http_keytoll_plain_id(ctx->request, &first);

    return user;
}


/* "Team=T", in the words of LiteLLM. */

static u_char *
ngx_http_keytoll_who(u_char *p, ngx_http_keytoll_ctx_t *ctx,
    ngx_http_keytoll_refusal_t *f)
{
    ngx_str_t  id, user;

    if (ngx_http_keytoll_is(&f->kind, "key")) {
        return f->alias.len ? ngx_sprintf(p, "Key=%V (%V)", &f->alias,
                                          &ctx->key_name)
                            : ngx_sprintf(p, "Key=%V", &ctx->key_name);
    }

    user = ngx_http_keytoll_member(ctx, f, &id);

    if (user.len) {
        return ngx_sprintf(p, "User=%V in %s=%V", &user,
                           ngx_http_keytoll_is(&f->kind, "member")
                           ? "Team" : "Organization", &id);
    }

    /* LiteLLM keeps the budget of everything at a user of this name */

    if (ngx_http_keytoll_is(&f->kind, "global")) {
        return ngx_sprintf(p, "User=default_user_id");
    }

    return ngx_sprintf(p, "%s=%V",
                       ngx_http_keytoll_is(&f->kind, "team") ? "Team"
                       : ngx_http_keytoll_is(&f->kind, "org") ? "Organization"
                       : ngx_http_keytoll_is(&f->kind, "tag") ? "Tag"
                       : ngx_http_keytoll_is(&f->kind, "customer") ? "End User"
                       : "User", &id);
}


static u_char *
ngx_http_keytoll_amounts(u_char *p, ngx_http_keytoll_refusal_t *f,
    char *cost, char *max)
{
    p = ngx_sprintf(p, "%s", cost);
    p = ngx_http_keytoll_usd(p, &f->used);
    p = ngx_sprintf(p, "%s", max);

    return ngx_http_keytoll_usd(p, &f->limit);
}


static u_char *
ngx_http_keytoll_budget_text(u_char *p, ngx_http_keytoll_ctx_t *ctx,
    ngx_http_keytoll_refusal_t *f)
{
    ngx_str_t                     part;
    ngx_http_keytoll_loc_conf_t  *klcf;

    klcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_keytoll_module);

    part = ngx_http_keytoll_plain_id(ctx->request, &f->part);

    if (f->sort == 'm') {
        p = ngx_http_keytoll_is(&f->kind, "key")
            ? ngx_sprintf(p, "LiteLLM Virtual Key: %V, key_alias: %V",
                          &f->id, &f->alias)
            : ngx_http_keytoll_who(p, ctx, f);

        p = ngx_sprintf(p, ", exceeded budget for model=%V. ", &part);

        return ngx_http_keytoll_amounts(p, f, "Current cost: ",
                                        ", Max budget: ");
    }

    if (ngx_http_keytoll_is(&f->kind, "user")
        || ngx_http_keytoll_is(&f->kind, "customer")
        || (klcf->compat == KT_COMPAT_1_104
            && ngx_http_keytoll_is(&f->kind, "global")))
    {
        p = ngx_sprintf(p, "ExceededBudget: ");
        p = ngx_http_keytoll_who(p, ctx, f);
        p = part.len ? ngx_sprintf(p, " over %V budget", &part)
                     : ngx_sprintf(p, " over budget");

        return ngx_http_keytoll_amounts(p, f, ". Spend=", ", Budget=");
    }

    p = ngx_sprintf(p, "Budget has been exceeded! ");

    if (part.len) {
        p = ngx_http_keytoll_who(p, ctx, f);
        p = ngx_sprintf(p, " over %V budget. ", &part);

    } else if (!ngx_http_keytoll_is(&f->kind, "global")
               && (klcf->compat != KT_COMPAT_1_81
                   || !ngx_http_keytoll_is(&f->kind, "key")))
    {
        p = ngx_http_keytoll_who(p, ctx, f);
        *p++ = ' ';
    }

    return ngx_http_keytoll_amounts(p, f, "Current cost: ", ", Max budget: ");
}


/* "team_member: t:u", "model_per_key: <hash>:m" (litellm-api 11.5). */

static u_char *
ngx_http_keytoll_limited(u_char *p, ngx_http_keytoll_ctx_t *ctx,
    ngx_http_keytoll_refusal_t *f)
{
    ngx_str_t  *name, id, user, part;

    name = ngx_http_keytoll_descriptor(f);

    p = ngx_sprintf(p, "%V", name ? name : &f->kind);

    if (f->id.len == 0) {
        return p;
    }

    user = ngx_http_keytoll_member(ctx, f, &id);
    part = ngx_http_keytoll_plain_id(ctx->request, &f->part);

    p = ngx_sprintf(p, ": %V", &id);

    if (user.len) {
        p = ngx_sprintf(p, ":%V", &user);
    }

    return f->sort == 'm' ? ngx_sprintf(p, ":%V", &part) : p;
}


static u_char *
ngx_http_keytoll_rate_text(u_char *p, ngx_http_keytoll_ctx_t *ctx,
    ngx_uint_t reason, ngx_http_keytoll_refusal_t *f)
{
    int64_t  left;

    left = ngx_atoof(f->limit.data, f->limit.len)
           - ngx_atoof(f->used.data, f->used.len);

    p = ngx_sprintf(p, "Rate limit exceeded for ");
    p = ngx_http_keytoll_limited(p, ctx, f);
    p = ngx_sprintf(p, ". Limit type: %s. Current limit: %V, Remaining: %L. "
                    "Limit resets at: ",
                    reason == KT_RPM ? "requests"
                    : reason == KT_TPM ? "tokens" : "max_parallel_requests",
                    &f->limit, left > 0 ? left : 0);

    return ngx_http_keytoll_stamp(p, f->now_ms + f->retry_s * 1000);
}


/* A key that is none of ours: its first and last four characters. */

static u_char *
ngx_http_keytoll_masked(u_char *p, ngx_http_keytoll_ctx_t *ctx)
{
    return ctx->key_name.len ? ngx_sprintf(p, "%V", &ctx->key_name)
                             : ngx_sprintf(p, "****");
}


/* Whose list of models it is. */

static ngx_str_t
ngx_http_keytoll_denier(ngx_uint_t reason, ngx_http_keytoll_refusal_t *f)
{
    ngx_str_t  who;

    ngx_str_set(&who, "team");

    if (reason == KT_KEY_MODEL) {
        ngx_str_set(&who, "key");

    } else if (ngx_http_keytoll_is(&f->kind, "user")
               || ngx_http_keytoll_is(&f->kind, "org"))
    {
        who = f->kind;

    } else if (ngx_http_keytoll_is(&f->kind, "member")) {
        ngx_str_set(&who, "team member");
    }

    return who;
}


/* Long inputs are cut so that the text fits NGX_HTTP_KEYTOLL_TEXT. */

u_char *
ngx_http_keytoll_message(u_char *p, ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_uint_t reason,
    ngx_http_keytoll_refusal_t *f)
{
    u_char     *end;
    ngx_str_t   id, who;

    end = p + NGX_HTTP_KEYTOLL_TEXT - 8192;

    switch (reason) {

    case KT_KEY_MISSING:
        return ngx_sprintf(p, "Authentication Error, No api key passed in.");

    case KT_KEY_MALFORMED:
        return ngx_sprintf(p, "Authentication Error, Malformed API Key passed "
                           "in. Ensure Key has `Bearer ` prefix.");

    case KT_KEY_SHAPE:
        p = ngx_sprintf(p, "Authentication Error, LiteLLM Virtual Key "
                        "expected. Received=");
        p = ngx_http_keytoll_masked(p, ctx);
        return ngx_sprintf(p, ", expected to start with 'sk-'.");

    case KT_KEY_UNKNOWN:
        return ngx_sprintf(p, "Authentication Error, Invalid proxy server "
                           "token passed. Received API Key = %V, Key Hash "
                           "(Token) =%*s. Unable to find token in cache or "
                           "`LiteLLM_VerificationTokenTable`", &ctx->key_name,
                           (size_t) KT_KEY_TOKEN_LEN, ctx->token);

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

        who = ngx_http_keytoll_denier(reason, f);

        if (ngx_http_keytoll_is(&f->kind, "user")
            && ngx_http_keytoll_is(&f->models, "no-default-models"))
        {
            return ngx_sprintf(p, "User not allowed to access model. No "
                               "default model access, only team models "
                               "allowed. Tried to access %V", &ctx->model);
        }

        p = ngx_sprintf(p, "%V not allowed to access model. This %V can only "
                        "access models=", &who, &who);
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
        p = ngx_sprintf(p, "Virtual key is not allowed to call this route. "
                        "Only allowed to call routes: ");
        p = ngx_http_keytoll_list(p, end, &f->models);
        return ngx_sprintf(p, ". Tried to call route: %*s",
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

    case KT_BODY_AWAY:
        return ngx_sprintf(p, "Authentication Error, Rejected Request: %s is "
                           "not allowed in request body. Enable with "
                           "`general_settings::"
                           "allow_client_side_credentials`, here: "
                           "keytoll_client_credentials on.", ctx->why);

    case KT_USER_MISSING:
        return ngx_sprintf(p, "Authentication Error, 'user' param not passed "
                           "in. 'enforce_user_param'=True");

    case KT_TAGS_DENIED:
        return ngx_sprintf(p, "Client-side 'metadata.tags' not allowed in "
                           "request. 'reject_clientside_metadata_tags'=True. "
                           "Tags can only be set via API key metadata.");

    case KT_PARAM_MISSING:
        return ngx_sprintf(p, "BadRequest please pass param=%s in request "
                           "body. This is a required param", ctx->why);

    case KT_BODY_TOO_LARGE:
        return ngx_sprintf(p, "Request size is too large, see "
                           "\"keytoll_max_body\".");

    case KT_BODY_ENCODED:
        return ngx_sprintf(p, "The encoding of the request is not supported. "
                           "Send the body without Content-Encoding and in "
                           "UTF-8.");

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
