/*
 * Settings of LiteLLM by name ("default_internal_user_params", "key_alias_pattern"
 * ...): what the configuration file declares wins, else what was saved over the API.
 */

#ifndef CTL_SETTINGS_H
#define CTL_SETTINGS_H

#include "http.h"


/*
 * The value; NULL when it is set nowhere, and NULL with r->status set when the
 * database is gone.
 */
const jv_t *settings_get(req_t *r, const char *name);

/* 1 when the file declares it: the API must not change it. */
int settings_in_file(const char *name);

/* One of general_settings, litellm_settings; `def` when it is not set. */
int settings_bool(req_t *r, const char *name, int def);

/*
 * Saves a value in the open transaction, with its audit row; NULL deletes it.
 * 0, or -1 after answering.
 */
int settings_put(req_t *r, const char *name, const jv_t *value);


#endif
