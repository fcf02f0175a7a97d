
/*
 * The worker's journal: what went upstream (D) and what it cost (S), written
 * before the world may depend on it, with one write() a turn.
 *
 * A segment is a file "<pid>-<start>-<seq>.ktj", appended by its owner only.
 * It is deleted when every D in it has an acknowledged S, every S is
 * acknowledged, and PostgreSQL has committed what Redis acknowledged (the
 * watermark, less the tail that a restarted Redis may have forgotten).
 * What is left behind by others, or forgotten by Redis, is read by replay.c.
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_TAIL_MS      10000     /* see controld/ledger.c     */
#define NGX_HTTP_KEYTOLL_AGE_S        30


static ngx_int_t ngx_http_keytoll_journal_room(size_t need);
static void ngx_http_keytoll_journal_put(void);
static ngx_int_t ngx_http_keytoll_segment_open(void);
static void ngx_http_keytoll_segment_seal(void);
static void ngx_http_keytoll_collect(void);
static void ngx_http_keytoll_journal_timer(ngx_event_t *ev);
static void ngx_http_keytoll_watermark_reply(void *data, redisReply *reply,
    ngx_uint_t last);


static ngx_queue_t                  ngx_http_keytoll_segments;
static ngx_http_keytoll_segment_t  *ngx_http_keytoll_current;
static uint64_t                     ngx_http_keytoll_start_time;
static uint64_t                     ngx_http_keytoll_wm_ms;
static ngx_uint_t                   ngx_http_keytoll_seq;
static time_t                       ngx_http_keytoll_failed;
static u_char                      *ngx_http_keytoll_buf;
static size_t                       ngx_http_keytoll_buf_len;
static size_t                       ngx_http_keytoll_buf_size;
static ngx_uint_t                   ngx_http_keytoll_lost;
static ngx_event_t                  ngx_http_keytoll_journal_ev;
static ngx_connection_t             ngx_http_keytoll_journal_dumb;


ngx_int_t
ngx_http_keytoll_journal_init(ngx_cycle_t *cycle)
{
    ngx_queue_init(&ngx_http_keytoll_segments);

    if (ngx_http_keytoll_conf()->journal == NULL) {
        return NGX_OK;
    }

    ngx_http_keytoll_start_time = ngx_http_keytoll_process_start(ngx_pid);
    ngx_http_keytoll_replay_init(cycle);

    ngx_http_keytoll_journal_dumb.fd = (ngx_socket_t) -1;

    ngx_http_keytoll_journal_ev.handler = ngx_http_keytoll_journal_timer;
    ngx_http_keytoll_journal_ev.data = &ngx_http_keytoll_journal_dumb;
    ngx_http_keytoll_journal_ev.log = cycle->log;
    ngx_http_keytoll_journal_ev.cancelable = 1;

    ngx_add_timer(&ngx_http_keytoll_journal_ev, 100);

    return NGX_OK;
}


/* 0 for a second after a write has failed: nothing is admitted unrecorded. */

ngx_uint_t
ngx_http_keytoll_journal_ok(void)
{
    return ngx_http_keytoll_failed == 0
           || ngx_time() - ngx_http_keytoll_failed > 1;
}


/*
 * Adds a record to the current segment; journal_sync() writes it.  *segment is
 * where it will stand, NULL without a journal.
 */

ngx_int_t
ngx_http_keytoll_journal_add(kt_record_t *rec,
    ngx_http_keytoll_segment_t **segment)
{
    size_t                       need, n;
    ngx_http_keytoll_segment_t  *seg;

    *segment = NULL;

    if (ngx_http_keytoll_conf()->journal == NULL) {
        return NGX_OK;
    }

    need = kt_record_size(rec);
    seg = ngx_http_keytoll_current;

    if (seg && seg->size + (off_t) need > NGX_HTTP_KEYTOLL_SEGMENT) {
        ngx_http_keytoll_journal_put();

        if (ngx_http_keytoll_current) {
            ngx_http_keytoll_segment_seal();
        }
    }

    if (ngx_http_keytoll_current == NULL
        && ngx_http_keytoll_segment_open() != NGX_OK)
    {
        ngx_http_keytoll_failed = ngx_time();
        ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_JOURNAL_ERRORS, 1);
        return NGX_ERROR;
    }

    if (ngx_http_keytoll_journal_room(need) != NGX_OK
        || kt_record_write(rec,
                           ngx_http_keytoll_buf + ngx_http_keytoll_buf_len,
                           need, &n)
           != KT_OK)
    {
        return NGX_ERROR;
    }

    ngx_http_keytoll_buf_len += n;
    ngx_http_keytoll_current->size += n;
    ngx_http_keytoll_gauge()->journal += n;
    *segment = ngx_http_keytoll_current;

    ngx_http_keytoll_redis_post();

    return NGX_OK;
}


