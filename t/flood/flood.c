/*
 * keytoll-flood: well-formed keys that nobody ever made, each once, at a steady
 * rate over a few kept connections.  It asks little of the machine, which it
 * shares with what it measures: one write and one read a request.
 *
 *   keytoll-flood PORT RATE CONNECTIONS PREFIX BODY_FILE
 *
 * until SIGTERM; then it waits for the last answers and prints one line of JSON:
 * how many answers had which status, how many were lost, and the seconds.
 * A request that finds no idle connection is sent as soon as one is idle again.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 256,
    ANSWER_MAX = 8192,
    REQUEST_MAX = 65536,
    SERIAL_LEN = 10,
    LAST_ANSWERS_MS = 10000
};

typedef struct {
    int     fd;                     /* -1: closed by the server */
    int     busy;
    size_t  len;
    char    answer[ANSWER_MAX + 1];
} conn_t;

typedef struct {
    char    text[REQUEST_MAX];
    size_t  len;
    char   *serial;                 /* SERIAL_LEN digits in text */
} request_t;

static conn_t    conns[CONNECTIONS_MAX];
static size_t    nconns;
static uint64_t  by_status[1000];
static uint64_t  lost;
static volatile sig_atomic_t  stopping;

static void
on_term(int sig)
{
    stopping = 1;
}

__attribute__((format(printf, 1, 2), noreturn)) static void
die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void) vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void) fputc('\n', stderr);
    exit(2);
}

static uint64_t
now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t) t.tv_sec * 1000000 + (uint64_t) t.tv_nsec / 1000;
}

static long
number(const char *text, const char *what, long max)
{
    char *end;
    long  n = strtol(text, &end, 10);

    if (*text == '\0' || *end != '\0' || n < 1 || n > max) {
        die("%s: a number of 1 to %ld is wanted, not \"%s\"", what, max, text);
    }

    return n;
}

static void
compose(request_t *r, const char *prefix, const char *file)
{
    static char body[REQUEST_MAX - 1024];
    FILE       *f = fopen(file, "rb");
    size_t      len;

    if (f == NULL) {
        die("%s: %s", file, strerror(errno));
    }

    len = fread(body, 1, sizeof(body), f);
    if (ferror(f) || len == sizeof(body) || strlen(prefix) > 512) {
        die("%s: cannot be read, or it or the prefix is too long", file);
    }
    (void) fclose(f);

    r->serial = r->text + snprintf(r->text, sizeof(r->text), "POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\n"
                                   "Authorization: Bearer %s", prefix);
    r->len = (size_t) (r->serial - r->text);
    r->len += (size_t) snprintf(r->serial, sizeof(r->text) - r->len, "%0*d\r\nContent-Length: %zu\r\n\r\n", SERIAL_LEN, 0, len);
    memcpy(r->text + r->len, body, len);
    r->len += len;
}

static void
open_conns(size_t n, uint16_t port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

    for (nconns = 0; nconns < n; nconns++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        if (fd == -1 || connect(fd, (struct sockaddr *) &a, sizeof(a)) == -1 || fcntl(fd, F_SETFL, O_NONBLOCK) == -1) {
            die("port %u: %s", port, strerror(errno));
        }
        conns[nconns].fd = fd;
    }
}

static void
lose(conn_t *c)
{
    lost += (uint64_t) c->busy;
    c->busy = 0;
    (void) close(c->fd);
    c->fd = -1;
}

/* Requests are far smaller than a socket's buffer: what does not go at once is a fault. */
static void
ask(conn_t *c, request_t *r, uint64_t serial)
{
    for (char *p = r->serial + SERIAL_LEN; p > r->serial; serial /= 10) {
        *--p = (char) ('0' + serial % 10);
    }

    c->busy = 1;
    c->len = 0;
    if (send(c->fd, r->text, r->len, MSG_NOSIGNAL) != (ssize_t) r->len) {
        lose(c);
    }
}

/* 1: the answer is whole and counted; 0: more must come */
static int
whole(conn_t *c)
{
    const char *body, *length;
    unsigned    status;

    c->answer[c->len] = '\0';
    body = strstr(c->answer, "\r\n\r\n");
    length = strcasestr(c->answer, "\r\ncontent-length: ");
    if (body == NULL || length == NULL || length > body) {
        return 0;
    }
    if (c->len < (size_t) (body + 4 - c->answer) + strtoul(length + 18, NULL, 10)) {
        return 0;
    }

    status = (unsigned) strtoul(c->answer + sizeof("HTTP/1.1"), NULL, 10);
    by_status[status < 1000 ? status : 0]++;
    c->busy = 0;
    return 1;
}

static void
read_answer(conn_t *c)
{
    ssize_t n = recv(c->fd, c->answer + c->len, ANSWER_MAX - c->len, 0);

    if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        lose(c);
        return;
    }
    c->len += (size_t) n;
    if (!whole(c) && c->len == ANSWER_MAX) {
        lose(c);
    }
}

static size_t
read_answers(void)
{
    size_t waiting = 0;

    for (size_t i = 0; i < nconns; i++) {
        if (conns[i].busy) {
            read_answer(&conns[i]);
            waiting += (size_t) conns[i].busy;
        }
    }

    return waiting;
}

static conn_t *
idle_conn(void)
{
    static size_t next;

    for (size_t i = 0; i < nconns; i++) {
        conn_t *c = &conns[next++ % nconns];

        if (c->fd != -1 && !c->busy) {
            return c;
        }
    }

    return NULL;
}

static void
flood(request_t *r, uint64_t rate)
{
    uint64_t began_us = now_us(), sent = 0;
    conn_t  *c;

    while (!stopping) {
        uint64_t us = now_us() - began_us;

        (void) read_answers();
        while (sent < us * rate / 1000000 && (c = idle_conn()) != NULL) {
            ask(c, r, ++sent);
        }
        us = now_us() - began_us;
        if ((sent + 1) * 1000000 / rate > us) {
            (void) usleep((useconds_t) ((sent + 1) * 1000000 / rate - us));
        } else {
            (void) usleep(100);         /* all are busy */
        }
    }
}

int
main(int argc, char **argv)
{
    static request_t request;
    uint64_t         began_us, end_us;
    const char      *comma = "";

    if (argc != 6) {
        die("usage: keytoll-flood port rate connections prefix body_file");
    }

    compose(&request, argv[4], argv[5]);
    (void) signal(SIGTERM, on_term);
    open_conns((size_t) number(argv[3], "connections", CONNECTIONS_MAX), (uint16_t) number(argv[1], "port", UINT16_MAX));

    began_us = now_us();
    flood(&request, (uint64_t) number(argv[2], "rate", 1000000));
    for (end_us = now_us() + LAST_ANSWERS_MS * 1000; read_answers() > 0 && now_us() < end_us; ) {
        (void) usleep(500);
    }

    (void) putchar('{');
    for (size_t i = 0; i < sizeof(by_status) / sizeof(by_status[0]); i++) {
        if (by_status[i] > 0) {
            (void) printf("%s\"%zu\":%llu", comma, i, (unsigned long long) by_status[i]);
            comma = ",";
        }
    }
    for (size_t i = 0; i < nconns; i++) {
        lost += (uint64_t) conns[i].busy;
    }
    if (lost > 0) {
        (void) printf("%s\"lost\":%llu", comma, (unsigned long long) lost);
        comma = ",";
    }
    (void) printf("%s\"seconds\":%.3f}\n", comma, (double) (now_us() - began_us) / 1e6);
    return 0;
}
