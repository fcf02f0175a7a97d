# /key/* as litellm-api 0, 1 and 7 have it.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Digest::SHA qw(sha256_hex);
use Keytoll::Control;
use Test::More;

my $k = Keytoll::Control->new;
my ($s, $j, $h);

sub err { return $j->{error}{message} // '' }
sub has_null { my ($o, @names) = @_; return !grep { !exists $o->{$_} || defined $o->{$_} } @names }

# generate

($s, $j) = $k->post('/key/generate', {});
is $s, 200, 'an empty object makes a key';
like $j->{key}, qr/^sk-kt10000[0-9A-Za-z]{49}$/, 'of our form';
my $key = $j->{key};
is $j->{token}, sha256_hex($key), 'token is its SHA-256';
is $j->{token_id}, $j->{token}, 'token_id is the same';
is $j->{key_name}, 'sk-...' . substr($key, -4), 'key_name shows four characters';
ok has_null($j, qw(max_budget expires user_id team_id tpm_limit rpm_limit budget_duration
                   key_alias duration budget_id litellm_budget_table max_parallel_requests
                   soft_budget guardrails tags)), 'unset fields are there as null';
is_deeply [ map { $j->{$_} } qw(models aliases metadata permissions config model_max_budget) ],
    [ [], {}, {}, {}, {}, {} ], 'lists and objects are empty';
is $j->{spend}, 0, 'nothing is spent';
like $k->raw, qr/"spend":0\.0[,}]/, 'and zero is written 0.0';
is $j->{created_by}, 'default_user_id', 'the master key is default_user_id';
like $j->{created_at}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/, 'times are ISO with Z';

my %all = (
    key_alias => 'all-fields', duration => '1h', models => [ 'gpt-4o', 'openai/*' ],
    max_budget => 0.000000001, user_id => 'user one', team_id => 'team/1', spend => 1.25,
    max_parallel_requests => 3, metadata => { a => 1, nested => { b => [ 1, 2 ] } },
    tpm_limit => 1000, rpm_limit => 10, budget_duration => '30d',
    allowed_cache_controls => ['no-cache'], permissions => { get_spend_routes => JSON::PP::true },
    model_max_budget => { 'gpt-4o' => { budget_limit => 0.5, time_period => '1d' } },
    model_rpm_limit => { 'gpt-4o' => 5 }, aliases => { fast => 'gpt-4o' }, blocked => JSON::PP::false,
    tags => [ 'x', 'y' ], allowed_routes => ['/v1/chat/completions'],
    budget_limits => [ { budget_duration => '1d', max_budget => 2 } ],
    budget_enforcement => 'strict', project_id => 'p1', rpm_limit_type => 'guaranteed_throughput',
    unknown_field => 'is ignored',
);
($s, $j) = $k->post('/key/generate', \%all);
is $s, 200, 'every field at once';
is_deeply { map { $_ => $j->{$_} } qw(key_alias models user_id team_id max_parallel_requests
        tpm_limit rpm_limit budget_duration aliases tags allowed_routes duration) },
    { map { $_ => $all{$_} } qw(key_alias models user_id team_id max_parallel_requests
        tpm_limit rpm_limit budget_duration aliases tags allowed_routes duration) }, 'is echoed';
like $k->raw, qr/"max_budget":0\.000000001[,}]/, 'a nano-dollar survives';
is $j->{metadata}{nested}{b}[1], 2, 'metadata is an object';
is_deeply [ @{ $j->{metadata} }{qw(tags model_rpm_limit rpm_limit_type)} ],
    [ [ 'x', 'y' ], { 'gpt-4o' => 5 }, 'guaranteed_throughput' ], 'special fields move into metadata';
is $j->{spend}, 1.25, 'spend starts where it was told';
is $j->{budget_enforcement}, 'strict', 'budget_enforcement is shown';
like $j->{budget_reset_at}, qr/-01T00:00:00\.000000Z$/, '30d resets on the first of a month';
ok !exists $j->{unknown_field}, 'an unknown field is not kept';
my $full = $j;

