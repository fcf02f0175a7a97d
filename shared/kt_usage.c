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
    KT_U_GEMINI_TOTAL,
    KT_U_TOTAL,
    KT_U_CACHE_5M,
    KT_U_CACHE_1H,
    KT_U_AUDIO_IN,
    KT_U_AUDIO_OUT,
    KT_U_IMAGE_IN,
    KT_U_IMAGE_OUT,
    KT_U_UNITS,
    KT_U_SEARCHES,
    KT_U_SECONDS,
    KT_U_FIELDS,

    KT_U_IN_DETAILS,                   /* objects                           */
    KT_U_OUT_DETAILS,
    KT_U_CREATION,
    KT_U_TOOLS,
    KT_U_IN_MODAL,                     /* arrays of objects                 */
    KT_U_OUT_MODAL,
    KT_U_MODALITY,                     /* strings                           */
    KT_U_MODAL_TOK,                    /* a number of such an object        */
    KT_U_SERVICE,
    KT_U_NONE
} kt_u_field_t;


#define KT_U_BIT(f)      (1u << (f))
#define KT_U_CACHE       (KT_U_BIT(KT_U_CACHE_READ)                           \
                          | KT_U_BIT(KT_U_CACHE_WRITE))


typedef struct {
    const char    *name;
    size_t         len;
    kt_u_field_t   field;
} kt_u_name_t;

#define KT_U_NAME(name, field)  { name, sizeof(name) - 1, field }


typedef struct {
    int64_t        v[KT_U_FIELDS];
    unsigned       has;                /* bit per field with a value        */
    unsigned       named;              /* bit per field, null included      */
    unsigned       depth;
    unsigned       range;
    kt_u_field_t   key;                /* the field a value would be for    */
    kt_u_field_t   details;            /* the object that we are in         */
    kt_u_field_t   modality;           /* of the element that we are in     */
    int64_t        modal_tok;
    int            service;            /* -1: none was told                 */
} kt_u_t;


static const kt_u_name_t  kt_u_top[] = {
    KT_U_NAME("prompt_tokens", KT_U_PROMPT),
    KT_U_NAME("completion_tokens", KT_U_COMPLETION),
    KT_U_NAME("input_tokens", KT_U_INPUT),
    KT_U_NAME("output_tokens", KT_U_OUTPUT),
    KT_U_NAME("prompt_cache_hit_tokens", KT_U_CACHE_HIT),
    KT_U_NAME("cache_read_input_tokens", KT_U_CACHE_READ),
    KT_U_NAME("cache_creation_input_tokens", KT_U_CACHE_WRITE),
    KT_U_NAME("promptTokenCount", KT_U_GEMINI_PROMPT),
    KT_U_NAME("toolUsePromptTokenCount", KT_U_GEMINI_TOOL),
    KT_U_NAME("candidatesTokenCount", KT_U_GEMINI_OUT),
    KT_U_NAME("thoughtsTokenCount", KT_U_GEMINI_THOUGHTS),
    KT_U_NAME("cachedContentTokenCount", KT_U_GEMINI_CACHED),
    KT_U_NAME("totalTokenCount", KT_U_GEMINI_TOTAL),
    KT_U_NAME("total_tokens", KT_U_TOTAL),
    KT_U_NAME("search_units", KT_U_UNITS),
    KT_U_NAME("num_search_queries", KT_U_SEARCHES),
    KT_U_NAME("seconds", KT_U_SECONDS),
    KT_U_NAME("service_tier", KT_U_SERVICE),
    KT_U_NAME("cache_creation", KT_U_CREATION),
    KT_U_NAME("server_tool_use", KT_U_TOOLS),
    KT_U_NAME("promptTokensDetails", KT_U_IN_MODAL),
    KT_U_NAME("candidatesTokensDetails", KT_U_OUT_MODAL),
    KT_U_NAME("prompt_tokens_details", KT_U_IN_DETAILS),
    KT_U_NAME("input_tokens_details", KT_U_IN_DETAILS),
    KT_U_NAME("input_token_details", KT_U_IN_DETAILS),
    KT_U_NAME("completion_tokens_details", KT_U_OUT_DETAILS),
    KT_U_NAME("output_tokens_details", KT_U_OUT_DETAILS),
    KT_U_NAME("output_token_details", KT_U_OUT_DETAILS),
    { NULL, 0, KT_U_NONE }
};

