/* A price row of the model registry, from whichever parser has read it. */

#ifndef KT_PRICE_ROW_H
#define KT_PRICE_ROW_H


#include "kt_price.h"


/*
 * How a parser shows one object.  integer: a member that is a whole number, or
 * missing; tier: the i-th object of "tiers", NULL behind the last.
 */
typedef struct {
    int64_t    (*integer)(const void *object, const char *name,
                          int64_t missing);
    const void *(*tier)(const void *object, unsigned i);
} kt_price_reader_t;


/*
 * Sets all of *p from a row; what it lacks is filled in as kt_price.h wants it.
 * Of tiers, those that do not ascend and those behind KT_PRICE_TIERS are left
 * out.
 */
void kt_price_row(kt_price_t *p, const kt_price_reader_t *reader,
    const void *row);


#endif
