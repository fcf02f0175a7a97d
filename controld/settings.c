#include <string.h>
#include "conf.h"
#include "db.h"
#include "settings.h"
#include "tx.h"


int
settings_in_file(const char *name)
{
    return !json_is_null(json_get(conf.declared, name));
}


/* All that was saved, read once in a request. */

static int
settings_load(req_t *r)
{
    PGresult    *res;
    const char  *err;

    if (r->settings) {
        return 0;
    }

    res = db_q0("SELECT coalesce(jsonb_object_agg(name, value), '{}') FROM settings WHERE"
                " name <> 'import_litellm'");

    if (!db_ok(res)) {
        db_log("can not read the settings", res);
        PQclear(res);
        fail_db(r);
        return -1;
    }

    r->settings = json_parse_big(&r->a, PQgetvalue(res, 0, 0),
                                 (size_t) PQgetlength(res, 0, 0), &err);
    PQclear(res);

    return 0;
}


const jv_t *
settings_get(req_t *r, const char *name)
{
    jv_t  *v;

    v = json_get(conf.declared, name);

    if (json_is_null(v)) {
        v = settings_load(r) == 0 ? json_get(r->settings, name) : NULL;
    }

    return json_is_null(v) ? NULL : v;
}


int
settings_bool(req_t *r, const char *name, int def)
{
    const jv_t  *v;

    v = settings_get(r, name);

    return v && (v->type == J_TRUE || v->type == J_FALSE) ? v->type == J_TRUE : def;
}


int
settings_put(req_t *r, const char *name, const jv_t *value)
{
    PGresult    *res;
    const char  *before, *after;

    res = tx_q(r, "SELECT value FROM settings WHERE name = $1 FOR UPDATE", name);

    if (res == NULL) {
        return -1;
    }

    before = PQntuples(res) ? arena_str(&r->a, PQgetvalue(res, 0, 0)) : NULL;
    PQclear(res);
    after = value ? json_text(&r->a, value) : NULL;
    res = value ? tx_q(r, "INSERT INTO settings (name, value) VALUES ($1, $2::jsonb)"
                       " ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value,"
                       " updated_at = now()", name, after)
                : tx_q(r, "DELETE FROM settings WHERE name = $1", name);

    if (res == NULL) {
        return -1;
    }

    PQclear(res);
    r->settings = NULL;

    return before == NULL && after == NULL ? 0
           : tx_audit(r, before ? after ? "updated" : "deleted" : "created",
                      "LiteLLM_Config", name, before, after);
}
