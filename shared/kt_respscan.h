/*
 * Incremental scanner of a response: a whole JSON body, or the payload of one
 * SSE event.  Fed in arbitrary pieces; the result does not depend on where
 * they were cut.  Malformed input is not an error of ours: it sets bad and
 * ends the capturing.  No allocation; the struct is the only memory.
 */

#ifndef KT_RESPSCAN_H
#define KT_RESPSCAN_H


#include <stddef.h>
#include <stdint.h>

#include "kt_rc.h"


#define KT_RESP_DEPTH    64
#define KT_RESP_ID       128
#define KT_RESP_TYPE     40
#define KT_RESP_USAGE    8192
#define KT_RESP_KEY      24
#define KT_RESP_WORD     24


/* obj is the raw text of one usage object, valid during the call only. */
typedef void (*kt_on_usage_pt)(void *data, const unsigned char *obj,
    size_t len);


typedef struct {
    /* results, readable at any time */

    int64_t          delta_bytes;      /* content, decoded; see below       */
    size_t           id_len;
    size_t           type_len;
    unsigned         nusage;           /* usage objects handed over         */

    uint8_t          tier_len;
    uint8_t          dur_len;

    unsigned         has_choices:1;    /* a top-level "choices" array       */
    unsigned         choices_empty:1;  /* it is []                          */
    unsigned         error:1;          /* top-level "error" is not null     */
    unsigned         overflow:1;       /* a usage object did not fit        */
    unsigned         bad:1;            /* malformed, scanning stopped       */
    unsigned         done:1;           /* the value is complete             */

    /* private */

    unsigned         dur:1;            /* the word is the duration          */
    unsigned         quiet:1;          /* the usage being read is too long  */
    unsigned         capture:1;
    unsigned         key_long:1;
    uint8_t          state;
    uint8_t          sink;             /* where the string's text goes      */
    uint8_t          id_rank;
    uint8_t          depth;
    uint8_t          base;             /* 1 inside a top-level array        */
    uint8_t          cap_depth;
    uint8_t          delta_depth;
    uint8_t          hex_left;
    uint8_t          key_len;
    uint8_t          last_key;
    uint8_t          path[4];          /* key ids of the outer levels       */
    uint32_t         cp;
    uint32_t         high;             /* surrogate waiting for its pair    */
    uint64_t         is_obj;           /* bit per open level                */
    size_t           cap_len;
    kt_on_usage_pt   on_usage;
    void            *data;

    char             id[KT_RESP_ID + 1];      /* NUL terminated             */
    char             type[KT_RESP_TYPE + 1];
    char             tier[KT_RESP_WORD];      /* tier_len bytes             */
    char             duration[KT_RESP_WORD];  /* dur_len bytes              */
    char             key[KT_RESP_KEY];
    unsigned char    cap[KT_RESP_USAGE];
} kt_respscan_t;


/*
 * What is captured, "top level" being the object itself or, in a top-level
 * array (Gemini without alt=sse), each of its elements:
 *
 *   id        "id", else the first of "message"."id", "response"."id",
 *             "responseId"; cut at KT_RESP_ID bytes
 *   type      "type", cut at KT_RESP_TYPE bytes
 *   tier      "service_tier", also that of "response"; cut like type
 *   duration  "duration", a number as written
 *   usage     "usage", "message"."usage", "response"."usage",
 *             "usageMetadata" and "meta"."billed_units" when they are objects;
 *             longer than KT_RESP_USAGE bytes sets overflow and is not
 *             handed over
 *   delta_bytes  strings under choices[].delta, choices[].text, "delta" and
 *             candidates[].content, except values of type, role, id and
 *             stop_reason
 */

/* Starts over; cb may be NULL.  Does not touch the large buffers. */
void kt_respscan_init(kt_respscan_t *s, kt_on_usage_pt cb, void *data);

/* Feeds the next piece.  len 0 is allowed. */
void kt_respscan_feed(kt_respscan_t *s, const unsigned char *p, size_t len);

/*
 * No more input.  KT_OK: a complete value was seen; KT_INVALID: malformed;
 * KT_AGAIN: it ended in the middle.
 */
keytoll_rc_t kt_respscan_end(kt_respscan_t *s);


#endif
