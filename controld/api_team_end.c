/* What stops a team: /team/block, /team/delete; and back. */

#include <string.h>
#include "access.h"
#include "api.h"
#include "db.h"
#include "key.h"
#include "team.h"
#include "tx.h"


const field_t  team_ids_body[] = {
    { "team_ids", F_STRS, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};

const field_t  team_id_body[] = {
    { "team_id", F_ANY, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};


/* Proxy admins and admins of the team's organization; a team admin is not enough. */

int
team_managed(req_t *r, const char *id)
{
    int          rc;
    PGresult    *res;
    const char  *org;

    res = tx_q(r, "SELECT organization_id FROM teams WHERE team_id = $1 AND NOT implicit"
               " FOR NO KEY UPDATE", id);

    if (res == NULL) {
        return -1;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        access_scoped(r);
        fail_detail_error(r, 404, "Team not found, passed team_id=%s", id);
        return -1;
    }

    org = arena_str(&r->a, db_str(res, 0, 0));
    PQclear(res);
    rc = access_org_admin(r, org);

    if (rc == 0) {
        fail_detail_error(r, 403, "You do not have access to this team. team_id=%s", id);
    }

    return rc > 0 ? 0 : -1;
}


int
team_match(req_t *r, const char *id)
{
    int64_t    version;
    PGresult  *res;

    res = tx_q(r, "SELECT version FROM teams WHERE team_id = $1", id);

    if (res == NULL) {
        return -1;
    }

    version = PQntuples(res) ? db_int(res, 0, 0) : 0;
    PQclear(res);

    return tx_match(r, version);
}


static void
team_set_blocked(req_t *r, int blocked)
{
    jv_t        *row, *before;
    PGresult    *res;
    const char  *id;

    id = team_id_of(r);

    if (id == NULL || tx_begin(r) != 0) {
        return;
    }

    if (team_managed(r, id) != 0 || team_match(r, id) != 0
        || team_row(r, id, &before) != 0)
    {
        return;
    }

    res = tx_q(r, "UPDATE teams SET blocked = $2::boolean, status = CASE WHEN"
               " $2::boolean OR NOT $4::boolean THEN status ELSE 'active' END, updated_at"
               " = now(), updated_by = $3 WHERE team_id = $1 AND NOT implicit RETURNING"
               " ent", id, blocked ? "true" : "false", tx_actor(r),
               access_admin(r) ? "true" : "false");

    if (res == NULL) {
        return;
    }

    tx_touch(r, PQgetvalue(res, 0, 0));
    PQclear(res);

    if (team_row(r, id, &row) != 0
        || tx_audit(r, blocked ? "blocked" : "unblocked", "LiteLLM_TeamTable", id,
                    json_text(&r->a, before), json_text(&r->a, row)) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    team_spend(r, id, row);
    reply_json(r, 200, row);
}


void
api_team_block(req_t *r)
{
    team_set_blocked(r, 1);
}


void
api_team_unblock(req_t *r)
{
    team_set_blocked(r, 0);
}


int
team_delete(req_t *r, const char *id)
{
    int          i, rc;
    PGresult    *res;

    res = tx_q(r, "WITH kept AS (INSERT INTO deleted_teams (team_id, row, deleted_by,"
               " deleted_by_api_key, litellm_changed_by) SELECT team_id,"
               " kt_team_json(t)::jsonb, $2, $3, $4 FROM teams t WHERE team_id = $1),"
               " away AS (UPDATE users SET teams = array_remove(teams, $1) WHERE teams @>"
               " ARRAY[$1]), m AS (DELETE FROM memberships WHERE team_id = $1 RETURNING"
               " ent), s AS (DELETE FROM submeters WHERE owner = kt_ent('team', $1)"
               " RETURNING ent), t AS (DELETE FROM teams WHERE team_id = $1 RETURNING ent)"
               " SELECT ent FROM (TABLE m UNION ALL TABLE s UNION ALL TABLE t) x", id,
               tx_actor(r), r->caller_token, r->changed_by);

    if (res == NULL) {
        return -1;
    }

    rc = 0;

    for (i = 0; i < PQntuples(res) && rc == 0; i++) {
        rc = tx_gone(r, PQgetvalue(res, i, 0));
    }

    PQclear(res);

    return rc != 0 || keys_delete(r, "team_id = $1::text", id, NULL) < 0 ? -1 : 0;
}


/* All of them or none. */

void
api_team_delete(req_t *r)
{
    jv_t        *out, *row;
    const jv_t  *ids, *c;

    ids = json_get(r->json, "team_ids");

    if (tx_begin(r) != 0) {
        return;
    }

    for (c = ids->head; c; c = c->next) {
        if (team_managed(r, c->s) != 0) {
            return;
        }
    }

    for (c = ids->head; c; c = c->next) {
        if (team_row(r, c->s, &row) != 0 || team_delete(r, c->s) != 0
            || tx_audit(r, "deleted", "LiteLLM_TeamTable", c->s,
                        row ? json_text(&r->a, row) : NULL, NULL) != 0)
        {
            return;
        }
    }

    access_scoped(r);

    if (tx_commit(r) == 0) {
        out = json_obj(&r->a);
        json_set(out, "deleted_teams", json_copy(&r->a, ids));
        reply_json(r, 200, out);
    }
}
