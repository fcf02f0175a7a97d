/*
 * Inside of kt_reqscan(): tools that the provider runs by itself.  What they
 * find is read by the model, so nobody knows the length of the prompt, and
 * searches of the web are paid for one by one.
 *
 * A tool says what it is by its "type" (OpenAI, Anthropic) or by a member of
 * that name (Gemini).  Where two readers could disagree the dearer reading
 * counts: the largest of several "max_uses", none if one is spelled otherwise;
 * a type that we do not know is run by the provider.
 */

#include <string.h>

#include "kt_reqvalue.h"


#define KT_RS_TOOL_NAME  40
#define KT_RS_USES_MAX   1000000


typedef enum {
    KT_RS_TOOL_KEY_NONE = 0,
    KT_RS_TOOL_KEY_TYPE,
    KT_RS_TOOL_KEY_USES
} kt_rs_tool_key_t;


static int
kt_rs_has(const char *text, const char *word)
{
    return strstr(text, word) != NULL;
}


/* Whether it looks beyond the request; file_search does not leave the account. */

static void
kt_rs_tool_looks(kt_rs_t *s, const char *name)
{
    if (!kt_rs_has(name, "file")
        && (kt_rs_has(name, "search") || kt_rs_has(name, "maps")))
    {
        if (s->tool_search) {
            s->tool_uses = KT_RS_USES_MAX;            /* which of both is it? */
        }

        s->tool_search = 1;
        s->out->remote = 1;
    }
}


/*
 * The text, lowered, with a NUL; 0 when it is longer than any that is known,
 * however it may be escaped.
 */

static int
kt_rs_tool_text(kt_rs_t *s, kt_span_t span, char *out)
{
    char    text[6 * KT_RS_TOOL_NAME + 1];
    size_t  n;

    if (span.len - 2 > 6 * KT_RS_TOOL_NAME
        || kt_reqscan_text(s->start, span, text, sizeof(text), &n) != KT_OK)
    {
        return 0;
    }

    n = kt_reqkey_fold(text, n);

    if (n > KT_RS_TOOL_NAME) {
        return 0;
    }

    memcpy(out, text, n);
    out[n] = '\0';

    return 1;
}


/* Run by the client, who sends what came of it in the next request. */

static int
kt_rs_tool_is_clients(const char *type)
{
    size_t  i;

    static const char *const  known[] = {
        "function", "custom", "computer", "bash_", "text_editor_", "memory_",
        "local_shell", "apply_patch"
    };

    for (i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strncmp(type, known[i], strlen(known[i])) == 0) {
            return 1;
        }
    }

    return 0;
}


/* "web_search_" and a date of eight digits, as Anthropic names its own. */

static int
kt_rs_tool_counts(const char *type)
{
    return strncmp(type, "web_search_", 11) == 0
           && strspn(type + 11, "0123456789") == 8 && type[19] == '\0';
}


static void
kt_rs_tool_type(kt_rs_t *s, kt_span_t span)
{
    char  type[KT_RS_TOOL_NAME + 1];

    if (!kt_rs_tool_text(s, span, type)) {
        s->tool_search = 1;
        s->out->remote = 1;
        return;
    }

    if (!kt_rs_tool_is_clients(type)) {
        s->out->remote = 1;
        kt_rs_tool_looks(s, type);
        s->tool_counts = kt_rs_tool_counts(type) & 1;
    }
}


void
kt_rs_tools(kt_rs_t *s, kt_rs_type_t type, kt_span_t span)
{
    s->tool_depth = type == KT_RS_OPEN && s->start[span.off] == '{' ? 2 : 3;
}


void
kt_rs_tool_key(kt_rs_t *s, kt_span_t span)
{
    char    name[KT_RS_TOOL_NAME + 1];
    size_t  i;

    static const char *const  runs[] = {
        "codeexecution", "code_execution", "urlcontext", "url_context",
        "filesearch", "file_search", "retrieval", "mcp"
    };

    s->tool_key = KT_RS_TOOL_KEY_NONE;

    if (!kt_rs_tool_text(s, span, name)) {
        return;
    }

    if (strcmp(name, "type") == 0) {
        s->tool_key = KT_RS_TOOL_KEY_TYPE;
        return;
    }

    if (strcmp(name, "max_uses") == 0) {
        s->tool_key = KT_RS_TOOL_KEY_USES;

        if (span.len != 2 + sizeof("max_uses") - 1
            || memcmp(s->start + span.off + 1, "max_uses", span.len - 2) != 0)
        {
            s->tool_uses = KT_RS_USES_MAX;
        }

        return;
    }

    for (i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
        if (strncmp(name, runs[i], strlen(runs[i])) == 0) {
            s->out->remote = 1;
        }
    }

    kt_rs_tool_looks(s, name);
}


/* A plain number from 1 on; KT_RS_USES_MAX stands for all that is more or else. */

static int64_t
kt_rs_tool_number(kt_rs_t *s, kt_rs_type_t type, kt_span_t span)
{
    size_t   i;
    int64_t  n;

    if (type != KT_RS_NUMBER || span.len > 6) {
        return KT_RS_USES_MAX;
    }

    for (i = 0, n = 0; i < span.len; i++) {
        if (s->start[span.off + i] < '0' || s->start[span.off + i] > '9') {
            return KT_RS_USES_MAX;
        }

        n = n * 10 + (s->start[span.off + i] - '0');
    }

    return n ? n : KT_RS_USES_MAX;
}


void
kt_rs_tool_value(kt_rs_t *s, kt_rs_type_t type, kt_span_t span)
{
    int64_t  n;

    if (s->tool_key == KT_RS_TOOL_KEY_TYPE && type == KT_RS_STRING) {
        kt_rs_tool_type(s, span);

    } else if (s->tool_key == KT_RS_TOOL_KEY_USES) {
        n = kt_rs_tool_number(s, type, span);

        if (n > s->tool_uses) {
            s->tool_uses = n;
        }
    }

    s->tool_key = KT_RS_TOOL_KEY_NONE;
}


/* Without a number, or with none that can be read, it is KT_REQ_SEARCHES. */

void
kt_rs_tool_end(kt_rs_t *s)
{
    if (s->tool_search) {
        s->out->searches += s->tool_counts && s->tool_uses > 0
                            && s->tool_uses < KT_RS_USES_MAX
                            ? s->tool_uses : KT_REQ_SEARCHES;
    }

    s->tool_search = 0;
    s->tool_counts = 0;
    s->tool_uses = -1;
}
