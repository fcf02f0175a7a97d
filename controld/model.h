/* What the handlers of models share: who sees which, and the wire. */

#ifndef CTL_MODEL_H
#define CTL_MODEL_H

#include "http.h"
#include "registry.h"


/* What a caller, or a team, may call. */
typedef struct {
    int          all;            /* every model                                */
    jv_t        *allowed;        /* names and patterns; NULL: every model      */
    jv_t        *aliases;        /* names of its own, by what they stand for   */
    const char  *team_id;        /* whose own models are seen                  */
    jv_t        *groups;         /* names in `allowed` that are groups: members */
    const char  *listed;         /* the list as it was given, as text[]        */
} model_view_t;


/* The caller's view; marks the request as scoped.  0, or -1 after answering. */
int model_view(req_t *r, model_view_t *v);

/* That of a team of his. */
int model_view_team(req_t *r, model_view_t *v, const char *team_id);

/* What the model is called there; NULL: it is not seen. */
const char *model_seen(const model_view_t *v, const model_t *m);


#endif
