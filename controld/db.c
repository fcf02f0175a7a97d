#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "conf.h"
#include "db.h"
#include "log.h"


#define DB_PREPARED_MAX  256


typedef struct {
    PGconn      *conn;
    int          in_tx;
    size_t       nprepared;
    const char  *prepared[DB_PREPARED_MAX];      /* texts, compared by address */
} db_thread_t;


static __thread db_thread_t  db;


static void
db_notice(void *arg, const PGresult *res)
{
    /* "already exists, skipping" and its like are not worth a line */
}


static int
db_setup(PGconn *c)
{
    int          ok;
    PGresult    *r;
    const char  *params[2];

    PQsetNoticeReceiver(c, db_notice, NULL);
    params[0] = conf.strict ? "on" : "off";
    params[1] = conf.token_rate_limit_type;
    r = PQexecParams(c, "SELECT set_config('keytoll.strict_default', $1, false),"
                     " set_config('keytoll.tpm_type', $2, false),"
                     " set_config('statement_timeout', '60s', false),"
                     " set_config('idle_in_transaction_session_timeout', '60s', false),"
                     " set_config('timezone', 'UTC', false), set_config('jit', 'off', false),"
                     " set_config('plan_cache_mode', 'force_generic_plan', false)",
                     2, NULL, params, NULL, NULL, 0);
    ok = PQresultStatus(r) == PGRES_TUPLES_OK;
    PQclear(r);

    return ok;
}


PGconn *
db_open(void)
{
    PGconn            *c;
    const char *const  names[] = { "dbname", "connect_timeout",
                                   "application_name", "client_encoding", NULL };
    const char        *values[] = { conf.database_url, "2",
                                    "keytoll-controld", "UTF8", NULL };

    c = PQconnectdbParams(names, values, 1);

    if (PQstatus(c) == CONNECTION_OK && db_setup(c)) {
        return c;
    }

    log_event(LOG_ERROR, "can not connect to PostgreSQL", "error",
              PQerrorMessage(c), NULL);
    PQfinish(c);

    return NULL;
}


void
db_close(void)
{
    if (db.conn) {
        PQfinish(db.conn);
    }

    memset(&db, 0, sizeof(db));
}


PGconn *
db_conn(void)
{
    if (db.conn && PQstatus(db.conn) == CONNECTION_OK) {
        return db.conn;
    }

    db_close();
    db.conn = db_open();

    return db.conn;
}


static PGresult *
db_run(const char *sql, int n, const char *const *params, int prepare)
{
    char       name[16];
    size_t     i;
    PGresult  *r;

    if (!prepare) {
        return PQexecParams(db.conn, sql, n, NULL, params, NULL, NULL, 0);
    }

    for (i = 0; i < db.nprepared && db.prepared[i] != sql; i++) { /* void */ }

    if (i == DB_PREPARED_MAX) {
        return PQexecParams(db.conn, sql, n, NULL, params, NULL, NULL, 0);
    }

    snprintf(name, sizeof(name), "s%zu", i);

    if (i == db.nprepared) {
        r = PQprepare(db.conn, name, sql, n, NULL);

        if (PQresultStatus(r) != PGRES_COMMAND_OK) {
            return r;
        }

        PQclear(r);
        db.prepared[db.nprepared++] = sql;
    }

    return PQexecPrepared(db.conn, name, n, params, NULL, NULL, 0);
}


static PGresult *
db_try(const char *sql, int n, const char *const *params, int prepare)
{
    int        in_tx;
    PGresult  *r;

    in_tx = db.in_tx;

    if (in_tx && (db.conn == NULL || PQstatus(db.conn) != CONNECTION_OK)) {
        return NULL;                     /* the transaction is gone for good  */
    }

    if (db_conn() == NULL) {
        return NULL;
    }

    r = db_run(sql, n, params, prepare);

    if (PQstatus(db.conn) == CONNECTION_OK) {
        return r;
    }

    if (in_tx) {
        PQclear(r);
        return NULL;
    }

    PQclear(r);

    if (db_conn() == NULL) {
        return NULL;
    }

    return db_run(sql, n, params, prepare);
}


