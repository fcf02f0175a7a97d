/*
 * The members of a request body that kt_reqscan() knows.
 */

#ifndef KT_REQKEY_H
#define KT_REQKEY_H


#include <stddef.h>


#define KT_REQKEY_ACT    0x01          /* may appear once                   */
#define KT_REQKEY_TEXT   0x02          /* its strings are prompt text       */
#define KT_REQKEY_IDS    0x04          /* its numbers are token ids         */
#define KT_REQKEY_RAW    0x08          /* all of it counts as text          */
#define KT_REQKEY_OTHERS 0x10          /* names other models                */
#define KT_REQKEY_AWAY   0x20          /* names whom to ask, or how         */

#define KT_REQKEY_ONE    "other models than \"model\" cannot be asked for"

/* The longest key that we know, and every byte of it written as \uXXXX. */
#define KT_REQKEY_NAME   28
#define KT_REQKEY_LEN    (6 * KT_REQKEY_NAME)


typedef enum {
    KT_REQKEY_OTHER = 0,
    KT_REQKEY_CAP0,                    /* the order of kt_reqscan_t.caps    */
    KT_REQKEY_CAP1,
    KT_REQKEY_CAP2,
    KT_REQKEY_MODEL,
    KT_REQKEY_N,
    KT_REQKEY_BEST_OF,
    KT_REQKEY_STREAM,
    KT_REQKEY_SO,
    KT_REQKEY_USER,
    KT_REQKEY_MESSAGES,
    KT_REQKEY_INPUT,
    KT_REQKEY_PROMPT,
    KT_REQKEY_METADATA,
    KT_REQKEY_GENERATION,              /* Gemini's generationConfig         */
    KT_REQKEY_SERVICE,
    KT_REQKEY_BACKGROUND,
    KT_REQKEY_REMOTE,                  /* previous_response_id and the like */
    KT_REQKEY_MEDIA,                   /* asks for more than text           */
    KT_REQKEY_SIZE,
    KT_REQKEY_QUALITY,
    KT_REQKEY_IMAGES,                  /* to be edited, not drawn           */
    KT_REQKEY_DOCUMENTS,
    KT_REQKEY_TAGS,
    KT_REQKEY_LITELLM,                 /* litellm_metadata                 */
    KT_REQKEY_SAFETY,                  /* safety_identifier                */
    KT_REQKEY_TOOLS,
    KT_REQKEY_SEARCH                   /* of the web, by the provider      */
} kt_reqkey_id_t;


typedef struct {
    const char      *name;
    unsigned         len;
    kt_reqkey_id_t   id;
    unsigned         flags;
    const char      *dup;              /* messages about it                 */
    const char      *cased;
    const char      *type;
    const char      *range;
} kt_reqkey_t;


/*
 * The entry of a decoded key, NULL when unknown.  Without an exact match the
 * key is folded in place and compared again; *exact tells which it was.
 */
const kt_reqkey_t *kt_reqkey(char *name, size_t len, int *exact);

/* Folds case in place as Go does; returns the new length. */
size_t kt_reqkey_fold(char *p, size_t len);


#endif
