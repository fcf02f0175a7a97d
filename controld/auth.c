#include <string.h>
#include <strings.h>
#include <openssl/crypto.h>
#include "auth.h"
#include "conf.h"
#include "db.h"
#include "kt_key.h"


/*
 * Where a key may stand.  x-litellm-api-key wins over all; of the others, two
 * that differ are refused.
 */

static const char *const  auth_headers[] = {
    "API-Key", "x-api-key", "x-goog-api-key", "Ocp-Apim-Subscription-Key"
};


static const char *
auth_strip(const char *v)
{
    if (!strncmp(v, "Bearer ", 7) || !strncmp(v, "bearer ", 7)) {
        return v + 7;
    }

    if (!strncmp(v, "Basic ", 6)) {
        return v + 6;
    }

    return NULL;
}


/* The presented key; NULL after answering. */

static const char *
auth_presented(req_t *r)
{
    size_t       i;
    const char  *v, *key;

    v = http_header(r, "x-litellm-api-key");

    if (v) {
        key = auth_strip(v);
        key = key ? key : v;

    } else {
        key = NULL;
        v = http_header(r, "Authorization");

        if (v) {
            key = auth_strip(v);
            key = key ? key : "";
        }

        for (i = 0; i < sizeof(auth_headers) / sizeof(char *); i++) {
            v = http_header(r, auth_headers[i]);

            if (v && key && strcmp(v, key)) {
                fail_proxy(r, 400, "auth_error", NULL, "Authentication Error, "
                           "two different keys were passed in");
                return NULL;
            }

            key = v ? v : key;
        }
    }

    if (key == NULL) {
        fail_proxy(r, 401, "auth_error", NULL,
                   "Authentication Error, No api key passed in.");

    } else if (!*key) {
        fail_proxy(r, 401, "auth_error", NULL,
                   "Authentication Error, Malformed API Key passed in. Ensure"
                   " Key has `Bearer ` prefix.");
        key = NULL;
    }

    return key;
}


static const char *
auth_tail(arena_t *a, const char *key)
{
    size_t  n;

    n = strlen(key);

    return arena_printf(a, "sk-...%s", n > 8 ? key + n - 4 : "");
}


static role_t
auth_role(const char *role)
{
    static const struct {
        const char  *name;
        role_t       role;
    } names[] = {
        { "internal_user", ROLE_INTERNAL },
        { "internal_user_viewer", ROLE_INTERNAL_VIEWER },
        { "org_admin", ROLE_ORG_ADMIN },
        { "proxy_admin_viewer", ROLE_VIEWER },
        { "proxy_admin", ROLE_ADMIN }
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(role, names[i].name) == 0) {
            return names[i].role;
        }
    }

    return ROLE_NONE;
}


static int
auth_key_row(req_t *r, const char *key, const char *token)
{
    int          live;
    PGresult    *res;
    const char  *err;

    res = db_q("SELECT kt_key_json(k), k.expires IS NULL OR k.expires > now(),"
               " coalesce(k.blocked, false) OR k.status <> 'active',"
               " coalesce(t.blocked OR t.status <> 'active', false), kt_ts(k.expires),"
               " kt_ts(now()), CASE WHEN u.user_id IS NULL THEN 'none' ELSE"
               " coalesce(u.user_role, 'internal_user') END,"
               " coalesce(k.organization_id, t.organization_id),"
               " coalesce(u.blocked, false), k.token"
               " FROM keys k LEFT JOIN teams t ON t.team_id = k.team_id"
               " LEFT JOIN users u ON u.user_id = k.user_id AND NOT u.implicit"
               " WHERE k.token = kt_key_of($1)", token);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        fail_proxy(r, 401, "token_not_found_in_db", "key",
                   "Authentication Error, Invalid proxy server token passed."
                   " Received API Key = %s, Key Hash (Token) =%s. Unable to find"
                   " token in cache or `LiteLLM_VerificationTokenTable`",
                   auth_tail(&r->a, key), token);
        return -1;
    }

    r->caller_token = arena_str(&r->a, token);
    r->caller_key = arena_str(&r->a, PQgetvalue(res, 0, 9));
    r->caller_row = json_parse_big(&r->a, PQgetvalue(res, 0, 0),
                                   (size_t) PQgetlength(res, 0, 0), &err);
    r->caller_user = json_str(r->caller_row, "user_id");
    r->caller_team = json_str(r->caller_row, "team_id");
    r->caller_org = arena_str(&r->a, db_str(res, 0, 7));
    r->role = auth_role(PQgetvalue(res, 0, 6));
    live = 0;

    if (*PQgetvalue(res, 0, 2) == 't') {
        fail_proxy(r, 401, "auth_error", NULL, "Authentication Error, Key is"
                   " blocked. Update via `/key/unblock` if you're admin.");

    } else if (*PQgetvalue(res, 0, 1) != 't') {
        fail_proxy(r, strcmp(conf.compat, "1.81") ? 401 : 400, "expired_key",
                   auth_tail(&r->a, key), "Authentication Error - Expired Key."
                   " Key Expiry time %s and current time %s",
                   PQgetvalue(res, 0, 4), PQgetvalue(res, 0, 5));

    } else if (*PQgetvalue(res, 0, 3) == 't') {
        fail_proxy(r, 401, "auth_error", NULL, "Authentication Error, Team=%s is"
                   " blocked. Update via `/team/unblock` if your admin.",
                   r->caller_team);

    } else if (*PQgetvalue(res, 0, 8) == 't') {
        fail_proxy(r, 401, "auth_error", NULL, "Authentication Error, User is"
                   " blocked. Ask a proxy admin.");

    } else {
        live = 1;
    }

    PQclear(res);

    return live ? 0 : -1;
}


int
auth_caller(req_t *r)
{
    char         token[KT_KEY_TOKEN_LEN + 1];
    const char  *key;

    key = auth_presented(r);

    if (key == NULL) {
        return -1;
    }

    kt_key_token(key, strlen(key), token);
    r->changed_by = http_header(r, "litellm-changed-by");

    if (token[0] == '\0') {
        fail_proxy(r, 500, "internal_server_error", NULL, "SHA-256 failed");
        return -1;
    }

    if (CRYPTO_memcmp(token, conf.master_token, KT_KEY_TOKEN_LEN) == 0) {
        r->master = 1;
        r->role = ROLE_ADMIN;
        r->caller_token = conf.master_token;
        r->caller_user = "default_user_id";
        return 0;
    }

    if (strncmp(key, "sk-", 3) != 0) {
        fail_proxy(r, 401, "auth_error", NULL, "Authentication Error, LiteLLM"
                   " Virtual Key expected. Received=%.4s****, expected to start"
                   " with 'sk-'.", strlen(key) > 12 ? key : "");
        return -1;
    }

    return auth_key_row(r, key, token);
}
