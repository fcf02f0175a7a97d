/*
 * Inside of kt_reqscan(): what the gate wants to know of a body.
 *
 * The hooks know where they are from three things only: the depth, the
 * depth-1 key and, below metadata and stream_options, the depth-2 key.
 */

#include <string.h>

#include "kt_reqvalue.h"


/* In messages, what is nested deeper than a part is a tool's arguments. */
#define KT_RS_PART       5


/* Notes an unacceptable value; the text is read on, it may be malformed. */

static void
kt_rs_refuse(kt_rs_t *s, keytoll_rc_t rc, const char *err, size_t off)
{
    if (s->rc == KT_OK) {
        s->rc = rc;
        s->out->err = err;
        s->out->err_off = off;
    }
}


/* Chapter: values that we act on. */


static int
kt_rs_is(const char *p, size_t len, const char *word)
{
    return len == strlen(word) && memcmp(p, word, len) == 0;
}


/*
 * A plain non-negative integer of at most max.  KT_INVALID for a sign, a
 * fraction or an exponent, KT_RANGE when it is larger.
 */

static keytoll_rc_t
kt_rs_integer(kt_rs_t *s, kt_span_t span, int64_t max, int64_t *v)
{
    size_t                i;
    const unsigned char  *p;

    p = s->start + span.off;
    *v = 0;

    for (i = 0; i < span.len; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return KT_INVALID;
        }
    }

    if (span.len > 12) {
        return KT_RANGE;
    }

    for (i = 0; i < span.len; i++) {
        *v = *v * 10 + (p[i] - '0');
    }

    return *v > max ? KT_RANGE : KT_OK;
}


static void
kt_rs_number_of(kt_rs_t *s, kt_rs_type_t type, kt_span_t span)
{
    int64_t       v;
    keytoll_rc_t  rc;
    const int     cap = s->key->id <= KT_REQKEY_CAP2;

    if (type == KT_RS_NULL) {
        return;
    }

    rc = type == KT_RS_NUMBER
         ? kt_rs_integer(s, span, cap ? KT_REQ_MAXTOK : KT_REQ_MAXN, &v)
         : KT_INVALID;

    if (rc == KT_OK && !cap && v == 0) {
        rc = KT_RANGE;
    }

    if (rc != KT_OK) {
        kt_rs_refuse(s, rc, rc == KT_RANGE ? s->key->range : s->key->type,
                     span.off);
        return;
    }

    if (!cap) {
        if (v > s->out->n) {
            s->out->n = v;
        }

        return;
    }

    s->out->caps[s->key->id - KT_REQKEY_CAP0] = span;

    if (v > s->out->max_tok) {
        s->out->max_tok = v;
        s->out->cap_span = span;
    }
}


/* Decodes an identifier: valid UTF-8, no controls, fits the buffer. */

static keytoll_rc_t
kt_rs_ident(kt_rs_t *s, kt_span_t span, char *out, size_t *len)
{
    keytoll_rc_t  rc;

    rc = kt_reqscan_text(s->start, span, out, KT_REQ_TEXT, len);

    if (rc == KT_OK) {
        rc = kt_json_clean(out, *len);
    }

    if (rc != KT_OK) {
        out[0] = '\0';
        *len = 0;
        return KT_RANGE;
    }

    return KT_OK;
}


static void
kt_rs_model(kt_rs_t *s, kt_rs_type_t type, kt_span_t span)
{
    s->out->model_span = span;

    if (type != KT_RS_STRING) {
        kt_rs_refuse(s, KT_INVALID, s->key->type, span.off);
        return;
    }

    if (kt_rs_ident(s, span, s->out->model, &s->out->model_len) != KT_OK) {
        kt_rs_refuse(s, KT_RANGE, s->key->range, span.off);
    }
}


static void
kt_rs_stream(kt_rs_t *s, kt_rs_type_t type, kt_span_t span)
{
    if (type == KT_RS_TRUE) {
        s->out->stream = 1;

    } else if (type != KT_RS_FALSE && type != KT_RS_NULL) {
        kt_rs_refuse(s, KT_INVALID, s->key->type, span.off);
    }
}


/* stream_options itself; the span of an object is completed at its end. */

static void
kt_rs_options(kt_rs_t *s, kt_rs_type_t type, kt_span_t span)
{
    s->out->so_span = span;

    if (type == KT_RS_NULL) {
        s->out->so = KT_SO_NULL;

    } else if (type == KT_RS_OPEN && s->start[span.off] == '{') {
        s->out->so = KT_SO_OBJECT;
        s->out->so_insert = span.off + 1;

    } else {
        kt_rs_refuse(s, KT_INVALID, s->key->type, span.off);
    }
}


/* A value that is a member of the body; containers come when they open. */

