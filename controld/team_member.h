/* What one member of a team is limited to; shared by the handlers of members. */

#ifndef CTL_TEAM_MEMBER_H
#define CTL_TEAM_MEMBER_H

#include <stdint.h>
#include "fields.h"
#include "http.h"


/* The fields of a body that member_limits() reads. */
#define MEMBER_LIMIT_FIELDS                                                   \
    { "max_budget_in_team", F_USD, NULL, 0 },                                 \
    { "budget_duration", F_STR, NULL, 0 },                                    \
    { "tpm_limit", F_INT, NULL, 0 },                                          \
    { "rpm_limit", F_INT, NULL, 0 },                                          \
    { "allowed_models", F_STRS, NULL, 0 }

typedef struct {
    int64_t      max_nusd;               /* -1: none                           */
    int64_t      rpm;
    int64_t      tpm;
    const char  *duration;
    const char  *models;                 /* text[], NULL when none was sent    */
    int          present;                /* any limit was sent                 */
    int          silent;                 /* a list of models, and no limit     */
} member_limit_t;


/* Limits of the body.  0, or -1 after answering. */
int member_limits(req_t *r, member_limit_t *l);

/* Locks the team.  0, or -1 after answering `status` with `fmt`, which takes its id. */
int member_team(req_t *r, const char *team_id, int status, const char *fmt);

/* 0 for who may manage the team's members, -1 after answering 403. */
int member_admin(req_t *r, const char *team_id);

/* Whoever is no proxy admin sets no limits of his own.  0, or -1 after answering 403. */
int member_not_self(req_t *r, const char *user_id);

/* The body has one of the limits, or a null in place of one. */
int member_sends_limits(req_t *r);

/* A membership as the audit has it, NULL when there is none.  -1 after answering. */
int member_seen(req_t *r, const char *team_id, const char *user_id, const char **seen);

/*
 * Writes what became of a membership that was `before`, and gives the team, of which it is
 * a part, another version.  0, or -1 after answering.
 */
int member_audit(req_t *r, const char *team_id, const char *user_id, const char *before);

/* Links a budget of its own to a membership, or none.  0, or -1 after answering. */
int member_budget(req_t *r, const char *team_id, const char *user_id,
    const member_limit_t *l);

/* Sets the list of models of a membership, if one was sent.  0, or -1 after answering. */
int member_set_models(req_t *r, const char *team_id, const char *user_id,
    const member_limit_t *l);


#endif
