/* The background threads: started after the schema is there, stopped at TERM. */

#ifndef CTL_BG_H
#define CTL_BG_H

#include <stdatomic.h>


extern atomic_int  bg_stopping;

int bg_start(void);
void bg_stop(void);

/* Sleeps, but not beyond a stop. */
void bg_sleep_ms(int ms);

void *outbox_thread(void *arg);
void *sweep_thread(void *arg);
void *recon_thread(void *arg);


#endif
