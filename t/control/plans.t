# Nothing that the admin API is asked every day reads all of a large table: with many
# keys, each call is made and PostgreSQL says how many rows it has touched.
# KEYTOLL_LONG=1: a million keys.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Digest::SHA qw(sha256_hex);
use Keytoll::Control;
use Test::More;
use Time::HiRes qw(time sleep);

my $N = $ENV{KEYTOLL_LONG} ? 1_000_000 : 100_000;
my ($USERS, $TEAMS) = ($N / 5, $N / 20);
my $k = Keytoll::Control->new;
my ($s, $j);
$k->post('/team/new', { team_id => 'team-1', tpm_limit => 100 });
$k->post('/user/new', { user_id => 'user-1', user_email => 'one@example.com', user_role => 'internal_user', auto_create_key => \0 });
my $mine = ($k->post('/key/generate', { key_alias => 'mine', user_id => 'user-1' }))[1]{key};
my $team = ($k->post('/key/generate', { team_id => 'team-1', user_id => 'user-1' }))[1]{key};
my $rotated = ($k->post('/key/regenerate', { key => $team }))[1]{key};
$k->sql(<<"END");
SET session_replication_role = replica;
INSERT INTO keys (token, key_name, key_alias, user_id, team_id, models, rpm_limit, created_at, version)
    SELECT encode(sha256(i::text::bytea), 'hex'), 'sk-...abcd', CASE WHEN i % 3 = 0 THEN 'alias-' || i END, 'u' || i % $USERS,
           CASE WHEN i % 2 = 0 THEN 't' || i % $TEAMS END, '{gpt-4o}', i % 100, now() - i * interval '1 second', i FROM generate_series(1, $N) i;
INSERT INTO users (user_id, user_email, version, created_at) SELECT 'u' || i, 'u' || i || '\@example.com', i, now() - i * interval '1 second' FROM generate_series(0, $USERS - 1) i;
INSERT INTO teams (team_id, team_alias, version) SELECT 't' || i, 'Team ' || i, i FROM generate_series(0, $TEAMS - 1) i;
INSERT INTO memberships (team_id, user_id, version) SELECT 't' || i % $TEAMS, 'u' || i % $USERS, i FROM generate_series(0, 2 * $USERS - 1) i ON CONFLICT DO NOTHING;
INSERT INTO audit (actor, action, object_type, object_id) SELECT 'u' || i % 100, 'updated', 'LiteLLM_VerificationToken', encode(sha256(i::text::bytea), 'hex') FROM generate_series(1, 50000) i;
UPDATE key_counts SET n = n + $N WHERE shard = 3;
END
$k->sql('ANALYZE');
is $k->sql('SELECT sum(n) = (SELECT count(*) FROM keys) FROM key_counts'), 't', "$N keys, and they are counted";

my @TABLES = qw(keys users teams memberships audit meters outbox budgets);
my $STATS = "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0) FROM pg_stat_user_tables WHERE relname IN (" . join(', ', map { "'$_'" } @TABLES) . ')';
my $SEQ = "SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_user_tables WHERE relname IN ('keys', 'users', 'memberships', 'audit')";
# backends report when they are idle, at most once a second
sub touched { $k->sql('SELECT pg_stat_clear_snapshot()'); return $k->sql(shift) }

my $hash = sha256_hex('77');
my @calls = (
    [ GET => "/key/info?key=$mine" ], [ GET => "/key/info?key=$hash" ], [ GET => "/key/info?key=$rotated" ], [ GET => '/key/list' ], [ GET => '/key/list?page=50&size=100' ],
    [ GET => '/key/list?user_id=u77&return_full_object=true' ], [ GET => '/key/list?team_id=t76' ], [ GET => '/key/list?key_alias=alias-300' ], [ GET => "/key/list?key_hash=$hash" ],
    (map { my $by = $_; map { [ GET => "/key/list?sort_by=$by&sort_order=$_" ] } qw(asc desc) } qw(created_at updated_at max_budget key_alias token)),
    [ GET => '/user/info?user_id=u77' ], [ GET => '/team/info?team_id=t76' ], [ GET => '/audit?page_size=5&object_id=' . $hash ],
    [ POST => '/key/generate', { max_budget => 1, key_alias => 'plans-1', user_id => 'u5', team_id => 't5' } ], [ POST => '/key/update', { key => $hash, max_budget => 2, tpm_limit => 5 } ],
    [ POST => '/key/update', { key => $rotated, rpm_limit => 7 } ], [ POST => '/key/block', { key => $hash } ], [ POST => '/key/unblock', { key => $hash } ],
    [ POST => '/key/regenerate', { key => sha256_hex('78') } ], [ POST => '/key/delete', { keys => [ sha256_hex('79') ] } ], [ POST => '/key/delete', { key_aliases => ['alias-81'] } ],
    [ POST => '/user/new', { user_email => 'new@example.com' } ], [ POST => '/user/update', { user_id => 'u9', max_budget => 4 } ], [ POST => '/user/delete', { user_ids => ['u11'] } ],
    [ POST => '/team/member_add', { team_id => 't9', member => { role => 'user', user_id => 'u10' } } ], [ POST => '/team/member_delete', { team_id => 't12', user_id => 'u12' } ],
    [ POST => '/team/update', { team_id => 't13', max_budget => 9 } ], [ POST => '/team/delete', { team_ids => ['t14'] } ],
);
$k->request(@$_) for [ GET => '/key/list' ], [ GET => "/key/info?key=$mine" ];
sleep 1.3;
my (@slow, @failed);
while (my @some = splice @calls, 0, $ENV{KEYTOLL_LONG} || $ENV{KEYTOLL_EACH} ? 1 : 9) {
    my $from = touched($SEQ);
    for my $c (@some) {
        ($s, $j) = $k->request(@$c);
        push @failed, "$c->[0] $c->[1]: $s " . $k->raw if $s != 200;
    }
    sleep 1.1;
    $k->get('/key/info?key=' . $mine) for 1 .. 8;        # every thread reports
    sleep 0.2;
    my $rows = touched($SEQ) - $from;
    push @slow, "$rows rows read one after the other by one of: " . join ', ', map { "$_->[0] $_->[1]" } @some if $rows > 1000;
}
is_deeply \@failed, [], 'every call is answered';
is_deeply \@slow, [], 'none reads a table from end to end';

my %took;
for (1 .. 30) {
    for my $path ("/key/info?key=$mine", '/key/list', '/key/list?user_id=u77&return_full_object=true', '/user/info?user_id=u77') {
        my $at = time;
        $k->get($path);
        push @{ $took{$path} }, 1000 * (time - $at);
    }
}
for my $p (sort keys %took) {
    my @t = sort { $a <=> $b } @{ $took{$p} };
    cmp_ok $t[ @t / 2 ], '<', 50 * $Keytoll::Control::SLOW, sprintf '%s: %.1f ms with %d keys', $p, $t[ @t / 2 ], $N;
}
if ($ENV{KEYTOLL_LONG}) {
    my $from = touched($SEQ);
    my $at = time;
    my ($rc, $out) = $k->run('reconcile', '-c', "$k->{dir}/controld.yaml");
    sleep 1.2;
    cmp_ok touched($SEQ) - $from, '<', 1000, sprintf 'the reconciler goes by indexes as well, through all in %.0f s', time - $at;
}
($s, $j) = $k->get('/key/list');
is $j->{total_count}, $k->sql("SELECT count(*) FROM keys"), 'and the number of keys is exact';
done_testing;
