# What hurt users of other gateways (t/PAINS.md), where no other test has it by itself.
# KEYTOLL_LONG=1 makes them as long as they were meant.

use strict;
use warnings;
use File::Temp qw(tempdir);
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep time);
use Keytoll::Test;

my $LONG = $ENV{KEYTOLL_LONG};
my $T = JSON::PP::true;
my $g = Keytoll::Test->gate(workers => 2, more => <<'END');
    proxy_buffering off;
    location /hasty/ { proxy_read_timeout 100ms; proxy_pass http://mock/; }
END
$g->expect(qr/exited on signal 9/);
my ($port) = @{ $g->{port} };

# C28: a stream that lasts longer than its lease is renewed; it runs beside all that follows.
my $c = Keytoll::Test->gate(abort => 'cancel', more => 'proxy_buffering off;');
my ($long_key, $long_s, $long_at) = ($c->key(par => 1, limit => usd(10)), $LONG ? 90 : 34, time);
my $long_pid = fork // die "fork: $!";
if (!$long_pid) {
    my $r = $c->chat($long_key, stream => $T, max_tokens => $long_s, headers => ['x-mock-event-delay-ms', 1000]);
    POSIX::_exit($r->{body} =~ /\[DONE\]/ ? 0 : 1);
}

sub outlives {
    my $renewed = 0;
    while (time < $long_at + $long_s - 1) {
        sleep 0.5;
        $c->{r}->fcall('kt_sweep', 200);
        my $until = $c->{r}->call('ZRANGE', 'kt:{0000}:z', 0, 0, 'WITHSCORES')->[1] // next;
        $renewed = 1 if $until > ($long_at + 60 + 15) * 1000;
    }
    ok($renewed, 'its lease is renewed');
    is($c->state($long_key)->{par}, 1, 'it keeps its slot');
    is($c->chat($long_key)->{status}, 429, 'which nobody else gets');
    waitpid $long_pid, 0;
    is($?, 0, "it is whole after $long_s s");
    ok($c->settled, 'settles');
    my ($e) = map { $_->[0] } grep { $_->[1] =~ /\Q${\token($long_key)}\E/ } $c->events;
    is("$e->{out} $e->{est} $e->{end}", "$long_s 0 complete", 'and is charged exactly, once');
    is($c->state($long_key)->{held} . ' ' . $c->state($long_key)->{par}, '0 0', 'nothing is held');
}

sub send_one {
    my ($key, $path, $headers, $body) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or return;
    syswrite $s, Keytoll::Test::request_text('POST', $path, ['Authorization', "Bearer $key", @$headers], $body);
    return $s;
}

# Leases of workers that died between verdict and journal end by themselves, here at once.
sub quiet {
    my $what = shift;
    $g->settled(5);
    $g->{r}->call('ZADD', 'kt:{0000}:z', 'XX', 1, $_) for @{ $g->{r}->call('ZRANGE', 'kt:{0000}:z', 0, -1) };
    $g->{r}->fcall('kt_sweep', 200) while $g->{r}->call('ZCARD', 'kt:{0000}:z');
    ok($g->settled(30), "$what: settles");
}

sub nothing_held {
    my ($key, $what) = @_;
    my $s = $g->state($key);
    is("$s->{held} $s->{par}", '0 0', "$what: nothing is held, no slot is taken");
}

subtest 'C20 errors, aborts, resets and a dead worker' => sub {
    my $key = $g->key(limit => usd(1000), strict => $T, par => 1000, rpm => 1e6, tpm => 1e9);
    my $rounds = $LONG ? 100 : 6;
    for my $round (1 .. $rounds) {
        my (@burst, @leave);
        for (1 .. 100) {
            my $how = rand;
            my @h = $how < 0.3 ? ('x-mock-status', (400, 429, 500, 503)[rand 4]) : $how < 0.35 ? ('x-mock-reset-after', 300 + int rand 3000) : ();
            if ($how >= 0.8) { push @leave, send_one($key, '/v1/chat/completions', ['x-mock-event-delay-ms', 3], chat_body(stream => $T, max_tokens => 60)) }
            else { push @burst, ['POST', '/v1/chat/completions', ['Authorization', "Bearer $key", @h], chat_body(stream => rand() < 0.5 ? $T : JSON::PP::false, max_tokens => 30)] }
        }
        kill 'KILL', ($g->workers)[0] if $round == int $rounds / 2;
        http_burst($port, \@burst);
        close $_ for grep { $_ } @leave;
    }
    quiet('mixed ends');
    nothing_held($key, 'mixed ends');
    my ($sum, $rows) = (0, 0);
    for (grep { $_->[1] =~ /\Q${\token($key)}\E/ } $g->events) { $sum += $_->[0]{cost}; $rows++ }
    cmp_ok($rows, '>', $rounds * 60, "$rows rows");
    is($g->state($key)->{used}, $sum, 'what is available is the budget less the ledger, exactly');
};

subtest 'C33 504, a thousand times' => sub {
    my $key = $g->key(par => 50, limit => usd(1), strict => $T);
    my %n;
    for my $round (1 .. 20) {
        my @h = $round % 2 ? ('x-mock-delay-ms', 2000) : ('x-mock-status', 504);
        $n{ $_->{status} }++ for http_burst($port, [map { ['POST', '/hasty/v1/chat/completions', ['Authorization', "Bearer $key", @h], chat_body()] } 1 .. 50]);
        ok($g->settled, "round $round settles") or last;
    }
    is(join(' ', map { "$_=$n{$_}" } sort keys %n), '504=1000', 'each of 1,000 is a 504, none is refused for those before');
    nothing_held($key, 'after them');
    is($g->state($key)->{used}, 0, 'and none costs anything');
};

subtest 'C27 every route, every end' => sub {
    my $key = $g->key(par => 3, limit => usd(1000), strict => $T);
    my $text = [{ role => 'user', content => 'hi' }];
    my $part = [{ role => 'user', parts => [{ text => 'hi' }] }];
    my %route = (
        '/v1/chat/completions' => { model => 'gpt-4o-mini', messages => $text }, '/v1/completions' => { model => 'gpt-4o-mini', prompt => 'hi' },
        '/v1/embeddings' => { model => 'emb', input => 'hi' }, '/v1/responses' => { model => 'gpt-4o-mini', input => 'hi', stream => $T },
        '/v1/messages' => { model => 'claude-x', max_tokens => 20, messages => $text, stream => $T }, '/v1/messages/count_tokens' => { model => 'claude-x', messages => $text },
        '/v1beta/models/gpt-4o-mini:generateContent' => { contents => $part }, '/v1beta/models/gpt-4o-mini:streamGenerateContent?alt=sse' => { contents => $part },
        '/openai/deployments/gpt-4o-mini/chat/completions' => { messages => $text }, '/v1/moderations' => { model => 'free', input => 'x' },
        '/v1/rerank' => { model => 'emb', query => 'q', documents => ['a'] }, '/score' => { model => 'emb', text_1 => 'a', text_2 => 'b' }, '/tokenize' => { model => 'gpt-4o-mini', prompt => 'a' },
    );
    my $loose = $g->key(par => 3);
    my @open = ('/v1/images/generations', { model => 'gpt-4o-mini', prompt => 'x' }, '/v1/audio/speech', { model => 'gpt-4o-mini', input => 'x', voice => 'a' }, '/v1/batches', {}, '/anything/else', {});
    my %loose = @open;
    for my $c ((map { [$key, $_, $route{$_}] } sort keys %route), map { [$loose, $_, $loose{$_}] } sort keys %loose) {
        my ($k, $path, $body) = @$c;
        $body = $Keytoll::Test::JSON->encode($body);
        for my $end (['answered'], ['refused upstream', 'x-mock-status', 500], ['reset', 'x-mock-reset-after', 40], ['timed out', 'x-mock-delay-ms', 1500]) {
            my ($what, @h) = @$end;
            my $at = $what eq 'timed out' ? "/hasty$path" : $path;
            my $r = http_call($port, 'POST', $at, ['Authorization', "Bearer $k", @h], $body);
            isnt($r->{status}, 429, "$path, $what: $r->{status}");
        }
        my $s = send_one($k, $path, ['x-mock-delay-ms', 100], $body);
        sleep 0.03;
        close $s;
    }
    ok($g->settled, 'settles');
    nothing_held($_, 'all routes') for $key, $loose;
};

subtest 'C32 a counter that expired' => sub {
    my $key = $g->key(limit => 25_000, strict => $T);
    is($g->chat($key, model => 'out-only')->{status}, 200, 'one of two passes');
    ok($g->settled, 'settles');
    $g->{r}->call('DEL', 'kt:{0000}:c:key:' . token($key));
    my $r = $g->chat($key, model => 'out-only');
    is("$r->{status} $r->{headers}{'x-keytoll-reason'}", '503 entity_missing', 'a counter that is gone is not one of nothing');
    ok($r->{headers}{'retry-after'}, 'it may be back soon');
    $g->policy('key:' . token($key) => { limit => 25_000, strict => $T, used => 10_000, refs => ['global'] });
    soon { $g->chat($key, model => 'out-only')->{status} == 200 } 5, 'when the ledger has told what was used, the second passes';
    ok($g->settled, 'settles');
    is($g->chat($key, model => 'out-only')->{headers}{'x-keytoll-reason'}, 'budget_exceeded', 'and no third');
};

subtest 'C18 credits, and 200 calls for 100 of them' => sub {
    my $key = $g->key(limit => 100_000_000, unit => 'ucr');
    my %n;
    for (1 .. 20) {
        my @r = http_burst($port, [map { ['POST', '/v1/chat/completions', ['Authorization', "Bearer $key"], chat_body()] } 1 .. 200]);
        $n{ $_->{status} == 200 ? 200 : $_->{headers}{'x-keytoll-reason'} }++ for @r;
        last unless grep { ($_->{headers}{'x-keytoll-reason'} // '') eq 'budget_held' } @r;
    }
    is($n{200}, 100, 'exactly 100 pass');
    is(join(' ', grep { !/^(?:200|budget_held|credits_exhausted)$/ } keys %n), '', 'the others are told why');
    ok($g->settled, 'settles');
    is($g->state($key)->{used}, 100_000_000, 'no more is used than there was');
    my $sum = 0;
    $sum += $_->[0]{ucr} for grep { $_->[1] =~ /key:@{[ token($key) ]}\t/ } $g->events;
    is($sum, 100_000_000, 'as the ledger is told');
};

subtest 'C19 models that cost nothing, by both policies' => sub {
    $g->stop_nginx(0);
    $g->{o}{more} .= 'location /counted/ { keytoll_free_models off; proxy_pass http://mock/; }';
    $g->start_nginx(0);
    for my $p ({ limit => '0' }, { limit => '10000', used => '10000' }, { limit => '10000', used => '10000', strict => $T }, { limit => '0', unit => 'ucr' }) {
        my $key = $g->key(%$p);
        my $what = join ', ', map { "$_ $p->{$_}" } sort keys %$p;
        is($g->chat($key, model => 'free')->{status}, 200, "$what: a model that costs nothing passes");
        my $r = $g->chat($key, model => 'free', path => '/counted/v1/chat/completions');
        like($r->{headers}{'x-keytoll-reason'}, qr/^(?:budget_exceeded|credits_exhausted)$/, 'or does not, where it is to be paid for');
    }
    is($g->chat($g->key(limit => 1), model => 'free', path => '/counted/v1/chat/completions')->{status}, 200, 'anything left is enough');
    is(http_call($port, 'POST', '/counted/tokenize', ['Authorization', 'Bearer ' . $g->key(limit => '0')], '{"model":"gpt-4o-mini","prompt":"x"}')->{status}, 200, 'counting tokens is no model');
};

subtest 'C28 a stream that outlives its lease' => \&outlives if $LONG;

# Budgets of two seconds, eight tenths of each spent: nobody is refused.
subtest 'C23 a soak at 80 percent' => sub {
    my ($seconds, $cost) = ($LONG ? 1800 : 12, 10_000);
    my $now = int time;
    my $key = $g->key(limit => 100 * $cost, strict => $T, rpm => 3000, par => 4, period => { kind => 'fixed', len_s => 2, id => $now, end_s => $now + 2 });
    my ($n, $bad, $end, $next) = (0, '', time + $seconds, time);
    while (time < $end) {
        my $r = $g->chat($key, model => 'out-only');
        $n++;
        $bad .= "$r->{status} " . ($r->{headers}{'x-keytoll-reason'} // '') . '; ' if $r->{status} != 200;
        $next += 1 / 40;
        $next = time if $next < time;
        sleep($next - time) if $next > time;
    }
    is($bad, '', "$n calls in $seconds s, none refused");
    cmp_ok($n, '>', $seconds * 10, 'a load it was');
    ok($g->settled, 'settles');
    nothing_held($key, 'the soak');
};

# One client for each position; [position, id, events seen] of each.
sub leave_everywhere {
    my ($gate, $key, $path, $body, $delay, @positions) = @_;
    my $dir = tempdir('ktpXXXXXX', TMPDIR => 1, CLEANUP => 1);
    my @pids;
    for my $child (0 .. 7) {
        my $pid = fork // die "fork: $!";
        next if $pid and push @pids, $pid;
        my $out = '';
        for my $k (grep { $_ % 8 == $child } @positions) {
            my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $gate->{port}[0]) or next;
            syswrite $s, Keytoll::Test::request_text('POST', $path, ['Authorization', "Bearer $key", 'Connection', 'close', 'x-mock-event-delay-ms', $delay], $Keytoll::Test::JSON->encode($body));
            my $all = '';
            while ((() = $all =~ /^data: /mg) < $k) { sysread $s, $all, 4096, length $all or last }
            setsockopt $s, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0) if $k % 2;
            close $s;
            my ($id) = $all =~ /^x-keytoll-request-id: (\w+)/mi;
            $out .= join("\t", $k, $id // '', scalar(() = $all =~ /"(?:content|text|delta)":"\d+/g)) . "\n";
        }
        Keytoll::Test::spew("$dir/$child", $out);
        POSIX::_exit(0);
    }
    waitpid $_, 0 for @pids;
    return map { [split /\t/] } map { split /\n/, slurp($_) } glob "$dir/*";
}

my $TOKENS = 64;
my %SHAPE = (
    'OpenAI chat' => ['/v1/chat/completions', { model => 'gpt-4o-mini', stream => $T, max_tokens => $TOKENS, messages => [] }],
    'Anthropic' => ['/v1/messages', { model => 'claude-x', stream => $T, max_tokens => $TOKENS, messages => [] }],
    'Responses' => ['/v1/responses', { model => 'gpt-4o-mini', stream => $T, max_output_tokens => $TOKENS, input => 'hi' }],
    'Gemini' => ['/v1beta/models/gpt-4o-mini:streamGenerateContent?alt=sse', { contents => [], generationConfig => { maxOutputTokens => $TOKENS } }],
);
my @positions = $LONG ? (1 .. 66) : (1 .. 9, 16, 23, 32, 41, 50, 57, 63 .. 66);

subtest 'C49 C50 C34 clients that leave at every event, drain' => sub {
    for my $shape (sort keys %SHAPE) {
        my $key = $g->key(par => 100, limit => usd(100));
        my @left = leave_everywhere($g, $key, @{ $SHAPE{$shape} }, 2, @positions);
        ok($g->settled, "$shape: settles");
        my %row = map { $_->[0]{id} => $_->[0] } grep { $_->[1] =~ /\Q${\token($key)}\E/ } $g->events;
        is(scalar(keys %row), scalar(@left), "$shape: a row for each of @{[scalar @left]}");
        is(join(' ', map { my $e = $row{ $_->[1] }; !$e || $e->{est} || $e->{out} != $TOKENS ? $_->[0] : () } @left), '', "$shape: each is charged what the provider counts");
        nothing_held($key, $shape);
        is($g->chat($key)->{status}, 200, "$shape: the next request passes");
    }
};

subtest 'C49 C50 clients that leave at every event, cancel' => sub {
    for my $shape (sort keys %SHAPE) {
        my $key = $c->key(par => 100, limit => usd(100));
        my @left = leave_everywhere($c, $key, @{ $SHAPE{$shape} }, 8, grep { $_ < 60 } @positions);
        ok(eventually(sub { $c->status->{active_requests} <= (kill(0, $long_pid) ? 1 : 0) && !$c->status->{pending_settlements} }, 15), "$shape: settles");
        my %row = map { $_->[0]{id} => $_->[0] } grep { $_->[1] =~ /\Q${\token($key)}\E/ } $c->events;
        my @wrong = map { my ($k, $id, $seen) = @$_; my $e = $row{$id}; !$e ? "$k: no row" : $e->{cost} <= 0 ? "$k: free" : $e->{out} < $seen ? "$k: $e->{out} of $seen" : () } @left;
        is(join(', ', @wrong), '', "$shape: @{[scalar @left]} rows, each of at least what was delivered");
        my $s = $c->state($key);
        is("$s->{held} $s->{par}", '0 0', "$shape: nothing is held");
    }
};
subtest 'C28 a stream that outlives its lease' => \&outlives if !$LONG;
$c->stop;

$g->finish;
