#include <string.h>
#include "access.h"
#include "conf.h"
#include "db.h"
#include "settings.h"
#include "tx.h"


typedef struct {
    int          known;
    const char  *role;                   /* in the team: admin, user, NULL     */
    const char  *org;
    const char  *org_role;               /* in the team's organization         */
} team_place_t;


static const char *const  access_roles[] = {
    "None", "internal_user_viewer", "internal_user", "org_admin",
    "proxy_admin_viewer", "proxy_admin"
};


const char *
access_role_name(req_t *r)
{
    return r->master ? "proxy_admin" : access_roles[r->role];
}


const char *
access_mask(arena_t *a, const char *id)
{
    char    *s;
    size_t   n;

    n = id ? strlen(id) : 0;

    if (n <= 8) {
        return n == 0 ? "None" : "***";
    }

    s = arena_str(a, id);
    memset(s + 6, '*', n - 8);

    return s;
}


void
access_scoped(req_t *r)
{
    r->scoped = 1;
}


int
access_admin(req_t *r)
{
    if (r->master || r->role == ROLE_ADMIN) {
        r->scoped = 1;
        return 1;
    }

    return 0;
}


int
access_reads_all(req_t *r)
{
    if (r->role == ROLE_VIEWER) {
        r->scoped = 1;
        return 1;
    }

    return access_admin(r);
}


int
access_self(req_t *r, const char *user_id)
{
    r->scoped = 1;

    return user_id && r->caller_user && strcmp(user_id, r->caller_user) == 0;
}


/* What the caller's user is in an organization: NULL when nothing. -1 answered. */

static int
access_org_role(req_t *r, const char *org_id, const char **role)
{
    PGresult  *res;

    *role = NULL;
    r->scoped = 1;

    if (r->caller_user == NULL || org_id == NULL || r->role == ROLE_NONE) {
        return 0;
    }

    res = db_q("SELECT coalesce(m.user_role, 'internal_user') FROM"
               " organization_memberships m JOIN organizations o USING"
               " (organization_id) WHERE m.organization_id = $1 AND m.user_id = $2"
               " AND o.deleted_at IS NULL", org_id, r->caller_user);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    if (PQntuples(res)) {
        *role = arena_str(&r->a, PQgetvalue(res, 0, 0));
    }

    PQclear(res);

    return 0;
}


int
access_org_admin(req_t *r, const char *org_id)
{
    const char  *role;

    if (access_admin(r)) {
        return 1;
    }

    if (access_org_role(r, org_id, &role) != 0) {
        return -1;
    }

    return role && strcmp(role, "org_admin") == 0;
}


int
access_org_member(req_t *r, const char *org_id)
{
    const char  *role;

    if (access_reads_all(r)) {
        return 1;
    }

    if (access_org_role(r, org_id, &role) != 0) {
        return -1;
    }

    return role != NULL
           || (org_id && r->caller_org && strcmp(org_id, r->caller_org) == 0);
}


int
access_any_org_admin(req_t *r)
{
    r->scoped = 1;

    if (r->caller_user == NULL || r->role == ROLE_NONE) {
        return 0;
    }

    return db_is(r, "SELECT 1 FROM organization_memberships JOIN organizations USING"
                 " (organization_id) WHERE user_id = $1 AND user_role = 'org_admin' AND"
                 " deleted_at IS NULL LIMIT 1", r->caller_user);
}


static int
access_team_place(req_t *r, const char *team_id, team_place_t *p)
{
    PGresult  *res;

    memset(p, 0, sizeof(*p));
    r->scoped = 1;
    res = db_q("SELECT m.role, t.organization_id, om.user_role FROM teams t"
               " LEFT JOIN memberships m ON m.team_id = t.team_id AND m.user_id = $2"
               " AND NOT m.implicit LEFT JOIN organization_memberships om ON"
               " om.organization_id = t.organization_id AND om.user_id = $2"
               " WHERE t.team_id = $1 AND NOT t.implicit", team_id,
               r->role == ROLE_NONE ? NULL : r->caller_user);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    if (PQntuples(res)) {
        p->known = 1;
        p->role = arena_str(&r->a, db_str(res, 0, 0));
        p->org = arena_str(&r->a, db_str(res, 0, 1));
        p->org_role = arena_str(&r->a, db_str(res, 0, 2));
    }

    PQclear(res);

    return 0;
}


static int
access_is(const char *role, const char *name)
{
    return role && strcmp(role, name) == 0;
}


