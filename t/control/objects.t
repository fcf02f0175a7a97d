# Budgets, end users, tags and organizations: the admin routes, what a change of a budget
# does to everybody who follows it, and soft budgets.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Test::More;

my $k = Keytoll::Control->new(config => "litellm_settings:\n  max_end_user_budget_id: everybody\n");
my ($s, $j, $h);
my ($T, $F) = (JSON::PP::true, JSON::PP::false);

sub policy {
    my $name = shift;
    my $text = $k->sql("SELECT policy FROM kt_policy WHERE name = '$name'");
    return $text eq '' ? undef : JSON::PP->new->utf8->decode($text);
}

sub limit { my $e = $k->state($_[0]); return $e ? $e->{limit} : 'none' }
sub ok_post { my ($path, $body, $what) = @_; my ($c, $o, $hd) = $k->post($path, $body); is $c, 200, $what // "POST $path" or diag $k->raw; return wantarray ? ($o, $hd) : $o }

# budgets

$j = ok_post('/budget/new', { budget_id => 'b1', max_budget => 1.5, soft_budget => 1, tpm_limit => 10, rpm_limit => 2, max_parallel_requests => 3, budget_duration => '1d' });
is_deeply [ @$j{qw(budget_id max_budget soft_budget tpm_limit rpm_limit max_parallel_requests budget_duration)} ], [ 'b1', 1.5, 1, 10, 2, 3, '1d' ], 'a budget is what was sent';
like $j->{budget_reset_at}, qr/T00:00:00/, 'it renews at midnight';
($s, $j) = $k->post('/budget/new', { budget_id => 'b1' });
is $s, 400, 'an id once';
($s, $j) = $k->post('/budget/new', { budget_id => 'b2', max_budget => -1 });
is $s, 400, 'no negative budget';
($s, $j) = $k->post('/budget/new', { budget_id => 'b2', budget_reset_at => '2030-01-01T00:00:00Z' });
is $s, 400, 'what cannot be set is not ignored';
$j = ok_post('/budget/new', { max_budget => 3 });
like $j->{budget_id}, qr/^[0-9a-f-]{36}$/, 'an id is drawn';
my $drawn = $j->{budget_id};
$j = ok_post('/budget/info', { budgets => [ 'b1', $drawn ] });
is scalar @$j, 2, 'info of two';
($s) = $k->post('/budget/info', { budgets => [] });
is $s, 400, 'info of none';
($s, $j) = $k->get('/budget/list');
is ref $j, 'ARRAY', 'the list is a bare array';
($s, $j) = $k->get('/budget/settings?budget_id=b1');
is_deeply [ map { $_->{field_name} } grep { defined $_->{field_value} && $_->{field_name} eq 'max_budget' } @$j ], ['max_budget'], 'settings';
($s) = $k->post('/budget/update', { budget_id => 'none', max_budget => 1 });
is $s, 404, 'an unknown budget';
($s) = $k->post('/budget/update', { max_budget => 1 });
is $s, 400, 'no budget';

# everybody who follows one

my $key = ok_post('/key/generate', { budget_id => 'b1', rpm_limit => 9 })->{token};
ok_post('/customer/new', { user_id => 'c/1', budget_id => 'b1', alias => 'C' });
ok_post('/tag/new', { name => 'tag 1', budget_id => 'b1', description => 'd', models => ['m'] });
ok_post('/organization/new', { organization_id => 'o1', organization_alias => 'Org', budget_id => 'b1', models => ['m1'] });
ok_post('/team/new', { team_id => 't1', team_member_budget => 2, team_member_rpm_limit => 4, team_member_budget_duration => '1h' });
my $mkey = ok_post('/key/generate', { team_id => 't1', user_id => 'u1' })->{token};
my @follow = ("key:$key", 'customer:c%2F1', 'tag:tag%201', 'org:o1');
is limit($_), 1500000000, "$_ has the limit of its budget" for @follow;
is $k->state("key:$key")->{rpm_limit}, 9, 'what a key says itself stays';
is $k->state($_)->{rpm_limit}, 2, "$_ takes what it leaves open" for @follow[1 .. 3];
my $day = int(time / 86400) * 86400;
is $k->state($_)->{period_end}, $day + 86400, "$_ renews with its budget" for @follow;
is $k->state($_)->{par_limit}, 3, "$_: parallel requests too" for @follow;
($j, $h) = ok_post('/budget/update', { budget_id => 'b1', max_budget => 7, rpm_limit => undef, budget_duration => '30d' });
is $h->{'x-keytoll-propagated'}, undef, 'a change is pushed before the answer';
is limit($_), 7000000000, "$_ has the new limit at once" for @follow;
is $k->state($_)->{rpm_limit}, '', "$_ has no rate any more" for @follow[1 .. 3];
is policy($_)->{period}{kind}, 'month', "$_ renews by the month" for @follow;
is $k->state($_)->{period_id}, $day, "$_: the day that is running is not emptied" for @follow;
is policy($_)->{period}{id}, $day, "$_: nor in PostgreSQL" for @follow;
ok_post('/budget/update', { budget_id => 'b1', budget_enforcement => 'strict' });
is policy($_)->{strict}, $T, "$_ is strict with its budget" for @follow;

is limit('member:t1/u1'), 2000000000, 'a member has the default of its team';
is $k->state('member:t1/u1')->{rpm_limit}, 4, 'and its rate';
is policy('member:t1/u1')->{period}{len_s}, 3600, 'and its period';
my $tb = $k->sql("SELECT member_budget_id FROM teams WHERE team_id = 't1'");
ok_post('/budget/update', { budget_id => $tb, max_budget => 5, budget_duration => '1d' });
is limit('member:t1/u1'), 5000000000, 'a change of that budget reaches the member';
is policy('member:t1/u1')->{period}{len_s}, 86400, 'with its period';
ok_post('/team/update', { team_id => 't1', team_member_budget => 6 });
is limit('member:t1/u1'), 6000000000, 'so does one through the team';

# model limits of a budget

ok_post('/budget/update', { budget_id => 'b1', model_max_budget => { 'gpt-4o' => { budget_limit => 0.5, time_period => '1d' } } });
is limit("$_~m~gpt-4o"), 500000000, "$_ has the model limit of its budget" for @follow;
is_deeply policy($_)->{sub}, [ { m => 'gpt-4o', e => "$_~m~gpt-4o" } ], "$_ names it" for @follow;
ok_post('/budget/update', { budget_id => 'b1', model_max_budget => undef });
is $k->state("$_~m~gpt-4o"), undef, "$_ loses it again" for @follow;

# deleted: nobody is limited by it any more

my $b1 = ok_post('/budget/delete', { id => 'b1' });
is $b1->{budget_id}, 'b1', 'the deleted row';
is limit($_), '', "$_ has no limit any more" for @follow[0, 2, 3];
($s) = $k->post('/budget/delete', { id => 'b1' });
is $s, 404, 'once';

# end users

($s, $j) = $k->get('/customer/info?end_user_id=c%2F1');
is_deeply [ $s, $j->{user_id}, $j->{alias}, $j->{blocked}, exists $j->{budget_id} ], [ 200, 'c/1', 'C', $F, '' ], 'info leaves nulls out';
($s, $j) = $k->get('/end_user/info?end_user_id=nobody');
is_deeply [ $s, @{ $j->{error} }{qw(type param code)} ], [ 404, 'not_found', 'end_user_id', '404' ], 'an unknown end user';
($s, $j) = $k->post('/customer/new', { user_id => 'c/1' });
is_deeply [ $s, @{ $j->{error} }{qw(type param)} ], [ 400, 'bad_request', 'user_id' ], 'an end user once';
($s) = $k->post('/customer/new', { user_id => 'c2', max_budget => 1, budget_id => $drawn });
is $s, 422, 'a budget or a limit, not both';
($s) = $k->post('/customer/new', { user_id => 'c2', budget_id => 'none' });
is $s, 400, 'a budget that is there';
$j = ok_post('/customer/new', { user_id => 'c2', max_budget => 0.25, budget_duration => '7d' });
is $j->{litellm_budget_table}{max_budget}, 0.25, 'limits of its own are a budget';
is limit('customer:c2'), 250000000, 'in Redis';
ok_post('/customer/update', { user_id => 'c2', max_budget => 0.5, alias => undef });
is limit('customer:c2'), 500000000, 'changed';
is policy('customer:c2')->{period}{len_s}, 604800, 'what was not sent stays';
ok_post('/customer/update', { user_id => 'c2', blocked => $T });
is $k->state('customer:c2')->{blocked}, 1, 'blocked';
ok_post('/customer/update', { user_id => 'c2', blocked => $F });
is $k->state('customer:c2')->{blocked}, 0, 'and not';
$j = ok_post('/customer/block', { user_ids => [ 'c2', 'c3' ] });
is_deeply [ map { $_->{user_id} } @{ $j->{blocked_users} } ], [ 'c2', 'c3' ], 'a block makes the missing row';
is $k->state('customer:c3')->{blocked}, 1, 'in Redis';
ok_post('/customer/unblock', { user_ids => [ 'c2', 'c3' ] });
is $k->state('customer:c3')->{blocked}, 0, 'unblocked';
($s, $j) = $k->get('/customer/list');
is_deeply [ sort map { $_->{user_id} } @$j ], [ 'c/1', 'c2', 'c3' ], 'the list';
($s, $j) = $k->post('/customer/delete', { user_ids => [ 'c2', 'nobody' ] });
is $s, 404, 'nothing is deleted if one is missing';
ok $k->state('customer:c2'), 'c2 is there';
ok_post('/customer/new', { user_id => 'shared1', budget_id => $drawn });
ok_post('/customer/new', { user_id => 'shared2', budget_id => $drawn });
($s) = $k->post('/customer/update', { user_id => 'shared1', max_budget => 99 });
is $s, 400, 'one end user does not change the budget of another';
is limit('customer:shared2'), 3000000000, 'as it was';

# the default, made after it was named

is limit('customer:c3'), '', 'the default budget is not there yet';
ok_post('/budget/new', { budget_id => 'everybody', max_budget => 0.1, rpm_limit => 5, budget_duration => '1h' });
is limit('default:customer'), 100000000, 'the default is an entity';
is limit('customer:c3'), 100000000, 'an end user without a budget of its own has it';
is limit('customer:shared1'), 3000000000, 'one with a budget has that';
ok_post('/budget/update', { budget_id => 'everybody', max_budget => 0.2 });
is limit('customer:c3'), 200000000, 'a change reaches them';
ok_post('/customer/delete', { user_ids => ['c3'] });

# tags

($s) = $k->post('/tag/new', { name => 'tag 1' });
is $s, 400, 'a tag once';
$j = ok_post('/tag/info', { names => ['tag 1'] });
is_deeply [ @{ $j->{'tag 1'} }{qw(name description)}, $j->{'tag 1'}{models}[0] ], [ 'tag 1', 'd', 'm' ], 'info';
($s) = $k->post('/tag/info', { names => ['nope'] });
is $s, 404, 'an unknown tag';
ok_post('/tag/update', { name => 'tag 1', max_budget => 4, tpm_limit => 8 });
is limit('tag:tag%201'), 4000000000, 'a limit for the tag';
is $k->state('tag:tag%201')->{tpm_limit}, 8, 'and a rate';
ok_post('/tag/update', { name => 'tag 1', max_budget => 3 });
is limit('tag:tag%201'), 3000000000, 'another limit';
($s, $j) = $k->get('/tag/list');
is $j->[0]{litellm_budget_table}{max_budget}, 3, 'the list';
ok_post('/tag/delete', { name => 'tag 1' });
is $k->state('tag:tag%201'), undef, 'deleted';
($s) = $k->post('/tag/delete', { name => 'tag 1' });
is $s, 404, 'once';

# organizations

($s, $j) = $k->request('PATCH', '/organization/update', { organization_id => 'o1', metadata => { a => 1 }, model_rpm_limit => { m1 => 3 }, litellm_budget_table => { max_budget => 8, rpm_limit => 6 } });
is_deeply [ $s, $j->{litellm_budget_table}{max_budget}, $j->{metadata}{a} ], [ 200, 8, 1 ], 'an update with nested limits' or diag $k->raw;
is limit('org:o1'), 8000000000, 'in Redis';
is $k->state('org:o1~m~m1')->{rpm_limit}, 3, 'a model limit';
($s, $j) = $k->request('PATCH', '/organization/update', { organization_id => 'o1', metadata => { b => 2 }, max_budget => 9 });
is_deeply $j->{metadata}, { a => 1, b => 2, model_rpm_limit => { m1 => 3 } }, 'metadata is merged' or diag $k->raw;
($s, $j) = $k->get('/organization/info?organization_id=o1');
is_deeply [ @$j{qw(organization_id organization_alias)}, $j->{models}[0] ], [ 'o1', 'Org', 'm1' ], 'info';
($s, $j) = $k->get('/organization/list?org_alias=RG');
is scalar @$j, 1, 'by a part of the alias';
($s) = $k->get('/organization/info?organization_id=nope');
is $s, 404, 'an unknown one';
my $okey = ok_post('/key/generate', { organization_id => 'o1' })->{token};
($s, $j) = $k->request('DELETE', '/organization/delete', { organization_ids => ['o1'] });
is $s, 200, 'deleted' or diag $k->raw;
is $k->state('org:o1')->{blocked}, 1, 'its keys are refused at once';
($s) = $k->get('/organization/info?organization_id=o1');
is $s, 404, 'and it is gone';

# model access: aliases and groups in the policies

ok_post('/team/new', { team_id => 't2', models => ['big'], model_aliases => { big => 'team-big', x => 'y' } });
my $ak = ok_post('/key/generate', { team_id => 't2', models => ['all-team-models'], aliases => { mine => 'big', z => 'zz' }, router_settings => { model_group_alias => { routed => { model => 'r1' }, z => 'no' } } })->{token};
is_deeply policy("key:$ak")->{aliases}, { big => 'team-big', x => 'y', mine => 'team-big', z => 'zz', routed => 'r1' }, 'a key knows its own names and the team\'s';
is_deeply [ sort @{ policy('team:t2')->{models} } ], [ 'big', 'team-big', 'y' ], 'a team may use what its aliases mean';
is policy("key:$ak")->{models}, undef, 'all-team-models leaves it to the team';
my $v = $k->state("key:$ak")->{v};
ok_post('/team/update', { team_id => 't2', model_aliases => { big => 'other' } });
is policy("key:$ak")->{aliases}{mine}, 'other', 'another alias of the team';
cmp_ok $k->state("key:$ak")->{v}, '>', $v, 'pushes its keys before the answer';
ok_post('/team/new', { team_id => 't3', models => ['all-team-models'] });
is_deeply policy('team:t3')->{models}, ['all-team-models'], 'on a team that name means nothing';
$k->post('/user/new', { user_id => 'closed', models => [ 'no-default-models', 'm1' ], auto_create_key => $F });
is_deeply policy('user:closed')->{models}, ['no-default-models'], 'no-default-models on a user closes all';
my $gk = ok_post('/key/generate', { models => [ 'beta', 'm0' ] })->{token};
is_deeply policy("key:$gk")->{models}, [ 'beta', 'm0' ], 'a group nobody is in';
my $model = ok_post('/model/new', { model_name => 'm9', litellm_params => { model => 'openai/m9' }, model_info => { access_groups => ['beta'] } })->{model_id};
is_deeply policy("key:$gk")->{models}, [ 'beta', 'm0', 'm9' ], 'a deployment joins it';
$v = $k->state("key:$gk")->{v};
ok_post('/model/delete', { id => $model });
is_deeply policy("key:$gk")->{models}, [ 'beta', 'm0' ], 'and leaves';
cmp_ok $k->state("key:$gk")->{v}, '>', $v, 'pushed before the answer';

# soft budgets alert once per period and never refuse

my $soft = ok_post('/key/generate', { soft_budget => 0.001, max_budget => 1 })->{token};
$k->sql("INSERT INTO meters (ent, period_id, used_nusd) VALUES ('key:$soft', 0, 999999)");
is $k->sql('SELECT kt_soft_alerts()'), 0, 'below the soft budget: nothing';
$k->sql("UPDATE meters SET used_nusd = 1000000 WHERE ent = 'key:$soft'");
ok $k->until(sub { $k->sql("SELECT concat_ws('|', kind, limit_nusd, used_nusd, sent_at IS NULL) FROM alerts WHERE ent = 'key:$soft'") eq 'soft_budget|1000000|1000000|t' }), 'at it: one alert by the daemon';
$k->sql("UPDATE meters SET used_nusd = 2000000 WHERE ent = 'key:$soft'");
is $k->sql('SELECT kt_soft_alerts()'), 0, 'not another in the same period';

# an end user that was only booked gets a row

$k->sql("INSERT INTO meters (ent, period_id, used_nusd) VALUES ('customer:only%20seen', 0, 5)");
is $k->sql("SELECT user_id FROM customers WHERE ent = 'customer:only%20seen'"), 'only seen', 'an end user that was booked has a row';
ok $k->until(sub { $k->state('customer:only%20seen') }), 'and is pushed';

is $k->sql("SELECT count(*) FROM audit WHERE object_type IN ('LiteLLM_BudgetTable', 'LiteLLM_EndUserTable', 'LiteLLM_TagTable', 'LiteLLM_OrganizationTable')") > 20, 1, 'every change is in the audit';
ok $k->until(sub { $k->sql('SELECT count(*) FROM outbox') eq '0' }), 'the outbox is empty';
unlike $k->logs, qr/"level":"(?:error|fatal)"/, 'no error in the log';
done_testing;
