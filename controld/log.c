#include <stdatomic.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "arena.h"
#include "json.h"
#include "log.h"


#define LOG_FIELD_MAX    2000
#define LOG_SECRETS_MAX  16


log_level_t  log_min = LOG_INFO;

static char  *log_secrets[LOG_SECRETS_MAX];
static atomic_int  log_nsecrets;

static const char *const  log_names[] = { "debug", "info", "warn", "error", "fatal" };


void
log_secret(const char *secret)
{
    int  i, n;

    n = atomic_load(&log_nsecrets);

    if (secret == NULL || strlen(secret) < 8 || n == LOG_SECRETS_MAX) {
        return;
    }

    for (i = 0; i < n; i++) {
        if (strcmp(log_secrets[i], secret) == 0) {
            return;
        }
    }

    log_secrets[n] = xstrdup(secret);
    atomic_store(&log_nsecrets, n + 1);
}


const char *
log_f(const char *fmt, ...)
{
    char                   *p;
    va_list                 args;
    static __thread char    text[8][512];
    static __thread unsigned  turn;

    p = text[turn++ % 8];
    va_start(args, fmt);
    vsnprintf(p, sizeof(text[0]), fmt, args);
    va_end(args);

    return p;
}


/* Secrets that are known, and whatever looks like a key: paths may hold one. */

static void
log_mask(buf_t *b)
{
    int     i;
    char   *p;
    size_t  n;

    for (p = strstr(b->p, "sk-"); p; p = strstr(p + 3, "sk-")) {
        n = strspn(p + 3, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                   "0123456789_-");

        if (n >= 8) {
            memset(p + 3, '*', n);
        }
    }

    for (i = 0; i < log_nsecrets; i++) {
        while ((p = strstr(b->p, log_secrets[i])) != NULL) {
            memset(p, '*', strlen(log_secrets[i]));
        }
    }
}


void
log_event(log_level_t level, const char *msg, ...)
{
    size_t           n;
    buf_t            b;
    arena_t          a;
    va_list          args;
    struct tm        tm;
    const char      *name, *value;
    struct timespec  ts;

    if (level < log_min) {
        return;
    }

    arena_init(&a);
    buf_init(&b, &a);
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    buf_printf(&b, "{\"ts\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ\","
               "\"level\":\"%s\",\"msg\":", tm.tm_year + 1900, tm.tm_mon + 1,
               tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
               ts.tv_nsec / 1000000, log_names[level]);
    json_quote(&b, msg, strlen(msg));
    va_start(args, msg);

    while ((name = va_arg(args, const char *)) != NULL) {
        value = va_arg(args, const char *);
        value = value ? value : "";
        n = strlen(value);
        buf_putc(&b, ',');
        json_quote(&b, name, strlen(name));
        buf_putc(&b, ':');
        json_quote(&b, value, n < LOG_FIELD_MAX ? n : LOG_FIELD_MAX);
    }

    va_end(args);
    buf_puts(&b, "}\n");
    log_mask(&b);

    /* one write, so that lines of several threads never mix */
    if (write(STDERR_FILENO, b.p, b.len) < 0) { /* nowhere left to say it */ }

    arena_free(&a);
}
