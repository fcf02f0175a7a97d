/* /user|team|organization|customer|tag|agent/daily/activity, by page or as a whole. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "access.h"
#include "activity_query.h"
#include "api.h"
#include "key.h"
#include "kt_money.h"
#include "usage.h"


#define ACTIVITY_ARGS                                                         \
    { "start_date", F_STR, 0 },                                               \
    { "end_date", F_STR, 0 },                                                 \
    { "model", F_STR, 0 },                                                    \
    { "api_key", F_STR, 0 },                                                  \
    { "page", F_INT, 0 },                                                     \
    { "page_size", F_INT, 0 },                                                \
    { "timezone", F_STR, 0 },                                                 \
    { "format", F_STR, 0 }

const arg_t  user_activity_args[] = {
    ACTIVITY_ARGS,
    { "user_id", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  team_activity_args[] = {
    ACTIVITY_ARGS,
    { "team_ids", F_STR, 0 },
    { "exclude_team_ids", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  org_activity_args[] = {
    ACTIVITY_ARGS,
    { "organization_ids", F_STR, 0 },
    { "exclude_organization_ids", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  customer_activity_args[] = {
    ACTIVITY_ARGS,
    { "end_user_ids", F_STR, 0 },
    { "exclude_end_user_ids", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  tag_activity_args[] = {
    ACTIVITY_ARGS,
    { "tags", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  agent_activity_args[] = {
    ACTIVITY_ARGS,
    { "agent_ids", F_STR, 0 },
    { "exclude_agent_ids", F_STR, 0 },
    { NULL, 0, 0 }
};


#define ACTIVITY_SIZE   1000
#define ACTIVITY_DAYS   3660


static const activity_kind_t  activity_user = { "x.user_id", 'k', 'g', 50, 0, 1 };
static const activity_kind_t  activity_team = { "x.team_id", 'k', 't', 10, 1, 0 };
static const activity_kind_t  activity_org = { "x.organization_id", 'k', 'o', 10, 0, 0 };
static const activity_kind_t  activity_customer = { "x.name", 'c', 0, 10, 0, 0 };
static const activity_kind_t  activity_tag = { "x.name", 'l', 'n', 10, 0, 0 };


/* ------------------------------------------------------------------ arguments */


/*
 * Minutes behind UTC, as browsers have them.  Sums are by UTC days: one more is taken
 * where the local day reaches into it.
 */

static int
activity_zone(activity_ask_t *q)
{
    int64_t      v;
    const char  *s;

    s = http_arg(q->r, "timezone");

    if (s == NULL || !*s) {
        return 0;
    }

    if (kt_int_parse(s, strlen(s), &v) != KT_OK || v < -1440 || v > 1440) {
        fail_arg(q->r, "timezone", "int_parsing", "Input should be minutes, from -1440"
                 " to 1440", s);
        return -1;
    }

    q->to += v > 0;
    q->from -= v < 0;

    return 0;
}


static int64_t
activity_int(req_t *r, const char *name, int64_t def)
{
    int64_t      v;
    const char  *s;

    s = http_arg(r, name);

    return s && *s && kt_int_parse(s, strlen(s), &v) == KT_OK ? v : def;
}


static int
activity_read(req_t *r, const activity_kind_t *kind, activity_ask_t *q)
{
    const char  *s;

    memset(q, 0, sizeof(*q));
    q->r = r;
    q->kind = kind;
    access_scoped(r);

    if (usage_dates(r, &q->from, &q->to) != 0 || activity_zone(q) != 0) {
        return -1;
    }

    if (q->to - q->from > ACTIVITY_DAYS) {
        fail_detail_error(r, 400, "At most %d days", ACTIVITY_DAYS);
        return -1;
    }

    q->page = activity_int(r, "page", 1);
    q->size = activity_int(r, "page_size", kind->page_size);

    if (q->size > ACTIVITY_SIZE || q->page > 1000000000) {
        fail_arg(r, q->size > ACTIVITY_SIZE ? "page_size" : "page", "less_than_equal",
                 "Input should be less than or equal to 1000", "");
        return -1;
    }

    s = http_arg(r, "model");
    q->model = s && *s ? s : NULL;
    s = http_arg(r, "api_key");
    q->token = s && *s ? key_token(r, s) : NULL;
    q->csv = usage_csv(r);

    return q->csv < 0 ? -1 : 0;
}


/* ------------------------------------------------------------------- visibility */


static void
activity_of_user(req_t *r, int aggregate)
{
    activity_ask_t        q;
    const char  *id;

    if (activity_read(r, &activity_user, &q) != 0) {
        return;
    }

    id = http_arg(r, "user_id");
    id = id && *id ? id : NULL;

    if (!access_reads_all(r)) {
        if (id && !access_self(r, id)) {
            fail_detail_error(r, 403, "Non-admin users can only view their own spend"
                              " data.");
            return;
        }

        q.me = r->caller_user;
        q.my_token = r->caller_user ? NULL : r->caller_key;

    } else if (id) {
        q.ids = db_array(&r->a, &id, 1);
    }

    activity_run(&q, aggregate);
}


void
api_user_activity(req_t *r)
{
    activity_of_user(r, 0);
}


void
api_user_activity_all(req_t *r)
{
    activity_of_user(r, 1);
}


/*
 * The caller's teams: those that he sees whole, and those where he sees his own rows.
 * 0, or -1 after answering, when one of `asked` is not his.
 */

