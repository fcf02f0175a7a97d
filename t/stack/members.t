# One person's limits through the whole product: a list of models in a team, a budget in
# an organization, bound by the next request after the admin's answer and counted.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;
use Keytoll::Stack;

my $s = Keytoll::Stack->up;
my ($T, $F) = (JSON::PP::true, JSON::PP::false);

sub admin {
    my ($method, $path, $body) = @_;
    my $r = $s->admin($method, $path, $body);
    is($r->{status}, 200, "$method $path") or diag $r->{raw};
    return $r->{json};
}
sub key { return admin(POST => '/key/generate', {@_})->{key} }
sub chat {
    my ($key, $model, @more) = @_;
    return http_call($s->{port}, 'POST', '/v1/chat/completions', ['Authorization', "Bearer $key", 'Content-Type', 'application/json', 'x-mock-completion-tokens', 10],
        $Keytoll::Test::JSON->encode({ model => $model, max_tokens => 10, messages => [{ role => 'user', content => 'hi' }], @more }));
}
sub says { my $r = shift; return join ' ', $r->{status}, $r->{headers}{'x-keytoll-reason'} // (), $r->{headers}{'x-keytoll-entity'} // () }

# 10 tokens of 2 micro-dollars: a call costs 20,000 nano-USD
for my $name (qw(flat other third)) {
    admin(POST => '/model/new', { model_name => $name, litellm_params => { model => "openai/$name", input_cost_per_token => 0, output_cost_per_token => 0.000002 }, model_info => { max_output_tokens => 1000 } });
}
admin(POST => '/organization/new', { organization_id => $_, organization_alias => $_ }) for qw(o p);
admin(POST => '/user/new', { user_id => $_, auto_create_key => $F }) for qw(ann bob);
admin(POST => '/team/new', { team_id => 't', organization_id => 'o', models => [ 'flat', 'other' ], model_aliases => { quick => 'flat' }, members_with_roles => [ map { { role => 'user', user_id => $_ } } qw(ann bob) ] });
my $ann = key(team_id => 't', user_id => 'ann');
my $bob = key(team_id => 't', user_id => 'bob');
my $team = key(team_id => 't');
my $personal = key(user_id => 'ann', organization_id => 'o');

# --- models of a member

sub list { return admin(POST => '/team/member_update', { team_id => 't', user_id => 'ann', allowed_models => $_[0] }) }
is(says(chat($ann, $_)), '200', "$_ before there is a list") for qw(flat other quick);
for my $round (1 .. 5) {
    list(['flat']);
    my $r = chat($ann, 'other');
    is(says($r), '403 entity_model_denied member:t/ann', "round $round: the next request is refused");
    like($r->{json}{error}{message}, qr/^team member not allowed to access model\. This team member can only access models=\['flat'\]\. Tried to access other/, 'in words') if $round == 1;
    is(says(chat($ann, $_)), '200', "round $round: $_ is not") for qw(flat quick);
    is(says(chat($_, 'other')), '200', "round $round: nor a team-mate, the team, or a personal key") for $bob, $team, $personal;
    list($round % 2 ? undef : []);
    is(says(chat($ann, 'other')), '200', "round $round: without a list it passes at once");
}
list(['quick']);
is(says(chat($ann, 'quick')), '200', 'a second name in the list');
is(says(chat($ann, 'other')), '403 entity_model_denied member:t/ann', 'lets in what it means');
is(says(chat($ann, 'third')), '403 entity_model_denied team:t', 'the list of the team is asked first');
list(['no-default-models']);
is(says(chat($ann, 'flat')), '403 entity_model_denied member:t/ann', 'a list of nothing');
list(['flat']);
my $own = key(team_id => 't', user_id => 'ann', models => ['all-team-models'], aliases => { mine => 'other' });
is(says(chat($own, 'mine')), '403 entity_model_denied member:t/ann', 'an alias of his key does not widen it');
admin(POST => '/team/member_delete', { team_id => 't', user_id => 'ann' });
like(says(chat($ann, 'flat')), qr/^401/, 'who leaves has no key of the team');
admin(POST => '/team/member_add', { team_id => 't', member => { role => 'user', user_id => 'ann' } });
is(says(chat(key(team_id => 't', user_id => 'ann'), 'other')), '200', 'who comes back has no list of before');

# a name of the team in a list of a key is the model that it stands for, as far as the lists of others go
my $quick = key(team_id => 't', models => ['quick']);
is(says(chat($quick, 'quick')), '200', 'a key of a second name');
is(says(chat($quick, 'other')), '403 key_model_denied key:' . token($quick), 'and of nothing else');
admin(POST => '/team/update', { team_id => 't', model_aliases => { quick => 'flat', far => 'third' } });
admin(PATCH => '/organization/update', { organization_id => 'o', models => [ 'flat', 'other' ] });
is(says(chat(key(team_id => 't', models => ['far']), 'far')), '403 entity_model_denied org:o', 'an alias does not lead out of the organization');
admin(PATCH => '/organization/update', { organization_id => 'o', models => [] });

# --- a budget of a member of an organization

sub max { return admin(PATCH => '/organization/member_update', { organization_id => 'o', user_id => 'ann', max_budget_in_organization => $_[0] }) }
admin(POST => '/organization/member_add', { organization_id => 'o', member => [ map { { user_id => $_, role => 'internal_user' } } qw(ann bob) ] });
$ann = key(team_id => 't', user_id => 'ann');
is(says(chat($_, 'flat')), '200', 'no budget yet') for $ann, $personal;
my $spent = sub { my $i = admin(GET => '/organization/info?organization_id=o'); return (grep { $_->{user_id} eq 'ann' } @{ $i->{members} })[0]{spend} };
ok((eventually { $spent->() == 0.00004 } 15), 'what he spends in the organization is counted, by either key, from when he is a member') or diag $spent->();
for my $round (1 .. 3) {
    max(0.00004);
    my $r = chat($ann, 'flat');
    is(says($r), '422 budget_exceeded orgmember:o/ann', "round $round: spent, by the next request");
    is($r->{json}{error}{message}, 'Budget has been exceeded! User=ann in Organization=o Current cost: 0.00004, Max budget: 0.00004', 'in words') if $round == 1;
    is(says(chat($personal, 'flat')), '422 budget_exceeded orgmember:o/ann', "round $round: on all his keys of the organization");
    is(says(chat($_, 'flat')), '200', "round $round: not a member's, the team's") for $bob, $team;
    is(says(chat(key(user_id => 'ann'), 'flat')), '200', "round $round: nor his where it is no matter of the organization");
    max(undef);
    last if $round == 3;
    max(0.00004);
}
is(says(chat($ann, 'flat')), '200', 'without a budget he goes on');
max(0);
is(says(chat($ann, 'flat')), '422 budget_exceeded orgmember:o/ann', 'zero is nothing');
max(1);
is(says(chat($ann, 'flat')), '200', 'more is more');

# last call and strict
admin(PATCH => '/organization/update', { organization_id => 'o', budget_enforcement => 'strict' });
admin(POST => '/organization/member_add', { organization_id => 'o', member => { user_id => 'cid', role => 'internal_user' }, max_budget_in_organization => 0.0001 });
my $cid = key(user_id => 'cid', organization_id => 'o');
my $chat = sub { my ($key, $delay) = @_; return ['POST', '/v1/chat/completions', ['Authorization', "Bearer $key", 'Content-Type', 'application/json', 'x-mock-completion-tokens', 10, 'x-mock-delay-ms', $delay],
    $Keytoll::Test::JSON->encode({ model => 'flat', max_tokens => 10, messages => [] })] };
my %by;
$by{ $_->{status} }++ for http_burst([ $s->{port}, $s->another_nginx ], [ map { $chat->($cid, 30) } 1 .. 40 ]);
is($by{200}, 5, '40 requests at once, strict: what the budget pays for, over two nginx') or diag explain \%by;
is(says(chat($cid, 'flat')), '422 budget_exceeded orgmember:o/cid', 'and no more');

# joining and leaving while requests run: never a fact that is missing, never an error
my $dan = key(user_id => 'dan', organization_id => 'o');
my (%seen, $pid);
$pid = fork // die;
if (!$pid) {
    for (1 .. 15) {
        $s->admin(POST => '/organization/member_add', { organization_id => 'o', member => { user_id => 'dan', role => 'internal_user' }, max_budget_in_organization => 1 });
        $s->admin(DELETE => '/organization/member_delete', { organization_id => 'o', user_id => 'dan' });
    }
    require POSIX;
    POSIX::_exit(0);
}
do { $seen{ says(chat($dan, 'flat')) }++ } until waitpid $pid, 1;
is_deeply([ keys %seen ], ['200'], 'who joins and leaves is served all the while') or diag explain \%seen;

# a rebuild knows it, with what was spent
$s->redis->call('FLUSHALL');
# each worker hears of it by itself: a model that nobody has is 503 or 4xx, and costs nothing
ok((eventually { !grep { chat($bob, 'no-such-model')->{status} == 503 } 1 .. 20 } 30), 'Redis was emptied and is whole again, for every worker');
is(chat($bob, 'flat')->{status}, 200, 'and serves');
max(0.00004);
my $after;
eventually { $after = says(chat($ann, 'flat')); $after !~ /^503/ } 30;               # by whichever worker
is($after, '422 budget_exceeded orgmember:o/ann', 'what he had spent is still counted');

# moved away
max(0);
admin(POST => '/organization/member_add', { organization_id => 'p', member => [ map { { user_id => $_, role => 'internal_user' } } qw(ann bob default_user_id) ] });
admin(POST => '/team/update', { team_id => 't', organization_id => 'p' });
is(says(chat($ann, 'flat')), '200', 'in another organization it is another budget');
is(says(chat($personal, 'flat')), '422 budget_exceeded orgmember:o/ann', 'the one of before is as it was');
admin(DELETE => '/organization/member_delete', { organization_id => 'o', user_id => 'ann' });
is(says(chat($personal, 'flat')), '200', 'a key that stays is not limited by a membership that is gone');

$s->finish;
done_testing();
