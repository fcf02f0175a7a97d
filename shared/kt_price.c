/*
 * Cost of a request; see kt_price.h.
 */

#include <string.h>

#include "kt_price.h"


#define KT_PUSD_PER_NUSD  1000
#define KT_MS_PER_SECOND  1000


__extension__ typedef unsigned __int128  kt_uint128_t;


/* A sum that knows when it has left its range. */
typedef struct {
    kt_uint128_t  pusd;
    int           over;
} kt_sum_t;


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


/* n is below 2^66 and pusd below 2^63: the product cannot overflow. */

static void
kt_price_add(kt_sum_t *s, kt_uint128_t n, int64_t pusd)
{
    if (pusd < 0) {
        s->over = 1;
        return;
    }

    s->over |= n > ((kt_uint128_t) 1 << 64) && pusd > 0
               && n > ~(kt_uint128_t) 0 / (uint64_t) pusd;
    s->over |= __builtin_add_overflow(s->pusd, n * (uint64_t) pusd, &s->pusd);
}


/* pico-USD to nano-USD after adding round (0..999). */

static keytoll_rc_t
kt_price_round(kt_sum_t *s, unsigned round, int64_t *nusd)
{
    kt_uint128_t  n;

    n = s->pusd / KT_PUSD_PER_NUSD
        + (s->pusd % KT_PUSD_PER_NUSD + round) / KT_PUSD_PER_NUSD;

    if (s->over || n > INT64_MAX) {
        *nusd = INT64_MAX;
        return KT_RANGE;
    }

    *nusd = (int64_t) n;

    return KT_OK;
}


static int
kt_price_services_valid(const kt_price_t *p, const kt_price_service_t *s)
{
    unsigned  i;

    for (i = 1; i < KT_SERVICES; i++) {
        if ((p->services & (1u << i))
            && (s[i].in_pusd < 0 || s[i].out_pusd < 0 || s[i].cr_pusd < 0
                || s[i].cw_pusd < 0 || s[i].cw1h_pusd < 0))
        {
            return 0;
        }
    }

    return 1;
}


static int
kt_price_valid(const kt_price_t *p)
{
    unsigned                i;
    const kt_price_tier_t  *t;

    if (p->in_pusd < 0 || p->out_pusd < 0 || p->cr_pusd < 0 || p->cw_pusd < 0
        || p->rs_pusd < 0 || p->cw1h_pusd < 0 || p->ai_pusd < 0
        || p->ao_pusd < 0 || p->ii_pusd < 0 || p->io_pusd < 0
        || p->image_pusd < 0 || p->second_pusd < 0 || p->char_pusd < 0
        || p->query_pusd < 0 || p->search_pusd < 0 || p->request_pusd < 0
        || p->ntiers > KT_PRICE_TIERS)
    {
        return 0;
    }

    for (i = 0; i < p->ntiers; i++) {
        t = &p->tier[i];

        if (t->in_pusd < 0 || t->out_pusd < 0 || t->cr_pusd < 0
            || t->cw_pusd < 0 || t->cw1h_pusd < 0 || t->rs_pusd < 0
            || !kt_price_services_valid(p, t->service))
        {
            return 0;
        }
    }

    return kt_price_services_valid(p, p->service);
}


/* The prices per text token of a prompt of that length. */

static kt_price_tier_t
kt_price_tier(const kt_price_t *p, kt_uint128_t in_tok)
{
    unsigned         i;
    kt_price_tier_t  t;

    t = (kt_price_tier_t) { 0, p->in_pusd, p->out_pusd, p->cr_pusd,
                            p->cw_pusd, p->cw1h_pusd, p->rs_pusd, { { 0 } } };
    memcpy(t.service, p->service, sizeof(t.service));

    for (i = 0; i < p->ntiers; i++) {
        if (in_tok > kt_price_count(p->tier[i].above_tok)) {
            t = p->tier[i];
        }
    }

    return t;
}


keytoll_rc_t
kt_price_cost(const kt_price_t *price, const kt_usage_t *u, int64_t *nusd)
{
    kt_sum_t             s;
    kt_uint128_t         in, out, parts, cw, cw1h;
    kt_price_tier_t      t;
    kt_price_service_t  *own;

    if (!kt_price_valid(price)) {
        *nusd = INT64_MAX;
        return KT_RANGE;
    }

    in = kt_price_count(u->in_tok);
    out = kt_price_count(u->out_tok);
    cw = kt_price_count(u->cw_tok);
    cw1h = kt_price_count(u->cw1h_tok);

    cw = cw > cw1h ? cw - cw1h : 0;

    parts = kt_price_count(u->cr_tok) + cw + cw1h + kt_price_count(u->ai_tok)
            + kt_price_count(u->ii_tok);

    t = kt_price_tier(price, in > parts ? in : parts);

    if (u->service && u->service < KT_SERVICES
        && (price->services & (1u << u->service)))
    {
        own = &t.service[u->service];
        t.in_pusd = own->in_pusd;
        t.out_pusd = own->out_pusd;
        t.cr_pusd = own->cr_pusd;
        t.cw_pusd = own->cw_pusd;
        t.cw1h_pusd = own->cw1h_pusd;
        t.rs_pusd = own->out_pusd;
    }

    s.pusd = 0;
    s.over = 0;

    kt_price_add(&s, in > parts ? in - parts : 0, t.in_pusd);
    kt_price_add(&s, kt_price_count(u->cr_tok), t.cr_pusd);
    kt_price_add(&s, cw, t.cw_pusd);
    kt_price_add(&s, cw1h, t.cw1h_pusd);
    kt_price_add(&s, kt_price_count(u->ai_tok), price->ai_pusd);
    kt_price_add(&s, kt_price_count(u->ii_tok), price->ii_pusd);

    parts = kt_price_count(u->rs_tok) + kt_price_count(u->ao_tok)
            + kt_price_count(u->io_tok);

    kt_price_add(&s, out > parts ? out - parts : 0, t.out_pusd);
    kt_price_add(&s, kt_price_count(u->rs_tok), t.rs_pusd);
    kt_price_add(&s, kt_price_count(u->ao_tok), price->ao_pusd);
    kt_price_add(&s, kt_price_count(u->io_tok), price->io_pusd);

    kt_price_add(&s, kt_price_count(u->images), price->image_pusd);
    kt_price_add(&s, kt_price_count(u->chars), price->char_pusd);
    kt_price_add(&s, kt_price_count(u->units), price->query_pusd);
    kt_price_add(&s, kt_price_count(u->searches), price->search_pusd);
    kt_price_add(&s, 1, price->request_pusd);

    /* half a nano-USD is 500 pico-USD: parts of one cannot matter */

    kt_price_add(&s, kt_price_count(u->dur_ms)
                     * (uint64_t) price->second_pusd / KT_MS_PER_SECOND, 1);

    return kt_price_round(&s, KT_PUSD_PER_NUSD / 2, nusd);
}


