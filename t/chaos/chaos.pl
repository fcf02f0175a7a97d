#!/usr/bin/perl
#
# The whole stack under load while its parts are killed: kill -9 of Redis, of
# workers, of controld and of the postmaster, FLUSHALL, ten reloads of nginx.
# Afterwards three books must agree to the nano-dollar: what the provider
# served, the ledger in PostgreSQL, the counters in Redis; and nothing may
# still be held.
#
#   perl -It/lib t/chaos/chaos.pl [short] [seed N]
#
# About 3 minutes, "short" about 25 seconds.  Ends with a table; the exit code
# is 0 only if every line of it holds.  KEYTOLL_KEEP=1 leaves the folder.

use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use File::Temp qw(tempdir);
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use POSIX qw(WNOHANG);
use Time::HiRes qw(time sleep);
use Keytoll::Test;
use Keytoll::Redis;

my %args = (seed => time * 1000 % 1_000_000_000);
while (@ARGV) {
    my $a = shift;
    if ($a eq 'seed') { $args{seed} = shift }
    else { $args{$a} = 1 }
}
my $SHORT = $args{short};
my ($CLIENTS, $SLOTS) = $SHORT ? (3, 8) : (4, 8);
my $T = JSON::PP::true;
my $J = JSON::PP->new->utf8->canonical;
$| = 1;

# ---------------------------------------------------------------- the stack

my $run = tempdir('ktchaosXXXXXX', TMPDIR => 1);
chmod 0711, $run;
my $port = Keytoll::Test::free_port();
@ENV{qw(KEYTOLL_RUN_DIR KEYTOLL_PORT KEYTOLL_WORKERS KEYTOLL_REDIS_TIMEOUT)} = ($run, $port, 2, '1s');
delete $ENV{OPENAI_API_KEY};
my $stack = "$Keytoll::Test::TOP/config/stack";
my ($owner, @clients) = $$;

sub up {
    my $out = `$stack up 2>&1`;
    die "chaos: the stack does not come up: $out" if $?;
}

END {
    my $code = $?;
    if ($$ == $owner) {
        kill 'KILL', @clients;
        system "$stack down >/dev/null 2>&1";
        if ($ENV{KEYTOLL_KEEP} || $code) { print "left in $run\n" }
        else { system 'rm', '-rf', $run }
    }
    $? = $code;
}
$SIG{INT} = $SIG{TERM} = sub { exit 130 };

up();
my %env = map { /^(\w+)=(.*)$/ ? ($1, $2) : () } split /\n/, slurp("$run/env");
my ($mock_port) = $env{KEYTOLL_MOCK_URL} =~ /(\d+)$/;

sub redis { return Keytoll::Redis->new($env{KEYTOLL_REDIS_SOCK}) }
sub pid { return (slurp("$run/$_[0].pid") =~ /^(\d+)/)[0] }

sub admin {
    my ($path, $body) = @_;
    my $r = http_call($port, 'POST', $path, ['Authorization', "Bearer $env{KEYTOLL_MASTER_KEY}", 'Content-Type', 'application/json'], $J->encode($body));
    die "chaos: $path answers $r->{status} $r->{body}" if $r->{status} != 200;
    return $r->{json};
}

sub sql {
    my $q = shift;
    open my $h, '-|', 'psql', $env{KEYTOLL_PG_URL}, '-AtF', "\t", '-c', $q or die "psql: $!";
    my @rows = map { chomp; [split /\t/, $_, -1] } <$h>;
    close $h or die "chaos: psql failed: $q";
    return @rows;
}

my (@keys, @ents);
my @teams = map { admin('/team/new', { team_alias => $_, max_budget => 1000000 })->{team_id} } qw(red blue);
for my $k ({ team_id => $teams[0] }, { team_id => $teams[0], max_budget => 500000, budget_enforcement => 'strict' }, { team_id => $teams[1], max_parallel_requests => 500 },
    { max_budget => 500000 }, {}) {
    my $made = admin('/key/generate', $k);
    push @keys, $made->{key};
    push @ents, 'key:' . sha256_hex($made->{key});
}
push @ents, map({ "team:$_" } @teams), 'global';

