
/*
 * What an answer tells the client about its key: ids, limits and what is left
 * of them (litellm-api 11.6).
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_RATES  48      /* six integers, as kt_admit says    */


typedef struct {
    ngx_str_t                      kind;        /* of the entity's name      */
    char                          *header[6];
} ngx_http_keytoll_rate_names_t;


#define ngx_http_keytoll_names(kind, descriptor)                             \
    { ngx_string(kind),                                                      \
      { "x-ratelimit-" descriptor "-limit-requests",                         \
        "x-ratelimit-" descriptor "-remaining-requests",                     \
        "x-ratelimit-" descriptor "-limit-tokens",                           \
        "x-ratelimit-" descriptor "-remaining-tokens",                       \
        "x-ratelimit-" descriptor "-limit-max_parallel_requests",            \
        "x-ratelimit-" descriptor "-remaining-max_parallel_requests" } }


static ngx_http_keytoll_rate_names_t  ngx_http_keytoll_rate_names[] = {
    ngx_http_keytoll_names("key", "api_key"),
    ngx_http_keytoll_names("user", "user"),
    ngx_http_keytoll_names("team", "team"),
    ngx_http_keytoll_names("member", "team_member"),
    ngx_http_keytoll_names("org", "organization"),
    ngx_http_keytoll_names("customer", "end_user"),
    ngx_http_keytoll_names("tag", "tag"),
    ngx_http_keytoll_names("global", "global"),
    ngx_http_keytoll_names("key~", "model_per_key"),
    ngx_http_keytoll_names("team~", "model_per_team"),
    ngx_http_keytoll_names("user~", "model_per_user"),
    ngx_http_keytoll_names("org~", "model_per_organization"),
    { ngx_null_string, { NULL } }
};


static ngx_int_t ngx_http_keytoll_rate_headers(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static ngx_int_t ngx_http_keytoll_rate_line(ngx_http_request_t *r,
    u_char *line, u_char *end, int64_t *rates);
static void ngx_http_keytoll_rates_then(int64_t *rates, ngx_uint_t bits,
    ngx_http_keytoll_after_t *after);


/* Before the header is sent; NGX_ERROR without memory. */

ngx_int_t
ngx_http_keytoll_headers(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    ngx_str_t  v;

    v.data = ctx->rid;
    v.len = KT_RID_LEN;

    if (ngx_http_keytoll_set_header(r, "x-litellm-call-id", &v) != NGX_OK
        || ngx_http_keytoll_set_header(r, "x-keytoll-request-id", &v)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_keytoll_rate_headers(r, ctx);
}


/*
 * Six integers for each line of the receipt that has a rate bit; the first
 * line is the receipt's own, the bits end a line.
 */

static ngx_int_t
ngx_http_keytoll_rate_headers(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx)
{
    u_char      *p, *last, *end, *bits;
    int64_t      n[6];
    ngx_str_t    rates;
    ngx_uint_t   is;

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

            if (ngx_http_keytoll_rate_line(r, p, end, n) != NGX_OK) {
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


static ngx_int_t
ngx_http_keytoll_rate_line(ngx_http_request_t *r, u_char *line, u_char *end,
    int64_t *rates)
{
    u_char                         *p, kind[16];
    size_t                          len;
    ngx_str_t                       v;
    ngx_uint_t                      i;
    ngx_http_keytoll_rate_names_t  *names;

    for (p = line; p < end && *p != ':' && *p != '\t'; p++) { /* void */ }

    len = ngx_min((size_t) (p - line), sizeof(kind) - 1);
    ngx_memcpy(kind, line, len);

    /* "key:<token>~m~<model>": a model of this level */

    if (ngx_strlchr(p, end, '~')) {
        kind[len++] = '~';
    }

    for (names = ngx_http_keytoll_rate_names; names->kind.len; names++) {
        if (names->kind.len == len
            && ngx_strncmp(names->kind.data, kind, len) == 0)
        {
            break;
        }
    }

    if (names->kind.len == 0) {
        return NGX_OK;
    }

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

        if (ngx_http_keytoll_set_header(r, names->header[i], &v) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}
