# t/PAINS.md names a test for every pain that concerns the gate, and each named test is there.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;

my $top = $Keytoll::Test::TOP;
my %row;
for (split /\n/, slurp("$top/t/PAINS.md")) {
    my ($pain, $what, $file, $words) = /^\| (C\d\d) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$/ or next;
    ok(!$row{$pain}++, "$pain: one row");
    if ($file eq '—' || $file eq "\xe2\x80\x94") {
        like($words, qr/^(?:no test|later): /, "$pain: says why it has no test");
        next;
    }
    ok(index(slurp("$top/$file"), $words) >= 0, "$pain: $file has \"$words\"");
}
is(join(' ', sort keys %row), join(' ', map { sprintf 'C%02d', $_ } 1 .. 67), 'C01 to C67');

done_testing();
