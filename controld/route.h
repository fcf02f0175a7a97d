/*
 * The route table and, apart from it, the table of who may call what.  A route
 * without an authorization row does not start the daemon.
 */

#ifndef CTL_ROUTE_H
#define CTL_ROUTE_H

#include "http.h"


typedef enum {
    AUTH_PUBLIC = 1,         /* no key                                        */
    AUTH_ANY_KEY,            /* the master key or any live virtual key        */
    AUTH_ADMIN               /* the master key                                */
} auth_level_t;

typedef void (*route_fn)(req_t *r);

typedef struct {
    const char  *method;
    const char  *path;       /* a final '*' takes the rest of the path        */
    route_fn     fn;
    int          body;       /* a JSON object is required                     */
} route_t;


int route_check(void);       /* 0, or -1 after naming the unprotected route   */
void route_run(req_t *r);

/* Sets r->master or r->caller_*; answers and returns -1 when refused. */
int auth_check(req_t *r, auth_level_t level);


#endif
