# A flood of made-up keys: whoever passed before goes first, no more than 32 of
# the others are asked about at once, and all of them are answered.  While it lasts
# Redis is asked which of them exist before any is admitted.

use strict;
use warnings;
use IO::Socket::INET;
use IO::Socket::UNIX;
use Test::More;
use Time::HiRes qw(sleep time);
use Keytoll::Test;
use Keytoll::Flood;

my ($BOUND, $SIFTED) = (32, 128);
my $g = Keytoll::Test->gate(workers => 1, timeout => '5s');
my $key = $g->key(limit => 1e13, name => 'client');
is($g->chat($key)->{status}, 200, 'a client passes');
ok($g->settled, 'settles');

# The tokens of every question, in the order of Redis: [kt_admit or kt_known, token...].
sub monitor {
    my $s = IO::Socket::UNIX->new(Peer => $g->{sock}) or die $!;
    syswrite $s, "MONITOR\r\n";
    sysread $s, my $ok, 5;
    return $s;
}

sub calls {
    my ($s) = @_;
    my ($text, $end) = ('', time + 10);
    $g->{r}->call('ECHO', "end-of-$$");
    while (time < $end && $text !~ /end-of-$$/) { sysread $s, $text, 65536, length $text or last }
    return map { /"(kt_admit|kt_known)"/ ? ["$1", /"([0-9a-f]{64})"/g] : () } split /\n/, $text;
}

sub begin { # sends and does not wait
    my $k = shift;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $g->{port}[0]) or die $!;
    syswrite $s, Keytoll::Test::request_text('POST', '/v1/chat/completions', ['Authorization', "Bearer $k", 'Connection', 'close'], chat_body());
    return $s;
}

sub status_of {
    my ($s, $all) = (shift, '');
    while (sysread $s, $all, 65536, length $all) { }
    return $all =~ m{^HTTP/1\.1 (\d+)} ? $1 : 0;
}

my $m = monitor();
kill 'STOP', $g->{redis_pid};
my @strange = map { begin("sk-made-up-$$-$_") } 1 .. 300;
sleep 0.3;
my $mine = begin($key);
sleep 0.2;
kill 'CONT', $g->{redis_pid};
is(status_of($mine), 200, 'Redis hangs, 300 unknown keys come, then a client: 200');
my %n;
$n{ status_of($_) }++ for @strange;
is_deeply(\%n, { 401 => 300 }, 'all of the others are answered: 401');

sub before_mine { # how many were asked about before the client, and the call that asks about him
    my $n = 0;
    for my $c (@_) {
        return ($n, $c) if grep { $_ eq token($key) } @$c;
        $n += $#$c;
    }
    return ($n, undef);
}
sub one_by_one { # how many of 60 that come while Redis hangs are asked about before a client
    my $what = shift;
    my $tag = $what =~ tr/ /-/r;
    $m = monitor();
    kill 'STOP', $g->{redis_pid};
    my @s = map { my $s = begin("sk-made-up-$tag-$$-$_"); sleep 0.01; $s } 1 .. 60;
    sleep 0.2;
    my $mine = begin($key);
    sleep 0.2;
    kill 'CONT', $g->{redis_pid};
    is(status_of($mine), 200, "60 come one by one, $what, then a client: 200");
    is(status_of($_), 401, 'one of the 60') for @s;
    return (before_mine(calls($m)))[0];
}

