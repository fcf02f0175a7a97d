# Start, stop, configuration, migrations; what must refuse to start.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use IO::Socket::INET;
use IO::Socket::UNIX;
use Keytoll::Control;
use Test::More;
use Time::HiRes qw(time sleep);

my $k = Keytoll::Control->new(no_controld => 1);
$k->{port} = Keytoll::Control::free_port();
my ($rc, $out);

sub conf { return $k->write_config(name => 'c' . int(rand 1e9), @_) }

# migrations

my $conf = conf();
my @pids = map {
    my $pid = fork // die;
    if (!$pid) {
        $ENV{KEYTOLL_MASTER_KEY} = $Keytoll::Control::MASTER;
        open STDOUT, '>>', "$k->{dir}/migrate.log";
        open STDERR, '>&', \*STDOUT;
        exec(Keytoll::Control::binary(), 'migrate', '-c', $conf) or POSIX::_exit(127);
    }
    $pid;
} 1 .. 4;
my $failed = 0;
for (@pids) { waitpid $_, 0; $failed++ if $? }
is $failed, 0, 'four migrations at once succeed' or diag $k->slurp("$k->{dir}/migrate.log");
my @applied = $k->slurp("$k->{dir}/migrate.log") =~ /"migration applied"/g;
my $files = () = glob "$Keytoll::Control::ROOT/sql/[0-9]*.sql";
is scalar @applied, $files, 'and each file is applied once';
($rc, $out) = $k->run('migrate', '-c', $conf);
is $rc, 0, 'again: nothing to do';
is $k->sql('SELECT count(*) FROM schema_migrations'), $files, 'every file is on record';
is $k->sql("SELECT count(*) FROM pg_class c WHERE relkind IN ('r', 'p') AND relnamespace ="
    . " 'public'::regnamespace AND NOT relispartition AND relname <> 'schema_migrations' AND"
    . " obj_description(oid, 'pg_class') IS NULL"), 0, 'every table has a comment';
$k->sql("UPDATE schema_migrations SET checksum = 'x' WHERE name LIKE '001%'");
($rc, $out) = $k->run('migrate', '-c', $conf);
is $rc, 1, 'a file that was changed afterwards';
like $out, qr/was changed afterwards/, 'is named';
$k->sql('DROP SCHEMA public CASCADE; CREATE SCHEMA public');
mkdir "$k->{dir}/sql";
for ([ '001_a.sql', 'CREATE TABLE a (i int)' ], [ '002_b.sql', 'CREATE TABLE b (i int); SELECT broken' ]) {
    open my $fh, '>', "$k->{dir}/sql/$_->[0]" or die;
    print $fh $_->[1];
    close $fh;
}
($rc, $out) = $k->run('migrate', '-c', $conf, '--sql-dir', "$k->{dir}/sql");
is $rc, 1, 'a broken migration fails';
is $k->sql("SELECT concat(to_regclass('a'), to_regclass('b'))"), 'a', 'and leaves no half of itself';
$k->sql('DROP SCHEMA public CASCADE; CREATE SCHEMA public');

# constraints make bad states impossible

($rc) = $k->run('migrate', '-c', $conf);
for my $sql ("INSERT INTO keys (token) VALUES ('x')",
    "INSERT INTO keys (token, max_budget_nusd) VALUES (repeat('a', 64), -1)",
    "INSERT INTO users (user_id) VALUES (E'a\\nb')", "INSERT INTO users (user_id) VALUES ('')",
    "INSERT INTO teams (team_id, period_kind) VALUES ('t', 'fixed')",
    "INSERT INTO memberships (team_id, user_id, role) VALUES ('t', 'u', 'boss')",
    "INSERT INTO models (model_id, model_name, source, input_pusd) VALUES ('m', 'm', 'api', -1)",
    "INSERT INTO ledger (rid, started_at, admitted_at, ended_at, cost_nusd) VALUES"
        . " (repeat('a', 32), now(), now(), now(), -1)",
    "INSERT INTO meters (ent, period_id, requests) VALUES ('e', 0, -1)") {
    my $n = $k->sql('SELECT count(*) FROM keys') . $k->sql('SELECT count(*) FROM ledger');
    is $k->sql("$sql RETURNING 1"), '', $sql;
}
$k->sql("INSERT INTO audit (actor, action, object_type, object_id) VALUES ('a', 'created', 't', 'i')");
$k->sql('DELETE FROM audit');
$k->sql("UPDATE audit SET actor = 'x'");
is $k->sql("SELECT string_agg(actor, '') FROM audit"), 'a', 'the audit only grows';

# the master key

