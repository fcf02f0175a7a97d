/*
 * keytoll-mock: a provider that answers what it is told to, and remembers.
 *
 * One loop per thread owns its connections; a connection handles one request
 * after the other (pipelined ones wait in its input).  A request becomes a
 * job whose generator appends pieces of the answer; the loop writes them as
 * the x-mock-* headers of the request say.
 */

#ifndef MOCK_H
#define MOCK_H


#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kt_multipart.h"
#include "kt_reqscan.h"
#include "kt_route.h"


#define MOCK_MAX_HEAD    65536
#define MOCK_MAX_BODY    (64 << 20)
#define MOCK_MAX_EVENTS  2000          /* content events of one stream      */
#define MOCK_MAX_OUTPUT  4096          /* completion tokens by default      */
#define MOCK_PIECE       32768         /* fill of the output before a write */
#define MOCK_SAY         8             /* x-mock-header in one request      */


typedef struct {
    char    *p;
    size_t   len;
    size_t   cap;
} mock_buf_t;


typedef enum {
    MOCK_NONE = 0,
    MOCK_CHAT,
    MOCK_EMBEDDINGS,
    MOCK_MESSAGES,
    MOCK_MODELS,
    MOCK_COMPLETIONS,
    MOCK_RESPONSES,
    MOCK_GEMINI,
    MOCK_GEMINI_EMBED,
    MOCK_IMAGES,
    MOCK_SPEECH,
    MOCK_AUDIO,
    MOCK_MODERATIONS,
    MOCK_RERANK,
    MOCK_SCORE,
    MOCK_COUNT,
    MOCK_BODY,                         /* GET /__body: the last one read    */
    MOCK_PEAKS,                        /* GET /__peaks                      */
    MOCK_TRUTH
} mock_route_t;


typedef enum {
    MOCK_COMPLETE = 0,
    MOCK_ABORTED,                      /* the client closed before the end  */
    MOCK_ERROR                         /* refused, or reset on order        */
} mock_ended_t;


/* What the request line and the headers said; numbers are -1 when absent. */
typedef struct {
    mock_route_t  route;
    size_t        head_len;            /* up to the body, in c->in          */
    size_t        body_len;
    int64_t       content_length;
    int64_t       prompt_tok;
    int64_t       completion_tok;
    int64_t       cached_tok;
    int64_t       delay_ms;
    int64_t       event_delay_ms;
    int64_t       split;
    int64_t       status;
    int64_t       reset_after;
    int64_t       gauge;               /* requests of this number at once   */
    int64_t       pieces;              /* chunks of an answer, no length    */
    int64_t       pad;                 /* blank lines before a whole answer */
    uint32_t      names;               /* interned list of header names     */
    uint32_t      path;                /* interned, with quotes             */
    uint32_t      path_model;          /* likewise, 0 when it has none      */
    uint32_t      usage;               /* interned text of x-mock-usage     */
    uint32_t      say[MOCK_SAY];       /* likewise of x-mock-header         */
    unsigned      nsay;
    char          boundary[KT_BOUNDARY_MAX];
    size_t        boundary_len;
    kt_type_t     type;
    char          tier[16];            /* x-mock-tier                       */
    char          coding[16];          /* x-mock-encoding                   */
    unsigned      get:1;
    unsigned      post:1;
    unsigned      remove:1;
    unsigned      summary:1;
    unsigned      http10:1;
    unsigned      close:1;
    unsigned      chunked:1;
    unsigned      expect:1;
    unsigned      no_usage:1;
    unsigned      twice:1;             /* the usage event comes twice       */
    unsigned      running:1;           /* usage in every chunk              */
    unsigned      sse:1;               /* alt=sse                           */
    unsigned      streams:1;           /* by its path                       */
} mock_req_t;


typedef struct mock_loop_s  mock_loop_t;
typedef struct mock_conn_s  mock_conn_t;

/* Appends the next piece to c->out; returns 0 when it was the last. */
typedef int (*mock_next_pt)(mock_conn_t *c);


/* The answer in progress. */
typedef struct {
    mock_next_pt  next;
    uint64_t      id;
    const char   *prefix;              /* of the id in the answer           */
    uint32_t      model;               /* interned, with its quotes         */
    int64_t       prompt_tok;
    int64_t       completion_tok;
    int64_t       cached_tok;
    int64_t       sent;                /* bytes of it on the wire           */
    unsigned      nevents;             /* content events to send            */
    unsigned      event;               /* generated so far                  */
    unsigned      per_event;           /* tokens in one                     */
    unsigned      choices;             /* n                                 */
    size_t        cursor;              /* of the truth, or of pieces        */
    size_t        head_end;            /* where a compressed body begins    */
    void         *zs;
    uint32_t      usage_text;
    const char   *tier;
    mock_ended_t  ended;
    unsigned      step:4;
    unsigned      record:1;            /* goes into the truth               */
    unsigned      stream:1;
    unsigned      usage:1;             /* tell the usage                    */
    unsigned      usage_null:1;        /* and null before the end           */
    unsigned      gzip:1;              /* the stream is compressed          */
    unsigned      cut:1;               /* ends at the cap                   */
    unsigned      last:1;              /* all of it is generated            */
    unsigned      gauged:1;            /* counted by its x-mock-gauge       */
    unsigned      pieces:1;            /* of a body that is in c->event     */
} mock_job_t;


