#include <stdio.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include "password.h"
#include "util.h"


#define PASSWORD_LN     15               /* 32 MB and some 60 ms               */
#define PASSWORD_R      8
#define PASSWORD_P      1
#define PASSWORD_SALT   16
#define PASSWORD_HASH   32
#define PASSWORD_MAX    1024


int
password_weak(const char *s, const password_rules_t *rules)
{
    size_t  i, n;
    int     upper, lower, digit, special;

    n = strlen(s);
    upper = lower = digit = special = 0;

    for (i = 0; i < n; i++) {
        if (s[i] >= 'A' && s[i] <= 'Z') {
            upper = 1;
        } else if (s[i] >= 'a' && s[i] <= 'z') {
            lower = 1;
        } else if (s[i] >= '0' && s[i] <= '9') {
            digit = 1;
        } else {
            special = 1;
        }
    }

    return n > PASSWORD_MAX || (int64_t) n < rules->min_length
           || (rules->upper && !upper) || (rules->lower && !lower)
           || (rules->digit && !digit) || (rules->special && !special);
}


static int
password_scrypt(const char *s, const unsigned char *salt, int ln, int r, int p,
    unsigned char *out)
{
    return EVP_PBE_scrypt(s, strlen(s), salt, PASSWORD_SALT, (uint64_t) 1 << ln,
                          (uint64_t) r, (uint64_t) p, 256 * 1024 * 1024, out,
                          PASSWORD_HASH) == 1;
}


const char *
password_hash(arena_t *a, const char *s)
{
    char           b1[32], b2[64];
    unsigned char  salt[PASSWORD_SALT], out[PASSWORD_HASH];

    util_random(salt, sizeof(salt));

    if (!password_scrypt(s, salt, PASSWORD_LN, PASSWORD_R, PASSWORD_P, out)) {
        return NULL;
    }

    EVP_EncodeBlock((unsigned char *) b1, salt, sizeof(salt));
    EVP_EncodeBlock((unsigned char *) b2, out, sizeof(out));
    OPENSSL_cleanse(out, sizeof(out));

    return arena_printf(a, "$scrypt$ln=%d,r=%d,p=%d$%s$%s", PASSWORD_LN, PASSWORD_R,
                        PASSWORD_P, b1, b2);
}


int
password_matches(const char *s, const char *phc)
{
    int            ln, r, p;
    char           b1[32], b2[64];
    unsigned char  salt[32], want[64], got[PASSWORD_HASH];

    if (sscanf(phc, "$scrypt$ln=%d,r=%d,p=%d$%31[A-Za-z0-9+/=]$%63[A-Za-z0-9+/=]",
               &ln, &r, &p, b1, b2) != 5
        || ln < 1 || ln > 20 || r < 1 || r > 32 || p < 1 || p > 16
        || strlen(b1) != 24 || strlen(b2) != 44
        || EVP_DecodeBlock(salt, (unsigned char *) b1, 24) < PASSWORD_SALT
        || EVP_DecodeBlock(want, (unsigned char *) b2, 44) < PASSWORD_HASH
        || !password_scrypt(s, salt, ln, r, p, got))
    {
        return 0;
    }

    return CRYPTO_memcmp(want, got, PASSWORD_HASH) == 0;
}
