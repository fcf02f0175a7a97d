# SIGHUP: a good configuration is used at once, a broken one changes nothing.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Test::More;

my $model = "model_list:\n  - model_name: %s\n    litellm_params: {model: openai/x, input_cost_per_token: 0.000001, output_cost_per_token: 0.000002}\n";
my $k = Keytoll::Control->new(general => '', config => sprintf($model, 'one') . "litellm_settings:\n  max_budget: 10\n"
    . "  default_team_params: {max_budget: 5}\n");
my ($s, $j);
my $conf = "$k->{dir}/controld.yaml";
my $text = $k->slurp($conf);

sub models { my (undef, $o) = $k->get('/models'); return join ' ', grep { /^(one|two|three)$/ } map { $_->{id} } @{ $o->{data} } }
sub hup {
    my ($new) = @_;
    my $n = () = $k->logs =~ /"(?:the configuration was read again|the configuration is broken[^"]*|the configuration was read, but[^"]*)"/g;
    open my $fh, '>', $conf or die;
    print $fh $new;
    close $fh;
    kill 'HUP', $k->{pid}{controld};
    return $k->until(sub { my $m = () = $k->logs =~ /"(?:the configuration was read again|the configuration is broken[^"]*|the configuration was read, but[^"]*)"/g; $m > $n });
}

is models(), 'one', 'a model of the file';
is $k->state('global')->{limit}, 10_000_000_000, 'a budget of the file';

(my $two = $text) =~ s/model_name: one/model_name: two/;
$two =~ s/max_budget: 10$/max_budget: 20/m;
ok hup($two), 'SIGHUP';
is models(), 'two', 'the models are those of the new file';
ok $k->until(sub { $k->state('global')->{limit} == 20_000_000_000 }), 'and the budget';
my $registry = $k->redis('GET', 'kt:{0000}:reg') // '';
($s, $j) = $k->get('/models/two');
is $s, 200, 'at once';

for my $bad ("$two\nnope: 1\n", "$two\n  - [\n", $two =~ s/0\.000001/cheap/r, $two =~ s/master_key: .*/master_key: sk-1234/r) {
    my $before = $k->state('global')->{limit};
    ok hup($bad), 'a broken file';
    is models(), 'two', 'changes no model';
    is $k->state('global')->{limit}, $before, 'and no budget';
}
like $k->logs, qr/:\d+:1: unknown name "nope"/, 'its fault is in the log';
like $k->logs, qr/the configuration is broken, the old one stays/, 'with what follows';

ok hup($two =~ s/^listen:.*/listen: 127.0.0.1:1/mr), 'what needs a restart';
like $k->logs, qr/needs a restart","name":"listen"/, 'is named';
is models(), 'two', 'the daemon still answers';

my $other = 'sk-other-master-' . 'x' x 32;
ok hup($two =~ s/master_key: .*/master_key: $other/r), 'another master key without a salt key';
is +($k->get('/models', key => $other))[0], 401, 'is not taken: it seals provider keys';
is +($k->get('/models'))[0], 200, 'the old one works';

# the setting of a file, from one request to the next

my ($seen, @odd) = (0);
my $pid = fork // die;
if (!$pid) { for my $n (1 .. 20) { hup($n % 2 ? $two : $text); select undef, undef, undef, 0.05 } POSIX::_exit(0) }
while (waitpid($pid, POSIX::WNOHANG()) == 0) {
    my ($st, $o) = $k->get('/models');
    push @odd, $st if $st != 200;
    $seen++;
}
is "@odd", '', 'requests during reloads are all answered';
cmp_ok $seen, '>', 20, 'there were some';

# a salt key lets the master key change

$k->kill('controld');
{
    local $ENV{KEYTOLL_SALT_KEY} = 'salt-' . 'y' x 32;
    open my $fh, '>', $conf or die; print $fh $text; close $fh;
    $k->start_controld;
    ok hup($k->slurp($conf) =~ s/master_key: .*/master_key: $other/r), 'another master key with a salt key';
    is +($k->get('/models', key => $other))[0], 200, 'is taken';
    is +($k->get('/models'))[0], 401, 'the old one is none any more';
}

done_testing;
