# What the client is told: statuses, words and headers of refusals in every
# profile, costs and what is left on answers.

use strict;
use warnings;
use POSIX ();
use Test::More;
use Time::HiRes qw(time sleep);
use Time::Local qw(timegm);
use Keytoll::Test;

my $T = JSON::PP::true;
my $g = Keytoll::Test->gate(more => <<'END');
        location /v96/ { keytoll_compat 1.96; proxy_pass http://mock/; }
        location /v81/ { keytoll_compat 1.81; proxy_pass http://mock/; }
        location /leased/ { keytoll_lease on; proxy_pass http://mock/; }
        location /dead/ { proxy_pass http://127.0.0.1:1/; }
        location /own/ { keytoll_compat 1.104 budget_exceeded=429; proxy_pass http://mock/; }
END

sub ask {
    my ($key, $path, %body) = @_;
    my $headers = delete $body{headers} // [];
    my $prefix = delete $body{at} // '';
    return http_call($g->{port}[0], 'POST', "$prefix$path", ['Authorization', "Bearer $key", @$headers], chat_body(%body));
}

my $chat = '/v1/chat/completions';
my $now_s = time;
my %case = (
    budget => [$g->key(limit => 0, name => 'al'), 'budget_exceeded', undef, [422, 429, 400],
        [(qr/^Budget has been exceeded! Key=al \(sk-\.\.\..{4}\) Current cost: 0\.0, Max budget: 0\.0$/) x 2, qr/^Budget has been exceeded! Current cost: 0\.0, Max budget: 0\.0$/]],
    model => [$g->key(models => ['free', 'emb']), 'key_model_access_denied', 'model', [403, 403, 401], qr/^key not allowed to access model\. This key can only access models=\['free', 'emb'\]\. Tried to access gpt-4o-mini$/],
    expired => [$g->key(expires_ms => 1000), 'expired_key', qr/^sk-\.\.\./, [401, 401, 400], qr/^Authentication Error - Expired Key\. Key Expiry time 1970-01-01 00:00:01 UTC and current time 20/],
    rate => [$g->key(rpm => 0), ['throttling_error', 'throttling_error', 'None'], [undef, undef, 'None'], [429, 429, 429], qr/^Rate limit exceeded for api_key: [0-9a-f]{64}\. Limit type: requests\. Current limit: 0, Remaining: 0\. Limit resets at: /],
    parallel => [$g->key(par => 0), ['throttling_error', 'throttling_error', 'None'], [undef, undef, 'None'], [429, 429, 429], qr/^Rate limit exceeded for api_key: [0-9a-f]{64}\. Limit type: max_parallel_requests\. Current limit: 0, Remaining: 0\. /],
    blocked => [$g->key(blocked => $T), 'auth_error', 'None', [401, 401, 401], qr/^Authentication Error, Key is blocked\. Update via `\/key\/unblock` if you're admin\.$/],
);

for my $name (sort keys %case) {
    my ($key, $type, $param, $status, $text) = @{ $case{$name} };
    for my $i (0 .. 2) {
        my $at = ('', '/v96', '/v81')[$i];
        my $r = ask($key, $chat, at => $at);
        my $what = $name . ($at || ' newest');
        my $e = $r->{json}{error};
        is($r->{status}, $status->[$i], "$what: status");
        is($e->{type}, ref $type ? $type->[$i] : $type, "$what: type");
        my $want = ref $param eq 'ARRAY' ? $param->[$i] : $param;
        ref $want eq 'Regexp' ? like($e->{param}, $want, "$what: param") : is($e->{param}, $want, "$what: param");
        is($e->{code}, "$status->[$i]", "$what: code is the status, a string");
        is($r->{headers}{'x-litellm-version'}, $name =~ /^(?:expired|blocked)$/ ? undef : ('1.104.0', '1.96.0', '1.81.0')[$i], "$what: the version, unless it is the key that is refused");
        like($e->{message}, ref $text eq 'ARRAY' ? $text->[$i] : $text, "$what: message");
        is($r->{headers}{rate_limit_type}, { rate => 'requests', parallel => ('concurrent_requests', 'concurrent_requests', 'max_parallel_requests')[$i] }->{$name}, "$what: rate_limit_type");
    }
}
is(ask($case{budget}[0], $chat, at => '/own')->{status}, 429, 'a status of one\'s own');

# Retry-After only of what comes back by itself; rates always have one, the window where they never fit

my $once = $g->key(rpm => 1);
is(ask($once, $chat)->{status}, 200, 'one request of one');
my $busy = $g->key(limit => 10_000, strict => $T);
my $team_credits = sub { $g->policy('team:c' => { unit => 'ucr', limit => 0 }); return $g->key(refs => ['team:c', 'global']) }->();
my $still = fork // die "fork: $!";
if (!$still) { ask($busy, $chat, headers => ['x-mock-delay-ms', 3000], max_tokens => 10); POSIX::_exit(0) }
eventually { ($g->state($busy) // { held => 0 })->{held} > 0 } 5 or die 'nothing is held';
my %retry = (
    budget => [$case{budget}[0], 'budget_exceeded', undef], credits => [$team_credits, 'credits_exhausted', undef], model => [$case{model}[0], 'key_model_denied', undef],
    blocked => [$case{blocked}[0], 'key_blocked', undef], held => [$busy, 'budget_held', 1],
    'rpm 0' => [$case{rate}[0], 'rpm_exceeded', 60], 'tpm 0' => [$g->key(tpm => 0), 'tpm_exceeded', 60], 'too many tokens' => [$g->key(tpm => 5), 'tpm_exceeded', 60],
    'par 0' => [$g->key(par => 0), 'parallel_exceeded', 60], 'rpm 1' => [$once, 'rpm_exceeded', qr/^(?:5[0-9]|6[01])$/],
);
for my $name (sort keys %retry) {
    my ($key, $reason, $want) = @{ $retry{$name} };
    for my $at ('', '/v96', '/v81', '/own') {
        my $r = ask($key, $chat, at => $at);
        my $h = $r->{headers};
        is($h->{'x-keytoll-reason'}, $reason, "$name$at: refused");
        ref $want ? like($h->{'retry-after'}, $want, "$name$at: Retry-After") : is($h->{'retry-after'}, $want, "$name$at: Retry-After");
        next unless $reason =~ /^(?:rpm|tpm|parallel)_/;
        like($r->{json}{error}{message}, qr/Limit resets at: \Q$h->{reset_at}\E/, "$name$at: reset_at is what the text says");
        my ($y, $mo, $d, $hh, $mi, $s) = $h->{reset_at} =~ /^(\d+)-(\d+)-(\d+) (\d+):(\d+):(\d+) UTC$/;
        cmp_ok(abs(timegm($s, $mi, $hh, $d, $mo - 1, $y) - time - $h->{'retry-after'}), '<=', 2, "$name$at: and when Retry-After is over");
    }
}
waitpid $still, 0;

# every level in LiteLLM's words

my $full = sub { my (%p) = @_; return $g->key(refs => ['team:t%201', 'user:u', 'org:o', 'global'], %p) };
my %zero = ('team:t%201' => qr/^Budget has been exceeded! Team=t 1 Current cost: /, 'user:u' => qr/^ExceededBudget: User=u over budget\. Spend=0\.0, Budget=0\.0$/,
    'org:o' => qr/^Budget has been exceeded! Organization=o Current cost: /, 'member:t%201/u' => qr/^Budget has been exceeded! User=u in Team=t 1 Current cost: /,
    'orgmember:o%201/u' => qr/^Budget has been exceeded! User=u in Organization=o 1 Current cost: /);
for my $level (sort keys %zero) {
    $g->policy(map { $_ => {} } keys %zero);
    $g->policy($level => { limit => 0 });
    my $key = $g->key(refs => [sort(keys %zero), 'global']);
    my $r = ask($key, $chat);
    like($r->{json}{error}{message}, $zero{$level}, "$level: words of the budget");
    is($r->{headers}{'x-keytoll-entity'}, $level, "$level: the entity");
    $g->policy($level => { rpm => 0 });
    my $kind = { team => 'team', user => 'user', org => 'organization', member => 'team_member', orgmember => 'organization_member' }->{ $level =~ /^(\w+)/ && $1 };
    soon { ask($key, $chat)->{status} == 429 } 1, "$level: rate limited";
    $r = ask($key, $chat);
    like($r->{json}{error}{message}, qr/^Rate limit exceeded for $kind: \S.*\. Limit type: requests/, "$level: words of the rate limit");
    is($r->{headers}{"x-ratelimit-$kind-limit-requests"}, 0, "$level: its limit");
    is($r->{headers}{"x-ratelimit-$kind-remaining-requests"}, 0, "$level: nothing remains");
}
$g->policy(map { $_ => {} } keys %zero);

$g->policy(global => { limit => 0 });
for my $c (['', qr/^ExceededBudget: User=default_user_id over budget\. Spend=0\.\d+, Budget=0\.0$/], map { [$_, qr/^Budget has been exceeded! Current cost: 0\.\d+, Max budget: 0\.0$/] } '/v96', '/v81') {
    my $key = $g->key;
    soon { ask($key, $chat, at => $c->[0])->{json}{error} } 2, "$c->[0] the budget of everything";
    like(ask($key, $chat, at => $c->[0])->{json}{error}{message}, $c->[1], "$c->[0] in its words");
}
$g->policy(global => { rpm => 0 });
soon { ask($g->key, $chat)->{json}{error}{message} =~ /^Rate limit exceeded for global\. Limit type: requests\. / } 2, 'a rate of everything';
$g->policy(global => {});
soon { ask($g->key, $chat)->{status} == 200 } 2, 'and no limit again';

my $token = token(my $windows = 'sk-windows-of-its-own-1');
$g->policy("key:$token~w~1d" => { limit => 0 }, "key:$token~m~gpt-4o-mini" => {});
$g->key(key => $windows, name => 'w', win => ["key:$token~w~1d"], sub => [{ m => 'gpt-4o-mini', e => "key:$token~m~gpt-4o-mini" }]);
like(ask($windows, $chat)->{json}{error}{message}, qr/over 1d budget/, 'a window names its duration');
$g->policy("key:$token~w~1d" => {}, "key:$token~m~gpt-4o-mini" => { limit => 0 });
soon { ask($windows, $chat)->{json}{error}{message} =~ /^LiteLLM Virtual Key: $token, key_alias: \S*, exceeded budget for model=gpt-4o-mini/ } 1, 'a budget of a model names it';
$g->policy("key:$token~m~gpt-4o-mini" => { rpm => 0 });
soon { ask($windows, $chat)->{json}{error}{message} =~ /^Rate limit exceeded for model_per_key: $token:gpt-4o-mini\. Limit type: requests/ } 1, 'so does its rate limit';

my $r = ask('sk-nobody-knows-this-one', $chat);
my $hash = token('sk-nobody-knows-this-one');
is($r->{json}{error}{message}, "Authentication Error, Invalid proxy server token passed. Received API Key = sk-...-one, Key Hash (Token) =$hash. Unable to find token in cache or `LiteLLM_VerificationTokenTable`", 'an unknown key');
is($r->{json}{error}{type} . ' ' . $r->{json}{error}{param}, 'token_not_found_in_db key', 'its type');
$r = ask($g->key(routes => ['/v1/embeddings', '/v1/models']), $chat);
is($r->{json}{detail}, "Virtual key is not allowed to call this route. Only allowed to call routes: ['/v1/embeddings', '/v1/models']. Tried to call route: $chat", 'a route that is not allowed');
is($r->{status}, 403, 'is 403');

# what a refusal tells of the key's own limits, whoever refused

my $own = $g->key(limit => 7_500_000_000, used => 7_500_000_000, rpm => 3, tpm => 300, name => 'own');
my $limits = sub { my $h = ask(@_)->{headers}; return join ' ', map { $_ . '=' . ($h->{"x-litellm-key-$_"} // '-') } qw(max-budget spend rpm-limit tpm-limit) };
is($limits->($own, $chat), 'max-budget=7.5 spend=7.5 rpm-limit=3 tpm-limit=300', 'a spent budget');
is($limits->($own, $chat), 'max-budget=7.5 spend=7.5 rpm-limit=3 tpm-limit=300', 'a spent budget, from shared memory');
is($limits->($g->key(rpm => 0), $chat), 'max-budget=- spend=0.0 rpm-limit=0 tpm-limit=-', 'a rate of requests');
is($limits->($g->key(tpm => 3), $chat), 'max-budget=- spend=0.0 rpm-limit=- tpm-limit=3', 'a rate of tokens');
is($limits->($g->key(par => 0), $chat), 'max-budget=- spend=0.0 rpm-limit=- tpm-limit=-', 'parallel requests have no such name');
is($limits->($g->key(limit => usd(2), models => ['free']), $chat), 'max-budget=2.0 spend=0.0 rpm-limit=- tpm-limit=-', 'a model that is not allowed');
is($limits->($g->key(limit => usd(2), blocked => $T), $chat), 'max-budget=- spend=- rpm-limit=- tpm-limit=-', 'a key that is refused itself hears nothing of it');
$g->policy('team:spent' => { limit => 0 }, 'team:slow' => { rpm => 0 });
is($limits->($g->key(limit => usd(2), refs => ["team:$_", 'global']), $chat), 'max-budget=2.0 spend=0.0 rpm-limit=- tpm-limit=-', "a limit of the team: $_") for qw(spent slow);

# the rate limits of all levels, and what is left of them, on every refusal that is not of the key itself; from shared memory what is left
# of the one that refused, as the others may have moved

my %says = (
    'a spent budget' => [422, limit => 5, used => 5], 'a spent team' => [422, refs => ['team:told', 'team:spent', 'global']], 'a model' => [403, models => ['free']], 'a route' => [403, routes => ['/v1/embeddings']],
    'a rate' => [429, refs => ['team:told', 'user:slow', 'global']], 'a rate of tokens' => [429, tpm => 1], 'parallel requests' => [429, par => 0], 'what a body lacks' => [400, params => ['metadata']],
    'an unknown model' => [400],
);
$g->policy('user:slow' => { rpm => 0 }, 'team:told' => { rpm => 40, par => 9 }, 'member:told/u' => { sub => [{ m => 'gpt-4o-mini', e => 'member:told/u~m~gpt-4o-mini' }] }, 'member:told/u~m~gpt-4o-mini' => { rpm => 30 });
my $rates = sub { my $h = shift; return join ' ', map { "$_=$h->{$_}" } sort grep { /^x-ratelimit-/ } keys %$h };
for my $what (sort keys %says) {
    my ($status, %p) = @{ $says{$what} };
    my @refs = @{ delete $p{refs} // ['team:told', 'global'] };
    my $key = $g->key(rpm => 5, tpm => 90_000, refs => [@refs, 'member:told/u'], name => 'told', %p);
    for my $from ('Redis', 'shared memory') {
        my $r = ask($key, $chat, model => $what eq 'an unknown model' ? 'nobody' : 'gpt-4o-mini');
        my $known = $from eq 'Redis' || $what =~ /tokens|parallel|body|unknown/;      # never from shared memory
        my %want = ('api_key-limit-requests' => 5, 'api_key-limit-tokens' => $p{tpm} // 90_000, 'team-limit-requests' => 40, 'team-limit-max_parallel_requests' => 9,
            $known ? ('api_key-remaining-requests' => 5, 'api_key-remaining-tokens' => $p{tpm} // 90_000, 'team-remaining-requests' => 40, 'team-remaining-max_parallel_requests' => 9) : ());
        %want = (%want, 'model_per_team_member-limit-requests' => 30, $known ? ('model_per_team_member-remaining-requests' => 30) : ()) if $what ne 'an unknown model';
        %want = (%want, 'api_key-limit-max_parallel_requests' => 0, 'api_key-remaining-max_parallel_requests' => 0) if $what eq 'parallel requests';
        %want = (%want, 'user-limit-requests' => 0, 'user-remaining-requests' => 0) if $what eq 'a rate';
        is($r->{status}, $status, "$what, from $from: status");
        is($rates->($r->{headers}), join(' ', map { "x-ratelimit-$_=$want{$_}" } sort keys %want), "$what, from $from: the rate limits of all levels");
        is($r->{headers}{'x-litellm-key-rpm-limit'}, 5, "$what, from $from: the key's own");
    }
}
is($rates->(ask($g->key(rpm => 5, blocked => $T), $chat)->{headers}), '', 'a key that is blocked hears nothing of them');
{
    my $key = $g->key(rpm => 2, refs => ['team:told', 'global']);
    ask($key, $chat) for 1 .. 2;
    for my $from ('Redis', 'shared memory') {
        my $h = ask($key, $chat)->{headers};
        is(join(' ', map { $h->{"x-ratelimit-api_key-$_-requests"} // '-' } qw(limit remaining)), '2 0', "a rate that is used up, from $from: nothing remains");
        is(join(' ', map { $h->{"x-ratelimit-team-$_-requests"} // '-' } qw(limit remaining)), $from eq 'Redis' ? '40 38' : '40 -', "and of its team, from $from");
    }
}

{
    my $key = $g->key(rpm => 1, tpm => 400);
    is(ask($key, $chat, max_tokens => 5)->{status}, 200, 'one passes');
    sleep 3;
    is(ask($key, $chat, max_tokens => 5000)->{headers}{'retry-after'}, 60, 'one that is too large for another limit, too, hears of the window');
    my $wait = ask($key, $chat, max_tokens => 5)->{headers}{'retry-after'};
    ok($wait > 50 && $wait < 60, "a small one, from shared memory, only of the limit that refused: $wait s");
}

# models of each level

my $of = token(my $sub = 'sk-models-of-every-level-1');
my %level = ("key:$of" => 'model_per_key', 'team:s' => 'model_per_team', 'user:s' => 'model_per_user', 'member:s%2F1/u' => 'model_per_team_member', 'org:s' => 'model_per_organization', 'orgmember:s/u' => 'model_per_organization_member',
    'customer:s' => 'model_per_end_user', 'tag:s' => 'model_per_tag');
my $words = sub { my $e = shift; return ($e =~ s/^\w+://r) =~ s{/}{:}r =~ s{%2F}{/}r };
for my $refuses (sort keys %level) {
    my %p = map { my $e = $_; ("$e~m~gpt-4o-mini" => { rpm => $e eq $refuses ? 0 : 1000 }, $e => { sub => [{ m => 'gpt-4o-mini', e => "$e~m~gpt-4o-mini" }] }) } keys %level;
    $p{"key:$of"}{refs} = [(grep { !/^(?:key|customer|tag):/ } sort keys %level), 'global'];
    $g->policy(%p);
    my @by = (user => 's', tags => ['s']);
    soon { (ask($sub, $chat, @by)->{headers}{'x-keytoll-entity'} // '') eq "$refuses~m~gpt-4o-mini" } 2, "$refuses: its model refuses";
    my $r = ask($sub, $chat, @by);
    my $n = $level{$refuses};
    like($r->{json}{error}{message}, qr/^Rate limit exceeded for $n: \Q@{[$words->($refuses)]}\E:gpt-4o-mini\. Limit type: requests\. Current limit: 0/, "$refuses: is named") ;
    is(join(' ', map { $r->{headers}{"x-ratelimit-$n-$_-requests"} // '-' } qw(limit remaining)), '0 0', "$refuses: and its limit told");
    next if $refuses ne 'user:s';
    $g->policy("$refuses~m~gpt-4o-mini" => { rpm => 1000 });
    soon { ask($sub, $chat, @by)->{status} == 200 } 2, 'all let it pass';
    $r = ask($sub, $chat, @by);
    is(join(' ', map { "$_:" . ($r->{headers}{"x-ratelimit-$level{$_}-limit-requests"} // '-') } sort keys %level), join(' ', map { "$_:1000" } sort keys %level), 'an answer tells those of all levels');
}
$g->policy(map { ($_ => {}, "$_~m~gpt-4o-mini" => {}) } grep { !/^key/ } keys %level);

# Anthropic's routes

for my $c ([limit => 0, 422, 'invalid_request_error'], [rpm => 0, 429, 'rate_limit_error'], [models => ['free'], 403, 'permission_error'], [blocked => $T, 401, 'auth_error']) {
    my ($what, $v, $status, $type) = @$c;
    my $key = $g->key($what => $v);
    $r = ask($key, '/v1/messages', model => 'claude-x');
    is($r->{status}, $status, "messages, $what: status");
    is($r->{json}{type}, 'error', "messages, $what: an error object of Anthropic");
    is($r->{json}{error}{type}, $type, "messages, $what: its type");
    ok(length $r->{json}{error}{message}, "messages, $what: its message");
    is($r->{json}{request_id}, $r->{headers}{'x-litellm-call-id'}, "messages, $what: request_id");
    ok(!exists ask($key, '/v1/messages', model => 'claude-x', at => '/v96')->{json}{type}, "messages, $what: LiteLLM's envelope before 1.101");
}

# answers

my $key = $g->key(limit => usd(5), rpm => 5, tpm => 100000, name => 'spender');
my $spent = 0;
for my $i (1 .. 3) {
    $r = ask($key, $chat, headers => ['x-mock-prompt-tokens', 10, 'x-mock-completion-tokens', 4]);
    is($r->{status}, 200, "answer $i");
    ok($r->{complete}, 'complete');
    $g->settled;
    my $cost = $g->state($key)->{used} - $spent;
    $spent += $cost;
    cmp_ok($cost, '>', 0, 'it cost something');
    is(sprintf('%.0f', $r->{headers}{'x-litellm-response-cost'} * 1e9), $cost, 'x-litellm-response-cost is what the books say');
    is(sprintf('%.0f', $r->{headers}{'x-litellm-key-spend'} * 1e9), $spent, 'x-litellm-key-spend includes this call');
    is($r->{headers}{'x-litellm-key-max-budget'}, '5.0', 'x-litellm-key-max-budget');
    is($r->{headers}{'x-litellm-model-group'}, 'gpt-4o-mini', 'x-litellm-model-group');
    is($r->{headers}{'x-ratelimit-api_key-remaining-requests'}, 5 - $i, 'remaining requests');
    is($r->{headers}{'x-ratelimit-api_key-limit-tokens'}, 100000, 'limit of tokens');
    cmp_ok($r->{headers}{'x-ratelimit-api_key-remaining-tokens'}, '<', 100000, 'remaining tokens');
}
my $stream = ask($key, $chat, stream => $T);
is($stream->{headers}{'x-litellm-response-cost'}, undef, 'a stream begins before its cost is known');
is(sprintf('%.0f', $stream->{headers}{'x-litellm-key-spend'} * 1e9), $spent, 'the spend before it is');
ok(!exists $stream->{headers}{trailer}, 'no trailers unasked');
$g->settled;
$spent = $g->state($key)->{used};
$stream = ask($key, $chat, stream => $T, headers => ['TE', 'trailers']);
like($stream->{headers}{trailer}, qr/x-litellm-response-cost/, 'trailers are announced to who asks');
$g->settled;
my $cost = $g->state($key)->{used} - $spent;
my ($told) = $stream->{raw} =~ /\r\n0\r\n(?:.*\r\n)*?x-litellm-response-cost: (\S+)\r\n/;
is(sprintf('%.0f', ($told // 0) * 1e9), $cost, 'and tell the cost of the stream');
$key = $g->key;
$r = ask($key, $chat, headers => ['x-mock-status', 500]);
ok(!exists $r->{headers}{'x-litellm-response-cost'} || $r->{headers}{'x-litellm-response-cost'} == 0, 'an error of the provider costs nothing');
ok(length $r->{headers}{'x-litellm-call-id'}, 'and has a call id');
for my $c (['', 500, 'x-mock-status', 500], ['', 429, 'x-mock-status', 429], ['/dead', 502]) {
    my ($at, $status, @h) = @$c;
    my $h = ask($g->key(limit => usd(2), rpm => 5, tpm => 9000), $chat, at => $at, headers => \@h)->{headers};
    is(join(' ', map { $_ // '-' } @{$h}{qw(x-litellm-version x-litellm-key-max-budget x-litellm-key-rpm-limit x-litellm-key-tpm-limit x-ratelimit-api_key-limit-requests x-ratelimit-api_key-remaining-requests)}),
        '1.104.0 2.0 5 9000 5 4', "$status of the provider: the version and the limits of the key");
}

# every level, to the request and to the token, from Redis and from a block

my $rich = $g->key;
$g->policy('key:' . token($rich) => { refs => [qw(team:r user:r member:r/u orgmember:r/u org:r global)], rpm => 1000, tpm => 1_000_000, par => 500, sub => [{ m => 'gpt-4o-mini', e => 'key:' . token($rich) . '~m~gpt-4o-mini' }] });
my %named = ('key:' . token($rich) => 'api_key', 'key:' . token($rich) . '~m~gpt-4o-mini' => 'model_per_key', 'team:r' => 'team', 'user:r' => 'user', 'member:r/u' => 'team_member', 'orgmember:r/u' => 'organization_member', 'org:r' => 'organization',
    'customer:r' => 'end_user', 'tag:r' => 'tag');
my %limit = map { $_ => [100 + length $_, 100_000 + length $_, 50 + length $_] } keys %named;
$limit{ 'key:' . token($rich) } = [1000, 1_000_000, 500];
$g->policy(map { $_ => { rpm => $limit{$_}[0], tpm => $limit{$_}[1], par => $limit{$_}[2], tpm_type => 'total' } } grep { $_ ne 'key:' . token($rich) } keys %named);
$g->settled;
my %before;
for my $n (0 .. 4) {
    $r = ask($rich, $chat, at => $n > 2 ? '/leased' : '', user => 'r', tags => ['r'], max_tokens => 10, headers => ['x-mock-prompt-tokens', 30, 'x-mock-completion-tokens', 7]);
    for my $ent (sort keys %named) {
        my ($h, $l) = ($r->{headers}, $limit{$ent});
        my %got = map { $_ => $h->{"x-ratelimit-$named{$ent}-$_"} } map { ("limit-$_", "remaining-$_") } qw(requests tokens max_parallel_requests);
        is(join(' ', @got{qw(limit-requests limit-tokens limit-max_parallel_requests)}), "@$l", "$named{$ent}: its limits");
        is($got{'remaining-requests'}, $l->[0] - $n - 1, "$named{$ent}: requests, after " . ($n + 1));
        is($got{'remaining-max_parallel_requests'}, $l->[2] - 1, "$named{$ent}: this one runs");
        # 37 tokens of each before, and what this one may be
        my $reserved = $l->[1] - $got{'remaining-tokens'} - 37 * $n;
        is($reserved, $before{reserved} //= $reserved, "$named{$ent}: tokens, after " . ($n + 1));
    }
    ok($g->settled, 'settles');
}
cmp_ok($before{reserved}, '>=', 12, "each reserves its estimate: $before{reserved}");
is(join(' ', @{ $r->{headers} }{qw(x-litellm-key-rpm-limit x-litellm-key-tpm-limit)}), '1000 1000000', 'the key\'s by their older names');
my @many = http_burst($g->{port}[0], [map { ['POST', "/leased$chat", ['Authorization', "Bearer $rich"], chat_body(user => 'r', tags => ['r'])] } 1 .. 40]);
is(scalar(grep { $_->{status} == 200 } @many), 40, 'many at once');
$r = http_call($g->{port}[0], 'POST', "/leased$chat", ['Authorization', "Bearer $rich"], chat_body(user => 'r', tags => ['r']));
my %left = map { $_->{headers}{'x-ratelimit-api_key-remaining-requests'} => 1 } @many;
is(join(',', sort { $b <=> $a } keys %left), join(',', reverse 1000 - 45 .. 1000 - 6), 'each sees a number of its own, to the last') or diag join ' ', %left;

# what is said of the call

for my $c (['', '1.104.0'], ['/v96', '1.96.0'], ['/v81', '1.81.0']) {
    is(ask($rich, $chat, at => $c->[0])->{headers}{'x-litellm-version'}, $c->[1], "$c->[0]: the version spoken");
}
$g->registry([@{ Keytoll::Test::default_models() }, { n => 'with-id', id => 'dep-1', p => 'openai', in => 0, out => 1000000 }]);
soon { my $id = ask($rich, $chat, model => 'with-id')->{headers}{'x-litellm-model-id'}; defined $id && $id eq 'dep-1' } 5, 'the deployment';
is(ask($rich, $chat)->{headers}{'x-litellm-model-id'}, 'gpt-4o-mini', 'its name where it has no other id');

# on every route the header's cost is the ledger's

my $payer = $g->key(limit => usd(100));
my %route = ('/v1/chat/completions' => { model => 'gpt-4o-mini', messages => [] }, '/v1/completions' => { model => 'gpt-4o-mini', prompt => 'hi' }, '/v1/embeddings' => { model => 'emb', input => 'hi' },
    '/v1/responses' => { model => 'gpt-4o-mini', input => 'hi' }, '/v1/messages' => { model => 'claude-x', max_tokens => 20, messages => [] },
    '/v1beta/models/gpt-4o-mini:generateContent' => { contents => [] }, '/openai/deployments/gpt-4o-mini/chat/completions' => { messages => [] },
    '/v1/moderations' => { model => 'free', input => 'x' }, '/v1/rerank' => { model => 'emb', query => 'q', documents => ['a'] }, '/score' => { model => 'emb', text_1 => 'a', text_2 => 'b' },
    '/v1/messages/count_tokens' => { model => 'claude-x', messages => [] });
for my $path (sort keys %route) {
    $r = http_call($g->{port}[0], 'POST', $path, ['Authorization', "Bearer $payer", 'x-mock-prompt-tokens', 1234, 'x-mock-completion-tokens', 9], $Keytoll::Test::JSON->encode($route{$path}));
    is($r->{status}, 200, $path) or diag $r->{raw};
    ok($g->settled, 'settles');
    my ($e) = grep { $_->{id} eq $r->{headers}{'x-keytoll-request-id'} } map { $_->[0] } $g->events;
    is(sprintf('%.0f', ($r->{headers}{'x-litellm-response-cost'} // -1) * 1e9), $e->{cost}, "$path: the cost of the header is that of the ledger");
}

# a provider that is a gate itself: of what we say, only our own word is heard

my $theirs = join ';', 'x-litellm-call-id=theirs', 'X-LiteLLM-Response-Cost=9', 'x-litellm-response-cost-original=9', 'x-litellm-key-spend=9', 'x-litellm-key-max-budget=9', 'x-litellm-key-rpm-limit=9',
    'x-litellm-key-remaining-requests-gpt=9', 'x-litellm-version=9', 'x-litellm-model-id=9', 'x-litellm-model-group=9', 'x-keytoll-reason=theirs', 'X-Keytoll-Anything=9', 'x-ratelimit-api_key-remaining-requests=9',
    'x-ratelimit-team-limit-tokens=9', 'x-ratelimit-model_per_key-limit-requests=9';
my $passed = 'x-ratelimit-remaining-requests=77; x-ratelimit-limit-tokens=78; x-litellm-attempted-retries=3; llm_provider-x=4; x-request-cost=5; x-ratelimit-team_of_theirs-limit-tokens=6';
for my $c (['an answer'], ['a stream', stream => $T], ['an error', status => 429], ['a refusal', status => 401], ['an answer in trailers', stream => $T, te => 1]) {
    my ($what, %o) = @$c;
    my $unlimited = $g->key(limit => usd(3));
    $r = ask($unlimited, $chat, $o{stream} ? (stream => $T) : (), headers => ['x-mock-header', $theirs, 'x-mock-header', $passed, $o{status} ? ('x-mock-status', $o{status}) : (), $o{te} ? ('TE', 'trailers') : ()]);
    my $h = $r->{headers};
    is($r->{status}, $o{status} // 200, "of a provider like us, $what");
    like($r->{raw}, qr/\r\nx-litellm-call-id: $h->{'x-keytoll-request-id'}\r\n/, 'our call id') and unlike($h->{'x-litellm-call-id'}, qr/theirs/, 'alone');
    is($h->{'x-litellm-version'}, '1.104.0', 'our version');
    is($h->{'x-litellm-model-group'} . ' ' . $h->{'x-litellm-model-id'}, 'gpt-4o-mini gpt-4o-mini', 'our names of the model');
    is($h->{'x-litellm-key-max-budget'}, '3.0', 'the budget of our key');
    unlike($h->{'x-litellm-key-spend'}, qr/9$/, 'what our key has spent');
    unlike($h->{'x-litellm-response-cost'} // '', qr/9/, 'our cost');
    my @left = grep { exists $h->{$_} } qw(x-litellm-response-cost-original x-litellm-key-rpm-limit x-litellm-key-remaining-requests-gpt x-keytoll-reason x-keytoll-anything x-ratelimit-api_key-remaining-requests x-ratelimit-team-limit-tokens
        x-ratelimit-model_per_key-limit-requests);
    is("@left", '', 'nothing of their key');
    is(join(' ', @{$h}{qw(x-ratelimit-remaining-requests x-ratelimit-limit-tokens x-litellm-attempted-retries llm_provider-x x-request-cost x-ratelimit-team_of_theirs-limit-tokens)}), '77 78 3 4 5 6', 'all else as it came');
    unlike($r->{raw} =~ s/^.*?\r\n\r\n//sr, qr/x-litellm-response-cost: 9/, 'none in the trailers') if $o{te};
}
my $open = http_call($g->{port}[0], 'POST', '/v1/batches', ['Authorization', 'Bearer ' . $g->key, 'x-mock-header', "$theirs;$passed"], '{}');
ok(!exists $open->{headers}{'x-litellm-model-group'} && !exists $open->{headers}{'x-litellm-key-max-budget'}, 'where we say nothing, theirs is not heard either');

# the reference names every header that we send

my ($section) = slurp("$Keytoll::Test::TOP/ngx_module/README.md") =~ /^## Response headers\n(.*?)^## /ms;
my %sent = map { $_ => 1 } map { slurp($_) =~ /_header\(r,\s*"([^"]+)"/g } glob "$Keytoll::Test::TOP/ngx_module/*.c";
cmp_ok(scalar(keys %sent), '>', 15, 'headers of the source');
is(join(' ', grep { $_ ne 'Trailer' && $section !~ /`\Q$_\E`/ } sort keys %sent), '', 'all are in the reference');
my %rated = map { $_ => 1 } slurp("$Keytoll::Test::TOP/ngx_module/ngx_http_keytoll_headers.c") =~ /_names\("[^"]+", "(\w+)"\)/g;
is(join(' ', grep { $section !~ /`$_`/ } sort keys %rated), '', 'all levels as well');

# answers in one piece, however they come

for my $how (['x-mock-byte-by-byte', 1], ['x-mock-chunk', 7], []) {
    $r = ask($key, $chat, headers => $how);
    is($r->{status}, 200, "in pieces (@$how)");
    ok($r->{complete} && $r->{json}{choices}, 'whole');
}

$g->finish;
