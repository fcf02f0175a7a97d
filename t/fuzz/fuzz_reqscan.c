/*
 * kt_reqscan() against yajl: both must agree on what is a JSON object nested
 * at most KT_REQ_DEPTH deep.  By design we are stricter than yajl in two
 * points: vertical tab and form feed are no spaces (nor are they in RFC 8259),
 * and an unfinished token behind the body (yajl waits for its rest, and
 * forgets) is text behind the body.  What else is refused (duplicates, types,
 * ranges) keeps bad_json clear.
 *
 * kt_reqparam() finds what yajl's tree has, and nothing else.
 *
 * Of an accepted body all spans must lie inside, and a member spliced in at
 * insert_at must leave it acceptable.
 */

#include <yajl/yajl_parse.h>

#include <yajl/yajl_tree.h>

#include "fuzz.h"
#include "kt_reqparam.h"
#include "kt_reqscan.h"


typedef struct {
    unsigned  depth;
    unsigned  deepest;
    int       object;
    int       any;
} shape_t;


static int
on_scalar(void *ctx)
{
    shape_t  *s = ctx;

    s->any = 1;

    return 1;
}


static int
on_bool(void *ctx, int v)
{
    (void) v;

    return on_scalar(ctx);
}


static int
on_number(void *ctx, const char *p, size_t len)
{
    (void) p;
    (void) len;

    return on_scalar(ctx);
}


static int
on_string(void *ctx, const unsigned char *p, size_t len)
{
    (void) p;
    (void) len;

    return on_scalar(ctx);
}


static int
on_array(void *ctx)
{
    shape_t  *s = ctx;

    s->any = 1;

    if (++s->depth > s->deepest) {
        s->deepest = s->depth;
    }

    return 1;
}


static int
on_map(void *ctx)
{
    shape_t  *s = ctx;

    s->object |= !s->any;

    return on_array(ctx);
}


static int
on_end(void *ctx)
{
    shape_t  *s = ctx;

    s->depth--;

    return 1;
}


static int
yajl_accepts(const uint8_t *p, size_t len, shape_t *s)
{
    yajl_handle  y;
    yajl_status  st;

    static const yajl_callbacks  cb = {
        on_scalar, on_bool, NULL, NULL, on_number, on_string, on_map,
        on_string, on_end, on_array, on_end
    };

    memset(s, 0, sizeof(shape_t));

    y = yajl_alloc(&cb, NULL, s);
    must(y != NULL);
    yajl_config(y, yajl_dont_validate_strings, 1);

    st = yajl_parse(y, p, len);

    if (st == yajl_status_ok) {
        st = yajl_complete_parse(y);
    }

    yajl_free(y);

    return st == yajl_status_ok && s->object;
}


static void
span_inside(kt_span_t span, size_t len)
{
    must(span.off <= len && span.len <= len - span.off);
}


static void
accepted(const uint8_t *p, size_t len, const kt_reqscan_t *r)
{
    size_t        i, n, k;
    uint8_t      *copy;
    char          tag[64];
    const char   *member;
    keytoll_rc_t  rc;

    static kt_reqscan_t  again;

    must(r->err == NULL);
    must(r->model_len < KT_REQ_TEXT && r->user_len < KT_REQ_TEXT);
    must(r->max_tok >= -1 && r->max_tok <= KT_REQ_MAXTOK);
    must(r->n >= 1 && r->n <= KT_REQ_MAXN);
    must(r->text_bytes >= 3 && r->text_bytes <= (int64_t) len + 3);
    must(r->insert_at <= len && p[r->insert_at - 1] == '{');

    span_inside(r->model_span, len);
    span_inside(r->cap_span, len);
    span_inside(r->so_span, len);
    span_inside(r->iu_span, len);

    for (i = 0; i < r->ntags; i++) {
        span_inside(r->tags[i], len);
        must(r->tags[i].len >= 2 && p[r->tags[i].off] == '"');
        rc = kt_reqscan_text(p, r->tags[i], tag, sizeof(tag), &n);
        must(rc != KT_OK || strlen(tag) <= n);
    }

    if (r->so == KT_SO_OBJECT) {
        must(p[r->so_insert - 1] == '{'
             && p[r->so_span.off + r->so_span.len - 1] == '}');
    }

    member = r->empty ? "\"kt\":{}" : "\"kt\":{},";
    k = strlen(member);

    copy = malloc(len + k);
    must(copy != NULL);

    memcpy(copy, p, r->insert_at);
    memcpy(copy + r->insert_at, member, k);
    memcpy(copy + r->insert_at + k, p + r->insert_at, len - r->insert_at);

    must(kt_reqscan(copy, len + k, &again) == KT_OK);
    must(again.text_bytes == r->text_bytes && again.max_tok == r->max_tok
         && again.model_len == r->model_len && again.stream == r->stream);

    free(copy);
}


