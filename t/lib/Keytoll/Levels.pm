package Keytoll::Levels;

# Worlds for the decision table: a key of some kind, the levels above it, a limit
# set or not on each, and what must come of one request.  The oracle is written
# from the table (which level applies to which key) and knows nothing of how
# policies refer to each other.

use strict;
use warnings;

our @KINDS = qw(personal team member service master);

# In the order in which a refusal for money names them, and one for rates.
our @LEVELS = qw(key kwin kmodel team org tag user member omember urates customer global twin tmodel omodel umodel cmodel);

my @RATES = qw(key user urates team member omember customer kmodel tmodel umodel cmodel org omodel tag global);

# Level -> kinds of keys that it limits, by what.
my %APPLIES = (
    key => { money => 'personal team member service', rate => 'personal team member service' },
    kwin => { money => 'personal team member service', rate => '' },
    kmodel => { money => 'personal team member service', rate => 'personal team member service' },
    team => { money => 'team member service', rate => 'team member service' },
    twin => { money => 'team member service', rate => '' },
    tmodel => { money => 'team member service', rate => 'team member service' },
    org => { money => 'personal team member service', rate => 'personal team member service' },
    tag => { money => 'personal team member service', rate => 'personal team member service' },
    user => { money => 'personal', rate => 'personal' },
    member => { money => 'member', rate => 'member' },
    omember => { money => 'personal member', rate => 'personal member' },
    urates => { money => '', rate => 'member' },
    customer => { money => 'personal team member service master', rate => 'personal team member service master' },
    global => { money => 'personal team member service', rate => 'personal team member service' },
    omodel => { money => 'personal team member service', rate => 'personal team member service' },
    umodel => { money => 'personal', rate => 'personal' },
    cmodel => { money => 'personal team member service master', rate => 'personal team member service master' },
);
my %ABOVE = map { $_ => 1 } qw(team kmodel tmodel omodel umodel cmodel tag customer global);     # refuse above the limit, not at it
my %LISTS = map { $_ => 1 } qw(key team org user member);                   # have allow-lists

sub money_levels { return grep { $_ ne 'urates' } @LEVELS }
sub rate_levels { return grep { !/^[kt]win$/ } @LEVELS }

sub applies { my ($level, $what, $kind) = @_; return $APPLIES{$level}{$what} =~ /\b$kind\b/ }

sub one { return $_[rand @_] }

# One world: kind and the levels that have limits (a set); everything else is drawn.
sub world {
    my ($id, $kind, $what, %set) = @_;
    my %w = (id => $id, kind => $kind, bound => 50, typ => 20, in => 30, out => 40, level => {});
    for my $l (@LEVELS) {
        my %p;
        if ($set{$l} && $what eq 'money') {
            @p{qw(limit used)} = (1000, one(0, 0, 0, 940, 950, 951, 999, 1000, 1001));
            $p{limit} = $p{used} = 0 if rand() < 0.05;
        } elsif ($set{$l}) {
            my $which = one(qw(rpm tpm par));
            $which = 'par' if $l eq 'global';
            $which = one(qw(rpm tpm)) if $l =~ /model$/;
            $p{$which} = $which eq 'tpm' ? one(69, 70, 1000, 1000) : one(0, 1, 5, 5);
        }
        $p{strict} = 1 if rand() < 0.3;
        $p{deny} = 1 if $LISTS{$l} && rand() < 0.02;
        $w{level}{$l} = \%p;
    }
    $w{level}{urates} = { %{ $w{level}{urates} }, strict => $w{level}{user}{strict} };
    $w{level}{kwin}{strict} = $w{level}{kmodel}{strict} = $w{level}{key}{strict};
    $w{level}{twin}{strict} = $w{level}{tmodel}{strict} = $w{level}{team}{strict};
    $w{level}{ $_->[0] }{strict} = $w{level}{ $_->[1] }{strict} for ['omodel', 'org'], ['umodel', 'user'], ['cmodel', 'customer'];
    $w{stranger} = rand() < 0.3;
    return \%w;
}

# Entity name of a level.
sub ent {
    my ($w, $l) = @_;
    my $id = $w->{id};
    my %e = (key => "key:$w->{token}", kwin => "key:$w->{token}~w~1d", kmodel => "key:$w->{token}~m~m1", team => "team:t$id",
        twin => "team:t$id~w~1d", tmodel => "team:t$id~m~m1", omodel => "org:o$id~m~m1", umodel => "user:u$id~m~m1", cmodel => "customer:c$id~m~m1", org => "org:o$id", tag => "tag:g$id", user => "user:u$id", urates => "user:u$id",
        member => "member:t$id/u$id", omember => "orgmember:o$id/u$id", customer => "customer:c$id", global => 'global');
    return $e{$l};
}

