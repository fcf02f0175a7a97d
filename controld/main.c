/*
 * keytoll-controld serve|migrate|check-config|import-prices FILE|rebuild|reconcile|routes
 *                  import-litellm URL [--dry-run]
 *                  [-c controld.yaml] [-p pidfile] [--sql-dir DIR]
 */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "bg.h"
#include "conf.h"
#include "db.h"
#include "http.h"
#include "import.h"
#include "kt_duration.h"
#include "log.h"
#include "migrate.h"
#include "prices.h"
#include "rds.h"
#include "rebuild.h"
#include "recon.h"
#include "registry.h"
#include "reload.h"
#include "route.h"
#include "setup.h"


static const char  main_usage[] =
    "usage: keytoll-controld COMMAND [-c controld.yaml] [-p pidfile] [--sql-dir DIR]\n"
    "\n"
    "  serve               run the daemon (applies migrations first)\n"
    "  migrate             apply migrations and exit\n"
    "  check-config        read the configuration and the models, then exit\n"
    "  import-prices FILE  import LiteLLM's model price JSON\n"
    "  import-litellm URL  import a LiteLLM proxy's PostgreSQL, which is only read;\n"
    "                      --dry-run shows what would come and keeps nothing; the URL\n"
    "                      may be in LITELLM_DATABASE_URL instead\n"
    "  rebuild             rebuild Redis from PostgreSQL now\n"
    "  reconcile           compare what was used in Redis and in PostgreSQL; prints what\n"
    "                      differs and exits with 1\n"
    "  routes              print the routes of the admin API as JSON lines\n"
    "\n"
    "environment: KEYTOLL_MASTER_KEY (LITELLM_MASTER_KEY), DATABASE_URL, REDIS_URL,\n"
    "             KEYTOLL_SALT_KEY (LITELLM_SALT_KEY), REDIS_USERNAME, REDIS_PASSWORD\n";


typedef struct {
    const char  *command;
    const char  *arg;
    const char  *file;
    const char  *pidfile;
    const char  *sql_dir;
    int          dry;
} options_t;


static int
main_options(int argc, char **argv, options_t *o)
{
    int  i;

    memset(o, 0, sizeof(*o));

    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-c") && i + 1 < argc) {
            o->file = argv[++i];
        } else if (!strcmp(argv[i], "-p") && i + 1 < argc) {
            o->pidfile = argv[++i];
        } else if (!strcmp(argv[i], "--sql-dir") && i + 1 < argc) {
            o->sql_dir = argv[++i];
        } else if (!strcmp(argv[i], "--dry-run")) {
            o->dry = 1;
        } else if (argv[i][0] == '-') {
            return -1;
        } else if (o->command == NULL) {
            o->command = argv[i];
        } else if (o->arg == NULL) {
            o->arg = argv[i];
        } else {
            return -1;
        }
    }

    return o->command ? 0 : -1;
}


static int
main_pidfile(const char *path)
{
    FILE  *fp;

    if (path == NULL) {
        return 0;
    }

    fp = fopen(path, "w");

    if (fp == NULL) {
        fprintf(stderr, "keytoll-controld: %s: %s\n", path, strerror(errno));
        return -1;
    }

    fprintf(fp, "%ld\n", (long) getpid());
    fclose(fp);

    return 0;
}


static void
main_wait(void)
{
    int       sig;
    sigset_t  set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGQUIT);
    sigaddset(&set, SIGHUP);

    for ( ;; ) {
        if (sigwait(&set, &sig) != 0) {
            continue;                    /* interrupted                        */
        }

        if (sig != SIGHUP) {
            break;
        }

        reload_run();
    }

    log_event(LOG_INFO, "stopping", "signal", strsignal(sig), NULL);
}


static const char *
main_sql(const options_t *o)
{
    return o->sql_dir ? o->sql_dir : conf.sql_dir;
}


/* Names of LiteLLM's that mean nothing here. */

static void
main_idle(void)
{
    const jv_t  *v;

    for (v = conf.idle->head; v; v = v->next) {
        puts(v->s);
    }
}


static int
main_redis(void)
{
    arena_t      a;
    const char  *why;

    arena_init(&a);
    why = rds_evicts(&a);
    arena_free(&a);
    rds_close();

    if (why) {
        log_event(LOG_ERROR, "can not start", "error", why, NULL);
    }

    return why ? -1 : 0;
}


static int
main_serve(const options_t *o)
{
    sigset_t  set;

    /* every thread inherits the mask: only main_wait() sees the signals */

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGQUIT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);

    if (main_redis() != 0) {
        return 1;
    }

    if (route_check() != 0 || migrate_run(main_sql(o)) != 0 || setup_run() != 0
        || main_pidfile(o->pidfile) != 0)
    {
        return 1;
    }

    if (bg_start() != 0 || http_start() != 0) {
        bg_stop();

        if (o->pidfile) {
            unlink(o->pidfile);
        }

        return 1;
    }

    log_event(LOG_INFO, "serving", "listen", conf.listen, NULL);
    main_wait();
    http_stop();
    bg_stop();

    if (o->pidfile) {
        unlink(o->pidfile);
    }

    log_event(LOG_INFO, "stopped", NULL);

    return 0;
}


int
main(int argc, char **argv)
{
    int        rc;
    options_t  o;

    if (main_options(argc, argv, &o) != 0) {
        fputs(main_usage, stderr);
        return 2;
    }

    signal(SIGPIPE, SIG_IGN);

    if (!strcmp(o.command, "routes")) {
        route_dump();
        return 0;
    }

    if (conf_load(o.file) != 0) {
        return 1;
    }

    if (!strcmp(o.command, "migrate")) {
        return migrate_run(main_sql(&o)) ? 1 : 0;
    }

    if (registry_init() != 0) {
        return 1;
    }

    if (!strcmp(o.command, "serve")) {
        return main_serve(&o);
    }

    if (!strcmp(o.command, "check-config")) {
        main_idle();
        puts("the configuration is fine");
        return 0;
    }

    if (!strcmp(o.command, "import-litellm")
        && (o.arg || getenv("LITELLM_DATABASE_URL")))
    {
        return import_litellm(o.arg ? o.arg : getenv("LITELLM_DATABASE_URL"), o.dry)
               ? 1 : 0;
    }

    if (!strcmp(o.command, "import-prices") && o.arg) {
        return prices_import(o.arg) ? 1 : 0;
    }

    if (!strcmp(o.command, "rebuild")) {
        return rebuild_run(1) ? 1 : 0;
    }

    if (!strcmp(o.command, "reconcile")) {
        rc = recon_run();
        return rc < 0 ? 2 : rc;
    }

    fputs(main_usage, stderr);

    return 2;
}
