/*
 * kt_reqscan(): what is accepted, what is refused and why, what is noted.
 */

#include <stdlib.h>

#include "kt_reqkey.h"
#include "kt_reqscan.h"
#include "tap.h"


static kt_reqscan_t  r;


static keytoll_rc_t
scan(const char *text)
{
    return kt_reqscan((const unsigned char *) text, strlen(text), &r);
}


static void
is_span(const char *text, kt_span_t span, const char *want, const char *name)
{
    is_mem(text + span.off, span.len, want, name);
}


/* Tools that the provider runs: what they read, how often they search. */

static void
tools(void)
{
    size_t  i;
    char    name[192];

    static const struct {
        int64_t      searches;
        int          remote;
        const char  *text;
    } t[] = {
        { 0, 0, "{\"tools\":[]}" },
        { 0, 0, "{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"web_search\"}}]}" },
        { 0, 0, "{\"tools\":[{\"type\":\"function\",\"name\":\"web_search\",\"max_uses\":3}]}" },
        { 0, 0, "{\"tools\":[{\"name\":\"a\",\"input_schema\":{\"type\":\"web_search\",\"google_search\":1}}]}" },
        { 5, 1, "{\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"web_search\",\"max_uses\":5}]}" },
        { 5, 1, "{\"tools\":[{\"max_uses\":5,\"type\":\"web_search_20250305\"},{\"type\":\"function\"}]}" },
        { 7, 1, "{\"tools\":[{\"type\":\"web_search_20250305\",\"max_uses\":5},{\"type\":\"web_search_20260101\",\"max_uses\":2}]}" },
        { 6400, 1, "{\"tools\":[{\"type\":\"web_search_20250305\",\"max_uses\":6400}]}" },
        { 64, 1, "{\"tools\":[{\"type\":\"web_search\",\"max_uses\":5}]}" },
        { 64, 1, "{\"tools\":[{\"type\":\"web_search_preview\",\"max_uses\":1}]}" },
        { 64, 1, "{\"tools\":[{\"type\":\"web_search_2025_08_26\",\"max_uses\":1}]}" },
        { 64, 1, "{\"tools\":[{\"type\":\"web_search_20250305\",\"max_uses\":null}]}" },
        { 64, 1, "{\"tools\":[{\"type\":\"web_search_20250305\",\"max_uses\":0}]}" },
        { 64, 1, "{\"tools\":[{\"type\":\"web_search_20250305\",\"max_uses\":-1}]}" },
        { 64, 1, "{\"tools\":[{\"type\":\"web_search_20250305\",\"max_uses\":1e9}]}" },
        { 64, 1, "{\"tools\":[{\"type\":\"web_search_20250305\",\"max_uses\":12345678}]}" },
        { 9, 1, "{\"tools\":[{\"type\":\"web_search_20250305\",\"max_uses\":2,\"max_uses\":9}]}" },
        { 64, 1, "{\"tools\":[{\"type\":\"web_search_20250305\",\"max_uses\":2,\"Max_Uses\":3}]}" },
        { 64, 1, "{\"tools\":[{\"type\":\"web_search_20250305\",\"max_uses\":2,\"max\\u005fuses\":3}]}" },
        { 64, 1, "{\"tools\":{\"google_search\":{}}}" },
        { 64, 1, "{\"tools\":[{\"type\":\"web_search\",\"type\":\"web_search_20250305\",\"max_uses\":5}]}" },
        { 64, 1, "{\"tools\":[{\"type\":\"web_search_20250305\",\"max_uses\":5,\"google_search\":{}}]}" },
        { 5, 1, "{\"tools\":{\"type\":\"web_search_20250305\",\"max_uses\":5}}" },
        { 64, 1, "{\"tools\":[{\"type\":\"x_search\"}]}" },
        { 64, 1, "{\"tools\":[{\"google_maps\":{}}]}" },
        { 64, 1, "{\"plugins\":[{\"id\":\"web\"}]}" },
        { 64, 1, "{\"prompt\":{\"id\":\"p\"}}" },
        { 64, 1, "{\"cachedContent\":\"c\"}" },
        { 0, 1, "{\"tools\":[{\"type\":\"shell\"}]}" },
        { 0, 1, "{\"tools\":[{\"type\":\"image_generation\"}]}" },
        { 64, 1, "{\"tools\":[{\"type\":\"\\u0077\\u0065\\u0062\\u005f\\u0073\\u0065\\u0061\\u0072\\u0063\\u0068\\u005f\\u0070\\u0072\\u0065\\u0076\\u0069\\u0065\\u0077_2025_03_11_a_long_name\"}]}" },
        { 64, 1, "{\"tools\":[{\"type\":\"a_type_of_more_than_forty_characters_that_nobody_has\"}]}" },
        { 64, 1, "{\"tools\":[{\"type\":\"\\u0077eb_search\"}]}" },
        { 64, 1, "{\"tools\":[{\"Type\":\"Web_Search\"}]}" },
        { 64, 1, "{\"Tools\":[{\"type\":\"web_search\"}]}" },
        { 64, 1, "{\"tools\":[{\"google_search\":{}}]}" },
        { 64, 1, "{\"tools\":[{\"googleSearchRetrieval\":{}},{\"functionDeclarations\":[]}]}" },
        { 128, 1, "{\"tools\":[{\"googleSearch\":{}},{\"enterprise_web_search\":{}}]}" },
        { 64, 1, "{\"tools\":[],\"web_search_options\":{}}" },
        { 64, 1, "{\"search_parameters\":{\"mode\":\"auto\"}}" },
        { 0, 0, "{\"web_search_options\":null}" },
        { 0, 1, "{\"tools\":[{\"type\":\"file_search\"}]}" },
        { 0, 1, "{\"tools\":[{\"type\":\"mcp\",\"server_url\":\"x\"}]}" },
        { 0, 1, "{\"tools\":[{\"codeExecution\":{}}]}" },
        { 0, 1, "{\"mcp_servers\":[]}" },
        { 0, 0, "{\"tools\":[{\"type\":\"computer_20250124\"},{\"type\":\"bash_20250124\"}]}" },
        { 0, 0, "{\"tools\":{\"type\":1,\"a\":[{\"type\":\"web_search\"}]},\"x\":[{\"type\":\"web_search\"}]}" }
    };

    for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        (void) snprintf(name, sizeof(name), "tools: %.160s", t[i].text);
        ok(scan(t[i].text) == KT_OK && r.searches == t[i].searches
           && r.remote == (unsigned) t[i].remote, "%s", name);
    }

    scan("{}");
    ok(r.any_service, "no tier is any tier");
    scan("{\"service_tier\":\"auto\"}");
    ok(r.any_service, "so is \"auto\"");
    scan("{\"service_tier\":null}");
    ok(r.any_service, "and null");
    scan("{\"service_tier\":\"default\"}");
    ok(!r.any_service, "\"default\" is one");
}


