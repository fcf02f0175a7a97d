/* Members of organizations: add, update, delete. */

#include <inttypes.h>
#include <string.h>
#include "access.h"
#include "api.h"
#include "db.h"
#include "grant.h"
#include "owner.h"
#include "team_member.h"
#include "tx.h"
#include "user.h"
#include "util.h"


#define ORG_MEMBERS_MAX  500
#define ORG_ROLES  "org_admin|internal_user|internal_user_viewer"


const field_t  org_member_add_body[] = {
    { "organization_id", F_ID, NULL, F_REQUIRED },
    { "member", F_ANY, NULL, F_REQUIRED },
    { "max_budget_in_organization", F_USD, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  org_member_update_body[] = {
    { "organization_id", F_ID, NULL, F_REQUIRED },
    { "user_id", F_ID, NULL, 0 },
    { "user_email", F_NAME, NULL, 0 },
    { "role", F_ENUM, NULL, 0, ORG_ROLES },
    { "max_budget_in_organization", F_USD, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  org_member_delete_body[] = {
    { "organization_id", F_ID, NULL, F_REQUIRED },
    { "user_id", F_ID, NULL, 0 },
    { "user_email", F_NAME, NULL, 0 },
    { NULL, 0, NULL, 0 }
};


/* The organization, locked, for one of its admins, as he has seen it. */

static int
org_member_begin(req_t *r, const char *org, int status)
{
    int        known, rc;
    int64_t    version;
    PGresult  *res;

    if (tx_begin(r) != 0) {
        return -1;
    }

    res = tx_q(r, "SELECT version FROM organizations WHERE organization_id = $1 AND"
               " deleted_at IS NULL FOR NO KEY UPDATE", org);

    if (res == NULL) {
        return -1;
    }

    known = PQntuples(res);
    version = known ? db_int(res, 0, 0) : 0;
    PQclear(res);

    if (!known) {
        access_scoped(r);
        fail_repr(r, status, "Organization not found for organization_id=%s", org);
        return -1;
    }

    rc = access_org_admin(r, org);

    if (rc == 0) {
        fail_proxy(r, 401, "auth_error", NULL, "You do not have the required role to"
                   " perform %s in Organization %s. Your role is %s", r->path, org,
                   access_role_name(r));
    }

    return rc > 0 ? tx_match(r, version) : -1;
}


/* A membership as the audit has it, NULL when there is none.  -1 after answering. */

static int
org_member_seen(req_t *r, const char *org, const char *id, const char **seen)
{
    PGresult  *res;

    res = tx_q(r, "SELECT kt_org_member_json(m) FROM organization_memberships m WHERE"
               " organization_id = $1 AND user_id = $2", org, id);

    if (res == NULL) {
        return -1;
    }

    *seen = PQntuples(res) ? arena_str(&r->a, PQgetvalue(res, 0, 0)) : NULL;
    PQclear(res);

    return 0;
}


/*
 * Writes what became of a membership that was `before`, and gives the organization, of
 * which it is a part, another version.  0, or -1 after answering.
 */

static int
org_member_audit(req_t *r, const char *org, const char *id, const char *before)
{
    PGresult    *res;
    const char  *after, *ent;

    if (org_member_seen(r, org, id, &after) != 0) {
        return -1;
    }

    res = tx_q(r, "UPDATE organizations SET version = version WHERE organization_id = $1"
               " RETURNING ent, 'orgmember:' || kt_encode($1) || '/' || kt_encode($2)", org,
               id);

    if (res == NULL) {
        return -1;
    }

    tx_touch(r, PQgetvalue(res, 0, 0));
    ent = arena_str(&r->a, PQgetvalue(res, 0, 1));
    PQclear(res);

    return tx_audit(r, before == NULL ? "created" : after == NULL ? "deleted" : "updated",
                    "LiteLLM_OrganizationMembership", ent, before, after);
}


/*
 * max_budget_in_organization: null takes the budget away, and no field leaves it as it is.
 * 0, or -1 after answering.
 */

static int
org_member_budget(req_t *r, const char *org, const char *id)
{
    int64_t      nusd;
    PGresult    *res;
    const char  *max, *budget;

    nusd = -1;

    if (json_get(r->json, "max_budget_in_organization") == NULL) {
        return 0;
    }

    if (field_usd(r, "max_budget_in_organization", &nusd) < 0) {
        return -1;
    }

    max = nusd < 0 ? NULL : arena_printf(&r->a, "%" PRId64, nusd);
    res = tx_q(r, "SELECT kt_own_budget(ent, budget_id, $3::bigint, $4) FROM"
               " organization_memberships WHERE organization_id = $1 AND user_id = $2", org,
               id, max, tx_actor(r));

    if (res == NULL) {
        return -1;
    }

    budget = PQntuples(res) ? arena_str(&r->a, db_str(res, 0, 0)) : NULL;
    PQclear(res);
    res = tx_q(r, "UPDATE organization_memberships SET budget_id = $3, updated_at = now()"
               " WHERE organization_id = $1 AND user_id = $2 RETURNING ent", org, id,
               budget);

    if (res == NULL) {
        return -1;
    }

    if (PQntuples(res)) {
        tx_touch(r, PQgetvalue(res, 0, 0));
    }

    PQclear(res);

    return 0;
}


static int
org_member_put(req_t *r, const char *org, const jv_t *v, const char **id)
{
    int          made;
    PGresult    *res;
    const char  *role, *email;

    role = json_str(v, "role");
    *id = json_str(v, "user_id");
    email = json_str(v, "user_email");

    if (role == NULL || (strcmp(role, "org_admin") && strcmp(role, "internal_user")
                         && strcmp(role, "internal_user_viewer"))
        || (*id == NULL && email == NULL) || (*id && !util_id_ok(*id))
        || (email && !util_id_ok(email)))
    {
        fail_field(r, "member", "value_error", "Value error, every member needs a role"
                   " (org_admin, internal_user or internal_user_viewer) and a user_id or"
                   " user_email", v);
        return -1;
    }

    if (user_ensure(r, id, email) != 0) {
        return -1;
    }

    /* an admin of the organization makes nobody one of it who is there already */

    res = tx_q(r, "INSERT INTO organization_memberships (organization_id, user_id, user_role,"
               " home) SELECT $1, $2, $3, coalesce($4::boolean OR u.organization_id = $1, false)"
               " OR coalesce(u.created_by = $5 AND NOT EXISTS (SELECT 1 FROM keys k LEFT JOIN"
               " teams t USING (team_id) WHERE k.user_id = $2 AND coalesce(k.organization_id,"
               " t.organization_id) IS DISTINCT FROM $1), false) FROM users u WHERE u.user_id"
               " = $2 ON CONFLICT DO NOTHING RETURNING 1", org, *id, role,
               access_admin(r) ? "true" : "false", tx_actor(r));

    if (res == NULL) {
        return -1;
    }

    made = PQntuples(res);
    PQclear(res);

    if (!made) {
        fail_proxy(r, 400, "auth_error", NULL, "Authentication Error, Error adding"
                   " member=%s to organization: user_id=%s is a member already",
                   json_text(&r->a, v), *id);
        return -1;
    }

    return org_member_budget(r, org, *id) != 0
           || org_member_audit(r, org, *id, NULL) != 0 ? -1 : 0;
}


static void
org_member_reply(req_t *r, const char *org, const char *ids)
{
    jv_t      *out, *users;
    PGresult  *m;

    users = user_rows(r, ids);

    if (users == NULL) {
        return;
    }

    m = db_q("SELECT ent, kt_org_member_json(m) FROM organization_memberships m WHERE"
             " organization_id = $1 AND user_id = ANY ($2::text[]) ORDER BY user_id", org,
             ids);

    if (!db_ok(m)) {
        fail_db(r);

    } else {
        out = json_obj(&r->a);
        json_set(out, "organization_id", json_string(&r->a, org));
        json_set(out, "updated_users", users);
        json_set(out, "updated_organization_memberships", owner_rows(r, m, 0, 1));
        reply_json(r, 200, out);
    }

    PQclear(m);
}


void
api_org_member_add(req_t *r)
{
    jv_t          *list, *v;
    size_t         n;
    const jv_t    *c;
    const char    *org, **ids;

    org = json_str(r->json, "organization_id");
    v = json_get(r->json, "member");

    if (v->type == J_ARR && (v->n == 0 || v->n > ORG_MEMBERS_MAX)) {
        fail_field(r, "member", "too_long", "Value error, 1 to 500 members at once", NULL);
        return;
    }

    if (v->type == J_ARR) {
        list = v;
    } else {
        list = json_arr(&r->a);
        json_push(list, json_copy(&r->a, v));
    }

    if (org_member_begin(r, org, 404) != 0 || grant_org_member(r, org) != 0) {
        return;
    }

    ids = arena_alloc(&r->a, (list->n + 1) * sizeof(char *));

    for (n = 0, c = list->head; c; c = c->next, n++) {
        if (org_member_put(r, org, c, &ids[n]) != 0) {
            return;
        }
    }

    if (tx_commit(r) == 0) {
        org_member_reply(r, org, db_array(&r->a, ids, n));
    }
}


static const char *
org_member_named(req_t *r)
{
    const char  *id, *email;

    id = json_str(r->json, "user_id");
    email = json_str(r->json, "user_email");

    if (id == NULL && email == NULL) {
        fail_field(r, NULL, "value_error", "Value error, Either user_id or user_email"
                   " must be provided", r->json);

    } else if (id == NULL && user_by_email(r, email, &id) == 0 && id == NULL) {
        fail_detail_error(r, 404, "Member not found in organization for user_email=%s",
                          email);
    }

    return id;
}


/*
 * Runs a statement on one membership; its row is what it returns.  0, or -1 after
 * answering.
 */

static int
org_member_run(req_t *r, const char *sql, const char *org, const char *id,
    const char *role, jv_t **row)
{
    jv_t      *list;
    PGresult  *res;

    res = tx_q(r, sql, org, id, role);

    if (res == NULL) {
        return -1;
    }

    list = owner_rows(r, res, 0, 1);
    *row = list->head;
    PQclear(res);

    return 0;
}


/* Writes down what became of it, and answers. */

static void
org_member_done(req_t *r, const char *org, const char *id, const char *before, jv_t *row)
{
    if ((before == NULL || org_member_audit(r, org, id, before) == 0) && tx_commit(r) == 0)
    {
        reply_json(r, 200, row ? row : json_null(&r->a));
    }
}


void
api_org_member_update(req_t *r)
{
    jv_t        *row;
    const char  *org, *id, *was;

    org = json_str(r->json, "organization_id");

    if (org_member_begin(r, org, 400) != 0 || grant_org_member(r, org) != 0) {
        return;
    }

    id = org_member_named(r);

    if (id == NULL
        || (json_get(r->json, "max_budget_in_organization") && member_not_self(r, id) != 0)
        || org_member_seen(r, org, id, &was) != 0
        || org_member_run(r, "UPDATE organization_memberships m SET user_role ="
                          " coalesce($3, user_role), updated_at = now() WHERE"
                          " organization_id = $1 AND user_id = $2 RETURNING ent,"
                          " kt_org_member_json(m)", org, id, json_str(r->json, "role"),
                          &row) != 0)
    {
        return;
    }

    if (row == NULL) {
        fail_detail_error(r, 404, "Member not found in organization for user_id=%s", id);
        return;
    }

    if (org_member_budget(r, org, id) == 0
        && org_member_run(r, "SELECT ent, kt_org_member_json(m) FROM"
                          " organization_memberships m WHERE organization_id = $1 AND"
                          " user_id = $2 AND $3::text IS NULL", org, id, NULL, &row) == 0)
    {
        org_member_done(r, org, id, was, row);
    }
}


void
api_org_member_delete(req_t *r)
{
    jv_t        *row;
    const char  *org, *id, *was;

    org = json_str(r->json, "organization_id");

    if (org_member_begin(r, org, 404) != 0) {
        return;
    }

    id = org_member_named(r);

    if (id && org_member_seen(r, org, id, &was) == 0
        && org_member_run(r, "DELETE FROM organization_memberships m WHERE"
                          " organization_id = $1 AND user_id = $2 AND $3::text IS NULL"
                          " RETURNING ent, kt_org_member_json(m)", org, id, NULL,
                          &row) == 0)
    {
        org_member_done(r, org, id, was, row);
    }
}
