/*
 * kt_respscan: what is captured, and that no way of cutting the input makes a
 * difference.
 */

#include "kt_respscan.h"
#include "tap.h"


static kt_respscan_t  s;
static char           usages[20000];


static void
on_usage(void *data, const unsigned char *obj, size_t len)
{
    char  *p = data;

    p += strlen(p);
    memcpy(p, obj, len);
    p[len] = '|';
    p[len + 1] = '\0';
}


/* Feeds the text in pieces that end at a, at b, and at the end. */

static keytoll_rc_t
feed(const char *text, size_t len, size_t a, size_t b)
{
    const unsigned char  *p = (const unsigned char *) text;

    usages[0] = '\0';
    kt_respscan_init(&s, on_usage, usages);
    kt_respscan_feed(&s, p, a);
    kt_respscan_feed(&s, p + a, b - a);
    kt_respscan_feed(&s, p + b, len - b);

    return kt_respscan_end(&s);
}


static keytoll_rc_t
scan(const char *text)
{
    return feed(text, strlen(text), 0, 0);
}


/* Everything that the scan has to say, as text. */

static const char *
summary(keytoll_rc_t rc, char *out, size_t cap)
{
    snprintf(out, cap,
             "%d id=%.130s type=%s usage=%.200s delta=%d%s%s%s%s%s",
             rc, s.id, s.type, usages, (int) s.delta_bytes,
             s.has_choices ? " choices" : "", s.choices_empty ? " empty" : "",
             s.error ? " error" : "", s.overflow ? " overflow" : "",
             s.bad ? " bad" : "");

    return out;
}


static const struct {
    const char  *text;
    const char  *want;
} golden[] = {
    { "{\"id\":\"chatcmpl-1\",\"choices\":[{\"message\":{\"content\":\"x\"}}],"
      "\"usage\":{\"prompt_tokens\":1,\"d\":{\"a\":[{}]}}}",
      "0 id=chatcmpl-1 type= usage={\"prompt_tokens\":1,\"d\":{\"a\":[{}]}}| "
      "delta=0 choices" },
    { "{\"id\":\"c\",\"choices\":[],\"usage\":{ \"a\" : 1 } }",
      "0 id=c type= usage={ \"a\" : 1 }| delta=0 choices empty" },
    { "{\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":"
      "\"assistant\",\"content\":\"h\\u00e9\\ud83d\\ude00\\n\"}}],"
      "\"usage\":null}",
      "0 id=c type= usage= delta=8 choices" },
    { "{\"choices\":[{\"text\":\"abc\"},{\"text\":\"de\"}]}",
      "0 id= type= usage= delta=5 choices" },
    { "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"call_1\","
      "\"type\":\"function\",\"function\":{\"name\":\"f\","
      "\"arguments\":\"{}\"}}]}}]}",
      "0 id= type= usage= delta=3 choices" },
    { "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"usage\":"
      "{\"input_tokens\":5}}}",
      "0 id=msg_1 type=message_start usage={\"input_tokens\":5}| delta=0" },
    { "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
      "\"text_delta\",\"text\":\"hello\"}}",
      "0 id= type=content_block_delta usage= delta=5" },
    { "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\","
      "\"stop_sequence\":null},\"usage\":{\"output_tokens\":9}}",
      "0 id= type=message_delta usage={\"output_tokens\":9}| delta=0" },
    { "{\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\","
      "\"error\":null,\"usage\":{\"input_tokens\":5}}}",
      "0 id=resp_1 type=response.completed usage={\"input_tokens\":5}| "
      "delta=0" },
    { "{\"type\":\"response.output_text.delta\",\"delta\":\"abc\"}",
      "0 id= type=response.output_text.delta usage= delta=3" },
    { "{\"response\":{\"id\":\"inner\"},\"id\":\"outer\"}",
      "0 id=outer type= usage= delta=0" },
    { "{\"id\":\"outer\",\"response\":{\"id\":\"inner\"}}",
      "0 id=outer type= usage= delta=0" },
    { "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"ab\"}],\"role\":"
      "\"model\"}}],\"usageMetadata\":{\"promptTokenCount\":1},"
      "\"responseId\":\"r1\"}",
      "0 id=r1 type= usage={\"promptTokenCount\":1}| delta=2" },
    { "[{\"usageMetadata\":{\"a\":1}},{\"usageMetadata\":{\"a\":2}}]",
      "0 id= type= usage={\"a\":1}|{\"a\":2}| delta=0" },
    { "{\"us\\u0061ge\":{\"a\":\"}\\\"\"}}",
      "0 id= type= usage={\"a\":\"}\\\"\"}| delta=0" },
    { "{\"a\":{\"usage\":{\"a\":1},\"id\":\"no\",\"error\":1,\"type\":\"x\"},"
      "\"usage\":[{\"a\":1}]}",
      "0 id= type= usage= delta=0" },
    { "{\"error\":{\"message\":\"no\"}}",
      "0 id= type= usage= delta=0 error" },
    { "{\"error\":null}", "0 id= type= usage= delta=0" },
    { "{\"id\":7,\"type\":null,\"choices\":{}}",
      "0 id= type= usage= delta=0" },
    { "{\"id\":\"a\\ud83dz\\ude00\"}",
      "0 id=a\xef\xbf\xbdz\xef\xbf\xbd type= usage= delta=0" },
    { " 12 ", "0 id= type= usage= delta=0" },
    { "null", "0 id= type= usage= delta=0" },
    { "", "1 id= type= usage= delta=0" },
    { "{\"usage\":{\"a\":1}", "1 id= type= usage={\"a\":1}| delta=0" },
    { "{\"usage\":{\"a\":", "1 id= type= usage= delta=0" },
    { "{\"usage\":{\"a\":]},\"usage\":{}}",
      "-1 id= type= usage= delta=0 bad" },
    { "{\"usage\":{}}{", "-1 id= type= usage={}| delta=0 bad" },
    { "{\"usage\":{},}", "-1 id= type= usage={}| delta=0 bad" },
    { "{\"a\" 1}", "-1 id= type= usage= delta=0 bad" },
    { "{\"id\":\"\\q\"}", "-1 id= type= usage= delta=0 bad" },
    { "<html>", "-1 id= type= usage= delta=0 bad" },
};


