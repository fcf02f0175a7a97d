# Keytoll.  `make` builds, `make run` runs everything on loopback, `make test` proves it.

SHELL := /bin/bash
.DELETE_ON_ERROR:

BUILD   ?= build
CC      ?= gcc
CLANG   ?= clang
OPT     ?= -O2 -g
WARN    := -std=gnu11 -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes \
           -Wpointer-arith -Wvla -Wno-unused-parameter -Werror
HARDEN  := -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fPIE
CFLAGS_ALL = $(OPT) $(WARN) $(HARDEN) $(SAN) -Ishared -Icontrold $(CFLAGS)

SHARED_SRC := $(wildcard shared/*.c)
CTL_SRC    := $(wildcard controld/*.c)
UNIT_SRC   := $(wildcard t/unit/*.c)
MOCK_SRC   := $(wildcard t/mock/*.c)
PROXY_SRC  := $(wildcard t/faultproxy/*.c)

SHARED_OBJ := $(SHARED_SRC:%.c=$(BUILD)/%.o)
CTL_OBJ    := $(CTL_SRC:%.c=$(BUILD)/%.o)
MOCK_OBJ   := $(MOCK_SRC:%.c=$(BUILD)/%.o)
UNIT_BIN   := $(UNIT_SRC:t/unit/%.c=$(BUILD)/unit/%)

CTL_LIBS   := -lmicrohttpd -lpq -lhiredis -lyajl -lyaml -lcrypto -lpthread

.PHONY: all module controld mock unit
all: controld module mock

controld: $(BUILD)/keytoll-controld
mock:     $(BUILD)/keytoll-mock
unit:     $(UNIT_BIN)
module:   $(BUILD)/ngx_http_keytoll_module.so

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -I/usr/include/postgresql -MMD -MP -c -o $@ $<

$(BUILD)/keytoll-controld: $(CTL_OBJ) $(SHARED_OBJ)
	$(CC) $(CFLAGS_ALL) -pie -o $@ $^ $(CTL_LIBS)

$(BUILD)/keytoll-mock: $(MOCK_OBJ) $(SHARED_OBJ)
	$(CC) $(CFLAGS_ALL) -pie -o $@ $^ -lyajl -lcrypto

$(BUILD)/unit/%: t/unit/%.c $(SHARED_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -It/unit -MMD -MP -o $@ $< $(SHARED_OBJ) -lyajl -lcrypto

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

# The module, out of tree against Debian's nginx-dev, for the stock binary.
NGX_DEV  := /usr/share/nginx/src
NGX_SRC  := $(wildcard ngx_module/*.c ngx_module/*.h ngx_module/config)
NGX_BUILD := $(abspath $(BUILD))/nginx

$(NGX_BUILD)/Makefile: ngx_module/config | $(NGX_DEV)/configure
	@mkdir -p $(NGX_BUILD)
	cd $(NGX_DEV) && . ./conf_flags && \
	./configure --with-cc-opt="$$(dpkg-buildflags --get CFLAGS) $$(dpkg-buildflags --get CPPFLAGS) -fPIC -Wno-error=date-time" \
	    --with-ld-opt="$$(dpkg-buildflags --get LDFLAGS) -fPIC" "$${NGX_CONF_FLAGS[@]}" \
	    --add-dynamic-module=$(CURDIR)/ngx_module --builddir=$(NGX_BUILD) > $(NGX_BUILD)/configure.log

$(BUILD)/ngx_http_keytoll_module.so: $(NGX_BUILD)/Makefile $(NGX_SRC) $(SHARED_SRC) $(wildcard shared/*.h)
	$(MAKE) -C $(NGX_DEV) -f $(NGX_BUILD)/Makefile modules > $(NGX_BUILD)/make.log 2>&1 || { tail -40 $(NGX_BUILD)/make.log; exit 1; }
	cp $(NGX_BUILD)/ngx_http_keytoll_module.so $@
