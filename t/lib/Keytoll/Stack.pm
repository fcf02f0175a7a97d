package Keytoll::Stack;

# The whole product, as `make up` starts it, in a folder and on a port of its
# own.  Stopped at the end; its logs are read for alerts and sanitizer reports.

use strict;
use warnings;
use Cwd qw(abs_path);
use File::Temp qw(tempdir);
use Test::More;
use Keytoll::Redis;
use Keytoll::Test;

my @RUNNING;

sub command {
    my ($self, @cmd) = @_;
    local %ENV = (%ENV, %{ $self->{env} });
    my $out = `@cmd 2>&1 </dev/null`;
    return wantarray ? ($? >> 8, $out) : $out;
}

sub new {
    my ($class, %env) = @_;
    my $dir = tempdir('ktsXXXXXX', TMPDIR => 1);
    chmod 0711, $dir;
    my $self = bless {
        dir => $dir,
        env => { KEYTOLL_PORT => Keytoll::Test::free_port(), KEYTOLL_RUN_DIR => "$dir/run", KEYTOLL_BIN => abs_path($Keytoll::Test::BIN), %env },
    }, $class;
    push @RUNNING, $self;
    return $self;
}

sub stack { my ($self, $verb) = @_; return $self->command("$Keytoll::Test::TOP/config/stack $verb") }

sub up {
    my $self = shift;
    $self = $self->new(@_) unless ref $self;
    my ($code, $out) = $self->stack('up');
    $code == 0 or die "config/stack up: $out";
    $self->{vars} = { map { /^(\w+)=(.*)$/ ? ($1, $2) : () } split /\n/, slurp("$self->{env}{KEYTOLL_RUN_DIR}/env") };
    $self->{run} = $self->{vars}{KEYTOLL_RUN_DIR};
    ($self->{port}) = $self->{vars}{KEYTOLL_URL} =~ /:(\d+)$/;
    ($self->{mock_port}) = $self->{vars}{KEYTOLL_MOCK_URL} =~ /:(\d+)$/;
    return $self;
}

sub admin {
    my ($self, $method, $path, $body) = @_;
    return http_call($self->{port}, $method, $path, ['Authorization', "Bearer $self->{vars}{KEYTOLL_MASTER_KEY}", 'Content-Type', 'application/json'],
        defined $body ? $Keytoll::Test::JSON->encode($body) : undef);
}

sub chat {
    my ($self, $key, %o) = @_;
    my $headers = delete $o{headers} // [];
    return http_call($self->{port}, 'POST', '/v1/chat/completions', ['Authorization', "Bearer $key", 'Content-Type', 'application/json', @$headers], chat_body(%o));
}

# From here on the gate waits for a Redis that a busy machine keeps from its
# work; with lease => 1 it admits hot keys from blocks.
sub patient {
    my ($self, %o) = @_;
    my $file = "$self->{run}/nginx.conf";
    my $conf = slurp($file);
    $conf =~ s/^(\s*keytoll_redis [^;]*?)( timeout=\w+)?;/$1 timeout=5s;/m or die 'no "keytoll_redis" in nginx.conf';
    !$o{lease} or $conf =~ s/^(\s*)keytoll on;/$1keytoll on;\n$1keytoll_lease on;/m or die 'no "keytoll on" in nginx.conf';
    Keytoll::Test::spew($file, $conf);
    my $old = join ' ', sort $self->workers;
    kill 'HUP', $self->pid('nginx');
    eventually { my $new = join ' ', sort $self->workers; $new && !grep { $old =~ /\b$_\b/ } split / /, $new } 20 or die 'nginx did not reload';
}

sub workers {
    my $self = shift;
    my $master = $self->pid('nginx');
    return map { slurp($_) =~ /^(\d+) \(.*\) \S (\d+) / && $2 == $master ? $1 : () } glob '/proc/[0-9]*/stat';
}

# One more nginx of this stack, on the same Redis and journals: its port.
sub another_nginx {
    my $self = shift;
    my $n = 2 + @{ $self->{more} //= [] };
    my ($run, $port) = ($self->{run}, Keytoll::Test::free_port());
    my $conf = slurp("$run/nginx.conf");
    $conf =~ s/127\.0\.0\.1:$self->{port} /127.0.0.1:$port /;
    $conf =~ s{\Q$run\E/(nginx\.pid|log/nginx\.log|log/access\.log)}{"$run/" . $1 =~ s/\./$n./r}ge;
    $conf =~ s{\Q$run\E/tmp/}{$run/tmp/$n-}g;
    Keytoll::Test::spew("$self->{dir}/nginx$n.conf", $conf);
    my ($uid, $gid) = (stat $run)[4, 5];
    my @as = $> == 0 ? ('setpriv', '--reuid', $uid, '--regid', $gid, '--clear-groups', '--') : ();
    my $bin = $ENV{KEYTOLL_ASAN} ? "$run/bin/nginx" : $ENV{KEYTOLL_NGINX} || '/usr/sbin/nginx';
    local $ENV{ASAN_OPTIONS} = 'detect_leaks=0' if $ENV{KEYTOLL_ASAN};
    push @{ $self->{more} }, Keytoll::Test::spawn("$self->{dir}/nginx$n.out", @as, $bin, '-e', "$run/log/nginx$n.log", '-p', $run, '-c', "$self->{dir}/nginx$n.conf");
    eventually { http_get($port, '/health/liveliness')->{status} == 200 } 15 or die "nginx $n did not start: " . slurp("$self->{dir}/nginx$n.out");
    return $port;
}

sub redis { my $self = shift; return $self->{redis} //= Keytoll::Redis->new($self->{vars}{KEYTOLL_REDIS_SOCK}) }

sub pid { my ($self, $name) = @_; return Keytoll::Test::pid_of("$self->{run}/$name.pid") }

sub finish {
    my $self = shift;
    Keytoll::Test::reap($_, 'QUIT', 20) for @{ delete $self->{more} // [] };
    my ($code, $out) = $self->stack('down');
    is($code, 0, 'the stack goes down') or diag $out;
    my @bad;
    for my $log (glob "$self->{run}/log/*") {
        push @bad, map { "$log: $_" } grep { /\[alert\]|\[emerg\]|Sanitizer|runtime error:/ && !($self->{expect} && $_ =~ $self->{expect}) } split /\n/, slurp($log);
    }
    ok(!@bad, 'no [alert] and no sanitizer report in any log') or diag join "\n", @bad[0 .. ($#bad > 9 ? 9 : $#bad)];
    $self->{stopped} = 1;
    system 'rm', '-rf', $self->{dir} unless $ENV{KEYTOLL_KEEP} || @bad;
}

END {
    my $code = $?;
    for my $s (grep { !$_->{stopped} } @RUNNING) {
        kill 'KILL', @{ $s->{more} // [] };
        $s->stack('down');
    }
    $? = $code;
}

1;
