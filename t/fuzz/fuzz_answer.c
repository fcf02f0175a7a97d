/*
 * A whole answer, JSON or events: what is counted must not depend on how it
 * was cut, and must be what yajl reads, to the value.  The first byte chooses
 * framing and shape.
 */

#include <yajl/yajl_gen.h>
#include <yajl/yajl_tree.h>

#include "answer.h"
#include "fuzz.h"


typedef struct {
    kt_usage_t   usage;
    kt_shape_t   shape;
    unsigned     nusage;
    int          unsure;               /* readers may differ about it       */
} theirs_t;


/* Equal keys: yajl's tree keeps each, readers take one or the other. */

static int
has_copies(yajl_val v)
{
    size_t  i, j;

    if (YAJL_IS_OBJECT(v)) {
        for (i = 0; i < v->u.object.len; i++) {
            for (j = 0; j < i; j++) {
                if (strcmp(v->u.object.keys[i], v->u.object.keys[j]) == 0) {
                    return 1;
                }
            }

            if (has_copies(v->u.object.values[i])) {
                return 1;
            }
        }
    }

    for (i = 0; YAJL_IS_ARRAY(v) && i < v->u.array.len; i++) {
        if (has_copies(v->u.array.values[i])) {
            return 1;
        }
    }

    return 0;
}


static int
print_value(yajl_gen g, yajl_val v)
{
    int     ok;
    size_t  i;

    if (YAJL_IS_OBJECT(v)) {
        ok = yajl_gen_map_open(g) == yajl_gen_status_ok;

        for (i = 0; ok && i < v->u.object.len; i++) {
            ok = yajl_gen_string(g, (const unsigned char *)
                                 v->u.object.keys[i],
                                 strlen(v->u.object.keys[i]))
                 == yajl_gen_status_ok
                 && print_value(g, v->u.object.values[i]);
        }

        return ok && yajl_gen_map_close(g) == yajl_gen_status_ok;
    }

    if (YAJL_IS_ARRAY(v)) {
        ok = yajl_gen_array_open(g) == yajl_gen_status_ok;

        for (i = 0; ok && i < v->u.array.len; i++) {
            ok = print_value(g, v->u.array.values[i]);
        }

        return ok && yajl_gen_array_close(g) == yajl_gen_status_ok;
    }

    if (YAJL_IS_STRING(v)) {
        return yajl_gen_string(g, (const unsigned char *) v->u.string,
                               strlen(v->u.string)) == yajl_gen_status_ok;
    }

    if (YAJL_IS_NUMBER(v)) {
        return yajl_gen_number(g, YAJL_GET_NUMBER(v),
                               strlen(YAJL_GET_NUMBER(v)))
               == yajl_gen_status_ok;
    }

    return (YAJL_IS_NULL(v) ? yajl_gen_null(g)
                            : yajl_gen_bool(g, YAJL_IS_TRUE(v)))
           == yajl_gen_status_ok;
}


/* The usage object that yajl found, in yajl's own words. */

static void
their_usage(theirs_t *t, yajl_val v)
{
    size_t                len;
    yajl_gen              g;
    const unsigned char  *text;

    if (!YAJL_IS_OBJECT(v)) {
        return;
    }

    t->nusage++;

    g = yajl_gen_alloc(NULL);
    must(g != NULL);

    if (print_value(g, v)) {
        yajl_gen_get_buf(g, &text, &len);
        (void) kt_usage_merge(&t->usage, t->shape, text, len);

    } else {
        t->unsure = 1;
    }

    yajl_gen_free(g);
}


/* Where an answer may have its usage, in the order of the text. */

