# Models, prices and the registry: litellm-api 9.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Test::More;

my $k = Keytoll::Control->new(config => <<'END');
model_list:
  - model_name: from-config
    litellm_params:
      model: openai/gpt-4o-mini
  - model_name: priced
    litellm_params:
      model: anthropic/claude-haiku-4-5
      input_cost_per_token: 1e-6
      output_cost_per_token: 0.000002
      api_key: sk-in-the-config-file
END
my ($s, $j);

sub err { return $j->{error}{message} // '' }

sub registry {
    my $r = JSON::PP->new->decode($k->redis('GET', 'kt:{0000}:reg'));
    return ($r->{gen}, { map { $_->{n} => $_ } @{ $r->{models} } });
}

my ($gen, $reg) = registry();
is $k->redis('GET', 'kt:{0000}:gen'), $gen, 'the generation stands in both places';
cmp_ok scalar keys %$reg, '>=', 40, 'forty well-known models';
is_deeply $reg->{'gpt-4o'}, { n => 'gpt-4o', p => 'openai', mode => 'chat', in => 2500000,
    out => 10000000, cr => 1250000, maxo => 16384, maxi => 128000 }, 'prices in pico-USD';
is_deeply [ @{ $reg->{'from-config'} }{qw(u p in out maxo)} ],
    [ 'gpt-4o-mini', 'openai', 150000, 600000, 16384 ], 'a deployment inherits its model\'s price';
is_deeply [ @{ $reg->{priced} }{qw(u in out)} ], [ 'claude-haiku-4-5', 1000000, 2000000 ],
    'or has its own';
is $reg->{'omni-moderation-latest'}{free}, 1, 'a free model says so';

($s, $j) = $k->post('/model/new', { model_name => 'mine', litellm_params => { model => 'openai/x-1',
        api_key => 'sk-provider-secret-1', input_cost_per_token => 0.0000025,
        output_cost_per_token => 1e-05, login => { user => 'ann', chain => [ { password => 'sk-provider-secret-2' } ] } }, model_info => { id => 'm-1', mode => 'chat',
        max_output_tokens => 100 } });
is $s, 200, 'a model';
is_deeply [ @$j{qw(model_id model_name)} ], [ 'm-1', 'mine' ], 'is shown';
like $j->{litellm_params}{api_key}, qr/^kt1:/, 'its secret sealed';
like $j->{litellm_params}{login}{chain}[0]{password}, qr/^kt1:/, 'so is one that stands deep';
is $j->{litellm_params}{login}{user}, 'ann', 'and nothing else';
unlike $k->sql("SELECT litellm_params FROM models WHERE model_id = 'm-1'"), qr/sk-provider/, 'in PostgreSQL too';
my ($gen2, $reg2) = registry();
cmp_ok $gen2, '>', $gen, 'a new generation, before the answer';
is_deeply $reg2->{mine}, { n => 'mine', id => 'm-1', u => 'x-1', p => 'openai', mode => 'chat', in => 2500000,
    out => 10000000, maxo => 100 }, 'is in the registry';
($s, $j) = $k->post('/model/new', { model_name => 'mine', litellm_params => { model => 'x' },
        model_info => { id => 'm-1' } });
is $s, 400, 'an id is unique';
($s, $j) = $k->post('/model/new', { model_name => 'noprice', litellm_params => { model => 'zz/zz' } });
is $s, 200, 'a model without a price';
is +(registry())[1]{noprice}{noprice}, 1, 'says so in the registry';
($s, $j) = $k->post('/model/new', { model_name => 'gpt-4o', litellm_params => { model => 'gpt-4o',
        input_cost_per_token => 0, output_cost_per_token => 0 } });
is +(registry())[1]{'gpt-4o'}{free}, 1, 'the database wins by name';
my $over = $j->{model_id};
($s, $j) = $k->post('/model/new', { model_name => 'bad', litellm_params => { model => 'x',
        input_cost_per_token => -1 } });
is_deeply [ $s, $j->{error}{type} ], [ 400, 'auth_error' ], 'a negative price';
for my $b ({}, { model_name => 'a' }, { litellm_params => { model => 'x' } },
    { model_name => 'a', litellm_params => {} }) {
    ($s, $j) = $k->post('/model/new', $b);
    is $s, 422, 'model_name and litellm_params.model are needed';
}

for my $path ('/model/info', '/v1/model/info') {
    ($s, $j) = $k->get($path);
    is $s, 200, $path;
    my %m = map { $_->{model_name} => $_ } @{ $j->{data} };
    is_deeply [ $m{mine}{model_info}{id}, $m{mine}{model_info}{db_model},
        $m{mine}{litellm_params}{model} ], [ 'm-1', JSON::PP::true, 'openai/x-1' ], 'has it';
    unlike $k->raw, qr/api_key|sk-provider|kt1:|sk-in-the-config/, 'without secrets';
    like $k->raw, qr/"input_cost_per_token":0\.0000025[,}]/, 'prices as plain decimals';
}
($s, $j) = $k->get('/model/info?litellm_model_id=m-1');
is_deeply [ map { $_->{model_name} } @{ $j->{data} } ], ['mine'], 'one of them';
($s, $j) = $k->get('/model/info?litellm_model_id=nope');
is $s, 400, 'an unknown one';

