/*
 * Durations ("30s", "12h", "30d", "1mo", ...) and the budget periods that they
 * make.  Pure functions of the time that is passed in; all calendar work is UTC.
 */

#ifndef KT_DURATION_H
#define KT_DURATION_H

#include <stddef.h>
#include <stdint.h>
#include "kt_rc.h"


typedef struct {
    int64_t  n;
    char     unit;          /* s m h d w, or 'M' for months                   */
} kt_duration_t;


typedef enum {
    KT_PERIOD_NONE = 0,
    KT_PERIOD_FIXED,
    KT_PERIOD_MONTH
} kt_period_kind_t;


typedef struct {
    kt_period_kind_t  kind;
    int64_t           len_s;      /* fixed only                               */
    int64_t           id;         /* epoch seconds at which the period began  */
    int64_t           end_s;      /* epoch seconds at which the next begins   */
} kt_period_t;


/*
 * Prefix match of <digits><mo|s|m|h|d|w>, as LiteLLM reads it: "24hr" is 24 h,
 * "1month" one month, what follows is ignored.  KT_INVALID without digits,
 * KT_NOTFOUND without a unit, KT_RANGE over 100 years.
 */
keytoll_rc_t kt_duration_parse(const char *p, size_t len, kt_duration_t *d);

/* now_s plus the duration; months keep the day of month, clipped. */
int64_t kt_duration_add(const kt_duration_t *d, int64_t now_s);

/*
 * The budget period that contains now_s: 30d and 1mo are calendar months, 7d and
 * 1w begin on Monday, other Nd at today's midnight, Nh/Nm/Ns at a multiple of N
 * in the day/hour/minute.  KT_INVALID for zero and for more than one month.
 */
keytoll_rc_t kt_period_start(const kt_duration_t *d, int64_t now_s,
    kt_period_t *p);

/* Moves p on to the period that contains now_s; returns 1 when it moved. */
int kt_period_roll(kt_period_t *p, int64_t now_s);

/* First second of the month `add` months after the one of t (UTC). */
int64_t kt_month_start(int64_t t, int add);

/* "none", "fixed" or "month". */
const char *kt_period_name(kt_period_kind_t kind);


#endif
