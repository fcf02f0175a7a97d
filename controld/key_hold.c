/* Rows that a decision about a key stands on, locked: team, user, membership, then the key. */

#include <string.h>
#include "db.h"
#include "key.h"
#include "tx.h"


static int
hold_is(const jv_t *o)
{
    size_t                    i;
    const char               *s;
    static const char *const  names[] = { "rpm_limit_type", "tpm_limit_type" };

    for (i = 0; i < 2; i++) {
        s = json_str(o, names[i]);

        if (s && strcmp(s, "guaranteed_throughput") == 0) {
            return 1;
        }
    }

    return 0;
}


/* What is guaranteed is summed up: one key of a team at a time. */

static int
hold_alone(req_t *r)
{
    return hold_is(r->json) || hold_is(json_get(r->json, "metadata"));
}


static int
hold_rows(req_t *r, const char *user_id, const char *const team[2], int alone)
{
    PGresult    *res;
    const char  *teams;

    teams = db_array(&r->a, team, (size_t) (team[0] != NULL) + (team[0] && team[1]));
    res = alone ? tx_q(r, "SELECT 1 FROM teams WHERE team_id = ANY ($1::text[]) ORDER BY"
                       " team_id FOR NO KEY UPDATE", teams)
                : tx_q(r, "SELECT 1 FROM teams WHERE team_id = ANY ($1::text[]) ORDER BY"
                       " team_id FOR SHARE", teams);

    if (res == NULL) {
        return -1;
    }

    PQclear(res);
    res = tx_q(r, "SELECT 1 FROM users WHERE user_id IN ($1, $2) ORDER BY user_id FOR"
               " SHARE", user_id, r->caller_user);

    if (res == NULL) {
        return -1;
    }

    PQclear(res);
    res = tx_q(r, "SELECT 1 FROM memberships WHERE team_id = ANY ($1::text[]) AND user_id IN"
               " ($2, $3) ORDER BY team_id, user_id FOR SHARE", teams, user_id,
               r->caller_user);
    PQclear(res);

    return res ? 0 : -1;
}


int
key_hold_owners(req_t *r, const char *user_id, const char *team_id)
{
    return hold_rows(r, user_id, (const char *const[]){ team_id, NULL }, hold_alone(r));
}


/* The same key with the same owners. */

static int
hold_same(const key_ref_t *a, const key_ref_t *b)
{
    return b->token && strcmp(a->token, b->token) == 0
           && key_same(a->user_id, b->user_id) && key_same(a->team_id, b->team_id)
           && (a->guaranteed || !b->guaranteed);
}


int
key_hold(req_t *r, const char *sent, key_ref_t *ref)
{
    int          alone;
    key_ref_t    seen;
    const char  *to, *team[2];

    if (key_find(r, sent, &seen) != 0) {
        return -1;
    }

    if (seen.token == NULL) {
        *ref = seen;
        return 0;
    }

    to = json_str(r->json, "team_id");
    team[0] = seen.team_id ? seen.team_id : to;
    team[1] = seen.team_id ? to : NULL;
    alone = seen.guaranteed || hold_alone(r);

    if (hold_rows(r, seen.user_id, team, alone) != 0 || key_lock(r, seen.token, ref) != 0) {
        return -1;
    }

    if (!hold_same(&seen, ref)) {
        tx_collided(r);                  /* it went to others meanwhile        */
        return -1;
    }

    return 0;
}
