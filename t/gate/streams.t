# Streams and shapes: counted however they are cut, passed on byte by byte.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;

my $g = Keytoll::Test->gate(more => 'proxy_buffering off;');
my $key = $g->key;
my @auth = ('Authorization', "Bearer $key");
my $T = JSON::PP::true;

# What the client sees must be what the provider sent, less one event.
sub plain { my $b = shift; $b =~ s/chatcmpl-[0-9a-f]+/ID/g; $b =~ s/msg_[0-9a-f]+/ID/g; $b =~ s/"created":\d+/"created":0/g; return $b }

my $asked = chat_body(stream => $T, max_tokens => 9, stream_options => { include_usage => $T });
my $direct = http_call($g->{mock_port}, 'POST', '/v1/chat/completions', [], $asked);
(my $want = plain($direct->{body})) =~ s/data: [^\n]*"choices":\[\][^\n]*\n\n//;
isnt($want, plain($direct->{body}), 'the provider sends a usage event');

for my $split (1, 2, 3, 5, 7, 11, 16, 31, 64, 100, 257, 1000, 5000) {
    my $r = $g->chat($key, stream => $T, max_tokens => 9, headers => ['x-mock-split', $split]);
    is(plain($r->{body}), $want, "split $split: byte-exact but for the usage event");
    ok($r->{complete}, 'complete');
}
for my $split (1, 13, 400) {
    my $r = http_call($g->{port}[0], 'POST', '/v1/chat/completions', [@auth, 'x-mock-split', $split], $asked);
    is(plain($r->{body}), plain($direct->{body}), "split $split: untouched when the client asked for usage");
}
ok($g->settled, 'settles');
my @e = map { $_->[0] } $g->events;
is(scalar(grep { $_->{in} == 12 && $_->{out} == 9 && !$_->{est} } @e), 16, 'all counted exactly') or diag explain \@e;

# a long stream, some events larger than a buffer
my $r = $g->chat($key, stream => $T, max_tokens => 2000);
is(scalar(sse_events($r->{body})), 2003, '2,000 tokens, no event lost or merged');

# Anthropic
my $m = '{"model":"claude-x","max_tokens":6,"messages":[{"role":"user","content":"hi"}]}';
$r = http_call($g->{port}[0], 'POST', '/v1/messages', ['x-api-key', $key, 'x-mock-cached-tokens', 3], $m);
is($r->{status}, 200, 'anthropic messages');
my $mu = $r->{json}{usage};
ok($g->settled, 'settles');
my $ev = ($g->events)[-1][0];
is($ev->{in}, $mu->{input_tokens} + $mu->{cache_read_input_tokens} + ($mu->{cache_creation_input_tokens} // 0), 'input counts the cache');
is($ev->{cr}, 3, 'cache reads apart');
is($ev->{cost}, $mu->{input_tokens} * 3000 + 3 * 300 + 6 * 15000, 'priced apart');
(my $ms = $m) =~ s/\}$/,"stream":true}/;
for my $split (1, 9, 1000) {
    $r = http_call($g->{port}[0], 'POST', '/v1/messages', ['x-api-key', $key, 'x-mock-split', $split], $ms);
    like($r->{body}, qr/event: message_stop/, "anthropic stream, split $split");
    ok($g->settled, 'settles');
    $ev = ($g->events)[-1][0];
    is($ev->{out}, 6, 'output counted');
    is($ev->{est}, 0, 'exactly');
}

# embeddings, completions of the same model
$r = http_call($g->{port}[0], 'POST', '/v1/embeddings', [@auth], '{"model":"emb","input":"hello world"}');
is($r->{status}, 200, 'embeddings');
ok($g->settled, 'settles');
$ev = ($g->events)[-1][0];
is($ev->{cost}, $r->{json}{usage}{prompt_tokens} * 20, 'priced by input');
is($ev->{out}, 0, 'no output tokens');
is($ev->{rt}, 'embeddings', 'route');

# no usage at all, usage cached
$r = $g->chat($key, headers => ['x-mock-no-usage', 1], max_tokens => 12);
ok($g->settled, 'settles');
$ev = ($g->events)[-1][0];
is($ev->{est}, 1, 'without usage it is an estimate');
cmp_ok($ev->{cost}, '>', 0, 'and not free');
$r = $g->chat($key, stream => $T, headers => ['x-mock-no-usage', 1], max_tokens => 12);
ok($g->settled, 'settles');
$ev = ($g->events)[-1][0];
is($ev->{out}, 12, 'a stream without usage: its tokens are counted as they pass');
is($ev->{est}, 1, 'flagged');
$r = $g->chat($key, headers => ['x-mock-prompt-tokens', 1000, 'x-mock-cached-tokens', 400, 'x-mock-completion-tokens', 50]);
ok($g->settled, 'settles');
$ev = ($g->events)[-1][0];
is($ev->{cost}, 600 * 150 + 400 * 75 + 50 * 600, 'cached prompt tokens have their own price');

# exact cost over random usage
my $sum = $g->state($key)->{used};
for (1 .. 40) {
    my ($p, $c) = (1 + int rand 5000, 1 + int rand 2000);
    $sum += $p * 150 + $c * 600;
    $g->chat($key, headers => ['x-mock-prompt-tokens', $p, 'x-mock-completion-tokens', $c]);
}
ok($g->settled, 'settles');
is($g->state($key)->{used}, $sum, 'used is the sum, to the nano-dollar');

# buffered proxying as well
my $b = Keytoll::Test->gate(more => 'proxy_buffering on; proxy_buffers 4 4k; proxy_buffer_size 4k;');
my $k2 = $b->key;
for my $split (1, 50, 100000) {
    $r = $b->chat($k2, stream => $T, max_tokens => 300, headers => ['x-mock-split', $split]);
    my @d = sse_events($r->{body});
    is(scalar @d, 303, "proxy_buffering on, split $split: every event");
    is($d[-1], '[DONE]', 'to the end');
}
ok($b->settled, 'settles');
is(scalar(grep { $_->[0]{est} } $b->events), 0, 'counted');

$b->stop;
$g->finish;
