# Redis loses everything, or a part; the daemon puts it back (invariants 3 and 7).

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Digest::SHA qw(sha256_hex);
use Keytoll::Control;
use Keytoll::Store;
use POSIX ();
use Test::More;
no warnings "portable";
use Time::HiRes qw(time sleep);

my $k = Keytoll::Control->new;
my ($s, $j);
my $P = 'kt:{0000}:';

sub ready { return $k->until(sub { $k->redis('GET', $P . 'gen') }, 15) }
sub metric { my $m = shift; $k->get('/metrics'); return $k->raw =~ /^\Q$m\E (\d+)$/m ? $1 : undef }

# admit and settle one request through the real functions

sub spend {
    my ($ent, $cost, %o) = @_;
    my $rid = $k->rid;
    my $pid = $k->state($ent)->{period_id};
    my $receipt = "2\t1\tgpt-4o\n$ent\t$pid\t16\nglobal\t0\t48\n";
    my $event = JSON::PP->new->canonical->encode({ id => $rid, t0 => 1, t1 => 2, m => 'gpt-4o',
        cost => "$cost", in => 1, out => 1, st => 200, end => 'complete' });
    $k->fcall('kt_settle', $rid, $receipt, $cost, 0, 1, 1, $event) unless $o{dry};
    return ($rid, $receipt, $event);
}

my $key = ($k->post('/key/generate', { user_id => 'u1', max_budget => 5, budget_duration => '1d',
        spend => 0.5 }))[1];
my $ent = "key:$key->{token}";
my @settled = map { [ spend($ent, 1000 * $_) ] } 1 .. 10;
ok $k->until(sub { $k->redis('XLEN', $P . 's') == 0 }), 'ten requests are stored';
is $k->state($ent)->{used}, 500055000, 'Redis has their sum';

# many entities, so that the time means something

my $n = 1000;
$k->sql("INSERT INTO keys (token, max_budget_nusd) SELECT encode(sha256(g::text::bytea), 'hex'), g"
    . " FROM generate_series(1, $n) g");
my $gen = $k->redis('GET', $P . 'gen');
my $t0 = time;
$k->redis('FLUSHALL');
ok ready(), 'FLUSHALL: the gate opens again';
diag sprintf '%d entities: %d ms from FLUSHALL to open, %d ms of work', $n, (time - $t0) * 1000,
    metric('keytoll_rebuild_milliseconds');
cmp_ok metric('keytoll_rebuild_milliseconds'), '<', 1000, 'in less than a second';
cmp_ok $k->redis('GET', $P . 'gen'), '>', $gen, 'with a newer generation';
is_deeply [ @{ $k->state($ent) }{qw(used held limit)} ], [ 500055000, 0, 5000000000 ],
    'use and limit are back';
is $k->state('global')->{used}, 55000, 'so is global';
is $k->state('key:' . sha256_hex(7))->{limit}, 7, 'so are a thousand others';
ok $k->state('key:' . sha256_hex($Keytoll::Control::MASTER)), 'and the master key';
like $k->redis('GET', $P . 'reg'), qr/"gpt-4o"/, 'and the registry';
ok $k->until(sub { eval { @{ $k->redis('XINFO', 'GROUPS', $P . 's') } } }), 'and the stream group';

# a replayed journal does not charge twice

my $h = int(hex(substr $settled[0][0], 0, 12) / 3600000);
is $k->redis('SISMEMBER', $P . "d:$h", $settled[0][0]), 1, 'settled ids are known';
my $ttl = $k->redis('TTL', $P . "d:$h");
ok $ttl > 7000 && $ttl <= 7200, 'for two hours';
for my $r (@settled) {
    my $reply = $k->fcall('kt_settle', $r->[0], $r->[1], 1000, 0, 1, 1, $r->[2]);
    $reply->[2] == 1 or fail "replay of $r->[0] was not a duplicate";
}
is $k->state($ent)->{used}, 500055000, 'a replay of the journal changes nothing';

# settled in Redis, not yet stored, then forced: nothing is lost, nothing doubled

spend($ent, 7);
my ($rc, $out) = $k->run('rebuild', '-c', "$k->{dir}/controld.yaml");
is $rc, 0, 'rebuild by command' or diag $out;
is $k->state($ent)->{used}, 500055007, 'what the stream held is counted';
ok $k->until(sub { $k->sql("SELECT used_nusd FROM meters WHERE ent = '$ent'") == 500055007 }),
    'in both places';

