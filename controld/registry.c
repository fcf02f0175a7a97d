#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "conf.h"
#include "db.h"
#include "kt_key.h"
#include "kt_money.h"
#include "kt_schema.h"
#include "log.h"
#include "policy.h"
#include "rds.h"
#include "registry.h"
#include "util.h"


#define REGISTRY_TRIES  50           /* pushes that may come between           */


/* LiteLLM's names and those of the registry; a tier's go into an object of its own. */

typedef struct {
    const char  *name;
    const char  *key;
    int          above;              /* thousands of tokens, 0: not of a tier  */
} registry_extra_t;

#define TIER(n, k)                                                                  \
    { "input_cost_per_token_above_" n "k_tokens", "in", k },                        \
    { "output_cost_per_token_above_" n "k_tokens", "out", k },                      \
    { "cache_read_input_token_cost_above_" n "k_tokens", "cr", k },                 \
    { "cache_creation_input_token_cost_above_" n "k_tokens", "cw", k },             \
    { "cache_creation_input_token_cost_above_1hr_above_" n "k_tokens", "cw1h", k }, \
    { "output_cost_per_reasoning_token_above_" n "k_tokens", "rs", k }

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
    { "input_cost_per_token_batches", "bin", 0 },
    { "output_cost_per_token_batches", "bout", 0 },
    { "input_cost_per_token_flex", "fin", 0 },
    { "output_cost_per_token_flex", "fout", 0 },
    { "cache_read_input_token_cost_flex", "fcr", 0 },
    { "input_cost_per_token_priority", "pin", 0 },
    { "output_cost_per_token_priority", "pout", 0 },
    { "cache_read_input_token_cost_priority", "pcr", 0 },
    TIER("128", 128),
    TIER("200", 200),
    TIER("256", 256),
    TIER("272", 272)
};

#undef TIER

#define REGISTRY_NEXTRAS  (sizeof(registry_extras) / sizeof(registry_extras[0]))

_Static_assert(REGISTRY_NEXTRAS <= REGISTRY_EXTRAS, "extra[] is too short");

static arena_t   registry_arena;
static model_t  *registry_static;       /* models.yaml, then model_list        */


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

static int64_t
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

static jv_t *
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


static model_t *
registry_new(arena_t *a, const char *name, const char *source)
{
    model_t  *m;

    m = arena_alloc(a, sizeof(model_t));
    m->name = arena_str(a, name);
    m->source = source;
    m->in_pusd = m->out_pusd = m->cr_pusd = m->cw_pusd = m->rs_pusd = -1;
    memset(m->extra, 0xff, sizeof(m->extra));
    m->max_out = m->max_in = -1;

    return m;
}


static int
registry_prices(model_t *m, const jv_t *o)
{
    const char  *bad;

    if (registry_extra(o, m->extra, &bad) != 0) {
        return -1;
    }

    m->in_pusd = registry_price(o, "input_cost_per_token");
    m->out_pusd = registry_price(o, "output_cost_per_token");
    m->cr_pusd = registry_price(o, "cache_read_input_token_cost");
    m->cw_pusd = registry_price(o, "cache_creation_input_token_cost");
    m->rs_pusd = registry_price(o, "output_cost_per_reasoning_token");

    return m->in_pusd < -1 || m->out_pusd < -1 || m->cr_pusd < -1
           || m->cw_pusd < -1 || m->rs_pusd < -1 ? -1 : 0;
}


static model_t *
registry_find(model_t *list, const char *name)
{
    for (; list; list = list->next) {
        if (strcmp(list->name, name) == 0) {
            return list;
        }
    }

    return NULL;
}


/* One of models.yaml: name, provider, mode, prices, limits. */

static int
registry_file_entry(const jv_t *v, model_t ***end)
{
    model_t     *m;
    const char  *name;

    name = json_str(v, "name");

    if (name == NULL || !util_id_ok(name)) {
        fprintf(stderr, "keytoll-controld: %s: a model without a name\n",
                conf.models_file);
        return -1;
    }

    m = registry_new(&registry_arena, name, "file");
    m->provider = json_str(v, "provider");
    m->mode = json_str(v, "mode");
    m->upstream = json_str(v, "upstream");
    m->max_out = registry_count(v, "max_output_tokens");
    m->max_in = registry_count(v, "max_input_tokens");
    m->id = name;

    if (registry_prices(m, v) != 0 || registry_find(registry_static, name)) {
        fprintf(stderr, "keytoll-controld: %s: model %s has a bad price or is"
                " given twice\n", conf.models_file, name);
        return -1;
    }

    **end = m;
    *end = &m->next;

    return 0;
}


