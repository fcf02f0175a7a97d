/* The handlers, one per route. */

#ifndef CTL_API_H
#define CTL_API_H

#include "http.h"


void api_key_generate(req_t *r);
void api_key_update(req_t *r);
void api_key_delete(req_t *r);
void api_key_info(req_t *r);
void api_key_list(req_t *r);
void api_key_block(req_t *r);
void api_key_unblock(req_t *r);

void api_user_new(req_t *r);
void api_user_info(req_t *r);

void api_team_new(req_t *r);
void api_team_update(req_t *r);
void api_team_info(req_t *r);
void api_team_block(req_t *r);
void api_team_unblock(req_t *r);

void api_model_new(req_t *r);
void api_model_info(req_t *r);
void api_model_delete(req_t *r);
void api_models(req_t *r);
void api_models_one(req_t *r);

void api_spend_logs(req_t *r);

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

void api_alive(req_t *r);
void api_ready(req_t *r);
void api_metrics(req_t *r);


#endif
