/* The document of the admin API at /openapi.json, and for people at /docs. */

#ifndef CTL_OPENAPI_H
#define CTL_OPENAPI_H

#include "access.h"
#include "route.h"


/*
 * What a route answers with 200: "[]" an array, "#" an integer, "text", "" anything,
 * or the names that its object always has.
 */
const char *openapi_shape(const route_t *t);

/* Who may call, in words. */
const char *openapi_callers(arena_t *a, const access_t *row);

/* "/key/info" belongs to "key", "/v2/user/info" to "user". */
const char *openapi_tag(arena_t *a, const char *path);

void api_openapi(req_t *r);
void api_docs(req_t *r);


#endif
