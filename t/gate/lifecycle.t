# Reload, shutdown, upgrade under load: no request is lost, none counted twice.

use strict;
use warnings;
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep time);
use Keytoll::Test;

my $T = JSON::PP::true;
my $g = Keytoll::Test->gate(workers => 2, more => 'proxy_buffering off;');
my $key = $g->key(par => 1000, limit => 1e13);

# a client process that calls until told to stop; prints "ok bad"
sub client {
    my ($streams) = @_;
    pipe my $in, my $out;
    my $pid = fork;
    if (!$pid) {
        my ($stop, $ok, $bad) = (0, 0, 0);
        $SIG{TERM} = sub { $stop = 1 };
        until ($stop) {
            my $r = $streams ? $g->chat($key, stream => $T, max_tokens => 30, headers => ['x-mock-event-delay-ms', 2]) : $g->chat($key);
            my $good = $r->{status} == 200 && $r->{complete} && (!$streams || $r->{body} =~ /\[DONE\]/);
            $good ? $ok++ : $bad++;
        }
        print $out "$ok $bad\n";
        close $out;
        POSIX::_exit(0);
    }
    close $out;
    return [$pid, $in];
}

my @clients = (client(0), client(0), client(1), client(1));
for (1 .. 10) {
    sleep 0.25;
    $g->reload;
}
sleep 0.5;
kill 'TERM', $_->[0] for @clients;
my ($ok, $bad) = (0, 0);
for my $c (@clients) {
    my $line = readline $c->[1];
    my ($o, $b) = split ' ', $line;
    $ok += $o;
    $bad += $b;
    waitpid $c->[0], 0;
}
cmp_ok($ok, '>', 100, "ten reloads under load: $ok requests");
is($bad, 0, 'none failed');
soon { $g->workers == 2 } 10, 'the old workers are gone';
ok($g->settled, 'everything settles');
is(scalar($g->events), $ok, 'inv03: one row each');
my $sum = 0;
$sum += $_->[0]{cost} for $g->events;
is($g->state($key)->{used}, $sum, 'used is the sum');
is($g->state($key)->{par}, 0, 'no slot stays');
is(scalar(grep { $_->[0]{est} } $g->events), 0, 'nothing was estimated');

# shutdown with a stream running
my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $g->{port}[0]);
syswrite $s, Keytoll::Test::request_text('POST', '/v1/chat/completions', ['Authorization', "Bearer $key", 'Connection', 'close', 'x-mock-event-delay-ms', 10], chat_body(stream => $T, max_tokens => 60));
sysread $s, my $first, 100;
my $n = scalar $g->events;
kill 'QUIT', $g->{nginx}[0];
my $all = $first;
while (sysread $s, my $buf, 65536) { $all .= $buf }
like($all, qr/\[DONE\]/, 'QUIT: the running stream ends as it should');
waitpid $g->{nginx}[0], 0;
$g->{nginx}[0] = undef;
is(scalar $g->events, $n + 1, 'and is settled before the worker leaves');
is($g->state($key)->{held}, 0, 'nothing is held');

# the journals of the workers that left are taken over by the next
$g->start_nginx(0);
is($g->chat($key)->{status}, 200, 'a new start');
soon { $g->status->{adopted_total} > 0 } 5, 'takes over what was left';
ok($g->settled, 'settles');
$sum = 0;
$sum += $_->[0]{cost} for $g->events;
is($g->state($key)->{used}, $sum, 'and counts nothing twice');

# binary upgrade: nginx ignores USR2 unless it is a daemon
my $up = Keytoll::Test->gate(workers => 2, daemon => 1);
$key = $up->key(limit => 1e13);
sub caller_process {
    pipe my $in, my $out;
    my $pid = fork;
    if (!$pid) {
        my ($stop, $ok, $bad) = (0, 0, 0);
        $SIG{TERM} = sub { $stop = 1 };
        until ($stop) { $up->chat($key)->{status} == 200 ? $ok++ : $bad++ }
        print $out "$ok $bad\n";
        close $out;
        POSIX::_exit(0);
    }
    close $out;
    return [$pid, $in];
}
my $old = $up->{nginx}[0];
my @c = map { caller_process() } 1, 2;
kill 'USR2', $old;
soon { -s "$up->{dir}/nginx0.pid.oldbin" && -s "$up->{dir}/nginx0.pid" } 5, 'USR2 starts a second master';
sleep 0.5;
kill 'QUIT', $old;
soon { !kill 0, $old } 10, 'the old one leaves';
sleep 0.4;
kill 'TERM', $_->[0] for @c;
($ok, $bad) = (0, 0);
for my $c (@c) { my ($o, $b) = split ' ', readline $c->[1]; $ok += $o; $bad += $b; waitpid $c->[0], 0 }
is($bad, 0, "binary upgrade: $ok requests, none failed");
$up->{nginx}[0] = Keytoll::Test::pid_of("$up->{dir}/nginx0.pid");
ok($up->settled, 'settles');
is(scalar($up->events), $ok, 'one row each');
$up->stop;

$g->finish;
