/*
 * PostgreSQL: one connection per thread, opened on first use and again after it
 * broke.  Every statement is prepared (once per connection, by its text) or sent
 * with parameters; values never become SQL.
 */

#ifndef CTL_DB_H
#define CTL_DB_H

#include <stdint.h>
#include <libpq-fe.h>
#include "arena.h"


#define DB_PARAMS_MAX  64

/* Advisory locks. */
#define DB_LOCK_MIGRATE  0x6b740001
#define DB_LOCK_SWEEP    0x6b740002
#define DB_LOCK_REBUILD  0x6b740003
#define DB_LOCK_RECON    0x6b740004


/* The thread's connection; NULL when the database can not be reached. */
PGconn *db_conn(void);

/* A connection of the caller's own (LISTEN, session locks); PQfinish it. */
PGconn *db_open(void);

/* Closes the thread's connection, at the end of a thread. */
void db_close(void);

/*
 * Runs a constant statement with text parameters on the thread's connection.  It is
 * known again by its address: one that is built at run time goes to db_dynamic().
 * Never NULL-safe for you: NULL means the database is gone; else look at
 * db_ok().  A broken connection is reopened and the statement repeated once when
 * no transaction is open.  PQclear() the result.
 */
PGresult *db_query(const char *sql, int n, const char *const *params);

/* The same for a statement built at run time from fixed parts; not prepared. */
PGresult *db_dynamic(const char *sql, int n, const char *const *params);

/*
 * db_dynamic() planned for these very parameters, for reports whose plan depends on
 * how much they ask for.  Not within a transaction.
 */
PGresult *db_report(const char *sql, int n, const char *const *params);

#define db_q0(sql)           db_query(sql, 0, NULL)
#define db_q(sql, ...)                                                         \
    db_query(sql, (int) (sizeof((const char *[]){ __VA_ARGS__ }) / sizeof(char *)),    \
             (const char *const[]){ __VA_ARGS__ })

int db_ok(PGresult *r);                       /* 1: tuples or command done     */
int db_done(PGresult *r);                     /* db_ok and PQclear             */
const char *db_state(PGresult *r);            /* SQLSTATE, "" without          */
void db_log(const char *what, PGresult *r);   /* logs the error of r           */

int db_begin(void);                           /* 0, or -1: no database         */
int db_commit(void);
void db_rollback(void);

/* Value of a field, NULL when null; valid until PQclear. */
const char *db_str(PGresult *r, int row, int col);
int64_t db_int(PGresult *r, int row, int col);

/* Text form of text[] for n strings. */
const char *db_array(arena_t *a, const char *const *items, size_t n);
const char *db_array_ints(arena_t *a, const int64_t *items, size_t n);


#endif
