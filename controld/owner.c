#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "kt_duration.h"
#include "kt_money.h"
#include "kt_schema.h"
#include "owner.h"
#include "policy.h"
#include "rds.h"
#include "tx.h"
#include "util.h"


#define OWNER_SUB_MAX  256


typedef struct {
    const char  *ent;
    const char  *kind;
    const char  *model;
    const char  *duration;
    int64_t      limit_nusd;
    int64_t      rpm;
    int64_t      tpm;
} sub_t;

typedef struct {
    size_t  n;
    sub_t   item[OWNER_SUB_MAX];
} subs_t;


/* Touches the entity a statement returned, if it returned one. */

static int
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


/* default_team_member_models of the team, for a member who is no admin of it. */

static int
owner_member_models(req_t *r, const char *team_id, const char *user_id)
{
    PGresult  *res;

    res = tx_q(r, "UPDATE memberships m SET allowed_models = ARRAY(SELECT"
               " jsonb_array_elements_text(t.metadata->'default_team_member_models')) FROM"
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


static sub_t *
owner_sub(req_t *r, subs_t *s, const char *owner, const char *kind,
    const char *name)
{
    char     enc[KT_ENT_MAX];
    size_t   n, i;
    sub_t   *item;
    const char  *ent;

    if (kt_id_encode(name, strlen(name), enc, sizeof(enc), &n) != KT_OK) {
        return NULL;
    }

    ent = arena_printf(&r->a, "%s~%s~%s", owner, *kind == 'w' ? "w" : "m", enc);

    for (i = 0; i < s->n; i++) {
        if (strcmp(s->item[i].ent, ent) == 0) {
            return &s->item[i];
        }
    }

    if (s->n == OWNER_SUB_MAX) {
        return NULL;
    }

    item = &s->item[s->n++];
    memset(item, 0, sizeof(*item));
    item->ent = ent;
    item->kind = kind;
    item->model = *kind == 'm' ? name : NULL;
    item->limit_nusd = item->rpm = item->tpm = -1;

    return item;
}


static int64_t
owner_number(const jv_t *v, int scale)
{
    int64_t  n;

    if (json_is_null(v) || (v->type != J_NUM && v->type != J_STR)
        || kt_money_parse(v->s, v->len, scale, &n) != KT_OK || n < 0)
    {
        return -1;
    }

    return n;
}


static void
owner_model_budgets(req_t *r, subs_t *s, const char *ent, const jv_t *o)
{
    sub_t       *item;
    const jv_t  *c, *v;

    for (c = o && o->type == J_OBJ ? o->head : NULL; c; c = c->next) {
        item = owner_sub(r, s, ent, "model", c->key);

        if (item == NULL) {
            continue;
        }

        if (c->type == J_NUM) {
            item->limit_nusd = owner_number(c, KT_MONEY_USD);
            continue;
        }

        v = json_get(c, "budget_limit");
        item->limit_nusd = owner_number(v ? v : json_get(c, "max_budget"),
                                        KT_MONEY_USD);
        item->duration = json_str(c, "time_period");

        if (item->duration == NULL) {
            item->duration = json_str(c, "budget_duration");
        }

        item->rpm = owner_number(json_get(c, "rpm_limit"), 0);
        item->tpm = owner_number(json_get(c, "tpm_limit"), 0);
    }
}


static void
owner_model_rates(req_t *r, subs_t *s, const char *ent, const jv_t *o, int tpm)
{
    sub_t       *item;
    const jv_t  *c;

    for (c = o && o->type == J_OBJ ? o->head : NULL; c; c = c->next) {
        item = owner_sub(r, s, ent, "model", c->key);

        if (item && tpm) {
            item->tpm = owner_number(c, 0);
        } else if (item) {
            item->rpm = owner_number(c, 0);
        }
    }
}


static void
owner_windows(req_t *r, subs_t *s, const char *ent, const jv_t *list)
{
    sub_t       *item;
    const char  *duration;
    const jv_t  *c;

    for (c = list && list->type == J_ARR ? list->head : NULL; c; c = c->next) {
        duration = json_str(c, "budget_duration");
        item = duration ? owner_sub(r, s, ent, "window", duration) : NULL;

        if (item) {
            item->duration = duration;
            item->limit_nusd = owner_number(json_get(c, "max_budget"),
                                            KT_MONEY_USD);
        }
    }
}


static void
owner_opt(arena_t *a, rowset_t *rs, const char *col, int64_t v)
{
    row_set(rs, col, "bigint", v < 0 ? NULL : arena_printf(a, "%" PRId64, v));
}


static int
owner_sub_write(req_t *r, const char *owner, const sub_t *s)
{
    rowset_t  rs;

    memset(&rs, 0, sizeof(rs));
    row_set(&rs, "ent", "text", s->ent);
    row_set(&rs, "owner", "text", owner);
    row_set(&rs, "kind", "text", s->kind);
    row_set(&rs, "model", "text", s->model);
    row_set(&rs, "gt", "boolean", *s->kind == 'm' ? "true" : "false");
    owner_opt(&r->a, &rs, "limit_nusd", s->limit_nusd);
    owner_opt(&r->a, &rs, "rpm_limit", s->rpm);
    owner_opt(&r->a, &rs, "tpm_limit", s->tpm);

    if (field_period(r, &rs, "budget_duration", s->duration, 1) != 0) {
        return -1;
    }

    return owner_made(r, tx_dynamic(r, row_insert(&r->a, "submeters", &rs,
        "ON CONFLICT (ent) DO UPDATE SET limit_nusd = EXCLUDED.limit_nusd,"
        " rpm_limit = EXCLUDED.rpm_limit, tpm_limit = EXCLUDED.tpm_limit,"
        " budget_duration = EXCLUDED.budget_duration,"
        " period_id = kt_period_id(submeters.period_kind, submeters.period_len_s,"
        " submeters.period_id, submeters.period_end_s, kt_now_s()),"
        " period_kind = EXCLUDED.period_kind, period_len_s = EXCLUDED.period_len_s,"
        " period_end_s = EXCLUDED.period_end_s RETURNING ent"), rs.n, rs.val));
}


static int
owner_sub_drop(req_t *r, const char *owner, const subs_t *s)
{
    int           i, rc;
    size_t        k;
    PGresult     *res;
    const char  **ents;

    ents = arena_alloc(&r->a, (s->n + 1) * sizeof(char *));

    for (k = 0; k < s->n; k++) {
        ents[k] = s->item[k].ent;
    }

    res = tx_q(r, "DELETE FROM submeters WHERE owner = $1"
               " AND ent <> ALL ($2::text[]) RETURNING ent", owner,
               db_array(&r->a, ents, s->n));

    if (res == NULL) {
        return -1;
    }

    rc = 0;

    for (i = 0; i < PQntuples(res) && rc == 0; i++) {
        rc = tx_gone(r, PQgetvalue(res, i, 0));
    }

    PQclear(res);

    return rc;
}


int
owner_has_submeters(const jv_t *row)
{
    const jv_t  *meta, *budgets, *windows;

    meta = json_get(row, "metadata");
    budgets = json_get(row, "model_max_budget");
    windows = json_get(row, "budget_limits");

    return (budgets && budgets->n) || (windows && windows->n)
           || !json_is_null(json_get(meta, "model_rpm_limit"))
           || !json_is_null(json_get(meta, "model_tpm_limit"));
}


int
owner_submeters(req_t *r, const char *ent, const jv_t *row)
{
    size_t       i;
    subs_t      *s;
    const jv_t  *meta;

    s = arena_alloc(&r->a, sizeof(subs_t));
    meta = json_get(row, "metadata");
    owner_model_budgets(r, s, ent, json_get(row, "model_max_budget"));
    owner_model_rates(r, s, ent, json_get(meta, "model_rpm_limit"), 0);
    owner_model_rates(r, s, ent, json_get(meta, "model_tpm_limit"), 1);
    owner_windows(r, s, ent, json_get(row, "budget_limits"));

    if (owner_sub_drop(r, ent, s) != 0) {
        return -1;
    }

    for (i = 0; i < s->n; i++) {
        if (owner_sub_write(r, ent, &s->item[i]) != 0) {
            return -1;
        }
    }

    return 0;
}


static int
owner_duration_ok(const char *s)
{
    kt_period_t    p;
    kt_duration_t  d;

    return kt_duration_parse(s, strlen(s), &d) == KT_OK
           && kt_period_start(&d, 0, &p) == KT_OK;
}


static int
owner_check_budgets(req_t *r)
{
    size_t       n;
    const jv_t  *o, *c, *v;
    const char  *s;

    o = json_get(r->json, "model_max_budget");

    for (n = 0, c = o && o->type == J_OBJ ? o->head : NULL; c; c = c->next, n++) {
        v = json_get(c, "budget_limit");
        v = v ? v : json_get(c, "max_budget");
        s = json_str(c, "time_period");
        s = s ? s : json_str(c, "budget_duration");

        if (!util_id_ok(c->key) || (c->type != J_OBJ && c->type != J_NUM)
            || (c->type == J_NUM && owner_number(c, KT_MONEY_USD) < 0)
            || (!json_is_null(v) && owner_number(v, KT_MONEY_USD) < 0)
            || (s && !owner_duration_ok(s)) || n >= OWNER_SUB_MAX / 4)
        {
            fail_repr(r, 400, "Invalid model_max_budget: %.200s",
                      json_text(&r->a, o));
            return -1;
        }
    }

    return 0;
}


/* One map from model to rate: what has no room among the sub-meters is refused. */

static int
owner_check_rates(req_t *r, const char *name, const jv_t *o)
{
    const jv_t  *c;

    if (!json_is_null(o) && o->type != J_OBJ) {
        fail_field(r, name, "dict_type", "Input should be a valid dictionary", o);
        return -1;
    }

    for (c = o ? o->head : NULL; c; c = c->next) {
        if (c->type != J_NUM || owner_number(c, 0) < 0 || !util_id_ok(c->key)
            || o->n > OWNER_SUB_MAX / 4)
        {
            fail_repr(r, 400, "Invalid %s: %.200s", name, json_text(&r->a, o));
            return -1;
        }
    }

    return 0;
}


int
owner_check_limits(req_t *r)
{
    const jv_t  *o, *c, *meta;
    const char  *s;

    meta = json_get(r->json, "metadata");
    meta = meta && meta->type == J_OBJ ? meta : NULL;

    if (owner_check_rates(r, "model_rpm_limit", json_get(r->json, "model_rpm_limit"))
        || owner_check_rates(r, "model_tpm_limit", json_get(r->json, "model_tpm_limit"))
        || owner_check_rates(r, "model_rpm_limit", json_get(meta, "model_rpm_limit"))
        || owner_check_rates(r, "model_tpm_limit", json_get(meta, "model_tpm_limit")))
    {
        return -1;
    }

    o = json_get(r->json, "budget_limits");

    for (c = o && o->type == J_ARR ? o->head : NULL; c; c = c->next) {
        s = json_str(c, "budget_duration");

        if (s == NULL || !owner_duration_ok(s) || o->n > 16
            || owner_number(json_get(c, "max_budget"), KT_MONEY_USD) < 0)
        {
            fail_repr(r, 400, "Invalid budget_limits: %.200s",
                      json_text(&r->a, o));
            return -1;
        }
    }

    return owner_check_budgets(r);
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
    owner_opt(&r->a, &rs, "max_budget_nusd", max_nusd);
    owner_opt(&r->a, &rs, "soft_budget_nusd", soft_nusd);
    owner_opt(&r->a, &rs, "rpm_limit", rpm);
    owner_opt(&r->a, &rs, "tpm_limit", tpm);

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
