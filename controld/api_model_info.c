/* /model/info, /v2/model/info, /model_group/info: deployments and what they are. */

#include <inttypes.h>
#include <string.h>
#include <strings.h>
#include "access.h"
#include "api.h"
#include "db.h"
#include "kt_money.h"
#include "model.h"
#include "settings.h"


const arg_t  model_info_args[] = {
    { "litellm_model_id", F_STR, 0 },
    { "include_team_models", F_BOOL, 0 },
    { "teamId", F_STR, 0 },
    { NULL, 0, 0 }
};

const arg_t  model_info_v2_args[] = {
    { "model", F_STR, 0 },
    { "modelId", F_STR, 0 },
    { "search", F_STR, 0 },
    { "user_models_only", F_BOOL, 0 },
    { "include_team_models", F_BOOL, 0 },
    { "teamId", F_STR, 0 },
    { "debug", F_BOOL, 0 },
    { "page", F_INT, 0 },
    { "size", F_INT, 0 },
    { NULL, 0, 0 }
};

const arg_t  model_group_args[] = {
    { "model_group", F_STR, 0 },
    { NULL, 0, 0 }
};


#define INFO_SIZE  500


static void
model_set_price(req_t *r, jv_t *o, const char *name, int64_t pusd)
{
    char  tmp[32];

    if (pusd < 0) {
        json_set(o, name, json_null(&r->a));
        return;
    }

    kt_money_format(pusd, KT_MONEY_PICO, tmp);
    json_set(o, name, json_num(&r->a, tmp));
}


static void
model_set_count(req_t *r, jv_t *o, const char *name, int64_t v)
{
    json_set(o, name, v < 0 ? json_null(&r->a) : json_int(&r->a, v));
}


static jv_t *
model_info_json(req_t *r, const model_t *m, const char *name, const jv_t *groups)
{
    jv_t  *o, *params, *info;

    params = model_params_shown(r, m->params, m->id);

    if (json_get(params, "model") == NULL) {
        json_set(params, "model", json_string(&r->a, m->name));
    }

    info = model_info_shown(r, m->info, m->id);
    json_set(info, "id", json_string(&r->a, m->id));
    json_set(info, "db_model", json_bool(&r->a, !strcmp(m->source, "api")));
    json_set(info, "key", json_string(&r->a, m->upstream ? m->upstream : m->name));
    model_set_count(r, info, "max_tokens", m->max_out);
    model_set_count(r, info, "max_input_tokens", m->max_in);
    model_set_count(r, info, "max_output_tokens", m->max_out);
    model_set_price(r, info, "input_cost_per_token", m->in_pusd);
    model_set_price(r, info, "output_cost_per_token", m->out_pusd);
    model_set_price(r, info, "cache_read_input_token_cost", m->cr_pusd);
    model_set_price(r, info, "cache_creation_input_token_cost", m->cw_pusd);
    json_set(info, "access_groups", json_copy(&r->a, json_get(groups, m->name)));
    json_set(info, "team_id", json_string(&r->a, m->team_id));
    json_set(info, "direct_access", json_bool(&r->a, m->team_id == NULL));
    json_set(info, "litellm_provider", json_string(&r->a, m->provider));
    json_set(info, "mode", json_string(&r->a, m->mode ? m->mode : "chat"));

    o = json_obj(&r->a);
    json_set(o, "model_name", json_string(&r->a, name));
    json_set(o, "litellm_params", params);
    json_set(o, "model_info", info);

    return o;
}


/* Access groups by model; NULL after answering. */

static jv_t *
info_groups(req_t *r)
{
    jv_t        *v;
    PGresult    *res;
    const char  *err;

    res = db_q0("SELECT coalesce(json_object_agg(model_name, g), '{}') FROM (SELECT"
                " model_name, json_agg(DISTINCT group_name) AS g FROM model_groups GROUP"
                " BY model_name) x");

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return NULL;
    }

    v = json_parse_big(&r->a, PQgetvalue(res, 0, 0), (size_t) PQgetlength(res, 0, 0),
                       &err);
    PQclear(res);

    return v;
}


