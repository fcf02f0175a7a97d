# F12, F13: workers and masters are killed under load, again and again.  Who
# comes next takes over the journals; nothing is lost, nothing is doubled.

use strict;
use warnings;
use Test::More;
use Time::HiRes qw(sleep time);
use Keytoll::Test;
use Keytoll::Books;

my $T = JSON::PP::true;
my $g = Keytoll::Test->gate(workers => 2, aof => 1, more => 'proxy_buffering off;');
$g->expect(qr/exited on signal 9/);
my $key = $g->key(par => 2000, limit => usd(1000), strict => $T, rpm => 1e7, tpm => 1e9);
my $kills = $ENV{KEYTOLL_LONG} ? 100 : 20;

# Every request that the provider saw has one row, and no row is without one.
# Rows of requests whose worker died are estimates; all others are exact.
# A worker that dies between the verdict of Redis and its journal leaves a lease
# that nobody knows of: it ends by itself, here at once.
sub books_after_crashes {
    my ($what, $cut) = @_;
    $g->settled(4);
    my @alone = @{ $g->{r}->call('ZRANGE', 'kt:{0000}:z', 0, -1) };
    cmp_ok(scalar(@alone), '<=', $cut // 0, "$what: leases without a journal: @{[scalar @alone]}, of requests cut off") or diag("@alone");
    $g->{r}->call('ZADD', 'kt:{0000}:z', 'XX', 1, $_) for @alone;
    $g->{r}->fcall('kt_sweep', 200) while $g->{r}->call('ZCARD', 'kt:{0000}:z');
    ok($g->settled(30), "$what: settled, no lease stands");
    my (%row, %again, $sum);
    for ($g->events) {
        my $e = $_->[0];
        $again{ $e->{id} }++ if $row{ $e->{id} };
        $row{ $e->{id} } = $e;
        $sum += $e->{cost};
    }
    is(scalar(keys %again), 0, "$what: no id has two rows");
    is($g->state($key)->{used}, $sum, "$what: used is the sum of the ledger");
    is($g->state('global')->{used}, $sum, "$what: on all levels");
    is($g->state($key)->{held} . ' ' . $g->state($key)->{par}, '0 0', "$what: nothing is held");
    my @truth = $g->truth;
    my @lost = grep { $_->{end} eq 'lost' } values %row;
    my @told = grep { $_->{end} ne 'lost' } values %row;
    is(scalar(grep { !$_->{est} || $_->{cost} <= 0 } @lost), 0, "$what: lost ones are estimates, none is free");
    cmp_ok(scalar(@told), '<=', scalar(@truth), "$what: no row without a request");
    cmp_ok(scalar(keys %row), '>=', scalar(@truth), "$what: a row for every request that the provider saw (@{[scalar @truth]})");
    return scalar @lost;
}

subtest 'F12 kill -9 of a worker, again and again' => sub {
    my @load = map { load_begin($g, $key, wide => 6, delay => 40) } 1, 2;
    my ($hung, $n) = (0, 0);
    for (1 .. $kills) {
        sleep 0.1 + rand 0.15;
        my @w = $g->workers or next;
        kill 'KILL', $w[rand @w] and $n++;
        eventually { $g->workers == 2 } 5 or $hung++;
    }
    is($hung, 0, "$n workers were killed, each was replaced");
    sleep 0.5;
    my (%sum);
    for my $l (@load) { my $s = load_end($l); $sum{$_} += $s->{$_} for keys %$s }
    is(join(' ', grep { !/^(200|503|0|cut)$/ } keys %sum), '', 'clients saw: ' . join ', ', map { "$_ x $sum{$_}" } sort keys %sum);
    ok($sum{200} > 100, 'most pass');
    my $lost = books_after_crashes('crash loop', ($sum{0} // 0) + ($sum{cut} // 0));
    cmp_ok($lost, '>', 0, "$lost requests lost their worker");
    cmp_ok($g->status->{adopted_total}, '>=', $n / 4, 'journals were taken over: ' . $g->status->{adopted_total});
    is($g->status->{active_requests}, 0, 'the dead have nothing in hand');
};

subtest 'F13 kill -9 of the master, its workers live on' => sub {
    my @orphans = $g->workers;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        $g->chat($key, stream => $T, max_tokens => 100, headers => ['x-mock-event-delay-ms', 15]);
        POSIX::_exit(0);
    }
    sleep 0.3;
    kill 'KILL', $g->{nginx}[0];
    waitpid $g->{nginx}[0], 0;
    $g->{nginx}[0] = undef;
    is($g->chat($key)->{status}, 200, 'the orphans go on');
    kill 'KILL', @orphans;
    waitpid $pid, 0;
    ok(eventually(sub { !grep { kill 0, $_ } @orphans }, 5), 'they are killed, too');
    $g->start_nginx(0);
    is($g->chat($key)->{status}, 200, 'a new start');
    ok(eventually(sub { $g->status->{adopted_total} > 0 }, 10), 'takes over');
    books_after_crashes('a new start', 1);
};

subtest 'F12 Redis dies with the workers' => sub {
    my $l = load_begin($g, $key, wide => 6, delay => 40);
    sleep 1.5;                                              # appendfsync everysec
    kill 'KILL', $g->workers;
    $g->stop_redis('KILL');
    sleep 0.3;
    kill 'KILL', $g->workers;
    sleep 0.3;
    $g->start_redis;
    ok(eventually(sub { $g->chat($key)->{status} == 200 }, 10), 'all are back');
    my $s = load_end($l);
    books_after_crashes('both', ($s->{0} // 0) + ($s->{cut} // 0));
};

# Two nginx on one host share a folder of journals: each leaves the living to
# themselves, and takes over from the dead.
subtest 'two nginx, one folder' => sub {
    $g->start_nginx(1);
    my %load = (0 => load_begin($g, $key, wide => 4), 1 => load_begin($g, $key, wide => 4, nginx => 1));
    sleep 3;                                                # three looks for orphans
    is($g->status(1)->{adopted_total}, 0, 'the second takes nothing from the first while that lives');
    my $adopted = $g->status(0)->{adopted_total};
    my $s = load_end($load{1});
    is_deeply([keys %$s], [200], 'both work');
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        $g->chat($key, nginx => 1, stream => $T, max_tokens => 100, headers => ['x-mock-event-delay-ms', 15]);
        POSIX::_exit(0);
    }
    sleep 0.4;
    my @w = $g->workers(1);
    kill 'KILL', $g->{nginx}[1], @w;
    waitpid $g->{nginx}[1], 0;
    $g->{nginx}[1] = undef;
    waitpid $pid, 0;
    ok(eventually(sub { $g->status(0)->{adopted_total} > $adopted }, 10), 'the second is killed whole: the first takes over');
    is_deeply([keys %{ load_end($load{0}) }], [200], 'which served on meanwhile');
    books_after_crashes('two nginx');
};

$g->finish;
