#!/usr/bin/perl

# The mock provider: every shape, every x-mock-* header, and the truth.

use strict;
use warnings;

use File::Basename qw(dirname);
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use Socket qw(SOL_SOCKET SO_LINGER);
use Test::More;
use Time::HiRes qw(sleep time);

my $mock = $ENV{KEYTOLL_MOCK}
    || dirname(__FILE__) . '/../../build/keytoll-mock';

plan(skip_all => "$mock is not built") unless -x $mock;

my ($pid, $port) = start();

END { kill('TERM', $pid) && waitpid($pid, 0) if $pid }

my $chat = '{"model":"gpt-4o","messages":[{"role":"user","content":"hello"}]';

###############################################################################

# chat, whole

my $r = post('/v1/chat/completions', "$chat,\"max_tokens\":5}");
is($r->{status}, 200, 'chat');
like($r->{json}{id}, qr/^chatcmpl-[0-9a-f]{24}$/, 'id');
is($r->{json}{object}, 'chat.completion', 'object');
is($r->{json}{model}, 'gpt-4o', 'model');
is($r->{json}{choices}[0]{message}{role}, 'assistant', 'role');
is(length $r->{json}{choices}[0]{message}{content}, 15, 'content');
is($r->{json}{choices}[0]{finish_reason}, 'length', 'ends at the cap');
is_deeply([@{$r->{json}{usage}}{qw(prompt_tokens completion_tokens
    total_tokens)}], [12, 5, 17], 'usage');

my $t = truth();
is(scalar @$t, 1, 'one line of truth');
is($t->[0]{id}, $r->{json}{id}, 'truth: id');
is($t->[0]{model}, 'gpt-4o', 'truth: model');
is_deeply([@{$t->[0]}{qw(prompt_tokens completion_tokens cached_tokens
    events_sent ended)}], [12, 5, 0, 0, 'complete'], 'truth: the rest');
is_deeply($t->[0]{headers}, [qw(host content-length)], 'truth: headers');

$r = post('/chat/completions', "$chat}");
is($r->{json}{usage}{completion_tokens}, 16, 'without a cap');
is($r->{json}{choices}[0]{finish_reason}, 'stop', 'stops by itself');

$r = post('/v1/chat/completions', "$chat,\"max_completion_tokens\":100000}");
is($r->{json}{usage}{completion_tokens}, 4096, 'a large cap');

$r = post('/v1/chat/completions', "$chat,\"n\":3}");
is(scalar @{$r->{json}{choices}}, 3, 'three choices');
is($r->{json}{usage}{completion_tokens}, 48, '... cost three times');

$r = post('/v1/chat/completions', "$chat}", 'x-mock-prompt-tokens' => 1000,
    'x-mock-completion-tokens' => 7, 'x-mock-cached-tokens' => 600);
is_deeply([@{$r->{json}{usage}}{qw(prompt_tokens completion_tokens)}],
    [1000, 7], 'tokens as ordered');
is($r->{json}{usage}{prompt_tokens_details}{cached_tokens}, 600, 'cached');
is($t = truth()->[-1]{cached_tokens}, 600, '... in truth');

$r = post('/v1/chat/completions', "$chat}", 'x-mock-no-usage' => 1);
ok(!exists $r->{json}{usage}, 'no usage');
is(truth()->[-1]{completion_tokens}, 16, '... but in truth');

# chat, whole, in chunks

$r = post('/v1/chat/completions', "$chat}", 'x-mock-chunked' => 4);
is($r->{headers}{'transfer-encoding'}, 'chunked', 'no length');
is($r->{json}{usage}{completion_tokens}, 16, 'all of it');
is($r->{chunks}, 4, '... in so many chunks');
my $begun = time;
$r = post('/v1/messages', "$chat}", 'x-mock-chunked' => 3,
    'x-mock-event-delay-ms' => 40);
is($r->{json}{usage}{output_tokens}, 16, '... of another shape');
cmp_ok(time - $begun, '>=', 0.11, '... with time before each');
$r = post('/v1/chat/completions', "$chat}", 'x-mock-chunked' => 2,
    'x-mock-status' => 500);
ok($r->{headers}{'content-length'}, '... errors have their length');

$r = post('/v1/chat/completions', "$chat}", 'x-mock-pad' => 70_000);
ok($r->{headers}{'content-length'} > 70_000 && $r->{json}, 'blank lines before');

