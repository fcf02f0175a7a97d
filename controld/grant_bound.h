/* What bounds a grant: shared by the files that decide one. */

#ifndef CTL_GRANT_BOUND_H
#define CTL_GRANT_BOUND_H

#include "http.h"


/* One row that bounds: the calling key, a user, a team, a member or an organization. */

typedef enum {
    BOUND_KEY = 0,
    BOUND_USER,
    BOUND_TEAM,
    BOUND_MEMBER,
    BOUND_ORG
} bound_kind_t;

typedef struct {
    const char  *what;
    int          closed;     /* what is left empty is not bounded by it at use */
    const jv_t  *row;        /* its limits by wire name, models resolved       */
} bound_t;


/* Who bounds a key. */

typedef struct {
    bound_t  key;            /* that the caller calls with                     */
    bound_t  own;            /* that is changed                                */
    bound_t  owner;          /* the team, or the user of a personal key        */
    bound_t  holder;         /* whom the key is for, in the team               */
    bound_t  maker;          /* the caller, where that is another              */
} bounds_t;


/*
 * Reads what bounds: the row `id`, of a membership the place of `of` in team `id`.
 * One that is not there bounds nothing, but a key that is gone may nothing.  0, or -1
 * after answering.
 */
int grant_bound(req_t *r, bound_t *b, bound_kind_t kind, const char *id,
    const char *of);


/* 1 and *n when v is a number, or the text of one, at this scale. */
int grant_value(const jv_t *v, int scale, int64_t *n);

/* Answers 403: `name` exceeds `text` that b has.  -1. */
int grant_refuse(req_t *r, const char *name, const char *text, const bound_t *b);

/*
 * models and access_group_ids of the body, and of the key where it is silent, as an
 * allow-list; NULL: everything.  0, or -1 after answering.
 */
int grant_wanted(req_t *r, const bound_t *own, const jv_t **want);

/* Limits of rows by wire name that are numbers at a scale. */

#define GRANT_NUMBERS  4

typedef struct {
    const char  *name;
    int          scale;
} grant_number_t;

extern const grant_number_t  grant_numbers[GRANT_NUMBERS];

/*
 * 1 when what is bound like `want` may do no more than what is bound like `have`: limits,
 * models, routes, aliases, rights of the key.  0 and *name when it may, -1 after answering.
 */
int grant_less(req_t *r, const bound_t *have, const bound_t *want, const char **name);

/*
 * A request for an alias is a request for what it leads to, so an alias may lead only
 * where the caller's key, the owner, the members and the key itself may go.  So may a
 * cheaper model that stands in for another.  0, or -1 after answering 403.
 */
int grant_aliases(req_t *r, const bounds_t *b);
int grant_fallbacks(req_t *r, const bounds_t *b);

/* Keeps a key that is a service account one, whatever metadata the body has. */
void grant_service(req_t *r, const bound_t *own);


#endif
