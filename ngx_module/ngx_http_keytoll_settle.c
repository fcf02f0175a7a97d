
/*
 * Settlements: journaled first, then sent in batches until Redis has
 * acknowledged each.  At least once here and idempotent there is exactly once.
 *
 *   QUEUED -> SENT -> acknowledged, freed
 *   SENT -> QUEUED      no reply, an error, or Redis is not ready; or it has
 *                       no hold of the request and wants the receipt
 */


#include "ngx_http_keytoll_settle.h"


#define NGX_HTTP_KEYTOLL_PENDING_MAX   200000
#define NGX_HTTP_KEYTOLL_BATCHES       32       /* under way at once         */
#define NGX_HTTP_KEYTOLL_REFUSED_MAX   5
#define NGX_HTTP_KEYTOLL_LINGER        5        /* ms, to fill a batch       */


static ngx_int_t ngx_http_keytoll_enqueue(kt_record_t *rec,
    ngx_http_keytoll_segment_t *dispatched,
    ngx_http_keytoll_segment_t *settled, u_char *bid, u_char *amounts,
    ngx_uint_t full);
static ngx_int_t ngx_http_keytoll_send_batch(void);
static void ngx_http_keytoll_settle_reply(void *data, redisReply *reply,
    ngx_uint_t last);
static void ngx_http_keytoll_settle_code(ngx_http_keytoll_settlement_t *s,
    long long code, ngx_uint_t grouped, uint64_t now_ms);
static ngx_uint_t ngx_http_keytoll_unknown_function(redisReply *error);
static ngx_uint_t ngx_http_keytoll_settle_refused(redisReply *error);
static ngx_uint_t ngx_http_keytoll_settle_again(
    ngx_http_keytoll_settlement_t *s);
static void ngx_http_keytoll_requeue(ngx_http_keytoll_batch_t *batch,
    ngx_uint_t refused);
static void ngx_http_keytoll_put_back(ngx_http_keytoll_settlement_t *s);
static void ngx_http_keytoll_settle_free(ngx_http_keytoll_settlement_t *s);
static void ngx_http_keytoll_oldest(void);
static void ngx_http_keytoll_ack(ngx_http_keytoll_settlement_t *s,
    uint64_t now_ms);
static void ngx_http_keytoll_settle_timer(ngx_event_t *ev);


static ngx_queue_t       ngx_http_keytoll_queue;
static ngx_queue_t       ngx_http_keytoll_unacked;
static ngx_uint_t        ngx_http_keytoll_pending;
static ngx_uint_t        ngx_http_keytoll_queued;
static ngx_uint_t        ngx_http_keytoll_urgent;
static uint64_t          ngx_http_keytoll_seq;
static ngx_uint_t        ngx_http_keytoll_batches;
static ngx_event_t       ngx_http_keytoll_settle_ev;
static ngx_connection_t  ngx_http_keytoll_settle_dumb;


static void
ngx_http_keytoll_settle_init(void)
{
    if (ngx_http_keytoll_queue.next) {
        return;
    }

    ngx_queue_init(&ngx_http_keytoll_queue);
    ngx_queue_init(&ngx_http_keytoll_unacked);

    ngx_http_keytoll_settle_dumb.fd = (ngx_socket_t) -1;
    ngx_http_keytoll_settle_ev.handler = ngx_http_keytoll_settle_timer;
    ngx_http_keytoll_settle_ev.data = &ngx_http_keytoll_settle_dumb;
    ngx_http_keytoll_settle_ev.log = ngx_cycle->log;
    ngx_http_keytoll_settle_ev.cancelable = 1;
}


ngx_uint_t
ngx_http_keytoll_settle_pending(void)
{
    return ngx_http_keytoll_pending;
}


/*
 * rec: the arguments of kt_settle; copied, as are bid[KT_RID_LEN], the block
 * that the request is of, or NULL, and amounts[KT_HOLD_AMOUNTS] that it
 * reserved, or NULL for nothing.  dispatched: the segment with the request's D,
 * or NULL.  NGX_ERROR when neither journal nor memory took it.
 */

ngx_int_t
ngx_http_keytoll_settle(kt_record_t *rec,
    ngx_http_keytoll_segment_t *dispatched, u_char *bid, u_char *amounts)
{
    ngx_int_t                    rc;
    ngx_http_keytoll_segment_t  *seg;

    ngx_http_keytoll_settle_init();

    seg = NULL;
    rc = ngx_http_keytoll_journal_add(rec, &seg);

    if (ngx_http_keytoll_enqueue(rec, dispatched, seg, bid, amounts, 0)
        == NGX_OK)
    {
        return NGX_OK;
    }

    if (seg) {
        seg->reread = 1;
    }

    return rc;
}


