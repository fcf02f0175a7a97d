#include <stdio.h>
#include <string.h>
#include "access.h"
#include "auth.h"
#include "db.h"
#include "idem.h"
#include "kt_money.h"
#include "log.h"
#include "route.h"
#include "tx.h"


int
route_check(void)
{
    const route_t   *t;
    const access_t  *a;

    for (t = routes; t->method; t++) {
        a = access_row(t->method, t->path);

        if (a == NULL || a->groups == 0 || a->scope == 0) {
            log_event(LOG_FATAL, "a route has no authorization row", "method",
                      t->method, "path", t->path, NULL);
            return -1;
        }
    }

    for (a = access_rows; a->method; a++) {
        for (t = routes; t->method; t++) {
            if (!strcmp(t->method, a->method) && !strcmp(t->path, a->path)) {
                break;
            }
        }

        if (t->method == NULL) {
            log_event(LOG_FATAL, "an authorization row protects no route", "method",
                      a->method, "path", a->path, NULL);
            return -1;
        }
    }

    return 0;
}


/* "{name}" takes one segment, a final "*" all the rest. */

static int
route_match(const route_t *t, req_t *r)
{
    int          i;
    size_t       n;
    const char  *p, *s;

    r->rest = NULL;
    memset(r->seg, 0, sizeof(r->seg));

    for (i = 0, p = t->path, s = r->path; *p; /* void */) {
        if (*p == '*') {
            r->rest = s;
            return *s != '\0';
        }

        if (*p == '{') {
            n = strcspn(s, "/");

            if (n == 0 || i == HTTP_SEGMENTS_MAX) {
                return 0;
            }

            r->seg[i++] = arena_dup(&r->a, s, n);
            p += strcspn(p, "}") + 1;
            s += n;
            continue;
        }

        if (*p++ != *s++) {
            return 0;
        }
    }

    return *s == '\0';
}


static int
route_body(req_t *r)
{
    const char  *err;

    if (r->body.len == 0) {
        fail_field(r, NULL, "missing", "Field required", NULL);
        return -1;
    }

    r->json = json_parse(&r->a, r->body.p, r->body.len, &err);

    if (r->json == NULL && strcmp(err, "not valid JSON") != 0) {
        fail_proxy(r, 400, "bad_request_error", "request_body", "%s", err);
        return -1;
    }

    if (r->json == NULL) {
        fail_field(r, NULL, "json_invalid", "JSON decode error",
                   json_obj(&r->a));
        return -1;
    }

    if (r->json->type != J_OBJ) {
        fail_field(r, NULL, "model_attributes_type", "Input should be a valid"
                   " dictionary or object to extract fields from", r->json);
        return -1;
    }

    return 0;
}


/* What only proxy admins may send, and the types of the rest. */

static int
route_fields(req_t *r, const route_t *t)
{
    return access_fields(r, t->body) != 0 ? -1 : fields_check(r, t->body);
}


static int
route_arg(req_t *r, const arg_t *a)
{
    int64_t      v;
    const char  *s;

    s = http_arg(r, a->name);

    if (s == NULL || (!*s && a->type != F_STR)) {
        if (a->flags & F_REQUIRED) {
            fail_arg(r, a->name, "missing", "Field required", s);
            return -1;
        }

        return 0;
    }

    switch (a->type) {

    case F_INT:
        if (kt_int_parse(s, strlen(s), &v) != KT_OK || v < 1) {
            fail_arg(r, a->name, "int_parsing", "Input should be a valid integer,"
                     " greater than or equal to 1", s);
            return -1;
        }
        return 0;

    case F_USD:
        if (kt_money_parse(s, strlen(s), KT_MONEY_USD, &v) != KT_OK) {
            fail_arg(r, a->name, "float_parsing", "Input should be a valid number",
                     s);
            return -1;
        }
        return 0;

    case F_BOOL:
        if (strcasecmp(s, "true") && strcasecmp(s, "false") && strcmp(s, "1")
            && strcmp(s, "0"))
        {
            fail_arg(r, a->name, "bool_parsing", "Input should be a valid boolean",
                     s);
            return -1;
        }
        return 0;

    default:
        return 0;
    }
}


static int
route_args(req_t *r, const route_t *t)
{
    const arg_t  *a;

    for (a = t->args; a && a->name; a++) {
        if (route_arg(r, a) != 0) {
            return -1;
        }
    }

    return 0;
}


/* A handler that answered without having asked whose object it is. */

