# What the configuration says of keys, users, teams and passwords.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Test::More;

my $k = Keytoll::Control->new(general => <<'END', config => <<'END2');
  disable_custom_api_keys: true
  key_alias_pattern: '^[a-z]+-[0-9]+$'
  password_policy_min_length: 8
  password_policy_require_special: false
  disable_auto_add_proxy_admin_to_teams: true
END
litellm_settings:
  default_key_generate_params:
    max_budget: 1.5
    models: [azure-gpt-3.5]
    metadata: {setting: default}
  upperbound_key_generate_params:
    max_budget: 100
    duration: 30d
    rpm_limit: 50
  key_generation_settings:
    team_key_generation:
      allowed_team_member_roles: [admin]
      required_params: [tags]
    personal_key_generation:
      allowed_user_roles: [proxy_admin]
  default_internal_user_params:
    user_role: internal_user
    max_budget: 20
    budget_duration: 30d
    models: [gpt-4o]
    available_teams: [open]
    teams:
      - team_id: start
        user_role: user
        max_budget_in_team: 3
  max_internal_user_budget: 10
  internal_user_budget_duration: 1mo
  default_team_params:
    max_budget: 50
    tpm_limit: 1000
    team_member_permissions: [/key/generate, /key/info]
END2
my ($s, $j);
sub err { return $j->{error}{message} // '' }

# keys

($s, $j) = $k->post('/key/generate', {});
is_deeply [ $s, @$j{qw(max_budget models metadata rpm_limit)} ], [ 200, 1.5, ['azure-gpt-3.5'], { setting => 'default' }, 50 ], 'defaults fill, upper bounds too';
ok $j->{expires}, 'an upper bound of the duration is the duration';
my $key = $j->{key};
($s, $j) = $k->post('/key/generate', { max_budget => 2, models => ['x'], metadata => { a => 1 }, rpm_limit => 5, duration => '1d' });
is_deeply [ $s, @$j{qw(max_budget models metadata rpm_limit)} ], [ 200, 2, ['x'], { a => 1 }, 5 ], 'what is sent stays';
($s, $j) = $k->post('/key/generate', { max_budget => 200 });
is $s, 400, 'over an upper bound';
like err(), qr/max_budget is over max limit set in config - user_value=200; max_value=100/, 'and says so';
($s, $j) = $k->post('/key/generate', { duration => '31d' });
is $s, 400, 'too long';
($s, $j) = $k->post('/key/generate', { duration => '-1' });
is $s, 400, 'for ever';
for my $way ({ rpm_limit => 9e15 }, { rpm_limit => '9223372036854775807' }, { max_budget => '101' }, { max_budget => 'much' }, { duration => '99999999999999d' }) {
    my ($name) = keys %$way;
    ($s) = $k->post('/key/generate', $way);
    like $s, qr/^4\d\d$/, "$name => $way->{$name} does not slip through";
}
($s, $j) = $k->post('/key/generate', { duration => '' });
ok $s != 200 || $j->{expires}, 'nor does an empty duration';
($s, $j) = $k->post('/key/update', { key => $key, max_budget => 101 });
is $s, 400, 'by update neither';
($s, $j) = $k->post('/key/update', { key => $key, tpm_limit => 9 });
is $s, 200, 'an update of something else';
($s, $j) = $k->get("/key/info?key=$key");
is $j->{info}{rpm_limit}, 50, 'changes nothing else';
($s, $j) = $k->post('/key/generate', { key => 'sk-my-own-key-0123456789' });
is $s, 403, 'keys of the caller are off';
for my $alias (qw(team-1 Team-1 x)) {
    ($s, $j) = $k->post('/key/generate', { key_alias => $alias });
    is $s, $alias eq 'team-1' ? 200 : 400, "the alias $alias";
}

# users and teams

$k->post('/team/new', { team_id => $_ }) for qw(start open closed);
($s, $j) = $k->get('/team/info?team_id=start');
is_deeply [ @{ $j->{team_info} }{qw(max_budget tpm_limit team_member_permissions)} ], [ 50, 1000, [ '/key/generate', '/key/info' ] ], 'teams have their defaults';
is_deeply $j->{team_info}{members_with_roles}, [], 'and no admin whom nobody asked for';
($s, $j) = $k->post('/user/new', { user_id => 'ann', user_email => 'Ann@Example.com' });
is_deeply [ $s, @$j{qw(user_role max_budget budget_duration models teams)} ], [ 200, 'internal_user', 20, '30d', ['gpt-4o'], ['start'] ], 'users too';
my $ann = $j->{key};
is $k->sql("SELECT max_budget_nusd FROM budgets JOIN memberships USING (budget_id) WHERE user_id = 'ann'"), '3000000000', 'with a budget in the team';
($s, $j) = $k->post('/user/new', { user_id => 'bob', user_role => 'internal_user', max_budget => 1 });
is $j->{max_budget}, 1, 'what is sent stays';
($s, $j) = $k->post('/user/new', { user_id => 'root', user_role => 'proxy_admin' });
is $j->{max_budget}, undef, 'admins have no defaults';
($s, $j) = $k->post('/user/new', { user_email => 'ANN@example.com' });
is $s, 409, 'an address twice, in whatever case';
($s, $j) = $k->post('/team/member_add', { team_id => 'closed', member => { role => 'user', user_email => 'carol@example.com' } });
is_deeply [ $s, $j->{updated_users}[0]{user_role}, $j->{updated_users}[0]{max_budget} ], [ 200, 'internal_user', 20 ], 'who comes by a team has the defaults too';

# who may make keys

($s, $j) = $k->post('/key/generate', {}, key => $ann);
is $s, 400, 'personal keys are for admins';
like err(), qr/Personal key creation has been restricted by admin/, 'and says so';
($s, $j) = $k->post('/key/generate', { team_id => 'start', tags => ['x'] }, key => $ann);
is $s, 400, 'team keys for admins of the team';
like err(), qr/Team member role user not in allowed_team_member_roles=\['admin'\]/, 'and says so';
$k->post('/team/member_update', { team_id => 'start', user_id => 'ann', role => 'admin' });
($s, $j) = $k->post('/key/generate', { team_id => 'start' }, key => $ann);
is $s, 400, 'a parameter that is required';
like err(), qr/Required param tags not in data/, 'is named';
($s, $j) = $k->post('/key/generate', { team_id => 'start', tags => ['x'], models => ['gpt-4o'] }, key => $ann);
is $s, 200, 'then it is made' or diag $k->raw;
($s, $j) = $k->post('/key/generate', { team_id => 'nowhere' });
is $s, 400, 'an unknown team';

# teams to join

($s, $j) = $k->get('/team/available', key => $ann);
is_deeply [ map { $_->{team_id} } @$j ], ['open'], 'a team to join';
($s, $j) = $k->post('/team/member_add', { team_id => 'open', member => { role => 'admin', user_id => 'ann' } }, key => $ann);
is $s, 403, 'not as admin';
($s, $j) = $k->post('/team/member_add', { team_id => 'open', member => { role => 'user', user_id => 'bob' } }, key => $ann);
is $s, 403, 'not somebody else';
($s, $j) = $k->get('/team/permissions_list?team_id=open', key => $ann);
is $s, 200, 'its rules may be read';
($s, $j) = $k->post('/team/permissions_update', { team_id => 'open', team_member_permissions => ['/key/update'] }, key => $ann);
is $s, 403, 'not changed';
($s, $j) = $k->post('/team/member_add', { team_id => 'open', member => { role => 'user', user_id => 'ann' } }, key => $ann);
is $s, 200, 'as a user';
($s, $j) = $k->post('/team/member_add', { team_id => 'closed', member => { role => 'user', user_id => 'ann' } }, key => $ann);
is $s, 403, 'another team stays closed';
($s, $j) = $k->get('/team/open/members/me', key => $ann);
is_deeply [ $s, $j->{role} ], [ 200, 'user' ], 'he sees his place';

# what the file declares

($s, $j) = $k->get('/get/internal_user_settings');
is_deeply [ $s, $j->{source}, $j->{values}{max_budget} ], [ 200, 'config', 20 ], 'the defaults come from the file';
ok !$j->{editable}, 'and can not be changed here';
($s, $j) = $k->request(PATCH => '/update/internal_user_settings', { max_budget => 1 });
is $s, 400, 'nobody does';
like $k->raw, qr/controld\.yaml/, 'and the file is named';

# passwords

for my $p ([ 'Short1a', 400 ], [ 'alllower1', 400 ], [ 'NoDigitHere', 400 ], [ 'GoodEnough1', 200 ]) {
    ($s, $j) = $k->post('/user/update', { user_id => 'ann', password => $p->[0] });
    is $s, $p->[1], "the password $p->[0]";
}
like $k->sql("SELECT password_hash FROM users WHERE user_id = 'ann'"), qr/^\$scrypt\$ln=15,r=8,p=1\$/, 'is kept as scrypt';
unlike $k->raw, qr/password/, 'and never shown';

unlike $k->logs, qr/did not check whose|"level":"error"/, 'no error in the log';
done_testing;
