
/*
 * The virtual key: where a request may carry it (litellm-api 11.1), its shape,
 * and how it is taken out again before anything is sent upstream.
 */


#include "ngx_http_keytoll_module.h"


typedef struct {
    ngx_str_t                      name;
    ngx_uint_t                     bearer;      /* a scheme is required      */
} ngx_http_keytoll_source_t;


/* In the order of precedence; x-litellm-api-key wins over all others. */

static ngx_http_keytoll_source_t  ngx_http_keytoll_sources[] = {
    { ngx_string("x-litellm-api-key"), 0 },
    { ngx_string("authorization"), 1 },
    { ngx_string("api-key"), 0 },
    { ngx_string("x-api-key"), 0 },
    { ngx_string("x-goog-api-key"), 0 },
    { ngx_string("ocp-apim-subscription-key"), 0 }
};

#define NGX_HTTP_KEYTOLL_SOURCES                                              \
    (sizeof(ngx_http_keytoll_sources) / sizeof(ngx_http_keytoll_source_t))


static ngx_int_t ngx_http_keytoll_source_index(ngx_table_elt_t *h);
static ngx_int_t ngx_http_keytoll_scheme(ngx_str_t *value, ngx_uint_t required);
static ngx_uint_t ngx_http_keytoll_takes_gzip(ngx_str_t *value);
static ngx_uint_t ngx_http_keytoll_shape(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_str_t *key);


static ngx_int_t
ngx_http_keytoll_source_index(ngx_table_elt_t *h)
{
    ngx_uint_t                  i;
    ngx_http_keytoll_source_t  *s;

    s = ngx_http_keytoll_sources;

    for (i = 0; i < NGX_HTTP_KEYTOLL_SOURCES; i++) {
        if (h->key.len == s[i].name.len
            && ngx_strncasecmp(h->key.data, s[i].name.data, h->key.len) == 0)
        {
            return i;
        }
    }

    return NGX_DECLINED;
}


/* Returns KT_ADMITTED with ctx->token set, or the reason to refuse. */

ngx_uint_t
ngx_http_keytoll_read_key(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    ngx_int_t         n;
    ngx_str_t         found[NGX_HTTP_KEYTOLL_SOURCES], *key;
    ngx_uint_t        i, malformed;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    ngx_memzero(found, sizeof(found));
    malformed = 0;

    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        n = ngx_http_keytoll_source_index(&h[i]);
        if (n == NGX_DECLINED) {
            continue;
        }

        if (found[n].data
            && (found[n].len != h[i].value.len
                || ngx_memcmp(found[n].data, h[i].value.data, found[n].len)
                   != 0))
        {
            return KT_KEY_CONFLICT;
        }

        found[n] = h[i].value;
    }

    key = NULL;

    for (i = 0; i < NGX_HTTP_KEYTOLL_SOURCES; i++) {

        if (found[i].data == NULL) {
            continue;
        }

        if (ngx_http_keytoll_scheme(&found[i],
                                    ngx_http_keytoll_sources[i].bearer)
            != NGX_OK
            || found[i].len == 0)
        {
            malformed = 1;
            ngx_str_null(&found[i]);
            continue;
        }

        if (key == NULL) {
            key = &found[i];

            if (i == 0) {
                break;
            }

            continue;
        }

        if (key->len != found[i].len
            || CRYPTO_memcmp(key->data, found[i].data, key->len) != 0)
        {
            return KT_KEY_CONFLICT;
        }
    }

    if (key == NULL) {
        return malformed ? KT_KEY_MALFORMED : KT_KEY_MISSING;
    }

    return ngx_http_keytoll_shape(r, ctx, key);
}


/* Takes "Bearer " or "Basic " off; case-insensitive as RFC 7235 has it. */

static ngx_int_t
ngx_http_keytoll_scheme(ngx_str_t *value, ngx_uint_t required)
{
    size_t  n;

    if (value->len >= 7
        && ngx_strncasecmp(value->data, (u_char *) "bearer ", 7) == 0)
    {
        n = 7;

    } else if (value->len >= 6
               && ngx_strncasecmp(value->data, (u_char *) "basic ", 6) == 0)
    {
        n = 6;

    } else {
        return required ? NGX_ERROR : NGX_OK;
    }

    while (n < value->len && value->data[n] == ' ') {
        n++;
    }

    value->data += n;
    value->len -= n;

    return NGX_OK;
}


