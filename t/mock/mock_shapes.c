/*
 * Answers of the other routes: completions, responses, Gemini, images, audio,
 * moderations, ranking, scores, token counts.
 */

#include "mock.h"


/* Chapter: usage, in the words of each shape. */


static void
mock_usage_responses(mock_buf_t *b, const mock_job_t *j)
{
    if (j->usage_text) {
        mock_interned(b, j->usage_text);
        return;
    }

    mock_lit(b, "{\"input_tokens\":");
    mock_int(b, j->prompt_tok);
    mock_lit(b, ",\"input_tokens_details\":{\"cached_tokens\":");
    mock_int(b, j->cached_tok);
    mock_lit(b, "},\"output_tokens\":");
    mock_int(b, j->completion_tok);
    mock_lit(b, ",\"output_tokens_details\":{\"reasoning_tokens\":0},"
             "\"total_tokens\":");
    mock_int(b, j->prompt_tok + j->completion_tok);
    mock_lit(b, "}");
}


static void
mock_usage_gemini(mock_buf_t *b, const mock_job_t *j, int64_t out)
{
    if (j->usage_text) {
        mock_interned(b, j->usage_text);
        return;
    }

    mock_lit(b, "{\"promptTokenCount\":");
    mock_int(b, j->prompt_tok);
    mock_lit(b, ",\"cachedContentTokenCount\":");
    mock_int(b, j->cached_tok);
    mock_lit(b, ",\"candidatesTokenCount\":");
    mock_int(b, out);
    mock_lit(b, ",\"totalTokenCount\":");
    mock_int(b, j->prompt_tok + out);
    mock_lit(b, "}");
}


static void
mock_usage_member(mock_buf_t *b, const mock_job_t *j)
{
    if (j->usage) {
        mock_lit(b, ",\"usage\":");
        mock_usage_responses(b, j);
    }
}


/* Chapter: whole answers. */


static int
mock_answer(mock_conn_t *c)
{
    return mock_http_answer(c, 200);
}


static void
mock_id_member(mock_conn_t *c, mock_buf_t *b)
{
    b->len = 0;
    mock_lit(b, "{\"id\":\"");
    mock_id(b, &c->job);
    mock_lit(b, "\"");
}


static int
mock_completion(mock_conn_t *c)
{
    mock_buf_t  *b = &c->loop->body;

    mock_id_member(c, b);
    mock_lit(b, ",\"object\":\"text_completion\",\"model\":");
    mock_interned(b, c->job.model);
    mock_lit(b, ",\"choices\":[{\"index\":0,\"text\":\"");
    mock_text(b, c->job.completion_tok);
    mock_lit(b, "\",\"finish_reason\":\"stop\"}]");

    if (c->job.usage) {
        mock_lit(b, ",\"usage\":");
        mock_openai_usage(b, &c->job);
    }

    mock_lit(b, "}");

    return mock_answer(c);
}


/* The object of the Responses API, without the last brace. */

static void
mock_response_object(mock_conn_t *c, mock_buf_t *b, const char *status)
{
    mock_lit(b, "{\"id\":\"");
    mock_id(b, &c->job);
    mock_lit(b, "\",\"object\":\"response\",\"status\":\"");
    mock_str(b, status);
    mock_lit(b, "\",\"model\":");
    mock_interned(b, c->job.model);
    mock_lit(b, ",\"service_tier\":\"");
    mock_str(b, c->job.tier ? c->job.tier : "default");
    mock_lit(b, "\"");
}


static int
mock_response(mock_conn_t *c)
{
    mock_buf_t  *b = &c->loop->body;

    b->len = 0;
    mock_response_object(c, b, c->job.cut ? "incomplete" : "completed");
    mock_lit(b, ",\"output\":[{\"type\":\"message\",\"content\":[{\"type\":"
             "\"output_text\",\"text\":\"");
    mock_text(b, c->job.completion_tok);
    mock_lit(b, "\"}]}]");
    mock_usage_member(b, &c->job);
    mock_lit(b, "}");

    return mock_answer(c);
}


