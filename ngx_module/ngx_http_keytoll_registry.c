
/*
 * The model registry: names, prices and caps, read from Redis as one JSON text
 * whenever its generation moves.  A request copies what it needs, so the old
 * table is dropped as soon as the new one stands.
 *
 *   LOST -> ASKED -> READY       READY -> ASKED when an admit was STALE
 *
 * While LOST or ASKED after LOST nothing is admitted.  A generation that is
 * absent, or older than one seen before (a stale replica), keeps it LOST; it
 * is asked again every 100 ms.
 */


#include "ngx_http_keytoll_module.h"

#include <yajl/yajl_tree.h>


typedef struct {
    ngx_pool_t             *pool;
    ngx_rbtree_t            models;
    ngx_rbtree_node_t       sentinel;
    ngx_str_t               gen;
    u_char                  gen_data[NGX_INT64_LEN + 1];
    int64_t                 newest;
    ngx_event_t             again;
    size_t                  epoch_len;
    u_char                  epoch[64];      /* of the latest rebuild         */
    unsigned                ready:1;
    unsigned                asked:1;
    unsigned                recover:1;
} ngx_http_keytoll_registry_t;


static void ngx_http_keytoll_registry_reply(void *data, redisReply *reply,
    ngx_uint_t last);
static void ngx_http_keytoll_registry_again(ngx_event_t *ev);
static ngx_int_t ngx_http_keytoll_registry_load(char *json);
static int64_t ngx_http_keytoll_registry_int(const void *v, const char *name,
    int64_t missing);
static const void *ngx_http_keytoll_registry_tier(const void *v, unsigned i);
static ngx_int_t ngx_http_keytoll_registry_add(ngx_pool_t *pool,
    ngx_rbtree_t *tree, yajl_val v);


static ngx_http_keytoll_registry_t  ngx_http_keytoll_registry;
static ngx_connection_t             ngx_http_keytoll_registry_dumb;


static const kt_price_reader_t  ngx_http_keytoll_registry_reader = {
    ngx_http_keytoll_registry_int,
    ngx_http_keytoll_registry_tier
};


ngx_uint_t
ngx_http_keytoll_registry_ready(void)
{
    return ngx_http_keytoll_registry.ready
           && ngx_http_keytoll_redis_ready();
}


ngx_str_t *
ngx_http_keytoll_registry_gen(void)
{
    return &ngx_http_keytoll_registry.gen;
}


ngx_http_keytoll_model_t *
ngx_http_keytoll_registry_find(ngx_str_t *name)
{
    if (ngx_http_keytoll_registry.pool == NULL) {
        return NULL;
    }

    return (ngx_http_keytoll_model_t *)
               ngx_str_rbtree_lookup(&ngx_http_keytoll_registry.models, name,
                                     ngx_crc32_short(name->data, name->len));
}


/*
 * A rebuild writes a new epoch before it opens the gate.  Redis had been
 * emptied then, whether this worker noticed or slept: put back what it knows.
 */

void
ngx_http_keytoll_registry_epoch(redisReply *epoch)
{
    size_t                        len;
    ngx_uint_t                    known;
    ngx_http_keytoll_registry_t  *reg;

    reg = &ngx_http_keytoll_registry;

    if (epoch->type != REDIS_REPLY_STRING) {
        return;
    }

    len = ngx_min((size_t) epoch->len, sizeof(reg->epoch));

    if (len == reg->epoch_len
        && ngx_memcmp(epoch->str, reg->epoch, len) == 0)
    {
        return;
    }

    known = reg->epoch_len != 0;

    ngx_memcpy(reg->epoch, epoch->str, len);
    reg->epoch_len = len;

    if (known) {
        reg->recover = 0;
        ngx_http_keytoll_journal_replay();
        ngx_http_keytoll_renew(1);
    }
}


/* The connection is gone, or Redis said that it is not ready. */

void
ngx_http_keytoll_registry_lost(void)
{
    ngx_http_keytoll_registry.ready = 0;
    ngx_http_keytoll_registry.asked = 0;

    ngx_http_keytoll_blocks_end(0);
}


