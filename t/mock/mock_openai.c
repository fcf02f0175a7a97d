/*
 * Answers in OpenAI's shape: chat completions (whole and streamed),
 * embeddings, models, errors.
 */

#include <stdio.h>

#include "mock.h"


/*
 * Content for so many tokens, three bytes each: a client that guesses tokens
 * as a third of the bytes is right.
 */

void
mock_text(mock_buf_t *b, int64_t tokens)
{
    int64_t  i;

    if (tokens > MOCK_MAX_EVENTS) {
        tokens = MOCK_MAX_EVENTS;
    }

    mock_reserve(b, (size_t) tokens * 3);

    for (i = 0; i < tokens; i++) {
        memcpy(b->p + b->len, "la ", 3);
        b->len += 3;
    }
}


/*
 * Appends content events until the piece is full; each is a copy of c->event
 * with its number, in base 36, as the first token.  Returns 0 when all are
 * there.
 */

int
mock_events(mock_conn_t *c)
{
    char        *seq;
    unsigned     n, i;
    mock_job_t  *j = &c->job;

    while (j->event < j->nevents) {
        mock_put(&c->out, c->event.p, c->event.len);
        seq = c->out.p + c->out.len - c->event.len + c->event_seq;

        for (n = j->event, i = 3; i; n /= 36) {
            seq[--i] = "0123456789abcdefghijklmnopqrstuvwxyz"[n % 36];
        }

        c->ends[j->event++] = j->sent + (int64_t) (c->out.len - c->out_off);

        if (c->req.event_delay_ms > 0 || c->out.len >= MOCK_PIECE) {
            return j->event < j->nevents;
        }
    }

    return 0;
}


void
mock_openai_usage(mock_buf_t *b, const mock_job_t *j)
{
    if (j->usage_text) {
        mock_interned(b, j->usage_text);
        return;
    }

    mock_lit(b, "{\"prompt_tokens\":");
    mock_int(b, j->prompt_tok);
    mock_lit(b, ",\"completion_tokens\":");
    mock_int(b, j->completion_tok);
    mock_lit(b, ",\"total_tokens\":");
    mock_int(b, j->prompt_tok + j->completion_tok);
    mock_lit(b, ",\"prompt_tokens_details\":{\"cached_tokens\":");
    mock_int(b, j->cached_tok);
    mock_lit(b, ",\"audio_tokens\":0},\"completion_tokens_details\":"
             "{\"reasoning_tokens\":0,\"audio_tokens\":0,"
             "\"accepted_prediction_tokens\":0,"
             "\"rejected_prediction_tokens\":0}}");
}


static void
mock_openai_common(mock_conn_t *c, mock_buf_t *b, const char *object)
{
    mock_lit(b, "{\"id\":\"");
    mock_id(b, &c->job);
    mock_lit(b, "\",\"object\":\"");
    mock_str(b, object);
    mock_lit(b, "\",\"created\":");
    mock_int(b, c->loop->created);
    mock_lit(b, ",\"model\":");
    mock_interned(b, c->job.model);
}


int
mock_openai_chat(mock_conn_t *c)
{
    unsigned     i;
    mock_job_t  *j = &c->job;
    mock_buf_t  *b = &c->loop->body;

    b->len = 0;
    mock_openai_common(c, b, "chat.completion");
    mock_lit(b, ",\"choices\":[");

    for (i = 0; i < j->choices; i++) {
        mock_str(b, i ? ",{\"index\":" : "{\"index\":");
        mock_int(b, i);
        mock_lit(b, ",\"message\":{\"role\":\"assistant\",\"content\":\"");
        mock_text(b, j->completion_tok / j->choices);
        mock_lit(b, "\",\"refusal\":null,\"annotations\":[]},"
                 "\"logprobs\":null,\"finish_reason\":\"");
        mock_str(b, j->cut ? "length" : "stop");
        mock_lit(b, "\"}");
    }

    mock_lit(b, "]");

    if (j->usage) {
        mock_lit(b, ",\"usage\":");
        mock_openai_usage(b, j);
    }

    mock_lit(b, ",\"service_tier\":\"");
    mock_str(b, c->job.tier ? c->job.tier : "default");
    mock_lit(b, "\",\"system_fingerprint\":\"fp_mock\"}");

    return mock_http_answer(c, 200);
}


/*
 * One chunk, framed.  With tokens the delta is an open string of content, to
 * be filled with them; event_seq notes where.
 */

