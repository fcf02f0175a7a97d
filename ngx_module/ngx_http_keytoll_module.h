
/*
 * Keytoll: virtual keys, limits and budgets for LLM traffic.
 *
 * Types and entry points shared by the module's files.  One request:
 *
 *   request.c  PRECONTENT handler: key.c reads the key, body.c the body
 *   admit.c    asks (call.c, redis.c) for what estimate.c and registry.c say
 *              it may cost, unless cache.c knows the answer, which watch.c
 *              keeps true; lease.c keeps the grant alive
 *   verdict.c  answers refusals; otherwise journal.c writes D, nginx proxies
 *   filter.c   passes the response on: scan.c counts its usage, strip.c takes
 *              out the event that we made the provider send
 *   event.c    turns the end of the request into a settlement, settle.c
 *              journals it (S) and sends it until Redis has acknowledged it;
 *              replay.c settles what processes that are gone left behind
 *
 * Nothing here blocks, and nothing that outlives a request points into it.
 */


#ifndef _NGX_HTTP_KEYTOLL_MODULE_H_INCLUDED_
#define _NGX_HTTP_KEYTOLL_MODULE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_http.h>

#include <hiredis/hiredis.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <poll.h>
#include <zlib.h>

#include "kt_key.h"
#include "kt_multipart.h"
#include "kt_reqparam.h"
#include "kt_price_row.h"
#include "kt_reason.h"
#include "kt_record.h"
#include "kt_reqscan.h"
#include "kt_respscan.h"
#include "kt_route.h"
#include "kt_schema.h"
#include "kt_sse.h"
#include "kt_usage.h"


#define NGX_HTTP_KEYTOLL_FAIL_DENY     0
#define NGX_HTTP_KEYTOLL_FAIL_ALLOW    1
#define NGX_HTTP_KEYTOLL_FAIL_CACHED   2

#define NGX_HTTP_KEYTOLL_ABORT_DRAIN   0
#define NGX_HTTP_KEYTOLL_ABORT_CANCEL  1

#define NGX_HTTP_KEYTOLL_STATUS_JSON   1
#define NGX_HTTP_KEYTOLL_STATUS_PROM   2

#define NGX_HTTP_KEYTOLL_LEASE         60000    /* ms; renewed every third   */
#define NGX_HTTP_KEYTOLL_SEGMENT       (1 << 20)
#define NGX_HTTP_KEYTOLL_BATCH         64       /* settlements in one call   */
#define NGX_HTTP_KEYTOLL_CREDIT        1000000  /* a call costs 1 credit     */
#define NGX_HTTP_KEYTOLL_BASE          1000000000  /* of amounts      */
#define NGX_HTTP_KEYTOLL_SSE_HOLD      65536    /* one unfinished event      */


/* Counters in shared memory, in the order of metrics[] in status.c. */

typedef enum {
    NGX_HTTP_KEYTOLL_N_ADMITTED = 0,
    NGX_HTTP_KEYTOLL_N_UNRESERVED,
    NGX_HTTP_KEYTOLL_N_SETTLED,
    NGX_HTTP_KEYTOLL_N_DUPLICATE,
    NGX_HTTP_KEYTOLL_N_LATE,
    NGX_HTTP_KEYTOLL_N_RELEASED,
    NGX_HTTP_KEYTOLL_N_ESTIMATED,
    NGX_HTTP_KEYTOLL_N_ABORTED,
    NGX_HTTP_KEYTOLL_N_UNREADABLE,
    NGX_HTTP_KEYTOLL_N_IN_TOK,
    NGX_HTTP_KEYTOLL_N_OUT_TOK,
    NGX_HTTP_KEYTOLL_N_COST_NUSD,
    NGX_HTTP_KEYTOLL_N_REDIS_CALLS,
    NGX_HTTP_KEYTOLL_N_REDIS_ERRORS,
    NGX_HTTP_KEYTOLL_N_REDIS_TIMEOUTS,
    NGX_HTTP_KEYTOLL_N_REDIS_CONNECTS,
    NGX_HTTP_KEYTOLL_N_JOURNAL_BYTES,
    NGX_HTTP_KEYTOLL_N_JOURNAL_ERRORS,
    NGX_HTTP_KEYTOLL_N_REPLAYED,
    NGX_HTTP_KEYTOLL_N_ADOPTED,
    NGX_HTTP_KEYTOLL_N_LEASED,
    NGX_HTTP_KEYTOLL_N_CACHE_HITS,
    NGX_HTTP_KEYTOLL_N_CACHE_STORED,
    NGX_HTTP_KEYTOLL_N_CACHE_EMPTIED,
    NGX_HTTP_KEYTOLL_N_MAX
} ngx_http_keytoll_counter_e;


