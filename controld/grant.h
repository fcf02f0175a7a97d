/*
 * Nobody grants what he does not have: what a caller who is no proxy admin may put
 * into a key is bounded by the key he calls with, and by his user or the team.
 */

#ifndef CTL_GRANT_H
#define CTL_GRANT_H

#include "fields.h"
#include "grant_bound.h"
#include "http.h"
#include "key.h"


/*
 * Checks models, aliases, numbers and expiry of r->json against those bounds, and puts
 * the bounds of the calling key where the body is silent (`create`).  What comes of it is
 * judged by grant_child() or grant_kept().
 * Does nothing for admins.  token: the key that is changed, NULL for a new one.
 * team_id NULL: a personal key.  0, or -1 after answering 403.
 */
int grant_key(req_t *r, const char *token, const char *user_id, const char *team_id,
    int create);

/*
 * The key `token` that was just made does no more than the key that the caller calls
 * with, unless he is an admin.  In the transaction that made it.  0, or -1 after answering.
 */
int grant_child(req_t *r, const char *token);

/*
 * Fields of proxy admins that others send with a value that says nothing: they leave the
 * body where the key has nothing there.  0, or -1 after refusing those where it has.
 */
int grant_nothing(req_t *r, const field_t *table, const char *token);

/*
 * The caller gets the secret of another key, and with it the rights of its user: neither
 * has more than he and the key he calls with.  0, or -1 after answering 403.
 */
int grant_secret(req_t *r, const key_ref_t *ref);

/* May the caller have a key of this team that is no user's?  0, or -1 after answering 403. */
int grant_nobodys(req_t *r, const char *team_id);

/*
 * A key as it is before a change, and after: for who is no proxy admin it does no more
 * than before.  In the transaction of the change.  0, or -1 after answering.
 */
int grant_now(req_t *r, const char *token, bound_t *b);
int grant_kept(req_t *r, const char *token, const bound_t *before);

/* A team has no more than its organization, whoever asks: 400. */
int grant_team(req_t *r, const char *org_id);

/*
 * allowed_models, a text[], of a member of the team: names that the team may use, whoever
 * asks.  0, or -1 after answering 400.
 */
int grant_member_models(req_t *r, const char *team_id, const char *models);

/*
 * max_budget_in_organization of the body: no more than the organization has, whoever asks.
 * 0, or -1 after answering 400.
 */
int grant_org_member(req_t *r, const char *org_id);

/* 1 when the list covers what is asked for, by the letter; NULL lists are everything. */
int grant_covers(const jv_t *have, const jv_t *want);

/*
 * The same as the gate asks it: "openai/" and any name covers what openai serves, and the
 * names of the object `also`, unless it is NULL, are covered too.  0 when one is not, it
 * is *bad then; -1 after answering.
 */
int grant_may(req_t *r, const jv_t *have, const jv_t *want, const jv_t *also,
    const char **bad);


#endif
