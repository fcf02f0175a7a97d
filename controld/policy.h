/*
 * The way from rows to Redis.  Policies are always compiled from the current
 * rows (view kt_policy), so pushing twice, late or out of order is harmless: the
 * version decides.
 */

#ifndef CTL_POLICY_H
#define CTL_POLICY_H

#include <stddef.h>
#include <stdint.h>
#include "arena.h"


#define POLICY_BATCH  200


/*
 * Pushes the current state of the named entities.  One without a row any more is
 * deleted, with `del_v` of its position if that is not 0.  0, -1 when Redis or
 * PostgreSQL did not answer, -2 when Redis refused one of the policies; then
 * policy_error() says why.
 */
int policy_push(arena_t *a, const char *const *names, const int64_t *del_v,
    size_t n);

/* Sleeps until blocks that may be used for ms more are gone; at most a second. */
void policy_wait(int64_t ms);

/* What Redis said to the thread's last refused push. */
const char *policy_error(void);

/* Pushes every entity, in pipelined batches.  Returns how many, or -1. */
int64_t policy_push_all(void);

/* During a rebuild: sets `used` of every entity to the sums of PostgreSQL. */
int policy_used_all(void);

/*
 * What each entity used in its running period, nano-USD: from Redis, or from
 * PostgreSQL when Redis can not tell.  Unknown entities get 0.
 */
void policy_used(arena_t *a, const char *const *names, size_t n, int64_t *used);

/* The same from Redis alone: 0, or -1 when it does not answer. */
int policy_used_redis(arena_t *a, const char *const *names, size_t n, int64_t *used);


#endif
