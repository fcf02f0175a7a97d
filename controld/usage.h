/*
 * What the reports share: dates, whose usage a caller may see, queries over the sums
 * by day, CSV.
 */

#ifndef CTL_USAGE_H
#define CTL_USAGE_H

#include "db.h"
#include "http.h"


#define USAGE_PARAMS   24
#define USAGE_ROWS     10000             /* the most rows of one answer        */
#define USAGE_DAYS     366               /* of a report                        */

/* Whose usage: everybody's, or that of one user, or of one key without a user. */
typedef struct {
    int          all;
    const char  *user;
    const char  *token;
} usage_who_t;

typedef struct {
    req_t       *r;
    buf_t        sql;
    const char  *param[USAGE_PARAMS];
    int          n;
} usage_sql_t;


/* Days since 1970 of "YYYY-MM-DD"; -1: not a date of the calendar. */
int64_t usage_day(const char *s);
const char *usage_day_text(arena_t *a, int64_t day);
int64_t usage_today(void);

/*
 * start_date and end_date of the query; 0, or -1 after answering.  usage_dates_spend()
 * takes the last 30 days when both are absent.
 */
int usage_dates(req_t *r, int64_t *from, int64_t *to);
int usage_dates_spend(req_t *r, int64_t *from, int64_t *to);

/* The caller's view; marks the request as scoped. */
void usage_who(req_t *r, usage_who_t *w);

/* Builds SQL of fixed parts and parameters: usage_param() adds "$n". */
void usage_sql(usage_sql_t *q, req_t *r, const char *text);

/*
 * Around the parameter of a hash: every hash of that key.  The SELECT is there so that
 * it is computed once, and not for every row.
 */
#define USAGE_KEY      " = ANY ((SELECT kt_key_hashes("
#define USAGE_KEY_END  "))::text[])"

void usage_param(usage_sql_t *q, const char *before, const char *value,
    const char *after);

/*
 * The dimensions of sums.  The join is an outer one so that without a condition on x
 * the sums are read by day, not by dimension; with one, which must be beside one on
 * x.kind for its index, PostgreSQL is free to choose.
 */
#define USAGE_JOIN  " FROM usage_sums u LEFT JOIN usage_dims x USING (dim)"

/*
 * USAGE_JOIN and WHERE kind, days and the caller: the sums of everything (kind
 * `coarse`), or those of his keys.
 */
void usage_from(usage_sql_t *q, char coarse, const usage_who_t *w, int64_t from,
    int64_t to);
void usage_and(usage_sql_t *q, char coarse, const usage_who_t *w, int64_t from,
    int64_t to);             /* the conditions alone, each with its AND        */

/*
 * The same for sums by key over a long time, one per dimension: whole months where they
 * fit.  `cond` is one more condition on x, with a '?' for its parameter; NULL: none.
 */
void usage_from_keys(usage_sql_t *q, const usage_who_t *w, int64_t from, int64_t to,
    const char *cond, const char *value);

/* Runs it; NULL after answering. */
PGresult *usage_run(usage_sql_t *q);

/* Answers with the JSON values of the first column, as a list. */
void usage_reply_list(usage_sql_t *q);

/* The JSON value of the only row, as the answer. */
void usage_reply_one(usage_sql_t *q);

/* An answer has fewer rows than there are. */
void usage_truncated(req_t *r);

/* format=csv or Accept: text/csv: 1; else 0; -1 after answering. */
int usage_csv(req_t *r);
void usage_csv_cell(buf_t *b, const char *text, int first);
void usage_csv_number(buf_t *b, const char *text, int first);

/* Elements of a comma list, as text of text[]; NULL: none. */
const char *usage_ids(arena_t *a, const char *list);


#endif
