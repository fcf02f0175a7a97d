# What default_key_generate_params and upperbound_key_generate_params fill in gives way to the
# limits of the key that makes another; what its user sends himself does not.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Test::More;

my $k = Keytoll::Control->new(config => <<'END');
litellm_settings:
  default_key_generate_params: {max_budget: 50, budget_duration: 30d, models: [gpt-4o], rpm_limit: 100, allowed_routes: [/key/*, /v1/*], model_rpm_limit: {gpt-4o: 9}, budget_enforcement: strict}
  upperbound_key_generate_params: {tpm_limit: 1000, duration: 30d}
END
my ($s, $j);
my $made = ($k->post('/user/new', { user_id => 'u1', user_role => 'internal_user', auto_create_key => \0 }))[1];
sub maker { ($s, $j) = $k->post('/key/generate', { user_id => 'u1', @_ }); is $s, 200, 'a key' or diag $k->raw; return $j->{key} }
sub child { my $key = shift; ($s, $j) = $k->post('/key/generate', {@_}, key => $key); return $s }
sub num { return map { defined ? 0 + $_ : undef } @_ }

my $wide = maker(max_budget => 100, budget_duration => '60d', models => ['gpt-4o'], rpm_limit => 500);
is child($wide), 200, 'a maker with more than the defaults' or diag $k->raw;
is_deeply [ num(@$j{qw(max_budget rpm_limit tpm_limit)}), $j->{budget_duration} ], [ 50, 100, 1000, '60d' ], 'the lower of both';

my $narrow = maker(max_budget => 10, budget_duration => undef, models => ['gpt-4o-mini'], rpm_limit => 5, tpm_limit => 7, duration => '1d', allowed_routes => ['/key/generate'], model_rpm_limit => { 'gpt-4o' => 2 });
$k->sql("UPDATE keys SET period_kind = 'none', budget_duration = NULL WHERE token = '$j->{token}'");
is child($narrow), 200, 'a maker with less' or diag $k->raw;
is_deeply [ num(@$j{qw(max_budget rpm_limit tpm_limit)}), $j->{budget_duration}, @$j{qw(models allowed_routes)}, $j->{metadata}{model_rpm_limit} // $j->{model_rpm_limit} ],
    [ 10, 5, 7, undef, ['gpt-4o-mini'], ['/key/generate'], { 'gpt-4o' => 2 } ], 'passes on his own';
cmp_ok $k->sql("SELECT extract(epoch FROM expires - now()) FROM keys WHERE token = '$j->{token}'"), '<=', 86400, 'and his end';
for my $c ([ max_budget => 11 ], [ rpm_limit => 6 ], [ budget_duration => '1d' ], [ models => ['gpt-4o'] ], [ duration => '2d' ], [ allowed_routes => ['/key/update'] ], [ model_rpm_limit => { 'gpt-4o' => 3 } ]) {
    is child($narrow, @$c), 403, "not so $c->[0] that he asks for himself" or diag $k->raw;
}

done_testing;
