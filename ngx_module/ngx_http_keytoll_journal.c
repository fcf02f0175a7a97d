
/*
 * The worker's journal: what went upstream (D) and what it cost (S), written
 * before the world may depend on it, with one write() a turn.
 *
 * A segment is a file "<pid>-<start>-<seq>.ktj", appended by its owner only.
 * It is deleted when every D in it has an acknowledged S, every S is
 * acknowledged, and PostgreSQL has committed what Redis acknowledged (the
 * watermark, less the tail that a restarted Redis may have forgotten).
 *
 * Segments of a process that is gone are taken over, all of one owner under
 * one lock: first every S is sent again, then every D as a lost request.  What
 * was settled already is dropped by its id.
 */


#include "ngx_http_keytoll_module.h"

#include <sys/file.h>
#include <sys/mman.h>


#define NGX_HTTP_KEYTOLL_TAIL_MS      10000     /* see controld/ledger.c     */
#define NGX_HTTP_KEYTOLL_AGE_S        30
#define NGX_HTTP_KEYTOLL_REPLAY_MAX   256       /* live traffic goes first   */


typedef struct {
    ngx_queue_t                    queue;
    ngx_http_keytoll_segment_t    *segment;
    ngx_uint_t                     dispatches;  /* pass two: the D as lost   */
} ngx_http_keytoll_replay_t;


static ngx_int_t ngx_http_keytoll_journal_room(size_t need);
static void ngx_http_keytoll_journal_put(void);
static ngx_http_keytoll_segment_t *ngx_http_keytoll_segment(ngx_str_t *path);
static ngx_int_t ngx_http_keytoll_segment_open(void);
static void ngx_http_keytoll_segment_seal(void);
static void ngx_http_keytoll_collect(void);
static void ngx_http_keytoll_adopt(void);
static ngx_uint_t ngx_http_keytoll_owned(u_char *name, ngx_uint_t *mine);
static uint64_t ngx_http_keytoll_process_start(ngx_pid_t pid);
static void ngx_http_keytoll_replay_first(ngx_http_keytoll_segment_t *seg);
static void ngx_http_keytoll_replay_add(ngx_http_keytoll_segment_t *seg,
    ngx_uint_t dispatches);
static ngx_uint_t ngx_http_keytoll_unsettled(void);
static void ngx_http_keytoll_replay_next(ngx_event_t *ev);
static void ngx_http_keytoll_replay_file(ngx_http_keytoll_segment_t *seg,
    ngx_uint_t dispatches);
static void ngx_http_keytoll_replay_lost(kt_record_t *rec,
    ngx_http_keytoll_segment_t *seg);
static void ngx_http_keytoll_journal_timer(ngx_event_t *ev);
static void ngx_http_keytoll_watermark_reply(void *data, redisReply *reply,
    ngx_uint_t last);


static ngx_queue_t                  ngx_http_keytoll_segments;
static ngx_queue_t                  ngx_http_keytoll_replays;
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
static ngx_event_t                  ngx_http_keytoll_replay_ev;
static ngx_connection_t             ngx_http_keytoll_journal_dumb;


