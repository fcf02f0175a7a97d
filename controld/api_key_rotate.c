/* A key gets another secret: /key/regenerate; and its spend another value. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "access.h"
#include "api.h"
#include "db.h"
#include "grant.h"
#include "key.h"
#include "kt_duration.h"
#include "kt_money.h"
#include "owner.h"
#include "policy.h"
#include "tx.h"
#include "util.h"


const field_t  key_spend_body[] = {
    { "reset_to", F_NUM, NULL, F_REQUIRED },
    { NULL, 0, NULL, 0 }
};

const arg_t  key_regenerate_args[] = {
    { "key", F_STR, 0 },
    { NULL, 0, 0 }
};


/* The key of the path, the query or the body; NULL after answering. */

static const char *
rotate_target(req_t *r)
{
    const char  *s;

    s = r->seg[0] ? r->seg[0] : http_arg(r, "key");
    s = s ? s : json_str(r->json, "key");

    if (s == NULL) {
        fail_repr(r, 400, "No key passed in.");
    }

    return s;
}


static int
rotate_allowed(req_t *r, const key_ref_t *ref)
{
    if (access_admin(r)) {
        return 0;
    }

    if (ref->team_id) {
        return key_member_permits(r, ref->team_id, "/key/regenerate");
    }

    if (!key_is_own(r, ref)) {
        fail_repr(r, 403, "You are not authorized to regenerate this key");
        return -1;
    }

    return 0;
}


/* Another secret is one thing; other limits are for those who may update the key. */

static int
rotate_changes(req_t *r, const key_ref_t *ref, const char *sent)
{
    size_t                    i;
    const jv_t               *c;
    static const char *const  plain[] = {
        "key", "new_key", "grace_period", "duration", "organization_id", NULL
    };

    if (access_admin(r)) {
        return 0;
    }

    for (c = r->json->head; c; c = c->next) {
        for (i = 0; plain[i] && strcmp(plain[i], c->key); i++) { /* void */ }

        if (plain[i] == NULL) {
            return key_may_update(r, ref, sent);
        }
    }

    return 0;
}


/* grace_period as a timestamp, NULL for none.  -1 after answering. */

static int
rotate_grace(req_t *r, const char **until)
{
    time_t          at;
    struct tm       tm;
    const jv_t     *v;
    kt_duration_t   d;

    *until = NULL;
    v = json_get(r->json, "grace_period");

    if (json_is_null(v) || (v->type == J_STR && (!*v->s || !strcmp(v->s, "0")))) {
        return 0;
    }

    if (v->type != J_STR || kt_duration_parse(v->s, v->len, &d) != KT_OK) {
        fail_repr(r, 400, "grace_period must be a duration, such as 24h");
        return -1;
    }

    at = (time_t) kt_duration_add(&d, util_now_s());
    gmtime_r(&at, &tm);
    *until = arena_printf(&r->a, "%04d-%02d-%02d %02d:%02d:%02d+00",
                          tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
                          tm.tm_min, tm.tm_sec);

    return 0;
}


/* A key that has expired lives on only with a new end. */

static int
rotate_expired(req_t *r, const char *token)
{
    int        expired;
    PGresult  *res;

    if (!json_is_null(json_get(r->json, "duration"))) {
        return 0;
    }

    res = tx_q(r, "SELECT expires <= now() FROM keys WHERE token = $1", token);

    if (res == NULL) {
        return -1;
    }

    expired = *PQgetvalue(res, 0, 0) == 't';
    PQclear(res);

    if (expired) {
        fail_repr(r, 400, access_admin(r)
                  ? "This key has expired. Pass a new 'duration' to regenerate it."
                  : "This key has expired. Generate a new one, or ask a proxy admin to"
                    " regenerate it with a new 'duration'.");
        return -1;
    }

    return 0;
}


/* The new hash stands before the row; the one before ends, now or at `until`. */

static int
rotate_hashes(req_t *r, const char *token, const char *hash, const char *until)
{
    int          made;
    PGresult    *res;

    res = until ? tx_q(r, "UPDATE key_tokens SET expires = $2::timestamptz WHERE"
                       " token = $1 AND expires IS NULL", token, until)
                : tx_q(r, "DELETE FROM key_tokens WHERE token = $1 AND expires IS"
                       " NULL", token);

    if (res == NULL) {
        return -1;
    }

    PQclear(res);
    made = tx_is(r, "INSERT INTO key_tokens (hash, token) SELECT $2, $1 WHERE NOT EXISTS"
                 " (SELECT 1 FROM keys WHERE token = $2 UNION ALL SELECT 1 FROM key_hashes"
                 " WHERE hash = $2) ON CONFLICT DO NOTHING"
                 " RETURNING 1", token, hash);

    if (made < 0) {
        return -1;
    }

    if (!made) {
        db_rollback();
        fail_repr(r, 400, "The new key exists already. Choose another.");
        return -1;
    }

    return 0;
}


