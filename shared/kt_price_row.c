#include <string.h>

#include "kt_price_row.h"


__extension__ typedef unsigned __int128  kt_uint128_t;


typedef struct {
    const kt_price_reader_t  *reader;
    const void               *row;
    kt_price_t               *p;
} row_t;


static const struct {
    const char  *in;
    const char  *out;
    const char  *cr;
    const char  *cw;
} row_services[KT_SERVICES] = {
    { NULL, NULL, NULL, NULL },
    { "bin", "bout", "bcr", "bcw" },         /* KT_SERVICE_BATCH              */
    { "fin", "fout", "fcr", "fcw" },         /* KT_SERVICE_FLEX               */
    { "pin", "pout", "pcr", "pcw" }          /* KT_SERVICE_PRIORITY           */
};


static int64_t
row_int(const row_t *r, const char *name, int64_t missing)
{
    return r->reader->integer(r->row, name, missing);
}


static int
row_has(const row_t *r, const char *name)
{
    return row_int(r, name, -1) >= 0;
}


static int64_t
larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}


static int64_t
smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}


static void
row_flags(const row_t *r)
{
    kt_price_t  *p;

    p = r->p;
    p->has_in = row_has(r, "in") ? 1 : 0;
    p->has_out = row_has(r, "out") || row_has(r, "ao") || row_has(r, "io")
                 ? 1 : 0;
    p->has_image = row_has(r, "img") ? 1 : 0;
    p->has_second = row_has(r, "sec") ? 1 : 0;
    p->has_char = row_has(r, "chr") ? 1 : 0;
    p->has_query = row_has(r, "qry") ? 1 : 0;
    p->free = row_int(r, "free", 0) == 1;
    p->none = row_int(r, "noprice", 0) == 1;
}


/* price, made dearer as `whole` is made `dear`; rounded up. */

static int64_t
row_scaled(int64_t price, int64_t whole, int64_t dear)
{
    kt_uint128_t  n;

    if (whole <= 0 || price < 0 || dear < 0) {
        return larger(price, dear);
    }

    n = ((kt_uint128_t) price * (uint64_t) dear + (uint64_t) whole - 1)
        / (uint64_t) whole;

    return n > INT64_MAX ? INT64_MAX : (int64_t) n;
}


/*
 * What a service lacks is as usual, but a cache that has no price of its own
 * costs what the service's input does, and reading one no more than that.
 */

static void
row_service(const row_t *r, unsigned i)
{
    kt_price_t          *p;
    kt_price_service_t  *s;

    p = r->p;
    s = &p->service[i];
    s->in_pusd = row_int(r, row_services[i].in, -1);
    s->out_pusd = row_int(r, row_services[i].out, -1);

    if (s->in_pusd < 0 && s->out_pusd < 0) {
        return;
    }

    s->in_pusd = s->in_pusd < 0 ? p->in_pusd : s->in_pusd;
    s->out_pusd = s->out_pusd < 0 ? p->out_pusd : s->out_pusd;
    s->cr_pusd = row_int(r, row_services[i].cr, row_has(r, "cr")
                         ? smaller(p->cr_pusd, s->in_pusd) : s->in_pusd);
    s->cw_pusd = row_int(r, row_services[i].cw,
                         row_has(r, "cw") ? p->cw_pusd : s->in_pusd);
    s->cw1h_pusd = row_scaled(p->cw1h_pusd, p->cw_pusd, s->cw_pusd);
    p->services |= (1u << i) & 0xf;
}


/*
 * What a tier lacks is as below it, but a cache that has no price of its own
 * costs what the tier's input does.
 */

static int64_t
row_tier_part(const row_t *r, const void *tier, const char *name, int64_t whole,
    int64_t last)
{
    return r->reader->integer(tier, name, row_has(r, name) ? last : whole);
}


/* What a service lacks in a tier is as much dearer than below as the tier. */

