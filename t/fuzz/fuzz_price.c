/*
 * kt_price: any counts and prices; no cost exceeds the bound of its counts,
 * and a dearer price never makes a request cheaper.
 */

#include "fuzz.h"
#include "kt_price.h"


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    int64_t       v[30], cost, bound, more;
    kt_price_t    price;
    kt_usage_t    u;
    keytoll_rc_t  rc;
    kt_price_ask_t  ask;

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

    /* the same with everything there is */

    price.services = (unsigned) v[10] & 14;
    price.cw1h_pusd = v[11];
    price.ai_pusd = v[12];
    price.ao_pusd = v[13];
    price.ii_pusd = v[14];
    price.io_pusd = v[15];
    price.image_pusd = price.char_pusd = price.query_pusd = v[16];
    price.second_pusd = price.request_pusd = price.search_pusd = v[17];
    price.ntiers = (unsigned) v[10] >> 8 & 7;
    price.tier[0] = (kt_price_tier_t) { v[18], v[0], v[3], v[1], v[2], v[4],
                                        v[12], { { 0 } } };
    price.service[1] = (kt_price_service_t) { v[2], v[3], v[4], v[0], v[1] };
    price.service[2] = price.service[3] = price.service[1];
    price.tier[0].service[1] = (kt_price_service_t) { v[4], v[0], v[1], v[2],
                                                      v[3] };
    price.tier[0].service[2] = price.tier[0].service[3]
        = price.tier[0].service[1];
    price.tier[1] = price.tier[2] = price.tier[3] = price.tier[0];

    u.service = (unsigned) v[10] >> 16 & 3;
    u.ai_tok = v[19] & 0xffff;
    u.ii_tok = v[20] & 0xffff;
    u.ao_tok = v[21] & 0xffff;
    u.io_tok = v[22] & 0xffff;
    u.cw1h_tok = v[23] & 0xffff;
    u.dur_ms = v[24];
    u.units = v[25];
    u.images = v[26];
    u.chars = v[27];
    u.searches = v[26];

    rc = kt_price_cost(&price, &u, &cost);
    must(cost >= 0 && (rc == KT_OK || cost == INT64_MAX));

    memset(&ask, 0, sizeof(ask));
    ask.in_tok = u.in_tok;
    ask.out_tok = u.out_tok;
    ask.images = u.images;
    ask.chars = u.chars;
    ask.units = u.units;
    ask.searches = u.searches;
    ask.dur_ms = u.dur_ms;
    ask.services = 1u << u.service;
    ask.media_in = 1;
    ask.media_out = 1;

    if (u.in_tok >= 0 && u.out_tok >= 0 && u.cr_tok >= 0 && u.cw_tok >= 0
        && u.rs_tok >= 0 && u.in_tok < 1 << 30 && u.out_tok < 1 << 30
        && u.cr_tok < 1 << 20 && u.cw_tok < 1 << 20 && u.rs_tok < 1 << 20
        && u.cw1h_tok <= u.cw_tok
        && u.cr_tok + u.cw_tok + u.ai_tok + u.ii_tok <= u.in_tok
        && u.rs_tok + u.ao_tok + u.io_tok <= u.out_tok)
    {
        rc = kt_price_most(&price, &ask, &bound);
        must(rc == KT_OK || bound == INT64_MAX);
        must(cost <= bound);
    }

    return 0;
}
