/* Who may give options of keys, and who keeps them. */

#include "grant_bound.h"


#define GRANT_THROTTLE  50           /* percent, where none is named           */


/* More may be asked of service accounts: one does not cease to be one. */

void
grant_service(req_t *r, const bound_t *own)
{
    jv_t        *meta;
    const jv_t  *id;

    meta = json_get(r->json, "metadata");
    id = json_get(own->row, "service_account_id");

    if (meta == NULL || json_is_null(id)) {
        return;
    }

    if (json_is_null(meta)) {
        meta = json_obj(&r->a);
        json_set(r->json, "metadata", meta);
    }

    if (meta->type == J_OBJ && json_is_null(json_get(meta, "service_account_id"))) {
        json_set(meta, "service_account_id", json_copy(&r->a, id));
    }
}


/* What the key has of an option after this request; 0: nothing is said of it. */

static int
grant_option(req_t *r, const char *name, const jv_t **v)
{
    int          said;
    const jv_t  *meta;

    meta = json_get(r->json, "metadata");
    *v = json_get(r->json, name);
    said = *v || !json_is_null(meta);

    if (json_is_null(*v)) {
        *v = json_get(meta, name);
    }

    return said;
}


/*
 * A key whose spent budget only slows it down may do more than one that is
 * refused: it is for those to give who are not bound by a budget of their key.
 */

int
grant_throttle(req_t *r, const bound_t *b, const bound_t *own)
{
    int          said_on, said_part;
    int64_t      have, was, want;
    const jv_t  *on, *part;

    said_on = grant_option(r, "throttle_on_budget_exceeded", &on);
    said_part = grant_option(r, "budget_exceeded_throttle_percentage", &part);

    if (json_is_null(json_get(b->row, "max_budget")) || (!said_on && !said_part)) {
        return 0;
    }

    if (!grant_value(json_get(own->row, "throttle"), 0, &was)) {
        was = 0;
    }

    if (said_on ? json_is_null(on) || on->type != J_TRUE : was == 0) {
        return 0;
    }

    if (!grant_value(part, 0, &want)) {
        want = said_part || was == 0 ? GRANT_THROTTLE : was;
    }

    if (!grant_value(json_get(b->row, "throttle"), 0, &have) || want > have) {
        return grant_refuse(r, "throttle_on_budget_exceeded", "its budget", b);
    }

    return 0;
}
