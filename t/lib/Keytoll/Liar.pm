package Keytoll::Liar;

# A proxy before Redis that changes replies at random: wrong types, missing
# and doubled elements, nil, depth, lengths, cut and flipped bytes.
#
#   my $l = Keytoll::Liar->new;  # $l->{addr} for keytoll_redis
#   $l->start($redis_socket, $seed);
#   $l->lie(0.2);                # of all replies; 0: honest

use strict;
use warnings;
use File::Temp qw(tempdir);
use IO::Select;
use IO::Socket::UNIX;
use POSIX ();
use Keytoll::Test;

sub new {
    my $class = shift;
    my $dir = tempdir('klXXXXXX', TMPDIR => 1, CLEANUP => 1);
    chmod 0711, $dir;
    return bless { dir => $dir, addr => "unix:$dir/l.sock", owner => $$ }, $class;
}

sub start {
    my ($self, $upstream, $seed) = @_;
    my $listen = IO::Socket::UNIX->new(Local => "$self->{dir}/l.sock", Listen => 64) or die "liar: $!";
    chmod 0777, "$self->{dir}/l.sock";
    $self->lie(0);
    my $pid = fork // die "fork: $!";
    if (!$pid) { srand $seed; run($self->{dir}, $listen, $upstream); POSIX::_exit(0) }
    $self->{pid} = $pid;
}

sub lie { my ($self, $p) = @_; Keytoll::Test::spew("$self->{dir}/p.new", $p); rename "$self->{dir}/p.new", "$self->{dir}/p" }
sub lies { return (slurp("$_[0]{dir}/n") || 0) + 0 }

# (tree, bytes taken) of the reply at the beginning of the text, or nothing.
# A tree is [type, text] or ['*', trees...]; nil is [type, undef] or ['*n'].
sub parse {
    my ($t, $at) = @_;
    my $end = index $t, "\r\n", $at;
    return if $end < 0;
    my ($type, $line) = (substr($t, $at, 1), substr $t, $at + 1, $end - $at - 1);
    $end += 2;
    if ($type eq '$') {
        return ([$type, undef], $end) if $line < 0;
        return if length $t < $end + $line + 2;
        return ([$type, substr $t, $end, $line], $end + $line + 2);
    }
    return ([$type, $line], $end) if $type ne '*';
    return (['*n'], $end) if $line < 0;
    my @all = ('*');
    for (1 .. $line) {
        (my $child, $end) = parse($t, $end) or return;
        push @all, $child;
    }
    return (\@all, $end);
}

sub text {
    my $n = shift;
    my ($type, @rest) = @$n;
    return $rest[0] if $type eq 'raw';
    return "*-1\r\n" if $type eq '*n';
    return '*' . @rest . "\r\n" . join '', map { text($_) } @rest if $type eq '*';
    return defined $rest[0] ? '$' . length($rest[0]) . "\r\n$rest[0]\r\n" : "\$-1\r\n" if $type eq '$';
    return "$type$rest[0]\r\n";
}

sub nodes { my $n = shift; return ($n, $n->[0] eq '*' ? map { nodes($_) } @$n[1 .. $#$n] : ()) }

sub other {
    my @all = (['$', undef], ['*n'], ['*'], [':', 0], [':', -1], [':', '9223372036854775807'], [':', 1], [':', int rand 40], ['$', ''], ['$', '0'],
        ['$', 'x' x int rand 100_000], ['$', "\0\xff\n\t=" x 9], ['-', 'ERR no'], ['-', 'OOM no'], ['+', 'OK'], ['*', map { [':', $_] } 0 .. int rand 20],
        ['raw', "*1\r\n" x (2 + int rand 12) . ":1\r\n"], ['raw', "\$2000000000\r\nabc"], ['raw', "*2000000000\r\n"], ['raw', "*999999999999999999\r\n"],
        ['raw', "\$-7\r\n"], ['raw', ":x\r\n"], ['raw', "%2\r\n"], ['raw', "\r\n"]);
    return $all[rand @all];
}

sub change {
    my $tree = shift;
    my $r = rand;
    if ($r < 0.1) {
        my $t = text($tree);
        substr $t, rand length $t, 1, chr rand 256;
        return $t;
    }
    my @all = nodes($tree);
    my $n = $all[rand @all];
    if ($n->[0] eq '*' && @$n > 1 && $r < 0.4) {
        my $i = 1 + int rand $#$n;
        $r < 0.25 ? splice @$n, $i, 1 : splice @$n, $i, 0, $n->[$i];
    } else {
        @$n = @{ other() };
    }
    return text($tree);
}

sub run {
    my ($dir, $listen, $upstream) = @_;
    local $SIG{PIPE} = 'IGNORE';
    my $sel = IO::Select->new($listen);
    my (%peer, %from_redis, %in, $lies);
    my $close = sub { for my $s (@_) { $sel->remove($s); delete $peer{$s}; delete $in{$s}; close $s } };
    while (my @ready = $sel->can_read) {
        for my $s (@ready) {
            if ($s == $listen) {
                my $c = $listen->accept or next;
                my $r = IO::Socket::UNIX->new(Peer => $upstream);
                if (!$r) { close $c; next }
                @peer{ $c, $r } = ($r, $c);
                $from_redis{$r} = 1;
                delete $from_redis{$c};
                $in{$r} = '';
                $sel->add($c, $r);
                next;
            }
            my $p = $peer{$s} or next;
            my $n = sysread $s, my $buf, 65536;
            if (!$n) { $close->($s, $p); next }
            if (!$from_redis{$s}) { syswrite $p, $buf; next }
            $in{$s} .= $buf;
            my $prob = slurp("$dir/p") || 0;
            my $out = '';
            while (my ($tree, $end) = parse($in{$s}, 0)) {
                my $reply = substr $in{$s}, 0, $end, '';
                if (rand() < $prob) {
                    $reply = change($tree);
                    Keytoll::Test::spew("$dir/n", ++$lies);
                }
                $out .= $reply;
            }
            if ($prob && rand() < 0.01) {
                syswrite $p, substr $out, 0, rand length $out;
                $close->($s, $p);
                next;
            }
            syswrite $p, $out;
        }
    }
}

sub stop { my $self = shift; kill 'KILL', $self->{pid}; waitpid delete $self->{pid}, 0 }

sub DESTROY {
    my $self = shift;
    return if $$ != $self->{owner} || !$self->{pid};
    local ($?, $!);
    $self->stop;
}

1;
