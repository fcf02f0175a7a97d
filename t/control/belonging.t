# To whom things belong: a team that moves takes its keys along, and nobody gets what is
# another's by making a team, by adding members or by changing himself.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Keytoll::World;
use Test::More;

my $k = Keytoll::Control->new(config => <<'END_OF_MODELS');
model_list:
  - {model_name: gpt-4o, litellm_params: {model: openai/gpt-4o}}
  - {model_name: gpt-4o-mini, litellm_params: {model: openai/gpt-4o-mini}}
END_OF_MODELS
my $w = Keytoll::World->new($k);
my ($s, $j);
sub as { ($s, $j) = $w->as(@_); return $s }
sub admin { ($s, $j) = $k->request(@_); return $s }
sub org_of { return $k->sql("SELECT organization_id FROM keys WHERE token = '$_[0]'") }
sub refs { my $p = $k->sql("SELECT policy FROM kt_policy WHERE name = 'key:$_[0]'"); return join ' ', grep { /^org/ } map { ref $_ ? $_->{e} : $_ } @{ JSON::PP->new->utf8->decode($p)->{refs} } }

# --- a team that moves

$w->ok(POST => '/organization/member_add', { organization_id => 'org-B', member => [ map { { user_id => "user-$_", role => 'internal_user' } } qw(TA IU) ] });
my $t = $w->team('org-A', 'TA', 'IU');
$w->ok(POST => '/team/update', { team_id => $t, team_member_permissions => [ '/key/generate', '/key/update' ] });
is as(IU => POST => '/key/generate', { team_id => $t, organization_id => 'org-A' }), 200, "the team's organization may be named" or diag $k->raw;
my $named = $j->{token};
as(IU => POST => '/key/generate', { team_id => $t });
my $silent = $j->{token};
is org_of($named), 'org-A', 'and is kept';
for my $path ([ POST => '/key/generate', { team_id => $t } ], [ POST => '/key/update', { key => $named } ], [ POST => '/key/regenerate', { key => $silent } ]) {
    is admin($path->[0], $path->[1], { %{ $path->[2] }, organization_id => 'org-B' }), 400, "$path->[1]: not another's, not even by an admin";
    like $k->raw, qr/A key of a team is of the organization of the team/, 'with the reason';
}
is org_of($named), 'org-A', 'nothing changed';
my $before = $k->state("key:$named")->{v};
$w->ok(POST => '/team/update', { team_id => $t, organization_id => 'org-B' });
is org_of($named), 'org-B', 'a team takes its keys along';
is refs($named), 'org:org-B orgmember:org-B/user-IU', 'which are of the new one';
is refs($silent), refs($named), 'as those that named none';
cmp_ok $k->state("key:$named")->{v}, '>', $before, 'before the answer';
is admin(POST => '/key/update', { key => $named, team_id => 'alpha' }), 200, 'a key that moves' or diag $k->raw;
is org_of($named), 'org-A', 'is of the organization of its new team';
is admin(POST => '/key/update', { key => $named, team_id => undef, organization_id => 'org-B' }), 200, 'one that leaves its team may be of another' or diag $k->raw;
is org_of($named), 'org-B', 'which it is';
my $loose = $w->ok(POST => '/key/generate', { team_id => $t, organization_id => 'org-B' })->{token};
$w->ok(POST => '/team/update', { team_id => $t, organization_id => undef });
is_deeply [ org_of($loose), refs($loose) ], [ '', '' ], 'a team that leaves takes them, too';

$w->ok(DELETE => '/organization/member_delete', { organization_id => 'org-B', user_id => 'user-TA' });

# --- a team id that keys name already

