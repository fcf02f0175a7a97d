/*
 * The members of a request body that kt_reqscan() knows; see kt_reqkey.h.
 */

#include <string.h>

#include "kt_reqkey.h"


#define KEY(name, id, flags)                                                  \
    { name, sizeof(name) - 1, id, flags,                                      \
      "duplicate key \"" name "\"",                                           \
      "a key differs from \"" name "\" only by case",                         \
      "\"" name "\" has the wrong type",                                      \
      "\"" name "\" is out of range" }

#define ACT              KT_REQKEY_ACT
#define TEXT             KT_REQKEY_TEXT
#define IDS              KT_REQKEY_IDS
#define RAW              KT_REQKEY_RAW
#define OTHERS           KT_REQKEY_OTHERS
#define AWAY             KT_REQKEY_AWAY

static const kt_reqkey_t  kt_reqkeys[] = {
    KEY("model", KT_REQKEY_MODEL, ACT),
    KEY("max_tokens", KT_REQKEY_CAP0, ACT),
    KEY("max_completion_tokens", KT_REQKEY_CAP1, ACT),
    KEY("max_output_tokens", KT_REQKEY_CAP2, ACT),
    KEY("n", KT_REQKEY_N, ACT),
    KEY("best_of", KT_REQKEY_BEST_OF, ACT),
    KEY("stream", KT_REQKEY_STREAM, ACT),
    KEY("stream_options", KT_REQKEY_SO, ACT),
    KEY("user", KT_REQKEY_USER, ACT),
    KEY("metadata", KT_REQKEY_METADATA, ACT),
    KEY("litellm_metadata", KT_REQKEY_LITELLM, ACT),
    KEY("tags", KT_REQKEY_TAGS, ACT),
    KEY("safety_identifier", KT_REQKEY_SAFETY, ACT),
    KEY("messages", KT_REQKEY_MESSAGES, ACT|TEXT),
    KEY("input", KT_REQKEY_INPUT, ACT|TEXT|IDS),
    KEY("prompt", KT_REQKEY_PROMPT, ACT|TEXT|IDS),
    KEY("suffix", KT_REQKEY_OTHER, TEXT),
    KEY("system", KT_REQKEY_OTHER, TEXT),
    KEY("instructions", KT_REQKEY_OTHER, TEXT),
    KEY("contents", KT_REQKEY_OTHER, TEXT),
    KEY("systemInstruction", KT_REQKEY_OTHER, TEXT),
    KEY("system_instruction", KT_REQKEY_OTHER, TEXT),
    KEY("query", KT_REQKEY_OTHER, TEXT),
    KEY("documents", KT_REQKEY_DOCUMENTS, ACT|TEXT),
    KEY("content", KT_REQKEY_OTHER, TEXT),
    KEY("requests", KT_REQKEY_OTHER, TEXT),
    KEY("queries", KT_REQKEY_OTHER, TEXT),
    KEY("image", KT_REQKEY_IMAGES, 0),
    KEY("images", KT_REQKEY_IMAGES, 0),
    KEY("mask", KT_REQKEY_IMAGES, 0),
    KEY("text_1", KT_REQKEY_OTHER, TEXT),
    KEY("text_2", KT_REQKEY_OTHER, TEXT),
    KEY("generationConfig", KT_REQKEY_GENERATION, ACT),
    KEY("generation_config", KT_REQKEY_GENERATION, ACT),
    KEY("service_tier", KT_REQKEY_SERVICE, ACT),
    KEY("background", KT_REQKEY_BACKGROUND, ACT),
    KEY("previous_response_id", KT_REQKEY_REMOTE, 0),
    KEY("conversation", KT_REQKEY_REMOTE, 0),
    KEY("data_sources", KT_REQKEY_REMOTE, 0),
    KEY("connectors", KT_REQKEY_REMOTE, 0),
    KEY("cachedContent", KT_REQKEY_SEARCH, 0),
    KEY("cached_content", KT_REQKEY_SEARCH, 0),
    KEY("modalities", KT_REQKEY_MEDIA, 0),
    KEY("audio", KT_REQKEY_MEDIA, 0),
    KEY("size", KT_REQKEY_SIZE, ACT),
    KEY("quality", KT_REQKEY_QUALITY, ACT),
    KEY("tools", KT_REQKEY_TOOLS, RAW),
    KEY("web_search_options", KT_REQKEY_SEARCH, 0),
    KEY("search_parameters", KT_REQKEY_SEARCH, 0),
    KEY("plugins", KT_REQKEY_SEARCH, 0),
    KEY("mcp_servers", KT_REQKEY_REMOTE, 0),
    KEY("functions", KT_REQKEY_OTHER, RAW),
    KEY("response_format", KT_REQKEY_OTHER, RAW),
    KEY("tool_choice", KT_REQKEY_OTHER, RAW),
    KEY("text", KT_REQKEY_OTHER, RAW),

    /* of LiteLLM and OpenRouter: another model or account than was priced */

    KEY("fallbacks", KT_REQKEY_OTHER, OTHERS),
    KEY("context_window_fallbacks", KT_REQKEY_OTHER, OTHERS),
    KEY("content_policy_fallbacks", KT_REQKEY_OTHER, OTHERS),
    KEY("default_fallbacks", KT_REQKEY_OTHER, OTHERS),
    KEY("models", KT_REQKEY_OTHER, OTHERS),
    KEY("api_base", KT_REQKEY_OTHER, AWAY),
    KEY("base_url", KT_REQKEY_OTHER, AWAY),
    KEY("user_config", KT_REQKEY_OTHER, AWAY),
    KEY("model_list", KT_REQKEY_OTHER, AWAY),
    KEY("extra_body", KT_REQKEY_OTHER, AWAY),
    KEY("custom_llm_provider", KT_REQKEY_OTHER, AWAY),
    KEY("litellm_embedding_config", KT_REQKEY_OTHER, AWAY),
    KEY("vertex_credentials", KT_REQKEY_OTHER, AWAY),
    KEY("aws_sts_endpoint", KT_REQKEY_OTHER, AWAY),
    KEY("aws_web_identity_token", KT_REQKEY_OTHER, AWAY),
    KEY("aws_bedrock_runtime_endpoint", KT_REQKEY_OTHER, AWAY)
};

