/* /user|team|organization|customer|tag|agent/daily/activity, by page or as a whole. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "access.h"
#include "activity.h"
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
#define ACTIVITY_FINE   5000         /* rows that are told apart by key        */
#define ACTIVITY_SOME   2000         /* of more than those, the newest         */
#define ACTIVITY_DAYS   3660

/* One kind of entity. */
typedef struct {
    const char  *column;             /* of usage_dims                          */
    char         fine;               /* its sums by key                        */
    char         coarse;             /* without the key; 0: there are none     */
    int64_t      page_size;
    int          team;
} kind_t;

typedef struct {
    req_t         *r;
    const kind_t  *kind;
    int64_t        from;
    int64_t        to;
    int64_t        page;
    int64_t        size;
    const char    *model;
    const char    *token;
    const char    *ids;              /* entities, as text[]; NULL: all         */
    const char    *not_ids;
    const char    *own_ids;          /* of these, only rows of `me`            */
    const char    *me;               /* user; with own_ids NULL: his rows only */
    const char    *my_token;         /* the same for a key without a user      */
    int            csv;
} ask_t;

typedef struct {
    int64_t  day;
    int64_t  parts;
} day_t;


static const kind_t  activity_user = { "x.user_id", 'k', 'g', 50, 0 };
static const kind_t  activity_team = { "x.team_id", 'k', 't', 10, 1 };
static const kind_t  activity_org = { "x.organization_id", 'k', 'o', 10, 0 };
static const kind_t  activity_customer = { "x.name", 'c', 0, 10, 0 };
static const kind_t  activity_tag = { "x.name", 'l', 'n', 10, 0 };


/* ------------------------------------------------------------------ arguments */


/*
 * Minutes behind UTC, as browsers have them.  Sums are by UTC days: one more is taken
 * where the local day reaches into it.
 */

static int
activity_zone(ask_t *q)
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
activity_ask(req_t *r, const kind_t *kind, ask_t *q)
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


/* -------------------------------------------------------------------- queries */


/* `bare`: nothing is asked of the dimensions. */

static void
activity_from(usage_sql_t *s, const ask_t *q, char kind, int64_t from, int64_t to,
    int bare)
{
    int           fine;
    const kind_t  *k = q->kind;
    const char    *col;

    fine = kind == k->fine;
    col = fine ? k->column : "x.name";
    buf_printf(&s->sql, "%s WHERE u.kind = '%c'", bare ? " FROM usage_sums u" : USAGE_JOIN,
               kind);
    usage_param(s, " AND u.day >= ", usage_day_text(&s->r->a, from), "::date");
    usage_param(s, " AND u.day <= ", usage_day_text(&s->r->a, to), "::date");

    if (q->model || q->token || q->ids || q->not_ids || q->me || q->my_token) {
        buf_printf(&s->sql, " AND x.kind = '%c'", kind);
    }

    if (q->model) {
        usage_param(s, " AND coalesce(nullif(x.upstream_model, ''), x.model) = ",
                    q->model, "");
    }

    if (q->token) {
        usage_param(s, " AND x.token = ", q->token, "");
    }

    if (fine && k != &activity_user) {
        buf_printf(&s->sql, " AND %s <> ''", col);
    }

    if (q->own_ids) {
        buf_printf(&s->sql, " AND (%s = ANY (", col);
        usage_param(s, "", q->ids, "::text[])");
        buf_printf(&s->sql, " OR (%s = ANY (", col);
        usage_param(s, "", q->own_ids, "::text[])");
        usage_param(s, " AND x.user_id = ", q->me, "))");

    } else if (q->ids) {
        buf_printf(&s->sql, " AND %s = ANY (", col);
        usage_param(s, "", q->ids, "::text[])");
    }

    if (q->not_ids) {
        buf_printf(&s->sql, " AND %s <> ALL (", col);
        usage_param(s, "", q->not_ids, "::text[])");
    }

    if (q->me && q->own_ids == NULL) {
        usage_param(s, " AND x.user_id = ", q->me, "");
    }

    if (q->my_token) {
        usage_param(s, " AND x.token = ", q->my_token, "");
    }
}


/* Whether the sums without the key can tell what is asked. */

static int
activity_coarse(const ask_t *q)
{
    if (q->kind->coarse == 0 || q->token || q->me || q->my_token) {
        return 0;
    }

    return q->kind->coarse != 'g' || (q->ids == NULL && q->not_ids == NULL);
}


/* Rows by key of each day, newest first; NULL after answering. */

static day_t *
activity_counts(const ask_t *q, size_t *n, int64_t *total)
{
    int          i;
    day_t       *days;
    PGresult    *res;
    usage_sql_t  s;

    usage_sql(&s, q->r, activity_coarse(q)
              ? "SELECT u.day - date '1970-01-01', sum(u.parts)::bigint"
              : "SELECT u.day - date '1970-01-01', count(*)");
    activity_from(&s, q, activity_coarse(q) ? q->kind->coarse : q->kind->fine, q->from,
                  q->to, activity_coarse(q) && !q->model && !q->ids && !q->not_ids);
    buf_puts(&s.sql, " GROUP BY u.day ORDER BY u.day DESC");
    res = usage_run(&s);

    if (res == NULL) {
        return NULL;
    }

    *n = (size_t) PQntuples(res);
    days = arena_alloc(&q->r->a, (*n + 1) * sizeof(day_t));

    for (i = 0, *total = 0; i < PQntuples(res); i++) {
        days[i].day = db_int(res, i, 0);
        days[i].parts = db_int(res, i, 1);
        *total += days[i].parts;
    }

    PQclear(res);

    return days;
}


