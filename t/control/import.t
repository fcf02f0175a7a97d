# import-litellm: a database as LiteLLM's schema has it (litellm-api 12), read-only, by
# batches, resumable; keys keep working by their hash, the spend of running periods
# comes along, a trial keeps nothing.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Digest::SHA qw(sha256_hex);
use Keytoll::Control;
use Test::More;

my $k = Keytoll::Control->new;
$k->sql('CREATE DATABASE litellm');
(my $url = $k->{pg_url}) =~ s{/postgres\?}{/litellm?};
my $ours = $k->{pg_url};

sub litellm {
    local $k->{pg_url} = $url;
    my $out = $k->sql(shift);
    my $err = $k->slurp("$k->{dir}/psql.out.err");
    die $err if $err =~ /ERROR/;
    return $out;
}

litellm(<<'END');
CREATE TABLE "LiteLLM_BudgetTable" (budget_id text PRIMARY KEY, max_budget float8, soft_budget float8, max_parallel_requests int, tpm_limit bigint,
    rpm_limit bigint, model_max_budget jsonb, budget_duration text, budget_reset_at timestamp(3), created_at timestamp(3) DEFAULT now(), created_by text,
    updated_at timestamp(3) DEFAULT now(), updated_by text);
CREATE TABLE "LiteLLM_OrganizationTable" (organization_id text PRIMARY KEY, organization_alias text, budget_id text NOT NULL, metadata jsonb DEFAULT '{}',
    models text[] DEFAULT '{}', spend float8 DEFAULT 0, model_spend jsonb DEFAULT '{}', created_at timestamp(3) DEFAULT now(), created_by text, updated_at timestamp(3) DEFAULT now(), updated_by text);
CREATE TABLE "LiteLLM_ModelTable" (id serial PRIMARY KEY, aliases jsonb);
CREATE TABLE "LiteLLM_TeamTable" (team_id text PRIMARY KEY, team_alias text, organization_id text, admins text[] DEFAULT '{}', members text[] DEFAULT '{}',
    members_with_roles jsonb DEFAULT '[]', metadata jsonb DEFAULT '{}', max_budget float8, soft_budget float8, spend float8 DEFAULT 0, models text[] DEFAULT '{}',
    max_parallel_requests int, tpm_limit bigint, rpm_limit bigint, budget_duration text, budget_reset_at timestamp(3), blocked bool DEFAULT false, model_spend jsonb DEFAULT '{}',
    model_max_budget jsonb DEFAULT '{}', router_settings jsonb, team_member_permissions text[] DEFAULT '{}', policies text[] DEFAULT '{}', model_id int, created_at timestamp(3) DEFAULT now(),
    updated_at timestamp(3) DEFAULT now());
CREATE TABLE "LiteLLM_UserTable" (user_id text PRIMARY KEY, user_alias text, team_id text, sso_user_id text, organization_id text, password text, teams text[] DEFAULT '{}', user_role text,
    max_budget float8, spend float8 DEFAULT 0, user_email text, models text[] DEFAULT '{}', metadata jsonb DEFAULT '{}', max_parallel_requests int, tpm_limit bigint, rpm_limit bigint,
    budget_duration text, budget_reset_at timestamp(3), allowed_cache_controls text[] DEFAULT '{}', model_spend jsonb DEFAULT '{}', model_max_budget jsonb DEFAULT '{}',
    created_at timestamp(3), updated_at timestamp(3));
CREATE TABLE "LiteLLM_TeamMembership" (user_id text, team_id text, spend float8 DEFAULT 0, budget_id text, PRIMARY KEY (user_id, team_id));
CREATE TABLE "LiteLLM_OrganizationMembership" (user_id text, organization_id text, user_role text, spend float8, budget_id text, PRIMARY KEY (user_id, organization_id));
CREATE TABLE "LiteLLM_VerificationToken" (token text PRIMARY KEY, key_name text, key_alias text, soft_budget_cooldown bool DEFAULT false, spend float8 DEFAULT 0, expires timestamp(3),
    models text[] DEFAULT '{}', aliases jsonb DEFAULT '{}', config jsonb DEFAULT '{}', router_settings jsonb, user_id text, team_id text, permissions jsonb DEFAULT '{}', max_parallel_requests int,
    metadata jsonb DEFAULT '{}', blocked bool, tpm_limit bigint, rpm_limit bigint, max_budget float8, budget_duration text, budget_reset_at timestamp(3), allowed_cache_controls text[] DEFAULT '{}',
    allowed_routes text[] DEFAULT '{}', model_spend jsonb DEFAULT '{}', model_max_budget jsonb DEFAULT '{}', budget_id text, organization_id text, created_at timestamp(3) DEFAULT now(), created_by text,
    updated_at timestamp(3) DEFAULT now(), updated_by text, auto_rotate bool DEFAULT false);