static void
route_unscoped(req_t *r, const access_t *row)
{
    if (row->scope != SCOPE_OBJECT || r->scoped || access_admin(r)
        || r->status < 200 || r->status > 299)
    {
        return;
    }

    log_event(LOG_ERROR, "a handler did not check whose object it is", "method",
              r->method, "path", r->path, NULL);
    reply_reset(r);
    fail_proxy(r, 500, "internal_server_error", NULL, "Internal Server Error, the"
               " answer was held back because nobody checked who may see it");
}


/* Ready for the same request once more: as if nothing had been done about it. */

static int
route_again(req_t *r, const route_t *t, size_t nheaders)
{
    if (!r->collided || r->committed || r->status != 409) {
        return 0;
    }

    db_rollback();
    reply_reset(r);
    r->touched = NULL;
    r->touch_end = &r->touched;
    r->nheaders = nheaders;
    r->collided = r->matched = r->idem_claimed = 0;

    return t->body == NULL || (route_body(r) == 0 && route_fields(r, t) == 0);
}


/* Handlers read and fill in r->json: each try has its own. */

static void
route_handler(req_t *r, const route_t *t)
{
    int     i;
    size_t  nheaders;

    nheaders = r->nheaders;

    for (i = 1; i == 1 || (i <= TX_TRIES && route_again(r, t, nheaders)); i++) {
        r->scoped = 0;
        t->fn(r);
    }
}


static void
route_call(req_t *r, const route_t *t)
{
    const access_t  *row;

    row = access_row(t->method, t->path);

    if (t->err) {
        r->err_type = t->err;
    }

    if (row == NULL || (!(row->groups & G_PUBLIC) && auth_caller(r) != 0)) {
        return;                          /* no row: answered as a 500          */
    }

    if (t->body && r->body.len == 0 && t->optional) {
        buf_puts(&r->body, "{}");
    }

    if (t->body && r->body.len == 0 && !(row->groups & G_PUBLIC)) {
        r->json = json_obj(&r->a);       /* the gate comes first               */

        if (access_gate(r, row) == 0) {
            r->json = NULL;
            route_body(r);
        }

        return;
    }

    if (t->body && route_body(r) != 0) {
        return;
    }

    if (access_gate(r, row) != 0 || route_args(r, t) != 0
        || (t->body && route_fields(r, t) != 0))
    {
        return;
    }

    if (!(row->groups & G_READ) && idem_begin(r) != 0) {
        return;
    }

    route_handler(r, t);
    route_unscoped(r, row);
    idem_end(r);
}


void
route_run(req_t *r)
{
    int             other;
    const route_t  *t;

    other = 0;

    for (t = routes; t->method; t++) {
        if (!route_match(t, r)) {
            continue;
        }

        if (strcmp(t->method, r->method) == 0
            || (strcmp(r->method, "HEAD") == 0 && strcmp(t->method, "GET") == 0))
        {
            route_call(r, t);
            return;
        }

        other = 1;
    }

    if (other) {
        fail_detail(r, 405, "Method Not Allowed");
    } else {
        fail_detail(r, 404, "Not Found");
    }
}


static jv_t *
route_dump_fields(arena_t *a, const field_t *f)
{
    jv_t  *list, *o;

    list = json_arr(a);

    for (/* void */; f && f->name; f++) {
        o = json_obj(a);
        json_set(o, "name", json_string(a, f->name));
        json_set(o, "type", json_int(a, f->type));
        json_set(o, "admin", json_bool(a, (f->flags & F_ADMIN) != 0));
        json_set(o, "required", json_bool(a, (f->flags & F_REQUIRED) != 0));
        json_set(o, "values", json_string(a, f->values));
        json_push(list, o);
    }

    return list;
}


void
route_dump(void)
{
    jv_t            *o;
    arena_t          a;
    const route_t   *t;
    const access_t  *row;

    arena_init(&a);

    for (t = routes; t->method; t++) {
        row = access_row(t->method, t->path);
        o = json_obj(&a);
        json_set(o, "method", json_string(&a, t->method));
        json_set(o, "path", json_string(&a, t->path));
        json_set(o, "groups", json_int(&a, row ? row->groups : 0));
        json_set(o, "scope", json_int(&a, row ? row->scope : 0));
        json_set(o, "body", t->body ? route_dump_fields(&a, t->body)
                                    : json_null(&a));
        puts(json_text(&a, o));
    }

    arena_free(&a);
}
