# "keytoll_lease on": hot keys are admitted from blocks of quota, and every
# promise of the other mode stands.

use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time sleep);
use Keytoll::Test;

my $T = JSON::PP::true;
my $g = Keytoll::Test->gate(nginx => 2, workers => 2, timeout => '2s', more => 'keytoll_lease on;');
$g->expect(qr/exited on signal 9/);
my $chat = '/v1/chat/completions';

sub burst {
    my ($key, $n, %body) = @_;
    my $headers = delete $body{headers} // [];
    my $b = chat_body(%body);
    return http_burst($g->{port}, [map { ['POST', $chat, ['Authorization', "Bearer $key", @$headers], $b] } 1 .. $n]);
}
sub passed { return scalar grep { $_->{status} == 200 } @_ }
sub leased { my $n = 0; $n += $g->status($_)->{leased_total} for 0, 1; return $n }
sub empty { my $s = $g->state($_[0]); return "$s->{held} $s->{par}" }

# it does happen

my $key = $g->key(limit => usd(100), strict => $T, rpm => 1_000_000, tpm => 1_000_000_000, par => 1000);
my ($before, $all) = (leased(), 0);
for (1 .. 12) { $all += passed(burst($key, 60)) }
is($all, 720, 'all pass');
cmp_ok(leased() - $before, '>', 100, 'many of them from blocks');
ok($g->settled, 'all settled');
soon { empty($key) eq '0 0' } 5, 'nothing is held: what was not used came back';
my @events = $g->events;
my ($sum, %rid) = (0);
for (@events) { $sum += $_->[0]{cost}; $rid{ $_->[0]{id} }++ }
is(scalar(keys %rid), 720, 'a ledger event for each');
is(scalar(grep { $_ > 1 } values %rid), 0, 'only one');
is($g->state($key)->{used}, $sum, 'Redis counts what the events say');
is(scalar(grep { $_->[2] ne 'ok' } @events), 0, 'each was settled out of its block');
is($g->state($key)->{rpm}, 720, 'and each counts in the window, what was not used does not');

# never over: money

for my $round (1 .. 3) {
    my $key = $g->key(strict => $T, limit => 400 * 20_000);
    my ($n, $tries) = (0, 0);
    while ($tries++ < 40) {
        my @r = burst($key, 50, model => 'out-only', max_tokens => 20, headers => ['x-mock-prompt-tokens', 10, 'x-mock-completion-tokens', 20]);
        $n += passed(@r);
        my $s = $g->state($key);
        cmp_ok($s->{used} + $s->{held}, '<=', 8_000_000, "round $round: used + held within the limit") if $s->{used} + $s->{held} > 8_000_000;
        last if !passed(@r) && $r[0]{headers}{'x-keytoll-reason'} eq 'budget_exceeded';
    }
    $g->settled;
    soon { $g->state($key)->{held} == 0 } 8, "round $round: nothing is held";
    is($g->state($key)->{used}, 8_000_000, "round $round: spent to the last call, not beyond");
    is($n, 400, "round $round: exactly as many as it pays for");
}

# never over: requests in any minute

$key = $g->key(rpm => 300);
my $n = 0;
my $from = time;
while (time - $from < 6) { $n += passed(burst($key, 40)); last if $n >= 300 }
$n += passed(burst($key, 40)) for 1 .. 3;
is($n, 300, 'RPM 300: exactly 300 pass');

# parallel

$key = $g->key(par => 20);
my @r = burst($key, 80, headers => ['x-mock-delay-ms', 300]) for 1 .. 2;
$g->settled;
soon { empty($key) eq '0 0' } 8, 'parallel slots come back';

# revoked means revoked

my $late = 0;
for my $round (1 .. 6) {
    my $key = $g->key(limit => usd(100));
    burst($key, 60) for 1 .. 4;
    my $wait = $g->policy('key:' . token($key) => { refs => ['global'], limit => usd(100), blocked => $T });
    my $ms = ref $wait && $wait->[-1] =~ /^(\d+)$/ ? $1 : 0;
    cmp_ok($ms, '<=', 1000, "round $round: blocks end within a second");
    sleep $ms / 1000;
    $late += passed(burst($key, 20));
}
is($late, 0, 'none passes when the wait that Redis names is over');

# an error of the provider, a client that leaves, a worker that dies

$key = $g->key(limit => usd(100), par => 500);
burst($key, 60) for 1 .. 3;
burst($key, 60, headers => ['x-mock-status', 500]);
$g->settled;
soon { empty($key) eq '0 0' } 8, 'errors give back their share';

burst($key, 60) for 1 .. 3;
for my $i (0, 1) { kill 'KILL', $g->workers($i) }
soon { my @r = burst($key, 4); passed(@r) == 4 } 10, 'new workers serve';
burst($key, 60) for 1 .. 2;
soon { # a minute later
    $g->{r}->call('ZADD', 'kt:{0000}:z', 'XX', 1, $_) for @{ $g->{r}->call('ZRANGE', 'kt:{0000}:z', 0, -1) };
    $g->{r}->fcall('kt_sweep', 200);
    $g->settled(0.1) && empty($key) eq '0 0' } 20, 'blocks of dead workers end with their lease';
my %books;
$books{ $_->[0]{id} } = $_->[0] for $g->events;
my $total = 0;
for my $e ($g->events) { $total += $e->[0]{cost} if $e->[1] =~ /^key:\Q@{[token($key)]}\E\t/m && $e->[2] !~ /^fix/ }
my $fixed = 0;
for my $e ($g->events) { $fixed += $e->[0]{cost} - $1 if $e->[2] =~ /^fix (\d+)/ && $e->[1] =~ /^key:\Q@{[token($key)]}\E\t/m }
is($g->state($key)->{used}, $total + $fixed, 'and the books agree');

# over: the same through a reload

$key = $g->key(limit => usd(100));
burst($key, 60) for 1 .. 3;
$g->reload($_) for 0, 1;
sleep 0.5;
is(passed(burst($key, 60)), 60, 'after a reload');
$g->settled(20);
soon { empty($key) eq '0 0' } 10, 'a worker that ends gives back its blocks';

$g->finish;
