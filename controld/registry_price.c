#include <stdlib.h>
#include <string.h>
#include "kt_money.h"
#include "log.h"
#include "registry.h"


/* LiteLLM's names and those of the registry; a tier's go into an object of its own. */

typedef struct {
    const char  *name;
    const char  *key;
    int          above;              /* thousands of tokens, 0: not of a tier  */
} registry_extra_t;

#define SERVICE(in, out, cr, cw, suffix, x, k)                                      \
    { in suffix, x "in", k },                                                       \
    { out suffix, x "out", k },                                                     \
    { cr suffix, x "cr", k },                                                       \
    { cw suffix, x "cw", k }

#define SERVICES(in, out, cr, cw, k)                                                \
    SERVICE(in, out, cr, cw, "_batches", "b", k),                                   \
    SERVICE(in, out, cr, cw, "_flex", "f", k),                                      \
    SERVICE(in, out, cr, cw, "_priority", "p", k)

#define TIER(n, k)                                                                  \
    { "input_cost_per_token_above_" n "k_tokens", "in", k },                        \
    { "output_cost_per_token_above_" n "k_tokens", "out", k },                      \
    { "cache_read_input_token_cost_above_" n "k_tokens", "cr", k },                 \
    { "cache_creation_input_token_cost_above_" n "k_tokens", "cw", k },             \
    { "cache_creation_input_token_cost_above_1hr_above_" n "k_tokens", "cw1h", k }, \
    { "output_cost_per_reasoning_token_above_" n "k_tokens", "rs", k },             \
    SERVICES("input_cost_per_token_above_" n "k_tokens",                            \
             "output_cost_per_token_above_" n "k_tokens",                           \
             "cache_read_input_token_cost_above_" n "k_tokens",                     \
             "cache_creation_input_token_cost_above_" n "k_tokens", k)

static const registry_extra_t  registry_extras[] = {
    { "cache_creation_input_token_cost_above_1hr", "cw1h", 0 },
    { "input_cost_per_audio_token", "ai", 0 },
    { "output_cost_per_audio_token", "ao", 0 },
    { "input_cost_per_image_token", "ii", 0 },
    { "output_cost_per_image_token", "io", 0 },
    { "input_cost_per_image", "img", 0 },
    { "output_cost_per_image", "img", 0 },
    { "input_cost_per_second", "sec", 0 },
    { "output_cost_per_second", "sec", 0 },
    { "input_cost_per_audio_per_second", "sec", 0 },
    { "input_cost_per_character", "chr", 0 },
    { "input_cost_per_query", "qry", 0 },
    { "input_cost_per_request", "req", 0 },
    { "search_context_cost_per_query", "web", 0 },
    SERVICES("input_cost_per_token", "output_cost_per_token",
             "cache_read_input_token_cost", "cache_creation_input_token_cost", 0),
    TIER("128", 128),
    TIER("200", 200),
    TIER("256", 256),
    TIER("272", 272),
    TIER("512", 512)
};

#undef TIER
#undef SERVICES
#undef SERVICE

#define REGISTRY_NEXTRAS  (sizeof(registry_extras) / sizeof(registry_extras[0]))

_Static_assert(REGISTRY_NEXTRAS <= REGISTRY_EXTRAS, "extra[] is too short");

int64_t
registry_price(const jv_t *o, const char *name)
{
    int64_t      v;
    const jv_t  *n;

    n = json_get(o, name);

    if (json_is_null(n)) {
        return -1;
    }

    if ((n->type != J_NUM && n->type != J_STR)
        || kt_money_parse(n->s, n->len, KT_MONEY_PICO, &v) != KT_OK || v < 0)
    {
        return -2;
    }

    return v;
}


/* Web searches cost by the size of what they bring; the middle one is the default. */

static int64_t
registry_search(const jv_t *o)
{
    if (o->type != J_OBJ) {
        return -2;
    }

    return registry_price(o, "search_context_size_medium");
}


int
registry_extra(const jv_t *o, int64_t *extra, const char **bad)
{
    size_t       i;
    const jv_t  *v;

    for (i = 0; i < REGISTRY_EXTRAS; i++) {
        extra[i] = -1;
    }

    for (i = 0; i < REGISTRY_NEXTRAS; i++) {
        v = json_get(o, registry_extras[i].name);

        if (json_is_null(v)) {
            continue;
        }

        extra[i] = strcmp(registry_extras[i].key, "web") == 0
                   ? registry_search(v) : registry_price(o, registry_extras[i].name);

        if (extra[i] < -1) {
            *bad = registry_extras[i].name;
            return -1;
        }
    }

    return 0;
}


/* The first price under a key of the registry, -1 when there is none. */

int64_t
registry_extra_of(const int64_t *extra, const char *key)
{
    size_t  i;

    for (i = 0; i < REGISTRY_NEXTRAS; i++) {
        if (extra[i] >= 0 && registry_extras[i].above == 0
            && strcmp(registry_extras[i].key, key) == 0)
        {
            return extra[i];
        }
    }

    return -1;
}


static void
registry_extra_set(jv_t *o, arena_t *a, const char *key, int64_t v)
{
    if (v >= 0 && json_get(o, key) == NULL) {
        json_set(o, key, json_int(a, v));
    }
}


/* In pico-USD, under the names that the registry has in Redis. */

jv_t *
registry_extra_json(arena_t *a, const int64_t *extra)
{
    int      above;
    jv_t    *o, *tiers, *tier;
    size_t   i;

    o = json_obj(a);
    tiers = json_arr(a);
    tier = NULL;
    above = 0;

    for (i = 0; i < REGISTRY_NEXTRAS; i++) {

        if (extra[i] < 0) {
            continue;
        }

        if (registry_extras[i].above == 0) {
            registry_extra_set(o, a, registry_extras[i].key, extra[i]);
            continue;
        }

        if (tier == NULL || above != registry_extras[i].above) {
            above = registry_extras[i].above;
            tier = json_obj(a);
            json_set(tier, "above", json_int(a, above * 1000));
            json_push(tiers, tier);
        }

        registry_extra_set(tier, a, registry_extras[i].key, extra[i]);
    }

    if (tier) {
        json_set(o, "tiers", tiers);
    }

    return o;
}


jv_t *
registry_extra_pick(arena_t *a, const jv_t *o)
{
    jv_t        *out;
    size_t       i;
    const jv_t  *v;

    out = json_obj(a);

    for (i = 0; i < REGISTRY_NEXTRAS; i++) {
        v = json_get(o, registry_extras[i].name);

        if (!json_is_null(v)) {
            json_set(out, registry_extras[i].name, json_copy(a, v));
        }
    }

    return out;
}


int64_t
registry_count(const jv_t *o, const char *name)
{
    int64_t      v;
    const jv_t  *n;

    n = json_get(o, name);

    if (json_is_null(n)) {
        return -1;
    }

    if ((n->type != J_NUM && n->type != J_STR)
        || kt_money_parse(n->s, n->len, 0, &v) != KT_OK || v <= 0)
    {
        return -1;
    }

    return v;
}
