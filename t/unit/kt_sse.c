/*
 * kt_sse: events as they are framed, and that no way of cutting the stream
 * makes a difference, raw lengths included.
 */

#include "kt_sse.h"
#include "tap.h"


static unsigned char  carry[64];
static char           out[2048], seen[2048];
static uint64_t       raw_total;


static void
note(const kt_sse_event_t *ev)
{
    size_t  n;

    n = strlen(out);
    snprintf(out + n, sizeof(out) - n, "[%.*s|%.*s|%d%s%s%s]",
             (int) ev->name_len, ev->name, (int) ev->len,
             ev->len ? (const char *) ev->data : "", (int) ev->raw_len,
             ev->has_data ? "" : " none", ev->overflow ? " over" : "",
             ev->cut ? " cut" : "");
    raw_total += ev->raw_len;
}


static void
on_data(void *arg, const unsigned char *p, size_t len)
{
    strncat(arg, (const char *) p, len);
}


static void
feed(kt_sse_t *s, const char *text, size_t len)
{
    size_t          used;
    kt_sse_event_t  ev;

    for ( ;; ) {
        if (kt_sse_next(s, (const unsigned char *) text, len, &used, &ev)
            == KT_AGAIN)
        {
            return;
        }

        note(&ev);
        text += used;
        len -= used;
    }
}


static const char *
run(const char *text, size_t a, size_t b)
{
    kt_sse_t        s;
    kt_sse_event_t  ev;

    out[0] = '\0';
    seen[0] = '\0';
    raw_total = 0;

    kt_sse_init(&s, carry, sizeof(carry));
    s.on_data = on_data;
    s.on_data_arg = seen;

    feed(&s, text, a);
    feed(&s, text + a, b - a);
    feed(&s, text + b, strlen(text + b));

    if (kt_sse_end(&s, &ev) == KT_OK) {
        note(&ev);
    }

    return out;
}


#define TEN  "0123456789"

static const struct {
    const char  *text;
    const char  *want;
} golden[] = {
    { "data: a\n\ndata: b\n\n", "[|a|9][|b|9]" },
    { "data: a\r\n\r\ndata: b\r\n\r\n", "[|a|11][|b|11]" },
    { "data: a\r\rdata: b\r\r", "[|a|9][|b|9]" },
    { "data:a\n\n", "[|a|8]" },
    { "data:  a \n\n", "[| a |11]" },
    { "data: a\ndata: b\n\n", "[|a\nb|17]" },
    { "data:\ndata: b\n\n", "[|\nb|15]" },
    { "data\n\n", "[||6]" },
    { "data: a: b\n\n", "[|a: b|12]" },
    { "event: ping\ndata: {}\n\n", "[ping|{}|22]" },
    { "data: {}\r\nevent: x\r\n\r\n", "[x|{}|22]" },
    { "event: a\nevent: bc\ndata: 1\n\n", "[bc|1|28]" },
    { ": hi\n\ndata: a\n\n", "[||6 none][|a|9]" },
    { "id: 3\nretry: 5\n\n", "[||16 none]" },
    { "dat: a\ndatas: b\ndatabase: c\n\n", "[||29 none]" },
    { "\n\n\ndata: a\n\n\n\ndata: b\n\n", "[|a|12][|b|11]" },
    { "data: a\n\n\n", "[|a|9]" },
    { "\xef\xbb\xbf" "data: a\n\n", "[|a|12]" },
    { "\xef\xbb" "data: a\n\n", "[||11 none]" },
    { "\xef\n\ndata: a\n\n", "[||3 none][|a|9]" },
    { "data: a", "[|a|7 cut]" },
    { "data: a\n", "[|a|8 cut]" },
    { "data: a\r\n\r", "[|a|10]" },
    { "dat", "[||3 none cut]" },
    { "data", "[||4 cut]" },
    { "", "" },
    { "\n\r\n", "" },
    { "data: a\n\r\ndata: b\r\n\n", "[|a|10][|b|10]" },
    { "data: a\r\r\ndata: b\n\n", "[|a|9][|b|10]" },
    { "data: " TEN TEN TEN TEN TEN TEN "1234\n\n",
      "[|" TEN TEN TEN TEN TEN TEN "1234|72]" },
    { "data: " TEN TEN TEN TEN TEN TEN "12345\n\ndata: b\n\n",
      "[||73 over][|b|9]" },
    { "data: " TEN TEN TEN "\ndata: " TEN TEN TEN "\ndata: a\ndata: b\n\n"
      "event: e\ndata: b\n\n", "[||91 over][e|b|18]" },
    { "event: " TEN TEN TEN TEN TEN "\ndata: b\n\n",
      "[" TEN TEN TEN TEN "01234567|b|67]" },
};


static void
frames(void)
{
    int     same;
    char    name[32], first[2048];
    size_t  i, a, b, len;

    for (i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
        snprintf(name, sizeof(name), "stream %zu", i);
        is_str(run(golden[i].text, 0, 0), golden[i].want, name);

        strcpy(first, seen);
        len = strlen(golden[i].text);
        same = 1;

        for (a = 0; a <= len; a++) {
            for (b = a; b <= len; b++) {
                same &= strcmp(run(golden[i].text, a, b), golden[i].want) == 0
                        && strcmp(first, seen) == 0;
            }
        }

        ok(same, "%s, cut at every two offsets", name);
    }

    (void) run("data: a\n\n: x\n\nevent: b\ndata: c\n\n", 0, 0);
    is_int((int64_t) raw_total, 32, "every byte belongs to an event");
    is_str(seen, "ac", "the pieces of the payload");
}


static void
places(void)
{
    kt_sse_t              s;
    size_t                used;
    kt_sse_event_t        ev;
    const unsigned char  *p;

    kt_sse_init(&s, carry, sizeof(carry));

    p = (const unsigned char *) "event: x\ndata: [DONE]\n\nrest";
    is_int(kt_sse_next(&s, p, 27, &used, &ev), KT_OK, "a whole event");
    ok(ev.data == p + 15, "... stays in place");
    is_int((int64_t) used, 23, "... and stops behind itself");
    ok(kt_sse_is_done(&ev), "it is [DONE]");

    p = (const unsigned char *) "data: [DON";
    is_int(kt_sse_next(&s, p, 10, &used, &ev), KT_AGAIN, "a part");
    is_int((int64_t) used, 10, "... is consumed");
    is_int(kt_sse_next(&s, (const unsigned char *) "E] \n\n", 5, &used, &ev),
           KT_OK, "the rest");
    ok(ev.data == carry, "... is in the carry");
    ok(kt_sse_is_done(&ev), "... and still [DONE]");

    (void) kt_sse_next(&s, (const unsigned char *) "data: [DONE\n\n", 13,
                       &used, &ev);
    ok(!kt_sse_is_done(&ev), "[DONE is not");

    (void) kt_sse_next(&s, (const unsigned char *) "data: a\r\n\r", 10, &used,
                       &ev);
    is_int(kt_sse_next(&s, (const unsigned char *) "data: b\n\n", 9, &used,
                       &ev), KT_OK, "an event that waited for its LF");
    is_int((int64_t) used, 0, "... takes nothing");
    is_mem(ev.data, ev.len, "a", "... and is the one");
    is_int(kt_sse_next(&s, NULL, 0, &used, &ev), KT_AGAIN, "no input");
}


int
main(void)
{
    frames();
    places();

    return tap_done();
}
