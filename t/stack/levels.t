# Levels through the whole product, set by the admin API and hit through nginx: end users
# wherever their id stands, tags, aliases under every spelling of a route, allow-lists,
# and worlds of the decision table.
#
# KEYTOLL_SEED=n repeats the worlds.

use strict;
use warnings;
use Test::More;
use File::Temp qw(tempdir);
use Keytoll::Test;
use Keytoll::Stack;
use Keytoll::Levels;

my $conf = tempdir('ktcXXXXXX', TMPDIR => 1, CLEANUP => 1);
chmod 0755, $conf;
my $yaml = slurp("$Keytoll::Test::TOP/config/controld.yaml");
$yaml =~ s/^litellm_settings:\n/litellm_settings:\n  max_end_user_budget_id: everybody\n/m or die;
Keytoll::Test::spew("$conf/controld.yaml", $yaml);
my $s = Keytoll::Stack->up(KEYTOLL_CONFIG => "$conf/controld.yaml");
my ($T, $F) = (JSON::PP::true, JSON::PP::false);
my $master = $s->{vars}{KEYTOLL_MASTER_KEY};

sub ok_post {
    my ($path, $body, $method) = @_;
    my $r = $s->admin($method // 'POST', $path, $body);
    is($r->{status}, 200, "$path") or diag $r->{raw};
    return $r->{json};
}
sub key { return ok_post('/key/generate', {@_})->{key} }

sub call {
    my ($key, $path, $body, @headers) = @_;
    return http_call($s->{port}, 'POST', $path, ['Authorization', "Bearer $key", 'Content-Type', 'application/json', 'x-mock-completion-tokens', 10, @headers],
        ref $body ? $Keytoll::Test::JSON->encode($body) : $body);
}
sub chat { my ($key, $more, @headers) = @_; return call($key, '/v1/chat/completions', { model => 'flat', max_tokens => 10, messages => [{ role => 'user', content => 'hi' }], %$more }, @headers) }
sub says { my $r = shift; return $r->{status} . ' ' . ($r->{headers}{'x-keytoll-reason'} // '') }

# 10 tokens of 2 micro-dollars: a call costs 20,000 nano-USD
sub model {
    my ($name, %o) = @_;
    ok_post('/model/new', { model_name => $name, litellm_params => { model => $o{upstream} // "openai/$name", input_cost_per_token => 0, output_cost_per_token => $o{out} // 0.000002 },
        model_info => { max_output_tokens => 1000, $o{groups} ? (access_groups => $o{groups}) : () } });
}
model('flat');
model('other');
model('gratis', out => 0);
model('grouped', groups => ['beta']);

# end users: the id from every place, in LiteLLM's order, one verdict

my $key = key();
ok_post('/customer/new', { user_id => 'spent', max_budget => 0 });
my %meta = (metadata => { user_id => 'spent' });
my @places = (
    ['body user', { user => 'spent' }], ['metadata.user_id', {%meta}], ['litellm_metadata.user', { litellm_metadata => { user => 'spent' } }],
    ['safety_identifier', { safety_identifier => 'spent' }], ['x-litellm-customer-id', {}, 'x-litellm-customer-id', 'spent'],
    ['x-litellm-end-user-id', {}, 'X-LiteLLM-End-User-Id', 'spent'],
    ['the header before the body', { user => 'free' }, 'x-litellm-customer-id', 'spent'],
    ['customer-id before end-user-id', {}, 'x-litellm-end-user-id', 'free', 'x-litellm-customer-id', 'spent'],
    ['user before litellm_metadata', { user => 'spent', litellm_metadata => { user => 'free' } }],
    ['litellm_metadata before metadata', { litellm_metadata => { user => 'spent' }, metadata => { user_id => 'free' } }],
    ['metadata before safety_identifier', { %meta, safety_identifier => 'free' }],
);
for (@places) {
    my ($name, $more, @h) = @$_;
    my $r = chat($key, $more, @h);
    is(says($r), '422 budget_exceeded', "$name: refused");
    is($r->{headers}{'x-keytoll-entity'}, 'customer:spent', "$name: by its end user") or diag $r->{raw};
    is(says(chat($master, $more, @h)), '422 budget_exceeded', "$name: with the master key too");
}
is(chat($key, { user => 'free', safety_identifier => 'spent' })->{status}, 200, 'a place behind another is not read');
is(says(chat($key, {}, 'x-litellm-customer-id', 'x' x 300)), '400 body_invalid', 'an id that is too long is not cut');
ok_post('/customer/block', { user_ids => ['bad'] });
is(says(chat($key, { user => 'bad' })), '401 entity_blocked', 'a blocked end user');

# the very first requests of an end user that nobody knows, all at once

ok_post('/budget/new', { budget_id => 'everybody', max_budget => 0.0001, budget_duration => '30d', budget_enforcement => 'strict' });
my @req = map { ['POST', '/v1/chat/completions', ['Authorization', "Bearer $key", 'Content-Type', 'application/json', 'x-mock-completion-tokens', 10, 'x-mock-delay-ms', 30],
    $Keytoll::Test::JSON->encode({ model => 'flat', max_tokens => 10, user => 'never seen', messages => [] })] } 1 .. 64;
my %by;
my $port2 = $s->another_nginx;
$by{ $_->{status} }++ for http_burst([$s->{port}, $port2], \@req);
is($by{200}, 5, '64 first requests at once share the default budget: 5 pass, over two nginx') or diag explain \%by;
eventually { says(chat($key, { user => 'never seen' })) eq '422 budget_exceeded' } 10;
is(says(chat($key, { user => 'never seen' })), '422 budget_exceeded', 'and then none');
is(chat($key, { user => 'another' })->{status}, 200, 'another has his own');
eventually { $s->admin(GET => '/customer/info?end_user_id=never%20seen')->{status} == 200 } 15;
is($s->admin(GET => '/customer/info?end_user_id=never%20seen')->{json}{spend}, 0.0001, 'he is known by now, with what he spent');
is(says(chat($key, { user => 'never seen' })), '422 budget_exceeded', 'and still has no more');
ok_post('/budget/update', { budget_id => 'everybody', max_budget => 1 });
is(chat($key, { user => 'never seen' })->{status}, 200, 'until the default is raised');

ok_post('/budget/update', { budget_id => 'everybody', max_budget => 0 });
is(says(chat($key, { user => 'cold' })), '422 budget_exceeded', 'a default of nothing refuses whoever comes') for 1 .. 2;
ok_post('/budget/update', { budget_id => 'everybody', max_budget => 1 });
ok((eventually { chat($key, { user => 'cold' })->{status} == 200 } 10), 'and a refusal of one who has no row is not kept when it is raised');

# its limits by model: each end user has his own, from his very first request on

ok_post('/budget/update', { budget_id => 'everybody', model_max_budget => { flat => { budget_limit => 0.00006, time_period => '30d' } } });
my @new = ('new 1', 'new/2');
@req = map { my $u = $_; map { ['POST', '/v1/chat/completions', ['Authorization', "Bearer $key", 'Content-Type', 'application/json', 'x-mock-completion-tokens', 10, 'x-mock-delay-ms', 30],
    $Keytoll::Test::JSON->encode({ model => 'flat', max_tokens => 10, user => $u, messages => [] })] } 1 .. 24 } @new;
my @got = http_burst([$s->{port}, $port2], \@req);
for my $i (0, 1) {
    is(scalar(grep { $_->{status} == 200 } @got[24 * $i .. 24 * $i + 23]), 3, "24 first requests at once of '$new[$i]': 3 pass");
    my $no;
    soon { $no = chat($key, { user => $new[$i] }); says($no) eq '422 budget_exceeded' } 10, 'and then none';
    is($no->{headers}{'x-keytoll-entity'}, ('customer:new%201~m~flat', 'customer:new%2F2~m~flat')[$i], 'by a meter of his own');
    is(says(chat($master, { user => $new[$i] })), '422 budget_exceeded', 'with the master key too');
    is(chat($key, { user => $new[$i], model => 'other' })->{status}, 200, 'another model is free') for 1 .. 5;
}
is(says(chat($key, { user => 'never seen' })), '200 ', 'who was there before has the limit from now on') for 1 .. 3;
soon { says(chat($key, { user => 'never seen' })) eq '422 budget_exceeded' } 10, 'and no more than that';
eventually { $s->admin(GET => "/customer/info?end_user_id=new%201")->{status} == 200 } 15;
is(says(chat($key, { user => $_ })), '422 budget_exceeded', "'$_' is known by now, and still has no more") for @new;
soon { $s->redis->call('EXISTS', 'kt:{0000}:e:customer:new%201~m~flat') } 10, 'with a meter that PostgreSQL knows';
eventually { $s->redis->call('XLEN', 'kt:{0000}:s') == 0 } 15;
my $rest;
$s->redis->call('FLUSHALL');
for my $u (@new, 'never seen') {
    eventually { $rest = says(chat($key, { user => $u })); $rest !~ /^503/ } 30;
    is($rest, '422 budget_exceeded', "'$u' has no more after a rebuild either");
}
ok((eventually { !grep { chat($key, { user => 'newest', model => 'other' })->{status} == 503 } 1 .. 20 } 30), 'every worker is back');
is(chat($key, { user => 'newest' })->{status}, 200, 'one who comes after it has his own') for 1 .. 3;
soon { says(chat($key, { user => 'newest' })) eq '422 budget_exceeded' } 10, 'of the same size';
ok_post('/budget/update', { budget_id => 'everybody', model_max_budget => { flat => { budget_limit => 1, time_period => '30d' } } });
is(chat($key, { user => $_ })->{status}, 200, "a higher limit binds at once: '$_'") for @new, 'newest', 'never seen';
ok_post('/budget/update', { budget_id => 'everybody', model_max_budget => { flat => 0 } });
is(says(chat($key, { user => $_ })), '422 budget_exceeded', "so does one of nothing: '$_'") for @new, 'newest', 'nobody yet';
ok_post('/customer/new', { user_id => 'own plan', max_budget => 1 });
is(chat($key, { user => 'own plan' })->{status}, 200, 'who has a budget of his own has no limit of the default');
ok_post('/customer/update', { user_id => 'newest', max_budget => 1 });
is(chat($key, { user => 'newest' })->{status}, 200, 'nor has who gets one');
ok_post('/budget/update', { budget_id => 'everybody', model_max_budget => undef });
for (@new, 'nobody yet') { my $r = chat($key, { user => $_ }); is($r->{status}, 200, "and without limits by model: '$_'") or diag explain $r->{headers} }

# tags, from the header and two places of the body

ok_post('/tag/new', { name => 'dear', max_budget => 0 });
for (['x-litellm-tags', {}, 'x-litellm-tags', 'a, dear'], ['metadata.tags', { metadata => { tags => [ 'a', 'dear' ] } }], ['tags', { tags => ['dear'] }],
    ['litellm_metadata.tags', { litellm_metadata => { tags => ['dear'] } }]) {
    my ($name, $more, @h) = @$_;
    my $r = chat($key, $more, @h);
    is(says($r) . ' ' . ($r->{headers}{'x-keytoll-entity'} // ''), '422 budget_exceeded tag:dear', "$name: refused by the tag");
}
is(chat($key, { tags => ['cheap'] })->{status}, 200, 'a tag without a row limits nothing');

# models that cost nothing pass an exhausted budget; others do not

my $broke = key(max_budget => 0);
is(says(chat($broke, {})), '422 budget_exceeded', 'no money, no answer');
is(chat($broke, { model => 'gratis' })->{status}, 200, 'but from a model that costs nothing');

# allow-lists and aliases: the model that is meant decides, on every spelling

ok_post('/team/new', { team_id => 'aliased', models => ['flat'], model_aliases => { fast => 'flat', evil => 'other' } });
my $tk = key(team_id => 'aliased', models => ['all-team-models']);
my $own = key(models => [ 'flat', 'nowhere' ], aliases => { mine => 'flat', wrong => 'nowhere' });
my $lim = key(models => ['grouped'], aliases => {});
my @paths = ('/v1/chat/completions', '/chat/completions', '/v1/chat/completions/', '//v1//chat//completions', '/v1/%63hat/completions', '/v1/./chat/completions');
for my $path (@paths) {
    my $r = call($tk, $path, { model => 'fast', max_tokens => 10, messages => [] });
    is($r->{status}, 200, "$path: an alias of the team") or diag $r->{raw};
    is($r->{json}{model}, 'flat', "$path: the provider is asked for what it means");
    is(call($own, $path, { model => 'mine', max_tokens => 10, messages => [] })->{json}{model}, 'flat', "$path: an alias of the key");
    is(says(call($own, $path, { model => 'other', max_tokens => 10, messages => [] })), '403 key_model_denied', "$path: another model is not allowed");
    is(says(call($tk, $path, { model => 'other2', max_tokens => 10, messages => [] })), '403 entity_model_denied', "$path: nor by the team");
}
is(says(chat($own, { model => 'wrong' })), '400 model_unknown', 'an alias of nothing');
my $left = key(models => ['flat'], aliases => { mine => 'flat', other => 'flat' });
ok_post('/key/update', { key => $left, models => ['other'] });
is(says(chat($left, { model => $_ })), '403 key_model_denied', "an alias of a key adds nothing to its list: $_") for qw(flat mine other);
ok_post('/key/update', { key => $left, aliases => {} });
is(chat($left, { model => 'other' })->{status}, 200, 'what the list has');
my $team_name = key(team_id => 'aliased', models => ['fast'], aliases => { mine => 'fast' });
is(chat($team_name, { model => $_ })->{status}, 200, "an alias of the team in the list of a key: $_") for qw(fast mine flat);
ok_post('/team/update', { team_id => 'aliased', model_aliases => { evil => 'other' } });
is(says(chat($team_name, { model => $_ })), '403 key_model_denied', "as long as the team has it: $_") for qw(flat);
ok_post('/team/update', { team_id => 'aliased', model_aliases => { fast => 'flat', evil => 'other' } });
my $rows = sub { my $r = $s->admin(GET => '/spend/logs?api_key=' . token($own)); return ref $r->{json} eq 'ARRAY' ? map { $_->{model_group} } @{ $r->{json} } : () };
eventually { $rows->() >= @paths } 15;
is_deeply([grep { $_ ne 'flat' } $rows->()], [], 'the ledger has the model that was meant');
my $user = ok_post('/user/new', { user_id => 'narrow', models => ['flat'], auto_create_key => $F });
is(says(chat(key(user_id => 'narrow', aliases => { x => 'other' }), { model => 'x' })), '403 entity_model_denied', 'an alias of a key does not widen the user\'s list');
is(says(chat(key(user_id => 'narrow', team_id => 'aliased'), { model => 'other' })), '200 ', 'a user\'s list is not asked on a key of a team');
ok_post('/organization/new', { organization_id => 'tight', organization_alias => 'T', models => ['openai/*'] });
is(chat(key(organization_id => 'tight'), {})->{status}, 200, 'openai/* covers what openai serves');
ok_post('/organization/update', { organization_id => 'tight', models => ['anthropic/*'] }, 'PATCH');
is(says(chat(key(organization_id => 'tight'), {})), '403 entity_model_denied', 'anthropic/* does not');
is(says(chat(key(models => ['no-default-models']), {})), '403 key_model_denied', 'no-default-models');
is(chat(key(models => ['all-proxy-models']), {})->{status}, 200, 'all-proxy-models');
is(chat(key(models => ['beta']), { model => 'grouped' })->{status}, 200, 'an access group of a deployment');
is(says(chat(key(models => ['beta']), {})), '403 key_model_denied', 'holds its models only');

# a changed budget binds the next request of everybody who follows it

ok_post('/budget/new', { budget_id => 'plan', max_budget => 1 });
my @follow = map { key(budget_id => 'plan') } 1 .. 5;
is(chat($_, {})->{status}, 200, 'within the plan') for @follow;
ok_post('/budget/update', { budget_id => 'plan', max_budget => 0 });
is(says(chat($_, {})), '422 budget_exceeded', 'the plan has ended') for @follow;

# worlds of the decision table

srand(my $seed = $ENV{KEYTOLL_SEED} // time % 1_000_000_000);
my ($n, @wrong) = (0);
my @levels = grep { !/^(?:global|kwin|twin|urates)$/ } Keytoll::Levels::money_levels();
for my $i (1 .. 40) {
    my $kind = (qw(personal team member service))[$i % 4];
    my $w = Keytoll::Levels::world($i, $kind, 'money', map { rand() < 0.4 ? ($_ => 1) : () } @levels);
    for (values %{ $w->{level} }) { delete @$_{qw(deny strict)}; $_->{used} = 0; $_->{limit} = $_->{limit} && rand() < 0.8 ? 1000 : 0 if defined $_->{limit} }
    my $lv = $w->{level};
    my $usd = sub { my $l = shift; return defined $lv->{$l}{limit} ? (max_budget => $lv->{$l}{limit}) : () };
    my $model = sub { my $l = shift; return defined $lv->{$l}{limit} ? (model_max_budget => { flat => { budget_limit => $lv->{$l}{limit} } }) : () };
    my $post = sub { my ($path, $body) = @_; my $r = $s->admin(POST => $path, $body); $r->{status} == 200 or push @wrong, "$path: $r->{raw}"; return $r->{json} };
    $post->('/organization/new', { organization_id => "o$i", organization_alias => 'o' });
    $post->('/team/new', { team_id => "t$i", organization_id => "o$i", $usd->('team'), defined $lv->{member}{limit} ? (team_member_budget => $lv->{member}{limit}) : (),
        $model->('tmodel') });
    $post->('/user/new', { user_id => "u$i", auto_create_key => $F, $usd->('user'), $model->('umodel') });
    $post->('/organization/member_add', { organization_id => "o$i", member => { user_id => "u$i", role => 'internal_user' },
        defined $lv->{omember}{limit} ? (max_budget_in_organization => $lv->{omember}{limit}) : () });
    my %org = ($usd->('org'), $model->('omodel'));            # behind its team, which could not be given more than it
    $s->admin(PATCH => '/organization/update', { organization_id => "o$i", %org })->{status} == 200 or push @wrong, 'no /organization/update' if %org;
    $post->('/customer/new', { user_id => "c$i", $usd->('customer'), $model->('cmodel'), defined $lv->{customer}{limit} ? () : (max_budget => 9) });
    $post->('/tag/new', { name => "g$i", $usd->('tag') });
    my $made = $post->('/key/generate', { $usd->('key'), $model->('kmodel'),
        $kind eq 'personal' ? (user_id => "u$i", organization_id => "o$i") : (team_id => "t$i"), $kind eq 'member' ? (user_id => "u$i") : () });
    $w->{token} = $made->{token};
    my $want = Keytoll::Levels::verdict($w);
    my $r = chat($made->{key}, { user => "c$i", tags => ["g$i"] });
    my $ent = $want->{level} ? Keytoll::Levels::ent($w, $want->{level}) =~ s/~m~m1$/~m~flat/r : '';
    my $got = join ' ', $r->{status}, $r->{headers}{'x-keytoll-entity'} // '';
    my $exp = $want->{code} eq 'admitted' ? '200 ' : "422 $ent";
    push @wrong, "$kind " . $Keytoll::Test::JSON->encode($lv) . ": $got, not $exp" if $r->{status} == 200 ? $exp ne '200 ' : $got ne $exp;
    $n++;
}
is(scalar @wrong, 0, "$n worlds set by the API agree with the table, seed $seed") or diag map { "$_\n" } @wrong[0 .. ($#wrong > 4 ? 4 : $#wrong)];

$s->finish;
done_testing();