ngx_int_t
ngx_http_keytoll_journal_init(ngx_cycle_t *cycle)
{
    ngx_queue_init(&ngx_http_keytoll_segments);
    ngx_queue_init(&ngx_http_keytoll_replays);

    if (ngx_http_keytoll_conf()->journal == NULL) {
        return NGX_OK;
    }

    ngx_http_keytoll_start_time = ngx_http_keytoll_process_start(ngx_pid);

    ngx_http_keytoll_journal_dumb.fd = (ngx_socket_t) -1;

    ngx_http_keytoll_journal_ev.handler = ngx_http_keytoll_journal_timer;
    ngx_http_keytoll_journal_ev.data = &ngx_http_keytoll_journal_dumb;
    ngx_http_keytoll_journal_ev.log = cycle->log;
    ngx_http_keytoll_journal_ev.cancelable = 1;

    ngx_http_keytoll_replay_ev.handler = ngx_http_keytoll_replay_next;
    ngx_http_keytoll_replay_ev.data = &ngx_http_keytoll_journal_dumb;
    ngx_http_keytoll_replay_ev.log = cycle->log;
    ngx_http_keytoll_replay_ev.cancelable = 1;

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


static ngx_http_keytoll_segment_t *
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


static u_char *
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


/* Redis may have forgotten: every settlement still kept is sent again. */

void
ngx_http_keytoll_journal_replay(void)
{
    ngx_queue_t  *q;

    if (ngx_http_keytoll_segments.next == NULL) {
        return;
    }

    for (q = ngx_queue_head(&ngx_http_keytoll_segments);
         q != ngx_queue_sentinel(&ngx_http_keytoll_segments);
         q = ngx_queue_next(q))
    {
        ngx_http_keytoll_replay_add(ngx_queue_data(q,
                                            ngx_http_keytoll_segment_t, queue),
                                    0);
    }
}


/* Before what waits: a lost S may hold up the D of its owner. */

static void
ngx_http_keytoll_replay_first(ngx_http_keytoll_segment_t *seg)
{
    ngx_queue_t  *q;

    ngx_http_keytoll_replay_add(seg, 0);

    if (!seg->reread) {
        q = ngx_queue_last(&ngx_http_keytoll_replays);
        ngx_queue_remove(q);
        ngx_queue_insert_head(&ngx_http_keytoll_replays, q);
    }
}


static void
ngx_http_keytoll_replay_add(ngx_http_keytoll_segment_t *seg,
    ngx_uint_t dispatches)
{
    ngx_http_keytoll_replay_t  *rp;

    rp = ngx_alloc(sizeof(ngx_http_keytoll_replay_t), ngx_cycle->log);
    if (rp == NULL) {
        seg->reread = 1;
        return;
    }

    rp->segment = seg;
    rp->dispatches = dispatches;
    seg->reading++;

    ngx_queue_insert_tail(&ngx_http_keytoll_replays, &rp->queue);

    if (!ngx_http_keytoll_replay_ev.timer_set) {
        ngx_add_timer(&ngx_http_keytoll_replay_ev, 1);
    }
}


/*
 * Whether a settlement of a dead process still waits for Redis: until it has
 * been applied, its D would be taken for a lost request.
 */

static ngx_uint_t
ngx_http_keytoll_unsettled(void)
{
    ngx_queue_t                 *q;
    ngx_http_keytoll_segment_t  *seg;

    for (q = ngx_queue_head(&ngx_http_keytoll_segments);
         q != ngx_queue_sentinel(&ngx_http_keytoll_segments);
         q = ngx_queue_next(q))
    {
        seg = ngx_queue_data(q, ngx_http_keytoll_segment_t, queue);

        if (seg->adopted && (seg->unacked || seg->reread)) {
            return 1;
        }
    }

    return 0;
}


/* One segment a turn, and no more than memory should hold. */

static void
ngx_http_keytoll_replay_next(ngx_event_t *ev)
{
    ngx_queue_t                *q;
    ngx_http_keytoll_replay_t  *rp;

    if (ngx_queue_empty(&ngx_http_keytoll_replays)) {
        return;
    }

    if (ngx_http_keytoll_settle_pending() > NGX_HTTP_KEYTOLL_REPLAY_MAX
        || !ngx_http_keytoll_registry_ready())
    {
        ngx_add_timer(ev, 10);
        return;
    }

    q = ngx_queue_head(&ngx_http_keytoll_replays);
    rp = ngx_queue_data(q, ngx_http_keytoll_replay_t, queue);

    if (rp->dispatches && ngx_http_keytoll_unsettled()) {
        ngx_add_timer(ev, 10);
        return;
    }

    ngx_queue_remove(q);

    ngx_http_keytoll_replay_file(rp->segment, rp->dispatches);
    rp->segment->reading--;
    ngx_free(rp);

    ngx_add_timer(ev, 1);
}


static void
ngx_http_keytoll_replay_file(ngx_http_keytoll_segment_t *seg,
    ngx_uint_t dispatches)
{
    size_t         n, at, size;
    u_char        *p;
    ngx_fd_t       fd;
    kt_record_t    rec;
    struct stat    st;

    fd = open((char *) seg->path.data,
              O_RDONLY|O_NOFOLLOW|O_NONBLOCK|O_CLOEXEC);

    if (fd == NGX_INVALID_FILE || fstat(fd, &st) == -1) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, ngx_errno,
                      "keytoll: cannot read journal \"%V\"", &seg->path);

        if (fd != NGX_INVALID_FILE) {
            (void) ngx_close_file(fd);
        }

        return;
    }

    size = (size_t) st.st_size;

    p = size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE|MAP_POPULATE, fd, 0)
             : MAP_FAILED;

    (void) ngx_close_file(fd);

    if (p == MAP_FAILED) {
        return;
    }

    for (at = 0; kt_record_read(p + at, size - at, &rec, &n) == KT_OK; at += n)
    {
        if (rec.type == KT_RECORD_SETTLE && !dispatches) {
            if (ngx_http_keytoll_settle_replay(&rec, seg) != NGX_OK) {
                seg->reread = 1;
                break;
            }

        } else if (rec.type == KT_RECORD_DISPATCH && dispatches) {
            ngx_http_keytoll_replay_lost(&rec, seg);
        }
    }

    if (at < size && seg->sealed) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "keytoll: journal \"%V\" ends in a torn record at %uz",
                      &seg->path, at);
    }

    (void) munmap(p, size);
}


