package Keytoll::Prometheus;

# The text format of Prometheus, version 0.0.4, read strictly: what its own
# parser lets pass but a careful reader would not is a problem, too.

use strict;
use warnings;
use Exporter 'import';

our @EXPORT_OK = qw(problems samples);

my $NAME = qr/[a-zA-Z_:][a-zA-Z0-9_:]*/;
my $LABEL = qr/[a-zA-Z_][a-zA-Z0-9_]*/;
my $VALUE = qr/[+-]?(?:[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|Inf)|NaN/;

# { name => value } with labels in the order of their names.
sub samples {
    my %s;
    for (grep { /\S/ && !/^#/ } split /\n/, $_[0]) {
        my ($series, $v) = /^(.*) (\S+)$/ or next;
        $s{$series} = $v;
    }
    return \%s;
}

# A list of what is wrong; empty for a good text.
sub problems {
    my $text = shift;
    my (%type, %help, %seen, %closed, %histogram, @bad, $family);
    push @bad, 'no newline at the end' if $text !~ /\n\z/;
    push @bad, 'CR' if $text =~ /\r/;
    for my $line (split /\n/, $text) {
        if ($line =~ /^# HELP ($NAME) (\S.*)$/) {
            my ($name, $words) = ($1, $2);
            push @bad, "HELP twice: $name" if $help{$name}++;
            push @bad, "HELP of $name has a bad escape" if $words =~ /\\(?![\\n])/;
            $closed{$family}++ if defined $family;
            $family = $name;
            push @bad, "$family is not in one group" if $closed{$family};
        } elsif ($line =~ /^# TYPE ($NAME) (counter|gauge|histogram)$/) {
            my ($name, $type) = ($1, $2);
            push @bad, "TYPE twice: $name" if $type{$name};
            push @bad, "TYPE of $name without its HELP before" if !defined $family || $family ne $name;
            $type{$name} = $type;
            push @bad, "$type $name: only counters end in _total" if ($type eq 'counter') != ($name =~ /_total$/);
        } elsif ($line =~ /^($NAME)(?:\{(.*)\})? ($VALUE)$/) {
            push @bad, _sample(\%type, \%seen, \%histogram, $family, $1, $2, $3);
        } else {
            push @bad, "no line of the format: $line";
        }
    }
    push @bad, map { "$_ has a TYPE and no sample" } grep { !$seen{"family $_"} } sort keys %type;
    push @bad, map { "$_ has a HELP and no TYPE" } grep { !$type{$_} } sort keys %help;
    push @bad, _histogram($_, $histogram{$_}) for sort keys %histogram;
    return @bad;
}

sub _sample {
    my ($type, $seen, $histogram, $family, $name, $labels, $value) = @_;
    my (@bad, %l);
    return "sample $name before any HELP" unless defined $family;
    my $rest = $labels // '';
    push @bad, "$name has empty braces" if defined $labels && $labels eq '';
    while ($rest =~ s/^($LABEL)="((?:[^"\\\n]|\\[\\"n])*)"(?:,(?=.)|\z)//) {
        push @bad, "$name has the label $1 twice" if exists $l{$1};
        push @bad, "$name has a reserved label $1" if $1 =~ /^__/;
        $l{$1} = $2;
    }
    push @bad, "$name has bad labels: $rest" if $rest ne '';
    my $series = $name . '{' . join(',', map { "$_=$l{$_}" } sort keys %l) . '}';
    push @bad, "$series twice" if $seen->{$series}++;
    my ($base, $part) = ($type->{$family} // '') eq 'histogram' ? $name =~ /^(.*)_(bucket|sum|count)$/ : ($name, '');
    push @bad, "$name stands in the group of $family" if ($base // '') ne $family;
    $seen->{"family $family"}++;
    push @bad, "counter $series is negative" if $type->{$family} && $type->{$family} eq 'counter' && $value =~ /^-/;
    if ($part) {
        my $le = delete $l{le};
        my $h = $histogram->{ join ',', $family, map { "$_=$l{$_}" } sort keys %l } //= { le => [] };
        if ($part eq 'bucket') { defined $le ? push(@{ $h->{le} }, [$le, $value]) : push(@bad, "a bucket of $family without le") }
        else { $h->{$part} = $value; push @bad, "$series has a label le" if defined $le }
    }
    return @bad;
}

sub _histogram {
    my ($name, $h) = @_;
    my @bad;
    my ($le, $n) = ('-Inf', 0);
    for (@{ $h->{le} }) {
        push @bad, "$name: le $_->[0] does not follow $le" unless $_->[0] > $le;
        push @bad, "$name: the bucket $_->[0] is less than the one before" if $_->[1] < $n;
        ($le, $n) = @$_;
    }
    push @bad, "$name: the last bucket is not +Inf" if $le ne '+Inf';
    push @bad, "$name: no _sum" unless defined $h->{sum};
    push @bad, "$name: _count is not the last bucket" unless defined $h->{count} && $h->{count} == $n;
    return @bad;
}

1;
