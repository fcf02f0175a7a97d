/* Who may give options of keys, and who keeps them. */

#include "grant_bound.h"


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
