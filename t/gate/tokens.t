# What TPM counts (token_rate_limit_type): input, output or both, prompt tokens without those
# that the provider read from its cache; reserved by the estimate, settled to what was used.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;

my $T = JSON::PP::true;
my $g = Keytoll::Test->gate(more => 'proxy_buffering off;');
my @usage = ('x-mock-prompt-tokens', 100, 'x-mock-completion-tokens', 7, 'x-mock-cached-tokens', 60);

my %want = (input => 40, output => 7, total => 47);
for my $type (sort keys %want) {
    for my $c (['chat', '/v1/chat/completions', { model => 'gpt-4o-mini', max_tokens => 10, messages => [] }],
        ['chat, streamed', '/v1/chat/completions', { model => 'gpt-4o-mini', max_tokens => 10, stream => $T, messages => [] }],
        ['responses', '/v1/responses', { model => 'gpt-4o-mini', max_output_tokens => 10, input => 'hi' }]) {
        my ($what, $path, $body) = @$c;
        for my $strict (0, 1) {
            my $key = $g->key(tpm => 1000, tpm_type => $type, $strict ? (strict => $T) : ());
            my $r = http_call($g->{port}[0], 'POST', $path, ['Authorization', "Bearer $key", @usage], $Keytoll::Test::JSON->encode($body));
            is($r->{status}, 200, "$type, $what");
            my $reserved = 1000 - $r->{headers}{'x-ratelimit-api_key-remaining-tokens'};
            $type eq 'output' ? is($reserved, 10, "$type: the cap is reserved") : cmp_ok($reserved, $type eq 'total' ? '>=' : '<', 10, "$type: $reserved reserved");
            ok($g->settled, 'settles');
            is($g->state($key)->{tpm}, $want{$type}, "$type, $what: counted are $want{$type}");
        }
    }
}

# doubled usage is doubled in the window
my $key = $g->key(tpm => 100_000);
for my $n (1, 2, 4) {
    my $before = $g->state($key)->{tpm};
    $g->chat($key, headers => ['x-mock-prompt-tokens', 50 * $n, 'x-mock-completion-tokens', 5 * $n]);
    ok($g->settled, 'settles');
    is($g->state($key)->{tpm} - $before, 55 * $n, "usage times $n is counted times $n");
}

# a limit of one kind does not see the other
$key = $g->key(tpm => 20, tpm_type => 'output', strict => $T);
is($g->chat($key, max_tokens => 15, messages => [{ role => 'user', content => 'x' x 5000 }])->{status}, 200, 'a long prompt under a limit of output');
ok($g->settled, 'settles');
is($g->chat($key, max_tokens => 21)->{headers}{'x-keytoll-reason'}, 'tpm_exceeded', 'but not a long answer');
$key = $g->key(tpm => 20, tpm_type => 'input', strict => $T);
is($g->chat($key, max_tokens => 4000)->{status}, 200, 'a long answer under a limit of input');
is($g->chat($key, messages => [{ role => 'user', content => 'x' x 50 }])->{headers}{'x-keytoll-reason'}, 'tpm_exceeded', 'but not a long prompt');

ok($g->settled, 'settles');
$g->finish;
