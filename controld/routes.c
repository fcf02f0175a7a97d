/* The routes of the admin API.  A literal path stands before a pattern that it fits. */

#include "api.h"
#include "route.h"


const route_t  routes[] = {

    /* health */
    { "GET", "/health/liveliness", api_alive, NULL, NULL,
      "Whether the process is alive" },
    { "GET", "/health/liveness", api_alive, NULL, NULL,
      "Whether the process is alive" },
    { "GET", "/health/readiness", api_ready, NULL, NULL,
      "Whether PostgreSQL and Redis answer and Redis is built" },
    { "GET", "/metrics", api_metrics, NULL, NULL,
      "Counters for Prometheus" },

    /* keys */
    { "POST", "/key/generate", api_key_generate, key_generate_body, NULL,
      "Creates a virtual key; the only time it is shown" },
    { "POST", "/key/update", api_key_update, key_update_body, NULL,
      "Changes the fields that are sent; null clears", "auth_error" },
    { "POST", "/key/delete", api_key_delete, key_delete_body, NULL,
      "Deletes keys by key, hash or alias" },
    { "GET", "/key/info", api_key_info, NULL, key_info_args,
      "One key; without an argument the caller's own" },
    { "GET", "/key/list", api_key_list, NULL, key_list_args,
      "Keys that the caller may see, by page" },
    { "POST", "/key/block", api_key_block, key_block_body, NULL,
      "Refuses every request of a key" },
    { "POST", "/key/unblock", api_key_unblock, key_block_body, NULL,
      "Takes a block back" },

    /* users */
    { "POST", "/user/new", api_user_new, user_new_body, NULL,
      "Creates a user, and a key unless auto_create_key is false" },
    { "GET", "/user/info", api_user_info, NULL, user_info_args,
      "A user with keys and teams" },

    /* teams */
    { "POST", "/team/new", api_team_new, team_body, NULL,
      "Creates a team; its creator becomes an admin of it" },
    { "POST", "/team/update", api_team_update, team_body, NULL,
      "Changes the fields that are sent; null clears" },
    { "GET", "/team/info", api_team_info, NULL, team_info_args,
      "A team with its keys and memberships" },
    { "POST", "/team/block", api_team_block, team_id_body, NULL,
      "Refuses every request of a team's keys" },
    { "POST", "/team/unblock", api_team_unblock, team_id_body, NULL,
      "Takes a block back" },

    /* organizations */
    { "POST", "/organization/new", api_organization_new, org_body, NULL,
      "Creates an organization with its budget" },
    { "PATCH", "/organization/update", api_organization_update, org_body, NULL,
      "Changes the fields that are sent; metadata is merged" },
    { "DELETE", "/organization/delete", api_organization_delete, org_ids_body, NULL,
      "Deletes organizations" },
    { "GET", "/organization/list", api_organization_list, NULL, org_list_args,
      "Organizations that the caller may see" },
    { "GET", "/organization/info", api_organization_info, NULL, org_info_args,
      "One organization with members and teams" },
    { "POST", "/organization/info", api_organization_info_list, org_info_body, NULL,
      "Several organizations (deprecated by LiteLLM)" },

    /* budgets, customers, tags */
    { "POST", "/budget/new", api_budget_new, budget_body, NULL,
      "Creates a budget that others link to" },
    { "POST", "/budget/update", api_budget_update, budget_body, NULL,
      "Changes a budget for all that link to it" },
    { "POST", "/budget/info", api_budget_info, budget_info_body, NULL,
      "Several budgets" },
    { "GET", "/budget/settings", api_budget_settings, NULL, budget_settings_args,
      "A budget, field by field" },
    { "GET", "/budget/list", api_budget_list, NULL, NULL,
      "All budgets" },
    { "POST", "/budget/delete", api_budget_delete, budget_delete_body, NULL,
      "Deletes a budget and unlinks it" },
    { "POST", "/customer/new", api_customer_new, customer_body, NULL,
      "Creates an end user" },
    { "GET", "/customer/info", api_customer_info, NULL, customer_info_args,
      "One end user" },
    { "POST", "/customer/update", api_customer_update, customer_body, NULL,
      "Changes an end user" },
    { "POST", "/customer/delete", api_customer_delete, customer_ids_body, NULL,
      "Deletes end users" },
    { "GET", "/customer/list", api_customer_list, NULL, NULL,
      "All end users" },
    { "POST", "/customer/block", api_customer_block, customer_ids_body, NULL,
      "Refuses every request in the name of these end users" },
    { "POST", "/customer/unblock", api_customer_unblock, customer_ids_body, NULL,
      "Takes a block back" },
    { "POST", "/end_user/new", api_customer_new, customer_body, NULL,
      "Creates an end user" },
    { "GET", "/end_user/info", api_customer_info, NULL, customer_info_args,
      "One end user" },
    { "POST", "/end_user/update", api_customer_update, customer_body, NULL,
      "Changes an end user" },
    { "POST", "/end_user/delete", api_customer_delete, customer_ids_body, NULL,
      "Deletes end users" },
    { "GET", "/end_user/list", api_customer_list, NULL, NULL,
      "All end users" },
    { "POST", "/end_user/block", api_customer_block, customer_ids_body, NULL,
      "Refuses every request in the name of these end users" },
    { "POST", "/end_user/unblock", api_customer_unblock, customer_ids_body, NULL,
      "Takes a block back" },
    { "POST", "/tag/new", api_tag_new, tag_body, NULL,
      "Creates a tag with its budget" },
    { "POST", "/tag/update", api_tag_update, tag_body, NULL,
      "Changes a tag" },
    { "POST", "/tag/delete", api_tag_delete, tag_name_body, NULL,
      "Deletes a tag" },
    { "POST", "/tag/info", api_tag_info, tag_names_body, NULL,
      "Several tags by name" },
    { "GET", "/tag/list", api_tag_list, NULL, NULL,
      "All tags" },

    /* models, access groups */
    { "POST", "/model/new", api_model_new, model_new_body, NULL,
      "Adds a deployment" },
    { "POST", "/model/delete", api_model_delete, model_id_body, NULL,
      "Deletes a deployment that the API made" },
    { "GET", "/model/info", api_model_info, NULL, model_info_args,
      "Deployments with prices" },
    { "GET", "/v1/model/info", api_model_info, NULL, model_info_args,
      "Deployments with prices" },
    { "GET", "/models", api_models, NULL, models_args,
      "Models that the caller's key may use" },
    { "GET", "/v1/models", api_models, NULL, models_args,
      "Models that the caller's key may use" },
    { "GET", "/models/*", api_models_one, NULL, NULL,
      "One model that the caller's key may use" },
    { "GET", "/v1/models/*", api_models_one, NULL, NULL,
      "One model that the caller's key may use" },

    /* spend and usage */
    { "GET", "/spend/logs", api_spend_logs, NULL, spend_logs_args,
      "Settled requests, or their sums by day" },

    /* settings, configuration, audit */

    { NULL, NULL, NULL, NULL, NULL, NULL }
};
