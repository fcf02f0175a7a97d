# Every route: whose model decides, what it costs, what the provider reads.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;

my $T = JSON::PP::true;
my $g = Keytoll::Test->gate(models => [
    { n => 'gpt', p => 'openai', in => 150000, out => 600000, cr => 75000, maxo => 16384 },
    { n => 'gpt-alias', u => 'gpt', p => 'openai', in => 150000, out => 600000, cr => 75000, maxo => 16384 },
    { n => 'claude-x', p => 'anthropic', in => 3000000, out => 15000000, cr => 300000, cw => 3750000, cw1h => 6000000, maxo => 8192 },
    { n => 'gemini', p => 'google', in => 1250000, out => 10000000, cr => 310000, ai => 1000000, maxo => 65536 },
    { n => 'emb', p => 'openai', in => 20000 },
    { n => 'dall', p => 'openai', img => 40_000_000_000 },
    { n => 'hd/1024-x-1792/dall', p => 'openai', img => 120_000_000_000 },
    { n => 'gpt-image', p => 'openai', in => 5000000, ii => 10000000, io => 40000000 },
    { n => 'tts', p => 'openai', chr => 15000000 },
    { n => 'whisper', p => 'openai', sec => 100000000 },
    { n => 'transcribe', p => 'openai', in => 2500000, out => 10000000, ai => 6000000 },
    { n => 'omni-moderation-latest', p => 'openai', in => 0, out => 0, free => 1 },
    { n => 'rank', p => 'cohere', qry => 2000000000 },
    { n => 'jina', p => 'jina', in => 18000 },
]);
my $port = $g->{port}[0];
my $key = $g->key(limit => "1000000000000000");

