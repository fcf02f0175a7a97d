/*
 * Usage as providers report it, times prices: the costs of prices.tsv, which
 * t/unit/prices.t computes with whole numbers of any size; by prices that are
 * filled in there, and by those that kt_price_row() fills in.
 */

#include <stdlib.h>
#include <yajl/yajl_tree.h>

#include "kt_price_row.h"
#include "tap.h"


#define USAGES  256

static size_t      nusages;
static kt_usage_t  usage[USAGES];


/* name=value pairs of a row. */

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


static kt_price_service_t
service(const char *row, char letter, const char *tier)
{
    char                name[16];
    size_t              i;
    kt_price_service_t  s;

    static const char *const  kind[] = { "in", "out", "cr", "cw", "cw1h" };
    int64_t *const            to[] = { &s.in_pusd, &s.out_pusd, &s.cr_pusd,
                                       &s.cw_pusd, &s.cw1h_pusd };

    for (i = 0; i < sizeof(kind) / sizeof(kind[0]); i++) {
        snprintf(name, sizeof(name), "%s%c%s%s", *tier ? "t" : "", letter,
                 kind[i], tier);
        *to[i] = field(row, name, -1);
    }

    return s;
}


/* The struct as it stands when all is filled in. */

static kt_price_t
price(const char *row)
{
    char              name[16], tier[2];
    size_t            k;
    unsigned          i;
    kt_price_t        p;
    kt_price_tier_t  *t;

    static const char         letter[] = " bfp";
    static const char *const  kind[] = { "in", "out", "cr", "cw", "cw1h", "rs" };

    memset(&p, 0, sizeof(p));

    p.in_pusd = field(row, "in", -1);
    p.out_pusd = field(row, "out", -1);
    p.cr_pusd = field(row, "cr", -1);
    p.cw_pusd = field(row, "cw", -1);
    p.cw1h_pusd = field(row, "cw1h", -1);
    p.rs_pusd = field(row, "rs", -1);
    p.ai_pusd = field(row, "ai", -1);
    p.ao_pusd = field(row, "ao", -1);
    p.ii_pusd = field(row, "ii", -1);
    p.io_pusd = field(row, "io", -1);
    p.image_pusd = field(row, "img", -1);
    p.second_pusd = field(row, "sec", -1);
    p.char_pusd = field(row, "chr", -1);
    p.query_pusd = field(row, "qry", -1);
    p.search_pusd = field(row, "web", -1);
    p.request_pusd = field(row, "req", -1);

    for (i = 1; i < KT_SERVICES; i++) {
        p.service[i] = service(row, letter[i], "");

        if (p.service[i].in_pusd >= 0) {
            p.services |= (1u << i) & 0xf;
        }
    }

    for (tier[1] = 0, tier[0] = '0'; tier[0] < '2'; tier[0]++) {
        t = &p.tier[p.ntiers];
        snprintf(name, sizeof(name), "above%s", tier);
        t->above_tok = field(row, name, -1);

        if (t->above_tok < 0) {
            continue;
        }

        int64_t *const  to[] = { &t->in_pusd, &t->out_pusd, &t->cr_pusd,
                                 &t->cw_pusd, &t->cw1h_pusd, &t->rs_pusd };

        for (k = 0; k < sizeof(kind) / sizeof(kind[0]); k++) {
            snprintf(name, sizeof(name), "t%s%s", kind[k], tier);
            *to[k] = field(row, name, -1);
        }

        for (i = 1; i < KT_SERVICES; i++) {
            t->service[i] = service(row, letter[i], tier);
        }

        p.ntiers++;
    }

    return p;
}


/* The row of the registry, read as the gate reads it. */

static int64_t
integer(const void *object, const char *name, int64_t missing)
{
    yajl_val    n;
    const char *path[] = { name, NULL };

    n = yajl_tree_get((yajl_val) object, path, yajl_t_number);

    return n && YAJL_IS_INTEGER(n) ? YAJL_GET_INTEGER(n) : missing;
}