#define NKEYS            (sizeof(kt_reqkeys) / sizeof(kt_reqkeys[0]))


/*
 * Lowers ASCII letters, U+017F (long s) and U+212A (Kelvin sign) in place;
 * returns the new length.
 */

size_t
kt_reqkey_fold(char *p, size_t len)
{
    size_t  i, n;

    for (i = 0, n = 0; i < len; i++, n++) {
        if (p[i] >= 'A' && p[i] <= 'Z') {
            p[n] = (char) (p[i] | 0x20);

        } else if (len - i >= 2 && memcmp(p + i, "\xc5\xbf", 2) == 0) {
            p[n] = 's';
            i += 1;

        } else if (len - i >= 3 && memcmp(p + i, "\xe2\x84\xaa", 3) == 0) {
            p[n] = 'k';
            i += 2;

        } else {
            p[n] = p[i];
        }
    }

    return n;
}


static const kt_reqkey_t *
kt_reqkey_find(const char *p, size_t len, int fold)
{
    char      name[KT_REQKEY_NAME];
    unsigned  i;

    for (i = 0; i < NKEYS; i++) {
        if (kt_reqkeys[i].len != len) {
            continue;
        }

        memcpy(name, kt_reqkeys[i].name, len);

        if (fold) {
            (void) kt_reqkey_fold(name, len);
        }

        if (memcmp(name, p, len) == 0) {
            return &kt_reqkeys[i];
        }
    }

    return NULL;
}


const kt_reqkey_t *
kt_reqkey(char *name, size_t len, int *exact)
{
    const kt_reqkey_t  *k;

    k = kt_reqkey_find(name, len, 0);
    *exact = (k != NULL);

    if (k == NULL) {
        k = kt_reqkey_find(name, kt_reqkey_fold(name, len), 1);
    }

    return k;
}
