/*
 * Why a request was refused, as data: one number for the Redis functions, one
 * word for clients and logs, one status and error type for the wire.
 *
 * Statuses and types: litellm-api 11.2, profile 1.104.  Those up to KT_CHEAPER are
 * spoken by shared/lua and must stay equal to the numbers there.
 */

#ifndef KT_REASON_H
#define KT_REASON_H


typedef enum {
    KT_ADMITTED = 0,
    KT_NOT_READY,              /* Redis has no generation, or an older one  */
    KT_STALE,                  /* priced with another registry; try again   */
    KT_KEY_UNKNOWN,
    KT_KEY_BLOCKED,
    KT_KEY_MODEL,
    KT_KEY_EXPIRED,
    KT_BUDGET_EXCEEDED,
    KT_BUDGET_HELD,            /* only unsettled requests stand in the way  */
    KT_ENTITY_BLOCKED,
    KT_ENTITY_MODEL,
    KT_ROUTE_DENIED,
    KT_RPM,
    KT_TPM,
    KT_PARALLEL,
    KT_MODEL_UNKNOWN,
    KT_CREDITS,
    KT_UNPRICED,               /* a limit, and no price or model to count by */
    KT_ENTITY_MISSING,         /* a level of the key is not in Redis        */
    KT_ALIAS,                  /* the model is another; ask again with it   */
    KT_PARAMS,                 /* what the body must have; ask again if so  */
    KT_CHEAPER,                /* no money for it; others may be asked for  */

    KT_KEY_MISSING,            /* from here on decided without Redis        */
    KT_KEY_MALFORMED,
    KT_KEY_SHAPE,
    KT_KEY_CONFLICT,
    KT_KEY_IN_URL,
    KT_BODY_INVALID,
    KT_BODY_TOO_LARGE,
    KT_BODY_ENCODED,
    KT_BODY_AWAY,              /* names another account or address          */
    KT_USER_MISSING,
    KT_TAGS_DENIED,
    KT_PARAM_MISSING,
    KT_REDIS_DOWN,
    KT_JOURNAL_DOWN,
    KT_INTERNAL,

    KT_REASON_MAX
} kt_reason_t;


typedef struct {
    const char  *name;         /* x-keytoll-reason, logs, metrics           */
    int          status;
    const char  *type;         /* error.type                                */
    const char  *param;        /* error.param; NULL prints null             */
} kt_reason_info_t;


/*
 * The LiteLLM whose wire is spoken: litellm-api 11.12.  The newest is the
 * default.
 */
typedef enum {
    KT_COMPAT_1_104 = 0,
    KT_COMPAT_1_96,            /* mid-2026, 1.84 to 1.103                   */
    KT_COMPAT_1_81
} kt_compat_t;


/* Never NULL; numbers out of range read as KT_INTERNAL. */
const kt_reason_info_t *kt_reason(int reason);

/* The same as an older LiteLLM says it, by value. */
kt_reason_info_t kt_reason_in(int reason, kt_compat_t compat);


#endif
