/*
 * kt_route: paths, their classes and the models in them.
 */

#include "kt_route.h"
#include "tap.h"


static const struct {
    const char        *path;
    int                read;
    kt_route_class_t   class;
    const char        *model;
} golden[] = {
    { "/v1/chat/completions", 0, KT_ROUTE_CHAT, "" },
    { "/chat/completions//", 0, KT_ROUTE_CHAT, "" },
    { "/V1/Chat/COMPLETIONS", 0, KT_ROUTE_CHAT, "" },
    { "/v1/completions", 0, KT_ROUTE_COMPLETIONS, "" },
    { "/v1/embeddings", 0, KT_ROUTE_EMBEDDINGS, "" },
    { "/v1/responses", 0, KT_ROUTE_RESPONSES, "" },
    { "/v1/responses/resp_1/cancel", 0, KT_ROUTE_OTHER, "" },
    { "/v1/responses/resp_1", 1, KT_ROUTE_READ, "" },
    { "/v1/messages", 0, KT_ROUTE_MESSAGES, "" },
    { "/v1/messages/count_tokens", 0, KT_ROUTE_COUNT, "" },
    { "/v1/messages/batches", 0, KT_ROUTE_OTHER, "" },
    { "/anthropic/v1/messages", 0, KT_ROUTE_MESSAGES, "" },
    { "/v1/threads/t1/messages", 0, KT_ROUTE_OTHER, "" },
    { "/openai/Threads/t1/messages/", 0, KT_ROUTE_OTHER, "" },
    { "/v1/threads/t1/messages/m1", 0, KT_ROUTE_OTHER, "" },
    { "/v1/threads/t1/messages/count_tokens", 0, KT_ROUTE_OTHER, "" },
    { "/v1/chat/completions/c1/messages", 0, KT_ROUTE_OTHER, "" },
    { "/v1/threads/runs", 0, KT_ROUTE_OTHER, "" },
    { "/v1/images/generations", 0, KT_ROUTE_IMAGES, "" },
    { "/v1/images/edits", 0, KT_ROUTE_IMAGES, "" },
    { "/v1/images/variations", 0, KT_ROUTE_IMAGES, "" },
    { "/v1/audio/speech", 0, KT_ROUTE_SPEECH, "" },
    { "/v1/audio/transcriptions", 0, KT_ROUTE_AUDIO, "" },
    { "/v1/audio/translations", 0, KT_ROUTE_AUDIO, "" },
    { "/v1/moderations", 0, KT_ROUTE_MODERATIONS, "" },
    { "/rerank", 0, KT_ROUTE_RERANK, "" },
    { "/v1/rerank", 0, KT_ROUTE_RERANK, "" },
    { "/v2/rerank", 0, KT_ROUTE_RERANK, "" },
    { "/tokenize", 0, KT_ROUTE_COUNT, "" },
    { "/detokenize", 0, KT_ROUTE_COUNT, "" },
    { "/score", 0, KT_ROUTE_SCORE, "" },
    { "/v1/score", 0, KT_ROUTE_SCORE, "" },
    { "/pooling", 0, KT_ROUTE_SCORE, "" },
    { "/classify", 0, KT_ROUTE_SCORE, "" },
    { "/openai/deployments/my-gpt/chat/completions", 0, KT_ROUTE_CHAT,
      "my-gpt" },
    { "/OpenAI/Deployments/d/audio/speech", 0, KT_ROUTE_SPEECH, "d" },
    { "/openai/deployments//chat/completions", 0, KT_ROUTE_CHAT, "" },
    { "/engines/m/embeddings", 0, KT_ROUTE_EMBEDDINGS, "m" },
    { "/v1beta/models/gemini-2.5-pro:generateContent", 0, KT_ROUTE_GEMINI,
      "gemini-2.5-pro" },
    { "/v1/models/gemini:streamGenerateContent", 0, KT_ROUTE_GEMINI,
      "gemini" },
    { "/v1/projects/p/locations/l/publishers/google/models/g:countTokens", 0,
      KT_ROUTE_COUNT, "g" },
    { "/v1beta/tunedModels/t-1:generateContent", 0, KT_ROUTE_GEMINI, "t-1" },
    { "/v1beta/models/org/m:embedContent", 0, KT_ROUTE_EMBEDDINGS, "org/m" },
    { "/v1beta/models/ft:x:batchEmbedContents", 0, KT_ROUTE_EMBEDDINGS,
      "ft:x" },
    { "/v1beta/models/:generateContent", 0, KT_ROUTE_OTHER, "" },
    { "/v1beta/models/m:predict", 0, KT_ROUTE_OTHER, "" },
    { ":generateContent", 0, KT_ROUTE_OTHER, "" },
    { "/v1/models", 1, KT_ROUTE_READ, "" },
    { "/v1/models/gpt-4o", 1, KT_ROUTE_READ, "" },
    { "/v1/models", 0, KT_ROUTE_OTHER, "" },
    { "/v1/files", 1, KT_ROUTE_OTHER, "" },
    { "/v1/chat/completions", 1, KT_ROUTE_OTHER, "" },
    { "/v1/realtime", 1, KT_ROUTE_OTHER, "" },
    { "/", 0, KT_ROUTE_OTHER, "" },
    { "", 0, KT_ROUTE_OTHER, "" }
};


static const struct {
    const char  *path;
    int          is;
} anthropic[] = {
    { "/v1/messages", 1 },
    { "/V1/Messages/", 1 },
    { "/any/prefix/v1/messages", 1 },
    { "/v1/messages/count_tokens", 1 },
    { "/v1/messages/batches/b1", 1 },
    { "/v1/threads/t1/messages", 0 },
    { "/v1/threads/t1/messages/m1", 0 },
    { "/v1/chat/completions/c1/messages", 0 },
    { "/v1/my-messages", 0 },
    { "/v1/messages2", 0 },
    { "/v1/chat/completions", 0 },
    { "", 0 }
};


int
main(void)
{
    size_t      i;
    kt_route_t  r;

    for (i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
        kt_route_find(golden[i].path, strlen(golden[i].path), golden[i].read,
                      &r);
        is_int(r.class, golden[i].class, golden[i].path);
        is_mem(golden[i].path + r.model.off, r.model.len, golden[i].model,
               "... its model");
    }

    kt_route_find("/a/models/m:streamGenerateContent", 33, 0, &r);
    ok(r.stream && r.gemini, "streams whatever the body says");

    for (i = 0; i < sizeof(anthropic) / sizeof(anthropic[0]); i++) {
        is_int(kt_route_anthropic(anthropic[i].path, strlen(anthropic[i].path)),
               anthropic[i].is, anthropic[i].path);
    }

    is_str(kt_route_name(KT_ROUTE_GEMINI), "gemini", "a name");
    is_str(kt_route_name((kt_route_class_t) 99), "other", "no name");

    return tap_done();
}
