/*
 * /config/...: settings of LiteLLM by name.  The file owns what it declares; what has no
 * effect, or only in the file, is refused instead of kept for show.
 */

#include <string.h>
#include "api.h"
#include "conf.h"
#include "conf_keys.h"
#include "kt_duration.h"
#include "kt_money.h"
#include "settings.h"
#include "tx.h"


const field_t  config_update_body[] = {
    { "general_settings", F_OBJ, NULL, 0 },
    { "litellm_settings", F_OBJ, NULL, 0 },
    { "router_settings", F_OBJ, NULL, 0 },
    { "environment_variables", F_OBJ, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  config_field_body[] = {
    { "field_name", F_STR, NULL, F_REQUIRED },
    { "field_value", F_ANY, NULL, F_REQUIRED },
    { "config_type", F_ENUM, NULL, F_REQUIRED, "general_settings" },
    { NULL, 0, NULL, 0 }
};

const field_t  config_delete_body[] = {
    { "field_name", F_STR, NULL, F_REQUIRED },
    { "config_type", F_ENUM, NULL, F_REQUIRED, "general_settings" },
    { NULL, 0, NULL, 0 }
};

const arg_t  config_field_args[] = {
    { "field_name", F_STR, F_REQUIRED },
    { NULL, 0, 0 }
};

const arg_t  config_list_args[] = {
    { "config_type", F_STR, F_REQUIRED },
    { NULL, 0, 0 }
};

const arg_t  health_services_args[] = {
    { "service", F_STR, F_REQUIRED },
    { NULL, 0, 0 }
};


/* Whether a value has the type of a setting. */

static int
config_fits(const conf_key_t *key, const jv_t *v)
{
    int64_t            n;
    const jv_t        *c;
    kt_duration_t      d;
    const conf_key_t  *sub;

    switch (key->type) {

    case C_BOOL:
        return v->type == J_TRUE || v->type == J_FALSE;

    case C_INT:
        return v->type == J_NUM && kt_int_parse(v->s, v->len, &n) == KT_OK
               && n >= key->min && n <= key->max;

    case C_USD:
        return v->type == J_NUM && kt_money_parse(v->s, v->len, KT_MONEY_USD, &n) == KT_OK
               && n >= 0;

    case C_DURATION:
        return v->type == J_STR && kt_duration_parse(v->s, v->len, &d) == KT_OK;

    case C_STR:
        return v->type == J_STR;

    case C_LIST:
        return v->type == J_ARR;

    case C_STRS:
        for (c = v->type == J_ARR ? v->head : NULL; c && c->type == J_STR; c = c->next) {
            /* void */
        }
        return v->type == J_ARR && c == NULL;

    case C_OBJ:
        for (c = v->type == J_OBJ && key->sub ? v->head : NULL; c; c = c->next) {
            for (sub = key->sub; sub->name && strcmp(sub->name, c->key); sub++) {
                /* void */
            }

            if (sub->name == NULL || (!json_is_null(c) && !config_fits(sub, c))) {
                return 0;
            }
        }
        return v->type == J_OBJ;

    default:
        return 0;
    }
}


/* What keeps a name from being set over the API; -1 after answering. */

static int
config_allowed(req_t *r, const conf_key_t *key, const char *name, const jv_t *v)
{
    if (key == NULL) {
        fail_detail_error(r, 400, "Invalid field=%.255s passed in.", name);

    } else if (settings_in_file(name)) {
        fail_detail_error(r, 400, "%s is set in %s and can only be changed there", name,
                          conf.path ? conf.path : "the environment");

    } else if (key->flags & K_GUARD) {
        fail_detail_error(r, 400, "%s asks for what Keytoll does not do", name);

    } else if (key->flags & K_NONE) {
        fail_detail_error(r, 400, "%s would have no effect: %s", name, key->note);

    } else if (key->out || (key->flags & (K_SECRET | K_FILE))) {
        fail_detail_error(r, 400, "%s can only be set in the configuration file", name);

    } else if (v && !config_fits(key, v)) {
        fail_detail_error(r, 400, "Invalid type of field value=%.200s for field=%s",
                          json_text(&r->a, v), name);

    } else {
        return 0;
    }

    return -1;
}


static int
config_check(req_t *r, const char *section)
{
    const jv_t  *c;

    c = json_get(r->json, section);

    for (c = c ? c->head : NULL; c; c = c->next) {
        if (config_allowed(r, conf_key_find(section, c->key), c->key,
                           json_is_null(c) ? NULL : c) != 0)
        {
            return -1;
        }
    }

    return 0;
}


static int
config_save(req_t *r, const char *section)
{
    const jv_t  *c;

    c = json_get(r->json, section);

    for (c = c ? c->head : NULL; c; c = c->next) {
        if (settings_put(r, c->key, json_is_null(c) ? NULL : c) != 0) {
            return -1;
        }
    }

    return 0;
}


static void
config_message(req_t *r, const char *text)
{
    jv_t  *o;

    o = json_obj(&r->a);
    json_set(o, "message", json_string(&r->a, text));
    reply_json(r, 200, o);
}


void
api_config_update(req_t *r)
{
    const jv_t  *v;

    v = json_get(r->json, "environment_variables");

    if (!json_is_null(v) && v->n) {
        fail_detail_error(r, 400, "environment_variables can only be set in the"
                          " configuration file");
        return;
    }

    if (config_check(r, "general_settings") != 0 || config_check(r, "litellm_settings") != 0
        || config_check(r, "router_settings") != 0 || tx_begin(r) != 0
        || config_save(r, "general_settings") != 0
        || config_save(r, "litellm_settings") != 0 || tx_commit(r) != 0)
    {
        return;
    }

    config_message(r, "Config updated successfully");
}


static void
config_put(req_t *r, const jv_t *value)
{
    jv_t        *o, *p;
    const char  *name;

    name = json_str(r->json, "field_name");

    if (config_allowed(r, conf_key_find("general_settings", name), name, value) != 0
        || tx_begin(r) != 0 || settings_put(r, name, value) != 0 || tx_commit(r) != 0)
    {
        return;
    }

    p = json_obj(&r->a);
    json_set(p, name, json_copy(&r->a, value));
    o = json_obj(&r->a);
    json_set(o, "param_name", json_string(&r->a, "general_settings"));
    json_set(o, "param_value", p);
    reply_json(r, 200, o);
}


void
api_config_field_update(req_t *r)
{
    config_put(r, json_get(r->json, "field_value"));
}


void
api_config_field_delete(req_t *r)
{
    config_put(r, NULL);
}


static const char *
config_type(conf_type_t type)
{
    switch (type) {

    case C_BOOL:
        return "Boolean";

    case C_INT:
        return "Integer";

    case C_USD:
        return "Float";

    case C_STRS:
    case C_LIST:
        return "List";

    case C_OBJ:
        return "Object";

    default:
        return "String";
    }
}


void
api_config_field_info(req_t *r)
{
    jv_t              *o;
    const jv_t        *v;
    const char        *name;
    const conf_key_t  *key;

    name = http_arg(r, "field_name");
    key = conf_key_find("general_settings", name);

    if (key == NULL || (key->flags & K_SECRET)) {
        fail_detail_error(r, 400, "Invalid field=%.255s passed in.", name);
        return;
    }

    v = settings_get(r, name);

    if (r->status) {
        return;
    }

    if (v == NULL) {
        fail_detail_error(r, 400, "Field name=%s not in DB", name);
        return;
    }

    o = json_obj(&r->a);
    json_set(o, "field_name", json_string(&r->a, name));
    json_set(o, "field_value", json_copy(&r->a, v));
    json_set(o, "source", json_string(&r->a, settings_in_file(name) ? "config"
                                                                    : "database"));
    json_set(o, "editable", json_bool(&r->a, !settings_in_file(name)));
    reply_json(r, 200, o);
}


static jv_t *
config_entry(req_t *r, const conf_key_t *key)
{
    jv_t        *o;
    const jv_t  *v;

    v = settings_get(r, key->name);
    o = json_obj(&r->a);
    json_set(o, "field_name", json_string(&r->a, key->name));
    json_set(o, "field_type", json_string(&r->a, config_type(key->type)));
    json_set(o, "field_description", json_string(&r->a, key->note ? key->note : ""));
    json_set(o, "field_value", json_copy(&r->a, v));
    json_set(o, "stored_in_db", v && !settings_in_file(key->name)
                                ? json_bool(&r->a, 1) : v ? json_bool(&r->a, 0)
                                                          : json_null(&r->a));
    json_set(o, "field_default_value", json_null(&r->a));
    json_set(o, "source", json_string(&r->a, settings_in_file(key->name) ? "config"
                                             : v ? "database" : "default"));
    json_set(o, "editable", json_bool(&r->a, !settings_in_file(key->name) && !key->flags
                                             && key->out == 0));

    return o;
}


void
api_config_list(req_t *r)
{
    jv_t              *list;
    const conf_key_t  *s, *key;

    if (strcmp(http_arg(r, "config_type"), "general_settings") != 0) {
        fail_arg(r, "config_type", "literal_error", "Input should be 'general_settings'",
                 http_arg(r, "config_type"));
        return;
    }

    list = json_arr(&r->a);

    for (s = conf_keys; s->name; s++) {
        if (strcmp(s->name, "general_settings") != 0) {
            continue;
        }

        for (key = s->sub; key->name && r->status == 0; key++) {
            if (!(key->flags & (K_SECRET | K_NONE | K_GUARD))) {
                json_push(list, config_entry(r, key));
            }
        }
    }

    reply_json(r, 200, list);
}


/* A sample, as LiteLLM has it. */

void
api_config_yaml(req_t *r)
{
    jv_t  *o;

    o = json_obj(&r->a);
    json_set(o, "hello", json_string(&r->a, "world"));
    reply_json(r, 200, o);
}


/* There are no callbacks: what happened is in the ledger. */

void
api_config_callbacks(req_t *r)
{
    jv_t  *o;

    o = json_obj(&r->a);
    json_set(o, "status", json_string(&r->a, "success"));
    json_set(o, "callbacks", json_arr(&r->a));
    json_set(o, "alerts", json_arr(&r->a));
    json_set(o, "router_settings", json_obj(&r->a));
    json_set(o, "available_callbacks", json_obj(&r->a));
    reply_json(r, 200, o);
}


void
api_health_services(req_t *r)
{
    fail_detail_error(r, 501, "Keytoll sends nothing to the service %.60s",
                      http_arg(r, "service"));
}


/* Budgets of providers are refused in the configuration, so there are none. */

void
api_provider_budgets(req_t *r)
{
    jv_t  *o;

    o = json_obj(&r->a);
    json_set(o, "providers", json_obj(&r->a));
    reply_json(r, 200, o);
}


void
api_routes(req_t *r)
{
    jv_t           *o, *list, *e, *methods;
    const route_t  *t;

    list = json_arr(&r->a);

    for (t = routes; t->method; t++) {
        methods = json_arr(&r->a);
        json_push(methods, json_string(&r->a, t->method));
        e = json_obj(&r->a);
        json_set(e, "path", json_string(&r->a, t->path));
        json_set(e, "methods", methods);
        json_set(e, "name", json_string(&r->a, t->what));
        json_push(list, e);
    }

    o = json_obj(&r->a);
    json_set(o, "routes", list);
    reply_json(r, 200, o);
}
