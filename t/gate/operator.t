# What the operator sees: variables that route and log, counters and gauges as
# JSON and for Prometheus.

use strict;
use warnings;
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep time);
use Keytoll::Prometheus qw(problems samples);
use Keytoll::Test;

my $T = JSON::PP::true;

# ---- the checker finds what it is for

my $good = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"1\"} 1\na_total{x=\"2\"} 2\n";
is_deeply([problems($good)], [], 'a good text');
for my $bad (
    ['no newline', sub { chop }, qr/newline/],
    ['a series twice', sub { s/x="2"/x="1"/ }, qr/twice/],
    ['a counter without _total', sub { s/a_total/a/g }, qr/_total/],
    ['no TYPE', sub { s/# TYPE.*\n// }, qr/no TYPE/],
    ['TYPE before HELP', sub { s/(# HELP.*\n)(# TYPE.*\n)/$2$1/ }, qr/without its HELP/],
    ['an unescaped quote', sub { s/"1"/"""/ }, qr/bad labels/],
    ['no value', sub { s/ 2$//m }, qr/no line/],
    ['another family inside', sub { s/^(a_total\S+ 1\n)/$1b 1\n/m }, qr/group of/],
    ['a family in two places', sub { $_ .= "# HELP b B.\n# TYPE b gauge\nb 1\n# HELP a_total A.\n" }, qr/twice|one group/],
    ['a TYPE without samples', sub { s/^a_total.*\n//mg }, qr/no sample/],
    ['a bucket that shrinks', sub { $_ = "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n" }, qr/less than/],
    ['no +Inf', sub { $_ = "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_sum 1\nh_count 2\n" }, qr/\+Inf/],
) {
    my ($name, $edit, $want) = @$bad;
    local $_ = $good;
    $edit->();
    like(join("\n", problems($_)), $want, "the checker finds $name");
}

# ---- two providers, the model decides

my $second = Keytoll::Test::free_port();
my $mock2 = Keytoll::Test::spawn('/dev/null', "$Keytoll::Test::BIN/keytoll-mock", '-l', "127.0.0.1:$second");
eventually { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $second) } 5 or die 'no second provider';

my @vars = slurp("$Keytoll::Test::TOP/ngx_module/ngx_http_keytoll_variables.c") =~ /ngx_string\("(keytoll_\w+)"\)/g;
my $format = join ' ', map { "$_=\\\"\$$_\\\"" } @vars;

my $g = Keytoll::Test->gate(
    workers => 2, timeout => '300ms',
    models => [@{ Keytoll::Test::default_models() }, { n => 'there', u => 'there-2', p => 'other', in => 150000, out => 600000, cr => 75000, maxo => 1000 }],
    http => "map \$keytoll_model \$pool { default mock; there 127.0.0.1:$second; } log_format op \"\$uri \$status $format\";",
    more => <<'END');
        access_log log/op.log op;
        location ~ ^/by-model(/.*)$ { proxy_pass http://$pool$1; }
        location /off/ { keytoll off; proxy_pass http://mock/; }
        location /allow/ { keytoll_redis_failure allow; proxy_pass http://mock/; }
END
my $log = "$g->{dir}/log/op.log";
my $lines = 0;

sub lines { return grep { !m{^/(status|metrics) } } split /\n/, slurp($log) }

# The variables of the request that has just ended.
sub last_line {
    eventually { (() = lines()) > $lines } 5;
    my @l = lines();
    is(scalar @l, ++$lines, 'one line a request');
    return { map { /^(\w+)="(.*)"$/ ? ($1, $2) : () } split / (?=keytoll_)/, $l[-1] };
}

sub models_of { my $port = shift; return map { json($_)->{model} } grep { /\S/ } split /\n/, http_get($port, '/__truth')->{body} }

my $key = $g->key(aliases => { fast => 'there', plain => 'gpt-4o-mini' });
for my $c (['gpt-4o-mini', 0], ['there', 1], ['fast', 1], ['plain', 0]) {
    my ($model, $at) = @$c;
    my @before = map { scalar(() = models_of($_)) } $g->{mock_port}, $second;
    my $r = $g->chat($key, path => '/by-model/v1/chat/completions', model => $model);
    is($r->{status}, 200, "$model passes") or diag $r->{raw};
    my @after = map { scalar(() = models_of($_)) } $g->{mock_port}, $second;
    is_deeply([map { $after[$_] - $before[$_] } 0, 1], [$at ? (0, 1) : (1, 0)], "$model goes to the provider of what it stands for");
    my $v = last_line();
    is($v->{keytoll_model}, $at ? 'there' : 'gpt-4o-mini', "$model: \$keytoll_model is the resolved one");
    is($v->{keytoll_upstream_model}, $at ? 'there-2' : 'gpt-4o-mini', "$model: \$keytoll_upstream_model is what the provider is asked for");
    is((models_of($at ? $second : $g->{mock_port}))[-1], $v->{keytoll_upstream_model}, "$model: and it was");
}

# ---- every variable, admitted

$g->policy('team:a%2Fb' => {}, 'org:o' => {}, 'user:u%20x' => {});
my $k2 = $g->key(name => 'my alias', refs => ['team:a%2Fb', 'org:o', 'user:u%20x', 'global']);
my $r = $g->chat($k2, stream => $T, max_tokens => 5, user => 'c 1', metadata => { tags => ['t1', 't2'] },
    headers => ['x-mock-prompt-tokens', 100, 'x-mock-cached-tokens', 40, 'x-mock-completion-tokens', 5, 'x-mock-delay-ms', 60]);
is($r->{status}, 200, 'a stream');
my $v = last_line();
my $ttft = delete $v->{keytoll_ttft_ms};
my $took = delete $v->{keytoll_redis_time};
like(delete $v->{keytoll_request_id}, qr/^[0-9a-f]{32}$/, 'request_id');
cmp_ok($ttft, '>=', 50, 'ttft_ms is what the provider took');
cmp_ok($ttft, '<', 20000, 'in milliseconds');
like($took, qr/^\d+\.\d{6}$/, 'redis_time, in seconds');
cmp_ok($took, '>', 0, 'something');
my $cost = 60 * 150 + 40 * 75 + 5 * 600;
is_deeply($v, {
    keytoll_verdict => 'admitted', keytoll_reason => '-', keytoll_entity => '-', keytoll_key_id => substr(token($k2), 0, 8), keytoll_key_alias => 'my alias',
    keytoll_user => 'u x', keytoll_team => 'a/b', keytoll_org => 'o', keytoll_customer => 'c 1', keytoll_tags => 't1,t2', keytoll_model => 'gpt-4o-mini',
    keytoll_upstream_model => 'gpt-4o-mini', keytoll_provider => 'openai', keytoll_route => 'chat', keytoll_stream => 1, keytoll_tokens_in => 100,
    keytoll_tokens_out => 5, keytoll_tokens_cache_read => 40, keytoll_tokens_cache_write => 0, keytoll_tokens_reasoning => 0, keytoll_cost => $cost,
    keytoll_cost_usd => '0.000015', keytoll_estimated => 0, keytoll_end => 'complete' }, 'all others');
ok($g->settled, 'settles');
is(($g->events)[-1][0]{cost}, $cost, 'the cost is the ledger\'s');

$g->chat($k2, headers => ['x-mock-usage', '{"prompt_tokens":9,"completion_tokens":20,"completion_tokens_details":{"reasoning_tokens":12}}']);
is(last_line()->{keytoll_tokens_reasoning}, 12, 'tokens_reasoning');
http_call($g->{port}[0], 'POST', '/v1/messages', ['x-api-key', $k2], '{"model":"claude-x","max_tokens":5,"messages":[]}');
$v = last_line();
is("$v->{keytoll_route} $v->{keytoll_provider} $v->{keytoll_end}", 'messages anthropic complete', 'another route');
$g->chat($k2, headers => ['x-mock-status', 500]);
$v = last_line();
is("$v->{keytoll_verdict} $v->{keytoll_end} $v->{keytoll_cost_usd}", 'admitted refused_upstream 0.0', 'a provider that fails');

# ---- refused

$g->policy('team:a%2Fb' => { limit => 0 });
$r = $g->chat($k2);
is($r->{status}, 422, 'no budget');
$v = last_line();
is("$v->{keytoll_verdict} $v->{keytoll_reason} $v->{keytoll_entity}", 'refused budget_exceeded team:a%2Fb', 'verdict, reason, entity');
is("$v->{keytoll_cost} $v->{keytoll_end} $v->{keytoll_ttft_ms} $v->{keytoll_model}", '0 - - gpt-4o-mini', 'it cost nothing');
like($v->{keytoll_redis_time}, qr/^\d/, 'Redis was asked');
soon { $g->chat($k2); last_line()->{keytoll_redis_time} eq '-' } 5, 'a refusal from the cache did not wait for Redis';
http_call($g->{port}[0], 'POST', '/v1/chat/completions', [], chat_body());
$v = last_line();
is("$v->{keytoll_verdict} $v->{keytoll_reason} $v->{keytoll_key_id} $v->{keytoll_entity}", 'refused key_missing - -', 'no key');
http_call($g->{port}[0], 'POST', '/off/v1/chat/completions', [], chat_body());
is_deeply([grep { $_ ne '-' } values %{ last_line() }], [], 'keytoll off: none is set');

# ---- counters

ok($g->settled, 'settles');
my $s = $g->status;
my $p = samples(http_get($g->{port}[0], '/metrics')->{body});
is_deeply([problems(http_get($g->{port}[0], '/metrics')->{body})], [], 'Prometheus can read it');
my $sum = 0;
$sum += $_ for values %{ $s->{routes} };
is($sum, $s->{requests_total}, 'requests are the sum over routes');
is($s->{routes}{messages}, 1, 'by route');
$sum = $s->{admitted_total};
$sum += $_ for values %{ $s->{refused} };
is($sum, $s->{requests_total}, 'and of the admitted and the refused');
is($p->{'keytoll_requests_total{route="messages"}'}, 1, 'requests by route');
is($p->{'keytoll_refused_total{reason="key_missing"}'}, 1, 'refusals by reason');
is($p->{"keytoll_$_"}, $s->{$_}, "$_ is the same in both") for grep { /_total$/ && !/^(requests|redis_calls|journal_bytes)_/ } sort keys %$s;
my $ledger = 0;
$ledger += $_->[0]{cost} for $g->events;
is($s->{cost_nusd_total}, $ledger, 'the cost is that of the ledger');
cmp_ok($s->{cache_hits_total}, '>=', 1, 'cache hits');
cmp_ok($s->{cache_stored_total}, '>=', 1, 'cache stored');

sub histogram_ok {
    my ($h, $name) = @_;
    my @n = @{ $h->{le} }{ sort { $a <=> $b } grep { /\d/ } keys %{ $h->{le} } };
    is_deeply(\@n, [sort { $a <=> $b } @n], "$name: buckets grow");
    is($h->{le}{inf}, $h->{count}, "$name: the last is the count");
}
histogram_ok($s->{redis_us}, 'redis_us');
cmp_ok($s->{redis_us}{count}, '>=', $s->{redis_calls_total} - 1, 'every command is in the histogram');
cmp_ok($s->{redis_us}{sum}, '>', 0, 'its sum');
is(scalar @{ $s->{workers} }, 2, 'both workers');
is_deeply([map { "$_->{redis} $_->{watch}" } @{ $s->{workers} }], [('ready live') x 2], 'connected and listening');
is_deeply([sort map { $_->{pid} } @{ $s->{workers} }], [sort $g->workers], 'by pid');
is(scalar(grep { /^keytoll_redis_up\{worker="\d+"\}$/ && $p->{$_} == 1 } keys %$p), 2, 'redis_up, by worker');
is(scalar(grep { /^keytoll_watch_live\{worker="\d+"\}$/ && $p->{$_} == 1 } keys %$p), 2, 'watch_live, by worker');

# what stands in the journal's folder is what the gauges say
sub journal_files { my @f = glob "$g->{dir}/journal/*.ktj"; my $n = 0; $n += -s $_ for @f; return (scalar(@f), $n) }
is_deeply([@{ $g->status }{qw(journal_segments journal_held_bytes)}], [journal_files()], 'segments and bytes of the journal');

# ---- slow Redis, then none

my $before = $g->status->{redis_us};
$g->{r}->call('CLIENT', 'PAUSE', 120, 'ALL');
$g->chat($key);
$lines++;
my $after = $g->status->{redis_us};
histogram_ok($after, 'after a pause');
cmp_ok($after->{count} - $before->{count}, '>', $after->{le}{50000} - $before->{le}{50000}, 'a slow answer is in a slow bucket');
cmp_ok($after->{sum} - $before->{sum}, '>', 50000, 'and in the sum');
ok($g->settled, 'settles');
is($g->status->{oldest_settlement_ms}, 0, 'no settlement waits');

my $slow = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $g->{port}[0]);
syswrite $slow, Keytoll::Test::request_text('POST', '/v1/chat/completions', ['Authorization', "Bearer $key", 'x-mock-delay-ms', 300], chat_body());
soon { $g->status->{active_requests} == 1 } 5, 'a request is upstream';
is(samples(http_get($g->{port}[0], '/metrics')->{body})->{keytoll_active_requests}, 1, 'in both');
is($g->status->{held_requests}, 1, 'and held');
is(samples(http_get($g->{port}[0], '/metrics')->{body})->{keytoll_held_requests}, 1, 'in both');
is(join(' ', map { $_->{breaker} } @{ $g->status->{workers} }), 'closed closed', 'no breaker is open');
kill 'STOP', $g->{redis_pid};
soon { $g->status->{pending_settlements} == 1 } 10, 'its settlement waits for Redis';
my $lag = $g->status->{oldest_settlement_ms};
soon { $g->status->{oldest_settlement_ms} >= $lag + 200 } 5, 'and grows older';
soon { grep { $_->{redis} ne 'ready' } @{ $g->status->{workers} } } 10, 'a connection without answers is given up';
$p = http_get($g->{port}[0], '/metrics')->{body};
is_deeply([problems($p)], [], 'Prometheus can read that');
cmp_ok(samples($p)->{keytoll_oldest_settlement_seconds}, '>', 0.2, 'the age in seconds');
is(samples($p)->{keytoll_pending_settlements}, 1, 'pending');
kill 'CONT', $g->{redis_pid};
soon { my $n = $g->status; !$n->{pending_settlements} && !$n->{oldest_settlement_ms} } 20, 'Redis is back: nothing waits';
soon { !grep { "$_->{redis} $_->{watch}" ne 'ready live' } @{ $g->status->{workers} } } 20, 'all workers are back';
soon { ($g->status->{refused}{redis_unavailable} // 0) == 0 } 1, 'nobody was refused meanwhile';
close $slow;
soon { (() = lines()) == $lines + 1 } 5, 'it ended';
$lines++;

$g->stop_redis;
soon { !grep { $_->{redis} eq 'ready' || $_->{watch} eq 'live' } @{ $g->status->{workers} } } 10, 'no Redis: every worker says so';
$p = samples(http_get($g->{port}[0], '/metrics')->{body});
is(join(' ', map { $p->{$_} } grep { /^keytoll_(redis_up|watch_live)/ } sort keys %$p), '0 0 0 0', 'in both');
is(join(' ', map { $p->{$_} } grep { /^keytoll_breaker_open/ } sort keys %$p), '1 1', 'the breakers are open');
is(join(' ', map { $_->{breaker} } @{ $g->status->{workers} }), 'open open', 'in both');
is($g->chat($key)->{status}, 503, 'denied');
$v = last_line();
is("$v->{keytoll_verdict} $v->{keytoll_reason}", 'refused redis_unavailable', 'with its reason');
is($g->chat($key, path => '/allow/v1/chat/completions')->{status}, 200, 'allowed where the operator says so');
$v = last_line();
is("$v->{keytoll_verdict} $v->{keytoll_reason} $v->{keytoll_redis_time}", 'unreserved - -', 'unreserved');
$s = $g->status;
is("$s->{unreserved_total} $s->{refused}{redis_unavailable}", '1 1', 'counted');

Keytoll::Test::reap($mock2, 'TERM');
$g->finish;
