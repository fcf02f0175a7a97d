/*
 * From rows of usage to LiteLLM's SpendAnalyticsPaginatedResponse: days with their
 * metrics, broken down by model, provider, endpoint, key and entity.
 */

#ifndef CTL_ACTIVITY_H
#define CTL_ACTIVITY_H

#include "db.h"
#include "http.h"
#include "sums.h"


/* What of a row is counted. */
#define ACT_TOTAL  0x1       /* the day and the totals                         */
#define ACT_NAMES  0x2       /* models, groups, providers, endpoints, entities */
#define ACT_KEYS   0x4       /* keys, and within those names                   */
#define ACT_ALL    0x7

typedef struct {
    req_t    *r;
    sums_t    sums;          /* by day and name                                */
    sums_t    days;
    sums_t    keys;          /* tokens met                                     */
    sums_t    teams;         /* entities met, when they are teams              */
    sum_t    *total;
    buf_t     key;
    int       by_team;
} activity_t;

/* The columns of a row, in the order that activity_row() reads them. */
#define ACT_COLUMNS                                                           \
    "u.day - date '1970-01-01', coalesce(nullif(x.upstream_model, ''),"       \
    " x.model), x.model, x.provider, x.route, u.cost_nusd, u.prompt_tokens,"  \
    " u.completion_tokens, u.cache_read_tokens, u.cache_write_tokens,"        \
    " u.requests - u.failed, u.failed, u.requests, x.token, "


void activity_init(activity_t *t, req_t *r, int by_team);

/* One row of ACT_COLUMNS and the entity. */
void activity_row(activity_t *t, PGresult *res, int row, int what);

/* Answers; `pages` of `page_size` rows, of which this is `page`. -1 answered. */
int activity_reply(activity_t *t, int64_t page, int64_t pages);

/* The rows themselves as CSV. */
int activity_reply_csv(activity_t *t, PGresult *res);

/* "/chat/completions" of "chat". */
const char *activity_endpoint(arena_t *a, const char *route);


#endif
