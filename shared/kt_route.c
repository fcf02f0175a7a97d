/*
 * Routes; see kt_route.h.
 */

#include <string.h>
#include <strings.h>

#include "kt_route.h"


typedef struct {
    const char        *end;
    kt_route_class_t   class;
    kt_pay_t           pay;
    unsigned           form;
    unsigned           stream;
} kt_route_row_t;


/* The first that fits wins: longer ones stand before their own ends. */

static const kt_route_row_t  kt_route_rows[] = {
    { "/chat/completions", KT_ROUTE_CHAT, KT_PAY_TEXT, 0, 0 },
    { "/completions", KT_ROUTE_COMPLETIONS, KT_PAY_TEXT, 0, 0 },
    { "/embeddings", KT_ROUTE_EMBEDDINGS, KT_PAY_INPUT, 0, 0 },
    { "/messages/count_tokens", KT_ROUTE_COUNT, KT_PAY_INPUT, 0, 0 },
    { "/messages", KT_ROUTE_MESSAGES, KT_PAY_TEXT, 0, 0 },
    { "/responses/input_tokens", KT_ROUTE_COUNT, KT_PAY_INPUT, 0, 0 },
    { "/responses", KT_ROUTE_RESPONSES, KT_PAY_TEXT, 0, 0 },
    { "/images/generations", KT_ROUTE_IMAGES, KT_PAY_IMAGE, 0, 0 },
    { "/images/edits", KT_ROUTE_IMAGES, KT_PAY_IMAGE, 1, 0 },
    { "/images/variations", KT_ROUTE_IMAGES, KT_PAY_IMAGE, 1, 0 },
    { "/audio/speech", KT_ROUTE_SPEECH, KT_PAY_SPEECH, 0, 0 },
    { "/audio/transcriptions", KT_ROUTE_AUDIO, KT_PAY_AUDIO, 1, 0 },
    { "/audio/translations", KT_ROUTE_AUDIO, KT_PAY_AUDIO, 1, 0 },
    { "/moderations", KT_ROUTE_MODERATIONS, KT_PAY_INPUT, 0, 0 },
    { "/rerank", KT_ROUTE_RERANK, KT_PAY_QUERY, 0, 0 },
    { "/score", KT_ROUTE_SCORE, KT_PAY_INPUT, 0, 0 },
    { "/pooling", KT_ROUTE_SCORE, KT_PAY_INPUT, 0, 0 },
    { "/classify", KT_ROUTE_SCORE, KT_PAY_INPUT, 0, 0 },
    { "/tokenize", KT_ROUTE_COUNT, KT_PAY_INPUT, 0, 0 },
    { "/detokenize", KT_ROUTE_COUNT, KT_PAY_INPUT, 0, 0 },
    { NULL, KT_ROUTE_OTHER, KT_PAY_TEXT, 0, 0 }
};

static const kt_route_row_t  kt_route_methods[] = {
    { ":generateContent", KT_ROUTE_GEMINI, KT_PAY_TEXT, 0, 0 },
    { ":streamGenerateContent", KT_ROUTE_GEMINI, KT_PAY_TEXT, 0, 1 },
    { ":embedContent", KT_ROUTE_EMBEDDINGS, KT_PAY_INPUT, 0, 0 },
    { ":batchEmbedContents", KT_ROUTE_EMBEDDINGS, KT_PAY_INPUT, 0, 0 },
    { ":countTokens", KT_ROUTE_COUNT, KT_PAY_INPUT, 0, 0 },
    { NULL, KT_ROUTE_OTHER, KT_PAY_TEXT, 0, 0 }
};

static const char *const  kt_route_names[KT_ROUTES] = {
    "chat", "completions", "embeddings", "messages", "responses", "gemini",
    "images", "speech", "audio", "moderations", "rerank", "score", "count",
    "read", "realtime", "other"
};


