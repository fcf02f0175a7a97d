# The invariants of DESIGN 4 that the function library keeps, one by one.
# KEYTOLL_LONG=1 also watches one window in real time (65 s).

use strict;
use warnings;
no warnings 'portable';                        # 64 bits everywhere
use Test::More;
use Time::HiRes qw(time sleep);
use Time::Local qw(timegm);
use Keytoll::Test;
use Keytoll::Store;
use Keytoll::Model;

my $T = JSON::PP::true;
srand(my $seed = $ENV{KEYTOLL_SEED} // time * 1000 % 1_000_000_000);
diag("KEYTOLL_SEED=$seed") if $ENV{KEYTOLL_SEED};

my $s = Keytoll::Store->new(clock => 'key');
my $serial = 0;

# A key with this policy and the entities it names; its token.
sub make_key {
    my ($p, %more) = @_;
    my $t = token('inv' . ++$serial);
    $s->policy(global => {}, %more, "key:$t" => { refs => [(grep { !/^(global|customer|tag)/ } sort keys %more), 'global'], %$p });
    return $t;
}

sub field { my ($ent, $f) = @_; return $s->state($ent)->{$f} }
sub verdict { return Keytoll::Model::name($_[0]{code}) }
sub decimal { require Math::BigInt; return Math::BigInt->new($_[0]) }

subtest 'inv01_one_refusal_no_trace' => sub {
    my $nobody = token('nobody');
    my %full = (rpm => 1000, tpm => 100000, par => 50, limit => usd(1), strict => $T);
    my $case = sub {
        my ($want, $token, $who, %a) = @_;
        my $before = $s->digest;
        my $v = $s->admit(token => $token, bound => 5_000_000, in_bound => 10, out_bound => 10, %a);
        is(verdict($v), $want, "$want is refused");
        is($v->{ent}, $who, 'and names who refuses') if defined $who;
        is(Keytoll::Store::moved($before, $s->digest), '', 'without a trace');
    };
    my $under = sub { my ($key, $team) = @_; return make_key({ %full, %$key }, 'team:T' => { %full, %$team }, 'org:O' => {%full}) };
    my $t;
    $case->(key_unknown => $nobody, '');
    $case->(stale => $under->({}, {}), undef, gen => 0);
    $case->(not_ready => $under->({}, {}), '', gen => 99);
    $case->(missing => make_key({ %full, refs => ['team:T', 'org:never'] }, 'team:T' => {%full}), 'org:never');
    $t = $under->({ blocked => $T }, {}); $case->(key_blocked => $t, "key:$t");
    $t = $under->({ models => ['other'] }, {}); $case->(key_model => $t, "key:$t");
    $t = $under->({ expires_ms => $s->now }, {}); $case->(key_expired => $t, "key:$t");
    $case->(ent_blocked => $under->({}, { blocked => $T }), 'team:T');
    $case->(ent_model => $under->({}, { models => ['x*'] }), 'team:T');
    $t = $under->({ routes => ['/v1/embeddings'] }, {}); $case->(route => $t, "key:$t");
    $case->(budget => $under->({}, { limit => '4999999' }), 'team:T');
    $case->(budget => $under->({}, { limit => '0' }), 'team:T');
    $case->(credits => $under->({}, { limit => '999999', unit => 'ucr' }), 'team:T');
    $case->(rpm => $under->({}, { rpm => 0 }), 'team:T');
    $case->(tpm => $under->({}, { tpm => 19 }), 'team:T');
    $case->(parallel => $under->({}, { par => 0 }), 'team:T');
    $case->(unpriced => $under->({}, {}), undef, flags => 4);
    $case->(model_unknown => $under->({}, {}), undef, flags => 2);
    $t = $under->({}, { limit => '9000000' });
    is(verdict(my $v = $s->admit(token => $t, bound => 5_000_000)), 'admitted', 'one passes');
    $case->(held => $t, 'team:T');
    $s->settle({ rid => $v->{rid}, receipt => $v->{receipt}, cost => 1 });
    $s->{r}->fcall('kt_policy_del', 'org:O', $s->{ver}++);
    $case->(ent_blocked => $t, 'org:O');
    is($s->left, 0, 'nothing is held');
};

# Many processes admit and settle; a sampler looks all the time.
sub race {
    my (%o) = @_;
    my ($children, $each) = (8, 130);
    my @pids;
    for my $c (1 .. $children) {
        my $pid = fork // die;
        next if $pid and push @pids, $pid;
        srand $seed + $c + $serial * 100;
        $s->{r} = Keytoll::Redis->new($s->{sock});
        my @open;
        for (1 .. $each) {
            my $bound = 1 + int rand $o{max};
            my $v = $s->admit(token => $o{token}, bound => $bound);
            push @open, { rid => $v->{rid}, receipt => $v->{receipt}, cost => int rand $bound + 1 } if $v->{code} == 0;
            $s->settle(splice @open, rand @open, 1) if @open > 3 || @open && rand() < 0.4;
        }
        $s->settle(@open) if @open;
        POSIX::_exit(0);
    }
    my ($samples, $over, $most) = (0, 0, 0);
    while (@pids) {
        for my $ent (@{ $o{ents} }) {
            my $e = $s->state($ent);
            $samples++;
            my $sum = $e->{used} + $e->{held};
            $most = $sum if $sum > $most;
            $over++ if $sum > $e->{limit};
        }
        @pids = grep { waitpid($_, POSIX::WNOHANG()) == 0 } @pids;
    }
    return ($samples, $over, $most);
}

subtest 'inv02_never_over_strict' => sub {
    my $t = make_key({ limit => '40000', strict => $T }, 'team:S' => { limit => '30000', strict => $T }, 'org:S' => { limit => '1000000', strict => $T });
    my ($samples, $over, $most) = race(token => $t, max => 900, ents => ["key:$t", 'team:S', 'org:S']);
    cmp_ok($samples, '>', 100, "$samples samples");
    is($over, 0, 'used + held never above a limit');
    cmp_ok($most, '>', 29000, "the limit was reached: $most of 30000");
    is($s->left, 0, 'all settled');
    is(field('team:S', 'used'), field("key:$t", 'used'), 'the same on every level');
};

subtest 'inv02_never_over_last_call' => sub {
    my ($limit, $max) = (30000, 900);
    my $t = make_key({ limit => "$limit" });
    my ($samples, $over, $most) = race(token => $t, max => $max, ents => ["key:$t"]);
    my $used = field("key:$t", 'used');
    cmp_ok($used, '<', $limit + $max, "over by less than one request: $used of $limit");
    cmp_ok($used, '>=', $limit - $max, 'and spent to the end');
    is($s->left, 0, 'all settled');

    my %level = (key => undef, user => 'user:lc', team => 'team:lc', member => 'member:lc/u', org => 'org:lc', customer => 'customer:lc', tag => 'tag:lc');
    for my $level (sort keys %level) {
        my $ent = $level{$level};
        my $t = $ent ? make_key({}, $ent => { limit => '1000' }) : make_key({ limit => '1000' });
        $ent //= "key:$t";
        my $ask = sub { $s->admit(token => $t, bound => $_[0], customer => 'customer:lc', tags => 'tag:lc') };
        my $end = sub { my ($v, $cost) = @_; $s->settle({ rid => $v->{rid}, receipt => $v->{receipt}, cost => $cost }) };
        my @v = map { $ask->($_) } 900, 900, 900, 100, 1;
        is(join(' ', map { verdict($_) } @v), 'admitted admitted held admitted held', "$level: what fits passes, and one that does not");
        is(field($ent, 'held'), 1000, 'which holds nothing');
        like($v[1]{receipt}, qr/^\Q$ent\E\t\d+\t(?:1040)$/m, 'and is marked');
        $end->($v[0], 200);
        is(verdict($ask->(900)), 'held', 'room that is freed meanwhile admits no second one');
        is(verdict(my $small = $ask->(700)), 'admitted', 'but one that fits');
        $end->($v[1], 900);
        is(verdict($ask->(1)), 'budget', 'it has crossed the line: nothing is left');
        $end->($v[3], 100);
        $end->($small, 0);
        is(field($ent, 'used'), 1200, 'by its own cost');
        is(verdict($ask->(1)), 'budget', 'no other follows');
        is($s->left, 0, 'nothing is held');
        $s->{r}->fcall('kt_policy_del', $ent, $s->{ver}++);
    }

    $t = make_key({ limit => '1000' });
    my $v = $s->admit(token => $t, bound => 5000, lease => 1000);
    is(verdict($s->admit(token => $t, bound => 5000)), 'held', 'a last call runs');
    $s->policy("key:$t" => { limit => '9000', strict => $T, refs => ['global'] });
    is(verdict($s->admit(token => $t, bound => 5000)), 'held', 'strict waits for one of before');
    $s->policy("key:$t" => { limit => '1000', refs => ['global'] });
    $s->pass(1500);
    $s->{r}->fcall('kt_sweep', 10);
    is(verdict($s->admit(token => $t, bound => 5000)), 'admitted', 'one that is lost ends with its lease');
    $s->pass(61_000);
    $s->{r}->fcall('kt_sweep', 10);
    is($s->left, 0, 'nothing is held');

    $t = make_key({ limit => '1000', gt => $T });
    my @v = map { $s->admit(token => $t, bound => 1000) } 1 .. 3;
    is(join(' ', map { verdict($_) } @v), 'admitted admitted held', 'where only more than the limit refuses, nothing left is something left');
    $s->settle(map { { rid => $_->{rid}, receipt => $_->{receipt}, cost => 1000 } } @v[0, 1]);
    is(field("key:$t", 'used'), 2000, 'once');
};

subtest 'inv03_settle_once' => sub {
    my $t = make_key({}, 'team:E' => {});
    my $rows = sub { scalar $s->stream };
    my $base = $rows->();
    my $v = $s->admit(token => $t, bound => 1000);
    my $it = { rid => $v->{rid}, receipt => $v->{receipt}, cost => 700 };
    is_deeply([$s->settle($it, $it, $it)], [0, 1, 1], 'three times in one call');
    is_deeply([$s->settle($it)], [1], 'and again');
    is(field('team:E', 'used'), 700, 'charged once');
    is($rows->() - $base, 1, 'one event');

    my @v = map { $s->admit(token => $t, bound => 1000) } 1 .. 300;
    my @it = map { { rid => $_->{rid}, receipt => $_->{receipt}, cost => 10 } } @v;
    my @pids;
    for (1 .. 6) {
        my $pid = fork // die;
        next if $pid and push @pids, $pid;
        $s->{r} = Keytoll::Redis->new($s->{sock});
        my @mine = sort { rand() <=> 0.5 } @it;
        while (@mine) { $s->settle(splice @mine, 0, 1 + rand 40) }
        POSIX::_exit(0);
    }
    waitpid $_, 0 for @pids;
    is(field('team:E', 'used'), 700 + 3000, '300 settlements from six senders at once');
    is($rows->() - $base, 301, '300 events');

    $v = $s->admit(token => $t, bound => 1000, est => 30, lease => 1000);
    $s->pass(1500);
    is($s->{r}->fcall('kt_sweep', 10)->[0], 1, 'a lost request is swept');
    is(field('team:E', 'used'), 3730, 'and charged its estimate');
    $it = { rid => $v->{rid}, receipt => $v->{receipt}, cost => 400 };
    is_deeply([$s->settle($it, $it)], [0, 1], 'its settlement comes after all');
    is(field('team:E', 'used'), 4100, 'and replaces the estimate');
    is(($s->stream)[-1][2], 'fix 30', 'in the ledger too');

    $v = $s->admit(token => $t, bound => 1000, est => 30, lease => 1000);
    $s->pass(1500);
    $s->{r}->fcall('kt_sweep', 10);
    $s->settle({ rid => $v->{rid}, receipt => $v->{receipt}, release => 1 });
    is(field('team:E', 'used'), 4100, 'a release after the sweep gives the estimate back');
    my $e = ($s->stream)[-1];
    is("$e->[2] " . json($e->[0])->{cost}, 'fix 30 0', 'in the ledger too');

    # a replica that was behind, told by a rebuild what is settled
    $v = $s->admit(token => $t, bound => 1000, est => 30, lease => 1000);
    my $w = $s->admit(token => $t, bound => 1000, est => 30, lease => 1000);
    $s->{r}->call('SADD', 'kt:{0000}:d:' . int(hex(substr $_->{rid}, 0, 12) / 3_600_000), $_->{rid}) for $v, $w;
    is_deeply([$s->settle({ rid => $v->{rid}, receipt => '', cost => 5 })], [1], 'what is settled is a duplicate, though a hold stands');
    is($s->{r}->fcall('kt_settle', Keytoll::Store::group_args($v->{receipt}, map { { bound => 1000, rid => $_->{rid}, cost => 5 } } $v, $w))->[2], 3, 'also in a group');
    $s->pass(1500);
    is($s->{r}->fcall('kt_sweep', 10)->[0], 2, 'the holds end with their lease');
    is(field('team:E', 'used'), 4100, 'for nothing');
    is(field('team:E', 'held'), 0, 'and are released');

    # a limit that is gone while a request runs, and comes back
    $s->policy('default:customer' => { sub => [{ m => 'm1', e => 'default:customer~m~m1' }] }, 'default:customer~m~m1' => { t => 'model', limit => 8000, strict => $T });
    my $m1 = 'customer:gone~m~m1';
    $v = $s->admit(token => $t, bound => 4000, model => 'm1', customer => 'customer:gone');
    is(field($m1, 'held'), 4000, 'the default holds');
    my $kept = $s->admit(token => $t, bound => 4000, model => 'm1', customer => 'customer:kept');
    $s->settle({ rid => $kept->{rid}, receipt => '', cost => 3 });
    $s->{r}->fcall('kt_policy_del', 'default:customer~m~m1', $s->{ver}++);
    my $newcomer = $s->admit(token => $t, bound => 9000, model => 'm1', customer => 'customer:new');
    is($newcomer->{code}, 0, 'a meter of the default that is gone limits no newcomer');
    $s->settle({ rid => $newcomer->{rid}, receipt => '', cost => 0 });
    $s->policy('customer:kept~m~m1' => { t => 'model', limit => 9000 });
    is(field('customer:kept~m~m1', 'used'), 3, 'who counted before and gets a rule of his own keeps what he used');
    $s->{r}->fcall('kt_policy_del', 'customer:kept~m~m1', $s->{ver}++);
    $s->policy('default:customer' => {});
    $s->settle({ rid => $v->{rid}, receipt => '', cost => 11 });
    $s->policy('default:customer' => { sub => [{ m => 'm1', e => 'default:customer~m~m1' }] }, 'default:customer~m~m1' => { t => 'model', limit => 8000, strict => $T });
    is(join(' ', map { field($m1, $_) } qw(used held)), '11 0', 'what settled meanwhile is counted, and nothing is held');
    $s->{r}->fcall('kt_policy_del', $_, $s->{ver}++) for 'default:customer~m~m1', 'default:customer';

    # of one who follows the default again: the most that is known
    $s->policy('default:customer' => {}, 'customer:again' => {});
    $s->{r}->fcall('kt_policy_del', 'customer:again', $s->{ver}++);
    $v = $s->admit(token => $t, bound => 40, customer => 'customer:again');
    $s->settle({ rid => $v->{rid}, receipt => '', cost => 7 });
    $s->policy('customer:again' => { used => '5007' });
    is(field('customer:again', 'used'), 5007, 'PostgreSQL knew more than Redis');
    $s->{r}->fcall('kt_policy_del', 'default:customer', $s->{ver}++);
    $s->settle({ rid => $_->{rid}, receipt => '', release => 1 }) for $v;

    $v = $s->admit(token => $t, bound => 1000);
    my $before = $s->picture;
    my @after = map { { rid => $_->{rid}, receipt => $_->{receipt}, cost => 5 } } $v, map { $s->admit(token => $t, bound => 50) } 1 .. 20;
    $s->settle(@after);
    $s->restore($before);
    $s->settle(@after, @after[0 .. 5]);
    is(field('team:E', 'used'), 4100 + 11 + 3 + 7 + 105, 'sent again to a Redis that forgot a part: as if nothing had happened');
    is($s->left, 0, 'nothing is held');
};

subtest 'inv04_no_phantom' => sub {
    my $t = make_key({ par => 3, limit => usd(1), strict => $T, rpm => 100 }, 'team:P' => { par => 5, limit => usd(1) });
    my $zero = sub { my $e = $s->state($_[0]); return "$e->{held} $e->{par}" };
    my @v = map { $s->admit(token => $t, bound => 1_000_000, lease => 2000, est => 7) } 1 .. 4;
    is(join(' ', map { verdict($_) } @v), 'admitted admitted admitted parallel', 'three slots');
    $s->pass(1500);
    is($s->{r}->fcall('kt_renew', 2000, $v[0]{rid}, '', $v[3]{rid}, ''), 1, 'one is renewed, a refused one cannot be');
    $s->pass(1000);
    is(join(',', @{ $s->{r}->fcall('kt_sweep', 100) }), '2,1', 'the two others end with their lease');
    is(verdict($s->admit(token => $t, bound => 1, lease => 10)), 'admitted', 'their slots are free');
    $s->pass(5000);
    $s->{r}->fcall('kt_sweep', 100);
    is($zero->("key:$t"), '0 0', 'no hold, no slot on the key');
    is($zero->('team:P'), '0 0', 'nor on the team');

    my $v = $s->admit(token => $t, bound => 1_000_000);
    is_deeply([$s->settle({ rid => $v->{rid}, receipt => '', release => 1 })], [0], 'a grant whose reply was lost is given up without a receipt');
    is($zero->("key:$t"), '0 0', 'nothing is left of it');

    my $rid = Keytoll::Store::rid($s->now);
    is_deeply([$s->settle({ rid => $rid, receipt => '', release => 1 })], [2], 'given up before it arrived');
    is(verdict($s->admit(token => $t, rid => $rid)), 'missing', 'it is refused when it does');

    $v = $s->admit(token => $t, bound => 1_000_000);
    $s->settle({ rid => $v->{rid}, receipt => "2\t" . $s->now . "\tm1\nkey:$t\t0\t64\n", cost => 12 });
    is($zero->("key:$t") . ' ' . $zero->('team:P'), '0 0 0 0', 'one that passed unreserved while its grant was lost leaves no hold');

    $v = $s->admit(token => $t, bound => 1_000_000, model => "a=b\tc=\td");
    $s->pass(70_000);
    is($s->{r}->fcall('kt_sweep', 10)->[0], 1, 'a model name with the marks of the format cannot stop the sweeper');

    $v = $s->admit(token => $t, bound => 1_000_000);
    $s->{r}->fcall('kt_policy_del', 'team:P', $s->{ver}++);
    $s->settle({ rid => $v->{rid}, receipt => $v->{receipt}, cost => 3 });
    is($s->left . ' ' . $zero->("key:$t"), '0 0 0', 'an entity deleted in between does not matter');

    my $open = $s->admit(token => make_key({ par => 1, limit => usd(1) }), bound => 500, est => 9);
    my ($k) = $open->{receipt} =~ /^key:(\w+)/m;
    my $text = Keytoll::Store::hold_text($open->{receipt}, "{}", $s->complete(bound => 500, est => 9));
    $s->{r}->call('DEL', "kt:{0000}:h:$open->{rid}", "kt:{0000}:e:key:$k");
    $s->policy("key:$k" => { par => 1, limit => usd(1), refs => ['global'] });
    is($s->{r}->fcall('kt_renew', 60000, ($open->{rid}, $text) x 2), 2, 'a hold that Redis forgot is put back');
    is($zero->("key:$k"), '500 1', 'once');
    $s->settle({ rid => $open->{rid}, receipt => $open->{receipt}, cost => 3 });
    is($s->{r}->fcall('kt_renew', 60000, $open->{rid}, $text), 0, 'not after it was settled');
    is($zero->("key:$k"), '0 0', 'and is gone');
};

subtest 'inv06_integers_only' => sub {
    my $big = '9223372036854775807';
    my $t = make_key({ limit => $big, strict => $T }, 'team:B' => { limit => $big });
    my ($sum, @it) = (decimal(0));
    for my $c ('9007199254740993', '1', '999999999', '1000000000', '1000000001', '123456789012345679', '4611686018427387903') {
        my $v = $s->admit(token => $t, bound => $c);
        is(verdict($v), 'admitted', "$c fits");
        is(field("key:$t", 'held'), $c, 'and is held to the nano-dollar');
        $s->settle({ rid => $v->{rid}, receipt => $v->{receipt}, cost => $c });
        $sum += $c;
        is(field("key:$t", 'used'), "$sum", "used is $sum");
    }
    my $left = decimal($big) - $sum;
    is(verdict($s->admit(token => $t, bound => $left + 1)), 'budget', 'one nano-dollar too many');
    my $v = $s->admit(token => $t, bound => "$left");
    is(verdict($v), 'admitted', 'exactly what is left');
    is(verdict($s->admit(token => $t, bound => 1)), 'held', 'then nothing');
    $s->settle({ rid => $v->{rid}, receipt => $v->{receipt}, cost => $big });
    $sum += $big;
    is(field("key:$t", 'used'), "$sum", 'a sum beyond 64 bits does not wrap');
    cmp_ok($sum, '>', decimal($big), 'it is beyond');
    is(verdict($s->admit(token => $t, bound => 1)), 'budget', 'and refuses');

    $t = make_key({});
    for (['1000000001', '1000000001'], ['999999999', '2000000000'], ['1999999999', '3999999999'], ['1', '4000000000'], ['9007199250740992999', '9007199254740992999'],
        ['1', '9007199254740993000']) {
        $s->settle({ rid => Keytoll::Store::rid($s->now), receipt => "2\t1\tm\nkey:$t\t0\t48\n", cost => $_->[0] });
        is(field("key:$t", 'used'), $_->[1], "carries to $_->[1]");
    }

    my $n = decimal(0);
    $t = make_key({});
    my @all = map { int rand 10**(1 + rand 18) } 1 .. 2000;
    while (my @c = splice @all, 0, 100) {
        $s->settle(map { $n += $_; { rid => Keytoll::Store::rid($s->now), receipt => "2\t1\tm\nkey:$t\t0\t48\n", cost => $_ } } @c);
    }
    is(field("key:$t", 'used'), "$n", '2,000 random amounts sum exactly');
    my $e = $s->state("key:$t");
    ok(!grep({ defined && /[.eE]/ } @$e{qw(used held limit)}), 'no float is shown');

    for my $bad ('1.5', '-1', '1e9', '', 'x', '1' x 30, ' 1') {
        my $before = $s->digest;
        ok(!eval { $s->policy("key:$t" => { limit => $bad }); 1 }, "the limit \"$bad\" is an error");
        ok(!eval { $s->{r}->fcall('kt_adjust', Keytoll::Store::rid($s->now), "key:$t", $bad eq '-1' ? '--1' : $bad, '{}'); 1 }, 'and the adjustment');
        is(Keytoll::Store::moved($before, $s->digest), '', 'without effect');
    }
    ok(!eval { $s->{r}->fcall('kt_policy_set', "key:$t", '{"v":99999,"t":"key","limit":5}'); 1 }, 'a limit that is a JSON number is an error');
};

subtest 'inv07_missing_fact_is_no_permission' => sub {
    my $t = make_key({ limit => usd(1) }, 'team:M' => {});
    my $v = $s->admit(token => $t, bound => 10);
    is(verdict($v), 'admitted', 'ready');
    my $it = { rid => $v->{rid}, receipt => $v->{receipt}, cost => 4 };
    is(verdict($s->admit(token => $t, gen => $s->{gen} + 1)), 'not_ready', 'an older generation than the gate has seen');
    is(verdict($s->admit(token => $t, gen => 0)), 'stale', 'a newer one asks for the new prices');
    $s->{r}->call('DEL', 'kt:{0000}:gen');
    my $before = $s->digest;
    is(verdict($s->admit(token => $t)), 'not_ready', 'no generation');
    is(verdict($s->admit(token => token('nobody'))), 'not_ready', 'an unknown key is not unknown while not ready');
    is_deeply([$s->settle($it)], [-1], 'settlements are sent back');
    is($s->{r}->fcall('kt_renew', 1000, $v->{rid}, 'x'), -1, 'renewals too');
    is_deeply($s->{r}->fcall('kt_sweep', 10), [0, 0], 'nothing is swept');
    is(Keytoll::Store::moved($before, $s->digest), '', 'nothing has changed');
    $s->open(++$s->{gen});
    is_deeply([$s->settle($it)], [0], 'open again');
    ok(!eval { $s->{r}->fcall('kt_used_set', "key:$t", 0, 1); 1 }, 'used cannot be set while open');
    $s->{r}->call('DEL', 'kt:{0000}:e:team:M');
    my $no = $s->admit(token => $t);
    is(verdict($no) . " $no->{ent}", 'missing team:M', 'a lost entity is named and refuses');
    $s->{r}->call('FLUSHALL');
    $s->at($s->{now});
    is(verdict($s->admit(token => $t)), 'not_ready', 'everything lost');
    ok($s->admit(token => $t)->{code} == 1, 'the functions survive FLUSHALL');
    $s->open(++$s->{gen});
};

subtest 'windows_any_60_s' => sub {
    for my $burst (0, 1) {
        my ($limit, $tokens) = (20, 1000);
        my $t = make_key({ rpm => $limit, tpm => $tokens });
        my (@ok, @tok, $refused, $false);
        my $end = $s->now + 600_000;
        while ($s->now < $end || !$refused) {
            my $need = 1 + int rand 120;
            my $v = $s->admit(token => $t, in_bound => $need);
            my $now = $s->now;
            shift @ok while @ok > 5000;
            if ($v->{code} == 0) {
                push @ok, [$now, $need];
                $s->settle({ rid => $v->{rid}, receipt => $v->{receipt}, in => $need });
            } else {
                $refused++;
                my ($n, $sum) = (0, 0);
                $_->[0] > $now - 61_000 and $n++, $sum += $_->[1] for @ok;
                $false++ if $n < $limit && $sum + $need <= $tokens;
            }
            # 1: pile up on both sides of the edges of seconds
            $s->pass($burst ? one_of(0, 0, 0, 999 - $now % 1000, 1000 - $now % 1000, 30_000 - $now % 30_000) : int rand 2500);
        }
        my ($most, $most_tok) = (0, 0);
        for my $a (@ok) {
            my ($n, $sum) = (0, 0);
            $_->[0] >= $a->[0] && $_->[0] < $a->[0] + 60_000 and $n++, $sum += $_->[1] for @ok;
            $most = $n if $n > $most;
            $most_tok = $sum if $sum > $most_tok;
        }
        cmp_ok($most, '<=', $limit, "at most $limit requests in any 60 s ($most)" . ($burst ? ', in bursts' : ''));
        cmp_ok($most_tok, '<=', $tokens, "at most $tokens tokens in any 60 s ($most_tok)");
        cmp_ok($refused, '>', 0, "$refused refusals");
        is($false // 0, 0, 'none of them while 61 s held room');
    }
};

sub one_of { return $_[rand @_] }

subtest 'windows_retry_after_is_true' => sub {
    for my $round (1 .. 40) {
        my %p = rand() < 0.5 ? (rpm => 1 + int rand 6) : (tpm => 100 + int rand 400);
        my $t = make_key(\%p);
        my $need = 1 + int rand 80;
        my $v;
        for (1 .. 400) {
            $v = $s->admit(token => $t, in_bound => $need);
            last if $v->{code};
            $s->pass(int rand 9000);
        }
        next unless $v->{code};
        cmp_ok($v->{retry}, '<=', 61_000, "retry after $v->{retry} ms") or last;
        $s->pass($v->{retry} - 1);
        isnt($s->admit(token => $t, in_bound => $need)->{code}, 0, 'a millisecond earlier is too early') or last;
        $s->pass(1);
        is($s->admit(token => $t, in_bound => $need)->{code}, 0, 'then it passes') or last;
    }
    is($s->admit(token => make_key({ tpm => 10 }), in_bound => 11)->{retry}, -1, 'what can never fit has no retry');

    # several refuse: the first is named, the wait is for all
    my $slow = make_key({ rpm => 1 }, 'team:W' => { tpm => 300 });
    my $mate = token('inv-mate');
    $s->policy("key:$mate" => { refs => ['team:W', 'global'] });
    is($s->admit(token => $slow, in_bound => 1)->{code}, 0, 'one uses up its rate');
    $s->pass(6000);
    is($s->admit(token => $mate, in_bound => 299)->{code}, 0, 'another that of the team');
    my $w = $s->admit(token => $slow, in_bound => 300);
    is($w->{ent}, "key:$slow", 'both refuse: the key is named');
    cmp_ok($w->{retry}, '>', 58_000, "and the team waited for, $w->{retry} ms");
    $s->pass($w->{retry} - 1);
    isnt($s->admit(token => $slow, in_bound => 300)->{code}, 0, 'a millisecond earlier is too early');
    $s->pass(1);
    is($s->admit(token => $slow, in_bound => 300)->{code}, 0, 'then it passes');
    is($s->admit(token => $slow, in_bound => 301)->{retry}, -1, 'what can never fit in one of them has none');
    my $t = make_key({ tpm => 100 });
    my $v = $s->admit(token => $t, in_bound => 90);
    is(verdict($s->admit(token => $t, in_bound => 20)), 'tpm', 'reserved by the estimate');
    $s->settle({ rid => $v->{rid}, receipt => $v->{receipt}, in => 5, out => 5 });
    is(field("key:$t", 'tpm'), 10, 'corrected to the tokens used');
    is(verdict($s->admit(token => $t, in_bound => 90)), 'admitted', 'the rest is there again');
    $v = $s->admit(token => my $u = make_key({ rpm => 1 }), in_bound => 1);
    $s->settle({ rid => $v->{rid}, receipt => $v->{receipt}, release => 1 });
    is(verdict($s->admit(token => $u)), 'admitted', 'a request that was given up has its place back');
};

subtest 'policy_versions' => sub {
    my $t = make_key({ limit => '100' });
    my $set = sub { my ($v, %p) = @_; return $s->{r}->fcall('kt_policy_set', "key:$t", $Keytoll::Test::JSON->encode({ v => $v, t => 'key', refs => ['global'], %p }))->[0] };
    my $v = field("key:$t", 'v');
    is($set->($v - 1, limit => '5'), 'stale', 'an older policy is ignored');
    is(field("key:$t", 'limit'), 100, 'the newer one stays');
    is($set->($v + 5, limit => '8'), 'ok', 'a newer one is taken');
    is($set->($v + 5, limit => '7', used => '50'), 'ok', 'the same version again too');
    is(join(' ', @{ $s->state("key:$t") }{qw(limit used)}), '7 0', 'its seed is not');
    is($s->{r}->fcall('kt_policy_del', "key:$t", $v + 4)->[0], 'stale', 'an older deletion is ignored');
    is($s->{r}->fcall('kt_policy_del', "key:$t", $v + 5)->[0], 'ok', 'one of the same version is not');
    is($s->{r}->fcall('kt_policy_del', "key:$t", $v + 6)->[0], 'ok', 'nor a newer one');
    is($s->state("key:$t"), undef, 'deleted');
    is(verdict($s->admit(token => $t)), 'key_unknown', 'and unknown');
    is($set->($v + 5, limit => '7'), 'stale', 'a late update cannot bring it back');
    ok($s->{r}->call('TTL', "kt:{0000}:e:key:$t") > 86000, 'the tombstone stays for a day');
    is($set->($v + 9, limit => '70', used => '12'), 'ok', 'a new one of that name');
    is(field("key:$t", 'used'), 12, 'starts with its seed');
    is($s->{r}->call('TTL', "kt:{0000}:e:key:$t"), -1, 'and stays');

    my $o = $s->admit(token => $t, bound => 10);
    $set->($v + 10, limit => '70', rpm => 5, par => 2);
    is(join(' ', @{ $s->state("key:$t") }{qw(used held rpm par)}), '12 10 0 0', 'a new policy keeps the counters');
    $s->settle({ rid => $o->{rid}, receipt => $o->{receipt}, cost => 8 });
    is(join(' ', @{ $s->state("key:$t") }{qw(used held rpm par)}), '20 0 0 0', 'and what is settled over it');
};

subtest 'periods_roll_by_the_calendar' => sub {
    my $was = $s->now;
    my @days = (map({ timegm(0, 0, 0, $_->[2], $_->[1] - 1, $_->[0]) } [2000, 2, 29], [2024, 2, 29], [2100, 2, 28], [2100, 3, 1], [2400, 2, 29], [1999, 12, 31],
        [2026, 12, 31], [2038, 1, 19], [1970, 1, 31]), map { int(rand 8e9 / 86400) * 86400 } 1 .. 300);
    my ($months, $fixed, $wrong) = (0, 0, 0);
    my $t = make_key({});
    for my $day (@days) {
        for my $s_of (0, 1, 86399, int rand 86400) {
            my $at = $day + $s_of;
            $s->at($at * 1000 + int rand 1000);
            my ($a, $b) = Keytoll::Model::month_of($at);
            my $past = int rand $at;
            my (undef, $past_end) = Keytoll::Model::month_of($past);
            my ($pa) = Keytoll::Model::month_of($past);
            $s->{r}->call('DEL', "kt:{0000}:e:key:$t");
            $s->policy("key:$t" => { period => { kind => 'month', id => $pa, end_s => $past_end }, used => '55', refs => ['global'] });
            my $e = $s->state("key:$t");
            my $want = $pa == $a ? 55 : 0;
            $months++;
            $wrong++, diag("month at $at: $e->{period}..$e->{end} used $e->{used}, not $a..$b used $want")
                if $wrong < 5 && "$e->{period} $e->{end} $e->{used}" ne "$a $b $want";

            my $len = one_of(1, 30, 3600, 86400, 604800, 2592000, 1 + int rand 1e7);
            my $start = int rand $at + 1;
            $s->{r}->call('DEL', "kt:{0000}:e:key:$t");
            $s->policy("key:$t" => { period => { kind => 'fixed', len_s => $len, id => $start, end_s => $start + $len }, used => '55', refs => ['global'] });
            $e = $s->state("key:$t");
            my $n = int(($at - $start) / $len);
            $want = join ' ', $start + $n * $len, $start + ($n + 1) * $len, $n ? 0 : 55;
            $fixed++;
            $wrong++, diag("fixed $len from $start at $at: $e->{period} $e->{end} $e->{used}, not $want") if $wrong < 5 && "$e->{period} $e->{end} $e->{used}" ne $want;
        }
    }
    is($wrong, 0, "$months months and $fixed fixed periods");

    $s->at(timegm(58, 59, 23, 31, 0, 2027) * 1000);
    my ($a, $b) = Keytoll::Model::month_of($s->now / 1000);
    $t = make_key({ limit => '100', strict => $T, period => { kind => 'month', id => $a, end_s => $b } });
    my $v = $s->admit(token => $t, bound => 60);
    is(verdict($s->admit(token => $t, bound => 60)), 'held', 'January is full');
    $s->pass(2000);
    my $w = $s->admit(token => $t, bound => 60);
    is(verdict($w), 'admitted', 'February is not');
    $s->settle(map { { rid => $_->{rid}, receipt => $_->{receipt}, cost => 50 } } $v, $w);
    is(join(' ', @{ $s->state("key:$t") }{qw(used held period)}), "50 0 $b", 'a cost of January does not count in February');
    like(($s->stream)[-2][1], qr/^key:\w+\t$a\t\d+$/m, 'the ledger books it in January');

    my $day = timegm(0, 0, 0, 10, 4, 2027);
    $s->at(($day + 100) * 1000);
    my %p = (limit => '100', strict => $T);
    $t = make_key({ %p, period => { kind => 'fixed', len_s => 86400, id => $day, end_s => $day + 86400 } });
    $v = $s->admit(token => $t, bound => 90);
    $s->settle({ rid => $v->{rid}, receipt => $v->{receipt}, cost => 90 });
    $s->pass(86400_000);
    $s->policy("key:$t" => { %p, refs => ['global'], name => 'renamed', period => { kind => 'fixed', len_s => 86400, id => $day + 86400, end_s => $day + 2 * 86400 } });
    is(verdict($s->admit(token => $t, bound => 90)), 'admitted', 'an update on the next morning does not carry yesterday over');
    is(field("key:$t", 'period'), $day + 86400, 'the new day runs');
    $s->at($was);
};

# No job resets anything: over three years what is used in a period is seen in no other one.
subtest 'C61 C62 C63 C64 C65 C66 periods are derived' => sub {
    my $was = $s->now;
    my %rule = (day => ['fixed', 86400], week => ['fixed', 7 * 86400], hours => ['fixed', 12 * 3600], odd => ['fixed', 1 + int rand 3e6], month => ['month', undef]);
    my ($rolls, $wrong) = (0, 0);
    for my $name (sort keys %rule) {
        my ($kind, $len) = @{ $rule{$name} };
        my $at = int($was / 1000) + int rand 86400;
        $s->at($at * 1000);
        my ($first, $end) = $kind eq 'month' ? Keytoll::Model::month_of($at) : ($at, $at + $len);
        my %p = (limit => '1000', period => { kind => $kind, len_s => $len, id => $first, end_s => $end });
        my %ent = (team => "team:p$name", user => "user:p$name", org => "org:p$name", member => "member:p$name/u", customer => "customer:p$name", tag => "tag:p$name");
        $s->policy('default:customer' => {%p});
        my $t = make_key({%p}, map { $_ => {%p} } values %ent);
        my @all = ("key:$t", values %ent, "customer:stranger$name");
        my (%used, @open) = ();
        my $stop = $at + 3 * 366 * 86400;
        while ($at < $stop) {
            my $id = $kind eq 'month' ? (Keytoll::Model::month_of($at))[0] : $first + int(($at - $first) / $len) * $len;
            $rolls++ if !exists $used{$id};
            $used{$id} //= { map { $_ => 0 } @all };
            for my $c ($ent{customer}, "customer:stranger$name") {
                my $v = $s->admit(token => $t, bound => 50, customer => $c, tags => $ent{tag});
                push @open, { v => $v, id => $id, ents => [(grep { !/^customer/ } @all), $c] } if $v->{code} == 0;
            }
            # some end in a later period than they began in
            while (@open > 3) {
                my $o = splice @open, rand @open, 1;
                my $cost = 1 + int rand 50;
                $s->settle({ rid => $o->{v}{rid}, receipt => $o->{v}{receipt}, cost => $cost });
                $used{ $o->{id} }{$_} += $cost for @{ $o->{ents} };
            }
            if (rand() < 0.1) { $s->policy($_ => {%p, name => 'edited'}) for $ent{team}, 'default:customer' }
            for my $e (@all) {
                my $st = $s->state($e) or next;
                next if $wrong > 3 || "$st->{period} $st->{used}" eq "$id $used{$id}{$e}";
                $wrong++;
                diag("$name $e at $at: period $st->{period} used $st->{used}, not $id $used{$id}{$e}");
            }
            $at += one_of(60, 3600, 86400, 86400 * (1 + int rand 40));
            $s->at($at * 1000);
        }
        $s->settle(map { { rid => $_->{v}{rid}, receipt => $_->{v}{receipt}, release => 1 } } @open);
        $s->{r}->fcall('kt_policy_del', 'default:customer', $s->{ver}++);
    }
    is($wrong, 0, "$rolls periods on eight levels");
    $s->at($was);
};

SKIP: {
    skip 'KEYTOLL_LONG=1 watches a window in real time', 1 unless $ENV{KEYTOLL_LONG};
    subtest 'windows_in_real_time' => sub {
        my $real = Keytoll::Store->new;
        my $t = token('real');
        $real->policy(global => {}, "key:$t" => { rpm => 50, refs => ['global'] });
        my ($from, @ok) = time;
        while (time < $from + 66) {
            my $v = $real->admit(token => $t);
            push @ok, $v->{now} if $v->{code} == 0;
            sleep 0.01;
        }
        is(scalar(grep { $_ < $ok[0] + 60_000 } @ok), 50, '50 in the first 60 s');
        is(scalar(@ok), 100, 'the next 50 before 66 s');
        cmp_ok($ok[50] - $ok[0], '<=', 61_000, 'capacity came back in ' . ($ok[50] - $ok[0]) . ' ms');
        $real->stop;
    };
}

$s->finish;
