/*
 * The server: libmicrohttpd with a pool of epoll threads.  A request is read
 * whole (capped), handled straight through on its thread, and answered.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "conf.h"
#include "db.h"
#include "kt_json.h"
#include "kt_key.h"
#include "http.h"
#include "log.h"
#include "metrics.h"
#include "rds.h"
#include "route.h"
#include "util.h"


#define HTTP_DRAIN_MS  10000
#define HTTP_DISCARD   (8 * HTTP_BODY_MAX)  /* read and thrown away before 413 */


static struct MHD_Daemon  *http_daemon;
static atomic_int          http_active;
static pthread_key_t       http_thread_key;


/* The pool's threads are libmicrohttpd's: their connections go with them. */

static void
http_thread_end(void *arg)
{
    db_close();
    rds_close();
    kt_key_thread_end();
}


static int
http_hex(char c)
{
    if (c >= '0' && c <= '9') { return c - '0'; }
    if (c >= 'a' && c <= 'f') { return c - 'a' + 10; }
    if (c >= 'A' && c <= 'F') { return c - 'A' + 10; }
    return -1;
}


/* Percent-decodes; NULL when the escape is broken or stands for NUL. */

static char *
http_decode(arena_t *a, const char *p, size_t len, int plus)
{
    int     hi, lo;
    char   *out;
    size_t  i, n;

    out = arena_alloc(a, len + 1);

    for (i = 0, n = 0; i < len; i++) {
        if (p[i] == '+' && plus) {
            out[n++] = ' ';

        } else if (p[i] == '%') {
            hi = len - i > 2 ? http_hex(p[i + 1]) : -1;
            lo = hi >= 0 ? http_hex(p[i + 2]) : -1;

            if (hi < 0 || lo < 0 || (hi | lo) == 0) {
                return NULL;
            }

            out[n++] = (char) (hi << 4 | lo);
            i += 2;

        } else {
            out[n++] = p[i];
        }
    }

    return out;
}


static const char *
http_find_arg(req_t *r, const char *name, int plus)
{
    char        *key;
    size_t       len;
    const char  *p, *eq;

    for (p = r->query; p && *p; p += len + (p[len] == '&')) {
        len = strcspn(p, "&");
        eq = memchr(p, '=', len);

        if (eq == NULL) {
            continue;
        }

        key = http_decode(&r->a, p, (size_t) (eq - p), 1);

        if (key && strcmp(key, name) == 0) {
            return http_decode(&r->a, eq + 1, len - (size_t) (eq + 1 - p), plus);
        }
    }

    return NULL;
}


const char *
http_arg(req_t *r, const char *name)
{
    return http_find_arg(r, name, 0);
}


const char *
http_arg_form(req_t *r, const char *name)
{
    return http_find_arg(r, name, 1);
}


const char *
http_header(req_t *r, const char *name)
{
    return MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, name);
}


static void *
http_on_uri(void *cls, const char *uri, struct MHD_Connection *con)
{
    req_t       *r;
    const char  *q;

    r = xmalloc(sizeof(req_t));
    memset(r, 0, sizeof(*r));
    arena_init(&r->a);
    r->mhd = con;
    r->start_us = util_mono_us();
    r->touch_end = &r->touched;
    r->err_type = "internal_server_error";
    buf_init(&r->body, &r->a);
    buf_init(&r->out, &r->a);

    q = strchr(uri, '?');
    r->query = q ? arena_str(&r->a, q + 1) : "";
    r->path = http_decode(&r->a, uri, q ? (size_t) (q - uri) : strlen(uri), 0);

    return r;
}


static void
http_on_done(void *cls, struct MHD_Connection *con, void **state,
    enum MHD_RequestTerminationCode code)
{
    req_t  *r;

    r = *state;

    if (r == NULL) {
        return;
    }

    if (r->delivered) {

        /* the answer is out: nobody waits for this */

        PQclear(db_q("DELETE FROM outbox WHERE id = ANY ($1::bigint[])",
                     r->delivered));
    }

    if (r->counted) {
        atomic_fetch_sub(&http_active, 1);
    }

    arena_free(&r->a);
    free(r);
    *state = NULL;
}


static enum MHD_Result
http_send(req_t *r)
{
    size_t                i;
    enum MHD_Result       rc;
    struct MHD_Response  *resp;

    resp = MHD_create_response_from_buffer(r->out.len, r->out.p,
                                           MHD_RESPMEM_MUST_COPY);
    MHD_add_response_header(resp, "Content-Type", r->content_type);
    MHD_add_response_header(resp, "Access-Control-Allow-Origin", "*");
    MHD_add_response_header(resp, "Cache-Control", "no-store");
    MHD_add_response_header(resp, "X-Content-Type-Options", "nosniff");

    for (i = 0; i < r->nheaders; i++) {
        MHD_add_response_header(resp, r->header[i][0], r->header[i][1]);
    }

    rc = MHD_queue_response(r->mhd, (unsigned) r->status, resp);
    MHD_destroy_response(resp);
    metrics_http(r->status, util_mono_us() - r->start_us);

    return rc;
}


static int
http_utf8_ok(const char *s)
{
    return kt_json_is_utf8((const unsigned char *) s, strlen(s));
}


/* The query as a whole: no broken escapes, no NUL, nothing but UTF-8. */

static int
http_query_ok(req_t *r)
{
    const char  *s;

    s = http_decode(&r->a, r->query, strlen(r->query), 1);

    return s && http_utf8_ok(s);
}