# the reconciler says where they differ

sub reconcile { my ($rc, $out) = $k->run('reconcile', '-c', "$k->{dir}/controld.yaml"); return [ $rc, $out =~ s/^\{.*\n//gmr ] }
is_deeply reconcile(), [ 0, '' ], 'Redis and PostgreSQL agree';
my $last = $k->sql('SELECT max(ent) FROM keys');
$k->sql("UPDATE meters SET used_nusd = used_nusd + 5 WHERE ent = '$ent'");
$k->sql("INSERT INTO meters (ent, period_id, used_nusd) SELECT '$last', period_id, 7 FROM keys WHERE ent = '$last'");
{
    my $busy = ($k->post('/key/generate', {}))[1];
    my $pid = fork // die;
    if (!$pid) {
        my $end = time + 30;
        my $n = 0;
        while (time < $end && getppid != 1) { spend("key:$busy->{token}", 1000 + $n++); sleep 0.01 }
        POSIX::_exit(0);
    }
    sleep 0.3;
    is_deeply reconcile(), [ 1, join '', map { "$_\n" } sort "$ent redis 500055007 postgres 500055012", "$last redis 0 postgres 7" ], 'what differs is told from what is on its way';
    kill 'KILL', $pid;
    waitpid $pid, 0;
    ok $k->until(sub { $k->redis('XLEN', $P . 's') == 0 }), 'all is stored';
}
is_deeply reconcile(), [ 1, join '', map { "$_\n" } sort "$ent redis 500055007 postgres 500055012", "$last redis 0 postgres 7" ], 'what differs, of more than a thousand';
$k->sql("UPDATE meters SET used_nusd = used_nusd - 5 WHERE ent = '$ent'");
$k->sql("DELETE FROM meters WHERE ent = '$last'");
is_deeply reconcile(), [ 0, '' ], 'agree again';

# drift is repaired by a rebuild

$k->redis('DEL', $P . 'gen');
ok ready(), 'the generation alone is lost';
is $k->state($ent)->{used}, 500055007, 'and counters are what PostgreSQL says';

# a gate that is closed is not opened by a mutation

$k->redis('FLUSHALL');
$k->post('/model/new', { model_name => 'x', litellm_params => { model => 'x' } });
ok ready(), 'a model made during a rebuild';
like $k->redis('GET', $P . 'reg'), qr/"n":"x"/, 'is in the registry';
ok $k->state($ent), 'which opened after the entities';

# an empty Redis after a crash

$k->kill('redis', 'KILL');
is reconcile()->[0], 2, 'without Redis nobody knows';
spend_fails();
$k->start_redis;
ok ready(), 'an empty Redis after kill -9';
is $k->state($ent)->{used}, 500055007, 'has everything';
is $k->redis('FUNCTION', 'LIST')->[0][1], 'keytoll', 'with the functions';

# two daemons: one rebuilds

$k->start_controld(name => 'second');
my $rebuilds = metric('keytoll_rebuilds_total');
$k->redis('FLUSHALL');
ok ready(), 'two daemons';
sleep 0.6;
my $mine = metric('keytoll_rebuilds_total') - $rebuilds;
$k->get('/metrics', daemon => 'second');
my ($theirs) = $k->raw =~ /^keytoll_rebuilds_total (\d+)$/m;
is $mine + $theirs, 1, 'rebuild once';
is $k->state($ent)->{used}, 500055007, 'rightly';

# a period that ended meanwhile begins empty

$k->sql("UPDATE keys SET period_id = period_id - 86400, period_end_s = period_end_s - 86400"
    . " WHERE ent = '$ent'");
$k->redis('FLUSHALL');
ready();
is $k->state($ent)->{used}, 500055007, 'a stale period in the row is rolled on';
cmp_ok $k->state($ent)->{period_end}, '>', time, 'to the running one';

# the sweeper

my $rid = $k->rid;
my $pid = $k->state($ent)->{period_id};
$k->redis('SET', $P . "h:$rid", Keytoll::Store::hold_text("2\t1\tgpt-4o\n$ent\t$pid\t16\n",
    JSON::PP->new->encode({ id => $rid, t0 => 1, m => 'gpt-4o', end => 'lost', est => 1, cost => '300' }),
    bound => 900, ucr => 0, est => 300, in_bound => 1, in_typ => 1, out_bound => 1, out_typ => 1));
$k->redis('ZADD', $P . 'z', 1, $rid);
ok $k->until(sub { $k->sql("SELECT count(*) FROM ledger WHERE rid = '$rid' AND estimated") == 1 }),
    'an expired lease is charged and recorded';
is $k->redis('ZCARD', $P . 'z'), 0, 'and gone';
is $k->state($ent)->{used}, 500055307, 'in Redis';
is $k->sql("SELECT cost_nusd FROM ledger WHERE rid = '$rid'"), 300, 'and PostgreSQL';

# a rebuild does not take the way of a settlement that is still to come

my $used = 500055307;
for my $round (1 .. 2) {
    my $epoch = $k->redis('GET', $P . 'epoch');
    like $epoch, qr/^[0-9a-f]{16}$/, 'Redis has an epoch';
    $k->redis('FLUSHALL');
    ready();
    isnt $k->redis('GET', $P . 'epoch'), $epoch, 'a rebuild makes a new one';
    my ($charged, $template) = $k->redis('GET', $P . "h:$rid") =~ /^T\t(\d+)\t(\{.*\})$/;
    is $charged, 300, 'a charge by the sweeper has its tombstone again';
    is(JSON::PP->new->decode($template)->{id}, $rid, 'with the event');
    cmp_ok $k->redis('TTL', $P . "h:$rid"), '>', 172000, 'for two days';
    my $hour = int(hex(substr $rid, 0, 12) / 3600000);
    is $k->redis('SISMEMBER', $P . "d:$hour", $rid), 0, 'and is not settled';
}
my $receipt = "2\t1\tgpt-4o\n$ent\t" . $k->state($ent)->{period_id} . "\t16\nglobal\t0\t48\n";
my $late = JSON::PP->new->canonical->encode({ id => $rid, t0 => 1, t1 => 2, m => 'gpt-4o', cost => '450',
    in => 1, out => 1, st => 200, end => 'complete' });
my @settle = ($rid, $receipt, 450, 0, 1, 1, $late);
is $k->fcall('kt_settle', @settle)->[2], 0, 'its settlement is accepted';
is $k->state($ent)->{used}, $used + 150, 'and corrects the charge';
ok $k->until(sub { $k->sql("SELECT concat_ws('|', cost_nusd, fixed) FROM ledger WHERE rid = '$rid'")
    eq '450|t' }), 'and the row';
$k->redis('FLUSHALL');
ready();
is $k->redis('EXISTS', $P . "h:$rid"), 0, 'a corrected charge has no tombstone';
is $k->fcall('kt_settle', @settle)->[2], 1, 'its settlement again is a duplicate';
is $k->state($ent)->{used}, $used + 150, 'and costs nothing';

# a daemon brings its functions with it, unless newer ones are there

my $library = sub { my %l = @{ $k->redis('FUNCTION', 'LIST', 'LIBRARYNAME', 'keytoll', 'WITHCODE')->[0] }; return $l{library_code} };
my $ours = $library->();
like $ours, qr/\A#!lua name=keytoll\n-- version \d+\n/, 'the library has a version';
my $start = sub { $k->kill('controld', 'TERM'); $k->start_controld; ready() };
(my $older = $ours) =~ s/^-- version \d+$/-- version 0 of old/m;
$k->redis('FUNCTION', 'LOAD', 'REPLACE', $older);
my $gen_before = $k->redis('GET', $P . 'gen');
$start->();
ok $k->until(sub { $library->() eq $ours }), 'an older one is replaced at the start';
cmp_ok $k->redis('GET', $P . 'gen'), '>=', $gen_before, 'without a rebuild';
(my $newer = $ours) =~ s/^-- version \d+$/-- version 999/m;
$k->redis('FUNCTION', 'LOAD', 'REPLACE', $newer);
$start->();
$k->redis('FLUSHALL');
ready();
is $library->(), $newer, 'a newer one stays, also over a rebuild';
$k->redis('FUNCTION', 'LOAD', 'REPLACE', $ours);

unlike $k->logs, qr/"level":"(?:fatal)"/, 'nothing fatal in the log';

sub spend_fails {
    is +($k->get('/health/readiness', key => undef))[0], 503, 'not ready while Redis is away';
}

done_testing;
