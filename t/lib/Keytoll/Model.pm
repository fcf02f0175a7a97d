package Keytoll::Model;

# DESIGN 3 to 5 in plain Perl: what the function library must do, written for
# reading and not for speed.  Windows are one count per second and no ring,
# periods are asked from gmtime, amounts are one 64-bit integer.

use strict;
use warnings;
use integer;
no warnings "portable";
use Storable ();
use Time::Local qw(timegm_nocheck);

use constant { RPM => 1, TPM => 2, PAR => 4, UCR => 8, MONEY => 16, NOHOLD => 32, LATER => 64, STRICT => 128, IN => 256, OUT => 512, LAST => 1024 };
use constant { WINDOW => 61, OLD_MS => 110 * 60000 };

my @NAMES = qw(admitted not_ready stale key_unknown key_blocked key_model key_expired budget held ent_blocked ent_model route rpm tpm
    parallel model_unknown credits unpriced missing alias params cheaper);
my %CODE = map { $NAMES[$_] => $_ } 0 .. $#NAMES;
my %RATES = (key => 1, user => 2, team => 3, member => 4, orgmember => 5, customer => 6, model => 7, org => 8, tag => 10, global => 11);   # who is named first

sub new {
    my ($class, %o) = @_;
    return bless { gen => 1, now => 0, ent => {}, hold => {}, lease => {}, tomb => {}, done => {}, stream => [], %o }, $class;
}

sub clone { return Storable::dclone($_[0]) }
sub code { return $CODE{ $_[0] } }
sub name { return $NAMES[ $_[0] ] }
sub sec { return $_[0]{now} / 1000 }

# ------------------------------------------------------------------ periods

sub month_of {
    my $s = shift;
    my (undef, undef, undef, undef, $m, $y) = gmtime $s;
    my ($ny, $nm) = $m == 11 ? ($y + 1, 0) : ($y, $m + 1);
    return (timegm_nocheck(0, 0, 0, 1, $m, $y + 1900), timegm_nocheck(0, 0, 0, 1, $nm, $ny + 1900));
}

# The period that holds second s: the start and end that follow from any end.
sub period_of {
    my ($p, $end, $s) = @_;
    return month_of($s) if $p->{period}{kind} eq 'month';
    my $len = $p->{period}{len_s};
    if ($s >= $end) {
        my $start = $end;
        $start += ($s - $start) / $len * $len;
        return ($start, $start + $len);
    }
    return ($end - $len, $end);
}

sub roll {
    my ($self, $e) = @_;
    return if !$e->{end} || $self->sec < $e->{end};
    @$e{qw(pid end)} = period_of($e->{p}, $e->{end}, $self->sec);
    @$e{qw(used held last)} = (0, 0, 0);
}

# ------------------------------------------------------------------ windows

sub in_window {
    my ($self, $w) = @_;
    my ($sum, $from) = (0, $self->sec - WINDOW + 1);
    for my $s (keys %$w) {
        if ($s < $from) { delete $w->{$s} }
        else { $sum += $w->{$s} }
    }
    return $sum;
}

# ms until need fits: the first second from now on in which it would.
sub wait_ms {
    my ($self, $w, $limit, $need) = @_;
    return -1 if $need > $limit;
    for my $s ($self->sec + 1 .. $self->sec + WINDOW) {
        my $sum = 0;
        $_ >= $s - WINDOW + 1 and $sum += $w->{$_} for keys %$w;
        return $s * 1000 - $self->{now} if $sum + $need <= $limit;
    }
    die 'never';
}

# ------------------------------------------------------------------- policy

