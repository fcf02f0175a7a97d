# The faults of `make chaos`, each once: the books must agree afterwards.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;

my $out = qx{$^X -It/lib t/chaos/chaos.pl short 2>&1};
my $code = $?;
note($_) for split /\n/, $out;
is($code >> 8, 0, 'chaos short') or diag($out);
like($out, qr/^all books agree/m, 'all books agree');
my @checks = $out =~ /^(ok|WRONG) {2,5}(\S.*?) {2,}/mg;
while (my ($verdict, $what) = splice @checks, 0, 2) { is($verdict, 'ok', $what) }
done_testing();