($s, $j) = $k->get("/key/info?key=$full->{key}");
is $s, 200, 'info by the key';
is $j->{key}, $full->{key}, 'key is what was sent';
ok !exists $j->{info}{token}, 'info has no token';
is $j->{info}{spend}, 1.25, 'spend is the seed';
is $j->{info}{budget_limits}[0]{budget_duration}, '1d', 'windows are shown';
ok $j->{info}{budget_limits}[0]{reset_at}, 'with their reset time';
($s, $j) = $k->get("/key/info?key=$full->{token}");
is $s, 200, 'info by the hash';
is $k->sql("SELECT count(*) FROM users WHERE user_id = 'user one' AND implicit"), 1,
    'the unknown user got a row of its own';
is $k->sql("SELECT count(*) FROM memberships WHERE team_id = 'team/1' AND implicit"), 1,
    'and so did the membership';

# caller-chosen keys

my $own = 'sk-my-own-key_0123456789';
($s, $j) = $k->post('/key/generate', { key => $own, user_id => 'u' });
is $s, 200, 'a key of the caller';
is $j->{key}, $own, 'is taken';
($s, $j, $h) = $k->post('/key/generate', { key => $own, user_id => 'u' });
is $s, 200, 'the same again by the same owner';
is $h->{'x-keytoll-existing-key'}, 'true', 'is said to exist';
($s, $j) = $k->post('/key/generate', { key => $own, user_id => 'other' });
is $s, 400, 'by another owner it is refused';
like err(), qr/already exists/, 'in clear text';
unlike err(), qr/\Q$own/, 'without the key';
($s, $j) = $k->post('/key/generate', { key => 'pk-0123456789abcdefghij' });
is $s, 400, 'a key must begin with sk-';
is err(), "{'error': \"Invalid key format. LiteLLM Virtual Key must start with 'sk-'."
    . " Received: pk-0****ghij\"}", 'with the text clients know, as Python writes it';
is_deeply [ @{ $j->{error} }{qw(type param code)} ], [ 'internal_server_error', 'None', '400' ],
    'and the envelope';
($s, $j) = $k->post('/key/generate', { key => 'sk-short' });
is $s, 400, 'a short key is refused';
($s, $j) = $k->post('/key/generate', { key => $Keytoll::Control::MASTER });
is $s, 400, 'the master key is refused';
($s, $j) = $k->post('/key/generate', { key => 'sk-kt1' . 'a' x 53 });
is $s, 400, 'a forged own form is refused';

# bad input

