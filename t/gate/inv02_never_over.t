# Invariants 1, 2 and 4 at the door: limits are exact at any concurrency, over
# two nginx that share one Redis.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;

my $g = Keytoll::Test->gate(nginx => 2, workers => 2);
my @ports = @{ $g->{port} };

sub burst {
    my ($key, $n, %body) = @_;
    my $headers = delete $body{headers} // [];
    my $b = chat_body(%body);
    return http_burst(\@ports, [map { ['POST', '/v1/chat/completions', ['Authorization', "Bearer $key", @$headers], $b] } 1 .. $n]);
}

sub statuses { my %n; $n{ $_->{status} }++ for @_; return join ' ', map { "$_=$n{$_}" } sort keys %n }

my $rpm = $g->key(rpm => 7);
my @r = burst($rpm, 200);
is(statuses(@r), '200=7 429=193', 'rpm 7: 200 parallel calls, exactly 7 succeed');
my ($no) = grep { $_->{status} == 429 } @r;
like($no->{json}{error}{message}, qr/^Rate limit exceeded for api_key: [0-9a-f]{64}\. Limit type: requests\. Current limit: 7, Remaining: 0\. Limit resets at: \d{4}-/, 'the text');
cmp_ok($no->{headers}{'retry-after'}, '>=', 55, 'retry-after is the true wait');
cmp_ok($no->{headers}{'retry-after'}, '<=', 61, 'at most 61 s');
is($no->{headers}{rate_limit_type}, 'requests', 'rate_limit_type');
my ($yes) = grep { $_->{status} == 200 } @r;
is($yes->{headers}{'x-ratelimit-api_key-limit-requests'}, 7, 'limit header on success');
is(join(',', sort map { $_->{headers}{'x-ratelimit-api_key-remaining-requests'} } grep { $_->{status} == 200 } @r), '0,1,2,3,4,5,6', 'remaining counts down');

