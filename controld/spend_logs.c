#include <string.h>
#include "key.h"
#include "spend_logs.h"


#define LOGS_ID  "((l.answer_id <> '' AND l.answer_id = "


/* Teams and organizations whose rows the caller may see, as text[]; -1 answered. */

static int
logs_reach(req_t *r, const char **teams, const char **orgs)
{
    PGresult  *res;

    res = db_q("SELECT coalesce(array_agg(t.team_id), '{}'), (SELECT coalesce("
        "array_agg(organization_id), '{}') FROM organization_memberships WHERE user_id ="
        " $1 AND user_role = 'org_admin') FROM memberships m JOIN teams t USING (team_id)"
        " WHERE m.user_id = $1 AND NOT m.implicit AND (m.role = 'admin' OR"
        " '/spend/logs' = ANY (t.team_member_permissions))", r->caller_user);

    if (!db_ok(res)) {
        db_log("spend/logs failed", res);
        PQclear(res);
        fail_db(r);
        return -1;
    }

    *teams = arena_str(&r->a, PQgetvalue(res, 0, 0));
    *orgs = arena_str(&r->a, PQgetvalue(res, 0, 1));
    PQclear(res);

    return 0;
}


int
logs_visible(usage_sql_t *q, const char **user)
{
    req_t        *r = q->r;
    const char   *teams, *orgs;
    usage_who_t   w;

    usage_who(r, &w);

    if (w.all) {
        return 0;
    }

    if (w.user == NULL) {
        usage_param(q, " AND l.token" USAGE_KEY, w.token, USAGE_KEY_END);
        return 0;
    }

    if (logs_reach(r, &teams, &orgs) != 0) {
        return -1;
    }

    usage_param(q, " AND (l.user_id = ", w.user, "");

    if (strcmp(teams, "{}") == 0 && strcmp(orgs, "{}") == 0) {
        *user = NULL;

    } else {
        usage_param(q, " OR l.team_id = ANY (", teams, "::text[])");
        usage_param(q, " OR l.organization_id = ANY (", orgs, "::text[])");
    }

    buf_puts(&q->sql, ")");

    return 0;
}


void
logs_and(usage_sql_t *q, const char *before, const char *v, const char *after)
{
    if (v && *v) {
        usage_param(q, before, v, after);
    }
}


void
logs_and_id(usage_sql_t *q, const char *id)
{
    if (id && *id) {
        usage_param(q, " AND " LOGS_ID, id, "");
        buf_printf(&q->sql, ") OR l.rid = $%d)", q->n);
    }
}


const char *
logs_token(req_t *r)
{
    const char  *key;

    key = http_arg(r, "api_key");

    return key && *key ? key_token(r, key) : NULL;
}
