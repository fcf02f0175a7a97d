# Invariant 8: secrets are not there to leak.  Keys, the master key and the
# provider's key are looked for everywhere the stack writes.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;
use Keytoll::Stack;

my $s = Keytoll::Stack->up;
my $master = $s->{vars}{KEYTOLL_MASTER_KEY};
my $own = $s->admin(POST => '/key/generate', { max_budget => 1, metadata => { note => 'x' } })->{json}{key};
my $chosen = 'sk-caller-chosen-secret-0123456789';
is($s->admin(POST => '/key/generate', { key => $chosen })->{status}, 200, 'a caller-chosen key');
my $provider = 'sk-provider-secret-0123456789abcdef';
is($s->admin(POST => '/model/new', { model_name => 'sealed', litellm_params => { model => 'openai/gpt-4o-mini', api_key => $provider, input_cost_per_token => 0.000001, output_cost_per_token => 0.000002 }, model_info => {} })->{status},
    200, 'a model with a provider key');

# use them in every way that could be written down
for my $k ($own, $chosen) {
    is($s->chat($k)->{status}, 200, 'the key works');
    http_call($s->{port}, 'POST', "/v1/chat/completions?key=$k", [], chat_body());
    http_call($s->{port}, 'POST', '/v1/chat/completions', ['x-api-key', $k, 'Authorization', "Bearer ${k}x"], chat_body());
    http_call($s->{port}, 'POST', '/v1/chat/completions', ['x-api-key', $k], '{');
    $s->admin(POST => '/key/update', { key => $k, max_budget => 2 });
    $s->admin(POST => '/key/block', { key => $k });
    $s->chat($k);
    $s->admin(POST => '/key/unblock', { key => $k });
    http_call($s->{port}, 'POST', '/key/generate', ['Authorization', "Bearer $k", 'Content-Type', 'application/json'], '{}');
}
$s->admin(GET => '/key/list?return_full_object=true');
$s->admin(GET => '/model/info');
sleep 2;

my %where;
my $run = $s->{run};
for my $f (split /\n/, `find $run/log $run/journal $run/redis -type f`) { $where{$f} = slurp($f) }
$where{'PostgreSQL'} = `pg_dump "$s->{vars}{KEYTOLL_PG_URL}" 2>&1`;
like($where{PostgreSQL}, qr/CREATE TABLE/, 'the dump is a dump');
my $r = $s->redis;
$where{'Redis'} = join "\n", map { $_ . ($r->call('TYPE', $_) eq 'string' ? $r->call('GET', $_) : $r->call('DUMP', $_)) } @{ $r->call('KEYS', '*') };
$where{"argv of $_"} = slurp("/proc/$_/cmdline") for grep { $_ } map { $s->pid($_) } qw(redis postgres controld nginx mock);
$where{'metrics'} = join '', map { http_get($s->{port}, $_)->{body} } '/metrics', '/keytoll/metrics', '/keytoll/status', '/health/readiness';

for my $case (['a generated key', $own], ['a caller-chosen key', $chosen], ['the master key', $master], ['the provider key', $provider]) {
    my ($name, $secret) = @$case;
    my @found = grep { index($where{$_}, $secret) >= 0 } sort keys %where;
    is("@found", '', "$name is nowhere");
}
unlike($s->admin(GET => '/model/info')->{body}, qr/\Q$provider\E/, 'the provider key is not shown');
unlike($s->admin(GET => '/key/list?return_full_object=true')->{body}, qr/sk-kt1/, 'keys are shown once');
for my $f (glob("$run/master_key $run/env $run/gate.pass $run/controld.yaml $run/nginx.conf")) {
    is(sprintf('%o', (stat $f)[2] & 07777), '600', (split m{/}, $f)[-1] . ' is for its owner only');
}

$s->finish;
done_testing();
