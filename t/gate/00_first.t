# The main path: one request in, one row out, nothing left behind.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;

my $g = Keytoll::Test->gate;
my $key = $g->key(limit => usd(1), strict => JSON::PP::true, name => 'first');

my $r = $g->chat($key, max_tokens => 7);
is($r->{status}, 200, 'a chat completion passes');
is($r->{json}{usage}{completion_tokens}, 7, 'and is the provider\'s own answer');
ok($g->settled, 'it settles');

my @e = $g->events;
is(scalar @e, 1, 'one ledger event');
my $u = $r->{json}{usage};
my $cost = ($u->{prompt_tokens} * 150000 + $u->{completion_tokens} * 600000) / 1000;
is($e[0][0]{cost}, $cost, 'with the exact cost');
is($e[0][0]{uid}, $r->{json}{id}, 'the provider\'s id');
is($e[0][2], 'ok', 'settled over its hold');
is($g->state($key)->{used}, $cost, 'used is the cost');
is($g->state('global')->{used}, $cost, 'on every level');
is($g->state($key)->{held}, 0, 'nothing is held');

my ($t) = $g->truth;
ok(!grep({ /^(authorization|x-api-key|api-key|keep-alive)$/ } @{ $t->{headers} }), 'the key did not reach the provider');
is($t->{id}, $r->{json}{id}, 'the provider saw that request');

my $s = $g->chat($key, stream => JSON::PP::true, max_tokens => 5);
is($s->{status}, 200, 'a stream passes');
my @d = sse_events($s->{body});
is($d[-1], '[DONE]', 'to its end');
ok(!grep({ /"choices":\[\]/ } @d), 'without the usage event that the client did not ask for');
ok($g->settled, 'it settles');
@e = $g->events;
is($e[1][0]{out}, 5, 'its tokens were counted');
is($e[1][0]{est}, 0, 'not estimated');

my $with = $g->chat($key, stream => JSON::PP::true, max_tokens => 5, stream_options => { include_usage => JSON::PP::true });
ok(grep({ /"choices":\[\]/ } sse_events($with->{body})), 'a client that asked for usage gets it');

$g->finish;