static const char *
registry_bare(const char *upstream)
{
    const char  *slash;

    slash = strchr(upstream, '/');

    return slash ? slash + 1 : upstream;
}


/* "openai/gpt-4o" -> provider openai, model sent upstream gpt-4o. */

static void
registry_deployment(arena_t *a, model_t *m)
{
    const char  *model, *slash;

    model = json_str(m->params, "model");
    m->provider = json_str(m->params, "custom_llm_provider");
    m->mode = json_str(m->info, "mode");

    if (model == NULL) {
        return;
    }

    slash = strchr(model, '/');

    if (m->provider == NULL && slash) {
        m->provider = arena_dup(a, model, (size_t) (slash - model));
    }

    m->upstream = arena_str(a, registry_bare(model));
}


/* The price entry of a name; an imported one is newer than the file's. */

static model_t *
registry_entry(model_t *list, const char *name)
{
    model_t  *found;

    for (found = NULL; list; list = list->next) {
        if ((!strcmp(list->source, "file") || !strcmp(list->source, "import"))
            && strcmp(list->name, name) == 0)
        {
            found = list;
        }
    }

    return found;
}


/* Fills what a deployment does not say from the price entry of its model. */

static void
registry_inherit(model_t *m, model_t *prices)
{
    int          own;
    size_t       i;
    model_t     *p;
    const char  *base, *model;

    base = json_str(m->info, "base_model");
    model = json_str(m->params, "model");
    p = base ? registry_entry(prices, base) : NULL;

    if (p == NULL && model) {
        p = registry_entry(prices, model);
    }

    if (p == NULL && m->upstream) {
        p = registry_entry(prices, m->upstream);
    }

    if (p == NULL) {
        return;
    }

    own = m->in_pusd != -1 || m->out_pusd != -1;

    if (!own) {
        m->in_pusd = p->in_pusd;
        m->out_pusd = p->out_pusd;
        m->cr_pusd = m->cr_pusd == -1 ? p->cr_pusd : m->cr_pusd;
        m->cw_pusd = m->cw_pusd == -1 ? p->cw_pusd : m->cw_pusd;
        m->rs_pusd = m->rs_pusd == -1 ? p->rs_pusd : m->rs_pusd;
    }

    for (i = 0; i < REGISTRY_NEXTRAS; i++) {
        m->extra[i] = own || m->extra[i] >= 0 ? m->extra[i] : p->extra[i];
    }

    m->max_out = m->max_out == -1 ? p->max_out : m->max_out;
    m->max_in = m->max_in == -1 ? p->max_in : m->max_in;
    m->provider = m->provider ? m->provider : p->provider;
    m->mode = m->mode ? m->mode : p->mode;
}


static int
registry_config_entry(const jv_t *v, model_t ***end)
{
    char         hash[65];
    model_t     *m;
    const char  *name, *text;

    name = json_str(v, "model_name");

    if (name == NULL || !util_id_ok(name)
        || json_str(json_get(v, "litellm_params"), "model") == NULL)
    {
        fprintf(stderr, "keytoll-controld: model_list: every entry needs"
                " model_name and litellm_params.model\n");
        return -1;
    }

    m = registry_new(&registry_arena, name, "config");
    m->params = json_get(v, "litellm_params");
    m->info = json_get(v, "model_info");
    text = json_text(&registry_arena, v);
    kt_key_token(text, strlen(text), hash);
    m->id = json_str(m->info, "id") ? json_str(m->info, "id")
                                    : arena_dup(&registry_arena, hash, 64);
    registry_deployment(&registry_arena, m);

    if (registry_prices(m, m->params) != 0) {
        fprintf(stderr, "keytoll-controld: model_list: %s has a bad price\n",
                name);
        return -1;
    }

    m->max_out = registry_count(m->info, "max_output_tokens");
    m->max_in = registry_count(m->info, "max_input_tokens");
    **end = m;
    *end = &m->next;

    return 0;
}