my $dangling = $w->ok(POST => '/key/generate', { team_id => 'nobodys', user_id => 'user-CU', organization_id => 'org-B' });
is org_of($dangling->{token}), 'org-B', 'a team that is not there yet has no organization';
is as(OA => POST => '/team/new', { team_id => 'nobodys', organization_id => 'org-A' }), 403, 'nobody but a proxy admin makes a team of keys that are there';
like $k->raw, qr/is that of keys or members already/, 'with the reason';
is_deeply [ $k->sql("SELECT implicit FROM teams WHERE team_id = 'nobodys'"), org_of($dangling->{token}) ], [ 't', 'org-B' ], 'nothing changed';
$w->ok(POST => '/team/new', { team_id => 'gone', organization_id => 'org-A' });
$w->ok(POST => '/team/delete', { team_ids => ['gone'] });
is as(OA => POST => '/team/new', { team_id => 'gone', organization_id => 'org-A' }), 200, 'one that was deleted is free' or diag $k->raw;
is as(PA => POST => '/team/new', { team_id => 'nobodys', organization_id => 'org-A' }), 200, 'a proxy admin does' or diag $k->raw;
is refs($dangling->{token}), 'org:org-A', 'and its keys are of its organization';

# --- the organization of its team is no other one

$w->ok(POST => '/team/update', { team_id => 'alpha', team_member_permissions => [ map { "/key/$_" } qw(generate update info regenerate) ] });
$w->ok(POST => '/team/member_add', { team_id => 'alpha', member => { user_id => 'user-OA', role => 'admin' } });
for my $who (qw(OA IU)) {
    my $own = $w->fresh($who, 'alpha');
    for my $path ('/key/update', '/key/regenerate') {
        is as($who => POST => $path, { key => $own, organization_id => 'org-A', $path =~ /update/ ? (max_budget => 1) : () }), 200, "$who names it to $path" or diag $k->raw;
        $own = $j->{key};
        is as($who => POST => $path, { key => $own, organization_id => 'org-B' }), $who eq 'OA' ? 401 : 403, 'but no other';
    }
    is as(IU => POST => '/key/update', { key => $own, organization_id => undef, max_budget => 1 }), 200, 'none says nothing of a key that names none' or diag $k->raw if $who eq 'IU';
    is $k->sql("SELECT count(*) FROM keys WHERE token = kt_key_of(encode(sha256('$own'), 'hex')) AND organization_id IS NULL"), 1, 'the key stays as it was';
    my $named = $w->ok(POST => '/key/generate', { user_id => "user-$who", team_id => 'alpha', organization_id => 'org-A' })->{key};
    is as($who => POST => '/key/update', { key => $named, organization_id => $_ }), $who eq 'OA' ? 401 : 403, 'what names one keeps it' for undef, 'org-B';
}

# --- every organization has a budget

$j = $w->ok(POST => '/organization/new', { organization_alias => 'bare' });
ok $j->{budget_id}, 'without limits';
is $j->{litellm_budget_table}{budget_id}, $j->{budget_id}, 'and shows it';
is $j->{litellm_budget_table}{max_budget}, undef, 'that limits nothing';
my $budget = $j->{budget_id};
admin(PATCH => '/organization/update', { organization_id => $j->{organization_id}, max_budget => 5 });
is_deeply [ $s, $j->{budget_id}, $j->{litellm_budget_table}{max_budget} ], [ 200, $budget, 5 ], 'a limit that comes later is in it';

# --- what was there before

my ($there) = $k->slurp("$Keytoll::Control::ROOT/sql/027_belonging.sql") =~ /(-- Keys and organizations that are there\..*)/s;
my $old = $w->ok(POST => '/key/generate', { team_id => 'alpha', user_id => 'user-IU', organization_id => 'org-A' })->{token};
my $own = $w->ok(POST => '/key/generate', { user_id => 'user-IU', organization_id => 'org-B' })->{token};
$k->sql("ALTER TABLE keys DISABLE TRIGGER keys_refs; UPDATE keys SET organization_id = 'org-B' WHERE token = '$old'; ALTER TABLE keys ENABLE TRIGGER keys_refs;"
      . "UPDATE organizations SET budget_id = NULL, max_budget_nusd = 7, version = version WHERE organization_id = 'org-B'");
