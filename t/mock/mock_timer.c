/*
 * Timers of a loop: a binary heap ordered by due_ms.
 */

#include <stdlib.h>

#include "mock.h"


static void
mock_heap_set(mock_loop_t *l, int i, mock_conn_t *c)
{
    l->heap[i] = c;
    c->heap = i;
}


static void
mock_heap_up(mock_loop_t *l, int i, mock_conn_t *c)
{
    int  parent;

    while (i) {
        parent = (i - 1) / 2;

        if (l->heap[parent]->due_ms <= c->due_ms) {
            break;
        }

        mock_heap_set(l, i, l->heap[parent]);
        i = parent;
    }

    mock_heap_set(l, i, c);
}


static void
mock_heap_down(mock_loop_t *l, int i, mock_conn_t *c)
{
    int  child;

    for ( ;; ) {
        child = 2 * i + 1;

        if (child >= l->nheap) {
            break;
        }

        if (child + 1 < l->nheap
            && l->heap[child + 1]->due_ms < l->heap[child]->due_ms)
        {
            child++;
        }

        if (c->due_ms <= l->heap[child]->due_ms) {
            break;
        }

        mock_heap_set(l, i, l->heap[child]);
        i = child;
    }

    mock_heap_set(l, i, c);
}


void
mock_timer_del(mock_conn_t *c)
{
    int           i;
    mock_conn_t  *last;
    mock_loop_t  *l = c->loop;

    if (c->heap < 0) {
        return;
    }

    i = c->heap;
    c->heap = -1;
    last = l->heap[--l->nheap];

    if (last != c) {
        mock_heap_down(l, i, last);
        mock_heap_up(l, last->heap, last);
    }
}


void
mock_timer_add(mock_conn_t *c, int64_t ms)
{
    mock_loop_t  *l = c->loop;

    mock_timer_del(c);

    if (l->nheap == l->heap_cap) {
        l->heap_cap = l->heap_cap ? l->heap_cap * 2 : 256;
        l->heap = realloc(l->heap, (size_t) l->heap_cap * sizeof(mock_conn_t *));

        if (l->heap == NULL) {
            mock_die("memory");
        }
    }

    c->due_ms = l->now_ms + (uint64_t) ms;
    mock_heap_up(l, l->nheap++, c);
}
