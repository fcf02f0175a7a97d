#include <inttypes.h>
#include <string.h>
#include "access.h"
#include "idem.h"
#include "log.h"
#include "policy.h"
#include "rds.h"
#include "registry.h"
#include "tx.h"


#define TX_PUSH_MAX  1000          /* entities that one call pushes itself      */


void
tx_own(req_t *r)
{
    memset(r, 0, sizeof(*r));
    arena_init(&r->a);
    buf_init(&r->out, &r->a);
    r->master = 1;
    r->role = ROLE_ADMIN;
    r->err_type = "internal_server_error";
    r->touch_end = &r->touched;
}


int
tx_begin(req_t *r)
{
    if (db_begin() != 0) {
        fail_db(r);
        return -1;
    }

    return idem_claim(r);
}


void
tx_collided(req_t *r)
{
    db_rollback();
    r->collided = 1;
    fail_proxy(r, 409, "conflict", NULL, "Another request was changing the same. Nothing was"
               " changed. Send it again.");
}


void
tx_item_failed(req_t *r)
{
    db_rollback();
    r->idem_claimed = r->idem_kept;
}


int
tx_item_again(req_t *r, int *tries)
{
    int  again;

    again = r->collided && r->status == 409 && ++*tries < TX_TRIES;
    r->collided = 0;

    if (again) {
        tx_item_failed(r);
        reply_reset(r);
        r->touched = NULL;
        r->touch_end = &r->touched;
    }

    return again;
}


static PGresult *
tx_checked(req_t *r, PGresult *res)
{
    const char  *state;

    if (db_ok(res)) {
        return res;
    }

    state = db_state(res);
    db_log("statement of a request failed", res);

    if (!strcmp(state, "40P01") || !strcmp(state, "40001")) {
        tx_collided(r);

    } else if (!*state || !strncmp(state, "08", 2) || !strncmp(state, "57P", 3)) {
        fail_db(r);

    } else if (!strncmp(state, "22", 2) || !strncmp(state, "23", 2)) {
        fail_proxy(r, 400, "bad_request_error", NULL,
                   "A value is out of range or violates a constraint");

    } else {
        fail_proxy(r, 500, r->err_type, NULL,
                   "Internal Server Error, the database refused the change");
    }

    PQclear(res);
    db_rollback();

    return NULL;
}


PGresult *
tx_query(req_t *r, const char *sql, int n, const char *const *params)
{
    return tx_checked(r, db_query(sql, n, params));
}


int
tx_any(req_t *r, const char *sql, int n, const char *const *params)
{
    int        any;
    PGresult  *res;

    res = tx_query(r, sql, n, params);

    if (res == NULL) {
        return -1;
    }

    any = PQntuples(res) > 0;
    PQclear(res);

    return any;
}


int
db_any(req_t *r, const char *sql, int n, const char *const *params)
{
    int        any;
    PGresult  *res;

    res = db_query(sql, n, params);
    any = db_ok(res) ? PQntuples(res) > 0 : -1;
    PQclear(res);

    if (any < 0) {
        fail_db(r);
    }

    return any;
}


PGresult *
tx_dynamic(req_t *r, const char *sql, int n, const char *const *params)
{
    return tx_checked(r, db_dynamic(sql, n, params));
}


static void
tx_note(req_t *r, const char *ent, const char *op, int64_t version)
{
    touch_t  *t;

    for (t = r->touched; t; t = t->next) {
        if (strcmp(t->ent, ent) == 0) {
            t->op = arena_str(&r->a, op);
            t->version = version;
            return;
        }
    }

    t = arena_alloc(&r->a, sizeof(touch_t));
    t->ent = arena_str(&r->a, ent);
    t->op = arena_str(&r->a, op);
    t->version = version;
    *r->touch_end = t;
    r->touch_end = &t->next;
}


void
tx_touch(req_t *r, const char *ent)
{
    tx_note(r, ent, "set", 0);
}


int
tx_gone(req_t *r, const char *ent)
{
    int64_t    v;
    PGresult  *res;

    res = tx_query(r, "SELECT nextval('policy_version_seq')", 0, NULL);

    if (res == NULL) {
        return -1;
    }

    v = db_int(res, 0, 0);
    PQclear(res);
    tx_note(r, ent, "del", v);

    return 0;
}


void
tx_registry(req_t *r)
{
    tx_note(r, "registry", "registry", 0);
}


const char *
tx_actor(req_t *r)
{
    return r->master ? "default_user_id" : r->caller_user;
}


void
tx_etag(req_t *r, int64_t version)
{
    reply_header(r, "ETag", arena_printf(&r->a, "\"%" PRId64 "\"", version));
}


int
tx_match(req_t *r, int64_t version)
{
    const char  *want;

    r->matched = 1;
    want = http_header(r, "If-Match");

    if (want == NULL || strcmp(want, "*") == 0
        || strcmp(want, arena_printf(&r->a, "\"%" PRId64 "\"", version)) == 0)
    {
        return 0;
    }

    db_rollback();
    fail_proxy(r, 412, "precondition_failed", "If-Match", "The object was changed by"
               " somebody else in the meantime. Read it again and decide.");

    return -1;
}


