/*
 * JSON lexical helpers; see kt_json.h.
 *
 * The word-at-a-time tests are the classic ones: a word has a zero byte iff
 * (v - 0x01..) & ~v & 0x80.. is not zero, and a byte below n (n <= 128) iff
 * (v - n..) & ~v & 0x80.. is not zero.  The position inside the word is then
 * found by bytes, so the byte order of the machine does not matter.
 */

#include <string.h>

#include "kt_json.h"


#define KT_ONES          0x0101010101010101ull
#define KT_HIGHS         0x8080808080808080ull
#define KT_WORD(c)       (KT_ONES * (uint64_t) (c))


static inline uint64_t
kt_word(const unsigned char *p)
{
    uint64_t  v;

    memcpy(&v, p, sizeof(v));

    return v;
}


static inline uint64_t
kt_zero(uint64_t v)
{
    return (v - KT_ONES) & ~v;
}


static inline uint64_t
kt_special(uint64_t v)
{
    return kt_zero(v ^ KT_WORD('"')) | kt_zero(v ^ KT_WORD('\\'))
           | ((v - KT_WORD(0x20)) & ~v);
}


const unsigned char *
kt_json_plain(const unsigned char *p, const unsigned char *end)
{
    while (end - p >= 16) {
        if ((kt_special(kt_word(p)) | kt_special(kt_word(p + 8))) & KT_HIGHS) {
            break;
        }

        p += 16;
    }

    while (p < end && *p >= 0x20 && *p != '"' && *p != '\\') {
        p++;
    }

    return p;
}


const unsigned char *
kt_json_find2(const unsigned char *p, const unsigned char *end,
    unsigned char a, unsigned char b)
{
    uint64_t  wa, wb, v;

    wa = KT_WORD(a);
    wb = KT_WORD(b);

    while (end - p >= 8) {
        v = kt_word(p);

        if ((kt_zero(v ^ wa) | kt_zero(v ^ wb)) & KT_HIGHS) {
            break;
        }

        p += 8;
    }

    while (p < end && *p != a && *p != b) {
        p++;
    }

    return p;
}


const unsigned char *
kt_json_string(const unsigned char *p, const unsigned char *end,
    const char **err)
{
    int  i;

    *err = NULL;
    p++;

    for ( ;; ) {
        p = kt_json_plain(p, end);

        if (p == end) {
            *err = "unterminated string";
            return p;
        }

        if (*p == '"') {
            return p + 1;
        }

        if (*p != '\\') {
            *err = "control byte in a string";
            return p;
        }

        if (end - p < 2) {
            *err = "unterminated string";
            return p;
        }

        if (p[1] != 'u') {
            if (p[1] == '\0' || strchr("\"\\/bfnrt", p[1]) == NULL) {
                *err = "invalid escape";
                return p;
            }

            p += 2;
            continue;
        }

        for (i = 2; i < 6; i++) {
            if (end - p <= i || kt_json_hex(p[i]) < 0) {
                *err = "invalid escape";
                return p;
            }
        }

        p += 6;
    }
}


/* Skips digits; *err is set when there is none. */

static const unsigned char *
kt_json_digits(const unsigned char *p, const unsigned char *end,
    const char **err)
{
    if (p == end || *p < '0' || *p > '9') {
        *err = "invalid number";
        return p;
    }

    while (p < end && *p >= '0' && *p <= '9') {
        p++;
    }

    return p;
}


const unsigned char *
kt_json_number(const unsigned char *p, const unsigned char *end,
    const char **err)
{
    const unsigned char  *d;

    *err = NULL;

    if (*p == '-') {
        p++;
    }

    d = p;
    p = kt_json_digits(p, end, err);

    if (*err == NULL && *d == '0' && p - d > 1) {
        *err = "invalid number";
    }

    if (*err == NULL && p < end && *p == '.') {
        p = kt_json_digits(p + 1, end, err);
    }

    if (*err == NULL && p < end && (*p == 'e' || *p == 'E')) {
        p++;

        if (p < end && (*p == '+' || *p == '-')) {
            p++;
        }

        p = kt_json_digits(p, end, err);
    }

    return p;
}


const unsigned char *
kt_json_word(const unsigned char *p, const unsigned char *end,
    const char *word, const char **err)
{
    size_t  len;

    len = strlen(word);

    if ((size_t) (end - p) < len || memcmp(p, word, len) != 0) {
        *err = "invalid literal";
        return p;
    }

    *err = NULL;

    return p + len;
}


int
kt_json_hex(unsigned char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }

    c |= 0x20;

    return (c >= 'a' && c <= 'f') ? c - 'a' + 10 : -1;
}


size_t
kt_json_utf8(uint32_t cp, unsigned char *out)
{
    if (cp < 0x80) {
        out[0] = (unsigned char) cp;
        return 1;
    }

    if (cp < 0x800) {
        out[0] = (unsigned char) (0xc0 | (cp >> 6));
        out[1] = (unsigned char) (0x80 | (cp & 0x3f));
        return 2;
    }

    if (cp < 0x10000) {
        out[0] = (unsigned char) (0xe0 | (cp >> 12));
        out[1] = (unsigned char) (0x80 | ((cp >> 6) & 0x3f));
        out[2] = (unsigned char) (0x80 | (cp & 0x3f));
        return 3;
    }

    out[0] = (unsigned char) (0xf0 | (cp >> 18));
    out[1] = (unsigned char) (0x80 | ((cp >> 12) & 0x3f));
    out[2] = (unsigned char) (0x80 | ((cp >> 6) & 0x3f));
    out[3] = (unsigned char) (0x80 | (cp & 0x3f));

    return 4;
}


