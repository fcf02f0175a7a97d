/*
 * Nobody grants what he does not have: what a caller who is no proxy admin may put
 * into a key is bounded by the key he calls with, and by his user or the team.
 */

#ifndef CTL_GRANT_H
#define CTL_GRANT_H

#include "http.h"


/*
 * Checks models, aliases, routes, budgets, rates and expiry of r->json against those
 * bounds, and puts the bounds of the calling key where the body is silent (`create`).
 * Does nothing for admins.  token: the key that is changed, NULL for a new one.
 * team_id NULL: a personal key.  0, or -1 after answering 403.
 */
int grant_key(req_t *r, const char *token, const char *user_id, const char *team_id,
    int create);

/*
 * The caller gets the secret of another key: it may do no more than his own.  0, or -1
 * after answering 403.
 */
int grant_secret(req_t *r, const char *token);

/* A team has no more than its organization, whoever asks: 400. */
int grant_team(req_t *r, const char *org_id);

/* 1 when the list covers what is asked for; NULL lists are everything. */
int grant_covers(const jv_t *have, const jv_t *want);


#endif
