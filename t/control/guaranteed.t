# guaranteed_throughput: the keys of a team have together no more than the team, on whatever
# way they come to it.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Keytoll::World;
use Test::More;

my $k = Keytoll::Control->new(config => '');
my $w = Keytoll::World->new($k);
my ($s, $j);
my %sure = (rpm_limit_type => 'guaranteed_throughput');
sub as { ($s, $j) = $w->as(@_); return $s }
sub team {
    my (%b) = @_;
    my $t = $w->team('org-A', 'TA', 'IU');
    $w->ok(POST => '/team/update', { team_id => $t, rpm_limit => 100, team_member_permissions => [ map { "/key/$_" } qw(generate update info regenerate) ], %b });
    return $t;
}
sub key { my ($t, %b) = @_; return $w->ok(POST => '/key/generate', { user_id => 'user-IU', team_id => $t, %b }) }
sub sum { return $k->sql("SELECT coalesce(sum(rpm_limit), 0) FROM keys WHERE team_id = '$_[0]' AND metadata->>'rpm_limit_type' = 'guaranteed_throughput'") }
sub refused {
    my ($what) = @_;
    is $s, 400, $what or diag $k->raw;
    like $k->raw, qr/Allocated RPM limit=90 \+ Key RPM limit=90 is greater than team RPM limit=100/, 'with the sum';
}

my $t = team();
my $one = key($t, rpm_limit => 90);
is as(IU => POST => '/key/update', { key => $one->{key}, %sure }), 200, 'a key becomes one with its limit guaranteed' or diag $k->raw;
my $two = key($t, rpm_limit => 90);
my $bare = key($t);
as(IU => POST => '/key/update', { key => $two->{key}, %sure });
refused('not one more, its limit known already');
as(IU => POST => '/key/update', { key => $two->{key}, metadata => {%sure} });
refused('nor by metadata');
as(IU => POST => '/key/update', { key => $two->{key}, rpm_limit => 90, %sure });
refused('nor with both in the body');
as(IU => POST => '/key/regenerate', { key => $two->{key}, rpm_limit => 90, %sure });
refused('nor with another secret');
as(IU => POST => '/key/regenerate', { key => $two->{key}, %sure });
refused('nor so, its limit known already');
$k->sql("UPDATE keys SET rpm_limit = NULL WHERE token = '$two->{token}'");
as($_ => POST => '/key/generate', { team_id => $t, rpm_limit => 90, metadata => {%sure} }), refused("$_: nor a new one by metadata") for qw(TA PA);
as(TA => POST => '/key/generate', { team_id => $t, rpm_limit => 90, %sure });
refused('nor by its field');
is as(IU => POST => '/key/update', { key => $bare->{key}, %sure }), 200, 'one without a limit guarantees nothing' or diag $k->raw;
as(IU => POST => '/key/update', { key => $bare->{key}, rpm_limit => 90 });
refused('and gets none that is not there');
as(PA => POST => '/key/bulk_update', { keys => [ { key => $bare->{key}, rpm_limit => 90 } ] });
like $k->raw, qr/Allocated RPM limit=90/, 'nor with many';
as(PA => POST => '/team/key/bulk_update', { team_id => $t, key_ids => [ $bare->{key} ], update_fields => { rpm_limit => 90 } });
like $k->raw, qr/Allocated RPM limit=90/, 'nor with those of the team';
is sum($t), 90, 'what is guaranteed is what was';
is as(IU => POST => '/key/update', { key => $bare->{key}, rpm_limit => 10 }), 200, 'what is left is free' or diag $k->raw;

# a key that comes from elsewhere

my $from = team();
my $moves = key($from, rpm_limit => 90, %sure);
as(PA => POST => '/key/update', { key => $moves->{key}, team_id => $t });
like $k->raw, qr/Allocated RPM limit=100 \+ Key RPM limit=90/, 'is counted where it comes';
is as(PA => POST => '/key/update', { key => $moves->{key}, team_id => team() }), 200, 'and may go where there is room' or diag $k->raw;

# limits of a budget are limits

my $budget = $w->ok(POST => '/budget/new', { rpm_limit => 90 })->{budget_id};
my $b = team();
is as(PA => POST => '/key/generate', { team_id => $b, budget_id => $budget, %sure }), 200, 'a key with a budget' or diag $k->raw;
as(PA => POST => '/key/generate', { team_id => $b, rpm_limit => 90, %sure });
refused('counts by it');

# what was guaranteed goes on although the team has less by now

$w->ok(POST => '/team/update', { team_id => $t, rpm_limit => 50 });
is as(IU => POST => '/key/update', { key => $one->{key}, metadata => { %sure, note => 1 } }), 200, 'other things of the key change' or diag $k->raw;
is as(IU => POST => '/key/regenerate', { key => $one->{key} }), 200, 'it gets another secret' or diag $k->raw;
my $now = $j->{key};
is as(PA => POST => '/key/update', { key => $now, rpm_limit => 80 }), 200, 'and less' or diag $k->raw;
is as(PA => POST => '/key/update', { key => $now, rpm_limit => 81 }), 400, 'but not more';

# tokens, too

my $tokens = team(tpm_limit => 1000);
key($tokens, tpm_limit => 900, tpm_limit_type => 'guaranteed_throughput');
is as(TA => POST => '/key/generate', { team_id => $tokens, tpm_limit => 200, metadata => { tpm_limit_type => 'guaranteed_throughput' } }), 400, 'the same for tokens';
like $k->raw, qr/Allocated TPM limit=900 \+ Key TPM limit=200/, 'by their name';
is as(TA => POST => '/key/generate', { team_id => $tokens, tpm_limit => 100, metadata => { tpm_limit_type => 'guaranteed_throughput' } }), 200, 'as much as is left' or diag $k->raw;

done_testing;
