# Ways to pay less than one uses, or to break the gate, each found once and
# closed since.

use strict;
use warnings;
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep);
use Keytoll::Test;

my $T = JSON::PP::true;
my $g = Keytoll::Test->gate(http => 'gzip off;', more => <<'END');
    client_max_body_size 100k;
    location /errors/ { error_page 413 400 /big.json; rewrite ^/errors(.*) $1 break; proxy_pass http://mock; }
    location = /big.json { internal; root /etc; try_files /hostname =404; }
    location /proxied/ { error_page 413 400 = @mock; rewrite ^/proxied(.*) $1 break; proxy_pass http://mock; }
    location @mock { rewrite ^ /v1/chat/completions break; proxy_pass http://mock; }
END
my $key = $g->key;
my $port = $g->{port}[0];
my @auth = ('Authorization', "Bearer $key");

# a long alias does not overflow the message
for my $n (300, 20000, 200000) {
    my $r = $g->chat($g->key(name => 'a' x $n, limit => 0));
    is($r->{status}, 422, "an alias of $n bytes: refused");
    cmp_ok(length $r->{body}, '<', 4000, 'in few words');
}
is($g->chat($g->key(models => [map { "model-$_-" . 'x' x 200 } 1 .. 500]))->{status}, 403, 'a list of 500 long models fits a message');

# tags and ids cannot keep a request out of the ledger
for my $tag ('"\u0000"', '""', '"' . 'x' x 300 . '"', '"a\u0007"') {
    my $r = $g->chat($key, body => "{\"model\":\"gpt-4o-mini\",\"max_tokens\":1,\"messages\":[],\"metadata\":{\"tags\":[$tag]}}");
    is($r->{status}, 400, 'a tag that is no name: ' . substr $tag, 0, 12);
}
is($g->chat($key, metadata => { tags => ['team a', "caf\x{e9}", '"quoted"'] })->{status}, 200, 'other tags are fine');
ok($g->settled, 'settles');
is_deeply(($g->events)[-1][0]{tags}, ['team a', "caf\x{e9}", '"quoted"'], 'and reach the ledger as they are');

# an encoded answer: never asked for, never free
my $before = scalar $g->truth;
$g->chat($key, headers => ['Accept-Encoding', 'gzip']);
ok(!grep({ $_ eq 'accept-encoding' } @{ ($g->truth)[-1]{headers} }), 'Accept-Encoding does not reach the provider');

# strict bounds
my $strict = sub { $g->key(strict => $T, limit => 1_000_000) };
my $k = $strict->();
is($g->chat($k, body => '{"model":"gpt-4o-mini","max_output_tokens":1,"messages":[{"role":"user","content":"x"}]}')->{status}, 422, 'a cap of another dialect is no cap');
is($g->chat($strict->(), path => '/v1/completions', body => '{"model":"out-only","max_tokens":100,"prompt":[' . join(',', ('"a"') x 16) . ']}')->{status}, 422, 'sixteen prompts cost sixteen times');
is($g->chat($strict->(), body => '{"model":"gpt-4o-mini","max_tokens":1,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y"}}]}]}')->{status},
    422, 'an image counts as more than its address');

# routes whose body is not read
my $listed = $g->key(models => ['gpt-4o-mini']);
my $tpm = $g->key(tpm => 100000);
for my $path ('/v1/files', '/v1/batches', '/v1/x') {
    is(http_call($port, 'POST', $path, ['Authorization', "Bearer $listed"], '{"model":"claude-x"}')->{status}, 400, "$path: not with an allow-list");
    is(http_call($port, 'POST', $path, ['Authorization', "Bearer $tpm"], '{"model":"claude-x"}')->{status}, 400, "$path: not with a token limit");
}
for my $path ('/v1/chat/completions/', '/messages', '/v1/messages/', '/v1/responses', '/v1/audio/speech', '/V1/Chat/Completions') {
    is(http_call($port, 'POST', $path, ['Authorization', "Bearer $listed"], '{"model":"claude-x","max_tokens":1,"messages":[]}')->{status}, 403, "$path: the allow-list binds");
}

# suspended and paused
for my $status (qw(suspended paused)) {
    is($g->chat($g->key(status => $status))->{status}, 401, "a $status key");
    $g->policy("team:$status" => { status => $status });
    is($g->chat($g->key(refs => ["team:$status", 'global']))->{status}, 401, "a key of a $status team");
}
is($g->chat($g->key(status => 'active'))->{status}, 200, 'an active one');

# a key with a missing level refuses itself and nobody else
my $broken = $g->key(refs => ['team:missing', 'global']);
my %seen;
for (1 .. 30) {
    my @r = http_burst($port, [map { ['POST', '/v1/chat/completions', ['Authorization', 'Bearer ' . ($_ % 2 ? $broken : $key)], chat_body()] } 1 .. 6]);
    $seen{ ($_ % 2 ? 'good ' : 'broken ') . $r[$_]{status} }++ for 0 .. 5;
}
is(join(', ', sort keys %seen), 'broken 503, good 200', 'a key with a missing level refuses itself and nobody else');

# error_page
for my $path ('/errors', '/proxied') {
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port);
    my $n = scalar $g->truth;
    syswrite $s, "POST $path/v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer $key\r\nTransfer-Encoding: chunked\r\n\r\n30000\r\n" . 'x' x 0x30000 . "\r\n0\r\n\r\n";
    my ($all, $buf) = ('');
    local $SIG{ALRM} = sub { die "hangs\n" };
    alarm 10;
    eval { while (sysread $s, $buf, 65536) { $all .= $buf } };
    alarm 0;
    is($@, '', "$path: a body too large is answered");
    like($all, qr{^HTTP/1\.1 4\d\d}, 'with an error');
    is(scalar $g->truth, $n, 'and the provider does not see it');
}

# keys in the URL
my $secret = 'sk-secret-in-the-url-0123456789';
http_call($port, 'POST', "/v1/chat/completions?key=a&api_key=$secret&x=1&key=$secret", [@auth], chat_body());
my $http2 = `curl --version` =~ /HTTP2/;
my $log = join '', map { slurp($_) } glob "$g->{dir}/log/*";
is(scalar(() = $log =~ /\Q$secret\E/g), 0, 'every key in a URL is masked');

# a case variant below stream_options
is($g->chat($key, body => '{"model":"gpt-4o-mini","stream":true,"stream_options":{"INCLUDE_USAGE":false},"messages":[]}')->{status}, 400, 'include_usage in another case');

ok($g->settled, 'settles');
my $sum = 0;
$sum += $_->[0]{cost} for grep { $_->[1] =~ /^global\t/m } $g->events;
is($g->state('global')->{used}, $sum, 'used is the sum of the ledger');

# an idle worker notices that Redis was emptied and filled again
{
    my $i = Keytoll::Test->gate;
    my $k = $i->key;
    $i->{r}->call('SET', 'kt:{0000}:epoch', 'one');
    $i->chat($k) for 1 .. 3;
    ok($i->settled, 'settles');
    sleep 1.3;
    my ($entity, $used) = ('key:' . token($k), $i->state($k)->{used});
    $i->{r}->call('FLUSHALL');
    $i->policy($entity => { refs => ['global'] }, global => {});
    $i->{r}->call('SET', 'kt:{0000}:epoch', 'two');
    $i->registry(Keytoll::Test::default_models());
    soon { $i->state($k)->{used} == $used } 5, 'an idle worker sends again what an emptied Redis forgot';
    is(scalar $i->events, 3, 'each once');
    $i->stop;
}

$g->finish;
