
/*
 * Configuration, phases and the life of the worker.
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_ZONE_MIN     (256 * 1024)


static void *ngx_http_keytoll_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_keytoll_init_main_conf(ngx_conf_t *cf, void *conf);
static void *ngx_http_keytoll_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_keytoll_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_keytoll_enable(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_keytoll_enum(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_keytoll_redis_directive(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static ngx_int_t ngx_http_keytoll_password_file(ngx_conf_t *cf,
    ngx_str_t *name, ngx_str_t *out);
static char *ngx_http_keytoll_compat(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_keytoll_user_header(ngx_conf_t *cf, void *post,
    void *data);
static char *ngx_http_keytoll_max_body(ngx_conf_t *cf, void *post,
    void *data);
static char *ngx_http_keytoll_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_keytoll_journal(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_keytoll_init_zone(ngx_shm_zone_t *zone, void *data);
static ngx_int_t ngx_http_keytoll_init(ngx_conf_t *cf);
static ngx_int_t ngx_http_keytoll_init_process(ngx_cycle_t *cycle);
static void ngx_http_keytoll_exit_process(ngx_cycle_t *cycle);


static ngx_conf_enum_t  ngx_http_keytoll_failures[] = {
    { ngx_string("deny"), NGX_HTTP_KEYTOLL_FAIL_DENY },
    { ngx_string("allow"), NGX_HTTP_KEYTOLL_FAIL_ALLOW },
    { ngx_string("cached"), NGX_HTTP_KEYTOLL_FAIL_CACHED },
    { ngx_null_string, 0 }
};


static ngx_conf_enum_t  ngx_http_keytoll_aborts[] = {
    { ngx_string("drain"), NGX_HTTP_KEYTOLL_ABORT_DRAIN },
    { ngx_string("cancel"), NGX_HTTP_KEYTOLL_ABORT_CANCEL },
    { ngx_null_string, 0 }
};


static ngx_conf_post_t  ngx_http_keytoll_user_header_post = {
    ngx_http_keytoll_user_header
};


static ngx_conf_post_t  ngx_http_keytoll_max_body_post = {
    ngx_http_keytoll_max_body
};


static ngx_command_t  ngx_http_keytoll_commands[] = {

    { ngx_string("keytoll"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_http_keytoll_enable,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_keytoll_loc_conf_t, enable),
      NULL },

    { ngx_string("keytoll_redis"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_http_keytoll_redis_directive,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("keytoll_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_keytoll_zone,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("keytoll_journal"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_keytoll_journal,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("keytoll_redis_failure"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_keytoll_enum,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_keytoll_loc_conf_t, failure),
      &ngx_http_keytoll_failures },

    { ngx_string("keytoll_abort"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_keytoll_enum,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_keytoll_loc_conf_t, abort),
      &ngx_http_keytoll_aborts },

    { ngx_string("keytoll_compat"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE12,
      ngx_http_keytoll_compat,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("keytoll_user_header"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_keytoll_loc_conf_t, user_header),
      &ngx_http_keytoll_user_header_post },

    { ngx_string("keytoll_max_body"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_size_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_keytoll_loc_conf_t, max_body),
      &ngx_http_keytoll_max_body_post },

    { ngx_string("keytoll_websocket"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_keytoll_loc_conf_t, websocket),
      NULL },

    { ngx_string("keytoll_clamp_max_tokens"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_keytoll_loc_conf_t, clamp),
      NULL },

    { ngx_string("keytoll_lease"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_keytoll_loc_conf_t, lease),
      NULL },

    { ngx_string("keytoll_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_http_keytoll_status,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_keytoll_module_ctx = {
    ngx_http_keytoll_add_variables,        /* preconfiguration */
    ngx_http_keytoll_init,                 /* postconfiguration */

    ngx_http_keytoll_create_main_conf,     /* create main configuration */
    ngx_http_keytoll_init_main_conf,       /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_keytoll_create_loc_conf,      /* create location configuration */
    ngx_http_keytoll_merge_loc_conf        /* merge location configuration */
};


