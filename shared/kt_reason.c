/*
 * The table behind kt_reason.h.
 */

#include "kt_reason.h"


static const kt_reason_info_t  kt_reasons[KT_REASON_MAX] = {
    [KT_ADMITTED] = { "admitted", 200, "", 0 },
    [KT_NOT_READY] = { "not_ready", 503, "budget_enforcement_unavailable", 0 },
    [KT_STALE] = { "stale_registry", 503, "budget_enforcement_unavailable", 0 },
    [KT_KEY_UNKNOWN] = { "key_unknown", 401, "token_not_found_in_db", "key" },
    [KT_KEY_BLOCKED] = { "key_blocked", 401, "auth_error", "None" },
    [KT_KEY_MODEL] = { "key_model_denied", 403, "key_model_access_denied",
                       "model" },
    [KT_KEY_EXPIRED] = { "key_expired", 401, "expired_key", "key" },
    [KT_BUDGET_EXCEEDED] = { "budget_exceeded", 422, "budget_exceeded", 0 },
    [KT_BUDGET_HELD] = { "budget_held", 429, "throttling_error", 0 },
    [KT_ENTITY_BLOCKED] = { "entity_blocked", 401, "auth_error", "None" },
    [KT_ENTITY_MODEL] = { "entity_model_denied", 403,
                          "team_model_access_denied", "model" },
    [KT_ROUTE_DENIED] = { "route_denied", 403, "auth_error", "None" },
    [KT_RPM] = { "rpm_exceeded", 429, "throttling_error", 0 },
    [KT_TPM] = { "tpm_exceeded", 429, "throttling_error", 0 },
    [KT_PARALLEL] = { "parallel_exceeded", 429, "throttling_error", 0 },
    [KT_MODEL_UNKNOWN] = { "model_unknown", 400, "invalid_request_error",
                           "model" },
    [KT_CREDITS] = { "credits_exhausted", 403, "insufficient_credits", 0 },
    [KT_UNPRICED] = { "unpriced", 400, "invalid_request_error", "model" },
    [KT_ENTITY_MISSING] = { "entity_missing", 503,
                            "budget_enforcement_unavailable", 0 },
    [KT_ALIAS] = { "alias", 500, "internal_server_error", 0 },
    [KT_PARAMS] = { "params", 500, "internal_server_error", 0 },
    [KT_CHEAPER] = { "cheaper", 500, "internal_server_error", 0 },
    [KT_KEY_MISSING] = { "key_missing", 401, "auth_error", "None" },
    [KT_KEY_MALFORMED] = { "key_malformed", 401, "auth_error", "None" },
    [KT_KEY_SHAPE] = { "key_shape", 401, "auth_error", "None" },
    [KT_KEY_CONFLICT] = { "key_conflict", 400, "bad_request_error", "key" },
    [KT_KEY_IN_URL] = { "key_in_url", 400, "bad_request_error", "key" },
    [KT_BODY_INVALID] = { "body_invalid", 400, "invalid_request_error",
                          "request_body" },
    [KT_BODY_TOO_LARGE] = { "body_too_large", 413, "bad_request_error",
                            "content-length" },
    [KT_BODY_ENCODED] = { "body_encoded", 415, "bad_request_error",
                          "content-encoding" },
    [KT_BODY_AWAY] = { "body_rejected", 401, "auth_error", "None" },
    [KT_USER_MISSING] = { "user_missing", 401, "auth_error", "None" },
    [KT_TAGS_DENIED] = { "tags_denied", 400, "bad_request_error",
                         "metadata.tags" },
    [KT_PARAM_MISSING] = { "param_missing", 400, "invalid_request_error",
                           "None" },
    [KT_REDIS_DOWN] = { "redis_unavailable", 503,
                        "budget_enforcement_unavailable", 0 },
    [KT_JOURNAL_DOWN] = { "journal_unavailable", 503,
                          "budget_enforcement_unavailable", 0 },
    [KT_INTERNAL] = { "internal", 500, "internal_server_error", 0 },
};


const kt_reason_info_t *
kt_reason(int reason)
{
    if (reason < 0 || reason >= KT_REASON_MAX) {
        reason = KT_INTERNAL;
    }

    return &kt_reasons[reason];
}


kt_reason_info_t
kt_reason_in(int reason, kt_compat_t compat)
{
    kt_reason_info_t  info = *kt_reason(reason);

    if (compat == KT_COMPAT_1_104) {
        return info;
    }

    if (reason == KT_BUDGET_EXCEEDED) {
        info.status = compat == KT_COMPAT_1_96 ? 429 : 400;
    }

    if (compat == KT_COMPAT_1_96) {
        return info;
    }

    switch (reason) {

    case KT_KEY_MODEL:
    case KT_ENTITY_MODEL:
        info.status = 401;
        break;

    case KT_KEY_EXPIRED:
        info.status = 400;
        break;

    case KT_RPM:
    case KT_TPM:
    case KT_PARALLEL:
    case KT_BUDGET_HELD:
    case KT_MODEL_UNKNOWN:
        info.type = "None";
        info.param = "None";
        break;

    default:
        break;
    }

    return info;
}
