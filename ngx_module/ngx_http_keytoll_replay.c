
/*
 * Reading journals again: those of this worker when Redis may have forgotten,
 * and those of processes that are gone.  The latter are taken over, all of one
 * owner under one lock: first every S is sent again, then every D as a lost
 * request.  What was settled already is dropped by its id.
 */


#include "ngx_http_keytoll_module.h"

#include <sys/file.h>
#include <sys/mman.h>


#define NGX_HTTP_KEYTOLL_REPLAY_MAX   256       /* live traffic goes first   */


typedef struct {
    ngx_queue_t                    queue;
    ngx_http_keytoll_segment_t    *segment;
    ngx_uint_t                     dispatches;  /* pass two: the D as lost   */
} ngx_http_keytoll_replay_t;


static void ngx_http_keytoll_replay_add(ngx_http_keytoll_segment_t *seg,
    ngx_uint_t dispatches);
static ngx_uint_t ngx_http_keytoll_unsettled(void);
static void ngx_http_keytoll_replay_next(ngx_event_t *ev);
static void ngx_http_keytoll_replay_file(ngx_http_keytoll_segment_t *seg,
    ngx_uint_t dispatches);
static void ngx_http_keytoll_replay_lost(kt_record_t *rec,
    ngx_http_keytoll_segment_t *seg);
static ngx_uint_t ngx_http_keytoll_owned(u_char *name, ngx_uint_t *mine);


static ngx_queue_t       ngx_http_keytoll_replays;
static ngx_event_t       ngx_http_keytoll_replay_ev;
static ngx_connection_t  ngx_http_keytoll_replay_dumb;


void
ngx_http_keytoll_replay_init(ngx_cycle_t *cycle)
{
    ngx_queue_init(&ngx_http_keytoll_replays);

    ngx_http_keytoll_replay_dumb.fd = (ngx_socket_t) -1;

    ngx_http_keytoll_replay_ev.handler = ngx_http_keytoll_replay_next;
    ngx_http_keytoll_replay_ev.data = &ngx_http_keytoll_replay_dumb;
    ngx_http_keytoll_replay_ev.log = cycle->log;
    ngx_http_keytoll_replay_ev.cancelable = 1;
}


/* Redis may have forgotten: every settlement still kept is sent again. */

void
ngx_http_keytoll_journal_replay(void)
{
    ngx_queue_t  *q, *segments;

    segments = ngx_http_keytoll_journal_segments();

    if (segments == NULL) {
        return;
    }

    for (q = ngx_queue_head(segments);
         q != ngx_queue_sentinel(segments);
         q = ngx_queue_next(q))
    {
        ngx_http_keytoll_replay_add(ngx_queue_data(q,
                                            ngx_http_keytoll_segment_t, queue),
                                    0);
    }
}


/* Before what waits: a lost S may hold up the D of its owner. */

void
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
    ngx_queue_t                 *q, *segments;
    ngx_http_keytoll_segment_t  *seg;

    segments = ngx_http_keytoll_journal_segments();

    for (q = ngx_queue_head(segments);
         q != ngx_queue_sentinel(segments);
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

void
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

uint64_t
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
