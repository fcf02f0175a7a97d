#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "db.h"
#include "fields.h"
#include "kt_duration.h"
#include "kt_money.h"
#include "util.h"


#define FIELD_TEXT_MAX  65536


static const char *
field_text(req_t *r, const char *name, const jv_t *v)
{
    if (v->type != J_STR) {
        fail_field(r, name, "string_type", "Input should be a valid string", v);
        return NULL;
    }

    if (v->len > FIELD_TEXT_MAX) {
        fail_proxy(r, 400, "bad_request_error", name, "%s is too long", name);
        return NULL;
    }

    return v->s;
}


static const char *
field_name(req_t *r, const char *name, const jv_t *v)
{
    const char  *s;

    s = field_text(r, name, v);

    if (s && *s && !util_id_ok(s)) {
        fail_proxy(r, 400, "bad_request_error", name, "%s must be at most 255 bytes"
                   " without control characters", name);
        return NULL;
    }

    return s;
}


static const char *
field_id(req_t *r, const char *name, const jv_t *v)
{
    const char  *s;

    s = field_text(r, name, v);

    if (s && !util_id_ok(s)) {
        fail_proxy(r, 400, "bad_request_error", name, "%s must be 1 to 255 bytes"
                   " without control characters", name);
        return NULL;
    }

    return s;
}


static int
field_usd_value(req_t *r, const char *name, const jv_t *v, int64_t *out)
{
    keytoll_rc_t  rc;

    if (json_is_null(v) || (v->type == J_STR && v->len == 0)) {
        return 0;
    }

    if (v->type != J_NUM && v->type != J_STR) {
        fail_field(r, name, "float_type", "Input should be a valid number", v);
        return -1;
    }

    rc = kt_money_parse(v->s, v->len, KT_MONEY_USD, out);

    if (rc == KT_INVALID) {
        fail_field(r, name, "float_parsing", "Input should be a valid number,"
                   " unable to parse string as a number", v);
        return -1;
    }

    if (rc == KT_RANGE) {
        fail_repr(r, 400, "%s is out of range. Received: %.40s", name, v->s);
        return -1;
    }

    if (v->s[0] == '-' && *out <= 0 && strspn(v->s, "-0.") != v->len) {
        fail_repr(r, 400, "%s cannot be negative. Received: %s", name,
                  *out ? py_float(&r->a, *out) : v->s);
        return -1;
    }

    return 1;
}


static int
field_int_value(req_t *r, const char *name, const jv_t *v, int64_t *out)
{
    int64_t  milli;

    if (json_is_null(v) || (v->type == J_STR && v->len == 0)) {
        return 0;
    }

    if ((v->type != J_NUM && v->type != J_STR)) {
        fail_field(r, name, "int_type", "Input should be a valid integer", v);
        return -1;
    }

    if (kt_int_parse(v->s, v->len, out) != KT_OK) {

        /* 5.0 and 5e2 are integers to the clients that send them */

        if (kt_money_parse(v->s, v->len, 3, &milli) != KT_OK) {
            fail_field(r, name, "int_parsing", "Input should be a valid integer,"
                       " unable to parse string as an integer", v);
            return -1;
        }

        if (milli % 1000) {
            fail_field(r, name, "int_from_float", "Input should be a valid"
                       " integer, got a number with a fractional part", v);
            return -1;
        }

        *out = milli / 1000;
    }

    if (*out < 0) {
        fail_repr(r, 400, "%s cannot be negative. Received: %" PRId64, name,
                  *out);
        return -1;
    }

    return 1;
}


int
field_usd(req_t *r, const char *name, int64_t *v)
{
    return field_usd_value(r, name, json_get(r->json, name), v);
}


int
field_int(req_t *r, const char *name, int64_t *v)
{
    return field_int_value(r, name, json_get(r->json, name), v);
}


