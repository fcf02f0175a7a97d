#include <stdlib.h>
#include <string.h>
#include "json.h"
#include "kt_money.h"
#include "kt_schema.h"
#include "ledger.h"


#define EVENT_TEXT_MAX  4096


/* A counter: integer, as a number or as a decimal string; absent is `def`. */

static int64_t
event_int(const jv_t *o, const char *name, int64_t def, int *bad)
{
    int64_t      v;
    const jv_t  *n;

    n = json_get(o, name);

    if (json_is_null(n)) {
        return def;
    }

    if ((n->type != J_NUM && n->type != J_STR)
        || kt_int_parse(n->s, n->len, &v) != KT_OK || v < 0)
    {
        *bad = 1;
        return def;
    }

    return v;
}


static const char *
event_str(arena_t *a, const jv_t *o, const char *name)
{
    const char  *s;

    s = json_str(o, name);

    if (s == NULL) {
        return "";
    }

    return strlen(s) <= EVENT_TEXT_MAX ? s : arena_dup(a, s, EVENT_TEXT_MAX);
}


static int
event_code(arena_t *a, event_t *e, const char *p, size_t len)
{
    char         *s, *sp;
    int64_t       v;

    s = arena_dup(a, p, len);

    if (strcmp(s, "ok") == 0)   { e->code = EV_OK; return 0; }
    if (strcmp(s, "late") == 0) { e->code = EV_LATE; return 0; }

    if (strncmp(s, "adj ", 4) == 0) {
        e->code = EV_ADJ;
        sp = strrchr(s, ' ');
        return kt_int_parse(sp + 1, strlen(sp + 1), &e->cost_nusd) == KT_OK
               ? 0 : -1;
    }

    sp = strchr(s, ' ');

    if (sp == NULL || kt_int_parse(sp + 1, strlen(sp + 1), &v) != KT_OK || v < 0) {
        return -1;
    }

    if (strncmp(s, "lost ", 5) == 0) {
        e->code = EV_LOST;
        e->cost_nusd = v;
        e->estimated = 1;
        return 0;
    }

    if (strncmp(s, "fix ", 4) == 0) {
        e->code = EV_FIX;
        return 0;
    }

    return -1;
}


/* "team/user" or a plain id behind the kind of an entity name. */

static const char *
event_id(arena_t *a, const char *p, size_t len)
{
    char    *out;
    size_t   n;

    out = arena_alloc(a, len + 1);

    return kt_id_decode(p, len, out, len + 1, &n) == KT_OK ? out : NULL;
}


static int
event_identity(arena_t *a, event_t *e, const char *ent)
{
    size_t        n;
    const char   *p, *id, **slot;

    p = strchr(ent, ':');

    if (p == NULL || strchr(ent, '~')) {
        return 0;                                    /* global, or a submeter  */
    }

    n = (size_t) (p++ - ent);
    slot = NULL;

    if (n == 3 && !memcmp(ent, "key", 3))      { slot = &e->token; }
    if (n == 4 && !memcmp(ent, "user", 4))     { slot = &e->user; }
    if (n == 4 && !memcmp(ent, "team", 4))     { slot = &e->team; }
    if (n == 3 && !memcmp(ent, "org", 3))      { slot = &e->org; }
    if (n == 3 && !memcmp(ent, "tag", 3))      { slot = &e->tags; }
    if (n == 8 && !memcmp(ent, "customer", 8)) { slot = &e->customer; }
    if (n == 6 && !memcmp(ent, "member", 6) && strchr(p, '/')) {
        slot = &e->user;
        p = strchr(p, '/') + 1;
    }

    if (slot == NULL) {
        return 0;
    }

    id = event_id(a, p, strlen(p));

    if (id == NULL) {
        return -1;
    }

    if (slot == &e->tags && **slot) {
        id = arena_printf(a, "%s\x1f%s", *slot, id);
    }

    *slot = id;

    return 0;
}


/* <ent> TAB <period> TAB <held> TAB <tokens> TAB <bits> */

