#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "arena.h"


#define ARENA_BLOCK  8192


struct arena_block_s {
    arena_block_t  *next;
    size_t          used;
    size_t          size;
    size_t          pad;
    char            data[];
};


void *
xmalloc(size_t n)
{
    void  *p;

    p = malloc(n ? n : 1);

    if (p == NULL) {
        fputs("{\"level\":\"fatal\",\"msg\":\"out of memory\"}\n", stderr);
        abort();
    }

    return p;
}


void *
xrealloc(void *p, size_t n)
{
    p = realloc(p, n ? n : 1);

    if (p == NULL) {
        fputs("{\"level\":\"fatal\",\"msg\":\"out of memory\"}\n", stderr);
        abort();
    }

    return p;
}


char *
xstrdup(const char *s)
{
    size_t  n;
    char   *p;

    n = strlen(s) + 1;
    p = xmalloc(n);
    memcpy(p, s, n);

    return p;
}


void
arena_init(arena_t *a)
{
    a->head = NULL;
}


void
arena_free(arena_t *a)
{
    arena_block_t  *b, *next;

    for (b = a->head; b; b = next) {
        next = b->next;
        free(b);
    }

    a->head = NULL;
}


void *
arena_alloc(arena_t *a, size_t n)
{
    void           *p;
    size_t          size;
    arena_block_t  *b;

    n = (n + 15) & ~(size_t) 15;
    b = a->head;

    if (b == NULL || b->size - b->used < n) {
        size = n > ARENA_BLOCK ? n : ARENA_BLOCK;
        b = xmalloc(sizeof(arena_block_t) + size);
        b->used = 0;
        b->size = size;

        if (n > ARENA_BLOCK && a->head) {
            b->next = a->head->next;        /* keep the current one in front  */
            a->head->next = b;

        } else {
            b->next = a->head;
            a->head = b;
        }
    }

    p = b->data + b->used;
    b->used += n;
    memset(p, 0, n);

    return p;
}


char *
arena_dup(arena_t *a, const char *p, size_t len)
{
    char  *s;

    s = arena_alloc(a, len + 1);

    if (len) {
        memcpy(s, p, len);
    }

    return s;
}


char *
arena_str(arena_t *a, const char *s)
{
    return s ? arena_dup(a, s, strlen(s)) : NULL;
}


char *
arena_printf(arena_t *a, const char *fmt, ...)
{
    int      n;
    char    *s;
    va_list  args;

    va_start(args, fmt);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);

    s = arena_alloc(a, (size_t) n + 1);
    va_start(args, fmt);
    vsnprintf(s, (size_t) n + 1, fmt, args);
    va_end(args);

    return s;
}


void
buf_init(buf_t *b, arena_t *a)
{
    b->a = a;
    b->size = 256;
    b->p = arena_alloc(a, b->size);
    b->len = 0;
}


void
buf_add(buf_t *b, const char *p, size_t len)
{
    char    *np;
    size_t   size;

    if (len == 0) {
        return;
    }

    if (b->len + len + 1 > b->size) {
        size = b->size;

        while (b->len + len + 1 > size) {
            size *= 2;
        }

        np = arena_alloc(b->a, size);
        memcpy(np, b->p, b->len);
        b->p = np;
        b->size = size;
    }

    memcpy(b->p + b->len, p, len);
    b->len += len;
    b->p[b->len] = '\0';
}


void
buf_puts(buf_t *b, const char *s)
{
    buf_add(b, s, strlen(s));
}


void
buf_putc(buf_t *b, char c)
{
    buf_add(b, &c, 1);
}


void
buf_printf(buf_t *b, const char *fmt, ...)
{
    int      n;
    char     tmp[512];
    char    *s;
    va_list  args;

    va_start(args, fmt);
    n = vsnprintf(tmp, sizeof(tmp), fmt, args);
    va_end(args);

    if (n < (int) sizeof(tmp)) {
        buf_add(b, tmp, (size_t) n);
        return;
    }

    s = arena_alloc(b->a, (size_t) n + 1);
    va_start(args, fmt);
    vsnprintf(s, (size_t) n + 1, fmt, args);
    va_end(args);
    buf_add(b, s, (size_t) n);
}
