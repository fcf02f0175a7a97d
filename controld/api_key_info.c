/* What one key looks like: /key/info, /v2/key/info, /key/health. */

#include <string.h>
#include "access.h"
#include "api.h"
#include "db.h"
#include "key.h"
#include "owner.h"
#include "tx.h"


const arg_t  key_info_args[] = {
    { "key", F_STR, 0 },
    { NULL, 0, 0 }
};

const field_t  key_info_v2_body[] = {
    { "keys", F_STRS, NULL, 0 },
    { NULL, 0, NULL, 0 }
};


/* May the caller see this row?  1, 0, or -1 after answering. */

static int
info_visible(req_t *r, const char *token, const char *user_id, const char *team_id)
{
    int          rc;
    const char  *role;

    if (access_reads_all(r)
        || (r->caller_key && strcmp(token, r->caller_key) == 0)
        || access_self(r, user_id))
    {
        access_scoped(r);
        return 1;
    }

    if (team_id == NULL) {
        return 0;
    }

    rc = access_team_role(r, team_id, &role);

    return rc < 0 ? -1 : role != NULL;
}


/* What of each model's budget is spent, by model; NULL after answering. */

static jv_t *
info_models(req_t *r, const char *ent)
{
    jv_t      *out, *list, *o, *c;
    PGresult  *res;

    res = db_q("SELECT ent, json_build_object('model', model, 'budget_limit', kt_usd("
               "limit_nusd), 'time_period', budget_duration) FROM submeters WHERE owner = $1"
               " AND kind = 'model' AND limit_nusd IS NOT NULL ORDER BY model", ent);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return NULL;
    }

    out = json_obj(&r->a);
    list = owner_rows(r, res, 0, 1);
    PQclear(res);

    for (c = list->head; c; c = c->next) {
        o = json_obj(&r->a);
        json_set(o, "current_spend", json_copy(&r->a, json_get(c, "spend")));
        json_set(o, "budget_limit", json_copy(&r->a, json_get(c, "budget_limit")));
        json_set(o, "time_period", json_copy(&r->a, json_get(c, "time_period")));
        json_set(out, json_str(c, "model"), o);
    }

    return out;
}


void
api_key_info(req_t *r)
{
    int          rc;
    jv_t        *rows, *out, *models;
    PGresult    *res;
    const char  *sent;

    sent = http_arg(r, "key");
    sent = sent ? sent : r->caller_token;
    res = db_q("SELECT ent, kt_key_json(k), token, user_id, team_id, version FROM keys k"
               " WHERE token = kt_key_of($1)", key_token(r, sent));

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        access_scoped(r);
        fail_proxy(r, 404, "not_found_error", "key", "Key not found in database");
        return;
    }

    rc = info_visible(r, PQgetvalue(res, 0, 2), arena_str(&r->a, db_str(res, 0, 3)),
                      arena_str(&r->a, db_str(res, 0, 4)));

    models = rc > 0 ? info_models(r, PQgetvalue(res, 0, 0)) : NULL;

    if (models) {
        rows = owner_rows(r, res, 0, 1);
        json_set(rows->head, "model_max_budget_usage", models);
        tx_etag(r, db_int(res, 0, 5));
        json_del(rows->head, "token");
        out = json_obj(&r->a);
        json_set(out, "key", json_string(&r->a, sent));
        json_set(out, "info", rows->head);
        reply_json(r, 200, out);

    } else if (rc == 0) {
        fail_proxy(r, 403, "auth_error", "key", "You are not allowed to access this"
                   " key's info. Your role=%s", access_role_name(r));
    }

    PQclear(res);
}


void
api_key_info_v2(req_t *r)
{
    int           i, rc;
    jv_t         *out;
    size_t        n;
    PGresult     *res;
    const jv_t   *sent, *c;
    const char  **list;

    sent = json_get(r->json, "keys");

    if (json_is_null(sent) || sent->n == 0) {
        fail_repr(r, 422, "Malformed request. No keys passed in.");
        return;
    }

    list = arena_alloc(&r->a, (sent->n + 1) * sizeof(char *));

    for (n = 0, c = sent->head; c; c = c->next) {
        list[n++] = key_token(r, c->s);
    }

    res = db_q("SELECT ent, kt_key_json(k), token, user_id, team_id FROM keys k WHERE"
               " token IN (SELECT kt_key_of(h) FROM unnest($1::text[]) h)"
               " ORDER BY created_at, token", db_array(&r->a, list, n));

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return;
    }

    for (i = 0, rc = 1; i < PQntuples(res) && rc > 0; i++) {
        rc = info_visible(r, PQgetvalue(res, i, 2),
                          arena_str(&r->a, db_str(res, i, 3)),
                          arena_str(&r->a, db_str(res, i, 4)));
    }

    access_scoped(r);

    if (rc > 0) {
        out = json_obj(&r->a);
        json_set(out, "key", json_copy(&r->a, sent));
        json_set(out, "info", owner_rows(r, res, 0, 1));
        reply_json(r, 200, out);

    } else if (rc == 0) {
        fail_proxy(r, 403, "auth_error", "key", "You are not allowed to access this"
                   " key's info. Your role=%s", access_role_name(r));
    }

    PQclear(res);
}


/* The caller's own key, as far as this side can tell. */

void
api_key_health(req_t *r)
{
    jv_t  *out;

    access_scoped(r);
    out = json_obj(&r->a);
    json_set(out, "key", json_string(&r->a, "healthy"));
    json_set(out, "logging_callbacks", json_null(&r->a));
    reply_json(r, 200, out);
}
