#include <string.h>
#include <openssl/evp.h>
#include <zlib.h>
#include "kt_key.h"


static const char  kt_base62[] =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";


static int
kt_is_base62(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z')
           || (c >= 'a' && c <= 'z');
}


uint32_t
kt_key_crc32(const char *p, size_t len)
{
    return (uint32_t) crc32_z(0, (const unsigned char *) p, len);
}


/* Six base62 digits hold 56.8e9, more than 2^32. */

static void
kt_key_crc_text(const char *p, size_t len, char *out)
{
    int       i;
    uint32_t  crc;

    crc = kt_key_crc32(p, len);

    for (i = KT_KEY_CRC_LEN - 1; i >= 0; i--) {
        out[i] = kt_base62[crc % 62];
        crc /= 62;
    }
}


/*
 * 256 bits as 43 base62 digits by long division: 62^43 > 2^256, so nothing of
 * the randomness is lost.
 */

static void
kt_key_secret_text(const unsigned char *rnd, char *out)
{
    int            i, j;
    unsigned       rem, cur;
    unsigned char  n[KT_KEY_RANDOM_LEN];

    memcpy(n, rnd, sizeof(n));

    for (i = KT_KEY_SECRET_LEN - 1; i >= 0; i--) {
        rem = 0;

        for (j = 0; j < KT_KEY_RANDOM_LEN; j++) {
            cur = (rem << 8) | n[j];
            n[j] = (unsigned char) (cur / 62);
            rem = cur % 62;
        }

        out[i] = kt_base62[rem];
    }

    memset(n, 0, sizeof(n));
}


keytoll_rc_t
kt_key_generate(const char *shard, const unsigned char *rnd, char *out)
{
    int    i;
    char  *p;

    for (i = 0; i < KT_KEY_SHARD_LEN; i++) {
        if (!kt_is_base62(shard[i])) {
            return KT_INVALID;
        }
    }

    p = out;
    memcpy(p, KT_KEY_PREFIX, KT_KEY_PREFIX_LEN);
    p += KT_KEY_PREFIX_LEN;
    memcpy(p, shard, KT_KEY_SHARD_LEN);
    p += KT_KEY_SHARD_LEN;
    kt_key_secret_text(rnd, p);
    p += KT_KEY_SECRET_LEN;
    kt_key_crc_text(out, (size_t) (p - out), p);
    p[KT_KEY_CRC_LEN] = '\0';

    return KT_OK;
}


static int
kt_key_charset(const char *p, size_t len)
{
    size_t  i;

    for (i = 0; i < len; i++) {
        if (!kt_is_base62(p[i]) && p[i] != '_' && p[i] != '-') {
            return 0;
        }
    }

    return 1;
}


kt_key_kind_t
kt_key_check(const char *p, size_t len)
{
    char    crc[KT_KEY_CRC_LEN];
    size_t  i;

    if (len < 4 || len > KT_KEY_FOREIGN_MAX || memcmp(p, "sk-", 3) != 0) {
        return KT_KEY_BAD;
    }

    if (len < KT_KEY_PREFIX_LEN
        || memcmp(p, KT_KEY_PREFIX, KT_KEY_PREFIX_LEN) != 0)
    {
        /* imported keys may hold any visible ASCII */

        for (i = 0; i < len; i++) {
            if (p[i] <= 0x20 || p[i] >= 0x7f) {
                return KT_KEY_BAD;
            }
        }

        return KT_KEY_FOREIGN;
    }

    if (len != KT_KEY_LEN || !kt_key_charset(p, len)) {
        return KT_KEY_BAD;
    }

    kt_key_crc_text(p, KT_KEY_LEN - KT_KEY_CRC_LEN, crc);

    if (memcmp(crc, p + KT_KEY_LEN - KT_KEY_CRC_LEN, KT_KEY_CRC_LEN) != 0) {
        return KT_KEY_BAD;
    }

    return KT_KEY_OWN;
}


keytoll_rc_t
kt_key_custom_ok(const char *p, size_t len)
{
    if (len < 3 || memcmp(p, "sk-", 3) != 0) {
        return KT_INVALID;
    }

    if (len < KT_KEY_FOREIGN_MIN || len > KT_KEY_FOREIGN_MAX) {
        return KT_RANGE;
    }

    if (!kt_key_charset(p + 3, len - 3) || kt_key_check(p, len) == KT_KEY_BAD) {
        return KT_INVALID;
    }

    return KT_OK;
}


static __thread EVP_MD_CTX  *kt_key_ctx;


void
kt_key_token(const char *p, size_t len, char out[KT_KEY_TOKEN_LEN + 1])
{
    unsigned              n;
    unsigned              i;
    unsigned char         md[EVP_MAX_MD_SIZE];
    EVP_MD_CTX           *ctx;
    static const char     hex[] = "0123456789abcdef";

    /* OpenSSL 3 looks an algorithm up on every one-shot: keep the context */

    if (kt_key_ctx == NULL) {
        kt_key_ctx = EVP_MD_CTX_new();

        if (kt_key_ctx
            && EVP_DigestInit_ex(kt_key_ctx, EVP_sha256(), NULL) != 1)
        {
            kt_key_thread_end();
        }
    }

    ctx = kt_key_ctx;
    n = 0;
    memset(out, 0, KT_KEY_TOKEN_LEN + 1);

    if (ctx == NULL
        || EVP_DigestInit_ex(ctx, NULL, NULL) != 1
        || EVP_DigestUpdate(ctx, p, len) != 1
        || EVP_DigestFinal_ex(ctx, md, &n) != 1
        || n != 32)
    {
        return;
    }

    for (i = 0; i < 32; i++) {
        out[2 * i] = hex[md[i] >> 4];
        out[2 * i + 1] = hex[md[i] & 15];
    }

}


void
kt_key_thread_end(void)
{
    EVP_MD_CTX_free(kt_key_ctx);
    kt_key_ctx = NULL;
}
