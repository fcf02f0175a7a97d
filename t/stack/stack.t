# config/stack: up, down and run, alone and side by side, after any kill, in
# odd places; what it leaves to be read by others.

use strict;
use warnings;
use Test::More;
use IO::Socket::INET;
use Time::HiRes qw(time sleep);
use Keytoll::Test;
use Keytoll::Stack;

my $SLOW = $Keytoll::Test::SLOW;
my @NAMES = qw(redis postgres controld mock nginx);
my $ROOT = $> == 0;

# every process whose current folder is this or under it
sub processes {
    my $dir = shift;
    return grep { (readlink("/proc/$_/cwd") // '') =~ m{^\Q$dir\E(/|$)} && slurp("/proc/$_/stat") !~ /\) Z / } map { m{(\d+)} } glob '/proc/[0-9]*';
}

sub pids { my $s = shift; return map { $_ => $s->pid($_) } @NAMES }

sub works {
    my ($s, $key, $name, $seconds) = @_;
    my $r;
    eventually { ($r = $s->chat($key))->{status} == 200 } $seconds // 0;
    is($r->{status}, 200, $name) or diag $r->{raw};
}

# as the servers' user, so that only names and folders tell them apart
sub as_service {
    my ($s, @cmd) = @_;
    return @cmd unless $ROOT;
    my ($uid, $gid) = (stat $s->{run})[4, 5];
    return ('setpriv', '--reuid', $uid, '--regid', $gid, '--clear-groups', '--', @cmd);
}

# ------------------------------------------------------------ up and down

my $s = Keytoll::Stack->up;
my $key = $s->admin(POST => '/key/generate', { max_budget => 1 })->{json}{key};
works($s, $key, 'a chat through the stack');
my %before = pids($s);
my $t0 = time;
my ($code, $out) = $s->stack('up');
is($code, 0, 'up again');
cmp_ok(time - $t0, '<', 2 * $SLOW, 'is quick');
is_deeply({ pids($s) }, \%before, 'and starts nothing');
($code, $out) = $s->stack('status');
is(() = $out =~ /up, pid \d+/g, 5, 'status names five servers');

# what others may read
my %vars = %{ $s->{vars} };
is_deeply([sort keys %vars], [sort qw(KEYTOLL_URL KEYTOLL_MASTER_KEY KEYTOLL_MOCK_URL KEYTOLL_REDIS_SOCK KEYTOLL_PG_URL KEYTOLL_RUN_DIR)], 'the names in run/env');
my $sourced = `. $s->{run}/env && echo "\$KEYTOLL_URL \$KEYTOLL_PG_URL \$KEYTOLL_MASTER_KEY"`;
is($sourced, "$vars{KEYTOLL_URL} $vars{KEYTOLL_PG_URL} $vars{KEYTOLL_MASTER_KEY}\n", 'a shell reads it as it is meant');
is(`psql -XAtq -d "$vars{KEYTOLL_PG_URL}" -c 'select 1' 2>&1`, "1\n", 'its PostgreSQL address works');
like($vars{KEYTOLL_MASTER_KEY}, qr/^sk-[A-Za-z0-9]{40,}$/, 'a long random master key');
is(sprintf('%o', (stat $s->{run})[2] & 07777), '700', 'the folder is for its owner only');
my @open = grep { !-S && (stat $_)[2] & 077 } split /\n/, `find $s->{run} -type f`;
is("@open", '', 'and so is every file in it');

my (@roots, @argv, @env);
for my $pid (processes($s->{run})) {
    push @roots, $pid if (stat "/proc/$pid")[4] == 0;
}
for my $pid (map { m{(\d+)} } glob '/proc/[0-9]*') {
    push @argv, $pid if index(slurp("/proc/$pid/cmdline"), $vars{KEYTOLL_MASTER_KEY}) >= 0;
    push @env, $pid if index(slurp("/proc/$pid/environ"), $vars{KEYTOLL_MASTER_KEY}) >= 0;
}
is("@roots", '', 'nothing runs as root');
is("@argv", '', 'the master key is in no argv');
is("@env", $s->pid('controld'), 'and in the environment of controld only');
is(sprintf('%o', (stat '/proc/' . $s->pid('controld') . '/environ')[2] & 0777), '400', 'which only its owner reads');
my @logs = grep { index(slurp($_), $vars{KEYTOLL_MASTER_KEY}) >= 0 } glob "$s->{run}/log/*";
is("@logs", '', 'and in no log');

($code, $out) = $s->stack('down');
is($code, 0, 'down') or diag $out;
is(join(' ', processes($s->{run})), '', 'nothing is left running');
$t0 = time;
($code, $out) = $s->stack('down');
is($code, 0, 'down again');
cmp_ok(time - $t0, '<', 2 * $SLOW, 'is quick');
$s->up;
works($s, $key, 'the key survives');
is($s->{vars}{KEYTOLL_MASTER_KEY}, $vars{KEYTOLL_MASTER_KEY}, 'and so does the master key');

# ------------------------------------------------------------ two stacks

my $b = Keytoll::Stack->up;
isnt($b->{port}, $s->{port}, 'a second stack on another port');
is($b->chat($key)->{status}, 401, 'does not know the first one\'s keys');
my $key_b = $b->admin(POST => '/key/generate', {})->{json}{key};
works($b, $key_b, 'has its own');
works($s, $key, 'beside the first');

my $wrong = Keytoll::Stack->new(KEYTOLL_RUN_DIR => $s->{env}{KEYTOLL_RUN_DIR});
($code, $out) = $wrong->stack('up');
isnt($code, 0, 'the same folder with another port');
like($out, qr/running in .* on another port.*KEYTOLL_RUN_DIR/s, 'says what to do');
$wrong->{stopped} = 1;

my $taken = Keytoll::Stack->new(KEYTOLL_PORT => $s->{port});
($code, $out) = $taken->stack('up');
isnt($code, 0, 'a port in use');
like($out, qr/port $s->{port} is in use.*KEYTOLL_PORT=/s, 'says what to do');
is(join(' ', processes("$taken->{dir}/run")), '', 'and starts nothing');
$taken->{stopped} = 1;

# ------------------------------------------------------------ half dead

for my $name (@NAMES) {
    kill 'KILL', $s->pid($name);
    ($code, $out) = $s->stack('up');
    is($code, 0, "up after kill -9 of $name") or diag $out;
    works($s, $key, "... and it works", 3);
}
kill 'KILL', map { $s->pid($_) } @NAMES;
($code, $out) = $s->stack('up');
is($code, 0, 'up after kill -9 of all servers') or diag $out;
works($s, $key, '... and it works', 3);

kill 'KILL', $s->pid('nginx');
unlink "$s->{run}/nginx.pid", "$s->{run}/postgres.pid", "$s->{run}/redis.pid";
($code, $out) = $s->stack('up');
is($code, 0, 'up with pid files lost') or diag $out;
works($s, $key, '... and it works', 3);

kill 'KILL', $s->pid('nginx'), $s->pid('controld');
($code, $out) = $s->stack('down');
is($code, 0, 'down of a half-dead stack') or diag $out;
is(join(' ', processes($s->{run})), '', 'stops the rest');

# pid files that name others: a program of the same user, and the other stack
my $sleep = Keytoll::Test::spawn('/dev/null', as_service($s, 'sleep', 1000));
my %other = pids($b);
for my $name (@NAMES) { Keytoll::Test::spew("$s->{run}/$name.pid", $name eq 'mock' ? "$sleep\n" : "$other{$name}\n") }
($code, $out) = $s->stack('down');
is($code, 0, 'down with pid files that name others');
ok(kill(0, $sleep), 'leaves the program alone');
is_deeply([grep { slurp("/proc/$other{$_}/stat") !~ /\) [RSD] / } @NAMES], [], 'and the other stack');
for my $name (@NAMES) { Keytoll::Test::spew("$s->{run}/$name.pid", $name eq 'mock' ? "$sleep\n" : "$other{$name}\n") }
($code, $out) = $s->stack('up');
is($code, 0, 'up with pid files that name others') or diag $out;
ok(kill(0, $sleep), 'leaves the program alone');
works($b, $key_b, 'and the other stack');
works($s, $key, 'and comes up');
kill 'KILL', $sleep;
waitpid $sleep, 0;
$b->finish;
$s->{expect} = qr/exited on signal 9|\[alert\]/;     # of the kills above
$s->finish;

# ------------------------------------------------------------ odd places

my $deep = Keytoll::Stack->new;
$deep->{env}{KEYTOLL_RUN_DIR} = "$deep->{dir}/" . 'a-rather-long-name/' x 8 . 'run';
cmp_ok(length $deep->{env}{KEYTOLL_RUN_DIR}, '>', 150, 'a folder too long for a socket');
$deep->up;
works($deep, $deep->admin(POST => '/key/generate', {})->{json}{key}, 'works');
my ($socks) = $deep->{vars}{KEYTOLL_REDIS_SOCK} =~ m{(.*)/};
is(sprintf('%o', (stat $socks)[2] & 07777), '700', 'its sockets are elsewhere, for the owner only');
$deep->finish;
ok(!-e $socks, 'and gone afterwards');

my $space = Keytoll::Stack->new;
$space->{env}{KEYTOLL_RUN_DIR} = "$space->{dir}/a b";
($code, $out) = $space->stack('up');
isnt($code, 0, 'a space in the path');
like($out, qr/may only have letters.*KEYTOLL_RUN_DIR/, 'says what to do');
ok(!-e "$space->{dir}/a b", 'and leaves nothing');
$space->{stopped} = 1;

for my $case (['no build', KEYTOLL_BIN => '/nonexistent', qr/[Bb]uild first: make/], ['no nginx', KEYTOLL_NGINX => '/nonexistent/nginx', qr/nginx is missing.*make deps/],
    ['no such port', KEYTOLL_PORT => 'x', qr/not a port number/], ['a port too large', KEYTOLL_PORT => 70000, qr/not a port number/]) {
    my ($name, $var, $value, $want) = @$case;
  SKIP: {
        skip 'the sanitizer\'s nginx comes from the build', 2 if $var eq 'KEYTOLL_NGINX' && $ENV{KEYTOLL_ASAN};
        my $x = Keytoll::Stack->new($var => $value);
        ($code, $out) = $x->stack('up');
        isnt($code, 0, "$name: refused");
        like($out, $want, '... and says what to do');
        $x->{stopped} = 1;
        system 'rm', '-rf', $x->{dir};
    }
}

SKIP: {
    skip 'needs root', 9 unless $ROOT;
    my $private = Keytoll::Stack->new;
    mkdir "$private->{dir}/private", 0700 or die;
    $private->{env}{KEYTOLL_RUN_DIR} = "$private->{dir}/private/run";
    $private->up;
    like($private->{run}, qr{^/var/tmp/keytoll-}, 'a checkout that only root can enter: the folder moves');
    works($private, $private->admin(POST => '/key/generate', {})->{json}{key}, 'and works');
    $private->finish;
    system 'rm', '-rf', $private->{run};

    my $link = Keytoll::Stack->new;
    symlink '/etc', "$link->{dir}/run" or die;
    ($code, $out) = $link->stack('up');
    isnt($code, 0, 'a symbolic link in the folder\'s place');
    like($out, qr/is a symbolic link/, 'is not followed');
    $link->{stopped} = 1;

    my $theirs = Keytoll::Stack->new(KEYTOLL_SERVICE_USER => 'nobody');
    mkdir "$theirs->{dir}/run" or die;
    chown 1, 1, "$theirs->{dir}/run";
    ($code, $out) = $theirs->stack('up');
    isnt($code, 0, 'a folder of somebody else');
    like($out, qr/belongs to daemon/, 'is not taken');
    is(((stat "$theirs->{dir}/run")[4]), 1, 'and stays theirs');
    $theirs->{stopped} = 1;
    system 'rm', '-rf', $_->{dir} for $link, $theirs;
}

# ------------------------------------------------------------ run

for my $signal (qw(INT TERM)) {
    my $x = Keytoll::Stack->new;
    my $log = "$x->{dir}/out";
    my $pid = do {
        local %ENV = (%ENV, %{ $x->{env} });
        Keytoll::Test::spawn($log, "$Keytoll::Test::TOP/config/stack", 'run');
    };
    soon { slurp($log) =~ /Ctrl-C stops everything/ } 30, 'run says when it is up';
    my $run = $x->{env}{KEYTOLL_RUN_DIR};
    like(slurp($log), qr/\Q$_\E/, "... and shows $_") for "http://127.0.0.1:$x->{env}{KEYTOLL_PORT}", slurp("$run/master_key"), 'curl';
    cmp_ok(scalar processes($run), '>=', 6, 'its servers run');
    kill $signal, $pid;
    my $gone = eventually { waitpid($pid, POSIX::WNOHANG()) != 0 } 30;
    ok($gone, "SIG$signal ends it");
    is($?, 0, 'with success') or diag slurp($log);
    is(join(' ', processes($run)), '', 'and stops everything');
    kill 'KILL', processes($run);
    $x->{stopped} = 1;
    system 'rm', '-rf', $x->{dir};
}

done_testing();
