/* Made of the route table, its bodies and arguments, and the authorization table. */

#include <ctype.h>
#include <string.h>
#include "access.h"
#include "api.h"
#include "openapi.h"


static const struct {
    unsigned     group;
    const char  *who;
} openapi_who[] = {
    { G_PUBLIC, "everybody" },
    { G_MASTER, "the master key" },
    { G_INFO, "every live key, for what it may see" },
    { G_KEY, "internal users" },
    { G_SPEND, "internal users and viewers, for their own spend" },
    { G_SPEND_USER, "internal users" },
    { G_SPEND_ALL, "internal user viewers" },
    { G_SELF, "users, for what they administer or belong to" },
    { G_ORG, "admins of the organization" },
    { G_READ, "proxy admin viewers" }
};


static jv_t *
openapi_type(arena_t *a, const char *name, int nullable)
{
    jv_t  *o, *list;

    o = json_obj(a);

    if (!nullable) {
        json_set(o, "type", json_string(a, name));
        return o;
    }

    list = json_arr(a);
    json_push(list, json_string(a, name));
    json_push(list, json_string(a, "null"));
    json_set(o, "type", list);

    return o;
}


static jv_t *
openapi_enum(arena_t *a, const char *values, int nullable)
{
    jv_t        *o, *list;
    size_t       n;
    const char  *p;

    o = openapi_type(a, "string", nullable);
    list = json_arr(a);

    for (p = values; *p; p += n + (p[n] == '|')) {
        n = strcspn(p, "|");
        json_push(list, json_string(a, arena_dup(a, p, n)));
    }

    if (nullable) {
        json_push(list, json_null(a));
    }

    json_set(o, "enum", list);

    return o;
}


static jv_t *
openapi_list(arena_t *a, const char *of, int nullable)
{
    jv_t  *o;

    o = openapi_type(a, "array", nullable);

    if (of) {
        json_set(o, "items", openapi_type(a, of, 0));
    }

    return o;
}


static jv_t *
openapi_schema(arena_t *a, ftype_t type, const char *values, int nullable)
{
    jv_t  *o;

    switch (type) {

    case F_STR:
        return openapi_type(a, "string", nullable);

    case F_NAME:
    case F_ID:
        o = openapi_type(a, "string", nullable);
        json_set(o, "maxLength", json_int(a, 255));

        if (type == F_ID) {
            json_set(o, "minLength", json_int(a, 1));
        }

        return o;

    case F_PERIOD:
    case F_EXPIRES:
        o = openapi_type(a, "string", nullable);
        json_set(o, "examples", json_raw(a, "[\"30d\",\"1mo\",\"12h\"]"));
        return o;

    case F_USD:
        o = openapi_type(a, "number", nullable);
        json_set(o, "minimum", json_int(a, 0));
        json_set(o, "description", json_string(a, "USD, exact to nine places"));
        return o;

    case F_NUM:
        return openapi_type(a, "number", nullable);

    case F_INT:
        o = openapi_type(a, "integer", nullable);
        json_set(o, "minimum", json_int(a, 0));
        return o;

    case F_BOOL:
        return openapi_type(a, "boolean", nullable);

    case F_STRS:
    case F_TAGS:
        return openapi_list(a, "string", nullable);

    case F_LIST:
        return openapi_list(a, NULL, nullable);

    case F_OBJ:
        return openapi_type(a, "object", nullable);

    case F_ENFORCE:
        return openapi_enum(a, "strict|last_call", nullable);

    case F_ENUM:
        return openapi_enum(a, values, nullable);

    default:
        return json_obj(a);
    }
}


static jv_t *
openapi_body(arena_t *a, const route_t *t)
{
    jv_t           *schema, *props, *req, *p, *o, *content;
    const field_t  *f;

    props = json_obj(a);
    req = json_arr(a);

    for (f = t->body; f->name; f++) {
        p = openapi_schema(a, f->type, f->values, !(f->flags & F_REQUIRED));

        if (f->flags & F_ADMIN) {
            json_set(p, "description", json_string(a, "Only proxy admins may set it"));
        }

        json_set(props, f->name, p);

        if (f->flags & F_REQUIRED) {
            json_push(req, json_string(a, f->name));
        }
    }

    schema = openapi_type(a, "object", 0);
    json_set(schema, "properties", props);

    if (req->n) {
        json_set(schema, "required", req);
    }

    o = json_obj(a);
    json_set(o, "schema", schema);
    content = json_obj(a);
    json_set(content, "application/json", o);
    o = json_obj(a);
    json_set(o, "required", json_bool(a, !t->optional));
    json_set(o, "content", content);

    return o;
}