/*
 * A request whose worker died: its input estimate, unless it was settled.
 * D's second field is its hold (lua/hold.lua).
 */

static void
ngx_http_keytoll_replay_lost(kt_record_t *d, ngx_http_keytoll_segment_t *seg)
{
    u_char       *p, *last, *receipt, cost[NGX_INT64_LEN];
    int32_t       lo;
    int64_t       hi;
    kt_record_t   rec;

    if (d->nfields != 2 || d->field[1].len < KT_HOLD_HEAD
        || *(u_char *) d->field[1].data != 'H')
    {
        return;
    }

    p = (u_char *) d->field[1].data;
    last = p + d->field[1].len;
    receipt = p + KT_HOLD_HEAD;

    ngx_memcpy(&hi, p + KT_HOLD_ESTIMATE, sizeof(int64_t));
    ngx_memcpy(&lo, p + KT_HOLD_ESTIMATE + 8, sizeof(int32_t));

    p = ngx_strlchr(receipt, last, '=');
    while (p && (p == receipt || p[-1] != LF)) {
        p = ngx_strlchr(p + 1, last, '=');
    }

    if (p == NULL || last - p < 2) {
        return;
    }

    ngx_memzero(&rec, sizeof(kt_record_t));

    rec.type = KT_RECORD_SETTLE;
    rec.nfields = 7;
    rec.field[0] = d->field[0];
    rec.field[1].data = receipt;
    rec.field[1].len = p - receipt;
    rec.field[2].data = cost;
    rec.field[2].len = ngx_sprintf(cost, "%L", hi * 1000000000 + lo) - cost;
    rec.field[3].data = (u_char *) "0";
    rec.field[3].len = 1;
    rec.field[4] = rec.field[3];
    rec.field[5] = rec.field[3];
    rec.field[6].data = p + 2;
    rec.field[6].len = last - p - 2;

    (void) ngx_http_keytoll_settle_replay(&rec, seg);
}


/* Takes over the segments of processes that are gone. */

