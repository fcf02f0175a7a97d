# Invariant 9: nothing answers unless it was meant to, and nobody calls without
# the right to.

use strict;
use warnings;
use JSON::PP ();
use Test::More;
use Keytoll::Test;
use Keytoll::Stack;

my $s = Keytoll::Stack->up;
my $key = $s->admin(POST => '/key/generate', {})->{json}{key};
my $bin = ($ENV{KEYTOLL_BIN} || 'build') . '/keytoll-controld';
my @routes = map { JSON::PP::decode_json($_) } split /\n/, `$bin routes`;
cmp_ok(scalar @routes, '>', 90, 'the daemon tells its routes');
my ($PUBLIC, $INFO) = (1, 2);

for my $r (@routes) {
    next if $r->{groups} & $PUBLIC;
    my ($method, $path) = @$r{qw(method path)};
    $path =~ s/\{\w+\}|\*/x/g;
    my $body = $method ne 'GET' ? '{}' : undef;
    my @json = ('Content-Type', 'application/json');
    is(http_call($s->{port}, $method, $path, \@json, $body)->{status}, 401, "$method $path without a key");
    is(http_call($s->{port}, $method, $path, ['Authorization', 'Bearer sk-1234', @json], $body)->{status}, 401, "$method $path with a well-known key");
    is(http_call($s->{port}, $method, $path, ['Authorization', 'Bearer ', @json], $body)->{status}, 401, "$method $path with an empty key");
    is(http_call($s->{port}, $method, $path, ['Cookie', "token=$s->{vars}{KEYTOLL_MASTER_KEY}", @json], $body)->{status}, 401, "$method $path with a cookie");
    my $status = http_call($s->{port}, $method, $path, ['Authorization', "Bearer $key", @json], $body)->{status};
    if ($r->{groups} & $INFO) { isnt($status, 401, "$method $path with a virtual key: its own view") }
    else { is($status, 401, "$method $path with a virtual key") }
}

for my $path (qw(/organization/nope /invitation/new /sso/key/generate /config/update /nope /key/generate/x //key/generate/.. /api/teams)) {
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
