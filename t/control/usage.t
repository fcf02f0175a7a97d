# Spend and usage: /spend/*, /global/*, daily activity; shapes, sums, who sees what.

use strict;
use warnings;
no warnings 'portable';
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use POSIX qw(strftime);
use Test::More;
use Time::HiRes qw(time);

my $k = Keytoll::Control->new(config => "litellm_settings:\n  max_budget: 5000\nmodel_list:\n"
    . "  - model_name: fast\n    litellm_params: {model: openai/fast-1, input_cost_per_token: 0.000001,"
    . " output_cost_per_token: 0.000002, cache_read_input_token_cost: 0.0000001}\n"
    . "  - model_name: unpriced\n    litellm_params: {model: openai/unpriced-1}\n");
my ($s, $j, $h);

# organizations A and B; team alpha (A; ta admin, iu and ow users), beta (B; cu)

sub made { my ($st, $o) = $k->post(@_); die "$_[0]: $st " . $k->raw if $st != 200; return $o }
made('/organization/new', { organization_id => $_, organization_alias => "org $_" }) for 'A', 'B';
made('/user/new', { user_id => $_, user_role => 'internal_user', auto_create_key => JSON::PP::false }) for qw(ta iu ow cu oa);
made('/user/new', { user_id => 'viewer', user_role => 'proxy_admin_viewer', auto_create_key => JSON::PP::false });
made('/team/new', { team_id => 'alpha', team_alias => 'Alpha', organization_id => 'A', members_with_roles =>
        [ { user_id => 'ta', role => 'admin' }, map { { user_id => $_, role => 'user' } } qw(iu ow) ] });
made('/team/new', { team_id => 'beta', team_alias => '=Beta', organization_id => 'B',
        members_with_roles => [ { user_id => 'cu', role => 'user' } ] });
$k->sql("INSERT INTO organization_memberships (organization_id, user_id, user_role) VALUES ('A', 'oa', 'org_admin')");
my %key = map { $_->[0] => made('/key/generate', { key_alias => "$_->[0]-key", user_id => $_->[1], $_->[2] ? (team_id => $_->[2]) : () }) }
    [ iu => 'iu', 'alpha' ], [ ow => 'ow', 'alpha' ], [ ta => 'ta', 'alpha' ], [ cu => 'cu', 'beta' ],
    [ mine => 'iu' ], [ oa => 'oa' ], [ viewer => 'viewer' ], [ '=cmd' => 'ow', 'alpha' ];
my $nobody = made('/key/generate', {});
my %tok = map { $_ => $key{$_}{token} } keys %key;

