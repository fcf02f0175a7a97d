/*
 * kt_usage_merge(): golden table of the providers' shapes.
 */

#include "kt_usage.h"
#include "tap.h"


#define MAX3  3


static const struct {
    const char    *name;
    kt_shape_t     shape;
    keytoll_rc_t   rc;                 /* of the last object                */
    const char    *json[MAX3];
    int            in, out, cr, cw, rs;
} golden[] = {
    { "chat", KT_SHAPE_OPENAI, KT_OK,
      { "{\"prompt_tokens\":100,\"completion_tokens\":50,\"total_tokens\":150,"
        "\"prompt_tokens_details\":{\"cached_tokens\":60,\"audio_tokens\":0},"
        "\"completion_tokens_details\":{\"reasoning_tokens\":20}}" },
      100, 50, 60, 0, 20 },
    { "chat, shape unknown", KT_SHAPE_ANY, KT_OK,
      { "{\"prompt_tokens\":1,\"completion_tokens\":2,"
        "\"prompt_tokens_details\":null}" }, 1, 2, 0, 0, 0 },
    { "embeddings", KT_SHAPE_ANY, KT_OK,
      { "{\"prompt_tokens\":8,\"total_tokens\":8}" }, 8, 0, 0, 0, 0 },
    { "responses", KT_SHAPE_ANY, KT_OK,
      { "{\"input_tokens\":75,\"input_tokens_details\":{\"cached_tokens\":32},"
        "\"output_tokens\":1186,\"output_tokens_details\":"
        "{\"reasoning_tokens\":1024},\"total_tokens\":1261}" },
      75, 1186, 32, 0, 1024 },
    { "running totals", KT_SHAPE_ANY, KT_OK,
      { "{\"prompt_tokens\":5,\"completion_tokens\":1}",
        "{\"prompt_tokens\":5,\"completion_tokens\":2}",
        "{\"completion_tokens\":7}" }, 5, 7, 0, 0, 0 },
    { "anthropic", KT_SHAPE_ANTHROPIC, KT_OK,
      { "{\"input_tokens\":10,\"cache_creation_input_tokens\":20,"
        "\"cache_read_input_tokens\":300,\"output_tokens\":1,"
        "\"cache_creation\":{\"ephemeral_5m_input_tokens\":20,"
        "\"ephemeral_1h_input_tokens\":0},\"service_tier\":\"standard\"}",
        "{\"output_tokens\":15}", "{\"output_tokens\":40}" },
      330, 40, 300, 20, 0 },
    { "anthropic by its fields", KT_SHAPE_ANY, KT_OK,
      { "{\"input_tokens\":10,\"cache_read_input_tokens\":5,"
        "\"output_tokens\":1}" }, 15, 1, 5, 0, 0 },
    { "anthropic, all of it at the end", KT_SHAPE_ANY, KT_OK,
      { "{\"input_tokens\":10,\"cache_creation_input_tokens\":0,"
        "\"cache_read_input_tokens\":0,\"output_tokens\":1}",
        "{\"input_tokens\":12,\"cache_creation_input_tokens\":3,"
        "\"cache_read_input_tokens\":4,\"output_tokens\":9}" },
      19, 9, 4, 3, 0 },
    { "anthropic without a cache", KT_SHAPE_ANTHROPIC, KT_OK,
      { "{\"input_tokens\":10,\"output_tokens\":3}" }, 10, 3, 0, 0, 0 },
    { "litellm repeats the cache fields", KT_SHAPE_ANY, KT_OK,
      { "{\"prompt_tokens\":330,\"completion_tokens\":4,"
        "\"cache_read_input_tokens\":300,\"cache_creation_input_tokens\":20,"
        "\"prompt_tokens_details\":{\"cached_tokens\":300}}" },
      330, 4, 300, 20, 0 },
    { "deepseek", KT_SHAPE_OPENAI, KT_OK,
      { "{\"prompt_tokens\":9,\"completion_tokens\":1,"
        "\"prompt_cache_hit_tokens\":4,\"prompt_cache_miss_tokens\":5}" },
      9, 1, 4, 0, 0 },
    { "gemini", KT_SHAPE_GEMINI, KT_OK,
      { "{\"promptTokenCount\":100,\"candidatesTokenCount\":20,"
        "\"thoughtsTokenCount\":30,\"cachedContentTokenCount\":40,"
        "\"toolUsePromptTokenCount\":7,\"totalTokenCount\":157,"
        "\"promptTokensDetails\":[{\"modality\":\"TEXT\",\"tokenCount\":100}]}"
      }, 107, 50, 40, 0, 30 },
    { "gemini in pieces", KT_SHAPE_ANY, KT_OK,
      { "{\"promptTokenCount\":10,\"thoughtsTokenCount\":5}",
        "{\"promptTokenCount\":10,\"candidatesTokenCount\":3}",
        "{\"candidatesTokenCount\":8}" }, 10, 13, 0, 0, 5 },
    { "nothing known", KT_SHAPE_ANY, KT_OK,
      { "{\"type\":\"duration\",\"seconds\":3.5}" }, 0, 0, 0, 0, 0 },
    { "negative", KT_SHAPE_ANY, KT_RANGE,
      { "{\"prompt_tokens\":-1,\"completion_tokens\":2}" }, 0, 2, 0, 0, 0 },
    { "fraction", KT_SHAPE_ANY, KT_RANGE,
      { "{\"prompt_tokens\":7}", "{\"prompt_tokens\":1.5}" },
      7, 0, 0, 0, 0 },
    { "exponent", KT_SHAPE_ANY, KT_RANGE,
      { "{\"prompt_tokens\":1e3}" }, 0, 0, 0, 0, 0 },
    { "string", KT_SHAPE_ANY, KT_RANGE,
      { "{\"prompt_tokens\":\"5\"}" }, 0, 0, 0, 0, 0 },
    { "object", KT_SHAPE_ANY, KT_RANGE,
      { "{\"prompt_tokens\":{\"cached_tokens\":1}}" }, 0, 0, 0, 0, 0 },
    { "boolean", KT_SHAPE_ANY, KT_RANGE,
      { "{\"prompt_tokens\":true,\"completion_tokens\":1}" },
      0, 1, 0, 0, 0 },
    { "over 2^40", KT_SHAPE_ANY, KT_RANGE,
      { "{\"prompt_tokens\":1099511627777}" }, 0, 0, 0, 0, 0 },
    { "far over", KT_SHAPE_ANY, KT_RANGE,
      { "{\"prompt_tokens\":99999999999999999999999999999999}" },
      0, 0, 0, 0, 0 },
    { "null", KT_SHAPE_ANY, KT_OK,
      { "{\"prompt_tokens\":3}", "{\"prompt_tokens\":null}" },
      3, 0, 0, 0, 0 },
    { "deeper names", KT_SHAPE_ANY, KT_OK,
      { "{\"a\":{\"prompt_tokens\":3,\"cached_tokens\":4},"
        "\"prompt_tokens_details\":{\"x\":{\"cached_tokens\":5}},"
        "\"completion_tokens_details\":[{\"reasoning_tokens\":5}]}" },
      0, 0, 0, 0, 0 },
    { "malformed", KT_SHAPE_ANY, KT_INVALID,
      { "{\"prompt_tokens\":3}", "{\"prompt_tokens\":4" }, 3, 0, 0, 0, 0 },
    { "no object", KT_SHAPE_ANY, KT_INVALID, { "[1]" }, 0, 0, 0, 0, 0 },
    { "empty", KT_SHAPE_ANY, KT_INVALID, { "" }, 0, 0, 0, 0, 0 },
    { "two objects", KT_SHAPE_ANY, KT_INVALID, { "{}{}" }, 0, 0, 0, 0, 0 },
};