# chat, streamed

$r = post('/v1/chat/completions', "$chat,\"max_tokens\":4,\"stream\":true}");
is($r->{headers}{'content-type'}, 'text/event-stream; charset=utf-8', 'SSE');
my @e = events($r);
is(scalar @e, 7, 'role, 4 x content, finish, [DONE]');
is($e[0]{choices}[0]{delta}{role}, 'assistant', 'role first');
is(join('', map { $_->{choices}[0]{delta}{content} } @e[1 .. 4]),
    '000001002003', 'content in order');
is($e[5]{choices}[0]{finish_reason}, 'length', 'finish');
is($e[6], '[DONE]', 'done');
is(scalar(grep { ref && exists $_->{usage} } @e), 0, 'no usage unasked');
is(scalar(grep { ref && $_->{id} ne $e[0]{id} } @e), 0, 'one id');

$r = post('/v1/chat/completions', "$chat,\"max_tokens\":4,\"stream\":true,"
    . '"stream_options":{"include_usage":true}}');
@e = events($r);
is(scalar @e, 8, 'one chunk more with include_usage');
is(scalar(grep { ref && exists $_->{usage} && !defined $_->{usage} } @e), 6,
    'usage is null before');
is_deeply($e[6]{choices}, [], 'no choices in the last');
is_deeply([@{$e[6]{usage}}{qw(prompt_tokens completion_tokens)}], [12, 4],
    'usage in the last');
$t = truth()->[-1];
is_deeply([@$t{qw(id completion_tokens events_sent ended)}],
    [$e[0]{id}, 4, 4, 'complete'], 'truth of a stream');

$r = post('/v1/chat/completions', "$chat,\"max_tokens\":4,\"stream\":true,"
    . '"stream_options":{"include_usage":true}}', 'x-mock-no-usage' => 1);
is(scalar(events($r)), 7, 'no usage even if asked');

$r = post('/v1/chat/completions', "$chat,\"stream\":true}",
    'x-mock-completion-tokens' => 5000);
@e = events($r);
is(scalar @e, 1667 + 3, 'many tokens share events');
$t = truth()->[-1];
is_deeply([@$t{qw(completion_tokens events_sent)}], [5000, 1667],
    '... in truth');

$r = post('/v1/chat/completions', "$chat,\"stream\":true}",
    'x-mock-completion-tokens' => 0);
is(scalar(events($r)), 3, 'no token, no content event');

# embeddings

$r = post('/v1/embeddings', '{"model":"emb","input":["abc","de"]}');
is($r->{json}{object}, 'list', 'embeddings');
is(ref $r->{json}{data}[0]{embedding}, 'ARRAY', 'a vector');
is_deeply($r->{json}{usage}, { prompt_tokens => 8, total_tokens => 8 },
    'usage of embeddings');
is(truth()->[-1]{completion_tokens}, 0, '... have no completion');
is(truth()->[-1]{id}, $r->{json}{id}, '... and an id');

# messages

my $msg = '{"model":"claude-x","max_tokens":3,"messages":[{"role":"user",'
    . '"content":"hello"}]';

$r = post('/v1/messages', "$msg}", 'x-mock-prompt-tokens' => 50,
    'x-mock-cached-tokens' => 20);
is($r->{json}{type}, 'message', 'message');
like($r->{json}{id}, qr/^msg_/, 'id of a message');
is($r->{json}{content}[0]{type}, 'text', 'content block');
is($r->{json}{stop_reason}, 'max_tokens', 'stop reason');
is_deeply([@{$r->{json}{usage}}{qw(input_tokens cache_read_input_tokens
    output_tokens)}], [30, 20, 3], 'input excludes the cache');
is_deeply([@{truth()->[-1]}{qw(prompt_tokens cached_tokens)}], [50, 20],
    'truth includes it');

$r = post('/v1/messages', "$msg,\"stream\":true}");
@e = events($r);
is_deeply([map { $_->{type} } @e], [qw(message_start content_block_start ping
    content_block_delta content_block_delta content_block_delta
    content_block_stop message_delta message_stop)], 'events of a message');
is_deeply([map { $_->{event} } @e], [map { $_->{type} } @e], 'event names');
is($e[0]{message}{usage}{input_tokens}, 12, 'input at the start');
is($e[7]{usage}{output_tokens}, 3, 'output at the end');
is($e[4]{delta}{text}, '001', 'text delta');
is(truth()->[-1]{id}, $e[0]{message}{id}, 'truth of a message');

