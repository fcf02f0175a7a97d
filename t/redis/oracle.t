# The decision table against the function library: combinations of set and unset limits
# over the levels, for every kind of key, each verdict with its entity and limit compared
# with an oracle that knows only the table.
#
# By default all combinations of all levels but members of organizations and the models of organizations, users and
# customers, which are drawn, with one kind of key each: every pair of levels is met in every
# state with every kind.  KEYTOLL_LONG=1 goes through all combinations of all levels with all
# kinds.  KEYTOLL_SEED=n repeats a run.

use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);
use Keytoll::Test;
use Keytoll::Store;
use Keytoll::Model;
use Keytoll::Levels;

my $LONG = $ENV{KEYTOLL_LONG};
my %LATER = map { $_ => 1 } qw(omember omodel umodel cmodel);
my %met;
srand(my $seed = $ENV{KEYTOLL_SEED} // int(time * 1000) % 1_000_000_000);
my $s = Keytoll::Store->new(clock => 'key');
my ($n, %count, @wrong) = (0);

sub compare {
    my $w = shift;
    my $want = Keytoll::Levels::verdict($w);
    my %p = Keytoll::Levels::policies($w);
    $s->{r}->fcall('kt_policy_del', map { ($_, $s->{ver}++) } 'global', 'default:customer', 'default:customer~m~m1');     # new in every world
    $s->policy(%p);
    for my $l ($w->{stranger} ? qw(customer cmodel) : ()) {
        my $used = $w->{level}{$l}{used} or next;
        $s->{r}->fcall('kt_adjust', Keytoll::Store::rid($s->now), Keytoll::Levels::ent($w, $l), $used, '{}');
    }
    my @all = sort keys %{ { %p, map { $_ => 1 } Keytoll::Levels::ent($w, 'customer'), Keytoll::Levels::ent($w, 'cmodel') } };
    my $before = $want->{code} eq 'admitted' ? undef : join '|', map { join ' ', map { $_ // '' } %$_{qw(used held par rpm tpm)} } map { $s->state($_) } @all;
    my $got = $s->admit(Keytoll::Levels::request($w));
    my $code = Keytoll::Model::name($got->{code});
    my $ent = $want->{level} ? Keytoll::Levels::ent($w, $want->{level}) : '';
    my $ok = $code eq $want->{code} && ($code eq 'admitted' || $got->{ent} eq $ent) && (!defined $want->{limit} || $got->{limit} eq $want->{limit});
    push @wrong, "$w->{kind} " . $Keytoll::Test::JSON->encode($w->{level}) . ": $code " . ($got->{ent} // '') . ' limit ' . ($got->{limit} // '')
        . ", not $want->{code} $ent limit " . ($want->{limit} // '') unless $ok;
    if ($ok && defined $before) {
        my $after = join '|', map { join ' ', map { $_ // '' } %$_{qw(used held par rpm tpm)} } map { $s->state($_) } @all;
        push @wrong, "a refusal left a trace: $before, $after" if $before ne $after;
    }
    $s->settle({ rid => $got->{rid}, receipt => $got->{receipt}, release => 1 }) if $got->{code} == 0;
    $count{"$want->{code} " . ($want->{level} // '')}++;
    $count{"$want->{code} stranger $want->{level}"}++ if $w->{stranger} && ($want->{level} // '') =~ /^c(?:ustomer|model)$/;
    return;
}

sub run {
    my ($what, @levels) = @_;
    my @cross = $LONG ? @levels : grep { !$LATER{$_} } @levels;
    my @drawn = $LONG ? () : grep { $LATER{$_} } @levels;
    for my $mask (0 .. 2**@cross - 1) {
        my %base = map { $cross[$_] => 1 } grep { $mask & 1 << $_ } 0 .. $#cross;
        for my $kind ($LONG ? @Keytoll::Levels::KINDS : $Keytoll::Levels::KINDS[$n % 5]) {
            my %set = (%base, map { rand() < 0.3 ? ($_ => 1) : () } @drawn);
            my $w = Keytoll::Levels::world(++$n, $kind, $what, %set);
            $w->{token} = token("oracle$n");
            compare($w);
            for my $i (1 .. $#levels) {
                $met{"$what $kind $levels[$i] $levels[$_] " . ($set{ $levels[$i] } // 0) . ($set{ $levels[$_] } // 0)} = 1 for 0 .. $i - 1;
            }
        }
        last if @wrong > 5;
        $s->wipe if $n % 5000 == 0;
    }
    my $pairs = 4 * 5 * @levels * (@levels - 1) / 2;
    is(scalar(grep { /^$what / } keys %met), $pairs, "$what: every pair of levels in every state with every kind") if @wrong <= 5;
}

my $from = time;
run('money', Keytoll::Levels::money_levels());
run('rate', Keytoll::Levels::rate_levels());
is(scalar @wrong, 0, sprintf '%d worlds agree with the table, seed %d, %.0f s', $n, $seed, time - $from) or diag map { "$_\n" } @wrong;
cmp_ok($n, '>=', 2**11, 'thousands of them');
ok($count{"budget $_"}, "a budget of $_ refused") for Keytoll::Levels::money_levels();
for my $l (Keytoll::Levels::rate_levels()) {
    ok((grep { $count{"$_ $l"} } qw(rpm tpm parallel)), "a rate of $l refused");
}
ok($count{'admitted '}, 'and some passed');
ok($count{"budget stranger $_"}, "the default's budget refused: $_") for qw(customer cmodel);
ok($count{"ent_model $_"}, "the list of $_ refused") for qw(team org user member);
note(join ', ', map { "$_: $count{$_}" } sort keys %count);

$s->finish;
