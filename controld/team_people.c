/* What a team is made with for its members: who they are, and the limits of all of them. */

#include <string.h>
#include "access.h"
#include "kt_duration.h"
#include "owner.h"
#include "settings.h"
#include "team.h"
#include "tx.h"
#include "user.h"
#include "util.h"


/* team_member_key_duration, wherever it stands. */

static int
team_key_duration(req_t *r)
{
    size_t          i;
    const jv_t     *o, *v;
    kt_duration_t   d;

    for (i = 0; i < 2; i++) {
        o = i ? json_get(r->json, "metadata") : r->json;
        v = o && o->type == J_OBJ ? json_get(o, "team_member_key_duration") : NULL;

        if (!json_is_null(v) && (v->type != J_STR || (v->len && kt_duration_parse(v->s,
                                                      v->len, &d) != KT_OK)))
        {
            fail_repr(r, 400, "team_member_key_duration must be a duration, such as 30d");
            return -1;
        }
    }

    return 0;
}


int
team_member_limits(req_t *r, member_limit_t *m)
{
    int  a, b, c;

    memset(m, 0, sizeof(*m));
    m->max_nusd = m->rpm = m->tpm = -1;
    a = field_usd(r, "team_member_budget", &m->max_nusd);
    b = a < 0 ? -1 : field_int(r, "team_member_rpm_limit", &m->rpm);
    c = b < 0 ? -1 : field_int(r, "team_member_tpm_limit", &m->tpm);
    m->duration = json_str(r->json, "team_member_budget_duration");
    m->present = a > 0 || b > 0 || c > 0 || m->duration;

    return c < 0 ? -1 : team_key_duration(r);
}


int
team_member_budget(req_t *r, rowset_t *rs, const member_limit_t *m,
    const char *team_id, const char *current)
{
    const char  *id;
    const char  *alias;

    if (!m->present) {
        return 0;
    }

    alias = json_str(r->json, "team_alias");
    id = current ? current : arena_printf(&r->a, "team-%.100s-budget-%.8s",
                                          alias && util_id_ok(alias) ? alias
                                          : team_id, util_uuid(&r->a));
    id = owner_budget(r, id, m->max_nusd, -1, m->rpm, m->tpm, m->duration);

    if (id == NULL) {
        return -1;
    }

    row_set(rs, "member_budget_id", "text", id);

    if (rs->meta == NULL) {
        rs->meta = json_obj(&r->a);
    }

    json_set(rs->meta, "team_member_budget_id", json_string(&r->a, id));

    return 0;
}


int
team_members(req_t *r, const char *team_id)
{
    const jv_t  *list, *c;
    const char  *role, *id, *email;

    list = json_get(r->json, "members_with_roles");

    if (!json_is_null(list) && list->type != J_ARR) {
        fail_field(r, "members_with_roles", "list_type",
                   "Input should be a valid list", list);
        return -1;
    }

    for (c = list ? list->head : NULL; c; c = c->next) {
        role = json_str(c, "role");
        id = json_str(c, "user_id");
        email = json_str(c, "user_email");

        if (role == NULL || (strcmp(role, "admin") && strcmp(role, "user"))
            || (id == NULL && email == NULL) || (id && !util_id_ok(id))
            || (email && !util_id_ok(email)))
        {
            fail_field(r, "members_with_roles", "value_error", "Value error, every"
                       " member needs a role (admin or user) and a user_id or"
                       " user_email", c);
            return -1;
        }

        if (user_ensure(r, &id, email) != 0 || user_joined(r, id, team_id) != 0
            || owner_member(r, team_id, id, role, email, 0) != 0)
        {
            return -1;
        }
    }

    return 0;
}


int
team_creator(req_t *r, const char *team_id)
{
    const jv_t  *v;

    if (tx_actor(r) == NULL) {
        return 0;
    }

    v = settings_get(r, "disable_auto_add_proxy_admin_to_teams");

    if (r->status || (v && v->type == J_TRUE && access_admin(r))) {
        return r->status ? -1 : 0;
    }

    if (owner_user(r, tx_actor(r)) != 0) {
        return -1;
    }

    return user_joined(r, tx_actor(r), team_id) != 0
           ? -1 : owner_member(r, team_id, tx_actor(r), "admin", NULL, 0);
}
