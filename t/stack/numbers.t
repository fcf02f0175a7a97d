# The numbers of a refusal are those of the admin API at that instant: on every
# level that has a budget, to the nano-dollar, while other keys spend.  A budget
# is raised by a little, spent, and compared, again and again.
#
# KEYTOLL_LONG=1: 10,000 comparisons.  KEYTOLL_SEED=n repeats the costs.

use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);
use Keytoll::Test;
use Keytoll::Stack;
use Keytoll::Load;

my $N = $ENV{KEYTOLL_LONG} ? 10_000 : 300;
srand(my $seed = $ENV{KEYTOLL_SEED} // time % 1_000_000_000);
my $s = Keytoll::Stack->up;
my $JSON = $Keytoll::Test::JSON;
my @ports = ($s->{port}, $s->another_nginx);
my @admin = ('Authorization', "Bearer $s->{vars}{KEYTOLL_MASTER_KEY}", 'Content-Type', 'application/json');

sub post {
    my ($path, $body) = @_;
    my $r = $s->admin(POST => $path, $body);
    $r->{status} == 200 or die "$path: $r->{raw}";
    return $r->{json};
}

# fractions of a nano-dollar per token
post('/model/new', { model_name => 'odd', litellm_params => { model => 'openai/odd', input_cost_per_token => 0.0000001374, output_cost_per_token => 0.0000010139 },
    model_info => { max_output_tokens => 1000 } });

# ---- a world for each level: its key, its entity, how to raise and to read it

my @worlds;
sub world {
    my ($level, $strict) = @_;
    my $id = $level . ($strict ? '-strict' : '-last');
    my %limit = (max_budget => 0.0001, budget_enforcement => $strict ? 'strict' : 'last_call');
    my %w = (name => $id, body => {}, method => 'POST');
    my %key;
    if ($level eq 'key') {
        %key = %limit;
    } elsif ($level eq 'user') {
        $w{again} = sub {                            # one more user, who has spent something elsewhere
            my ($w, $budget) = @_;
            my $spent = int rand $budget;
            $w->{id} = "$id-" . ++$w->{n};
            $w->{info} = ['GET', "/user/info?user_id=$w->{id}"];
            return ['POST', '/user/new', \@admin, sprintf '{"user_id":"%s","budget_enforcement":"%s","max_budget":%.9f,"spend":%.9f}', $w->{id},
                $strict ? 'strict' : 'last_call', map { $_ / 1e9 } $budget, $spent];
        };
        $w{read} = sub { $_[0]{user_info} };
    } elsif ($level eq 'team' || $level eq 'org') {
        my %team = (team_id => $id);
        if ($level eq 'org') {
            my $org = post('/organization/new', { organization_alias => $id, %limit })->{organization_id};
            $team{organization_id} = $org;
            @w{qw(update idname id method)} = ('/organization/update', 'organization_id', $org, 'PATCH');
            $w{info} = ['GET', "/organization/info?organization_id=$org"];
            $w{read} = sub { +{ spend => $_[0]{spend}, max_budget => $_[0]{litellm_budget_table}{max_budget} } };
        } else {
            @w{qw(update idname)} = ('/team/update', 'team_id');
            $w{info} = ['GET', "/team/info?team_id=$id"];
            $w{read} = sub { $_[0]{team_info} };
        }
        post('/team/new', { %team, $level eq 'team' ? %limit : () });
        %key = (team_id => $id);
    } elsif ($level eq 'member') {
        post('/user/new', { user_id => "u-$id", auto_create_key => JSON::PP::false() });
        post('/team/new', { team_id => $id, members_with_roles => [{ role => 'user', user_id => "u-$id" }], team_member_budget => $limit{max_budget} });
        %key = (team_id => $id, user_id => "u-$id");
        @w{qw(update idname field)} = ('/team/update', 'team_id', 'team_member_budget');
        $w{info} = ['GET', "/team/info?team_id=$id"];
        $w{read} = sub { my ($m) = grep { $_->{user_id} eq "u-$id" } @{ $_[0]{team_memberships} };
            return { spend => $m->{spend}, max_budget => $_[0]{team_info}{team_member_budget_table}{max_budget} } };
    } elsif ($level eq 'customer') {
        post('/customer/new', { user_id => $id, %limit });
        $w{body} = { user => $id };
        @w{qw(update idname)} = ('/customer/update', 'user_id');
        $w{info} = ['GET', "/customer/info?end_user_id=$id"];
        $w{read} = sub { +{ spend => $_[0]{spend}, max_budget => $_[0]{litellm_budget_table}{max_budget} } };
    } elsif ($level eq 'tag') {
        post('/tag/new', { name => $id, %limit });
        $w{body} = { metadata => { tags => [$id] } };
        @w{qw(update idname)} = ('/tag/update', 'name');
        $w{info} = ['POST', '/tag/info', { names => [$id] }];
        $w{read} = sub { +{ spend => $_[0]{$id}{spend}, max_budget => $_[0]{$id}{litellm_budget_table}{max_budget} } };
    }
    $w{key} = $w{again} ? (http_burst($s->{port}, [$w{again}->(\%w, 100_000)]))[0]{json}{key} : post('/key/generate', \%key)->{key};
    $w{id} //= $id;
    if ($level eq 'key') {
        @w{qw(update idname id)} = ('/key/update', 'key', $w{key});
        $w{info} = ['GET', "/key/info?key=$w{key}"];
        $w{read} = sub { $_[0]{info} };
    }
    push @worlds, \%w;
}
for my $level (qw(key user team org customer tag)) { world($level, $_) for 0, 1 }
world('member', 0);

my $load = Keytoll::Load->start(clients => 2, ports => \@ports, key => post('/key/generate', { max_budget => 1000 })->{key},
    body => chat_body(model => 'odd', max_tokens => 7), headers => ['x-mock-completion-tokens', 7, 'x-mock-delay-ms', 2]);

sub chats {
    return http_burst(\@ports, [map { ['POST', '/v1/chat/completions', ['Authorization', "Bearer $_->{key}", 'Content-Type', 'application/json',
        'x-mock-prompt-tokens', 1 + int rand 150, 'x-mock-completion-tokens', 1 + int rand 40], chat_body(model => 'odd', max_tokens => 40, %{ $_->{body} })] } @_]);
}

sub nusd { my ($w, $f) = $_[0] =~ /^(\d+)\.(\d{1,9})$/ or return -1; return $w * 1_000_000_000 + ($f . '0' x (9 - length $f)) }

# ---- spend, be refused, compare

my ($compared, $grown, %seen, @wrong) = (0, 0);
sub compare {
    my ($w, $refusal, $info) = @_;
    my $h = $refusal->{headers};
    my ($used, $limit) = $refusal->{json}{error}{message} =~ /(?:Current cost: |Spend=)(\S+), (?:Max budget: |Budget=)(\S+)$/;
    my $row = $info->{status} == 200 ? $w->{read}->($info->{json}) : {};
    my @n = (nusd($used // ''), nusd($limit // ''));
    my @bad;
    push @bad, 'the text and x-keytoll-used' if $n[0] ne $h->{'x-keytoll-used'};
    push @bad, 'the text and x-keytoll-limit' if $n[1] ne $h->{'x-keytoll-limit'};
    push @bad, 'the digits of the text and of the info' if $info->{body} !~ /"spend":\s*\Q$used\E[,}\s]/;
    push @bad, 'the spend of the info' if ($row->{spend} // -1) != $used;
    push @bad, 'the budget of the info' if ($row->{max_budget} // -1) != $limit;
    push @bad, 'something is held' if $h->{'x-keytoll-held'};
    push @wrong, "$w->{name}: @bad: $refusal->{json}{error}{message}; $h->{'x-keytoll-used'} of $h->{'x-keytoll-limit'}; $info->{body}" if @bad;
    $compared++;
    $grown++ if $n[0] > ($w->{used} // -1);
    $w->{used} = $n[0];
    $seen{$n[0]}++;
}

sub raise {
    my ($w, $nusd) = @_;
    return $w->{again}->($w, 1 + $nusd % 1_000_000) if $w->{again};
    return [$w->{method}, $w->{update}, \@admin, sprintf '{"%s":"%s","%s":%.9f}', $w->{idname}, $w->{id}, $w->{field} // 'max_budget', $nusd / 1e9];
}

my @slow;
while ($compared < $N && @wrong < 5) {
    my (%refusal, @open);
    @open = @worlds;
    for (my $try = 0; @open && $try < 400; $try++) {
        my @r = chats(@open);
        my @still;
        for my $i (0 .. $#r) {
            my $why = $r[$i]{headers}{'x-keytoll-reason'} // '';
            if ($why eq 'budget_exceeded') { $refusal{ $open[$i]{name} } = $r[$i] }
            elsif ($r[$i]{status} == 200 || $why eq 'budget_held' || $why eq 'redis_unavailable') { push @still, $open[$i] }     # or a deadline of a busy machine
            else { push @wrong, "$open[$i]{name}: $r[$i]{raw}" }
        }
        @open = @still;
    }
    push @slow, map { $_->{name} } @open;
    last if @open;
    my @w = grep { $refusal{ $_->{name} } } @worlds;
    my @info = http_burst($s->{port}, [map { my ($m, $path, $body) = @{ $_->{info} }; [$m, $path, \@admin, $body ? $JSON->encode($body) : undef] } @w]);
    compare($w[$_], $refusal{ $w[$_]{name} }, $info[$_]) for 0 .. $#w;
    my @up = http_burst($s->{port}, [map { raise($_, $_->{used} + 1 + int rand 150_000) } @w]);
    push @wrong, map { $_->{raw} } grep { $_->{status} != 200 } @up;
    for my $i (grep { $w[$_]{again} } 0 .. $#w) { ($w[$i]{key}, $w[$i]{used}) = ($up[$i]{json}{key}, 0) }
}
is_deeply(\@slow, [], 'every budget was spent');
is_deeply(\@wrong, [], 'a refusal says what the admin API says') or diag "KEYTOLL_SEED=$seed";
cmp_ok($compared, '>=', $N, "$compared comparisons");
cmp_ok($grown, '>=', $compared / 2, "$grown of them of a spend that had grown");
cmp_ok(scalar keys %seen, '>=', $compared / 3, 'of ' . keys(%seen) . ' numbers');
my @calls = $load->stop;
cmp_ok(scalar(grep { $_->[2] == 200 } @calls), '>=', 50, scalar(@calls) . ' calls of another key meanwhile');
note "seed $seed";

$s->finish;
done_testing();
