#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yaml.h>
#include "conf.h"
#include "kt_duration.h"
#include "kt_key.h"
#include "kt_money.h"
#include "log.h"


#define CONF_MASTER_MIN  32
#define CONF_DEPTH_MAX   32


conf_t  conf;

static arena_t  conf_arena;


typedef enum { C_STR, C_BOOL, C_INT, C_USD, C_MAP, C_LIST, C_SETTING } conf_type_t;

typedef struct {
    const char   *name;
    conf_type_t   type;
    void         *out;
    int64_t       min;
    int64_t       max;
} conf_key_t;

typedef struct {
    yaml_document_t  doc;
    const char      *path;
    arena_t         *a;
    int              failed;
} conf_file_t;


static const conf_key_t  conf_general[] = {
    { "master_key", C_STR, &conf.master_key, 0, 0 },
    { "database_url", C_STR, &conf.database_url, 0, 0 },
    { "fail_closed_budget_enforcement", C_BOOL, &conf.strict, 0, 0 },
    { "store_model_in_db", C_BOOL, &conf.store_model_in_db, 0, 0 },
    { "token_rate_limit_type", C_STR, &conf.token_rate_limit_type, 0, 0 },
    { "global_max_parallel_requests", C_INT, &conf.max_parallel, 0, 1000000000 },
    { NULL, C_STR, NULL, 0, 0 }
};

static const conf_key_t  conf_litellm[] = {
    { "timezone", C_STR, &conf.timezone, 0, 0 },
    { "max_budget", C_USD, &conf.max_budget_nusd, 0, 0 },
    { "budget_duration", C_STR, &conf.budget_duration, 0, 0 },
    { "max_end_user_budget_id", C_STR, &conf.customer_budget, 0, 0 },
    { "max_end_user_budget", C_USD, &conf.customer_nusd, 0, 0 },
    { "default_key_generate_params", C_SETTING, NULL, 0, 0 },
    { "upperbound_key_generate_params", C_SETTING, NULL, 0, 0 },
    { "key_generation_settings", C_SETTING, NULL, 0, 0 },
    { "default_internal_user_params", C_SETTING, NULL, 0, 0 },
    { "default_team_params", C_SETTING, NULL, 0, 0 },
    { "default_team_settings", C_SETTING, NULL, 0, 0 },
    { "max_internal_user_budget", C_SETTING, NULL, 0, 0 },
    { "internal_user_budget_duration", C_SETTING, NULL, 0, 0 },
    { NULL, C_STR, NULL, 0, 0 }
};

static const conf_key_t  conf_top[] = {
    { "listen", C_STR, &conf.listen, 0, 0 },
    { "threads", C_INT, &conf.threads, 1, 64 },
    { "database_url", C_STR, &conf.database_url, 0, 0 },
    { "redis_url", C_STR, &conf.redis_url, 0, 0 },
    { "redis_username", C_STR, &conf.redis_username, 0, 0 },
    { "redis_password", C_STR, &conf.redis_password, 0, 0 },
    { "models_file", C_STR, &conf.models_file, 0, 0 },
    { "functions_file", C_STR, &conf.functions_file, 0, 0 },
    { "sql_dir", C_STR, &conf.sql_dir, 0, 0 },
    { "litellm_compat", C_STR, &conf.compat, 0, 0 },
    { "general_settings", C_MAP, (void *) (uintptr_t) conf_general, 0, 0 },
    { "litellm_settings", C_MAP, (void *) (uintptr_t) conf_litellm, 0, 0 },
    { "model_list", C_LIST, &conf.model_list, 0, 0 },
    { NULL, C_STR, NULL, 0, 0 }
};


static void
conf_error(conf_file_t *f, const yaml_node_t *n, const char *fmt, const char *arg)
{
    char  text[256];

    snprintf(text, sizeof(text), fmt, arg);
    fprintf(stderr, "keytoll-controld: %s:%zu:%zu: %s\n", f->path,
            n->start_mark.line + 1, n->start_mark.column + 1, text);
    f->failed = 1;
}


