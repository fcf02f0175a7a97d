/* guaranteed_throughput: keys of a team that have their limits for certain. */

#include <inttypes.h>
#include <string.h>
#include "db.h"
#include "key.h"
#include "kt_money.h"
#include "tx.h"


typedef struct {
    const char  *limit;
    const char  *type;
    const char  *what;           /* as the answer names it                     */
    const char  *sql;
} guarantee_t;

#define GUARANTEE(col)                                                        \
    "SELECT w.want, s.sum, t." col ", w.want + s.sum > t." col " FROM keys k JOIN teams t" \
    " USING (team_id) LEFT JOIN budgets b ON b.budget_id = k.budget_id CROSS JOIN LATERAL" \
    " (SELECT coalesce(k." col ", b." col ")::numeric AS want) w CROSS JOIN LATERAL (SELECT" \
    " coalesce(sum(coalesce(o." col ", d." col ")), 0) AS sum FROM keys o LEFT JOIN budgets" \
    " d ON d.budget_id = o.budget_id WHERE o.team_id = k.team_id AND o.token <> k.token) s" \
    " WHERE k.token = $1"

static const guarantee_t  guarantees[] = {
    { "tpm_limit", "tpm_limit_type", "TPM", GUARANTEE("tpm_limit") },
    { "rpm_limit", "rpm_limit_type", "RPM", GUARANTEE("rpm_limit") }
};


static int
guaranteed_is(const jv_t *row, const guarantee_t *g)
{
    const char  *s;

    s = json_str(json_get(row, "metadata"), g->type);

    return s && strcmp(s, "guaranteed_throughput") == 0;
}


/* As it was, or less: that must go on even when the team has less by now. */

static int
guaranteed_kept(const jv_t *before, const jv_t *row, const guarantee_t *g)
{
    int64_t      was, is;
    const jv_t  *a, *b;

    if (before == NULL || !guaranteed_is(before, g)
        || !key_same(json_str(before, "team_id"), json_str(row, "team_id"))
        || !key_same(json_str(before, "budget_id"), json_str(row, "budget_id")))
    {
        return 0;
    }

    was = is = 0;
    a = json_get(before, g->limit);
    b = json_get(row, g->limit);

    return json_is_null(b) ? json_is_null(a)
           : !json_is_null(a) && kt_int_parse(a->s, a->len, &was) == KT_OK
             && kt_int_parse(b->s, b->len, &is) == KT_OK && is <= was;
}


static int
guaranteed_one(req_t *r, const char *token, const guarantee_t *g)
{
    int        over;
    PGresult  *res;

    res = tx_q(r, g->sql, token);

    if (res == NULL) {
        return -1;
    }

    over = PQntuples(res) && !PQgetisnull(res, 0, 3) && *PQgetvalue(res, 0, 3) == 't';

    if (over) {
        fail_repr(r, 400, "Allocated %s limit=%s + Key %s limit=%s is greater than team %s"
                  " limit=%s", g->what, PQgetvalue(res, 0, 1), g->what,
                  PQgetvalue(res, 0, 0), g->what, PQgetvalue(res, 0, 2));
    }

    PQclear(res);

    return over ? -1 : 0;
}


int
key_guaranteed(req_t *r, const char *token, const jv_t *before, const jv_t *row)
{
    size_t       i;
    PGresult    *res;
    const char  *team;

    team = json_str(row, "team_id");

    for (i = 0; i < 2 && team; i++) {
        if (!guaranteed_is(row, &guarantees[i])
            || guaranteed_kept(before, row, &guarantees[i]))
        {
            continue;
        }

        /* one at a time: the next one counts this */

        res = tx_q(r, "SELECT 1 FROM teams WHERE team_id = $1 FOR NO KEY UPDATE", team);
        PQclear(res);

        if (res == NULL || guaranteed_one(r, token, &guarantees[i]) != 0) {
            return -1;
        }
    }

    return 0;
}
