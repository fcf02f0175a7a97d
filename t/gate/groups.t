# Settlements of requests that reserved alike are told to Redis as one
# (ngx_http_keytoll_batch.c, shared/lua/group.lua): each is charged as if it had
# come by itself, also when Redis does not take the group.

use strict;
use warnings;
no warnings "portable";                        # 64 bits everywhere
use Test::More;
use POSIX ();
use Time::HiRes qw(sleep);
use Keytoll::Test;

my $T = JSON::PP::true;
my $g = Keytoll::Test->gate(timeout => '2s', more => 'location /leased/ { keytoll_lease on; proxy_pass http://mock/; }');
my $r = $g->{r};
my $P = 'kt:{0000}:';
my $N = 24;

sub burst {
    my ($key, $path, $n, $delay, $tok) = @_;
    return http_burst($g->{port}, [map { ['POST', $path, ['Authorization', "Bearer $key", 'x-mock-delay-ms', $delay, 'x-mock-prompt-tokens', 10, 'x-mock-completion-tokens', $tok // 4 + $_],
        chat_body(max_tokens => 40)] } 1 .. $n]);
}

# (events that came in groups, all) of the stream
sub grouped {
    my ($in, $all) = (0, 0);
    for my $entry (@{ $r->call('XRANGE', "${P}s", '-', '+') }) {
        my $n = Keytoll::Test::events_of($entry->[1]);
        my %f = @{ $entry->[1] };
        $all += $n;
        $in += $n if $f{es};
    }
    return ($in, $all);
}

sub books {
    my ($key, $n, $what) = @_;
    ok($g->settled, "$what: all settled");
    my @e = grep { $_->[1] =~ /key:@{[ token($key) ]}\t/ } $g->events;
    my %id = map { $_->[0]{id} => 1 } @e;
    my ($sum, $tok) = (0, 0);
    $sum += $_->[0]{cost}, $tok += $_->[0]{in} + $_->[0]{out} for @e;
    is(scalar(@e), $n, "$what: an event for each");
    is(scalar(keys %id), $n, "$what: one each");
    my $s = $g->state($key);
    is($s->{used}, $sum, "$what: Redis charged what they say");
    is($s->{tpm}, $tok, "$what: and counts their tokens");
    is("$s->{held} $s->{par} $s->{rpm}", "0 0 $n", "$what: nothing is left of their holds");
    return map { $_->[2] =~ /^(\w+)/ } @e;
}

sub full { return (limit => usd(100), rpm => 100_000, tpm => 1e9, par => 1000) }

# by the hold of each

my $key = $g->key(full(), strict => $T);
for (1 .. 4) { is(scalar(grep { $_->{status} == 200 } burst($key, '/v1/chat/completions', $N, 30)), $N, 'all pass') }
is(join(' ', grep { $_ ne 'ok' } books($key, 4 * $N, 'holds')), '', 'holds: each had its hold');
my ($in, $all) = grouped();
cmp_ok($in, '>', 0, "some of them came in groups ($in of $all)");

# a hold that is gone spoils its group only

$key = $g->key(full(), strict => $T);
my $pid = fork // die;
if (!$pid) { burst($key, '/v1/chat/completions', $N, 700); POSIX::_exit(0) }
my @held;
soon { @held = grep { ($r->call('GET', "${P}h:$_") // '') =~ /^H/ } @{ $r->call('ZRANGE', "${P}z", 0, -1) }; @held == $N } 5, 'all are upstream';
$r->call('DEL', "${P}h:$held[3]");
$r->call('ZREM', "${P}z", $held[3]);
$r->call('SADD', "${P}d:" . int(hex(substr $held[7], 0, 12) / 3_600_000), $held[7]);
$r->call('DEL', "${P}h:$held[7]");
$r->call('ZREM', "${P}z", $held[7]);
waitpid $pid, 0;
ok($g->settled, 'spoiled: all settled');
my %code = map { $_->[0]{id} => $_->[2] } grep { $_->[1] =~ /key:@{[ token($key) ]}\t/ } $g->events;
is(scalar(keys %code), $N - 1, 'spoiled: the one that was settled is not settled again');
is($code{ $held[3] }, 'late', 'spoiled: the one without a hold is charged by its receipt');
is(scalar(grep { $_ eq 'ok' } values %code), $N - 2, 'spoiled: the others as ever');
my $status = $g->status;
is($status->{late_total}, 1, 'spoiled: one late');
is($status->{duplicates_total}, 1, 'spoiled: one duplicate');
my $used = 0;
$used += $_->[0]{cost} for grep { $code{ $_->[0]{id} } } $g->events;
is($g->state($key)->{used}, $used, 'spoiled: Redis charged what the events say');

# by their share of a block

$key = $g->key(full(), strict => $T);
my $leased = $g->status->{leased_total};
my $bursts = 0;
while ($bursts++ < 40) {
    burst($key, '/leased/v1/chat/completions', 40, 10);
    last if $g->status->{leased_total} - $leased > 100;
}
is(join(' ', grep { $_ ne 'ok' } books($key, 40 * $bursts, 'blocks')), '', 'blocks: each had its share');
cmp_ok($g->status->{leased_total} - $leased, '>', 100, 'blocks: many of them');

# the block is lost while they run

$key = $g->key(full(), strict => $T);
burst($key, '/leased/v1/chat/completions', 40, 10) for 1 .. 4;
my $total = 160;
my ($lost, $late) = (0, $g->status->{late_total});
for (1 .. 20) {
    $pid = fork // die;
    if (!$pid) { burst($key, '/leased/v1/chat/completions', 40, 300); POSIX::_exit(0) }
    sleep 0.15;
    for my $bid (@{ $r->call('ZRANGE', "${P}z", 0, -1) }) {
        next if ($r->call('GET', "${P}h:$bid") // '') !~ /^B/;
        $r->call('DEL', "${P}h:$bid");
        $r->call('ZREM', "${P}z", $bid);
        $lost++;
    }
    waitpid $pid, 0;
    $total += 40;
    $g->settled;
    last if $g->status->{late_total} > $late;
}
ok($lost, 'lost: there was a block');
ok($g->settled, 'lost: all settled');
my @e = grep { $_->[1] =~ /key:@{[ token($key) ]}\t/ } $g->events;
my ($sum, %id) = (0);
$sum += $_->[0]{cost}, $id{ $_->[0]{id} }++ for @e;
is(scalar(@e), $total, 'lost: an event for each');
is(scalar(keys %id), $total, 'lost: one each');
cmp_ok(scalar(grep { $_->[2] eq 'late' } @e), '>', 0, 'lost: by their receipts');
is($g->state($key)->{used}, $sum, 'lost: Redis charged what they say');

# a library that knows no groups yet

(my $old = slurp("$Keytoll::Test::BIN/keytoll.lua")) =~ s/^redis\.register_function\("kt_settle_groups".*\n//m or die;
$r->call('FUNCTION', 'LOAD', 'REPLACE', $old);
$key = $g->key(full(), strict => $T);
burst($key, '/v1/chat/completions', $N, 30);
is(join(' ', grep { $_ ne 'ok' } books($key, $N, 'an older library')), '', 'an older library: one by one');
$g->load_functions;

$g->finish;