/* The view that the arguments ask for: the caller's, or that of a team of his. */

static int
info_view(req_t *r, model_view_t *v)
{
    const char  *team;

    team = http_arg(r, "teamId");

    return team && *team ? model_view_team(r, v, team) : model_view(r, v);
}


/* Admins see every team's own models; the name that a deployment has for them. */

static const char *
info_name(req_t *r, const model_view_t *v, const model_t *m)
{
    const char  *name;

    if (!v->all) {
        return model_usable(v, m);
    }

    name = json_str(m->info, "team_public_model_name");

    return m->team_id && name ? name : m->name;
}


static int
info_is(const char *arg, const char *value)
{
    return arg == NULL || !*arg || (value && strcmp(arg, value) == 0);
}


static jv_t *
info_list(req_t *r, const char *id, const char *model, const char *search)
{
    int            err;
    jv_t          *list, *groups;
    model_t       *m;
    const char    *name;
    model_view_t   v;

    if (info_view(r, &v) != 0) {
        return NULL;
    }

    m = registry_load_all(&r->a, &err);

    if (err) {
        fail_db(r);
        return NULL;
    }

    groups = info_groups(r);

    if (groups == NULL) {
        return NULL;
    }

    list = json_arr(&r->a);

    for (/* void */; m; m = m->next) {
        name = info_name(r, &v, m);

        if (name && info_is(id, m->id) && info_is(model, name)
            && (search == NULL || !*search || strstr(name, search)))
        {
            json_push(list, model_info_json(r, m, name, groups));
        }
    }

    return list;
}


void
api_model_info(req_t *r)
{
    jv_t        *out, *list;
    const char  *id;

    id = http_arg(r, "litellm_model_id");
    list = info_list(r, id, NULL, NULL);

    if (list == NULL) {
        return;
    }

    if (id && *id && list->n == 0) {
        fail_repr(r, 400, "Model id = %s not found on litellm proxy", id);
        return;
    }

    out = json_obj(&r->a);
    json_set(out, "data", list);
    reply_json(r, 200, out);
}


static int64_t
info_int(req_t *r, const char *name, int64_t def, int64_t max)
{
    int64_t      v;
    const char  *s;

    s = http_arg(r, name);

    return s && *s && kt_int_parse(s, strlen(s), &v) == KT_OK ? v > max ? max : v : def;
}


void
api_model_info_v2(req_t *r)
{
    jv_t        *out, *list, *page, *c, *next;
    int64_t      n, size, at, i;
    const char  *id;

    id = http_arg(r, "modelId");
    list = info_list(r, id, http_arg(r, "model"), http_arg(r, "search"));

    if (list == NULL) {
        return;
    }

    size = info_int(r, "size", 50, INFO_SIZE);
    at = info_int(r, "page", 1, 1000000);
    n = (int64_t) list->n;
    page = json_arr(&r->a);

    for (c = list->head, i = 0; c; c = next, i++) {
        next = c->next;

        if (i >= (at - 1) * size && i < at * size) {
            json_push(page, c);
        }
    }

    out = json_obj(&r->a);
    json_set(out, "data", page);
    json_set(out, "total_count", json_int(&r->a, n));
    json_set(out, "current_page", json_int(&r->a, at));
    json_set(out, "total_pages", json_int(&r->a, (n + size - 1) / size));
    json_set(out, "size", json_int(&r->a, size));
    reply_json(r, 200, out);
}


/* ---------------------------------------------------------------- model groups */


static const char *const  info_supports[] = {
    "supports_parallel_function_calling", "supports_vision", "supports_web_search",
    "supports_url_context", "supports_reasoning", "supports_function_calling"
};


