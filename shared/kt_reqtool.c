/*
 * Inside of kt_reqscan(): tools that the provider runs by itself.  What they
 * find is read by the model, so nobody knows the length of the prompt, and
 * searches of the web are paid for one by one.
 *
 * A tool says what it is by its "type" (OpenAI, Anthropic) or by a member of
 * that name (Gemini).  Where two readers could disagree, the dearer reading
 * counts: the largest of several "max_uses", none if one is spelled otherwise.
 */

#include <string.h>

#include "kt_reqvalue.h"


#define KT_RS_TOOL_NAME  24


typedef enum {
    KT_RS_TOOL_KEY_NONE = 0,
    KT_RS_TOOL_KEY_TYPE,
    KT_RS_TOOL_KEY_USES
} kt_rs_tool_key_t;


static int
kt_rs_begins(const char *p, size_t len, const char *word)
{
    size_t  n;

    n = strlen(word);

    return len >= n && memcmp(p, word, n) == 0;
}


/* What a tool of that name does, once lowered. */

static void
kt_rs_tool_name(kt_rs_t *s, const char *p, size_t n)
{
    size_t  i;

    static const char *const  searches[] = {
        "web_search", "websearch", "google_search", "googlesearch",
        "enterprise_web_search", "enterprisewebsearch"
    };

    static const char *const  reads[] = {
        "web_fetch", "file_search", "filesearch", "code_interpreter",
        "code_execution", "codeexecution", "mcp", "url_context", "urlcontext",
        "image_generation", "retrieval"
    };

    for (i = 0; i < sizeof(searches) / sizeof(searches[0]); i++) {
        if (kt_rs_begins(p, n, searches[i])) {
            s->tool_search = 1;
            s->out->remote = 1;
            return;
        }
    }

    for (i = 0; i < sizeof(reads) / sizeof(reads[0]); i++) {
        if (kt_rs_begins(p, n, reads[i])) {
            s->out->remote = 1;
            return;
        }
    }
}


/* The beginning of a string, lowered; its length, 0 when it is malformed. */

static size_t
kt_rs_tool_text(kt_rs_t *s, kt_span_t span, char *out)
{
    char    text[6 * KT_RS_TOOL_NAME + 1];
    size_t  n;

    if (span.len - 2 > 6 * KT_RS_TOOL_NAME) {
        span.len = 2 + KT_RS_TOOL_NAME;
    }

    if (kt_reqscan_text(s->start, span, text, sizeof(text), &n) != KT_OK) {
        return 0;
    }

    n = kt_reqkey_fold(text, n);

    if (n > KT_RS_TOOL_NAME) {
        n = KT_RS_TOOL_NAME;
    }

    memcpy(out, text, n);

    return n;
}


void
kt_rs_tool_key(kt_rs_t *s, kt_span_t span)
{
    char    name[KT_RS_TOOL_NAME];
    size_t  n;

    s->tool_key = KT_RS_TOOL_KEY_NONE;

    n = kt_rs_tool_text(s, span, name);

    if (kt_rs_is(name, n, "type")) {
        s->tool_key = KT_RS_TOOL_KEY_TYPE;

    } else if (!kt_rs_is(name, n, "max_uses")) {
        kt_rs_tool_name(s, name, n);

    } else if (span.len == 2 + n
               && memcmp(s->start + span.off + 1, "max_uses", n) == 0)
    {
        s->tool_key = KT_RS_TOOL_KEY_USES;

    } else {
        s->tool_uses = KT_REQ_SEARCHES;
    }
}


void
kt_rs_tool_value(kt_rs_t *s, kt_rs_type_t type, kt_span_t span)
{
    char     name[KT_RS_TOOL_NAME];
    size_t   i;
    int64_t  n;

    if (s->tool_key == KT_RS_TOOL_KEY_TYPE && type == KT_RS_STRING) {
        kt_rs_tool_name(s, name, kt_rs_tool_text(s, span, name));

    } else if (s->tool_key == KT_RS_TOOL_KEY_USES) {

        for (i = 0, n = 0; i < span.len && n < KT_REQ_SEARCHES; i++) {
            if (s->start[span.off + i] < '0' || s->start[span.off + i] > '9') {
                n = KT_REQ_SEARCHES;
                break;
            }

            n = n * 10 + (s->start[span.off + i] - '0');
        }

        if (type != KT_RS_NUMBER) {
            n = KT_REQ_SEARCHES;
        }

        if (n > s->tool_uses) {
            s->tool_uses = n;
        }
    }

    s->tool_key = KT_RS_TOOL_KEY_NONE;
}


void
kt_rs_tool_end(kt_rs_t *s)
{
    if (s->tool_search) {
        s->out->searches += s->tool_uses < 0 ? KT_REQ_SEARCHES : s->tool_uses;
    }

    s->tool_search = 0;
    s->tool_uses = -1;
}
