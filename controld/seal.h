/*
 * Secret values of provider settings: AES-256-GCM under a key derived from the
 * salt key (or the master key), written as "kt1:<base64 of nonce, text, tag>".
 */

#ifndef CTL_SEAL_H
#define CTL_SEAL_H

#include "json.h"


/* NULL when sealing failed. */
const char *seal_text(arena_t *a, const char *s, const char *aad);

/* The text of seal_text(), NULL when it is not one or the key is another. */
const char *seal_open(arena_t *a, const char *sealed, const char *aad);

/* 1 for a litellm_params name whose value is a secret. */
int seal_is_secret(const char *name);


#endif
