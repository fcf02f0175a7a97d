# Invariant 5, the other way: what is given is given.  A refusal that a gate keeps is gone
# when the admin call that lifts it has answered, however long Redis takes to tell the gates.

use strict;
use warnings;
use Test::More;
use IO::Socket::UNIX;
use Keytoll::Test;
use Keytoll::Stack;

my $s = Keytoll::Stack->up(KEYTOLL_WORKERS => 2);
$s->patient;
my $F = JSON::PP::false;

sub admin {
    my ($path, $body) = @_;
    my $r = $s->admin(POST => $path, $body);
    $r->{status} == 200 or die "$path: $r->{raw}";
    return $r->{json};
}
sub call {
    my $r = http_call($s->{port}, 'POST', '/v1/chat/completions', ['Authorization', "Bearer $_[0]", 'Content-Type', 'application/json'], chat_body());
    return $r->{status} . ' ' . ($r->{headers}{'x-keytoll-reason'} // '');
}

# Redis answers who made the change, then writes to each that listens, the last to come
# first: these make the gates wait.
my $listeners = 2000;
$s->redis->call('CONFIG', 'SET', 'maxclients', 10_000);
my @more = map {
    my $c = IO::Socket::UNIX->new(Peer => $s->{vars}{KEYTOLL_REDIS_SOCK}) or die "listener $_: $!";
    syswrite $c, "SUBSCRIBE kt:{0000}:changes\r\n";
    $c;
} 1 .. $listeners;
ok((eventually { ($s->redis->call('PUBSUB', 'NUMSUB', 'kt:{0000}:changes'))->[1] >= $listeners + 2 } 10), "$listeners others listen");

my $chosen = 'sk-' . join '', map { ('a' .. 'z', 'A' .. 'Z', 0 .. 9)[rand 62] } 1 .. 40;
my $key = admin('/key/generate', { max_budget => 0 })->{key};
my $blocked = admin('/key/generate', {})->{key};
my $narrow = admin('/key/generate', { models => ['no-default-models'] })->{key};
admin('/budget/new', { budget_id => 'plan', max_budget => 0 });
my $planned = admin('/key/generate', { budget_id => 'plan' })->{key};
my @lifts = (
    ['a budget that is raised', $key, '422 budget_exceeded', ['/key/update', { key => $key, max_budget => 0 }], ['/key/update', { key => $key, max_budget => 100 }]],
    ['a key that is let in again', $blocked, '401 key_blocked', ['/key/block', { key => $blocked }], ['/key/unblock', { key => $blocked }]],
    ['a model that is allowed', $narrow, '403 key_model_denied', ['/key/update', { key => $narrow, models => ['no-default-models'] }], ['/key/update', { key => $narrow, models => [] }]],
    ['a plan that is raised', $planned, '422 budget_exceeded', ['/budget/update', { budget_id => 'plan', max_budget => 0 }], ['/budget/update', { budget_id => 'plan', max_budget => 1 }]],
);
for (@lifts) {
    my ($name, $k, $refused, $off, $on) = @$_;
    my %after;
    for (1 .. 20) {
        admin(@$off);
        my $said = call($k);
        $said eq $refused or diag("$name: $said before");
        call($k) for 1 .. 2;
        admin(@$on);
        $after{ call($k) }++;
    }
    is_deeply(\%after, { '200 ' => 20 }, "$name: the next request passes, 20 times") or diag explain \%after;
}
is(call($chosen), '401 key_unknown', 'a key that nobody knows');
admin('/key/generate', { key => $chosen });
is(call($chosen), '200 ', 'is known by the next request');

@more = ();
$s->finish;
done_testing();
