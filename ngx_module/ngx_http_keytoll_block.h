
/* Entries of demand.c, whose blocks block.c has. */


#ifndef _NGX_HTTP_KEYTOLL_BLOCK_H_INCLUDED_
#define _NGX_HTTP_KEYTOLL_BLOCK_H_INCLUDED_


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_ENTRIES      1024
#define NGX_HTTP_KEYTOLL_AMOUNTS      6
#define NGX_HTTP_KEYTOLL_BLOCK_SPAN   50        /* ms, demand is counted by  */


typedef struct {
    ngx_http_keytoll_block_t      *block;
    ngx_http_keytoll_block_t      *next;
    ngx_msec_t                     since;       /* of the span counted now   */
    ngx_msec_t                     cold;        /* no blocks before          */
    ngx_uint_t                     demand;
    ngx_uint_t                     rate;        /* of the span before        */
    ngx_uint_t                     asked;
    int64_t                        most[NGX_HTTP_KEYTOLL_AMOUNTS];

    u_char                         token[KT_KEY_TOKEN_LEN];
    uint32_t                       hash[2];
    ngx_str_t                      class;
    ngx_uint_t                     flags;
    ngx_str_t                      model;
    ngx_str_t                      uri;
    ngx_str_t                      customer;
    ngx_str_t                      tag_names;
    ngx_str_t                      provider;
    u_char                        *data;        /* of these                  */
} ngx_http_keytoll_entry_t;


extern ngx_http_keytoll_entry_t  *ngx_http_keytoll_entries;


/* demand.c */

ngx_http_keytoll_entry_t *ngx_http_keytoll_entry(ngx_http_keytoll_ctx_t *ctx);
void ngx_http_keytoll_demand(ngx_http_keytoll_entry_t *e, int64_t *need,
    ngx_msec_t now);

/* block.c */

void ngx_http_keytoll_block_init(void);


#endif /* _NGX_HTTP_KEYTOLL_BLOCK_H_INCLUDED_ */
