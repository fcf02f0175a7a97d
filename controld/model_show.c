/* What is shown of a model's settings: no secret, and to most callers little else. */

#include <string.h>
#include "access.h"
#include "model.h"
#include "seal.h"
#include "util.h"


/* Whoever does not read everything sees of litellm_params and model_info only these. */

static const char *const  show_params[] = {
    "model", "custom_llm_provider", "mode", "rpm", "tpm", "max_parallel_requests", "weight",
    "order", "temperature", "top_p", "top_k", "n", "seed", "stop", "stream", "timeout",
    "stream_timeout", "max_retries", "max_tokens", "max_completion_tokens",
    "presence_penalty", "frequency_penalty", "reasoning_effort", "drop_params", "tags",
    "max_budget", "budget_duration", "use_in_pass_through", NULL
};

static const char *const  show_info[] = {
    "id", "db_model", "team_id", "team_public_model_name", "description", "display_name",
    "discoverable", "created_at", "created_by", "updated_at", "updated_by", "base_model",
    "mode", "tier", "max_tokens", "max_input_tokens", "max_output_tokens", "rpm", "tpm",
    "output_vector_size", "access_groups", "litellm_provider", "deprecation_date", NULL
};


/*
 * The text without user and password of addresses in it.  An address ends its authority
 * at the first '/', '?' or '#', so an '@' after that stays.
 */

const char *
model_url_shown(arena_t *a, const char *s)
{
    buf_t        b;
    size_t       n, host;
    const char  *p;

    buf_init(&b, a);

    while ((p = strstr(s, "://")) != NULL) {
        p += 3;
        n = strcspn(p, "/?# \t\r\n\"'<>,;");

        for (host = n; host && p[host - 1] != '@'; host--) { /* void */ }

        buf_add(&b, s, (size_t) (p - s));
        buf_add(&b, p + host, n - host);
        s = p + n;
    }

    buf_puts(&b, s);

    return b.p;
}


static int
show_sealed(const jv_t *v)
{
    return v->type == J_STR && strncmp(v->s, "kt1:", 4) == 0;
}


static jv_t *
show_text(req_t *r, const jv_t *v, const char *path)
{
    const char  *s;

    s = v->s;

    if (show_sealed(v)) {
        s = seal_open(&r->a, s, path);   /* an address with a password in it   */
    }

    return s ? json_string(&r->a, model_url_shown(&r->a, s)) : NULL;
}


/*
 * Without secrets, however deep they stand, but with the sealed text of those that are
 * sealed where that is asked for.  NULL when nothing can be shown.
 */

static jv_t *
show_tree(req_t *r, const jv_t *v, const char *path, int sealed)
{
    jv_t        *o, *n;
    const jv_t  *c;

    if (v->type != J_OBJ && v->type != J_ARR) {
        return v->type == J_STR ? show_text(r, v, path) : json_copy(&r->a, v);
    }

    o = v->type == J_OBJ ? json_obj(&r->a) : json_arr(&r->a);

    for (c = v->head; c; c = c->next) {
        if (c->key == NULL) {
            n = show_tree(r, c, path, sealed);

            if (n) {
                json_push(o, n);
            }

        } else if (!seal_is_secret(c->key)) {
            n = show_tree(r, c, arena_printf(&r->a, "%s|%s", path, c->key), sealed);

            if (n) {
                json_set(o, c->key, n);
            }

        } else if (sealed && show_sealed(c)) {
            json_set(o, c->key, json_copy(&r->a, c));
        }
    }

    return o;
}


static int
show_listed(const char *const *names, const jv_t *v)
{
    const jv_t  *c;

    while (*names && strcmp(*names, v->key)) {
        names++;
    }

    if (*names == NULL && strstr(v->key, "cost_per_") == NULL
        && strstr(v->key, "_token_cost") == NULL && strncmp(v->key, "supports_", 9) != 0
        && strncmp(v->key, "supported_", 10) != 0)
    {
        return 0;
    }

    for (c = v->type == J_ARR ? v->head : NULL; c; c = c->next) {
        if (c->type == J_ARR || c->type == J_OBJ) {
            return 0;
        }
    }

    return v->type != J_OBJ;
}


static jv_t *
show_object(req_t *r, const jv_t *v, const char *id, const char *const *names, int sealed)
{
    jv_t        *all, *o;
    const jv_t  *c;

    if (v == NULL || v->type != J_OBJ) {
        return json_obj(&r->a);
    }

    all = show_tree(r, v, arena_printf(&r->a, "models|%s", id), sealed);

    if (access_reads_all(r)) {
        return all;
    }

    o = json_obj(&r->a);

    for (c = all->head; c; c = c->next) {
        if (show_listed(names, c)) {
            json_set(o, c->key, json_copy(&r->a, c));
        }
    }

    return o;
}


jv_t *
model_params_shown(req_t *r, const jv_t *params, const char *id)
{
    return show_object(r, params, id, show_params, 0);
}


jv_t *
model_info_shown(req_t *r, const jv_t *info, const char *id)
{
    return show_object(r, info, id, show_info, 0);
}


int
model_echoed(req_t *r, const jv_t *stored, const jv_t *sent, const char *id,
    const char *key)
{
    jv_t  *shown;

    shown = show_tree(r, stored, arena_printf(&r->a, "models|%s|%s", id, key), 0);

    return shown && strcmp(json_text(&r->a, shown), json_text(&r->a, sent)) == 0;
}


jv_t *
model_row_shown(req_t *r, const char *row, const char *id)
{
    jv_t        *v;
    const char  *err;

    v = json_parse_big(&r->a, row, strlen(row), &err);

    if (v) {
        json_set(v, "litellm_params", show_object(r, json_get(v, "litellm_params"), id,
                                                  show_params, 1));
        json_set(v, "model_info", show_object(r, json_get(v, "model_info"), id, show_info,
                                              1));
    }

    return v;
}
