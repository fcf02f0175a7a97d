/*
 * /global/spend/report and .../spend/report of one key, user, team or organization;
 * /global/spend/reset.
 */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "access.h"
#include "api.h"
#include "key.h"
#include "owner.h"
#include "policy.h"
#include "report.h"
#include "tx.h"
#include "usage.h"


const arg_t  global_report_args[] = {
    { "start_date", F_STR, 0 },
    { "end_date", F_STR, 0 },
    { "group_by", F_STR, 0 },
    { "api_key", F_STR, 0 },
    { "internal_user_id", F_STR, 0 },
    { "team_id", F_STR, 0 },
    { "customer_id", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  key_report_args[] = {
    { "start_date", F_STR, 0 },
    { "end_date", F_STR, 0 },
    { "api_key", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  user_report_args[] = {
    { "start_date", F_STR, 0 },
    { "end_date", F_STR, 0 },
    { "user_id", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  team_report_args[] = {
    { "start_date", F_STR, 0 },
    { "end_date", F_STR, 0 },
    { "team_id", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  org_report_args[] = {
    { "start_date", F_STR, 0 },
    { "end_date", F_STR, 0 },
    { "organization_id", F_STR, 0 },
    { NULL, 0, 0 }
};


#define RESET_BATCH  200


static int
report_dates(req_t *r, int64_t *from, int64_t *to)
{
    if (usage_dates(r, from, to) != 0) {
        return -1;
    }

    if (*to - *from >= USAGE_DAYS) {
        fail_detail_error(r, 400, "A report covers at most %d days", USAGE_DAYS);
        return -1;
    }

    return 0;
}


/* By key, with its models; `cond` is one more condition on `value`. */

static void
report_keys(req_t *r, const usage_who_t *w, int64_t from, int64_t to,
    const char *cond, const char *value)
{
    PGresult    *res;
    usage_sql_t  q;

    usage_sql(&q, r, "SELECT x.token, x.model, sum(u.cost_nusd)::bigint,"
              " sum(u.prompt_tokens)::bigint, sum(u.completion_tokens)::bigint");
    usage_from_keys(&q, w, from, to, cond, value);
    buf_puts(&q.sql, " GROUP BY 1, 2");
    res = usage_run(&q);

    if (res) {
        report_reply_keys(r, res);
        PQclear(res);
    }
}


/* Adds (day, name, cost) of the query; -1 after answering. */

static int
report_read(report_t *t, usage_sql_t *q, int rows)
{
    PGresult  *res;

    res = usage_run(q);

    if (res == NULL) {
        return -1;
    }

    if (rows) {
        report_rows(t, res);
    } else {
        report_totals(t, res);
    }

    PQclear(res);

    return 0;
}


/*
 * What teams spent by day; what is left over of everything has no team.  `name` says
 * what a team with its alias is called.
 */

static int
report_read_teams(report_t *t, req_t *r, const usage_who_t *w, int64_t from, int64_t to,
    const char *name, const char *none)
{
    usage_sql_t  q;
    const char  *team;

    team = http_arg(r, "team_id");
    team = team && *team ? team : NULL;
    usage_sql(&q, r, "SELECT u.day - date '1970-01-01', ");
    buf_printf(&q.sql, "%s, u.cost_nusd" USAGE_JOIN " LEFT JOIN teams t ON t.team_id = %s"
               " WHERE true", name, w->all ? "x.name" : "x.team_id");
    usage_and(&q, 't', w, from, to);

    if (team) {
        usage_param(&q, w->all ? " AND x.kind = 't' AND x.name = " : " AND x.team_id = ",
                    team, "");
    }

    if (report_read(t, &q, 0) != 0) {
        return -1;
    }

    if (!w->all || team) {
        return 0;
    }

    usage_sql(&q, r, "SELECT u.day - date '1970-01-01', '', sum(u.cost_nusd)::bigint FROM"
              " usage_sums u WHERE true");
    usage_and(&q, 'g', w, from, to);
    buf_puts(&q.sql, " GROUP BY 1");

    return report_rest(t, &q, none);
}


void
api_global_spend_teams(req_t *r)
{
    int64_t      from, to;
    report_t     t;
    usage_who_t  w;

    usage_who(r, &w);

    if (usage_dates_spend(r, &from, &to) != 0) {
        return;
    }

    report_init(&t, r);

    if (report_read_teams(&t, r, &w, from, to, "CASE WHEN coalesce(t.team_id, x.name,"
                          " x.team_id, '') = '' THEN 'Unassigned' ELSE"
                          " coalesce(t.team_alias, nullif(x.name, ''), x.team_id) END",
                          "Unassigned") == 0)
    {
        report_reply_teams(&t);
    }
}


#define REPORT_ROW                                                            \
    ", x.model, x.token, u.cost_nusd, u.prompt_tokens + u.completion_tokens" \
    USAGE_JOIN

#define REPORT_ORDER  " ORDER BY u.day DESC, u.dim DESC LIMIT "
#define REPORT_ENDS   20000          /* rows of end users that are summed      */


static void
report_teams(req_t *r, const usage_who_t *w, int64_t from, int64_t to)
{
    report_t     t;
    usage_sql_t  q;
    const char  *team;

    report_init(&t, r);

    if (report_read_teams(&t, r, w, from, to, "coalesce(t.team_alias, 'Unassigned Team')",
                          "Unassigned Team") != 0)
    {
        return;
    }

    usage_sql(&q, r, "SELECT u.day - date '1970-01-01', coalesce(t.team_alias, 'Unassigned"
              " Team')" REPORT_ROW " LEFT JOIN teams t ON t.team_id = x.team_id WHERE true");
    usage_and(&q, 'k', w, from, to);
    team = http_arg(r, "team_id");

    if (team && *team) {
        usage_param(&q, " AND x.kind = 'k' AND x.team_id = ", team, "");
    }

    buf_printf(&q.sql, REPORT_ORDER "%d", REPORT_NEWEST);

    if (report_read(&t, &q, 1) == 0) {
        report_reply_days(&t, "teams", "team_name");
    }
}


static void
report_customers(req_t *r, const usage_who_t *w, int64_t from, int64_t to)
{
    int          rows;
    report_t     t;
    usage_sql_t  q;
    const char  *id;

    report_init(&t, r);
    id = http_arg(r, "customer_id");

    for (rows = 0; rows < 2; rows++) {
        usage_sql(&q, r, rows ? "SELECT u.day - date '1970-01-01', x.name" REPORT_ROW
                                " WHERE true"
                              : "SELECT u.day - date '1970-01-01', x.name, u.cost_nusd"
                                USAGE_JOIN " WHERE true");
        usage_and(&q, 'c', w, from, to);

        if (id && *id) {
            usage_param(&q, " AND x.kind = 'c' AND x.name = ", id, "");
        }

        buf_printf(&q.sql, REPORT_ORDER "%d", rows ? REPORT_NEWEST : REPORT_ENDS);

        if (report_read(&t, &q, rows) != 0) {
            return;
        }
    }

    report_reply_days(&t, "customers", "customer");
}


void
api_global_report(req_t *r)
{
    int64_t      from, to;
    usage_who_t  w;
    const char  *by, *key, *user;

    usage_who(r, &w);

    if (report_dates(r, &from, &to) != 0) {
        return;
    }

    by = http_arg(r, "group_by");
    by = by && *by ? by : "team";
    key = http_arg(r, "api_key");
    user = http_arg(r, "internal_user_id");

    if (key && *key) {
        report_keys(r, &w, from, to, " AND x.token" USAGE_KEY "?" USAGE_KEY_END,
                    key_token(r, key));

    } else if (user && *user) {
        report_keys(r, &w, from, to, " AND x.user_id = ?", user);

    } else if (strcmp(by, "api_key") == 0) {
        report_keys(r, &w, from, to, NULL, NULL);

    } else if (strcmp(by, "team") == 0) {
        report_teams(r, &w, from, to);

    } else if (strcmp(by, "customer") == 0) {
        if (w.all) {
            report_customers(r, &w, from, to);
        } else {
            access_refuse(r);
        }

    } else {
        fail_arg(r, "group_by", "literal_error", "Input should be 'team', 'customer' or"
                 " 'api_key'", by);
    }
}


/* ------------------------------------------------------- reports of one object */


static void
report_foreign(req_t *r, const char *what, const char *id)
{
    fail_detail_error(r, 403, "You are not allowed to see the spend of %s=%s", what,
                      id ? id : "None");
}


/* `rc` is what access_*() said; everybody's rows under `cond` then. */

static void
report_object(req_t *r, int rc, const char *what, const char *cond, const char *id)
{
    int64_t      from, to;
    usage_who_t  all = { 1, NULL, NULL };

    if (rc < 0 || (rc && report_dates(r, &from, &to) != 0)) {
        return;
    }

    if (rc == 0 || id == NULL) {
        report_foreign(r, what, id);
        return;
    }

    report_keys(r, &all, from, to, cond, id);
}


static const char *
report_id(req_t *r, const char *arg, const char *own)
{
    const char  *id;

    id = http_arg(r, arg);

    return id && *id ? id : own;
}


void
api_key_report(req_t *r)
{
    int          mine;
    PGresult    *res;
    const char  *token;

    token = key_token(r, report_id(r, "api_key", r->caller_token));
    mine = strcmp(token, r->caller_token) == 0 || access_reads_all(r);
    access_scoped(r);

    if (!mine) {
        res = db_q("SELECT 1 FROM keys WHERE token = (kt_key_hashes($1))[1] AND (token = $2"
                   " OR user_id = $3)", token, r->caller_key,
                   r->role == ROLE_NONE ? NULL : r->caller_user);

        if (!db_ok(res)) {
            PQclear(res);
            fail_db(r);
            return;
        }

        mine = PQntuples(res) > 0;
        PQclear(res);
    }

    report_object(r, mine, "api_key", " AND x.token" USAGE_KEY "?" USAGE_KEY_END, token);
}


void
api_user_report(req_t *r)
{
    const char  *id;

    id = report_id(r, "user_id", r->caller_user);
    report_object(r, access_reads_all(r) || access_self(r, id), "user_id",
                  " AND x.user_id = ?", id);
}


void
api_team_report(req_t *r)
{
    const char  *id;

    id = report_id(r, "team_id", r->caller_team);
    report_object(r, access_reads_all(r) ? 1 : access_team_admin(r, id), "team_id",
                  " AND x.team_id = ?", id);
}


void
api_organization_report(req_t *r)
{
    const char  *id;

    id = report_id(r, "organization_id", r->caller_org);
    report_object(r, access_reads_all(r) ? 1 : access_org_admin(r, id),
                  "organization_id", " AND x.organization_id = ?", id);
}


/* --------------------------------------------------------------------- reset */


/* Sets what keys and teams of one batch used to nothing; -1 after answering. */

static int
reset_batch(req_t *r, arena_t *a, PGresult *res, int64_t *changed)
{
    int           i, n;
    int64_t      *used;
    const char  **ents;

    n = PQntuples(res);
    ents = arena_alloc(a, (size_t) (n + 1) * sizeof(char *));
    used = arena_alloc(a, (size_t) (n + 1) * sizeof(int64_t));

    for (i = 0; i < n; i++) {
        ents[i] = PQgetvalue(res, i, 0);
    }

    policy_used(a, ents, (size_t) n, used);

    for (i = 0; i < n; i++) {
        if (used[i] == 0) {
            continue;
        }

        if (owner_adjust(r, ents[i], 0) != 0) {
            return -1;
        }

        ++*changed;
    }

    return 0;
}


void
api_global_reset(req_t *r)
{
    int          n, rc;
    jv_t        *o;
    int64_t      changed;
    arena_t      a;
    PGresult    *res;
    const char  *last;

    changed = 0;
    last = "";

    do {
        arena_init(&a);
        res = db_q("SELECT ent FROM ((SELECT ent FROM keys WHERE ent > $1 ORDER BY ent"
                   " LIMIT 200) UNION ALL (SELECT ent FROM teams WHERE ent > $1 ORDER BY"
                   " ent LIMIT 200)) x ORDER BY ent LIMIT 200", last);

        if (!db_ok(res)) {
            PQclear(res);
            fail_db(r);
            arena_free(&a);
            return;
        }

        n = PQntuples(res);
        rc = reset_batch(r, &a, res, &changed);
        last = n ? arena_str(&r->a, PQgetvalue(res, n - 1, 0)) : last;
        PQclear(res);
        arena_free(&a);

    } while (rc == 0 && n == RESET_BATCH);

    if (rc != 0 || tx_begin(r) != 0
        || tx_audit(r, "updated", "spend", "all keys and teams", NULL,
                    arena_printf(&r->a, "{\"reset\": %" PRId64 "}", changed)) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    o = json_obj(&r->a);
    json_set(o, "message", json_string(&r->a, "Spend for all API Keys and Teams reset"
                                       " successfully"));
    json_set(o, "status", json_string(&r->a, "success"));
    reply_json(r, 200, o);
}
