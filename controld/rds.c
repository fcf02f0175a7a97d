#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "conf.h"
#include "kt_schema.h"
#include "log.h"
#include "rds.h"
#include "util.h"


static __thread redisContext  *rds;

static const struct timeval  rds_timeout = { 2, 0 };


static redisContext *
rds_connect(void)
{
    int         port;
    char       *host, *colon;
    arena_t     a;
    redisContext  *c;

    if (strncmp(conf.redis_url, "unix://", 7) == 0) {
        return redisConnectUnixWithTimeout(conf.redis_url + 7, rds_timeout);
    }

    arena_init(&a);
    host = arena_str(&a, conf.redis_url + 8);
    host[strcspn(host, "/?")] = '\0';
    port = 6379;
    colon = strrchr(host, ':');

    if (colon && strchr(colon, ']') == NULL) {
        port = atoi(colon + 1);
        *colon = '\0';
    }

    c = redisConnectWithTimeout(host, port, rds_timeout);
    arena_free(&a);

    return c;
}


static int
rds_auth(redisContext *c)
{
    int          ok;
    redisReply  *r;

    if (conf.redis_password == NULL) {
        return 1;
    }

    r = conf.redis_username
        ? redisCommand(c, "AUTH %s %s", conf.redis_username, conf.redis_password)
        : redisCommand(c, "AUTH %s", conf.redis_password);
    ok = !rds_is_error(r);
    freeReplyObject(r);

    return ok;
}


static void
rds_complain(const char *why)
{
    static __thread int64_t  last;

    if (util_mono_us() - last > 1000000) {
        last = util_mono_us();
        log_event(LOG_WARN, "can not talk to Redis", "error", why, NULL);
    }
}


redisContext *
rds_conn(void)
{
    redisContext  *c;

    if (rds && rds->err == 0) {
        return rds;
    }

    rds_close();
    c = rds_connect();

    if (c == NULL || c->err || redisSetTimeout(c, rds_timeout) != REDIS_OK
        || !rds_auth(c))
    {
        rds_complain(c && c->err ? c->errstr : "refused");

        if (c) {
            redisFree(c);
        }

        return NULL;
    }

    rds = c;

    return rds;
}


void
rds_close(void)
{
    if (rds) {
        redisFree(rds);
        rds = NULL;
    }
}


void
rds_argn(rds_cmd_t *c, const char *p, size_t len)
{
    size_t        size;
    size_t       *lens;
    const char  **argv;

    if (c->n == c->size) {
        size = c->size ? c->size * 2 : 32;
        argv = arena_alloc(c->a, size * sizeof(char *));
        lens = arena_alloc(c->a, size * sizeof(size_t));

        if (c->n) {
            memcpy(argv, c->argv, c->n * sizeof(char *));
            memcpy(lens, c->lens, c->n * sizeof(size_t));
        }

        c->argv = argv;
        c->lens = lens;
        c->size = size;
    }

    c->argv[c->n] = p;
    c->lens[c->n++] = len;
}


void
rds_arg(rds_cmd_t *c, const char *s)
{
    rds_argn(c, s, strlen(s));
}


void
rds_cmd(rds_cmd_t *c, arena_t *a, const char *name)
{
    memset(c, 0, sizeof(*c));
    c->a = a;
    rds_arg(c, name);
}


void
rds_fcall(rds_cmd_t *c, arena_t *a, const char *fn)
{
    rds_cmd(c, a, strcmp(fn, "kt_state") ? "FCALL" : "FCALL_RO");
    rds_arg(c, fn);
    rds_arg(c, "1");
    rds_arg(c, KT_REDIS_GEN);
}


int
rds_send(rds_cmd_t *c)
{
    redisContext  *ctx;

    ctx = rds_conn();

    if (ctx == NULL) {
        return -1;
    }

    return redisAppendCommandArgv(ctx, (int) c->n, c->argv, c->lens) == REDIS_OK
           ? 0 : -1;
}


redisReply *
rds_wait(void)
{
    void  *r;

    r = NULL;

    if (rds == NULL || rds->err || redisGetReply(rds, &r) != REDIS_OK) {
        rds_complain(rds && rds->err ? rds->errstr : "not connected");
        rds_close();
        return NULL;
    }

    return r;
}


redisReply *
rds_run(rds_cmd_t *c)
{
    if (rds_send(c) != 0) {
        return NULL;
    }

    return rds_wait();
}


