/*
 * Inside of kt_reqscan(): the names of members, the ends of containers, and the
 * identity that is left when all has been read.
 */

#include <string.h>

#include "kt_json.h"
#include "kt_reqvalue.h"


static void
kt_rs_key1(kt_rs_t *s, kt_span_t span)
{
    int                 exact;
    char                name[KT_REQKEY_LEN + 1];
    size_t              n;
    const kt_reqkey_t  *k;

    s->key = NULL;
    s->sub = KT_RS_SUB_NONE;

    if (span.len - 2 > KT_REQKEY_LEN
        || kt_reqscan_text(s->start, span, name, sizeof(name), &n) != KT_OK)
    {
        return;
    }

    k = kt_reqkey(name, n, &exact);
    if (k == NULL) {
        return;
    }

    if (k->flags & KT_REQKEY_ACT) {
        if (!exact) {
            kt_rs_refuse(s, KT_DUPLICATE, k->cased, span.off);
            return;
        }

        if (s->seen & (1u << k->id)) {
            kt_rs_refuse(s, KT_DUPLICATE, k->dup, span.off);
            return;
        }

        s->seen |= 1u << k->id;
    }

    s->key = k;
}


#define SUB(parent, name, sub)                                                \
    { name, "duplicate key \"" name "\"",                                     \
      "key \"" name "\" in another case",                                     \
      KT_REQKEY_##parent, KT_RS_SUB_##sub }

static const struct kt_rs_subkey_s {
    const char      *name;
    const char      *dup;
    const char      *cased;
    kt_reqkey_id_t   parent;
    kt_rs_sub_t      sub;
} kt_rs_subs[] = {
    SUB(SO, "include_usage", USAGE),
    SUB(METADATA, "user_id", USER_ID),
    SUB(METADATA, "tags", TAGS),
    SUB(LITELLM, "user", USER),
    SUB(LITELLM, "tags", LTAGS),
    SUB(GENERATION, "maxOutputTokens", CAP),
    SUB(GENERATION, "max_output_tokens", CAP),
    SUB(GENERATION, "candidateCount", COUNT),
    SUB(GENERATION, "candidate_count", COUNT),
    SUB(GENERATION, "responseModalities", MEDIA),
    SUB(GENERATION, "response_modalities", MEDIA)
};

#undef SUB


/* The key of depth 2, or one that differs from it only by case. */

static const struct kt_rs_subkey_s *
kt_rs_sub_find(kt_reqkey_id_t parent, const char *p, size_t len, int folded)
{
    char      name[24];
    size_t    i, n;

    for (i = 0; i < sizeof(kt_rs_subs) / sizeof(kt_rs_subs[0]); i++) {

        n = strlen(kt_rs_subs[i].name);

        if (kt_rs_subs[i].parent != parent || n != len) {
            continue;
        }

        memcpy(name, kt_rs_subs[i].name, n);

        if (folded) {
            (void) kt_reqkey_fold(name, n);
        }

        if (memcmp(name, p, n) == 0) {
            return &kt_rs_subs[i];
        }
    }

    return NULL;
}


static void
kt_rs_key2(kt_rs_t *s, kt_span_t span)
{
    char          name[KT_REQKEY_LEN + 1];
    size_t        n;
    kt_rs_sub_t   sub;

    const struct kt_rs_subkey_s  *k;

    s->sub = KT_RS_SUB_NONE;

    if (span.len - 2 > KT_REQKEY_LEN
        || kt_reqscan_text(s->start, span, name, sizeof(name), &n) != KT_OK)
    {
        return;
    }

    sub = KT_RS_SUB_NONE;
    k = kt_rs_sub_find(s->key->id, name, n, 0);

    if (k) {
        sub = k->sub;

        if (s->sub_seen & (1u << sub)) {
            kt_rs_refuse(s, KT_DUPLICATE, k->dup, span.off);
            return;
        }

    } else {
        /* a reader that ignores case would take it for what we act on */

        k = kt_rs_sub_find(s->key->id, name, kt_reqkey_fold(name, n), 1);

        if (k) {
            kt_rs_refuse(s, KT_DUPLICATE, k->cased, span.off);
            return;
        }
    }

    s->sub_seen |= 1u << sub;
    s->sub = sub;
}


/* A key within the text; 1: bytes follow, 2: a reference. */

static void
kt_rs_part_key(kt_rs_t *s, const char *name, size_t n)
{
    size_t  i;

    static const struct {
        const char  *name;
        unsigned     kind;
    } media[] = {
        { "inlineData", 1 }, { "inline_data", 1 },
        { "fileData", 2 }, { "file_data", 2 }, { "file_id", 2 },
        { "file_uri", 2 }, { "fileUri", 2 }, { "file_url", 2 },
        { "video_url", 2 }, { "audio_url", 2 }
    };

    if (kt_rs_is(name, n, "type")) {
        s->type_key = 1;
        return;
    }

    for (i = 0; i < sizeof(media) / sizeof(media[0]); i++) {
        if (kt_rs_is(name, n, media[i].name)) {
            s->media_key = media[i].kind;
            return;
        }
    }
}


void
kt_rs_key(kt_rs_t *s, const unsigned char *p)
{
    char       name[16];
    size_t     n;
    kt_span_t  span;

    span.off = (size_t) (p - s->start);
    span.len = (size_t) (s->p - p);

    if (s->depth == 1) {
        kt_rs_key1(s, span);
        return;
    }

    if (s->key == NULL) {
        return;
    }

    if (s->depth == 2
        && (s->key->id == KT_REQKEY_SO || s->key->id == KT_REQKEY_METADATA
            || s->key->id == KT_REQKEY_LITELLM
            || s->key->id == KT_REQKEY_GENERATION))
    {
        kt_rs_key2(s, span);
        return;
    }

    if (s->key->id == KT_REQKEY_TOOLS && s->depth == s->tool_depth) {
        kt_rs_tool_key(s, span);
        return;
    }

    if (s->key->flags & KT_REQKEY_TEXT) {
        s->type_key = 0;
        s->media_key = 0;

        if (span.len >= 6 && span.len <= 2 + 6 * (sizeof(name) - 1)
            && kt_reqscan_text(s->start, span, name, sizeof(name), &n)
               == KT_OK)
        {
            kt_rs_part_key(s, name, n);
        }

        if (s->depth > KT_RS_PART) {
            s->out->text_bytes += (int64_t) span.len - 2;
        }
    }
}


void
kt_rs_end(kt_rs_t *s, int empty)
{
    size_t  off;

    off = (size_t) (s->p - s->start);

    if (s->depth == 0) {
        s->out->empty = (empty != 0);
        return;
    }

    if (s->key && s->key->id == KT_REQKEY_TOOLS
        && s->depth == s->tool_depth - 1)
    {
        kt_rs_tool_end(s);
    }

    if (s->depth != 1 || s->key == NULL) {
        return;
    }

    if (s->key->flags & KT_REQKEY_RAW) {
        s->out->text_bytes += (int64_t) (off - s->raw_off);

    } else if (s->key->id == KT_REQKEY_SO) {
        s->out->so_span.len = off - s->out->so_span.off;
        s->out->so_empty = (empty != 0);
    }
}


/* Other identities count only when those before them are not there. */

void
kt_rs_finish(kt_rs_t *s)
{
    size_t  i;

    const struct {
        kt_span_t    span;
        const char  *range;
    } other[] = {
        { s->litellm, "\"litellm_metadata.user\" is out of range" },
        { s->user_id, "\"user_id\" is out of range" },
        { s->safety, "\"safety_identifier\" is out of range" }
    };

    for (i = 0; i < sizeof(other) / sizeof(other[0]); i++) {
        if (s->out->user_len) {
            return;
        }

        if (other[i].span.len
            && kt_rs_ident(s, other[i].span, s->out->user, &s->out->user_len)
               != KT_OK)
        {
            kt_rs_refuse(s, KT_RANGE, other[i].range, other[i].span.off);
        }
    }
}


keytoll_rc_t
kt_reqscan_text(const unsigned char *p, kt_span_t span, char *out, size_t cap,
    size_t *n)
{
    return kt_json_unescape(p + span.off + 1, span.len - 2, out, cap, n);
}
