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

# Prices in pico-USD, by the names that they have in the registry; t<name>0 and t<name>1 are those
# of prompts longer than above0 and above1.
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
    # writes into the cache, for five minutes and an hour, of long prompts
    'in=3000000 out=15000000 cr=300000 cw=3750000 cw1h=6000000 above0=200000 tin0=6000000 tout0=22500000 tcr0=600000 tcw0=7500000 tcw1h0=12000000',
    'in=3000000 out=15000000 cr=300000 cw=3750000 above0=128000 tin0=6000000 tcw0=7500000 above1=200000 tin1=9000000 tcw1h1=21000000',
    'in=3000000 out=15000000 above0=128000 tin0=6000000 tout0=7000000 above1=200000 tcw1=9000001',
    'in=7 out=11 cw=5 cw1h=13 above0=128000 tin0=8 tcw0=6 tcw1h0=17 above1=200000 tcw1=3',
    # reasoning of long prompts
    'in=1000000 out=4000000 rs=5000000 above0=128000 tin0=2000000 tout0=8000000 above1=200000 trs1=9000000',
    'in=1000000 out=4000000 above0=128000 tout0=8000000 trs0=9000000 above1=200000 tout1=8500000',
    # services with caches
    'in=3000000 out=15000000 cr=300000 cw=3750000 cw1h=6000000 bin=1500000 bout=7500000 bcr=150000 bcw=1875000',
    'in=3000000 out=15000000 cr=2000000 cw1h=4000000 bin=1500000 fout=9000000 fcw=1000001 pin=6000000 pout=30000000 pcw=7500000',
    'in=2000000 out=8000000 bin=1000000 bout=4000000 fin=900000 pout=16000000',
    # services with long prompts: their own prices, those that follow, both
    'in=5000000 out=30000000 cr=500000 fin=2500000 fout=15000000 fcr=250000 pin=10000000 pout=60000000 pcr=1000000 above0=128000 tin0=10000000 tout0=45000000 tcr0=1000000 tfin0=5000000 tfout0=22500000 tfcr0=500000 tpin0=20000000 tpout0=90000000 tpcr0=2000000',
    'in=5000000 out=30000000 cr=500000 bin=2500000 bout=15000000 bcr=250000 fin=2500000 fout=15000000 fcr=250000 above0=128000 tin0=10000000 tout0=45000000 tcr0=1000000',
    'in=3000000 out=15000000 cr=300000 cw=3750000 cw1h=6000000 bin=1500000 bout=7500000 bcr=150000 bcw=1875000 above0=200000 tin0=6000000 tout0=22500000 tcr0=600000 tcw0=7500000 tcw1h0=12000000',
    'in=7 out=13 cr=3 cw=9 cw1h=11 bin=5 bout=9 bcr=2 bcw=7 fin=3 fout=7 pin=17 pout=29 pcw=19 above0=128000 tin0=11 tout0=17 tcr0=5 tcw0=13 tpcw0=31 above1=200000 tin1=19 tbout1=23 tfcr1=4 tcw1h1=37',
    'in=0 out=10 bin=0 bout=5 fin=1 fout=0 above0=200000 tin0=4 tout0=20',
    # by image and by character, beside tokens and without
    'img=40000000000',
    'in=5000000 out=10000000 ii=10000000 io=40000000 img=19000000001',
    'chr=15000000',
    'in=600000 ao=12000000 chr=30001 req=7',
);

# What a row says, with all that it leaves open.  What a model has no price for costs as its
# input or output does; a cache or reasoning without a price of its own does so of every prompt
# and of every service, and reading costs no more than the service's input.  A longer prompt
# costs what a shorter one does but for what its tier says, and of a service what is as much
# dearer than before as the tier makes it, rounded up.
my @KINDS = qw(in out cr cw cw1h rs);
my @SERVICE = qw(in out cr cw cw1h);
sub dearer { my ($x, $from, $to) = map { Math::BigInt->new($_) } @_; return $from ? "" . (($x * $to + $from - 1) / $from) : "" . ($x > $to ? $x : $to) }

