/*
 * Defaults of new users and teams: /get/... shows them, /update/... saves them in
 * PostgreSQL.  What the configuration file declares can only be changed there.
 */

#include <string.h>
#include "api.h"
#include "conf.h"
#include "db.h"
#include "settings.h"
#include "tx.h"


typedef struct {
    const char     *setting;
    const char     *title;               /* "Internal user settings"          */
    const char     *what;
    const field_t  *fields;
    const char     *about[8];            /* of each field                     */
} group_t;


const field_t  user_settings_body[] = {
    { "user_role", F_ENUM, NULL, 0, "proxy_admin|proxy_admin_viewer|internal_user|"
      "internal_user_viewer" },
    { "max_budget", F_USD, NULL, 0 },
    { "budget_duration", F_PERIOD, NULL, 0 },
    { "models", F_STRS, NULL, 0 },
    { "teams", F_LIST, NULL, 0 },
    { "available_teams", F_STRS, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  team_settings_body[] = {
    { "max_budget", F_USD, NULL, 0 },
    { "budget_duration", F_PERIOD, NULL, 0 },
    { "models", F_STRS, NULL, 0 },
    { "tpm_limit", F_INT, NULL, 0 },
    { "rpm_limit", F_INT, NULL, 0 },
    { "team_member_permissions", F_STRS, NULL, 0 },
    { "organization_id", F_ID, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  ui_settings_body[] = {
    { "enabled_ui_pages_internal_users", F_STRS, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  ui_theme_body[] = {
    { "logo_url", F_STR, NULL, 0 },
    { "favicon_url", F_STR, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

static const group_t  settings_ui = {
    "ui_settings", "UI settings", "What the dashboard shows", ui_settings_body,
    { "Pages that internal users see" }
};

static const group_t  settings_theme = {
    "ui_theme_config", "UI theme settings", "How the dashboard looks", ui_theme_body,
    { "Address of the logo", "Address of the icon" }
};

static const group_t  settings_users = {
    "default_internal_user_params", "Internal user settings",
    "Defaults of new internal users", user_settings_body,
    { "Role of new users", "Budget in USD", "Period of the budget, such as 30d or 1mo",
      "Models that new users may call", "Teams that new users come into",
      "Teams that users may join by themselves" }
};

static const group_t  settings_teams = {
    "default_team_params", "Default team settings", "Defaults of new teams",
    team_settings_body,
    { "Budget in USD", "Period of the budget, such as 30d or 1mo",
      "Models that new teams may call", "Tokens per minute", "Requests per minute",
      "What members may do", "Organization of new teams" }
};


static const char *
settings_type(ftype_t type)
{
    return type == F_USD ? "number" : type == F_INT ? "integer"
           : type == F_STRS || type == F_LIST ? "array" : "string";
}


static jv_t *
settings_schema(req_t *r, const group_t *g)
{
    jv_t    *props, *p, *o;
    size_t   i;

    props = json_obj(&r->a);

    for (i = 0; g->fields[i].name; i++) {
        p = json_obj(&r->a);
        json_set(p, "description", json_string(&r->a, g->about[i]));
        json_set(p, "type", json_string(&r->a, settings_type(g->fields[i].type)));
        json_set(props, g->fields[i].name, p);
    }

    o = json_obj(&r->a);
    json_set(o, "description", json_string(&r->a, g->what));
    json_set(o, "properties", props);

    return o;
}


static void
settings_show(req_t *r, const group_t *g)
{
    jv_t        *values, *out;
    size_t       i;
    const jv_t  *v, *set;

    v = settings_get(r, g->setting);

    if (r->status) {
        return;
    }

    values = json_obj(&r->a);

    for (i = 0; g->fields[i].name; i++) {
        set = json_get(v, g->fields[i].name);
        json_set(values, g->fields[i].name, json_copy(&r->a, set));
    }

    out = json_obj(&r->a);
    json_set(out, "values", values);
    json_set(out, "field_schema", settings_schema(r, g));
    json_set(out, "source", json_string(&r->a, settings_in_file(g->setting) ? "config"
                                        : v ? "database" : "default"));
    json_set(out, "editable", json_bool(&r->a, !settings_in_file(g->setting)));
    reply_json(r, 200, out);
}


/* Teams that new users come into must be there. */

static int
settings_teams_known(req_t *r)
{
    PGresult    *res;
    const jv_t  *c;
    const char  *id;

    c = json_get(r->json, "teams");

    for (c = c && c->type == J_ARR ? c->head : NULL; c; c = c->next) {
        id = c->type == J_STR ? c->s : json_str(c, "team_id");

        if (id == NULL) {
            fail_field(r, "teams", "string_type", "Input should be a team id, or an"
                       " object with team_id", c);
            return -1;
        }

        res = tx_q(r, "SELECT 1 FROM teams WHERE team_id = $1 AND NOT implicit", id);

        if (res == NULL) {
            return -1;
        }

        if (PQntuples(res) == 0) {
            PQclear(res);
            fail_detail_error(r, 400, "Team not found, passed team_id=%s", id);
            return -1;
        }

        PQclear(res);
    }

    return 0;
}


static void
settings_save(req_t *r, const group_t *g)
{
    jv_t        *value, *out;
    size_t       i;
    const jv_t  *v, *old;

    if (settings_in_file(g->setting)) {
        fail_detail_error(r, 400, "%s is set in %s and can only be changed there",
                          g->setting, conf.path ? conf.path : "the environment");
        return;
    }

    if (tx_begin(r) != 0 || settings_teams_known(r) != 0) {
        return;
    }

    old = settings_get(r, g->setting);

    if (r->status) {
        return;
    }

    value = json_obj(&r->a);

    for (i = 0; g->fields[i].name; i++) {
        v = json_get(r->json, g->fields[i].name);
        v = v ? v : json_get(old, g->fields[i].name);

        if (!json_is_null(v)) {
            json_set(value, g->fields[i].name, json_copy(&r->a, v));
        }
    }

    if (settings_put(r, g->setting, value) != 0 || tx_commit(r) != 0) {
        return;
    }

    out = json_obj(&r->a);
    json_set(out, "message", json_string(&r->a, arena_printf(&r->a, "%s updated"
                                                " successfully", g->title)));
    json_set(out, "status", json_string(&r->a, "success"));
    json_set(out, "settings", value);
    reply_json(r, 200, out);
}


void
api_user_settings(req_t *r)
{
    settings_show(r, &settings_users);
}


void
api_user_settings_update(req_t *r)
{
    settings_save(r, &settings_users);
}


void
api_team_settings(req_t *r)
{
    settings_show(r, &settings_teams);
}


void
api_team_settings_update(req_t *r)
{
    settings_save(r, &settings_teams);
}


void
api_ui_settings(req_t *r)
{
    settings_show(r, &settings_ui);
}


void
api_ui_settings_update(req_t *r)
{
    settings_save(r, &settings_ui);
}


void
api_ui_theme(req_t *r)
{
    settings_show(r, &settings_theme);
}


/* Addresses that a browser loads: nothing that it would run. */

void
api_ui_theme_update(req_t *r)
{
    const jv_t     *v;
    const field_t  *f;

    for (f = ui_theme_body; f->name; f++) {
        v = json_get(r->json, f->name);

        if (v && v->type == J_STR && *v->s && strncmp(v->s, "https://", 8)
            && strncmp(v->s, "http://", 7) && (*v->s != '/' || v->s[1] == '/'))
        {
            fail_detail_error(r, 400, "%s must begin with https:// or /", f->name);
            return;
        }
    }

    settings_save(r, &settings_theme);
}
