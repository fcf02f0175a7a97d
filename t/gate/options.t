# Options of keys: what their bodies must have, a lower rate in place of a spent budget,
# cheaper models in place of a budget that does not reach.

use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);
use Keytoll::Test;

my $g = Keytoll::Test->gate(more => <<'END');
    location /hot/   { keytoll_lease on; proxy_pass http://mock/; }
    location /strict/ { keytoll_enforce_user on; proxy_pass http://mock/; }
    location /clamp/ { keytoll_clamp_max_tokens on; proxy_pass http://mock/; }
END
my $T = JSON::PP::true;
my $n = 0;

sub ask { my ($key, %o) = @_; my $at = delete $o{at} // ''; return $g->chat($key, path => "$at/v1/chat/completions", %o) }
sub said { my $r = shift; return join ' ', $r->{status}, $r->{headers}{'x-keytoll-reason'} // '-' }
sub change { my ($key, %p) = @_; return $g->policy('key:' . token($key) => { refs => ['global'], %p }) }

subtest 'what a body must have' => sub {
    my $key = $g->key(params => ['user', 'metadata.job']);
    my $r = ask($key);
    is(said($r), '400 param_missing', 'is missed');
    is($r->{json}{error}{message}, 'BadRequest please pass param=user in request body. This is a required param', 'in LiteLLM\'s words');
    is_deeply([@{ $r->{json}{error} }{qw(type param)}], ['invalid_request_error', 'None'], 'as the directive has it');
    like(ask($key, user => 'x', metadata => { jobs => 1 })->{json}{error}{message}, qr/param=metadata\.job /, 'the first that is not there is named');
    is(ask($key, user => 'x', metadata => { job => undef })->{status}, 200, 'with all of them') for 1, 2;
    is(ask($key, user => 'x', metadata => { job => 1 }, stream => $T)->{status}, 200, 'also a stream');
    is($g->state($key)->{held}, 0, 'a refusal holds nothing') if $g->settled;
    is(said(ask($g->key(params => ['user'], limit => '0'))), '422 budget_exceeded', 'who has no money hears that first');
    is(said(ask($g->key(params => ['user']), model => 'nothing')), '400 param_missing', 'who wants a model that nobody has hears of that last');
    is(said(ask($g->key(params => ['user']), model => 'nothing', user => 'x')), '400 model_unknown', 'when nothing else is missing');
    is(said(ask($g->key(params => ['user'], rpm => 0))), '400 param_missing', 'and of a rate, too');
    my ($short, $other) = ($g->key(params => ['n']), $g->key);
    is(said(ask($short)), '400 param_missing', 'a name of one letter');
    my @r = http_burst($g->{port}, [map { ['POST', '/v1/chat/completions', ['Authorization', "Bearer $_"], chat_body($_ eq $short ? (n => 1) : ())] } ($short, $other) x 8]);
    is(scalar(grep { $_->{status} == 200 } @r), 16, 'is found, and spoils nobody else\'s');
    is(http_get($g->{port}[0], '/v1/models', ['Authorization', "Bearer $key"])->{status}, 200, 'what has no body needs none');
    my @form = ("--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-4o-mini\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nx\r\n--b--\r\n");
    is(said(http_call($g->{port}[0], 'POST', '/v1/audio/transcriptions', ['Authorization', "Bearer $key", 'Content-Type', 'multipart/form-data; boundary=b'], @form)), '400 param_missing', 'of forms, the gate sees the user and the model');

    $g->policy(global => { params => ['seed', 'user'], sparams => ['team'] });
    is(said(ask($g->key, user => 'x')), '400 param_missing', 'the proxy asks it of every key');
    is(ask($g->key, user => 'x', seed => 1)->{status}, 200, 'that has none of its own');
    like(ask($key, user => 'x', metadata => { job => 1 })->{json}{error}{message}, qr/param=seed /, 'and of those that have some');
    is(ask($key, user => 'x', seed => 1, metadata => { job => 1 })->{status}, 200, 'both together');
    is(ask($g->key(master => $T))->{status}, 200, 'not of the master key');
    my $service = $g->key(service => $T);
    like(ask($service, user => 'x', seed => 1)->{json}{error}{message}, qr/param=team /, 'and more of service accounts');
    is(ask($service, user => 'x', seed => 1, team => 't')->{status}, 200, 'which may have it');
    $g->policy(global => {});
    is(ask($service)->{status}, 200, 'and no more');

    my $plain = $g->key;
    ask($plain);
    ok($g->settled, 'settles');
    my $before = $g->{r}->functions;
    is(ask($plain)->{status}, 200, 'a key without options');
    my $one = $g->{r}->functions - $before;
    ok($g->settled, 'settles');
    change($key, params => ['user']);
    is(said(ask($key)), '400 param_missing', 'a changed list');
    change($key);
    is(ask($key)->{status}, 200, 'a list that is gone');
    ok($one <= 2, "asks once: $one calls with the settlement");
};

subtest 'blocks of quota do not pass it by' => sub {
    my $key = $g->key(params => ['user']);
    my %seen;
    for my $i (1 .. 60) {
        $seen{ said(ask($key, at => '/hot', $i % 2 ? () : (user => 'x'))) }++;
    }
    is_deeply(\%seen, { '200 -' => 30, '400 param_missing' => 30 }, 'each body is looked at');
    is($g->status->{leased_total}, 0, 'no block was taken');
    my %slow = (limit => usd(1), used => usd(1), rpm => 1000, throttle => 50);
    my $spent = $g->key(%slow);
    is(said(ask($spent, at => '/hot')), '200 -', 'of a key that is slowed down') for 1 .. 20;
    is($g->status->{leased_total}, 0, 'neither');
    my $hot = $g->key;
    ask($hot, at => '/hot') for 1 .. 60;
    cmp_ok($g->status->{leased_total}, '>', 0, 'of others, blocks are taken');
    my $wait = change($hot, params => ['user'])->[1] // 0;
    select undef, undef, undef, $wait / 1000;
    is(said(ask($hot, at => '/hot')), '400 param_missing', 'an option that comes ends them');
};

subtest 'a lower rate in place of a spent budget' => sub {
    my %p = (limit => usd(1), used => usd(1), rpm => 10, throttle => 40, period => { kind => 'fixed', len_s => 86400, id => int(time), end_s => int(time) + 86400 });
    my $key = $g->key(%p);
    my @got = map { said(ask($key)) } 1 .. 6;
    is_deeply(\@got, [('200 -') x 4, ('429 rpm_exceeded') x 2], '40 % of 10 requests a minute');
    my $r = ask($key);
    is($r->{headers}{'x-keytoll-limit'}, 4, 'is what the refusal says');
    ok($g->settled, 'settles');
    my $s = $g->state($key);
    cmp_ok($s->{used}, '>', usd(1), 'spend goes on being counted');
    is($s->{held}, 0, 'nothing is held');
    change($key, %p, limit => usd(2));
    is_deeply([map { said(ask($key)) } 1 .. 7], [('200 -') x 6, '429 rpm_exceeded'], 'a raised budget gives the whole rate back');
    is(said(ask($g->key(%p, throttle => undef))), '422 budget_exceeded', 'a key without it is refused');
    is(said(ask($g->key(%p, rpm => undef))), '422 budget_exceeded', 'as is one without a rate');
    is(said(ask($g->key(%p, strict => $T))), '422 budget_exceeded', 'and a strict one');
    is(said(ask($g->key(%p, limit => '0'))), '422 budget_exceeded', 'and a budget of 0');
    is(said(ask($g->key(%p, rpm => 0))), '429 rpm_exceeded', 'a rate of 0 stays 0');
    is(said(ask($g->key(%p, rpm => 1, throttle => 1))), '200 -', 'at least 1');
    my $now = int(time);
    my $short = $g->key(%p, rpm => 2, period => { kind => 'fixed', len_s => 3, id => $now, end_s => $now + 3 });
    my $hits = $g->status->{cache_hits_total};
    my $no = (map { ask($short) } 1 .. 4)[-1];
    is(said($no), '429 rpm_exceeded', 'refused');
    cmp_ok($g->status->{cache_hits_total}, '>', $hits, 'out of the cache');
    cmp_ok($no->{headers}{'retry-after'}, '<=', 3, 'until the budget begins anew');
    select undef, undef, undef, $now + 3.05 - time;
    is(said(ask($short)), '200 -', 'and not longer');
    $g->policy('team:broke' => { limit => usd(1), used => usd(1) });
    is(said(ask($g->key(%p, refs => ['team:broke', 'global']))), '422 budget_exceeded', 'other levels are enforced as ever');
};

subtest 'cheaper models' => sub {
    my ($dear, $cheap) = ('claude-x', 'gpt-4o-mini');
    my $with = sub {
        my ($list, %more) = @_;
        my $key = sprintf 'sk-falls-%s-%s', ++$n, 'x' x 16;
        my $e = 'key:' . token($key) . "~m~$dear";
        $g->policy($e => { limit => usd(1), used => usd(1) });
        return $g->key(key => $key, sub => [{ m => $dear, e => $e }], falls => { $dear => $list }, %more);
    };
    my $key = $with->(['nowhere', $cheap]);
    my $r = ask($key, model => $dear);
    is($r->{status}, 200, 'a model whose budget is spent') or diag $r->{raw};
    is($r->{json}{model}, $cheap, 'the provider gets the first of the others that is known');
    is(ask($key, model => $cheap)->{json}{model}, $cheap, 'which can be asked for as well');
    ok($g->settled, 'settles');
    my @models = map { (split /\n/, $_->[1])[0] =~ /\t([^\t]*)$/ } grep { $_->[1] =~ /^key:\Q${\token($key)}\E\t/m } $g->events;
    is_deeply(\@models, [$cheap, $cheap], 'the ledger says so');
    $r = ask($with->(['nowhere']), model => $dear);
    is(said($r), '422 budget_exceeded', 'none fits: the first refusal');
    like($r->{json}{error}{message}, qr/exceeded budget for model=\Q$dear\E/, 'of the model that was wanted');
    is(said(ask($with->([$cheap], models => [$dear]), model => $dear)), '422 budget_exceeded', 'a model that the key may not use is passed over');
    is(said(ask($with->([$cheap], limit => usd(1), used => usd(1)), model => $dear)), '422 budget_exceeded', 'as is one that has no money either');
    is(said(ask($with->([$cheap], rpm => 0), model => $dear)), '422 budget_exceeded', 'or no room');
    is(said(ask($with->([$cheap], params => ['user']), model => $dear)), '400 param_missing', 'what a body must have');
    is(ask($with->([$cheap], params => ['user']), model => $dear, user => 'x')->{json}{model}, $cheap, 'it must have for another model too');
    is(ask($with->([$cheap], aliases => { best => $dear }), model => 'best')->{json}{model}, $cheap, 'an alias of a dear model');
    is(ask($with->([$cheap]), model => $dear, at => '/clamp')->{json}{model}, $cheap, 'where caps are lowered');
    ok($g->settled, 'settles');
    is($g->state($key)->{held}, 0, 'nothing is held');
};

subtest 'a refusal after all of them' => sub {
    my %falls = ('gpt-4o-mini' => ['claude-x', 'out-only']);
    my $key = $g->key(limit => usd(1), used => usd(1), falls => \%falls);
    is(said(ask($key)), '422 budget_exceeded', 'asked for all of them') for 1 .. 2;
    my $from = $g->{r}->functions;
    is(said(ask($key)), '422 budget_exceeded', 'again') for 1 .. 10;
    is($g->{r}->functions - $from, 0, 'is kept like any other');
    change($key, limit => usd(2), falls => \%falls);
    ok((eventually { ask($key)->{status} == 200 } 5), 'and falls when the budget is raised');
    my $e = 'key:' . token($key) . '~m~claude-x';
    change($key, limit => usd(1), falls => { 'gpt-4o-mini' => ['claude-x'] }, sub => [{ m => 'claude-x', e => $e }]);
    $g->policy($e => { limit => usd(1) });
    ok((eventually { said(ask($key)) eq '422 budget_exceeded' } 5), 'lowered again');
    ask($key) for 1 .. 3;
    change($key, limit => usd(9), falls => { 'gpt-4o-mini' => ['claude-x'] }, sub => [{ m => 'claude-x', e => $e }]);
    ok((eventually { ask($key)->{status} == 200 } 5), 'and raised');

    # each of the models is refused by another level: nothing is kept that another change lifts
    $g->policy('team:poor' => { limit => usd(1), used => usd(1) });
    my $two = sprintf 'sk-falls-two-%s', 'x' x 16;
    my %sub = (sub => [map { { m => $_, e => 'key:' . token($two) . "~m~$_" } } 'gpt-4o-mini', 'claude-x']);
    $g->policy('key:' . token($two) . "~m~$_" => { limit => usd(1), used => usd(1) }) for 'gpt-4o-mini', 'claude-x';
    $g->key(key => $two, %sub, falls => { 'gpt-4o-mini' => ['claude-x'] });
    is(said(ask($two)), '422 budget_exceeded', 'two models, a budget each') for 1 .. 3;
    $g->policy('key:' . token($two) . '~m~claude-x' => { limit => usd(5), used => usd(1) });
    ok((eventually { (ask($two)->{json}{model} // '') eq 'claude-x' } 5), 'the cheaper one has money again');
};

subtest 'a rule is heard of before money' => sub {
    my $key = $g->key(limit => usd(1), used => usd(1), falls => { 'gpt-4o-mini' => ['claude-x', 'out-only'] });
    $g->settled;
    my $from = $g->{r}->functions;
    is(said($g->chat($key, path => '/strict/v1/chat/completions')), '422 budget_exceeded', 'a body that breaks a rule hears of money first');
    is($g->{r}->functions - $from, 1, 'and no other model is asked for');
};

$g->finish;
