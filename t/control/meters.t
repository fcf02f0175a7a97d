# Limits that have parts, windows of budgets and limits per model: what the fields of an
# object come to, and that nobody but a proxy admin makes more of them.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use JSON::PP;
use Keytoll::Control;
use Keytoll::World;
use Test::More;

my $k = Keytoll::Control->new(config => <<'END2');
model_list:
  - {model_name: gpt-4o, litellm_params: {model: openai/gpt-4o}}
  - {model_name: gpt-4o-mini, litellm_params: {model: openai/gpt-4o-mini}}
END2
my $w = Keytoll::World->new($k);
my ($s, $j);
my $json = JSON::PP->new->canonical->allow_nonref;

# limits of the meters of an owner: {"m~gpt-4o": "1000000000 1d 3 30"}
sub meters {
    my ($owner) = @_;
    return { map { split /\|/ } split /\n/, $k->sql("SELECT substr(ent, length(owner) + 2) || '|' || concat_ws(' ', coalesce(limit_nusd::text, '-'), coalesce(budget_duration, '-'),"
        . " coalesce(rpm_limit::text, '-'), coalesce(tpm_limit::text, '-')) FROM submeters WHERE owner = '$owner'") };
}
sub of { return meters('key:' . $k->sql("SELECT kt_key_of(encode(sha256('$_[0]'), 'hex'))")) }
sub made { return $w->ok(POST => '/key/generate', { user_id => 'user-IU', team_id => 'alpha', @_ })->{key} }
sub window { return { budget_duration => $_[0], max_budget => $_[1] } }

$w->ok(POST => '/team/update', { team_id => 'alpha', team_member_permissions => [ '/team/key/bulk_update', map { "/key/$_" } qw(generate update info regenerate) ] });
my $free = $w->fresh('IU');

# windows are told apart by their duration

my @twice = (budget_limits => [ window('1d', 1), window('1d', 1000) ]);
my $plain = made();
for my $c ([ '/key/generate', {} ], [ '/key/update', { key => $plain } ], [ '/key/regenerate', { key => $plain } ], [ '/team/new', { team_id => 'twice' } ], [ '/team/update', { team_id => 'gamma' } ],
    [ '/user/new', { user_id => 'twice' } ], [ '/user/update', { user_id => 'user-IU' } ]) {
    ($s) = $k->post($c->[0], { %{ $c->[1] }, @twice });
    is $s, 400, "$c->[0]: a duration twice" or diag $k->raw;
    like $k->raw, qr/budget_limits has the budget_duration 1d twice/, 'and why';
}
($s, $j) = $k->post('/key/bulk_update', { keys => [ { key => $plain, @twice } ] });
like $k->raw, qr/the budget_duration 1d twice/, '/key/bulk_update: a duration twice' or diag $k->raw;
is_deeply of($plain), {}, 'nothing came of it';
is_deeply of(made(budget_limits => [ window('1d', 1), window('30d', 10) ])), { 'w~1d' => '1000000000 1d - -', 'w~30d' => '10000000000 30d - -' }, 'two durations are two windows';
my $old = $w->ok(POST => '/key/generate', { budget_limits => [ window('1d', 5) ] });
$k->sql(qq{UPDATE keys SET budget_limits = '[{"budget_duration": "1d", "max_budget": 1}, {"budget_duration": "1d", "max_budget": 1000}]' WHERE token = '$old->{token}'});
$w->ok(POST => '/key/update', { key => $old->{key}, metadata => { x => 1 } });
is_deeply of($old->{key}), { 'w~1d' => '1000000000 1d - -' }, 'of one that has it twice already the lower limit holds';

# limits of a model: two fields for the same rate

my %both = (model_max_budget => { 'gpt-4o' => { budget_limit => 1, time_period => '1d', rpm_limit => 3, tpm_limit => 3000 } }, model_rpm_limit => { 'gpt-4o' => 1000 }, model_tpm_limit => { 'gpt-4o' => 30 });
is_deeply of(made(%both)), { 'm~gpt-4o' => '1000000000 1d 3 30' }, 'the lower one holds, whichever it is';
$w->ok(POST => '/team/update', { team_id => 'gamma', %both });
is_deeply meters('team:gamma'), { 'm~gpt-4o' => '1000000000 1d 3 30' }, 'of teams too';

unlike $k->logs, qr/did not check whose|"level":"error"/, 'no error in the log';
done_testing;
