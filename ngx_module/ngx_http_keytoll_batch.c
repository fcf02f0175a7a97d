
/*
 * The call that tells Redis of many settlements.  Requests of one key that
 * reserved alike in the same millisecond, or in the same block, are told as
 * one (shared/lua/group.lua): what they share once, what they cost in sums.
 */


#include "ngx_http_keytoll_settle.h"


#define NGX_HTTP_KEYTOLL_LOOK_BACK   8          /* groups that may still grow */
#define NGX_HTTP_KEYTOLL_SUM_MAX     (INT64_MAX / NGX_HTTP_KEYTOLL_BATCH)
#define NGX_HTTP_KEYTOLL_MONEYS      3          /* of the amounts, as pairs  */
#define NGX_HTTP_KEYTOLL_TOKENS      4


typedef struct {
    int64_t   hi[NGX_HTTP_KEYTOLL_MONEYS];
    int64_t   lo[NGX_HTTP_KEYTOLL_MONEYS];
    int64_t   tok[NGX_HTTP_KEYTOLL_TOKENS];
} ngx_http_keytoll_amounts_t;


static void ngx_http_keytoll_batch_sort(ngx_http_keytoll_batch_t *batch);
static ngx_uint_t ngx_http_keytoll_alike(ngx_http_keytoll_settlement_t *a,
    ngx_http_keytoll_settlement_t *b);
static void ngx_http_keytoll_unpack(ngx_http_keytoll_amounts_t *a, u_char *p);
static u_char *ngx_http_keytoll_pack(u_char *p, ngx_http_keytoll_amounts_t *a);
static size_t ngx_http_keytoll_group_len(ngx_http_keytoll_settlement_t **s,
    ngx_uint_t n);
static u_char *ngx_http_keytoll_group(u_char *p, ngx_str_t *argv,
    ngx_http_keytoll_settlement_t **s, ngx_uint_t n);


/* The sums of a whole batch must not overflow. */

void
ngx_http_keytoll_batch_prepare(ngx_http_keytoll_settlement_t *s)
{
    ngx_uint_t                  i;
    ngx_http_keytoll_amounts_t  a;

    s->alone = s->amounts == NULL
               || s->arg[NGX_HTTP_KEYTOLL_SETTLE_ARGS - 1].len == 0;

    if (s->alone) {
        return;
    }

    for (i = 0; i < NGX_HTTP_KEYTOLL_SUMS; i++) {
        s->sum[i] = ngx_atoof(s->arg[2 + i].data, s->arg[2 + i].len);

        if (s->sum[i] < 0 || s->sum[i] > NGX_HTTP_KEYTOLL_SUM_MAX) {
            s->alone = 1;
        }
    }

    ngx_http_keytoll_unpack(&a, s->amounts);

    for (i = 0; i < NGX_HTTP_KEYTOLL_TOKENS; i++) {
        if (a.tok[i] < 0 || a.tok[i] > NGX_HTTP_KEYTOLL_SUM_MAX) {
            s->alone = 1;
        }
    }
}


ngx_int_t
ngx_http_keytoll_batch_send(ngx_http_keytoll_batch_t *batch,
    ngx_http_keytoll_reply_pt handler)
{
    size_t                           len;
    u_char                          *p, *text;
    ngx_int_t                        rc;
    ngx_str_t                        argv[4 + NGX_HTTP_KEYTOLL_BATCH
                                              * NGX_HTTP_KEYTOLL_SETTLE_ARGS];
    ngx_uint_t                       i, n;
    ngx_http_keytoll_settlement_t  **s;

    ngx_http_keytoll_batch_sort(batch);

    len = 1;
    s = batch->item;

    for (i = 0; i < batch->groups; i++) {
        len += batch->group[i] > 1
               ? ngx_http_keytoll_group_len(s, batch->group[i]) : 0;
        s += batch->group[i];
    }

    text = ngx_alloc(len, ngx_cycle->log);
    if (text == NULL) {
        return NGX_ERROR;
    }

    ngx_str_set(&argv[0], "FCALL");
    ngx_str_set(&argv[1], "kt_settle");

    if (batch->groups < batch->n) {
        ngx_str_set(&argv[1], "kt_settle_groups");
    }

    ngx_str_set(&argv[2], "1");
    ngx_str_set(&argv[3], KT_REDIS_GEN);

    n = 4;
    p = text;
    s = batch->item;

    for (i = 0; i < batch->groups; i++) {

        if (batch->group[i] > 1) {
            p = ngx_http_keytoll_group(p, &argv[n], s, batch->group[i]);

        } else {
            ngx_memcpy(&argv[n], s[0]->arg, sizeof(s[0]->arg));

            if (!s[0]->full) {

                /* the hold has the receipt; Redis asks when there is none */

                argv[n + 1] = s[0]->share;
            }
        }

        n += NGX_HTTP_KEYTOLL_SETTLE_ARGS;
        s += batch->group[i];
    }

    rc = ngx_http_keytoll_redis_send(handler, batch, argv, n);

    ngx_free(text);

    return rc;
}


/* The groups, in the order of their first. */