static void
openapi_param(arena_t *a, jv_t *list, const char *name, const char *in,
    ftype_t type, int required)
{
    jv_t  *o, *s;

    s = openapi_schema(a, type, NULL, 0);

    if (type == F_INT) {
        json_set(s, "minimum", json_int(a, 1));
    }

    o = json_obj(a);
    json_set(o, "name", json_string(a, name));
    json_set(o, "in", json_string(a, in));
    json_set(o, "required", json_bool(a, required));
    json_set(o, "schema", s);
    json_push(list, o);
}


static jv_t *
openapi_params(arena_t *a, const route_t *t)
{
    jv_t         *list;
    const arg_t  *q;
    const char   *p;

    list = json_arr(a);

    for (p = strchr(t->path, '{'); p; p = strchr(p + 1, '{')) {
        openapi_param(a, list, arena_dup(a, p + 1, strcspn(p + 1, "}")), "path", F_STR,
                      1);
    }

    if (t->path[strlen(t->path) - 1] == '*') {
        openapi_param(a, list, "id", "path", F_STR, 1);
    }

    for (q = t->args; q && q->name; q++) {
        openapi_param(a, list, q->name, "query", q->type, (q->flags & F_REQUIRED) != 0);
    }

    return list;
}


static jv_t *
openapi_answer_schema(arena_t *a, const char *shape)
{
    jv_t        *o, *req, *props;
    size_t       n;
    const char  *p;

    if (strcmp(shape, "[]") == 0) {
        return openapi_list(a, NULL, 0);
    }

    if (strcmp(shape, "#") == 0) {
        return openapi_type(a, "integer", 0);
    }

    if (!*shape) {
        return json_obj(a);
    }

    o = openapi_type(a, "object", 0);
    req = json_arr(a);
    props = json_obj(a);

    for (p = shape; *p; p += n + (p[n] == ' ')) {
        n = strcspn(p, " ");
        json_push(req, json_string(a, arena_dup(a, p, n)));
        json_set(props, arena_dup(a, p, n), json_obj(a));
    }

    json_set(o, "required", req);
    json_set(o, "properties", props);

    return o;
}


static void
openapi_response(arena_t *a, jv_t *all, const char *status, const char *what,
    const char *type, jv_t *schema)
{
    jv_t  *o, *c, *m;

    m = json_obj(a);
    json_set(m, "schema", schema);
    c = json_obj(a);
    json_set(c, type, m);
    o = json_obj(a);
    json_set(o, "description", json_string(a, what));
    json_set(o, "content", c);
    json_set(all, status, o);
}


static jv_t *
openapi_ref(arena_t *a, const char *name)
{
    jv_t  *o;

    o = json_obj(a);
    json_set(o, "$ref", json_string(a, arena_printf(a, "#/components/schemas/%s", name)));

    return o;
}


static jv_t *
openapi_responses(arena_t *a, const route_t *t, const access_t *row)
{
    jv_t        *all;
    const char  *shape;

    all = json_obj(a);
    shape = openapi_shape(t);
    openapi_response(a, all, "200", "Done", strcmp(shape, "text") ? "application/json"
                     : strcmp(t->path, "/docs") ? "text/plain" : "text/html",
                     strcmp(shape, "text") ? openapi_answer_schema(a, shape)
                                           : openapi_type(a, "string", 0));

    if (!(row->groups & G_PUBLIC)) {
        openapi_response(a, all, "401", "No valid key, or the role may not call this",
                         "application/json", openapi_ref(a, "Error"));
        openapi_response(a, all, "403", "Not this object, or not this field",
                         "application/json", openapi_ref(a, "Error"));
    }

    openapi_response(a, all, "default", "What went wrong", "application/json",
                     openapi_ref(a, "Error"));

    return all;
}


const char *
openapi_callers(arena_t *a, const access_t *row)
{
    size_t  i;
    buf_t   b;

    buf_init(&b, a);
    buf_puts(&b, row->groups & (G_PUBLIC | G_MASTER) ? "" : "proxy admins");

    for (i = 0; i < sizeof(openapi_who) / sizeof(openapi_who[0]); i++) {
        if ((row->groups & openapi_who[i].group)
            && !((row->groups & G_PUBLIC) && openapi_who[i].group == G_READ))
        {
            buf_printf(&b, b.len ? "; %s" : "%s", openapi_who[i].who);
        }
    }

    return b.p;
}


