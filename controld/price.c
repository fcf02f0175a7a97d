#include <stdlib.h>
#include <string.h>
#include "kt_price_row.h"
#include "price.h"


static int64_t
price_integer(const void *object, const char *name, int64_t missing)
{
    const jv_t  *v;

    v = json_get(object, name);

    return v && v->type == J_NUM ? strtoll(v->s, NULL, 10) : missing;
}


static const void *
price_tier(const void *object, unsigned i)
{
    const jv_t  *v;

    v = json_get(object, "tiers");

    for (v = v ? v->head : NULL; v && i; v = v->next) {
        i--;
    }

    return v;
}


void
price_of(arena_t *a, const model_t *m, kt_price_t *p)
{
    static const kt_price_reader_t  reader = { price_integer, price_tier };

    kt_price_row(p, &reader, registry_json(a, m));
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
