/* What the handlers of models share: who sees which, and the wire. */

#ifndef CTL_MODEL_H
#define CTL_MODEL_H

#include "fields.h"
#include "http.h"
#include "registry.h"


/* What a caller, or a team, may call. */
typedef struct {
    int          all;            /* every model                                */
    jv_t        *allowed;        /* names and patterns; NULL: every model      */
    jv_t        *member;         /* and within these, of a member of a team    */
    jv_t        *user;           /* of the user of a personal key              */
    jv_t        *org;            /* of the organization                        */
    jv_t        *aliases;        /* names of its own, by what they stand for   */
    int          own;            /* `allowed` is the key's own list            */
    const char  *team_id;        /* whose own models are seen                  */
    jv_t        *groups;         /* names in `allowed` that are groups: members */
    const char  *listed;         /* the list as it was given, as text[]        */
} model_view_t;


/* The caller's view; marks the request as scoped.  0, or -1 after answering. */
int model_view(req_t *r, model_view_t *v);

/* That of a team of his. */
int model_view_team(req_t *r, model_view_t *v, const char *team_id);

/* 1 unless one of the lists leaves the name out. */
int model_granted(const model_view_t *v, const char *name);

/* 1 unless the list of a member leaves the name out. */
int model_member(const model_view_t *v, const char *name);

/* What the model is called there; NULL: it is not seen. */
const char *model_seen(const model_view_t *v, const model_t *m);

/* The same where the lists of the user and of the organization have it, too. */
const char *model_usable(const model_view_t *v, const model_t *m);

/* model_name, litellm_params and model_info of the body.  0, or -1 after answering. */
int model_check_body(req_t *r, const char **name, jv_t **params, jv_t **info);

/* Copies params or info, secret values sealed.  NULL after answering. */
jv_t *model_seal(req_t *r, const jv_t *params, const char *id);

/*
 * litellm_params and model_info of the model `id` as the caller may see them: objects of
 * the request, to be changed freely.  Nobody sees a secret, nor user and password of an
 * address; who does not read everything sees what is listed as harmless.
 */
jv_t *model_params_shown(req_t *r, const jv_t *params, const char *id);
jv_t *model_info_shown(req_t *r, const jv_t *info, const char *id);

/*
 * 1 when `sent` is what is shown, to who reads everything, of the value `stored` of member
 * `key` of such an object: sent back, it changes nothing.
 */
int model_echoed(req_t *r, const jv_t *stored, const jv_t *sent, const char *id,
    const char *key);

/* The same of kt_model_json(), with sealed secrets for who reads everything.  May be NULL. */
jv_t *model_row_shown(req_t *r, const char *row, const char *id);

/* A text without user and password of the addresses in it. */
const char *model_url_shown(arena_t *a, const char *s);

/* What is set, and what it was: `params_were` and `info_was` are NULL for a new one. */
typedef struct {
    const char  *name;           /* a new public name, or NULL                 */
    const jv_t  *params;
    const jv_t  *info;
    const jv_t  *params_were;
    const jv_t  *info_was;
} model_grant_t;

/*
 * Whoever is no proxy admin makes his team's models of models that it may use anyway,
 * and leaves prices, limits, keys and addresses alone.  0, or -1 after answering 403.
 */
int model_grant(req_t *r, const char *team, const model_grant_t *g);

/* Prices and limits as columns; those that are not said are cleared. */
int model_prices(req_t *r, rowset_t *rs, const jv_t *params, const jv_t *info);


#endif