/* Four hex digits at p, or -1. */

static int32_t
kt_json_hex4(const unsigned char *p, const unsigned char *end)
{
    int      d, i;
    int32_t  v;

    if (end - p < 4) {
        return -1;
    }

    for (v = 0, i = 0; i < 4; i++) {
        d = kt_json_hex(p[i]);
        if (d < 0) {
            return -1;
        }

        v = v * 16 + d;
    }

    return v;
}


/*
 * Decodes the escape whose backslash is at p into out[4]; returns the bytes
 * consumed, 0 when it is broken.
 */

static size_t
kt_json_escape(const unsigned char *p, const unsigned char *end,
    unsigned char *out, size_t *n)
{
    int32_t      hi, lo;
    const char  *e;

    static const char  from[] = "\"\\/bfnrt";
    static const char  to[] = "\"\\/\b\f\n\r\t";

    if (end - p < 2) {
        return 0;
    }

    if (p[1] != 'u') {
        e = p[1] ? strchr(from, p[1]) : NULL;
        if (e == NULL) {
            return 0;
        }

        out[0] = (unsigned char) to[e - from];
        *n = 1;

        return 2;
    }

    hi = kt_json_hex4(p + 2, end);

    if (hi < 0 || (hi >= 0xdc00 && hi <= 0xdfff)) {
        return 0;
    }

    if (hi < 0xd800 || hi > 0xdbff) {
        *n = kt_json_utf8((uint32_t) hi, out);
        return 6;
    }

    if (end - p < 12 || p[6] != '\\' || p[7] != 'u') {
        return 0;
    }

    lo = kt_json_hex4(p + 8, end);
    if (lo < 0xdc00 || lo > 0xdfff) {
        return 0;
    }

    *n = kt_json_utf8(0x10000 + (((uint32_t) hi - 0xd800) << 10)
                      + ((uint32_t) lo - 0xdc00), out);
    return 12;
}


keytoll_rc_t
kt_json_unescape(const unsigned char *p, size_t len, char *out, size_t cap,
    size_t *n)
{
    size_t                k, used;
    unsigned char         c[4];
    const unsigned char  *end;

    *n = 0;
    end = p + len;

    while (p < end) {
        if (*p == '\\') {
            used = kt_json_escape(p, end, c, &k);
            if (used == 0) {
                return KT_INVALID;
            }

        } else {
            c[0] = *p;
            used = 1;
            k = 1;
        }

        if (cap - *n <= k) {
            return KT_NOSPACE;
        }

        memcpy(out + *n, c, k);
        *n += k;
        p += used;
    }

    if (*n >= cap) {
        return KT_NOSPACE;
    }

    out[*n] = '\0';

    return KT_OK;
}


/* Length of the well-formed UTF-8 character at p that is no control; or 0. */

static size_t
kt_json_char(const unsigned char *p, size_t len)
{
    size_t    n, i;
    uint32_t  cp;

    static const uint32_t  least[5] = { 0, 0x20, 0xa0, 0x800, 0x10000 };

    n = p[0] < 0x80 ? 1 : (p[0] & 0xe0) == 0xc0 ? 2
        : (p[0] & 0xf0) == 0xe0 ? 3 : (p[0] & 0xf8) == 0xf0 ? 4 : 0;

    if (n == 0 || n > len) {
        return 0;
    }

    cp = n == 1 ? p[0] : p[0] & (0x7fu >> n);

    for (i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }

        cp = (cp << 6) | (p[i] & 0x3fu);
    }

    if (cp < least[n] || cp == 0x7f || cp > 0x10ffff
        || (cp >= 0xd800 && cp <= 0xdfff))
    {
        return 0;
    }

    return n;
}


keytoll_rc_t
kt_json_clean(const char *p, size_t len)
{
    size_t  n;

    while (len) {
        n = kt_json_char((const unsigned char *) p, len);
        if (n == 0) {
            return KT_RANGE;
        }

        p += n;
        len -= n;
    }

    return KT_OK;
}


/* The length of the character at p, 0 when there is no valid one. */

static size_t
kt_json_utf8_char(const unsigned char *p, size_t left)
{
    size_t  i, n;

    if (p[0] < 0x80) {
        return 1;
    }

    n = p[0] >= 0xc2 && p[0] <= 0xdf ? 2
        : (p[0] & 0xf0) == 0xe0 ? 3
        : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4 : 0;

    if (n == 0 || n > left) {
        return 0;
    }

    for (i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }

    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)
        || (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
    {
        return 0;
    }

    return n;
}


int
kt_json_is_utf8(const unsigned char *p, size_t len)
{
    size_t    n;
    uint64_t  v;

    while (len) {

        if (len >= 8) {
            memcpy(&v, p, 8);

            if ((v & KT_HIGHS) == 0) {
                p += 8;
                len -= 8;
                continue;
            }
        }

        n = kt_json_utf8_char(p, len);
        if (n == 0) {
            return 0;
        }

        p += n;
        len -= n;
    }

    return 1;
}
