/* The handlers, one per route, with the bodies and arguments that they take. */

#ifndef CTL_API_H
#define CTL_API_H

#include "route.h"


extern const field_t  key_generate_body[];
extern const field_t  key_update_body[];
extern const field_t  key_delete_body[];
extern const field_t  key_block_body[];
extern const field_t  key_regenerate_body[];
extern const field_t  key_bulk_body[];
extern const field_t  team_key_bulk_body[];
extern const field_t  key_spend_body[];
extern const field_t  key_info_v2_body[];
extern const arg_t    key_regenerate_args[];
extern const arg_t    key_aliases_args[];
extern const field_t  user_new_body[];
extern const field_t  user_update_body[];
extern const field_t  user_bulk_body[];
extern const field_t  user_delete_body[];
extern const arg_t    user_list_args[];
extern const arg_t    user_filter_args[];
extern const field_t  team_body[];
extern const field_t  team_id_body[];
extern const field_t  team_ids_body[];
extern const field_t  team_permissions_body[];
extern const field_t  team_permissions_bulk_body[];
extern const field_t  team_models_body[];
extern const field_t  member_add_body[];
extern const field_t  member_bulk_body[];
extern const field_t  member_update_body[];
extern const field_t  member_delete_body[];
extern const arg_t    team_id_args[];
extern const arg_t    team_list_args[];
extern const arg_t    team_list_v2_args[];
extern const arg_t    team_filter_args[];
extern const field_t  org_body[];
extern const field_t  org_ids_body[];
extern const field_t  org_info_body[];
extern const field_t  org_member_add_body[];
extern const field_t  org_member_update_body[];
extern const field_t  org_member_delete_body[];
extern const field_t  budget_body[];
extern const field_t  budget_info_body[];
extern const field_t  budget_delete_body[];
extern const field_t  customer_body[];
extern const field_t  customer_ids_body[];
extern const field_t  tag_body[];
extern const field_t  tag_name_body[];
extern const field_t  tag_names_body[];
extern const field_t  model_new_body[];
extern const field_t  model_id_body[];
extern const arg_t    key_info_args[];
extern const arg_t    key_list_args[];
extern const arg_t    user_info_args[];
extern const arg_t    team_info_args[];
extern const arg_t    org_list_args[];
extern const arg_t    org_info_args[];
extern const arg_t    budget_settings_args[];
extern const arg_t    customer_info_args[];
extern const arg_t    model_info_args[];
extern const arg_t    models_args[];
extern const arg_t    spend_logs_args[];
extern const arg_t    spend_page_args[];
extern const arg_t    spend_one_args[];
extern const arg_t    spend_session_args[];
extern const arg_t    spend_users_args[];
extern const arg_t    usage_range_args[];
extern const arg_t    global_logs_args[];
extern const arg_t    global_limit_args[];
extern const arg_t    global_exceptions_args[];
extern const arg_t    global_tags_args[];
extern const arg_t    global_report_args[];
extern const arg_t    key_report_args[];
extern const arg_t    user_report_args[];
extern const arg_t    team_report_args[];
extern const arg_t    org_report_args[];
extern const arg_t    user_activity_args[];
extern const arg_t    team_activity_args[];
extern const arg_t    org_activity_args[];
extern const arg_t    customer_activity_args[];
extern const arg_t    tag_activity_args[];
extern const arg_t    agent_activity_args[];
extern const field_t  spend_calculate_body[];
extern const field_t  global_end_users_body[];


void api_key_generate(req_t *r);
void api_key_update(req_t *r);
void api_key_delete(req_t *r);
void api_key_info(req_t *r);
void api_key_list(req_t *r);
void api_key_block(req_t *r);
void api_key_unblock(req_t *r);
void api_key_service(req_t *r);
void api_key_bulk_update(req_t *r);
void api_team_key_bulk_update(req_t *r);
void api_key_regenerate(req_t *r);
void api_key_reset_spend(req_t *r);
void api_key_info_v2(req_t *r);
void api_key_health(req_t *r);
void api_key_aliases(req_t *r);

void api_user_new(req_t *r);
void api_user_info(req_t *r);
void api_user_info_v2(req_t *r);
void api_user_update(req_t *r);
void api_user_bulk_update(req_t *r);
void api_user_delete(req_t *r);
void api_user_list(req_t *r);
void api_user_filter(req_t *r);
void api_user_roles(req_t *r);
void api_user_seats(req_t *r);

