/* What ends a key: /key/delete, /key/block; and back. */

#include <string.h>
#include "access.h"
#include "api.h"
#include "db.h"
#include "key.h"
#include "owner.h"
#include "policy.h"
#include "tx.h"


const field_t  key_delete_body[] = {
    { "keys", F_STRS, NULL, 0 },
    { "key_aliases", F_STRS, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  key_block_body[] = {
    { "key", F_ANY, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};


/* Each by its index: one condition for both would read the whole table. */

#define KEY_BY_HASH                                                           \
    "token = ANY (ARRAY(SELECT kt_key_of(h) FROM unnest($1::text[]) h))"

#define KEY_BY_ALIAS  "key_alias = ANY ($1::text[])"


/* Tokens that a delete names; NULL after answering. */

static const char *
key_delete_tokens(req_t *r, const jv_t **sent)
{
    size_t        i;
    const jv_t   *c, *aliases;
    const char  **list;

    *sent = json_get(r->json, "keys");

    aliases = json_get(r->json, "key_aliases");

    if (json_is_null(*sent) || ((*sent)->n == 0 && !json_is_null(aliases))) {
        *sent = aliases;
    }

    if (json_is_null(*sent)) {
        fail_field(r, NULL, "value_error", "Value error, At least one of 'keys' or"
                   " 'key_aliases' must be provided.", r->json);
        return NULL;
    }

    if ((*sent)->type != J_ARR) {
        fail_field(r, (*sent)->key, "list_type", "Input should be a valid list",
                   *sent);
        return NULL;
    }

    list = arena_alloc(&r->a, ((*sent)->n + 1) * sizeof(char *));

    for (i = 0, c = (*sent)->head; c; c = c->next) {
        if (c->type != J_STR) {
            fail_field(r, (*sent)->key, "string_type",
                       "Input should be a valid string", c);
            return NULL;
        }

        list[i++] = strcmp((*sent)->key, "keys") ? c->s : key_token(r, c->s);
    }

    return db_array(&r->a, list, i);
}


static int
key_delete_rows(req_t *r, PGresult *res)
{
    int          i, k, n;
    PGresult    *sub;
    const char  *ent;

    for (i = 0; i < PQntuples(res); i++) {
        ent = PQgetvalue(res, i, 0);

        if (tx_gone(r, ent) != 0
            || tx_audit(r, "deleted", "LiteLLM_VerificationToken", ent + 4,
                        PQgetvalue(res, i, 1), NULL) != 0)
        {
            return -1;
        }

        sub = tx_q(r, "DELETE FROM submeters WHERE owner = $1 RETURNING ent", ent);
        n = sub ? PQntuples(sub) : 0;

        for (k = 0; k < n; k++) {
            if (tx_gone(r, PQgetvalue(sub, k, 0)) != 0) {
                PQclear(sub);
                return -1;
            }
        }

        if (sub == NULL) {
            return -1;
        }

        PQclear(sub);
    }

    return 0;
}


static int
key_may_delete(req_t *r, const char *user_id, const char *team_id)
{
    if (access_admin(r) || access_self(r, user_id)) {
        return 1;
    }

    return team_id ? access_team_permits(r, team_id, "/key/delete") : 0;
}


/*
 * The tokens of those that are named, locked: own keys, and keys of teams that let the
 * caller.  NULL after answering, also when one of them is another's.
 */

static const char *
key_delete_locked(req_t *r, const char *list, const char *by)
{
    int           i, n, rc;
    PGresult     *res;
    const char  **tokens;

    res = strcmp(by, "keys")
          ? tx_q(r, "SELECT token, user_id, team_id FROM keys WHERE " KEY_BY_ALIAS
                 " ORDER BY token FOR UPDATE", list)
          : tx_q(r, "SELECT token, user_id, team_id FROM keys WHERE " KEY_BY_HASH
                 " ORDER BY token FOR UPDATE", list);

    if (res == NULL) {
        return NULL;
    }

    rc = 1;
    n = PQntuples(res);
    tokens = arena_alloc(&r->a, (size_t) (n + 1) * sizeof(char *));
    access_scoped(r);

    for (i = 0; i < n && rc > 0; i++) {
        tokens[i] = arena_str(&r->a, PQgetvalue(res, i, 0));
        rc = key_may_delete(r, db_str(res, i, 1), db_str(res, i, 2));
    }

    PQclear(res);

    if (rc == 0) {
        fail_repr(r, 403, "You are not authorized to delete this key");

    } else if (n == 0) {
        fail_repr(r, 404, "No keys found");
    }

    return rc > 0 && n ? db_array(&r->a, tokens, (size_t) n) : NULL;
}


int
keys_delete(req_t *r, const char *cond, const char *p1, const char *p2)
{
    int          n;
    PGresult    *res;
    const char  *params[5];

    params[0] = p1;
    params[1] = p2;
    params[2] = tx_actor(r);
    params[3] = r->caller_token;
    params[4] = r->changed_by;

    res = tx_dynamic(r, arena_printf(&r->a, "WITH gone AS (DELETE FROM keys WHERE %s"
               " RETURNING keys AS k), kept AS (INSERT INTO deleted_keys (token, key_alias,"
               " user_id, team_id, organization_id, row, spend_nusd, deleted_by,"
               " deleted_by_api_key, litellm_changed_by)"
               " SELECT coalesce((k).current_hash, (k).token), (k).key_alias, (k).user_id,"
               " (k).team_id, (k).organization_id, kt_key_json(k)::jsonb, kt_used((k).ent,"
               " kt_period_id((k).period_kind, (k).period_len_s, (k).period_id,"
               " (k).period_end_s, kt_now_s())), $3, $4, $5 FROM gone)"
               " SELECT (k).ent, kt_key_json(k) FROM gone WHERE $1::text IS NOT NULL"
               " OR $2::text IS NOT NULL OR true ORDER BY 1", cond), 5, params);

    if (res == NULL) {
        return -1;
    }

    n = PQntuples(res);

    if (key_delete_rows(r, res) != 0) {
        n = -1;
    }

    PQclear(res);

    return n;
}


void
api_key_delete(req_t *r)
{
    jv_t        *out;
    const jv_t  *sent;
    const char  *list;

    list = key_delete_tokens(r, &sent);
    list = list && tx_begin(r) == 0 ? key_delete_locked(r, list, sent->key) : NULL;

    if (list == NULL || keys_delete(r, "token = ANY ($1::text[])", list, NULL) < 0
        || tx_commit(r) != 0)
    {
        return;
    }

    out = json_obj(&r->a);
    json_set(out, "deleted_keys", json_copy(&r->a, sent));
    reply_json(r, 200, out);
}


static int
key_format_ok(const char *s)
{
    size_t  n;

    n = strlen(s);

    if (n < 3 || n > 100) {
        return 0;
    }

    if (strncmp(s, "sk-", 3) == 0) {
        return n > 3 && strspn(s + 3, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnop"
                               "qrstuvwxyz0123456789_-") == n - 3;
    }

    return n == 64 && strspn(s, "0123456789abcdefABCDEF") == 64;
}


static void
key_set_blocked(req_t *r, int blocked)
{
    int          rc;
    jv_t        *row, *before;
    PGresult    *res;
    key_ref_t    ref;
    const jv_t  *v;
    const char  *token;

    v = json_get(r->json, "key");

    if (json_is_null(v)) {
        fail_field(r, "key", "missing", "Field required", r->json);
        return;
    }

    if (v->type != J_STR || !key_format_ok(v->s)) {
        fail_proxy(r, 400, "bad_request_error", "key", "Invalid key format.");
        return;
    }

    if (tx_begin(r) != 0 || key_hold(r, v->s, &ref) != 0) {
        return;
    }

    if (ref.token == NULL) {
        access_scoped(r);
        fail_proxy(r, 404, "not_found_error", "key", "Key %s not found",
                   key_token(r, v->s));
        return;
    }

    token = ref.token;
    rc = access_admin(r) ? 1 : ref.team_id
         ? access_team_permits(r, ref.team_id, blocked ? "/key/block" : "/key/unblock") : 0;

    if (rc <= 0) {
        if (rc == 0) {
            fail_proxy(r, 403, "auth_error", "key", "Only proxy admins and admins of"
                       " the key's team can block or unblock it. Your role=%s",
                       access_role_name(r));
        }

        return;
    }

    if (tx_match(r, ref.version) != 0 || key_row(r, token, &before) != 0) {
        return;
    }

    res = tx_q(r, "UPDATE keys SET blocked = $2::boolean, status = CASE WHEN"
               " $2::boolean OR NOT $4::boolean THEN status ELSE 'active' END, updated_at"
               " = now(), updated_by = $3 WHERE token = $1 RETURNING ent", token,
               blocked ? "true" : "false", tx_actor(r),
               access_admin(r) ? "true" : "false");

    if (res == NULL) {
        return;
    }

    tx_touch(r, PQgetvalue(res, 0, 0));
    PQclear(res);

    if (key_row(r, token, &row) != 0
        || tx_audit(r, blocked ? "blocked" : "unblocked",
                    "LiteLLM_VerificationToken", token, json_text(&r->a, before),
                    json_text(&r->a, row)) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    key_spend(r, token, row);
    reply_json(r, 200, row);
}


void
api_key_block(req_t *r)
{
    key_set_blocked(r, 1);
}


void
api_key_unblock(req_t *r)
{
    key_set_blocked(r, 0);
}