ngx_module_t  ngx_http_keytoll_module = {
    NGX_MODULE_V1,
    &ngx_http_keytoll_module_ctx,          /* module context */
    ngx_http_keytoll_commands,             /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_keytoll_init_process,         /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_keytoll_exit_process,         /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


ngx_http_keytoll_main_conf_t *
ngx_http_keytoll_conf(void)
{
    return ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                               ngx_http_keytoll_module);
}


static void *
ngx_http_keytoll_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_keytoll_main_conf_t  *kmcf;

    kmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_keytoll_main_conf_t));
    if (kmcf == NULL) {
        return NULL;
    }

    kmcf->redis_timeout = 20;

    return kmcf;
}


static char *
ngx_http_keytoll_init_main_conf(ngx_conf_t *cf, void *conf)
{
    return NGX_CONF_OK;
}


static void *
ngx_http_keytoll_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_keytoll_loc_conf_t  *klcf;

    klcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_keytoll_loc_conf_t));
    if (klcf == NULL) {
        return NULL;
    }

    klcf->enable = NGX_CONF_UNSET;
    klcf->failure = NGX_CONF_UNSET_UINT;
    klcf->abort = NGX_CONF_UNSET_UINT;
    klcf->max_body = NGX_CONF_UNSET_SIZE;
    klcf->websocket = NGX_CONF_UNSET;
    klcf->lease = NGX_CONF_UNSET;
    klcf->clamp = NGX_CONF_UNSET;
    klcf->compat = NGX_CONF_UNSET_UINT;
    klcf->budget_status = NGX_CONF_UNSET;
    klcf->status = NGX_CONF_UNSET_UINT;

    return klcf;
}


static char *
ngx_http_keytoll_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_keytoll_loc_conf_t *prev = parent;
    ngx_http_keytoll_loc_conf_t *conf = child;

    ngx_conf_merge_value(conf->enable, prev->enable, 0);
    ngx_conf_merge_uint_value(conf->failure, prev->failure,
                              NGX_HTTP_KEYTOLL_FAIL_DENY);
    ngx_conf_merge_uint_value(conf->abort, prev->abort,
                              NGX_HTTP_KEYTOLL_ABORT_DRAIN);
    ngx_conf_merge_size_value(conf->max_body, prev->max_body, 8 << 20);
    ngx_conf_merge_str_value(conf->user_header, prev->user_header, "");
    ngx_conf_merge_value(conf->websocket, prev->websocket, 0);
    ngx_conf_merge_value(conf->lease, prev->lease, 0);
    ngx_conf_merge_value(conf->clamp, prev->clamp, 0);

    if (conf->compat == NGX_CONF_UNSET_UINT) {
        conf->budget_status = prev->budget_status;
    }

    ngx_conf_merge_uint_value(conf->compat, prev->compat, KT_COMPAT_1_104);
    ngx_conf_init_value(conf->budget_status, 0);

    return NGX_CONF_OK;
}


static char *
ngx_http_keytoll_enable(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_keytoll_loc_conf_t *klcf = conf;

    char                          *rv;
    ngx_http_keytoll_main_conf_t  *kmcf;

    rv = ngx_conf_set_flag_slot(cf, cmd, conf);

    if (rv == NGX_CONF_OK && klcf->enable) {
        kmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_keytoll_module);
        kmcf->used = 1;
    }

    return rv;
}


/* ngx_conf_set_enum_slot() does not say whose value is wrong. */

