# In a flood of made-up keys nobody's body is read before Redis has said that there is such a
# key: a made-up one hears 401 with its body still to come, a new one that is good is then read
# and served, whatever form its body has.

use strict;
use warnings;
use IO::Socket::INET;
use JSON::PP;
use Test::More;
use Time::HiRes qw(sleep time);
use Keytoll::Test;

my $h2 = Keytoll::Test::free_port();
my $g = Keytoll::Test->gate(workers => 1, timeout => '1s', more => <<'END', http => <<"END2");
        location /allow/ { keytoll_redis_failure allow; rewrite ^/allow(.*) $1 break; proxy_pass http://mock; }
        location /cached/ { keytoll_redis_failure cached; rewrite ^/cached(.*) $1 break; proxy_pass http://mock; }
        location /shown/ { error_page 401 503 = @shown; rewrite ^/shown(.*) $1 break; proxy_pass http://mock; }
        location @shown { keytoll off; return 418 "shown"; }
END
    server {
        listen 127.0.0.1:$h2 http2;
        keytoll on;
        location / { proxy_pass http://mock; }
    }
END2

my $serial = 0;
sub made_up { return sprintf 'sk-made-up-%d-%d', $$, ++$serial }
sub good { return $g->key(limit => 1e13) }
sub flood {
    my %n;
    $n{$_->{status}}++ for http_burst($g->{port}[0], [map { ['POST', '/v1/chat/completions', ['Authorization', 'Bearer ' . made_up()], chat_body()] } 1 .. 40]);
    return join ' ', %n;
}
is(flood(), '401 40', 'a flood');

sub connected { return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $g->{port}[0]) // die $! }
sub head { # of a request without its body
    my ($key, $path, @h) = @_;
    return join "\r\n", "POST $path HTTP/1.1", 'Host: test', "Authorization: Bearer $key", 'Content-Type: application/json', @h, '', '';
}

sub answer { # what comes within so many seconds
    my ($s, $seconds) = @_;
    my ($all, $end) = ('', time + $seconds * $Keytoll::Test::SLOW);
    my $sel = IO::Select->new($s);
    while (time < $end) {
        next if !$sel->can_read(0.02);
        sysread $s, $all, 65536, length $all or last;
        last if $all =~ /\r\n\r\n.*\}/s || $all =~ /shown\z/;
    }
    return $all;
}
sub status_of { return answer(@_) =~ m{\AHTTP/1\.1 (\d+)} ? $1 : 0 }

my $body = chat_body();
my $long = chat_body(messages => [{ role => 'user', content => 'x' x 3_000_000 }]);
my $p = '/v1/chat/completions';

# made-up keys, of whose body nothing has come
for (['a length' => 'Content-Length: 500000'], ['chunks' => 'Transfer-Encoding: chunked'], ['100-continue' => 'Content-Length: 500000', 'Expect: 100-continue'], ['no body' => 'Content-Length: 0']) {
    my ($what, @h) = @$_;
    flood();
    my $s = connected();
    syswrite $s, head(made_up(), $p, @h);
    my $got = answer($s, 5);
    like($got, qr{\A(?:HTTP/1\.1 100 Continue\r\n\r\n)?HTTP/1\.1 401 .*"code":"401"}s, "made up, $what: 401 before its body");
}

# good keys that never passed
sub good_ones { # form => sub of (socket, key) that sends
    return (
        ['at once', sub { syswrite $_[0], head($_[1], $p, 'Content-Length: ' . length $body) . $body }],
        ['in two pieces', sub { syswrite $_[0], head($_[1], $p, 'Content-Length: ' . length $body) . substr $body, 0, 10; sleep 0.1; syswrite $_[0], substr $body, 10 }],
        ['later', sub { syswrite $_[0], head($_[1], $p, 'Content-Length: ' . length $body); sleep 0.1; syswrite $_[0], $body }],
        ['in chunks', sub { syswrite $_[0], head($_[1], $p, 'Transfer-Encoding: chunked') . sprintf("%x\r\n%s\r\n", 7, substr $body, 0, 7); sleep 0.1; syswrite $_[0], sprintf "%x\r\n%s\r\n0\r\n\r\n", length($body) - 7, substr $body, 7 }],
        ['of 3 MB', sub { my ($s, $k) = @_; my $all = head($k, $p, 'Content-Length: ' . length $long) . $long; my $at = 0; while ($at < length $all) { $at += syswrite($s, $all, 65536, $at) // last } }],
        ['after 100', sub { syswrite $_[0], head($_[1], $p, 'Content-Length: ' . length $body, 'Expect: 100-continue'); my $go; sysread $_[0], $go, 25; main::is($go, "HTTP/1.1 100 Continue\r\n\r\n", '100 Continue'); syswrite $_[0], $body }],
    );
}
for (good_ones()) {
    my ($what, $send) = @$_;
    flood();
    my $s = connected();
    my $key = good();
    $send->($s, $key);
    is(status_of($s, 5), 200, "good and new, its body $what");
    syswrite $s, head($key, $p, 'Content-Length: ' . length $body) . $body;
    is(status_of($s, 5), 200, 'the same again, on the same connection');
}

# and what they are refused for
flood();
is($g->chat(good(), body => '{"model": 5')->{status}, 400, 'good and new, its body is broken');
flood();
is($g->chat(good(), model => 'no-such-model')->{status}, 400, '... asks for a model that there is not');
flood();
like($g->chat($g->key(rpm => 0))->{status}, qr/^429$/, '... has no requests left');

# HTTP/2
sub curl { my ($key, $args) = @_; return `curl -s --max-time 10 --http2-prior-knowledge -o /dev/null -w '%{http_code} %{http_version}' -H 'Authorization: Bearer $key' -H 'Content-Type: application/json' $args http://127.0.0.1:$h2$p` }
Keytoll::Test::spew("$g->{dir}/body", $body);
Keytoll::Test::spew("$g->{dir}/long", $long);
for (1 .. 10) {
    flood();
    is(curl(made_up(), "--data-binary \@$g->{dir}/body"), '401 2', 'HTTP/2: made up');
}
flood();
is(curl(made_up(), '-X POST'), '401 2', 'without a body');
for my $file (qw(body long)) {
    flood();
    is(curl(good(), "--data-binary \@$g->{dir}/$file"), '200 2', "HTTP/2, $file: good and new");
}

# error_page
flood();
my $s = connected();
syswrite $s, head(made_up(), "/shown$p", 'Content-Length: 100');
like(answer($s, 5), qr/\AHTTP\/1\.1 401 /, 'our answer is not replaced');

# clients that leave while Redis is asked
flood();
kill 'STOP', $g->{redis_pid};
my @left = map { my $s = connected(); syswrite $s, head($_ % 2 ? made_up() : good_later(), $p, 'Content-Length: 100'); $s } 1 .. 20;
sub good_later { return made_up() }
sleep 0.1;
my $stays = connected();
syswrite $stays, head(made_up(), $p, 'Content-Length: 100');
sleep 0.1;
close $_ for @left;
sleep 0.1;
kill 'CONT', $g->{redis_pid};
is(status_of($stays, 5), 401, 'twenty leave, one stays: 401');

# Redis hangs: who may not pass is told so at the deadline, who may is read first
my $new = good();
flood();
kill 'STOP', $g->{redis_pid};
my %s;
for (['/cached', made_up()], ['/allow', $new], ['', made_up()]) {
    my ($where, $key) = @$_;
    $s{$where} = connected();
    syswrite $s{$where}, head($key, "$where$p", 'Content-Length: ' . length $body);
}
sleep 0.1;
syswrite $s{$_}, $body for sort keys %s;
my %said = map { $_ => answer($s{$_}, 10) } keys %s;
like($said{$_}, $_ eq '/allow' ? qr{\AHTTP/1.1 200} : qr{\AHTTP/1.1 503}, "Redis hangs, $_") for '', '/cached', '/allow';
kill 'CONT', $g->{redis_pid};
ok((eventually { $g->chat($new)->{status} == 200 } 10), 'and comes back');

# workers that end meanwhile answer first
my %n;
for (1 .. 12) {
    kill 'HUP', $g->{nginx}[0] if $_ % 4 == 1;
    $n{$_->{status}}++ for http_burst($g->{port}[0], [map { ['POST', '/v1/chat/completions', ['Authorization', 'Bearer ' . made_up(), 'Connection', 'close'], chat_body()] } 1 .. 100]);
}
is_deeply(\%n, { 401 => 1200 }, 'three reloads in a flood: everybody is answered');

# killed
flood();
kill 'STOP', $g->{redis_pid};
my @late = map { my $s = connected(); syswrite $s, head(made_up(), $p, 'Content-Length: ' . length $body) . $body; $s } 1 .. 5;
sleep 0.1;
$g->stop_redis('KILL');
is(status_of($_, 5), 503, 'Redis dies') for @late;

$g->finish;