/* The rows from `skip` on, `size` of them, found by the days that they are in. */

static PGresult *
activity_fetch(const ask_t *q, const day_t *days, size_t n, int64_t skip, int64_t size)
{
    size_t       i, last;
    int64_t      have;
    usage_sql_t  s;

    for (i = 0; i < n && skip >= days[i].parts; i++) {
        skip -= days[i].parts;
    }

    for (last = i, have = -skip; last < n && have < size; last++) {
        have += days[last].parts;
    }

    usage_sql(&s, q->r, "SELECT " ACT_COLUMNS);
    buf_puts(&s.sql, q->kind->column);

    if (i == last) {
        activity_from(&s, q, q->kind->fine, q->from, q->to, 0);
        buf_puts(&s.sql, " LIMIT 0");

    } else {
        activity_from(&s, q, q->kind->fine, days[last - 1].day, days[i].day,
                      0);
        buf_printf(&s.sql, " ORDER BY u.day DESC, u.dim DESC LIMIT %" PRId64 " OFFSET %"
                   PRId64, size, skip);
    }

    return usage_run(&s);
}


static void
activity_page(const ask_t *q)
{
    int          i;
    size_t       n;
    day_t       *days;
    int64_t      total;
    PGresult    *res;
    activity_t   t;

    days = activity_counts(q, &n, &total);
    res = days ? activity_fetch(q, days, n, (q->page - 1) * q->size, q->size) : NULL;

    if (res == NULL) {
        return;
    }

    activity_init(&t, q->r, q->kind->team);

    for (i = 0; i < PQntuples(res); i++) {
        activity_row(&t, res, i, ACT_ALL);
    }

    if (q->csv) {
        activity_reply_csv(&t, res);
    } else {
        activity_reply(&t, q->page, (total + q->size - 1) / q->size);
    }

    PQclear(res);
}


/* Days, names and totals of everything, without the keys. */

static int
activity_sum(const ask_t *q, activity_t *t)
{
    int          i;
    PGresult    *res;
    usage_sql_t  s;

    usage_sql(&s, q->r, "SELECT " ACT_COLUMNS);
    buf_puts(&s.sql, q->kind->coarse == 'g' ? "''" : "x.name");
    activity_from(&s, q, q->kind->coarse, q->from, q->to, 0);
    res = usage_run(&s);

    if (res == NULL) {
        return -1;
    }

    for (i = 0; i < PQntuples(res); i++) {
        activity_row(t, res, i, ACT_TOTAL | ACT_NAMES);
    }

    PQclear(res);

    return 0;
}


/*
 * Everything at once.  Of very many rows the sums are exact, but only the newest rows
 * are told apart by key.
 */

static void
activity_aggregate(const ask_t *q)
{
    int          i, many;
    size_t       n;
    day_t       *days;
    int64_t      total;
    PGresult    *res;
    activity_t   t;

    days = activity_counts(q, &n, &total);

    if (days == NULL) {
        return;
    }

    many = total > ACTIVITY_FINE;
    activity_init(&t, q->r, q->kind->team);

    if (many) {
        usage_truncated(q->r);

        if (activity_coarse(q) && !q->csv && activity_sum(q, &t) != 0) {
            return;
        }
    }

    res = activity_fetch(q, days, n, 0, q->csv ? USAGE_ROWS
                         : many && activity_coarse(q) ? ACTIVITY_SOME : ACTIVITY_FINE);

    if (res == NULL) {
        return;
    }

    for (i = 0; i < PQntuples(res); i++) {
        activity_row(&t, res, i, many && activity_coarse(q) && !q->csv ? ACT_KEYS
                                                                       : ACT_ALL);
    }

    if (q->csv) {
        activity_reply_csv(&t, res);
    } else {
        activity_reply(&t, 1, 1);
    }

    PQclear(res);
}


/* ------------------------------------------------------------------- visibility */


static void
activity_run(const ask_t *q, int aggregate)
{
    if (aggregate) {
        activity_aggregate(q);
    } else {
        activity_page(q);
    }
}


static void
activity_of_user(req_t *r, int aggregate)
{
    ask_t        q;
    const char  *id;

    if (activity_ask(r, &activity_user, &q) != 0) {
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
        q.my_token = r->caller_user ? NULL : r->caller_token;

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
activity_teams(ask_t *q, const char *asked)
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
    ask_t        q;
    const char  *asked;

    if (activity_ask(r, &activity_team, &q) != 0) {
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
activity_orgs(ask_t *q)
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
    ask_t  q;

    if (activity_ask(r, &activity_org, &q) != 0) {
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
    ask_t  q;

    if (activity_ask(r, &activity_customer, &q) == 0) {
        q.ids = usage_ids(&r->a, http_arg(r, "end_user_ids"));
        q.not_ids = usage_ids(&r->a, http_arg(r, "exclude_end_user_ids"));
        activity_run(&q, 0);
    }
}


void
api_tag_activity(req_t *r)
{
    ask_t  q;

    if (activity_ask(r, &activity_tag, &q) == 0) {
        q.ids = usage_ids(&r->a, http_arg(r, "tags"));
        activity_run(&q, 0);
    }
}


/* Requests of agents are not told apart: there are none. */

void
api_agent_activity(req_t *r)
{
    ask_t       q;
    activity_t  t;

    if (activity_ask(r, &activity_tag, &q) == 0) {
        activity_init(&t, r, 0);
        activity_reply(&t, 1, 0);
    }
}
