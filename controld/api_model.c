#include <string.h>
#include "access.h"
#include "api.h"
#include "conf.h"
#include "db.h"
#include "model.h"
#include "tx.h"
#include "util.h"


const field_t  model_new_body[] = {
    { "model_name", F_ANY, NULL, F_REQUIRED },
    { "litellm_params", F_ANY, NULL, F_REQUIRED },
    { "model_info", F_ANY, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  model_update_body[] = {
    { "model_name", F_ID, NULL, 0 },
    { "litellm_params", F_OBJ, NULL, 0 },
    { "model_info", F_OBJ, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  model_id_body[] = {
    { "id", F_STR, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};

const field_t  model_block_body[] = {
    { "model_id", F_STR, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};


/* ------------------------------------------------------------------- teams */


/* Models without a team are the admins', those of a team its admins' too. */

static int
model_may(req_t *r, const char *team_id)
{
    int  rc;

    access_scoped(r);
    rc = team_id ? access_team_admin(r, team_id) : access_admin(r);

    if (rc == 0) {
        fail_proxy(r, 403, "auth_error", NULL, "{'error': 'User does not have permission to"
                   " make this model call. Your role=%s.'}", access_role_name(r));
    }

    return rc > 0 ? 0 : -1;
}


/*
 * The public name of a team's own model becomes an alias of the team, and is added to
 * its list of models when it has one.
 */

static int
model_team_name(req_t *r, const char *team, const char *public_name, const char *name)
{
    PGresult  *res;

    res = tx_q(r, "UPDATE teams SET model_aliases = coalesce(model_aliases, '{}') ||"
        " jsonb_build_object($2::text, $3::text), models = CASE WHEN cardinality(models) = 0"
        " OR $2 = ANY (models) THEN models ELSE models || $2::text END, updated_at = now()"
        " WHERE team_id = $1 AND NOT implicit RETURNING ent", team, public_name, name);

    if (res == NULL) {
        return -1;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        fail_repr(r, 400, "Team id=%s does not exist in db", team);
        return -1;
    }

    tx_touch(r, PQgetvalue(res, 0, 0));
    PQclear(res);

    return 0;
}


static int
model_team_drop(req_t *r, const char *team, const char *public_name)
{
    PGresult  *res;

    res = tx_q(r, "UPDATE teams SET model_aliases = nullif(model_aliases - $2::text, '{}'),"
        " models = CASE WHEN models <@ ARRAY[$2::text] AND cardinality(models) > 0 THEN"
        " '{no-default-models}' ELSE array_remove(models, $2::text) END, updated_at = now()"
        " WHERE team_id = $1 RETURNING ent", team, public_name);

    if (res == NULL) {
        return -1;
    }

    if (PQntuples(res)) {
        tx_touch(r, PQgetvalue(res, 0, 0));
    }

    PQclear(res);

    return 0;
}


/* ---------------------------------------------------------------------- rows */


typedef struct {
    const char  *id;
    const char  *name;
    jv_t        *params;
    jv_t        *info;
    const char  *team_id;
    const char  *public_name;
    const char  *json;
} model_row_t;


/* Locks a row that the API made.  1, 0: there is none, -1 after answering. */

static int
model_find(req_t *r, const char *id, model_row_t *m)
{
    PGresult    *res;
    const char  *err;

    memset(m, 0, sizeof(*m));
    res = tx_q(r, "SELECT model_name, litellm_params, model_info, kt_model_json(m) FROM"
               " models m WHERE model_id = $1 AND source = 'api' FOR UPDATE", id);

    if (res == NULL) {
        return -1;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        return 0;
    }

    m->id = id;
    m->name = arena_str(&r->a, PQgetvalue(res, 0, 0));
    m->params = json_parse_big(&r->a, PQgetvalue(res, 0, 1),
                           (size_t) PQgetlength(res, 0, 1), &err);
    m->info = json_parse_big(&r->a, PQgetvalue(res, 0, 2), (size_t) PQgetlength(res, 0, 2),
                         &err);
    m->json = arena_str(&r->a, PQgetvalue(res, 0, 3));
    m->team_id = json_str(m->info, "team_id");
    m->public_name = json_str(m->info, "team_public_model_name");
    PQclear(res);

    return 1;
}


/* 1 when a model of the file has the id. */

static int
model_in_file(req_t *r, const char *id)
{
    int             err;
    const model_t  *m;

    for (m = registry_load_all(&r->a, &err); m; m = m->next) {
        if (strcmp(m->id, id) == 0) {
            return strcmp(m->source, "api") != 0;
        }
    }

    return 0;
}


static void
model_reply(req_t *r, const char *action, const char *id, const char *before,
    const char *row)
{
    jv_t  *v;

    if (tx_audit(r, action, "LiteLLM_ProxyModelTable", id, before, row) != 0) {
        return;
    }

    tx_registry(r);

    if (tx_commit(r) != 0) {
        return;
    }

    v = model_row_shown(r, row, id);

    if (v) {
        reply_json(r, 200, v);
    } else {
        fail_db(r);
    }
}


/* Runs a statement that returns the row; NULL after answering, "" without a row. */

static const char *
model_write(req_t *r, const char *sql, rowset_t *rs)
{
    PGresult    *res;
    const char  *row;

    res = tx_dynamic(r, sql, rs->n, rs->val);

    if (res == NULL) {
        return NULL;
    }

    row = PQntuples(res) ? arena_str(&r->a, PQgetvalue(res, 0, 0)) : "";
    PQclear(res);

    return row;
}


static int
model_can_store(req_t *r)
{
    access_scoped(r);
    r->err_type = "auth_error";

    if (conf.store_model_in_db) {
        return 1;
    }

    fail_repr(r, 500, "Set `'STORE_MODEL_IN_DB='True'` in your env to enable this"
              " feature.");

    return 0;
}


void
api_model_new(req_t *r)
{
    jv_t        *params, *info, *sealed;
    rowset_t     rs;
    const char  *name, *id, *row, *team, *public_name;

    memset(&rs, 0, sizeof(rs));

    if (!model_can_store(r) || model_check_body(r, &name, &params, &info) != 0) {
        return;
    }

    team = json_str(info, "team_id");
    team = team && *team ? team : NULL;

    if (model_may(r, team) != 0) {
        return;
    }

    if (model_grant(r, team, &(model_grant_t) { name, params, info, NULL, NULL }) != 0) {
        return;
    }

    id = json_str(info, "id");
    id = id && util_id_ok(id) ? id : util_uuid(&r->a);
    info = json_copy(&r->a, info);
    json_set(info, "id", json_string(&r->a, id));
    json_set(info, "db_model", json_bool(&r->a, 1));
    public_name = name;

    if (team) {
        name = arena_printf(&r->a, "model_name_%.150s_%s", team, util_uuid(&r->a));
        json_set(info, "team_public_model_name", json_string(&r->a, public_name));
    }

    sealed = model_seal(r, params, id);
    info = sealed ? model_seal(r, info, id) : NULL;

    if (info == NULL || model_prices(r, &rs, params, info) != 0) {
        return;
    }

    row_set(&rs, "model_id", "text", id);
    row_set(&rs, "model_name", "text", name);
    row_set(&rs, "source", "text", "api");
    row_set(&rs, "litellm_params", "jsonb", json_text(&r->a, sealed));
    row_set(&rs, "model_info", "jsonb", json_text(&r->a, info));
    row_set(&rs, "created_by", "text", tx_actor(r));
    row_set(&rs, "updated_by", "text", tx_actor(r));

    if (json_str(info, "mode")) {
        row_set(&rs, "mode", "text", json_str(info, "mode"));
    }

    if (tx_begin(r) != 0
        || (team && model_team_name(r, team, public_name, name) != 0))
    {
        return;
    }

    row = model_write(r, row_insert(&r->a, "models", &rs, "ON CONFLICT DO NOTHING RETURNING"
                                    " kt_model_json(models)"), &rs);

    if (row && !*row) {
        fail_repr(r, 400, "Model with id=%s already exists", id);

    } else if (row) {
        model_reply(r, "created", id, NULL, row);
    }
}


/*
 * Members of `with` over those of `base`; null takes one away, and what comes back as it
 * was shown leaves the secrets that were not.
 */

static jv_t *
model_merge(req_t *r, const jv_t *base, const jv_t *with, const char *id)
{
    jv_t        *o;
    const jv_t  *c, *was;

    o = json_obj(&r->a);

    for (c = base ? base->head : NULL; c; c = c->next) {
        json_set(o, c->key, json_copy(&r->a, c));
    }

    for (c = with ? with->head : NULL; c; c = c->next) {
        was = json_get(base, c->key);

        if (json_is_null(c)) {
            json_del(o, c->key);

        } else if (was == NULL || !model_echoed(r, was, c, id, c->key)) {
            json_set(o, c->key, json_copy(&r->a, c));
        }
    }

    return o;
}


/* An object of the body, its secrets sealed; empty without one, NULL after answering. */

static jv_t *
model_sealed(req_t *r, const char *name, const char *id)
{
    const jv_t  *v;

    v = json_get(r->json, name);

    return json_is_null(v) ? json_obj(&r->a) : model_seal(r, v, id);
}


/* What the body changes of a row; NULL after answering. */

static const char *
model_change(req_t *r, const model_row_t *m)
{
    jv_t        *params, *info, *sealed;
    rowset_t     rs;
    const char  *name;

    memset(&rs, 0, sizeof(rs));
    sealed = model_sealed(r, "litellm_params", m->id);
    info = sealed ? model_sealed(r, "model_info", m->id) : NULL;

    if (info == NULL) {
        return NULL;
    }

    params = model_merge(r, m->params, sealed, m->id);
    info = model_merge(r, m->info, info, m->id);
    json_set(info, "id", json_string(&r->a, m->id));
    json_set(info, "db_model", json_bool(&r->a, 1));
    json_set(info, "team_id", json_string(&r->a, m->team_id));
    name = json_str(r->json, "model_name");

    if (m->team_id) {
        name = name ? name : m->public_name;
        json_set(info, "team_public_model_name", json_string(&r->a, name));

    } else if (name) {
        row_set(&rs, "model_name", "text", name);
    }

    if (json_str(params, "model") == NULL) {
        fail_repr(r, 400, "litellm_params.model can not be taken away");
        return NULL;
    }

    if (model_prices(r, &rs, params, info) != 0) {
        return NULL;
    }

    if (m->team_id && name && m->public_name && strcmp(name, m->public_name)
        && (model_team_drop(r, m->team_id, m->public_name) != 0
            || model_team_name(r, m->team_id, name, m->name) != 0))
    {
        return NULL;
    }

    row_set(&rs, "litellm_params", "jsonb", json_text(&r->a, params));
    row_set(&rs, "model_info", "jsonb", json_text(&r->a, info));
    row_set(&rs, "mode", "text", json_str(info, "mode") ? json_str(info, "mode") : "chat");
    row_set(&rs, "updated_by", "text", tx_actor(r));
    row_expr(&rs, "updated_at", "now()");

    /* the id is the last parameter */

    row_set(&rs, "model_id", "text", m->id);

    return model_write(r, row_update(&r->a, "models", &rs, 0, arena_printf(&r->a,
                       "WHERE model_id = $%d RETURNING kt_model_json(models)",
                       rs.n - 1)), &rs);
}


static void
model_update(req_t *r, const char *id, int patch)
{
    int          rc;
    model_row_t  m;
    const char  *row, *team, *name;

    if (tx_begin(r) != 0) {
        return;
    }

    rc = model_find(r, id, &m);

    if (rc < 0) {
        return;
    }

    if (rc == 0 && access_admin(r) && model_in_file(r, id)) {
        fail_repr(r, 400, "Can't edit model. Model in config. Store model in db via"
                  " `/model/new`. to edit.");
        return;
    }

    if (rc == 0) {
        if (model_may(r, NULL) == 0) {
            fail_repr(r, patch ? 404 : 400, "Model %s not found on proxy.", id);
        }

        return;
    }

    team = json_str(json_get(r->json, "model_info"), "team_id");

    if (model_may(r, m.team_id) != 0) {
        return;
    }

    if (team && *team && (m.team_id == NULL || strcmp(team, m.team_id))) {
        fail_repr(r, 400, "team_id of a model can not be changed");
        return;
    }

    name = json_str(r->json, "model_name");
    name = name && m.public_name && strcmp(name, m.public_name) == 0 ? NULL : name;

    if (model_grant(r, m.team_id, &(model_grant_t) { name, json_get(r->json, "litellm_params"),
                    json_get(r->json, "model_info"), m.params, m.info }) != 0)
    {
        return;
    }

    row = model_change(r, &m);

    if (row) {
        model_reply(r, "updated", id, m.json, row);
    }
}


void
api_model_update(req_t *r)
{
    const char  *id;

    if (!model_can_store(r)) {
        return;
    }

    id = json_str(json_get(r->json, "model_info"), "id");

    if (id == NULL) {
        if (model_may(r, NULL) == 0) {
            fail_repr(r, 400, "model_info.id is required");
        }

        return;
    }

    model_update(r, id, 0);
}


void
api_model_patch(req_t *r)
{
    if (model_can_store(r)) {
        model_update(r, r->seg[0], 1);
    }
}


/* Begins a change of a row that the caller manages.  0, or -1 after answering. */

static int
model_mine(req_t *r, const char *id, int status, model_row_t *m)
{
    int  rc;

    access_scoped(r);
    r->err_type = "auth_error";

    if (tx_begin(r) != 0) {
        return -1;
    }

    rc = model_find(r, id, m);

    if (rc < 0 || model_may(r, rc ? m->team_id : NULL) != 0) {
        return -1;
    }

    if (rc == 0) {
        fail_repr(r, status, "Model with id=%s not found in db", id);
        return -1;
    }

    return 0;
}


void
api_model_delete(req_t *r)
{
    jv_t        *o;
    PGresult    *res;
    model_row_t  m;
    const char  *id;

    id = json_str(r->json, "id");

    if (model_mine(r, id, 400, &m) != 0) {
        return;
    }

    res = tx_q(r, "DELETE FROM models WHERE model_id = $1 AND source = 'api'", id);

    if (res == NULL
        || (m.team_id && m.public_name
            && model_team_drop(r, m.team_id, m.public_name) != 0)
        || tx_audit(r, "deleted", "LiteLLM_ProxyModelTable", id, m.json, NULL) != 0)
    {
        PQclear(res);
        return;
    }

    PQclear(res);
    tx_registry(r);

    if (tx_commit(r) == 0) {
        o = json_obj(&r->a);
        json_set(o, "message", json_string(&r->a, arena_printf(&r->a,
                 "Model: %s deleted successfully", id)));
        reply_json(r, 200, o);
    }
}


static void
model_block(req_t *r, int blocked)
{
    PGresult    *res;
    model_row_t  m;
    const char  *id, *row;

    id = json_str(r->json, "model_id");

    if (model_mine(r, id, 404, &m) != 0) {
        return;
    }

    res = tx_q(r, "UPDATE models SET blocked = $2::boolean, updated_at = now(), updated_by ="
               " $3 WHERE model_id = $1 RETURNING kt_model_json(models)", id,
               blocked ? "true" : "false", tx_actor(r));

    if (res) {
        row = arena_str(&r->a, PQgetvalue(res, 0, 0));
        PQclear(res);
        model_reply(r, blocked ? "blocked" : "unblocked", id, m.json, row);
    }
}


void
api_model_block(req_t *r)
{
    model_block(r, 1);
}


void
api_model_unblock(req_t *r)
{
    model_block(r, 0);
}