# models, errors

is(request('GET', '/v1/models')->{json}{object}, 'list', 'models');
is(post('/v1/none', '{}')->{status}, 404, 'unknown route');
ok(exists post('/v1/none', '{}')->{json}{error}{message}, '... an error');
is(request('GET', '/v1/messages')->{status}, 405, 'wrong method');
is(post('/v1/chat/completions', '{"model"')->{status}, 400, 'bad JSON');
is(post('/v1/chat/completions', '{}')->{status}, 400, 'no model');

$r = post('/v1/chat/completions', "$chat}", 'x-mock-status' => 429);
is($r->{status}, 429, 'status as ordered');
is($r->{json}{error}{type}, 'rate_limit_error', 'OpenAI error');
$t = truth()->[-1];
is_deeply([@$t{qw(model prompt_tokens completion_tokens ended)}],
    ['gpt-4o', 0, 0, 'error'], 'truth of an error');

$r = post('/v1/messages', "$msg,\"stream\":true}", 'x-mock-status' => 529);
is($r->{status}, 529, 'status of a stream');
is($r->{json}{error}{type}, 'overloaded_error', 'Anthropic error');
is($r->{json}{type}, 'error', '... is of type error');

# time and cuts

my $t0 = time();
post('/v1/chat/completions', "$chat}", 'x-mock-delay-ms' => 120);
cmp_ok(time() - $t0, '>=', 0.11, 'first byte delayed');

$t0 = time();
$r = post('/v1/chat/completions', "$chat,\"max_tokens\":4,\"stream\":true}",
    'x-mock-event-delay-ms' => 30);
cmp_ok(time() - $t0, '>=', 0.11, 'events delayed');
is(scalar(events($r)), 7, '... and all there');

for my $n (1, 7, 100) {
    $r = post('/v1/chat/completions', "$chat,\"max_tokens\":4,\"stream\":true}",
        'x-mock-split' => $n);
    is(scalar(events($r)), 7, "split in $n");
}

$r = post('/v1/chat/completions', "$chat,\"max_tokens\":4,\"stream\":true}",
    'x-mock-split' => 50, 'x-mock-event-delay-ms' => 20);
is(scalar(events($r)), 7, 'split and delayed');

my $s = client();
print $s raw('/v1/chat/completions', "$chat}", 'x-mock-reset-after' => 300);
my $got = '';
my $n;
while ($n = sysread($s, my $b, 4096)) { $got .= $b; }
ok(!defined $n && $!{ECONNRESET}, 'reset as ordered');
is(length $got, 300, '... after so many bytes');
is(truth()->[-1]{ended}, 'error', '... an error in truth');

# aborts

$s = client();
print $s raw('/v1/chat/completions', "$chat,\"stream\":true}",
    'x-mock-event-delay-ms' => 40, 'x-mock-completion-tokens' => 500);
$got = '';
while ($got !~ /"content":"002"/) { sysread($s, $got, 4096, length $got); }
close($s);
$t = eventually(sub { my $l = truth()->[-1];
    return $l->{ended} eq 'aborted' ? $l : undef });
is($t->{ended}, 'aborted', 'client went away');
cmp_ok($t->{completion_tokens}, '>=', 3, '... after three events');
cmp_ok($t->{completion_tokens}, '<', 20, '... and not many more');
is($t->{events_sent}, $t->{completion_tokens}, '... one token each');

$s = client();
print $s raw('/v1/chat/completions', "$chat}", 'x-mock-delay-ms' => 5000);
sleep(0.05);
close($s);
$t = eventually(sub { my $l = truth()->[-1];
    return $l->{completion_tokens} == 0 ? $l : undef });
is_deeply([@$t{qw(ended completion_tokens)}], ['aborted', 0],
    'client went away before the first byte');

# a client that does not read: the writes must wait for it

$s = client();
print $s raw('/v1/chat/completions', "$chat,\"stream\":true}",
    'x-mock-completion-tokens' => 2000000);
sleep(0.3);
is(truth()->[-1]{ended}, 'aborted', 'a full socket does not end the stream');
($r) = responses($s, 1);
is(scalar(events($r)), 2003, '... which is whole when it is read');
is(truth()->[-1]{ended}, 'complete', '... and complete in the end');