/*
 * What a worker has in hand now, written by itself only; a worker that is gone
 * has nothing.
 */

typedef struct {
    ngx_pid_t                      pid;
    ngx_atomic_t                   active;      /* requests upstream         */
    ngx_atomic_t                   pending;     /* unacknowledged settlements */
    ngx_atomic_t                   oldest_ms;   /* of them, when made; or 0  */
    ngx_atomic_t                   segments;    /* of the journal            */
    ngx_atomic_t                   journal;     /* bytes in them             */
    ngx_atomic_t                   redis;       /* states of redis.c         */
    ngx_atomic_t                   watch;       /* and of watch.c            */
} ngx_http_keytoll_gauge_t;


/* How long Redis took: buckets in the order of bounds[] in counters.c. */

#define NGX_HTTP_KEYTOLL_BUCKETS       13       /* the last has no bound     */

typedef struct {
    ngx_atomic_t                   n[NGX_HTTP_KEYTOLL_BUCKETS];
    ngx_atomic_t                   sum_us;
} ngx_http_keytoll_histogram_t;


typedef struct ngx_http_keytoll_cache_s  ngx_http_keytoll_cache_t;


typedef struct {
    ngx_http_keytoll_cache_t      *cache;
    ngx_atomic_t                   n[NGX_HTTP_KEYTOLL_N_MAX];
    ngx_atomic_t                   route[KT_ROUTES];
    ngx_atomic_t                   refused[KT_REASON_MAX];
    ngx_http_keytoll_histogram_t   redis;
    ngx_http_keytoll_gauge_t       worker[NGX_MAX_PROCESSES];
} ngx_http_keytoll_shm_t;


typedef struct {
    ngx_addr_t                    *redis;
    ngx_str_t                      redis_user;
    ngx_str_t                      redis_password;
    ngx_msec_t                     redis_timeout;
    ngx_shm_zone_t                *zone;
    ngx_path_t                    *journal;
    ngx_uint_t                     journal_off;
    ngx_uint_t                     used;        /* keytoll on, somewhere     */
    ngx_uint_t                     shown;       /* keytoll_status, somewhere */
    ngx_str_t                      node;
} ngx_http_keytoll_main_conf_t;


typedef struct {
    ngx_flag_t                     enable;
    ngx_uint_t                     failure;
    ngx_uint_t                     abort;
    size_t                         max_body;
    ngx_str_t                      user_header;
    ngx_flag_t                     websocket;
    ngx_flag_t                     lease;
    ngx_flag_t                     clamp;
    ngx_flag_t                     client_credentials;
    ngx_flag_t                     enforce_user;
    ngx_flag_t                     reject_tags;
    ngx_flag_t                     free_models;
    ngx_array_t                   *enforced_params; /* of kt_reqparam_t      */
    ngx_uint_t                     compat;      /* kt_compat_t               */
    ngx_int_t                      budget_status;
    ngx_uint_t                     status;
} ngx_http_keytoll_loc_conf_t;


/* Classes of routes; more of them under their own names in kt_route.h. */

#define NGX_HTTP_KEYTOLL_CHAT          KT_ROUTE_CHAT
#define NGX_HTTP_KEYTOLL_COMPLETIONS   KT_ROUTE_COMPLETIONS
#define NGX_HTTP_KEYTOLL_MESSAGES      KT_ROUTE_MESSAGES
#define NGX_HTTP_KEYTOLL_CLASSES       KT_ROUTES


typedef struct {
    ngx_str_node_t                 sn;
    ngx_str_t                      upstream;
    ngx_str_t                      id;          /* of the deployment         */
    ngx_str_t                      provider;
    kt_price_t                     price;
    int64_t                        max_out_tok;     /* -1 unknown            */
    int64_t                        max_in_tok;
} ngx_http_keytoll_model_t;


/* reply NULL: last 0, the deadline passed; last 1, the connection is lost. */

typedef void (*ngx_http_keytoll_reply_pt)(void *data, redisReply *reply,
    ngx_uint_t last);


