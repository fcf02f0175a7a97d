/*
 * One pass over a JSON object that is known to be well-formed.
 */

#include <stdint.h>
#include <string.h>

#include "kt_json.h"
#include "kt_reqparam.h"


static const unsigned char *
kt_rp_space(const unsigned char *p, const unsigned char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) {
        p++;
    }

    return p;
}


/* Behind the value at p. */

static const unsigned char *
kt_rp_skip(const unsigned char *p, const unsigned char *end)
{
    size_t       depth;
    const char  *err;

    for (depth = 0; p < end; /* void */) {

        switch (*p) {

        case '"':
            p = kt_json_string(p, end, &err);

            if (err) {
                return end;
            }

            break;

        case '{':
        case '[':
            depth++;
            p++;
            continue;

        case '}':
        case ']':
            if (depth == 0) {
                return p;
            }

            depth--;
            p++;
            break;

        case ',':
            if (depth == 0) {
                return p;
            }

            /* fall through */

        default:
            p++;
            continue;
        }

        if (depth == 0) {
            return p;
        }
    }

    return end;
}


/* Names that are looked for in an object: those that begin with `in`, if any. */

typedef struct {
    kt_reqparam_t  *param;
    size_t          n;
    const char     *in;                /* the member whose value it is      */
    size_t          inlen;
    uint64_t        lens;              /* bit per length, less than 65      */
    uint64_t        first[4];          /* bit per first byte                */
} kt_rp_want_t;


/* The part of a name that a key of this object must equal; 0: none. */

static int
kt_rp_part(const kt_rp_want_t *w, const kt_reqparam_t *q, const char **part,
    size_t *len)
{
    *part = q->name;
    *len = q->head;

    if (w->in == NULL) {
        return 1;
    }

    if (q->head == q->len || q->head != w->inlen
        || memcmp(q->name, w->in, w->inlen) != 0)
    {
        return 0;
    }

    *part = q->name + q->head + 1;
    *len = q->len - q->head - 1;

    return 1;
}


/* What no name begins or measures like is passed over at once. */

static void
kt_rp_sieve(kt_rp_want_t *w)
{
    size_t       i, len;
    const char  *part;

    w->lens = 0;
    memset(w->first, 0, sizeof(w->first));

    for (i = 0; i < w->n; i++) {
        if (!w->param[i].found && kt_rp_part(w, &w->param[i], &part, &len)
            && len && len <= KT_REQPARAM_MAX)
        {
            w->lens |= (uint64_t) 1 << (len - 1);
            w->first[(unsigned char) *part >> 6]
                |= (uint64_t) 1 << ((unsigned char) *part & 63);
        }
    }
}


/* Marks the names that a key is; 1 when it is the head of others. */

static int
kt_rp_mark(kt_rp_want_t *w, const char *key, size_t n)
{
    int             inside;
    size_t          i, len;
    const char     *part;
    kt_reqparam_t  *q;

    if (n == 0 || !(w->lens >> (n - 1) & 1)
        || !(w->first[(unsigned char) *key >> 6]
             >> ((unsigned char) *key & 63) & 1))
    {
        return 0;
    }

    inside = 0;

    for (i = 0; i < w->n; i++) {
        q = &w->param[i];

        if (q->found || !kt_rp_part(w, q, &part, &len) || len != n
            || *part != *key || memcmp(part, key, n) != 0)
        {
            continue;
        }

        if (w->in == NULL && q->head != q->len) {
            inside = 1;

        } else {
            q->found = 1;
        }
    }

    return inside;
}


static void
kt_rp_object(const unsigned char *p, const unsigned char *end, kt_rp_want_t *w)
{
    char                  key[KT_REQPARAM_MAX + 1];
    size_t                n;
    const char           *err;
    kt_rp_want_t          in;
    const unsigned char  *q;

    kt_rp_sieve(w);
    p = kt_rp_space(p, end);

    if (p == end || *p != '{' || w->lens == 0) {
        return;
    }

    for (p = kt_rp_space(p + 1, end); p < end && *p == '"';
         p = kt_rp_space(p, end))
    {
        q = kt_json_string(p, end, &err);

        if (err) {
            return;
        }

        n = (size_t) (q - p);

        if (kt_json_unescape(p + 1, n - 2, key, sizeof(key), &n) != KT_OK
            || n > KT_REQPARAM_MAX)
        {
            n = 0;
        }

        p = kt_rp_space(q, end);

        if (p == end || *p != ':') {
            return;
        }

        p = kt_rp_space(p + 1, end);

        if (kt_rp_mark(w, key, n)) {
            in = *w;
            in.in = key;
            in.inlen = n;
            kt_rp_object(p, end, &in);
        }

        p = kt_rp_space(kt_rp_skip(p, end), end);

        if (p < end && *p == ',') {
            p++;
        }
    }
}


size_t
kt_reqparams(const unsigned char *p, size_t len, kt_reqparam_t *param, size_t n)
{
    size_t        i;
    const char   *dot;
    kt_rp_want_t  w;

    memset(&w, 0, sizeof(w));
    w.param = param;
    w.n = n;

    for (i = 0; i < n; i++) {
        dot = memchr(param[i].name, '.', param[i].len);
        param[i].head = dot ? (size_t) (dot - param[i].name) : param[i].len;
        param[i].found = 0;
    }

    kt_rp_object(p, p + len, &w);

    for (i = 0; i < n && param[i].found; i++) {
        /* the first that is missing */
    }

    return i;
}
