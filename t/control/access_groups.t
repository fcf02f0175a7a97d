# Access groups of both kinds: names for sets of models, and groups that keys and teams have.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Test::More;

my $k = Keytoll::Control->new(config => <<'END');
model_list:
  - model_name: filed
    litellm_params: {model: openai/gpt-4o-mini}
    model_info: {id: f-1, access_groups: [of-file]}
END
my ($s, $j);
sub made { my ($st, $o) = $k->post(@_); die "$_[0]: $st " . $k->raw if $st != 200; return $o }
sub ids { my ($key) = @_; my (undef, $o) = $k->get('/models', key => $key); return join ' ', sort map { $_->{id} } @{ $o->{data} } }
sub detail { return ref $j eq 'HASH' && ref $j->{detail} ? $j->{detail}{error} : '' }

made('/model/new', { model_name => 'm1', litellm_params => { model => 'openai/gpt-4o' }, model_info => { id => 'i1', access_groups => ['tagged'] } });
made('/model/new', { model_name => 'm1', litellm_params => { model => 'azure/gpt-4o' }, model_info => { id => 'i2' } });
made('/model/new', { model_name => 'm2', litellm_params => { model => 'openai/gpt-4o' }, model_info => { id => 'i3' } });
my $key = made('/key/generate', { models => ['prod'] })->{key};
is ids($key), 'prod', 'a name that is no group yet is a model that is not there';

# groups of models

($s, $j) = $k->post('/access_group/new', { access_group => 'prod', model_names => ['m1'] });
is $s, 200, 'a group' or diag $k->raw;
is_deeply $j, { access_group => 'prod', model_names => ['m1'], model_ids => [], models_updated => 2 }, 'with every deployment of the name';
is ids($key), 'm1', 'whoever names it has its models, at once';
($s, $j) = $k->get('/access_group/prod/info');
is_deeply [ $s, $j ], [ 200, { access_group => 'prod', model_names => ['m1'], deployment_count => 2 } ], 'info';
($s, $j) = $k->get('/access_group/list');
is_deeply [ map { $_->{access_group} } @{ $j->{access_groups} } ], [ 'of-file', 'prod', 'tagged' ], 'the list has those of deployments too';
($s, $j) = $k->request('PUT', '/access_group/prod/update', { model_names => [ 'm2', 'filed' ] });
is_deeply [ $s, $j->{models_updated} ], [ 200, 2 ], 'update replaces';
is ids($key), 'filed m2', 'what the key may call';
($s, $j) = $k->request('PUT', '/access_group/tagged/update', { model_ids => ['i3'] });
is $s, 200, 'one that a deployment names';
is $k->sql("SELECT model_info->'access_groups' FROM models WHERE model_id = 'i1'"), '[]', 'it does so no longer';
($s, $j) = $k->get('/access_group/tagged/info');
is_deeply $j->{model_names}, ['m2'], 'by the id of a deployment';
for my $c ([ POST => '/access_group/new', {}, 400, 'access_group is required and cannot be empty' ],
    [ POST => '/access_group/new', { access_group => ' ' , model_names => ['m1'] }, 400, 'access_group is required and cannot be empty' ],
    [ POST => '/access_group/new', { access_group => 'x' }, 400, 'model_names list is required and cannot be empty' ],
    [ POST => '/access_group/new', { access_group => 'x', model_names => [ 'a', 'm1', 'b' ] }, 400, 'Model(s) not found: a, b' ],
    [ POST => '/access_group/new', { access_group => 'prod', model_names => ['m1'] }, 409, "Access group 'prod' already exists. Use PUT /access_group/prod/update to modify it." ],
    [ GET => '/access_group/x/info', undef, 404, "Access group 'x' not found" ],
    [ PUT => '/access_group/x/update', { model_names => ['m1'] }, 404, "Access group 'x' not found" ],
    [ DELETE => '/access_group/x/delete', undef, 404, "Access group 'x' not found" ]) {
    ($s, $j) = $k->request(@$c[0 .. 2]);
    is_deeply [ $s, detail() ], [ @$c[3, 4] ], "$c->[0] $c->[1]: $c->[4]" or diag $k->raw;
}
($s, $j) = $k->request('DELETE', '/access_group/of-file/delete');
is $s, 400, 'one of the file stays';
like detail(), qr/is set in .*controld\.yaml and can only be changed there/, 'and says where it is';
($s, $j) = $k->request('DELETE', '/access_group/prod/delete');
is_deeply [ $s, $j->{access_group}, $j->{models_updated} ], [ 200, 'prod', 2 ], 'delete';
is ids($key), 'prod', 'nothing is left of it';
is $k->sql("SELECT count(*) FROM audit WHERE object_type = 'model_group'"), 4, 'the audit has it';

