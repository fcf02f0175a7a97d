# The golden table of costs, computed here with whole numbers of any size from
# what the providers' pages say, independently of shared/.  --write renews it.

use strict;
use warnings;
use JSON::PP;
use Math::BigInt;
use Test::More;

(my $top = __FILE__) =~ s{/?t/unit/prices\.t$}{};
$top = '.' if $top eq '';
my $file = "$top/t/unit/prices.tsv";
my $J = JSON::PP->new->canonical;

# prices in pico-USD per token
my @rows = (
    'in=2500000 out=10000000 cr=1250000',
    'in=150000 out=600000 cr=75000 bin=75000 bout=300000',
    'in=1250000 out=10000000 cr=125000 pin=2500000 pout=20000000 pcr=250000 fin=625000 fout=5000000 fcr=62500',
    'in=3000000 out=15000000 cr=300000 cw=3750000 cw1h=6000000 web=10000000000 bin=1500000 bout=7500000 above0=200000 tin0=6000000 tout0=22500000 tcr0=600000',
    'in=1250000 out=10000000 cr=310000 ai=1000000 io=30000000 above0=128000 tin0=2000000 tout0=12000000 above1=200000 tin1=2500000 tout1=15000000 tcr1=625000',
    'in=2500000 out=10000000 ai=40000000 ao=80000000',
    'in=5000000 ii=10000000 io=40000000 out=40000000',
    'in=1 out=3 cr=1 cw=1 rs=7',
    'in=499 out=501 cr=333 cw=667 cw1h=999',
    'in=100000 out=0 qry=2000000000 sec=100000000 req=5000000',
    'in=75000000 out=150000000 rs=600000000',
    'in=0 out=0',
);