for my $path ('/models', '/v1/models') {
    ($s, $j) = $k->get($path);
    is_deeply [ $s, $j->{object} ], [ 200, 'list' ], $path;
    my ($m) = grep { $_->{id} eq 'mine' } @{ $j->{data} };
    is_deeply $m, { id => 'mine', object => 'model', created => 1677610602, owned_by => 'openai' },
        'entries have LiteLLM\'s constants';
}
($s, $j) = $k->get('/models/mine');
is_deeply [ $s, $j->{id} ], [ 200, 'mine' ], 'one model';
$k->post('/model/new', { model_name => 'meta-llama/Llama-3.1-8B-Instruct', litellm_params => { model => 'vllm/x', input_cost_per_token => 0, output_cost_per_token => 0 }, model_info => {} });
($s, $j) = $k->get('/v1/models/meta-llama/Llama-3.1-8B-Instruct');
is_deeply [ $s, $j->{id} ], [ 200, 'meta-llama/Llama-3.1-8B-Instruct' ], 'with a slash in its name';
($s, $j) = $k->get('/models/nope');
is_deeply [ $s, $j ], [ 404, { detail => 'The model `nope` does not exist or is not accessible' } ],
    'an unknown one';
($s, $j) = $k->get('/models?scope=x');
is $s, 400, 'a wrong scope';

my $key = ($k->post('/key/generate', { models => ['mine'] }))[1]{key};
($s, $j) = $k->get('/models', key => $key);
is_deeply [ map { $_->{id} } @{ $j->{data} } ], ['mine'], 'a key sees its models';
($s) = $k->get('/models/gpt-4.1', key => $key);
is $s, 404, 'and no other';
$key = ($k->post('/key/generate', { models => ['claude-*'] }))[1]{key};
($s, $j) = $k->get('/models', key => $key);
ok @{ $j->{data} } > 5 && !(grep { $_->{id} !~ /^claude-/ } @{ $j->{data} }), 'a wildcard is expanded';
$k->post('/team/new', { team_id => 'tm', models => ['gpt-4.1'] });
$key = ($k->post('/key/generate', { team_id => 'tm' }))[1]{key};
($s, $j) = $k->get('/models', key => $key);
is_deeply [ map { $_->{id} } @{ $j->{data} } ], ['gpt-4.1'], 'an empty list is the team\'s';

($s, $j) = $k->post('/model/delete', { id => 'm-1' });
is_deeply [ $s, $j ], [ 200, { message => 'Model: m-1 deleted successfully' } ], 'delete';
ok !(registry())[1]{mine}, 'it left the registry';
($s, $j) = $k->post('/model/delete', { id => 'm-1' });
is_deeply [ $s, err(), $j->{error}{type} ],
    [ 400, "{'error': 'Model with id=m-1 not found in db'}", 'auth_error' ], 'twice';
$k->post('/model/delete', { id => $over });
is +(registry())[1]{'gpt-4o'}{in}, 2500000, 'the file\'s price is back';

