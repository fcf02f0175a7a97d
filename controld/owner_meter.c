/* The meters beside the main one: limits per model, windows. */

#include <string.h>
#include "kt_duration.h"
#include "kt_money.h"
#include "kt_schema.h"
#include "owner.h"
#include "tx.h"
#include "util.h"


static owner_meter_t *
meter_sub(req_t *r, owner_meters_t *s, const char *owner, const char *kind,
    const char *name)
{
    char     enc[KT_ENT_MAX];
    size_t   n, i;
    owner_meter_t   *item;
    const char  *ent;

    if (kt_id_encode(name, strlen(name), enc, sizeof(enc), &n) != KT_OK) {
        return NULL;
    }

    ent = arena_printf(&r->a, "%s~%s~%s", owner, *kind == 'w' ? "w" : "m", enc);

    for (i = 0; i < s->n; i++) {
        if (strcmp(s->item[i].ent, ent) == 0) {
            return &s->item[i];
        }
    }

    if (s->n == OWNER_METERS) {
        return NULL;
    }

    item = &s->item[s->n++];
    memset(item, 0, sizeof(*item));
    item->ent = ent;
    item->kind = kind;
    item->model = *kind == 'm' ? name : NULL;
    item->limit_nusd = item->rpm = item->tpm = -1;

    return item;
}


static int64_t
meter_number(const jv_t *v, int scale)
{
    int64_t  n;

    if (json_is_null(v) || (v->type != J_NUM && v->type != J_STR)
        || kt_money_parse(v->s, v->len, scale, &n) != KT_OK || n < 0)
    {
        return -1;
    }

    return n;
}


/* Two fields that limit the same: the lower one holds, or with `most` the upper one. */

static void
meter_limit(int64_t *to, int64_t n, int most)
{
    if (*to < 0 || (n >= 0 && (most ? n > *to : n < *to))) {
        *to = n;
    }
}


static void
meter_budgets(req_t *r, owner_meters_t *s, const char *ent, const jv_t *o)
{
    const jv_t     *c, *v;
    owner_meter_t  *item;

    for (c = o && o->type == J_OBJ ? o->head : NULL; c; c = c->next) {
        item = meter_sub(r, s, ent, "model", c->key);

        if (item == NULL) {
            continue;
        }

        if (c->type == J_NUM) {
            item->limit_nusd = meter_number(c, KT_MONEY_USD);
            continue;
        }

        v = json_get(c, "budget_limit");
        item->limit_nusd = meter_number(v ? v : json_get(c, "max_budget"),
                                        KT_MONEY_USD);
        item->duration = json_str(c, "time_period");

        if (item->duration == NULL) {
            item->duration = json_str(c, "budget_duration");
        }

        item->rpm = meter_number(json_get(c, "rpm_limit"), 0);
        item->tpm = meter_number(json_get(c, "tpm_limit"), 0);
    }
}


static void
meter_rates(req_t *r, owner_meters_t *s, const char *ent, const jv_t *o, int tpm, int most)
{
    const jv_t     *c;
    owner_meter_t  *item;

    for (c = o && o->type == J_OBJ ? o->head : NULL; c; c = c->next) {
        item = meter_sub(r, s, ent, "model", c->key);

        if (item) {
            meter_limit(tpm ? &item->tpm : &item->rpm, meter_number(c, 0), most);
        }
    }
}


static void
meter_windows(req_t *r, owner_meters_t *s, const char *ent, const jv_t *list, int most)
{
    const jv_t     *c;
    const char     *duration;
    owner_meter_t  *item;

    for (c = list && list->type == J_ARR ? list->head : NULL; c; c = c->next) {
        duration = json_str(c, "budget_duration");
        item = duration ? meter_sub(r, s, ent, "window", duration) : NULL;

        if (item) {
            item->duration = duration;
            meter_limit(&item->limit_nusd, meter_number(json_get(c, "max_budget"),
                                                        KT_MONEY_USD), most);
        }
    }
}


/* A field of a row, or of its metadata. */

