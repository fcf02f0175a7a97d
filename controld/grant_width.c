/* Whether one key may do more than another, or than it did. */

#include <string.h>
#include "access.h"
#include "grant.h"
#include "grant_bound.h"
#include "kt_money.h"


static int
width_equal(req_t *r, const jv_t *x, const jv_t *y)
{
    return !json_is_null(x) && !json_is_null(y)
           && strcmp(json_text(&r->a, x), json_text(&r->a, y)) == 0;
}


static int
width_element(req_t *r, const jv_t *list, const jv_t *v)
{
    const jv_t  *c;

    for (c = list->head; c; c = c->next) {
        if (width_equal(r, c, v)) {
            return 1;
        }
    }

    return 0;
}


/* Is everything of x in y?  Numbers of objects may be smaller there. */

static int
width_all_in(req_t *r, const jv_t *x, const jv_t *y, int numbers)
{
    int64_t      m, n;
    const jv_t  *c, *v;

    if (json_is_null(x) || x->n == 0) {
        return 1;
    }

    if (json_is_null(y) || x->type != y->type) {
        return 0;
    }

    for (c = x->head; c; c = c->next) {
        v = x->type == J_OBJ ? json_get(y, c->key) : NULL;

        if (x->type == J_ARR ? width_element(r, y, c)
            : width_equal(r, c, v) || (numbers && grant_value(c, 0, &m)
                                       && grant_value(v, 0, &n) && n <= m))
        {
            continue;
        }

        return 0;
    }

    return 1;
}


int
grant_tighter(req_t *r, const char *name, const jv_t *have, const jv_t *want)
{
    if (json_is_null(have)) {
        return 1;
    }

    if (have->type != J_OBJ && have->type != J_ARR) {
        return width_equal(r, have, want);
    }

    return width_all_in(r, have, want, strncmp(name, "model_", 6) == 0
                                       && strcmp(name, "model_max_budget"));
}


static int
width_numbers(const bound_t *have, const bound_t *want, const char **name)
{
    size_t       i;
    int64_t      x, y;
    const jv_t  *h, *w;

    for (i = 0; i < GRANT_NUMBERS; i++) {
        *name = grant_numbers[i].name;
        h = json_get(have->row, *name);
        w = json_get(want->row, *name);

        if (grant_value(h, grant_numbers[i].scale, &x)
            && (!grant_value(w, grant_numbers[i].scale, &y) || y > x))
        {
            return 0;
        }
    }

    return 1;
}


static int
width_wholes(req_t *r, const bound_t *have, const bound_t *want, const char **name)
{
    size_t       i;
    const jv_t  *h, *w;

    for (i = 0; i < GRANT_WHOLES; i++) {
        *name = grant_wholes[i];
        h = json_get(have->row, *name);
        w = json_get(want->row, *name);

        if (strcmp(*name, "budget_duration") != 0) {
            if (!grant_tighter(r, *name, h, w)) {
                return 0;
            }

        } else if (!json_is_null(json_get(have->row, "max_budget"))
                   && (!json_is_null(h) || !json_is_null(w)) && !width_equal(r, h, w))
        {
            return 0;                    /* one that renews is another budget  */
        }
    }

    return 1;
}


/* What happens when the budget is spent, and for how long there is more. */

static int
width_budget(const bound_t *have, const bound_t *want, const char **name)
{
    int64_t      x, y;
    const jv_t  *h, *w;

    *name = "budget_enforcement";
    h = json_get(have->row, "strict");
    w = json_get(want->row, "strict");

    if (h && h->type == J_TRUE && (w == NULL || w->type != J_TRUE)) {
        return 0;
    }

    if (json_is_null(json_get(have->row, "max_budget"))) {
        return 1;
    }

    *name = "throttle_on_budget_exceeded";
    h = json_get(have->row, "throttle");
    w = json_get(want->row, "throttle");

    if (grant_value(w, 0, &y) && (!grant_value(h, 0, &x) || y > x)) {
        return 0;
    }

    *name = "temp_budget_increase";
    h = json_get(have->row, "temp");
    w = json_get(want->row, "temp");

    return !grant_value(w, KT_MONEY_USD, &y) || y == 0
           || (grant_value(h, KT_MONEY_USD, &x) && y <= x);
}


static int
width_expiry(const bound_t *have, const bound_t *want, const char **name)
{
    int64_t  x, y;

    *name = "expires";

    return !grant_value(json_get(have->row, "expires_s"), 0, &x)
           || (grant_value(json_get(want->row, "expires_s"), 0, &y) && y <= x);
}


/* Rights that only proxy admins give to keys. */

static int
width_rights(req_t *r, const bound_t *have, const bound_t *want, const char **name)
{
    size_t                    i;
    static const char *const  names[] = {
        "permissions", "config", "allowed_passthrough_routes"
    };

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        *name = names[i];

        if (!width_all_in(r, json_get(want->row, *name), json_get(have->row, *name), 0)) {
            return 0;
        }
    }

    *name = "allowed_routes";

    return grant_covers(json_get(have->row, *name), json_get(want->row, *name));
}


/* Models, and what aliases and cheaper models lead to: the lists are not asked there. */

static int
width_models(req_t *r, const bound_t *have, const bound_t *want, const char **name)
{
    int          rc;
    jv_t        *reach;
    const jv_t  *list, *was, *c;
    const char  *bad;

    *name = "models";
    list = json_get(have->row, *name);
    rc = grant_may(r, list, json_get(want->row, *name), NULL, &bad);

    if (rc <= 0) {
        return rc;
    }

    *name = "aliases";
    reach = json_arr(&r->a);
    was = json_get(have->row, "reach");
    c = json_get(want->row, "reach");

    for (c = json_is_null(c) ? NULL : c->head; c; c = c->next) {
        if (json_is_null(was) || !width_element(r, was, c)) {
            json_push(reach, json_copy(&r->a, c));
        }
    }

    return grant_may(r, list, reach, NULL, &bad);
}


int
grant_less(req_t *r, const bound_t *have, const bound_t *want, const char **name)
{
    return width_numbers(have, want, name) && width_wholes(r, have, want, name)
           && width_budget(have, want, name) && width_expiry(have, want, name)
           && width_rights(r, have, want, name)
           ? width_models(r, have, want, name) : 0;
}


int
grant_now(req_t *r, const char *token, bound_t *b)
{
    return access_admin(r) ? 0 : grant_bound(r, b, BOUND_KEY, token, NULL);
}


int
grant_kept(req_t *r, const char *token, const bound_t *before)
{
    int          rc;
    bound_t      after;
    const char  *name;

    if (access_admin(r)) {
        return 0;
    }

    if (grant_bound(r, &after, BOUND_KEY, token, NULL) != 0) {
        return -1;
    }

    rc = grant_less(r, before, &after, &name);

    if (rc == 0) {
        fail_proxy(r, 403, "auth_error", name, "Only proxy admins let a key do more than"
                   " before: %s", name);
    }

    return rc > 0 ? 0 : -1;
}
