# Models: listing with its options, change, block, models of a team, info by page and group.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Test::More;

my $k = Keytoll::Control->new(config => <<'END');
model_list:
  - model_name: twice
    litellm_params: {model: openai/gpt-4o-mini, rpm: 10}
    model_info: {id: f-1, access_groups: [beta]}
  - model_name: twice
    litellm_params: {model: azure/gpt-4o-mini, rpm: 5}
    model_info: {id: f-2, supports_vision: true}
  - model_name: hidden
    litellm_params: {model: openai/gpt-4o-mini}
    model_info: {discoverable: false}
  - model_name: "vllm/*"
    litellm_params: {model: "vllm/*"}
litellm_settings:
  public_model_groups: [twice]
END
my ($s, $j);
sub made { my ($st, $o) = $k->post(@_); die "$_[0]: $st " . $k->raw if $st != 200; return $o }
sub ids { my ($q, %o) = @_; ($s, $j) = $k->get("/models$q", %o); return ref $j eq 'HASH' ? map { $_->{id} } @{ $j->{data} } : () }
sub err { return ref $j eq 'HASH' && ref $j->{error} ? $j->{error}{message} : '' }
sub has { my ($n, @l) = @_; return scalar grep { $_ eq $n } @l }
sub registry { return { map { $_->{n} => $_ } @{ JSON::PP->new->decode($k->redis('GET', 'kt:{0000}:reg'))->{models} } } }

made('/user/new', { user_id => $_, user_role => 'internal_user', auto_create_key => JSON::PP::false }) for qw(ta iu cu);
made('/team/new', { team_id => 'alpha', models => ['gpt-4o'], members_with_roles => [ { user_id => 'ta', role => 'admin' }, { user_id => 'iu', role => 'user' } ] });
made('/team/new', { team_id => 'beta' });
my %key = map { $_->[0] => made('/key/generate', { user_id => $_->[0], $_->[1] ? (team_id => $_->[1]) : () })->{key} } [ ta => 'alpha' ], [ iu => 'alpha' ], [ cu => 'beta' ];

# listing

my @all = ids('');
ok has('twice', @all) && has('gpt-4o', @all), 'every model for admins';
is has('twice', @all), 1, 'once';
ok !has('hidden', @all), 'discoverable: false hides one';
ok !grep({ /\*/ } @all), 'wildcards are not listed';
ok has('vllm/*', ids('?return_wildcard_routes=true')), 'unless asked for';
is_deeply [ ids('', key => $key{iu}) ], ['gpt-4o'], 'a team\'s list';
is_deeply [ ids('?team_id=alpha', key => $key{iu}) ], ['gpt-4o'], 'by team';
ids('?team_id=alpha', key => $key{cu});
is $s, 403, 'not of a foreign one';
is_deeply [ ids('?team_id=alpha') ], ['gpt-4o'], 'an admin asks for any';
cmp_ok scalar(ids('?team_id=alpha&scope=expand')), '>', 40, 'or for the whole proxy';
ok has('beta', ids('?include_model_access_groups=true')), 'with access groups';
is_deeply [ ids('?only_model_access_groups=true') ], ['beta'], 'or these alone';
ids('?include_metadata=true');
is_deeply $j->{data}[0]{metadata}, { fallbacks => [] }, 'with metadata';
ids('?fallback_type=x');
is $s, 400, 'an unknown fallback_type';
ids('?fallback_type=general');
is $s, 200, 'a known one';
my $alias = made('/key/generate', { models => ['gpt-4o'], aliases => { quick => 'gpt-4o' } })->{key};
is_deeply [ sort(ids('', key => $alias)) ], [ 'gpt-4o', 'quick' ], 'aliases are listed';
my $group = made('/key/generate', { models => ['beta'] })->{key};
is_deeply [ ids('', key => $group) ], ['twice'], 'groups are expanded';
my $wild = made('/key/generate', { models => ['anthropic/*'] })->{key};
my @w = ids('', key => $wild);
ok @w > 2 && !(grep { !/claude/ } @w), 'wildcards of a provider too' or diag "@w";
($s, $j) = $k->get('/models/twice,gpt-4o');
is $s, 200, 'several at once';
($s, $j) = $k->get('/models/twice,nope,none');
is_deeply [ $s, $j ], [ 404, { detail => 'The following model(s) do not exist or are not accessible: nope, none' } ], 'those that are not there are named';

