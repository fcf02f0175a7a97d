# What a row means in Redis, and that it is there before the answer (invariant 5).

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Digest::SHA ();
use Keytoll::Control;
use POSIX ();
use Test::More;

my $k = Keytoll::Control->new;
my ($s, $j, $h);

sub policy {
    my $name = shift;
    return JSON::PP->new->utf8->decode($k->sql("SELECT policy FROM kt_policy WHERE name = '$name'"));
}

sub key { my $b = shift; ($s, $j) = $k->post('/key/generate', $b); return $j }

# refs, in the order of the contract

my $t = key({})->{token};
is_deeply policy("key:$t"), { v => policy("key:$t")->{v}, t => 'key', unit => 'nusd',
    period => { kind => 'none', len_s => 0, id => 0, end_s => 0 }, refs => ['global'], used => '0' },
    'a plain key has nothing but global';
is $k->state("key:$t")->{limit}, '', 'no limit in Redis';

$t = key({ user_id => 'u/1' })->{token};
is_deeply policy("key:$t")->{refs}, [ 'user:u%2F1', 'global' ], 'personal key: user, global';
ok $k->state('user:u%2F1'), 'the user is an entity';
$k->sql("INSERT INTO organizations (organization_id, organization_alias) VALUES ('o1', 'Org')");
$t = key({ user_id => 'u1', organization_id => 'o1' })->{token};
is_deeply policy("key:$t")->{refs}, [ 'org:o1', 'user:u1', 'global' ], 'with an organization';
$k->post('/team/new', { team_id => 't1', organization_id => 'o1' });
$t = key({ team_id => 't1' })->{token};
is_deeply policy("key:$t")->{refs}, [ 'team:t1', 'org:o1', 'global' ],
    'team key: team, its organization, global';
my $member = key({ team_id => 't1', user_id => 'u1' })->{token};
is_deeply policy("key:$member")->{refs}, [ 'team:t1', 'org:o1', 'member:t1/u1', 'global' ],
    'a member\'s key: no user without limits';
ok $k->state('member:t1/u1'), 'the member is an entity though nobody added it';
$k->post('/user/new', { user_id => 'limited', rpm_limit => 3, auto_create_key => JSON::PP::false });
$t = key({ team_id => 't1', user_id => 'limited' })->{token};
is_deeply policy("key:$t")->{refs}, [ 'team:t1', 'org:o1', 'member:t1/limited',
    { e => 'user:limited', money => JSON::PP::false }, 'global' ],
    'a user with rate limits is listed, without money';
my $v = $k->state("key:$member")->{v};
$k->post('/user/new', { user_id => 'u1', tpm_limit => 5, auto_create_key => JSON::PP::false });
is_deeply policy("key:$member")->{refs}[3], { e => 'user:u1', money => JSON::PP::false },
    'a user that gets limits later changes the refs';
cmp_ok $k->state("key:$member")->{v}, '>', $v, 'and the key is pushed';
$v = $k->state("key:$member")->{v};
$k->post('/team/update', { team_id => 't1', organization_id => undef });
is_deeply policy("key:$member")->{refs}[1], 'member:t1/u1', 'a team that leaves its organization';
cmp_ok $k->state("key:$member")->{v}, '>', $v, 'pushes its keys';
is_deeply policy('key:' . Digest::SHA::sha256_hex($Keytoll::Control::MASTER))->{master},
    JSON::PP::true, 'the master key is an entity';
ok $k->state('key:' . Digest::SHA::sha256_hex($Keytoll::Control::MASTER)), 'in Redis too';
ok $k->state('global'), 'and so is global';

# limits

my $row = key({ max_budget => 1.5, rpm_limit => 7, tpm_limit => 8, max_parallel_requests => 9,
        budget_duration => '1d', duration => '1h', budget_enforcement => 'strict',
        models => ['a'], allowed_routes => ['/x*'], key_alias => 'nice', spend => 0.25 });
