#include "kt_duration.h"


#define KT_DAY       86400
#define KT_CENTURY   ((int64_t) 36525 * KT_DAY)


/* Days since 1970-01-01 of a proleptic Gregorian date, and back. */

static int64_t
kt_days(int64_t y, int m, int d)
{
    int64_t  era, yoe, doy, doe;

    y -= m <= 2;
    era = (y >= 0 ? y : y - 399) / 400;
    yoe = y - era * 400;
    doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;

    return era * 146097 + doe - 719468;
}


static void
kt_civil(int64_t days, int64_t *y, int *m, int *d)
{
    int64_t  era, doe, yoe, doy, mp;

    days += 719468;
    era = (days >= 0 ? days : days - 146096) / 146097;
    doe = days - era * 146097;
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    mp = (5 * doy + 2) / 153;
    *d = (int) (doy - (153 * mp + 2) / 5 + 1);
    *m = (int) (mp < 10 ? mp + 3 : mp - 9);
    *y = yoe + era * 400 + (*m <= 2);
}


static int64_t
kt_floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}


static void
kt_month_add(int64_t *y, int *m, int64_t add)
{
    int64_t  n;

    n = *y * 12 + (*m - 1) + add;
    *y = kt_floor_div(n, 12);
    *m = (int) (n - *y * 12) + 1;
}


int64_t
kt_month_start(int64_t t, int add)
{
    int      m, d;
    int64_t  y;

    kt_civil(kt_floor_div(t, KT_DAY), &y, &m, &d);
    kt_month_add(&y, &m, add);

    return kt_days(y, m, 1) * KT_DAY;
}


keytoll_rc_t
kt_duration_parse(const char *p, size_t len, kt_duration_t *d)
{
    size_t   i;
    int64_t  n;

    n = 0;

    for (i = 0; i < len && p[i] >= '0' && p[i] <= '9'; i++) {
        if (n > KT_CENTURY) {
            return KT_RANGE;
        }

        n = n * 10 + (p[i] - '0');
    }

    if (i == 0) {
        return KT_INVALID;
    }

    if (i == len) {
        return KT_NOTFOUND;
    }

    d->n = n;
    d->unit = p[i];

    switch (p[i]) {

    case 'm':
        if (i + 1 < len && p[i + 1] == 'o') {
            d->unit = 'M';
            return n <= 1200 ? KT_OK : KT_RANGE;
        }
        return n <= KT_CENTURY / 60 ? KT_OK : KT_RANGE;

    case 's':
        return n <= KT_CENTURY ? KT_OK : KT_RANGE;

    case 'h':
        return n <= KT_CENTURY / 3600 ? KT_OK : KT_RANGE;

    case 'd':
        return n <= 36525 ? KT_OK : KT_RANGE;

    case 'w':
        return n <= 5217 ? KT_OK : KT_RANGE;

    default:
        return KT_NOTFOUND;
    }
}


int64_t
kt_duration_add(const kt_duration_t *d, int64_t now_s)
{
    int      m, day, last;
    int64_t  y, next_y;
    int      next_m;

    switch (d->unit) {
    case 's': return now_s + d->n;
    case 'm': return now_s + d->n * 60;
    case 'h': return now_s + d->n * 3600;
    case 'd': return now_s + d->n * KT_DAY;
    case 'w': return now_s + d->n * 7 * KT_DAY;
    default:  break;
    }

    kt_civil(kt_floor_div(now_s, KT_DAY), &y, &m, &day);
    kt_month_add(&y, &m, d->n);
    next_y = y;
    next_m = m;
    kt_month_add(&next_y, &next_m, 1);
    last = (int) (kt_days(next_y, next_m, 1) - kt_days(y, m, 1));

    return kt_days(y, m, day < last ? day : last) * KT_DAY
           + (now_s - kt_floor_div(now_s, KT_DAY) * KT_DAY);
}


static void
kt_period_fixed(kt_period_t *p, int64_t base, int64_t unit, int64_t n,
    int64_t now_s)
{
    p->kind = KT_PERIOD_FIXED;
    p->len_s = unit * n;
    p->end_s = base + ((now_s - base) / p->len_s + 1) * p->len_s;
    p->id = p->end_s - p->len_s;
}


keytoll_rc_t
kt_period_start(const kt_duration_t *d, int64_t now_s, kt_period_t *p)
{
    int64_t  days, midnight, monday;

    if (d->n <= 0 || (d->unit == 'M' && d->n != 1)) {
        return KT_INVALID;
    }

    days = kt_floor_div(now_s, KT_DAY);
    midnight = days * KT_DAY;
    monday = midnight - ((days + 3) % 7) * KT_DAY;     /* day 0 was a Thursday */
    p->len_s = 0;

    switch (d->unit) {

    case 'd':
        if (d->n == 30) {
            break;
        }
        kt_period_fixed(p, d->n == 7 ? monday : midnight, KT_DAY, d->n, now_s);
        return KT_OK;

    case 'w':
        kt_period_fixed(p, d->n == 1 ? monday : midnight, 7 * KT_DAY, d->n,
                        now_s);
        return KT_OK;

    case 'h':
        kt_period_fixed(p, midnight, 3600, d->n, now_s);
        return KT_OK;

    case 'm':
        kt_period_fixed(p, now_s - now_s % 3600, 60, d->n, now_s);
        return KT_OK;

    case 's':
        kt_period_fixed(p, now_s - now_s % 60, 1, d->n, now_s);
        return KT_OK;

    default:
        break;
    }

    p->kind = KT_PERIOD_MONTH;
    p->id = kt_month_start(now_s, 0);
    p->end_s = kt_month_start(now_s, 1);

    return KT_OK;
}


int
kt_period_roll(kt_period_t *p, int64_t now_s)
{
    if (p->kind == KT_PERIOD_NONE || now_s < p->end_s) {
        return 0;
    }

    if (p->kind == KT_PERIOD_MONTH) {
        p->id = kt_month_start(now_s, 0);
        p->end_s = kt_month_start(now_s, 1);
        return 1;
    }

    p->id = p->end_s + (now_s - p->end_s) / p->len_s * p->len_s;
    p->end_s = p->id + p->len_s;

    return 1;
}


const char *
kt_period_name(kt_period_kind_t kind)
{
    switch (kind) {
    case KT_PERIOD_FIXED: return "fixed";
    case KT_PERIOD_MONTH: return "month";
    default:              return "none";
    }
}
