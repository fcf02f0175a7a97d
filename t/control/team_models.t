# Models by people who are no proxy admins: of what their team has anyway, at its price.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Keytoll::World;
use Test::More;

my $k = Keytoll::Control->new(config => <<'END');
model_list:
  - model_name: expensive
    litellm_params: {model: openai/gpt-4o}
    model_info: {access_groups: [dear]}
  - model_name: "vllm/*"
    litellm_params: {model: "vllm/*"}
END
my $w = Keytoll::World->new($k);
my ($s, $j, $n);
sub err { return ref $j eq 'HASH' && ref $j->{error} ? $j->{error}{message} // '' : $k->raw }
sub new_model { my ($who, $name, $params, $info) = @_; ($s, $j) = $w->as($who, POST => '/model/new', { model_name => $name, litellm_params => $params, model_info => { team_id => 'alpha', %{ $info // {} } } }); return $s }
sub registry { return { map { $_->{n} => $_ } @{ JSON::PP->new->decode($k->redis('GET', 'kt:{0000}:reg'))->{models} } } }

# names that are no names

for my $path ('/v1/models/', '/v1/models/,', '/v1/models/,,', '/models/gpt-4o,', '/models/,gpt-4o') {
    ($s) = $w->as('IU', GET => $path);
    is $s, 404, "$path is not found";
}
($s, $j) = $w->as('IU', GET => '/v1/models/gpt-4o,gpt-4o-mini');
is $s, 200, 'two that are there';

# prices, limits, keys and addresses

my %base = (model => 'openai/gpt-4o');
for my $p ([ input_cost_per_token => 0 ], [ output_cost_per_token => 0 ], [ input_cost_per_image => 0 ], [ base_model => 'gpt-4o-mini' ],
           [ api_key => 'sk-x' ], [ api_base => 'http://x' ], [ base_url => 'http://x' ], [ custom_llm_provider => 'azure' ],
           [ rpm => 100 ], [ tpm => 1 ], [ organization => 'o' ], [ extra_headers => {} ], [ input_cost_per_token_flex => '0' ]) {
    is new_model('TA', 'free', { %base, @$p }), 403, "$p->[0] is for admins";
    like err(), qr/\Q$p->[0]\E is for proxy admins/, 'and is named';
}
for my $p ([ base_model => 'gpt-4o-mini' ], [ max_output_tokens => 1 ], [ mode => 'embedding' ], [ access_groups => ['dear'] ], [ input_cost_per_token => 0 ]) {
    is new_model('TA', 'free', \%base, {@$p}), 403, "model_info.$p->[0] too";
}
is $k->sql("SELECT count(*) FROM models WHERE source = 'api'"), 0, 'nothing was made';
is new_model('TA', 'priced', { %base, temperature => 0.5 }, { id => 'tm-1', description => 'd' }), 200, 'without them it is made' or diag $k->raw;
cmp_ok registry()->{ $j->{model_name} }{in}, '>', 0, 'and costs what the model costs';
is new_model('OA', 'priced-2', \%base), 200, 'an admin of its organization too' or diag $k->raw;
is new_model('TA', 'free', { model => 'openai/never-heard-of' }), 403, 'a model without a price is none';
like err(), qr/has no price/, 'with the reason';

# change

my @change = map { my $p = $_; ([ POST => '/model/update', $p, {} ], [ PATCH => '/model/tm-1/update', $p, {} ]) }
    ({ input_cost_per_token => 0 }, { output_cost_per_token => undef, input_cost_per_token => '0' }, { api_base => 'http://x' }, { model => 'openai/never-heard-of' });
for my $c (@change, [ PATCH => '/model/tm-1/update', {}, { base_model => 'gpt-4o-mini' } ], [ POST => '/model/update', {}, { max_output_tokens => 1 } ]) {
    my $before = $k->sql("SELECT m::text FROM models m WHERE model_id = 'tm-1'");
    ($s, $j) = $w->as('TA', $c->[0] => $c->[1], { litellm_params => $c->[2], model_info => { id => 'tm-1', %{ $c->[3] } } });
    is $s, 403, "$c->[1] of " . join ',', %{ $c->[2] } ? sort keys %{ $c->[2] } : sort keys %{ $c->[3] };
    is $k->sql("SELECT m::text FROM models m WHERE model_id = 'tm-1'"), $before, 'changes nothing';
}
($s, $j) = $w->as('TA', PATCH => '/model/tm-1/update', { litellm_params => { model => 'openai/gpt-4o-mini' }, model_info => { description => 'e' } });
is $s, 200, 'another model with a price' or diag $k->raw;
$w->ok(PATCH => '/model/tm-1/update', { litellm_params => { input_cost_per_token => 1e-9, api_key => 'sk-of-the-admin' } });
($s, $j) = $w->as('TA', PATCH => '/model/tm-1/update', { litellm_params => { model => 'openai/gpt-4o' } });
is $s, 403, 'what an admin priced stays what he priced';
($s, $j) = $w->as('TA', PATCH => '/model/tm-1/update', { litellm_params => { input_cost_per_token => undef } });
is $s, 403, 'and keeps its price';
my $params = JSON::PP::decode_json($k->sql("SELECT litellm_params FROM models WHERE model_id = 'tm-1'"));
($s, $j) = $w->as('TA', PATCH => '/model/tm-1/update', { model_name => 'renamed', litellm_params => $params });
is $s, 200, 'sent back as it was, it changes the name' or diag $k->raw;

# lists

$w->ok(POST => '/team/update', { team_id => 'alpha', models => ['gpt-4o-mini'] });
is new_model('TA', 'mine', { model => 'openai/gpt-4o' }), 403, 'not what the list lacks';
like err(), qr/is not a model of your team/, 'with the reason';
is new_model('TA', 'mine', { model => 'openai/gpt-4o-mini' }), 200, 'what it has' or diag $k->raw;
for my $name (qw(* gpt-4o* all-proxy-models all-team-models no-default-models gpt-4o expensive dear vllm/x)) {
    is new_model('TA', $name, { model => 'openai/gpt-4o-mini' }), 403, "the name $name would let in others";
    ($s) = $w->as('TA', PATCH => '/model/tm-1/update', { model_name => $name });
    is $s, 403, 'by a change too';
}
unlike $k->sql("SELECT models FROM teams WHERE team_id = 'alpha'"), qr/\bgpt-4o\b(?!-)|\*|dear|expensive/, 'the list did not grow';
is new_model('TA', 'gpt-new', { model => 'openai/gpt-4o-mini' }), 200, 'a name of a model to come';
$k->sql(q{INSERT INTO models (model_id, model_name, source, input_pusd, output_pusd) VALUES ('imp', 'gpt-new', 'import', 5, 5)});
is new_model('TA', 'mine-2', { model => 'openai/gpt-new' }), 403, 'does not let it in when it has come';
$w->ok(POST => '/team/update', { team_id => 'alpha', models => [] });

# a regenerated key sees what it may call

my $old = $w->ok(POST => '/key/generate', { models => ['gpt-4o'] })->{key};
my $new = $w->ok(POST => '/key/regenerate', { key => $old })->{key};
($s, $j) = $k->get('/v1/models', key => $new);
is_deeply [ map { $_->{id} } @{ $j->{data} } ], ['gpt-4o'], 'a regenerated key sees its models' or diag $k->raw;

# keys and lists: openai/* covers what openai serves, and a second name of the team is one of its names

$w->ok(POST => '/model/new', { model_name => $_->[0], litellm_params => { model => $_->[1], input_cost_per_token => 0, output_cost_per_token => 0 }, model_info => $_->[2] // {} })
    for [ 'served', 'openai/gpt-4o' ], [ 'elsewhere', 'azure/x' ], [ 'ns/served', 'openai/gpt-4o' ], [ 'beta-own', 'openai/gpt-4o', { team_id => 'beta' } ];
$w->ok(POST => '/team/update', { team_id => 'alpha', models => [ 'openai/*', 'bedrock/*' ], model_aliases => { quick => 'served', evil => 'elsewhere', 'azure/evil' => 'elsewhere' },
                                 team_member_permissions => [ '/key/generate', '/key/update' ] });
sub mint { my ($who, %b) = @_; ($s, $j) = $w->as($who, POST => '/key/generate', { team_id => 'alpha', %b }); return $s }
for my $list (['gpt-4o'], ['served'], [ 'gpt-4o', 'openai/gpt-4o' ], ['openai/anything'], ['openai/*'], ['bedrock/anthropic.claude-3'], ['quick'], [ 'quick', 'gpt-4o-mini' ], ['evil']) {
    is mint('IU', models => $list), 200, "@$list passes openai/*, bedrock/* and the second names" or diag $k->raw;
}
for my $list (['elsewhere'], ['ns/served'], ['bedrockzzz/x'], ['zzz/gpt-4o'], ['azure/gpt-4o'], ['openai'], ['openaix/gpt-4o'], ['gpt-*'], ['never-heard-of'], ['beta-own'], [ 'gpt-4o', 'elsewhere' ],
              ['quick*'], ['azure/evil2'], ['claude-3-5-sonnet-20241022'], ['']) {
    like mint('IU', models => $list), qr/^40[03]$/, "@$list does not" or diag $k->raw;
}
is mint('IU', models => ['gpt-4o'], aliases => { mine => 'quick' }), 403, 'a name of the key for one of the team must be one of the key';
is mint('IU', models => [ 'gpt-4o', 'quick' ], aliases => { mine => 'quick' }), 200, 'which it is' or diag $k->raw;
is mint('IU', aliases => { mine => 'elsewhere' }), 403, 'a name that leads elsewhere';
is mint('IU', aliases => { mine => 'gpt-4o-mini' }), 200, 'and one that leads to what openai serves' or diag $k->raw;
my $small = $w->ok(POST => '/key/generate', { team_id => 'alpha', user_id => 'user-IU', models => ['served'] })->{key};
($s) = $k->post('/key/generate', { team_id => 'alpha', models => ['quick'] }, key => $small);
is $s, 403, 'the list of the key that asks knows no names of the team';
($s) = $k->post('/key/generate', { team_id => 'alpha', models => ['served'] }, key => $small);
is $s, 200, 'but its own' or diag $k->raw;
$w->ok(POST => '/user/update', { user_id => 'user-US', models => ['openai/*'] });
my $us = $w->fresh('US');
($s) = $k->post('/key/generate', { models => ['served'] }, key => $us);
is $s, 200, "a list of a user's covers what openai serves" or diag $k->raw;
($s) = $k->post('/key/generate', { models => ['quick'] }, key => $us);
is $s, 403, 'no names of a team';
my $t = $w->team('org-A', 'TA');
$w->ok(PATCH => '/organization/update', { organization_id => 'org-A', models => ['openai/*'] });
($s) = $k->post('/team/update', { team_id => $t, models => ['served'] });
is $s, 200, "a list of an organization's too" or diag $k->raw;
($s, $j) = $k->post('/team/update', { team_id => $t, models => [ 'served', 'elsewhere' ] });
is $s, 400, 'not more';
like err(), qr/Model 'elsewhere' not in organization's allowed models/, 'with the name';
is new_model('TA', 'cheap', { model => 'azure/gpt-4o' }), 403, 'and a model of azure is none of openai because openai has one of that name';
$w->ok(PATCH => '/organization/update', { organization_id => 'org-A', models => [] });
sub policy { return JSON::PP->new->utf8->decode($k->sql("SELECT policy FROM kt_policy WHERE name = '$_[0]'")) }
mint('IU', models => ['quick']);
my $quick = $j->{token};
my $named = $w->ok(POST => '/key/generate', { models => ['gpt-4o'], aliases => { mine => 'gpt-4o', far => 'elsewhere' } })->{key};
($s, $j) = $k->get('/v1/models', key => $named);
is_deeply [ sort map { $_->{id} } @{ $j->{data} } ], [ 'gpt-4o', 'mine' ], 'a name of the key is shown where it may be called';
is_deeply policy("key:$quick")->{models}, [ 'quick', 'served' ], 'a second name means what the team says';
my $v = $k->state("key:$quick")->{v};
$w->ok(POST => '/team/update', { team_id => 'alpha', model_aliases => {} });
is_deeply policy("key:$quick")->{models}, ['quick'], 'as long as it says so';
cmp_ok $k->state("key:$quick")->{v}, '>', $v, 'in Redis too';

# secrets

my %secret = map { $_ => "leak-$_" } qw(aws_bearer_token_bedrock aws_web_identity_token azure_api_key vertex_ai_credentials Authorization
                                        watsonx_apikey AZURE_PASSWORD client_secret hf_token extra_headers);
my %plain = (model => 'openai/gpt-4o', max_tokens => 77, max_completion_tokens => 78, input_cost_per_token => '0.001', rpm => 5, tpm => 6, cache_read_input_token_cost => '0.0001', api_base => 'http://leak.free');
$w->ok(POST => '/model/new', { model_name => 'sealed', litellm_params => { %plain, %secret }, model_info => { id => 'sealed' } });
unlike $k->raw, qr/leak-/, 'no secret in the answer';
unlike $k->sql("SELECT litellm_params FROM models WHERE model_id = 'sealed'"), qr/leak-/, 'nor in the row';
is $k->sql("SELECT count(*) FROM audit WHERE audit::text LIKE '%leak-%'"), 0, 'nor in the audit';
for my $who ('PA', 'IU') {
    ($s, $j) = $w->as($who, GET => '/model/info');
    unlike $k->raw, qr/leak-/, "nor told to $who";
}
my $row = JSON::PP::decode_json($k->sql("SELECT litellm_params FROM models WHERE model_id = 'sealed'"));
is_deeply [ @$row{ sort keys %plain } ], [ @plain{ sort keys %plain } ], 'what is none stays as it is';

done_testing;
