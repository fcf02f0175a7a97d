/* The reconciler: what every entity used, in Redis and in PostgreSQL. */

#ifndef CTL_RECON_H
#define CTL_RECON_H


/*
 * Compares all entities now and prints those that differ, one to a line with both
 * amounts in nano-USD.  0, 1 when some differ, -1 when it could not be told.
 */
int recon_run(void);

/*
 * Compares a part of them every minute, in the order of their names, so that many cost
 * no more than few; the metrics are those of the last whole round.
 */
void *recon_thread(void *arg);


#endif
