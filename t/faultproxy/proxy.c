/*
 * The loop: sockets, links, and the queues between them.
 *
 *   keytoll-faultproxy -l ADDR -u ADDR -c control.sock
 *   ADDR is unix:/path or host:port (numeric)
 */

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "proxy.h"


#define QUEUE_MAX   (4 << 20)
#define CHUNK       65536


typedef struct chunk_s  chunk_t;

struct chunk_s {
    chunk_t   *next;
    int64_t    due_ms;
    size_t     len;
    size_t     sent;
    char       data[];
};


typedef enum { F_LISTEN = 0, F_CONTROL_LISTEN, F_CONTROL, F_CLIENT, F_SERVER } kind_t;

typedef struct link_s  link_t;

typedef struct {
    kind_t     kind;
    int        fd;
    link_t    *link;
    chunk_t   *head;               /* to be written to this fd              */
    chunk_t   *tail;
    size_t     queued;
    int        eof;
    char       line[512];          /* control only                          */
    size_t     line_len;
} end_t;

struct link_s {
    link_t    *next;
    end_t      client;
    end_t      server;
    fp_parse_t parse;
    int64_t    next_drip_ms;
    int        torn;               /* a reply was lost: none can follow it  */
    int        dead;
};


static int      ep;
static link_t  *links;


static int64_t
now_ms(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}


static void
die(const char *what)
{
    fprintf(stderr, "keytoll-faultproxy: %s: %s\n", what, strerror(errno));
    exit(1);
}


static socklen_t
address(const char *text, struct sockaddr_storage *ss)
{
    char                 host[64];
    const char          *colon;
    struct sockaddr_un  *un;
    struct sockaddr_in  *in;

    memset(ss, 0, sizeof(*ss));

    if (strncmp(text, "unix:", 5) == 0) {
        un = (struct sockaddr_un *) ss;
        un->sun_family = AF_UNIX;
        snprintf(un->sun_path, sizeof(un->sun_path), "%.100s", text + 5);
        return sizeof(*un);
    }

    colon = strrchr(text, ':');
    in = (struct sockaddr_in *) ss;
    in->sin_family = AF_INET;

    if (colon == NULL) {
        errno = EINVAL;
        die(text);
    }

    snprintf(host, sizeof(host), "%.*s", (int) (colon - text), text);
    in->sin_port = htons((uint16_t) atoi(colon + 1));

    if (inet_pton(AF_INET, host, &in->sin_addr) != 1) {
        errno = EINVAL;
        die(text);
    }

    return sizeof(*in);
}


static int
listen_on(const char *text)
{
    int                      fd, one;
    socklen_t                len;
    struct sockaddr_storage  ss;

    len = address(text, &ss);
    one = 1;

    if (ss.ss_family == AF_UNIX) {
        (void) unlink(text + 5);
    }

    fd = socket(ss.ss_family, SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC, 0);

    if (fd < 0) {
        die("socket");
    }

    (void) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));

    if (bind(fd, (struct sockaddr *) &ss, len) < 0 || listen(fd, 1024) < 0) {
        die(text);
    }

    return fd;
}


static void
watch(end_t *e, int op, uint32_t events)
{
    struct epoll_event  ev;

    ev.events = events;
    ev.data.ptr = e;

    if (epoll_ctl(ep, op, e->fd, &ev) < 0) {
        die("epoll_ctl");
    }
}


/* A full queue stops the reading; a stall stops everything. */

static void
interest(end_t *e)
{
    end_t     *peer;
    uint32_t   events;

    peer = e->kind == F_CLIENT ? &e->link->server : &e->link->client;
    events = 0;

    if (fp.mode != FP_STALL && !e->eof && peer->queued < QUEUE_MAX) {
        events |= EPOLLIN;
    }

    if (fp.mode != FP_STALL && e->head && e->head->due_ms <= now_ms()
        && e->link->next_drip_ms <= now_ms())
    {
        events |= EPOLLOUT;
    }

    watch(e, EPOLL_CTL_MOD, events);
}


static void
link_kill(link_t *l, int rst)
{
    struct linger  lg = { 1, 0 };

    if (l->dead) {
        return;
    }

    if (rst) {
        (void) setsockopt(l->client.fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg));
    }

    close(l->client.fd);
    close(l->server.fd);
    l->dead = 1;
    fp.links--;
}


static void
reset_all(void)
{
    link_t  *l;

    for (l = links; l; l = l->next) {
        link_kill(l, 1);
    }
}


static void
link_free(link_t *l)
{
    int       i;
    end_t    *e;
    chunk_t  *c;

    for (i = 0; i < 2; i++) {
        e = i ? &l->server : &l->client;

        while ((c = e->head)) {
            e->head = c->next;
            free(c);
        }
    }

    free(l);
}


