/* Whether one key may do more than another, or than it did. */

#include <string.h>
#include "access.h"
#include "grant.h"
#include "grant_bound.h"
#include "kt_money.h"
#include "owner.h"


/* By value: members in any order, 1 is 1.0. */

static int
width_equal(const jv_t *x, const jv_t *y)
{
    int64_t      m, n;
    const jv_t  *c, *d;

    if (json_is_null(x) || json_is_null(y) || x->type != y->type || x->n != y->n) {
        return 0;
    }

    if (x->type == J_NUM && grant_value(x, KT_MONEY_USD, &m)
        && grant_value(y, KT_MONEY_USD, &n))
    {
        return m == n;
    }

    if (x->type == J_NUM || x->type == J_STR) {
        return strcmp(x->s, y->s) == 0;
    }

    for (c = x->head, d = y->head; c; c = c->next, d = d ? d->next : NULL) {
        const jv_t  *e = x->type == J_OBJ ? json_get(y, c->key) : d;

        if (!width_equal(c, e) && !(e && c->type == J_NULL && e->type == J_NULL)) {
            return 0;
        }
    }

    return 1;
}


static int
width_element(const jv_t *list, const jv_t *v)
{
    const jv_t  *c;

    for (c = list->head; c; c = c->next) {
        if (width_equal(c, v)) {
            return 1;
        }
    }

    return 0;
}


/* Is everything of x in y? */

static int
width_all_in(const jv_t *x, const jv_t *y)
{
    const jv_t  *c;

    if (json_is_null(x) || x->n == 0) {
        return 1;
    }

    if (json_is_null(y) || x->type != y->type) {
        return 0;
    }

    for (c = x->head; c; c = c->next) {
        if (x->type == J_ARR ? !width_element(y, c)
                             : !width_equal(c, json_get(y, c->key)))
        {
            return 0;
        }
    }

    return 1;
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


/* 1 when `want` is above the limit `have`; most: none is above nothing. */

static int
width_above(int64_t have, int64_t want, int most)
{
    return have >= 0 && (want < 0 ? !most : want > have);
}


static int
width_meter(const owner_meter_t *have, const owner_meter_t *want, int most,
    const char **name)
{
    static const owner_meter_t  none = { .limit_nusd = -1, .rpm = -1, .tpm = -1 };

    want = want ? want : &none;
    *name = *have->kind == 'w' ? "budget_limits" : "model_max_budget";

    if (width_above(have->limit_nusd, want->limit_nusd, most)
        || (have->limit_nusd >= 0 && !most
            && strcmp(have->duration ? have->duration : "",
                      want->duration ? want->duration : "") != 0))
    {
        return 0;
    }

    *name = "model_rpm_limit";

    if (width_above(have->rpm, want->rpm, most)) {
        return 0;
    }

    *name = "model_tpm_limit";

    return !width_above(have->tpm, want->tpm, most);
}


/*
 * Windows and limits per model by the meters they make.  Where two fields limit the same,
 * neither rises: a higher one would wait for the lower one to go.
 */

static int
width_meters(req_t *r, const bound_t *have, const bound_t *want, const char **name)
{
    int                     most;
    size_t                  i, k;
    const owner_meters_t   *x, *y;

    for (most = 0; most < 2; most++) {
        x = owner_meters(r, "", have->row, most);
        y = owner_meters(r, "", want->row, most);

        for (i = 0; i < x->n; i++) {
            for (k = 0; k < y->n && strcmp(x->item[i].ent, y->item[k].ent); k++) {
                /* the next one */
            }

            if (!width_meter(&x->item[i], k < y->n ? &y->item[k] : NULL, most, name)) {
                return 0;
            }
        }
    }

    return 1;
}


/* A budget that renews is another budget. */

static int
width_renewal(const bound_t *have, const bound_t *want, const char **name)
{
    const jv_t  *h, *w;

    *name = "budget_duration";
    h = json_get(have->row, *name);
    w = json_get(want->row, *name);

    return json_is_null(json_get(have->row, "max_budget"))
           || (json_is_null(h) && json_is_null(w)) || width_equal(h, w);
}


static int
width_params(const bound_t *have, const bound_t *want, const char **name)
{
    *name = "enforced_params";

    return width_all_in(json_get(have->row, *name), json_get(want->row, *name));
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
width_rights(const bound_t *have, const bound_t *want, const char **name)
{
    size_t                    i;
    static const char *const  names[] = {
        "permissions", "config", "allowed_passthrough_routes"
    };

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        *name = names[i];

        if (!width_all_in(json_get(want->row, *name), json_get(have->row, *name))) {
            return 0;
        }
    }

    return 1;
}


static int
width_routes(const bound_t *have, const bound_t *want, const char **name)
{
    *name = "allowed_routes";

    return access_routes_cover(json_get(have->row, *name), json_get(want->row, *name));
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
        if (json_is_null(was) || !width_element(was, c)) {
            json_push(reach, json_copy(&r->a, c));
        }
    }

    return grant_may(r, list, reach, NULL, &bad);
}


/* What a key is limited to, but for rights that its maker can not ask for. */

static int
width_limits(req_t *r, const bound_t *have, const bound_t *want, const char **name)
{
    return width_numbers(have, want, name) && width_meters(r, have, want, name)
           && width_renewal(have, want, name) && width_params(have, want, name)
           && width_budget(have, want, name) && width_expiry(have, want, name)
           && width_routes(have, want, name)
           ? width_models(r, have, want, name) : 0;
}


int
grant_less(req_t *r, const bound_t *have, const bound_t *want, const char **name)
{
    return width_rights(have, want, name) ? width_limits(r, have, want, name) : 0;
}


int
grant_child(req_t *r, const char *token)
{
    int          rc;
    bound_t      maker, child;
    const char  *name;

    if (access_admin(r)) {
        return 0;
    }

    if (grant_bound(r, &maker, BOUND_KEY, r->caller_key, NULL) != 0
        || grant_bound(r, &child, BOUND_KEY, token, NULL) != 0)
    {
        return -1;
    }

    rc = width_limits(r, &maker, &child, &name);

    if (rc == 0) {
        fail_proxy(r, 403, "auth_error", name, "%s exceeds what you have: your key is"
                   " limited to less", name);
    }

    return rc > 0 ? 0 : -1;
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