/* A settlement read back from a journal. */

ngx_int_t
ngx_http_keytoll_settle_replay(kt_record_t *rec,
    ngx_http_keytoll_segment_t *seg)
{
    ngx_http_keytoll_settle_init();
    ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_REPLAYED, 1);

    return ngx_http_keytoll_enqueue(rec, NULL, seg, NULL, NULL, 1);
}


static ngx_int_t
ngx_http_keytoll_enqueue(kt_record_t *rec,
    ngx_http_keytoll_segment_t *dispatched,
    ngx_http_keytoll_segment_t *settled, u_char *bid, u_char *amounts,
    ngx_uint_t full)
{
    size_t                          len;
    u_char                         *p;
    ngx_uint_t                      i;
    ngx_http_keytoll_settlement_t  *s;

    if (ngx_http_keytoll_pending >= NGX_HTTP_KEYTOLL_PENDING_MAX
        || rec->nfields != NGX_HTTP_KEYTOLL_SETTLE_ARGS)
    {
        return NGX_ERROR;
    }

    len = sizeof(ngx_http_keytoll_settlement_t);

    for (i = 0; i < NGX_HTTP_KEYTOLL_SETTLE_ARGS; i++) {
        len += rec->field[i].len;
    }

    len += (bid ? KT_SHARE_HEAD : 0) + (amounts ? KT_HOLD_AMOUNTS : 0);

    s = ngx_alloc(len, ngx_cycle->log);
    if (s == NULL) {
        return NGX_ERROR;
    }

    p = s->data;

    for (i = 0; i < NGX_HTTP_KEYTOLL_SETTLE_ARGS; i++) {
        s->arg[i].data = p;
        s->arg[i].len = rec->field[i].len;

        if (rec->field[i].len) {
            p = ngx_cpymem(p, rec->field[i].data, rec->field[i].len);
        }
    }

    ngx_str_null(&s->share);

    if (bid) {
        s->share.data = p;
        s->share.len = KT_SHARE_HEAD + KT_HOLD_AMOUNTS;

        p = ngx_cpymem(p, "b\t", 2);
        p = ngx_cpymem(p, bid, KT_RID_LEN);
        *p++ = '\t';
    }

    s->amounts = amounts ? p : NULL;

    if (amounts) {
        ngx_memcpy(p, amounts, KT_HOLD_AMOUNTS);
    }

    s->dispatched = dispatched;
    s->settled = settled;
    s->refused = 0;
    s->full = full;
    s->seq = ngx_http_keytoll_seq++;
    s->since_ms = ngx_http_keytoll_now_ms();

    if (settled) {
        settled->unacked++;
    }

    s->urgent = s->share.len == 0;

    ngx_http_keytoll_batch_prepare(s);

    ngx_queue_insert_tail(&ngx_http_keytoll_queue, &s->queue);
    ngx_queue_insert_tail(&ngx_http_keytoll_unacked, &s->unacked);
    ngx_http_keytoll_queued++;
    ngx_http_keytoll_urgent += s->urgent;
    ngx_http_keytoll_pending++;
    ngx_http_keytoll_gauge()->pending++;
    ngx_http_keytoll_oldest();

    ngx_http_keytoll_redis_post();

    return NGX_OK;
}


void
ngx_http_keytoll_settle_flush(void)
{
    ngx_http_keytoll_settle_init();

    /*
     * Of a block, the quota is spent here until it is settled: these may wait
     * for company.
     */

    if (ngx_http_keytoll_urgent == 0 && !ngx_exiting
        && ngx_http_keytoll_queued < NGX_HTTP_KEYTOLL_BATCH)
    {
        if (ngx_http_keytoll_queued && !ngx_http_keytoll_settle_ev.timer_set) {
            ngx_add_timer(&ngx_http_keytoll_settle_ev,
                          NGX_HTTP_KEYTOLL_LINGER);
        }

        return;
    }

    while (!ngx_queue_empty(&ngx_http_keytoll_queue)
           && ngx_http_keytoll_batches < NGX_HTTP_KEYTOLL_BATCHES
           && ngx_http_keytoll_registry_ready())
    {
        if (ngx_http_keytoll_send_batch() != NGX_OK) {
            break;
        }
    }

    if (!ngx_queue_empty(&ngx_http_keytoll_queue)
        && !ngx_http_keytoll_settle_ev.timer_set)
    {
        ngx_add_timer(&ngx_http_keytoll_settle_ev, 50);
    }
}


/* The connection is up, or ready again. */

