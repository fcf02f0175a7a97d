# Whole answers without a length, as they come through a CDN: their header waits
# for their end, to tell what they cost, but neither for long nor for much.

use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);
use Keytoll::Test;

my $T = JSON::PP::true;
my $chat = '/v1/chat/completions';
my $h2 = `curl --version` =~ /HTTP2/ ? Keytoll::Test::free_port() : 0;
my $g = Keytoll::Test->gate(more => <<'END', http => $h2 ? <<"END2" : '');
    location /on/ { proxy_buffering on; proxy_pass http://mock/; }
    location /off/ { proxy_buffering off; proxy_pass http://mock/; }
    location /cancel/ { proxy_buffering off; keytoll_abort cancel; proxy_ignore_client_abort off; proxy_pass http://mock/; }
    location /gzip/ { proxy_buffering off; gzip on; gzip_min_length 1; gzip_types application/json; gzip_http_version 1.0; proxy_pass http://mock/; }
    location /1.0/ { proxy_buffering off; proxy_http_version 1.0; proxy_pass http://mock/; }
    location /bare/on/ { keytoll off; proxy_buffering on; proxy_pass http://mock/; }
    location /bare/off/ { keytoll off; proxy_buffering off; proxy_pass http://mock/; }
END
    server {
        listen 127.0.0.1:$h2 http2;
        keytoll on;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_ignore_client_abort on;
        location /off/ { proxy_buffering off; proxy_pass http://mock/; }
        location /on/ { proxy_buffering on; proxy_pass http://mock/; }
        location /bare/off/ { keytoll off; proxy_buffering off; proxy_pass http://mock/; }
        location /bare/on/ { keytoll off; proxy_buffering on; proxy_pass http://mock/; }
    }
END2
my $key = $g->key(limit => usd(1000), par => 50);

sub plain { my $b = shift // ''; $b =~ s/(?:chatcmpl-|msg_)[0-9a-f]*/ID/g; $b =~ s/"created":\d+/"created":0/g; return $b }

sub ask {
    my ($at, $headers, %body) = @_;
    return http_call($g->{port}[0], 'POST', "$at$chat", ['Authorization', "Bearer $key", @$headers], chat_body(%body));
}

sub ledger {
    my $r = shift;
    $g->settled or die 'does not settle';
    return (grep { $_->{id} eq $r->{headers}{'x-keytoll-request-id'} } map { $_->[0] } $g->events)[0];
}

# the cost of the header is the one of the books
sub costs {
    my ($r, $what) = @_;
    my $e = ledger($r);
    is(sprintf('%.0f', ($r->{headers}{'x-litellm-response-cost'} // -1) * 1e9), $e->{cost}, "$what: its cost");
    is($e->{est}, 0, "$what: exact");
}

# What came when: [seconds, bytes so far]
sub watch {
    my ($path, $headers, $body) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $g->{port}[0]);
    my ($t, $all, @came) = (time, '');
    syswrite $s, Keytoll::Test::request_text('POST', $path, ['Authorization', "Bearer $key", 'Connection', 'close', @$headers], $body);
    while (sysread $s, $all, 65536, length $all) { push @came, [time - $t, length $all] }
    return (Keytoll::Test::parse_response($all), @came);
}

# What the server says on stream 1 of a HTTP/2 connection, frame by frame: curl
# loses headers and data that come together with a reset.
sub frames {
    my ($at, @h) = @_;
    my $l = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', ReuseAddr => 1) or die $!;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        open STDOUT, '>', '/dev/null';
        exec 'curl', '-s', '--max-time', 10, '--http2-prior-knowledge', (map { ('-H', $_) } "Authorization: Bearer $key", @h), '--data-binary', "\@$g->{dir}/b", 'http://127.0.0.1:' . $l->sockport . "$at$chat" or POSIX::_exit(127);
    }
    my ($client, $server) = (scalar $l->accept, IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $h2));
    my ($both, $in, %said) = (IO::Select->new($client, $server), '', types => '', data => '');
    while (my @ready = $both->can_read(10)) {
        for my $from (@ready) {
            if (!sysread $from, my $bytes, 65536) { $both->remove($from); next }
            elsif ($from == $client) { syswrite $server, $bytes }
            else { syswrite $client, $bytes; $in .= $bytes }
        }
        last if $both->count < 2;
    }
    close $client;
    waitpid $pid, 0;
    while (length $in >= 9) {
        my ($high, $low, $type, $flags, $stream) = unpack 'nCCCN', substr $in, 0, 9, '';
        my $payload = substr $in, 0, $high * 256 + $low, '';
        next if $stream != 1 || $type == 8;
        $said{types} .= $type;
        $said{data} .= $payload if $type == 0;
    }
    return \%said;
}

my $want = plain(http_call($g->{mock_port}, 'POST', $chat, [], chat_body(max_tokens => 200))->{body});

for my $at ('/off', '/on') {
    for my $how (['x-mock-chunked', 1], ['x-mock-chunked', 2], ['x-mock-chunked', 60], ['x-mock-chunked', 3, 'x-mock-split', 50], ['x-mock-chunked', 4, 'x-mock-event-delay-ms', 40], ['x-mock-event-delay-ms', 5, 'x-mock-chunked', 20],
        ['x-mock-split', 230]) {
        my $r = ask($at, $how, max_tokens => 200);
        my $what = "$at, @$how";
        is($r->{status}, 200, "$what: passes");
        ok($r->{complete}, "$what: complete");
        is(plain($r->{body}), $want, "$what: as it was sent");
        costs($r, $what);
    }
}
costs(ask('/1.0', [], max_tokens => 200), 'HTTP/1.0');
my $r = ask('/off', ['x-mock-chunked', 3, 'TE', 'trailers']);
costs($r, 'trailers were asked for');
ok(!exists $r->{headers}{trailer}, 'and are not needed');
$r = ask('/gzip', ['x-mock-chunked', 3, 'Accept-Encoding', 'gzip'], max_tokens => 200);
is($r->{headers}{'content-encoding'}, 'gzip', 'compressed by us');
costs($r, 'compressed');
$r = ask('/off', ['x-mock-chunked', 3, 'x-mock-encoding', 'gzip', 'Accept-Encoding', 'gzip'], max_tokens => 200);
costs($r, 'compressed by the provider');

# 64 KB wait, no more

for my $at ('/off', '/on') {
    for my $c ([60_000, 1], [64_000, 1], [65_600, 0], [200_000, 0], [3_000_000, 0]) {
        my ($pad, $waits) = @$c;
        for my $n (1, 7, 100) {
            $r = ask($at, ['x-mock-chunked', $n, 'x-mock-pad', $pad, 'TE', 'trailers'], max_tokens => 200);
            my $what = "$at, " . length($r->{body}) . " bytes in $n chunks";
            ok($r->{complete}, "$what: to its end");
            is(plain($r->{body}), "\n" x $pad . $want, "$what: nothing lost");
            is(length($r->{body}) <= 65536 ? 1 : 0, $waits, "$what: its size");
            if ($waits) {
                costs($r, $what);
                next;
            }
            ok(!exists $r->{headers}{'x-litellm-response-cost'}, "$what: its header does not wait");
            my ($told) = $r->{raw} =~ /\r\n0\r\n(?:.*\r\n)*?x-litellm-response-cost: (\S+)\r\n/;
            is(sprintf('%.0f', ($told // 0) * 1e9), ledger($r)->{cost}, "$what: the trailers have its cost");
        }
    }
}

# nor for longer than a second

($r, my @came) = watch("/off$chat", ['x-mock-chunked', 4, 'x-mock-event-delay-ms', 600], chat_body(max_tokens => 200));
ok($r->{complete}, 'a slow answer: complete');
is(plain($r->{body}), $want, 'as it was sent');
ok(!exists $r->{headers}{'x-litellm-response-cost'}, 'without its cost');
cmp_ok($came[0][0], '>=', 0.8, 'its header waits') or diag explain \@came;
cmp_ok($came[0][0], '<=', 1.15 * $Keytoll::Test::SLOW, 'a second');
cmp_ok(scalar(@came), '>=', 4, 'then each piece comes as it is sent');
is(ledger($r)->{est}, 0, 'charged exactly');
($r, @came) = watch("/off$chat", ['x-mock-chunked', 2, 'x-mock-event-delay-ms', 1300, 'TE', 'trailers'], chat_body());
cmp_ok($came[0][0], '<=', 1.15 * $Keytoll::Test::SLOW, 'a header without a body does not wait for longer either');
like($r->{headers}{trailer} // '', qr/x-litellm-response-cost/, 'and announces the trailers');
like($r->{raw}, qr/\r\n0\r\nx-litellm-response-cost: 0\.\d+\r\n/, 'that tell the cost');

# what is a stream does not wait, whatever it is called

my $part = '{"contents":[{"role":"user","parts":[{"text":"hi"}]}],"generationConfig":{"maxOutputTokens":8}}';
$g->registry([@{ Keytoll::Test::default_models() }, { n => 'gemini', p => 'google', in => 1000, out => 2000, maxo => 65536 }]);
soon { http_call($g->{port}[0], 'POST', '/off/v1beta/models/gemini:generateContent', ['Authorization', "Bearer $key"], $part)->{status} == 200 } 5, 'a model';
($r, @came) = watch('/off/v1beta/models/gemini:streamGenerateContent', ['x-mock-event-delay-ms', 60], $part);
like($r->{headers}{'content-type'}, qr{^application/json}, 'an array that grows');
cmp_ok($came[0][0], '<', 0.3 * $Keytoll::Test::SLOW, 'comes piece by piece') or diag explain \@came;
cmp_ok(scalar(@came), '>=', 6, 'each at once');
($r, @came) = watch("/off/v1/audio/speech", ['x-mock-chunked', 4, 'x-mock-event-delay-ms', 100], '{"model":"noprice","input":"x","voice":"v"}');
SKIP: {
    skip 'refused', 1 if $r->{status} != 200;
    cmp_ok($came[0][0], '<', 0.3 * $Keytoll::Test::SLOW, 'sound is played as it comes');
}

# a connection that is cut: the client sees what it would without us

for my $mode ('off', 'on') {
    for my $c ([700, 3], [1200, 1], [1500, 40], [40_000, 9], [120_000, 5]) {
        my ($cut, $n) = @$c;
        my @h = ('x-mock-chunked', $n, 'x-mock-pad', 180_000, 'x-mock-reset-after', $cut);
        my $bare = ask("/bare/$mode", \@h);
        my $ours = ask("/$mode", \@h);
        my $what = "buffering $mode, cut after $cut bytes in $n chunks";
        is($ours->{status}, $bare->{status}, "$what: status") or diag $ours->{raw};
        is($ours->{complete} ? 1 : 0, $bare->{complete} ? 1 : 0, "$what: whole or not");
        ok(!$ours->{complete}, "$what: not whole");
        is(plain($ours->{body}), plain($bare->{body}), "$what: the same bytes");
        ok(!exists $ours->{headers}{'x-litellm-response-cost'}, "$what: no cost");
        my $e = ledger($ours);
        is($e->{est}, 1, "$what: charged by estimate");
    }
}
for my $mode ('off', 'on') {
    my @h = ('x-mock-chunked', 4, 'x-mock-event-delay-ms', 30, 'x-mock-reset-after', 420);
    my ($bare) = watch("/bare/$mode$chat", \@h, chat_body(max_tokens => 200));
    my ($ours) = watch("/$mode$chat", \@h, chat_body(max_tokens => 200));
    is(plain($ours->{body}), plain($bare->{body}), "buffering $mode: cut between its pieces: the same bytes");
    is($ours->{status} . ($ours->{complete} ? ' whole' : ''), '200', 'and its end is missing');
}

# clients that leave while it waits

for my $c (['/off', 0], ['/on', 0], ['/cancel', 1]) {
    my ($at, $est) = @$c;
    $g->settled or die 'does not settle';
    my $n = () = $g->events;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $g->{port}[0]);
    syswrite $s, Keytoll::Test::request_text('POST', "$at$chat", ['Authorization', "Bearer $key", 'x-mock-chunked', 4, 'x-mock-event-delay-ms', 100], chat_body(max_tokens => 30));
    sleep 0.25;
    setsockopt $s, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0);
    close $s;
    soon { scalar(() = $g->events) > $n } 10, "$at: left while the header waited: settles";
    my $e = ($g->events)[-1][0];
    is($e->{est}, $est, $est ? 'by estimate' : 'exactly');
    is($e->{out}, 30, 'all its tokens') if !$est;
    cmp_ok($e->{cost}, '>', 0, 'never free');
}
# and later than a second: what is due is sent to nobody
for my $at ('/off', '/cancel') {
    my $n = () = $g->events;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $g->{port}[0]);
    syswrite $s, Keytoll::Test::request_text('POST', "$at$chat", ['Authorization', "Bearer $key", 'x-mock-chunked', 2, 'x-mock-event-delay-ms', 900], chat_body(max_tokens => 30));
    sleep 1.0;
    setsockopt $s, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0);
    close $s;
    soon { scalar(() = $g->events) > $n } 10, "$at: left before the header was due: settles";
}

# a client that reads slowly, and many at once

my @many = http_burst($g->{port}[0], [map { ['POST', "/off$chat", ['Authorization', "Bearer $key", 'x-mock-chunked', 1 + $_ % 9, 'x-mock-pad', 2000 * $_], chat_body()] } 1 .. 45]);
is(scalar(grep { $_->{status} == 200 && $_->{complete} && $_->{json} } @many), 45, 'many at once, short and long: all whole');
{
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $g->{port}[0], ReuseAddr => 1);
    setsockopt $s, SOL_SOCKET, SO_RCVBUF, 32768;
    syswrite $s, Keytoll::Test::request_text('POST', "/off$chat", ['Authorization', "Bearer $key", 'Connection', 'close', 'x-mock-chunked', 30, 'x-mock-pad', 1_000_000], chat_body());
    my $all = '';
    while (sysread $s, $all, 60_000, length $all) { sleep 0.001 }
    my $slow = Keytoll::Test::parse_response($all);
    ok($slow->{complete} && $slow->{json}, 'a slow reader gets all of it');
}

# HTTP/2

SKIP: {
    skip 'curl without HTTP/2', 1 unless $h2;
    Keytoll::Test::spew("$g->{dir}/b", chat_body(max_tokens => 200));
    my $curl = sub {
        my ($at, @h) = @_;
        unlink "$g->{dir}/o", "$g->{dir}/h";
        my $args = join ' ', map { "-H '$_'" } "Authorization: Bearer $key", @h;
        my $out = `curl -s --max-time 20 --http2-prior-knowledge -D $g->{dir}/h -o $g->{dir}/o -w '%{http_code} %{http_version}' $args --data-binary \@$g->{dir}/b http://127.0.0.1:$h2$at$chat`;
        my %h = map { /^(\S+): (.*?)\r?$/ ? (lc $1, $2) : () } split /\n/, slurp("$g->{dir}/h");
        return { out => $out, code => $? >> 8, headers => \%h, body => slurp("$g->{dir}/o") };
    };
    for my $at ('/off', '/on') {
        for my $how (['x-mock-chunked: 1'], ['x-mock-chunked: 5', 'x-mock-event-delay-ms: 30'], ['x-mock-chunked: 50', 'x-mock-split: 40']) {
            $r = $curl->($at, @$how);
            is("$r->{out} $r->{code}", '200 2 0', "HTTP/2 $at, @$how");
            is(plain($r->{body}), $want, 'whole');
            costs($r, 'HTTP/2');
        }
        $r = $curl->($at, 'x-mock-chunked: 9', 'x-mock-pad: 180000');
        is(plain($r->{body}), "\n" x 180_000 . $want, "HTTP/2 $at: a long one");
        for my $cut (420, 1500, 100_000) {
            my @h = ('x-mock-chunked: 9', 'x-mock-pad: 180000', "x-mock-reset-after: $cut");
            my ($bare, $ours) = map { frames($_, @h) } "/bare$at", $at;
            like($bare->{types}, qr/^10*3$/, "HTTP/2 $at: cut after $cut bytes");
            is($ours->{types} =~ s/0+/0/r, $bare->{types} =~ s/0+/0/r, "HTTP/2 $at: cut after $cut bytes: header, data and reset, as without us");
            is(plain($ours->{data}), plain($bare->{data}), 'the same bytes');
        }
    }
    $r = $curl->('/off', 'x-mock-chunked: 3', 'x-mock-event-delay-ms: 700');
    is("$r->{out} $r->{code}", '200 2 0', 'HTTP/2: a slow one');
    is(plain($r->{body}), $want, 'whole');
    my $n = () = $g->events;
    system "timeout -s KILL 0.3 curl -s --http2-prior-knowledge -o /dev/null -H 'Authorization: Bearer $key' -H 'x-mock-chunked: 4' -H 'x-mock-event-delay-ms: 100' --data-binary \@$g->{dir}/b http://127.0.0.1:$h2/off$chat 2>/dev/null";
    soon { scalar(() = $g->events) > $n } 10, 'HTTP/2: left while the header waited: settles';
}

ok($g->settled, 'all settles');
my $state = $g->state($key);
is("$state->{held} $state->{par}", '0 0', 'nothing is held, no slot stays');
$g->finish;
