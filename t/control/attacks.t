# What went wrong elsewhere (security-reliability B.1), tried against the admin API.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Digest::SHA qw(sha256_hex);
use IO::Select;
use IO::Socket::INET;
use Keytoll::Control;
use Keytoll::World;
use Test::More;
use Time::HiRes qw(time);

my $k = Keytoll::Control->new;
my $w = Keytoll::World->new($k);
my ($s, $j);
my (undef, $dump) = $k->run('routes');
my @routes = map { JSON::PP::decode_json($_) } grep { /^\{/ } split /\n/, $dump;
my $iu = $w->{key}{IU};

sub raw {
    my $bytes = shift;
    my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $k->{ports}{controld}, Timeout => 5) or die;
    print $c $bytes;
    shutdown $c, 1;
    my $out = '';
    my $quiet = IO::Select->new($c);         # a connection may be kept open after the answer
    1 while $quiet->can_read($out eq '' ? 10 : 3) && sysread $c, $out, 65536, length $out;
    return $out;
}
sub status { my ($out) = @_; return $out =~ m{^HTTP/1\.[01] (\d+)} ? $1 : 0 }

# CVE-2026-42208: SQL in the credential, reached by the path of errors
for my $sql ("x' OR (SELECT pg_sleep(8)) IS NOT NULL --", "sk-x' OR 1=1 --", "sk-'; DROP TABLE keys; --", 'sk-$1', 'sk-%s%s%n', "sk-\x01\x02", 'sk-' . 'a' x 8000) {
    for my $r (@routes[ 4, 6, 20 ]) {
        my $at = time;
        my $out = raw("$r->{method} $r->{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $sql\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
        like status($out), qr/^(?:40[01]|431|413)$/, "$r->{path} with a credential of SQL";
        cmp_ok time - $at, '<', 2, 'at once';
    }
}
is $k->sql('SELECT count(*) > 8 FROM keys'), 't', 'the tables are there';

# CVE-2026-49468: the route decided by something else than the path
for my $head ("Host: localhost:4000/#\@x", 'Host: localhost/?', 'Host: a\\b', 'Host:', "Host: x\r\nX-Original-URL: /health/liveliness", "Host: x\r\nX-Rewrite-URL: /metrics",
              "Host: x\r\nX-Forwarded-Prefix: /docs", "Host: x\r\nX-HTTP-Method-Override: GET") {
    for my $path ('/key/generate', '/user/new', 'http://x/key/generate', '//key/generate', '/key//generate', '/docs/../key/generate', '/%6bey/generate', '/key/generate%2f', '/key/generate;x', '/KEY/GENERATE') {
        my $out = raw("POST $path HTTP/1.1\r\n$head\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
        unlike $out, qr/"key":\s*"sk-/, "POST $path, " . ($head =~ s/\r\n/ /r) . ', without a key';
        like status($out), qr/^(?:4\d\d|0)$/, 'is refused';
    }
}
# smuggling
for my $bad ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\nGET /key/list HTTP/1.1\r\nHost: x\r\n\r\n", "Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}", "Content-Length: -1\r\n\r\n{}") {
    my $out = raw("POST /key/generate HTTP/1.1\r\nHost: x\r\n$bad");
    unlike $out, qr/ 200 /, 'ambiguous lengths answer nothing';
    like status($out), qr/^(?:40[01]|0)$/, 'but a refusal';
}

# #39660 CVE-2026-47101, -47102: rights by a field
($s, $j) = $k->post('/key/generate', { allowed_routes => ['/*'] }, key => $iu);
my $wide = $j->{key};
for my $call ([ '/user/new', {} ], [ '/team/new', {} ], [ '/key/bulk_update', { keys => [ { key => $iu, max_budget => 1 } ] } ], [ '/budget/new', {} ], [ '/model/new', { model_name => 'x', litellm_params => { model => 'y' } } ]) {
    ($s) = $k->post(@$call, key => $wide);
    like $s, qr/^40[13]$/, "a key with the route /* still may not $call->[0]";
}
for my $call ([ '/user/update', { user_id => 'user-IU', user_role => 'proxy_admin' } ], [ '/user/bulk_update', { users => [ { user_id => 'user-IU', user_role => 'proxy_admin' } ] } ],
              [ '/user/bulk_update', { all_users => \1, user_updates => { user_role => 'proxy_admin' } } ]) {
    ($s) = $k->post(@$call, key => $iu);
    is $s, 401, "$call->[0]: nobody makes himself an admin";
}
($s, $j) = $k->post('/key/generate', { user_id => 'user-PA' }, key => $iu);
is $s, 403, 'nor makes a key of one';
($s, $j) = $k->post('/key/generate', { key => $Keytoll::Control::MASTER, user_id => 'user-IU' });
is $s, 400, 'the master key is nobody\'s virtual key';
($s, $j) = $k->post('/key/generate', { key => 'sk-' . sha256_hex($iu) });
($s, $j) = $k->get('/key/info', key => sha256_hex($iu));
is $s, 401, 'the hash of a key is no key';
($s, $j) = $k->get('/key/info', key => 'sk-1234');
is $s, 401, 'nor is a well-known one';

# CVE-2025-0628, PYSEC-2026-4072: what a viewer sees and what he gets
$w->ok(POST => '/user/new', { user_id => 'user-IV', user_role => 'internal_user_viewer', auto_create_key => \0 });
my $iv = $w->ok(POST => '/key/generate', { user_id => 'user-IV' })->{key};
($s) = $k->post('/key/generate', {}, key => $iv);
is $s, 401, 'a viewer makes no keys';
for my $path ('/user/list', '/user/filter/ui', '/user/get_users') {
    $k->get($path, key => $_) and unlike $k->raw, qr/user-PA|user-OB/, "$path does not list everybody" for $iv, $iu;
}

# enumeration: unknown and forbidden say the same where it matters
my @a = $k->get('/organization/info?organization_id=org-B', key => $iu);
my @b = $k->get('/organization/info?organization_id=nowhere', key => $iu);
is "$a[0]", "$b[0]", 'an organization of others is as unknown as none';

# secrets stay where they are
$k->post('/model/new', { model_name => 'secret-model', litellm_params => { model => 'openai/x', api_key => 'sk-provider-0123456789', extra_headers => { Authorization => 'Bearer zzz-secret' } } });
for my $r (grep { $_->{method} eq 'GET' } @routes) {
    (my $p = $r->{path}) =~ s/\{\w+\}|\*$/secret-model/g;
    $k->get($p);
    unlike $k->raw // '', qr/sk-provider-0123|zzz-secret|\Q$Keytoll::Control::MASTER\E|\$scrypt|password_hash/, "GET $r->{path} shows no secret";
}
unlike $k->logs, qr/sk-provider|zzz-secret|\Q$iu\E|\Q$Keytoll::Control::MASTER\E|pg_sleep/, 'nor does the log';
unlike $k->slurp("$k->{dir}/postgres.log"), qr/sk-provider|\Q$iu\E|pg_sleep/, "nor PostgreSQL's";

($s) = $k->get('/health/readiness', key => undef);
is $s, 200, 'the daemon is well';
unlike $k->logs, qr/did not check whose/, 'no handler forgot to ask whose object it is';
done_testing;