static void
mock_openai_chunk(mock_conn_t *c, mock_buf_t *b, unsigned index,
    const char *delta, int64_t tokens, const char *finish)
{
    size_t  mark;

    mark = mock_http_begin(c, b);

    mock_lit(b, "data: ");
    mock_openai_common(c, b, "chat.completion.chunk");
    mock_lit(b, ",\"service_tier\":\"default\","
             "\"system_fingerprint\":\"fp_mock\","
             "\"choices\":[{\"index\":");
    mock_int(b, index);
    mock_lit(b, ",\"delta\":");
    mock_str(b, delta);

    if (tokens) {
        c->event_seq = b->len;
        mock_text(b, tokens);
        mock_lit(b, "\"}");
    }

    mock_lit(b, ",\"logprobs\":null,\"finish_reason\":");
    mock_str(b, finish);
    mock_lit(b, "}]");

    if (c->req.running && c->job.usage) {
        mock_lit(b, ",\"usage\":{\"prompt_tokens\":");
        mock_int(b, c->job.prompt_tok);
        mock_lit(b, ",\"completion_tokens\":1}");

    } else if (c->job.usage_null) {
        mock_lit(b, ",\"usage\":null");
    }

    mock_lit(b, "}\n\n");
    mock_http_end(c, b, mark);
}


static void
mock_openai_tail(mock_conn_t *c)
{
    size_t       mark;
    mock_buf_t  *b = &c->out;

    if (c->job.usage && c->job.usage_null) {
        mark = mock_http_begin(c, b);

        mock_lit(b, "data: ");
        mock_openai_common(c, b, "chat.completion.chunk");
        mock_lit(b, ",\"service_tier\":\"default\","
                 "\"system_fingerprint\":\"fp_mock\","
                 "\"choices\":[],\"usage\":");
        mock_openai_usage(b, &c->job);
        mock_lit(b, "}\n\n");

        mock_http_end(c, b, mark);
    }
}


/* Role, content, finish, usage, [DONE]: one step each, one piece a time. */

int
mock_openai_stream(mock_conn_t *c)
{
    size_t       mark;
    unsigned     i;
    mock_job_t  *j = &c->job;

    switch (j->step++) {

    case 0:
        mock_http_head(c, "text/event-stream; charset=utf-8");

        for (i = 0; i < j->choices; i++) {
            mock_openai_chunk(c, &c->out, i, "{\"role\":\"assistant\","
                              "\"content\":\"\",\"refusal\":null}", 0, "null");
        }

        c->event.len = 0;
        mock_openai_chunk(c, &c->event, 0, "{\"content\":\"", j->per_event,
                          "null");
        return 1;

    case 1:
        if (mock_events(c)) {
            j->step = 1;
        }

        return 1;

    case 2:
        for (i = 0; i < j->choices; i++) {
            mock_openai_chunk(c, &c->out, i, "{}", 0,
                              j->cut ? "\"length\"" : "\"stop\"");
        }

        return 1;

    case 3:
        mock_openai_tail(c);

        if (c->req.twice) {
            mock_openai_tail(c);
        }

        return 1;

    default:
        mark = mock_http_begin(c, &c->out);
        mock_lit(&c->out, "data: [DONE]\n\n");
        mock_http_end(c, &c->out, mark);
        mock_http_last(c);
        return 0;
    }
}


int
mock_openai_embeddings(mock_conn_t *c)
{
    mock_buf_t  *b = &c->loop->body;

    b->len = 0;
    mock_lit(b, "{\"id\":\"");
    mock_id(b, &c->job);
    mock_lit(b, "\",\"object\":\"list\",\"data\":[{\"object\":\"embedding\","
             "\"index\":0,\"embedding\":[0.25,-0.5,0.125,0.0625]}],"
             "\"model\":");
    mock_interned(b, c->job.model);

    if (c->job.usage && c->job.usage_text) {
        mock_lit(b, ",\"usage\":");
        mock_interned(b, c->job.usage_text);

    } else if (c->job.usage) {
        mock_lit(b, ",\"usage\":{\"prompt_tokens\":");
        mock_int(b, c->job.prompt_tok);
        mock_lit(b, ",\"total_tokens\":");
        mock_int(b, c->job.prompt_tok);
        mock_lit(b, "}");
    }

    mock_lit(b, "}");

    return mock_http_answer(c, 200);
}


int
mock_openai_models(mock_conn_t *c)
{
    mock_buf_t  *b = &c->loop->body;

    b->len = 0;
    mock_lit(b, "{\"object\":\"list\",\"data\":["
             "{\"id\":\"gpt-4o\",\"object\":\"model\",\"created\":1715367049,"
             "\"owned_by\":\"mock\"},"
             "{\"id\":\"claude-sonnet-4\",\"object\":\"model\","
             "\"created\":1715367049,\"owned_by\":\"mock\"},"
             "{\"id\":\"text-embedding-3-small\",\"object\":\"model\","
             "\"created\":1705948997,\"owned_by\":\"mock\"}]}");

    return mock_http_answer(c, 200);
}


void
mock_openai_error(mock_conn_t *c, int status, const char *message)
{
    mock_buf_t  *b = &c->loop->body;

    b->len = 0;
    mock_lit(b, "{\"error\":{\"message\":\"");
    mock_str(b, message);
    mock_lit(b, "\",\"type\":\"");
    mock_str(b, status == 429 ? "rate_limit_error"
                : status == 401 ? "authentication_error"
                : status < 500 ? "invalid_request_error" : "server_error");
    mock_lit(b, "\",\"param\":null,\"code\":null}}");
    (void) mock_http_answer(c, status);
}
