/*
 * controld.yaml.  What is read is constant; SIGHUP puts another in its place.
 * Unknown names are errors with line and column; "os.environ/NAME" stands for a
 * variable.
 */

#ifndef CTL_CONF_H
#define CTL_CONF_H

#include <stdint.h>
#include "json.h"


typedef struct {
    arena_t      arena;
    const char  *path;
    const char  *listen;            /* "127.0.0.1:4001" or "unix:/path"       */
    const char  *database_url;
    const char  *redis_url;         /* "unix:///path" or "redis://host:port"  */
    const char  *redis_username;
    const char  *redis_password;
    const char  *models_file;
    const char  *functions_file;
    const char  *sql_dir;
    const char  *compat;            /* "1.104", "1.96" or "1.81"              */
    const char  *master_key;
    const char  *salt_key;          /* seals provider keys; default master key */
    const char  *token_rate_limit_type;
    const char  *timezone;
    const char  *reset_time;        /* "HH:MM"                                */
    const char  *budget_duration;   /* of the global budget                   */
    int64_t      max_budget_nusd;   /* global budget; -1: none                */
    int64_t      max_parallel;      /* whole proxy; -1: none                  */
    const char  *customer_budget;   /* budget_id of end users without their own */
    int64_t      customer_nusd;     /* or that much, -1: none                 */
    int64_t      budget_status;     /* of an exceeded budget                  */
    int64_t      threads;
    int          strict;            /* fail_closed_budget_enforcement         */
    int          store_model_in_db;
    jv_t        *model_list;        /* array, or NULL                         */
    jv_t        *enforced_params;   /* of every body; array, or NULL          */
    jv_t        *service_params;    /* besides, of service accounts           */
    jv_t        *env;               /* environment_variables                  */
    jv_t        *declared;          /* settings of LiteLLM by name            */
    jv_t        *idle;              /* what was said without effect           */
    char         master_token[65];
} conf_t;


extern const conf_t *_Atomic  conf_current;

#define conf  (*conf_current)

/*
 * Reads and checks the file; `path` NULL uses the environment only.  Returns 0,
 * or -1 after printing the reason with file:line:column to stderr.
 */
int conf_load(const char *path);

/* The same without putting it in place; NULL when it is broken. */
conf_t *conf_read(const char *path);
void conf_free(conf_t *c);

/* Reads one YAML file into JSON; -1 and a message on stderr when it is broken. */
jv_t *conf_yaml(arena_t *a, const char *path);


#endif
