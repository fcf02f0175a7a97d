# What the provider may do, and what it costs.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;

my $g = Keytoll::Test->gate(more => 'proxy_read_timeout 1s; proxy_connect_timeout 1s;');
my $key = $g->key(par => 1, limit => 10_000_000_000);
my $T = JSON::PP::true;

sub last_event { ok($g->settled, 'settles'); return ($g->events)[-1][0] }

for my $status (400, 401, 404, 429, 500, 503, 529) {
    my $r = $g->chat($key, headers => ['x-mock-status', $status]);
    is($r->{status}, $status, "the provider's $status reaches the client");
    my $e = last_event();
    is("$e->{cost} $e->{st} $e->{end}", "0 $status refused_upstream", 'and costs nothing');
}

my $r = $g->chat($key, headers => ['x-mock-delay-ms', 2500]);
is($r->{status}, 504, 'a provider that does not answer');
my $e = last_event();
is($e->{cost}, 0, 'costs nothing');
is($e->{st}, 504, 'and says so in the ledger');

$r = $g->chat($key, stream => $T, max_tokens => 50, headers => ['x-mock-reset-after', 3000, 'x-mock-event-delay-ms', 1]);
$e = last_event();
is($e->{est}, 1, 'a stream reset in the middle is an estimate');
cmp_ok($e->{cost}, '>', 0, 'and not free');
is($e->{end}, 'error', 'it ended in error');

is($g->state($key)->{par}, 0, 'no slot stays');
is($g->state($key)->{held}, 0, 'nothing is held');
is($g->chat($key)->{status}, 200, 'the next one passes');

# never reached: nothing at all
my $dead = Keytoll::Test::free_port();
my $n = Keytoll::Test->gate(upstream => "127.0.0.1:$dead");
my $k2 = $n->key(rpm => 5);
is($n->chat($k2)->{status}, 502, 'nobody listens upstream');
ok($n->settled, 'settles');
is(scalar $n->events, 0, 'no ledger row');
is($n->state($k2)->{rpm}, 0, 'and the request is given back');
is($n->status->{released_total}, 1, 'as released');
$n->stop;

# the next upstream gets the same spliced body
my $f = Keytoll::Test->gate;
$f->stop_nginx(0);
$f->{o}{http} = "upstream two { server 127.0.0.1:$dead; server 127.0.0.1:$f->{mock_port}; }";
$f->{o}{more} = 'location /two/ { rewrite ^/two(.*) $1 break; proxy_pass http://two; proxy_next_upstream_tries 2; }';
$f->start_nginx(0);
my $k3 = $f->key;
for (1 .. 4) {
    my $r = $f->chat($k3, path => '/two/v1/chat/completions', stream => $T, max_tokens => 3);
    is($r->{status}, 200, 'a retry to the second upstream');
    is(scalar(sse_events($r->{body})), 6, 'reads the whole body');
}
ok($f->settled, 'settles');
is(scalar(grep { !$_->[0]{est} } $f->events), 4, 'once each');
$f->stop;

$g->finish;
