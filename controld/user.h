/* What the handlers of users, teams and organizations share. */

#ifndef CTL_USER_H
#define CTL_USER_H

#include "fields.h"
#include "http.h"


/*
 * Finds the user by id or by e-mail address, and makes the row if there is none, with
 * default_internal_user_params.  One of *id and email may be NULL; *id is set.  0, or
 * -1 after answering.
 */
int user_ensure(req_t *r, const char **id, const char *email);

/* users.teams in step with a membership.  0, or -1 after answering. */
int user_joined(req_t *r, const char *user_id, const char *team_id);
int user_left(req_t *r, const char *user_id, const char *team_id);

/* Wire JSON, NULL when there is none or only an implicit row; -1 after answering. */
int user_row(req_t *r, const char *id, jv_t **row);

/* The id of an address, NULL when nobody has it.  -1 after answering. */
int user_by_email(req_t *r, const char *email, const char **id);

/*
 * default_internal_user_params for what r->json leaves out, then the budget of
 * internal users.  0, or -1 after answering.
 */
int user_defaults(req_t *r);

/* user_role of the body into rs; only proxy admins make admins.  -1 answered. */
int user_role(req_t *r, rowset_t *rs);

/* password of the body, by policy and as scrypt, into rs.  -1 after answering. */
int user_password(req_t *r, rowset_t *rs);


#endif
