# What one person may do: allowed_models of a member of a team, and
# max_budget_in_organization of a member of an organization.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Keytoll::World;
use Test::More;

my $k = Keytoll::Control->new(config => <<'END');
model_list:
  - model_name: azure-only
    litellm_params: {model: azure/my-gpt}
  - model_name: grouped
    litellm_params: {model: openai/gpt-4o}
    model_info: {access_groups: [dear]}
END
my $w = Keytoll::World->new($k);
my ($s, $j, $h);
sub err { return ref $j eq 'HASH' && ref $j->{error} ? $j->{error}{message} // '' : $k->raw // '' }
sub policy { my $t = $k->sql("SELECT policy FROM kt_policy WHERE name = '$_[0]'"); return $t eq '' ? undef : JSON::PP->new->utf8->decode($t) }
sub update { my ($who, %b) = @_; ($s, $j) = $w->as($who, POST => '/team/member_update', { team_id => 'alpha', user_id => 'user-IU', %b }); return $s }
sub models { my $p = policy('member:alpha/user-IU'); return $p->{models} }
sub place { my ($t) = $k->get('/team/info?team_id=alpha'); my (undef, $i) = $k->get('/team/info?team_id=alpha'); return (grep { $_->{user_id} eq 'user-IU' } @{ $i->{team_memberships} })[0] }
sub v { return $k->state($_[0])->{v} }

# --- a list of models of a member of a team

$w->ok(POST => '/team/update', { team_id => 'alpha', models => [ 'gpt-4o', 'gpt-4o-mini', 'openai/*', 'claude-*' ], model_aliases => { fast => 'gpt-4o-mini' },
                                 team_member_permissions => [ map { "/key/$_" } qw(generate update info), 'service-account/generate' ] });
is update('TA', allowed_models => ['gpt-4o']), 200, 'an admin of the team sets a list' or diag $k->raw;
is_deeply [ @$j{qw(user_id team_id max_budget_in_team)}, $j->{allowed_models} ], [ 'user-IU', 'alpha', undef, ['gpt-4o'] ], 'the answer has it';
is_deeply place()->{allowed_models}, ['gpt-4o'], 'so has /team/info';
is_deeply models(), ['gpt-4o'], 'and the policy of the member';
my $before = v('member:alpha/user-IU');
update('TA', max_budget_in_team => 3);
is_deeply [ $s, $j->{max_budget_in_team}, $j->{allowed_models} ], [ 200, 3, ['gpt-4o'] ], 'no list leaves the list';
cmp_ok v('member:alpha/user-IU'), '>', $before, 'a change is in Redis before the answer';
is update('TA', allowed_models => [ 'gpt-4o', 'fast' ]), 200, 'a second name of the team may be in it' or diag $k->raw;
is $j->{max_budget_in_team}, 3, 'a list alone leaves the budget';
is_deeply models(), [ 'fast', 'gpt-4o', 'gpt-4o-mini' ], 'and means the model that it stands for';
$w->ok(POST => '/team/update', { team_id => 'alpha', model_aliases => { fast => 'claude-3' } });
is_deeply models(), [ 'claude-3', 'fast', 'gpt-4o' ], 'as the team has it by now';
$w->ok(POST => '/team/update', { team_id => 'alpha', model_aliases => { fast => 'gpt-4o-mini' } });

for my $bad (['azure-only'], ['gpt-4o', 'azure-only'], ['*o*'], ['bedrock/x'], ['zzz/gpt-4o'], ['nobody-knows-it'], ['dear']) {
    my $was = $k->sql("SELECT allowed_models FROM memberships WHERE ent = 'member:alpha/user-IU'");
    is update('PA', allowed_models => $bad), 400, "not @$bad, which the team may not use";
    like $k->raw, qr/allowed_models: .* is not a model of the team/, 'with the reason';
    is $k->sql("SELECT allowed_models FROM memberships WHERE ent = 'member:alpha/user-IU'"), $was, 'nothing changed';
}
is update('PA', allowed_models => 'gpt-4o'), 422, 'a text is no list';
is update('PA', allowed_models => [ 'gpt-4o', 7 ]), 422, 'a number no name';
is update('IU', allowed_models => []), 403, 'the member himself does not lift it';
is update('CU', allowed_models => []), 403, 'nor somebody else';
for my $all (undef, [], ['all-team-models'], ['*']) {
    is update('TA', allowed_models => $all), 200, 'no list: ' . JSON::PP->new->allow_nonref->encode($all);
    is models(), undef, 'the team decides';
}
is update('TA', allowed_models => ['no-default-models']), 200, 'a list of nothing';
is_deeply models(), ['no-default-models'], 'lets nothing in';
is update('TA', allowed_models => ['gpt-3.5-turbo']), 200, 'openai/* of the team covers what openai serves' or diag $k->raw;

# a group in the list follows the group
$w->ok(POST => '/team/update', { team_id => 'alpha', models => [ 'gpt-4o', 'gpt-4o-mini', 'openai/*', 'claude-*', 'dear', 'joins' ] });
is update('TA', allowed_models => ['dear']), 200, 'a group' or diag $k->raw;
is_deeply models(), [ 'dear', 'grouped' ], 'stands for its models';
$before = v('member:alpha/user-IU');
$w->ok(POST => '/model/new', { model_name => 'joins', litellm_params => { model => 'openai/gpt-4o' }, model_info => { access_groups => ['dear'] } });
is_deeply models(), [ 'dear', 'grouped', 'joins' ], 'also one that joins';
cmp_ok v('member:alpha/user-IU'), '>', $before, 'pushed before the answer';

($s, $j) = $k->post('/team/member_add', { team_id => 'gamma', member => [ map { { role => 'user', user_id => "user-$_" } } qw(IU OW) ], allowed_models => ['gpt-4o'] });
is $s, 200, 'member_add with a list' or diag $k->raw;
is_deeply [ map { $_->{allowed_models} } @{ $j->{updated_team_memberships} } ], [ ['gpt-4o'], ['gpt-4o'] ], 'everyone who was added has it';
is_deeply policy('member:gamma/user-OW')->{models}, ['gpt-4o'], 'in the policy';
$w->ok(POST => '/team/member_add', { team_id => 'gamma', member => { role => 'user', user_id => 'user-US' } });
is policy('member:gamma/user-US')->{models}, undef, 'without one there is none';
is place()->{allowed_models}[0], 'dear', 'another membership is another list';

# what such a member may put into keys

update('TA', allowed_models => [ 'gpt-4o', 'fast' ]);
my $mine = $w->fresh('IU', 'alpha');
sub mint { my ($who, %b) = @_; ($s, $j) = $w->as($who, POST => $b{path} // '/key/generate', { team_id => 'alpha', map { $_ eq 'path' ? () : ($_ => $b{$_}) } keys %b }); return $s }
is mint('IU', models => ['gpt-4o']), 200, 'a key of what he may use' or diag $k->raw;
is mint('IU', models => ['fast']), 200, 'by its second name too' or diag $k->raw;
is mint('IU', models => ['claude-3']), 403, 'not of what he may not, though the team may';
like err(), qr/models exceeds what you have: .* by your membership/, 'with the reason';
is mint('IU', models => [ 'gpt-4o', 'claude-*' ]), 403, 'not hidden among others';
is mint('IU', aliases => { x => 'claude-3' }), 403, 'nor behind an alias';
is mint('IU'), 200, 'a key without a list';
is_deeply policy("key:$j->{token}")->{refs}, [ 'team:alpha', 'org:org-A', 'member:alpha/user-IU', 'orgmember:org-A/user-IU', 'global' ], 'is bound at use';
my $own = $j->{key};
($s, $j) = $w->as('IU', POST => '/key/update', { key => $own, models => ['claude-3'] });
is $s, 403, 'not by an update either';
is mint('IU', path => '/key/service-account/generate'), 403, 'a service account would not be bound by his budget';
update('PA', max_budget_in_team => undef);
is mint('IU', path => '/key/service-account/generate', metadata => { service_account_id => 'x' }), 200, 'without one he makes it' or diag $k->raw;
is_deeply [ sort @{ $j->{models} } ], [ 'fast', 'gpt-4o', 'gpt-4o-mini' ], 'that nobody belongs to has his list';
is mint('IU', path => '/key/service-account/generate', models => ['claude-3'], metadata => { service_account_id => 'y' }), 403, 'and no more';
is mint('IU', path => '/key/service-account/generate', models => ['all-team-models'], metadata => { service_account_id => 'z' }), 403, 'nor everything';
is mint('TA', path => '/key/service-account/generate', metadata => { service_account_id => 'w' }), 200, 'an admin of the team is not bound';
is_deeply $j->{models}, [], 'his is of the team';
is mint('TA', user_id => 'user-IU', models => ['claude-3']), 403, 'for the member he can not give more than the member has';
is mint('OW', models => ['claude-3']), 200, 'another member has no list' or diag $k->raw;
($s) = $k->post('/key/generate', { team_id => 'alpha', user_id => 'user-IU', models => ['claude-3'] });
is $s, 200, 'a proxy admin may, the gate decides';

# what he is shown

sub shown { my ($path, $key) = @_; ($s, $j) = $k->get($path, key => $key); return [ sort map { $_->{id} // $_->{model_name} } @{ $j->{data} } ] }
is_deeply shown('/v1/models', $mine), [ 'fast', 'gpt-4o', 'gpt-4o-mini' ], '/v1/models';
is_deeply shown('/models?team_id=alpha', $w->{key}{IU}), [ 'fast', 'gpt-4o', 'gpt-4o-mini' ], 'of the team';
is_deeply shown('/model/info', $mine), [ 'gpt-4o', 'gpt-4o-mini' ], '/model/info';
cmp_ok scalar @{ shown('/v1/models', $w->fresh('OW', 'alpha')) }, '>', 3, 'another member sees more';
($s) = $k->get('/v1/models/claude-3', key => $mine);
is $s, 404, 'one that he may not use is not found';
my $two = $w->ok(POST => '/key/generate', { user_id => 'user-IU', team_id => 'alpha', models => [ 'gpt-4o', 'claude-3' ] })->{key};
is_deeply [ grep { $_ ne 'fast' } @{ shown('/v1/models', $two) } ], ['gpt-4o'], 'a list of the key on top';
update('TA', allowed_models => ['claude-3']);
is_deeply shown('/v1/models', $mine), ['claude-3'], 'a name that no model has is shown as for teams';
update('TA', allowed_models => undef);

# --- a budget of a member of an organization

sub org { my ($who, $method, $path, $body) = @_; ($s, $j) = $w->as($who, $method => "/organization/$path", { organization_id => 'org-A', %$body }); return $s }
sub max { my ($who, $max, %o) = @_; return org($who, PATCH => 'member_update', { user_id => 'user-IU', max_budget_in_organization => $max, %o }) }
my $e = 'orgmember:org-A/user-IU';
is $k->state($e)->{limit}, '', 'a member of an organization is an entity without a limit';
is max('OA', 2.5), 200, 'an admin of the organization sets a budget' or diag $k->raw;
is_deeply [ @$j{qw(user_id organization_id user_role)}, $j->{litellm_budget_table}{max_budget} ], [ 'user-IU', 'org-A', 'internal_user', 2.5 ], 'shown as litellm_budget_table';
is $j->{budget_id}, $j->{litellm_budget_table}{budget_id}, 'with its id';
is $k->state($e)->{limit}, 2500000000, 'in Redis before the answer';
my $budget = $j->{budget_id};
org('OA', PATCH => 'member_update', { user_id => 'user-IU', role => 'internal_user_viewer' });
is_deeply [ $j->{user_role}, $j->{litellm_budget_table}{max_budget} ], [ 'internal_user_viewer', 2.5 ], 'a change of the role leaves it';
max('OA', 3, role => 'internal_user');
is_deeply [ $j->{budget_id}, $j->{user_role}, $k->state($e)->{limit} ], [ $budget, 'internal_user', 3000000000 ], 'another maximum';
is max('OA', 0), 200, 'zero';
is $k->state($e)->{limit}, 0, 'is nothing to spend';
is max('OA', -1), 400, 'nothing negative';
is max('OA', 'much'), 422, 'and a number';
for my $who (qw(IU TA OB CU)) {
    like max($who, 5), qr/^40[13]$/, "$who may not";
    is $k->state($e)->{limit}, 0, 'and changes nothing';
}
is max('OA', undef), 200, 'null';
is_deeply [ $j->{budget_id}, $j->{litellm_budget_table}, $k->state($e)->{limit} ], [ undef, undef, '' ], 'takes it away';
($s, $j) = $w->as('OA', PATCH => '/organization/member_update', { organization_id => 'org-B', user_id => 'user-CU', max_budget_in_organization => 1 });
like $s, qr/^40[13]$/, 'not in another organization';
is org('PA', PATCH => 'member_update', { user_id => 'user-CU', max_budget_in_organization => 1 }), 404, 'nor of who is no member';

$w->ok(PATCH => '/organization/update', { organization_id => 'org-A', max_budget => 10 });
is max($_, 10.5), 400, "$_: no more than the organization has" for qw(OA PA);
like $k->raw, qr/max_budget_in_organization \(10\.5\) exceeds the max_budget \(10\.0\) of the organization/, 'with the reason';
is max('OA', 10), 200, 'as much';
($s, $j) = $k->get('/organization/info?organization_id=org-A');
is_deeply [ map { $_->{litellm_budget_table}{max_budget} } grep { $_->{user_id} eq 'user-IU' } @{ $j->{members} } ], [10], '/organization/info';
($s, $j) = $k->get('/organization/list?org_id=org-A');
is_deeply [ map { $_->{litellm_budget_table}{max_budget} } grep { $_->{user_id} eq 'user-IU' } @{ $j->[0]{members} } ], [10], '/organization/list';
($s, $j) = $k->post('/organization/member_add', { organization_id => 'org-A', member => [ map { { user_id => $_, role => 'internal_user' } } qw(new1 new2) ], max_budget_in_organization => 0.5 });
is $s, 200, 'member_add with a budget' or diag $k->raw;
is_deeply [ map { $_->{litellm_budget_table}{max_budget} } @{ $j->{updated_organization_memberships} } ], [ 0.5, 0.5 ], 'each has it';
isnt $j->{updated_organization_memberships}[0]{budget_id}, $j->{updated_organization_memberships}[1]{budget_id}, 'each one of his own';
is $k->state("orgmember:org-A/$_")->{limit}, 500000000, "$_ in Redis" for qw(new1 new2);
is org('OA', POST => 'member_add', { member => { user_id => 'new3', role => 'internal_user' }, max_budget_in_organization => 11 }), 400, 'not above the organization';
is $k->sql("SELECT count(*) FROM users WHERE user_id = 'new3'"), 0, 'nothing was half made';

# a budget that others follow: its rules go on, theirs too

$w->ok(POST => '/budget/new', { budget_id => 'plan', max_budget => 4, rpm_limit => 7, budget_duration => '1d', budget_enforcement => 'strict' });
$k->sql("UPDATE organization_memberships SET budget_id = 'plan' WHERE user_id IN ('user-IU', 'user-OW') AND organization_id = 'org-A'");
is_deeply [ @{ policy($e) }{qw(limit rpm strict)}, policy($e)->{period}{len_s} ], [ '4000000000', 7, JSON::PP::true, 86400 ], 'limits, rule and period of the budget';
$w->ok(POST => '/budget/update', { budget_id => 'plan', max_budget => 6 });
is $k->state("orgmember:org-A/user-$_")->{limit}, 6000000000, "a change reaches $_" for qw(IU OW);
is max('OA', 1), 200, 'one of them is given less';
is_deeply [ @{ policy($e) }{qw(limit rpm strict)}, policy($e)->{period}{len_s} ], [ '1000000000', 7, JSON::PP::true, 86400 ], 'and keeps the rest';
is $k->state('orgmember:org-A/user-OW')->{limit}, 6000000000, 'the other has what he had';
is $k->sql("SELECT max_budget_nusd FROM budgets WHERE budget_id = 'plan'"), 6000000000, 'so has the budget';
$w->ok(POST => '/budget/delete', { id => 'plan' });
is $k->state('orgmember:org-A/user-OW')->{limit}, '', 'a budget that is deleted limits nobody';
max('OA', undef);
is policy($e)->{strict}, undef, 'the rule is the default';
$w->ok(PATCH => '/organization/update', { organization_id => 'org-A', budget_enforcement => 'strict' });
is policy($e)->{strict}, JSON::PP::true, 'and follows the organization';

# which keys name it

sub refs { return join ' ', map { ref $_ ? $_->{e} : $_ } @{ policy("key:$_[0]")->{refs} } }
sub token { return $w->ok(POST => '/key/generate', {@_})->{token} }
my $personal = token(user_id => 'user-IU', organization_id => 'org-A');
my $team = token(user_id => 'user-IU', team_id => 'alpha');
my $loose = token(user_id => 'user-IU');
my $foreign = token(user_id => 'user-CU', organization_id => 'org-A');
my $service = token(team_id => 'alpha');
is refs($personal), "org:org-A user:user-IU $e global", 'a personal key of the organization';
is refs($team), "team:alpha org:org-A member:alpha/user-IU $e global", 'a key of a team of the organization';
is refs($loose), 'user:user-IU global', 'not one of no organization';
is refs($foreign), 'org:org-A user:user-CU global', 'nor of somebody who is no member';
is refs($service), 'team:alpha org:org-A global', 'nor of nobody';
$before = v("key:$foreign");
$w->ok(POST => '/organization/member_add', { organization_id => 'org-A', member => { user_id => 'user-CU', role => 'internal_user' } });
is refs($foreign), 'org:org-A user:user-CU orgmember:org-A/user-CU global', 'who becomes a member is one at once';
cmp_ok v("key:$foreign"), '>', $before, 'in Redis too';
$w->ok(DELETE => '/organization/member_delete', { organization_id => 'org-A', user_id => 'user-CU' });
is refs($foreign), 'org:org-A user:user-CU global', 'who leaves is none';
is $k->state('orgmember:org-A/user-CU'), undef, 'and gone from Redis';
ok $k->until(sub { $k->sql('SELECT count(*) FROM outbox') eq '0' }), 'the outbox is empty';

# another organization

$w->ok(POST => '/organization/new', { organization_id => 'org-C', organization_alias => 'C' });
$w->ok(POST => '/organization/member_add', { organization_id => 'org-C', member => [ map { { user_id => "user-$_", role => 'internal_user' } } qw(TA IU OW US SA) ], max_budget_in_organization => 1 });
$w->ok(POST => '/team/update', { team_id => 'alpha', organization_id => 'org-C' });
is refs($team), 'team:alpha org:org-C member:alpha/user-IU orgmember:org-C/user-IU global', 'a team that moves takes its members along';
$w->ok(POST => '/key/update', { key => $personal, organization_id => 'org-C' });
is refs($personal), 'org:org-C user:user-IU orgmember:org-C/user-IU global', 'so does a key';
$w->ok(DELETE => '/organization/delete', { organization_ids => ['org-C'] });
is $k->state('orgmember:org-C/user-IU'), undef, 'an organization that is deleted takes its members along';
my $gone = $w->ok(POST => '/user/new', { user_id => 'goes', auto_create_key => \0, organizations => ['org-A'] });
ok $k->state('orgmember:org-A/goes'), '/user/new makes members too';
$w->ok(POST => '/user/delete', { user_ids => ['goes'] });
is $k->state('orgmember:org-A/goes'), undef, 'who is deleted is no member';

# soft budgets

$w->ok(POST => '/budget/new', { budget_id => 'soft', soft_budget => 0.001 });
$k->sql("UPDATE organization_memberships SET budget_id = 'soft' WHERE user_id = 'user-OW' AND organization_id = 'org-A'");
$k->sql("INSERT INTO meters (ent, period_id, used_nusd) VALUES ('orgmember:org-A/user-OW', 0, 1000000)");
ok $k->until(sub { $k->sql("SELECT limit_nusd FROM alerts WHERE ent = 'orgmember:org-A/user-OW'") eq '1000000' }), 'a soft budget alerts';

ok $k->until(sub { $k->sql('SELECT count(*) FROM outbox') eq '0' }), 'nothing is left in the outbox';
unlike $k->logs, qr/"level":"error"|did not check whose/, 'no error in the log';
done_testing;
