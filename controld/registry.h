/*
 * Models and prices: models.yaml, model_list of controld.yaml and the models
 * table, in that order, a later one winning by name; compiled to the registry
 * JSON that the gate reads.
 */

#ifndef CTL_REGISTRY_H
#define CTL_REGISTRY_H

#include <stdint.h>
#include "conf.h"
#include "json.h"


/* Prices beyond the five; the order is that of registry_extras[]. */
#define REGISTRY_EXTRAS  116

typedef struct model_s  model_t;
typedef struct registry_set_s  registry_set_t;

struct model_s {
    model_t      *next;
    const char   *name;              /* public                                 */
    const char   *upstream;          /* NULL: the same                         */
    const char   *provider;
    const char   *mode;
    const char   *source;            /* "file", "config", "api" or "import"    */
    const char   *id;                /* model_id of rows and config entries    */
    const char   *team_id;           /* of a team's own model                  */
    jv_t         *params;            /* litellm_params, NULL for price entries */
    jv_t         *info;
    int64_t       in_pusd;           /* -1: not known, for all of these        */
    int64_t       out_pusd;
    int64_t       cr_pusd;
    int64_t       cw_pusd;
    int64_t       rs_pusd;
    int64_t       extra[REGISTRY_EXTRAS];
    int64_t       max_out;
    int64_t       max_in;
};


/* Reads models.yaml and model_list; 0, or -1 after a message on stderr. */
int registry_init(void);

/*
 * The same in steps, for a new configuration: NULL after a message; registry_use() puts
 * a set in place and returns the one before, which requests may still read.
 */
registry_set_t *registry_read(const conf_t *c);
registry_set_t *registry_use(registry_set_t *set);
void registry_set_free(registry_set_t *set);

/*
 * The public models by now, in name order; NULL and *err = 1 when the database
 * does not answer.  Lives in the arena.
 */
model_t *registry_load(arena_t *a, int *err);

/* The same with every deployment of a name, the one that prices it first. */
model_t *registry_load_all(arena_t *a, int *err);

/* 1 when a deployment of the model would inherit a price, -1: no database. */
int registry_has_price(arena_t *a, const char *model);

/*
 * Compiles and pushes under a new generation; `opening` only at the end of a
 * rebuild.  0, or -1: an error, or the gate is closed, to be tried again.  Call it
 * after the commit of what it shall carry.
 */
int registry_push(int opening);

/* Price of a LiteLLM number in pico-USD per token; -1: null or absent; -2: bad. */
int64_t registry_price(const jv_t *o, const char *name);
int64_t registry_count(const jv_t *o, const char *name);

/*
 * Reads the prices beyond the five into extra[REGISTRY_EXTRAS], -1 for those that
 * are not there; 0, or -1: one of them is no price, *bad names it.
 */
int registry_extra(const jv_t *o, int64_t *extra, const char **bad);

/* The first price under a key of the registry, -1 when there is none. */
int64_t registry_extra_of(const int64_t *extra, const char *key);

/* One model as the gate reads it. */
jv_t *registry_json(arena_t *a, const model_t *m);

/* In pico-USD, under the names that the registry has in Redis. */
jv_t *registry_extra_json(arena_t *a, const int64_t *extra);

/* Those members of a LiteLLM price object, to be kept as they are. */
jv_t *registry_extra_pick(arena_t *a, const jv_t *o);


#endif
