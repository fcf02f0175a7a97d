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

# --- every organization has a budget

$j = $w->ok(POST => '/organization/new', { organization_alias => 'bare' });
ok $j->{budget_id}, 'without limits';
is $j->{litellm_budget_table}{budget_id}, $j->{budget_id}, 'and shows it';
is $j->{litellm_budget_table}{max_budget}, undef, 'that limits nothing';
my $budget = $j->{budget_id};
admin(PATCH => '/organization/update', { organization_id => $j->{organization_id}, max_budget => 5 });
is_deeply [ $s, $j->{budget_id}, $j->{litellm_budget_table}{max_budget} ], [ 200, $budget, 5 ], 'a limit that comes later is in it';

done_testing;