for my $c ([ undef, 'no master key' ], [ 'sk-1234', 'too weak' ], [ 'sk-' . 'a' x 28, 'too weak' ],
    [ 'a' x 40, 'must begin with sk-' ]) {
    $k->{run_master} = $c->[0];
    ($rc, $out) = $k->run('serve', '-c', $conf);
    is $rc, 1, 'master key ' . ($c->[0] // 'missing') . ': refuses to start';
    like $out, qr/$c->[1]/, 'and says why';
    unlike $out, qr/\Q$c->[0]/, 'without showing it' if defined $c->[0] && length $c->[0] > 10;
}
delete $k->{run_master};

# configuration

($rc, $out) = $k->run('check-config', '-c', $conf);
is_deeply [ $rc, $out ], [ 0, "the configuration is fine\n" ], 'check-config';
my $base = "database_url: x\nredis_url: unix:///x\n";
for my $c (
    [ "listen: 127.0.0.1:1\nbogus: 1\n", qr/:2:1: unknown name "bogus"/ ],
    [ "general_settings:\n  nope: 1\n", qr/:2:3: unknown name "nope"/ ],
    [ "threads: many\n", qr/:1:10: "threads" is not an integer/ ],
    [ "threads: 1000\n", qr/"threads" is not an integer in its range/ ],
    [ "general_settings:\n  store_model_in_db: maybe\n", qr/:2:22: .*true or false/ ],
    [ "general_settings: 1\n", qr/:1:19: a mapping is expected/ ],
    [ "listen: a\nlisten: b\n", qr/:2:1: "listen" is given twice/ ],
    [ "model_list: 1\n", qr/must be a list/ ],
    [ "a: [1\n", qr/:\d+:\d+: / ],
    [ $base . "litellm_compat: \"9\"\n", qr/litellm_compat/ ],
    [ $base . "litellm_settings:\n  max_budget: -1\n", qr/:4:15: "max_budget" is not an amount/ ],
    [ "redis_url: unix:///x\n", qr/no database_url/ ],
    [ "database_url: x\nredis_url: http:\/\/x\n", qr/redis_url must be/ ],
    [ $base . "model_list:\n  - model_name: a\n", qr/litellm_params\.model/ ],
    [ $base . "models_file: /nonexistent\n", qr/nonexistent/ ],
    ) {
    ($rc, $out) = $k->run('check-config', '-c', conf(text => $c->[0]));
    is $rc, 1, $c->[0] =~ s/\n/ | /gr;
    like $out, $c->[1], 'says where and why';
}
{
    local $ENV{MY_PG} = 'postgresql://u:hunter2hunter2@/x?host=/nonexistent';
    ($rc, $out) = $k->run('serve', '-c', conf(text => "database_url: os.environ/MY_PG\n"
        . "redis_url: unix:///x\n"));
    is $rc, 1, 'a database that is not there';
    like $out, qr/can not connect to PostgreSQL/, 'says so';
    unlike $out, qr/hunter2/, 'without the password';
}
($rc, $out) = $k->run('bogus');
is $rc, 1, 'an unknown command';
($rc, $out) = $k->run();
is $rc, 2, 'no command';
like $out, qr/^usage:/, 'prints the usage';

# a port that is taken

my $taken = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => 0);
($rc, $out) = $k->run('serve', '-p', "$k->{dir}/taken.pid", '-c', conf(text => "listen: 127.0.0.1:"
    . $taken->sockport . "\ndatabase_url: \"$k->{pg_url}\"\nredis_url: unix://$k->{dir}/redis.sock\n"));
is $rc, 1, 'a port in use';
like $out, qr/can not listen.*in use/, 'says so';
ok !-e "$k->{dir}/taken.pid", 'and leaves no pid file';

# serve, on TCP; then TERM while a request is in flight

$k->start_controld;
is $k->slurp("$k->{dir}/controld.pid"), "$k->{pid}{controld}\n", 'the pid file';
my $body = '{"key_alias":"in-flight"}';
my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $k->{ports}{controld}) or die;
print $c "POST /key/generate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $Keytoll::Control::MASTER\r\n"
    . 'Content-Length: ' . length($body) . "\r\n\r\n" . substr $body, 0, 5;
sleep 0.2;
my $pid = $k->{pid}{controld};
CORE::kill('TERM', $pid);
sleep 0.3;
print $c substr $body, 5;
my $line = <$c> // '';
like $line, qr/^HTTP\/1\.1 200/, 'a request in flight is finished';
my $t0 = time;
waitpid $pid, 0;
is $? >> 8, 0, "and the daemon ends with 0" or diag $k->logs;
cmp_ok time - $t0, '<', 5, 'soon';
delete $k->{pid}{controld};
ok !-e "$k->{dir}/controld.pid", 'the pid file is gone';
like $k->logs, qr/"msg":"stopped"/, 'and the log says so';
is $k->sql("SELECT count(*) FROM keys WHERE key_alias = 'in-flight'"), 1, 'its row is there';

# on a unix socket

my $sock = "$k->{dir}/ctl.sock";
my $uc = conf(text => "listen: unix:$sock\ndatabase_url: \"$k->{pg_url}\"\n"
    . "redis_url: unix://$k->{dir}/redis.sock\n");
{
    local $ENV{LITELLM_MASTER_KEY} = $Keytoll::Control::MASTER;
    $k->_spawn('unix', undef, "$k->{dir}/unix.log", Keytoll::Control::binary(), 'serve', '-c', $uc);
}
my $answer = $k->until(sub {
    my $u = IO::Socket::UNIX->new(Peer => $sock) or return;
    print $u "GET /health/liveliness HTTP/1.0\r\n\r\n";
    local $/;
    return scalar <$u>;
});
like $answer, qr/^HTTP\/1\.[01] 200.*I'm alive!/s, 'a unix socket; the key by LiteLLM\'s variable';
$k->kill('unix');
ok !-e $sock, 'is removed at the end';

unlike $k->slurp("$k->{dir}/$_"), qr/\Q$Keytoll::Control::MASTER/, "no secret in $_"
    for qw(controld.log unix.log migrate.log);
for my $line (split /\n/, $k->logs) {
    my $j = eval { JSON::PP->new->decode($line) };
    ok $j && $j->{level} && $j->{msg}, 'a log line is one JSON object' or diag $line;
    last if !$j;
}

done_testing;
