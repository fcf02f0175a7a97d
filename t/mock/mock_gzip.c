/*
 * Compressed answers: whole bodies, and streams whose pieces can be read as
 * they come.
 */

#include <stdlib.h>
#include <zlib.h>

#include "mock.h"


/* Replaces what stands in b from mark on by what it compresses to. */

static void
mock_gzip_run(z_stream *z, mock_buf_t *b, size_t mark, int flush)
{
    char    *plain;
    size_t   len;

    len = b->len - mark;
    plain = malloc(len + 1);

    if (plain == NULL) {
        mock_die("out of memory");
    }

    memcpy(plain, b->p + mark, len);
    b->len = mark;

    z->next_in = (unsigned char *) plain;
    z->avail_in = (unsigned) len;

    do {
        mock_reserve(b, len + 128);
        z->next_out = (unsigned char *) b->p + b->len;
        z->avail_out = (unsigned) (len + 128);

        if (deflate(z, flush) == Z_STREAM_ERROR) {
            mock_die("deflate");
        }

        b->len += len + 128 - z->avail_out;
    } while (z->avail_out == 0);

    free(plain);
}


static z_stream *
mock_gzip_new(void)
{
    z_stream  *z;

    z = calloc(1, sizeof(z_stream));

    if (z == NULL
        || deflateInit2(z, Z_BEST_SPEED, Z_DEFLATED, MAX_WBITS + 16, 8,
                        Z_DEFAULT_STRATEGY) != Z_OK)
    {
        mock_die("deflateInit2");
    }

    return z;
}


void
mock_gzip_end(mock_job_t *j)
{
    z_stream  *z = j->zs;

    if (z) {
        (void) deflateEnd(z);
        free(z);
        j->zs = NULL;
    }
}


void
mock_gzip_body(mock_buf_t *b)
{
    mock_job_t  j;

    memset(&j, 0, sizeof(j));
    j.zs = mock_gzip_new();
    mock_gzip_run(j.zs, b, 0, Z_FINISH);
    mock_gzip_end(&j);
}


void
mock_gzip_piece(mock_conn_t *c, size_t mark)
{
    mock_job_t  *j = &c->job;

    if (!j->gzip) {
        return;
    }

    if (j->zs == NULL) {
        j->zs = mock_gzip_new();
    }

    if (mark < j->head_end) {
        mark = j->head_end;
    }

    if (c->out.len > mark || j->last) {
        mock_gzip_run(j->zs, &c->out, mark, j->last ? Z_FINISH
                                                    : Z_SYNC_FLUSH);
    }

    j->head_end = 0;

    if (j->last) {
        mock_gzip_end(j);
    }
}
