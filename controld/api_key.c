#include <string.h>
#include "access.h"
#include "api.h"
#include "conf.h"
#include "db.h"
#include "grant.h"
#include "key.h"
#include "kt_key.h"
#include "owner.h"
#include "policy.h"
#include "tx.h"
#include "util.h"


/* Shared by generate and update; owners, expiry and spend are handled apart. */

#define KEY_FIELDS                                                            \
    { "key_alias", F_NAME, "key_alias", 0 },                                  \
    { "models", F_STRS, "models", 1 },                                        \
    { "max_budget", F_USD, "max_budget_nusd", 0 },                            \
    { "max_parallel_requests", F_INT, "max_parallel_requests", 0 },           \
    { "tpm_limit", F_INT, "tpm_limit", 0 },                                   \
    { "rpm_limit", F_INT, "rpm_limit", 0 },                                   \
    { "budget_duration", F_PERIOD, NULL, 0 },                                 \
    { "budget_limits", F_LIST, "budget_limits", 1 },                          \
    { "budget_enforcement", F_ENFORCE, "budget_enforcement", F_ADMIN | F_ZERO }, \
    { "duration", F_EXPIRES, "expires", 0 },                                  \
    { "allowed_cache_controls", F_STRS, "allowed_cache_controls", 1 },        \
    { "config", F_OBJ, "config", F_NOTNULL | F_ADMIN | F_ZERO },              \
    { "permissions", F_OBJ, "permissions", F_NOTNULL | F_ADMIN | F_ZERO },    \
    { "model_max_budget", F_OBJ, "model_max_budget", 1 },                     \
    { "aliases", F_OBJ, "aliases", 1 },                                       \
    { "blocked", F_BOOL, "blocked", 0 },                                      \
    { "budget_id", F_ID, "budget_id", F_ADMIN | F_ZERO },                     \
    { "organization_id", F_ID, "organization_id", 0 },                        \
    { "allowed_routes", F_STRS, "allowed_routes", 1 },                        \
    { "policies", F_STRS, "policies", 1 },                                    \
    { "access_group_ids", F_STRS, "access_group_ids", 1 },                    \
    { "router_settings", F_OBJ, "router_settings", 0 },                       \
    { "auto_rotate", F_BOOL, "auto_rotate", 1 },                              \
    { "rotation_interval", F_STR, "rotation_interval", 0 },                   \
    { "model_rpm_limit", F_META, NULL, 0 },                                   \
    { "model_tpm_limit", F_META, NULL, 0 },                                   \
    { "rpm_limit_type", F_META, NULL, 0 },                                    \
    { "tpm_limit_type", F_META, NULL, 0 },                                    \
    { "guardrails", F_META, NULL, 0 },                                        \
    { "prompts", F_META, NULL, 0 },                                           \
    { "tags", F_TAGS, NULL, 0 },                                              \
    { "enforced_params", F_TAGS, NULL, 0 },                                   \
    { "allowed_passthrough_routes", F_META, NULL, F_ADMIN | F_ZERO },         \
    { "temp_budget_increase", F_META, NULL, F_ADMIN | F_ZERO },               \
    { "temp_budget_expiry", F_META, NULL, F_ADMIN | F_ZERO },                 \
    { "allowed_vector_store_indexes", F_META, NULL, 0 },                      \
    { "disable_global_guardrails", F_META, NULL, 0 },                         \
    { "mcp_rpm_limit", F_META, NULL, F_REFUSED },                             \
    { "tag_rpm_limit", F_META, NULL, F_REFUSED },                             \
    { "object_permission", F_EXTRA, NULL, F_REFUSED, "models" },              \
    { "agent_id", F_EXTRA, NULL, 0 },                                         \
    { "project_id", F_EXTRA, NULL, 0 },                                       \
    { "budget_fallbacks", F_EXTRA, NULL, 0 },                                 \
    { "throttle_on_budget_exceeded", F_META, NULL, 0 },                       \
    { "budget_exceeded_throttle_percentage", F_META, NULL, 0 }

