/* /access_group: sets of models that lists of models may name (litellm-api 9.3). */

#include <string.h>
#include "api.h"
#include "conf.h"
#include "db.h"
#include "registry.h"
#include "tx.h"


const field_t  model_group_body[] = {
    { "access_group", F_NAME, NULL, 0 },
    { "model_names", F_STRS, NULL, 0 },
    { "model_ids", F_STRS, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  model_group_update_body[] = {
    { "model_names", F_STRS, NULL, 0 },
    { "model_ids", F_STRS, NULL, 0 },
    { NULL, 0, NULL, 0 }
};


typedef struct {
    jv_t        *names;          /* of the models, once each                   */
    jv_t        *ids;            /* as they were sent                          */
    int          deployments;
    const char  *array;          /* the names as text[]                        */
} group_t;


static int
group_has(const jv_t *list, const char *s)
{
    const jv_t  *c;

    for (c = list && list->type == J_ARR ? list->head : NULL; c; c = c->next) {
        if (c->type == J_STR && strcmp(c->s, s) == 0) {
            return 1;
        }
    }

    return 0;
}


static const char *
group_array(arena_t *a, const jv_t *list)
{
    size_t        n;
    const jv_t   *c;
    const char  **items;

    items = arena_alloc(a, (list->n + 1) * sizeof(char *));

    for (n = 0, c = list->head; c; c = c->next) {
        items[n++] = c->s;
    }

    return db_array(a, items, n);
}


/* The models that the body means; -1 after answering. */

static int
group_models(req_t *r, group_t *g)
{
    int          err;
    buf_t        missing;
    jv_t        *found;
    model_t     *m;
    const jv_t  *names, *ids, *c;

    names = json_get(r->json, "model_names");
    ids = json_get(r->json, "model_ids");

    if ((json_is_null(names) || names->n == 0) && (json_is_null(ids) || ids->n == 0)) {
        fail_detail_error(r, 400, "model_names list is required and cannot be empty");
        return -1;
    }

    memset(g, 0, sizeof(*g));
    g->names = json_arr(&r->a);
    g->ids = json_is_null(ids) ? json_arr(&r->a) : json_copy(&r->a, ids);
    found = json_arr(&r->a);
    m = registry_load_all(&r->a, &err);

    if (err) {
        fail_db(r);
        return -1;
    }

    for (/* void */; m; m = m->next) {
        if (!group_has(names, m->name) && !group_has(ids, m->id)) {
            continue;
        }

        g->deployments++;
        json_push(found, json_string(&r->a, m->id));

        if (!group_has(g->names, m->name)) {
            json_push(g->names, json_string(&r->a, m->name));
        }
    }

    buf_init(&missing, &r->a);

    for (c = names && names->type == J_ARR ? names->head : NULL; c; c = c->next) {
        if (!group_has(g->names, c->s)) {
            buf_puts(&missing, missing.len ? ", " : "");
            buf_puts(&missing, c->s);
        }
    }

    for (c = g->ids->head; c; c = c->next) {
        if (!group_has(found, c->s)) {
            buf_puts(&missing, missing.len ? ", " : "");
            buf_puts(&missing, c->s);
        }
    }

    if (missing.len) {
        fail_detail_error(r, 400, "Model(s) not found: %s", missing.p);
        return -1;
    }

    g->array = group_array(&r->a, g->names);

    return 0;
}


/* 1: there is such a group, of the file too when *file is set; -1 after answering. */

static int
group_known(req_t *r, const char *name, int *file)
{
    int        n;
    PGresult  *res;

    res = tx_q(r, "SELECT source = 'config' FROM model_groups WHERE group_name = $1 ORDER BY"
               " source = 'config' DESC LIMIT 1", name);

    if (res == NULL) {
        return -1;
    }

    n = PQntuples(res);
    *file = n && *PQgetvalue(res, 0, 0) == 't';
    PQclear(res);

    return n;
}


static void
group_reply(req_t *r, const char *name, const group_t *g)
{
    jv_t  *o;

    o = json_obj(&r->a);
    json_set(o, "access_group", json_string(&r->a, name));
    json_set(o, "model_names", g->names);
    json_set(o, "model_ids", g->ids);
    json_set(o, "models_updated", json_int(&r->a, g->deployments));
    reply_json(r, 200, o);
}


/* Takes a group away, also from the deployments that name it.  -1 after answering. */

static int
group_clear(req_t *r, const char *name)
{
    PGresult  *res;

    res = tx_q(r, "UPDATE models SET model_info = jsonb_set(model_info, '{access_groups}',"
        " (model_info->'access_groups') - $1::text), updated_at = now() WHERE source = 'api'"
        " AND jsonb_typeof(model_info->'access_groups') = 'array' AND"
        " model_info->'access_groups' ? $1", name);

    if (res == NULL) {
        return -1;
    }

    PQclear(res);
    res = tx_q(r, "DELETE FROM model_groups WHERE group_name = $1", name);

    if (res == NULL) {
        return -1;
    }

    PQclear(res);

    return 0;
}


static int
group_insert(req_t *r, const char *name, const group_t *g)
{
    PGresult  *res;

    res = tx_q(r, "INSERT INTO model_groups (group_name, model_name, source) SELECT $1, m,"
               " 'group' FROM unnest($2::text[]) m ON CONFLICT DO NOTHING", name, g->array);

    if (res == NULL) {
        return -1;
    }

    PQclear(res);

    return 0;
}


static const char *
group_json(req_t *r, const group_t *g)
{
    jv_t  *o;

    o = json_obj(&r->a);
    json_set(o, "model_names", json_copy(&r->a, g->names));

    return json_text(&r->a, o);
}


void
api_model_group_new(req_t *r)
{
    int          rc, file;
    group_t      g;
    const char  *name;

    name = json_str(r->json, "access_group");

    if (name == NULL || !*name || strspn(name, " ") == strlen(name)) {
        fail_detail_error(r, 400, "access_group is required and cannot be empty");
        return;
    }

    if (group_models(r, &g) != 0 || tx_begin(r) != 0) {
        return;
    }

    rc = group_known(r, name, &file);

    if (rc > 0) {
        fail_detail_error(r, 409, "Access group '%s' already exists. Use PUT"
                          " /access_group/%s/update to modify it.", name, name);
    }

    if (rc != 0 || group_insert(r, name, &g) != 0
        || tx_audit(r, "created", "model_group", name, NULL, group_json(r, &g)) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    group_reply(r, name, &g);
}


/* Groups with their models and deployments; `only` one of them.  NULL after answering. */

static jv_t *
group_list(req_t *r, const char *only)
{
    int          i, err, n;
    jv_t        *list, *o, *names;
    model_t     *m, *all;
    PGresult    *res;
    const char  *bad;

    all = registry_load_all(&r->a, &err);
    res = err ? NULL : db_q("SELECT group_name, json_agg(DISTINCT model_name) FROM"
                            " model_groups WHERE $1::text IS NULL OR group_name = $1 GROUP"
                            " BY group_name ORDER BY group_name", only);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return NULL;
    }

    list = json_arr(&r->a);

    for (i = 0; i < PQntuples(res); i++) {
        names = json_parse_big(&r->a, PQgetvalue(res, i, 1),
                               (size_t) PQgetlength(res, i, 1), &bad);

        for (n = 0, m = all; m; m = m->next) {
            n += group_has(names, m->name);
        }

        o = json_obj(&r->a);
        json_set(o, "access_group", json_string(&r->a, PQgetvalue(res, i, 0)));
        json_set(o, "model_names", names);
        json_set(o, "deployment_count", json_int(&r->a, n));
        json_push(list, o);
    }

    PQclear(res);

    return list;
}


static void
group_missing(req_t *r, const char *name)
{
    fail_detail_error(r, 404, "Access group '%s' not found", name);
}


void
api_model_group_list(req_t *r)
{
    jv_t  *o, *list;

    list = group_list(r, NULL);

    if (list) {
        o = json_obj(&r->a);
        json_set(o, "access_groups", list);
        reply_json(r, 200, o);
    }
}


void
api_model_group_one(req_t *r)
{
    jv_t  *list;

    list = group_list(r, r->seg[0]);

    if (list && list->n) {
        reply_json(r, 200, list->head);

    } else if (list) {
        group_missing(r, r->seg[0]);
    }
}


/* 0: the group may be changed; -1 after answering. */

static int
group_changeable(req_t *r, const char *name)
{
    int  rc, file;

    rc = group_known(r, name, &file);

    if (rc == 0) {
        group_missing(r, name);

    } else if (rc > 0 && file) {
        fail_detail_error(r, 400, "Access group '%s' is set in %s and can only be changed"
                          " there", name, conf.path ? conf.path : "the configuration");
        rc = 0;
    }

    return rc > 0 ? 0 : -1;
}


void
api_model_group_update(req_t *r)
{
    group_t      g;
    const char  *name;

    name = r->seg[0];

    if (group_models(r, &g) != 0 || tx_begin(r) != 0 || group_changeable(r, name) != 0
        || group_clear(r, name) != 0 || group_insert(r, name, &g) != 0
        || tx_audit(r, "updated", "model_group", name, NULL, group_json(r, &g)) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    group_reply(r, name, &g);
}


void
api_model_group_delete(req_t *r)
{
    jv_t        *o, *list, *count;
    const char  *name;

    name = r->seg[0];
    list = group_list(r, name);

    if (list == NULL || tx_begin(r) != 0 || group_changeable(r, name) != 0
        || group_clear(r, name) != 0
        || tx_audit(r, "deleted", "model_group", name,
                    list->n ? json_text(&r->a, list->head) : NULL, NULL) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    count = json_get(list->head, "deployment_count");
    o = json_obj(&r->a);
    json_set(o, "access_group", json_string(&r->a, name));
    json_set(o, "models_updated", json_copy(&r->a, count));
    json_set(o, "message", json_string(&r->a, arena_printf(&r->a, "Access group '%s' deleted"
                                                " successfully", name)));
    reply_json(r, 200, o);
}