static void
mock_gemini_object(mock_conn_t *c, mock_buf_t *b, int64_t tokens, int64_t sum)
{
    mock_lit(b, "{\"candidates\":[{\"content\":{\"role\":\"model\",\"parts\":"
             "[{\"text\":\"");
    mock_text(b, tokens);
    mock_lit(b, "\"}]},\"index\":0}]");

    if (c->job.usage) {
        mock_lit(b, ",\"usageMetadata\":");
        mock_usage_gemini(b, &c->job, sum);
    }

    mock_lit(b, ",\"responseId\":\"");
    mock_id(b, &c->job);
    mock_lit(b, "\"}");
}


static int
mock_gemini(mock_conn_t *c)
{
    c->loop->body.len = 0;
    mock_gemini_object(c, &c->loop->body, c->job.completion_tok,
                       c->job.completion_tok);

    return mock_answer(c);
}


static int
mock_images(mock_conn_t *c)
{
    unsigned     i;
    mock_buf_t  *b = &c->loop->body;

    b->len = 0;
    mock_lit(b, "{\"created\":1,\"data\":[");

    for (i = 0; i < c->job.choices; i++) {
        mock_str(b, i ? ",{\"url\":\"http://img\"}"
                      : "{\"url\":\"http://img\"}");
    }

    mock_lit(b, "]");

    if (c->job.usage_text) {
        mock_usage_member(b, &c->job);
    }

    mock_lit(b, "}");

    return mock_answer(c);
}


/* Sound, as far as a client can tell. */

static int
mock_speech(mock_conn_t *c)
{
    c->loop->body.len = 0;
    mock_text(&c->loop->body, 100);

    return mock_answer(c);
}


static int
mock_transcription(mock_conn_t *c)
{
    mock_buf_t  *b = &c->loop->body;

    b->len = 0;
    mock_lit(b, "{\"text\":\"");
    mock_text(b, 10);
    mock_lit(b, "\"");

    if (c->job.usage && c->job.usage_text == 0) {
        mock_lit(b, ",\"duration\":12.34");

    } else {
        mock_usage_member(b, &c->job);
    }

    mock_lit(b, "}");

    return mock_answer(c);
}


static int
mock_moderation(mock_conn_t *c)
{
    mock_buf_t  *b = &c->loop->body;

    mock_id_member(c, b);
    mock_lit(b, ",\"model\":");
    mock_interned(b, c->job.model);
    mock_lit(b, ",\"results\":[{\"flagged\":false}]}");

    return mock_answer(c);
}


static int
mock_rerank(mock_conn_t *c)
{
    mock_buf_t  *b = &c->loop->body;

    mock_id_member(c, b);
    mock_lit(b, ",\"results\":[{\"index\":0,\"relevance_score\":0.5}]");

    if (c->job.usage_text) {
        mock_usage_member(b, &c->job);

    } else if (c->job.usage) {
        mock_lit(b, ",\"meta\":{\"billed_units\":{\"search_units\":1}}");
    }

    mock_lit(b, "}");

    return mock_answer(c);
}


static int
mock_score(mock_conn_t *c)
{
    mock_buf_t  *b = &c->loop->body;

    mock_id_member(c, b);
    mock_lit(b, ",\"data\":[{\"index\":0,\"score\":0.5}]");

    if (c->job.usage) {
        mock_lit(b, ",\"usage\":{\"total_tokens\":");
        mock_int(b, c->job.prompt_tok);
        mock_lit(b, "}");
    }

    mock_lit(b, "}");

    return mock_answer(c);
}


static int
mock_count(mock_conn_t *c)
{
    mock_buf_t  *b = &c->loop->body;

    b->len = 0;
    mock_lit(b, "{\"input_tokens\":");
    mock_int(b, c->job.prompt_tok);
    mock_lit(b, ",\"totalTokens\":");
    mock_int(b, c->job.prompt_tok);
    mock_lit(b, "}");

    return mock_answer(c);
}


static int
mock_gemini_embedding(mock_conn_t *c)
{
    c->loop->body.len = 0;
    mock_lit(&c->loop->body, "{\"embedding\":{\"values\":[0.25,-0.5]}}");

    return mock_answer(c);
}


/* Chapter: streams. */


/* How many tokens the next content event has, none when all are out. */

