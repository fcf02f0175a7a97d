# From the stream to PostgreSQL, exactly once (invariant 3), on the gate's side of the
# contract: events as the gate and the Redis functions write them.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Digest::SHA qw(sha256_hex);
use Keytoll::Control;
use POSIX qw(strftime);
use Test::More;
no warnings "portable";

my $k = Keytoll::Control->new;
my ($s, $j);

my $key = ($k->post('/key/generate', { user_id => 'u1', team_id => 't1', key_alias => 'ali',
        max_budget => 100, budget_duration => '30d' }))[1];
my $t = $key->{token};
my $pid = $k->state("key:$t")->{period_id};
my $n = 0;

sub event {
    my (%o) = @_;
    my $rid = $o{id} // $k->rid;
    return ($rid, JSON::PP->new->canonical->encode({ id => $rid, t0 => hex(substr $rid, 0, 12),
        t1 => hex(substr $rid, 0, 12) + 250, ttft => 100, m => 'gpt-4o', um => 'gpt-4o-up',
        p => 'openai', rt => 'chat', uid => 'chatcmpl-' . ++$n, in => 10, out => 5, cr => 2, cw => 1,
        rs => 3, cost => '75000', ucr => '0', st => 200, end => 'complete', est => 0, stm => 0,
        ip => '127.0.0.1', tags => [ 'a', 'b' ], node => 'n1', %o }));
}