my @calls = calls($m);
my ($before, $at) = before_mine(@calls);
ok($at, 'Redis was asked about the client');
cmp_ok($before, '<=', $BOUND, "behind $before of the 300");
cmp_ok($before, '>', 0, 'which came first');
is($#$at, 1, 'in a call that no unknown key shares');
is((grep { $#$_ > ($_->[0] eq 'kt_known' ? $SIFTED : $BOUND) } @calls) + 0, 0, "no call asks about more than $BOUND, or $SIFTED by name only");
is((grep { !/^(?:kt_admit|kt_known)$/ && $_ ne token($key) } map { @$_ } @calls) + 0, 300, 'each was asked about once');
cmp_ok(scalar(grep { $_->[0] eq 'kt_known' } @calls), '>=', 1, 'most of them by name only');

my $n_before = one_by_one('in the flood');
ok($n_before >= 1 && $n_before <= $SIFTED, "one question is under way, about $n_before");
sleep 2.1;
is(one_by_one('in quiet times'), $BOUND, "$BOUND of them are under way");

# of a key that is good but new, and of one that is refused for another reason
is($g->chat("sk-made-up-three-$$-$_")->{status}, 401, 'a flood again') for 1 .. 40;
$m = monitor();
my $new = $g->key(limit => 1e13);
is($g->chat($new)->{status}, 200, 'a new key passes in the flood');
is(join(' ', map { $_->[0] } grep { $#$_ == 1 && $_->[1] eq token($new) } calls($m)), 'kt_known kt_admit', 'one round trip later');
$m = monitor();
is($g->chat($new)->{status}, 200, 'and again');
is(join(' ', map { $_->[0] } grep { $#$_ == 1 && $_->[1] eq token($new) } calls($m)), 'kt_admit', 'at once');
my $blocked = $g->key(blocked => JSON::PP::true);
is($g->chat($blocked)->{headers}{'x-keytoll-reason'}, 'key_blocked', 'a blocked key is told so');
$m = monitor();
is($g->chat($blocked)->{headers}{'x-keytoll-reason'}, 'key_blocked', 'and again');
is(scalar(calls($m)), 0, 'from shared memory');

# a Redis that is behind knows less: nobody is told that there is no such key
sub said { my $r = shift; return $r->{status} . ' ' . ($r->{headers}{'x-keytoll-reason'} // '') }
sub flood { $g->chat("sk-behind-$_[0]-$$-$_") for 1 .. 40 }
my $gen = $g->{r}->call('GET', 'kt:{0000}:gen');
my ($late, $later) = ($g->key, $g->key);
for my $when ('quiet', 'flood') {
    flood('gen') if $when eq 'flood';
    $g->{r}->call('SET', 'kt:{0000}:gen', $gen - 1);
    $g->{r}->call('DEL', 'kt:{0000}:e:key:' . token($late));
    is(said($g->chat($late)), '503 not_ready', "$when: a good key at a Redis of yesterday");
    $g->{r}->call('SET', 'kt:{0000}:gen', $gen);
    eventually { said($g->chat("sk-ready-$when-" . rand)) =~ /401/ } 5;
}
flood('replica');
$g->{r}->call('REPLICAOF', '127.0.0.1', Keytoll::Test::free_port());
$g->{r}->call('CONFIG', 'SET', 'replica-read-only', 'yes');
is(said($g->chat($later)), '503 redis_unavailable', 'flood: a good key at a Redis that became a replica');
$g->{r}->call('REPLICAOF', 'NO', 'ONE');
ok((eventually { $g->chat($later)->{status} == 200 } 5), 'and passes when it is the master again');

# steadily, with clients at work and new keys made meanwhile
my $f = Keytoll::Flood->start(port => $g->{port}[0], rate => $ENV{KEYTOLL_ASAN} ? 300 : 3000);
my ($ok, $bad, $fresh, $end) = (0, 0, 0, time + 3);
while (time < $end) {
    $g->chat($key)->{status} == 200 ? $ok++ : $bad++ for 1 .. 10;
    my $new = $g->key(limit => 1e13);
    $g->chat($new)->{status} == 200 ? $fresh++ : $bad++;
}
my $n = $f->stop;
is($bad, 0, "while unknown keys pour in, $ok requests of a client pass, and $fresh of keys that are new");
is(join(' ', sort grep { $_ ne 'seconds' } keys %$n), '401', sprintf 'all of the flood is refused: %d in %.1f s', $n->{401} // 0, $n->{seconds});
cmp_ok($n->{401} // 0, '>', 300, 'a flood it was');
ok($g->settled, 'settles');
is(scalar(grep { $_->[0]{cost} <= 0 } $g->events), 0, 'and leaves nothing in the ledger');

# Redis away: they do not wait for each other
$g->stop_redis('KILL');
my $from = time;
my @r = http_burst($g->{port}[0], [map { ['POST', '/v1/chat/completions', ['Authorization', "Bearer sk-late-$$-$_"], chat_body()] } 1 .. 200]);
is(scalar(grep { $_->{status} == 503 } @r), 200, sprintf 'without Redis: 200 unknown keys are 503 in %.1f s', time - $from);

$g->finish;
