/*
 * kt_price_row: what a row of the registry lacks is filled in as kt_price.h
 * says.
 */

#include <string.h>

#include "kt_price_row.h"
#include "tap.h"


#define PAIRS  16

typedef struct object_s  object_t;

struct object_s {
    struct {
        const char  *name;
        int64_t      v;
    } pair[PAIRS];
    const object_t  *tier[KT_PRICE_TIERS + 2];
};


static int64_t
integer(const void *object, const char *name, int64_t missing)
{
    size_t           i;
    const object_t  *o = object;

    for (i = 0; i < PAIRS && o->pair[i].name; i++) {
        if (strcmp(o->pair[i].name, name) == 0) {
            return o->pair[i].v;
        }
    }

    return missing;
}


static const void *
tier(const void *object, unsigned i)
{
    const object_t  *o = object;

    return i < KT_PRICE_TIERS + 2 ? o->tier[i] : NULL;
}


static kt_price_t
price(const object_t *o)
{
    kt_price_t                      p;
    static const kt_price_reader_t  reader = { integer, tier };

    memset(&p, 0xff, sizeof(p));
    kt_price_row(&p, &reader, o);

    return p;
}


static void
plain(void)
{
    kt_price_t             p;
    static const object_t  none = { { { NULL, 0 } }, { NULL } };
    static const object_t  text = { { { "in", 100 }, { "out", 400 } }, { NULL } };
    static const object_t  speech = { { { "in", 5 }, { "ao", 7 }, { "io", 9 },
                                        { "chr", 3 } }, { NULL } };
    static const object_t  free_row = { { { "in", 0 }, { "out", 0 },
                                          { "free", 1 } }, { NULL } };

    p = price(&none);
    ok(p.in_pusd == 0 && p.out_pusd == 0 && p.ntiers == 0 && p.services == 0
       && !p.has_in && !p.has_out && !p.free && !p.none, "an empty row");

    p = price(&text);
    ok(p.cr_pusd == 100 && p.cw_pusd == 100 && p.cw1h_pusd == 100
       && p.ai_pusd == 100 && p.ii_pusd == 100, "caches and media cost as input");
    ok(p.rs_pusd == 400 && p.ao_pusd == 400 && p.io_pusd == 400,
       "reasoning and media as output");
    ok(p.has_in && p.has_out && !p.has_char && !p.has_image, "what it has");

    p = price(&speech);
    ok(p.out_pusd == 9 && p.ao_pusd == 7 && p.io_pusd == 9 && p.has_out,
       "without a text price the dearest of the others");
    ok(p.char_pusd == 3 && p.has_char, "characters");

    p = price(&free_row);
    ok(p.free && p.has_in && p.has_out && p.in_pusd == 0, "free");
}


static void
services(void)
{
    kt_price_t             p;
    static const object_t  row = { { { "in", 100 }, { "out", 400 }, { "cr", 10 },
                                     { "bin", 50 }, { "fin", 8 }, { "fout", 200 },
                                     { "pout", 800 }, { "pcr", 99 } },
                                   { NULL } };

    p = price(&row);
    ok(p.services == ((1u << KT_SERVICE_BATCH) | (1u << KT_SERVICE_FLEX)
                      | (1u << KT_SERVICE_PRIORITY)), "three services");
    ok(p.service[KT_SERVICE_BATCH].in_pusd == 50
       && p.service[KT_SERVICE_BATCH].out_pusd == 400
       && p.service[KT_SERVICE_BATCH].cr_pusd == 10,
       "what a service lacks is as usual");
    ok(p.service[KT_SERVICE_FLEX].cr_pusd == 8,
       "a cache costs no more than the service's input");
    ok(p.service[KT_SERVICE_PRIORITY].in_pusd == 100
       && p.service[KT_SERVICE_PRIORITY].cr_pusd == 99, "a cache price of its own");
}


static void
tiers(void)
{
    kt_price_t             p;
    static const object_t  one = { { { "above", 1000 }, { "in", 200 } }, { NULL } };
    static const object_t  two = { { { "above", 2000 }, { "out", 900 },
                                     { "cr", 20 } }, { NULL } };
    static const object_t  back = { { { "above", 1500 }, { "in", 1 } }, { NULL } };
    static const object_t  odd = { { { "in", 1 } }, { NULL } };
    static const object_t  row = { { { "in", 100 }, { "out", 400 }, { "cr", 10 } },
                                   { &one, &two, &back, &odd } };
    static const object_t  bare = { { { "in", 100 }, { "out", 400 } }, { &one } };
    static const object_t  t3 = { { { "above", 3000 } }, { NULL } };
    static const object_t  t4 = { { { "above", 4000 } }, { NULL } };
    static const object_t  t5 = { { { "above", 5000 } }, { NULL } };
    static const object_t  many = { { { "in", 1 } }, { &one, &two, &t3, &t4, &t5 } };

    p = price(&row);
    ok(p.ntiers == 2, "those that do not ascend are left out");
    ok(p.tier[0].above_tok == 1000 && p.tier[0].in_pusd == 200
       && p.tier[0].out_pusd == 400 && p.tier[0].cr_pusd == 10,
       "a tier is as below it, a cache price of the row stays");
    ok(p.tier[0].cw_pusd == 200 && p.tier[0].cw1h_pusd == 200,
       "a cache without a price costs what the tier's input does");
    ok(p.tier[1].in_pusd == 200 && p.tier[1].out_pusd == 900
       && p.tier[1].cr_pusd == 20 && p.tier[1].rs_pusd == 900, "and so on");

    p = price(&bare);
    ok(p.tier[0].cr_pusd == 200 && p.tier[0].rs_pusd == 400, "no cache price at all");

    p = price(&many);
    ok(p.ntiers == KT_PRICE_TIERS, "no more than fit");
}


int
main(void)
{
    plain();
    services();
    tiers();

    return tap_done();
}
