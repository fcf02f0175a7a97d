# Clients that leave: drain reads the answer to its end, cancel charges what
# was seen; never zero once anything was dispatched, and no slot stays.

use strict;
use warnings;
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep time);
use Keytoll::Test;

my $T = JSON::PP::true;

# Sends, reads until the wanted number of events was seen, leaves.
sub leave_after {
    my ($g, $key, $events, %o) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $g->{port}[0]);
    my $body = $o{body} // chat_body(stream => $T, max_tokens => 64);
    my $path = $o{path} // '/v1/chat/completions';
    syswrite $s, Keytoll::Test::request_text('POST', $path, ['Authorization', "Bearer $key", @{ $o{headers} // [] }], $body);
    my $all = '';
    while ($events > 0 && (() = $all =~ /data: /g) < $events) {
        sysread $s, $all, 4096, length $all or last;
    }
    sleep($o{wait} // 0);
    if ($o{rst}) { setsockopt $s, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0) }
    close $s;
    return scalar(() = $all =~ /data: /g);
}

my $d = Keytoll::Test->gate(abort => 'drain', more => 'proxy_buffering off;');
{
    my $key = $d->key(par => 1);
    my $n = 0;
    for my $k (1, 2, 3, 8, 32, 64) {
        for my $rst (0, 1) {
            leave_after($d, $key, $k, rst => $rst, headers => ['x-mock-event-delay-ms', 2]);
            ok($d->settled, "drain: left after $k events" . ($rst ? ' by reset' : '') . ', settled');
            my $e = ($d->events)[-1][0];
            is("$e->{in} $e->{out} $e->{est}", '12 64 0', 'charged exactly what the provider counts');
            $n++;
        }
    }
    leave_after($d, $key, 0, wait => 0.1, headers => ['x-mock-delay-ms', 300]);
    ok($d->settled, 'drain: left before the first byte');
    is(($d->events)[-1][0]{out}, 64, 'still exact');
    leave_after($d, $key, 0, wait => 0.1, body => chat_body(max_tokens => 30), headers => ['x-mock-delay-ms', 300]);
    ok($d->settled, 'drain: a plain answer nobody waits for');
    my $e = ($d->events)[-1][0];
    is("$e->{out} $e->{est}", '30 0', 'still exact');
    leave_after($d, $key, 3, path => '/v1/messages', body => '{"model":"claude-x","stream":true,"max_tokens":40,"messages":[]}', headers => ['x-mock-event-delay-ms', 3]);
    ok($d->settled, 'drain: anthropic');
    is(($d->events)[-1][0]{out}, 40, 'still exact');
    is($d->state($key)->{par}, 0, 'the slot is free');
    is($d->state($key)->{held}, 0, 'nothing is held');
    my $sum = 0;
    $sum += $_->[0]{cost} for $d->events;
    is($d->state($key)->{used}, $sum, 'used is the sum of the ledger');
    is(scalar(grep { $_->{ended} ne 'complete' } $d->truth), 0, 'the provider was always read to its end');
}

my $c = Keytoll::Test->gate(abort => 'cancel', more => 'proxy_buffering off;');
{
    my $key = $c->key(par => 1);
    for my $k (1, 2, 8, 32) {
        leave_after($c, $key, $k, headers => ['x-mock-event-delay-ms', 15]);
        ok($c->settled, "cancel: left after $k events, settled");
        my $e = ($c->events)[-1][0];
        is($e->{est}, 1, 'an estimate');
        cmp_ok($e->{out}, '>=', $k - 1, 'of at least what the client got');
        cmp_ok($e->{out}, '<', 64, 'and not of all: the provider was stopped');
        cmp_ok($e->{cost}, '>', 0, 'never free');
    }
    leave_after($c, $key, 0, wait => 0.15, headers => ['x-mock-delay-ms', 1000]);
    ok($c->settled, 'cancel: left before the first byte');
    my $e = ($c->events)[-1][0];
    cmp_ok($e->{cost}, '>', 0, 'the input is charged');
    is($e->{est}, 1, 'estimated');
    is($e->{end}, 'aborted', 'aborted');
    leave_after($c, $key, 4, path => '/v1/messages', body => '{"model":"claude-x","stream":true,"max_tokens":40,"messages":[]}', headers => ['x-mock-event-delay-ms', 15, 'x-mock-prompt-tokens', 77]);
    ok($c->settled, 'cancel: anthropic');
    $e = ($c->events)[-1][0];
    is($e->{in}, 77, 'its input is known from message_start');
    is($c->state($key)->{par}, 0, 'the slot is free');
    is($c->chat($key)->{status}, 200, 'and the next request passes');
}

# left while Redis was asked, or before: nothing reserved, nothing in the ledger
{
    my $key = $c->key(rpm => 100, par => 1);
    ok($c->settled, 'what was before is settled');
    my $before = scalar $c->events;
    kill 'STOP', $c->{redis_pid};
    leave_after($c, $key, 0, wait => 0.05) for 1 .. 3;
    sleep 0.2;
    kill 'CONT', $c->{redis_pid};
    ok($c->settled, 'left while the verdict was pending');
    is(scalar $c->events, $before, 'no ledger row for a request that never went upstream');
    my $s = $c->state($key);
    is("$s->{rpm} $s->{par} $s->{held}", '0 0 0', 'its grant was given back');
}

$c->stop;
$d->finish;
