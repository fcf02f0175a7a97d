/* Passwords: what is accepted, and scrypt (security-reliability A.3.2). */

#ifndef CTL_PASSWORD_H
#define CTL_PASSWORD_H

#include "arena.h"


/* Why the policy refuses it, NULL when it does not. */
const char *password_weak(const char *s);

/* PHC string "$scrypt$ln=..,r=..,p=..$salt$hash"; NULL when scrypt failed. */
const char *password_hash(arena_t *a, const char *s);

/* 1 when the password is the one that the string was made of. */
int password_matches(const char *s, const char *phc);


#endif
