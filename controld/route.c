#include <stdio.h>
#include <string.h>
#include "api.h"
#include "log.h"
#include "route.h"


static const route_t  routes[] = {
    { "GET",  "/health/liveliness", api_alive, 0 },
    { "GET",  "/health/liveness", api_alive, 0 },
    { "GET",  "/health/readiness", api_ready, 0 },
    { "GET",  "/metrics", api_metrics, 0 },
    { "POST", "/key/generate", api_key_generate, 1 },
    { "POST", "/key/update", api_key_update, 1 },
    { "POST", "/key/delete", api_key_delete, 1 },
    { "GET",  "/key/info", api_key_info, 0 },
    { "GET",  "/key/list", api_key_list, 0 },
    { "POST", "/key/block", api_key_block, 1 },
    { "POST", "/key/unblock", api_key_unblock, 1 },
    { "POST", "/user/new", api_user_new, 1 },
    { "GET",  "/user/info", api_user_info, 0 },
    { "POST", "/team/new", api_team_new, 1 },
    { "POST", "/team/update", api_team_update, 1 },
    { "GET",  "/team/info", api_team_info, 0 },
    { "POST", "/team/block", api_team_block, 1 },
    { "POST", "/team/unblock", api_team_unblock, 1 },
    { "POST", "/model/new", api_model_new, 1 },
    { "POST", "/model/delete", api_model_delete, 1 },
    { "GET",  "/model/info", api_model_info, 0 },
    { "GET",  "/v1/model/info", api_model_info, 0 },
    { "GET",  "/models", api_models, 0 },
    { "GET",  "/v1/models", api_models, 0 },
    { "GET",  "/models/*", api_models_one, 0 },
    { "GET",  "/v1/models/*", api_models_one, 0 },
    { "GET",  "/spend/logs", api_spend_logs, 0 },
    { "POST", "/customer/new", api_customer_new, 1 },
    { "GET",  "/customer/info", api_customer_info, 0 },
    { "POST", "/customer/update", api_customer_update, 1 },
    { "POST", "/customer/delete", api_customer_delete, 1 },
    { "GET",  "/customer/list", api_customer_list, 0 },
    { "POST", "/customer/block", api_customer_block, 1 },
    { "POST", "/customer/unblock", api_customer_unblock, 1 },
    { "POST", "/end_user/new", api_customer_new, 1 },
    { "GET",  "/end_user/info", api_customer_info, 0 },
    { "POST", "/end_user/update", api_customer_update, 1 },
    { "POST", "/end_user/delete", api_customer_delete, 1 },
    { "GET",  "/end_user/list", api_customer_list, 0 },
    { "POST", "/end_user/block", api_customer_block, 1 },
    { "POST", "/end_user/unblock", api_customer_unblock, 1 },
    { "POST", "/budget/new", api_budget_new, 1 },
    { "POST", "/budget/update", api_budget_update, 1 },
    { "POST", "/budget/info", api_budget_info, 1 },
    { "GET",  "/budget/settings", api_budget_settings, 0 },
    { "GET",  "/budget/list", api_budget_list, 0 },
    { "POST", "/budget/delete", api_budget_delete, 1 },
    { "POST", "/tag/new", api_tag_new, 1 },
    { "POST", "/tag/update", api_tag_update, 1 },
    { "POST", "/tag/delete", api_tag_delete, 1 },
    { "POST", "/tag/info", api_tag_info, 1 },
    { "GET",  "/tag/list", api_tag_list, 0 },
    { "POST", "/organization/new", api_organization_new, 1 },
    { "PATCH", "/organization/update", api_organization_update, 1 },
    { "DELETE", "/organization/delete", api_organization_delete, 1 },
    { "GET",  "/organization/list", api_organization_list, 0 },
    { "GET",  "/organization/info", api_organization_info, 0 },
    { "POST", "/organization/info", api_organization_info_list, 1 }
};

