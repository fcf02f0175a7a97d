/* import-prices: LiteLLM's model price JSON into the models table. */

#ifndef CTL_PRICES_H
#define CTL_PRICES_H


int prices_import(const char *path);         /* 0, or -1 after a message       */


#endif