void
ngx_http_keytoll_settle_retry(void)
{
    ngx_http_keytoll_redis_post();
}


static void
ngx_http_keytoll_settle_timer(ngx_event_t *ev)
{
    ngx_queue_t                    *q;
    ngx_http_keytoll_settlement_t  *s;

    for (q = ngx_queue_head(&ngx_http_keytoll_queue);
         q != ngx_queue_sentinel(&ngx_http_keytoll_queue);
         q = ngx_queue_next(q))
    {
        s = ngx_queue_data(q, ngx_http_keytoll_settlement_t, queue);

        if (s->urgent) {
            break;
        }

        s->urgent = 1;
        ngx_http_keytoll_urgent++;
    }

    ngx_http_keytoll_redis_post();
}


static ngx_int_t
ngx_http_keytoll_send_batch(void)
{
    ngx_queue_t                    *q;
    ngx_http_keytoll_batch_t       *batch;
    ngx_http_keytoll_settlement_t  *s;

    batch = ngx_alloc(sizeof(ngx_http_keytoll_batch_t), ngx_cycle->log);
    if (batch == NULL) {
        return NGX_ERROR;
    }

    batch->n = 0;

    while (batch->n < NGX_HTTP_KEYTOLL_BATCH
           && !ngx_queue_empty(&ngx_http_keytoll_queue))
    {
        q = ngx_queue_head(&ngx_http_keytoll_queue);
        s = ngx_queue_data(q, ngx_http_keytoll_settlement_t, queue);

        /* one that was refused goes alone, not to spoil the others */

        if (s->refused && batch->n) {
            break;
        }

        ngx_queue_remove(q);
        ngx_http_keytoll_queued--;
        ngx_http_keytoll_urgent -= s->urgent;
        batch->item[batch->n++] = s;

        if (s->refused) {
            break;
        }
    }

    if (ngx_http_keytoll_batch_send(batch, ngx_http_keytoll_settle_reply)
        != NGX_OK)
    {
        ngx_http_keytoll_requeue(batch, 0);
        return NGX_ERROR;
    }

    ngx_http_keytoll_batches++;

    return NGX_OK;
}


static void
ngx_http_keytoll_settle_reply(void *data, redisReply *reply, ngx_uint_t last)
{
    uint64_t                        wm_ms, now_ms;
    ngx_uint_t                      i, k;
    redisReply                     *code;
    ngx_http_keytoll_batch_t       *batch;
    ngx_http_keytoll_settlement_t **item;

    if (!last) {
        return;
    }

    batch = data;
    ngx_http_keytoll_batches--;

    if (reply == NULL || reply->type != REDIS_REPLY_ARRAY) {

        if (reply && reply->type == REDIS_REPLY_ERROR
            && ngx_http_keytoll_unknown_function(reply))
        {
            /* a library that knows no groups, or none at all */

            for (i = 0; i < batch->n; i++) {
                batch->item[i]->alone = 1;
            }
        }

        ngx_http_keytoll_requeue(batch,
                                 reply && reply->type == REDIS_REPLY_ERROR
                                 && ngx_http_keytoll_settle_refused(reply));
        return;
    }

    if (reply->elements != batch->groups + 2
        || reply->element[0]->type != REDIS_REPLY_STRING
        || reply->element[1]->type != REDIS_REPLY_STRING)
    {

        /* not ready: a rebuild is under way */

        ngx_http_keytoll_requeue(batch, 0);
        ngx_http_keytoll_registry_lost();
        ngx_http_keytoll_registry_refresh();
        return;
    }

    wm_ms = strtoull(reply->element[0]->str, NULL, 10);
    now_ms = strtoull(reply->element[1]->str, NULL, 10);

    item = batch->item;

    for (i = 0; i < batch->groups; i++) {
        code = reply->element[i + 2];

        for (k = 0; k < batch->group[i]; k++) {
            ngx_http_keytoll_settle_code(*item++,
                                         code->type == REDIS_REPLY_INTEGER
                                         ? code->integer : NGX_ERROR,
                                         batch->group[i] > 1, now_ms);
        }
    }

    ngx_free(batch);

    ngx_http_keytoll_journal_watermark(wm_ms);

    if (!ngx_queue_empty(&ngx_http_keytoll_queue)) {
        ngx_http_keytoll_redis_post();
    }
}


/* What kt_settle says of s, or of the group that it was in. */

