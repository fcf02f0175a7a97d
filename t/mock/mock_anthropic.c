/*
 * Answers in Anthropic's shape: messages, whole and streamed, and errors.
 * Their input_tokens are those that did not come from the cache.
 */

#include "mock.h"


static void
mock_anthropic_usage(mock_buf_t *b, const mock_job_t *j, int64_t output)
{
    if (j->usage_text) {
        mock_interned(b, j->usage_text);
        return;
    }

    mock_lit(b, "{\"input_tokens\":");
    mock_int(b, j->prompt_tok - j->cached_tok);
    mock_lit(b, ",\"cache_creation_input_tokens\":0,"
             "\"cache_read_input_tokens\":");
    mock_int(b, j->cached_tok);
    mock_lit(b, ",\"output_tokens\":");
    mock_int(b, output);
    mock_lit(b, ",\"service_tier\":\"standard\"}");
}


static void
mock_anthropic_common(mock_conn_t *c, mock_buf_t *b)
{
    mock_lit(b, "{\"id\":\"");
    mock_id(b, &c->job);
    mock_lit(b, "\",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
    mock_interned(b, c->job.model);
}


static const char *
mock_anthropic_stop(const mock_job_t *j)
{
    return j->cut ? "\"max_tokens\"" : "\"end_turn\"";
}


int
mock_anthropic_message(mock_conn_t *c)
{
    mock_buf_t  *b = &c->loop->body;

    b->len = 0;
    mock_anthropic_common(c, b);
    mock_lit(b, ",\"content\":[{\"type\":\"text\",\"text\":\"");
    mock_text(b, c->job.completion_tok);
    mock_lit(b, "\"}],\"stop_reason\":");
    mock_str(b, mock_anthropic_stop(&c->job));
    mock_lit(b, ",\"stop_sequence\":null");

    if (c->job.usage) {
        mock_lit(b, ",\"usage\":");
        mock_anthropic_usage(b, &c->job, c->job.completion_tok);
    }

    mock_lit(b, "}");

    return mock_http_answer(c, 200);
}


static size_t
mock_anthropic_begin(mock_conn_t *c, mock_buf_t *b, const char *name)
{
    size_t  mark;

    mark = mock_http_begin(c, b);
    mock_lit(b, "event: ");
    mock_str(b, name);
    mock_lit(b, "\ndata: {\"type\":\"");
    mock_str(b, name);
    mock_lit(b, "\"");

    return mark;
}


static void
mock_anthropic_end(mock_conn_t *c, mock_buf_t *b, size_t mark)
{
    mock_lit(b, "}\n\n");
    mock_http_end(c, b, mark);
}


static void
mock_anthropic_start(mock_conn_t *c)
{
    size_t       mark;
    mock_buf_t  *b = &c->out;

    mock_http_head(c, "text/event-stream; charset=utf-8");

    mark = mock_anthropic_begin(c, b, "message_start");
    mock_lit(b, ",\"message\":");
    mock_anthropic_common(c, b);
    mock_lit(b, ",\"content\":[],\"stop_reason\":null,"
             "\"stop_sequence\":null");

    if (c->job.usage) {
        mock_lit(b, ",\"usage\":");
        mock_anthropic_usage(b, &c->job, 1);
    }

    mock_lit(b, "}");
    mock_anthropic_end(c, b, mark);

    mark = mock_anthropic_begin(c, b, "content_block_start");
    mock_lit(b, ",\"index\":0,\"content_block\":{\"type\":\"text\","
             "\"text\":\"\"}");
    mock_anthropic_end(c, b, mark);

    mark = mock_anthropic_begin(c, b, "ping");
    mock_anthropic_end(c, b, mark);

    b = &c->event;
    b->len = 0;
    mark = mock_anthropic_begin(c, b, "content_block_delta");
    mock_lit(b, ",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"");
    c->event_seq = b->len;
    mock_text(b, c->job.per_event);
    mock_lit(b, "\"}");
    mock_anthropic_end(c, b, mark);
}


static void
mock_anthropic_finish(mock_conn_t *c)
{
    size_t       mark;
    mock_buf_t  *b = &c->out;

    mark = mock_anthropic_begin(c, b, "content_block_stop");
    mock_lit(b, ",\"index\":0");
    mock_anthropic_end(c, b, mark);

    mark = mock_anthropic_begin(c, b, "message_delta");
    mock_lit(b, ",\"delta\":{\"stop_reason\":");
    mock_str(b, mock_anthropic_stop(&c->job));
    mock_lit(b, ",\"stop_sequence\":null}");

    if (c->job.usage) {
        mock_lit(b, ",\"usage\":{\"output_tokens\":");
        mock_int(b, c->job.completion_tok);
        mock_lit(b, "}");
    }

    mock_anthropic_end(c, b, mark);
}


int
mock_anthropic_stream(mock_conn_t *c)
{
    size_t       mark;
    mock_job_t  *j = &c->job;

    switch (j->step++) {

    case 0:
        mock_anthropic_start(c);
        return 1;

    case 1:
        if (mock_events(c)) {
            j->step = 1;
        }

        return 1;

    case 2:
        mock_anthropic_finish(c);
        return 1;

    default:
        mark = mock_anthropic_begin(c, &c->out, "message_stop");
        mock_anthropic_end(c, &c->out, mark);
        mock_http_last(c);
        return 0;
    }
}


void
mock_anthropic_error(mock_conn_t *c, int status, const char *message)
{
    mock_buf_t  *b = &c->loop->body;

    b->len = 0;
    mock_lit(b, "{\"type\":\"error\",\"error\":{\"type\":\"");
    mock_str(b, status == 429 ? "rate_limit_error"
                : status == 529 ? "overloaded_error"
                : status == 401 ? "authentication_error"
                : status == 404 ? "not_found_error"
                : status < 500 ? "invalid_request_error" : "api_error");
    mock_lit(b, "\",\"message\":\"");
    mock_str(b, message);
    mock_lit(b, "\"},\"request_id\":\"");
    mock_id(b, &c->job);
    mock_lit(b, "\"}");
    (void) mock_http_answer(c, status);
}