like refs($old), qr/^org:org-B/, 'a key that was left behind';
$k->sql($there);
is_deeply [ org_of($old), refs($old) ], [ 'org-A', 'org:org-A orgmember:org-A/user-IU' ], 'is where its team is';
is org_of($own), 'org-B', 'a personal one stays';
like $k->sql("SELECT budget_id || ' ' || max_budget_nusd FROM organizations WHERE organization_id = 'org-B'"), qr/^[0-9a-f-]{36} 7$/, 'an organization without a budget has one, and its own limit';
is $k->sql("SELECT count(*) FROM organizations WHERE budget_id IS NULL AND deleted_at IS NULL"), 0, 'so have all';
$k->sql("UPDATE organizations SET max_budget_nusd = NULL WHERE organization_id = 'org-B'");

# --- people of others

my $ob = $w->ok(POST => '/team/member_add', { team_id => 'gamma', member => { role => 'user', user_email => 'ob@example.com' } })->{updated_users}[0];
is_deeply [ $ob->{user_id}, map { $_->{organization_id} } @{ $ob->{organization_memberships} } ], [ 'user-OB', 'org-B' ], 'a proxy admin sees all of a user';
my @brief = qw(user_alias user_email user_id user_role);
my @adds = ([ TA => '/team/member_add', { team_id => 'alpha', member => { role => 'user', user_email => 'ob@example.com' } } ],
            [ OA => '/team/member_add', { team_id => $w->team('org-A'), member => { role => 'user', user_email => 'ob@example.com' } } ],
            [ OA => '/organization/member_add', { organization_id => 'org-A', member => { role => 'internal_user', user_email => 'pa@example.com' } } ]);
