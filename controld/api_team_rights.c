/* What members of a team may do, and which models the team has. */

#include <string.h>
#include "access.h"
#include "api.h"
#include "db.h"
#include "grant.h"
#include "team.h"
#include "tx.h"


const field_t  team_permissions_body[] = {
    { "team_id", F_ID, NULL, F_REQUIRED },
    { "team_member_permissions", F_STRS, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};

const field_t  team_permissions_bulk_body[] = {
    { "permissions", F_STRS, NULL, F_REQUIRED },
    { "team_ids", F_STRS, NULL, 0 },
    { "apply_to_all_teams", F_BOOL, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  team_models_body[] = {
    { "team_id", F_ID, NULL, F_REQUIRED },
    { "models", F_STRS, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};

const arg_t  team_id_args[] = {
    { "team_id", F_STR, F_REQUIRED },
    { NULL, 0, 0 }
};

static const char *const  rights_all[] = {
    "/key/generate", "/key/update", "/key/delete", "/key/regenerate",
    "/key/service-account/generate", "/key/{key_id}/regenerate", "/key/block",
    "/key/unblock", "/key/bulk_update", "/key/info", "/key/health", "/key/list",
    "/team/key/bulk_update", "/key/{key_id}/reset_spend",
    "/key/access_group_assignment", "/key/aliases", "/team/daily/activity",
    "/spend/logs", "/spend/logs/v2", NULL
};


static int
rights_known(req_t *r, const jv_t *list)
{
    size_t       i;
    const jv_t  *c;

    for (c = list->head; c; c = c->next) {
        for (i = 0; rights_all[i] && strcmp(rights_all[i], c->s); i++) { /* void */ }

        if (rights_all[i] == NULL) {
            fail_detail_error(r, 400, "Unknown permission %s. See"
                              " all_available_permissions of /team/permissions_list",
                              c->s);
            return 0;
        }
    }

    return 1;
}


static int
rights_admin(req_t *r, const char *team, const char *what)
{
    int  rc;

    rc = access_team_admin(r, team);

    if (rc == 0) {
        fail_detail_error(r, 403, "Call not allowed. User not proxy admin OR team admin."
                          " %s route=%s, team_id=%s", what, r->path, team);
    }

    return rc > 0 ? 0 : -1;
}


/* An open team shows its rules to whoever may join it: access_team_open(). */

void
api_team_permissions(req_t *r)
{
    int          i, rc;
    jv_t        *out, *all;
    PGresult    *res;
    const char  *team;

    team = http_arg(r, "team_id");
    rc = access_team_open(r, team);
    res = rc < 0 ? NULL
          : db_q("SELECT to_json(CASE WHEN cardinality(team_member_permissions) > 0 THEN"
                 " team_member_permissions ELSE '{/key/info,/key/health}' END) FROM teams"
                 " WHERE team_id = $1 AND NOT implicit", team);

    if (rc < 0 || !db_ok(res)) {
        PQclear(res);

        if (rc >= 0) {
            fail_db(r);
        }

        return;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        access_scoped(r);
        fail_detail_error(r, 404, "Team not found, passed team_id=%s", team);
        return;
    }

    if (rc == 0 && rights_admin(r, team, "") != 0) {
        PQclear(res);
        return;
    }

    all = json_arr(&r->a);

    for (i = 0; rights_all[i]; i++) {
        json_push(all, json_string(&r->a, rights_all[i]));
    }

    out = json_obj(&r->a);
    json_set(out, "team_id", json_string(&r->a, team));
    json_set(out, "team_member_permissions",
             json_raw(&r->a, arena_str(&r->a, PQgetvalue(res, 0, 0))));
    json_set(out, "all_available_permissions", all);
    PQclear(res);
    reply_json(r, 200, out);
}


/* Runs one UPDATE of a team with audit; answers with the row. */

static void
rights_write(req_t *r, const char *team, const char *sql, const char *value)
{
    jv_t      *before, *row;
    PGresult  *res;

    if (team_match(r, team) != 0 || team_row(r, team, &before) != 0) {
        return;
    }

    res = tx_q(r, sql, team, value, tx_actor(r));

    if (res == NULL) {
        return;
    }

    if (PQntuples(res)) {
        tx_touch(r, PQgetvalue(res, 0, 0));
    }

    PQclear(res);

    if (team_row(r, team, &row) == 0
        && tx_audit(r, "updated", "LiteLLM_TeamTable", team,
                    json_text(&r->a, before), json_text(&r->a, row)) == 0
        && tx_commit(r) == 0)
    {
        team_spend(r, team, row);
        reply_json(r, 200, row);
    }
}


static const char *
rights_array(req_t *r, const jv_t *list)
{
    size_t        n;
    const jv_t   *c;
    const char  **items;

    items = arena_alloc(&r->a, (list->n + 1) * sizeof(char *));

    for (n = 0, c = list->head; c; c = c->next) {
        items[n++] = c->s;
    }

    return db_array(&r->a, items, n);
}


static int
rights_team(req_t *r, const char *team)
{
    int  known;

    if (tx_begin(r) != 0) {
        return -1;
    }

    known = tx_is(r, "SELECT 1 FROM teams WHERE team_id = $1 AND NOT implicit FOR NO KEY"
                  " UPDATE", team);

    if (known < 0) {
        return -1;
    }

    if (!known) {
        access_scoped(r);
        fail_detail_error(r, 404, "Team not found, passed team_id=%s", team);
        return -1;
    }

    return 0;
}


void
api_team_permissions_update(req_t *r)
{
    const jv_t  *list;
    const char  *team;

    team = json_str(r->json, "team_id");
    list = json_get(r->json, "team_member_permissions");

    if (rights_team(r, team) == 0 && rights_admin(r, team, "") == 0
        && rights_known(r, list))
    {
        rights_write(r, team, "UPDATE teams SET team_member_permissions = $2::text[],"
                     " updated_at = now(), updated_by = $3 WHERE team_id = $1 RETURNING"
                     " ent", rights_array(r, list));
    }
}


/* tx_audit() of every team at once: they may be many. */

#define RIGHTS_BULK                                                           \
    "WITH old AS (SELECT team_id, team_member_permissions AS p FROM teams WHERE NOT" \
    " implicit AND ($2::boolean OR team_id = ANY ($3::text[])) ORDER BY team_id FOR NO" \
    " KEY UPDATE), new AS (UPDATE teams t SET team_member_permissions = coalesce((SELECT" \
    " array_agg(DISTINCT x ORDER BY x) FROM unnest(t.team_member_permissions || $1::text[])" \
    " x), '{}'), updated_at = now(), updated_by = $4 FROM old WHERE t.team_id = old.team_id" \
    " RETURNING t.team_id, old.p AS before, t.team_member_permissions AS after) INSERT INTO" \
    " audit (actor, actor_key, changed_by, action, object_type, object_id, before, after)" \
    " SELECT $4, $5, $6, 'updated', 'LiteLLM_TeamTable', team_id, jsonb_build_object("  \
    "'team_id', team_id, 'team_member_permissions', before), jsonb_build_object('team_id'," \
    " team_id, 'team_member_permissions', after) FROM new RETURNING object_id"


void
api_team_permissions_bulk(req_t *r)
{
    int          all, i;
    jv_t        *out, *ids;
    PGresult    *res;
    const jv_t  *list, *teams;

    all = 0;
    list = json_get(r->json, "permissions");
    teams = json_get(r->json, "team_ids");

    if (field_bool(r, "apply_to_all_teams", &all) < 0 || !rights_known(r, list)) {
        return;
    }

    if (!all && (json_is_null(teams) || teams->n == 0)) {
        fail_detail_error(r, 400, "Pass team_ids or apply_to_all_teams");
        return;
    }

    if (tx_begin(r) != 0) {
        return;
    }

    res = tx_q(r, RIGHTS_BULK, rights_array(r, list), all ? "true" : "false",
               teams ? rights_array(r, teams) : "{}", tx_actor(r) ? tx_actor(r) : "",
               r->caller_token ? r->caller_token : "", r->changed_by);

    if (res == NULL) {
        return;
    }

    if (!all && (size_t) PQntuples(res) != teams->n) {
        PQclear(res);
        fail_detail_error(r, 404, "One of the teams was not found; nothing was changed");
        return;
    }

    ids = json_arr(&r->a);

    for (i = 0; i < PQntuples(res); i++) {
        json_push(ids, json_string(&r->a, arena_str(&r->a, PQgetvalue(res, i, 0))));
    }

    PQclear(res);
    out = json_obj(&r->a);
    json_set(out, "teams_updated", json_int(&r->a, (int64_t) ids->n));
    json_set(out, "team_ids", ids);
    json_set(out, "permissions_appended", json_copy(&r->a, list));

    if (tx_commit(r) == 0) {
        reply_json(r, 200, out);
    }
}


/* A team has no models that its organization lacks. */

static int
rights_models(req_t *r, const char *team)
{
    PGresult    *res;
    const char  *org;

    res = tx_q(r, "SELECT organization_id FROM teams WHERE team_id = $1", team);

    if (res == NULL) {
        return -1;
    }

    org = PQntuples(res) && db_str(res, 0, 0) ? arena_str(&r->a, db_str(res, 0, 0)) : NULL;
    PQclear(res);

    return grant_team(r, org);
}


void
api_team_model_add(req_t *r)
{
    const jv_t  *list;
    const char  *team;

    team = json_str(r->json, "team_id");
    list = json_get(r->json, "models");

    if (rights_team(r, team) == 0
        && rights_admin(r, team, "Only proxy admin or team admin can modify team models") == 0
        && rights_models(r, team) == 0)
    {
        rights_write(r, team, "UPDATE teams SET models = (CASE WHEN cardinality(models) = 0"
                     " THEN '{all-proxy-models}' ELSE models END) || ARRAY(SELECT m FROM"
                     " unnest($2::text[]) m WHERE m <> ALL (models)), updated_at = now(),"
                     " updated_by = $3 WHERE team_id = $1 RETURNING ent",
                     rights_array(r, list));
    }
}


void
api_team_model_delete(req_t *r)
{
    const jv_t  *list;
    const char  *team;

    team = json_str(r->json, "team_id");
    list = json_get(r->json, "models");

    if (rights_team(r, team) == 0
        && rights_admin(r, team, "Only proxy admin or team admin can modify team models") == 0)
    {
        /* an empty list would mean all models: one that matches nothing stays */

        rights_write(r, team, "UPDATE teams SET models = CASE WHEN models <@ $2::text[] AND"
                     " cardinality(models) > 0 THEN '{no-default-models}' ELSE"
                     " ARRAY(SELECT m FROM unnest(models) m WHERE m <> ALL ($2::text[]))"
                     " END, updated_at = now(), updated_by = $3 WHERE team_id = $1"
                     " RETURNING ent", rights_array(r, list));
    }
}
