# The function library against a plain model of DESIGN 3 to 5: random sequences
# of every operation, each verdict and the state of every entity compared.
#
# KEYTOLL_SEED=n repeats one sequence, KEYTOLL_LONG=1 runs many more.

use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time sleep);
use Keytoll::Test;
use Keytoll::Store;
use Keytoll::Model;

my $LONG = $ENV{KEYTOLL_LONG};
my $SEQUENCES = $LONG ? 600 : 60;
my $OPS = $LONG ? 400 : 200;

my $virtual = Keytoll::Store->new(clock => 'key');
my $real = Keytoll::Store->new;
my ($s, $r, $m, @settled, @live, %cost_of, %ucr_of, %seed_used, %broken, %count, @names, $ver);

my %TOKEN = map { $_ => token("sk-model-$_") } 1 .. 5;
my @KEYS = map { "key:$TOKEN{$_}" } 1 .. 5;
my @MODELS = qw(m1 m2 vendor/m3 a=b);
my %CHEAP = (bound => 70, ucr => 1_000_000, est => 5, in_bound => 9, in_typ => 8, out_bound => 7, out_typ => 6);
my @STRANGERS = map { "customer:new$_" } 1 .. 3;
my @THEIRS = map { $_, "$_~m~m1" } @STRANGERS;
my @BIG = (9_007_199_254_740_993, 123_456_789_012_345_678, 999_999_999, 1_000_000_000);

sub one { return $_[rand @_] }
sub chance { return rand() < $_[0] }


# ------------------------------------------------------------------- policies

sub period {
    my $now = int($m->{now} / 1000);
    my $kind = one(qw(none none fixed month));
    return { kind => 'none', id => 0, end_s => 0 } if $kind eq 'none';
    if ($kind eq 'fixed') {
        my $len = one(1, 7, 60, 3600, 86400, 604800);
        my $back = chance(0.2) ? int rand 5 * $len : 0;          # one that has run out already
        my $start = $now - int(rand $len) - $back;
        return { kind => 'fixed', len_s => $len, id => $start, end_s => $start + $len };
    }
    my $at = chance(0.2) ? $now - int rand 90 * 86400 : $now;
    my ($a, $b) = Keytoll::Model::month_of($at);
    return { kind => 'month', id => $a, end_s => $b };
}

