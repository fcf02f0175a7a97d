/*
 * kt_multipart: any bytes.  What it accepts has its model where it says, and
 * stays what it is when a part is put in front; kt_route: any path.
 */

#include "fuzz.h"
#include "kt_multipart.h"
#include "kt_route.h"


static void
accepted(const uint8_t *p, size_t len, const kt_reqscan_t *r)
{
    size_t         n;
    uint8_t       *copy;
    kt_reqscan_t   again;

    static const char  part[] =
        "--b\r\nContent-Disposition: form-data; name=\"kt\"\r\n\r\nx\r\n";

    must(r->model_len < KT_REQ_TEXT && r->n >= 1 && r->n <= KT_REQ_MAXN);
    must(r->model_span.off <= len
         && r->model_span.len <= len - r->model_span.off);
    must(r->model_span.len == r->model_len
         && memcmp(p + r->model_span.off, r->model, r->model_len) == 0);
    must(r->file_bytes >= 0 && (size_t) r->file_bytes <= len);

    n = sizeof(part) - 1;
    copy = malloc(len + n);
    must(copy != NULL);
    memcpy(copy, part, n);
    memcpy(copy + n, p, len);

    must(kt_multipart(copy, len + n, "b", 1, &again) == KT_OK);
    must(again.model_len == r->model_len && again.n == r->n
         && again.file_bytes == r->file_bytes);

    free(copy);
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    char          boundary[KT_BOUNDARY_MAX];
    size_t        n;
    kt_type_t     type;
    kt_route_t    route;
    kt_reqscan_t  r;
    keytoll_rc_t  rc;

    rc = kt_multipart(p, len, "b", 1, &r);
    must((rc == KT_OK) == (r.err == NULL) && r.err_off <= len);

    if (rc == KT_OK) {
        accepted(p, len, &r);
    }

    type = kt_content_type((const char *) p, len, boundary, &n);
    must(n <= KT_BOUNDARY_MAX && (type != KT_TYPE_MULTIPART || n > 0));

    kt_route_find((const char *) p, len, len & 1, &route);
    must(route.model.off <= len && route.model.len <= len - route.model.off);
    must(kt_route_name(route.class)[0] != '\0');
    must(route.class != KT_ROUTE_MESSAGES
         || kt_route_anthropic((const char *) p, len));

    return 0;
}
