# Many members at once, and lists of models that come by metadata: the same rules as for
# one member, and nothing that is no name gets into a list.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Keytoll::World;
use Test::More;

my $k = Keytoll::Control->new(config => <<'END');
model_list:
  - {model_name: gpt-4o, litellm_params: {model: openai/gpt-4o}}
  - {model_name: gpt-4o-mini, litellm_params: {model: openai/gpt-4o-mini}}
END
my $w = Keytoll::World->new($k);
my ($s, $j);
sub text { return JSON::PP->new->canonical->allow_nonref->encode($_[0]) }
sub bulk { my ($who, $user, %b) = @_; ($s, $j) = $w->as($who, POST => '/team/bulk_member_add', { team_id => 'alpha', members => [ { role => 'user', user_id => $user } ], %b }); return $s }
sub models { return $k->sql("SELECT allowed_models FROM memberships WHERE team_id = '$_[0]' AND user_id = '$_[1]'") }
sub as { ($s, $j) = $w->as(@_); return $s }
sub admin { ($s, $j) = $k->request(@_); return $s }
sub alive { my ($c) = $k->get('/health/liveliness'); return $c }

# --- types

for my $bad ([ {} ], [ 1, undef ], [undef], [ 'gpt-4o', [] ], 5, 'x', {}) {
    is bulk(TA => 'new-1', allowed_models => $bad), 422, 'no list of names: ' . text($bad);
}
is bulk(TA => 'new-1', %$_), 422, 'no limit: ' . text($_) for { rpm_limit => [] }, { tpm_limit => 'many' }, { budget_duration => 7 }, { max_budget_in_team => {} };
is models('alpha', 'new-1'), '', 'nobody was added';
is bulk(TA => 'new-1', allowed_models => undef), 200, 'null is no list' or diag $k->raw;
is models('alpha', 'new-1'), '{}', 'the team decides';
is bulk(TA => 'new-2', rpm_limit => 3, tpm_limit => 4, budget_duration => '1d', max_budget_in_team => 2, allowed_models => ['gpt-4o']), 200, 'limits' or diag $k->raw;
is $k->sql("SELECT concat_ws(' ', rpm_limit, tpm_limit, b.budget_duration, max_budget_nusd, allowed_models) FROM memberships m JOIN budgets b USING (budget_id) WHERE user_id = 'new-2'"),
    '3 4 1d 2000000000 {gpt-4o}', 'are those of the member';
($s, $j) = $k->get('/openapi.json');
my $schema = $j->{paths}{'/team/bulk_member_add'}{post}{requestBody}{content}{'application/json'}{schema};
$schema = $j->{components}{schemas}{ $schema->{'$ref'} =~ s{.*/}{}r } if $schema->{'$ref'};
is_deeply [ grep { !$schema->{properties}{$_} } qw(max_budget_in_team rpm_limit tpm_limit budget_duration allowed_models) ], [], 'the document of the API has them';

# --- the models of the team

$w->ok(POST => '/team/update', { team_id => 'alpha', models => ['gpt-4o-mini'] });
for my $who (qw(TA PA)) {
    is bulk($who => 'new-3', allowed_models => ['gpt-4o']), 400, "$who: a model that the team may not use";
    like $k->raw, qr/allowed_models: .* is not a model of the team/, 'with the reason';
}
is models('alpha', 'new-3'), '', 'nobody was added';
is bulk(TA => 'new-3', allowed_models => ['gpt-4o-mini']), 200, 'one that it may' or diag $k->raw;
is models('alpha', 'new-3'), '{gpt-4o-mini}', 'is in the list';
is bulk(PA => 'new-3', team_id => 'nowhere', allowed_models => ['gpt-4o']), 200, 'no such team';
is $j->{failed_additions}, 1, 'says so for each';
$w->ok(POST => '/team/update', { team_id => 'alpha', models => [] });

# --- lists within metadata

my @lists = ([undef], [ {} ], [ 'gpt-4o', 5 ], [ [] ]);
for my $bad (@lists) {
    my %b = (metadata => { default_team_member_models => $bad });
    as(OA => POST => '/team/new', { team_id => 'delta', organization_id => 'org-A', %b, members_with_roles => [ { role => 'user', user_id => 'user-IU' } ] });
    is $s, 422, 'default_team_member_models of a new team: ' . text($bad);
    like $k->raw, qr/metadata\.default_team_member_models/, 'by name';
    is as(OA => POST => '/team/update', { team_id => 'gamma', %b }), 422, 'of one that changes';
    is as(OA => PATCH => '/team/gamma', \%b), 422, 'or is patched';
    is admin(POST => '/key/generate', { metadata => { $_ => $bad } }), 422, "$_ of a key" for qw(tags enforced_params);
}
is $k->sql("SELECT count(*) FROM teams WHERE team_id = 'delta'"), 0, 'there is no such team';
is as(OA => POST => '/team/new', { team_id => 'delta', organization_id => 'org-A', metadata => { default_team_member_models => ['gpt-4o-mini'] }, members_with_roles => [ { role => 'user', user_id => 'user-IU' } ] }), 200, 'a list of names' or diag $k->raw;
is models('delta', 'user-IU'), '{gpt-4o-mini}', 'holds for the member';

# what no route stores lets nothing in

$k->sql(q{UPDATE teams SET metadata = '{"default_team_member_models":[null,"gpt-4o",{}]}' WHERE team_id = 'delta'});
$w->ok(POST => '/team/member_add', { team_id => 'delta', member => { role => 'user', user_id => 'user-SA' } });
is models('delta', 'user-SA'), '{no-default-models,gpt-4o,no-default-models}', 'what is no name lets nothing in';
$k->sql("ALTER TABLE memberships DROP CONSTRAINT memberships_allowed_models_check; UPDATE memberships SET allowed_models = '{NULL}' WHERE team_id = 'delta' AND user_id = 'user-SA'");
my $key = $w->fresh('SA', 'delta');
for my $p (qw(/v1/models /model/info /v2/model/info /model_group/info /v1/models/gpt-4o)) {
    ($s) = $k->get($p, key => $key);
    unlike $k->raw // '', qr/"gpt-4o/, "$p shows nothing for a list of nothing ($s)";
    is alive(), 200, 'and the daemon lives';
}
$k->sql("UPDATE memberships SET allowed_models = '{no-default-models}' WHERE team_id = 'delta' AND user_id = 'user-SA'; ALTER TABLE memberships ADD CONSTRAINT memberships_allowed_models_check CHECK (array_position(allowed_models, NULL) IS NULL)");
eval { $k->sql("UPDATE memberships SET allowed_models = '{NULL}' WHERE team_id = 'delta'") };
is models('delta', 'user-SA'), '{no-default-models}', 'and no null gets in';

done_testing;
