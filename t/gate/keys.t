# Where a key may be, what it may look like, and what happens to it.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;

my $g = Keytoll::Test->gate;
my $key = $g->key;
my $port = $g->{port}[0];

sub call { return http_call($port, 'POST', '/v1/chat/completions', [@_], chat_body()) }

for my $h (['x-litellm-api-key', $key], ['x-litellm-api-key', "Bearer $key"], ['Authorization', "Bearer $key"], ['Authorization', "bearer $key"],
    ['Authorization', "Basic $key"], ['API-Key', $key], ['x-api-key', $key], ['x-goog-api-key', $key], ['Ocp-Apim-Subscription-Key', $key]) {
    is(call(@$h)->{status}, 200, "$h->[0]: " . ($h->[1] =~ s/sk-.*/KEY/r));
}

is(call('Authorization', "Bearer $key", 'x-api-key', $key)->{status}, 200, 'the same key twice is fine');
my $r = call('Authorization', "Bearer $key", 'x-api-key', 'sk-another-key-0123456789');
is($r->{status}, 400, 'two different keys are refused');
is($r->{headers}{'x-keytoll-reason'}, 'key_conflict', 'and it says why');
is(call('x-api-key', $key, 'x-api-key', 'sk-another-key-0123456789')->{status}, 400, 'also within one header name');
is(call('x-litellm-api-key', $key, 'Authorization', 'Bearer upstream-token')->{status}, 200, 'x-litellm-api-key wins over all');

for my $case (['no header', [], 'key_missing', qr/No api key passed in/], ['no scheme', ['Authorization', $key], 'key_malformed', qr/Malformed API Key/],
    ['empty', ['Authorization', 'Bearer '], 'key_malformed', qr/Malformed/], ['wrong scheme', ['Authorization', "NotBearer $key"], 'key_malformed', qr/Malformed/],
    ['not sk-', ['Authorization', 'Bearer invalid_token'], 'key_shape', qr/expected.*'sk-'/], ['unknown', ['Authorization', 'Bearer sk-nobody-ever-made-this'], 'key_unknown', qr/Received API Key = sk-\.\.\.this/]) {
    my ($name, $headers, $reason, $text) = @$case;
    my $r = call(@$headers);
    is($r->{status}, 401, "$name is 401");
    is($r->{headers}{'x-keytoll-reason'}, $reason, "$name: reason");
    like($r->{json}{error}{message}, $text, "$name: message");
    is($r->{json}{error}{code}, '401', "$name: code is a string");
}

my $before = $g->{r}->functions;
my $bad = 'sk-kt10000' . 'a' x 43 . '000000';
is(call('Authorization', "Bearer $bad")->{status}, 401, 'a key of ours with a wrong checksum is refused');
is($g->{r}->functions, $before, 'without asking Redis');
is(call('x-api-key', "sk-tab\there")->{status}, 401, 'control characters are no key');
is(http_call($port, 'POST', "/v1/chat/completions?key=$key", ['Authorization', "Bearer $key"], chat_body())->{status}, 400, 'a key in the URL is refused');

$g->policy('key:' . token($key) => { refs => ['global'], blocked => JSON::PP::true });
$r = call('Authorization', "Bearer $key");
is($r->{status}, 401, 'a blocked key is refused at once');
like($r->{json}{error}{message}, qr/Key is blocked/, 'with its text');
$g->policy('key:' . token($key) => { refs => ['global'] });
is(call('Authorization', "Bearer $key")->{status}, 200, 'and works again at once');
$g->policy('key:' . token($key) => { refs => ['global'], expires_ms => 1000 });
$r = call('Authorization', "Bearer $key");
is($r->{status}, 401, 'an expired key is refused');
is($r->{json}{error}{type}, 'expired_key', 'with its type');
$g->{r}->fcall('kt_policy_del', 'key:' . token($key), $g->{ver}++);
is(call('Authorization', "Bearer $key")->{json}{error}{type}, 'token_not_found_in_db', 'a deleted key is unknown');

my $k2 = $g->key(models => ['gpt-*', 'emb']);
is($g->chat($k2, model => 'gpt-4o-mini')->{status}, 200, 'a model on the list, by wildcard');
$r = $g->chat($k2, model => 'claude-x');
is($r->{status}, 403, 'a model that is not');
is($r->{json}{error}{type}, 'key_model_access_denied', 'type');
like($r->{json}{error}{message}, qr/can only access models=\['gpt-\*', 'emb'\]\. Tried to access claude-x/, 'message');
$r = $g->chat($k2, model => 'gpt-unknown');
is($r->{status}, 400, 'an allowed model that does not exist is 400');
like($r->{json}{error}{message}, qr/Invalid model name passed in model=gpt-unknown/, 'as LiteLLM says it');

my $t = $g->key(refs => ['team:a b', 'global']);
$g->policy('team:a b' => { blocked => JSON::PP::true });
$r = $g->chat($t);
is($r->{status}, 401, 'a blocked team refuses its keys');
my $k3 = $g->key(routes => ['/v1/embeddings']);
$r = $g->chat($k3);
is($r->{status}, 403, 'a key for other routes');
like($r->{json}{detail}, qr/not allowed to call this route/, 'detail envelope');
is($g->chat($g->key(routes => ['llm_api_routes']))->{status}, 200, 'llm_api_routes covers it');

ok($g->settled, 'everything settles');
my $log = join '', map { Keytoll::Test::slurp($_) } glob "$g->{dir}/log/*";
is(scalar(() = $log =~ /\Q$key\E/g), 0, 'no key in any log');
ok(!grep({ my $l = $_; grep { /auth|key/ && !/x-request/ } @{ $l->{headers} } } $g->truth), 'no key header reached the provider');

$g->finish;
