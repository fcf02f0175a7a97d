package Keytoll::FaultProxy;

# keytoll-faultproxy in front of a Redis: new(server socket) and then the words
# of its control protocol as methods' arguments: $p->do('delay 300').

use strict;
use warnings;
use File::Temp qw(tempdir);
use IO::Socket::UNIX;
use Keytoll::Test;

sub new {
    my ($class) = @_;
    my $dir = tempdir('kfXXXXXX', TMPDIR => 1, CLEANUP => 1);
    chmod 0711, $dir;
    return bless { dir => $dir, addr => "unix:$dir/p.sock" }, $class;
}

sub start {
    my ($self, $upstream) = @_;
    $self->{pid} = Keytoll::Test::spawn("$self->{dir}/out", "$Keytoll::Test::BIN/keytoll-faultproxy", '-l', $self->{addr}, '-u', $upstream,
        '-c', "$self->{dir}/c.sock");
    eventually { $self->{c} = IO::Socket::UNIX->new(Peer => "$self->{dir}/c.sock") } 10 or die 'faultproxy: ' . slurp("$self->{dir}/out");
    chmod 0777, "$self->{dir}/p.sock";
    return $self;
}

sub do {
    my ($self, $line) = @_;
    my $c = $self->{c};
    syswrite $c, "$line\n";
    my $answer = <$c>;
    die "faultproxy: $line: " . ($answer // 'gone') unless defined $answer && ($answer eq "ok\n" || $line eq 'stats');
    return $answer;
}

sub stats { return { split ' ', $_[0]->do('stats') } }

sub stop {
    my $self = shift;
    Keytoll::Test::reap(delete $self->{pid}, 'TERM');
}

sub DESTROY { $_[0]{pid} and kill 'KILL', $_[0]{pid} }

1;
