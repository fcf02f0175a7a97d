# Invariant 10: nothing blocks a worker.  Redis hangs, is slow, is gone: other
# requests of the same worker go on as if nothing had happened.

use strict;
use warnings;
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep time);
use Keytoll::Test;

my $slow = $ENV{KEYTOLL_ASAN} ? 5 : 1;
my $g = Keytoll::Test->gate(timeout => '100ms', more => 'location /open/ { keytoll off; rewrite ^/open(.*) $1 break; proxy_pass http://mock; }');
my $key = $g->key;
is($g->chat($key)->{status}, 200, 'it works');
ok($g->settled, 'settles');

# sends n gated requests and does not wait for them
sub hang {
    my $n = shift;
    my $req = Keytoll::Test::request_text('POST', '/v1/chat/completions', ['Authorization', "Bearer $key"], chat_body());
    return map { my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $g->{port}[0]); syswrite $s, $req; $s } 1 .. $n;
}

sub slowest { # of ungated requests, ms
    my $worst = 0;
    for (1 .. 50) {
        my $t = time;
        my $r = http_call($g->{port}[0], 'POST', '/open/v1/chat/completions', [], chat_body());
        $r->{status} == 200 or fail("ungated request: $r->{status}");
        $worst = time - $t if time - $t > $worst;
    }
    return $worst * 1000;
}

my $calm = slowest();
kill 'STOP', $g->{redis_pid};
my @open = hang(100);
my $ms = slowest();
cmp_ok($ms, '<', $calm + 50 * $slow, sprintf('Redis hangs under 100 requests: others take %.1f ms at most (%.1f before)', $ms, $calm));
my ($s503, $t0) = (0, time);
for my $s (@open) {
    $s->blocking(1);
    my $n = sysread $s, my $buf, 65536;
    $s503++ if $n && $buf =~ /^HTTP\/1\.1 503/;
}
is($s503, 100, 'the gated ones were answered 503');
cmp_ok(time - $t0, '<', 2 * $slow, 'by their deadline');
kill 'CONT', $g->{redis_pid};
soon { $g->chat($key)->{status} == 200 } 10, 'Redis goes on, so does the gate';
ok($g->settled, 'late grants are given back');
is($g->state($key)->{held}, 0, 'nothing is held');

$g->stop_redis('KILL');
hang(50);
$ms = slowest();
cmp_ok($ms, '<', $calm + 50 * $slow, sprintf('Redis is gone: others take %.1f ms at most', $ms));

$g->finish;