typedef struct {
    ngx_http_keytoll_reply_pt      handler;
    void                          *data;
    ngx_msec_t                     deadline;
    uint64_t                       sent_us;
    unsigned                       answered:1;  /* timed out: reply is late  */
} ngx_http_keytoll_op_t;


typedef struct ngx_http_keytoll_segment_s  ngx_http_keytoll_segment_t;

struct ngx_http_keytoll_segment_s {
    ngx_queue_t                    queue;
    ngx_fd_t                       fd;
    off_t                          size;
    ngx_uint_t                     open;        /* D whose S has no ack      */
    ngx_uint_t                     unacked;     /* S without ack             */
    ngx_uint_t                     reading;     /* replays that will read it */
    uint64_t                       last_ack_ms; /* Redis time                */
    time_t                         created;
    unsigned                       sealed:1;
    unsigned                       adopted:1;   /* of a process that is gone */
    unsigned                       reread:1;    /* S were dropped from memory */
    ngx_str_t                      path;
    u_char                         path_data[1];
};


/* Requests of the same call that were admitted behind this one. */

typedef struct {
    int64_t                        n;
    int64_t                        in_bound;
    int64_t                        in_typ;
    int64_t                        out_bound;
    int64_t                        out_typ;
} ngx_http_keytoll_after_t;


/*
 * One request.  Transitions:
 *   NEW -> BODY -> ADMIT -> ADMITTED -> DISPATCHED -> SETTLED
 *   NEW -> SIFT -> SIFTED -> BODY   during a flood of unknown keys
 *   NEW, SIFT, BODY, ADMIT -> REFUSED     nothing was reserved
 *   ADMIT -> SETTLED                granted after we had given up: released
 */

typedef enum {
    NGX_HTTP_KEYTOLL_NEW = 0,
    NGX_HTTP_KEYTOLL_SIFT,
    NGX_HTTP_KEYTOLL_SIFTED,
    NGX_HTTP_KEYTOLL_BODY,
    NGX_HTTP_KEYTOLL_ADMIT,
    NGX_HTTP_KEYTOLL_ADMITTED,
    NGX_HTTP_KEYTOLL_DISPATCHED,
    NGX_HTTP_KEYTOLL_SETTLED,
    NGX_HTTP_KEYTOLL_REFUSED
} ngx_http_keytoll_state_e;


typedef struct ngx_http_keytoll_ctx_s  ngx_http_keytoll_ctx_t;


/* Quota of a hot key that this worker may spend alone (block.c). */

typedef struct {
    ngx_queue_t                    queue;
    u_char                         bid[KT_RID_LEN];
    ngx_uint_t                     refs;
    ngx_uint_t                     unsettled;   /* its requests              */
    ngx_msec_t                     stop;        /* CLOCK_MONOTONIC, ms       */
    ngx_uint_t                     n;
    ngx_uint_t                     left_n;
    int64_t                        left[7];     /* bound, typical nusd, ucr, */
    ngx_str_t                      receipt;     /*   input and output tokens */
    ngx_str_t                      rates;       /*   bound and typical each  */
    ngx_str_t                      alias;
    ngx_str_t                      key_spend;
    ngx_str_t                      key_limit;
    u_char                        *data;        /* of these strings          */
} ngx_http_keytoll_block_t;


/* One request of a call of kt_admit under way. */

typedef struct {
    ngx_http_keytoll_ctx_t        *ctx;         /* NULL: nobody waits        */
    ngx_uint_t                     passed;      /* without the answer        */
    ngx_uint_t                     next;        /* of its group              */
    u_char                         rid[KT_RID_LEN];
} ngx_http_keytoll_pending_t;


/*
 * The first question of a request that several models were asked for: the last
 * refusal is kept for it as long as all of them stand.
 */

typedef struct {
    uint64_t                       mark;
    ngx_msec_t                     lasts;
    ngx_uint_t                     flags;
    uint16_t                       entity;      /* slot; of the key: any     */
    unsigned                       lost:1;      /* one can not be kept       */
} ngx_http_keytoll_first_t;


typedef struct ngx_http_keytoll_waiting_s  ngx_http_keytoll_waiting_t;


struct ngx_http_keytoll_ctx_s {
    ngx_http_request_t            *request;
    ngx_http_keytoll_state_e       state;
    kt_route_class_t               class;
    kt_route_t                     route;
    ngx_http_keytoll_pending_t    *pending;     /* its place in a call       */
    ngx_http_keytoll_block_t      *block;       /* that it was admitted from */
    ngx_queue_t                    queue;       /* admits to send, or active */
    ngx_uint_t                     queued;