const char *
openapi_tag(arena_t *a, const char *path)
{
    const char  *p;

    p = path + 1;

    if (p[0] == 'v' && isdigit((unsigned char) p[1]) && p[2] == '/') {
        p += 3;
    }

    return arena_dup(a, p, strcspn(p, "/"));
}


static jv_t *
openapi_operation(arena_t *a, const route_t *t, const access_t *row)
{
    jv_t  *o, *tags, *params;

    o = json_obj(a);
    tags = json_arr(a);
    json_push(tags, json_string(a, openapi_tag(a, t->path)));
    json_set(o, "tags", tags);
    json_set(o, "summary", json_string(a, t->what));
    json_set(o, "description", json_string(a, arena_printf(a, "Callers: %s.",
                                                           openapi_callers(a, row))));
    json_set(o, "operationId",
             json_string(a, arena_printf(a, "%s %s", t->method, t->path)));
    params = openapi_params(a, t);

    if (params->n) {
        json_set(o, "parameters", params);
    }

    if (t->body) {
        json_set(o, "requestBody", openapi_body(a, t));
    }

    if (row->groups & G_PUBLIC) {
        json_set(o, "security", json_arr(a));
    }

    json_set(o, "responses", openapi_responses(a, t, row));

    return o;
}


static const char *
openapi_method(arena_t *a, const char *method)
{
    char  *p, *s;

    s = arena_str(a, method);

    for (p = s; *p; p++) {
        *p = (char) tolower((unsigned char) *p);
    }

    return s;
}


static jv_t *
openapi_paths(arena_t *a)
{
    jv_t           *paths, *item;
    size_t          n;
    const char     *path;
    const route_t  *t;

    paths = json_obj(a);

    for (t = routes; t->method; t++) {
        n = strlen(t->path);
        path = t->path[n - 1] == '*' ? arena_printf(a, "%.*s{id}", (int) n - 1, t->path)
                                     : t->path;
        item = json_get(paths, path);

        if (item == NULL) {
            item = json_obj(a);
            json_set(paths, path, item);
        }

        json_set(item, openapi_method(a, t->method),
                 openapi_operation(a, t, access_row(t->method, t->path)));
    }

    return paths;
}


#define OPENAPI_COMPONENTS                                                    \
    "{\"securitySchemes\":{\"key\":{\"type\":\"http\",\"scheme\":\"bearer\","   \
    "\"description\":\"The master key or a virtual key\"}},\"schemas\":{"      \
    "\"Error\":{\"description\":\"One of LiteLLM's envelopes\",\"type\":"       \
    "\"object\",\"oneOf\":[{\"required\":[\"error\"],\"properties\":{\"error\":" \
    "{\"type\":\"object\",\"required\":[\"message\",\"type\",\"param\",\"code\"]," \
    "\"properties\":{\"message\":{\"type\":\"string\"},\"type\":{\"type\":"     \
    "[\"string\",\"null\"]},\"param\":{\"type\":[\"string\",\"null\"]},\"code\":" \
    "{\"type\":\"string\"}}}}},{\"required\":[\"detail\"]}]}}}"


void
api_openapi(req_t *r)
{
    jv_t  *o, *info, *security, *s;

    info = json_obj(&r->a);
    json_set(info, "title", json_string(&r->a, "Keytoll admin API"));
    json_set(info, "version", json_string(&r->a, "1"));
    json_set(info, "description", json_string(&r->a, "Virtual keys, users, teams,"
             " organizations, budgets and spend, wire compatible with the LiteLLM proxy."
             " Idempotency-Key works on every request that changes something; If-Match"
             " with an ETag guards updates."));
    s = json_obj(&r->a);
    json_set(s, "key", json_arr(&r->a));
    security = json_arr(&r->a);
    json_push(security, s);
    o = json_obj(&r->a);
    json_set(o, "openapi", json_string(&r->a, "3.1.0"));
    json_set(o, "info", info);
    json_set(o, "security", security);
    json_set(o, "paths", openapi_paths(&r->a));
    json_set(o, "components", json_raw(&r->a, OPENAPI_COMPONENTS));
    reply_json(r, 200, o);
}
