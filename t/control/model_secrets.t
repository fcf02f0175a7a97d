# What is shown of a model: never a secret, and to those who do not read everything only
# what is known to be harmless.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Keytoll::World;
use Test::More;

my $k = Keytoll::Control->new(config => <<'END');
model_list:
  - model_name: azz
    litellm_params:
      model: azure/x
      base_url: 'https://u:leak-1@inner.example/v1'
      proxy_url: 'http://user:leak-2@proxy'
      auth: 'Basic leak-3'
      passphrase: leak-4
      proxy_pass: leak-5
      userPwd: leak-6
      note: 'see https://a@b:leak-7@c.example/x and http://plain.example/@cf/y'
      fallbacks: [{model: b, api_base: 'https://inner2', extra: ['https://leak-8@h']}]
      use_in_pass_through: true
      author: somebody
      input_cost_per_token: 0.001
      rpm: 7
    model_info: {api_key: leak-9, internal_note: inner-3, base_model: azure/gpt-4o, supports_vision: true, description: 'at https://u:leak-0@d.example'}
END
my $w = Keytoll::World->new($k);
my ($s, $j);
my @paths = ('/model/info', '/v1/model/info', '/v2/model/info?size=500');
sub seen { my ($who, $path, $name) = @_; ($s, $j) = $w->as($who, GET => $path); my ($m) = grep { $_->{model_name} eq $name } @{ $j->{data} }; return $m }

for my $path (@paths) {
    my $m = seen(IU => $path, 'azz');
    unlike $k->raw, qr/leak-|inner|api_base|base_url|proxy/, "$path: to a user neither secrets nor places";
    is_deeply $m->{litellm_params}, { model => 'azure/x', rpm => 7, use_in_pass_through => JSON::PP::true, input_cost_per_token => 0.001 }, 'of the settings what is harmless';
    is_deeply [ @{ $m->{model_info} }{qw(base_model supports_vision description key mode)} ], [ 'azure/gpt-4o', JSON::PP::true, 'at https://d.example', 'x', 'chat' ], 'and what the model is';
    $m = seen(PA => $path, 'azz');
    unlike $k->raw, qr/leak-/, "$path: to an admin no secrets";
    my $p = $m->{litellm_params};
    is_deeply [ @$p{qw(base_url proxy_url note author)}, $p->{fallbacks}[0]{api_base}, $p->{fallbacks}[0]{extra}[0] ],
        [ 'https://inner.example/v1', 'http://proxy', 'see https://c.example/x and http://plain.example/@cf/y', 'somebody', 'https://inner2', 'https://h' ], 'but the places';
    is_deeply [ grep { exists $p->{$_} } qw(auth passphrase proxy_pass userPwd) ], [], 'by whatever name';
    is $m->{model_info}{internal_note}, 'inner-3', 'and notes';
}

# --- models of the API: sealed, too

my %params = (model => 'openai/gpt-4o', api_base => 'https://u:leak-a@inner.example/v1', auth => 'leak-b', passphrase => 'leak-c', nested => [ { base_url => 'https://leak-d@inner.example' } ], tags => ['t']);
($s, $j) = $k->post('/model/new', { model_name => 'made', litellm_params => \%params, model_info => { id => 'made', api_key => 'leak-e', note => 'https://u:leak-f@n.example', base_model => 'gpt-4o' } });
is $s, 200, 'a model' or diag $k->raw;
sub clean {
    my ($what) = @_;
    unlike $k->raw, qr/leak-/, "$what: no secret in the answer";
    is scalar(grep { /^kt1:/ } @{ $j->{litellm_params} }{qw(auth passphrase)}, $j->{model_info}{api_key}), 3, 'but sealed';
    is $j->{litellm_params}{api_base}, 'https://inner.example/v1', 'an address without its password';
    unlike $k->sql("SELECT m::text FROM models m WHERE model_id = 'made'"), qr/leak-/, 'nor in the row';
    unlike $k->sql("SELECT string_agg(a::text, ' ') FROM audit a"), qr/leak-/, 'nor in the audit';
}
clean('new');
($s, $j) = $k->request('PATCH', '/model/made/update', { litellm_params => { passphrase => 'leak-g', rpm => 3 }, model_info => { api_key => 'leak-h', base_model => 'gpt-4o-mini' } });
is_deeply [ $s, $j->{litellm_params}{rpm}, $j->{model_info}{base_model} ], [ 200, 3, 'gpt-4o-mini' ], 'a change' or diag $k->raw;
clean('update');
($s, $j) = $k->post('/model/block', { model_id => 'made' });
clean('block');
($s, $j) = $k->post('/model/unblock', { model_id => 'made' });
clean('unblock');
for my $path (@paths) {
    my $m = seen(IU => $path, 'made');
    unlike $k->raw, qr/leak-|kt1:|inner|api_base|n\.example/, "$path: to a user neither secrets nor places";
    is_deeply $m->{litellm_params}, { model => 'openai/gpt-4o', rpm => 3, tags => ['t'] }, 'but what is harmless';
    $m = seen(PA => $path, 'made');
    unlike $k->raw, qr/leak-|kt1:/, 'to an admin no secrets';
    is_deeply [ $m->{litellm_params}{api_base}, $m->{litellm_params}{nested}, $m->{model_info}{note} ], [ 'https://inner.example/v1', [ { base_url => 'https://inner.example' } ], 'https://n.example' ], 'but the places';
}

# --- what is sent back as it was shown leaves what was not

$w->ok(POST => '/model/new', { model_name => 'back', litellm_params => { model => 'openai/gpt-4o', api_base => 'https://leak-u:leak-p@inner.example/v1' }, model_info => { id => 'back', custom_tokenizer => { identifier => 'a/b', auth_token => 'leak-t' } } });
sub stored { return $k->sql("SELECT json_build_array(litellm_params->'api_base', model_info->'custom_tokenizer') FROM models WHERE model_id = 'back'") }
my $stored = stored();
my $m = seen(PA => '/model/info', 'back');
($s) = $k->request('PATCH', '/model/back/update', { model_name => 'back', litellm_params => $m->{litellm_params}, model_info => { custom_tokenizer => $m->{model_info}{custom_tokenizer} } });
is_deeply [ $s, stored() ], [ 200, $stored ], 'an address keeps its password, an object its token' or diag $k->raw;
($s) = $k->request('PATCH', '/model/back/update', { litellm_params => { api_base => 'https://inner.example/v2' }, model_info => { custom_tokenizer => { identifier => 'c/d' } } });
is stored(), '["https://inner.example/v2", {"identifier": "c/d"}]' =~ s/", \{/", {/r, 'another has none';

# --- a model of a team, to its admin

$w->ok(POST => '/model/new', { model_name => 'ours', litellm_params => { model => 'openai/gpt-4o', api_base => 'http://inner.example' }, model_info => { id => 'ours', team_id => 'alpha' } });
($s, $j) = $w->as(TA => PATCH => '/model/ours/update', { model_info => { description => 'good' } });
is_deeply [ $s, $j->{model_info}{description}, $j->{litellm_params}{model} ], [ 200, 'good', 'openai/gpt-4o' ], 'he changes it' or diag $k->raw;
unlike $k->raw, qr/inner/, 'and is not told where it is';

done_testing;
