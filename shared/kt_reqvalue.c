/*
 * Inside of kt_reqscan(): the values that the gate wants to know of a body; the
 * names they stand under are kt_reqname.c's.
 *
 * The hooks know where they are from three things only: the depth, the
 * depth-1 key and, below metadata and stream_options, the depth-2 key.
 */

#include <string.h>

#include "kt_reqvalue.h"


void
kt_rs_refuse(kt_rs_t *s, keytoll_rc_t rc, const char *err, size_t off)
{
    if (s->rc == KT_OK) {
        s->rc = rc;
        s->out->err = err;
        s->out->err_off = off;
    }
}


int
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


/*
 * A number of at least least and at most max, -1 when it is null or refused.
 */

static int64_t
kt_rs_number_of(kt_rs_t *s, kt_rs_type_t type, kt_span_t span, int64_t least,
    int64_t max)
{
    int64_t       v;
    keytoll_rc_t  rc;

    if (type == KT_RS_NULL) {
        return -1;
    }

    rc = type == KT_RS_NUMBER ? kt_rs_integer(s, span, max, &v) : KT_INVALID;

    if (rc == KT_OK && v < least) {
        rc = KT_RANGE;
    }

    if (rc != KT_OK) {
        kt_rs_refuse(s, rc, rc == KT_RANGE ? s->key->range : s->key->type,
                     span.off);
        return -1;
    }

    return v;
}


/* A number of answers. */

static void
kt_rs_count(kt_rs_t *s, kt_rs_type_t type, kt_span_t span)
{
    int64_t  v;

    v = kt_rs_number_of(s, type, span, 1, KT_REQ_MAXN);

    if (v > s->out->n) {
        s->out->n = v;
    }
}


/* A cap; its place is noted in *cap. */

static void
kt_rs_cap(kt_rs_t *s, kt_rs_type_t type, kt_span_t span, kt_span_t *cap)
{
    int64_t  v;

    v = kt_rs_number_of(s, type, span, 0, KT_REQ_MAXTOK);

    if (v < 0) {
        return;
    }

    *cap = span;

    if (v > s->out->max_tok) {
        s->out->max_tok = v;
        s->out->cap_span = span;
    }
}


keytoll_rc_t
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


/* A switch that is off when absent or null. */

static unsigned
kt_rs_switch(kt_rs_t *s, kt_rs_type_t type, kt_span_t span)
{
    if (type != KT_RS_TRUE && type != KT_RS_FALSE && type != KT_RS_NULL) {
        kt_rs_refuse(s, KT_INVALID, s->key->type, span.off);
    }

    return type == KT_RS_TRUE;
}


/* A short word; one that does not fit is none that we know. */

static void
kt_rs_word(kt_rs_t *s, kt_rs_type_t type, kt_span_t span, char *out)
{
    size_t  n;

    if (type == KT_RS_NULL) {
        return;
    }

    if (type != KT_RS_STRING) {
        kt_rs_refuse(s, KT_INVALID, s->key->type, span.off);
        return;
    }

    if (kt_reqscan_text(s->start, span, out, KT_REQ_WORD, &n) != KT_OK
        || kt_json_clean(out, n) != KT_OK)
    {
        out[0] = '\0';
    }
}


/* Characters of a string as written: an escape is one, its low half none. */

