#include <assert.h>
#include <string.h>
#include "kt_money.h"


typedef struct {
    const char  *digits;        /* first digit of the integer part            */
    size_t       nint;
    const char  *frac;
    size_t       nfrac;
    int          neg;
    int64_t      exp;
} kt_decimal_t;


static int
kt_is_digit(char c)
{
    return c >= '0' && c <= '9';
}


static keytoll_rc_t
kt_decimal_scan(const char *p, size_t len, kt_decimal_t *d)
{
    int          eneg;
    const char  *end;

    end = p + len;
    memset(d, 0, sizeof(*d));

    if (p < end && *p == '-') {
        d->neg = 1;
        p++;
    }

    d->digits = p;
    while (p < end && kt_is_digit(*p)) { p++; }
    d->nint = (size_t) (p - d->digits);

    if (d->nint == 0 || (d->nint > 1 && d->digits[0] == '0')) {
        return KT_INVALID;
    }

    if (p < end && *p == '.') {
        d->frac = ++p;
        while (p < end && kt_is_digit(*p)) { p++; }
        d->nfrac = (size_t) (p - d->frac);

        if (d->nfrac == 0) {
            return KT_INVALID;
        }
    }

    if (p < end && (*p == 'e' || *p == 'E')) {
        eneg = 0;
        p++;

        if (p < end && (*p == '+' || *p == '-')) {
            eneg = (*p++ == '-');
        }

        if (p == end) {
            return KT_INVALID;
        }

        for (; p < end && kt_is_digit(*p); p++) {
            if (d->exp < 100000) {
                d->exp = d->exp * 10 + (*p - '0');
            }
        }

        if (eneg) {
            d->exp = -d->exp;
        }
    }

    return p == end ? KT_OK : KT_INVALID;
}


static int
kt_decimal_digit(const kt_decimal_t *d, size_t i)
{
    if (i < d->nint) {
        return d->digits[i] - '0';
    }

    i -= d->nint;

    return i < d->nfrac ? d->frac[i] - '0' : 0;
}


keytoll_rc_t
kt_money_parse(const char *p, size_t len, int scale, int64_t *out)
{
    int           digit;
    size_t        i, total;
    int64_t       keep;
    uint64_t      v, max;
    kt_decimal_t  d;

    if (len > 1024 || kt_decimal_scan(p, len, &d) != KT_OK) {
        return KT_INVALID;
    }

    /* how many leading digits lie at or above 10^-scale */

    keep = (int64_t) d.nint + d.exp + scale;
    total = d.nint + d.nfrac;
    max = (uint64_t) INT64_MAX;
    v = 0;

    for (i = 0; keep > 0 && i < (size_t) keep; i++) {
        if (i >= total && v == 0) {
            break;                          /* zero however large the exponent */
        }

        digit = kt_decimal_digit(&d, i);

        if (v > (max - (uint64_t) digit) / 10) {
            return KT_RANGE;
        }

        v = v * 10 + (uint64_t) digit;
    }

    if (keep >= 0 && (size_t) keep < total
        && kt_decimal_digit(&d, (size_t) keep) >= 5)
    {
        if (v == max) {
            return KT_RANGE;
        }

        v++;
    }

    *out = d.neg ? -(int64_t) v : (int64_t) v;

    return KT_OK;
}


size_t
kt_money_format(int64_t v, int scale, char *out)
{
    int       i, n, last;
    char      digits[24];
    size_t    len;
    uint64_t  u;

    assert(scale >= 0 && scale <= 18);

    u = v < 0 ? 0 - (uint64_t) v : (uint64_t) v;
    n = 0;

    do {
        digits[n++] = (char) ('0' + (int) (u % 10));
        u /= 10;
    } while (u != 0 || n <= scale);

    len = 0;

    if (v < 0) {
        out[len++] = '-';
    }

    for (i = n - 1; i >= scale; i--) {
        out[len++] = digits[i];
    }

    for (last = 0; last < scale - 1 && digits[last] == '0'; last++) { /* void */ }

    out[len++] = '.';

    for (i = scale - 1; i >= last; i--) {
        out[len++] = digits[i];
    }

    out[len] = '\0';

    return len;
}


keytoll_rc_t
kt_int_parse(const char *p, size_t len, int64_t *out)
{
    kt_decimal_t  d;

    if (len > 64 || kt_decimal_scan(p, len, &d) != KT_OK
        || d.frac != NULL || memchr(p, 'e', len) || memchr(p, 'E', len))
    {
        return KT_INVALID;
    }

    return kt_money_parse(p, len, 0, out);
}
