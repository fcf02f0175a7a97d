# Redis stops, slows, lies or forgets: nothing passes that was not admitted,
# nothing is charged twice or not at all, and nothing stays held.

use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time sleep);
use Keytoll::Test;
use Keytoll::FaultProxy;

my $T = JSON::PP::true;
my $fp = Keytoll::FaultProxy->new;
my $g = Keytoll::Test->gate(nginx => 0, aof => 1, redis_addr => $fp->{addr}, timeout => '150ms', workers => 1);
$fp->start("unix:$g->{sock}");
$g->start_nginx(0);
$g->{o}{failure} = 'allow';
$g->start_nginx(1);
$g->{o}{failure} = 'cached';
$g->start_nginx(2);
my @pids = map { $g->workers($_) } 0 .. 2;

my $key = $g->key(limit => usd(100), strict => $T, par => 400, name => 'limited');
my $plain = $g->key;

sub ask {
    my ($k, %o) = @_;
    my $from = time;
    my $r = $g->chat($k, %o);
    $r->{took} = time - $from;
    return $r;
}

sub cost_of_truth {
    my $sum = 0;
    $sum += $_->{prompt_tokens} * 150 + $_->{completion_tokens} * 600 for grep { $_->{ended} eq 'complete' } $g->truth;
    return $sum;
}