# What must come of the request: code, level, limit.
sub verdict {
    my $w = shift;
    my $kind = $w->{kind};
    my @on = grep { applies($_, 'money', $kind) } @LEVELS;
    my ($denied) = grep { $w->{level}{$_}{deny} } @on;
    return { code => 'key_model', level => 'key' } if ($denied // '') eq 'key';
    for my $l ($denied ? grep { /^k/ } @on : @on) {             # the key's own budgets come before what others allow
        my $p = $w->{level}{$l};
        next unless defined $p->{limit};
        my $no = $p->{limit} == 0 || ($p->{strict} && !$denied ? $p->{used} + $w->{bound} > $p->{limit}
            : $ABOVE{$l} ? $p->{used} > $p->{limit} : $p->{used} >= $p->{limit});
        return { code => 'budget', level => $l, limit => $p->{limit} } if $no;
    }
    return { code => 'ent_model', level => $denied } if $denied;
    for my $l (grep { applies($_, 'rate', $kind) } @RATES) {
        my $p = $w->{level}{$l};
        my %need = (rpm => 1, tpm => $w->{in} + $w->{out}, par => 1);
        my %code = (rpm => 'rpm', tpm => 'tpm', par => 'parallel');
        for my $r (qw(rpm tpm par)) {
            return { code => $code{$r}, level => $l, limit => $p->{$r} } if defined $p->{$r} && $p->{$r} < $need{$r};
        }
    }
    return { code => 'admitted' };
}

# The world as policies of the function library.  Of an end user who is a stranger there is
# none, but a default like his: what he used must be told by other means.
sub policies {
    my $w = shift;
    my ($kind, $lv, $T) = ($w->{kind}, $w->{level}, JSON::PP::true());
    my $make = sub {
        my ($l, $t) = @_;
        my $p = $lv->{$l};
        my %p = (t => $t);
        @p{qw(limit used)} = ("$p->{limit}", "$p->{used}") if defined $p->{limit};
        $p{$_} = $p->{$_} for grep { defined $p->{$_} } qw(rpm tpm par);
        $p{strict} = $T if $p->{strict};
        $p{gt} = $T if $ABOVE{$l};
        $p{models} = ['other', 'm'] if $p->{deny} && $kind ne 'master';
        return \%p;
    };
    my %out = map { ent($w, $_) => $make->($_, $_ eq 'omember' ? 'orgmember' : $_) } qw(org tag member omember customer global);
    $out{ ent($w, $_) } = $make->($_, 'window') for qw(kwin twin);
    $out{ ent($w, $_) } = $make->($_, 'model') for qw(kmodel tmodel omodel umodel cmodel);
    my ($key, $team, $user) = map { $make->($_, $_) } qw(key team user);
    my $urates = $lv->{urates};
    if ($kind eq 'member') {                                  # the same row has both
        delete @$user{qw(rpm tpm par)};
        $user->{$_} = $urates->{$_} for grep { defined $urates->{$_} } qw(rpm tpm par);
    }
    my ($t, $o, $u, $m, $om) = map { ent($w, $_) } qw(team org user member omember);
    my %refs = (personal => [$o, $u, $om], team => [$t, $o], service => [$t, $o], member => [$t, $o, $m, $om], master => []);
    my @rates = grep { $kind eq 'member' && defined $urates->{$_} } qw(rpm tpm par);
    $key->{refs} = [@{ $refs{$kind} }, @rates ? { e => $u, money => JSON::PP::false() } : (), 'global'];
    $key->{master} = $T if $kind eq 'master';
    my @sub = map { [{ m => 'm1', e => ent($w, $_) }, { m => 'm2', e => 'none' }] } qw(kmodel tmodel omodel umodel cmodel);
    if ($kind ne 'master') { ($key->{win}, $key->{sub}) = ([ent($w, 'kwin')], $sub[0]) }
    ($team->{win}, $team->{sub}) = ([ent($w, 'twin')], $sub[1]);
    ($out{$o}{sub}, $user->{sub}, $out{ ent($w, 'customer') }{sub}) = @sub[2 .. 4];
    if ($w->{stranger}) {
        my $c = ent($w, 'customer');
        for my $p (delete @out{ $c, "$c~m~m1" }) {
            delete $p->{used};
            $_->{e} =~ s/^\Q$c\E/default:customer/ for @{ $p->{sub} // [] };
            $out{ $p->{t} eq 'model' ? 'default:customer~m~m1' : 'default:customer' } = $p;
        }
    }
    return (%out, ent($w, 'key') => $key, $t => $team, $u => $user);
}

# What the request says besides the key.
sub request {
    my $w = shift;
    return (token => $w->{token}, model => 'm1', bound => $w->{bound}, typ => $w->{typ}, in_bound => $w->{in}, out_bound => $w->{out},
        customer => ent($w, 'customer'), tags => ent($w, 'tag'));
}

1;