static int
event_line(arena_t *a, event_t *e, char *line)
{
    int        i;
    char      *f[5], *p;
    charge_t  *c;

    f[0] = line;

    for (i = 1; i < 5; i++) {
        p = strchr(f[i - 1], '\t');

        if (p == NULL) {
            return -1;
        }

        *p = '\0';
        f[i] = p + 1;
    }

    if (e->ncharges == LEDGER_LINES_MAX || !*f[0] || strlen(f[0]) > KT_ENT_MAX) {
        return -1;
    }

    c = &e->charges[e->ncharges++];
    c->ent = f[0];
    c->bits = atoi(f[4]);

    if (kt_int_parse(f[1], strlen(f[1]), &c->period_id) != KT_OK
        || c->period_id < 0)
    {
        return -1;
    }

    return event_identity(a, e, f[0]);
}


static int
event_receipt(arena_t *a, event_t *e, const char *p, size_t len)
{
    int    first;
    char  *line, *next;

    e->charges = arena_alloc(a, LEDGER_LINES_MAX * sizeof(charge_t));
    line = arena_dup(a, p, len);

    if (memchr(p, 0, len)) {
        return -1;
    }

    for (first = 1; line && *line; line = next, first = 0) {
        next = strchr(line, '\n');

        if (next) {
            *next++ = '\0';
        }

        if (first) {
            if (strncmp(line, "1\t", 2) != 0) {
                return -1;
            }

        } else if (event_line(a, e, line) != 0) {
            return -1;
        }
    }

    return 0;
}


static int
event_fields(arena_t *a, event_t *e, const jv_t *o)
{
    int          bad;
    int64_t      cost;
    const jv_t  *t;

    bad = 0;
    e->t0_ms = event_int(o, "t0", e->rid_ms, &bad);
    e->t1_ms = event_int(o, "t1", e->t0_ms, &bad);
    e->ttft_ms = event_int(o, "ttft", -1, &bad);
    e->model = event_str(a, o, "m");
    e->upstream = event_str(a, o, "um");
    e->provider = event_str(a, o, "p");
    e->route = event_str(a, o, "rt");
    e->answer_id = event_str(a, o, "uid");
    e->ending = event_str(a, o, "end");
    e->ip = event_str(a, o, "ip");
    e->node = event_str(a, o, "node");
    e->why = event_str(a, o, "why");
    e->in_tok = event_int(o, "in", 0, &bad);
    e->out_tok = event_int(o, "out", 0, &bad);
    e->cr_tok = event_int(o, "cr", 0, &bad);
    e->cw_tok = event_int(o, "cw", 0, &bad);
    e->rs_tok = event_int(o, "rs", 0, &bad);
    e->cost_ucr = event_int(o, "ucr", 0, &bad);
    e->status = event_int(o, "st", 0, &bad);
    e->stream = event_int(o, "stm", 0, &bad) != 0;
    e->estimated |= event_int(o, "est", 0, &bad) != 0;
    cost = event_int(o, "cost", 0, &bad);

    if (e->code != EV_LOST && e->code != EV_ADJ) {
        e->cost_nusd = cost;
    }

    if (e->customer == NULL && json_str(o, "cust") && *json_str(o, "cust")) {
        e->customer = event_str(a, o, "cust");
    }

    t = json_get(o, "tags");

    for (t = t && t->type == J_ARR && !*e->tags ? t->head : NULL; t; t = t->next) {
        if (t->type == J_STR) {
            e->tags = *e->tags ? arena_printf(a, "%s\x1f%s", e->tags, t->s) : t->s;
        }
    }

    return bad || e->status > 999 || e->t0_ms > 253402300799000
           || e->t1_ms > 253402300799000 ? -1 : 0;
}


event_t *
event_parse(arena_t *a, const char *const raw[3], const size_t len[3],
    const char **why)
{
    jv_t     *o;
    event_t  *e;

    e = arena_alloc(a, sizeof(event_t));
    e->tags = "";
    o = json_parse(a, raw[0], len[0], why);

    if (o == NULL) {
        return NULL;
    }

    e->rid = json_str(o, "id");
    e->rid_ms = e->rid ? kt_rid_ms(e->rid, strlen(e->rid)) : -1;

    if (e->rid_ms < 0 || e->rid_ms > 253402300799000) {
        *why = "no valid id";
        return NULL;
    }

    if (event_code(a, e, raw[2], len[2]) != 0) {
        *why = "unknown code";
        return NULL;
    }

    if (event_receipt(a, e, raw[1], len[1]) != 0) {
        *why = "malformed receipt";
        return NULL;
    }

    if (event_fields(a, e, o) != 0) {
        *why = "a number is out of range";
        return NULL;
    }

    return e;
}
