/* What the key handlers and /user/new share. */

#ifndef CTL_KEY_H
#define CTL_KEY_H

#include "http.h"
#include "fields.h"


typedef struct {
    const char  *text;           /* the secret; shown once                     */
    const char  *token;
    jv_t        *row;            /* wire JSON of the row                       */
    int          existing;       /* it was there already, unchanged            */
} key_new_t;


/*
 * Creates a key from r->json by `table` inside the open transaction; `user_id`
 * and `team_id` may be NULL.  0, or -1 after answering.
 */
int key_create(req_t *r, const field_t *table, const char *user_id,
    const char *team_id, key_new_t *k);

/* Token of a key or hash as clients send it. */
const char *key_token(req_t *r, const char *sent);

/* Alias free, organization and budget known.  -1 after answering. */
int key_check(req_t *r, const char *token);

/* Makes the rows that user_id and team_id (either may be NULL) stand for. */
int key_owners(req_t *r, const char *user_id, const char *team_id);

/* Wire JSON of a key, NULL when there is none.  -1 after answering. */
int key_row(req_t *r, const char *token, jv_t **row);

/* Fields of the request that the response echoes although no column has them. */
void key_echo(req_t *r, jv_t *out);


#endif
