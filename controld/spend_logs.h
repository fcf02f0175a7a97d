/* Which rows of the ledger a caller may see, and conditions on them ("l"). */

#ifndef CTL_SPEND_LOGS_H
#define CTL_SPEND_LOGS_H

#include "usage.h"


/*
 * What the caller may see.  Without a wider reach the user is his own, whoever he
 * asks for, as LiteLLM has it; *user is then cleared.  0, or -1 after answering.
 */
int logs_visible(usage_sql_t *q, const char **user);

/* A condition for a value that was given. */
void logs_and(usage_sql_t *q, const char *before, const char *v, const char *after);

/* The id of the answer, or of the request. */
void logs_and_id(usage_sql_t *q, const char *id);

/* Token of the argument api_key; NULL: not given. */
const char *logs_token(req_t *r);


#endif
