/*
 * Memory of one request (or one batch): allocate, never free, release at once.
 * Running out of memory aborts the process: a half-served request is worse.
 */

#ifndef CTL_ARENA_H
#define CTL_ARENA_H

#include <stddef.h>
#include <stdint.h>
#include <stdarg.h>


typedef struct arena_block_s  arena_block_t;

typedef struct {
    arena_block_t  *head;
} arena_t;

/* A growing byte string in an arena; always NUL-terminated. */
typedef struct {
    arena_t  *a;
    char     *p;
    size_t    len;
    size_t    size;
} buf_t;


void arena_init(arena_t *a);
void arena_free(arena_t *a);
void *arena_alloc(arena_t *a, size_t n);          /* zeroed, 16-aligned        */
char *arena_dup(arena_t *a, const char *p, size_t len);
char *arena_str(arena_t *a, const char *s);
char *arena_printf(arena_t *a, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

void buf_init(buf_t *b, arena_t *a);
void buf_add(buf_t *b, const char *p, size_t len);
void buf_puts(buf_t *b, const char *s);
void buf_putc(buf_t *b, char c);
void buf_printf(buf_t *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

void *xmalloc(size_t n);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);


#endif