static void
ngx_http_keytoll_adopt(void)
{
    u_char                       old[NGX_MAX_PATH], name[NGX_MAX_PATH];
    ngx_fd_t                     lock;
    ngx_dir_t                    dir;
    ngx_str_t                   *base, path;
    ngx_uint_t                   mine;
    ngx_queue_t                  taken, *q;
    ngx_file_info_t              fi;
    ngx_http_keytoll_segment_t  *seg;
    ngx_http_keytoll_replay_t   *rp;

    base = &ngx_http_keytoll_conf()->journal->name;

    *ngx_sprintf(old, "%V/lock", base) = '\0';

    lock = open((char *) old, O_RDWR|O_CREAT|O_NOFOLLOW|O_CLOEXEC, 0600);
    if (lock == NGX_INVALID_FILE) {
        return;
    }

    if (flock(lock, LOCK_EX|LOCK_NB) == -1
        || ngx_open_dir(base, &dir) == NGX_ERROR)
    {
        (void) ngx_close_file(lock);
        return;
    }

    ngx_queue_init(&taken);

    while (ngx_read_dir(&dir) == NGX_OK) {

        if (ngx_http_keytoll_owned(ngx_de_name(&dir), &mine)) {
            continue;
        }

        *ngx_sprintf(old, "%V/%s", base, ngx_de_name(&dir)) = '\0';
        path.data = name;
        path.len = ngx_http_keytoll_segment_name(name) - name;

        if (ngx_rename_file(old, name) == NGX_FILE_ERROR) {
            continue;
        }

        seg = ngx_http_keytoll_segment(&path);
        rp = ngx_alloc(sizeof(ngx_http_keytoll_replay_t), ngx_cycle->log);

        if (seg == NULL || rp == NULL) {
            break;
        }

        if (ngx_file_info(name, &fi) != NGX_FILE_ERROR) {
            seg->size = ngx_file_size(&fi);
            ngx_http_keytoll_gauge()->journal += seg->size;
        }

        seg->sealed = 1;
        seg->adopted = 1;
        rp->segment = seg;
        ngx_queue_insert_tail(&taken, &rp->queue);
        ngx_http_keytoll_count(NGX_HTTP_KEYTOLL_N_ADOPTED, 1);
    }

    (void) ngx_close_dir(&dir);

    for (q = ngx_queue_head(&taken); q != ngx_queue_sentinel(&taken);
         q = ngx_queue_next(q))
    {
        rp = ngx_queue_data(q, ngx_http_keytoll_replay_t, queue);
        ngx_http_keytoll_replay_add(rp->segment, 0);
    }

    while (!ngx_queue_empty(&taken)) {
        q = ngx_queue_head(&taken);
        ngx_queue_remove(q);

        rp = ngx_queue_data(q, ngx_http_keytoll_replay_t, queue);
        ngx_http_keytoll_replay_add(rp->segment, 1);
        ngx_free(rp);
    }

    (void) ngx_close_file(lock);
}


/* 1 unless name is a segment whose process is gone. */

static ngx_uint_t
ngx_http_keytoll_owned(u_char *name, ngx_uint_t *mine)
{
    char                *end;
    long                 pid;
    unsigned long long   start;

    pid = strtol((char *) name, &end, 10);
    if (pid <= 0 || *end != '-') {
        return 1;
    }

    start = strtoull(end + 1, &end, 10);
    if (*end != '-') {
        return 1;
    }

    (void) strtoull(end + 1, &end, 10);
    if (ngx_strcmp(end, ".ktj") != 0) {
        return 1;
    }

    *mine = pid == ngx_pid;

    return ngx_http_keytoll_process_start((ngx_pid_t) pid) == start;
}


/* Field 22 of /proc/PID/stat; 0 when there is no such process. */

static uint64_t
ngx_http_keytoll_process_start(ngx_pid_t pid)
{
    char      *p, buf[1024];
    u_char     name[64];
    ssize_t    n;
    ngx_fd_t   fd;
    ngx_uint_t i;

    *ngx_sprintf(name, "/proc/%P/stat", pid) = '\0';

    fd = open((char *) name, O_RDONLY|O_CLOEXEC);
    if (fd == NGX_INVALID_FILE) {
        return 0;
    }

    n = read(fd, buf, sizeof(buf) - 1);
    (void) ngx_close_file(fd);

    if (n <= 0) {
        return 0;
    }

    buf[n] = '\0';

    /* the second field is in parentheses and may hold spaces */

    p = strrchr(buf, ')');

    for (i = 2; p && i < 22; i++) {
        p = strchr(p + 1, ' ');
    }

    return p ? strtoull(p + 1, NULL, 10) : 0;
}
