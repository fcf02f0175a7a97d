/* What somebody who is no proxy admin may put into a model of his team. */

#include <stdlib.h>
#include <string.h>
#include "access.h"
#include "db.h"
#include "grant.h"
#include "model.h"
#include "util.h"


/* Nothing here says where a request goes, with whose key, or what it costs. */

static const char *const  model_free_params[] = {
    "model", "temperature", "top_p", "top_k", "n", "seed", "stop", "stream", "timeout",
    "stream_timeout", "max_retries", "max_tokens", "max_completion_tokens",
    "presence_penalty", "frequency_penalty", "reasoning_effort", "drop_params", "tags", NULL
};

static const char *const  model_free_info[] = {
    "id", "db_model", "team_id", "team_public_model_name", "description", "display_name",
    "discoverable", "created_at", "created_by", "updated_at", "updated_by", NULL
};


static int
model_free(const char *const *names, const char *name)
{
    for (/* void */; *names; names++) {
        if (strcmp(*names, name) == 0) {
            return 1;
        }
    }

    return strncmp(name, "supports_", 9) == 0;
}


static int
model_same(req_t *r, const jv_t *x, const jv_t *y)
{
    if (json_is_null(x) || json_is_null(y)) {
        return json_is_null(x) && json_is_null(y);
    }

    if (x->type == J_NUM && y->type == J_NUM) {
        return strtod(x->s, NULL) == strtod(y->s, NULL);     /* 1e-9, 0.000000001 */
    }

    return x->type == y->type && strcmp(json_text(&r->a, x), json_text(&r->a, y)) == 0;
}


/* The first member that only admins may set, and that is not as it was. */

static const char *
model_reserved(req_t *r, const jv_t *o, const jv_t *was, const char *const *names)
{
    const jv_t  *c;

    for (c = o ? o->head : NULL; c; c = c->next) {
        if (!model_free(names, c->key) && !model_same(r, c, json_get(was, c->key))) {
            return c->key;
        }
    }

    return NULL;
}


static int
model_refuse(req_t *r, const char *param, const char *what, const char *why)
{
    fail_proxy(r, 403, "auth_error", param, "%.255s %s", what, why);

    return -1;
}


/*
 * The lists of the team and its organization as they are now.  The public names of the
 * team's own models are in its list too, but say nothing about models of the proxy.
 */

static int
model_lists(req_t *r, const char *team, const jv_t **lists)
{
    int          i;
    PGresult    *res;
    const char  *err;

    res = db_q("SELECT CASE WHEN cardinality(t.models) > 0 AND cardinality(l.names) = 0 AND"
        " cardinality(t.access_group_ids) = 0 THEN '[\"no-default-models\"]' ELSE"
        " kt_allowed(l.names, t.access_group_ids, '{*,all-proxy-models}') END,"
        " CASE WHEN o.models IS NOT NULL THEN kt_allowed(o.models, '{}',"
        " '{*,all-proxy-models}') END FROM teams t LEFT JOIN"
        " organizations o USING (organization_id) CROSS JOIN LATERAL (SELECT ARRAY(SELECT"
        " unnest(t.models) EXCEPT SELECT model_info->>'team_public_model_name' FROM models"
        " WHERE source = 'api' AND model_info->>'team_id' = t.team_id) AS names) l"
        " WHERE t.team_id = $1", team);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    lists[0] = lists[1] = NULL;

    for (i = 0; i < 2 && PQntuples(res); i++) {
        lists[i] = db_str(res, 0, i)
                   ? json_parse_big(&r->a, PQgetvalue(res, 0, i),
                                    (size_t) PQgetlength(res, 0, i), &err) : NULL;
    }

    PQclear(res);

    return 0;
}


static int
model_covers(req_t *r, const jv_t *list, const char *name)
{
    jv_t        *whole, *bare;
    const char  *slash;

    slash = strchr(name, '/');
    whole = json_arr(&r->a);
    bare = json_arr(&r->a);
    json_push(whole, json_string(&r->a, name));
    json_push(bare, json_string(&r->a, slash ? slash + 1 : name));

    return grant_covers(list, whole) || grant_covers(list, bare);
}


/*
 * A public name is added to the team's list: it must not let in what already has that
 * name, a group or a model of the proxy.
 */

static int
model_name_taken(req_t *r, const char *name)
{
    int             err, taken;
    PGresult       *res;
    const model_t  *m;

    if (strchr(name, '*') || !strcmp(name, "all-proxy-models")
        || !strcmp(name, "all-team-models") || !strcmp(name, "no-default-models"))
    {
        return 1;
    }

    for (m = registry_load_all(&r->a, &err); m; m = m->next) {
        if (m->team_id == NULL && util_glob(m->name, name)) {
            return 1;
        }
    }

    res = db_q("SELECT 1 FROM model_groups WHERE group_name = $1 UNION ALL SELECT 1 FROM"
               " access_groups WHERE $1 IN (access_group_name, access_group_id)", name);
    taken = err || !db_ok(res) || PQntuples(res) > 0;
    PQclear(res);

    return taken;
}


static int
model_grant_name(req_t *r, const char *name, const jv_t *const *lists)
{
    jv_t  *want;

    want = json_arr(&r->a);
    json_push(want, json_string(&r->a, name));

    if (!model_name_taken(r, name)
        || (!strchr(name, '*') && grant_covers(lists[0], want)
            && grant_covers(lists[1], want)))
    {
        return 0;
    }

    return model_refuse(r, "model_name", name, "is a name that your team may not use");
}


static int
model_grant_upstream(req_t *r, const char *upstream, const jv_t *const *lists)
{
    int  rc;

    if (!model_covers(r, lists[0], upstream) || !model_covers(r, lists[1], upstream)) {
        return model_refuse(r, "litellm_params", upstream, "is not a model of your team");
    }

    rc = registry_has_price(&r->a, upstream);

    if (rc < 0) {
        fail_db(r);
        return -1;
    }

    return rc ? 0 : model_refuse(r, "litellm_params", upstream, "has no price");
}


int
model_grant(req_t *r, const char *team, const model_grant_t *g)
{
    const jv_t  *lists[2];
    const char  *name, *upstream, *was;

    if (access_admin(r)) {
        return 0;
    }

    name = model_reserved(r, g->params, g->params_were, model_free_params);
    name = name ? name : model_reserved(r, g->info, g->info_was, model_free_info);

    if (name) {
        return model_refuse(r, name, name, "is for proxy admins");
    }

    if (model_lists(r, team, lists) != 0
        || (g->name && model_grant_name(r, g->name, lists) != 0))
    {
        return -1;
    }

    upstream = json_str(g->params, "model");
    was = json_str(g->params_were, "model");

    if (upstream == NULL || (was && strcmp(was, upstream) == 0)) {
        return 0;
    }

    /* a price, key or address that an admin gave is for the model that he chose */

    if (model_reserved(r, g->params_were, NULL, model_free_params)
        || model_reserved(r, g->info_was, NULL, model_free_info))
    {
        return model_refuse(r, "litellm_params", "model", "was chosen by a proxy admin");
    }

    return model_grant_upstream(r, upstream, lists);
}
