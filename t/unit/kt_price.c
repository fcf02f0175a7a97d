/*
 * kt_price: golden table of costs, bounds and their limits.
 */

#include "kt_price.h"
#include "tap.h"


#define MAX  INT64_MAX


static const struct {
    const char    *name;
    int64_t        price[7];           /* in, out, cr, cw, rs, -, -         */
    int64_t        in, out, cr, cw, rs;
    keytoll_rc_t   rc;
    int64_t        cost, bound;
} golden[] = {
    { "gpt-4o, plain", { 2500000, 10000000, 1250000, 2500000, 10000000, 0, 0 },
      1000, 500, 0, 0, 0, KT_OK, 7500000, 7500000 },
    { "gpt-4o, cached", { 2500000, 10000000, 1250000, 2500000, 10000000, 0, 0 },
      1000, 500, 800, 0, 0, KT_OK, 6500000, 7500000 },
    { "claude, cache written", { 3000000, 15000000, 300000, 3750000, 15000000,
      0, 0 }, 330, 40, 300, 20, 0, KT_OK, 795000, 1837500 },
    { "reasoning apart", { 1000, 2000, 1000, 1000, 5000, 0, 0 },
      0, 10, 0, 0, 4, KT_OK, 32, 50 },
    { "half a nano-dollar rounds up", { 500, 0, 0, 0, 0, 0, 0 },
      1, 0, 0, 0, 0, KT_OK, 1, 1 },
    { "less rounds down", { 499, 0, 0, 0, 0, 0, 0 },
      1, 0, 0, 0, 0, KT_OK, 0, 1 },
    { "rounded once", { 400, 400, 400, 400, 400, 0, 0 },
      3, 2, 1, 1, 1, KT_OK, 2, 2 },
    { "nothing", { 1, 1, 1, 1, 1, 0, 0 }, 0, 0, 0, 0, 0, KT_OK, 0, 0 },
    { "free", { 0, 0, 0, 0, 0, 1, 0 }, 1000, 1000, 0, 0, 0, KT_OK, 0, 0 },
    { "more cached than prompt", { 1000, 0, 100, 2000, 0, 0, 0 },
      5, 0, 10, 10, 0, KT_OK, 21, 10 },
    { "more reasoning than completion", { 0, 1000, 0, 0, 3000, 0, 0 },
      0, 2, 0, 0, 5, KT_OK, 15, 6 },
    { "negative counts", { 1000, 1000, 1000, 1000, 1000, 0, 0 },
      -5, -5, -5, -5, -5, KT_OK, 0, 0 },
    { "the largest cost", { 1000, 0, 0, 0, 0, 0, 0 },
      MAX, 0, 0, 0, 0, KT_OK, MAX, MAX },
    { "one more", { 1000, 1000, 0, 0, 0, 0, 0 },
      MAX, 1, 0, 0, 0, KT_RANGE, MAX, MAX },
    { "the largest of all", { MAX, MAX, MAX, MAX, MAX, 0, 0 },
      MAX, MAX, MAX, MAX, MAX, KT_RANGE, MAX, MAX },
    { "negative price", { -1, 0, 0, 0, 0, 0, 0 },
      1, 1, 0, 0, 0, KT_RANGE, MAX, MAX },
};


/* 0 to n - 1, the same numbers in every run. */

static int64_t
some(int64_t n)
{
    static uint32_t  x = 1;

    x = x * 1664525u + 1013904223u;

    return (int64_t) (x >> 8) % n;
}


static kt_price_t
row(const int64_t *v)
{
    kt_price_t  p;

    memset(&p, 0, sizeof(p));
    p.in_pusd = v[0];
    p.out_pusd = v[1];
    p.cr_pusd = v[2];
    p.cw_pusd = v[3];
    p.rs_pusd = v[4];

    return p;
}


int
main(void)
{
    int         i, below;
    size_t      k;
    int64_t     nusd, most, v[5];
    kt_usage_t  u;
    kt_price_t  p;

    for (k = 0; k < sizeof(golden) / sizeof(golden[0]); k++) {
        memset(&u, 0, sizeof(u));
        p = row(golden[k].price);
        u.in_tok = golden[k].in;
        u.out_tok = golden[k].out;
        u.cr_tok = golden[k].cr;
        u.cw_tok = golden[k].cw;
        u.rs_tok = golden[k].rs;

        is_int(kt_price_cost(&p, &u, &nusd), golden[k].rc,
               golden[k].name);
        is_int(nusd, golden[k].cost, "... costs");
        is_int(kt_price_bound(&p, u.in_tok, u.out_tok, &nusd),
               golden[k].rc, "... has a bound");
        is_int(nusd, golden[k].bound, "... of");
    }

    below = 1;

    for (i = 0; i < 100000; i++) {
        for (k = 0; k < 5; k++) {
            v[k] = some(5000);
        }

        p = row(v);
        memset(&u, 0, sizeof(u));
        u.in_tok = some(1000);
        u.out_tok = some(1000);
        u.cr_tok = some(u.in_tok + 1);
        u.cw_tok = some(u.in_tok - u.cr_tok + 1);
        u.rs_tok = some(u.out_tok + 1);

        below &= kt_price_cost(&p, &u, &nusd) == KT_OK
                 && kt_price_bound(&p, u.in_tok, u.out_tok, &most) == KT_OK
                 && nusd <= most;
    }

    ok(below, "no cost exceeds its bound");

    return tap_done();
}