for my $c (
    [ { max_budget => -1 }, 400, qr/max_budget cannot be negative\. Received: -1\.0/ ],
    [ { soft_budget => -0.5 }, 400, qr/soft_budget cannot be negative\. Received: -0\.5/ ],
    [ { duration => '10x' }, 400, qr/Unsupported duration unit, passed duration: 10x/ ],
    [ { duration => 'x' }, 400, qr/Invalid duration format/ ],
    [ { budget_duration => '2mo' }, 400, qr/Unsupported budget_duration/ ],
    [ { budget_duration => '0d' }, 400, qr/Unsupported budget_duration/ ],
    [ { user_id => "a\nb" }, 400, qr/user_id/ ],
    [ { user_id => 'x' x 256 }, 400, qr/user_id/ ],
    [ { team_id => '' }, 400, qr/team_id/ ],
    [ { organization_id => 'nope' }, 400, qr/Organization not found for organization_id=nope/ ],
    [ { budget_id => 'nope' }, 400, qr/Budget not found/ ],
    [ { max_budget => '1e30' }, 400, qr/out of range/ ],
    [ { rpm_limit => -1 }, 400, qr/rpm_limit cannot be negative/ ],
    [ { model_max_budget => { m => { budget_limit => -1 } } }, 400, qr/Invalid model_max_budget/ ],
    [ { model_rpm_limit => { m => 'x' } }, 400, qr/Invalid model_rpm_limit/ ],
    [ { budget_limits => [ { budget_duration => 'x', max_budget => 1 } ] }, 400, qr/Invalid budget_limits/ ],
    ) {
    my ($body, $status, $re) = @$c;
    ($s, $j) = $k->post('/key/generate', $body);
    is $s, $status, Keytoll::Control->can('new') && JSON::PP->new->canonical->encode($body)
        =~ s/x{40,}/x../r;
    like err(), $re, 'says why';
}
for my $c (
    [ '{"max_budget":"abc"}', 'float_parsing', 'max_budget' ],
    [ '{"max_budget":[]}', 'float_type', 'max_budget' ],
    [ '{"rpm_limit":1.5}', 'int_from_float', 'rpm_limit' ],
    [ '{"rpm_limit":"x"}', 'int_parsing', 'rpm_limit' ],
    [ '{"models":"gpt"}', 'list_type', 'models' ],
    [ '{"models":[1]}', 'string_type', 'models' ],
    [ '{"metadata":[]}', 'dict_type', 'metadata' ],
    [ '{"blocked":"maybe"}', 'bool_type', 'blocked' ],
    [ '{"budget_enforcement":"lax"}', 'enum', 'budget_enforcement' ],
    [ '{"key_type":"x"}', 'enum', 'key_type' ],
    ) {
    ($s, $j) = $k->post('/key/generate', $c->[0]);
    is $s, 422, "$c->[0] is 422";
    is_deeply [ $j->{detail}[0]{type}, $j->{detail}[0]{loc} ], [ $c->[1], [ 'body', $c->[2] ] ],
        "$c->[1]";
}
($s, $j) = $k->post('/key/generate', '{"a":');
is_deeply [ $s, $j->{detail}[0]{type} ], [ 422, 'json_invalid' ], 'broken JSON';
($s, $j) = $k->post('/key/generate', '[]');
is $s, 422, 'an array is no body';
($s, $j) = $k->post('/key/generate', '');
is_deeply [ $s, $j->{detail}[0]{type} ], [ 422, 'missing' ], 'no body at all';
($s, $j) = $k->post('/key/generate', '{"user_id":"a","user_id":"b"}');
is $s, 400, 'a duplicate name is refused';
($s, $j) = $k->post('/key/generate', '{"user_id":"a\u0000b"}');
is $s, 400, 'NUL is refused';
($s, $j) = $k->post('/key/generate', '{"a":' . '[' x 70 . ']' x 70 . '}');
is $s, 400, 'deep nesting is refused';
($s, $j) = $k->post('/key/generate', '{"a":"' . 'x' x (1024 * 1024) . '"}');
is $s, 413, 'a body over 1 MB is refused';
($s, $j) = $k->post('/key/generate', { max_budget => '' });
is_deeply [ $s, $j->{max_budget} ], [ 200, undef ], 'an empty budget is null';
($s, $j) = $k->post('/key/generate', '{"rpm_limit":5.0,"max_budget":"2.5"}');
is_deeply [ $s, $j->{rpm_limit}, $j->{max_budget} ], [ 200, 5, 2.5 ], 'numbers as clients send them';
($s, $j) = $k->post('/key/generate', { key_alias => 'all-fields' });
is_deeply [ $s, @{ $j->{error} }{qw(type param)}, err() ], [ 400, 'bad_request_error', 'key_alias',
    "Key with alias 'all-fields' already exists. Unique key aliases across all keys are required." ],
    'an alias is unique';

($s, $j) = $k->post('/key/generate', { key_type => 'llm_api' });
is_deeply $j->{allowed_routes}, ['llm_api_routes'], 'key_type sets the routes';
($s, $j) = $k->post('/key/generate', { soft_budget => 2 });
is $j->{litellm_budget_table}{soft_budget}, 2, 'a soft budget makes a budgets row';
ok $j->{budget_id}, 'and links it';

# update: absent, null, replaced

