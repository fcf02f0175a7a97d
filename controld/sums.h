/* Sums by a text key, collected in a hash table and taken out sorted. */

#ifndef CTL_SUMS_H
#define CTL_SUMS_H

#include "arena.h"


#define SUM_VALUES  9

typedef struct {
    const char  *key;
    uint64_t     hash;
    const void  *ref;            /* of the owner                               */
    int64_t      a;              /* period id or day                           */
    int64_t      v[SUM_VALUES];
} sum_t;

typedef struct {
    arena_t  *arena;
    size_t    n;
    size_t    size;              /* power of two                               */
    int       over;              /* a sum did not fit: it can not be written   */
    sum_t   **slot;
} sums_t;


void sums_init(sums_t *t, arena_t *a, size_t expect);
sum_t *sums_get(sums_t *t, const char *key);
sum_t **sums_all(sums_t *t);             /* in no order                        */
sum_t **sums_sorted(sums_t *t);

/* s->v[i] += v, s being one of t. */
void sums_add(sums_t *t, sum_t *s, int i, int64_t v);


#endif