my $p = policy("key:$row->{token}");
is_deeply [ @$p{qw(limit rpm tpm par strict models routes name used)} ],
    [ '1500000000', 7, 8, 9, JSON::PP::true, ['a'], ['/x*'], 'nice', '250000000' ], 'every limit';
is $p->{period}{kind}, 'fixed', 'a day is a fixed period';
is $p->{period}{end_s} - $p->{period}{id}, 86400, 'of a day';
cmp_ok $p->{expires_ms}, '>', time() * 1000 + 3590_000, 'expires in ms';
my $st = $k->state("key:$row->{token}");
is_deeply [ @$st{qw(used limit rpm_limit tpm_limit par_limit)} ],
    [ 250000000, 1500000000, 7, 8, 9 ], 'Redis has them, with the seed';
is_deeply policy("key:" . key({ budget_duration => '30d' })->{token})->{period}{kind}, 'month',
    '30d is a calendar month';
ok policy('team:t1')->{gt}, 'teams refuse above the limit';
ok !policy("key:$t")->{gt}, 'keys at it';
ok !exists policy("key:$t")->{strict}, 'last_call by default';
ok !exists policy('key:' . key({ models => ['all-team-models'] })->{token})->{models},
    'all-team-models is the team\'s to decide';
ok !exists policy('key:' . key({ models => ['all-proxy-models'] })->{token})->{models},
    'all-proxy-models is everything';
is_deeply policy('key:' . key({ models => ['no-default-models'] })->{token})->{models},
    ['no-default-models'], 'no-default-models stays';
$k->sql("INSERT INTO access_groups (access_group_id, access_group_name) VALUES ('g1', 'grp')");
$k->sql("INSERT INTO access_group_models VALUES ('g1', 'm1'), ('g1', 'm2')");
is_deeply policy('key:' . key({ models => [ 'grp', 'z' ] })->{token})->{models},
    [ 'grp', 'm1', 'm2', 'z' ], 'groups are resolved';
is_deeply policy('key:' . key({ access_group_ids => ['g1'] })->{token})->{models}, [ 'm1', 'm2' ],
    'by id too';
is_deeply policy('key:' . key({ access_group_ids => ['none'] })->{token})->{models},
    ['no-default-models'], 'a group that is not there grants nothing';

# a zero budget is a limit; null is none

is policy('key:' . key({ max_budget => 0 })->{token})->{limit}, '0', 'zero is a limit';

# linked budgets fill what the key leaves open

$k->sql("INSERT INTO budgets (budget_id, max_budget_nusd, rpm_limit) VALUES ('b1', 7000000000, 3)");
$p = policy('key:' . key({ budget_id => 'b1', rpm_limit => 9 })->{token});
is_deeply [ @$p{qw(limit rpm)} ], [ '7000000000', 9 ], 'the key\'s own value wins';

# submeters

$row = key({ model_max_budget => { 'gpt-4o' => { budget_limit => 0.5, time_period => '1d',
            rpm_limit => 2 } }, model_tpm_limit => { 'gpt-4o' => 100, 'b/c' => 5 },
        budget_limits => [ { budget_duration => '1h', max_budget => 1 },
                           { budget_duration => '30d', max_budget => 9 } ] });
my $e = "key:$row->{token}";
$p = policy($e);
is_deeply $p->{sub}, [ { m => 'b/c', e => "$e~m~b%2Fc" }, { m => 'gpt-4o', e => "$e~m~gpt-4o" } ],
    'model limits';
is_deeply $p->{win}, [ "$e~w~1h", "$e~w~30d" ], 'windows';
is_deeply [ @{ $k->state("$e~m~gpt-4o") }{qw(limit rpm_limit tpm_limit)} ], [ 500000000, 2, 100 ],
    'a model entity';
is $k->state("$e~w~1h")->{limit}, 1000000000, 'a window entity';
$k->post('/key/update', { key => $row->{token}, budget_limits => [ { budget_duration => '1h',
            max_budget => 2 } ], model_max_budget => undef });
