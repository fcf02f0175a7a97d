#include <stdio.h>
#include <string.h>
#include <inttypes.h>
#include <yajl/yajl_parse.h>
#include "json.h"
#include "kt_json.h"
#include "kt_money.h"


typedef struct {
    arena_t     *a;
    jv_t        *root;
    jv_t        *stack[JSON_DEPTH_MAX];
    const char  *name[JSON_DEPTH_MAX];
    int          depth;
    size_t       members;
    size_t       max;
    const char  *err;
} json_ctx_t;


static jv_t *
json_new(arena_t *a, jtype_t type)
{
    jv_t  *v;

    v = arena_alloc(a, sizeof(jv_t));
    v->type = type;

    return v;
}


static int
json_add(json_ctx_t *c, jv_t *v)
{
    jv_t  *top;

    if (c->depth == 0) {
        c->root = v;
        return 1;
    }

    if (++c->members > c->max) {
        c->err = "too many members";
        return 0;
    }

    top = c->stack[c->depth - 1];

    if (top->type == J_OBJ) {
        v->key = c->name[c->depth - 1];
    }

    json_push(top, v);

    return 1;
}


static int
json_on_null(void *ctx)
{
    json_ctx_t  *c = ctx;

    return json_add(c, json_new(c->a, J_NULL));
}


static int
json_on_bool(void *ctx, int b)
{
    json_ctx_t  *c = ctx;

    return json_add(c, json_new(c->a, b ? J_TRUE : J_FALSE));
}


static int
json_on_number(void *ctx, const char *s, size_t len)
{
    jv_t        *v;
    json_ctx_t  *c = ctx;

    v = json_new(c->a, J_NUM);
    v->s = arena_dup(c->a, s, len);
    v->len = len;

    return json_add(c, v);
}


static int
json_on_string(void *ctx, const unsigned char *s, size_t len)
{
    jv_t        *v;
    json_ctx_t  *c = ctx;

    if (memchr(s, 0, len)) {
        c->err = "NUL character in a string";
        return 0;
    }

    v = json_new(c->a, J_STR);
    v->s = arena_dup(c->a, (const char *) s, len);
    v->len = len;

    return json_add(c, v);
}


static int
json_on_key(void *ctx, const unsigned char *s, size_t len)
{
    json_ctx_t  *c = ctx;

    if (memchr(s, 0, len)) {
        c->err = "NUL character in a name";
        return 0;
    }

    c->name[c->depth - 1] = arena_dup(c->a, (const char *) s, len);

    if (c->stack[c->depth - 1]->n < 1000
        && json_get(c->stack[c->depth - 1], c->name[c->depth - 1]))
    {
        c->err = arena_printf(c->a, "duplicate name \"%.100s\"",
                              c->name[c->depth - 1]);
        return 0;
    }

    return 1;
}


static int
json_open(json_ctx_t *c, jtype_t type)
{
    jv_t  *v;

    v = json_new(c->a, type);

    if (!json_add(c, v)) {
        return 0;
    }

    if (c->depth == JSON_DEPTH_MAX) {
        c->err = "nested too deeply";
        return 0;
    }

    c->stack[c->depth++] = v;

    return 1;
}


static int json_on_map(void *c)       { return json_open(c, J_OBJ); }
static int json_on_array(void *c)     { return json_open(c, J_ARR); }
static int json_on_end(void *c)       { ((json_ctx_t *) c)->depth--; return 1; }


static jv_t *
json_parse_max(arena_t *a, const char *p, size_t len, size_t max,
    const char **err)
{
    json_ctx_t            c;
    yajl_handle           h;
    yajl_status           st;
    static yajl_callbacks cb = {
        json_on_null, json_on_bool, NULL, NULL, json_on_number, json_on_string,
        json_on_map, json_on_key, json_on_end, json_on_array, json_on_end
    };

    /* yajl lets overlong forms pass in names */

    if (!kt_json_is_utf8((const unsigned char *) p, len)) {
        *err = "not valid UTF-8";
        return NULL;
    }

    memset(&c, 0, sizeof(c));
    c.a = a;
    c.max = max;
    h = yajl_alloc(&cb, NULL, &c);

    if (h == NULL) {
        *err = "out of memory";
        return NULL;
    }

    st = yajl_parse(h, (const unsigned char *) p, len);

    if (st == yajl_status_ok) {
        st = yajl_complete_parse(h);
    }

    if (st != yajl_status_ok || c.root == NULL) {
        *err = c.err ? c.err : "not valid JSON";
        c.root = NULL;
    }

    yajl_free(h);

    return c.root;
}


jv_t *
json_parse(arena_t *a, const char *p, size_t len, const char **err)
{
    return json_parse_max(a, p, len, JSON_MEMBERS_MAX, err);
}


jv_t *
json_parse_big(arena_t *a, const char *p, size_t len, const char **err)
{
    return json_parse_max(a, p, len, (size_t) -1, err);
}


jv_t *
json_get(const jv_t *o, const char *key)
{
    jv_t  *v;

    if (o == NULL || o->type != J_OBJ) {
        return NULL;
    }

    for (v = o->head; v; v = v->next) {
        if (strcmp(v->key, key) == 0) {
            return v;
        }
    }

    return NULL;
}


