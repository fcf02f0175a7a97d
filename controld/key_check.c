/* What a key names: an alias of its own, an organization and a budget that are there. */

#include <ctype.h>
#include <string.h>
#include "db.h"
#include "key.h"
#include "settings.h"
#include "tx.h"


/* enable_key_alias_format_validation: 2 to 255 characters, letters and digits outside. */

static int
key_alias_well_formed(const char *s)
{
    size_t  n;

    n = strlen(s);

    return n >= 2 && n <= 255 && isalnum((unsigned char) s[0])
           && isalnum((unsigned char) s[n - 1])
           && strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                     "_-/.@") == n;
}


static int
key_alias_form(req_t *r, const char *alias)
{
    int          ok;
    PGresult    *res;
    const jv_t  *pattern;

    if (settings_bool(r, "enable_key_alias_format_validation", 0)
        && !key_alias_well_formed(alias))
    {
        fail_proxy(r, 400, "bad_request_error", "key_alias", "Invalid key_alias: 2 to 255"
                   " letters, digits and _ - / . @, the first and the last a letter or"
                   " digit");
        return -1;
    }

    pattern = settings_get(r, "key_alias_pattern");

    if (r->status || pattern == NULL || pattern->type != J_STR) {
        return r->status ? -1 : 0;
    }

    res = tx_q(r, "SELECT $1 ~ $2", alias, pattern->s);

    if (res == NULL) {
        return -1;
    }

    ok = *PQgetvalue(res, 0, 0) == 't';
    PQclear(res);

    if (!ok) {
        fail_proxy(r, 400, "bad_request_error", "key_alias", "key_alias does not match"
                   " key_alias_pattern %s", pattern->s);
    }

    return ok ? 0 : -1;
}


static int
key_check_alias(req_t *r, const char *token)
{
    int          taken;
    PGresult    *res;
    const char  *alias;

    alias = json_str(r->json, "key_alias");

    if (alias == NULL) {
        return 0;
    }

    if (key_alias_form(r, alias) != 0) {
        return -1;
    }

    res = tx_q(r, "SELECT 1 FROM keys WHERE key_alias = $1 AND token <> $2", alias,
               token);

    if (res == NULL) {
        return -1;
    }

    taken = PQntuples(res) > 0;
    PQclear(res);

    if (taken) {
        fail_proxy(r, 400, "bad_request_error", "key_alias", "Key with alias '%s'"
                   " already exists. Unique key aliases across all keys are"
                   " required.", alias);
        return -1;
    }

    return 0;
}


/* There is such an organization, and a key of a team is of none but the team's. */

static int
key_check_org(req_t *r, const char *token)
{
    int          known, other;
    PGresult    *res;
    const char  *org;

    org = json_str(r->json, "organization_id");

    if (org == NULL) {
        return 0;
    }

    res = tx_q(r, "SELECT EXISTS (SELECT 1 FROM organizations WHERE organization_id = $1"
               " AND deleted_at IS NULL), EXISTS (SELECT 1 FROM teams t WHERE t.team_id ="
               " CASE WHEN $3::boolean THEN $2 ELSE (SELECT k.team_id FROM keys k WHERE"
               " k.token = $4) END AND NOT t.implicit AND t.organization_id IS DISTINCT"
               " FROM $1)", org, json_str(r->json, "team_id"),
               json_get(r->json, "team_id") ? "true" : "false", token);

    if (res == NULL) {
        return -1;
    }

    known = *PQgetvalue(res, 0, 0) == 't';
    other = *PQgetvalue(res, 0, 1) == 't';
    PQclear(res);

    if (!known) {
        fail_repr(r, 400, "Organization not found for organization_id=%s", org);

    } else if (other) {
        fail_repr(r, 400, "A key of a team is of the organization of the team."
                  " organization_id=%s is another", org);
    }

    return known && !other ? 0 : -1;
}


static int
key_check_budget(req_t *r)
{
    int          known;
    PGresult    *res;
    const char  *id;

    id = json_str(r->json, "budget_id");

    if (id == NULL) {
        return 0;
    }

    res = tx_q(r, "SELECT 1 FROM budgets WHERE budget_id = $1", id);

    if (res == NULL) {
        return -1;
    }

    known = PQntuples(res) > 0;
    PQclear(res);

    if (!known) {
        fail_repr(r, 400, "Budget not found, passed budget_id=%s", id);
        return -1;
    }

    return 0;
}


int
key_check(req_t *r, const char *token)
{
    if (key_check_alias(r, token) != 0 || key_check_org(r, token) != 0) {
        return -1;
    }

    return key_check_budget(r);
}
