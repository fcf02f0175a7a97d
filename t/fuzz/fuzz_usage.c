/*
 * kt_usage_merge(): counts stay in their range, a repeated object changes
 * nothing, and what is refused leaves no trace.  The first byte is the shape.
 */

#include "fuzz.h"
#include "kt_usage.h"


static void
in_range(const kt_usage_t *u)
{
    must(u->in_tok >= 0 && u->in_tok <= 4 * KT_USAGE_MAX);
    must(u->out_tok >= 0 && u->out_tok <= 2 * KT_USAGE_MAX);
    must(u->cr_tok >= 0 && u->cr_tok <= KT_USAGE_MAX);
    must(u->cw_tok >= 0 && u->cw_tok <= 2 * KT_USAGE_MAX);
    must(u->rs_tok >= 0 && u->rs_tok <= KT_USAGE_MAX);
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    kt_usage_t    u, v;
    kt_shape_t    shape;
    keytoll_rc_t  rc;

    if (len == 0) {
        return 0;
    }

    shape = (kt_shape_t) (p[0] & 3);

    memset(&u, 0, sizeof(u));
    memset(&v, 0, sizeof(v));

    rc = kt_usage_merge(&u, shape, p + 1, len - 1);
    must(rc == KT_OK || rc == KT_INVALID || rc == KT_RANGE);
    must(rc != KT_INVALID || memcmp(&u, &v, sizeof(u)) == 0);
    must(u.seen || (!u.has_in && !u.has_out));
    in_range(&u);

    v = u;
    must(kt_usage_merge(&u, shape, p + 1, len - 1) == rc);
    must(memcmp(&u, &v, sizeof(u)) == 0);

    return 0;
}
