/*
 * HTTP/1.x for the mock: requests with a length or chunked, keep-alive,
 * pipelining, Expect.  Answers are mock_answer.c's.
 */

#define _GNU_SOURCE

#include <ctype.h>
#include <stdlib.h>
#include <strings.h>

#include "mock.h"


typedef struct {
    const char  *p;
    size_t       len;
} mock_text_t;


static int
mock_is(mock_text_t t, const char *word)
{
    return t.len == strlen(word) && strncasecmp(t.p, word, t.len) == 0;
}


/* Does a list like "close, te" hold the word? */

static int
mock_has(mock_text_t t, const char *word)
{
    size_t  i, n;

    n = strlen(word);

    for (i = 0; i + n <= t.len; i++) {
        if (strncasecmp(t.p + i, word, n) == 0) {
            return 1;
        }
    }

    return 0;
}


static int64_t
mock_number(mock_text_t t)
{
    size_t   i;
    int64_t  v;

    if (t.len == 0 || t.len > 15) {
        return -1;
    }

    for (v = 0, i = 0; i < t.len; i++) {
        if (t.p[i] < '0' || t.p[i] > '9') {
            return -1;
        }

        v = v * 10 + (t.p[i] - '0');
    }

    return v;
}


static void
mock_word(char *out, size_t cap, mock_text_t t)
{
    size_t  n;

    n = t.len < cap ? t.len : cap - 1;
    memcpy(out, t.p, n);
    out[n] = '\0';
}


static void
mock_http_script(mock_req_t *r, mock_text_t name, mock_text_t value)
{
    size_t  i;

    const struct {
        const char  *name;
        int64_t     *to;
    } t[] = {
        { "x-mock-prompt-tokens", &r->prompt_tok },
        { "x-mock-completion-tokens", &r->completion_tok },
        { "x-mock-cached-tokens", &r->cached_tok },
        { "x-mock-delay-ms", &r->delay_ms },
        { "x-mock-event-delay-ms", &r->event_delay_ms },
        { "x-mock-split", &r->split },
        { "x-mock-status", &r->status },
        { "x-mock-reset-after", &r->reset_after },
        { "x-mock-gauge", &r->gauge },
        { "x-mock-chunked", &r->pieces },
        { "x-mock-pad", &r->pad },
    };

    for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        if (mock_is(name, t[i].name)) {
            *t[i].to = mock_number(value);
            return;
        }
    }

    if (mock_is(name, "x-mock-no-usage")) {
        r->no_usage = 1;

    } else if (mock_is(name, "x-mock-usage-twice")) {
        r->twice = 1;

    } else if (mock_is(name, "x-mock-running-usage")) {
        r->running = 1;

    } else if (mock_is(name, "x-mock-usage")) {
        r->usage = mock_intern(value.p, value.len);

    } else if (mock_is(name, "x-mock-header") && r->nsay < MOCK_SAY) {
        r->say[r->nsay++] = mock_intern(value.p, value.len);

    } else if (mock_is(name, "x-mock-tier")) {
        mock_word(r->tier, sizeof(r->tier), value);

    } else if (mock_is(name, "x-mock-encoding")) {
        mock_word(r->coding, sizeof(r->coding), value);
    }
}


static keytoll_rc_t
mock_http_header(mock_req_t *r, mock_text_t name, mock_text_t value)
{
    switch (name.p[0] | 0x20) {

    case 'c':
        if (mock_is(name, "content-length")) {
            r->content_length = mock_number(value);

            if (r->content_length < 0) {
                return KT_INVALID;
            }

        } else if (mock_is(name, "content-type")) {
            r->type = kt_content_type(value.p, value.len, r->boundary,
                                      &r->boundary_len);

        } else if (mock_is(name, "connection")) {
            if (mock_has(value, "close")) {
                r->close = 1;

            } else if (mock_has(value, "keep-alive")) {
                r->close = 0;
            }
        }

        break;

    case 'e':
        if (mock_is(name, "expect") && mock_is(value, "100-continue")) {
            r->expect = 1;
        }

        break;

    case 't':
        if (mock_is(name, "transfer-encoding")) {
            if (!mock_is(value, "chunked")) {
                return KT_INVALID;
            }

            r->chunked = 1;
        }

        break;

    case 'x':
        mock_http_script(r, name, value);
        break;
    }

    return KT_OK;
}


static uint32_t
mock_quoted(const char *p, size_t len)
{
    uint32_t    n;
    mock_buf_t  b = { NULL, 0, 0 };

    mock_lit(&b, "\"");
    mock_put(&b, p, len);
    mock_lit(&b, "\"");
    n = mock_intern(b.p, b.len);
    free(b.p);

    return n;
}


/* The routes that the gate knows as well, by the same table. */

