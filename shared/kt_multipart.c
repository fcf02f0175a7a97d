/*
 * Multipart bodies; see kt_multipart.h.
 *
 * The delimiter is looked for without its line break, so a copy of it that
 * only a lax parser takes for one (behind a bare LF, before other bytes) is
 * seen, and refused.
 */

#define _GNU_SOURCE

#include <string.h>
#include <strings.h>

#include "kt_multipart.h"
#include "kt_reqkey.h"


typedef struct {
    const unsigned char  *start;
    const unsigned char  *p;
    const unsigned char  *end;
    kt_reqscan_t         *out;
    unsigned              seen;        /* bit per entry of kt_mp_fields     */
} kt_mp_t;


typedef struct {
    const char           *name;        /* of the part                       */
    size_t                name_len;
    int                   file;        /* it has a filename                 */
} kt_mp_part_t;


typedef enum {
    KT_MP_MODEL = 0,
    KT_MP_USER,
    KT_MP_N,
    KT_MP_SIZE,
    KT_MP_QUALITY,
    KT_MP_STREAM,
    KT_MP_PROMPT,
    KT_MP_INPUT,
    KT_MP_CHARSET,
    KT_MP_FIELDS
} kt_mp_field_t;


static const char *const  kt_mp_fields[KT_MP_FIELDS] = {
    "model", "user", "n", "size", "quality", "stream", "prompt", "input",
    "_charset_"
};


static keytoll_rc_t
kt_mp_fail(kt_mp_t *s, keytoll_rc_t rc, const char *err)
{
    s->out->err = err;
    s->out->err_off = (size_t) (s->p - s->start);
    s->out->bad_json = rc == KT_INVALID;

    return rc;
}


/* Chapter: header values. */


static int
kt_mp_is_token(unsigned char c)
{
    return c > 0x20 && c < 0x7f && strchr("\"\\(),/:;<=>?@[]{}", c) == NULL;
}


static void
kt_mp_space(const char **p, const char *end)
{
    while (*p < end && (**p == ' ' || **p == '\t')) {
        (*p)++;
    }
}


/*
 * One `; name=value`.  KT_OK, KT_NOTFOUND at the end, KT_INVALID; quoted
 * values must be without escapes.
 */

static keytoll_rc_t
kt_mp_param(const char **pp, const char *end, const char **name, size_t *nlen,
    const char **value, size_t *vlen)
{
    const char  *p, *q;

    p = *pp;
    kt_mp_space(&p, end);

    if (p == end) {
        return KT_NOTFOUND;
    }

    if (*p++ != ';') {
        return KT_INVALID;
    }

    kt_mp_space(&p, end);

    if (p == end) {
        *pp = p;
        return KT_NOTFOUND;
    }

    for (*name = p; p < end && kt_mp_is_token((unsigned char) *p); p++) {
        /* void */
    }

    *nlen = (size_t) (p - *name);

    if (*nlen == 0 || p == end || *p++ != '=') {
        return KT_INVALID;
    }

    if (p < end && *p == '"') {
        p++;
        q = memchr(p, '"', (size_t) (end - p));

        if (q == NULL || memchr(p, '\\', (size_t) (q - p))) {
            return KT_INVALID;
        }

        *value = p;
        *vlen = (size_t) (q - p);
        *pp = q + 1;

        return KT_OK;
    }

    for (*value = p; p < end && kt_mp_is_token((unsigned char) *p); p++) {
        /* void */
    }

    *vlen = (size_t) (p - *value);
    *pp = p;

    return *vlen ? KT_OK : KT_INVALID;
}


static int
kt_mp_is(const char *p, size_t len, const char *word)
{
    return len == strlen(word) && strncasecmp(p, word, len) == 0;
}


