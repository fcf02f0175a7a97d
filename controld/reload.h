/*
 * SIGHUP: the file is read again.  A broken one changes nothing; of a good one
 * everything is used at once but what needs a restart, which is named in the log.
 */

#ifndef CTL_RELOAD_H
#define CTL_RELOAD_H

void reload_run(void);

#endif
