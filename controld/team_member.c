/* Limits of members of teams. */

#include <string.h>
#include "access.h"
#include "db.h"
#include "fields.h"
#include "owner.h"
#include "team_member.h"
#include "tx.h"


int
member_limits(req_t *r, member_limit_t *l)
{
    int  rc;

    memset(l, 0, sizeof(*l));
    l->max_nusd = l->rpm = l->tpm = -1;
    l->duration = json_str(r->json, "budget_duration");
    rc = field_strs(r, "allowed_models", &l->models);

    if (rc == 0 && json_get(r->json, "allowed_models")) {
        l->models = "{}";                /* null ends a list, as [] does       */
    }

    if (rc < 0 || field_usd(r, "max_budget_in_team", &l->max_nusd) < 0
        || field_int(r, "rpm_limit", &l->rpm) < 0
        || field_int(r, "tpm_limit", &l->tpm) < 0)
    {
        return -1;
    }

    l->present = l->max_nusd >= 0 || l->rpm >= 0 || l->tpm >= 0;
    l->silent = l->models && !json_get(r->json, "max_budget_in_team")
                && !json_get(r->json, "rpm_limit") && !json_get(r->json, "tpm_limit")
                && !json_get(r->json, "budget_duration");

    return 0;
}


int
member_team(req_t *r, const char *team_id, int status, const char *fmt)
{
    int  known;

    known = tx_is(r, "SELECT 1 FROM teams WHERE team_id = $1 AND NOT implicit FOR NO KEY"
                  " UPDATE", team_id);

    if (known < 0) {
        return -1;
    }

    if (!known) {
        access_scoped(r);
        fail_detail_error(r, status, fmt, team_id);
        return -1;
    }

    return 0;
}


int
member_admin(req_t *r, const char *team_id)
{
    int  rc;

    rc = access_team_admin(r, team_id);

    if (rc == 0) {
        fail_detail_error(r, 403, "Call not allowed. User not proxy admin OR team admin."
                          " route=%s, team_id=%s", r->path, team_id);
    }

    return rc > 0 ? 0 : -1;
}


int
member_budget(req_t *r, const char *team_id, const char *user_id,
    const member_limit_t *l)
{
    PGresult    *res;
    const char  *id;

    id = NULL;

    if (l->present) {
        id = owner_budget(r, NULL, l->max_nusd, -1, l->rpm, l->tpm, l->duration);

        if (id == NULL) {
            return -1;
        }
    }

    res = tx_q(r, "UPDATE memberships SET budget_id = $3 WHERE team_id = $1 AND user_id"
               " = $2 RETURNING ent", team_id, user_id, id);

    if (res == NULL) {
        return -1;
    }

    if (PQntuples(res)) {
        tx_touch(r, PQgetvalue(res, 0, 0));
    }

    PQclear(res);

    return 0;
}


int
member_set_models(req_t *r, const char *team_id, const char *user_id,
    const member_limit_t *l)
{
    PGresult  *res;

    if (l->models == NULL) {
        return 0;
    }

    res = tx_q(r, "UPDATE memberships SET allowed_models = $3::text[] WHERE team_id = $1"
               " AND user_id = $2 RETURNING ent", team_id, user_id, l->models);

    if (res == NULL) {
        return -1;
    }

    if (PQntuples(res)) {
        tx_touch(r, PQgetvalue(res, 0, 0));
    }

    PQclear(res);

    return 0;
}


int
member_not_self(req_t *r, const char *user_id)
{
    if (!access_self(r, user_id) || access_admin(r)) {
        return 0;
    }

    fail_detail_error(r, 403, "An admin can not change his own limits. Ask another one.");

    return -1;
}


int
member_sends_limits(req_t *r)
{
    return json_get(r->json, "max_budget_in_team") || json_get(r->json, "budget_duration")
           || json_get(r->json, "rpm_limit") || json_get(r->json, "tpm_limit")
           || json_get(r->json, "allowed_models");
}


int
member_seen(req_t *r, const char *team_id, const char *user_id, const char **seen)
{
    PGresult  *res;

    res = tx_q(r, "SELECT kt_member_audit($1, $2)", team_id, user_id);

    if (res == NULL) {
        return -1;
    }

    *seen = arena_str(&r->a, db_str(res, 0, 0));
    PQclear(res);

    return 0;
}


int
member_audit(req_t *r, const char *team_id, const char *user_id, const char *before)
{
    PGresult    *res;
    const char  *after, *ent;

    if (member_seen(r, team_id, user_id, &after) != 0) {
        return -1;
    }

    res = tx_q(r, "UPDATE teams SET version = version WHERE team_id = $1 RETURNING ent,"
               " 'member:' || kt_encode($1) || '/' || kt_encode($2)", team_id, user_id);

    if (res == NULL) {
        return -1;
    }

    ent = "";

    if (PQntuples(res)) {
        tx_touch(r, PQgetvalue(res, 0, 0));
        ent = arena_str(&r->a, PQgetvalue(res, 0, 1));
    }

    PQclear(res);

    return tx_audit(r, before == NULL ? "created" : after == NULL ? "deleted" : "updated",
                    "LiteLLM_TeamMembership", ent, before, after);
}
