/*
 * Incremental scanner of a response; see kt_respscan.h.
 *
 * Structure is checked (brackets, commas, colons, strings), scalars are not:
 * any word of letters, digits and "+-." passes for a number or a literal.
 *
 * The place of a value is given by the keys of the three outermost levels
 * (path[1..3], 0 inside arrays) and by the last key read.  Strings flow into
 * a sink chosen when they begin, byte by byte after decoding, so that a cut
 * inside an escape makes no difference.  A usage object is copied from its
 * '{' to its '}' while the scan goes on inside it.
 */

#include <string.h>

#include "kt_json.h"
#include "kt_respscan.h"


typedef enum {
    KT_RE_VALUE = 0,
    KT_RE_FIRST_VALUE,                 /* or the end of the array           */
    KT_RE_FIRST_KEY,                   /* or the end of the object          */
    KT_RE_KEY,
    KT_RE_COLON,
    KT_RE_NEXT,                        /* comma or end                      */
    KT_RE_STRING,
    KT_RE_ESCAPE,
    KT_RE_HEX,
    KT_RE_WORD,
    KT_RE_DONE
} kt_re_state_t;


typedef enum {
    KT_RE_DROP = 0,
    KT_RE_TO_KEY,
    KT_RE_TO_ID,
    KT_RE_TO_TYPE,
    KT_RE_TO_TIER,
    KT_RE_TO_DELTA
} kt_re_sink_t;


typedef enum {
    KT_RE_NONE = 0,
    KT_RE_ID,
    KT_RE_RESPONSE_ID,
    KT_RE_USAGE,
    KT_RE_USAGE_META,
    KT_RE_MESSAGE,
    KT_RE_RESPONSE,
    KT_RE_CHOICES,
    KT_RE_CANDIDATES,
    KT_RE_CONTENT,
    KT_RE_DELTA,
    KT_RE_TEXT,
    KT_RE_TYPE,
    KT_RE_ROLE,
    KT_RE_STOP,
    KT_RE_ERROR,
    KT_RE_TIER,
    KT_RE_DURATION,
    KT_RE_META,
    KT_RE_BILLED
} kt_re_key_t;


#define KT_RE_NAME(name, key)  { name, sizeof(name) - 1, key }

static const struct {
    const char  *name;
    uint8_t      len;
    uint8_t      key;
} kt_re_keys[] = {
    KT_RE_NAME("id", KT_RE_ID),
    KT_RE_NAME("responseId", KT_RE_RESPONSE_ID),
    KT_RE_NAME("usage", KT_RE_USAGE),
    KT_RE_NAME("usageMetadata", KT_RE_USAGE_META),
    KT_RE_NAME("message", KT_RE_MESSAGE),
    KT_RE_NAME("response", KT_RE_RESPONSE),
    KT_RE_NAME("choices", KT_RE_CHOICES),
    KT_RE_NAME("candidates", KT_RE_CANDIDATES),
    KT_RE_NAME("content", KT_RE_CONTENT),
    KT_RE_NAME("delta", KT_RE_DELTA),
    KT_RE_NAME("text", KT_RE_TEXT),
    KT_RE_NAME("type", KT_RE_TYPE),
    KT_RE_NAME("role", KT_RE_ROLE),
    KT_RE_NAME("stop_reason", KT_RE_STOP),
    KT_RE_NAME("error", KT_RE_ERROR),
    KT_RE_NAME("service_tier", KT_RE_TIER),
    KT_RE_NAME("duration", KT_RE_DURATION),
    KT_RE_NAME("meta", KT_RE_META),
    KT_RE_NAME("billed_units", KT_RE_BILLED)
};

#define KT_RE_NKEYS      (sizeof(kt_re_keys) / sizeof(kt_re_keys[0]))


