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


/* Zero the struct before the first merge. */
typedef struct {
    int64_t   in_tok;                  /* all prompt tokens, cached too     */
    int64_t   out_tok;                 /* all completion tokens             */
    int64_t   cr_tok;                  /* of in_tok: read from the cache    */
    int64_t   cw_tok;                  /* of in_tok: written to the cache   */
    int64_t   rs_tok;                  /* of out_tok: reasoning             */

    /* private: the parts that are added up */
    int64_t   plain_tok;
    int64_t   tool_tok;
    int64_t   cand_tok;

    unsigned  seen:1;                  /* any known field was merged        */
    unsigned  has_in:1;
    unsigned  has_out:1;
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
 * thoughtsTokenCount, cachedContentTokenCount, toolUsePromptTokenCount.
 */
keytoll_rc_t kt_usage_merge(kt_usage_t *u, kt_shape_t shape,
    const unsigned char *json, size_t len);


#endif