static void
kt_rs_member(kt_rs_t *s, kt_rs_type_t type, kt_span_t span)
{
    switch (s->key->id) {

    case KT_REQKEY_MODEL:
        kt_rs_model(s, type, span);
        break;

    case KT_REQKEY_CAP0:
    case KT_REQKEY_CAP1:
    case KT_REQKEY_CAP2:
    case KT_REQKEY_N:
    case KT_REQKEY_BEST_OF:
        kt_rs_number_of(s, type, span);
        break;

    case KT_REQKEY_STREAM:
        kt_rs_stream(s, type, span);
        break;

    case KT_REQKEY_SO:
        kt_rs_options(s, type, span);
        break;

    case KT_REQKEY_USER:
        if (type == KT_RS_STRING
            && kt_rs_ident(s, span, s->out->user, &s->out->user_len) != KT_OK)
        {
            kt_rs_refuse(s, KT_RANGE, s->key->range, span.off);
        }

        break;

    default:
        break;
    }

    if (s->key->flags & KT_REQKEY_RAW) {
        s->raw_off = span.off;

        if (type != KT_RS_OPEN) {
            s->out->text_bytes += (int64_t) span.len;
        }
    }
}


static void
kt_rs_usage_option(kt_rs_t *s, kt_rs_type_t type, kt_span_t span)
{
    s->out->iu_span = span;

    if (type == KT_RS_TRUE) {
        s->out->include_usage = KT_TRI_TRUE;

    } else if (type == KT_RS_FALSE) {
        s->out->include_usage = KT_TRI_FALSE;

    } else if (type != KT_RS_NULL) {
        kt_rs_refuse(s, KT_INVALID, "\"include_usage\" has the wrong type",
                     span.off);
    }
}


/* A value below a member: options, tags, user_id, text. */

static void
kt_rs_nested(kt_rs_t *s, kt_rs_type_t type, kt_span_t span)
{
    if (s->sub == KT_RS_SUB_USAGE && s->depth == 2) {
        kt_rs_usage_option(s, type, span);
        return;
    }

    if (type != KT_RS_STRING) {
        return;
    }

    if (s->sub == KT_RS_SUB_USER_ID && s->depth == 2) {
        s->user_id = span;
        return;
    }

    if (s->sub == KT_RS_SUB_TAGS && s->depth == 3 && !(s->is_obj & 4)) {
        if (s->out->ntags == KT_REQ_TAGS) {
            kt_rs_refuse(s, KT_RANGE, "too many tags", span.off);
            return;
        }

        s->out->tags[s->out->ntags++] = span;
    }
}


/* Is the string one of the part types that carry an image? */

static int
kt_rs_is_image(kt_rs_t *s, kt_span_t span)
{
    char    text[16];
    size_t  n;

    return kt_reqscan_text(s->start, span, text, sizeof(text), &n) == KT_OK
           && (kt_rs_is(text, n, "image_url") || kt_rs_is(text, n, "image")
               || kt_rs_is(text, n, "input_image"));
}


static void
kt_rs_text(kt_rs_t *s, kt_rs_type_t type, kt_span_t span)
{
    if (s->key->id == KT_REQKEY_PROMPT && s->depth == 2
        && (type == KT_RS_STRING || type == KT_RS_OPEN))
    {
        s->out->prompts++;
    }

    if (type == KT_RS_STRING) {
        s->out->text_bytes += (int64_t) span.len - 2;

        if (s->type_key && kt_rs_is_image(s, span)) {
            s->out->images++;
        }

        return;
    }

    if (type == KT_RS_OPEN) {
        return;
    }

    if (s->depth > KT_RS_PART) {
        s->out->text_bytes += (int64_t) span.len;

    } else if (type == KT_RS_NUMBER && (s->key->flags & KT_REQKEY_IDS)) {
        s->out->text_bytes++;
    }
}


void
kt_rs_value(kt_rs_t *s, kt_rs_type_t type, const unsigned char *p)
{
    kt_span_t  span;

    if (s->key == NULL) {
        return;
    }

    span.off = (size_t) (p - s->start);
    span.len = (size_t) (s->p - p);

    if (s->depth == 1) {
        kt_rs_member(s, type, span);

    } else if (s->sub) {
        kt_rs_nested(s, type, span);
    }

    if (s->key->flags & KT_REQKEY_TEXT) {
        kt_rs_text(s, type, span);
    }

    s->type_key = 0;
}


/* Chapter: keys. */


