/*
 * keytoll-mock -l address:port [-p pidfile] [-t threads]
 *
 * The loop: edge-triggered epoll, one timer heap, one connection at a time.
 *
 *   READ     waiting for (the rest of) a request
 *   DELAY    waiting for the time of the first byte or of the next event
 *   SPLIT    the next piece of a split write goes out in the next turn
 *   WRITE    the socket is full
 *   RESET    all ordered bytes are out, the RST follows shortly
 *   LINGER   closing after an error: reading until the client has closed
 *
 * A client that closes while an answer is under way has aborted it.
 */

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "mock.h"


#define MOCK_THREADS     64
#define MOCK_RESET_MS    30            /* lets the client read what it got  */
#define MOCK_LINGER_MS   1000


enum {
    MOCK_READ = 0,
    MOCK_DELAY,
    MOCK_SPLIT,
    MOCK_WRITE,
    MOCK_RESET,
    MOCK_LINGER
};


static int  mock_stop[2];              /* readable when it is time to go    */


static void
mock_clock(mock_loop_t *l)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    l->now_ms = (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000;

    clock_gettime(CLOCK_REALTIME_COARSE, &ts);
    l->created = ts.tv_sec;
}


static void
mock_wait(mock_conn_t *c, int64_t ms, int state)
{
    c->state = state;
    mock_timer_add(c, ms);
}


static void
mock_free(mock_buf_t *b)
{
    free(b->p);
}


static void
mock_close(mock_conn_t *c)
{
    mock_timer_del(c);

    if (c->prev) {
        c->prev->next = c->next;

    } else {
        c->loop->conns = c->next;
    }

    if (c->next) {
        c->next->prev = c->prev;
    }

    (void) close(c->fd);
    mock_gzip_end(&c->job);
    mock_free(&c->in);
    mock_free(&c->out);
    mock_free(&c->event);
    free(c->ends);
    free(c);
}


static void
mock_abort(mock_conn_t *c)
{
    mock_route_done(c, MOCK_ABORTED);
    mock_close(c);
}


/* Closes with an RST, unread bytes or not. */

static void
mock_reset(mock_conn_t *c)
{
    struct linger  l = { 1, 0 };

    (void) setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
    mock_close(c);
}


/*
 * Reads all there is.  Bytes that come while an answer is under way wait in
 * the buffer.
 */

static void
mock_read(mock_conn_t *c)
{
    size_t   room;
    ssize_t  n;

    for ( ;; ) {
        mock_reserve(&c->in, 8192);
        room = c->in.cap - c->in.len;
        n = read(c->fd, c->in.p + c->in.len, room);

        if (n > 0) {
            if (c->state == MOCK_LINGER) {
                continue;
            }

            c->in.len += (size_t) n;

            if ((size_t) n < room) {
                return;
            }

            continue;
        }

        if (n < 0 && errno == EINTR) {
            continue;
        }

        if (n == 0 || errno != EAGAIN) {
            c->eof = 1;
        }

        return;
    }
}


/*
 * Writes what the orders allow in one go.  Returns 1 when all is written; 0
 * when something must happen first, or when the connection is gone.
 */

static int
mock_write(mock_conn_t *c)
{
    size_t   n, left;
    ssize_t  w;

    while (c->out_off < c->out.len) {
        n = c->out.len - c->out_off;

        if (c->req.split > 0 && n > (size_t) c->req.split) {
            n = (size_t) c->req.split;
        }

        if (c->req.reset_after >= 0) {
            left = (size_t) (c->req.reset_after - c->job.sent);
            n = n < left ? n : left;
        }

        w = n ? send(c->fd, c->out.p + c->out_off, n, MSG_NOSIGNAL) : 0;

        if (w < 0) {
            if (errno == EINTR) {
                continue;
            }

            if (errno == EAGAIN) {
                c->state = MOCK_WRITE;
                return 0;
            }

            mock_abort(c);
            return 0;
        }

        c->out_off += (size_t) w;
        c->job.sent += w;

        if (c->req.reset_after >= 0 && c->job.sent >= c->req.reset_after) {
            mock_route_done(c, MOCK_ERROR);
            mock_wait(c, MOCK_RESET_MS, MOCK_RESET);
            return 0;
        }

        if (c->req.split > 0 && c->out_off < c->out.len) {
            mock_wait(c, 0, MOCK_SPLIT);
            return 0;
        }
    }

    c->out.len = 0;
    c->out_off = 0;

    return 1;
}


/* The answer is out: returns 1 when the connection takes another request. */

static int
mock_finish(mock_conn_t *c)
{
    mock_route_done(c, MOCK_COMPLETE);

    if (!c->keepalive) {
        (void) shutdown(c->fd, SHUT_WR);
        mock_wait(c, MOCK_LINGER_MS, MOCK_LINGER);
        return 0;
    }

    mock_http_consume(c);
    c->state = MOCK_READ;

    return 1;
}


/* Writes and generates by turns; returns as mock_finish() does. */

