# The registry under concurrent changes: what Redis has is what PostgreSQL has.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use POSIX ();
use Test::More;

my $k = Keytoll::Control->new;
$k->start_controld(name => 'second');
my ($PROCS, $ROUNDS) = (6, 20);

sub in_redis {
    my $r = JSON::PP->new->decode($k->redis('GET', 'kt:{0000}:reg'));
    return join ' ', sort grep { /^race-/ } map { $_->{n} } @{ $r->{models} };
}

sub in_postgres {
    return $k->sql("SELECT coalesce(string_agg(model_name, ' ' ORDER BY model_name COLLATE \"C\"), '')"
        . " FROM models WHERE model_name LIKE 'race-%'");
}

# One process makes and deletes models, a round per byte that it reads; it answers
# with a byte.  Of three it leaves one.
sub racer {
    my ($p, $in, $out) = @_;
    my @daemon = (daemon => $p % 2 ? 'second' : 'controld');
    my $last;
    delete $k->{http};
    for my $i (1 .. $ROUNDS) {
        sysread $in, my $go, 1;
        my $id = "race-$p-$i";
        my ($s) = $k->post('/model/new', { model_name => $id, litellm_params => { model => 'x/y' },
            model_info => { id => $id } }, @daemon);
        ($s) = $k->post('/model/delete', { id => $last }, @daemon) if $s == 200 && $last;
        $last = $i % 3 == $p % 3 ? undef : $id;
        syswrite $out, $s == 200 ? '.' : '!';
    }
    POSIX::_exit(0);
}

my @racer = map {
    pipe(my $in, my $go);
    pipe(my $done, my $out);
    my $pid = fork // die "fork: $!";
    racer($_, $in, $out) if $pid == 0;
    { pid => $pid, go => $go, done => $done };
} 1 .. $PROCS;

my ($answers, $differ, $pending) = ('', 0, 0);
for my $round (1 .. $ROUNDS) {
    syswrite $_->{go}, '.' for @racer;
    for (@racer) { sysread $_->{done}, my $c, 1; $answers .= $c }
    $pending++ if !$k->until(sub { $k->sql('SELECT count(*) FROM outbox') == 0 });
    $differ++ if in_redis() ne in_postgres();
}
waitpid $_->{pid}, 0 for @racer;
is $answers, '.' x ($PROCS * $ROUNDS), 'every change was answered';
is $pending, 0, 'the outbox empties';
is $differ, 0, 'the registry in Redis equals PostgreSQL after every round';
cmp_ok length in_redis(), '>', 100, 'which is not empty';

done_testing;
