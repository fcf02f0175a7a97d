# Redis stops, slows, lies or forgets: nothing passes that was not admitted,
# nothing is charged twice or not at all, nothing stays held, and requests that
# are not gated never notice.  F numbers are those of the fault matrix; F2 to F6
# are in failover.t, F12 to F16 in crashes.t and lifecycle.t, F10 also in
# redis_lies.t.

use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time sleep);
use Keytoll::Test;
use Keytoll::FaultProxy;
use Keytoll::Books ();

my $T = JSON::PP::true;
my $fp = Keytoll::FaultProxy->new;
my $g = Keytoll::Test->gate(nginx => 0, aof => 1, redis_addr => $fp->{addr}, timeout => '150ms', workers => 1,
    more => 'location = /open { keytoll off; return 200 open; }');
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

sub works { my ($n, $k) = @_; return eventually { ask($k // $key, nginx => $n)->{status} == 200 } 8 }

sub exact { Keytoll::Books::exact($g, $key, shift) }

# A location without the gate answers as if nothing were wrong, on all three.
sub others_go_on {
    my $what = shift;
    my ($worst, $most) = (0, $ENV{KEYTOLL_ASAN} ? 0.5 : 0.05);
    for (1 .. 5) {                              # one round may be disturbed by the machine
        $worst = 0;
        for my $n (0 .. 2, 0 .. 2, 0 .. 2) {
            my $from = time;
            my $r = http_call($g->{port}[$n], 'GET', '/open');
            $r->{status} == 200 or return fail("$what: not gated: $r->{status}");
            $worst = time - $from if time - $from > $worst;
        }
        last if $worst < $most;
    }
    cmp_ok($worst, '<', $most, sprintf '%s: others go on within %.0f ms', $what, 1000 * $worst);
}

sub unavailable {
    my ($r, $what) = @_;
    is($r->{status}, 503, "$what: 503");
    is($r->{json}{error}{type}, 'budget_enforcement_unavailable', "$what: says why");
    cmp_ok($r->{headers}{'retry-after'} // 0, '>=', 1, "$what: with retry-after");
}

is(ask($key, nginx => $_)->{status}, 200, "gate $_ passes through the proxy") for 0 .. 2;
exact('to begin with');

subtest 'F7 slow: below the deadline' => sub {
    for my $ms (30, 60, 90) {
        $fp->do("delay $ms");
        my $r = ask($key);
        is($r->{status}, 200, "$ms ms: passes");
        cmp_ok($r->{took}, '>=', $ms / 1000, 'and waits');
        others_go_on("delay of $ms ms");
        $fp->do('pass');
    }
    exact('slow but in time');
};

subtest 'F7 slow: inside two deadlines' => sub {
    $fp->do('delay 230');
    my $r = ask($key);
    unavailable($r, 'a late answer');
    others_go_on('late answers');
    cmp_ok($r->{took}, '<', 0.6, sprintf 'after %.0f ms', 1000 * $r->{took});
    $fp->do('pass');
    ok(works(0), 'recovers');
    exact('late grants are given back');
    cmp_ok($g->status(0)->{released_total}, '>=', 1, 'released');
};

subtest 'F7 slow: beyond' => sub {
    $fp->do('delay 3000');
    my $r = ask($key);
    unavailable($r, 'no answer');
    cmp_ok($r->{took}, '<', 0.6, sprintf 'after %.0f ms', 1000 * $r->{took});
    eventually { $g->status(0)->{redis_timeouts_total} > 1 } 2;
    sleep 0.3;
    $r = ask($key);
    unavailable($r, 'with the breaker open');
    others_go_on('breaker open');
    cmp_ok($r->{took}, '<', 0.1, sprintf 'at once (%.0f ms)', 1000 * $r->{took});
    $fp->do('pass');
    $fp->do('reset');
    my $from = time;
    ok(works(0), 'recovers');
    cmp_ok(time - $from, '<', 4, sprintf 'after %.1f s', time - $from);
    exact('grants that nobody heard of are given back');
};

subtest 'F7 F22 half-open, drip, stopped for moments' => sub {
    $fp->do('stall');
    unavailable(ask($key), 'half-open connection');
    others_go_on('half-open connection');
    $fp->do('pass');
    ok(works(0), 'recovers');
    $fp->do('drip 3 20');
    ask($key) for 1 .. 3;
    others_go_on('drip');
    $fp->do('pass');
    ok(works(0), 'recovers from a drip');
    exact('half-open and dripping');
    my $l = Keytoll::Books::load_begin($g, $key);
    for (1 .. 3) {
        kill 'STOP', $g->{redis_pid};
        sleep 0.1;
        others_go_on('Redis is stopped');
        sleep 0.1;
        kill 'CONT', $g->{redis_pid};
        sleep 0.5;
    }
    my $n = Keytoll::Books::load_end($l);
    is(join(' ', grep { !/^(200|503)$/ } keys %$n), '', 'only 200 and 503: ' . join ', ', map { "$_ x $n->{$_}" } sort keys %$n);
    ok($n->{200}, 'some pass');
    ok(works(0), 'recovers');
    exact('SIGSTOP of 200 ms, three times');
};

subtest 'F25 C26 inv03_settle_once_lost_replies' => sub {
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

subtest 'C21 five of a hundred replies are lost after the command ran' => sub {
    my $before = $fp->stats->{dropped};
    $fp->do('drop-percent 5');
    my $l = Keytoll::Books::load_begin($g, $key, wide => 4, delay => 60);
    for (1 .. 6) { sleep 0.5; others_go_on('lost replies') }
    my $n = Keytoll::Books::load_end($l);
    $fp->do('pass');
    cmp_ok($fp->stats->{dropped} - $before, '>=', 3, 'replies were lost: ' . ($fp->stats->{dropped} - $before));
    is(join(' ', grep { !/^(200|503)$/ } keys %$n), '', 'only 200 and 503: ' . join ', ', map { "$_ x $n->{$_}" } sort keys %$n);
    ok($n->{200}, 'some pass');
    ok(works(0), 'recovers');
    exact('lost replies: drift 0');
};

# Changes when the connection for calls of a gate is lost.
sub connection_of { my $s = $g->status($_[0]); return join ' ', $s->{redis_connects_total}, map { $_->{redis} } @{ $s->{workers} } }

subtest 'F10 garbage and partial replies' => sub {
    for (1 .. 3) {
        my $r;
        for (1 .. 20) {                         # the answer to a PING of a watch may take the garbage
            $g->settled;
            my $before = connection_of(0);
            $fp->do('garbage 1');
            $r = ask($key);
            last if $r->{status} != 200 || connection_of(0) ne $before;
        }
        unavailable($r, 'garbage');
        others_go_on('garbage');
        ok(works(0), 'goes on');
    }
    for my $n (0, 1, 2, 3, 5, 9, 17, 40, 80) {
        $fp->do("close-after $n");
        my $r = ask($key);
        ok($r->{status} == 503 || $r->{status} == 200, "cut after $n bytes: $r->{status}");
        others_go_on('cut replies');
        ok(works(0), 'goes on');
    }
    exact('garbage and cuts');
};

subtest 'F10 error replies' => sub {
    for my $e ("READONLY You can't write against a read only replica.", 'LOADING Redis is loading the dataset in memory',
        'OOM command not allowed when used memory > maxmemory.', 'BUSY Redis is busy running a script.', 'NOPERM no permissions',
        'MOVED 1234 10.0.0.1:6379', 'ERR Function not found', 'MISCONF Errors writing to the AOF file', 'NOSCRIPT No matching script.', 'MASTERDOWN Link with MASTER is down',
        'UNBLOCKED force unblock', 'CROSSSLOT Keys', 'CLUSTERDOWN Hash slot not served', 'WRONGPASS invalid username-password pair', 'EXECABORT', 'E' x 200, 'NOAUTH Authentication required.') {
        my ($word) = $e =~ /^(\w+)/;
        $fp->do("error $e");
        unavailable(ask($key), $word);
        others_go_on($word);
        my $r = ask('sk-unknown-key-of-nobody-at-all');
        is($r->{status}, 503, "$word: an unknown key is 503, not 401");
        $fp->do('pass');
        $fp->do('reset');
        ok(works(0), "$word: goes on");
    }
    exact('error replies');
};

subtest 'F8 Redis out of memory' => sub {
    my $pid = fork // die;
    if (!$pid) {
        ask($key, headers => ['x-mock-delay-ms', 300]);
        POSIX::_exit(0);
    }
    sleep 0.15;
    $g->{r}->call('CONFIG', 'SET', 'maxmemory', '1');
    unavailable(ask($key), 'Redis out of memory');
    others_go_on('Redis out of memory');
    waitpid $pid, 0;
    sleep 0.3;
    is($g->status(0)->{pending_settlements}, 1, 'a settlement waits meanwhile');
    $g->{r}->call('CONFIG', 'SET', 'maxmemory', '0');
    ok(works(0), 'recovers');
    exact('out of memory');
};

subtest 'F22 reset under load' => sub {
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

subtest 'F1 stopped' => sub {
    is(ask($plain, nginx => 2)->{status}, 200, 'a key without limits was seen');
    is(ask($key, nginx => 2)->{status}, 200, 'one with limits too');
    my $gone = $g->key;
    my $other = $g->key;
    is(ask($_, nginx => 2)->{status}, 200, 'and two more without') for $gone, $other;
    $g->policy(map { $_ => { limit => usd(1) } } 'customer:cu', 'tag:ta', 'tag:tb');
    my %held = map { $_ => 'sk-limited-elsewhere-' . $_ } qw(model window alias);
    my %token = map { $_ => token($held{$_}) } keys %held;
    $g->policy("key:$token{model}~m~emb" => { t => 'model', limit => usd(1) }, "key:$token{window}~w~1d" => { t => 'window', limit => usd(1) });
    $g->key(key => $held{model}, refs => ['global'], sub => [{ m => 'emb', e => "key:$token{model}~m~emb" }]);
    $g->key(key => $held{window}, refs => ['global'], win => ["key:$token{window}~w~1d"]);
    $g->key(key => $held{alias}, refs => ['global'], aliases => { 'emb' => 'gpt-4o-mini' });
    is(ask($held{$_}, nginx => 2)->{status}, 200, "one with a limit or an alias of another model: $_") for sort keys %held;
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
    others_go_on('no Redis');
    is(ask('sk-unknown-key-of-nobody-at-all')->{status}, 503, 'an unknown key is 503, never 401');

    is(ask($key, nginx => 1)->{status}, 200, 'allow: passes');
    is(ask($key, nginx => 1, stream => $T, stream_options => { include_usage => $T })->{status}, 200, 'allow: a stream passes');
    is($g->status(1)->{pending_settlements}, 2, 'allow: both wait to be settled');

    is(ask($plain, nginx => 2)->{status}, 200, 'cached: a key without limits passes');
    is(ask($key, nginx => 2)->{status}, 503, 'cached: one with limits does not');
    is(ask('sk-unknown-key-of-nobody-at-all', nginx => 2)->{status}, 503, 'cached: an unknown one neither');
    is(ask($held{$_}, nginx => 2)->{status}, 503, "cached: nor who has a $_ of his own for another") for sort keys %held;
    my $tagged = ask($key, nginx => 1, user => 'cu', metadata => { tags => ['ta', 'tb'] });
    is($tagged->{status}, 200, 'allow: with a customer and tags');
    is(ask($gone, nginx => 2)->{status}, 503, 'inv05: cached: nor one that was blocked after it passed');

    $g->start_redis;
    my $pong = time;
    ok(works($_), "gate $_ comes back") for 0 .. 2;
    cmp_ok(time - $pong, '<', 1.5 * $Keytoll::Test::SLOW, sprintf '%.1f s after Redis', time - $pong);
    exact('after a restart of Redis');
    my @late = grep { $_->[2] eq 'late' && $_->[0]{t0} >= $killed_ms } $g->events;
    cmp_ok(scalar(grep { $_->[1] =~ /^key:\w+\t\d+\t48$/m && $_->[1] =~ /^global\t/m } @late), '>=', 3, 'what passed unreserved is booked on all levels');
    for my $name ('customer:cu', 'tag:ta', 'tag:tb') {
        my ($e) = grep { $_->[1] =~ /^\Q$name\E\t\d+\t48$/m } @late;
        ok($e, "and on $name");
        is($g->state($name)->{used}, $e ? $e->[0]{cost} : '-', "$name: with what it cost");
    }
    is(ask('sk-unknown-key-of-nobody-at-all', nginx => 1)->{status}, 401, 'with Redis an unknown key is 401 again');
};

# A request runs while Redis cannot take its settlement.
sub running {
    my $ms = shift;
    my $pid = fork // die "fork: $!";
    if (!$pid) { ask($key, headers => ['x-mock-delay-ms', $ms]); POSIX::_exit(0) }
    sleep 0.15;
    return $pid;
}

subtest 'F10 no functions' => sub {
    my $pid = running(300);
    $g->{r}->call('FUNCTION', 'FLUSH');
    unavailable(ask($key), 'no functions');
    is(ask('sk-unknown-key-of-nobody-at-all')->{status}, 503, 'an unknown key is 503, not 401');
    others_go_on('no functions');
    waitpid $pid, 0;
    sleep 1;
    is($g->status(0)->{pending_settlements}, 1, 'a settlement waits for them');
    $g->load_functions;
    ok(works(0), 'recovers');
    ok($g->settled(3), 'and is settled as soon as they are there');
    exact('no functions');
};

subtest 'F10 BUSY: a function that does not end' => sub {
    $g->{r}->call('FUNCTION', 'LOAD', 'REPLACE', "#!lua name=spin\nredis.register_function('spin', function() while true do end end)");
    $g->{r}->call('CONFIG', 'SET', 'busy-reply-threshold', 50);
    my $pid = fork // die "fork: $!";
    if (!$pid) { eval { Keytoll::Redis->new($g->{sock})->call('FCALL', 'spin', 0) }; POSIX::_exit(0) }
    sleep 0.3;
    unavailable(ask($key), 'busy') for 1 .. 3;
    others_go_on('busy');
    $g->{r}->call('FUNCTION', 'KILL');
    waitpid $pid, 0;
    ok(works(0), 'recovers');
    $g->{r}->call('FUNCTION', 'DELETE', 'spin');
    $g->{r}->call('CONFIG', 'SET', 'busy-reply-threshold', 5000);
    exact('busy');
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

subtest 'F9 MISCONF: Redis cannot save' => sub {
    my $pid = running(300);
    my $dir = "$g->{dir}/gone";
    mkdir $dir;
    $g->{r}->call('CONFIG', 'SET', 'save', '3600 1');
    $g->{r}->call('CONFIG', 'SET', 'dir', $dir);
    rmdir $dir;
    eval { $g->{r}->call('BGSAVE') };
    ok(eventually(sub { $g->{r}->call('INFO', 'persistence') =~ /rdb_last_bgsave_status:err/ }, 5), 'a save has failed');
    unavailable(ask($key), 'MISCONF');
    is(ask('sk-unknown-key-of-nobody-at-all')->{status}, 503, 'an unknown key is 503, not 401');
    others_go_on('MISCONF');
    waitpid $pid, 0;
    sleep 0.5;
    is($g->status(0)->{pending_settlements}, 1, 'a settlement waits meanwhile');
    $g->{r}->call('CONFIG', 'SET', 'stop-writes-on-bgsave-error', 'no');
    ok(works(0), 'recovers');
    exact('MISCONF');
};

is("@{[ map { $g->workers($_) } 0 .. 2 ]}", "@pids", 'no worker has died');
$g->{o}{redis_addr} = undef;
$g->finish;
$fp->stop;