static ngx_uint_t
ngx_http_keytoll_shape(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx,
    ngx_str_t *key)
{
    size_t           i;
    u_char          *p;
    kt_key_kind_t    kind;

    if (key->len < 3 || ngx_strncmp(key->data, "sk-", 3) != 0
        || key->len > KT_KEY_FOREIGN_MAX)
    {
        return KT_KEY_SHAPE;
    }

    for (i = 0; i < key->len; i++) {
        if (key->data[i] <= 0x20 || key->data[i] >= 0x7f) {
            return KT_KEY_SHAPE;
        }
    }

    /* "sk-..." and the last four, unless those are most of the key */

    p = ngx_pnalloc(r->pool, sizeof("sk-...abcd"));
    if (p == NULL) {
        return KT_INTERNAL;
    }

    ctx->key_name.data = p;
    p = ngx_cpymem(p, "sk-...", 6);

    if (key->len >= 12) {
        p = ngx_cpymem(p, key->data + key->len - 4, 4);
    }

    ctx->key_name.len = p - ctx->key_name.data;

    kt_key_token((char *) key->data, key->len, (char *) ctx->token);

    if (ctx->token[0] == '\0') {
        return KT_INTERNAL;
    }

    kind = kt_key_check((char *) key->data, key->len);

    /* a wrong checksum never existed: no need to ask Redis */

    return kind == KT_KEY_BAD ? KT_KEY_UNKNOWN : KT_ADMITTED;
}


/*
 * Proxying copies every request header but those in its hash of known names;
 * "Keep-Alive" is in that hash of every proxying module, so a header renamed
 * to it stays behind.  Removing elements would move others that
 * r->headers_in points to.  Accept-Encoding stays behind as well, but see
 * ngx_http_keytoll_accept_gzip().
 */

void
ngx_http_keytoll_strip_headers(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (ngx_http_keytoll_source_index(&h[i]) != NGX_DECLINED) {
            ngx_str_null(&h[i].value);

        } else if (h[i].key.len != sizeof("accept-encoding") - 1
                   || ngx_strncasecmp(h[i].key.data,
                                      (u_char *) "accept-encoding",
                                      h[i].key.len)
                      != 0)
        {
            continue;

        } else if (ngx_http_keytoll_takes_gzip(&h[i].value)) {
            ctx->accept = &h[i];
        }

        ngx_str_set(&h[i].key, "Keep-Alive");
        h[i].lowcase_key = (u_char *) "keep-alive";
        h[i].hash = ngx_hash_key((u_char *) "keep-alive",
                                 sizeof("keep-alive") - 1);
    }

    r->headers_in.authorization = NULL;
}


/* Asks the provider for what the client takes and we can read: gzip. */

void
ngx_http_keytoll_accept_gzip(ngx_http_keytoll_ctx_t *ctx)
{
    ngx_table_elt_t  *h;

    h = ctx->accept;

    if (h == NULL) {
        return;
    }

    ngx_str_set(&h->key, "Accept-Encoding");
    ngx_str_set(&h->value, "gzip");
    h->lowcase_key = (u_char *) "accept-encoding";
    h->hash = ngx_hash_key((u_char *) "accept-encoding",
                           sizeof("accept-encoding") - 1);
}


/* A member "gzip" without parameters, or with "q=1". */

static ngx_uint_t
ngx_http_keytoll_takes_gzip(ngx_str_t *value)
{
    u_char  *p, *last, *end;

    last = value->data + value->len;

    for (p = value->data; p < last; p = end + 1) {

        end = ngx_strlchr(p, last, ',');
        if (end == NULL) {
            end = last;
        }

        while (p < end && *p == ' ') {
            p++;
        }

        if (end - p < 4 || ngx_strncasecmp(p, (u_char *) "gzip", 4) != 0) {
            continue;
        }

        for (p += 4; p < end && *p == ' '; p++) { /* void */ }

        if (p == end
            || (end - p >= 4 && ngx_strncmp(p, ";q=1", 4) == 0))
        {
            return 1;
        }
    }

    return 0;
}


static ngx_uint_t
ngx_http_keytoll_mask(ngx_str_t *s)
{
    size_t      i, n;
    ngx_uint_t  found;

    found = 0;

    for (i = 0; i < s->len; i++) {

        if (i && s->data[i - 1] != '?' && s->data[i - 1] != '&') {
            continue;
        }

        n = s->len - i;

        if (n > 4 && ngx_strncasecmp(s->data + i, (u_char *) "key=", 4) == 0) {
            i += 4;

        } else if (n > 8 && ngx_strncasecmp(s->data + i, (u_char *) "api_key=",
                                            8)
                            == 0)
        {
            i += 8;

        } else {
            continue;
        }

        for (found = 1; i < s->len && s->data[i] != '&' && s->data[i] != ' ';
             i++)
        {
            s->data[i] = '*';
        }
    }

    return found;
}


/*
 * Keys in the URL end in logs: masks every one of them, in each copy of the
 * URL.  Returns 1 when there was one.
 */

ngx_uint_t
ngx_http_keytoll_mask_url(ngx_http_request_t *r)
{
    ngx_uint_t  found;

    found = ngx_http_keytoll_mask(&r->args);

    found |= ngx_http_keytoll_mask(&r->request_line);
    found |= ngx_http_keytoll_mask(&r->unparsed_uri);

    return found;
}