static void
their_answer(theirs_t *t, yajl_val root)
{
    size_t       i, j;
    yajl_val     v;
    const char  *key;

    for (i = 0; YAJL_IS_OBJECT(root) && i < root->u.object.len; i++) {
        key = root->u.object.keys[i];
        v = root->u.object.values[i];

        if (strcmp(key, "usage") == 0 || strcmp(key, "usageMetadata") == 0) {
            their_usage(t, v);
            continue;
        }

        if (!YAJL_IS_OBJECT(v)) {
            continue;
        }

        for (j = 0; j < v->u.object.len; j++) {
            if (strcmp(key, "meta") == 0
                ? strcmp(v->u.object.keys[j], "billed_units") == 0
                : (strcmp(key, "message") == 0 || strcmp(key, "response") == 0)
                  && strcmp(v->u.object.keys[j], "usage") == 0)
            {
                their_usage(t, v->u.object.values[j]);
            }
        }
    }
}


static void
their_payload(theirs_t *t, const uint8_t *p, size_t len)
{
    char      *text;
    size_t     i;
    yajl_val   root;

    if (memchr(p, '\0', len)) {
        t->unsure = 1;
        return;
    }

    text = malloc(len + 1);
    must(text != NULL);
    memcpy(text, p, len);
    text[len] = '\0';

    root = yajl_tree_parse(text, NULL, 0);
    free(text);

    if (root == NULL || has_copies(root)) {
        t->unsure = 1;

    } else if (YAJL_IS_ARRAY(root)) {
        for (i = 0; i < root->u.array.len; i++) {
            their_answer(t, root->u.array.values[i]);
        }

    } else {
        their_answer(t, root);
    }

    yajl_tree_free(root);
}


/* Lines end with LF or CR LF here; what has a lone CR is left alone. */

static void
their_events(theirs_t *t, const uint8_t *p, size_t len)
{
    size_t          n, size;
    uint8_t        *data;
    const uint8_t  *end, *eol;

    data = malloc(len + 1);
    must(data != NULL);
    size = 0;

    for (end = p + len; p < end; p = eol + 1) {
        eol = memchr(p, '\n', (size_t) (end - p));

        if (eol == NULL) {
            t->unsure = 1;
            break;
        }

        n = (size_t) (eol - p);
        n -= n && p[n - 1] == '\r';

        if (memchr(p, '\r', n)) {
            t->unsure = 1;
            break;
        }

        if (n == 0) {
            if (size && !(size == 7 && memcmp(data, "[DONE]\n", 7) == 0)) {
                their_payload(t, data, size);
            }

            size = 0;

        } else if (n >= 5 && memcmp(p, "data:", 5) == 0) {
            p += 5;
            n -= 5;
            p += n && *p == ' ';
            n = (size_t) (eol - p) - (eol > p && eol[-1] == '\r');
            memcpy(data + size, p, n);
            size += n;
            data[size++] = '\n';
        }
    }

    if (size) {
        t->unsure = 1;
    }

    free(data);
}


static void
against_yajl(const answer_t *a, const uint8_t *p, size_t len)
{
    theirs_t  t;

    memset(&t, 0, sizeof(theirs_t));
    t.shape = a->shape;

    if (a->bad) {
        return;
    }

    if (a->sse) {
        their_events(&t, p, len);

    } else {
        their_payload(&t, p, len);
    }

    if (t.unsure) {
        return;
    }

    must(t.nusage == a->nusage);
    must(memcmp(&t.usage, &a->usage, sizeof(kt_usage_t)) == 0);
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    int       mode;
    size_t    i, n;
    uint64_t  seed;

    static answer_t  a[3];

    if (len == 0) {
        return 0;
    }

    for (mode = 0; mode < 3; mode++) {
        answer_init(&a[mode], p[0] & 1, (kt_shape_t) (p[0] >> 1 & 3));
        seed = fuzz_hash(1, p, len);

        for (i = 1; i < len; i += n) {
            n = mode == 0 ? len - i : mode == 1 ? 1 : fuzz_cut(&seed, len - i);
            answer_feed(&a[mode], p + i, n);
        }

        answer_end(&a[mode]);
        must(answer_same(&a[mode], &a[0]));
    }

    against_yajl(&a[0], p + 1, len - 1);

    return 0;
}
