/*
 * Who may call what, one row per route, deny by default.  Groups are those of
 * litellm-api 0.5; access_gate() has what each role may.
 */

#include <string.h>
#include "access.h"


#define PUBLIC_READ   (G_PUBLIC | G_READ)
#define INFO          (G_INFO | G_READ)
#define ADMIN_READ    (G_MANAGE | G_READ)
#define ORG_MANAGE    (G_MANAGE | G_ORG)
#define SELF_READ     (G_SELF | G_READ)
#define SPEND_OWN     (G_SPEND | G_READ)
#define SPEND_SOME    (G_SPEND_USER | G_READ)
#define SPEND_REST    (G_SPEND_ALL | G_READ)


const access_t  access_rows[] = {

    /* health */
    { "GET", "/health/liveliness", PUBLIC_READ, SCOPE_NONE, 0 },
    { "GET", "/health/liveness", PUBLIC_READ, SCOPE_NONE, 0 },
    { "GET", "/health/readiness", PUBLIC_READ, SCOPE_NONE, 0 },
    { "GET", "/metrics", PUBLIC_READ, SCOPE_NONE, 0 },

    /* keys */
    { "POST", "/key/generate", G_KEY | G_ORG, SCOPE_OBJECT, 0 },
    { "POST", "/key/update", G_KEY | G_ORG, SCOPE_OBJECT, 0 },
    { "POST", "/key/delete", G_KEY, SCOPE_OBJECT, 0 },
    { "GET", "/key/info", INFO, SCOPE_OBJECT, 0 },
    { "GET", "/key/list", INFO, SCOPE_OBJECT, 0 },
    { "POST", "/key/block", G_KEY, SCOPE_OBJECT, 0 },
    { "POST", "/key/unblock", G_KEY, SCOPE_OBJECT, 0 },
    { "POST", "/key/service-account/generate", G_KEY, SCOPE_OBJECT, 0 },
    { "POST", "/key/bulk_update", G_KEY, SCOPE_OBJECT, 0 },
    { "POST", "/team/key/bulk_update", G_KEY, SCOPE_OBJECT, 0 },
    { "POST", "/key/regenerate", G_KEY | G_ORG, SCOPE_OBJECT, 0 },
    { "POST", "/key/{key}/regenerate", G_KEY | G_ORG, SCOPE_OBJECT, 0 },
    { "POST", "/key/{key}/reset_spend", G_KEY, SCOPE_OBJECT, 0 },
    { "POST", "/key/health", INFO, SCOPE_OBJECT, 0 },
    { "GET", "/key/aliases", INFO, SCOPE_OBJECT, 0 },
    { "POST", "/v2/key/info", INFO, SCOPE_OBJECT, 0 },

    /* users */
    { "POST", "/user/new", G_MANAGE, SCOPE_NONE, 0 },
    { "GET", "/user/info", INFO, SCOPE_OBJECT, 0 },
    { "GET", "/v2/user/info", INFO, SCOPE_OBJECT, 0 },
    { "POST", "/user/update", G_MANAGE, SCOPE_OBJECT, 0 },
    { "POST", "/user/bulk_update", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/user/delete", G_MANAGE, SCOPE_NONE, 0 },
    { "GET", "/user/list", G_SELF | G_READ, SCOPE_OBJECT, 0 },
    { "GET", "/user/get_users", G_SELF | G_READ, SCOPE_OBJECT, 0 },
    { "GET", "/user/filter/ui", G_SELF | G_READ, SCOPE_OBJECT, 0 },
    { "GET", "/user/available_roles", INFO, SCOPE_OBJECT, 0 },
    { "GET", "/user/available_users", ADMIN_READ, SCOPE_NONE, 0 },

    /* teams */
    { "POST", "/team/new", ORG_MANAGE, SCOPE_OBJECT, ORG_NONE },
    { "POST", "/team/update", ORG_MANAGE, SCOPE_OBJECT, ORG_TEAM },
    { "GET", "/team/info", INFO, SCOPE_OBJECT, 0 },
    { "PATCH", "/team/{team_id}", ORG_MANAGE, SCOPE_OBJECT, ORG_TEAM },
    { "POST", "/team/delete", ORG_MANAGE, SCOPE_OBJECT, ORG_TEAM },
    { "GET", "/team/list", INFO, SCOPE_OBJECT, 0 },
    { "GET", "/v2/team/list", INFO, SCOPE_OBJECT, 0 },
    { "GET", "/team/filter/ui", INFO, SCOPE_OBJECT, 0 },
    { "GET", "/team/available", INFO, SCOPE_OBJECT, 0 },
    { "GET", "/team/{team_id}/members/me", INFO, SCOPE_OBJECT, 0 },
    { "POST", "/team/member_add", G_SELF, SCOPE_OBJECT, 0 },
    { "POST", "/team/bulk_member_add", G_SELF, SCOPE_OBJECT, 0 },
    { "POST", "/team/member_update", G_SELF, SCOPE_OBJECT, 0 },
    { "POST", "/team/member_delete", G_SELF, SCOPE_OBJECT, 0 },
    { "POST", "/team/{team_id}/member/{user_id}/reset_spend", G_SELF, SCOPE_OBJECT, 0 },
    { "GET", "/team/permissions_list", G_SELF | G_READ, SCOPE_OBJECT, 0 },
    { "POST", "/team/permissions_update", G_SELF, SCOPE_OBJECT, 0 },
    { "POST", "/team/permissions_bulk_update", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/team/model/add", G_SELF, SCOPE_OBJECT, 0 },
    { "POST", "/team/model/delete", G_SELF, SCOPE_OBJECT, 0 },
    { "POST", "/team/block", ORG_MANAGE, SCOPE_OBJECT, ORG_TEAM },
    { "POST", "/team/unblock", ORG_MANAGE, SCOPE_OBJECT, ORG_TEAM },

    /* organizations */
    { "POST", "/organization/new", G_MANAGE, SCOPE_NONE, 0 },
    { "PATCH", "/organization/update", G_MANAGE, SCOPE_NONE, 0 },
    { "DELETE", "/organization/delete", G_MANAGE, SCOPE_NONE, 0 },
    { "GET", "/organization/list", INFO, SCOPE_OBJECT, 0 },
    { "GET", "/organization/info", INFO, SCOPE_OBJECT, 0 },
    { "POST", "/organization/member_add", ORG_MANAGE, SCOPE_OBJECT, ORG_NONE },
    { "PATCH", "/organization/member_update", ORG_MANAGE, SCOPE_OBJECT, ORG_NONE },
    { "DELETE", "/organization/member_delete", ORG_MANAGE, SCOPE_OBJECT, ORG_NONE },
    { "POST", "/organization/info", ADMIN_READ, SCOPE_NONE, 0 },

    /* budgets, customers, tags */
    { "POST", "/budget/new", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/budget/update", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/budget/info", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/budget/settings", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/budget/list", ADMIN_READ, SCOPE_NONE, 0 },
    { "POST", "/budget/delete", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/customer/new", G_MANAGE, SCOPE_NONE, 0 },
    { "GET", "/customer/info", ADMIN_READ, SCOPE_NONE, 0 },
    { "POST", "/customer/update", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/customer/delete", G_MANAGE, SCOPE_NONE, 0 },
    { "GET", "/customer/list", ADMIN_READ, SCOPE_NONE, 0 },
    { "POST", "/customer/block", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/customer/unblock", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/end_user/new", G_MANAGE, SCOPE_NONE, 0 },
    { "GET", "/end_user/info", ADMIN_READ, SCOPE_NONE, 0 },
    { "POST", "/end_user/update", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/end_user/delete", G_MANAGE, SCOPE_NONE, 0 },
    { "GET", "/end_user/list", ADMIN_READ, SCOPE_NONE, 0 },
    { "POST", "/end_user/block", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/end_user/unblock", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/tag/new", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/tag/update", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/tag/delete", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/tag/info", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/tag/list", ADMIN_READ, SCOPE_NONE, 0 },

    /* models, access groups */
    { "POST", "/model/new", G_MANAGE | G_SELF, SCOPE_OBJECT, 0 },
    { "POST", "/model/update", G_MANAGE | G_SELF, SCOPE_OBJECT, 0 },
    { "PATCH", "/model/{model_id}/update", G_MANAGE | G_SELF, SCOPE_OBJECT, 0 },
    { "POST", "/model/delete", G_MANAGE | G_SELF, SCOPE_OBJECT, 0 },
    { "POST", "/model/block", G_MANAGE | G_SELF, SCOPE_OBJECT, 0 },
    { "POST", "/model/unblock", G_MANAGE | G_SELF, SCOPE_OBJECT, 0 },
    { "GET", "/model/info", INFO, SCOPE_OBJECT, 0 },
    { "GET", "/v1/model/info", INFO, SCOPE_OBJECT, 0 },
    { "GET", "/v2/model/info", INFO, SCOPE_OBJECT, 0 },
    { "GET", "/model_group/info", INFO, SCOPE_OBJECT, 0 },
    { "GET", "/models", INFO | G_MODELS, SCOPE_OBJECT, 0 },
    { "GET", "/v1/models", INFO | G_MODELS, SCOPE_OBJECT, 0 },
    { "GET", "/models/*", INFO | G_MODELS, SCOPE_OBJECT, 0 },
    { "GET", "/v1/models/*", INFO | G_MODELS, SCOPE_OBJECT, 0 },
    { "POST", "/access_group/new", G_MANAGE, SCOPE_NONE, 0 },
    { "GET", "/access_group/list", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/access_group/{access_group}/info", ADMIN_READ, SCOPE_NONE, 0 },
    { "PUT", "/access_group/{access_group}/update", G_MANAGE, SCOPE_NONE, 0 },
    { "DELETE", "/access_group/{access_group}/delete", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/v1/access_group", G_MANAGE, SCOPE_NONE, 0 },
    { "GET", "/v1/access_group", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/v1/access_group/{access_group_id}", ADMIN_READ, SCOPE_NONE, 0 },
    { "PUT", "/v1/access_group/{access_group_id}", G_MANAGE, SCOPE_NONE, 0 },
    { "DELETE", "/v1/access_group/{access_group_id}", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/v1/unified_access_group", G_MANAGE, SCOPE_NONE, 0 },
    { "GET", "/v1/unified_access_group", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/v1/unified_access_group/{access_group_id}", ADMIN_READ, SCOPE_NONE, 0 },
    { "PUT", "/v1/unified_access_group/{access_group_id}", G_MANAGE, SCOPE_NONE, 0 },
    { "DELETE", "/v1/unified_access_group/{access_group_id}", G_MANAGE, SCOPE_NONE, 0 },

    /* spend and usage */
    { "GET", "/spend/logs", SPEND_OWN, SCOPE_OBJECT, 0 },
    { "GET", "/spend/logs/v2", SPEND_OWN, SCOPE_OBJECT, 0 },
    { "GET", "/spend/logs/ui", SPEND_OWN, SCOPE_OBJECT, 0 },
    { "GET", "/spend/logs/session/ui", SPEND_OWN, SCOPE_OBJECT, 0 },
    { "GET", "/spend/logs/ui/{request_id}", SPEND_OWN, SCOPE_OBJECT, 0 },
    { "GET", "/spend/keys", SPEND_OWN, SCOPE_OBJECT, 0 },
    { "GET", "/spend/users", SPEND_OWN, SCOPE_OBJECT, 0 },
    { "GET", "/spend/tags", SPEND_OWN, SCOPE_OBJECT, 0 },
    { "POST", "/spend/calculate", SPEND_OWN, SCOPE_OBJECT, 0 },
    { "GET", "/key/spend/report", SPEND_OWN | G_INFO, SCOPE_OBJECT, 0 },
    { "GET", "/user/spend/report", SPEND_OWN, SCOPE_OBJECT, 0 },
    { "GET", "/team/spend/report", SPEND_OWN | G_SELF, SCOPE_OBJECT, 0 },
    { "GET", "/organization/spend/report", SPEND_OWN | G_SELF, SCOPE_OBJECT, 0 },
    { "GET", "/global/activity", SPEND_SOME, SCOPE_OBJECT, 0 },
    { "GET", "/global/activity/model", SPEND_SOME, SCOPE_OBJECT, 0 },
    { "GET", "/global/activity/exceptions", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/global/activity/exceptions/deployment", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/global/spend", SPEND_REST, SCOPE_OBJECT, 0 },
    { "GET", "/global/spend/logs", SPEND_REST, SCOPE_OBJECT, 0 },
    { "GET", "/global/spend/keys", SPEND_SOME, SCOPE_OBJECT, 0 },
    { "GET", "/global/spend/teams", SPEND_REST, SCOPE_OBJECT, 0 },
    { "GET", "/global/spend/models", SPEND_SOME, SCOPE_OBJECT, 0 },
    { "POST", "/global/spend/end_users", SPEND_SOME, SCOPE_OBJECT, 0 },
    { "GET", "/global/all_end_users", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/global/spend/provider", SPEND_SOME, SCOPE_OBJECT, 0 },
    { "GET", "/global/spend/report", SPEND_REST, SCOPE_OBJECT, 0 },
    { "GET", "/global/spend/tags", SPEND_SOME, SCOPE_OBJECT, 0 },
    { "GET", "/global/spend/all_tag_names", SPEND_REST, SCOPE_OBJECT, 0 },
    { "POST", "/global/spend/reset", G_MASTER, SCOPE_NONE, 0 },
    { "POST", "/global/spend/refresh", G_MANAGE, SCOPE_NONE, 0 },
    { "GET", "/user/daily/activity", SELF_READ, SCOPE_OBJECT, 0 },
    { "GET", "/user/daily/activity/aggregated", SELF_READ, SCOPE_OBJECT, 0 },
    { "GET", "/team/daily/activity", SELF_READ, SCOPE_OBJECT, 0 },
    { "GET", "/team/daily/activity/aggregated", SELF_READ, SCOPE_OBJECT, 0 },
    { "GET", "/organization/daily/activity", SELF_READ, SCOPE_OBJECT, 0 },
    { "GET", "/customer/daily/activity", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/end_user/daily/activity", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/tag/daily/activity", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/agent/daily/activity", ADMIN_READ, SCOPE_NONE, 0 },

    /* settings, configuration, audit */
    { "GET", "/get/internal_user_settings", ADMIN_READ, SCOPE_NONE, 0 },
    { "PATCH", "/update/internal_user_settings", G_MANAGE, SCOPE_NONE, 0 },
    { "GET", "/get/default_team_settings", ADMIN_READ, SCOPE_NONE, 0 },
    { "PATCH", "/update/default_team_settings", G_MANAGE, SCOPE_NONE, 0 },
    { "GET", "/get/ui_settings", INFO, SCOPE_NONE, 0 },
    { "PATCH", "/update/ui_settings", G_MANAGE, SCOPE_NONE, 0 },
    { "GET", "/get/ui_theme_settings", PUBLIC_READ, SCOPE_NONE, 0 },
    { "PATCH", "/update/ui_theme_settings", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/config/update", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/config/field/update", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/config/field/delete", G_MANAGE, SCOPE_NONE, 0 },
    { "GET", "/config/field/info", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/config/list", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/config/yaml", PUBLIC_READ, SCOPE_NONE, 0 },
    { "GET", "/get/config/callbacks", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/health/services", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/provider/budgets", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/routes", PUBLIC_READ, SCOPE_NONE, 0 },
    { "GET", "/audit", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/audit/{id}", ADMIN_READ, SCOPE_NONE, 0 },
    { "GET", "/openapi.json", PUBLIC_READ, SCOPE_NONE, 0 },
    { "GET", "/docs", PUBLIC_READ, SCOPE_NONE, 0 },

    /* nothing behind them */
    { "POST", "/team/{team_id}/callback", G_MANAGE, SCOPE_NONE, 0 },
    { "GET", "/team/{team_id}/callback", ADMIN_READ, SCOPE_NONE, 0 },
    { "POST", "/team/{team_id}/disable_logging", G_MANAGE, SCOPE_NONE, 0 },
    { "GET", "/email/event_settings", ADMIN_READ, SCOPE_NONE, 0 },
    { "PATCH", "/email/event_settings", G_MANAGE, SCOPE_NONE, 0 },
    { "POST", "/email/event_settings/reset", G_MANAGE, SCOPE_NONE, 0 },

    { NULL, NULL, 0, 0, 0 }
};


const access_t *
access_row(const char *method, const char *path)
{
    const access_t  *a;

    for (a = access_rows; a->method; a++) {
        if (strcmp(a->method, method) == 0 && strcmp(a->path, path) == 0) {
            return a;
        }
    }

    return NULL;
}
