#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "conf.h"
#include "conf_yaml.h"
#include "kt_money.h"


#define CONF_DEPTH_MAX   32


void
conf_error(conf_file_t *f, const yaml_node_t *n, const char *fmt, const char *arg)
{
    char  text[256];

    snprintf(text, sizeof(text), fmt, arg);
    fprintf(stderr, "keytoll-controld: %s:%zu:%zu: %s\n", f->path,
            n->start_mark.line + 1, n->start_mark.column + 1, text);
    f->failed = 1;
}


const char *
conf_variable(const jv_t *env, const char *name)
{
    const jv_t  *v;
    const char  *s;

    v = json_get(env, name);
    s = v && (v->type == J_STR || v->type == J_NUM) ? v->s : getenv(name);

    return s && *s ? s : NULL;
}


const char *
conf_scalar(conf_file_t *f, const yaml_node_t *n)
{
    const char  *s, *v;

    s = (const char *) n->data.scalar.value;

    if (strlen(s) != n->data.scalar.length) {
        conf_error(f, n, "NUL character in a value%s", "");
        return "";
    }

    if (strncmp(s, "os.environ/", 11) != 0) {
        return arena_str(f->a, s);
    }

    v = conf_variable(f->env, s + 11);

    return v ? arena_str(f->a, v) : NULL;
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


jv_t *
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


int
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
    f.env = NULL;
    root = yaml_document_get_root_node(&f.doc);
    v = root ? conf_tree(&f, 1, 0) : json_null(a);
    yaml_document_delete(&f.doc);

    return f.failed ? NULL : v;
}
