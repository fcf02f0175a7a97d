# The sums by day are the ledger's, whatever came twice, late, corrected or in any order.

use strict;
use warnings;
no warnings 'portable';
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Test::More;
use Time::HiRes qw(time);

my $k = Keytoll::Control->new;
my $n = 0;
srand 7;

sub pick { return $_[ int rand @_ ] }
sub drained { return $k->until(sub { $k->redis('XLEN', 'kt:{0000}:s') == 0 }, 30) }
sub differs {
    return $k->sql('SELECT count(*) FROM (SELECT * FROM kt_usage EXCEPT ALL SELECT * FROM kt_usage_truth) a')
        + $k->sql('SELECT count(*) FROM (SELECT * FROM kt_usage_truth EXCEPT ALL SELECT * FROM kt_usage) b');
}

my @days = map { time - $_ * 86400 } 0, 1, 35, 40, 370;

sub event {
    my (%o) = @_;
    my $rid = $o{id} // $k->rid(int(1000 * pick(@days)) + int rand 1000);
    my $m = $o{m} // 'model-' . int rand 3;
    my $ev = JSON::PP->new->canonical->encode({ id => $rid, t0 => hex(substr $rid, 0, 12), m => $m,
        um => pick('up-a', 'up-b'), p => pick('openai', 'anthropic', ''), rt => pick('chat', 'messages'),
        uid => 'c-' . ++$n, in => int rand 1000, out => int rand 500, cr => int rand 20, cw => int rand 9,
        cost => '' . int rand 1e9, ucr => '' . int rand 100, st => pick(200, 200, 200, 429, 500, 0),
        end => 'complete', tags => [ pick([], ['x'], ['x', 'y', 'x'], [ '', 'z' ]) ]->[0] });
    my $key = int rand 6;
    my $r = "2\t1\t$m\n" . join '', map { "$_\t0\t16\n" } (rand > 0.1 ? sprintf 'key:%064x', $key : ()),
        (rand > 0.3 ? "user:u$key" : ()), (rand > 0.3 ? "team:t" . $key % 3 : ()),
        (rand > 0.5 ? "org:o" . $key % 2 : ()), (rand > 0.7 ? 'customer:c%20' . int rand 3 : ()),
        (rand > 0.8 ? ('tag:a', 'tag:b%2Fc', 'tag:a') : ()), 'global', sprintf 'key:%064x~m~x', $key;
    return ($rid, $ev, $r);
}

sub xadd { return $k->redis('XADD', 'kt:{0000}:s', '*', @_) }

$k->start_controld(name => 'second');
my @all;
for (1 .. 60) {
    my @entry;
    for (1 .. 1 + int rand 8) {
        my ($rid, $ev, $r) = event();
        my $code = pick('ok', 'ok', 'ok', 'late', 'lost 500', 'adj gone -5');
        push @entry, e => $ev, r => $r, c => $code;
        push @all, [ $ev, $r, $code ];
        if ($code =~ /^lost/ && rand > 0.3) {
            my (undef, $real, $other) = event(id => $rid);
            if (rand > 0.5) { push @entry, e => $real, r => $other, c => 'fix 500' }
            else            { xadd(e => $real, r => $other, c => 'fix 500') }
        }
    }
    xadd(@entry);
    my $old = pick(@all);
    xadd(e => $old->[0], r => $old->[1], c => $old->[2]) if rand > 0.5;
}
ok drained(), 'everything is booked';
cmp_ok $k->sql("SELECT count(*) FROM ledger WHERE kind = 'request'"), '>', 100, 'the ledger has rows';
cmp_ok $k->sql('SELECT count(*) FROM ledger WHERE fixed'), '>', 5, 'corrected ones among them';
is differs(), 0, 'the sums are those of the ledger'
    or diag $k->sql('SELECT * FROM kt_usage EXCEPT ALL SELECT * FROM kt_usage_truth LIMIT 5'), "\n",
            $k->sql('SELECT * FROM kt_usage_truth EXCEPT ALL SELECT * FROM kt_usage LIMIT 5');
is $k->sql("SELECT count(DISTINCT kind) FROM kt_usage"), 8, 'of every kind';
is $k->sql("SELECT sum(cost_nusd) FROM kt_usage WHERE kind = '$_'"),
    $k->sql("SELECT sum(cost_nusd) FROM ledger WHERE kind = 'request'"), "all money is in kind $_" for qw(k m g);
is $k->sql("SELECT count(*) FROM usage_dims x WHERE dim <> kt_usage_dim(kind, name, token, user_id, team_id,
    organization_id, model, upstream_model, provider, route)"), 0, 'dimensions have the same id in C and SQL';
is $k->sql('SELECT count(*) FROM usage_sums s WHERE NOT EXISTS (SELECT 1 FROM usage_dims x WHERE x.dim = s.dim)'), 0,
    'every sum has its dimension';

# an amount that does not fit is alone in what it loses

my (undef, $huge, $r) = event(m => 'same');
$huge =~ s/"cost":"\d+"/"cost":"9223372036854775807"/;
my (undef, $good) = event(m => 'same');
xadd(e => $good, r => $r, c => 'ok', e => $huge, r => $r, c => 'ok');
ok drained(), 'an overflow in one batch with others does not block';
is $k->sql('SELECT count(*) FROM ledger_rejects'), 1, 'it is parked'
    or diag $k->sql('SELECT * FROM ledger_rejects'), "\n", $k->logs, $k->logs('second');
is differs(), 0, 'and in no sum';

# the migration makes the same from a ledger that is there already

my $had = $k->sql('SELECT md5(string_agg(u::text, chr(10) ORDER BY u::text)) FROM kt_usage u');
$k->sql('DROP VIEW kt_usage, kt_usage_truth; DROP TABLE usage_sums, usage_dims; DROP FUNCTION kt_usage_dim; DROP INDEX ledger_limited;'
    . ' CREATE TABLE daily_usage ()');
$k->sql('BEGIN; ' . $k->slurp("$Keytoll::Control::ROOT/sql/020_usage.sql") . '; COMMIT');
is $k->sql('SELECT md5(string_agg(u::text, chr(10) ORDER BY u::text)) FROM kt_usage u'), $had,
    'the sums of the consumer and of the migration are the same';

done_testing;
