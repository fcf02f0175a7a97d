/*
 * kt_sse: events, their payloads and their lengths on the wire must not
 * depend on how the stream was cut; no byte belongs to two events.
 */

#include "fuzz.h"
#include "kt_sse.h"


#define CARRY  48


typedef struct {
    uint64_t  hash;
    uint64_t  pieces;
    uint64_t  raw;
    unsigned  n;
} sum_t;


static void
on_data(void *arg, const unsigned char *p, size_t len)
{
    sum_t  *sum = arg;

    sum->pieces = fuzz_hash(sum->pieces, p, len);
}


static void
note(sum_t *sum, const kt_sse_event_t *ev)
{
    unsigned  flags;

    must(ev->len <= CARRY && ev->name_len <= KT_SSE_NAME);
    must(!ev->overflow || ev->len == 0);
    must(ev->has_data || ev->len == 0);
    must(ev->raw_len > ev->len);

    flags = ev->has_data | ev->overflow * 2u | ev->cut * 4u;

    sum->hash = fuzz_hash(sum->hash, ev->data, ev->len);
    sum->hash = fuzz_hash(sum->hash, ev->name, ev->name_len);
    sum->hash = fuzz_hash(sum->hash, &ev->raw_len, sizeof(ev->raw_len));
    sum->hash = fuzz_hash(sum->hash, &flags, sizeof(flags));
    sum->raw += ev->raw_len;
    sum->n++;
}


static void
feed(kt_sse_t *s, const uint8_t *p, size_t len, sum_t *sum)
{
    size_t          used;
    kt_sse_event_t  ev;

    while (kt_sse_next(s, p, len, &used, &ev) == KT_OK) {
        must(used <= len);
        note(sum, &ev);
        p += used;
        len -= used;
    }

    must(used == len);
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    int             mode;
    sum_t           sum[3];
    size_t          i, n;
    uint8_t        *piece;
    kt_sse_t        s;
    uint64_t        seed;
    kt_sse_event_t  ev;
    unsigned char   carry[CARRY];

    memset(sum, 0, sizeof(sum));

    for (mode = 0; mode < 3; mode++) {
        kt_sse_init(&s, carry, sizeof(carry));
        s.on_data = on_data;
        s.on_data_arg = &sum[mode];

        seed = fuzz_hash(1, p, len);

        for (i = 0; i < len; i += n) {
            n = mode == 0 ? len : mode == 1 ? 1 : fuzz_cut(&seed, len - i);

            /* a copy that is gone with the next feed */

            piece = malloc(n ? n : 1);
            must(piece != NULL);
            memcpy(piece, p + i, n);
            feed(&s, piece, n, &sum[mode]);
            free(piece);
        }

        if (kt_sse_end(&s, &ev) == KT_OK) {
            note(&sum[mode], &ev);
        }

        must(sum[mode].raw <= len);
        must(memcmp(&sum[mode], &sum[0], sizeof(sum_t)) == 0);
    }

    return 0;
}