const char *
json_str(const jv_t *o, const char *key)
{
    jv_t  *v;

    v = json_get(o, key);

    return v && v->type == J_STR ? v->s : NULL;
}


jv_t *json_obj(arena_t *a)  { return json_new(a, J_OBJ); }
jv_t *json_arr(arena_t *a)  { return json_new(a, J_ARR); }
jv_t *json_null(arena_t *a) { return json_new(a, J_NULL); }


static jv_t *
json_leaf(arena_t *a, jtype_t type, const char *s)
{
    jv_t  *v;

    if (s == NULL) {
        return json_null(a);
    }

    v = json_new(a, type);
    v->len = strlen(s);
    v->s = arena_dup(a, s, v->len);

    return v;
}


jv_t *
json_string(arena_t *a, const char *s)
{
    return json_leaf(a, J_STR, s);
}


jv_t *
json_num(arena_t *a, const char *text)
{
    return json_leaf(a, J_NUM, text);
}


jv_t *
json_raw(arena_t *a, const char *text)
{
    return json_leaf(a, J_RAW, text);
}


jv_t *
json_int(arena_t *a, int64_t v)
{
    char  tmp[24];

    snprintf(tmp, sizeof(tmp), "%" PRId64, v);

    return json_num(a, tmp);
}


jv_t *
json_bool(arena_t *a, int v)
{
    return json_new(a, v ? J_TRUE : J_FALSE);
}


jv_t *
json_usd(arena_t *a, int64_t nusd)
{
    char  tmp[KT_MONEY_TEXT];

    kt_money_format(nusd, KT_MONEY_USD, tmp);

    return json_num(a, tmp);
}


jv_t *
json_copy(arena_t *a, const jv_t *v)
{
    jv_t  *c;

    c = json_new(a, J_NULL);

    if (v) {
        *c = *v;
        c->next = NULL;
        c->key = NULL;
    }

    return c;
}


void
json_push(jv_t *arr, jv_t *v)
{
    v->next = NULL;

    if (arr->tail) {
        arr->tail->next = v;

    } else {
        arr->head = v;
    }

    arr->tail = v;
    arr->n++;
}


void
json_set(jv_t *o, const char *key, jv_t *v)
{
    jv_t  *c, *prev;

    v->key = key;
    prev = NULL;

    for (c = o->head; c; prev = c, c = c->next) {
        if (strcmp(c->key, key) != 0) {
            continue;
        }

        v->next = c->next;

        if (prev) {
            prev->next = v;
        } else {
            o->head = v;
        }

        if (o->tail == c) {
            o->tail = v;
        }

        return;
    }

    json_push(o, v);
}


void
json_del(jv_t *o, const char *key)
{
    jv_t  *c, *prev;

    prev = NULL;

    for (c = o->head; c; prev = c, c = c->next) {
        if (strcmp(c->key, key) != 0) {
            continue;
        }

        if (prev) {
            prev->next = c->next;
        } else {
            o->head = c->next;
        }

        if (o->tail == c) {
            o->tail = prev;
        }

        o->n--;
        return;
    }
}


void
json_quote(buf_t *b, const char *s, size_t len)
{
    size_t         i, from;
    unsigned char  c;

    buf_putc(b, '"');
    from = 0;

    for (i = 0; i < len; i++) {
        c = (unsigned char) s[i];

        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) {
            continue;
        }

        buf_add(b, s + from, i - from);
        from = i + 1;

        switch (c) {
        case '"':  buf_puts(b, "\\\""); break;
        case '\\': buf_puts(b, "\\\\"); break;
        case '\n': buf_puts(b, "\\n"); break;
        case '\r': buf_puts(b, "\\r"); break;
        case '\t': buf_puts(b, "\\t"); break;
        default:   buf_printf(b, "\\u%04x", c); break;
        }
    }

    buf_add(b, s + from, len - from);
    buf_putc(b, '"');
}


void
json_emit(buf_t *b, const jv_t *v)
{
    const jv_t  *c;

    switch (v->type) {

    case J_NULL:  buf_puts(b, "null"); return;
    case J_FALSE: buf_puts(b, "false"); return;
    case J_TRUE:  buf_puts(b, "true"); return;
    case J_NUM:
    case J_RAW:   buf_add(b, v->s, v->len); return;
    case J_STR:   json_quote(b, v->s, v->len); return;

    case J_ARR:
        buf_putc(b, '[');

        for (c = v->head; c; c = c->next) {
            json_emit(b, c);

            if (c->next) {
                buf_putc(b, ',');
            }
        }

        buf_putc(b, ']');
        return;

    case J_OBJ:
        buf_putc(b, '{');

        for (c = v->head; c; c = c->next) {
            json_quote(b, c->key, strlen(c->key));
            buf_putc(b, ':');
            json_emit(b, c);

            if (c->next) {
                buf_putc(b, ',');
            }
        }

        buf_putc(b, '}');
        return;
    }
}


const char *
json_text(arena_t *a, const jv_t *v)
{
    buf_t  b;

    buf_init(&b, a);
    json_emit(&b, v);

    return b.p;
}
