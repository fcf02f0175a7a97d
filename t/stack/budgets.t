# Budgets through the whole product: several windows on one key in real time, the budget of the
# whole proxy, soft budgets of every level, and who may ask for which model at which level.

use strict;
use warnings;
use File::Temp qw(tempdir);
use Test::More;
use Time::HiRes qw(time sleep);
use Keytoll::Test;
use Keytoll::Stack;

my ($T, $F) = (JSON::PP::true, JSON::PP::false);
my $conf = tempdir('ktcXXXXXX', TMPDIR => 1, CLEANUP => 1);
chmod 0755, $conf;
my $yaml = slurp("$Keytoll::Test::TOP/config/controld.yaml");
$yaml =~ s/^litellm_settings:\n/litellm_settings:\n  max_budget: 0.01\n  budget_duration: 30d\n/m or die;
Keytoll::Test::spew("$conf/controld.yaml", $yaml);
my $s = Keytoll::Stack->up(KEYTOLL_CONFIG => "$conf/controld.yaml");

sub ok_post {
    my ($path, $body, $method) = @_;
    my $r = $s->admin($method // 'POST', $path, $body);
    is($r->{status}, 200, $path) or diag $r->{raw};
    return $r->{json};
}
sub key { return ok_post('/key/generate', {@_})->{key} }
sub chat {
    my ($key, %more) = @_;
    my $headers = delete $more{headers} // [];
    return $s->chat($key, model => 'flat', max_tokens => 10, headers => ['x-mock-completion-tokens', 10, @$headers], %more);
}
sub says { my $r = shift; return $r->{status} . ' ' . ($r->{headers}{'x-keytoll-reason'} // '') }

# 10 tokens of 2 micro-dollars: a call costs 0.00002 USD
sub model {
    my ($name, %o) = @_;
    ok_post('/model/new', { model_name => $name, litellm_params => { model => $o{upstream} // "openai/$name", input_cost_per_token => 0, output_cost_per_token => 0.000002 },
        model_info => { max_output_tokens => 1000, $o{groups} ? (access_groups => $o{groups}) : () } });
}
model('flat');

subtest 'several windows on one key' => sub {
    my $key = key(budget_limits => [{ budget_duration => '3s', max_budget => 0.00002 }, { budget_duration => '1d', max_budget => 0.00004 }]);
    my $token = token($key);
    my ($no, %reset) = (undef);
    for my $round (1, 2) {
        soon { chat($key)->{status} == 200 } 8, "round $round: the short window has room";
        soon { $no = chat($key); $no->{status} == 422 } 5, 'for one call';
        $reset{$round} = $no->{headers}{'x-keytoll-reset'};
        if ($round == 1) {
            like($no->{json}{error}{message}, qr/over 3s budget/, 'the short window is named');
            cmp_ok($reset{1}, '<=', time + 4, 'and when it ends');
        }
    }
    soon { $no = chat($key); ($no->{json}{error}{message} // '') =~ /over 1d budget/ } 8, 'when the short one rolls, the long one refuses, by its name';
    is($no->{headers}{'x-keytoll-entity'}, "key:$token~w~1d", 'and entity');
    cmp_ok($no->{headers}{'x-keytoll-reset'}, '>', $reset{1} + 3, 'until later');
    my $info = ok_post("/key/info?key=$token", undef, 'GET')->{info};
    my %w = map { $_->{budget_duration} => $_->{reset_at} } @{ $info->{budget_limits} };
    ok($w{'3s'} && $w{'1d'}, 'both are shown with their resets');
    sleep 3.2;
    my %later = map { $_->{budget_duration} => $_->{reset_at} } @{ ok_post("/key/info?key=$token", undef, 'GET')->{info}{budget_limits} };
    cmp_ok($later{'3s'}, 'gt', $w{'3s'}, 'reset_at of the short one advances');
    is($later{'1d'}, $w{'1d'}, 'that of the long one stands');
};

subtest 'C67 a duration that is made shorter' => sub {
    my $key = key(max_budget => 0.00003, budget_duration => '30d');
    is(chat($key)->{status}, 200, 'a budget of a month');
    is(chat($key)->{status}, 200, 'and its last call');
    my $no;
    soon { $no = chat($key); $no->{status} == 422 } 5, 'is spent';
    my $far = $no->{headers}{'x-keytoll-reset'};
    ok_post('/key/update', { key => $key, budget_duration => '4s' });
    $no = chat($key);
    is($no->{status}, 422, 'what was spent in the running period still counts');
    cmp_ok($no->{headers}{'x-keytoll-reset'}, '<=', time + 5, 'but it ends with the new duration, not with the old one') if $far > time + 5;
    soon { chat($key)->{status} == 200 } 8, 'and then there is money again';
};

subtest 'soft budgets' => sub {
    my %soft = (soft_budget => 0.00001, max_budget => 1);
    ok_post('/budget/new', { budget_id => 'soft', %soft });
    ok_post('/organization/new', { organization_id => 'so', organization_alias => 'so', budget_id => 'soft' });
    ok_post('/team/new', { team_id => 'st', organization_id => 'so', %soft });
    ok_post('/user/new', { user_id => 'su', auto_create_key => $F, %soft });
    ok_post('/customer/new', { user_id => 'sc', budget_id => 'soft' });
    ok_post('/tag/new', { name => 'sg', budget_id => 'soft' });
    my %key = (team => key(team_id => 'st', %soft), user => key(user_id => 'su'));
    for my $n (1 .. 3) { is(chat($key{$_}, user => 'sc', tags => ['sg'])->{status}, 200, "$_ key, call $n: a soft budget refuses nothing") for sort keys %key }
    my ($pg) = reverse sort glob '/usr/lib/postgresql/*/bin/psql';
    my $socks = slurp("$s->{run}/controld.yaml") =~ m{\?host=([^"\s]+)} ? $1 : -S "$s->{run}/.s.PGSQL.5432" ? $s->{run} : (map { s{/\.s\.PGSQL\.5432$}{}r } glob '/tmp/keytoll-*/.s.PGSQL.5432')[0];
    my $alerts = sub { return join ' ', sort split /\n/, `$pg -XAtq -h $socks -U keytoll -d keytoll -c "SELECT ent FROM alerts WHERE kind = 'soft_budget'" 2>&1` };
    my $want = join ' ', sort 'key:' . token($key{team}), qw(team:st org:so user:su customer:sc tag:sg);
    soon { $alerts->() eq $want } 30, 'but each level has its alert' or diag $alerts->();
};

subtest 'model access' => sub {
    model($_->[0], upstream => $_->[1], $_->[2] ? (groups => $_->[2]) : ()) for ['gpt-x', 'openai/gpt-x'], ['bedrock/anthropic.claude-3', 'bedrock/anthropic.claude-3'], ['bedrock/amazon.titan', 'bedrock/amazon.titan'],
        ['anthropic/claude-2', 'anthropic/claude-2'], ['in-beta', 'openai/in-beta', ['beta']];
    # list, model, whether it passes
    my @table = (
        [['openai/*'], 'anthropic/claude-2', 0], [['gpt-x'], 'gpt-x', 1], [['bedrock/*'], 'bedrock/anthropic.claude-3', 1], [['bedrock/anthropic.*'], 'bedrock/anthropic.claude-3', 1],
        [['bedrock/anthropic.*'], 'bedrock/amazon.titan', 0], [[], 'gpt-x', 1], [['openai/*'], 'gpt-x', 1], [['*'], 'gpt-x', 1], [['all-proxy-models'], 'bedrock/amazon.titan', 1],
        [['beta'], 'in-beta', 1], [['beta'], 'gpt-x', 0], [['gpt-x', 'beta'], 'in-beta', 1], [['bedrock/*'], 'bedrockzzz', 0], [['no-default-models'], 'gpt-x', 0], [['gpt'], 'gpt-x', 0], [['gpt-*'], 'gpt-x', 1],
    );
    my $n = 0;
    my %make = (
        key => sub { return key(models => $_[0]) },
        team => sub { my $id = 'mt' . ++$n; ok_post('/team/new', { team_id => $id, models => $_[0] }); return key(team_id => $id) },
        'team, by all-team-models' => sub { my $id = 'mt' . ++$n; ok_post('/team/new', { team_id => $id, models => $_[0] }); return key(team_id => $id, models => ['all-team-models']) },
        user => sub { my $id = 'mu' . ++$n; ok_post('/user/new', { user_id => $id, models => $_[0], auto_create_key => $F }); return key(user_id => $id) },
        org => sub { my $id = 'mo' . ++$n; ok_post('/organization/new', { organization_id => $id, organization_alias => $id, models => $_[0] }); return key(organization_id => $id) },
    );
    model('bedrockzzz', upstream => 'other/bedrockzzz');
    my %denied = (key => '403 key_model_denied');
    for my $level (sort keys %make) {
        for my $row (@table) {
            my ($list, $model, $passes) = @$row;
            my $r = chat($make{$level}->($list), model => $model);
            is(says($r), $passes ? '200 ' : $denied{$level} // '403 entity_model_denied', "$level [@$list]: $model") or diag $r->{raw};
        }
    }
    is(says(chat(key(models => ['all-team-models']), model => 'gpt-x')), '200 ', 'all-team-models without a team is all');
};

# last: from here on nothing passes
subtest 'the budget of the whole proxy' => sub {
    my @key = map { key() } 1, 2;
    my ($n, $r) = (0);
    for (1 .. 1000) {
        $r = chat($key[$_ % 2]);
        last if $r->{status} != 200;
        $n++;
    }
    is(says($r), '422 budget_exceeded', "after $n more calls nobody passes") or diag $r->{raw};
    is($r->{headers}{'x-keytoll-entity'}, 'global', 'by the proxy');
    is($r->{headers}{'x-keytoll-limit'}, 10_000_000, 'its limit');
    cmp_ok($r->{headers}{'x-keytoll-used'}, '>=', 10_000_000, 'is used');
    is(says(chat($_)), '422 budget_exceeded', 'for every key') for @key;
};

$s->finish;
done_testing();
