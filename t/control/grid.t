# Every route x every kind of caller, and every body field x every kind of caller, made
# from the daemon's own tables and judged by an oracle of its own (litellm-api 0.5): the
# gate denies by default, a denial changes nothing, what belongs to another tenant is
# neither shown nor changed, and nobody ends up with more than he had.

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
my $json = JSON::PP->new->canonical;
my (undef, $dump) = $k->run('routes');
my @routes = map { decode_json($_) } grep { /^\{/ } split /\n/, $dump;
cmp_ok scalar(@routes), '>', 100, 'the routes are known: ' . @routes;

# controld/access.h
my %G = (PUBLIC => 1, INFO => 2, KEY => 4, MANAGE => 8, SPEND => 16, SPEND_USER => 32, SPEND_ALL => 64,
         SELF => 128, ORG => 256, READ => 512, MASTER => 1024);
sub mask { my $m = 0; $m |= $G{$_} for @_; return $m }
my %MAY = (loose => mask('INFO'), IV => mask(qw(INFO SPEND SPEND_USER SPEND_ALL SELF)),
           (map { $_ => mask(qw(INFO KEY SPEND SPEND_USER SELF)) } qw(IU TA CU)),
           (map { $_ => mask(qw(INFO SELF)) } qw(OA OB)), PV => mask(qw(INFO READ)));

$w->ok(POST => '/user/new', { user_id => 'user-IV', user_role => 'internal_user_viewer', auto_create_key => \0 });
$w->ok(POST => '/user/new', { user_id => 'user-PV', user_role => 'proxy_admin_viewer', auto_create_key => \0 });
$w->{key}{$_} = $w->ok(POST => '/key/generate', { user_id => "user-$_" })->{key} for qw(IV PV);
$w->{key}{loose} = $w->ok(POST => '/key/generate', {})->{key};

# what a caller without rights must not be able to touch
my $beta_key = $w->fresh('CU', 'beta');
my $alpha_key = $w->fresh('OW', 'alpha');
$w->ok(POST => '/budget/new', { budget_id => 'rich', max_budget => 1e6 });
$w->ok(POST => '/customer/new', { user_id => 'cust' });
$w->ok(POST => '/tag/new', { name => 'tag1' });
$w->ok(POST => '/model/new', { model_name => 'm-1', litellm_params => { model => 'openai/gpt-4o' } });

my @TABLES = qw(users teams memberships organizations organization_memberships budgets keys customers tags models
                settings access_groups access_group_models);
sub snapshot {
    my $skip = shift // '';
    return $k->sql(join ' UNION ALL ', map { "SELECT '$_', md5(coalesce(string_agg(t::text, '' ORDER BY t::text), '')) FROM $_ t" } @TABLES);
}

sub path_of {
    my ($r, %in) = @_;
    my $p = $r->{path};
    $p =~ s/\{([a-z_]+)\}/$in{$1} \/\/ 'x'/ge;
    $p =~ s/\*$/x/;
    return $p;
}

# --- the gate

my $cases = 0;
my @gated = grep { !($_->{groups} & $G{PUBLIC}) } @routes;
for my $r (@gated) {
    my $path = path_of($r);
    my $body = $r->{method} eq 'GET' ? undef : {};
    my $before = snapshot();
    my @wrong;
    for my $who (undef, 'sk-' . 'z' x 40, sort keys %MAY) {
        my $key = !defined $who ? undef : $w->{key}{$who} // $who;
        my ($s, $j) = $k->request($r->{method}, $path, $body, key => $key);
        my $may = defined $who && exists $MAY{$who}
                  && ($r->{groups} & $MAY{$who} && !($r->{groups} & $G{MASTER}));
        my $name = $who // 'nobody';
        $cases++;
        if (!$may) {
            next if $name eq 'PV' && $r->{path} eq '/user/update';    # his own address and password
            my $told = !defined $who || !exists $MAY{$who} ? $s == 401 : $who eq 'PV' && !($r->{groups} & $G{MASTER}) ? $s == 403 : $s == 401;
            push @wrong, "$name: $s $k->{raw}" if !$told;
        }
        else {
            # it has reached the handler, which may know no such object
            push @wrong, "$name: $s $k->{raw}" if $s >= 500 && $s != 501
                || ($k->{raw} // '') =~ /Only proxy admin can be used to generate/;
        }
    }
    is_deeply \@wrong, [], "$r->{method} $r->{path}: the gate";
    # no body names an object: only what a caller makes for himself may appear
    next if $r->{path} =~ m{^/(?:key/generate|user/new|team/new)$};
    is snapshot(), $before, "$r->{method} $r->{path}: nothing changed";
}

# --- other tenants' objects, in every place that an id may stand

my %theirs = (key => $beta_key, keys => [$beta_key], key_aliases => ['nope'], team_id => 'beta', team_ids => ['beta'],
              user_id => 'user-CU', user_ids => ['user-CU'], user_email => 'cu@example.com', organization_id => 'org-B',
              organization_ids => ['org-B'], organizations => ['org-B'], budget_id => 'rich', id => 'rich', name => 'tag1',
              member => { role => 'admin', user_id => 'user-IU' }, members => [ { role => 'admin', user_id => 'user-IU' } ],
              end_user_id => 'cust', key_ids => [$beta_key], all_keys_in_team => \1, update_fields => { max_budget => 1 },
              team_member_permissions => ['/key/generate'], permissions => ['/key/generate'], apply_to_all_teams => \1,
              models => ['gpt-4o'], reset_to => 0, role => 'admin', max_budget_in_team => 5, metadata => { x => 1 });
for my $r (grep { $_->{body} && !($_->{groups} & $G{READ}) } @gated) {
    my %body = map { exists $theirs{ $_->{name} } ? ($_->{name} => $theirs{ $_->{name} }) : () } @{ $r->{body} };
    delete $body{permissions} if $r->{path} =~ m{^/(key|user)};
    my $path = path_of($r, key => $beta_key, team_id => 'beta', user_id => 'user-CU', id => 'x');
    my $before = snapshot();
    my @wrong;
    for my $who (qw(IV IU TA OA loose PV)) {
        my ($s) = $k->request($r->{method}, $path, \%body, key => $w->{key}{$who});
        $cases++;
        push @wrong, "$who: $s $k->{raw}" if $s < 400 && ($k->{raw} !~ /"successful_(?:updates|additions)":(?:\[\]|0)/) || $s >= 500 && $s != 501;
    }
    is_deeply \@wrong, [], "$r->{method} $r->{path}: another tenant's objects are refused";
    is snapshot(), $before, "$r->{method} $r->{path}: and stay as they are";
}

for my $q ("/key/info?key=$beta_key", '/team/info?team_id=beta', '/user/info?user_id=user-CU', '/v2/user/info?user_id=user-CU',
           '/organization/info?organization_id=org-B', '/key/list?team_id=beta', '/key/list?user_id=user-CU',
           '/key/list?organization_id=org-B', '/team/list?user_id=user-CU', '/v2/team/list?user_id=user-CU',
           '/team/permissions_list?team_id=beta', '/team/beta/members/me') {
    for my $who (qw(IV IU TA OA loose)) {
        my ($s) = $w->as($who, GET => $q);
        $cases++;
        cmp_ok $s, '>=', 400, "$who may not read $q" or diag $k->raw;
    }
}
for my $q ('/key/list?size=100&return_full_object=true&include_team_keys=true', '/team/list', '/v2/team/list?page_size=100',
           '/organization/list', '/key/aliases', '/user/filter/ui', '/team/filter/ui') {
    for my $who (qw(IV IU TA OA)) {
        $w->as($who, GET => $q);
        $cases++;
        unlike $k->raw, qr/user-CU|"beta"|org-B|cu\@example/, "$who sees nothing of the other tenant in $q";
    }
}

# --- every field that a body may have, with a greedy value

$w->ok(POST => '/user/update', { user_id => "user-$_", max_budget => 10, rpm_limit => 10, tpm_limit => 1000, models => ['gpt-4o'],
                                 max_parallel_requests => 3 }) for qw(IU TA);
$w->ok(POST => '/team/update', { team_id => 'alpha', max_budget => 100, rpm_limit => 50, tpm_limit => 5000, models => [ 'gpt-4o', 'claude-*' ],
                                 team_member_permissions => [ map { "/key/$_" } qw(generate update regenerate info) ] });

# by number in controld/fields.h
my %GREED = (1 => 'x', 2 => 'x', 3 => 'x', 4 => 5000, 5 => 5000, 6 => \1, 7 => ['*'], 8 => { a => 1 }, 9 => [], 10 => {}, 11 => { a => 1 },
             12 => ['x'], 13 => {}, 14 => '1d', 15 => '1d', 16 => 'last_call', 18 => 0, 19 => 'x');
my %GREEDY = (user_role => 'proxy_admin', permissions => { get_spend_routes => \1 }, models => [ 'gpt-4o', 'o1-pro' ],
              allowed_routes => ['/*'], budget_id => 'rich', team_id => 'beta', organization_id => 'org-B', user_id => 'user-CU',
              max_budget => 5000, team_ids => ['beta'], teams => ['beta'], organizations => ['org-B'], config => { a => 1 },
              model_max_budget => { 'gpt-4o' => { budget_limit => 5000, time_period => '1d' } }, model_rpm_limit => { 'gpt-4o' => 5000 },
              model_tpm_limit => { 'gpt-4o' => 5000 }, members_with_roles => [ { role => 'admin', user_id => 'user-IU' } ],
              budget_limits => [ { budget_duration => '1d', max_budget => 5000 } ], access_group_ids => ['nope'], role => 'admin');
# an admin of a team may add anybody to it, so users.teams does not count
my $theirs = "SELECT md5(string_agg(x, '')) FROM (SELECT t::text x FROM teams t WHERE team_id = 'beta' UNION ALL"
    . " SELECT (to_jsonb(u) - '{teams,version}'::text[])::text FROM users u WHERE user_id IN ('user-CU', 'user-OB', 'user-PA') UNION ALL"
    . " SELECT o::text FROM organizations o WHERE organization_id = 'org-B' UNION ALL SELECT b::text FROM budgets b WHERE budget_id = 'rich' ORDER BY 1) y";
my $theirs_before = $k->sql($theirs);

for my $r (grep { $_->{body} && !($_->{groups} & ($G{READ} | $G{PUBLIC})) } @gated) {
    my (@wrong, $mine);
    for my $who (qw(loose IV IU TA OA PV)) {
        undef $mine;
        for my $f (@{ $r->{body} }) {
            undef $mine if $r->{path} =~ /regenerate|delete/ && $who =~ /IU|TA/;
            $mine //= $w->fresh($who =~ /IU|TA/ ? ($who, 'alpha') : 'IU') if $r->{path} =~ m{^/key/(?:update|regenerate|delete|block|unblock)$|^/key/\{};
            my %body = (defined $mine ? (key => $mine, keys => [$mine]) : (),
                        $r->{path} =~ m{^/team/} ? (team_id => 'alpha') : (), $r->{path} =~ m{^/user/update} ? (user_id => "user-$who") : ());
            $body{ $f->{name} } = $GREEDY{ $f->{name} } // ($f->{values} ? (split /\|/, $f->{values})[0] : $GREED{ $f->{type} } // 'x')
                unless $f->{name} =~ /^keys?$/ && defined $mine;
            my ($s, $j) = $k->request($r->{method}, path_of($r, key => $mine // 'x', team_id => 'alpha', user_id => "user-$who"), \%body, key => $w->{key}{$who});
            $cases++;
            push @wrong, "$who $f->{name}: $s $k->{raw}" if $s >= 500 && $s != 501 || $f->{admin} && $s < 400;
        }
    }
    is_deeply \@wrong, [], "$r->{method} $r->{path}: fields of admins are refused to others, nothing breaks";
}

is $k->sql($theirs), $theirs_before, "after all of it the other tenant's rows are what they were";
is $k->sql("SELECT user_id || user_role FROM users WHERE user_role LIKE 'proxy%' ORDER BY 1"), "user-PAproxy_admin\nuser-PVproxy_admin_viewer",
    'nobody became an admin';
is $k->sql("SELECT max_budget_nusd, rpm_limit, tpm_limit, models FROM users WHERE user_id = 'user-IU'"), '10000000000|10|1000|{gpt-4o}', "a user's own limits stand";
is $k->sql("SELECT count(*) FROM memberships WHERE team_id = 'beta' AND user_id <> 'user-CU' AND NOT implicit AND user_id <> 'default_user_id'"), 0, 'nobody joined the other team';
is $k->sql("SELECT count(*) FROM organization_memberships WHERE organization_id = 'org-B' AND user_id NOT IN ('user-CU', 'user-OB')"), 0, 'nor the other organization';
my $made = "created_by IN ('user-IU', 'user-TA') AND user_id IN ('user-IU', 'user-TA')";
is $k->sql("SELECT count(*) FROM keys WHERE $made AND team_id IS NULL AND (max_budget_nusd > 10000000000 OR rpm_limit > 10 OR tpm_limit > 1000"
    . " OR max_parallel_requests > 3 OR NOT models <@ '{gpt-4o,all-team-models}')"), 0, 'no personal key has more than its user';
is $k->sql("SELECT count(*) FROM keys WHERE $made AND team_id IS NOT NULL AND (max_budget_nusd > 100000000000 OR rpm_limit > 50 OR tpm_limit > 5000"
    . " OR NOT models <@ '{gpt-4o,claude-*,all-team-models}')"), 0, 'no team key has more than its team';
is $k->sql("SELECT count(*) FROM keys WHERE created_by IN ('user-IU', 'user-TA') AND (permissions <> '{}' OR config <> '{}' OR budget_id = 'rich' OR team_id = 'beta')"), 0,
    'no key got rights, a budget or a team that was not its own';
cmp_ok $k->sql("SELECT count(*) FROM keys WHERE $made"), '>', 20, 'and keys were made all the while';

# a key with limits of its own makes no key without them

my $small = $w->ok(POST => '/key/generate', { user_id => 'user-US', max_budget => 1, models => ['gpt-4o'], rpm_limit => 2, duration => '1h',
                                              allowed_routes => [ '/key/generate', '/key/info' ] })->{key};
my ($s, $j) = $k->post('/key/generate', {}, key => $small);
is $s, 200, 'a small key makes a key';
is_deeply [ @$j{qw(max_budget models rpm_limit allowed_routes)} ], [ 1, ['gpt-4o'], 2, [ '/key/generate', '/key/info' ] ], 'that is as small';
ok $j->{expires}, 'and ends too';
for my $more ([ max_budget => 2 ], [ models => ['o1'] ], [ models => ['all-team-models'] ], [ rpm_limit => 3 ], [ allowed_routes => ['/*'] ], [ duration => '2d' ],
              [ duration => '-1' ]) {
    ($s) = $k->post('/key/generate', {@$more}, key => $small);
    is $s, 403, "but not $more->[0] " . $json->allow_nonref->encode($more->[1]);
}
($s) = $k->get('/key/list', key => $small);
is $s, 403, 'its routes are those it was given';

cmp_ok $cases, '>=', 3000, "$cases cases";
unlike $k->logs, qr/did not check whose/, 'no handler forgot to ask whose object it is';
done_testing;
