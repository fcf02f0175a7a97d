#include "kt_schema.h"
#include "tap.h"


static void
name(const char *kind, const char *id, const char *want)
{
    char    out[KT_ENT_MAX];
    size_t  len;

    len = 0;
    kt_ent_name(kind, id, strlen(id), out, sizeof(out), &len);
    is_mem(out, len, want, want);
}


int
main(void)
{
    int            i, bad;
    char           all[256], enc[KT_ENT_MAX], dec[KT_ENT_MAX], rid[KT_RID_LEN + 1];
    size_t         n, m;
    unsigned char  rnd[10] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 255 };

    name("user", "alice", "user:alice");
    name("user", "a+b@example.org", "user:a+b@example.org");
    name("team", "a b/c:d~e", "team:a%20b%2Fc%3Ad%7Ee");
    name("tag", "100%", "tag:100%25");
    name("user", "\xc3\xbc", "user:%C3%BC");

    n = 0;
    kt_ent_member("a/b", 3, "c d", 3, enc, sizeof(enc), &n);
    is_mem(enc, n, "member:a%2Fb/c%20d", "a member has one plain slash");

    for (i = 1, bad = 0; i < 256; i++) {
        all[i - 1] = (char) i;
    }

    n = m = 0;
    is_int(kt_id_encode(all, 255, enc, sizeof(enc), &n), KT_OK, "every byte encodes");
    is_int(kt_id_decode(enc, n, dec, sizeof(dec), &m), KT_OK, "and decodes");
    ok(m == 255 && memcmp(dec, all, 255) == 0, "to what it was");

    for (i = 0; i < (int) n; i++) {
        bad += enc[i] == ':' || enc[i] == '/' || enc[i] == '~' || enc[i] <= ' ';
    }

    is_int(bad, 0, "no separator survives");

    for (i = 0; i <= (int) n; i++) {
        bad += kt_id_encode(all, 255, enc, (size_t) i, &m) != KT_NOSPACE;
    }

    is_int(bad, 0, "every smaller buffer is refused");
    is_int(kt_id_decode("%0", 2, dec, sizeof(dec), &m), KT_INVALID, "a cut escape");
    is_int(kt_id_decode("%zz", 3, dec, sizeof(dec), &m), KT_INVALID, "a wrong escape");
    is_int(kt_id_decode("%00", 3, dec, sizeof(dec), &m), KT_INVALID, "an encoded NUL");

    kt_rid_make(1763712345123, rnd, rid);
    is_int((int64_t) strlen(rid), KT_RID_LEN, "a rid has 32 digits");
    is_int(kt_rid_ms(rid, 32), 1763712345123, "its time comes back");
    is_mem(rid + 12, 20, "010203040506070809ff", "its random part is there");
    is_int(kt_rid_ms("x", 1), -1, "a short rid is malformed");
    rid[31] = 'F';
    is_int(kt_rid_ms(rid, 32), -1, "upper case is malformed");

    return tap_done();
}
