
/*
 * What an answer tells the client about its key: ids, limits and what is left
 * of them (litellm-api 11.6).
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_RATES  48      /* six integers, as kt_admit says    */


typedef struct {
    ngx_str_t                      kind;        /* of the entity's name      */
    ngx_str_t                      descriptor;
    ngx_str_t                      header[6];
} ngx_http_keytoll_rate_names_t;


#define ngx_http_keytoll_names(kind, descriptor)                             \
    { ngx_string(kind),                                                      \
      ngx_string(descriptor),                                                \
      { ngx_string("x-ratelimit-" descriptor "-limit-requests"),             \
        ngx_string("x-ratelimit-" descriptor "-remaining-requests"),         \
        ngx_string("x-ratelimit-" descriptor "-limit-tokens"),               \
        ngx_string("x-ratelimit-" descriptor "-remaining-tokens"),           \
        ngx_string("x-ratelimit-" descriptor                                 \
                   "-limit-max_parallel_requests"),                          \
        ngx_string("x-ratelimit-" descriptor                                 \
                   "-remaining-max_parallel_requests") } }


static ngx_http_keytoll_rate_names_t  ngx_http_keytoll_rate_names[] = {
    ngx_http_keytoll_names("key", "api_key"),
    ngx_http_keytoll_names("user", "user"),
    ngx_http_keytoll_names("team", "team"),
    ngx_http_keytoll_names("member", "team_member"),
    ngx_http_keytoll_names("org", "organization"),
    ngx_http_keytoll_names("orgmember", "organization_member"),
    ngx_http_keytoll_names("customer", "end_user"),
    ngx_http_keytoll_names("tag", "tag"),
    ngx_http_keytoll_names("global", "global"),
    ngx_http_keytoll_names("key~", "model_per_key"),
    ngx_http_keytoll_names("team~", "model_per_team"),
    ngx_http_keytoll_names("user~", "model_per_user"),
    ngx_http_keytoll_names("member~", "model_per_team_member"),
    ngx_http_keytoll_names("org~", "model_per_organization"),
    ngx_http_keytoll_names("orgmember~", "model_per_organization_member"),
    ngx_http_keytoll_names("customer~", "model_per_end_user"),
    ngx_http_keytoll_names("tag~", "model_per_tag"),
    { ngx_null_string, ngx_null_string, { ngx_null_string } }
};


/*
 * Names that only we may say, those that end with a dash and all that begin
 * so; the others are of ngx_http_keytoll_rate_names.
 */

static ngx_str_t  ngx_http_keytoll_our_names[] = {
    ngx_string("x-keytoll-"),
    ngx_string("x-litellm-key-"),
    ngx_string("x-litellm-response-cost-"),
    ngx_string("x-litellm-response-cost"),
    ngx_string("x-litellm-call-id"),
    ngx_string("x-litellm-version"),
    ngx_string("x-litellm-model-group"),
    ngx_string("x-litellm-model-id"),
    ngx_null_string
};


/* In the order of kt_compat_t. */

static ngx_str_t  ngx_http_keytoll_versions[] = {
    ngx_string("1.104.0"),
    ngx_string("1.96.0"),
    ngx_string("1.81.0")
};


static ngx_int_t ngx_http_keytoll_version(ngx_http_request_t *r);
static void ngx_http_keytoll_clear_headers(ngx_list_t *list);
static ngx_uint_t ngx_http_keytoll_is_ours(ngx_str_t *name);
static ngx_int_t ngx_http_keytoll_usd_value(ngx_http_request_t *r,
    ngx_str_t *nusd, ngx_str_t *out);
static ngx_int_t ngx_http_keytoll_told_line(ngx_http_request_t *r,
    ngx_uint_t reason, ngx_http_keytoll_refusal_t *f, ngx_str_t *line,
    ngx_str_t *rest);
static void ngx_http_keytoll_cut(ngx_str_t *s, u_char c, ngx_str_t *out);
static ngx_http_keytoll_rate_names_t *ngx_http_keytoll_rate_find(u_char *kind,
    size_t len, ngx_uint_t part);
