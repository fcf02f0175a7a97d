# The figures of DESIGN 11, as ratios of interleaved pairs on this machine:
# nginx with the gate against the same stock nginx without the module, and the
# Lua script that a user would write instead.
#
#   make bench              everything, prints one table
#   make bench BENCH=quick  fewer and shorter rounds
#   make bench BENCH="streams refusals"   only these: throughput latency refusals flood streams many memory
#
# "tiny" is for t/bench/short.t: small enough for every run of the suite.

use strict;
use warnings;
use Digest::MD5 qw(md5_hex);
use IO::Socket::INET;
use Time::HiRes qw(time sleep);
use Test::More ();
use Keytoll::Test;
use Keytoll::Flood;
use Keytoll::Streams;

my $tiny = grep { $_ eq 'tiny' } @ARGV;
my $quick = $tiny || grep { $_ eq 'quick' } @ARGV;
my %only = map { $_ => 1 } grep { !/^(quick|tiny)$/ } @ARGV;
sub wanted { return !%only || $only{ $_[0] } }
my ($rounds, $seconds) = $tiny ? (1, 1) : $quick ? (3, 1) : (7, 3);
$ENV{KEYTOLL_LOG} //= 'warn';                   # as the other nginx
my $dir_of_bench = "$Keytoll::Test::TOP/t/bench";

my $gate = Keytoll::Test->gate(timeout => '2s', connections => 8192, more => 'proxy_buffering off; access_log off; location /leased/ { keytoll_lease on; proxy_pass http://mock/; }', models => [{ n => 'gpt-4o-mini', p => 'openai', in => 150000, out => 600000, maxo => 16384 }]);
my $dir = $gate->{dir};
my $mock = $gate->{mock_port};

# a key with limits on all six levels, strict
my $levels = 'team:t org:o user:u member:t/u';
my $key = $gate->key(strict => JSON::PP::true, limit => '9000000000000000', rpm => 2e9, tpm => 4e9, par => 10000, refs => [(split ' ', $levels), 'global']);
$gate->policy(map { ($_ => { strict => JSON::PP::true, limit => '9000000000000000', rpm => 2e9, tpm => 4e9 }) } split(' ', $levels), 'global');
my $simple = $gate->key(strict => JSON::PP::true, limit => '9000000000000000');
my $spent = $gate->key(rpm => 0);

# ------------------------------------------------------- the other two nginx

sub other {
    my ($name, $load, $http, $location) = @_;
    my $port = Keytoll::Test::free_port();
    my $user = $> == 0 ? 'user root;' : '';
    open my $h, '>', "$dir/$name.conf" or die $!;
    print $h <<"END";
$load
$user
daemon off;
worker_processes 1;
pid $dir/$name.pid;
error_log $dir/log/$name.log warn;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path $dir/tmp/$name; proxy_temp_path $dir/tmp/p$name; fastcgi_temp_path $dir/tmp/f$name;
    uwsgi_temp_path $dir/tmp/u$name; scgi_temp_path $dir/tmp/s$name;
    client_body_buffer_size 256k;
    keepalive_requests 1000000;
    upstream mock { server 127.0.0.1:$mock; keepalive 128; }
    $http
    server {
        listen 127.0.0.1:$port backlog=4096;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_buffering off;
        location / { $location proxy_pass http://mock; }
    }
}
END
    close $h;
    my $pid = Keytoll::Test::spawn("$dir/log/$name.out", '/usr/sbin/nginx', '-e', "$dir/log/$name.log", '-p', $dir, '-c', "$dir/$name.conf");
    Keytoll::Test::eventually(sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) }, 5)
        or die "$name nginx did not start: " . slurp("$dir/log/$name.log") . slurp("$dir/log/$name.out");
    return { name => $name, pid => $pid, port => $port };
}