int
tx_audit(req_t *r, const char *action, const char *type, const char *id,
    const char *before, const char *after)
{
    PGresult  *res;

    res = tx_q(r, "INSERT INTO audit (actor, actor_key, changed_by, action,"
               " object_type, object_id, before, after)"
               " VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8::jsonb)",
               tx_actor(r) ? tx_actor(r) : "",
               r->caller_token ? r->caller_token : "", r->changed_by, action,
               type, id, before, after);

    if (res == NULL) {
        return -1;
    }

    PQclear(res);

    return 0;
}


/*
 * Writes what was touched to the outbox and reads what is there of this transaction,
 * of triggers too: these entities are pushed before the answer.  *ids names the rows
 * that the push will have delivered; what is beyond TX_PUSH_MAX is left to the relay,
 * and *left is set.
 */

static PGresult *
tx_outbox_rows(req_t *r, size_t n)
{
    size_t        k;
    touch_t      *t;
    const char  **ents, **ops;
    int64_t      *vs;

    ents = arena_alloc(&r->a, (n + 1) * sizeof(char *));
    ops = arena_alloc(&r->a, (n + 1) * sizeof(char *));
    vs = arena_alloc(&r->a, (n + 1) * sizeof(int64_t));

    for (k = 0, t = r->touched; t; t = t->next, k++) {
        ents[k] = t->ent;
        ops[k] = t->op;
        vs[k] = t->version;
    }

    return tx_q(r, "WITH mine AS (INSERT INTO outbox (ent, op, version) SELECT * FROM"
                " unnest($1::text[], $2::text[], $3::bigint[]) RETURNING id, ent, op,"
                " version) SELECT id, ent, op, version FROM outbox WHERE created_at ="
                " now() AND xmin = pg_current_xact_id()::xid UNION ALL SELECT id, ent, op,"
                " version FROM mine ORDER BY id", db_array(&r->a, ents, n),
                db_array(&r->a, ops, n), db_array_ints(&r->a, vs, n));
}


static int
tx_outbox(req_t *r, size_t *n, const char **ids, int *left)
{
    int          i;
    buf_t        b;
    touch_t     *t;
    PGresult    *res;

    res = tx_outbox_rows(r, *n);

    if (res == NULL) {
        return -1;
    }

    buf_init(&b, &r->a);
    buf_putc(&b, '{');
    *left = PQntuples(res) > TX_PUSH_MAX;

    for (i = PQntuples(res); i-- > 0; /* void */) {
        for (t = r->touched; t && strcmp(t->ent, PQgetvalue(res, i, 1)); t = t->next);

        if (t == NULL && *n < TX_PUSH_MAX) {
            tx_note(r, PQgetvalue(res, i, 1), PQgetvalue(res, i, 2),
                    db_int(res, i, 3));
            (*n)++;

        } else if (t == NULL) {
            continue;
        }

        buf_printf(&b, b.len > 1 ? ",%s" : "%s", PQgetvalue(res, i, 0));
    }

    buf_putc(&b, '}');
    *ids = b.p;
    PQclear(res);

    return 0;
}


static int
tx_push(req_t *r, size_t n)
{
    int           registry;
    size_t        k;
    touch_t      *t;
    const char  **names;
    int64_t      *vs;

    names = arena_alloc(&r->a, n * sizeof(char *));
    vs = arena_alloc(&r->a, n * sizeof(int64_t));
    registry = 0;

    for (k = 0, t = r->touched; t; t = t->next) {
        if (strcmp(t->op, "registry") == 0) {
            registry = 1;
            continue;
        }

        names[k] = t->ent;
        vs[k++] = t->version;
    }

    if (policy_push(&r->a, names, vs, k) != 0
        || (registry && registry_push(0) != 0))
    {
        return -1;
    }

    return rds_announced(&r->a);
}


/* A handler that changes something without having asked whose it is. */

static int
tx_unscoped(req_t *r)
{
    const access_t  *row;

    row = r->access;

    if (row == NULL || row->scope != SCOPE_OBJECT || r->scoped || access_admin(r)) {
        return 0;
    }

    log_event(LOG_ERROR, "a handler did not check whose object it changes", "path",
              r->path, NULL);
    db_rollback();
    fail_proxy(r, 500, "internal_server_error", NULL, "Internal Server Error, the"
               " change was not made because nobody checked who may make it");

    return 1;
}


/* A handler that has no version to compare: If-Match must not seem to hold. */

static int
tx_unmatched(req_t *r)
{
    if (r->matched || http_header(r, "If-Match") == NULL) {
        return 0;
    }

    db_rollback();
    fail_proxy(r, 501, "not_implemented", "If-Match", "If-Match is not supported by this"
               " request. Nothing was changed. Send it without.");

    return 1;
}


int
tx_commit(req_t *r)
{
    int          left;
    size_t       n;
    touch_t     *t;
    const char  *ids;

    for (n = 0, t = r->touched; t; t = t->next) {
        n++;
    }

    if (tx_unscoped(r) || tx_unmatched(r) || tx_outbox(r, &n, &ids, &left) != 0) {
        return -1;
    }

    if (db_commit() != 0) {
        fail_db(r);
        return -1;
    }

    r->committed = 1;
    r->idem_kept = r->idem_claimed;

    if (n == 0) {
        return 0;
    }

    if (tx_push(r, n) != 0 || left) {
        reply_header(r, "x-keytoll-propagated", "false");
        log_event(LOG_WARN, "a change is not in Redis yet, the outbox has it",
                  "path", r->path, NULL);
        return 0;
    }

    r->delivered = ids;

    return 0;
}