static const void *
tier_of(const void *object, unsigned i)
{
    yajl_val     list;
    const char  *path[] = { "tiers", NULL };

    list = yajl_tree_get((yajl_val) object, path, yajl_t_array);

    return list && i < YAJL_GET_ARRAY(list)->len
           ? YAJL_GET_ARRAY(list)->values[i] : NULL;
}


static int
read_row(const char *json, kt_price_t *p)
{
    yajl_val  v;

    static const kt_price_reader_t  reader = { integer, tier_of };

    v = yajl_tree_parse(json, NULL, 0);

    if (v == NULL) {
        return 0;
    }

    kt_price_row(p, &reader, v);
    yajl_tree_free(v);

    return 1;
}


/* The most that it could have cost, by counts alone. */

static int
within(const kt_price_t *p, const kt_usage_t *u)
{
    int64_t         cost, most;
    kt_usage_t      v;
    kt_price_ask_t  ask;

    v = *u;
    v.searches = 0;                            /* nobody knows how many       */

    memset(&ask, 0, sizeof(ask));
    ask.in_tok = u->in_tok;
    ask.out_tok = u->out_tok;
    ask.images = u->images;
    ask.chars = u->chars;
    ask.units = u->units;
    ask.dur_ms = u->dur_ms;
    ask.services = 1u << u->service;
    ask.media_in = u->ai_tok || u->ii_tok;
    ask.media_out = u->ao_tok || u->io_tok;

    return kt_price_cost(p, &v, &cost) == KT_OK
           && kt_price_most(p, &ask, &most) == KT_OK && cost <= most;
}


static void
costs(char *row)
{
    int          i, high;
    size_t       k;
    char        *json, *full, *want, name[64];
    int64_t      nusd;
    kt_price_t   p[2];

    static const char *const  by[] = { "struct", "row" };

    json = strtok(row, "\t");
    full = strtok(NULL, "\t");

    if (!ok(json && full && read_row(json, &p[1]), "a row: %s", json)) {
        return;
    }

    p[0] = price(full);
    high = 0;

    for (k = 0; k < nusages; k++) {
        want = strtok(NULL, "\t\n");

        for (i = 0; i < 2; i++) {
            if (want == NULL || kt_price_cost(&p[i], &usage[k], &nusd) != KT_OK) {
                ok(0, "%s, usage %zu, by the %s", json, k, by[i]);
                continue;
            }

            snprintf(name, sizeof(name), "usage %zu by the %s", k, by[i]);
            is_int(nusd, strtoll(want, NULL, 10), name);
            high += !within(&p[i], &usage[k]);
        }
    }

    ok(high == 0, "no cost above the bound of its counts");
}


int
main(int argc, char **argv)
{
    char   *kind, *json, *images, *chars;
    FILE   *f;

    static char  line[65536];

    f = fopen(argc > 1 ? argv[1] : "t/unit/prices.tsv", "r");

    if (!ok(f != NULL, "the table is there")) {
        return tap_done();
    }

    while (fgets(line, sizeof(line), f)) {
        kind = strtok(line, "\t");

        if (strcmp(kind, "price") == 0) {
            costs(kind + strlen(kind) + 1);
            continue;
        }

        json = strtok(NULL, "\t");
        images = strtok(NULL, "\t");
        chars = strtok(NULL, "\n");

        if (nusages == USAGES || chars == NULL
            || kt_usage_merge(&usage[nusages], KT_SHAPE_ANY,
                              (unsigned char *) json, strlen(json)) != KT_OK)
        {
            ok(0, "a usage: %s", json);
            continue;
        }

        usage[nusages].images = strtoll(images, NULL, 10);
        usage[nusages++].chars = strtoll(chars, NULL, 10);
    }

    fclose(f);
    ok(tap_n > 2000, "of more than 2000 costs");

    return tap_done();
}
