/* What answers look like where it does not go without saying. */

#include <string.h>
#include "openapi.h"


typedef struct {
    const char  *method;
    const char  *path;
    const char  *shape;
} answer_t;

static const answer_t  openapi_answers[] = {
    { "GET", "/metrics", "text" },
    { "GET", "/docs", "text" },
    { "POST", "/key/generate", "key token token_id key_name models max_budget expires"
                               " user_id team_id metadata spend created_at" },
    { "POST", "/key/service-account/generate", "key token token_id key_name team_id" },
    { "POST", "/key/update", "key token key_name models metadata spend" },
    { "POST", "/key/bulk_update", "total_requested successful_updates failed_updates" },
    { "POST", "/team/key/bulk_update", "total_requested successful_updates failed_updates" },
    { "POST", "/key/delete", "deleted_keys" },
    { "GET", "/key/info", "key info" },
    { "POST", "/v2/key/info", "key info" },
    { "GET", "/key/list", "keys total_count current_page total_pages" },
    { "GET", "/key/aliases", "aliases total_count current_page total_pages" },
    { "POST", "/key/block", "token blocked key_name" },
    { "POST", "/key/unblock", "token blocked key_name" },
    { "POST", "/key/regenerate", "key token token_id key_name" },
    { "POST", "/key/{key}/regenerate", "key token token_id key_name" },
    { "POST", "/key/{key}/reset_spend", "key_hash spend previous_spend max_budget"
                                        " budget_reset_at" },
    { "POST", "/key/health", "key logging_callbacks" },
    { "POST", "/user/new", "user_id key user_email user_role teams max_budget" },
    { "POST", "/user/update", "user_id data" },
    { "POST", "/user/bulk_update", "results total_requested successful_updates"
                                   " failed_updates" },
    { "POST", "/user/delete", "#" },
    { "GET", "/user/info", "user_id user_info keys teams" },
    { "GET", "/v2/user/info", "user_id user_email user_role spend teams models" },
    { "GET", "/user/list", "users total page page_size total_pages" },
    { "GET", "/user/get_users", "users total page page_size total_pages" },
    { "GET", "/user/filter/ui", "[]" },
    { "GET", "/user/available_roles", "proxy_admin proxy_admin_viewer internal_user"
                                      " internal_user_viewer" },
    { "GET", "/user/available_users", "total_users total_users_used"
                                      " total_users_remaining" },
    { "POST", "/team/new", "team_id team_alias members_with_roles models max_budget spend"
                           " blocked metadata created_at" },
    { "POST", "/team/update", "team_id data" },
    { "PATCH", "/team/{team_id}", "team_id team_alias members_with_roles models spend" },
    { "POST", "/team/delete", "deleted_teams" },
    { "GET", "/team/info", "team_id team_info keys team_memberships" },
    { "GET", "/team/list", "[]" },
    { "GET", "/v2/team/list", "teams total page page_size total_pages" },
    { "GET", "/team/filter/ui", "[]" },
    { "GET", "/team/available", "[]" },
    { "POST", "/team/block", "team_id blocked" },
    { "POST", "/team/unblock", "team_id blocked" },
    { "POST", "/team/member_add", "team_id members_with_roles updated_users"
                                  " updated_team_memberships" },
    { "POST", "/team/bulk_member_add", "team_id results total_requested"
                                       " successful_additions failed_additions" },
    { "POST", "/team/member_update", "user_id team_id max_budget_in_team allowed_models" },
    { "POST", "/team/member_delete", "team_id members_with_roles" },
    { "GET", "/team/permissions_list", "team_id team_member_permissions"
                                       " all_available_permissions" },
    { "POST", "/team/permissions_update", "team_id team_member_permissions" },
    { "POST", "/team/model/add", "team_id models" },
    { "POST", "/team/model/delete", "team_id models" },
    { "POST", "/organization/new", "organization_id organization_alias budget_id models"
                                   " metadata" },
    { "PATCH", "/organization/update", "organization_id organization_alias" },
    { "DELETE", "/organization/delete", "[]" },
    { "GET", "/organization/list", "[]" },
    { "GET", "/organization/info", "organization_id members teams litellm_budget_table" },
    { "POST", "/organization/info", "[]" },
    { "POST", "/organization/member_add", "organization_id updated_users"
                                          " updated_organization_memberships" },
    { "PATCH", "/organization/member_update", "user_id organization_id user_role"
                                               " litellm_budget_table" },
    { "POST", "/budget/new", "budget_id max_budget budget_duration budget_reset_at" },
    { "POST", "/budget/update", "budget_id max_budget" },
    { "POST", "/budget/info", "[]" },
    { "GET", "/budget/settings", "[]" },
    { "GET", "/budget/list", "[]" },
    { "POST", "/budget/delete", "budget_id" },
    { "POST", "/customer/new", "user_id blocked" },
    { "GET", "/customer/list", "[]" },
    { "POST", "/customer/delete", "deleted_customers message" },
    { "POST", "/customer/block", "blocked_users" },
    { "POST", "/end_user/new", "user_id blocked" },
    { "GET", "/end_user/list", "[]" },
    { "POST", "/end_user/delete", "deleted_customers message" },
    { "POST", "/end_user/block", "blocked_users" },
    { "POST", "/tag/new", "message tag" },
    { "POST", "/tag/update", "message tag" },
    { "POST", "/tag/delete", "message" },
    { "GET", "/tag/list", "[]" },
    { "POST", "/model/new", "model_id model_name litellm_params model_info" },
    { "POST", "/model/delete", "message" },
    { "GET", "/model/info", "data" },
    { "GET", "/v1/model/info", "data" },
    { "GET", "/models", "data object" },
    { "GET", "/v1/models", "data object" },
    { "GET", "/models/*", "id object created owned_by" },
    { "GET", "/v1/models/*", "id object created owned_by" },
    { "GET", "/spend/logs", "[]" },
    { "GET", "/get/internal_user_settings", "values field_schema source editable" },
    { "PATCH", "/update/internal_user_settings", "message status settings" },
    { "GET", "/get/default_team_settings", "values field_schema source editable" },
    { "PATCH", "/update/default_team_settings", "message status settings" },
    { "GET", "/audit", "audit_logs total page page_size total_pages" },
    { "GET", "/audit/{id}", "id action table_name object_id before_value updated_values" },
    { NULL, NULL, NULL }
};


const char *
openapi_shape(const route_t *t)
{
    const answer_t  *a;

    for (a = openapi_answers; a->method; a++) {
        if (strcmp(a->method, t->method) == 0 && strcmp(a->path, t->path) == 0) {
            return a->shape;
        }
    }

    return "";
}
