#include <string.h>
#include "kt_schema.h"


static const char  kt_hex_up[] = "0123456789ABCDEF";
static const char  kt_hex_low[] = "0123456789abcdef";


static int
kt_id_plain(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z')
           || (c >= 'a' && c <= 'z') || c == '.' || c == '_' || c == '@'
           || c == '+' || c == '-';
}


static int
kt_hex_value(char c)
{
    if (c >= '0' && c <= '9') { return c - '0'; }
    if (c >= 'a' && c <= 'f') { return c - 'a' + 10; }
    if (c >= 'A' && c <= 'F') { return c - 'A' + 10; }
    return -1;
}


keytoll_rc_t
kt_id_encode(const char *p, size_t len, char *out, size_t size, size_t *outlen)
{
    size_t         i, n;
    unsigned char  c;

    n = 0;

    for (i = 0; i < len; i++) {
        c = (unsigned char) p[i];

        if (kt_id_plain(c)) {
            if (n + 1 >= size) {
                return KT_NOSPACE;
            }

            out[n++] = (char) c;
            continue;
        }

        if (n + 3 >= size) {
            return KT_NOSPACE;
        }

        out[n++] = '%';
        out[n++] = kt_hex_up[c >> 4];
        out[n++] = kt_hex_up[c & 15];
    }

    if (n >= size) {
        return KT_NOSPACE;
    }

    out[n] = '\0';
    *outlen = n;

    return KT_OK;
}


keytoll_rc_t
kt_id_decode(const char *p, size_t len, char *out, size_t size, size_t *outlen)
{
    int     hi, lo;
    char    c;
    size_t  i, n;

    n = 0;

    for (i = 0; i < len; i++) {
        c = p[i];

        if (c == '%') {
            if (len - i < 3) {
                return KT_INVALID;
            }

            hi = kt_hex_value(p[i + 1]);
            lo = kt_hex_value(p[i + 2]);

            if (hi < 0 || lo < 0) {
                return KT_INVALID;
            }

            c = (char) (hi << 4 | lo);
            i += 2;
        }

        if (c == '\0') {
            return KT_INVALID;
        }

        if (n + 1 >= size) {
            return KT_NOSPACE;
        }

        out[n++] = c;
    }

    if (n >= size) {
        return KT_NOSPACE;
    }

    out[n] = '\0';
    *outlen = n;

    return KT_OK;
}


keytoll_rc_t
kt_ent_name(const char *kind, const char *id, size_t len, char *out,
    size_t size, size_t *outlen)
{
    size_t        k, n;
    keytoll_rc_t  rc;

    n = 0;
    k = strlen(kind);

    if (k + 2 > size) {
        return KT_NOSPACE;
    }

    memcpy(out, kind, k);
    out[k++] = ':';
    rc = kt_id_encode(id, len, out + k, size - k, &n);
    *outlen = k + n;

    return rc;
}


keytoll_rc_t
kt_ent_member(const char *team, size_t tlen, const char *user, size_t ulen,
    char *out, size_t size, size_t *outlen)
{
    size_t        k, n;
    keytoll_rc_t  rc;

    k = 0;
    n = 0;
    rc = kt_ent_name("member", team, tlen, out, size, &k);

    if (rc != KT_OK || k + 2 > size) {
        return KT_NOSPACE;
    }

    out[k++] = '/';
    rc = kt_id_encode(user, ulen, out + k, size - k, &n);
    *outlen = k + n;

    return rc;
}


int64_t
kt_rid_ms(const char *rid, size_t len)
{
    int      v;
    size_t   i;
    int64_t  ms;

    if (len != KT_RID_LEN) {
        return -1;
    }

    ms = 0;

    for (i = 0; i < len; i++) {
        v = kt_hex_value(rid[i]);

        if (v < 0 || (rid[i] >= 'A' && rid[i] <= 'F')) {
            return -1;
        }

        if (i < 12) {
            ms = ms << 4 | v;
        }
    }

    return ms;
}


void
kt_rid_make(int64_t ms, const unsigned char rnd[10], char out[KT_RID_LEN + 1])
{
    int  i;

    for (i = 0; i < 12; i++) {
        out[i] = kt_hex_low[(ms >> (44 - 4 * i)) & 15];
    }

    for (i = 0; i < 10; i++) {
        out[12 + 2 * i] = kt_hex_low[rnd[i] >> 4];
        out[13 + 2 * i] = kt_hex_low[rnd[i] & 15];
    }

    out[KT_RID_LEN] = '\0';
}