my $bare = other('bare', '', '', '');
my $lua;
my ($lua_so) = grep { -e } '/usr/lib/nginx/modules/ngx_http_lua_module.so';
if ($lua_so) {
    (my $http = slurp("$dir_of_bench/lua.conf")) =~ s/\@REDIS\@/$gate->{sock}/;
    my $load = join "\n", map { "load_module $_;" } grep { -e } '/usr/lib/nginx/modules/ndk_http_module.so', $lua_so;
    $lua = other('lua', $load, $http, <<'END');
            lua_need_request_body on;
            access_by_lua_block {
                local auth = ngx.var.http_authorization
                if not auth then return ngx.exit(401) end
                ngx.ctx.key = "lua:" .. ngx.md5(auth:sub(8))
                local body = cjson.decode(ngx.req.get_body_data() or "")
                if not body or not body.model then return ngx.exit(400) end
                ngx.ctx.need = #ngx.req.get_body_data() * 150 + (body.max_tokens or 16384) * 600
                local res = call(ADMIT, 1, ngx.ctx.key, ngx.ctx.need)
                if not res or res[1] ~= 200 then return ngx.exit(res and res[1] or 503) end
            }
            body_filter_by_lua_block {
                ngx.ctx.buf = (ngx.ctx.buf or "") .. (ngx.arg[1] or "")
                if ngx.arg[2] then
                    local j = cjson.decode(ngx.ctx.buf)
                    local u = j and j.usage or {}
                    ngx.ctx.cost = (u.prompt_tokens or 0) * 150 + (u.completion_tokens or 0) * 600
                end
            }
            log_by_lua_block {
                local key, need, cost = ngx.ctx.key, ngx.ctx.need, ngx.ctx.cost or 0
                if need then ngx.timer.at(0, function() call(SETTLE, 2, key, "lua:s", need, cost) end) end
            }
END
    $gate->{r}->call('HSET', 'lua:' . md5_hex($key), 'blocked', 0, 'budget', '9000000000000000', 'used', 0, 'held', 0, 'rpm', 2000000000);
}

my $gated = { name => 'gate', pid => $gate->{nginx}[0], port => $gate->{port}[0] };

# -------------------------------------------------------------- measuring

open my $w, '>', "$dir/post.lua" or die $!;
print $w <<'END';
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_KEY")
wrk.body = '{"model":"gpt-4o-mini","max_tokens":16,"messages":[{"role":"user","content":"' .. string.rep("lorem ipsum ", 80) .. '"}]}'
done = function(summary, latency)
    print(string.format("R %d %d %f %f %f %d", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
        summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout))
end
END
close $w;

sub children {
    my $pid = shift;
    return map { my $s = slurp($_); $s =~ /^(\d+) \(.*\) \S (\d+) / && $2 == $pid ? $1 : () } glob '/proc/[0-9]*/stat';
}

sub cpu_us { # of a process, all threads, microseconds
    my $us = 0;
    for my $pid (@_) { $us += (split ' ', slurp($_))[0] / 1000 for glob "/proc/$pid/task/*/schedstat" }
    return $us;
}

sub load_of {
    my ($n, $c, $s, $k, $path) = @_;
    $path //= '/v1/chat/completions';
    local $ENV{BENCH_KEY} = $k // $key;
    my @workers = children($n->{pid});
    my ($n0, $r0) = (cpu_us(@workers), cpu_us($gate->{redis_pid}));
    my $out = `wrk -t1 -c$c -d${s}s -s $dir/post.lua http://127.0.0.1:$n->{port}$path`;
    my ($req, $us, $p50, $p99, $p999, $bad) = $out =~ /^R (\d+) (\d+) ([\d.]+) ([\d.]+) ([\d.]+) (\d+)/m or die $out;
    die "$n->{name}: $out" . slurp("$dir/log/$n->{name}.log") unless $req;
    my ($n1, $r1) = (cpu_us(@workers), cpu_us($gate->{redis_pid}));
    $gate->{r}->call('DEL', 'kt:{0000}:s', 'lua:s');
    return { rps => $req / $us * 1e6, p50 => $p50, p99 => $p99, p999 => $p999, bad => $bad, req => $req, nginx => ($n1 - $n0) / $req, redis => ($r1 - $r0) / $req };
}