PGresult *
db_query(const char *sql, int n, const char *const *params)
{
    return db_try(sql, n, params, 1);
}


PGresult *
db_dynamic(const char *sql, int n, const char *const *params)
{
    return db_try(sql, n, params, 0);
}


PGresult *
db_report(const char *sql, int n, const char *const *params)
{
    PGresult  *r;

    PQclear(db_q0("SELECT set_config('plan_cache_mode', 'auto', false),"
                  " set_config('work_mem', '64MB', false)"));
    r = db_dynamic(sql, n, params);
    PQclear(db_q0("SELECT set_config('plan_cache_mode', 'force_generic_plan', false),"
                  " set_config('work_mem', '4MB', false)"));

    return r;
}


int
db_ok(PGresult *r)
{
    ExecStatusType  s;

    s = PQresultStatus(r);

    return s == PGRES_TUPLES_OK || s == PGRES_COMMAND_OK;
}


int
db_done(PGresult *r)
{
    int  ok;

    ok = db_ok(r);

    if (!ok) {
        db_log("statement failed", r);
    }

    PQclear(r);

    return ok;
}


const char *
db_state(PGresult *r)
{
    const char  *s;

    s = r ? PQresultErrorField(r, PG_DIAG_SQLSTATE) : NULL;

    return s ? s : "";
}


void
db_log(const char *what, PGresult *r)
{
    const char  *text;

    /* only the primary message: the detail may quote a row's values */
    text = r ? PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY) : "no connection";
    log_event(LOG_ERROR, what, "sqlstate", db_state(r), "error",
              text ? text : "connection lost", NULL);
}


int
db_begin(void)
{
    PGresult  *r;

    db.in_tx = 0;
    r = db_dynamic("BEGIN", 0, NULL);

    if (!db_ok(r)) {
        db_log("can not begin a transaction", r);
        PQclear(r);
        return -1;
    }

    PQclear(r);
    db.in_tx = 1;

    return 0;
}


int
db_commit(void)
{
    int        ok;
    PGresult  *r;

    r = db_dynamic("COMMIT", 0, NULL);
    db.in_tx = 0;

    /* COMMIT of a failed transaction answers ROLLBACK, without an error */
    ok = db_ok(r) && strcmp(PQcmdStatus(r), "COMMIT") == 0;

    if (!ok) {
        db_log("can not commit", r);
    }

    PQclear(r);

    return ok ? 0 : -1;
}


void
db_rollback(void)
{
    if (db.in_tx) {
        PQclear(db_dynamic("ROLLBACK", 0, NULL));
        db.in_tx = 0;
    }
}


const char *
db_str(PGresult *r, int row, int col)
{
    return PQgetisnull(r, row, col) ? NULL : PQgetvalue(r, row, col);
}


int64_t
db_int(PGresult *r, int row, int col)
{
    return strtoll(PQgetvalue(r, row, col), NULL, 10);
}


const char *
db_array(arena_t *a, const char *const *items, size_t n)
{
    buf_t        b;
    size_t       i;
    const char  *p;

    buf_init(&b, a);
    buf_putc(&b, '{');

    for (i = 0; i < n; i++) {
        if (i) {
            buf_putc(&b, ',');
        }

        if (items[i] == NULL) {
            buf_puts(&b, "NULL");
            continue;
        }

        buf_putc(&b, '"');

        for (p = items[i]; *p; p++) {
            if (*p == '"' || *p == '\\') {
                buf_putc(&b, '\\');
            }

            buf_putc(&b, *p);
        }

        buf_putc(&b, '"');
    }

    buf_putc(&b, '}');

    return b.p;
}


const char *
db_array_ints(arena_t *a, const int64_t *items, size_t n)
{
    buf_t   b;
    size_t  i;

    buf_init(&b, a);
    buf_putc(&b, '{');

    for (i = 0; i < n; i++) {
        buf_printf(&b, i ? ",%" PRId64 : "%" PRId64, items[i]);
    }

    buf_putc(&b, '}');

    return b.p;
}
