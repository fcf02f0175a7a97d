/* One who is a member of a team: /team/member_delete, member_update, reset of spend. */

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
#include "team_member.h"
#include "tx.h"
#include "user.h"
#include "util.h"


const field_t  member_update_body[] = {
    { "team_id", F_ID, NULL, F_REQUIRED },
    { "user_id", F_ID, NULL, 0 },
    { "user_email", F_NAME, NULL, 0 },
    { "role", F_ENUM, NULL, 0, "admin|user" },
    MEMBER_LIMIT_FIELDS,
    { NULL, 0, NULL, 0 }
};

const field_t  member_delete_body[] = {
    { "team_id", F_ID, NULL, F_REQUIRED },
    { "user_id", F_ID, NULL, 0 },
    { "user_email", F_NAME, NULL, 0 },
    { NULL, 0, NULL, 0 }
};


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
member_place(req_t *r, const char *team, const char *id)
{
    return tx_is(r, "SELECT 1 FROM memberships WHERE team_id = $1 AND user_id = $2 AND NOT"
                 " implicit FOR NO KEY UPDATE", team, id);
}


/*
 * Whoever comes back has no limits: an admin who has some of his own does not take himself
 * out of the team.  0, or -1 after answering 403.
 */

static int
member_may_leave(req_t *r, const char *team, const char *id)
{
    int  limited;

    if (!access_self(r, id) || access_admin(r)) {
        return 0;
    }

    limited = tx_is(r, "SELECT 1 FROM memberships WHERE team_id = $1 AND user_id = $2 AND"
                    " (budget_id IS NOT NULL OR allowed_models <> '{}')", team, id);

    if (limited > 0) {
        fail_detail_error(r, 403, "You have limits of your own in this team. Ask another"
                          " admin to take you out of it.");
    }

    return limited ? -1 : 0;
}


void
api_team_member_delete(req_t *r)
{
    int          rc;
    jv_t        *before, *row;
    PGresult    *res;
    const char  *team, *id, *was;

    team = json_str(r->json, "team_id");

    if (tx_begin(r) != 0
        || member_team(r, team, 400, "Team id=%s does not exist in db") != 0
        || member_admin(r, team) != 0 || team_match(r, team) != 0)
    {
        return;
    }

    id = member_named(r);
    rc = id ? member_place(r, team, id) : -1;

    if (rc == 0) {
        fail_detail_error(r, 400, "User not found in team. user_id=%s", id);
    }

    if (rc <= 0 || member_may_leave(r, team, id) != 0 || team_row(r, team, &before) != 0
        || member_seen(r, team, id, &was) != 0)
    {
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
        || member_audit(r, team, id, was) != 0 || team_row(r, team, &row) != 0
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


/* Without any, those of others end; who sends a role of his own keeps what he has. */

static int
member_set_limits(req_t *r, const char *team, const char *id, const member_limit_t *l)
{
    if (access_self(r, id) && !member_sends_limits(r)) {
        return 0;
    }

    return member_not_self(r, id) != 0
           || (!l->silent && member_budget(r, team, id, l) != 0)
           || member_set_models(r, team, id, l) != 0 ? -1 : 0;
}


/* As they are now: what was not sent may have stayed.  NULL after answering. */

static jv_t *
member_updated(req_t *r, const char *team, const char *id)
{
    jv_t        *out;
    PGresult    *res;
    const char  *err;

    res = tx_q(r, "SELECT json_build_object('user_id', m.user_id, 'user_email', coalesce("
               "m.user_email, u.user_email), 'team_id', m.team_id, 'max_budget_in_team',"
               " kt_usd(b.max_budget_nusd), 'tpm_limit', b.tpm_limit, 'rpm_limit',"
               " b.rpm_limit, 'allowed_models', CASE WHEN cardinality(m.allowed_models) > 0"
               " THEN m.allowed_models END) FROM memberships m LEFT JOIN users u USING"
               " (user_id) LEFT JOIN budgets b ON b.budget_id = m.budget_id WHERE"
               " m.team_id = $1 AND m.user_id = $2", team, id);

    if (res == NULL) {
        return NULL;
    }

    out = PQntuples(res)
          ? json_parse_big(&r->a, PQgetvalue(res, 0, 0), (size_t) PQgetlength(res, 0, 0),
                           &err) : NULL;
    PQclear(res);

    if (out == NULL) {
        fail_db(r);
    }

    return out;
}


void
api_team_member_update(req_t *r)
{
    int              rc;
    jv_t            *before, *row, *out;
    member_limit_t   l;
    const char      *team, *id, *was;

    out = NULL;
    team = json_str(r->json, "team_id");

    if (member_limits(r, &l) != 0 || tx_begin(r) != 0
        || member_team(r, team, 400, "Team id=%s does not exist in db") != 0
        || member_admin(r, team) != 0 || team_match(r, team) != 0)
    {
        return;
    }

    id = member_named(r);
    rc = id ? member_place(r, team, id) : -1;

    if (rc == 0) {
        fail_detail_error(r, 400, "User id doesn't exist in team table. Data=%s",
                          json_text(&r->a, r->json));
    }

    if (rc <= 0 || (l.models && grant_member_models(r, team, l.models) != 0)
        || team_row(r, team, &before) != 0 || member_seen(r, team, id, &was) != 0
        || member_set_role(r, team, id) != 0
        || member_set_limits(r, team, id, &l) != 0
        || member_audit(r, team, id, was) != 0 || team_row(r, team, &row) != 0
        || tx_audit(r, "updated", "LiteLLM_TeamTable", team,
                    json_text(&r->a, before), json_text(&r->a, row)) != 0
        || (out = member_updated(r, team, id)) == NULL || tx_commit(r) != 0)
    {
        return;
    }

    reply_json(r, 200, out);
}


void
api_team_member_reset(req_t *r)
{
    int          rc;
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

    rc = member_place(r, team, id);

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