redisReply *
rds_simple(arena_t *a, const char *const *argv, size_t n)
{
    size_t     i;
    rds_cmd_t  c;

    rds_cmd(&c, a, argv[0]);

    for (i = 1; i < n; i++) {
        rds_arg(&c, argv[i]);
    }

    return rds_run(&c);
}


int
rds_is_error(const redisReply *r)
{
    return r == NULL || r->type == REDIS_REPLY_ERROR;
}


int
rds_ok(redisReply *r)
{
    int  ok;

    ok = !rds_is_error(r);

    if (r) {
        freeReplyObject(r);
    }

    return ok;
}


int
rds_gen(arena_t *a)
{
    int          rc;
    redisReply  *r;

    r = rds_do(a, "GET", KT_REDIS_GEN);
    rc = rds_is_error(r) ? -1 : r->type == REDIS_REPLY_STRING;

    if (r) {
        freeReplyObject(r);
    }

    return rc;
}


int
rds_announced(arena_t *a)
{
    return rds_ok(rds_do(a, "PING")) ? 0 : -1;
}


const char *
rds_evicts(arena_t *a)
{
    const char  *p, *why;
    redisReply  *r;

    why = NULL;
    r = rds_do(a, "INFO", "memory");

    if (r && r->type == REDIS_REPLY_STRING) {
        p = strstr(r->str, "\nmaxmemory:");

        if (p && p[11] != '0' && strstr(r->str, "\nmaxmemory_policy:")
            && strstr(r->str, "\nmaxmemory_policy:noeviction") == NULL)
        {
            why = "Redis has maxmemory and evicts: set maxmemory-policy noeviction";
        }
    }

    if (r) {
        freeReplyObject(r);
    }

    return why;
}


/* The number in its second line, "-- version N"; 0 when there is none. */

static long
rds_library_version(const char *text)
{
    const char  *p;

    p = strchr(text, '\n');

    return p && strncmp(p + 1, "-- version ", 11) == 0
           ? strtol(p + 12, NULL, 10) : 0;
}


/*
 * FUNCTION LIST WITHCODE: one library, a flat list of names and values.  Whether
 * what is loaded is this text, or newer.
 */

static int
rds_library_current(arena_t *a, const char *text, size_t len)
{
    int          current;
    size_t       i;
    redisReply  *r, *lib;

    r = rds_do(a, "FUNCTION", "LIST", "LIBRARYNAME", KT_LIBRARY, "WITHCODE");
    current = 0;

    if (!rds_is_error(r) && r->type == REDIS_REPLY_ARRAY && r->elements == 1) {
        lib = r->element[0];

        for (i = 0; i + 1 < lib->elements; i += 2) {
            if (lib->element[i]->str
                && strcmp(lib->element[i]->str, "library_code") == 0
                && lib->element[i + 1]->str)
            {
                current = ((size_t) lib->element[i + 1]->len == len
                           && memcmp(lib->element[i + 1]->str, text, len) == 0)
                          || rds_library_version(lib->element[i + 1]->str)
                             > rds_library_version(text);
            }
        }
    }

    if (r) {
        freeReplyObject(r);
    }

    return current;
}


int
rds_load_library(const char *path)
{
    int          rc;
    char        *text;
    size_t       len;
    arena_t      a;
    rds_cmd_t    c;
    redisReply  *r;

    arena_init(&a);
    text = util_read_file(&a, path, &len);

    if (text == NULL) {
        log_event(LOG_ERROR, "can not read the function library", "file", path,
                  NULL);
        arena_free(&a);
        return -1;
    }

    if (rds_library_current(&a, text, len)) {
        arena_free(&a);
        return 0;
    }

    rds_cmd(&c, &a, "FUNCTION");
    rds_arg(&c, "LOAD");
    rds_arg(&c, "REPLACE");
    rds_argn(&c, text, len);
    r = rds_run(&c);
    rc = rds_is_error(r) ? -1 : 0;
    log_event(rc ? LOG_ERROR : LOG_INFO, rc ? "can not load the function library"
              : "function library loaded", "file", path, "error",
              r && r->type == REDIS_REPLY_ERROR ? r->str : NULL, NULL);

    if (r) {
        freeReplyObject(r);
    }

    arena_free(&a);

    return rc;
}
