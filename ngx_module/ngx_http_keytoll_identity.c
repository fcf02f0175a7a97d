
/*
 * Who is asking besides the key: the end user and the tags, from headers or
 * from the body, and their names as entities.
 */


#include "ngx_http_keytoll_module.h"


static ngx_table_elt_t *ngx_http_keytoll_header(ngx_http_request_t *r,
    ngx_str_t *name);
static void ngx_http_keytoll_read_customer(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_body_tags(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static void ngx_http_keytoll_header_tags(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
static ngx_int_t ngx_http_keytoll_add_tag(ngx_http_keytoll_ctx_t *ctx,
    u_char *p, size_t len);


static ngx_str_t  ngx_http_keytoll_customer_headers[] = {
    ngx_string("x-litellm-customer-id"),
    ngx_string("x-litellm-end-user-id"),
    ngx_null_string
};


/* Sets ctx->end_user and ctx->tags, or ctx->why if one of them is no name. */

void
ngx_http_keytoll_read_identity(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx)
{
    ngx_http_keytoll_read_customer(r, ctx);

    if (ctx->scan && ctx->why == NULL) {
        ngx_http_keytoll_body_tags(r, ctx);
    }

    if (ctx->why == NULL) {
        ngx_http_keytoll_header_tags(r, ctx);
    }
}


static ngx_table_elt_t *
ngx_http_keytoll_header(ngx_http_request_t *r, ngx_str_t *name)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return NULL;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].key.len == name->len && h[i].value.len
            && ngx_strncasecmp(h[i].key.data, name->data, name->len) == 0)
        {
            return &h[i];
        }
    }
}


/* The headers first, as LiteLLM has it, then what the body says. */

static void
ngx_http_keytoll_read_customer(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx)
{
    ngx_str_t                    *name;
    ngx_table_elt_t              *h;
    ngx_http_keytoll_loc_conf_t  *klcf;

    klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytoll_module);

    h = NULL;

    for (name = ngx_http_keytoll_customer_headers; name->len && h == NULL;
         name++)
    {
        h = ngx_http_keytoll_header(r, name);
    }

    if (h == NULL && klcf->user_header.len) {
        h = ngx_http_keytoll_header(r, &klcf->user_header);
    }

    if (h) {
        if (h->value.len > KT_ID_MAX
            || kt_json_clean((char *) h->value.data, h->value.len) != KT_OK)
        {
            ctx->why = "the end user of the headers is longer than 255 bytes "
                       "or not text";
            return;
        }

        ctx->end_user = h->value;

    } else if (ctx->scan) {
        ctx->end_user.data = (u_char *) ctx->scan->user;
        ctx->end_user.len = ctx->scan->user_len;
    }
}


static void
ngx_http_keytoll_body_tags(ngx_http_request_t *r, ngx_http_keytoll_ctx_t *ctx)
{
    size_t      n;
    u_char     *p;
    ngx_uint_t  i;

    for (i = 0; i < ctx->scan->ntags; i++) {

        p = ngx_pnalloc(r->pool, KT_ID_MAX + 1);

        if (p == NULL
            || kt_reqscan_text(ctx->body, ctx->scan->tags[i], (char *) p,
                               KT_ID_MAX + 1, &n)
               != KT_OK
            || n == 0
            || ngx_http_keytoll_add_tag(ctx, p, n) != NGX_OK)
        {
            ctx->why = "a tag of the body is empty, longer than 255 bytes "
                       "or not text";
            return;
        }
    }
}


/* x-litellm-tags: a, b */

static void
ngx_http_keytoll_header_tags(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx)
{
    u_char           *p, *last, *start, *end;
    ngx_str_t         name;
    ngx_table_elt_t  *h;

    ngx_str_set(&name, "x-litellm-tags");

    h = ngx_http_keytoll_header(r, &name);
    if (h == NULL) {
        return;
    }

    p = h->value.data;
    last = p + h->value.len;

    while (p < last) {
        start = p;

        while (p < last && *p != ',') {
            p++;
        }

        end = p++;

        while (start < end && (*start == ' ' || *start == '\t')) {
            start++;
        }

        while (end > start && (end[-1] == ' ' || end[-1] == '\t')) {
            end--;
        }

        if (end > start
            && ngx_http_keytoll_add_tag(ctx, start, end - start) != NGX_OK)
        {
            ctx->why = "x-litellm-tags has too many tags, one longer than "
                       "255 bytes or not text";
            return;
        }
    }
}


/* A tag that is there already is not added again. */

static ngx_int_t
ngx_http_keytoll_add_tag(ngx_http_keytoll_ctx_t *ctx, u_char *p, size_t len)
{
    ngx_uint_t  i;

    if (len > KT_ID_MAX || kt_json_clean((char *) p, len) != KT_OK) {
        return NGX_ERROR;
    }

    for (i = 0; i < ctx->ntags; i++) {
        if (ctx->tags[i].len == len
            && ngx_memcmp(ctx->tags[i].data, p, len) == 0)
        {
            return NGX_OK;
        }
    }

    if (ctx->ntags == KT_REQ_TAGS) {
        return NGX_ERROR;
    }

    ctx->tags[ctx->ntags].data = p;
    ctx->tags[ctx->ntags].len = len;
    ctx->ntags++;

    return NGX_OK;
}


/* ctx->customer and ctx->tag_names: entities, the tags each with a tab. */

ngx_int_t
ngx_http_keytoll_name_identity(ngx_http_keytoll_ctx_t *ctx)
{
    size_t       len;
    u_char      *p;
    ngx_uint_t   i;
    ngx_pool_t  *pool;

    pool = ctx->request->pool;

    if (ctx->end_user.len && ctx->customer.len == 0) {
        ctx->customer.data = ngx_pnalloc(pool, KT_ENT_MAX);

        if (ctx->customer.data == NULL
            || kt_ent_name("customer", (char *) ctx->end_user.data,
                           ctx->end_user.len, (char *) ctx->customer.data,
                           KT_ENT_MAX, &len)
               != KT_OK)
        {
            return NGX_ERROR;
        }

        ctx->customer.len = len;
    }

    if (ctx->ntags == 0 || ctx->tag_names.len) {
        return NGX_OK;
    }

    p = ngx_pnalloc(pool, ctx->ntags * (KT_ENT_MAX + 1));
    if (p == NULL) {
        return NGX_ERROR;
    }

    ctx->tag_names.data = p;

    for (i = 0; i < ctx->ntags; i++) {

        if (kt_ent_name("tag", (char *) ctx->tags[i].data, ctx->tags[i].len,
                        (char *) p, KT_ENT_MAX, &len)
            != KT_OK)
        {
            return NGX_ERROR;
        }

        p += len;
        *p++ = '\t';
    }

    ctx->tag_names.len = p - ctx->tag_names.data;

    return NGX_OK;
}
