/*
 * Idempotency-Key on every mutation: the same key with the same request answers
 * what was answered before, for 24 hours; the same key with another request is
 * refused.  The row is written in the transaction of the change, so that a change
 * and its key are there together or not at all.  Answers are kept sealed: they may
 * show a new key.
 */

#ifndef CTL_IDEM_H
#define CTL_IDEM_H

#include "http.h"


/* Before the handler.  0: go on, -1: answered (a replay, or refused). */
int idem_begin(req_t *r);

/* In the transaction that tx_begin() has opened.  -1 after answering. */
int idem_claim(req_t *r);

/* After the handler: keeps what was answered, if the transaction took place. */
void idem_end(req_t *r);


#endif