kt_type_t
kt_content_type(const char *p, size_t len, char *boundary, size_t *n)
{
    size_t         nlen, vlen, tlen;
    const char    *name, *value, *type, *end;
    unsigned       charsets, boundaries;
    kt_type_t      kind;
    keytoll_rc_t   rc;

    *n = 0;
    end = p + len;
    kt_mp_space(&p, end);

    for (type = p; p < end && *p != ';' && *p != ' ' && *p != '\t'; p++) {
        /* void */
    }

    tlen = (size_t) (p - type);

    kind = kt_mp_is(type, tlen, "multipart/form-data") ? KT_TYPE_MULTIPART
           : tlen >= 10 && strncasecmp(type, "multipart/", 10) == 0
           ? KT_TYPE_BAD
           : kt_mp_is(type, tlen, "application/x-www-form-urlencoded")
           ? KT_TYPE_FORM : KT_TYPE_PLAIN;

    charsets = 0;
    boundaries = 0;

    for ( ;; ) {
        rc = kt_mp_param(&p, end, &name, &nlen, &value, &vlen);

        if (rc == KT_NOTFOUND) {
            break;
        }

        if (rc != KT_OK) {
            return KT_TYPE_BAD;
        }

        if (kt_mp_is(name, nlen, "charset")) {

            if (charsets++) {
                return KT_TYPE_BAD;
            }

            if (!kt_mp_is(value, vlen, "utf-8")
                && !kt_mp_is(value, vlen, "utf8")
                && !kt_mp_is(value, vlen, "us-ascii"))
            {
                return KT_TYPE_CHARSET;
            }

        } else if (nlen >= 8 && strncasecmp(name, "boundary", 8) == 0) {

            if (boundaries++ || nlen != 8 || vlen == 0
                || vlen > KT_BOUNDARY_MAX || value[vlen - 1] == ' ')
            {
                return KT_TYPE_BAD;
            }

            memcpy(boundary, value, vlen);
            *n = vlen;
        }
    }

    return kind == KT_TYPE_MULTIPART && *n == 0 ? KT_TYPE_BAD : kind;
}


/* Chapter: the headers of a part. */


static keytoll_rc_t
kt_mp_disposition(kt_mp_t *s, const char *p, const char *end,
    kt_mp_part_t *part)
{
    size_t         i, nlen, vlen;
    const char    *name, *value;
    keytoll_rc_t   rc;

    kt_mp_space(&p, end);

    if (part->name || end - p < 9 || strncasecmp(p, "form-data", 9) != 0) {
        return kt_mp_fail(s, KT_INVALID, "a part is not plain form-data");
    }

    p += 9;

    for ( ;; ) {
        rc = kt_mp_param(&p, end, &name, &nlen, &value, &vlen);

        if (rc == KT_NOTFOUND) {
            break;
        }

        if (rc != KT_OK) {
            return kt_mp_fail(s, KT_INVALID, "a part's name is malformed");
        }

        if (kt_mp_is(name, nlen, "name") && part->name == NULL) {
            part->name = value;
            part->name_len = vlen;

        } else if (kt_mp_is(name, nlen, "filename") && !part->file) {
            part->file = 1;

        } else if (!kt_mp_is(name, nlen, "filename*")) {
            return kt_mp_fail(s, KT_INVALID,
                              "a part has an unknown or second parameter");

        } else {
            part->file = 1;
        }
    }

    for (i = 0; i < part->name_len; i++) {
        if (part->name[i] == '%' || (unsigned char) part->name[i] < 0x20) {
            break;
        }
    }

    return part->name == NULL || i < part->name_len
           ? kt_mp_fail(s, KT_INVALID, "a part's name is malformed") : KT_OK;
}


static keytoll_rc_t
kt_mp_header(kt_mp_t *s, const char *p, const char *end, kt_mp_part_t *part)
{
    size_t       n;
    const char  *colon, *c;

    for (c = p; c < end; c++) {
        if ((unsigned char) *c < 0x20 && *c != '\t') {
            return kt_mp_fail(s, KT_INVALID, "control byte in a part's header");
        }
    }

    colon = memchr(p, ':', (size_t) (end - p));
    n = colon ? (size_t) (colon - p) : 0;

    for (c = p; c < p + n && kt_mp_is_token((unsigned char) *c); c++) {
        /* void */
    }

    if (n == 0 || c < p + n) {
        return kt_mp_fail(s, KT_INVALID, "malformed header of a part");
    }

    if (kt_mp_is(p, n, "content-disposition")) {
        return kt_mp_disposition(s, colon + 1, end, part);
    }

    if (kt_mp_is(p, n, "content-transfer-encoding")) {
        c = colon + 1;
        kt_mp_space(&c, end);
        n = (size_t) (end - c);

        if (!kt_mp_is(c, n, "binary") && !kt_mp_is(c, n, "8bit")
            && !kt_mp_is(c, n, "7bit"))
        {
            return kt_mp_fail(s, KT_INVALID, "a part is encoded");
        }
    }

    return KT_OK;
}


/* Up to the blank line; s->p is behind it then. */