sub receipt {
    my (%o) = @_;
    return "2\t1\tgpt-4o\n" . join '', map { "$_\n" } "key:$t\t$pid\t" . ($o{bits} // 23),
        "team:t1\t0\t16", "member:t1/u1\t0\t16", "user:u1\t0\t1",
        "global\t0\t48", @{ $o{more} // [] };
}

sub xadd { return $k->redis('XADD', 'kt:{0000}:s', '*', @_) }
sub rows { return $k->sql("SELECT count(*) FROM ledger") }
sub metric { my $m = shift; $k->get('/metrics'); return $k->raw =~ /^\Q$m\E (\d+)$/m ? $1 : undef }
sub drained { return $k->until(sub { $k->redis('XLEN', 'kt:{0000}:s') == 0 }) }
sub used { return $k->sql("SELECT coalesce(sum(used_nusd), 0) FROM meters WHERE ent = '$_[0]'") }

# one request

my ($rid, $ev) = event();
xadd(e => $ev, r => receipt(), c => 'ok');
ok drained(), 'an event is consumed and its entry deleted';
is rows(), 1, 'one row';
is $k->sql("SELECT concat_ws('|', token = '$t', user_id, team_id, model, upstream_model, provider, route,
    answer_id, prompt_tokens, completion_tokens, cache_read_tokens, cache_write_tokens,
    reasoning_tokens, cost_nusd, http_status, ending, estimated, late, tags) FROM ledger"),
    't|u1|t1|gpt-4o|gpt-4o-up|openai|chat|chatcmpl-1|10|5|2|1|3|75000|200|complete|f|f|{a,b}',
    'with everything the gate said';
is used($_), 75000, "$_ used it" for "key:$t", 'team:t1', 'member:t1/u1', 'global';
is used('user:u1'), 0, 'the user, counted for rates only, did not';
is $k->sql("SELECT concat_ws('|', requests, tokens) FROM meters WHERE ent = 'team:t1'"), '1|15',
    'requests and tokens';
is $k->sql("SELECT concat_ws('|', requests, prompt_tokens, cost_nusd) FROM kt_usage"
    . " WHERE kind = 'k' AND user_id = 'u1'"), '1|10|75000', 'the day has it';
is $k->redis('XPENDING', 'kt:{0000}:s', 'controld')->[0], 0, 'nothing pending';
cmp_ok $k->redis('GET', 'kt:{0000}:wm'), '>', hex(substr $rid, 0, 12) - 5000, 'the watermark moved';

# the same again, in another entry, in the same entry, in one batch with others

xadd(e => $ev, r => receipt(), c => 'ok');
xadd((e => $ev, r => receipt(), c => 'late') x 3);
my ($rid2, $ev2) = event();
xadd(e => $ev2, r => receipt(), c => 'ok', e => $ev, r => receipt(), c => 'ok', e => $ev2,
    r => receipt(), c => 'ok');
ok drained(), 'duplicates are consumed';
is rows(), 2, 'and make no row';
is used("key:$t"), 150000, 'and cost nothing';
is metric('keytoll_ledger_duplicates_total'), 6, 'they are counted';
is metric('keytoll_ledger_rows_total'), 2, 'rows too';

# late, lost, fixed

(my $r3, my $ev3) = event(cost => '1000');
xadd(e => $ev3, r => receipt(), c => 'late');
drained();
is $k->sql("SELECT late FROM ledger WHERE rid = '$r3'"), 't', 'a late settlement says so';
is used('team:t1'), 151000, 'and counts';

my ($r4, $lost) = event(cost => '500', out => 0, st => 0, end => 'lost');
xadd(e => $lost, r => receipt(), c => 'lost 700');
drained();
is $k->sql("SELECT concat_ws('|', cost_nusd, estimated, fixed) FROM ledger WHERE rid = '$r4'"),
    '700|t|f', 'a lost request is charged what Redis charged';
is used('team:t1'), 151700, 'in the sums';
my (undef, $real) = event(id => $r4, cost => '900', out => 50);
xadd(e => $real, r => receipt(), c => 'fix 700');
drained();
is $k->sql("SELECT concat_ws('|', cost_nusd, completion_tokens, estimated, fixed) FROM ledger"
    . " WHERE rid = '$r4'"), '900|50|f|t', 'its settlement corrects the row';
is used('team:t1'), 151900, 'and the sums by the difference';
is $k->sql("SELECT requests FROM meters WHERE ent = 'team:t1'"), 4, 'it is still one request';
xadd(e => $real, r => receipt(), c => 'fix 700');
drained();
is used('team:t1'), 151900, 'the correction twice is once';
my ($rt, $more) = event(cost => '0', out => 90, st => 0, end => 'lost');
xadd(e => $more, r => receipt(), c => 'lost 0');
drained();
my $tokens = $k->sql("SELECT tokens FROM meters WHERE ent = 'team:t1'");
my (undef, $less) = event(id => $rt, cost => '0', out => 20);
xadd(e => $less, r => receipt(), c => 'fix 0');
drained();
is $k->sql("SELECT tokens FROM meters WHERE ent = 'team:t1'"), $tokens - 70, 'fewer tokens than thought come off the meter';
is $k->sql('SELECT count(*) FROM ledger_rejects'), 0, 'and nothing is parked for it';
my ($r5, $early) = event(cost => '300');
xadd(e => $early, r => receipt(), c => 'fix 200');
xadd(e => $early, r => receipt(), c => 'lost 200');
drained();
is $k->sql("SELECT concat_ws('|', cost_nusd, fixed) FROM ledger WHERE rid = '$r5'"), '300|t',
    'a correction before its estimate is the row';
is used('team:t1'), 152200, 'and the estimate the duplicate';
my ($r6, $both) = event(cost => '10');
xadd(e => $both, r => receipt(), c => 'lost 4', e => $both, r => receipt(), c => 'fix 4');
drained();
is used('team:t1'), 152210, 'both in one entry';

# adjustments

# (the events above never went through Redis, so it starts from zero there)

my $had = used("key:$t");
$k->post('/key/update', { key => $t, spend => 0.001 });
ok $k->until(sub { used("key:$t") == $had + 1000000 }), 'an adjustment arrives';
is $k->state("key:$t")->{used}, 1000000, 'Redis has the same';
$k->post('/key/update', { key => $t, spend => 0 });
ok $k->until(sub { used("key:$t") == $had }), 'a negative one too';
is $k->sql("SELECT count(*) FROM ledger WHERE kind = 'adjustment'"), 2, 'each has a row';

# credits have their own sum

($rid, $ev) = event(ucr => '2000000', cost => '5');
xadd(e => $ev, r => receipt(more => ["team:cr\t0\t24"]), c => 'ok');
drained();
is $k->sql("SELECT concat_ws('|', used_nusd, used_ucr) FROM meters WHERE ent = 'team:cr'"),
    '0|2000000', 'credits are counted as credits';

# encoded names

($rid, $ev) = event();
xadd(e => $ev, r => "2\t1\tm\nkey:$t\t$pid\t16\nuser:a%20b%2Fc\t0\t16\n"
    . "org:%C3%BC\t0\t16\ncustomer:c1\t0\t16\ntag:x\t0\t16\ntag:y\t0\t16\n"
    . "key:$t~m~gpt-4o\t0\t16\n", c => 'ok');
drained();
is $k->sql("SELECT concat_ws('|', user_id, organization_id, customer_id, tags) FROM ledger"
    . " WHERE rid = '$rid'"), "a b/c|\xc3\xbc|c1|{x,y}", 'names are decoded';
is used("key:$t~m~gpt-4o"), 75000, 'submeters are counted';


# malformed events are parked, the rest goes on

my $before = rows();
($rid, $ev) = event();
my ($ok2, $evok) = event();
my @bad = (
    [ '{broken', receipt(), 'ok' ], [ '{}', receipt(), 'ok' ], [ $ev, 'x', 'ok' ],
    [ $ev, receipt(), 'what' ], [ $ev, receipt(), 'lost x' ],
    [ (event(cost => 'abc'))[1], receipt(), 'ok' ], [ (event(cost => undef))[1], receipt(), 'ok' ],
    [ (event(id => 'ABC'))[1], receipt(), 'ok' ], [ $ev, "2\t1\tm\nkey:$t\tx\t16\n", 'ok' ],
    [ '{"id":"' . $k->rid . '","m":"a\u0000b"}', receipt(), 'ok' ],
    [ "\xff\xfe", "\x00", "\x00" ],
);
xadd(map { (e => $_->[0], r => $_->[1], c => $_->[2]) } @bad);
xadd(foo => 'bar');
xadd(e => $evok, r => receipt(), c => 'ok');
ok drained(), 'malformed events do not stop the consumer';
is rows(), $before + 1, 'good ones pass';
is $k->sql('SELECT count(*) FROM ledger_rejects'), @bad + 1, 'every bad one is kept';
is metric('keytoll_ledger_rejects_total'), @bad + 1, 'and counted';
is $k->sql("SELECT encode(event, 'escape') FROM ledger_rejects WHERE position = 0 ORDER BY id LIMIT 1"),
    '{broken', 'as it was';

# an optional field is never worth the money

$before = rows();
my $sum = used('team:t1');
my $rejects = $k->sql('SELECT count(*) FROM ledger_rejects');
my %spoilt;
for my $o ([ nul => '"tags":["a","b"]', '"tags":["\u0000","x\u0000y","\\\\u0000"]' ],
    [ cut => '"uid":"chatcmpl-', "\"uid\":\"\xe4\xb8" ], [ utf8 => '"ip":"127', "\"ip\":\"\xff\xfe\xed\xa0\x80" ],
    [ half => '"uid":"chatcmpl-', '"uid":"\udc00' ], [ long => '"a","b"', '"' . 'x' x 900_000 . '"' ],
    [ many => '"a","b"', join ',', map { '"t' . $_ . '"' } 1 .. 20_000 ],
    [ uid => '"uid":"', '"uid":"' . 'u' x 5000 ], [ model => '"m":"', '"m":"' . join '', map { rand } 1 .. 500 ],
    [ edge => '"um":"', '"um":"' . 'a' . "\xc3\xbc" x 2500 ], [ line => '"node":"n1"', "\"node\":\"n\n1\"" ],
    [ cust => '"ip"', '"cust":"\u0000","ip"' ], [ type => '"tags":["a","b"]', '"tags":{"a":1}' ],
    [ count => '"in":10', '"in":-1' ], [ big => '"in":10', '"in":9223372036854775807' ],
    [ status => '"st":200', '"st":1000' ], [ time => '"ttft":100', '"ttft":"soon"' ]) {
    my ($name, $from, $to) = @$o;
    my ($id, $e) = event();
    $e =~ s/\Q$from\E/$to/ or die $name;
    $spoilt{$name} = $id;
    xadd(e => $e, r => receipt(), c => 'ok');
}
my ($idr, $er) = event();
xadd(e => $er, r => receipt(more => [ "tag:a%00b\t0\t16", "customer:%FF%FE\t0\t16",
        map { "tag:t$_\t0\t16" } 1 .. 100 ]), c => 'ok');
ok drained(), 'events with spoilt fields are consumed';
is rows(), $before + 17, 'every one is booked';
is $k->sql('SELECT count(*) FROM ledger_rejects'), $rejects, 'none is parked';
is used('team:t1'), $sum + 17 * 75000, 'with its money';
is used('tag:t100'), 75000, 'a hundred lines of a receipt too';
sub field { return $k->sql("SELECT $_[1] FROM ledger WHERE rid = '$spoilt{$_[0]}'") }
is field(nul => 'tags'), '{?,x?y,"\\\\u0000"}', 'NUL is replaced';
like field(cut => 'answer_id'), qr/^\?+\d+$/, 'half a character too';
is field(long => 'length(tags[1])'), 255, 'a long tag is cut';
is field(edge => 'octet_length(upstream_model)'), 255, 'between two characters';
is field(count => 'concat_ws(\'|\', prompt_tokens, completion_tokens)'), '0|5', 'a bad count is none';

# an amount that PostgreSQL refuses in the sums parks one event only

$before = rows();
my (undef, $huge) = event(cost => '9223372036854775807');
(my $g1, my $good1) = event();
xadd(e => $good1, r => receipt(), c => 'ok');
xadd(e => $huge, r => receipt(), c => 'ok');
ok drained(), 'an overflow does not block';
is rows(), $before + 1, 'the others are stored';
is $k->sql("SELECT count(*) FROM ledger_rejects WHERE reason LIKE 'PostgreSQL%'"), 1,
    'the one is parked';

# kill -9 between commit and acknowledgement is a redelivery: simulate and compare

$k->kill('controld', 'KILL');
my @late = map { [ event() ] } 1 .. 50;
xadd(e => $_->[1], r => receipt(), c => 'ok') for @late;
$k->redis('XREADGROUP', 'GROUP', 'controld', 'dead', 'COUNT', 20, 'STREAMS', 'kt:{0000}:s', '>');
$before = rows();
$sum = used('team:t1');
$k->start_controld;
$k->start_controld(name => 'second');
ok $k->until(sub { rows() == $before + 30 }), 'what nobody had read is consumed by two daemons';
is $k->redis('XLEN', 'kt:{0000}:s'), 20, 'what a dead consumer holds waits';
my $host = (POSIX::uname())[1];
my @ids = map { $_->[0] } @{ $k->redis('XRANGE', 'kt:{0000}:s', '-', '+') };
is $k->until(sub {
    $k->redis('XCLAIM', 'kt:{0000}:s', 'controld', 'dead', 0, @ids, 'IDLE', 31000, 'JUSTID');
    drained();
}, 45), 1, 'and is claimed when it is idle' or diag $k->logs;
is rows(), $before + 50, 'every event has its row';
is used('team:t1'), $sum + 50 * 75000, 'and its sum, once';
is $k->sql("SELECT sum(cost_nusd) FROM ledger WHERE kind = 'request'") - 75000, used("team:t1"),
    'the ledger and the meter agree';

# /spend/logs

my $today = strftime('%Y-%m-%d', gmtime);
($s, $j) = $k->get('/spend/logs?request_id=chatcmpl-1');
is_deeply [ $s, scalar @$j ], [ 200, 1 ], 'a row by the id of its answer';
is_deeply [ @{ $j->[0] }{qw(request_id call_type api_key spend total_tokens prompt_tokens
        completion_tokens model model_group custom_llm_provider user team_id status)} ],
    [ "chatcmpl-1", "acompletion", $t, "0.000075", 15, 10, 5, 'gpt-4o-up', 'gpt-4o', 'openai', 'u1',
      't1', 'success' ], 'in LiteLLM\'s shape';
is_deeply [ @{ $j->[0]{metadata} }{qw(user_api_key_alias user_api_key_team_id user_api_key_user_id)} ],
    [ 'ali', 't1', 'u1' ], 'with its metadata';
is_deeply $j->[0]{request_tags}, [ 'a', 'b' ], 'and tags';
($s, $j) = $k->get("/spend/logs?api_key=$key->{key}");
cmp_ok scalar @$j, '>', 50, 'by the key';
is scalar(grep { $_->{api_key} ne $t } @$j), 0, 'only its own';
($s, $j) = $k->get("/spend/logs?api_key=" . '0' x 64);
is_deeply $j, [], 'none of an unknown key';
($s, $j) = $k->get('/spend/logs?user_id=u1');
cmp_ok scalar @$j, '>', 50, 'by the user';
($s, $j) = $k->get("/spend/logs?start_date=2020-01-01&end_date=$today&summarize=false");
is $s, 200, 'raw rows of a range';
($s, $j) = $k->get("/spend/logs?start_date=$today&end_date=$today");
is_deeply [ $s, scalar @$j, $j->[0]{startTime} ], [ 200, 1, $today ], 'a day summed';
is $j->[0]{users}{u1}, $k->sql("SELECT kt_usd(sum(cost_nusd)::bigint) FROM ledger WHERE user_id = 'u1'"),
    'by user';
ok exists $j->[0]{models}{'gpt-4o'} && exists $j->[0]{$t}, 'by model and key';
($s, $j) = $k->get('/spend/logs?start_date=x&end_date=y');
is_deeply [ $s, $j->{error}{type} ], [ 400, 'internal_error' ], 'a wrong date';
like $j->{error}{message}, qr/^\/spend\/logs Error\(/, 'with the text clients know';

# several that share a receipt, one a line

my @group = map { [event(cost => 100 * $_)] } 1 .. 5;
my ($rows, $spent) = (rows(), used('team:t1'));
xadd(es => join("\n", map { $_->[1] } @group), r => receipt(), c => 'ok', e => $ev2, r => receipt(), c => 'ok');
ok drained(), 'a group is consumed';
is rows(), $rows + 5, 'each of it makes a row';
is used('team:t1') - $spent, 1500, 'and counts';
is $k->sql("SELECT string_agg(cost_nusd::text, ' ' ORDER BY cost_nusd) FROM ledger WHERE rid IN (@{[ join ',', map { qq('$_->[0]') } @group ]})"), '100 200 300 400 500', 'its own cost';
xadd(es => join("\n", $group[1][1], '{"id":"broken"}', $group[2][1]), r => receipt(), c => 'ok');
ok drained(), 'a group with a bad one, otherwise known';
is rows(), $rows + 5, 'makes no more rows';
is $k->sql("SELECT concat_ws(' ', position, encode(event, 'escape')) FROM ledger_rejects ORDER BY id DESC LIMIT 1"), '1 {"id":"broken"}', 'the bad one is parked, with its place';
my $lines = $k->sql('SELECT count(*) FROM ledger_rejects');
xadd(e => join("\n", $group[0][1], $group[1][1]), r => receipt(), c => 'ok');
ok drained(), 'two lines where one is due';
is $k->sql('SELECT count(*) FROM ledger_rejects'), $lines + 1, 'are parked';

is $k->sql("SELECT count(*) FROM ledger_default"), 0, 'every row has its month';

done_testing;
