/* Answers of the spend reports, from rows of the sums. */

#ifndef CTL_REPORT_H
#define CTL_REPORT_H

#include "sums.h"
#include "usage.h"


#define REPORT_NEWEST  5000      /* rows by key that are told                  */

typedef struct {
    req_t   *r;
    sums_t   sums;               /* by day and name                            */
    buf_t    key;
} report_t;


void report_init(report_t *t, req_t *r);

/* Rows (day, name, cost), and (day, name, model, token, cost, tokens). */
void report_totals(report_t *t, PGresult *res);
void report_rows(report_t *t, PGresult *res);

/*
 * What the query (day, "", cost) has beyond the totals, under the name `none`.  0, or
 * -1 after answering.
 */
int report_rest(report_t *t, usage_sql_t *q, const char *none);

/* [{"group_by_day", list: [{name, "total_spend", "metadata": [...]}]}] */
void report_reply_days(report_t *t, const char *list, const char *name);

/* The object of /global/spend/teams. */
void report_reply_teams(report_t *t);

/* By key, of rows (token, model, cost, input tokens, output tokens). */
void report_reply_keys(req_t *r, PGresult *res);


#endif