    u_char                         rid[KT_RID_LEN + 1];
    u_char                         token[KT_KEY_TOKEN_LEN + 1];
    ngx_str_t                      key_name;    /* "sk-...abcd"              */

    u_char                        *body;
    size_t                         body_len;
    kt_reqscan_t                  *scan;
    ngx_str_t                      tags[KT_REQ_TAGS];   /* decoded           */
    ngx_uint_t                     ntags;
    ngx_str_t                      end_user;
    kt_type_t                      type;        /* of the body               */
    size_t                         boundary_len;
    char                           boundary[KT_BOUNDARY_MAX];
    ngx_table_elt_t               *accept;      /* client takes gzip         */
    const char                    *why;         /* the body is not taken     */
    ngx_uint_t                     why_reason;  /* KT_BODY_INVALID when 0    */
    size_t                         why_off;
    ngx_str_t                      model;
    ngx_str_t                      upstream_model;
    ngx_str_t                      model_id;
    ngx_str_t                      provider;
    kt_price_t                     price;
    int64_t                        max_out_tok;
    int64_t                        clamp;       /* cap that fits, 0 as asked */

    int64_t                        in_bound;    /* tokens                    */
    int64_t                        in_typ;
    int64_t                        out_bound;
    int64_t                        out_typ;
    int64_t                        units;       /* of ranking, estimated     */
    int64_t                        dur_ms;      /* of audio, estimated       */
    int64_t                        bound_nusd;
    int64_t                        in_nusd;     /* the input estimate        */

    u_char                         amounts[KT_HOLD_AMOUNTS];
    ngx_str_t                      customer;    /* entity name               */
    ngx_str_t                      tag_names;   /* entity names by tab       */
    ngx_uint_t                     flags;       /* of kt_admit               */
    ngx_uint_t                     lists;       /* of params, looked for     */
    ngx_str_t                      params;      /* found in the body, by tab */
    ngx_str_t                      asked;       /* model before cheaper ones */
    ngx_http_keytoll_first_t       first;       /* question, with those      */
    ngx_str_t                      cheaper;     /* those left to try, by tab */

    ngx_uint_t                     reason;
    ngx_uint_t                     tries;
    uint64_t                       admit_ms;    /* wall clock                */
    uint64_t                       first_ms;
    uint64_t                       redis_us;    /* all that it waited for    */
    ngx_str_t                      entity;      /* that refused              */
    ngx_msec_t                     leased;      /* when last renewed         */
    ngx_str_t                      template;    /* event, should it be lost  */
    ngx_str_t                      hold;        /* amounts, receipt, template */
    ngx_str_t                      receipt;     /* a part of hold            */
    ngx_str_t                      rates;       /* left after all of the call */
    ngx_http_keytoll_after_t       after;
    ngx_str_t                      alias;
    ngx_str_t                      key_spend;
    ngx_str_t                      key_limit;
    ngx_http_keytoll_segment_t    *segment;

    kt_usage_t                     usage;
    kt_respscan_t                 *resp;
    kt_sse_t                       sse;
    u_char                         sse_carry[64];
    ngx_str_t                      answer_id;
    u_char                         answer_id_data[KT_RESP_ID];
    u_char                        *held;        /* bytes of an unfinished    */
    size_t                         held_len;    /*   event, not yet passed   */
    size_t                         held_size;
    ngx_chain_t                   *free;
    ngx_chain_t                   *busy;
    ngx_http_keytoll_waiting_t    *waiting;     /* header, for the body's end */
    z_stream                      *zs;          /* the answer is compressed  */
    off_t                          body_bytes;
    off_t                          plain_bytes; /* as read, decompressed     */
    int64_t                        delta_bytes;
    int64_t                        events;
    int64_t                        cost_nusd;
    ngx_uint_t                     status;