static keytoll_rc_t
kt_mp_headers(kt_mp_t *s, const unsigned char *end, kt_mp_part_t *part)
{
    keytoll_rc_t          rc;
    const unsigned char  *eol;

    for ( ;; ) {
        eol = memmem(s->p, (size_t) (end - s->p), "\r\n", 2);

        if (eol == NULL) {
            return kt_mp_fail(s, KT_INVALID, "a part's headers are cut");
        }

        if (eol == s->p) {
            s->p += 2;
            break;
        }

        rc = kt_mp_header(s, (const char *) s->p, (const char *) eol, part);
        if (rc != KT_OK) {
            return rc;
        }

        s->p = eol + 2;
    }

    return part->name ? KT_OK
                      : kt_mp_fail(s, KT_INVALID, "a part without a name");
}


/* Chapter: fields. */


static keytoll_rc_t
kt_mp_text(kt_mp_t *s, const unsigned char *end, char *out, size_t cap,
    size_t *len, const char *err)
{
    size_t  n;

    n = (size_t) (end - s->p);

    if (n >= cap || kt_json_clean((const char *) s->p, n) != KT_OK) {
        return kt_mp_fail(s, KT_RANGE, err);
    }

    memcpy(out, s->p, n);
    out[n] = '\0';

    if (len) {
        *len = n;
    }

    return KT_OK;
}


static keytoll_rc_t
kt_mp_number(kt_mp_t *s, const unsigned char *end)
{
    int64_t               v;
    const unsigned char  *p;

    for (v = 0, p = s->p; p < end && *p >= '0' && *p <= '9' && p - s->p < 5;
         p++)
    {
        v = v * 10 + (*p - '0');
    }

    if (p == s->p || p < end || v == 0 || v > KT_REQ_MAXN) {
        return kt_mp_fail(s, KT_RANGE, "\"n\" is out of range");
    }

    s->out->n = v;

    return KT_OK;
}


static keytoll_rc_t
kt_mp_value(kt_mp_t *s, kt_mp_field_t f, const unsigned char *end)
{
    kt_reqscan_t  *o = s->out;

    switch (f) {

    case KT_MP_MODEL:
        o->model_span.off = (size_t) (s->p - s->start);
        o->model_span.len = (size_t) (end - s->p);

        return kt_mp_text(s, end, o->model, KT_REQ_TEXT, &o->model_len,
                          "\"model\" is out of range");

    case KT_MP_USER:
        return kt_mp_text(s, end, o->user, KT_REQ_TEXT, &o->user_len,
                          "\"user\" is out of range");

    case KT_MP_N:
        return kt_mp_number(s, end);

    case KT_MP_SIZE:
        return kt_mp_text(s, end, o->size, KT_REQ_WORD, NULL,
                          "\"size\" is out of range");

    case KT_MP_QUALITY:
        return kt_mp_text(s, end, o->quality, KT_REQ_WORD, NULL,
                          "\"quality\" is out of range");

    case KT_MP_STREAM:
        o->stream = s->p < end && strchr("tT1yYoO", *s->p) != NULL;
        return KT_OK;

    case KT_MP_PROMPT:
    case KT_MP_INPUT:
        o->text_bytes += end - s->p;
        return KT_OK;

    default: /* KT_MP_CHARSET */
        return kt_mp_fail(s, KT_INVALID, "\"_charset_\" is not read");
    }
}


static keytoll_rc_t
kt_mp_field(kt_mp_t *s, const kt_mp_part_t *part, const unsigned char *end)
{
    int                 exact;
    char                name[KT_REQKEY_NAME];
    size_t              n;
    unsigned            f;
    const kt_reqkey_t  *k;

    n = part->name_len;

    if (kt_mp_is(part->name, n, "image") || kt_mp_is(part->name, n, "image[]")
        || kt_mp_is(part->name, n, "mask"))
    {
        s->out->images++;
        s->out->media_in = 1;
    }

    if (n > sizeof(name)) {
        f = KT_MP_FIELDS;

    } else {
        memcpy(name, part->name, n);
        n = kt_reqkey_fold(name, n);

        /* a[] and a[0] are an array of a for some */

        if (memchr(name, '[', n)) {
            n = (size_t) ((char *) memchr(name, '[', n) - name);
        }

        for (f = 0; f < KT_MP_FIELDS; f++) {
            if (kt_mp_is(name, n, kt_mp_fields[f])) {
                break;
            }
        }

        k = kt_reqkey(name, n, &exact);

        if (k && (k->flags & KT_REQKEY_OTHERS)) {
            return kt_mp_fail(s, KT_INVALID, KT_REQKEY_ONE);
        }

        if (k && (k->flags & KT_REQKEY_AWAY)) {
            s->out->away = k->name;
        }
    }

    if (f == KT_MP_FIELDS) {
        if (part->file) {
            s->out->file_bytes += end - s->p;
        }

        return KT_OK;
    }

    if ((s->seen & (1u << f)) || part->name_len != strlen(kt_mp_fields[f])
        || memcmp(part->name, kt_mp_fields[f], part->name_len) != 0)
    {
        return kt_mp_fail(s, KT_DUPLICATE,
                          "a field appears twice or in another spelling");
    }

    if (part->file) {
        return kt_mp_fail(s, KT_INVALID, "a field has a filename");
    }

    s->seen |= 1u << f;

    return kt_mp_value(s, f, end);
}