struct mock_conn_s {
    int           fd;
    int           state;
    int           heap;                /* place in the timer heap, or -1    */
    uint64_t      due_ms;
    mock_loop_t  *loop;
    mock_conn_t  *prev;
    mock_conn_t  *next;
    mock_buf_t    in;
    mock_buf_t    out;
    size_t        out_off;
    mock_buf_t    event;               /* a content event, ready to patch   */
    size_t        event_seq;           /* where its 3 digits go             */
    int64_t      *ends;                /* of each content event, in bytes   */
    mock_req_t    req;
    mock_job_t    job;
    unsigned      eof:1;
    unsigned      continued:1;         /* 100 was sent                      */
    unsigned      keepalive:1;
};


struct mock_loop_s {
    int            epoll;
    int            listener;
    uint64_t       now_ms;
    int64_t        created;            /* seconds                           */
    mock_conn_t  **heap;
    int            nheap;
    int            heap_cap;
    mock_conn_t   *conns;
    mock_buf_t     body;               /* of an answer with a length        */
    kt_reqscan_t   scan;
};


/* mock_buf.c: buffers that grow; out of memory ends the process. */

void mock_die(const char *what) __attribute__((noreturn));

void mock_reserve(mock_buf_t *b, size_t n);
void mock_put(mock_buf_t *b, const void *p, size_t n);
void mock_int(mock_buf_t *b, int64_t v);

#define mock_lit(b, s)  mock_put(b, s, sizeof(s) - 1)

static inline void
mock_str(mock_buf_t *b, const char *s)
{
    mock_put(b, s, strlen(s));
}


/* mock_timer.c: one timer per connection; adding moves it. */

void mock_timer_add(mock_conn_t *c, int64_t ms);
void mock_timer_del(mock_conn_t *c);


/* mock_http.c */

/*
 * Reads a request from c->in.  KT_OK: c->req is set and the body is at
 * c->in.p + head_len, de-chunked; KT_AGAIN: more input is needed; KT_INVALID:
 * malformed; KT_RANGE: too large.
 */
keytoll_rc_t mock_http_parse(mock_conn_t *c);

/* Removes the request from c->in. */
void mock_http_consume(mock_conn_t *c);

/* mock_answer.c */

/*
 * A whole answer whose body is c->loop->body: 0; or, as x-mock-chunked has it,
 * its head: 1, c->job.next sends the rest.
 */
int mock_http_answer(mock_conn_t *c, int status);

/* The head of a streamed answer. */
void mock_http_head(mock_conn_t *c, const char *type);

/* Frames around a piece of a streamed answer: begin returns end's mark. */
size_t mock_http_begin(mock_conn_t *c, mock_buf_t *b);
void mock_http_end(mock_conn_t *c, mock_buf_t *b, size_t mark);
void mock_http_last(mock_conn_t *c);


/* mock_openai.c, mock_anthropic.c: generators, and the parts they share */

void mock_id(mock_buf_t *b, const mock_job_t *job);
void mock_text(mock_buf_t *b, int64_t tokens);
int mock_events(mock_conn_t *c);

int mock_openai_chat(mock_conn_t *c);
int mock_openai_stream(mock_conn_t *c);
int mock_openai_embeddings(mock_conn_t *c);
int mock_openai_models(mock_conn_t *c);
void mock_openai_error(mock_conn_t *c, int status, const char *message);

void mock_openai_usage(mock_buf_t *b, const mock_job_t *job);

int mock_anthropic_message(mock_conn_t *c);
int mock_anthropic_stream(mock_conn_t *c);
void mock_anthropic_error(mock_conn_t *c, int status, const char *message);


/* mock_shapes.c: the generator of the other routes' answers */

mock_next_pt mock_shape(mock_conn_t *c);


/*
 * mock_gzip.c: compresses a body; or what a stream's generator has added from
 * mark on.  end frees, whatever the state.
 */

void mock_gzip_body(mock_buf_t *b);
void mock_gzip_piece(mock_conn_t *c, size_t mark);
void mock_gzip_end(mock_job_t *job);


/* mock_route.c */

/*
 * Makes a job of the request in c.  An answer that is complete at once is in
 * c->out and job.last is set; else job.next generates it.
 */
void mock_route(mock_conn_t *c);

/* The job has ended: into the truth with it. */
void mock_route_leave(mock_conn_t *c);
void mock_route_done(mock_conn_t *c, mock_ended_t ended);


/* mock_truth.c: what was answered; safe for several threads */

typedef struct {
    uint64_t      id;
    const char   *prefix;
    uint32_t      model;
    uint32_t      names;
    uint32_t      path;
    int64_t       prompt_tok;
    int64_t       completion_tok;
    int64_t       cached_tok;
    uint32_t      events;
    mock_ended_t  ended;
} mock_record_t;

void mock_truth_init(void);
uint64_t mock_truth_id(void);
uint32_t mock_intern(const char *p, size_t len);
void mock_interned(mock_buf_t *b, uint32_t n);
void mock_truth_add(const mock_record_t *r);
void mock_truth_clear(void);

/*
 * How many requests with x-mock-gauge: n, below MOCK_GAUGES, are under way; a
 * request leaves before the last piece of its answer is written.
 */
#define MOCK_GAUGES      16
void mock_truth_enter(int64_t n);
void mock_truth_leave(int64_t n);

/* The most at once since the last call. */
void mock_truth_peaks(mock_buf_t *b);

/* The last request's body, as it was read. */
void mock_truth_keep(const char *p, size_t len);
void mock_truth_kept(mock_buf_t *b);

void mock_truth_summary(mock_buf_t *b);

/* Appends lines from record n on; returns the next n, 0 at the end. */
size_t mock_truth_lines(mock_buf_t *b, size_t n);


#endif
