# Fields that LiteLLM acts upon and nobody here does: unset, or refused.

use strict;
use warnings;
use Test::More;
use Keytoll::Control;

my $k = Keytoll::Control->new;
my %field = (enforced_params => ['user'], budget_fallbacks => { 'gpt-4o' => ['gpt-4o-mini'] }, throttle_on_budget_exceeded => \1);
my ($s, $j) = $k->post('/key/generate', { enforced_params => [], budget_fallbacks => {}, throttle_on_budget_exceeded => \0 });
is $s, 200, 'unset ones pass' or diag $k->raw;
my $key = $j->{key};
for my $f (sort keys %field) {
    for my $c ([ '/key/generate', {} ], [ '/key/update', { key => $key } ]) {
        my ($path, $more) = @$c;
        ($s, $j) = $k->post($path, { %$more, $f => $field{$f} });
        is $s, 400, "$path: $f is refused";
        is $j->{error}{message}, "$f is not supported", 'by name';
        is $j->{error}{param}, $f, 'as the parameter';
    }
}
is $k->sql('SELECT count(*) FROM keys'), 1, 'nothing was made';

done_testing;