for my $k (1, 2, 10, 60) {
    my $cost = 10 * 1_000_000 / 1000;
    my $key = $g->key(strict => JSON::PP::true, limit => $k * $cost);
    my @all;
    my $tries = 0;
    while ($tries++ < 20) {
        my @r = burst($key, 100, model => 'out-only', max_tokens => 10);
        push @all, @r;
        last unless grep { ($_->{headers}{'x-keytoll-reason'} // '') eq 'budget_held' } @r;
    }
    is(scalar(grep { $_->{status} == 200 } @all), $k, "strict budget worth $k calls: exactly $k succeed");
    ok($g->settled, 'settles');
    is($g->state($key)->{used}, $k * $cost, 'used is the limit');
    my $r = $g->chat($key, model => 'out-only');
    is($r->{status}, 422, 'then it is exceeded');
    is($r->{json}{error}{type}, 'budget_exceeded', 'type');
    like($r->{json}{error}{message}, qr/^Budget has been exceeded! Key=sk-\.\.\.\w{4} Current cost: 0\.0+\d+, Max budget: 0\.0+\d+$/, 'text');
    is($r->{headers}{'x-keytoll-used'}, $k * $cost, 'the header says used');
    ok(!$r->{headers}{'retry-after'}, 'no retry-after for a spent budget');
}

{
    my $key = $g->key(limit => 25_000, strict => JSON::PP::true);
    my @r = burst($key, 50, model => 'out-only', headers => ['x-mock-delay-ms', 300]);
    my @held = grep { $_->{status} == 429 } @r;
    is(scalar(grep { $_->{status} == 200 } @r), 2, 'while two run, no third fits');
    ok(@held && !grep({ $_->{headers}{'x-keytoll-reason'} ne 'budget_held' } @held), 'the others are told to come back: budget_held');
    ok($held[0]{headers}{'retry-after'}, 'with retry-after');
    ok($g->settled, 'settles');
    is($g->state($key)->{used}, 20_000, 'used');
}

{
    my $key = $g->key(limit => 25_000);
    my @r = burst($key, 50, model => 'out-only', headers => ['x-mock-delay-ms', 200]);
    ok($g->settled, 'settles');
    push @r, burst($key, 20, model => 'out-only');
    ok($g->settled, 'settles');
    is(scalar(grep { $_->{status} == 200 } @r), 3, 'last_call: at most one request crosses the line');
    is($g->state($key)->{used}, 30_000, 'by less than its own cost');
}

# Without a cap an answer may be as long as the model writes: 4,096 tokens, far above what is usual.
for my $level (qw(key user team member org)) {
    my %name = (user => "user:lc", team => 'team:lc', member => 'member:lc/u', org => 'org:lc');
    $g->policy($name{$level} => { limit => 900_000 }) if $level ne 'key';
    my $key = $level eq 'key' ? $g->key(limit => 900_000) : $g->key(refs => [$name{$level}, 'global']);
    my $uncapped = $Keytoll::Test::JSON->encode({ model => 'out-only', messages => [{ role => 'user', content => 'hello' }] });
    my @r = http_burst(\@ports, [map { ['POST', '/v1/chat/completions', ['Authorization', "Bearer $key", 'x-mock-completion-tokens', 4000, 'x-mock-delay-ms', 300], $uncapped] } 1 .. 50]);
    ok($g->settled, 'settles');
    my $st = $g->state($level eq 'key' ? $key : $name{$level});
    is(scalar(grep { $_->{status} == 200 } @r), 1, "$level: of 50 calls without a cap one crosses the line");
    is(scalar(grep { $_->{status} == 429 && $_->{headers}{'x-keytoll-reason'} eq 'budget_held' && $_->{headers}{'retry-after'} } @r), 49, 'the others are told to come back');
    is("@$st{qw(used held)}", '4000000 0', 'by its own cost');
}

{
    my $key = $g->key(limit => 50_000);
    my $pid = fork // die;
    if (!$pid) { $g->chat($key, model => 'out-only', max_tokens => 4000, headers => ['x-mock-delay-ms', 1500, 'x-mock-completion-tokens', 10]); POSIX::_exit(0) }
    ok(eventually(sub { $g->status(0)->{active_requests} }), 'a request that may cost 80 times what is left runs');
    my @r = burst($key, 4, model => 'out-only');
    is(statuses(@r), '200=4', 'others that fit pass meanwhile');
    waitpid $pid, 0;
    ok($g->settled, 'settles');
    is($g->state($key)->{used}, 50_000, 'each has paid');
}

{
    my $key = $g->key(par => 5);
    my @r = burst($key, 60, headers => ['x-mock-delay-ms', 300]);
    is(statuses(@r), '200=5 429=55', 'max_parallel_requests 5');
    ok($g->settled, 'settles');
    is($g->state($key)->{par}, 0, 'inv04: no slot stays');
    is(statuses(burst($key, 5)), '200=5', 'and all are free again');
}

{
    my $key = $g->key(tpm => 1000, strict => JSON::PP::true);
    my @r = burst($key, 100, max_tokens => 88, messages => [{ role => 'user', content => 'hello' }]);
    is(statuses(@r), '200=10 429=90', 'tpm 1000 with 100 tokens a call: ten pass');
    ok($g->settled, 'settles');
    my $s = $g->state($key);
    is($s->{tpm}, 1000, 'the window holds what was used');
    my $two = $g->key(tpm => 1000, strict => JSON::PP::true);
    burst($two, 1, max_tokens => 500, headers => ['x-mock-completion-tokens', 8]);
    ok($g->settled, 'settles');
    is($g->state($two)->{tpm}, 20, 'unused tokens return to the window');
}

{
    my %zero = (rpm => 0);
    for my $p ({ rpm => 0 }, { tpm => 0 }, { par => 0 }, { limit => '0' }) {
        my ($name) = keys %$p;
        my $r = $g->chat($g->key(%$p));
        isnt($r->{status}, 200, "$name 0 blocks the first call");
    }
    is($g->chat($g->key(limit => '0'), model => 'free')->{status}, 200, 'a free model passes an exhausted budget');
    is($g->chat($g->key(limit => '5'), model => 'noprice')->{status}, 400, 'a model without a price is not free under a money limit');
    is($g->chat($g->key, model => 'noprice')->{status}, 200, 'without a money limit it passes');
    is(http_call($ports[0], 'POST', '/v1/unknown/thing', ['Authorization', 'Bearer ' . $g->key(limit => '5000')], '{}')->{status}, 400, 'an unknown route is refused under a money limit');
}

{
    my $a = $g->key(refs => ['team:t', 'member:t/u', 'org:o', 'global']);
    my $b = $g->key(refs => ['team:t', 'org:o', 'global']);
    $g->policy('team:t' => { limit => 15_000, strict => JSON::PP::true }, 'member:t/u' => { limit => 1_000_000 }, 'org:o' => { limit => 1_000_000 });
    is($g->chat($a, model => 'out-only')->{status}, 200, 'a team with budget for one');
    ok($g->settled, 'settles');
    my $r = $g->chat($b, model => 'out-only');
    is($r->{status}, 422, 'its other key finds it spent');
    is($r->{headers}{'x-keytoll-entity'}, 'team:t', 'and is told whose budget');
    like($r->{json}{error}{message}, qr/Team=t Current cost: 0\.00001, Max budget: 0\.000015/, 'in LiteLLM\'s words');
    is($g->state($b)->{used}, 0, 'inv01: a refusal leaves no trace');
    is($g->state($_)->{used}, 10_000, "$_ was charged once") for 'member:t/u', 'org:o';
}

$g->finish;
