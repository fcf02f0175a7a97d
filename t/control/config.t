# controld.yaml as LiteLLM's own config.yaml: every name is known, and what would weaken
# a protection by being ignored is an error.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Test::More;

my $k = Keytoll::Control->new(no_controld => 1, no_redis => 1);
$k->{port} = Keytoll::Control::free_port();
my ($rc, $out);

sub conf { return $k->write_config(name => 'c' . int(rand 1e9), @_) }
sub check { return $k->run('check-config', '-c', conf(text => shift)) }

my $base = "database_url: x\nredis_url: unix:///x\n";

# every name of LiteLLM's documentation that the reference lists

my $ref = do { local (@ARGV, $/) = ("$Keytoll::Control::ROOT/controld/conf_keys.c"); <> };
for my $name (qw(master_key database_url database_connection_pool_limit allow_requests_on_db_unavailable
        user_api_key_cache_ttl store_model_in_db supported_db_objects proxy_budget_rescheduler_min_time
        proxy_budget_rescheduler_max_time disable_reset_budget proxy_batch_write_at disable_spend_logs
        disable_spend_updates disable_error_logs store_prompts_in_spend_logs
        maximum_spend_logs_retention_period use_redis_transaction_buffer token_rate_limit_type
        global_max_parallel_requests max_parallel_requests enforce_user_param
        reject_clientside_metadata_tags enforced_params user_header_name user_header_mappings
        litellm_key_header_name allowed_ips use_x_forwarded_for allowed_routes admin_only_routes
        public_routes allow_client_side_credentials alerting alerting_threshold alert_types
        alerting_args alert_to_webhook_url spend_report_frequency disable_master_key_return
        disable_adding_master_key_hash_to_db default_team_disabled custom_auth custom_key_generate
        custom_sso custom_ui_sso_sign_in_handler custom_auth_run_common_checks enable_jwt_auth
        litellm_jwtauth enforce_rbac role_permissions enable_oauth2_auth enable_oauth2_proxy_auth
        oauth2_config_mappings ui_access_mode auto_redirect_ui_login_to_sso allow_user_auth
        service_account_settings pass_through_endpoints use_client_credentials_pass_through_routes
        control_plane_url disable_budget_reservation fail_closed_budget_enforcement
        skip_user_budget_on_team_key disable_custom_api_keys key_alias_pattern
        password_policy_min_length disable_password_login_when_sso_enabled
        disable_auto_add_proxy_admin_to_teams dangerously_permit_weak_or_unset_master_key
        include_call_id_in_error_body store_audit_logs max_budget budget_duration timezone
        budget_reset_time budget_exceeded_status_code default_key_generate_params
        upperbound_key_generate_params key_generation_settings enable_key_alias_format_validation
        default_internal_user_params max_internal_user_budget internal_user_budget_duration
        default_team_params default_team_settings max_end_user_budget max_end_user_budget_id
        max_ui_session_budget ui_theme_config public_model_groups callbacks cache cache_params
        enable_redis_auth_cache drop_params num_retries request_timeout default_fallbacks fallbacks
        disable_end_user_cost_tracking cost_discount_config cost_margin_config routing_strategy
        model_group_alias provider_budget_config enable_tag_filtering timeout cooldown_time
        allowed_fails)) {
    like $ref, qr/\{?\(?"$name"/, "$name is known";
}

# a config.yaml as they are written

($rc, $out) = check($base . <<'END');
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: openai/gpt-4o
      api_key: os.environ/OPENAI_API_KEY
general_settings:
  master_key: os.environ/KEYTOLL_MASTER_KEY
  proxy_batch_write_at: 60
  database_connection_pool_limit: 10
  enforce_user_param: false
litellm_settings:
  drop_params: true
  num_retries: 3
  request_timeout: 600
  json_logs: true
  default_internal_user_params:
    user_role: internal_user
    max_budget: 10
    budget_duration: 30d
    models: [gpt-4o]
    teams:
      - team_id: t1
        max_budget_in_team: 5
  upperbound_key_generate_params: {max_budget: 100, duration: 30d, rpm_limit: 1000}
  key_generation_settings:
    team_key_generation: {allowed_team_member_roles: [admin], required_params: [tags]}
    personal_key_generation: {allowed_user_roles: [proxy_admin]}
router_settings:
  routing_strategy: simple-shuffle
  num_retries: 2
END
is $rc, 0, 'is read' or diag $out;
like $out, qr/:10:3: "proxy_batch_write_at" has no effect: /, 'names without effect are listed, with their place';
like $out, qr/"routing_strategy" has no effect: a matter of nginx\.conf/, 'and with the reason';
unlike $out, qr/upperbound|master_key" has/, 'the others are not';
like $out, qr/the configuration is fine\n\z/, 'it is fine';

# what is wrong

for my $c (
    [ "general_settings:\n  allowed_ips: [10.0.0.1]\n", qr/:4:3: "allowed_ips" asks for what Keytoll does not do/ ],
    [ "general_settings:\n  dangerously_permit_weak_or_unset_master_key: true\n", qr/:4:3: "dangerously/ ],
    [ "general_settings:\n  custom_auth: my.auth\n", qr/"custom_auth" asks/ ],
    [ "general_settings:\n  service_account_settings: {enforced_params: user}\n", qr/:4:47: "enforced_params" must be a list/ ],
    [ "general_settings:\n  service_account_settings: {params: [user]}\n", qr/unknown name "params"/ ],
    [ "litellm_settings:\n  default_key_generate_params: {enforced_params: [.a]}\n", qr/enforced_params: each is a name of 1 to 64 bytes/ ],
    [ "general_settings:\n  enforced_params: [a, '']\n", qr/enforced_params: each is a name of 1 to 64 bytes/ ],
    [ "general_settings:\n  enforced_params: [" . join(', ', map { "p$_" } 1 .. 65) . "]\n", qr/at most 64 names/ ],
    [ "router_settings:\n  provider_budget_config: {openai: {budget_limit: 1, time_period: 1d}}\n", qr/"provider_budget_config" asks/ ],
    [ "litellm_settings:\n  default_team_params: {max_bugdet: 1}\n", qr/:4:25: unknown name "max_bugdet"/ ],
    [ "litellm_settings:\n  default_team_params: 5\n", qr/:4:24: "default_team_params" must be a mapping/ ],
    [ "litellm_settings:\n  default_internal_user_params: {user_role: boss}\n", qr/:4:45: "user_role" is not one of its values/ ],
    [ "litellm_settings:\n  max_internal_user_budget: lots\n", qr/:4:29: "max_internal_user_budget" is not an amount/ ],
    [ "litellm_settings:\n  internal_user_budget_duration: soon\n", qr/:4:34: .* is not a duration/ ],
    [ "litellm_settings:\n  budget_exceeded_status_code: 200\n", qr/is not an integer in its range/ ],
    [ "litellm_settings:\n  budget_reset_time: \"25:00\"\n", qr/is not a time/ ],
    [ "litellm_settings:\n  upperbound_key_generate_params: {models: [a]}\n", qr/unknown name "models"/ ],
    [ "litellm_settings:\n  default_internal_user_params: {models: gpt}\n", qr/"models" must be a list/ ],
    [ "general_settings:\n  token_rate_limit_type: both\n", qr/is not one of its values/ ],
    [ "include: [nowhere.yaml]\n", qr/nowhere\.yaml/ ],
    ) {
    ($rc, $out) = check($base . $c->[0]);
    is $rc, 1, $c->[0] =~ s/\n/ | /gr;
    like $out, $c->[1], 'says where and why';
}
($rc, $out) = check($base . "general_settings:\n  enforced_params: [user, metadata.job]\n  service_account_settings: {enforced_params: [seed]}\n");
is $rc, 0, 'what bodies must have' or diag $out;
($rc, $out) = check($base . "general_settings:\n  allowed_ips: []\n  enforce_user_param: false\n");
is $rc, 0, 'a protection that is off is none' or diag $out;

# include and variables

sub put { my ($n, $t) = @_; open my $fh, '>', "$k->{dir}/$n" or die; print $fh $t; close $fh }
put('models.inc', "model_list:\n  - model_name: b\n    litellm_params: {model: openai/b}\n");
put('loop.inc', "include: [loop.inc]\n");
put('bad.inc', "general_settings:\n  nope: 1\n");
($rc, $out) = check("environment_variables:\n  MY_DB: x\n  REDIS_URL: unix:///y\ndatabase_url: os.environ/MY_DB\n"
    . "include: [models.inc]\nmodel_list:\n  - model_name: a\n    litellm_params: {model: openai/a}\n");
is $rc, 0, 'environment_variables and include' or diag $out;
($rc, $out) = check($base . "include: [loop.inc]\n");
is $rc, 1, 'a loop of files ends';
like $out, qr/too many levels of include/, 'and is named';
($rc, $out) = check($base . "include: [bad.inc]\n");
like $out, qr/bad\.inc:2:3: unknown name "nope"/, 'a mistake in an included file has its place';
{
    local @ENV{qw(DATABASE_HOST DATABASE_USERNAME DATABASE_PASSWORD DATABASE_NAME REDIS_HOST)} =
        ('db.example', 'me', "it's", 'n', 'redis.example');
    ($rc, $out) = check("threads: 1\n");
    is $rc, 0, 'a database and Redis by their parts' or diag $out;
}
{
    local $k->{run_master} = undef;
    local $ENV{LITELLM_MASTER_KEY};
    ($rc, $out) = check($base);
    like $out, qr/no master key/, 'without a master key nothing starts';
    ($rc, $out) = check($base . "environment_variables: {LITELLM_MASTER_KEY: sk-" . 'x' x 40 . "}\n");
    is $rc, 0, 'one of the file counts';
    ($rc, $out) = check($base . "general_settings: {master_key: sk-1234}\n");
    like $out, qr/too weak/, 'the well-known one does not';
}

done_testing;
