/* /models: the names that a caller may send. */

#include <string.h>
#include <strings.h>
#include "access.h"
#include "api.h"
#include "db.h"
#include "model.h"


const arg_t  models_args[] = {
    { "return_wildcard_routes", F_BOOL, 0 },
    { "team_id", F_STR, 0 },
    { "include_model_access_groups", F_BOOL, 0 },
    { "only_model_access_groups", F_BOOL, 0 },
    { "include_metadata", F_BOOL, 0 },
    { "fallback_type", F_STR, 0 },
    { "scope", F_STR, 0 },
    { "healthy_only", F_BOOL, 0 },
    { NULL, 0, 0 }
};


#define MODEL_CREATED  1677610602      /* LiteLLM's constant                   */


static int
list_yes(req_t *r, const char *name)
{
    const char  *s;

    s = http_arg(r, name);

    return s && (strcasecmp(s, "true") == 0 || strcmp(s, "1") == 0);
}


static void
list_add(req_t *r, jv_t *list, const char *name)
{
    jv_t  *o, *c, *meta;

    for (c = list->head; c; c = c->next) {
        if (strcmp(json_str(c, "id"), name) == 0) {
            return;
        }
    }

    o = json_obj(&r->a);
    json_set(o, "id", json_string(&r->a, name));
    json_set(o, "object", json_string(&r->a, "model"));
    json_set(o, "created", json_int(&r->a, MODEL_CREATED));
    json_set(o, "owned_by", json_string(&r->a, "openai"));

    if (list_yes(r, "include_metadata")) {
        meta = json_obj(&r->a);
        json_set(meta, "fallbacks", json_arr(&r->a));
        json_set(o, "metadata", meta);
    }

    json_push(list, o);
}


/* Names that stand for others are no models. */

static int
list_special(const char *name)
{
    return !strcmp(name, "no-default-models") || !strcmp(name, "all-team-models")
           || !strcmp(name, "all-proxy-models") || !strcmp(name, "*");
}


static int
list_groups(req_t *r, const model_view_t *v, jv_t *list)
{
    int        i;
    PGresult  *res;

    res = db_q("SELECT DISTINCT group_name FROM model_groups WHERE $1::text[] IS NULL OR"
               " cardinality($1::text[]) = 0 OR group_name = ANY ($1) ORDER BY 1",
               v->all ? NULL : v->listed);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    for (i = 0; i < PQntuples(res); i++) {
        list_add(r, list, PQgetvalue(res, i, 0));
    }

    PQclear(res);

    return 0;
}


/* Names that are granted although no model of the registry has them. */

static void
list_granted(req_t *r, const model_view_t *v, const jv_t *names, jv_t *list)
{
    int          wild;
    const jv_t  *c;

    wild = list_yes(r, "return_wildcard_routes");

    for (c = names ? names->head : NULL; c; c = c->next) {
        if (c->type == J_STR && !list_special(c->s) && !json_get(v->groups, c->s)
            && (wild || !strchr(c->s, '*')) && strncmp(c->s, "model_name_", 11) != 0
            && model_granted(v, c->s))
        {
            list_add(r, list, c->s);
        }
    }
}


static jv_t *
list_find(jv_t *list, const char *name)
{
    jv_t  *c;

    for (c = list->head; c && strcmp(json_str(c, "id"), name); c = c->next) { /* void */ }

    return c;
}


static void
list_names(req_t *r, const model_view_t *v, const model_t *m, jv_t *list)
{
    int          wild;
    const jv_t  *c;
    const char  *name;

    wild = list_yes(r, "return_wildcard_routes");

    for (/* void */; m; m = m->next) {
        name = model_seen(v, m);

        if (name && (wild || !strchr(name, '*'))) {
            list_add(r, list, name);
        }
    }

    list_granted(r, v, v->allowed, list);
    list_granted(r, v, v->member, list);

    for (c = v->aliases ? v->aliases->head : NULL; c; c = c->next) {
        name = c->type == J_STR ? c->s : c->key;

        if (model_member(v, name) && (!v->own || list_find(list, name))) {
            list_add(r, list, c->key);
        }
    }
}


static jv_t *
list_visible(req_t *r)
{
    int            err;
    jv_t          *list;
    model_t       *all;
    const char    *team, *scope;
    model_view_t   v;

    scope = http_arg(r, "scope");
    team = http_arg(r, "team_id");

    if (team && *team && !(scope && access_admin(r))) {
        if (model_view_team(r, &v, team) != 0) {
            return NULL;
        }

    } else if (model_view(r, &v) != 0) {
        return NULL;
    }

    all = registry_load(&r->a, &err);

    if (err) {
        fail_db(r);
        return NULL;
    }

    list = json_arr(&r->a);

    if (!list_yes(r, "only_model_access_groups")) {
        list_names(r, &v, all, list);
    }

    if ((list_yes(r, "include_model_access_groups")
         || list_yes(r, "only_model_access_groups")) && list_groups(r, &v, list) != 0)
    {
        return NULL;
    }

    return list;
}


static int
list_args(req_t *r)
{
    const char  *scope, *type;

    access_scoped(r);
    scope = http_arg(r, "scope");
    type = http_arg(r, "fallback_type");

    if (scope && strcmp(scope, "expand")) {
        fail_detail(r, 400, arena_printf(&r->a, "Invalid scope parameter. Only"
                    " 'expand' is currently supported. Received: %s", scope));
        return -1;
    }

    if (type && strcmp(type, "general") && strcmp(type, "context_window")
        && strcmp(type, "content_policy"))
    {
        fail_detail(r, 400, "Invalid fallback_type. Must be one of: ['general',"
                    " 'context_window', 'content_policy']");
        return -1;
    }

    return 0;
}


void
api_models(req_t *r)
{
    jv_t  *out, *list;

    list = list_args(r) == 0 ? list_visible(r) : NULL;

    if (list) {
        out = json_obj(&r->a);
        json_set(out, "data", list);
        json_set(out, "object", json_string(&r->a, "list"));
        reply_json(r, 200, out);
    }
}


/* One model, or several with commas between them. */

void
api_models_one(req_t *r)
{
    char    *p, *next;
    jv_t    *list, *c;
    buf_t    missing;
    size_t   n;

    list = list_visible(r);

    if (list == NULL) {
        return;
    }

    c = list_find(list, r->rest);

    if (c) {
        reply_json(r, 200, c);
        return;
    }

    n = 0;
    buf_init(&missing, &r->a);

    for (p = arena_str(&r->a, r->rest); p; p = next) {
        next = strchr(p, ',');

        if (next) {
            *next++ = '\0';
        }

        c = list_find(list, p);

        if (c == NULL) {
            buf_puts(&missing, n++ ? ", " : "");
            buf_puts(&missing, p);
        }
    }

    if (n == 0 && c) {
        json_set(c, "id", json_string(&r->a, r->rest));
        reply_json(r, 200, c);

    } else if (strchr(r->rest, ',')) {
        fail_detail(r, 404, arena_printf(&r->a, "The following model(s) do not exist or"
                    " are not accessible: %s", missing.len ? missing.p : ""));

    } else {
        fail_detail(r, 404, arena_printf(&r->a, "The model `%s` does not exist or is not"
                                         " accessible", r->rest));
    }
}
