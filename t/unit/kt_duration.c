#include <stdlib.h>
#include <time.h>
#include "kt_duration.h"
#include "tap.h"


static int64_t
at(const char *iso)
{
    struct tm  tm;

    memset(&tm, 0, sizeof(tm));

    if (sscanf(iso, "%d-%d-%d %d:%d:%d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
               &tm.tm_hour, &tm.tm_min, &tm.tm_sec) != 6)
    {
        abort();
    }

    tm.tm_year -= 1900;
    tm.tm_mon--;

    return timegm(&tm);
}


static void
parse(const char *text, keytoll_rc_t rc, int64_t n, char unit)
{
    keytoll_rc_t   got;
    kt_duration_t  d = { 0, 0 };

    got = kt_duration_parse(text, strlen(text), &d);
    ok(got == rc && (rc != KT_OK || (d.n == n && d.unit == unit)), "'%s'", text);
}


static void
period(const char *text, const char *now, const char *start, const char *end)
{
    kt_period_t    p;
    kt_duration_t  d;

    kt_duration_parse(text, strlen(text), &d);
    ok(kt_period_start(&d, at(now), &p) == KT_OK && p.id == at(start)
       && p.end_s == at(end), "%s at %s is %s to %s", text, now, start, end);
}


static void
add(const char *text, const char *now, const char *then)
{
    kt_duration_t  d;

    kt_duration_parse(text, strlen(text), &d);
    is_int(kt_duration_add(&d, at(now)), at(then), text);
}


static void
roll(const char *text, const char *now, const char *later)
{
    kt_period_t    p, q;
    kt_duration_t  d;

    kt_duration_parse(text, strlen(text), &d);
    kt_period_start(&d, at(now), &p);
    q = p;
    ok(!kt_period_roll(&q, p.end_s - 1) && q.id == p.id, "%s: not before its end", text);
    ok(kt_period_roll(&q, p.end_s) && q.id == p.end_s, "%s: at its end", text);
    q = p;
    kt_period_roll(&q, at(later));
    ok(q.id <= at(later) && q.end_s > at(later), "%s: much later it holds that time", text);
}


int
main(void)
{
    kt_period_t    p;
    kt_duration_t  d;

    parse("30s", KT_OK, 30, 's');
    parse("30m", KT_OK, 30, 'm');
    parse("12h", KT_OK, 12, 'h');
    parse("7d", KT_OK, 7, 'd');
    parse("2w", KT_OK, 2, 'w');
    parse("1mo", KT_OK, 1, 'M');
    parse("1month", KT_OK, 1, 'M');
    parse("24hr", KT_OK, 24, 'h');
    parse("10", KT_NOTFOUND, 0, 0);
    parse("10x", KT_NOTFOUND, 0, 0);
    parse("", KT_INVALID, 0, 0);
    parse("d", KT_INVALID, 0, 0);
    parse("-1d", KT_INVALID, 0, 0);
    parse("999999999999999999999d", KT_RANGE, 0, 0);
    parse("99999d", KT_RANGE, 0, 0);

    add("30s", "2026-11-21 10:00:00", "2026-11-21 10:00:30");
    add("1d", "2026-02-28 10:00:00", "2026-03-01 10:00:00");
    add("1w", "2026-02-28 10:00:00", "2026-03-07 10:00:00");
    add("1mo", "2026-01-31 10:00:00", "2026-02-28 10:00:00");
    add("1mo", "2028-01-31 10:00:00", "2028-02-29 10:00:00");
    add("1mo", "2026-12-15 23:59:59", "2027-01-15 23:59:59");
    add("14mo", "2026-12-31 00:00:00", "2028-02-29 00:00:00");

    period("1d", "2026-11-21 10:11:12", "2026-11-21 00:00:00", "2026-11-22 00:00:00");
    period("24h", "2026-11-21 10:11:12", "2026-11-21 00:00:00", "2026-11-22 00:00:00");
    period("7d", "2026-11-21 10:11:12", "2026-11-16 00:00:00", "2026-11-23 00:00:00");
    period("7d", "2026-11-23 00:00:00", "2026-11-23 00:00:00", "2026-11-30 00:00:00");
    period("1w", "2026-11-22 23:59:59", "2026-11-16 00:00:00", "2026-11-23 00:00:00");
    period("30d", "2026-11-21 10:11:12", "2026-11-01 00:00:00", "2026-12-01 00:00:00");
    period("1mo", "2026-12-31 23:59:59", "2026-12-01 00:00:00", "2027-01-01 00:00:00");
    period("1mo", "2028-02-29 12:00:00", "2028-02-01 00:00:00", "2028-03-01 00:00:00");
    period("3d", "2026-11-21 10:11:12", "2026-11-21 00:00:00", "2026-11-24 00:00:00");
    period("12h", "2026-11-21 10:11:12", "2026-11-21 00:00:00", "2026-11-21 12:00:00");
    period("5h", "2026-11-21 23:11:12", "2026-11-21 20:00:00", "2026-11-22 01:00:00");
    period("15m", "2026-11-21 10:14:59", "2026-11-21 10:00:00", "2026-11-21 10:15:00");
    period("15m", "2026-11-21 10:15:00", "2026-11-21 10:15:00", "2026-11-21 10:30:00");
    period("30s", "2026-11-21 10:14:29", "2026-11-21 10:14:00", "2026-11-21 10:14:30");
    period("90m", "2026-11-21 10:14:29", "2026-11-21 10:00:00", "2026-11-21 11:30:00");

    roll("1d", "2026-11-21 10:11:12", "2027-11-21 10:11:12");
    roll("7d", "2026-11-21 10:11:12", "2027-11-21 10:11:12");
    roll("30d", "2026-11-21 10:11:12", "2027-03-31 23:59:59");
    roll("30s", "2026-11-21 10:11:12", "2026-11-21 10:13:12");

    kt_duration_parse("0d", 2, &d);
    is_int(kt_period_start(&d, 0, &p), KT_INVALID, "no period of length zero");
    kt_duration_parse("2mo", 3, &d);
    is_int(kt_period_start(&d, 0, &p), KT_INVALID, "no period of two months");
    p.kind = KT_PERIOD_NONE;
    is_int(kt_period_roll(&p, 1), 0, "a period without end never moves");
    is_int(kt_month_start(at("2026-01-31 05:00:00"), -1), at("2025-12-01 00:00:00"),
           "the month before January");

    return tap_done();
}
