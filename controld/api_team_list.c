/* What teams look like: /team/info, /team/list and what the dashboard asks for. */

#include <string.h>
#include <strings.h>
#include "access.h"
#include "api.h"
#include "db.h"
#include "kt_money.h"
#include "owner.h"
#include "query.h"
#include "settings.h"
#include "team.h"
#include "tx.h"


const arg_t  team_info_args[] = {
    { "team_id", F_STR, 0 },
    { "key_limit", F_INT, 0 },
    { NULL, 0, 0 }
};

const arg_t  team_list_args[] = {
    { "user_id", F_STR, 0 },
    { "organization_id", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  team_list_v2_args[] = {
    { "user_id", F_STR, 0 },
    { "organization_id", F_STR, 0 },
    { "team_id", F_STR, 0 },
    { "team_alias", F_STR, 0 },
    { "search", F_STR, 0 },
    { "page", F_INT, 0 },
    { "page_size", F_INT, 0 },
    { "sort_by", F_STR, 0 },
    { "sort_order", F_STR, 0 },
    { "status", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  team_filter_args[] = {
    { "team_id", F_STR, 0 },
    { "team_alias", F_STR, 0 },
    { NULL, 0, 0 }
};


#define TEAM_FULL                                                             \
    "kt_team_json(t)::jsonb || jsonb_build_object('team_memberships',"         \
    " coalesce((SELECT json_agg(kt_membership_json(m) ORDER BY m.created_at)"  \
    " FROM memberships m WHERE m.team_id = t.team_id AND NOT m.implicit),"     \
    " '[]'::json), 'keys', coalesce((SELECT json_agg(kt_key_json(k) ORDER BY"  \
    " k.created_at) FROM keys k WHERE k.team_id = t.team_id), '[]'::json))"

/* Teams of a user, and those of the organizations that he administers. */

#define TEAM_OF(n)                                                            \
    "t.team_id IN (SELECT m.team_id FROM memberships m WHERE m.user_id = " n   \
    " AND NOT m.implicit)"

#define TEAM_ORG_OF(n)                                                        \
    "t.organization_id IN (SELECT organization_id FROM"                        \
    " organization_memberships WHERE user_id = " n " AND user_role ="          \
    " 'org_admin')"


static jv_t *
team_rows(req_t *r, const char *sql, const char *id)
{
    jv_t      *rows;
    PGresult  *res;

    res = db_query(sql, 1, &id);

    if (!db_ok(res)) {
        db_log("team/info failed", res);
        PQclear(res);
        fail_db(r);
        return NULL;
    }

    rows = owner_rows(r, res, 0, 1);
    PQclear(res);

    return rows;
}


/* 404 for what is not there, then 403 for what is none of the caller's business. */

static int
team_visible(req_t *r, const char *id)
{
    int        rc, known;
    PGresult  *res;

    res = db_q("SELECT version FROM teams WHERE team_id = $1 AND NOT implicit", id);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    known = PQntuples(res);

    if (known) {
        tx_etag(r, db_int(res, 0, 0));
    }

    PQclear(res);

    if (!known) {
        access_scoped(r);
        fail_proxy(r, 404, "auth_error", NULL, "{'message': %s}",
                   py_repr(&r->a, arena_printf(&r->a, "Team not found, passed team"
                                               " id: %s.", id)));
        return -1;
    }

    rc = access_team_member(r, id);

    if (rc == 0) {
        fail_repr(r, 403, "User=%s not authorized to access this team=%s",
                  r->caller_user ? r->caller_user : "None", id);
    }

    return rc > 0 ? 0 : -1;
}


void
api_team_info(req_t *r)
{
    jv_t        *team, *keys, *members, *out;
    const char  *id;

    id = http_arg(r, "team_id");

    if (id == NULL) {
        fail_proxy(r, 422, "auth_error", NULL,
                   "{'message': 'Malformed request. No team id passed in.'}");
        return;
    }

    if (team_visible(r, id) != 0) {
        return;
    }

    team = team_rows(r, "SELECT t.ent, kt_team_json(t)::jsonb ||"
        " jsonb_build_object('team_member_budget_table', (SELECT kt_budget_json(b)"
        " FROM budgets b WHERE b.budget_id = t.member_budget_id))"
        " FROM teams t WHERE t.team_id = $1 AND NOT t.implicit", id);

    if (team == NULL) {
        return;
    }

    if (team->n == 0) {
        fail_proxy(r, 404, "auth_error", NULL, "{'message': %s}",
                   py_repr(&r->a, arena_printf(&r->a, "Team not found, passed team"
                                               " id: %s.", id)));
        return;
    }

    keys = team_rows(r, "SELECT k.ent, kt_key_json(k) FROM keys k WHERE k.team_id ="
                     " $1 ORDER BY k.created_at, k.token", id);
    members = keys == NULL ? NULL
        : team_rows(r, "SELECT m.ent, kt_membership_json(m) FROM memberships m"
                    " WHERE m.team_id = $1 AND NOT m.implicit"
                    " ORDER BY m.created_at", id);

    if (members == NULL) {
        return;
    }

    out = json_obj(&r->a);
    json_set(out, "team_id", json_string(&r->a, id));
    json_set(out, "team_info", team->head);
    json_set(out, "keys", keys);
    json_set(out, "team_memberships", members);
    reply_json(r, 200, out);
}


static void
team_list_refuse(req_t *r)
{
    fail_detail_error(r, 401, "Only admin users can query all teams/other teams. Your"
                      " user role=%s", access_role_name(r));
}


/* Whose teams: a foreign user_id is refused to all but admins. */

static int
team_list_scope(req_t *r, query_t *q)
{
    int          n;
    const char  *user;

    user = http_arg(r, "user_id");

    if (user && *user) {
        if (!access_reads_all(r) && !access_self(r, user)) {
            team_list_refuse(r);
            return -1;
        }

        query_add(q, TEAM_OF("$%d"), user);
        return 0;
    }

    if (access_reads_all(r)) {
        return 0;
    }

    access_scoped(r);

    if (r->caller_user == NULL) {
        team_list_refuse(r);
        return -1;
    }

    n = query_param(q, r->caller_user);
    buf_printf(&q->where, " AND (" TEAM_OF("$%d") " OR " TEAM_ORG_OF("$%d") ")", n, n);

    return 0;
}


static void
team_list_org(req_t *r, query_t *q)
{
    const char  *org;

    org = http_arg(r, "organization_id");

    if (org && strcmp(org, "default_organization") == 0) {
        buf_puts(&q->where, " AND t.organization_id IS NULL");

    } else if (org && *org) {
        query_add(q, "t.organization_id = $%d", org);
    }
}


void
api_team_list(req_t *r)
{
    jv_t      *rows;
    query_t    q;
    PGresult  *res;

    query_init(&q, r);
    buf_puts(&q.where, " AND NOT t.implicit");

    if (team_list_scope(r, &q) != 0) {
        return;
    }

    team_list_org(r, &q);
    res = query_run(&q, "SELECT t.ent, " TEAM_FULL " FROM teams t WHERE true%s"
                    " ORDER BY t.team_alias, t.team_id");

    if (res) {
        rows = owner_rows(r, res, 0, 1);
        PQclear(res);
        reply_json(r, 200, rows);
    }
}


static void
team_list_deleted(req_t *r, query_t *q)
{
    int        i;
    jv_t      *rows;
    PGresult  *res;

    if (!access_reads_all(r)) {
        team_list_refuse(r);
        return;
    }

    query_arg(q, "team_id", "d.team_id = $%d");
    res = query_page(q, "SELECT count(*) OVER (), d.row || jsonb_build_object("
                     "'deleted_at', kt_ts(d.deleted_at), 'deleted_by', d.deleted_by)"
                     " FROM deleted_teams d WHERE true%s ORDER BY d.deleted_at DESC,"
                     " d.id DESC");

    if (res == NULL) {
        return;
    }

    rows = json_arr(&r->a);

    for (i = 0; i < PQntuples(res); i++) {
        json_push(rows, json_raw(&r->a, arena_str(&r->a, PQgetvalue(res, i, 1))));
    }

    query_reply(q, "teams", rows, q->total);
    PQclear(res);
}


void
api_team_list_v2(req_t *r)
{
    jv_t        *rows;
    query_t      q;
    PGresult    *res;
    const char  *order, *status;

    static const char *const  cols[] = {
        "team_id", "t.team_id", "team_alias", "t.team_alias", "created_at",
        "t.created_at", NULL
    };

    query_init(&q, r);
    status = http_arg(r, "status");

    if (query_pages(&q, "page_size", 10, 100) != 0) {
        return;
    }

    if (status && strcmp(status, "deleted") == 0) {
        team_list_deleted(r, &q);
        return;
    }

    order = query_order(&q, cols, "t.created_at DESC, t.team_id DESC", "t.team_id");
    buf_puts(&q.where, " AND NOT t.implicit");

    if (order == NULL || team_list_scope(r, &q) != 0) {
        return;
    }

    team_list_org(r, &q);
    query_arg(&q, "team_id", "t.team_id = $%d");
    query_like(&q, "team_alias", "t.team_alias");
    query_like(&q, "search", "concat_ws(' ', t.team_alias, t.team_id)");
    res = query_page(&q, arena_printf(&r->a, "SELECT count(*) OVER (), t.ent, "
                     TEAM_FULL " FROM teams t WHERE true%%s ORDER BY %s", order));

    if (res) {
        rows = owner_rows(r, res, 1, 2);
        query_reply(&q, "teams", rows, q.total);
        PQclear(res);
    }
}


/* Ids and names for a choice. */

void
api_team_filter(req_t *r)
{
    query_t    q;
    PGresult  *res;

    query_init(&q, r);
    buf_puts(&q.where, " AND NOT t.implicit");

    if (team_list_scope(r, &q) != 0) {
        return;
    }

    query_like(&q, "team_id", "t.team_id");
    query_like(&q, "team_alias", "t.team_alias");
    res = query_run(&q, "SELECT coalesce(json_agg(x), '[]') FROM (SELECT t.team_id,"
                    " t.team_alias FROM teams t WHERE true%s ORDER BY t.team_alias,"
                    " t.team_id LIMIT 50) x");

    if (res) {
        reply_json(r, 200, json_raw(&r->a, arena_str(&r->a, PQgetvalue(res, 0, 0))));
        PQclear(res);
    }
}


/* Teams that a user may join by himself, and is not in yet. */

void
api_team_available(req_t *r)
{
    jv_t        *rows;
    query_t      q;
    PGresult    *res;
    const jv_t  *list, *c;

    access_scoped(r);
    list = json_get(settings_get(r, "default_internal_user_params"),
                    "available_teams");

    if (r->status) {
        return;
    }

    if (r->caller_user == NULL) {
        fail_detail_error(r, 404, "User not found");
        return;
    }

    query_init(&q, r);
    buf_puts(&q.where, " AND t.team_id IN (NULL");

    for (c = list && list->type == J_ARR ? list->head : NULL; c; c = c->next) {
        if (c->type == J_STR && q.n < QUERY_PARAMS_MAX - 1) {
            buf_printf(&q.where, ", $%d", query_param(&q, c->s));
        }
    }

    buf_puts(&q.where, ")");
    query_add(&q, "NOT " TEAM_OF("$%d"), r->caller_user);
    res = query_run(&q, "SELECT t.ent, kt_team_json(t) FROM teams t WHERE NOT t.implicit"
                    "%s ORDER BY t.team_alias, t.team_id");

    if (res) {
        rows = owner_rows(r, res, 0, 1);
        PQclear(res);
        reply_json(r, 200, rows);
    }
}


/* The caller's own place in a team. */

void
api_team_me(req_t *r)
{
    jv_t      *rows;
    PGresult  *res;

    access_scoped(r);
    res = db_q("SELECT m.ent, kt_membership_json(m)::jsonb || jsonb_build_object('role',"
               " m.role, 'user_email', coalesce(m.user_email, u.user_email),"
               " 'team_alias', t.team_alias) FROM memberships m JOIN teams t USING"
               " (team_id) LEFT JOIN users u USING (user_id) WHERE m.team_id = $1 AND"
               " m.user_id = $2 AND NOT m.implicit", r->seg[0], r->caller_user);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return;
    }

    rows = owner_rows(r, res, 0, 1);
    PQclear(res);

    if (rows->n) {
        reply_json(r, 200, rows->head);
    } else {
        fail_detail_error(r, 404, "You are not a member of team_id=%s", r->seg[0]);
    }
}
