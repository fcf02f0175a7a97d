/* Adding members to teams: /team/member_add, /team/bulk_member_add. */

#include <inttypes.h>
#include <string.h>
#include "access.h"
#include "api.h"
#include "db.h"
#include "grant.h"
#include "key.h"
#include "owner.h"
#include "team.h"
#include "team_member.h"
#include "tx.h"
#include "user.h"
#include "util.h"


#define MEMBER_BULK_MAX  500


const field_t  member_add_body[] = {
    { "team_id", F_ID, NULL, F_REQUIRED },
    { "member", F_ANY, NULL, F_REQUIRED },
    MEMBER_LIMIT_FIELDS,
    { NULL, 0, NULL, 0 }
};

const field_t  member_bulk_body[] = {
    { "team_id", F_ID, NULL, F_REQUIRED },
    { "members", F_LIST, NULL, 0 },
    { "all_users", F_BOOL, NULL, 0 },
    MEMBER_LIMIT_FIELDS,
    { NULL, 0, NULL, 0 }
};


typedef struct {
    const char  *role;
    const char  *id;
    const char  *email;
} member_t;


/* Adding oneself, as a user, to a team that is open. */

static int
member_self_join(req_t *r, const char *team_id, const jv_t *members)
{
    const char  *id, *role;

    if (access_team_open(r, team_id) <= 0 || members->n != 1) {
        return 0;
    }

    id = json_str(members->head, "user_id");
    role = json_str(members->head, "role");

    return id && role && strcmp(role, "user") == 0 && access_self(r, id)
           && json_is_null(json_get(r->json, "max_budget_in_team"))
           && json_is_null(json_get(r->json, "rpm_limit"))
           && json_is_null(json_get(r->json, "tpm_limit"))
           && json_is_null(json_get(r->json, "allowed_models"));
}


static int
member_read(req_t *r, const jv_t *v, member_t *m)
{
    m->role = json_str(v, "role");

    if (m->role && strcmp(m->role, "internal_user") == 0) {
        m->role = "user";                /* as LiteLLM's own pages write it    */
    }

    m->id = json_str(v, "user_id");
    m->email = json_str(v, "user_email");

    if (v == NULL || v->type != J_OBJ || m->role == NULL
        || (strcmp(m->role, "admin") && strcmp(m->role, "user"))
        || (m->id == NULL && m->email == NULL) || (m->id && !util_id_ok(m->id))
        || (m->email && !util_id_ok(m->email)))
    {
        fail_field(r, "member", "value_error", "Value error, every member needs a role"
                   " (admin or user) and a user_id or user_email", v);
        return -1;
    }

    return 0;
}


/* 1 added, 0 was there already, -1 after answering. */

static int
member_add_one(req_t *r, const char *team_id, member_t *m, const member_limit_t *l)
{
    int  there;

    if (user_ensure(r, &m->id, m->email) != 0) {
        return -1;
    }

    there = tx_is(r, "SELECT 1 FROM memberships WHERE team_id = $1 AND user_id = $2 AND NOT"
                  " implicit", team_id, m->id);

    if (there < 0) {
        return -1;
    }

    if (there) {
        return 0;
    }

    if (owner_member(r, team_id, m->id, m->role, m->email, 0) != 0
        || user_joined(r, m->id, team_id) != 0
        || (l->present && member_budget(r, team_id, m->id, l) != 0)
        || member_set_models(r, team_id, m->id, l) != 0
        || member_audit(r, team_id, m->id, NULL) != 0)
    {
        return -1;
    }

    return 1;
}


/* The rows of these users and of their memberships in the team, after the commit. */

static int
member_rows(req_t *r, const char *team_id, const char *ids, jv_t **users,
    jv_t **places)
{
    int        ok;
    PGresult  *m;

    *users = user_rows(r, ids);

    if (*users == NULL) {
        return -1;
    }

    m = db_q("SELECT ent, kt_membership_json(m) FROM memberships m WHERE team_id = $1 AND"
             " user_id = ANY ($2::text[]) AND NOT implicit ORDER BY user_id", team_id,
             ids);

    ok = db_ok(m);

    if (ok) {
        *places = owner_rows(r, m, 0, 1);
    } else {
        fail_db(r);
    }

    PQclear(m);

    return ok ? 0 : -1;
}


