# F35: the disk of the journals is full, full in the middle of a write, or
# read-only, under load.  Nothing is admitted unrecorded, what runs ends as it
# should and is charged, and room makes the gate work again by itself.

use strict;
use warnings;
use Test::More;
use Time::HiRes qw(sleep time);
use Keytoll::Test;
use Keytoll::Books;

my $T = JSON::PP::true;
my $g = Keytoll::Test->gate(nginx => 0, workers => 1, more => 'proxy_buffering off; location = /open { keytoll off; return 200 open; }');
my ($so, $switch) = ("$g->{dir}/full_disk.so", "$g->{dir}/fault");
is(system('cc', '-shared', '-fPIC', '-O1', '-o', $so, "$Keytoll::Test::TOP/t/tools/full_disk.c"), 0, 'the bad disk is built');
{
    local @ENV{qw(LD_PRELOAD KT_FULL_DISK)} = ($so, $switch);
    # the workers forget their environment unless told to keep it
    no warnings 'redefine';
    my $conf = \&Keytoll::Test::nginx_conf;
    local *Keytoll::Test::nginx_conf = sub { "env KT_FULL_DISK;\n" . $conf->(@_) };
    $g->start_nginx(0);
}
$g->expect(qr/exited on signal 9/);
my $key = $g->key(limit => usd(1000), strict => $T, par => 500, rpm => 1e7, tpm => 1e9);
is($g->chat($key)->{status}, 200, 'it works');

sub reason { my $r = shift; return "$r->{status} " . ($r->{headers}{'x-keytoll-reason'} // '') }

for my $how ('full', 'torn', 'read-only') {
    subtest "F35 $how" => sub {
        my $l = load_begin($g, $key);
        pipe my $in, my $out;
        my $pid = fork // die "fork: $!";
        if (!$pid) {
            my $r = $g->chat($key, stream => $T, max_tokens => 60, headers => ['x-mock-event-delay-ms', 25]);
            print $out $r->{status} == 200 && $r->{complete} && $r->{body} =~ /\[DONE\]/ ? "whole\n" : "$r->{status}\n";
            close $out;
            POSIX::_exit(0);
        }
        close $out;
        sleep 0.5;
        Keytoll::Test::spew($switch, substr $how, 0, 1);
        ok(eventually(sub { $g->chat($key)->{status} == 503 }, 5), 'the disk fails');
        my (%n, $worst) = ();
        for (1 .. 20) {
            my $r = $g->chat($key);
            $n{ reason($r) }++;
            cmp_ok($r->{headers}{'retry-after'} // 0, '>=', 1, 'with retry-after') if $_ == 1;
            my $from = time;
            is(http_get($g->{port}[0], '/open')->{status}, 200, 'not gated: goes on') if $_ == 2;
            $worst = time - $from;
            sleep 0.1;
        }
        is_deeply(\%n, { '503 journal_unavailable' => 20 }, 'for two seconds nothing passes, and it is said why');
        chomp(my $stream = readline $in);
        waitpid $pid, 0;
        is($stream, 'whole', 'a stream that ran ends whole');
        cmp_ok($g->status->{journal_errors_total}, '>', 0, 'the errors are counted');
        unlink $switch;
        my $from = time;
        ok(eventually(sub { $g->chat($key)->{status} == 200 }, 6), 'there is room: it works again');
        cmp_ok(time - $from, '<', 3.5 * $Keytoll::Test::SLOW, sprintf 'after %.1f s', time - $from);
        my $s = load_end($l);
        is(join(' ', grep { !/^(200|503)$/ } keys %$s), '', 'load: ' . join ', ', map { "$_ x $s->{$_}" } sort keys %$s);
        exact($g, $key, $how);
    };
}

subtest 'F35 a worker dies while its disk is full' => sub {
    Keytoll::Test::spew($switch, 't');
    eventually { $g->chat($key)->{status} == 503 } 5;
    unlink $switch;
    eventually { $g->chat($key)->{status} == 200 } 6;
    ok($g->settled, 'settles');
    kill 'KILL', $g->workers;
    ok(eventually(sub { $g->chat($key)->{status} == 200 }, 10), 'the next one works');
    ok(eventually(sub { $g->status->{adopted_total} > 0 }, 10), 'takes over');
    ok(eventually(sub { slurp("$g->{dir}/log/error0.log") =~ /ends in a torn record/ }, 10), 'and reads up to the torn record');
    exact($g, $key, 'torn journals replayed');
};

$g->finish;
