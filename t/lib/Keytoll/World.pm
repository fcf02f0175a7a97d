package Keytoll::World;

# The people of litellm-api 8A: two organizations, three teams, eight users, each
# with one key.  $w->{key}{IU} is a key, $w->{id}{IU} its user.

use strict;
use warnings;

sub new {
    my ($class, $k) = @_;
    my $w = bless { k => $k, n => 0 }, $class;
    for my $o (qw(A B)) { $w->ok(POST => '/organization/new', { organization_id => "org-$o", organization_alias => "Org $o" }) }
    my %role = (PA => 'proxy_admin', OA => 'org_admin', OB => 'org_admin', map { $_ => 'internal_user' } qw(TA IU OW US SA CU));
    for my $u (sort keys %role) {
        $w->{id}{$u} = "user-$u";
        $w->ok(POST => '/user/new', { user_id => "user-$u", user_email => lc($u) . '@example.com',
                                      user_role => $role{$u}, auto_create_key => \0 });
    }
    my %org = (OA => [ 'A', 'org_admin' ], OB => [ 'B', 'org_admin' ], CU => [ 'B', 'internal_user' ],
               map { $_ => [ 'A', 'internal_user' ] } qw(TA IU OW US SA));
    for my $u (sort keys %org) {
        $w->ok(POST => '/organization/member_add', { organization_id => "org-$org{$u}[0]",
            member => { user_id => "user-$u", role => $org{$u}[1] } });
    }
    $w->ok(POST => '/team/new', { team_id => 'alpha', team_alias => 'Alpha', organization_id => 'org-A',
        members_with_roles => [ { role => 'admin', user_id => 'user-TA' }, map { { role => 'user', user_id => "user-$_" } } qw(IU OW US SA) ] });
    $w->ok(POST => '/team/new', { team_id => 'beta', team_alias => 'Beta', organization_id => 'org-B',
        members_with_roles => [ { role => 'user', user_id => 'user-CU' } ] });
    $w->ok(POST => '/team/new', { team_id => 'gamma', team_alias => 'Gamma', organization_id => 'org-A' });
    for my $u (sort keys %role) {
        my %in = $u =~ /^(TA|IU|OW|US|SA)$/ ? (team_id => 'alpha', organization_id => 'org-A')
               : $u eq 'CU' ? (team_id => 'beta', organization_id => 'org-B')
               : $u eq 'OA' ? (organization_id => 'org-A') : $u eq 'OB' ? (organization_id => 'org-B') : ();
        $w->{key}{$u} = $w->ok(POST => '/key/generate', { user_id => "user-$u", %in })->{key};
    }
    return $w;
}

# As the master key; dies unless it is a 200.
sub ok {
    my ($w, $method, $path, $body) = @_;
    my ($s, $j) = $w->{k}->request($method, $path, $body);
    die "$method $path: $s " . $w->{k}->raw if $s != 200;
    return $j;
}

# As one of the people: status, JSON.
sub as {
    my ($w, $who, $method, $path, $body) = @_;
    return $w->{k}->request($method, $path, $body, key => $w->{key}{$who});
}

# A fresh key of somebody, personal or of a team.
sub fresh {
    my ($w, $user, $team) = @_;
    return $w->ok(POST => '/key/generate', { user_id => "user-$user", $team ? (team_id => $team) : () })->{key};
}

# A fresh team with an admin and members, of an organization.
sub team {
    my ($w, $org, @members) = @_;
    my $id = 'team-' . ++$w->{n};
    $w->ok(POST => '/team/new', { team_id => $id, organization_id => $org,
        members_with_roles => [ map { { role => $_ eq 'TA' ? 'admin' : 'user', user_id => "user-$_" } } @members ] });
    return $id;
}

1;