static const char *
conf_scalar(conf_file_t *f, const yaml_node_t *n)
{
    char        *name;
    const char  *s, *v;

    s = (const char *) n->data.scalar.value;

    if (strlen(s) != n->data.scalar.length) {
        conf_error(f, n, "NUL character in a value%s", "");
        return "";
    }

    if (strncmp(s, "os.environ/", 11) != 0) {
        return arena_str(f->a, s);
    }

    name = arena_str(f->a, s + 11);
    v = getenv(name);

    return v && *v ? arena_str(f->a, v) : NULL;
}


/* The JSON type a plain YAML scalar stands for. */

static jv_t *
conf_plain(conf_file_t *f, const yaml_node_t *n)
{
    int64_t      v;
    const char  *s;

    s = conf_scalar(f, n);

    if (s == NULL) {
        return json_null(f->a);
    }

    if (n->data.scalar.style != YAML_PLAIN_SCALAR_STYLE) {
        return json_string(f->a, s);
    }

    if (!*s || !strcmp(s, "null") || !strcmp(s, "~") || !strcmp(s, "Null")) {
        return json_null(f->a);
    }

    if (!strcasecmp(s, "true") || !strcasecmp(s, "yes")) {
        return json_bool(f->a, 1);
    }

    if (!strcasecmp(s, "false") || !strcasecmp(s, "no")) {
        return json_bool(f->a, 0);
    }

    if (kt_money_parse(s, strlen(s), 0, &v) != KT_INVALID) {
        return json_num(f->a, s);
    }

    return json_string(f->a, s);
}


static jv_t *
conf_tree(conf_file_t *f, int id, int depth)
{
    jv_t              *v;
    yaml_node_t       *n, *k;
    yaml_node_item_t  *item;
    yaml_node_pair_t  *pair;

    n = yaml_document_get_node(&f->doc, id);

    if (depth > CONF_DEPTH_MAX) {
        conf_error(f, n, "nested too deeply%s", "");
        return json_null(f->a);
    }

    if (n->type == YAML_SCALAR_NODE) {
        return conf_plain(f, n);
    }

    if (n->type == YAML_SEQUENCE_NODE) {
        v = json_arr(f->a);

        for (item = n->data.sequence.items.start;
             item < n->data.sequence.items.top; item++)
        {
            json_push(v, conf_tree(f, *item, depth + 1));
        }

        return v;
    }

    v = json_obj(f->a);

    for (pair = n->data.mapping.pairs.start;
         pair < n->data.mapping.pairs.top; pair++)
    {
        k = yaml_document_get_node(&f->doc, pair->key);

        if (k->type != YAML_SCALAR_NODE) {
            conf_error(f, k, "a name is expected%s", "");
            continue;
        }

        if (json_get(v, (const char *) k->data.scalar.value)) {
            conf_error(f, k, "\"%s\" is given twice",
                       (const char *) k->data.scalar.value);
            continue;
        }

        json_set(v, arena_str(f->a, (const char *) k->data.scalar.value),
                 conf_tree(f, pair->value, depth + 1));
    }

    return v;
}


static void
conf_value(conf_file_t *f, const conf_key_t *key, const yaml_node_t *n, int id)
{
    int64_t      v;
    const char  *s;

    if (key->type == C_LIST) {
        if (n->type != YAML_SEQUENCE_NODE) {
            conf_error(f, n, "\"%s\" must be a list", key->name);
            return;
        }

        *(jv_t **) key->out = conf_tree(f, id, 0);
        return;
    }

    if (key->type == C_SETTING) {
        if (conf.settings == NULL) {
            conf.settings = json_obj(f->a);
        }

        json_set(conf.settings, key->name, conf_tree(f, id, 0));
        return;
    }

    if (n->type != YAML_SCALAR_NODE) {
        conf_error(f, n, "\"%s\" must be a single value", key->name);
        return;
    }

    s = conf_scalar(f, n);

    if (s == NULL) {
        return;                     /* a variable that is not set: the default */
    }

    switch (key->type) {

    case C_STR:
        *(const char **) key->out = s;
        return;

    case C_BOOL:
        if (!strcasecmp(s, "true") || !strcasecmp(s, "yes")) {
            *(int *) key->out = 1;
        } else if (!strcasecmp(s, "false") || !strcasecmp(s, "no")) {
            *(int *) key->out = 0;
        } else {
            conf_error(f, n, "\"%s\" must be true or false", key->name);
        }
        return;

    case C_INT:
        if (kt_int_parse(s, strlen(s), &v) != KT_OK || v < key->min
            || v > key->max)
        {
            conf_error(f, n, "\"%s\" is not an integer in its range", key->name);
            return;
        }
        *(int64_t *) key->out = v;
        return;

    case C_USD:
        if (kt_money_parse(s, strlen(s), KT_MONEY_USD, &v) != KT_OK || v < 0) {
            conf_error(f, n, "\"%s\" is not an amount", key->name);
            return;
        }
        *(int64_t *) key->out = v;
        return;

    default:
        return;
    }
}


