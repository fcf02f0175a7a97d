#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "budget.h"
#include "conf.h"
#include "db.h"
#include "http.h"
#include "import.h"
#include "kt_duration.h"
#include "migrate.h"
#include "owner.h"
#include "tx.h"
#include "util.h"


#define IMPORT_BATCH  500
#define IMPORT_NOTES  20                 /* shown of each table                */


/*
 * One step: a table of LiteLLM's, the key that orders it ($1 is the last one seen, $2
 * how many), and the function that takes a batch of its rows.
 */

typedef struct {
    const char  *name;
    const char  *table;
    const char  *select;
    const char  *call;
} step_t;

#define IMPORT_SELECT(table, key)                                             \
    "SELECT " key " AS k, to_jsonb(t) FROM \"" table "\" t WHERE " key         \
    " > $1 ORDER BY 1 LIMIT $2::integer"

#define IMPORT_CALL(fn)                                                       \
    "SELECT (r).imported, (r).existing, (r).notes FROM (SELECT " fn            \
    "($1::jsonb, $2::jsonb) AS r) x"

/* Aliases of a team stand in a table of their own. */

#define IMPORT_TEAMS                                                          \
    "SELECT t.team_id AS k, to_jsonb(t) || jsonb_build_object('model_aliases'," \
    " to_jsonb(m)->'aliases') FROM \"LiteLLM_TeamTable\" t LEFT JOIN"           \
    " \"LiteLLM_ModelTable\" m ON m.id = t.model_id WHERE t.team_id > $1"       \
    " ORDER BY 1 LIMIT $2::integer"

static const step_t  import_steps[] = {
    { "budgets", "LiteLLM_BudgetTable",
      IMPORT_SELECT("LiteLLM_BudgetTable", "budget_id"),
      IMPORT_CALL("kt_import_budgets") },
    { "organizations", "LiteLLM_OrganizationTable",
      IMPORT_SELECT("LiteLLM_OrganizationTable", "organization_id"),
      IMPORT_CALL("kt_import_organizations") },
    { "teams", "LiteLLM_TeamTable", IMPORT_TEAMS, IMPORT_CALL("kt_import_teams") },
    { "users", "LiteLLM_UserTable", IMPORT_SELECT("LiteLLM_UserTable", "user_id"),
      IMPORT_CALL("kt_import_users") },
    { "team memberships", "LiteLLM_TeamMembership",
      IMPORT_SELECT("LiteLLM_TeamMembership", "team_id || chr(9) || user_id"),
      IMPORT_CALL("kt_import_memberships") },
    { "team members", "LiteLLM_TeamTable",
      IMPORT_SELECT("LiteLLM_TeamTable", "team_id"),
      IMPORT_CALL("kt_import_members") },
    { "organization memberships", "LiteLLM_OrganizationMembership",
      IMPORT_SELECT("LiteLLM_OrganizationMembership",
                    "organization_id || chr(9) || user_id"),
      IMPORT_CALL("kt_import_organization_memberships") },
    { "access groups", "LiteLLM_AccessGroupTable",
      IMPORT_SELECT("LiteLLM_AccessGroupTable", "access_group_id"),
      IMPORT_CALL("kt_import_access_groups") },
    { "keys", "LiteLLM_VerificationToken",
      IMPORT_SELECT("LiteLLM_VerificationToken", "token"),
      IMPORT_CALL("kt_import_keys") },
    { "customers", "LiteLLM_EndUserTable",
      IMPORT_SELECT("LiteLLM_EndUserTable", "user_id"),
      IMPORT_CALL("kt_import_customers") },
    { "tags", "LiteLLM_TagTable", IMPORT_SELECT("LiteLLM_TagTable", "tag_name"),
      IMPORT_CALL("kt_import_tags") }
};

/* Tables with rows that have no place here: said once each. */

static const struct {
    const char  *table;
    const char  *what;
} import_left[] = {
    { "LiteLLM_ProxyModelTable", "models made over the API: their provider keys are"
      " encrypted with LiteLLM's salt; add them with /model/new or model_list" },
    { "LiteLLM_SpendLogs", "spend logs: history stays where it is, the spend of running"
      " periods was carried over" },
    { "LiteLLM_InvitationLink", "invitations: send new ones" },
    { "LiteLLM_CredentialsTable", "credentials: encrypted with LiteLLM's salt" },
    { "LiteLLM_SSOConfig", "SSO settings: encrypted with LiteLLM's salt" },
    { "LiteLLM_Config", "settings kept in the database: put them into controld.yaml" },
    { "LiteLLM_MCPServerTable", "MCP servers" },
    { "LiteLLM_GuardrailsTable", "guardrails" },
    { "LiteLLM_PromptTable", "prompts" },
    { "LiteLLM_ManagedVectorStoresTable", "vector stores" }
};