static void
mock_http_route(mock_req_t *r, mock_text_t path)
{
    kt_route_t  route;

    static const mock_route_t  t[KT_ROUTES] = {
        MOCK_CHAT, MOCK_COMPLETIONS, MOCK_EMBEDDINGS, MOCK_MESSAGES,
        MOCK_RESPONSES, MOCK_GEMINI, MOCK_IMAGES, MOCK_SPEECH, MOCK_AUDIO,
        MOCK_MODERATIONS, MOCK_RERANK, MOCK_SCORE, MOCK_COUNT, MOCK_NONE,
        MOCK_NONE, MOCK_NONE
    };

    kt_route_find(path.p, path.len, 0, &route);

    r->route = t[route.class];
    r->streams = route.stream;

    if (route.gemini && route.class == KT_ROUTE_EMBEDDINGS) {
        r->route = MOCK_GEMINI_EMBED;
    }

    if (route.model.len) {
        r->path_model = mock_quoted(path.p + route.model.off,
                                    route.model.len);
    }
}


static void
mock_http_path(mock_req_t *r, mock_text_t path)
{
    size_t       i;
    const char  *query;

    static const struct {
        const char    *path;
        mock_route_t   route;
    } t[] = {
        { "/v1/chat/completions", MOCK_CHAT },
        { "/chat/completions", MOCK_CHAT },
        { "/v1/embeddings", MOCK_EMBEDDINGS },
        { "/v1/messages", MOCK_MESSAGES },
        { "/v1/models", MOCK_MODELS },
        { "/__truth", MOCK_TRUTH },
        { "/__body", MOCK_BODY },
        { "/__peaks", MOCK_PEAKS },
    };

    query = memchr(path.p, '?', path.len);

    if (query) {
        i = (size_t) (path.p + path.len - query);
        r->sse = memmem(query, i, "alt=sse", 7) != NULL;
        r->summary = (i == 10 && memcmp(query, "?summary=1", 10) == 0);
        path.len -= i;
    }

    for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        if (strlen(t[i].path) == path.len
            && memcmp(t[i].path, path.p, path.len) == 0)
        {
            r->route = t[i].route;
            return;
        }
    }

    if (r->post) {
        mock_http_route(r, path);
    }
}


static keytoll_rc_t
mock_http_line(mock_req_t *r, mock_text_t line)
{
    const char   *sp, *end;
    mock_text_t   method, path, version;

    end = line.p + line.len;

    sp = memchr(line.p, ' ', line.len);
    if (sp == NULL) {
        return KT_INVALID;
    }

    method.p = line.p;
    method.len = (size_t) (sp - line.p);
    path.p = sp + 1;

    sp = memchr(path.p, ' ', (size_t) (end - path.p));
    if (sp == NULL) {
        return KT_INVALID;
    }

    path.len = (size_t) (sp - path.p);
    version.p = sp + 1;
    version.len = (size_t) (end - version.p);

    r->get = mock_is(method, "GET") != 0;
    r->post = mock_is(method, "POST") != 0;
    r->remove = mock_is(method, "DELETE") != 0;

    if (mock_is(version, "HTTP/1.0")) {
        r->http10 = 1;
        r->close = 1;

    } else if (!mock_is(version, "HTTP/1.1")) {
        return KT_INVALID;
    }

    mock_http_path(r, path);
    r->path = memchr(path.p, '"', path.len) || memchr(path.p, '\\', path.len)
              ? 0 : mock_quoted(path.p, path.len);

    return KT_OK;
}


/* Adds the name in lower case to the list that the truth will show. */

static size_t
mock_http_note(char *names, size_t n, size_t cap, mock_text_t name)
{
    size_t  i;

    if (n + name.len + 3 > cap) {
        return n;
    }

    if (n) {
        names[n++] = ',';
    }

    names[n++] = '"';

    for (i = 0; i < name.len; i++) {
        names[n++] = (char) tolower((unsigned char) name.p[i]);
    }

    names[n++] = '"';

    return n;
}


/* A token of RFC 9110, which can stand in the truth's JSON as it is. */

static int
mock_http_token(mock_text_t t)
{
    size_t  i;

    for (i = 0; i < t.len; i++) {
        if (t.p[i] <= 0x20 || t.p[i] >= 0x7f
            || strchr("\"\\(),/:;<=>?@[]{}", t.p[i]))
        {
            return 0;
        }
    }

    return t.len != 0;
}