static void
kt_rs_key1(kt_rs_t *s, kt_span_t span)
{
    int                 exact;
    char                name[KT_REQKEY_LEN + 1];
    size_t              n;
    const kt_reqkey_t  *k;

    s->key = NULL;
    s->sub = KT_RS_SUB_NONE;

    if (span.len - 2 > KT_REQKEY_LEN
        || kt_reqscan_text(s->start, span, name, sizeof(name), &n) != KT_OK)
    {
        return;
    }

    k = kt_reqkey(name, n, &exact);
    if (k == NULL) {
        return;
    }

    if (k->flags & KT_REQKEY_ACT) {
        if (!exact) {
            kt_rs_refuse(s, KT_DUPLICATE, k->cased, span.off);
            return;
        }

        if (s->seen & (1u << k->id)) {
            kt_rs_refuse(s, KT_DUPLICATE, k->dup, span.off);
            return;
        }

        s->seen |= 1u << k->id;
    }

    s->key = k;
}


static void
kt_rs_key2(kt_rs_t *s, kt_span_t span)
{
    char          name[KT_REQKEY_LEN + 1];
    size_t        n;
    const char   *dup;
    kt_rs_sub_t   sub;
    const char   *cased;

    s->sub = KT_RS_SUB_NONE;

    if (span.len - 2 > KT_REQKEY_LEN
        || kt_reqscan_text(s->start, span, name, sizeof(name), &n) != KT_OK)
    {
        return;
    }

    sub = KT_RS_SUB_NONE;
    dup = NULL;

    if (s->key->id == KT_REQKEY_SO) {
        if (kt_rs_is(name, n, "include_usage")) {
            sub = KT_RS_SUB_USAGE;
            dup = "duplicate key \"include_usage\"";
        }

    } else if (kt_rs_is(name, n, "user_id")) {
        sub = KT_RS_SUB_USER_ID;
        dup = "duplicate key \"user_id\"";

    } else if (kt_rs_is(name, n, "tags")) {
        sub = KT_RS_SUB_TAGS;
        dup = "duplicate key \"tags\"";
    }

    if (sub && (s->sub_seen & (1u << sub))) {
        kt_rs_refuse(s, KT_DUPLICATE, dup, span.off);
        return;
    }

    /* a reader that ignores case would take it for the key that we act on */

    if (sub == KT_RS_SUB_NONE) {
        n = kt_reqkey_fold(name, n);
        cased = s->key->id == KT_REQKEY_SO
                ? (kt_rs_is(name, n, "include_usage")
                   ? "key \"include_usage\" in another case" : NULL)
                : kt_rs_is(name, n, "user_id")
                ? "key \"user_id\" in another case"
                : kt_rs_is(name, n, "tags")
                ? "key \"tags\" in another case" : NULL;

        if (cased) {
            kt_rs_refuse(s, KT_DUPLICATE, cased, span.off);
            return;
        }
    }

    s->sub_seen |= 1u << sub;
    s->sub = sub;
}


void
kt_rs_key(kt_rs_t *s, const unsigned char *p)
{
    char       name[8];
    size_t     n;
    kt_span_t  span;

    span.off = (size_t) (p - s->start);
    span.len = (size_t) (s->p - p);

    if (s->depth == 1) {
        kt_rs_key1(s, span);
        return;
    }

    if (s->key == NULL) {
        return;
    }

    if (s->depth == 2
        && (s->key->id == KT_REQKEY_SO || s->key->id == KT_REQKEY_METADATA))
    {
        kt_rs_key2(s, span);
        return;
    }

    if (s->key->flags & KT_REQKEY_TEXT) {
        s->type_key = span.len >= 6 && span.len <= 26
                      && kt_reqscan_text(s->start, span, name, sizeof(name),
                                         &n) == KT_OK
                      && kt_rs_is(name, n, "type");

        if (s->depth > KT_RS_PART) {
            s->out->text_bytes += (int64_t) span.len - 2;
        }
    }
}


void
kt_rs_end(kt_rs_t *s, int empty)
{
    size_t  off;

    off = (size_t) (s->p - s->start);

    if (s->depth == 0) {
        s->out->empty = (empty != 0);
        return;
    }

    if (s->depth != 1 || s->key == NULL) {
        return;
    }

    if (s->key->flags & KT_REQKEY_RAW) {
        s->out->text_bytes += (int64_t) (off - s->raw_off);

    } else if (s->key->id == KT_REQKEY_SO) {
        s->out->so_span.len = off - s->out->so_span.off;
        s->out->so_empty = (empty != 0);
    }
}


/* The fallback identity counts only when there is no user. */

void
kt_rs_finish(kt_rs_t *s)
{
    if (s->out->user_len || s->user_id.len == 0) {
        return;
    }

    if (kt_rs_ident(s, s->user_id, s->out->user, &s->out->user_len) != KT_OK) {
        kt_rs_refuse(s, KT_RANGE, "\"user_id\" is out of range",
                     s->user_id.off);
    }
}


keytoll_rc_t
kt_reqscan_text(const unsigned char *p, kt_span_t span, char *out, size_t cap,
    size_t *n)
{
    return kt_json_unescape(p + span.off + 1, span.len - 2, out, cap, n);
}
