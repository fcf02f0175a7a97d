#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "conf.h"
#include "conf_keys.h"
#include "conf_map.h"
#include "conf_yaml.h"
#include "kt_duration.h"
#include "kt_key.h"
#include "log.h"
#include "util.h"


#define CONF_MASTER_MIN   32
#define CONF_INCLUDE_MAX  4
#define CONF_PARAMS_MAX   64


static conf_t  conf_none;

const conf_t *_Atomic  conf_current = &conf_none;

static int conf_file(conf_t *c, const char *path, int depth);


/* The node of a name of the whole file; NULL: it is not there. */

static int
conf_top(conf_file_t *f, const yaml_node_t *map, const char *name)
{
    yaml_node_t       *k;
    yaml_node_pair_t  *pair;

    if (map->type != YAML_MAPPING_NODE) {
        return 0;
    }

    for (pair = map->data.mapping.pairs.start;
         pair < map->data.mapping.pairs.top; pair++)
    {
        k = yaml_document_get_node(&f->doc, pair->key);

        if (k->type == YAML_SCALAR_NODE
            && strcmp((char *) k->data.scalar.value, name) == 0)
        {
            return pair->value;
        }
    }

    return 0;
}


/* Variables of the file come first: its other values may name them. */

static void
conf_variables(conf_t *c, conf_file_t *f, const yaml_node_t *root)
{
    int    id;
    jv_t  *o, *v;

    id = conf_top(f, root, "environment_variables");
    o = id ? conf_tree(f, id, 0) : NULL;

    for (v = o && o->type == J_OBJ ? o->head : NULL; v; v = v->next) {
        json_set(c->env, v->key, json_copy(f->a, v));
    }
}


/* Other files, beside this one; what they say wins, lists are joined. */

static int
conf_include(conf_t *c, conf_file_t *f, const jv_t *list, int depth)
{
    const jv_t  *v;
    const char  *slash, *path;

    slash = strrchr(f->path, '/');

    for (v = list && list->type == J_ARR ? list->head : NULL; v; v = v->next) {
        path = v->type != J_STR ? "" : *v->s == '/' || slash == NULL ? v->s
               : arena_printf(f->a, "%.*s/%s", (int) (slash - f->path), f->path, v->s);

        if (depth == CONF_INCLUDE_MAX || !*path) {
            fprintf(stderr, "keytoll-controld: %s: too many levels of include\n",
                    f->path);
            return -1;
        }

        if (conf_file(c, path, depth + 1) != 0) {
            return -1;
        }
    }

    return 0;
}


static int
conf_file(conf_t *c, const char *path, int depth)
{
    int           id;
    jv_t         *list;
    conf_file_t   f;
    yaml_node_t  *root;

    f.a = &c->arena;
    f.env = c->env;

    if (conf_open(&f, path) != 0) {
        return -1;
    }

    list = NULL;
    root = yaml_document_get_root_node(&f.doc);

    if (root) {
        conf_variables(c, &f, root);
        conf_map(c, &f, root, conf_keys, 0);
        id = conf_top(&f, root, "include");
        list = id ? conf_tree(&f, id, 0) : NULL;
    }

    yaml_document_delete(&f.doc);

    return f.failed ? -1 : conf_include(c, &f, list, depth);
}


static const char *
conf_env(conf_t *c, const char *name, const char *alias)
{
    const char  *v;

    v = conf_variable(c->env, name);

    if (v == NULL && alias) {
        v = conf_variable(c->env, alias);
    }

    return v ? arena_str(&c->arena, v) : NULL;
}


/* A value for a connection string, quoted. */

static const char *
conf_quote(arena_t *a, const char *s)
{
    buf_t  b;

    buf_init(&b, a);
    buf_putc(&b, '\'');

    for (; *s; s++) {
        if (*s == '\'' || *s == '\\') {
            buf_putc(&b, '\\');
        }

        buf_putc(&b, *s);
    }

    buf_putc(&b, '\'');

    return b.p;
}