static int64_t
kt_rs_chars(const unsigned char *p, size_t len)
{
    size_t   i;
    int64_t  n;

    for (n = 0, i = 0; i < len; i++) {

        if (p[i] != '\\') {
            n += (p[i] & 0xc0) != 0x80;
            continue;
        }

        if (p[++i] != 'u') {
            n++;
            continue;
        }

        n += (p[i + 1] | 0x20) != 'd' || kt_json_hex(p[i + 2]) < 12;
        i += 4;
    }

    return n;
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
    char  word[KT_REQ_WORD] = "";

    switch (s->key->id) {

    case KT_REQKEY_MODEL:
        kt_rs_model(s, type, span);
        break;

    case KT_REQKEY_CAP0:
    case KT_REQKEY_CAP1:
    case KT_REQKEY_CAP2:
        kt_rs_cap(s, type, span, &s->out->caps[s->key->id - KT_REQKEY_CAP0]);
        break;

    case KT_REQKEY_N:
    case KT_REQKEY_BEST_OF:
        kt_rs_count(s, type, span);
        break;

    case KT_REQKEY_STREAM:
        s->out->stream = kt_rs_switch(s, type, span) & 1;
        break;

    case KT_REQKEY_SO:
        kt_rs_options(s, type, span);
        break;

    case KT_REQKEY_BACKGROUND:
        s->out->background = kt_rs_switch(s, type, span) & 1;
        break;

    case KT_REQKEY_SERVICE:
        kt_rs_word(s, type, span, word);
        s->out->service = kt_usage_service(word, strlen(word));
        s->out->any_service = word[0] == '\0' || strcmp(word, "auto") == 0;
        break;

    case KT_REQKEY_SIZE:
        kt_rs_word(s, type, span, s->out->size);
        break;

    case KT_REQKEY_QUALITY:
        kt_rs_word(s, type, span, s->out->quality);
        break;

    case KT_REQKEY_REMOTE:
        s->out->remote |= type != KT_RS_NULL;
        break;

    case KT_REQKEY_TOOLS:
        kt_rs_tools(s, type, span);
        break;

    case KT_REQKEY_SEARCH:
        if (type != KT_RS_NULL) {
            s->out->searches += KT_REQ_SEARCHES;
            s->out->remote = 1;
        }

        break;

    case KT_REQKEY_MEDIA:
        s->out->media_out |= type != KT_RS_NULL;
        break;

    case KT_REQKEY_IMAGES:
        if (type != KT_RS_NULL) {
            s->out->images += type == KT_RS_OPEN ? KT_REQ_IMAGES : 1;
            s->out->media_in = 1;
        }

        break;

    case KT_REQKEY_PROMPT:
        if (type == KT_RS_OPEN && s->start[span.off] == '{') {
            s->out->searches += KT_REQ_SEARCHES;      /* its tools are kept too */
            s->out->remote = 1;
        }

        break;

    case KT_REQKEY_INPUT:
        if (type == KT_RS_STRING) {
            s->out->chars = kt_rs_chars(s->start + span.off + 1, span.len - 2);
        }

        break;

    case KT_REQKEY_SAFETY:
        if (type == KT_RS_STRING) {
            s->safety = span;
        }

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

    if ((s->key->flags & KT_REQKEY_OTHERS) && type != KT_RS_NULL) {
        kt_rs_refuse(s, KT_INVALID, KT_REQKEY_ONE, span.off);

    } else if ((s->key->flags & KT_REQKEY_AWAY) && type != KT_RS_NULL) {
        s->out->away = s->key->name;
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


static void
kt_rs_tag(kt_rs_t *s, kt_span_t span)
{
    if (s->out->ntags == KT_REQ_TAGS) {
        kt_rs_refuse(s, KT_RANGE, "too many tags", span.off);
        return;
    }

    s->out->tags[s->out->ntags++] = span;
}


/* A value below a member: options, tags, user_id, text. */

static void
kt_rs_nested(kt_rs_t *s, kt_rs_type_t type, kt_span_t span)
{
    if (s->depth == 2) {
        switch (s->sub) {

        case KT_RS_SUB_USAGE:
            kt_rs_usage_option(s, type, span);
            return;

        case KT_RS_SUB_CAP:
            kt_rs_cap(s, type, span, &s->out->gen_cap);
            return;

        case KT_RS_SUB_COUNT:
            kt_rs_count(s, type, span);
            return;

        case KT_RS_SUB_MEDIA:
            s->out->media_out |= type != KT_RS_NULL;
            return;

        default:
            break;
        }
    }

    if (type != KT_RS_STRING) {
        return;
    }

    if (s->sub == KT_RS_SUB_USER_ID && s->depth == 2) {
        s->user_id = span;
        return;
    }

    if (s->sub == KT_RS_SUB_USER && s->depth == 2) {
        s->litellm = span;
        return;
    }

    if ((s->sub == KT_RS_SUB_TAGS || s->sub == KT_RS_SUB_LTAGS)
        && s->depth == 3 && !(s->is_obj & 4))
    {
        kt_rs_tag(s, span);
    }
}


/* The type of a part: one that carries an image, audio, or more than that. */

static void
kt_rs_part_type(kt_rs_t *s, kt_span_t span)
{
    char    text[16];
    size_t  n;

    if (kt_reqscan_text(s->start, span, text, sizeof(text), &n) != KT_OK) {
        return;
    }

    if (kt_rs_is(text, n, "image_url") || kt_rs_is(text, n, "image")
        || kt_rs_is(text, n, "input_image"))
    {
        s->out->images++;
        s->out->media_in = 1;

    } else if (kt_rs_is(text, n, "input_audio")
               || kt_rs_is(text, n, "audio_url"))
    {
        s->out->media_in = 1;
    }
}


/*
 * The value of a key that names bytes (a picture, at most) or something to be
 * fetched, whose length nobody knows.
 */

static void
kt_rs_media(kt_rs_t *s, kt_rs_type_t type)
{
    if (type == KT_RS_NULL) {
        return;
    }

    s->out->media_in = 1;

    if (s->media_key == 2) {
        s->out->remote = 1;

    } else {
        s->out->images++;
    }
}


static void
kt_rs_text(kt_rs_t *s, kt_rs_type_t type, kt_span_t span)
{
    if (s->key->id == KT_REQKEY_PROMPT && s->depth == 2
        && (type == KT_RS_STRING || type == KT_RS_OPEN))
    {
        s->out->prompts++;

    } else if (s->key->id == KT_REQKEY_DOCUMENTS && s->depth == 2
               && (type == KT_RS_STRING || type == KT_RS_OPEN))
    {
        s->out->docs++;
    }

    if (s->media_key) {
        kt_rs_media(s, type);
    }

    if (type == KT_RS_STRING) {
        s->out->text_bytes += (int64_t) span.len - 2;

        if (s->type_key) {
            kt_rs_part_type(s, span);
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

    } else if (s->key->id == KT_REQKEY_TAGS && type == KT_RS_STRING
               && s->depth == 2 && !(s->is_obj & 2))
    {
        kt_rs_tag(s, span);

    } else if (s->key->id == KT_REQKEY_TOOLS
               && s->depth == s->tool_depth)
    {
        kt_rs_tool_value(s, type, span);
    }

    if (s->key->flags & KT_REQKEY_TEXT) {
        kt_rs_text(s, type, span);
    }

    s->type_key = 0;
    s->media_key = 0;
}
