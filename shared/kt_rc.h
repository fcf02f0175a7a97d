/*
 * Return codes of everything in shared/.  0 is success, positive codes are
 * progress, negative codes are errors; a function lists the ones it returns.
 */

#ifndef KT_RC_H
#define KT_RC_H


typedef enum {
    KT_OK = 0,
    KT_AGAIN = 1,          /* needs more input                             */
    KT_INVALID = -1,       /* malformed input                              */
    KT_RANGE = -2,         /* a number does not fit its unit               */
    KT_NOSPACE = -3,       /* the caller's buffer is too small             */
    KT_DUPLICATE = -4,     /* a key that we act on appears twice           */
    KT_TOODEEP = -5,       /* nesting over the limit                       */
    KT_NOTFOUND = -6
} keytoll_rc_t;


#endif
