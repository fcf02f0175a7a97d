# The secret of a key is the rights of its user: who gets it by /key/regenerate had them all.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Keytoll::World;
use Test::More;

my $k = Keytoll::Control->new(config => <<'END2');
model_list:
  - {model_name: gpt-4o, litellm_params: {model: openai/gpt-4o}}
  - {model_name: gpt-4o-mini, litellm_params: {model: openai/gpt-4o-mini}}
END2
my $w = Keytoll::World->new($k);
my ($s, $j);

sub key { return $w->ok(POST => '/key/generate', {@_})->{key} }
sub takes { my ($who, $key, $want, $name) = @_; my ($s) = $k->post('/key/regenerate', { key => $key }, key => $w->{key}{$who} // $who); is $s, $want, $name or diag $k->raw }

$w->ok(POST => '/team/update', { team_id => 'alpha', team_member_permissions => [ '/key/service-account/generate', map { "/key/$_" } qw(generate info regenerate) ] });
$w->ok(POST => '/organization/member_add', { organization_id => 'org-A', member => { user_id => 'user-CU', role => 'internal_user' } });

# what the owner is elsewhere

takes(TA => $w->fresh('OW', 'alpha'), 200, 'an admin of a team gets the key of a member who is nothing else');
$w->ok(POST => '/team/member_add', { team_id => 'alpha', member => { user_id => 'user-CU', role => 'user' } });
takes(TA => $w->fresh('CU', 'alpha'), 403, 'but not of one who is in another team');
my $t2 = $w->team('org-A', 'US');
takes(TA => $w->fresh('US', 'alpha'), 403, 'of the same organization either');
$w->ok(POST => '/team/member_add', { team_id => $t2, member => { user_id => 'user-TA', role => 'user' } });
takes(TA => $w->fresh('US', 'alpha'), 200, 'unless he is in it himself');
$w->ok(POST => '/organization/new', { organization_id => 'org-C', organization_alias => 'C' });
$w->ok(POST => '/organization/member_add', { organization_id => 'org-C', member => { user_id => 'user-SA', role => 'internal_user' } });
takes(TA => $w->fresh('SA', 'alpha'), 403, 'nor of one who is in another organization');
$w->ok(POST => '/user/update', { user_id => 'user-TA', max_budget => 5, models => ['gpt-4o-mini'] });
takes(TA => $w->fresh('OW', 'alpha'), 403, 'nor of one who has more for himself');
$w->ok(POST => '/user/update', { user_id => 'user-OW', max_budget => 5, models => ['gpt-4o-mini'] });
takes(TA => $w->fresh('OW', 'alpha'), 200, 'or as much');
$w->ok(POST => '/user/update', { user_id => 'user-OW', max_budget => 6 });
takes(TA => $w->fresh('OW', 'alpha'), 403, 'even a little');
$w->ok(POST => '/user/update', { user_id => 'user-OW', max_budget => 5 });

# what he has in the team

$w->ok(POST => '/team/member_update', { team_id => 'alpha', user_id => 'user-IU', allowed_models => ['gpt-4o-mini'] });
my $svc = $w->ok(POST => '/key/service-account/generate', { team_id => 'alpha' })->{key};
takes(IU => $svc, 403, 'a member with a list gets no account of a service without');
takes(IU => $w->fresh('OW', 'alpha'), 403, 'nor the key of a member without');
takes(IU => $w->ok(POST => '/key/service-account/generate', { team_id => 'alpha', models => ['gpt-4o-mini'] })->{key}, 200, 'but one within his list');
takes(IU => $w->fresh('IU', 'alpha'), 200, 'and his own');
$w->ok(POST => '/team/member_update', { team_id => 'alpha', user_id => 'user-IU', allowed_models => undef, max_budget_in_team => 1 });
takes(IU => $svc, 403, 'a member with a budget gets no key without it');
takes(IU => $w->fresh('OW', 'alpha'), 403, 'nor the budget of another');
takes(TA => $svc, 200, 'an admin without one does');

sub svc { return $w->ok(POST => '/key/service-account/generate', { team_id => 'alpha' })->{key} }
sub makes { my ($who, $want, $name) = @_; my ($s) = $k->post('/key/service-account/generate', { team_id => 'alpha' }, key => $w->{key}{$who}); is $s, $want, $name or diag $k->raw }
makes(IU => 403, 'nor makes one');
$w->ok(POST => '/team/member_update', { team_id => 'alpha', user_id => 'user-TA', max_budget_in_team => 1 });
makes(TA => 200, 'an admin does: the budget of the team is his to spend');
takes(TA => svc(), 200, 'and gets one');
takes(TA => $w->fresh('OW', 'alpha'), 403, 'but not the budget of another');
$w->ok(POST => '/team/member_update', { team_id => 'alpha', user_id => 'user-TA', max_budget_in_team => undef });
takes(TA => $w->fresh('OW', 'alpha'), 200, 'unless he has none');
my $t3 = $w->team('org-A', 'OW');
$w->ok(POST => '/team/member_add', { team_id => $t3, member => { user_id => 'user-TA', role => 'user' }, max_budget_in_team => 1 });
takes(TA => $w->fresh('OW', 'alpha'), 403, 'nor when he has one where its user is as well');
$w->ok(POST => '/team/member_delete', { team_id => $t3, user_id => 'user-TA' });
makes(US => 200, 'a member without limits makes an account of a service');
takes(US => svc(), 200, 'and gets one');
$w->ok(POST => '/user/update', { user_id => 'user-US', rpm_limit => 1 });
makes(US => 403, 'not so one with limits of his own');
takes(US => svc(), 403, 'who gets none either');
makes(SA => 200, 'a member of an organization without limits makes one');
$w->ok(PATCH => '/organization/member_update', { organization_id => 'org-A', user_id => 'user-SA', max_budget_in_organization => 5 });
my $budget = $k->sql("SELECT budget_id FROM organization_memberships WHERE user_id = 'user-SA' AND organization_id = 'org-A'");
$w->ok(POST => '/budget/update', { budget_id => $budget, max_budget => undef, rpm_limit => 1 });
makes(SA => 403, 'not so one whose place there is limited');
takes(SA => svc(), 403, 'who gets none either');

# what the key has

my $P = key(user_id => 'user-IU', models => ['gpt-4o-mini']);
for my $more ({ aliases => { x => 'gpt-4o' } }, { router_settings => { model_group_alias => { x => { model => 'gpt-4o' } } } }, { permissions => { get_spend_routes => \1 } }, { config => { a => 1 } },
    { allowed_passthrough_routes => ['/x'] }, { max_budget => 1, temp_budget_increase => 10, temp_budget_expiry => '2099-01-01T00:00:00Z' }) {
    my $bounded = $more->{max_budget} ? key(user_id => 'user-IU', models => ['gpt-4o-mini'], max_budget => 1) : $P;
    takes($bounded => key(user_id => 'user-IU', models => ['gpt-4o-mini'], %$more), 403, 'a key does not get one with ' . join ',', sort keys %$more);
}
takes($P => key(user_id => 'user-IU', models => ['gpt-4o-mini'], aliases => { x => 'gpt-4o-mini' }, enforced_params => ['user']), 200, 'but one that does as much, or less');
takes($P => key(user_id => 'user-IU', models => ['gpt-4o-mini'], max_budget => 1, budget_duration => '1s'), 200, 'with limits');
takes(key(user_id => 'user-IU', max_budget => 1) => key(user_id => 'user-IU', max_budget => 1, budget_duration => '1s'), 403, 'that are no wider for being renewed');

# the secret before, in its grace

my $old = $w->fresh('IU');
my $new = $w->ok(POST => '/key/regenerate', { key => $old, grace_period => '1h' })->{key};
my $other = $w->fresh('IU');
for my $c ([ '/key/regenerate', { key => $old } ], [ '/key/regenerate', {} ], [ '/key/update', { key => $old, max_budget => 0 } ], [ '/key/delete', { keys => [$old] } ], [ '/key/generate', {} ],
    [ '/key/delete', { keys => [$other] } ], [ '/key/regenerate', { key => $other } ]) {
    ($s) = $k->post(@$c, key => $old);
    like $s, qr/^40[03]$/, "the secret before does nothing by $c->[0]" or diag $k->raw;
}
($s) = $k->get('/key/info', key => $old);
is $s, 200, 'but works';
($s) = $k->get('/key/info', key => $new);
is $s, 200, 'as does the one after';
takes($new => $old, 200, 'which gets another');

unlike $k->logs, qr/did not check whose|"level":"error"/, 'no error in the log';
done_testing;
