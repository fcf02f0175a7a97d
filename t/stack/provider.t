# With OPENAI_API_KEY the demo goes to OpenAI: what config/stack writes then.
# Nothing is sent.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;
use Keytoll::Stack;

my $secret = 'sk-proj-not_a-real-key-0123456789';
my $s = Keytoll::Stack->new(OPENAI_API_KEY => $secret);
my ($code, $out) = $s->stack('configure');
is($code, 0, 'configure') or diag $out;
unlike($out, qr/\Q$secret\E/, 'the key is not printed');
my $run = $s->{env}{KEYTOLL_RUN_DIR};
my $conf = slurp("$run/nginx.conf");

like($conf, qr/upstream provider \{ server api\.openai\.com:443;/, 'the upstream is OpenAI');
like($conf, qr/proxy_pass https:\/\/provider;/, 'over TLS');
like($conf, qr/proxy_ssl_verify on;/, 'whose certificate is checked');
like($conf, qr/proxy_ssl_name api\.openai\.com;/, 'by its name');
like($conf, qr/proxy_set_header Authorization "Bearer \Q$secret\E";/, 'with the key');
like($conf, qr/proxy_set_header $_ "";/, "the client does not choose $_") for qw(OpenAI-Organization OpenAI-Project Cookie);
unlike($conf =~ s/^#.*//mgr, qr/\@[A-Z_]+\@/, 'no word is left to fill in');

my @with = grep { index(slurp($_), $secret) >= 0 } split /\n/, `find $run -type f`;
is("@with", "$run/nginx.conf", 'the key is in that file only');
is(sprintf('%o', (stat $_)[2] & 07777), '600', "$_ is for its owner only") for map { "$run/$_" } qw(nginx.conf env master_key gate.pass controld.yaml);

# no DNS here: the same file with an address
my $nginx = $ENV{KEYTOLL_ASAN} ? "$run/bin/nginx" : $ENV{KEYTOLL_NGINX} || '/usr/sbin/nginx';
$conf =~ s/server api\.openai\.com:443;/server 127.0.0.1:443;/;
Keytoll::Test::spew("$run/check.conf", $conf);
$out = `ASAN_OPTIONS=detect_leaks=0 $nginx -t -e $run/check.log -p $run -c $run/check.conf 2>&1`;
is($?, 0, 'nginx takes it') or diag $out;

($code, $out) = Keytoll::Stack->new(OPENAI_API_KEY => 'sk-x"; evil')->stack('configure');
isnt($code, 0, 'a key that would break out of its quotes');
like($out, qr/OPENAI_API_KEY has a character/, 'is refused');

# without it: the demo provider, and no header of ours
my $demo = Keytoll::Stack->new;
($code, $out) = $demo->stack('configure');
$conf = slurp("$demo->{env}{KEYTOLL_RUN_DIR}/nginx.conf");
like($conf, qr/proxy_pass http:\/\/provider;/, 'the demo provider');
unlike($conf, qr/Authorization/, 'gets no key');

$_->{stopped} = 1, system('rm', '-rf', $_->{dir}) for $s, $demo;
done_testing();