static void
strictness(void)
{
    size_t  i;
    char    name[128];

    static const struct {
        keytoll_rc_t  rc;
        const char   *text;
    } t[] = {
        { KT_OK, "{}" },
        { KT_OK, " \t\r\n{ } \n" },
        { KT_OK, "{\"a\":[],\"b\":{},\"c\":[[],{}]}" },
        { KT_OK, "{\"a\":-0.5e+10,\"b\":0,\"c\":1E5,\"d\":-0}" },
        { KT_OK, "{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00fF\"}" },
        { KT_OK, "{\"a\":true,\"b\":false,\"c\":null}" },
        { KT_OK, "{\"a\":1,\"a\":2}" },
        { KT_OK, "{\"a\":\"\x7f\xc3\xa9\"}" },
        { KT_INVALID, "{\"a\":\"\xff\"}" },
        { KT_INVALID, "{\"a\":\"\xc0\xaf\"}" },
        { KT_INVALID, "{\"a\":\"\xed\xa0\x80\"}" },
        { KT_INVALID, "" },
        { KT_INVALID, "  " },
        { KT_INVALID, "[]" },
        { KT_INVALID, "1" },
        { KT_INVALID, "null" },
        { KT_INVALID, "{" },
        { KT_INVALID, "}" },
        { KT_INVALID, "{]" },
        { KT_INVALID, "{\"a\":[}" },
        { KT_INVALID, "{\"a\"}" },
        { KT_INVALID, "{\"a\":}" },
        { KT_INVALID, "{\"a\":1,}" },
        { KT_INVALID, "{,\"a\":1}" },
        { KT_INVALID, "{\"a\":1 \"b\":2}" },
        { KT_INVALID, "{\"a\":[1,]}" },
        { KT_INVALID, "{\"a\":[,1]}" },
        { KT_INVALID, "{\"a\":[1 2]}" },
        { KT_INVALID, "{a:1}" },
        { KT_INVALID, "{'a':1}" },
        { KT_INVALID, "{1:1}" },
        { KT_INVALID, "{\"a\":1}}" },
        { KT_INVALID, "{} {}" },
        { KT_INVALID, "{}x" },
        { KT_INVALID, "{} // no" },
        { KT_INVALID, "{/* no */}" },
        { KT_INVALID, "\xef\xbb\xbf{}" },
        { KT_INVALID, "{\v}" },
        { KT_INVALID, "{\"a\":01}" },
        { KT_INVALID, "{\"a\":-}" },
        { KT_INVALID, "{\"a\":+1}" },
        { KT_INVALID, "{\"a\":.5}" },
        { KT_INVALID, "{\"a\":1.}" },
        { KT_INVALID, "{\"a\":1e}" },
        { KT_INVALID, "{\"a\":1e+}" },
        { KT_INVALID, "{\"a\":0x1}" },
        { KT_INVALID, "{\"a\":NaN}" },
        { KT_INVALID, "{\"a\":tru}" },
        { KT_INVALID, "{\"a\":nulll}" },
        { KT_INVALID, "{\"a\":True}" },
        { KT_INVALID, "{\"a\":\"\n\"}" },
        { KT_INVALID, "{\"a\":\"\x1f\"}" },
        { KT_INVALID, "{\"a\":\"\\x\"}" },
        { KT_INVALID, "{\"a\":\"\\u12g4\"}" },
        { KT_INVALID, "{\"a\":\"\\u12\"}" },
        { KT_INVALID, "{\"a\":\"\\" },
        { KT_INVALID, "{\"a\":\"b" },
        { KT_INVALID, "{\"a\":\"b\\\"}" },
        { KT_INVALID, "{\"a\":1" },
        { KT_INVALID, "{\"a\":" },
        { KT_INVALID, "{\"a\"" },
    };

    for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        snprintf(name, sizeof(name), "text %zu: %.40s", i,
                 strpbrk(t[i].text, "\n\v") ? "(control)" : t[i].text);
        is_int(scan(t[i].text), t[i].rc, name);

        if (t[i].rc != KT_OK) {
            ok(r.err != NULL && r.bad_json, "... and it says why");
        }
    }

    is_int(kt_reqscan((const unsigned char *) "{\"a\":\"\0\"}", 9, &r),
           KT_INVALID, "NUL in a string");
    is_int(kt_reqscan((const unsigned char *) "{}\0", 3, &r), KT_INVALID,
           "NUL behind the body");

    (void) scan("{\"a\":1,}");
    is_int((int64_t) r.err_off, 7, "the offset of the fault");
}


