package Keytoll::Load;

# Forked clients that call without a pause, each over kept connections to
# every port in turn, and write down when each call began, ended, and how.
#
#   my $l = Keytoll::Load->start(clients => 4, ports => [...], key => $key, headers => [...]);
#   my @calls = $l->stop;               # [began, ended, status, reason or -], times in seconds

use strict;
use warnings;
use File::Temp qw(tempdir);
use IO::Socket::INET;
use Errno;
use POSIX ();
use Time::HiRes qw(time);
use Keytoll::Test;

sub start {
    my ($class, %o) = @_;
    my $self = bless { dir => tempdir('ktlXXXXXX', TMPDIR => 1, CLEANUP => 1), pids => [], owner => $$ }, $class;
    for my $n (1 .. $o{clients} // 4) {
        my $pid = fork // die "fork: $!";
        if (!$pid) { client("$self->{dir}/$n", $n, %o); POSIX::_exit(0) }
        push @{ $self->{pids} }, $pid;
    }
    return $self;
}

sub connection {
    my $port = shift;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 10) or die "port $port: $!";
    binmode $s;
    $s->autoflush(1);
    return $s;
}

# One request on an open connection: (status, time of the first byte, body,
# head); the connection is undef afterwards when the server closed it.
sub call {
    my ($s, $text) = @_;
    syswrite $$s, $text;
    my ($raw, $first) = ('', undef);
    while (1) {
        my $n = sysread $$s, $raw, 65536, length $raw;
        next if !defined $n && $!{EINTR};
        last if !$n;
        $first //= time;
        my ($head, $body) = split /\r\n\r\n/, $raw, 2;
        next unless defined $body;
        my ($status) = $head =~ m{^HTTP/1\.1 (\d+)};
        my ($length) = $head =~ /^content-length: *(\d+)/mi;
        next if defined $length ? length $body < $length : $body !~ /(^|\r\n)0\r\n\r\n\z/;
        $$s = undef if $head =~ /^connection: *close/mi;
        return ($status, $first, $body, $head);
    }
    $$s = undef;
    return (0, $first // time, '', '');
}

sub client {
    my ($file, $n, %o) = @_;
    my $run = 1;
    local $SIG{TERM} = sub { $run = 0 };
    open my $out, '>', $file or die "$file: $!";
    my $text = Keytoll::Test::request_text('POST', $o{path} // '/v1/chat/completions',
        ['Authorization', "Bearer $o{key}", 'Content-Type', 'application/json', @{ $o{headers} // [] }], $o{body} // chat_body());
    my @s;
    for (my $i = $n; $run; $i++) {
        my $p = $i % @{ $o{ports} };
        $s[$p] //= connection($o{ports}[$p]);
        my $began = time;
        my ($status, $first, undef, $head) = call(\$s[$p], $text);
        printf {$out} "%.6f %.6f %d %s\n", $began, $first, $status, $head =~ /^x-keytoll-reason: *(\S+)/mi ? $1 : '-';
    }
    close $out;
}

sub stop {
    my $self = shift;
    kill 'TERM', @{ $self->{pids} };
    waitpid $_, 0 for @{ $self->{pids} };
    $self->{pids} = [];
    return map { [split] } map { split /\n/, slurp($_) } glob "$self->{dir}/*";
}

sub DESTROY {
    my $self = shift;
    return if $$ != $self->{owner} || !@{ $self->{pids} };
    local ($?, $!);
    kill 'KILL', @{ $self->{pids} };
    waitpid $_, 0 for @{ $self->{pids} };
}

1;