const char *
field_body_id(req_t *r, const char *name)
{
    const jv_t  *v;

    v = json_get(r->json, name);

    if (json_is_null(v)) {
        fail_field(r, name, "missing", "Field required", r->json);
        return NULL;
    }

    if (v->type != J_STR || !util_id_ok(v->s)) {
        fail_field(r, name, "string_type", "Input should be a valid string of 1 to 255"
                   " bytes", v);
        return NULL;
    }

    return v->s;
}


static int
field_bool_value(req_t *r, const char *name, const jv_t *v, int *out)
{
    if (v->type == J_TRUE || v->type == J_FALSE) {
        *out = v->type == J_TRUE;
        return 1;
    }

    if (v->type == J_STR && (!strcmp(v->s, "true") || !strcmp(v->s, "false"))) {
        *out = v->s[0] == 't';
        return 1;
    }

    fail_field(r, name, "bool_type", "Input should be a valid boolean", v);

    return -1;
}


int
field_bool(req_t *r, const char *name, int *v)
{
    const jv_t  *j;

    j = json_get(r->json, name);

    return json_is_null(j) ? 0 : field_bool_value(r, name, j, v);
}


const char *
field_strs_value(req_t *r, const char *name, const jv_t *v)
{
    size_t        i;
    const jv_t   *c;
    const char  **items;

    if (v->type != J_ARR) {
        fail_field(r, name, "list_type", "Input should be a valid list", v);
        return NULL;
    }

    items = arena_alloc(&r->a, (v->n + 1) * sizeof(char *));

    for (i = 0, c = v->head; c; c = c->next) {
        items[i] = field_id(r, name, c);

        if (items[i++] == NULL) {
            return NULL;
        }
    }

    return db_array(&r->a, items, i);
}


int
field_strs(req_t *r, const char *name, const char **v)
{
    const jv_t  *j;

    *v = NULL;
    j = json_get(r->json, name);

    if (json_is_null(j)) {
        return 0;
    }

    *v = field_strs_value(r, name, j);

    return *v ? 1 : -1;
}


static int
field_duration(req_t *r, const char *name, const char *text, kt_duration_t *d)
{
    switch (kt_duration_parse(text, strlen(text), d)) {

    case KT_OK:
        return 0;

    case KT_NOTFOUND:
        fail_repr(r, 400, "Unsupported duration unit, passed duration: %s", text);
        return -1;

    case KT_RANGE:
        fail_repr(r, 400, "%s is out of range: %s", name, text);
        return -1;

    default:
        fail_repr(r, 400, "Invalid duration format: %s", text);
        return -1;
    }
}


int
field_period(req_t *r, rowset_t *rs, const char *name, const char *text,
    int create)
{
    kt_period_t    p;
    kt_duration_t  d;

    memset(&p, 0, sizeof(p));

    if (text) {
        if (field_duration(r, name, text, &d) != 0) {
            return -1;
        }

        if (kt_period_start(&d, util_now_s(), &p) != KT_OK) {
            fail_repr(r, 400, "Unsupported %s: %s", name, text);
            return -1;
        }
    }

    row_set(rs, "budget_duration", "text", text);
    row_set(rs, "period_kind", "text", kt_period_name(p.kind));
    row_set(rs, "period_len_s", "bigint", arena_printf(&r->a, "%" PRId64, p.len_s));
    row_set(rs, "period_end_s", "bigint", arena_printf(&r->a, "%" PRId64, p.end_s));

    if (create) {
        row_set(rs, "period_id", "bigint", arena_printf(&r->a, "%" PRId64, p.id));

    } else {
        /* a new rule never empties the period that is running */
        row_expr(rs, "period_id", "kt_period_id(period_kind, period_len_s,"
                 " period_id, period_end_s, kt_now_s())");
    }

    return 0;
}


