package Keytoll::Test;

# Real servers for the gate's tests: a private Redis with the function
# library, the demo provider, one or more nginx with the module.  Everything
# lives in a folder of its own and is stopped by pid; at the end each test
# file also asserts that no log holds an [alert] or a sanitizer report.
#
# KEYTOLL_BIN names the build, KEYTOLL_NGINX the binary, KEYTOLL_KEEP=1 leaves the
# folder.

use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use Exporter 'import';
use File::Temp qw(tempdir);
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use POSIX qw(:sys_wait_h);
use Test::More;
use Time::HiRes qw(time sleep);
use Keytoll::Redis;

our @EXPORT = qw(http_get http_call http_burst eventually soon json token slurp chat_body usd sse_events);

our $TOP = do { my $p = __FILE__; $p =~ s{/?t/lib/Keytoll/Test\.pm$}{}; $p eq '' ? '.' : $p };
our $BIN = $ENV{KEYTOLL_BIN} || "$TOP/build";
our $JSON = JSON::PP->new->utf8->canonical->allow_nonref;
our $SLOW = $ENV{KEYTOLL_ASAN} ? 4 : 1;      # a sanitizer's factor on every wait
our @RUNNING;
my $port = 20000 + ($$ * 37) % 12000;

sub json { return $JSON->decode($_[0]) }
sub token { return sha256_hex($_[0]) }

sub slurp {
    my $f = shift;
    open my $h, '<', $f or return '';
    local $/;
    return scalar <$h>;
}

sub spew {
    my ($f, $text) = @_;
    open my $h, '>', $f or die "$f: $!";
    print $h $text;
    close $h or die "$f: $!";
}

# A port that nobody listens on, below those that the kernel hands to clients;
# held only by luck, so servers retry.
sub free_port {
    for (1 .. 200) {
        $port = 20000 + ($port - 20000 + 7) % 12000;
        my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => $port, ReuseAddr => 1) or next;
        close $s;
        return $port;
    }
    die 'no free port';
}

sub eventually(&;$) {
    my ($code, $seconds) = @_;
    my $end = time + ($seconds // 10) * $SLOW;
    my $ok;
    until ($ok = $code->()) {
        last if time > $end;
        sleep 0.02;
    }
    return $ok;
}

# A test that becomes true within so many seconds.
sub soon(&$$) {
    my ($code, $seconds, $name) = @_;
    return ok(&eventually($code, $seconds), $name);
}

# dollars as a number to nano-USD
sub usd { return sprintf '%.0f', $_[0] * 1e9 }

# ---------------------------------------------------------------- processes

sub spawn {
    my ($log, @cmd) = @_;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', $log;
        open STDERR, '>&', \*STDOUT;
        setpgrp;
        exec @cmd or POSIX::_exit(127);
    }
    return $pid;
}