typedef struct {
    PGconn   *from;
    int       dry;
    int64_t   read;
    int64_t   imported;
    int64_t   existing;
    int64_t   notes;
} import_t;


static int
import_fail(const char *what, const char *why)
{
    fprintf(stderr, "import-litellm: %s: %s\n", what, why);

    return -1;
}


static PGresult *
import_read(import_t *im, const char *sql, int n, const char *const *params)
{
    PGresult  *res;

    res = PQexecParams(im->from, sql, n, NULL, params, NULL, NULL, 0);

    if (PQresultStatus(res) == PGRES_TUPLES_OK
        || PQresultStatus(res) == PGRES_COMMAND_OK)
    {
        return res;
    }

    import_fail("LiteLLM's database", PQerrorMessage(im->from));
    PQclear(res);

    return NULL;
}


static int
import_has(import_t *im, const char *table)
{
    int        yes;
    PGresult  *res;

    res = import_read(im, "SELECT to_regclass('\"' || $1 || '\"') IS NOT NULL", 1,
                      &table);
    yes = res && *PQgetvalue(res, 0, 0) == 't';
    PQclear(res);

    return yes;
}


/* Our period for every duration of the batch: [{d, kind, len_s, id, end_s}]. */

static const char *
import_periods(arena_t *a, PGresult *rows)
{
    int             i;
    jv_t           *list, *o, *row, *c;
    const char     *err, *d;
    kt_period_t     p;
    kt_duration_t   dur;

    list = json_arr(a);

    for (i = 0; i < PQntuples(rows); i++) {
        row = json_parse_big(a, PQgetvalue(rows, i, 1), (size_t) PQgetlength(rows, i, 1),
                             &err);
        d = json_str(row, "budget_duration");

        for (c = list->head; d && c && strcmp(json_str(c, "d"), d); c = c->next) {
            /* look on */
        }

        if (d == NULL || c || kt_duration_parse(d, strlen(d), &dur) != KT_OK
            || kt_period_start(&dur, util_now_s(), &p) != KT_OK)
        {
            continue;
        }

        o = json_obj(a);
        json_set(o, "d", json_string(a, d));
        json_set(o, "kind", json_string(a, kt_period_name(p.kind)));
        json_set(o, "len_s", json_int(a, p.len_s));
        json_set(o, "id", json_int(a, p.id));
        json_set(o, "end_s", json_int(a, p.end_s));
        json_push(list, o);
    }

    return json_text(a, list);
}


static const char *
import_rows(arena_t *a, PGresult *rows)
{
    int    i;
    buf_t  b;

    buf_init(&b, a);
    buf_putc(&b, '[');

    for (i = 0; i < PQntuples(rows); i++) {
        buf_puts(&b, i ? "," : "");
        buf_add(&b, PQgetvalue(rows, i, 1), (size_t) PQgetlength(rows, i, 1));
    }

    buf_putc(&b, ']');

    return b.p;
}


static void
import_notes(import_t *im, arena_t *a, const char *text)
{
    jv_t        *list, *c;
    const char  *err;

    list = json_parse_big(a, text, strlen(text), &err);

    for (c = list ? list->head : NULL; c; c = c->next) {
        if (im->notes++ < IMPORT_NOTES) {
            printf("    %s: %s\n", json_str(c, "id") ? json_str(c, "id") : "?",
                   json_str(c, "note"));
        }
    }
}


/* Meters per model and window of what the batch brought. */

static int
import_submeters(req_t *r, const step_t *s, const char *rows)
{
    int          i, rc;
    jv_t        *row;
    PGresult    *res;
    const char  *err, *table;

    table = strcmp(s->name, "keys") == 0 ? "SELECT ent, kt_key_json(k) FROM keys k WHERE"
            " token IN (SELECT x->>'token' FROM jsonb_array_elements($1::jsonb) x)"
            : strcmp(s->name, "teams") == 0 ? "SELECT ent, kt_team_json(k) FROM teams k"
            " WHERE team_id IN (SELECT x->>'team_id' FROM jsonb_array_elements($1::jsonb)"
            " x)" : strcmp(s->name, "users") == 0 ? "SELECT ent, kt_user_json(k) FROM"
            " users k WHERE user_id IN (SELECT x->>'user_id' FROM"
            " jsonb_array_elements($1::jsonb) x)" : NULL;

    if (table == NULL) {
        return 0;
    }

    res = tx_dynamic(r, arena_printf(&r->a, "%s AND xmin = pg_current_xact_id()::xid"
                     " AND (model_max_budget <> '{}' OR metadata ?| '{model_rpm_limit,"
                     "model_tpm_limit}' OR jsonb_array_length(budget_limits) > 0)",
                     table), 1, &rows);

    if (res == NULL) {
        return -1;
    }

    for (i = 0, rc = 0; i < PQntuples(res) && rc == 0; i++) {
        row = json_parse_big(&r->a, PQgetvalue(res, i, 1),
                             (size_t) PQgetlength(res, i, 1), &err);
        rc = owner_submeters(r, PQgetvalue(res, i, 0), row);
    }

    PQclear(res);

    return rc;
}


