# config/nginx.conf sends every route that the gate knows through the gate, and
# the admin API past it.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;
use Keytoll::Stack;

my $s = Keytoll::Stack->up;
my ($rows) = slurp("$Keytoll::Test::TOP/shared/kt_route.c") =~ /kt_route_rows\[\] = \{(.*?)\n\};/s;
my ($methods) = slurp("$Keytoll::Test::TOP/shared/kt_route.c") =~ /kt_route_methods\[\] = \{(.*?)\n\};/s;
my @ends = $rows =~ /\{ "(\/[^"]+)"/g;
my @gemini = $methods =~ /\{ "(:[^"]+)"/g;
cmp_ok(scalar @ends, '>=', 20, 'the routes are read');
cmp_ok(scalar @gemini, '>=', 5, 'those of Gemini, too');

sub reason { my ($method, $path) = @_; return http_call($s->{port}, $method, $path, ['Content-Type', 'application/json'], '{}')->{headers}{'x-keytoll-reason'} // 'none' }

for my $path ((map { ("/v1$_", $_) } @ends), (map { ("/v1beta/models/gemini-2.5-pro$_", "/v1/models/gemini-2.5-pro$_") } @gemini),
    '/openai/deployments/gpt/chat/completions', '/engines/gpt/completions', '/v1/responses/resp_1/cancel', '/v1/chat/completions/')
{
    is(reason('POST', $path), 'key_missing', "$path is gated");
}
is(reason('GET', '/v1/responses/resp_1'), 'key_missing', 'an answer of old is gated');
for (['POST', '/key/generate'], ['GET', '/key/info'], ['GET', '/v1/models'], ['GET', '/models/gpt-4o-mini'], ['POST', '/nothing'], ['GET', '/spend/logs']) {
    is(reason(@$_), 'none', "@$_ is the admin API's");
}
my $key = $s->admin(POST => '/key/generate', {})->{json}{key};
my @auth = ('Authorization', "Bearer $key", 'Content-Type', 'application/json');
for (['/v1/responses', '{"model":"gpt-4o-mini","input":"hi","max_output_tokens":5}'], ['/v1/messages', '{"model":"gpt-4o-mini","max_tokens":5,"messages":[]}'],
    ['/v1beta/models/gpt-4o-mini:generateContent', '{"contents":[]}'], ['/openai/deployments/gpt-4o-mini/chat/completions', '{"messages":[],"max_tokens":5}'])
{
    my $r = http_call($s->{port}, 'POST', $_->[0], \@auth, $_->[1]);
    is($r->{status}, 200, "$_->[0] is answered") or diag $r->{raw};
}
my $log = "$s->{run}/log/access.log";
soon { slurp($log) =~ m{"POST /v1/responses" 200 .* admitted - - key=[0-9a-f]{8} team=\S+ model=gpt-4o-mini in=\d+ out=5 usd=0\.\d+ est=0 ttft_ms=\d+ redis=0\.\d{6} id=[0-9a-f]{32}$}m } 10,
    'the access log says who, what and how much' or diag slurp($log);
like(slurp($log), qr{"POST /v1/rerank" 401 .* refused key_missing - key=-}, 'and why not');

$s->finish;
done_testing();
