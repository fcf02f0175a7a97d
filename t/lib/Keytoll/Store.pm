package Keytoll::Store;

# A private Redis with the function library and nothing else, for tests of the
# library itself.
#
# clock => 'key' loads the library with its one reading of TIME replaced by the
# key kt:{0000}:clock (epoch ms), so that windows, leases and months pass
# without waiting; everything else is the shipped text, byte for byte.

use strict;
use warnings;
use parent -norequire, 'Keytoll::Test';
use Exporter ();
use File::Temp qw(tempdir);
use Keytoll::Redis;
use Keytoll::Test;

our @ISA = ('Keytoll::Test');
our $P = 'kt:{0000}:';

sub new {
    my ($class, %o) = @_;
    my $dir = tempdir('ktXXXXXX', TMPDIR => 1);
    mkdir "$dir/log";
    my $self = bless { dir => $dir, o => \%o, ver => 1, gen => 1, nginx => [], port => [], sock => "$dir/redis.sock" }, $class;
    push @Keytoll::Test::RUNNING, $self;
    $self->start_redis('--enable-debug-command', 'local', @{ $o{args} // [] });
    $self->load_functions;
    $self->open(1);
    return $self;
}

sub load_functions {
    my $self = shift;
    my $text = slurp("$Keytoll::Test::BIN/keytoll.lua");
    if (($self->{o}{clock} // '') eq 'key') {
        my $n = $text =~ s/\bcall\("TIME"\)/(function() local c = tonumber(call("GET", "${P}clock")) return { floor(c \/ 1000), (c % 1000) * 1000 } end)()/g;
        $n == 1 or die "the library reads the clock in $n places, not in one";
        $self->{now} //= 1_790_000_000_123;
        $self->{r}->call('SET', "${P}clock", $self->{now});
    }
    $self->{r}->call('FUNCTION', 'LOAD', 'REPLACE', $text);
}

# Ready, with this generation and an empty registry.
sub open {
    my ($self, $gen) = @_;
    $self->{gen} = $gen;
    $self->{r}->fcall('kt_registry', $gen, '{}');
}

sub wipe {
    my $self = shift;
    $self->{r}->call('FLUSHALL');
    $self->{r}->call('SET', "${P}clock", $self->{now}) if $self->{now};
    $self->open($self->{gen});
}

sub now {
    my $self = shift;
    return $self->{now} if defined $self->{now};
    my $t = $self->{r}->call('TIME');
    return $t->[0] * 1000 + int($t->[1] / 1000);
}

sub pass {
    my ($self, $ms) = @_;
    return $self->at($self->{now} + $ms);
}

sub at {
    my ($self, $ms) = @_;
    $self->{r}->call('SET', "${P}clock", $self->{now} = $ms);
}

sub rid {
    my $ms = shift;
    return sprintf '%012x%04x%08x%08x', $ms, rand 65536, rand 4294967296, rand 4294967296;
}

# The arguments of kt_admit from names; what is not named is cheap and quiet.
sub admit_args {
    my ($self, %a) = @_;
    $a{rid} //= rid($self->now);
    my $typ = $a{typ} // $a{bound} // 0;
    return ($a{rid}, $a{token}, $a{model} // 'm1', $a{gen} // $self->{gen}, $a{class} // 'chat', $a{path} // '/v1/chat/completions',
        $a{bound} // 0, $typ, $a{ucr} // 1000000, $a{in_bound} // 0, $a{in_typ} // $a{in_bound} // 0, $a{out_bound} // 0,
        $a{out_typ} // $a{out_bound} // 0, $a{est} // 0, $a{lease} // 60000, $a{flags} // 0, $a{customer} // '', $a{tags} // '',
        $a{event} // qq({"id":"$a{rid}","cost":"@{[ $a{est} // 0 ]}","est":1,"end":"lost"}));
}

sub admit {
    my ($self, %a) = @_;
    $a{rid} //= rid($self->now);
    my $r = $self->{r}->fcall('kt_admit', $self->admit_args(%a));
    my %v = (code => $r->[0], raw => $r, rid => $a{rid});
    if ($v{code} == 0) {
        @v{qw(receipt rates now gen alias used limit limited)} = @$r[1 .. 8];
    } elsif ($v{code} == 2) {
        $v{gen} = $r->[1];
    } else {
        @v{qw(ent alias limit used held end retry need now models expires status)} = @$r[1 .. 12];
    }
    return \%v;
}

sub settle_args {
    my (%a) = @_;
    my $event = $a{event} // sprintf '{"id":"%s","cost":"%s","ucr":"%s"}', $a{rid}, $a{cost} // 0, $a{ucr} // 0;
    return ($a{rid}, $a{receipt}, $a{cost} // 0, $a{ucr} // 0, $a{in} // 0, $a{out} // 0, $a{release} ? '' : $event);
}

# Settles each hash; the codes.
sub settle {
    my ($self, @items) = @_;
    my $r = $self->{r}->fcall('kt_settle', map { settle_args(%$_) } @items);
    return @$r == 1 ? (-1) : @$r[2 .. $#$r];
}

sub hold_text {
    my ($receipt, $est, $event) = @_;
    return "$receipt=\t$est\t$event";
}

# A digest of every key; equal ones mean that nothing moved.
sub digest {
    my $self = shift;
    my @keys = grep { $_ ne "${P}clock" } sort @{ $self->{r}->call('KEYS', '*') };
    my %d;
    @d{@keys} = @{ $self->{r}->call('DEBUG', 'DIGEST-VALUE', @keys) } if @keys;
    return \%d;
}

# The names of the keys that differ.
sub moved {
    my ($a, $b) = @_;
    return join ' ', grep { ($a->{$_} // '') ne ($b->{$_} // '') } sort keys %{ { %$a, %$b } };
}

# Every key with its serialised value, for restore().
sub picture {
    my $self = shift;
    my $r = $self->{r};
    my @keys = grep { $_ ne "${P}clock" } sort @{ $r->call('KEYS', '*') };
    $r->send('DUMP', $_) for @keys;
    return { map { $_ => $r->read } @keys };
}

sub restore {
    my ($self, $picture) = @_;
    my $r = $self->{r};
    $r->call('FLUSHALL');
    $r->call('SET', "${P}clock", $self->{now}) if $self->{now};
    $r->call('RESTORE', $_, 0, $picture->{$_}) for sort keys %$picture;
}

# Every event of the stream: [event text, receipt, code]
sub stream {
    my $self = shift;
    my @all;
    for my $entry (@{ $self->{r}->call('XRANGE', "${P}s", '-', '+') }) {
        my @f = @{ $entry->[1] };
        push @all, [(splice @f, 0, 6)[1, 3, 5]] while @f;
    }
    return @all;
}

# Holds, leases: what must be nothing when nothing runs.
sub left {
    my $self = shift;
    return scalar(@{ $self->{r}->call('KEYS', "${P}h:*") }) + $self->{r}->call('ZCARD', "${P}z");
}

1;
