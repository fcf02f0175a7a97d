/*
 * Framing of server-sent events; see kt_sse.h.
 *
 * A CR ends a line at once, and an LF right behind it belongs to it.  For the
 * CR of a blank line that matters: the event must not be reported before the
 * next byte is seen, or its LF would be counted into the next event and be
 * left over when the event is cut out of the stream (pending).  A stream that
 * has shown a CR without an LF ends its lines in CR, and is not made to wait
 * (lone_cr).  Both depend on the bytes only, not on how they were fed.
 */

#include <string.h>

#include "kt_json.h"
#include "kt_sse.h"


typedef enum {
    KT_SSE_BOM = 0,                    /* start of the stream               */
    KT_SSE_LINE,                       /* start of a line                   */
    KT_SSE_FIELD,                      /* in the field's name               */
    KT_SSE_COLON,                      /* one space may follow              */
    KT_SSE_VALUE                       /* to the end of the line            */
} kt_sse_state_t;


typedef enum {
    KT_SSE_SKIP = 0,
    KT_SSE_DATA,
    KT_SSE_EVENT
} kt_sse_sink_t;


static const unsigned char  kt_sse_bom[3] = { 0xef, 0xbb, 0xbf };


void
kt_sse_init(kt_sse_t *s, unsigned char *carry, size_t carry_size)
{
    memset(s, 0, sizeof(kt_sse_t));

    s->carry = carry;
    s->carry_size = carry_size;
}


static void
kt_sse_restart(kt_sse_t *s)
{
    s->complete = 0;
    s->pending = 0;
    s->lines = 0;
    s->has_data = 0;
    s->overflow = 0;
    s->carry_len = 0;
    s->ref = NULL;
    s->ref_len = 0;
    s->raw_len = 0;
    s->data_len = 0;
    s->name_len = 0;
}


/* Moves what still lies in the caller's buffer into the carry. */

static void
kt_sse_keep(kt_sse_t *s)
{
    if (s->ref) {
        memcpy(s->carry + s->carry_len, s->ref, s->ref_len);
        s->carry_len += s->ref_len;
        s->ref = NULL;
        s->ref_len = 0;
    }
}


/* The limit is on the payload, so that it is the same however it was fed. */

static void
kt_sse_payload(kt_sse_t *s, const unsigned char *p, size_t len)
{
    if (len == 0) {
        return;
    }

    if (s->on_data) {
        s->on_data(s->on_data_arg, p, len);
    }

    s->data_len += len;

    if (s->data_len > s->carry_size) {
        s->overflow = 1;
        s->ref = NULL;
        s->ref_len = 0;
        s->carry_len = 0;
        return;
    }

    kt_sse_keep(s);

    s->ref = p;
    s->ref_len = len;

    if (s->carry_len) {
        kt_sse_keep(s);
    }
}


static void
kt_sse_field(kt_sse_t *s)
{
    static const unsigned char  lf = '\n';

    s->sink = KT_SSE_SKIP;

    if (s->field_len == 4 && memcmp(s->field, "data", 4) == 0) {
        s->sink = KT_SSE_DATA;

        if (s->has_data) {
            kt_sse_payload(s, &lf, 1);
        }

        s->has_data = 1;

    } else if (s->field_len == 5 && memcmp(s->field, "event", 5) == 0) {
        s->sink = KT_SSE_EVENT;
        s->name_len = 0;
    }
}


static void
kt_sse_value(kt_sse_t *s, const unsigned char *p, size_t len)
{
    size_t  n;

    if (s->sink == KT_SSE_DATA) {
        kt_sse_payload(s, p, len);

    } else if (s->sink == KT_SSE_EVENT) {
        n = KT_SSE_NAME - s->name_len;

        if (n > len) {
            n = len;
        }

        memcpy(s->name + s->name_len, p, n);
        s->name_len = (uint8_t) (s->name_len + n);
    }
}


/* Handles bytes up to the next line end; returns where it stopped. */