int
access_team_admin(req_t *r, const char *team_id)
{
    team_place_t  p;

    if (access_admin(r)) {
        return 1;
    }

    if (access_team_place(r, team_id, &p) != 0) {
        return -1;
    }

    return access_is(p.role, "admin") || access_is(p.org_role, "org_admin");
}


int
access_team_member(req_t *r, const char *team_id)
{
    team_place_t  p;

    if (access_reads_all(r)) {
        return 1;
    }

    if (access_team_place(r, team_id, &p) != 0) {
        return -1;
    }

    return p.role || access_is(p.org_role, "org_admin")
           || access_is(r->caller_team, team_id);
}


int
access_team_role(req_t *r, const char *team_id, const char **role)
{
    team_place_t  p;

    if (access_team_place(r, team_id, &p) != 0) {
        return -1;
    }

    *role = p.role;

    return p.known;
}


int
access_team_permits(req_t *r, const char *team_id, const char *route)
{
    int           yes;
    PGresult     *res;
    team_place_t  p;

    if (access_admin(r)) {
        return 1;
    }

    if (access_team_place(r, team_id, &p) != 0) {
        return -1;
    }

    if (p.role == NULL || strcmp(p.role, "admin") == 0) {
        return p.role != NULL;
    }

    res = db_q("SELECT $2 = ANY (CASE WHEN cardinality(team_member_permissions) > 0"
               " THEN team_member_permissions ELSE '{/key/info,/key/health}' END)"
               " FROM teams WHERE team_id = $1", team_id, route);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    yes = PQntuples(res) && *PQgetvalue(res, 0, 0) == 't';
    PQclear(res);

    return yes;
}


int
access_team_open(req_t *r, const char *team_id)
{
    const jv_t  *list, *c;

    list = json_get(settings_get(r, "default_internal_user_params"),
                    "available_teams");

    for (c = list && list->type == J_ARR ? list->head : NULL; c; c = c->next) {
        if (c->type == J_STR && strcmp(c->s, team_id) == 0
            && r->role != ROLE_NONE)
        {
            r->scoped = 1;
            return 1;
        }
    }

    return r->status ? -1 : 0;
}


/* ------------------------------------------------------------------ the gate */


/* Of the user's own row, proxy_admin_viewer may set address and password. */

static int
access_viewer_update(req_t *r)
{
    const jv_t  *c;

    if (strcmp(r->path, "/user/update") != 0 || r->json == NULL) {
        return 0;
    }

    for (c = r->json->head; c; c = c->next) {
        if (strcmp(c->key, "user_email") && strcmp(c->key, "password")
            && strcmp(c->key, "user_id"))
        {
            return 0;
        }
    }

    return 1;
}


/* What a role may by itself. */

static unsigned
access_by_role(role_t role)
{
    switch (role) {

    case ROLE_VIEWER:
        return G_INFO | G_READ;

    case ROLE_INTERNAL:
        return G_INFO | G_KEY | G_SPEND | G_SPEND_USER | G_SELF;

    case ROLE_INTERNAL_VIEWER:
        return G_INFO | G_SPEND | G_SPEND_USER | G_SPEND_ALL | G_SELF;

    case ROLE_ORG_ADMIN:
        return G_INFO | G_SELF;

    default:
        return G_INFO;
    }
}


static int
access_spend_permission(req_t *r, unsigned groups)
{
    const jv_t  *v;

    v = json_get(json_get(r->caller_row, "permissions"), "get_spend_routes");

    return v && v->type == J_TRUE && (groups & (G_SPEND_USER | G_SPEND_ALL));
}


/* Organization of a team that the request names; NULL: none, or answered. */

static const char *
access_team_org(req_t *r)
{
    PGresult    *res;
    const jv_t  *ids;
    const char  *team, *org;

    team = json_str(r->json, "team_id");
    ids = json_get(r->json, "team_ids");

    if (team == NULL && ids && ids->type == J_ARR && ids->head
        && ids->head->type == J_STR)
    {
        team = ids->head->s;             /* the handler asks about the others  */
    }

    if (team == NULL) {
        team = r->seg[0];
    }

    if (team == NULL) {
        return NULL;
    }

    res = db_q("SELECT organization_id FROM teams WHERE team_id = $1"
               " AND NOT implicit", team);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return NULL;
    }

    org = PQntuples(res) && db_str(res, 0, 0) ? arena_str(&r->a, db_str(res, 0, 0))
                                              : NULL;
    PQclear(res);

    return org;
}


