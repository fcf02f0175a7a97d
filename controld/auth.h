/* Who calls: the key that a request presents. */

#ifndef CTL_AUTH_H
#define CTL_AUTH_H

#include "http.h"


/* Sets r->master, r->role and r->caller_*; answers and returns -1 when refused. */
int auth_caller(req_t *r);


#endif