sub shape {
    my $name = shift;
    my ($t) = $name =~ /^(\w+)/;
    $t = 'customer' if $t eq 'default';
    $t = $name =~ /~w~/ ? 'window' : 'model' if $name =~ /~/;
    my %p = (v => $ver++, t => $t, name => one('', "alias of $t"), period => period());
    if (chance($t eq 'global' ? 0.2 : 0.45)) {
        $p{limit} = '' . (chance(0.02) ? 0 : chance(0.3) ? one(@BIG) : one(1, 5, 20, 200) * one(1000, 1_000_000, 1_000_000_000));
        $p{unit} = 'ucr' if chance(0.15);
        $p{limit} = '' . one(1, 3, 10) * 1_000_000 if $p{unit} && $p{limit} ne '0';
    }
    $p{strict} = JSON::PP::true if chance(0.5);
    $p{gt} = JSON::PP::true if chance(0.3);
    $p{rpm} = one(0, 1, 3, 10, 40) if chance(0.25);
    $p{tpm} = one(0, 50, 500, 5000) if chance(0.25);
    $p{par} = one(0, 1, 2, 8) if chance(0.2);
    $p{tpm_type} = one(qw(total input output)) if chance(0.5);
    $p{blocked} = JSON::PP::true if chance(0.015);
    $p{status} = qw(active suspended paused)[rand 3] if chance(0.02);
    $p{expires_ms} = $m->{now} + int(rand 40000) - 500 if chance(0.03);
    $p{models} = [one([], ['m1'], ['m1', 'm2', 'vendor/*'], ['*'], ['no-default-models'], ['m*', 'a=b'], ['v.ndor/*'])] if chance(0.07);
    $p{models} = $p{models}[0] if $p{models};
    $p{routes} = one([], ['llm_api_routes'], ['openai_routes'], ['/v1/chat/*'], ['/v1/messages'], ['anthropic_routes'], ['/v1']) if $t eq 'key' && chance(0.15);
    $p{master} = JSON::PP::true if $t eq 'key' && chance(0.04);
    $p{used} = '' . int rand 1000 if chance(0.2);
    my %ref = (
        $KEYS[0] => ['user:u%201', 'global'],
        $KEYS[1] => ['team:t1', 'org:o1', 'member:t1/u2', { e => 'user:u2', money => JSON::PP::false }, 'global'],
        $KEYS[2] => ['team:t1', 'global'],
        $KEYS[3] => ['user:u2', 'org:o1', 'global'],
        $KEYS[4] => ['global'],
    );
    $p{refs} = $ref{$name} if $ref{$name};
    $p{refs} = [@{ $p{refs} }[0 .. $#{ $p{refs} } - 1], 'org:absent'] if $ref{$name} && chance(0.02);
    $p{throttle} = one(1, 34, 50, 99) if $t eq 'key' && chance(0.4);
    $p{falls} = { one(@MODELS) => [one(@MODELS), one(@MODELS)] } if $t eq 'key' && chance(0.2);
    $p{params} = [one('user', 'seed', 'n'), one('user', 'metadata.job')] if $t eq 'key' && chance(0.1);
    $p{service} = JSON::PP::true if $t eq 'key' && chance(0.2);
    @p{qw(params sparams)} = ([one('seed', 'n')], [one('user', 'team')]) if $t eq 'global' && chance(0.2);
    $p{aliases} = { one(@MODELS) => one(@MODELS, 'elsewhere') } if $t eq 'key' && chance(0.2);
    if ($name =~ /^(?:key:\w+|team:t1|user:u2)$/ && chance(0.5)) {
        $p{win} = ["$name~w~1d"] if chance(0.6);
        $p{sub} = [{ m => 'm1', e => "$name~m~m1" }] if chance(0.6);
    }
    $p{sub} = [{ m => 'm1', e => one($name, 'default:customer') . '~m~m1' }] if $name =~ /^(?:default|customer):\w+$/ && chance(0.6);
    return \%p;
}

sub base { return map { $_, "$_~w~1d", "$_~m~m1" } @KEYS, 'team:t1', 'user:u2' }

# ----------------------------------------------------------------- comparison

sub is_same {
    my ($got, $want, $what) = @_;
    return if $got eq $want;
    fail($what);
    diag("library: $got\nmodel:   $want");
    return die "stop\n";
}

sub state_of {
    my $v = shift;
    return $v ? join ' ', map { length $_ ? $_ : '-' } @$v : 'none';
}

sub compare_states {
    my $what = shift;
    my @all = (@names, @THEIRS);
    my $got = $r->fcall('kt_state', @all);
    for my $i (0 .. $#all) {
        is_same(state_of($got->[$i]), $m->state($all[$i]) // 'none', "$what: state of $all[$i]");
    }
}

# The clock of the next operation, read the same by both.
sub tick {
    if ($s == $virtual) {
        my $ms = chance(0.6) ? int rand 40 : chance(0.75) ? int rand 700 : chance(0.7) ? int rand 20000
               : chance(0.6) ? 55000 + int rand 10000 : chance(0.6) ? int rand 7200_000 : int rand 40 * 86400_000;
        $s->pass($ms);
    } else {
        sleep 0.3 if chance(0.01);
        sleep 0.12 while ($s->now % 1000) > 850;
    }
    $m->{now} = $s->now;
}

# Real clock: what the reply says about it.
sub said { $m->{now} = $_[0] if $s == $real && $_[0] && int($_[0] / 1000) == int($m->{now} / 1000) }

# ----------------------------------------------------------------- operations

sub request {
    my $k = int 1 + rand 5;
    return (
        token => chance(0.02) ? token('nobody') : $TOKEN{$k}, model => one(@MODELS), gen => $m->{gen}, class => one(qw(chat chat messages)),
        flags => (chance(0.05) ? one(1, 2, 4) : 0) + (chance(0.5) ? 16 : 0) + (chance(0.5) ? 64 : 0), seen => one(undef, undef, 'user', 'user\tseed', 'seed', 'user\tmetadata.job', 'seed\tuser'), customer => chance(0.2) ? 'customer:c1' : chance(0.2) ? one(@STRANGERS) : '', provider => one('', 'vendor'),
        tags => chance(0.15) ? "tag:a\ttag:none" : '', lease => one(1500, 30000, 60000, 60000),
    );
}

sub costs {
    my $out = one(0, 10, 100, 1000);
    my %a = (@_, rid => Keytoll::Store::rid($m->{now}), ucr => 1_000_000, bound => int rand one(1000, 3_000_000, 20_000_000_000),
        in_bound => int(rand 200), out_bound => $out);
    $a{bound} = one(@BIG) + int rand 10 if chance(0.05);
    $a{path} = $a{class} eq 'messages' ? '/v1/messages' : '/v1/chat/completions';
    $a{in_typ} = int($a{in_bound} / 4);
    $a{out_typ} = int($out / 2);
    $a{est} = int($a{bound} / 7);
    $a{event} = qq({"id":"$a{rid}","n":"= \\"cost\\":\\"9\\"","cost":"$a{est}","est":1});
    return %a;
}

sub compare_verdict {
    my ($got, $a) = @_;
    my $want = $m->admit(%$a);
    my $what = "admit $a->{rid} model $a->{model}";
    is_same(Keytoll::Model::name($got->{code}), Keytoll::Model::name($want->{code}), "$what: verdict");
    $count{ Keytoll::Model::name($got->{code}) }++;
    if ($got->{code} == 0) {
        is_same($got->{receipt}, $want->{receipt}, "$what: receipt");
        push @live, { a => $a, receipt => $got->{receipt}, text => Keytoll::Store::hold_text($got->{receipt}, $a->{event}, %$a) }
            unless grep { $_->{a}{rid} eq $a->{rid} } @live;
        return;
    }
    return if $got->{code} == 2;
    return is_same($got->{target}, $want->{target}, "$what: what the alias means") if exists $want->{target};
    is_same($got->{ent}, $want->{ent}, "$what: entity named");
    for (qw(limit used held end need retry cheaper else)) {
        is_same($got->{$_}, $want->{$_}, "$what: $_ of the refusal") if exists $want->{$_};
    }
}

sub op_admit {
    my %a = costs(request());
    $a{gen} += one(-1, 1) if chance(0.02);
    %a = (%{ one(@live)->{a} }, gen => $m->{gen}) if @live && chance(0.05);
    my $got = $s->admit(%a);
    said($got->{now});
    compare_verdict($got, \%a);
}

# Many in one call are as many one after another.
sub op_admit_many {
    my $lease = 60000;
    my @groups = map { my %r = request(); [map { { costs(%r, lease => $lease) } } 1 .. one(1, 2, 5, 20)] } 1 .. one(1, 1, 2, 4);
    my @got = $s->admit_many(@groups);
    said($got[0]{now});
    compare_verdict(shift @got, $_) for map { @$_ } @groups;
    $count{many}++;
}

sub args_for {
    my ($l, %o) = @_;
    my $cost = chance(0.03) ? one(@BIG) : int rand $l->{a}{bound} + 1;
    my $rid = $l->{a}{rid};
    my %it = (rid => $rid, receipt => $l->{receipt}, cost => $cost, ucr => $cost ? 1_000_000 : 0, in => int rand 100, out => int rand 300, %o);
    $it{event} = $it{release} ? '' : qq({"id":"$rid","cost":"$it{cost}","ucr":"$it{ucr}"});
    @it{qw(cost ucr in out)} = (0, 0, 0, 0) if $it{release};
    return \%it;
}

sub do_settle {
    my @it = @_ or return;
    my @got = $s->settle(@it);
    my @want = $m->settle(@it);
    is_same("@got", "@want", "settle of @{[ map { $_->{rid} } @it ]}");
    $count{"settle $_"}++ for @got;
    my @again = map { $got[$_] == 3 ? { %{ $it[$_] }, receipt => $it[$_]{full} } : () } 0 .. $#it;
    @it = @it[grep { $got[$_] != 3 } 0 .. $#it];
    $_->{receipt} = $_->{full} for grep { defined $_->{full} } @it;
    push @settled, @it;
    my %now = map { $_->{rid} => 1 } @it;
    @live = grep { !$now{ $_->{a}{rid} } } @live;
    do_settle(@again) if @again;
}

sub op_settle {
    my @it;
    for (1 .. one(1, 1, 1, 3, 8)) {
        my $how = rand;
        if ($how < 0.70 && @live) {
            my $l = one(@live);
            push @it, args_for(chance(0.5) ? { %$l, receipt => '' } : $l);
            $it[-1]{full} = $l->{receipt};
        }
        elsif ($how < 0.80 && @settled) { push @it, one(@settled) }
        elsif ($how < 0.84 && @it) { push @it, $it[0] }
        elsif ($how < 0.90 && @live) { push @it, args_for(one(@live), release => 1) }
        elsif ($how < 0.93) {                                       # passed while Redis was away
            my $rid = Keytoll::Store::rid($m->{now} - int rand 5000);
            my $l = { a => { rid => $rid, bound => 5000 }, receipt => "2\t$m->{now}\t" . one(@MODELS) . "\n" . one(@KEYS) . "\t0\t64\n"
                . join '', map { "$_\t0\t64\n" } (chance(0.3) ? one('customer:c1', @STRANGERS) : ()), (chance(0.3) ? 'tag:a' : ()) };
            push @it, args_for($l);
        } elsif ($how < 0.95 && @live) {                            # its grant never reached the gate
            my $l = one(@live);
            push @it, args_for({ %$l, receipt => chance(0.5) ? '' : "2\t$m->{now}\tm1\n$KEYS[0]\t0\t64\n" }, release => chance(0.5));
            $it[-1]{release} or $it[-1]{receipt} ne '' or $it[-1]{receipt} = "2\t$m->{now}\tm1\n$KEYS[0]\t0\t64\n";
        } elsif ($how < 0.97 && @settled) {                         # of last week
            my $x = one(@settled);
            my $rid = Keytoll::Store::rid($m->{now} - 200_000_000 - int rand 1e9);
            push @it, { %$x, rid => $rid, event => $x->{event} eq '' ? '' : qq({"id":"$rid"}) };
        } elsif (chance(0.5)) {                                     # given up before it was admitted
            my $rid = Keytoll::Store::rid($m->{now});
            push @it, args_for({ a => { rid => $rid, bound => 1, token => $TOKEN{1} }, receipt => '' }, release => 1);
        }
    }
    do_settle(@it);
}

# Requests of one receipt as a group: taken when each of them is held, else each
# comes again by itself.
sub op_settle_group {
    my (%by, %seen);
    push @{ $by{ $_->{receipt} } }, $_ for @live;
    my @alike = map { $by{$_} } grep { @{ $by{$_} } > 1 } sort keys %by or return;
    my @l = @{ one(@alike) };
    my @single = map { args_for($_) } chance(0.3) ? one(@live) : ();
    @l = grep { !@single || $_->{a}{rid} ne $single[0]{rid} } @l unless chance(0.2);
    my $receipt = $l[0]{receipt} // return;
    push @l, one(@l) if chance(0.1);
    my @it = map { { %{ $_->{a} }, %{ args_for($_) } } } @l;
    push @it, { %{ $l[0]{a} }, %{ one(@settled) } } if @settled && chance(0.1);
    return if @it < 2 || grep { $_->{event} eq '' } @it;
    return if !$m->corrects_alike(map { $_->{rid} } @single, @it);
    $seen{ $_->{rid} }++ for @single;
    my $whole = !grep { !$m->{hold}{ $_->{rid} } || $seen{ $_->{rid} }++ } @it;
    my @got = $r->fcall('kt_settle', (map { Keytoll::Store::settle_args(%$_) } @single), Keytoll::Store::group_args($receipt, @it))->@[2 .. 2 + @single];
    my @want = $m->settle(@single, $whole ? @it : ());
    is_same("@got", join(' ', @want[0 .. $#single], $whole ? 0 : 3), "a group of @{[ map { $_->{rid} } @it ]}");
    my @gone = (@single, $whole ? @it : ());
    my %now = map { $_->{rid} => 1 } @gone;
    push @settled, @gone;
    @live = grep { !$now{ $_->{a}{rid} } } @live;
    $count{ $whole ? 'grouped' : 'group refused' }++;
    do_settle(map { { %$_, full => $_->{receipt} } } @it) if !$whole;
}

sub op_sweep {
    my $max = one(1, 3, 200);
    my $got = $r->fcall('kt_sweep', $max);
    my @want = $m->sweep($max);
    is_same("@$got", "@want", 'sweep');
    $count{swept} += $got->[0];
}

sub op_renew {
    my @pairs;
    for (1 .. 1 + rand 4) {
        my $l = @live ? one(@live) : undef;
        if ($l && chance(0.8)) { push @pairs, $l->{a}{rid}, chance(0.5) ? $l->{text} : '' }
        elsif (@settled) {
            my $x = one(@settled);
            push @pairs, $x->{rid}, $x->{receipt} =~ /\n.+\t\d+\n/ && chance(0.7) ? Keytoll::Store::hold_text($x->{receipt}, '{}', %CHEAP) : '';
        }
    }
    return unless @pairs;
    my $ms = one(2000, 60000);
    is_same($r->fcall('kt_renew', $ms, @pairs), $m->renew($ms, @pairs), "renew @pairs");
}

sub op_policy {
    my @set = map { my $n = chance(0.5) ? one(@KEYS) : chance(0.05) ? one(@THEIRS) : one(@names); $n => shape($n) } 1 .. one(1, 1, 3);
    $set[1]{v} -= 1 + int rand 30 if chance(0.1);
    my @got = @{ $r->fcall('kt_policy_set', map { ref $_ ? $Keytoll::Test::JSON->encode($_) : $_ } @set) };
    my @want;
    for (my $i = 0; $i < @set; $i += 2) {
        my $new = !$m->live($set[$i]);
        push @want, $m->policy_set(@set[$i, $i + 1]);
        $count{"policy $want[-1]"}++;
        if ($new && $want[-1] eq 'ok') {
            $broken{ $set[$i] } = 1 if exists $seed_used{ $set[$i] };
            $seed_used{ $set[$i] } = { pid => $m->{ent}{ $set[$i] }{pid}, used => $set[$i + 1]{used} // 0 };
        }
    }
    is_same("@got", "@want", "policy set @set[grep { !($_ % 2) } 0 .. $#set]");
}

sub op_delete {
    my $n = chance(0.1) ? one(@THEIRS) : one(grep { $_ ne 'global' } @names);
    my $v = $ver++ - (chance(0.1) ? 40 : 0);
    is_same($r->fcall('kt_policy_del', $n, $v)->[0], $m->policy_del($n, $v), "policy del $n");
    $broken{$n} = 1 if $n =~ /^customer:/;
    op_repair() if chance(0.8);
}

# Nothing stays deleted for long, or every request would be refused.
sub op_repair {
    for my $n (grep { !$m->live($_) } @names) {
        my $p = shape($n);
        is_same($r->fcall('kt_policy_set', $n, $Keytoll::Test::JSON->encode($p))->[0], $m->policy_set($n, $p), "policy set $n");
        $broken{$n} = 1;
    }
}

sub op_adjust {
    my ($n, $rid) = (one(@names), Keytoll::Store::rid($m->{now}));
    $rid = one(@settled)->{rid} if @settled && chance(0.1);
    my $e = $m->live($n);
    my $delta = chance(0.3) && $e ? -int(rand $e->{used} + 2) : int rand 100000;
    is_same($r->fcall('kt_adjust', $rid, $n, $delta, qq({"id":"$rid"})), $m->adjust($rid, $n, $delta, qq({"id":"$rid"})), "adjust $n by $delta");
}

# Redis comes back as it was a while ago; the gates send again what they know.
my $picture;
sub op_failover {
    if (!$picture) {
        $picture = { redis => $s->picture, model => $m->clone, from => scalar(@settled), policy => $ver, live => { map { $_->{a}{rid} => 1 } @live } };
        return;
    }
    my $old = $picture;
    $picture = undef;
    my $now = $m->{now};
    $s->restore($old->{redis});
    $m = $old->{model};
    $m->{now} = $now;
    my @again = @settled[$old->{from} .. $#settled];
    my @live_now = @live;
    while (@again) { do_settle(splice @again, 0, 1 + rand 5) }
    @live = @live_now;
    my @pairs = map { $_->{a}{rid}, $_->{text} } @live;
    is_same($r->fcall('kt_renew', 60000, @pairs), $m->renew(60000, @pairs), 'renew after a failover') if @pairs;
    $count{failover}++;
    op_repair();
}

my @OPS = ((\&op_admit) x 40, (\&op_admit_many) x 10, (\&op_settle) x 24, (\&op_settle_group) x 6, (\&op_sweep) x 4, (\&op_renew) x 4, (\&op_policy) x 10, (\&op_delete) x 2, (\&op_adjust) x 3,
    (\&op_failover) x 1);

# What a ledger that knows nothing but the stream would say was used.
sub ledger {
    my (%sum, %row);
    for my $e ($s->stream) {
        my ($event, $receipt, $code) = @$e;
        my ($rid) = $event =~ /"id":"(\w+)"/;
        my ($cost) = $event =~ /"cost":"(\d+)"/;
        my ($ucr) = $event =~ /"ucr":"(\d+)"/;
        my ($back) = $code =~ /^fix (\d+)/;
        defined $back ? is_same($row{$rid} // 'none', "lost $back", "the row that $rid corrects") : is_same($row{$rid} // 'none', 'none', "first row of $rid");
        $row{$rid} = $code =~ s/^(\w+).*/$1/r;
        $row{$rid} = $code if $code =~ /^lost/;
        next if $m->{old}{$rid};              # too old to tell from a duplicate
        my (undef, undef, @l) = Keytoll::Model::lines_of($receipt);
        if ($code =~ /^adj \S+ (-?\d+)$/) { $sum{ $l[0]{name} }{ $l[0]{pid} } += $1; next }
        for (@l) {
            next unless $_->{bits} & 16;
            $sum{ $_->{name} }{ $_->{pid} } += $_->{bits} & 8 ? $ucr // 0 : $cost - ($back // 0);
        }
    }
    return (\%sum, \%row);
}

sub sequence {
    my ($seed, $clock) = @_;
    srand $seed;
    $s = $clock;
    $r = $s->{r};
    $s->{now} = 1_790_000_000_000 + int rand 4e10 if $s == $virtual;
    $s->wipe;
    $m = Keytoll::Model->new(now => $s->now, gen => $s->{gen});
    (@settled, @live, %seed_used, %broken) = ();
    ($picture, $ver) = (undef, 100);
    @names = ('global', 'default:customer', 'user:u%201', 'org:o1', 'member:t1/u2', 'customer:c1', 'tag:a', base(), 'default:customer~m~m1', 'customer:c1~m~m1');
    for my $n (@names) {
        my $p = shape($n);
        is_same($r->fcall('kt_policy_set', $n, $Keytoll::Test::JSON->encode($p))->[0], $m->policy_set($n, $p), "policy set $n");
        $seed_used{$n} = { pid => $m->{ent}{$n}{pid}, used => $p->{used} // 0 };
    }
    for my $i (1 .. $OPS) {
        tick();
        my $op = one(@OPS);
        $op->();
        compare_states("seed $seed, operation $i");
    }
    tick();
    do_settle(map { args_for($_) } splice @live, 0, 50) while @live;
    compare_states("seed $seed, all settled");
    if ($s == $virtual) {
        $s->pass(120_000);
        $m->{now} = $s->now;
        op_sweep() for 1 .. 3 + keys %{ $m->{lease} };
    } else {
        is_same(scalar(keys %{ $m->{hold} }), $r->call('ZCARD', 'kt:{0000}:z'), 'leases left');
        do_settle(map { args_for({ a => { rid => $_, bound => 1 }, receipt => $m->{hold}{$_}{receipt} }) } keys %{ $m->{hold} });
    }
    is_same($s->left, 0, 'holds and leases at the end');
    my $got = $r->fcall('kt_state', @names);
    my ($sum, $row) = ledger();
    for my $i (0 .. $#names) {
        my $v = $got->[$i] or next;
        is_same("held $v->[2], parallel $v->[10]", 'held 0, parallel 0', "$names[$i] at the end");
        next if $broken{ $names[$i] };
        my $seed_here = $seed_used{ $names[$i] }{pid} == $v->[4] ? $seed_used{ $names[$i] }{used} : 0;
        is_same($v->[1], ($sum->{ $names[$i] }{ $v->[4] } // 0) + $seed_here, "used of $names[$i] against the stream") unless $m->{ent}{ $names[$i] }{repaired};
    }
    my @library = map { join '|', @$_ } $s->stream;
    my @model = map { join '|', @$_ } @{ $m->{stream} };
    is_same(scalar(@library), scalar(@model), 'events in the stream');
    is_same($library[$_], $model[$_], "event $_ of the stream") for 0 .. $#library;
    $count{events} += @library;
}

my $first = $ENV{KEYTOLL_SEED} // time * 1000 % 1_000_000_000;
my @runs = defined $ENV{KEYTOLL_SEED} ? ([$first, $ENV{KEYTOLL_CLOCK} // 'key']) : map { [$first + $_, $_ % 10 == 9 ? 'time' : 'key'] } 0 .. $SEQUENCES - 1;
my $from = time;
for my $run (@runs) {
    my ($seed, $clock) = @$run;
    next if eval { sequence($seed, $clock eq 'time' ? $real : $virtual); 1 };
    fail("sequence KEYTOLL_SEED=$seed KEYTOLL_CLOCK=$clock") or diag($@);
    last;
}
note(join ', ', map { "$_ $count{$_}" } sort keys %count);
ok($count{$_}, "the sequences met \"$_\"") for defined $ENV{KEYTOLL_SEED} ? () : qw(admitted budget held credits rpm tpm parallel key_model ent_model
    alias ent_blocked key_blocked key_expired key_unknown not_ready stale unpriced model_unknown route swept failover many grouped),
    'group refused', 'settle 0', 'settle 1', 'settle 2', 'settle 3', 'policy stale';
pass(sprintf '%d sequences of %d operations agree in %.0f s, seeds from %d', scalar @runs, $OPS, time - $from, $first) if !grep { !$_ } Test::More->builder->summary;

$virtual->stop;
$real->finish;