sub policy_set {
    my ($self, $name, $p) = @_;
    my $e = $self->{ent}{$name};
    return 'stale' if $e && $e->{p}{v} > $p->{v};
    my $per = $p->{period} && $p->{period}{kind} ne 'none' ? $p->{period} : undef;
    if ((!$e || $e->{gone}) && $self->{strange}{$name}) {
        my $s = $self->known($name);
        $s = $self->{strange}{$name} if !$s || $s->{gone};
        delete $self->{strange}{$name};
        delete $s->{strange};
        $s->{p} = $p if !$self->live(like_of($name));
        $self->roll($s);
        $s->{used} = $p->{used} if ($per ? $per->{id} : 0) == $s->{pid} && ($p->{used} // 0) > $s->{used};
        $e = $self->{ent}{$name} = $s;
    }
    if (!$e || $e->{gone}) {
        $e = $self->{ent}{$name} = { name => $name, used => $p->{used} // 0, held => 0, last => 0, pid => $per ? $per->{id} : 0,
            end => $per ? $per->{end_s} : 0, par => 0, rpm => {}, tpm => {} };
        $e->{p} = $p;
    } else {
        $self->roll($e);
        $e->{p} = $p;
        $e->{end} = !$per ? 0 : $per->{end_s} > $self->sec ? $per->{end_s} : (period_of($p, $per->{end_s}, $self->sec))[1];
    }
    $e->{rpm} = {} unless defined $p->{rpm};
    $e->{tpm} = {} unless defined $p->{tpm};
    return 'ok';
}

sub policy_del {
    my ($self, $name, $v) = @_;
    my $e = $self->{ent}{$name};
    return 'stale' if $e && $e->{p}{v} > $v;
    $self->{ent}{$name} = { name => $name, gone => 1, p => { v => $v } };
    delete $self->{strange}{$name};
    return 'ok';
}

sub live {
    my ($self, $name) = @_;
    my $e = $self->known($name);
    return $e && !$e->{gone} ? $e : undef;
}

# What a stranger counted is kept, whoever looks at him only leaves no trace.
sub keep {
    my ($self, $e) = @_;
    $self->{strange}{ $e->{name} } = $e if $e->{strange};
}

# Of whom an end user without a policy is one, or of whose meter his.
sub like_of { return $_[0] =~ s/^customer:[^~]*/default:customer/r }

# An end user without a policy has the default one, in its running period.
sub known {
    my ($self, $name) = @_;
    my $e = $self->{ent}{$name};
    return $e if $e && !$e->{gone} || $name !~ /^customer:/;
    my $d = $self->{ent}{ like_of($name) };
    return $d && $name =~ /~/ ? { name => $name, gone => 1, p => $d->{p} } : $e if !$d || $d->{gone};      # only the meter may be gone
    $self->roll($d);
    if (my $s = $self->{strange}{$name} && { %{ $self->{strange}{$name} } }) {
        $s->{p} = $d->{p};
        $s->{end} = $d->{end} if !$s->{end} != !$d->{end};
        return $s;
    }
    return { name => $name, p => $d->{p}, used => 0, held => 0, last => 0, pid => $d->{pid}, end => $d->{end}, par => 0, rpm => {}, tpm => {}, strange => 1 };
}

sub adjust {
    my ($self, $rid, $name, $delta, $event) = @_;
    return 'dup' if $self->{done}{$rid};
    my $e = $self->live($name) or return 'none';
    $self->roll($e);
    return 'below' if $e->{used} + $delta < 0;
    $e->{used} += $delta;
    $self->keep($e);
    $self->{done}{$rid} = 1;
    push @{ $self->{stream} }, [$event, "2\t" . $self->sec * 1000 . "\t\n$name\t$e->{pid}\t48\n", "adj $name $delta"];
    return 'ok';
}

# -------------------------------------------------------------------- admit

sub refuse {
    my ($why, $e, %more) = @_;
    return { code => $CODE{$why}, ent => $e ? $e->{name} : '', %more };
}

# The entities of a request, in order; or a refusal.
sub entities {
    my ($self, $key, %a) = @_;
    my (@list, @deep) = { e => $key, p => $key->{p}, money => 1 };
    my $extra = sub {
        my $p = shift;
        return (@{ $p->{win} // [] }, map { $_->{e} } grep { $_->{m} eq $a{model} } @{ $p->{sub} // [] });
    };
    my @want = map { { n => $_, must => 1, money => 1 } } $extra->($key->{p});
    my @refs = map { ref $_ ? { n => $_->{e}, must => 1, money => $_->{money} } : { n => $_, must => 1, money => 1 } } @{ $key->{p}{refs} // [] };
    my %seen;
    my @tags = map { { n => $_, must => 0, money => 1 } } grep { length && !$seen{$_}++ } split /\t/, $a{tags} // '';
    my @customer = map { { n => $_, must => 0, money => 1 } } grep { length } $a{customer} // '';
    my $person = sub { $_[0]{n} =~ /^(?:member|user):/ };
    my $proxy = sub { $_[0]{n} eq 'global' };
    while (@refs && !$person->($refs[0]) && !$proxy->($refs[0])) { push @want, shift @refs }
    push @want, @tags;
    while (@refs && !$proxy->($refs[0])) { push @want, shift @refs }
    push @want, @customer, @refs;
    for my $w (@want) {
        my $e = $self->known($w->{n});
        if (!$e) {
            return refuse('missing', { name => $w->{n} }) if $w->{must} && !$a{any};
        } elsif ($e->{gone}) {
            return refuse('ent_blocked', $e) if $w->{must} && !$a{any};
        } else {
            my $p = $e->{p};
            $p = { map { exists $p->{$_} ? ($_ => $p->{$_}) : () } qw(v t name blocked rpm tpm par tpm_type strict period) } unless $w->{money};
            push @list, { e => $e, p => $p, money => $w->{money} };
        }
    }
    for my $l (@list[1 .. $#list]) {
        for my $n (map { s/^default:customer/$l->{e}{name}/r } $extra->($l->{p})) {
            my $e = $self->known($n);
            return refuse('missing', { name => $n }) unless $e || $a{any};
            push @deep, { e => $e, p => $e->{p}, money => $l->{money} } if $e && !$e->{gone};
        }
    }
    return [@list, @deep];
}

sub model_ok {
    my ($p, $model, $provider) = @_;
    my @m = @{ $p->{models} // [] } or return 1;
    for my $m (@m) {
        my $re = join '.*', map { quotemeta } split /\*/, $m, -1;
        return 1 if $model =~ /^$re$/s || $m =~ /\*/ && $provider ne '' && "$provider/$model" =~ /^$re$/s;
    }
    return 0;
}

sub route_ok {
    my ($p, $class, $path) = @_;
    my @r = @{ $p->{routes} // [] } or return 1;
    for (@r) {
        return 1 if $_ eq $path || $_ eq 'llm_api_routes' || ($_ eq 'openai_routes' && $class !~ /^(?:messages|gemini)$/) || ($_ eq 'anthropic_routes' && $class eq 'messages');
        return 1 if index($path, "$_/") == 0;
        return 1 if /^(.*)\*$/ && index($path, $1) == 0;
    }
    return 0;
}

# (refusal or undef, hold, bit)
sub money {
    my ($e, $bound) = @_;
    my ($p, $limit) = ($e->{p}, $e->{p}{limit});
    my $spent = ($p->{unit} // '') eq 'ucr' ? 'credits' : 'budget';
    return ($spent) if $limit == 0;
    my $left = $limit - $e->{used};
    my $free = $left - $e->{held};
    return ($spent) if $p->{gt} ? $left < 0 : $left <= 0;
    if ($p->{strict}) {
        return (undef, $bound) if $bound <= $free && !$e->{last};
        return ($bound <= $left ? 'held' : $spent);
    }
    return ('held') if $p->{gt} ? $free < 0 : $free <= 0;
    return (undef, $bound) if $bound <= $free;
    return $e->{last} ? 'held' : (undef, 0, LAST);
}

# A spent budget lowers the rates of this one instead of refusing.
sub slows {
    my $p = shift;
    return $p->{throttle} && !$p->{strict} && $p->{limit} ne '0' && (defined $p->{rpm} || defined $p->{tpm});
}

sub lowered {
    my ($n, $pct) = @_;
    return $n if !$n;
    my $low = $n * $pct / 100;
    return $low > 1 ? $low : 1;
}

sub tokens {
    my ($p, $a) = @_;
    my ($i, $o) = $p->{strict} ? @$a{qw(in_bound out_bound)} : @$a{qw(in_typ out_typ)};
    my $t = $p->{tpm_type} // 'total';
    return $t eq 'input' ? $i : $t eq 'output' ? $o : $i + $o;
}

# (refusal, of whom a spent budget is told first)
sub access {
    my ($self, $key, $list, $a) = @_;
    for my $l (@$list) {
        my ($e, $p) = @$l{qw(e p)};
        my $own = $key->{name};
        my $no = $p->{blocked} || ($p->{status} // 'active') ne 'active' ? 'blocked' : $a->{model} ne '' && !model_ok($p, $a->{model}, $a->{provider} // '') ? 'model' : '';
        $no = $no ? ($e == $key ? 'key' : 'ent') . "_$no" : defined $p->{expires_ms} && $p->{expires_ms} <= $self->{now} ? 'key_expired' : next;
        return (refuse($no, $e), $e == $key ? () : sub { $_[0] == $key || index($_[0]{name}, "$own~") == 0 });
    }
    return (refuse('route', $key), sub { 1 }) unless route_ok($key->{p}, $a->{class}, $a->{path});
    return;
}

sub admit {
    my ($self, %a) = @_;
    return refuse('not_ready') if !defined $self->{gen} || $self->{gen} < $a{gen};
    return { code => $CODE{stale} } if $self->{gen} != $a{gen};
    my $key = $self->live("key:$a{token}") or return refuse('key_unknown');
    return { code => 0, receipt => $self->{hold}{ $a{rid} }{receipt} } if $self->{hold}{ $a{rid} };
    return refuse('missing') if exists $self->{tomb}{ $a{rid} };
    my $alias = ($key->{p}{aliases} // {})->{ $a{model} };
    return { code => $CODE{alias}, target => $alias } if defined $alias && !($a{flags} & 16);

    my $list = $self->entities($key, %a);
    return $list unless ref $list eq 'ARRAY';

    my ($may, $before) = $self->access($key, $list, \%a);
    return $may if $may && !$before;

    my $falls = !($a{flags} & 64) && ($key->{p}{falls} // {})->{ $a{model} };
    my $exempt = sub { $key->{p}{master} && $_[0]{name} !~ /^customer:/ };
    my (@hold, @bit, %slow);
    for my $i (0 .. $#$list) {
        my ($e, $p) = @{ $list->[$i] }{qw(e p)};
        next if $before && !$before->($e);
        $self->roll($e);
        next if !$list->[$i]{money} || !defined $p->{limit} || $a{flags} & 1 || $exempt->($e);
        next if $may && $a{flags} & 4;
        return refuse('unpriced', $e) if $a{flags} & 4;
        my $need = ($p->{unit} // '') eq 'ucr' ? $a{ucr} : $a{bound};
        (my $no, $hold[$i], $bit[$i]) = money($e, $need);
        if (($no // '') eq 'budget' && slows($p)) {
            $slow{ $e->{name} } = 1;
            next;
        }
        next if $may && ($p->{limit} == 0 ? 0 : $p->{gt} ? $e->{used} <= $p->{limit} : $e->{used} < $p->{limit});
        return refuse($falls && $no ne 'credits' ? 'cheaper' : $no, $e, $falls && $no ne 'credits' ? (cheaper => join("\t", @$falls), else => $CODE{$no}) : (), limit => $p->{limit}, used => $e->{used}, held => $e->{held}, end => $e->{end},
            need => $p->{strict} ? $need : '', retry => $no eq 'held' ? 1000 : 0) if $no;
    }

    return $may if $may;

    my %had;
    my @must = grep { !$had{$_}++ } map { my ($l, $i) = ($list->[$_]{p}, $_);
        ($key->{p}{master} && $i ? () : @{ $l->{params} // [] }, $key->{p}{service} ? @{ $l->{sparams} // [] } : ()) } 0 .. $#$list;
    return { code => $CODE{params}, target => join "\t", @must } if @must && join("\t", @must) ne ($a{seen} // '');

    my %at = map { $list->[$_]{e}{name} => $_ } 0 .. $#$list;
    my $order = sub { my ($n, $t) = ($_[0]{e}{name}, $_[0]{p}{t}); return $t eq 'model' && $n =~ /^org:/ ? 9 : $RATES{$t} // 12 };
    my @no;
    for my $l (sort { $order->($a) <=> $order->($b) || $at{ $a->{e}{name} } <=> $at{ $b->{e}{name} } } @$list) {
        my ($e, $p) = @$l{qw(e p)};
        next if $exempt->($e);
        my ($rpm, $tpm) = map { $slow{ $e->{name} } ? lowered($_, $p->{throttle}) : $_ } @$p{qw(rpm tpm)};
        my $sooner = sub {
            my $left = $e->{end} * 1000 - $self->{now};
            return !$slow{ $e->{name} } || !$e->{end} || ($_[0] >= 0 && $_[0] <= $left) ? $_[0] : $left > 0 ? $left : 1;
        };
        if (defined $rpm) {
            my $n = $self->in_window($e->{rpm});
            push @no, refuse('rpm', $e, limit => $rpm, used => $n, need => 1, retry => $sooner->($self->wait_ms($e->{rpm}, $rpm, 1)))
                if $n + 1 > $rpm;
        }
        if (defined $tpm) {
            my ($n, $need) = ($self->in_window($e->{tpm}), tokens($p, \%a));
            push @no, refuse('tpm', $e, limit => $tpm, used => $n, need => $need, retry => $sooner->($self->wait_ms($e->{tpm}, $tpm, $need)))
                if $n + $need > $tpm;
        }
        push @no, refuse('parallel', $e, limit => $p->{par}, used => $e->{par}, need => 1, retry => 1000)
            if defined $p->{par} && $e->{par} + 1 > $p->{par};
    }
    if (@no) {              # the first is named, with the wait for all
        my ($least, $most) = (sort { $a <=> $b } map { $_->{retry} } @no)[0, -1];
        return { %{ $no[0] }, retry => $least < 0 ? -1 : $most };
    }
    return refuse('model_unknown', $key) if $a{flags} & 2;
    my $receipt = "2\t$self->{now}\t$a{model}\n";
    my @lines;
    for my $i (0 .. $#$list) {
        my ($e, $p) = @{ $list->[$i] }{qw(e p)};
        my ($bits, $tok) = (0, 0);
        unless ($exempt->($e)) {
            if (defined $p->{rpm}) { $bits |= RPM; $e->{rpm}{ $self->sec }++ }
            if (defined $p->{tpm}) { $bits |= TPM | { input => IN, output => OUT, total => 0 }->{ $p->{tpm_type} // 'total' }; $e->{tpm}{ $self->sec } += $tok = tokens($p, \%a) }
            if (defined $p->{par}) { $bits |= PAR; $e->{par}++ }
        }
        $bits |= MONEY | (($p->{unit} // '') eq 'ucr' ? UCR : 0) if $list->[$i]{money};
        $bits |= defined $hold[$i] ? $bit[$i] // 0 : NOHOLD;
        $bits |= STRICT if $p->{strict};
        $e->{held} += $hold[$i] // 0;
        $e->{last}++ if $bits & LAST;
        $self->keep($e) if defined $hold[$i] || $bits & (RPM | TPM | PAR);
        push @lines, { name => $e->{name}, pid => $e->{pid}, held => $hold[$i] // 0, tok => $tok, bits => $bits };
        $receipt .= join("\t", @{ $lines[-1] }{qw(name pid bits)}) . "\n";
    }
    $self->{hold}{ $a{rid} } = { receipt => $receipt, lines => \@lines, est => $a{est}, event => $a{event} };
    $self->{lease}{ $a{rid} } = $self->{now} + $a{lease};
    return { code => 0, receipt => $receipt };
}

# ------------------------------------------------------------------- settle

sub lines_of {
    my $receipt = shift;
    return (0, '') if $receipt eq '';
    my ($head, @l) = split /\n/, $receipt;
    my (undef, $ms, $model) = split /\t/, $head;
    return ($ms, $model, map { my %l; @l{qw(name pid bits)} = split /\t/; \%l } @l);
}

# A receipt written without Redis names the key only: all that is left of what it belongs to.
sub resolve {
    my ($self, $model, $name, @more) = @_;
    my $key = $self->live($name) or return;
    my ($customer) = grep { /^customer:/ } @more;
    my $list = $self->entities($key, model => $model, any => 1, customer => $customer // '', tags => join "\t", grep { !/^customer:/ } @more);
    my @out;
    for (@$list) {
        $self->roll($_->{e});
        push @out, { name => $_->{e}{name}, pid => $_->{e}{pid}, bits => NOHOLD | ($_->{money} ? MONEY | (($_->{p}{unit} // '') eq 'ucr' ? UCR : 0) : 0) };
    }
    return @out;
}

# What bits say of the amounts: (money, tokens).
sub reserved {
    my ($bits, $a) = @_;
    my $strict = $bits & STRICT;
    my ($i, $o) = $strict ? @$a{qw(in_bound out_bound)} : @$a{qw(in_typ out_typ)};
    my $money = $bits & LAST ? 0 : $bits & UCR ? $a->{ucr} : $a->{bound};
    return ($bits & NOHOLD ? 0 : $money, !($bits & TPM) ? 0 : $bits & IN ? $i : $bits & OUT ? $o : $i + $o);
}

sub charge {
    my ($self, $it, $code, %o) = @_;
    my ($ms, $model, @lines) = lines_of($it->{receipt});
    my $receipt = $it->{receipt};
    @lines = @{ $it->{lines} } if $it->{lines};
    if (@lines && $lines[0]{bits} & LATER) {
        @lines = $self->resolve($model, map { $_->{name} } @lines);
        $receipt = join "\n", (split /\n/, $receipt)[0], (map { join "\t", @$_{qw(name pid bits)} } @lines), '' if @lines;
    }
    $self->{old}{ $it->{rid} } = 1 if $o{old};
    for my $l ($o{old} ? () : @lines) {
        my $e = $self->live($l->{name});
        my $lost = !$e && $l->{name} =~ /^customer:/ && $self->{strange}{ $l->{name} };      # its default is gone
        $e ||= $lost || next;
        local $e->{p} = {} if $lost;
        $self->roll($e) if !$lost;
        my $same = $e->{pid} == $l->{pid};
        if ($o{held}) {
            my $at = $ms / 1000;
            my $young = $self->sec - $at < WINDOW;
            if ($same && !($l->{bits} & NOHOLD)) {
                $e->{held} -= $l->{held};
                $e->{held} = 0 if $e->{held} < 0;
                $e->{last}-- if $l->{bits} & LAST && $e->{last};
            }
            $e->{par}-- if $l->{bits} & PAR && $e->{par} > 0;
            if ($l->{bits} & TPM && defined $e->{p}{tpm} && $young) {
                my $t = $e->{p}{tpm_type} // 'total';
                my $n = ($e->{tpm}{$at} // 0) - $l->{tok} + ($t eq 'output' ? 0 : $it->{in}) + ($t eq 'input' ? 0 : $it->{out});
                $e->{tpm}{$at} = $n < 0 ? 0 : $n;
            }
            $e->{rpm}{$at}-- if $it->{event} eq '' && $l->{bits} & RPM && defined $e->{p}{rpm} && $young && ($e->{rpm}{$at} // 0) > 0;
        }
        $self->keep($e);
        next unless $same && $l->{bits} & MONEY;
        $e->{used} += $l->{bits} & UCR ? $it->{ucr} : $it->{cost} - ($o{back} // 0);
    }
    my $event = $it->{event};
    if ($event eq '' && defined $o{back}) {
        $event = $self->{tomb}{ $it->{rid} }{event} =~ s/"cost":"\d+"/"cost":"0"/r;
    }
    push @{ $self->{stream} }, [$event, $receipt, $code] if $event ne '';
}

sub settle {
    my ($self, @items) = @_;
    return (-1) unless defined $self->{gen};
    my @codes;
    for my $it (@items) {
        my $rid = $it->{rid};
        if ($self->{done}{$rid}) {
            push @codes, 1;
            next;
        }
        if (!$self->{hold}{$rid} && $it->{receipt} eq '' && $it->{event} ne '') {
            push @codes, 3;
            next;
        }
        $self->{done}{$rid} = 1;
        delete $self->{lease}{$rid};
        if (my $h = delete $self->{hold}{$rid}) {
            $self->charge({ %$it, receipt => $h->{receipt}, lines => $h->{lines} }, 'ok', held => 1);
            push @codes, 0;
        } elsif (my $t = $self->{tomb}{$rid}) {
            $self->charge($it, "fix $t->{cost}", back => $t->{cost});
            push @codes, 0;
        } else {
            $self->charge($it, 'late', old => hex(substr $rid, 0, 12) < $self->{now} - OLD_MS);
            push @codes, 2;
        }
        delete $self->{tomb}{$rid};
        $self->{tomb}{$rid} = { cost => 0, event => '' } if $codes[-1] == 2 && $it->{event} eq '';
    }
    return @codes;
}

# Whether the tokens that these reserved still stand in their seconds, so that
# the sum of all corrections is that of each.
sub corrects_alike {
    my ($self, @rids) = @_;
    my %tok;
    for my $h (map { $self->{hold}{$_} // () } @rids) {
        my ($ms) = lines_of($h->{receipt});
        $tok{ $_->{name} }{ $ms / 1000 } += $_->{tok} for grep { $_->{bits} & TPM } @{ $h->{lines} };
    }
    for my $name (keys %tok) {
        my $e = $self->live($name) or next;
        $tok{$name}{$_} > ($e->{tpm}{$_} // 0) and return 0 for keys %{ $tok{$name} };
    }
    return 1;
}

sub sweep {
    my ($self, $max) = @_;
    my @due = (sort { $self->{lease}{$a} <=> $self->{lease}{$b} || $a cmp $b } grep { $self->{lease}{$_} <= $self->{now} } keys %{ $self->{lease} });
    return (0, 0) unless @due;
    splice @due, $max if @due > $max;
    for my $rid (@due) {
        delete $self->{lease}{$rid};
        my $h = delete $self->{hold}{$rid};
        $self->charge({ rid => $rid, receipt => $h->{receipt}, lines => $h->{lines}, event => $h->{event}, cost => $h->{est}, ucr => 0, in => 0, out => 0 },
            "lost $h->{est}", held => 1);
        $self->{tomb}{$rid} = { cost => $h->{est}, event => $h->{event} };
    }
    return (scalar @due, scalar keys %{ $self->{lease} });
}

sub renew {
    my ($self, $ms, @pairs) = @_;
    my $n = 0;
    while (my ($rid, $text) = splice @pairs, 0, 2) {
        if (!$self->{hold}{$rid}) {
            next if $text eq '' || $self->{tomb}{$rid} || $self->{done}{$rid};
            my ($a, $receipt, $event) = Keytoll::Store::hold_parts($text);
            my (undef, undef, @lines) = lines_of($receipt);
            @$_{qw(held tok)} = reserved($_->{bits}, $a) for @lines;
            for my $l (@lines) {
                my $e = $self->live($l->{name}) or next;
                $self->roll($e);
                $e->{held} += $l->{held} if $e->{pid} == $l->{pid} && !($l->{bits} & NOHOLD);
                $e->{last}++ if $e->{pid} == $l->{pid} && $l->{bits} & LAST;
                $e->{par}++ if $l->{bits} & PAR;
                $self->keep($e);
            }
            $self->{hold}{$rid} = { receipt => $receipt, lines => \@lines, est => $a->{est}, event => $event };
        }
        $self->{lease}{$rid} = $self->{now} + $ms;
        $n++;
    }
    return $n;
}

# What kt_state answers, in its order.
sub state {
    my ($self, $name) = @_;
    my $e = $self->live($name) or return undef;
    $self->roll($e);
    my $p = $e->{p};
    return join ' ', $p->{v}, $e->{used}, $e->{held}, $p->{limit} // '-', $e->{pid}, $e->{end}, defined $p->{rpm} ? $self->in_window($e->{rpm}) : 0, $p->{rpm} // '-',
        defined $p->{tpm} ? $self->in_window($e->{tpm}) : 0, $p->{tpm} // '-', $e->{par}, $p->{par} // '-', $p->{blocked} ? 1 : 0, $p->{unit} // 'nusd';
}

1;
