/*
 * Cost of a request.  Prices are pico-USD per token, costs nano-USD; sums are
 * formed in 128 bits and rounded once.
 */

#ifndef KT_PRICE_H
#define KT_PRICE_H


#include <stdint.h>

#include "kt_rc.h"
#include "kt_usage.h"


/*
 * All five prices are set by the owner; what a model lacks is filled in
 * before (cache read and write default to in, reasoning to out).  The flags
 * are for the caller, the functions do not look at them.
 */
typedef struct {
    int64_t   in_pusd;
    int64_t   out_pusd;
    int64_t   cr_pusd;
    int64_t   cw_pusd;
    int64_t   rs_pusd;
    unsigned  free:1;                  /* both prices are explicitly 0      */
    unsigned  none:1;                  /* no price is known                 */
} kt_price_t;


/*
 * What the usage costs, rounded half up.  Parts that exceed their whole
 * (cr + cw > in, rs > out) raise the whole to their sum; negative counts are
 * 0.  KT_OK, or KT_RANGE when a price is negative or the cost does not fit;
 * *nusd is then INT64_MAX.
 */
keytoll_rc_t kt_price_cost(const kt_price_t *price, const kt_usage_t *u,
    int64_t *nusd);

/*
 * The most that in_tok prompt and out_tok completion tokens can cost, rounded
 * up: prompt at the dearest of in, cr and cw, completion at the dearer of out
 * and rs.  Results as above.  Never less than kt_price_cost() of any usage
 * with counts up to these.
 */
keytoll_rc_t kt_price_bound(const kt_price_t *price, int64_t in_tok,
    int64_t out_tok, int64_t *nusd);


#endif
