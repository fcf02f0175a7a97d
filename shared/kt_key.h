/*
 * Text form of virtual keys and their public id.
 *
 * Own keys:  "sk-kt1" shard(4) secret(43 base62) crc(6 base62)  = 59 bytes.
 * The six last characters are the CRC-32 (IEEE) of everything before them, so
 * that a mistyped or invented key is refused without asking anybody.  Any other
 * "sk-..." is foreign: chosen by a caller or imported.
 */

#ifndef KT_KEY_H
#define KT_KEY_H

#include <stddef.h>
#include <stdint.h>
#include "kt_rc.h"


#define KT_KEY_PREFIX      "sk-kt1"
#define KT_KEY_PREFIX_LEN  6
#define KT_KEY_SHARD_LEN   4
#define KT_KEY_SECRET_LEN  43
#define KT_KEY_CRC_LEN     6
#define KT_KEY_LEN         59
#define KT_KEY_TOKEN_LEN   64
#define KT_KEY_RANDOM_LEN  32
#define KT_KEY_FOREIGN_MIN 19     /* "sk-" and 16 more                        */
#define KT_KEY_FOREIGN_MAX 256


typedef enum {
    KT_KEY_OWN = 0,        /* ours and its checksum is right                  */
    KT_KEY_FOREIGN,        /* some other well-formed "sk-..."                 */
    KT_KEY_BAD             /* ours with a wrong checksum, or not a key at all */
} kt_key_kind_t;


/*
 * Writes a new key and a final NUL into out[KT_KEY_LEN + 1].  `shard` is
 * KT_KEY_SHARD_LEN base62 bytes, `rnd` is KT_KEY_RANDOM_LEN random bytes.
 * KT_INVALID when the shard has another character.
 */
keytoll_rc_t kt_key_generate(const char *shard, const unsigned char *rnd,
    char *out);

/*
 * Tells what kind of key (p, len) is.  Foreign keys that the gate accepts may be
 * shorter than KT_KEY_FOREIGN_MIN (imports); length at issue is the issuer's rule.
 */
kt_key_kind_t kt_key_check(const char *p, size_t len);

/* KT_OK when (p, len) may be issued as a caller-chosen key. */
keytoll_rc_t kt_key_custom_ok(const char *p, size_t len);

/*
 * The token: lower-case hex SHA-256 of the whole key, and a final NUL.  Empty
 * when OpenSSL fails, which no stored token equals.
 */
void kt_key_token(const char *p, size_t len, char out[KT_KEY_TOKEN_LEN + 1]);

/* Frees what kt_key_token() keeps for the calling thread. */
void kt_key_thread_end(void);

/* CRC-32 (IEEE 802.3, reflected) of (p, len). */
uint32_t kt_key_crc32(const char *p, size_t len);


#endif