my $day0 = int(time / 86400) * 86400;
my $n = 0;
my %org = (alpha => 'A', beta => 'B');
my @stream;
sub used {
    my ($who, $ago, %o) = @_;
    my $user = { mine => 'iu', '=cmd' => 'ow' }->{$who} // $who;
    my $team = $who eq 'mine' || $who eq 'oa' ? undef : $who eq 'cu' ? 'beta' : 'alpha';
    my $rid = $k->rid(1000 * ($day0 - $ago * 86400) + ($o{ms} // 1000));
    my $ms = hex substr $rid, 0, 12;
    my $ev = JSON::PP->new->canonical->encode({ id => $rid, t0 => $ms, t1 => $ms + 250, m => 'fast', um => 'fast-1', p => 'openai',
        rt => 'chat', uid => 'chatcmpl-' . ++$n, in => 10, out => 5, cr => 2, cw => 1, cost => '' . ($o{cost} // 1000),
        ucr => '0', st => 200, end => 'complete', ip => '10.0.0.1', tags => [], %{ $o{ev} // {} } });
    my $r = "2\t$ms\tfast\nkey:$tok{$who}\t0\t16\n" . join '', map { "$_\t0\t16\n" } "user:$user",
        ($team ? ("team:$team", "member:$team/$user", "org:$org{$team}") : ()), ($o{customer} ? "customer:$o{customer}" : ()),
        (map { "tag:$_" } @{ $o{tags} // [] }), 'global';
    $k->redis('XADD', 'kt:{0000}:s', '*', e => $ev, r => $r, c => 'ok');
    return "chatcmpl-$n";
}
my $first = used('iu', 1, cost => 1_000_000_000, tags => [ 'x', 'y' ], customer => 'c1');
used('ow', 1, cost => 2_000_000_000, tags => ['x']);
used('ow', 0, cost => 3_000_000_000, ev => { m => 'slow', um => 'slow-1', p => 'anthropic', rt => 'messages' });
my $failed = used('cu', 0, cost => 0, ev => { st => 429, end => 'upstream', why => 'too_fast%x', out => 0 });
used('cu', 1, cost => 500_000_000, customer => 'c2');
used('mine', 1, cost => 250_000_000);
used('=cmd', 1, cost => 125_000_000);
used('iu', 40, cost => 7_000_000_000);
$k->until(sub { $k->redis('XLEN', 'kt:{0000}:s') == 0 }) or die 'not booked';
$k->redis('FLUSHALL');                      # these events never went through it
$k->until(sub { ($k->state("key:$tok{ow}") // {})->{used} }, 30);
my ($today, $yesterday, $old) = map { strftime '%Y-%m-%d', gmtime($day0 - $_ * 86400) } 0, 1, 40;
my $range = "start_date=$yesterday&end_date=$today";
sub num { return 0 + ($_[0] // -1) }

# ----------------------------------------------------------------- /spend/logs

($s, $j) = $k->get("/spend/logs?request_id=$first");
is_deeply [ $s, @{ $j->[0] }{qw(request_id team_id spend)}, @{ $j->[0]{metadata} }{qw(user_api_key_org_id user_api_key_team_id)} ],
    [ 200, $first, 'alpha', 1, 'A', 'alpha' ], 'a row by its id, with organization and team';
($s, $j) = $k->get("/spend/logs?request_id=$failed");
is $j->[0]{metadata}{error_information}{error_code}, '429', 'what failed says why';
($s, $j) = $k->get('/spend/logs', key => $key{iu}{key});
is_deeply [ $s, scalar @$j, scalar grep { $_->{user} ne 'iu' } @$j ], [ 200, 3, 0 ], 'an internal user sees his own rows';
($s, $j) = $k->get('/spend/logs?user_id=ow', key => $key{iu}{key});
is scalar(grep { $_->{user} ne 'iu' } @$j), 0, 'whomever he asks for';
is scalar @$j, 3, 'his own then';
($s, $j) = $k->get('/spend/logs?user_id=ow', key => $key{ta}{key});
is_deeply [ scalar @$j, scalar grep { $_->{user} ne 'ow' } @$j ], [ 3, 0 ], 'a team admin sees rows of his team';
($s, $j) = $k->get('/spend/logs', key => $key{ta}{key});
is scalar(grep { ($_->{team_id} // '') ne 'alpha' } @$j), 0, 'and none of others';
($s, $j) = $k->get("/spend/logs?request_id=$first", key => $key{cu}{key});
is_deeply $j, [], 'nor by their id';
$k->sql("UPDATE teams SET team_member_permissions = '{/key/info,/spend/logs}' WHERE team_id = 'alpha'");
($s, $j) = $k->get('/spend/logs?user_id=ow', key => $key{iu}{key});
is scalar @$j, 3, 'the permission /spend/logs opens the rows of the team';
$k->sql("UPDATE teams SET team_member_permissions = '{}' WHERE team_id = 'alpha'");
($s, $j) = $k->get('/spend/logs', key => $key{viewer}{key});
is scalar @$j, 8, 'proxy_admin_viewer sees all';
($s, $j) = $k->get('/spend/logs', key => $nobody->{key});
is $s, 401, 'a key without a user has no role';
($s, $j) = $k->get("/spend/logs?$range");
is_deeply [ map { $_->{startTime} } @$j ], [ $yesterday, $today ], 'days summed, also those without traffic';
is_deeply [ num($j->[0]{spend}), num($j->[0]{users}{iu}), num($j->[0]{models}{fast}), num($j->[0]{ $tok{ow} }) ],
    [ 3.875, 1.25, 3.875, 2 ], 'by user, model and key';
($s, $j) = $k->get("/spend/logs?$range", key => $key{iu}{key});
is_deeply [ num($j->[0]{spend}), keys %{ $j->[0]{users} } ], [ 1.25, 'iu' ], 'of his own for an internal user';
for my $d ('2024-02-30', '2024-13-01', '2023-02-29', '24-1-1', '2024-01-01x', "2024-01-01'") {
    ($s, $j) = $k->get("/spend/logs?start_date=$d&end_date=2024-03-01");
    is_deeply [ $s, $j->{error}{type} ], [ 400, 'internal_error' ], "$d is no date";
}
($s, $j, $h) = $k->get("/spend/logs?$range&summarize=false&format=csv");
is_deeply [ $s, $h->{'content-type'} ], [ 200, 'text/csv; charset=utf-8' ], 'rows as CSV';
my @lines = split /\r\n/, $k->raw;
is scalar @lines, 8, 'a head and a line for each';
($s, $j, $h) = $k->get("/spend/logs?$range", headers => { Accept => 'text/csv' });
like $h->{'content-type'}, qr/csv/, 'also by the Accept header';
($s, $j) = $k->get("/spend/logs?format=xml");
is $s, 422, 'another format is none';
$k->sql("INSERT INTO ledger (rid, started_at, admitted_at, ended_at, token, user_id) SELECT lpad(to_hex(g), 32, '0'),"
    . " '2001-01-01'::timestamptz + g * interval '1 second', now(), now(), '" . 'f' x 64 . "', 'big' FROM generate_series(1, 10001) g");
($s, $j, $h) = $k->get('/spend/logs?user_id=big');
is_deeply [ scalar @$j, $h->{'x-litellm-spend-logs-truncated'} ], [ 10000, 'true' ], 'at most 10,000 rows, and it says so';
($s, $j, $h) = $k->get("/spend/logs?request_id=$first");
is $h->{'x-litellm-spend-logs-truncated'}, undef, 'otherwise not';
$k->sql("DELETE FROM ledger WHERE user_id = 'big'");

# ------------------------------------------------------------------------ pages

my $span = "start_date=$yesterday+00:00:00&end_date=$today+23:59:59";
for my $path ('/spend/logs/v2', '/spend/logs/ui') {
    ($s, $j) = $k->get("$path?$span&page_size=3");
    is_deeply [ $s, scalar @{ $j->{data} }, @$j{qw(total page page_size total_pages)} ], [ 200, 3, 7, 1, 3, 3 ], "$path: a page";
    ok !exists $j->{data}[0]{messages} && !exists $j->{data}[0]{response}, 'without messages';
}
is $j->{data}[0]{session_total_count}, 1, 'the UI counts sessions';
($s, $j) = $k->get("/spend/logs/v2?$span&page=3&page_size=3");
is scalar @{ $j->{data} }, 1, 'the last page';
for my $c ([ 'sort_by=spend&sort_order=asc', 7, sub { num($_[0]{spend}) == 0 } ], [ 'sort_by=spend', 7, sub { num($_[0]{spend}) == 3 } ],
    [ 'status_filter=failure', 1, sub { $_[0]{status} eq 'failure' } ], [ 'status_filter=success', 6 ],
    [ 'model=slow-1', 1 ], [ 'model_group=fast', 6 ], [ 'team_id=beta', 2 ], [ 'end_user=c1', 1 ], [ 'min_spend=1', 3 ],
    [ 'min_spend=1&max_spend=2', 2 ], [ 'error_code=429', 1 ], [ 'error_message=fast%25x', 1 ], [ 'error_message=f%25t', 0 ],
    [ 'key_alias=ow-k', 2 ], [ 'key_alias=%25', 0 ], [ 'key_alias=_', 0 ], [ "api_key=$key{iu}{key}", 1 ], [ 'model_id=zz', 0 ],
    [ "request_id=$first", 1 ], [ 'user_id=ow', 3 ], [ 'sort_by=total_tokens', 7 ], [ 'sort_by=endTime', 7 ]) {
    ($s, $j) = $k->get("/spend/logs/v2?$span&$c->[0]");
    is_deeply [ $s, $j->{total} ], [ 200, $c->[1] ], "filter $c->[0]" or diag $k->raw;
    ok $c->[2]->($j->{data}[0]), 'and the order' if $c->[2];
}
for my $c ([ "$span&sort_by=id", 400, qr/Invalid sort_by: id\. Must be one of:/ ], [ "$span&sort_order=up", 400, qr/Invalid sort_order/ ],
    [ "start_date=x&end_date=$today", 400, qr/Invalid date format: x\. Expected:/ ], [ "$span&page_size=1001", 422, qr/less than/ ],
    [ "start_date=$today+25:00:00&end_date=$today", 400, qr/Invalid date format/ ], [ "$span&page=0", 422, qr/page/ ],
    [ "$span&status_filter=maybe", 400, qr/status_filter/ ], [ "$span&min_spend=x", 422, qr/min_spend/ ], [ '', 400, qr/required/ ]) {
    ($s, $j) = $k->get("/spend/logs/v2?$c->[0]");
    is $s, $c->[1], "refused: $c->[0]";
    like $k->raw, $c->[2], 'with its reason';
}
($s, $j) = $k->get("/spend/logs/v2?$span", key => $key{iu}{key});
is $j->{total}, 2, 'pages of an internal user are his';
my $rid = $k->sql("SELECT rid FROM ledger WHERE answer_id = '$first'");
($s, $j) = $k->get("/spend/logs/session/ui?session_id=$rid");
is_deeply [ $s, $j->{total} ], [ 200, 1 ], 'a session';
($s, $j) = $k->get("/spend/logs/ui/$first?start_date=$yesterday");
is_deeply [ $s, $j ], [ 200, { messages => {}, response => {}, proxy_server_request => {} } ], 'what is never stored is empty';
($s, $j) = $k->get("/spend/logs/ui/$first", key => $key{cu}{key});
is $s, 404, 'and not there for others';

# ---------------------------------------------------------------- other /spend

($s, $j) = $k->get('/spend/keys', key => $key{ow}{key});
is_deeply [ $s, sort map { $_->{token} } @$j ], [ 200, sort @tok{'ow', '=cmd'} ], '/spend/keys: own keys';
($s, $j) = $k->get('/spend/keys');
is_deeply [ scalar @$j, num($j->[0]{spend}) ], [ 9, 8 ], 'all of them, dearest first';
($s, $j) = $k->get('/spend/users?user_id=ow');
is_deeply [ $s, scalar @$j, num($j->[0]{spend}) ], [ 200, 1, 5.125 ], '/spend/users: one';
($s, $j) = $k->get('/spend/users', key => $key{iu}{key});
is_deeply [ map { $_->{user_id} } @$j ], ['iu'], 'an internal user: himself';
($s, $j) = $k->get("/spend/tags?$range");
is_deeply [ map { [ $_->{individual_request_tag}, $_->{log_count}, num($_->{total_spend}) ] } @$j ], [ [ 'x', 2, 3 ], [ 'y', 1, 1 ] ], '/spend/tags';
($s, $j) = $k->get("/spend/tags?$range", key => $key{ow}{key});
is_deeply [ map { [ $_->{individual_request_tag}, $_->{log_count} ] } @$j ], [ [ 'x', 1 ] ], 'of his own requests';

for my $c ([ { completion_response => { model => 'fast-1', usage => { prompt_tokens => 1000, completion_tokens => 100 } } }, 0.0012 ],
    [ { completion_response => { model => 'fast', usage => { prompt_tokens => 1000, completion_tokens => 0, prompt_tokens_details => { cached_tokens => 1000 } } } }, 0.0001 ],
    [ { model => 'fast', completion_response => { usage => { input_tokens => 10, output_tokens => 1 } } }, 0.000012 ],
    [ { model => 'fast', messages => [ { role => 'user', content => 'x' x 4000 } ] }, 0.001 ]) {
    ($s, $j) = $k->post('/spend/calculate', $c->[0]);
    is $s, 200, '/spend/calculate' or diag $k->raw;
    cmp_ok abs(num($j->{cost}) - $c->[1]), '<', $c->[1] / 50, "is about $c->[1]";
}
for my $c ([ {}, qr/Bad Request - Either 'model' or 'completion_response' must be provided/ ],
    [ { model => 'fast' }, qr/Bad Request - messages must be provided if 'model' is provided/ ],
    [ { model => 'unpriced', messages => [] }, qr/isn't mapped yet/ ], [ { model => 'nope', messages => [] }, qr/isn't mapped yet/ ],
    [ { completion_response => { model => 'fast' } }, qr/no usage/ ]) {
    ($s, $j) = $k->post('/spend/calculate', $c->[0]);
    is $s, 400, 'refused';
    like $j->{error}{message}, $c->[1], 'with its text';
}

# -------------------------------------------------------------------- /global

($s, $j) = $k->get("/global/activity?$range");
is_deeply [ $s, @$j{qw(sum_api_requests sum_total_tokens)}, scalar @{ $j->{daily_data} } ], [ 200, 7, 100, 2 ], '/global/activity';
is $j->{daily_data}[0]{date}, strftime('%b %d', gmtime($day0 - 86400)), 'days as "Jan 22"';
($s, $j) = $k->get("/global/activity?$range", key => $key{iu}{key});
is $j->{sum_api_requests}, 2, 'of his own for an internal user';
for my $p (qw(/global/activity /global/activity/model /global/activity/exceptions /global/spend/provider /global/spend/report
        /user/daily/activity /team/daily/activity /tag/daily/activity)) {
    ($s, $j) = $k->get($p);
    is_deeply [ $s, $j ], [ 400, { detail => { error => 'Please provide start_date and end_date' } } ], "$p without dates";
    ($s, $j) = $k->get("$p?start_date=2024-02-30&end_date=2024-03-01");
    is $s, 400, 'with a wrong one';
}
($s, $j) = $k->get("/global/activity/model?$range");
is_deeply [ map { [ $_->{model}, $_->{sum_api_requests} ] } @$j ], [ [ 'fast', 6 ], [ 'slow', 1 ] ], '/global/activity/model';
($s, $j) = $k->get("/global/activity/exceptions?$range");
is_deeply [ $j->{sum_num_rate_limit_exceptions}, $j->{daily_data}[0]{num_rate_limit_exceptions} ], [ 1, 1 ], '/global/activity/exceptions';
($s, $j) = $k->get("/global/activity/exceptions/deployment?$range");
is_deeply [ $j->[0]{api_base}, $j->[0]{sum_num_rate_limit_exceptions} ], [ 'fast-1-openai', 1 ], 'by deployment';
($s, $j) = $k->get('/global/spend');
is_deeply [ num($j->{spend}), num($j->{max_budget}) ], [ 6.875, 5000 ], '/global/spend: 30 days';
($s, $j) = $k->get('/global/spend/logs');
is_deeply [ map { [ $_->{date}, num($_->{spend}) ] } @$j ], [ [ $yesterday, 3.875 ], [ $today, 3 ] ], '/global/spend/logs';
($s, $j) = $k->get("/global/spend/logs?api_key=$key{ow}{key}");
is_deeply [ map { num($_->{spend}) } @$j ], [ 2, 3 ], 'of one key';
($s, $j) = $k->get('/global/spend/keys?limit=2');
is_deeply [ map { [ @$_{qw(api_key key_alias key_name)}, num($_->{total_spend}) ] } @$j ],
    [ [ $tok{ow}, 'ow-key', $key{ow}{key_name}, 5 ], [ $tok{iu}, 'iu-key', $key{iu}{key_name}, 1 ] ], '/global/spend/keys';
($s, $j) = $k->get("/global/spend/keys?start_date=$old&end_date=$today&limit=1");
is num($j->[0]{total_spend}), 8, 'over months';
($s, $j) = $k->get('/global/spend/keys', key => $key{iu}{key});
is_deeply [ sort map { $_->{api_key} } @$j ], [ sort @tok{qw(iu mine)} ], 'own ones for an internal user';
($s, $j) = $k->get('/global/spend/teams');
is_deeply [ $j->{teams}, [ map { [ $_->{team_id}, num($_->{total_spend}) ] } @{ $j->{total_spend_per_team} } ], num($j->{daily_spend}[0]{Alpha}),
        num($j->{daily_spend}[0]{Unassigned}) ],
    [ [ '=Beta', 'Alpha', 'Unassigned' ], [ [ Alpha => 6.125 ], [ '=Beta' => 0.5 ], [ Unassigned => 0.25 ] ], 3.125, 0.25 ], '/global/spend/teams';
($s, $j) = $k->get('/global/spend/models?limit=1');
is_deeply [ map { [ $_->{model}, num($_->{total_spend}), $_->{total_tokens} ] } @$j ], [ [ 'fast', 3.875, 85 ] ], '/global/spend/models';
($s, $j) = $k->get("/global/spend/provider?$range");
is_deeply [ map { [ $_->{provider}, num($_->{spend}) ] } @$j ], [ [ openai => 3.875 ], [ anthropic => 3 ] ], '/global/spend/provider';
($s, $j) = $k->get("/global/spend/tags?$range&tags=y,z");
is_deeply [ map { [ @$_{qw(name log_count)} ] } @{ $j->{spend_per_tag} } ], [ [ 'y', 1 ] ], '/global/spend/tags';
($s, $j) = $k->get('/global/spend/all_tag_names');
is_deeply $j, { tag_names => [ 'x', 'y' ] }, '/global/spend/all_tag_names';
($s, $j) = $k->get('/global/all_end_users');
is_deeply $j, { end_users => [ 'c1', 'c2' ] }, '/global/all_end_users';
($s, $j) = $k->post('/global/spend/end_users', {});
is_deeply [ map { [ @$_{qw(end_user total_count)}, num($_->{total_spend}) ] } @$j ], [ [ 'c1', 1, 1 ], [ 'c2', 1, 0.5 ] ], '/global/spend/end_users';
($s, $j) = $k->post('/global/spend/end_users', { api_key => $key{cu}{key}, startTime => $yesterday, endTime => $today });
is_deeply [ map { $_->{end_user} } @$j ], ['c2'], 'of one key';
($s, $j) = $k->post('/global/spend/end_users', {}, key => $key{iu}{key});
is_deeply [ map { $_->{end_user} } @$j ], ['c1'], 'of his own for an internal user';
($s, $j) = $k->get("/global/spend/report?$range");
is_deeply [ map { $_->{group_by_day} } @$j ], [ $yesterday, $today ], 'the report by team';
is_deeply [ map { [ $_->{team_name}, num($_->{total_spend}) ] } @{ $j->[0]{teams} } ],
    [ [ Alpha => 3.125 ], [ '=Beta' => 0.5 ], [ 'Unassigned Team' => 0.25 ] ], 'teams of a day';
is_deeply [ map { [ $_->{model}, $_->{api_key}, num($_->{spend}), $_->{total_tokens} ] } grep { $_->{api_key} eq $tok{ow} } @{ $j->[0]{teams}[0]{metadata} } ],
    [ [ fast => $tok{ow}, 2, 15 ] ], 'with keys and models';
($s, $j) = $k->get("/global/spend/report?$range&group_by=customer");
is_deeply [ map { [ $_->{customer}, num($_->{total_spend}), scalar @{ $_->{metadata} } ] } @{ $j->[0]{customers} } ],
    [ [ c1 => 1, 1 ], [ c2 => 0.5, 1 ] ], 'by customer';
($s, $j) = $k->get("/global/spend/report?$range&group_by=api_key");
is_deeply [ map { [ $_->{api_key}, num($_->{total_cost}), $_->{total_input_tokens}, $_->{total_output_tokens}, scalar @{ $_->{model_details} } ] } $j->[0] ],
    [ [ $tok{ow}, 5, 20, 10, 2 ] ], 'by key';
($s, $j) = $k->get("/global/spend/report?$range&internal_user_id=iu");
is_deeply [ map { num($_->{total_cost}) } @$j ], [ 1, 0.25 ], 'of one user';
($s, $j) = $k->get("/global/spend/report?$range&group_by=planet");
is $s, 422, 'by nothing else';
($s, $j) = $k->get("/global/spend/report?start_date=2020-01-01&end_date=$today");
is $s, 400, 'at most 366 days';

# who may

for my $c ([ iu => [qw(/global/spend/tags /global/spend/keys /global/spend/models /global/activity /global/activity/model /global/spend/provider
            /spend/keys /spend/users /spend/tags /spend/logs)], [qw(/global/spend /global/spend/teams /global/spend/logs /global/spend/report
            /global/all_end_users /global/spend/all_tag_names /global/activity/exceptions)] ]) {
    for my $p (@{ $c->[1] }) { is +($k->get("$p?$range", key => $key{ $c->[0] }{key}))[0], 200, "$c->[0] may $p" }
    for my $p (@{ $c->[2] }) { is +($k->get("$p?$range", key => $key{ $c->[0] }{key}))[0], 401, "$c->[0] may not $p" }
}
for my $p (qw(/spend/keys /spend/users /spend/tags /spend/logs /global/spend /global/spend/keys /global/spend/teams /global/spend/models
        /global/spend/provider /global/spend/report /global/spend/tags /global/spend/logs /global/spend/all_tag_names /global/activity
        /global/activity/model /global/activity/exceptions /key/list /organization/list /customer/list)) {
    is +($k->get("$p?$range"))[0], 200, "$p is healthy";
    is +($k->get("$p?$range", key => $key{viewer}{key}))[0], 200, 'for viewers too';
}
my $spender = made('/key/generate', { user_id => 'cu', permissions => { get_spend_routes => JSON::PP::true } });
($s, $j) = $k->get('/global/spend', key => $spender->{key});
is_deeply [ $s, num($j->{spend}) ], [ 200, 6.875 ], 'a key with get_spend_routes sees what everybody spent';

# ------------------------------------------------------------- daily activity

my @M = sort qw(spend prompt_tokens completion_tokens cache_read_input_tokens cache_creation_input_tokens total_tokens
    successful_requests failed_requests api_requests);
($s, $j) = $k->get("/user/daily/activity?$range");
is $s, 200, '/user/daily/activity' or diag $k->raw;
is_deeply [ map { $_->{date} } @{ $j->{results} } ], [ $today, $yesterday ], 'newest day first';
is_deeply [ sort keys %{ $j->{results}[0]{metrics} } ], \@M, 'metrics';
is_deeply [ sort keys %{ $j->{results}[0]{breakdown} } ], [ sort qw(mcp_servers models model_groups providers endpoints api_keys entities) ], 'breakdown';
my $d = $j->{results}[0];
is_deeply [ num($d->{metrics}{spend}), @{ $d->{metrics} }{qw(api_requests successful_requests failed_requests total_tokens)} ], [ 3, 2, 1, 1, 25 ], 'of a day';
is_deeply [ sort keys %{ $d->{breakdown}{models} } ], [ 'fast-1', 'slow-1' ], 'models by their own names';
is_deeply [ sort keys %{ $d->{breakdown}{model_groups} } ], [ 'fast', 'slow' ], 'and by the public ones';
is_deeply [ sort keys %{ $d->{breakdown}{endpoints} } ], [ '/chat/completions', '/v1/messages' ], 'endpoints';
is_deeply $d->{breakdown}{api_keys}{ $tok{ow} }{metadata}, { key_alias => 'ow-key', team_id => 'alpha' }, 'keys with alias and team';
is num($d->{breakdown}{providers}{anthropic}{api_key_breakdown}{ $tok{ow} }{metrics}{spend}), 3, 'keys within a provider';
is_deeply [ sort keys %{ $d->{breakdown}{entities} } ], [ 'cu', 'ow' ], 'entities';
is_deeply [ num($j->{metadata}{total_spend}), @{ $j->{metadata} }{qw(total_api_requests total_successful_requests total_failed_requests total_tokens
        total_cache_read_input_tokens total_cache_creation_input_tokens page total_pages)}, $j->{metadata}{has_more} ],
    [ 6.875, 7, 6, 1, 100, 14, 7, 1, 1, JSON::PP::false ], 'metadata';
($s, $j) = $k->get("/user/daily/activity?$range&page_size=3&page=2");
is_deeply [ $j->{metadata}{total_api_requests}, $j->{metadata}{page}, $j->{metadata}{total_pages}, $j->{metadata}{has_more} ],
    [ 3, 2, 3, JSON::PP::true ], 'pages are of rows';
($s, $j) = $k->get("/user/daily/activity?$range&page=9");
is_deeply [ $s, $j->{results} ], [ 200, [] ], 'a page behind the last is empty';
($s, $j) = $k->get("/user/daily/activity?$range&user_id=iu");
is num($j->{metadata}{total_spend}), 1.25, 'of one user';
($s, $j) = $k->get("/user/daily/activity?$range&model=slow-1");
is num($j->{metadata}{total_spend}), 3, 'of one model';
($s, $j) = $k->get("/user/daily/activity?$range&api_key=$key{iu}{key}");
is num($j->{metadata}{total_spend}), 1, 'of one key';
($s, $j) = $k->get("/user/daily/activity?$range", key => $key{iu}{key});
is_deeply [ num($j->{metadata}{total_spend}), keys %{ $j->{results}[0]{breakdown}{entities} } ], [ 1.25, 'iu' ], 'an internal user sees his own';
($s, $j) = $k->get("/user/daily/activity?$range&user_id=ow", key => $key{iu}{key});
is $s, 403, 'and nobody else';
($s, $j) = $k->get("/user/daily/activity?start_date=$today&end_date=$today&timezone=-330");
is scalar @{ $j->{results} }, 2, 'east of Greenwich the day begins in the one before';
($s, $j) = $k->get("/user/daily/activity?start_date=$yesterday&end_date=$yesterday&timezone=480");
is scalar @{ $j->{results} }, 2, 'west of it, it ends in the next';
for my $c ('timezone=x', 'timezone=9999', 'page_size=1001', 'page=x', 'format=xml') {
    is +($k->get("/user/daily/activity?$range&$c"))[0], 422, "refused: $c";
}
($s, $j) = $k->get("/user/daily/activity/aggregated?start_date=$old&end_date=$today");
is_deeply [ $s, num($j->{metadata}{total_spend}), scalar @{ $j->{results} } ], [ 200, 13.875, 3 ], 'aggregated: everything on one page';

($s, $j) = $k->get("/team/daily/activity?$range");
is_deeply [ num($j->{metadata}{total_spend}), $j->{results}[1]{breakdown}{entities}{alpha}{metadata} ], [ 6.625, { team_alias => 'Alpha' } ],
    '/team/daily/activity: teams alone';
($s, $j) = $k->get("/team/daily/activity?$range&team_ids=beta");
is num($j->{metadata}{total_spend}), 0.5, 'one of them';
($s, $j) = $k->get("/team/daily/activity?$range&exclude_team_ids=beta");
is num($j->{metadata}{total_spend}), 6.125, 'all but one';
($s, $j) = $k->get("/team/daily/activity?$range", key => $key{ta}{key});
is num($j->{metadata}{total_spend}), 6.125, 'a team admin sees the team';
($s, $j) = $k->get("/team/daily/activity?$range", key => $key{iu}{key});
is_deeply [ num($j->{metadata}{total_spend}), keys %{ $j->{results}[0]{breakdown}{api_keys} } ], [ 1, $tok{iu} ], 'a member his own rows';
($s, $j) = $k->get("/team/daily/activity?$range&team_ids=beta", key => $key{ta}{key});
is_deeply [ $s, $j ], [ 404, { detail => { error => "User does not belong to Team= beta. Call `/user/info` to see user's teams" } } ], 'not those of others';
($s, $j) = $k->get("/team/daily/activity?$range", key => $key{oa}{key});
is num($j->{metadata}{total_spend}), 6.125, 'an organization admin sees its teams';
($s, $j) = $k->get("/team/daily/activity/aggregated?$range");
is num($j->{metadata}{total_spend}), 6.625, 'aggregated';

($s, $j) = $k->get("/organization/daily/activity?$range");
is_deeply [ num($j->{metadata}{total_spend}), sort keys %{ $j->{results}[1]{breakdown}{entities} } ], [ 6.625, 'A', 'B' ], '/organization/daily/activity';
($s, $j) = $k->get("/organization/daily/activity?$range", key => $key{oa}{key});
is num($j->{metadata}{total_spend}), 6.125, 'its admin sees his';
($s, $j) = $k->get("/organization/daily/activity?$range&organization_ids=B", key => $key{oa}{key});
is $s, 403, 'and no other';
($s, $j) = $k->get("/organization/daily/activity?$range", key => $key{iu}{key});
is_deeply [ $s, $j->{results} ], [ 200, [] ], 'members see nothing';
for my $p ('/customer', '/end_user') {
    ($s, $j) = $k->get("$p/daily/activity?$range&end_user_ids=c1");
    is_deeply [ num($j->{metadata}{total_spend}), keys %{ $j->{results}[0]{breakdown}{entities} } ], [ 1, 'c1' ], "$p/daily/activity";
}
($s, $j) = $k->get("/tag/daily/activity?$range&tags=x");
is_deeply [ num($j->{metadata}{total_spend}), keys %{ $j->{results}[0]{breakdown}{entities} } ], [ 3, 'x' ], '/tag/daily/activity';
($s, $j) = $k->get("/agent/daily/activity?$range");
is_deeply [ $s, $j->{results}, $j->{metadata}{total_pages} ], [ 200, [], 0 ], '/agent/daily/activity: none';
is +($k->get("$_/daily/activity?$range", key => $key{iu}{key}))[0], 401, "$_ is for admins" for qw(/customer /tag /agent);

# what a spreadsheet would run

($s, $j, $h) = $k->get("/team/daily/activity?$range&format=csv&page_size=100");
is_deeply [ $s, $h->{'content-type'} ], [ 200, 'text/csv; charset=utf-8' ], 'daily activity as CSV';
@lines = split /\r\n/, $k->raw;
is scalar @lines, 7, 'a line for each row';
like $k->raw, qr/,"'=cmd-key",alpha,/, 'an alias that is a formula is quoted';
like $lines[0], qr/^date,entity,api_key,key_alias,team_id,model,/, 'with a head';

# ----------------------------------------------------- reports of one object

for my $c ([ '/key/spend/report', 'iu', '', 200, 1 ], [ '/key/spend/report', 'iu', "&api_key=$key{mine}{key}", 200, 0.25 ],
    [ '/key/spend/report', 'iu', "&api_key=$tok{ow}", 403 ], [ '/user/spend/report', 'iu', '', 200, 1.25 ],
    [ '/user/spend/report', 'iu', '&user_id=ow', 403 ], [ '/team/spend/report', 'ta', '', 200, 6.125 ],
    [ '/team/spend/report', 'iu', '', 403 ], [ '/team/spend/report', 'ta', '&team_id=beta', 403 ],
    [ '/organization/spend/report', 'oa', '&organization_id=A', 200, 6.125 ], [ '/organization/spend/report', 'oa', '&organization_id=B', 403 ],
    [ '/team/spend/report', 'viewer', '&team_id=beta', 200, 0.5 ]) {
    my ($path, $who, $arg, $status, $sum) = @$c;
    ($s, $j) = $k->get("$path?$range$arg", key => $key{$who}{key});
    is $s, $status, "$who $path$arg" or diag $k->raw;
    my $t = 0;
    $t += num($_->{total_cost}) for ref $j eq 'ARRAY' ? @$j : ();
    is $t, $sum, 'its sum' if defined $sum;
}
is +($k->get("/key/spend/report?start_date=2020-01-01&end_date=$today"))[0], 400, 'at most 366 days';

# ---------------------------------------------------------------------- reset

($s, $j) = $k->post('/global/spend/refresh', {});
is_deeply [ $s, $j->{status} ], [ 200, 'success' ], '/global/spend/refresh';
my $admin = made('/user/new', { user_id => 'pa', user_role => 'proxy_admin' });
($s, $j) = $k->post('/global/spend/reset', {}, key => $admin->{key});
is $s, 401, '/global/spend/reset is not even for admins';
like $j->{error}{message}, qr/only for MASTER KEY/, 'and says so';
is $k->state("key:$tok{ow}")->{used}, 5_000_000_000, 'Redis knows what was used';
($s, $j) = $k->post('/global/spend/reset', {});
is_deeply [ $s, $j ], [ 200, { message => 'Spend for all API Keys and Teams reset successfully', status => 'success' } ], 'reset' or diag $k->raw;
is $k->state($_)->{used}, 0, "$_ used nothing" for "key:$tok{ow}", 'team:alpha';
is $k->state('user:ow')->{used}, 5_125_000_000, 'users are left alone';
$k->until(sub { $k->sql("SELECT sum(used_nusd) FROM meters WHERE ent = 'team:alpha'") == 0 });
is $k->sql("SELECT sum(used_nusd) FROM meters WHERE ent = 'team:alpha'"), 0, 'PostgreSQL too';
($s, $j) = $k->get("/team/daily/activity?$range&team_ids=alpha");
is num($j->{metadata}{total_spend}), 6.125, 'what happened stays in the reports';
is $k->sql("SELECT count(*) FROM audit WHERE object_type = 'spend'"), 1, 'and in the audit';

done_testing;
