/*
 * Token usage as the providers report it, brought to one form.
 */

#ifndef KT_USAGE_H
#define KT_USAGE_H


#include <stddef.h>
#include <stdint.h>

#include "kt_rc.h"


#define KT_USAGE_MAX     ((int64_t) 1 << 40)   /* larger counts are refused */


typedef enum {
    KT_SHAPE_ANY = 0,                  /* told by the fields themselves     */
    KT_SHAPE_OPENAI,
    KT_SHAPE_ANTHROPIC,                /* input_tokens excludes the cache   */
    KT_SHAPE_GEMINI
} kt_shape_t;


/* What the request was served as; prices of its own where a model has them. */
typedef enum {
    KT_SERVICE_STANDARD = 0,
    KT_SERVICE_BATCH,
    KT_SERVICE_FLEX,
    KT_SERVICE_PRIORITY,
    KT_SERVICES
} kt_service_t;


/* Zero the struct before the first merge. */
typedef struct {
    int64_t   in_tok;                  /* all prompt tokens, cached too     */
    int64_t   out_tok;                 /* all completion tokens             */
    int64_t   cr_tok;                  /* of in_tok: read from the cache    */
    int64_t   cw_tok;                  /* of in_tok: written to the cache   */
    int64_t   rs_tok;                  /* of out_tok: reasoning             */
    int64_t   cw1h_tok;                /* of cw_tok: kept for an hour       */
    int64_t   ai_tok;                  /* of in_tok: audio                  */
    int64_t   ii_tok;                  /* of in_tok: images                 */
    int64_t   ao_tok;                  /* of out_tok: audio                 */
    int64_t   io_tok;                  /* of out_tok: images                */
    int64_t   dur_ms;                  /* seconds of audio, rounded up      */
    int64_t   units;                   /* of search or ranking              */
    int64_t   searches;                /* of the web                        */
    int64_t   images;                  /* not merged: the caller counts     */
    int64_t   chars;                   /* likewise                          */
    unsigned  service;                 /* kt_service_t                      */

    /* private: the parts that are added up */
    int64_t   plain_tok;
    int64_t   tool_tok;
    int64_t   cand_tok;

    unsigned  seen:1;                  /* any known field was merged        */
    unsigned  has_in:1;
    unsigned  has_out:1;
    unsigned  has_dur:1;
    unsigned  has_service:1;
    unsigned  has_units:1;
    unsigned  anthropic:1;
} kt_usage_t;


/*
 * Merges one usage object (raw JSON text) into *u.  A field that is present
 * replaces the earlier value: usage in streams is a running total.
 *
 *   KT_OK       merged; an object without known fields changes nothing
 *   KT_INVALID  not a JSON object; *u is unchanged
 *   KT_RANGE    a known field is negative, fractional, not a number, or over
 *               KT_USAGE_MAX; it was ignored, the rest is merged
 *
 * OpenAI: prompt_tokens, completion_tokens, prompt_tokens_details
 * .cached_tokens, completion_tokens_details.reasoning_tokens; or
 * input_tokens, output_tokens, input_tokens_details, output_tokens_details.
 * Anthropic: input_tokens, output_tokens, cache_read_input_tokens and
 * cache_creation_input_tokens; known by shape, or by a cache_* field beside
 * input_tokens.  Gemini: promptTokenCount, candidatesTokenCount,
 * thoughtsTokenCount, cachedContentTokenCount, toolUsePromptTokenCount,
 * totalTokenCount when there are no candidates, and the modalities of
 * promptTokensDetails and candidatesTokensDetails.  Besides: audio_tokens and
 * image_tokens of the details, cache_creation.ephemeral_1h_input_tokens,
 * server_tool_use.web_search_requests, service_tier, seconds (audio),
 * search_units (ranking); total_tokens where it is all there is.
 */
keytoll_rc_t kt_usage_merge(kt_usage_t *u, kt_shape_t shape,
    const unsigned char *json, size_t len);


/* "batch", "flex", "priority"; every other name is the standard. */
kt_service_t kt_usage_service(const char *name, size_t len);

/*
 * A decimal number of seconds as written in JSON, in milliseconds rounded up;
 * -1 when it is negative, too large or no plain decimal.
 */
int64_t kt_usage_ms(const char *p, size_t len);


#endif