($s, $j) = $k->post('/key/update', { key => $full->{key}, rpm_limit => 11 });
is $s, 200, 'update';
is $j->{key}, $full->{key}, 'key is what was sent';
is_deeply [ @$j{qw(rpm_limit tpm_limit key_alias)} ], [ 11, 1000, 'all-fields' ],
    'absent fields stay';
is $j->{metadata}{a}, 1, 'absent metadata stays';
($s, $j) = $k->post('/key/update', { key => $full->{key}, tags => ['z'] });
is_deeply [ $j->{metadata}{tags}, $j->{metadata}{a} ], [ ['z'], 1 ], 'special fields are merged';
($s, $j) = $k->post('/key/update', { key => $full->{token}, metadata => { new => 1 } });
is_deeply $j->{metadata}, { new => 1 }, 'metadata that was sent replaces';
($s, $j) = $k->post('/key/update', { key => $full->{key}, max_budget => undef, team_id => undef,
        models => undef, tpm_limit => undef, budget_duration => undef, duration => '-1' });
is_deeply [ @$j{qw(max_budget team_id models tpm_limit budget_duration budget_reset_at expires)} ],
    [ undef, undef, [], undef, undef, undef, undef ], 'null clears';
is $j->{spend}, 1.25, 'spend stays';
($s, $j) = $k->post('/key/update', { key => $full->{key}, spend => 0.5 });
is $j->{spend}, 0.5, 'spend may be set';
ok $k->until(sub { $k->sql("SELECT sum(used_nusd) FROM meters WHERE ent = 'key:$full->{token}'")
            eq '500000000' }), 'PostgreSQL follows through the ledger';
($s, $j) = $k->post('/key/update', { key => 'sk-unknown-000000000000000' });
is_deeply [ $s, $j->{error}{type}, err() ],
    [ 404, 'auth_error', "{'error': 'Team not found, passed team_id=None'}" ], 'an unknown key';
($s, $j) = $k->post('/key/update', { key => $full->{key}, max_budget => -1 });
is_deeply [ $s, $j->{error}{type} ], [ 400, 'auth_error' ], 'errors are of type auth_error';
($s, $j) = $k->post('/key/update', { rpm_limit => 1 });
is $s, 422, 'a key is needed';
($s, $j) = $k->post('/key/update', { key_alias => 'all-fields', rpm_limit => 12 });
is_deeply [ $s, $j->{rpm_limit} ], [ 200, 12 ], 'or its alias';
($s, $j) = $k->post('/key/update', { key => $full->{key}, temp_budget_increase => 1 });
is $s, 422, 'temp_budget_increase needs its expiry';

# block, unblock

($s, $j) = $k->post('/key/block', { key => $full->{key} });
is_deeply [ $s, $j->{blocked}, $j->{token} ], [ 200, JSON::PP::true, $full->{token} ], 'block';
($s, $j) = $k->post('/key/unblock', { key => $full->{token} });
is_deeply [ $s, $j->{blocked} ], [ 200, JSON::PP::false ], 'unblock by hash';
($s, $j) = $k->post('/key/block', { key => 'no key' });
is_deeply [ $s, err(), @{ $j->{error} }{qw(type param)} ],
    [ 400, 'Invalid key format.', 'bad_request_error', 'key' ], 'a malformed key';
($s, $j) = $k->post('/key/block', { key => '0' x 64 });
is $s, 404, 'an unknown key';

# list

for (1 .. 3) { $k->post('/key/generate', { user_id => 'lister' }) }
($s, $j) = $k->get('/key/list?user_id=lister&size=2');
is_deeply [ $s, scalar @{ $j->{keys} }, @$j{qw(total_count current_page total_pages)} ],
    [ 200, 2, 3, 1, 2 ], 'pages';