static void
ngx_http_keytoll_batch_sort(ngx_http_keytoll_batch_t *batch)
{
    ngx_uint_t                      i, k, n, at;
    ngx_uint_t                      of[NGX_HTTP_KEYTOLL_BATCH];
    ngx_uint_t                      to[NGX_HTTP_KEYTOLL_BATCH];
    ngx_http_keytoll_settlement_t  *s, *item[NGX_HTTP_KEYTOLL_BATCH];
    ngx_http_keytoll_settlement_t  *first[NGX_HTTP_KEYTOLL_BATCH];

    n = 0;

    for (i = 0; i < batch->n; i++) {
        s = batch->item[i];
        item[i] = s;

        k = n > NGX_HTTP_KEYTOLL_LOOK_BACK ? n - NGX_HTTP_KEYTOLL_LOOK_BACK : 0;

        while (k < n && !ngx_http_keytoll_alike(first[k], s)) {
            k++;
        }

        if (k == n) {
            first[n] = s;
            batch->group[n++] = 0;
        }

        of[i] = k;
        batch->group[k]++;
    }

    batch->groups = n;

    for (at = 0, k = 0; k < n; k++) {
        to[k] = at;
        at += batch->group[k];
    }

    for (i = 0; i < batch->n; i++) {
        batch->item[to[of[i]]++] = item[i];
    }
}


static ngx_uint_t
ngx_http_keytoll_alike(ngx_http_keytoll_settlement_t *a,
    ngx_http_keytoll_settlement_t *b)
{
    if (a->alone || a->full || a->refused || b->alone || b->full
        || b->refused || a->share.len != b->share.len)
    {
        return 0;
    }

    if (a->share.len) {
        return ngx_memcmp(a->share.data, b->share.data,
                          a->share.len - KT_HOLD_AMOUNTS) == 0;
    }

    return a->arg[1].len == b->arg[1].len
           && ngx_memcmp(a->arg[1].data, b->arg[1].data, a->arg[1].len) == 0;
}


static void
ngx_http_keytoll_unpack(ngx_http_keytoll_amounts_t *a, u_char *p)
{
    int32_t     lo;
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_KEYTOLL_MONEYS; i++) {
        ngx_memcpy(&a->hi[i], p, sizeof(int64_t));
        p += sizeof(int64_t);
        ngx_memcpy(&lo, p, sizeof(int32_t));
        p += sizeof(int32_t);
        a->lo[i] = lo;
    }

    ngx_memcpy(a->tok, p, sizeof(a->tok));
}


static u_char *
ngx_http_keytoll_pack(u_char *p, ngx_http_keytoll_amounts_t *a)
{
    int32_t     lo;
    int64_t     hi;
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_KEYTOLL_MONEYS; i++) {
        hi = a->hi[i] + a->lo[i] / NGX_HTTP_KEYTOLL_BASE;
        lo = (int32_t) (a->lo[i] % NGX_HTTP_KEYTOLL_BASE);

        p = ngx_cpymem(p, &hi, sizeof(int64_t));
        p = ngx_cpymem(p, &lo, sizeof(int32_t));
    }

    return ngx_cpymem(p, a->tok, sizeof(a->tok));
}


/* A share is "b", tab, the block's id, tab, amounts; of it, the first two. */

static size_t
ngx_http_keytoll_group_len(ngx_http_keytoll_settlement_t **s, ngx_uint_t n)
{
    size_t      len;
    ngx_uint_t  i;

    len = n * (KT_RID_LEN + 1) + KT_HOLD_HEAD + s[0]->arg[1].len
          + s[0]->share.len + NGX_HTTP_KEYTOLL_SUMS * NGX_INT64_LEN;

    for (i = 0; i < n; i++) {
        len += s[i]->arg[NGX_HTTP_KEYTOLL_SETTLE_ARGS - 1].len;
    }

    return len;
}


static u_char *
ngx_http_keytoll_group(u_char *p, ngx_str_t *argv,
    ngx_http_keytoll_settlement_t **s, ngx_uint_t n)
{
    int64_t                      sum[NGX_HTTP_KEYTOLL_SUMS];
    ngx_str_t                   *event;
    ngx_uint_t                   i, k;
    ngx_http_keytoll_amounts_t   a, one;

    ngx_memzero(&a, sizeof(ngx_http_keytoll_amounts_t));
    ngx_memzero(sum, sizeof(sum));

    argv[0].data = p;

    for (i = 0; i < n; i++) {
        p = ngx_cpymem(p, s[i]->arg[0].data, KT_RID_LEN);

        ngx_http_keytoll_unpack(&one, s[i]->amounts);

        for (k = 0; k < NGX_HTTP_KEYTOLL_MONEYS; k++) {
            a.hi[k] += one.hi[k];
            a.lo[k] += one.lo[k];
        }

        for (k = 0; k < NGX_HTTP_KEYTOLL_TOKENS; k++) {
            a.tok[k] += one.tok[k];
        }

        for (k = 0; k < NGX_HTTP_KEYTOLL_SUMS; k++) {
            sum[k] += s[i]->sum[k];
        }
    }

    argv[0].len = p - argv[0].data;

    argv[1].data = p;
    *p++ = 'G';
    p = ngx_http_keytoll_pack(p, &a);

    if (s[0]->share.len) {
        p = ngx_cpymem(p, s[0]->share.data, KT_SHARE_HEAD - 1);

    } else {
        p = ngx_cpymem(p, s[0]->arg[1].data, s[0]->arg[1].len);
    }

    argv[1].len = p - argv[1].data;

    for (k = 0; k < NGX_HTTP_KEYTOLL_SUMS; k++) {
        argv[2 + k].data = p;
        p = ngx_sprintf(p, "%L", sum[k]);
        argv[2 + k].len = p - argv[2 + k].data;
    }

    argv[6].data = p;

    for (i = 0; i < n; i++) {
        event = &s[i]->arg[NGX_HTTP_KEYTOLL_SETTLE_ARGS - 1];

        if (i) {
            *p++ = '\n';
        }

        p = ngx_cpymem(p, event->data, event->len);
    }

    argv[6].len = p - argv[6].data;

    return p;
}
