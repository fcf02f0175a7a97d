/*
 * One pass over a JSON object that is known to be well-formed.
 */

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


/* The value of a member of the object at p; NULL when it has none. */

static const unsigned char *
kt_rp_member(const unsigned char *p, const unsigned char *end,
    const char *name, size_t nlen)
{
    char                  key[KT_REQPARAM_MAX + 1];
    size_t                n;
    const char           *err;
    const unsigned char  *q;

    p = kt_rp_space(p, end);

    if (p == end || *p != '{') {
        return NULL;
    }

    for (p = kt_rp_space(p + 1, end); p < end && *p == '"';
         p = kt_rp_space(p, end))
    {
        q = kt_json_string(p, end, &err);

        if (err) {
            return NULL;
        }

        n = (size_t) (q - p);

        if (kt_json_unescape(p + 1, n - 2, key, sizeof(key), &n) != KT_OK) {
            n = 0;
            key[0] = '\0';
        }

        p = kt_rp_space(q, end);

        if (p == end || *p != ':') {
            return NULL;
        }

        p = kt_rp_space(p + 1, end);

        if (n == nlen && memcmp(key, name, nlen) == 0) {
            return p;
        }

        p = kt_rp_space(kt_rp_skip(p, end), end);

        if (p < end && *p == ',') {
            p++;
        }
    }

    return NULL;
}


int
kt_reqparam(const unsigned char *p, size_t len, const char *name, size_t nlen)
{
    const char           *dot;
    const unsigned char  *end;

    end = p + len;
    dot = memchr(name, '.', nlen);

    if (dot == NULL) {
        return kt_rp_member(p, end, name, nlen) != NULL;
    }

    p = kt_rp_member(p, end, name, (size_t) (dot - name));

    return p && kt_rp_member(p, end, dot + 1,
                             nlen - (size_t) (dot + 1 - name)) != NULL;
}
