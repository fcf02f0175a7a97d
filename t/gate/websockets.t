# WebSockets: refused unless allowed, then metered by the connection; what only looks like
# one is read and priced as ever.

use strict;
use warnings;
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep);
use Keytoll::Test;

my $backend = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1', ReuseAddr => 1) or die;
$backend->timeout(10);
my $up = '127.0.0.1:' . $backend->sockport;
my $g = Keytoll::Test->gate(http => 'map $http_upgrade $up { default upgrade; "" ""; }', more => <<"END");
    location /ws/ { keytoll_websocket on; add_header x-asked "[\$http_upgrade]" always; proxy_set_header Upgrade \$http_upgrade; proxy_set_header Connection \$up; proxy_pass http://mock/; }
    add_header x-asked "[\$http_upgrade]" always;
    location /real/ { keytoll_websocket on; proxy_set_header Upgrade \$http_upgrade; proxy_set_header Connection \$up; proxy_read_timeout 60s; proxy_pass http://$up/; }
END
my $port = $g->{port}[0];

sub upgrade {
    my ($path, $key, @h) = @_;
    return http_call($port, 'GET', $path, ['Authorization', "Bearer $key", 'Upgrade', 'websocket', 'Connection', 'Upgrade', 'Sec-WebSocket-Version', 13, 'Sec-WebSocket-Key', 'x', @h]);
}

subtest 'who may' => sub {
    is(upgrade('/v1/realtime?model=gpt', $g->key)->{status}, 403, 'a WebSocket is refused');
    is(upgrade('/v1/chat/completions', $g->key)->{headers}{'x-keytoll-reason'}, 'route_denied', 'anywhere');
    $g->policy('team:ws' => { limit => usd(1) }, 'org:ws' => { models => ['gpt-4o-mini'] });
    for my $c (['a money limit', limit => usd(1)], ['a token limit', tpm => 1000], ['a list of models', models => ['gpt-4o-mini']], ['a money limit of its team', refs => ['team:ws', 'global']],
        ['a list of models of its organization', refs => ['org:ws', 'global']]) {
        my ($what, %p) = @$c;
        is(upgrade('/ws/v1/realtime?model=gpt', $g->key(%p))->{headers}{'x-keytoll-reason'}, 'unpriced', "where it is allowed, not with $what");
    }
};

subtest 'what is none' => sub {
    my $key = $g->key(limit => usd(1));
    my @ws = ('Upgrade', 'websocket', 'Connection', 'upgrade, close');
    my $used = 0;
    for my $c (['/ws/v1/chat/completions', 'a POST where WebSockets are allowed'], ['/v1/chat/completions', 'and where not']) {
        my $r = http_call($port, 'POST', $c->[0], ['Authorization', "Bearer $key", @ws, 'x-mock-prompt-tokens', 1000, 'x-mock-completion-tokens', 10], chat_body());
        is($r->{status}, 200, $c->[1]);
        ok($g->settled, 'settles');
        is($g->state($key)->{used}, $used += 156_000, 'is priced');
        is(($g->events)[-1][0]{rt}, 'chat', 'as what it is');
        is($r->{headers}{'x-asked'}, '[]', 'nobody is asked to upgrade');
    }
    my $listed = $g->key(models => ['claude-x']);
    is(http_call($port, 'POST', '/ws/v1/chat/completions', ['Authorization', "Bearer $listed", @ws], chat_body())->{status}, 403, 'its model is checked');
    for my $c (['PUT', [@ws], '{}'], ['GET', [@ws], '{}'], ['GET', [@ws, 'Transfer-Encoding', 'chunked'], "0\r\n\r\n"], ['GET', ['Upgrade', 'websocket']], ['GET', ['Upgrade', 'h2c, websocket', 'Connection', 'upgrade']],
        ['HEAD', [@ws]], ['GET', ['Upgrade', 'h2c', 'Connection', 'upgrade']]) {
        my ($method, $h, $body) = @$c;
        my $r = http_call($port, $method, '/ws/v1/realtime', ['Authorization', 'Bearer ' . $g->key, @$h], $body);
        ok($g->settled, 'settles');
        is(($g->events)[-1][0]{rt}, 'other', "$method @$h is no WebSocket");
        is($r->{headers}{'x-asked'}, '[]', 'nor is one asked for');
    }
};

# An open one: (client, provider).
sub open_socket {
    my $key = shift;
    my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die;
    syswrite $c, "GET /real/v1/realtime HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $key\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n";
    my $b = $backend->accept or die 'nobody comes';
    sysread $b, my $got, 4096;
    syswrite $b, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nping";
    sysread $c, my $answer, 4096;
    return ($c, $b, $got, $answer);
}

sub slots { return $g->state($_[0])->{par} }

subtest 'one that is open' => sub {
    my $key = $g->key(rpm => 3, par => 2);
    my ($c, $b, $asked, $answer) = open_socket($key);
    like($asked, qr/^Upgrade: WebSocket\r/mi, 'the provider is asked to upgrade');
    unlike($asked, qr/\Q$key\E/, 'without the key');
    like($answer, qr/101 Switching/, 'it is');
    syswrite $c, 'pong';
    sysread $b, my $got, 4096;
    is($got, 'pong', 'both ways');
    my ($c2, $b2) = open_socket($key);
    is(slots($key), 2, 'each holds a slot while it lasts');
    is(upgrade('/real/v1/realtime', $key)->{status}, 429, 'a third one has none');
    close $c;
    soon { slots($key) == 1 } 5, 'its client leaves: the slot is free';
    close $b2;
    soon { slots($key) == 0 } 5, 'its provider leaves: the slot is free';
    ok($g->settled, 'settles');
    is($g->state($key)->{rpm}, 2, 'two requests');
    my @e = map { $_->[0] } ($g->events)[-2, -1];
    is_deeply([map { @$_{qw(rt cost end)} } @e], [('realtime', 0, 'complete') x 2], 'and two lines in the ledger');
};

subtest 'its worker dies' => sub {
    my $key = $g->key(par => 1);
    $g->expect(qr/exited on signal 9/);
    my ($c, $b) = open_socket($key);
    is(slots($key), 1, 'a slot is held');
    my $adopted = $g->status->{adopted_total};
    kill 'KILL', $g->workers;
    soon { $g->status->{adopted_total} > $adopted } 15, 'the next takes over';
    soon { slots($key) == 0 } 15, 'the slot is free';
    my @e = grep { $_->{end} eq 'lost' } map { $_->[0] } $g->events;
    is(scalar(@e), 1, 'one line in the ledger');
    is("$e[0]{rt} $e[0]{cost}", 'realtime 0', 'of the connection');
    (my $c2, my $b2) = open_socket($key);
    is(slots($key), 1, 'another may come');
};

ok($g->settled, 'settles');
$g->finish;