# ----------------------------------------------------------------- the load

my @MODELS = qw(gpt-4o-mini gpt-4o);

sub request {
    my $stream = rand() < 0.2;
    my $prompt = 1 + int rand 3000;
    my @h = ('Authorization', 'Bearer ' . $keys[rand @keys], 'Content-Type', 'application/json', 'Connection', 'close',
        'x-mock-prompt-tokens', $prompt, 'x-mock-completion-tokens', 1 + int rand($stream ? 40 : 900), 'x-mock-delay-ms', int rand 40);
    push @h, 'x-mock-cached-tokens', int rand $prompt if rand() < 0.2;
    push @h, 'x-mock-event-delay-ms', 1 + int rand 6 if $stream;
    my $body = $J->encode({ model => $MODELS[rand @MODELS], max_tokens => 1000, messages => [{ role => 'user', content => 'x' x (1 + int rand 2000) }],
        ($stream ? (stream => $T) : ()) });
    return (Keytoll::Test::request_text('POST', '/v1/chat/completions', \@h, $body), $stream);
}

# status of an answer that ended, 0 when it was cut off
sub judge {
    my $raw = shift;
    my $r = Keytoll::Test::parse_response($raw);
    return $r->{complete} ? $r->{status} : 0;
}

sub client {
    my ($n, $log) = @_;
    srand $args{seed} + $n;
    open my $out, '>>', $log or die $!;
    my $stop = 0;
    $SIG{TERM} = sub { $stop = time + 20 };
    $SIG{INT} = 'DEFAULT';
    my (%slot, @idle);
    @idle = map { time + rand 0.2 } 1 .. $SLOTS;
    my $sel = IO::Select->new;
    my $finish = sub {
        my ($s, $status) = @_;
        my $c = delete $slot{ fileno $s };
        $sel->remove($s);
        close $s;
        syswrite $out, join("\t", sprintf('%.4f', $c->{from}), sprintf('%.4f', time), $status, $c->{stream} ? 1 : 0) . "\n";
        push @idle, time + 0.002 + rand 0.03;
    };
    while (!$stop || (%slot && time < $stop)) {
        if (!$stop) {
            my @wait;
            for my $at (@idle) {
                if ($at > time) { push @wait, $at; next }
                my ($text, $stream) = request();
                my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 5);
                if (!$s) {
                    syswrite $out, sprintf("%.4f\t%.4f\trefused\t0\n", time, time);
                    push @wait, time + 0.05;
                    next;
                }
                $s->blocking(0);
                syswrite $s, $text;
                $slot{ fileno $s } = { s => $s, from => time, raw => '', stream => $stream, abort => $stream && rand() < 0.5 ? 1 + int rand 1500 : 0 };
                $sel->add($s);
            }
            @idle = @wait;
        }
        for my $s ($sel->can_read(0.005)) {
            my $c = $slot{ fileno $s };
            my $n = sysread $s, $c->{raw}, 65536, length $c->{raw};
            if (!$n) {
                next if !defined $n && $!{EAGAIN};
                $finish->($s, judge($c->{raw}));
            } elsif ($c->{abort} && length $c->{raw} > 200 + $c->{abort}) {
                $finish->($s, $c->{raw} =~ /^HTTP\/1.1 200/ ? 'left' : judge($c->{raw}));
            }
        }
        for my $c (grep { time - $_->{from} > 30 } values %slot) { $finish->($c->{s}, 'hang') }
    }
    POSIX::_exit(0);
}

sub probe {
    my $r = http_call($port, 'POST', '/v1/chat/completions', ['Authorization', "Bearer $keys[0]", 'Content-Type', 'application/json'], Keytoll::Test::chat_body());
    return $r->{status} == 200;
}

