/*
 * Decimal text to integer money and back, exactly; no floating point anywhere.
 * The same two functions serve nano-USD (scale 9), micro-credits (scale 6) and
 * pico-USD prices (scale 12).
 */

#ifndef KT_MONEY_H
#define KT_MONEY_H

#include <stddef.h>
#include <stdint.h>
#include "kt_rc.h"


#define KT_MONEY_USD     9
#define KT_MONEY_CREDIT  6
#define KT_MONEY_PICO    12
#define KT_MONEY_TEXT    32     /* bytes that any formatted value fits in     */


/*
 * Parses a JSON-like number (sign, digits, fraction, exponent; "+1", ".5" and
 * "1." are refused as JSON does) into units of 10^-scale, rounding half away
 * from zero.  KT_INVALID for text that is no number, KT_RANGE when it does not
 * fit int64.
 */
keytoll_rc_t kt_money_parse(const char *p, size_t len, int scale, int64_t *out);

/*
 * Writes `v` units of 10^-scale as a plain decimal with at least one and at most
 * `scale` fraction digits ("0.0", "12.5", "-0.000000001") and a final NUL into
 * out[KT_MONEY_TEXT].  Returns the length; scale is 0 to 18.
 */
size_t kt_money_format(int64_t v, int scale, char *out);

/* A plain JSON integer; KT_INVALID for fractions and exponents, KT_RANGE. */
keytoll_rc_t kt_int_parse(const char *p, size_t len, int64_t *out);


#endif