static char *
ngx_http_keytoll_enum(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char  *p = conf;

    ngx_str_t        *value;
    ngx_uint_t       *np;
    ngx_conf_enum_t  *e;

    np = (ngx_uint_t *) (p + cmd->offset);

    if (*np != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;

    for (e = cmd->post; e->name.len; e++) {
        if (e->name.len == value[1].len
            && ngx_strcasecmp(e->name.data, value[1].data) == 0)
        {
            *np = e->value;
            return NGX_CONF_OK;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\" in \"%V\" directive",
                       &value[1], &cmd->name);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_keytoll_redis_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_keytoll_main_conf_t *kmcf = conf;

    ngx_int_t    ms;
    ngx_str_t   *value, s;
    ngx_url_t    u;
    ngx_uint_t   i;

    if (kmcf->redis) {
        return "is duplicate";
    }

    value = cf->args->elts;

    ngx_memzero(&u, sizeof(ngx_url_t));
    u.url = value[1];
    u.default_port = 6379;

    if (ngx_parse_url(cf->pool, &u) != NGX_OK || u.naddrs == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s in address \"%V\" of the \"%V\" directive",
                           u.err ? u.err : "no address", &value[1],
                           &cmd->name);
        return NGX_CONF_ERROR;
    }

    kmcf->redis = &u.addrs[0];
    ngx_str_set(&kmcf->redis_user, "default");

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "user=", 5) == 0
            && value[i].len > 5)
        {
            kmcf->redis_user.data = value[i].data + 5;
            kmcf->redis_user.len = value[i].len - 5;
            continue;
        }

        if (ngx_strncmp(value[i].data, "password_file=", 14) == 0) {
            s.data = value[i].data + 14;
            s.len = value[i].len - 14;

            if (ngx_http_keytoll_password_file(cf, &s, &kmcf->redis_password)
                != NGX_OK)
            {
                return NGX_CONF_ERROR;
            }

            continue;
        }

        if (ngx_strncmp(value[i].data, "timeout=", 8) == 0) {
            s.data = value[i].data + 8;
            s.len = value[i].len - 8;

            ms = ngx_parse_time(&s, 0);
            if (ms < 1 || ms > 60000) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "invalid timeout \"%V\" in the \"%V\" "
                                   "directive, it must be 1ms to 60s", &s,
                                   &cmd->name);
                return NGX_CONF_ERROR;
            }

            kmcf->redis_timeout = ms;
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" in the \"%V\" directive",
                           &value[i], &cmd->name);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* The first line of the file; the password itself is not in nginx.conf. */

static ngx_int_t
ngx_http_keytoll_password_file(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *out)
{
    u_char   *p, buf[1024];
    ssize_t   n;
    ngx_fd_t  fd;

    if (ngx_conf_full_name(cf->cycle, name, 1) != NGX_OK) {
        return NGX_ERROR;
    }

    fd = ngx_open_file(name->data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           "cannot open the password_file \"%V\" of "
                           "\"keytoll_redis\"", name);
        return NGX_ERROR;
    }

    n = ngx_read_fd(fd, buf, sizeof(buf));
    (void) ngx_close_file(fd);

    for (p = buf; p < buf + n && *p != CR && *p != LF; p++) { /* void */ }

    if (n <= 0 || p == buf) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the password_file \"%V\" of \"keytoll_redis\" "
                           "is empty", name);
        return NGX_ERROR;
    }

    out->len = p - buf;
    out->data = ngx_pnalloc(cf->pool, out->len);
    if (out->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(out->data, buf, out->len);
    ngx_explicit_memzero(buf, sizeof(buf));

    return NGX_OK;
}


/* keytoll_compat 1.104 | 1.96 | 1.81 [budget_exceeded=status] */

