/*
 * JSON lexical helpers shared by the scanners: skipping over runs of plain
 * bytes a word at a time, and decoding of string escapes.  Pure functions
 * over (pointer, length); nothing here allocates.
 */

#ifndef KT_JSON_H
#define KT_JSON_H


#include <stddef.h>
#include <stdint.h>

#include "kt_rc.h"


/* A piece of the caller's buffer; len 0 means absent. */
typedef struct {
    size_t  off;
    size_t  len;
} kt_span_t;


/*
 * First byte in [p, end) that is '"', '\\' or a control byte below 0x20;
 * end when there is none.
 */
const unsigned char *kt_json_plain(const unsigned char *p,
    const unsigned char *end);

/* First byte in [p, end) that equals a or b; end when there is none. */
const unsigned char *kt_json_find2(const unsigned char *p,
    const unsigned char *end, unsigned char a, unsigned char b);

/*
 * Readers of one strict JSON token at p (p < end): a string from its opening
 * quote, a number, a literal.  They return the byte behind it and set *err to
 * NULL, or return where it is broken and set *err to a static text.
 */
const unsigned char *kt_json_string(const unsigned char *p,
    const unsigned char *end, const char **err);
const unsigned char *kt_json_number(const unsigned char *p,
    const unsigned char *end, const char **err);
const unsigned char *kt_json_word(const unsigned char *p,
    const unsigned char *end, const char *word, const char **err);

/* 1 when the bytes are valid UTF-8: no overlong form, no surrogate. */
int kt_json_is_utf8(const unsigned char *p, size_t len);

/* Value of a hexadecimal digit, -1 when c is none. */
int kt_json_hex(unsigned char c);

/*
 * Writes the UTF-8 form of cp (up to 0x10ffff) into out[4], returns its
 * length.
 */
size_t kt_json_utf8(uint32_t cp, unsigned char *out);

/*
 * Decodes the text of a JSON string (p points behind the opening quote, len
 * excludes both quotes) into out, which gets a terminating NUL; *n is the
 * length without it.  KT_OK; KT_INVALID for a broken escape or an unpaired
 * surrogate; KT_NOSPACE when cap is too small for the text and its NUL.
 */
keytoll_rc_t kt_json_unescape(const unsigned char *p, size_t len, char *out,
    size_t cap, size_t *n);

/*
 * KT_OK when the text can be an identifier: valid UTF-8 with no control
 * characters (C0, DEL, C1, NUL included); else KT_RANGE.
 */
keytoll_rc_t kt_json_clean(const char *p, size_t len);


#endif
