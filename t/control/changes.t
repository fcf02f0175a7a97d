# Changes of organizations, customers, tags, budgets, users and teams: what the audit has of
# them, If-Match, pages past the last one, and models that the organization lacks.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use JSON::PP;
use Keytoll::Control;
use Keytoll::World;
use Test::More;

my $k = Keytoll::Control->new(config => <<'END');
litellm_settings:
  max_internal_user_budget: 7
  internal_user_budget_duration: 30d
  default_internal_user_params: {models: [gpt-4o-mini], tpm_limit: 5}
END
my $w = Keytoll::World->new($k);
my ($s, $j, $h);
my $last = 0;
sub mark { $last = $k->sql('SELECT coalesce(max(id), 0) FROM audit') }
# action, id, before, after of what came since
sub audit { return map { decode_json($_) } split /\n/, $k->sql("SELECT json_build_array(action, object_id, before, after) FROM audit WHERE object_type = 'LiteLLM_$_[0]' AND id > $last ORDER BY id") }

# the audit

mark();
$w->ok(POST => '/organization/new', { organization_id => 'o1', organization_alias => 'First', max_budget => 5 });
my ($row) = audit('OrganizationTable');
is_deeply [ @$row[ 0 .. 2 ], $row->[3]{organization_alias} ], [ 'created', 'o1', undef, 'First' ], 'an organization made';
mark();
$w->ok(PATCH => '/organization/update', { organization_id => 'o1', organization_alias => 'Second', max_budget => 6 });
($row) = audit('OrganizationTable');
is_deeply [ $row->[0], $row->[2]{organization_alias}, $row->[3]{organization_alias} ], [ 'updated', 'First', 'Second' ], 'and changed, before and after';
is_deeply [ map { $_->{litellm_budget_table}{max_budget} } @$row[ 2, 3 ] ], [ 5, 6 ], 'with its budget';
$w->ok(POST => '/team/new', { team_id => "o1-$_", organization_id => 'o1' }) for 1, 2;
mark();
$w->ok(DELETE => '/organization/delete', { organization_ids => ['o1'] });
is_deeply [ map { [ @$_[ 0, 1 ], $_->[2]{organization_id}, $_->[3] ] } audit('TeamTable') ], [ map { [ 'deleted', "o1-$_", 'o1', undef ] } 1, 2 ], 'teams go with it, each with a row';

mark();
$w->ok(POST => '/customer/new', { user_id => 'c1', alias => 'one' });
$w->ok(POST => '/customer/update', { user_id => 'c1', alias => 'two' });
is_deeply [ map { [ @$_[ 0, 1 ], map { $_ && $_->{alias} } @$_[ 2, 3 ] ] } audit('EndUserTable') ],
    [ [ 'created', 'c1', undef, 'one' ], [ 'updated', 'c1', 'one', 'two' ] ], 'customers';
mark();
$w->ok(POST => '/customer/block', { user_ids => [ 'c1', 'c2' ] });
is_deeply [ map { [ @$_[ 0, 1 ], map { $_ && $_->{blocked} ? 1 : $_ && 0 } @$_[ 2, 3 ] ] } audit('EndUserTable') ],
    [ [ 'blocked', 'c1', 0, 1 ], [ 'blocked', 'c2', undef, 1 ] ], 'a block of two is two rows';
mark();
$w->ok(POST => '/customer/unblock', { user_ids => ['c1'] });
$w->ok(POST => '/customer/delete', { user_ids => [ 'c1', 'c2' ] });
is_deeply [ map { [ @$_[ 0, 1 ], map { $_ && $_->{blocked} ? 1 : $_ && 0 } @$_[ 2, 3 ] ] } audit('EndUserTable') ],
    [ [ 'unblocked', 'c1', 1, 0 ], [ 'deleted', 'c1', 0, undef ], [ 'deleted', 'c2', 1, undef ] ], 'so are its end and theirs';

mark();
$w->ok(POST => '/tag/new', { name => 'g', description => 'one' });
$w->ok(POST => '/tag/update', { name => 'g', description => 'two' });
$w->ok(POST => '/tag/delete', { name => 'g' });
is_deeply [ map { [ @$_[ 0, 1 ], map { $_ && $_->{description} } @$_[ 2, 3 ] ] } audit('TagTable') ],
    [ [ 'created', 'g', undef, 'one' ], [ 'updated', 'g', 'one', 'two' ], [ 'deleted', 'g', 'two', undef ] ], 'tags';
($s) = $k->post('/tag/delete', { name => 'g' });
is $s, 404, 'one that is gone';