# The counts of each kind of token in a usage object, said in every dialect.
sub counts {
    my $u = shift;
    my %c = map { $_ => 0 } qw(in out cr cw cw1h rs ai ao ii io web ms qry);
    $c{web} = $u->{server_tool_use}{web_search_requests} // 0;
    $c{qry} = $u->{search_units} // 0;
    $c{ms} = defined $u->{seconds} ? Math::BigInt->new($u->{seconds} * 1000) : 0;
    $c{service} = { batch => 'b', flex => 'f', priority => 'p' }->{ $u->{service_tier} // '' } // '';
    if (exists $u->{promptTokenCount}) {
        $c{in} = $u->{promptTokenCount} + ($u->{toolUsePromptTokenCount} // 0);
        $c{cr} = $u->{cachedContentTokenCount} // 0;
        $c{rs} = $u->{thoughtsTokenCount} // 0;
        $c{out} = ($u->{candidatesTokenCount} // 0) + $c{rs};
        for my $d (@{ $u->{promptTokensDetails} // [] }) { $c{ { AUDIO => 'ai', IMAGE => 'ii' }->{ $d->{modality} } // 'x' } += $d->{tokenCount} }
        for my $d (@{ $u->{candidatesTokensDetails} // [] }) { $c{ { AUDIO => 'ao', IMAGE => 'io' }->{ $d->{modality} } // 'x' } += $d->{tokenCount} }
    } elsif (exists $u->{cache_read_input_tokens}) {
        $c{cr} = $u->{cache_read_input_tokens};
        $c{cw} = $u->{cache_creation_input_tokens};
        $c{cw1h} = $u->{cache_creation}{ephemeral_1h_input_tokens} // 0;
        $c{in} = $u->{input_tokens} + $c{cr} + $c{cw};
        $c{out} = $u->{output_tokens};
    } else {
        my $in = $u->{prompt_tokens_details} // $u->{input_tokens_details} // {};
        my $out = $u->{completion_tokens_details} // $u->{output_tokens_details} // {};
        $c{in} = $u->{prompt_tokens} // $u->{input_tokens} // 0;
        $c{out} = $u->{completion_tokens} // $u->{output_tokens} // 0;
        $c{cr} = $in->{cached_tokens} // 0;
        @c{qw(ai ii)} = ($in->{audio_tokens} // 0, $in->{image_tokens} // 0);
        @c{qw(rs ao io)} = ($out->{reasoning_tokens} // 0, $out->{audio_tokens} // 0, $out->{image_tokens} // 0);
    }
    return \%c;
}

# Each token costs what its kind costs; the sum is rounded once, half up.
sub cost {
    my ($row, $usage) = @_;
    my %p = map { split /=/ } split / /, $row;
    my $c = counts($usage);
    my ($in, $out) = @p{qw(in out)};
    my %own = map { $_ => exists $p{$_} } qw(cr cw rs);
    my $cr = $p{cr} // $in;
    my $cw = $p{cw} // $in;
    my $base_in = $in;
    my $base_out = $out;
    my $rs = $p{rs} // $out;
    for my $t (0, 1) {
        next unless defined $p{"above$t"} && $c->{in} > $p{"above$t"};
        $in = $p{"tin$t"};
        $out = $rs = $p{"tout$t"};
        $cr = $p{"tcr$t"} // $p{cr} // $base_in;
    }
    my $s = $c->{service};
    if ($s && defined $p{"${s}in"}) {
        $in = $p{"${s}in"};
        $out = $rs = $p{"${s}out"};
        $cr = $p{"${s}cr"} // $p{cr} // $base_in;
    }
    my @parts = (
        [$c->{in} - $c->{cr} - $c->{cw} - $c->{ai} - $c->{ii}, $in], [$c->{cr}, $cr], [$c->{cw} - $c->{cw1h}, $cw], [$c->{cw1h}, $p{cw1h} // $cw],
        [$c->{ai}, $p{ai} // $base_in], [$c->{ii}, $p{ii} // $base_in],
        [$c->{out} - $c->{rs} - $c->{ao} - $c->{io}, $out], [$c->{rs}, $rs], [$c->{ao}, $p{ao} // $base_out], [$c->{io}, $p{io} // $base_out],
        [$c->{web}, $p{web} // 0], [$c->{qry}, $p{qry} // 0], [1, $p{req} // 0],
    );
    my $sum = Math::BigInt->new(0);
    $sum += Math::BigInt->new("$_->[0]") * Math::BigInt->new($_->[1]) for @parts;
    # in pico-USD per thousand, for the milliseconds' sake
    $sum = $sum * 1000 + Math::BigInt->new("$c->{ms}") * Math::BigInt->new($p{sec} // 0);
    return (($sum + 500_000) / 1_000_000)->bstr;
}

# The same numbers in every run.
my $seed = 1;
sub some { $seed = ($seed * 1103515245 + 12345) % 2147483648; return int($_[0] * $seed / 2147483648) }

sub usages {
    my @u;
    for my $size (1, 10, 1000, 127999, 128000, 128001, 200000, 200001, 1000000, 5000000000) {
        my ($in, $out) = ($size, some(2000));
        my $cr = some($in);
        my $cw = some($in - $cr);
        my $h = some($cw + 1);
        my $a = some($in - $cr);
        my $rs = some($out + 1);
        my $ao = some($out - $rs + 1);
        push @u,
            { prompt_tokens => $in, completion_tokens => $out, total_tokens => $in + $out },
            { prompt_tokens => $in, completion_tokens => $out, prompt_tokens_details => { cached_tokens => $cr, audio_tokens => $a }, completion_tokens_details => { reasoning_tokens => $rs, audio_tokens => $ao } },
            { input_tokens => $in, output_tokens => $out, input_tokens_details => { cached_tokens => $cr }, output_tokens_details => { reasoning_tokens => $rs }, service_tier => (qw(batch flex priority default))[some(4)] },
            { input_tokens => $in - $cr - $cw, output_tokens => $out, cache_read_input_tokens => $cr, cache_creation_input_tokens => $cw, cache_creation => { ephemeral_5m_input_tokens => $cw - $h, ephemeral_1h_input_tokens => $h }, server_tool_use => { web_search_requests => some(4) } },
            { promptTokenCount => $in, candidatesTokenCount => $out, thoughtsTokenCount => $rs, cachedContentTokenCount => $cr, totalTokenCount => $in + $out + $rs },
            { promptTokenCount => $in, candidatesTokenCount => $out, promptTokensDetails => [{ modality => 'AUDIO', tokenCount => $a }, { modality => 'TEXT', tokenCount => $in - $a }], candidatesTokensDetails => [{ modality => 'IMAGE', tokenCount => $ao }] };
    }
    push @u, { type => 'duration', seconds => 3.5 }, { type => 'duration', seconds => 61 }, { search_units => 3 };
    return @u;
}

if (@ARGV && $ARGV[0] eq '--write') {
    open my $h, '>', $file or die "$file: $!";
    for my $row (@rows) { print $h join("\t", $row, $J->encode($_), cost($row, $_)), "\n" for usages() }
    close $h or die;
    print "written\n";
    exit;
}

open my $h, '<', $file or die "$file: $!";
my ($n, @wrong) = (0);
while (<$h>) {
    chomp;
    my ($row, $usage, $want) = split /\t/;
    $n++;
    push @wrong, "$row $usage: $want" if cost($row, $J->decode($usage)) ne $want;
}
cmp_ok($n, '>=', 500, "$n rows of usage and prices");
is(scalar @wrong, 0, 'each of them has the cost that it has here') or diag join "\n", @wrong[0 .. ($#wrong > 5 ? 5 : $#wrong)];

# the module's arithmetic: kt_price_golden reads the same table
my $bin = ($ENV{KEYTOLL_BIN} || "$top/build") . '/unit/kt_price_golden';
my @out = `$bin $file`;
is($? >> 8, 0, 'difference 0');
is(scalar(grep { /^ok/ } @out), $n + 2, 'over all of them') or diag grep { /^not ok/ } @out;

done_testing();
