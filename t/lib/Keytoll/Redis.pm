package Keytoll::Redis;

# A blocking RESP2 client, enough for tests.  Integers and strings come back
# as scalars, nil as undef, arrays as references; an error reply dies.

use strict;
use warnings;
use IO::Socket::UNIX;

sub new {
    my ($class, $sock) = @_;
    my $s = IO::Socket::UNIX->new(Peer => $sock) or die "redis $sock: $!";
    binmode $s;
    return bless { s => $s, buf => '' }, $class;
}

sub send {
    my ($self, @argv) = @_;
    my $out = '*' . @argv . "\r\n";
    for my $a (@argv) {
        my $b = $a;
        utf8::encode($b) if utf8::is_utf8($b);
        $out .= '$' . length($b) . "\r\n$b\r\n";
    }
    my $s = $self->{s};
    while (length $out) {
        my $n = syswrite $s, $out;
        defined $n or die "redis write: $!";
        substr($out, 0, $n, '');
    }
    return $self;
}

sub _line {
    my $self = shift;
    while (1) {
        my $i = index $self->{buf}, "\r\n";
        return substr(substr($self->{buf}, 0, $i + 2, ''), 0, -2) if $i >= 0;
        $self->_more;
    }
}

sub _more {
    my $self = shift;
    my $n = sysread $self->{s}, $self->{buf}, 65536, length $self->{buf};
    die 'redis closed' unless $n;
}

sub read {
    my $self = shift;
    my $line = $self->_line;
    my ($t, $v) = (substr($line, 0, 1), substr($line, 1));
    return $v if $t eq '+' || $t eq ':';
    die "redis: $v\n" if $t eq '-';
    if ($t eq '$') {
        return undef if $v < 0;
        $self->_more while length($self->{buf}) < $v + 2;
        return substr(substr($self->{buf}, 0, $v + 2, ''), 0, $v);
    }
    return undef if $v < 0;
    return [map { $self->read } 1 .. $v];
}

sub call {
    my ($self, @argv) = @_;
    return $self->send(@argv)->read;
}

# FCALL with the one KEYS entry that every function takes.  As controld does it: Redis
# answers before it tells those that listen, but tells them before it reads another command.
sub fcall {
    my ($self, $name, @args) = @_;
    my $r = $self->call('FCALL', $name, 1, 'kt:{0000}:gen', @args);
    $self->call('PING') if $name =~ /^kt_(?:policy|registry|adjust)/;
    return $r;
}

# How many functions it has run.
sub functions { my ($n) = $_[0]->call('INFO', 'commandstats') =~ /^cmdstat_fcall:calls=(\d+)/m; return $n // 0 }

1;
