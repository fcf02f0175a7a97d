/*
 * Which parameters a request body has: "a", or "a.b" for a member of a.
 */

#ifndef KT_REQPARAM_H
#define KT_REQPARAM_H


#include <stddef.h>


#define KT_REQPARAM_MAX  64            /* bytes of a part of a name         */


typedef struct {
    const char  *name;
    size_t       len;
    size_t       head;                 /* set: bytes before the point       */
    int          found;                /* set                               */
} kt_reqparam_t;


/*
 * Looks for n names in the JSON object p[0..len), which kt_reqscan() has found
 * well-formed, in one pass over it, and over the value of each member that is
 * the head of a name.  A value may be anything; of several copies of a member
 * any will do.  Sets `found` of each; returns the index of the first name that
 * is missing, n when all are there.
 */
size_t kt_reqparams(const unsigned char *p, size_t len, kt_reqparam_t *param,
    size_t n);


#endif