static int
field_expires(req_t *r, rowset_t *rs, const field_t *f, const jv_t *v, int create)
{
    time_t          at;
    struct tm       tm;
    const char     *s;
    kt_duration_t   d;

    s = json_is_null(v) ? NULL : field_text(r, f->name, v);

    if (r->status) {
        return -1;
    }

    if (s == NULL || strcmp(s, "-1") == 0) {
        if (!create) {
            row_set(rs, "expires", "timestamptz", NULL);
        }

        return 0;
    }

    if (field_duration(r, f->name, s, &d) != 0) {
        return -1;
    }

    at = (time_t) kt_duration_add(&d, util_now_s());
    gmtime_r(&at, &tm);
    row_set(rs, "expires", "timestamptz",
            arena_printf(&r->a, "%04d-%02d-%02d %02d:%02d:%02d+00",
                         tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
                         tm.tm_hour, tm.tm_min, tm.tm_sec));

    return 0;
}


static int
field_enforce(req_t *r, rowset_t *rs, const field_t *f, const jv_t *v)
{
    if (json_is_null(v)) {
        row_set(rs, f->col, "text", NULL);
        return 0;
    }

    if (v->type != J_STR || (strcmp(v->s, "strict") && strcmp(v->s, "last_call"))) {
        fail_field(r, f->name, "enum", "Input should be 'strict' or 'last_call'",
                   v);
        return -1;
    }

    row_set(rs, f->col, "text", v->s);

    return 0;
}


static int
field_json(req_t *r, rowset_t *rs, const field_t *f, const jv_t *v)
{
    if (f->type == F_OBJ && v->type != J_OBJ) {
        fail_field(r, f->name, "dict_type", "Input should be a valid dictionary",
                   v);
        return -1;
    }

    if (f->type == F_LIST && v->type != J_ARR) {
        fail_field(r, f->name, "list_type", "Input should be a valid list", v);
        return -1;
    }

    row_set(rs, f->col, "jsonb", json_text(&r->a, v));

    return 0;
}


static int
field_moved(req_t *r, rowset_t *rs, const field_t *f, const jv_t *v, int create)
{
    jv_t  **o;

    if (create && json_is_null(v)) {
        return 0;
    }

    o = f->type == F_EXTRA ? &rs->extra : &rs->meta;

    if (*o == NULL) {
        *o = json_obj(&r->a);
    }

    json_set(*o, f->name, json_copy(&r->a, v));

    return 0;
}


static int
field_enum(req_t *r, rowset_t *rs, const field_t *f, const jv_t *v)
{
    size_t       n;
    buf_t        msg;
    const char  *p;

    buf_init(&msg, &r->a);
    buf_puts(&msg, "Input should be ");

    for (p = f->values; *p; p += n + (p[n] == '|')) {
        n = strcspn(p, "|");

        if (v->type == J_STR && v->len == n && memcmp(v->s, p, n) == 0) {
            row_set(rs, f->col, "text", v->s);
            return 0;
        }

        buf_printf(&msg, p == f->values ? "'%.*s'" : p[n] ? ", '%.*s'"
                                                          : " or '%.*s'",
                   (int) n, p);
    }

    fail_field(r, f->name, "enum", msg.p, v);

    return -1;
}


static int
field_num(req_t *r, const field_t *f, const jv_t *v)
{
    int64_t  n;

    if (v->type == J_NUM
        || (v->type == J_STR
            && kt_money_parse(v->s, v->len, KT_MONEY_USD, &n) == KT_OK))
    {
        return 0;
    }

    fail_field(r, f->name, "float_type", "Input should be a valid number", v);

    return -1;
}