/* Chapter: the body. */


/*
 * The next delimiter; *behind is where what follows it begins.  KT_NOTFOUND
 * when there is none.
 */

static keytoll_rc_t
kt_mp_next(kt_mp_t *s, const char *delimiter, size_t dlen,
    const unsigned char **at, const unsigned char **behind, int *last)
{
    const unsigned char  *d;

    d = memmem(s->p, (size_t) (s->end - s->p), delimiter, dlen);

    if (d == NULL) {
        return kt_mp_fail(s, KT_INVALID, "the last delimiter is missing");
    }

    *at = d;
    *behind = d + dlen + 2;

    if (d != s->start && (d - s->p < 2 || d[-2] != '\r' || d[-1] != '\n')) {
        s->p = d;
        return kt_mp_fail(s, KT_INVALID, "a delimiter within a line");
    }

    if (s->end - d < (ptrdiff_t) dlen + 2) {
        s->p = d;
        return kt_mp_fail(s, KT_INVALID, "a delimiter is cut");
    }

    d += dlen;
    *last = d[0] == '-' && d[1] == '-';

    if (!*last && (d[0] != '\r' || d[1] != '\n')) {
        s->p = d;
        return kt_mp_fail(s, KT_INVALID, "bytes behind a delimiter");
    }

    return KT_OK;
}


static keytoll_rc_t
kt_mp_parts(kt_mp_t *s, const char *delimiter, size_t dlen)
{
    int                   last;
    kt_mp_part_t          part;
    keytoll_rc_t          rc;
    const unsigned char  *at, *behind;

    rc = kt_mp_next(s, delimiter, dlen, &at, &behind, &last);

    if (rc == KT_OK && at != s->start) {
        return kt_mp_fail(s, KT_INVALID, "text before the first part");
    }

    while (rc == KT_OK && !last) {
        s->p = behind;

        /* a part without headers would begin with its delimiter */

        rc = kt_mp_next(s, delimiter, dlen, &at, &behind, &last);
        if (rc != KT_OK) {
            return rc;
        }

        memset(&part, 0, sizeof(kt_mp_part_t));

        rc = kt_mp_headers(s, at, &part);

        if (rc == KT_OK && at - s->p < 2) {
            return kt_mp_fail(s, KT_INVALID, "a part without a body");
        }

        if (rc == KT_OK) {
            rc = kt_mp_field(s, &part, at - 2);
        }
    }

    if (rc != KT_OK) {
        return rc;
    }

    s->p = behind;

    if (s->end != s->p
        && (s->end - s->p != 2 || s->p[0] != '\r' || s->p[1] != '\n'))
    {
        return kt_mp_fail(s, KT_INVALID, "text behind the last part");
    }

    return KT_OK;
}


keytoll_rc_t
kt_multipart(const unsigned char *p, size_t len, const char *boundary,
    size_t blen, kt_reqscan_t *out)
{
    char     delimiter[KT_BOUNDARY_MAX + 2];
    kt_mp_t  s;

    memset(out, 0, sizeof(kt_reqscan_t));
    out->max_tok = -1;
    out->n = 1;
    out->text_bytes = 3;
    out->form = 1;

    memset(&s, 0, sizeof(kt_mp_t));
    s.start = p;
    s.p = p;
    s.end = p + len;
    s.out = out;

    if (blen == 0 || blen > KT_BOUNDARY_MAX) {
        return kt_mp_fail(&s, KT_INVALID, "no boundary");
    }

    delimiter[0] = '-';
    delimiter[1] = '-';
    memcpy(delimiter + 2, boundary, blen);

    return kt_mp_parts(&s, delimiter, blen + 2);
}