# HTTP

$s = client();
print $s raw('/v1/chat/completions', "$chat}")
    . raw('/v1/chat/completions', "$chat,\"stream\":true,\"max_tokens\":2}",
    'x-mock-delay-ms' => 20) . raw('/v1/embeddings', '{"model":"e"}')
    . raw('/v1/chat/completions', "$chat}", 'x-mock-status' => 500);
my @r = responses($s, 4);
is_deeply([map { $_->{status} } @r], [200, 200, 200, 500], 'pipelined');
is(scalar(events($r[1])), 5, '... a stream among them');

$s = client();
print $s "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
    . "Transfer-Encoding: chunked\r\n\r\n";
my $body = "$chat,\"max_tokens\":2}";
for my $c ($body =~ /(.{1,9})/g) {
    print $s sprintf("%X;x=y\r\n%s\r\n", length $c, $c);
    sleep(0.001);
}
print $s "0\r\nx: y\r\n\r\n" . raw('/v1/embeddings', '{"model":"e"}');
@r = responses($s, 2);
is($r[0]{json}{usage}{prompt_tokens}, 12, 'chunked body');
is($r[1]{status}, 200, '... and the next request');

$s = client();
print $s "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
    . "Expect: 100-continue\r\nContent-Length: " . length($body) . "\r\n\r\n";
sysread($s, $got, 100);
is($got, "HTTP/1.1 100 Continue\r\n\r\n", '100 Continue');
print $s $body;
is((responses($s, 1))[0]{status}, 200, '... then the answer');

for my $form (["HTTP/1.0", ''], ["HTTP/1.1", "Connection: close\r\n"]) {
    $s = client();
    print $s "POST /v1/chat/completions $form->[0]\r\nHost: x\r\n$form->[1]"
        . "Content-Length: " . length($body) . "\r\n\r\n$body";
    my $all = do { local $/; <$s> };
    like($all, qr/Connection: close.*"usage"/s, "$form->[0] closes");
}

$s = client();
$body = "$chat,\"max_tokens\":2,\"stream\":true}";
print $s "POST /v1/chat/completions HTTP/1.0\r\nContent-Length: "
    . length($body) . "\r\n\r\n$body";
my $all = do { local $/; <$s> };
unlike($all, qr/chunked/i, 'HTTP/1.0 stream is not chunked');
like($all, qr/\n\ndata: \[DONE\]\n\n\z/, '... and ends with the connection');

