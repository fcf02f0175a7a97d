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

/* Hash of a key, or the hash itself, as clients send either. */
const char *key_token(req_t *r, const char *sent);

/*
 * The row that a key or hash stands for, whatever it was regenerated to.  0, or -1
 * after answering; *token is NULL when there is none.
 */
typedef struct {
    const char  *token;          /* of the row, as entities and tables name it */
    const char  *user_id;
    const char  *team_id;
    int64_t      version;
    int          by_alias;       /* found by its alias alone                   */
    int          guaranteed;     /* a limit of it is guaranteed_throughput     */
} key_ref_t;

int key_find(req_t *r, const char *sent, key_ref_t *ref);

/* The same by the token of the row, which nobody else changes before the end. */
int key_lock(req_t *r, const char *token, key_ref_t *ref);

/*
 * key_find() for a decision in the open transaction: until its end nobody changes the key,
 * nor takes away its team or that of the body, its user, the caller or memberships of
 * theirs.  Locked in this order: teams, users, memberships, key.
 */
int key_hold(req_t *r, const char *sent, key_ref_t *ref);

/* The same by the body's "key" or "key_alias", for update. */
int key_hold_body(req_t *r, key_ref_t *ref, const char **sent);

/* The same for a key that is being made.  0, or -1 after answering. */
int key_hold_owners(req_t *r, const char *user_id, const char *team_id);

/* Both NULL, or the same text. */
int key_same(const char *a, const char *b);

/* Is the caller the owner of this key?  Marks the request as scoped. */
int key_is_own(req_t *r, const key_ref_t *ref);

/* Answers 401 team_member_permission_error and returns -1 unless permitted. */
int key_member_permits(req_t *r, const char *team_id, const char *route);
int key_member_of(req_t *r, const char *team_id, const char *user_id);

/*
 * Archives and deletes the keys of a condition on `keys` with the text parameters $1
 * and $2, inside the open transaction.  How many, or -1 after answering.
 */
int keys_delete(req_t *r, const char *cond, const char *p1, const char *p2);

/* 1 when the caller is an admin of the team itself (an org admin is not). */
int key_team_admin(req_t *r, const char *team_id);

/* The message of an answer that refused one item of many; takes it back. */
const char *key_taken_error(req_t *r);

/*
 * May the caller create a key with this owner and team?  *user_id becomes the
 * caller where he named nobody.  0, or -1 after answering.
 */
int key_may_create(req_t *r, const char **user_id, const char *team_id,
    const char *route);

/*
 * key_type of the body is allowed_routes, which is put there.  0, or -1 after refusing one
 * that says something else than allowed_routes.
 */
int key_type(req_t *r);

/* default_key_generate_params and upperbound_key_generate_params. */
int key_defaults(req_t *r, int create);

/*
 * team_member_key_duration of the team bounds `duration` of the body for all but proxy
 * admins.  fill: the caller has not asked for one, and gets that of the team, unless the
 * key `token` (NULL: a new one) ends before.  0, or -1 after answering.
 */
int key_team_duration(req_t *r, const char *team_id, const char *token, int fill);

/*
 * What the keys of a team have, of those whose limit is guaranteed_throughput, is no more
 * than the team has.  Of the key as it was written: before is its row until then, NULL for
 * a new one; what was guaranteed then stays.  0, or -1 after answering 400.
 */
int key_guaranteed(req_t *r, const char *token, const jv_t *before, const jv_t *row);

/* Writes the columns of rs to the row and keeps owners, meters and audit in step. */
int key_change(req_t *r, rowset_t *rs, const key_ref_t *ref, const char *action,
    jv_t **row);

/* temp_budget_increase and temp_budget_expiry of the body.  -1 after answering. */
int key_temp_budget(req_t *r);

/* Options of the body: enforced_params, throttle_on_budget_exceeded and its
 * percentage, budget_fallbacks.  -1 after answering. */
int key_options(req_t *r);

/* Whether the key as it is now can have its options.  -1 after answering. */
int key_options_fit(req_t *r, const char *token, const jv_t *row);

/* May the caller update this key (litellm-api 8A)?  0, or -1 after answering. */
int key_may_update(req_t *r, const key_ref_t *ref, const char *sent);

/* 0, or -1 after refusing organization_id of the body. */
int key_keeps_organization(req_t *r, const key_ref_t *ref);

/* 1 when the team is of this organization. */
int key_team_is_of(req_t *r, const char *team_id, const char *org_id);

/*
 * /key/update of r->json inside the open transaction.  in: the team whose keys are changed
 * all at once, NULL for one key.  0, or -1 after answering.
 */
int key_update_one(req_t *r, const char *in, key_ref_t *ref, const char **sent,
    jv_t **row);

/* The row with its spend, after the commit. */
void key_spend(req_t *r, const char *token, jv_t *row);

/* "key" text: the caller's own (of field `name`) or fresh.  NULL: answered. */
const char *key_text(req_t *r, const char *name);

/* An id of the body: 0 and *id (NULL: absent or null), -1 after answering. */
int key_body_id(req_t *r, const char *name, const char **id);

/* Alias free, organization and budget known.  -1 after answering. */
int key_check(req_t *r, const char *token);

/* Makes the rows that user_id and team_id (either may be NULL) stand for. */
int key_owners(req_t *r, const char *user_id, const char *team_id);

/* Wire JSON of a key, NULL when there is none.  -1 after answering. */
int key_row(req_t *r, const char *token, jv_t **row);

/* Fields of the request that the response echoes although no column has them. */
void key_echo(req_t *r, jv_t *out);


#endif