static void
depth(void)
{
    int   i, n;
    char  text[256], *p;

    for (n = 63; n <= 65; n++) {
        p = text;
        p += sprintf(p, "{\"a\":");

        for (i = 0; i < n - 1; i++) {
            *p++ = '[';
        }

        for (i = 0; i < n - 1; i++) {
            *p++ = ']';
        }

        strcpy(p, "}");
        is_int(scan(text), n > 64 ? KT_TOODEEP : KT_OK, "nesting at the cap");
    }

    (void) memset(text, '[', sizeof(text));
    text[0] = '{';
    memcpy(text + 1, "\"a\":", 4);
    is_int(kt_reqscan((unsigned char *) text, sizeof(text), &r), KT_TOODEEP,
           "nesting without an end");
}


static void
refusals(void)
{
    size_t  i;
    char    name[160];

    static const struct {
        keytoll_rc_t  rc;
        const char   *text;
        const char   *err;
    } t[] = {
        { KT_DUPLICATE, "{\"model\":\"a\",\"model\":\"a\"}",
          "duplicate key \"model\"" },
        { KT_DUPLICATE, "{\"model\":\"a\",\"mod\\u0065l\":\"b\"}",
          "duplicate key \"model\"" },
        { KT_DUPLICATE, "{\"model\":\"a\",\"Model\":\"b\"}",
          "a key differs from \"model\" only by case" },
        { KT_DUPLICATE, "{\"max_to\xe2\x84\xaa" "ens\":1}",
          "a key differs from \"max_tokens\" only by case" },
        { KT_DUPLICATE, "{\"\\u017ftream\":true}",
          "a key differs from \"stream\" only by case" },
        { KT_DUPLICATE, "{\"n\":1,\"n\":1}", "duplicate key \"n\"" },
        { KT_INVALID, "{\"fallbacks\":[]}", KT_REQKEY_ONE },
        { KT_INVALID, "{\"Fallback\u017f\":{}}", KT_REQKEY_ONE },
        { KT_INVALID, "{\"models\":\"a\"}", KT_REQKEY_ONE },
        { KT_INVALID, "{\"context_window_fallbacks\":0}", KT_REQKEY_ONE },
        { KT_DUPLICATE, "{\"messages\":[],\"messages\":[]}",
          "duplicate key \"messages\"" },
        { KT_DUPLICATE, "{\"stream_options\":{},\"stream_options\":null}",
          "duplicate key \"stream_options\"" },
        { KT_DUPLICATE, "{\"stream_options\":{\"include_usage\":true,"
          "\"include_usage\":false}}", "duplicate key \"include_usage\"" },
        { KT_DUPLICATE, "{\"metadata\":{\"tags\":[],\"tags\":[]}}",
          "duplicate key \"tags\"" },
        { KT_DUPLICATE, "{\"user\":1,\"user\":2}", "duplicate key \"user\"" },
        { KT_INVALID, "{\"model\":1}", "\"model\" has the wrong type" },
        { KT_INVALID, "{\"model\":null}", "\"model\" has the wrong type" },
        { KT_INVALID, "{\"model\":{}}", "\"model\" has the wrong type" },
        { KT_RANGE, "{\"model\":\"a\\u0000\"}", "\"model\" is out of range" },
        { KT_RANGE, "{\"model\":\"a\\n\"}", "\"model\" is out of range" },
        { KT_RANGE, "{\"model\":\"\x7f\"}", "\"model\" is out of range" },
        { KT_DUPLICATE, "{\"generationConfig\":{\"maxOutputTokens\":1,"
          "\"max_output_tokens\":9}}", "duplicate key \"max_output_tokens\"" },
        { KT_DUPLICATE, "{\"generationConfig\":{},\"generation_config\":{}}",
          "duplicate key \"generation_config\"" },
        { KT_DUPLICATE, "{\"generationConfig\":{\"maxoutputTokens\":1}}",
          "key \"maxOutputTokens\" in another case" },
        { KT_INVALID, "{\"background\":1}",
          "\"background\" has the wrong type" },
        { KT_INVALID, "{\"service_tier\":1}",
          "\"service_tier\" has the wrong type" },
        { KT_RANGE, "{\"model\":\"\\ud800\"}", "\"model\" is out of range" },
        { KT_INVALID, "{\"max_tokens\":1.0}",
          "\"max_tokens\" has the wrong type" },
        { KT_INVALID, "{\"max_tokens\":1e3}",
          "\"max_tokens\" has the wrong type" },
        { KT_INVALID, "{\"max_tokens\":-1}",
          "\"max_tokens\" has the wrong type" },
        { KT_INVALID, "{\"max_tokens\":-0}",
          "\"max_tokens\" has the wrong type" },
        { KT_INVALID, "{\"max_tokens\":\"9\"}",
          "\"max_tokens\" has the wrong type" },
        { KT_INVALID, "{\"max_completion_tokens\":[1]}",
          "\"max_completion_tokens\" has the wrong type" },
        { KT_RANGE, "{\"max_tokens\":2147483649}",
          "\"max_tokens\" is out of range" },
        { KT_RANGE, "{\"max_output_tokens\":99999999999999999999999}",
          "\"max_output_tokens\" is out of range" },
        { KT_RANGE, "{\"n\":0}", "\"n\" is out of range" },
        { KT_RANGE, "{\"n\":1025}", "\"n\" is out of range" },
        { KT_INVALID, "{\"n\":true}", "\"n\" has the wrong type" },
        { KT_INVALID, "{\"best_of\":2.5}", "\"best_of\" has the wrong type" },
        { KT_INVALID, "{\"stream\":1}", "\"stream\" has the wrong type" },
        { KT_INVALID, "{\"stream\":\"true\"}",
          "\"stream\" has the wrong type" },
        { KT_INVALID, "{\"stream_options\":[]}",
          "\"stream_options\" has the wrong type" },
        { KT_INVALID, "{\"stream_options\":{\"include_usage\":1}}",
          "\"include_usage\" has the wrong type" },
        { KT_INVALID, "{\"stream_options\":{\"include_usage\":{}}}",
          "\"include_usage\" has the wrong type" },
        { KT_RANGE, "{\"user\":\"a\\u0007\"}", "\"user\" is out of range" },
        { KT_RANGE, "{\"metadata\":{\"tags\":[\"\",\"\",\"\",\"\",\"\",\"\","
          "\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\"]}}",
          "too many tags" },
    };

    for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        snprintf(name, sizeof(name), "refused: %s", t[i].err);
        is_int(scan(t[i].text), t[i].rc, name);
        is_str(r.err ? r.err : "", t[i].err, "... with that text");
        ok(!r.bad_json, "... and the JSON is fine");
    }

    is_int(scan("{\"model\":1,\"n\":0"), KT_INVALID, "two faults");
    is_str(r.err, "the text is cut", "a malformed text wins");
}


