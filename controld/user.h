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

/*
 * Users with these ids, a text[], as the caller may see them: admins all of it, others what
 * kt_user_seen() gives.  NULL after answering.
 */
jv_t *user_rows(req_t *r, const char *ids);

/* Takes away what was added to rows of which kt_user_seen() says only who it is. */
void user_brief(jv_t *rows);

/* The id of an address, NULL when nobody has it.  -1 after answering. */
int user_by_email(req_t *r, const char *email, const char **id);

/*
 * default_internal_user_params for what r->json leaves out, then the budget of
 * internal users.  0, or -1 after answering.
 */
int user_defaults(req_t *r);

/* The latter alone. */
int user_default_budget(req_t *r);

/* user_role of the body into rs; only proxy admins make admins.  -1 answered. */
int user_role(req_t *r, rowset_t *rs);

/* password of the body, by policy and as scrypt, into rs.  -1 after answering. */
int user_password(req_t *r, rowset_t *rs);

/* Without blanks around it. */
const char *user_trim(arena_t *a, const char *s);

/* The columns of a user, in bodies that make or change one. */
#define USER_FIELDS \
    { "user_email", F_NAME, "user_email", 0 },                                \
    { "user_alias", F_NAME, "user_alias", 0 },                                \
    { "sso_user_id", F_ID, "sso_user_id", 0 },                                \
    { "models", F_STRS, "models", 1 },                                        \
    { "max_budget", F_USD, "max_budget_nusd", 0 },                            \
    { "soft_budget", F_USD, "soft_budget_nusd", 0 },                          \
    { "max_parallel_requests", F_INT, "max_parallel_requests", 0 },           \
    { "tpm_limit", F_INT, "tpm_limit", 0 },                                   \
    { "rpm_limit", F_INT, "rpm_limit", 0 },                                   \
    { "budget_duration", F_PERIOD, NULL, 0 },                                 \
    { "budget_limits", F_LIST, "budget_limits", 1 },                          \
    { "budget_enforcement", F_ENFORCE, "budget_enforcement", 0 },             \
    { "allowed_cache_controls", F_STRS, "allowed_cache_controls", 1 },        \
    { "policies", F_STRS, "policies", 1 },                                    \
    { "model_max_budget", F_OBJ, "model_max_budget", 1 },                     \
    { "blocked", F_BOOL, "blocked", 1 },                                      \
    { "model_rpm_limit", F_META, NULL, 0 },                                   \
    { "model_tpm_limit", F_META, NULL, 0 },                                   \
    { "guardrails", F_META, NULL, 0 },                                        \
    { "prompts", F_META, NULL, 0 },                                           \
    { "object_permission", F_EXTRA, NULL, F_REFUSED, "models" }

#endif