int
registry_init(void)
{
    jv_t      *doc, *v;
    model_t  **end;

    arena_init(&registry_arena);
    end = &registry_static;
    doc = conf_yaml(&registry_arena, conf.models_file);

    if (doc == NULL) {
        return -1;
    }

    v = json_get(doc, "models");

    for (v = v ? v->head : NULL; v; v = v->next) {
        if (registry_file_entry(v, &end) != 0) {
            return -1;
        }
    }

    for (v = conf.model_list ? conf.model_list->head : NULL; v; v = v->next) {
        if (registry_config_entry(v, &end) != 0) {
            return -1;
        }
    }

    return 0;
}


static int64_t
registry_col(PGresult *r, int row, int col)
{
    return PQgetisnull(r, row, col) ? -1 : db_int(r, row, col);
}


/* An import has them in model_info, a deployment in litellm_params. */

static void
registry_row_extra(model_t *m)
{
    const char  *bad;

    if (registry_extra(strcmp(m->source, "api") ? m->info : m->params, m->extra, &bad)
        != 0)
    {
        log_event(LOG_ERROR, "a price of a model can not be read", "model", m->name,
                  "price", bad, NULL);
        m->in_pusd = m->out_pusd = -1;
        memset(m->extra, 0xff, sizeof(m->extra));
    }
}


static model_t *
registry_row(arena_t *a, PGresult *r, int row)
{
    model_t     *m;
    const char  *err;

    m = registry_new(a, PQgetvalue(r, row, 1),
                     strcmp(PQgetvalue(r, row, 2), "api") ? "import" : "api");
    m->id = arena_str(a, PQgetvalue(r, row, 0));
    m->params = json_parse(a, PQgetvalue(r, row, 3),
                           (size_t) PQgetlength(r, row, 3), &err);
    m->info = json_parse(a, PQgetvalue(r, row, 4),
                         (size_t) PQgetlength(r, row, 4), &err);
    m->in_pusd = registry_col(r, row, 5);
    m->out_pusd = registry_col(r, row, 6);
    m->cr_pusd = registry_col(r, row, 7);
    m->cw_pusd = registry_col(r, row, 8);
    m->rs_pusd = registry_col(r, row, 9);
    m->max_out = registry_col(r, row, 10);
    m->max_in = registry_col(r, row, 11);
    registry_row_extra(m);
    m->team_id = json_str(m->info, "team_id");

    if (strcmp(m->source, "api") == 0) {
        registry_deployment(a, m);
    }

    m->provider = m->provider ? m->provider : arena_str(a, db_str(r, row, 12));
    m->mode = m->mode ? m->mode : arena_str(a, db_str(r, row, 13));

    return m;
}


static int
registry_rank(const char *source)
{
    if (strcmp(source, "api") == 0)    { return 3; }
    if (strcmp(source, "config") == 0) { return 2; }
    if (strcmp(source, "import") == 0) { return 1; }
    return 0;
}


static int
registry_order(const void *x, const void *y)
{
    int             c;
    model_t *const *a = x;
    model_t *const *b = y;

    c = strcmp((*a)->name, (*b)->name);

    if (c) {
        return c;
    }

    return registry_rank((*b)->source) - registry_rank((*a)->source);
}


/* Sorts by name and keeps the strongest source of each; several deployments
 * behind one name are one public model, the first of them prices it. */

static model_t *
registry_merge(arena_t *a, model_t *list, size_t n)
{
    size_t    i;
    model_t  *m, *head, **all, **end;

    all = arena_alloc(a, (n + 1) * sizeof(model_t *));

    for (i = 0, m = list; m; m = m->next) {
        all[i++] = m;
    }

    for (i = 0; i < n; i++) {
        if (all[i]->params) {
            registry_inherit(all[i], list);
        }
    }

    qsort(all, n, sizeof(model_t *), registry_order);
    head = NULL;
    end = &head;

    for (i = 0; i < n; i++) {
        if (i && strcmp(all[i]->name, all[i - 1]->name) == 0) {
            continue;
        }

        *end = all[i];
        end = &all[i]->next;
    }

    *end = NULL;

    return head;
}


