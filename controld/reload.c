#include <stdlib.h>
#include <string.h>
#include "conf.h"
#include "db.h"
#include "log.h"
#include "policy.h"
#include "rds.h"
#include "registry.h"
#include "reload.h"
#include "setup.h"
#include "util.h"


#define RELOAD_GRACE_S  120          /* nobody reads what was in place before  */


typedef struct retired_s  retired_t;

struct retired_s {
    retired_t       *next;
    int64_t          at;
    conf_t          *conf_old;
    registry_set_t  *set;
};


static retired_t  *reload_retired;


static void
reload_sweep(void)
{
    retired_t  *r, **p;

    for (p = &reload_retired; *p; /* void */) {
        r = *p;

        if (util_now_s() - r->at < RELOAD_GRACE_S) {
            p = &r->next;
            continue;
        }

        *p = r->next;
        registry_set_free(r->set);
        conf_free(r->conf_old);
        free(r);
    }
}


static void
reload_retire(const conf_t *old, registry_set_t *set)
{
    retired_t  *r;

    r = xmalloc(sizeof(retired_t));
    r->at = util_now_s();
    r->conf_old = (conf_t *) (uintptr_t) old;
    r->set = set;
    r->next = reload_retired;
    reload_retired = r;
}


/* A text that only a restart changes stays as it is. */

static void
reload_keep(conf_t *c, const char *name, const char **now, const char *old)
{
    if ((*now == NULL) == (old == NULL) && (old == NULL || !strcmp(*now, old))) {
        return;
    }

    log_event(LOG_WARN, "a change of the configuration needs a restart", "name", name,
              NULL);
    *now = arena_str(&c->arena, old);
}


static void
reload_keep_int(const char *name, int64_t *now, int64_t old)
{
    if (*now != old) {
        log_event(LOG_WARN, "a change of the configuration needs a restart", "name",
                  name, NULL);
        *now = old;
    }
}


/* Without a salt key the master key seals what is in the database. */

static void
reload_keep_master(conf_t *c, const conf_t *old)
{
    reload_keep(c, "salt_key", &c->salt_key, old->salt_key);

    if (c->salt_key == NULL && strcmp(c->master_key, old->master_key) != 0) {
        reload_keep(c, "master_key", &c->master_key, old->master_key);
        memcpy(c->master_token, old->master_token, sizeof(c->master_token));
    }
}


static void
reload_fixed(conf_t *c, const conf_t *old)
{
    int64_t  strict;

    reload_keep(c, "listen", &c->listen, old->listen);
    reload_keep(c, "database_url", &c->database_url, old->database_url);
    reload_keep(c, "redis_url", &c->redis_url, old->redis_url);
    reload_keep(c, "redis_username", &c->redis_username, old->redis_username);
    reload_keep(c, "redis_password", &c->redis_password, old->redis_password);
    reload_keep(c, "functions_file", &c->functions_file, old->functions_file);
    reload_keep(c, "sql_dir", &c->sql_dir, old->sql_dir);
    reload_keep(c, "token_rate_limit_type", &c->token_rate_limit_type,
                old->token_rate_limit_type);
    reload_keep_int("threads", &c->threads, old->threads);
    strict = c->strict;
    reload_keep_int("fail_closed_budget_enforcement", &strict, old->strict);
    c->strict = (int) strict;
    reload_keep_master(c, old);
}


/* What is in place goes to PostgreSQL and on to Redis.  0 or -1. */

static int
reload_write(void)
{
    int           rc;
    arena_t       a;
    const char   *names[2];
    int64_t       versions[2] = { 0, 0 };

    if (setup_run() != 0) {
        return -1;
    }

    arena_init(&a);
    names[0] = "global";
    names[1] = arena_printf(&a, "key:%s", conf.master_token);
    rc = policy_push(&a, names, versions, 2) == 0 && registry_push(0) == 0 ? 0 : -1;
    arena_free(&a);

    return rc;
}


void
reload_run(void)
{
    conf_t          *c;
    const conf_t    *old;
    registry_set_t  *set;

    reload_sweep();
    old = conf_current;
    c = conf_read(old->path);
    set = c ? registry_read(c) : NULL;

    if (set == NULL) {
        log_event(LOG_ERROR, "the configuration is broken, the old one stays", "file",
                  old->path ? old->path : "", NULL);

        if (c) {
            conf_free(c);
        }

        return;
    }

    reload_fixed(c, old);
    conf_current = c;
    reload_retire(old, registry_use(set));

    if (reload_write() != 0) {
        log_event(LOG_ERROR, "the configuration was read, but not all of it could be"
                  " written; send SIGHUP again", NULL);
    } else {
        log_event(LOG_INFO, "the configuration was read again", NULL);
    }

    db_close();
    rds_close();
}
