/* The admin API for people: one page without scripts. */

#include <string.h>
#include "access.h"
#include "openapi.h"


static void
docs_text(buf_t *b, const char *s)
{
    for (/* void */; *s; s++) {
        switch (*s) {
        case '<': buf_puts(b, "&lt;"); break;
        case '>': buf_puts(b, "&gt;"); break;
        case '&': buf_puts(b, "&amp;"); break;
        case '"': buf_puts(b, "&quot;"); break;
        default: buf_putc(b, *s);
        }
    }
}


static const char *
docs_type(ftype_t type)
{
    switch (type) {
    case F_USD: case F_NUM: return "number";
    case F_INT: return "integer";
    case F_BOOL: return "boolean";
    case F_STRS: case F_TAGS: return "list of strings";
    case F_LIST: return "list";
    case F_OBJ: return "object";
    case F_PERIOD: case F_EXPIRES: return "duration";
    case F_ENFORCE: return "strict or last_call";
    case F_META: case F_EXTRA: case F_JSON: case F_ANY: return "any";
    default: return "string";
    }
}


static void
docs_row(buf_t *b, const char *name, const char *type, const char *values,
    unsigned flags)
{
    buf_puts(b, "<tr><th scope=\"row\"><code>");
    docs_text(b, name);
    buf_puts(b, "</code></th><td>");
    docs_text(b, values ? values : type);
    buf_printf(b, "</td><td>%s%s</td></tr>\n", flags & F_REQUIRED ? "required " : "",
               flags & F_ADMIN ? "proxy admins only" : "");
}


static void
docs_route(buf_t *b, arena_t *a, const route_t *t)
{
    const arg_t    *q;
    const field_t  *f;

    buf_printf(b, "<details><summary><b>%s</b> <code>", t->method);
    docs_text(b, t->path);
    buf_puts(b, "</code> ");
    docs_text(b, t->what);
    buf_puts(b, "</summary>\n<p>Callers: ");
    docs_text(b, openapi_callers(a, access_row(t->method, t->path)));
    buf_puts(b, ".</p>\n");

    if (t->args || t->body) {
        buf_printf(b, "<table><caption>%s</caption>\n", t->body ? "JSON body" : "Query");

        for (q = t->args; q && q->name; q++) {
            docs_row(b, q->name, docs_type(q->type), NULL, q->flags);
        }

        for (f = t->body; f && f->name; f++) {
            docs_row(b, f->name, docs_type(f->type),
                     f->type == F_ENUM ? f->values : NULL, f->flags);
        }

        buf_puts(b, "</table>\n");
    }

    buf_puts(b, "</details>\n");
}


#define DOCS_HEAD                                                             \
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"        \
    "<meta name=\"viewport\" content=\"width=device-width\"><title>Keytoll admin" \
    " API</title><style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;" \
    "margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}summary{"   \
    "padding:.3rem 0;cursor:pointer}summary b{display:inline-block;width:4.5rem}" \
    "table{border-collapse:collapse;margin:.5rem 0 1rem 1rem}th,td{text-align:left;" \
    "padding:.15rem .8rem;border-bottom:1px solid #ddd;font-weight:400}"       \
    "caption{text-align:left;font-weight:600}h2{margin-top:2rem}</style></head>" \
    "<body><h1>Keytoll admin API</h1>\n<p>Send the master key or a virtual key as"  \
    " <code>Authorization: Bearer sk-...</code>. The machine's version of this page" \
    " is <a href=\"openapi.json\">openapi.json</a>.</p>\n"


void
api_docs(req_t *r)
{
    buf_t           b;
    const char     *tag, *last;
    const route_t  *t;

    last = "";
    buf_init(&b, &r->a);
    buf_puts(&b, DOCS_HEAD);

    for (t = routes; t->method; t++) {
        tag = openapi_tag(&r->a, t->path);

        if (strcmp(tag, last) != 0) {
            buf_puts(&b, "<h2>");
            docs_text(&b, tag);
            buf_puts(&b, "</h2>\n");
            last = tag;
        }

        docs_route(&b, &r->a, t);
    }

    buf_puts(&b, "</body></html>\n");
    reply_header(r, "Content-Security-Policy", "default-src 'none'; style-src"
                 " 'unsafe-inline'; frame-ancestors 'none'");
    reply_text(r, 200, "text/html; charset=utf-8", b.p);
}
