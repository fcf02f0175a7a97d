# One person's limits where hot keys are admitted from blocks of quota.

use strict;
use warnings;
use FindBin;

$ENV{KEYTOLL_LEASE} = 1;
do "$FindBin::Bin/members.t" or die $@ || $!;