void
kt_respscan_init(kt_respscan_t *s, kt_on_usage_pt cb, void *data)
{
    memset(s, 0, offsetof(kt_respscan_t, id));

    s->on_usage = cb;
    s->data = data;
    s->id[0] = '\0';
    s->type[0] = '\0';
}


static void
kt_re_bad(kt_respscan_t *s)
{
    s->bad = 1;
    s->capture = 0;
}


/* Open containers, not counting an array around everything. */

static unsigned
kt_re_level(const kt_respscan_t *s)
{
    return (unsigned) (s->depth - s->base);
}


static int
kt_re_in_object(const kt_respscan_t *s)
{
    return s->depth && ((s->is_obj >> (s->depth - 1)) & 1);
}


/* Chapter: strings. */


static void
kt_re_append(char *buf, size_t *len, size_t cap, const unsigned char *p,
    size_t n)
{
    if (n > cap - *len) {
        n = cap - *len;
    }

    memcpy(buf + *len, p, n);
    *len += n;
    buf[*len] = '\0';
}


static void
kt_re_emit(kt_respscan_t *s, const unsigned char *p, size_t n)
{
    switch (s->sink) {

    case KT_RE_TO_KEY:
        if (n > (size_t) (KT_RESP_KEY - s->key_len)) {
            s->key_long = 1;
            return;
        }

        memcpy(s->key + s->key_len, p, n);
        s->key_len = (uint8_t) (s->key_len + n);
        return;

    case KT_RE_TO_ID:
        kt_re_append(s->id, &s->id_len, KT_RESP_ID, p, n);
        return;

    case KT_RE_TO_TYPE:
        kt_re_append(s->type, &s->type_len, KT_RESP_TYPE, p, n);
        return;

    case KT_RE_TO_TIER:
        if (n > (size_t) (KT_RESP_WORD - s->tier_len)) {
            n = (size_t) (KT_RESP_WORD - s->tier_len);
        }

        memcpy(s->tier + s->tier_len, p, n);
        s->tier_len = (uint8_t) (s->tier_len + n);
        return;

    case KT_RE_TO_DELTA:
        s->delta_bytes += (int64_t) n;
        return;

    default: /* KT_RE_DROP */
        return;
    }
}


static void
kt_re_emit_char(kt_respscan_t *s, uint32_t cp)
{
    unsigned char  c[4];

    kt_re_emit(s, c, kt_json_utf8(cp, c));
}


/* A high surrogate whose pair did not come. */

static void
kt_re_unpaired(kt_respscan_t *s)
{
    if (s->high) {
        s->high = 0;
        kt_re_emit_char(s, 0xfffd);
    }
}


static void
kt_re_unit(kt_respscan_t *s, uint32_t cp)
{
    if (cp >= 0xdc00 && cp <= 0xdfff && s->high) {
        cp = 0x10000 + ((s->high - 0xd800) << 10) + (cp - 0xdc00);
        s->high = 0;
        kt_re_emit_char(s, cp);
        return;
    }

    kt_re_unpaired(s);

    if (cp >= 0xd800 && cp <= 0xdbff) {
        s->high = cp;
        return;
    }

    kt_re_emit_char(s, cp >= 0xdc00 && cp <= 0xdfff ? 0xfffd : cp);
}


static void
kt_re_escape(kt_respscan_t *s, unsigned char c)
{
    const char  *e;

    static const char  from[] = "\"\\/bfnrt";
    static const char  to[] = "\"\\/\b\f\n\r\t";

    if (c == 'u') {
        s->state = KT_RE_HEX;
        s->hex_left = 4;
        s->cp = 0;
        return;
    }

    e = c ? strchr(from, c) : NULL;
    if (e == NULL) {
        kt_re_bad(s);
        return;
    }

    s->state = KT_RE_STRING;
    kt_re_unpaired(s);
    kt_re_emit_char(s, (unsigned char) to[e - from]);
}


