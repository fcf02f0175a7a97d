#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/evp.h>
#include "db.h"
#include "idem.h"
#include "log.h"
#include "seal.h"
#include "tx.h"
#include "util.h"


#define IDEM_KEY_MAX  255


static const char *
idem_hex_sha256(arena_t *a, const char *const *parts, const size_t *lens, size_t n)
{
    char           *hex;
    size_t          i;
    unsigned        len;
    EVP_MD_CTX     *c;
    unsigned char   md[EVP_MAX_MD_SIZE];

    c = EVP_MD_CTX_new();

    if (c == NULL || EVP_DigestInit_ex(c, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(c);
        return NULL;
    }

    for (i = 0; i < n; i++) {
        EVP_DigestUpdate(c, parts[i], lens[i]);
        EVP_DigestUpdate(c, "\n", 1);
    }

    EVP_DigestFinal_ex(c, md, &len);
    EVP_MD_CTX_free(c);
    hex = arena_alloc(a, 2 * len + 1);

    for (i = 0; i < len; i++) {
        snprintf(hex + 2 * i, 3, "%02x", md[i]);
    }

    return hex;
}


/* The key belongs to its caller; the request is method, target and body. */

static int
idem_names(req_t *r, const char *key)
{
    const char  *parts[4];
    size_t       lens[4], i;

    parts[0] = r->caller_token ? r->caller_token : "";
    parts[1] = key;
    lens[0] = strlen(parts[0]);
    lens[1] = strlen(key);
    r->idem_id = idem_hex_sha256(&r->a, parts, lens, 2);

    parts[0] = r->method;
    parts[1] = r->path;
    parts[2] = r->query;
    parts[3] = r->body.p ? r->body.p : "";

    for (i = 0; i < 3; i++) {
        lens[i] = strlen(parts[i]);
    }

    lens[3] = r->body.len;
    r->idem_request = idem_hex_sha256(&r->a, parts, lens, 4);

    return r->idem_id && r->idem_request ? 0 : -1;
}


/* Answers from the row of an earlier request. */

static void
idem_replay(req_t *r, PGresult *res)
{
    const char  *text;

    if (strcmp(PQgetvalue(res, 0, 0), r->idem_request) != 0) {
        fail_proxy(r, 422, "idempotency_error", "Idempotency-Key", "This"
                   " Idempotency-Key was used for another request. Use a new key"
                   " for a new request.");
        return;
    }

    text = db_str(res, 0, 2);
    text = text ? seal_open(&r->a, text, r->idem_id) : NULL;

    if (text == NULL) {
        fail_proxy(r, 409, "idempotency_error", "Idempotency-Key", "A request with"
                   " this Idempotency-Key has taken effect, but its answer was not"
                   " kept. Look the object up instead of sending it again.");
        return;
    }

    reply_header(r, "Idempotent-Replayed", "true");
    reply_text(r, (int) db_int(res, 0, 1), "application/json", text);
}


int
idem_begin(req_t *r)
{
    size_t       n;
    PGresult    *res;
    const char  *key;

    key = http_header(r, "Idempotency-Key");

    if (key == NULL) {
        return 0;
    }

    n = strlen(key);

    if (n == 0 || n > IDEM_KEY_MAX || !util_id_ok(key)) {
        fail_proxy(r, 400, "idempotency_error", "Idempotency-Key",
                   "Idempotency-Key must be 1 to 255 bytes without control"
                   " characters");
        return -1;
    }

    if (idem_names(r, key) != 0) {
        fail_proxy(r, 500, "internal_server_error", NULL, "SHA-256 failed");
        return -1;
    }

    res = db_q("SELECT request, status, answer FROM idempotency WHERE id = $1"
               " AND created_at > now() - interval '24 hours'", r->idem_id);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    if (PQntuples(res)) {
        r->scoped = 1;
        idem_replay(r, res);
    }

    PQclear(res);

    return r->status ? -1 : 0;
}


/* Two at once: the second waits for the first to commit, then finds its row. */

int
idem_claim(req_t *r)
{
    int        mine;
    PGresult  *res;

    if (r->idem_id == NULL || r->idem_claimed) {
        return 0;
    }

    res = tx_q(r, "INSERT INTO idempotency (id, request) VALUES ($1, $2)"
               " ON CONFLICT (id) DO UPDATE SET request = EXCLUDED.request,"
               " status = NULL, answer = NULL, created_at = now()"
               " WHERE idempotency.created_at <= now() - interval '24 hours'"
               " RETURNING 1", r->idem_id, r->idem_request);

    if (res == NULL) {
        return -1;
    }

    mine = PQntuples(res);
    PQclear(res);

    if (mine) {
        r->idem_claimed = 1;
        return 0;
    }

    db_rollback();
    fail_proxy(r, 409, "idempotency_error", "Idempotency-Key", "A request with this"
               " Idempotency-Key is being carried out. Send it again for its"
               " answer.");

    return -1;
}


void
idem_end(req_t *r)
{
    const char  *text;

    if (!r->idem_claimed || !r->committed || r->status < 200 || r->status > 299) {
        return;
    }

    text = seal_text(&r->a, r->out.p ? r->out.p : "", r->idem_id);

    if (text == NULL
        || !db_done(db_q("UPDATE idempotency SET status = $2, answer = $3 WHERE"
                         " id = $1", r->idem_id,
                         arena_printf(&r->a, "%d", r->status), text)))
    {
        log_event(LOG_WARN, "an answer could not be kept for its Idempotency-Key",
                  "path", r->path, NULL);
    }
}
