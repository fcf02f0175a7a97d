/*
 * Puts everything Redis must know back into it and opens the gate.
 */

#ifndef CTL_REBUILD_H
#define CTL_REBUILD_H


/*
 * Takes the rebuild lock, waiting for another daemon's rebuild, and rebuilds if
 * the generation is (still) absent.  `force` deletes the generation first.
 * 0, or -1 after logging.
 */
int rebuild_run(int force);

/* Polls the generation and rebuilds when it is gone. */
void *rebuild_thread(void *arg);


#endif
