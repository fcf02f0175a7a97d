/*
 * The one place that spells Redis names.  P is "kt:{0000}:", the four characters
 * in braces being the shard (cluster hash tag).
 */

#ifndef KT_SCHEMA_H
#define KT_SCHEMA_H

#include <stddef.h>
#include <stdint.h>
#include "kt_rc.h"


#define KT_SHARD          "0000"
#define KT_P              "kt:{" KT_SHARD "}:"
#define KT_REDIS_GEN      KT_P "gen"
#define KT_REDIS_REG      KT_P "reg"
#define KT_REDIS_STREAM   KT_P "s"
#define KT_REDIS_WM       KT_P "wm"
#define KT_REDIS_EPOCH    KT_P "epoch"
#define KT_REDIS_CHANGES  KT_P "changes"    /* a channel */
#define KT_REDIS_LEASES   KT_P "z"
#define KT_REDIS_BLOCKS   KT_P "b:"
#define KT_REDIS_DONE     KT_P "d:"
#define KT_REDIS_ENTITY   KT_P "e:"
#define KT_REDIS_HOLD     KT_P "h:"

/* Bits of a receipt line (lua/head.lua). */
#define KT_BIT_RATES      7
#define KT_BIT_STRICT     128
#define KT_BIT_IN         256
#define KT_BIT_OUT        512

/* A hold begins with "H" and its amounts (lua/hold.lua). */
#define KT_HOLD_AMOUNTS   68
#define KT_HOLD_HEAD      (1 + KT_HOLD_AMOUNTS)
#define KT_HOLD_ESTIMATE  (1 + 24)          /* what a lost request is charged */

/* Before the amounts of a request of a block: "b", tab, the block's id, tab. */
#define KT_SHARE_HEAD     (3 + KT_RID_LEN)


#define KT_LIBRARY        "keytoll"
#define KT_GROUP          "controld"

#define KT_ID_MAX         255          /* bytes of one id, before encoding    */
#define KT_ENT_MAX        1600         /* bytes of any entity name            */
#define KT_RID_LEN        32


/*
 * Percent-encodes (p, len) into out: every byte outside [A-Za-z0-9._@+-] becomes
 * %XX.  `size` counts the final NUL; *outlen excludes it.  KT_NOSPACE.
 */
keytoll_rc_t kt_id_encode(const char *p, size_t len, char *out, size_t size,
    size_t *outlen);

/* The reverse; out may be p.  KT_INVALID for a broken escape or a NUL. */
keytoll_rc_t kt_id_decode(const char *p, size_t len, char *out, size_t size,
    size_t *outlen);

/* "<kind>:<encoded id>", e.g. kind "user". */
keytoll_rc_t kt_ent_name(const char *kind, const char *id, size_t len,
    char *out, size_t size, size_t *outlen);

/* "member:<team>/<user>". */
keytoll_rc_t kt_ent_member(const char *team, size_t tlen, const char *user,
    size_t ulen, char *out, size_t size, size_t *outlen);

/* Milliseconds in the first 48 bits of a 32-digit hex rid; -1 when malformed. */
int64_t kt_rid_ms(const char *rid, size_t len);

/* Writes a rid and a final NUL: 48 bits of ms, then 10 random bytes. */
void kt_rid_make(int64_t ms, const unsigned char rnd[10],
    char out[KT_RID_LEN + 1]);


#endif