sub works { my ($n, $k) = @_; return eventually { ask($k // $key, nginx => $n)->{status} == 200 } 8 }

# Everything served is charged, to the nano-dollar and once, and nothing is held.
sub exact {
    my $what = shift;
    ok($g->settled(20), "$what: settled, no lease stands") or diag($g->{r}->call('ZCARD', 'kt:{0000}:z'));
    my $truth = cost_of_truth();
    my @events = $g->events;
    my (%seen, $sum);
    $seen{ $_->[0]{id} }++, $sum += $_->[0]{cost} for @events;
    is($sum, $truth, "$what: the ledger equals what was served");
    is($g->state('global')->{used}, $truth, "$what: used equals what was served");
    is(scalar(grep { $_ > 1 } values %seen), 0, "$what: each once");
    my $e = $g->state($key);
    is("$e->{held} $e->{par}", '0 0', "$what: nothing is held");
    is(scalar(grep { ($g->{r}->call('GET', $_) // '') =~ /^H/ } @{ $g->{r}->call('KEYS', 'kt:{0000}:h:*') }), 0, "$what: no hold record is left");
}

sub unavailable {
    my ($r, $what) = @_;
    is($r->{status}, 503, "$what: 503");
    is($r->{json}{error}{type}, 'budget_enforcement_unavailable', "$what: says why");
    cmp_ok($r->{headers}{'retry-after'} // 0, '>=', 1, "$what: with retry-after");
}

is(ask($key, nginx => $_)->{status}, 200, "gate $_ passes through the proxy") for 0 .. 2;
exact('to begin with');

subtest 'slow: inside two deadlines' => sub {
    $fp->do('delay 230');
    my $r = ask($key);
    unavailable($r, 'a late answer');
    cmp_ok($r->{took}, '<', 0.6, sprintf 'after %.0f ms', 1000 * $r->{took});
    $fp->do('pass');
    ok(works(0), 'recovers');
    exact('late grants are given back');
    cmp_ok($g->status(0)->{released_total}, '>=', 1, 'released');
};

subtest 'slow: beyond' => sub {
    $fp->do('delay 3000');
    my $r = ask($key);
    unavailable($r, 'no answer');
    cmp_ok($r->{took}, '<', 0.6, sprintf 'after %.0f ms', 1000 * $r->{took});
    eventually { $g->status(0)->{redis_timeouts_total} > 1 } 2;
    sleep 0.3;
    $r = ask($key);
    unavailable($r, 'with the breaker open');
    cmp_ok($r->{took}, '<', 0.1, sprintf 'at once (%.0f ms)', 1000 * $r->{took});
    $fp->do('pass');
    $fp->do('reset');
    my $from = time;
    ok(works(0), 'recovers');
    cmp_ok(time - $from, '<', 4, sprintf 'after %.1f s', time - $from);
    exact('grants that nobody heard of are given back');
};

subtest 'stall and drip' => sub {
    $fp->do('stall');
    unavailable(ask($key), 'half-open connection');
    $fp->do('pass');
    ok(works(0), 'recovers');
    $fp->do('drip 3 20');
    ask($key) for 1 .. 3;
    $fp->do('pass');
    ok(works(0), 'recovers from a drip');
    exact('half-open and dripping');
};

subtest 'inv03_settle_once_lost_replies' => sub {
    for (1 .. 4) {
        my $pid = fork // die;
        if (!$pid) {
            ask($key, headers => ['x-mock-delay-ms', 400]);
            POSIX::_exit(0);
        }
        sleep 0.2;
        $fp->do('drop-replies 1');                          # a settlement's, most likely
        waitpid $pid, 0;
        ok(works(0), 'goes on');
    }
    cmp_ok($fp->stats->{dropped}, '>=', 4, 'replies were lost');
    exact('lost replies of settlements');
    for (1 .. 4) {
        $fp->do('drop-replies 1');
        ask($key);                                          # an admission's
        ok(works(0), 'goes on');
    }
    exact('lost replies of admissions');
};

subtest 'garbage and partial replies' => sub {
    for (1 .. 3) {
        $fp->do('garbage 1');
        unavailable(ask($key), 'garbage');
        ok(works(0), 'goes on');
    }
    for my $n (0, 1, 2, 3, 5, 9, 17, 40, 80) {
        $fp->do("close-after $n");
        my $r = ask($key);
        ok($r->{status} == 503 || $r->{status} == 200, "cut after $n bytes: $r->{status}");
        ok(works(0), 'goes on');
    }
    exact('garbage and cuts');
};

subtest 'error replies' => sub {
    for my $e ("READONLY You can't write against a read only replica.", 'LOADING Redis is loading the dataset in memory',
        'OOM command not allowed when used memory > maxmemory.', 'BUSY Redis is busy running a script.', 'NOPERM no permissions',
        'MOVED 1234 10.0.0.1:6379', 'ERR Function not found', 'MISCONF Errors writing to the AOF file', 'NOAUTH Authentication required.') {
        my ($word) = $e =~ /^(\w+)/;
        $fp->do("error $e");
        unavailable(ask($key), $word);
        my $r = ask('sk-unknown-key-of-nobody-at-all');
        is($r->{status}, 503, "$word: an unknown key is 503, not 401");
        $fp->do('pass');
        $fp->do('reset');
        ok(works(0), "$word: goes on");
    }
    exact('error replies');

    my $pid = fork // die;
    if (!$pid) {
        ask($key, headers => ['x-mock-delay-ms', 300]);
        POSIX::_exit(0);
    }
    sleep 0.15;
    $g->{r}->call('CONFIG', 'SET', 'maxmemory', '1');
    unavailable(ask($key), 'Redis out of memory');
    waitpid $pid, 0;
    sleep 0.3;
    is($g->status(0)->{pending_settlements}, 1, 'a settlement waits meanwhile');
    $g->{r}->call('CONFIG', 'SET', 'maxmemory', '0');
    ok(works(0), 'recovers');
    exact('out of memory');
};

subtest 'reset under load' => sub {
    my $pid = fork // die;
    if (!$pid) {
        for (1 .. 40) { $fp->do('reset'); sleep 0.05 }
        POSIX::_exit(0);
    }
    my %n;
    my $end = time + 2.2;
    while (time < $end) {
        my @r = http_burst($g->{port}[0], [map { ['POST', '/v1/chat/completions', ['Authorization', "Bearer $key", 'Content-Type', 'application/json',
            'x-mock-delay-ms', int rand 60], Keytoll::Test::chat_body(stream => rand() < 0.2 ? $T : JSON::PP::false)] } 1 .. 30]);
        $n{ $_->{status} }++ for @r;
    }
    waitpid $pid, 0;
    is(join(' ', grep { $_ != 200 && $_ != 503 } sort keys %n), '', 'only 200 and 503: ' . join ', ', map { "$_ x $n{$_}" } sort keys %n);
    ok($n{200} && $n{503}, 'both');
    ok(works(0), 'recovers');
    exact('connections reset under load');
};

subtest 'stopped' => sub {
    is(ask($plain, nginx => 2)->{status}, 200, 'a key without limits was seen');
    is(ask($key, nginx => 2)->{status}, 200, 'one with limits too');
    my $gone = $g->key;
    my $other = $g->key;
    is(ask($_, nginx => 2)->{status}, 200, 'and two more without') for $gone, $other;
    sleep 0.1;
    $g->policy('key:' . token($gone) => { refs => ['global'], blocked => $T });
    sleep 0.2;
    is(ask($_, nginx => 2)->{status}, 200, 'seen since the latest change') for $plain, $other;
    my $slow = fork // die;
    if (!$slow) {
        ask($key, headers => ['x-mock-delay-ms', 500]);
        POSIX::_exit(0);
    }
    sleep 0.15;
    sleep 1.2;                                              # appendfsync everysec
    my $killed_ms = time * 1000;                            # older ones may be late too: Redis forgot them
    $g->stop_redis('KILL');
    waitpid $slow, 0;
    my $r = ask($key);
    unavailable($r, 'no Redis');
    cmp_ok($r->{took}, '<', 0.4, 'at once');
    is(ask('sk-unknown-key-of-nobody-at-all')->{status}, 503, 'an unknown key is 503, never 401');

    is(ask($key, nginx => 1)->{status}, 200, 'allow: passes');
    is(ask($key, nginx => 1, stream => $T, stream_options => { include_usage => $T })->{status}, 200, 'allow: a stream passes');
    is($g->status(1)->{pending_settlements}, 2, 'allow: both wait to be settled');

    is(ask($plain, nginx => 2)->{status}, 200, 'cached: a key without limits passes');
    is(ask($key, nginx => 2)->{status}, 503, 'cached: one with limits does not');
    is(ask('sk-unknown-key-of-nobody-at-all', nginx => 2)->{status}, 503, 'cached: an unknown one neither');
    is(ask($gone, nginx => 2)->{status}, 503, 'inv05: cached: nor one that was blocked after it passed');

    $g->start_redis;
    ok(works($_), "gate $_ comes back") for 0 .. 2;
    exact('after a restart of Redis');
    my @late = grep { $_->[2] eq 'late' && $_->[0]{t0} >= $killed_ms } $g->events;
    cmp_ok(scalar(grep { $_->[1] =~ /^key:\w+\t\d+\t48$/m && $_->[1] =~ /^global\t/m } @late), '>=', 3, 'what passed unreserved is booked on all levels');
    is(ask('sk-unknown-key-of-nobody-at-all', nginx => 1)->{status}, 401, 'with Redis an unknown key is 401 again');
};

subtest 'inv04_no_phantom_passed_while_granted' => sub {
    $fp->do('delay 230');                                   # the grant comes when the request has passed already
    is(ask($key, nginx => 1)->{status}, 200, 'allow: passes after the deadline');
    $fp->do('pass');
    exact('a late grant of a request that passed');
    $fp->do('drop-replies 1');
    is(ask($key, nginx => 1)->{status}, 200, 'allow: passes though its grant was lost');
    ok(works(1), 'recovers');
    exact('a lost grant of a request that passed');
};

subtest 'inv07_no_generation' => sub {
    my $gen = $g->{r}->call('GET', 'kt:{0000}:gen');
    $g->{r}->call('DEL', 'kt:{0000}:gen');
    unavailable(ask($key), 'not ready');
    is(ask('sk-unknown-key-of-nobody-at-all')->{status}, 503, 'nobody is unknown');
    $g->{r}->call('SET', 'kt:{0000}:gen', $gen - 1);
    unavailable(ask($key), 'an older generation than one seen');
    $g->{r}->call('SET', 'kt:{0000}:gen', $gen);
    ok(works(0), 'ready again');
    exact('not ready');
};

is("@{[ map { $g->workers($_) } 0 .. 2 ]}", "@pids", 'no worker has died');
$g->{o}{redis_addr} = undef;
$g->finish;
$fp->stop;
