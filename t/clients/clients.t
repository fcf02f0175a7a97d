# The official OpenAI and Anthropic client libraries, over the whole stack.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;
use Keytoll::Stack;

my $s = Keytoll::Stack->up;
my $dir = "$Keytoll::Test::TOP/t/clients";
my $out = do {
    local %ENV = (%ENV, %{ $s->{vars} });
    `cd $dir && node clients.mjs 2>&1`;
};
my @lines = grep { /^(not )?ok \d+/ } split /\n/, $out;
for (@lines) {
    my ($not, $name) = /^(not )?ok \d+ - (.*)/;
    ok(!$not, $name);
}
is($out =~ /^1\.\.(\d+)/m ? $1 : 0, scalar @lines, 'every check ran') or diag $out;
cmp_ok(scalar @lines, '>=', 11, 'and there were some');
$s->finish;
done_testing();