mark();
$w->ok(POST => '/team/permissions_bulk_update', { permissions => ['/key/update'], team_ids => [ 'alpha', 'gamma' ] });
is_deeply [ sort { $a->[1] cmp $b->[1] } map { [ @$_[ 0, 1 ], map { $_->{team_member_permissions} } @$_[ 2, 3 ] ] } audit('TeamTable') ],
    [ map { [ 'updated', $_, [], ['/key/update'] ] } qw(alpha gamma) ], 'rights of several teams: a row each';
mark();
$j = $w->ok(POST => '/team/permissions_bulk_update', { permissions => ['/key/delete'], apply_to_all_teams => JSON::PP::true });
is scalar(audit('TeamTable')), $j->{teams_updated}, 'of all teams too';
is $k->sql("SELECT count(*) FROM audit WHERE object_id IN ('*', '(several)')"), 0, 'none without a name';

# If-Match

$w->ok(POST => '/organization/new', { organization_id => 'm', organization_alias => 'm', max_budget => 1 });
$w->ok(POST => '/customer/new', { user_id => 'm', max_budget => 1 });
$w->ok(POST => '/tag/new', { name => 'm', max_budget => 1 });
$w->ok(POST => '/budget/new', { budget_id => 'm', max_budget => 1 });
for my $c ([ 'organization', [ GET => '/organization/info?organization_id=m' ], [ PATCH => '/organization/update', { organization_id => 'm' } ] ],
           [ 'customer', [ GET => '/customer/info?end_user_id=m' ], [ POST => '/customer/update', { user_id => 'm' } ] ],
           [ 'tag', [ POST => '/tag/info', { names => ['m'] } ], [ POST => '/tag/update', { name => 'm' } ] ],
           [ 'budget', [ POST => '/budget/info', { budgets => ['m'] } ], [ POST => '/budget/update', { budget_id => 'm' } ] ],
           [ 'budget', [ GET => '/budget/settings?budget_id=m' ], [ POST => '/budget/update', { budget_id => 'm' } ] ]) {
    my ($name, $info, $update) = @$c;
    my $read = sub { ($s, $j, $h) = $k->request(@$info); return $h->{etag} };
    my $write = sub { my ($tag, $usd) = @_; ($s, $j, $h) = $k->request($update->[0], $update->[1], { %{ $update->[2] }, max_budget => $usd }, headers => { 'If-Match' => $tag }); return $s };
    my $tag = $read->();
    like $tag, qr/^"\d+"$/, "$name: info has an ETag";
    is $read->(), $tag, 'the same twice';
    is $write->($tag, 2), 200, 'who has seen it may change it' or diag $k->raw;
    my $now = $h->{etag};
    is $write->($tag, 3), 412, 'who has not may not';
    like $k->raw, qr/changed by somebody else/, 'and is told';
    is $read->(), $now, 'the answer had the new ETag';
    is $write->('*', 4), 200, 'any version';
    is $write->($read->(), 5), 200, 'once more';
}
is $k->sql(q{SELECT string_agg(kt_usd(max_budget_nusd)::text, ' ') FROM budgets WHERE budget_id = 'm'}), '5.0', 'refused ones changed nothing';

# of members, rights and blocks of a team, and of blocks of a key: nothing is ignored

my $kept = $w->ok(POST => '/key/generate', { user_id => 'user-IU' })->{key};
my @of_team = map { [ GET => '/team/info?team_id=alpha', @$_ ] }
    [ POST => '/team/member_update', { team_id => 'alpha', user_id => 'user-IU', max_budget_in_team => 3 } ],
    [ POST => '/team/member_add', { team_id => 'alpha', member => { role => 'user', user_id => 'late' } } ],
    [ POST => '/team/member_delete', { team_id => 'alpha', user_id => 'late' } ],
    [ POST => '/team/permissions_update', { team_id => 'alpha', team_member_permissions => ['/key/update'] } ],
    [ POST => '/team/block', { team_id => 'alpha' } ], [ POST => '/team/unblock', { team_id => 'alpha' } ];
push @of_team, map { [ GET => '/team/info?team_id=gamma', POST => "/team/model/$_", { team_id => 'gamma', models => ['gpt-4o'] } ] } qw(add delete);
my @of_org = map { [ GET => '/organization/info?organization_id=org-A', @$_ ] }
    [ PATCH => '/organization/member_update', { organization_id => 'org-A', user_id => 'user-IU', role => 'internal_user' } ],
    [ POST => '/organization/member_add', { organization_id => 'org-A', member => { role => 'internal_user', user_id => 'late' } } ],
    [ DELETE => '/organization/member_delete', { organization_id => 'org-A', user_id => 'late' } ];
