#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include "kt_reqparam.h"
#include "kt_schema.h"
#include "log.h"
#include "util.h"


int64_t
util_now_ms(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_REALTIME, &ts);

    return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}


int64_t
util_now_s(void)
{
    return util_now_ms() / 1000;
}


int64_t
util_mono_us(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}


char *
util_read_file(arena_t *a, const char *path, size_t *len)
{
    long    n;
    char   *p;
    FILE   *fp;

    fp = fopen(path, "rb");

    if (fp == NULL) {
        return NULL;
    }

    p = NULL;

    if (fseek(fp, 0, SEEK_END) == 0 && (n = ftell(fp)) >= 0
        && fseek(fp, 0, SEEK_SET) == 0)
    {
        p = arena_alloc(a, (size_t) n + 1);
        *len = fread(p, 1, (size_t) n, fp);

        if (*len != (size_t) n) {
            p = NULL;
        }
    }

    fclose(fp);

    return p;
}


void
util_random(void *p, size_t len)
{
    if (getrandom(p, len, 0) != (ssize_t) len) {
        log_event(LOG_FATAL, "no random numbers", NULL);
        abort();
    }
}


char *
util_uuid(arena_t *a)
{
    unsigned char  r[16];

    util_random(r, sizeof(r));
    r[6] = (unsigned char) ((r[6] & 0x0f) | 0x40);
    r[8] = (unsigned char) ((r[8] & 0x3f) | 0x80);

    return arena_printf(a, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
                        "%02x%02x%02x%02x%02x%02x", r[0], r[1], r[2], r[3],
                        r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12],
                        r[13], r[14], r[15]);
}


void
util_rid(char out[33])
{
    unsigned char  r[10];

    util_random(r, sizeof(r));
    kt_rid_make(util_now_ms(), r, out);
}


int
util_id_ok(const char *s)
{
    size_t       n;
    const char  *p;

    n = strlen(s);

    if (n == 0 || n > KT_ID_MAX) {
        return 0;
    }

    for (p = s; *p; p++) {
        if ((unsigned char) *p < 0x20 || *p == 0x7f
            || ((unsigned char) *p == 0xc2 && (unsigned char) p[1] < 0xa0))
        {
            return 0;                              /* also U+0080 to U+009F    */
        }
    }

    return 1;
}


int
util_param_ok(const char *s)
{
    const char  *dot;

    dot = strchr(s, '.');

    return util_id_ok(s) && s[strspn(s, " ")] != '\0' && (!dot || !strchr(dot + 1, '.'))
           && (dot ? dot > s && dot - s <= KT_REQPARAM_MAX && dot[1] != '\0'
                     && strlen(dot + 1) <= KT_REQPARAM_MAX
                   : strlen(s) <= KT_REQPARAM_MAX);
}


int
util_glob(const char *p, const char *s)
{
    const char  *star, *back;

    star = back = NULL;

    while (*s) {
        if (*p == '*') {
            star = p++;
            back = s;

        } else if (*p == *s) {
            p++;
            s++;

        } else if (star) {
            p = star + 1;
            s = ++back;

        } else {
            return 0;
        }
    }

    while (*p == '*') {
        p++;
    }

    return *p == '\0';
}
