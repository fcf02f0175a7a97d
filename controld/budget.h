/*
 * Rows of budgets: limits that several objects may share, or that one object
 * keeps there because it has no columns of its own for them.
 */

#ifndef CTL_BUDGET_H
#define CTL_BUDGET_H

#include "http.h"
#include "fields.h"


/* Checks the limits of the body; 0, or -1 after answering. */
int budget_check(req_t *r);

/*
 * Creates a row with the limits of the body; id NULL draws one.  The id, or NULL
 * after answering.
 */
const char *budget_create(req_t *r, const char *id);

/* The same, linked to the new row `rs`, unless that has a budget.  0, or -1 after answering. */
int budget_need(req_t *r, rowset_t *rs);

/* Writes the limits that the body has; 0, or -1 after answering. */
int budget_change(req_t *r, const char *id);

/*
 * Sets budget_id of an object's row `rs` from the body: the budget that
 * `budget_id` names, or one of the object's own for limits in the body.  ent and
 * current are the object and the budget it has, NULL for a new one.  0, or -1
 * after answering.
 */
int budget_link(req_t *r, rowset_t *rs, const char *ent, const char *current);

/*
 * Model limits of all that follow the budget.  Call it when the rows are written.
 * 0, or -1 after answering.
 */
int budget_models(req_t *r, const char *id);

/*
 * Model limits of the default of end users when its budget is another, or has some and it
 * has none.  0, or -1 after answering.
 */
int budget_default(req_t *r, int other);


#endif
