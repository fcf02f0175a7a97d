#include <ctype.h>
#include <string.h>
#include <strings.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include "conf.h"
#include "seal.h"
#include "util.h"


#define SEAL_NONCE  12
#define SEAL_TAG    16


static const char *const  seal_parts[] = {
    "key", "credential", "authorization", "password", "passwd", "passphrase", "secret",
    "headers", "cookie", NULL
};

/* The same where they are a word of the name: "auth" is no part of "author". */

static const char *const  seal_words[] = { "auth", "pass", "pwd", NULL };

/* Such words in names of options. */

static const char *const  seal_options[] = {
    "pass_through", "auth_params", "auth_type", NULL
};

/* Counts and prices of tokens: harmless, if nothing else in the name is a secret. */

static const char *const  seal_harmless[] = {
    "_tokens", "tokens_", "per_token", "token_cost", "cost_per_", "token_limit",
    "token_type", "token_url", "tokenizer", NULL
};


static int
seal_has(const char *name, const char *part)
{
    size_t  n;

    n = strlen(part);

    for (/* void */; *name; name++) {
        if (strncasecmp(name, part, n) == 0) {
            return 1;
        }
    }

    return 0;
}


static int
seal_has_any(const char *name, const char *const *parts)
{
    while (*parts && !seal_has(name, *parts)) {
        parts++;
    }

    return *parts != NULL;
}


static int
seal_edge(const char *a, const char *b)
{
    return !isalpha((unsigned char) *a) || !isalpha((unsigned char) *b)
           || (islower((unsigned char) *a) && isupper((unsigned char) *b));
}


/* "proxy_auth", "basicAuth", "AUTH". */

static int
seal_has_word(const char *name, const char *word)
{
    size_t       n;
    const char  *p;

    n = strlen(word);

    for (p = name; *p; p++) {
        if (strncasecmp(p, word, n) == 0 && (p == name || seal_edge(p - 1, p))
            && seal_edge(p + n - 1, p + n))
        {
            return 1;
        }
    }

    return 0;
}


static int
seal_has_any_word(const char *name)
{
    const char *const  *w;

    for (w = seal_words; *w && !seal_has_word(name, *w); w++) { /* void */ }

    return *w != NULL;
}


int
seal_is_secret(const char *name)
{
    return seal_has_any(name, seal_parts)
           || (seal_has_any_word(name) && !seal_has_any(name, seal_options))
           || (seal_has(name, "token") && !seal_has_any(name, seal_harmless));
}


static int
seal_key(unsigned char key[32])
{
    int             ok;
    size_t          len;
    const char     *salt;
    EVP_PKEY_CTX   *c;

    len = 32;
    salt = conf.salt_key ? conf.salt_key : conf.master_key;
    c = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, NULL);
    ok = c && EVP_PKEY_derive_init(c) > 0
         && EVP_PKEY_CTX_set_hkdf_md(c, EVP_sha256()) > 0
         && EVP_PKEY_CTX_set1_hkdf_salt(c, (const unsigned char *) "keytoll", 7) > 0
         && EVP_PKEY_CTX_set1_hkdf_key(c, (const unsigned char *) salt,
                                       (int) strlen(salt)) > 0
         && EVP_PKEY_CTX_add1_hkdf_info(c, (const unsigned char *) "seal v1", 7) > 0
         && EVP_PKEY_derive(c, key, &len) > 0;
    EVP_PKEY_CTX_free(c);

    return ok;
}


const char *
seal_text(arena_t *a, const char *s, const char *aad)
{
    int              n, m, ok;
    char            *out;
    size_t           len;
    unsigned char    key[32];
    unsigned char   *p;
    EVP_CIPHER_CTX  *c;

    len = strlen(s);
    p = arena_alloc(a, SEAL_NONCE + len + SEAL_TAG);
    util_random(p, SEAL_NONCE);
    c = EVP_CIPHER_CTX_new();
    ok = c && seal_key(key)
         && EVP_EncryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, p) > 0
         && EVP_EncryptUpdate(c, NULL, &n, (const unsigned char *) aad,
                              (int) strlen(aad)) > 0
         && EVP_EncryptUpdate(c, p + SEAL_NONCE, &n, (const unsigned char *) s,
                              (int) len) > 0
         && EVP_EncryptFinal_ex(c, p + SEAL_NONCE + n, &m) > 0
         && EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, SEAL_TAG,
                                p + SEAL_NONCE + len) > 0;
    EVP_CIPHER_CTX_free(c);
    OPENSSL_cleanse(key, sizeof(key));

    if (!ok) {
        return NULL;
    }

    len += SEAL_NONCE + SEAL_TAG;
    out = arena_alloc(a, 8 + 4 * (len / 3 + 1));
    memcpy(out, "kt1:", 4);
    EVP_EncodeBlock((unsigned char *) out + 4, p, (int) len);

    return out;
}


const char *
seal_open(arena_t *a, const char *sealed, const char *aad)
{
    int              n, m, ok;
    char            *out;
    size_t           len, pad;
    unsigned char    key[32];
    unsigned char   *p;
    EVP_CIPHER_CTX  *c;

    len = strlen(sealed);

    if (strncmp(sealed, "kt1:", 4) != 0 || (len - 4) % 4 != 0) {
        return NULL;
    }

    pad = len > 4 && sealed[len - 1] == '=' ? 1 + (sealed[len - 2] == '=') : 0;
    p = arena_alloc(a, len);
    n = EVP_DecodeBlock(p, (const unsigned char *) sealed + 4, (int) (len - 4));

    if (n < 0 || (size_t) n < pad + SEAL_NONCE + SEAL_TAG) {
        return NULL;
    }

    len = (size_t) n - pad - SEAL_NONCE - SEAL_TAG;
    out = arena_alloc(a, len + 1);
    c = EVP_CIPHER_CTX_new();
    ok = c && seal_key(key)
         && EVP_DecryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, p) > 0
         && EVP_DecryptUpdate(c, NULL, &n, (const unsigned char *) aad,
                              (int) strlen(aad)) > 0
         && EVP_DecryptUpdate(c, (unsigned char *) out, &n, p + SEAL_NONCE,
                              (int) len) > 0
         && EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, SEAL_TAG,
                                p + SEAL_NONCE + len) > 0
         && EVP_DecryptFinal_ex(c, (unsigned char *) out + n, &m) > 0;
    EVP_CIPHER_CTX_free(c);
    OPENSSL_cleanse(key, sizeof(key));

    return ok ? out : NULL;
}