static ngx_int_t
ngx_http_keytoll_journal_room(size_t need)
{
    u_char  *p;
    size_t   size;

    if (ngx_http_keytoll_buf_size - ngx_http_keytoll_buf_len >= need) {
        return NGX_OK;
    }

    size = 2 * (ngx_http_keytoll_buf_len + need) + 65536;

    p = ngx_alloc(size, ngx_cycle->log);
    if (p == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_keytoll_buf) {
        ngx_memcpy(p, ngx_http_keytoll_buf, ngx_http_keytoll_buf_len);
        ngx_free(ngx_http_keytoll_buf);
    }

    ngx_http_keytoll_buf = p;
    ngx_http_keytoll_buf_size = size;

    return NGX_OK;
}


/*
 * Writes all that was added in this turn of the event loop.  NGX_ERROR when
 * any of it is not on disk.
 */

ngx_int_t
ngx_http_keytoll_journal_sync(void)
{
    ngx_uint_t  lost;

    ngx_http_keytoll_journal_put();

    lost = ngx_http_keytoll_lost;
    ngx_http_keytoll_lost = 0;

    return lost ? NGX_ERROR : NGX_OK;
}


static void
ngx_http_keytoll_journal_put(void)
{
    size_t                       len;
    ssize_t                      n;
    ngx_http_keytoll_segment_t  *seg;

    len = ngx_http_keytoll_buf_len;

    if (len == 0) {
        return;
    }

    ngx_http_keytoll_buf_len = 0;
    seg = ngx_http_keytoll_current;

    n = write(seg->fd, ngx_http_keytoll_buf, len);

    if (n == (ssize_t) len) {
        ngx_http_keytoll_failed = 0;
        ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_JOURNAL_BYTES,
                               (ngx_atomic_int_t) len);
        return;
    }

    ngx_log_error(NGX_LOG_CRIT, ngx_cycle->log, n < 0 ? ngx_errno : 0,
                  "keytoll: write() to journal \"%V\" failed, nothing "
                  "is admitted until it works again", &seg->path);

    ngx_http_keytoll_lost = 1;
    ngx_http_keytoll_failed = ngx_time();
    ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_JOURNAL_ERRORS, 1);

    /* a torn record ends a segment for its readers */

    ngx_http_keytoll_segment_seal();
}


/* NULL before the worker has begun. */

ngx_queue_t *
ngx_http_keytoll_journal_segments(void)
{
    return ngx_http_keytoll_segments.next ? &ngx_http_keytoll_segments : NULL;
}


/* A segment of a file that is there or will be; it goes when it is settled. */

ngx_http_keytoll_segment_t *
ngx_http_keytoll_segment(ngx_str_t *path)
{
    ngx_http_keytoll_segment_t  *seg;

    seg = ngx_calloc(sizeof(ngx_http_keytoll_segment_t) + path->len + 1,
                     ngx_cycle->log);
    if (seg == NULL) {
        return NULL;
    }

    seg->fd = NGX_INVALID_FILE;
    seg->created = ngx_time();
    seg->path.data = seg->path_data;
    seg->path.len = path->len;
    ngx_memcpy(seg->path_data, path->data, path->len);

    ngx_queue_insert_tail(&ngx_http_keytoll_segments, &seg->queue);
    ngx_http_keytoll_gauge()->segments++;

    return seg;
}


static void
ngx_http_keytoll_segment_free(ngx_http_keytoll_segment_t *seg)
{
    ngx_http_keytoll_gauge()->segments--;
    ngx_http_keytoll_gauge()->journal -= seg->size;

    ngx_queue_remove(&seg->queue);
    ngx_free(seg);
}


/* The path of this worker's next segment; p: NGX_MAX_PATH.  Returns its end. */

u_char *
ngx_http_keytoll_segment_name(u_char *p)
{
    ngx_str_t  *dir;

    dir = &ngx_http_keytoll_conf()->journal->name;

    p = ngx_sprintf(p, "%V/%P-%uL-%ui.ktj", dir, ngx_pid,
                    ngx_http_keytoll_start_time, ngx_http_keytoll_seq++);
    *p = '\0';

    return p;
}


