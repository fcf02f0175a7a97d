
/*
 * The directives, their contexts and defaults, phases, the life of the worker.
 */


#include "ngx_http_keytoll_module.h"


static void *ngx_http_keytoll_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_keytoll_init_main_conf(ngx_conf_t *cf, void *conf);
static void *ngx_http_keytoll_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_keytoll_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_keytoll_enable(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
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

    { ngx_string("keytoll_client_credentials"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_keytoll_loc_conf_t, client_credentials),
      NULL },

    { ngx_string("keytoll_enforce_user"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_keytoll_loc_conf_t, enforce_user),
      NULL },

    { ngx_string("keytoll_reject_tags"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_keytoll_loc_conf_t, reject_tags),
      NULL },

    { ngx_string("keytoll_free_models"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_keytoll_loc_conf_t, free_models),
      NULL },

    { ngx_string("keytoll_enforced_params"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_keytoll_params,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
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
    klcf->client_credentials = NGX_CONF_UNSET;
    klcf->enforce_user = NGX_CONF_UNSET;
    klcf->reject_tags = NGX_CONF_UNSET;
    klcf->free_models = NGX_CONF_UNSET;
    klcf->enforced_params = NGX_CONF_UNSET_PTR;
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
    ngx_conf_merge_value(conf->client_credentials, prev->client_credentials,
                         0);
    ngx_conf_merge_value(conf->enforce_user, prev->enforce_user, 0);
    ngx_conf_merge_value(conf->reject_tags, prev->reject_tags, 0);
    ngx_conf_merge_value(conf->free_models, prev->free_models, 1);
    ngx_conf_merge_ptr_value(conf->enforced_params, prev->enforced_params,
                             NULL);

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