static int
activity_teams(activity_ask_t *q, const char *asked)
{
    int          ok;
    req_t       *r = q->r;
    PGresult    *res;
    const char  *missing;

    res = db_q("WITH mine AS (SELECT t.team_id, m.role = 'admin' OR coalesce(o.user_role ="
        " 'org_admin', false) OR '/team/daily/activity' = ANY (t.team_member_permissions)"
        " AS whole FROM teams t LEFT JOIN memberships m ON m.team_id = t.team_id AND"
        " m.user_id = $1 AND NOT m.implicit LEFT JOIN organization_memberships o ON"
        " o.organization_id = t.organization_id AND o.user_id = $1 WHERE (m.user_id IS NOT"
        " NULL OR o.user_role = 'org_admin') AND NOT t.implicit AND t.team_id IN (SELECT"
        " team_id FROM memberships WHERE user_id = $1 UNION ALL SELECT x.team_id FROM"
        " organization_memberships y JOIN teams x USING (organization_id) WHERE y.user_id"
        " = $1 AND y.user_role = 'org_admin') AND ($2::text[] IS NULL OR t.team_id = ANY"
        " ($2))) SELECT coalesce(array_agg(team_id) FILTER (WHERE whole), '{}'),"
        " coalesce(array_agg(team_id) FILTER (WHERE whole IS NOT TRUE), '{}'), (SELECT a"
        " FROM unnest($2::text[]) a WHERE a NOT IN (SELECT team_id FROM mine) LIMIT 1)"
        " FROM mine", r->role == ROLE_NONE ? NULL : r->caller_user, asked);

    if (!db_ok(res)) {
        db_log("the teams of a caller are not known", res);
        PQclear(res);
        fail_db(r);
        return -1;
    }

    missing = db_str(res, 0, 2);
    ok = missing == NULL;

    if (ok) {
        q->ids = arena_str(&r->a, PQgetvalue(res, 0, 0));
        q->own_ids = arena_str(&r->a, PQgetvalue(res, 0, 1));
        q->me = r->caller_user;

        if (strcmp(q->own_ids, "{}") == 0) {
            q->own_ids = q->me = NULL;
        }

    } else {
        fail_detail_error(r, 404, "User does not belong to Team= %s. Call `/user/info` to"
                          " see user's teams", missing);
    }

    PQclear(res);

    return ok ? 0 : -1;
}


static void
activity_of_team(req_t *r, int aggregate)
{
    activity_ask_t        q;
    const char  *asked;

    if (activity_read(r, &activity_team, &q) != 0) {
        return;
    }

    asked = usage_ids(&r->a, http_arg(r, "team_ids"));
    q.not_ids = usage_ids(&r->a, http_arg(r, "exclude_team_ids"));
    q.ids = asked;

    if (access_reads_all(r) || activity_teams(&q, asked) == 0) {
        activity_run(&q, aggregate);
    }
}


void
api_team_activity(req_t *r)
{
    activity_of_team(r, 0);
}


void
api_team_activity_all(req_t *r)
{
    activity_of_team(r, 1);
}


/* The organizations that the caller administers, or those of them that he asks for. */

static int
activity_orgs(activity_ask_t *q)
{
    int          ok;
    req_t       *r = q->r;
    PGresult    *res;
    const char  *missing;

    res = db_q("WITH mine AS (SELECT organization_id FROM organization_memberships WHERE"
        " user_id = $1 AND user_role = 'org_admin' AND ($2::text[] IS NULL OR"
        " organization_id = ANY ($2))) SELECT coalesce(array_agg(organization_id), '{}'),"
        " (SELECT a FROM unnest($2::text[]) a WHERE a NOT IN (SELECT organization_id FROM"
        " mine) LIMIT 1) FROM mine", r->role == ROLE_NONE ? NULL : r->caller_user, q->ids);

    if (!db_ok(res)) {
        db_log("the organizations of a caller are not known", res);
        PQclear(res);
        fail_db(r);
        return -1;
    }

    missing = db_str(res, 0, 1);
    ok = missing == NULL;

    if (ok) {
        q->ids = arena_str(&r->a, PQgetvalue(res, 0, 0));
    } else {
        fail_detail_error(r, 403, "User is not an admin of Organization= %s", missing);
    }

    PQclear(res);

    return ok ? 0 : -1;
}


void
api_organization_activity(req_t *r)
{
    activity_ask_t  q;

    if (activity_read(r, &activity_org, &q) != 0) {
        return;
    }

    q.ids = usage_ids(&r->a, http_arg(r, "organization_ids"));
    q.not_ids = usage_ids(&r->a, http_arg(r, "exclude_organization_ids"));

    if (access_reads_all(r) || activity_orgs(&q) == 0) {
        activity_run(&q, 0);
    }
}


void
api_customer_activity(req_t *r)
{
    activity_ask_t  q;

    if (activity_read(r, &activity_customer, &q) == 0) {
        q.ids = usage_ids(&r->a, http_arg(r, "end_user_ids"));
        q.not_ids = usage_ids(&r->a, http_arg(r, "exclude_end_user_ids"));
        activity_run(&q, 0);
    }
}


void
api_tag_activity(req_t *r)
{
    activity_ask_t  q;

    if (activity_read(r, &activity_tag, &q) == 0) {
        q.ids = usage_ids(&r->a, http_arg(r, "tags"));
        activity_run(&q, 0);
    }
}


/* Requests of agents are not told apart: there are none. */

void
api_agent_activity(req_t *r)
{
    activity_ask_t       q;
    activity_t  t;

    if (activity_read(r, &activity_tag, &q) == 0) {
        activity_init(&t, r, 0);
        activity_reply(&t, 1, 0);
    }
}
