#include <stdlib.h>
#include <string.h>
#include "json.h"
#include "kt_money.h"
#include "kt_schema.h"
#include "ledger.h"


#define EVENT_TIME_MAX   253402300799000       /* the year 9999, ms            */
#define EVENT_COUNT_MAX  1000000000000000


/*
 * A counter: integer, as a number or as a decimal string; `def` when it is absent
 * or not from 0 to `max`.
 */

static int64_t
event_int(const jv_t *o, const char *name, int64_t def, int64_t max)
{
    int64_t      v;
    const jv_t  *n;

    n = json_get(o, name);

    if (json_is_null(n)) {
        return def;
    }

    if ((n->type != J_NUM && n->type != J_STR)
        || kt_int_parse(n->s, n->len, &v) != KT_OK || v < 0 || v > max)
    {
        return def;
    }

    return v;
}


static int64_t
event_count(const jv_t *o, const char *name)
{
    return event_int(o, name, 0, EVENT_COUNT_MAX);
}


static const char *
event_str(arena_t *a, const jv_t *o, const char *name)
{
    const char  *s;

    s = json_str(o, name);

    return s ? clean_text(a, s, LEDGER_TEXT_MAX) : "";
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

    return kt_id_decode(p, len, out, len + 1, &n) == KT_OK
           ? clean_text(a, out, LEDGER_TEXT_MAX) : NULL;
}


/* Who it was; a name that can not be decoded is counted, but not shown. */

static void
event_identity(arena_t *a, event_t *e, const char *ent)
{
    size_t        n;
    const char   *p, *id, **slot;

    p = strchr(ent, ':');

    if (p == NULL || strchr(ent, '~')) {
        return;                                     /* global, or a submeter  */
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
        return;
    }

    id = event_id(a, p, strlen(p));

    if (id == NULL) {
        return;
    }

    if (slot == &e->tags && **slot) {
        id = arena_printf(a, "%s\x1f%s", *slot, id);
    }

    *slot = id;
}


/* <ent> TAB <period> TAB <bits> */

static int
event_line(arena_t *a, event_t *e, char *line, size_t max)
{
    int        i;
    char      *f[3], *p;
    charge_t  *c;

    f[0] = line;

    for (i = 1; i < 3; i++) {
        p = strchr(f[i - 1], '\t');

        if (p == NULL) {
            return -1;
        }

        *p = '\0';
        f[i] = p + 1;
    }

    if (e->ncharges == max || !*f[0] || strlen(f[0]) > KT_ENT_MAX
        || clean_text(a, f[0], KT_ENT_MAX) != f[0])
    {
        return -1;
    }

    c = &e->charges[e->ncharges++];
    c->ent = f[0];
    c->bits = atoi(f[2]);

    if (kt_int_parse(f[1], strlen(f[1]), &c->period_id) != KT_OK
        || c->period_id < 0)
    {
        return -1;
    }

    event_identity(a, e, f[0]);

    return 0;
}


static int
event_receipt(arena_t *a, event_t *e, const char *p, size_t len)
{
    int      first;
    char    *line, *next, *end;
    size_t   i, max;

    for (i = 0, max = 1; i < len; i++) {
        max += p[i] == '\n';
    }

    if (len == 0 || memchr(p, 0, len) || max > LEDGER_LINES_MAX) {
        return -1;
    }

    e->charges = arena_alloc(a, max * sizeof(charge_t));
    line = arena_dup(a, p, len);

    for (first = 1; line && *line; line = next, first = 0) {
        next = strchr(line, '\n');

        if (next) {
            *next++ = '\0';
        }

        if (first) {
            if (strncmp(line, "2\t", 2) != 0) {
                return -1;
            }

            e->admit_ms = strtoll(line + 2, &end, 10);

            if (*end != '\t' || e->admit_ms < 0 || e->admit_ms > EVENT_TIME_MAX) {
                return -1;
            }

        } else if (event_line(a, e, line, max) != 0) {
            return -1;
        }
    }

    return 0;
}


