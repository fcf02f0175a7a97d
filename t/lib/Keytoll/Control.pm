package Keytoll::Control;

# A private PostgreSQL, a private Redis and keytoll-controld in a temporary
# directory, for the tests of the control plane.  Core Perl only.
#
#   my $k = Keytoll::Control->new;          # everything runs
#   my ($status, $json, $headers) = $k->post('/key/generate', {max_budget => 1});

use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use HTTP::Tiny;
use IO::Socket::INET;
use IO::Socket::UNIX;
use JSON::PP;
use POSIX ();
use Scalar::Util qw(weaken);
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(sleep time);

my (@ALL, @REPORTS);
our $ROOT = abs_path(dirname(__FILE__) . '/../../..');
our $SLOW = $ENV{KEYTOLL_ASAN} ? 4 : 1;      # a sanitizer's factor on every wait
our $MASTER = 'sk-test-master-0123456789abcdef0123456789';

my $JSON = JSON::PP->new->utf8->canonical->allow_nonref->allow_bignum;

sub new {
    my ($class, %o) = @_;
    my $dir = tempdir('keytoll-control-XXXXXX', TMPDIR => 1, CLEANUP => 1);
    chmod 0755, $dir;
    my $self = bless { dir => $dir, pid => {}, owner => $$, %o }, $class;
    push @ALL, $self;
    weaken($ALL[-1]);
    $self->start_postgres;
    $self->start_redis unless $o{no_redis};
    $self->start_controld unless $o{no_controld};
    return $self;
}

sub bindir {
    my ($d) = reverse sort glob '/usr/lib/postgresql/*/bin';
    return $d;
}

# PostgreSQL refuses to run as root.
sub pg_user { return $> == 0 ? (getpwnam('postgres') ? 'postgres' : 'nobody') : undef }

sub _spawn {
    my ($self, $name, $user, $log, @cmd) = @_;
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', $log or die "$log: $!";
        open STDERR, '>&', \*STDOUT;
        if (defined $user) {
            my (undef, undef, $uid, $gid) = getpwnam($user);
            $) = "$gid $gid"; $( = $gid;
            POSIX::setuid($uid);
        }
        exec { $cmd[0] } @cmd or POSIX::_exit(127);
    }
    $self->{pid}{$name} = $pid;
    return $pid;
}

