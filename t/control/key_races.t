# Two at once about the same keys: what was checked is what is done, whoever is faster.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Keytoll::World;
use POSIX ();
use Test::More;
use Time::HiRes 'sleep';

my $k = Keytoll::Control->new(config => <<'END');
model_list:
  - {model_name: gpt-4o, litellm_params: {model: openai/gpt-4o}}
END
my $w = Keytoll::World->new($k);
my ($s, $j);
my @rights = map { "/key/$_" } qw(generate update info regenerate);

# Runs aside; wait_for() gives what it returned.
sub aside {
    my ($run) = @_;
    pipe my $in, my $out or die;
    my $pid = fork // die;
    if ($pid == 0) {
        close $in;
        delete $k->{http};
        my $said = eval { $run->() } // "died: $@";
        syswrite $out, $said;
        POSIX::_exit(0);
    }
    close $out;
    return [ $pid, $in ];
}
sub wait_for { my ($p) = @_; my $in = $p->[1]; my $said = do { local $/; <$in> }; waitpid $p->[0], 0; return $said }
sub waiting { return $k->sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'keytoll-controld'") }
# Some may share a thread of the daemon, and wait for each other there.
sub until_waiting { my ($n) = @_; $k->until(sub { waiting() >= $n }, 3) }
# Holds back whatever comes to this statement, until let_go().
sub hold { my ($sql) = @_; my $p = aside(sub { $k->sql("BEGIN; $sql; SELECT pg_sleep(60); COMMIT"); 'done' }); $k->until(sub { $k->sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") > 0 }, 10); return $p }
sub let_go { my ($p) = @_; $k->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"); wait_for($p) }
# What waits has a thread of the daemon; a new connection gets another one.
sub ask { my ($who, @r) = @_; delete $k->{http}; return aside(sub { my ($c) = $w->as($who, @r); "$c " . ($k->raw // '') }) }

# --- many at once: what fails first, what is in the way

my @two = map { $w->ok(POST => '/key/generate', { user_id => 'user-IU', team_id => 'alpha' }) } 1, 2;
my @idem = (headers => { 'Idempotency-Key' => 'bulk-1' });
for (1, 2) {
    ($s, $j) = $k->request(POST => '/key/bulk_update', { keys => [ { key => 'sk-nothere000000000000', max_budget => 1 }, { key => $two[0]{key}, max_budget => 2 } ] }, @idem);
    is_deeply [ $s, scalar @{ $j->{successful_updates} } ], [ 200, 1 ], 'one fails, the other does not';
}
is $k->sql("SELECT count(*) FROM audit WHERE object_id = '$two[0]{token}' AND action = 'updated'"), 1, 'and is changed once, though sent twice';
($s) = $k->request(POST => '/key/bulk_update', { keys => [ { key => $two[0]{key}, max_budget => 3 } ] }, @idem);
is $s, 422, 'the Idempotency-Key is taken' or diag $k->raw;
{
    my $t = $w->team('org-A', 'IU');
    my $mover = aside(sub { $k->sql("BEGIN; SELECT 1 FROM teams WHERE team_id IN ('alpha', '$t') FOR UPDATE; SELECT pg_sleep(1.5); UPDATE keys SET team_id = '$t' WHERE token = '$two[1]{token}'; COMMIT"); 'moved' });
    $k->until(sub { $k->sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") > 0 }, 10);
    ($s, $j) = $k->post('/key/bulk_update', { keys => [ { key => $two[1]{key}, max_budget => 7 } ] });
    is_deeply [ $s, map { 0 + $_->{key_info}{max_budget} } @{ $j->{successful_updates} } ], [ 200, 7 ], 'a key that moves meanwhile is changed' or diag $k->raw;
    wait_for($mover);
}

# --- a key that moves to a team which its owner is just taken out of

for my $first ('removal', 'move') {
    my $t = $w->team('org-A', 'TA', 'IU');
    $w->ok(POST => '/team/update', { team_id => $_, team_member_permissions => \@rights }) for $t, 'alpha';
    my $key = $w->ok(POST => '/key/generate', { user_id => 'user-IU', team_id => 'alpha', models => ['gpt-4o'] });
    my $h = hold('LOCK TABLE audit IN SHARE MODE');
    my @both = map { my $what = $_; sub { $what eq 'move' ? ask(IU => POST => '/key/update', { key => $key->{key}, team_id => $t })
                                                          : ask(TA => POST => '/team/member_delete', { team_id => $t, user_id => 'user-IU' }) } } $first, $first eq 'move' ? 'removal' : 'move';
    my @run;
    for (0, 1) { push @run, $both[$_]->(); until_waiting($_ + 1) }
    let_go($h);
    my @said = map { wait_for($_) } @run;
    if ($first eq 'removal') {
        like $said[0], qr/^200 /, 'taken out of the team';
        like $said[1], qr/^40[13] /, 'his key does not get there';
        is $k->sql("SELECT team_id FROM keys WHERE token = '$key->{token}'"), 'alpha', 'it stays where it was';
    } else {
        like $said[$_], qr/^200 /, 'one after the other' for 0, 1;
        is $k->sql("SELECT count(*) FROM keys WHERE token = '$key->{token}'"), 0, 'the key went with the membership';
    }
    is $k->sql("SELECT count(*) FROM keys k WHERE team_id = '$t' AND NOT EXISTS (SELECT 1 FROM memberships m WHERE m.team_id = k.team_id AND m.user_id = k.user_id AND NOT implicit)"), 0, 'no key of the team is one of a stranger';
}

# --- the same for another secret of a key of the team

{
    my $t = $w->team('org-A', 'TA', 'IU', 'OW');
    $w->ok(POST => '/team/update', { team_id => $t, team_member_permissions => \@rights });
    my $theirs = $w->fresh('OW', $t);
    is +($w->as(IU => POST => '/key/regenerate', { key => $w->fresh('OW', $t) }))[0], 200, 'a member replaces the secret of a key of the team' or diag $k->raw;
    my $h = hold('LOCK TABLE audit IN SHARE MODE');
    my @run = (ask(TA => POST => '/team/member_delete', { team_id => $t, user_id => 'user-IU' }));
    until_waiting(1);
    push @run, ask(IU => POST => '/key/regenerate', { key => $theirs });
    until_waiting(2);
    let_go($h);
    my @said = map { wait_for($_) } @run;
    like $said[0], qr/^200 /, 'taken out of the team';
    like $said[1], qr/^401 /, 'he gets no secret any more';
}

# --- keys that are named by an alias

{
    my $h = hold('LOCK TABLE deleted_keys IN SHARE MODE');
    my $mine = $w->ok(POST => '/key/generate', { user_id => 'user-CU', team_id => 'beta', key_alias => 'prod' })->{token};
    my $run = ask(CU => POST => '/key/delete', { key_aliases => [ 'prod', 'next' ] });
    until_waiting(1);
    my $other = $w->ok(POST => '/key/generate', { user_id => 'user-IU', team_id => 'alpha', key_alias => 'next' })->{token};
    let_go($h);
    like wait_for($run), qr/^200 /, 'a key is deleted by its alias';
    is $k->sql("SELECT string_agg(token, ' ') FROM keys WHERE token IN ('$mine', '$other')"), $other, 'one that got such an alias meanwhile is not';
    $h = hold('LOCK TABLE deleted_keys IN SHARE MODE');
    is +($w->as(CU => POST => '/key/delete', { key_aliases => ['nobodys'] }))[0], 404, 'an alias that nobody has';
    is +($w->as(CU => POST => '/key/delete', { keys => ['nobodys'] }))[0], 404, 'nor a key';
    is +($k->post('/key/delete', { key_aliases => ['nobodys'] }))[0], 404, 'for an admin too';
    let_go($h);
}

# --- what is guaranteed

{
    my $t = $w->team('org-A', 'TA', 'IU');
    $w->ok(POST => '/team/update', { team_id => $t, rpm_limit => 100, team_member_permissions => \@rights });
    my @keys = map { $w->fresh('IU', $t) } 1 .. 4;
    my $h = hold('LOCK TABLE audit IN SHARE MODE');
    my @run = map { ask(IU => POST => '/key/update', { key => $_, rpm_limit => 40, rpm_limit_type => 'guaranteed_throughput' }) } @keys;
    until_waiting(4);
    let_go($h);
    my @said = map { substr wait_for($_), 0, 3 } @run;
    is_deeply [ sort @said ], [ 200, 200, 400, 400 ], 'many at once get what there is';
    is $k->sql("SELECT sum(rpm_limit) FROM keys WHERE team_id = '$t' AND metadata->>'rpm_limit_type' = 'guaranteed_throughput'"), 80, 'no more';
}

# --- who is in the way of another waits, and both come through

{
    my $key = $w->ok(POST => '/key/generate', { user_id => 'user-IU', team_id => 'alpha' })->{token};
    my $p = aside(sub { $k->sql("SET deadlock_timeout = '60s'; BEGIN; SELECT 1 FROM keys WHERE token = '$key' FOR UPDATE; SELECT pg_sleep(2); SELECT 1 FROM teams WHERE team_id = 'alpha' FOR UPDATE; COMMIT"); 'done' });
    $k->until(sub { $k->sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") > 0 }, 10);
    sleep 1.5;
    my $run = ask(IU => POST => '/key/update', { key => $key, metadata => { note => 'through' } });
    like wait_for($run), qr/^200 /, 'a deadlock is no answer';
    is wait_for($p), 'done', 'nor for the other';
    is $k->sql("SELECT metadata->>'note' FROM keys WHERE token = '$key'"), 'through', 'it was done';
    like $k->logs, qr/deadlock detected/, 'there was one';
}

done_testing;