static const jv_t *
meter_field(const jv_t *row, const char *name)
{
    const jv_t  *v;

    v = json_get(row, name);

    return json_is_null(v) ? json_get(json_get(row, "metadata"), name) : v;
}


/* model_max_budget of a row, or of the budget that it follows. */

static const jv_t *
meter_models(const jv_t *row)
{
    const jv_t  *v;

    v = json_get(row, "model_max_budget");

    return json_is_null(v) || v->n == 0
           ? json_get(json_get(row, "litellm_budget_table"), "model_max_budget") : v;
}


owner_meters_t *
owner_meters(req_t *r, const char *ent, const jv_t *row, int most)
{
    owner_meters_t  *s;

    s = arena_alloc(&r->a, sizeof(owner_meters_t));
    s->n = 0;
    meter_budgets(r, s, ent, meter_models(row));
    meter_rates(r, s, ent, meter_field(row, "model_rpm_limit"), 0, most);
    meter_rates(r, s, ent, meter_field(row, "model_tpm_limit"), 1, most);
    meter_windows(r, s, ent, json_get(row, "budget_limits"), most);

    return s;
}


static int
meter_write(req_t *r, const char *owner, const owner_meter_t *s)
{
    rowset_t  rs;

    memset(&rs, 0, sizeof(rs));
    row_set(&rs, "ent", "text", s->ent);
    row_set(&rs, "owner", "text", owner);
    row_set(&rs, "kind", "text", s->kind);
    row_set(&rs, "model", "text", s->model);
    row_set(&rs, "gt", "boolean", *s->kind == 'm' ? "true" : "false");
    owner_limit(r, &rs, "limit_nusd", s->limit_nusd);
    owner_limit(r, &rs, "rpm_limit", s->rpm);
    owner_limit(r, &rs, "tpm_limit", s->tpm);

    if (field_period(r, &rs, "budget_duration", s->duration, 1) != 0) {
        return -1;
    }

    return owner_made(r, tx_dynamic(r, row_insert(&r->a, "submeters", &rs,
        "ON CONFLICT (ent) DO UPDATE SET limit_nusd = EXCLUDED.limit_nusd,"
        " rpm_limit = EXCLUDED.rpm_limit, tpm_limit = EXCLUDED.tpm_limit,"
        " budget_duration = EXCLUDED.budget_duration,"
        " period_id = kt_period_id(submeters.period_kind, submeters.period_len_s,"
        " submeters.period_id, submeters.period_end_s, kt_now_s()),"
        " period_kind = EXCLUDED.period_kind, period_len_s = EXCLUDED.period_len_s,"
        " period_end_s = EXCLUDED.period_end_s RETURNING ent"), rs.n, rs.val));
}


static int
meter_drop(req_t *r, const char *owner, const owner_meters_t *s)
{
    int           i, rc;
    size_t        k;
    PGresult     *res;
    const char  **ents;

    ents = arena_alloc(&r->a, (s->n + 1) * sizeof(char *));

    for (k = 0; k < s->n; k++) {
        ents[k] = s->item[k].ent;
    }

    res = tx_q(r, "DELETE FROM submeters WHERE owner = $1"
               " AND ent <> ALL ($2::text[]) RETURNING ent", owner,
               db_array(&r->a, ents, s->n));

    if (res == NULL) {
        return -1;
    }

    rc = 0;

    for (i = 0; i < PQntuples(res) && rc == 0; i++) {
        rc = tx_gone(r, PQgetvalue(res, i, 0));
    }

    PQclear(res);

    return rc;
}


int
owner_has_submeters(const jv_t *row)
{
    const jv_t  *windows, *budgets;

    budgets = meter_models(row);
    windows = json_get(row, "budget_limits");

    return (budgets && budgets->n) || (windows && windows->n)
           || !json_is_null(meter_field(row, "model_rpm_limit"))
           || !json_is_null(meter_field(row, "model_tpm_limit"));
}