    unsigned                       active:1;    /* in the list of renewals   */
    unsigned                       known:1;     /* model is in the registry  */
    unsigned                       aliased:1;   /* model is what it stood for */
    unsigned                       trying:1;    /* model is a cheaper one    */
    unsigned                       tried:1;     /* and none of them passed   */
    unsigned                       streaming:1;
    unsigned                       strip:1;     /* take our usage event out  */
    unsigned                       read_json:1;
    unsigned                       read_sse:1;
    unsigned                       last:1;      /* the response is complete  */
    unsigned                       gone:1;      /* client left; draining     */
    unsigned                       unreserved:1;
    unsigned                       own_hold:1;  /* put back without its block */
    unsigned                       estimated:1;
    unsigned                       too_large:1; /* the request's body        */
    unsigned                       tier_seen:1; /* the answer named its tier */
    unsigned                       final:1;     /* usage will not grow       */
    unsigned                       unreadable:1;/* the answer is encoded     */
    unsigned                       header:1;
    unsigned                       pass_hold:1; /* held too long to hold on  */
    unsigned                       stranger:1;  /* its key never passed here */
};


#define NGX_HTTP_KEYTOLL_FIELDS  18     /* of a refusal's reply              */


/* What kt_admit says of a refusal; strings are those of the reply. */

typedef struct {
    ngx_str_t                      entity;
    ngx_str_t                      kind;        /* entity up to the colon    */
    ngx_str_t                      id;          /* and behind it, to a tilde */
    ngx_str_t                      part;        /* model or window of it     */
    u_char                         sort;        /* 'm', 'w' or 0             */
    ngx_str_t                      alias;
    ngx_str_t                      limit;
    ngx_str_t                      used;
    ngx_str_t                      held;
    ngx_str_t                      need;
    ngx_str_t                      models;      /* or routes, by tab         */
    ngx_str_t                      limits;      /* of all levels, and what   */
    ngx_str_t                      left;        /*   is left: lines by level */
    int64_t                        reset_s;
    int64_t                        retry_ms;
    int64_t                        retry_s;     /* as it is told, 0: never   */
    int64_t                        now_ms;
    int64_t                        expires_ms;
} ngx_http_keytoll_refusal_t;


/* module.c */

extern ngx_module_t  ngx_http_keytoll_module;

ngx_http_keytoll_main_conf_t *ngx_http_keytoll_conf(void);

/* counters.c */

extern ngx_uint_t
    ngx_http_keytoll_bounds_us[NGX_HTTP_KEYTOLL_BUCKETS - 1];

void ngx_http_keytoll_count(ngx_http_keytoll_counter_e i, ngx_atomic_int_t n);
void ngx_http_keytoll_count_refused(ngx_uint_t reason);
void ngx_http_keytoll_count_route(kt_route_class_t class);
void ngx_http_keytoll_observe(uint64_t us);
ngx_http_keytoll_gauge_t *ngx_http_keytoll_gauge(void);
uint64_t ngx_http_keytoll_now_ms(void);
uint64_t ngx_http_keytoll_now_us(void);

/* directives.c */