static void
fields(void)
{
    char        buf[400], out[32];
    size_t      n;
    const char *t;

    t = "{\"model\" : \"gpt\\u002d4\\u00e9\\ud83d\\ude00\",\"max_tokens\":10,"
        "\"max_completion_tokens\":20,\"max_output_tokens\":null,"
        "\"n\":2,\"best_of\":3,\"stream\":true,"
        "\"stream_options\": {\"x\":{\"include_usage\":7}} ,"
        "\"user\":\"bob\",\"metadata\":{\"user_id\":\"eve\","
        "\"tags\":[\"a\",1,[\"no\"],\"b\\\"\"]}}";

    is_int(scan(t), KT_OK, "a body with everything");
    is_span(t, r.model_span, "\"gpt\\u002d4\\u00e9\\ud83d\\ude00\"",
            "model as written");
    is_str(r.model, "gpt-4\xc3\xa9\xf0\x9f\x98\x80", "model decoded");
    is_int((int64_t) r.model_len, 11, "its length");
    is_int(r.max_tok, 20, "the largest cap");
    is_span(t, r.cap_span, "20", "... and where it is");
    is_span(t, r.caps[0], "10", "each cap has a span");
    is_int((int64_t) r.caps[2].len, 0, "a null cap is absent");
    is_int(r.n, 3, "n is the larger of n and best_of");
    ok(r.stream, "stream");
    is_int(r.so, KT_SO_OBJECT, "stream_options is there");
    is_span(t, r.so_span, "{\"x\":{\"include_usage\":7}}", "its span");
    is_mem(t + r.so_insert, 3, "\"x\"", "where to insert into it");
    is_int(r.include_usage, KT_TRI_ABSENT, "a deeper include_usage is none");
    is_str(r.user, "bob", "user wins over user_id");
    is_int(r.ntags, 2, "tags are strings only");
    is_span(t, r.tags[1], "\"b\\\"\"", "the span of a tag");
    is_int(kt_reqscan_text((const unsigned char *) t, r.tags[1], out, 3, &n),
           KT_OK, "a tag can be decoded");
    is_str(out, "b\"", "... to its text");
    is_int(kt_reqscan_text((const unsigned char *) t, r.tags[1], out, 2, &n),
           KT_NOSPACE, "... unless the buffer is short");
    is_mem(t + r.insert_at, 7, "\"model\"", "where to insert into the body");
    ok(!r.empty, "the body is not empty");

    is_int(scan(" { } "), KT_OK, "an empty body");
    ok(r.empty, "... says so");
    is_int((int64_t) r.insert_at, 2, "... and where to insert");
    is_int(r.max_tok, -1, "no cap");
    is_int(r.n, 1, "n is 1");
    is_int((int64_t) r.model_span.len, 0, "no model");
    is_int(r.so, KT_SO_ABSENT, "no stream_options");
    is_int(r.text_bytes, 3, "the least text");

    is_int(scan("{\"stream_options\":null,\"stream\":null}"), KT_OK,
           "nulls are accepted");
    is_int(r.so, KT_SO_NULL, "stream_options null");
    is_int((int64_t) r.so_span.len, 4, "... has a span");
    ok(!r.stream, "stream null is off");

    is_int(scan("{\"stream_options\":{ }}"), KT_OK, "empty stream_options");
    ok(r.so_empty && !r.empty, "... says so");

    t = "{\"stream_options\":{\"include_usage\": false}}";
    is_int(scan(t), KT_OK, "include_usage false");
    is_int(r.include_usage, KT_TRI_FALSE, "... is noted");
    is_span(t, r.iu_span, "false", "... with its span");
    ok(!r.so_empty, "... in options that are not empty");

    (void) scan("{\"stream_options\":{\"include_usage\":true}}");
    is_int(r.include_usage, KT_TRI_TRUE, "include_usage true");

    (void) scan("{\"a\":{\"model\":1,\"model\":2}}");
    is_int(r.err == NULL, 1, "deeper keys do not matter");

    is_int(scan("{\"user\":7,\"metadata\":{\"user_id\":\"eve\"}}"), KT_OK,
           "user of another type");
    is_str(r.user, "eve", "... falls back to user_id");
    (void) scan("{\"safety_identifier\":\"s\",\"metadata\":{\"user_id\":\"m\"},"
                "\"litellm_metadata\":{\"user\":\"l\",\"tags\":[\"t1\"]},"
                "\"user\":\"u\",\"tags\":[\"t2\",3,[\"no\"]]}");
    is_str(r.user, "u", "user comes first");
    is_int(r.ntags, 2, "tags of litellm_metadata and of the body");
    (void) scan("{\"safety_identifier\":\"s\",\"metadata\":{\"user_id\":\"m\"},"
                "\"litellm_metadata\":{\"user\":\"l\"}}");
    is_str(r.user, "l", "then litellm_metadata.user");
    (void) scan("{\"safety_identifier\":\"s\",\"metadata\":{\"user_id\":\"m\"}}");
    is_str(r.user, "m", "then metadata.user_id");
    (void) scan("{\"safety_identifier\":\"s\"}");
    is_str(r.user, "s", "then safety_identifier");
    is_int(scan("{\"litellm_metadata\":{\"user\":\"a\",\"user\":\"b\"}}"),
           KT_DUPLICATE, "none of them twice");
    is_int(scan("{\"tags\":[],\"tags\":[]}"), KT_DUPLICATE, "nor the tags");

    is_int(scan("{\"metadata\":\"x\"}"), KT_OK, "metadata of another type");
    is_int(scan("{\"metadata\":[\"tags\",[\"x\"]]}"), KT_OK, "... an array");
    is_int(r.ntags, 0, "... holds no tags");

    is_int(scan("{\"max_tokens\":2147483648}"), KT_OK, "the largest number");
    is_int(scan("{\"max_tokens\":0}"), KT_OK, "a cap of zero");
    is_int(r.max_tok, 0, "... is not absent");

    n = (size_t) sprintf(buf, "{\"model\":\"");
    memset(buf + n, 'm', 256);
    strcpy(buf + n + 255, "\"}");
    is_int(scan(buf), KT_OK, "a model of 255 bytes");
    strcpy(buf + n + 256, "\"}");
    buf[n + 255] = 'm';
    is_int(scan(buf), KT_RANGE, "a model of 256 bytes");
}


