
/*
 * Headers that change how the provider reads the body, or what the request is.
 */


#include "ngx_http_keytoll_module.h"


static ngx_uint_t ngx_http_keytoll_type(ngx_http_keytoll_ctx_t *ctx,
    ngx_table_elt_t *h);
static ngx_uint_t ngx_http_keytoll_is_websocket(ngx_http_request_t *r,
    ngx_table_elt_t *h);
static ngx_uint_t ngx_http_keytoll_upgrade(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_table_elt_t *h, ngx_uint_t connection);


static ngx_uint_t
ngx_http_keytoll_is_header(ngx_table_elt_t *h, char *name, size_t len)
{
    return h->key.len == len
           && ngx_strncasecmp(h->key.data, (u_char *) name, len) == 0;
}


/* KT_ADMITTED, or the reason to refuse. */

ngx_uint_t
ngx_http_keytoll_content(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    ngx_uint_t        i, types, reason, connection;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h, *upgrade;

    types = 0;
    connection = 0;
    upgrade = NULL;
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

        reason = KT_ADMITTED;

        if (ngx_http_keytoll_is_header(&h[i], "content-encoding", 16)) {

            if (h[i].value.len != sizeof("identity") - 1
                || ngx_strncasecmp(h[i].value.data, (u_char *) "identity",
                                   h[i].value.len)
                   != 0)
            {
                return KT_BODY_ENCODED;
            }

        } else if (ngx_http_keytoll_is_header(&h[i], "content-type", 12)) {

            if (types++) {
                ctx->why = "two Content-Type headers";
            }

            reason = ngx_http_keytoll_type(ctx, &h[i]);

        } else if (ngx_http_keytoll_is_header(&h[i], "connection", 10)) {

            if (ngx_strlcasestrn(h[i].value.data,
                                 h[i].value.data + h[i].value.len,
                                 (u_char *) "upgrade", 7 - 1))
            {
                connection = 1;
            }

        } else if (ngx_http_keytoll_is_header(&h[i], "upgrade", 7)) {

            if (upgrade) {
                ngx_str_null(&upgrade->value);
            }

            upgrade = &h[i];
        }

        if (reason != KT_ADMITTED) {
            return reason;
        }
    }

    return upgrade ? ngx_http_keytoll_upgrade(r, ctx, upgrade, connection)
                   : KT_ADMITTED;
}


/*
 * curl calls JSON a form unless it is told; a provider that believed it would
 * read another body than we do.
 */

static ngx_uint_t
ngx_http_keytoll_type(ngx_http_keytoll_ctx_t *ctx, ngx_table_elt_t *h)
{
    ctx->type = kt_content_type((char *) h->value.data, h->value.len,
                                ctx->boundary, &ctx->boundary_len);

    if (ctx->type == KT_TYPE_FORM && ctx->class != KT_ROUTE_OTHER) {
        ngx_str_set(&h->value, "application/json");
    }

    return ctx->type == KT_TYPE_CHARSET ? KT_BODY_ENCODED : KT_ADMITTED;
}


/* RFC 6455, 4.1: an upgrade is a GET of HTTP/1.1 without a body. */

static ngx_uint_t
ngx_http_keytoll_is_websocket(ngx_http_request_t *r, ngx_table_elt_t *h)
{
    return r->method == NGX_HTTP_GET
           && r->http_version == NGX_HTTP_VERSION_11
           && !r->headers_in.chunked
           && r->headers_in.content_length_n <= 0
           && h->value.len == sizeof("websocket") - 1
           && ngx_strncasecmp(h->value.data, (u_char *) "websocket",
                              h->value.len)
              == 0;
}


/*
 * Nobody counts what passes once a connection has been upgraded.  A WebSocket
 * is let through where the operator says so; any other protocol is not asked
 * for, and what only looks like an upgrade is the request that it is without
 * the header: its body is read and has its price.
 */

static ngx_uint_t
ngx_http_keytoll_upgrade(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx,
    ngx_table_elt_t *h, ngx_uint_t connection)
{
    ngx_http_keytoll_loc_conf_t  *klcf;

    if (!connection || !ngx_http_keytoll_is_websocket(r, h)) {
        ngx_str_null(&h->value);
        r->headers_in.upgrade = NULL;

        return KT_ADMITTED;
    }

    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);

    if (!klcf->websocket) {
        return KT_ROUTE_DENIED;
    }

    ctx->route.class = KT_ROUTE_REALTIME;
    ctx->class = KT_ROUTE_REALTIME;

    return KT_ADMITTED;
}
