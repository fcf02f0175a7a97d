#include <inttypes.h>
#include <stdatomic.h>
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


/* models.yaml, then model_list: what does not change until the next SIGHUP. */

struct registry_set_s {
    arena_t   arena;
    model_t  *list;
};


static registry_set_t *_Atomic  registry_now;


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
registry_file_entry(registry_set_t *set, const conf_t *c, const jv_t *v,
    model_t ***end)
{
    model_t     *m;
    const char  *name;

    name = json_str(v, "name");

    if (name == NULL || !util_id_ok(name)) {
        fprintf(stderr, "keytoll-controld: %s: a model without a name\n",
                c->models_file);
        return -1;
    }

    m = registry_new(&set->arena, name, "file");
    m->provider = json_str(v, "provider");
    m->mode = json_str(v, "mode");
    m->upstream = json_str(v, "upstream");
    m->max_out = registry_count(v, "max_output_tokens");
    m->max_in = registry_count(v, "max_input_tokens");
    m->id = name;

    if (registry_prices(m, v) != 0 || registry_find(set->list, name)) {
        fprintf(stderr, "keytoll-controld: %s: model %s has a bad price or is"
                " given twice\n", c->models_file, name);
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

    for (i = 0; i < REGISTRY_EXTRAS; i++) {
        m->extra[i] = own || m->extra[i] >= 0 ? m->extra[i] : p->extra[i];
    }

    m->max_out = m->max_out == -1 ? p->max_out : m->max_out;
    m->max_in = m->max_in == -1 ? p->max_in : m->max_in;
    m->provider = m->provider ? m->provider : p->provider;
    m->mode = m->mode ? m->mode : p->mode;
}


static int
registry_config_entry(registry_set_t *set, const jv_t *v, model_t ***end)
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

    m = registry_new(&set->arena, name, "config");
    m->params = json_get(v, "litellm_params");
    m->info = json_get(v, "model_info");
    text = json_text(&set->arena, v);
    kt_key_token(text, strlen(text), hash);
    m->id = json_str(m->info, "id") ? json_str(m->info, "id")
                                    : arena_dup(&set->arena, hash, 64);
    registry_deployment(&set->arena, m);

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


registry_set_t *
registry_read(const conf_t *c)
{
    jv_t            *doc, *v;
    model_t        **end;
    registry_set_t  *set;

    set = xmalloc(sizeof(registry_set_t));
    set->list = NULL;
    arena_init(&set->arena);
    end = &set->list;
    doc = conf_yaml(&set->arena, c->models_file);

    for (v = doc ? json_get(doc, "models") : NULL, v = v ? v->head : NULL; v; v = v->next) {
        if (registry_file_entry(set, c, v, &end) != 0) {
            doc = NULL;
            break;
        }
    }

    for (v = doc && c->model_list ? c->model_list->head : NULL; v; v = v->next) {
        if (registry_config_entry(set, v, &end) != 0) {
            doc = NULL;
            break;
        }
    }

    if (doc == NULL) {
        registry_set_free(set);
        return NULL;
    }

    return set;
}


void
registry_set_free(registry_set_t *set)
{
    if (set) {
        arena_free(&set->arena);
        free(set);
    }
}


registry_set_t *
registry_use(registry_set_t *set)
{
    return atomic_exchange(&registry_now, set);
}


int
registry_init(void)
{
    registry_set_t  *set;

    set = registry_read(&conf);

    if (set == NULL) {
        return -1;
    }

    registry_use(set);

    return 0;
}


static int
registry_extra_any(const int64_t *extra)
{
    size_t  i;

    for (i = 0; i < REGISTRY_EXTRAS && extra[i] < 0; i++) { /* void */ }

    return i < REGISTRY_EXTRAS;
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
    m->params = json_parse_big(a, PQgetvalue(r, row, 3),
                               (size_t) PQgetlength(r, row, 3), &err);
    m->info = json_parse_big(a, PQgetvalue(r, row, 4),
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
registry_merge(arena_t *a, model_t *list, size_t n, int all_of_them)
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
        if (i && strcmp(all[i]->name, all[i - 1]->name) == 0
            && (!all_of_them || all[i]->params == NULL || strcmp(all[i]->source, "import") == 0))
        {
            continue;
        }

        *end = all[i];
        end = &all[i]->next;
    }

    *end = NULL;

    return head;
}


/* Files and rows as they are, `*count` of them. */

static model_t *
registry_rows(arena_t *a, int *err, size_t *count)
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

    for (m = atomic_load(&registry_now)->list; m; m = m->next) {
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
    *count = n;

    return list;
}


static model_t *
registry_list(arena_t *a, int *err, int all_of_them)
{
    size_t    n;
    model_t  *list;

    list = registry_rows(a, err, &n);

    return *err ? NULL : registry_merge(a, list, n, all_of_them);
}


int
registry_has_price(arena_t *a, const char *model)
{
    int       err;
    jv_t     *params;
    size_t    n;
    model_t  *m, *list;

    list = registry_rows(a, &err, &n);

    if (err) {
        return -1;
    }

    params = json_obj(a);
    json_set(params, "model", json_string(a, model));
    m = registry_new(a, model, "api");
    m->params = params;
    registry_deployment(a, m);
    registry_inherit(m, list);

    return m->in_pusd >= 0 || m->out_pusd >= 0 || registry_extra_any(m->extra);
}


model_t *
registry_load(arena_t *a, int *err)
{
    return registry_list(a, err, 0);
}


model_t *
registry_load_all(arena_t *a, int *err)
{
    return registry_list(a, err, 1);
}
