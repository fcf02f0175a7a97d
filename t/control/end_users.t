# The default budget of end users by model: meters of everybody who follows it, made, changed
# and taken away with the budget, with the row of the end user and with the configuration.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Keytoll::Control;
use Test::More;

my $k = Keytoll::Control->new(config => "litellm_settings:\n  max_end_user_budget_id: everybody\n");
my ($T, $j, $h) = (JSON::PP::true);

sub policy {
    my $name = shift;
    my $text = $k->sql("SELECT policy FROM kt_policy WHERE name = '$name'");
    return $text eq '' ? undef : JSON::PP->new->utf8->decode($text);
}
sub limit { my $e = $k->state($_[0]); return $e ? $e->{limit} : 'none' }
sub names { my $p = policy($_[0]) or return 'none'; return join ' ', map { "$_->{m}=$_->{e}" } @{ $p->{sub} // [] } }
sub meters { return $k->sql("SELECT string_agg(ent || '=' || coalesce(limit_nusd::text, '-'), ' ' ORDER BY ent) FROM submeters WHERE owner = '$_[0]'") }
sub ok_post { my ($path, $body, $what) = @_; my ($c, $o, $hd) = $k->post($path, $body); is $c, 200, $what // "POST $path" or diag $k->raw; return wantarray ? ($o, $hd) : $o }
sub told { ok $k->until(sub { $k->sql('SELECT count(*) FROM outbox') eq '0' }, 15), 'Redis was told' }

# made with the budget

ok_post('/customer/new', { user_id => 'c1' });
ok_post('/customer/new', { user_id => 'c2', max_budget => 1 });
is meters('customer:c1'), '', 'no budget yet, no meters';
($j, $h) = ok_post('/budget/new', { budget_id => 'everybody', model_max_budget => { m1 => { budget_limit => 0.5, time_period => '1d' }, 'a/b' => 0.25 } });
is $h->{'x-keytoll-propagated'}, undef, 'a change is pushed before the answer';
is names('default:customer'), 'a/b=default:customer~m~a%2Fb m1=default:customer~m~m1', 'the default has meters';
is names('customer:c1'), 'a/b=customer:c1~m~a%2Fb m1=customer:c1~m~m1', 'who follows it has his own';
is names('customer:c2'), '', 'who has a budget of his own has none';
is limit("${_}~m~m1") . ' ' . limit("${_}~m~a%2Fb"), '500000000 250000000', "$_ in Redis" for 'default:customer', 'customer:c1', 'customer:never seen';
my $day = int(time / 86400) * 86400;
is_deeply [@{ $k->state("${_}~m~m1") }{qw(period_id period_end)}], [$day, $day + 86400], "$_ renews with the default" for 'default:customer', 'customer:c1', 'customer:new';

# changed with it

ok_post('/budget/update', { budget_id => 'everybody', budget_enforcement => 'strict' });
is policy("${_}~m~m1")->{strict}, $T, "$_ is strict with the budget" for 'default:customer', 'customer:c1';
($j, $h) = ok_post('/budget/update', { budget_id => 'everybody', model_max_budget => { m1 => { budget_limit => 0.7, time_period => '30d', rpm_limit => 4 } } });
is $h->{'x-keytoll-propagated'}, undef, 'pushed before the answer';
for ('default:customer', 'customer:c1') {
    is names($_), "m1=${_}~m~m1", "$_ has the one that is left";
    is_deeply [@{ $k->state("${_}~m~m1") }{qw(limit rpm_limit period_id)}], [700000000, 4, $day], "$_: the new limit, in the period that is running";
    is $k->state("${_}~m~a%2Fb"), undef, "$_: the other is gone";
}
ok_post('/customer/new', { user_id => 'c3' });
is_deeply policy('customer:c3~m~m1')->{period}, policy('default:customer~m~m1')->{period}, 'who is made later is in its period';
ok_post('/customer/block', { user_ids => ['c4'] });
is names('customer:c4'), 'm1=customer:c4~m~m1', 'whichever way';

# one who was only heard of

$k->sql("INSERT INTO meters (ent, period_id, used_nusd) VALUES ('customer:c5', 0, 9), ('customer:c5~m~m1', $day, 7)");
told();
is $k->state('customer:c5~m~m1')->{used}, 7, 'has a meter when he is booked, with what he used';

# with a budget of his own, and without it again

ok_post('/budget/new', { budget_id => 'plan', model_max_budget => { m9 => 1 } });
ok_post('/customer/update', { user_id => 'c5', budget_id => 'plan' });
is names('customer:c5') . ' ' . meters('customer:c5'), 'm9=customer:c5~m~m9 customer:c5~m~m9=1000000000', 'his budget is all he has';
ok_post('/budget/delete', { id => 'plan' });
is names('customer:c5') . ' ' . limit('customer:c5~m~m1'), 'm1=customer:c5~m~m1 700000000', 'when it is gone, the default again';
is $k->state('customer:c5~m~m1')->{used}, 7, 'with what he used';
is $k->state('customer:c5~m~m9'), undef, 'and nothing else';
ok_post('/customer/delete', { user_ids => ['c5'] });
is meters('customer:c5'), '', 'a deleted one leaves no meters';

# end users that come while it changes have what it ends with

my $pid = fork // die;
if (!$pid) {
    open my $psql, '|-', "psql -XAtq -v ON_ERROR_STOP=1 -d '$k->{pg_url}' >$k->{dir}/come.log 2>&1" or die;
    print $psql "INSERT INTO meters (ent, period_id) VALUES ('customer:r$_', 0), ('customer:r$_~m~m1', $day);\nSELECT pg_sleep(0.002);\n" for 1 .. 600;
    close $psql;
    require POSIX;
    POSIX::_exit($? >> 8);
}
my $failed = 0;
for my $i (1 .. 40) {
    my ($c) = $k->post('/budget/update', { budget_id => 'everybody', model_max_budget => { m1 => { budget_limit => $i }, $i % 3 ? ("x$i" => 1) : () } });
    $failed++ if $c != 200;
}
waitpid $pid, 0;
is $?, 0, 'end users came' or diag $k->slurp("$k->{dir}/come.log");
is $failed, 0, 'and the budget was changed';
my $like = "SELECT count(*) FROM customers c CROSS JOIN submeters d WHERE d.owner = 'default:customer' AND c.budget_id IS NULL";
is $k->sql("$like AND NOT EXISTS (SELECT 1 FROM submeters s WHERE s.ent = c.ent || substr(d.ent, 17) AND s.limit_nusd = d.limit_nusd)"), 0, 'each has the last limits';
is $k->sql("SELECT count(*) FROM submeters s WHERE owner LIKE 'customer:%' AND NOT EXISTS (SELECT 1 FROM submeters d WHERE d.owner = 'default:customer' AND s.model = d.model)"), 0, 'and no others';
cmp_ok $k->sql($like), '>', 600, 'all of them';
told();
is limit('customer:r600~m~m1'), 40000000000, 'in Redis too';

# another default by configuration

ok_post('/budget/new', { budget_id => 'others', model_max_budget => { m2 => 3 } });
$k->{config} =~ s/everybody/others/;
$k->kill('controld');
$k->start_controld;
told();
is names($_), "m2=${_}~m~m2", "$_ has the meters of the new default" for 'default:customer', 'customer:c1';
is limit("${_}~m~m2"), 3000000000, "$_ in Redis" for 'default:customer', 'customer:c1', 'customer:nobody';
is $k->state("${_}~m~m1"), undef, "$_ has none of the old" for 'default:customer', 'customer:c1';
$k->kill('controld');
my $v = $k->sql("SELECT version FROM submeters WHERE ent = 'customer:c1~m~m2'");
$k->start_controld;
is $k->sql("SELECT version FROM submeters WHERE ent = 'customer:c1~m~m2'"), $v, 'another start changes nothing';
$k->kill('controld');
$k->sql("DELETE FROM submeters WHERE owner = 'default:customer'");
is meters('customer:c1'), '', 'without them, as an older version left it';
$k->start_controld;
told();
is limit("${_}~m~m2"), 3000000000, "$_ has it from the start" for 'default:customer', 'customer:c1';
$k->{config} = '';
$k->kill('controld');
$k->start_controld;
told();
is $k->sql("SELECT count(*) FROM submeters"), 0, 'no default, no meters';
is $k->state("${_}~m~m2"), undef, "$_ in Redis" for 'default:customer', 'customer:c1', 'customer:nobody';
is names('customer:c1'), '', 'nor a name of one';

done_testing;