sub filled {
    my %p = map { split /=/ } split / /, shift;
    my %own = map { $_ => exists $p{$_} } qw(cr cw cw1h rs);
    my ($most) = sort { $b <=> $a } map { $p{$_} // 0 } qw(ao io);
    $p{in} //= 0;
    $p{out} //= $most;
    $p{$_} //= $p{in} for qw(cr cw ai ii);
    $p{$_} //= $p{out} for qw(rs ao io);
    $p{cw1h} //= $p{cw};
    $p{$_} //= 0 for qw(img sec chr qry web req);
    for my $s (grep { defined $p{"${_}in"} || defined $p{"${_}out"} } qw(b f p)) {
        $p{"$s$_"} //= $p{$_} for qw(in out);
        my $in = $p{"${s}in"};
        $p{"${s}cr"} //= $own{cr} && $p{cr} < $in ? $p{cr} : $in;
        $p{"${s}cw"} //= $own{cw} ? $p{cw} : $in;
        $p{"${s}cw1h"} = dearer($p{cw1h}, $p{cw}, $p{"${s}cw"});
        $p{"${s}rs"} = $p{"${s}out"};
    }
    my %last = map { $_ => $p{$_} } grep { defined $p{$_} } @KINDS, map { my $s = $_; map { "$s$_" } @SERVICE } qw(b f p);
    for my $i (grep { defined $p{"above$_"} } 0, 1) {
        my %t = map { $_ => $p{"t$_$i"} } @KINDS, map { my $s = $_; map { "$s$_" } @SERVICE } qw(b f p);
        $t{$_} //= $last{$_} for qw(in out);
        $t{cr} //= $own{cr} ? $last{cr} : $t{in};
        $t{cw} //= $own{cw} ? $last{cw} : $t{in};
        $t{cw1h} //= $own{cw1h} ? $last{cw1h} : $t{cw};
        $t{rs} //= $own{rs} ? $last{rs} : $t{out};
        for my $s (grep { defined $p{"${_}in"} } qw(b f p)) {
            $t{"$s$_"} //= dearer($last{"$s$_"}, $last{$_}, $t{$_}) for qw(in out cr cw);
            $t{"${s}cw1h"} = dearer($t{cw1h}, $t{cw}, $t{"${s}cw"});
        }
        $p{"t$_$i"} = $t{$_} for grep { defined $t{$_} } keys %t;
        %last = %t;
    }
    return \%p;
}

# The row as the registry has it.
sub registry {
    my %p = map { split /=/ } split / /, shift;
    my (%o, %tier);
    for (keys %p) {
        if (/^above(\d)$/) { $tier{$1}{above} = $p{$_} + 0 }
        elsif (/^t(\w+)(\d)$/) { $tier{$2}{$1} = $p{$_} + 0 }
        else { $o{$_} = $p{$_} + 0 }
    }
    $o{tiers} = [map { $tier{$_} } sort keys %tier] if %tier;
    return $J->encode(\%o);
}

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

# Each token costs what its kind costs; the sum is rounded once, half up.  Audio and images in
# tokens cost the same in every service and of every length.
sub cost {
    my ($p, $usage, $images, $chars) = @_;
    my $c = counts($usage);
    my $tier = '';
    for my $t (0, 1) { $tier = $t if defined $p->{"above$t"} && $c->{in} > $p->{"above$t"} }
    my $s = defined $p->{"$c->{service}in"} ? $c->{service} : '';
    my %k = map { $_ => $p->{ ($tier eq '' ? '' : 't') . $s . $_ . $tier } } @SERVICE;
    $k{rs} = $s ? $k{out} : $p->{ $tier eq '' ? 'rs' : "trs$tier" };
    my @parts = (
        [$c->{in} - $c->{cr} - $c->{cw} - $c->{ai} - $c->{ii}, $k{in}], [$c->{cr}, $k{cr}], [$c->{cw} - $c->{cw1h}, $k{cw}], [$c->{cw1h}, $k{cw1h}],
        [$c->{ai}, $p->{ai}], [$c->{ii}, $p->{ii}],
        [$c->{out} - $c->{rs} - $c->{ao} - $c->{io}, $k{out}], [$c->{rs}, $k{rs}], [$c->{ao}, $p->{ao}], [$c->{io}, $p->{io}],
        [$c->{web}, $p->{web}], [$c->{qry}, $p->{qry}], [$images, $p->{img}], [$chars, $p->{chr}], [1, $p->{req}],
    );
    my $sum = Math::BigInt->new(0);
    $sum += Math::BigInt->new("$_->[0]") * Math::BigInt->new($_->[1]) for @parts;
    # in pico-USD per thousand, for the milliseconds' sake
    $sum = $sum * 1000 + Math::BigInt->new("$c->{ms}") * Math::BigInt->new($p->{sec});
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
    for my $size (1000, 128001, 200001) {
        my ($cr, $out) = (some($size), some(2000));
        my $cw = some($size - $cr);
        my $h = some($cw + 1);
        my $rs = some($out + 1);
        for my $tier (qw(batch flex priority)) {
            push @u, { input_tokens => $size - $cr - $cw, output_tokens => $out, cache_read_input_tokens => $cr, cache_creation_input_tokens => $cw, cache_creation => { ephemeral_5m_input_tokens => $cw - $h, ephemeral_1h_input_tokens => $h }, service_tier => $tier },
                { prompt_tokens => $size, completion_tokens => $out, prompt_tokens_details => { cached_tokens => $cr }, completion_tokens_details => { reasoning_tokens => $rs }, service_tier => $tier };
        }
    }
    # with images and characters, which the caller counts
    return ((map { [$_, 0, 0] } @u), [{}, 1, 0], [{}, 10, 0], [{}, 0, 4096], [{}, 0, 1], [{ input_tokens => 50, output_tokens => 4160, output_tokens_details => { image_tokens => 4160 } }, 4, 0],
        [{ prompt_tokens => 3, completion_tokens => 900, completion_tokens_details => { audio_tokens => 900 } }, 0, 12345], [{}, 5_000_000_000, 5_000_000_000]);
}

# A line for each usage; one for each row of prices, with what each usage costs by it.
sub table {
    my @usages = usages();
    my @lines = map { join "\t", 'usage', $J->encode($_->[0]), @$_[1, 2] } @usages;
    for my $row (@rows) {
        my $p = filled($row);
        push @lines, join "\t", 'price', registry($row), join(' ', map { "$_=$p->{$_}" } sort keys %$p), map { cost($p, @$_) } @usages;
    }
    return (@usages * @rows, map { "$_\n" } @lines);
}

my ($n, @table) = table();
if (@ARGV && $ARGV[0] eq '--write') {
    open my $h, '>', $file or die "$file: $!";
    print $h @table;
    close $h or die;
    print "written\n";
    exit;
}

open my $h, '<', $file or die "$file: $!";
my @there = <$h>;
cmp_ok($n, '>=', 2000, "$n costs");
is(join('', @there), join('', @table), 'the table is what is computed here') or diag 'renew it by --write';

# as the providers' own pages have them
my $flex = filled('in=5000000 out=30000000 fin=2500000 fout=15000000 above0=272000 tin0=10000000 tout0=45000000');
my %long = (prompt_tokens => 300_000, completion_tokens => 1000);
is(cost($flex, {%long}, 0, 0), 3_045_000_000, 'a long prompt');
is(cost($flex, { %long, service_tier => 'flex' }, 0, 0), 1_522_500_000, 'and the same as flex: half of that, not of what a short one costs');
my $batch = filled('in=3000000 out=15000000 cr=300000 cw=3750000 cw1h=6000000 bin=1500000 bout=7500000 bcw=1875000');
is(cost($batch, { input_tokens => 0, output_tokens => 0, cache_read_input_tokens => 0, cache_creation_input_tokens => 1_000_000, cache_creation => { ephemeral_1h_input_tokens => 1_000_000 }, service_tier => 'batch' }, 0, 0),
    3_000_000_000, 'an hour in the cache, as a batch');

# the module's arithmetic, and its reader of the registry
my $bin = ($ENV{KEYTOLL_BIN} || "$top/build") . '/unit/kt_price_golden';
my @out = `$bin $file`;
is($? >> 8, 0, 'difference 0');
is(scalar(grep { /^ok/ } @out), 2 * $n + 2 * @rows + 2, 'over all of them, by both readers') or diag grep { /^not ok/ } @out;

done_testing();
