/*
 * kt_money: any text.  What parses prints to a text that parses to the same
 * value, and never to a float; integers agree with the money of scale 0.
 */

#include "fuzz.h"
#include "kt_money.h"


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    int           i;
    char          text[KT_MONEY_TEXT];
    size_t        n;
    int64_t       v, again;
    keytoll_rc_t  rc;

    static const int  scales[] = { KT_MONEY_USD, KT_MONEY_CREDIT,
                                   KT_MONEY_PICO };

    for (i = 0; i < 3; i++) {
        rc = kt_money_parse((const char *) p, len, scales[i], &v);
        must(rc == KT_OK || rc == KT_INVALID || rc == KT_RANGE);

        if (rc != KT_OK) {
            continue;
        }

        n = kt_money_format(v, scales[i], text);
        must(n < sizeof(text) && strlen(text) == n);
        must(strpbrk(text, "eEnN+") == NULL);
        must(kt_money_parse(text, n, scales[i], &again) == KT_OK);
        must(again == v);
    }

    if (kt_int_parse((const char *) p, len, &v) == KT_OK) {
        must(kt_money_parse((const char *) p, len, 0, &again) == KT_OK);
        must(again == v);
    }

    return 0;
}
