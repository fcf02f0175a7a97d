#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "db.h"
#include "json.h"
#include "prices.h"
#include "registry.h"
#include "util.h"


#define PRICES_SHOWN  20


typedef struct {
    int  total;
    int  imported;
    int  unpriced;
    int  bad;
} prices_t;


static const char *
prices_num(arena_t *a, int64_t v)
{
    return v < 0 ? NULL : arena_printf(a, "%" PRId64, v);
}


static void
prices_skip(prices_t *p, int *count, const char *name, const char *why)
{
    if ((*count)++ < PRICES_SHOWN) {
        printf("  not priced: %s (%s)\n", name, why);
    }
}


static int
prices_entry(arena_t *a, prices_t *p, const jv_t *v)
{
    int          i, extras;
    jv_t        *more;
    int64_t      n[5], maxo, extra[REGISTRY_EXTRAS];
    PGresult    *r;
    const char  *num[5], *bad;
    static const char *const  names[] = {
        "input_cost_per_token", "output_cost_per_token",
        "cache_read_input_token_cost", "cache_creation_input_token_cost",
        "output_cost_per_reasoning_token"
    };

    p->total++;

    for (i = 0; i < 5; i++) {
        n[i] = registry_price(v, names[i]);

        if (n[i] == -2) {
            prices_skip(p, &p->bad, v->key, names[i]);
            return 0;
        }

        num[i] = prices_num(a, n[i]);
    }

    if (registry_extra(v, extra, &bad) != 0) {
        prices_skip(p, &p->bad, v->key, bad);
        return 0;
    }

    more = registry_extra_pick(a, v);
    extras = more->head != NULL;

    if (n[0] < 0 && n[1] < 0 && !extras) {
        prices_skip(p, &p->unpriced, v->key, "no price");
        return 0;
    }

    if (!util_id_ok(v->key)) {
        prices_skip(p, &p->bad, "?", "bad name");
        return 0;
    }

    maxo = registry_count(v, "max_output_tokens");
    maxo = maxo < 0 ? registry_count(v, "max_tokens") : maxo;
    r = db_q("INSERT INTO models (model_id, model_name, source, provider, mode,"
        " input_pusd, output_pusd, cache_read_pusd, cache_write_pusd, reasoning_pusd,"
        " max_output_tokens, max_input_tokens, model_info) VALUES ('import:' || $1, $1, 'import',"
        " coalesce($2, ''), coalesce($3, 'chat'), $4, $5, $6, $7, $8, $9, $10, $11::jsonb)"
        " ON CONFLICT (model_name) WHERE source = 'import' DO UPDATE SET"
        " provider = EXCLUDED.provider, mode = EXCLUDED.mode,"
        " input_pusd = EXCLUDED.input_pusd, output_pusd = EXCLUDED.output_pusd,"
        " cache_read_pusd = EXCLUDED.cache_read_pusd,"
        " cache_write_pusd = EXCLUDED.cache_write_pusd,"
        " reasoning_pusd = EXCLUDED.reasoning_pusd,"
        " max_output_tokens = EXCLUDED.max_output_tokens,"
        " max_input_tokens = EXCLUDED.max_input_tokens,"
        " model_info = EXCLUDED.model_info, updated_at = now()",
        v->key, json_str(v, "litellm_provider"), json_str(v, "mode"), num[0], num[1],
        num[2], num[3], num[4], prices_num(a, maxo),
        prices_num(a, registry_count(v, "max_input_tokens")), json_text(a, more));
    p->imported++;

    return db_done(r) ? 0 : -1;
}


int
prices_import(const char *path)
{
    int          rc;
    jv_t        *doc, *v;
    char        *text;
    size_t       len;
    arena_t      a;
    prices_t     p;
    const char  *err;

    arena_init(&a);
    memset(&p, 0, sizeof(p));
    err = "can not be read";
    text = util_read_file(&a, path, &len);
    doc = text ? json_parse_big(&a, text, len, &err) : NULL;

    if (doc == NULL || doc->type != J_OBJ) {
        fprintf(stderr, "keytoll-controld: %s: %s\n", path,
                doc ? "not an object" : err);
        arena_free(&a);
        return -1;
    }

    rc = db_begin();

    for (v = doc->head; v && rc == 0; v = v->next) {
        if (v->type == J_OBJ && strcmp(v->key, "sample_spec") != 0) {
            rc = prices_entry(&a, &p, v);
        }
    }

    if (rc == 0) {
        rc = db_done(db_q0("INSERT INTO outbox (ent, op, version) VALUES"
                           " ('registry', 'registry', 0)")) ? db_commit() : -1;
    }

    db_rollback();

    if (rc == 0) {
        printf("%d models: %d imported, %d without a price, %d with a"
               " value that is no price\n", p.total, p.imported, p.unpriced, p.bad);
    }

    arena_free(&a);

    return rc;
}
