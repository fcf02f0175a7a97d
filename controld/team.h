/* What the handlers of teams share. */

#ifndef CTL_TEAM_H
#define CTL_TEAM_H

#include "fields.h"
#include "http.h"
#include "team_member.h"


/* Wire JSON of a team, NULL when there is none; -1 after answering. */
int team_row(req_t *r, const char *id, jv_t **row);

/* team_id of the path or the body; NULL after answering. */
const char *team_id_of(req_t *r);

/* Puts what the team has spent into its row. */
void team_spend(req_t *r, const char *id, jv_t *row);

/*
 * Locks the team for a caller who may manage it as a whole.  0, or -1 after answering
 * 404 or 403.
 */
int team_managed(req_t *r, const char *id);

/*
 * If-Match of the team, which is locked; its members are a part of it.  0, or -1 after
 * answering 412.
 */
int team_match(req_t *r, const char *id);

/*
 * team_member_budget and its like of the body, and team_member_key_duration: what members
 * without limits of their own have.  0, or -1 after answering.
 */
int team_member_limits(req_t *r, member_limit_t *m);

/* Their budgets row into rs: `current`, or a new one.  0, or -1 after answering. */
int team_member_budget(req_t *r, rowset_t *rs, const member_limit_t *m,
    const char *team_id, const char *current);

/* members_with_roles of the body become members.  0, or -1 after answering. */
int team_members(req_t *r, const char *team_id);

/* Who creates a team becomes an admin of it.  0, or -1 after answering. */
int team_creator(req_t *r, const char *team_id);

/* Deletes a team with its keys and memberships, inside the open transaction. */
int team_delete(req_t *r, const char *id);


#endif
