# The verdicts of the function library carry the numbers of kt_reason.h.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;

my $c = slurp("$Keytoll::Test::TOP/shared/kt_reason.h");
my $lua = slurp("$Keytoll::Test::BIN/keytoll.lua");

my ($enum) = $c =~ /typedef enum \{(.*?)\} kt_reason_t;/s or BAIL_OUT('no enum');
$enum =~ s{/\*.*?\*/}{}gs;
my ($n, %c) = 0;
for my $item (grep { /\S/ } split /,/, $enum) {
    my ($name, $value) = $item =~ /^\s*(\w+)\s*(?:=\s*(\d+))?\s*$/ or BAIL_OUT("cannot read \"$item\"");
    $n = $value if defined $value;
    $c{ $name =~ s/^KT_//r } = $n++;
}

# the library's shorter words
my %same = (OK => 'ADMITTED', BUDGET => 'BUDGET_EXCEEDED', HELD => 'BUDGET_HELD', ENT_BLOCKED => 'ENTITY_BLOCKED', ENT_MODEL => 'ENTITY_MODEL', ROUTE => 'ROUTE_DENIED', MISSING => 'ENTITY_MISSING');

my ($head) = $lua =~ /-- Verdicts;.*?\n(.*?)\n\n/s or BAIL_OUT('no verdicts');
my %lua;
while ($head =~ /^local ([\w, ]+?) = ([\d, \n]+?)$/mg) {
    my ($names, $values) = ($1, $2);
    my @names = split /,\s*/, $names;
    my @values = split /,\s*/, $values;
    is(scalar @values, scalar @names, "as many numbers as names in \"$names\"");
    @lua{@names} = @values;
}
is(scalar(keys %lua), 22, '22 verdicts in the library');
is($lua{$_}, $c{ $same{$_} // $_ }, "$_ is KT_" . ($same{$_} // $_)) for sort { $lua{$a} <=> $lua{$b} } keys %lua;

# receipt bits that the gate and the ledger read
like($lua, qr/^local B_RPM, B_TPM, B_PAR, B_UCR, B_MONEY, B_NOHOLD = 1, 2, 4, 8, 16, 32$/m, 'receipt bits');
like($lua, qr/^local B_LATER = 64\b/m, 'the bit of an admission without Redis');
like($lua, qr/^local B_STRICT = 128\b.*\nlocal B_IN, B_OUT = 256, 512\b.*\nlocal B_LAST = 1024\b/m, 'and of amounts');

done_testing();