/* Redis knows a newer generation; requests wait for it, none is refused. */

void
ngx_http_keytoll_registry_stale(redisReply *gen)
{
    ngx_str_t  *have;

    have = &ngx_http_keytoll_registry.gen;

    if (gen->type == REDIS_REPLY_STRING && gen->len == have->len
        && ngx_memcmp(gen->str, have->data, have->len) == 0)
    {
        /* read in the meantime */

        ngx_http_keytoll_redis_post();
        return;
    }

    ngx_http_keytoll_registry_refresh();
}


void
ngx_http_keytoll_registry_refresh(void)
{
    ngx_str_t                     argv[4];
    ngx_http_keytoll_registry_t  *reg;

    reg = &ngx_http_keytoll_registry;

    if (reg->asked) {
        return;
    }

    ngx_str_set(&argv[0], "MGET");
    ngx_str_set(&argv[1], KT_REDIS_GEN);
    ngx_str_set(&argv[2], KT_REDIS_REG);
    ngx_str_set(&argv[3], KT_REDIS_EPOCH);

    if (ngx_http_keytoll_redis_send(ngx_http_keytoll_registry_reply, NULL,
                                    argv, 4)
        == NGX_OK)
    {
        reg->asked = 1;
    }
}


static void
ngx_http_keytoll_registry_reply(void *data, redisReply *reply,
    ngx_uint_t last)
{
    int64_t                       gen;
    redisReply                   *g, *j;
    ngx_http_keytoll_registry_t  *reg;

    ngx_http_keytoll_redis_started();

    if (!last) {
        ngx_http_keytoll_redis_post();
        return;
    }

    reg = &ngx_http_keytoll_registry;
    reg->asked = 0;

    if (reply == NULL || reply->type != REDIS_REPLY_ARRAY
        || reply->elements != 3)
    {
        goto again;
    }

    g = reply->element[0];
    j = reply->element[1];

    if (g->type != REDIS_REPLY_STRING || j->type != REDIS_REPLY_STRING) {
        reg->recover = 1;
        goto again;
    }

    gen = ngx_atoof((u_char *) g->str, g->len);

    if (gen < 0 || gen < reg->newest || g->len > NGX_INT64_LEN) {
        goto again;
    }

    if (ngx_http_keytoll_registry_load(j->str) != NGX_OK) {
        ngx_log_error(NGX_LOG_CRIT, ngx_cycle->log, 0,
                      "keytoll: the model registry of generation %O "
                      "is malformed, requests are refused", (off_t) gen);
        goto again;
    }

    ngx_memcpy(reg->gen_data, g->str, g->len);
    reg->gen.data = reg->gen_data;
    reg->gen.len = g->len;
    reg->newest = gen;
    reg->ready = 1;

    ngx_http_keytoll_registry_epoch(reply->element[2]);

    if (reg->recover) {
        reg->recover = 0;
        ngx_http_keytoll_journal_replay();
        ngx_http_keytoll_renew(1);
    }

    ngx_http_keytoll_settle_retry();
    ngx_http_keytoll_redis_post();

    return;

again:

    reg->ready = 0;

    ngx_http_keytoll_redis_post();

    if (reg->again.handler == NULL) {
        ngx_http_keytoll_registry_dumb.fd = (ngx_socket_t) -1;
        reg->again.handler = ngx_http_keytoll_registry_again;
        reg->again.data = &ngx_http_keytoll_registry_dumb;
        reg->again.log = ngx_cycle->log;
        reg->again.cancelable = 1;
    }

    if (!reg->again.timer_set) {
        ngx_add_timer(&reg->again, 100);
    }
}


static void
ngx_http_keytoll_registry_again(ngx_event_t *ev)
{
    if (!ngx_http_keytoll_registry.ready) {
        ngx_http_keytoll_registry_refresh();
    }
}