/* yajl's text of a key that has a lone surrogate is another one than ours. */

/* Any copy of a member will do, and any of a member of it. */

static int
tree_has(yajl_val v, const char *name, const char *inner)
{
    size_t  i;

    if (!YAJL_IS_OBJECT(v)) {
        return 0;
    }

    for (i = 0; i < v->u.object.len; i++) {
        if (strcmp(v->u.object.keys[i], name) == 0
            && (inner == NULL
                || tree_has(v->u.object.values[i], inner, NULL)))
        {
            return 1;
        }
    }

    return 0;
}


static void
params(const uint8_t *p, size_t len)
{
    char           *text;
    size_t          i, n, missing;
    yajl_val        v;
    kt_reqparam_t   param[16];

    static const char *const  names[][3] = {
        { "model", "model", NULL }, { "user", "user", NULL },
        { "metadata", "metadata", NULL }, { "tags", "tags", NULL },
        { "metadata.tags", "metadata", "tags" },
        { "stream_options", "stream_options", NULL },
        { "stream_options.include_usage", "stream_options", "include_usage" },
        { "metadata.user_id", "metadata", "user_id" },
        { "absent", "absent", NULL }
    };

    text = malloc(len + 1);
    must(text != NULL);
    memcpy(text, p, len);
    text[len] = '\0';

    v = yajl_tree_parse(text, NULL, 0);
    n = sizeof(names) / sizeof(names[0]);

    for (i = 0; i < n; i++) {
        param[i].name = names[i][0];
        param[i].len = strlen(names[i][0]);
    }

    missing = kt_reqparams(p, len, param, n);

    for (i = 0; v && i < n; i++) {
        must(param[i].found == tree_has(v, names[i][1], names[i][2]));
        must(missing != i || !param[i].found);
        must(missing <= i || param[i].found);
    }

    yajl_tree_free(v);
    free(text);
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    int           ours, theirs;
    shape_t       shape;
    keytoll_rc_t  rc;

    static kt_reqscan_t  r;

    rc = kt_reqscan(p, len, &r);

    must((rc == KT_OK) == (r.err == NULL));
    must(r.err_off <= len);
    must(!r.bad_json || rc == KT_INVALID || rc == KT_TOODEEP);

    ours = !r.bad_json;
    theirs = yajl_accepts(p, len, &shape);

    if (memchr(p, '\v', len) || memchr(p, '\f', len)) {
        must(!ours);

    } else if (!ours && strcmp(r.err, "text behind the body") == 0) {
        must(yajl_accepts(p, r.err_off, &shape)
             && shape.deepest <= KT_REQ_DEPTH);

    } else {
        must(ours == (theirs && shape.deepest <= KT_REQ_DEPTH
                      && kt_json_is_utf8(p, len)));
    }

    if (rc == KT_OK) {
        accepted(p, len, &r);
        params(p, len);
    }

    return 0;
}
