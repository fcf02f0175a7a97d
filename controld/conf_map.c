#include <stdlib.h>
#include <string.h>
#include "conf_map.h"
#include "kt_duration.h"
#include "kt_money.h"


static int
conf_yes(const char *s)
{
    return !strcasecmp(s, "true") || !strcasecmp(s, "yes");
}


static int
conf_no(const char *s)
{
    return !strcasecmp(s, "false") || !strcasecmp(s, "no");
}


/* Nothing is asked for: false, 0, null, empty. */

static int
conf_off(const yaml_node_t *n, const char *s)
{
    if (n->type == YAML_SEQUENCE_NODE) {
        return n->data.sequence.items.start == n->data.sequence.items.top;
    }

    if (n->type == YAML_MAPPING_NODE) {
        return n->data.mapping.pairs.start == n->data.mapping.pairs.top;
    }

    return s == NULL || !*s || conf_no(s) || !strcmp(s, "null") || !strcmp(s, "~")
           || !strcmp(s, "0");
}


static int
conf_one_of(const char *values, const char *s)
{
    size_t       n;
    const char  *p;

    for (p = values; *p; p += n + (p[n] == '|')) {
        n = strcspn(p, "|");

        if (strlen(s) == n && memcmp(p, s, n) == 0) {
            return 1;
        }
    }

    return 0;
}


static int
conf_clock(const char *s)
{
    return strlen(s) == 5 && strspn(s, "0123456789:") == 5 && s[2] == ':'
           && s[0] != ':' && s[1] != ':' && s[3] != ':' && s[4] != ':'
           && atoi(s) < 24 && atoi(s + 3) < 60;
}


static int
conf_duration(const char *s)
{
    kt_duration_t  d;

    return kt_duration_parse(s, strlen(s), &d) == KT_OK;
}


/* What is wrong with a single value; NULL: nothing.  Numbers go to *v. */

static const char *
conf_wrong(const conf_key_t *key, const char *s, int64_t *v)
{
    switch (key->type) {

    case C_STR:
        return key->values && !conf_one_of(key->values, s)
               ? "\"%s\" is not one of its values" : NULL;

    case C_BOOL:
        *v = conf_yes(s);
        return *v || conf_no(s) ? NULL : "\"%s\" must be true or false";

    case C_INT:
        return kt_int_parse(s, strlen(s), v) != KT_OK || *v < key->min || *v > key->max
               ? "\"%s\" is not an integer in its range" : NULL;

    case C_USD:
        return kt_money_parse(s, strlen(s), KT_MONEY_USD, v) != KT_OK || *v < 0
               ? "\"%s\" is not an amount" : NULL;

    case C_DURATION:
        return conf_duration(s) ? NULL : "\"%s\" is not a duration";

    case C_TIME:
        return conf_clock(s) ? NULL : "\"%s\" is not a time like \"06:30\"";

    case C_ZONE:
    case C_ANY:
        return NULL;

    case C_STRS:
    case C_LIST:
        return "\"%s\" must be a list";

    default:
        return "\"%s\" must be a mapping";
    }
}


static void
conf_single(conf_t *c, conf_file_t *f, const conf_key_t *key, const yaml_node_t *n)
{
    char        *base = (char *) c;
    int64_t      v;
    const char  *s, *wrong;

    s = conf_scalar(f, n);

    if (s == NULL || (n->data.scalar.style == YAML_PLAIN_SCALAR_STYLE
                      && (!*s || !strcmp(s, "null") || !strcmp(s, "~"))))
    {
        return;                     /* a variable that is not set: the default */
    }

    v = 0;
    wrong = conf_wrong(key, s, &v);

    if (wrong) {
        conf_error(f, n, wrong, key->name);

    } else if (key->out == 0) {
        return;

    } else if (key->type == C_BOOL) {
        *(int *) (void *) (base + key->out) = (int) v;

    } else if (key->type == C_INT || key->type == C_USD) {
        *(int64_t *) (void *) (base + key->out) = v;

    } else {
        *(const char **) (void *) (base + key->out) = s;
    }
}


