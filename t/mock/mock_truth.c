/*
 * The truth: one small record per request, texts interned, lines formatted
 * only when they are asked for.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/random.h>

#include "mock.h"


#define MOCK_LINES       64            /* per piece of GET /__truth         */


typedef struct {
    char      *p;
    size_t     len;
    uint64_t   hash;
} mock_atom_t;


static pthread_mutex_t   mock_lock = PTHREAD_MUTEX_INITIALIZER;

static mock_record_t    *mock_records;
static size_t            mock_nrecords, mock_cap;

static mock_atom_t      *mock_atoms;
static uint32_t          mock_natoms, mock_atoms_cap;
static uint32_t         *mock_table;   /* open addressing, index + 1        */
static uint32_t          mock_table_size;

static mock_buf_t        mock_body;

static struct {
    int64_t  prompt_tok;
    int64_t  completion_tok;
    int64_t  ended[3];
} mock_sum;

static struct {
    _Atomic int  now;
    _Atomic int  most;
} mock_gauge[MOCK_GAUGES];

static _Atomic uint64_t  mock_next_id;
static uint32_t          mock_salt;


static void *
mock_grow(void *p, size_t n, size_t size)
{
    p = realloc(p, n * size);

    if (p == NULL) {
        fprintf(stderr, "keytoll-mock: out of memory\n");
        _exit(1);
    }

    return p;
}


/* Ids are unique over processes: a random half and a counter. */

void
mock_truth_init(void)
{
    if (getrandom(&mock_salt, sizeof(mock_salt), 0) != sizeof(mock_salt)) {
        mock_salt = (uint32_t) getpid();
    }

    (void) mock_intern("null", 4);
}


uint64_t
mock_truth_id(void)
{
    return atomic_fetch_add(&mock_next_id, 1);
}


void
mock_id(mock_buf_t *b, const mock_job_t *job)
{
    int       i;
    char      hex[24];
    uint64_t  v;

    for (i = 23, v = job->id; i >= 8; i--, v >>= 4) {
        hex[i] = "0123456789abcdef"[v & 15];
    }

    for (v = mock_salt; i >= 0; i--, v >>= 4) {
        hex[i] = "0123456789abcdef"[v & 15];
    }

    mock_str(b, job->prefix);
    mock_put(b, hex, sizeof(hex));
}


static void
mock_rehash(void)
{
    uint32_t  i, k;

    mock_table_size = mock_table_size ? mock_table_size * 2 : 1024;
    free(mock_table);
    mock_table = mock_grow(NULL, mock_table_size, sizeof(uint32_t));
    memset(mock_table, 0, mock_table_size * sizeof(uint32_t));

    for (i = 0; i < mock_natoms; i++) {
        k = (uint32_t) mock_atoms[i].hash & (mock_table_size - 1);

        while (mock_table[k]) {
            k = (k + 1) & (mock_table_size - 1);
        }

        mock_table[k] = i + 1;
    }
}


static uint32_t
mock_intern_locked(const char *p, size_t len, uint64_t hash)
{
    uint32_t      k;
    mock_atom_t  *a;

    if (mock_natoms * 2 >= mock_table_size) {
        mock_rehash();
    }

    k = (uint32_t) hash & (mock_table_size - 1);

    for ( ;; ) {
        if (mock_table[k] == 0) {
            break;
        }

        a = &mock_atoms[mock_table[k] - 1];

        if (a->hash == hash && a->len == len && memcmp(a->p, p, len) == 0) {
            return mock_table[k] - 1;
        }

        k = (k + 1) & (mock_table_size - 1);
    }

    if (mock_natoms == mock_atoms_cap) {
        mock_atoms_cap = mock_atoms_cap ? mock_atoms_cap * 2 : 256;
        mock_atoms = mock_grow(mock_atoms, mock_atoms_cap,
                               sizeof(mock_atom_t));
    }

    a = &mock_atoms[mock_natoms++];
    a->p = mock_grow(NULL, len + 1, 1);
    memcpy(a->p, p, len);
    a->len = len;
    a->hash = hash;
    mock_table[k] = mock_natoms;

    return mock_natoms - 1;
}


uint32_t
mock_intern(const char *p, size_t len)
{
    size_t    i;
    uint32_t  n;
    uint64_t  hash;

    hash = 0xcbf29ce484222325ull;

    for (i = 0; i < len; i++) {
        hash = (hash ^ (unsigned char) p[i]) * 0x100000001b3ull;
    }

    hash ^= hash >> 32;

    pthread_mutex_lock(&mock_lock);
    n = mock_intern_locked(p, len, hash);
    pthread_mutex_unlock(&mock_lock);

    return n;
}


void
mock_interned(mock_buf_t *b, uint32_t n)
{
    pthread_mutex_lock(&mock_lock);
    mock_put(b, mock_atoms[n].p, mock_atoms[n].len);
    pthread_mutex_unlock(&mock_lock);
}