sub _wait_for {
    my ($self, $what, $code, $timeout) = @_;
    my $end = time + ($timeout // 20) * $SLOW;
    while (time < $end) {
        return 1 if $code->();
        sleep 0.02;
    }
    die "$what did not come up\n" . $self->slurp($self->{dir} . "/$what.log");
}

sub slurp {
    my ($self, $file) = @_;
    open my $fh, '<', $file or return '';
    local $/;
    return scalar <$fh>;
}

sub start_postgres {
    my $self = shift;
    my $data = "$self->{dir}/pg";
    my $user = $self->pg_user;
    if (!-d $data) {
        mkdir $data or die "$data: $!";
        chown((getpwnam($user))[2, 3], $data) if defined $user;
        chmod 0700, $data;
        my $pid = $self->_spawn('initdb', $user, "$self->{dir}/initdb.log",
            bindir() . '/initdb', '-D', $data, '-A', 'trust', '-U', 'keytoll', '-N',
            '--locale=C.UTF-8', '-E', 'UTF8');
        waitpid $pid, 0;
        die 'initdb: ' . $self->slurp("$self->{dir}/initdb.log") if $?;
        delete $self->{pid}{initdb};
    }
    my $log = "$self->{dir}/postgres.log";
    unlink "$data/postmaster.pid" if !$self->{pid}{postgres};
    $self->_spawn('postgres', $user, $log, bindir() . '/postgres', '-D', $data,
        '-k', $data, '-c', 'listen_addresses=', '-c', 'fsync=' . ($self->{fsync} // 'off'), '-c',
        'max_connections=100');
    $self->{pg_url} = "postgresql://keytoll\@/postgres?host=$data";
    $self->_wait_for('postgres', sub { $self->sql('SELECT 1') eq '1' });
}

sub start_redis {
    my $self = shift;
    $self->{redis_sock} = "$self->{dir}/redis.sock";
    $self->_spawn('redis', undef, "$self->{dir}/redis.log", 'redis-server', '--port',
        '0', '--unixsocket', $self->{redis_sock}, '--save', '', '--appendonly', 'no',
        '--dir', $self->{dir}, @{ $self->{redis_args} // [] });
    $self->_wait_for('redis', sub { (eval { $self->redis('PING') } // '') eq 'PONG' });
}

# Below the ports that the kernel hands to clients, which would take it away.
my $port = 14000 + ($$ * 37) % 6000;
sub free_port {
    for (1 .. 200) {
        $port = 14000 + ($port - 14000 + 7) % 6000;
        return $port if IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => $port, ReuseAddr => 1);
    }
    die 'no free port';
}

sub binary { return ($ENV{KEYTOLL_BIN} || "$ROOT/build") . '/keytoll-controld' }

sub write_config {
    my ($self, %o) = @_;
    my $n = $o{name} // 'controld';
    my $file = "$self->{dir}/$n.yaml";
    my $text = $o{text} // <<"END";
listen: 127.0.0.1:$self->{port}
database_url: "$self->{pg_url}"
redis_url: unix://$self->{dir}/redis.sock
general_settings:
  master_key: os.environ/KEYTOLL_MASTER_KEY
@{[ $self->{general} // '' ]}
@{[ $self->{config} // '' ]}
END
    open my $fh, '>', $file or die "$file: $!";
    print $fh $text;
    close $fh;
    return $file;
}

sub start_controld {
    my ($self, %o) = @_;
    my $name = $o{name} // 'controld';
    local $self->{port} = $self->{port};
    $self->{ports}{$name} //= free_port();
    $self->{port} = $self->{ports}{$name};
    my $conf = $self->write_config(name => $name);
    local $ENV{KEYTOLL_MASTER_KEY} = $MASTER;
    $self->_spawn($name, undef, "$self->{dir}/$name.log", binary(), 'serve', '-c', $conf,
        '-p', "$self->{dir}/$name.pid");
    return if $o{nowait};
    my $url = "http://127.0.0.1:$self->{port}";
    $self->_wait_for($name, sub {
        die "$name died: " . $self->slurp("$self->{dir}/$name.log")
            if waitpid($self->{pid}{$name}, POSIX::WNOHANG()) > 0;
        my $r = HTTP::Tiny->new(timeout => 5)->get("$url/health/readiness");
        $r->{status} == 200 || ($o{not_ready} && $r->{status} == 503);
    });
}

sub url { my ($self, $name) = @_; return "http://127.0.0.1:$self->{ports}{$name // 'controld'}" }

# Runs a command of the binary; (exit status, output).
sub run {
    my ($self, @args) = @_;
    my $log = "$self->{dir}/run." . int(rand 1e9);
    local $ENV{KEYTOLL_MASTER_KEY} = $self->{run_master} // $MASTER;
    delete local $ENV{LITELLM_MASTER_KEY};
    delete $ENV{KEYTOLL_MASTER_KEY} if exists $self->{run_master} && !defined $self->{run_master};
    my $pid = $self->_spawn('run', undef, $log, binary(), @args);
    waitpid $pid, 0;
    my $rc = $? >> 8;
    delete $self->{pid}{run};
    return ($rc, $self->slurp($log));
}

sub kill {
    my ($self, $name, $sig) = @_;
    my $pid = delete $self->{pid}{$name} or return;
    CORE::kill($sig // 'TERM', $pid);
    local $?;
    my $end = time + 15 * $SLOW;
    while (waitpid($pid, POSIX::WNOHANG()) == 0) {
        if (time > $end) { CORE::kill('KILL', $pid); $end = time + 5; }
        sleep 0.01;
    }
}

sub request {
    my ($self, $method, $path, $body, %o) = @_;
    my %h = %{ $o{headers} // {} };
    $h{Authorization} = 'Bearer ' . ($o{key} // $MASTER)
        unless exists $o{key} && !defined $o{key};
    my %opt = (headers => \%h);
    if (defined $body) {
        $h{'Content-Type'} = 'application/json';
        $opt{content} = ref $body ? $JSON->encode($body) : $body;
    }
    $self->{http} //= HTTP::Tiny->new(timeout => 30, keep_alive => 1);
    my $r = $self->{http}->request($method, $self->url($o{daemon}) . $path, \%opt);
    # header and body are two writes: without this the second waits for an ACK
    my $h = $self->{http}{handle};
    setsockopt($h->{fh}, IPPROTO_TCP, TCP_NODELAY, 1) if $h && $h->{fh};
    $self->{raw} = $r->{content};
    my $json = eval { $JSON->decode($r->{content}) };
    return ($r->{status}, $json, $r->{headers});
}

sub get  { my ($self, $path, %o) = @_; return $self->request('GET', $path, undef, %o) }
sub post { my ($self, $path, $body, %o) = @_; return $self->request('POST', $path, $body, %o) }
sub raw  { return $_[0]{raw} }
sub logs { my ($self, $n) = @_; return $self->slurp("$self->{dir}/" . ($n // 'controld') . '.log') }

# First column of every row, joined by newlines; parameters are not needed here.
sub sql {
    my ($self, $sql) = @_;
    my $out = "$self->{dir}/psql.out";
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        open STDOUT, '>', $out;
        open STDERR, '>', "$out.err";
        exec 'psql', '-XAtq', '-d', $self->{pg_url}, '-c', $sql or POSIX::_exit(127);
    }
    local $?;
    waitpid $pid, 0;
    my $text = $self->slurp($out);
    $text =~ s/\n\z//;
    return $text;
}

# RESP over the unix socket.  Errors die.
sub redis {
    my ($self, @args) = @_;
    my $s = IO::Socket::UNIX->new(Peer => $self->{redis_sock} // "$self->{dir}/redis.sock")
        or die "redis: $!\n";
    binmode $s;
    print $s '*' . @args . "\r\n" . join '', map { '$' . length($_) . "\r\n$_\r\n" } @args;
    return _reply($s);
}

sub _reply {
    my $s = shift;
    my $line = <$s> // die "redis: closed\n";
    $line =~ s/\r\n\z//;
    my ($type, $rest) = (substr($line, 0, 1), substr $line, 1);
    return $rest if $type eq '+' || $type eq ':';
    die "redis: $rest\n" if $type eq '-';
    return undef if $rest < 0;
    if ($type eq '$') {
        my $buf = '';
        while (length $buf < $rest + 2) {
            read($s, $buf, $rest + 2 - length $buf, length $buf) or die "redis: short\n";
        }
        return substr $buf, 0, $rest;
    }
    return [ map { _reply($s) } 1 .. $rest ];
}

sub fcall { my ($self, $fn, @a) = @_; return $self->redis('FCALL', $fn, 1, 'kt:{0000}:gen', @a) }

my @STATE = qw(v used held limit period_id period_end rpm_used rpm_limit tpm_used tpm_limit
               par_used par_limit blocked unit);

# kt_state of one entity as a hash, undef when it is unknown.
sub state {
    my ($self, $name) = @_;
    my $r = $self->redis('FCALL_RO', 'kt_state', 1, 'kt:{0000}:gen', $name)->[0];
    return undef if ref $r ne 'ARRAY';
    my %h;
    @h{@STATE} = @$r;
    return \%h;
}

# A rid for a given time, as the gate makes them.
sub rid {
    my ($self, $ms) = @_;
    $ms //= int(time * 1000);
    return sprintf('%012x', $ms) . join '', map { sprintf '%02x', int rand 256 } 1 .. 10;
}

# Waits until the code is true; its last value.
sub until {
    my ($self, $code, $timeout) = @_;
    my $end = time + ($timeout // 10) * $SLOW;
    my $v;
    while (1) {
        $v = eval { $code->() };
        return $v if $v || time > $end;
        sleep 0.05;
    }
}

sub DESTROY {
    my $self = shift;
    return if $$ != $self->{owner} || $self->{ended}++;
    local ($?, $@, $!);
    $self->kill($_) for grep { !/^(postgres|redis)$/ } keys %{ $self->{pid} };
    $self->kill('redis', 'KILL');
    $self->kill('postgres', 'INT');
    for my $log (glob "$self->{dir}/*.log $self->{dir}/run.*") {
        push @REPORTS, map { "$log: $_" } grep { m{Sanitizer|runtime error:|^\s+#\d+ .*/(?:controld|shared|ngx_module)/} } split /\n/, $self->slurp($log);
    }
}

# A sanitizer's report fails the file, whatever its tests said.
END {
    my $code = $?;
    $_->DESTROY for grep { defined } @ALL;
    print STDERR map { "# $_\n" } @REPORTS;
    $? = $code || (@REPORTS ? 1 : 0);
}

1;
