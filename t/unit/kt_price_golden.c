/*
 * Usage as providers report it, times prices: the costs of prices.tsv, which
 * t/unit/prices.t computes with whole numbers of any size.
 */

#include <stdlib.h>

#include "kt_price.h"
#include "tap.h"


/* name=value pairs of a row, as the registry has them; -1 when absent. */

static int64_t
field(const char *row, const char *name, int64_t missing)
{
    size_t       n;
    const char  *p;

    n = strlen(name);

    for (p = row; (p = strstr(p, name)) != NULL; p += n) {
        if ((p == row || p[-1] == ' ') && p[n] == '=') {
            return strtoll(p + n + 1, NULL, 10);
        }
    }

    return missing;
}


static kt_price_t
price(const char *row)
{
    char         name[16];
    unsigned     i;
    kt_price_t   p;

    static const char  letter[] = " bfp";

    memset(&p, 0, sizeof(p));

    p.in_pusd = field(row, "in", 0);
    p.out_pusd = field(row, "out", 0);
    p.cr_pusd = field(row, "cr", p.in_pusd);
    p.cw_pusd = field(row, "cw", p.in_pusd);
    p.cw1h_pusd = field(row, "cw1h", p.cw_pusd);
    p.rs_pusd = field(row, "rs", p.out_pusd);
    p.ai_pusd = field(row, "ai", p.in_pusd);
    p.ao_pusd = field(row, "ao", p.out_pusd);
    p.ii_pusd = field(row, "ii", p.in_pusd);
    p.io_pusd = field(row, "io", p.out_pusd);
    p.second_pusd = field(row, "sec", 0);
    p.query_pusd = field(row, "qry", 0);
    p.search_pusd = field(row, "web", 0);
    p.request_pusd = field(row, "req", 0);

    for (i = 1; i < KT_SERVICES; i++) {
        snprintf(name, sizeof(name), "%cin", letter[i]);
        p.service[i].in_pusd = field(row, name, -1);

        if (p.service[i].in_pusd < 0) {
            continue;
        }

        snprintf(name, sizeof(name), "%cout", letter[i]);
        p.service[i].out_pusd = field(row, name, p.out_pusd);
        snprintf(name, sizeof(name), "%ccr", letter[i]);
        p.service[i].cr_pusd = field(row, name, p.cr_pusd);
        p.services |= 1u << i;
    }

    for (i = 0; i < 2; i++) {
        kt_price_tier_t  *t = &p.tier[p.ntiers];

        snprintf(name, sizeof(name), "above%u", i);
        t->above_tok = field(row, name, -1);

        if (t->above_tok < 0) {
            continue;
        }

        snprintf(name, sizeof(name), "tin%u", i);
        t->in_pusd = field(row, name, p.in_pusd);
        snprintf(name, sizeof(name), "tout%u", i);
        t->out_pusd = field(row, name, p.out_pusd);
        snprintf(name, sizeof(name), "tcr%u", i);
        t->cr_pusd = field(row, name, p.cr_pusd);
        t->cw_pusd = p.cw_pusd;
        t->cw1h_pusd = p.cw1h_pusd;
        t->rs_pusd = t->out_pusd;
        p.ntiers++;
    }

    return p;
}


int
main(int argc, char **argv)
{
    char         line[4096], *row, *usage, *want;
    FILE        *f;
    int64_t      nusd;
    kt_usage_t   u;
    kt_price_t   p;

    f = fopen(argc > 1 ? argv[1] : "t/unit/prices.tsv", "r");

    if (!ok(f != NULL, "the table is there")) {
        return tap_done();
    }

    while (fgets(line, sizeof(line), f)) {
        row = strtok(line, "\t");
        usage = strtok(NULL, "\t");
        want = strtok(NULL, "\n");

        if (row == NULL || usage == NULL || want == NULL) {
            ok(0, "a row of three columns");
            continue;
        }

        p = price(row);
        memset(&u, 0, sizeof(u));

        if (kt_usage_merge(&u, KT_SHAPE_ANY, (unsigned char *) usage,
                           strlen(usage)) != KT_OK
            || kt_price_cost(&p, &u, &nusd) != KT_OK)
        {
            ok(0, "%s", usage);
            continue;
        }

        is_int(nusd, strtoll(want, NULL, 10), usage);
    }

    fclose(f);
    ok(tap_n > 500, "of more than 500 rows");

    return tap_done();
}
