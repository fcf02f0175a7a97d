# Many times what the smallest zone has room for, in each of its tables: refusals, of one key for
# thousands of models and of thousands of keys, and keys that passed.  What has no room is asked
# for again; nothing that is there is wrong, nor outlives a change.

use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time sleep);
use Keytoll::Test;

my $N = 3000;
my $ROOM = 600;                                     # more than any table of 256k has entries
my ($T, $F) = (JSON::PP::true, JSON::PP::false);
my $g = Keytoll::Test->gate(workers => 2, zone => '256k', more => 'location /cached/ { keytoll_redis_failure cached; rewrite ^/cached(.*) $1 break; proxy_pass http://mock; }');
my @workers;
ok((eventually { (@workers = sort $g->workers) == 2 } 5), 'two workers');

sub request { my ($key, $body, $path) = @_; return ['POST', ($path // '') . '/v1/chat/completions', ['Authorization', "Bearer $key"], chat_body(%{ $body // {} })] }
sub ask { return (http_burst($g->{port}[0], [request(@_)]))[0] }
sub burst { my @r = @_; my @got; push @got, http_burst($g->{port}[0], [splice @r, 0, 200]) while @r; return @got }
sub says { my $r = shift; return ($r->{status} // 0) . ' ' . ($r->{headers}{'x-keytoll-reason'} // '') }
sub tally { my %by; $by{ says($_) }++ for @_; return join ', ', map { "$by{$_} x $_" } sort keys %by }
sub hits { return $g->status->{cache_hits_total} }
sub all_policies { my %p = @_; my @n = sort keys %p; while (my @some = splice @n, 0, 500) { $g->policy(map { $_ => $p{$_} } @some) } }

soon { ask('sk-warm-up-of-nobody-' . time); $g->{r}->call('PUBSUB', 'NUMSUB', 'kt:{0000}:changes')->[1] == 2 } 5, 'both workers listen';

# Live refusals of every kind, right with the table as it is.
sub others {
    my $when = shift;
    my %is = ('401 key_blocked' => $g->key(blocked => $T), '422 budget_exceeded' => $g->key(limit => 1000, used => 1000), '403 key_model_denied' => $g->key(models => ['free']));
    my $free = $g->key;
    for my $want (sort keys %is) {
        my $first = ask($is{$want});
        is(says($first), $want, "$when: $want");
        sleep 0.05;
        ask($is{$want});
        my $before = hits();
        my @again = burst(map { request($is{$want}) } 1 .. 10);
        is(scalar(grep { $_->{raw} =~ s/.*?\r\n\r\n//sr eq $first->{raw} =~ s/.*?\r\n\r\n//sr } @again), 10, "$when: and again the same") if $want !~ /^422/;
        is(tally(@again), "10 x $want", "$when: for the same reason");
        cmp_ok(hits() - $before, '>=', 9, "$when: from the cache");
        is(ask($free)->{status}, 200, "$when: another key passes");
        $g->policy('key:' . token($is{$want}) => { refs => ['global'] });
        soon { ask($is{$want})->{status} == 200 } 1, "$when: a change binds at once";
    }
}
others('an empty table');

# one key, thousands of models

my $key = $g->key(models => ['free']);
my @models = map { "model-$_" } 1 .. $N;
my $stored = $g->status->{cache_stored_total};
is(tally(burst(map { request($key, { model => $_ }) } @models)), "$N x 403 key_model_denied", "$N models are refused");
cmp_ok($g->status->{cache_stored_total} - $stored, '>=', 0.9 * $N, 'and kept');
ask($key, { model => $_ }) for @models[0 .. 49];
my $before = hits();
is(tally(burst(map { request($key, { model => $_ }) } @models[0 .. 49])), '50 x 403 key_model_denied', 'the last of them again');
cmp_ok(hits() - $before, '>=', 40, 'are there');
$before = hits();
my @again = burst(map { request($key, { model => $_ }) } @models);
is(tally(@again), "$N x 403 key_model_denied", 'all of them again');
cmp_ok(hits() - $before, '<', $ROOM, 'most were evicted: ' . (hits() - $before) . ' came from the cache');
is(scalar(grep { $again[$_]{raw} !~ /\b\Q$models[$_]\E\b/ } 0 .. $#again), 0, 'each names its own model');
others("behind $N models");
burst(map { request($key, { model => $_ }) } @models[-400 .. -1]);
$g->policy('key:' . token($key) => { refs => ['global'] });
soon { says(ask($key, { model => $models[-1] })) eq '400 model_unknown' } 1, 'the key may use every model';
is(tally(burst(map { request($key, { model => $_ }) } @models)), "$N x 400 model_unknown", 'no refusal is left of what it might not');

# thousands of keys

my @keys = map { sprintf 'sk-full-%d-%d-%s', $$, $_, 'x' x 12 } 1 .. $N;
my $policies = sub { my %p = @_; all_policies(map { 'key:' . token($_) => { refs => ['global'], %p } } @keys) };
$policies->(blocked => $T);
is(tally(burst(map { request($_) } @keys)), "$N x 401 key_blocked", "$N blocked keys are refused");
$before = hits();
is(tally(burst(map { request($_) } @keys)), "$N x 401 key_blocked", 'and again');
cmp_ok(hits() - $before, '<', $ROOM, 'most were evicted: ' . (hits() - $before) . ' came from the cache');
others("behind $N keys");
for my $k (@keys[-20 .. -1]) {
    is(says(ask($k)), '401 key_blocked', 'one that is blocked') for 1, 2;
    $g->policy('key:' . token($k) => { refs => ['global'] });
    soon { ask($k)->{status} == 200 } 1, 'passes when it no longer is';
    $g->policy('key:' . token($k) => { refs => ['global'], blocked => $T });
    soon { says(ask($k)) eq '401 key_blocked' } 1, 'and is refused when it is again';
}
$g->policy('team:all' => { limit => 0 });
$policies->(refs => ['team:all', 'global']);
is(tally(burst(map { request($_) } @keys)), "$N x 422 budget_exceeded", "$N keys of a team without budget");
$g->policy('team:all' => {});
soon { ask($keys[-1])->{status} == 200 } 1, 'until it has one';
is(tally(burst(map { request($_) } @keys)), "$N x 200 ", 'then all of them pass');

# keys that passed, the last of them in seconds of their own: of one second entries are alike

my %of = (limited => $g->key(rpm => 1000), blocked => $g->key);
is(ask($_)->{status}, 200, 'a key passes') for values %of;
$policies->();
burst(map { request($_) } @keys);
others("behind $N keys that passed");
$g->policy('key:' . token($of{blocked}) => { refs => ['global'], blocked => $T });
soon { ask($of{blocked})->{status} == 401 } 1, 'one is blocked now';
is(tally(burst(map { request($_) } @keys)), "$N x 200 ", "$N keys pass");
my @late = @keys[map { 29 * $_ } 0 .. 99];
for (1, 2) {
    sleep 1.1;
    is(tally(burst(map { request($_) } @late)), '100 x 200 ', 'a hundred pass last');
}
is_deeply([sort $g->workers], \@workers, 'the workers are those of the start');
$g->stop_redis;
ask($late[0], {}, '/cached') for 1 .. 5;
my ($there) = grep { /x 200/ } split /, /, my $late = tally(burst(map { request($_, {}, '/cached') } @late));
cmp_ok(($there // '') =~ /^(\d+)/ ? $1 : 0, '>=', 80, "without Redis those that passed last pass: $late");
is(ask($of{$_}, {}, '/cached')->{status}, 503, "one that is $_ does not") for sort keys %of;
my $all = tally(burst(map { request($_, {}, '/cached') } @keys));
my ($passed) = $all =~ /(\d+) x 200 /;
cmp_ok($passed // 0, '<', $ROOM, "nor does who was evicted: $all");
cmp_ok($passed // 0, '>=', 200, 'but whoever is still there does');
is_deeply([sort $g->workers], \@workers, 'the workers are still those of the start');

$g->finish;