# --------------------------------------------------------------- the faults

my (@phases, %faults);

sub phase {
    my ($name, %o) = @_;
    push @phases, { name => $name, from => time, %o };
    $o{do}->();
    eventually { probe() } 30 or die "chaos: no recovery after \"$name\"";
    sleep $o{rest};
    $phases[-1]{to} = time;
    sleep 0.3;
}

sub kill_part {
    my $part = shift;
    my $pid = pid($part) or die "chaos: no pid of $part";
    kill 'KILL', $pid;
    $faults{"kill -9 $part"}++;
    sleep $SHORT ? 0.3 : 1;
    up();
}

sub children {
    my $master = shift;
    return grep { slurp("/proc/$_/stat") =~ /^\d+ \(.*\) \S (\d+) / && $1 == $master } map { m{/proc/(\d+)} } glob '/proc/[0-9]*/stat';
}

sub kill_worker {
    my $master = pid('nginx');
    my @w = grep { slurp("/proc/$_/cmdline") =~ /worker process/ && slurp("/proc/$_/cmdline") !~ /shutting/ } children($master);
    kill 'KILL', $w[rand @w];
    $faults{'kill -9 worker'}++;
}

my %metric;
sub metrics {
    my $text = http_get($port, '/metrics')->{body};
    my %m = $text =~ /^(keytoll_\w+) (\d+)$/mg;
    return \%m;
}

# what controld counted before it is killed
sub remember { my $m = metrics(); $metric{$_} += $m->{$_} for grep { /_total$/ } keys %$m }

