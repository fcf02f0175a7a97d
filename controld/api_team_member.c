/* Members of teams: /team/member_* and what one member is limited to. */

#include <inttypes.h>
#include <string.h>
#include "access.h"
#include "api.h"
#include "db.h"
#include "grant.h"
#include "key.h"
#include "kt_money.h"
#include "owner.h"
#include "policy.h"
#include "team.h"
#include "tx.h"
#include "user.h"
#include "util.h"


#define MEMBER_BULK_MAX  500


const field_t  member_add_body[] = {
    { "team_id", F_ID, NULL, F_REQUIRED },
    { "member", F_ANY, NULL, F_REQUIRED },
    { "max_budget_in_team", F_USD, NULL, 0 },
    { "budget_duration", F_STR, NULL, 0 },
    { "tpm_limit", F_INT, NULL, 0 },
    { "rpm_limit", F_INT, NULL, 0 },
    { "allowed_models", F_STRS, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  member_bulk_body[] = {
    { "team_id", F_ID, NULL, F_REQUIRED },
    { "members", F_LIST, NULL, 0 },
    { "all_users", F_BOOL, NULL, 0 },
    { "max_budget_in_team", F_USD, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  member_update_body[] = {
    { "team_id", F_ID, NULL, F_REQUIRED },
    { "user_id", F_ID, NULL, 0 },
    { "user_email", F_NAME, NULL, 0 },
    { "role", F_ENUM, NULL, 0, "admin|user" },
    { "max_budget_in_team", F_USD, NULL, 0 },
    { "budget_duration", F_STR, NULL, 0 },
    { "tpm_limit", F_INT, NULL, 0 },
    { "rpm_limit", F_INT, NULL, 0 },
    { "allowed_models", F_STRS, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  member_delete_body[] = {
    { "team_id", F_ID, NULL, F_REQUIRED },
    { "user_id", F_ID, NULL, 0 },
    { "user_email", F_NAME, NULL, 0 },
    { NULL, 0, NULL, 0 }
};


typedef struct {
    int64_t      max_nusd;               /* -1: none                           */
    int64_t      rpm;
    int64_t      tpm;
    const char  *duration;
    const char  *models;                 /* text[], NULL when none was sent    */
    int          present;                /* any limit was sent                 */
    int          silent;                 /* a list of models, and no limit     */
} limits_t;

typedef struct {
    const char  *role;
    const char  *id;
    const char  *email;
} member_t;


/* allowed_models of the body: null and [] are no list. */

static const char *
member_models(req_t *r)
{
    size_t        n;
    const jv_t   *v, *c;
    const char  **items;

    v = json_get(r->json, "allowed_models");

    if (v == NULL) {
        return NULL;
    }

    items = arena_alloc(&r->a, (v->n + 1) * sizeof(char *));

    for (n = 0, c = json_is_null(v) ? NULL : v->head; c; c = c->next) {
        items[n++] = c->s;
    }

    return db_array(&r->a, items, n);
}


static int
member_limits(req_t *r, limits_t *l)
{
    memset(l, 0, sizeof(*l));
    l->max_nusd = l->rpm = l->tpm = -1;
    l->duration = json_str(r->json, "budget_duration");

    if (field_usd(r, "max_budget_in_team", &l->max_nusd) < 0
        || field_int(r, "rpm_limit", &l->rpm) < 0
        || field_int(r, "tpm_limit", &l->tpm) < 0)
    {
        return -1;
    }

    l->present = l->max_nusd >= 0 || l->rpm >= 0 || l->tpm >= 0;
    l->models = member_models(r);
    l->silent = l->models && !json_get(r->json, "max_budget_in_team")
                && !json_get(r->json, "rpm_limit") && !json_get(r->json, "tpm_limit")
                && !json_get(r->json, "budget_duration");

    return 0;
}


/* Locks the team; *org is its organization.  0, or -1 after answering 404. */

static int
member_team(req_t *r, const char *team_id, int status, const char *fmt)
{
    int        known;
    PGresult  *res;

    res = tx_q(r, "SELECT 1 FROM teams WHERE team_id = $1 AND NOT implicit FOR NO KEY"
               " UPDATE", team_id);

    if (res == NULL) {
        return -1;
    }

    known = PQntuples(res);
    PQclear(res);

    if (!known) {
        access_scoped(r);
        fail_detail_error(r, status, fmt, team_id);
        return -1;
    }

    return 0;
}


static int
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


/* Links a budget of its own to a membership, or none. */

static int
member_budget(req_t *r, const char *team_id, const char *user_id, const limits_t *l)
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


/* Sets the list of models of a membership, if one was sent. */

static int
member_set_models(req_t *r, const char *team_id, const char *user_id, const limits_t *l)
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


/* 1 added, 0 was there already, -1 after answering. */

static int
member_add_one(req_t *r, const char *team_id, member_t *m, const limits_t *l)
{
    int          there;
    PGresult    *res;

    if (user_ensure(r, &m->id, m->email) != 0) {
        return -1;
    }

    res = tx_q(r, "SELECT 1 FROM memberships WHERE team_id = $1 AND user_id = $2 AND NOT"
               " implicit", team_id, m->id);

    if (res == NULL) {
        return -1;
    }

    there = PQntuples(res);
    PQclear(res);

    if (there) {
        return 0;
    }

    if (owner_member(r, team_id, m->id, m->role, m->email, 0) != 0
        || user_joined(r, m->id, team_id) != 0
        || (l->present && member_budget(r, team_id, m->id, l) != 0)
        || member_set_models(r, team_id, m->id, l) != 0)
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
    PGresult  *u, *m;

    u = db_q("SELECT ent, kt_user_json(u) FROM users u WHERE user_id = ANY ($1::text[])"
             " ORDER BY user_id", ids);
    m = db_q("SELECT ent, kt_membership_json(m) FROM memberships m WHERE team_id = $1 AND"
             " user_id = ANY ($2::text[]) AND NOT implicit ORDER BY user_id", team_id,
             ids);

    ok = db_ok(u) && db_ok(m);

    if (ok) {
        *users = owner_rows(r, u, 0, 1);
        *places = owner_rows(r, m, 0, 1);
    } else {
        fail_db(r);
    }

    PQclear(u);
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
    int           rc;
    jv_t         *row, *before;
    size_t        n, added;
    limits_t      l;
    member_t      m;
    const jv_t   *list, *c;
    const char   *team, **ids;

    memset(&m, 0, sizeof(m));
    team = json_str(r->json, "team_id");
    list = member_list(r);

    if (list == NULL || member_limits(r, &l) != 0 || tx_begin(r) != 0
        || member_team(r, team, 404, "Team doesn't exist in db. Team=%s. Create team via"
                       " `/team/new` call.") != 0)
    {
        return;
    }

    if (!member_self_join(r, team, list) && member_admin(r, team) != 0) {
        return;
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


/* ------------------------------------------------------------------- in bulk */


/* Everybody there is, as users of the team. */

static jv_t *
member_everybody(req_t *r)
{
    int        i;
    jv_t      *list, *o;
    PGresult  *res;

    res = db_q0("SELECT user_id FROM users WHERE NOT implicit ORDER BY user_id LIMIT 501");

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
member_bulk_one(req_t *r, const char *team, const jv_t *v, const limits_t *l)
{
    int          rc;
    jv_t        *o, *users, *places;
    member_t     m;
    const char  *ids;

    memset(&m, 0, sizeof(m));
    r->touched = NULL;
    r->touch_end = &r->touched;
    rc = tx_begin(r) != 0 || member_team(r, team, 404, "Team=%s not found") != 0
         || member_admin(r, team) != 0 || member_read(r, v, &m) != 0
         ? -1 : member_add_one(r, team, &m, l);

    if (rc == 0) {
        fail_detail_error(r, 400, "User already in team. Member: user_id=%s", m.id);
        rc = -1;
    }

    if (rc > 0 && (tx_audit(r, "updated", "LiteLLM_TeamTable", team, NULL, NULL) != 0
                   || tx_commit(r) != 0))
    {
        rc = -1;
    }

    o = json_obj(&r->a);
    json_set(o, "user_id", json_string(&r->a, m.id));
    json_set(o, "user_email", json_string(&r->a, m.email));
    json_set(o, "success", json_bool(&r->a, rc > 0));

    if (rc < 0) {
        db_rollback();
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


void
api_team_member_bulk_add(req_t *r)
{
    int          all;
    jv_t        *out, *results, *row, *c, *list;
    int64_t      good, bad;
    limits_t     l;
    const char  *team;

    all = 0;
    team = json_str(r->json, "team_id");

    if (field_bool(r, "all_users", &all) < 0 || member_limits(r, &l) != 0
        || member_admin(r, team) != 0)
    {
        return;
    }

    list = all ? member_everybody(r) : json_get(r->json, "members");

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


/* ------------------------------------------------------- one who is a member */


/* user_id or user_email of the body; the id, or NULL after answering. */

static const char *
member_named(req_t *r)
{
    const char  *id, *email;

    id = json_str(r->json, "user_id");
    email = json_str(r->json, "user_email");

    if (id == NULL && email == NULL) {
        fail_field(r, NULL, "value_error", "Value error, Either user_id or user_email"
                   " must be provided", r->json);
        return NULL;
    }

    if (id == NULL && user_by_email(r, email, &id) == 0 && id == NULL) {
        fail_detail_error(r, 400, "User not found in team. user_email=%s", email);
    }

    return id;
}


/* 1 when he is a member, 0 after answering 400, -1 after another answer. */

static int
member_place(req_t *r, const char *team, const char *id, int *admin)
{
    int        there;
    PGresult  *res;

    res = tx_q(r, "SELECT role FROM memberships WHERE team_id = $1 AND user_id = $2 AND"
               " NOT implicit FOR NO KEY UPDATE", team, id);

    if (res == NULL) {
        return -1;
    }

    there = PQntuples(res);
    *admin = there && strcmp(PQgetvalue(res, 0, 0), "admin") == 0;
    PQclear(res);

    return there;
}


void
api_team_member_delete(req_t *r)
{
    int          admin, rc;
    jv_t        *before, *row;
    PGresult    *res;
    const char  *team, *id;

    team = json_str(r->json, "team_id");

    if (tx_begin(r) != 0
        || member_team(r, team, 400, "Team id=%s does not exist in db") != 0
        || member_admin(r, team) != 0)
    {
        return;
    }

    id = member_named(r);
    rc = id ? member_place(r, team, id, &admin) : -1;

    if (rc == 0) {
        fail_detail_error(r, 400, "User not found in team. user_id=%s", id);
    }

    if (rc <= 0 || team_row(r, team, &before) != 0) {
        return;
    }

    res = tx_q(r, "DELETE FROM memberships WHERE team_id = $1 AND user_id = $2 RETURNING"
               " ent", team, id);

    if (res == NULL) {
        return;
    }

    rc = tx_gone(r, PQgetvalue(res, 0, 0));
    PQclear(res);

    if (rc != 0 || user_left(r, id, team) != 0
        || keys_delete(r, "team_id = $1::text AND user_id = $2::text", team, id) < 0
        || team_row(r, team, &row) != 0
        || tx_audit(r, "updated", "LiteLLM_TeamTable", team,
                    json_text(&r->a, before), json_text(&r->a, row)) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    team_spend(r, team, row);
    reply_json(r, 200, row);
}


static int
member_set_role(req_t *r, const char *team, const char *id)
{
    PGresult    *res;
    const char  *role;

    role = json_str(r->json, "role");

    if (role == NULL) {
        return 0;
    }

    res = tx_q(r, "UPDATE memberships SET role = $3 WHERE team_id = $1 AND user_id = $2",
               team, id, role);
    PQclear(res);

    return res ? 0 : -1;
}


/* As they are now: what was not sent may have stayed. */

static void
member_update_reply(req_t *r, const char *team, const char *id)
{
    jv_t        *out;
    PGresult    *res;
    const char  *err;

    res = db_q("SELECT json_build_object('user_id', m.user_id, 'user_email', coalesce("
               "m.user_email, u.user_email), 'team_id', m.team_id, 'max_budget_in_team',"
               " kt_usd(b.max_budget_nusd), 'tpm_limit', b.tpm_limit, 'rpm_limit',"
               " b.rpm_limit, 'allowed_models', CASE WHEN cardinality(m.allowed_models) > 0"
               " THEN m.allowed_models END) FROM memberships m LEFT JOIN users u USING"
               " (user_id) LEFT JOIN budgets b ON b.budget_id = m.budget_id WHERE"
               " m.team_id = $1 AND m.user_id = $2", team, id);
    out = db_ok(res) && PQntuples(res)
          ? json_parse_big(&r->a, PQgetvalue(res, 0, 0), (size_t) PQgetlength(res, 0, 0),
                           &err) : NULL;
    PQclear(res);

    if (out) {
        reply_json(r, 200, out);
    } else {
        fail_db(r);
    }
}


void
api_team_member_update(req_t *r)
{
    int          admin, rc;
    jv_t        *before, *row;
    limits_t     l;
    const char  *team, *id;

    team = json_str(r->json, "team_id");

    if (member_limits(r, &l) != 0 || tx_begin(r) != 0
        || member_team(r, team, 400, "Team id=%s does not exist in db") != 0
        || member_admin(r, team) != 0)
    {
        return;
    }

    id = member_named(r);
    rc = id ? member_place(r, team, id, &admin) : -1;

    if (rc == 0) {
        fail_detail_error(r, 400, "User id doesn't exist in team table. Data=%s",
                          json_text(&r->a, r->json));
    }

    if (rc <= 0 || (l.models && grant_member_models(r, team, l.models) != 0)
        || team_row(r, team, &before) != 0
        || member_set_role(r, team, id) != 0
        || (!l.silent && member_budget(r, team, id, &l) != 0)
        || member_set_models(r, team, id, &l) != 0 || team_row(r, team, &row) != 0
        || tx_audit(r, "updated", "LiteLLM_TeamTable", team,
                    json_text(&r->a, before), json_text(&r->a, row)) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    member_update_reply(r, team, id);
}


void
api_team_member_reset(req_t *r)
{
    int          admin, rc;
    jv_t        *out;
    int64_t      to, used;
    PGresult    *res;
    const jv_t  *v;
    const char  *team, *id, *ent;

    v = json_get(r->json, "reset_to");
    team = r->seg[0];
    id = r->seg[1];

    if (kt_money_parse(v->s, v->len, KT_MONEY_USD, &to) != KT_OK || to < 0) {
        fail_detail_error(r, 400, "reset_to must be a number >= 0");
        return;
    }

    if (tx_begin(r) != 0 || member_team(r, team, 404, "Team=%s not found") != 0
        || member_admin(r, team) != 0)
    {
        return;
    }

    rc = member_place(r, team, id, &admin);

    if (rc == 0) {
        fail_detail_error(r, 404, "User=%s is not a member of team=%s", id, team);
    } else if (rc > 0 && access_self(r, id) && !access_admin(r)) {
        fail_detail_error(r, 403, "A team admin can not reset his own spend");
    }

    if (rc <= 0 || r->status) {
        return;
    }

    res = tx_q(r, "SELECT m.ent, kt_usd(coalesce(b.max_budget_nusd, d.max_budget_nusd))"
               " FROM memberships m JOIN teams t USING (team_id) LEFT JOIN budgets b ON"
               " b.budget_id = m.budget_id LEFT JOIN budgets d ON d.budget_id ="
               " t.member_budget_id WHERE team_id = $1 AND user_id = $2", team, id);

    if (res == NULL) {
        return;
    }

    ent = arena_str(&r->a, PQgetvalue(res, 0, 0));
    out = json_obj(&r->a);
    json_set(out, "team_id", json_string(&r->a, team));
    json_set(out, "user_id", json_string(&r->a, id));
    policy_used(&r->a, &ent, 1, &used);
    json_set(out, "spend", json_usd(&r->a, to));
    json_set(out, "previous_spend", json_usd(&r->a, used));
    json_set(out, "max_budget", db_str(res, 0, 1)
             ? json_num(&r->a, arena_str(&r->a, db_str(res, 0, 1))) : json_null(&r->a));
    PQclear(res);

    if (to > used) {
        fail_detail_error(r, 400, "reset_to (%s) must be <= current spend (%s)",
                          py_float(&r->a, to), py_float(&r->a, used));
        return;
    }

    if (tx_audit(r, "updated", "LiteLLM_TeamMembership", ent,
                 arena_printf(&r->a, "{\"spend\":%s}", py_float(&r->a, used)),
                 arena_printf(&r->a, "{\"spend\":%s}", py_float(&r->a, to))) == 0
        && tx_commit(r) == 0 && owner_adjust(r, ent, to) == 0)
    {
        reply_json(r, 200, out);
    }
}
