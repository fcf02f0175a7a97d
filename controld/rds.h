/*
 * Redis, synchronous: one connection per thread, opened on first use and again
 * after an error.  Arguments always travel with their lengths.
 */

#ifndef CTL_RDS_H
#define CTL_RDS_H

#include <stddef.h>
#include <hiredis/hiredis.h>
#include "arena.h"


typedef struct {
    size_t        n;
    size_t        size;
    const char  **argv;
    size_t       *lens;
    arena_t      *a;
} rds_cmd_t;


/* The thread's connection, or NULL; `why` is then logged at most once a second. */
redisContext *rds_conn(void);
void rds_close(void);

void rds_cmd(rds_cmd_t *c, arena_t *a, const char *name);
void rds_arg(rds_cmd_t *c, const char *s);
void rds_argn(rds_cmd_t *c, const char *p, size_t len);

/* FCALL <fn> 1 gen, to be followed by the arguments. */
void rds_fcall(rds_cmd_t *c, arena_t *a, const char *fn);

/*
 * Sends and waits (2 s).  NULL: no connection or it broke, nothing is known about
 * the effect.  An error reply is returned as such.  freeReplyObject() it.
 */
redisReply *rds_run(rds_cmd_t *c);

/* rds_run() without waiting; then rds_wait() once per command, in order. */
int rds_send(rds_cmd_t *c);
redisReply *rds_wait(void);

redisReply *rds_simple(arena_t *a, const char *const *argv, size_t n);
#define rds_do(a, ...)                                                         \
    rds_simple(a, (const char *const[]){ __VA_ARGS__ },                        \
               sizeof((const char *[]){ __VA_ARGS__ }) / sizeof(char *))

int rds_is_error(const redisReply *r);                /* NULL or error reply   */
int rds_ok(redisReply *r);                            /* no error; frees it    */
int rds_gen(arena_t *a);            /* gen is 1: there, 0: not; -1: no answer  */

/*
 * Returns when every gate has been sent what earlier commands of this thread
 * announced: Redis answers who called a function before it writes to those that
 * listen, but does both before it reads another command.  0 or -1.
 */
int rds_announced(arena_t *a);

/*
 * NULL, or why this Redis must not keep counters: it evicts when its memory is full,
 * and a counter that is gone is a limit that is not kept.  One that does not answer
 * is no reason.
 */
const char *rds_evicts(arena_t *a);

/* Loads the function library unless the same text is loaded already. 0 or -1. */
int rds_load_library(const char *path);


#endif
