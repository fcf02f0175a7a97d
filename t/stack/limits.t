# Limits set through the admin API, hit by everybody at once over two nginx.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;
use Keytoll::Stack;

my $s = Keytoll::Stack->up;
my @ports = ($s->{port}, $s->another_nginx);

sub key {
    my $r = $s->admin(POST => '/key/generate', {@_});
    is($r->{status}, 200, 'a key') or diag $r->{raw};
    return $r->{json}{key};
}

sub burst {
    my ($key, $n, $body, @headers) = @_;
    my @r = http_burst(\@ports, [map { ['POST', '/v1/chat/completions', ['Authorization', "Bearer $key", 'Content-Type', 'application/json', @headers], $body] } 1 .. $n]);
    my %by;
    $by{ $_->{status} }++ for @r;
    return (\%by, @r);
}

# rpm_limit 7, 200 calls at once

my ($by, @r) = burst(key(rpm_limit => 7), 200, chat_body());
is_deeply($by, { 200 => 7, 429 => 193 }, 'rpm_limit 7: exactly 7 of 200');
my ($no) = grep { $_->{status} == 429 } @r;
is($no->{headers}{'x-keytoll-reason'}, 'rpm_exceeded', 'the reason');
my $wait = $no->{headers}{'retry-after'};
cmp_ok($wait, '>=', 50, 'retry-after');
cmp_ok($wait, '<=', 61, '... is the rest of the window');

# a strict key worth k calls: 10 tokens of 2 micro-dollars each

my $made = $s->admin(POST => '/model/new', { model_name => 'flat', litellm_params => { model => 'openai/flat', input_cost_per_token => 0, output_cost_per_token => 0.000002 },
    model_info => { max_output_tokens => 1000 } });
is($made->{status}, 200, 'a model whose input is free') or diag $made->{raw};
for my $k (1, 23, 64) {
    my $key = key(max_budget => $k * 0.00002, budget_enforcement => 'strict');
    my ($sum, %seen) = (0);
    for my $round (1 .. 3) {            # a hold that ends may let a later call in
        ($by) = burst($key, 100, chat_body(model => 'flat', max_tokens => 10), 'x-mock-completion-tokens', 10, 'x-mock-delay-ms', 20);
        $sum += $by->{200} // 0;
        $seen{$_} += $by->{$_} for keys %$by;
        my $state = $s->redis->fcall('kt_state', 'key:' . token($key))->[0];
        cmp_ok($state->[1] + $state->[2], '<=', $k * 20000, "k = $k: used + held is within the limit");
    }
    is($sum, $k, "k = $k: exactly $k of 300 calls succeed, 100 at a time");
    is($seen{200} + ($seen{429} // 0) + $seen{422}, 300, "k = $k: the others are 429 while it is held, 422 when it is spent");
    soon { abs($s->admin(GET => "/key/info?key=$key")->{json}{info}{spend} - $k * 0.00002) < 1e-12 } 15, "k = $k: the key's spend is its budget";
}

$s->finish;
done_testing();
