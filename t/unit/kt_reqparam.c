/*
 * kt_reqparam: members of a body, and members of members.
 */

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
           && kt_reqparam((const unsigned char *) golden[i].body, len,
                          golden[i].name, strlen(golden[i].name))
              == golden[i].has,
           "%s %s %s", golden[i].body, golden[i].has ? "has" : "lacks",
           golden[i].name);
    }

    memset(name, 'n', sizeof(name));
    len = (size_t) snprintf(body, sizeof(body), "{\"%.64s\":1}", name);
    ok(kt_reqparam((unsigned char *) body, len, name, KT_REQPARAM_MAX) == 1,
       "the longest name");
    len = (size_t) snprintf(body, sizeof(body), "{\"%.65s\":1}", name);
    ok(kt_reqparam((unsigned char *) body, len, name, KT_REQPARAM_MAX) == 0,
       "one byte more is another");

    return tap_done();
}
