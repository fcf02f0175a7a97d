# The authorization matrix that LiteLLM's own suite pins (litellm-api 8A), cell by
# cell, and that a denial changes nothing.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Keytoll::World;
use Test::More;

my $k = Keytoll::Control->new;
my $w = Keytoll::World->new($k);
my @MEMBERS = qw(IU OW US SA);

# expected statuses by actor; a "-" is no cell
sub row {
    my ($what, $call, %want) = @_;
    for my $who (sort keys %want) {
        my ($s, $j) = $call->($who);
        is $s, $want{$who}, "$what as $who" or diag $k->raw;
    }
}

sub members { my $s = shift; return map { $_ => $s } @MEMBERS }

row 'POST /key/generate, personal', sub { $w->as($_[0], POST => '/key/generate', {}) },
    PA => 200, OA => 401, TA => 200, members(200), CU => 200, OB => 401;
row 'POST /key/generate for alpha', sub { $w->as($_[0], POST => '/key/generate', { team_id => 'alpha' }) },
    PA => 200, OA => 401, TA => 200, members(401), CU => 400, OB => 401;
row 'POST /key/generate for beta', sub { $w->as($_[0], POST => '/key/generate', { team_id => 'beta' }) },
    PA => 200, OA => 401, TA => 400, members(400), CU => 401, OB => 401;
my ($s, $j) = $w->as(IU => POST => '/key/generate', { team_id => 'alpha' });
is_deeply [ @{ $j->{error} }{qw(type param)} ], [ 'team_member_permission_error', '/key/generate' ], 'and says which permission is missing';

row 'POST /key/update, own personal', sub { $w->as($_[0], POST => '/key/update', { key => $w->fresh($_[0]), tpm_limit => 5 }) },
    PA => 200, OA => 401, TA => 403, members(403), CU => 403;
row "POST /key/update, OW's of alpha", sub { $w->as($_[0], POST => '/key/update', { key => $w->fresh('OW', 'alpha'), tpm_limit => 5 }) },
    PA => 200, OA => 401, TA => 403, IU => 403, US => 403, CU => 403;
row "POST /key/update, CU's of beta", sub { $w->as($_[0], POST => '/key/update', { key => $w->fresh('CU', 'beta'), tpm_limit => 5 }) },
    PA => 200, OA => 401, TA => 403, IU => 403, CU => 401;

sub delete_key { my ($who, $key) = @_; return $w->as($who, POST => '/key/delete', { keys => [$key] }) }
row 'POST /key/delete, own personal', sub { delete_key($_[0], $w->fresh($_[0])) },
    PA => 200, OA => 401, TA => 200, members(200), CU => 200;
row "POST /key/delete, OW's of alpha", sub { delete_key($_[0], $w->fresh('OW', 'alpha')) },
    PA => 200, OA => 401, TA => 200, IU => 403, US => 403, SA => 403, CU => 403;
row "POST /key/delete, CU's of beta", sub { delete_key($_[0], $w->fresh('CU', 'beta')) },
    PA => 200, OA => 401, TA => 403, IU => 403, CU => 200;

sub rotate { my ($who, $key) = @_; return $w->as($who, POST => '/key/regenerate', { key => $key }) }
row 'POST /key/regenerate, own personal', sub { rotate($_[0], $w->fresh($_[0])) },
    PA => 200, OA => 401, TA => 200, members(200), CU => 200;
row "POST /key/regenerate, OW's of alpha", sub { rotate($_[0], $w->fresh('OW', 'alpha')) },
    PA => 200, OA => 401, TA => 200, IU => 401, OW => 401, US => 401, CU => 401;
row "POST /key/regenerate, CU's of beta", sub { rotate($_[0], $w->fresh('CU', 'beta')) },
    PA => 200, OA => 401, TA => 401, IU => 401, CU => 401;

for my $verb (qw(block unblock)) {
    row "POST /key/$verb, own personal", sub { $w->as($_[0], POST => "/key/$verb", { key => $w->fresh($_[0]) }) },
        PA => 200, OA => 401, TA => 403, members(403), CU => 403;
    row "POST /key/$verb, OW's of alpha", sub { $w->as($_[0], POST => "/key/$verb", { key => $w->fresh('OW', 'alpha') }) },
        PA => 200, OA => 401, TA => 200, members(403), CU => 403, OB => 401;
    row "POST /key/$verb, CU's of beta", sub { $w->as($_[0], POST => "/key/$verb", { key => $w->fresh('CU', 'beta') }) },
        PA => 200, OA => 401, TA => 403, CU => 403, OB => 401;
    row "POST /key/$verb, unknown", sub { $w->as($_[0], POST => "/key/$verb", { key => 'sk-' . 'x' x 22 }) },
        PA => 404, TA => 404;
}

row 'GET /key/info, own', sub { $w->as($_[0], GET => '/key/info') },
    PA => 200, OA => 200, TA => 200, members(200), CU => 200;
