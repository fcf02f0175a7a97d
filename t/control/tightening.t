# What somebody with rights put on a key stays on it: who is no proxy admin changes a key
# only so that it may do no more, whatever he sends and by whichever of his keys.

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
my $T = \1;
my $json = JSON::PP->new->canonical;

sub policy { return $k->sql("SELECT policy::jsonb - '{v,used}'::text[] FROM kt_policy WHERE name = 'key:' || kt_key_of(encode(sha256('$_[0]'), 'hex'))") }
sub made { return $w->ok(POST => '/key/generate', { user_id => 'user-IU', team_id => 'alpha', @_ })->{key} }
sub group { my ($s, $g) = $k->post('/v1/access_group', { access_group_name => $_[0], access_model_names => [ @_[1 .. $#_] ] }); return $g->{access_group_id} }

$w->ok(POST => '/team/update', { team_id => 'alpha', team_member_permissions => [ '/team/key/bulk_update', map { "/key/$_" } qw(generate update info regenerate) ] });
$w->ok(POST => '/budget/new', { budget_id => 'b1', max_budget => 1, rpm_limit => 5 });
my $minis = group('minis', 'gpt-4o-mini');
my $free = $w->fresh('IU');

# by the key itself, by another key of its user, one by one and many at once

for my $c ([ { budget_id => 'b1' }, { budget_id => undef } ],
    [ { max_budget => 1, budget_enforcement => 'strict' }, { budget_enforcement => undef } ],
    [ { access_group_ids => [$minis] }, { access_group_ids => [] }, { access_group_ids => undef }, { access_group_ids => [], models => [] } ],
    [ { models => ['gpt-4o-mini'] }, { models => [] }, { models => undef }, { models => ['*'] }, { models => ['gpt-4o'] }, { access_group_ids => ['none'], models => [] , max_budget => 1 } ],
    [ { max_budget => 1 }, { max_budget => undef }, { max_budget => 2 }, { max_budget => '' }, { budget_duration => '1s' }, { rpm_limit => 5, throttle_on_budget_exceeded => $T } ],
    [ { max_budget => 1, budget_duration => '30d' }, { budget_duration => '1d' }, { budget_duration => undef } ],
    [ { rpm_limit => 5, tpm_limit => 50, max_parallel_requests => 2 }, { rpm_limit => undef }, { tpm_limit => '' }, { max_parallel_requests => 3 } ],
    [ { enforced_params => ['user'] }, { enforced_params => [] }, { enforced_params => undef }, { enforced_params => ['metadata'] }, { metadata => { enforced_params => [] } } ],
    [ { allowed_routes => ['/v1/chat/completions', '/key/update', '/key/regenerate', '/team/key/bulk_update'] }, { allowed_routes => [] }, { allowed_routes => undef }, { allowed_routes => ['/*'] } ],
    [ { model_rpm_limit => { 'gpt-4o' => 3 } }, { model_rpm_limit => {} }, { model_rpm_limit => undef }, { model_rpm_limit => { 'gpt-4o' => 4 } }, { metadata => { model_rpm_limit => {} } } ],
    [ { model_max_budget => { 'gpt-4o' => { budget_limit => 1, time_period => '1d' } } }, { model_max_budget => {} }, { model_max_budget => undef } ],
    [ { budget_limits => [ { budget_duration => '1d', max_budget => 1 } ] }, { budget_limits => [] }, { budget_limits => undef } ],
    [ { duration => '1h' }, { duration => undef }, { duration => '-1' }, { duration => '2h' }, { duration => '' } ]) {
    my ($have, @ways) = @$c;
    my $name = join ',', sort keys %$have;
    for my $with (0, 1) {
        my $key = made(%$have);
        my $before = policy($key);
        for my $way (@ways) {
            for my $path ('/key/update', '/key/regenerate', '/team/key/bulk_update') {
                my $body = $path =~ /team/ ? { team_id => 'alpha', key_ids => [$key], update_fields => $way } : { key => $key, %$way };
                ($s, $j) = $k->post($path, $body, key => $with ? $free : $key);
                my $no = $path =~ /team/ && $s == 200 ? !@{ $j->{successful_updates} } : $s =~ /^4/;
                my $same = policy($key) eq $before;
                ok $no && $same, "$name stays against $path " . $json->encode($way) . ($with ? ' by another key' : ' by itself')
                    or diag "$s " . $k->raw . "\n$before\n" . policy($key);
                next if $no && $same;
                $key = made(%$have);
                $before = policy($key);
            }
        }
    }
}

# what is tighter is his to give

my $key = made(max_budget => 5, enforced_params => ['user'], models => [ 'gpt-4o', 'gpt-4o-mini' ], model_rpm_limit => { 'gpt-4o' => 3 }, duration => '2h');
for my $less ({ max_budget => 4 }, { enforced_params => [ 'user', 'metadata' ] }, { models => ['gpt-4o'] }, { model_rpm_limit => { 'gpt-4o' => 2, 'gpt-4o-mini' => 1 } },
    { duration => '1h' }, { rpm_limit => 7 }, { model_max_budget => { 'gpt-4o' => { budget_limit => 1, time_period => '1d' } } }, { metadata => { note => 'x' } }, { aliases => { a => 'gpt-4o' } }) {
    ($s, $j) = $k->post('/key/update', { key => $key, %$less }, key => $free);
    is $s, 200, 'less: ' . $json->encode($less) or diag $k->raw;
}
is_deeply $j->{metadata}{enforced_params}, [ 'user', 'metadata' ], 'new metadata keeps what must be sent';
($s, $j) = $k->post('/key/generate', { enforced_params => [ 'user', 'metadata', 'tags' ], team_id => 'alpha' }, key => $key);
is $s, 200, 'who must send members makes a key that must send more' or diag $k->raw;
($s) = $k->post('/key/generate', { enforced_params => ['tags'], team_id => 'alpha' }, key => $key);
is $s, 403, 'but none that must send less';

# blocks

my $shut = made();
$w->ok(POST => '/key/block', { key => $shut });
for my $v (undef, \0) {
    for my $path ('/key/update', '/key/regenerate') {
        ($s) = $k->post($path, { key => $shut, blocked => $v }, key => $free);
        is $s, 403, "its owner does not unblock a key by $path with " . ($v ? 'false' : 'null');
    }
}
($s) = $k->get('/key/info', key => $shut);
is $s, 401, 'it stays blocked';

# null says nothing of a new key, so clients may write it out

($s, $j) = $k->post('/key/generate', { budget_id => undef, budget_enforcement => undef, config => undef, spend => undef, temp_budget_increase => undef, temp_budget_expiry => undef }, key => $free);
is $s, 200, 'null for admins\' fields of a new key' or diag $k->raw;

# nor of one that has nothing there, by whatever way

my %nothing = (budget_id => [undef], budget_enforcement => [undef], config => [ undef, {} ], permissions => [ undef, {} ], spend => [ 0, undef ], allowed_passthrough_routes => [ undef, [] ], temp_budget_increase => [undef], temp_budget_expiry => [undef]);
my $empty = made();
my $kept = policy($empty);
for my $f (sort keys %nothing) {
    for my $v (@{ $nothing{$f} }) {
        for my $path ('/key/update', '/key/regenerate', '/team/key/bulk_update') {
            next if $f eq 'spend' && $path =~ /regenerate/;
            ($s, $j) = $k->post($path, $path =~ /team/ ? { team_id => 'alpha', key_ids => [$empty], update_fields => { $f => $v } } : { key => $empty, $f => $v }, key => $free);
            ok $s == 200 && ($path !~ /team/ || @{ $j->{successful_updates} }), "$path: $f " . $json->encode($v // 'null') . ' of a key that has none' or diag $k->raw;
            $empty = $j->{key} // $empty;
        }
    }
}
(my $now = policy($empty)) =~ s/"meter": ?\d+,? ?//;
is $now, $kept, 'and nothing came of it';
is $k->sql("SELECT budget_enforcement IS NULL AND budget_id IS NULL FROM keys WHERE token = kt_key_of(encode(sha256('$empty'), 'hex'))"), 't', 'in no column';
$empty = made(permissions => { get_spend_routes => $T }, config => { x => 1 }, budget_id => 'b1', budget_enforcement => 'last_call', spend => 0.5, allowed_passthrough_routes => ['/x']);
for my $f (grep { !/^temp/ } sort keys %nothing) {
    for my $v (@{ $nothing{$f} }) {
        ($s) = $k->post('/key/update', { key => $empty, $f => $v }, key => $free);
        is $s, $f eq 'spend' && !defined $v ? 200 : 403, "what there is of $f stays" or diag $k->raw;
    }
}
cmp_ok $k->get("/key/info?key=$empty") && ($k->get("/key/info?key=$empty"))[1]{info}{spend}, '==', 0.5, 'what was spent too';

# key_type is a list of routes

my $narrow = $w->ok(POST => '/key/generate', { user_id => 'user-IU', allowed_routes => ['/key/generate'] })->{key};
for my $more ({ key_type => 'management' }, { key_type => 'management', allowed_routes => ['/key/generate'] }, { key_type => 'llm_api', allowed_routes => ['/key/generate'] }) {
    ($s) = $k->post('/key/generate', $more, key => $narrow);
    like $s, qr/^40[03]$/, 'a key with routes makes none with others: ' . $json->encode($more);
}
($s) = $k->post('/key/generate', { key_type => 'llm_api', allowed_routes => ['/x'] });
is $s, 400, 'two lists of routes are one too many';
($s, $j) = $k->post('/key/generate', { key_type => 'llm_api', allowed_routes => ['llm_api_routes'] });
is_deeply [ $s, $j->{allowed_routes} ], [ 200, ['llm_api_routes'] ], 'unless they are the same';
($s, $j) = $k->post('/key/generate', { key_type => 'default', allowed_routes => ['/x'] });
is_deeply [ $s, $j->{allowed_routes} ], [ 200, ['/x'] ], 'the default type has none';
my $read = $w->ok(POST => '/key/generate', { user_id => 'user-IU', allowed_routes => [ 'key_management_routes', 'info_routes' ] })->{key};
($s, $j) = $k->post('/key/generate', { key_type => 'read_only' }, key => $read);
is_deeply [ $s, $j->{allowed_routes} ], [ 200, ['info_routes'] ], 'a type within the routes of the maker';

# routes are within others as they are asked for: of stars only the last character is one

for my $c ([ [ '/key/*/regenerate', '/key/*e' ], [ [ '/key/generate', '/key/delete' ], ['/key/x/regenerate'], ['/key/*'] ], [ ['/key/*e'], ['/key/*/regenerate'], ['/key/*e/x'] ] ],
    [ [ '/key/*', '/team/info' ], [ ['*'], ['/*'], ['/ke*'], ['/key'], ['/team/inf'], ['/team/info*'], ['key_management_routes'] ], [ ['/key/generate'], ['/key/x*'], [ '/team/info/x', '/team/info/*' ] ] ],
    [ ['management_routes'], [ ['info_routes'], ['spend_tracking_routes'], ['*'] ], [ ['key_management_routes'], ['management_routes'] ] ],
    [ [ 'key*', 'info_routes' ], [ ['key_management_routes'], ['/key/info'] ], [ ['info_routes'] ] ]) {
    my ($have, $more, $less) = @$c;
    for my $way (map({ [ 403, $_ ] } @$more), map({ [ 200, $_ ] } @$less)) {
        my ($want, $list) = @$way;
        my $key = made(allowed_routes => $have);
        ($s) = $k->post('/key/update', { key => $key, allowed_routes => $list }, key => $free);
        is $s, $want, $json->encode($have) . " become @$list" or diag $k->raw;
        my $maker = made(allowed_routes => [ '/key/generate', @$have ]);
        ($s) = $k->post('/key/generate', { team_id => 'alpha', allowed_routes => $list }, key => $maker);
        is $s, $list->[0] eq '/key/generate' && @$list == 1 ? 200 : $want, 'or are given to another key' or diag $k->raw;
    }
}

# soft_budget and the limits of a budget

my $old = $k->sql('SELECT count(*) FROM budgets');
$j = $w->ok(POST => '/key/generate', { budget_id => 'b1', soft_budget => 0.5 });
isnt $j->{budget_id}, 'b1', 'a warning makes a budget of its own';
is_deeply [ @{ $j->{litellm_budget_table} }{qw(max_budget soft_budget rpm_limit)} ], [ 1, 0.5, 5 ], 'with the limits of the one that was given';
like policy($j->{key}), qr/"limit": ?"1000000000"/, 'which hold';
($s, $j) = $k->post('/key/generate', { soft_budget => 2 });
is_deeply [ $s, $j->{litellm_budget_table}{max_budget} ], [ 200, undef ], 'without one there are none';

# many at once, by the admin of a team

my $ow = $w->fresh('OW', 'alpha');
my $cu = $w->fresh('CU', 'beta');
($s, $j) = $w->as(TA => POST => '/team/key/bulk_update', { team_id => 'alpha', key_ids => [ $ow, $cu ], update_fields => { max_budget => 3, metadata => { x => 1 } } });
is_deeply [ $s, map { $_->{key_info}{max_budget} } @{ $j->{successful_updates} } ], [ 200, 3 ], 'an admin of a team sets limits of its keys' or diag $k->raw;
for my $no ({ max_budget => undef }, { max_budget => 4 }, { user_id => 'user-TA' }, { budget_id => 'b1' }, { permissions => { get_spend_routes => $T } }) {
    ($s, $j) = $w->as(TA => POST => '/team/key/bulk_update', { team_id => 'alpha', key_ids => [$ow], update_fields => $no });
    is_deeply [ $s, scalar @{ $j->{failed_updates} } ], [ 200, 1 ], 'but does not ' . $json->encode($no) or diag $k->raw;
}
($s, $j) = $w->as(US => POST => '/team/key/bulk_update', { team_id => 'alpha', key_ids => [$ow], update_fields => { max_budget => 1 } });
is scalar @{ $j->{failed_updates} }, 1, 'a member changes his own only';

my $svc = $w->ok(POST => '/key/service-account/generate', { team_id => 'alpha', key_alias => 'svc' });
my @all = map { $_->{token} } $svc, map { $w->ok(POST => '/key/generate', { team_id => 'alpha', user_id => 'user-OW' }) } 1 .. 5;
($s, $j) = $w->as(TA => POST => '/team/key/bulk_update', { team_id => 'alpha', key_ids => \@all, update_fields => { metadata => { x => 1 } } });
is scalar @{ $j->{successful_updates} }, 6, 'keys of members and of a service account' or diag $k->raw;
is $k->sql("SELECT string_agg(token, ' ') FROM keys WHERE metadata ? 'service_account_id' AND token = ANY ('{" . join(',', @all) . "}')"), $all[0], 'of which one stays a service account, and no other becomes one';

# aliases tell strangers nothing

$w->ok(POST => '/key/generate', { user_id => 'user-CU', team_id => 'beta', key_alias => 'secret-alias' });
my @there = $w->as(IU => POST => '/key/update', { key_alias => 'secret-alias', max_budget => 1 });
my $there = $k->raw;
my @none = $w->as(IU => POST => '/key/update', { key_alias => 'no-such-alias', max_budget => 1 });
is_deeply [ $there[0], $there ], [ $none[0], $k->raw ], 'an alias of another is as unknown as none';

# a key that moves

$w->ok(POST => '/team/new', { team_id => 'small', models => ['gpt-4o-mini'], organization_id => 'org-A', team_member_permissions => ['/key/update'],
    members_with_roles => [ { role => 'user', user_id => 'user-IU' } ] });
my $big = made(models => ['gpt-4o']);
($s, $j) = $w->as(IU => POST => '/key/update', { key => $big, team_id => 'small' });
is_deeply [ $s, $j->{error}{type} ], [ 401, 'team_model_access_denied' ], 'not to a team that lacks its models' or diag $k->raw;
($s, $j) = $w->as(IU => POST => '/key/update', { key => $big, team_id => 'small', models => ['gpt-4o-mini'] });
isnt $s, 200, 'nor with others that it may not have had';
$big = made(models => [ 'gpt-4o', 'gpt-4o-mini' ]);
($s, $j) = $w->as(IU => POST => '/key/update', { key => $big, team_id => 'small', models => ['gpt-4o-mini'] });
is_deeply [ $s, $j->{team_id} ], [ 200, 'small' ], 'with those that it has' or diag $k->raw;

unlike $k->logs, qr/did not check whose|"level":"error"/, 'no error in the log';
done_testing;