static void
captures(void)
{
    char    buf[512], name[32];
    size_t  i;

    for (i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
        snprintf(name, sizeof(name), "capture %zu", i);
        is_str(summary(scan(golden[i].text), buf, sizeof(buf)),
               golden[i].want, name);
    }
}


static void
cuts(void)
{
    int     same;
    char    buf[512];
    size_t  i, a, b, len;

    for (i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
        len = strlen(golden[i].text);
        same = 1;

        for (a = 0; a <= len; a++) {
            for (b = a; b <= len; b++) {
                same &= strcmp(summary(feed(golden[i].text, len, a, b), buf,
                                       sizeof(buf)),
                               golden[i].want) == 0;
            }
        }

        ok(same, "capture %zu, cut at every two offsets", i);
    }
}


static void
limits(void)
{
    char    text[KT_RESP_USAGE * 2];
    size_t  n;

    n = (size_t) sprintf(text, "{\"id\":\"");
    memset(text + n, 'i', 200);
    strcpy(text + n + 200, "\"}");
    (void) scan(text);
    is_int((int64_t) s.id_len, KT_RESP_ID, "a long id is cut");
    is_int((int64_t) strlen(s.id), KT_RESP_ID, "... and terminated");

    n = (size_t) sprintf(text, "{\"usage\":{\"a\":\"");
    memset(text + n, 'x', KT_RESP_USAGE - 8);
    strcpy(text + n + KT_RESP_USAGE - 8, "\"},\"usage\":{}}");
    (void) scan(text);
    ok(!s.overflow && s.nusage == 2, "the largest usage fits");

    memset(text + n, 'x', KT_RESP_USAGE - 7);
    strcpy(text + n + KT_RESP_USAGE - 7, "\"},\"usage\":{}}");
    is_int(scan(text), KT_OK, "a larger one");
    ok(s.overflow && s.nusage == 1, "... overflows, the next is seen");
    is_str(usages, "{}|", "... alone");

    memset(text, '[', 65);
    text[65] = '\0';
    is_int(scan(text), KT_INVALID, "nested too deep");
    memset(text + 64, ']', 64);
    text[128] = '\0';
    is_int(scan(text), KT_OK, "nested to the cap");

    kt_respscan_init(&s, NULL, NULL);
    kt_respscan_feed(&s, (const unsigned char *) "{\"usage\":{}}", 12);
    is_int(s.nusage, 1, "a callback is not needed");
    ok(s.done, "done");
}


int
main(void)
{
    captures();
    cuts();
    limits();

    return tap_done();
}
