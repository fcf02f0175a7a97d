/* Who may give options of keys, and who keeps them. */

#include "access.h"
#include "db.h"
#include "grant.h"
#include "grant_bound.h"
#include "policy.h"


/*
 * More may be asked of service accounts: one does not cease to be one.  Into metadata of
 * its own, for that of many keys that are changed at once is one object.
 */

void
grant_service(req_t *r, const bound_t *own)
{
    jv_t        *meta, *v;
    const jv_t  *sent, *id, *c;

    sent = json_get(r->json, "metadata");
    id = json_get(own->row, "service_account_id");

    if (sent == NULL || json_is_null(id) || (sent->type != J_OBJ && sent->type != J_NULL)
        || !json_is_null(json_get(sent, "service_account_id")))
    {
        return;
    }

    meta = json_obj(&r->a);

    for (c = sent->head; c; c = c->next) {
        v = json_copy(&r->a, c);
        v->key = c->key;
        json_push(meta, v);
    }

    json_set(meta, "service_account_id", json_copy(&r->a, id));
    json_set(r->json, "metadata", meta);
}


/* What a key has, by the names of the fields that set it; NULL after answering. */

static const jv_t *
grant_row(req_t *r, const char *token)
{
    jv_t        *row;
    int64_t      used;
    PGresult    *res;
    const char  *err, *ent;

    res = db_q("SELECT metadata || to_jsonb(k) FROM keys k WHERE token = $1", token);

    if (!db_ok(res) || PQntuples(res) == 0) {
        PQclear(res);
        fail_db(r);
        return NULL;
    }

    row = json_parse_big(&r->a, PQgetvalue(res, 0, 0), (size_t) PQgetlength(res, 0, 0),
                         &err);
    PQclear(res);

    if (row == NULL) {
        fail_repr(r, 500, "The key %s can not be read", token);
        return NULL;
    }

    ent = arena_printf(&r->a, "key:%s", token);
    policy_used(&r->a, &ent, 1, &used);
    json_set(row, "spend", json_int(&r->a, used));

    return row;
}


int
grant_nothing(req_t *r, const field_t *table, const char *token)
{
    const jv_t     *row;
    const field_t  *f;

    if (access_admin(r)) {
        return 0;
    }

    for (f = table, row = NULL; f->name; f++) {
        if (!(f->flags & F_ZERO) || json_get(r->json, f->name) == NULL) {
            continue;
        }

        row = row ? row : grant_row(r, token);

        if (row == NULL) {
            return -1;
        }

        if (!access_says_nothing(json_get(row, f->name))
            && !(f->type == F_USD && json_is_null(json_get(r->json, f->name))))
        {
            return access_refuse_field(r, f->name);     /* spend null sets none */
        }

        json_del(r->json, f->name);
    }

    return 0;
}