static int
kt_route_ends(const char *path, size_t len, const char *end)
{
    size_t  n;

    n = strlen(end);

    return len >= n && strncasecmp(path + len - n, end, n) == 0;
}


static const kt_route_row_t *
kt_route_row(const kt_route_row_t *row, const char *path, size_t len)
{
    while (row->end && !kt_route_ends(path, len, row->end)) {
        row++;
    }

    return row;
}


/* Where the last copy of what is behind it begins; 0 when there is none. */

static size_t
kt_route_behind(const char *path, size_t len, const char *what)
{
    size_t  i, n;

    n = strlen(what);

    for (i = len; i >= n; i--) {
        if (strncasecmp(path + i - n, what, n) == 0) {
            return i;
        }
    }

    return 0;
}


/* What belongs to a thread or a stored completion is not Anthropic's. */

static int
kt_route_is_owned(const char *path, size_t len)
{
    return kt_route_behind(path, len, "/threads/")
           || kt_route_behind(path, len, "/completions/");
}


int
kt_route_anthropic(const char *path, size_t len)
{
    while (len > 1 && path[len - 1] == '/') {
        len--;
    }

    return (kt_route_ends(path, len, "/messages")
            || kt_route_behind(path, len, "/messages/"))
           && !kt_route_is_owned(path, len);
}


/* .../deployments/name/... or .../engines/name/... */

static void
kt_route_deployment(const char *path, size_t len, kt_route_t *out)
{
    size_t       at;
    const char  *slash;

    at = kt_route_behind(path, len, "/openai/deployments/");

    if (at == 0) {
        at = kt_route_behind(path, len, "/engines/");
    }

    slash = at ? memchr(path + at, '/', len - at) : NULL;

    if (slash && slash > path + at) {
        out->model.off = at;
        out->model.len = (size_t) (slash - path) - at;
    }
}


static void
kt_route_method(const char *path, size_t len, kt_route_t *out)
{
    size_t                 at, end;
    const kt_route_row_t  *row;

    row = kt_route_row(kt_route_methods, path, len);

    if (row->end == NULL) {
        return;
    }

    end = len - strlen(row->end);
    at = kt_route_behind(path, end, "models/");

    if (at == 0) {
        at = kt_route_behind(path, end, "/");
    }

    if (at == end) {
        return;
    }

    out->class = row->class;
    out->pay = row->pay;
    out->stream = row->stream & 1;
    out->gemini = 1;
    out->model.off = at;
    out->model.len = end - at;
}


static int
kt_route_is_read(const char *path, size_t len)
{
    size_t  at;

    if (kt_route_ends(path, len, "/models")
        || kt_route_ends(path, len, "/health")
        || kt_route_ends(path, len, "/version"))
    {
        return 1;
    }

    at = kt_route_behind(path, len, "/models/");

    if (at && at < len) {
        return 1;
    }

    at = kt_route_behind(path, len, "/responses/");

    return at && at < len;
}


void
kt_route_find(const char *path, size_t len, int read, kt_route_t *out)
{
    const kt_route_row_t  *row;

    memset(out, 0, sizeof(kt_route_t));
    out->class = KT_ROUTE_OTHER;

    while (len > 1 && path[len - 1] == '/') {
        len--;
    }

    if (read) {
        if (kt_route_is_read(path, len)) {
            out->class = KT_ROUTE_READ;
        }

        return;
    }

    row = kt_route_row(kt_route_rows, path, len);

    if (row->end && strncmp(row->end, "/messages", 9) == 0
        && kt_route_is_owned(path, len))
    {
        return;
    }

    if (row->end) {
        out->class = row->class;
        out->pay = row->pay;
        out->form = row->form & 1;
        kt_route_deployment(path, len, out);
        return;
    }

    kt_route_method(path, len, out);
}


const char *
kt_route_name(kt_route_class_t class)
{
    return kt_route_names[class < KT_ROUTES ? class : KT_ROUTE_OTHER];
}
