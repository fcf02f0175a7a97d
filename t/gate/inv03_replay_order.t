# Invariant 3: a dead worker's settlements are applied before its requests are
# taken for lost, also when Redis is slow, has been emptied and refuses at first.

use strict;
use warnings;
use Test::More;
use Time::HiRes qw(sleep);
use Keytoll::FaultProxy;
use Keytoll::Test;

my $fp = Keytoll::FaultProxy->new;
my $g = Keytoll::Test->gate;
$g->expect(qr/exited on signal 9/);
$g->{o}{redis_addr} = $fp->{addr};
$fp->start("unix:$g->{sock}");
$g->start_nginx(1);
my $key = $g->key;

$g->chat($key, nginx => 1);
$g->chat($key, headers => ['x-mock-completion-tokens', 500]) for 1 .. 3;
ok($g->settled, 'four requests settle');
my $cost = 0;
$cost += $_->[0]{cost} for $g->events;

# the first nginx dies, Redis forgets, the second one takes the journal over
my @workers = $g->workers(0);
kill 'KILL', $g->{nginx}[0], @workers;
waitpid $g->{nginx}[0], 0;
$g->{nginx}[0] = undef;
my ($gen, $registry) = map { $g->{r}->call('GET', "kt:{0000}:$_") } qw(gen reg);
$g->{r}->call('DEL', 'kt:{0000}:s', 'kt:{0000}:gen', @{ $g->{r}->call('KEYS', 'kt:{0000}:d:*') });
$fp->do('delay 100');
sleep 2.5;
$fp->do('pass');
$g->{r}->fcall('kt_registry', $gen + 1, $registry);

soon { scalar($g->events) == 4 } 15, 'all four are in the ledger again';
sleep 0.5;
my ($booked, %ids) = (0);
for my $e ($g->events) {
    $booked += $e->[0]{cost};
    $ids{ $e->[0]{id} }++;
}
is($booked, $cost, 'with what they cost, none as lost');
is(scalar(keys %ids), 4, 'each once');

$g->finish;