is $k->state("$e~w~1h")->{limit}, 2000000000, 'a window is changed';
is $k->state("$e~w~30d"), undef, 'or dropped';
is_deeply [ @{ $k->state("$e~m~gpt-4o") }{qw(limit rpm_limit tpm_limit)} ], [ '', '', 100 ],
    'a model limit follows';
$k->post('/team/update', { team_id => 't1', model_rpm_limit => { m => 4 } });
is_deeply policy('team:t1')->{sub}, [ { m => 'm', e => 'team:t1~m~m' } ], 'teams have them too';

# before the answer

$row = key({ max_budget => 1 });
$e = "key:$row->{token}";
for my $i (1 .. 20) {
    $k->post('/key/update', { key => $row->{token}, max_budget => $i });
    is $k->state($e)->{limit}, $i * 1_000_000_000, "update $i is in Redis when it is answered"
        if $i % 5 == 0;
}
$k->post('/key/block', { key => $row->{token} });
is $k->state($e)->{blocked}, 1, 'so is a block';
$k->post('/key/unblock', { key => $row->{token} });
is $k->state($e)->{blocked}, 0, 'an unblock';
$k->post('/key/delete', { keys => [ $row->{token} ] });
is $k->state($e), undef, 'and a delete';

# a changed default is pushed at the next start

$row = key({ max_budget => 1 });
ok !policy("key:$row->{token}")->{strict}, 'last_call';
$k->kill('controld');
$k->{general} = "  fail_closed_budget_enforcement: true\n  token_rate_limit_type: input";
$k->start_controld;
ok $k->until(sub { ($k->get("/key/info?key=$row->{token}"))[1]{info}{budget_enforcement} eq 'strict' }),
    'fail_closed_budget_enforcement turns it to strict';
my $raw = $k->until(sub { my $e = $k->redis('GET', "kt:{0000}:e:key:$row->{token}");
    $e =~ /strict/ && $e =~ /input/ ? $e : undef });
ok $raw, 'in Redis as well, with the token rate limit type';

# a budget that changes its duration keeps the running period

$row = key({ max_budget => 1, spend => 0.5 });
$e = "key:$row->{token}";
($s, $j) = $k->post('/key/update', { key => $row->{token}, budget_duration => '1d' });
is_deeply [ @{ $k->state($e) }{qw(used period_id)} ], [ 500000000, 0 ], 'nothing is forgotten';
is $k->sql("SELECT period_id FROM keys WHERE token = '$row->{token}'"), 0, 'in both places';
cmp_ok $k->state($e)->{period_end}, '>', time(), 'and it has an end';

# an older version never wins

my $old = $k->sql("SELECT policy FROM kt_policy WHERE name = '$e'");
$k->post('/key/update', { key => $row->{token}, max_budget => 42 });
is_deeply $k->fcall('kt_policy_set', $e, $old), ['stale'], 'an old push is stale';
is $k->state($e)->{limit}, 42_000_000_000, 'and changes nothing';

# an owner that another request has just made, and not pushed yet

$k->sql("INSERT INTO users (user_id, implicit) VALUES ('fresh', true); INSERT INTO teams (team_id,"
    . " implicit) VALUES ('fresh', true); INSERT INTO memberships (team_id, user_id, implicit) VALUES"
    . " ('fresh', 'fresh', true); INSERT INTO outbox (ent, op, version, created_at) SELECT e, 'set', 0,"
    . " now() + interval '1 hour' FROM unnest(ARRAY['user:fresh', 'team:fresh', 'member:fresh/fresh']) e");
is $k->state('user:fresh'), undef, 'is not in Redis';
key({ user_id => 'fresh', team_id => 'fresh' });
ok $k->state($_), "a key of it brings $_ along" for 'user:fresh', 'team:fresh', 'member:fresh/fresh';
$k->sql("DELETE FROM outbox WHERE created_at > now()");

