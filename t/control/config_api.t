# Settings over the API: the file owns what it declares, and nothing is kept for show.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Test::More;

my $k = Keytoll::Control->new(general => "  key_alias_pattern: '^[a-z-]+\$'\n", config => "litellm_settings:\n"
    . "  upperbound_key_generate_params: {max_budget: 50}\n");
my ($s, $j);
my $yes = JSON::PP::true;
sub detail { return ref $j eq 'HASH' && ref $j->{detail} ? $j->{detail}{error} // '' : '' }
sub setting { return $k->sql("SELECT value FROM settings WHERE name = '$_[0]'") }

($s, $j) = $k->post('/config/update', { general_settings => { default_team_disabled => $yes, password_policy_min_length => 14 },
        litellm_settings => { default_key_generate_params => { max_budget => 1.5, models => ['a'] }, max_internal_user_budget => 3 } });
is_deeply [ $s, $j ], [ 200, { message => 'Config updated successfully' } ], 'settings are saved' or diag $k->raw;
is setting('default_team_disabled'), 'true', 'one by one';
is setting('max_internal_user_budget'), '3', 'of both sections';
for my $c ([ { general_settings => { key_alias_pattern => 'x' } }, qr/key_alias_pattern is set in .*controld\.yaml and can only be changed there/ ],
    [ { litellm_settings => { upperbound_key_generate_params => {} } }, qr/is set in/ ],
    [ { general_settings => { nope => 1 } }, qr/Invalid field=nope passed in\./ ],
    [ { general_settings => { master_key => 'sk-' . 'x' x 40 } }, qr/only be set in the configuration file/ ],
    [ { general_settings => { store_model_in_db => $yes } }, qr/only be set in the configuration file/ ],
    [ { general_settings => { enforce_user_param => $yes } }, qr/asks for what Keytoll does not do/ ],
    [ { general_settings => { proxy_batch_write_at => 1 } }, qr/would have no effect/ ],
    [ { general_settings => { default_team_disabled => 'yes' } }, qr/Invalid type/ ],
    [ { general_settings => { password_policy_min_length => -1 } }, qr/Invalid type/ ],
    [ { litellm_settings => { default_key_generate_params => { max_bugdet => 1 } } }, qr/Invalid type/ ],
    [ { litellm_settings => { default_key_generate_params => { models => [1] } } }, qr/Invalid type/ ],
    [ { litellm_settings => { internal_user_budget_duration => 'soon' } }, qr/Invalid type/ ],
    [ { environment_variables => { A => 'b' } }, qr/only be set in the configuration file/ ],
    [ { router_settings => { num_retries => 1 } }, qr/would have no effect/ ]) {
    ($s, $j) = $k->post('/config/update', { %{ $c->[0] }, general_settings => { default_team_disabled => JSON::PP::false, %{ $c->[0]{general_settings} // {} } } });
    is $s, 400, 'refused';
    like detail(), $c->[1], 'with the reason';
}
is setting('default_team_disabled'), 'true', 'and nothing else of it was saved';

($s, $j) = $k->post('/config/field/update', { field_name => 'disable_custom_api_keys', field_value => $yes, config_type => 'general_settings' });
is_deeply [ $s, $j->{param_value} ], [ 200, { disable_custom_api_keys => $yes } ], '/config/field/update';
($s, $j) = $k->get('/config/field/info?field_name=disable_custom_api_keys');
is_deeply [ $s, $j ], [ 200, { field_name => 'disable_custom_api_keys', field_value => $yes, source => 'database', editable => $yes } ], '/config/field/info';
($s, $j) = $k->get('/config/field/info?field_name=key_alias_pattern');
is_deeply [ @$j{qw(field_value source)}, $j->{editable} ], [ '^[a-z-]+$', 'config', JSON::PP::false ], 'of the file';
($s, $j) = $k->get('/config/field/info?field_name=password_policy_require_digit');
is_deeply [ $s, detail() ], [ 400, 'Field name=password_policy_require_digit not in DB' ], 'one that is not set';
($s, $j) = $k->get('/config/field/info?field_name=master_key');
is $s, 400, 'secrets are not told';
($s, $j) = $k->post('/config/field/update', { field_name => 'disable_custom_api_keys', field_value => $yes, config_type => 'x' });
is $s, 422, 'another config_type';
($s, $j) = $k->get('/config/list?config_type=general_settings');
my %f = map { $_->{field_name} => $_ } @$j;
is_deeply [ $s, @{ $f{default_team_disabled} }{qw(field_type source)}, $f{default_team_disabled}{stored_in_db} ], [ 200, 'Boolean', 'database', $yes ], '/config/list';
ok !$f{master_key} && !$f{database_url}, 'without secrets';
unlike $k->raw, qr/sk-test-master/, 'nor their values';
($s, $j) = $k->get('/config/list?config_type=x');
is $s, 422, 'of nothing else';
($s, $j) = $k->post('/config/field/delete', { field_name => 'disable_custom_api_keys', config_type => 'general_settings' });
is_deeply [ $s, setting('disable_custom_api_keys') ], [ 200, '' ], '/config/field/delete';
cmp_ok $k->sql("SELECT count(*) FROM audit WHERE object_type = 'LiteLLM_Config'"), '>=', 6, 'the audit has every change';

# the dashboard

($s, $j) = $k->request('PATCH', '/update/ui_theme_settings', { logo_url => 'https://example.com/l.png' });
is $s, 200, 'a theme' or diag $k->raw;
($s, $j) = $k->get('/get/ui_theme_settings', key => undef);
is_deeply [ $s, $j->{values}{logo_url} ], [ 200, 'https://example.com/l.png' ], 'is there for everybody';
for my $u ('javascript:alert(1)', '//evil.example/x', 'data:x') {
    is +($k->request('PATCH', '/update/ui_theme_settings', { logo_url => $u }))[0], 400, "not $u";
}
($s, $j) = $k->request('PATCH', '/update/ui_settings', { enabled_ui_pages_internal_users => ['usage'] });
is $s, 200, 'pages';
($s, $j) = $k->get('/get/ui_settings');
is_deeply $j->{values}, { enabled_ui_pages_internal_users => ['usage'] }, 'are kept';

# small ones

is_deeply +($k->get('/config/yaml', key => undef))[1], { hello => 'world' }, '/config/yaml';
is_deeply +($k->get('/get/config/callbacks'))[1]{callbacks}, [], '/get/config/callbacks';
is +($k->get('/health/services?service=slack'))[0], 501, '/health/services says that it does nothing';
is_deeply +($k->get('/provider/budgets'))[1], { providers => {} }, '/provider/budgets';
($s, $j) = $k->get('/routes', key => undef);
cmp_ok scalar @{ $j->{routes} }, '>', 100, '/routes';

done_testing;
