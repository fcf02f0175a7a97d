# F10: Redis answers what it never should: wrong types, too few, too many, too
# deep, nil, other bytes, on the connection of questions and on that of
# announcements.  No worker dies, nothing hangs, and when Redis is itself again
# so is the gate.

use strict;
use warnings;
use Test::More;
use Time::HiRes qw(sleep time);
use Keytoll::Test;
use Keytoll::Liar;

my $seed = $ENV{KEYTOLL_SEED} // time * 1000 % 1_000_000;
my $T = JSON::PP::true;
my $l = Keytoll::Liar->new;
my $g = Keytoll::Test->gate(nginx => 0, workers => 1, redis_addr => $l->{addr}, timeout => '150ms',
    more => 'location /open/ { keytoll off; rewrite ^/open(.*) $1 break; proxy_pass http://mock; }');
$l->start($g->{sock}, $seed);
$g->start_nginx(0);
diag("seed $seed");

my @keys = ($g->key(limit => usd(1000), rpm => 1e6, tpm => 1e9, par => 1000, strict => $T), $g->key, $g->key(rpm => 0), $g->key(blocked => $T), $g->key(limit => 0),
    $g->key(models => ['free']), $g->key(aliases => { 'gpt-4o-mini' => 'free' }));
ok(eventually(sub { $g->chat($keys[0])->{status} == 200 }), 'it works');
my @workers = $g->workers;

my (%n, $cut, $slow, $rounds, $stuck) = ();
my $end = time + ($ENV{KEYTOLL_LONG} ? 60 : 6);
for ($rounds = 0; $rounds < 15 || time < $end; $rounds++) {
    $l->lie((0.02, 0.1, 0.5)[$rounds % 3]);
    my @r = http_burst($g->{port}[0], [map { my $k = $_ % 9;
        ['POST', '/v1/chat/completions', ['Authorization', 'Bearer ' . ($keys[$k] // "sk-nobody-$_"), 'Content-Type', 'application/json'],
         chat_body(stream => $_ % 5 ? JSON::PP::false : $T)] } 1 .. 27], timeout => 20);
    $n{ $_->{status} }++, $cut += !$_->{complete} for @r;
    $g->policy('key:' . token($keys[3]) => { refs => ['global'], blocked => $T });      # an announcement
    my $from = time;
    my $open = http_call($g->{port}[0], 'POST', '/open/v1/chat/completions', [], chat_body());
    $slow++ if $open->{status} != 200 || time - $from > 0.05 * ($ENV{KEYTOLL_ASAN} ? 10 : 1);
    $l->lie(0);
    $g->registry(Keytoll::Test::default_models());          # a lie about prices is believed until the next generation
    $stuck++ if !eventually { $g->chat($keys[0])->{status} == 200 } 5;
    last if ($stuck // 0) > 3;
}
$l->lie(0);
cmp_ok($l->lies, '>', 5, "$rounds rounds, " . $l->lies . ' replies changed');
is(join(' ', grep { !/^(200|4\d\d|503|500)$/ } keys %n), '', 'every request was answered: ' . join ', ', map { "$_ x $n{$_}" } sort keys %n);
is($cut, 0, 'in full');
is($stuck // 0, 0, 'after every round it worked again');
cmp_ok($slow // 0, '<=', $rounds / 20, 'requests that are not gated went on, within 50 ms');
is("@{[$g->workers]}", "@workers", 'no worker has died');

ok(eventually(sub { $g->chat($keys[0])->{status} == 200 }), 'Redis is honest: the gate works');
is($g->chat($keys[3])->{status}, 401, 'and refuses');
ok(eventually(sub { my $s = $g->status; !$s->{active_requests} && !$s->{pending_settlements} }, 15), 'nothing waits for ever');
my $r = $g->chat($keys[0]);
is($r->{status}, 200, 'once more');

$g->finish;
$l->stop;
