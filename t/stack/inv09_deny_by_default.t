# Invariant 9: nothing answers unless it was meant to, and nobody calls without
# the right to.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;
use Keytoll::Stack;

my $s = Keytoll::Stack->up;
my $key = $s->admin(POST => '/key/generate', {})->{json}{key};
my $bin = "$Keytoll::Test::BIN/keytoll-controld";
my @routes = map { $Keytoll::Test::JSON->decode($_) } grep { /^\{/ } split /\n/, `$bin routes`;
cmp_ok(scalar(@routes), '>', 100, 'the routes are known');

# bits of controld/access.h
my ($PUBLIC, $INFO) = (1, 2);

for my $r (grep { !($_->{groups} & $PUBLIC) } @routes) {
    my ($method, $path) = @$r{qw(method path)};
    $path =~ s/\{\w+\}|\*$/x/g;
    my $body = $method ne 'GET' ? '{}' : undef;
    my @json = ('Content-Type', 'application/json');
    my @wrong;
    for my $how ([ 'no key' ], [ 'a well-known key', 'Authorization', 'Bearer sk-1234' ], [ 'an empty key', 'Authorization', 'Bearer ' ],
                 [ 'a cookie', 'Cookie', "token=$s->{vars}{KEYTOLL_MASTER_KEY}" ]) {
        my ($name, @headers) = @$how;
        my $st = http_call($s->{port}, $method, $path, [ @headers, @json ], $body)->{status};
        push @wrong, "$name: $st" if $st != 401;
    }
    # a key that belongs to nobody sees itself, and manages nothing
    my $st = http_call($s->{port}, $method, $path, [ 'Authorization', "Bearer $key", @json ], $body)->{status};
    push @wrong, "a virtual key: $st" if $r->{groups} & $INFO ? $st >= 500 && $st != 501 : $st != 401;
    is_deeply(\@wrong, [], "$method $path");
}

for my $path (qw(/organization/nope /invitation/new /sso/key/generate /nope /key/generate/x //key/generate/.. /api/teams)) {
    my $r = $s->admin(POST => $path, {});
    is($r->{status}, 404, "POST $path is not there") or diag $r->{body};
    unlike($r->{body}, qr/"?success/, 'and does not pretend');
}
is($s->admin(GET => '/key/generate')->{status}, 405, 'a wrong verb is 405');
is($s->admin(GET => '/key/info?key=' . 'a' x 64)->{status}, 404, 'an unknown key is 404');

for my $path (qw(/v1/chat/completions /chat/completions /v1/embeddings /v1/messages /v1/completions)) {
    is(http_call($s->{port}, 'POST', $path, [], '{}')->{status}, 401, "$path is gated");
}
for my $path ('//v1//chat/completions', '/v1/./chat/completions', '/v1/x/../chat/completions', '/v1/%63hat/completions') {
    is(http_call($s->{port}, 'POST', $path, [], chat_body())->{status}, 401, "$path is gated");
}
is(scalar(map { split /\n/ } http_get($s->{mock_port}, '/__truth')->{body}), 0, 'the provider saw nothing of it');

$s->finish;
done_testing();
