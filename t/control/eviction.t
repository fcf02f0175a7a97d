# F8: a Redis that evicts loses counters, so nobody starts on one, and nobody who finds one is
# ready.

use strict;
use warnings;
use Test::More;
use Keytoll::Control;

my $k = Keytoll::Control->new;
my $why = 'Redis has maxmemory and evicts: set maxmemory-policy noeviction';
my ($s, $j) = $k->get('/health/readiness');
is "$s $j->{status}", '200 healthy', 'without maxmemory' or diag $k->raw;

$k->redis('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru');
($s) = $k->get('/health/readiness');
is $s, 200, 'a policy without maxmemory evicts nothing';
$k->redis('CONFIG', 'SET', 'maxmemory', '500mb');
for my $policy (qw(allkeys-lru volatile-ttl allkeys-random volatile-lfu)) {
    $k->redis('CONFIG', 'SET', 'maxmemory-policy', $policy);
    ($s, $j) = $k->get('/health/readiness');
    is "$s $j->{status}", '503 unhealthy', "$policy: not ready";
    is $j->{error}, $why, 'and says why';
}
my $port = $k->{port};
$k->{port} = Keytoll::Control::free_port();
my $conf = $k->write_config(name => 'evict');
my ($rc, $out) = $k->run('serve', '-c', $conf);
is $rc, 1, 'another does not start';
like $out, qr/\Q$why\E/, 'and says why';
$k->{port} = $port;
$k->redis('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
($s) = $k->get('/health/readiness');
is $s, 200, 'noeviction: ready again';

done_testing;
