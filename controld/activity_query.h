/* Usage by day: what is asked, and the answer from the sums. */

#ifndef CTL_ACTIVITY_QUERY_H
#define CTL_ACTIVITY_QUERY_H

#include "activity.h"


/* One kind of entity. */
typedef struct {
    const char  *column;             /* of usage_dims                          */
    char         fine;               /* its sums by key                        */
    char         coarse;             /* without the key; 0: there are none     */
    int64_t      page_size;
    int          team;
    int          users;              /* rows without an entity count too       */
} activity_kind_t;

typedef struct {
    req_t         *r;
    const activity_kind_t  *kind;
    int64_t        from;
    int64_t        to;
    int64_t        page;
    int64_t        size;
    const char    *model;
    const char    *token;
    const char    *ids;              /* entities, as text[]; NULL: all         */
    const char    *not_ids;
    const char    *own_ids;          /* of these, only rows of `me`            */
    const char    *me;               /* user; with own_ids NULL: his rows only */
    const char    *my_token;         /* the same for a key without a user      */
    int            csv;
} activity_ask_t;


/* Answers by page, or with everything at once. */
void activity_run(const activity_ask_t *q, int aggregate);


#endif
