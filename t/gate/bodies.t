# Every way a body can arrive, and what the provider gets to read.

use strict;
use warnings;
use IO::Socket::INET;
use Test::More;
use Keytoll::Test;

my $g = Keytoll::Test->gate(more => 'client_body_buffer_size 4k;');
my $key = $g->key;
my $port = $g->{port}[0];
my @auth = ('Authorization', "Bearer $key");

sub raw {
    my (@parts) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port);
    for my $p (@parts) { syswrite $s, $p; select undef, undef, undef, 0.05 if @parts > 1 }
    my $all = '';
    while (sysread $s, my $buf, 65536) { $all .= $buf }
    return Keytoll::Test::parse_response($all);
}

my $body = chat_body();
my $head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer $key\r\n";

is(raw("${head}Content-Length: " . length($body) . "\r\n\r\n$body")->{status}, 200, 'content-length');
is(raw("${head}Content-Length: " . length($body) . "\r\n\r\n", substr($body, 0, 10), substr($body, 10))->{status}, 200, 'in pieces');
my $chunked = join '', map { sprintf "%x\r\n%s\r\n", length, $_ } $body =~ /(.{1,7})/gs;
is(raw("${head}Transfer-Encoding: chunked\r\n\r\n${chunked}0\r\n\r\n")->{status}, 200, 'chunked');
my $r = raw("${head}Expect: 100-continue\r\nContent-Length: " . length($body) . "\r\n\r\n", $body);
like($r->{raw}, qr/^HTTP\/1\.1 100 .*200 OK/s, 'Expect: 100-continue');

my $big = chat_body(messages => [{ role => 'user', content => 'x' x 60000 }]);
$r = http_call($port, 'POST', '/v1/chat/completions', [@auth], $big);
is($r->{status}, 200, 'a body in a temporary file');
is($r->{json}{usage}{prompt_tokens}, 60007, 'arrives whole');
$r = http_call($port, 'POST', '/v1/chat/completions', [@auth], chat_body(stream => JSON::PP::true, messages => [{ role => 'user', content => 'x' x 60000 }]));
is($r->{status}, 200, 'and spliced');

for my $case (['not JSON', 'hello'], ['an array', '[1]'], ['trailing bytes', chat_body() . 'x'], ['BOM', "\xef\xbb\xbf" . chat_body()],
    ['duplicate model', '{"model":"gpt-4o-mini","model":"claude-x","messages":[]}'], ['escaped duplicate', '{"model":"gpt-4o-mini","mod\u0065l":"claude-x","messages":[]}'],
    ['no model', '{"messages":[]}'], ['model null', '{"model":null,"messages":[]}'], ['model a number', '{"model":3,"messages":[]}'],
    ['negative cap', '{"model":"gpt-4o-mini","max_tokens":-1,"messages":[]}'], ['cap a string', '{"model":"gpt-4o-mini","max_tokens":"5","messages":[]}'],
    ['cap a float', '{"model":"gpt-4o-mini","max_tokens":1e3,"messages":[]}'], ['cap beyond', '{"model":"gpt-4o-mini","max_tokens":99999999999,"messages":[]}'],
    ['nested too deep', '{"model":"gpt-4o-mini","messages":' . '[' x 80 . ']' x 80 . '}'], ['cut', substr(chat_body(), 0, -3)], ['empty', '']) {
    my ($name, $b) = @$case;
    my $r = http_call($port, 'POST', '/v1/chat/completions', [@auth], $b);
    is($r->{status}, 400, "$name is 400");
    is($r->{headers}{'x-keytoll-reason'}, 'body_invalid', "$name: body_invalid");
}

my $unknown = http_call($port, 'POST', '/v1/chat/completions', ['Authorization', 'Bearer sk-nobody-made-this-key'], 'hello');
is($unknown->{status}, 401, 'an unknown key hears of the key, not of its body');
is($g->state($key)->{rpm}, 0, 'an invalid body costs nothing');

is(http_call($port, 'POST', '/v1/chat/completions', [@auth, 'Content-Encoding', 'gzip'], $body)->{status}, 415, 'an encoded body is 415');
is(http_call($port, 'POST', '/v1/chat/completions', [@auth, 'Content-Encoding', 'identity'], $body)->{status}, 200, 'identity is fine');
my $huge = raw("${head}Content-Length: 9000000\r\n\r\n");
is($huge->{status}, 413, 'over keytoll_max_body is 413 before it is read');
$r = raw("${head}Transfer-Encoding: chunked\r\n\r\n", (map { sprintf "%x\r\n%s\r\n", 1 << 20, 'x' x (1 << 20) } 1 .. 9), "0\r\n\r\n");
is($r->{status}, 413, 'also chunked') or diag $r->{raw};

# what the provider reads is what was priced
ok($g->settled, 'settles');
http_call($g->{mock_port}, 'DELETE', '/__truth');
is($g->chat($key, model => 'alias')->{status}, 200, 'an alias passes');
is(($g->truth)[-1]{model}, 'gpt-4o-mini', 'the provider gets the model behind it');
$g->chat($key, body => '{"model":"gpt-4o-\u006dini","max_tokens":1,"messages":[]}');
is(($g->truth)[-1]{model}, 'gpt-4o-mini', 'an escaped model is written plainly');

for my $so ('', ',"stream_options":null', ',"stream_options":{}', ',"stream_options":{"include_usage":false}', ',"stream_options":{"include_obfuscation":true}', ',"stream_options": { "include_usage" : null } ') {
    my $b = "{\"model\":\"gpt-4o-mini\",\"stream\":true$so,\"max_tokens\":3,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";
    my $r = $g->chat($key, body => $b);
    my @d = sse_events($r->{body});
    is($r->{status}, 200, "stream with \"$so\"");
    ok(!grep({ /"choices":\[\]/ } @d), 'no usage event for the client');
    is($d[-1], '[DONE]', 'complete');
}
ok($g->settled, 'settles');
my @e = map { $_->[0] } $g->events;
is(scalar(grep { $_->{est} } @e), 0, 'every stream was counted exactly');

# keep-alive and pipelining
my $one = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $key\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port);
syswrite $s, $one x 3 . $one =~ s/Host: x/Host: x\r\nConnection: close/r;
my $all = '';
while (sysread $s, my $buf, 65536) { $all .= $buf }
is(() = $all =~ /HTTP\/1\.1 200/g, 4, 'four pipelined requests, four answers');

# a client that leaves while its body is on the way, or while it waits
for (1 .. 5) {
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port);
    syswrite $s, "${head}Content-Length: 1000\r\n\r\n{";
    close $s;
}
ok($g->settled, 'half bodies leave nothing behind');

$g->finish;
