/* Passwords: what is accepted, and scrypt (security-reliability A.3.2). */

#ifndef CTL_PASSWORD_H
#define CTL_PASSWORD_H

#include <stdint.h>
#include "arena.h"


typedef struct {
    int64_t  min_length;         /* bytes                                      */
    int      upper;              /* one of each that is set is required        */
    int      lower;
    int      digit;
    int      special;
} password_rules_t;

/* 1 when the rules refuse it, or it has over 1024 bytes. */
int password_weak(const char *s, const password_rules_t *rules);

/* PHC string "$scrypt$ln=..,r=..,p=..$salt$hash"; NULL when scrypt failed. */
const char *password_hash(arena_t *a, const char *s);

/* 1 when the password is the one that the string was made of. */
int password_matches(const char *s, const char *phc);


#endif