# change

my $m = made('/model/new', { model_name => 'mine', litellm_params => { model => 'openai/x', api_key => 'sk-secret-provider-key-1',
        input_cost_per_token => 1e-6, output_cost_per_token => 2e-6 }, model_info => { id => 'm1', mode => 'chat', max_output_tokens => 50 } });
($s, $j) = $k->post('/model/update', { litellm_params => { input_cost_per_token => 3e-6 }, model_info => { id => 'm1' } });
is $s, 200, 'update' or diag $k->raw;
is_deeply [ @{ registry()->{mine} }{qw(in out maxo)} ], [ 3000000, 2000000, 50 ], 'is merged';
like $j->{litellm_params}{api_key}, qr/^kt1:/, 'the secret stays';
is $k->sql("SELECT litellm_params->>'api_key' FROM models WHERE model_id = 'm1'"), $m->{litellm_params}{api_key}, 'as it was';
($s, $j) = $k->request('PATCH', '/model/m1/update', { model_name => 'renamed', litellm_params => { api_key => 'sk-secret-provider-key-2', output_cost_per_token => undef } });
is_deeply [ $s, $j->{model_name} ], [ 200, 'renamed' ], 'PATCH';
ok !registry()->{mine} && registry()->{renamed}{noprice}, 'null takes a price away';
isnt $j->{litellm_params}{api_key}, $m->{litellm_params}{api_key}, 'another secret';
unlike $k->raw, qr/sk-secret/, 'is not shown';
is $k->sql("SELECT count(*) FROM audit WHERE audit::text LIKE '%sk-secret%'"), 0, 'nor in the audit';
($s, $j) = $k->request('PATCH', '/model/nope/update', {});
is_deeply [ $s, $j->{error}{type} ], [ 404, 'auth_error' ], 'an unknown one';
like err(), qr/Model nope not found on proxy\./, 'with its text';
($s, $j) = $k->request('PATCH', '/model/f-1/update', { model_name => 'x' });
is $s, 400, 'one of the file';
like err(), qr/Can't edit model\. Model in config/, 'with its text';
($s, $j) = $k->post('/model/update', { litellm_params => { input_cost_per_token => -1 }, model_info => { id => 'm1' } });
is $s, 400, 'a wrong price';
($s, $j) = $k->post('/model/update', {});
is $s, 400, 'without an id';

# block

($s, $j) = $k->post('/model/block', { model_id => 'm1' });
is_deeply [ $s, $j->{blocked} ], [ 200, JSON::PP::true ], 'block';
ok !registry()->{renamed}, 'takes it out of the registry';
($s, $j) = $k->post('/model/unblock', { model_id => 'm1' });
ok registry()->{renamed}, 'unblock puts it back';
($s, $j) = $k->post('/model/block', { model_id => 'nope' });
is $s, 404, 'an unknown one';

# models of a team

