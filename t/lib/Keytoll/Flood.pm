package Keytoll::Flood;

# A forked client that presents well-formed keys that nobody ever made, each
# once, at a steady rate over a few kept connections.
#
#   my $f = Keytoll::Flood->start(port => ..., rate => 4000);
#   my $n = $f->stop;                   # { 401 => 8123, lost => 0 }

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
    my $self = bless { dir => tempdir('ktfXXXXXX', TMPDIR => 1, CLEANUP => 1), owner => $$ }, $class;
    my $pid = fork // die "fork: $!";
    if (!$pid) { run("$self->{dir}/n", %o); POSIX::_exit(0) }
    $self->{pid} = $pid;
    return $self;
}

sub run {
    my ($file, %o) = @_;
    my ($stop, $serial, %n, @idle, %busy, %raw) = (0, 0);
    local $SIG{TERM} = sub { $stop = 1 };
    my $body = $o{body} // chat_body();
    my $sel = IO::Select->new;
    for (1 .. $o{connections} // 16) {
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $o{port}, Timeout => 10) or die "port $o{port}: $!";
        binmode $s;
        $sel->add($s);
        push @idle, $s;
    }
    my ($began, $sent) = (time, 0);
    my $key = sprintf 'sk-flood-%d-%x-', $$, $began * 1000;
    until ($stop && !%busy) {
        my $due = $stop ? 0 : (time - $began) * $o{rate} - $sent;
        while ($due-- >= 1 && @idle) {
            my $s = pop @idle;
            syswrite $s, Keytoll::Test::request_text('POST', '/v1/chat/completions', ['Authorization', "Bearer $key" . ++$serial], $body);
            $busy{$s} = 1;
            $raw{$s} = '';
            $sent++;
        }
        for my $s ($sel->can_read(0.0005)) {
            my $got = sysread $s, $raw{$s}, 65536, length $raw{$s};
            if (!$got) {
                $n{lost}++ if delete $busy{$s};
                $sel->remove($s);
                next;
            }
            my ($status, $length, $rest) = $raw{$s} =~ m{^HTTP/1\.1 (\d+).*?^content-length: (\d+).*?\r\n\r\n(.*)\z}smi or next;
            next if length $rest < $length;
            $n{$status}++;
            delete $busy{$s};
            push @idle, $s;
        }
        last if !$sel->count;
    }
    $n{seconds} = time - $began;
    Keytoll::Test::spew($file, encode_json(\%n));
}

sub stop {
    my $self = shift;
    kill 'TERM', $self->{pid};
    waitpid delete $self->{pid}, 0;
    return decode_json(slurp("$self->{dir}/n") || '{"lost":1}');
}

sub DESTROY {
    my $self = shift;
    return if $$ != $self->{owner} || !$self->{pid};
    local ($?, $!);
    kill 'KILL', $self->{pid};
    waitpid $self->{pid}, 0;
}

1;