static ngx_int_t
ngx_http_keytoll_registry_load(char *json)
{
    size_t                        i;
    yajl_val                      root, list;
    ngx_pool_t                   *pool;
    ngx_http_keytoll_registry_t  *reg;

    static const char  *path[] = { "models", NULL };

    reg = &ngx_http_keytoll_registry;

    root = yajl_tree_parse(json, NULL, 0);
    if (root == NULL) {
        return NGX_ERROR;
    }

    list = yajl_tree_get(root, path, yajl_t_array);
    if (list == NULL) {
        yajl_tree_free(root);
        return NGX_ERROR;
    }

    pool = ngx_create_pool(16384, ngx_cycle->log);

    if (pool == NULL) {
        yajl_tree_free(root);
        return NGX_ERROR;
    }

    if (reg->pool) {
        ngx_destroy_pool(reg->pool);
    }

    reg->pool = pool;
    ngx_rbtree_init(&reg->models, &reg->sentinel, ngx_str_rbtree_insert_value);

    for (i = 0; i < YAJL_GET_ARRAY(list)->len; i++) {
        if (ngx_http_keytoll_registry_add(pool, &reg->models,
                                          YAJL_GET_ARRAY(list)->values[i])
            != NGX_OK)
        {
            yajl_tree_free(root);
            return NGX_ERROR;
        }
    }

    yajl_tree_free(root);

    return NGX_OK;
}


static int64_t
ngx_http_keytoll_registry_int(const void *v, const char *name, int64_t missing)
{
    yajl_val     n;
    const char  *path[2];

    path[0] = name;
    path[1] = NULL;

    n = yajl_tree_get((yajl_val) v, path, yajl_t_number);

    return n && YAJL_IS_INTEGER(n) ? YAJL_GET_INTEGER(n) : missing;
}


static const void *
ngx_http_keytoll_registry_tier(const void *v, unsigned i)
{
    yajl_val  list;

    static const char  *path[] = { "tiers", NULL };

    list = yajl_tree_get((yajl_val) v, path, yajl_t_array);

    return list && i < YAJL_GET_ARRAY(list)->len
           ? YAJL_GET_ARRAY(list)->values[i] : NULL;
}


static ngx_int_t
ngx_http_keytoll_registry_text(ngx_pool_t *pool, yajl_val v, const char *name,
    ngx_str_t *out)
{
    char        *text;
    yajl_val     s;
    const char  *path[2];

    path[0] = name;
    path[1] = NULL;

    ngx_str_null(out);

    s = yajl_tree_get(v, path, yajl_t_string);
    if (s == NULL) {
        return NGX_OK;
    }

    text = s->u.string;
    out->len = ngx_strlen(text);
    out->data = ngx_pnalloc(pool, out->len + 1);
    if (out->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(out->data, text, out->len);

    return NGX_OK;
}


static ngx_int_t
ngx_http_keytoll_registry_add(ngx_pool_t *pool, ngx_rbtree_t *tree,
    yajl_val v)
{
    ngx_http_keytoll_model_t  *m;

    m = ngx_pcalloc(pool, sizeof(ngx_http_keytoll_model_t));

    if (m == NULL
        || ngx_http_keytoll_registry_text(pool, v, "n", &m->sn.str) != NGX_OK
        || ngx_http_keytoll_registry_text(pool, v, "u", &m->upstream)
           != NGX_OK
        || ngx_http_keytoll_registry_text(pool, v, "p", &m->provider)
           != NGX_OK
        || ngx_http_keytoll_registry_text(pool, v, "id", &m->id) != NGX_OK
        || m->sn.str.len == 0)
    {
        return NGX_ERROR;
    }

    if (m->id.len == 0) {
        m->id = m->sn.str;
    }

    kt_price_row(&m->price, &ngx_http_keytoll_registry_reader, v);

    m->max_out_tok = ngx_http_keytoll_registry_int(v, "maxo", -1);
    m->max_in_tok = ngx_http_keytoll_registry_int(v, "maxi", -1);

    m->sn.node.key = ngx_crc32_short(m->sn.str.data, m->sn.str.len);
    ngx_rbtree_insert(tree, &m->sn.node);

    return NGX_OK;
}
