# The reference is complete and true: the command table and ngx_module/README.md
# name the same directives, contexts, variables and metrics; every value of every
# directive makes a difference; inheritance and mistakes are as in nginx.

use strict;
use warnings;
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(time sleep);
use Keytoll::Prometheus qw(samples);
use Keytoll::Test;

my $T = JSON::PP::true;
my $TOP = $Keytoll::Test::TOP;
my $readme = slurp("$TOP/ngx_module/README.md");
my %flip;                       # directive => values that were tried

# ---- the table and the page

my %table;
my $source = slurp("$TOP/ngx_module/ngx_http_keytoll_module.c");
while ($source =~ /\{ ngx_string\("(keytoll\w*)"\),\s*([A-Z0-9_|\s]+),/g) {
    my ($name, $flags) = ($1, $2);
    my @context = map { $flags =~ /\bNGX_HTTP_$_->[0]_CONF\b/ ? $_->[1] : () } ['MAIN', 'http'], ['SRV', 'server'], ['LOC', 'location'];
    $table{$name} = { context => join(', ', @context), flag => $flags =~ /NGX_CONF_FLAG/ ? 1 : 0 };
}
cmp_ok(scalar keys %table, '>=', 11, 'the command table is read');
my %page;
while ($readme =~ /^### (\w+)\n\n```\nSyntax:  (.*)\nDefault: (.*)\nContext: (.*)\n```\n\n(\S.*)/mg) {
    $page{$1} = { syntax => $2, default => $3, context => $4 };
}
is_deeply([sort keys %page], [sort keys %table], 'the page has every directive and no other');
is_deeply([$readme =~ /^### (\w+)/mg], [sort keys %page], 'in order, each with Syntax, Default, Context and words');
for my $name (sort keys %table) {
    is($page{$name}{context}, $table{$name}{context}, "$name: its contexts");
    like($page{$name}{syntax}, qr/^\Q$name\E .*;$|^\Q$name\E \[.*\];$/, "$name: its syntax");
    is($page{$name}{syntax}, "$name on | off;", "$name: a flag") if $table{$name}{flag};
    like($page{$name}{default}, qr/^(\Q$name\E \S.*;|—)$/, "$name: its default");
    like($readme, qr/\[$name\]\(#$name\)/, "$name: in the contents");
}
my $variables = slurp("$TOP/ngx_module/ngx_http_keytoll_variables.c");
is_deeply([$readme =~ /^\| `\$(keytoll_\w+)` \|/mg], [$variables =~ /ngx_string\("(keytoll_\w+)"\)/g], 'every variable, in the order of the source');

# ---- one gate with a location for each value

my $g = Keytoll::Test->gate(timeout => '1s', more => <<'END');
        proxy_buffering off;
        location /off/    { keytoll off; proxy_pass http://mock/;
                            location /off/on/ { keytoll on; proxy_pass http://mock/; } }
        location /inner/  { location /inner/most/ { proxy_pass http://mock/; } }
        location /drain/  { keytoll_abort drain; proxy_ignore_client_abort on; proxy_pass http://mock/; }
        location /cancel/ { keytoll_abort cancel; proxy_ignore_client_abort off; proxy_pass http://mock/; }
        location /v96/    { keytoll_compat 1.96; proxy_pass http://mock/;
                            location /v96/in/ { proxy_pass http://mock/; } }
        location /v81/    { keytoll_compat 1.81; proxy_pass http://mock/; }
        location /v104/   { keytoll_compat 1.104; proxy_pass http://mock/; }
        location /own/    { keytoll_compat 1.96 budget_exceeded=418; proxy_pass http://mock/;
                            location /own/in/ { proxy_pass http://mock/; }
                            location /own/not/ { keytoll_compat 1.81; proxy_pass http://mock/; } }
        location /2k/     { keytoll_max_body 2k; proxy_pass http://mock/;
                            location /2k/in/ { proxy_pass http://mock/; }
                            location /2k/more/ { keytoll_max_body 4k; proxy_pass http://mock/; } }
        location /who/    { keytoll_user_header X-Who; proxy_pass http://mock/;
                            location /who/in/ { proxy_pass http://mock/; }
                            location /who/none/ { keytoll_user_header ""; proxy_pass http://mock/; } }
        location /ws/     { keytoll_websocket on; proxy_pass http://mock/;
                            location /ws/in/ { proxy_pass http://mock/; }
                            location /ws/off/ { keytoll_websocket off; proxy_pass http://mock/; } }
        location /deny/   { keytoll_redis_failure deny; proxy_pass http://mock/; }
        location /allow/  { keytoll_redis_failure allow; proxy_pass http://mock/;
                            location /allow/in/ { proxy_pass http://mock/; } }
        location /cached/ { keytoll_redis_failure cached; proxy_pass http://mock/; }
        location /lease/  { keytoll_lease on; proxy_pass http://mock/;
                            location /lease/in/ { proxy_pass http://mock/; }
                            location /lease/off/ { keytoll_lease off; proxy_pass http://mock/; } }
        location /clamp/  { keytoll_clamp_max_tokens on; proxy_pass http://mock/;
                            location /clamp/in/ { proxy_pass http://mock/; }
                            location /clamp/off/ { keytoll_clamp_max_tokens off; proxy_pass http://mock/; } }
        location /own/c/  { keytoll_client_credentials on; proxy_pass http://mock/;
                            location /own/c/off/ { keytoll_client_credentials off; proxy_pass http://mock/; } }
        location /paid/   { keytoll_free_models off; proxy_pass http://mock/; location /paid/in/ { proxy_pass http://mock/; } location /paid/on/ { keytoll_free_models on; proxy_pass http://mock/; } }
        location /must/   { keytoll_enforce_user on; keytoll_enforced_params seed; keytoll_reject_tags on; proxy_pass http://mock/;
                            location /must/not/ { keytoll_enforce_user off; keytoll_enforced_params off; keytoll_reject_tags off; proxy_pass http://mock/; } }
        location = /s     { keytoll off; keytoll_status; }
        location = /sj    { keytoll off; keytoll_status json; }
        location = /sp    { keytoll off; keytoll_status prometheus; }
        location = /gated { keytoll_status; }
END
my $key = $g->key;
my $chat = 'v1/chat/completions';
sub ask { my ($at, $k, @more) = @_; return $g->chat($k, path => "$at$chat", @more) }
sub nobody { my $at = shift; return http_call($g->{port}[0], 'POST', "$at$chat", [], chat_body()) }
sub tried { my ($name, $value) = @_; $flip{$name}{$value}++ }
sub outcome { my ($directive, $value, $got, $want, $what) = @_; tried($directive, $value); is($got, $want, "$directive $value: $what") }

outcome('keytoll', 'on', nobody('/')->{status}, 401, 'asks for a key');
outcome('keytoll', 'off', nobody('/off/')->{status}, 200, 'does not');
is(nobody('/inner/most/')->{status}, 401, 'keytoll: inherited');
is(nobody('/off/on/')->{status}, 401, 'keytoll: on below off');
is(http_get($g->{port}[0], '/gated')->{status}, 401, 'keytoll: the status needs a key where the gate is on');

sub leaves {
    my $at = shift;
    my $n = () = $g->events;
    my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $g->{port}[0]);
    syswrite $c, Keytoll::Test::request_text('POST', "$at$chat", ['Authorization', "Bearer $key", 'x-mock-event-delay-ms', 8], chat_body(stream => $T, max_tokens => 60));
    my $all = '';
    while ((() = $all =~ /data: /g) < 3) { sysread $c, $all, 4096, length $all or last }
    close $c;
    eventually { scalar(() = $g->events) > $n } 15;
    return ($g->events)[-1][0]{est};
}
outcome('keytoll_abort', 'drain', leaves('/drain/'), 0, 'reads on and charges exactly');
outcome('keytoll_abort', 'cancel', leaves('/cancel/'), 1, 'stops and estimates');

my $poor = $g->key(limit => 0);
my $old = $g->key(expires_ms => 1000);
my %status = ('1.104' => [422, 401], '1.96' => [429, 401], '1.81' => [400, 400]);
for my $v (sort keys %status) {
    my $at = '/v' . ($v =~ s/^1\.//r) . '/';
    outcome('keytoll_compat', $v, join(' ', map { ask($at, $_)->{status} } $poor, $old), "@{ $status{$v} }", 'its statuses');
    my $r = http_call($g->{port}[0], 'POST', "${at}v1/messages", ['x-api-key', $poor], '{"model":"claude-x","max_tokens":5,"messages":[]}');
    is($r->{json}{type} // 'none', $v eq '1.104' ? 'error' : 'none', "keytoll_compat $v: the error object of Anthropic");
}
is(ask('/', $poor)->{status}, 422, 'keytoll_compat: the newest by default');
is(ask('/v96/in/', $poor)->{status}, 429, 'keytoll_compat: inherited');
outcome('keytoll_compat', 'budget_exceeded=', ask('/own/', $poor)->{status}, 418, 'its own status');
is(ask('/own/in/', $poor)->{status}, 418, 'keytoll_compat: inherited with it');
is(ask('/own/not/', $poor)->{status}, 400, 'keytoll_compat: another one does not inherit it');

my $long = sub { [messages => [{ role => 'user', content => 'x' x shift }]] };
outcome('keytoll_max_body', '2k', ask('/2k/', $key, @{ $long->(3000) })->{status}, 413, 'refused');
outcome('keytoll_max_body', '4k', ask('/2k/more/', $key, @{ $long->(3000) })->{status}, 200, 'passes');
outcome('keytoll_max_body', '8m', ask('/', $key, @{ $long->(300_000) })->{status}, 200, 'by default');
is(ask('/2k/in/', $key, @{ $long->(3000) })->{status}, 413, 'keytoll_max_body: inherited');
is(ask('/', $key, @{ $long->(8 << 20) })->{status}, 413, 'keytoll_max_body: the default is a bound, too');

sub customer { my $at = shift; my $n = () = $g->events; ask($at, $key, headers => ['X-Who', 'me']); eventually { scalar(() = $g->events) > $n } 10; return ($g->events)[-1][0]{cust} // 'nobody' }
outcome('keytoll_user_header', 'X-Who', customer('/who/'), 'me', 'names the customer');
outcome('keytoll_user_header', '""', customer('/who/none/'), 'nobody', 'takes it back');
is(customer('/who/in/'), 'me', 'keytoll_user_header: inherited');
is(customer('/'), 'nobody', 'keytoll_user_header: none by default');

for my $c (['keytoll_client_credentials', '/own/c/', '/own/c/off/', 'on', 'off', api_base => 'x'], ['keytoll_enforce_user', '/must/not/', '/must/', 'off', 'on', seed => 1],
    ['keytoll_enforced_params', '/must/not/', '/must/', 'off', 'seed', user => 'u'], ['keytoll_reject_tags', '/must/not/', '/must/', 'off', 'on', seed => 1, user => 'u', tags => ['t']]) {
    my ($name, $yes, $no, $y, $n, @with) = @$c;
    outcome($name, $y, ask($yes, $key, @with)->{status}, 200, 'passes');
    isnt(ask($no, $key, @with)->{status}, 200, "$name $n: refused");
    tried($name, $n);
    is(ask('/', $key, @with)->{status}, $name eq 'keytoll_client_credentials' ? 401 : 200, "$name: off by default");
}
{
    my $poor = $g->key(limit => '0');
    outcome('keytoll_free_models', 'on', ask('/paid/on/', $poor, model => 'free')->{status}, 200, 'passes');
    outcome('keytoll_free_models', 'off', ask('/paid/', $poor, model => 'free')->{status}, 422, 'needs money');
    is(ask('/paid/in/', $poor, model => 'free')->{status}, 422, 'keytoll_free_models: inherited');
    is(ask('/', $poor, model => 'free')->{status}, 200, 'keytoll_free_models: on by default');
}
sub upgrade { return http_call($g->{port}[0], 'GET', "$_[0]v1/realtime", ['Authorization', "Bearer $key", 'Upgrade', 'websocket', 'Connection', 'Upgrade'])->{headers}{'x-keytoll-reason'} // 'passed' }
outcome('keytoll_websocket', 'on', upgrade('/ws/'), 'passed', 'to the provider');
outcome('keytoll_websocket', 'off', upgrade('/ws/off/'), 'route_denied', 'refused');
is(upgrade('/ws/in/'), 'passed', 'keytoll_websocket: inherited');
is(upgrade('/'), 'route_denied', 'keytoll_websocket: off by default');

# 1,000 nano-USD a token
sub clamped {
    my $r = ask(shift, $g->key(limit => 100_000, strict => $T), model => 'out-only', max_tokens => 4000);
    return $r->{headers}{'x-keytoll-max-tokens'} // $r->{headers}{'x-keytoll-reason'};
}
outcome('keytoll_clamp_max_tokens', 'on', clamped('/clamp/'), 100, 'as much as the budget can pay');
outcome('keytoll_clamp_max_tokens', 'off', clamped('/clamp/off/'), 'budget_exceeded', 'refused');
is(clamped('/clamp/in/'), 100, 'keytoll_clamp_max_tokens: inherited');
is(clamped('/'), 'budget_exceeded', 'keytoll_clamp_max_tokens: off by default');

# how many of a hot key's requests did not ask Redis
sub leased {
    my ($at, $rounds) = @_;
    my $before = $g->status->{leased_total};
    for (1 .. $rounds) {
        http_burst($g->{port}[0], [map { ['POST', "$at$chat", ['Authorization', "Bearer $key"], chat_body()] } 1 .. 40]);
        last if $g->status->{leased_total} > $before;
    }
    return $g->status->{leased_total} > $before ? 'some' : 'none';
}
outcome('keytoll_lease', 'on', leased('/lease/', 60), 'some', 'requests are admitted from blocks');
outcome('keytoll_lease', 'off', leased('/lease/off/', 4), 'none', 'each is asked of Redis');
is(leased('/lease/in/', 60), 'some', 'keytoll_lease: inherited');
is(leased('/', 4), 'none', 'keytoll_lease: off by default');

sub form { my $r = http_get($g->{port}[0], $_[0]); return $r->{json} ? 'json' : $r->{body} =~ /^# HELP keytoll_/ ? 'prometheus' : $r->{status} }
outcome('keytoll_status', '', form('/s'), 'json', 'as JSON');
outcome('keytoll_status', 'json', form('/sj'), 'json', 'as JSON');
outcome('keytoll_status', 'prometheus', form('/sp'), 'prometheus', 'for Prometheus');

# what it shows is on the page
my ($words) = $readme =~ /^## Status and metrics\n(.*?)^## /ms;
my %word = map { $_ => 1 } $words =~ /`(\w+)/g;
my $s = $g->status;
is_deeply([grep { !$word{$_} } sort keys %$s], [], 'every field of the JSON is on the page');
is_deeply([grep { !$word{$_} } sort keys %{ $s->{redis_us} }], [], 'those of redis_us, too');
is_deeply([grep { !$word{$_} } http_get($g->{port}[0], '/sp')->{body} =~ /^# TYPE keytoll_(\w+)/mg], [], 'every metric, too');

ok($g->settled, 'settles');
my $capped = $g->key(limit => usd(1));
is(ask('/', $_)->{status}, 200, 'seen here') for $key, $capped;
ok($g->settled, 'settles');
$g->stop_redis;
soon { $g->status->{workers}[0]{redis} ne 'ready' } 5, 'Redis is gone';
outcome('keytoll_redis_failure', 'deny', ask('/deny/', $key)->{status}, 503, 'refuses');
outcome('keytoll_redis_failure', 'allow', ask('/allow/', $capped)->{status}, 200, 'lets a key with limits pass');
outcome('keytoll_redis_failure', 'cached', join(' ', map { ask('/cached/', $_)->{status} } $key, $capped), '200 503', 'lets one without pass');
is(ask('/', $key)->{status}, 503, 'keytoll_redis_failure: deny by default');
is(ask('/allow/in/', $capped)->{status}, 200, 'keytoll_redis_failure: inherited');
$g->stop;

# ---- keytoll_redis: where, as whom, for how long

my $r = Keytoll::Test->gate(timeout => '150ms');
my $rk = $r->key;
sub variant {
    my ($addr, $timeout) = @_;
    @{ $r->{o} }{qw(redis_addr timeout)} = ($addr, $timeout);
    my $i = scalar @{ $r->{nginx} };
    $r->start_nginx($i);
    return $i;
}
is($r->chat($rk)->{status}, 200, 'keytoll_redis unix: it is there');
Keytoll::Test::spew("$r->{dir}/pass", "a secret\n");
Keytoll::Test::spew("$r->{dir}/wrong", "another\n");
$r->{r}->call('ACL', 'SETUSER', 'gate', 'on', '>a secret', 'allkeys', 'allchannels', '+@all');
$r->{r}->call('ACL', 'SETUSER', 'poor', 'on', '>a secret', 'allkeys', 'allchannels', '-@all', '+auth', '+info');
my $port = Keytoll::Test::free_port();
$r->{r}->call('CONFIG', 'SET', 'port', $port);
my $patient = variant("unix:$r->{sock}", '5s');
my $nowhere = variant("unix:$r->{dir}/nothing", '1s');
my $tcp = variant("127.0.0.1:$port", '1s');
my $gate = variant("unix:$r->{sock} user=gate password_file=$r->{dir}/pass", '1s');
my $bad = variant("unix:$r->{sock} user=gate password_file=$r->{dir}/wrong", '1s');
my $less = variant("unix:$r->{sock} user=poor password_file=$r->{dir}/pass", '1s');
outcome('keytoll_redis', 'unix:', $r->chat($rk, nginx => $nowhere)->{status}, 503, 'another path, another Redis');
outcome('keytoll_redis', 'host:port', $r->chat($rk, nginx => $tcp)->{status}, 200, 'over TCP');
outcome('keytoll_redis', 'password_file=', join(' ', map { $r->chat($rk, nginx => $_)->{status} } $gate, $bad), '200 503', 'the right and the wrong one');
outcome('keytoll_redis', 'user=', $r->chat($rk, nginx => $less)->{status}, 503, 'one who may not');
$r->{r}->call('CLIENT', 'PAUSE', 600, 'ALL');
my $began = time;
my @r = http_burst([@{ $r->{port} }[0, $patient]], [map { ['POST', "/$chat", ['Authorization', "Bearer $rk"], chat_body()] } 0, 1]);
outcome('keytoll_redis', 'timeout=', "$r[0]{status} $r[1]{status}", '503 200', 'one gives up, one waits');
cmp_ok(time - $began, '>=', 0.4, 'as long as it takes');
ok($r->settled, 'settles');
$r->stop;

# ---- keytoll_journal

my $off = Keytoll::Test->gate(journal => 'off');
my $on = Keytoll::Test->gate;
for ($off, $on) { is($_->chat($_->key)->{status}, 200, 'a request'); ok($_->settled, 'settles') }
outcome('keytoll_journal', 'path', $on->status->{journal_bytes_total} > 0 && scalar(glob "$on->{dir}/journal/*.ktj") ? 'written' : 'empty', 'written', 'what went upstream is on disk');
outcome('keytoll_journal', 'off', $off->status->{journal_bytes_total} . ' ' . scalar(() = glob "$off->{dir}/journal/*"), '0 0', 'nothing is');

# ---- keytoll_zone: what fits

sub forgets {
    my ($g, $size) = @_;
    my @keys = map { sprintf 'sk-nobody-%06d-%s', $_, 'x' x 12 } 1 .. 600;
    my $conf = $g->nginx_conf(0) =~ s/keytoll_zone kt:\S+;/keytoll_zone kt:$size;/r;
    $g->stop_nginx(0);
    no warnings 'redefine';
    local *Keytoll::Test::nginx_conf = sub { $conf };
    $g->start_nginx(0);
    soon { $g->status->{workers}[0]{watch} eq 'live' } 10, 'it hears of changes';
    for my $round (0, 1) {
        my $before = $g->status->{cache_hits_total};
        for my $part (0 .. 5) { http_burst($g->{port}[0], [map { ['POST', "/$chat", ['Authorization', "Bearer $_"], chat_body()] } @keys[$part * 100 .. $part * 100 + 99]]) }
        return 600 - ($g->status->{cache_hits_total} - $before) if $round;
    }
}
my %forgotten = map { $_ => forgets($on, $_) } '256k', '4m';
cmp_ok($forgotten{'256k'}, '>', 100, "keytoll_zone 256k: too small for 600 unknown keys, $forgotten{'256k'} are asked for again");
cmp_ok($forgotten{'4m'}, '<', 20, "keytoll_zone 4m: $forgotten{'4m'} are");
tried('keytoll_zone', 'name:size');
$_->stop for $off;

is_deeply([sort keys %flip], [sort keys %table], 'every directive was flipped');
for my $name (sort keys %page) {
    my ($args) = $page{$name}{syntax} =~ /^\S+ (.*);$/;
    my @values = ($args =~ /(\w+=)/g, grep { !/=|^(path|name|size|address)\b/ } map { /^\[?([\w.]+)/ } split / \| /, $args);
    is_deeply([grep { !$flip{$name}{$_} } @values], [], "$name: " . (join(', ', @values) || 'what it names'));
}

# ---- mistakes

my $conf = $on->nginx_conf(0);
my @values = ([keytoll => 'maybe'], [keytoll_abort => 'never'], [keytoll_compat => '2.0'], [keytoll_compat => '1.96 budget_exceeded=500'], [keytoll_compat => '1.96 budget=400'],
    [keytoll_max_body => 'x'], [keytoll_max_body => '0'], [keytoll_redis_failure => 'open'], [keytoll_user_header => '"X Who"'], [keytoll_user_header => 'X:'], [keytoll_websocket => 'yes'], [keytoll_lease => '1'], [keytoll_clamp_max_tokens => '5'], [keytoll_client_credentials => 'yes'], [keytoll_enforce_user => '1'], [keytoll_reject_tags => 'no'], [keytoll_free_models => 'maybe'], [keytoll_enforced_params => 'a.b.c'], [keytoll_enforced_params => '.a'], [keytoll_enforced_params => '""'], [keytoll_status => 'xml']);
for (@values) {
    my ($name, $value) = @$_;
    (my $c = $conf) =~ s/location \/ \{/location \/bad { $name $value; }\n location \/ {/;
    my ($code, $out) = $on->config_test($c);
    isnt($code, 0, "$name $value is refused");
    like($out, qr/\[emerg\].*"$name" directive|\[emerg\].*invalid.*"$name"/, "$name $value: by name");
}
for ([keytoll_redis => 'unix:'], [keytoll_redis => "unix:$on->{sock} timeout=2h"], [keytoll_redis => "unix:$on->{sock} user="], [keytoll_redis => "unix:$on->{sock} password_file=/nonexistent"],
    [keytoll_zone => 'kt:many'], [keytoll_zone => 'kt:64k'], [keytoll_zone => ':1m'], [keytoll_journal => '""'], [keytoll_journal => '/' . 'x' x 4000])
{
    my ($name, $value) = @$_;
    (my $c = $conf) =~ s/$name [^;]*;/$name $value;/;
    my ($code, $out) = $on->config_test($c);
    isnt($code, 0, substr("$name $value", 0, 60) . ' is refused');
    like($out, qr/\[emerg\].*"$name"/, "$name: by name");
}
my %good = (keytoll => 'on', keytoll_clamp_max_tokens => 'on', keytoll_client_credentials => 'on', keytoll_enforce_user => 'on', keytoll_reject_tags => 'on', keytoll_enforced_params => 'a b.c', keytoll_free_models => 'on', keytoll_abort => 'drain', keytoll_compat => '1.96', keytoll_max_body => '8m', keytoll_redis_failure => 'deny', keytoll_user_header => 'X-Who',
    keytoll_websocket => 'on', keytoll_lease => 'on', keytoll_status => '', keytoll_redis => 'unix:/x', keytoll_zone => 'kt:1m', keytoll_journal => 'off');
is_deeply([sort keys %good], [sort keys %table], 'duplicates of every directive');
for my $name (sort keys %good) {
    my $main = $table{$name}{context} eq 'http';
    my $two = "$name $good{$name}; $name $good{$name};";
    my $c = $conf;
    $main ? $c =~ s/$name [^;]*;/$two/ : $c =~ s/location \/ \{/location \/bad { $two }\n location \/ {/;
    my ($code, $out) = $on->config_test($c);
    isnt($code, 0, "$name twice is refused");
    like($out, qr/\[emerg\] "$name" directive is duplicate/, "$name twice: by name");
    for my $where ('http', 'server', 'location') {
        next if $table{$name}{context} =~ /\b$where\b/;
        my $bad = $conf;
        $where eq 'http' ? $bad =~ s/(log_format gate)/$name $good{$name}; $1/
            : $where eq 'server' ? $bad =~ s/(keytoll on;)/$1 $name $good{$name};/ : $bad =~ s/location \/ \{/location \/bad { $name $good{$name}; }\n location \/ {/;
        ($code, $out) = $on->config_test($bad);
        like($out, qr/"$name" directive is not allowed here/, "$name does not belong in $where");
    }
}
(my $alone = $conf) =~ s/keytoll_zone [^;]*;|keytoll on;//g;
like(($on->config_test($alone))[1], qr/\[emerg\] "keytoll_status" needs a "keytoll_zone"/, 'the status needs a zone');

$on->finish;