sub median { my @s = sort { $a <=> $b } @_; return @s % 2 ? $s[$#s / 2] : ($s[$#s / 2] + $s[$#s / 2 + 1]) / 2 }

# rounds of all variants in turn: { name => [result...] }
sub rounds {
    my ($c, $s, @variants) = @_;
    my %r;
    load_of($_->[0], $c, 1, $_->[1], $_->[3]) for @variants;
    for (1 .. $rounds) {
        for my $v (@variants) {
            push @{ $r{ $v->[2] } }, load_of($v->[0], $c, $s, $v->[1], $v->[3]);
        }
    }
    return \%r;
}

sub paired { # median over rounds of f(a, b)
    my ($r, $a, $b, $f) = @_;
    return median(map { $f->($r->{$a}[$_], $r->{$b}[$_]) } 0 .. $#{ $r->{$a} });
}

my @rows;
sub row { push @rows, [@_]; printf STDERR "  %-58s %-22s %s\n", @_ }

# ------------------------------------------------------------- throughput

my @variants = ([$bare, $key, 'bare'], [$gated, $key, 'six'], [$gated, $simple, 'one'], [$gated, $key, 'leased', '/leased/v1/chat/completions'], $lua ? [$lua, $key, 'lua'] : ());
if (wanted('throughput')) {
print STDERR "throughput, c=64\n";
my $t = rounds(64, $seconds, @variants);
die 'the gate refused requests in the bench' if grep { $_->{bad} } @{ $t->{six} };
row('bare proxy_pass, requests/s, 1 worker, c=64', sprintf('%.0f', median(map { $_->{rps} } @{ $t->{bare} })), '');
row('strict, six levels: throughput kept', sprintf('%.2f', paired($t, 'six', 'bare', sub { $_[0]{rps} / $_[1]{rps} })), '>= 0.70');
row('strict, six levels, leases: throughput kept', sprintf('%.2f', paired($t, 'leased', 'bare', sub { $_[0]{rps} / $_[1]{rps} })), '>= 0.90');
row('strict, one level: throughput kept', sprintf('%.2f', paired($t, 'one', 'bare', sub { $_[0]{rps} / $_[1]{rps} })), '');
row('Lua equivalent (one level): throughput kept', sprintf('%.2f', paired($t, 'lua', 'bare', sub { $_[0]{rps} / $_[1]{rps} })), '') if $lua;
row('nginx CPU per request over bare, six levels, us', sprintf('%.1f', paired($t, 'six', 'bare', sub { $_[0]{nginx} - $_[1]{nginx} })), '<= 8');
row('Redis CPU per request, six levels, us', sprintf('%.1f', median(map { $_->{redis} } @{ $t->{six} })), '<= 15');
row('nginx CPU per request over bare, six levels, leases, us', sprintf('%.1f', paired($t, 'leased', 'bare', sub { $_[0]{nginx} - $_[1]{nginx} })), '<= 8');
row('Redis CPU per request, six levels, leases, us', sprintf('%.1f', median(map { $_->{redis} } @{ $t->{leased} })), '<= 15');
row('nginx CPU per request over bare, one level, us', sprintf('%.1f', paired($t, 'one', 'bare', sub { $_[0]{nginx} - $_[1]{nginx} })), '<= 8');
row('Redis CPU per request, one level, us', sprintf('%.1f', median(map { $_->{redis} } @{ $t->{one} })), '<= 15');
if ($lua) {
    row('Lua equivalent: nginx CPU per request over bare, us', sprintf('%.1f', paired($t, 'lua', 'bare', sub { $_[0]{nginx} - $_[1]{nginx} })), '');
    row('Lua equivalent: Redis CPU per request, us', sprintf('%.1f', median(map { $_->{redis} } @{ $t->{lua} })), '');
}

}

if (wanted('latency')) {
print STDERR "latency, c=1\n";
my $l = rounds(1, $seconds, @variants);
row('bare proxy_pass, p50, us, c=1', sprintf('%.0f', median(map { $_->{p50} } @{ $l->{bare} })), '');
row('strict, six levels: added p50, us', sprintf('%.0f', paired($l, 'six', 'bare', sub { $_[0]{p50} - $_[1]{p50} })), '<= 40');
row('strict, six levels, leases: added p50, us', sprintf('%.0f', paired($l, 'leased', 'bare', sub { $_[0]{p50} - $_[1]{p50} })), '<= 40');
row('strict, six levels, leases: added p99, us', sprintf('%.0f', paired($l, 'leased', 'bare', sub { $_[0]{p99} - $_[1]{p99} })), '<= 100');
row('strict, six levels: added p99, us', sprintf('%.0f', paired($l, 'six', 'bare', sub { $_[0]{p99} - $_[1]{p99} })), '<= 100');

# what any question to Redis costs here, before it is a question of ours
my ($ping) = grep { /^"PING_INLINE"|^"PING/ } split /\n/, qx(redis-benchmark -s "$gate->{sock}" -c 1 -n 50000 --csv -t ping_mbulk);
if ($ping) {
    my (undef, undef, undef, undef, $p50, undef, $p99) = map { s/"//gr } split /,/, $ping;
    row('a PING of Redis on that socket, p50, us', sprintf('%.0f', 1000 * $p50), '');
    row('a PING of Redis on that socket, p99, us', sprintf('%.0f', 1000 * $p99), '');
}
if ($lua) {
    row('Lua equivalent: added p50, us', sprintf('%.0f', paired($l, 'lua', 'bare', sub { $_[0]{p50} - $_[1]{p50} })), '');
    row('Lua equivalent: added p99, us', sprintf('%.0f', paired($l, 'lua', 'bare', sub { $_[0]{p99} - $_[1]{p99} })), '');
}

}

# -------------------------------------------------------------- refusals

sub refusals {
    my $k = shift;
    my @workers = children($gate->{nginx}[0]);
    my @r = map { load_of($gated, 64, $seconds, $k) } 1 .. 3;
    return median(map { $_->{rps} } @r);
}
if (wanted('refusals')) {
print STDERR "refusals\n";
load_of($gated, 1, 1, $spent);                  # it is asked about once
my $calls = $gate->{r}->functions;          # a worker also asks for the watermark once a second
row('refusals/s: wrong checksum, no Redis call', sprintf('%.0f', refusals('sk-kt10000' . 'a' x 49)), '>= 60000');
row('refusals/s: limit reached, from shared memory', sprintf('%.0f', refusals($spent)), '>= 60000');
row('Redis calls of all these', $gate->{r}->functions - $calls, '0');


}

# ----------------------------------------------------------------- flood
#
# One client, and keys that nobody made at 4,000 a second.  The generator takes
# its share of the machine, so the same flood is also sent to another nginx,
# which answers 401 by itself: the difference is what the gate adds.

if (wanted('flood')) {
print STDERR "flood of random keys\n";
my $rate = 4000;
my $deaf = other('deaf', '', '', q(default_type application/json; return 401 '{"error":{"type":"auth_error"}}';));
my %to = (quiet => undef, elsewhere => $deaf->{port}, here => $gated->{port});
my (%f, %n);
load_of($gated, 1, 1, $simple);
for (1 .. $rounds * $seconds) {                 # many and short: a p99 of one client swings
    for my $where (qw(quiet elsewhere here)) {
        my $flood = $to{$where} && Keytoll::Flood->start(port => $to{$where}, rate => $rate);
        push @{ $f{$where} }, load_of($gated, 1, 1, $simple);
        next unless $flood;
        my $n = $flood->stop;
        push @{ $n{$where} }, ($n->{401} // 0) / $n->{seconds};
        die 'flood: not all were 401: ' . join ' ', %$n if grep { !/^(401|seconds)$/ } keys %$n;
    }
}
die 'flood: a client was refused' if grep { $_->{bad} } map { @$_ } values %f;
row('flood: unknown keys refused, 1/s', sprintf('%.0f', median(@{ $n{here} })), '');
row("flood: a client's p99 without it, us, c=1", sprintf('%.0f', median(map { $_->{p99} } @{ $f{quiet} })), '');
row('flood: p50 over that without it', sprintf('%.2f', paired(\%f, 'here', 'quiet', sub { $_[0]{p50} / $_[1]{p50} })), '');
row('flood: p99 over that without it', sprintf('%.2f', paired(\%f, 'here', 'quiet', sub { $_[0]{p99} / $_[1]{p99} })), '<= 1.3');
row('flood: p99 over that with the same flood elsewhere', sprintf('%.2f', paired(\%f, 'here', 'elsewhere', sub { $_[0]{p99} / $_[1]{p99} })), '<= 1.3');
Keytoll::Test::reap($deaf->{pid}, 'QUIT');
}

# -------------------------------------------------------------- streaming

sub stream { # (first byte us, whole us) of one stream of n events
    my ($n, $events) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $n->{port}) or die $!;
    my $req = Keytoll::Test::request_text('POST', '/v1/chat/completions', ['Authorization', "Bearer $key", 'Connection', 'close'], chat_body(stream => JSON::PP::true, max_tokens => $events));
    my $t0 = time;
    syswrite $s, $req;
    my ($first, $all, $buf) = (0, '');
    while (sysread $s, $buf, 65536) {
        $first ||= time;
        $all .= $buf;
    }
    die 'a stream was cut' unless $all =~ /\[DONE\]/;
    return (($first - $t0) * 1e6, (time - $t0) * 1e6);
}
if (wanted('streams')) {
print STDERR "streams\n";
my (@first, @event, %first);
for (1 .. ($quick ? 100 : 300)) {
    my ($b1, $b2, $g1, $g2);
    if ($_ % 2) { ($b1, $b2) = stream($bare, 1000); ($g1, $g2) = stream($gated, 1000) }
    else { ($g1, $g2) = stream($gated, 1000); ($b1, $b2) = stream($bare, 1000) }
    push @first, $g1 - $b1;
    push @{ $first{bare} }, $b1;
    push @{ $first{gate} }, $g1;
    push @event, ($g2 - $b2 - ($g1 - $b1)) / 1000;
}
@first = sort { $a <=> $b } @first;
@event = sort { $a <=> $b } @event;
row('streams: added first byte, p50, us', sprintf('%.0f', median(@first)), '');
my ($p99, $p99_bare) = map { my @s = sort { $a <=> $b } @{ $first{$_} }; $s[int(0.99 * $#s)] } qw(gate bare);
row('streams: first byte, bare, p99, us', sprintf('%.0f', $p99_bare), '');
row('streams: added first byte, p99, us', sprintf('%.0f', $p99 - $p99_bare), '<= 150');
row('streams: added per event, p50, us', sprintf('%.2f', median(@event)), '');
row('streams: added per event, p99, us', sprintf('%.2f', $event[int(0.99 * $#event)]), '<= 20');

}

# ------------------------------------------------------------- many streams

sub rss_kb { return (slurp("/proc/$_[0]/status") =~ /^VmRSS:\s+(\d+)/m)[0] }

if (wanted('many')) {
my ($streams, $events) = $tiny ? (200, 20) : (2000, 50);
print STDERR "$streams streams at once\n";
my ($worker) = children($gate->{nginx}[0]);
my %run = (port => $gated->{port}, key => $key, streams => $streams, events => $events, delay => $tiny ? 50 : 200);
my $idle = rss_kb($worker);
my $s = Keytoll::Streams->start(%run);
my ($open, $most) = (0, 0);
Keytoll::Test::eventually(sub {
    my $n = $gate->status->{active_requests};
    ($open, $most) = ($n, rss_kb($worker)) if $n > $open;
    $n >= $streams;
}, 60);
my $n = $s->stop;
my $alone = Keytoll::Streams->start(%run, streams => 1, clients => 1, delay => 0)->stop;
row("streams at once", $open, $streams);
row('streams at once: cut', $n->{cut}, '0');
row('streams at once: events lost, merged or reordered, streams', $n->{wrong} + ($n->{shape} ne $alone->{shape}), '0');
row('worker memory, MB', sprintf('%.1f', $idle / 1024), '<= 16');
row('worker memory per open stream, KB', sprintf('%.1f', ($most - $idle) / $open), '<= 40');
}

# ------------------------------------------------------------ Redis, at rest

if (wanted('memory')) {
my $keys = $tiny ? 20_000 : $quick ? 100_000 : 1_000_000;
print STDERR "$keys keys\n";
my $r = $gate->{r};
my $used = sub { return ($r->call('INFO', 'memory') =~ /^used_memory:(\d+)/m)[0] };
my ($before, $made, $waits) = ($used->(), 0, 0);
while ($made < $keys) {
    my @args = map { ('key:' . token('idle' . $made++), '{"v":1,"t":"key","limit":"5000000000","rpm":60,"tpm":100000,"name":"key of a user","refs":["team:t","org:o","member:t/u","global"],"period":{"kind":"month","id":1790000000,"end_s":1793000000}}') } 1 .. 500;
    $r->send('FCALL', 'kt_policy_set', 1, 'kt:{0000}:gen', @args);
    $r->read if ++$waits > 8;
}
$r->read for 1 .. ($waits > 8 ? 8 : $waits);
row("Redis per idle key, bytes, $keys keys", sprintf('%.0f', ($used->() - $before) / $made), '<= 500');
}

# -------------------------------------------------------------- functions

my $info = join '', map { "$_\n" } grep { /fcall/ } split /\r?\n/, $gate->{r}->call('INFO', 'latencystats');
my ($p50) = $info =~ /fcall:p50=([\d.]+)/;
row('Redis: one FCALL, p50, us', $p50, '') if defined $p50;

for my $n ($bare, $lua) { Keytoll::Test::reap($n->{pid}, 'QUIT') if $n }
$gate->settled;

printf "\n| %-56s | %10s | %9s |\n|%s|%s|%s|\n", 'figure', 'measured', 'target', '-' x 58, '-' x 11 . ':', '-' x 10 . ':';
printf "| %-56s | %10s | %9s |\n", @$_ for @rows;
$gate->{stopped} = 1;
kill 'QUIT', $gate->{nginx}[0];
waitpid $gate->{nginx}[0], 0;
Keytoll::Test::reap($gate->{mock_pid}, 'TERM');
Keytoll::Test::reap($gate->{redis_pid}, 'TERM');
system 'rm', '-rf', $dir;
