
/*
 * What is counted, in shared memory: by atomic adds of all workers, or in the
 * worker's own gauge, which nobody else writes.
 */


#include "ngx_http_keytoll_module.h"


/* About three to a decade; 20 ms is the usual deadline. */

ngx_uint_t  ngx_http_keytoll_bounds_us[NGX_HTTP_KEYTOLL_BUCKETS - 1] = {
    50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 1000000
};


static ngx_http_keytoll_shm_t *
ngx_http_keytoll_shm(void)
{
    ngx_http_keytoll_main_conf_t  *kmcf;

    kmcf = ngx_http_keytoll_conf();

    return kmcf->zone ? kmcf->zone->data : NULL;
}


void
ngx_http_keytoll_count(ngx_http_keytoll_counter_e i, ngx_atomic_int_t n)
{
    ngx_http_keytoll_shm_t  *shm;

    shm = ngx_http_keytoll_shm();

    if (shm && n) {
        (void) ngx_atomic_fetch_add(&shm->n[i], n);
    }
}


void
ngx_http_keytoll_count_refused(ngx_uint_t reason)
{
    ngx_http_keytoll_shm_t  *shm;

    shm = ngx_http_keytoll_shm();

    if (shm && reason < KT_REASON_MAX) {
        (void) ngx_atomic_fetch_add(&shm->refused[reason], 1);
    }
}


void
ngx_http_keytoll_count_route(kt_route_class_t class)
{
    ngx_http_keytoll_shm_t  *shm;

    shm = ngx_http_keytoll_shm();

    if (shm && class < KT_ROUTES) {
        (void) ngx_atomic_fetch_add(&shm->route[class], 1);
    }
}


/* Each in its own bucket; status.c adds them up. */

void
ngx_http_keytoll_observe(uint64_t us)
{
    ngx_uint_t               i;
    ngx_http_keytoll_shm_t  *shm;

    shm = ngx_http_keytoll_shm();

    if (shm == NULL) {
        return;
    }

    for (i = 0; i < NGX_HTTP_KEYTOLL_BUCKETS - 1; i++) {
        if (us <= ngx_http_keytoll_bounds_us[i]) {
            break;
        }
    }

    (void) ngx_atomic_fetch_add(&shm->redis.n[i], 1);
    (void) ngx_atomic_fetch_add(&shm->redis.sum_us, (ngx_atomic_int_t) us);
}


ngx_http_keytoll_gauge_t *
ngx_http_keytoll_gauge(void)
{
    return &ngx_http_keytoll_shm()->worker[ngx_process_slot];
}


/* Wall clock; the windows and leases run on Redis' clock, not on this. */

uint64_t
ngx_http_keytoll_now_ms(void)
{
    ngx_time_t  *tp;

    tp = ngx_timeofday();

    return (uint64_t) tp->sec * 1000 + tp->msec;
}


/* From some past on, never back; not the clock of the turn. */

uint64_t
ngx_http_keytoll_now_us(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}
