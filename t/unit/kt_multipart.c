/*
 * kt_multipart: content types, and forms that parsers could read in two ways.
 */

#include "kt_multipart.h"
#include "tap.h"


static const struct {
    const char  *text;
    kt_type_t    type;
    const char  *boundary;
} types[] = {
    { "application/json", KT_TYPE_PLAIN, "" },
    { "application/json; charset=UTF-8", KT_TYPE_PLAIN, "" },
    { "application/json;charset=\"utf-8\"", KT_TYPE_PLAIN, "" },
    { "application/json; charset=utf-16", KT_TYPE_CHARSET, "" },
    { "application/json; charset=utf-8; charset=utf-16", KT_TYPE_BAD, "" },
    { "application/json; charset", KT_TYPE_BAD, "" },
    { "application/json;", KT_TYPE_PLAIN, "" },
    { "", KT_TYPE_PLAIN, "" },
    { "application/x-www-form-urlencoded", KT_TYPE_FORM, "" },
    { "multipart/form-data; boundary=abc", KT_TYPE_MULTIPART, "abc" },
    { "Multipart/Form-Data; Boundary=\"a b\"", KT_TYPE_MULTIPART, "a b" },
    { "multipart/form-data; boundary=\"a\\\"b\"", KT_TYPE_BAD, "" },
    { "multipart/form-data; boundary=a; boundary=b", KT_TYPE_BAD, "a" },
    { "multipart/form-data; boundary*0=a", KT_TYPE_BAD, "" },
    { "multipart/form-data; boundary=", KT_TYPE_BAD, "" },
    { "multipart/form-data", KT_TYPE_BAD, "" },
    { "multipart/mixed; boundary=a", KT_TYPE_BAD, "a" }
};


#define D     "--b\r\n"
#define E     "--b--\r\n"
#define F(n)  "Content-Disposition: form-data; name=\"" n "\"\r\n\r\n"
#define FILE  "Content-Disposition: form-data; name=\"file\"; "               \
              "filename=\"a.mp3\"\r\nContent-Type: audio/mpeg\r\n\r\n"

static const struct {
    const char    *text;
    keytoll_rc_t   rc;
    const char    *model;
} forms[] = {
    { D F("model") "whisper-1\r\n" E, KT_OK, "whisper-1" },
    { D FILE "1234\r\n" D F("model") "m\r\n--b--", KT_OK, "m" },
    { D "content-disposition: form-data; name=model\r\n\r\nm\r\n" E, KT_OK,
      "m" },
    { D F("n") "3\r\n" D F("model") "m\r\n" E, KT_OK, "m" },
    { D F("x") "\r\n" D F("model") "m\r\n" E, KT_OK, "m" },
    { "--b--\r\n", KT_OK, "" },
    { D F("model") "a\r\n" D F("model") "b\r\n" E, KT_DUPLICATE, NULL },
    { D F("model") "a\r\n" D F("Model") "b\r\n" E, KT_DUPLICATE, NULL },
    { D F("model[]") "a\r\n" E, KT_DUPLICATE, NULL },
    { D F("m%6fdel") "a\r\n" E, KT_INVALID, NULL },
    { D F("model\\") "a\r\n" E, KT_INVALID, NULL },
    { D F("model") "a\n--b\r\n" F("x") "y\r\n" E, KT_INVALID, NULL },
    { D F("model") "a\r\n--bc\r\n" E, KT_INVALID, NULL },
    { D F("model") "a\r\n--b \r\n" F("x") "y\r\n" E, KT_INVALID, NULL },
    { "x\r\n" D F("model") "a\r\n" E, KT_INVALID, NULL },
    { D F("model") "a\r\n" E "x", KT_INVALID, NULL },
    { D F("model") "a\r\n" E D F("model") "b\r\n" E, KT_INVALID, NULL },
    { D F("model") "a\r\n", KT_INVALID, NULL },
    { D "Content-Disposition: form-data; name=\"model\"; name=\"x\"\r\n\r\na"
      "\r\n" E, KT_INVALID, NULL },
    { D "Content-Disposition: form-data; name*=utf-8''model\r\n\r\na\r\n" E,
      KT_INVALID, NULL },
    { D "Content-Disposition: form-data;\r\n name=\"model\"\r\n\r\na\r\n" E,
      KT_INVALID, NULL },
    { D "Content-Disposition: form-data; name=\"model\"\nX: y\r\n\r\na\r\n" E,
      KT_INVALID, NULL },
    { D "Content-Disposition: form-data; name=\"model\"\r\n"
      "Content-Transfer-Encoding: base64\r\n\r\nYQ==\r\n" E, KT_INVALID,
      NULL },
    { D "Content-Disposition: form-data; name=\"model\"; filename=\"x\"\r\n"
      "\r\na\r\n" E, KT_INVALID, NULL },
    { D "Content-Type: text/plain\r\n\r\na\r\n" E, KT_INVALID, NULL },
    { D F("_charset_") "utf-16\r\n" E, KT_INVALID, NULL },
    { D F("n") "0\r\n" E, KT_RANGE, NULL },
    { D F("n") "1e3\r\n" E, KT_RANGE, NULL },
    { D F("n") "2000\r\n" E, KT_RANGE, NULL },
    { D F("model") "a\r\nb\r\n" E, KT_RANGE, NULL },
    { D F("model") "\xff\r\n" E, KT_RANGE, NULL },
    { "", KT_INVALID, NULL }
};


int
main(void)
{
    char          boundary[KT_BOUNDARY_MAX];
    size_t        i, n, len;
    kt_reqscan_t  r;

    for (i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        is_int(kt_content_type(types[i].text, strlen(types[i].text), boundary,
                               &n), types[i].type, types[i].text);
        is_mem(boundary, n, types[i].boundary, "... its boundary");
    }

    for (i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        len = strlen(forms[i].text);
        is_int(kt_multipart((const unsigned char *) forms[i].text, len, "b", 1,
                            &r), forms[i].rc, "form");

        if (forms[i].model) {
            is_mem(r.model, r.model_len, forms[i].model, "... its model");
            ok(r.model_len == 0
               || memcmp(forms[i].text + r.model_span.off, r.model,
                         r.model_span.len) == 0, "... and where it is");

        } else {
            ok(r.err != NULL, "... says why: %s", r.err ? r.err : "");
        }
    }

    len = strlen(forms[1].text);
    (void) kt_multipart((const unsigned char *) forms[1].text, len, "b", 1,
                        &r);
    is_int(r.file_bytes, 4, "bytes of files");

    /* cut anywhere, it is malformed or says less */

    for (i = 0, n = 0; i < len - 6; i++) {
        n += kt_multipart((const unsigned char *) forms[1].text, i, "b", 1, &r)
             == KT_OK;
    }

    is_int((int64_t) n, 0, "no cut form is a form");

    return tap_done();
}