my @plan;
my $rest = $SHORT ? 0.7 : 5;
my @round = (
    ['kill -9 Redis', do => sub { kill_part('redis') }],
    ['kill -9 worker', do => sub { for (1 .. ($SHORT ? 2 : 4)) { kill_worker(); sleep 0.4 } }],
    ['kill -9 controld', clean => 1, do => sub { remember(); kill_part('controld') }],
    ['kill -9 postmaster', clean => 1, do => sub { kill_part('postgres') }],
    ['FLUSHALL', do => sub { redis()->call('FLUSHALL'); $faults{FLUSHALL}++ }],
    ['nginx reload x10', clean => 1, do => sub { for (1 .. 10) { kill 'HUP', pid('nginx'); $faults{reload}++; sleep $SHORT ? 0.25 : 1 } }],
);
push @plan, ['load alone', clean => 1, do => sub { }], @round;
push @plan, @round[reverse 0 .. $#round], @round[0, 4] unless $SHORT;

my $began = time;
printf "chaos: seed %d, %d clients x %d connections, url http://127.0.0.1:%d\n", $args{seed}, $CLIENTS, $SLOTS, $port;
srand $args{seed};
for my $n (1 .. $CLIENTS) {
    my $pid = fork // die "fork: $!";
    client($n, "$run/client$n.log") if !$pid;
    push @clients, $pid;
}
sleep 0.5;
for my $p (@plan) {
    my ($name, %o) = @$p;
    phase($name, rest => $rest, %o);
    printf "  %-20s %5.1f s\n", $name, $phases[-1]{to} - $phases[-1]{from};
}
kill 'TERM', @clients;
waitpid $_, 0 for @clients;
@clients = ();

# ---------------------------------------------------------------- the books

my (@lines, $wrong);
sub line {
    my ($ok, $what, $figure) = @_;
    push @lines, [$ok ? 'ok' : 'WRONG', $what, $figure];
    $wrong++ if !$ok;
}

my ($r, $status, $left) = redis();
sub quiet {
    $status = json(http_get($port, '/keytoll/status')->{body});
    $left = { leases => $r->call('ZCARD', 'kt:{0000}:z'), holds => scalar(grep { ($r->call('GET', $_) // '') =~ /^H/ } @{ $r->call('KEYS', 'kt:{0000}:h:*') }), stream => $r->call('XLEN', 'kt:{0000}:s'),
        active => $status->{active_requests}, pending => $status->{pending_settlements} };
    return !grep { $_ } values %$left;
}
my $calm = time;
eventually { quiet() } 100;                     # a lease lasts 60 s
sleep 1;
quiet();
line(!$left->{$_}, "$_ left", $left->{$_}) for sort keys %$left;
my $calm_s = time - $calm;

# the provider
my %price;
for my $m (@{ json($r->call('GET', 'kt:{0000}:reg'))->{models} }) { $price{ $m->{n} } = $m }
my (%truth, $truth_sum);
my $text = http_get($mock_port, '/__truth')->{body};
for (split /\n/, $text) {
    my $t = json($_);
    next unless defined $t->{prompt_tokens} && $t->{id};
    my $p = $price{ $t->{model} } or next;
    my $cached = $t->{cached_tokens} // 0;
    my $pico = ($t->{prompt_tokens} - $cached) * $p->{in} + $cached * ($p->{cr} // $p->{in}) + $t->{completion_tokens} * $p->{out};
    die "chaos: $t->{model} is not priced in whole nano-dollars" if $pico % 1000;
    $truth{ $t->{id} } = { cost => $pico / 1000, ended => $t->{ended} };
}

# PostgreSQL
my (%seen, %by, $same, $same_sum, @differ, @unknown, @twice, $lost, $lost_sum, $other_estimated, $free) = ();
$_ = 0 for $same, $same_sum, $lost, $lost_sum, $other_estimated, $free;
my ($rows, $late, $fixed, $ledger_sum) = (0, 0, 0, 0);
for (sql("SELECT rid, answer_id, coalesce(token, ''), coalesce(team_id, ''), cost_nusd, estimated, fixed, late, ending FROM ledger")) {
    my ($rid, $id, $token, $team, $cost, $est, $fix, $was_late, $ending) = @$_;
    $rows++;
    $late++ if $was_late eq 't';
    $fixed++ if $fix eq 't';
    $ledger_sum += $cost;
    $by{"key:$token"} += $cost;
    $by{"team:$team"} += $cost if $team ne '';
    $by{global} += $cost;
    if ($id eq '' || !$truth{$id}) {
        if ($id ne '') { push @unknown, $id }
        elsif ($ending eq 'lost') { $lost++; $lost_sum += $cost }
        elsif ($cost == 0) { $free++ }
        else { $other_estimated++ }
        next;
    }
    push @twice, $id if $seen{$id}++;
    if ($cost == $truth{$id}{cost}) { $same++; $same_sum += $cost }
    else { push @differ, "$id: ledger $cost, served $truth{$id}{cost}, $truth{$id}{ended}, $ending" }
}
my @unbooked = grep { !$seen{$_} } keys %truth;
my $kills = $faults{'kill -9 worker'} // 0;
line(!@twice, 'answers booked twice', scalar @twice);
line(!@unknown, 'rows of answers never served', scalar @unknown);
line(!@differ, 'rows that differ from what was served', scalar @differ);
line($other_estimated == 0, 'other rows without an answer', $other_estimated);
line(@unbooked <= $lost, 'served to a worker that was killed: booked as lost', scalar(@unbooked) . " of $lost");
line($lost - @unbooked <= $kills * $CLIENTS * $SLOTS, 'lost on the way to the provider', $lost - @unbooked);
my $served = 0;
$served += $truth{$_}{cost} for grep { $seen{$_} } keys %truth;
line($same_sum == $served, 'served and booked, nano-USD', "$served = $same_sum");

# PostgreSQL's sums and Redis
my %meter = map { ("$_->[0] $_->[1]" => $_->[2]) } sql('SELECT ent, period_id, used_nusd FROM meters');
my $state = $r->fcall('kt_state', @ents);
my ($agree, @disagree) = (0);
for my $i (0 .. $#ents) {
    my $v = $state->[$i];
    my ($redis, $held, $period, $par) = $v ? @$v[1, 2, 4, 10] : ('absent', 0, 0, 0);
    my $ledger = $by{ $ents[$i] } // 0;
    my $sums = $meter{"$ents[$i] $period"} // 0;
    if ($redis eq $ledger && $sums eq $ledger && $held == 0 && $par == 0) { $agree++ }
    else { push @disagree, "$ents[$i]: Redis $redis, sums $sums, ledger $ledger, held $held, parallel $par" }
}
line(!@disagree, 'Redis = sums = ledger, nothing held: key, team, global', "$agree of " . @ents);
line($ledger_sum == $served + $lost_sum, 'ledger = served + lost, nano-USD', "$ledger_sum = $served + $lost_sum");

# the clients
my (%all, @table);
my @log = map { [split /\t/] } map { split /\n/, slurp("$run/client$_.log") } 1 .. $CLIENTS;
for my $p (@phases) {
    my %n;
    for (grep { $_->[1] >= $p->{from} && $_->[1] < $p->{to} } @log) { $n{ $_->[2] }++ }
    my ($bad, $total) = (0, 0);
    for (keys %n) {
        $total += $n{$_};
        $bad += $n{$_} if /^(?:5\d\d|0|refused|hang)$/;
    }
    push @table, [$p->{name}, sprintf('%.1f', $p->{to} - $p->{from}), $total, map({ $n{$_} // 0 } 200, 'left', 503), $bad - ($n{503} // 0)];
    line($bad == 0, "5xx and cut connections during \"$p->{name}\"", $bad) if $p->{clean};
}
$all{ $_->[2] }++ for @log;
line(($all{hang} // 0) == 0, 'requests that hung', $all{hang} // 0);
line(!grep({ /^[45]\d\d$/ && $_ != 503 } keys %all), 'statuses but 200 and 503', join(' ', map { "$_ x $all{$_}" } sort grep { /^[45]\d\d$/ && $_ != 503 } keys %all) || 'none');
my $alerts = grep { /\[alert\]|\[emerg\]|Sanitizer|runtime error:/ && !/exited on signal 9/ } map { split /\n/, slurp($_) } glob "$run/log/*";
line($alerts == 0, 'alerts in the logs', $alerts);
remember();

printf "\n%-22s %7s %9s %8s %8s %6s %6s\n", 'phase', 's', 'requests', '200', 'aborted', '503', 'cut';
printf "%-22s %7s %9d %8d %8d %6d %6d\n", @$_ for @table;
printf "\nfaults      %s\n", join ', ', map { "$_ x $faults{$_}" } sort keys %faults;
printf "requests    %d by clients, %d served, %d ledger rows, %d aborted by clients, %d streams\n", scalar @log, scalar keys %truth, $rows, $all{left} // 0,
    scalar grep { $_->[3] } @log;
printf "duplicates  %d dropped by Redis, %d dropped by PostgreSQL\n", $status->{duplicates_total}, $metric{keytoll_ledger_duplicates_total} // 0;
printf "repairs     %d late, %d fixed, %d swept, %d replayed, %d journals adopted, %d released, %d rebuilds, %d rows refused upstream\n", $late, $fixed,
    $metric{keytoll_leases_swept_total} // 0, @$status{qw(replayed_total adopted_total released_total)}, $metric{keytoll_rebuilds_total} // 0, $free;
printf "quiet       %.1f s after the last client\n\n", $calm_s;
printf "%-6s %-58s %s\n", @$_ for @lines;
print "\n", map { "  $_\n" } (@differ > 5 ? @differ[0 .. 4] : @differ), @disagree, (@unknown > 5 ? @unknown[0 .. 4] : @unknown);
printf "%s in %.0f s, seed %d\n", $wrong ? "WRONG: $wrong" : 'all books agree', time - $began, $args{seed};
exit($wrong ? 1 : 0);