static void
kt_re_hex(kt_respscan_t *s, unsigned char c)
{
    int  d;

    d = kt_json_hex(c);
    if (d < 0) {
        kt_re_bad(s);
        return;
    }

    s->cp = s->cp * 16 + (uint32_t) d;

    if (--s->hex_left == 0) {
        s->state = KT_RE_STRING;
        kt_re_unit(s, s->cp);
    }
}


static void
kt_re_key_end(kt_respscan_t *s)
{
    size_t    i;
    unsigned  level;

    s->last_key = KT_RE_NONE;

    for (i = 0; i < KT_RE_NKEYS && !s->key_long; i++) {
        if (kt_re_keys[i].len == s->key_len
            && memcmp(kt_re_keys[i].name, s->key, s->key_len) == 0)
        {
            s->last_key = kt_re_keys[i].key;
            break;
        }
    }

    level = kt_re_level(s);

    if (level >= 1 && level <= 3) {
        s->path[level] = s->last_key;
    }
}


/* The part of a string in [p, end); returns where it stopped. */

static const unsigned char *
kt_re_string(kt_respscan_t *s, const unsigned char *p,
    const unsigned char *end)
{
    const unsigned char  *e;

    e = kt_json_find2(p, end, '"', '\\');

    if (e != p) {
        kt_re_unpaired(s);
        kt_re_emit(s, p, (size_t) (e - p));
    }

    if (e == end) {
        return end;
    }

    if (*e == '\\') {
        s->state = KT_RE_ESCAPE;
        return e + 1;
    }

    kt_re_unpaired(s);

    if (s->sink == KT_RE_TO_KEY) {
        kt_re_key_end(s);
        s->state = KT_RE_COLON;

    } else {
        s->state = s->depth ? KT_RE_NEXT : KT_RE_DONE;
        s->done = (s->depth == 0);
    }

    return e + 1;
}


/* Chapter: where are we? */


/* Is the value that begins here content? */

static int
kt_re_is_delta(const kt_respscan_t *s)
{
    if (s->delta_depth) {
        return 1;
    }

    if (!kt_re_in_object(s)) {
        return 0;
    }

    switch (kt_re_level(s)) {

    case 1:
        return s->path[1] == KT_RE_DELTA;

    case 3:
        return (s->path[1] == KT_RE_CHOICES
                && (s->path[3] == KT_RE_DELTA || s->path[3] == KT_RE_TEXT))
               || (s->path[1] == KT_RE_CANDIDATES
                   && s->path[3] == KT_RE_CONTENT);

    default:
        return 0;
    }
}


static int
kt_re_is_usage(const kt_respscan_t *s)
{
    switch (kt_re_level(s)) {

    case 1:
        return s->path[1] == KT_RE_USAGE || s->path[1] == KT_RE_USAGE_META;

    case 2:
        return (s->path[2] == KT_RE_USAGE
                && (s->path[1] == KT_RE_MESSAGE
                    || s->path[1] == KT_RE_RESPONSE))
               || (s->path[2] == KT_RE_BILLED && s->path[1] == KT_RE_META);

    default:
        return 0;
    }
}


static int
kt_re_is_tier(const kt_respscan_t *s)
{
    const unsigned  level = kt_re_level(s);

    return (level == 1 && s->path[1] == KT_RE_TIER)
           || (level == 2 && s->path[2] == KT_RE_TIER
               && s->path[1] == KT_RE_RESPONSE);
}


/* The rank of an id that begins here, 0 when the value is none. */

static uint8_t
kt_re_id_rank(const kt_respscan_t *s)
{
    switch (kt_re_level(s)) {

    case 1:
        return s->path[1] == KT_RE_ID ? 2 : s->path[1] == KT_RE_RESPONSE_ID;

    case 2:
        return s->path[2] == KT_RE_ID
               && (s->path[1] == KT_RE_MESSAGE || s->path[1] == KT_RE_RESPONSE);

    default:
        return 0;
    }
}