my $ow = $w->fresh('OW', 'alpha');
my $cu = $w->fresh('CU', 'beta');
row "GET /key/info, OW's of alpha", sub { $w->as($_[0], GET => "/key/info?key=$ow") },
    PA => 200, OA => 403, TA => 200, members(200), CU => 403;
row "GET /key/info, CU's of beta", sub { $w->as($_[0], GET => "/key/info?key=$cu") },
    PA => 200, OA => 403, TA => 403, members(403), CU => 200;

for my $who (qw(PA OA TA IU CU)) {
    ($s, $j) = $w->as($who, GET => '/key/list?size=100&return_full_object=true');
    is $s, 200, "GET /key/list as $who";
    my %users = map { ($_->{user_id} // '') => 1 } @{ $j->{keys} };
    if ($who eq 'PA') { cmp_ok scalar(keys %users), '>', 4, "sees everyone's" }
    else { is_deeply [ keys %users ], ["user-$who"], 'sees his own only' }
}

my $n = 0;
row 'POST /team/new, no organization', sub { $w->as($_[0], POST => '/team/new', { team_id => 'n' . ++$n }) },
    PA => 200, OA => 401, TA => 401, members(401), CU => 401, OB => 401;
row 'POST /team/new in A', sub { $w->as($_[0], POST => '/team/new', { team_id => 'n' . ++$n, organization_id => 'org-A' }) },
    PA => 200, OA => 200, TA => 401, members(401), CU => 401, OB => 401;
row 'POST /team/new in B', sub { $w->as($_[0], POST => '/team/new', { team_id => 'n' . ++$n, organization_id => 'org-B' }) },
    PA => 200, OA => 401, TA => 401, members(401), CU => 401, OB => 200;

for my $with (0, 1) {
    my $with_text = $with ? 'with' : 'without';
    row "POST /team/update alpha $with_text organization_id", sub { $w->as($_[0], POST => '/team/update', { team_id => 'alpha', tpm_limit => 100, $with ? (organization_id => 'org-A') : () }) },
        PA => 200, OA => 200, TA => 401, members(401), CU => 401, OB => 401;
    row "POST /team/update beta $with_text organization_id", sub { $w->as($_[0], POST => '/team/update', { team_id => 'beta', tpm_limit => 100, $with ? (organization_id => 'org-B') : () }) },
        PA => 200, OA => 401, TA => 401, members(401), CU => 401, OB => 200;
}
row 'POST /team/update, from A to B', sub { $w->as($_[0], POST => '/team/update', { team_id => $w->team('org-A'), organization_id => 'org-B' }) },
    PA => 200, OA => 401, TA => 401, members(401), CU => 401, OB => 403;
$w->as(OB => POST => '/team/update', { team_id => $w->team('org-A'), organization_id => 'org-B' });
like $k->raw, qr/do not have access to this team/, 'and says why';
$w->ok(POST => '/organization/member_add', { organization_id => 'org-B', member => { user_id => 'user-OA', role => 'org_admin' } });
row 'POST /team/update, from A to B, admin of both', sub { $w->as($_[0], POST => '/team/update', { team_id => $w->team('org-A'), organization_id => 'org-B' }) },
    OA => 200;
$w->ok(DELETE => '/organization/member_delete', { organization_id => 'org-B', user_id => 'user-OA' });

for my $to ([ 'org-A', 'OA', 'OB' ], [ 'org-B', 'OB', 'OA' ]) {
    my ($org, $own, $other) = @$to;
    row "POST /team/delete of $org", sub { $w->as($_[0], POST => '/team/delete', { team_ids => [ $w->team($org) ] }) },
        PA => 200, $own => 200, $other => 401, TA => 401, members(401), CU => 401;
    for my $verb (qw(block unblock)) {
        row "POST /team/$verb of $org", sub { $w->as($_[0], POST => "/team/$verb", { team_id => $w->team($org) }) },
            PA => 200, $own => 200, $other => 401, TA => 401, members(401), CU => 401;
    }
}

sub joiner { my $id = 'joiner-' . ++$n; return { role => 'user', user_id => $id } }
for my $to ([ 'org-A', 'OA', 'OB', 200 ], [ 'org-B', 'OB', 'OA', 403 ]) {
    my ($org, $own, $other, $ta) = @$to;
    my %want = (PA => 200, $own => 200, $other => 403, TA => $ta, members(403), CU => 403);
    row "POST /team/member_add of $org", sub { $w->as($_[0], POST => '/team/member_add', { team_id => $w->team($org, $ta == 200 ? 'TA' : ()), member => joiner() }) }, %want;
    row "POST /team/member_update of $org", sub { $w->as($_[0], POST => '/team/member_update', { team_id => $w->team($org, $ta == 200 ? 'TA' : (), 'US'), user_id => 'user-US', max_budget_in_team => 1 }) }, %want;
    row "POST /team/member_delete of $org", sub { $w->as($_[0], POST => '/team/member_delete', { team_id => $w->team($org, $ta == 200 ? 'TA' : (), 'US'), user_id => 'user-US' }) }, %want;
}

row 'GET /team/permissions_list of alpha', sub { $w->as($_[0], GET => '/team/permissions_list?team_id=alpha') },
    PA => 200, OA => 200, TA => 200, members(403), CU => 403, OB => 403;
row 'POST /team/permissions_update of alpha', sub { $w->as($_[0], POST => '/team/permissions_update', { team_id => 'alpha', team_member_permissions => [] }) },
    PA => 200, OA => 200, TA => 200, members(403), CU => 403, OB => 403;
row 'POST /team/permissions_bulk_update', sub { $w->as($_[0], POST => '/team/permissions_bulk_update', { permissions => ['/key/info'], team_ids => ['gamma'] }) },
    PA => 200, OA => 401, TA => 401, members(401), CU => 401, OB => 401;
($s) = $w->as(PA => POST => '/team/permissions_bulk_update', { permissions => ['/key/info'] });
is $s, 400, 'for no team at all';

row 'GET /team/info alpha', sub { $w->as($_[0], GET => '/team/info?team_id=alpha') },
    PA => 200, OA => 200, TA => 200, members(200), CU => 403, OB => 403;
row 'GET /team/info gamma', sub { $w->as($_[0], GET => '/team/info?team_id=gamma') },
    PA => 200, OA => 200, TA => 403, members(403), CU => 403, OB => 403;
row 'GET /team/info beta', sub { $w->as($_[0], GET => '/team/info?team_id=beta') },
    PA => 200, OA => 403, TA => 403, members(403), CU => 200, OB => 200;
$w->as(IU => GET => '/team/info?team_id=beta');
like $k->raw, qr/not authorized to access this team/, 'and says so';

sub sees {
    my ($who, $query) = @_;
    my ($st, $list) = $w->as($who, GET => "/team/list$query");
    return $st if $st != 200;
    return join ' ', grep { /^(alpha|beta|gamma)$/ } map { $_->{team_id} } @$list;
}
my %bare = (PA => 'alpha beta gamma', OA => 'alpha gamma', TA => 'alpha', (map { $_ => 'alpha' } @MEMBERS), CU => 'beta', OB => 'beta');
is sees($_, ''), $bare{$_}, "GET /team/list as $_" for sort keys %bare;
my %self = (PA => '', OA => '', TA => 'alpha', (map { $_ => 'alpha' } @MEMBERS), CU => 'beta', OB => '');
is sees($_, "?user_id=user-$_"), $self{$_}, "GET /team/list of himself as $_" for sort keys %self;
is sees($_, '?user_id=user-PA'), 401, "GET /team/list of another as $_" for qw(TA IU CU);

# pins beside the table

($s) = $w->as(PA => POST => '/team/new', { max_budget => -1 });
is $s, 400, 'a negative budget';
($s) = $w->as(PA => POST => '/team/new', { team_id => 'alpha' });
is $s, 400, 'a team twice';
($s) = $w->as(PA => POST => '/team/new', { organization_id => 'org-nope' });
is $s, 400, 'an unknown organization';
my $stays = $w->team('org-A');
($s) = $w->as(PA => POST => '/team/delete', { team_ids => [ $stays, 'nope' ] });
is $s, 404, 'one unknown team among those to delete';
($s) = $k->get("/team/info?team_id=$stays");
is $s, 200, 'and nothing is deleted';
($s) = $w->as(PA => POST => '/team/block', { team_id => 'nope' });
is $s, 404, 'an unknown team to block';

my $loose = $w->ok(POST => '/key/generate', {})->{key};
for my $call ([ '/key/generate', {} ], [ '/team/new', {} ], [ '/user/new', {} ], [ '/key/delete', { keys => ['x'] } ]) {
    ($s, $j) = $k->post(@$call, key => $loose);
    is_deeply [ $s, $j->{error}{type} ], [ 401, 'auth_error' ], "POST $call->[0] with a key that belongs to nobody";
}

# gone at once, kept after a denial

my $mine = $w->fresh('IU');
my ($before) = $k->sql("SELECT md5(k::text) FROM keys k WHERE key_name = 'sk-...' || right('$mine', 4)");
delete_key('CU', $mine); rotate('CU', $mine);
$w->as(CU => POST => '/key/update', { key => $mine, max_budget => 9 });
($s) = $k->get('/key/info', key => $mine);
is $s, 200, 'after denials the key works';
is $k->sql("SELECT md5(k::text) FROM keys k WHERE key_name = 'sk-...' || right('$mine', 4)"), $before, 'and its row is what it was';
($s, $j) = rotate('IU', $mine);
my $next = $j->{key};
($s) = $k->get('/key/info', key => $mine);
is $s, 401, 'a regenerated key is refused at once';
($s) = $k->get('/key/info', key => $next);
is $s, 200, 'the new one works';
delete_key('IU', $next);
($s) = $k->get('/key/info', key => $next);
is $s, 401, 'a deleted key is refused at once';

unlike $k->logs, qr/did not check whose/, 'no handler forgot to ask whose object it is';
unlike $k->logs, qr/"level":"(?:error|fatal)"/i, 'no errors in the log';
done_testing;