static void
accept_link(int fd)
{
    int                      cfd, one;
    link_t                  *l;
    socklen_t                len;
    struct sockaddr_storage  ss;

    while ((cfd = accept4(fd, NULL, NULL, SOCK_NONBLOCK|SOCK_CLOEXEC)) >= 0) {
        fp.accepted++;
        l = calloc(1, sizeof(*l));
        len = address(fp.upstream, &ss);

        if (l == NULL) {
            die("calloc");
        }

        l->client.fd = cfd;
        l->server.fd = socket(ss.ss_family, SOCK_STREAM|SOCK_CLOEXEC, 0);
        one = 1;

        if (l->server.fd < 0
            || connect(l->server.fd, (struct sockaddr *) &ss, len) < 0)
        {
            if (l->server.fd >= 0) {
                close(l->server.fd);
            }

            close(cfd);
            free(l);
            continue;
        }

        (void) setsockopt(cfd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        (void) fcntl(l->server.fd, F_SETFL, O_NONBLOCK);

        l->client.kind = F_CLIENT;
        l->server.kind = F_SERVER;
        l->client.link = l;
        l->server.link = l;
        l->next = links;
        links = l;
        fp.links++;
        watch(&l->client, EPOLL_CTL_ADD, 0);
        watch(&l->server, EPOLL_CTL_ADD, 0);
    }
}


static void
push(end_t *to, const char *p, size_t n, int64_t delay_ms)
{
    chunk_t  *c;

    if (n == 0) {
        return;
    }

    c = malloc(sizeof(*c) + n);

    if (c == NULL) {
        die("malloc");
    }

    c->next = NULL;
    c->due_ms = now_ms() + delay_ms;
    c->len = n;
    c->sent = 0;
    memcpy(c->data, p, n);

    if (to->tail && to->head) {
        to->tail->next = c;
    } else {
        to->head = c;
    }

    to->tail = c;
    to->queued += n;
}


/* From the gate: command by command, as some may be answered here. */

static void
from_client(link_t *l, const char *p, size_t n)
{
    int      done;
    size_t   k;

    fp.up_bytes += n;

    while (n) {
        if (l->parse.args == 0 && !l->parse.in_line) {
            l->parse.refuse = fp.mode == FP_ERROR;
        }

        k = fp_parse(&l->parse, p, n, &done);

        if (!l->parse.refuse) {
            push(&l->server, p, k, 0);
        }

        if (done) {
            fp.commands++;

            if (l->parse.refuse) {
                push(&l->client, fp.error, strlen(fp.error), 0);
            }
        }

        p += k;
        n -= k;
    }
}


static void
from_server(link_t *l, const char *p, size_t n)
{
    static const char  garbage[] = "\001\377?!*9999999999999\r\n$-7\r\n:x\r\n";

    if (fp.drop > 0) {
        fp.drop--;
        l->torn = 1;
    }

    if (fp.drop_percent && rand() % 100 < fp.drop_percent) {
        l->torn = 1;
    }

    if (l->torn) {
        fp.dropped++;
        return;
    }

    if (fp.garbage > 0) {
        fp.garbage--;
        p = garbage;
        n = sizeof(garbage) - 1;
    }

    if (fp.close_after >= 0) {
        if ((int64_t) n >= fp.close_after) {
            (void) send(l->client.fd, p, (size_t) fp.close_after, MSG_NOSIGNAL);
            fp.close_after = -1;
            link_kill(l, 0);
            return;
        }

        fp.close_after -= (int64_t) n;
    }

    fp.down_bytes += n;
    push(&l->client, p, n, fp.mode == FP_DELAY ? fp.delay_ms : 0);
}


static void
read_end(end_t *e)
{
    ssize_t  n;

    static char  buf[CHUNK];

    n = recv(e->fd, buf, sizeof(buf), 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }

    if (n <= 0) {
        e->eof = 1;

        if (e->kind == F_CLIENT || e->link->client.head == NULL) {
            link_kill(e->link, 0);
        }

        return;
    }

    if (e->kind == F_CLIENT) {
        from_client(e->link, buf, (size_t) n);
    } else {
        from_server(e->link, buf, (size_t) n);
    }
}


static void
write_end(end_t *e)
{
    int       drip;
    size_t    want;
    ssize_t   n;
    chunk_t  *c;

    drip = fp.mode == FP_DRIP && e->kind == F_CLIENT;

    while ((c = e->head) && c->due_ms <= now_ms()) {
        want = c->len - c->sent;

        if (drip && want > (size_t) fp.drip_bytes) {
            want = (size_t) fp.drip_bytes;
        }

        n = send(e->fd, c->data + c->sent, want, MSG_NOSIGNAL);

        if (n < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                link_kill(e->link, 0);
            }

            return;
        }

        c->sent += (size_t) n;
        e->queued -= (size_t) n;

        if (c->sent == c->len) {
            e->head = c->next;
            free(c);
        }

        if (drip) {
            e->link->next_drip_ms = now_ms() + fp.drip_ms;
            return;
        }
    }

    if (e->head == NULL && e->kind == F_CLIENT && e->link->server.eof) {
        link_kill(e->link, 0);
    }
}


