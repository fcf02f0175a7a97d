/*
 * One-shot scanner of an LLM request body: validates the whole JSON text and
 * notes what the gate acts upon.  Linear, no recursion, no allocation.
 */

#ifndef KT_REQSCAN_H
#define KT_REQSCAN_H


#include "kt_json.h"
#include "kt_usage.h"


#define KT_REQ_DEPTH     64            /* nested containers, body included  */
#define KT_REQ_TEXT      256           /* decoded model or user, NUL added  */
#define KT_REQ_TAGS      16
#define KT_REQ_IMAGES    16            /* a list of images to edit has that */
#define KT_REQ_WORD      24            /* decoded size or quality, NUL added */
#define KT_REQ_MAXTOK    ((int64_t) 1 << 31)
#define KT_REQ_MAXN      1024
#define KT_REQ_SEARCHES  64            /* of a search without "max_uses"    */


typedef enum {
    KT_SO_ABSENT = 0,
    KT_SO_NULL,
    KT_SO_OBJECT
} kt_so_t;


typedef enum {
    KT_TRI_ABSENT = 0,                 /* not there, or null                */
    KT_TRI_FALSE,
    KT_TRI_TRUE
} kt_tri_t;


/*
 * Every span is that of the value as written; strings include their quotes.
 * Offsets count from the start of the body.  A span with len 0 is absent.
 */
typedef struct {
    size_t        err_off;             /* where, when the result is not OK  */
    const char   *err;                 /* static text, NULL when OK         */

    kt_span_t     model_span;
    size_t        model_len;
    char          model[KT_REQ_TEXT];  /* decoded, NUL terminated           */

    size_t        user_len;            /* user, else litellm_metadata.user,
                                          metadata.user_id,
                                          safety_identifier                 */
    char          user[KT_REQ_TEXT];

    int64_t       max_tok;             /* largest cap present, -1 absent    */
    kt_span_t     cap_span;            /* value of that cap                 */
    kt_span_t     caps[3];             /* max_tokens, max_completion_tokens,
                                          max_output_tokens, each if present
                                          and not null                      */

    int64_t       n;                   /* max of n and best_of; 1 by default */

    kt_so_t       so;                  /* stream_options                    */
    kt_span_t     so_span;             /* its value, null included          */
    size_t        so_insert;           /* behind its '{'                    */
    kt_tri_t      include_usage;
    kt_span_t     iu_span;             /* value of include_usage, null too  */

    const char   *away;                /* a key that names whom else to ask
                                          (api_base ...), NULL when none    */
    size_t        insert_at;           /* behind the '{' of the body        */

    int64_t       text_bytes;          /* upper bound of prompt tokens      */
    int64_t       images;              /* image parts seen                  */
    int64_t       prompts;             /* elements of a "prompt" array      */
    int64_t       docs;                /* elements of a "documents" array   */
    int64_t       file_bytes;          /* of multipart files                */
    int64_t       chars;               /* characters of an "input" string   */
    int64_t       searches;            /* of the web, at most               */
    kt_span_t     gen_cap;             /* generationConfig.maxOutputTokens  */
    kt_service_t  service;             /* service_tier                      */
    unsigned      any_service:1;       /* ... is for the provider to choose */
    char          size[KT_REQ_WORD];   /* NUL terminated, "" when absent    */
    char          quality[KT_REQ_WORD];

    unsigned      ntags;
    kt_span_t     tags[KT_REQ_TAGS];   /* strings of tags, metadata.tags and
                                          litellm_metadata.tags             */

    unsigned      stream:1;
    unsigned      background:1;        /* answered before it is done        */
    unsigned      remote:1;            /* reads text that is not in it      */
    unsigned      media_in:1;          /* audio or images within the text   */
    unsigned      media_out:1;         /* asks for audio or images          */
    unsigned      empty:1;             /* the body is {}                    */
    unsigned      so_empty:1;          /* stream_options is {}              */
    unsigned      form:1;              /* multipart; see kt_multipart.h     */
    unsigned      bad_json:1;          /* the text itself is malformed      */
} kt_reqscan_t;


/*
 * Scans p[0..len); *out is overwritten.  A malformed text wins over an
 * unacceptable value; of several such values the first is reported.
 *
 *   KT_OK         everything in *out is valid
 *   KT_INVALID    not a JSON object, or a value of the wrong type
 *   KT_DUPLICATE  a key that we act on appears twice, or in another case
 *   KT_TOODEEP    more than KT_REQ_DEPTH containers inside each other
 *   KT_RANGE      a number, model or user outside its limits
 *
 * err and err_off are set for all but KT_OK.
 *
 * Keys that name other models (fallbacks, models ...) are KT_INVALID unless they
 * are null: one model is priced and asked for.
 *
 * max_tok, n: those of generationConfig count as well.  remote: one of
 * previous_response_id, conversation, cachedContent, mcp_servers is not null, a
 * part names a file or a video by id or address, or there is a tool that is not
 * known to be run by the client.  searches: for each tool that searches, what
 * Anthropic's says as max_uses, KT_REQ_SEARCHES otherwise, as for
 * web_search_options, search_parameters, plugins, a cached content or a stored
 * prompt.  any_service: service_tier is
 * absent, null or "auto".
 *
 * text_bytes: bytes inside the quotes of all string values under messages,
 * input, prompt, suffix, system, instructions, contents, systemInstruction,
 * query, queries, documents, content, requests, text_1 and text_2, plus one
 * per number under prompt and input (token ids), plus keys and literals nested
 * deeper than a message part (arguments of tool calls), plus the whole values
 * of tools, functions, response_format, tool_choice and text, plus 3.
 */
keytoll_rc_t kt_reqscan(const unsigned char *p, size_t len,
    kt_reqscan_t *out);

/*
 * Decodes a string span (quotes included) of a scanned body into out; see
 * kt_json_unescape() for the result.
 */
keytoll_rc_t kt_reqscan_text(const unsigned char *p, kt_span_t span,
    char *out, size_t cap, size_t *n);


#endif
