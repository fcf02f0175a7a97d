/*
 * Token usage; see kt_usage.h.
 *
 * The object is read completely into a small table of counts first, and only
 * then applied, because what input_tokens means depends on the other fields.
 */

#include <string.h>

#include <yajl/yajl_parse.h>

#include "kt_usage.h"


typedef enum {
    KT_U_PROMPT,                       /* OpenAI: all prompt tokens         */
    KT_U_COMPLETION,
    KT_U_INPUT,                        /* all, or uncached (Anthropic)      */
    KT_U_OUTPUT,
    KT_U_CACHED,
    KT_U_CACHE_HIT,                    /* DeepSeek                          */
    KT_U_CACHE_READ,
    KT_U_CACHE_WRITE,
    KT_U_REASONING,
    KT_U_GEMINI_PROMPT,
    KT_U_GEMINI_TOOL,
    KT_U_GEMINI_OUT,
    KT_U_GEMINI_THOUGHTS,
    KT_U_GEMINI_CACHED,
    KT_U_FIELDS,

    KT_U_IN_DETAILS,                   /* objects                           */
    KT_U_OUT_DETAILS,
    KT_U_NONE
} kt_u_field_t;


#define KT_U_BIT(f)      (1u << (f))
#define KT_U_CACHE       (KT_U_BIT(KT_U_CACHE_READ)                           \
                          | KT_U_BIT(KT_U_CACHE_WRITE))


typedef struct {
    const char    *name;
    kt_u_field_t   field;
} kt_u_name_t;


typedef struct {
    int64_t        v[KT_U_FIELDS];
    unsigned       has;                /* bit per field with a value        */
    unsigned       named;              /* bit per field, null included      */
    unsigned       depth;
    unsigned       range;
    kt_u_field_t   key;                /* the field a value would be for    */
    kt_u_field_t   details;            /* the object that we are in         */
} kt_u_t;


static const kt_u_name_t  kt_u_top[] = {
    { "prompt_tokens", KT_U_PROMPT },
    { "completion_tokens", KT_U_COMPLETION },
    { "input_tokens", KT_U_INPUT },
    { "output_tokens", KT_U_OUTPUT },
    { "prompt_cache_hit_tokens", KT_U_CACHE_HIT },
    { "cache_read_input_tokens", KT_U_CACHE_READ },
    { "cache_creation_input_tokens", KT_U_CACHE_WRITE },
    { "promptTokenCount", KT_U_GEMINI_PROMPT },
    { "toolUsePromptTokenCount", KT_U_GEMINI_TOOL },
    { "candidatesTokenCount", KT_U_GEMINI_OUT },
    { "thoughtsTokenCount", KT_U_GEMINI_THOUGHTS },
    { "cachedContentTokenCount", KT_U_GEMINI_CACHED },
    { "prompt_tokens_details", KT_U_IN_DETAILS },
    { "input_tokens_details", KT_U_IN_DETAILS },
    { "input_token_details", KT_U_IN_DETAILS },
    { "completion_tokens_details", KT_U_OUT_DETAILS },
    { "output_tokens_details", KT_U_OUT_DETAILS },
    { "output_token_details", KT_U_OUT_DETAILS },
    { NULL, KT_U_NONE }
};

static const kt_u_name_t  kt_u_in_details[] = {
    { "cached_tokens", KT_U_CACHED },
    { "cache_write_tokens", KT_U_CACHE_WRITE },
    { "cache_creation_tokens", KT_U_CACHE_WRITE },
    { NULL, KT_U_NONE }
};

static const kt_u_name_t  kt_u_out_details[] = {
    { "reasoning_tokens", KT_U_REASONING },
    { NULL, KT_U_NONE }
};


static kt_u_field_t
kt_u_lookup(const kt_u_name_t *t, const unsigned char *p, size_t len)
{
    for ( /* void */ ; t->name; t++) {
        if (strlen(t->name) == len && memcmp(t->name, p, len) == 0) {
            break;
        }
    }

    return t->field;
}


static int
kt_u_key(void *ctx, const unsigned char *p, size_t len)
{
    kt_u_t  *c = ctx;

    c->key = KT_U_NONE;

    if (c->depth == 1) {
        c->key = kt_u_lookup(kt_u_top, p, len);

    } else if (c->depth == 2 && c->details == KT_U_IN_DETAILS) {
        c->key = kt_u_lookup(kt_u_in_details, p, len);

    } else if (c->depth == 2 && c->details == KT_U_OUT_DETAILS) {
        c->key = kt_u_lookup(kt_u_out_details, p, len);
    }

    if (c->depth == 1 && c->key < KT_U_FIELDS) {
        c->named |= KT_U_BIT(c->key);
    }

    return 1;
}


static int
kt_u_number(void *ctx, const char *p, size_t len)
{
    size_t   i;
    int64_t  v;
    kt_u_t  *c = ctx;

    if (c->key >= KT_U_FIELDS) {
        return 1;
    }

    for (v = 0, i = 0; i < len; i++) {
        if (p[i] < '0' || p[i] > '9' || v > KT_USAGE_MAX) {
            c->range = 1;
            return 1;
        }

        v = v * 10 + (p[i] - '0');
    }

    if (v > KT_USAGE_MAX) {
        c->range = 1;
        return 1;
    }

    c->v[c->key] = v;
    c->has |= KT_U_BIT(c->key);

    return 1;
}


static int
kt_u_wrong(void *ctx)
{
    kt_u_t  *c = ctx;

    if (c->key < KT_U_FIELDS) {
        c->range = 1;
    }

    return 1;
}


static int
kt_u_boolean(void *ctx, int value)
{
    return kt_u_wrong(ctx);
}


static int
kt_u_string(void *ctx, const unsigned char *p, size_t len)
{
    return kt_u_wrong(ctx);
}


