# Invariant 5 where hot keys are admitted from blocks of quota: a change waits
# until no block that relies on what it changes can be used any more.

use strict;
use warnings;
use FindBin;

$ENV{KEYTOLL_LEASE} = 1;
do "$FindBin::Bin/inv05_revoked.t" or die $@ || $!;
