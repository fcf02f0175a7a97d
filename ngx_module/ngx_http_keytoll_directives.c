
/*
 * Directives that are more than a flag: their values read, and named when they
 * are wrong.
 */


#include "ngx_http_keytoll_module.h"


#define NGX_HTTP_KEYTOLL_ZONE_MIN     (256 * 1024)


static ngx_int_t ngx_http_keytoll_password_file(ngx_conf_t *cf,
    ngx_str_t *name, ngx_str_t *out);
static ngx_int_t ngx_http_keytoll_init_zone(ngx_shm_zone_t *zone, void *data);


/* ngx_conf_set_enum_slot() does not say whose value is wrong. */

char *
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


char *
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

char *
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


/* keytoll_enforced_params off | name[.name] ... */

char *
ngx_http_keytoll_params(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_keytoll_loc_conf_t *klcf = conf;

    u_char         *dot, *last;
    ngx_str_t      *value;
    ngx_uint_t      i;
    kt_reqparam_t  *name;

    if (klcf->enforced_params != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;
    klcf->enforced_params = NULL;

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        return NGX_CONF_OK;
    }

    klcf->enforced_params = ngx_array_create(cf->pool, cf->args->nelts - 1,
                                             sizeof(kt_reqparam_t));
    if (klcf->enforced_params == NULL) {
        return NGX_CONF_ERROR;
    }

    for (i = 1; i < cf->args->nelts; i++) {
        last = value[i].data + value[i].len;
        dot = ngx_strlchr(value[i].data, last, '.');

        if (value[i].len == 0 || value[i].len > KT_REQPARAM_MAX
            || (dot && (dot == value[i].data || dot + 1 == last
                        || ngx_strlchr(dot + 1, last, '.'))))
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid name \"%V\" in the \"%V\" directive, "
                               "it must be \"name\" or \"name.name\"",
                               &value[i], &cmd->name);
            return NGX_CONF_ERROR;
        }

        name = ngx_array_push(klcf->enforced_params);
        if (name == NULL) {
            return NGX_CONF_ERROR;
        }

        name->name = (char *) value[i].data;
        name->len = value[i].len;
    }

    return NGX_CONF_OK;
}


/* Empty: none, where an outer block has named one. */

char *
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


char *
ngx_http_keytoll_max_body(ngx_conf_t *cf, void *post, void *data)
{
    size_t *size = data;

    if (*size < 1024) {
        return "must be at least 1k, bodies are always bounded";
    }

    return NGX_CONF_OK;
}


char *
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


char *
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
