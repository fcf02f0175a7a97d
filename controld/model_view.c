#include <string.h>
#include "access.h"
#include "db.h"
#include "model.h"
#include "util.h"


static jv_t *
model_view_json(req_t *r, PGresult *res, int col)
{
    const char  *text, *err;

    text = db_str(res, 0, col);

    return text ? json_parse_big(&r->a, text, strlen(text), &err) : NULL;
}


static int
model_view_row(req_t *r, model_view_t *v, PGresult *res)
{
    if (!db_ok(res)) {
        db_log("the models of a caller are not known", res);
        PQclear(res);
        fail_db(r);
        return -1;
    }

    if (PQntuples(res)) {
        v->allowed = model_view_json(r, res, 0);
        v->aliases = model_view_json(r, res, 1);
        v->listed = arena_str(&r->a, db_str(res, 0, 2));
        v->groups = model_view_json(r, res, 3);
        v->member = model_view_json(r, res, 4);
        v->org = model_view_json(r, res, 5);
        v->user = model_view_json(r, res, 6);
        v->own = *PQgetvalue(res, 0, 7) == 't';
    }

    PQclear(res);

    return 0;
}


#define MODEL_GROUPS                                                          \
    "(SELECT json_object_agg(g, true) FROM (SELECT group_name AS g FROM"      \
    " model_groups UNION SELECT access_group_name FROM access_groups) x)"


#define MODEL_MEMBER                                                          \
    "CASE WHEN m.team_id IS NOT NULL THEN kt_and_meant(kt_allowed("           \
    "m.allowed_models, '{}', '{*,all-proxy-models,all-team-models}'),"        \
    " t.model_aliases, t.router_settings) END"


#define MODEL_ORG                                                             \
    "CASE WHEN o.organization_id IS NOT NULL THEN kt_allowed(o.models, '{}',"  \
    " '{*,all-proxy-models}') END"


int
model_view(req_t *r, model_view_t *v)
{
    memset(v, 0, sizeof(*v));
    access_scoped(r);
    v->team_id = r->caller_team;

    if (access_reads_all(r)) {
        v->all = 1;
        return 0;
    }

    return model_view_row(r, v, db_q("SELECT coalesce(kt_and_meant(l.models,"
        " t.model_aliases, t.router_settings), CASE WHEN t.team_id IS NOT NULL THEN kt_models(t.models,"
        " t.access_group_ids) END), kt_aliases(k.aliases, k.router_settings,"
        " t.model_aliases, t.router_settings), CASE WHEN cardinality(k.models) > 0 THEN"
        " k.models ELSE t.models END, " MODEL_GROUPS ", " MODEL_MEMBER ", " MODEL_ORG ","
        " CASE WHEN u.user_id IS NOT NULL THEN kt_user_models(u.models) END, l.models IS NOT"
        " NULL FROM keys k CROSS JOIN LATERAL (SELECT kt_models(k.models, k.access_group_ids)"
        " AS models) l LEFT JOIN teams t ON t.team_id = k.team_id LEFT JOIN memberships m ON m.team_id ="
        " k.team_id AND m.user_id = k.user_id LEFT JOIN organizations o ON"
        " o.organization_id = coalesce(k.organization_id, t.organization_id) LEFT JOIN users"
        " u ON u.user_id = k.user_id AND k.team_id IS NULL WHERE k.token = $1",
        r->caller_key));
}


int
model_view_team(req_t *r, model_view_t *v, const char *team_id)
{
    int  rc;

    memset(v, 0, sizeof(*v));
    rc = access_team_member(r, team_id);

    if (rc <= 0) {
        if (rc == 0) {
            fail_detail_error(r, 403, "User is not a member of Team=%.255s", team_id);
        }

        return -1;
    }

    v->team_id = team_id;

    return model_view_row(r, v, db_q("SELECT kt_models(t.models, t.access_group_ids),"
        " kt_aliases('{}', NULL, t.model_aliases, t.router_settings), t.models, "
        MODEL_GROUPS ", " MODEL_MEMBER ", " MODEL_ORG ", NULL, false FROM teams t LEFT JOIN"
        " memberships m ON m.team_id = t.team_id AND m.user_id = $2 LEFT JOIN organizations"
        " o ON o.organization_id = t.organization_id WHERE t.team_id = $1", team_id,
        access_reads_all(r) ? NULL : r->caller_user));
}


/* A name, or "provider/name", against one entry of a list. */

static int
model_fits(const char *entry, const model_t *m, const char *name)
{
    size_t       n;
    const char  *slash;

    if (util_glob(entry, name)) {
        return 1;
    }

    slash = strchr(entry, '/');
    n = slash ? (size_t) (slash - entry) : 0;

    return n && strchr(entry, '*') && m->provider && strlen(m->provider) == n
           && strncmp(entry, m->provider, n) == 0 && !strchr(name, '/')
           && util_glob(slash + 1, name);
}


/* Is the model in the list, by either name? */

static int
model_listed(const jv_t *list, const model_t *m, const char *name)
{
    const jv_t  *c;

    for (c = list ? list->head : NULL; c; c = c->next) {
        if (c->type == J_STR
            && (model_fits(c->s, m, name) || model_fits(c->s, m, m->name)))
        {
            return 1;
        }
    }

    return list == NULL;
}


/* The same for a name alone, that need not be a model. */

static int
model_named(const jv_t *list, const char *name)
{
    const jv_t  *c;

    for (c = list ? list->head : NULL; c; c = c->next) {
        if (c->type == J_STR && util_glob(c->s, name)) {
            return 1;
        }
    }

    return list == NULL;
}


int
model_granted(const model_view_t *v, const char *name)
{
    return model_named(v->allowed, name) && model_named(v->member, name);
}


int
model_member(const model_view_t *v, const char *name)
{
    return model_named(v->member, name);
}


const char *
model_seen(const model_view_t *v, const model_t *m)
{
    const jv_t  *hidden;
    const char  *name;

    name = m->name;

    if (m->team_id) {
        if (v->team_id == NULL || strcmp(m->team_id, v->team_id) != 0) {
            return NULL;
        }

        name = json_str(m->info, "team_public_model_name");
        name = name ? name : m->name;
    }

    hidden = json_get(m->info, "discoverable");

    if (hidden && hidden->type == J_FALSE) {
        return NULL;
    }

    return v->all || (model_listed(v->allowed, m, name)
                      && model_listed(v->member, m, name)) ? name : NULL;
}


const char *
model_usable(const model_view_t *v, const model_t *m)
{
    const char  *name;

    name = model_seen(v, m);

    return name && (v->all || (model_listed(v->user, m, name)
                               && model_listed(v->org, m, name))) ? name : NULL;
}
