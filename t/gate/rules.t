# What the operator asks of a request besides limits (litellm-api 11.2, rows 2, 31, 32 and 38).

use strict;
use warnings;
use Test::More;
use Keytoll::Test;

my $g = Keytoll::Test->gate(more => <<'END');
    location /own/   { keytoll_client_credentials on; proxy_pass http://mock/; location /own/off/ { keytoll_client_credentials off; proxy_pass http://mock/; } }
    location /user/  { keytoll_enforce_user on; proxy_pass http://mock/; location /user/off/ { keytoll_enforce_user off; proxy_pass http://mock/; } }
    location /tags/  { keytoll_reject_tags on; proxy_pass http://mock/; location /tags/off/ { keytoll_reject_tags off; proxy_pass http://mock/; } }
    location /param/ { keytoll_enforced_params user metadata.job; proxy_pass http://mock/; location /param/in/ { proxy_pass http://mock/; } location /param/off/ { keytoll_enforced_params off; proxy_pass http://mock/; } }
END
my $key = $g->key;
my $T = JSON::PP::true;

sub ask {
    my ($at, %o) = @_;
    my $h = delete $o{headers} // [];
    return $g->chat(delete $o{key} // $key, path => "$at/v1/chat/completions", headers => $h, %o);
}
sub said { my $r = shift; return join ' ', $r->{status}, $r->{headers}{'x-keytoll-reason'} // '-', $r->{json}{error} ? map { $_ // 'null' } @{ $r->{json}{error} }{qw(type param)} : () }

is(ask('/own', api_base => 'http://elsewhere')->{status}, 200, 'an address of their own, where it may be');
is(ask($_, api_base => 'http://elsewhere')->{status}, 401, "not in $_/") for '', '/own/off';
is(ask('/own', fallbacks => ['claude-x'])->{status}, 400, 'other models never');

is(said(ask('/user')), '401 user_missing auth_error None', 'without a user');
is(ask('/user')->{json}{error}{message}, "Authentication Error, 'user' param not passed in. 'enforce_user_param'=True", 'in LiteLLM\'s words');
is(ask('/user', user => 'u1')->{status}, 200, 'with one');
is(ask('/user', headers => ['x-litellm-end-user-id', 'u1'])->{status}, 200, 'or in a header');
is(ask('/user', user => '')->{status}, 401, 'an empty one is none');
is(ask('/user/off')->{status}, 200, 'where it is off');
is(http_get($g->{port}[0], '/user/v1/models', ['Authorization', "Bearer $key"])->{status}, 200, 'what is only read needs none');

for my $c (['tags', tags => ['a']], ['metadata.tags', metadata => { tags => ['a'] }], ['a header', headers => ['x-litellm-tags', 'a']]) {
    my ($what, @with) = @$c;
    is(said(ask('/tags', @with)), '400 tags_denied bad_request_error metadata.tags', "tags in $what");
    is(ask('/tags/off', @with)->{status}, 200, 'where it is off');
}
is(ask('/tags', metadata => { job => 1, tags => [] })->{status}, 200, 'none are none');

# a body that is not read may hold whatever it does; headers are read of every request

sub plain { my ($method, $path, @h) = @_; return http_call($g->{port}[0], $method, $path, ['Authorization', "Bearer $key", @h], $method eq 'POST' ? '{"metadata":{"tags":["a"]}}' : undef) }
for my $c (['POST', 'v1/batches'], ['POST', 'v1/files'], ['GET', 'v1/models'], ['GET', 'v1/files'], ['DELETE', 'v1/files/f1']) {
    my ($method, $path) = @$c;
    is(said(plain($method, "/tags/$path", 'x-litellm-tags', 'a, b')), '400 tags_denied bad_request_error metadata.tags', "$method $path: tags in a header");
    is(plain($method, "/tags/$path", 'x-litellm-tags', ' , ')->{headers}{'x-keytoll-reason'}, undef, "$method $path: an empty list is none");
    is(plain($method, "/tags/$path")->{headers}{'x-keytoll-reason'}, undef, "$method $path: none in a header");
    is(plain($method, "/tags/off/$path", 'x-litellm-tags', 'a, b')->{headers}{'x-keytoll-reason'}, undef, "$method $path: where it is off");
    is(plain($method, "/user/$path")->{headers}{'x-keytoll-reason'}, undef, "$method $path: no customer is asked for where the body is not read");
    $g->settled;
    next if $method ne 'POST';
    plain($method, "/user/$path", 'x-litellm-end-user-id', 'u9');
    $g->settled;
    is(($g->events)[-1][0]{cust}, 'u9', "$method $path: but the one of a header is kept");
}
is(http_call($g->{port}[0], 'POST', '/tags/v1/batches', ['Authorization', 'Bearer sk-nobody-' . 'y' x 20, 'x-litellm-tags', 'a'], '{}')->{headers}{'x-keytoll-reason'}, 'key_unknown', 'a key that is not known hears that first');

is(said(ask('/param')), '400 param_missing invalid_request_error None', 'a parameter that must be there');
is(ask('/param')->{json}{error}{message}, 'BadRequest please pass param=user in request body. This is a required param', 'in LiteLLM\'s words');
like(ask('/param/in', user => 'x')->{json}{error}{message}, qr/param=metadata\.job /, 'each is named');
like(ask('/param', user => 'x', metadata => { Job => 1, x => { job => 1 } })->{json}{error}{message}, qr/param=metadata\.job /, 'to the letter, in its place');
like(ask('/param', user => 'x', metadata => 'job')->{json}{error}{message}, qr/param=metadata\.job /, 'as a member');
is(ask('/param', user => 'x', metadata => { job => undef })->{status}, 200, 'whatever its value is');
is(ask('/param/off')->{status}, 200, 'where it is off');
is(ask('/param', body => '{"model":"gpt-4o-mini","messages":[{"user":"x"}],"us\u0065r" : "x" , "metadata":{"a":[{"job":1},"}"],"job":{}}}')->{status}, 200, 'however it is written');

my $none = 'sk-nobody-' . 'x' x 20;
is(said(ask($_, key => $none, api_base => 'x')), '401 key_unknown token_not_found_in_db key', "a key that is not known hears that first: $_/") for '', '/user', '/param';
my $spent = $g->key(limit => '0');
is(ask('/user', key => $spent)->{headers}{'x-keytoll-reason'}, 'budget_exceeded', 'as do those that have nothing left');
ok($g->settled, 'settles');
is($g->state($key)->{held}, 0, 'nothing is held');
$g->finish;