void
mock_truth_enter(int64_t n)
{
    int  now, most;

    if (n < 0 || n >= MOCK_GAUGES) {
        return;
    }

    now = atomic_fetch_add(&mock_gauge[n].now, 1) + 1;
    most = atomic_load(&mock_gauge[n].most);

    while (now > most
           && !atomic_compare_exchange_weak(&mock_gauge[n].most, &most, now))
    {
        /* void */
    }
}


void
mock_truth_leave(int64_t n)
{
    if (n >= 0 && n < MOCK_GAUGES) {
        atomic_fetch_sub(&mock_gauge[n].now, 1);
    }
}


void
mock_truth_peaks(mock_buf_t *b)
{
    int64_t  n;

    mock_lit(b, "{\"peaks\":[");

    for (n = 0; n < MOCK_GAUGES; n++) {
        if (n) {
            mock_lit(b, ",");
        }

        mock_int(b, atomic_exchange(&mock_gauge[n].most,
                                    atomic_load(&mock_gauge[n].now)));
    }

    mock_lit(b, "]}\n");
}


void
mock_truth_add(const mock_record_t *r)
{
    pthread_mutex_lock(&mock_lock);

    if (mock_nrecords == mock_cap) {
        mock_cap = mock_cap ? mock_cap * 2 : 4096;
        mock_records = mock_grow(mock_records, mock_cap,
                                 sizeof(mock_record_t));
    }

    mock_records[mock_nrecords++] = *r;
    mock_sum.prompt_tok += r->prompt_tok;
    mock_sum.completion_tok += r->completion_tok;
    mock_sum.ended[r->ended]++;

    pthread_mutex_unlock(&mock_lock);
}


void
mock_truth_clear(void)
{
    pthread_mutex_lock(&mock_lock);
    mock_nrecords = 0;
    memset(&mock_sum, 0, sizeof(mock_sum));
    pthread_mutex_unlock(&mock_lock);
}


void
mock_truth_keep(const char *p, size_t len)
{
    pthread_mutex_lock(&mock_lock);
    mock_body.len = 0;
    mock_put(&mock_body, p, len);
    pthread_mutex_unlock(&mock_lock);
}


void
mock_truth_kept(mock_buf_t *b)
{
    pthread_mutex_lock(&mock_lock);
    mock_put(b, mock_body.p, mock_body.len);
    pthread_mutex_unlock(&mock_lock);
}


void
mock_truth_summary(mock_buf_t *b)
{
    pthread_mutex_lock(&mock_lock);

    mock_lit(b, "{\"n\":");
    mock_int(b, (int64_t) mock_nrecords);
    mock_lit(b, ",\"prompt_tokens\":");
    mock_int(b, mock_sum.prompt_tok);
    mock_lit(b, ",\"completion_tokens\":");
    mock_int(b, mock_sum.completion_tok);
    mock_lit(b, ",\"complete\":");
    mock_int(b, mock_sum.ended[MOCK_COMPLETE]);
    mock_lit(b, ",\"aborted\":");
    mock_int(b, mock_sum.ended[MOCK_ABORTED]);
    mock_lit(b, ",\"error\":");
    mock_int(b, mock_sum.ended[MOCK_ERROR]);
    mock_lit(b, "}\n");

    pthread_mutex_unlock(&mock_lock);
}


static void
mock_truth_line(mock_buf_t *b, const mock_record_t *r)
{
    mock_job_t  job;

    static const char  *ended[] = { "complete", "aborted", "error" };

    memset(&job, 0, sizeof(job));
    job.id = r->id;
    job.prefix = r->prefix;

    mock_lit(b, "{\"id\":\"");
    mock_id(b, &job);
    mock_lit(b, "\",\"model\":");
    mock_put(b, mock_atoms[r->model].p, mock_atoms[r->model].len);
    mock_lit(b, ",\"prompt_tokens\":");
    mock_int(b, r->prompt_tok);
    mock_lit(b, ",\"completion_tokens\":");
    mock_int(b, r->completion_tok);
    mock_lit(b, ",\"cached_tokens\":");
    mock_int(b, r->cached_tok);
    mock_lit(b, ",\"events_sent\":");
    mock_int(b, r->events);
    mock_lit(b, ",\"ended\":\"");
    mock_str(b, ended[r->ended]);
    mock_lit(b, "\",\"path\":");
    mock_put(b, mock_atoms[r->path].p, mock_atoms[r->path].len);
    mock_lit(b, ",\"headers\":[");
    mock_put(b, mock_atoms[r->names].p, mock_atoms[r->names].len);
    mock_lit(b, "]}\n");
}


size_t
mock_truth_lines(mock_buf_t *b, size_t n)
{
    size_t  i;

    pthread_mutex_lock(&mock_lock);

    for (i = 0; i < MOCK_LINES && n < mock_nrecords; i++, n++) {
        mock_truth_line(b, &mock_records[n]);
    }

    n = n < mock_nrecords ? n : 0;

    pthread_mutex_unlock(&mock_lock);

    return n;
}
