/*
 * A whole answer, JSON or events: what is counted must not depend on how it
 * was cut; and where yajl reads the JSON, both must agree on whether there is
 * usage.  The first byte chooses framing and shape.
 */

#include <yajl/yajl_tree.h>

#include "answer.h"
#include "fuzz.h"


static int
has_object(yajl_val root, const char *first, const char *second)
{
    const char  *path[3];

    path[0] = first;
    path[1] = second;
    path[2] = NULL;

    return yajl_tree_get(root, path, yajl_t_object) != NULL;
}


/*
 * yajl's tree returns the first of equal keys, the scanner takes each: what
 * the tree has, the scanner must have seen.
 */

static void
against_yajl(const answer_t *a, const uint8_t *p, size_t len)
{
    int        theirs;
    char      *text;
    yajl_val   root;

    if (a->scan.bad || a->scan.overflow || memchr(p, '\0', len)) {
        return;
    }

    text = malloc(len + 1);
    must(text != NULL);
    memcpy(text, p, len);
    text[len] = '\0';

    root = yajl_tree_parse(text, NULL, 0);
    free(text);

    if (root == NULL) {
        return;
    }

    if (YAJL_IS_OBJECT(root)) {
        theirs = has_object(root, "usage", NULL)
                 || has_object(root, "usageMetadata", NULL)
                 || has_object(root, "message", "usage")
                 || has_object(root, "response", "usage")
                 || has_object(root, "meta", "billed_units");

        must(!theirs || a->nusage);

        /* what only the scanner saw was a second copy of some key */

        must(theirs || a->nusage == 0 || YAJL_GET_OBJECT(root)->len > 1);

    } else if (!YAJL_IS_ARRAY(root)) {
        must(a->nusage == 0);
    }

    yajl_tree_free(root);
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

    if (!(p[0] & 1)) {
        against_yajl(&a[0], p + 1, len - 1);
    }

    return 0;
}