is $k->sql("SELECT count(*) FROM audit WHERE audit::text LIKE '%sk-provider%'"), 0,
    'no provider key in the audit';
is $k->sql("SELECT count(*) FROM models WHERE models::text LIKE '%sk-provider%'"), 0,
    'nor in the models table';
unlike $k->redis('GET', 'kt:{0000}:reg'), qr/sk-/, 'nor in Redis';
unlike $k->logs, qr/sk-provider|sk-in-the-config/, 'nor in the log';

# half a price is none

for my $c ([ 'half-in', { input_cost_per_token => 1e-6 }, undef, 1 ],
    [ 'half-out', { output_cost_per_token => 1e-6 }, 'chat', 1 ],
    [ 'half-done', { input_cost_per_token => 1e-6 }, 'completion', 1 ],
    [ 'half-embed', { input_cost_per_token => 1e-6 }, 'embedding', undef ],
    [ 'half-wrong', { output_cost_per_token => 1e-6 }, 'embedding', 1 ]) {
    my ($name, $price, $mode, $none) = @$c;
    $k->post('/model/new', { model_name => $name, litellm_params => { model => 'zz/zz', %$price },
            model_info => { id => $name, $mode ? (mode => $mode) : () } });
    my $m = (registry())[1]{$name};
    is $m->{noprice}, $none, "$name: " . ($none ? 'no price' : 'priced');
    ok !$m->{free}, 'and not free';
    ok !exists $m->{out}, 'nor free of charge for its answer' if $none;
    $k->post('/model/delete', { id => $name });
}

# the other prices

is_deeply +(registry())[1]{'whisper-1'}, { n => 'whisper-1', p => 'openai', mode => 'audio_transcription', sec => 100000000 },
    'by the second';
is_deeply [ @{ +(registry())[1]{'claude-sonnet-4-5'} }{qw(cw1h tiers)} ], [ 6000000,
    [ { above => 200000, in => 6000000, out => 22500000, cr => 600000, cw => 7500000, cw1h => 12000000 } ] ], 'tiers';
$k->post('/model/new', { model_name => 'many', litellm_params => { model => 'zz/zz', input_cost_per_token => 1e-6,
        output_cost_per_token => 2e-6, input_cost_per_audio_token => 4e-5, output_cost_per_image_token => 3e-5,
        input_cost_per_token_priority => 2e-6, output_cost_per_token_batches => 1e-6, input_cost_per_query => 0.002,
        cache_read_input_token_cost_batches => 1e-7, cache_creation_input_token_cost_flex => 3e-7,
        input_cost_per_token_above_128k_tokens => 2e-6, output_cost_per_token_above_200k_tokens => 9e-6,
        input_cost_per_token_above_200k_tokens_priority => 4e-6, cache_read_input_token_cost_above_272k_tokens_flex => 2e-7,
        output_cost_per_token_above_272k_tokens_batches => 5e-6, cache_creation_input_token_cost_above_512k_tokens => 6e-6,
        search_context_cost_per_query => { search_context_size_medium => 0.01 } }, model_info => { id => 'many' } });
is_deeply +(registry())[1]{many}, { n => 'many', u => 'zz', p => 'zz', mode => 'chat', in => 1000000, out => 2000000,
    ai => 40000000, io => 30000000, pin => 2000000, bout => 1000000, bcr => 100000, fcw => 300000, qry => 2000000000, web => 10000000000,
    tiers => [ { above => 128000, in => 2000000 }, { above => 200000, out => 9000000, pin => 4000000 },
        { above => 272000, fcr => 200000, bout => 5000000 }, { above => 512000, cw => 6000000 } ] }, 'all of them, in pico-USD';
$k->post('/model/new', { model_name => 'many-alias', litellm_params => { model => 'openai/whisper-1' },
        model_info => { id => 'many-alias' } });
is +(registry())[1]{'many-alias'}{sec}, 100000000, 'a deployment inherits them';
$k->post('/model/new', { model_name => 'nearly-free', litellm_params => { model => 'zz/zz', input_cost_per_token => 0,
        output_cost_per_token => 0, input_cost_per_request => 0.01 }, model_info => { id => 'nearly-free' } });
