# Nobody gets more than he has: roundabout ways to a limit, a model or a right.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Keytoll::World;
use Test::More;

my $k = Keytoll::Control->new;
my $w = Keytoll::World->new($k);
my ($s, $j);

sub key_of { my ($s, $j) = $k->get("/key/info?key=$_[0]"); return $j->{info} }
sub made { my ($who, $body) = @_; my ($s, $j) = $w->as($who, POST => '/key/generate', $body); return $s == 200 ? $j : undef }

# fields for admins, by whatever way they come

my $own = $w->fresh('OW');
for my $f ({ allowed_passthrough_routes => ['/x'] }) {
    my ($name) = keys %$f;
    ($s) = $w->as(OW => POST => '/key/update', { key => $own, %$f });
    is $s, 403, "$name is for admins";
    ($s) = $w->as(OW => POST => '/key/update', { key => $own, metadata => $f });
    is $s, 403, 'in the metadata too';
    ($s, $j) = $w->as(OW => POST => '/key/generate', { metadata => $f });
    is $s, 403, 'and of a new key';
}
for my $meta ({ temp_budget_increase => 1000, temp_budget_expiry => '2099-01-01T00:00:00Z' }) {
    ($s) = $w->as(OW => POST => '/key/update', { key => $own, metadata => $meta });
    my $info = key_of($own);
    ok $s == 403 || !$info->{metadata}{temp_budget_increase}, 'nobody raises his own budget for a while by the metadata';
    ($s) = $w->as(OW => POST => '/key/update', { key => $own, %$meta });
    is $s, 403, 'nor by the fields';
}

for my $path ('/key/generate', "/key/$own/regenerate") {
    ($s) = $w->as(OW => POST => $path, { max_budget => 1, metadata => { temp_budget_increase => 1e6, temp_budget_expiry => '2099-01-01T00:00:00Z' } });
    like $s, qr/^40[13]$/, "nor by $path";
}
($s) = $w->as(OW => POST => '/key/generate', { models => [], config => {}, permissions => {}, spend => 0, metadata => { allowed_passthrough_routes => undef } });
is $s, 200, 'defaults that clients write out are no rights';
$w->ok(POST => '/key/generate', { max_budget => 1, metadata => { temp_budget_increase => 9e300, temp_budget_expiry => '2099-01-01T00:00:00Z' } });
is $k->sql('SELECT count(*) FROM kt_policy WHERE policy IS NULL'), 0, 'no increase is too much for the policy';

# aliases lead no further than the models of who makes them

my $narrow = $w->ok(POST => '/key/generate', { user_id => 'user-OW', models => ['small'] })->{key};
for my $by ({ aliases => { small => 'gpt-4' } }, { router_settings => { model_group_alias => { small => 'gpt-4' } } },
            { router_settings => { model_group_alias => { small => { model => 'gpt-4' } } } }) {
    my ($way) = keys %$by;
    ($s, $j) = $k->post('/key/generate', { %$by }, key => $narrow);
    is $s, 403, "a new key reaches no other model by $way";
    ($s, $j) = $k->post('/key/update', { key => $narrow, %$by }, key => $narrow);
    is $s, 403, "nor does the key itself by $way";
    ($s, $j) = $k->post("/key/$narrow/regenerate", { %$by }, key => $narrow);
    is $s, 403, "nor its successor by $way";
}
($s, $j) = $k->post('/key/generate', { aliases => { s => 'small' } }, key => $narrow);
is $s, 200, 'an alias of what one has is allowed';
is_deeply $j->{models}, ['small'], 'and the new key has the models of its maker';
($s) = $k->post('/key/generate', { models => ['gpt-4'], aliases => { a => 'gpt-4' } });
is $s, 200, 'admins alias what they like';

# limits per model, windows and periods come with the key that makes another

my $bound = $w->ok(POST => '/key/generate', { user_id => 'user-OW', max_budget => 10, budget_duration => '30d',
    model_max_budget => { small => { budget_limit => 1, time_period => '1d' } }, model_rpm_limit => { small => 3 },
    budget_limits => [ { budget_duration => '1d', max_budget => 2 } ] })->{key};
($s, $j) = $k->post('/key/generate', { max_budget => 1 }, key => $bound);
is $s, 200, 'a key with limits makes another';
my $copy = key_of($j->{key});
is $copy->{budget_duration}, '30d', 'of the same period';
is_deeply $copy->{model_max_budget}, { small => { budget_limit => 1, time_period => '1d' } }, 'the same budgets of models';
is $copy->{metadata}{model_rpm_limit}{small}, 3, 'the same rates of models';
is $copy->{budget_limits}[0]{max_budget}, 2, 'the same windows';
for my $f ({ budget_duration => '1d' }, { model_max_budget => { small => { budget_limit => 9, time_period => '1d' } } },
           { model_rpm_limit => { small => 4 } }, { budget_limits => [ { budget_duration => '1d', max_budget => 3 } ] }) {
    my ($name) = keys %$f;
    ($s) = $k->post('/key/generate', { max_budget => 1, %$f }, key => $bound);
    is $s, 403, "and none with another $name";
}

