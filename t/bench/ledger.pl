# How fast the ledger catches up: events of many keys, teams and models wait in the
# stream, then the daemon starts.  Prints rows/s.  ROWS, KEYS, TAGS set the load.

use strict;
use warnings;
no warnings "portable";
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Time::HiRes qw(time sleep);

my ($rows, $keys, $tags) = ($ENV{ROWS} // 100_000, $ENV{KEYS} // 2000, $ENV{TAGS} // 0);
my $k = Keytoll::Control->new;
$k->kill('controld');

# Ticks of the daemon, and of PostgreSQL with all its processes.
sub cpu {
    my %t = (controld => 0, postgres => 0);
    for my $f (glob '/proc/[0-9]*/stat') {
        my ($pid, $ppid, $u, $sys) = $k->slurp($f) =~ /^(\d+) \(.*\) \S (\d+)(?: \S+){9} (\d+) (\d+)/ or next;
        $t{controld} += $u + $sys if $pid == $k->{pid}{controld};
        $t{postgres} += $u + $sys if $pid == $k->{pid}{postgres} || $ppid == $k->{pid}{postgres};
    }
    return %t;
}

my $s = IO::Socket::UNIX->new(Peer => $k->{redis_sock}) or die;
binmode $s;
my ($n, $sent) = (0, 0);
while ($n < $rows) {
    my @f = ('XADD', 'kt:{0000}:s', '*');
    for (1 .. 16) {
        my $key = int rand $keys;
        my $token = sprintf '%064x', $key;
        my ($team, $org) = ($key % 200, $key % 20);
        my $rid = $k->rid;
        my $ms = hex substr $rid, 0, 12;
        my $m = 'model-' . int rand 5;
        my $cost = 1000 + int rand 100000;
        push @f, e => qq({"id":"$rid","t0":$ms,"t1":@{[$ms + 500]},"ttft":100,"m":"$m","um":"$m-up","p":"openai",)
            . qq("rt":"chat","uid":"chatcmpl-$n","in":100,"out":50,"cr":10,"cw":0,"rs":0,"cost":"$cost","ucr":"0",)
            . qq("st":200,"end":"complete","est":0,"stm":1,"ip":"127.0.0.1","tags":[],"node":"n1"});
        push @f, r => "2\t$ms\t$m\nkey:$token\t0\t16\nuser:u$key\t0\t16\nteam:t$team\t0\t16\nmember:t$team/u$key\t0\t16\n"
            . "org:o$org\t0\t16\n" . join('', map { "tag:g$_\t0\t16\n" } 1 .. $tags) . "global\t0\t16\n";
        push @f, c => 'ok';
        $n++;
    }
    print $s '*' . @f . "\r\n" . join '', map { '$' . length($_) . "\r\n$_\r\n" } @f;
    next if ++$sent % 64;
    Keytoll::Control::_reply($s) for 1 .. 64;
}
Keytoll::Control::_reply($s) for 1 .. $sent % 64;

$k->start_controld(nowait => 1);
sleep 0.01 until $k->redis('XLEN', 'kt:{0000}:s') < $n / 16;
my $t = time;
my %cpu = cpu();
my $left = $k->redis('XLEN', 'kt:{0000}:s');
sleep 0.02 until $k->redis('XLEN', 'kt:{0000}:s') == 0;
my $took = time - $t;
my %now = cpu();
printf "ledger catch-up, rows/s (%d rows, %d keys, %d tags): %.0f; CPU us/row: controld %.1f, PostgreSQL %.1f\n",
    $n, $keys, $tags, $left * 16 / $took, map { ($now{$_} - $cpu{$_}) * 10_000 / $left / 16 } qw(controld postgres);
die 'rows are missing' if $k->sql('SELECT count(*) FROM ledger') != $n;
