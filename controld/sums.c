#include <stdlib.h>
#include <string.h>
#include "sums.h"


static uint64_t
sums_hash(const char *s)
{
    uint64_t  h;

    for (h = 1469598103934665603u; *s; s++) {
        h = (h ^ (unsigned char) *s) * 1099511628211u;
    }

    return h;
}


void
sums_init(sums_t *t, arena_t *a, size_t expect)
{
    t->arena = a;
    t->n = 0;
    t->over = 0;

    for (t->size = 64; t->size < expect * 2; t->size *= 2) { /* void */ }

    t->slot = arena_alloc(a, t->size * sizeof(sum_t *));
}


static void sums_grow(sums_t *t);


sum_t *
sums_get(sums_t *t, const char *key)
{
    size_t    i;
    uint64_t  h;

    if (t->n * 2 > t->size) {
        sums_grow(t);
    }

    h = sums_hash(key);

    for (i = h & (t->size - 1); t->slot[i]; i = (i + 1) & (t->size - 1)) {
        if (t->slot[i]->hash == h && strcmp(t->slot[i]->key, key) == 0) {
            return t->slot[i];
        }
    }

    t->slot[i] = arena_alloc(t->arena, sizeof(sum_t));
    t->slot[i]->key = arena_str(t->arena, key);
    t->slot[i]->hash = h;
    t->n++;

    return t->slot[i];
}


static int
sums_order(const void *x, const void *y)
{
    sum_t *const *a = x;
    sum_t *const *b = y;

    return strcmp((*a)->key, (*b)->key);
}


sum_t **
sums_all(sums_t *t)
{
    size_t   i, n;
    sum_t  **list;

    list = arena_alloc(t->arena, (t->n + 1) * sizeof(sum_t *));

    for (i = 0, n = 0; i < t->size; i++) {
        if (t->slot[i]) {
            list[n++] = t->slot[i];
        }
    }

    return list;
}


sum_t **
sums_sorted(sums_t *t)
{
    sum_t  **list;

    list = sums_all(t);
    qsort(list, t->n, sizeof(sum_t *), sums_order);

    return list;
}


void
sums_add(sums_t *t, sum_t *s, int i, int64_t v)
{
    if (__builtin_add_overflow(s->v[i], v, &s->v[i])) {
        t->over = 1;
    }
}


/* Twice the slots, for a table whose size could not be told before. */

static void
sums_grow(sums_t *t)
{
    size_t   i, k, size;
    sum_t  **slot;

    size = t->size * 2;
    slot = arena_alloc(t->arena, size * sizeof(sum_t *));

    for (i = 0; i < t->size; i++) {
        if (t->slot[i] == NULL) {
            continue;
        }

        for (k = t->slot[i]->hash & (size - 1); slot[k];
             k = (k + 1) & (size - 1)) { /* void */ }

        slot[k] = t->slot[i];
    }

    t->slot = slot;
    t->size = size;
}