for my $f ({ budget_duration => '1s' }, { model_max_budget => {} }, { budget_limits => [] }, { model_rpm_limit => { small => 9 } }, { metadata => { model_rpm_limit => {} } }) {
    my ($name) = keys %$f;
    ($s) = $k->post("/key/$bound/regenerate", $f, key => $bound);
    like $s, qr/^40[13]$/, "nor does it get rid of its own $name";
}
my $tk = $w->ok(POST => '/key/generate', { user_id => 'user-TA', team_id => 'alpha', max_budget => 10, budget_duration => '30d', model_rpm_limit => { small => 3 } })->{key};
($s) = $k->post('/key/update', { key => $tk, budget_duration => '1s' }, key => $tk);
is $s, 403, 'nor by an update';
($s) = $k->post('/key/update', { key => $tk, metadata => { note => 'x' } }, key => $tk);
is $s, 200, 'other metadata is his';
is key_of($tk)->{metadata}{model_rpm_limit}{small}, 3, 'but the rates of models stay';

# nobody gets the secret of a key that may do more

my $wide = $w->fresh('OW');
($s) = $k->post('/key/regenerate', { key => $wide }, key => $narrow);
is $s, 403, 'a key with a list of models does not regenerate one without';
($s) = $k->post('/key/regenerate', { key => $narrow }, key => $w->{key}{OW});
is $s, 200, 'the other way it does';
my $pa = $w->ok(POST => '/key/generate', { user_id => 'user-PA', team_id => 'alpha' })->{key};
($s) = $w->as(TA => POST => '/key/regenerate', { key => $pa });
is $s, 403, 'the admin of a team gets no key of a proxy admin';
$w->ok(POST => '/team/permissions_update', { team_id => 'alpha', team_member_permissions => [ '/key/info', '/key/regenerate' ] });
my $tas = $w->fresh('TA', 'alpha');
($s) = $w->as(IU => POST => '/key/regenerate', { key => $tas });
is $s, 403, 'a member gets none of the admin of his team';
my $ow = $w->fresh('OW', 'alpha');
($s) = $w->as(IU => POST => '/key/regenerate', { key => $ow });
is $s, 200, 'but one of another member, when the team permits it';
$w->ok(POST => '/team/permissions_update', { team_id => 'alpha', team_member_permissions => ['/key/info'] });

# organizations

my $tied = $w->ok(POST => '/key/generate', { user_id => 'user-OW', organization_id => 'org-A' })->{key};
for my $org (undef, 'org-B') {
    ($s) = $w->as(OW => POST => '/key/update', { key => $tied, organization_id => $org });
    is $s, 403, 'a key does not leave its organization by its owner';
    ($s) = $k->post("/key/$tied/regenerate", { organization_id => $org }, key => $tied);
    is $s, 403, 'nor by being regenerated';
}
($s, $j) = $k->post('/key/generate', {}, key => $tied);
is key_of($j->{key})->{organization_id}, 'org-A', 'what it makes is of the same';
($s) = $k->post('/key/generate', { organization_id => 'org-B' }, key => $tied);
is $s, 403, 'and of no other';
($s) = $w->as(CU => POST => '/key/generate', { team_id => 'beta', organization_id => 'org-A' });
like $s, qr/^40[13]$/, 'a key of a team is of no other organization';

# an admin of an organization has keys of it, when he says which

($s) = $w->as(OA => POST => '/key/generate', {});
is $s, 401, 'an admin of an organization makes no key without one';
($s, $j) = $w->as(OA => POST => '/key/generate', { organization_id => 'org-A' });
is_deeply [ $s, @$j{qw(organization_id user_id)} ], [ 200, 'org-A', 'user-OA' ], 'of his organization he does, for himself';
my $oas = $j->{key};
($s) = $w->as(OA => POST => '/key/generate', { organization_id => 'org-A', user_id => 'user-OW' });
is $s, 403, 'for nobody else';
($s) = $w->as(OA => POST => '/key/generate', { organization_id => 'org-B' });
is $s, 401, 'nor of another organization';
($s) = $w->as(OA => POST => '/key/generate', { organization_id => 'org-A', team_id => 'beta' });
like $s, qr/^40[013]$/, 'nor of a team of another';
($s) = $w->as(OA => POST => '/key/update', { key => $w->{key}{CU}, organization_id => 'org-A', max_budget => 1 });
like $s, qr/^40[13]$/, 'and changes no key of another';
($s) = $w->as(OA => POST => "/key/$w->{key}{CU}/regenerate", { organization_id => 'org-A' });
like $s, qr/^40[13]$/, 'nor regenerates it';
($s, $j) = $w->as(OA => POST => "/key/$oas/regenerate", { organization_id => 'org-A' });
is $s, 200, 'but his own';