like $j->{keys}[0], qr/^[0-9a-f]{64}$/, 'of hashes';
($s, $j) = $k->get('/key/list?user_id=lister&size=2&page=2&return_full_object=true');
is_deeply [ scalar @{ $j->{keys} }, $j->{keys}[0]{user_id} ], [ 1, 'lister' ], 'or of objects';
($s, $j) = $k->get('/key/list?sort_by=drop');
is $s, 400, 'sort_by is a closed set';
like err(), qr/^Invalid sort column/, 'and says so';
($s, $j) = $k->get('/key/list?size=101');
is $s, 422, 'at most 100 a page';
($s, $j) = $k->get('/key/list?status=x');
is $s, 400, 'status is deleted or nothing';
($s, $j) = $k->get('/key/list?key_alias=all-fields');
is_deeply $j->{keys}, [ $full->{token} ], 'by alias';
for my $by (qw(spend max_budget created_at updated_at token key_alias)) {
    ($s) = $k->get("/key/list?sort_by=$by&sort_order=asc");
    is $s, 200, "sorted by $by";
}

# delete

($s, $j) = $k->post('/key/delete', { keys => [ $full->{key}, 'unknown' ] });
is_deeply [ $s, $j ], [ 200, { deleted_keys => [ $full->{key}, 'unknown' ] } ], 'delete echoes';
($s, $j) = $k->get("/key/info?key=$full->{token}");
is_deeply [ $s, err(), @{ $j->{error} }{qw(type param code)} ],
    [ 404, 'Key not found in database', 'not_found_error', 'key', '404' ], 'it is gone';
($s, $j) = $k->get('/key/list?status=deleted&return_full_object=true');
is_deeply [ $j->{total_count}, $j->{keys}[0]{token}, $j->{keys}[0]{spend} ],
    [ 1, $full->{token}, 0.5 ], 'and archived with its spend';
ok $j->{keys}[0]{deleted_at}, 'and its time';
is $k->sql("SELECT count(*) FROM submeters WHERE owner = 'key:$full->{token}'"), 0,
    'its submeters are gone';
($s, $j) = $k->post('/key/delete', { keys => ['unknown'] });
is_deeply [ $s, err() ], [ 404, "{'error': 'No keys found'}" ], 'nothing matched';
($s, $j) = $k->post('/key/delete', {});
is $s, 422, 'keys or key_aliases';
$k->post('/key/generate', { key_alias => 'bye' });
($s, $j) = $k->post('/key/delete', { key_aliases => ['bye'] });
is_deeply [ $s, $j ], [ 200, { deleted_keys => ['bye'] } ], 'by alias';

# callers

for my $name ('x-litellm-api-key', 'api-key', 'x-api-key', 'x-goog-api-key',
    'Ocp-Apim-Subscription-Key') {
    ($s) = $k->get('/key/list', key => undef, headers => { $name => $Keytoll::Control::MASTER });
    is $s, 200, "the key in $name";
}
($s, $j) = $k->get('/key/list', key => undef);
is_deeply [ $s, err(), @{ $j->{error} }{qw(type param code)} ],
    [ 401, 'Authentication Error, No api key passed in.', 'auth_error', 'None', '401' ], 'no key';
($s, $j) = $k->get('/key/list', key => undef, headers => { Authorization => 'sk-x' });
like err(), qr/Malformed API Key/, 'Authorization without Bearer';
($s, $j) = $k->get('/key/list', key => 'pk-1');
like err(), qr/Virtual Key expected/, 'no sk-';
($s, $j) = $k->get('/key/list', key => 'sk-forged-000000000000');
is_deeply [ $s, @{ $j->{error} }{qw(type param)} ], [ 401, 'token_not_found_in_db', 'key' ],
    'an unknown key';
($s, $j) = $k->get('/key/list', headers => { 'x-api-key' => 'sk-other-000000000000' });
is $s, 400, 'two different keys';
($s, $j) = $k->get('/key/list', key => $key);
is $s, 403, 'a key that belongs to nobody lists none';
($s, $j) = $k->post('/key/generate', {}, key => $key);
is $s, 401, 'a virtual key is no admin';
like err(), qr/^Authentication Error, Only proxy admin can be used to generate, delete, update info for new keys\/users\/teams\. Route=\/key\/generate\. Your role=None\. Your user_id=/,
    'with the text clients know';
