/*
 * Content types of requests, and bodies of multipart/form-data.  Linear, no
 * allocation.  Strict where parsers differ: what one of them could read in
 * another way is refused.
 */

#ifndef KT_MULTIPART_H
#define KT_MULTIPART_H


#include "kt_reqscan.h"


#define KT_BOUNDARY_MAX  70


typedef enum {
    KT_TYPE_PLAIN = 0,                 /* JSON, none, or unknown: read as JSON */
    KT_TYPE_MULTIPART,
    KT_TYPE_FORM,                      /* application/x-www-form-urlencoded */
    KT_TYPE_CHARSET,                   /* text that is not UTF-8            */
    KT_TYPE_BAD                        /* malformed or ambiguous            */
} kt_type_t;


/*
 * Reads the value of Content-Type; boundary gets KT_BOUNDARY_MAX bytes at
 * most, without NUL, and *n their number, for KT_TYPE_MULTIPART.
 */
kt_type_t kt_content_type(const char *p, size_t len, char *boundary,
    size_t *n);

/*
 * Scans a multipart/form-data body into *out as kt_reqscan() would; of the
 * fields it knows model, user, n, size, quality, stream, prompt, input.
 * model_span is that of the text itself, there are no quotes.  images counts
 * the parts image, image[] and mask, file_bytes the bytes of all parts with a
 * filename; form is set.  The other members are those of an empty body.
 *
 *   KT_OK         everything in *out is valid
 *   KT_INVALID    malformed, or in a form that parsers disagree about
 *   KT_DUPLICATE  a field that we act on appears twice, or in another case
 *   KT_RANGE      n, model or user outside its limits
 */
keytoll_rc_t kt_multipart(const unsigned char *p, size_t len,
    const char *boundary, size_t blen, kt_reqscan_t *out);


#endif
