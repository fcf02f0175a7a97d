#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "api.h"
#include "db.h"
#include "kt_schema.h"
#include "metrics.h"
#include "rds.h"


void
api_alive(req_t *r)
{
    reply_text(r, 200, "application/json", "\"I'm alive!\"");
}


void
api_ready(req_t *r)
{
    int          db, redis, gen, ready;
    jv_t        *o;
    PGresult    *res;
    redisReply  *reply;
    const char  *why;

    res = db_q0("SELECT 1");
    db = db_ok(res);
    PQclear(res);

    reply = rds_do(&r->a, "GET", KT_REDIS_GEN);
    redis = reply && reply->type != REDIS_REPLY_ERROR;
    gen = redis && reply->type == REDIS_REPLY_STRING;

    if (reply) {
        freeReplyObject(reply);
    }

    why = rds_evicts(&r->a);
    ready = db && gen && why == NULL;

    o = json_obj(&r->a);
    json_set(o, "status", json_string(&r->a, ready ? "healthy" : "unhealthy"));
    json_set(o, "db", json_string(&r->a, db ? "connected" : "Not connected"));
    json_set(o, "cache", json_string(&r->a, redis ? "redis" : "Not connected"));
    json_set(o, "ready", json_bool(&r->a, ready));

    if (why) {
        json_set(o, "error", json_string(&r->a, why));
    }

    json_set(o, "litellm_version", json_string(&r->a, "1.104.0"));
    json_set(o, "success_callbacks", json_arr(&r->a));
    json_set(o, "use_aiohttp_transport", json_bool(&r->a, 0));
    reply_json(r, ready ? 200 : 503, o);
}


static void
health_gauge(buf_t *b, const char *name, const char *help, int64_t v)
{
    buf_printf(b, "# HELP %s %s\n# TYPE %s gauge\n%s %" PRId64 "\n", name, help,
               name, name, v);
}


void
api_metrics(req_t *r)
{
    PGresult    *res;
    redisReply  *reply;
    buf_t        b;

    buf_init(&b, &r->a);
    metrics_render(&b);

    res = db_q0("SELECT count(*), coalesce(extract(epoch FROM now() -"
                " min(created_at)), 0)::bigint FROM outbox");

    if (db_ok(res)) {
        health_gauge(&b, "keytoll_outbox_rows", "Changes not yet in Redis",
                     db_int(res, 0, 0));
        health_gauge(&b, "keytoll_outbox_age_seconds", "Age of the oldest of them",
                     db_int(res, 0, 1));
    }

    health_gauge(&b, "keytoll_postgres_up", "PostgreSQL answers", db_ok(res));
    PQclear(res);

    reply = rds_do(&r->a, "XLEN", KT_REDIS_STREAM);
    health_gauge(&b, "keytoll_redis_up", "Redis answers", !rds_is_error(reply));

    if (!rds_is_error(reply)) {
        health_gauge(&b, "keytoll_stream_entries", "Ledger entries not yet stored",
                     reply->integer);
    }

    if (reply) {
        freeReplyObject(reply);
    }

    reply_text(r, 200, "text/plain; version=0.0.4", b.p);
}
