/*
 * kt_reqparam: members of a body, and members of members.
 */

#include <stdarg.h>
#include <string.h>

#include "kt_reqparam.h"
#include "kt_reqscan.h"
#include "tap.h"


static const struct {
    const char  *body;
    const char  *name;
    int          has;
} golden[] = {
    { "{\"a\":1}", "a", 1 },
    { " { \"a\" : null , \"b\" : [ 1 , { \"c\" : 2 } ] } ", "b", 1 },
    { "{\"a\":1}", "b", 0 },
    { "{}", "a", 0 },
    { "{\"a\":{\"b\":1}}", "b", 0 },
    { "{\"x\":{\"a\":1},\"y\":[{\"a\":1}],\"z\":\"\\\"a\\\":\"}", "a", 0 },
    { "{\"x\":\"}\",\"y\":[\"]\",{\"q\":\"{\"}],\"a\":0}", "a", 1 },
    { "{\"\\u0061\":1}", "a", 1 },
    { "{\"A\":1}", "a", 0 },
    { "{\"aa\":1,\"\":2}", "a", 0 },
    { "{\"m\":{\"j\":false}}", "m.j", 1 },
    { "{\"m\":{\"k\":{\"j\":1}}}", "m.j", 0 },
    { "{\"m\":[{\"j\":1}]}", "m.j", 0 },
    { "{\"m\":\"j\"}", "m.j", 0 },
    { "{\"m.j\":1}", "m.j", 0 },
    { "{\"m\":{},\"j\":1}", "m.j", 0 },
    { "{\"a\":-1.5e3,\"b\":true}", "b", 1 }
};


static int
has(const char *body, size_t len, const char *name, size_t nlen)
{
    kt_reqparam_t  param = { name, nlen, 0, 0 };

    return kt_reqparams((const unsigned char *) body, len, &param, 1) == 1;
}


/* Several names at once: the first that is missing. */

static void
several(const char *body, size_t missing, size_t n, ...)
{
    size_t         i;
    va_list        ap;
    kt_reqparam_t  param[8];

    va_start(ap, n);

    for (i = 0; i < n; i++) {
        param[i].name = va_arg(ap, const char *);
        param[i].len = strlen(param[i].name);
    }

    va_end(ap);
    ok(kt_reqparams((const unsigned char *) body, strlen(body), param, n)
       == missing, "%s: %zu of %zu", body, missing, n);
}


int
main(void)
{
    char          body[256], name[96];
    size_t        i, len;
    kt_reqscan_t  scan;

    for (i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
        len = strlen(golden[i].body);
        ok(kt_reqscan((const unsigned char *) golden[i].body, len, &scan)
           == KT_OK
           && has(golden[i].body, len, golden[i].name,
                  strlen(golden[i].name))
              == golden[i].has,
           "%s %s %s", golden[i].body, golden[i].has ? "has" : "lacks",
           golden[i].name);
    }

    memset(name, 'n', sizeof(name));
    len = (size_t) snprintf(body, sizeof(body), "{\"%.64s\":1}", name);
    ok(has(body, len, name, KT_REQPARAM_MAX) == 1,
       "the longest name");
    len = (size_t) snprintf(body, sizeof(body), "{\"%.65s\":1}", name);
    ok(has(body, len, name, KT_REQPARAM_MAX) == 0,
       "one byte more is another");

    several("{\"a\":1,\"b\":2,\"m\":{\"x\":1,\"y\":[{\"z\":1}]}}", 4, 4, "m.y",
            "a", "m.x", "b");
    several("{\"a\":1,\"m\":{\"x\":1,\"z\":2}}", 1, 3, "m.z", "m.y", "b");
    several("{\"a\":1,\"m\":{\"x\":1},\"m\":{\"y\":1}}", 3, 3, "m.x", "m.y", "a");
    several("{\"m\":{\"m\":{\"m\":1}}}", 2, 3, "m", "m.m", "m.x");
    several("{\"a\":1,\"a\":2}", 2, 2, "a", "a");
    several("{}", 0, 1, "a");
    several("{}", 0, 0, "a");

    return tap_done();
}
