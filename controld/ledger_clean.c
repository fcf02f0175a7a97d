#include <string.h>
#include "ledger.h"


/*
 * Length of the UTF-8 character at p, at most n bytes: 1 to 4, or 0 when it is
 * broken, overlong, a surrogate or beyond U+10FFFF.
 */

static size_t
clean_utf8(const unsigned char *p, size_t n)
{
    size_t         i, len;
    unsigned char  lo, hi;

    lo = 0x80;
    hi = 0xbf;

    if (p[0] < 0x80) {
        return 1;
    }

    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        len = 2;

    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        len = 3;
        lo = p[0] == 0xe0 ? 0xa0 : 0x80;
        hi = p[0] == 0xed ? 0x9f : 0xbf;

    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        len = 4;
        lo = p[0] == 0xf0 ? 0x90 : 0x80;
        hi = p[0] == 0xf4 ? 0x8f : 0xbf;

    } else {
        return 0;
    }

    if (len > n || p[1] < lo || p[1] > hi) {
        return 0;
    }

    for (i = 2; i < len; i++) {
        if (p[i] < 0x80 || p[i] > 0xbf) {
            return 0;
        }
    }

    return len;
}


static int
clean_control(const char *p)
{
    return (unsigned char) *p < 0x20 || *p == 0x7f;
}


const char *
clean_text(arena_t *a, const char *s, size_t max)
{
    char    *out;
    size_t   i, k, len, n;

    len = strlen(s);

    for (i = 0; i < len; i += n) {
        n = clean_utf8((const unsigned char *) s + i, len - i);

        if (n == 0 || clean_control(s + i)) {
            break;
        }
    }

    if (i == len && len <= max) {
        return s;
    }

    out = arena_alloc(a, (len < max ? len : max) + 1);

    for (i = 0, k = 0; i < len; i += n) {
        n = clean_utf8((const unsigned char *) s + i, len - i);

        if (k + (n ? n : 1) > max) {
            break;
        }

        if (n == 0 || clean_control(s + i)) {
            n = 1;
            out[k++] = '?';

        } else {
            memcpy(out + k, s + i, n);
            k += n;
        }
    }

    return out;
}


const char *
clean_json(arena_t *a, const char *p, size_t len)
{
    char    *s;
    size_t   i, n;

    s = arena_dup(a, p, len);

    for (i = 0; i < len; i += n) {
        n = clean_utf8((const unsigned char *) s + i, len - i);

        if (n == 0 || clean_control(s + i)) {
            s[i] = n ? ' ' : '?';
            n = 1;

        } else if (s[i] == '\\' && len - i >= 6 && !memcmp(s + i, "\\u0000", 6)) {
            n = 6;
            memcpy(s + i + 2, "003f", 4);

        } else if (s[i] == '\\' && i + 1 < len && s[i + 1] > 0x20
                   && s[i + 1] < 0x7f)
        {
            n = 2;
        }
    }

    return s;
}
