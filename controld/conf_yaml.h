/*
 * A YAML file as nodes with places, and as JSON.  Only conf*.c include this.
 */

#ifndef CTL_CONF_YAML_H
#define CTL_CONF_YAML_H

#include <yaml.h>
#include "json.h"


typedef struct {
    yaml_document_t  doc;
    const char      *path;
    arena_t         *a;
    const jv_t      *env;           /* environment_variables; NULL: none      */
    int              failed;
} conf_file_t;


/* Loads the document of `path`; 0, or -1 after a message. */
int conf_open(conf_file_t *f, const char *path);

/* Says file:line:column and sets failed. */
void conf_error(conf_file_t *f, const yaml_node_t *n, const char *fmt,
    const char *arg);

/* Text of a scalar; NULL when it stands for a variable that is not set. */
const char *conf_scalar(conf_file_t *f, const yaml_node_t *n);

/* A node with everything below it as JSON. */
jv_t *conf_tree(conf_file_t *f, int id, int depth);

/* A variable: of environment_variables, else of the environment; NULL: none. */
const char *conf_variable(const jv_t *env, const char *name);


#endif
