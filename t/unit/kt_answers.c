/*
 * Recorded answers of every shape: what is counted, and that it is the same
 * for every place where the answer may be cut, and byte by byte.
 */

#include "../fuzz/answer.h"
#include "tap.h"


static const struct {
    const char   *name;
    int           sse;
    kt_shape_t    shape;
    const char   *text;
    int64_t       tok[10];             /* in out cr cw cw1h rs ai ii ao io  */
    int64_t       ms, units, searches, delta, service, dur;
} answers[] = {
    { "chat", 0, KT_SHAPE_ANY,
      "{\"id\": \"c\", \"choices\": [{\"message\": {\"content\": \"h\\u00"
      "e9 \\\"usage\\\":{\"}}], \"usage\": {\"prompt_tokens\": 100, \"com"
      "pletion_tokens\": 7, \"total_tokens\": 107, \"prompt_tokens_detail"
      "s\": {\"cached_tokens\": 40, \"audio_tokens\": 3}, \"completion_to"
      "kens_details\": {\"reasoning_tokens\": 4, \"audio_tokens\": 2}}, "
      "\"service_tier\": \"flex\"}",
      { 100, 7, 40, 0, 0, 4, 3, 0, 2, 0 },
      0, 0, 0, 0, 2, -1 },
    { "chat stream", 1, KT_SHAPE_ANY,
      "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\","
      "\"service_tier\":\"priority\",\"choices\":[{\"index\":0,\"delta\":"
      "{\"role\":\"assistant\"}}],\"usage\":null}\n\ndata: {\"id\":\"chat"
      "cmpl-1\",\"object\":\"chat.completion.chunk\",\"service_tier\":\"p"
      "riority\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"h\\u0"
      "0e9\\ud83d\\ude00\"}}],\"usage\":null}\n\ndata: {\"id\":\"chatcmpl"
      "-1\",\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_"
      "tokens\":7,\"total_tokens\":107,\"prompt_tokens_details\":{\"cache"
      "d_tokens\":40,\"audio_tokens\":3},\"completion_tokens_details\":{"
      "\"reasoning_tokens\":4,\"audio_tokens\":2}}}\n\ndata: [DONE]\n\n",
      { 100, 7, 40, 0, 0, 4, 3, 0, 2, 0 },
      0, 0, 0, 7, 3, -1 },
    { "chat stream, CRLF and comments", 1, KT_SHAPE_ANY,
      ": ping\r\n\r\ndata: {\"id\":\"chatcmpl-1\",\"object\":\"chat.compl"
      "etion.chunk\",\"service_tier\":\"priority\",\"choices\":[{\"index"
      "\":0,\"delta\":{\"content\":\"x\"}}],\"usage\":null}\r\n\r\ndata: "
      "{\"id\":\"chatcmpl-1\",\"choices\":[],\"usage\":{\"prompt_tokens\""
      ":100,\"completion_tokens\":7,\"total_tokens\":107,\"prompt_tokens_"
      "details\":{\"cached_tokens\":40,\"audio_tokens\":3},\"completion_t"
      "okens_details\":{\"reasoning_tokens\":4,\"audio_tokens\":2}}}\r\n"
      "\r\ndata: [DONE]\r\n\r\n",
      { 100, 7, 40, 0, 0, 4, 3, 0, 2, 0 },
      0, 0, 0, 1, 3, -1 },
    { "running totals", 1, KT_SHAPE_ANY,
      "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\","
      "\"service_tier\":\"priority\",\"choices\":[{\"index\":0,\"delta\":"
      "{\"content\":\"x\"}}],\"usage\":{\"prompt_tokens\":100,\"completio"
      "n_tokens\":1}}\n\ndata: {\"id\":\"chatcmpl-1\",\"object\":\"chat.c"
      "ompletion.chunk\",\"service_tier\":\"priority\",\"choices\":[{\"in"
      "dex\":0,\"delta\":{\"content\":\"y\"}}],\"usage\":{\"prompt_tokens"
      "\":100,\"completion_tokens\":2}}\n\ndata: {\"id\":\"c\",\"choices"
      "\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":7,\"t"
      "otal_tokens\":107,\"prompt_tokens_details\":{\"cached_tokens\":40,"
      "\"audio_tokens\":3},\"completion_tokens_details\":{\"reasoning_tok"
      "ens\":4,\"audio_tokens\":2}}}\n\ndata: [DONE]\n\n",
      { 100, 7, 40, 0, 0, 4, 3, 0, 2, 0 },
      0, 0, 0, 2, 3, -1 },
    { "usage twice", 1, KT_SHAPE_ANY,
      "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":10"
      "0,\"completion_tokens\":7,\"total_tokens\":107,\"prompt_tokens_det"
      "ails\":{\"cached_tokens\":40,\"audio_tokens\":3},\"completion_toke"
      "ns_details\":{\"reasoning_tokens\":4,\"audio_tokens\":2}}}\n\ndata"
      ": {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":100,\""
      "completion_tokens\":7,\"total_tokens\":107,\"prompt_tokens_details"
      "\":{\"cached_tokens\":40,\"audio_tokens\":3},\"completion_tokens_d"
      "etails\":{\"reasoning_tokens\":4,\"audio_tokens\":2}}}\n\ndata: [D"
      "ONE]\n\n",
      { 100, 7, 40, 0, 0, 4, 3, 0, 2, 0 },
      0, 0, 0, 0, -1, -1 },
    { "completions", 0, KT_SHAPE_ANY,
      "{\"choices\": [{\"text\": \"abc\"}], \"usage\": {\"prompt_tokens\""
      ": 5, \"completion_tokens\": 3}}",
      { 5, 3, 0, 0, 0, 0, 0, 0, 0, 0 },
      0, 0, 0, 3, -1, -1 },
    { "embeddings", 0, KT_SHAPE_ANY,
      "{\"data\": [{\"embedding\": [0.1, -0.002]}], \"usage\": {\"prompt_"
      "tokens\": 5, \"total_tokens\": 5}}",
      { 5, 0, 0, 0, 0, 0, 0, 0, 0, 0 },
      0, 0, 0, 0, -1, -1 },
    { "scores", 0, KT_SHAPE_ANY,
      "{\"data\": [{\"score\": 0.5}], \"usage\": {\"total_tokens\": 56}}",
      { 56, 0, 0, 0, 0, 0, 0, 0, 0, 0 },
      0, 0, 0, 0, -1, -1 },
    { "responses", 0, KT_SHAPE_ANY,
      "{\"id\": \"resp_1\", \"output\": [{\"content\": [{\"text\": \"hi\""
      "}]}], \"usage\": {\"input_tokens\": 100, \"input_tokens_details\":"
      " {\"cached_tokens\": 40}, \"output_tokens\": 7, \"output_tokens_de"
      "tails\": {\"reasoning_tokens\": 4}, \"total_tokens\": 107}, \"serv"
      "ice_tier\": \"default\"}",
      { 100, 7, 40, 0, 0, 4, 0, 0, 0, 0 },
      0, 0, 0, 0, 0, -1 },
    { "responses stream, completed", 1, KT_SHAPE_ANY,
      "event: response.created\ndata: {\"type\":\"response.created\",\"re"
      "sponse\":{\"id\":\"r\",\"usage\":null,\"service_tier\":\"auto\"}}"
      "\n\nevent: response.output_text.delta\ndata: {\"type\":\"response."
      "output_text.delta\",\"delta\":\"abc\"}\n\nevent: response.complete"
      "d\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"r"
      "\",\"output\":[{\"content\":[{\"text\":\"abc\"}]}],\"usage\":{\"in"
      "put_tokens\":100,\"input_tokens_details\":{\"cached_tokens\":40},"
      "\"output_tokens\":7,\"output_tokens_details\":{\"reasoning_tokens"
      "\":4},\"total_tokens\":107},\"service_tier\":\"priority\"}}\n\n",
      { 100, 7, 40, 0, 0, 4, 0, 0, 0, 0 },
      0, 0, 0, 3, 3, -1 },
    { "responses stream, incomplete", 1, KT_SHAPE_ANY,
      "event: response.created\ndata: {\"type\":\"response.created\",\"re"
      "sponse\":{\"id\":\"r\",\"usage\":null,\"service_tier\":\"auto\"}}"
      "\n\nevent: response.output_text.delta\ndata: {\"type\":\"response."
      "output_text.delta\",\"delta\":\"abc\"}\n\nevent: response.incomple"
      "te\ndata: {\"type\":\"response.incomplete\",\"response\":{\"id\":"
      "\"r\",\"output\":[{\"content\":[{\"text\":\"abc\"}]}],\"usage\":{"
      "\"input_tokens\":100,\"input_tokens_details\":{\"cached_tokens\":4"
      "0},\"output_tokens\":7,\"output_tokens_details\":{\"reasoning_toke"
      "ns\":4},\"total_tokens\":107},\"service_tier\":\"priority\"}}\n\n",
      { 100, 7, 40, 0, 0, 4, 0, 0, 0, 0 },
      0, 0, 0, 3, 3, -1 },
    { "responses stream, failed", 1, KT_SHAPE_ANY,
      "event: response.created\ndata: {\"type\":\"response.created\",\"re"
      "sponse\":{\"id\":\"r\",\"usage\":null,\"service_tier\":\"auto\"}}"
      "\n\nevent: response.output_text.delta\ndata: {\"type\":\"response."
      "output_text.delta\",\"delta\":\"abc\"}\n\nevent: response.failed\n"
      "data: {\"type\":\"response.failed\",\"response\":{\"id\":\"r\",\"o"
      "utput\":[{\"content\":[{\"text\":\"abc\"}]}],\"usage\":{\"input_to"
      "kens\":100,\"input_tokens_details\":{\"cached_tokens\":40},\"outpu"
      "t_tokens\":7,\"output_tokens_details\":{\"reasoning_tokens\":4},\""
      "total_tokens\":107},\"service_tier\":\"priority\"}}\n\n",
      { 100, 7, 40, 0, 0, 4, 0, 0, 0, 0 },
      0, 0, 0, 3, 3, -1 },
    { "messages", 0, KT_SHAPE_ANTHROPIC,
      "{\"id\": \"msg_1\", \"content\": [{\"type\": \"text\", \"text\": "
      "\"hi\"}], \"usage\": {\"input_tokens\": 10, \"cache_creation_input"
      "_tokens\": 30, \"cache_read_input_tokens\": 5, \"cache_creation\":"
      " {\"ephemeral_5m_input_tokens\": 10, \"ephemeral_1h_input_tokens\""
      ": 20}, \"output_tokens\": 9, \"service_tier\": \"standard\", \"ser"
      "ver_tool_use\": {\"web_search_requests\": 2}}}",
      { 45, 9, 5, 30, 20, 0, 0, 0, 0, 0 },
      0, 0, 2, 0, -1, -1 },
    { "messages stream", 1, KT_SHAPE_ANTHROPIC,
      "event: message_start\ndata: {\"type\":\"message_start\",\"message"
      "\":{\"id\":\"msg_1\",\"usage\":{\"input_tokens\":10,\"cache_creati"
      "on_input_tokens\":30,\"cache_read_input_tokens\":5,\"cache_creatio"
      "n\":{\"ephemeral_5m_input_tokens\":10,\"ephemeral_1h_input_tokens"
      "\":20},\"output_tokens\":1,\"service_tier\":\"standard\"}}}\n\neve"
      "nt: content_block_delta\ndata: {\"type\":\"content_block_delta\","
      "\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hello\"}"
      "}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"del"
      "ta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":9"
      "}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
      { 45, 9, 5, 30, 20, 0, 0, 0, 0, 0 },
      0, 0, 0, 5, -1, -1 },
    { "Gemini", 0, KT_SHAPE_ANY,
      "{\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"ab\"}], "
      "\"role\": \"model\"}}], \"usageMetadata\": {\"promptTokenCount\": "
      "20, \"candidatesTokenCount\": 6, \"thoughtsTokenCount\": 4, \"tool"
      "UsePromptTokenCount\": 2, \"cachedContentTokenCount\": 5, \"totalT"
      "okenCount\": 32, \"promptTokensDetails\": [{\"modality\": \"TEXT\""
      ", \"tokenCount\": 8}, {\"modality\": \"AUDIO\", \"tokenCount\": 12"
      "}], \"candidatesTokensDetails\": [{\"modality\": \"IMAGE\", \"toke"
      "nCount\": 6}]}, \"responseId\": \"g\"}",
      { 22, 10, 5, 0, 0, 4, 12, 0, 0, 6 },
      0, 0, 0, 2, -1, -1 },
    { "Gemini, an array", 0, KT_SHAPE_ANY,
      "[\n {\n  \"candidates\": [\n   {\n    \"content\": {\n     \"parts"
      "\": [\n      {\n       \"text\": \"ab\"\n      }\n     ],\n     \""
      "role\": \"model\"\n    }\n   }\n  ],\n  \"usageMetadata\": {\n   "
      "\"promptTokenCount\": 20,\n   \"candidatesTokenCount\": 2,\n   \"t"
      "houghtsTokenCount\": 4,\n   \"toolUsePromptTokenCount\": 2,\n   \""
      "cachedContentTokenCount\": 5,\n   \"totalTokenCount\": 28,\n   \"p"
      "romptTokensDetails\": [\n    {\n     \"modality\": \"TEXT\",\n    "
      " \"tokenCount\": 8\n    },\n    {\n     \"modality\": \"AUDIO\",\n"
      "     \"tokenCount\": 12\n    }\n   ],\n   \"candidatesTokensDetail"
      "s\": [\n    {\n     \"modality\": \"IMAGE\",\n     \"tokenCount\":"
      " 2\n    }\n   ]\n  },\n  \"responseId\": \"g\"\n },\n {\n  \"candi"
      "dates\": [\n   {\n    \"content\": {\n     \"parts\": [\n      {\n"
      "       \"text\": \"ab\"\n      }\n     ],\n     \"role\": \"model"
      "\"\n    }\n   }\n  ],\n  \"usageMetadata\": {\n   \"promptTokenCou"
      "nt\": 20,\n   \"candidatesTokenCount\": 4,\n   \"thoughtsTokenCoun"
      "t\": 4,\n   \"toolUsePromptTokenCount\": 2,\n   \"cachedContentTok"
      "enCount\": 5,\n   \"totalTokenCount\": 30,\n   \"promptTokensDetai"
      "ls\": [\n    {\n     \"modality\": \"TEXT\",\n     \"tokenCount\":"
      " 8\n    },\n    {\n     \"modality\": \"AUDIO\",\n     \"tokenCoun"
      "t\": 12\n    }\n   ],\n   \"candidatesTokensDetails\": [\n    {\n "
      "    \"modality\": \"IMAGE\",\n     \"tokenCount\": 4\n    }\n   ]"
      "\n  },\n  \"responseId\": \"g\"\n },\n {\n  \"candidates\": [\n   "
      "{\n    \"content\": {\n     \"parts\": [\n      {\n       \"text\""
      ": \"ab\"\n      }\n     ],\n     \"role\": \"model\"\n    }\n   }"
      "\n  ],\n  \"usageMetadata\": {\n   \"promptTokenCount\": 20,\n   "
      "\"candidatesTokenCount\": 6,\n   \"thoughtsTokenCount\": 4,\n   \""
      "toolUsePromptTokenCount\": 2,\n   \"cachedContentTokenCount\": 5,"
      "\n   \"totalTokenCount\": 32,\n   \"promptTokensDetails\": [\n    "
      "{\n     \"modality\": \"TEXT\",\n     \"tokenCount\": 8\n    },\n "
      "   {\n     \"modality\": \"AUDIO\",\n     \"tokenCount\": 12\n    "
      "}\n   ],\n   \"candidatesTokensDetails\": [\n    {\n     \"modalit"
      "y\": \"IMAGE\",\n     \"tokenCount\": 6\n    }\n   ]\n  },\n  \"re"
      "sponseId\": \"g\"\n }\n]",
      { 22, 10, 5, 0, 0, 4, 12, 0, 0, 6 },
      0, 0, 0, 6, -1, -1 },
    { "Gemini, events", 1, KT_SHAPE_ANY,
      "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"ab\"}]"
      ",\"role\":\"model\"}}],\"usageMetadata\":{\"promptTokenCount\":20,"
      "\"candidatesTokenCount\":2,\"thoughtsTokenCount\":4,\"toolUsePromp"
      "tTokenCount\":2,\"cachedContentTokenCount\":5,\"totalTokenCount\":"
      "28,\"promptTokensDetails\":[{\"modality\":\"TEXT\",\"tokenCount\":"
      "8},{\"modality\":\"AUDIO\",\"tokenCount\":12}],\"candidatesTokensD"
      "etails\":[{\"modality\":\"IMAGE\",\"tokenCount\":2}]},\"responseId"
      "\":\"g\"}\r\n\r\ndata: {\"candidates\":[{\"content\":{\"parts\":[{"
      "\"text\":\"ab\"}],\"role\":\"model\"}}],\"usageMetadata\":{\"promp"
      "tTokenCount\":20,\"candidatesTokenCount\":4,\"thoughtsTokenCount\""
      ":4,\"toolUsePromptTokenCount\":2,\"cachedContentTokenCount\":5,\"t"
      "otalTokenCount\":30,\"promptTokensDetails\":[{\"modality\":\"TEXT"
      "\",\"tokenCount\":8},{\"modality\":\"AUDIO\",\"tokenCount\":12}],"
      "\"candidatesTokensDetails\":[{\"modality\":\"IMAGE\",\"tokenCount"
      "\":4}]},\"responseId\":\"g\"}\r\n\r\ndata: {\"candidates\":[{\"con"
      "tent\":{\"parts\":[{\"text\":\"ab\"}],\"role\":\"model\"}}],\"usag"
      "eMetadata\":{\"promptTokenCount\":20,\"candidatesTokenCount\":6,\""
      "thoughtsTokenCount\":4,\"toolUsePromptTokenCount\":2,\"cachedConte"
      "ntTokenCount\":5,\"totalTokenCount\":32,\"promptTokensDetails\":[{"
      "\"modality\":\"TEXT\",\"tokenCount\":8},{\"modality\":\"AUDIO\",\""
      "tokenCount\":12}],\"candidatesTokensDetails\":[{\"modality\":\"IMA"
      "GE\",\"tokenCount\":6}]},\"responseId\":\"g\"}\r\n\r\n",
      { 22, 10, 5, 0, 0, 4, 12, 0, 0, 6 },
      0, 0, 0, 6, -1, -1 },
    { "Gemini, a blocked prompt", 0, KT_SHAPE_ANY,
      "{\"promptFeedback\": {\"blockReason\": \"SAFETY\"}, \"usageMetadat"
      "a\": {\"promptTokenCount\": 9, \"totalTokenCount\": 9}}",
      { 9, 0, 0, 0, 0, 0, 0, 0, 0, 0 },
      0, 0, 0, 0, -1, -1 },
    { "images", 0, KT_SHAPE_ANY,
      "{\"data\": [{\"b64_json\": \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
      "AAAAAAAAAAAAA\"}], \"usage\": {\"input_tokens\": 30, \"output_toke"
      "ns\": 100, \"input_tokens_details\": {\"text_tokens\": 10, \"image"
      "_tokens\": 20}}}",
      { 30, 100, 0, 0, 0, 0, 0, 20, 0, 0 },
      0, 0, 0, 0, -1, -1 },
    { "images, streamed", 1, KT_SHAPE_ANY,
      "event: image_generation.completed\ndata: {\"type\":\"image_generat"
      "ion.completed\",\"b64_json\":\"AA\",\"usage\":{\"input_tokens\":30"
      ",\"output_tokens\":100,\"input_tokens_details\":{\"image_tokens\":"
      "20}}}\n\n",
      { 30, 100, 0, 0, 0, 0, 0, 20, 0, 0 },
      0, 0, 0, 0, -1, -1 },
    { "a transcription, tokens", 0, KT_SHAPE_ANY,
      "{\"text\": \"x\", \"usage\": {\"type\": \"tokens\", \"input_tokens"
      "\": 14, \"input_token_details\": {\"text_tokens\": 4, \"audio_toke"
      "ns\": 10}, \"output_tokens\": 5}}",
      { 14, 5, 0, 0, 0, 0, 10, 0, 0, 0 },
      0, 0, 0, 0, -1, -1 },
    { "a transcription, seconds", 0, KT_SHAPE_ANY,
      "{\"text\": \"x\", \"usage\": {\"type\": \"duration\", \"seconds\":"
      " 3.2}}",
      { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 },
      3200, 0, 0, 0, -1, -1 },
    { "a transcription, verbose", 0, KT_SHAPE_ANY,
      "{\"task\": \"transcribe\", \"duration\": 8.4701, \"segments\": [{"
      "\"duration\": 1}], \"text\": \"x\"}",
      { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 },
      0, 0, 0, 0, -1, 8471 },
    { "rerank", 0, KT_SHAPE_ANY,
      "{\"results\": [{\"index\": 0}], \"meta\": {\"billed_units\": {\"se"
      "arch_units\": 3}}}",
      { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 },
      0, 3, 0, 0, -1, -1 },
};