# what a policy is made of has a say in its version

sub version { return $k->state($_[0])->{v} }
sub refs { return $k->redis('GET', "kt:{0000}:e:$_[0]") =~ /\Q$_[1]\E/ ? 1 : 0 }
my $uk = key({ user_id => 'rated', team_id => 'rated' });
my $ue = "key:$uk->{token}";
is refs($ue, 'user:rated'), 0, 'a team key of a user without rates';
for my $sql ("UPDATE users SET rpm_limit = 5 WHERE user_id = 'rated'",
    "INSERT INTO budgets (budget_id, max_budget_nusd) VALUES ('bb', 9);"
        . " UPDATE keys SET budget_id = 'bb' WHERE ent = '$ue'; UPDATE budgets SET max_budget_nusd = 8",
    "INSERT INTO access_groups (access_group_id, access_group_name) VALUES ('gg', 'grp7');"
        . " UPDATE keys SET models = ARRAY['grp7'] WHERE ent = '$ue'; INSERT INTO access_group_models"
        . " VALUES ('gg', 'm-1')",
    "INSERT INTO access_group_models VALUES ('gg', 'm-2')", "DELETE FROM access_group_models WHERE model_name = 'm-2'",
    "UPDATE access_groups SET status = 'paused'",
    "INSERT INTO organizations (organization_id) VALUES ('oo'); UPDATE teams SET organization_id = 'oo'"
        . " WHERE team_id = 'rated'") {
    my $v = version($ue);
    $k->sql($sql);
    my $now = $k->sql("SELECT v FROM kt_policy WHERE name = '$ue'");
    cmp_ok $now, '>', $v, 'a newer version: ' . substr $sql, -40;
    is $k->until(sub { version($ue) == $now }), 1, 'is pushed';
}
is $k->state($ue)->{limit}, 8, 'a linked budget arrives';
is refs($ue, 'user:rated') . refs($ue, 'org:oo') . refs($ue, 'm-1') . refs($ue, 'm-2'), '1100', 'so do the others';
my $mv = version('member:rated/rated');
$k->sql("UPDATE teams SET budget_enforcement = 'strict' WHERE team_id = 'rated'");
is $k->until(sub { version('member:rated/rated') > $mv }), 1, 'members follow their team';

# keys made while their user's rates come and go

my @pids;
for my $p (1 .. 4) {
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        delete $k->{http};
        $k->{dir} .= "/p$p"; mkdir $k->{dir};
        for my $i (1 .. 15) {
            if ($p < 4) {
                ($s) = $k->post('/key/generate', { user_id => 'flip', team_id => 'flip' });
                POSIX::_exit(1) if $s != 200;
            }
            else {
                $k->sql("UPDATE users SET rpm_limit = " . ($i % 2 ? 7 : 'NULL') . " WHERE user_id = 'flip'");
            }
        }
        POSIX::_exit(0);
    }
    push @pids, $pid;
}
my $died = 0;
for (@pids) { waitpid $_, 0; $died++ if $? }
is $died, 0, 'nobody is refused';
$k->until(sub { $k->sql('SELECT count(*) FROM outbox') == 0 });
my $rated = $k->sql("SELECT count(rpm_limit) FROM users WHERE user_id = 'flip'");
my @flip = split /\n/, $k->sql("SELECT ent FROM keys WHERE user_id = 'flip'");
is scalar @flip, 45, 'forty-five keys';
is scalar(grep { refs($_, 'user:flip') != $rated } @flip), 0, 'every one knows what holds now';

# one that Redis refuses does not stop the others

