package Keytoll::Books;

# Do the books agree?  What the provider served, the ledger's events and the
# counters of Redis, to the nano-dollar, each request once, nothing held.

use strict;
use warnings;
use Exporter 'import';
use Test::More;
use Keytoll::Test;

our @EXPORT = qw(exact cost_of_truth load_begin load_end);

# Nano-USD of what the provider served in full, at the prices of gpt-4o-mini.
sub cost_of_truth {
    my $g = shift;
    my $sum = 0;
    $sum += $_->{prompt_tokens} * 150 + $_->{completion_tokens} * 600 for grep { $_->{ended} eq 'complete' } $g->truth;
    return $sum;
}

sub exact {
    my ($g, $key, $what) = @_;
    ok($g->settled(20), "$what: settled, no lease stands") or diag($g->{r}->call('ZCARD', 'kt:{0000}:z'));
    my $truth = cost_of_truth($g);
    my (%seen, $sum);
    my $read = sub {
        (%seen, $sum) = ();
        $seen{ $_->[0]{id} }++, $sum += $_->[0]{cost} for $g->events;
        return ($sum // 0) == $truth;
    };
    # what a Redis may have forgotten is sent again, some time after all seems settled
    eventually { $read->() } 10;
    is($sum, $truth, "$what: the ledger equals what was served");
    is($g->state('global')->{used}, $truth, "$what: used equals what was served");
    is(scalar(grep { $_ > 1 } values %seen), 0, "$what: each once");
    my $e = $g->state($key);
    is("$e->{held} $e->{par}", '0 0', "$what: nothing is held");
    is(scalar(grep { ($g->{r}->call('GET', $_) // '') =~ /^H/ } @{ $g->{r}->call('KEYS', 'kt:{0000}:h:*') }), 0, "$what: no hold record is left");
}

# Clients that call in another process; load_end returns { status => times }.
sub load_begin {
    my ($g, $key, %o) = @_;
    pipe my $in, my $out or die "pipe: $!";
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        my ($stop, %n) = 0;
        local $SIG{TERM} = sub { $stop = 1 };
        until ($stop) {
            my @r = http_burst($g->{port}[ $o{nginx} // 0 ], [map { ['POST', '/v1/chat/completions',
                ['Authorization', "Bearer $key", 'Content-Type', 'application/json', 'x-mock-delay-ms', int rand($o{delay} // 30)],
                chat_body(stream => rand() < 0.3 ? JSON::PP::true : JSON::PP::false)] } 1 .. $o{wide} // 8]);
            $n{ $_->{complete} ? $_->{status} : 'cut' }++ for @r;
        }
        print {$out} join(' ', %n), "\n";
        close $out;
        POSIX::_exit(0);
    }
    close $out;
    return [$pid, $in];
}

sub load_end {
    my $l = shift;
    kill 'TERM', $l->[0];
    my %n = split ' ', readline($l->[1]) // 'none 1';
    waitpid $l->[0], 0;
    return \%n;
}

1;