static int
kt_u_open(void *ctx)
{
    kt_u_t  *c = ctx;

    if (c->depth == 1) {
        (void) kt_u_wrong(ctx);
        c->details = c->key;
    }

    c->key = KT_U_NONE;
    c->depth++;

    return 1;
}


static int
kt_u_open_array(void *ctx)
{
    kt_u_t  *c = ctx;

    if (c->depth == 0) {
        return 0;
    }

    (void) kt_u_open(ctx);
    c->details = KT_U_NONE;

    return 1;
}


static int
kt_u_close(void *ctx)
{
    kt_u_t  *c = ctx;

    c->depth--;
    c->key = KT_U_NONE;

    return 1;
}


static const yajl_callbacks  kt_u_callbacks = {
    NULL,                              /* null: as if absent                */
    kt_u_boolean,
    NULL,
    NULL,
    kt_u_number,
    kt_u_string,
    kt_u_open,
    kt_u_key,
    kt_u_close,
    kt_u_open_array,
    kt_u_close
};


static keytoll_rc_t
kt_u_parse(kt_u_t *c, const unsigned char *json, size_t len)
{
    yajl_handle  y;
    yajl_status  st;

    memset(c, 0, sizeof(kt_u_t));
    c->key = KT_U_NONE;
    c->details = KT_U_NONE;

    while (len && (*json == ' ' || *json == '\n' || *json == '\r'
                   || *json == '\t'))
    {
        json++;
        len--;
    }

    if (len == 0 || *json != '{') {
        return KT_INVALID;
    }

    y = yajl_alloc(&kt_u_callbacks, NULL, c);
    if (y == NULL) {
        return KT_INVALID;
    }

    st = yajl_parse(y, json, len);

    if (st == yajl_status_ok) {
        st = yajl_complete_parse(y);
    }

    yajl_free(y);

    return st == yajl_status_ok ? KT_OK : KT_INVALID;
}


static int
kt_u_take(const kt_u_t *c, kt_u_field_t f, int64_t *v)
{
    if (!(c->has & KT_U_BIT(f))) {
        return 0;
    }

    *v = c->v[f];

    return 1;
}


/*
 * Anthropic's input_tokens are those behind the cache.  LiteLLM repeats the
 * cache_* fields beside prompt_tokens, which already include them.
 */

static int
kt_u_is_anthropic(const kt_usage_t *u, kt_shape_t shape, const kt_u_t *c)
{
    if (shape == KT_SHAPE_OPENAI || shape == KT_SHAPE_GEMINI
        || (c->named & KT_U_BIT(KT_U_PROMPT)))
    {
        return 0;
    }

    return shape == KT_SHAPE_ANTHROPIC || u->anthropic
           || (c->named & KT_U_CACHE);
}


static void
kt_u_apply_input(kt_usage_t *u, const kt_u_t *c, int anthropic)
{
    const unsigned  gemini = KT_U_BIT(KT_U_GEMINI_PROMPT)
                             | KT_U_BIT(KT_U_GEMINI_TOOL);

    (void) (kt_u_take(c, KT_U_CACHED, &u->cr_tok)
            || kt_u_take(c, KT_U_CACHE_READ, &u->cr_tok)
            || kt_u_take(c, KT_U_CACHE_HIT, &u->cr_tok)
            || kt_u_take(c, KT_U_GEMINI_CACHED, &u->cr_tok));

    (void) kt_u_take(c, KT_U_CACHE_WRITE, &u->cw_tok);

    if (kt_u_take(c, KT_U_PROMPT, &u->in_tok)) {
        u->has_in = 1;

    } else if (c->has & gemini) {
        (void) kt_u_take(c, KT_U_GEMINI_PROMPT, &u->plain_tok);
        (void) kt_u_take(c, KT_U_GEMINI_TOOL, &u->tool_tok);
        u->in_tok = u->plain_tok + u->tool_tok;
        u->has_in = 1;

    } else if (kt_u_take(c, KT_U_INPUT, &u->plain_tok)) {
        u->in_tok = u->plain_tok;
        u->has_in = 1;
    }

    if (anthropic) {
        u->anthropic = 1;
        u->has_in |= (c->has & KT_U_CACHE) != 0;
        u->in_tok = u->plain_tok + u->cr_tok + u->cw_tok;
    }
}


static void
kt_u_apply_output(kt_usage_t *u, const kt_u_t *c)
{
    const unsigned  gemini = KT_U_BIT(KT_U_GEMINI_OUT)
                             | KT_U_BIT(KT_U_GEMINI_THOUGHTS);

    (void) kt_u_take(c, KT_U_REASONING, &u->rs_tok);

    if (kt_u_take(c, KT_U_COMPLETION, &u->out_tok)
        || kt_u_take(c, KT_U_OUTPUT, &u->out_tok))
    {
        u->has_out = 1;
    }

    if (c->has & gemini) {
        (void) kt_u_take(c, KT_U_GEMINI_OUT, &u->cand_tok);
        (void) kt_u_take(c, KT_U_GEMINI_THOUGHTS, &u->rs_tok);
        u->out_tok = u->cand_tok + u->rs_tok;
        u->has_out = 1;
    }
}


keytoll_rc_t
kt_usage_merge(kt_usage_t *u, kt_shape_t shape, const unsigned char *json,
    size_t len)
{
    kt_u_t        c;
    keytoll_rc_t  rc;

    rc = kt_u_parse(&c, json, len);
    if (rc != KT_OK) {
        return rc;
    }

    if (c.has) {
        u->seen = 1;
        kt_u_apply_input(u, &c, kt_u_is_anthropic(u, shape, &c));
        kt_u_apply_output(u, &c);
    }

    return c.range ? KT_RANGE : KT_OK;
}