static void
text(void)
{
    size_t  i;
    char    name[64];

    static const struct {
        int          bytes;
        int          images;
        const char  *text;
    } t[] = {
        { 9, 0, "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}" },
        { 6, 0, "{\"prompt\":\"\\u00e9\"}" },
        { 3, 0, "{\"prompt\":[1,2,3]}" },
        { 4, 0, "{\"input\":[[1,2],[3,4]]}" },
        { 4, 0, "{\"input\":[\"ab\",\"cd\"]}" },
        { 0, 0, "{\"messages\":[1,2]}" },
        { 0, 0, "{\"other\":\"text\",\"model\":\"abc\"}" },
        { 6, 0, "{\"system\":\"abc\",\"syste\\u006d\":\"def\"}" },
        { 3, 0, "{\"System\":\"abc\"}" },
        { 2, 0, "{\"tools\":[]}" },
        { 10, 0, "{\"tools\": [ {\"a\":1}]}" },
        { 6, 0, "{\"tool_choice\":\"auto\"}" },
        { 4, 0, "{\"response_format\":null}" },
        { 5, 0, "{\"contents\":[{\"parts\":[{\"text\":\"hello\"}]}]}" },
        { 14, 1, "{\"messages\":[{\"content\":[{\"type\":\"image_url\","
          "\"image_url\":{\"url\":\"ab\"}}]}]}" },
        { 5, 1, "{\"messages\":[{\"content\":[{\"type\":\"image\"}]}]}" },
        { 16, 1, "{\"input\":[{\"content\":[{\"t\\u0079pe\":"
          "\"input_\\u0069mage\"}]}]}" },
        { 5, 0, "{\"messages\":[{\"content\":[{\"alt\":\"image\"}]}]}" },
        { 12, 0, "{\"messages\":[{\"content\":[{\"input\":"
          "{\"abc\":12,\"d\":false,\"e\":{}}}]}]}" },
    };

    for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        snprintf(name, sizeof(name), "prompt text %zu", i);
        is_int(scan(t[i].text), KT_OK, name);
        is_int(r.text_bytes - 3, t[i].bytes, "... its bytes");
        is_int(r.images, t[i].images, "... its images");
    }
}


