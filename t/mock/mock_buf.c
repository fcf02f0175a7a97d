/*
 * Buffers that grow, and the end when they cannot.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "mock.h"


void
mock_die(const char *what)
{
    fprintf(stderr, "keytoll-mock: %s: %s\n", what, strerror(errno));
    exit(1);
}


void
mock_reserve(mock_buf_t *b, size_t n)
{
    size_t  cap;

    if (b->cap - b->len >= n) {
        return;
    }

    for (cap = b->cap ? b->cap : 4096; cap - b->len < n; cap *= 2) {
        /* void */
    }

    b->p = realloc(b->p, cap);

    if (b->p == NULL) {
        mock_die("memory");
    }

    b->cap = cap;
}


void
mock_put(mock_buf_t *b, const void *p, size_t n)
{
    mock_reserve(b, n);

    if (n) {
        memcpy(b->p + b->len, p, n);
        b->len += n;
    }
}


void
mock_int(mock_buf_t *b, int64_t v)
{
    char      digits[20], *p;
    uint64_t  u;

    u = v < 0 ? 0 - (uint64_t) v : (uint64_t) v;
    p = digits + sizeof(digits);

    do {
        *--p = (char) ('0' + u % 10);
        u /= 10;
    } while (u);

    if (v < 0) {
        mock_put(b, "-", 1);
    }

    mock_put(b, p, (size_t) (digits + sizeof(digits) - p));
}
