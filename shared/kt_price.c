/*
 * Cost of a request; see kt_price.h.
 */

#include "kt_price.h"


#define KT_PUSD_PER_NUSD  1000


__extension__ typedef unsigned __int128  kt_uint128_t;


static int64_t
kt_price_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}


static kt_uint128_t
kt_price_count(int64_t tok)
{
    return tok > 0 ? (uint64_t) tok : 0;
}


static kt_uint128_t
kt_price_mul(kt_uint128_t tok, int64_t pusd)
{
    return tok * (uint64_t) pusd;
}


static int
kt_price_valid(const kt_price_t *p)
{
    return p->in_pusd >= 0 && p->out_pusd >= 0 && p->cr_pusd >= 0
           && p->cw_pusd >= 0 && p->rs_pusd >= 0;
}


/* pico-USD to nano-USD after adding round (0..999). */

static keytoll_rc_t
kt_price_round(kt_uint128_t pusd, unsigned round, int64_t *nusd)
{
    pusd = (pusd + round) / KT_PUSD_PER_NUSD;

    if (pusd > INT64_MAX) {
        *nusd = INT64_MAX;
        return KT_RANGE;
    }

    *nusd = (int64_t) pusd;

    return KT_OK;
}


/*
 * Nothing below can overflow: prompt tokens are below 2^64 (cr + cw at most),
 * completion tokens and prices below 2^63, so the sum is below 2^127 + 2^126.
 */

keytoll_rc_t
kt_price_cost(const kt_price_t *price, const kt_usage_t *u, int64_t *nusd)
{
    kt_uint128_t  in, out, cr, cw, rs;

    if (!kt_price_valid(price)) {
        *nusd = INT64_MAX;
        return KT_RANGE;
    }

    in = kt_price_count(u->in_tok);
    out = kt_price_count(u->out_tok);
    cr = kt_price_count(u->cr_tok);
    cw = kt_price_count(u->cw_tok);
    rs = kt_price_count(u->rs_tok);

    in = in > cr + cw ? in - cr - cw : 0;
    out = out > rs ? out - rs : 0;

    return kt_price_round(kt_price_mul(in, price->in_pusd)
                          + kt_price_mul(cr, price->cr_pusd)
                          + kt_price_mul(cw, price->cw_pusd)
                          + kt_price_mul(out, price->out_pusd)
                          + kt_price_mul(rs, price->rs_pusd),
                          KT_PUSD_PER_NUSD / 2, nusd);
}


keytoll_rc_t
kt_price_bound(const kt_price_t *price, int64_t in_tok, int64_t out_tok,
    int64_t *nusd)
{
    int64_t  in, out;

    if (!kt_price_valid(price)) {
        *nusd = INT64_MAX;
        return KT_RANGE;
    }

    in = kt_price_max(price->in_pusd,
                      kt_price_max(price->cr_pusd, price->cw_pusd));
    out = kt_price_max(price->out_pusd, price->rs_pusd);

    return kt_price_round(kt_price_mul(kt_price_count(in_tok), in)
                          + kt_price_mul(kt_price_count(out_tok), out),
                          KT_PUSD_PER_NUSD - 1, nusd);
}