for my $c (@adds) {
    is as($c->[0], POST => $c->[1], $c->[2]), 200, "$c->[0] adds somebody else's by $c->[1]" or diag $k->raw;
    is_deeply [ sort keys %{ $j->{updated_users}[0] } ], \@brief, 'and learns who it is, no more';
}
is as(TA => POST => '/team/bulk_member_add', { team_id => 'alpha', members => [ { role => 'user', user_email => 'pa@example.com' }, { role => 'user', user_id => 'user-CU' } ] }), 200, 'many at once';
is_deeply [ sort keys %{ $j->{results}[1]{updated_user} } ], \@brief, 'of another organization: who it is';
$w->ok(POST => '/organization/member_add', { organization_id => 'org-B', member => { role => 'internal_user', user_id => 'user-OW' } });
is as(TA => POST => '/team/member_delete', { team_id => 'alpha', user_id => 'user-OW' }), 200, 'a colleague';
as(TA => POST => '/team/member_add', { team_id => 'alpha', member => { role => 'user', user_id => 'user-OW' } });
is_deeply [ sort keys %{ $j->{updated_users}[0] } ], \@brief, 'of a colleague no more';
as(OA => GET => '/user/list?user_ids=user-OW');
is_deeply [ map { $_->{organization_id} } @{ $j->{users}[0]{organization_memberships} } ], ['org-A'], 'an admin of one of them sees that one';
as(TA => GET => '/key/list?team_id=alpha&return_full_object=true&expand=user&size=100');
my ($cu) = map { $_->{user} } grep { ($_->{user_id} // '') eq 'user-CU' } @{ $j->{keys} };
ok !$cu || !exists $cu->{metadata}, 'lists of keys show no more';
# whoever adds somebody to his organization does not get to know what is another's of him

sub listed { my ($who, $id) = @_; as($who, GET => "/user/list?user_ids=$id"); return (grep { $_->{user_id} eq $id } @{ $j->{users} })[0] }
$w->ok(POST => '/user/update', { user_id => $_, max_budget => 77, metadata => { note => 'of another' }, user_alias => "alias of $_" }) for qw(user-CU user-PA user-SA);
$w->ok(POST => '/user/new', { user_id => 'roams', max_budget => 7, auto_create_key => JSON::PP::false });
$w->ok(POST => '/key/generate', { user_id => 'named', organization_id => 'org-B' });
is listed(OA => 'user-CU'), undef, 'one of another organization is not listed';
$w->ok(DELETE => '/organization/member_delete', { organization_id => 'org-A', user_id => 'user-PA' });
for my $id (qw(user-CU user-PA roams named)) {
    is as(OA => POST => '/organization/member_add', { organization_id => 'org-A', member => { user_id => $id, role => 'internal_user' } }), 200, "an admin adds $id" or diag $k->raw;
    is_deeply [ sort keys %{ $j->{updated_users}[0] } ], \@brief, 'and learns who it is';
    is_deeply [ sort keys %{ listed(OA => $id) } ], \@brief, 'so does he by the list';
    unlike $k->raw, qr/of another|77|org-B/, 'no more';
}
is listed(OA => 'user-CU')->{user_alias}, 'alias of user-CU', 'with the other name';
is listed(OB => 'user-CU')->{metadata}{note}, 'of another', 'whose own he is sees all of him';
is listed(OB => 'user-CU')->{max_budget}, 77, 'with his budget';
is_deeply [ map { $_->{organization_id} } @{ listed(OB => 'user-CU')->{organization_memberships} } ], ['org-B'], 'but not where else he is';
is listed(OA => 'user-SA')->{max_budget}, 77, 'whom a proxy admin put there is seen';
is as(OA => POST => '/organization/member_add', { organization_id => 'org-A', member => { user_email => 'fresh\@example.com', role => 'internal_user' } }), 200, 'whom he makes' or diag $k->raw;
ok exists $j->{updated_users}[0]{metadata}, 'he sees';
ok exists listed(OA => $j->{updated_users}[0]{user_id})->{spend}, 'also in the list';
is listed(PA => 'user-CU')->{max_budget}, 77, 'a proxy admin sees everybody';
$w->ok(POST => '/organization/member_add', { organization_id => 'org-A', member => { user_id => 'user-OB', role => 'internal_user' } });
ok exists listed(OA => 'user-OB')->{metadata}, 'and may put somebody into several';
$w->ok(DELETE => '/organization/member_delete', { organization_id => 'org-A', user_id => $_ }) for qw(user-CU user-PA user-OB roams named);

my ($homes) = $k->slurp("$Keytoll::Control::ROOT/sql/027_belonging.sql") =~ /(WITH m AS \(UPDATE organization_memberships.*?FROM m;)/s;
$w->ok(POST => '/organization/member_add', { organization_id => 'org-A', member => [ map { { user_id => $_, role => 'internal_user' } } qw(user-CU user-PA) ] });
$k->sql($homes);
is $k->sql("SELECT string_agg(user_id || ' ' || organization_id, ',' ORDER BY user_id) FROM organization_memberships WHERE NOT home AND user_id IN ('user-CU', 'user-PA', 'user-SA')"), 'user-CU org-A,user-PA org-A', 'of old memberships the first is home, of proxy admins none';
$w->ok(DELETE => '/organization/member_delete', { organization_id => 'org-A', user_id => $_ }) for qw(user-CU user-PA);

for my $who (qw(TA IU)) {
    my $n = $k->sql("SELECT count(*) FROM memberships WHERE team_id = 'alpha'");
    is as($who, POST => '/team/bulk_member_add', { team_id => 'alpha', all_users => JSON::PP::true }), 403, "$who does not add everybody";
    is $k->sql("SELECT count(*) FROM memberships WHERE team_id = 'alpha'"), $n, 'nobody was added';
}
my $all = $w->team('org-A');
is as(OA => POST => '/team/bulk_member_add', { team_id => $all, all_users => JSON::PP::true }), 200, 'an admin of the organization does' or diag $k->raw;
is $k->sql("SELECT count(*) FROM memberships m WHERE team_id = '$all' AND user_id <> 'default_user_id' AND NOT EXISTS (SELECT 1 FROM organization_memberships o WHERE o.organization_id = 'org-A' AND o.user_id = m.user_id)"), 0, 'with everybody of it';
cmp_ok $j->{successful_additions}, '>', 3, 'all of them';
cmp_ok $w->ok(POST => '/team/bulk_member_add', { team_id => $all, all_users => JSON::PP::true })->{successful_additions}, '>', 0, 'a proxy admin with everybody';

# --- oneself

my $member = sub { return $k->sql("SELECT allowed_models::text || ' ' || coalesce(budget_id, '-') FROM memberships WHERE team_id = 'alpha' AND user_id = 'user-TA'") };
$w->ok(POST => '/team/member_update', { team_id => 'alpha', user_id => 'user-TA', allowed_models => ['gpt-4o'], max_budget_in_team => 1 });
my $was = $member->();
for my $b ({ allowed_models => [] }, { allowed_models => undef }, { max_budget_in_team => 9 }, { max_budget_in_team => undef }, { rpm_limit => 1 }, { budget_duration => '1d' }, { tpm_limit => undef, role => 'admin' }) {
    for my $me ({ user_id => 'user-TA' }, { user_email => 'ta@example.com' }) {
        is as(TA => POST => '/team/member_update', { team_id => 'alpha', %$me, %$b }), 403, 'a team admin sets nothing of his own: ' . join ' ', sort keys %$b;
        is $member->(), $was, 'nothing changed';
    }
}
like $k->raw, qr/can not change his own limits/, 'with the reason';
is as(TA => POST => '/team/member_update', { team_id => 'alpha', user_id => 'user-TA', role => 'admin' }), 200, 'his role he may send';
is $member->(), $was, 'which leaves his limits';
is as(TA => POST => '/team/member_update', { team_id => 'alpha', user_id => 'user-IU', max_budget_in_team => 2 }), 200, 'those of others too' or diag $k->raw;
$w->ok(POST => '/team/member_add', { team_id => 'gamma', member => { role => 'admin', user_id => 'user-OA' } });
for my $b ({ max_budget_in_team => 2 }, { max_budget_in_team => undef }, { allowed_models => [] }) {
    is as(OA => POST => '/team/member_update', { team_id => 'gamma', user_id => 'user-OA', %$b }), 403, 'an admin of the organization neither: ' . join ' ', sort keys %$b;
}
is as(OA => POST => '/team/member_update', { team_id => 'gamma', user_id => 'user-OA', role => 'admin' }), 200, 'his role he may send' or diag $k->raw;
is as(PA => POST => '/team/member_update', { team_id => 'gamma', user_id => 'user-PA', max_budget_in_team => 2 }), 400, 'a proxy admin is asked whether he is a member at all';
$w->ok(POST => '/team/member_update', { team_id => 'gamma', user_id => 'user-OA', max_budget_in_team => 1 });
for my $c ([ OA => 'gamma' ], [ TA => 'alpha' ]) {
    is as($c->[0], POST => '/team/member_delete', { team_id => $c->[1], user_id => "user-$c->[0]" }), 403, "$c->[0] does not take himself out, to come back without";
    like $k->raw, qr/You have limits of your own/, 'with the reason';
    is $k->sql("SELECT count(*) FROM memberships WHERE team_id = '$c->[1]' AND user_id = 'user-$c->[0]'"), 1, 'he is still in it';
}
is as(PA => POST => '/team/member_delete', { team_id => 'gamma', user_id => 'user-OA' }), 200, 'somebody else does' or diag $k->raw;
$w->ok(POST => '/team/member_add', { team_id => 'gamma', member => { role => 'admin', user_id => 'user-OA' } });
is as(OA => POST => '/team/member_delete', { team_id => 'gamma', user_id => 'user-OA' }), 200, 'without limits he goes as he likes' or diag $k->raw;
$w->ok(POST => '/team/member_add', { team_id => 'gamma', member => { role => 'admin', user_id => 'user-OA' } });

my $in_org = sub { return $k->sql("SELECT coalesce(max_budget_nusd::text, 'none') FROM organization_memberships m LEFT JOIN budgets b USING (budget_id) WHERE m.organization_id = 'org-A' AND user_id = 'user-OA'") };
$w->ok(PATCH => '/organization/member_update', { organization_id => 'org-A', user_id => 'user-OA', max_budget_in_organization => 1 });
for my $max (undef, 2, 0) {
    for my $me ({ user_id => 'user-OA' }, { user_email => 'oa@example.com' }) {
        is as(OA => PATCH => '/organization/member_update', { organization_id => 'org-A', %$me, max_budget_in_organization => $max }), 403, 'nor does he in the organization';
        like $k->raw, qr/can not change his own limits/, 'with the reason';
    }
}
is $in_org->(), 1_000_000_000, 'nothing changed';
is as(OA => PATCH => '/organization/member_update', { organization_id => 'org-A', user_id => 'user-OA', role => 'org_admin' }), 200, 'his role he may send' or diag $k->raw;
is $in_org->(), 1_000_000_000, 'which leaves his limit';
is as(OA => PATCH => '/organization/member_update', { organization_id => 'org-A', user_id => 'user-IU', max_budget_in_organization => 2 }), 200, 'those of others he sets' or diag $k->raw;
is as(PA => PATCH => '/organization/member_update', { organization_id => 'org-A', user_id => "user-$_", max_budget_in_organization => undef }), 200, 'a proxy admin too' or diag $k->raw for qw(OA IU);

# --- what the proxy's admins decide of a team

for my $f ([ budget_enforcement => 'last_call' ], [ allowed_passthrough_routes => ['/x'] ]) {
    is as(OA => POST => '/team/update', { team_id => 'gamma', @$f }), 403, "$f->[0] of a team is not for an admin of its organization" or diag $k->raw;
    is as(OA => POST => '/team/new', { organization_id => 'org-A', @$f }), 403, 'nor of a new one';
    is as(PA => POST => '/team/update', { team_id => 'gamma', @$f }), 200, 'but for a proxy admin' or diag $k->raw;
}

# --- what a team gives to its members: models, the life of keys, permissions

my $g = 'given';
$w->ok(POST => '/team/new', { team_id => $g, organization_id => 'org-A', default_team_member_models => ['gpt-4o-mini'], team_member_key_duration => '1d', team_member_permissions => [ '/key/generate', '/key/update', '/key/regenerate' ],
                              members_with_roles => [ { role => 'user', user_id => 'user-IU' }, { role => 'admin', user_id => 'user-TA' } ] });
my $models = sub { return $k->sql("SELECT allowed_models FROM memberships WHERE team_id = '$g' AND user_id = '$_[0]'") };
is $models->('user-IU'), '{gpt-4o-mini}', 'new members have the models of the team for them';
is $models->('user-TA'), '{}', 'not its admins';
$w->ok(POST => '/team/member_add', { team_id => $g, member => { role => 'user', user_id => 'user-OW' } });
$w->ok(POST => '/team/member_add', { team_id => $g, member => { role => 'user', user_id => 'user-US' }, allowed_models => ['gpt-4o'] });
is_deeply [ map { $models->("user-$_") } qw(OW US) ], [ '{gpt-4o-mini}', '{gpt-4o}' ], 'who comes later too, unless it is said otherwise';
is admin(POST => '/team/update', { team_id => $g, default_team_member_models => 'gpt-4o' }), 422, 'a list';
is admin(POST => '/team/update', { team_id => $g, @$_ }), 400, 'a duration' for [ team_member_key_duration => 'long' ], [ metadata => { team_member_key_duration => 7 } ];
my $left = sub { return $k->sql("SELECT coalesce(round(extract(epoch FROM expires - now()) / 3600)::text, 'never') FROM keys WHERE token = '$_[0]'") };
my $mint = sub { my ($who, %b) = @_; return as($who, POST => '/key/generate', { team_id => $g, %b }) };
is $mint->('IU'), 200, 'a key of a member' or diag $k->raw;
is $left->($j->{token}), 24, 'ends as the team says';
my $mine = $j->{key};
is $mint->('IU', duration => '2h'), 200, 'before that' or diag $k->raw;
is $left->($j->{token}), 2, 'if he says so';
for my $d ('25h', '-1') {
    is $mint->('IU', duration => $d), 403, "not $d";
    like $k->raw, qr/end after 1d \(team_member_key_duration\)/, 'with the reason';
}
is as(IU => POST => '/key/update', { key => $mine, duration => $_ }), 403, 'not by a change' for '30d', undef;
is as(IU => POST => '/key/regenerate', { key => $mine, duration => '30d' }), 403, 'nor with another secret';
is as(IU => POST => '/key/update', { key => $mine, duration => '3h' }), 200, 'less' or diag $k->raw;
$w->ok(POST => '/team/new', { team_id => 'before', organization_id => 'org-A', team_member_permissions => [ '/key/generate', '/key/update' ], members_with_roles => [ { role => 'user', user_id => 'user-IU' } ] });
for my $c ([ undef, 24 ], [ '40h', 24 ], [ '4h', 4 ]) {
    as(IU => POST => '/key/generate', { team_id => 'before', defined $c->[0] ? (duration => $c->[0]) : () });
    my $moved = $j->{token};
    is as(IU => POST => '/key/update', { key => $moved, team_id => $g }), 200, 'a key that comes from another team' or diag $k->raw;
    is $left->($moved), $c->[1], 'ends no later';
}
$mint->('PA', user_id => 'user-IU');
is $left->($j->{token}), 'never', 'a proxy admin is not bound';

my $of_ow = $w->ok(POST => '/key/generate', { team_id => $g, user_id => 'user-OW' })->{token};
for my $c ([ '/key/block', { key => $of_ow } ], [ '/key/unblock', { key => $of_ow } ], [ "/key/$of_ow/reset_spend", { reset_to => 0 } ], [ '/key/delete', { keys => [$of_ow] } ]) {
    (my $right = $c->[0]) =~ s{/[0-9a-f]{64}/}{/{key_id}/};
    $w->ok(POST => '/team/permissions_update', { team_id => $g, team_member_permissions => ['/key/info'] });
    is as(IU => POST => @$c), 403, "$right is not for members";
    $w->ok(POST => '/team/permissions_update', { team_id => $g, team_member_permissions => [$right] });
    is as(IU => POST => @$c), 200, 'but by permission' or diag $k->raw;
    is as(CU => POST => @$c), $right eq '/key/delete' ? 404 : 403, 'of members alone' or diag $k->raw;
}

# --- what would do nothing

my %nothing = (tag_rpm_limit => { t => 1 }, mcp_rpm_limit => { m => 1 }, object_permission => { models => ['gpt-4o'] });
for my $f (sort keys %nothing) {
    my $some = $w->ok(POST => '/key/generate', {})->{key};
    my @at = ([ POST => '/key/generate', {} ], [ POST => '/key/update', { key => $some } ], $f eq 'tag_rpm_limit' ? () : [ POST => '/team/new', {} ],
              $f eq 'object_permission' ? [ POST => '/organization/new', { organization_alias => 'x' } ] : ());
    for my $c (@at) {
        is admin($c->[0], $c->[1], { %{ $c->[2] }, $f => $nothing{$f} }), 400, "$c->[1]: $f is refused";
        like $k->raw, qr/\Q$f\E.*is not supported/, 'by name';
        is admin($c->[0], $c->[1], { %{ $c->[2] }, $f => $_ }), 200, 'but for nothing' or diag $k->raw for undef, {}, $f eq 'object_permission' ? { models => [], vector_stores => ['v'] } : ();
    }
}

# --- lists of models with prices: what the gate would let through

my $priced = sub { my $key = shift; ($s, $j) = $k->get('/model/info', key => $key); return join ' ', sort map { $_->{model_name} } @{ $j->{data} } };
my $grouped = sub { my $key = shift; ($s, $j) = $k->get('/model_group/info', key => $key); return join ' ', sort map { $_->{model_group} } @{ $j->{data} } };
my $personal = $w->fresh('SA');
my $teams = $w->fresh('SA', 'alpha');
like $_->($personal), qr/claude.* gpt-4o gpt/, 'without a list all' for $priced, $grouped;
$w->ok(POST => '/user/update', { user_id => 'user-SA', models => ['gpt-4o-mini'] });
is $_->($personal), 'gpt-4o-mini', 'the list of the user, for a personal key' for $priced, $grouped;
like $_->($teams), qr/claude.* gpt-4o gpt/, 'not for one of a team' for $priced, $grouped;
$w->ok(PATCH => '/organization/update', { organization_id => 'org-A', models => ['gpt-4o'] });
is $_->($teams), 'gpt-4o', 'that the list of the organization binds' for $priced, $grouped;
($s, $j) = $k->get('/model/info?teamId=alpha', key => $teams);
is_deeply [ map { $_->{model_name} } @{ $j->{data} } ], ['gpt-4o'], 'of the team too';
$w->ok(PATCH => '/organization/update', { organization_id => 'org-A', models => [] });
$w->ok(POST => '/user/update', { user_id => 'user-SA', models => ['no-default-models'] });
is $priced->($personal), '', 'no-default-models';

# --- budgets of models

my $budgeted = $w->ok(POST => '/key/generate', { model_max_budget => { 'gpt-4o' => { budget_limit => 2, time_period => '1d' }, 'gpt-4o-mini' => { rpm_limit => 3 } } })->{key};
is_deeply $w->ok(GET => "/key/info?key=$budgeted")->{info}{model_max_budget_usage}, { 'gpt-4o' => { current_spend => 0, budget_limit => 2, time_period => '1d' } }, 'what is spent of each';
is_deeply $w->ok(GET => "/key/info?key=$personal")->{info}{model_max_budget_usage}, {}, 'none';

# --- the users of keys in a list

$w->ok(POST => '/user/update', { user_id => 'user-SA', max_budget => 77, metadata => { note => 'private' } });
for my $c ([ TA => undef, undef ], [ OA => 77, 'private' ]) {
    my ($who, $max, $note) = @$c;
    ($s, $j) = $w->as($who, GET => '/key/list?include_team_keys=true&expand=user&return_full_object=true&size=100' . ($who eq 'OA' ? '&organization_id=org-A' : ''));
    my ($u) = grep { $_ && $_->{user_id} eq 'user-SA' } map { $_->{user} } @{ $j->{keys} };
    is_deeply [ $u && $u->{user_id}, $u->{max_budget} && 0 + $u->{max_budget}, $u->{metadata}{note} ], [ 'user-SA', $max, $note ], "$who is shown of a member what is his to see";
}

# --- the audit of members

sub audit { return map { JSON::PP->new->utf8->decode($_) } split /\n/, $k->sql("SELECT json_build_array(action, object_id, before, after) FROM audit WHERE object_type = 'LiteLLM_$_[0]' AND object_id LIKE '%:$_[1]' ORDER BY id") }
my $x = $w->team('org-A');
$w->ok(POST => '/team/member_add', { team_id => $x, member => { role => 'user', user_id => 'aud' }, max_budget_in_team => 1 });
$w->ok(POST => '/team/member_update', { team_id => $x, user_id => 'aud', role => 'admin', max_budget_in_team => 2, allowed_models => ['gpt-4o'] });
$w->ok(POST => '/team/member_delete', { team_id => $x, user_id => 'aud' });
$w->ok(POST => '/team/bulk_member_add', { team_id => $x, members => [ { role => 'user', user_id => 'aud' } ], max_budget_in_team => 3 });
my $short = sub { my $m = shift; return $m && join '/', $m->{role}, $m->{max_budget_in_team} // '-', @{ $m->{allowed_models} } };
is_deeply [ map { [ $_->[0], map { $short->($_) } @$_[ 2, 3 ] ] } audit('TeamMembership', "$x/aud") ],
    [ [ 'created', undef, 'user/1' ], [ 'updated', 'user/1', 'admin/2/gpt-4o' ], [ 'deleted', 'admin/2/gpt-4o', undef ], [ 'created', undef, 'user/3' ] ], 'members of teams: before and after';
$w->ok(POST => '/organization/member_add', { organization_id => 'org-A', member => { role => 'internal_user', user_id => 'aud' } });
$w->ok(PATCH => '/organization/member_update', { organization_id => 'org-A', user_id => 'aud', role => 'org_admin', max_budget_in_organization => 2 });
$w->ok(DELETE => '/organization/member_delete', { organization_id => 'org-A', user_id => 'aud' });
$short = sub { my $m = shift; return $m && join '/', $m->{user_role}, ($m->{litellm_budget_table} // {})->{max_budget} // '-' };
is_deeply [ map { [ $_->[0], map { $short->($_) } @$_[ 2, 3 ] ] } audit('OrganizationMembership', 'org-A/aud') ],
    [ [ 'created', undef, 'internal_user/-' ], [ 'updated', 'internal_user/-', 'org_admin/2' ], [ 'deleted', 'org_admin/2', undef ] ], 'of organizations too';
is admin(POST => '/organization/member_add', { organization_id => 'org-A', member => [] }), 422, 'nobody is no member';

done_testing;