char *ngx_http_keytoll_enum(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_keytoll_redis_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_keytoll_params(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_keytoll_compat(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_keytoll_user_header(ngx_conf_t *cf, void *post, void *data);
char *ngx_http_keytoll_max_body(ngx_conf_t *cf, void *post, void *data);
char *ngx_http_keytoll_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_keytoll_journal(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* request.c */

extern ngx_http_request_body_filter_pt  ngx_http_keytoll_next_request_filter;
extern ngx_str_t  ngx_http_keytoll_class_names[NGX_HTTP_KEYTOLL_CLASSES];

ngx_int_t ngx_http_keytoll_handler(ngx_http_request_t *r);
ngx_uint_t ngx_http_keytoll_why(ngx_http_keytoll_ctx_t *ctx);
ngx_int_t ngx_http_keytoll_rid(u_char *rid);
ngx_int_t ngx_http_keytoll_log_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_keytoll_request_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
ngx_http_keytoll_ctx_t *ngx_http_keytoll_get_ctx(ngx_http_request_t *r);
void ngx_http_keytoll_resume(ngx_http_keytoll_ctx_t *ctx);

/* key.c */

ngx_uint_t ngx_http_keytoll_read_key(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
void ngx_http_keytoll_strip_headers(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
void ngx_http_keytoll_accept_gzip(ngx_http_keytoll_ctx_t *ctx);
ngx_uint_t ngx_http_keytoll_mask_url(ngx_http_request_t *r);

/* body.c */

ngx_uint_t ngx_http_keytoll_read_body(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
ngx_int_t ngx_http_keytoll_splice(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);

/* identity.c */

ngx_uint_t ngx_http_keytoll_content(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
void ngx_http_keytoll_read_identity(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
ngx_int_t ngx_http_keytoll_rules_params(ngx_http_keytoll_ctx_t *ctx,
    ngx_str_t *names);
void ngx_http_keytoll_rules(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
ngx_int_t ngx_http_keytoll_name_identity(ngx_http_keytoll_ctx_t *ctx);

/* admit.c */

void ngx_http_keytoll_admit(ngx_http_keytoll_ctx_t *ctx);
void ngx_http_keytoll_admit_flush(void);
ngx_uint_t ngx_http_keytoll_admit_waits(void);
ngx_int_t ngx_http_keytoll_answered(ngx_http_keytoll_ctx_t *ctx);
void ngx_http_keytoll_ask(ngx_http_keytoll_ctx_t *ctx);
u_char *ngx_http_keytoll_amount(u_char *p, int64_t v);
ngx_int_t ngx_http_keytoll_granted_block(ngx_http_keytoll_ctx_t *ctx,
    ngx_http_keytoll_block_t *block);
void ngx_http_keytoll_admit_again(ngx_http_keytoll_ctx_t *ctx);
ngx_int_t ngx_http_keytoll_admit_clamp(ngx_http_keytoll_ctx_t *ctx,
    redisReply *verdict);
ngx_int_t ngx_http_keytoll_copy(ngx_pool_t *pool, ngx_str_t *out,
    redisReply *v);
ngx_int_t ngx_http_keytoll_admit_alias(ngx_http_keytoll_ctx_t *ctx,
    redisReply *verdict);
void ngx_http_keytoll_granted(ngx_http_keytoll_ctx_t *ctx, redisReply *group,
    redisReply *receipt, uint64_t mark);
void ngx_http_keytoll_unavailable(ngx_http_keytoll_ctx_t *ctx,
    ngx_uint_t reason);
void ngx_http_keytoll_answer(ngx_http_keytoll_ctx_t *ctx, ngx_uint_t reason,
    redisReply *reply);
void ngx_http_keytoll_dispatch_flush(ngx_uint_t written);
void ngx_http_keytoll_admit_stop(ngx_http_keytoll_ctx_t *ctx);
void ngx_http_keytoll_admit_init(void);


/* stranger.c */

void ngx_http_keytoll_stranger_init(void);
void ngx_http_keytoll_stranger(ngx_http_keytoll_ctx_t *ctx);
ngx_uint_t ngx_http_keytoll_stranger_unread(ngx_http_keytoll_ctx_t *ctx);
void ngx_http_keytoll_stranger_unknown(void);
void ngx_http_keytoll_strangers_ask(void);


/* option.c */

ngx_int_t ngx_http_keytoll_admit_params(ngx_http_keytoll_ctx_t *ctx,
    redisReply *verdict);
ngx_int_t ngx_http_keytoll_admit_cheaper(ngx_http_keytoll_ctx_t *ctx,
    redisReply *verdict, uint64_t mark);
void ngx_http_keytoll_admit_next(ngx_http_keytoll_ctx_t *ctx);
void ngx_http_keytoll_option_found(ngx_http_keytoll_ctx_t *ctx,
    ngx_str_t *flags);


/* call.c */

void ngx_http_keytoll_call_add(ngx_http_keytoll_ctx_t *ctx);
void ngx_http_keytoll_call_send(void);
void ngx_http_keytoll_call_init(void);
void ngx_http_keytoll_call_exit(void);
ngx_uint_t ngx_http_keytoll_call_strangers(void);
void ngx_http_keytoll_release(u_char *rid, redisReply *receipt);

/* block.c */

ngx_int_t ngx_http_keytoll_block_take(ngx_http_keytoll_ctx_t *ctx);
void ngx_http_keytoll_block_settled(ngx_http_keytoll_ctx_t *ctx);
void ngx_http_keytoll_block_leave(ngx_http_keytoll_ctx_t *ctx);
void ngx_http_keytoll_blocks_end(ngx_uint_t give_back);
void ngx_http_keytoll_blocks_changed(u_char *name, size_t len);

/* cache.c */

ngx_int_t ngx_http_keytoll_cache_init(ngx_slab_pool_t *pool,
    ngx_http_keytoll_shm_t *shm, size_t size);
uint64_t ngx_http_keytoll_cache_mark(void);
void ngx_http_keytoll_cache_changed(u_char *name, size_t len,
    ngx_uint_t relief);
void ngx_http_keytoll_cache_flush(void);
ngx_uint_t ngx_http_keytoll_cache_unknown(u_char *token);
void ngx_http_keytoll_cache_seen(u_char *token, ngx_uint_t unlimited,
    uint64_t mark);
ngx_uint_t ngx_http_keytoll_cache_passed(u_char *token);
ngx_uint_t ngx_http_keytoll_cache_unlimited(u_char *token);

/* denial.c */

void ngx_http_keytoll_cache_hash(ngx_http_keytoll_ctx_t *ctx, uint32_t *hash);
ngx_uint_t ngx_http_keytoll_cache_denied(ngx_http_keytoll_ctx_t *ctx);
void ngx_http_keytoll_cache_deny(ngx_http_keytoll_ctx_t *ctx,
    ngx_uint_t reason, redisReply *reply, uint64_t mark);
void ngx_http_keytoll_cache_first(ngx_http_keytoll_ctx_t *ctx,
    uint64_t mark);
void ngx_http_keytoll_cache_other(ngx_http_keytoll_ctx_t *ctx,
    ngx_uint_t reason, redisReply *reply);

/* watch.c */

void ngx_http_keytoll_watch_init(ngx_cycle_t *cycle);
void ngx_http_keytoll_watch_exit(void);
ngx_uint_t ngx_http_keytoll_watch_live(void);
const char *ngx_http_keytoll_watch_name(ngx_uint_t state);

/* estimate.c */

int64_t ngx_http_keytoll_flags(ngx_http_keytoll_ctx_t *ctx);
ngx_int_t ngx_http_keytoll_estimate(ngx_http_keytoll_ctx_t *ctx);
ngx_int_t ngx_http_keytoll_clamp(ngx_http_keytoll_ctx_t *ctx,
    int64_t free_nusd);

/* lease.c */

void ngx_http_keytoll_lease_init(ngx_cycle_t *cycle);
void ngx_http_keytoll_active_add(ngx_http_keytoll_ctx_t *ctx);
void ngx_http_keytoll_active_del(ngx_http_keytoll_ctx_t *ctx);
void ngx_http_keytoll_renew(ngx_uint_t restore);

/* text.c */

#define NGX_HTTP_KEYTOLL_TEXT  16384    /* two ids, a path, a list, cut      */

ngx_uint_t ngx_http_keytoll_is(ngx_str_t *s, const char *name);
u_char *ngx_http_keytoll_usd(u_char *p, ngx_str_t *nusd);
u_char *ngx_http_keytoll_stamp(u_char *p, int64_t ms);
u_char *ngx_http_keytoll_message(u_char *p, ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_uint_t reason,
    ngx_http_keytoll_refusal_t *f);

/* verdict.c */

ngx_int_t ngx_http_keytoll_refuse(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_uint_t reason, redisReply *reply);
ngx_int_t ngx_http_keytoll_push_header(ngx_list_t *list, const char *name,
    size_t len, ngx_str_t *value);
ngx_int_t ngx_http_keytoll_dup_header(ngx_http_request_t *r, const char *name,
    size_t len, ngx_str_t *v);

#define ngx_http_keytoll_set_header(r, name, value)                          \
    ngx_http_keytoll_push_header(&(r)->headers_out.headers, name,            \
                                 sizeof(name) - 1, value)

/* Redis' reply does not live as long as the request. */

#define ngx_http_keytoll_copy_header(r, name, v)                             \
    ngx_http_keytoll_dup_header(r, name, sizeof(name) - 1, v)

/* headers.c */

ngx_int_t ngx_http_keytoll_headers(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
ngx_int_t ngx_http_keytoll_cost_headers(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_list_t *list);
ngx_int_t ngx_http_keytoll_told(ngx_http_request_t *r,
    ngx_uint_t reason, ngx_http_keytoll_refusal_t *f);
ngx_str_t *ngx_http_keytoll_descriptor(ngx_http_keytoll_refusal_t *f);

/* delay.c */

ngx_int_t ngx_http_keytoll_delay(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
ngx_int_t ngx_http_keytoll_delay_body(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_chain_t *in);
void ngx_http_keytoll_delay_over(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_chain_t **in);

/* filter.c */

void ngx_http_keytoll_filter_due(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
ngx_int_t ngx_http_keytoll_filter_init(ngx_conf_t *cf);

/* scan.c */

void ngx_http_keytoll_choose(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
void ngx_http_keytoll_scan_buf(ngx_http_keytoll_ctx_t *ctx, ngx_buf_t *b);
ngx_uint_t ngx_http_keytoll_event(ngx_http_keytoll_ctx_t *ctx,
    kt_sse_event_t *ev);

/* strip.c */

ngx_int_t ngx_http_keytoll_strip(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx, ngx_chain_t *in, ngx_chain_t **out);

/* inflate.c */

ngx_int_t ngx_http_keytoll_inflate_init(ngx_http_request_t *r,
    ngx_http_keytoll_ctx_t *ctx);
ngx_int_t ngx_http_keytoll_inflate(ngx_http_keytoll_ctx_t *ctx, u_char *p,
    size_t len, void (*scan)(ngx_http_keytoll_ctx_t *ctx, u_char *p,
    size_t len));

/* event.c */

void ngx_http_keytoll_finish(ngx_http_keytoll_ctx_t *ctx);
char *ngx_http_keytoll_end(ngx_http_keytoll_ctx_t *ctx);
ngx_int_t ngx_http_keytoll_template(ngx_http_keytoll_ctx_t *ctx);
size_t ngx_http_keytoll_json_len(u_char *p, size_t len);
u_char *ngx_http_keytoll_json(u_char *dst, u_char *p, size_t len);

/* settle.c */

ngx_int_t ngx_http_keytoll_settle(kt_record_t *rec,
    ngx_http_keytoll_segment_t *dispatched, u_char *bid, u_char *amounts);
ngx_int_t ngx_http_keytoll_settle_replay(kt_record_t *rec,
    ngx_http_keytoll_segment_t *seg);
void ngx_http_keytoll_settle_flush(void);
void ngx_http_keytoll_settle_retry(void);
ngx_uint_t ngx_http_keytoll_settle_pending(void);

/* journal.c */

ngx_int_t ngx_http_keytoll_journal_init(ngx_cycle_t *cycle);
ngx_int_t ngx_http_keytoll_journal_add(kt_record_t *rec,
    ngx_http_keytoll_segment_t **seg);
ngx_int_t ngx_http_keytoll_journal_sync(void);
ngx_uint_t ngx_http_keytoll_journal_ok(void);
void ngx_http_keytoll_journal_watermark(uint64_t wm_ms);
ngx_queue_t *ngx_http_keytoll_journal_segments(void);
ngx_http_keytoll_segment_t *ngx_http_keytoll_segment(ngx_str_t *path);
u_char *ngx_http_keytoll_segment_name(u_char *p);

/* replay.c */

void ngx_http_keytoll_replay_init(ngx_cycle_t *cycle);
void ngx_http_keytoll_replay_first(ngx_http_keytoll_segment_t *seg);
void ngx_http_keytoll_journal_replay(void);
void ngx_http_keytoll_adopt(void);
uint64_t ngx_http_keytoll_process_start(ngx_pid_t pid);

/* redis.c */

ngx_int_t ngx_http_keytoll_redis_init(ngx_cycle_t *cycle);
void ngx_http_keytoll_redis_exit(void);
ngx_int_t ngx_http_keytoll_redis_send(ngx_http_keytoll_reply_pt handler,
    void *data, ngx_str_t *argv, ngx_uint_t argc);
void ngx_http_keytoll_redis_post(void);
ngx_uint_t ngx_http_keytoll_redis_ready(void);
ngx_uint_t ngx_http_keytoll_redis_starting(void);
void ngx_http_keytoll_redis_started(void);
uint64_t ngx_http_keytoll_redis_took(void);
const char *ngx_http_keytoll_redis_name(ngx_uint_t state);

/* redis_conn.c */

redisReader *ngx_http_keytoll_redis_reader(void);

/* registry.c */

void ngx_http_keytoll_registry_refresh(void);
void ngx_http_keytoll_registry_lost(void);
void ngx_http_keytoll_registry_epoch(redisReply *epoch);
void ngx_http_keytoll_registry_stale(redisReply *gen);
ngx_uint_t ngx_http_keytoll_registry_ready(void);
ngx_str_t *ngx_http_keytoll_registry_gen(void);
ngx_http_keytoll_model_t *ngx_http_keytoll_registry_find(ngx_str_t *name);

/* variables.c */

ngx_int_t ngx_http_keytoll_add_variables(ngx_conf_t *cf);

/* status.c */

char *ngx_http_keytoll_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);


#endif /* _NGX_HTTP_KEYTOLL_MODULE_H_INCLUDED_ */