static uint8_t
kt_re_choose_sink(kt_respscan_t *s)
{
    uint8_t  rank;

    if (s->depth == 0) {
        return KT_RE_DROP;
    }

    rank = kt_re_id_rank(s);

    if (rank > s->id_rank) {
        s->id_rank = rank;
        s->id_len = 0;
        s->id[0] = '\0';
        return KT_RE_TO_ID;
    }

    if (kt_re_level(s) == 1 && s->path[1] == KT_RE_TYPE) {
        s->type_len = 0;
        s->type[0] = '\0';
        return KT_RE_TO_TYPE;
    }

    if (kt_re_is_tier(s)) {
        s->tier_len = 0;
        return KT_RE_TO_TIER;
    }

    if (!kt_re_is_delta(s)) {
        return KT_RE_DROP;
    }

    switch (s->last_key) {

    case KT_RE_ID:
    case KT_RE_TYPE:
    case KT_RE_ROLE:
    case KT_RE_STOP:
        return KT_RE_DROP;

    default:
        return KT_RE_TO_DELTA;
    }
}


/* Chapter: containers. */


static void
kt_re_capture(kt_respscan_t *s, const unsigned char *p, size_t len)
{
    if (s->quiet) {
        return;
    }

    if (len > sizeof(s->cap) - s->cap_len) {
        s->quiet = 1;
        s->overflow = 1;
        return;
    }

    memcpy(s->cap + s->cap_len, p, len);
    s->cap_len += len;
}


static void
kt_re_open(kt_respscan_t *s, unsigned char c)
{
    unsigned  level;

    if (s->depth == KT_RESP_DEPTH) {
        kt_re_bad(s);
        return;
    }

    level = kt_re_level(s);

    if (s->depth == 0) {
        s->base = (c == '[');

    } else if (level == 1 && c == '[' && s->path[1] == KT_RE_CHOICES) {
        s->has_choices = 1;
        s->choices_empty = 1;
    }

    if (!s->delta_depth && s->depth && kt_re_is_delta(s)) {
        s->delta_depth = (uint8_t) (s->depth + 1);
    }

    if (c == '{') {
        if (s->depth && !s->capture && kt_re_is_usage(s)) {
            s->capture = 1;
            s->quiet = 0;
            s->cap_len = 0;
            s->cap_depth = s->depth;
        }

        s->is_obj |= (uint64_t) 1 << s->depth;
        s->state = KT_RE_FIRST_KEY;

    } else {
        s->is_obj &= ~((uint64_t) 1 << s->depth);
        s->state = KT_RE_FIRST_VALUE;
    }

    s->depth++;
    level = kt_re_level(s);

    if (level >= 1 && level <= 3) {
        s->path[level] = KT_RE_NONE;
    }

    s->last_key = KT_RE_NONE;
}


static void
kt_re_close(kt_respscan_t *s, unsigned char c)
{
    if (s->depth == 0 || c != (kt_re_in_object(s) ? '}' : ']')) {
        kt_re_bad(s);
        return;
    }

    if (s->delta_depth == s->depth) {
        s->delta_depth = 0;
    }

    s->depth--;
    s->state = s->depth ? KT_RE_NEXT : KT_RE_DONE;
    s->done = (s->depth == 0);
}


/* The first byte of a value; strings and words begin here, too. */