CREATE TABLE "LiteLLM_EndUserTable" (user_id text PRIMARY KEY, alias text, spend float8 DEFAULT 0, allowed_model_region text, default_model text, budget_id text, blocked bool DEFAULT false);
CREATE TABLE "LiteLLM_TagTable" (tag_name text PRIMARY KEY, description text, models text[] DEFAULT '{}', model_info jsonb, spend float8 DEFAULT 0, budget_id text, created_at timestamp(3) DEFAULT now(), created_by text, updated_at timestamp(3) DEFAULT now());
CREATE TABLE "LiteLLM_ProxyModelTable" (model_id text PRIMARY KEY, model_name text, litellm_params jsonb);
INSERT INTO "LiteLLM_ProxyModelTable" VALUES ('m', 'gpt-4o', '{"api_key": "enc"}');
INSERT INTO "LiteLLM_BudgetTable" (budget_id, max_budget, budget_duration, budget_reset_at, rpm_limit) VALUES ('org-budget', 500.5, '30d', now() + interval '9 days', 100),
    ('member-budget', 5, '1d', now() + interval '5 hours', NULL), ('own-budget', 7, NULL, NULL, NULL), ('soft', NULL, NULL, NULL, NULL);
UPDATE "LiteLLM_BudgetTable" SET soft_budget = 3 WHERE budget_id = 'soft';
UPDATE "LiteLLM_BudgetTable" SET model_max_budget = '{"gpt-4o": {"budget_limit": 0.25, "time_period": "1d"}}' WHERE budget_id IN ('org-budget', 'own-budget', 'soft');
INSERT INTO "LiteLLM_OrganizationTable" (organization_id, organization_alias, budget_id, spend, models) VALUES ('org1', 'Org One', 'org-budget', 12.25, '{gpt-4o,claude-3}');
INSERT INTO "LiteLLM_ModelTable" (aliases) VALUES ('{"fast": "gpt-4o-mini"}');
INSERT INTO "LiteLLM_TeamTable" (team_id, team_alias, organization_id, members_with_roles, metadata, max_budget, spend, budget_duration, budget_reset_at, models, model_id, team_member_permissions, model_max_budget)
    VALUES ('team1', 'Team One', 'org1', '[{"role": "admin", "user_id": "ann", "user_email": null}, {"role": "user", "user_id": "bob"}]', '{"team_member_budget_id": "member-budget", "model_rpm_limit": {"gpt-4o": 7}}',
            100, 1e-7, '7d', now() + interval '2 days', '{gpt-4o}', 1, '{/key/generate}', '{}'),
    ('litellm-dashboard', 'UI', NULL, '[]', '{}', NULL, 0, NULL, NULL, '{}', NULL, '{}', '{}');
INSERT INTO "LiteLLM_UserTable" (user_id, user_email, user_role, password, teams, max_budget, spend, budget_duration, budget_reset_at, models) VALUES
    ('ann', 'Ann@Example.com', 'internal_user', repeat('ab', 32), '{team1}', 20, 3.5, '1mo', now() + interval '4 days', '{gpt-4o}'), ('bob', 'bob@example.com', 'weird_role', NULL, '{team1}', NULL, 0, NULL, NULL, '{}'),
    ('ann2', 'ann@example.com', 'internal_user', NULL, '{}', NULL, 0, NULL, NULL, '{}'), ('default_user_id', NULL, 'proxy_admin', NULL, '{}', NULL, 0, NULL, NULL, '{}'),
    ('late', 'late@example.com', NULL, NULL, '{}', 10, 9.75, '1d', now() - interval '10 minutes', '{}'), ('litellm-proxy-budget', NULL, NULL, NULL, '{}', NULL, 99, NULL, NULL, '{}');
