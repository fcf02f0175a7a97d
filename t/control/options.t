# Options of keys besides limits: enforced_params, throttle_on_budget_exceeded and its
# percentage, budget_fallbacks: what is taken, who may give them, what Redis gets.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Digest::SHA qw(sha256_hex);
use Test::More;

my $k = Keytoll::Control->new(general => <<'END');
  enforced_params: [user, metadata.job]
  service_account_settings: {enforced_params: [seed]}
END
my ($s, $j);
my ($T, $F) = (JSON::PP::true, JSON::PP::false);
sub err { return $j->{error}{message} // $j->{detail}[0]{msg} // '' }
sub policy { return JSON::PP->new->utf8->decode($k->sql("SELECT policy FROM kt_policy WHERE name = '$_[0]'")) }
sub of { my $p = policy('key:' . sha256_hex($_[0])); return { map { exists $p->{$_} ? ($_ => $p->{$_}) : () } qw(params service throttle falls) } }
sub made { ($s, $j) = $k->post('/key/generate', {@_}); is $s, 200, 'a key' or diag $k->raw; return $j->{key} }
sub info { ($s, $j) = $k->get("/key/info?key=$_[0]"); return $j->{info} }

# what a key has

my %all = (enforced_params => [ 'user', 'a.b' ], rpm_limit => 10, throttle_on_budget_exceeded => $T, budget_exceeded_throttle_percentage => 30,
    budget_fallbacks => { 'gpt-4o' => [ 'gpt-4o-mini', 'o3' ] });
my $key = made(%all);
is_deeply [ @$j{qw(enforced_params throttle_on_budget_exceeded budget_exceeded_throttle_percentage)} ], [ [ 'user', 'a.b' ], $T, 30 ], 'the answer shows them';
is_deeply $j->{budget_fallbacks}, { 'gpt-4o' => [ 'gpt-4o-mini', 'o3' ] }, 'and the cheaper models';
is_deeply of($key), { params => [ 'user', 'a.b' ], throttle => 30, falls => { 'gpt-4o' => [ 'gpt-4o-mini', 'o3' ] } }, 'Redis gets them';
like $k->redis('GET', 'kt:{0000}:e:key:' . sha256_hex($key)), qr/params.*user/s, 'with the answer';
is_deeply [ @{ info($key)->{metadata} }{qw(enforced_params throttle_on_budget_exceeded)} ], [ [ 'user', 'a.b' ], $T ], 'they are in the metadata, as LiteLLM has them';
is_deeply info($key)->{budget_fallbacks}, $all{budget_fallbacks}, 'or beside them';
($s, $j) = $k->post('/key/generate', { metadata => { enforced_params => ['x'], throttle_on_budget_exceeded => $T }, tpm_limit => 5 });
is_deeply of($j->{key}), { params => ['x'], throttle => 50 }, 'sent in the metadata they are the same; half the rate where no percentage is named';

($s, $j) = $k->post('/key/update', { key => $key, enforced_params => ['seed'] });
is $s, 200, 'an update' or diag $k->raw;
is_deeply of($key), { params => ['seed'], throttle => 30, falls => $all{budget_fallbacks} }, 'changes one';
($s, $j) = $k->post('/key/bulk_update', { keys => [ { key => $key, budget_fallbacks => { o3 => ['mini'] }, budget_exceeded_throttle_percentage => 99 } ] });
is_deeply of($key), { params => ['seed'], throttle => 99, falls => { o3 => ['mini'] } }, 'many at once';
($s, $j) = $k->post("/key/$key/regenerate", { enforced_params => [ 'user', 'seed' ] });
is $s, 200, 'another secret' or diag $k->raw;
is_deeply of($j->{key}), { params => [ 'user', 'seed' ], throttle => 99, falls => { o3 => ['mini'] } }, 'has them too';
is_deeply of($key)->{params}, [ 'user', 'seed' ], 'and the key behind it';
$key = $j->{key};
($s, $j) = $k->post('/key/update', { key => $key, enforced_params => undef, throttle_on_budget_exceeded => $F, budget_fallbacks => {} });
is $s, 200, 'they go' or diag $k->raw;
is_deeply of($key), {}, 'all of them';

# what is not taken

my $plain = made();

for my $c (
    [ { enforced_params => 'user' }, qr/list/ ], [ { enforced_params => [1] }, qr/./ ], [ { enforced_params => [''] }, qr/./ ],
    [ { enforced_params => [ 'x' x 65 ] }, qr/1 to 64 bytes/ ], [ { enforced_params => ["a\tb"] }, qr/./ ], [ { enforced_params => ['.a'] }, qr/point/ ],
    [ { enforced_params => [ map { "p$_" } 1 .. 65 ] }, qr/at most 64/ ], [ { metadata => { enforced_params => { a => 1 } } }, qr/list/ ],
    [ { throttle_on_budget_exceeded => 'yes', rpm_limit => 1 }, qr/boolean/ ], [ { metadata => { throttle_on_budget_exceeded => 1 }, rpm_limit => 1 }, qr/boolean/ ],
    [ { throttle_on_budget_exceeded => $T }, qr/needs one of them/ ], [ { throttle_on_budget_exceeded => $T, rpm_limit => 1, budget_enforcement => 'strict' }, qr/strict/ ],
    (map { [ { throttle_on_budget_exceeded => $T, rpm_limit => 1, budget_exceeded_throttle_percentage => $_ }, qr/1 to 99/ ] } 0, 100, -1, 1.5, '50'),
    [ { budget_fallbacks => [] }, qr/dictionary/ ], [ { budget_fallbacks => { a => 'b' } }, qr/list of 1 to 8/ ], [ { budget_fallbacks => { a => [] } }, qr/list of 1 to 8/ ],
    [ { budget_fallbacks => { a => [1] } }, qr/a text/ ], [ { budget_fallbacks => { a => [ 'b', "c\n" ] } }, qr/a text/ ], [ { budget_fallbacks => { a => [ 1 .. 9 ] } }, qr/list of 1 to 8/ ],
    [ { budget_fallbacks => { '' => ['b'] } }, qr/a text/ ], [ { budget_fallbacks => { map { ("m$_" => ['b']) } 1 .. 65 } }, qr/at most 64/ ],
    ) {
    my $n = $k->sql('SELECT count(*) FROM keys');
    my $what = substr JSON::PP->new->canonical->encode($c->[0]), 0, 80;
    for my $at ([ '/key/generate', {} ], [ '/key/update', { key => $plain } ]) {
        ($s, $j) = $k->post($at->[0], { %{ $c->[0] }, %{ $at->[1] } });
        ok $s == 400 || $s == 422, "$at->[0] $what: $s";
        like $k->raw, $c->[1], 'says why' if $at->[0] eq '/key/generate';
    }
    is $k->sql('SELECT count(*) FROM keys'), $n, 'nothing was made';
}
is_deeply of($plain), {}, 'nothing was changed';
$key = made(%all);
($s, $j) = $k->post('/key/update', { key => $key, rpm_limit => undef });
is $s, 400, 'a rate that a throttled key needs stays';
like err(), qr/needs one of them/, 'and the answer says so';
($s, $j) = $k->post('/key/update', { key => $key, rpm_limit => undef, tpm_limit => 7 });
is $s, 200, 'another will do';
($s, $j) = $k->post('/key/update', { key => $key, budget_enforcement => 'strict' });
is $s, 400, 'a strict budget does not go with it';
($s, $j) = $k->post('/budget/new', { budget_id => 'rates', rpm_limit => 5 });
made(budget_id => 'rates', throttle_on_budget_exceeded => $T);

# who may give them: a user with keys of his own

$k->post('/user/new', { user_id => 'u', user_role => 'internal_user', auto_create_key => $F });
my $free = made(user_id => 'u');
my $bound = made(user_id => 'u', max_budget => 5, rpm_limit => 10, enforced_params => ['user'], models => [ 'a', 'b' ]);
my $slow = made(user_id => 'u', max_budget => 5, rpm_limit => 10, throttle_on_budget_exceeded => $T, budget_exceeded_throttle_percentage => 20);
for my $c (
    [ $bound, {}, 200, 'a key from one that has enforced_params' ],
    [ $bound, { enforced_params => [] }, 200, 'one whose body says nothing of them' ], [ $bound, { enforced_params => ['other'] }, 403, 'not with others' ],
    [ $bound, { metadata => { enforced_params => ['other'] } }, 403, 'not by the metadata' ],
    [ $bound, { throttle_on_budget_exceeded => $T }, 403, 'a spent budget refuses the next key too' ],
    [ $bound, { metadata => { throttle_on_budget_exceeded => $T } }, 403, 'also by the metadata' ],
    [ $bound, { throttle_on_budget_exceeded => undef, metadata => { throttle_on_budget_exceeded => $T } }, 403, 'or behind a null' ],
    [ $bound, { budget_fallbacks => { a => ['b'] } }, 200, 'models that it may use' ], [ $bound, { budget_fallbacks => { a => ['c'] } }, 403, 'no others' ],
    [ $bound, { budget_fallbacks => { c => ['a'] } }, 403, 'on no side' ],
    [ $slow, { throttle_on_budget_exceeded => $T, budget_exceeded_throttle_percentage => 20 }, 200, 'a throttled key gives what it has' ],
    [ $slow, { throttle_on_budget_exceeded => $T }, 403, 'no more' ], [ $slow, { throttle_on_budget_exceeded => $T, budget_exceeded_throttle_percentage => 21 }, 403, 'not by one' ],
    [ $free, { throttle_on_budget_exceeded => $T, rpm_limit => 3 }, 200, 'who has no budget gives it' ],
    ) {
    my ($by, $body, $want, $what) = @$c;
    ($s, $j) = $k->post('/key/generate', $body, key => $by);
    is $s, $want, $what or diag $k->raw;
    is_deeply of($j->{key})->{params}, ['user'], 'it has them as well' if $by eq $bound && $want == 200;
}
$k->post('/team/new', { team_id => 't', members_with_roles => [ { role => 'admin', user_id => 'u' } ] });
my $tk = made(user_id => 'u', team_id => 't', max_budget => 5, rpm_limit => 10, enforced_params => ['user']);
for my $c (
    [ { enforced_params => [] }, 403, 'an update does not shed them' ], [ { metadata => { x => 1 } }, 200, 'another metadata' ],
    [ { metadata => { enforced_params => [] } }, 403, 'not without them' ], [ { throttle_on_budget_exceeded => $T }, 403, 'nor a budget that refuses' ],
    [ { max_budget => 4 }, 200, 'what is no more' ],
    ) {
    my ($body, $want, $what) = @$c;
    ($s, $j) = $k->post('/key/update', { key => $tk, %$body }, key => $tk);
    is $s, $want, $what or diag $k->raw;
    is_deeply of($tk), { params => ['user'] }, 'they stay';
}
($s, $j) = $k->post("/key/$slow/regenerate", {}, key => $bound);
is $s, 403, 'the secret of a key that may do more';

# the whole proxy, service accounts

sub global { my $p = policy('global'); return [ @$p{qw(params sparams)} ] }
is_deeply global(), [ [ 'user', 'metadata.job' ], ['seed'] ], 'general_settings.enforced_params, service_account_settings';
like $k->redis('GET', 'kt:{0000}:e:global'), qr/sparams/, 'in Redis from the start';
($s, $j) = $k->post('/key/service-account/generate', { team_id => 't' });
is_deeply of($j->{key}), { service => $T }, 'a service account is known';
($s, $j) = $k->post('/config/field/update', { field_name => 'enforced_params', config_type => 'general_settings', field_value => [] });
is $s, 400, 'the API does not change what the file says';

my $conf = "$k->{dir}/controld.yaml";
my $text = $k->slurp($conf);
(my $less = $text) =~ s/^  enforced_params: .*\n//m or die;
open my $fh, '>', $conf or die; print $fh $less; close $fh;
CORE::kill('HUP', $k->{pid}{controld});
ok $k->until(sub { !defined global()->[0] }), 'SIGHUP';
is_deeply global(), [ undef, ['seed'] ], 'takes them away';

# a service account does not cease to be one

$k->sql("UPDATE keys SET metadata = '{\"service_account_id\": \"s\"}' WHERE token = '" . sha256_hex($tk) . "'");
for my $meta ({ a => 1 }, undef, { service_account_id => undef }) {
    ($s, $j) = $k->post('/key/update', { key => $tk, metadata => $meta }, key => $tk);
    is $s, 200, 'another metadata' or diag $k->raw;
    is of($tk)->{service}, $T, 'of a service account';
}

# names and models that can not be

for my $c ([ { enforced_params => [' '] }, qr/names of 1 to 64 bytes/ ], [ { enforced_params => ['a.b.c'] }, qr/names of 1 to 64 bytes/ ],
    [ { budget_fallbacks => { a => ['a'] } }, qr/can not stand in for itself/ ],
    [ { budget_fallbacks => { map { ("m$_" => [ 'x' x 200 ]) } 1 .. 30 } }, qr/at most 4096 bytes/ ],
    [ { aliases => { low => 'm1' }, budget_fallbacks => { m2 => ['low'] } }, qr/low is an alias of the key/ ],
    [ { aliases => { low => 'm1' }, budget_fallbacks => { low => ['m2'] } }, qr/low is an alias of the key/ ]) {
    ($s, $j) = $k->post('/key/generate', $c->[0]);
    is $s, 400, 'not ' . join ', ', keys %{ $c->[0] };
    like $k->raw, $c->[1], 'and why';
}
my $fell = ($k->post('/key/generate', { budget_fallbacks => { m2 => ['m1'] } }))[1]{key};
($s) = $k->post('/key/update', { key => $fell, aliases => { m1 => 'm3' } });
is $s, 400, 'nor an alias of that name later';

# a throttled key that has lost its rate can still be blocked, lowered, renamed and regenerated

$k->post('/budget/new', { budget_id => 'rated', max_budget => 1, rpm_limit => 10 });
my $lost = ($k->post('/key/generate', { budget_id => 'rated', throttle_on_budget_exceeded => $T }))[1]{key};
($s) = $k->post('/budget/update', { budget_id => 'rated', rpm_limit => undef });
is $s, 200, 'the plan loses its rate';
for my $c ({ key_alias => 'lost' }, { max_budget => 0 }, { duration => '1d' }, { blocked => $T }) {
    ($s) = $k->post('/key/update', { key => $lost, %$c });
    is $s, 200, 'update: ' . join ', ', keys %$c or diag $k->raw;
}
($s, $j) = $k->post('/key/regenerate', { key => $lost });
is $s, 200, 'regenerate' or diag $k->raw;
($s) = $k->post('/key/update', { key => $j->{key}, throttle_on_budget_exceeded => $T });
is $s, 400, 'but it is not given the option again';

# what came from elsewhere and is odd

$k->sql(q{UPDATE keys SET metadata = '{"enforced_params": ["a\\tb", "", null, 7], "throttle_on_budget_exceeded": true, "budget_exceeded_throttle_percentage": 1000}',
    extra = '{"budget_fallbacks": {"x": "y", "m": ["a", null, 5, "m"], "z": []}}' WHERE token = '} . sha256_hex($tk) . q{'});
is_deeply of($tk), { params => [ 'a?b', '7' ], throttle => 50, falls => { m => [ 'a', '5' ] } }, 'is made what the gate can read';

done_testing;
