# The OpenAPI document: it has every route, answers are as it says, and a fuzzer that
# knows nothing but the document finds no way to break the daemon: every answer is JSON
# in one of the envelopes, nothing is a 5xx, nothing is half-written.
# KEYTOLL_LONG=1 runs longer, KEYTOLL_SEED repeats a run.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use JSON::PP;
use Keytoll::Control;
use Keytoll::World;
use Test::More;

my $k = Keytoll::Control->new;
my $w = Keytoll::World->new($k);
my $seed = $ENV{KEYTOLL_SEED} // int(rand 1e6);
srand $seed;
diag "seed $seed" if $ENV{KEYTOLL_LONG};

my ($s, $doc) = $k->get('/openapi.json', key => undef);
is $s, 200, 'the document is public';
is $doc->{openapi}, '3.1.0', 'OpenAPI 3.1';
my (undef, $dump) = $k->run('routes');
my @routes = map { decode_json($_) } grep { /^\{/ } split /\n/, $dump;
my %ops;
for my $p (keys %{ $doc->{paths} }) { $ops{ uc($_) . " $p" } = $doc->{paths}{$p}{$_} for keys %{ $doc->{paths}{$p} } }
is_deeply [ sort keys %ops ], [ sort map { (my $p = $_->{path}) =~ s/\*$/{id}/; "$_->{method} $p" } @routes ], 'it has every route, and no other';
my %ids = map { $_->{operationId} => 1 } values %ops;
is scalar(keys %ids), scalar(keys %ops), 'operationIds are unique';
for my $op (sort keys %ops) {
    my $o = $ops{$op};
    my @in_path = $op =~ /\{(\w+)\}/g;
    my %params = map { $_->{name} => $_ } @{ $o->{parameters} // [] };
    my @bad = grep { !$params{$_} || $params{$_}{in} ne 'path' || !$params{$_}{required} } @in_path;
    is_deeply \@bad, [], "$op: parameters of the path are there";
    ok $o->{summary} && $o->{responses}{200}{description}, "$op: says what it does";
}
($s) = $k->get('/docs', key => undef);
is $s, 200, 'the page for people';
like $k->raw, qr{<code>/key/generate</code>}, 'has the routes';
like $k->raw, qr{^<!doctype html>\s*<html lang="en">}, 'is a document in English';
unlike $k->raw, qr/<script/i, 'without scripts';

# --- answers are as the document says

sub matches {                              # a JSON value against a schema, this far
    my ($v, $sch, $at) = @_;
    my $t = $sch->{type};
    if (defined $t) {
        my @t = ref $t ? @$t : ($t);
        my $is = !defined $v ? 'null' : ref $v eq 'HASH' ? 'object' : ref $v eq 'ARRAY' ? 'array' : ref $v && JSON::PP::is_bool($v) ? 'boolean' : 'scalar';
        return "$at: $is is no @t" unless grep { $_ eq $is || $is eq 'scalar' && /^(?:string|number|integer)$/ } @t;
    }
    if (ref $v eq 'HASH') {
        for (@{ $sch->{required} // [] }) { return "$at: no $_" unless exists $v->{$_} }
    }
    return;
}

sub envelope {
    my ($status, $j, $raw) = @_;
    return "no JSON: $raw" unless ref $j eq 'HASH';
    my $e = $j->{error};
    return if exists $j->{detail};
    return "no envelope: $raw" unless ref $e eq 'HASH';
    return "an envelope without " . join ' ', grep { !exists $e->{$_} } qw(message type param code) if grep { !exists $e->{$_} } qw(message type param code);
    return "code $e->{code} for $status" if $e->{code} ne $status;
    return;
}

my $key = $w->fresh('IU');
my %right = (key => $key, keys => [$key], team_id => 'alpha', team_ids => [ $w->team('org-A') ], user_id => 'user-IU', user_ids => ['cust'],
    organization_id => 'org-A', organizations => ['org-A'], budget_id => 'b1', id => 'b1', name => 't1', names => ['t1'], budgets => ['b1'],
    member => { role => 'user', user_id => 'someone' }, members => [ { role => 'user', user_id => 'another' } ], end_user_id => 'cust',
    model_name => 'm-1', litellm_params => { model => 'openai/gpt-4o' }, update_fields => { rpm_limit => 5 }, key_ids => [$key], permissions => ['/key/info'],
    team_member_permissions => ['/key/info'], models => ['gpt-4o'], reset_to => 0, organization_alias => 'Alias', password => 'Correct-Horse-9',
    users => [ { user_id => 'user-IU', user_alias => 'x' } ], start_date => '2026-01-01', end_date => '2026-01-31', role => 'user');
$w->ok(POST => '/budget/new', { budget_id => 'b1', max_budget => 1 });
$w->ok(POST => '/customer/new', { user_id => 'cust' });
$w->ok(POST => '/tag/new', { name => 't1' });

my ($answered, @wrong) = (0);
for my $op (sort keys %ops) {
    my ($method, $path) = split / /, $op;
    next if $op =~ m{/(?:key/(?:delete|regenerate)|key/\{key\}/regenerate|global/spend/reset)|/delete$|member_delete};
    my $o = $ops{$op};
    $path =~ s/\{(\w+)\}/my $v = $right{$1}; ref $v ? 'x' : $v \/\/ 'x'/ge;
    my @q = map { "$_->{name}=" . ($right{ $_->{name} } // 'x') }
            grep { $_->{in} eq 'query' && ($_->{required} || $_->{name} =~ /^(?:team_id|key|organization_id|end_user_id|start_date|end_date)$/) } @{ $o->{parameters} // [] };
    my $body;
    if (my $sch = $o->{requestBody} && $o->{requestBody}{content}{'application/json'}{schema}) {
        my %req = map { $_ => 1 } @{ $sch->{required} // [] };
        $body = { map { $_ => $right{$_} } grep { exists $right{$_} && ($req{$_} || /^(?:key|user_id|team_id|organization_id|keys|budgets|organizations|names|organization_alias|users|key_ids|team_ids|members)$/) } keys %{ $sch->{properties} } };
        delete $body->{budget_id} if $op =~ /customer|end_user|tag|key|organization/;
        $body->{user_id} = 'new-' . int rand 1e9 if $op =~ m{user/new|customer/new};
        $body->{team_id} = 'new-' . int rand 1e9 if $op =~ m{team/new};
        $body->{organization_id} = 'new-' . int rand 1e9 if $op =~ m{organization/new};
        $body->{name} = 'new-' . int rand 1e9 if $op =~ m{tag/new};
        $body->{budget_id} = 'new-' . int rand 1e9 if $op =~ m{budget/new};
        delete $body->{key} if $op =~ m{key/generate|service-account};
        delete $body->{user_id} if $op =~ m{organization/member_add};
    }
    my ($st, $j, $h) = $k->request($method, $path . (@q ? '?' . join('&', @q) : ''), $body);
    if ($st == 200) {
        my $c = (values %{ $o->{responses}{200}{content} })[0];
        my ($type) = keys %{ $o->{responses}{200}{content} };
        my $no = $type eq 'application/json' ? matches($j, $c->{schema}, $op) : ($h->{'content-type'} // '') =~ /^\Q$type\E/ ? undef : "$op: type $h->{'content-type'}";
        push @wrong, $no if $no;
        $answered++;
    }
    else {
        my $no = envelope($st, $j, $k->raw);
        push @wrong, "$op: $no" if $no;
        push @wrong, "$op: $st " . $k->raw if $st >= 500 && $st != 501;
    }
}
is_deeply \@wrong, [], 'answers are as the document says';
cmp_ok $answered, '>=', 0.6 * keys %ops, "$answered of " . keys(%ops) . ' routes answered 200';

# --- the fuzzer

my @STRINGS = ('', ' ', 'x', "a'b", 'a"b', "'; DROP TABLE keys; --", "') OR 1=1 --", '\\', '%', '_%', '$1', '{}', '{a,b}', "\x{1F600}", "\x{202e}x", 'x' x 300,
    'x' x 70000, "key:*\r\nFLUSHALL\r\n", "a\tb", "\x01", '../../etc/passwd', '<script>', 'null', 'NaN', '1e400', '-0', '0x10', "\x{ffff}", 'sk-' . 'a' x 30, 'a' x 64,
    'team:x~m~y', '30d', '1mo', '99999999999999999999d', '2026-02-31', '2026-01-01', '-1');
my @NUMBERS = map { JSON::PP->new->allow_nonref->allow_bignum->decode($_) } qw(0 -1 1 0.1 1e-12 1e30 9223372036854775807 9223372036854775808 -9223372036854775809 1e308 5.0);
my @THINGS = (undef, \1, \0, [], {}, [ [] ], { a => { b => [ 1, undef ] } }, [ map { "s$_" } 1 .. 50 ]);

sub any { return $_[ rand @_ ] }

sub value {
    my ($sch) = @_;
    return any(@STRINGS, @NUMBERS, @THINGS) if rand() < 0.3 || !$sch->{type};
    my ($t) = grep { $_ ne 'null' } ref $sch->{type} ? @{ $sch->{type} } : $sch->{type};
    return any(grep { defined } @{ $sch->{enum} }) if $sch->{enum} && rand() < 0.8;
    return any(@STRINGS) if $t eq 'string';
    return any(@NUMBERS) if $t =~ /number|integer/;
    return any(\1, \0) if $t eq 'boolean';
    return [ map { any(@STRINGS, @NUMBERS, @THINGS) } 1 .. rand 4 ] if $t eq 'array';
    return { map { any(grep { length $_ < 100 } @STRINGS) => any(@STRINGS, @NUMBERS, @THINGS) } 1 .. rand 4 };
}

my $enc = JSON::PP->new->utf8->allow_nonref->allow_bignum;
sub mangle {                               # bytes that are no longer JSON, or another
    my $b = shift;
    my $how = int rand 9;
    return substr $b, 0, rand length $b if $how == 0;
    return $b . $b if $how == 1;
    return "\xff$b" if $how == 2;
    return $b =~ s/"/"\\u0000/r if $how == 3;
    return $b =~ s/\{/{"a":1,"a":2,/r if $how == 4;
    return '{"a":' . '[' x 100 . ']' x 100 . '}' if $how == 5;
    return $b =~ s/"([a-z])/"\xc0\xaf$1/r if $how == 6;
    return "[$b]" if $how == 7;
    return "\xef\xbb\xbf$b";
}

my @fuzzed = grep { !/restart|shutdown/ } sort keys %ops;
my $runs = $ENV{KEYTOLL_LONG} ? 40000 : 4000;
my (%seen, @found);
for my $i (1 .. $runs) {
    my $op = $fuzzed[ $i % @fuzzed ];
    my ($method, $path) = split / /, $op;
    my $o = $ops{$op};
    $path =~ s/\{(\w+)\}/my $v = any('x', 'alpha', $key, '%27', '%00', '%2f..%2f', 'a%20b', '%ff', 'x' x 200); $v/ge;
    my @q = map { my $v = any(@STRINGS); utf8::encode($v); $v =~ s{([^A-Za-z0-9])}{sprintf '%%%02X', ord $1}ge; "$_->{name}=$v" }
            grep { $_->{in} eq 'query' && length($_->{name}) && rand() < 0.5 } @{ $o->{parameters} // [] };
    my $body;
    if (my $sch = $o->{requestBody} && $o->{requestBody}{content}{'application/json'}{schema}) {
        my %b = map { $_ => rand() < 0.5 && exists $right{$_} ? $right{$_} : value($sch->{properties}{$_}) }
                grep { rand() < 0.25 || (rand() < 0.8 && grep { $_ } @{ $sch->{required} // [] }) } keys %{ $sch->{properties} };
        $body = $enc->encode(\%b);
        $body = mangle($body) if rand() < 0.1;
    }
    my $url = substr $path . (@q ? '?' . join('&', @q) : ''), 0, 8000;
    my ($st, $j) = $k->request($method, $url, $body, rand() < 0.2 ? (key => $w->{key}{ any(qw(IU TA OA CU)) }) : ());
    $seen{$st}++;
    my $no = $st >= 500 && $st != 501 ? "status $st " . substr($k->raw, 0, 300) : $st >= 400 ? envelope($st, $j, substr $k->raw, 0, 300) : undef;
    push @found, "$op $url " . substr($body // '', 0, 500) . " -> $no" if $no;
    last if @found > 10;
}
is_deeply \@found, [], "$runs requests made from the document, seed $seed: " . join ', ', map { "$_ x $seen{$_}" } sort keys %seen;
($s) = $k->get('/health/readiness', key => undef);
is $s, 200, 'the daemon is well';
is $k->sql("SELECT count(*) FROM outbox WHERE attempts > 0"), 0, 'Redis refused no policy of what was written';
unlike $k->logs, qr/did not check whose|"level":"fatal"/, 'no handler forgot to ask whose object it is';
my @errors = grep { /"level":"error"/ } split /\n/, $k->logs;
is_deeply \@errors, [], 'no error in the log';
done_testing;
