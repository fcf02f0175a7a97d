# The journal: worker crashes, Redis crashes, disks that refuse.

use strict;
use warnings;
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep time);
use Keytoll::Test;

my $T = JSON::PP::true;
my $g = Keytoll::Test->gate(workers => 2, aof => 1, more => 'proxy_buffering off;');
$g->expect(qr/exited on signal 9/);
my $key = $g->key(par => 50, limit => 1e13);

sub segments { return grep { /\.ktj$/ } glob "$g->{dir}/journal/*" }

sub slow_stream {
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $g->{port}[0]);
    syswrite $s, Keytoll::Test::request_text('POST', '/v1/chat/completions', ['Authorization', "Bearer $key", 'x-mock-event-delay-ms', 20], chat_body(stream => $T, max_tokens => 100));
    return $s;
}

$g->chat($key) for 1 .. 20;
ok($g->settled, 'settles');
ok(segments() > 0, 'settlements are journaled');
my $text = join '', map { Keytoll::Test::slurp($_) } segments();
unlike($text, qr/\Q$key\E/, 'without the key');

# a worker dies in the middle of streams
my @open = map { slow_stream() } 1 .. 8;
soon { $g->status->{active_requests} == 8 } 5, 'eight streams run';
sleep 0.3;
is($g->state($key)->{par}, 8, 'eight slots');
my @old = $g->workers;
kill 'KILL', @old;
close $_ for @open;
soon { my @w = $g->workers; @w == 2 && !grep { my $w = $_; grep { $w == $_ } @old } @w } 5, 'the workers come back';
soon { $g->state($key)->{par} == 0 } 10, 'inv04: the dead requests are settled from the journal, the slots are free';
is($g->state($key)->{held}, 0, 'nothing is held');
my @lost = grep { $_->[0]{end} eq 'lost' } $g->events;
is(scalar @lost, 8, 'inv03: each has one ledger row');
is(scalar(grep { $_->[0]{est} == 1 && $_->[0]{cost} > 0 } @lost), 8, 'charged by estimate, flagged');
ok($g->status->{adopted_total} >= 1, 'the journals were taken over');
my $sum = 0;
$sum += $_->[0]{cost} for $g->events;
is($g->state($key)->{used}, $sum, 'used is the sum of the ledger');

# the gauge of active requests is of the living
$g->chat($key);
soon { $g->state($key)->{held} == 0 } 5, 'goes on';

# everything is sent again after a restart of Redis, and dropped
my $n = scalar $g->events;
my $used = $g->state($key)->{used};
sleep 1.2;
$g->stop_redis('KILL');
my $r = $g->chat($key);
is($r->{status}, 503, 'without Redis: 503');
is($r->{headers}{'retry-after'}, 1, 'with retry-after');
is($g->chat('sk-never-heard-of-this-key')->{status}, 503, 'inv07: an unknown key is 503 too, never 401');
$g->start_redis;
soon { $g->chat($key)->{status} == 200 } 10, 'Redis is back, so is the gate';
soon { $g->status->{duplicates_total} > 0 } 10, 'the journal was replayed';
ok($g->settled, 'settles');
$sum = 0;
my %ids;
for my $e ($g->events) { $sum += $e->[0]{cost}; $ids{ $e->[0]{id} }++ }
is($g->state($key)->{used}, $sum, 'inv03: used is the sum of the ledger');
is(scalar(grep { $_ > 1 } values %ids), 0, 'no id twice');

# the watermark lets segments go
$g->{r}->call('SET', 'kt:{0000}:wm', int(time * 1000) + 60000);
my $before = segments();
$g->chat($key) for 1 .. 3;
soon { segments() <= 4 } 10, 'segments below the watermark are deleted' or diag join "\n", segments();

# a full or read-only journal
my $dir = "$g->{dir}/journal";
SKIP: {
    skip 'needs mount', 5 if $> != 0 || system("mount -t tmpfs -o size=64k tmpfs $g->{dir}/tmp 2>/dev/null") != 0;
    my $f = Keytoll::Test->gate(journal => "$g->{dir}/tmp/j");
    my $k = $f->key;
    my ($ok, $refused) = (0, 0);
    for (1 .. 120) {
        my $r = $f->chat($k);
        $r->{status} == 200 ? $ok++ : ($r->{headers}{'x-keytoll-reason'} // '') eq 'journal_unavailable' ? $refused++ : fail("status $r->{status}");
    }
    cmp_ok($ok, '>', 5, 'a small disk takes some');
    cmp_ok($refused, '>', 0, 'then nothing is admitted unrecorded');
    ok($f->settled, 'what was admitted is settled');
    my $sum = 0;
    $sum += $_->[0]{cost} for $f->events;
    is($f->state($k)->{used}, $sum, 'used is exact');
    is(scalar($f->events), scalar($f->truth), 'one row per request that the provider saw');
    $f->stop;
    system "umount $g->{dir}/tmp";
}

$g->finish;
