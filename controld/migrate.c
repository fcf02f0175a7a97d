#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "db.h"
#include "kt_key.h"
#include "log.h"
#include "migrate.h"
#include "util.h"


#define MIGRATE_MAX  1000


static int
migrate_filter(const struct dirent *d)
{
    size_t  n;

    n = strlen(d->d_name);

    return n > 8 && strspn(d->d_name, "0123456789") == 3 && d->d_name[3] == '_'
           && strcmp(d->d_name + n - 4, ".sql") == 0;
}


/* 1: already applied; 0: to do; -1: error. */

static int
migrate_known(PGconn *c, const char *name, const char *sum)
{
    int          rc;
    PGresult    *r;
    const char  *params[1];

    params[0] = name;
    r = PQexecParams(c, "SELECT checksum FROM schema_migrations WHERE name = $1",
                     1, NULL, params, NULL, NULL, 0);

    if (!db_ok(r)) {
        db_log("migration failed", r);
        rc = -1;

    } else if (PQntuples(r) == 0) {
        rc = 0;

    } else if (strcmp(PQgetvalue(r, 0, 0), sum) == 0) {
        rc = 1;

    } else {
        log_event(LOG_ERROR, "an applied migration was changed afterwards",
                  "file", name, NULL);
        rc = -1;
    }

    PQclear(r);

    return rc;
}


static int
migrate_exec(PGconn *c, const char *sql, const char *name)
{
    int        ok;
    PGresult  *r;

    r = PQexec(c, sql);
    ok = db_ok(r);

    if (!ok) {
        log_event(LOG_ERROR, "migration failed", "file", name, "error",
                  PQerrorMessage(c), NULL);
    }

    PQclear(r);

    return ok;
}


static int
migrate_file(PGconn *c, arena_t *a, const char *dir, const char *name)
{
    int          rc;
    char         sum[65];
    char        *text;
    size_t       len;
    PGresult    *r;
    const char  *params[2];

    text = util_read_file(a, arena_printf(a, "%s/%s", dir, name), &len);

    if (text == NULL) {
        log_event(LOG_ERROR, "can not read a migration", "file", name, NULL);
        return -1;
    }

    kt_key_token(text, len, sum);
    rc = migrate_known(c, name, sum);

    if (rc != 0) {
        return rc < 0 ? -1 : 0;
    }

    if (!migrate_exec(c, "BEGIN", name) || !migrate_exec(c, text, name)) {
        migrate_exec(c, "ROLLBACK", name);
        return -1;
    }

    params[0] = name;
    params[1] = sum;
    r = PQexecParams(c, "INSERT INTO schema_migrations (name, checksum)"
                     " VALUES ($1, $2)", 2, NULL, params, NULL, NULL, 0);
    rc = db_ok(r) && migrate_exec(c, "COMMIT", name) ? 0 : -1;
    PQclear(r);

    if (rc == 0) {
        log_event(LOG_INFO, "migration applied", "file", name, NULL);
    }

    return rc;
}


static int
migrate_all(PGconn *c, arena_t *a, const char *dir)
{
    int              i, n, rc;
    struct dirent  **list;

    n = scandir(dir, &list, migrate_filter, alphasort);

    if (n <= 0) {
        log_event(LOG_ERROR, "no migrations found", "dir", dir, NULL);
        return -1;
    }

    rc = 0;

    for (i = 0; i < n; i++) {
        if (rc == 0 && i < MIGRATE_MAX) {
            rc = migrate_file(c, a, dir, list[i]->d_name);
        }

        free(list[i]);
    }

    free(list);

    return rc;
}


int
migrate_run(const char *dir)
{
    int       rc;
    char      sql[96];
    PGconn   *c;
    arena_t   a;

    c = db_open();

    if (c == NULL) {
        return -1;
    }

    arena_init(&a);
    snprintf(sql, sizeof(sql), "SET statement_timeout = 0; "
             "SELECT pg_advisory_lock(%d)", DB_LOCK_MIGRATE);
    rc = migrate_exec(c, sql, "lock")
         && migrate_exec(c, "CREATE TABLE IF NOT EXISTS schema_migrations ("
                         " name text PRIMARY KEY, checksum text NOT NULL,"
                         " applied_at timestamptz NOT NULL DEFAULT now())",
                         "schema_migrations") ? 0 : -1;

    if (rc == 0) {
        rc = migrate_all(c, &a, dir);
    }

    arena_free(&a);
    PQfinish(c);                                  /* releases the lock         */

    return rc;
}
