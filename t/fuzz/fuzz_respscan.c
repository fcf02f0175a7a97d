/*
 * kt_respscan: the result must not depend on how the input was cut.
 */

#include "fuzz.h"
#include "kt_respscan.h"


typedef struct {
    uint64_t  hash;
    unsigned  n;
} sum_t;


static void
on_usage(void *data, const unsigned char *obj, size_t len)
{
    sum_t  *sum = data;

    must(len >= 2 && len <= KT_RESP_USAGE);
    must(obj[0] == '{' && obj[len - 1] == '}');

    sum->hash = fuzz_hash(sum->hash, obj, len);
    sum->n++;
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    int           mode;
    size_t        i, n;
    sum_t         sum[3];
    uint64_t      seed;
    keytoll_rc_t  rc[3];

    static kt_respscan_t  s[3];

    for (mode = 0; mode < 3; mode++) {
        sum[mode].hash = 0;
        sum[mode].n = 0;
        kt_respscan_init(&s[mode], on_usage, &sum[mode]);

        seed = fuzz_hash(1, p, len);

        for (i = 0; i < len; i += n) {
            n = mode == 0 ? len : mode == 1 ? 1 : fuzz_cut(&seed, len - i);
            kt_respscan_feed(&s[mode], p + i, n);
        }

        rc[mode] = kt_respscan_end(&s[mode]);

        must(sum[mode].n == s[mode].nusage);
        must(s[mode].id_len <= KT_RESP_ID && s[mode].type_len <= KT_RESP_TYPE);
        must(s[mode].delta_bytes >= 0
             && s[mode].delta_bytes <= (int64_t) len * 3);
    }

    for (mode = 1; mode < 3; mode++) {
        must(rc[mode] == rc[0]);
        must(sum[mode].hash == sum[0].hash && sum[mode].n == sum[0].n);
        must(s[mode].delta_bytes == s[0].delta_bytes);
        must(s[mode].id_len == s[0].id_len
             && memcmp(s[mode].id, s[0].id, s[0].id_len) == 0);
        must(s[mode].type_len == s[0].type_len
             && memcmp(s[mode].type, s[0].type, s[0].type_len) == 0);
        must(s[mode].has_choices == s[0].has_choices
             && s[mode].choices_empty == s[0].choices_empty
             && s[mode].error == s[0].error
             && s[mode].overflow == s[0].overflow
             && s[mode].bad == s[0].bad && s[mode].done == s[0].done);
    }

    return 0;
}
