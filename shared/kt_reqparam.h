/*
 * Whether a request body has a parameter: "a", or "a.b" for a member of a.
 */

#ifndef KT_REQPARAM_H
#define KT_REQPARAM_H


#include <stddef.h>


#define KT_REQPARAM_MAX  64            /* bytes of a name                   */


/*
 * 1 when the JSON object p[0..len), which kt_reqscan() has found well-formed,
 * has it, whatever its value is; else 0.  Of several copies any will do.
 */
int kt_reqparam(const unsigned char *p, size_t len, const char *name,
    size_t nlen);


#endif
