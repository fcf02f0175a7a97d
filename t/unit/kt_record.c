/*
 * Journal records: what is written reads back, torn tails end the reading.
 */

#include "kt_record.h"
#include "tap.h"


int
main(void)
{
    size_t         n, m, i, cut;
    kt_record_t    rec, got;
    unsigned char  buf[512];

    memset(&rec, 0, sizeof(rec));
    rec.type = KT_RECORD_DISPATCH;
    rec.nfields = 3;
    rec.field[0].data = (const unsigned char *) "rid";
    rec.field[0].len = 3;
    rec.field[2].data = (const unsigned char *) "hold\n=\t1";
    rec.field[2].len = 8;

    is_int(kt_record_write(&rec, buf, sizeof(buf), &n), KT_OK, "writes");
    is_int((int64_t) n, (int64_t) kt_record_size(&rec), "as many bytes as it said");
    is_int(kt_record_write(&rec, buf, n - 1, &m), KT_NOSPACE, "a buffer too small");
    is_int(kt_record_write(&rec, buf, sizeof(buf), &n), KT_OK, "writes again");

    is_int(kt_record_read(buf, n, &got, &m), KT_OK, "reads");
    is_int((int64_t) m, (int64_t) n, "all of it");
    is_int(got.type, KT_RECORD_DISPATCH, "type");
    is_int(got.nfields, 3, "fields");
    is_int((int64_t) got.field[1].len, 0, "an empty field");
    ok(memcmp(got.field[2].data, "hold\n=\t1", 8) == 0, "bytes");

    for (cut = 0, i = 0; i < n; i++) {
        cut += kt_record_read(buf, i, &got, &m) == KT_AGAIN;
    }

    is_int((int64_t) cut, (int64_t) n, "a torn record asks for more, at every length");

    for (cut = 0, i = 0; i < n; i++) {
        buf[i] ^= 1;
        cut += kt_record_read(buf, n, &got, &m) != KT_OK;
        buf[i] ^= 1;
    }

    is_int((int64_t) cut, (int64_t) n, "a flipped bit is noticed, in every byte");

    return tap_done();
}