const field_t  key_generate_body[] = {
    KEY_FIELDS,
    { "key", F_STR, NULL, 0 },
    { "user_id", F_ID, NULL, 0 },
    { "team_id", F_ID, NULL, 0 },
    { "soft_budget", F_USD, NULL, 0 },
    { "spend", F_USD, NULL, F_ADMIN | F_ZERO },
    { "metadata", F_OBJ, NULL, 0 },
    { "key_type", F_ENUM, NULL, 0, "llm_api|management|read_only|default" },
    { "send_invite_email", F_BOOL, NULL, 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  key_update_body[] = {
    KEY_FIELDS,
    { "key", F_STR, NULL, 0 },
    { "spend", F_USD, NULL, F_ADMIN | F_ZERO },
    { "metadata", F_OBJ, NULL, 0 },
    { "user_id", F_ID, "user_id", 0 },
    { "team_id", F_ID, "team_id", 0 },
    { "soft_budget", F_USD, "soft_budget_nusd", 0 },
    { NULL, 0, NULL, 0 }
};

const field_t  key_regenerate_body[] = {
    KEY_FIELDS,
    { "key", F_STR, NULL, 0 },
    { "new_key", F_STR, NULL, 0 },
    { "new_master_key", F_STR, NULL, F_ADMIN },
    { "grace_period", F_STR, NULL, 0 },
    { "metadata", F_OBJ, NULL, 0 },
    { NULL, 0, NULL, 0 }
};


/*
 * Who is no admin makes keys of the organization that his own key is of, or of one
 * that he belongs to; a key of a team is of the team's.
 */

static int
key_organization(req_t *r, const char *team_id)
{
    int          rc;
    const jv_t  *own;
    const char  *org;

    if (access_admin(r)) {
        return 0;
    }

    own = json_get(r->caller_row, "organization_id");
    org = json_str(r->json, "organization_id");

    if (team_id) {
        rc = org ? key_team_is_of(r, team_id, org) : 1;

    } else if (!json_is_null(own)) {
        rc = org == NULL || strcmp(org, own->s) == 0;
        json_set(r->json, "organization_id", json_copy(&r->a, own));

    } else {
        rc = org ? access_org_member(r, org) : 1;
    }

    if (rc == 0) {
        fail_repr(r, 403, "This key can not be one of organization_id=%s",
                  org ? org : "None");
    }

    return rc > 0 ? 0 : -1;
}


/* Creates the key of r->json and answers. */

static void
key_generate(req_t *r, const char *route)
{
    int          silent;
    jv_t        *out;
    key_new_t    k;
    const char  *user_id, *team_id;

    silent = json_is_null(json_get(r->json, "duration"));

    if (key_type(r) != 0 || key_defaults(r, 1) != 0 || key_type(r) != 0
        || key_temp_budget(r) != 0 || key_options(r) != 0
        || key_body_id(r, "user_id", &user_id) != 0
        || key_body_id(r, "team_id", &team_id) != 0 || owner_check_limits(r) != 0
        || tx_begin(r) != 0 || key_hold_owners(r, user_id, team_id) != 0
        || key_may_create(r, &user_id, team_id, route) != 0
        || key_organization(r, team_id) != 0
        || grant_key(r, NULL, user_id, team_id, 1) != 0
        || key_team_duration(r, team_id, NULL, silent) != 0
        || key_create(r, key_generate_body, user_id, team_id, &k) != 0
        || (!k.existing && grant_child(r, k.token) != 0) || tx_commit(r) != 0)
    {
        return;
    }

    out = k.row;
    key_echo(r, out);
    json_set(out, "key", json_string(&r->a, k.text));
    json_set(out, "token_id", json_string(&r->a, k.token));
    reply_json(r, 200, out);
}


void
api_key_generate(req_t *r)
{
    key_generate(r, "/key/generate");
}


/* A key of a team that belongs to nobody: it stays when people leave. */

void
api_key_service(req_t *r)
{
    jv_t        *meta;
    PGresult    *res;
    const char  *team_id;

    if (key_body_id(r, "team_id", &team_id) != 0) {
        return;
    }

    if (team_id == NULL) {
        fail_detail(r, 400, "team_id is required for service account keys. Please"
                    " specify `team_id` in the request body.");
        return;
    }

    res = db_q("SELECT 1 FROM teams WHERE team_id = $1 AND NOT implicit", team_id);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return;
    }

    if (PQntuples(res) == 0) {
        PQclear(res);
        fail_detail(r, 400, "team_id does not exist in the database. Please create it"
                    " with `/team/new` first.");
        return;
    }

    PQclear(res);
    json_del(r->json, "user_id");
    meta = json_get(r->json, "metadata");

    if (json_is_null(meta)) {
        meta = json_obj(&r->a);
        json_set(r->json, "metadata", meta);
    }

    if (json_is_null(json_get(meta, "service_account_id"))) {
        json_set(meta, "service_account_id",
                 json_string(&r->a, json_str(r->json, "key_alias")
                             ? json_str(r->json, "key_alias") : util_uuid(&r->a)));
    }

    key_generate(r, "/key/service-account/generate");
}


/* More than the budget for a while: an amount, and when that is over. */

int
key_temp_budget(req_t *r)
{
    int          ok;
    int64_t      nusd;
    PGresult    *res;
    const jv_t  *more, *end;

    more = json_get(r->json, "temp_budget_increase");
    end = json_get(r->json, "temp_budget_expiry");

    if (json_is_null(more) != json_is_null(end)) {
        fail_field(r, NULL, "value_error", "Value error, temp_budget_increase and"
                   " temp_budget_expiry must be set together", r->json);
        return -1;
    }

    if (json_is_null(more)) {
        return 0;
    }

    if (more->type != J_NUM || field_usd(r, "temp_budget_increase", &nusd) < 0
        || end->type != J_STR)
    {
        fail_field(r, "temp_budget_increase", "value_error", "Value error,"
                   " temp_budget_increase is a number and temp_budget_expiry a time",
                   more);
        return -1;
    }

    res = db_q("SELECT kt_temp_expiry(jsonb_build_object('temp_budget_expiry', $1::text))"
               " IS NOT NULL", end->s);
    ok = db_ok(res) && *PQgetvalue(res, 0, 0) == 't';
    PQclear(res);

    if (!ok) {
        fail_field(r, "temp_budget_expiry", "datetime_parsing", "Input should be a valid"
                   " datetime", end);
    }

    return ok ? 0 : -1;
}


static int
key_unknown(req_t *r)
{
    fail_repr(r, 404, "Team not found, passed team_id=None");

    return -1;
}


/* Who may change this key; litellm-api 8A. */

int
key_may_update(req_t *r, const key_ref_t *ref, const char *sent)
{
    const char  *user_id;

    if (access_admin(r)) {
        return 0;
    }

    user_id = json_str(r->json, "user_id");

    if (!key_is_own(r, ref)) {
        if (ref->by_alias) {
            return key_unknown(r);       /* it may have been guessed           */
        }

        fail_repr(r, 403, "User can only create keys for themselves. Got user_id=%s,"
                  " Your ID=%s", ref->user_id ? ref->user_id : "None",
                  r->caller_user ? r->caller_user : "None");
        return -1;
    }

    if (json_get(r->json, "user_id")
        && (user_id == NULL || strcmp(user_id, ref->user_id)))
    {
        fail_repr(r, 403, "User=%s is not allowed to update key=%s to belong to"
                  " user=%s", r->caller_user, key_token(r, sent),
                  user_id ? user_id : "None");
        return -1;
    }

    if (json_get(r->json, "blocked")
        && (ref->team_id == NULL || key_team_admin(r, ref->team_id) != 1))
    {
        fail_repr(r, 403, "Only proxy admins and admins of the key's team can block or"
                  " unblock it");
        return -1;
    }

    if (ref->team_id) {
        return key_member_permits(r, ref->team_id, "/key/update");
    }

    if (strcmp(conf.compat, "1.81") != 0) {
        fail_repr(r, 403, "Only proxy admins can update this key. You may delete or"
                  " regenerate it.");
        return -1;
    }

    return 0;
}


/* Keys of the team `team`, all at once: its admins change whatever others own of them. */

static int
key_may_update_in(req_t *r, const key_ref_t *ref, const char *sent, const char *team)
{
    int  rc;

    if (team == NULL || ref->team_id == NULL || strcmp(team, ref->team_id)
        || json_get(r->json, "user_id") || key_is_own(r, ref))
    {
        return key_may_update(r, ref, sent);
    }

    rc = access_admin(r) ? 1 : key_team_admin(r, team);

    return rc ? (rc > 0 ? 0 : -1) : key_may_update(r, ref, sent);
}


/* The team that a key moves to has what the key has, or gets by the same request. */

static int
key_move_models(req_t *r, const key_ref_t *ref, const char *team)
{
    int          rc;
    bound_t      own, to;
    const jv_t  *want, *have;
    const char  *bad;

    if (grant_bound(r, &own, BOUND_KEY, ref->token, NULL) != 0
        || grant_bound(r, &to, BOUND_TEAM, team, NULL) != 0
        || grant_wanted(r, &own, &want) != 0)
    {
        return -1;
    }

    have = json_get(to.row, "models");

    if (want == NULL) {
        return 0;                        /* whatever its team may              */
    }

    rc = grant_may(r, have, want, json_get(to.row, "names"), &bad);

    if (rc == 0) {
        fail_proxy(r, 401, "team_model_access_denied", "model", "Team=%s is not allowed to"
                   " access model. This team can only access models=%s. Tried to access %s",
                   team, json_text(&r->a, have), bad);
    }

    return rc > 0 ? 0 : -1;
}


/* A key that moves: the new team must allow what the key has. */

static int
key_move(req_t *r, const key_ref_t *ref)
{
    int          rc;
    PGresult    *res;
    const jv_t  *v;
    const char  *team, *owner;

    v = json_get(r->json, "team_id");

    if (v == NULL || access_admin(r)) {
        return 0;
    }

    team = v->type == J_STR ? v->s : NULL;

    if (team == NULL || (ref->team_id && strcmp(team, ref->team_id) == 0)) {
        if (team == NULL && ref->team_id) {
            fail_repr(r, 403, "Only proxy admins can take a key out of its team");
            return -1;
        }

        return 0;
    }

    owner = ref->user_id;
    rc = owner ? key_member_of(r, team, owner) : 0;

    if (rc < 0 || key_member_permits(r, team, "/key/update") != 0) {
        return -1;
    }

    if (rc == 0) {
        fail_repr(r, 403, "User=%s is not a member of the team=%s",
                  owner ? owner : "None", team);
        return -1;
    }

    res = db_q("SELECT 1 FROM keys k, teams t WHERE k.token = $1 AND t.team_id = $2"
               " AND (k.tpm_limit > t.tpm_limit OR k.rpm_limit > t.rpm_limit)",
               ref->token, team);

    if (!db_ok(res)) {
        PQclear(res);
        fail_db(r);
        return -1;
    }

    rc = PQntuples(res);
    PQclear(res);

    if (rc) {
        fail_repr(r, 403, "The limits of this key are above those of team=%s", team);
    }

    return rc ? -1 : key_move_models(r, ref, team);
}


/* Who is no admin leaves a key in the organization that it is of. */

int
key_keeps_organization(req_t *r, const key_ref_t *ref)
{
    int          same;
    PGresult    *res;
    const jv_t  *v;

    v = json_get(r->json, "organization_id");

    if (v == NULL || access_admin(r)) {
        return 0;
    }

    /* a key of a team that names none itself is of the team's */

    res = tx_q(r, "SELECT CASE WHEN $2::text IS NULL THEN k.organization_id IS NULL ELSE"
               " coalesce(k.organization_id, t.organization_id) = $2 END FROM keys k LEFT"
               " JOIN teams t USING (team_id) WHERE token = $1", ref->token,
               v->type == J_STR ? v->s : NULL);

    if (res == NULL) {
        return -1;
    }

    same = *PQgetvalue(res, 0, 0) == 't';
    PQclear(res);

    if (!same) {
        fail_repr(r, 403, "Only proxy admins can move a key to another organization");

    } else if (json_get(r->json, "team_id") == NULL) {
        json_del(r->json, "organization_id");
    }

    return same ? 0 : -1;
}


/* The body takes the key to another team, and says nothing about its end. */

static int
key_joins(req_t *r, const key_ref_t *ref)
{
    const char  *team;

    team = json_str(r->json, "team_id");

    return team && (ref->team_id == NULL || strcmp(team, ref->team_id) != 0)
           && json_get(r->json, "duration") == NULL;
}


/* One key of r->json inside the open transaction. */

int
key_update_one(req_t *r, const char *in, key_ref_t *ref, const char **sent, jv_t **row)
{
    rowset_t     rs;
    const char  *team;

    memset(&rs, 0, sizeof(rs));

    if (key_temp_budget(r) != 0 || key_options(r) != 0
        || key_hold_body(r, ref, sent) != 0)
    {
        return -1;
    }

    if (ref->token == NULL) {
        return key_unknown(r);
    }

    team = json_str(r->json, "team_id");

    if (key_may_update_in(r, ref, *sent, in) != 0 || tx_match(r, ref->version) != 0
        || grant_nothing(r, key_update_body, ref->token) != 0
        || key_move(r, ref) != 0 || key_defaults(r, 0) != 0
        || key_keeps_organization(r, ref) != 0
        || grant_key(r, ref->token, ref->user_id, team ? team : ref->team_id, 0) != 0
        || key_team_duration(r, team ? team : ref->team_id, ref->token,
                             key_joins(r, ref)) != 0
        || fields_read(r, key_update_body, &rs, 0) != 0
        || fields_metadata(r, &rs, 0) != 0)
    {
        return -1;
    }

    return key_change(r, &rs, ref, "updated", row);
}


static jv_t *
key_update_reply(req_t *r, const char *sent, jv_t *row)
{
    jv_t  *out, *c, *next;

    out = json_obj(&r->a);
    json_set(out, "key", json_string(&r->a, sent));

    for (c = row->head; c; c = next) {
        next = c->next;
        json_set(out, c->key, c);
    }

    return out;
}


void
api_key_update(req_t *r)
{
    int          rc;
    jv_t        *row;
    int64_t      spend;
    key_ref_t    ref;
    const char  *sent;

    if (field_usd(r, "spend", &spend) < 0 || owner_check_limits(r) != 0
        || tx_begin(r) != 0 || key_update_one(r, NULL, &ref, &sent, &row) != 0)
    {
        return;
    }

    rc = field_usd(r, "spend", &spend);  /* one that says nothing is gone      */

    if (tx_commit(r) != 0
        || (rc > 0 && owner_adjust(r, arena_printf(&r->a, "key:%s", ref.token),
                                   spend) != 0))
    {
        return;
    }

    key_spend(r, ref.token, row);

    if (rc > 0) {
        json_set(row, "spend", json_usd(&r->a, spend));
    }

    reply_json(r, 200, key_update_reply(r, sent, row));
}
