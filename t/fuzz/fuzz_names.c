/*
 * kt_schema, kt_key and kt_duration: any id, key or duration.  Encoded ids
 * decode to themselves and hold nothing that separates fields; every rid that
 * reads is 32 hexadecimal digits; a period holds the second it was made for.
 */

#include "fuzz.h"
#include "kt_duration.h"
#include "kt_key.h"
#include "kt_schema.h"


static void
fuzz_id(const char *p, size_t len)
{
    char          out[4 * KT_ENT_MAX], back[4 * KT_ENT_MAX];
    size_t        n, m, i;
    keytoll_rc_t  rc;

    rc = kt_id_encode(p, len, out, sizeof(out), &n);

    if (rc == KT_OK) {
        must(strlen(out) == n);

        for (i = 0; i < n; i++) {
            must(out[i] > ' ' && out[i] < 0x7f && strchr("/:\t~", out[i]) == NULL);
        }

        rc = kt_id_decode(out, n, back, sizeof(back), &m);
        must(rc == (memchr(p, 0, len) ? KT_INVALID : KT_OK));
        must(rc != KT_OK || (m == len && memcmp(back, p, len) == 0));
    }

    if (kt_id_decode(p, len, out, sizeof(out), &n) == KT_OK) {
        must(n <= len && memchr(out, 0, n) == NULL);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    char           token[KT_KEY_TOKEN_LEN + 1];
    int64_t        now_s;
    kt_period_t    period;
    kt_duration_t  d;

    fuzz_id((const char *) p, len);

    must(kt_rid_ms((const char *) p, len) < 0 || len == KT_RID_LEN);

    if (kt_key_check((const char *) p, len) == KT_KEY_OWN) {
        must(len == KT_KEY_LEN);
    }

    if (kt_key_custom_ok((const char *) p, len) == KT_OK) {
        must(kt_key_check((const char *) p, len) != KT_KEY_BAD);
    }

    kt_key_token((const char *) p, len, token);
    must(strlen(token) == KT_KEY_TOKEN_LEN);

    now_s = len >= 4 ? (int64_t) (p[0] | p[1] << 8 | p[2] << 16) * 256 : 0;

    if (kt_duration_parse((const char *) p, len, &d) == KT_OK) {
        must(kt_duration_add(&d, now_s) >= now_s);

        if (kt_period_start(&d, now_s, &period) == KT_OK) {
            must(period.id <= now_s && now_s < period.end_s);
            must(kt_period_roll(&period, period.end_s) == 1);
        }
    }

    return 0;
}
