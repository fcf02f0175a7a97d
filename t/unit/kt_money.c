#include "kt_money.h"
#include "tap.h"


typedef struct {
    const char    *text;
    int            scale;
    keytoll_rc_t   rc;
    int64_t        value;
    const char    *shown;
} money_case_t;


static const money_case_t  cases[] = {
    { "0", 9, KT_OK, 0, "0.0" },
    { "-0", 9, KT_OK, 0, "0.0" },
    { "1", 9, KT_OK, 1000000000, "1.0" },
    { "1.5", 9, KT_OK, 1500000000, "1.5" },
    { "0.1", 9, KT_OK, 100000000, "0.1" },
    { "3.75e-05", 9, KT_OK, 37500, "0.0000375" },
    { "1e-9", 9, KT_OK, 1, "0.000000001" },
    { "5e-10", 9, KT_OK, 1, "0.000000001" },
    { "4.999e-10", 9, KT_OK, 0, "0.0" },
    { "0.0000000015", 9, KT_OK, 2, "0.000000002" },
    { "-0.0000000015", 9, KT_OK, -2, "-0.000000002" },
    { "-1", 9, KT_OK, -1000000000, "-1.0" },
    { "100", 9, KT_OK, 100000000000, "100.0" },
    { "1E2", 9, KT_OK, 100000000000, "100.0" },
    { "9223372036.854775807", 9, KT_OK, INT64_MAX, "9223372036.854775807" },
    { "9223372036.854775808", 9, KT_RANGE, 0, NULL },
    { "9223372036.8547758074", 9, KT_OK, INT64_MAX, NULL },
    { "9223372036.8547758075", 9, KT_RANGE, 0, NULL },
    { "1e400", 9, KT_RANGE, 0, NULL },
    { "0e400", 9, KT_OK, 0, "0.0" },
    { "1e-400", 9, KT_OK, 0, "0.0" },
    { "1e99999999999999999999", 9, KT_RANGE, 0, NULL },
    { "0.0000025", 12, KT_OK, 2500000, "0.0000025" },
    { "2.5e-06", 12, KT_OK, 2500000, "0.0000025" },
    { "1e-12", 12, KT_OK, 1, "0.000000000001" },
    { "2.5", 6, KT_OK, 2500000, "2.5" },
    { "", 9, KT_INVALID, 0, NULL },
    { "-", 9, KT_INVALID, 0, NULL },
    { "+1", 9, KT_INVALID, 0, NULL },
    { ".5", 9, KT_INVALID, 0, NULL },
    { "1.", 9, KT_INVALID, 0, NULL },
    { "01", 9, KT_INVALID, 0, NULL },
    { "1e", 9, KT_INVALID, 0, NULL },
    { "1e+", 9, KT_INVALID, 0, NULL },
    { "NaN", 9, KT_INVALID, 0, NULL },
    { "Infinity", 9, KT_INVALID, 0, NULL },
    { "1 ", 9, KT_INVALID, 0, NULL },
    { "0x1", 9, KT_INVALID, 0, NULL },
    { "1,5", 9, KT_INVALID, 0, NULL }
};


int
main(void)
{
    char                 text[KT_MONEY_TEXT];
    size_t               i, len;
    int64_t              v, back;
    keytoll_rc_t         rc;
    const money_case_t  *c;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        c = &cases[i];
        v = 0;
        rc = kt_money_parse(c->text, strlen(c->text), c->scale, &v);
        ok(rc == c->rc && v == c->value, "'%s' at scale %d", c->text, c->scale);

        if (c->shown) {
            len = kt_money_format(v, c->scale, text);
            is_mem(text, len, c->shown, "and its text");
        }
    }

    len = kt_money_format(INT64_MIN, 9, text);
    is_mem(text, len, "-9223372036.854775808", "the smallest amount has a text");

    for (i = 0, v = 1, rc = KT_OK; i < 62 && rc == KT_OK; i++, v *= 2) {
        len = kt_money_format(v + (int64_t) i, 9, text);
        rc = kt_money_parse(text, len, 9, &back);
        rc = back == v + (int64_t) i ? rc : KT_INVALID;
    }

    ok(rc == KT_OK, "text and value agree over 62 powers of two");
    ok(kt_int_parse("42", 2, &v) == KT_OK && v == 42, "an integer");
    ok(kt_int_parse("4.0", 3, &v) == KT_INVALID, "a fraction is no integer");
    ok(kt_int_parse("4e1", 3, &v) == KT_INVALID, "an exponent is no integer");
    ok(kt_int_parse("9223372036854775808", 19, &v) == KT_RANGE, "2^63 is too much");
    ok(kt_int_parse("-9", 2, &v) == KT_OK && v == -9, "a negative integer");

    return tap_done();
}
