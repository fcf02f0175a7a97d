/* What users look like: /user/info, /user/list and what the dashboard asks for. */

#include <string.h>
#include "access.h"
#include "api.h"
#include "db.h"
#include "owner.h"
#include "query.h"
#include "user.h"
#include "tx.h"


const arg_t  user_info_args[] = {
    { "user_id", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  user_list_args[] = {
    { "role", F_STR, 0 },
    { "user_ids", F_STR, 0 },
    { "sso_user_ids", F_STR, 0 },
    { "organization_ids", F_STR, 0 },
    { "user_email", F_STR, 0 },
    { "team", F_STR, 0 },
    { "page", F_INT, 0 },
    { "page_size", F_INT, 0 },
    { "sort_by", F_STR, 0 },
    { "sort_order", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  user_filter_args[] = {
    { "user_id", F_STR, 0 },
    { "user_email", F_STR, 0 },
    { "page", F_INT, 0 },
    { "page_size", F_INT, 0 },
    { NULL, 0, 0 }
};


static jv_t *
user_query(req_t *r, const char *sql, const char *id)
{
    jv_t      *rows;
    PGresult  *res;

    res = id ? db_dynamic(sql, 1, &id) : db_dynamic(sql, 0, NULL);

    if (!db_ok(res)) {
        db_log("user/info failed", res);
        PQclear(res);
        fail_db(r);
        return NULL;
    }

    rows = owner_rows(r, res, 0, 1);
    PQclear(res);

    return rows;
}


#define USER_KEYS                                                             \
    "SELECT k.ent, kt_key_json(k)::jsonb || jsonb_build_object('team_alias',"   \
    " CASE WHEN k.team_id IS NULL THEN 'None' ELSE t.team_alias END)"          \
    " FROM keys k LEFT JOIN teams t ON t.team_id = k.team_id"                  \
    " WHERE k.team_id IS DISTINCT FROM 'litellm-dashboard'"

#define USER_TEAMS                                                            \
    "SELECT t.ent, kt_team_json(t)::jsonb || jsonb_build_object("              \
    "'team_memberships', coalesce((SELECT json_agg(kt_membership_json(m)) FROM" \
    " memberships m WHERE m.team_id = t.team_id AND NOT m.implicit), '[]'::json))"\
    " FROM teams t WHERE NOT t.implicit"


/* user_id of the query; who is no admin is himself.  -1 after answering. */

static int
user_asked(req_t *r, const char **id)
{
    *id = http_arg(r, "user_id");

    if (*id && !**id) {
        *id = NULL;
    }

    if (access_reads_all(r)) {
        return 0;
    }

    if (*id && !access_self(r, *id)) {
        fail_proxy(r, 403, "auth_error", "user_id", "key not allowed to access this"
                   " user's info. user_id=%s, key's user_id=%s", *id,
                   r->caller_user ? r->caller_user : "None");
        return -1;
    }

    access_scoped(r);
    *id = r->caller_user;

    if (*id == NULL) {
        fail_proxy(r, 404, "internal_server_error", NULL, "User None not found");
        return -1;
    }

    return 0;
}


void
api_user_info(req_t *r)
{
    jv_t        *user, *keys, *teams, *out;
    const char  *id;

    user = NULL;

    if (user_asked(r, &id) != 0) {
        return;
    }

    if (id) {
        user = user_query(r, "SELECT u.ent, kt_user_json(u) FROM users u"
                          " WHERE u.user_id = $1 AND NOT u.implicit", id);

        if (user == NULL) {
            return;
        }

        if (user->n == 0) {
            fail_proxy(r, 404, "internal_server_error", NULL,
                       "User %s not found", id);
            return;
        }
    }

    keys = user_query(r, id ? USER_KEYS " AND k.user_id = $1 ORDER BY k.created_at"
                            : USER_KEYS " ORDER BY k.created_at", id);
    teams = keys == NULL ? NULL : user_query(r, id
        ? USER_TEAMS " AND (t.team_id IN (SELECT team_id FROM memberships WHERE"
          " user_id = $1 AND NOT implicit) OR t.team_id = ANY (SELECT unnest(teams)"
          " FROM users WHERE user_id = $1)) ORDER BY t.team_alias, t.team_id"
        : USER_TEAMS " ORDER BY t.team_alias, t.team_id", id);

    if (teams == NULL) {
        return;
    }

    out = json_obj(&r->a);
    json_set(out, "user_id", json_string(&r->a, id));
    json_set(out, "user_info", user ? user->head : json_null(&r->a));
    json_set(out, "keys", keys);
    json_set(out, "teams", teams);
    reply_json(r, 200, out);
}


/* The same without keys. */

void
api_user_info_v2(req_t *r)
{
    jv_t                     *rows, *out;
    size_t                    i;
    const char               *id;
    static const char *const  names[] = {
        "user_id", "user_email", "user_alias", "user_role", "spend", "max_budget",
        "models", "budget_duration", "budget_reset_at", "metadata", "created_at",
        "updated_at", "sso_user_id", "teams", "object_permission"
    };

    if (user_asked(r, &id) != 0) {
        return;
    }

    rows = user_query(r, "SELECT u.ent, kt_user_json(u) FROM users u WHERE u.user_id ="
                      " $1 AND NOT u.implicit", id ? id : "default_user_id");

    if (rows == NULL) {
        return;
    }

    if (rows->n == 0) {
        fail_proxy(r, 404, "internal_server_error", NULL, "User %s not found",
                   id ? id : "default_user_id");
        return;
    }

    out = json_obj(&r->a);

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        json_set(out, names[i], json_copy(&r->a, json_get(rows->head, names[i])));
    }

    reply_json(r, 200, out);
}


/* A comma list as the text of an array. */

static const char *
user_list_arg(req_t *r, const char *name)
{
    size_t        n;
    const char   *s, *items[500];

    s = http_arg(r, name);

    if (s == NULL || !*s) {
        return NULL;
    }

    for (n = 0; *s && n < 500; n++) {
        items[n] = arena_dup(&r->a, s, strcspn(s, ","));
        s += strcspn(s, ",");
        s += *s == ',';
    }

    return db_array(&r->a, items, n);
}


/* Users of the organizations that the caller administers. */

static int
user_list_scope(req_t *r, query_t *q)
{
    int  rc;

    if (access_reads_all(r)) {
        return 0;
    }

    rc = access_any_org_admin(r);

    if (rc == 0) {
        fail_proxy(r, 401, "auth_error", NULL, "Authentication Error, Only proxy admins"
                   " and organization admins can list users. Your role=%s",
                   access_role_name(r));
    }

    if (rc <= 0) {
        return -1;
    }

    query_add(q, "u.user_id IN (SELECT m.user_id FROM organization_memberships m WHERE"
              " m.organization_id IN (SELECT organization_id FROM"
              " organization_memberships WHERE user_id = $%d AND user_role ="
              " 'org_admin'))", r->caller_user ? r->caller_user : "");

    return 0;
}


void
api_user_list(req_t *r)
{
    int          viewer;
    jv_t        *rows;
    query_t      q;
    PGresult    *res;
    const char  *order, *ids;

    static const char *const  cols[] = {
        "user_id", "u.user_id", "user_email", "u.user_email", "created_at",
        "u.created_at", "spend", "kt_used(u.ent, kt_period_id(u.period_kind,"
        " u.period_len_s, u.period_id, u.period_end_s, kt_now_s()))", "user_alias",
        "u.user_alias", "user_role", "u.user_role", NULL
    };

    query_init(&q, r);

    if (query_pages(&q, "page_size", 25, 100) != 0) {
        return;
    }

    order = query_order(&q, cols, "u.created_at DESC, u.user_id DESC", "u.user_id");
    buf_puts(&q.where, " AND NOT u.implicit");

    if (order == NULL || user_list_scope(r, &q) != 0) {
        return;
    }

    ids = http_arg(r, "user_ids");

    if (ids && strchr(ids, ',')) {
        query_add(&q, "u.user_id = ANY ($%d::text[])", user_list_arg(r, "user_ids"));
    } else {
        query_like(&q, "user_ids", "u.user_id");
    }

    if (user_list_arg(r, "sso_user_ids")) {
        query_add(&q, "u.sso_user_id = ANY ($%d::text[])",
                  user_list_arg(r, "sso_user_ids"));
    }

    if (user_list_arg(r, "organization_ids")) {
        query_add(&q, "u.user_id IN (SELECT user_id FROM organization_memberships WHERE"
                  " organization_id = ANY ($%d::text[]))",
                  user_list_arg(r, "organization_ids"));
    }

    query_arg(&q, "role", "u.user_role = $%d");
    query_like(&q, "user_email", "u.user_email");
    query_arg(&q, "team", "u.teams @> ARRAY[$%d]::text[]");
    viewer = query_param(&q, access_reads_all(r) ? NULL : r->caller_user);
    res = query_page(&q, arena_printf(&r->a, "SELECT count(*) OVER (), u.ent,"
                     " (CASE WHEN $%d::text IS NULL THEN kt_user_json(u) ELSE"
                     " kt_user_seen(u, $%d) END)::jsonb || jsonb_build_object('key_count', (SELECT"
                     " count(*) FROM keys k WHERE k.user_id = u.user_id AND k.team_id IS"
                     " DISTINCT FROM 'litellm-dashboard')) FROM users u WHERE true%%s ORDER"
                     " BY %s", viewer, viewer, order));

    if (res) {
        rows = owner_rows(r, res, 1, 2);
        user_brief(rows);
        query_reply(&q, "users", rows, q.total);
        PQclear(res);
    }
}


/* Ids and addresses for a choice. */

void
api_user_filter(req_t *r)
{
    query_t    q;
    PGresult  *res;

    query_init(&q, r);
    buf_puts(&q.where, " AND NOT u.implicit");

    if (query_pages(&q, "page_size", 50, 100) != 0 || user_list_scope(r, &q) != 0) {
        return;
    }

    query_like(&q, "user_id", "u.user_id");
    query_like(&q, "user_email", "u.user_email");
    res = query_run(&q, arena_printf(&r->a, "SELECT coalesce(json_agg(x), '[]') FROM"
                    " (SELECT u.user_id, u.user_email FROM users u WHERE true%%s ORDER BY"
                    " u.created_at DESC, u.user_id LIMIT %lld OFFSET %lld) x",
                    (long long) q.size, (long long) ((q.page - 1) * q.size)));

    if (res) {
        reply_json(r, 200, json_raw(&r->a, arena_str(&r->a, PQgetvalue(res, 0, 0))));
        PQclear(res);
    }
}


static void
user_role_text(req_t *r, jv_t *out, const char *name, const char *text,
    const char *label)
{
    jv_t  *o;

    o = json_obj(&r->a);
    json_set(o, "description", json_string(&r->a, text));
    json_set(o, "ui_label", json_string(&r->a, label));
    json_set(out, name, o);
}


void
api_user_roles(req_t *r)
{
    jv_t  *out;

    access_scoped(r);
    out = json_obj(&r->a);
    user_role_text(r, out, "proxy_admin", "admin over litellm proxy, has all"
                   " permissions", "Admin (All Permissions)");
    user_role_text(r, out, "proxy_admin_viewer", "view all keys, view all spend",
                   "Admin (View Only)");
    user_role_text(r, out, "internal_user", "view/create/delete their own keys, view"
                   " their own spend", "Internal User (Create/Delete/View)");
    user_role_text(r, out, "internal_user_viewer", "view their own keys, view their own"
                   " spend", "Internal User (View Only)");
    reply_json(r, 200, out);
}


/* Seats of a licence: there is no licence, so there is no limit. */

void
api_user_seats(req_t *r)
{
    jv_t      *out;
    PGresult  *res;

    access_scoped(r);
    res = db_q0("SELECT count(*) FROM users WHERE NOT implicit");

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return;
    }

    out = json_obj(&r->a);
    json_set(out, "total_users", json_null(&r->a));
    json_set(out, "total_users_used", json_int(&r->a, db_int(res, 0, 0)));
    json_set(out, "total_users_remaining", json_null(&r->a));
    PQclear(res);
    reply_json(r, 200, out);
}
