/*
 * The commands, and the little of RESP that counting commands takes.
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy.h"


fp_state_t  fp = { .close_after = -1 };


size_t
fp_parse(fp_parse_t *ps, const char *p, size_t n, int *done)
{
    char    c;
    size_t  i, k;

    *done = 0;

    for (i = 0; i < n; ) {

        if (ps->bulk > 0) {
            k = n - i < (size_t) ps->bulk ? n - i : (size_t) ps->bulk;
            ps->bulk -= (int64_t) k;
            i += k;

            if (ps->bulk == 0 && --ps->args == 0) {
                *done = 1;
                return i;
            }

            continue;
        }

        c = p[i++];

        if (!ps->in_line) {
            ps->in_line = 1;
            ps->kind = c;
            ps->number = 0;

        } else if (c >= '0' && c <= '9' && ps->number < 1 << 30) {
            ps->number = ps->number * 10 + (c - '0');

        } else if (c == '\n') {
            ps->in_line = 0;

            if (ps->kind == '*' && ps->args == 0 && ps->number > 0) {
                ps->args = ps->number;

            } else if (ps->kind == '$' && ps->args > 0) {
                ps->bulk = ps->number + 2;

            } else {
                ps->args = 0;
                *done = 1;
                return i;
            }
        }
    }

    return i;
}


static void
clear(void)
{
    fp.mode = FP_PASS;
    fp.drop = 0;
    fp.drop_percent = 0;
    fp.garbage = 0;
    fp.close_after = -1;
}


void
fp_control(char *line, char *out, size_t size, void (*reset)(void))
{
    char       *word, *rest, *end;
    int64_t     a, b;

    word = line;
    rest = strchr(line, ' ');
    if (rest) {
        *rest++ = '\0';
    } else {
        rest = line + strlen(line);
    }

    a = strtoll(rest, &end, 10);
    b = strtoll(end, NULL, 10);

    snprintf(out, size, "ok\n");

    if (strcmp(word, "pass") == 0) {
        clear();

    } else if (strcmp(word, "delay") == 0 && a > 0) {
        fp.mode = FP_DELAY;
        fp.delay_ms = a;

    } else if (strcmp(word, "drip") == 0 && a > 0 && b > 0) {
        fp.mode = FP_DRIP;
        fp.drip_bytes = a;
        fp.drip_ms = b;

    } else if (strcmp(word, "stall") == 0) {
        fp.mode = FP_STALL;

    } else if (strcmp(word, "error") == 0 && *rest) {
        fp.mode = FP_ERROR;
        snprintf(fp.error, sizeof(fp.error), "-%s\r\n", rest);

    } else if (strcmp(word, "drop-replies") == 0 && a > 0) {
        fp.drop = a;

    } else if (strcmp(word, "drop-percent") == 0 && a > 0 && a < 100) {
        fp.drop_percent = a;

    } else if (strcmp(word, "upstream") == 0 && strncmp(rest, "unix:", 5) == 0) {
        snprintf(fp.upstream, sizeof(fp.upstream), "%s", rest);

    } else if (strcmp(word, "garbage") == 0) {
        fp.garbage = a > 0 ? a : 1;

    } else if (strcmp(word, "close-after") == 0 && a >= 0) {
        fp.close_after = a;

    } else if (strcmp(word, "reset") == 0) {
        reset();

    } else if (strcmp(word, "stats") == 0) {
        snprintf(out, size, "links %" PRIu64 " accepted %" PRIu64 " up %" PRIu64
                 " down %" PRIu64 " dropped %" PRIu64 " commands %" PRIu64
                 " mode %d drop %" PRId64 " garbage %" PRId64 " close-after %"
                 PRId64 "\n", fp.links, fp.accepted, fp.up_bytes,
                 fp.down_bytes, fp.dropped, fp.commands, (int) fp.mode,
                 fp.drop, fp.garbage, fp.close_after);

    } else {
        snprintf(out, size, "what? pass | delay MS | drop-replies N | "
                 "drop-percent N | upstream unix:PATH | reset | stall | drip BYTES MS | garbage [N] | close-after BYTES | "
                 "error TEXT | stats\n");
    }
}