static int64_t
mock_next_tokens(mock_job_t *j)
{
    int64_t  done;

    done = (int64_t) j->event * j->per_event;

    return done + j->per_event < j->completion_tok
           ? j->per_event : j->completion_tok - done;
}


static void
mock_event_sent(mock_conn_t *c)
{
    mock_job_t  *j = &c->job;

    c->ends[j->event++] = j->sent + (int64_t) (c->out.len - c->out_off);
}


static void
mock_response_state(mock_conn_t *c, const char *type, const char *status,
    int usage)
{
    size_t       mark;
    mock_buf_t  *b = &c->out;

    mark = mock_http_begin(c, b);
    mock_lit(b, "event: ");
    mock_str(b, type);
    mock_lit(b, "\ndata: {\"type\":\"");
    mock_str(b, type);
    mock_lit(b, "\",\"response\":");
    mock_response_object(c, b, status);

    if (usage) {
        mock_usage_member(b, &c->job);

    } else {
        mock_lit(b, ",\"usage\":null");
    }

    mock_lit(b, "}}\n\n");
    mock_http_end(c, b, mark);
}


static int
mock_response_stream(mock_conn_t *c)
{
    size_t       mark;
    mock_job_t  *j = &c->job;
    mock_buf_t  *b = &c->out;

    switch (j->step) {

    case 0:
        mock_http_head(c, "text/event-stream; charset=utf-8");
        mock_response_state(c, "response.created", "in_progress", 0);
        j->step = 1;
        return 1;

    case 1:
        if (j->event < j->nevents) {
            mark = mock_http_begin(c, b);
            mock_lit(b, "event: response.output_text.delta\ndata: {\"type\":"
                     "\"response.output_text.delta\",\"delta\":\"");
            mock_text(b, mock_next_tokens(j));
            mock_lit(b, "\"}\n\n");
            mock_http_end(c, b, mark);
            mock_event_sent(c);
            return 1;
        }

        j->step = 2;
        return 1;

    default:
        mock_response_state(c, j->cut ? "response.incomplete"
                                      : "response.completed",
                            j->cut ? "incomplete" : "completed", 1);
        mock_http_last(c);
        return 0;
    }
}


/* With alt=sse events, else one array that grows. */

static int
mock_gemini_stream(mock_conn_t *c)
{
    size_t       mark;
    int64_t      n, done;
    mock_job_t  *j = &c->job;
    mock_buf_t  *b = &c->out;

    if (j->step == 0) {
        mock_http_head(c, c->req.sse ? "text/event-stream"
                                     : "application/json");
        j->step = 1;
    }

    mark = mock_http_begin(c, b);

    if (j->event < j->nevents) {
        n = mock_next_tokens(j);
        done = (int64_t) j->event * j->per_event + n;
        mock_str(b, c->req.sse ? "data: " : j->event ? ",\r\n" : "[");
        mock_gemini_object(c, b, n, done);
        mock_str(b, c->req.sse ? "\r\n\r\n" : "");
        mock_http_end(c, b, mark);
        mock_event_sent(c);
        return 1;
    }

    mock_str(b, c->req.sse ? ": end\r\n\r\n" : j->nevents ? "]" : "[]");
    mock_http_end(c, b, mark);
    mock_http_last(c);

    return 0;
}


mock_next_pt
mock_shape(mock_conn_t *c)
{
    switch (c->req.route) {

    case MOCK_COMPLETIONS:
        c->job.stream = 0;
        return mock_completion;

    case MOCK_RESPONSES:
        return c->job.stream ? mock_response_stream : mock_response;

    case MOCK_GEMINI:
        return c->job.stream ? mock_gemini_stream : mock_gemini;

    case MOCK_GEMINI_EMBED:
        return mock_gemini_embedding;

    case MOCK_IMAGES:
        return mock_images;

    case MOCK_SPEECH:
        return mock_speech;

    case MOCK_AUDIO:
        return mock_transcription;

    case MOCK_MODERATIONS:
        return mock_moderation;

    case MOCK_RERANK:
        return mock_rerank;

    case MOCK_SCORE:
        return mock_score;

    default: /* MOCK_COUNT */
        return mock_count;
    }
}
