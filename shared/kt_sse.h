/*
 * Framing of server-sent events (text/event-stream), incremental.  Lines end
 * in LF, CRLF or CR; an event ends at a blank line.
 */

#ifndef KT_SSE_H
#define KT_SSE_H


#include <stddef.h>
#include <stdint.h>

#include "kt_rc.h"


#define KT_SSE_NAME      48            /* event field, cut beyond           */


typedef struct {
    const unsigned char  *data;        /* data lines joined by LF           */
    size_t                len;
    const char           *name;        /* event field, not NUL terminated   */
    size_t                name_len;
    uint64_t              raw_len;     /* bytes on the wire, end included   */
    unsigned              has_data:1;  /* 0: only comments or other fields  */
    unsigned              overflow:1;  /* the payload did not fit: len is 0 */
    unsigned              cut:1;       /* from kt_sse_end(): no blank line  */
} kt_sse_event_t;


/*
 * Called with each piece of a payload as it is consumed, before the event is
 * complete and whether or not it fits the carry.
 */
typedef void (*kt_sse_data_pt)(void *data, const unsigned char *p,
    size_t len);


typedef struct {
    unsigned char        *carry;
    size_t                carry_size;
    size_t                carry_len;

    kt_sse_data_pt        on_data;     /* may be set after init             */
    void                 *on_data_arg;

    const unsigned char  *ref;         /* payload still in the caller's p   */
    size_t                ref_len;
    uint64_t              raw_len;
    uint64_t              data_len;

    uint8_t               state;
    uint8_t               sink;
    uint8_t               field_len;
    uint8_t               name_len;
    uint8_t               bom;
    unsigned              cr:1;        /* the last byte was CR              */
    unsigned              lone_cr:1;   /* this stream ends lines in CR      */
    unsigned              complete:1;  /* reported, start over              */
    unsigned              pending:1;   /* complete but for a possible LF    */
    unsigned              lines:1;     /* the event has a line              */
    unsigned              has_data:1;
    unsigned              overflow:1;

    char                  field[8];
    char                  name[KT_SSE_NAME];
} kt_sse_t;


/* carry holds payloads that were cut by a feed, or have several lines. */
void kt_sse_init(kt_sse_t *s, unsigned char *carry, size_t carry_size);

/*
 * Consumes p up to and including the blank line of the next event; *used is
 * the number of bytes taken, in both results.
 *
 *   KT_OK     *ev is an event, valid until the next call on s and as long as
 *             p is.  *used may be 0 (an event that waited for a possible LF).
 *             Call again with the rest.
 *   KT_AGAIN  all of p is consumed
 *
 * A block of comments or unknown fields alone is an event without has_data,
 * so that keep-alives can be passed on at once.  Further blank lines count
 * into the raw_len of the event that follows.  A payload longer than the
 * carry is dropped (overflow) and framing goes on with the next event.
 */
keytoll_rc_t kt_sse_next(kt_sse_t *s, const unsigned char *p, size_t len,
    size_t *used, kt_sse_event_t *ev);

/*
 * No more input.  KT_OK: *ev is the last event, which had no blank line (cut
 * is set) or waited for a possible LF; KT_NOTFOUND: nothing is left.
 */
keytoll_rc_t kt_sse_end(kt_sse_t *s, kt_sse_event_t *ev);

/* 1 when the payload is [DONE]. */
int kt_sse_is_done(const kt_sse_event_t *ev);


#endif