for my $bad ("GARBAGE\r\n\r\n", "GET / HTTP/3\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
{
    $s = client();
    print $s $bad;
    like(do { local $/; <$s> }, qr{^HTTP/1.1 400 }, 'malformed request');
}

# the truth

my $sum = request('GET', '/__truth?summary=1')->{json};
$t = truth();
is($sum->{n}, scalar @$t, 'summary counts all');
for my $f (qw(prompt_tokens completion_tokens)) {
    my $v = 0;
    $v += $_->{$f} for @$t;
    is($sum->{$f}, $v, "summary of $f");
}
for my $f (qw(complete aborted error)) {
    is($sum->{$f}, scalar(grep { $_->{ended} eq $f } @$t), "summary of $f");
}

my %id = map { $_->{id} => 1 } @$t;
is(scalar keys %id, scalar @$t, 'ids are unique');

is(request('DELETE', '/__truth')->{status}, 200, 'truth can be emptied');
is(scalar @{truth()}, 0, '... and is');
is(request('GET', '/__truth?summary=1')->{json}{n}, 0, '... summed up, too');

$s = client();
print $s raw('/v1/embeddings', '{"model":"e"}') x 500;
responses($s, 500);
is(scalar @{truth()}, 500, 'many lines');

# the other routes

my @t = ('x-mock-prompt-tokens' => 20, 'x-mock-completion-tokens' => 3);
$r = post('/v1/completions', '{"model":"m","prompt":"x"}', @t);
is($r->{json}{choices}[0]{text}, 'la la la ', 'a completion');
$r = post('/v1/responses', '{"model":"m","input":"x"}', @t);
is_deeply([@{$r->{json}{usage}}{qw(input_tokens output_tokens)}], [20, 3], 'a response');
is($r->{json}{status}, 'completed', 'its status');
$r = post('/v1/responses', '{"model":"m","input":"x","stream":true,"max_output_tokens":3}', @t);
@e = events($r);
is(join(' ', map { $_->{type} =~ s/response\.//r } @e), 'created' . ' output_text.delta' x 3 . ' incomplete', 'a response in events');
is($e[-1]{response}{usage}{output_tokens}, 3, 'its usage at the end');
$r = post('/v1beta/models/g-1:generateContent', '{"contents":[]}', @t);
is_deeply([@{$r->{json}{usageMetadata}}{qw(promptTokenCount candidatesTokenCount)}], [20, 3], 'Gemini');
is(truth()->[-1]{model}, 'g-1', 'the model of the path');
is(truth()->[-1]{path}, '/v1beta/models/g-1:generateContent', 'the path');
$r = post('/v1beta/models/g-1:streamGenerateContent', '{"contents":[]}', @t);
is_deeply([map { $_->{usageMetadata}{candidatesTokenCount} } @{$r->{json}}], [1, 2, 3], 'Gemini, a growing array of running totals');
$r = post('/v1beta/models/g-1:streamGenerateContent?alt=sse', '{"contents":[]}', @t);
is(() = $r->{content} =~ /^data: /mg, 3, 'Gemini in events');
$r = post('/openai/deployments/d/chat/completions', '{"messages":[]}', @t);
is($r->{json}{model}, 'd', 'Azure');
is(scalar @{post('/v1/images/generations', '{"model":"i","prompt":"x","n":2}')->{json}{data}}, 2, 'images');
$r = post('/v1/audio/speech', '{"model":"s","input":"x"}');
is($r->{headers}{'content-type'}, 'audio/mpeg', 'speech');
is(post('/v1/moderations', '{"model":"o","input":"x"}')->{json}{results}[0]{flagged}, JSON::PP::false, 'a moderation');
is(post('/v2/rerank', '{"model":"r","query":"x"}')->{json}{meta}{billed_units}{search_units}, 1, 'a ranking');
is(post('/score', '{"model":"r","text_1":"x"}', @t)->{json}{usage}{total_tokens}, 20, 'a score');
is(post('/v1/messages/count_tokens', '{"model":"r","messages":[]}', @t)->{json}{input_tokens}, 20, 'a count');
is(post('/tokenize', '{"prompt":"x"}')->{status}, 200, 'tokens, without a model');
my $form = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nw\r\n--b--\r\n";
$r = post('/v1/audio/transcriptions', $form, 'Content-Type' => 'multipart/form-data; boundary=b');
is($r->{json}{duration}, 12.34, 'a transcription of a form');
is(truth()->[-1]{model}, 'w', 'its model');
is(request('GET', '/__body')->{content}, $form, 'the last body, as it was read');
is(post('/v1/audio/transcriptions', 'x', 'Content-Type' => 'multipart/form-data; boundary=b')->{status}, 400, 'no form');
for my $path ('/v1/chat/completions', '/v1/messages', '/v1/responses') {
    $r = post($path, '{"model":"m","input":"x","messages":[]}', 'x-mock-usage' => '{"any":1}');
    is_deeply($r->{json}{usage}, { any => 1 }, "$path: usage as ordered");
}
$r = post('/v1/chat/completions', "$chat,\"stream\":true,\"stream_options\":{\"include_usage\":true}}", @t,
    'x-mock-usage-twice' => 1, 'x-mock-running-usage' => 1);
is(scalar(grep { ref && $_->{usage} } events($r)), 7, 'usage in every chunk, and twice at the end');
is(post('/v1/chat/completions', "$chat}", 'x-mock-tier' => 'flex')->{json}{service_tier}, 'flex', 'a tier');
$r = post('/v1/chat/completions', "$chat}",
    'x-mock-header' => 'x-a=1; x-b=c=d;;none;x-e=');
is_deeply([@{$r->{headers}}{qw(x-a x-b x-e)}], ['1', 'c=d', ''],
    'headers as ordered');
$r = post('/v1/chat/completions', "$chat,\"stream\":true}",
    'x-mock-header' => 'x-a=1', 'X-Mock-Header' => 'x-b=2');
is("@{$r->{headers}}{qw(x-a x-b)}", '1 2', '... of streams, in several lines');
$r = post('/v1/chat/completions', "$chat}", 'x-mock-status' => 500,
    'x-mock-header' => 'x-a=1');
is($r->{headers}{'x-a'}, 1, '... of errors');
$r = post('/v1/chat/completions', "$chat}", 'x-mock-encoding' => 'br');
is($r->{headers}{'content-encoding'}, 'br', 'an encoding by name only');
ok($r->{json}, '... the text is plain');
$r = post('/v1/chat/completions', "$chat}", 'x-mock-encoding' => 'gzip');
like($r->{content}, qr/^\x1f\x8b/, 'gzip');

kill('TERM', $pid);
waitpid($pid, 0);
is($?, 0, 'TERM stops it cleanly');
undef $pid;

done_testing();

###############################################################################

sub start {
    for (1 .. 20) {
        my $l = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1',
            ReuseAddr => 1) or next;
        my $p = $l->sockport();
        close($l);

        my $child = fork();
        die "fork: $!" unless defined $child;
        exec($mock, '-l', "127.0.0.1:$p") or exit(1) unless $child;

        for (1 .. 100) {
            return ($child, $p) if IO::Socket::INET->new("127.0.0.1:$p");
            last if waitpid($child, 1) == $child;
            sleep(0.02);
        }
    }

    die "the mock does not start";
}

sub client {
    my $c = IO::Socket::INET->new("127.0.0.1:$port") or die "connect: $!";
    $c->autoflush(1);
    return $c;
}

sub raw {
    my ($path, $content, %h) = @_;
    return "POST $path HTTP/1.1\r\nHost: x\r\n"
        . join('', map { "$_: $h{$_}\r\n" } sort keys %h)
        . 'Content-Length: ' . length($content) . "\r\n\r\n$content";
}

sub post {
    my $c = client();
    print $c raw(@_);
    return (responses($c, 1))[0];
}

sub request {
    my ($method, $path) = @_;
    my $c = client();
    print $c "$method $path HTTP/1.1\r\nHost: x\r\n\r\n";
    return (responses($c, 1))[0];
}

# Reads so many answers from a connection.

sub responses {
    my ($c, $count) = @_;
    my (@all, $b);
    $b = '';

    my $more = sub {
        local $SIG{ALRM} = sub { die "timeout, got: " . substr($b, 0, 500) };
        alarm(20);
        my $k = sysread($c, $b, 65536, length $b);
        alarm(0);
        die 'cut: ' . substr($b, 0, 500) unless $k;
    };

    while (@all < $count) {
        $more->() while $b !~ /\r\n\r\n/;
        $b =~ s/^(.*?)\r\n\r\n//s;
        my ($first, @h) = split(/\r\n/, $1);
        my %h = map { my ($k, $v) = split(/:\s*/, $_, 2); lc $k => $v } @h;
        my ($content, $chunks) = ('', 0);

        if (($h{'transfer-encoding'} || '') eq 'chunked') {
            while (1) {
                $more->() while $b !~ /^([0-9a-f]+)\r\n/;
                my ($at, $len) = (length($1) + 2, hex($1));
                $more->() while length $b < $at + $len + 2;
                $content .= substr($b, $at, $len);
                substr($b, 0, $at + $len + 2) = '';
                last unless $len;
                $chunks++;
            }
        } else {
            $more->() while length $b < $h{'content-length'};
            $content = substr($b, 0, $h{'content-length'}, '');
        }

        my ($status) = $first =~ / (\d+) /;
        push @all, { status => $status, headers => \%h, content => $content,
            chunks => $chunks,
            json => scalar(eval { decode_json($content) }) };
    }

    is($b, '', 'nothing behind the last answer') if length $b;
    return @all;
}

# The events of a stream: decoded, with the event field; [DONE] as it is.

sub events {
    my ($res) = @_;
    my @list;

    for my $block (split(/\n\n/, $res->{content})) {
        my ($name) = $block =~ /^event: (.*)$/m;
        my ($data) = $block =~ /^data: (.*)$/m;
        my $d = $data eq '[DONE]' ? $data : decode_json($data);
        $d->{event} = $name if ref $d && defined $name;
        push @list, $d;
    }

    return @list;
}

sub truth {
    return [map { decode_json($_) }
        split(/\n/, request('GET', '/__truth')->{content})];
}

sub eventually {
    my ($check) = @_;
    my $v;
    for (1 .. 100) {
        $v = $check->() and return $v;
        sleep(0.03);
    }
    return truth()->[-1];
}
