
/*
 * Settlements: journaled first, then sent in batches until Redis has
 * acknowledged each.  At least once here and idempotent there is exactly once.
 *
 *   QUEUED -> SENT -> acknowledged, freed
 *   SENT -> QUEUED      no reply, an error, or Redis is not ready; or it has
 *                       no hold of the request and wants the receipt
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_SETTLE_ARGS   7
#define NGX_HTTP_KEYTOLL_PENDING_MAX   200000
#define NGX_HTTP_KEYTOLL_BATCHES       32       /* under way at once         */
#define NGX_HTTP_KEYTOLL_REFUSED_MAX   5
#define NGX_HTTP_KEYTOLL_LINGER        5        /* ms, to fill a batch       */


typedef struct {
    ngx_queue_t                    queue;
    ngx_queue_t                    unacked;     /* all of them, by age       */
    uint64_t                       since_ms;
    ngx_str_t                      arg[NGX_HTTP_KEYTOLL_SETTLE_ARGS];
    ngx_str_t                      brief;       /* instead of the receipt    */
    ngx_http_keytoll_segment_t    *dispatched;  /* where D stands            */
    ngx_http_keytoll_segment_t    *settled;     /* where S stands            */
    uint64_t                       seq;
    ngx_uint_t                     refused;     /* times Redis said ERR      */
    ngx_uint_t                     full;        /* send the receipt, too     */
    ngx_uint_t                     urgent;      /* somebody may wait for it  */
    u_char                         data[1];
} ngx_http_keytoll_settlement_t;


typedef struct {
    ngx_uint_t                     n;
    ngx_http_keytoll_settlement_t *item[NGX_HTTP_KEYTOLL_BATCH];
} ngx_http_keytoll_batch_t;


static ngx_int_t ngx_http_keytoll_enqueue(kt_record_t *rec,
    ngx_http_keytoll_segment_t *dispatched,
    ngx_http_keytoll_segment_t *settled, ngx_str_t *brief, ngx_uint_t full);
static ngx_int_t ngx_http_keytoll_send_batch(void);
static void ngx_http_keytoll_settle_reply(void *data, redisReply *reply,
    ngx_uint_t last);
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
 * rec: the arguments of kt_settle; copied, as is brief, which Redis is told
 * first in place of the receipt; NULL or empty: the hold has it.  dispatched:
 * the segment with the request's D, or NULL.  NGX_ERROR when neither journal
 * nor memory took it.
 */

ngx_int_t
ngx_http_keytoll_settle(kt_record_t *rec,
    ngx_http_keytoll_segment_t *dispatched, ngx_str_t *brief)
{
    ngx_int_t                    rc;
    ngx_http_keytoll_segment_t  *seg;

    ngx_http_keytoll_settle_init();

    seg = NULL;
    rc = ngx_http_keytoll_journal_add(rec, &seg);

    if (ngx_http_keytoll_enqueue(rec, dispatched, seg, brief, 0) == NGX_OK) {
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

    return ngx_http_keytoll_enqueue(rec, NULL, seg, NULL, 1);
}


static ngx_int_t
ngx_http_keytoll_enqueue(kt_record_t *rec,
    ngx_http_keytoll_segment_t *dispatched,
    ngx_http_keytoll_segment_t *settled, ngx_str_t *brief, ngx_uint_t full)
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

    len += brief ? brief->len : 0;

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

    ngx_str_null(&s->brief);

    if (brief && brief->len) {
        s->brief.data = p;
        s->brief.len = brief->len;
        ngx_memcpy(p, brief->data, brief->len);
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

    s->urgent = s->brief.len == 0;

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
    ngx_str_t                       argv[4 + NGX_HTTP_KEYTOLL_BATCH
                                             * NGX_HTTP_KEYTOLL_SETTLE_ARGS];
    ngx_uint_t                      i, n;
    ngx_queue_t                    *q;
    ngx_http_keytoll_batch_t       *batch;
    ngx_http_keytoll_settlement_t  *s;

    batch = ngx_alloc(sizeof(ngx_http_keytoll_batch_t), ngx_cycle->log);
    if (batch == NULL) {
        return NGX_ERROR;
    }

    batch->n = 0;

    ngx_str_set(&argv[0], "FCALL");
    ngx_str_set(&argv[1], "kt_settle");
    ngx_str_set(&argv[2], "1");
    ngx_str_set(&argv[3], KT_REDIS_GEN);

    n = 4;

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

        for (i = 0; i < NGX_HTTP_KEYTOLL_SETTLE_ARGS; i++) {
            argv[n++] = s->arg[i];
        }

        if (!s->full) {

            /* the hold has it; Redis asks when there is none */

            argv[n - NGX_HTTP_KEYTOLL_SETTLE_ARGS + 1] = s->brief;
        }

        if (s->refused) {
            break;
        }
    }

    if (ngx_http_keytoll_redis_send(ngx_http_keytoll_settle_reply, batch, argv,
                                    n)
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
    uint64_t                   wm_ms, now_ms;
    ngx_uint_t                 i;
    redisReply                *code;
    ngx_http_keytoll_batch_t  *batch;

    if (!last) {
        return;
    }

    batch = data;
    ngx_http_keytoll_batches--;

    if (reply == NULL || reply->type != REDIS_REPLY_ARRAY) {
        ngx_http_keytoll_requeue(batch,
                                 reply && reply->type == REDIS_REPLY_ERROR
                                 && ngx_http_keytoll_settle_refused(reply));
        return;
    }

    if (reply->elements != batch->n + 2
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

    for (i = 0; i < batch->n; i++) {
        code = reply->element[i + 2];

        switch (code->type == REDIS_REPLY_INTEGER ? code->integer : NGX_ERROR)
        {

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

            /* whoever has said all that it has is refused by that */

            if (!batch->item[i]->full
                || ngx_http_keytoll_settle_again(batch->item[i]))
            {
                batch->item[i]->full = 1;
                ngx_http_keytoll_put_back(batch->item[i]);
            }

            continue;

        default:

            /* not an acknowledgement */

            ngx_http_keytoll_put_back(batch->item[i]);
            continue;
        }

        ngx_http_keytoll_ack(batch->item[i], now_ms);
    }

    ngx_free(batch);

    ngx_http_keytoll_journal_watermark(wm_ms);

    if (!ngx_queue_empty(&ngx_http_keytoll_queue)) {
        ngx_http_keytoll_redis_post();
    }
}


/* An error of this settlement, not of a Redis that has no functions yet. */

static ngx_uint_t
ngx_http_keytoll_settle_refused(redisReply *error)
{
    return ngx_strncmp(error->str, "ERR", 3) == 0
           && ngx_strncmp(error->str, "ERR Function not found", 22) != 0
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