static const kt_u_name_t  kt_u_in_details[] = {
    KT_U_NAME("cached_tokens", KT_U_CACHED),
    KT_U_NAME("cache_write_tokens", KT_U_CACHE_WRITE),
    KT_U_NAME("cache_creation_tokens", KT_U_CACHE_WRITE),
    KT_U_NAME("audio_tokens", KT_U_AUDIO_IN),
    KT_U_NAME("image_tokens", KT_U_IMAGE_IN),
    { NULL, 0, KT_U_NONE }
};

static const kt_u_name_t  kt_u_out_details[] = {
    KT_U_NAME("reasoning_tokens", KT_U_REASONING),
    KT_U_NAME("audio_tokens", KT_U_AUDIO_OUT),
    KT_U_NAME("image_tokens", KT_U_IMAGE_OUT),
    { NULL, 0, KT_U_NONE }
};

static const kt_u_name_t  kt_u_creation[] = {
    KT_U_NAME("ephemeral_5m_input_tokens", KT_U_CACHE_5M),
    KT_U_NAME("ephemeral_1h_input_tokens", KT_U_CACHE_1H),
    { NULL, 0, KT_U_NONE }
};

static const kt_u_name_t  kt_u_tools[] = {
    KT_U_NAME("web_search_requests", KT_U_SEARCHES),
    { NULL, 0, KT_U_NONE }
};

static const kt_u_name_t  kt_u_modal[] = {
    KT_U_NAME("modality", KT_U_MODALITY),
    KT_U_NAME("tokenCount", KT_U_MODAL_TOK),
    { NULL, 0, KT_U_NONE }
};


static kt_u_field_t
kt_u_lookup(const kt_u_name_t *t, const unsigned char *p, size_t len)
{
    for ( /* void */ ; t->name; t++) {
        if (t->len == len && memcmp(t->name, p, len) == 0) {
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

    } else if (c->depth == 2 && c->details == KT_U_CREATION) {
        c->key = kt_u_lookup(kt_u_creation, p, len);

    } else if (c->depth == 2 && c->details == KT_U_TOOLS) {
        c->key = kt_u_lookup(kt_u_tools, p, len);

    } else if (c->depth == 3 && (c->details == KT_U_IN_MODAL
                                 || c->details == KT_U_OUT_MODAL))
    {
        c->key = kt_u_lookup(kt_u_modal, p, len);
    }

    if (c->depth == 1 && c->key < KT_U_FIELDS) {
        c->named |= KT_U_BIT(c->key);
    }

    return 1;
}


int64_t
kt_usage_ms(const char *p, size_t len)
{
    size_t   i, n;
    int64_t  v;

    for (v = 0, i = 0; i < len && p[i] >= '0' && p[i] <= '9'; i++) {
        v = v * 10 + (p[i] - '0');

        if (v > KT_USAGE_MAX / 1000) {
            return -1;
        }
    }

    if (i == 0 || (i < len && p[i] != '.')) {
        return -1;
    }

    v *= 1000;

    /* milliseconds, and one more for anything behind them */

    for (n = 0, i++; i < len; i++, n++) {
        if (p[i] < '0' || p[i] > '9') {
            return -1;
        }

        if (n < 3) {
            v += (p[i] - '0') * (n == 0 ? 100 : n == 1 ? 10 : 1);

        } else if (p[i] != '0') {
            v++;
            break;
        }
    }

    for ( /* void */ ; i < len; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return -1;
        }
    }

    return v;
}


kt_service_t
kt_usage_service(const char *name, size_t len)
{
    if (len == 5 && memcmp(name, "batch", 5) == 0) {
        return KT_SERVICE_BATCH;
    }

    if (len == 4 && memcmp(name, "flex", 4) == 0) {
        return KT_SERVICE_FLEX;
    }

    return len == 8 && memcmp(name, "priority", 8) == 0
           ? KT_SERVICE_PRIORITY : KT_SERVICE_STANDARD;
}


/* A count, or -1. */

static int64_t
kt_u_count(const char *p, size_t len)
{
    size_t   i;
    int64_t  v;

    for (v = 0, i = 0; i < len; i++) {
        if (p[i] < '0' || p[i] > '9' || v > KT_USAGE_MAX) {
            return -1;
        }

        v = v * 10 + (p[i] - '0');
    }

    return v > KT_USAGE_MAX ? -1 : v;
}


