/* Columns and values of one row, and the statements that write them. */

#include <string.h>
#include "fields.h"


void
row_set(rowset_t *rs, const char *col, const char *cast, const char *val)
{
    int  i;

    if (col == NULL) {
        return;
    }

    for (i = 0; i < rs->n && strcmp(rs->col[i], col); i++) { /* void */ }

    if (i == ROWSET_MAX) {
        return;
    }

    rs->col[i] = col;
    rs->expr[i] = cast;
    rs->val[i] = val;
    rs->bare[i] = 0;
    rs->pre[i] = NULL;
    rs->n += i == rs->n;
}


void
row_expr(rowset_t *rs, const char *col, const char *sql)
{
    row_set(rs, col, sql, NULL);

    for (int i = 0; i < rs->n; i++) {
        if (strcmp(rs->col[i], col) == 0) {
            rs->bare[i] = 1;
        }
    }
}


static void
row_value(buf_t *b, rowset_t *rs, int i, int *param)
{
    if (rs->bare[i]) {
        buf_puts(b, rs->expr[i]);
        return;
    }

    buf_printf(b, "%s$%d::%s", rs->pre[i] ? rs->pre[i] : "", ++*param,
               rs->expr[i]);
}


/* Parameters of bare expressions are dropped, so that numbers match. */

static void
row_compact(rowset_t *rs, int n)
{
    int  i, k;

    for (i = 0, k = 0; i < n; i++) {
        if (!rs->bare[i]) {
            rs->val[k++] = rs->val[i];
        }
    }

    rs->n = k;
}


const char *
row_insert(arena_t *a, const char *table, rowset_t *rs, const char *tail)
{
    int    i, param;
    buf_t  b;

    buf_init(&b, a);
    buf_printf(&b, "INSERT INTO %s (", table);

    for (i = 0; i < rs->n; i++) {
        buf_printf(&b, i ? ", %s" : "%s", rs->col[i]);
    }

    buf_puts(&b, ") VALUES (");
    param = 0;

    for (i = 0; i < rs->n; i++) {
        if (i) {
            buf_puts(&b, ", ");
        }

        row_value(&b, rs, i, &param);
    }

    buf_printf(&b, ") %s", tail);
    row_compact(rs, rs->n);

    return b.p;
}


const char *
row_update(arena_t *a, const char *table, rowset_t *rs, int first,
    const char *tail)
{
    int    i, param;
    buf_t  b;

    buf_init(&b, a);
    buf_printf(&b, "UPDATE %s SET ", table);
    param = first;

    for (i = 0; i < rs->n; i++) {
        buf_printf(&b, i ? ", %s = " : "%s = ", rs->col[i]);
        row_value(&b, rs, i, &param);
    }

    buf_printf(&b, " %s", tail);
    row_compact(rs, rs->n);

    return b.p;
}