sub call {
    my ($path, $body, %o) = @_;
    return http_call($port, 'POST', $path, ['Authorization', "Bearer " . ($o{key} // $key), 'Content-Type', $o{type} // 'application/json', @{ $o{h} // [] }], ref $body ? $Keytoll::Test::JSON->encode($body) : $body);
}

sub last_event { $g->settled or die 'does not settle'; return ($g->events)[-1][0] }
sub body { return http_get($g->{mock_port}, '/__body')->{body} }
sub truth { return ($g->truth)[-1] }

sub form {
    my @parts = @_;
    my $out = '';
    while (@parts) {
        my ($n, $v) = splice @parts, 0, 2;
        $out .= "--XX\r\nContent-Disposition: form-data; name=\"$n\"" . ($n =~ /file|image/ ? "; filename=\"a.bin\"\r\nContent-Type: application/octet-stream" : '') . "\r\n\r\n$v\r\n";
    }
    return "$out--XX--\r\n";
}
my $form = 'multipart/form-data; boundary=XX';

# name, path, body, route, cost, input tokens, output tokens, more
my @u = ('x-mock-prompt-tokens', 1000, 'x-mock-completion-tokens', 10);
my $text = [{ role => 'user', content => 'hi' }];
my $part = [{ role => 'user', parts => [{ text => 'hi' }] }];
for my $c (
    ['chat', '/v1/chat/completions', { model => 'gpt', messages => $text }, 'chat', 156000, 1000, 10],
    ['completions', '/v1/completions', { model => 'gpt', prompt => 'hi' }, 'completions', 156000, 1000, 10],
    ['embeddings', '/v1/embeddings', { model => 'emb', input => 'hi' }, 'embeddings', 20000, 1000, 0],
    ['responses', '/v1/responses', { model => 'gpt', input => 'hi' }, 'responses', 156000, 1000, 10],
    ['responses, streamed', '/v1/responses', { model => 'gpt', input => 'hi', stream => $T }, 'responses', 156000, 1000, 10],
    ['responses, cut', '/v1/responses', { model => 'gpt', input => 'hi', stream => $T, max_output_tokens => 10 }, 'responses', 156000, 1000, 10],
    ['messages', '/v1/messages', { model => 'claude-x', max_tokens => 20, messages => $text }, 'messages', 3150000, 1000, 10],
    ['messages, streamed', '/v1/messages', { model => 'claude-x', max_tokens => 20, messages => $text, stream => $T }, 'messages', 3150000, 1000, 10],
    ['count_tokens', '/v1/messages/count_tokens', { model => 'claude-x', messages => $text }, 'count', 0, 0, 0],
    ['Gemini', '/v1beta/models/gemini:generateContent', { contents => $part }, 'gemini', 1350000, 1000, 10],
    ['Gemini, a stream of an array', '/v1beta/models/gemini:streamGenerateContent', { contents => $part }, 'gemini', 1350000, 1000, 10],
    ['Gemini, SSE', '/v1beta/models/gemini:streamGenerateContent?alt=sse', { contents => $part }, 'gemini', 1350000, 1000, 10],
    ['Gemini countTokens', '/v1beta/models/gemini:countTokens', { contents => $part }, 'count', 0, 0, 0],
    ['Azure chat', '/openai/deployments/gpt/chat/completions?api-version=1', { messages => $text }, 'chat', 156000, 1000, 10],
    ['Azure embeddings', '/openai/deployments/emb/embeddings', { input => 'hi' }, 'embeddings', 20000, 1000, 0],
    ['score', '/score', { model => 'jina', text_1 => 'a', text_2 => 'b' }, 'score', 18000, 1000, 0],
    ['v1 score', '/v1/score', { model => 'jina', text_1 => 'a', text_2 => 'b' }, 'score', 18000, 1000, 0],
    ['pooling', '/pooling', { model => 'jina', input => 'a' }, 'score', 18000, 1000, 0],
    ['classify', '/classify', { model => 'jina', input => 'a' }, 'score', 18000, 1000, 0],
    ['tokenize', '/tokenize', { model => 'gpt', prompt => 'a' }, 'count', 0, 0, 0],
    ['detokenize', '/detokenize', { model => 'gpt', tokens => [1] }, 'count', 0, 0, 0],
    ['an image', '/v1/images/generations', { model => 'dall', prompt => 'x', n => 2 }, 'images', 80_000_000, 0, 0],
    ['a larger one', '/v1/images/generations', { model => 'dall', prompt => 'x', quality => 'hd', size => '1024x1792' }, 'images', 120_000_000, 0, 0],
    ['an image by tokens', '/v1/images/generations', { model => 'gpt-image', prompt => 'x' }, 'images', 10 * 5000 + 20 * 10000 + 100 * 40000, 30, 100,
        '{"input_tokens":30,"output_tokens":100,"total_tokens":130,"input_tokens_details":{"text_tokens":10,"image_tokens":20}}'],
    ['speech', '/v1/audio/speech', { model => 'tts', input => "h\x{e9}llo \x{1f600}", voice => 'alloy' }, 'speech', 7 * 15000, 0, 0],
    ['moderations', '/v1/moderations', { model => 'omni-moderation-latest', input => 'x' }, 'moderations', 0],
    ['rerank by query', '/v2/rerank', { model => 'rank', query => 'q', documents => ['a', 'b'] }, 'rerank', 2_000_000, 0, 0],
    ['rerank by tokens', '/rerank', { model => 'jina', query => 'q', documents => ['a', 'b'] }, 'rerank', 50 * 18, 50, 0, '{"total_tokens":50}'],
) {
    my ($name, $path, $body, $route, $cost, $in, $out, $usage) = @$c;
    my $r = call($path, $body, h => [@u, $usage ? ('x-mock-usage', $usage) : ()]);
    is($r->{status}, 200, $name) or diag $r->{body};
    my $e = last_event();
    is($e->{rt}, $route, '... its route');
    is($e->{cost}, $cost, '... its cost');
    is($e->{in}, $in, '... its input') if defined $in;
    is($e->{out}, $out, '... its output') if defined $out;
    is($e->{est}, 0, '... exactly') if defined $in;
}

# multipart
my $r = call('/v1/audio/transcriptions', form(file => 'x' x 1000, model => 'whisper'), type => $form);
is($r->{status}, 200, 'a transcription') or diag $r->{body};
my $e = last_event();
is($e->{cost}, 12340 * 100, 'by the second');
is($e->{est}, 0, 'exactly');
is(truth()->{model}, 'whisper', 'the provider reads the field');
call('/v1/audio/translations', form(model => 'whisper', file => "\0\xff" x 800), type => $form, h => ['x-mock-usage', '{"type":"duration","seconds":3}']);
is(last_event()->{cost}, 300_000, 'usage in seconds');
call('/v1/audio/transcriptions', form(model => 'whisper', file => 'x' x 8000), type => $form, h => ['x-mock-no-usage', 1]);
$e = last_event();
is($e->{est}, 1, 'no usage: an estimate');
cmp_ok($e->{cost}, '>', 0, 'and not free');
call('/v1/audio/transcriptions', form(model => 'transcribe', file => 'x' x 800), type => $form,
    h => ['x-mock-usage', '{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":4,"audio_tokens":10},"output_tokens":5,"total_tokens":19}']);
is(last_event()->{cost}, 4 * 2500 + 10 * 6000 + 5 * 10000, 'usage in audio tokens');
$r = call('/v1/images/edits', form(model => 'dall', image => 'PNG', prompt => 'x', n => 3), type => $form);
is($r->{status}, 200, 'an edit');
is(last_event()->{cost}, 120_000_000, 'three images');
is(call('/v1/images/variations', form(image => 'PNG', model => 'dall'), type => $form)->{status}, 200, 'variations');
for my $c (['two models', form(model => 'dall', model => 'gpt')], ['no model', form(prompt => 'x')], ['another case', form(Model => 'dall')], ['cut', substr form(model => 'dall'), 0, -6],
    ['text before', 'x' . form(model => 'dall')], ['not a form', '{"model":"dall"}']) {
    is(call('/v1/images/edits', $c->[1], type => $form)->{status}, 400, "a form with $c->[0]");
}
is(call('/v1/chat/completions', form(model => 'gpt'), type => $form)->{status}, 400, 'no form where JSON belongs');
is(call('/v1/chat/completions', '{"model":"gpt"}', type => 'multipart/mixed; boundary=x')->{status}, 400, 'no other multipart');

# models in the path
$r = call('/openai/deployments/gpt/chat/completions', { model => 'claude-x', messages => $text });
is($r->{status}, 200, 'a body model that disagrees with the path');
is(json(body())->{model}, 'gpt', 'is overwritten with the one that was priced');
$r = call('/openai/deployments/gpt-alias/chat/completions?a=b', { model => 'gpt-alias', messages => $text });
is($r->{status}, 200, 'an alias in the path');
is(truth()->{path}, '/openai/deployments/gpt/chat/completions?a=b', 'is replaced there');
is(json(body())->{model}, 'gpt', 'and in the body');
$r = call('/v1beta/models/emb:embedContent', { model => 'models/gemini', content => { parts => [{ text => 'x' }] } });
is($r->{status}, 200, 'Gemini names the model in the body as well');
is(json(body())->{model}, 'models/emb', 'there it is that of the path');
is(last_event()->{est}, 1, 'an embedding without usage is an estimate');
my $listed = $g->key(models => ['gpt']);
is(call('/v1beta/models/gemini:generateContent', { contents => $part }, key => $listed)->{status}, 403, 'the allow-list binds the path');
is(call('/v1beta/models/%67emini:generateContent', { contents => $part }, key => $listed)->{status}, 403, 'under any spelling');
is(call('/openai/deployments/claude-x/chat/completions', { model => 'gpt', messages => $text }, key => $listed)->{status}, 403, 'whatever the body says');
is(call('/v1/audio/transcriptions', form(model => 'whisper', file => 'x'), type => $form, key => $listed)->{status}, 403, 'and the field of a form');
is(call('/v1beta/models/unknown:generateContent', { contents => $part })->{status}, 400, 'an unknown one is refused');
call('/v1/moderations', { input => 'x' });
is(json(body())->{model}, 'omni-moderation-latest', 'a moderation without a model gets the usual one');
call('/v1/moderations', '{}');
is(json(body())->{model}, 'omni-moderation-latest', 'an empty body too');

# a price that the route cannot be paid by
for my $c (['/v1/chat/completions', { model => 'dall', messages => $text }], ['/v1/images/generations', { model => 'tts', prompt => 'x' }],
    ['/v1/audio/speech', { model => 'whisper', input => 'x' }], ['/v1/chat/completions', { model => 'emb', messages => $text }],
    ['/v1/chat/completions', { model => 'gpt', messages => $text, service_tier => 'priority' }]) {
    is(call(@$c)->{headers}{'x-keytoll-reason'}, 'unpriced', "$c->[0] of $c->[1]{model}: not with a money limit");
}
is(call('/v1/images/generations', { model => 'tts', prompt => 'x' }, key => $g->key)->{status}, 200, 'but without one');

# messages that are OpenAI's: a thread has no model, and is none of Anthropic's
for my $path ('/v1/threads/t1/messages', '/v1/threads/t1/messages/m1') {
    my $free = $g->key;
    my $r = call($path, { role => 'user', content => 'hi' }, key => $free);
    is($r->{status}, 404, "$path: reaches the provider, which has none") or diag $r->{body};
    is(last_event()->{rt}, 'other', 'is of no route');
    is(truth()->{path}, $path, 'as it was sent');
    my $two = $g->key(rpm => 2);
    is(join(' ', map { call($path, {}, key => $two)->{status} } 1 .. 3), '404 404 429', 'counts as a request');
    $r = call($path, {}, key => $g->key(rpm => 0));
    is($r->{json}{error}{type} . ' ' . ($r->{json}{type} // '-'), 'throttling_error -', 'refused in the shape of OpenAI');
    $r = call($path, {}, key => $key);
    is("$r->{status} $r->{headers}{'x-keytoll-reason'}", '400 unpriced', 'not with a limit on money');
}
is(call('/v1/messages/batches', {}, key => $g->key(rpm => 0))->{json}{type}, 'error', 'batches of Anthropic are refused in its own');

# what is only read
my $poor = $g->key(limit => 1);
is(http_get($port, '/v1/models', ['Authorization', "Bearer $key"])->{status}, 200, 'GET /v1/models with a money limit');
is(http_get($port, '/v1/models', ['Authorization', "Bearer $listed"])->{status}, 200, 'and with an allow-list');
is(http_get($port, '/v1/models')->{status}, 401, 'not without a key');
is(http_get($port, '/v1/files', ['Authorization', "Bearer $key"])->{headers}{'x-keytoll-reason'}, 'unpriced', 'an unknown GET is not');
is(call('/v1/batches', {})->{headers}{'x-keytoll-reason'}, 'unpriced', 'nor an unknown POST');
my $rpm = $g->key(rpm => 1);
isnt(call('/v1/batches', {}, key => $rpm)->{status}, 429, 'without a money limit it passes');
is(call('/v1/batches', {}, key => $rpm)->{status}, 429, 'and counts as a request');
is(call('/v1/messages/count_tokens', { model => 'claude-x', messages => $text }, key => $poor)->{status}, 200, 'counting is free');

ok($g->settled, 'settles');
is($g->state($key)->{held}, 0, 'nothing is held');
$g->finish;
