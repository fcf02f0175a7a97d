/* Rows that follow from the configuration. */

#ifndef CTL_SETUP_H
#define CTL_SETUP_H


/* The master key's entity, the global budget.  0, or -1 after logging. */
int setup_run(void);


#endif