sub reap {
    my ($pid, $signal, $seconds) = @_;
    return unless $pid;
    kill $signal, $pid;
    my $end = time + ($seconds // 10) * $SLOW;
    while (time < $end) {
        return 1 if waitpid($pid, WNOHANG) != 0;
        sleep 0.01;
    }
    kill 'KILL', $pid;
    waitpid $pid, 0;
    return 0;
}

sub pid_of { return (slurp($_[0]) =~ /^(\d+)/)[0] }

# ------------------------------------------------------------------ fixture

# gate(nginx => 2, workers => 2, location => "...", http => "...", upstream => "host:port",
#      timeout => "1s", redis => 0 (do not start)...)
sub gate {
    my ($class, %o) = @_;
    my $dir = tempdir('ktXXXXXX', TMPDIR => 1);
    chmod 0711, $dir;
    my $self = bless { dir => $dir, o => \%o, ver => 1, gen => 1, nginx => [], port => [] }, $class;
    mkdir "$dir/$_" for qw(tmp journal log);
    push @RUNNING, $self;
    $self->{sock} = "$dir/redis.sock";
    $self->start_redis;
    $self->load_functions;
    $self->start_mock;
    $self->policy(global => {});
    $self->registry($o{models} // default_models());
    $self->start_nginx($_) for 0 .. ($o{nginx} // 1) - 1;
    return $self;
}

sub default_models {
    return [
        { n => 'gpt-4o-mini', p => 'openai', in => 150000, out => 600000, cr => 75000, maxo => 16384 },
        { n => 'out-only', p => 'openai', in => 0, out => 1000000, maxo => 4096 },
        { n => 'claude-x', p => 'anthropic', in => 3000000, out => 15000000, cr => 300000, cw => 3750000, maxo => 8192 },
        { n => 'emb', p => 'openai', in => 20000, out => 0 },
        { n => 'free', p => 'x', in => 0, out => 0, free => 1 },
        { n => 'noprice', p => 'x', noprice => 1 },
        { n => 'alias', u => 'gpt-4o-mini', p => 'openai', in => 150000, out => 600000, maxo => 16384 },
    ];
}

sub start_redis {
    my ($self, @args) = @_;
    my $dir = $self->{dir};
    $self->{redis_pid} = spawn("$dir/log/redis.out", 'redis-server', '--port', 0, '--unixsocket', $self->{sock}, '--unixsocketperm', '777',
        '--dir', $dir, '--save', '', '--appendonly', $self->{o}{aof} ? 'yes' : 'no', '--maxmemory-policy', 'noeviction', '--zset-max-listpack-entries', 0, '--enable-protected-configs', 'yes', '--logfile', "$dir/log/redis.log", @args);
    eventually { -S $self->{sock} && eval { Keytoll::Redis->new($self->{sock})->call('PING') eq 'PONG' } } 20
        or die "redis did not start: " . slurp("$dir/log/redis.log");
    $self->{r} = Keytoll::Redis->new($self->{sock});
}

sub stop_redis {
    my ($self, $signal) = @_;
    reap(delete $self->{redis_pid}, $signal // 'KILL');
}

sub load_functions {
    my $self = shift;
    $self->{r}->call('FUNCTION', 'LOAD', 'REPLACE', slurp("$BIN/keytoll.lua"));
}

sub start_mock {
    my $self = shift;
    for (1 .. 5) {
        $self->{mock_port} = free_port();
        $self->{mock_pid} = spawn("$self->{dir}/log/mock.out", "$BIN/keytoll-mock", '-l', "127.0.0.1:$self->{mock_port}");
        return if eventually { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{mock_port}) } 5;
        reap($self->{mock_pid}, 'KILL');
    }
    die 'mock did not start: ' . slurp("$self->{dir}/log/mock.out");
}

sub nginx_conf {
    my ($self, $i) = @_;
    my ($dir, $o) = ($self->{dir}, $self->{o});
    my $module = $ENV{KEYTOLL_ASAN} ? '' : "load_module $BIN/ngx_http_keytoll_module.so;";
    $module =~ s{load_module (?!/)}{'load_module ' . do { require Cwd; Cwd::getcwd() } . '/'}e;
    my $user = $> == 0 ? 'user root;' : '';
    my $upstream = $o->{upstream} // "127.0.0.1:$self->{mock_port}";
    my $redis = $o->{redis_addr} // "unix:$self->{sock}";
    my $location = $o->{location} // '';
    my $abort = $o->{abort} // 'drain';
    my $failure = $o->{failure} // 'deny';
    my $timeout = $o->{timeout} // '2s';
    my $workers = $o->{workers} // 1;
    my $http = $o->{http} // '';
    my $more = $o->{more} // '';
    my $journal = $o->{journal} // "$dir/journal";
    my $level = $ENV{KEYTOLL_LOG} // 'info';
    my $daemon = $o->{daemon} ? '' : 'daemon off;';
    my $connections = $o->{connections} // 4096;
    my $zone = $o->{zone} // '1m';
    my $ignore = $abort eq 'drain' ? 'on' : 'off';
    return <<"END";
$module
$user
$daemon
worker_processes $workers;
pid $dir/nginx$i.pid;
error_log $dir/log/error$i.log $level;
events { worker_connections $connections; }
http {
    keytoll_redis $redis timeout=$timeout;
    keytoll_zone kt:$zone;
    keytoll_journal $journal;
    client_body_temp_path $dir/tmp/body;
    proxy_temp_path $dir/tmp/proxy;
    fastcgi_temp_path $dir/tmp/f;
    uwsgi_temp_path $dir/tmp/u;
    scgi_temp_path $dir/tmp/s;
    client_max_body_size 20m;
    client_body_buffer_size 256k;
    keepalive_requests 1000000;
    log_format gate '\$status \$keytoll_verdict \$keytoll_key_id \$keytoll_key_alias user=\$keytoll_user team=\$keytoll_team org=\$keytoll_org \$keytoll_model \$keytoll_upstream_model \$keytoll_provider \$keytoll_route \$keytoll_stream \$keytoll_tokens_in \$keytoll_tokens_out \$keytoll_cost \$keytoll_estimated \$keytoll_request_id';
    access_log $dir/log/access$i.log gate;
    upstream mock { server $upstream; keepalive 128; }
    $http
    server {
        listen 127.0.0.1:$self->{port}[$i] backlog=4096;
        keytoll on;
        keytoll_abort $abort;
        keytoll_redis_failure $failure;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Accept-Encoding "";
        proxy_ignore_client_abort $ignore;
        $more
        location / { proxy_pass http://mock; $location }
        location = /status { keytoll off; keytoll_status; }
        location = /metrics { keytoll off; keytoll_status prometheus; }
    }
}
END
}

sub start_nginx {
    my ($self, $i) = @_;
    my $dir = $self->{dir};
    my $bin = $ENV{KEYTOLL_NGINX} || '/usr/sbin/nginx';
    $self->{port}[$i] //= free_port();
    spew("$dir/nginx$i.conf", $self->nginx_conf($i));
    local $ENV{ASAN_OPTIONS} = 'detect_leaks=0:abort_on_error=0' if $ENV{KEYTOLL_ASAN};
    $self->{nginx}[$i] = spawn("$dir/log/nginx$i.out", $bin, '-e', "$dir/log/error$i.log", '-p', $dir, '-c', "$dir/nginx$i.conf");
    eventually { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}[$i]) } 15
        or die 'nginx did not start: ' . slurp("$dir/log/nginx$i.out") . slurp("$dir/log/error$i.log");
    if ($self->{o}{daemon}) {
        waitpid $self->{nginx}[$i], 0;
        $self->{nginx}[$i] = pid_of("$dir/nginx$i.pid");
    }
}

sub stop_nginx {
    my ($self, $i, $signal) = @_;
    my $pid = $self->{nginx}[$i] or return;
    my $clean = $self->{o}{daemon} ? kill($signal // 'QUIT', $pid) && &eventually(sub { !kill 0, $pid }, 20)
                                   : reap($pid, $signal // 'QUIT', 20);
    $self->{nginx}[$i] = undef;
    return $clean;
}

sub reload { my ($self, $i) = @_; kill 'HUP', $self->{nginx}[$i // 0] }

sub workers {
    my ($self, $i) = @_;
    my $master = $self->{nginx}[$i // 0];
    my @w;
    for my $stat (glob '/proc/[0-9]*/stat') {
        push @w, $1 if slurp($stat) =~ /^(\d+) \(.*\) \S (\d+) / && $2 == $master;
    }
    return @w;
}

# nginx -t of a configuration: (exit code, output)
sub config_test {
    my ($self, $conf) = @_;
    my $f = "$self->{dir}/check.conf";
    spew($f, $conf);
    my $bin = $ENV{KEYTOLL_NGINX} || '/usr/sbin/nginx';
    local $ENV{ASAN_OPTIONS} = 'detect_leaks=0' if $ENV{KEYTOLL_ASAN};
    my $out = `$bin -t -e $self->{dir}/check.log -p $self->{dir} -c $f 2>&1`;
    return ($? >> 8, $out);
}

# ------------------------------------------------------------------- policy

sub policy {
    my ($self, %p) = @_;
    my @args;
    for my $name (sort keys %p) {
        my ($t) = $name =~ /^(\w+)/;
        $p{$name}{$_} = "$p{$name}{$_}" for grep { defined $p{$name}{$_} } qw(limit soft used);
        push @args, $name, $JSON->encode({ v => $self->{ver}++, t => $t, %{ $p{$name} } });
    }
    return $self->{r}->fcall('kt_policy_set', @args);
}

# A key with this policy; refs default to global.  Returns the key.
my $serial = 0;
sub key {
    my ($self, %p) = @_;
    my $key = delete $p{key} // sprintf 'sk-test-%d-%d-%s', $$, ++$serial, 'x' x 12;
    $self->policy('key:' . token($key) => { refs => ['global'], %p });
    return $key;
}

sub registry {
    my ($self, $models) = @_;
    my $gen = $self->{gen}++;
    $self->{r}->fcall('kt_registry', $gen, $JSON->encode({ gen => $gen, models => $models }));
}

sub state {
    my ($self, $name) = @_;
    $name = 'key:' . token($name) if $name =~ /^sk-/;
    my $s = $self->{r}->fcall('kt_state', $name)->[0] or return;
    my %h;
    @h{qw(v used held limit period end rpm rpm_limit tpm tpm_limit par par_limit blocked unit)} = @$s;
    return \%h;
}

# Of one entry of the ledger stream, each event with what it shares: [event text, receipt, code]
sub events_of {
    my @f = @{ $_[0] };
    my @all;
    while (@f) {
        my ($name, $e, undef, $r, undef, $c) = splice @f, 0, 6;
        push @all, map { [$_, $r, $c] } $name eq 'es' ? split(/\n/, $e, -1) : $e;
    }
    return @all;
}

# Every event of the ledger stream: [event, receipt, code]
sub events {
    my $self = shift;
    my @all = map { events_of($_->[1]) } @{ $self->{r}->call('XRANGE', 'kt:{0000}:s', '-', '+') };
    return map { [json($_->[0]), @$_[1, 2]] } @all;
}

sub status { my ($self, $i) = @_; return json(http_get($self->{port}[$i // 0], '/status')->{body}) }

# True once nothing is upstream, nothing waits to be settled, no lease stands.
sub settled {
    my ($self, $seconds) = @_;
    return eventually {
        for my $i (0 .. $#{ $self->{nginx} }) {
            next unless $self->{nginx}[$i];
            my $s = $self->status($i);
            return 0 if $s->{active_requests} || $s->{pending_settlements};
        }
        $self->{r}->call('ZCARD', 'kt:{0000}:z') == 0;
    } $seconds // 15;
}

sub truth {
    my $self = shift;
    return map { json($_) } grep { /\S/ } split /\n/, http_get($self->{mock_port}, '/__truth')->{body};
}

# ------------------------------------------------------------------- client

sub chat_body {
    my (%o) = @_;
    return $JSON->encode({ model => 'gpt-4o-mini', max_tokens => 10, messages => [{ role => 'user', content => 'hello' }], %o });
}

sub request_text {
    my ($method, $path, $headers, $body) = @_;
    my $out = "$method $path HTTP/1.1\r\nHost: test\r\n";
    my @h = @{ $headers // [] };
    while (@h) { my ($k, $v) = splice @h, 0, 2; $out .= "$k: $v\r\n" }
    $out .= 'Content-Length: ' . length($body) . "\r\n" if defined $body && $out !~ /^(content-length|transfer-encoding):/mi;
    return "$out\r\n" . ($body // '');
}

sub parse_response {
    my $raw = shift;
    my ($head, $rest) = split /\r\n\r\n/, $raw, 2;
    return { status => 0, headers => {}, body => '', raw => $raw } unless defined $rest;
    my ($line, @h) = split /\r\n/, $head;
    my ($status) = $line =~ m{^HTTP/1\.\d (\d+)};
    my %h;
    for (@h) { my ($k, $v) = split /:\s*/, $_, 2; $h{ lc $k } = exists $h{ lc $k } ? $h{ lc $k } . ", $v" : $v }
    my $complete = 1;
    if (($h{'transfer-encoding'} // '') =~ /chunked/) {
        my $body = '';
        $complete = 0;
        while ($rest =~ s/^([0-9a-f]+)[^\r\n]*\r\n//i) {
            my $n = hex $1;
            if (!$n) { $complete = 1; last }
            last if length($rest) < $n;
            $body .= substr $rest, 0, $n, '';
            $rest =~ s/^\r\n//;
        }
        $rest = $body;
    } elsif (defined $h{'content-length'}) {
        $complete = length($rest) >= $h{'content-length'};
        $rest = substr $rest, 0, $h{'content-length'};
    }
    my $r = { status => $status, headers => \%h, body => $rest, raw => $raw, complete => $complete };
    $r->{json} = eval { json($rest) } if ($h{'content-type'} // '') =~ /json/;
    return $r;
}

sub http_call {
    my ($port, $method, $path, $headers, $body, %o) = @_;
    return (http_burst($port, [[$method, $path, [@{ $headers // [] }, 'Connection', 'close'], $body]], %o))[0];
}

sub http_get { my ($port, $path, $headers) = @_; return http_call($port, 'GET', $path, $headers) }

# Sends all requests at once, each on its own connection; responses in order.
# port may be a list reference: requests are dealt over the ports.
sub http_burst {
    my ($port, $requests, %o) = @_;
    my @ports = ref $port ? @$port : ($port);
    my (@out, %by, @raw);
    my ($rs, $ws) = (IO::Select->new, IO::Select->new);
    for my $i (0 .. $#$requests) {
        my ($m, $p, $h, $b) = @{ $requests->[$i] };
        my @h = @{ $h // [] };
        push @h, 'Connection', 'close' unless grep { lc eq 'connection' } @h;
        $out[$i] = request_text($m, $p, \@h, $b);
        $raw[$i] = '';
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $ports[$i % @ports], Timeout => 10) or next;
        binmode $s;
        $s->blocking(0);
        $by{$s} = $i;
        $ws->add($s);
        $rs->add($s);
    }
    my $end = time + ($o{timeout} // 60);
    while (($rs->count || $ws->count) && time < $end) {
        my ($r, $w) = IO::Select->select($rs, $ws, undef, 0.5);
        for my $s (@{ $w // [] }) {
            my $n = syswrite $s, $out[$by{$s}];
            if (defined $n) { substr $out[$by{$s}], 0, $n, '' }
            $ws->remove($s) if !defined $n && !$!{EAGAIN} || !length $out[$by{$s}];
        }
        for my $s (@{ $r // [] }) {
            my $n = sysread $s, $raw[$by{$s}], 65536, length $raw[$by{$s}];
            if (!$n && !(!defined $n && $!{EAGAIN})) {
                $rs->remove($s);
                $ws->remove($s);
                close $s;
            }
        }
    }
    return map { parse_response($_) } @raw;
}

sub chat {
    my ($self, $key, %o) = @_;
    my $headers = delete $o{headers} // [];
    my $i = delete $o{nginx} // 0;
    my $path = delete $o{path} // '/v1/chat/completions';
    my $body = delete $o{body} // chat_body(%o);
    return http_call($self->{port}[$i], 'POST', $path, ['Authorization', "Bearer $key", 'Content-Type', 'application/json', @$headers], $body);
}

# The payloads of a text/event-stream body.
sub sse_events {
    my $body = shift;
    return map { join "\n", map { s/^data: ?//r } grep { /^data:/ } split /\r?\n/ } grep { /^data:/m } split /\r?\n\r?\n/, $body;
}

# --------------------------------------------------------------------- end

sub stop {
    my $self = shift;
    return if $self->{stopped}++;
    for my $i (0 .. $#{ $self->{nginx} }) {
        next unless $self->{nginx}[$i];
        ok($self->stop_nginx($i), "nginx $i stopped in time");
    }
    reap($self->{mock_pid}, 'TERM');
    reap($self->{redis_pid}, 'TERM');
    my @bad;
    for my $log (glob "$self->{dir}/log/*") {
        push @bad, map { "$log: $_" } grep { /\[alert\]|\[emerg\]|Sanitizer|runtime error:/ && !($self->{expect} && $self->{expect}->($_)) } split /\n/, slurp($log);
    }
    ok(!@bad, 'no [alert] and no sanitizer report in any log') or diag(join "\n", @bad[0 .. ($#bad > 9 ? 9 : $#bad)]);
    if ($ENV{KEYTOLL_KEEP} || @bad) { diag("left in $self->{dir}") }
    else { system 'rm', '-rf', $self->{dir} }
}

sub expect { my ($self, $re) = @_; $self->{expect} = sub { $_[0] =~ $re } }

# The end of a test file.
sub finish {
    my $self = shift;
    $self->{expect} //= sub { 0 };
    $self->stop;
    done_testing();
}

# An interrupted file still stops its servers.
my $owner = $$;
for my $signal (qw(INT TERM HUP)) {
    $SIG{$signal} = sub { $$ == $owner ? exit 130 : POSIX::_exit(130) };
}

END {
    my $code = $?;
    for my $g (@RUNNING) {
        next if $g->{stopped};
        kill 'KILL', grep { $_ } @{ $g->{nginx} }, $g->{mock_pid}, $g->{redis_pid};
        for my $pid (map { glob "/proc/$_/task/$_/children" } grep { $_ } @{ $g->{nginx} }) { 1 }
    }
    $? = $code;
}

1;
