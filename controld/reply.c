#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "conf.h"
#include "http.h"
#include "kt_money.h"


static const char *
reply_vformat(arena_t *a, const char *fmt, va_list args)
{
    int      n;
    char    *s;
    va_list  copy;

    va_copy(copy, args);
    n = vsnprintf(NULL, 0, fmt, copy);
    va_end(copy);
    s = arena_alloc(a, (size_t) n + 1);
    vsnprintf(s, (size_t) n + 1, fmt, args);

    return s;
}


void
reply_text(req_t *r, int status, const char *type, const char *text)
{
    if (r->status) {
        return;
    }

    r->status = status;
    r->content_type = type;
    buf_puts(&r->out, text);
}


void
reply_json(req_t *r, int status, const jv_t *v)
{
    if (r->status) {
        return;
    }

    r->status = status;
    r->content_type = "application/json";
    json_emit(&r->out, v);
}


void
reply_header(req_t *r, const char *name, const char *value)
{
    if (r->nheaders < HTTP_HEADERS_MAX) {
        r->header[r->nheaders][0] = name;
        r->header[r->nheaders++][1] = value;
    }
}


void
reply_reset(req_t *r)
{
    r->status = 0;
    buf_init(&r->out, &r->a);
}


static void
fail_envelope(req_t *r, int status, const char *type, const char *param,
    const char *message)
{
    jv_t  *e, *o;

    e = json_obj(&r->a);
    json_set(e, "message", json_string(&r->a, message));
    json_set(e, "type", json_string(&r->a, type));
    json_set(e, "param", json_string(&r->a, param ? param : "None"));
    json_set(e, "code", json_string(&r->a, arena_printf(&r->a, "%d", status)));
    o = json_obj(&r->a);
    json_set(o, "error", e);
    reply_json(r, status, o);
}


void
fail_proxy(req_t *r, int status, const char *type, const char *param,
    const char *fmt, ...)
{
    va_list      args;
    const char  *text;

    va_start(args, fmt);
    text = reply_vformat(&r->a, fmt, args);
    va_end(args);
    fail_envelope(r, status, type, param, text);
}


const char *
py_repr(arena_t *a, const char *s)
{
    char         q;
    buf_t        b;
    const char  *p;

    q = strchr(s, '\'') && !strchr(s, '"') ? '"' : '\'';
    buf_init(&b, a);
    buf_putc(&b, q);

    for (p = s; *p; p++) {
        if (*p == q || *p == '\\') {
            buf_putc(&b, '\\');
            buf_putc(&b, *p);

        } else if (*p == '\n') {
            buf_puts(&b, "\\n");

        } else if (*p == '\r') {
            buf_puts(&b, "\\r");

        } else if (*p == '\t') {
            buf_puts(&b, "\\t");

        } else if ((unsigned char) *p < 0x20 || *p == 0x7f) {
            buf_printf(&b, "\\x%02x", (unsigned) (unsigned char) *p);

        } else {
            buf_putc(&b, *p);
        }
    }

    buf_putc(&b, q);

    return b.p;
}


const char *
py_float(arena_t *a, int64_t nusd)
{
    char  tmp[KT_MONEY_TEXT];

    kt_money_format(nusd, KT_MONEY_USD, tmp);

    return arena_str(a, tmp);
}


void
fail_repr(req_t *r, int status, const char *fmt, ...)
{
    va_list      args;
    const char  *text;

    va_start(args, fmt);
    text = reply_vformat(&r->a, fmt, args);
    va_end(args);
    fail_envelope(r, status, r->err_type, NULL,
                  arena_printf(&r->a, "{'error': %s}", py_repr(&r->a, text)));
}


void
fail_detail(req_t *r, int status, const char *text)
{
    jv_t  *o;

    o = json_obj(&r->a);
    json_set(o, "detail", json_string(&r->a, text));
    reply_json(r, status, o);
}


void
fail_detail_error(req_t *r, int status, const char *fmt, ...)
{
    jv_t        *o, *d;
    va_list      args;
    const char  *text;

    va_start(args, fmt);
    text = reply_vformat(&r->a, fmt, args);
    va_end(args);
    d = json_obj(&r->a);
    json_set(d, "error", json_string(&r->a, text));
    o = json_obj(&r->a);
    json_set(o, "detail", d);
    reply_json(r, status, o);
}


static void
fail_validation(req_t *r, const char *where, const char *name, const char *type,
    const char *msg, jv_t *input)
{
    jv_t  *o, *d, *e, *loc;

    loc = json_arr(&r->a);
    json_push(loc, json_string(&r->a, where));

    if (name) {
        json_push(loc, json_string(&r->a, name));
    }

    e = json_obj(&r->a);
    json_set(e, "type", json_string(&r->a, type));
    json_set(e, "loc", loc);
    json_set(e, "msg", json_string(&r->a, msg));
    json_set(e, "input", input);
    d = json_arr(&r->a);
    json_push(d, e);
    o = json_obj(&r->a);
    json_set(o, "detail", d);
    reply_json(r, 422, o);
}


void
fail_field(req_t *r, const char *field, const char *type, const char *msg,
    const jv_t *input)
{
    fail_validation(r, "body", field, type, msg, json_copy(&r->a, input));
}


void
fail_arg(req_t *r, const char *arg, const char *type, const char *msg,
    const char *input)
{
    fail_validation(r, "query", arg, type, msg, json_string(&r->a, input));
}


void
fail_db(req_t *r)
{
    fail_proxy(r, strcmp(conf.compat, "1.81") ? 503 : 400, "no_db_connection",
               NULL, "No connected db.");
}
