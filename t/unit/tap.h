/*
 * Test output for prove: one test file is one main() that ends in
 * `return tap_done();`.
 */

#ifndef TAP_H
#define TAP_H


#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>


static int  tap_n, tap_failed;


__attribute__((format(printf, 2, 3)))
static inline int
ok(int pass, const char *fmt, ...)
{
    va_list  ap;

    printf("%sok %d - ", pass ? "" : "not ", ++tap_n);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);

    tap_failed += !pass;

    return pass;
}


static inline int
is_int(int64_t got, int64_t want, const char *name)
{
    if (!ok(got == want, "%s", name)) {
        printf("#      got: %" PRId64 "\n# expected: %" PRId64 "\n", got,
               want);
    }

    return got == want;
}


static inline int
is_mem(const void *got, size_t len, const char *want, const char *name)
{
    int  same;

    same = len == strlen(want) && (len == 0 || memcmp(got, want, len) == 0);

    if (!ok(same, "%s", name)) {
        printf("#      got: '%.*s'\n# expected: '%s'\n", (int) len,
               len ? (const char *) got : "", want);
    }

    return same;
}


static inline int
is_str(const char *got, const char *want, const char *name)
{
    return is_mem(got, strlen(got), want, name);
}


static inline int
tap_done(void)
{
    printf("1..%d\n", tap_n);

    return tap_failed != 0;
}


#endif
