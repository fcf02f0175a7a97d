/* Many keys at once: /key/bulk_update, /team/key/bulk_update. */

#include <string.h>
#include "access.h"
#include "api.h"
#include "db.h"
#include "key.h"
#include "owner.h"
#include "tx.h"


const field_t  key_bulk_body[] = {
    { "keys", F_LIST, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};

const field_t  team_key_bulk_body[] = {
    { "team_id", F_ID, NULL, F_REQUIRED },
    { "key_ids", F_STRS, NULL, 0 },
    { "all_keys_in_team", F_BOOL, NULL, 0 },
    { "update_fields", F_OBJ, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};


#define KEY_BULK_MAX  500


/* Why the answer of one item was refused: its message, taken out of the answer. */

const char *
key_taken_error(req_t *r)
{
    jv_t        *v, *e;
    const char  *err, *s;

    v = json_parse_big(&r->a, r->out.p ? r->out.p : "", r->out.len, &err);
    reply_reset(r);
    e = json_get(v, "error");
    s = json_str(e, "message");

    if (s == NULL) {
        e = json_get(v, "detail");
        s = e && e->type == J_STR ? e->s : e ? json_text(&r->a, e) : "failed";
    }

    return s;
}


/* Each item in a transaction of its own: one that fails stops no other. */

static void
key_bulk_item(req_t *r, const char *team, jv_t *item, jv_t *good, jv_t *bad)
{
    int          done, tries;
    jv_t        *row, *o;
    key_ref_t    ref;
    const char  *sent;

    tries = 0;
    o = json_obj(&r->a);

    do {
        r->json = json_copy(&r->a, item);
        sent = NULL;
        row = NULL;
        done = access_fields(r, key_update_body) == 0
               && fields_check(r, key_update_body) == 0 && owner_check_limits(r) == 0
               && tx_begin(r) == 0 && key_update_one(r, team, &ref, &sent, &row) == 0
               && tx_commit(r) == 0;
    } while (!done && tx_item_again(r, &tries));

    if (done) {
        key_spend(r, ref.token, row);
        json_set(o, "key", json_string(&r->a, sent));
        json_set(o, "key_info", row);
        json_push(good, o);
        return;
    }

    tx_item_failed(r);
    sent = json_str(item, "key");
    json_set(o, "key", json_string(&r->a, sent));
    json_set(o, "key_info", json_null(&r->a));
    json_set(o, "failed_reason", json_string(&r->a, key_taken_error(r)));
    json_push(bad, o);
}


static void
key_bulk(req_t *r, const char *team, jv_t *items)
{
    jv_t    *out, *good, *bad, *c, *next;
    size_t   n;

    good = json_arr(&r->a);
    bad = json_arr(&r->a);
    n = items->n;

    for (c = items->head; c; c = next) {
        next = c->next;
        r->touched = NULL;
        r->touch_end = &r->touched;

        if (c->type == J_OBJ) {
            key_bulk_item(r, team, c, good, bad);
        }
    }

    out = json_obj(&r->a);
    json_set(out, "total_requested", json_int(&r->a, (int64_t) n));
    json_set(out, "successful_updates", good);
    json_set(out, "failed_updates", bad);
    reply_json(r, 200, out);
}


static int
key_bulk_size(req_t *r, size_t n)
{
    if (n == 0) {
        fail_detail_error(r, 400, "No keys provided for update");
        return -1;
    }

    if (n > KEY_BULK_MAX) {
        fail_detail_error(r, 400, "Maximum %d keys can be updated at once. Found %zu"
                          " keys.", KEY_BULK_MAX, n);
        return -1;
    }

    return 0;
}


void
api_key_bulk_update(req_t *r)
{
    jv_t  *items, *c;

    if (!access_admin(r)) {
        fail_detail_error(r, 403, "Only proxy admins can perform bulk key updates");
        return;
    }

    items = json_get(r->json, "keys");

    for (c = items->head; c; c = c->next) {
        if (c->type != J_OBJ) {
            fail_field(r, "keys", "model_attributes_type", "Input should be a valid"
                       " dictionary or object to extract fields from", c);
            return;
        }
    }

    if (key_bulk_size(r, items->n) == 0) {
        key_bulk(r, NULL, items);
    }
}


/* The same fields for many keys of one team. */

void
api_team_key_bulk_update(req_t *r)
{
    int          i, all;
    jv_t        *items, *o, *fields;
    PGresult    *res;
    const jv_t  *ids, *c, *f;
    const char  *team, **list;

    all = 0;
    team = json_str(r->json, "team_id");
    ids = json_get(r->json, "key_ids");
    fields = json_get(r->json, "update_fields");

    if (field_bool(r, "all_keys_in_team", &all) < 0) {
        return;
    }

    if (!access_admin(r) && key_member_permits(r, team, "/team/key/bulk_update") != 0)
    {
        return;
    }

    list = arena_alloc(&r->a, (ids ? ids->n + 1 : 1) * sizeof(char *));

    for (i = 0, c = ids ? ids->head : NULL; c; c = c->next) {
        list[i++] = key_token(r, c->s);
    }

    res = db_q("SELECT coalesce(current_hash, token) FROM keys WHERE team_id = $1 AND"
               " ($2::boolean OR coalesce(current_hash, token) = ANY ($3::text[]))"
               " ORDER BY token LIMIT 501", team, all ? "true" : "false",
               db_array(&r->a, list, (size_t) i));

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return;
    }

    items = json_arr(&r->a);

    for (i = 0; i < PQntuples(res); i++) {
        o = json_obj(&r->a);
        json_set(o, "key", json_string(&r->a, arena_str(&r->a,
                                                        PQgetvalue(res, i, 0))));

        for (f = fields->head; f; f = f->next) {
            if (strcmp(f->key, "key") && strcmp(f->key, "team_id")
                && strcmp(f->key, "key_alias"))
            {
                json_set(o, f->key, json_copy(&r->a, f));
            }
        }

        json_push(items, o);
    }

    PQclear(res);

    if (key_bulk_size(r, items->n) == 0) {
        key_bulk(r, team, items);
    }
}