static void
shapes(void)
{
#define scan_of(text)                                                         \
    kt_reqscan((const unsigned char *) text, sizeof(text) - 1, &r)

    is_int(scan_of("{\"contents\":[{\"parts\":[{\"inlineData\":{\"data\":"
                   "\"AAAA\"}},{\"text\":\"x\"}]}],\"generationConfig\":"
                   "{\"maxOutputTokens\":77,\"candidateCount\":3,"
                   "\"responseModalities\":[\"AUDIO\"]}}"), KT_OK, "Gemini");
    is_int(r.max_tok, 77, "its cap");
    ok(r.gen_cap.len == 2 && r.caps[2].len == 0, "is its own");
    is_int(r.n, 3, "its candidates");
    ok(r.media_out && r.media_in && r.images == 1, "its media");

    is_int(scan_of("{\"input\":\"\\u00e9\\ud83d\\ude00\xc3\xa9x\\n\","
                   "\"service_tier\":\"priority\",\"background\":true}"),
           KT_OK, "speech");
    is_int(r.chars, 5, "characters, not bytes");
    ok(r.service == KT_SERVICE_PRIORITY && r.background, "its tier");

    is_int(scan_of("{\"documents\":[\"a\",{\"text\":\"b\"},\"c\"]}"), KT_OK,
           "rerank");
    is_int(r.docs, 3, "documents");

    (void) scan_of("{\"content\":{\"parts\":[{\"text\":\"0123456789\"}]}}");
    is_int(r.text_bytes, 13, "text of a Gemini embedding");
    (void) scan_of("{\"requests\":[{\"content\":{\"parts\":[{\"text\":"
                   "\"0123456789\"}]}}]}");
    ok(r.text_bytes >= 13, "... of several");
    (void) scan_of("{\"images\":[{\"image_url\":\"x\"}],\"mask\":\"y\"}");
    ok(r.images == 17 && r.media_in, "images to edit");
    (void) scan_of("{\"previous_response_id\":null}");
    ok(!r.remote, "null refers to nothing");
    (void) scan_of("{\"previous_response_id\":\"resp_1\"}");
    ok(r.remote, "a response before this one");
    (void) scan_of("{\"data_sources\":[{\"type\":\"azure_search\"}]}");
    ok(r.remote, "documents that Azure looks up");
    (void) scan_of("{\"connectors\":[{\"id\":\"web-search\"}]}");
    ok(r.remote, "what a connector of Cohere's reads");
    (void) scan_of("{\"input\":[{\"content\":[{\"type\":\"input_file\","
                   "\"file_id\":\"f\"}]}]}");
    ok(r.remote, "a file by its id");
    (void) scan_of("{\"messages\":[{\"content\":[{\"fil\\u0065_id\":1}]}]}");
    ok(r.remote, "escaped");
    (void) scan_of("{\"prompt\":\"x\",\"size\":\"1024x1024\",\"quality\":"
                   "\"hd\"}");
    is_str(r.size, "1024x1024", "size");
    is_str(r.quality, "hd", "quality");
}


int
main(void)
{
    strictness();
    tools();
    depth();
    refusals();
    fields();
    text();

    shapes();

    return tap_done();
}