static const unsigned char *
kt_sse_text(kt_sse_t *s, const unsigned char *p, const unsigned char *end)
{
    const unsigned char  *e;

    switch (s->state) {

    case KT_SSE_BOM:
        if (*p == kt_sse_bom[s->bom]) {
            if (++s->bom == 3) {
                s->state = KT_SSE_LINE;
            }

            return p + 1;
        }

        s->lines = (s->bom != 0);
        s->field_len = sizeof(s->field);
        s->state = s->bom ? KT_SSE_FIELD : KT_SSE_LINE;
        return p;

    case KT_SSE_LINE:
        s->lines = 1;
        s->field_len = 0;
        s->state = KT_SSE_FIELD;
        return p;

    case KT_SSE_FIELD:
        if (*p == ':') {
            kt_sse_field(s);
            s->state = KT_SSE_COLON;

        } else if (s->field_len < sizeof(s->field)) {
            s->field[s->field_len++] = (char) *p;
        }

        return p + 1;

    case KT_SSE_COLON:
        s->state = KT_SSE_VALUE;
        return *p == ' ' ? p + 1 : p;

    default: /* KT_SSE_VALUE */
        e = kt_json_find2(p, end, '\n', '\r');
        kt_sse_value(s, p, (size_t) (e - p));
        return e;
    }
}


/* A line has ended; returns 1 when it was blank and ended an event. */

static int
kt_sse_line(kt_sse_t *s)
{
    int  blank;

    blank = s->state == KT_SSE_LINE
            || (s->state == KT_SSE_BOM && s->bom == 0);

    if (s->state == KT_SSE_BOM) {
        s->lines = (s->bom != 0);

    } else if (s->state == KT_SSE_FIELD) {
        kt_sse_field(s);
    }

    s->state = KT_SSE_LINE;

    return blank && s->lines;
}


static keytoll_rc_t
kt_sse_report(kt_sse_t *s, kt_sse_event_t *ev)
{
    memset(ev, 0, sizeof(kt_sse_event_t));

    if (s->carry_len) {
        ev->data = s->carry;
        ev->len = s->carry_len;

    } else if (s->ref) {
        ev->data = s->ref;
        ev->len = s->ref_len;

    } else {
        ev->data = s->carry;
    }

    ev->name = s->name;
    ev->name_len = s->name_len;
    ev->raw_len = s->raw_len;
    ev->has_data = s->has_data;
    ev->overflow = s->overflow;

    s->complete = 1;
    s->pending = 0;

    return KT_OK;
}


/*
 * Consumes one line end or some text at p; returns the byte behind.  After it
 * s->complete tells that an event has ended, s->pending that it has if no LF
 * follows.
 */

static const unsigned char *
kt_sse_step(kt_sse_t *s, const unsigned char *p, const unsigned char *end)
{
    if (s->cr) {
        s->cr = 0;

        if (*p == '\n') {
            s->complete = s->pending;
            return p + 1;
        }

        s->lone_cr = 1;

        if (s->pending) {
            s->complete = 1;
            return p;
        }
    }

    if (*p == '\n') {
        s->complete = kt_sse_line(s) != 0;
        return p + 1;
    }

    if (*p == '\r') {
        s->cr = 1;

        if (kt_sse_line(s)) {
            s->complete = s->lone_cr;
            s->pending = !s->lone_cr;
        }

        return p + 1;
    }

    return kt_sse_text(s, p, end);
}


keytoll_rc_t
kt_sse_next(kt_sse_t *s, const unsigned char *p, size_t len, size_t *used,
    kt_sse_event_t *ev)
{
    const unsigned char  *start, *end;

    if (s->complete) {
        kt_sse_restart(s);
    }

    start = p;
    end = len ? p + len : p;                /* NULL and 0 may be passed */

    while (p < end) {
        p = kt_sse_step(s, p, end);

        if (s->complete) {
            *used = (size_t) (p - start);
            s->raw_len += *used;
            return kt_sse_report(s, ev);
        }
    }

    kt_sse_keep(s);

    *used = len;
    s->raw_len += len;

    return KT_AGAIN;
}


keytoll_rc_t
kt_sse_end(kt_sse_t *s, kt_sse_event_t *ev)
{
    int  cut;

    if (s->complete) {
        kt_sse_restart(s);
    }

    cut = !s->pending;

    if (cut) {
        (void) kt_sse_line(s);

        if (!s->lines) {
            return KT_NOTFOUND;
        }
    }

    (void) kt_sse_report(s, ev);
    ev->cut = (cut != 0);

    return KT_OK;
}


int
kt_sse_is_done(const kt_sse_event_t *ev)
{
    size_t  len;

    len = ev->len;

    while (len && ev->data[len - 1] == ' ') {
        len--;
    }

    return len == 6 && memcmp(ev->data, "[DONE]", 6) == 0;
}
