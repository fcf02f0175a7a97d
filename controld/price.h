/* What a model costs, by the code and the prices that the gate charges with. */

#ifndef CTL_PRICE_H
#define CTL_PRICE_H

#include "kt_price.h"
#include "registry.h"


/* Prices of a model as the gate fills them in; p->none when it has none. */
void price_of(arena_t *a, const model_t *m, kt_price_t *p);

/* By public name, else by the name that the provider gives it; NULL: not there. */
const model_t *price_model(const model_t *list, const char *name);


#endif