for my $c (@of_team, @of_org, map { [ GET => "/key/info?key=$kept", POST => $_, { key => $kept } ] } '/key/block', '/key/unblock') {
    my ($read, $info, @write) = @$c;
    my $tag = sub { ($s, $j, $h) = $k->request($read, $info); return $h->{etag} };
    my $old = $tag->();
    ($s) = $k->request(@write, headers => { 'If-Match' => '"1"' });
    is $s, 412, "$write[1]: not who has not seen it";
    is $tag->(), $old, 'nothing changed';
    ($s) = $k->request(@write, headers => { 'If-Match' => $old });
    is $s, 200, 'who has' or diag $k->raw;
    isnt $tag->(), $old, 'and it is another one now';
}
my $rows = $k->sql('SELECT count(*) FROM audit');
for my $c ([ POST => '/key/generate', {} ], [ POST => '/team/new', {} ], [ POST => '/team/delete', { team_ids => ['gamma'] } ], [ POST => '/key/delete', { keys => [$kept] } ],
           [ POST => '/user/new', { user_id => 'm9' } ], [ POST => '/organization/new', { organization_alias => 'x' } ], [ POST => '/model/new', { model_name => 'x', litellm_params => { model => 'openai/x' } } ]) {
    ($s, $j) = $k->request(@$c, headers => { 'If-Match' => '"1"' });
    is $s, 501, "$c->[1] knows no If-Match" or diag $k->raw;
    is $j->{error}{param}, 'If-Match', 'and says so';
}
is $k->sql('SELECT count(*) FROM audit'), $rows, 'and nothing was done';

# models that the organization lacks

$w->ok(PATCH => '/organization/update', { organization_id => 'org-A', models => [ 'gpt-4o-mini', 'claude-*' ] });
for my $who (qw(TA OA PA)) {
    ($s, $j) = $w->as($who, POST => '/team/model/add', { team_id => 'alpha', models => [ 'gpt-4o-mini', 'gpt-4o' ] });
    is $s, 400, "$who adds no model that the organization lacks";
    like $k->raw, qr/Model 'gpt-4o' not in organization's allowed models/, 'as /team/update says it';
}
is $k->sql("SELECT models FROM teams WHERE team_id = 'alpha'"), '{}', 'nothing was added';
($s, $j) = $w->as('TA', POST => '/team/model/add', { team_id => 'alpha', models => [ 'gpt-4o-mini', 'claude-x' ] });
is $s, 200, 'what it has may be added' or diag $k->raw;
$w->ok(POST => '/team/new', { team_id => 'free' });
$w->ok(POST => '/team/model/add', { team_id => 'free', models => ['gpt-4o'] });

# pages past the last one

for my $path (map { ("$_&page=1", "$_&page=99") } '/v2/team/list?page_size=2', '/user/list?page_size=2', '/audit?page_size=2', '/audit?page_size=2&action=deleted', '/v2/team/list?page_size=1&status=deleted') {
    ($s, $j) = $k->get($path);
    is $s, 200, $path or diag $k->raw;
    cmp_ok $j->{total}, '>', 1, 'has the total';
    my ($list) = grep { ref eq 'ARRAY' } values %$j;
    is scalar @$list, 0, 'and no rows' if $path =~ /99/;
}
my @total = map { ($k->get("/user/list?page_size=2&page=$_"))[1]{total} } 1, 50;
is $total[1], $total[0], 'the same on every page';
($s, $j) = $k->get('/user/list?page=5&user_ids=nobody');
is_deeply [ $s, $j->{total} ], [ 200, 0 ], 'of nothing it is 0';

# users

$w->ok(POST => '/user/new', { user_id => $_, user_role => 'internal_user_viewer', models => ['gpt-4o'], auto_create_key => \0 }) for qw(d1 d2 d3);
$k->sql("UPDATE users SET tpm_limit = NULL, max_budget_nusd = NULL, budget_duration = NULL WHERE user_id = 'd3'");
$w->ok(POST => '/user/update', { user_id => 'd3', user_role => 'internal_user' });
is $k->sql("SELECT concat_ws('|', models, tpm_limit, kt_usd(max_budget_nusd), budget_duration) FROM users WHERE user_id = 'd3'"), '{gpt-4o}|7.0|30d',
    'who becomes an internal user gets their budget, and no other default';
$j = $w->ok(POST => '/user/delete', { user_ids => [ 'd1', 'd2', 'd1', 'd1' ] });
is $j, 2, 'repeated ids are one';
is $k->sql("SELECT count(*) FROM users WHERE user_id IN ('d1', 'd2')"), 0, 'and both are gone';
($s) = $k->post('/user/delete', { user_ids => [ 'd3', 'nobody' ] });
is $s, 404, 'an unknown one is a 404';
is $k->sql("SELECT count(*) FROM users WHERE user_id = 'd3'"), 1, 'and undoes it all';

done_testing;
