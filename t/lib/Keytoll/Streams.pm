package Keytoll::Streams;

# Many streams at once, from a few forked clients.
#
#   my $s = Keytoll::Streams->start(port => ..., key => ..., streams => 2000, events => 50, delay => 100);
#   my $n = $s->stop;                   # { whole => 2000, cut => 0, events => 104000, wrong => 0 }
#
# wrong: streams whose events are not what the provider's are when it is asked
# alone: one lost, one merged with another, two in another order.

use strict;
use warnings;
use File::Temp qw(tempdir);
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use POSIX ();
use Time::HiRes qw(time);
use Keytoll::Test;

sub start {
    my ($class, %o) = @_;
    my $self = bless { dir => tempdir('ktsXXXXXX', TMPDIR => 1, CLEANUP => 1), pids => [] }, $class;
    $o{clients} //= 4;
    for my $i (0 .. $o{clients} - 1) {
        my $pid = fork // die "fork: $!";
        if (!$pid) { run("$self->{dir}/$i", %o, streams => int(($o{streams} + $i) / $o{clients})); POSIX::_exit(0) }
        push @{ $self->{pids} }, $pid;
    }
    return $self;
}

# What a stream says, whoever asks: its events without ids and times.
sub shape {
    my $body = shift;
    $body =~ s/"(?:id|system_fingerprint)":"[^"]*"|"created":\d+//g;
    return $body;
}

sub run {
    my ($file, %o) = @_;
    my ($rs, %raw, %n) = (IO::Select->new);
    @n{qw(whole cut events wrong)} = (0) x 4;
    my $text = Keytoll::Test::request_text('POST', '/v1/chat/completions', ['Authorization', "Bearer $o{key}", 'Connection', 'close', 'x-mock-event-delay-ms', $o{delay} // 0],
        chat_body(stream => JSON::PP::true, max_tokens => $o{events}));
    for (1 .. $o{streams}) {
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $o{port}) or ++$n{cut} && next;
        syswrite $s, $text;
        $raw{$s} = '';
        $rs->add($s);
    }
    my ($end, $first) = (time + ($o{timeout} // 120));
    while ($rs->count && time < $end) {
        for my $s ($rs->can_read(1)) {
            next if sysread $s, $raw{$s}, 65536, length $raw{$s};
            $rs->remove($s);
            my $r = Keytoll::Test::parse_response(delete $raw{$s});
            my @e = split /\n\n/, $r->{body};
            $r->{status} == 200 && $r->{complete} && @e && $e[-1] eq 'data: [DONE]' ? $n{whole}++ : $n{cut}++;
            $n{events} += @e;
            my $shape = shape($r->{body});
            $n{wrong}++ if $shape ne ($first //= $shape) || grep { !/\Adata: [^\n]*\z/ } @e;
            close $s;
        }
    }
    $n{cut} += $rs->count;
    $n{shape} = $first // '';
    Keytoll::Test::spew($file, JSON::PP->new->canonical->encode(\%n));
}

sub stop {
    my $self = shift;
    my %sum;
    waitpid $_, 0 for @{ $self->{pids} };
    for my $f (glob "$self->{dir}/*") {
        my $n = json(slurp($f));
        my $shape = delete $n->{shape};
        $sum{$_} += $n->{$_} for keys %$n;
        $sum{wrong}++ if $shape ne ($sum{shape} //= $shape);
    }
    return \%sum;
}

1;