static void
ngx_http_keytoll_settle_code(ngx_http_keytoll_settlement_t *s, long long code,
    ngx_uint_t grouped, uint64_t now_ms)
{
    switch (code) {

    case 0:
        ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_SETTLED, 1);
        break;

    case 1:
        ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_DUPLICATE, 1);
        break;

    case 2:
        ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_LATE, 1);
        ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_SETTLED, 1);
        break;

    case 3:

        if (grouped) {
            s->alone = 1;
            ngx_http_keytoll_put_back(s);
            return;
        }

        /* whoever has said all that it has is refused by that */

        if (!s->full || ngx_http_keytoll_settle_again(s)) {
            s->full = 1;
            ngx_http_keytoll_put_back(s);
        }

        return;

    default:

        /* not an acknowledgement */

        ngx_http_keytoll_put_back(s);
        return;
    }

    ngx_http_keytoll_ack(s, now_ms);
}


static ngx_uint_t
ngx_http_keytoll_unknown_function(redisReply *error)
{
    return ngx_strncmp(error->str, "ERR Function not found", 22) == 0;
}


/* An error of this settlement, not of a Redis that has no functions yet. */

static ngx_uint_t
ngx_http_keytoll_settle_refused(redisReply *error)
{
    return ngx_strncmp(error->str, "ERR", 3) == 0
           && !ngx_http_keytoll_unknown_function(error)
           && ngx_strncmp(error->str, "ERR unknown command", 19) != 0;
}


/* In the order of their making, whatever order the batches came back in. */

static void
ngx_http_keytoll_put_back(ngx_http_keytoll_settlement_t *s)
{
    ngx_queue_t                    *q;
    ngx_http_keytoll_settlement_t  *t;

    for (q = ngx_queue_head(&ngx_http_keytoll_queue);
         q != ngx_queue_sentinel(&ngx_http_keytoll_queue);
         q = ngx_queue_next(q))
    {
        t = ngx_queue_data(q, ngx_http_keytoll_settlement_t, queue);

        if (t->seq > s->seq) {
            break;
        }
    }

    /* before q, which is the sentinel when all are older */

    ngx_queue_insert_tail(q, &s->queue);

    s->urgent = 1;
    ngx_http_keytoll_queued++;
    ngx_http_keytoll_urgent++;
}


/* Refused: 1 when it is to be tried again, 0 when it is given up and gone. */

static ngx_uint_t
ngx_http_keytoll_settle_again(ngx_http_keytoll_settlement_t *s)
{
    if (++s->refused <= NGX_HTTP_KEYTOLL_REFUSED_MAX) {
        return 1;
    }

    ngx_log_error(NGX_LOG_CRIT, ngx_cycle->log, 0,
                  "keytoll: redis refuses the settlement of %V, it stays in "
                  "the journal", &s->arg[0]);

    if (s->settled) {
        s->settled->unacked--;
        s->settled->reread = 1;
    }

    ngx_http_keytoll_settle_free(s);

    return 0;
}


static void
ngx_http_keytoll_requeue(ngx_http_keytoll_batch_t *batch, ngx_uint_t refused)
{
    ngx_http_keytoll_settlement_t  *s;

    while (batch->n) {
        s = batch->item[--batch->n];

        if (!refused || ngx_http_keytoll_settle_again(s)) {
            ngx_http_keytoll_put_back(s);
        }
    }

    ngx_free(batch);

    if (!ngx_http_keytoll_settle_ev.timer_set) {
        ngx_add_timer(&ngx_http_keytoll_settle_ev, 50);
    }
}


static void
ngx_http_keytoll_ack(ngx_http_keytoll_settlement_t *s, uint64_t now_ms)
{
    if (s->dispatched) {
        s->dispatched->open--;
        s->dispatched->last_ack_ms = now_ms;
    }

    if (s->settled) {
        s->settled->unacked--;
        s->settled->last_ack_ms = now_ms;
    }

    ngx_http_keytoll_settle_free(s);
}


static void
ngx_http_keytoll_settle_free(ngx_http_keytoll_settlement_t *s)
{
    ngx_queue_remove(&s->unacked);
    ngx_free(s);

    ngx_http_keytoll_pending--;
    ngx_http_keytoll_gauge()->pending--;
    ngx_http_keytoll_oldest();
}


/* For the gauge: since when the one that waits longest has waited. */

static void
ngx_http_keytoll_oldest(void)
{
    ngx_http_keytoll_settlement_t  *s;

    if (ngx_queue_empty(&ngx_http_keytoll_unacked)) {
        ngx_http_keytoll_gauge()->oldest_ms = 0;
        return;
    }

    s = ngx_queue_data(ngx_queue_head(&ngx_http_keytoll_unacked),
                       ngx_http_keytoll_settlement_t, unacked);

    ngx_http_keytoll_gauge()->oldest_ms = s->since_ms;
}
