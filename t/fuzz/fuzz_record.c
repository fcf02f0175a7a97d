/*
 * kt_record: any journal.  What reads can be written again to the same bytes;
 * a changed byte is never read as another record; nothing is read behind the
 * end.
 */

#include "fuzz.h"
#include "kt_record.h"


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    size_t                 at, n, m;
    kt_record_t            rec, made;
    static unsigned char   buf[KT_RECORD_MAX];

    for (at = 0; kt_record_read(p + at, len - at, &rec, &n) == KT_OK; at += n) {
        must(n >= KT_RECORD_HEAD + 1 && n <= len - at);
        must(kt_record_size(&rec) == n);
        must(kt_record_write(&rec, buf, sizeof(buf), &m) == KT_OK);
        must(m == n && memcmp(buf, p + at, n) == 0);
        must(kt_record_read(p + at, n - 1, &made, &m) != KT_OK);
    }

    /* the input as fields of a record of our own */

    made.type = KT_RECORD_SETTLE;
    made.nfields = (unsigned) (len % (KT_RECORD_FIELDS + 1));

    for (n = 0; n < made.nfields; n++) {
        made.field[n].data = p + n * len / made.nfields;
        made.field[n].len = (n + 1) * len / made.nfields
                            - n * len / made.nfields;
    }

    if (kt_record_write(&made, buf, sizeof(buf), &m) != KT_OK) {
        return 0;
    }

    must(kt_record_read(buf, m, &rec, &n) == KT_OK);
    must(n == m && rec.nfields == made.nfields);

    for (n = 0; n < rec.nfields; n++) {
        must(rec.field[n].len == made.field[n].len);
        must(rec.field[n].len == 0
             || memcmp(rec.field[n].data, made.field[n].data,
                       rec.field[n].len) == 0);
    }

    if (len) {
        buf[p[0] % m] ^= (unsigned char) (1 << (p[len / 2] & 7));
        must(kt_record_read(buf, m, &rec, &n) != KT_OK);
    }

    return 0;
}
