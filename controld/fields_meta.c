/* What of the body goes into the columns metadata and extra. */

#include <string.h>
#include "fields.h"


/*
 * A list that a field would put into metadata may also be sent within it: it is read
 * from there, so it is one of texts there too.
 */

int
fields_check_metadata(req_t *r, const field_t *table)
{
    const jv_t     *meta, *v;
    const field_t  *f;

    meta = json_get(r->json, "metadata");

    for (f = table; f->name; f++) {
        v = f->type == F_TAGS ? json_get(meta, f->name) : NULL;

        if (v && v->type == J_ARR
            && field_strs_value(r, arena_printf(&r->a, "metadata.%s", f->name), v) == NULL)
        {
            return -1;
        }
    }

    return 0;
}


static void
fields_finish(req_t *r, rowset_t *rs, const char *col, const char *pre,
    const jv_t *base, const jv_t *moved, int create)
{
    int          i;
    jv_t        *o;
    const jv_t  *c;

    o = json_obj(&r->a);

    for (c = base ? base->head : NULL; c; c = c->next) {
        json_set(o, c->key, json_copy(&r->a, c));
    }

    for (c = moved ? moved->head : NULL; c; c = c->next) {
        json_set(o, c->key, json_copy(&r->a, c));
    }

    row_set(rs, col, "jsonb", json_text(&r->a, o));

    for (i = 0; i < rs->n && !create && base == NULL; i++) {
        if (strcmp(rs->col[i], col) == 0) {
            rs->pre[i] = pre;
        }
    }
}


int
fields_metadata(req_t *r, rowset_t *rs, int create)
{
    jv_t  *v, *tags, *base;

    v = json_get(r->json, "metadata");

    if (!json_is_null(v) && v->type != J_OBJ) {
        fail_field(r, "metadata", "dict_type",
                   "Input should be a valid dictionary", v);
        return -1;
    }

    tags = json_get(v, "tags");

    if (tags && tags->type == J_ARR
        && field_strs_value(r, "metadata.tags", tags) == NULL)
    {
        return -1;
    }

    if (v || rs->meta) {
        base = json_is_null(v) ? (v && !create ? json_obj(&r->a) : NULL) : v;
        fields_finish(r, rs, "metadata", "metadata || ", base, rs->meta, create);
    }

    if (rs->extra) {
        fields_finish(r, rs, "extra", "extra || ", NULL, rs->extra, create);
    }

    return 0;
}