static const struct {
    const char    *path;
    auth_level_t   level;
} route_auth[] = {
    { "/health/liveliness", AUTH_PUBLIC },
    { "/health/liveness", AUTH_PUBLIC },
    { "/health/readiness", AUTH_PUBLIC },
    { "/metrics", AUTH_PUBLIC },
    { "/key/generate", AUTH_ADMIN },
    { "/key/update", AUTH_ADMIN },
    { "/key/delete", AUTH_ADMIN },
    { "/key/info", AUTH_ANY_KEY },            /* its own row only              */
    { "/key/list", AUTH_ADMIN },
    { "/key/block", AUTH_ADMIN },
    { "/key/unblock", AUTH_ADMIN },
    { "/user/new", AUTH_ADMIN },
    { "/user/info", AUTH_ADMIN },
    { "/team/new", AUTH_ADMIN },
    { "/team/update", AUTH_ADMIN },
    { "/team/info", AUTH_ADMIN },
    { "/team/block", AUTH_ADMIN },
    { "/team/unblock", AUTH_ADMIN },
    { "/model/new", AUTH_ADMIN },
    { "/model/delete", AUTH_ADMIN },
    { "/model/info", AUTH_ADMIN },
    { "/v1/model/info", AUTH_ADMIN },
    { "/models", AUTH_ANY_KEY },
    { "/v1/models", AUTH_ANY_KEY },
    { "/models/*", AUTH_ANY_KEY },
    { "/v1/models/*", AUTH_ANY_KEY },
    { "/spend/logs", AUTH_ADMIN },
    { "/customer/new", AUTH_ADMIN },
    { "/customer/info", AUTH_ADMIN },
    { "/customer/update", AUTH_ADMIN },
    { "/customer/delete", AUTH_ADMIN },
    { "/customer/list", AUTH_ADMIN },
    { "/customer/block", AUTH_ADMIN },
    { "/customer/unblock", AUTH_ADMIN },
    { "/end_user/new", AUTH_ADMIN },
    { "/end_user/info", AUTH_ADMIN },
    { "/end_user/update", AUTH_ADMIN },
    { "/end_user/delete", AUTH_ADMIN },
    { "/end_user/list", AUTH_ADMIN },
    { "/end_user/block", AUTH_ADMIN },
    { "/end_user/unblock", AUTH_ADMIN },
    { "/budget/new", AUTH_ADMIN },
    { "/budget/update", AUTH_ADMIN },
    { "/budget/info", AUTH_ADMIN },
    { "/budget/settings", AUTH_ADMIN },
    { "/budget/list", AUTH_ADMIN },
    { "/budget/delete", AUTH_ADMIN },
    { "/tag/new", AUTH_ADMIN },
    { "/tag/update", AUTH_ADMIN },
    { "/tag/delete", AUTH_ADMIN },
    { "/tag/info", AUTH_ADMIN },
    { "/tag/list", AUTH_ADMIN },
    { "/organization/new", AUTH_ADMIN },
    { "/organization/update", AUTH_ADMIN },
    { "/organization/delete", AUTH_ADMIN },
    { "/organization/list", AUTH_ADMIN },
    { "/organization/info", AUTH_ADMIN }
};


static auth_level_t
route_level(const char *path)
{
    size_t  i;

    for (i = 0; i < sizeof(route_auth) / sizeof(route_auth[0]); i++) {
        if (strcmp(route_auth[i].path, path) == 0) {
            return route_auth[i].level;
        }
    }

    return 0;
}


int
route_check(void)
{
    size_t  i;

    for (i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (route_level(routes[i].path) == 0) {
            log_event(LOG_FATAL, "a route has no authorization row", "path",
                      routes[i].path, NULL);
            return -1;
        }
    }

    return 0;
}


static int
route_match(const route_t *t, req_t *r)
{
    size_t  n;

    n = strlen(t->path);

    if (t->path[n - 1] != '*') {
        return strcmp(t->path, r->path) == 0;
    }

    if (strncmp(t->path, r->path, n - 1) != 0 || r->path[n - 1] == '\0') {
        return 0;
    }

    r->rest = r->path + n - 1;

    return 1;
}


static int
route_body(req_t *r)
{
    const char  *err;

    if (r->body.len == 0) {
        fail_field(r, NULL, "missing", "Field required", NULL);
        return -1;
    }

    r->json = json_parse(&r->a, r->body.p, r->body.len, &err);

    if (r->json == NULL && strcmp(err, "not valid JSON") != 0) {
        fail_proxy(r, 400, "bad_request_error", "request_body", "%s", err);
        return -1;
    }

    if (r->json == NULL) {
        fail_field(r, NULL, "json_invalid", "JSON decode error",
                   json_obj(&r->a));
        return -1;
    }

    if (r->json->type != J_OBJ) {
        fail_field(r, NULL, "model_attributes_type", "Input should be a valid"
                   " dictionary or object to extract fields from", r->json);
        return -1;
    }

    return 0;
}


void
route_run(req_t *r)
{
    size_t          i;
    int             other;
    const route_t  *t;

    other = 0;

    for (i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        t = &routes[i];

        if (!route_match(t, r)) {
            continue;
        }

        if (strcmp(t->method, r->method) != 0
            && !(strcmp(r->method, "HEAD") == 0 && strcmp(t->method, "GET") == 0))
        {
            other = 1;
            continue;
        }

        if (auth_check(r, route_level(t->path)) != 0
            || (t->body && route_body(r) != 0))
        {
            return;
        }

        t->fn(r);
        return;
    }

    if (other) {
        fail_detail(r, 405, "Method Not Allowed");
    } else {
        fail_detail(r, 404, "Not Found");
    }
}