# accounts of services belong to nobody, whoever names them so

($s) = $w->as(IU => POST => '/key/generate', { team_id => 'alpha', metadata => { service_account_id => 'bot' } });
like $s, qr/^40[13]$/, 'a member makes no account of a service by metadata';
($s) = $w->as(TA => POST => '/key/service-account/generate', { team_id => 'alpha', metadata => { service_account_id => 'bot' } });
is $s, 200, 'the admin of the team does';

# blocks

my $blocked = $w->fresh('OW', 'alpha');
$w->ok(POST => '/key/block', { key => $blocked });
($s) = $w->as(OW => POST => "/key/$blocked/regenerate", { blocked => \0 });
like $s, qr/^40[13]$/, 'a key that was blocked is not unblocked by being regenerated';
($s) = $w->as(OW => POST => '/key/update', { key => $blocked, blocked => \0 });
is $s, 403, 'nor by its owner';
($s) = $w->as(TA => POST => '/key/unblock', { key => $blocked });
is $s, 200, 'the admin of its team may';
my $audit = $k->sql("SELECT (before->>'blocked') || '>' || (after->>'blocked') FROM audit WHERE action = 'unblocked' ORDER BY id DESC LIMIT 1");
is $audit, 'true>false', 'and the audit log says what it was';

# the secret of a key that was regenerated stays dead

my $dead = $w->fresh('OW');
my $next = $w->ok(POST => "/key/$dead/regenerate", {})->{key};
for my $old ($dead, $next) {
    ($s) = $k->post('/key/generate', { key => $old, user_id => 'user-OW' });
    is $s, 400, 'no new key takes the secret of one that was regenerated';
}

($s) = $k->post('/key/regenerate', { key => $w->fresh('OW'), new_key => $next });
is $s, 400, 'and no regenerated one does';
my $alias = $w->ok(POST => '/key/generate', { key_alias => 'by-alias' });
($s) = $k->post('/key/delete', { keys => [], key_aliases => ['by-alias'] });
is $s, 200, 'an empty list of keys beside aliases is none';
my $sure = $w->ok(POST => '/team/new', { rpm_limit => 100 })->{team_id};
my $g = $w->ok(POST => '/key/generate', { team_id => $sure, rpm_limit => 60, rpm_limit_type => 'guaranteed_throughput' })->{key};
($s) = $k->post('/key/update', { key => $g, rpm_limit => 101 });
is $s, 400, 'what is guaranteed stays within the team\'s limit by an update too';
($s) = $k->post('/key/update', { key => $g, rpm_limit => 99 });
is $s, 200, 'up to it';

# no secret in the log, not even in a path

$k->get("/key/info?key=$dead");
$k->post("/key/$next/regenerate", { duration => 'nonsense' });
$k->get("/models/$next");
unlike $k->logs, qr/\Q$next\E/, 'no key in the log by way of a path';

# rows larger than any request

my $big = $w->team('org-A', 'TA');
$k->sql("INSERT INTO users (user_id) SELECT 'many-' || n FROM generate_series(1, 12000) n");
$k->sql("INSERT INTO memberships (team_id, user_id, role) SELECT '$big', 'many-' || n, 'user' FROM generate_series(1, 12000) n");
($s, $j) = $k->get("/team/info?team_id=$big");
is $s, 200, 'a team of 12,000';
cmp_ok scalar @{ $j->{team_info}{members_with_roles} }, '>=', 12000, 'is shown whole';
($s, $j) = $k->post('/team/update', { team_id => $big, max_budget => 5 });
is $s, 200, 'and can be changed';
($s) = $k->post('/key/generate', { team_id => $big });
is $s, 200, 'and has keys';

# what there is beyond the last page

($s, $j) = $k->get('/key/aliases?page=99');
is_deeply [ @$j{qw(aliases current_page)} ], [ [], 99 ], 'a page beyond the end is empty';
($s, $j) = $k->get('/key/list?status=deleted&page=99');
is $s, 200, 'of deleted keys too';
$w->ok(POST => '/key/delete', { keys => [$own] });
($s, $j) = $k->get('/key/list?status=deleted&page=99');
cmp_ok $j->{total_count}, '>', 0, 'and still knows how many there are';
($s, $j) = $k->get('/key/list?expand=user&user_id=user-OW');
is $j->{keys}[0]{user}{user_id}, 'user-OW', 'expand=user shows the user';

# more limits per model than there is room for

my %many = map { ("m$_" => 1) } 1 .. 400;
for my $f ({ model_rpm_limit => \%many }, { metadata => { model_rpm_limit => \%many } }, { metadata => { model_tpm_limit => { a => -1 } } }) {
    ($s) = $k->post('/key/generate', $f);
    like $s, qr/^4\d\d$/, 'limits that would be dropped are refused';
}

done_testing;
