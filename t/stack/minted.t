# A key made by whatever way works at the gate at once, and whatever an info route shows
# after a change is what the gate does with the very next request.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;
use Keytoll::Stack;

my $s = Keytoll::Stack->up;
my $j;

sub call {
    my ($method, $path, $body) = @_;
    my $r = $s->admin($method, $path, $body);
    is($r->{status}, 200, "$method $path") or diag $r->{body};
    return $j = $r->{json};
}
sub post { return call(POST => @_) }
sub ask { my ($key, %o) = @_; my $r = $s->chat($key, model => 'gpt-4o-mini', %o); return $r->{status} == 200 ? 'ok' : $r->{json}{error}{type} // $r->{status} }

# --- ways to a key

post('/team/new', { team_id => 'crew', members_with_roles => [ { role => 'user', user_id => 'mia' } ] });
my %made = (
    'by /key/generate' => post('/key/generate', {})->{key},
    'of the caller' => post('/key/generate', { key => 'sk-of-the-caller-0123456789' })->{key},
    'of a user' => post('/user/new', { user_id => 'uma' })->{key},
    'of a team' => post('/key/generate', { team_id => 'crew' })->{key},
    'of a member' => post('/key/generate', { team_id => 'crew', user_id => 'mia' })->{key},
    'of a service' => post('/key/service-account/generate', { team_id => 'crew', key_alias => 'svc' })->{key},
    'of a team that is not there' => post('/key/generate', { team_id => 'nowhere', user_id => 'nobody' })->{key},
);
for my $how (sort keys %made) { is(ask($made{$how}), 'ok', "a key $how works at once") }
for my $how (sort keys %made) {
    my $new = post('/key/regenerate', { key => $made{$how} })->{key};
    is(ask($new), 'ok', "a key $how, regenerated, works at once");
    is(ask($made{$how}), 'token_not_found_in_db', 'and the old one does not');
    $made{$how} = $new;
}

# --- changes of a key

sub flips {
    my ($what, $key, $change, $refused, $back) = @_;
    is(ask($key), 'ok', "$what: before");
    $change->();
    is(ask($key), $refused, "$what: binds the next request");
    return unless $back;
    $back->();
    is(ask($key), 'ok', "$what: and so does the way back");
}

my $key = post('/key/generate', { team_id => 'crew', user_id => 'mia' })->{key};
my $update = sub { my %f = @_; return sub { post('/key/update', { key => $key, %f }) } };
flips('models of a key', $key, $update->(models => ['gpt-4o']), 'key_model_access_denied', $update->(models => []));
flips('budget of a key', $key, $update->(max_budget => 0), 'budget_exceeded', $update->(max_budget => undef));
flips('requests of a key', $key, $update->(rpm_limit => 0), 'throttling_error', $update->(rpm_limit => undef));
flips('tokens of a key', $key, $update->(tpm_limit => 0), 'throttling_error', $update->(tpm_limit => undef));
flips('parallel requests of a key', $key, $update->(max_parallel_requests => 0), 'throttling_error', $update->(max_parallel_requests => undef));
flips('requests of a model of a key', $key, $update->(model_rpm_limit => { 'gpt-4o-mini' => 0 }), 'throttling_error', $update->(model_rpm_limit => {}));
flips('budget of a model of a key', $key, $update->(model_max_budget => { 'gpt-4o-mini' => { budget_limit => 0, time_period => '1d' } }), 'budget_exceeded', $update->(model_max_budget => {}));
flips('windows of a key', $key, $update->(budget_limits => [ { budget_duration => '1d', max_budget => 0 } ]), 'budget_exceeded', $update->(budget_limits => []));
flips('block of a key', $key, sub { post('/key/block', { key => $key }) }, 'auth_error', sub { post('/key/unblock', { key => $key }) });
is(ask($key), 'ok', 'routes of a key: before');
$update->(allowed_routes => ['/v1/embeddings'])->();
is($s->chat($key)->{status}, 403, 'routes of a key: bind the next request');
$update->(allowed_routes => [])->();
post('/key/update', { key => $key, aliases => { cheap => 'gpt-4o-mini' } });
is(ask($key, model => 'cheap'), 'ok', 'an alias works at once');

# --- of what stands above it

my $team = sub { my %f = @_; return sub { post('/team/update', { team_id => 'crew', %f }) } };
flips('models of the team', $key, $team->(models => ['gpt-4o']), 'team_model_access_denied', $team->(models => []));
flips('budget of the team', $key, $team->(max_budget => 0), 'budget_exceeded', $team->(max_budget => undef));
flips('requests of the team', $key, $team->(rpm_limit => 0), 'throttling_error', $team->(rpm_limit => undef));
flips('block of the team', $key, sub { post('/team/block', { team_id => 'crew' }) }, 'auth_error', sub { post('/team/unblock', { team_id => 'crew' }) });
flips('budget of the member', $key, sub { post('/team/member_update', { team_id => 'crew', user_id => 'mia', max_budget_in_team => 0 }) }, 'budget_exceeded',
    sub { post('/team/member_update', { team_id => 'crew', user_id => 'mia' }) });
flips('budget of all members', $key, $team->(team_member_budget => 0), 'budget_exceeded', $team->(team_member_budget => 100));
flips('requests of the user', $key, sub { post('/user/update', { user_id => 'mia', rpm_limit => 0 }) }, 'throttling_error', sub { post('/user/update', { user_id => 'mia', rpm_limit => 1000 }) });

post('/organization/new', { organization_id => 'guild', organization_alias => 'Guild' });
post('/organization/member_add', { organization_id => 'guild', member => { role => 'internal_user', user_id => 'mia' } });
$team->(organization_id => 'guild')->();
my $org = sub { my %f = @_; return sub { call(PATCH => '/organization/update', { organization_id => 'guild', %f }) } };
flips('budget of the organization', $key, $org->(max_budget => 0), 'budget_exceeded', $org->(max_budget => undef));
flips('models of the organization', $key, $org->(models => ['gpt-4o']), 'org_model_access_denied', $org->(models => []));

my $own = $made{'of a user'};
flips('budget of the user', $own, sub { post('/user/update', { user_id => 'uma', max_budget => 0 }) }, 'budget_exceeded', sub { post('/user/update', { user_id => 'uma', max_budget => undef }) });
flips('models of the user', $own, sub { post('/user/update', { user_id => 'uma', models => ['no-default-models'] }) }, 'key_model_access_denied', sub { post('/user/update', { user_id => 'uma', models => ['gpt-4o-mini'] }) });

post('/budget/new', { budget_id => 'shared', max_budget => 100 });
$key = post('/key/generate', { budget_id => 'shared' })->{key};
flips('a shared budget', $key, sub { post('/budget/update', { budget_id => 'shared', max_budget => 0 }) }, 'budget_exceeded', sub { post('/budget/update', { budget_id => 'shared', max_budget => 5 }) });

# --- ends

for my $end ([ 'of a member', sub { post('/team/member_delete', { team_id => 'crew', user_id => 'mia' }) } ], [ 'of a user', sub { post('/user/delete', { user_ids => ['uma'] }) } ],
             [ 'of a service', sub { post('/team/delete', { team_ids => ['crew'] }) } ], [ 'by /key/generate', sub { post('/key/delete', { keys => [ $made{'by /key/generate'} ] }) } ]) {
    my ($how, $do) = @$end;
    is(ask($made{$how}), 'ok', "a key $how works");
    $do->();
    is(ask($made{$how}), 'token_not_found_in_db', 'and ends with what it belonged to');
}
post('/organization/new', { organization_id => 'short', organization_alias => 'Short' });
post('/team/new', { team_id => 'short-team', organization_id => 'short' });
my ($of_team, $of_org) = map { $_->{key} } post('/key/generate', { team_id => 'short-team' }), post('/key/generate', { organization_id => 'short' });
is(ask($_), 'ok', 'a key of an organization works') for $of_team, $of_org;
call(DELETE => '/organization/delete', { organization_ids => ['short'] });
is(ask($_), 'token_not_found_in_db', 'and ends with it') for $of_team, $of_org;

$s->finish;
done_testing();