static void
conf_map(conf_file_t *f, const yaml_node_t *map, const conf_key_t *keys)
{
    yaml_node_t       *k, *v;
    const conf_key_t  *key;
    yaml_node_pair_t  *pair, *other;

    if (map->type != YAML_MAPPING_NODE) {
        conf_error(f, map, "a mapping is expected%s", "");
        return;
    }

    for (pair = map->data.mapping.pairs.start;
         pair < map->data.mapping.pairs.top; pair++)
    {
        k = yaml_document_get_node(&f->doc, pair->key);
        v = yaml_document_get_node(&f->doc, pair->value);

        if (k->type != YAML_SCALAR_NODE) {
            conf_error(f, k, "a name is expected%s", "");
            continue;
        }

        for (other = map->data.mapping.pairs.start; other < pair; other++) {
            if (!strcmp((char *) yaml_document_get_node(&f->doc, other->key)
                            ->data.scalar.value,
                        (char *) k->data.scalar.value))
            {
                conf_error(f, k, "\"%s\" is given twice",
                           (char *) k->data.scalar.value);
            }
        }

        for (key = keys; key->name; key++) {
            if (!strcmp(key->name, (char *) k->data.scalar.value)) {
                break;
            }
        }

        if (key->name == NULL) {
            conf_error(f, k, "unknown name \"%s\"",
                       (char *) k->data.scalar.value);

        } else if (key->type == C_MAP) {
            conf_map(f, v, key->out);

        } else {
            conf_value(f, key, v, pair->value);
        }
    }
}


/* Loads the document of `path`; 0, or -1 after a message. */

static int
conf_open(conf_file_t *f, const char *path)
{
    int            ok;
    FILE          *fp;
    yaml_parser_t  parser;

    f->path = path;
    f->failed = 0;
    fp = fopen(path, "rb");

    if (fp == NULL) {
        fprintf(stderr, "keytoll-controld: %s: %m\n", path);
        return -1;
    }

    if (!yaml_parser_initialize(&parser)) {
        fclose(fp);
        return -1;
    }

    yaml_parser_set_input_file(&parser, fp);
    ok = yaml_parser_load(&parser, &f->doc);

    if (!ok) {
        fprintf(stderr, "keytoll-controld: %s:%zu:%zu: %s\n", path,
                parser.problem_mark.line + 1, parser.problem_mark.column + 1,
                parser.problem ? parser.problem : "not valid YAML");
    }

    yaml_parser_delete(&parser);
    fclose(fp);

    return ok ? 0 : -1;
}


jv_t *
conf_yaml(arena_t *a, const char *path)
{
    jv_t         *v;
    conf_file_t   f;
    yaml_node_t  *root;

    if (conf_open(&f, path) != 0) {
        return NULL;
    }

    f.a = a;
    root = yaml_document_get_root_node(&f.doc);
    v = root ? conf_tree(&f, 1, 0) : json_null(a);
    yaml_document_delete(&f.doc);

    return f.failed ? NULL : v;
}


static const char *
conf_env(const char *name, const char *alias)
{
    const char  *v;

    v = getenv(name);

    if ((v == NULL || !*v) && alias) {
        v = getenv(alias);
    }

    return v && *v ? arena_str(&conf_arena, v) : NULL;
}


static int
conf_fail(const char *text)
{
    fprintf(stderr, "keytoll-controld: %s\n", text);
    return -1;
}


