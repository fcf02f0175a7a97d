#include <string.h>
#include "conf.h"
#include "conf_keys.h"


#define OUT(field)      offsetof(conf_t, field)
#define ANY(n, t)       { n, t, 0, 0, NULL, NULL, 0, 0, NULL }
#define INT(n)          { n, C_INT, 0, 0, NULL, NULL, 0, INT64_MAX, NULL }
#define IDLE(n, t, why) { n, t, K_NONE, 0, NULL, NULL, 0, INT64_MAX, why }
#define GUARD(n, t)     { n, t, K_GUARD, 0, NULL, NULL, 0, INT64_MAX, NULL }
#define END             { NULL, 0, 0, 0, NULL, NULL, 0, 0, NULL }

#define NGINX   "a matter of nginx.conf"
#define NEVER   "Keytoll has no such part"
#define LATER   "comes with sign-in and the dashboard"
#define ATONCE  "changes bind at once"
#define ALWAYS  "always so"


static const conf_key_t  conf_policy_keys[] = {
    { "enforced_params", C_STRS, 0, OUT(service_params), NULL, NULL, 0, 0, NULL },
    END
};

static const conf_key_t  conf_general[] = {
    { "master_key", C_STR, K_SECRET, OUT(master_key), NULL, NULL, 0, 0, NULL },
    { "database_url", C_STR, K_SECRET, OUT(database_url), NULL, NULL, 0, 0, NULL },
    { "fail_closed_budget_enforcement", C_BOOL, 0, OUT(strict), NULL, NULL, 0, 0, NULL },
    { "store_model_in_db", C_BOOL, 0, OUT(store_model_in_db), NULL, NULL, 0, 0, NULL },
    { "token_rate_limit_type", C_STR, 0, OUT(token_rate_limit_type), NULL,
      "total|input|output", 0, 0, NULL },
    { "global_max_parallel_requests", C_INT, 0, OUT(max_parallel), NULL, NULL, 0,
      1000000000, NULL },

    ANY("default_team_disabled", C_BOOL),
    ANY("disable_custom_api_keys", C_BOOL),
    ANY("disable_auto_add_proxy_admin_to_teams", C_BOOL),
    ANY("key_alias_pattern", C_STR),
    INT("password_policy_min_length"),
    ANY("password_policy_require_uppercase", C_BOOL),
    ANY("password_policy_require_lowercase", C_BOOL),
    ANY("password_policy_require_digit", C_BOOL),
    ANY("password_policy_require_special", C_BOOL),
    IDLE("disable_password_login_when_sso_enabled", C_BOOL, LATER),
    IDLE("auto_redirect_ui_login_to_sso", C_BOOL, LATER),
    IDLE("email_settings", C_OBJ, LATER),

    GUARD("dangerously_permit_weak_or_unset_master_key", C_BOOL),
    GUARD("disable_reset_budget", C_BOOL),
    GUARD("enforce_user_param", C_BOOL),
    GUARD("reject_clientside_metadata_tags", C_BOOL),
    { "enforced_params", C_STRS, 0, OUT(enforced_params), NULL, NULL, 0, 0, NULL },
    { "service_account_settings", C_OBJ, K_FILE, 0, conf_policy_keys, NULL, 0, 0, NULL },
    GUARD("allowed_ips", C_STRS),
    GUARD("allowed_routes", C_STRS),
    GUARD("admin_only_routes", C_STRS),
    GUARD("custom_auth", C_STR),
    GUARD("custom_auth_run_common_checks", C_BOOL),
    GUARD("custom_key_generate", C_STR),
    GUARD("custom_sso", C_STR),
    GUARD("custom_ui_sso_sign_in_handler", C_STR),
    GUARD("enforce_rbac", C_BOOL),
    GUARD("role_permissions", C_LIST),

    IDLE("public_routes", C_STRS, "nothing becomes public by it"),
    IDLE("ui_access_mode", C_ANY, NEVER),
    IDLE("database_connection_pool_limit", C_INT, "one connection per thread"),
    IDLE("database_connection_timeout", C_INT, "one connection per thread"),
    IDLE("database_type", C_STR, "PostgreSQL"),
    IDLE("database_args", C_OBJ, "PostgreSQL"),
    IDLE("allow_requests_on_db_unavailable", C_BOOL,
         "the gate does not need PostgreSQL"),
    IDLE("user_api_key_cache_ttl", C_INT, ATONCE),
    IDLE("supported_db_objects", C_STRS, "all of them"),
    IDLE("proxy_budget_rescheduler_min_time", C_INT, "budgets renew by themselves"),
    IDLE("proxy_budget_rescheduler_max_time", C_INT, "budgets renew by themselves"),
    IDLE("proxy_batch_write_at", C_INT, ATONCE),
    IDLE("disable_spend_logs", C_BOOL, "the ledger has every request"),
    IDLE("disable_spend_updates", C_BOOL, "the ledger has every request"),
    IDLE("disable_error_logs", C_BOOL, "the ledger has every request"),
    IDLE("store_prompts_in_spend_logs", C_BOOL, "prompts are never stored"),
    IDLE("maximum_spend_logs_retention_period", C_STR, NEVER),
    IDLE("maximum_spend_logs_retention_interval", C_STR, NEVER),
    IDLE("maximum_spend_logs_cleanup_cron", C_STR, NEVER),
    IDLE("use_redis_transaction_buffer", C_BOOL, ALWAYS),
    IDLE("max_parallel_requests", C_INT, "of deployments: " NGINX),
    IDLE("user_header_name", C_STR, NGINX ": keytoll_user_header"),
    IDLE("user_header_mappings", C_ANY, NGINX ": keytoll_user_header"),
    IDLE("litellm_key_header_name", C_STR, NGINX),
    IDLE("use_x_forwarded_for", C_BOOL, NGINX ": realip"),
    IDLE("max_request_size_mb", C_INT, NGINX ": client_max_body_size"),
    IDLE("max_response_size_mb", C_INT, NEVER),
    IDLE("allow_client_side_credentials", C_BOOL, "clients never choose them"),
    IDLE("alerting", C_STRS, NEVER),
    IDLE("alerting_threshold", C_INT, NEVER),
    IDLE("alert_types", C_STRS, NEVER),
    IDLE("alerting_args", C_OBJ, NEVER),
    IDLE("alert_to_webhook_url", C_OBJ, NEVER),
    IDLE("spend_report_frequency", C_STR, NEVER),
    IDLE("disable_master_key_return", C_BOOL, ALWAYS),
    IDLE("disable_adding_master_key_hash_to_db", C_BOOL, NEVER),
    IDLE("enable_jwt_auth", C_BOOL, "JWTs are refused"),
    IDLE("litellm_jwtauth", C_OBJ, "JWTs are refused"),
    IDLE("enable_oauth2_auth", C_BOOL, "OAuth2 tokens are refused"),
    IDLE("enable_oauth2_proxy_auth", C_BOOL, "OAuth2 headers are not believed"),
    IDLE("oauth2_config_mappings", C_OBJ, "OAuth2 headers are not believed"),
    IDLE("allow_user_auth", C_BOOL, NEVER),
    IDLE("pass_through_endpoints", C_LIST, NGINX),
    IDLE("use_client_credentials_pass_through_routes", C_BOOL, NGINX),
    IDLE("control_plane_url", C_STR, NEVER),
    IDLE("disable_budget_reservation", C_BOOL, "money is always reserved"),
    IDLE("skip_user_budget_on_team_key", C_BOOL, ALWAYS),
    IDLE("include_call_id_in_error_body", C_BOOL, NEVER),
    IDLE("store_audit_logs", C_BOOL, "the audit is always on"),
    IDLE("background_health_checks", C_BOOL, NEVER),
    IDLE("health_check_interval", C_INT, NEVER),
    IDLE("health_check_details", C_BOOL, NEVER),
    IDLE("always_include_stream_usage", C_BOOL, ALWAYS),
    IDLE("completion_model", C_STR, NEVER),
    IDLE("infer_model_from_keys", C_BOOL, NEVER),
    IDLE("disable_prisma_schema_update", C_BOOL, NEVER),
    IDLE("key_management_system", C_STR, NEVER),
    IDLE("key_management_settings", C_OBJ, NEVER),
    END
};