static char *
ngx_http_keytoll_compat(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_keytoll_loc_conf_t *klcf = conf;

    ngx_int_t   status;
    ngx_str_t  *value;

    if (klcf->compat != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "1.104") == 0) {
        klcf->compat = KT_COMPAT_1_104;

    } else if (ngx_strcmp(value[1].data, "1.96") == 0) {
        klcf->compat = KT_COMPAT_1_96;

    } else if (ngx_strcmp(value[1].data, "1.81") == 0) {
        klcf->compat = KT_COMPAT_1_81;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in the \"%V\" directive, it "
                           "must be \"1.104\", \"1.96\" or \"1.81\"",
                           &value[1], &cmd->name);
        return NGX_CONF_ERROR;
    }

    if (cf->args->nelts == 2) {
        return NGX_CONF_OK;
    }

    status = ngx_strncmp(value[2].data, "budget_exceeded=", 16) == 0
             ? ngx_atoi(value[2].data + 16, value[2].len - 16) : NGX_ERROR;

    if (status < 400 || status > 499) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" in the \"%V\" "
                           "directive, it must be budget_exceeded= and a "
                           "status from 400 to 499", &value[2], &cmd->name);
        return NGX_CONF_ERROR;
    }

    klcf->budget_status = status;

    return NGX_CONF_OK;
}


/* Empty: none, where an outer block has named one. */

static char *
ngx_http_keytoll_user_header(ngx_conf_t *cf, void *post, void *data)
{
    ngx_str_t *name = data;

    u_char  *p;

    for (p = name->data; p < name->data + name->len; p++) {
        if ((*p < 'a' || *p > 'z') && (*p < 'A' || *p > 'Z')
            && (*p < '0' || *p > '9') && *p != '-' && *p != '_')
        {
            return "needs the name of a header: letters, digits, \"-\" and "
                   "\"_\"";
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_keytoll_max_body(ngx_conf_t *cf, void *post, void *data)
{
    size_t *size = data;

    if (*size < 1024) {
        return "must be at least 1k, bodies are always bounded";
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_keytoll_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_keytoll_main_conf_t *kmcf = conf;

    u_char     *p;
    ssize_t     size;
    ngx_str_t  *value, name, s;

    if (kmcf->zone) {
        return "is duplicate";
    }

    value = cf->args->elts;

    p = (u_char *) ngx_strchr(value[1].data, ':');

    if (p == NULL || p == value[1].data) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid zone \"%V\" in the \"%V\" directive, "
                           "it must be name:size", &value[1], &cmd->name);
        return NGX_CONF_ERROR;
    }

    name.data = value[1].data;
    name.len = p - value[1].data;

    s.data = p + 1;
    s.len = value[1].data + value[1].len - s.data;

    size = ngx_parse_size(&s);

    if (size == NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid size of zone \"%V\" in the \"%V\" "
                           "directive", &value[1], &cmd->name);
        return NGX_CONF_ERROR;
    }

    if (size < NGX_HTTP_KEYTOLL_ZONE_MIN) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "zone \"%V\" of the \"%V\" directive is too small, "
                           "it needs at least %dk", &value[1], &cmd->name,
                           NGX_HTTP_KEYTOLL_ZONE_MIN / 1024);
        return NGX_CONF_ERROR;
    }

    kmcf->zone = ngx_shared_memory_add(cf, &name, size,
                                       &ngx_http_keytoll_module);
    if (kmcf->zone == NULL) {
        return NGX_CONF_ERROR;
    }

    kmcf->zone->init = ngx_http_keytoll_init_zone;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_keytoll_init_zone(ngx_shm_zone_t *zone, void *data)
{
    ngx_slab_pool_t         *pool;
    ngx_http_keytoll_shm_t  *shm;

    if (data) {
        zone->data = data;
        return NGX_OK;
    }

    pool = (ngx_slab_pool_t *) zone->shm.addr;

    if (zone->shm.exists) {
        zone->data = pool->data;
        return NGX_OK;
    }

    shm = ngx_slab_calloc(pool, sizeof(ngx_http_keytoll_shm_t));
    if (shm == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_keytoll_cache_init(pool, shm,
                                    pool->pfree * ngx_pagesize)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    pool->data = shm;
    zone->data = shm;

    return NGX_OK;
}


static char *
ngx_http_keytoll_journal(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_keytoll_main_conf_t *kmcf = conf;

    ngx_str_t   *value;
    ngx_path_t  *path;

    if (kmcf->journal || kmcf->journal_off) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        kmcf->journal_off = 1;
        return NGX_CONF_OK;
    }

    path = ngx_pcalloc(cf->pool, sizeof(ngx_path_t));
    if (path == NULL) {
        return NGX_CONF_ERROR;
    }

    path->name = value[1];

    if (path->name.len == 0) {
        return "has an empty path";
    }

    if (path->name.len > 1 && path->name.data[path->name.len - 1] == '/') {
        path->name.len--;
    }

    if (ngx_conf_full_name(cf->cycle, &path->name, 0) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    /* names of segments are made in buffers of NGX_MAX_PATH bytes */

    if (path->name.len > NGX_MAX_PATH - 512) {
        return "has a path that is too long";
    }

    path->conf_file = cf->conf_file->file.name.data;
    path->line = cf->conf_file->line;

    /* created with the owner of the workers when it is missing */

    if (ngx_add_path(cf, &path) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    kmcf->journal = path;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_keytoll_init(ngx_conf_t *cf)
{
    ngx_http_handler_pt           *h;
    ngx_http_core_main_conf_t     *cmcf;
    ngx_http_keytoll_main_conf_t  *kmcf;

    kmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_keytoll_module);
    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    if (kmcf->used) {

        if (kmcf->redis == NULL) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"keytoll on\" needs a \"keytoll_redis\" directive "
                          "in the http block");
            return NGX_ERROR;
        }

        if (kmcf->zone == NULL) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"keytoll on\" needs a \"keytoll_zone\" directive "
                          "in the http block");
            return NGX_ERROR;
        }

        if (kmcf->journal == NULL && !kmcf->journal_off) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"keytoll on\" needs a \"keytoll_journal\" "
                          "directive in the http block; \"off\" gives up "
                          "exact accounting over crashes");
            return NGX_ERROR;
        }
    }

    if (kmcf->shown && kmcf->zone == NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"keytoll_status\" needs a \"keytoll_zone\" directive "
                      "in the http block");
        return NGX_ERROR;
    }

    kmcf->node = cf->cycle->hostname;

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PRECONTENT_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_keytoll_handler;

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_LOG_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_keytoll_log_handler;

    ngx_http_keytoll_next_request_filter = ngx_http_top_request_body_filter;
    ngx_http_top_request_body_filter = ngx_http_keytoll_request_filter;

    return ngx_http_keytoll_filter_init(cf);
}


