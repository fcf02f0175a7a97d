# What the admin API does: simple calls a second, and how long a key takes to make, on a
# daemon, PostgreSQL (that syncs) and Redis of its own.  perl -It/lib t/bench/admin.pl

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;

my $S = $ENV{BENCH_S} // 5;
my $k = Keytoll::Control->new(fsync => $ENV{BENCH_FSYNC} // 'on');
my $key = ($k->post('/key/generate', {}))[1]{key};
my $lua = "$k->{dir}/generate.lua";

sub wrk {
    my ($c, @args) = @_;
    my $out = qx{wrk -t1 -c$c -d${S}s --latency @args 2>&1};
    my %r;
    ($r{rate}) = $out =~ m{Requests/sec:\s+([\d.]+)};
    for my $p (50, 99) {
        my ($v, $u) = $out =~ m{^\s+$p%\s+([\d.]+)(us|ms|s)\s*$}m;
        $r{$p} = $v * { us => 0.001, ms => 1, s => 1000 }->{$u};
    }
    die "some requests failed: $out" if $out =~ /Non-2xx/;
    return \%r;
}

open my $fh, '>', $lua or die;
print $fh qq(wrk.method = "POST"\nwrk.body = '{"max_budget": 1, "rpm_limit": 10, "models": ["gpt-4o"]}'\nwrk.headers["Content-Type"] = "application/json"\n);
close $fh;
my $auth = "-H 'Authorization: Bearer $Keytoll::Control::MASTER'";
wrk(1, $auth, "-s $lua", $k->url . '/key/generate');
my $r = wrk(16, $auth, "'" . $k->url . "/key/info?key=$key'");
printf "| simple admin calls/s (`/key/info`), c=16 | %d | >= 2,000 |\n", $r->{rate};
$r = wrk(1, $auth, "-s $lua", $k->url . '/key/generate');
printf "| key creation, c=1: p50 / p99 | %.1f / %.1f ms | p99 <= 10 ms |\n", @$r{ 50, 99 };
$r = wrk(8, $auth, "-s $lua", $k->url . '/key/generate');
printf "| keys created/s, c=8 | %d | |\n", $r->{rate};
