# The decision table from rows: worlds of t/lib/Keytoll/Levels.pm as rows of PostgreSQL,
# compiled by the daemon, then one admission each, compared with the oracle.  Limits sit
# where the product keeps them: on the row, or on a linked budget that fills it.  Some end
# users have no budget of their own, but the default one; those who used nothing yet, no row.
#
# KEYTOLL_SEED=n repeats a run.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Keytoll::Levels;
use Keytoll::Model;
use Keytoll::Store;
use Test::More;

my $N = $ENV{KEYTOLL_LONG} ? 4000 : 1000;
srand(my $seed = $ENV{KEYTOLL_SEED} // time % 1_000_000_000);
my $k = Keytoll::Control->new;
my (@worlds, @sql, @wrong, %count);
my %acts = (personal => 1, member => 1);             # for a user in the organization

sub lit { return defined $_[0] ? "'$_[0]'" : 'NULL' }
sub add { my ($table, %row) = @_; my @c = sort keys %row; push @sql, "INSERT INTO $table (" . join(', ', @c) . ') VALUES (' . join(', ', map { $_ eq 'models' ? $row{$_} : lit($row{$_}) } @c) . ');' }
sub used { my ($ent, $p) = @_; add(meters => ent => $ent, period_id => 0, used_nusd => $p->{used}) if $p->{used} }
sub mode { my $p = shift; return $p->{strict} ? 'strict' : 'last_call' }

# Limits of a level as columns; `par` only where the row has one.
sub limits {
    my ($p, %o) = @_;
    return (max_budget_nusd => $p->{limit}, rpm_limit => $p->{rpm}, tpm_limit => $p->{tpm}, $o{nopar} ? () : (max_parallel_requests => $p->{par}));
}

# A budget row with these limits; its id.
my $budgets = 0;
sub budget { my $p = shift; my $id = 'b' . ++$budgets; add(budgets => budget_id => $id, limits($p)); return $id }

sub submeter {
    my ($ent, $owner, $kind, $p) = @_;
    return if !defined $p->{limit} && !defined $p->{rpm} && !defined $p->{tpm};
    add(submeters => ent => $ent, owner => $owner, kind => $kind, model => $kind eq 'model' ? 'm1' : undef, limit_nusd => $p->{limit}, rpm_limit => $p->{rpm},
        tpm_limit => $p->{tpm}, gt => $kind eq 'model' ? 't' : 'f');
    used($ent, $p);
}

sub rows {
    my $w = shift;
    my ($id, $lv, $kind) = @$w{qw(id level kind)};
    my %e = map { $_ => Keytoll::Levels::ent($w, $_) } @Keytoll::Levels::LEVELS;
    my $models = sub { return (models => $lv->{ $_[0] }{deny} ? q('{other,m}') : q('{}')) };
    my $linked = $id % 2;
    add(organizations => organization_id => "o$id", budget_enforcement => mode($lv->{org}), $models->('org'),
        $linked ? (budget_id => budget($lv->{org})) : limits($lv->{org}));
    my $of_team = $id % 3 == 0;                          # the member's limits are the team's default
    add(teams => team_id => "t$id", organization_id => "o$id", budget_enforcement => mode($lv->{team}), $models->('team'), limits($lv->{team}),
        member_budget_id => $of_team ? budget($lv->{member}) : undef);
    my %user = (%{ $lv->{user} });
    @user{qw(rpm tpm par)} = @{ $lv->{urates} }{qw(rpm tpm par)} if $kind eq 'member';
    add(users => user_id => "u$id", budget_enforcement => mode(\%user), $models->('user'), limits(\%user));
    add(memberships => team_id => "t$id", user_id => "u$id", budget_enforcement => mode($lv->{member}), budget_id => $of_team ? undef : budget($lv->{member}),
        allowed_models => $lv->{member}{deny} ? '{other,m}' : '{}') if $kind eq 'member';
    add(organization_memberships => organization_id => "o$id", user_id => "u$id", budget_enforcement => mode($lv->{omember}), budget_id => budget($lv->{omember}))
        if $acts{$kind};
    my %own = (personal => { user_id => "u$id", organization_id => "o$id" }, team => { team_id => "t$id" }, service => { team_id => "t$id" },
        member => { team_id => "t$id", user_id => "u$id" });
    add(keys => token => $w->{token}, budget_enforcement => mode($lv->{key}), $models->('key'), %{ $own{$kind} },
        $linked ? (budget_id => budget($lv->{key})) : limits($lv->{key}));
    add($_->[0] => $_->[1] => $_->[2], budget_enforcement => mode($lv->{ $_->[3] }), budget_id => budget($lv->{ $_->[3] }))
        for ($w->{stranger} ? () : [customers => user_id => "c$id", 'customer'], [tags => tag_name => "g$id", 'tag']);
    submeter($e{$_->[0]}, $e{ $_->[1] }, $_->[2], $lv->{ $_->[0] }) for [qw(kwin key window)], [qw(kmodel key model)], [qw(twin team window)], [qw(tmodel team model)],
        [qw(omodel org model)], [qw(umodel user model)], $w->{stranger} ? () : [qw(cmodel customer model)];
    used($e{cmodel}, $lv->{cmodel}) if $w->{stranger};
    add(meters => ent => $e{customer}, period_id => 0) if $w->{stranger} && $lv->{cmodel}{used} && !$lv->{customer}{used};
    used($e{$_}, $lv->{$_}) for grep { !/^(?:[kt]win|[ktouc]model|urates|global)$/ && ($_ ne 'member' || $kind eq 'member') && ($_ ne 'omember' || $acts{$kind}) } @Keytoll::Levels::LEVELS;
}

my %default = (limit => 1000, strict => JSON::PP::true);
add(budgets => budget_id => 'default', budget_enforcement => 'strict', limits(\%default));
add(customer_default => budget_id => 'default');
submeter('default:customer~m~m1', 'default:customer', 'model', \%default);

# The first worlds have one level that is spent, each of them; the others are drawn.
my @alone = (qw(key kwin kmodel team org tag user member omember customer twin tmodel omodel umodel cmodel), 'stranger customer', 'stranger cmodel');
sub alone {
    my ($i, $stranger, $level) = ($_[0], $_[1] =~ /^(stranger )?(\w+)$/);
    my %kind = (team => 'team', twin => 'team', tmodel => 'team', member => 'member');
    my $w = Keytoll::Levels::world($i, $kind{$level} // 'personal', 'money');
    delete $_->{deny} for values %{ $w->{level} };
    @{ $w->{level}{$level} }{qw(limit used)} = (1000, 1001);
    $w->{stranger} = !!$stranger;
    return $w;
}

my @kinds = grep { $_ ne 'master' } @Keytoll::Levels::KINDS;
for my $i (1 .. $N) {
    my $what = $i % 3 ? 'money' : 'rate';
    my @levels = grep { $_ ne 'global' } $what eq 'money' ? Keytoll::Levels::money_levels() : Keytoll::Levels::rate_levels();
    my $w = $i <= @alone ? alone($i, $alone[$i - 1]) : Keytoll::Levels::world($i, $kinds[$i % 4], $what, map { rand() < ($_ =~ /^[ouc]model$/ ? 0.2 : 0.35) ? ($_ => 1) : () } @levels);
    $_ = { %default, used => ($what eq 'money' || $i <= @alone) && $_->{used} || 0 } for $w->{stranger} ? @{ $w->{level} }{qw(customer cmodel)} : ();
    $w->{token} = sprintf '%064x', $i + 0xabc0000;
    rows($w);
    push @worlds, $w;
}
open my $fh, '>', "$k->{dir}/levels.sql" or die;
print $fh "BEGIN;\n", map({ "$_\n" } @sql), "INSERT INTO outbox (ent, op, version) SELECT name, 'set', 0 FROM kt_policy;\nCOMMIT;\n";
close $fh;
my $out = `psql -XAtq -v ON_ERROR_STOP=1 -d '$k->{pg_url}' -f $k->{dir}/levels.sql 2>&1`;
is $?, 0, scalar(@sql) . ' rows' or BAIL_OUT($out);
ok $k->until(sub { $k->sql('SELECT count(*) FROM outbox') eq '0' }, 60), 'every policy is in Redis';

my $gen = $k->redis('GET', 'kt:{0000}:gen');
my $store = bless { gen => $gen, r => $k }, 'Keytoll::Store';
$store->{now} = int(time * 1000);
for my $w (@worlds) {
    my $want = Keytoll::Levels::verdict($w);
    my $got = $store->admit(Keytoll::Levels::request($w));
    my $code = Keytoll::Model::name($got->{code});
    my $ent = $want->{level} ? Keytoll::Levels::ent($w, $want->{level}) : '';
    $count{"$want->{code} " . ($want->{level} // '')}++;
    $count{"$want->{code} stranger $want->{level}"}++ if $w->{stranger} && ($want->{level} // '') =~ /^c(?:ustomer|model)$/;
    next if $code eq $want->{code} && ($code eq 'admitted' || $got->{ent} eq $ent) && (!defined $want->{limit} || $got->{limit} eq $want->{limit});
    push @wrong, "$w->{id} $w->{kind}: $code " . ($got->{ent} // '') . ' limit ' . ($got->{limit} // '') . ", not $want->{code} $ent limit " . ($want->{limit} // '')
        . ' ' . JSON::PP->new->canonical->encode($w->{level});
}
is scalar @wrong, 0, "$N worlds agree with the table, seed $seed" or diag map { "$_\n" } @wrong[0 .. ($#wrong > 4 ? 4 : $#wrong)];
ok $count{"budget $_"}, "a budget of $_ refused" for @alone;
note join ', ', map { "$_: $count{$_}" } sort keys %count;

done_testing;