int
main(void)
{
    char          got[128], want[128];
    size_t        i, k;
    kt_usage_t    u;
    keytoll_rc_t  rc;

    for (i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
        memset(&u, 0, sizeof(u));
        rc = KT_OK;

        for (k = 0; k < MAX3 && golden[i].json[k]; k++) {
            rc = kt_usage_merge(&u, golden[i].shape,
                                (const unsigned char *) golden[i].json[k],
                                strlen(golden[i].json[k]));
        }

        snprintf(got, sizeof(got), "%d: in %d out %d cr %d cw %d rs %d", rc,
                 (int) u.in_tok, (int) u.out_tok, (int) u.cr_tok,
                 (int) u.cw_tok, (int) u.rs_tok);
        snprintf(want, sizeof(want), "%d: in %d out %d cr %d cw %d rs %d",
                 golden[i].rc, golden[i].in, golden[i].out, golden[i].cr,
                 golden[i].cw, golden[i].rs);
        is_str(got, want, golden[i].name);
    }

    memset(&u, 0, sizeof(u));
    (void) kt_usage_merge(&u, KT_SHAPE_ANY, (const unsigned char *) "{}", 2);
    ok(!u.seen && !u.has_in && !u.has_out, "an empty object is not seen");

    (void) kt_usage_merge(&u, KT_SHAPE_ANY,
                          (const unsigned char *) "{\"prompt_tokens\":0}", 19);
    ok(u.seen && u.has_in && !u.has_out, "a zero is");

    (void) kt_usage_merge(&u, KT_SHAPE_ANY, (const unsigned char *)
                          "{\"prompt_tokens\":1099511627776}", 31);
    is_int(u.in_tok, KT_USAGE_MAX, "the largest count");

    return tap_done();
}
