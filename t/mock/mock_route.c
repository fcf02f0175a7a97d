/*
 * From a request to a job, and from a finished job to a line of the truth.
 */

#include <stdlib.h>

#include "mock.h"


static void
mock_error(mock_conn_t *c, int status, const char *message)
{
    c->job.ended = MOCK_ERROR;
    c->job.last = 1;
    c->job.nevents = 0;
    c->job.prompt_tok = 0;
    c->job.completion_tok = 0;
    c->job.cached_tok = 0;

    if (c->job.prefix == NULL) {
        c->job.prefix = "req_";
        c->job.id = mock_truth_id();
    }

    if (c->req.route == MOCK_MESSAGES) {
        mock_anthropic_error(c, status, message);

    } else {
        mock_openai_error(c, status, message);
    }
}


/* The lines in pieces, or the summary. */

static int
mock_truth_next(mock_conn_t *c)
{
    size_t  mark;

    if (c->job.step == 0) {
        c->job.step = 1;
        mock_http_head(c, "application/x-ndjson");
    }

    mark = mock_http_begin(c, &c->out);
    c->job.cursor = mock_truth_lines(&c->out, c->job.cursor);

    if (c->out.len == mark) {
        c->out.len -= c->req.http10 ? 0 : 8;

    } else {
        mock_http_end(c, &c->out, mark);
    }

    if (c->job.cursor) {
        return 1;
    }

    mock_http_last(c);

    return 0;
}


static void
mock_route_truth(mock_conn_t *c)
{
    mock_buf_t  *b = &c->loop->body;

    b->len = 0;

    if (c->req.remove) {
        mock_truth_clear();
        mock_lit(b, "{}\n");

    } else if (!c->req.get) {
        mock_error(c, 405, "method not allowed");
        return;

    } else if (c->req.summary) {
        mock_truth_summary(b);

    } else {
        c->job.next = mock_truth_next;
        return;
    }

    (void) mock_http_answer(c, 200);
    c->job.last = 1;
}


static int64_t
mock_choose(int64_t ordered, int64_t otherwise)
{
    return ordered >= 0 ? ordered : otherwise;
}


/* How many tokens, how many events. */

static void
mock_route_tokens(mock_conn_t *c, const kt_reqscan_t *s)
{
    int64_t      out;
    mock_job_t  *j = &c->job;

    j->prompt_tok = mock_choose(c->req.prompt_tok, s->text_bytes);
    j->cached_tok = mock_choose(c->req.cached_tok, 0);

    if (j->cached_tok > j->prompt_tok) {
        j->cached_tok = j->prompt_tok;
    }

    if (c->req.route == MOCK_EMBEDDINGS || c->req.route == MOCK_COUNT
        || (c->req.route >= MOCK_GEMINI_EMBED && c->req.route <= MOCK_SCORE))
    {
        j->cached_tok = 0;
        j->choices = s->n < 128 ? (unsigned) s->n : 128;
        return;
    }

    j->choices = s->n < 128 ? (unsigned) s->n : 128;

    out = mock_choose(s->max_tok, 16);
    out = out < MOCK_MAX_OUTPUT ? out : MOCK_MAX_OUTPUT;

    j->completion_tok = mock_choose(c->req.completion_tok,
                                    out * j->choices);
    j->cut = s->max_tok >= 0 && j->completion_tok >= s->max_tok;

    j->per_event = (unsigned) ((j->completion_tok + MOCK_MAX_EVENTS - 1)
                               / MOCK_MAX_EVENTS);

    if (j->stream && j->per_event) {
        j->nevents = (unsigned) ((j->completion_tok + j->per_event - 1)
                                 / j->per_event);
    }
}


static void
mock_route_api(mock_conn_t *c, const kt_reqscan_t *s)
{
    mock_job_t  *j = &c->job;

    j->stream = s->stream || c->req.streams;
    j->usage_text = c->req.usage;
    j->tier = c->req.tier[0] ? c->req.tier : NULL;
    j->usage = !c->req.no_usage;
    j->usage_null = j->usage && s->include_usage == KT_TRI_TRUE;

    mock_route_tokens(c, s);

    if (j->per_event == 0) {
        j->per_event = 1;
    }

    switch (c->req.route) {

    case MOCK_EMBEDDINGS:
        j->next = mock_openai_embeddings;
        j->stream = 0;
        break;

    case MOCK_MESSAGES:
        j->next = j->stream ? mock_anthropic_stream : mock_anthropic_message;
        break;

    case MOCK_CHAT:
        j->next = j->stream ? mock_openai_stream : mock_openai_chat;
        break;

    default:
        j->next = mock_shape(c);
    }

    if (j->stream && c->ends == NULL) {
        c->ends = malloc(MOCK_MAX_EVENTS * sizeof(int64_t));

        if (c->ends == NULL) {
            abort();
        }
    }
}


static const char *
mock_route_prefix(mock_route_t route)
{
    switch (route) {

    case MOCK_CHAT:
        return "chatcmpl-";

    case MOCK_EMBEDDINGS:
        return "embd-";

    case MOCK_MESSAGES:
        return "msg_";

    case MOCK_RESPONSES:
        return "resp_";

    default:
        return "req_";
    }
}


