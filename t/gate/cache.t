# Refusals from shared memory: kept until their end, dropped by every change
# that lifts them, never used by a worker that hears of no changes.

use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time sleep);
use Keytoll::Test;

my $T = JSON::PP::true;
my $g = Keytoll::Test->gate(workers => 2, nginx => 2);

sub ask { my ($key, %o) = @_; return http_call($g->{port}[$o{nginx} // 0], 'POST', $o{path} // '/v1/chat/completions', ['Authorization', "Bearer $key", @{ $o{headers} // [] }], chat_body(%{ $o{body} // {} })) }
sub calls { return ($g->{r}->functions, $g->status->{cache_hits_total}) }
sub kept { # the refusal stays, without a question to Redis
    my ($key, $reason, $what, %o) = @_;
    my $first = ask($key, %o);
    is($first->{headers}{'x-keytoll-reason'}, $reason, "$what is refused");
    sleep 0.05;                                             # until what made it so has been announced
    ask($key, %o);
    my ($c0, $h0) = calls();
    my @again = map { ask($key, %o) } 1 .. 10;
    my ($c1, $h1) = calls();
    is(scalar(grep { $_->{status} == $first->{status} && $_->{headers}{'x-keytoll-reason'} eq $reason && $_->{json}{error}{type} eq $first->{json}{error}{type} } @again), 10, "$what: ten times the same");
    is($c1 - $c0, 0, "$what: Redis is not asked");
    is($h1 - $h0, 10, "$what: all from the cache");
    return ($first, @again);
}

soon { my ($s, $r) = (ask('sk-warm-up-of-nobody-' . time)->{status}, $g->{r}->call('PUBSUB', 'NUMSUB', 'kt:{0000}:changes')); $r->[1] == 4 } 5, 'all four workers listen';

my $nobody = 'sk-not-yet-made-0123456789';
kept($nobody, 'key_unknown', 'an unknown key');
$g->key(key => $nobody, limit => usd(1));
soon { ask($nobody)->{status} == 200 } 1, 'works when it is made';

my $key = $g->key(rpm => 2);
ask($key) for 1 .. 2;
my ($first, @again) = kept($key, 'rpm_exceeded', 'a key over its RPM');
sleep 1.1;
my $later = ask($key);
cmp_ok($later->{headers}{'retry-after'}, '<', $first->{headers}{'retry-after'}, 'retry-after counts down');
cmp_ok($later->{headers}{'retry-after'}, '>=', $first->{headers}{'retry-after'} - 3, 'with the clock');
is($later->{json}{error}{message} =~ /resets at: (\S+ \S+)/ && $1, $first->{json}{error}{message} =~ /resets at: (\S+ \S+)/ && $1, 'towards the same instant') if $later->{json}{error}{message} !~ /[59]9 UTC/;
$g->policy('key:' . token($key) => { refs => ['global'], rpm => 4 });
soon { ask($key)->{status} == 200 } 1, 'a higher limit lets it pass';

$key = $g->key(limit => 15000);
is(ask($key)->{status}, 200, 'a budget that is not spent');
$g->settled;
is(ask($key)->{status}, 200, 'and the last call') while $g->settled && $g->state($key)->{used} < 15000;
my ($no) = kept($key, 'budget_exceeded', 'a spent budget');
is($no->{headers}{'x-keytoll-used'}, $g->state($key)->{used}, 'its number is that of the books');
$g->policy('key:' . token($key) => { refs => ['global'], limit => 10_000_000 });
soon { ask($key)->{status} == 200 } 1, 'a raised budget lets it pass';

# one that ends by itself, with its period, neither earlier nor later
{
    my $t = $g->{r}->call('TIME');
    my $end = $t->[0] + 3;
    my $short = $g->key(limit => 1000, used => 1000, period => { kind => 'fixed', len_s => 3, id => $end - 3, end_s => $end });
    my $first = ask($short);
    is($first->{headers}{'x-keytoll-reason'}, 'budget_exceeded', 'a budget of three seconds is spent');
    is($first->{headers}{'x-keytoll-reset'}, $end, 'and says until when');
    my ($c0, $h0) = calls();
    my ($early, $n, $passed) = (0, 0, undef);
    while (time < $end + 3) {
        my $r = ask($short);
        if ($r->{status} == 200) { $passed = time; last }
        $early++ if $r->{headers}{'x-keytoll-reset'} != $end;
        $n++;
        sleep 0.005;
    }
    my ($c1, $h1) = calls();
    is($early, 0, 'all refusals are of that period');
    cmp_ok($passed // 0, '>=', $end - 0.01, 'nobody passes before its end');
    cmp_ok(($passed // $end + 9) - $end, '<', 0.5, sprintf 'and whoever comes then does, after %.0f ms', 1000 * (($passed // 0) - $end));
    cmp_ok($h1 - $h0, '>', 0.8 * $n, "most of $n refusals came from the cache");
}

$g->policy('team:full' => { limit => 0 }, 'team:free' => {});
$key = $g->key(refs => ['team:full', 'global']);
kept($key, 'budget_exceeded', 'a team without budget');
$g->policy('key:' . token($key) => { refs => ['team:free', 'global'] });
soon { ask($key)->{status} == 200 } 1, 'a key that moves to another team passes';
$g->policy('key:' . token($key) => { refs => ['team:full', 'global'] });
soon { ask($key)->{status} != 200 } 1, 'and back';
kept($key, 'budget_exceeded', 'the team once more');
$g->policy('team:full' => { limit => 1_000_000_000 });
soon { ask($key)->{status} == 200 } 1, 'a change of the team that refused counts';

$key = $g->key(blocked => $T);
kept($key, 'key_blocked', 'a blocked key');
$g->policy('key:' . token($key) => { refs => ['global'] });
soon { ask($key)->{status} == 200 } 1, 'unblocked';
$g->policy('key:' . token($key) => { refs => ['global'], blocked => $T });
is(ask($key)->{status}, 401, 'blocked again, at once');

$key = $g->key(models => ['free']);
kept($key, 'key_model_denied', 'a model that is not allowed');
is(ask($key, body => { model => 'free' })->{status}, 200, 'another model is another question');
is(ask($key, body => { model => 'free', user => 'u1' })->{status}, 200, 'so is another user');

$key = $g->key(tpm => 100, strict => $T);
is(ask($key, body => { max_tokens => 5000 })->{headers}{'x-keytoll-reason'}, 'tpm_exceeded', 'too many tokens');
is(ask($key, body => { max_tokens => 5 })->{status}, 200, 'a smaller request passes: TPM is not kept');

$key = $g->key(strict => $T, limit => 10_000);
is(ask($key, body => { max_tokens => 5000 })->{headers}{'x-keytoll-reason'}, 'budget_exceeded', 'more than a strict budget has');
is(ask($key, body => { max_tokens => 1 })->{status}, 200, 'a smaller one fits: it is not kept');

# many more than fit

my $before = $g->status->{cache_stored_total};
for my $round (1 .. 20) {
    my @r = http_burst($g->{port}[0], [map { ['POST', '/v1/chat/completions', ['Authorization', "Bearer sk-random-$round-$_-of-nobody"], chat_body()] } 1 .. 200]);
    BAIL_OUT('a random key passed') if grep { $_->{status} != 401 } @r;
}
cmp_ok($g->status->{cache_stored_total} - $before, '>=', 3900, 'four thousand unknown keys went through the cache');
$key = $g->key;
is(ask($key)->{status}, 200, 'a good key passes');

# what was missed while nobody listened

$key = $g->key(blocked => $T);
kept($key, 'key_blocked', 'before the connection is lost');
$g->{r}->call('CLIENT', 'KILL', 'TYPE', 'pubsub');
$g->policy('key:' . token($key) => { refs => ['global'] });
is(ask($key)->{status}, 200, 'a worker that does not listen asks');
soon { $g->{r}->call('PUBSUB', 'NUMSUB', 'kt:{0000}:changes')->[1] == 4 } 5, 'they listen again';
is(ask($key)->{status}, 200, 'and nothing old is left');

# an answer that was on its way when its reason went

$key = $g->key(blocked => $T);
for my $round (1 .. 30) {
    my @r = http_burst($g->{port}[0], [map { ['POST', '/v1/chat/completions', ['Authorization', "Bearer $key"], chat_body()] } 1 .. 20]);
    $g->policy('key:' . token($key) => { refs => ['global'], blocked => $round % 2 ? JSON::PP::false : $T });
    next unless $round % 2;
    my $ok = eventually { ask($key)->{status} == 200 } 1;
    last if !$ok && !fail("round $round: still blocked");
}
pass('no refusal outlives its reason');

$g->finish;