static const conf_key_t  conf_user_params[] = {
    { "user_role", C_STR, 0, 0, NULL, "proxy_admin|proxy_admin_viewer|internal_user|"
      "internal_user_viewer", 0, 0, NULL },
    ANY("max_budget", C_USD),
    ANY("budget_duration", C_DURATION),
    ANY("models", C_STRS),
    ANY("teams", C_LIST),
    ANY("available_teams", C_STRS),
    INT("tpm_limit"),
    INT("rpm_limit"),
    INT("max_parallel_requests"),
    END
};

static const conf_key_t  conf_team_params[] = {
    ANY("max_budget", C_USD),
    ANY("budget_duration", C_DURATION),
    INT("tpm_limit"),
    INT("rpm_limit"),
    ANY("models", C_STRS),
    ANY("team_member_permissions", C_STRS),
    ANY("organization_id", C_STR),
    END
};

static const conf_key_t  conf_upper_params[] = {
    ANY("max_budget", C_USD),
    ANY("budget_duration", C_DURATION),
    ANY("duration", C_DURATION),
    INT("max_parallel_requests"),
    INT("tpm_limit"),
    INT("rpm_limit"),
    END
};

static const conf_key_t  conf_key_params[] = {
    ANY("max_budget", C_USD),
    ANY("soft_budget", C_USD),
    ANY("budget_duration", C_DURATION),
    ANY("duration", C_DURATION),
    ANY("budget_limits", C_LIST),
    ANY("budget_enforcement", C_STR),
    INT("max_parallel_requests"),
    INT("tpm_limit"),
    INT("rpm_limit"),
    ANY("models", C_STRS),
    ANY("aliases", C_OBJ),
    ANY("enforced_params", C_STRS),
    ANY("budget_fallbacks", C_OBJ),
    ANY("throttle_on_budget_exceeded", C_BOOL),
    { "budget_exceeded_throttle_percentage", C_INT, 0, 0, NULL, NULL, 1, 99, NULL },
    ANY("metadata", C_OBJ),
    ANY("permissions", C_OBJ),
    ANY("config", C_OBJ),
    ANY("tags", C_STRS),
    ANY("guardrails", C_STRS),
    ANY("allowed_routes", C_STRS),
    ANY("allowed_cache_controls", C_STRS),
    ANY("access_group_ids", C_STRS),
    ANY("model_max_budget", C_OBJ),
    ANY("model_rpm_limit", C_OBJ),
    ANY("model_tpm_limit", C_OBJ),
    ANY("budget_id", C_STR),
    ANY("team_id", C_STR),
    ANY("organization_id", C_STR),
    ANY("key_type", C_STR),
    ANY("auto_rotate", C_BOOL),
    ANY("rotation_interval", C_DURATION),
    END
};