model_t *
registry_load(arena_t *a, int *err)
{
    int        i;
    size_t     n;
    model_t   *m, *copy, *list, **end;
    PGresult  *r;

    *err = 1;
    r = db_q0("SELECT model_id, model_name, source, litellm_params, model_info,"
              " input_pusd, output_pusd, cache_read_pusd, cache_write_pusd,"
              " reasoning_pusd, max_output_tokens, max_input_tokens,"
              " nullif(provider, ''), mode FROM models"
              " WHERE NOT blocked AND status = 'active'"
              " ORDER BY created_at, model_id");

    if (!db_ok(r)) {
        db_log("can not read the models", r);
        PQclear(r);
        return NULL;
    }

    list = NULL;
    end = &list;
    n = 0;

    for (m = registry_static; m; m = m->next) {
        copy = arena_alloc(a, sizeof(model_t));
        *copy = *m;
        copy->next = NULL;
        *end = copy;
        end = &copy->next;
        n++;
    }

    for (i = 0; i < PQntuples(r); i++) {
        *end = registry_row(a, r, i);
        end = &(*end)->next;
        n++;
    }

    PQclear(r);
    *err = 0;

    return registry_merge(a, list, n);
}


static void
registry_field(jv_t *o, arena_t *a, const char *name, int64_t v)
{
    if (v >= 0) {
        json_set(o, name, json_int(a, v));
    }
}


/*
 * A missing price is not a price of nothing: what answers with text needs both, an
 * embedding that of its input.
 */

static int
registry_priced(const model_t *m, const char *mode)
{
    int            tokens;
    const int64_t  *x = m->extra;

    tokens = m->in_pusd >= 0
             && (m->out_pusd >= 0 || registry_extra_of(x, "ao") >= 0
                 || registry_extra_of(x, "io") >= 0);

    if (strcmp(mode, "embedding") == 0 || strcmp(mode, "moderation") == 0) {
        return m->in_pusd >= 0;
    }

    if (strcmp(mode, "chat") == 0 || strcmp(mode, "completion") == 0
        || strcmp(mode, "responses") == 0)
    {
        return m->in_pusd >= 0 && m->out_pusd >= 0;
    }

    if (strcmp(mode, "image_generation") == 0 || strcmp(mode, "image_edit") == 0) {
        return tokens || registry_extra_of(x, "img") >= 0;
    }

    if (strcmp(mode, "audio_transcription") == 0) {
        return tokens || registry_extra_of(x, "sec") >= 0;
    }

    if (strcmp(mode, "audio_speech") == 0) {
        return tokens || registry_extra_of(x, "chr") >= 0;
    }

    if (strcmp(mode, "rerank") == 0) {
        return m->in_pusd >= 0 || registry_extra_of(x, "qry") >= 0;
    }

    return m->in_pusd >= 0 || m->out_pusd >= 0;
}


/* Free is what says so of every price it has. */

static int
registry_free(const model_t *m)
{
    size_t  i;

    for (i = 0; i < REGISTRY_NEXTRAS; i++) {
        if (m->extra[i] > 0) {
            return 0;
        }
    }

    return m->in_pusd == 0 && m->out_pusd == 0;
}


static jv_t *
registry_json(arena_t *a, const model_t *m)
{
    jv_t        *o, *v, *next;
    const char  *mode;

    o = json_obj(a);
    mode = m->mode ? m->mode : "chat";
    json_set(o, "n", json_string(a, m->name));

    if (m->upstream && strcmp(m->upstream, m->name)) {
        json_set(o, "u", json_string(a, m->upstream));
    }

    json_set(o, "p", json_string(a, m->provider ? m->provider : ""));
    json_set(o, "mode", json_string(a, mode));

    if (!registry_priced(m, mode)) {
        json_set(o, "noprice", json_int(a, 1));

    } else {
        registry_field(o, a, "in", m->in_pusd);
        registry_field(o, a, "out", m->out_pusd);
    }

    if (registry_free(m)) {
        json_set(o, "free", json_int(a, 1));
    }

    registry_field(o, a, "cr", m->cr_pusd);
    registry_field(o, a, "cw", m->cw_pusd);
    registry_field(o, a, "rs", m->rs_pusd);
    registry_field(o, a, "maxo", m->max_out);
    registry_field(o, a, "maxi", m->max_in);

    for (v = registry_extra_json(a, m->extra)->head; v; v = next) {
        next = v->next;
        json_set(o, v->key, v);
    }

    return o;
}


/* 1: there, 0: absent, -1: Redis does not answer. */

