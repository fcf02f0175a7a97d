/*
 * The names of controld.yaml: Keytoll's own and those of LiteLLM's config.yaml
 * (litellm-api 13), each with what becomes of it.
 */

#ifndef CTL_CONF_KEYS_H
#define CTL_CONF_KEYS_H

#include <stddef.h>
#include <stdint.h>


typedef enum {
    C_STR = 1,
    C_BOOL,
    C_INT,
    C_USD,
    C_STRS,          /* list of strings                                        */
    C_LIST,          /* list of anything                                       */
    C_OBJ,           /* mapping of what `sub` says, of anything without        */
    C_DURATION,      /* "30d"                                                  */
    C_TIME,          /* "HH:MM"                                                */
    C_ZONE,          /* IANA time zone                                         */
    C_ANY,
    C_MAP            /* a section: `sub` has its names                         */
} conf_type_t;

#define K_NONE     0x1   /* accepted, without effect                           */
#define K_GUARD    0x2   /* asks for a protection that is not there: an error, */
                         /* unless it is off                                   */
#define K_SECRET   0x4   /* not to be shown by the configuration API           */
#define K_FILE     0x8   /* shown, but set in the file only                    */

typedef struct conf_key_s  conf_key_t;

struct conf_key_s {
    const char        *name;
    conf_type_t        type;
    unsigned           flags;
    size_t             out;      /* offset in conf_t, 0: in conf.declared only */
    const conf_key_t  *sub;
    const char        *values;   /* of C_STR: "a|b|c"                          */
    int64_t            min;      /* of C_INT                                   */
    int64_t            max;
    const char        *note;     /* why it has no effect                       */
};


extern const conf_key_t  conf_keys[];           /* the whole file              */

/* One of general_settings or litellm_settings; NULL: no such name. */
const conf_key_t *conf_key_find(const char *section, const char *name);


#endif