my $body = { model_name => 'ours', litellm_params => { model => 'openai/gpt-4o' }, model_info => { id => 't1', team_id => 'alpha' } };
($s, $j) = $k->post('/model/new', $body, key => $key{iu});
is $s, 403, 'a member may not make one';
like err(), qr/User does not have permission to make this model call\. Your role=internal_user/, 'with its text';
($s, $j) = $k->post('/model/new', { %$body, model_info => {} }, key => $key{ta});
is $s, 403, 'a team admin not without his team';
($s, $j) = $k->post('/model/new', { %$body, model_info => { team_id => 'beta' } }, key => $key{ta});
is $s, 403, 'nor for another';
($s, $j) = $k->post('/model/new', { %$body, model_info => { team_id => 'nope' } });
is $s, 400, 'an unknown team';
($s, $j) = $k->post('/model/new', $body, key => $key{ta});
is $s, 200, 'but for his own' or diag $k->raw;
my $name = $j->{model_name};
like $name, qr/^model_name_alpha_[0-9a-f-]{36}$/, 'under a name of its own';
is_deeply [ ids('', key => $key{iu}) ], [ 'gpt-4o', 'ours' ], 'its members see the public one';
ok !has('ours', ids('')) && !has($name, ids('')) && !has('ours', ids('', key => $key{cu})) && !has($name, ids('', key => $key{cu})), 'nobody else sees any';
my $policy = $k->sql("SET keytoll.strict_default = 'off'; SET keytoll.tpm_type = 'total'; SELECT t::text FROM kt_policy t JOIN keys k ON k.ent = t.name WHERE k.user_id = 'iu'");
like $policy, qr/ours.*\Q$name/s, 'the gate knows the alias';
like $k->sql("SELECT models FROM teams WHERE team_id = 'alpha'"), qr/ours/, 'the list of the team has it';
($s, $j) = $k->request('PATCH', '/model/t1/update', { model_name => 'theirs' }, key => $key{iu});
is $s, 403, 'a member may not change it';
($s, $j) = $k->request('PATCH', '/model/t1/update', { model_name => 'theirs' }, key => $key{ta});
is $s, 200, 'its admin may' or diag $k->raw;
is_deeply [ ids('', key => $key{iu}) ], [ 'gpt-4o', 'theirs' ], 'under another public name';
($s, $j) = $k->request('PATCH', '/model/t1/update', { model_info => { team_id => 'beta' } }, key => $key{ta});
is $s, 400, 'not to another team';
($s, $j) = $k->post('/model/delete', { id => 'm1' }, key => $key{ta});
is $s, 403, 'nor models of the proxy';
($s, $j) = $k->post('/model/delete', { id => 't1' }, key => $key{ta});
is $s, 200, 'and delete';
is_deeply [ ids('', key => $key{iu}) ], ['gpt-4o'], 'it is gone';
is $k->sql("SELECT coalesce(model_aliases::text, 'none') FROM teams WHERE team_id = 'alpha'"), 'none', 'with its alias';

# info

($s, $j) = $k->get('/model/info', key => $key{iu});
is_deeply [ $s, map { $_->{model_name} } @{ $j->{data} } ], [ 200, 'gpt-4o' ], 'info of what the caller may use';
($s, $j) = $k->get('/model/info');
is_deeply [ map { $_->{model_info}{id} } grep { $_->{model_name} eq 'twice' } @{ $j->{data} } ], [ 'f-1', 'f-2' ], 'every deployment of a name';
is_deeply [ map { $_->{model_info}{access_groups} } grep { $_->{model_info}{id} eq 'f-1' } @{ $j->{data} } ], [ ['beta'] ], 'with its groups';
($s, $j) = $k->get('/v2/model/info?page=2&size=3');
is_deeply [ $s, scalar @{ $j->{data} }, $j->{current_page} ], [ 200, 3, 2 ], 'by page';
cmp_ok $j->{total_count}, '>', 40, 'of many';
is $j->{total_pages}, int(($j->{total_count} + 2) / 3), 'pages';
($s, $j) = $k->get('/v2/model/info?model=twice');
is $j->{total_count}, 2, 'of one name';
($s, $j) = $k->get('/model_group/info?model_group=twice');
is_deeply [ @{ $j->{data}[0] }{qw(model_group mode rpm)}, $j->{data}[0]{providers}, $j->{data}[0]{is_public_model_group}, $j->{data}[0]{supports_vision} ],
    [ 'twice', 'chat', 15, [ 'openai', 'azure' ], JSON::PP::true, JSON::PP::true ], 'a group';
($s, $j) = $k->get('/model_group/info', key => $key{iu});
is_deeply [ map { $_->{model_group} } @{ $j->{data} } ], ['gpt-4o'], 'those of the caller';

done_testing;