static int
field_one(req_t *r, rowset_t *rs, const field_t *f, const jv_t *v, int create)
{
    int          b, rc;
    int64_t      n;
    const char  *s;

    switch (f->type) {

    case F_TAGS:
        if (!json_is_null(v) && field_strs_value(r, f->name, v) == NULL) {
            return -1;
        }

        return field_moved(r, rs, f, v, create);

    case F_META:
    case F_EXTRA:
        return field_moved(r, rs, f, v, create);

    case F_EXPIRES:
        return field_expires(r, rs, f, v, create);

    case F_ENFORCE:
        return field_enforce(r, rs, f, v);

    case F_PERIOD:
        s = json_is_null(v) ? NULL : field_text(r, f->name, v);
        return r->status ? -1 : field_period(r, rs, f->name, s, create);

    default:
        break;
    }

    if (json_is_null(v)) {
        if (!create && (f->flags & F_NOTNULL)) {
            row_expr(rs, f->col, "DEFAULT");
        } else if (!create) {
            row_expr(rs, f->col, "NULL");
        }

        return 0;
    }

    switch (f->type) {

    case F_STR:
    case F_NAME:
    case F_ID:
        s = f->type == F_ID ? field_id(r, f->name, v)
            : f->type == F_NAME ? field_name(r, f->name, v)
                                : field_text(r, f->name, v);
        row_set(rs, f->col, "text", s);
        return s ? 0 : -1;

    case F_USD:
    case F_INT:
        rc = f->type == F_USD ? field_usd_value(r, f->name, v, &n)
                              : field_int_value(r, f->name, v, &n);
        if (rc > 0) {
            row_set(rs, f->col, "bigint", arena_printf(&r->a, "%" PRId64, n));
        } else if (rc == 0 && !create) {
            row_expr(rs, f->col, "NULL");
        }
        return rc < 0 ? -1 : 0;

    case F_BOOL:
        b = 0;
        rc = field_bool_value(r, f->name, v, &b);
        row_set(rs, f->col, "boolean", b ? "true" : "false");
        return rc < 0 ? -1 : 0;

    case F_STRS:
        s = field_strs_value(r, f->name, v);
        row_set(rs, f->col, "text[]", s);
        return s ? 0 : -1;

    case F_ENUM:
        return field_enum(r, rs, f, v);

    case F_NUM:
        return field_num(r, f, v);

    case F_ANY:
        return 0;

    default:
        return field_json(r, rs, f, v);
    }
}


/* Fields that fields_read() puts somewhere although they name no column. */

static int
field_is_column(const field_t *f)
{
    switch (f->type) {

    case F_META:
    case F_TAGS:
    case F_EXTRA:
    case F_PERIOD:
        return 1;

    default:
        return f->col != NULL;
    }
}


static int
field_is_empty(const jv_t *v)
{
    return json_is_null(v) || v->type == J_FALSE || (v->type == J_STR && v->len == 0)
           || ((v->type == J_ARR || v->type == J_OBJ) && v->n == 0);
}


/* What would do nothing is not taken as if it did. */

static int
field_refused(req_t *r, const field_t *f, const jv_t *v)
{
    size_t       n;
    const char  *p, *name;

    if (!(f->flags & F_REFUSED)) {
        return 0;
    }

    if (f->values == NULL && !field_is_empty(v)) {
        fail_proxy(r, 400, "bad_request_error", f->name, "%s is not supported: it would have"
                   " no effect", f->name);
        return -1;
    }

    for (p = f->values; p && *p; p += n + (p[n] == '|')) {
        n = strcspn(p, "|");
        name = arena_dup(&r->a, p, n);

        if (!field_is_empty(json_get(v, name))) {
            fail_proxy(r, 400, "bad_request_error", f->name, "%s.%s is not supported: it"
                       " would have no effect", f->name, name);
            return -1;
        }
    }

    return 0;
}


int
fields_check(req_t *r, const field_t *table)
{
    jv_t           *v;
    rowset_t        rs;
    const field_t  *f;

    for (f = table; f->name; f++) {
        v = json_get(r->json, f->name);

        if (json_is_null(v)) {
            if (f->flags & F_REQUIRED) {
                fail_field(r, f->name, "missing", "Field required", r->json);
                return -1;
            }

            continue;
        }

        memset(&rs, 0, sizeof(rs));

        if (field_refused(r, f, v) != 0 || field_one(r, &rs, f, v, 1) != 0) {
            return -1;
        }
    }

    return fields_check_metadata(r, table);
}


int
fields_read(req_t *r, const field_t *table, rowset_t *rs, int create)
{
    const jv_t     *v;
    const field_t  *f;

    for (f = table; f->name; f++) {
        v = field_is_column(f) ? json_get(r->json, f->name) : NULL;

        if (v && field_one(r, rs, f, v, create) != 0) {
            return -1;
        }
    }

    return 0;
}