/* DATABASE_HOST and its like, where there is no URL. */

static const char *
conf_env_database(conf_t *c)
{
    size_t       i;
    buf_t        b;
    const char  *v;

    static const char *const  parts[][3] = {
        { "host", "DATABASE_HOST", NULL }, { "port", "DATABASE_PORT", NULL },
        { "user", "DATABASE_USERNAME", "DATABASE_USER" },
        { "password", "DATABASE_PASSWORD", NULL }, { "dbname", "DATABASE_NAME", NULL }
    };

    v = conf_env(c, "DATABASE_URL", NULL);

    if (v || conf_env(c, "DATABASE_HOST", NULL) == NULL) {
        return v;
    }

    buf_init(&b, &c->arena);

    for (i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        v = conf_env(c, parts[i][1], parts[i][2]);

        if (v) {
            buf_printf(&b, b.len ? " %s=" : "%s=", parts[i][0]);
            buf_puts(&b, conf_quote(&c->arena, v));
        }
    }

    return b.p;
}


static const char *
conf_env_redis(conf_t *c)
{
    const char  *host, *port, *v;

    v = conf_env(c, "REDIS_URL", NULL);
    host = conf_env(c, "REDIS_HOST", NULL);
    port = conf_env(c, "REDIS_PORT", NULL);

    return v || host == NULL ? v : arena_printf(&c->arena, "redis://%s:%s", host,
                                                port ? port : "6379");
}


/* Files of the checkout, relative to the binary: build/../<name>. */

static const char *
conf_beside(conf_t *c, const char *name)
{
    char     exe[4096];
    char    *slash, *p;
    ssize_t  n;

    n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

    if (n <= 0) {
        return name;
    }

    exe[n] = '\0';

    for (;;) {
        slash = strrchr(exe, '/');

        if (slash == NULL || slash == exe) {
            return arena_printf(&c->arena, "/usr/share/keytoll/%s", name);
        }

        *slash = '\0';
        p = arena_printf(&c->arena, "%s/%s", exe, name);

        if (access(p, R_OK) == 0) {
            return p;
        }
    }
}


/* What the file did not say. */

static void
conf_defaults(conf_t *c)
{
    c->master_key = c->master_key ? c->master_key
                    : conf_env(c, "KEYTOLL_MASTER_KEY", "LITELLM_MASTER_KEY");
    c->salt_key = conf_env(c, "KEYTOLL_SALT_KEY", "LITELLM_SALT_KEY");
    c->database_url = c->database_url ? c->database_url : conf_env_database(c);
    c->redis_url = c->redis_url ? c->redis_url : conf_env_redis(c);
    c->redis_username = c->redis_username ? c->redis_username
                        : conf_env(c, "REDIS_USERNAME", NULL);
    c->redis_password = c->redis_password ? c->redis_password
                        : conf_env(c, "REDIS_PASSWORD", NULL);
    c->sql_dir = c->sql_dir ? c->sql_dir : conf_beside(c, "sql");
    c->functions_file = c->functions_file ? c->functions_file
                        : conf_beside(c, "keytoll.lua");
    c->models_file = c->models_file ? c->models_file
                     : conf_beside(c, "config/models.yaml");
}


static int
conf_fail(const char *text)
{
    fprintf(stderr, "keytoll-controld: %s\n", text);
    return -1;
}


static int
conf_check_master(conf_t *c)
{
    if (c->master_key == NULL) {
        return conf_fail("no master key: set general_settings.master_key or the"
                         " environment variable KEYTOLL_MASTER_KEY");
    }

    if (strcmp(c->master_key, "sk-1234") == 0
        || strlen(c->master_key) < CONF_MASTER_MIN)
    {
        return conf_fail("the master key is too weak: it needs at least 32"
                         " characters, for instance sk-$(openssl rand -hex 24)");
    }

    if (strncmp(c->master_key, "sk-", 3) != 0) {
        return conf_fail("the master key must begin with sk-");
    }

    kt_key_token(c->master_key, strlen(c->master_key), c->master_token);
    log_secret(c->master_key);
    log_secret(c->redis_password);
    log_secret(c->salt_key);

    return 0;
}


