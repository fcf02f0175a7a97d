/*
 * Common to the fuzz targets.  Each is a libFuzzer target:
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -Ishared ...
 *
 * and, with -DKT_FUZZ_REPLAY and no fuzzer, a program that runs every file
 * named on its command line and prints TAP.
 */

#ifndef KT_FUZZ_H
#define KT_FUZZ_H


#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);


/* An oracle: what does not hold is a finding. */

#define must(cond)                                                            \
    do {                                                                      \
        if (!(cond)) {                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);        \
            abort();                                                          \
        }                                                                     \
    } while (0)


static inline uint64_t
fuzz_hash(uint64_t h, const void *p, size_t len)
{
    size_t                i;
    const unsigned char  *c = p;

    for (i = 0; i < len; i++) {
        h = (h ^ c[i]) * 0x100000001b3ull;
    }

    return h;
}


/* The next piece's length, from a generator seeded by the input. */

static inline size_t
fuzz_cut(uint64_t *seed, size_t left)
{
    size_t  n;

    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    n = (size_t) ((*seed >> 33) % 17);

    return n > left ? left : n;
}


#ifdef KT_FUZZ_REPLAY

int
main(int argc, char **argv)
{
    int       i;
    FILE     *f;
    size_t    len;
    uint8_t  *p;

    static uint8_t  buf[1 << 20];

    printf("1..%d\n", argc - 1);

    for (i = 1; i < argc; i++) {
        f = fopen(argv[i], "rb");
        if (f == NULL) {
            printf("not ok %d - %s cannot be read\n", i, argv[i]);
            return 1;
        }

        len = fread(buf, 1, sizeof(buf), f);
        fclose(f);

        /* an exact copy, so that a sanitizer sees reads behind the end */

        p = malloc(len ? len : 1);
        must(p != NULL);
        memcpy(p, buf, len);
        (void) LLVMFuzzerTestOneInput(p, len);
        free(p);

        printf("ok %d - %s\n", i, argv[i]);
        fflush(stdout);
    }

    return 0;
}

#endif


#endif
