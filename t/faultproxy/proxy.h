/*
 * keytoll-faultproxy: a byte proxy between the gate and Redis that fails on
 * command.  One loop, no threads; a link is a client, a server, and what waits
 * in each direction.
 */

#ifndef FAULTPROXY_H
#define FAULTPROXY_H


#include <stddef.h>
#include <stdint.h>


typedef enum {
    FP_PASS = 0,
    FP_DELAY,                      /* replies wait arg ms                   */
    FP_STALL,                      /* nothing moves, nothing is closed      */
    FP_DRIP,                       /* replies: bytes every arg ms           */
    FP_ERROR                       /* commands are answered here, by text   */
} fp_mode_t;


typedef struct {
    fp_mode_t  mode;
    int64_t    delay_ms;
    int64_t    drip_bytes;
    int64_t    drip_ms;
    int64_t    drop;               /* replies (chunks) still to swallow     */
    int64_t    drop_percent;       /* of replies, at random                 */
    int64_t    garbage;            /* ... to replace                        */
    int64_t    close_after;        /* reply bytes until the link is cut; -1 */
    char       error[256];
    char       upstream[128];      /* of new links                          */

    uint64_t   accepted;
    uint64_t   links;
    uint64_t   up_bytes;
    uint64_t   down_bytes;
    uint64_t   dropped;
    uint64_t   commands;           /* commands seen from clients            */
} fp_state_t;


/* RESP requests: how far the present command has come. */
typedef struct {
    int64_t    args;               /* still to come                         */
    int64_t    bulk;               /* bytes of this one, with its CRLF      */
    int64_t    number;
    int        in_line;
    char       kind;
    int        refuse;             /* answered here, not forwarded          */
} fp_parse_t;


extern fp_state_t  fp;


/*
 * Consumes bytes up to the end of the present command.  *done is set when it
 * ended.  Bytes that are no RESP array end at each line break.
 */
size_t fp_parse(fp_parse_t *ps, const char *p, size_t n, int *done);

/* Runs one line of the control protocol; out gets the answer, NUL-ended. */
void fp_control(char *line, char *out, size_t size, void (*reset)(void));


#endif
