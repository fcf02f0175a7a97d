/*
 * Applies sql/NNN_*.sql in order, each in a transaction of its own, under an
 * advisory lock, so that any number of daemons may start at once.  An applied
 * file that changed since is an error, never applied again.
 */

#ifndef CTL_MIGRATE_H
#define CTL_MIGRATE_H


int migrate_run(const char *dir);           /* 0, or -1 after logging          */


#endif
