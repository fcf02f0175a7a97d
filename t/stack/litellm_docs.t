# The HTTP calls that LiteLLM's public pages show (virtual keys, users and budgets, team
# budgets, access control, self-serve, temporary budgets), in their order, against the
# whole stack; and that what they change binds at the gate on the next request.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;
use Keytoll::Stack;

my $T = JSON::PP::true;
my $s = Keytoll::Stack->up;
my $j;

sub call {
    my ($what, $method, $path, $body, %o) = @_;
    my $r = http_call($s->{port}, $method, $path, [ 'Authorization', 'Bearer ' . ($o{key} // $s->{vars}{KEYTOLL_MASTER_KEY}), 'Content-Type', 'application/json' ],
        defined $body ? $Keytoll::Test::JSON->encode($body) : undef);
    is($r->{status}, $o{status} // 200, $what) or diag $r->{body};
    $j = $r->{json};
    return $r;
}
sub post { my ($what, $path, $body, %o) = @_; return call($what, 'POST', $path, $body, %o) }
sub get { my ($what, $path, %o) = @_; return call($what, 'GET', $path, undef, %o) }
sub ask { my ($key, %o) = @_; my $r = $s->chat($key, model => 'gpt-4o-mini', %o); $j = $r->{json}; return $r }
sub settled { my ($key) = @_; return eventually { $s->admin(GET => "/key/info?key=$key")->{json}{info}{spend} > 0 } 5 }

# models that the pages speak of
for my $m ([ 'llama3' ], [ 'azure-gpt-3.5' ], [ 'gpt-3.5-turbo' ], [ 'gpt-4' ], [ 'my-free-tier' ], [ 'text-embedding-ada-002', 'beta-models' ]) {
    post("a deployment: $m->[0]", '/model/new', { model_name => $m->[0], litellm_params => { model => 'openai/gpt-4o-mini', input_cost_per_token => 1.5e-7, output_cost_per_token => 6e-7 },
        model_info => { $m->[1] ? (access_groups => [ $m->[1] ]) : () } });
}

note 'Virtual keys';
post('a key that ends', '/key/generate', { models => [ 'gpt-3.5-turbo', 'gpt-4', 'claude-2' ], duration => '20m', metadata => { user => 'ishaan@berri.ai' } });
like($j->{key}, qr/^sk-/, 'is shown');
like($j->{key_name}, qr/^sk-\.\.\.\w{4}$/, 'has an abbreviated name');
ok($j->{expires}, 'and an end');
my $vk = $j->{key};
is(ask($vk, model => 'gpt-4')->{status}, 200, 'it may call gpt-4');
is(ask($vk, model => 'llama3')->{status}, 403, 'and not llama3');
post('one of a team', '/key/generate', { models => [ 'gpt-3.5-turbo', 'gpt-4', 'claude-2' ], duration => '20m', metadata => { user => 'ishaan@berri.ai' }, team_id => 'core-infra', max_budget => 10 });
post('aliases', '/key/generate', { models => ['my-free-tier'], aliases => { 'gpt-3.5-turbo' => 'my-free-tier' }, duration => '30min' });
is(ask($j->{key}, model => 'gpt-3.5-turbo')->{status}, 200, 'a model by another name');
post('an access group', '/key/generate', { models => ['beta-models'], max_budget => 0 });
is(ask($j->{key}, model => 'gpt-4')->{json}{error}{type}, 'key_model_access_denied', 'has its models only');
get('key info', "/key/info?key=$vk");
is_deeply([ $j->{key}, $j->{info}{metadata}{user} ], [ $vk, 'ishaan@berri.ai' ], 'as it was made');
post('key update', '/key/update', { key => $vk, models => [ 'gpt-3.5-turbo', 'claude-2' ], metadata => { user => 'ishaan@berri.ai' }, team_id => 'core-infra' });
is($j->{key}, $vk, 'echoes the key');
is(ask($vk, model => 'gpt-4')->{status}, 403, 'gpt-4 is gone at once');
post('key block', '/key/block', { key => $vk });
is(ask($vk, model => 'gpt-3.5-turbo')->{status}, 401, 'blocked at once');
post('key unblock', '/key/unblock', { key => $vk });
is(ask($vk, model => 'gpt-3.5-turbo')->{status}, 200, 'and back at once');
post('regenerate by the path', "/key/$vk/regenerate", { max_budget => 100, metadata => { team => 'core-infra' }, models => [ 'gpt-4', 'gpt-3.5-turbo' ] });
my $vk2 = $j->{key};
is(ask($vk, model => 'gpt-4')->{status}, 401, 'the old secret is refused at once');
is(ask($vk2, model => 'gpt-4')->{status}, 200, 'the new one passes');
post('regenerate with a grace period', '/key/regenerate', { key => $vk2, grace_period => '48h' });
my $vk3 = $j->{key};
is(ask($vk2, model => 'gpt-4')->{status}, 200, 'both pass');
is(ask($vk3, model => 'gpt-4')->{status}, 200, 'for a while');
get('its spend', "/key/info?key=$vk3");
cmp_ok($j->{info}{spend}, '>', 0, 'is one');
post('key delete', '/key/delete', { keys => [$vk3] });
is_deeply($j->{deleted_keys}, [$vk3], 'echoes it');
is(ask($_, model => 'gpt-4')->{status}, 401, 'and no secret of it passes') for $vk2, $vk3;
post('a user', '/user/new', { user_id => 'ishaan1', user_email => 'ishaan@litellm.ai', user_role => 'internal_user', team_id => 'cto-team', max_budget => 20, budget_duration => '1h' });
like($j->{key}, qr/^sk-/, 'comes with a key');
is_deeply([ @$j{qw(user_id max_budget)} ], [ 'ishaan1', 20 ], 'and his budget');
post('a key of a team that is not there', '/key/generate', { team_id => 'litellm-dev' });

note 'Budgets of users, teams, members';
post('a team with a rate', '/team/new', { team_alias => 'my-new-team_4', members_with_roles => [ { role => 'admin', user_id => '5c4a0aa3-a1e1-43dc-bd87-3c2da8382a3a' } ], rpm_limit => 99 });
is_deeply([ @$j{qw(team_alias rpm_limit max_budget models spend budget_duration)} ], [ 'my-new-team_4', 99, undef, [], 0, undef ], 'as the page shows it');
post('a team with a duration', '/team/new', { team_alias => 'my-new-team_4', members_with_roles => [ { role => 'admin', user_id => '5c4a0aa3-a1e1-43dc-bd87-3c2da8382a3a' } ], budget_duration => '30s' });
my $team = $j->{team_id};
ok($j->{budget_reset_at}, 'says when it resets');
post('a user by id', '/user/new', { user_id => 'ishaan' });
post('a member with a budget', '/team/member_add', { team_id => $team, max_budget_in_team => 0.000000001, member => { role => 'user', user_id => 'ishaan' } });
is($j->{updated_team_memberships}[0]{litellm_budget_table}{max_budget}, 0.000000001, 'it is a nano-dollar');
post('his key', '/key/generate', { user_id => 'ishaan', team_id => $team });
my $member = $j->{key};
is(ask($member, model => 'llama3')->{status}, 200, 'the first request passes');
settled($member);
is(ask($member, model => 'llama3')->{json}{error}{type}, 'budget_exceeded', 'the second does not');
like($j->{error}{message}, qr/User=ishaan in Team=\Q$team\E/, 'and names him and the team');
post('a user without money', '/user/new', { models => [ 'azure-models', 'gpt-4o-mini' ], max_budget => 0, user_id => 'krrish3@berri.ai' });
is($j->{max_budget}, 0, 'zero');
is(ask($j->{key})->{json}{error}{type}, 'budget_exceeded', 'nothing passes');
post('a user with a duration', '/user/new', { team_id => 'core-infra', max_budget => 10, budget_duration => '30s' });
post('another key of his', '/key/generate', { models => ['azure-models'], user_id => 'krrish3@berri.ai' });
post('a key with a budget', '/key/generate', { team_id => 'core-infra', max_budget => 10 });
is(ask($j->{key}, model => 'azure-gpt-3.5', user => 'e09b4da8-ed80-4b05-ac93-e16d9eb56fca')->{status}, 200, 'works');
post('and a duration', '/key/generate', { team_id => 'core-infra', max_budget => 10, budget_duration => '30s' });
post('a budget of a model', '/key/generate', { model_max_budget => { 'gpt-4o' => { budget_limit => '0.0000001', time_period => '1d' } } });
my $mm = $j->{key};
is(ask($mm, model => 'gpt-4o')->{status}, 200, 'the first request of the model passes');
settled($mm);
is(ask($mm, model => 'gpt-4o')->{json}{error}{type}, 'budget_exceeded', 'the second does not');
like($j->{error}{message}, qr/exceeded budget for model=gpt-4o/, 'and says which');
is(ask($mm, model => 'gpt-4o-mini')->{status}, 200, 'another model does');
post("$_->[0] that reset", $_->[1], { max_budget => 10, budget_duration => '30s' }) for [ 'users', '/user/new' ], [ 'keys', '/key/generate' ], [ 'teams', '/team/new' ];
post('rates of a team', '/team/new', { team_id => 'my-prod-team', max_parallel_requests => 10, tpm_limit => 20, rpm_limit => 4 });
is_deeply([ @$j{qw(max_parallel_requests tpm_limit rpm_limit)} ], [ 10, 20, 4 ], 'are kept');
post('rates of models of a team', '/team/new', { team_id => 'my-prod-team-2', model_rpm_limit => { 'gpt-4' => 1, 'gpt-3.5-turbo' => 200 }, model_tpm_limit => { 'gpt-4' => 10000, 'gpt-3.5-turbo' => 20000 } });
post('a key of it', '/key/generate', { team_id => 'my-prod-team-2' });
my $tk = $j->{key};
is(ask($tk, model => 'gpt-4')->{status}, 200, 'one request a minute');
is(ask($tk, model => 'gpt-4')->{status}, 429, 'not two');
post('more of them', '/team/update', { team_id => 'my-prod-team-2', model_rpm_limit => { 'gpt-4' => 100, 'gpt-3.5-turbo' => 200 }, model_tpm_limit => { 'gpt-4' => 10000, 'gpt-3.5-turbo' => 20000 } });
is(ask($tk, model => 'gpt-4')->{status}, 200, 'bind at once');
post('the same by metadata', '/team/update', { team_id => 'my-prod-team-2', metadata => { model_rpm_limit => { 'gpt-4' => 1 }, model_tpm_limit => { 'gpt-4' => 10000 } } });
is(ask($tk, model => 'gpt-4')->{status}, 429, 'too');
post('rates of a user', '/user/new', { user_id => 'krrish@berri.ai', max_parallel_requests => 10, tpm_limit => 20, rpm_limit => 4 });
post('rates of a key', '/key/generate', { max_parallel_requests => 10, tpm_limit => 20, rpm_limit => 4 });
post('rates of a model', '/key/generate', { model_rpm_limit => { 'gpt-4' => 2 }, model_tpm_limit => { 'gpt-4' => 100000 } });
my $mk = $j->{key};
is(ask($mk, model => 'gpt-4')->{status}, 200, "request $_ of two") for 1, 2;
is(ask($mk, model => 'gpt-4')->{status}, 429, 'not three');
post('a budget of customers', '/budget/new', { budget_id => 'free-tier', tpm_limit => 5 });
post('a customer', '/customer/new', { user_id => 'palantir', budget_id => 'free-tier' });
is(ask($s->{vars}{KEYTOLL_MASTER_KEY}, model => 'llama3', user => 'palantir', messages => [ { role => 'user', content => 'gm ' x 100 } ])->{status}, 429, 'binds the master key too');
post('a key of a user that is there', '/key/generate', { models => ['azure-models'], user_id => 'krrish@berri.ai' });
post('a user of an access group', '/user/new', { models => ['beta-models'], max_budget => 0 });
post('agents are not there', '/v1/agents', { agent_name => 'my-agent' }, status => 404);

note 'Team budgets';
post('a team with a tiny budget', '/team/new', { team_alias => 'QA Prod Bot', max_budget => 0.000000001, budget_duration => '1d' });
is_deeply([ @$j{qw(team_alias budget_duration max_budget)} ], [ 'QA Prod Bot', '1d', 0.000000001 ], 'as the page shows it');
like($j->{budget_reset_at}, qr/T00:00:00\.000000Z$/, 'resets at midnight');
post('its key', '/key/generate', { team_id => $j->{team_id} });
my $qa = $j->{key};
is(ask($qa, model => 'llama3', messages => [ { role => 'user', content => 'hi' } ])->{status}, 200, 'the first request passes');
settled($qa);
is(ask($qa, model => 'llama3')->{json}{error}{type}, 'budget_exceeded', 'the second does not');
like($j->{error}{message}, qr/Budget has been exceeded! Team=.* Current cost: .*, Max budget: 0\.000000001|1e-09/, 'and says what it cost');

note 'Access control';
post('an organization', '/organization/new', { organization_alias => 'marketing_department', models => ['gpt-4'], max_budget => 20 });
my $org = $j->{organization_id};
is_deeply([ @$j{qw(organization_alias models metadata)} ], [ 'marketing_department', ['gpt-4'], {} ], 'as the page shows it');
ok($j->{budget_id}, 'with a budget');
post('its admin', '/organization/member_add', { organization_id => $org, member => { role => 'org_admin', user_id => 'ishaan@berri.ai' } });
post('his key', '/key/generate', { user_id => 'ishaan@berri.ai' });
my $oa = $j->{key};
is_deeply([ $j->{user_id}, $j->{models} ], [ 'ishaan@berri.ai', [] ], 'as the page shows it');
post('makes a team', '/team/new', { team_alias => 'engineering_team', organization_id => $org }, key => $oa);
my $eng = $j->{team_id};
is_deeply([ @$j{qw(team_alias organization_id)} ], [ 'engineering_team', $org ], 'of his organization');
post('adds a user to it', '/team/member_add', { team_id => $eng, member => { role => 'internal_user', user_id => 'krrish4@berri.ai' } }, key => $oa);
post('not to another organization', '/team/new', { team_alias => 'other', organization_id => 'elsewhere' }, key => $oa, status => 401);
post('the team has the models of the organization', '/key/generate', { team_id => $eng });
is(ask($j->{key}, model => 'gpt-4o')->{json}{error}{type}, 'org_model_access_denied', 'and no others');

note 'Self-serve';
post('an internal user', '/user/new', { user_email => 'krrishdholakia@gmail.com', user_role => 'internal_user' });
my ($uid, $uk) = @$j{qw(user_id key)};
is($j->{user_role}, 'internal_user', 'with his role');
post('makes his own key', '/key/generate', { key_alias => 'mine' }, key => $uk);
my $own = $j->{key};
is($j->{user_id}, $uid, 'it is his');
get('sees it', '/key/list?return_full_object=true', key => $uk);
ok((grep { ($_->{key_alias} // '') eq 'mine' } @{ $j->{keys} }), 'among his own');
get('sees his spend', '/user/info', key => $uk);
is($j->{user_id}, $uid, 'and himself');
post('deletes it', '/key/delete', { keys => [$own] }, key => $uk);
post('makes no users', '/user/new', { user_email => 'x@example.com' }, key => $uk, status => 401);
post('a team to come into', '/team/new', { team_alias => 'Default', team_id => 'team_id_1' });
call('defaults of new users', PATCH => '/update/internal_user_settings', { user_role => 'internal_user', max_budget => 100, budget_duration => '30d', models => ['no-default-models'],
    teams => [ { team_id => 'team_id_1', max_budget_in_team => 100, user_role => 'user' } ] });
get('are shown', '/get/internal_user_settings');
is($j->{values}{models}[0], 'no-default-models', 'as they were set');
post('a new user has them', '/user/new', { user_email => 'new@example.com', user_role => 'internal_user' });
is_deeply([ $j->{max_budget}, $j->{teams}, $j->{models} ], [ 100, ['team_id_1'], ['no-default-models'] ], 'money, team, models');
is(ask($j->{key})->{status}, 403, 'his personal key can call nothing');
post('his key of the team', '/key/generate', { team_id => 'team_id_1', user_id => $j->{user_id} });
is(ask($j->{key})->{status}, 200, 'can');

note 'A budget that is larger for a while';
post('a tiny key', '/key/generate', { max_budget => 0.0000001 });
my $tiny = $j->{key};
is(ask($tiny)->{status}, 200, 'one request');
settled($tiny);
is(ask($tiny)->{json}{error}{type}, 'budget_exceeded', 'and no more');
post('the increase', '/key/update', { key => $tiny, temp_budget_increase => 100, temp_budget_expiry => '2099-01-15' });
my $r = ask($tiny);
is($r->{status}, 200, 'passes at once');
is($r->{headers}{'x-litellm-key-max-budget'}, '100.0000001', 'with the larger budget');
post('one that is over in a second', '/key/update', { key => $tiny, temp_budget_increase => 100, temp_budget_expiry => do { my @t = gmtime(time + 2); sprintf '%04d-%02d-%02dT%02d:%02d:%02d', $t[5] + 1900, $t[4] + 1, @t[ 3, 2, 1, 0 ] } });
is(ask($tiny)->{status}, 200, 'still passes');
my $over = eventually { ask($tiny)->{status} == 422 } 10;
ok($over, 'and ends by itself');
post('half of an increase', '/key/update', { key => $tiny, temp_budget_increase => 1 }, status => 422);
post('a time that is none', '/key/update', { key => $tiny, temp_budget_increase => 1, temp_budget_expiry => 'soon' }, status => 422);

$s->finish;
done_testing();
