# Keytoll.  `make` builds, `make run` runs everything on loopback, `make test` proves it.

SHELL := /bin/bash
.DELETE_ON_ERROR:

BUILD   ?= build
CLANG   ?= clang
JOBS    ?= $(shell nproc)
ifeq ($(origin CC),default)
CC      := gcc
endif
OPT     ?= -O2 -g
WARN    := -std=gnu11 -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes \
           -Wpointer-arith -Wvla -Wno-unused-parameter -Wno-missing-field-initializers -Werror
HARDEN  := -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fPIE
CFLAGS_ALL = $(OPT) $(WARN) $(HARDEN) $(SAN) -Ishared -Icontrold $(CFLAGS)

SHARED_SRC := $(wildcard shared/*.c)
CTL_SRC    := $(wildcard controld/*.c)
UNIT_SRC   := $(wildcard t/unit/*.c)
MOCK_SRC   := $(wildcard t/mock/*.c)
PROXY_SRC  := $(wildcard t/faultproxy/*.c)
FLOOD_SRC  := $(wildcard t/flood/*.c)

SHARED_OBJ := $(SHARED_SRC:%.c=$(BUILD)/%.o)
CTL_OBJ    := $(CTL_SRC:%.c=$(BUILD)/%.o)
MOCK_OBJ   := $(MOCK_SRC:%.c=$(BUILD)/%.o)
UNIT_BIN   := $(UNIT_SRC:t/unit/%.c=$(BUILD)/unit/%)

CTL_LIBS   := -lmicrohttpd -lpq -lhiredis -lyajl -lyaml -lcrypto -lz -lpthread

.PHONY: all functions module controld mock faultproxy flood unit deps run up down status test asan lint fuzz fuzz-replay bench chaos clean
all: controld module mock functions

# ---- what Debian must provide ------------------------------------------------

PACKAGES := build-essential pkg-config ca-certificates curl nginx nginx-dev redis-server postgresql postgresql-client \
            libmicrohttpd-dev libhiredis-dev libyajl-dev libyaml-dev libpq-dev libssl-dev zlib1g-dev perl
TEST_PACKAGES := wrk clang libclang-rt-14-dev $(if $(shell command -v node),,nodejs npm)
LINT_PACKAGES := clang-tidy cppcheck
BENCH_PACKAGES := wrk libnginx-mod-http-lua lua-nginx-redis lua-cjson

deps:
	@t/tools/apt $(PACKAGES)

# ---- run ---------------------------------------------------------------------

run: deps
	@$(MAKE) --no-print-directory -s -j$(JOBS) all
	@config/stack run
up: deps
	@$(MAKE) --no-print-directory -s -j$(JOBS) all
	@config/stack up
down:
	@config/stack down
status:
	@config/stack status

# ---- build -------------------------------------------------------------------

controld: $(BUILD)/keytoll-controld
mock:     $(BUILD)/keytoll-mock
unit:     $(UNIT_BIN)
module:   $(BUILD)/ngx_http_keytoll_module.so

# the Redis function library: one text, many files
LUA := $(addprefix shared/lua/,head.lua amount.lua entity.lua window.lua hold.lua \
                               option.lua admit.lua block.lua group.lua call.lua settle.lua policy.lua register.lua)
functions: $(BUILD)/keytoll.lua
$(BUILD)/keytoll.lua: $(LUA)
	@mkdir -p $(@D)
	cat $^ > $@

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -I/usr/include/postgresql -MMD -MP -c -o $@ $<

$(BUILD)/keytoll-controld: $(CTL_OBJ) $(SHARED_OBJ)
	$(CC) $(CFLAGS_ALL) -pie -o $@ $^ $(CTL_LIBS)

$(BUILD)/keytoll-mock: $(MOCK_OBJ) $(SHARED_OBJ)
	$(CC) $(CFLAGS_ALL) -pie -o $@ $^ -lyajl -lcrypto -lz

$(BUILD)/unit/%: t/unit/%.c $(SHARED_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -It/unit -MMD -MP -o $@ $< $(SHARED_OBJ) -lyajl -lcrypto -lz

$(BUILD)/keytoll-faultproxy: $(PROXY_SRC)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -pie -o $@ $^
faultproxy: $(BUILD)/keytoll-faultproxy

$(BUILD)/keytoll-flood: $(FLOOD_SRC)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -pie -o $@ $^
flood: $(BUILD)/keytoll-flood

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
	cp $(NGX_BUILD)/ngx_http_keytoll_module.so $@.new && mv -f $@.new $@

# ---- tests -------------------------------------------------------------------

FUZZ_SRC := $(wildcard t/fuzz/fuzz_*.c)
FUZZ     := $(FUZZ_SRC:t/fuzz/%.c=%)
FUZZ_S   ?= 60
FUZZ_SAN := -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
FUZZ_CFLAGS := -std=gnu11 -O1 -g -fno-omit-frame-pointer -Ishared -It/fuzz

$(BUILD)/fuzz/replay_%: t/fuzz/fuzz_%.c $(SHARED_SRC) $(wildcard shared/*.h t/fuzz/*.h)
	@mkdir -p $(@D)
	$(CLANG) $(FUZZ_CFLAGS) -fsanitize=address,undefined -fno-sanitize-recover=all -DKT_FUZZ_REPLAY -o $@ $< $(SHARED_SRC) -lyajl -lcrypto -lz

$(BUILD)/fuzz/fuzz_%: t/fuzz/fuzz_%.c $(SHARED_SRC) $(wildcard shared/*.h t/fuzz/*.h)
	@mkdir -p $(@D)
	$(CLANG) $(FUZZ_CFLAGS) $(FUZZ_SAN) -o $@ $< $(SHARED_SRC) -lyajl -lcrypto -lz

fuzz-replay: $(FUZZ_SRC:t/fuzz/fuzz_%.c=$(BUILD)/fuzz/replay_%)

# every target for FUZZ_S seconds; new inputs join build/fuzz/corpus
fuzz: $(FUZZ_SRC:t/fuzz/%.c=$(BUILD)/fuzz/%)
	@for f in $(FUZZ:fuzz_%=%); do \
	    mkdir -p $(BUILD)/fuzz/corpus/$$f; \
	    echo "== $$f, $(FUZZ_S) s"; \
	    $(BUILD)/fuzz/fuzz_$$f -max_total_time=$(FUZZ_S) -timeout=10 -rss_limit_mb=2048 -print_final_stats=0 \
	        -artifact_prefix=$(BUILD)/fuzz/ $(BUILD)/fuzz/corpus/$$f t/fuzz/corpus/$$f 2>&1 | tail -n 3 || exit 1; \
	done

# npm packages of the client tests, from their lock file
t/clients/node_modules/.stamp: t/clients/package-lock.json
	cd t/clients && npm ci --no-audit --no-fund --loglevel=error
	touch $@

TESTS ?= $(sort $(wildcard t/unit/*.t t/redis/*.t t/mock/*.t t/gate/*.t t/control/*.t t/chaos/*.t t/bench/*.t t/clients/*.t \
                          t/stack/*.t))

test-build: all unit fuzz-replay faultproxy flood t/clients/node_modules/.stamp

test:
	@t/tools/apt $(PACKAGES) $(TEST_PACKAGES)
	@$(MAKE) --no-print-directory -j$(JOBS) test-build
	KEYTOLL_BIN=$(abspath $(BUILD)) prove -It/lib --timer $(PROVE) $(TESTS)

# ---- the whole suite under AddressSanitizer and UBSan --------------------------

ASAN     := $(abspath build/asan)
ASAN_OPT := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer

$(ASAN)/nginx: $(NGX_SRC) $(SHARED_SRC) $(wildcard shared/*.h) t/tools/asan-nginx
	t/tools/asan-nginx $@

asan-build: $(ASAN)/nginx
	@$(MAKE) --no-print-directory -s -j$(JOBS) BUILD=$(ASAN) CC=$(CLANG) OPT="-O1 -g" HARDEN= SAN="$(ASAN_OPT)" controld mock unit faultproxy flood functions fuzz-replay

asan:
	@t/tools/apt $(PACKAGES) $(TEST_PACKAGES) dpkg-dev libpcre2-dev
	@$(MAKE) --no-print-directory asan-build t/clients/node_modules/.stamp
	KEYTOLL_BIN=$(ASAN) KEYTOLL_NGINX=$(ASAN)/nginx KEYTOLL_ASAN=1 prove -It/lib --timer $(PROVE) $(TESTS)

# ---- lint ----------------------------------------------------------------------

# the NULL that ends log_event()'s pairs is a pointer on every system we build for
CPPCHECK_OFF := --suppress=varFuncNullUB

lint:
	@t/tools/apt $(PACKAGES) $(LINT_PACKAGES)
	@$(MAKE) --no-print-directory all unit
	perl t/tools/ngx-style ngx_module/*.c ngx_module/*.h
	cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 --enable=warning,portability -j2 $(CPPCHECK_OFF) \
	    -Ishared -Icontrold shared controld t/mock t/faultproxy t/flood
	@echo "clang-tidy, the checks of .clang-tidy"
	@printf '%s\n' $(SHARED_SRC) $(CTL_SRC) $(MOCK_SRC) $(PROXY_SRC) $(FLOOD_SRC) | xargs -P2 -I{} \
	    sh -c 'clang-tidy --quiet {} -- -std=gnu11 -Ishared -Icontrold -I/usr/include/postgresql 2>/dev/null'
	@for f in config/stack .ci/run t/tools/apt t/tools/asan-nginx; do bash -n $$f || exit 1; done

# ---- figures and faults -----------------------------------------------------------

bench:
	@t/tools/apt $(PACKAGES) $(BENCH_PACKAGES)
	@$(MAKE) --no-print-directory all flood
	perl -It/lib t/bench/bench.pl $(BENCH)
	KEYTOLL_BIN=$(abspath $(BUILD)) perl -It/lib t/bench/admin.pl
	KEYTOLL_BIN=$(abspath $(BUILD)) perl -It/lib t/bench/ledger.pl

# tests that have a short form in `make test`: more runs, and windows in real time
LONG_TESTS := t/redis/model.t t/redis/invariants.t t/redis/oracle.t t/redis/modes.t t/redis/blocks.t t/gate/crashes.t \
              t/gate/redis_lies.t t/gate/pains.t t/control/levels.t t/stack/levels.t t/stack/windows.t t/stack/numbers.t

chaos:
	@t/tools/apt $(PACKAGES) $(TEST_PACKAGES)
	@$(MAKE) --no-print-directory all faultproxy
	perl -It/lib t/chaos/chaos.pl $(CHAOS)
	KEYTOLL_LONG=1 KEYTOLL_BIN=$(abspath $(BUILD)) prove -It/lib --timer $(LONG_TESTS)

clean:
	rm -rf build