static int
mock_pump(mock_conn_t *c)
{
    size_t  mark;

    for ( ;; ) {
        if (c->job.last) {
            mock_route_leave(c);
        }

        if (!mock_write(c)) {
            return 0;
        }

        if (c->job.last) {
            return mock_finish(c);
        }

        if (((c->job.stream && c->job.step) || c->job.pieces)
            && c->req.event_delay_ms > 0 && c->state != MOCK_DELAY)
        {
            mock_wait(c, c->req.event_delay_ms, MOCK_DELAY);
            return 0;
        }

        c->state = MOCK_WRITE;

        do {
            mark = c->out.len;
            c->job.last = !c->job.next(c);
            mock_gzip_piece(c, mark);
        } while (!c->job.last && c->out.len < MOCK_PIECE
                 && !((c->job.stream || c->job.pieces)
                      && c->req.event_delay_ms > 0));
    }
}


/* A request that cannot be read: answered, then the connection closes. */

static void
mock_refuse(mock_conn_t *c, keytoll_rc_t rc)
{
    memset(&c->job, 0, sizeof(mock_job_t));
    c->job.last = 1;
    c->keepalive = 0;

    if (rc == KT_RANGE) {
        mock_openai_error(c, 413, "the request is too large");

    } else {
        mock_openai_error(c, 400, "the request is malformed");
    }

    (void) mock_pump(c);
}


/* Handles the requests that are complete in c->in. */

static void
mock_serve(mock_conn_t *c)
{
    keytoll_rc_t  rc;

    while (c->state == MOCK_READ) {
        rc = c->in.len ? mock_http_parse(c) : KT_AGAIN;

        if (rc == KT_AGAIN) {
            if (c->req.expect && !c->continued) {
                c->continued = 1;
                (void) send(c->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25,
                            MSG_NOSIGNAL);
            }

            if (c->eof) {
                mock_close(c);
            }

            return;
        }

        if (rc != KT_OK) {
            mock_refuse(c, rc);
            return;
        }

        mock_route(c);

        if (c->req.delay_ms > 0) {
            mock_wait(c, c->req.delay_ms, MOCK_DELAY);
            return;
        }

        c->state = MOCK_WRITE;

        if (!mock_pump(c)) {
            return;
        }
    }
}


static void
mock_event(mock_conn_t *c, uint32_t events)
{
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        mock_read(c);
    }

    switch (c->state) {

    case MOCK_LINGER:
        if (c->eof) {
            mock_close(c);
        }

        return;

    case MOCK_RESET:
        return;

    case MOCK_DELAY:
    case MOCK_SPLIT:
    case MOCK_WRITE:
        if (c->eof) {
            mock_abort(c);
            return;
        }

        if (c->state == MOCK_WRITE && (events & EPOLLOUT) && mock_pump(c)) {
            mock_serve(c);
        }

        return;

    default: /* MOCK_READ */
        mock_serve(c);
    }
}


static void
mock_due(mock_conn_t *c)
{
    mock_timer_del(c);

    switch (c->state) {

    case MOCK_RESET:
        mock_reset(c);
        return;

    case MOCK_LINGER:
        mock_close(c);
        return;

    default: /* MOCK_DELAY, MOCK_SPLIT */
        if (mock_pump(c)) {
            mock_serve(c);
        }
    }
}


/* Chapter: the loop. */


static void
mock_accept(mock_loop_t *l)
{
    int                 fd, on;
    mock_conn_t        *c;
    struct epoll_event  ev;

    for ( ;; ) {
        fd = accept4(l->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED) {
                continue;
            }

            return;
        }

        on = 1;
        (void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));

        c = calloc(1, sizeof(mock_conn_t));
        if (c == NULL) {
            mock_die("memory");
        }

        c->fd = fd;
        c->heap = -1;
        c->loop = l;
        c->next = l->conns;

        if (l->conns) {
            l->conns->prev = c;
        }

        l->conns = c;

        ev.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
        ev.data.ptr = c;

        if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &ev) < 0) {
            mock_close(c);
        }
    }
}


/* The end: what is open is cut off. */

static void
mock_unload(mock_loop_t *l)
{
    while (l->conns) {
        mock_close(l->conns);       /* NOLINT(clang-analyzer-unix.Malloc) */
    }

    (void) close(l->listener);
    (void) close(l->epoll);
    mock_free(&l->body);
    free(l->heap);
}


/*
 * A connection is freed at most once per turn: epoll reports it once, and
 * timers run after all events.  mock_close() takes it off the list and off the
 * heap, which clang's analyzer does not follow: hence NOLINT.
 */

static void
mock_loop(mock_loop_t *l)
{
    int                 i, n, wait;
    struct epoll_event  ev[256];

    for ( ;; ) {
        mock_clock(l);

        wait = -1;

        if (l->nheap) {
            wait = l->heap[0]->due_ms <= l->now_ms ? 0          /* NOLINT */
                   : (int) (l->heap[0]->due_ms - l->now_ms);
        }

        n = epoll_wait(l->epoll, ev, 256, wait);

        if (n < 0 && errno != EINTR) {
            mock_die("epoll_wait");
        }

        mock_clock(l);

        for (i = 0; i < n; i++) {
            if (ev[i].data.ptr == l) {
                mock_accept(l);

            } else if (ev[i].data.ptr == NULL) {
                mock_unload(l);
                return;

            } else {
                mock_event(ev[i].data.ptr, ev[i].events);
            }
        }

        for (n = l->nheap; n && l->nheap
             && l->heap[0]->due_ms <= l->now_ms; n--)   /* NOLINT */
        {
            mock_due(l->heap[0]);
        }
    }
}


