# Bad configuration fails `nginx -t` with the directive's name; every directive
# does what it says.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;

my $g = Keytoll::Test->gate;
my $conf = $g->nginx_conf(0);
my ($code, $out) = $g->config_test($conf);
is($code, 0, 'the test configuration is valid') or diag $out;

for my $case (
    ['no redis', sub { s/keytoll_redis unix[^;]*;// }, qr/needs a "keytoll_redis"/],
    ['no zone', sub { s/keytoll_zone [^;]*;// }, qr/needs a "keytoll_zone"/],
    ['no journal', sub { s/keytoll_journal [^;]*;// }, qr/needs a "keytoll_journal"/],
    ['a bad flag', sub { s/keytoll on;/keytoll maybe;/ }, qr/"maybe" in "keytoll" directive/],
    ['a bad redis parameter', sub { s/timeout=2s/time=2s/ }, qr/invalid parameter "time=2s" in the "keytoll_redis"/],
    ['a bad timeout', sub { s/timeout=2s/timeout=0/ }, qr/invalid timeout "0" in the "keytoll_redis"/],
    ['a bad address', sub { s/keytoll_redis \S+/keytoll_redis host:99999/ }, qr/"keytoll_redis" directive/],
    ['a missing password file', sub { s/timeout=2s/password_file=\/nonexistent\/x/ }, qr/password_file.*"keytoll_redis"/],
    ['two redis', sub { s/(keytoll_redis unix[^;]*;)/$1 $1/ }, qr/"keytoll_redis" directive is duplicate/],
    ['a zone without size', sub { s/keytoll_zone [^;]*;/keytoll_zone kt;/ }, qr/invalid zone "kt" in the "keytoll_zone"/],
    ['a zone too small', sub { s/keytoll_zone [^;]*;/keytoll_zone kt:1k;/ }, qr/too small/],
    ['a bad failure policy', sub { s/keytoll_redis_failure deny/keytoll_redis_failure open/ }, qr/"open"/],
    ['a bad abort policy', sub { s/keytoll_abort drain/keytoll_abort never/ }, qr/"never"/],
    ['a bad body size', sub { s/keytoll on;/keytoll on; keytoll_max_body x;/ }, qr/"keytoll_max_body" directive/],
    ['a bad status format', sub { s/keytoll_status;/keytoll_status xml;/ }, qr/"keytoll_status" directive/],
    ['redis in a location', sub { s/location \/ \{/location \/ { keytoll_redis unix:\/x;/ }, qr/"keytoll_redis" directive is not allowed here/],
) {
    my ($name, $edit, $want) = @$case;
    local $_ = $conf;
    $edit->();
    isnt($_, $conf, "$name: edited");
    my ($code, $out) = $g->config_test($_);
    isnt($code, 0, "$name is refused");
    like($out, $want, "$name: by name");
}

{
    local $_ = $conf;
    s/keytoll_journal [^;]*;/keytoll_journal off;/;
    is(($g->config_test($_))[0], 0, 'keytoll_journal off is a choice');
    s/keytoll_redis [^;]*;//;
    s/keytoll_zone [^;]*;//;
    s/keytoll on;//;
    s/\$keytoll_\w+//g;
    s/location = \/(status|metrics) \{[^}]*\}//g;
    is(($g->config_test($_))[0], 0, 'the module loaded and unused is fine');
}

# keytoll off
my $o = Keytoll::Test->gate(more => 'location /open/ { keytoll off; rewrite ^/open(.*) $1 break; proxy_pass http://mock; } keytoll_max_body 2k;');
is(http_call($o->{port}[0], 'POST', '/open/v1/chat/completions', [], chat_body())->{status}, 200, 'keytoll off: nobody asks for a key');
is(http_call($o->{port}[0], 'POST', '/v1/chat/completions', [], chat_body())->{status}, 401, 'a location inherits the gate');
my $key = $o->key;
my $r = $o->chat($key, messages => [{ role => 'user', content => 'x' x 3000 }]);
is($r->{status}, 413, 'keytoll_max_body');
is($r->{json}{error}{code}, '413', 'with its envelope');
is($o->chat($key)->{status}, 200, 'below it passes');
ok($o->settled, 'settles');

# status and variables
my $s = $o->status;
is($s->{refused}{key_missing}, 1, 'status counts refusals by reason');
is($s->{refused}{body_too_large}, 1, 'each');
is($s->{settled_total}, 1, 'and settlements');
is($s->{output_tokens_total}, 10, 'and tokens');
my $m = http_get($o->{port}[0], '/metrics');
like($m->{headers}{'content-type'}, qr{^text/plain; version=0\.0\.4}, 'prometheus type');
like($m->{body}, qr/^keytoll_refused_total\{reason="key_missing"\} 1$/m, 'prometheus sample');
like($m->{body}, qr/^# TYPE keytoll_active_requests gauge$/m, 'prometheus type line');
is(http_call($o->{port}[0], 'POST', '/status', [], '')->{status}, 405, 'status is read only');
my $k2 = $o->key(name => 'my alias', refs => ['team:a%2Fb', 'org:o', 'user:u%20x', 'global']);
$o->policy('team:a%2Fb' => {}, 'org:o' => {}, 'user:u%20x' => {});
$o->chat($k2, model => 'alias');
ok($o->settled, 'settles');
my $id = substr token($k2), 0, 8;
my ($line) = grep { /my alias/ } split /\n/, Keytoll::Test::slurp("$o->{dir}/log/access0.log");
like($line, qr{^200 admitted $id my alias user=u x team=a/b org=o alias gpt-4o-mini openai chat 0 12 10 7800 0 [0-9a-f]{32}$}, 'variables in the access log');

# the key reaches neither variables nor logs
my $log = join '', map { Keytoll::Test::slurp($_) } glob "$o->{dir}/log/*";
is(scalar(() = $log =~ /\Q$k2\E/g), 0, 'no key in any log');

$o->stop;
$g->finish;
