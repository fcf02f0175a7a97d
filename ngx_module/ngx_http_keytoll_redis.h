
/*
 * The connection to Redis, shared by redis.c, which queues operations, and
 * redis_conn.c, which carries them.
 */


#ifndef _NGX_HTTP_KEYTOLL_REDIS_H_INCLUDED_
#define _NGX_HTTP_KEYTOLL_REDIS_H_INCLUDED_


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_OPS          16384     /* power of two              */
#define NGX_HTTP_KEYTOLL_UP           300       /* ms, to become ready       */


typedef enum {
    NGX_HTTP_KEYTOLL_R_DOWN = 0,
    NGX_HTTP_KEYTOLL_R_CONNECTING,
    NGX_HTTP_KEYTOLL_R_HELLO,
    NGX_HTTP_KEYTOLL_R_READY
} ngx_http_keytoll_redis_state_e;


typedef struct {
    ngx_http_keytoll_redis_state_e   state;
    ngx_peer_connection_t            peer;
    redisReader                     *reader;
    ngx_log_t                       *log;

    u_char                          *out;
    size_t                           out_size;
    size_t                           out_len;
    size_t                           out_sent;

    ngx_http_keytoll_op_t           *ops;
    ngx_uint_t                       head;
    ngx_uint_t                       tail;

    ngx_event_t                      deadline;
    ngx_event_t                      backoff;
    ngx_event_t                      flush;
    ngx_msec_t                       wait;
    ngx_msec_t                       timeout;
    time_t                           logged;
    const char                      *why;       /* what was logged last      */
    u_char                           run_id[40];
    uint64_t                         took_us;   /* what is being answered    */
    unsigned                         known:1;   /* run_id was seen before    */
    unsigned                         failing:1;
    unsigned                         starting:1;
} ngx_http_keytoll_redis_t;


extern ngx_http_keytoll_redis_t  ngx_http_keytoll_redis;


/* redis.c */

void ngx_http_keytoll_redis_enter(ngx_http_keytoll_redis_state_e state);
ngx_int_t ngx_http_keytoll_redis_queue(ngx_http_keytoll_reply_pt handler,
    void *data, ngx_str_t *argv, ngx_uint_t argc);

/* redis_conn.c */

void ngx_http_keytoll_redis_connect(ngx_event_t *ev);
void ngx_http_keytoll_redis_write(ngx_event_t *wev);
void ngx_http_keytoll_redis_late(ngx_event_t *ev);


#endif /* _NGX_HTTP_KEYTOLL_REDIS_H_INCLUDED_ */