static ngx_int_t ngx_http_keytoll_rate_headers(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static ngx_http_keytoll_rate_names_t *ngx_http_keytoll_rate_of(u_char *line,
    u_char *end);
static ngx_int_t ngx_http_keytoll_rate_line(ngx_http_request_t *r,
    ngx_http_keytoll_rate_names_t *names, int64_t *rates);
static void ngx_http_keytoll_rates_then(int64_t *rates, ngx_uint_t bits,
    ngx_http_keytoll_after_t *after);


/* Before the header is sent; NGX_ERROR without memory. */

ngx_int_t
ngx_http_keytoll_headers(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    ngx_str_t  v;

    ngx_http_keytoll_clear_headers(&r->headers_out.headers);

    v.data = ctx->rid;
    v.len = KT_RID_LEN;

    if (ngx_http_keytoll_set_header(r, "x-litellm-call-id", &v) != NGX_OK
        || ngx_http_keytoll_set_header(r, "x-keytoll-request-id", &v)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_http_keytoll_version(r) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ctx->model.len
        && ngx_http_keytoll_set_header(r, "x-litellm-model-group",
                                       &ctx->model)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ctx->model_id.len
        && ngx_http_keytoll_set_header(r, "x-litellm-model-id",
                                       &ctx->model_id)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ctx->clamp) {
        v.data = ngx_pnalloc(r->pool, NGX_INT64_LEN);
        if (v.data == NULL) {
            return NGX_ERROR;
        }

        v.len = ngx_sprintf(v.data, "%L", ctx->clamp) - v.data;

        if (ngx_http_keytoll_set_header(r, "x-keytoll-max-tokens", &v)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (ctx->key_limit.len
        && (ngx_http_keytoll_usd_value(r, &ctx->key_limit, &v) != NGX_OK
            || ngx_http_keytoll_set_header(r, "x-litellm-key-max-budget", &v)
               != NGX_OK))
    {
        return NGX_ERROR;
    }

    return ngx_http_keytoll_rate_headers(r, ctx);
}


static ngx_int_t
ngx_http_keytoll_version(ngx_http_request_t *r)
{
    ngx_http_keytoll_loc_conf_t  *klcf;

    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);

    return ngx_http_keytoll_set_header(r, "x-litellm-version",
                                     &ngx_http_keytoll_versions[klcf->compat]);
}


/* A provider that is a gate itself speaks of its own keys and costs. */

static void
ngx_http_keytoll_clear_headers(ngx_list_t *list)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &list->part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (ngx_http_keytoll_is_ours(&h[i].key)) {
            h[i].hash = 0;
        }
    }
}


static ngx_uint_t
ngx_http_keytoll_is_ours(ngx_str_t *name)
{
    size_t                          len;
    ngx_str_t                      *ours;
    ngx_uint_t                      i;
    ngx_http_keytoll_rate_names_t  *names;

    if (name->len < 10 || (name->data[0] | 0x20) != 'x') {
        return 0;
    }

    for (ours = ngx_http_keytoll_our_names; ours->len; ours++) {
        len = ours->len;

        if ((len == name->len
             || (len < name->len && ours->data[len - 1] == '-'))
            && ngx_strncasecmp(ours->data, name->data, len) == 0)
        {
            return 1;
        }
    }

    if (name->len < 12
        || ngx_strncasecmp(name->data, (u_char *) "x-ratelimit-", 12) != 0)
    {
        return 0;
    }

    for (names = ngx_http_keytoll_rate_names; names->kind.len; names++) {
        for (i = 0; i < 6; i++) {
            ours = &names->header[i];

            if (ours->len == name->len
                && ngx_strncasecmp(ours->data, name->data, name->len) == 0)
            {
                return 1;
            }
        }
    }

    return 0;
}


static ngx_int_t
ngx_http_keytoll_usd_value(ngx_http_request_t *r, ngx_str_t *nusd,
    ngx_str_t *out)
{
    out->data = ngx_pnalloc(r->pool, NGX_INT64_LEN + 8);
    if (out->data == NULL) {
        return NGX_ERROR;
    }

    out->len = ngx_http_keytoll_usd(out->data, nusd) - out->data;

    return NGX_OK;
}


/*
 * What the request cost and, with it, the key has spent: in the header when
 * the answer is known by then, else in its trailers.  Not known yet: the
 * spend before this request only.
 */

