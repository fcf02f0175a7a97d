/*
 * One JSON line per event on stderr: ts, level, msg, then pairs of name and text.
 * Secrets registered with log_secret() are masked wherever they would appear.
 */

#ifndef CTL_LOG_H
#define CTL_LOG_H


typedef enum { LOG_DEBUG = 0, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_FATAL } log_level_t;

extern log_level_t  log_min;

/* Name and value pairs, both const char *, ended by NULL. */
void log_event(log_level_t level, const char *msg, ...)
    __attribute__((sentinel));

void log_secret(const char *secret);       /* kept by copy; at most 16 of them */

/* A formatted text for one field; valid until the thread's eighth next call. */
const char *log_f(const char *fmt, ...) __attribute__((format(printf, 1, 2)));


#endif