static void
member_add_reply(req_t *r, const char *team_id, jv_t *row, const char *ids)
{
    jv_t  *users, *places;

    if (member_rows(r, team_id, ids, &users, &places) != 0) {
        return;
    }

    team_spend(r, team_id, row);
    json_set(row, "updated_users", users);
    json_set(row, "updated_team_memberships", places);
    reply_json(r, 200, row);
}


static void
member_duplicate(req_t *r, const jv_t *members, const member_t *m, const jv_t *row)
{
    if (members->n > 1) {
        fail_proxy(r, 400, "team_member_already_in_team", "member", "All users are"
                   " already in team. Existing members=%s",
                   json_text(&r->a, json_get(row, "members_with_roles")));
    } else {
        fail_proxy(r, 400, "team_member_already_in_team", "member", "User already in"
                   " team. Member: user_id=%s, user_email=%s. Existing members=%s",
                   m->id ? m->id : "None", m->email ? m->email : "None",
                   json_text(&r->a, json_get(row, "members_with_roles")));
    }
}


static const jv_t *
member_list(req_t *r)
{
    jv_t  *list, *v;

    v = json_get(r->json, "member");

    if (v->type == J_ARR) {
        if (v->n == 0 || v->n > MEMBER_BULK_MAX) {
            fail_field(r, "member", "too_long", "Value error, 1 to 500 members at once",
                       NULL);
            return NULL;
        }

        return v;
    }

    list = json_arr(&r->a);
    json_push(list, json_copy(&r->a, v));

    return list;
}


void
api_team_member_add(req_t *r)
{
    int              rc, joins;
    jv_t            *row, *before;
    size_t           n, added;
    member_limit_t   l;
    member_t         m;
    const jv_t      *list, *c;
    const char      *team, **ids;

    memset(&m, 0, sizeof(m));
    team = json_str(r->json, "team_id");
    list = member_list(r);

    if (list == NULL || member_limits(r, &l) != 0 || tx_begin(r) != 0
        || member_team(r, team, 404, "Team doesn't exist in db. Team=%s. Create team via"
                       " `/team/new` call.") != 0)
    {
        return;
    }

    joins = member_self_join(r, team, list);

    if (r->status || (!joins && member_admin(r, team) != 0)
        || team_match(r, team) != 0)
    {
        return;
    }

    if (joins && !access_admin(r)) {
        l.models = NULL;                 /* null is no way around the team's default */
    }

    if ((l.models && grant_member_models(r, team, l.models) != 0)
        || team_row(r, team, &before) != 0)
    {
        return;
    }

    ids = arena_alloc(&r->a, (list->n + 1) * sizeof(char *));

    for (c = list->head, n = 0, added = 0; c; c = c->next) {
        rc = member_read(r, c, &m) != 0 ? -1 : member_add_one(r, team, &m, &l);

        if (rc < 0) {
            return;
        }

        added += (size_t) rc;
        ids[n++] = m.id;
    }

    if (added == 0) {
        member_duplicate(r, list, &m, before);
        return;
    }

    if (team_row(r, team, &row) != 0
        || tx_audit(r, "updated", "LiteLLM_TeamTable", team,
                    json_text(&r->a, before), json_text(&r->a, row)) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    member_add_reply(r, team, row, db_array(&r->a, ids, n));
}


/* The organization of the team for its admins, *org NULL for proxy admins. */

static int
member_everybody_of(req_t *r, const char *team, const char **org)
{
    int        rc;
    PGresult  *res;

    *org = NULL;

    if (access_admin(r)) {
        return 0;
    }

    res = db_q("SELECT organization_id FROM teams WHERE team_id = $1 AND NOT implicit", team);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    *org = PQntuples(res) ? arena_str(&r->a, db_str(res, 0, 0)) : NULL;
    PQclear(res);
    rc = *org ? access_org_admin(r, *org) : 0;

    if (rc == 0) {
        fail_detail_error(r, 403, "all_users is for proxy admins and admins of the team's"
                          " organization. team_id=%s", team);
    }

    return rc > 0 ? 0 : -1;
}


/*
 * Everybody there is, as users of the team; of its organization, for an admin of that.
 * NULL after answering.
 */

static jv_t *
member_everybody(req_t *r, const char *team)
{
    int          i;
    jv_t        *list, *o;
    PGresult    *res;
    const char  *org;

    if (member_everybody_of(r, team, &org) != 0) {
        return NULL;
    }

    res = db_q("SELECT user_id FROM users u WHERE NOT implicit AND ($1::text IS NULL OR"
               " EXISTS (SELECT 1 FROM organization_memberships m WHERE m.organization_id ="
               " $1 AND m.user_id = u.user_id)) ORDER BY user_id LIMIT 501", org);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return NULL;
    }

    list = json_arr(&r->a);

    for (i = 0; i < PQntuples(res); i++) {
        o = json_obj(&r->a);
        json_set(o, "user_id", json_string(&r->a, arena_str(&r->a,
                                                            PQgetvalue(res, i, 0))));
        json_set(o, "role", json_string(&r->a, "user"));
        json_push(list, o);
    }

    PQclear(res);

    return list;
}


