# Nothing, in every form, in every field that changes something, by everybody who is no
# proxy admin: no key comes out of it wider, and nothing else that is not the caller's.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use JSON::PP;
use Keytoll::Control;
use Keytoll::World;
use Test::More;

my $k = Keytoll::Control->new;
my $w = Keytoll::World->new($k);
my $json = JSON::PP->new->canonical->allow_nonref;
my (undef, $dump) = $k->run('routes');
my %route = map { ("$_->{method} $_->{path}" => $_) } map { decode_json($_) } grep { /^\{/ } split /\n/, $dump;

$w->ok(POST => '/user/new', { user_id => "user-$_->[0]", user_role => $_->[1], auto_create_key => \0 }) for [ IV => 'internal_user_viewer' ], [ PV => 'proxy_admin_viewer' ];
$w->{key}{$_} = $w->ok(POST => '/key/generate', { user_id => "user-$_" })->{key} for qw(IV PV);
$w->{key}{loose} = $w->ok(POST => '/key/generate', {})->{key};
$w->ok(POST => '/budget/new', { budget_id => 'b1', max_budget => 5, rpm_limit => 5, tpm_limit => 50, budget_duration => '30d' });
my ($s, $g) = $k->post('/v1/access_group', { access_group_name => 'minis', access_model_names => ['gpt-4o-mini'] });
$w->ok(POST => '/user/update', { user_id => 'user-IU', max_budget => 10, rpm_limit => 10, models => ['gpt-4o-mini'] });
$w->ok(POST => '/team/member_update', { team_id => 'alpha', user_id => 'user-IU', max_budget_in_team => 3, allowed_models => ['gpt-4o-mini'] });
$w->ok(PATCH => '/organization/member_update', { organization_id => 'org-A', user_id => 'user-IU', max_budget_in_organization => 4 });
$w->ok(POST => '/team/update', { team_id => 'alpha', max_budget => 100, rpm_limit => 50, models => [ 'gpt-4o', 'gpt-4o-mini' ],
    team_member_permissions => [ '/team/key/bulk_update', map { "/key/$_" } qw(generate update regenerate info) ] });

# keys of a member with everything that limits one: by a budget, by itself, and one blocked

my %own = (max_budget => 2, tpm_limit => 40, rpm_limit => 4, max_parallel_requests => 3, budget_duration => '30d',
    model_max_budget => { 'gpt-4o' => { budget_limit => 1, time_period => '1d' } }, budget_limits => [ { budget_duration => '1d', max_budget => 1 } ],
    model_rpm_limit => { 'gpt-4o' => 3 }, model_tpm_limit => { 'gpt-4o' => 30 }, enforced_params => ['user'], duration => '10d', models => ['gpt-4o-mini'],
    allowed_routes => ['llm_api_routes'], budget_enforcement => 'strict', metadata => { service => 'x' }, aliases => { m => 'gpt-4o-mini' });
my @kinds = (\%own, { budget_id => 'b1', access_group_ids => [ $g->{access_group_id} ], enforced_params => ['user'] }, { blocked => \1, rpm_limit => 4 });
my @tokens = map { $_->{token_id} } map { $w->ok(POST => '/key/generate', { user_id => 'user-IU', team_id => 'alpha', organization_id => 'org-A', %$_ }) } @kinds;
my $all = $tokens[0];
my $list = join ',', map { "'$_'" } @tokens;

# names, what aliases, cheaper models and throttling add may go; the meter changes with the secret
my $POLICY = "policy::jsonb - '{v,used,aliases,names,map,falls,throttle,meter,name}'::text[]";
sub keys_now { return $k->sql("SET jit = off; SELECT name, $POLICY FROM kt_policy WHERE name IN (SELECT 'key:' || token FROM keys WHERE token IN ($list)) ORDER BY 1")
                    . $k->sql("SELECT token, allowed_routes, permissions, config, organization_id, team_id, user_id FROM keys WHERE token IN ($list) ORDER BY 1") }
sub rest_now { return $k->sql("SET jit = off; SELECT name, $POLICY FROM kt_policy WHERE name NOT LIKE 'key:%' AND name NOT LIKE 'm:%' ORDER BY 1") }
sub hash_of { return $k->sql("SELECT coalesce(current_hash, token) FROM keys WHERE token = '$_[0]'") }

my $before = keys_now();
like $before, qr/"strict"/, 'the keys have limits';
my $cases = 0;
my @VALUES = (undef, [], '');

sub try_all {
    my ($name, $who, $fields, $call) = @_;
    my (@wrong, @done);
    for my $f (@$fields) {
        for my $v ($who eq 'IU' && $name =~ /update/ && $name !~ /bulk/ ? @VALUES : $VALUES[0]) {
            my ($s) = $call->($f, $v);
            $cases++;
            push @wrong, "$who $f " . $json->encode($v) . ": $s $k->{raw}" if $s >= 500 && $s != 501;
            push @done, "$f " . $json->encode($v) if $s < 400 && $k->{raw} !~ /"successful_updates":\[\]/;
        }
    }
    my $now = keys_now();
    push @wrong, "changed by one of @done:\n$before\n$now" if $now ne $before;
    $before = $now;
    is_deeply \@wrong, [], "$name by $who";
}

sub fields_of { my ($r) = @_; return [ grep { !/^(?:key|keys|key_ids|team_id|new_key|grace_period|update_fields|all_keys_in_team)$/ } map { $_->{name} } @{ $route{$r}{body} } ] }

my %hash = map { ($_ => hash_of($_)) } @tokens;
for my $who (qw(IU TA OA loose)) {
    for my $r ('POST /key/update', 'POST /key/regenerate') {
        my ($m, $path) = split / /, $r;
        for my $t ($who eq 'IU' && $path eq '/key/update' ? @tokens[ 0, 1 ] : $all) {
            try_all($r, $who, fields_of($r), sub {
                my ($f, $v) = @_;
                my ($s, $j) = $k->request($m, $path, { key => $hash{$t}, $f => $v, $who eq 'OA' ? (organization_id => 'org-A') : () }, key => $w->{key}{$who});
                $hash{$t} = hash_of($t) if $s == 200 && $path =~ /regenerate/;
                return $s;
            });
        }
    }
    # an admin of the team may unblock its keys
    try_all('POST /team/key/bulk_update', $who, [ grep { $who ne 'TA' || $_ ne 'blocked' } @{ fields_of('POST /key/update') } ], sub {
        my ($f, $v) = @_;
        return $k->post('/team/key/bulk_update', { team_id => 'alpha', key_ids => [ $hash{$all} ], update_fields => { $f => $v } }, key => $w->{key}{$who});
    });
}
is $k->sql("SELECT count(*) FROM keys WHERE token IN ($list) AND blocked"), 1, 'what was blocked is blocked';

# users, teams, organizations and members: who has no say there changes nothing

my %id = (user_id => 'user-IU', team_id => 'alpha', organization_id => 'org-A');
for my $c ([ 'POST /user/update', qw(user_id) ], [ 'POST /team/update', qw(team_id) ], [ 'POST /team/member_update', qw(team_id user_id) ], [ 'POST /team/permissions_update', qw(team_id) ],
    [ 'POST /team/model/add', qw(team_id) ], [ 'PATCH /organization/update', qw(organization_id) ], [ 'PATCH /organization/member_update', qw(organization_id user_id) ], [ 'POST /budget/update', 'budget_id' ]) {
    my ($r, @ids) = @$c;
    my ($m, $path) = split / /, $r;
    ok $route{$r}, "$r is there" or next;
    my $rest = rest_now();
    for my $who (qw(IU loose), $path =~ /user|organization.update|budget/ ? qw(TA OA) : $path eq '/team/update' ? 'TA' : ()) {
        my @names = grep { my $n = $_; !grep { $n eq $_ } @ids } map { $_->{name} } @{ $route{$r}{body} };
        try_all($r, $who, \@names, sub {
            my ($f, $v) = @_;
            return $k->request($m, $path, { budget_id => 'b1', (map { ($_ => $id{$_} // 'b1') } @ids), $f => $v }, key => $w->{key}{$who});
        });
    }
    is rest_now(), $rest, "$r: users, teams and members are as they were";
}

cmp_ok $cases, '>', 400, "$cases cases";
unlike $k->logs, qr/did not check whose|"level":"error"/, 'no error in the log';
done_testing;