INSERT INTO "LiteLLM_TeamMembership" VALUES ('ann', 'team1', 0.5, 'member-budget'), ('bob', 'team1', 0.25, 'own-budget');
INSERT INTO "LiteLLM_OrganizationMembership" VALUES ('ann', 'org1', 'org_admin', 0, NULL), ('bob', 'org1', 'internal_user', 1.25, 'own-budget');
INSERT INTO "LiteLLM_EndUserTable" VALUES ('cust/1', 'Customer', 2.5, 'eu', NULL, 'own-budget', false), ('bad', NULL, 0, NULL, NULL, NULL, true);
INSERT INTO "LiteLLM_TagTable" (tag_name, budget_id, spend) VALUES ('research', 'own-budget', 0.125);
END
my @plain = map { "sk-litellm-key-number-$_" } 1 .. 5;
my @hash = map { sha256_hex($_) } @plain;
litellm(<<"END");
INSERT INTO "LiteLLM_VerificationToken" (token, key_name, key_alias, user_id, team_id, max_budget, spend, budget_duration, budget_reset_at, models, metadata, blocked, expires, budget_id, model_max_budget) VALUES
    ('$hash[0]', 'sk-...r-1', 'first', 'ann', NULL, 10.000000001, 1.5, '30d', now() + interval '20 days', '{gpt-4o}', '{"tags": ["research"], "model_tpm_limit": {"gpt-4o": 900}}', NULL, NULL, NULL, '{}'),
    ('$hash[1]', 'sk-...r-2', 'first', 'bob', 'team1', NULL, 0.00000003, NULL, NULL, '{}', '{}', true, NULL, 'soft', '{}'),
    ('$hash[2]', 'sk-...r-3', NULL, NULL, 'team1', NULL, 0, NULL, NULL, '{}', '{"service_account_id": "svc"}', false, '2030-01-02 03:04:05', NULL, '{"gpt-4o": {"budget_limit": 2, "time_period": "1d"}}'),
    ('$hash[3]', 'sk-...r-4', 'ui', 'ann', 'litellm-dashboard', NULL, 0, NULL, NULL, '{}', '{}', NULL, NULL, NULL, '{}'),
    ('$hash[4]', 'sk-...r-5', 'dangling', 'ghost', 'ghost-team', NULL, 0, NULL, NULL, '{}', '{}', NULL, NULL, 'ghost-budget', '{}'),
    ('plain-text-token', NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, '{}', '{}', NULL, NULL, NULL, '{}');
INSERT INTO "LiteLLM_VerificationToken" (token, key_name) SELECT encode(sha256(('bulk' || i)::bytea), 'hex'), 'sk-...bulk' FROM generate_series(1, 1200) i;
END
litellm(<<"END");
ALTER TABLE "LiteLLM_VerificationToken" ADD COLUMN budget_fallbacks jsonb, ADD COLUMN throttle_on_budget_exceeded bool, ADD COLUMN budget_exceeded_throttle_percentage int;
UPDATE "LiteLLM_VerificationToken" SET rpm_limit = 8, throttle_on_budget_exceeded = true, budget_exceeded_throttle_percentage = 25, budget_fallbacks = '{"gpt-4o": ["gpt-4o-mini"]}',
    metadata = metadata || '{"enforced_params": ["user"]}' WHERE token = '$hash[0]';
UPDATE "LiteLLM_VerificationToken" SET metadata = '{"throttle_on_budget_exceeded": true}' WHERE token = '$hash[4]';
END
my $theirs = sub { litellm(qq{SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM "LiteLLM_VerificationToken" t}) };
my $before = $theirs->();

# a trial keeps nothing

my $conf = "$k->{dir}/controld.yaml";
my ($rc, $out) = $k->run('import-litellm', $url, '--dry-run', '-c', $conf);
is $rc, 0, 'a trial' or diag $out;
like $out, qr/keys\n(?:    .*\n)*    1206 read, 1204 would be imported, 2 were there or were left out/, 'counts the keys';
like $out, qr/the token is no SHA-256: skipped/, 'says what is skipped and why';
like $out, qr/the alias is taken: imported without it/, 'that an alias is taken';
like $out, qr/throttle_on_budget_exceeded without a rate/, 'that a key can not be throttled';
like $out, qr/another user has the same e-mail address/, 'that an address is taken';
like $out, qr/does not carry over:\n    1 rows of models made over the API/, 'and what has no place here';
is $k->sql('SELECT count(*) FROM keys'), 0, 'and keeps nothing';
is $k->sql("SELECT count(*) FROM settings WHERE name = 'import_litellm'"), 0, 'not even a mark';

# an import that stops in the middle goes on where it stopped