/* 1 when the caller administers the organization that the request is about. */

static int
access_gate_org(req_t *r, const access_t *row)
{
    int          rc;
    const char  *org;

    if (!(row->groups & G_ORG) || r->role == ROLE_NONE || r->caller_user == NULL) {
        return 0;
    }

    org = json_str(r->json, "organization_id");

    if ((org == NULL || !*org) && row->org == ORG_TEAM) {
        org = access_team_org(r);
    }

    if (r->status) {
        return -1;
    }

    rc = org ? access_org_admin(r, org) : 0;
    r->scoped = 0;                       /* that was the gate's own question   */

    return rc;
}


void
access_refuse(req_t *r)
{
    const access_t  *row = r->access;

    if (r->role == ROLE_VIEWER) {
        fail_proxy(r, 403, "auth_error", NULL, "user not allowed to access this"
                   " route, role= proxy_admin_viewer. Trying to access: %s",
                   r->path);

    } else if (strncmp(r->path, "/organization/", 14) == 0
               && (row->groups & G_ORG)
               && json_str(r->json, "organization_id") == NULL)
    {
        fail_proxy(r, 401, "auth_error", NULL, "Authentication Error, Passed"
                   " organization_id is None, please pass an organization_id in"
                   " your request");

    } else {
        fail_proxy(r, 401, "auth_error", NULL, "Authentication Error, Only proxy"
                   " admin can be used to generate, delete, update info for new"
                   " keys/users/teams. Route=%s. Your role=%s. Your user_id=%s",
                   r->path, access_role_name(r),
                   access_mask(&r->a, r->caller_user));
    }
}


/*
 * A secret that was replaced works for its grace period, but whoever is left with it
 * changes nothing: not even the key, to lock out who has the one after.
 */

static int
access_replaced(req_t *r, const access_t *row)
{
    const char  *now;

    now = json_str(r->caller_row, "token");

    if ((row->groups & G_READ) || now == NULL || strcmp(now, r->caller_token) == 0) {
        return 0;
    }

    fail_proxy(r, 403, "auth_error", NULL, "This key was regenerated. Until the end of its"
               " grace period it may read, and call models: use the key that replaced it"
               " for %s", r->path);

    return 1;
}


int
access_gate(req_t *r, const access_t *row)
{
    int  rc;

    r->access = row;

    if ((row->groups & G_PUBLIC) || r->master) {
        return 0;
    }

    if (row->groups & G_MASTER) {
        fail_proxy(r, 401, "auth_error", NULL, "Authentication Error, Tried to"
                   " access route=%s, which is only for MASTER KEY", r->path);
        return -1;
    }

    if (access_key_routes(r) != 0 || access_replaced(r, row)) {
        return -1;
    }

    if (r->role == ROLE_ADMIN || (row->groups & access_by_role(r->role))
        || access_spend_permission(r, row->groups)
        || (r->role == ROLE_VIEWER && access_viewer_update(r)))
    {
        return 0;
    }

    rc = access_gate_org(r, row);

    if (rc == 0) {
        access_refuse(r);
    }

    return rc > 0 ? 0 : -1;
}


int
access_says_nothing(const jv_t *v)
{
    return json_is_null(v)
           || ((v->type == J_OBJ || v->type == J_ARR) && v->n == 0)
           || (v->type == J_NUM && v->s[strspn(v->s, "0.")] == '\0');
}


int
access_refuse_field(req_t *r, const char *name)
{
    fail_proxy(r, 403, "auth_error", name, "Only proxy admins can set %s. Your role=%s",
               name, access_role_name(r));

    return -1;
}


static int
access_says(const field_t *f, const jv_t *v)
{
    return v && !((f->flags & F_ZERO) && access_says_nothing(v));
}


int
access_fields(req_t *r, const field_t *table)
{
    const jv_t     *meta, *v, *in;
    const field_t  *f;

    if (r->master || r->role == ROLE_ADMIN) {
        return 0;
    }

    meta = json_get(r->json, "metadata");

    for (f = table; f && f->name; f++) {
        if (!(f->flags & F_ADMIN)) {
            continue;
        }

        v = json_get(r->json, f->name);
        in = f->type == F_META || f->type == F_TAGS ? json_get(meta, f->name) : NULL;

        if (access_says(f, v) || (!json_is_null(in) && access_says(f, in))) {
            return access_refuse_field(r, f->name);
        }
    }

    return 0;
}