static int
rotate_write(req_t *r, const key_ref_t *ref, const char *text, jv_t **row)
{
    rowset_t     rs;
    const char  *until, *hash;

    memset(&rs, 0, sizeof(rs));
    hash = key_token(r, text);

    if (rotate_grace(r, &until) != 0
        || fields_read(r, key_regenerate_body, &rs, 0) != 0
        || fields_metadata(r, &rs, 0) != 0
        || rotate_hashes(r, ref->token, hash, until) != 0)
    {
        return -1;
    }

    row_set(&rs, "current_hash", "text", hash);
    row_set(&rs, "key_name", "text",
            arena_printf(&r->a, "sk-...%s", text + strlen(text) - 4));
    row_expr(&rs, "rotation_count", "rotation_count + 1");
    row_expr(&rs, "last_rotation_at", "now()");

    if (until) {
        row_expr(&rs, "original_until", arena_printf(&r->a, "CASE WHEN current_hash IS"
                 " NULL THEN timestamptz '%s' ELSE original_until END", until));
    } else {
        row_expr(&rs, "original_until", "CASE WHEN current_hash IS NULL THEN NULL ELSE"
                 " original_until END");
    }

    return key_change(r, &rs, ref, "rotated", row);
}


void
api_key_regenerate(req_t *r)
{
    jv_t        *row;
    key_ref_t    ref;
    const char  *sent, *text;

    sent = rotate_target(r);

    if (sent == NULL || owner_check_limits(r) != 0 || tx_begin(r) != 0
        || key_hold(r, sent, &ref) != 0)
    {
        return;
    }

    if (ref.token == NULL) {
        access_scoped(r);
        fail_repr(r, 404, "Key %s not found.", key_token(r, sent));
        return;
    }

    if (rotate_allowed(r, &ref) != 0
        || grant_nothing(r, key_regenerate_body, ref.token) != 0
        || rotate_changes(r, &ref, sent) != 0
        || tx_match(r, ref.version) != 0
        || key_defaults(r, 0) != 0
        || key_keeps_organization(r, &ref) != 0
        || key_temp_budget(r) != 0 || key_options(r) != 0 || grant_secret(r, &ref) != 0
        || grant_key(r, ref.token, ref.user_id, ref.team_id, 0) != 0
        || key_team_duration(r, ref.team_id, ref.token, 0) != 0
        || rotate_expired(r, ref.token) != 0)
    {
        return;
    }

    text = key_text(r, "new_key");

    if (text == NULL || rotate_write(r, &ref, text, &row) != 0
        || tx_commit(r) != 0)
    {
        return;
    }

    key_spend(r, ref.token, row);
    key_echo(r, row);
    json_set(row, "key", json_string(&r->a, text));
    json_set(row, "token_id", json_copy(&r->a, json_get(row, "token")));
    reply_json(r, 200, row);
}


static int64_t
rotate_max(const jv_t *row)
{
    int64_t      v;
    const jv_t  *m;

    m = json_get(row, "max_budget");

    return !json_is_null(m)
           && kt_money_parse(m->s, m->len, KT_MONEY_USD, &v) == KT_OK ? v : -1;
}


static int
rotate_spend_ok(req_t *r, const jv_t *row, int64_t to, int64_t used)
{
    int64_t  max;

    max = rotate_max(row);

    if (to > used) {
        fail_detail_error(r, 400, "reset_to (%s) must be <= current spend (%s)",
                          py_float(&r->a, to), py_float(&r->a, used));
        return 0;
    }

    if (max >= 0 && to > max) {
        fail_detail_error(r, 400, "reset_to (%s) must be <= budget (%s)",
                          py_float(&r->a, to), py_float(&r->a, max));
        return 0;
    }

    return 1;
}


void
api_key_reset_spend(req_t *r)
{
    int          rc;
    jv_t        *row, *out;
    int64_t      to, used;
    key_ref_t    ref;
    const jv_t  *v;
    const char  *ent;

    v = json_get(r->json, "reset_to");

    if (kt_money_parse(v->s, v->len, KT_MONEY_USD, &to) != KT_OK || to < 0) {
        fail_detail_error(r, 400, "reset_to must be a number >= 0");
        return;
    }

    if (tx_begin(r) != 0 || key_hold(r, r->seg[0], &ref) != 0) {
        return;
    }

    if (ref.token == NULL) {
        access_scoped(r);
        fail_detail_error(r, 404, "Key %s not found.", key_token(r, r->seg[0]));
        return;
    }

    rc = access_admin(r) ? 1 : ref.team_id
         ? access_team_permits(r, ref.team_id, "/key/{key_id}/reset_spend") : 0;
    access_scoped(r);

    if (rc == 0) {
        fail_detail_error(r, 403, "You must be a proxy admin or team admin to reset"
                          " key spend");
    }

    if (rc <= 0 || key_row(r, ref.token, &row) != 0) {
        return;
    }

    ent = arena_printf(&r->a, "key:%s", ref.token);
    policy_used(&r->a, &ent, 1, &used);

    if (!rotate_spend_ok(r, row, to, used)
        || tx_audit(r, "updated", "LiteLLM_VerificationToken", ref.token,
                    arena_printf(&r->a, "{\"spend\":%s}", py_float(&r->a, used)),
                    arena_printf(&r->a, "{\"spend\":%s}", py_float(&r->a, to))) != 0
        || tx_commit(r) != 0 || owner_adjust(r, ent, to) != 0)
    {
        return;
    }

    out = json_obj(&r->a);
    json_set(out, "key_hash", json_copy(&r->a, json_get(row, "token")));
    json_set(out, "spend", json_usd(&r->a, to));
    json_set(out, "previous_spend", json_usd(&r->a, used));
    json_set(out, "max_budget", json_copy(&r->a, json_get(row, "max_budget")));
    json_set(out, "budget_reset_at",
             json_copy(&r->a, json_get(row, "budget_reset_at")));
    reply_json(r, 200, out);
}
