/*
 * Inside of kt_reqscan(): the state, and what happens at a value and a key.
 * Not for others.
 */

#ifndef KT_REQVALUE_H
#define KT_REQVALUE_H


#include <stddef.h>
#include <stdint.h>

#include "kt_reqkey.h"
#include "kt_reqscan.h"


typedef enum {
    KT_RS_SUB_NONE = 0,
    KT_RS_SUB_USER_ID,
    KT_RS_SUB_TAGS,
    KT_RS_SUB_USER,
    KT_RS_SUB_LTAGS,
    KT_RS_SUB_USAGE,
    KT_RS_SUB_CAP,
    KT_RS_SUB_COUNT,
    KT_RS_SUB_MEDIA
} kt_rs_sub_t;


typedef enum {
    KT_RS_STRING,
    KT_RS_NUMBER,
    KT_RS_NULL,
    KT_RS_TRUE,
    KT_RS_FALSE,
    KT_RS_OPEN                         /* a container begins                */
} kt_rs_type_t;


typedef struct {
    const unsigned char  *start;
    const unsigned char  *p;
    const unsigned char  *end;
    kt_reqscan_t         *out;
    uint64_t              is_obj;      /* bit per open container            */
    unsigned              depth;
    unsigned              seen;        /* bit per kt_reqkey_id_t            */
    unsigned              sub_seen;    /* bit per kt_rs_sub_t               */
    kt_rs_sub_t           sub;
    unsigned              type_key;    /* the last key was "type"           */
    unsigned              media_key;   /* ... names a file, a video, bytes  */
    const kt_reqkey_t    *key;         /* of depth 1, NULL for others       */
    size_t                raw_off;     /* where a value to be counted began */
    unsigned              tool_depth;  /* within a tool; of one alone it is 2 */
    unsigned              tool_key;    /* kt_reqtool.c: the last key of one */
    unsigned              tool_search;
    unsigned              tool_counts; /* its max_uses is read by the provider */
    int64_t               tool_uses;   /* its max_uses, -1: any             */
    kt_span_t             user_id;     /* metadata.user_id                  */
    kt_span_t             litellm;     /* litellm_metadata.user             */
    kt_span_t             safety;      /* safety_identifier                 */
    keytoll_rc_t          rc;          /* first unacceptable value          */
} kt_rs_t;


/* In messages, what is nested deeper than a part is a tool's arguments. */
#define KT_RS_PART       5


/* kt_reqvalue.c */

/* Notes an unacceptable value; the text is read on, it may be malformed. */
void kt_rs_refuse(kt_rs_t *s, keytoll_rc_t rc, const char *err, size_t off);

int kt_rs_is(const char *p, size_t len, const char *word);

/* Decodes an identifier: valid UTF-8, no controls, fits the buffer. */
keytoll_rc_t kt_rs_ident(kt_rs_t *s, kt_span_t span, char *out, size_t *len);

/*
 * Every value passes here: a scalar when s->p is behind it, a container when
 * s->p is behind its bracket.  p is its first byte.
 */
void kt_rs_value(kt_rs_t *s, kt_rs_type_t type, const unsigned char *p);


/* kt_reqname.c */

/* A key; p is its opening quote, s->p is behind the closing one. */
void kt_rs_key(kt_rs_t *s, const unsigned char *p);

/* The end of a container, s->p is behind it; empty: it was {} or []. */
void kt_rs_end(kt_rs_t *s, int empty);

/* The end of the body: what depends on all of it. */
void kt_rs_finish(kt_rs_t *s);


/* kt_reqtool.c: the value of "tools", keys and values of a tool, and its end */

void kt_rs_tools(kt_rs_t *s, kt_rs_type_t type, kt_span_t span);
void kt_rs_tool_key(kt_rs_t *s, kt_span_t span);
void kt_rs_tool_value(kt_rs_t *s, kt_rs_type_t type, kt_span_t span);
void kt_rs_tool_end(kt_rs_t *s);


#endif
