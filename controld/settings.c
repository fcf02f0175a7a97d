#include <string.h>
#include "conf.h"
#include "db.h"
#include "kt_money.h"
#include "settings.h"


const jv_t *
settings_get(req_t *r, const char *name)
{
    jv_t        *v;
    PGresult    *res;
    const char  *err;

    v = json_get(conf.settings, name);

    if (v) {
        return json_is_null(v) ? NULL : v;
    }

    res = db_q("SELECT value FROM settings WHERE name = $1", name);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return NULL;
    }

    v = PQntuples(res) ? json_parse(&r->a, PQgetvalue(res, 0, 0),
                                    (size_t) PQgetlength(res, 0, 0), &err) : NULL;
    PQclear(res);

    return json_is_null(v) ? NULL : v;
}


int64_t
settings_usd(req_t *r, const char *name)
{
    int64_t      nusd;
    const jv_t  *v;

    v = settings_get(r, name);

    if (v == NULL) {
        return r->status ? -2 : -1;
    }

    return (v->type == J_NUM || v->type == J_STR)
           && kt_money_parse(v->s, v->len, KT_MONEY_USD, &nusd) == KT_OK
           && nusd >= 0 ? nusd : -1;
}
