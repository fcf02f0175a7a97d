# Bodies that two parsers could read in two ways: refused, or sent as they were
# priced.

use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use IO::Socket::INET;
use Test::More;
use Keytoll::Test;

my $T = JSON::PP::true;
my $g = Keytoll::Test->gate(more => <<'END', http => 'server_tokens off;');
    client_body_buffer_size 4k;
    location /small/ { keytoll_max_body 10k; client_max_body_size 0; proxy_pass http://mock/; }
END
my $key = $g->key;
my $port = $g->{port}[0];

sub post {
    my ($body, %o) = @_;
    return http_call($port, 'POST', $o{path} // '/v1/chat/completions', ['Authorization', "Bearer $key", @{ $o{h} // ['Content-Type', 'application/json'] }], $body);
}
sub body { return http_get($g->{mock_port}, '/__body')->{body} }
my $ok = '{"model":"gpt-4o-mini","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}';
my $before = scalar $g->truth;

# refused, whoever reads it
for my $c (
    ['a key twice', '{"model":"gpt-4o-mini","model":"claude-x","messages":[]}'],
    ['a key twice, escaped', '{"model":"gpt-4o-mini","\u006dodel":"claude-x","messages":[]}'],
    ['a key in another case', '{"model":"gpt-4o-mini","MODEL":"claude-x","messages":[]}'],
    ['a key with a Kelvin sign', "{\"model\":\"gpt-4o-mini\",\"max_to\xe2\x84\xaaens\":9,\"messages\":[]}"],
    ['a cap twice', '{"model":"gpt-4o-mini","max_tokens":1,"max_tokens":9999,"messages":[]}'],
    ['n twice', '{"model":"gpt-4o-mini","n":1,"n":9,"messages":[]}'],
    ['messages twice', '{"model":"gpt-4o-mini","messages":[],"messages":[]}'],
    ['stream twice', '{"model":"gpt-4o-mini","stream":true,"stream":false,"messages":[]}'],
    ['include_usage twice', '{"model":"gpt-4o-mini","stream":true,"stream_options":{"include_usage":false,"include_usage":true},"messages":[]}'],
    ['service_tier twice', '{"model":"gpt-4o-mini","service_tier":"flex","service_tier":"priority","messages":[]}'],
    ['a BOM', "\xef\xbb\xbf$ok"], ['a NUL behind', "$ok\0"], ['a NUL before', "\0$ok"], ['a NUL in a key', "{\"model\0\":1,\"model\":\"gpt-4o-mini\",\"messages\":[]}"],
    ['bytes behind', "$ok {}"], ['a comma behind', '{"model":"gpt-4o-mini","messages":[],}'], ['a comment', "{\"model\":\"gpt-4o-mini\"/**/,\"messages\":[]}"],
    ['single quotes', "{'model':'gpt-4o-mini'}"], ['NaN', '{"model":"gpt-4o-mini","temperature":NaN,"messages":[]}'],
    ['invalid UTF-8', "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}"],
    ['an overlong form', "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":\"user\",\"content\":\"\xc0\xaf\"}]}"],
    ['a model with a NUL', '{"model":"gpt-4o-mini\u0000","messages":[]}'], ['a lone surrogate in the model', '{"model":"gpt\ud800","messages":[]}'],
    ['a negative cap', '{"model":"gpt-4o-mini","max_tokens":-1,"messages":[]}'], ['a float', '{"model":"gpt-4o-mini","max_tokens":1.0,"messages":[]}'],
    ['an exponent', '{"model":"gpt-4o-mini","max_tokens":1e3,"messages":[]}'], ['a string', '{"model":"gpt-4o-mini","max_tokens":"10","messages":[]}'],
    ['2^53 + 1', '{"model":"gpt-4o-mini","max_tokens":9007199254740993,"messages":[]}'], ['2^64 + 1', '{"model":"gpt-4o-mini","max_tokens":18446744073709551617,"messages":[]}'],
    ['n of nothing', '{"model":"gpt-4o-mini","n":0,"messages":[]}'], ['n of many', '{"model":"gpt-4o-mini","n":100000,"messages":[]}'],
    ['a cap in an array', '{"model":"gpt-4o-mini","max_tokens":[1],"messages":[]}'], ['a list of models', '{"model":["gpt-4o-mini","claude-x"],"messages":[]}'],
    ['nested too deep', '{"model":"gpt-4o-mini","messages":' . '[' x 70 . ']' x 70 . '}'],
    ['stream a number', '{"model":"gpt-4o-mini","stream":1,"messages":[]}'],
    ['models by comma', '{"model":"gpt-4o-mini,claude-x","messages":[]}'], ['a comma behind a model', '{"model":"gpt-4o-mini,","messages":[]}'],
    ['fallbacks', '{"model":"gpt-4o-mini","fallbacks":["claude-x"],"messages":[]}'], ['none', '{"model":"gpt-4o-mini","fallbacks":[],"messages":[]}'],
    ['fallbacks with parameters', '{"model":"gpt-4o-mini","fallbacks":[{"model":"claude-x","max_tokens":9999}],"messages":[]}'],
    ['fallbacks from model to model', '{"model":"gpt-4o-mini","fallbacks":[{"gpt-4o-mini":["claude-x"]}],"messages":[]}'],
    ['fallbacks for large contexts', '{"model":"gpt-4o-mini","context_window_fallbacks":{"gpt-4o-mini":"claude-x"},"messages":[]}'],
    ['fallbacks for refused contents', '{"model":"gpt-4o-mini","content_policy_fallbacks":[{"gpt-4o-mini":["claude-x"]}],"messages":[]}'],
    ['fallbacks for all', '{"model":"gpt-4o-mini","default_fallbacks":["claude-x"],"messages":[]}'],
    ['fallbacks, escaped', '{"model":"gpt-4o-mini","\u0066allbacks":["claude-x"],"messages":[]}'], ['in another case', '{"model":"gpt-4o-mini","Fallbacks":["claude-x"],"messages":[]}'],
    ['fallbacks, null and then not', '{"model":"gpt-4o-mini","fallbacks":null,"fallbacks":["claude-x"],"messages":[]}'],
    ['a list of models to choose from', '{"model":"gpt-4o-mini","models":["claude-x"],"messages":[]}'],
) {
    my ($name, $b) = @$c;
    my $r = post($b);
    is($r->{status}, 400, $name);
    is($r->{headers}{'x-keytoll-reason'}, 'body_invalid', '... says why');
}
my %away = (api_base => '"http://evil"', base_url => '"http://evil"', user_config => '{"model_list":[]}', model_list => '[]', extra_body => '{"model":"claude-x"}', custom_llm_provider => '"x"',
    litellm_embedding_config => '{"api_base":"http://evil"}', vertex_credentials => '"x"', aws_sts_endpoint => '"x"', aws_web_identity_token => '"x"', aws_bedrock_runtime_endpoint => '"x"');
for my $c ((map { [$_, $_, $away{$_}] } sort keys %away), ['api_base', 'api\u005fbase', '"x"'], ['api_base', 'API_BASE', '"x"'], ['api_base', 'api_base":null,"api_base', '"x"']) {
    my ($name, $as, $value) = @$c;
    my $r = post(qq({"model":"gpt-4o-mini","api_key":"x","$as":$value,"messages":[]}));
    is($r->{status}, 401, "$as is rejected");
    is($r->{headers}{'x-keytoll-reason'}, 'body_rejected', '... says why');
    like($r->{json}{error}{message}, qr/^Authentication Error, Rejected Request: $name is not allowed in request body\. Enable with `general_settings::allow_client_side_credentials`/, '... in LiteLLM\'s words');
    is("$r->{json}{error}{type} $r->{json}{error}{param}", 'auth_error None', '... and shape');
}
sub form { my %f = @_; return join '', (map { "--X\r\nContent-Disposition: form-data; name=\"$_\"\r\n\r\n$f{$_}\r\n" } sort keys %f), "--X--\r\n" }
my %audio = (path => '/v1/audio/transcriptions', h => ['Content-Type', 'multipart/form-data; boundary=X']);
is(post(form(model => 'gpt-4o-mini', $_ => 'x'), %audio)->{status}, 401, "a form with $_") for 'api_base', 'API_Base', 'user_config', 'api_base[0]';
is(post(form(model => 'gpt-4o-mini', $_ => 'x'), %audio)->{status}, 400, "a form with $_") for 'fallbacks', 'fallbacks[]', 'context_window_fallbacks';
is(post(form(model => 'gpt-4o-mini,claude-x'), %audio)->{status}, 400, 'a form with two models');
is(post('{"messages":[]}', path => '/openai/deployments/gpt-4o-mini,claude-x/chat/completions')->{status}, 400, 'two models in a path');
for my $c (['Gemini: a cap twice, in both spellings', '{"contents":[],"generationConfig":{"maxOutputTokens":1,"max_output_tokens":99}}'],
    ['Gemini: the configuration twice', '{"contents":[],"generationConfig":{"maxOutputTokens":1},"generation_config":{"maxOutputTokens":99}}'],
    ['Gemini: a cap as a string', '{"contents":[],"generationConfig":{"maxOutputTokens":"99"}}']) {
    is(post($c->[1], path => '/v1beta/models/gpt-4o-mini:generateContent')->{status}, 400, $c->[0]);
}

# headers
for my $c (['gzip', 'Content-Encoding', 'gzip'], ['br', 'Content-Encoding', 'br'], ['two encodings', 'Content-Encoding', 'identity, gzip'], ['deflate behind identity', 'Content-Encoding', 'identity', 'Content-Encoding', 'deflate'],
    ['UTF-16', 'Content-Type', 'application/json; charset=utf-16'], ['UTF-7', 'Content-Type', 'application/json; charset="utf-7"']) {
    my ($name, @h) = @$c;
    is(post($ok, h => \@h)->{status}, 415, "$name is 415");
}
for my $c (['two content types', 'Content-Type', 'application/json', 'Content-Type', 'multipart/form-data; boundary=x'], ['two charsets', 'Content-Type', 'application/json; charset=utf-8; charset=utf-16'],
    ['a form', 'Content-Type', 'multipart/form-data; boundary=x'], ['an unfinished parameter', 'Content-Type', 'application/json; charset']) {
    my ($name, @h) = @$c;
    is(post($ok, h => \@h)->{status}, 400, "$name is 400");
}
is(scalar $g->truth, $before, 'the provider saw none of all this');

# passed: byte for byte what was sent
for my $c (
    ['plain', $ok], ['spaces', " \n$ok\r\n"], ['a key that looks like ours, deeper', '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"x","model":"claude-x","max_tokens":-1}]}'],
    ['other keys twice', '{"model":"gpt-4o-mini","seed":1,"seed":2,"messages":[]}'], ['escapes', '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"\u0000\ud83d\ude00\/\n"}]}'],
    ['a lone surrogate in the text', '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"\ud800"}]}'],
    ['keys that are null', '{"model":"gpt-4o-mini","fallbacks":null,"api_base":null,"messages":[]}'],
    ['keys that are like others, deeper', '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"x","fallbacks":["a"],"api_base":"x"}],"metadata":{"models":"a"}}'],
    ['nested to the limit', '{"model":"gpt-4o-mini","x":' . '[' x 63 . ']' x 63 . ',"messages":[]}'],
    ['large', '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"' . join('', map { chr(97 + $_ % 26) } 1 .. 300000) . '"}]}'],
) {
    my ($name, $b) = @$c;
    is(post($b)->{status}, 200, "$name passes");
    is(sha256_hex(body()), sha256_hex($b), '... unchanged');
}

# what is changed is what was priced
for my $c (
    ['an escaped model', '{"model":"gpt-4o-\u006dini","messages":[]}', '{"model":"gpt-4o-mini","messages":[]}'],
    ['an escaped key', '{"mod\u0065l":"gpt-4o-mini","messages":[]}', '{"mod\u0065l":"gpt-4o-mini","messages":[]}'],
    ['an alias', '{"messages":[],"model" : "alias"}', '{"messages":[],"model" : "gpt-4o-mini"}'],
    ['usage of a stream', '{"model":"gpt-4o-mini","stream":true,"messages":[]}', '{"stream_options":{"include_usage":true},"model":"gpt-4o-mini","stream":true,"messages":[]}'],
) {
    my ($name, $b, $want) = @$c;
    is(post($b)->{status}, 200, $name);
    is(body(), $want, '... as it was priced');
}

# JSON that calls itself a form is sent as what it is
is(post('{"model":"gpt-4o-mini","messages":[],"x":"&model=claude-x&"}', h => ['Content-Type', 'application/x-www-form-urlencoded'])->{status}, 200, 'JSON as a form');
{
    my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', ReuseAddr => 1) or die;
    my $h = Keytoll::Test->gate(upstream => '127.0.0.1:' . $s->sockport);
    my $k = $h->key;
    my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $h->{port}[0]);
    syswrite $c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $k\r\nUpgrade: h2c\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: " . length($ok) . "\r\n\r\n$ok";
    my $u = $s->accept;
    my ($got, $buf) = ('');
    $got .= $buf while $got !~ /\Q$ok\E/ && sysread $u, $buf, 65536;
    like($got, qr/^Content-Type: application\/json\r/mi, 'reaches the provider as JSON');
    unlike($got, qr/h2c/, 'and no other protocol is asked for');
    close $u;
    close $c;
    ok($h->settled, 'settles');
    $h->stop;
}

# bodies that are too large, before they are kept
sub raw {
    my @parts = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die;
    local $SIG{PIPE} = 'IGNORE';
    for my $p (@parts) { defined syswrite $s, $p or last; select undef, undef, undef, 0.02 }
    my $all = '';
    local $SIG{ALRM} = sub { die "hangs\n" };
    alarm 10;
    eval { while (sysread $s, my $buf, 65536) { $all .= $buf } };
    alarm 0;
    return Keytoll::Test::parse_response($all);
}
my $head = "POST /small/v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $key\r\n";
my $r = raw("${head}Content-Length: 20000\r\n\r\n");
is($r->{status}, 413, 'Content-Length over the limit: 413 before a byte of it');
$r = raw("${head}Transfer-Encoding: chunked\r\n\r\n", map { "1000\r\n" . 'x' x 4096 . "\r\n" } 1 .. 4);
is($r->{status}, 413, 'chunked: 413 as soon as it is over, though it does not end') or diag $r->{raw};
is($r->{headers}{'x-keytoll-reason'}, 'body_too_large', 'says why');
is($r->{headers}{connection}, 'close', 'and closes');
$r = raw("${head}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n", (sprintf "%x\r\n%s\r\n", length $ok, $ok), "0\r\n\r\n");
is($r->{status}, 200, 'a small chunked one passes');
is(body(), $ok, 'whole');
my @tmp = grep { -s } glob "$g->{dir}/tmp/body/*";
is(scalar @tmp, 0, 'nothing is left on disk');

ok($g->settled, 'settles');
is($g->state($key)->{held}, 0, 'nothing is held');
$g->finish;
