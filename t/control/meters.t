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

# a plan's hold where the key has none of its own, whatever else is changed

$w->ok(POST => '/budget/new', { budget_id => 'plan', model_max_budget => { 'gpt-4o' => { budget_limit => 1, time_period => '1d' } } });
my $planned = made(budget_id => 'plan');
is_deeply of($planned), { 'm~gpt-4o' => '1000000000 1d - -' }, 'limits of a plan, from the first request on';
($s) = $k->post('/key/update', { key => $planned, metadata => { x => 1 } }, key => $free);
is_deeply [ $s, of($planned) ], [ 200, { 'm~gpt-4o' => '1000000000 1d - -' } ], 'a change of something else leaves them';
($s) = $k->post('/key/update', { key => $planned, model_max_budget => { 'gpt-4o-mini' => { budget_limit => 1, time_period => '1d' } } }, key => $free);
is $s, 403, 'its owner does not replace them';
$w->ok(POST => '/key/update', { key => $planned, model_max_budget => { 'gpt-4o-mini' => 2 } });
is_deeply of($planned), { 'm~gpt-4o-mini' => '2000000000 - - -' }, 'a proxy admin does';
$w->ok(POST => '/key/update', { key => $planned, model_max_budget => {} });
is_deeply of($planned), { 'm~gpt-4o' => '1000000000 1d - -' }, 'and has them back';
$w->ok(POST => '/key/update', { key => $planned, budget_id => undef });
is_deeply of($planned), {}, 'without the plan they are gone';

# nobody but a proxy admin makes more of them: by update, by another secret, many at once

for my $c (
    [ { budget_limits => [ window('1d', 1) ] }, [ { budget_limits => [ window('1d', 1), window('1d', 1000) ] }, { budget_limits => [ window('1d', 2) ] }, { budget_limits => [ window('24h', 1) ] } ] ],
    [ { model_max_budget => { 'gpt-4o' => { budget_limit => 1, time_period => '1d', rpm_limit => 3, tpm_limit => 30 } } },
      [ { model_rpm_limit => { 'gpt-4o' => 1000 }, metadata => { model_tpm_limit => { 'gpt-4o' => 100000 } } }, { model_rpm_limit => { 'gpt-4o' => 4 } }, { model_tpm_limit => { 'gpt-4o' => 31 } },
        { model_max_budget => { 'gpt-4o' => { budget_limit => 1, time_period => '1d' } }, model_rpm_limit => { 'gpt-4o' => 3 } },
        { model_max_budget => { 'gpt-4o' => { budget_limit => 1, time_period => '1h', rpm_limit => 3, tpm_limit => 30 } } },
        { model_max_budget => { 'gpt-4o' => { budget_limit => 2, time_period => '1d', rpm_limit => 3, tpm_limit => 30 } } },
        { model_max_budget => { 'gpt-4o' => { budget_limit => undef, max_budget => 1, time_period => '1d', rpm_limit => 3, tpm_limit => 30 } } },
        { model_max_budget => { 'gpt-4o-mini' => { budget_limit => 1, time_period => '1d', rpm_limit => 3, tpm_limit => 30 } } } ] ],
    [ { model_rpm_limit => { 'gpt-4o' => 3 } }, [ { model_max_budget => { 'gpt-4o' => { budget_limit => 1, time_period => '1d', rpm_limit => 1000 } } },
        { model_max_budget => { 'gpt-4o' => { budget_limit => 1, time_period => '1d', rpm_limit => 1000 } }, model_rpm_limit => {} } ] ],
    [ { %both }, [ { model_max_budget => {} }, { model_tpm_limit => {} }, { model_rpm_limit => { 'gpt-4o' => 1001 } } ] ]) {
    my ($have, $ways) = @$c;
    for my $way (@$ways) {
        my $key = made(%$have);
        my $before = of($key);
        for my $by ($key, $free) {
            for my $path ('/key/update', '/key/regenerate', '/team/key/bulk_update') {
                ($s, $j) = $k->post($path, $path =~ /team/ ? { team_id => 'alpha', key_ids => [$key], update_fields => $way } : { key => $key, %$way }, key => $by);
                ok $path =~ /team/ ? $s == 200 && !@{ $j->{successful_updates} } : $s =~ /^40[03]$/, "$path: no " . $json->encode($way) or diag "$s " . $k->raw;
                is_deeply of($key), $before, 'and nothing of it';
            }
        }
        ($s) = $k->post('/key/generate', { team_id => 'alpha', %$way }, key => $key);
        like $s, qr/^40[03]$/, 'nor does it make such a key: ' . $json->encode($way) or diag $k->raw unless grep { ref eq 'HASH' && !%$_ } values %$way;
    }
}

# what is no more is his to give, in whatever order and form

