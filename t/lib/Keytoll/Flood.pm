package Keytoll::Flood;

# keytoll-flood: well-formed keys that nobody ever made, each once, at a steady
# rate over a few kept connections.
#
#   my $f = Keytoll::Flood->start(port => ..., rate => 4000);
#   my $n = $f->stop;                   # { 401 => 8123, seconds => 2.03 }, and lost => 3 if some were

use strict;
use warnings;
use File::Temp qw(tempdir);
use JSON::PP;
use Time::HiRes qw(time);
use Keytoll::Test;

sub start {
    my ($class, %o) = @_;
    my $self = bless { dir => tempdir('ktfXXXXXX', TMPDIR => 1, CLEANUP => 1), owner => $$ }, $class;
    Keytoll::Test::spew("$self->{dir}/body", $o{body} // chat_body());
    my $prefix = sprintf 'sk-flood-%d-%.0f-', $$, time * 1000;
    $self->{pid} = Keytoll::Test::spawn("$self->{dir}/out", "$Keytoll::Test::BIN/keytoll-flood", $o{port}, $o{rate}, $o{connections} // 16, $prefix, "$self->{dir}/body");
    return $self;
}

sub stop {
    my $self = shift;
    Keytoll::Test::reap(delete $self->{pid}, 'TERM', 20);
    my $said = slurp("$self->{dir}/out");
    return $said =~ /^\{/ ? decode_json($said) : die "flood: $said";
}

sub DESTROY {
    my $self = shift;
    return if $$ != $self->{owner} || !$self->{pid};
    local ($?, $!);
    kill 'KILL', $self->{pid};
    waitpid $self->{pid}, 0;
}

1;