static int
kt_u_number(void *ctx, const char *p, size_t len)
{
    int64_t  v;
    kt_u_t  *c = ctx;

    if (c->key >= KT_U_FIELDS && c->key != KT_U_MODAL_TOK) {
        return 1;
    }

    v = c->key == KT_U_SECONDS ? kt_usage_ms(p, len) : kt_u_count(p, len);

    if (v < 0) {
        c->range = 1;
        return 1;
    }

    if (c->key == KT_U_MODAL_TOK) {
        c->modal_tok = v;
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
    kt_u_t  *c = ctx;

    if (c->key == KT_U_SERVICE) {
        c->service = (int) kt_usage_service((const char *) p, len);
        return 1;
    }

    if (c->key == KT_U_MODALITY) {
        c->modality = len == 5 && memcmp(p, "AUDIO", 5) == 0 ? KT_U_AUDIO_IN
                      : len == 5 && memcmp(p, "IMAGE", 5) == 0 ? KT_U_IMAGE_IN
                      : KT_U_NONE;
        return 1;
    }

    return kt_u_wrong(ctx);
}


/* The end of an element of promptTokensDetails or candidatesTokensDetails. */

static void
kt_u_modal_end(kt_u_t *c)
{
    kt_u_field_t  f;

    f = c->modality;

    if (f == KT_U_NONE) {
        return;
    }

    if (c->details == KT_U_OUT_MODAL) {
        f = f == KT_U_AUDIO_IN ? KT_U_AUDIO_OUT : KT_U_IMAGE_OUT;
    }

    if (c->v[f] > KT_USAGE_MAX - c->modal_tok) {
        c->range = 1;
        return;
    }

    c->v[f] += c->modal_tok;
    c->has |= KT_U_BIT(f);
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

    if (c->depth == 3) {
        c->modality = KT_U_NONE;
        c->modal_tok = 0;
    }

    return 1;
}


/* Arrays have meaning as lists of modalities only, objects not as those. */

static int
kt_u_open_object(void *ctx)
{
    kt_u_t  *c = ctx;

    (void) kt_u_open(ctx);

    if (c->depth == 2 && (c->details == KT_U_IN_MODAL
                          || c->details == KT_U_OUT_MODAL))
    {
        c->details = KT_U_NONE;
    }

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

    if (c->depth != 2 || (c->details != KT_U_IN_MODAL
                          && c->details != KT_U_OUT_MODAL))
    {
        c->details = KT_U_NONE;
    }

    return 1;
}


static int
kt_u_close(void *ctx)
{
    kt_u_t  *c = ctx;

    if (c->depth == 3 && (c->details == KT_U_IN_MODAL
                          || c->details == KT_U_OUT_MODAL))
    {
        kt_u_modal_end(c);
    }

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
    kt_u_open_object,
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
    c->modality = KT_U_NONE;
    c->service = -1;

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

    if (!kt_u_take(c, KT_U_CACHE_WRITE, &u->cw_tok)
        && (c->has & (KT_U_BIT(KT_U_CACHE_5M) | KT_U_BIT(KT_U_CACHE_1H))))
    {
        u->cw_tok = c->v[KT_U_CACHE_5M] + c->v[KT_U_CACHE_1H];
    }

    (void) kt_u_take(c, KT_U_CACHE_1H, &u->cw1h_tok);
    (void) kt_u_take(c, KT_U_AUDIO_IN, &u->ai_tok);
    (void) kt_u_take(c, KT_U_IMAGE_IN, &u->ii_tok);

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

    } else if (!u->has_in && !u->has_out
               && !(c->has & (KT_U_BIT(KT_U_COMPLETION)
                              | KT_U_BIT(KT_U_OUTPUT)))
               && kt_u_take(c, KT_U_TOTAL, &u->in_tok))
    {
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
    (void) kt_u_take(c, KT_U_AUDIO_OUT, &u->ao_tok);
    (void) kt_u_take(c, KT_U_IMAGE_OUT, &u->io_tok);

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

    } else if ((c->has & KT_U_BIT(KT_U_GEMINI_TOTAL)) && u->has_in
               && !u->has_out && c->v[KT_U_GEMINI_TOTAL] >= u->in_tok)
    {
        /* a prompt that was blocked, or counted only */

        u->out_tok = c->v[KT_U_GEMINI_TOTAL] - u->in_tok;
        u->has_out = 1;
    }
}


/* What is neither input nor output. */

static void
kt_u_apply_rest(kt_usage_t *u, const kt_u_t *c)
{
    (void) kt_u_take(c, KT_U_SEARCHES, &u->searches);

    if (kt_u_take(c, KT_U_SECONDS, &u->dur_ms)) {
        u->has_dur = 1;
    }

    if (kt_u_take(c, KT_U_UNITS, &u->units)) {
        u->has_units = 1;
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
        kt_u_apply_rest(u, &c);
    }

    if (c.service >= 0) {
        u->service = (unsigned) c.service;
        u->has_service = 1;
    }

    return c.range ? KT_RANGE : KT_OK;
}
