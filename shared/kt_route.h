/*
 * What a path asks for: the shape of its body and answer, how it is paid, and
 * the model where the path names it.
 */

#ifndef KT_ROUTE_H
#define KT_ROUTE_H


#include "kt_json.h"
#include "kt_price.h"


typedef enum {
    KT_ROUTE_CHAT = 0,
    KT_ROUTE_COMPLETIONS,
    KT_ROUTE_EMBEDDINGS,
    KT_ROUTE_MESSAGES,
    KT_ROUTE_RESPONSES,
    KT_ROUTE_GEMINI,                   /* generateContent, streamed or not  */
    KT_ROUTE_IMAGES,
    KT_ROUTE_SPEECH,
    KT_ROUTE_AUDIO,                    /* transcriptions, translations      */
    KT_ROUTE_MODERATIONS,
    KT_ROUTE_RERANK,
    KT_ROUTE_SCORE,                    /* score, pooling, classify          */
    KT_ROUTE_COUNT,                    /* counts tokens: costs nothing      */
    KT_ROUTE_READ,                     /* GET of models and answers         */
    KT_ROUTE_REALTIME,                 /* a WebSocket, set by the caller    */
    KT_ROUTE_OTHER,
    KT_ROUTES
} kt_route_class_t;


typedef struct {
    kt_route_class_t  class;
    kt_pay_t          pay;
    kt_span_t         model;           /* in the path; len 0: in the body   */
    unsigned          stream:1;        /* streams whatever the body says    */
    unsigned          form:1;          /* the body may be multipart         */
    unsigned          gemini:1;        /* a body model has "models/" before */
} kt_route_t;


/*
 * Compares with the end of the decoded path, so any prefix may stand, and
 * without case, as some providers do.  A path that is not known is
 * KT_ROUTE_OTHER.  read: the method is GET or HEAD.  The model of the path is
 * the segment behind "/openai/deployments/" or "/engines/", or what stands
 * between "/models/" and the colon of a Gemini method (slashes included).
 */
void kt_route_find(const char *path, size_t len, int read, kt_route_t *out);

/*
 * Whether a path is of Anthropic's API, whatever the method: messages, and what
 * lies below.  Messages of OpenAI's threads and stored completions are not.
 */
int kt_route_anthropic(const char *path, size_t len);

/* A short name for logs and the ledger; never NULL. */
const char *kt_route_name(kt_route_class_t class);


#endif
