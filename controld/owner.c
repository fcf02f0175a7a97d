#include <inttypes.h>
#include <string.h>
#include "kt_money.h"
#include "kt_schema.h"
#include "owner.h"
#include "policy.h"
#include "rds.h"
#include "tx.h"
#include "util.h"


int
owner_made(req_t *r, PGresult *res)
{
    if (res == NULL) {
        return -1;
    }

    if (PQntuples(res)) {
        tx_touch(r, PQgetvalue(res, 0, 0));
    }

    PQclear(res);

    return 0;
}


/*
 * One that another request has just made may not be in Redis yet: as long as the
 * outbox has it, it is pushed here too, before the answer.
 */

#define OWNER_PENDING(ent)                                                    \
    "SELECT ent FROM outbox WHERE ent = " ent " AND op = 'set' LIMIT 1"


int
owner_user(req_t *r, const char *user_id)
{
    return owner_made(r, tx_q(r, "INSERT INTO users (user_id, implicit)"
                              " VALUES ($1, true) ON CONFLICT DO NOTHING"
                              " RETURNING ent", user_id)) != 0
           ? -1 : owner_made(r, tx_q(r, OWNER_PENDING("kt_ent('user', $1)"),
                                     user_id));
}


int
owner_team(req_t *r, const char *team_id)
{
    return owner_made(r, tx_q(r, "INSERT INTO teams (team_id, implicit)"
                              " VALUES ($1, true) ON CONFLICT DO NOTHING"
                              " RETURNING ent", team_id)) != 0
           ? -1 : owner_made(r, tx_q(r, OWNER_PENDING("kt_ent('team', $1)"),
                                     team_id));
}


/*
 * default_team_member_models of the team, for a member who is no admin of it.  What is no
 * name there lets nothing in: an empty list would let in everything.
 */

static int
owner_member_models(req_t *r, const char *team_id, const char *user_id)
{
    PGresult  *res;

    res = tx_q(r, "UPDATE memberships m SET allowed_models = ARRAY(SELECT CASE"
               " jsonb_typeof(x) WHEN 'string' THEN x #>> '{}' ELSE 'no-default-models' END"
               " FROM jsonb_array_elements(t.metadata->'default_team_member_models') x) FROM"
               " teams t WHERE t.team_id = m.team_id AND m.team_id = $1 AND m.user_id = $2"
               " AND m.role = 'user' AND m.allowed_models = '{}' AND jsonb_typeof("
               "t.metadata->'default_team_member_models') = 'array'", team_id, user_id);
    PQclear(res);

    return res ? 0 : -1;
}


int
owner_member(req_t *r, const char *team_id, const char *user_id,
    const char *role, const char *email, int implicit)
{
    rowset_t  rs;

    memset(&rs, 0, sizeof(rs));
    row_set(&rs, "team_id", "text", team_id);
    row_set(&rs, "user_id", "text", user_id);
    row_set(&rs, "role", "text", role);
    row_set(&rs, "user_email", "text", email);
    row_set(&rs, "implicit", "boolean", implicit ? "true" : "false");

    if (owner_made(r, tx_dynamic(r, row_insert(&r->a, "memberships", &rs,
        implicit ? "ON CONFLICT DO NOTHING RETURNING ent"
                 : "ON CONFLICT (team_id, user_id) DO UPDATE SET"
                   " role = EXCLUDED.role, user_email = EXCLUDED.user_email,"
                   " implicit = false, created_at = clock_timestamp()"
                   " RETURNING ent"), rs.n, rs.val)) != 0
        || (!implicit && owner_member_models(r, team_id, user_id) != 0))
    {
        return -1;
    }

    return owner_made(r, tx_q(r, OWNER_PENDING("'member:' || kt_encode($1) || '/'"
                                               " || kt_encode($2)"),
                              team_id, user_id));
}


void
owner_limit(req_t *r, rowset_t *rs, const char *col, int64_t v)
{
    row_set(rs, col, "bigint", v < 0 ? NULL : arena_printf(&r->a, "%" PRId64, v));
}


