/* Settings that the file declares, or else PostgreSQL keeps (litellm-api 13). */

#ifndef CTL_SETTINGS_H
#define CTL_SETTINGS_H

#include "http.h"


/*
 * A value of litellm_settings or general_settings, such as
 * "default_internal_user_params".  What the file declares wins.  NULL when it is
 * nowhere; NULL and an answer when the database is gone.
 */
const jv_t *settings_get(req_t *r, const char *name);

/* The same as an amount in nano-USD, -1 when unset; -2 after answering. */
int64_t settings_usd(req_t *r, const char *name);


#endif
