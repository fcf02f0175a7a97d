/*
 * One-shot scanner of a request body.
 *
 * A strict JSON recogniser drives a handful of on_* hooks that know where in
 * the body they are from (depth, depth-1 key, depth-2 key).  Nothing deeper
 * has to be remembered, so the whole state is one small struct.
 *
 * Other parsers read the same bytes behind us, and what they read decides the
 * bill.  Hence: depth-1 keys are compared after unescaping; a second copy of
 * a key that we act on is refused, and so is one that differs only by case
 * (Go's encoding/json folds case, with U+017F and U+212A too); caps must be
 * plain integers; the text must be JSON to the letter, so that no two parsers
 * can disagree about where a value ends.
 */

#include <string.h>

#include "kt_reqvalue.h"


/* Malformed text at s->p; the scan ends. */

static keytoll_rc_t
kt_rs_broken(kt_rs_t *s, keytoll_rc_t rc, const char *err)
{
    s->out->err = err;
    s->out->err_off = (size_t) (s->p - s->start);
    s->out->bad_json = 1;

    return rc;
}


static inline void
kt_rs_space(kt_rs_t *s)
{
    const unsigned char  *p;

    for (p = s->p; p < s->end; p++) {
        if (*p != ' ' && *p != '\n' && *p != '\r' && *p != '\t') {
            break;
        }
    }

    s->p = p;
}


/* Takes the result of a token reader: the next position, or an error. */

static keytoll_rc_t
kt_rs_token(kt_rs_t *s, const unsigned char *next, const char *err)
{
    s->p = next;

    return err ? kt_rs_broken(s, KT_INVALID, err) : KT_OK;
}


static keytoll_rc_t
kt_rs_scalar(kt_rs_t *s)
{
    const char           *err;
    kt_rs_type_t          type;
    const unsigned char  *p, *next;

    p = s->p;

    switch (*p) {

    case '"':
        type = KT_RS_STRING;
        next = kt_json_string(p, s->end, &err);
        break;

    case 't':
        type = KT_RS_TRUE;
        next = kt_json_word(p, s->end, "true", &err);
        break;

    case 'f':
        type = KT_RS_FALSE;
        next = kt_json_word(p, s->end, "false", &err);
        break;

    case 'n':
        type = KT_RS_NULL;
        next = kt_json_word(p, s->end, "null", &err);
        break;

    case '-':
    case '0': case '1': case '2': case '3': case '4':
    case '5': case '6': case '7': case '8': case '9':
        type = KT_RS_NUMBER;
        next = kt_json_number(p, s->end, &err);
        break;

    default:
        return kt_rs_broken(s, KT_INVALID, "a value was expected");
    }

    if (kt_rs_token(s, next, err) != KT_OK) {
        return KT_INVALID;
    }

    kt_rs_value(s, type, p);

    return KT_OK;
}


static keytoll_rc_t
kt_rs_open(kt_rs_t *s)
{
    const unsigned char  *p;

    if (s->depth == KT_REQ_DEPTH) {
        return kt_rs_broken(s, KT_TOODEEP, "nested too deep");
    }

    p = s->p++;

    if (s->depth) {
        kt_rs_value(s, KT_RS_OPEN, p);

    } else {
        s->out->insert_at = (size_t) (s->p - s->start);
    }

    if (*p == '{') {
        s->is_obj |= (uint64_t) 1 << s->depth;

    } else {
        s->is_obj &= ~((uint64_t) 1 << s->depth);
    }

    s->depth++;

    return KT_OK;
}


/* "key" and its colon; s->p is at what should be the opening quote. */

static keytoll_rc_t
kt_rs_name(kt_rs_t *s)
{
    const char           *err;
    const unsigned char  *p, *next;

    p = s->p;

    if (*p != '"') {
        return kt_rs_broken(s, KT_INVALID, "a key was expected");
    }

    next = kt_json_string(p, s->end, &err);

    if (kt_rs_token(s, next, err) != KT_OK) {
        return KT_INVALID;
    }

    kt_rs_key(s, p);
    kt_rs_space(s);

    if (s->p == s->end || *s->p != ':') {
        return kt_rs_broken(s, KT_INVALID, "':' was expected");
    }

    s->p++;
    kt_rs_space(s);

    return s->p == s->end ? kt_rs_broken(s, KT_INVALID, "the text is cut")
                          : KT_OK;
}


/*
 * One turn handles "closing bracket", "comma" or an item: [key] value.  first
 * means that a container was just opened, need that an item must come.
 */

static keytoll_rc_t
kt_rs_body(kt_rs_t *s)
{
    int            first, need, obj;
    keytoll_rc_t   rc;

    first = 1;
    need = 0;

    while (s->depth) {
        kt_rs_space(s);

        if (s->p == s->end) {
            return kt_rs_broken(s, KT_INVALID, "the text is cut");
        }

        obj = (s->is_obj >> (s->depth - 1)) & 1;

        if (*s->p == (obj ? '}' : ']') && !need) {
            s->p++;
            s->depth--;
            kt_rs_end(s, first);
            first = 0;
            continue;
        }

        if (!first && !need) {
            if (*s->p != ',') {
                return kt_rs_broken(s, KT_INVALID, "',' was expected");
            }

            s->p++;
            need = 1;
            continue;
        }

        need = 0;
        first = 0;

        if (obj) {
            rc = kt_rs_name(s);
            if (rc != KT_OK) {
                return rc;
            }
        }

        if (*s->p == '{' || *s->p == '[') {
            first = 1;
            rc = kt_rs_open(s);

        } else {
            rc = kt_rs_scalar(s);
        }

        if (rc != KT_OK) {
            return rc;
        }
    }

    return KT_OK;
}


keytoll_rc_t
kt_reqscan(const unsigned char *p, size_t len, kt_reqscan_t *out)
{
    kt_rs_t       s;
    keytoll_rc_t  rc;

    memset(out, 0, sizeof(kt_reqscan_t));
    out->max_tok = -1;
    out->n = 1;
    out->text_bytes = 3;
    out->any_service = 1;

    memset(&s, 0, sizeof(kt_rs_t));
    s.start = p;
    s.p = p;
    s.end = p + len;
    s.out = out;
    s.rc = KT_OK;
    s.tool_uses = -1;
    s.tool_depth = 3;

    kt_rs_space(&s);

    if (s.p == s.end || *s.p != '{') {
        return kt_rs_broken(&s, KT_INVALID, "the body is not a JSON object");
    }

    (void) kt_rs_open(&s);

    rc = kt_rs_body(&s);
    if (rc != KT_OK) {
        return rc;
    }

    kt_rs_space(&s);

    if (s.p != s.end) {
        return kt_rs_broken(&s, KT_INVALID, "text behind the body");
    }

    if (!kt_json_is_utf8(p, len)) {
        s.p = p;
        return kt_rs_broken(&s, KT_INVALID, "the body is not UTF-8");
    }

    kt_rs_finish(&s);

    return s.rc;
}