/* The mark of the last row, kept with the batch itself. */

static int
import_mark(req_t *r, const step_t *s, const char *last)
{
    PGresult  *res;

    res = tx_q(r, "INSERT INTO settings (name, value) VALUES ('import_litellm',"
               " jsonb_build_object($1::text, $2::text)) ON CONFLICT (name) DO UPDATE SET"
               " value = settings.value || EXCLUDED.value, updated_at = now()", s->name,
               last);
    PQclear(res);

    return res ? 0 : -1;
}


static int
import_batch(import_t *im, const step_t *s, PGresult *rows, const char *last)
{
    int          rc;
    req_t        r;
    PGresult    *res;
    const char  *json;

    tx_own(&r);
    rc = -1;

    json = import_rows(&r.a, rows);

    if (im->dry || tx_begin(&r) == 0) {
        res = tx_q(&r, s->call, json, import_periods(&r.a, rows));

        if (res) {
            im->imported += db_int(res, 0, 0);
            im->existing += db_int(res, 0, 1);
            import_notes(im, &r.a, PQgetvalue(res, 0, 2));
            PQclear(res);
            rc = import_submeters(&r, s, json);
        }

        rc = rc != 0 || import_mark(&r, s, last) != 0 ? -1 : 0;

        if (rc == 0 && !im->dry) {
            rc = tx_commit(&r);
        }
    }

    if (rc != 0) {
        db_rollback();
        import_fail(s->name, r.out.p ? r.out.p : "failed");
    }

    arena_free(&r.a);

    return rc;
}


/* Where an earlier run stopped; "" from the start. */

static char *
import_resume(const step_t *s, int dry)
{
    char      *last;
    PGresult  *res;

    res = db_q("SELECT value->>$1::text FROM settings WHERE name = 'import_litellm'",
               s->name);
    last = xstrdup(!dry && db_ok(res) && PQntuples(res) && db_str(res, 0, 0)
                   ? db_str(res, 0, 0) : "");
    PQclear(res);

    return last;
}


static int
import_step(import_t *im, const step_t *s)
{
    int          rc, n;
    char        *last;
    PGresult    *rows;
    const char  *params[2], *key;
    char         size[16];

    if (!import_has(im, s->table)) {
        printf("%-26s not there\n", s->name);
        return 0;
    }

    im->read = im->imported = im->existing = im->notes = 0;
    last = import_resume(s, im->dry);
    snprintf(size, sizeof(size), "%d", IMPORT_BATCH);
    printf("%s%s\n", s->name, *last ? ", going on where it stopped" : "");

    do {
        params[0] = last;
        params[1] = size;
        rows = import_read(im, s->select, 2, params);

        if (rows == NULL) {
            free(last);
            return -1;
        }

        n = PQntuples(rows);
        key = n ? PQgetvalue(rows, n - 1, 0) : "";
        rc = n ? import_batch(im, s, rows, key) : 0;
        im->read += n;

        if (n) {
            free(last);
            last = xstrdup(key);
        }

        PQclear(rows);
    } while (rc == 0 && n == IMPORT_BATCH);

    free(last);

    if (im->notes > IMPORT_NOTES) {
        printf("    and %" PRId64 " more\n", im->notes - IMPORT_NOTES);
    }

    printf("    %" PRId64 " read, %" PRId64 " %s, %" PRId64 " were there or were left"
           " out\n", im->read, im->imported, im->dry ? "would be imported" : "imported",
           im->existing);
    fflush(stdout);

    return rc;
}


/* Meters per model of what follows a budget and has none of them yet. */