/* Members that bodies must have: names that the gate can look for. */

static int
conf_check_params(const jv_t *list)
{
    const jv_t  *c;

    for (c = list ? list->head : NULL; c; c = c->next) {
        if (c->type != J_STR || !util_param_ok(c->s)) {
            return conf_fail("enforced_params: each is a name of 1 to 64 bytes, or two"
                             " with a point between them");
        }
    }

    return list == NULL || list->n <= CONF_PARAMS_MAX
           ? 0 : conf_fail("enforced_params: at most 64 names");
}


static int
conf_check(conf_t *c)
{
    kt_duration_t  d;
    kt_period_t    p;

    if (c->database_url == NULL) {
        return conf_fail("no database_url: set it or DATABASE_URL");
    }

    if (c->redis_url == NULL) {
        return conf_fail("no redis_url: set it or REDIS_URL");
    }

    if (strncmp(c->redis_url, "unix://", 7) != 0
        && strncmp(c->redis_url, "redis://", 8) != 0)
    {
        return conf_fail("redis_url must be unix:///path or redis://host:port");
    }

    if (strcmp(c->compat, "1.104") && strcmp(c->compat, "1.96")
        && strcmp(c->compat, "1.81"))
    {
        return conf_fail("litellm_compat must be \"1.104\", \"1.96\" or \"1.81\"");
    }

    if (strcmp(c->timezone, "UTC") != 0) {
        return conf_fail("timezone: only UTC is available in this version");
    }

    if (c->reset_time && strcmp(c->reset_time, "00:00") != 0) {
        return conf_fail("budget_reset_time: only 00:00 is available in this version");
    }

    if (c->budget_duration
        && (kt_duration_parse(c->budget_duration,
                              strlen(c->budget_duration), &d) != KT_OK
            || kt_period_start(&d, 0, &p) != KT_OK))
    {
        return conf_fail("litellm_settings.budget_duration is not a duration");
    }

    return conf_check_params(c->enforced_params) != 0
           || conf_check_params(c->service_params) != 0
           || conf_check_params(json_get(json_get(c->declared,
                                         "default_key_generate_params"),
                                         "enforced_params")) != 0
           || conf_check_master(c) != 0 ? -1 : 0;
}


conf_t *
conf_read(const char *path)
{
    conf_t  *c;

    c = xmalloc(sizeof(conf_t));
    memset(c, 0, sizeof(*c));
    arena_init(&c->arena);
    c->path = path ? arena_str(&c->arena, path) : NULL;
    c->env = json_obj(&c->arena);
    c->declared = json_obj(&c->arena);
    c->idle = json_arr(&c->arena);
    c->listen = "127.0.0.1:4001";
    c->compat = "1.104";
    c->token_rate_limit_type = "total";
    c->timezone = "UTC";
    c->max_budget_nusd = -1;
    c->max_parallel = -1;
    c->customer_nusd = -1;
    c->budget_status = 422;
    c->threads = 8;
    c->store_model_in_db = 1;

    if (path && conf_file(c, path, 0) != 0) {
        conf_free(c);
        return NULL;
    }

    conf_defaults(c);

    if (conf_check(c) != 0) {
        conf_free(c);
        return NULL;
    }

    return c;
}


void
conf_free(conf_t *c)
{
    arena_free(&c->arena);
    free(c);
}


int
conf_load(const char *path)
{
    conf_t  *c;

    c = conf_read(path);

    if (c == NULL) {
        return -1;
    }

    conf_current = c;

    return 0;
}
