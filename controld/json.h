/*
 * A small JSON document model on yajl.  Numbers keep the text they were sent
 * with, so that money never passes through a float.  Everything lives in the
 * arena that is passed in; strings are NUL-terminated and never contain NUL.
 */

#ifndef CTL_JSON_H
#define CTL_JSON_H

#include "arena.h"


#define JSON_DEPTH_MAX    64
#define JSON_MEMBERS_MAX  10000


typedef enum {
    J_NULL = 0,
    J_FALSE,
    J_TRUE,
    J_NUM,
    J_STR,
    J_ARR,
    J_OBJ,
    J_RAW                    /* JSON text, emitted as it is                   */
} jtype_t;

typedef struct jv_s  jv_t;

struct jv_s {
    jtype_t      type;
    const char  *key;        /* name in the parent object                     */
    const char  *s;          /* text of a number, string or raw value         */
    size_t       len;
    jv_t        *head;       /* children, in order                            */
    jv_t        *tail;
    jv_t        *next;
    size_t       n;
};


/*
 * Parses one complete document.  NULL on error, *err then says why.  Duplicate
 * names, NUL characters, invalid UTF-8 and nesting over JSON_DEPTH_MAX are errors.
 */
jv_t *json_parse(arena_t *a, const char *p, size_t len, const char **err);

/* The same without a limit on members: files of the operator, rows of PostgreSQL. */
jv_t *json_parse_big(arena_t *a, const char *p, size_t len, const char **err);

/* Absent or null. */
static inline int
json_is_null(const jv_t *v)
{
    return v == NULL || v->type == J_NULL;
}

jv_t *json_get(const jv_t *o, const char *key);            /* NULL: absent    */
const char *json_str(const jv_t *o, const char *key);      /* NULL: no string */

jv_t *json_obj(arena_t *a);
jv_t *json_arr(arena_t *a);
jv_t *json_string(arena_t *a, const char *s);              /* NULL: null      */
jv_t *json_num(arena_t *a, const char *text);
jv_t *json_int(arena_t *a, int64_t v);
jv_t *json_bool(arena_t *a, int v);
jv_t *json_null(arena_t *a);
jv_t *json_raw(arena_t *a, const char *text);
jv_t *json_usd(arena_t *a, int64_t nusd);
jv_t *json_copy(arena_t *a, const jv_t *v);                /* shares children */

void json_push(jv_t *arr, jv_t *v);
void json_set(jv_t *o, const char *key, jv_t *v);          /* replaces        */
void json_del(jv_t *o, const char *key);

void json_emit(buf_t *b, const jv_t *v);
const char *json_text(arena_t *a, const jv_t *v);
void json_quote(buf_t *b, const char *s, size_t len);


#endif
