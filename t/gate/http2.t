# The same over HTTP/2: many streams of one connection, resets in the middle.

use strict;
use warnings;
use Test::More;
use Keytoll::Test;

plan skip_all => 'curl without HTTP/2' unless `curl --version` =~ /HTTP2/;

my $port = Keytoll::Test::free_port();
my $g = Keytoll::Test->gate(http => <<"END");
    server {
        listen 127.0.0.1:$port http2;
        keytoll on;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_buffering off;
        proxy_ignore_client_abort on;
        location / { proxy_pass http://mock; }
        location /small/ { keytoll_max_body 100k; client_max_body_size 0; proxy_pass http://mock/; }
    }
END
my $key = $g->key(par => 100, limit => 1e12);
my $dir = $g->{dir};

sub curl {
    my ($args, $body) = @_;
    open my $h, '>', "$dir/body" or die $!;
    print $h $body;
    close $h;
    return `curl -s --http2-prior-knowledge -H 'Authorization: Bearer $key' $args --data-binary \@$dir/body http://127.0.0.1:$port/v1/chat/completions`;
}

my $out = curl("-o $dir/answer -w '%{http_code} %{http_version}'", chat_body(max_tokens => 5));
is($out, '200 2', 'a completion over HTTP/2');
is(json(slurp("$dir/answer"))->{usage}{completion_tokens}, 5, 'whole');
$out = curl('', chat_body(max_tokens => 5, stream => JSON::PP::true));
is((sse_events($out))[-1], '[DONE]', 'a stream');
unlike($out, qr/"choices":\[\]/, 'without our usage event');
like(curl("-w '%{http_code}'", '{"model":1}'), qr/body_invalid|Invalid request body.*400$/s, 'a refusal');
# who is refused by the headers alone is heard out first: curl 7.88 loses an answer that is there before its body has left
Keytoll::Test::spew("$dir/body", chat_body());
my %said;
for my $n (1 .. 30) {
    $said{ `curl -s --max-time 20 --http2-prior-knowledge -o /dev/null -w '%{http_code}' -H 'Authorization: Bearer $_' -H 'Content-Type: application/json' --data-binary \@$dir/body http://127.0.0.1:$port/v1/chat/completions` }++ for 'sk-kt10000' . 'a' x 49, "sk-made-up-$$-$n";
}
is_deeply(\%said, { 401 => 60 }, 'wrong and unknown keys: 401, every time');
$out = `curl -s --http2-prior-knowledge -w '%{http_code}' -H 'Authorization: Bearer sk-nobody-made-this-one' -d '{}' http://127.0.0.1:$port/v1/chat/completions`;
like($out, qr/401$/, 'an unknown key');

# bodies that are too large: 413 before they are kept, the connection goes on
sub post { my ($args, $h) = @_; return `$args | curl -s --http2-prior-knowledge -o /dev/null -w '%{http_code} %{http_version} %header{x-keytoll-reason}' -H 'Authorization: Bearer $key' $h -T - -X POST http://127.0.0.1:$port/small/v1/chat/completions` }
my $before = scalar $g->truth;
my $large = q(perl -e 'print qq({"model":"gpt-4o-mini","messages":[{"role":"user","content":"), "x" x 400_000, qq("}]})');
# curl is still sending when it is answered, and may not look at the answer: the log knows
sub logged { my $n = shift; return eventually { (() = slurp("$dir/log/access0.log") =~ /^413 /mg) == $n } 5 }
like(post($large, '-H "Content-Length: 400045"'), qr/^(?:413 2|000)\b/, 'a length over the limit');
ok(logged(1), '413 by the length that the headers say');
like(post($large, ''), qr/^(?:413 2|000)\b/, 'without a length');
ok(logged(2), '413 as soon as it has grown too large');
is((() = slurp("$dir/log/access0.log") =~ /^413 refused /mg) + 0, 2, 'refused by the gate') or diag slurp("$dir/log/access0.log");
like(post(q(echo '{"model":"gpt-4o-mini","max_tokens":1,"messages":[]}'), ''), qr/^200 2\b/, 'a small one without a length passes');
is(scalar($g->truth), $before + 1, 'the provider saw that one only');

# forty streams on one connection, which breaks in the middle
my $many = join ' ', map { "--next -s --http2-prior-knowledge -o /dev/null -H 'Authorization: Bearer $key' -H 'x-mock-event-delay-ms: 20' --data-binary \@$dir/body http://127.0.0.1:$port/v1/chat/completions" } 1 .. 39;
open my $h, '>', "$dir/body" or die $!;
print $h chat_body(max_tokens => 50, stream => JSON::PP::true);
close $h;
system "timeout -s KILL 0.4 curl -s -Z --parallel-immediate --http2-prior-knowledge -o /dev/null -H 'Authorization: Bearer $key' -H 'x-mock-event-delay-ms: 20' --data-binary \@$dir/body http://127.0.0.1:$port/v1/chat/completions $many 2>/dev/null";
ok($g->settled(30), 'a connection that breaks under forty streams: all settle');
my $s = $g->state($key);
is("$s->{held} $s->{par}", '0 0', 'nothing is held, no slot stays');
my $sum = 0;
$sum += $_->[0]{cost} for $g->events;
is($s->{used}, $sum, 'used is the sum of the ledger');
is(scalar($g->events), scalar($g->truth), 'one row for each request that the provider saw');

$g->finish;
