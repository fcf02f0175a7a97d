/* Routes of LiteLLM's that have nothing behind them here: they say so. */

#include <string.h>
#include "api.h"


static const struct {
    const char  *prefix;
    const char  *why;
} absent[] = {
    { "/email/", "Keytoll sends no e-mail yet" },
    { "/team/", "logging callbacks of teams are not part of Keytoll: nginx' access log has"
                " the key, team and cost of every request" }
};


void
api_absent(req_t *r)
{
    size_t  i;

    for (i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
        if (strncmp(r->path, absent[i].prefix, strlen(absent[i].prefix)) == 0) {
            fail_detail_error(r, 501, "Not implemented: %s", absent[i].why);
            return;
        }
    }

    fail_detail_error(r, 501, "Not implemented");
}
