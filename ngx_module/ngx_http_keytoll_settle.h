
/*
 * A settlement that waits for its acknowledgement: settle.c keeps them,
 * batch.c puts them into calls.
 */


#ifndef _NGX_HTTP_KEYTOLL_SETTLE_H_INCLUDED_
#define _NGX_HTTP_KEYTOLL_SETTLE_H_INCLUDED_


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_SETTLE_ARGS   7
#define NGX_HTTP_KEYTOLL_SUMS          4        /* cost, credits, in, out    */


typedef struct {
    ngx_queue_t                    queue;
    ngx_queue_t                    unacked;     /* all of them, by age       */
    uint64_t                       since_ms;
    ngx_str_t                      arg[NGX_HTTP_KEYTOLL_SETTLE_ARGS];
    ngx_str_t                      share;       /* of a block; else empty    */
    u_char                        *amounts;     /* reserved; NULL: nothing   */
    int64_t                        sum[NGX_HTTP_KEYTOLL_SUMS];
    ngx_http_keytoll_segment_t    *dispatched;  /* where D stands            */
    ngx_http_keytoll_segment_t    *settled;     /* where S stands            */
    uint64_t                       seq;
    ngx_uint_t                     refused;     /* times Redis said ERR      */
    unsigned                       full:1;      /* send the receipt, too     */
    unsigned                       urgent:1;    /* somebody may wait for it  */
    unsigned                       alone:1;     /* not in a group            */
    u_char                         data[1];
} ngx_http_keytoll_settlement_t;


/*
 * Those of one call.  One code of the answer is for group[i] of them, in the
 * order of item.
 */

typedef struct {
    ngx_uint_t                     n;
    ngx_uint_t                     groups;
    ngx_http_keytoll_settlement_t *item[NGX_HTTP_KEYTOLL_BATCH];
    ngx_uint_t                     group[NGX_HTTP_KEYTOLL_BATCH];
} ngx_http_keytoll_batch_t;


/* Once, when s has its arguments: whether it may be in a group. */

void ngx_http_keytoll_batch_prepare(ngx_http_keytoll_settlement_t *s);

/*
 * Puts those that reserved alike next to each other and sends all.  handler
 * gets the batch; NGX_ERROR or NGX_BUSY when nothing was sent.
 */

ngx_int_t ngx_http_keytoll_batch_send(ngx_http_keytoll_batch_t *batch,
    ngx_http_keytoll_reply_pt handler);


#endif /* _NGX_HTTP_KEYTOLL_SETTLE_H_INCLUDED_ */