static jv_t *
member_bulk_one(req_t *r, const char *team, const jv_t *v, const member_limit_t *l)
{
    int          rc, tries;
    jv_t        *o, *users, *places;
    member_t     m;
    const char  *ids;

    tries = 0;
    r->touched = NULL;
    r->touch_end = &r->touched;

    do {
        memset(&m, 0, sizeof(m));
        rc = tx_begin(r) != 0 || member_team(r, team, 404, "Team=%s not found") != 0
             || member_admin(r, team) != 0 || member_read(r, v, &m) != 0
             || (l->models && grant_member_models(r, team, l->models) != 0)
             ? -1 : member_add_one(r, team, &m, l);

        if (rc == 0) {
            fail_detail_error(r, 400, "User already in team. Member: user_id=%s", m.id);
            rc = -1;
        }

        if (rc > 0 && tx_commit(r) != 0) {
            rc = -1;
        }
    } while (rc < 0 && tx_item_again(r, &tries));

    o = json_obj(&r->a);
    json_set(o, "user_id", json_string(&r->a, m.id));
    json_set(o, "user_email", json_string(&r->a, m.email));
    json_set(o, "success", json_bool(&r->a, rc > 0));

    if (rc < 0) {
        tx_item_failed(r);
        json_set(o, "error", json_string(&r->a, key_taken_error(r)));
        return o;
    }

    ids = db_array(&r->a, &m.id, 1);

    if (member_rows(r, team, ids, &users, &places) == 0) {
        json_set(o, "error", json_null(&r->a));
        json_set(o, "updated_user", users->head ? users->head : json_null(&r->a));
        json_set(o, "updated_team_membership",
                 places->head ? places->head : json_null(&r->a));
    }

    return o;
}


/* A list that the team does not cover fits nobody: that is said before anybody is added. */

static int
member_bulk_models(req_t *r, const char *team, const char *models)
{
    int  known;

    known = models ? db_is(r, "SELECT 1 FROM teams WHERE team_id = $1 AND NOT implicit", team)
                   : 0;

    return known > 0 ? grant_member_models(r, team, models) : known;
}


void
api_team_member_bulk_add(req_t *r)
{
    int              all;
    jv_t            *out, *results, *row, *c, *list;
    int64_t          good, bad;
    member_limit_t   l;
    const char      *team;

    all = 0;
    team = json_str(r->json, "team_id");

    if (field_bool(r, "all_users", &all) < 0 || member_limits(r, &l) != 0
        || member_admin(r, team) != 0 || member_bulk_models(r, team, l.models) != 0)
    {
        return;
    }

    list = all ? member_everybody(r, team) : json_get(r->json, "members");

    if (r->status) {
        return;
    }

    if (list == NULL || list->n == 0 || list->n > MEMBER_BULK_MAX) {
        fail_detail_error(r, 400, "Pass 1 to 500 members, or all_users with at most 500"
                          " users. Found %zu.", list ? list->n : 0);
        return;
    }

    results = json_arr(&r->a);
    good = bad = 0;

    for (c = list->head; c; c = c->next) {
        row = member_bulk_one(r, team, c, &l);

        if (r->status) {
            return;
        }

        good += json_get(row, "success")->type == J_TRUE;
        bad += json_get(row, "success")->type != J_TRUE;
        json_push(results, row);
    }

    if (team_row(r, team, &row) != 0) {
        return;
    }

    out = json_obj(&r->a);
    json_set(out, "team_id", json_string(&r->a, team));
    json_set(out, "results", results);
    json_set(out, "total_requested", json_int(&r->a, good + bad));
    json_set(out, "successful_additions", json_int(&r->a, good));
    json_set(out, "failed_additions", json_int(&r->a, bad));
    json_set(out, "updated_team", row ? row : json_null(&r->a));
    reply_json(r, 200, out);
}