#define IMPORT_MODELS                                                         \
    "SELECT budget_id FROM budgets b WHERE model_max_budget <> '{}' AND EXISTS"    \
    " (SELECT 1 FROM (SELECT ent, budget_id FROM keys WHERE model_max_budget = '{}'" \
    " UNION ALL SELECT ent, budget_id FROM organizations UNION ALL SELECT ent,"    \
    " budget_id FROM customers UNION ALL SELECT ent, budget_id FROM tags UNION ALL" \
    " SELECT ent, budget_id FROM customer_default) x WHERE x.budget_id = b.budget_id" \
    " AND NOT EXISTS (SELECT 1 FROM submeters WHERE owner = x.ent))"


/* Their policies name the meters, and may have been pushed without them. */

static int
import_owners(req_t *r, const char *budget)
{
    PGresult  *res;

    res = tx_q(r, "WITH k AS (UPDATE keys SET budget_id = budget_id WHERE budget_id = $1"
               " RETURNING ent), o AS (UPDATE organizations SET budget_id = budget_id WHERE"
               " budget_id = $1 RETURNING ent), g AS (UPDATE tags SET budget_id = budget_id"
               " WHERE budget_id = $1 RETURNING ent), q AS (INSERT INTO outbox (ent, op,"
               " version) SELECT ent, 'set', 0 FROM (TABLE k UNION ALL TABLE o UNION ALL"
               " TABLE g) x) SELECT kt_bump_customers($1)", budget);

    if (res == NULL) {
        return -1;
    }

    PQclear(res);

    return 0;
}


static int
import_models(void)
{
    int        i, rc;
    req_t      r;
    PGresult  *res;

    res = db_q0(IMPORT_MODELS);
    rc = db_ok(res) ? 0 : import_fail("limits by model", "can not be read");

    for (i = 0; rc == 0 && i < PQntuples(res); i++) {
        tx_own(&r);

        if (tx_begin(&r) != 0 || budget_models(&r, PQgetvalue(res, i, 0)) != 0
            || import_owners(&r, PQgetvalue(res, i, 0)) != 0
            || tx_commit(&r) != 0)
        {
            db_rollback();
            rc = import_fail("limits by model", r.out.p ? r.out.p : "failed");
        }

        arena_free(&r.a);
    }

    PQclear(res);

    return rc;
}


static int
import_remains(import_t *im)
{
    size_t     i;
    PGresult  *res;

    printf("does not carry over:\n");

    for (i = 0; i < sizeof(import_left) / sizeof(import_left[0]); i++) {
        if (!import_has(im, import_left[i].table)) {
            continue;
        }

        res = import_read(im, i == 0 ? "SELECT count(*) FROM \"LiteLLM_ProxyModelTable\""
                          : "SELECT n_live_tup FROM pg_stat_user_tables WHERE relname ="
                            " $1", i == 0 ? 0 : 1, &import_left[i].table);

        if (res == NULL) {
            return -1;
        }

        if (PQntuples(res) && strcmp(PQgetvalue(res, 0, 0), "0")) {
            printf("    %s rows of %s\n", PQgetvalue(res, 0, 0), import_left[i].what);
        }

        PQclear(res);
    }

    return 0;
}


int
import_litellm(const char *dsn, int dry)
{
    int        rc;
    size_t     i;
    import_t   im;
    PGresult  *res;

    memset(&im, 0, sizeof(im));
    im.dry = dry;

    if (migrate_run(conf.sql_dir) != 0) {
        return -1;
    }

    im.from = PQconnectdb(dsn);

    if (PQstatus(im.from) != CONNECTION_OK) {
        rc = import_fail("can not connect to LiteLLM's database",
                         PQerrorMessage(im.from));
        PQfinish(im.from);
        return rc;
    }

    /* nothing of LiteLLM's can be changed from here, whatever a mistake asked for */

    res = import_read(&im, "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", 0,
                      NULL);
    rc = res ? 0 : -1;
    PQclear(res);

    if (rc == 0 && !import_has(&im, "LiteLLM_VerificationToken")) {
        rc = import_fail("this is no database of a LiteLLM proxy",
                         "there is no table LiteLLM_VerificationToken");
    }

    /* a trial is one transaction: later tables look for what earlier ones brought */

    if (rc == 0 && dry && db_begin() != 0) {
        rc = import_fail("PostgreSQL", "can not begin");
    }

    for (i = 0; rc == 0 && i < sizeof(import_steps) / sizeof(import_steps[0]); i++) {
        rc = import_step(&im, &import_steps[i]);
    }

    db_rollback();

    if (rc == 0 && !dry) {
        rc = import_models();
    }

    rc = rc == 0 ? import_remains(&im) : rc;
    PQfinish(im.from);
    db_close();

    return rc;
}