static int
registry_open(arena_t *a)
{
    int          rc;
    redisReply  *r;

    r = rds_do(a, "GET", KT_REDIS_GEN);

    if (r == NULL) {
        return -1;
    }

    rc = rds_is_error(r) ? -1 : r->type == REDIS_REPLY_STRING;
    freeReplyObject(r);

    return rc;
}


static int
registry_ok(redisReply *r)
{
    int  ok;

    ok = !rds_is_error(r);

    if (r) {
        freeReplyObject(r);
    }

    return ok;
}


/* 1: done, 0: another push came between, -1: an error. */

static int
registry_exec(arena_t *a)
{
    int          rc;
    redisReply  *r;

    r = rds_do(a, "EXEC");

    if (rds_is_error(r)) {
        rc = -1;

    } else if (r->type == REDIS_REPLY_NIL) {
        rc = 0;

    } else {
        rc = r->elements == 1 && !rds_is_error(r->element[0]) ? 1 : -1;
    }

    if (r) {
        freeReplyObject(r);
    }

    return rc;
}


/*
 * kt_registry sets the generation, that is, it opens the gate.  Only a rebuild may
 * open a closed gate; for everybody else the call goes through only while the
 * generation that was seen stands (a FLUSHALL in between aborts the EXEC, and so
 * does another push, which is no reason to give up).
 */

static int
registry_call(arena_t *a, rds_cmd_t *c, int opening)
{
    int  i, rc;

    if (opening) {
        return registry_ok(rds_run(c)) ? 0 : -1;
    }

    for (i = 0; i < REGISTRY_TRIES; i++) {
        if (!registry_ok(rds_do(a, "WATCH", KT_REDIS_GEN))) {
            return -1;
        }

        if (registry_open(a) != 1) {
            registry_ok(rds_do(a, "UNWATCH"));
            return -1;                /* the list of a rebuild may be older    */
        }

        if (!registry_ok(rds_do(a, "MULTI"))) {
            return -1;
        }

        if (!registry_ok(rds_run(c))) {
            registry_ok(rds_do(a, "DISCARD"));
            return -1;
        }

        rc = registry_exec(a);

        if (rc) {
            return rc > 0 ? 0 : -1;
        }
    }

    return -1;
}


static int
registry_send(arena_t *a, const char *gen, model_t *list, int opening)
{
    buf_t      b;
    model_t   *m;
    rds_cmd_t  c;

    buf_init(&b, a);
    buf_printf(&b, "{\"gen\":%s,\"models\":[", gen);

    for (m = list; m; m = m->next) {
        json_emit(&b, registry_json(a, m));

        if (m->next) {
            buf_putc(&b, ',');
        }
    }

    buf_puts(&b, "]}");
    rds_fcall(&c, a, "kt_registry");
    rds_arg(&c, gen);
    rds_argn(&c, b.p, b.len);

    return registry_call(a, &c, opening);
}


static const char *
registry_gen(arena_t *a)
{
    PGresult    *r;
    const char  *gen;

    r = db_q0("SELECT nextval('registry_gen_seq')");

    if (!db_ok(r)) {
        db_log("no registry generation", r);
        PQclear(r);
        return NULL;
    }

    gen = arena_str(a, PQgetvalue(r, 0, 0));
    PQclear(r);

    return gen;
}


/* Requests admitted from a block do not ask, so do not hear of the new list. */

static void
registry_wait(arena_t *a)
{
    redisReply  *r;

    r = rds_do(a, "PTTL", KT_REDIS_BLOCKS "*");

    if (r && r->type == REDIS_REPLY_INTEGER) {
        policy_wait(r->integer);
    }

    if (r) {
        freeReplyObject(r);
    }
}


/*
 * The generation is drawn before the list is read: whoever has a larger one read
 * everything that was committed when we drew ours.
 */

int
registry_push(int opening)
{
    int          rc, err;
    arena_t      a;
    model_t     *list;
    const char  *gen;

    arena_init(&a);
    rc = -1;
    gen = opening || registry_open(&a) == 1 ? registry_gen(&a) : NULL;

    if (gen) {
        list = registry_load(&a, &err);
        rc = err ? -1 : registry_send(&a, gen, list, opening);

        if (rc == 0 && !opening) {
            registry_wait(&a);
        }
    }

    arena_free(&a);

    return rc;
}