ok !(registry())[1]{'nearly-free'}{free}, 'two zeros are not free beside a price per request';
for my $c ([ 'no-image', 'image_generation', { input_cost_per_second => 1 }, 1 ],
    [ 'image', 'image_generation', { output_cost_per_image => 1 }, undef ],
    [ 'no-speech', 'audio_speech', { input_cost_per_token => 1 }, 1 ],
    [ 'rank', 'rerank', { input_cost_per_query => 1 }, undef ]) {
    my ($name, $mode, $price, $none) = @$c;
    $k->post('/model/new', { model_name => $name, litellm_params => { model => 'zz/zz', %$price },
            model_info => { id => $name, mode => $mode } });
    is +(registry())[1]{$name}{noprice}, $none, "$name: " . ($none ? 'a price that does not fit is none' : 'priced');
}
$k->post('/model/delete', { id => $_ }) for qw(many many-alias nearly-free no-image image no-speech rank);

# import-prices

my $file = "$k->{dir}/prices.json";
open my $fh, '>', $file or die;
print $fh <<'END';
{"sample_spec": {"input_cost_per_token": 0.0, "max_tokens": "set to max"},
 "imp-1": {"input_cost_per_token": 2.5e-06, "output_cost_per_token": 1E-5,
   "cache_read_input_token_cost": 1.25e-06, "cache_creation_input_token_cost": 3.125e-06,
   "output_cost_per_reasoning_token": 0.00002, "max_tokens": 4096, "max_input_tokens": 128000,
   "litellm_provider": "openai", "mode": "chat"},
 "imp-free": {"input_cost_per_token": 0, "output_cost_per_token": 0.0, "litellm_provider": "x"},
 "imp-tiny": {"input_cost_per_token": 1e-12, "output_cost_per_token": 4e-13},
 "imp-none": {"max_tokens": 20, "litellm_provider": "openai"},
 "imp-image": {"input_cost_per_image": 0.02, "litellm_provider": "openai", "mode": "image_generation"},
 "imp-bad": {"input_cost_per_token": "cheap", "output_cost_per_token": 1},
 "gpt-4o": {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06, "litellm_provider": "openai"},
 "imp-half": {"input_cost_per_token": 1e-07, "mode": "embedding", "litellm_provider": "openai"}}
END
close $fh;
my ($rc, $out) = $k->run('import-prices', $file, '-c', "$k->{dir}/controld.yaml");
is $rc, 0, 'import-prices';
like $out, qr/8 models: 6 imported, 1 without a price, 1 with a value that is no price/,
    'reports counts';
like $out, qr/imp-none.*\n.*imp-bad|imp-bad.*\n.*imp-none/, 'and what it could not price';
ok $k->until(sub { (registry())[1]{'imp-1'} }), 'a running daemon publishes it';
(undef, $reg) = registry();
is_deeply $reg->{'imp-1'}, { n => 'imp-1', id => 'import:imp-1', p => 'openai', mode => 'chat', in => 2500000,
    out => 10000000, cr => 1250000, cw => 3125000, rs => 20000000, maxo => 4096, maxi => 128000 },
    'exact to the pico-USD';
is_deeply [ @{ $reg->{'imp-image'} }{qw(img noprice free)} ], [ 20000000000, undef, undef ], 'a price per image';
is $reg->{'imp-free'}{free}, 1, 'free';
is_deeply [ @{ $reg->{'imp-tiny'} }{qw(in out)} ], [ 1, 0 ], 'rounded below a pico-USD';
is_deeply [ @{ $reg->{'imp-half'} }{qw(in out)} ], [ 100000, undef ], 'one price is enough';
is $reg->{'gpt-4o'}{in}, 1000000, 'an imported price replaces the file\'s';
is $reg->{'from-config'}{in}, 150000, 'and leaves others alone';
($rc, $out) = $k->run('import-prices', $file, '-c', "$k->{dir}/controld.yaml");
is $k->sql("SELECT count(*) FROM models WHERE source = 'import'"), 6, 'again: no duplicates';
($rc, $out) = $k->run('import-prices', "$file.no", '-c', "$k->{dir}/controld.yaml");
is $rc, 1, 'a missing file fails';

done_testing;