static void
event_tags(arena_t *a, event_t *e, const jv_t *o)
{
    size_t       n;
    buf_t        b;
    const jv_t  *t;

    t = json_get(o, "tags");

    if (t == NULL || t->type != J_ARR || *e->tags) {
        return;
    }

    buf_init(&b, a);

    for (n = 0, t = t->head; t && n < LEDGER_TAGS_MAX; t = t->next) {
        if (t->type == J_STR) {
            buf_puts(&b, n++ ? "\x1f" : "");
            buf_puts(&b, clean_text(a, t->s, LEDGER_TEXT_MAX));
        }
    }

    e->tags = n ? b.p : "";
}


static void
event_fields(arena_t *a, event_t *e, const jv_t *o)
{
    e->t0_ms = event_int(o, "t0", e->rid_ms, EVENT_TIME_MAX);
    e->t1_ms = event_int(o, "t1", e->t0_ms, EVENT_TIME_MAX);
    e->ttft_ms = event_int(o, "ttft", -1, EVENT_TIME_MAX - e->t0_ms);
    e->model = event_str(a, o, "m");
    e->upstream = event_str(a, o, "um");
    e->provider = event_str(a, o, "p");
    e->route = event_str(a, o, "rt");
    e->answer_id = event_str(a, o, "uid");
    e->ending = e->code == EV_LOST ? "lost" : event_str(a, o, "end");
    e->ip = event_str(a, o, "ip");
    e->node = event_str(a, o, "node");
    e->why = event_str(a, o, "why");
    e->in_tok = event_count(o, "in");
    e->out_tok = event_count(o, "out");
    e->cr_tok = event_count(o, "cr");
    e->cw_tok = event_count(o, "cw");
    e->rs_tok = event_count(o, "rs");
    e->status = event_int(o, "st", 0, 999);
    e->stream = event_count(o, "stm") != 0;
    e->estimated |= event_count(o, "est") != 0;

    if (e->customer == NULL && json_str(o, "cust") && *json_str(o, "cust")) {
        e->customer = event_str(a, o, "cust");
    }

    event_tags(a, e, o);
}


/* What was charged; an amount that is there must be one. */

static int
event_cost(event_t *e, const jv_t *o)
{
    int64_t  cost;

    e->cost_ucr = json_is_null(json_get(o, "ucr")) ? 0
                  : event_int(o, "ucr", -1, INT64_MAX);

    if (e->cost_ucr < 0) {
        return -1;
    }

    if (e->code == EV_LOST || e->code == EV_ADJ) {
        return 0;
    }

    cost = event_int(o, "cost", -1, INT64_MAX);

    if (cost < 0) {
        return -1;
    }

    e->cost_nusd = cost;

    return 0;
}


void
event_bare(event_t *e)
{
    e->model = e->upstream = e->provider = e->route = "";
    e->answer_id = e->ip = e->node = e->why = e->tags = "";
    e->ending = e->code == EV_LOST ? "lost" : "";
    e->token = e->user = e->team = e->org = e->customer = NULL;
    e->in_tok = e->out_tok = e->cr_tok = e->cw_tok = e->rs_tok = 0;
    e->t0_ms = e->t1_ms = e->rid_ms;
    e->ttft_ms = -1;
}


/* A text in it that no string may be costs that text, not the event. */

static jv_t *
event_json(arena_t *a, const char *p, size_t len, const char **why)
{
    jv_t  *o;

    o = json_parse(a, p, len, why);

    if (o == NULL && len) {
        o = json_parse_big(a, clean_json(a, p, len), len, why);
    }

    if (o && o->type != J_OBJ) {
        *why = "not an object";
        return NULL;
    }

    return o;
}


event_t *
event_parse(arena_t *a, const char *const raw[3], const size_t len[3],
    const char **why)
{
    jv_t     *o;
    event_t  *e;

    e = arena_alloc(a, sizeof(event_t));
    e->tags = "";
    o = event_json(a, raw[0], len[0], why);

    if (o == NULL) {
        return NULL;
    }

    e->rid = json_str(o, "id");
    e->rid_ms = e->rid ? kt_rid_ms(e->rid, strlen(e->rid)) : -1;

    if (e->rid_ms < 0 || e->rid_ms > EVENT_TIME_MAX) {
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

    if (event_cost(e, o) != 0) {
        *why = "no valid cost";
        return NULL;
    }

    event_fields(a, e, o);

    return e;
}
