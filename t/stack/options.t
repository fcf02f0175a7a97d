# Options of keys through the whole product: set by the admin API, bound by nginx with the
# answer, seen in the ledger.

use strict;
use warnings;
use Test::More;
use File::Temp qw(tempdir);
use Keytoll::Test;
use Keytoll::Stack;

my $conf = tempdir('ktcXXXXXX', TMPDIR => 1, CLEANUP => 1);
chmod 0755, $conf;
my $yaml = slurp("$Keytoll::Test::TOP/config/controld.yaml");
$yaml =~ s/^general_settings:\n/general_settings:\n  service_account_settings: {enforced_params: [metadata.job]}\n/m or die;
Keytoll::Test::spew("$conf/controld.yaml", $yaml);
my $s = Keytoll::Stack->up(KEYTOLL_CONFIG => "$conf/controld.yaml");
my $T = JSON::PP::true;

sub ok_post {
    my ($path, $body) = @_;
    my $r = $s->admin('POST', $path, $body);
    is($r->{status}, 200, $path) or diag $r->{raw};
    return $r->{json};
}
sub key { return ok_post('/key/generate', {@_})->{key} }
sub chat {
    my ($key, %more) = @_;
    return http_call($s->{port}, 'POST', '/v1/chat/completions', ['Authorization', "Bearer $key", 'Content-Type', 'application/json', 'x-mock-completion-tokens', 10],
        $Keytoll::Test::JSON->encode({ model => 'dear', max_tokens => 10, messages => [{ role => 'user', content => 'hi' }], %more }));
}
sub says { my $r = shift; return $r->{status} . ' ' . ($r->{headers}{'x-keytoll-reason'} // '') }
sub info { return $s->admin(GET => "/key/info?key=$_[0]")->{json}{info} }
sub logs { my $r = $s->admin(GET => '/spend/logs?api_key=' . token($_[0])); return ref $r->{json} eq 'ARRAY' ? @{ $r->{json} } : () }

# 10 tokens: 0.001 and 0.00001 USD
for my $m ([dear => 0.0001], [cheap => 0.000001], [third => 0.000001]) {
    ok_post('/model/new', { model_name => $m->[0], litellm_params => { model => "openai/$m->[0]", input_cost_per_token => 0, output_cost_per_token => $m->[1] }, model_info => { max_output_tokens => 1000 } });
}

# what every body must have

my $key = key(enforced_params => ['user']);
is(says(chat($key)), '400 param_missing', 'without it');
is(says(chat($key, user => 'x')), '200 ', 'with it');
ok_post('/key/update', { key => $key, enforced_params => ['seed'] });
is(says(chat($key, user => 'x')), '400 param_missing', 'another, with the answer');
is(says(chat($key, seed => 1)), '200 ', 'which it has');
my $new = ok_post("/key/$key/regenerate", { grace_period => '1h' })->{key};
is(says(chat($_)), '400 param_missing', 'both secrets of a regenerated key ask for it') for $key, $new;
ok_post('/key/update', { key => $new, enforced_params => [] });
is(says(chat($_)), '200 ', 'and for nothing more') for $key, $new;
ok_post('/team/new', { team_id => 'svc' });
my $service = ok_post('/key/service-account/generate', { team_id => 'svc' })->{key};
is(says(chat($service)), '400 param_missing', 'service accounts are asked for what the file says');
is(says(chat($service, metadata => { job => 7 })), '200 ', 'which they have');
is(says(chat(key(team_id => 'svc'))), '200 ', 'other keys are not');
is(says(chat($s->{vars}{KEYTOLL_MASTER_KEY})), '200 ', 'nor is the master key');

# a lower rate in place of a spent budget

$key = key(max_budget => 0.002, rpm_limit => 10, throttle_on_budget_exceeded => $T, budget_exceeded_throttle_percentage => 50);
is(says(chat($key)), '200 ', 'while there is money') for 1, 2;
eventually { info($key)->{spend} >= 0.002 } 10;
is_deeply([map { says(chat($key)) } 1 .. 5], [('200 ') x 3, ('429 rpm_exceeded') x 2], 'then half of the rate, with what was used of it');
eventually { info($key)->{spend} >= 0.005 } 10;
is(sprintf('%.3f', info($key)->{spend}), '0.005', 'all of it is counted');
ok_post('/key/update', { key => $key, max_budget => 1 });
is_deeply([map { says(chat($key)) } 1 .. 6], [('200 ') x 5, '429 rpm_exceeded'], 'more money gives the whole rate, with the answer');
ok_post('/key/update', { key => $key, max_budget => 0.001, throttle_on_budget_exceeded => undef });
is(says(chat($key)), '422 budget_exceeded', 'without the option it is refused, with the answer');

# cheaper models

$key = key(model_max_budget => { dear => { budget_limit => 0.001, time_period => '1d' } }, budget_fallbacks => { dear => [qw(unheard-of cheap third)] });
is(chat($key)->{json}{model}, 'dear', 'while there is money');
my $r;
eventually { $r = chat($key, max_tokens => 10); $r->{status} == 200 && $r->{json}{model} eq 'cheap' } 10;
is($r->{json}{model}, 'cheap', 'then the first of the others that is there') or diag $r->{raw};
ok_post('/key/update', { key => $key, models => [qw(dear third)] });
is(chat($key)->{json}{model}, 'third', 'and that the key may use');
ok_post('/key/update', { key => $key, budget_fallbacks => {} });
is(says(chat($key)), '422 budget_exceeded', 'without them the budget refuses');
eventually { grep { $_->{model_group} eq 'third' } logs($key) } 15;
my %sum;
$sum{ $_->{model_group} } += $_->{spend} for logs($key);
is_deeply([sort keys %sum], [qw(cheap dear third)], 'the ledger has the models that were asked for');
is(sprintf('%.5f', $sum{third}), '0.00001', 'at their price');
$key = key(max_budget => 0.0015, budget_enforcement => 'strict', budget_fallbacks => { dear => ['cheap'] });
chat($key);
is(chat($key)->{json}{model}, 'cheap', 'what a strict budget has left goes to a model that fits');

$s->finish;
done_testing();
