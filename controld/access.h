/*
 * Who may do what.  auth.c finds out who calls (r->who); the gate here decides by
 * role and group of routes whether the handler runs at all (litellm-api 0.5); the
 * handler then asks access_*() about the object it was given.  A handler of a route
 * with scope OBJECT that answers 2xx, or commits, without having asked is stopped.
 */

#ifndef CTL_ACCESS_H
#define CTL_ACCESS_H

#include "fields.h"
#include "http.h"


/* Groups of routes, as roles and the allowed_routes of a key name them. */

#define G_PUBLIC       0x0001    /* nobody is asked who he is                  */
#define G_INFO         0x0002    /* every live key: what it may see            */
#define G_KEY          0x0004    /* key management: internal users             */
#define G_MANAGE       0x0008    /* management: admins                         */
#define G_SPEND        0x0010    /* spend of one's own                         */
#define G_SPEND_USER   0x0020    /* global spend that internal users may see   */
#define G_SPEND_ALL    0x0040    /* all of /global/spend                       */
#define G_SELF         0x0080    /* any user: the handler decides              */
#define G_ORG          0x0100    /* admins of the organization concerned too   */
#define G_READ         0x0200    /* changes nothing: proxy_admin_viewer too    */
#define G_MASTER       0x0400    /* the master key alone                       */
#define G_MODELS       0x0800    /* lists of models, which clients of LLMs ask for */

typedef enum {
    SCOPE_NONE = 1,          /* no object: the gate has decided                */
    SCOPE_OBJECT             /* the handler asks access_*()                    */
} scope_t;

/* Where the organization of a G_ORG route comes from, if the body names none. */
typedef enum {
    ORG_NONE = 0,
    ORG_TEAM                 /* team_id or team_ids of the body, or the path   */
} org_from_t;

typedef struct {
    const char  *method;
    const char  *path;
    unsigned     groups;
    scope_t      scope;
    org_from_t   org;
} access_t;


extern const access_t  access_rows[];    /* ends with a NULL method            */

/* The row of a route, NULL when there is none. */
const access_t *access_row(const char *method, const char *path);

/* The gate.  0, or -1 after answering. */
int access_gate(req_t *r, const access_t *row);

/* The gate's refusal, for a handler that finds that the caller may not. */
void access_refuse(req_t *r);

/*
 * Fields that only admins may send (F_ADMIN), in the body and under these names in its
 * metadata.  0, or -1 after answering 403.
 */
int access_fields(req_t *r, const field_t *table);

/* Answers 403 as that does for one field.  -1. */
int access_refuse_field(req_t *r, const char *name);

/* 1 for what clients write out as the default of such a field: null, 0, {}, []. */
int access_says_nothing(const jv_t *v);

/* allowed_routes of the caller's key, whatever its user is.  0, or -1 after answering. */
int access_key_routes(req_t *r);

/*
 * 1 when the allowed_routes `have` let through every route that `want` do.  NULL is
 * everything.
 */
int access_routes_cover(const jv_t *have, const jv_t *want);

/* 1: proxy admin (or the master key); 1: may read everything. */
int access_admin(req_t *r);
int access_reads_all(req_t *r);

/*
 * Questions about an object.  Each marks the request as scoped and returns 1, 0, or
 * -1 after answering because the database is gone.  Asking answers nothing.
 */
int access_team_admin(req_t *r, const char *team_id);  /* or org admin of it    */
int access_team_member(req_t *r, const char *team_id); /* or either of those    */
int access_org_admin(req_t *r, const char *org_id);
int access_org_member(req_t *r, const char *org_id);
int access_any_org_admin(req_t *r);                    /* of whichever         */
int access_self(req_t *r, const char *user_id);        /* caller is that user   */

/* Role in the team itself: "admin", "user", or NULL; *known 0: no such team. */
int access_team_role(req_t *r, const char *team_id, const char **role);

/*
 * 1 when a team member may call `route` for his team: team admins, and users with
 * that entry in team_member_permissions (without any: /key/info, /key/health).
 */
int access_team_permits(req_t *r, const char *team_id, const char *route);

/* A team of default_internal_user_params.available_teams: whoever may join it. */
int access_team_open(req_t *r, const char *team_id);

/* The handler has restricted what it reads to what the caller may see. */
void access_scoped(req_t *r);

/* "proxy_admin", "internal_user" ... as messages name it. */
const char *access_role_name(req_t *r);

/* First six, stars, last two. */
const char *access_mask(arena_t *a, const char *id);


#endif