sub metric { my $m = shift; $k->get('/metrics'); return $k->raw =~ /^\Q$m\E (\d+)$/m ? $1 : undef }
my @rows = map { key({ max_budget => 1 }) } 1 .. 3;
my @ents = map { "key:$_->{token}" } @rows;
my $sane = $k->redis('GET', "kt:{0000}:e:$ents[1]");
$k->redis('SET', "kt:{0000}:e:$ents[1]", "\xc1\xc1");
$k->sql("UPDATE keys SET max_budget_nusd = 7 WHERE ent = '$_'; INSERT INTO outbox (ent, op, version)"
    . " VALUES ('$_', 'set', 0)") for @ents;
ok $k->until(sub { $k->state($ents[0])->{limit} == 7 && $k->state($ents[2])->{limit} == 7 }),
    'the others arrive';
is $k->until(sub { $k->sql('SELECT ent FROM outbox') eq $ents[1] }), 1, 'the bad one stays';
like $k->sql('SELECT last_error FROM outbox WHERE attempts > 0'), qr/user_function/, 'and says why';
is $k->until(sub { metric('keytoll_outbox_stuck') == 1 }), 1, 'a metric counts it';
$k->redis('SET', "kt:{0000}:e:$ents[1]", $sane);
ok $k->until(sub { $k->state($ents[1])->{limit} == 7 && $k->sql('SELECT count(*) FROM outbox') == 0 }, 20),
    'it is tried again';
is $k->until(sub { metric('keytoll_outbox_stuck') == 0 }), 1, 'and counted no more';

# Redis stopped: the outbox delivers

$row = key({ max_budget => 1 });
$e = "key:$row->{token}";
my $gone = key({});
$k->kill('redis', 'KILL');
($s, $j, $h) = $k->post('/key/update', { key => $row->{token}, max_budget => 5 });
is $s, 200, 'Redis stopped: an update is still accepted';
is $h->{'x-keytoll-propagated'}, 'false', 'and says that Redis does not have it';
($s, $j, $h) = $k->post('/key/delete', { keys => [ $gone->{token} ] });
is $h->{'x-keytoll-propagated'}, 'false', 'so does a delete';
($s, $j, $h) = $k->post('/model/new', { model_name => 'late', litellm_params => { model => 'x' } });
is $h->{'x-keytoll-propagated'}, 'false', 'and a model';
($s, $j) = $k->get("/key/info?key=$row->{token}");
is_deeply [ $s, $j->{info}{spend} ], [ 200, 0 ], 'info answers from PostgreSQL';
is +($k->get('/health/readiness', key => undef))[0], 503, 'not ready';
cmp_ok $k->sql('SELECT count(*) FROM outbox'), '>=', 3, 'the outbox has them';
$k->start_redis;
ok $k->until(sub { $k->sql('SELECT count(*) FROM outbox') == 0 }), 'the relay delivers';
ok $k->until(sub { $k->redis('GET', 'kt:{0000}:gen') }), 'the empty Redis is rebuilt';
is $k->state($e)->{limit}, 5_000_000_000, 'with the new limit';
is $k->state("key:$gone->{token}"), undef, 'without the deleted key';
like $k->redis('GET', 'kt:{0000}:reg'), qr/"late"/, 'with the model';

# a stopped Redis that keeps its data

$k->redis('CONFIG', 'SET', 'appendonly', 'no');
CORE::kill('STOP', $k->{pid}{redis});
($s, $j, $h) = $k->post('/key/block', { key => $row->{token} });
is_deeply [ $s, $h->{'x-keytoll-propagated'} ], [ 200, 'false' ], 'a hanging Redis does not hang us';
CORE::kill('CONT', $k->{pid}{redis});
ok $k->until(sub { $k->state($e)->{blocked} }), 'the block arrives';

# PostgreSQL restarts under us

$k->kill('postgres', 'INT');
is +($k->post('/key/block', { key => $row->{token} }))[0], 503, 'no database: 503';
is $k->raw =~ /no_db_connection/, 1, 'of the type clients know';
$k->start_postgres;
is +($k->post('/key/unblock', { key => $row->{token} }))[0], 200, 'back again without a restart';

done_testing;
