# "keytoll_clamp_max_tokens on": where a strict budget has less left than the
# cap of the answer may cost, the provider reads a cap that fits.

use strict;
use warnings;
use POSIX ();
use Test::More;
use Keytoll::Test;

my $T = JSON::PP::true;
my $g = Keytoll::Test->gate(more => 'location /clamp/ { keytoll_clamp_max_tokens on; proxy_pass http://mock/; }');

sub ask {
    my ($key, $path, $body) = @_;
    my $r = http_call($g->{port}[0], 'POST', $path, ['Authorization', "Bearer $key", 'x-mock-prompt-tokens', 5, 'x-mock-completion-tokens', 5], $Keytoll::Test::JSON->encode($body));
    $g->settled;
    return $r;
}
sub ask_now { my ($key, $body) = @_; return http_call($g->{port}[0], 'POST', '/clamp/v1/chat/completions', ['Authorization', "Bearer $key"], $Keytoll::Test::JSON->encode($body)) }
sub read_body { return json(http_get($g->{mock_port}, '/__body')->{body}) }
my @hello = (model => 'out-only', messages => [{ role => 'user', content => 'hello' }]);

my $key = $g->key(strict => $T, limit => 100_000);            # 100 tokens at 1,000 nano-USD
my $r = ask($key, '/v1/chat/completions', { @hello, max_tokens => 5000 });
is($r->{headers}{'x-keytoll-reason'}, 'budget_exceeded', 'off: more than is left is refused');
$r = ask($key, '/clamp/v1/chat/completions', { @hello, max_tokens => 5000 });
is($r->{status}, 200, 'on: it passes');
is($r->{headers}{'x-keytoll-max-tokens'}, 100, 'and says with how many tokens');
is(read_body()->{max_tokens}, 100, 'which is what the provider reads');
is($g->state($key)->{used}, 5000, 'it pays what was used');

$r = ask($key, '/clamp/v1/chat/completions', { @hello, max_tokens => 5000, max_completion_tokens => 7000, n => 1 });
is($r->{status}, 200, 'two caps');
is_deeply([@{ read_body() }{qw(max_tokens max_completion_tokens)}], [95, 95], 'both are lowered');
for my $c (['no cap', {}], ['null', { max_tokens => undef }], ['a cap of another dialect', { max_output_tokens => 50 }]) {
    my ($what, $cap) = @$c;
    $r = ask($key, '/clamp/v1/chat/completions', { @hello, %$cap });
    is($r->{headers}{'x-keytoll-reason'}, 'budget_exceeded', "$what: there is nothing to lower");
}
$r = ask($key, '/clamp/v1/chat/completions', { @hello, max_tokens => 20, max_completion_tokens => 7000 });
is_deeply([@{ read_body() }{qw(max_tokens max_completion_tokens)}], [20, 90], 'the lower of two stays');
$r = ask($key, '/clamp/v1/chat/completions', { @hello, max_tokens => 40, n => 3 });
is(read_body()->{max_tokens}, 28, 'each of three answers has its share');
$r = ask($key, '/clamp/v1/chat/completions', { @hello, max_tokens => 20 });
is(read_body()->{max_tokens}, 20, 'one that fits stays');
ok(!exists $r->{headers}{'x-keytoll-max-tokens'}, 'and nothing is said');
$r = ask($key, '/clamp/v1/chat/completions', { @hello, max_tokens => 5000, stream => $T });
is($r->{status}, 200, 'a stream');
ok(read_body()->{max_tokens} < 90 && read_body()->{stream_options}{include_usage}, 'with both edits');

my $small = $g->key(strict => $T, limit => 15_000);
$r = ask($small, '/clamp/v1/chat/completions', { @hello, max_tokens => 500 });
is($r->{headers}{'x-keytoll-reason'}, 'budget_exceeded', 'fifteen tokens are no answer');
is($g->state($small)->{held}, 0, 'nothing is held');

$g->policy('team:c' => { strict => $T, limit => 40_000 });
my $two = $g->key(strict => $T, limit => 90_000, refs => ['team:c', 'global']);
$r = ask($two, '/clamp/v1/chat/completions', { @hello, max_tokens => 5000 });
is($r->{headers}{'x-keytoll-max-tokens'}, 40, 'the tightest level decides');

my $last = $g->key(limit => 100_000);
$r = ask($last, '/clamp/v1/chat/completions', { @hello, max_tokens => 5000 });
is(read_body()->{max_tokens}, 5000, 'a last_call budget lowers nothing');

sub running { # a last call that runs
    my $k = shift;
    my $pid = fork // die;
    if (!$pid) {
        http_call($g->{port}[0], 'POST', '/clamp/v1/chat/completions', ['Authorization', "Bearer $k", 'x-mock-delay-ms', 600, 'x-mock-prompt-tokens', 1, 'x-mock-completion-tokens', 1],
            $Keytoll::Test::JSON->encode({ @hello, max_tokens => 5000 }));
        POSIX::_exit(0);
    }
    soon { $g->{r}->call('ZCARD', 'kt:{0000}:z') == 1 } 3, 'one runs';
    return $pid;
}
sub asked { return $g->{r}->functions }

my $pid = running($last);
$r = ask_now($last, { @hello, max_tokens => 5000 });
is($r->{headers}{'x-keytoll-reason'}, 'budget_held', 'nor while a last call runs');
waitpid $pid, 0;
$g->settled;

my $turned = $g->key(limit => 100_000);
$pid = running($turned);
$g->policy('key:' . token($turned) => { refs => ['global'], strict => $T, limit => 100_000 });
my $calls = asked();
$r = ask_now($turned, { @hello, max_tokens => 50 });
is($r->{headers}{'x-keytoll-reason'}, 'budget_held', 'a budget that became strict waits for the last call of before');
cmp_ok(asked() - $calls, '<', 8, 'and is not asked again and again');
waitpid $pid, 0;

$r = ask($g->key(strict => $T, limit => 1_000_000), '/clamp/v1/messages', { model => 'claude-x', max_tokens => 4000, messages => [{ role => 'user', content => 'hi' }] });
is($r->{status}, 200, 'messages');
cmp_ok(read_body()->{max_tokens}, '<', 70, 'are lowered, too');

$g->finish;
