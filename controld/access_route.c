/* allowed_routes of a key: what they let through, and which are within others. */

#include <string.h>
#include "access.h"


typedef struct {
    const char  *name;
    unsigned     groups;
} route_group_t;

/* Names that allowed_routes of a key may have for groups of these routes. */

static const route_group_t  route_groups[] = {
    { "management_routes", G_KEY | G_MANAGE | G_ORG | G_SELF },
    { "key_management_routes", G_KEY },
    { "info_routes", G_INFO },
    { "spend_tracking_routes", G_SPEND },
    { "global_spend_tracking_routes", G_SPEND_USER | G_SPEND_ALL },
    { "self_managed_routes", G_SELF },
    { "llm_api_routes", G_MODELS },
    { "openai_routes", G_MODELS }
};


/* 0: no name of a group. */

static unsigned
route_mask(const char *name)
{
    size_t  i;

    for (i = 0; i < sizeof(route_groups) / sizeof(route_groups[0]); i++) {
        if (strcmp(name, route_groups[i].name) == 0) {
            return route_groups[i].groups;
        }
    }

    return 0;
}


static int
route_allows(req_t *r, const char *e)
{
    size_t           n;
    const access_t  *row = r->access;

    if (route_mask(e)) {
        return (row->groups & route_mask(e)) != 0;
    }

    n = strlen(e);

    if (n && e[n - 1] == '*') {
        return strncmp(r->path, e, n - 1) == 0;
    }

    return strcmp(r->path, e) == 0
           || (n && strncmp(r->path, e, n) == 0 && r->path[n] == '/');
}


int
access_key_routes(req_t *r)
{
    buf_t        b;
    const jv_t  *list, *c;

    list = json_get(r->caller_row, "allowed_routes");

    if (list == NULL || list->type != J_ARR || list->n == 0) {
        return 0;
    }

    buf_init(&b, &r->a);

    for (c = list->head; c; c = c->next) {
        if (c->type == J_STR && route_allows(r, c->s)) {
            return 0;
        }

        buf_printf(&b, b.len ? ", %s" : "%s", py_repr(&r->a, c->s ? c->s : ""));
    }

    fail_detail(r, 403, arena_printf(&r->a, "Virtual key is not allowed to call this"
                " route. Only allowed to call routes: [%s]. Tried to call route: %s",
                b.p, r->path));

    return -1;
}


/*
 * Does one entry let through all that another does?  Of stars only the last character is
 * one, and a route has those below it; names of groups are within wider ones.
 */

static int
route_covers(const char *have, const char *want)
{
    size_t  n;

    n = strlen(have);

    if (strcmp(have, want) == 0 || strcmp(have, "*") == 0) {
        return 1;
    }

    if (have[0] != '/') {
        return route_mask(want) && (route_mask(want) & ~route_mask(have)) == 0;
    }

    return have[n - 1] == '*' ? strncmp(want, have, n - 1) == 0
                              : strncmp(want, have, n) == 0 && want[n] == '/';
}


int
access_routes_cover(const jv_t *have, const jv_t *want)
{
    const jv_t  *c, *h;

    if (json_is_null(have) || json_is_null(want)) {
        return json_is_null(have);
    }

    for (c = want->head; c; c = c->next) {
        for (h = have->head; h; h = h->next) {
            if (c->type == J_STR && h->type == J_STR && route_covers(h->s, c->s)) {
                break;
            }
        }

        if (h == NULL) {
            return 0;
        }
    }

    return 1;
}
