/*
 * A SELECT with filters that query arguments switch on, pages and an order from a
 * closed set.  SQL is made of constants and parameter numbers only.
 */

#ifndef CTL_QUERY_H
#define CTL_QUERY_H

#include "db.h"
#include "http.h"


#define QUERY_PARAMS_MAX  40


typedef struct {
    req_t       *r;
    buf_t        where;              /* " AND cond AND cond"                   */
    const char  *param[QUERY_PARAMS_MAX];
    int          n;
    int64_t      page;
    int64_t      size;
    int64_t      total;              /* query_page(): of all pages             */
} query_t;


void query_init(query_t *q, req_t *r);

/* Adds a parameter; its number. */
int query_param(query_t *q, const char *value);

/* Adds a condition with one "%d", the number of its parameter. */
void query_add(query_t *q, const char *cond, const char *value);

/* The same if the request has the argument, and it is not empty. */
void query_arg(query_t *q, const char *arg, const char *cond);

/* A pattern of LIKE that finds `s` anywhere, whatever it holds. */
const char *query_pattern(arena_t *a, const char *s);

/* A part of the column's text, case ignored, if the request has the argument. */
void query_like(query_t *q, const char *arg, const char *col);

/* page and the argument that names its size; -1 after answering 422. */
int query_pages(query_t *q, const char *size_arg, int64_t def, int64_t max);

/*
 * sort_by and sort_order: `cols` are pairs of name and SQL, `def` is the whole order
 * without sort_by, `id` breaks ties.  NULL after answering 400.
 */
const char *query_order(query_t *q, const char *const *cols, const char *def,
    const char *id);

/* Runs the text, in which one "%s" stands for the conditions.  NULL: answered. */
PGresult *query_run(query_t *q, const char *sql);

/* The same with LIMIT and OFFSET; the first column is the count of all rows. */
PGresult *query_page(query_t *q, const char *sql);

/* {name: rows, total, page, page_size, total_pages} */
void query_reply(query_t *q, const char *name, jv_t *rows, int64_t total);


#endif
