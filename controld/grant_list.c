/* What a list of models covers. */

#include <string.h>
#include "db.h"
#include "grant.h"
#include "registry.h"
#include "util.h"


/* Does one pattern of an allow-list cover a name, or another pattern? */

static int
grant_has(const jv_t *have, const char *name)
{
    const jv_t  *c;

    for (c = have->head; c; c = c->next) {
        if (c->type == J_STR && (strcmp(c->s, name) == 0 || util_glob(c->s, name))) {
            return 1;
        }
    }

    return 0;
}


int
grant_covers(const jv_t *have, const jv_t *want)
{
    const jv_t  *c;

    if (json_is_null(have)) {
        return 1;
    }

    if (json_is_null(want)) {
        return 0;
    }

    for (c = want->head; c; c = c->next) {
        if (c->type != J_STR || !grant_has(have, c->s)) {
            return 0;
        }
    }

    return 1;
}


/* "openai/" and the name against the patterns: as the gate asks, for a model it knows. */

static int
grant_serves(arena_t *a, const jv_t *have, const model_t *m, const char *name)
{
    const jv_t  *c;
    const char  *full;

    while (m && (m->team_id || strcmp(m->name, name))) {
        m = m->next;
    }

    if (m == NULL || m->provider == NULL || !*m->provider) {
        return 0;
    }

    full = arena_printf(a, "%s/%s", m->provider, name);

    for (c = have->head; c; c = c->next) {
        if (c->type == J_STR && strchr(c->s, '*') && util_glob(c->s, full)) {
            return 1;
        }
    }

    return 0;
}


int
grant_may(req_t *r, const jv_t *have, const jv_t *want, const jv_t *also,
    const char **bad)
{
    int          err;
    model_t     *models;
    const jv_t  *c;

    *bad = NULL;

    if (json_is_null(have)) {
        return 1;
    }

    models = NULL;

    for (c = want ? want->head : NULL; c; c = c->next) {
        *bad = c->type == J_STR ? c->s : "";

        if (grant_has(have, *bad) || (also && json_get(also, *bad))) {
            continue;
        }

        if (!**bad || strpbrk(*bad, "/*")) {
            return 0;                    /* it names a provider, or is none    */
        }

        if (models == NULL) {
            models = registry_load(&r->a, &err);

            if (err) {
                fail_db(r);
                return -1;
            }
        }

        if (!grant_serves(&r->a, have, models, *bad)) {
            return 0;
        }
    }

    return !json_is_null(want);
}
