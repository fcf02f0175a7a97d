# Invariant 5: revoked means revoked.  Clients call without a pause over two
# nginx; not one call is admitted after the admin call has answered 200.

use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time sleep);
use Keytoll::Test;
use Keytoll::Stack;
use Keytoll::Load;

my $s = Keytoll::Stack->up(KEYTOLL_WORKERS => 2);
$s->patient(lease => $ENV{KEYTOLL_LEASE});
my @ports = ($s->{port}, $s->another_nginx);
my $admin = Keytoll::Load::connection($s->{port});

my @unpushed;

# An admin call; the time when its answer began to arrive.
sub admin {
    my ($path, $body) = @_;
    my ($status, $at, $text, $head);
    for (1 .. 2) {
        $admin //= Keytoll::Load::connection($s->{port});
        ($status, $at, $text, $head) = Keytoll::Load::call(\$admin, Keytoll::Test::request_text('POST', $path,
            ['Authorization', "Bearer $s->{vars}{KEYTOLL_MASTER_KEY}", 'Content-Type', 'application/json'], $Keytoll::Test::JSON->encode($body)));
        last if $status;
    }
    $status == 200 or die "$path: $status $text";
    push @unpushed, "$path: $head" if $head =~ /x-keytoll-propagated: *false/i;
    return ($at, eval { json($text) });
}

# The same call on every port: statuses.
sub statuses {
    my $key = shift;
    return join ' ', map { http_call($_, 'POST', '/v1/chat/completions', ['Authorization', "Bearer $key", 'Content-Type', 'application/json'], chat_body())->{status} } @ports;
}

# What the ledger says was admitted in a span of time, however the client fared.
sub admitted {
    my ($key, $from, $to) = @_;
    my @rows = split /\n/, `psql -XAtq -d "$s->{vars}{KEYTOLL_PG_URL}" -c "select extract(epoch from admitted_at), extract(epoch from ended_at), rid, http_status, estimated, late, node from ledger where token = '@{[ token($key) ]}' and admitted_at > to_timestamp($from) and admitted_at < to_timestamp($to)"`;
    die 'psql' if $?;
    diag(join "\n", "after $from, before $to:", @rows) if @rows;
    return scalar @rows;
}

sub recorded {
    eventually { $s->redis->call('ZCARD', 'kt:{0000}:z') == 0 && $s->redis->call('XLEN', 'kt:{0000}:s') == 0 } 20;
}

# what revokes and what takes it back, over and over under load
sub under_load {
    my ($name, $key, $rounds, $revoke, $restore, $refused) = @_;
    is(statuses($key), '200 200', "$name: at first it is admitted");
    my $load = Keytoll::Load->start(clients => 6, ports => \@ports, key => $key, headers => ['x-mock-delay-ms', 2]);
    my (@span, $instant);
    for (1 .. $rounds) {
        sleep 0.15;
        my ($at) = $revoke->();
        $instant++ if statuses($key) eq "$refused $refused";
        sleep 0.1;
        push @span, [$at, time];
        last unless $restore;
        $restore->();
        $instant++ if statuses($key) eq '200 200';
    }
    sleep 0.1;
    my @calls = $load->stop;
    ok(recorded(), "$name: everything is in the ledger");
    my $ok = grep { $_->[2] == 200 } @calls;
    my $no = grep { $_->[2] == $refused } @calls;
    cmp_ok($ok, '>', 10 * $rounds, "$name: $ok calls admitted");
    cmp_ok($no, '>', 10 * $rounds, "$name: $no calls refused with $refused");
    my %other;
    $other{"$_->[2] $_->[3]"}++ for grep { $_->[2] != 200 && $_->[2] != $refused } @calls;
    is_deeply(\%other, {}, "$name: and nothing else happened");
    is($instant, $restore ? 2 * $rounds : 1, "$name: the next call sees it, there and back");
    my ($late, $ledger) = (0, 0);
    for my $span (@span) {
        my ($at, $to) = @$span;
        $late += grep { $_->[2] == 200 && $_->[0] > $at && $_->[1] < $to } @calls;      # $to: before it is taken back
        $ledger += admitted($key, sprintf('%.6f', $at + 0.001), sprintf('%.6f', $to - 0.001));     # the ledger has milliseconds, cut off
    }
    is($late, 0, "$name: no call begun after the 200 was admitted");
    is($ledger, 0, "$name: none is in the ledger as admitted after it");
}

sub key { my (undef, $j) = admin('/key/generate', { max_budget => 100, @_ }); return $j->{key} }

my $key = key();
under_load('/key/block', $key, 8, sub { admin('/key/block', { key => $key }) }, sub { admin('/key/unblock', { key => $key }) }, 401);

$key = key();
under_load('max_budget lowered', $key, 8, sub { admin('/key/update', { key => $key, max_budget => 0 }) },
    sub { admin('/key/update', { key => $key, max_budget => 100 }) }, 422);

$key = key();
under_load('a model taken away', $key, 6, sub { admin('/key/update', { key => $key, models => ['gpt-4o'] }) },
    sub { admin('/key/update', { key => $key, models => [] }) }, 403);

my (undef, $team) = admin('/team/new', { team_alias => 'revoked' });
$key = key(team_id => $team->{team_id});
under_load('/team/block', $key, 8, sub { admin('/team/block', { team_id => $team->{team_id} }) }, sub { admin('/team/unblock', { team_id => $team->{team_id} }) }, 401);

for my $round (1 .. 3) {
    $key = key();
    under_load("/key/delete $round", $key, 1, sub { admin('/key/delete', { keys => [$key] }) }, undef, 401);
}

if ($ENV{KEYTOLL_LEASE}) {
    my ($leased) = http_get($s->{port}, '/keytoll/status')->{body} =~ /"leased_total": ?(\d+)/;
    cmp_ok($leased // 0, '>', 100, 'requests were admitted from blocks');
}
is("@unpushed", '', 'every change was in Redis when its answer came');
$s->finish;
done_testing();
