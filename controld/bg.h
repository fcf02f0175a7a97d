/* The background threads: started after the schema is there, stopped at TERM. */

#ifndef CTL_BG_H
#define CTL_BG_H

#include <stdatomic.h>
#include <libpq-fe.h>


extern atomic_int  bg_stopping;

int bg_start(void);
void bg_stop(void);

/* Sleeps, but not beyond a stop. */
void bg_sleep_ms(int ms);

/*
 * 1 when this daemon is the one that does the work of `lock` (DB_LOCK_*); it is for as
 * long as the connection *c lives, which is opened at need and the caller's to finish.
 */
int bg_single(PGconn **c, int lock);

void *outbox_thread(void *arg);
void *sweep_thread(void *arg);


#endif
