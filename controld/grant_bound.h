/* What bounds a grant: shared by the files that decide one. */

#ifndef CTL_GRANT_BOUND_H
#define CTL_GRANT_BOUND_H

#include "http.h"


/* One row that bounds: the calling key, a user, a team, a member or an organization. */

typedef struct {
    const char  *what;
    int          closed;     /* what is left empty is not bounded by it at use */
    const jv_t  *row;        /* its limits by wire name, models resolved       */
} bound_t;


/* 1 and *n when v is a number, or the text of one, at this scale. */
int grant_value(const jv_t *v, int scale, int64_t *n);

/* Answers 403: `name` exceeds `text` that b has.  -1. */
int grant_refuse(req_t *r, const char *name, const char *text, const bound_t *b);

/* Keeps a key that is a service account one, whatever metadata the body has. */
void grant_service(req_t *r, const bound_t *own);

/*
 * May a caller whose key is b give throttle_on_budget_exceeded to the key `own`
 * (no row: a new one)?  0, or -1 after answering.
 */
int grant_throttle(req_t *r, const bound_t *b, const bound_t *own);


#endif