int
owner_seed(req_t *r, const char *table, const char *ent, int64_t nusd)
{
    PGresult  *res;

    res = tx_dynamic(r, arena_printf(&r->a,
        "INSERT INTO meters (ent, period_id, used_nusd) SELECT ent, period_id,"
        " $2::bigint FROM %s WHERE ent = $1 ON CONFLICT (ent, period_id) DO UPDATE"
        " SET used_nusd = meters.used_nusd + EXCLUDED.used_nusd", table), 2,
        (const char *const[]){ ent, arena_printf(&r->a, "%" PRId64, nusd) });

    if (res == NULL) {
        return -1;
    }

    PQclear(res);

    return 0;
}


int
owner_adjust(req_t *r, const char *ent, int64_t nusd)
{
    int          rc;
    char         rid[33];
    int64_t      used;
    rds_cmd_t    c;
    redisReply  *reply;

    policy_used(&r->a, &ent, 1, &used);

    if (used == nusd) {
        return 0;
    }

    util_rid(rid);
    rds_fcall(&c, &r->a, "kt_adjust");
    rds_arg(&c, rid);
    rds_arg(&c, ent);
    rds_arg(&c, arena_printf(&r->a, "%" PRId64, nusd - used));
    rds_arg(&c, arena_printf(&r->a, "{\"id\":\"%s\",\"t0\":%" PRId64
                             ",\"why\":\"spend set by an admin\"}", rid,
                             util_now_ms()));
    reply = rds_run(&c);
    rc = reply && reply->str && strcmp(reply->str, "ok") == 0
         && rds_announced(&r->a) == 0 ? 0 : -1;

    if (reply) {
        freeReplyObject(reply);
    }

    if (rc) {
        fail_proxy(r, 503, "service_unavailable", NULL,
                   "spend was not changed: Redis did not answer. What else was sent is"
                   " saved; send it again");
    }

    return rc;
}


const char *
owner_budget(req_t *r, const char *id, int64_t max_nusd, int64_t soft_nusd,
    int64_t rpm, int64_t tpm, const char *duration)
{
    PGresult  *res;
    rowset_t   rs;

    memset(&rs, 0, sizeof(rs));
    id = id ? id : util_uuid(&r->a);
    row_set(&rs, "budget_id", "text", id);
    row_set(&rs, "created_by", "text", tx_actor(r));
    row_set(&rs, "updated_by", "text", tx_actor(r));
    owner_limit(r, &rs, "max_budget_nusd", max_nusd);
    owner_limit(r, &rs, "soft_budget_nusd", soft_nusd);
    owner_limit(r, &rs, "rpm_limit", rpm);
    owner_limit(r, &rs, "tpm_limit", tpm);

    if (field_period(r, &rs, "budget_duration", duration, 1) != 0) {
        return NULL;
    }

    res = tx_dynamic(r, row_insert(&r->a, "budgets", &rs,
        "ON CONFLICT (budget_id) DO UPDATE SET max_budget_nusd ="
        " EXCLUDED.max_budget_nusd, rpm_limit = EXCLUDED.rpm_limit, tpm_limit ="
        " EXCLUDED.tpm_limit, budget_duration = EXCLUDED.budget_duration,"
        " period_kind = EXCLUDED.period_kind, period_len_s = EXCLUDED.period_len_s,"
        " period_end_s = EXCLUDED.period_end_s, period_id = kt_period_id("
        " budgets.period_kind, budgets.period_len_s, budgets.period_id,"
        " budgets.period_end_s, kt_now_s()), updated_at = now()"), rs.n, rs.val);

    if (res == NULL) {
        return NULL;
    }

    PQclear(res);

    return id;
}


jv_t *
owner_rows(req_t *r, void *pgresult, int ent_col, int json_col)
{
    int           i, n;
    jv_t         *list, *v;
    int64_t      *used;
    PGresult     *res = pgresult;
    const char   *err;
    const char  **ents;

    n = PQntuples(res);
    list = json_arr(&r->a);
    ents = arena_alloc(&r->a, (size_t) (n + 1) * sizeof(char *));
    used = arena_alloc(&r->a, (size_t) (n + 1) * sizeof(int64_t));

    for (i = 0; i < n; i++) {
        ents[i] = PQgetvalue(res, i, ent_col);
    }

    policy_used(&r->a, ents, (size_t) n, used);

    for (i = 0; i < n; i++) {
        v = json_parse_big(&r->a, PQgetvalue(res, i, json_col),
                           (size_t) PQgetlength(res, i, json_col), &err);

        if (v) {
            json_set(v, "spend", json_usd(&r->a, used[i]));
            json_push(list, v);
        }
    }

    return list;
}