static const conf_key_t  conf_team_generation[] = {
    ANY("allowed_team_member_roles", C_STRS),
    ANY("required_params", C_STRS),
    END
};

static const conf_key_t  conf_personal_generation[] = {
    ANY("allowed_user_roles", C_STRS),
    ANY("required_params", C_STRS),
    END
};

static const conf_key_t  conf_generation[] = {
    { "team_key_generation", C_OBJ, 0, 0, conf_team_generation, NULL, 0, 0, NULL },
    { "personal_key_generation", C_OBJ, 0, 0, conf_personal_generation, NULL, 0, 0,
      NULL },
    END
};

static const conf_key_t  conf_litellm[] = {
    { "timezone", C_ZONE, 0, OUT(timezone), NULL, NULL, 0, 0, NULL },
    { "budget_reset_time", C_TIME, 0, OUT(reset_time), NULL, NULL, 0, 0, NULL },
    { "max_budget", C_USD, 0, OUT(max_budget_nusd), NULL, NULL, 0, 0, NULL },
    { "budget_duration", C_DURATION, 0, OUT(budget_duration), NULL, NULL, 0, 0, NULL },
    { "max_end_user_budget_id", C_STR, 0, OUT(customer_budget), NULL, NULL, 0, 0, NULL },
    { "max_end_user_budget", C_USD, 0, OUT(customer_nusd), NULL, NULL, 0, 0, NULL },
    { "budget_exceeded_status_code", C_INT, K_NONE, OUT(budget_status), NULL, NULL, 400,
      499, NGINX ": keytoll_compat budget_exceeded=" },

    { "default_key_generate_params", C_OBJ, 0, 0, conf_key_params, NULL, 0, 0, NULL },
    { "upperbound_key_generate_params", C_OBJ, 0, 0, conf_upper_params, NULL, 0, 0, NULL },
    { "key_generation_settings", C_OBJ, 0, 0, conf_generation, NULL, 0, 0, NULL },
    { "default_internal_user_params", C_OBJ, 0, 0, conf_user_params, NULL, 0, 0, NULL },
    { "default_team_params", C_OBJ, 0, 0, conf_team_params, NULL, 0, 0, NULL },
    ANY("max_internal_user_budget", C_USD),
    ANY("internal_user_budget_duration", C_DURATION),
    ANY("enable_key_alias_format_validation", C_BOOL),
    IDLE("max_ui_session_budget", C_USD, LATER),
    IDLE("ui_theme_config", C_OBJ, LATER),
    IDLE("public_model_groups", C_STRS, NEVER),

    GUARD("cost_discount_config", C_OBJ),
    GUARD("cost_margin_config", C_OBJ),

    ANY("default_team_settings", C_LIST),
    IDLE("callbacks", C_ANY, NEVER),
    IDLE("success_callback", C_STRS, NEVER),
    IDLE("failure_callback", C_STRS, NEVER),
    IDLE("service_callback", C_STRS, NEVER),
    IDLE("callback_settings", C_OBJ, NEVER),
    IDLE("turn_off_message_logging", C_BOOL, "messages are never stored"),
    IDLE("redact_user_api_key_info", C_BOOL, NEVER),
    IDLE("redact_messages_in_exceptions", C_BOOL, NEVER),
    IDLE("langfuse_default_tags", C_STRS, NEVER),
    IDLE("store_audit_logs", C_BOOL, "the audit is always on"),
    IDLE("cache", C_BOOL, "answers are not cached"),
    IDLE("cache_params", C_OBJ, "redis_url says where Redis is"),
    IDLE("enable_redis_auth_cache", C_BOOL, ALWAYS),
    IDLE("drop_params", C_BOOL, "bodies go upstream as they came"),
    IDLE("modify_params", C_BOOL, "bodies go upstream as they came"),
    IDLE("num_retries", C_INT, NGINX ": proxy_next_upstream"),
    IDLE("request_timeout", C_ANY, NGINX ": proxy_read_timeout"),
    IDLE("default_fallbacks", C_ANY, NGINX),
    IDLE("fallbacks", C_ANY, NGINX),
    IDLE("context_window_fallbacks", C_ANY, NGINX),
    IDLE("content_policy_fallbacks", C_ANY, NGINX),
    IDLE("allowed_fails", C_INT, NGINX),
    IDLE("cooldown_time", C_ANY, NGINX),
    IDLE("force_ipv4", C_BOOL, NGINX),
    IDLE("ssl_verify", C_ANY, NGINX ": proxy_ssl_verify"),
    IDLE("disable_end_user_cost_tracking", C_BOOL, "the ledger has every request"),
    IDLE("disable_end_user_cost_tracking_prometheus_only", C_BOOL, NEVER),
    IDLE("set_verbose", C_BOOL, NEVER),
    IDLE("json_logs", C_BOOL, ALWAYS),
    IDLE("telemetry", C_BOOL, NEVER),
    IDLE("model_group_settings", C_OBJ, NEVER),
    IDLE("check_provider_endpoint", C_BOOL, NEVER),
    END
};

