#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "budget.h"
#include "conf.h"
#include "db.h"
#include "kt_duration.h"
#include "setup.h"
#include "tx.h"
#include "util.h"


static const char *
setup_names(arena_t *a, const jv_t *list)
{
    size_t        n;
    const jv_t   *c;
    const char  **names;

    n = 0;
    names = arena_alloc(a, (list ? list->n + 1 : 1) * sizeof(char *));

    for (c = list ? list->head : NULL; c; c = c->next) {
        if (c->type == J_STR) {
            names[n++] = c->s;
        }
    }

    return db_array(a, names, n);
}


static int
setup_global(arena_t *a)
{
    kt_period_t    p;
    kt_duration_t  d;

    memset(&p, 0, sizeof(p));

    if (conf.budget_duration) {
        kt_duration_parse(conf.budget_duration, strlen(conf.budget_duration), &d);
        kt_period_start(&d, util_now_s(), &p);
    }

    return db_done(db_q("UPDATE proxy SET max_budget_nusd = $1,"
        " max_parallel_requests = $2, budget_duration = $3, enforced_params = $8,"
        " service_params = $9, period_kind = $4,"
        " period_len_s = $5, period_end_s = $6,"
        " period_id = CASE WHEN version = 0 OR (period_kind = 'none' AND period_id = 0"
        " AND NOT EXISTS (SELECT 1 FROM meters WHERE ent = 'global')) THEN $7::bigint"
        " ELSE kt_period_id(period_kind, period_len_s, period_id, period_end_s,"
        " kt_now_s()) END"
        " WHERE (max_budget_nusd, max_parallel_requests, budget_duration,"
        " enforced_params, service_params) IS DISTINCT FROM ($1::bigint, $2::bigint,"
        " $3::text, $8::text[], $9::text[])",
        conf.max_budget_nusd < 0 ? NULL
                                 : arena_printf(a, "%" PRId64, conf.max_budget_nusd),
        conf.max_parallel < 0 ? NULL : arena_printf(a, "%" PRId64, conf.max_parallel),
        conf.budget_duration, kt_period_name(p.kind),
        arena_printf(a, "%" PRId64, p.len_s), arena_printf(a, "%" PRId64, p.end_s),
        arena_printf(a, "%" PRId64, p.id), setup_names(a, conf.enforced_params),
        setup_names(a, conf.service_params))) ? 0 : -1;
}


/* max_end_user_budget is a budget row of its own. */

#define SETUP_CUSTOMER  "keytoll-end-users"


/* What end users without a budget of their own have. */

static int
setup_default(req_t *r)
{
    int          other;
    PGresult    *res;
    const char  *id;

    id = conf.customer_budget;

    if (id == NULL && conf.customer_nusd >= 0) {
        id = SETUP_CUSTOMER;

        if (!db_done(db_q("INSERT INTO budgets (budget_id, max_budget_nusd) VALUES ($1,"
                " $2) ON CONFLICT (budget_id) DO UPDATE SET max_budget_nusd ="
                " EXCLUDED.max_budget_nusd WHERE budgets.max_budget_nusd IS DISTINCT"
                " FROM EXCLUDED.max_budget_nusd", id,
                arena_printf(&r->a, "%" PRId64, conf.customer_nusd))))
        {
            return -1;
        }
    }

    if (id == NULL) {
        return db_done(db_q0("DELETE FROM customer_default")) ? 0 : -1;
    }

    res = tx_q(r, "INSERT INTO customer_default (budget_id) VALUES ($1) ON CONFLICT"
               " (ent) DO UPDATE SET budget_id = EXCLUDED.budget_id WHERE"
               " customer_default.budget_id <> EXCLUDED.budget_id RETURNING ent", id);

    if (res == NULL) {
        return -1;
    }

    other = PQntuples(res);
    PQclear(res);

    return budget_default(r, other);
}


/* The outbox tells Redis of it, which need not be there yet. */

static int
setup_customers(void)
{
    int    rc;
    req_t  r;

    tx_own(&r);
    rc = tx_begin(&r) == 0 && setup_default(&r) == 0 && db_commit() == 0 ? 0 : -1;

    if (rc) {
        db_rollback();
    }

    arena_free(&r.a);

    return rc;
}


/* Access groups that model_list names. */

static int
setup_groups(arena_t *a)
{
    return db_done(db_q("SELECT kt_model_groups_sync('config', $1::jsonb)",
                        conf.model_list ? json_text(a, conf.model_list) : "[]"))
           ? 0 : -1;
}


/* An earlier master key loses its entity, by way of the outbox. */

static int
setup_master(void)
{
    return db_done(db_q("WITH gone AS (DELETE FROM masters WHERE token <> $1"
        " RETURNING ent) INSERT INTO outbox (ent, op, version)"
        " SELECT ent, 'del', nextval('policy_version_seq') FROM gone",
        conf.master_token))
        && db_done(db_q("INSERT INTO masters (token) VALUES ($1)"
                        " ON CONFLICT DO NOTHING", conf.master_token)) ? 0 : -1;
}


int
setup_run(void)
{
    int      rc;
    arena_t  a;

    arena_init(&a);
    rc = setup_global(&a) == 0 && setup_master() == 0
         && setup_customers() == 0 && setup_groups(&a) == 0 ? 0 : -1;
    arena_free(&a);
    db_close();

    return rc;
}
