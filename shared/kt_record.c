/*
 * Encoding and decoding of journal records.
 */

#include <string.h>

#include "kt_key.h"
#include "kt_record.h"


static const unsigned char  kt_record_mark[4] = { 'K', 'T', 'J', '1' };


static void
kt_put32(unsigned char *p, size_t v)
{
    p[0] = (unsigned char) (v & 0xff);
    p[1] = (unsigned char) ((v >> 8) & 0xff);
    p[2] = (unsigned char) ((v >> 16) & 0xff);
    p[3] = (unsigned char) ((v >> 24) & 0xff);
}


static size_t
kt_get32(const unsigned char *p)
{
    return (size_t) p[0] | (size_t) p[1] << 8 | (size_t) p[2] << 16
           | (size_t) p[3] << 24;
}


size_t
kt_record_size(const kt_record_t *rec)
{
    size_t    n;
    unsigned  i;

    n = KT_RECORD_HEAD + 1;

    for (i = 0; i < rec->nfields; i++) {
        n += 4 + rec->field[i].len;
    }

    return n;
}


keytoll_rc_t
kt_record_write(const kt_record_t *rec, unsigned char *buf, size_t size,
    size_t *n)
{
    size_t          need;
    unsigned        i;
    unsigned char  *p;

    need = kt_record_size(rec);

    if (rec->nfields > KT_RECORD_FIELDS || need > KT_RECORD_MAX) {
        return KT_RANGE;
    }

    if (need > size) {
        return KT_NOSPACE;
    }

    p = buf + KT_RECORD_HEAD;
    *p++ = (unsigned char) rec->type;

    for (i = 0; i < rec->nfields; i++) {
        kt_put32(p, rec->field[i].len);
        p += 4;

        if (rec->field[i].len) {
            memcpy(p, rec->field[i].data, rec->field[i].len);
            p += rec->field[i].len;
        }
    }

    memcpy(buf, kt_record_mark, 4);
    kt_put32(buf + 4, need - KT_RECORD_HEAD);
    kt_put32(buf + 8, kt_key_crc32((const char *) buf + KT_RECORD_HEAD,
                                   need - KT_RECORD_HEAD));
    *n = need;

    return KT_OK;
}


keytoll_rc_t
kt_record_read(const unsigned char *p, size_t len, kt_record_t *rec, size_t *n)
{
    size_t                 size, flen;
    const unsigned char   *end;

    if (len < KT_RECORD_HEAD) {
        return KT_AGAIN;
    }

    size = kt_get32(p + 4);

    if (memcmp(p, kt_record_mark, 4) != 0 || size == 0
        || size > KT_RECORD_MAX)
    {
        return KT_INVALID;
    }

    if (len - KT_RECORD_HEAD < size) {
        return KT_AGAIN;
    }

    if (kt_get32(p + 8)
        != kt_key_crc32((const char *) p + KT_RECORD_HEAD, size))
    {
        return KT_INVALID;
    }

    *n = KT_RECORD_HEAD + size;
    end = p + *n;
    p += KT_RECORD_HEAD;

    rec->type = (kt_record_type_t) *p++;
    rec->nfields = 0;

    while (p < end) {

        if (rec->nfields == KT_RECORD_FIELDS || end - p < 4) {
            return KT_INVALID;
        }

        flen = kt_get32(p);
        p += 4;

        if (flen > (size_t) (end - p)) {
            return KT_INVALID;
        }

        rec->field[rec->nfields].data = p;
        rec->field[rec->nfields].len = flen;
        rec->nfields++;
        p += flen;
    }

    return KT_OK;
}
