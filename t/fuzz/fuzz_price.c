/*
 * kt_price: any counts and prices; no cost exceeds the bound of its counts,
 * and a dearer price never makes a request cheaper.
 */

#include "fuzz.h"
#include "kt_price.h"


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    int64_t       v[10], cost, bound, more;
    kt_price_t    price;
    kt_usage_t    u;
    keytoll_rc_t  rc;

    memset(v, 0, sizeof(v));
    memcpy(v, p, len < sizeof(v) ? len : sizeof(v));

    memset(&price, 0, sizeof(price));
    price.in_pusd = v[0];
    price.out_pusd = v[1];
    price.cr_pusd = v[2];
    price.cw_pusd = v[3];
    price.rs_pusd = v[4];

    memset(&u, 0, sizeof(u));
    u.in_tok = v[5];
    u.out_tok = v[6];
    u.cr_tok = v[7];
    u.cw_tok = v[8];
    u.rs_tok = v[9];

    rc = kt_price_cost(&price, &u, &cost);
    must(rc == KT_OK || (rc == KT_RANGE && cost == INT64_MAX));
    must(cost >= 0);

    if (u.in_tok >= 0 && u.out_tok >= 0 && u.cr_tok >= 0 && u.cw_tok >= 0
        && u.cr_tok <= u.in_tok && u.cw_tok <= u.in_tok - u.cr_tok
        && u.rs_tok <= u.out_tok)
    {
        rc = kt_price_bound(&price, u.in_tok, u.out_tok, &bound);
        must(rc == KT_OK || (rc == KT_RANGE && bound == INT64_MAX));
        must(cost <= bound);
    }

    if (price.out_pusd >= 0 && price.out_pusd < INT64_MAX) {
        price.out_pusd++;
        (void) kt_price_cost(&price, &u, &more);
        must(more >= cost);
    }

    return 0;
}