static int
conf_check_master(void)
{
    if (conf.master_key == NULL) {
        return conf_fail("no master key: set general_settings.master_key or the"
                         " environment variable KEYTOLL_MASTER_KEY");
    }

    if (strcmp(conf.master_key, "sk-1234") == 0
        || strlen(conf.master_key) < CONF_MASTER_MIN)
    {
        return conf_fail("the master key is too weak: it needs at least 32"
                         " characters, for instance sk-$(openssl rand -hex 24)");
    }

    if (strncmp(conf.master_key, "sk-", 3) != 0) {
        return conf_fail("the master key must begin with sk-");
    }

    kt_key_token(conf.master_key, strlen(conf.master_key), conf.master_token);
    log_secret(conf.master_key);
    log_secret(conf.redis_password);
    log_secret(conf.salt_key);

    return 0;
}


static int
conf_check(void)
{
    kt_duration_t  d;
    kt_period_t    p;

    if (conf.database_url == NULL) {
        return conf_fail("no database_url: set it or DATABASE_URL");
    }

    if (conf.redis_url == NULL) {
        return conf_fail("no redis_url: set it or REDIS_URL");
    }

    if (strncmp(conf.redis_url, "unix://", 7) != 0
        && strncmp(conf.redis_url, "redis://", 8) != 0)
    {
        return conf_fail("redis_url must be unix:///path or redis://host:port");
    }

    if (strcmp(conf.token_rate_limit_type, "total")
        && strcmp(conf.token_rate_limit_type, "input")
        && strcmp(conf.token_rate_limit_type, "output"))
    {
        return conf_fail("token_rate_limit_type must be total, input or output");
    }

    if (strcmp(conf.compat, "1.104") && strcmp(conf.compat, "1.96")
        && strcmp(conf.compat, "1.81"))
    {
        return conf_fail("litellm_compat must be \"1.104\", \"1.96\" or \"1.81\"");
    }

    if (strcmp(conf.timezone, "UTC") != 0) {
        return conf_fail("timezone: only UTC is available in this version");
    }

    if (conf.budget_duration
        && (kt_duration_parse(conf.budget_duration,
                              strlen(conf.budget_duration), &d) != KT_OK
            || kt_period_start(&d, 0, &p) != KT_OK))
    {
        return conf_fail("litellm_settings.budget_duration is not a duration");
    }

    return conf_check_master();
}


/* Files of the checkout, relative to the binary: build/../<name>. */

static const char *
conf_beside(const char *name)
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
            return arena_printf(&conf_arena, "/usr/share/keytoll/%s", name);
        }

        *slash = '\0';
        p = arena_printf(&conf_arena, "%s/%s", exe, name);

        if (access(p, R_OK) == 0) {
            return p;
        }
    }
}


int
conf_load(const char *path)
{
    conf_file_t   f;
    yaml_node_t  *root;

    arena_init(&conf_arena);
    memset(&conf, 0, sizeof(conf));
    conf.path = path;
    conf.listen = "127.0.0.1:4001";
    conf.compat = "1.104";
    conf.token_rate_limit_type = "total";
    conf.timezone = "UTC";
    conf.max_budget_nusd = -1;
    conf.max_parallel = -1;
    conf.customer_nusd = -1;
    conf.threads = 8;
    conf.store_model_in_db = 1;

    conf.master_key = conf_env("KEYTOLL_MASTER_KEY", "LITELLM_MASTER_KEY");
    conf.salt_key = conf_env("KEYTOLL_SALT_KEY", "LITELLM_SALT_KEY");
    conf.database_url = conf_env("DATABASE_URL", NULL);
    conf.redis_url = conf_env("REDIS_URL", NULL);
    conf.redis_username = conf_env("REDIS_USERNAME", NULL);
    conf.redis_password = conf_env("REDIS_PASSWORD", NULL);

    if (path) {
        f.a = &conf_arena;

        if (conf_open(&f, path) != 0) {
            return -1;
        }

        root = yaml_document_get_root_node(&f.doc);

        if (root) {
            conf_map(&f, root, conf_top);
        }

        yaml_document_delete(&f.doc);

        if (f.failed) {
            return -1;
        }
    }

    if (conf.sql_dir == NULL) {
        conf.sql_dir = conf_beside("sql");
    }

    if (conf.functions_file == NULL) {
        conf.functions_file = conf_beside("keytoll.lua");
    }

    if (conf.models_file == NULL) {
        conf.models_file = conf_beside("config/models.yaml");
    }

    return conf_check();
}