static void
row_tier_service(const row_t *r, const void *tier, unsigned i,
    kt_price_tier_t *t, const kt_price_tier_t *last)
{
    kt_price_service_t        *s;
    const kt_price_service_t  *below;

    s = &t->service[i];
    below = &last->service[i];
    s->in_pusd = r->reader->integer(tier, row_services[i].in,
        row_scaled(below->in_pusd, last->in_pusd, t->in_pusd));
    s->out_pusd = r->reader->integer(tier, row_services[i].out,
        row_scaled(below->out_pusd, last->out_pusd, t->out_pusd));
    s->cr_pusd = r->reader->integer(tier, row_services[i].cr,
        row_scaled(below->cr_pusd, last->cr_pusd, t->cr_pusd));
    s->cw_pusd = r->reader->integer(tier, row_services[i].cw,
        row_scaled(below->cw_pusd, last->cw_pusd, t->cw_pusd));
    s->cw1h_pusd = row_scaled(t->cw1h_pusd, t->cw_pusd, s->cw_pusd);
}


static void
row_tier(const row_t *r, const void *tier)
{
    unsigned          i;
    int64_t           above;
    kt_price_t       *p;
    kt_price_tier_t  *t, last;

    p = r->p;
    above = r->reader->integer(tier, "above", -1);

    if (above < 0 || p->ntiers == KT_PRICE_TIERS
        || (p->ntiers && above <= p->tier[p->ntiers - 1].above_tok))
    {
        return;
    }

    last = (kt_price_tier_t) { 0, p->in_pusd, p->out_pusd, p->cr_pusd,
                               p->cw_pusd, p->cw1h_pusd, p->rs_pusd,
                               { { 0 } } };
    memcpy(last.service, p->service, sizeof(last.service));

    if (p->ntiers) {
        last = p->tier[p->ntiers - 1];
    }

    t = &p->tier[p->ntiers++];
    t->above_tok = above;
    t->in_pusd = r->reader->integer(tier, "in", last.in_pusd);
    t->out_pusd = r->reader->integer(tier, "out", last.out_pusd);
    t->cr_pusd = row_tier_part(r, tier, "cr", t->in_pusd, last.cr_pusd);
    t->cw_pusd = row_tier_part(r, tier, "cw", t->in_pusd, last.cw_pusd);
    t->cw1h_pusd = row_tier_part(r, tier, "cw1h", t->cw_pusd, last.cw1h_pusd);
    t->rs_pusd = row_tier_part(r, tier, "rs", t->out_pusd, last.rs_pusd);

    for (i = 1; i < KT_SERVICES; i++) {
        if (p->services & (1u << i)) {
            row_tier_service(r, tier, i, t, &last);
        }
    }
}


void
kt_price_row(kt_price_t *p, const kt_price_reader_t *reader, const void *row)
{
    unsigned     i;
    const void  *tier;

    const row_t  r = { reader, row, p };

    memset(p, 0, sizeof(*p));
    row_flags(&r);

    p->in_pusd = row_int(&r, "in", 0);
    p->out_pusd = row_int(&r, "out", larger(row_int(&r, "ao", 0),
                                            row_int(&r, "io", 0)));
    p->cr_pusd = row_int(&r, "cr", p->in_pusd);
    p->cw_pusd = row_int(&r, "cw", p->in_pusd);
    p->cw1h_pusd = row_int(&r, "cw1h", p->cw_pusd);
    p->rs_pusd = row_int(&r, "rs", p->out_pusd);
    p->ai_pusd = row_int(&r, "ai", p->in_pusd);
    p->ii_pusd = row_int(&r, "ii", p->in_pusd);
    p->ao_pusd = row_int(&r, "ao", p->out_pusd);
    p->io_pusd = row_int(&r, "io", p->out_pusd);
    p->image_pusd = row_int(&r, "img", 0);
    p->second_pusd = row_int(&r, "sec", 0);
    p->char_pusd = row_int(&r, "chr", 0);
    p->query_pusd = row_int(&r, "qry", 0);
    p->search_pusd = row_int(&r, "web", 0);
    p->request_pusd = row_int(&r, "req", 0);

    for (i = 1; i < KT_SERVICES; i++) {
        row_service(&r, i);
    }

    for (i = 0; (tier = reader->tier(row, i)) != NULL; i++) {
        row_tier(&r, tier);
    }
}
