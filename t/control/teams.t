# /user/* and /team/* as litellm-api 2 and 3 have it.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Test::More;

my $k = Keytoll::Control->new;
my ($s, $j, $h);

sub err { return $j->{error}{message} // '' }

# users

($s, $j) = $k->post('/user/new', { user_id => 'bob', user_email => ' Bob@example.org ',
        user_role => 'internal_user', max_budget => 5, rpm_limit => 7, user_alias => 'B' });
is $s, 200, 'a user';
is_deeply [ @$j{qw(user_id user_email user_role user_alias max_budget rpm_limit)} ],
    [ 'bob', 'Bob@example.org', 'internal_user', 'B', 5, 7 ], 'is echoed';
like $j->{key}, qr/^sk-/, 'with a key';
is_deeply [ @$j{qw(token token_id)} ], [ undef, undef ], 'whose hash is not shown';
my $key = $j->{key};
($s, $j) = $k->get("/key/info?key=$key");
is_deeply [ @{ $j->{info} }{qw(user_id max_budget rpm_limit)} ], [ 'bob', undef, 7 ],
    'the budget is the user\'s, not the key\'s';
($s, $j) = $k->post('/user/new', { user_id => 'bob' });
is_deeply [ $s, err(), @{ $j->{error} }{qw(type code)} ],
    [ 409, "{'error': 'User with id bob already exists'}", 'internal_server_error', '409' ],
    'twice is 409';
($s, $j) = $k->post('/user/new', { user_id => 'bob2', user_email => 'BOB@example.org' });
is_deeply [ $s, err() ], [ 409, "{'error': 'User with email BOB\@example.org already exists'}" ],
    'so is an e-mail address in another case';
($s, $j) = $k->post('/user/new', { auto_create_key => JSON::PP::false });
is_deeply [ $s, $j->{key} ], [ 200, '' ], 'a user without a key';
like $j->{user_id}, qr/^[0-9a-f-]{36}$/, 'and an id of ours';
($s, $j) = $k->post('/user/new', { user_role => 'king' });
is $s, 422, 'roles are a closed set';
($s, $j) = $k->post('/user/new', { user_id => "a\tb" });
is $s, 400, 'a control character in an id';
($s, $j) = $k->post('/user/new', { user_id => 'x', max_budget => -2 });
like err(), qr/max_budget cannot be negative\. Received: -2\.0/, 'a negative budget';
is $k->sql("SELECT count(*) FROM users WHERE user_id = 'x'"), 0, 'nothing was half written';

($s, $j) = $k->post('/key/generate', { user_id => 'later', max_budget => 1 });
($s, $j) = $k->get('/user/info?user_id=later');
is $s, 404, 'a user whom only a key names is not shown';
($s, $j) = $k->post('/user/new', { user_id => 'later', rpm_limit => 4, auto_create_key =>
        JSON::PP::false });
is $s, 200, 'and can still be made';
is $k->state('user:later')->{rpm_limit}, 4, 'with limits in Redis';

($s, $j) = $k->get('/user/info?user_id=bob');
is_deeply [ $s, $j->{user_id}, $j->{user_info}{user_email}, scalar @{ $j->{keys} } ],
    [ 200, 'bob', 'Bob@example.org', 1 ], 'user info';
is $j->{keys}[0]{team_alias}, 'None', 'a personal key has team_alias "None"';
ok !exists $j->{user_info}{password_hash} && !exists $j->{user_info}{password}, 'no password';
($s, $j) = $k->get('/user/info?user_id=nobody');
is_deeply [ $s, err(), $j->{error}{type} ],
    [ 404, 'User nobody not found', 'internal_server_error' ], 'an unknown user';
$k->post('/user/new', { user_id => 'a+b@c.d', auto_create_key => JSON::PP::false });
($s, $j) = $k->get('/user/info?user_id=a+b@c.d');
is $j->{user_id}, 'a+b@c.d', 'a plus stays a plus';
($s, $j) = $k->get('/user/info');
is $s, 200, 'without an id';
ok @{ $j->{keys} } >= 2, 'all keys';

# teams

($s, $j) = $k->post('/team/new', { team_id => 't1', team_alias => 'Team One', max_budget => 10,
        soft_budget => 5, models => ['gpt-4o'], tpm_limit => 100, budget_duration => '7d',
        metadata => { a => 1 }, tags => ['x'], model_aliases => { fast => 'gpt-4o' },
        members_with_roles => [ { role => 'admin', user_id => 'bob' },
                                { role => 'user', user_email => 'new@example.org' } ],
        team_member_budget => 2, team_member_rpm_limit => 3, team_member_budget_duration => '1d' });
is $s, 200, 'a team';
is_deeply [ @$j{qw(team_id team_alias max_budget soft_budget tpm_limit spend blocked)} ],
    [ 't1', 'Team One', 10, 5, 100, 0, JSON::PP::false ], 'is shown';
is_deeply [ map { "$_->{role}:" . ($_->{user_email} // $_->{user_id}) } @{ $j->{members_with_roles} } ],
    [ 'admin:Bob@example.org', 'user:new@example.org', 'admin:default_user_id' ],
    'members, the creator last';
is_deeply $j->{litellm_model_table}, { model_aliases => { fast => 'gpt-4o' } }, 'model aliases';
like $j->{metadata}{team_member_budget_id}, qr/^team-Team One-budget-/, 'a budget of members';
is $j->{metadata}{tags}[0], 'x', 'tags in metadata';
my $new = $j;
is $k->state('member:t1/bob')->{limit}, '2000000000', 'the member has the default budget';
is $k->state('member:t1/bob')->{rpm_limit}, '3', 'and limit';
is $k->state('member:t1/bob')->{period_end} - $k->state('member:t1/bob')->{period_id}, 86400,
    'and period';

($s, $j) = $k->post('/team/new', { team_id => 't1' });
is_deeply [ $s, err(), $j->{error}{type} ], [ 400, "{'error': 'Team id = t1 already exists."
        . " Please use a different team id.'}", 'internal_server_error' ], 'twice';
($s, $j) = $k->post('/team/new', { max_budget => 1, soft_budget => 1 });
is_deeply [ $s, err() ], [ 400, "{'error': 'soft_budget (1.0) must be strictly lower than"
        . " max_budget (1.0)'}" ], 'a soft budget not below the budget';
($s, $j) = $k->post('/team/new', { team_member_budget => -1 });
is $s, 400, 'a negative member budget';
($s, $j) = $k->post('/team/new', { organization_id => 'nope' });
is $s, 400, 'an unknown organization';
($s, $j) = $k->post('/team/new', { members_with_roles => [ { role => 'boss', user_id => 'x' } ] });
is $s, 422, 'a wrong role';
is $k->sql("SELECT count(*) FROM teams WHERE NOT implicit"), 1, 'none of them left a row';

($s, $j) = $k->post('/team/update', { team_id => 't1', max_budget => undef, soft_budget => undef,
        tpm_limit => 200 });
is_deeply [ $s, $j->{team_id} ], [ 200, 't1' ], 'update';
is_deeply [ @{ $j->{data} }{qw(max_budget soft_budget tpm_limit team_alias)} ],
    [ undef, undef, 200, 'Team One' ], 'null clears, absent stays';
is_deeply [ sort keys %{ $j->{data} } ], [ sort keys %$new ], 'the row has the same fields as new';
($s, $j) = $k->post('/team/update', { team_id => 't1', metadata => { b => 2 } });
is_deeply $j->{data}{metadata}, { b => 2 }, 'metadata is replaced';
($s, $j) = $k->post('/team/update', { team_id => 'nope' });
is_deeply [ $s, err() ], [ 404, "{'error': 'Team not found, passed team_id=nope'}" ], 'unknown';
($s, $j) = $k->post('/team/update', { team_id => 't1', soft_budget => 3, max_budget => 2 });
is $s, 400, 'soft over hard';
is $k->sql("SELECT max_budget_nusd IS NULL FROM teams WHERE team_id = 't1'"), 't', 'nothing changed';
($s, $j) = $k->post('/team/update', {});
is $s, 422, 'team_id is needed';
($s, $j) = $k->post('/team/update', { team_id => 't1', team_member_budget => 4 });
is $k->state('member:t1/bob')->{limit}, '4000000000', 'a new default reaches the members';

($s, $j) = $k->post('/team/block', { team_id => 't1' });
is_deeply [ $s, $j->{blocked} ], [ 200, JSON::PP::true ], 'block';
is $k->state('team:t1')->{blocked}, 1, 'in Redis before the answer';
($s, $j) = $k->post('/team/unblock', { team_id => 't1' });
is_deeply [ $s, $j->{blocked} ], [ 200, JSON::PP::false ], 'unblock';
($s, $j) = $k->post('/team/block', { team_id => 'nope' });
is_deeply [ $s, $j ], [ 404, { detail => { error => 'Team not found, passed team_id=nope' } } ],
    'an unknown team in the other envelope';

$k->post('/key/generate', { team_id => 't1', user_id => 'bob' });
($s, $j) = $k->get('/team/info?team_id=t1');
is_deeply [ $s, $j->{team_id}, scalar @{ $j->{keys} }, scalar @{ $j->{team_memberships} } ],
    [ 200, 't1', 1, 3 ], 'team info';
is $j->{team_memberships}[0]{litellm_budget_table}{max_budget}, 4, 'memberships show their budget';
is $j->{team_info}{team_member_budget_table}{max_budget}, 4, 'and the team its default';
($s, $j) = $k->get('/team/info?team_id=nope');
is_deeply [ $s, err(), $j->{error}{type} ],
    [ 404, "{'message': 'Team not found, passed team id: nope.'}", 'auth_error' ], 'unknown';
($s, $j) = $k->get('/team/info');
is_deeply [ $s, err() ], [ 422, "{'message': 'Malformed request. No team id passed in.'}" ],
    'no id';

($s, $j) = $k->post('/user/new', { user_id => 'carol', teams => [ 't1', 'missing' ],
        auto_create_key => JSON::PP::false });
is_deeply [ $s, $j->{teams} ], [ 200, ['t1'] ], 'a user in teams; a missing one is swallowed';
($s, $j) = $k->get('/user/info?user_id=carol');
is_deeply [ map { $_->{team_id} } @{ $j->{teams} } ], ['t1'], 'shown by user info';
is $j->{teams}[0]{team_memberships}[0]{litellm_budget_table}{max_budget}, 4, 'with memberships';

done_testing;