static void *
mock_thread(void *arg)
{
    mock_loop(arg);

    return NULL;
}


static void
mock_listen(mock_loop_t *l, const struct sockaddr_in *sa)
{
    int                 on;
    struct epoll_event  ev;

    l->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                         0);
    if (l->listener < 0) {
        mock_die("socket");
    }

    on = 1;
    (void) setsockopt(l->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    (void) setsockopt(l->listener, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));

    if (bind(l->listener, (const struct sockaddr *) sa, sizeof(*sa)) < 0) {
        mock_die("bind");
    }

    if (listen(l->listener, 4096) < 0) {
        mock_die("listen");
    }

    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll < 0) {
        mock_die("epoll_create1");
    }

    ev.events = EPOLLIN | EPOLLET;
    ev.data.ptr = l;

    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->listener, &ev) < 0) {
        mock_die("epoll_ctl");
    }

    ev.events = EPOLLIN;
    ev.data.ptr = NULL;

    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, mock_stop[0], &ev) < 0) {
        mock_die("epoll_ctl");
    }
}


/* Chapter: the process. */


static void
mock_on_signal(int signo)
{
    int  saved = errno;

    if (write(mock_stop[1], "x", 1) < 0) {
        _exit(1);
    }

    errno = saved;
}


static void
mock_signals(void)
{
    struct sigaction  sa;
    struct rlimit     rl;

    if (pipe2(mock_stop, O_CLOEXEC | O_NONBLOCK) < 0) {
        mock_die("pipe");
    }

    memset(&sa, 0, sizeof(sa));
    sa.sa_handler = mock_on_signal;
    (void) sigaction(SIGTERM, &sa, NULL);
    (void) sigaction(SIGINT, &sa, NULL);

    sa.sa_handler = SIG_IGN;
    (void) sigaction(SIGPIPE, &sa, NULL);

    if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = rl.rlim_max;
        (void) setrlimit(RLIMIT_NOFILE, &rl);
    }
}


static int
mock_address(const char *text, struct sockaddr_in *sa)
{
    char         ip[64];
    long         port;
    char        *end;
    const char  *colon;

    memset(sa, 0, sizeof(*sa));
    sa->sin_family = AF_INET;

    colon = strrchr(text, ':');

    if (colon == NULL || (size_t) (colon - text) >= sizeof(ip)) {
        return -1;
    }

    memcpy(ip, text, (size_t) (colon - text));
    ip[colon - text] = '\0';
    port = strtol(colon + 1, &end, 10);

    if (*end || port < 1 || port > 65535) {
        return -1;
    }

    sa->sin_port = htons((uint16_t) port);

    return inet_pton(AF_INET, ip, &sa->sin_addr) == 1 ? 0 : -1;
}


static void
mock_usage(void)
{
    fprintf(stderr, "usage: keytoll-mock -l address:port [-p pidfile]"
            " [-t threads]\n");
    exit(2);
}


static void
mock_pidfile(const char *path)
{
    FILE  *f;

    f = fopen(path, "w");

    if (f == NULL || fprintf(f, "%ld\n", (long) getpid()) < 0
        || fclose(f) != 0)
    {
        mock_die(path);
    }
}


int
main(int argc, char **argv)
{
    int                 i, opt, threads;
    pthread_t           tid[MOCK_THREADS];
    const char         *pidfile;
    struct sockaddr_in  sa;

    static mock_loop_t  loops[MOCK_THREADS];

    threads = 1;
    pidfile = NULL;
    sa.sin_port = 0;

    while ((opt = getopt(argc, argv, "l:p:t:")) != -1) {
        switch (opt) {

        case 'l':
            if (mock_address(optarg, &sa) != 0) {
                mock_usage();
            }

            break;

        case 'p':
            pidfile = optarg;
            break;

        case 't':
            threads = atoi(optarg);
            break;

        default:
            mock_usage();
        }
    }

    if (sa.sin_port == 0 || threads < 1 || threads > MOCK_THREADS
        || optind != argc)
    {
        mock_usage();
    }

    mock_signals();
    mock_truth_init();

    for (i = 0; i < threads; i++) {
        mock_listen(&loops[i], &sa);
    }

    if (pidfile) {
        mock_pidfile(pidfile);
    }

    for (i = 1; i < threads; i++) {
        if (pthread_create(&tid[i], NULL, mock_thread, &loops[i]) != 0) {
            mock_die("pthread_create");
        }
    }

    mock_loop(&loops[0]);

    for (i = 1; i < threads; i++) {
        (void) pthread_join(tid[i], NULL);
    }

    if (pidfile) {
        (void) unlink(pidfile);
    }

    return 0;
}