# groups with an id

my $user = made('/key/generate', { models => ['m2'] });
made('/team/new', { team_id => 'red', models => ['m2'] });
made('/team/new', { team_id => 'bare' });
my $bare = made('/key/generate', { team_id => 'bare' })->{key};
for my $base ('/v1/access_group', '/v1/unified_access_group') {
    my $n = "g-$base";
    ($s, $j) = $k->post($base, { access_group_name => $n, description => 'd', access_model_names => [ 'm1', 'm1' ],
            access_mcp_server_ids => ['s1'], assigned_team_ids => [ 'red', 'bare' ], assigned_key_ids => [ $user->{key} ] });
    is $s, 201, "POST $base" or diag $k->raw;
    my $id = $j->{access_group_id};
    is_deeply [ @$j{qw(access_group_name description access_model_names access_mcp_server_ids access_agent_ids assigned_team_ids assigned_key_ids)} ],
        [ $n, 'd', ['m1'], ['s1'], [], [ 'bare', 'red' ], [ $user->{token} ] ], 'the group';
    is ids($user->{key}), 'm1 m2', 'its key may call more';
    is ids($bare), 'm1', 'a team without models of its own has those of its groups';
    ($s, $j) = $k->get("$base/$id");
    is_deeply [ $s, $j->{access_group_id} ], [ 200, $id ], 'GET';
    ($s, $j) = $k->get($base);
    is_deeply [ $s, map { $_->{access_group_id} } @$j ], [ 200, $id ], 'the list';
    ($s, $j) = $k->request('PUT', "$base/$id", { access_model_names => ['m2'], assigned_team_ids => ['red'], description => undef });
    is_deeply [ $s, $j->{description}, $j->{access_model_names}, $j->{assigned_team_ids}, $j->{assigned_key_ids} ],
        [ 200, undef, ['m2'], ['red'], [ $user->{token} ] ], 'PUT changes what is sent';
    is ids($user->{key}), 'm2', 'models that are taken away are gone';
    is ids($bare), '', 'a team that loses its only group does not get everything';
    $k->sql("UPDATE teams SET models = '{}' WHERE team_id = 'bare'");
    ($s, $j) = $k->post($base, { access_group_name => $n });
    is_deeply [ $s, detail() ], [ 409, "Access group '$n' already exists" ], 'a name is unique';
    for my $c ([ { access_group_name => 'x', assigned_team_ids => ['nope'] }, 400 ], [ { access_group_name => 'x', assigned_key_ids => [ 'a' x 64 ] }, 400 ],
        [ {}, 422 ], [ { access_group_name => '' }, 400 ], [ { access_group_name => 'x', access_model_names => 'm1' }, 422 ]) {
        ($s, $j) = $k->post($base, $c->[0]);
        is $s, $c->[1], 'refused';
    }
    is $k->sql("SELECT count(*) FROM access_groups WHERE access_group_name = 'x'"), 0, 'and nothing is left half-made';
    is +($k->get("$base/nope"))[0], 404, 'an unknown one';
    is +($k->request('PUT', "$base/nope", {}))[0], 404, 'to be changed';
    is +($k->request('DELETE', "$base/nope"))[0], 404, 'or deleted';
    ($s, $j) = $k->request('DELETE', "$base/$id");
    is $s, 204, 'DELETE';
    is $k->sql("SELECT count(*) FROM teams WHERE access_group_ids <> '{}'") + $k->sql("SELECT count(*) FROM keys WHERE access_group_ids <> '{}'"), 0,
        'nobody has it any more';
}

done_testing;
