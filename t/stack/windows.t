# RPM and TPM over more than ten window boundaries with two nginx of two workers each: in no
# 60 seconds more than the limit, capacity is back 61 seconds after it was used, and no slot
# of max_parallel_requests stays behind.
#
# Time passes by a test-only seam: the function library's one reading of TIME is shifted by
# a key; an update of the keys then lets the gate forget the refusals that it keeps by its
# own clock.  KEYTOLL_LONG=1 leaves the library alone and waits (12 minutes).

use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time sleep);
use Keytoll::Test;
use Keytoll::Stack;

my $LONG = $ENV{KEYTOLL_LONG};
my ($RPM, $TPM, $BURST, $BOUNDARIES) = (20, 400, 30, 12);
srand(my $seed = $ENV{KEYTOLL_SEED} // time % 1_000_000_000);

my $s = Keytoll::Stack->up(KEYTOLL_WORKERS => 2);
my @ports = ($s->{port}, $s->another_nginx);
my $r = $s->redis;

if (!$LONG) {
    my $text = slurp("$Keytoll::Test::BIN/keytoll.lua");
    my $n = $text =~ s/\bcall\("TIME"\)/(function() local t = call("TIME") return { tonumber(t[1]) + tonumber(call("GET", "kt:{0000}:skew") or "0"), t[2] } end)()/g;
    is($n, 1, 'the library reads the clock in one place');
    $text =~ s/^-- version \K\d+$/999/m or die;              # the daemon leaves a newer one alone
    $r->call('FUNCTION', 'LOAD', 'REPLACE', $text);
}
my ($skew, %key) = (0);
sub jump {
    my $seconds = shift;
    return sleep $seconds if $LONG;
    $r->call('SET', 'kt:{0000}:skew', $skew += $seconds);
    $s->admin(POST => '/key/update', { key => $_, metadata => { skew => $skew } }) for values %key;
    sleep 0.05;
}
sub now { my $t = $r->call('TIME'); return $t->[0] + $t->[1] / 1e6 + $skew }

sub key { my $made = $s->admin(POST => '/key/generate', {@_}); is($made->{status}, 200, 'a key') or diag $made->{raw}; return $made->{json}{key} }
%key = (rpm => key(rpm_limit => $RPM, max_parallel_requests => 200), tpm => key(tpm_limit => $TPM), par => key(max_parallel_requests => 3));

sub burst {
    my ($key, $n, @h) = @_;
    return grep { $_->{status} == 200 } http_burst(\@ports, [map { ['POST', '/v1/chat/completions', ['Authorization', "Bearer $key", 'Content-Type', 'application/json',
        'x-mock-completion-tokens', 10, 'x-mock-prompt-tokens', 2, @h], chat_body(max_tokens => 10)] } 1 .. $n]);
}

sub quiet { my $ent = 'key:' . token($_[0]); eventually { $r->call('ZCARD', 'kt:{0000}:z') == 0 } 10; return $r->fcall('kt_state', $ent)->[0] }

# The most requests of the par key that the provider had at once.
sub peak { return json(http_get($s->{mock_port}, '/__peaks')->{body})->{peaks}[1] }

my ($start, @rpm, @tpm, @peaks) = (now());
while (now() < $start + 60 * $BOUNDARIES) {
    for (['rpm', \@rpm], ['tpm', \@tpm]) {
        my ($what, $log) = @$_;
        my %b = (from => now());
        my @ok = burst($key{$what}, $BURST);
        $b{n} = $what eq 'rpm' ? @ok : 0;
        if ($what eq 'tpm') { $b{n} += json($_->{body})->{usage}{total_tokens} for @ok }
        $b{to} = now();
        push @$log, \%b;
    }
    burst($key{par}, 12, 'x-mock-gauge', 1, 'x-mock-delay-ms', 20);
    push @peaks, peak();
    quiet($key{rpm});
    jump(1 + int rand 20);
}

sub most {
    my @log = @_;
    my $most = 0;
    for my $i (0 .. $#log) {
        my $sum = 0;
        for my $j ($i .. $#log) {
            last if $log[$j]{to} - $log[$i]{from} >= 60;
            $sum += $log[$j]{n};
        }
        $most = $sum if $sum > $most;
    }
    return $most;
}

is(most(@rpm), $RPM, "never more than $RPM requests in 60 s, over " . int((now() - $start) / 60) . ' boundaries, ' . @rpm . " bursts, seed $seed");
cmp_ok(most(@tpm), '<=', $TPM, "never more than $TPM tokens: " . most(@tpm));
cmp_ok(most(@tpm), '>=', $TPM / 3, 'and they are used');

my @late;
for my $j (0 .. $#rpm) {
    my $used = 0;
    $rpm[$j]{from} - $_->{to} < 61 and $used += $_->{n} for @rpm[0 .. $j - 1];
    my $free = $RPM - $used;
    push @late, "burst $j: $rpm[$j]{n} of $free" if $rpm[$j]{n} < ($free < $BURST ? $free : $BURST);
}
is(scalar @late, 0, 'capacity is back 61 s after it was used') or diag join "\n", @late;
my $total = 0;
$total += $_->{n} for @rpm;
cmp_ok($total, '>=', $RPM * $BOUNDARIES * 0.7, "steady load passes steadily: $total");

is(quiet($key{par})->[10], 0, 'no slot is left behind');
jump(70);
my $many = () = burst($key{par}, 12, 'x-mock-gauge', 1, 'x-mock-delay-ms', 300);
cmp_ok($many, '>=', 3, "three at a time: $many of 12");
push @peaks, peak();
is((sort { $b <=> $a } @peaks)[0], 3, 'the provider never has more than three at once, over ' . @peaks . ' bursts, and it has three') or diag "@peaks";

$s->finish;
done_testing();
