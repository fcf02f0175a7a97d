/* From the nodes of a file, by a table of names, to conf_t. */

#ifndef CTL_CONF_MAP_H
#define CTL_CONF_MAP_H

#include "conf.h"
#include "conf_keys.h"
#include "conf_yaml.h"


/*
 * The names of one mapping; what is wrong is said and sets f->failed.  With
 * `declare` their values are kept by name in c->declared.
 */
void conf_map(conf_t *c, conf_file_t *f, const yaml_node_t *map,
    const conf_key_t *keys, int declare);


#endif