static const conf_key_t  conf_router[] = {
    GUARD("provider_budget_config", C_OBJ),
    GUARD("tag_budget_config", C_OBJ),
    IDLE("model_group_alias", C_OBJ, "aliases are those of keys and teams"),
    IDLE("routing_strategy", C_STR, NGINX),
    IDLE("routing_strategy_args", C_OBJ, NGINX),
    IDLE("redis_host", C_STR, "redis_url says where Redis is"),
    IDLE("redis_port", C_ANY, "redis_url says where Redis is"),
    IDLE("redis_password", C_STR, "redis_url says where Redis is"),
    IDLE("redis_url", C_STR, "redis_url says where Redis is"),
    IDLE("cache_responses", C_BOOL, "answers are not cached"),
    IDLE("enable_tag_filtering", C_BOOL, NGINX),
    IDLE("enable_pre_call_checks", C_BOOL, NGINX),
    IDLE("num_retries", C_INT, NGINX ": proxy_next_upstream"),
    IDLE("max_retries", C_INT, NGINX ": proxy_next_upstream"),
    IDLE("retry_after", C_ANY, NGINX),
    IDLE("retry_policy", C_OBJ, NGINX),
    IDLE("model_group_retry_policy", C_OBJ, NGINX),
    IDLE("timeout", C_ANY, NGINX ": proxy_read_timeout"),
    IDLE("stream_timeout", C_ANY, NGINX ": proxy_read_timeout"),
    IDLE("cooldown_time", C_ANY, NGINX),
    IDLE("disable_cooldowns", C_BOOL, NGINX),
    IDLE("allowed_fails", C_INT, NGINX),
    IDLE("allowed_fails_policy", C_OBJ, NGINX),
    IDLE("fallbacks", C_ANY, NGINX),
    IDLE("default_fallbacks", C_ANY, NGINX),
    IDLE("context_window_fallbacks", C_ANY, NGINX),
    IDLE("content_policy_fallbacks", C_ANY, NGINX),
    IDLE("default_max_parallel_requests", C_INT, NGINX),
    IDLE("default_litellm_params", C_OBJ, NGINX),
    IDLE("client_ttl", C_INT, NGINX),
    IDLE("set_verbose", C_BOOL, NEVER),
    IDLE("debug_level", C_STR, NEVER),
    IDLE("assistants_config", C_OBJ, NEVER),
    IDLE("optional_pre_call_checks", C_STRS, NGINX),
    END
};