static ngx_int_t
ngx_http_keytoll_segment_open(void)
{
    u_char                       name[NGX_MAX_PATH];
    ngx_str_t                    path;
    ngx_http_keytoll_segment_t  *seg;

    path.data = name;
    path.len = ngx_http_keytoll_segment_name(name) - name;

    seg = ngx_http_keytoll_segment(&path);
    if (seg == NULL) {
        return NGX_ERROR;
    }

    seg->fd = open((char *) name, O_WRONLY|O_CREAT|O_EXCL|O_APPEND|O_CLOEXEC,
                   0600);

    if (seg->fd == NGX_INVALID_FILE) {
        ngx_log_error(NGX_LOG_CRIT, ngx_cycle->log, ngx_errno,
                      "keytoll: open() journal \"%V\" failed", &path);
        ngx_http_keytoll_segment_free(seg);
        return NGX_ERROR;
    }

    ngx_http_keytoll_current = seg;

    return NGX_OK;
}


static void
ngx_http_keytoll_segment_seal(void)
{
    ngx_http_keytoll_segment_t  *seg;

    seg = ngx_http_keytoll_current;
    ngx_http_keytoll_current = NULL;

    (void) ngx_close_file(seg->fd);
    seg->fd = NGX_INVALID_FILE;
    seg->sealed = 1;
}


void
ngx_http_keytoll_journal_watermark(uint64_t wm_ms)
{
    if (wm_ms > ngx_http_keytoll_wm_ms) {
        ngx_http_keytoll_wm_ms = wm_ms;
        ngx_http_keytoll_collect();
    }
}


static void
ngx_http_keytoll_collect(void)
{
    ngx_queue_t                 *q, *next;
    ngx_http_keytoll_segment_t  *seg;

    for (q = ngx_queue_head(&ngx_http_keytoll_segments);
         q != ngx_queue_sentinel(&ngx_http_keytoll_segments);
         q = next)
    {
        next = ngx_queue_next(q);
        seg = ngx_queue_data(q, ngx_http_keytoll_segment_t, queue);

        if (seg->reread && seg->sealed && !seg->unacked) {
            seg->reread = 0;
            ngx_http_keytoll_replay_first(seg);
            continue;
        }

        if (!seg->sealed || seg->open || seg->unacked || seg->reading) {
            continue;
        }

        if (seg->last_ack_ms + NGX_HTTP_KEYTOLL_TAIL_MS
            >= ngx_http_keytoll_wm_ms)
        {
            continue;
        }

        if (ngx_delete_file(seg->path.data) == NGX_FILE_ERROR) {
            ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, ngx_errno,
                          "keytoll: cannot delete journal \"%V\"",
                          &seg->path);
        }

        ngx_http_keytoll_segment_free(seg);
    }
}


static void
ngx_http_keytoll_journal_timer(ngx_event_t *ev)
{
    ngx_str_t                    argv[3];
    ngx_http_keytoll_segment_t  *seg;

    seg = ngx_http_keytoll_current;

    if (seg && seg->size && ngx_http_keytoll_buf_len == 0
        && ngx_time() - seg->created > NGX_HTTP_KEYTOLL_AGE_S)
    {
        ngx_http_keytoll_segment_seal();
    }

    if (!ngx_exiting) {
        ngx_http_keytoll_adopt();
    }

    ngx_http_keytoll_collect();

    if (!ngx_queue_empty(&ngx_http_keytoll_segments)) {
        ngx_str_set(&argv[0], "MGET");
        ngx_str_set(&argv[1], KT_REDIS_WM);
        ngx_str_set(&argv[2], KT_REDIS_EPOCH);

        (void) ngx_http_keytoll_redis_send(ngx_http_keytoll_watermark_reply,
                                           NULL, argv, 3);
    }

    ngx_add_timer(ev, 1000);
}


static void
ngx_http_keytoll_watermark_reply(void *data, redisReply *reply,
    ngx_uint_t last)
{
    redisReply  *wm;

    if (reply == NULL || reply->type != REDIS_REPLY_ARRAY
        || reply->elements != 2)
    {
        return;
    }

    /* an emptied Redis first: what it forgot must not be let go */

    ngx_http_keytoll_registry_epoch(reply->element[1]);

    wm = reply->element[0];

    if (wm->type == REDIS_REPLY_STRING) {
        ngx_http_keytoll_journal_watermark(strtoull(wm->str, NULL, 10));
    }
}
