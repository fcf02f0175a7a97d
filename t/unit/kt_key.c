#include "kt_key.h"
#include "tap.h"


static void
check(const char *key, kt_key_kind_t kind, const char *name)
{
    is_int(kt_key_check(key, strlen(key)), kind, name);
}


int
main(void)
{
    int            i, bad;
    char           a[KT_KEY_LEN + 1], b[KT_KEY_LEN + 1], c, token[KT_KEY_TOKEN_LEN + 1];
    unsigned char  rnd[KT_KEY_RANDOM_LEN];

    is_int(kt_key_crc32("123456789", 9), 0xcbf43926, "CRC-32 has its check value");

    memset(rnd, 0xff, sizeof(rnd));
    is_int(kt_key_generate("0000", rnd, a), KT_OK, "a key is made");
    is_int((int64_t) strlen(a), KT_KEY_LEN, "it has 59 characters");
    ok(memcmp(a, "sk-kt10000", 10) == 0, "prefix and shard stand in front");
    check(a, KT_KEY_OWN, "its checksum is right");

    rnd[31] = 0xfe;
    kt_key_generate("0000", rnd, b);
    ok(strcmp(a, b) != 0, "the last bit of the randomness matters");
    memset(rnd, 0, sizeof(rnd));
    kt_key_generate("0000", rnd, b);
    check(b, KT_KEY_OWN, "all zero bits make a key too");
    is_int(kt_key_generate("00-0", rnd, b), KT_INVALID, "a shard is base62");

    for (i = 0, bad = 0; i < KT_KEY_LEN; i++) {
        c = a[i];
        a[i] = c == 'x' ? 'y' : 'x';
        bad += kt_key_check(a, KT_KEY_LEN) == KT_KEY_OWN;
        a[i] = c;
    }

    is_int(bad, 0, "no single wrong character passes");
    a[20] = a[20] == 'q' ? 'r' : 'q';
    check(a, KT_KEY_BAD, "a wrong character inside is refused without a look-up");

    check("sk-kt1", KT_KEY_BAD, "a prefix alone is bad");
    check("sk-1234567890abcdef1234", KT_KEY_FOREIGN, "another sk- key is foreign");
    check("sk-a", KT_KEY_FOREIGN, "an imported key may be short");
    check("sk-", KT_KEY_BAD, "sk- alone is bad");
    check("pk-1234567890abcdef1234", KT_KEY_BAD, "other prefixes are bad");
    check("sk-with space-1234567890", KT_KEY_BAD, "a space is bad");
    check("sk-with\ttab-12345678901", KT_KEY_BAD, "a control character is bad");

    is_int(kt_key_custom_ok("sk-abcdefghijklmnop", 19), KT_OK, "16 characters do");
    is_int(kt_key_custom_ok("sk-abcdefghijklmno", 18), KT_RANGE, "15 are too few");
    is_int(kt_key_custom_ok("sk-abcdefghijklmno.", 19), KT_INVALID, "a dot is not allowed");
    is_int(kt_key_custom_ok("sx-abcdefghijklmnop", 19), KT_INVALID, "sk- is needed");
    is_int(kt_key_custom_ok("sk-kt1abcdefghijklmnop", 22), KT_INVALID,
           "a custom key can not pretend to be ours");

    kt_key_token("sk-1234", 7, token);
    is_mem(token, 64, "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
           "the token is the SHA-256");

    return tap_done();
}
