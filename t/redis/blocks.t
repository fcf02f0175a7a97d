# Blocks of quota (shared/lua/block.lua): random takers, users and ends against
# the promises of single admissions.  KEYTOLL_SEED repeats, KEYTOLL_LONG=1 runs more.

use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);
use Keytoll::Test;
use Keytoll::Store;

my $T = JSON::PP::true;
srand(my $seed = $ENV{KEYTOLL_SEED} // time * 1000 % 1_000_000_000);
note("KEYTOLL_SEED=$seed");
my $s = Keytoll::Store->new(clock => 'key');
my $r = $s->{r};
my $serial = 0;

sub key { my (%p) = @_; my $t = token('blk' . ++$serial); $s->policy("key:$t" => { refs => ['global'], %p }, global => {}); return $t }
sub state_of { return $s->state("key:$_[0]") }

subtest 'one block' => sub {
    my $t = key(strict => $T, limit => 1_000_000, rpm => 1000, tpm => 1_000_000, par => 100);
    my %cost = (token => $t, bound => 1000, in_bound => 10, out_bound => 20);
    my $b = $s->take_block(20, %cost);
    ok($b, 'a block is taken');
    is($b->{stop} % 1000, 0, 'until the end of a second');
    cmp_ok($b->{stop} - $s->now, '<=', 1000, 'of this second');
    my $st = state_of($t);
    is("@$st{qw(held rpm tpm par)}", '20000 20 600 20', 'its requests are reserved');
    my @rid = map { Keytoll::Store::rid($s->now) } 1 .. 5;
    is_deeply([$s->settle(map { { rid => $_, receipt => Keytoll::Store::share($b), cost => 300, in => 5, out => 5 } } @rid)], [(0) x 5], 'five are settled out of it');
    $st = state_of($t);
    is("@$st{qw(used held rpm tpm par)}", '1500 15000 20 500 15', 'their share is released, their cost counts');
    is_deeply([$s->settle(map { { rid => $_, receipt => Keytoll::Store::share($b), cost => 300 } } @rid)], [(1) x 5], 'once');
    $r->fcall('kt_block_end', $b->{bid}, 13, Keytoll::Store::amounts(map { $_ => 13 * $b->{a}{$_} } qw(bound ucr est in_bound in_typ out_bound out_typ)));
    $st = state_of($t);
    is("@$st{qw(used held rpm tpm par)}", '1500 2000 7 110 2', 'what was not used comes back, two still run');
    my @more = map { Keytoll::Store::rid($s->now) } 1, 2;
    is_deeply([$s->settle({ rid => $more[0], receipt => Keytoll::Store::share($b), cost => 999, in => 1, out => 1 })], [0], 'one ends');
    is_deeply([$s->settle({ rid => $more[1], receipt => Keytoll::Store::share($b), release => 1 })], [0], 'one was never sent');
    $st = state_of($t);
    is("@$st{qw(used held rpm tpm par)}", '2499 0 6 52 0', 'nothing is left of the block');
    is($s->left, 0, 'no hold, no lease');
    is($r->call('EXISTS', "kt:{0000}:h:$b->{bid}"), 0, 'no record');
    my $late = Keytoll::Store::rid($s->now);
    is_deeply([$s->settle({ rid => $late, receipt => Keytoll::Store::share($b), cost => 7 })], [3], 'a block that is gone: the receipt is asked for');
    is_deeply([$s->settle({ rid => $late, receipt => $b->{receipt}, cost => 7 })], [2], 'and charged with it');
    is(state_of($t)->{used}, 2506, 'once');
    my @c = map { $_->[2] } $s->stream;
    is(join(' ', @c), 'ok ok ok ok ok ok late', 'every request has its event');
};

subtest 'requests of a block in groups' => sub {
    my $t = key(strict => $T, limit => 1_000_000, rpm => 1000, tpm => 1_000_000, par => 100);
    my %cost = (token => $t, bound => 1000, in_bound => 10, out_bound => 20);
    my $b = $s->take_block(20, %cost);
    my $group = sub { my ($of, @rid) = @_; return $r->fcall('kt_settle', Keytoll::Store::group_args($of, map { { %cost, ucr => 0, rid => $_, cost => 300, in => 5, out => 5 } } @rid))->[2] };
    my @rid = map { Keytoll::Store::rid($s->now) } 1 .. 12;
    my @before = map { $_->[0] } $s->stream;
    is($group->($b, @rid[0 .. 4]), 0, 'five as one');
    my $st = state_of($t);
    is("@$st{qw(used held rpm tpm par)}", '1500 15000 20 500 15', 'are released and charged like five');
    my @new = ($s->stream)[scalar @before .. scalar(@before) + 4];
    is(join(' ', map { $_->[0] =~ /"id":"(\w+)"/ } @new), "@rid[0 .. 4]", 'each with its event');
    is(scalar($s->stream), @before + 5, 'no more');
    is($group->($b, @rid[4, 5]), 3, 'not with one that was settled');
    is($group->($b, @rid[5, 5]), 3, 'not with one twice');
    is($group->($b, @rid[5 .. 7], Keytoll::Store::rid($s->now + 3_600_000)), 3, 'not of two hours');
    is($group->({ bid => 'f' x 32 }, @rid[5, 6]), 3, 'not of a block that is not');
    my ($own) = Keytoll::Store::rid($s->now);
    is($r->fcall('kt_renew', 60000, $own, Keytoll::Store::hold_text($b->{receipt}, '{}', %{ $b->{a} })), 1, 'one has a hold of its own');
    is($group->($b, $rid[5], $own), 3, 'not with it');
    is_deeply([$s->settle({ rid => $own, receipt => '', release => 1 })], [0], 'which stands yet');
    is(join(' ', @{ state_of($t) }{qw(used held rpm)}), '1500 15000 19', 'nothing of all that counted');
    is_deeply([$s->settle({ rid => $rid[5], receipt => Keytoll::Store::share($b), cost => 1 })], [0], 'one of them by itself');
    is_deeply($r->fcall('kt_settle', Keytoll::Store::settle_args(rid => $rid[6], receipt => Keytoll::Store::share($b), cost => 1),
        Keytoll::Store::group_args($b, map { { %cost, rid => $_, cost => 300 } } @rid[6, 7]))->[2 + $_], $_ ? 3 : 0, $_ ? 'its group is not' : 'one that is in the same call') for 0, 1;
    is($group->($b, map { Keytoll::Store::rid($s->now) } 1 .. 14), 3, 'not more than are left of the block');
    my $more = 20 - 7 - 1;
    is($group->($b, map { Keytoll::Store::rid($s->now) } 1 .. $more), 0, "as many as are left: $more") or note(explain(state_of($t)));
};

subtest 'where there are none' => sub {
    my $case = sub { my ($what, $n, %p) = @_; my $t = key(%p); is($s->take_block($n, token => $t, bound => 1000, in_bound => 10), undef, "no block: $what"); is(state_of($t)->{held}, 0, "$what: nothing is held") };
    $case->('a quarter of what is left is less', 20, strict => $T, limit => 79_999);
    $case->('RPM too low', 20, rpm => 79);
    $case->('TPM too low', 20, tpm => 799);
    $case->('too few slots', 20, par => 79);
    $case->('a last call', 20, limit => 79_999);
    $case->('a blocked key', 20, blocked => $T);
    $case->('a spent budget', 20, limit => 0);
    $case->('one request is no block', 1, limit => 1_000_000);
    is($s->take_block(20, token => token('nobody'), bound => 1), undef, 'no such key');
    ok($s->take_block(20, token => key(strict => $T, limit => 80_000), bound => 1000), 'exactly a quarter is fine');
    my $t = key(expires_ms => $s->now + 100);
    my $b = $s->take_block(20, token => $t);
    cmp_ok($b->{stop}, '<=', $s->now + 100, 'a block ends before its key expires');
};

subtest 'changes wait for blocks' => sub {
    my $t = key(limit => usd(1));
    my $say = sub { $r->fcall('kt_policy_set', "key:$t", $Keytoll::Test::JSON->encode({ v => $s->{ver}++, t => 'key', refs => ['global'] })) };
    is_deeply($say->(), ['ok'], 'no block, no wait');
    ok($s->take_block(10, token => $t), 'a block');
    my $a = $say->();
    cmp_ok($a->[1], '>', 0, 'a change says how long it may still be used');
    cmp_ok($a->[1], '<=', 1000, 'not more than a second');
    $a = $r->fcall('kt_policy_del', "key:$t", $s->{ver}++);
    cmp_ok($a->[1], '>', 0, 'so does a deletion');

    my $short = key(expires_ms => $s->now + 40);
    my $long = key();
    ok($s->take_block(10, token => $long), 'a block for the rest of the second');
    my $before = $r->call('PTTL', 'kt:{0000}:b:global');
    ok($s->take_block(10, token => $short), 'and one of a key that expires before');
    cmp_ok($r->call('PTTL', 'kt:{0000}:b:global'), '>=', $before - 60, 'global: the longer one counts');
    my $any = $r->fcall('kt_policy_set', 'default:customer', $Keytoll::Test::JSON->encode({ v => $s->{ver}++, t => 'customer', limit => '0' }));
    cmp_ok($any->[1] // 0, '>', 0, 'the default of end users waits for every block');
};

subtest 'a worker that died' => sub {
    $s->pass(70_000);
    $r->fcall('kt_sweep', 100);                              # blocks of the tests before
    my $t = key(strict => $T, limit => 1_000_000, par => 100, rpm => 1000);
    my $b = $s->take_block(20, token => $t, bound => 1000);
    $s->settle({ rid => Keytoll::Store::rid($s->now), receipt => Keytoll::Store::share($b), cost => 10 });
    $s->pass(50_000);
    is($r->fcall('kt_renew', 60000, $b->{bid}, ''), 1, 'a block is renewed like a request');
    $s->pass(50_000);
    is($r->fcall('kt_sweep', 100)->[0], 0, 'and stands');
    is($s->admit(token => $t)->{code}, 0, 'another passes');
    $s->pass(15_000);
    my $again = $s->take_block(20, token => $t);
    is($r->fcall('kt_sweep', 100)->[0], 1, 'without renewal it is swept');
    my $st = state_of($t);
    is($st->{used}, 10, 'for nothing: the journals know what was sent');
    $s->pass(70_000);
    $r->fcall('kt_sweep', 100);
    is(state_of($t)->{held} . ' ' . state_of($t)->{par}, '0 0', 'and nothing is held');
    is($s->left, 0, 'nothing is left');
    $b = $s->take_block(20, token => $t);
    $r->call('ZADD', 'kt:{0000}:z', 1, $b->{bid});
    $r->fcall('kt_sweep', 100);
    is(state_of($t)->{rpm}, 20, 'what may have been sent counts in the window');
};

for my $round (1 .. ($ENV{KEYTOLL_LONG} ? 200 : 20)) {
    my ($limit, $rpm) = (int(rand 400_000) + 20_000, 50 + int rand 2000);
    my $strict = rand() < 0.8;
    my $t = key($strict ? (strict => $T) : (), limit => $limit, rpm => $rpm, tpm => 200_000, par => 300);
    my ($spent, $over, @open, @single, %used_at, $sent) = (0, 0);
    my %cost = (token => $t, bound => 1000, in_bound => 10, out_bound => 20);
    for my $step (1 .. 150) {
        my $op = rand;
        if ($op < 0.25) {
            my $b = $s->take_block(2 + int rand 60, %cost);
            push @open, { %$b, left => $b->{n}, running => [] } if $b;
        } elsif ($op < 0.45) {
            my $v = $s->admit(%cost);
            push @single, $v if $v->{code} == 0;
            $used_at{ int($s->now / 1000) }++ if $v->{code} == 0;
        } elsif ($op < 0.75 && @open) {
            my $b = $open[rand @open];
            if ($b->{left} && $s->now < $b->{stop}) {
                $b->{left}--;
                push @{ $b->{running} }, Keytoll::Store::rid($s->now);
                $used_at{ int($s->now / 1000) }++;
            }
        } elsif ($op < 0.9) {
            for my $b (@open) {
                next unless @{ $b->{running} };
                my $c = int rand 1001;
                my $rid = shift @{ $b->{running} };
                my ($code) = $s->settle({ rid => $rid, receipt => Keytoll::Store::share($b), cost => $c, in => 5, out => 5 });
                ($code) = $s->settle({ rid => $rid, receipt => $b->{receipt}, cost => $c, in => 5, out => 5 }) if $code == 3;
                $spent += $c;
            }
            if (my $v = shift @single) { my $c = int rand 1001; $s->settle({ rid => $v->{rid}, receipt => '', cost => $c, in => 5, out => 5 }); $spent += $c }
        } elsif ($op < 0.95 && @open) {
            my $b = splice @open, rand @open, 1;
            $r->fcall('kt_block_end', $b->{bid}, $b->{left}, Keytoll::Store::amounts(map { $_ => $b->{left} * $b->{a}{$_} } qw(bound ucr est in_bound in_typ out_bound out_typ))) if $b->{left};
            $b->{left} = 0;
            push @open, $b if @{ $b->{running} };
        } else { $s->pass(int rand 700) }
        my $st = state_of($t);
        $over++ if $st->{used} + $st->{held} > $limit + ($strict ? 0 : 1000);
        my ($from, $n) = (int($s->now / 1000) - 60, 0);
        $_ > $from and $n += $used_at{$_} for keys %used_at;
        $over++ if $n > $rpm;
    }
    for my $b (@open) {
        $r->fcall('kt_block_end', $b->{bid}, $b->{left}, Keytoll::Store::amounts(map { $_ => $b->{left} * $b->{a}{$_} } qw(bound ucr est in_bound in_typ out_bound out_typ))) if $b->{left};
        for my $rid (@{ $b->{running} }) {
            my ($code) = $s->settle({ rid => $rid, receipt => Keytoll::Store::share($b), cost => 1 });
            ($code) = $s->settle({ rid => $rid, receipt => $b->{receipt}, cost => 1 }) if $code == 3;
            $spent++;
        }
    }
    $s->settle({ rid => $_->{rid}, receipt => '', cost => 1 }), $spent++ for @single;
    my $st = state_of($t);
    my $ok = $over == 0 && $st->{used} == $spent && $st->{held} == 0 && $st->{par} == 0;
    ok($ok, "round $round: never over, all released, every cost once") or diag("over $over used $st->{used} spent $spent held $st->{held} par $st->{par} KEYTOLL_SEED=$seed");
    last unless $ok;
}
is($s->left, 0, 'no hold and no lease at the end');

$s->finish;