static void
http_handle(req_t *r)
{
    pthread_setspecific(http_thread_key, &http_daemon);

    if (r->path == NULL || !http_utf8_ok(r->path) || !http_query_ok(r)) {
        fail_detail(r, 400, "Malformed URL");

    } else if (r->too_large) {
        fail_proxy(r, 413, "bad_request_error", "content-length",
                   "Request body is too large. Max size is %d bytes",
                   HTTP_BODY_MAX);

    } else {
        route_run(r);
    }

    if (r->status == 0) {
        fail_proxy(r, 500, "internal_server_error", NULL,
                   "Internal Server Error");
    }

    db_rollback();               /* nothing stays open whatever a handler did */
}


static enum MHD_Result
http_on_request(void *cls, struct MHD_Connection *con, const char *url,
    const char *method, const char *version, const char *data, size_t *size,
    void **state)
{
    req_t       *r;
    const char  *len;

    r = *state;

    if (!r->counted) {
        r->counted = 1;
        atomic_fetch_add(&http_active, 1);
        r->method = arena_str(&r->a, method);
        len = http_header(r, "Content-Length");

        if (len && strtoull(len, NULL, 10) > HTTP_DISCARD) {
            r->too_large = 1;
            http_handle(r);
            return http_send(r);
        }

        return MHD_YES;
    }

    if (*size) {
        if (r->body.len + *size > HTTP_BODY_MAX) {
            r->too_large = 1;
        } else {
            buf_add(&r->body, data, *size);
        }

        *size = 0;
        return MHD_YES;
    }

    http_handle(r);

    return http_send(r);
}


static size_t
http_no_unescape(void *cls, struct MHD_Connection *con, char *s)
{
    return strlen(s);
}


static void
http_panic(void *cls, const char *file, unsigned line, const char *reason)
{
    log_event(LOG_FATAL, "libmicrohttpd gave up", "reason", reason, NULL);
    abort();
}


static void
http_log(void *cls, const char *fmt, va_list args)
{
    char  text[512];

    vsnprintf(text, sizeof(text), fmt, args);
    log_event(LOG_WARN, "http", "error", text, NULL);
}


static int
http_listen_unix(const char *path)
{
    int                 fd;
    struct sockaddr_un  sa;

    memset(&sa, 0, sizeof(sa));
    sa.sun_family = AF_UNIX;

    if (strlen(path) >= sizeof(sa.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }

    memcpy(sa.sun_path, path, strlen(path));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(path);

    if (fd < 0 || bind(fd, (struct sockaddr *) &sa, sizeof(sa)) != 0
        || chmod(path, 0660) != 0 || listen(fd, 1024) != 0)
    {
        return -1;
    }

    return fd;
}


static int
http_listen_tcp(const char *addr)
{
    int                 fd, on;
    char                host[64];
    const char         *colon;
    struct sockaddr_in  sa;

    on = 1;
    colon = strrchr(addr, ':');
    memset(&sa, 0, sizeof(sa));
    sa.sin_family = AF_INET;

    if (colon == NULL || (size_t) (colon - addr) >= sizeof(host)) {
        errno = EINVAL;
        return -1;
    }

    memcpy(host, addr, (size_t) (colon - addr));
    host[colon - addr] = '\0';

    if (strcmp(host, "localhost") == 0) {
        memcpy(host, "127.0.0.1", 10);
    }

    sa.sin_port = htons((uint16_t) atoi(colon + 1));

    if (inet_pton(AF_INET, *host && strcmp(host, "*") ? host : "0.0.0.0",
                  &sa.sin_addr) != 1)
    {
        errno = EINVAL;
        return -1;
    }

    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0
        || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0
        || bind(fd, (struct sockaddr *) &sa, sizeof(sa)) != 0
        || listen(fd, 1024) != 0)
    {
        return -1;
    }

    return fd;
}


int
http_start(void)
{
    int  fd;

    fd = strncmp(conf.listen, "unix:", 5) == 0 ? http_listen_unix(conf.listen + 5)
                                               : http_listen_tcp(conf.listen);

    if (fd < 0) {
        log_event(LOG_ERROR, "can not listen", "address", conf.listen, "error",
                  strerror(errno), NULL);
        return -1;
    }

    if (pthread_key_create(&http_thread_key, http_thread_end) != 0) {
        close(fd);
        return -1;
    }

    MHD_set_panic_func(http_panic, NULL);
    http_daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD
                                   | MHD_USE_ITC | MHD_USE_ERROR_LOG,
        0, NULL, NULL, http_on_request, NULL,
        MHD_OPTION_EXTERNAL_LOGGER, http_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_THREAD_POOL_SIZE, (unsigned) conf.threads,
        MHD_OPTION_CONNECTION_TIMEOUT, 60u,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) 65536,
        MHD_OPTION_URI_LOG_CALLBACK, http_on_uri, NULL,
        MHD_OPTION_UNESCAPE_CALLBACK, http_no_unescape, NULL,
        MHD_OPTION_NOTIFY_COMPLETED, http_on_done, NULL,
        MHD_OPTION_END);

    if (http_daemon == NULL) {
        log_event(LOG_ERROR, "can not start the HTTP server", NULL);
        close(fd);
        return -1;
    }

    return 0;
}


void
http_stop(void)
{
    int  fd, i;

    if (http_daemon == NULL) {
        return;
    }

    fd = MHD_quiesce_daemon(http_daemon);

    for (i = 0; i < HTTP_DRAIN_MS / 10 && atomic_load(&http_active) > 0; i++) {
        usleep(10000);
    }

    MHD_stop_daemon(http_daemon);

    if (fd >= 0) {
        close(fd);
    }

    if (strncmp(conf.listen, "unix:", 5) == 0) {
        unlink(conf.listen + 5);
    }
}