my %fine = (budget_limits => [ window('1d', 1), window('30d', 5) ], model_max_budget => { 'gpt-4o' => { budget_limit => 1, time_period => '1d', rpm_limit => 3 } });
my $limited = made(%fine);
for my $way ({ budget_limits => [ window('30d', 5), window('1d', 0.5) ] }, { budget_limits => [ window('1d', '1.0'), window('30d', 4), window('1h', 9) ] },
    { model_max_budget => { 'gpt-4o' => { rpm_limit => 2, time_period => '1d', budget_limit => 1 }, 'gpt-4o-mini' => 7 } }, { model_max_budget => { 'gpt-4o' => { rpm_limit => 3, time_period => '1d', max_budget => '1.00' } } },
    { model_rpm_limit => { 'gpt-4o' => 3 } }, { model_tpm_limit => { 'gpt-4o' => 50 } }) {
    ($s) = $k->post('/key/generate', { team_id => 'alpha', %$way }, key => $limited);
    is $s, 200, 'a key with ' . $json->encode($way) or diag $k->raw;
    my $key = made(%fine);
    ($s) = $k->post('/key/update', { key => $key, %$way }, key => $free);
    is $s, 200, 'and the same later' or diag $k->raw;
}
$limited = made(budget_limits => [ window('1d', 1) ], model_max_budget => { 'gpt-4o' => { budget_limit => 1, time_period => '1d' } });
for my $text ('"budget_limits":[{"max_budget":1,"budget_duration":"1d"}]', '"budget_limits":[{"budget_duration":"1d","max_budget":1}]', '"budget_limits":[{"max_budget":1.0,"budget_duration":"1d"}]',
    '"model_max_budget":{"gpt-4o":{"time_period":"1d","budget_limit":1.00}}', '"model_max_budget":{"gpt-4o":{"budget_limit":1,"time_period":"1d"}}') {
    ($s) = $k->post('/key/generate', qq({"team_id":"alpha",$text}), key => $limited);
    is $s, 200, "a key with $text" or diag $k->raw;
}
($s) = $k->post('/key/update', { key => made(%both), %both, max_budget => 1 }, key => $free);
is $s, 200, 'what it has may be sent again' or diag $k->raw;

# defaults that clients write out say nothing

my %limits = (%both, budget_limits => [ window('1d', 1) ], enforced_params => ['user'], models => ['gpt-4o'], allowed_routes => [ '/key/generate', '/v1/chat/completions' ], max_budget => 2, budget_duration => '30d');
$limited = made(%limits);
($s, $j) = $k->post('/key/generate', { team_id => 'alpha', model_max_budget => {}, budget_limits => [], model_rpm_limit => {}, model_tpm_limit => undef, metadata => { enforced_params => [] }, enforced_params => [],
    models => [], allowed_routes => [], aliases => {}, config => {}, permissions => {}, spend => 0, allowed_passthrough_routes => [], allowed_cache_controls => [] }, key => $limited);
is $s, 200, 'defaults written out' or diag $k->raw;
is_deeply of($j->{key}), { 'm~gpt-4o' => '1000000000 1d 3 30', 'w~1d' => '1000000000 1d - -' }, 'what limits the maker limits the key';
is_deeply [ @$j{qw(enforced_params models allowed_routes max_budget budget_duration)} ], [ @limits{qw(enforced_params models allowed_routes max_budget budget_duration)} ], 'all of it';

# a budget that renews, and one that is kept to the letter

$limited = made(max_budget => 1);
for my $more ({ max_budget => 1, budget_duration => '1s' }, { max_budget => 0.5, budget_duration => '30d' }, { budget_duration => '1mo' }) {
    ($s) = $k->post('/key/generate', { team_id => 'alpha', %$more }, key => $limited);
    is $s, 403, 'a budget for once makes none that renews: ' . $json->encode($more) or diag $k->raw;
}
$limited = made(max_budget => 1, budget_duration => '30d');
($s) = $k->post('/key/generate', { team_id => 'alpha', budget_duration => '1d' }, key => $limited);
is $s, 403, 'nor one that renews sooner';
$limited = made(max_budget => 1, budget_enforcement => 'strict');
($s, $j) = $k->post('/key/generate', { team_id => 'alpha' }, key => $limited);
is_deeply [ $s, $j->{budget_enforcement} ], [ 200, 'strict' ], 'strict is passed on' or diag $k->raw;
($s, $j) = $k->post('/key/regenerate', { key => $j->{key} }, key => $limited);
is $s, 200, 'so the maker has the key in hand' or diag $k->raw;
($s) = $k->post('/key/generate', { team_id => 'alpha', budget_enforcement => 'last_call' }, key => $limited);
is $s, 403, 'another enforcement is not to be had';
$w->ok(POST => '/budget/new', { budget_id => 'strict', max_budget => 1, budget_enforcement => 'strict' });
($s, $j) = $k->post('/key/generate', { team_id => 'alpha' }, key => made(budget_id => 'strict'));
is_deeply [ $s, $j->{budget_enforcement}, $j->{max_budget} ], [ 200, 'strict', 1 ], 'nor of a plan' or diag $k->raw;

# the secret of a key of another user is worth what binds that user

my $other = $w->fresh('OW', 'alpha');
for my $less ({ metadata => { model_rpm_limit => { 'gpt-4o' => 1 } } }, { metadata => { model_tpm_limit => { 'gpt-4o' => 1 } } }, { metadata => { note => 'none' }, budget_enforcement => 'strict' }) {
    $w->ok(POST => '/user/update', { user_id => 'user-TA', %$less });
    ($s) = $w->as(TA => POST => '/key/regenerate', { key => $other });
    is $s, 403, 'who has limits does not get the key of one who has none: ' . $json->encode($less) or diag $k->raw;
}
$w->ok(POST => '/user/update', { user_id => 'user-TA', budget_enforcement => 'last_call' });
($s) = $w->as(TA => POST => '/key/regenerate', { key => $other });
is $s, 200, 'without any he does' or diag $k->raw;

unlike $k->logs, qr/did not check whose|"level":"error"/, 'no error in the log';
done_testing;
