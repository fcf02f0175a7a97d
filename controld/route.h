/*
 * The route table and, apart from it, the authorization table.  A route without
 * an authorization row does not start the daemon, nor does a row that protects
 * no route.
 */

#ifndef CTL_ROUTE_H
#define CTL_ROUTE_H

#include "fields.h"
#include "http.h"


typedef void (*route_fn)(req_t *r);

/* A query argument, for the OpenAPI document and the first check. */
typedef struct {
    const char  *name;
    ftype_t      type;       /* F_STR, F_INT (at least 1), F_BOOL, F_USD       */
    unsigned     flags;      /* F_REQUIRED                                     */
} arg_t;

typedef struct {
    const char     *method;
    const char     *path;    /* "{name}" takes one segment; the last one may   */
                             /* be "*", which takes the rest with its slashes  */
    route_fn        fn;
    const field_t  *body;    /* its JSON body; NULL: the body is not read      */
    const arg_t    *args;    /* query arguments; NULL: none                    */
    const char     *what;    /* one line for people                            */
    const char     *err;     /* error.type of converted errors, if not         */
                             /* internal_server_error                          */
    int             optional;/* a request without a body is one of {}          */
} route_t;


extern const route_t  routes[];          /* ends with a NULL method            */

int route_check(void);       /* 0, or -1 after naming the unprotected route   */
void route_run(req_t *r);

/* Prints the table as JSON lines, for the tests that go through all of it. */
void route_dump(void);


#endif
