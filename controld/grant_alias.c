/* Where aliases and cheaper models may lead. */

#include "db.h"
#include "grant.h"
#include "grant_bound.h"


/* What one alias leads to: a name, or an object with a model. */

static int
grant_alias_targets(req_t *r, const jv_t *map, jv_t *want)
{
    const jv_t  *c;
    const char  *name;

    for (c = map && map->type == J_OBJ ? map->head : NULL; c; c = c->next) {
        name = c->type == J_STR ? c->s : json_str(c, "model");

        if (name == NULL) {
            fail_proxy(r, 400, "bad_request_error", "aliases", "The alias %s leads to no"
                       " model", c->key);
            return -1;
        }

        json_push(want, json_string(&r->a, name));
    }

    return 0;
}


/* 1 when one who is bound like this may go there, and -1 after answering. */

static int
grant_reach_of(req_t *r, const bound_t *b, const jv_t *list, const jv_t *want)
{
    const char  *bad;

    return grant_may(r, list, want, json_get(b->row, "names"), &bad);
}


static int
grant_reach(req_t *r, const char *name, const jv_t *want, const bounds_t *b)
{
    int             rc;
    size_t          i;
    const jv_t     *own, *models, *groups;
    const bound_t  *of[4] = { &b->key, &b->owner, &b->holder, &b->maker };

    if (want->n == 0) {
        return 0;
    }

    own = json_get(b->own.row, "models");
    models = json_get(r->json, "models");
    groups = json_get(r->json, "access_group_ids");

    if ((models || groups) && grant_wanted(r, &b->own, &own) != 0) {
        return -1;
    }

    rc = grant_reach_of(r, &b->own, own, want);

    for (i = 0; i < 4 && rc > 0; i++) {
        rc = grant_reach_of(r, of[i], json_get(of[i]->row, "models"), want);
    }

    if (rc == 0) {
        fail_proxy(r, 403, "auth_error", name, "%s lead to models that you or the key may"
                   " not use: %s", name, json_text(&r->a, want));
    }

    return rc > 0 ? 0 : -1;
}


int
grant_aliases(req_t *r, const bounds_t *b)
{
    jv_t  *want;

    want = json_arr(&r->a);

    if (grant_alias_targets(r, json_get(r->json, "aliases"), want) != 0
        || grant_alias_targets(r, json_get(json_get(r->json, "router_settings"),
                                           "model_group_alias"), want) != 0)
    {
        return -1;
    }

    return grant_reach(r, "aliases", want, b);
}


int
grant_fallbacks(req_t *r, const bounds_t *b)
{
    jv_t        *want;
    const jv_t  *map, *c, *m;

    want = json_arr(&r->a);
    map = json_get(r->json, "budget_fallbacks");

    for (c = map && map->type == J_OBJ ? map->head : NULL; c; c = c->next) {
        json_push(want, json_string(&r->a, c->key));

        for (m = c->head; m; m = m->next) {
            json_push(want, json_string(&r->a, m->s));
        }
    }

    return grant_reach(r, "budget_fallbacks", want, b);
}
