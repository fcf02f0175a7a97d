/*
 * Cost of a request.  Prices are pico-USD per token, second, image, character
 * or query, costs nano-USD; sums are formed in 128 bits and rounded once.
 */

#ifndef KT_PRICE_H
#define KT_PRICE_H


#include <stdint.h>

#include "kt_rc.h"
#include "kt_usage.h"


#define KT_PRICE_TIERS   4


/* Prices of another service tier; reasoning costs as output. */
typedef struct {
    int64_t   in_pusd;
    int64_t   out_pusd;
    int64_t   cr_pusd;
    int64_t   cw_pusd;
    int64_t   cw1h_pusd;
} kt_price_service_t;


/* Prices of a request whose prompt has more tokens than above_tok. */
typedef struct {
    int64_t              above_tok;
    int64_t              in_pusd;
    int64_t              out_pusd;
    int64_t              cr_pusd;
    int64_t              cw_pusd;
    int64_t              cw1h_pusd;
    int64_t              rs_pusd;
    kt_price_service_t   service[KT_SERVICES];
} kt_price_tier_t;


/*
 * All prices are set by the owner; what a model lacks is filled in before
 * (cache read and write, audio and image input default to in, the hour's cache
 * to cw, reasoning, audio and image output to out; those per unit to 0).  The
 * flags are for kt_price_applies() and the caller, the sums do not look at
 * them.
 */
typedef struct {
    int64_t              in_pusd;
    int64_t              out_pusd;
    int64_t              cr_pusd;
    int64_t              cw_pusd;      /* kept for five minutes             */
    int64_t              rs_pusd;
    unsigned             free:1;       /* all prices are explicitly 0       */
    unsigned             none:1;       /* no price is known                 */
    unsigned             has_in:1;
    unsigned             has_out:1;    /* per text, audio or image token    */
    unsigned             has_image:1;
    unsigned             has_second:1;
    unsigned             has_char:1;
    unsigned             has_query:1;
    unsigned             services:4;   /* bit per kt_service_t with a price */

    int64_t              cw1h_pusd;    /* kept for an hour                  */
    int64_t              ai_pusd;      /* audio tokens                      */
    int64_t              ao_pusd;
    int64_t              ii_pusd;      /* image tokens                      */
    int64_t              io_pusd;
    int64_t              image_pusd;   /* per image                         */
    int64_t              second_pusd;
    int64_t              char_pusd;
    int64_t              query_pusd;   /* per unit of search or ranking     */
    int64_t              search_pusd;  /* per web search                    */
    int64_t              request_pusd;

    unsigned             ntiers;       /* ascending above_tok               */
    kt_price_tier_t      tier[KT_PRICE_TIERS];
    kt_price_service_t   service[KT_SERVICES];
} kt_price_t;


/* What a route is paid by. */
typedef enum {
    KT_PAY_TEXT = 0,                   /* prompt and completion tokens      */
    KT_PAY_INPUT,                      /* prompt tokens: embeddings, ...    */
    KT_PAY_IMAGE,                      /* images, or tokens                 */
    KT_PAY_SPEECH,                     /* characters, or tokens             */
    KT_PAY_AUDIO,                      /* seconds, or tokens                */
    KT_PAY_QUERY                       /* queries, or prompt tokens         */
} kt_pay_t;


/* The most that a request can use; zero what it cannot. */
typedef struct {
    int64_t   in_tok;
    int64_t   out_tok;
    int64_t   images;
    int64_t   dur_ms;
    int64_t   chars;
    int64_t   units;
    int64_t   searches;
    unsigned  services;                /* bit per kt_service_t it may get   */
    unsigned  media_in:1;              /* tokens may be audio or images     */
    unsigned  media_out:1;
} kt_price_ask_t;


/*
 * What the usage costs, rounded half up.  Parts that exceed their whole
 * (cr + cw + ai + ii > in, cw1h > cw, rs + ao + io > out) raise the whole to
 * their sum; negative counts are 0.  KT_OK, or KT_RANGE when a price is
 * negative or the cost does not fit; *nusd is then INT64_MAX.
 */
keytoll_rc_t kt_price_cost(const kt_price_t *price, const kt_usage_t *u,
    int64_t *nusd);

/*
 * The most that the asked for can cost, rounded up: each token at the dearest
 * price that it could have.  Results as above.  Never less than
 * kt_price_cost() of any usage with counts up to these.
 */
keytoll_rc_t kt_price_most(const kt_price_t *price, const kt_price_ask_t *ask,
    int64_t *nusd);

/* The same for tokens of text alone. */
keytoll_rc_t kt_price_bound(const kt_price_t *price, int64_t in_tok,
    int64_t out_tok, int64_t *nusd);

/* 1 when what the route is paid by has a price. */
int kt_price_applies(const kt_price_t *price, kt_pay_t pay);


#endif
