/*
 * One request of the admin API: what came in, who asks, what goes out.
 * The server side (libmicrohttpd) is http.c; handlers see only this.
 */

#ifndef CTL_HTTP_H
#define CTL_HTTP_H

#include <stddef.h>
#include <stdint.h>
#include "arena.h"
#include "json.h"


#define HTTP_BODY_MAX   (1024 * 1024)
#define HTTP_HEADERS_MAX  6
#define HTTP_SEGMENTS_MAX 3

struct MHD_Connection;

/* What the caller's user may be, weakest first. */
typedef enum {
    ROLE_NONE = 0,                       /* no user, or one without a row     */
    ROLE_INTERNAL_VIEWER,
    ROLE_INTERNAL,
    ROLE_ORG_ADMIN,
    ROLE_VIEWER,                         /* proxy_admin_viewer                */
    ROLE_ADMIN                           /* proxy_admin                       */
} role_t;

typedef struct touch_s  touch_t;

struct touch_s {
    touch_t     *next;
    const char  *ent;
    const char  *op;                     /* "set", "del" or "registry"        */
    int64_t      version;                /* of a del                          */
};

typedef struct {
    arena_t                 a;
    struct MHD_Connection  *mhd;
    const char             *method;
    const char             *path;        /* decoded                           */
    const char             *rest;        /* what a "*" route left over        */
    const char             *seg[HTTP_SEGMENTS_MAX + 1]; /* of "{name}" segments */
    const char             *query;       /* raw, without '?'                  */
    buf_t                   body;
    int                     too_large;
    int                     counted;
    int64_t                 start_us;

    jv_t                   *json;        /* body, an object                   */

    int                     master;      /* the caller is the master key      */
    role_t                  role;        /* of a virtual key's user           */
    const char             *caller_token;/* hash of what was presented        */
    const char             *caller_key;  /* token of its row                  */
    const char             *caller_user; /* user id of the caller             */
    const char             *caller_team; /* of the key                        */
    const char             *caller_org;  /* of the key, or of its team        */
    jv_t                   *caller_row;  /* key row of a virtual key caller   */
    const char             *changed_by;
    const void             *access;      /* access_t of the route             */
    int                     scoped;      /* access_*() was asked              */

    const char             *err_type;    /* type of converted errors          */

    const char             *idem_id;     /* Idempotency-Key: NULL, or hashes  */
    const char             *idem_request;
    int                     idem_claimed;
    int                     idem_kept;   /* in a transaction that took place  */
    int                     committed;   /* a transaction took place          */
    int                     matched;     /* If-Match was looked at            */
    int                     collided;    /* with another request: see tx.h    */

    jv_t                   *settings;    /* of the database, once they were asked */
    const char             *delivered;   /* rows of the outbox that may go    */

    touch_t                *touched;
    touch_t               **touch_end;

    int                     status;      /* 0: nothing was answered           */
    buf_t                   out;
    const char             *content_type;
    size_t                  nheaders;
    const char             *header[HTTP_HEADERS_MAX][2];
} req_t;


int http_start(void);                    /* 0, or -1 after logging             */
void http_stop(void);                    /* waits for what is in flight, 10 s  */

const char *http_header(req_t *r, const char *name);       /* NULL: absent     */

/*
 * Value of a query argument, decoded; NULL when absent.  '+' stays '+' (ids of
 * the form a+b@c are common); http_arg_form() reads it as a space.
 */
const char *http_arg(req_t *r, const char *name);
const char *http_arg_form(req_t *r, const char *name);

/* Answers.  Each sets r->status; the first one wins. */
void reply_json(req_t *r, int status, const jv_t *v);
void reply_text(req_t *r, int status, const char *type, const char *text);
void reply_header(req_t *r, const char *name, const char *value);
void reply_reset(req_t *r);              /* takes the answer back              */

/* {"error":{message,type,param,code}}; param NULL is the string "None". */
void fail_proxy(req_t *r, int status, const char *type, const char *param,
    const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* The same, of r->err_type, with the Python repr of {'error': message}. */
void fail_repr(req_t *r, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* {"detail": text} and {"detail":{"error": text}}. */
void fail_detail(req_t *r, int status, const char *text);
void fail_detail_error(req_t *r, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* 422 of the validation envelope for one body field (NULL: the body itself). */
void fail_field(req_t *r, const char *field, const char *type, const char *msg,
    const jv_t *input);
void fail_arg(req_t *r, const char *arg, const char *type, const char *msg,
    const char *input);                  /* the same for a query argument      */

void fail_db(req_t *r);                  /* the database is gone or refused    */

/* Python's repr of a string, single quotes unless it holds one. */
const char *py_repr(arena_t *a, const char *s);
const char *py_float(arena_t *a, int64_t nusd);


#endif