static keytoll_rc_t
mock_http_head_parse(mock_req_t *r, const char *p, const char *end)
{
    char          names[4096];
    size_t        n;
    const char   *eol, *colon;
    mock_text_t   t, value;

    n = 0;

    for (t.p = p; t.p < end; t.p = eol + 2) {
        eol = memmem(t.p, (size_t) (end - t.p), "\r\n", 2);
        t.len = (size_t) (eol - t.p);

        if (t.p == p) {
            if (mock_http_line(r, t) != KT_OK) {
                return KT_INVALID;
            }

            continue;
        }

        if (t.len == 0) {
            break;
        }

        colon = memchr(t.p, ':', t.len);
        if (colon == NULL) {
            return KT_INVALID;
        }

        t.len = (size_t) (colon - t.p);

        for (value.p = colon + 1; *value.p == ' ' || *value.p == '\t'; ) {
            value.p++;
        }

        value.len = (size_t) (eol - value.p);

        while (value.len && value.p[value.len - 1] == ' ') {
            value.len--;
        }

        if (!mock_http_token(t) || mock_http_header(r, t, value) != KT_OK) {
            return KT_INVALID;
        }

        n = mock_http_note(names, n, sizeof(names), t);
    }

    r->names = mock_intern(names, n);

    return KT_OK;
}


/*
 * Chunks at p: their data is moved together to the front.  *used is the
 * length of all, framing included.
 */

static keytoll_rc_t
mock_http_dechunk(char *p, size_t len, size_t *data, size_t *used, int move)
{
    int      d;
    char    *eol, *from, *end;
    size_t   size;

    from = p;
    end = p + len;
    *data = 0;

    for ( ;; ) {
        eol = memmem(from, (size_t) (end - from), "\r\n", 2);
        if (eol == NULL) {
            return end - from > 256 ? KT_INVALID : KT_AGAIN;
        }

        if (kt_json_hex((unsigned char) *from) < 0) {
            return KT_INVALID;
        }

        for (size = 0; (d = kt_json_hex((unsigned char) *from)) >= 0; from++) {
            size = size * 16 + (size_t) d;

            if (size > MOCK_MAX_BODY) {
                return KT_RANGE;
            }
        }

        from = eol + 2;

        if (size == 0) {
            break;
        }

        if ((size_t) (end - from) < size + 2) {
            return KT_AGAIN;
        }

        if (from[size] != '\r' || from[size + 1] != '\n') {
            return KT_INVALID;
        }

        if (move) {
            memmove(p + *data, from, size);
        }

        *data += size;
        from += size + 2;
    }

    /* trailers, up to a blank line */

    for ( ;; ) {
        eol = memmem(from, (size_t) (end - from), "\r\n", 2);
        if (eol == NULL) {
            return KT_AGAIN;
        }

        if (eol == from) {
            *used = (size_t) (from + 2 - p);
            return KT_OK;
        }

        from = eol + 2;
    }
}


static keytoll_rc_t
mock_http_body(mock_conn_t *c)
{
    char          *p;
    size_t         len, data, used;
    keytoll_rc_t   rc;

    p = c->in.p + c->req.head_len;
    len = c->in.len - c->req.head_len;

    if (!c->req.chunked) {
        if (c->req.content_length < 0) {
            c->req.content_length = 0;
        }

        if (c->req.content_length > MOCK_MAX_BODY) {
            return KT_RANGE;
        }

        c->req.body_len = (size_t) c->req.content_length;

        return len < c->req.body_len ? KT_AGAIN : KT_OK;
    }

    rc = mock_http_dechunk(p, len, &data, &used, 0);
    if (rc != KT_OK) {
        return rc;
    }

    (void) mock_http_dechunk(p, len, &data, &used, 1);
    memmove(p + data, p + used, len - used);
    c->in.len -= used - data;
    c->req.body_len = data;

    return KT_OK;
}


keytoll_rc_t
mock_http_parse(mock_conn_t *c)
{
    char          *end;
    keytoll_rc_t   rc;
    mock_req_t    *r = &c->req;

    if (r->head_len == 0) {
        end = memmem(c->in.p, c->in.len, "\r\n\r\n", 4);

        if (end == NULL) {
            return c->in.len > MOCK_MAX_HEAD ? KT_RANGE : KT_AGAIN;
        }

        r->content_length = -1;
        r->prompt_tok = -1;
        r->completion_tok = -1;
        r->cached_tok = -1;
        r->delay_ms = -1;
        r->event_delay_ms = -1;
        r->split = -1;
        r->status = -1;
        r->reset_after = -1;
        r->gauge = -1;
        r->pieces = -1;
        r->pad = 0;

        rc = mock_http_head_parse(r, c->in.p, end + 4);
        if (rc != KT_OK) {
            return rc;
        }

        r->head_len = (size_t) (end + 4 - c->in.p);
    }

    return mock_http_body(c);
}


void
mock_http_consume(mock_conn_t *c)
{
    size_t  n;

    n = c->req.head_len + c->req.body_len;
    memmove(c->in.p, c->in.p + n, c->in.len - n);
    c->in.len -= n;
    memset(&c->req, 0, sizeof(mock_req_t));
    c->continued = 0;
}