static void
conf_list(conf_t *c, conf_file_t *f, const conf_key_t *key, const yaml_node_t *n,
    int id)
{
    jv_t              *list, **out, *v, *next;
    yaml_node_item_t  *item;

    if (n->type != YAML_SEQUENCE_NODE) {
        conf_error(f, n, "\"%s\" must be a list", key->name);
        return;
    }

    for (item = n->data.sequence.items.start;
         key->type == C_STRS && item < n->data.sequence.items.top; item++)
    {
        if (yaml_document_get_node(&f->doc, *item)->type != YAML_SCALAR_NODE) {
            conf_error(f, yaml_document_get_node(&f->doc, *item),
                       "\"%s\" must be a list of texts", key->name);
        }
    }

    if (key->out == 0) {
        return;
    }

    out = (jv_t **) (void *) ((char *) c + key->out);
    list = conf_tree(f, id, 0);

    for (v = *out ? list->head : NULL; v; v = next) {
        next = v->next;
        json_push(*out, v);
    }

    *out = *out ? *out : list;
}


/* What is said without effect, for check-config and the log. */

static void
conf_idle(conf_t *c, conf_file_t *f, const conf_key_t *key, const yaml_node_t *k)
{
    json_push(c->idle, json_string(f->a, arena_printf(f->a, "%s:%zu:%zu: \"%s\" has no"
              " effect: %s", f->path, k->start_mark.line + 1,
              k->start_mark.column + 1, key->name, key->note)));
}


static void
conf_value(conf_t *c, conf_file_t *f, const conf_key_t *key, const yaml_node_t *k,
    const yaml_node_t *n, int id)
{
    if ((key->flags & K_GUARD)
        && !conf_off(n, n->type == YAML_SCALAR_NODE ? conf_scalar(f, n) : NULL))
    {
        conf_error(f, k, "\"%s\" asks for what Keytoll does not do: leave it out",
                   key->name);
        return;
    }

    if (key->flags & K_NONE) {
        conf_idle(c, f, key, k);
    }

    if (key->type == C_ANY) {
        return;

    } else if (n->type == YAML_SCALAR_NODE) {
        conf_single(c, f, key, n);

    } else if (key->type == C_STRS || key->type == C_LIST) {
        conf_list(c, f, key, n, id);

    } else if (key->type != C_OBJ) {
        conf_error(f, n, "\"%s\" must be a single value", key->name);

    } else if (n->type != YAML_MAPPING_NODE) {
        conf_error(f, n, "\"%s\" must be a mapping", key->name);

    } else if (key->sub) {
        conf_map(c, f, n, key->sub, 0);
    }
}


static int
conf_twice(conf_file_t *f, const yaml_node_t *map, const yaml_node_pair_t *pair,
    const char *name)
{
    yaml_node_t       *k;
    yaml_node_pair_t  *other;

    for (other = map->data.mapping.pairs.start; other < pair; other++) {
        k = yaml_document_get_node(&f->doc, other->key);

        if (k->type == YAML_SCALAR_NODE
            && strcmp((char *) k->data.scalar.value, name) == 0)
        {
            return 1;
        }
    }

    return 0;
}


void
conf_map(conf_t *c, conf_file_t *f, const yaml_node_t *map, const conf_key_t *keys,
    int declare)
{
    yaml_node_t       *k, *v;
    const char        *name;
    const conf_key_t  *key;
    yaml_node_pair_t  *pair;

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

        name = (const char *) k->data.scalar.value;

        if (conf_twice(f, map, pair, name)) {
            conf_error(f, k, "\"%s\" is given twice", name);
        }

        for (key = keys; key->name && strcmp(key->name, name); key++);

        if (key->name == NULL) {
            conf_error(f, k, "unknown name \"%s\"", name);

        } else if (key->type == C_MAP) {
            conf_map(c, f, v, key->sub, 1);

        } else {
            conf_value(c, f, key, k, v, pair->value);

            if (declare && !(key->flags & K_SECRET)) {
                json_set(c->declared, key->name, conf_tree(f, pair->value, 0));
            }
        }
    }
}