my $log = "$k->{dir}/import.log";
local $ENV{KEYTOLL_MASTER_KEY} = $Keytoll::Control::MASTER;
my $pid = $k->_spawn('import', undef, $log, Keytoll::Control::binary(), 'import-litellm', $url, '-c', $conf);
$k->until(sub { $k->sql('SELECT count(*) FROM keys') > 0 }, 20);
CORE::kill('KILL', $pid); waitpid $pid, 0; delete $k->{pid}{import};
($rc, $out) = $k->run('import-litellm', $url, '-c', $conf);
is $rc, 0, 'the import' or diag $out;
is $k->sql('SELECT count(*) FROM keys'), 1204, 'every key is there once';
like $out, qr/going on where it stopped/, 'it went on where it stopped';
is $theirs->(), $before, "LiteLLM's rows are what they were";

# what came

my ($s, $j);
for my $i (0, 1, 2, 4) {
    ($s, $j) = $k->get("/key/info?key=$plain[$i]");
    is $s, 200, "key $i is known by its plain text";
}
($s, $j) = $k->get("/key/info?key=$plain[0]");
is_deeply [ @{ $j->{info} }{qw(key_alias user_id models spend)} ], [ 'first', 'ann', ['gpt-4o'], 1.5 ], 'with alias, owner, models and spend';
like $k->raw, qr/"max_budget":10\.000000001[,}]/, 'to the nano-dollar';
is_deeply $j->{info}{metadata}{tags}, ['research'], 'and tags';
is_deeply $j->{info}{budget_fallbacks}, { 'gpt-4o' => ['gpt-4o-mini'] }, 'cheaper models';
my $policy = JSON::PP->new->decode($k->sql("SELECT policy FROM kt_policy WHERE name = 'key:$hash[0]'"));
is_deeply [ @$policy{qw(params throttle falls)} ], [ ['user'], 25, { 'gpt-4o' => ['gpt-4o-mini'] } ], 'and other options bind';
($s, $j) = $k->get('/key/info', key => $plain[0]);
is $s, 200, 'the key opens the API';
($s, $j) = $k->get('/key/info', key => $plain[1]);
is $s, 401, 'the blocked one does not';
is $k->sql("SELECT b.soft_budget_nusd FROM budgets b JOIN keys k USING (budget_id) WHERE token = '$hash[1]'"), '3000000000', 'its soft budget came along';
($s, $j) = $k->get("/key/info?key=$plain[2]");
is $j->{info}{expires}, '2030-01-02T03:04:05.000000Z', 'times are read as UTC';
is $k->sql("SELECT limit_nusd FROM submeters WHERE owner = 'key:$hash[2]' AND model = 'gpt-4o'"), '2000000000', 'model budgets are meters';
is $k->sql("SELECT tpm_limit FROM submeters WHERE owner = 'key:$hash[0]' AND model = 'gpt-4o'"), '900', 'and model rates';
is $k->sql("SELECT rpm_limit FROM submeters WHERE owner = 'team:team1' AND model = 'gpt-4o'"), '7', 'of teams too';
($s, $j) = $k->get("/key/info?key=$plain[4]");
is_deeply [ @{ $j->{info} }{qw(user_id team_id budget_id)} ], [ 'ghost', 'ghost-team', undef ], 'dangling owners stay, a dangling budget goes';
($s) = $k->get("/key/info?key=$plain[3]");
is $s, 404, 'keys of the old dashboard do not come';

