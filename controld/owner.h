/*
 * Objects that others stand on: users, teams and members that a key names, and
 * the meters beside the main one (windows, limits per model).
 */

#ifndef CTL_OWNER_H
#define CTL_OWNER_H

#include "db.h"
#include "http.h"
#include "fields.h"


/*
 * Make the row if it is missing (an implicit one, not shown by info routes), so
 * that the gate never misses an entity.  0, or -1 after answering.
 */
int owner_user(req_t *r, const char *user_id);
int owner_team(req_t *r, const char *team_id);
int owner_member(req_t *r, const char *team_id, const char *user_id,
    const char *role, const char *email, int implicit);

#define OWNER_METERS  256

/* A meter beside the main one; limits are -1 for none. */
typedef struct {
    const char  *ent;
    const char  *kind;           /* model, window                              */
    const char  *model;
    const char  *duration;
    int64_t      limit_nusd;
    int64_t      rpm;
    int64_t      tpm;
} owner_meter_t;

typedef struct {
    size_t         n;
    owner_meter_t  item[OWNER_METERS];
} owner_meters_t;

/*
 * The meters that a row makes, in the arena, or the budget it follows where the row has no
 * model_max_budget of its own.  Where two of its fields limit the same,
 * the lower one holds; most: the upper one is told.
 */
owner_meters_t *owner_meters(req_t *r, const char *ent, const jv_t *row, int most);

/*
 * Brings the submeters of an entity in line with its model_max_budget,
 * metadata.model_rpm_limit / model_tpm_limit and budget_limits; `row` is the
 * object's wire JSON.  0, or -1 after answering.
 */
int owner_submeters(req_t *r, const char *ent, const jv_t *row);

/* Would a new object of this row have any? */
int owner_has_submeters(const jv_t *row);

/* Checks the shapes of those fields in the body.  0, or -1 after answering. */
int owner_check_limits(req_t *r);

/* Records a `spend` sent at creation.  0, or -1 after answering. */
int owner_seed(req_t *r, const char *table, const char *ent, int64_t nusd);

/*
 * Sets what the entity used to `nusd` through an adjustment in Redis, which the
 * ledger records.  Call it after the commit.  0, or -1 after answering.
 */
int owner_adjust(req_t *r, const char *ent, int64_t nusd);

/* Touches the entity that the statement returned, if one, and clears res.  NULL: -1. */
int owner_made(req_t *r, PGresult *res);

/* A limit as a column; -1 is null. */
void owner_limit(req_t *r, rowset_t *rs, const char *col, int64_t v);

/* Creates a budgets row; the limits that are -1 are null.  NULL after answering. */
const char *owner_budget(req_t *r, const char *id, int64_t max_nusd,
    int64_t soft_nusd, int64_t rpm, int64_t tpm, const char *duration);

/* Rows as wire objects with their spend: [{...}], from (ent, json) columns. */
jv_t *owner_rows(req_t *r, void *pgresult, int ent_col, int json_col);


#endif
