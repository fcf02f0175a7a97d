# The figures of `make bench` that do not depend on how busy the machine is, in small: what is
# answered from shared memory asks Redis nothing, a flood does not slow clients down, streams
# keep their events.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;

my $BENCH = "$Keytoll::Test::TOP/t/bench/bench.pl";

# { figure => measured }
sub bench {
    my $out = qx("$^X" -I"$Keytoll::Test::TOP/t/lib" "$BENCH" tiny @_ 2>$ENV{KT_BENCH_ERR});
    return { map { /^\| (\S.*?) +\| +(\S+) \|/ ? ($1 => $2) : () } split /\n/, $out };
}

my $dir = File::Temp::tempdir(TMPDIR => 1, CLEANUP => 1);
$ENV{KT_BENCH_ERR} = "$dir/err";

my $f = bench(qw(refusals many memory));
is($f->{'Redis calls of all these'}, 0, 'cached refusals cost no call of Redis') or diag slurp("$dir/err");
cmp_ok($f->{"refusals/s: $_"} // 0, '>', 1000, "refusals, $_: " . ($f->{"refusals/s: $_"} // 0) . ' a second') for 'wrong checksum, no Redis call', 'limit reached, from shared memory';
is($f->{'streams at once'}, 200, '200 streams at once');
is($f->{'streams at once: cut'}, 0, 'none is cut');
is($f->{'streams at once: events lost, merged or reordered, streams'}, 0, 'no event is lost, merged or moved');
cmp_ok($f->{'worker memory, MB'}, '<=', 16, 'a worker has at most 16 MB') if !$ENV{KEYTOLL_ASAN};
cmp_ok($f->{'worker memory per open stream, KB'}, '<=', 40, 'and 40 KB more for each stream') if !$ENV{KEYTOLL_ASAN};
cmp_ok($f->{'Redis per idle key, bytes, 20000 keys'}, '<=', 500, 'Redis keeps an idle key in ' . $f->{'Redis per idle key, bytes, 20000 keys'} . ' bytes');

# A busy machine disturbs one pair or another, not six in a row.
my @ratio;
for (1 .. 6) {
    push @ratio, bench('flood')->{'flood: p99 over that with the same flood elsewhere'} // next;
    last if $ratio[-1] <= 1.3;
}
cmp_ok($ratio[-1], '<=', 1.3, "a flood of random keys leaves a client's p99: @ratio") or diag slurp("$dir/err");

done_testing;
