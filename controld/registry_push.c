#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "db.h"
#include "kt_money.h"
#include "kt_schema.h"
#include "log.h"
#include "policy.h"
#include "rds.h"
#include "registry.h"
#include "util.h"


#define REGISTRY_TRIES  50           /* pushes that may come between           */


static void
registry_field(jv_t *o, arena_t *a, const char *name, int64_t v)
{
    if (v >= 0) {
        json_set(o, name, json_int(a, v));
    }
}


/*
 * A missing price is not a price of nothing: what answers with text needs both, an
 * embedding that of its input.
 */

static int
registry_priced(const model_t *m, const char *mode)
{
    int            tokens;
    const int64_t  *x = m->extra;

    tokens = m->in_pusd >= 0
             && (m->out_pusd >= 0 || registry_extra_of(x, "ao") >= 0
                 || registry_extra_of(x, "io") >= 0);

    if (strcmp(mode, "embedding") == 0 || strcmp(mode, "moderation") == 0) {
        return m->in_pusd >= 0;
    }

    if (strcmp(mode, "chat") == 0 || strcmp(mode, "completion") == 0
        || strcmp(mode, "responses") == 0)
    {
        return m->in_pusd >= 0 && m->out_pusd >= 0;
    }

    if (strcmp(mode, "image_generation") == 0 || strcmp(mode, "image_edit") == 0) {
        return tokens || registry_extra_of(x, "img") >= 0;
    }

    if (strcmp(mode, "audio_transcription") == 0) {
        return tokens || registry_extra_of(x, "sec") >= 0;
    }

    if (strcmp(mode, "audio_speech") == 0) {
        return tokens || registry_extra_of(x, "chr") >= 0;
    }

    if (strcmp(mode, "rerank") == 0) {
        return m->in_pusd >= 0 || registry_extra_of(x, "qry") >= 0;
    }

    return m->in_pusd >= 0 || m->out_pusd >= 0;
}


/* Free is what says so of every price it has. */

static int
registry_free(const model_t *m)
{
    size_t  i;

    for (i = 0; i < REGISTRY_EXTRAS; i++) {
        if (m->extra[i] > 0) {
            return 0;
        }
    }

    return m->in_pusd == 0 && m->out_pusd == 0;
}


jv_t *
registry_json(arena_t *a, const model_t *m)
{
    jv_t        *o, *v, *next;
    const char  *mode;

    o = json_obj(a);
    mode = m->mode ? m->mode : "chat";
    json_set(o, "n", json_string(a, m->name));

    if (m->id && strcmp(m->id, m->name)) {
        json_set(o, "id", json_string(a, m->id));
    }

    if (m->upstream && strcmp(m->upstream, m->name)) {
        json_set(o, "u", json_string(a, m->upstream));
    }

    json_set(o, "p", json_string(a, m->provider ? m->provider : ""));
    json_set(o, "mode", json_string(a, mode));

    if (!registry_priced(m, mode)) {
        json_set(o, "noprice", json_int(a, 1));

    } else {
        registry_field(o, a, "in", m->in_pusd);
        registry_field(o, a, "out", m->out_pusd);
    }

    if (registry_free(m)) {
        json_set(o, "free", json_int(a, 1));
    }

    registry_field(o, a, "cr", m->cr_pusd);
    registry_field(o, a, "cw", m->cw_pusd);
    registry_field(o, a, "rs", m->rs_pusd);
    registry_field(o, a, "maxo", m->max_out);
    registry_field(o, a, "maxi", m->max_in);

    for (v = registry_extra_json(a, m->extra)->head; v; v = next) {
        next = v->next;
        json_set(o, v->key, v);
    }

    return o;
}


/* 1: done, 0: another push came between, -1: an error. */

static int
registry_exec(arena_t *a)
{
    int          rc;
    redisReply  *r;

    r = rds_do(a, "EXEC");

    if (rds_is_error(r)) {
        rc = -1;

    } else if (r->type == REDIS_REPLY_NIL) {
        rc = 0;

    } else {
        rc = r->elements == 1 && !rds_is_error(r->element[0]) ? 1 : -1;
    }

    if (r) {
        freeReplyObject(r);
    }

    return rc;
}


/*
 * kt_registry sets the generation, that is, it opens the gate.  Only a rebuild may
 * open a closed gate; for everybody else the call goes through only while the
 * generation that was seen stands (a FLUSHALL in between aborts the EXEC, and so
 * does another push, which is no reason to give up).
 */

static int
registry_call(arena_t *a, rds_cmd_t *c, int opening)
{
    int  i, rc;

    if (opening) {
        return rds_ok(rds_run(c)) ? 0 : -1;
    }

    for (i = 0; i < REGISTRY_TRIES; i++) {
        if (!rds_ok(rds_do(a, "WATCH", KT_REDIS_GEN))) {
            return -1;
        }

        if (rds_gen(a) != 1) {
            rds_ok(rds_do(a, "UNWATCH"));
            return -1;                /* the list of a rebuild may be older    */
        }

        if (!rds_ok(rds_do(a, "MULTI"))) {
            return -1;
        }

        if (!rds_ok(rds_run(c))) {
            rds_ok(rds_do(a, "DISCARD"));
            return -1;
        }

        rc = registry_exec(a);

        if (rc) {
            return rc > 0 ? 0 : -1;
        }
    }

    return -1;
}


static int
registry_send(arena_t *a, const char *gen, model_t *list, int opening)
{
    buf_t      b;
    model_t   *m;
    rds_cmd_t  c;

    buf_init(&b, a);
    buf_printf(&b, "{\"gen\":%s,\"models\":[", gen);

    for (m = list; m; m = m->next) {
        json_emit(&b, registry_json(a, m));

        if (m->next) {
            buf_putc(&b, ',');
        }
    }

    buf_puts(&b, "]}");
    rds_fcall(&c, a, "kt_registry");
    rds_arg(&c, gen);
    rds_argn(&c, b.p, b.len);

    return registry_call(a, &c, opening);
}


static const char *
registry_gen(arena_t *a)
{
    PGresult    *r;
    const char  *gen;

    r = db_q0("SELECT nextval('registry_gen_seq')");

    if (!db_ok(r)) {
        db_log("no registry generation", r);
        PQclear(r);
        return NULL;
    }

    gen = arena_str(a, PQgetvalue(r, 0, 0));
    PQclear(r);

    return gen;
}


/* Requests admitted from a block do not ask, so do not hear of the new list. */

static void
registry_wait(arena_t *a)
{
    redisReply  *r;

    r = rds_do(a, "PTTL", KT_REDIS_BLOCKS "*");

    if (r && r->type == REDIS_REPLY_INTEGER) {
        policy_wait(r->integer);
    }

    if (r) {
        freeReplyObject(r);
    }
}


/*
 * The generation is drawn before the list is read: whoever has a larger one read
 * everything that was committed when we drew ours.
 */

int
registry_push(int opening)
{
    int          rc, err;
    arena_t      a;
    model_t     *list;
    const char  *gen;

    arena_init(&a);
    rc = -1;
    gen = opening || rds_gen(&a) == 1 ? registry_gen(&a) : NULL;

    if (gen) {
        list = registry_load(&a, &err);
        rc = err ? -1 : registry_send(&a, gen, list, opening);

        if (rc == 0 && !opening) {
            registry_wait(&a);
        }
    }

    arena_free(&a);

    return rc;
}
