# Reports of a key that was regenerated: whatever hash is asked for, all its rows.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Digest::SHA qw(sha256_hex);
use JSON::PP;
use Keytoll::Control;
use POSIX qw(strftime);
use Test::More;
use Time::HiRes qw(time);

my $k = Keytoll::Control->new;
my ($s, $j);
sub made { my ($st, $o) = $k->post(@_); die "$_[0]: $st " . $k->raw if $st != 200; return $o }
made('/user/new', { user_id => $_, user_role => 'internal_user', auto_create_key => JSON::PP::false }) for qw(iu cu);
my $other = made('/key/generate', { user_id => 'cu' })->{key};

my $n = 0;
sub used {
    my ($key, $user) = @_;
    my $ms = int(1000 * time) - 1000;
    my $rid = $k->rid($ms);
    my $ev = JSON::PP->new->canonical->encode({ id => $rid, t0 => $ms, t1 => $ms + 250, m => 'fast', um => 'fast-1', p => 'openai',
        rt => 'chat', uid => 'chatcmpl-' . ++$n, in => 10, out => 5, cr => 0, cw => 0, cost => '1000000000',
        ucr => '0', st => 200, end => 'complete', ip => '10.0.0.1', tags => [] });
    my $r = "2\t$ms\tfast\nkey:" . sha256_hex($key) . "\t0\t16\n" . ($user ? "user:$user\t0\t16\n" : '') . "customer:c1\t0\t16\nglobal\t0\t16\n";
    $k->redis('XADD', 'kt:{0000}:s', '*', e => $ev, r => $r, c => 'ok');
}

# three hashes each, one of them of no grace period any more
my %keys;
for my $who ('iu', '') {
    my @key = made('/key/generate', { key_alias => "rotates-$who", $who ? (user_id => $who) : (permissions => {}) })->{key};
    used($key[-1], $who);
    for (1 .. 2) {
        push @key, made('/key/regenerate', { key => $key[-1] })->{key};
        used($key[-1], $who);
    }
    $keys{$who} = \@key;
}
used($other, 'cu');
$k->until(sub { $k->sql('SELECT count(*) FROM ledger') == 7 });
is $k->sql('SELECT count(*) FROM ledger'), 7, 'the ledger has them all';

my $day = strftime '%Y-%m-%d', gmtime;
my $dates = "start_date=$day&end_date=$day";
for my $who ('iu', '') {
    my $live = $keys{$who}[-1];
    for my $key (@{ $keys{$who} }) {
        my $hash = sha256_hex($key);
        for my $as (undef, $who ? $live : ()) {
            my %as = $as ? (key => $as) : ();
            my $name = ($who || 'nobody') . ' ' . ($as ? 'himself' : 'by an admin') . ', hash ' . substr $hash, 0, 4;
            ($s, $j) = $k->get("/spend/logs?api_key=$hash", %as);
            is_deeply [ $s, scalar @{ ref $j eq 'ARRAY' ? $j : [] } ], [ 200, 3 ], "/spend/logs, $name" or diag $k->raw;
            ($s, $j) = $k->get("/spend/logs/v2?api_key=$hash&start_date=$day%2000:00:00&end_date=$day%2023:59:59", %as);
            is_deeply [ $s, $j->{total} ], [ 200, 3 ], "/spend/logs/v2, $name" or diag $k->raw;
            ($s, $j) = $k->get("/user/daily/activity?api_key=$hash&$dates", %as);
            is_deeply [ $s, $j->{metadata}{total_api_requests} ], [ 200, 3 ], "/user/daily/activity, $name" or diag $k->raw;
            ($s, $j) = $k->get("/global/spend/report?api_key=$hash&$dates", %as);
            is $s, 200, "/global/spend/report, $name" if !$as;
            is scalar @{ ref $j eq 'ARRAY' ? $j : [] }, 3, 'a row of each' if !$as;
            if (!$as) {
                ($s, $j) = $k->get("/global/spend/logs?api_key=$hash");
                is_deeply [ $s, map { $_->{spend} } @$j ], [ 200, 3 ], "/global/spend/logs, $name" or diag $k->raw;
                ($s, $j) = $k->post('/global/spend/end_users', { api_key => $hash });
                is_deeply [ $s, map { $_->{total_spend} } @$j ], [ 200, 3 ], "/global/spend/end_users, $name" or diag $k->raw;
            }
        }
    }
    next if !$who;                     # the gate lets a key of nobody see none of this
    ($s, $j) = $k->get('/spend/logs', key => $live);
    is_deeply [ $s, scalar @{ ref $j eq 'ARRAY' ? $j : [] } ], [ 200, 3 ], ($who || 'nobody') . ' sees his own' or diag $k->raw;
    ($s, $j) = $k->get("/user/daily/activity?$dates", key => $live);
    is_deeply [ $s, $j->{metadata}{total_api_requests} ], [ 200, 3 ], 'and no more';
    ($s, $j) = $k->get('/spend/keys', key => $live);
    is scalar @{ ref $j eq 'ARRAY' ? $j : [] }, 1, 'and his key';
}

my ($path) = map { $_->{path} } grep { $_->{path} =~ m{^/key/.*report} } map { /^\{/ ? decode_json($_) : () } split /\n/, ($k->run('routes'))[1];
for my $key (@{ $keys{iu} }) {
    my $hash = sha256_hex($key);
    for my $as (undef, $keys{iu}[-1]) {
        ($s, $j) = $k->get("$path?api_key=$hash&$dates", $as ? (key => $as) : ());
        is $s, 200, "$path" or diag $k->raw;
        is scalar @{ ref $j eq 'ARRAY' ? $j : [] }, 3, 'a row of each';
    }
    ($s, $j) = $k->get("$path?api_key=$hash&$dates", key => $other);
    is $s, 403, 'not for others';
    ($s, $j) = $k->get("/spend/logs?api_key=$hash", key => $other);
    is_deeply [ $s, $j ], [ 200, [] ], 'who find nothing';
}
($s) = $k->get("$path?$dates", key => $keys{''}[-1]);
is $s, 200, 'a key of nobody reads its own';
made('/key/delete', { keys => [ $keys{iu}[-1] ] });
($s, $j) = $k->get('/spend/logs?api_key=' . sha256_hex($keys{iu}[0]));
is scalar @$j, 3, 'a deleted key is still one';

done_testing;
