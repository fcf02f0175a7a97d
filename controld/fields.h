/*
 * Body fields to columns, by table.  An absent field does nothing; null clears
 * (update) or leaves the default (create).
 */

#ifndef CTL_FIELDS_H
#define CTL_FIELDS_H

#include "http.h"


#define ROWSET_MAX  80

typedef enum {
    F_STR = 1,       /* text                                                   */
    F_NAME,          /* text, 0..255 bytes, no control characters              */
    F_ID,            /* text, 1..255 bytes, no control characters              */
    F_USD,           /* nano-USD, not negative; "" is null                     */
    F_INT,           /* not negative                                           */
    F_BOOL,
    F_STRS,          /* text[]                                                 */
    F_OBJ,           /* jsonb object                                           */
    F_LIST,          /* jsonb array                                            */
    F_JSON,          /* jsonb, anything                                        */
    F_META,          /* moves into metadata                                    */
    F_TAGS,          /* the same, a list of ids                                */
    F_EXTRA,         /* moves into extra                                       */
    F_PERIOD,        /* budget_duration and the period columns                 */
    F_EXPIRES,       /* duration; "-1" clears                                  */
    F_ENFORCE,       /* strict | last_call                                     */
    F_ENUM,          /* one of `values`                                        */
    F_NUM,           /* any number                                             */
    F_ANY            /* anything                                               */
} ftype_t;

#define F_NOTNULL   0x1          /* null means the column's default            */
#define F_REQUIRED  0x2          /* absent or null: 422                        */
#define F_ADMIN     0x4          /* only proxy admins may send it              */
#define F_ZERO      0x8          /* but 0, {}, [] and null say nothing         */
#define F_REFUSED   0x10         /* nothing is behind it, or behind these members */
                                 /* ("a|b") of it: 400 when it says something  */

/*
 * A row without a column, of a type that is not moved elsewhere, is an argument of
 * the handler: its type is checked, fields_read() passes it over.
 */
typedef struct {
    const char  *name;
    ftype_t      type;
    const char  *col;
    unsigned     flags;
    const char  *values;         /* of F_ENUM, of F_REFUSED: "a|b|c"           */
} field_t;

typedef struct {
    int          n;
    const char  *col[ROWSET_MAX];
    const char  *expr[ROWSET_MAX];      /* cast of the parameter, or constant SQL */
    const char  *val[ROWSET_MAX];
    int          bare[ROWSET_MAX];      /* expr is the whole expression        */
    const char  *pre[ROWSET_MAX];       /* SQL before the parameter            */
    jv_t        *meta;                  /* fields for metadata and extra       */
    jv_t        *extra;
} rowset_t;


/* Limits of a budgets row where the handler reads them itself. */
#define FIELDS_BUDGET_ARGS                                                    \
    { "budget_id", F_ID, NULL, 0 },                                           \
    { "max_budget", F_USD, NULL, 0 },                                         \
    { "soft_budget", F_USD, NULL, 0 },                                        \
    { "max_parallel_requests", F_INT, NULL, 0 },                              \
    { "tpm_limit", F_INT, NULL, 0 },                                          \
    { "rpm_limit", F_INT, NULL, 0 },                                          \
    { "model_max_budget", F_OBJ, NULL, 0 },                                   \
    { "budget_duration", F_STR, NULL, 0 },                                    \
    { "budget_reset_at", F_ANY, NULL, 0 },                                    \
    { "budget_enforcement", F_ENUM, NULL, 0, "strict|last_call" }

/* Checks the body against the table of its route; -1 after answering. */
int fields_check(req_t *r, const field_t *table);

/* The same for lists of the table that stand in metadata; fields_check() asks it. */
int fields_check_metadata(req_t *r, const field_t *table);

/* Reads every field of the table from r->json; -1 after answering. */
int fields_read(req_t *r, const field_t *table, rowset_t *rs, int create);

/*
 * Writes metadata and extra from the body and from the moved fields: a metadata
 * that was sent replaces, moved fields are merged.  -1 after answering.
 */
int fields_metadata(req_t *r, rowset_t *rs, int create);

void row_set(rowset_t *rs, const char *col, const char *cast, const char *val);
void row_expr(rowset_t *rs, const char *col, const char *sql);

/* INSERT INTO table (...) VALUES (...) tail; UPDATE table SET ... tail, where the
 * tail's parameters come first ($1 .. $first). */
const char *row_insert(arena_t *a, const char *table, rowset_t *rs,
    const char *tail);
const char *row_update(arena_t *a, const char *table, rowset_t *rs, int first,
    const char *tail);

/* Money of a body field: 1 and *v, 0 when absent or null, -1 after answering. */
int field_usd(req_t *r, const char *name, int64_t *v);
int field_int(req_t *r, const char *name, int64_t *v);
int field_bool(req_t *r, const char *name, int *v);

/* The same for a list of names, as the text of a text[]. */
int field_strs(req_t *r, const char *name, const char **v);

/* A list of names that stands anywhere, as the text of a text[]; NULL after answering. */
const char *field_strs_value(req_t *r, const char *name, const jv_t *v);

/* An id that the body must have; NULL after answering. */
const char *field_body_id(req_t *r, const char *name);

/* Period columns for a duration; -1 after answering. */
int field_period(req_t *r, rowset_t *rs, const char *name, const char *text,
    int create);


#endif
