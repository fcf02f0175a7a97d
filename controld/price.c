#include <stdlib.h>
#include <string.h>
#include "price.h"


static int64_t
price_int(const jv_t *o, const char *name, int64_t missing)
{
    const jv_t  *v;

    v = json_get(o, name);

    return v && v->type == J_NUM ? strtoll(v->s, NULL, 10) : missing;
}


static void
price_service(const jv_t *o, kt_price_t *p, int i, const char *in, const char *out,
    const char *cr)
{
    int64_t              less;
    kt_price_service_t  *s;

    s = &p->service[i];
    s->in_pusd = price_int(o, in, -1);
    s->out_pusd = price_int(o, out, -1);

    if (s->in_pusd < 0 && s->out_pusd < 0) {
        return;
    }

    s->in_pusd = s->in_pusd < 0 ? p->in_pusd : s->in_pusd;
    s->out_pusd = s->out_pusd < 0 ? p->out_pusd : s->out_pusd;
    less = p->cr_pusd < s->in_pusd ? p->cr_pusd : s->in_pusd;
    s->cr_pusd = price_int(o, cr, less);
    p->services |= (1u << i) & 0xf;
}


/* A cache that has no price of its own costs what the tier's input does. */

static int64_t
price_tier_part(const jv_t *tier, const jv_t *row, const char *name, int64_t whole,
    int64_t last)
{
    return price_int(tier, name, price_int(row, name, -1) < 0 ? whole : last);
}


static void
price_tier(const jv_t *v, const jv_t *row, kt_price_t *p)
{
    int64_t           above;
    kt_price_tier_t  *t, last;

    above = price_int(v, "above", -1);

    if (above < 0 || p->ntiers == KT_PRICE_TIERS
        || (p->ntiers && above <= p->tier[p->ntiers - 1].above_tok))
    {
        return;
    }

    last = (kt_price_tier_t) { 0, p->in_pusd, p->out_pusd, p->cr_pusd, p->cw_pusd,
                               p->cw1h_pusd, p->rs_pusd };

    if (p->ntiers) {
        last = p->tier[p->ntiers - 1];
    }

    t = &p->tier[p->ntiers++];
    t->above_tok = above;
    t->in_pusd = price_int(v, "in", last.in_pusd);
    t->out_pusd = price_int(v, "out", last.out_pusd);
    t->cr_pusd = price_tier_part(v, row, "cr", t->in_pusd, last.cr_pusd);
    t->cw_pusd = price_tier_part(v, row, "cw", t->in_pusd, last.cw_pusd);
    t->cw1h_pusd = price_tier_part(v, row, "cw1h", t->cw_pusd, last.cw1h_pusd);
    t->rs_pusd = price_tier_part(v, row, "rs", t->out_pusd, last.rs_pusd);
}


/* The twin of ngx_http_keytoll_registry_price(). */

void
price_of(arena_t *a, const model_t *m, kt_price_t *p)
{
    int64_t      ao, io;
    const jv_t  *o, *v;

    memset(p, 0, sizeof(*p));
    o = registry_json(a, m);
    ao = price_int(o, "ao", 0);
    io = price_int(o, "io", 0);
    p->in_pusd = price_int(o, "in", 0);
    p->out_pusd = price_int(o, "out", ao > io ? ao : io);
    p->cr_pusd = price_int(o, "cr", p->in_pusd);
    p->cw_pusd = price_int(o, "cw", p->in_pusd);
    p->cw1h_pusd = price_int(o, "cw1h", p->cw_pusd);
    p->rs_pusd = price_int(o, "rs", p->out_pusd);
    p->ai_pusd = price_int(o, "ai", p->in_pusd);
    p->ii_pusd = price_int(o, "ii", p->in_pusd);
    p->ao_pusd = price_int(o, "ao", p->out_pusd);
    p->io_pusd = price_int(o, "io", p->out_pusd);
    p->image_pusd = price_int(o, "img", 0);
    p->second_pusd = price_int(o, "sec", 0);
    p->char_pusd = price_int(o, "chr", 0);
    p->query_pusd = price_int(o, "qry", 0);
    p->search_pusd = price_int(o, "web", 0);
    p->request_pusd = price_int(o, "req", 0);
    price_service(o, p, KT_SERVICE_BATCH, "bin", "bout", "bcr");
    price_service(o, p, KT_SERVICE_FLEX, "fin", "fout", "fcr");
    price_service(o, p, KT_SERVICE_PRIORITY, "pin", "pout", "pcr");
    v = json_get(o, "tiers");

    for (v = v ? v->head : NULL; v; v = v->next) {
        price_tier(v, o, p);
    }

    p->free = price_int(o, "free", 0) == 1;
    p->none = price_int(o, "noprice", 0) == 1;
}


const model_t *
price_model(const model_t *list, const char *name)
{
    const model_t  *m;

    for (m = list; m; m = m->next) {
        if (strcmp(m->name, name) == 0) {
            return m;
        }
    }

    for (m = list; m; m = m->next) {
        if (m->upstream && strcmp(m->upstream, name) == 0) {
            return m;
        }
    }

    return NULL;
}