($s, $j) = $k->get('/team/info?team_id=team1');
is_deeply [ @{ $j->{team_info} }{qw(team_alias organization_id max_budget models)} ], [ 'Team One', 'org1', 100, ['gpt-4o'] ], 'the team';
like $k->raw, qr/"spend":0\.0000001[,}]/, 'with what it spent';
is_deeply [ map { "$_->{role} $_->{user_id}" } @{ $j->{team_info}{members_with_roles} } ], [ 'admin ann', 'user bob' ], 'its members';
is_deeply $j->{team_info}{litellm_model_table}{model_aliases}, { fast => 'gpt-4o-mini' }, 'its aliases';
my %place = map { $_->{user_id} => $_ } @{ $j->{team_memberships} };
is_deeply [ map { $place{$_}{spend}, $place{$_}{litellm_budget_table}{max_budget} } qw(ann bob) ], [ 0.5, 5, 0.25, 7 ], 'who follows the default and who does not';
is $k->sql("SELECT budget_id FROM memberships WHERE user_id = 'ann' AND team_id = 'team1'"), '', 'the default is followed, not copied';
($s, $j) = $k->get('/user/info?user_id=ann');
is_deeply [ @{ $j->{user_info} }{qw(user_email user_role spend max_budget)} ], [ 'Ann@Example.com', 'internal_user', 3.5, 20 ], 'a user';
($s, $j) = $k->get('/user/info?user_id=bob');
is $j->{user_info}{user_role}, undef, 'an unknown role is none';
($s, $j) = $k->get('/user/info?user_id=late');
is $j->{user_info}{spend}, 0, 'spend of a period that is over is not carried over';
is $k->sql("SELECT password_hash FROM users WHERE user_id = 'ann'"), '$sha256$' . 'ab' x 32, 'an old password is kept apart';
($s, $j) = $k->get('/organization/info?organization_id=org1');
is_deeply [ $j->{spend}, $j->{litellm_budget_table}{max_budget}, $j->{members}[0]{user_role} ], [ 12.25, 500.5, 'org_admin' ], 'the organization';
is_deeply [ map { @$_{qw(user_id spend)}, $_->{litellm_budget_table}{max_budget} } grep { $_->{user_id} eq 'bob' } @{ $j->{members} } ], [ 'bob', 1.25, 7 ], 'its members with their budgets';
ok $k->until(sub { my $e = $k->state('orgmember:org1/bob'); $e && $e->{limit} eq '7000000000' && $e->{used} eq '1250000000' }, 15), 'which are enforced';
like $k->sql("SELECT policy FROM kt_policy WHERE name = 'key:$hash[1]'"), qr{"orgmember:org1/bob"}, 'on his keys';
($s, $j) = $k->get('/customer/info?end_user_id=cust/1');
is_deeply [ @$j{qw(alias spend allowed_model_region)} ], [ 'Customer', 2.5, 'eu' ], 'a customer';
is $k->sql("SELECT limit_nusd FROM submeters WHERE owner = '$_' AND model = 'gpt-4o'"), '250000000', "$_ has the model limits of its budget" for 'customer:cust%2F1', 'org:org1', 'tag:research', "key:$hash[1]";
my ($days) = $k->sql("SELECT round((period_end_s - kt_now_s()) / 86400.0) FROM keys WHERE token = '$hash[0]'");
cmp_ok $days, '<=', 20, 'the period ends when LiteLLM would end it or at ours';

# and it is at the gate

ok $k->until(sub { my $st = $k->state("key:$hash[0]"); $st && $st->{used} eq '1500000000' }, 15), 'Redis has the key and what it used';
ok $k->until(sub { $k->state('team:team1') && $k->state('user:ghost') && $k->state('team:ghost-team') }, 15), 'and its owners';
is $k->until(sub { $k->sql('SELECT count(*) FROM outbox') == 0 }, 30), 1, 'everything was pushed';

# a daemon that runs may have pushed a policy before its meters were made: they are named when the import is done
$k->sql('DELETE FROM submeters');
ok $k->until(sub { $k->sql('SELECT count(*) FROM outbox') == 0 }, 30), 'everything was pushed without limits by model';
$k->sql("DELETE FROM settings WHERE name = 'import_litellm'");
($rc, $out) = $k->run('import-litellm', $url, '-c', $conf);
is $rc, 0, 'the import makes them again';
ok $k->until(sub { index($k->redis('GET', "kt:{0000}:e:$_") // '', "$_~m~gpt-4o") >= 0 }, 20), "$_ names its meter in Redis" for 'customer:cust%2F1', 'org:org1', 'tag:research';

# once more: nothing new, nothing twice

$k->sql("DELETE FROM settings WHERE name = 'import_litellm'");
my $sum = sub { $k->sql("SELECT count(*), sum(used_nusd) FROM meters") };
my $had = $sum->();
($rc, $out) = $k->run('import-litellm', $url, '-c', $conf);
is $rc, 0, 'the import again';
like $out, qr/1206 read, 0 imported/, 'imports no key';
is $sum->(), $had, 'and no spend twice';
($rc, $out) = $k->run('import-litellm', $ours, '-c', $conf);
is $rc, 1, 'another database is refused';
like $out, qr/no database of a LiteLLM proxy/, 'and says why';
($rc, $out) = $k->run('import-litellm', 'postgresql://nobody@127.0.0.1:1/x', '-c', $conf);
is $rc, 1, 'no database is an error';
unlike $k->logs, qr/"level":"error"/, 'no error in the log';
done_testing;
