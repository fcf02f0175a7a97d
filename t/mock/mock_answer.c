/*
 * HTTP/1.x for the mock: answers with a length, chunked, or ended by the close.
 */

#define _GNU_SOURCE

#include <stdlib.h>
#include <string.h>

#include "mock.h"


/* A header of the answer for each "name=value" of the list by ';'. */

static void
mock_http_say(mock_buf_t *out, uint32_t list)
{
    char        *p, *last, *end, *eq;
    mock_buf_t   text = { NULL, 0, 0 };

    mock_interned(&text, list);
    mock_lit(&text, ";");
    last = text.p + text.len;

    for (p = text.p; p < last; p = end + 1) {
        while (*p == ' ') {
            p++;
        }

        end = memchr(p, ';', (size_t) (last - p));
        eq = memchr(p, '=', (size_t) (end - p));

        if (eq) {
            mock_put(out, p, (size_t) (eq - p));
            mock_lit(out, ": ");
            mock_put(out, eq + 1, (size_t) (end - eq - 1));
            mock_lit(out, "\r\n");
        }
    }

    free(text.p);
}


static void
mock_http_status(mock_conn_t *c, int status)
{
    size_t       i;
    const char  *text;

    static const struct {
        int          status;
        const char  *text;
    } t[] = {
        { 200, "OK" }, { 400, "Bad Request" }, { 401, "Unauthorized" },
        { 403, "Forbidden" }, { 404, "Not Found" },
        { 405, "Method Not Allowed" }, { 413, "Content Too Large" },
        { 429, "Too Many Requests" }, { 500, "Internal Server Error" },
        { 502, "Bad Gateway" }, { 503, "Service Unavailable" },
        { 529, "Overloaded" },
    };

    text = "Mock";

    for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        if (t[i].status == status) {
            text = t[i].text;
        }
    }

    mock_lit(&c->out, "HTTP/1.1 ");
    mock_int(&c->out, status);
    mock_lit(&c->out, " ");
    mock_str(&c->out, text);
    mock_lit(&c->out, "\r\nServer: keytoll-mock\r\n");

    if (c->job.prefix) {
        mock_lit(&c->out, "x-request-id: ");
        mock_id(&c->out, &c->job);
        mock_lit(&c->out, "\r\n");
    }

    for (i = 0; i < c->req.nsay; i++) {
        mock_http_say(&c->out, c->req.say[i]);
    }

    if (!c->keepalive) {
        mock_lit(&c->out, "Connection: close\r\n");

    } else if (c->req.http10) {
        mock_lit(&c->out, "Connection: keep-alive\r\n");
    }
}


/* Blank lines, as some providers send while a client waits. */

static void
mock_http_pad(mock_buf_t *b, int64_t n)
{
    if (n > 0) {
        mock_reserve(b, (size_t) n);
        memset(b->p + b->len, '\n', (size_t) n);
        b->len += (size_t) n;
    }
}


/* The next of req.pieces equal chunks of the body. */

static int
mock_http_piece(mock_conn_t *c)
{
    size_t  n, left, mark;

    left = c->event.len - c->job.cursor;
    n = (c->event.len + (size_t) c->req.pieces - 1) / (size_t) c->req.pieces;
    n = n < left ? n : left;

    if (n) {
        mark = mock_http_begin(c, &c->out);
        mock_put(&c->out, c->event.p + c->job.cursor, n);
        mock_http_end(c, &c->out, mark);
        c->job.cursor += n;
    }

    if (n < left) {
        return 1;
    }

    mock_http_last(c);

    return 0;
}


int
mock_http_answer(mock_conn_t *c, int status)
{
    mock_buf_t  *body = &c->loop->body;

    mock_http_status(c, status);

    if (c->req.coding[0]) {
        mock_lit(&c->out, "Content-Encoding: ");
        mock_str(&c->out, c->req.coding);
        mock_lit(&c->out, "\r\n");

        if (strcmp(c->req.coding, "gzip") == 0) {
            mock_gzip_body(body);
        }
    }

    mock_str(&c->out, c->req.route == MOCK_SPEECH && status == 200
             ? "Content-Type: audio/mpeg\r\n"
             : "Content-Type: application/json\r\n");

    if (c->req.pieces > 0 && status == 200 && !c->req.http10) {
        mock_lit(&c->out, "Transfer-Encoding: chunked\r\n\r\n");
        c->event.len = 0;
        mock_http_pad(&c->event, c->req.pad);
        mock_put(&c->event, body->p, body->len);
        c->job.pieces = 1;
        c->job.next = mock_http_piece;
        return 1;
    }

    mock_lit(&c->out, "Content-Length: ");
    mock_int(&c->out, c->req.pad + (int64_t) body->len);
    mock_lit(&c->out, "\r\n\r\n");
    mock_http_pad(&c->out, c->req.pad);
    mock_put(&c->out, body->p, body->len);

    return 0;
}


void
mock_http_head(mock_conn_t *c, const char *type)
{
    /* a compressed stream ends with its connection */

    if (strcmp(c->req.coding, "gzip") == 0) {
        c->req.http10 = 1;
        c->job.gzip = 1;
    }

    if (c->req.http10) {
        c->keepalive = 0;
    }

    mock_http_status(c, 200);
    mock_lit(&c->out, "Content-Type: ");
    mock_str(&c->out, type);
    mock_lit(&c->out, "\r\nCache-Control: no-cache\r\n");

    if (c->req.coding[0]) {
        mock_lit(&c->out, "Content-Encoding: ");
        mock_str(&c->out, c->req.coding);
        mock_lit(&c->out, "\r\n");
    }

    if (!c->req.http10) {
        mock_lit(&c->out, "Transfer-Encoding: chunked\r\n");
    }

    mock_lit(&c->out, "\r\n");
    c->job.head_end = c->out.len;
}


size_t
mock_http_begin(mock_conn_t *c, mock_buf_t *b)
{
    if (!c->req.http10) {
        mock_lit(b, "000000\r\n");
    }

    return b->len;
}


void
mock_http_end(mock_conn_t *c, mock_buf_t *b, size_t mark)
{
    char    *p;
    size_t   n;

    if (c->req.http10) {
        return;
    }

    p = b->p + mark - 2;

    for (n = b->len - mark; n; n >>= 4) {
        *--p = "0123456789abcdef"[n & 15];
    }

    mock_lit(b, "\r\n");
}


void
mock_http_last(mock_conn_t *c)
{
    if (!c->req.http10) {
        mock_lit(&c->out, "0\r\n\r\n");
    }
}
