# The gate among nginx' other modules: behind every access check, once per
# request whatever redirects there are.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;

my $g = Keytoll::Test->gate(http => 'limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m;', more => <<'END');
    location /denied/ { deny all; rewrite ^/denied(.*) $1 break; proxy_pass http://mock; }
    location /any/ { satisfy any; allow 127.0.0.1; deny all; rewrite ^/any(.*) $1 break; proxy_pass http://mock; }
    location /authreq/ { auth_request /auth; rewrite ^/authreq(.*) $1 break; proxy_pass http://mock; }
    location = /auth { internal; keytoll off; if ($http_x_let_me = "") { return 403; } return 204; }
    location /fallback/ { error_page 502 = @other; proxy_pass http://127.0.0.1:1; }
    location @other { rewrite ^/fallback(.*) $1 break; proxy_pass http://mock; }
    location /limited/ { limit_req zone=one; rewrite ^/limited(.*) $1 break; proxy_pass http://mock; }
    location /static/ { alias /etc/; }
    location /mirrored/ { mirror /copy; rewrite ^/mirrored(.*) $1 break; proxy_pass http://mock; }
    location = /copy { internal; keytoll on; proxy_pass http://mock/v1/embeddings; }
    location /errors/ { error_page 401 /custom; rewrite ^/errors(.*) $1 break; proxy_pass http://mock; }
END
my $key = $g->key(rpm => 1000);
my $p = '/v1/chat/completions';

is($g->chat($key, path => "/denied$p")->{status}, 403, 'deny comes first');
is($g->state($key)->{rpm}, 0, 'and nothing is charged');
is($g->chat('sk-nobody-knows-this-key', path => "/any$p")->{status}, 401, 'satisfy any does not let a wrong key in');
is($g->chat($key, path => "/any$p")->{status}, 200, 'a right one passes');
is($g->chat($key, path => "/authreq$p")->{status}, 403, 'auth_request refuses first');
is($g->chat($key, path => "/authreq$p", headers => ['x-let-me', 1])->{status}, 200, 'and stacks in front of the gate');
ok($g->settled, 'settles');
is($g->state($key)->{rpm}, 2, 'two were admitted');
is($g->chat($key, path => "/fallback$p")->{status}, 200, 'error_page to a named location');
ok($g->settled, 'settles');
is($g->state($key)->{rpm}, 3, 'is admitted once');
is(scalar($g->events), 3, 'and settled once');
is($g->chat($key, path => "/limited$p")->{status}, 200, 'limit_req lets one through');
is($g->chat($key, path => "/limited$p")->{status}, 503, 'and stops the second before it costs anything');
ok($g->settled, 'settles');
is($g->state($key)->{rpm}, 4, 'nothing charged');
is(http_call($g->{port}[0], 'GET', '/static/hostname', ['Authorization', "Bearer $key"])->{status}, 200, 'a location without an upstream');
ok($g->settled, 'settles');
is(scalar($g->events), 4, 'makes no ledger row');
is($g->chat($key, path => "/mirrored$p")->{status}, 200, 'a mirrored request');
ok($g->settled, 'settles');
is(scalar($g->events), 5, 'is counted once, its copy not at all');
my $r = $g->chat('sk-nobody-knows-this-key', path => "/errors$p");
is($r->{status}, 401, 'error_page for our own refusal keeps the refusal');

$g->finish;
