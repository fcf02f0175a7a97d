# The C unit tests and the replay of every fuzz corpus, as subtests.

use strict;
use warnings;
use TAP::Parser;
use Test::More;

(my $top = __FILE__) =~ s{/?t/unit/unit\.t$}{};
$top = '.' if $top eq '';
my $bin = $ENV{KEYTOLL_BIN} || "$top/build";

sub run_tap {
    my ($name, @cmd) = @_;
    subtest $name => sub {
        my $p = TAP::Parser->new({ exec => \@cmd, merge => 1 });
        while (my $r = $p->next) {
            if ($r->is_test) { ok($r->is_ok, $r->description) }
            elsif ($r->is_unknown || $r->is_comment) { diag($r->as_string) if $r->as_string =~ /Sanitizer|runtime error|^#/ }
        }
        is($p->exit, 0, 'exit code 0');
        ok(!$p->parse_errors, 'a complete plan') or diag join "\n", $p->parse_errors;
        cmp_ok($p->tests_run, '>', 0, 'it tested something');
    };
}

my @units = map { s{.*/}{}r =~ s/\.c$//r } glob "$top/t/unit/*.c";
run_tap($_, "$bin/unit/$_") for @units;
cmp_ok(scalar @units, '>=', 8, 'all unit tests are there');

for my $target (map { m{fuzz_(\w+)\.c$} } glob "$top/t/fuzz/fuzz_*.c") {
    my @corpus = glob "$top/t/fuzz/corpus/$target/*";
    run_tap("corpus of $target", "$bin/fuzz/replay_$target", @corpus);
}

done_testing();