static ngx_int_t
ngx_http_keytoll_init_process(ngx_cycle_t *cycle)
{
    ngx_http_keytoll_gauge_t      *gauge;
    ngx_http_keytoll_main_conf_t  *kmcf;

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    kmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_keytoll_module);

    if (kmcf == NULL || !kmcf->used) {
        return NGX_OK;
    }

    gauge = ngx_http_keytoll_gauge();
    ngx_memzero(gauge, sizeof(ngx_http_keytoll_gauge_t));
    gauge->pid = ngx_pid;

    ngx_http_keytoll_admit_init();
    ngx_http_keytoll_lease_init(cycle);
    ngx_http_keytoll_watch_init(cycle);

    if (ngx_http_keytoll_journal_init(cycle) != NGX_OK
        || ngx_http_keytoll_redis_init(cycle) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_http_keytoll_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_keytoll_main_conf_t  *kmcf;

    kmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_keytoll_module);

    if (kmcf == NULL || !kmcf->used
        || (ngx_process != NGX_PROCESS_WORKER
            && ngx_process != NGX_PROCESS_SINGLE))
    {
        return;
    }

    ngx_http_keytoll_call_exit();
    (void) ngx_http_keytoll_journal_sync();
    ngx_http_keytoll_blocks_end(1);
    ngx_http_keytoll_watch_exit();
    ngx_http_keytoll_redis_exit();
    ngx_http_keytoll_gauge()->pid = 0;
}
