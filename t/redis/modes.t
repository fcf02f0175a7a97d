# strict and last_call: seeded runs of many requests at once with random costs up to their
# bounds, over all levels.  Every reply is accounted here again, in the order in which Redis
# gave it:
#   strict      used + what all that run may cost is never above the limit, at no instant
#   last_call   a request is admitted only while anything is left; used + what all that run
#               may cost but one is then not above the limit; and used ends above it by
#               the cost of one at most
# and nobody is told to wait for others who would fit beside them.
#
# KEYTOLL_SEED=n repeats one run, KEYTOLL_LONG=1 makes 1,000 of up to 1,000 requests.

use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);
use Keytoll::Test;
use Keytoll::Store;

my $LONG = $ENV{KEYTOLL_LONG};
my ($RUNS, $MOST) = $LONG ? (1000, 1000) : (150, 500);
my $s = Keytoll::Store->new;
my $T = JSON::PP::true;
my (%count, @wrong);

sub one { return $_[rand @_] }

# Sends what waits and reads the replies in order.
sub pipeline {
    my @calls = @_;
    $s->{r}->send('FCALL', $_->[0], 1, 'kt:{0000}:gen', @$_[1 .. $#$_]) for @calls;
    return map { $s->{r}->read } @calls;
}

sub run {
    my $seed = shift;
    srand $seed;
    my $token = token("modes$seed");
    my $n = 10 + int rand $MOST - 9;
    my $max = one(10, 1000, 5_000_000, 3_000_000_000);
    my %ent;
    my @levels = ("key:$token", map { "$_:m$seed" . ($_ eq 'member' ? '/u' : '') } qw(team org user member customer tag));
    for my $name (@levels) {
        my $p = $ent{$name} = { used => 0, held => 0, limit => 1 + int rand $max * one(1, 10, $n / 4, $n) };
        $p->{strict} = 1 if rand() < 0.5;
        $p->{gt} = 1 if rand() < 0.4;
        delete $p->{limit} if rand() < 0.4;
    }
    $s->policy(global => {}, map { my ($name, $p) = ($_, $ent{$_}); $name => { defined $p->{limit} ? (limit => $p->{limit}) : (),
        $p->{strict} ? (strict => $T) : (), $p->{gt} ? (gt => $T) : (), $name =~ /^key/ ? (refs => [(grep { !/^(?:key|customer|tag)/ } @levels), 'global']) : () } } keys %ent);
    my ($open, $made, $serial) = ([], 0, 0);
    my $wrong = sub { push @wrong, "seed $seed, request $made: @_" };

    my $admitted = sub {
        my $q = shift;
        my $most;
        for my $name (keys %ent) {
            my $e = $ent{$name};
            next unless defined $e->{limit};
            my $before = $e->{used} + $e->{held};
            $e->{held} += $q->{bound};
            if ($e->{strict}) {
                $wrong->("$name is strict and at $before + $q->{bound} of $e->{limit}") if $before + $q->{bound} > $e->{limit};
            } else {
                $wrong->("$name had nothing left: $e->{used} of $e->{limit}") if $e->{used} > $e->{limit} || $e->{used} == $e->{limit} && !$e->{gt};
                next if $before <= $e->{limit};                     # all but this one
                $most //= (sort { $b <=> $a } $q->{bound}, map { $_->{bound} } @$open)[0];
                $wrong->("$name: two may cross the line: $before + $q->{bound} less $most of $e->{limit}") if $before + $q->{bound} - $most > $e->{limit};
                $count{'last calls'}++;
            }
        }
        push @$open, $q;
        $count{admitted}++;
    };
    my $settled = sub {
        my ($q, $cost) = @_;
        for my $e (grep { defined $_->{limit} } values %ent) {
            $e->{held} -= $q->{bound};
            $e->{used} += $cost;
            $e->{dearest} = $cost if $cost > ($e->{dearest} // 0);
            $wrong->("strict and used $e->{used} + $e->{held} of $e->{limit}") if $e->{strict} && $e->{used} + $e->{held} > $e->{limit};
        }
    };

    my $refused = sub {
        my ($q, $v) = @_;
        return if $v->[0] != 8;
        my $e = $ent{ $v->[1] };
        $wrong->("$v->[1] had room for $q->{bound}: $e->{used} + $e->{held} of $e->{limit}") if $e->{used} + $e->{held} + $q->{bound} <= $e->{limit};
    };

    while ($made < $n || @$open) {
        my (@calls, @what);
        my $burst = $made ? 1 + int rand 40 : int $n / 2;            # half of them at once, first
        for (1 .. $burst) {
            if ($made < $n && (!@$open || rand() < 0.5 || !$made)) {
                my $k = one(1, 1, 1, 2, 8, 30);
                $k = $n - $made if $k > $n - $made;
                my @q = map { my $b = 1 + int rand $max; { token => $token, bound => $b, customer => "customer:m$seed", tags => "tag:m$seed" } } 1 .. $k;
                my ($r, @args) = $s->group(@q);
                push @calls, ['kt_admit', $s->{gen}, 60000, @args];
                push @what, sub {
                    my $g = $_[0][2];
                    for my $i (0 .. $#$r) {
                        my $v = $g->[6 + $i];
                        my $code = ref $v ? $v->[0] : $v;
                        if ($code == 0) { $admitted->($r->[$i]) }
                        else { $refused->($r->[$i], $v); $count{ $code == 8 ? 'held' : $code == 7 ? 'budget' : "code $code" }++ }
                    }
                };
                $made += $k;
            } elsif (@$open) {
                my $k = one(1, 1, 3, 10);
                my @part = map { splice @$open, rand @$open, 1 } 1 .. ($k > @$open ? 1 : $k);
                my @cost = map { one(0, $_->{bound}, int rand $_->{bound} + 1) } @part;
                push @calls, ['kt_settle', map { Keytoll::Store::settle_args(rid => $part[$_]{rid}, receipt => '', cost => $cost[$_]) } 0 .. $#part];
                push @what, sub { $settled->($part[$_], $cost[$_]) for 0 .. $#part };
            }
        }
        my @replies = pipeline(@calls);
        $what[$_]->($replies[$_]) for 0 .. $#what;
        return if @wrong;
    }
    for my $name (grep { defined $ent{$_}{limit} } keys %ent) {
        my $e = $s->state($name);
        $wrong->("$name is over by more than one request: $e->{used} of $e->{limit}, dearest $ent{$name}{dearest}")
            if $e->{used} > $e->{limit} && $e->{used} - $ent{$name}{dearest} > $e->{limit};
        $wrong->("$name: Redis has used $e->{used}, held $e->{held}, not $ent{$name}{used}, 0") if $e->{used} != $ent{$name}{used} || $e->{held} != 0;
        $count{ $ent{$name}{strict} ? 'strict spent' : 'last_call crossed' }++
            if $ent{$name}{strict} ? $e->{used} > 0.9 * $e->{limit} : $e->{used} > $e->{limit};
    }
}

my $first = $ENV{KEYTOLL_SEED} // int(time * 1000) % 1_000_000_000;
my $from = time;
for my $i (0 .. ($ENV{KEYTOLL_SEED} ? 0 : $RUNS - 1)) {
    run($first + $i);
    last if @wrong;
    $s->wipe if $i % 20 == 19;
}
is(scalar @wrong, 0, sprintf '%d runs of up to %d requests keep both rules, seeds from %d, %.0f s', $RUNS, $MOST, $first, time - $from)
    or diag map { "$_\n" } @wrong[0 .. ($#wrong > 9 ? 9 : $#wrong)];
if (!$ENV{KEYTOLL_SEED}) {
    ok($count{$_}, "the runs met \"$_\": " . ($count{$_} // 0)) for 'admitted', 'held', 'budget', 'strict spent', 'last_call crossed', 'last calls';
}
$s->finish;