static void
info_group_add(req_t *r, jv_t *o, const model_t *m)
{
    size_t       i;
    jv_t        *list, *c;
    const jv_t  *v;
    const char  *p;

    list = json_get(o, "providers");
    p = m->provider ? m->provider : "";

    for (c = list->head; c && strcmp(c->s, p); c = c->next) { /* void */ }

    if (c == NULL && *p) {
        json_push(list, json_string(&r->a, p));
    }

    for (i = 0; i < sizeof(info_supports) / sizeof(info_supports[0]); i++) {
        v = json_get(m->info, info_supports[i]);

        if (v && v->type == J_TRUE) {
            json_set(o, info_supports[i], json_bool(&r->a, 1));
        }
    }
}


static void
info_group_limit(req_t *r, jv_t *o, const model_t *m, const char *name)
{
    int64_t      have, add;
    const jv_t  *v;

    add = registry_count(m->params, name);
    v = json_get(o, name);
    have = v && v->type == J_NUM && kt_int_parse(v->s, v->len, &have) == KT_OK ? have : 0;

    if (add >= 0) {
        json_set(o, name, json_int(&r->a, have + add));
    }
}


static int
info_public(const jv_t *groups, const char *name)
{
    const jv_t  *c;

    for (c = groups && groups->type == J_ARR ? groups->head : NULL; c; c = c->next) {
        if (c->type == J_STR && strcmp(c->s, name) == 0) {
            return 1;
        }
    }

    return 0;
}


static jv_t *
info_group(req_t *r, const model_t *m, const char *name, const jv_t *public_groups)
{
    jv_t    *o;
    size_t   i;

    o = json_obj(&r->a);
    json_set(o, "model_group", json_string(&r->a, name));
    json_set(o, "providers", json_arr(&r->a));
    model_set_count(r, o, "max_input_tokens", m->max_in);
    model_set_count(r, o, "max_output_tokens", m->max_out);
    model_set_price(r, o, "input_cost_per_token", m->in_pusd);
    model_set_price(r, o, "output_cost_per_token", m->out_pusd);
    json_set(o, "mode", json_string(&r->a, m->mode ? m->mode : "chat"));
    json_set(o, "tpm", json_null(&r->a));
    json_set(o, "rpm", json_null(&r->a));

    for (i = 0; i < sizeof(info_supports) / sizeof(info_supports[0]); i++) {
        json_set(o, info_supports[i], json_bool(&r->a, 0));
    }

    json_set(o, "supported_openai_params", json_arr(&r->a));
    json_set(o, "configurable_clientside_auth_params", json_null(&r->a));
    json_set(o, "is_public_model_group",
             json_bool(&r->a, info_public(public_groups, name)));
    json_set(o, "health_status", json_null(&r->a));

    return o;
}


/* Deployments of one name stand behind each other. */

void
api_model_group_info(req_t *r)
{
    int            err;
    jv_t          *out, *list, *o;
    model_t       *m;
    const jv_t    *public_groups;
    const char    *name, *asked, *last;
    model_view_t   v;

    asked = http_arg(r, "model_group");

    if (model_view(r, &v) != 0) {
        return;
    }

    public_groups = settings_get(r, "public_model_groups");
    m = r->status ? NULL : registry_load_all(&r->a, &err);

    if (r->status) {
        return;
    }

    if (err) {
        fail_db(r);
        return;
    }

    list = json_arr(&r->a);
    last = NULL;
    o = NULL;

    for (/* void */; m; m = m->next) {
        name = info_name(r, &v, m);

        if (name == NULL || !info_is(asked, name)) {
            continue;
        }

        if (last == NULL || strcmp(last, name) != 0) {
            o = info_group(r, m, name, public_groups);
            json_push(list, o);
            last = name;
        }

        info_group_add(r, o, m);
        info_group_limit(r, o, m, "tpm");
        info_group_limit(r, o, m, "rpm");
    }

    out = json_obj(&r->a);
    json_set(out, "data", list);
    reply_json(r, 200, out);
}