static void
kt_re_value(kt_respscan_t *s, unsigned char c)
{
    if (kt_re_level(s) == 1 && s->path[1] == KT_RE_ERROR && c != 'n') {
        s->error = 1;

    } else if (kt_re_level(s) == 2 && s->path[1] == KT_RE_CHOICES
               && !kt_re_in_object(s))
    {
        s->choices_empty = 0;
    }

    if (c == '{' || c == '[') {
        kt_re_open(s, c);

    } else if (c == '"') {
        s->sink = kt_re_choose_sink(s);
        s->state = KT_RE_STRING;
        s->high = 0;

    } else if (c == '-' || (c >= '0' && c <= '9')
               || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'))
    {
        s->state = KT_RE_WORD;
        s->dur = kt_re_level(s) == 1 && s->path[1] == KT_RE_DURATION;

        if (s->dur) {
            s->duration[0] = (char) c;
            s->dur_len = 1;
        }

    } else {
        kt_re_bad(s);
    }
}


/* A byte between tokens that is no space. */

static void
kt_re_between(kt_respscan_t *s, unsigned char c)
{
    switch (s->state) {

    case KT_RE_FIRST_VALUE:
        if (c == ']') {
            kt_re_close(s, c);
            break;
        }

        /* fall through */

    case KT_RE_VALUE:
        kt_re_value(s, c);
        break;

    case KT_RE_FIRST_KEY:
        if (c == '}') {
            kt_re_close(s, c);
            break;
        }

        /* fall through */

    case KT_RE_KEY:
        if (c != '"') {
            kt_re_bad(s);
            break;
        }

        s->state = KT_RE_STRING;
        s->sink = KT_RE_TO_KEY;
        s->key_len = 0;
        s->key_long = 0;
        s->high = 0;
        break;

    case KT_RE_COLON:
        if (c != ':') {
            kt_re_bad(s);
            break;
        }

        s->state = KT_RE_VALUE;
        break;

    case KT_RE_NEXT:
        if (c == ',') {
            s->state = kt_re_in_object(s) ? KT_RE_KEY : KT_RE_VALUE;
            break;
        }

        kt_re_close(s, c);
        break;

    default: /* KT_RE_DONE */
        kt_re_bad(s);
    }
}


static int
kt_re_is_word(unsigned char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z')
           || c == '+' || c == '-' || c == '.';
}


static const unsigned char *
kt_re_step(kt_respscan_t *s, const unsigned char *p, const unsigned char *end)
{
    switch (s->state) {

    case KT_RE_STRING:
        return kt_re_string(s, p, end);

    case KT_RE_ESCAPE:
        kt_re_escape(s, *p);
        return p + 1;

    case KT_RE_HEX:
        kt_re_hex(s, *p);
        return p + 1;

    case KT_RE_WORD:
        if (kt_re_is_word(*p)) {

            if (s->dur && s->dur_len < KT_RESP_WORD) {
                s->duration[s->dur_len++] = (char) *p;
            }

            return p + 1;
        }

        s->state = s->depth ? KT_RE_NEXT : KT_RE_DONE;
        s->done = (s->depth == 0);
        return p;

    default:
        if (*p != ' ' && *p != '\n' && *p != '\r' && *p != '\t') {
            kt_re_between(s, *p);
        }

        return p + 1;
    }
}


void
kt_respscan_feed(kt_respscan_t *s, const unsigned char *p, size_t len)
{
    const unsigned char  *end, *from, *q;

    if (len == 0) {
        return;
    }

    end = p + len;
    from = p;                          /* not yet captured                  */

    while (p < end && !s->bad) {
        q = p;

        if (!s->capture) {
            p = kt_re_step(s, p, end);
            from = q;
            continue;
        }

        p = kt_re_step(s, p, end);

        if (s->capture && s->depth == s->cap_depth) {
            s->capture = 0;
            kt_re_capture(s, from, (size_t) (p - from));

            if (!s->quiet) {
                s->nusage++;

                if (s->on_usage) {
                    s->on_usage(s->data, s->cap, s->cap_len);
                }
            }
        }
    }

    if (s->capture) {
        kt_re_capture(s, from, (size_t) (end - from));
    }
}


keytoll_rc_t
kt_respscan_end(kt_respscan_t *s)
{
    if (!s->bad && s->state == KT_RE_WORD && s->depth == 0) {
        s->state = KT_RE_DONE;
        s->done = 1;
    }

    return s->bad ? KT_INVALID : s->done ? KT_OK : KT_AGAIN;
}
