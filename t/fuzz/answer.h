/*
 * An answer on its way through framing, scanner and usage, as the gate reads
 * it: fed in pieces, summed up in the end.
 */

#ifndef KT_ANSWER_H
#define KT_ANSWER_H


#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kt_respscan.h"
#include "kt_sse.h"
#include "kt_usage.h"


typedef struct {
    int            sse;
    kt_shape_t     shape;
    kt_usage_t     usage;
    unsigned       nusage;
    unsigned       events;
    int64_t        delta_bytes;
    int            service;            /* -1: none was told                 */
    int64_t        dur_ms;             /* -1: likewise                      */
    int            bad;                /* a payload could not be read whole */
    kt_respscan_t  scan;
    kt_sse_t       frame;
    unsigned char  carry[64];
} answer_t;


static void
answer_usage(void *data, const unsigned char *obj, size_t len)
{
    answer_t  *a = data;

    a->nusage++;
    (void) kt_usage_merge(&a->usage, a->shape, obj, len);
}


static void
answer_data(void *data, const unsigned char *p, size_t len)
{
    answer_t  *a = data;

    kt_respscan_feed(&a->scan, p, len);
}


static inline void
answer_init(answer_t *a, int sse, kt_shape_t shape)
{
    memset(a, 0, sizeof(answer_t));
    a->sse = sse;
    a->shape = shape;
    a->service = -1;
    a->dur_ms = -1;
    kt_respscan_init(&a->scan, answer_usage, a);
    kt_sse_init(&a->frame, a->carry, sizeof(a->carry));
    a->frame.on_data = answer_data;
    a->frame.on_data_arg = a;
}


static inline void
answer_facts(answer_t *a)
{
    a->delta_bytes += a->scan.delta_bytes;
    a->bad |= a->scan.bad || a->scan.overflow;

    if (a->scan.tier_len) {
        a->service = (int) kt_usage_service(a->scan.tier, a->scan.tier_len);
    }

    if (a->scan.dur_len) {
        a->dur_ms = kt_usage_ms(a->scan.duration, a->scan.dur_len);
    }
}


static inline void
answer_event(answer_t *a)
{
    a->events++;
    answer_facts(a);
    kt_respscan_init(&a->scan, answer_usage, a);
}


static inline void
answer_feed(answer_t *a, const unsigned char *p, size_t len)
{
    size_t          used;
    kt_sse_event_t  ev;

    if (!a->sse) {
        kt_respscan_feed(&a->scan, p, len);
        return;
    }

    for ( /* void */ ; len; p += used, len -= used) {
        if (kt_sse_next(&a->frame, p, len, &used, &ev) == KT_OK) {
            answer_event(a);
        }
    }
}


static inline void
answer_end(answer_t *a)
{
    kt_sse_event_t  ev;

    if (!a->sse) {
        answer_facts(a);

    } else if (kt_sse_end(&a->frame, &ev) == KT_OK) {
        answer_event(a);
    }
}


static inline int
answer_same(const answer_t *a, const answer_t *b)
{
    return memcmp(&a->usage, &b->usage, sizeof(kt_usage_t)) == 0
           && a->nusage == b->nusage && a->events == b->events
           && a->delta_bytes == b->delta_bytes && a->service == b->service
           && a->dur_ms == b->dur_ms;
}


#endif
