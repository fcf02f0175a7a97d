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

# What is left out is cheap and quiet.
sub complete {
    my ($self, %a) = @_;
    $a{rid} //= rid($self->now);
    my %d = (model => 'm1', gen => $self->{gen}, class => 'chat', path => '/v1/chat/completions', bound => 0, ucr => 1_000_000,
        in_bound => 0, out_bound => 0, est => 0, lease => 60000, flags => 0, customer => '', tags => '', provider => '');
    $a{$_} //= $d{$_} for keys %d;
    $a{in_typ} //= $a{in_bound};
    $a{out_typ} //= $a{out_bound};
    $a{event} //= qq({"id":"$a{rid}","cost":"$a{est}","est":1,"end":"lost"});
    return %a;
}

# hold.lua
sub amounts {
    my %a = @_;
    return pack 'q<l<q<l<q<l<q<4', (map { (int($_ / 1_000_000_000), $_ % 1_000_000_000) } @a{qw(bound ucr est)}),
        @a{qw(in_bound in_typ out_bound out_typ)};
}

# One group of kt_admit from hashes that differ in cost only.
sub group {
    my ($self, @requests) = @_;
    my @r = map { { $self->complete(%$_) } } @requests;
    my %f = (%{ $r[0] }, flags => join "\t", grep { defined } @{ $r[0] }{qw(flags seen)});
    return (\@r, @f{qw(token model class path flags customer tags provider)}, scalar @r, map { ($_->{rid}, amounts(%$_), $_->{event}) } @r);
}

sub verdict {
    my ($rid, $group, $v) = @_;
    my %v = (code => ref $v ? $v->[0] : $v, raw => $v, rid => $rid);
    if ($v{code} == 0) {
        @v{qw(receipt rates alias used limit limited)} = @$group;
        $v{receipt} = $v->[1] if ref $v;
    } elsif ($v{code} == 19 || $v{code} == 20) {
        $v{target} = $v->[1];
    } else {
        @v{qw(ent alias limit used held end retry need now models expires status cheaper else)} = @$v[1 .. 14];
    }
    return \%v;
}

# Groups of requests in one call: [hash...]...; the verdicts in a flat list.
sub admit_many {
    my ($self, @groups) = @_;
    my (@args, @rids);
    for my $g (@groups) {
        my ($r, @a) = $self->group(@$g);
        push @args, @a;
        push @rids, [map { $_->{rid} } @$r];
    }
    my %first = $self->complete(%{ $groups[0][0] });
    my $r = $self->{r}->fcall('kt_admit', $first{gen}, $first{lease}, @args);
    if ($r->[0]) {
        my %all = (code => $r->[0], ent => '', raw => $r, $r->[0] == 2 ? (gen => $r->[1]) : (now => $r->[1]));
        return map { map { { %all, rid => $_ } } @$_ } @rids;
    }
    my @out;
    for my $i (0 .. $#rids) {
        my ($g, $rids) = ($r->[2 + $i], $rids[$i]);
        push @out, map { { now => $r->[1], %{ verdict($rids->[$_], $g, $g->[6 + $_]) } } } 0 .. $#$rids;
    }
    return @out;
}

sub admit {
    my ($self, %a) = @_;
    return ($self->admit_many([\%a]))[0];
}

# A block for n requests of these costs: {bid, stop, receipt, n, left...} or undef.
sub take_block {
    my ($self, $n, %a) = @_;
    %a = $self->complete(%a);
    my %sum = map { $_ => $a{$_} * $n } qw(bound ucr in_bound in_typ out_bound out_typ);
    my $r = $self->{r}->fcall('kt_admit', $a{gen}, $a{lease}, @a{qw(token model class path flags customer tags)}, $a{provider} // '', 1,
        $a{rid}, amounts(%sum, est => 0), "*$n");
    return undef if $r->[0] || !$r->[2][6][0];
    return { bid => $a{rid}, stop => $r->[2][6][0], receipt => $r->[2][6][1], now => $r->[1], n => $n, a => \%a };
}

# The share of one request of a block, instead of its receipt.
sub share {
    my ($block, %a) = @_;
    return "b\t$block->{bid}\t" . amounts(%{ $block->{a} }, %a);
}

sub settle_args {
    my (%a) = @_;
    my $event = $a{event} // sprintf '{"id":"%s","cost":"%s","ucr":"%s"}', $a{rid}, $a{cost} // 0, $a{ucr} // 0;
    return ($a{rid}, $a{receipt}, $a{cost} // 0, $a{ucr} // 0, $a{in} // 0, $a{out} // 0, $a{release} ? '' : $event);
}

# Settlements of requests that reserved alike as one (lua/group.lua).  Each hash
# says what its request reserved, too; their receipt, or a block.
sub group_args {
    my ($receipt, @items) = @_;
    my @each = map { [settle_args(%$_)] } @items;
    my (%sum, @paid);
    for my $f (qw(bound ucr est in_bound in_typ out_bound out_typ)) { $sum{$f} += $_->{$f} // 0 for @items }
    for my $i (0 .. 3) { $paid[$i] += $_->[2 + $i] for @each }
    return (join('', map { $_->[0] } @each), 'G' . amounts(%sum) . (ref $receipt ? "b\t$receipt->{bid}" : $receipt), @paid, join "\n", map { $_->[6] } @each);
}

# Settles each hash; the codes.
sub settle {
    my ($self, @items) = @_;
    my $r = $self->{r}->fcall('kt_settle', map { settle_args(%$_) } @items);
    return @$r == 1 ? (-1) : @$r[2 .. $#$r];
}

sub hold_text {
    my ($receipt, $event, %a) = @_;
    return 'H' . amounts(%a) . "$receipt=\t$event";
}

# ({amounts}, receipt, event)
sub hold_parts {
    my $text = shift;
    my ($h, $amounts, $rest) = unpack 'aa68a*', $text;
    my @n = unpack 'q<l<q<l<q<l<q<4', $amounts;
    my %a = map { my ($hi, $lo) = splice @n, 0, 2; $_ => $hi * 1_000_000_000 + $lo } qw(bound ucr est);
    @a{qw(in_bound in_typ out_bound out_typ)} = @n;
    return (\%a, $rest =~ /^(.*?\n)=\t(.*)$/s);
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
    return map { Keytoll::Test::events_of($_->[1]) } @{ $self->{r}->call('XRANGE', "${P}s", '-', '+') };
}

# Holds (tombstones are none), leases: what must be nothing when nothing runs.
sub left {
    my $self = shift;
    return scalar(grep { ($self->{r}->call('GET', $_) // '') =~ /^H/ } @{ $self->{r}->call('KEYS', "${P}h:*") }) + $self->{r}->call('ZCARD', "${P}z");
}

1;