void api_team_new(req_t *r);
void api_team_update(req_t *r);
void api_team_info(req_t *r);
void api_team_patch(req_t *r);
void api_team_delete(req_t *r);
void api_team_list(req_t *r);
void api_team_list_v2(req_t *r);
void api_team_filter(req_t *r);
void api_team_available(req_t *r);
void api_team_me(req_t *r);
void api_team_permissions(req_t *r);
void api_team_permissions_update(req_t *r);
void api_team_permissions_bulk(req_t *r);
void api_team_model_add(req_t *r);
void api_team_model_delete(req_t *r);
void api_team_member_add(req_t *r);
void api_team_member_bulk_add(req_t *r);
void api_team_member_update(req_t *r);
void api_team_member_delete(req_t *r);
void api_team_member_reset(req_t *r);
void api_team_block(req_t *r);
void api_team_unblock(req_t *r);

void api_model_new(req_t *r);
void api_model_info(req_t *r);
void api_model_delete(req_t *r);
void api_models(req_t *r);
void api_models_one(req_t *r);

void api_spend_logs(req_t *r);
void api_spend_logs_v2(req_t *r);
void api_spend_logs_ui(req_t *r);
void api_spend_logs_session(req_t *r);
void api_spend_logs_one(req_t *r);
void api_spend_keys(req_t *r);
void api_spend_users(req_t *r);
void api_spend_tags(req_t *r);
void api_spend_calculate(req_t *r);
void api_global_activity(req_t *r);
void api_global_activity_model(req_t *r);
void api_global_exceptions(req_t *r);
void api_global_exceptions_deployment(req_t *r);
void api_global_spend(req_t *r);
void api_global_spend_logs(req_t *r);
void api_global_spend_keys(req_t *r);
void api_global_spend_teams(req_t *r);
void api_global_spend_models(req_t *r);
void api_global_spend_provider(req_t *r);
void api_global_spend_tags(req_t *r);
void api_global_end_users(req_t *r);
void api_global_all_end_users(req_t *r);
void api_global_all_tag_names(req_t *r);
void api_global_report(req_t *r);
void api_global_reset(req_t *r);
void api_global_refresh(req_t *r);
void api_key_report(req_t *r);
void api_user_report(req_t *r);
void api_team_report(req_t *r);
void api_organization_report(req_t *r);
void api_user_activity(req_t *r);
void api_user_activity_all(req_t *r);
void api_team_activity(req_t *r);
void api_team_activity_all(req_t *r);
void api_organization_activity(req_t *r);
void api_customer_activity(req_t *r);
void api_tag_activity(req_t *r);
void api_agent_activity(req_t *r);

void api_customer_new(req_t *r);
void api_customer_info(req_t *r);
void api_customer_update(req_t *r);
void api_customer_delete(req_t *r);
void api_customer_list(req_t *r);
void api_customer_block(req_t *r);
void api_customer_unblock(req_t *r);
void api_budget_new(req_t *r);
void api_budget_update(req_t *r);
void api_budget_info(req_t *r);
void api_budget_settings(req_t *r);
void api_budget_list(req_t *r);
void api_budget_delete(req_t *r);
void api_tag_new(req_t *r);
void api_tag_update(req_t *r);
void api_tag_delete(req_t *r);
void api_tag_info(req_t *r);
void api_tag_list(req_t *r);
void api_organization_new(req_t *r);
void api_organization_update(req_t *r);
void api_organization_delete(req_t *r);
void api_organization_list(req_t *r);
void api_organization_info(req_t *r);
void api_organization_info_list(req_t *r);
void api_org_member_add(req_t *r);
void api_org_member_update(req_t *r);
void api_org_member_delete(req_t *r);

extern const field_t  user_settings_body[];
extern const field_t  team_settings_body[];
extern const arg_t    audit_args[];

void api_user_settings(req_t *r);
void api_user_settings_update(req_t *r);
void api_team_settings(req_t *r);
void api_team_settings_update(req_t *r);

void api_audit(req_t *r);
void api_audit_one(req_t *r);

void api_absent(req_t *r);

void api_alive(req_t *r);
void api_ready(req_t *r);
void api_metrics(req_t *r);


#endif
