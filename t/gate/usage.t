# Usage: counted from every shape however it is cut, compressed, missing, told
# twice or as a running total.

use strict;
use warnings;
use POSIX ();
use Test::More;
use Keytoll::Test;

my $T = JSON::PP::true;
my $models = [
    { n => 'gpt', p => 'openai', in => 150000, out => 600000, cr => 75000, maxo => 16384, pin => 300000, pout => 1200000, fin => 75000, fout => 300000 },
    { n => 'claude', p => 'anthropic', in => 3000000, out => 15000000, cr => 300000, cw => 3750000, cw1h => 6000000, maxo => 8192, web => 10000000000 },
    { n => 'gemini', p => 'google', in => 1250000, out => 10000000, cr => 310000, ai => 2500000, io => 30000000, maxo => 65536,
      tiers => [{ above => 200000, in => 2500000, out => 15000000, cr => 625000 }] },
];
# Accept-Encoding is left to the module
my $g = Keytoll::Test->gate(models => $models, more => <<'END');
    proxy_buffering off;
    location /raw/ { proxy_set_header Connection ""; proxy_set_header Host test; proxy_pass http://mock/; }
END
my $key = $g->key;
my $port = $g->{port}[0];

sub call {
    my ($path, $body, @h) = @_;
    return http_call($port, 'POST', "/raw$path", ['Authorization', "Bearer $key", @h], $Keytoll::Test::JSON->encode($body));
}
sub last_event { $g->settled or die 'does not settle'; return ($g->events)[-1][0] }

my $text = [{ role => 'user', content => 'hi' }];
my $part = [{ role => 'user', parts => [{ text => 'hi' }] }];
my %shape = (
    chat => ['/v1/chat/completions', { model => 'gpt', messages => $text }],
    'chat stream' => ['/v1/chat/completions', { model => 'gpt', messages => $text, stream => $T }],
    responses => ['/v1/responses', { model => 'gpt', input => 'hi' }],
    'responses stream' => ['/v1/responses', { model => 'gpt', input => 'hi', stream => $T }],
    messages => ['/v1/messages', { model => 'claude', max_tokens => 50, messages => $text }],
    'messages stream' => ['/v1/messages', { model => 'claude', max_tokens => 50, messages => $text, stream => $T }],
    gemini => ['/v1beta/models/gemini:generateContent', { contents => $part }],
    'gemini array' => ['/v1beta/models/gemini:streamGenerateContent', { contents => $part }],
    'gemini SSE' => ['/v1beta/models/gemini:streamGenerateContent?alt=sse', { contents => $part }],
);
my @u = ('x-mock-prompt-tokens', 100, 'x-mock-completion-tokens', 7, 'x-mock-cached-tokens', 40);

for my $name (sort keys %shape) {
    my ($path, $body) = @{ $shape{$name} };
    my ($p) = map { $_->{price} } { price => (grep { $_->{n} eq ($body->{model} // 'gemini') } @$models)[0] };
    my $cost = (60 * $p->{in} + 40 * $p->{cr} + 7 * $p->{out}) / 1000;
    my $whole = call($path, $body, @u);
    is($whole->{status}, 200, $name) or diag $whole->{body};
    is(last_event()->{cost}, $cost, '... its cost');
    for my $how ([split => 'x-mock-split', 1], [gzip => 'x-mock-encoding', 'gzip'], ['gzip, split' => 'x-mock-encoding', 'gzip', 'x-mock-split', 1]) {
        my ($what, @h) = @$how;
        my $r = call($path, $body, @u, @h);
        my $e = last_event();
        is_deeply([@$e{qw(cost in out cr est)}], [$cost, 100, 7, 40, 0], "... $what: the same");
        next if $what !~ /gzip/;
        require IO::Uncompress::Gunzip;
        IO::Uncompress::Gunzip::gunzip(\$r->{body} => \my $plain) or diag 'does not unpack';
        is($r->{headers}{'content-encoding'}, 'gzip', '... the client gets it compressed');
        if ($name ne 'chat stream') {
            s/[0-9a-f]{24}/ID/g, s/"created":\d+/"created":0/g for my ($got, $want) = ($plain, $whole->{body});
            is($got, $want, '... byte for byte');
        } else {
            like($plain, qr/\[DONE\]/, '... to its end');
        }
    }
}

# the other routes: as they are, cut, compressed, and told twice
for my $c (['completions', '/v1/completions', { model => 'gpt', prompt => 'hi' }], ['completions stream', '/v1/completions', { model => 'gpt', prompt => 'hi', stream => $T }],
    ['embeddings', '/v1/embeddings', { model => 'gpt', input => 'hi' }], ['moderations', '/v1/moderations', { model => 'gpt', input => 'hi' }],
    ['rerank', '/v1/rerank', { model => 'gpt', query => 'hi', documents => ['a', 'b'] }], ['images', '/v1/images/generations', { model => 'gpt', prompt => 'a cat' }],
    ['count_tokens', '/v1/messages/count_tokens', { model => 'claude', messages => $text }]) {
    my ($name, $path, $body) = @$c;
    my $r = call($path, $body, @u);
    is($r->{status}, 200, $name) or diag $r->{body};
    my %plain = %{ last_event() };
    for my $how ([split => 'x-mock-split', 1], [gzip => 'x-mock-encoding', 'gzip'], ['gzip, split' => 'x-mock-encoding', 'gzip', 'x-mock-split', 1], [twice => 'x-mock-usage-twice', 1]) {
        my ($what, @h) = @$how;
        call($path, $body, @u, @h);
        my $e = last_event();
        is_deeply([@$e{qw(cost in out cr est)}], [@plain{qw(cost in out cr est)}], "... $what: the same");
    }
    cmp_ok($plain{cost}, $name eq 'count_tokens' ? '==' : '>', 0, '... its cost');
}

# what the provider is asked for
sub asked { my %h = map { $_ => 1 } @{ ($g->truth)[-1]{headers} }; return $h{'accept-encoding'} // 0 }
my $chat = $shape{chat}[1];
call('/v1/chat/completions', $chat, 'Accept-Encoding', 'br, gzip');
is(asked(), 1, 'gzip where the client takes it');
call('/v1/chat/completions', $chat, 'Accept-Encoding', 'br, zstd');
is(asked(), 0, 'nothing that we cannot read');
call('/v1/chat/completions', $chat, 'Accept-Encoding', 'gzip;q=0');
is(asked(), 0, 'nor what the client refuses');
call('/v1/chat/completions', $shape{'chat stream'}[1], 'Accept-Encoding', 'gzip');
is(asked(), 0, 'nor where an event is to be taken out');

# encodings that cannot be read, and a broken one
for my $c ('br', 'zstd', 'gzip, br') {
    my $n = $g->status->{unreadable_total};
    call('/v1/chat/completions', $chat, @u, 'x-mock-encoding', $c);
    my $e = last_event();
    is($e->{est}, 1, "$c: an estimate");
    cmp_ok($e->{cost}, '>', 0, 'not free');
    is($g->status->{unreadable_total}, $n + 1, 'and counted');
}

# missing, twice, running
for my $name (sort keys %shape) {
    my ($path, $body) = @{ $shape{$name} };
    call($path, $body, @u, 'x-mock-no-usage', 1);
    my $e = last_event();
    is($e->{est}, 1, "$name without usage: an estimate");
    cmp_ok($e->{cost}, '>', 0, 'and not free');
}
my ($path, $body) = @{ $shape{'chat stream'} };
for my $h (['x-mock-usage-twice', 1], ['x-mock-running-usage', 1], ['x-mock-running-usage', 1, 'x-mock-usage-twice', 1]) {
    my $r = call($path, { %$body, stream_options => { include_usage => $T } }, @u, @$h);
    is_deeply([@{ last_event() }{qw(in out est)}], [100, 7, 0], "$h->[0]: counted once");
}
call($path, $body, 'x-mock-running-usage', 1, 'x-mock-prompt-tokens', 100, 'x-mock-completion-tokens', 40, 'x-mock-reset-after', 3000);
my $e = last_event();
is($e->{est}, 1, 'a running total of a stream that broke is an estimate');
cmp_ok($e->{out}, '>', 1, 'of what was seen, if that is more');

# what only some providers tell
for my $c (
    ['cache writes of five minutes and of an hour', '/v1/messages', $shape{messages}[1],
        '{"input_tokens":10,"cache_creation_input_tokens":30,"cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20},"cache_read_input_tokens":5,"output_tokens":7}',
        10 * 3000 + 10 * 3750 + 20 * 6000 + 5 * 300 + 7 * 15000],
    ['web searches', '/v1/messages', $shape{messages}[1], '{"input_tokens":10,"output_tokens":7,"server_tool_use":{"web_search_requests":3}}', 10 * 3000 + 7 * 15000 + 3 * 10000000],
    ['thoughts', '/v1beta/models/gemini:generateContent', { contents => $part }, '{"promptTokenCount":10,"candidatesTokenCount":5,"thoughtsTokenCount":100,"totalTokenCount":115}', 10 * 1250 + 105 * 10000],
    ['audio and images of Gemini', '/v1beta/models/gemini:generateContent', { contents => $part },
        '{"promptTokenCount":30,"candidatesTokenCount":1290,"promptTokensDetails":[{"modality":"TEXT","tokenCount":10},{"modality":"AUDIO","tokenCount":20}],"candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":1290}]}',
        10 * 1250 + 20 * 2500 + 1290 * 30000],
    ['a blocked prompt', '/v1beta/models/gemini:generateContent', { contents => $part }, '{"promptTokenCount":10,"totalTokenCount":10}', 10 * 1250],
    ['a long prompt', '/v1beta/models/gemini:generateContent', { contents => $part }, '{"promptTokenCount":200001,"candidatesTokenCount":1,"cachedContentTokenCount":1}', 200000 * 2500 + 625 + 15000],
    ['one token less', '/v1beta/models/gemini:generateContent', { contents => $part }, '{"promptTokenCount":200000,"candidatesTokenCount":1}', 200000 * 1250 + 10000],
) {
    my ($name, $p, $b, $usage, $cost) = @$c;
    call($p, $b, 'x-mock-usage', $usage);
    my $e = last_event();
    is_deeply([@$e{qw(cost est)}], [$cost, 0], $name);
}
for my $c (['priority', 200], ['flex', 50], ['default', 100], ['scale', 100]) {
    call('/v1/chat/completions', $chat, @u[0 .. 3], 'x-mock-tier', $c->[0]);
    is(last_event()->{cost}, ($c->[1] * (100 * 150 + 7 * 600)) / 100, "served as $c->[0]");
    call('/v1/responses', $shape{'responses stream'}[1], @u[0 .. 3], 'x-mock-tier', $c->[0]);
    is(last_event()->{cost}, ($c->[1] * (100 * 150 + 7 * 600)) / 100, '... in a stream');
}

# sums
ok($g->settled, 'settles');
my $sum = 0;
$sum += $_->[0]{cost} for $g->events;
is($g->state($key)->{used}, $sum, 'used is the sum of the ledger');

# what is held is never less than what such an answer may cost
sub held {
    my ($path, $body, @headers) = @_;
    my $k = $g->key(strict => $T, limit => usd(1000));
    my $pid = fork // die;
    if (!$pid) {
        http_call($g->{port}[0], 'POST', $path, ['Authorization', "Bearer $k", 'x-mock-delay-ms', 300, @headers], $Keytoll::Test::JSON->encode($body));
        POSIX::_exit(0);
    }
    my $held;
    soon { $held = $g->state($k)->{held} } 3, 'it runs';
    waitpid $pid, 0;
    $g->settled;
    return ($held, $g->state($k)->{used});
}
for my $c ([5, { type => 'web_search_20250305', name => 'web_search', max_uses => 5 }, 5], ['any number of', { type => 'web_search_20250305', name => 'web_search' }, 64]) {
    my ($held, $used) = held('/v1/messages', { %{ $shape{messages}[1] }, max_tokens => 7, tools => [$c->[1]] },
        'x-mock-usage', qq({"input_tokens":10000,"output_tokens":7,"server_tool_use":{"web_search_requests":$c->[2]}}));
    cmp_ok($used, '>=', $c->[2] * 10_000_000, "$c->[0] searches are paid for");
    cmp_ok($held, '>=', $used, "$c->[0] searches, and what they find, are held");
}
my ($held, $used) = held($shape{messages}[0], { %{ $shape{messages}[1] }, max_tokens => 7, tools => [{ name => 'web_search', input_schema => {} }] });
cmp_ok($held, '<', 10_000_000, 'a search that the client makes is none');
my %tiers = (absent => [], auto => ['auto'], default => ['default']);
for my $tier (sort keys %tiers) {
    ($held, $used) = held('/v1/chat/completions', { %$chat, max_tokens => 7, (map { (service_tier => $_) } @{ $tiers{$tier} }) }, 'x-mock-prompt-tokens', 1, 'x-mock-completion-tokens', 7, 'x-mock-tier', $tier eq 'default' ? 'default' : 'priority');
    $tiers{$tier} = $held;
    cmp_ok($held, '>=', $used, "tier $tier: enough is held");
}
is($tiers{absent}, $tiers{auto}, 'who names no tier may get any');
is($tiers{absent}, 2 * $tiers{default}, 'who names the default pays no more');
$g->finish;