const conf_key_t  conf_keys[] = {
    { "listen", C_STR, 0, OUT(listen), NULL, NULL, 0, 0, NULL },
    { "threads", C_INT, 0, OUT(threads), NULL, NULL, 1, 64, NULL },
    { "database_url", C_STR, K_SECRET, OUT(database_url), NULL, NULL, 0, 0, NULL },
    { "redis_url", C_STR, 0, OUT(redis_url), NULL, NULL, 0, 0, NULL },
    { "redis_username", C_STR, 0, OUT(redis_username), NULL, NULL, 0, 0, NULL },
    { "redis_password", C_STR, K_SECRET, OUT(redis_password), NULL, NULL, 0, 0, NULL },
    { "models_file", C_STR, 0, OUT(models_file), NULL, NULL, 0, 0, NULL },
    { "functions_file", C_STR, 0, OUT(functions_file), NULL, NULL, 0, 0, NULL },
    { "sql_dir", C_STR, 0, OUT(sql_dir), NULL, NULL, 0, 0, NULL },
    { "litellm_compat", C_STR, 0, OUT(compat), NULL, NULL, 0, 0, NULL },
    { "general_settings", C_MAP, 0, 0, conf_general, NULL, 0, 0, NULL },
    { "litellm_settings", C_MAP, 0, 0, conf_litellm, NULL, 0, 0, NULL },
    { "router_settings", C_MAP, 0, 0, conf_router, NULL, 0, 0, NULL },
    { "model_list", C_LIST, 0, OUT(model_list), NULL, NULL, 0, 0, NULL },
    { "environment_variables", C_OBJ, K_SECRET, 0, NULL, NULL, 0, 0, NULL },
    { "include", C_STRS, 0, 0, NULL, NULL, 0, 0, NULL },
    END
};


const conf_key_t *
conf_key_find(const char *section, const char *name)
{
    const conf_key_t  *k, *s;

    for (s = conf_keys; s->name; s++) {
        if (strcmp(s->name, section) != 0) {
            continue;
        }

        for (k = s->sub; k && k->name; k++) {
            if (strcmp(k->name, name) == 0) {
                return k;
            }
        }
    }

    return NULL;
}