ngx_int_t
ngx_http_keytoll_cost_headers(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_list_t *list)
{
    u_char     buf[NGX_INT64_LEN];
    int64_t    spend;
    ngx_str_t  nusd, v;

    if (list == &r->headers_out.trailers) {
        ngx_http_keytoll_clear_headers(list);
    }

    if (ctx->state == NGX_HTTP_KEYTOLL_SETTLED) {
        nusd.data = buf;
        nusd.len = ngx_sprintf(buf, "%L", ctx->cost_nusd) - buf;

        if (ngx_http_keytoll_usd_value(r, &nusd, &v) != NGX_OK
            || ngx_http_keytoll_push_header(list,
                                            "x-litellm-response-cost",
                                            sizeof("x-litellm-response-cost")
                                            - 1, &v)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (ctx->key_spend.len == 0) {
        return NGX_OK;
    }

    nusd = ctx->key_spend;
    spend = ngx_atoof(nusd.data, nusd.len);

    if (ctx->state == NGX_HTTP_KEYTOLL_SETTLED && spend >= 0
        && spend <= NGX_MAX_OFF_T_VALUE - ctx->cost_nusd)
    {
        nusd.data = buf;
        nusd.len = ngx_sprintf(buf, "%L", spend + ctx->cost_nusd) - buf;
    }

    if (ngx_http_keytoll_usd_value(r, &nusd, &v) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_keytoll_push_header(list, "x-litellm-key-spend",
                                        sizeof("x-litellm-key-spend") - 1,
                                        &v);
}


/*
 * Of a refusal: the version, the budget and the spend of the key, and the rate
 * limits of all levels as on an answer.  A refusal of shared memory knows what
 * is left of the limit that refused, no others.
 */

ngx_int_t
ngx_http_keytoll_told(ngx_http_request_t *r, ngx_uint_t reason,
    ngx_http_keytoll_refusal_t *f)
{
    ngx_str_t  limits, left, budget, spend, line, rest, v;

    if (ngx_http_keytoll_version(r) != NGX_OK) {
        return NGX_ERROR;
    }

    limits = f->limits;
    left = f->left;

    ngx_http_keytoll_cut(&limits, LF, &budget);
    ngx_http_keytoll_cut(&left, LF, &spend);

    if (spend.len == 0 && reason == KT_BUDGET_EXCEEDED && f->sort == 0
        && ngx_http_keytoll_is(&f->kind, "key"))
    {
        spend = f->used;
    }

    if (budget.len
        && (ngx_http_keytoll_usd_value(r, &budget, &v) != NGX_OK
            || ngx_http_keytoll_set_header(r, "x-litellm-key-max-budget", &v)
               != NGX_OK))
    {
        return NGX_ERROR;
    }

    if (spend.len
        && (ngx_http_keytoll_usd_value(r, &spend, &v) != NGX_OK
            || ngx_http_keytoll_set_header(r, "x-litellm-key-spend", &v)
               != NGX_OK))
    {
        return NGX_ERROR;
    }

    while (limits.len) {
        ngx_http_keytoll_cut(&limits, LF, &line);
        ngx_http_keytoll_cut(&left, LF, &rest);

        if (ngx_http_keytoll_told_line(r, reason, f, &line, &rest) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* line: level and limits, rest: what is left of them, by tab. */

static ngx_int_t
ngx_http_keytoll_told_line(ngx_http_request_t *r, ngx_uint_t reason,
    ngx_http_keytoll_refusal_t *f, ngx_str_t *line, ngx_str_t *rest)
{
    int64_t                         n[6];
    ngx_str_t                       v;
    ngx_uint_t                      i, known;
    ngx_http_keytoll_rate_names_t  *names;

    known = rest->len != 0;
    names = ngx_http_keytoll_rate_of(line->data, line->data + line->len);

    if (names == NULL) {
        return NGX_OK;
    }

    ngx_http_keytoll_cut(line, '\t', &v);

    for (i = 0; i < 6; i += 2) {
        ngx_http_keytoll_cut(line, '\t', &v);
        n[i] = ngx_atoof(v.data, v.len);

        ngx_http_keytoll_cut(rest, '\t', &v);
        n[i + 1] = ngx_atoof(v.data, v.len);
    }

    if (!known && reason == KT_RPM
        && names == ngx_http_keytoll_rate_find(f->kind.data, f->kind.len,
                                               f->sort == 'm')
        && n[0] == ngx_atoof(f->limit.data, f->limit.len))
    {
        n[1] = 0;
    }

    return ngx_http_keytoll_rate_line(r, names, n);
}


/* What is before the first c, which goes with it; all if there is none. */

static void
ngx_http_keytoll_cut(ngx_str_t *s, u_char c, ngx_str_t *out)
{
    u_char  *p;

    if (s->len == 0) {
        ngx_str_null(out);
        return;
    }

    p = ngx_strlchr(s->data, s->data + s->len, c);

    out->data = s->data;
    out->len = p ? (size_t) (p - s->data) : s->len;

    s->data += p ? out->len + 1 : out->len;
    s->len -= p ? out->len + 1 : out->len;
}


/* The name in LiteLLM's limiter (litellm-api 11.5); NULL: it has none. */

ngx_str_t *
ngx_http_keytoll_descriptor(ngx_http_keytoll_refusal_t *f)
{
    ngx_http_keytoll_rate_names_t  *names;

    names = ngx_http_keytoll_rate_find(f->kind.data, f->kind.len,
                                       f->sort == 'm');

    return names ? &names->descriptor : NULL;
}


/*
 * Six integers for each line of the receipt that has a rate bit; the first
 * line is the receipt's own, the bits end a line.
 */

static ngx_int_t
ngx_http_keytoll_rate_headers(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx)
{
    u_char                         *p, *last, *end, *bits;
    int64_t                         n[6];
    ngx_str_t                       rates;
    ngx_uint_t                      is;
    ngx_http_keytoll_rate_names_t  *names;

    rates = ctx->rates;
    p = ctx->receipt.data;
    last = p + ctx->receipt.len;

    while (rates.len >= NGX_HTTP_KEYTOLL_RATES && p) {
        p = ngx_strlchr(p, last, LF);

        if (p == NULL || ++p == last) {
            break;
        }

        end = ngx_strlchr(p, last, LF);
        if (end == NULL) {
            break;
        }

        for (bits = end; bits > p && bits[-1] != '\t'; bits--) { /* void */ }

        is = ngx_atoi(bits, end - bits);

        if (is & KT_BIT_RATES) {
            ngx_memcpy(n, rates.data, NGX_HTTP_KEYTOLL_RATES);
            ngx_http_keytoll_rates_then(n, is, &ctx->after);

            names = ngx_http_keytoll_rate_of(p, end);

            if (names && ngx_http_keytoll_rate_line(r, names, n) != NGX_OK) {
                return NGX_ERROR;
            }

            rates.data += NGX_HTTP_KEYTOLL_RATES;
            rates.len -= NGX_HTTP_KEYTOLL_RATES;
        }

        p = end;
    }

    return NGX_OK;
}


/* What was left before those were admitted that came behind. */

static void
ngx_http_keytoll_rates_then(int64_t *rates, ngx_uint_t bits,
    ngx_http_keytoll_after_t *after)
{
    int64_t  in, out;

    in = bits & KT_BIT_STRICT ? after->in_bound : after->in_typ;
    out = bits & KT_BIT_STRICT ? after->out_bound : after->out_typ;

    rates[1] += rates[1] >= 0 ? after->n : 0;
    rates[3] += rates[3] < 0 ? 0
                : bits & KT_BIT_IN ? in
                : bits & KT_BIT_OUT ? out : in + out;
    rates[5] += rates[5] >= 0 ? after->n : 0;
}


/* part: "key:<token>~m~<model>", a model of this level. */

static ngx_http_keytoll_rate_names_t *
ngx_http_keytoll_rate_find(u_char *kind, size_t len, ngx_uint_t part)
{
    ngx_http_keytoll_rate_names_t  *names;

    for (names = ngx_http_keytoll_rate_names; names->kind.len; names++) {
        if (names->kind.len == len + part
            && ngx_strncmp(names->kind.data, kind, len) == 0
            && (!part || names->kind.data[len] == '~'))
        {
            return names;
        }
    }

    return NULL;
}


/* A line begins with the entity, or with its kind, and a tab. */

static ngx_http_keytoll_rate_names_t *
ngx_http_keytoll_rate_of(u_char *line, u_char *end)
{
    u_char  *p;

    for (p = line; p < end && *p != ':' && *p != '\t'; p++) { /* void */ }

    return ngx_http_keytoll_rate_find(line, p - line,
                                      ngx_strlchr(p, end, '~') != NULL);
}


/* rates: limit and what is left, thrice; below 0 is not told. */

static ngx_int_t
ngx_http_keytoll_rate_line(ngx_http_request_t *r,
    ngx_http_keytoll_rate_names_t *names, int64_t *rates)
{
    u_char      *p;
    ngx_str_t    v;
    ngx_uint_t   i;

    p = ngx_pnalloc(r->pool, 6 * NGX_INT64_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < 6; i++) {

        if (rates[i] < 0) {
            continue;
        }

        v.data = p;
        p = ngx_sprintf(p, "%L", rates[i]);
        v.len = p - v.data;

        if (ngx_http_keytoll_push_header(&r->headers_out.headers,
                                         (char *) names->header[i].data,
                                         names->header[i].len, &v)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        /* the key's own limits, by their older names too */

        if (names != ngx_http_keytoll_rate_names) {
            continue;
        }

        if ((i == 0 && ngx_http_keytoll_set_header(r,
                                                   "x-litellm-key-rpm-limit",
                                                   &v)
                       != NGX_OK)
            || (i == 2 && ngx_http_keytoll_set_header(r,
                                                   "x-litellm-key-tpm-limit",
                                                   &v)
                          != NGX_OK))
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}
