/* Time, files, ids. */

#ifndef CTL_UTIL_H
#define CTL_UTIL_H

#include <stddef.h>
#include <stdint.h>
#include "arena.h"


int64_t util_now_ms(void);
int64_t util_now_s(void);
int64_t util_mono_us(void);

/* The whole file, NUL-terminated; NULL when it can not be read. */
char *util_read_file(arena_t *a, const char *path, size_t *len);

void util_random(void *p, size_t len);       /* getrandom; aborts without it   */
char *util_uuid(arena_t *a);
void util_rid(char out[33]);

/* 1 when the pattern, in which '*' stands for any text, covers all of s. */
int util_glob(const char *pattern, const char *s);

/* 1 when s is 1..255 bytes without control characters. */
int util_id_ok(const char *s);

/* 1 when s names a member of a request body: "a" or "a.b", 1..64 bytes each, not blank. */
int util_param_ok(const char *s);


#endif