static void
control_accept(int fd)
{
    int     cfd;
    end_t  *e;

    cfd = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

    if (cfd < 0) {
        return;
    }

    e = calloc(1, sizeof(*e));

    if (e == NULL) {
        die("calloc");
    }

    e->kind = F_CONTROL;
    e->fd = cfd;
    watch(e, EPOLL_CTL_ADD, EPOLLIN);
}


static void
control_read(end_t *e)
{
    char     *nl, out[512];
    ssize_t   n;

    n = recv(e->fd, e->line + e->line_len, sizeof(e->line) - 1 - e->line_len, 0);

    if (n <= 0) {
        close(e->fd);
        free(e);
        return;
    }

    e->line_len += (size_t) n;
    e->line[e->line_len] = '\0';

    while ((nl = strchr(e->line, '\n'))) {
        *nl++ = '\0';
        fp_control(e->line, out, sizeof(out), reset_all);
        (void) send(e->fd, out, strlen(out), MSG_NOSIGNAL);
        e->line_len -= (size_t) (nl - e->line);
        memmove(e->line, nl, e->line_len + 1);
    }

    if (e->line_len == sizeof(e->line) - 1) {
        e->line_len = 0;
    }
}


static void
handle(struct epoll_event *ev)
{
    end_t  *e;

    e = ev->data.ptr;

    switch (e->kind) {

    case F_LISTEN:
        accept_link(e->fd);
        return;

    case F_CONTROL_LISTEN:
        control_accept(e->fd);
        return;

    case F_CONTROL:
        control_read(e);
        return;

    case F_CLIENT:
    case F_SERVER:
        if (e->link->dead) {
            return;
        }

        if (fp.mode == FP_STALL && (ev->events & (EPOLLHUP|EPOLLERR))) {
            link_kill(e->link, 0);
            return;
        }

        if (ev->events & EPOLLOUT) {
            write_end(e);
        }

        if (!e->link->dead && fp.mode != FP_STALL
            && (ev->events & (EPOLLIN|EPOLLHUP|EPOLLERR)))
        {
            read_end(e);
        }
    }
}


static void
tidy(void)
{
    link_t  *l, **at;

    for (at = &links; (l = *at); ) {

        if (l->dead) {
            *at = l->next;
            link_free(l);
            continue;
        }

        interest(&l->client);
        interest(&l->server);
        at = &l->next;
    }
}


int
main(int argc, char **argv)
{
    int                  i, n, opt, wait;
    link_t              *l;
    const char          *at, *control;
    static end_t         le, ce;
    char                 path[128];
    struct epoll_event   ev[256];

    at = NULL;
    control = NULL;

    while ((opt = getopt(argc, argv, "l:u:c:")) != -1) {
        switch (opt) {
        case 'l': at = optarg; break;
        case 'u': snprintf(fp.upstream, sizeof(fp.upstream), "%s", optarg); break;
        case 'c': control = optarg; break;
        default: at = NULL; optind = argc; break;
        }
    }

    if (at == NULL || !*fp.upstream || control == NULL) {
        fprintf(stderr, "usage: keytoll-faultproxy -l ADDR -u ADDR -c control.sock\n");
        return 2;
    }

    signal(SIGPIPE, SIG_IGN);

    ep = epoll_create1(EPOLL_CLOEXEC);
    if (ep < 0) {
        die("epoll_create1");
    }

    le.kind = F_LISTEN;
    le.fd = listen_on(at);
    ce.kind = F_CONTROL_LISTEN;
    snprintf(path, sizeof(path), "unix:%s", control);
    ce.fd = listen_on(path);
    watch(&le, EPOLL_CTL_ADD, EPOLLIN);
    watch(&ce, EPOLL_CTL_ADD, EPOLLIN);

    for ( ;; ) {
        wait = -1;

        for (l = links; l; l = l->next) {
            if (l->client.head && fp.mode != FP_STALL) {
                wait = 1;
            }
        }

        n = epoll_wait(ep, ev, 256, wait);

        for (i = 0; i < n; i++) {
            handle(&ev[i]);
        }

        tidy();
    }
}