/* Raises *in and *out to the dearest of a tier. */

static void
kt_price_raise(const kt_price_tier_t *t, unsigned services, int64_t *in,
    int64_t *out)
{
    unsigned                   i;
    const kt_price_service_t  *s;

    *in = kt_price_max(*in, kt_price_max(kt_price_max(t->in_pusd, t->cr_pusd),
                                         kt_price_max(t->cw_pusd,
                                                      t->cw1h_pusd)));
    *out = kt_price_max(*out, kt_price_max(t->out_pusd, t->rs_pusd));

    for (i = 1; i < KT_SERVICES; i++) {
        s = &t->service[i];

        if (services & (1u << i)) {
            *in = kt_price_max(*in, kt_price_max(kt_price_max(s->in_pusd,
                                                              s->cr_pusd),
                                                 kt_price_max(s->cw_pusd,
                                                              s->cw1h_pusd)));
            *out = kt_price_max(*out, s->out_pusd);
        }
    }
}


/* The dearest price of an input and of an output token. */

static void
kt_price_dearest(const kt_price_t *p, const kt_price_ask_t *ask, int64_t *in,
    int64_t *out)
{
    unsigned                i, services;
    kt_price_tier_t         base;
    const kt_price_tier_t  *t;

    *in = 0;
    *out = 0;
    services = p->services & ask->services;
    base = kt_price_tier(p, 0);
    kt_price_raise(&base, services, in, out);

    for (i = 0; i < p->ntiers; i++) {
        t = &p->tier[i];

        if (kt_price_count(ask->in_tok) > kt_price_count(t->above_tok)) {
            kt_price_raise(t, services, in, out);
        }
    }

    if (ask->media_in) {
        *in = kt_price_max(*in, kt_price_max(p->ai_pusd, p->ii_pusd));
    }

    if (ask->media_out) {
        *out = kt_price_max(*out, kt_price_max(p->ao_pusd, p->io_pusd));
    }
}


keytoll_rc_t
kt_price_most(const kt_price_t *price, const kt_price_ask_t *ask,
    int64_t *nusd)
{
    int64_t   in, out;
    kt_sum_t  s;

    if (!kt_price_valid(price)) {
        *nusd = INT64_MAX;
        return KT_RANGE;
    }

    kt_price_dearest(price, ask, &in, &out);

    s.pusd = 0;
    s.over = 0;

    kt_price_add(&s, kt_price_count(ask->in_tok), in);
    kt_price_add(&s, kt_price_count(ask->out_tok), out);
    kt_price_add(&s, kt_price_count(ask->images), price->image_pusd);
    kt_price_add(&s, kt_price_count(ask->chars), price->char_pusd);
    kt_price_add(&s, kt_price_count(ask->units), price->query_pusd);
    kt_price_add(&s, kt_price_count(ask->searches), price->search_pusd);
    kt_price_add(&s, 1, price->request_pusd);
    kt_price_add(&s, (kt_price_count(ask->dur_ms)
                      * (uint64_t) price->second_pusd + KT_MS_PER_SECOND - 1)
                     / KT_MS_PER_SECOND, 1);

    return kt_price_round(&s, KT_PUSD_PER_NUSD - 1, nusd);
}


keytoll_rc_t
kt_price_bound(const kt_price_t *price, int64_t in_tok, int64_t out_tok,
    int64_t *nusd)
{
    kt_price_ask_t  ask = { 0 };

    ask.in_tok = in_tok;
    ask.out_tok = out_tok;

    return kt_price_most(price, &ask, nusd);
}


int
kt_price_applies(const kt_price_t *p, kt_pay_t pay)
{
    const int  tokens = p->has_in && p->has_out;

    switch (pay) {

    case KT_PAY_INPUT:
        return p->has_in;

    case KT_PAY_IMAGE:
        return p->has_image || tokens;

    case KT_PAY_SPEECH:
        return p->has_char || tokens;

    case KT_PAY_AUDIO:
        return p->has_second || tokens;

    case KT_PAY_QUERY:
        return p->has_query || p->has_in;

    default: /* KT_PAY_TEXT */
        return tokens;
    }
}