static void
run(answer_t *a, size_t k, size_t cut, size_t step)
{
    size_t                i, n, len;
    const unsigned char  *p;

    p = (const unsigned char *) answers[k].text;
    len = strlen(answers[k].text);

    answer_init(a, answers[k].sse, answers[k].shape);

    for (i = 0; i < len; i += n) {
        n = i < cut ? cut - i : step;
        n = n < len - i ? n : len - i;
        answer_feed(a, p + i, n);
    }

    answer_end(a);
}


int
main(void)
{
    size_t       i, k, len, differ;
    kt_usage_t  *u;

    static answer_t  whole, cut;

    for (k = 0; k < sizeof(answers) / sizeof(answers[0]); k++) {
        len = strlen(answers[k].text);
        run(&whole, k, len, len);
        u = &whole.usage;

        ok(u->in_tok == answers[k].tok[0] && u->out_tok == answers[k].tok[1]
           && u->cr_tok == answers[k].tok[2] && u->cw_tok == answers[k].tok[3]
           && u->cw1h_tok == answers[k].tok[4]
           && u->rs_tok == answers[k].tok[5] && u->ai_tok == answers[k].tok[6]
           && u->ii_tok == answers[k].tok[7] && u->ao_tok == answers[k].tok[8]
           && u->io_tok == answers[k].tok[9], "%s: tokens", answers[k].name);
        is_int(u->dur_ms, answers[k].ms, "... seconds");
        is_int(u->units, answers[k].units, "... units");
        is_int(u->searches, answers[k].searches, "... searches");
        is_int(whole.delta_bytes, answers[k].delta, "... content");
        is_int(whole.service, answers[k].service, "... tier");
        is_int(whole.dur_ms, answers[k].dur, "... duration");

        for (i = 1, differ = 0; i < len; i++) {
            run(&cut, k, i, len);
            differ += !answer_same(&cut, &whole);
        }

        for (i = 1; i < 9; i++) {
            run(&cut, k, 0, i);
            differ += !answer_same(&cut, &whole);
        }

        is_int((int64_t) differ, 0, "... however it is cut");
    }

    return tap_done();
}