int
owner_submeters(req_t *r, const char *ent, const jv_t *row)
{
    size_t           i;
    owner_meters_t  *s;

    s = owner_meters(r, ent, row, 0);

    if (meter_drop(r, ent, s) != 0) {
        return -1;
    }

    for (i = 0; i < s->n; i++) {
        if (meter_write(r, ent, &s->item[i]) != 0) {
            return -1;
        }
    }

    return 0;
}


static int
meter_duration_ok(const char *s)
{
    kt_period_t    p;
    kt_duration_t  d;

    return kt_duration_parse(s, strlen(s), &d) == KT_OK
           && kt_period_start(&d, 0, &p) == KT_OK;
}


static int
meter_check_budgets(req_t *r)
{
    size_t       n;
    const jv_t  *o, *c, *v;
    const char  *s;

    o = json_get(r->json, "model_max_budget");

    for (n = 0, c = o && o->type == J_OBJ ? o->head : NULL; c; c = c->next, n++) {
        v = json_get(c, "budget_limit");
        v = v ? v : json_get(c, "max_budget");
        s = json_str(c, "time_period");
        s = s ? s : json_str(c, "budget_duration");

        if (!util_id_ok(c->key) || (c->type != J_OBJ && c->type != J_NUM)
            || (c->type == J_NUM && meter_number(c, KT_MONEY_USD) < 0)
            || (!json_is_null(v) && meter_number(v, KT_MONEY_USD) < 0)
            || (s && !meter_duration_ok(s)) || n >= OWNER_METERS / 4)
        {
            fail_repr(r, 400, "Invalid model_max_budget: %.200s",
                      json_text(&r->a, o));
            return -1;
        }
    }

    return 0;
}


/* One map from model to rate: what has no room among the sub-meters is refused. */

static int
meter_check_rates(req_t *r, const char *name, const jv_t *o)
{
    const jv_t  *c;

    if (!json_is_null(o) && o->type != J_OBJ) {
        fail_field(r, name, "dict_type", "Input should be a valid dictionary", o);
        return -1;
    }

    for (c = o ? o->head : NULL; c; c = c->next) {
        if (c->type != J_NUM || meter_number(c, 0) < 0 || !util_id_ok(c->key)
            || o->n > OWNER_METERS / 4)
        {
            fail_repr(r, 400, "Invalid %s: %.200s", name, json_text(&r->a, o));
            return -1;
        }
    }

    return 0;
}


/* Windows that are told apart by their duration, so there is one of each. */

static int
meter_check_windows(req_t *r)
{
    const jv_t  *o, *c, *d;
    const char  *s;

    o = json_get(r->json, "budget_limits");

    for (c = o && o->type == J_ARR ? o->head : NULL; c; c = c->next) {
        s = json_str(c, "budget_duration");

        if (s == NULL || !meter_duration_ok(s) || o->n > 16
            || meter_number(json_get(c, "max_budget"), KT_MONEY_USD) < 0)
        {
            fail_repr(r, 400, "Invalid budget_limits: %.200s",
                      json_text(&r->a, o));
            return -1;
        }

        for (d = o->head; d != c; d = d->next) {
            if (strcmp(json_str(d, "budget_duration"), s) == 0) {
                fail_repr(r, 400, "budget_limits has the budget_duration %.64s twice:"
                          " pass one max_budget for each", s);
                return -1;
            }
        }
    }

    return 0;
}


int
owner_check_limits(req_t *r)
{
    const jv_t  *meta;

    meta = json_get(r->json, "metadata");
    meta = meta && meta->type == J_OBJ ? meta : NULL;

    if (meter_check_rates(r, "model_rpm_limit", json_get(r->json, "model_rpm_limit"))
        || meter_check_rates(r, "model_tpm_limit", json_get(r->json, "model_tpm_limit"))
        || meter_check_rates(r, "model_rpm_limit", json_get(meta, "model_rpm_limit"))
        || meter_check_rates(r, "model_tpm_limit", json_get(meta, "model_tpm_limit")))
    {
        return -1;
    }

    return meter_check_windows(r) != 0 ? -1 : meter_check_budgets(r);
}