($s, $j) = $k->get('/key/info', key => $key);
is_deeply [ $s, $j->{key} ], [ 200, sha256_hex($key) ], 'it may see itself';
($s, $j) = $k->get("/key/info?key=$own", key => $key);
is $s, 403, 'and nobody else';
($s) = $k->get('/models', key => $key);
is $s, 200, 'and the models';
$k->post('/key/block', { key => $key });
($s, $j) = $k->get('/models', key => $key);
is_deeply [ $s, err() ], [ 401, 'Authentication Error, Key is blocked. Update via `/key/unblock`'
        . " if you're admin." ], 'until it is blocked';
($s, $j) = $k->post('/key/generate', { duration => '1s' });
my $short = $j->{key};
ok $k->until(sub { ($k->get('/models', key => $short))[0] == 401 }), 'or expires';

# others

is_deeply [ ($k->get('/nope'))[0, 1] ], [ 404, { detail => 'Not Found' } ], 'an unknown route';
is_deeply [ ($k->get('/key/generate'))[0, 1] ], [ 405, { detail => 'Method Not Allowed' } ],
    'a wrong verb';
($s, $j) = $k->get('/key/info?key=%00');
isnt $s, 200, 'NUL in a query';
is_deeply [ ($k->get('/health/liveliness', key => undef))[0, 1] ], [ 200, "I'm alive!" ], 'alive';
($s, $j) = $k->get('/health/readiness', key => undef);
is_deeply [ $s, @$j{qw(status db cache)} ], [ 200, 'healthy', 'connected', 'redis' ], 'ready';
($s) = $k->get('/metrics', key => undef);
like $k->raw, qr/^keytoll_ledger_duplicates_total 0$/m, 'metrics';

cmp_ok $k->sql('SELECT count(*) FROM audit'), '>', 20, 'mutations left audit rows';
is $k->sql('SELECT count(*) FROM outbox'), 0, 'the outbox is empty';
for my $secret ($key, $own, $full->{key}, $Keytoll::Control::MASTER) {
    unlike $k->logs, qr/\Q$secret/, 'no key in the log';
    is $k->sql("SELECT count(*) FROM audit WHERE audit::text LIKE '%$secret%'"), 0,
        'nor in the audit';
}

# names are short and plain

for my $f ([ '/key/generate', 'key_alias' ], [ '/key/generate', 'tags' ], [ '/team/new', 'team_alias' ],
    [ '/team/new', 'tags' ], [ '/user/new', 'user_alias' ], [ '/user/new', 'user_email' ],
    [ '/model/new', 'model_name' ]) {
    my ($path, $name) = @$f;
    for my $bad ('x' x 256, "a\nb", "\x{fc}" x 128, "a\x7f", "\x{85}") {
        my $v = $name eq 'tags' ? [ 'fine', $bad ] : $bad;
        ($s, $j) = $k->post($path, { litellm_params => { model => 'x' }, $name => $v });
        $s == 400 && $j->{error}{message} =~ /^\Q$name\E must be .*255 bytes without control characters$/
            or fail "$path $name: $s " . $k->raw;
    }
    my $good = $name eq 'user_email' ? 'e' x 255 : "\x{fc}" x 127 . 'x';
    ($s, $j) = $k->post($path, { litellm_params => { model => 'x' },
            $name => $name eq 'tags' ? [$good] : $good });
    is $s, 200, "$path: $name of 255 bytes" or diag $k->raw;
}
($s, $j) = $k->post('/key/generate', { metadata => { tags => [ 'x' x 256 ] } });
is $s, 400, 'tags within metadata too';
is $k->sql("UPDATE keys SET key_alias = repeat('x', 256)") . $k->slurp("$k->{dir}/psql.out.err") =~ /keys_key_alias_check/,
    1, 'the database keeps it so';

done_testing;