/* A field is not JSON yet; names with quotes are not told apart. */

static uint32_t
mock_form_model(const kt_reqscan_t *s)
{
    char  text[KT_REQ_TEXT + 2];

    if (strchr(s->model, '"') || strchr(s->model, '\\')) {
        return 0;
    }

    text[0] = '"';
    memcpy(text + 1, s->model, s->model_len);
    text[s->model_len + 1] = '"';

    return mock_intern(text, s->model_len + 2);
}


void
mock_route(mock_conn_t *c)
{
    keytoll_rc_t           rc;
    kt_reqscan_t          *s = &c->loop->scan;
    const unsigned char   *body;

    mock_gzip_end(&c->job);
    memset(&c->job, 0, sizeof(mock_job_t));
    c->keepalive = !c->req.close;

    if (c->req.route == MOCK_TRUTH) {
        mock_route_truth(c);
        return;
    }

    if (c->req.route == MOCK_MODELS && c->req.get) {
        c->job.next = mock_openai_models;
        return;
    }

    if (c->req.route == MOCK_BODY) {
        c->loop->body.len = 0;
        mock_truth_kept(&c->loop->body);
        (void) mock_http_answer(c, 200);
        c->job.last = 1;
        return;
    }

    if (c->req.route == MOCK_PEAKS) {
        c->loop->body.len = 0;
        mock_truth_peaks(&c->loop->body);
        (void) mock_http_answer(c, 200);
        c->job.last = 1;
        return;
    }

    mock_truth_enter(c->req.gauge);
    c->job.gauged = 1;
    c->job.record = c->req.post;
    c->job.id = mock_truth_id();
    c->job.prefix = mock_route_prefix(c->req.route);

    if (c->req.route == MOCK_NONE) {
        mock_error(c, 404, "no such route");
        return;
    }

    if (!c->req.post) {
        mock_error(c, 405, "method not allowed");
        return;
    }

    body = (const unsigned char *) c->in.p + c->req.head_len;
    mock_truth_keep((const char *) body, c->req.body_len);

    rc = c->req.type == KT_TYPE_MULTIPART
         ? kt_multipart(body, c->req.body_len, c->req.boundary,
                        c->req.boundary_len, s)
         : kt_reqscan(body, c->req.body_len, s);

    if (c->req.path_model) {
        c->job.model = c->req.path_model;

    } else if (s->form && rc == KT_OK) {
        c->job.model = mock_form_model(s);

    } else if (s->model_span.len && rc == KT_OK) {
        c->job.model = mock_intern((const char *) body + s->model_span.off,
                                   s->model_span.len);
    }

    if (c->req.status >= 400) {
        mock_error(c, (int) c->req.status, "as ordered by x-mock-status");

    } else if (rc != KT_OK) {
        mock_error(c, 400, s->bad_json ? "the body is not valid JSON"
                                       : "the body has an unacceptable value");

    } else if (s->model_len == 0 && c->req.path_model == 0
               && c->req.route != MOCK_COUNT)
    {
        mock_error(c, 400, "you must provide a model parameter");

    } else {
        mock_route_api(c, s);
    }
}


/*
 * The tokens of an answer that did not get out whole: of a stream, those in
 * the content events that were written; else all if any byte was written.
 */

static void
mock_route_partial(mock_conn_t *c)
{
    unsigned     lo, hi, mid;
    mock_job_t  *j = &c->job;

    if (!j->stream) {
        j->completion_tok = j->sent ? j->completion_tok : 0;
        return;
    }

    for (lo = 0, hi = j->event; lo < hi; ) {
        mid = (lo + hi) / 2;

        if (c->ends[mid] <= j->sent) {
            lo = mid + 1;

        } else {
            hi = mid;
        }
    }

    j->event = lo;

    if ((int64_t) lo * j->per_event < j->completion_tok) {
        j->completion_tok = (int64_t) lo * j->per_event;
    }
}


void
mock_route_leave(mock_conn_t *c)
{
    if (c->job.gauged) {
        mock_truth_leave(c->req.gauge);
        c->job.gauged = 0;
    }
}


void
mock_route_done(mock_conn_t *c, mock_ended_t ended)
{
    mock_record_t  r;
    mock_job_t    *j = &c->job;

    mock_route_leave(c);

    if (!j->record) {
        return;
    }

    if (ended != MOCK_COMPLETE) {
        if (j->ended == MOCK_COMPLETE) {
            mock_route_partial(c);
            j->ended = ended;
        }
    }

    r.id = j->id;
    r.prefix = j->prefix;
    r.model = j->model;
    r.names = c->req.names;
    r.path = c->req.path;
    r.prompt_tok = j->prompt_tok;
    r.completion_tok = j->completion_tok;
    r.cached_tok = j->cached_tok;
    r.events = j->event;
    r.ended = j->ended;

    mock_truth_add(&r);
    j->record = 0;
}
