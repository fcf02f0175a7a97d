#!lua name=keytoll
--
-- The one place that decides and counts.  Loaded by keytoll-controld with
-- FUNCTION LOAD; the gate's ACL user may FCALL it and nothing else.
--
-- Owns every key under kt:{shard}: (KEYS[1] is always kt:{shard}:gen):
--   gen         registry generation; absent = not ready, nothing is admitted
--   reg         registry JSON, read by the gate when gen moved
--   e:<entity>  policy and live counters of one entity, packed (see load)
--   h:<rid>     hold of an admitted, not yet settled request
--   z           leases: rid by expiry, ms
--   d:<hour>    settled rids, by the hour in the rid; 48 h
--   t:<rid>     cost and event of a lost request that the sweeper charged, 48 h;
--               or of one that was given up before its admission came, 1 h
--   s           ledger stream, wm its watermark in PostgreSQL, ms
--
-- Invariants (DESIGN 4):
--   a refusal writes nothing (1); used + held <= limit for strict meters (2);
--   settling twice is a no-op by rid (3); a hold and a slot end at their lease
--   (4); a missing fact refuses (7).
-- Amounts are nano-USD or micro-credit, kept as a pair (hi, lo) with
-- value = hi * 1e9 + lo and 0 <= lo < 1e9, so both halves stay exact in a Lua
-- number up to 2^53 * 1e9.  No float ever enters.
--

local BASE = 1e9
local RING = 61               -- one-second buckets; any 60 s span is covered
local DONE_TTL_S = 172800     -- settled rids and tombstones
local OLD_MS = 169200000      -- 47 h: older rids go to the ledger only
local CACHE_MAX = 8192

-- Verdicts; the same numbers stand in shared/kt_reason.h.
local OK, NOT_READY, STALE = 0, 1, 2
local KEY_UNKNOWN, KEY_BLOCKED, KEY_MODEL, KEY_EXPIRED = 3, 4, 5, 6
local BUDGET, HELD, ENT_BLOCKED, ENT_MODEL, ROUTE = 7, 8, 9, 10, 11
local RPM, TPM, PARALLEL, MODEL_UNKNOWN, CREDITS = 12, 13, 14, 15, 16
local UNPRICED = 17

-- Receipt bits.
local B_RPM, B_TPM, B_PAR, B_UCR, B_MONEY, B_NOHOLD = 1, 2, 4, 8, 16, 32
local B_LATER = 64            -- admitted without Redis: resolve at settle

-- FUNCTION LOAD runs with an empty environment: the libraries are bound when
-- the first function runs.
local call, floor, max, min, sub, rep, fmt, find, pack, unpack_s, concat, band

local function bind()
    call = redis.call
    floor, max, min = math.floor, math.max, math.min
    sub, rep, fmt, find = string.sub, string.rep, string.format, string.find
    pack, unpack_s = struct.pack, struct.unpack
    concat, band = table.concat, bit.band
end


local function has(bits, b)
    return band(bits, b) ~= 0
end


-- ---------------------------------------------------------------- amounts

local function amount(s)
    if #s <= 9 then
        return 0, tonumber(s) or 0
    end
    return tonumber(sub(s, 1, -10)), tonumber(sub(s, -9))
end


local function decimal(hi, lo)
    if hi == 0 then
        return fmt("%.0f", lo)
    elseif hi < 0 then                     -- below zero: only by adjustment
        return "-" .. (lo == 0 and fmt("%.0f%09.0f", -hi, 0)
               or (hi == -1 and fmt("%.0f", BASE - lo)
                   or fmt("%.0f%09.0f", -hi - 1, BASE - lo)))
    end
    return fmt("%.0f%09.0f", hi, lo)
end


local function add(ah, al, bh, bl)
    local h, l = ah + bh, al + bl
    if l >= BASE then
        return h + 1, l - BASE
    end
    return h, l
end


local function minus(ah, al, bh, bl)
    local h, l = ah - bh, al - bl
    if l < 0 then
        return h - 1, l + BASE
    end
    return h, l
end


local function less(ah, al, bh, bl)
    return ah < bh or (ah == bh and al < bl)
end


-- --------------------------------------------------------------- entities

-- A policy is a pure function of its bytes, so decoding may be remembered
-- between calls: nothing here depends on or changes the data set.
local memo, memo_n = {}, 0

local function pattern(glob)
    return "^" .. glob:gsub("[%^%$%(%)%%%.%[%]%+%-%?]", "%%%0")
                      :gsub("%*", ".*") .. "$"
end


local function policy(bytes)
    local p = memo[bytes]
    if p then
        return p
    end
    p = cmsgpack.unpack(bytes)
    if p.limit then
        p.lh, p.ll = amount(p.limit)
    end
    if p.models and #p.models > 0 then
        p.exact, p.globs = {}, {}
        for _, m in ipairs(p.models) do
            if find(m, "*", 1, true) then
                p.globs[#p.globs + 1] = pattern(m)
            else
                p.exact[m] = true
            end
        end
    end
    if memo_n >= CACHE_MAX then
        memo, memo_n = {}, 0
    end
    memo[bytes], memo_n = p, memo_n + 1
    return p
end


-- <u4 length><policy msgpack><10 doubles of state><rpm ring><tpm ring>
local function load(name, raw)
    local n = unpack_s("<I4", raw)
    local e = { name = name, bytes = sub(raw, 5, 4 + n) }
    local p = policy(e.bytes)
    e.p = p
    if p.gone then
        return e
    end
    local o
    e.uh, e.ul, e.hh, e.hl, e.pid, e.pend, e.par, e.sec, e.rsum, e.tsum, o
        = unpack_s("<dddddddddd", raw, 5 + n)
    if p.rpm then
        e.rring = sub(raw, o, o + RING * 4 - 1)
        o = o + RING * 4
    end
    if p.tpm then
        e.tring = sub(raw, o, o + RING * 4 - 1)
    end
    return e
end


local function dump(e)
    return pack("<I4", #e.bytes) .. e.bytes
        .. pack("<dddddddddd", e.uh, e.ul, e.hh, e.hl, e.pid, e.pend, e.par,
                e.sec, e.rsum, e.tsum)
        .. (e.rring or "") .. (e.tring or "")
end


local function days_from_civil(y, m)       -- day number of the 1st of a month
    if m <= 2 then
        y = y - 1
    end
    local era = floor(y / 400)
    local yoe = y - era * 400
    local doy = floor((153 * (m + (m > 2 and -3 or 9)) + 2) / 5)
    return era * 146097 + yoe * 365 + floor(yoe / 4) - floor(yoe / 100)
           + doy - 719468
end


local function month_bounds(now_s)         -- calendar month UTC, epoch s
    local y = 1970 + floor(now_s / 31556952)
    local m, day = 12, floor(now_s / 86400)
    while days_from_civil(y, 1) > day do y = y - 1 end
    while days_from_civil(y + 1, 1) <= day do y = y + 1 end
    while days_from_civil(y, m) > day do m = m - 1 end
    local s = days_from_civil(y, m) * 86400
    if m == 12 then
        return s, days_from_civil(y + 1, 1) * 86400
    end
    return s, days_from_civil(y, m + 1) * 86400
end


-- Opens the period that holds now_s.  A period is never reset: the cost of an
-- old one stays under its own id in the ledger.
local function roll(e, now_s)
    if e.pend == 0 or now_s < e.pend then
        return
    end
    if e.p.kind == "month" then
        e.pid, e.pend = month_bounds(now_s)
    else
        local len = max(1, e.p.len_s or 1)
        e.pid = e.pend + floor((now_s - e.pend) / len) * len
        e.pend = e.pid + len
    end
    e.uh, e.ul, e.hh, e.hl = 0, 0, 0, 0
end


-- The end of the period that holds at_s, by the rule of p; base is any end.
local function end_of(p, base, at_s)
    if p.kind == "month" then
        local _, stop = month_bounds(at_s)
        return stop
    end
    local len = max(1, p.len_s or 1)
    return base + (floor((at_s - base) / len) + 1) * len
end


local function bucket(ring, i)
    return (unpack_s("<I4", ring, i * 4 + 1))
end


local function set_bucket(ring, i, v)
    return sub(ring, 1, i * 4) .. pack("<I4", v) .. sub(ring, i * 4 + 5)
end


-- Moves the window to now_s, dropping the seconds that left it.
local function advance(e, now_s)
    local d = now_s - e.sec
    if d <= 0 or not (e.rring or e.tring) then
        return
    end
    if d >= RING or (e.rsum == 0 and e.tsum == 0) then
        if e.rsum ~= 0 or e.tsum ~= 0 then
            e.rring = e.rring and rep("\0", RING * 4)
            e.tring = e.tring and rep("\0", RING * 4)
        end
        e.rsum, e.tsum, e.sec = 0, 0, now_s
        return
    end
    for s = e.sec + 1, now_s do
        local i = s % RING
        if e.rring then
            local v = bucket(e.rring, i)
            if v ~= 0 then
                e.rsum, e.rring = e.rsum - v, set_bucket(e.rring, i, 0)
            end
        end
        if e.tring then
            local v = bucket(e.tring, i)
            if v ~= 0 then
                e.tsum, e.tring = e.tsum - v, set_bucket(e.tring, i, 0)
            end
        end
    end
    e.sec = now_s
end


-- ms until `need` more fits under `limit`; -1 when it never will.
local function wait_ms(ring, sec, sum, limit, need, now_ms)
    if need > limit then
        return -1
    end
    for s = sec - RING + 1, sec do
        local v = bucket(ring, s % RING)
        if v ~= 0 then
            sum = sum - v
            if sum + need <= limit then
                return max(1, (s + RING) * 1000 - now_ms)
            end
        end
    end
    return 1
end


local function clock()
    local t = call("TIME")
    local s, us = tonumber(t[1]), tonumber(t[2])
    return s, s * 1000 + floor(us / 1000)
end


local function prefix(keys)
    if not call then
        bind()
    end
    return sub(keys[1], 1, -4)             -- "kt:{shard}:gen" less "gen"
end


local function done_key(pre, rid)
    return pre .. "d:" .. fmt("%.0f", floor(tonumber(sub(rid, 1, 12), 16)
                                            / 3600000))
end


local function done_mark(pre, by_hour)
    for key, rids in pairs(by_hour) do
        call("SADD", key, unpack(rids))
        call("EXPIRE", key, DONE_TTL_S)
    end
end


-- A hold is the receipt, then "=", tab, input estimate, tab, event template.
-- Names in a receipt cannot hold a line break, so the first line that begins
-- with "=" ends it.
local function split_hold(text)
    local at = find(text, "\n=\t", 1, true)
    local cost, event = text:match("^=\t(%d+)\t(.*)$", at + 1)
    return sub(text, 1, at), cost, event
end


-- ------------------------------------------------------------------ admit

local function allowed(p, model)
    if not p.exact or p.exact[model] then
        return true
    end
    for _, g in ipairs(p.globs) do
        if find(model, g) then
            return true
        end
    end
    return false
end


local ROUTE_GROUPS = { llm_api_routes = true, openai_routes = true }

local function route_allowed(p, class, path)
    if not p.routes or #p.routes == 0 then
        return true
    end
    for _, r in ipairs(p.routes) do
        if r == path or ROUTE_GROUPS[r]
           or (r == "anthropic_routes" and class == "messages")
           or sub(path, 1, #r + 1) == r .. "/"
           or (sub(r, -1) == "*" and sub(path, 1, #r - 1) == sub(r, 1, -2))
        then
            return true
        end
    end
    return false
end


local function refuse(code, e, now_ms, retry_ms, limit, used, need)
    local p = e and e.p or {}
    return { code, e and e.name or "", p.name or "",
             limit or (p.lh and decimal(p.lh, p.ll)) or "",
             used or (e and e.uh and decimal(e.uh, e.ul)) or "",
             e and e.hh and decimal(e.hh, e.hl) or "0",
             fmt("%.0f", e and e.pend or 0), fmt("%.0f", retry_ms or 0),
             need or "", fmt("%.0f", now_ms),
             p.models and concat(p.models, "\t") or "",
             fmt("%.0f", p.expires_ms or 0), p.status or "" }
end


-- What a budget lets this request hold, or the refusal code.
-- strict: the bound must fit whole.  last_call: anything left admits, and the
-- hold takes the typical cost even where less is left.  Were it cut to what is
-- left, a settlement that frees room would admit a second request to cross the
-- line while the first is still running.
local function money(e, bh, bl, th, tl)
    local p = e.p
    if p.lh == 0 and p.ll == 0 then
        return p.unit == "ucr" and CREDITS or BUDGET
    end
    local exceeded = p.unit == "ucr" and CREDITS or BUDGET
    local rh, rl = minus(p.lh, p.ll, e.uh, e.ul)       -- limit - used
    local fh, fl = minus(rh, rl, e.hh, e.hl)           -- ... - held
    if p.strict then
        if less(fh, fl, bh, bl) then
            return less(rh, rl, bh, bl) and exceeded or HELD
        end
        return nil, bh, bl
    end
    if fh < 0 or (fh == 0 and fl == 0) then
        local spent = rh < 0 or (rh == 0 and rl == 0 and not p.gt)
        if spent then
            return exceeded
        elseif fh < 0 or not p.gt or e.hh ~= 0 or e.hl ~= 0 then
            return HELD
        elseif th == 0 and tl == 0 then
            return nil, 0, 1
        end
    end
    return nil, th, tl
end


local function tokens(p, r)
    local i, o = r.in_typ, r.out_typ
    if p.strict then
        i, o = r.in_bound, r.out_bound
    end
    if p.tpm_type == "input" then
        return i
    elseif p.tpm_type == "output" then
        return o
    end
    return i + o
end


-- The entities of a request in check order; nil and a name when one is gone,
-- but with r.any those that are left.
local function gather(pre, key, r)
    local names, money_of = {}, {}
    local function want(name, counted)
        names[#names + 1] = pre .. "e:" .. name
        money_of[#names] = counted
    end
    local p = key.p
    for _, w in ipairs(p.win or {}) do want(w, true) end
    for _, s in ipairs(p.sub or {}) do
        if s.m == r.model then want(s.e, true) end
    end
    local must = #names
    for _, f in ipairs(p.refs or {}) do
        if type(f) == "table" then
            want(f.e, f.money ~= false)
        else
            want(f, true)
        end
    end
    must = #names
    if r.customer ~= "" then want(r.customer, true) end
    for tag in r.tags:gmatch("[^\t]+") do want(tag, true) end
    local list = { key }
    key.money = true
    if #names == 0 then
        return list
    end
    local raws = call("MGET", unpack(names))
    for i, raw in ipairs(raws) do
        local name = sub(names[i], #pre + 3)
        if raw then
            local e = load(name, raw)
            e.money = money_of[i]
            if not e.p.gone then
                list[#list + 1] = e
                -- limits of a team or user on one model, and their windows
                if e.p.sub or e.p.win then
                    e.more = true
                end
            elseif i <= must and not r.any then
                return nil, ENT_BLOCKED, e
            end
        elseif i <= must and not r.any then
            return nil, NOT_READY, { name = name, p = {} }
        end
    end
    for i = 1, #list do
        local e = list[i]
        if e.more then
            local extra = {}
            for _, w in ipairs(e.p.win or {}) do extra[#extra + 1] = w end
            for _, s in ipairs(e.p.sub or {}) do
                if s.m == r.model then extra[#extra + 1] = s.e end
            end
            for _, name in ipairs(extra) do
                local raw = call("GET", pre .. "e:" .. name)
                local x = raw and load(name, raw)
                if x and not x.p.gone then
                    x.money = e.money
                    list[#list + 1] = x
                elseif not x and not r.any then
                    return nil, NOT_READY, { name = name, p = {} }
                end
            end
        end
    end
    return list
end


local function check_access(list, r, now_ms, path)
    for i, e in ipairs(list) do
        local p = e.p
        if p.blocked then
            return refuse(i == 1 and KEY_BLOCKED or ENT_BLOCKED, e, now_ms)
        end
        if r.model ~= "" and not allowed(p, r.model) then
            return refuse(i == 1 and KEY_MODEL or ENT_MODEL, e, now_ms)
        end
        if p.expires_ms and p.expires_ms <= now_ms then
            return refuse(KEY_EXPIRED, e, now_ms)
        end
    end
    if not route_allowed(list[1].p, r.class, path) then
        return refuse(ROUTE, list[1], now_ms)
    end
end


local function check_money(list, r, now_s, now_ms)
    for _, e in ipairs(list) do
        roll(e, now_s)
        local p = e.p
        if e.money and p.lh and not r.free and not (r.master and e.p.t ~= "customer") then
            local code, h, l
            if r.unpriced then
                return refuse(UNPRICED, e, now_ms)
            elseif p.unit == "ucr" then
                code, h, l = money(e, r.ch, r.cl, r.ch, r.cl)
            else
                code, h, l = money(e, r.bh, r.bl, r.th, r.tl)
            end
            if code then
                local need = p.unit == "ucr" and decimal(r.ch, r.cl)
                             or p.strict and decimal(r.bh, r.bl)
                             or decimal(r.th, r.tl)
                return refuse(code, e, now_ms, code == HELD and 1000 or 0,
                              nil, nil, need)
            end
            e.nh, e.nl = h, l
        end
    end
end


local function check_rates(list, r, now_s, now_ms)
    for _, e in ipairs(list) do
        local p = e.p
        if (p.rpm or p.tpm or p.par) and not (r.master and p.t ~= "customer") then
            advance(e, now_s)
            if p.rpm and e.rsum + 1 > p.rpm then
                return refuse(RPM, e, now_ms,
                              wait_ms(e.rring, e.sec, e.rsum, p.rpm, 1, now_ms),
                              fmt("%.0f", p.rpm), fmt("%.0f", e.rsum), "1")
            end
            if p.tpm then
                local n = tokens(p, r)
                if e.tsum + n > p.tpm then
                    return refuse(TPM, e, now_ms,
                                  wait_ms(e.tring, e.sec, e.tsum, p.tpm, n,
                                          now_ms),
                                  fmt("%.0f", p.tpm), fmt("%.0f", e.tsum),
                                  fmt("%.0f", n))
                end
                e.tok = n
            end
            if p.par and e.par + 1 > p.par then
                return refuse(PARALLEL, e, now_ms, 1000, fmt("%.0f", p.par),
                              fmt("%.0f", e.par), "1")
            end
            e.rated = true
        end
    end
end


-- Applies an admission that passed every check and writes its receipt line.
local function reserve(e, now_s)
    local p, bits, tok = e.p, 0, 0
    local changed = false
    if e.rated then
        local i = e.sec % RING
        if p.rpm then
            e.rring = set_bucket(e.rring, i, bucket(e.rring, i) + 1)
            e.rsum, bits = e.rsum + 1, bits + B_RPM
        end
        if p.tpm then
            tok = e.tok
            e.tring = set_bucket(e.tring, i, bucket(e.tring, i) + tok)
            e.tsum, bits = e.tsum + tok, bits + B_TPM
        end
        if p.par then
            e.par, bits = e.par + 1, bits + B_PAR
        end
        changed = true
    end
    local h, l = e.nh, e.nl
    if e.money then
        bits = bits + B_MONEY
        if p.unit == "ucr" then bits = bits + B_UCR end
    end
    if h then
        e.hh, e.hl = add(e.hh, e.hl, h, l)
        changed = true
    else
        h, l, bits = 0, 0, bits + B_NOHOLD
    end
    return changed, e.name .. "\t" .. fmt("%.0f", e.pid) .. "\t"
                    .. decimal(h, l) .. "\t" .. fmt("%.0f", tok) .. "\t"
                    .. bits .. "\n"
end


local function rate_text(list)
    local out = {}
    for _, e in ipairs(list) do
        local p = e.p
        if p.rpm or p.tpm or p.par then
            out[#out + 1] = concat({ e.name,
                p.rpm and fmt("%.0f", p.rpm) or "",
                p.rpm and fmt("%.0f", p.rpm - e.rsum) or "",
                p.tpm and fmt("%.0f", p.tpm) or "",
                p.tpm and fmt("%.0f", max(0, p.tpm - e.tsum)) or "",
                p.par and fmt("%.0f", p.par) or "",
                p.par and fmt("%.0f", p.par - e.par) or "" }, "\t")
        end
    end
    return concat(out, "\n")
end


local function granted(receipt, list, now_ms, gen)
    local k, limited = list[1], 0
    for _, e in ipairs(list) do
        local p = e.p
        if p.lh or p.rpm or p.tpm or p.par then limited = 1 end
    end
    return { OK, receipt, rate_text(list), fmt("%.0f", now_ms), gen,
             k.p.name or "", decimal(k.uh, k.ul),
             k.p.lh and decimal(k.p.lh, k.p.ll) or "", limited }
end


-- kt_admit: 1 rid, 2 token, 3 model, 4 registry gen the caller priced with,
-- 5 route class, 6 path, 7 bound nusd, 8 typical nusd, 9 ucr, 10 input tokens
-- bound, 11 typical, 12 output tokens bound, 13 typical, 14 input estimate
-- nusd (charged if the request is lost), 15 lease ms, 16 flags (1 free model,
-- 2 model unknown, 4 no price), 17 customer entity, 18 tag entities by \t, 19 event
-- template for the sweeper.
-- Returns {0, receipt, rates, now_ms, gen, alias, key used, key limit,
-- 1 if anything limits it} or
-- {code, entity, alias, limit, used, held, period end s, retry ms, need,
-- now_ms, allowed models by \t, expires ms, status}.
local function kt_admit(keys, a)
    local pre = prefix(keys)
    local now_s, now_ms = clock()
    local hold_key = pre .. "h:" .. a[1]
    local got = call("MGET", keys[1], pre .. "e:key:" .. a[2], hold_key,
                     pre .. "t:" .. a[1])
    local gen = got[1]
    if not gen or tonumber(gen) < tonumber(a[4]) then
        return refuse(NOT_READY, nil, now_ms)
    elseif gen ~= a[4] then
        return { STALE, gen }
    elseif not got[2] then
        return refuse(KEY_UNKNOWN, nil, now_ms)
    end
    local key = load("key:" .. a[2], got[2])
    if key.p.gone then
        return refuse(KEY_UNKNOWN, nil, now_ms)
    end
    if got[3] then
        return granted((split_hold(got[3])), { key }, now_ms, gen)
    elseif got[4] then
        return refuse(NOT_READY, nil, now_ms)       -- given up by its sender
    end
    local flags = tonumber(a[16])
    local r = { model = a[3], class = a[5], customer = a[17], tags = a[18],
                in_bound = tonumber(a[10]), in_typ = tonumber(a[11]),
                out_bound = tonumber(a[12]), out_typ = tonumber(a[13]),
                free = has(flags, 1), unpriced = has(flags, 4),
                master = key.p.master }
    r.bh, r.bl = amount(a[7])
    r.th, r.tl = amount(a[8])
    r.ch, r.cl = amount(a[9])
    local list, code, who = gather(pre, key, r)
    if not list then
        return refuse(code, who, now_ms)
    end
    local no = check_access(list, r, now_ms, a[6])
               or check_money(list, r, now_s, now_ms)
               or check_rates(list, r, now_s, now_ms)
    if no then
        return no
    elseif has(flags, 2) then
        return refuse(MODEL_UNKNOWN, key, now_ms)
    end
    local lines = { "1\t" .. fmt("%.0f", now_ms) .. "\t" .. r.model .. "\n" }
    local sets = {}
    for _, e in ipairs(list) do
        local changed, line = reserve(e, now_s)
        lines[#lines + 1] = line
        if changed then
            sets[#sets + 1] = pre .. "e:" .. e.name
            sets[#sets + 1] = dump(e)
        end
    end
    local receipt = concat(lines)
    sets[#sets + 1] = hold_key
    sets[#sets + 1] = receipt .. "=\t" .. a[14] .. "\t" .. a[19]
    call("MSET", unpack(sets))
    call("ZADD", pre .. "z", fmt("%.0f", now_ms + tonumber(a[15])), a[1])
    return granted(receipt, list, now_ms, gen)
end


-- ----------------------------------------------------------------- settle

local function parse_receipt(text)
    local ms = tonumber(text:match("^1\t(%d+)"))
    local lines = {}
    for name, pid, held, tok, bits in
        text:gmatch("\n([^\t\n]+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)") do
        lines[#lines + 1] = { name = name, pid = tonumber(pid), held = held,
                              tok = tonumber(tok), bits = tonumber(bits) }
    end
    return ms, lines
end


-- A request that passed while Redis was away names its key only: charge the
-- entities that the key has now, in the periods that run now.
local function resolve(pre, it, now_s)
    local key = it.lines[1].name
    local raw = call("GET", pre .. "e:" .. key)
    local e = raw and load(key, raw)
    it.lines = {}
    if not e or e.p.gone then
        return
    end
    local list = gather(pre, e, { model = it.receipt:match("^1\t%d+\t([^\n]*)"),
                                  customer = "", tags = "", any = true })
    local out = { it.receipt:match("^[^\n]*\n") }
    for i, x in ipairs(list) do
        roll(x, now_s)
        it.lines[i] = { name = x.name, pid = x.pid, held = "0", tok = 0,
                        bits = B_NOHOLD + (x.money and B_MONEY or 0) }
        out[i + 1] = x.name .. "\t" .. fmt("%.0f", x.pid) .. "\t0\t0\t"
                     .. it.lines[i].bits .. "\n"
    end
    it.receipt = concat(out)
end


local function load_all(pre, items, now_s)
    local names, seen = {}, {}
    for _, it in ipairs(items) do
        it.ms, it.lines = parse_receipt(it.receipt)
        if it.lines[1] and has(it.lines[1].bits, B_LATER) then
            resolve(pre, it, now_s)
        end
        for _, l in ipairs(it.lines) do
            if not seen[l.name] then
                seen[l.name] = true
                names[#names + 1] = l.name
            end
        end
    end
    local ents = {}
    for at = 1, #names, 4000 do
        local chunk = {}
        for i = at, min(at + 3999, #names) do
            chunk[#chunk + 1] = pre .. "e:" .. names[i]
        end
        for i, raw in ipairs(call("MGET", unpack(chunk))) do
            if raw then
                local e = load(names[at + i - 1], raw)
                if not e.p.gone then ents[e.name] = e end
            end
        end
    end
    return ents
end


local function correct_tokens(e, l, it, now_s)
    local at = floor(it.ms / 1000)
    if not e.tring or max(now_s, e.sec) - at >= RING then
        return
    end
    advance(e, now_s)
    local t, i = e.p.tpm_type, at % RING
    local actual = it.tok_in + it.tok_out
    if t == "input" then
        actual = it.tok_in
    elseif t == "output" then
        actual = it.tok_out
    end
    local v = bucket(e.tring, i)
    local nv = max(0, v + actual - l.tok)
    e.tring, e.tsum = set_bucket(e.tring, i, nv), e.tsum + nv - v
end


-- A request that was given up before it went upstream did not take place.
local function return_request(e, it, now_s)
    local at = floor(it.ms / 1000)
    if not e.rring or max(now_s, e.sec) - at >= RING then
        return
    end
    advance(e, now_s)
    local v = bucket(e.rring, at % RING)
    if v > 0 then
        e.rring, e.rsum = set_bucket(e.rring, at % RING, v - 1), e.rsum - 1
    end
end


-- One settlement on one entity.  it.held: the hold still stands and is
-- released; it.back: an earlier charge that this one replaces.
local function apply(e, l, it, now_s)
    roll(e, now_s)
    local same = e.pid == l.pid
    if it.held then
        if same and not has(l.bits, B_NOHOLD) then
            local h, lo = minus(e.hh, e.hl, amount(l.held))
            if h < 0 then h, lo = 0, 0 end
            e.hh, e.hl = h, lo
        end
        if has(l.bits, B_PAR) then
            e.par = max(0, e.par - 1)
        end
        if has(l.bits, B_TPM) then
            correct_tokens(e, l, it, now_s)
        end
        if it.event == "" and has(l.bits, B_RPM) then
            return_request(e, it, now_s)
        end
    end
    if same and has(l.bits, B_MONEY) then
        if has(l.bits, B_UCR) then
            e.uh, e.ul = add(e.uh, e.ul, it.ch, it.cl)
        else
            e.uh, e.ul = add(e.uh, e.ul, it.uh, it.ul)
            if it.back then
                e.uh, e.ul = minus(e.uh, e.ul, amount(it.back))
            end
        end
    end
end


-- Applies the items, writes the entities and one stream entry.
local function commit(pre, items, now_s)
    local ents = load_all(pre, items, now_s)
    local sets, stream, touched = {}, {}, {}
    for _, it in ipairs(items) do
        if not it.old then
            for _, l in ipairs(it.lines) do
                local e = ents[l.name]
                if e then
                    apply(e, l, it, now_s)
                    touched[e.name] = e
                end
            end
        end
        if it.event ~= "" then
            stream[#stream + 1] = "e"
            stream[#stream + 1] = it.event
            stream[#stream + 1] = "r"
            stream[#stream + 1] = it.receipt
            stream[#stream + 1] = "c"
            stream[#stream + 1] = it.code
        end
    end
    for name, e in pairs(touched) do
        sets[#sets + 1] = pre .. "e:" .. name
        sets[#sets + 1] = dump(e)
        if #sets >= 4000 then
            call("MSET", unpack(sets))
            sets = {}
        end
    end
    if #sets > 0 then
        call("MSET", unpack(sets))
    end
    if #stream > 0 then
        call("XADD", pre .. "s", "*", unpack(stream))
    end
end


local function classify(pre, a, now_ms)
    local items, codes, probe, hours, seen = {}, {}, {}, {}, {}
    for i = 1, #a, 7 do
        local it = { rid = a[i], receipt = a[i + 1], event = a[i + 6],
                     tok_in = tonumber(a[i + 4]), tok_out = tonumber(a[i + 5]) }
        it.uh, it.ul = amount(a[i + 2])
        it.ch, it.cl = amount(a[i + 3])
        items[#items + 1] = it
        probe[#probe + 1] = pre .. "h:" .. it.rid
        probe[#probe + 1] = pre .. "t:" .. it.rid
        it.hour = done_key(pre, it.rid)
        local h = hours[it.hour] or {}
        hours[it.hour] = h
        h[#h + 1] = it.rid
    end
    local got = call("MGET", unpack(probe))
    for key, rids in pairs(hours) do
        local hit = call("SMISMEMBER", key, unpack(rids))
        for i, rid in ipairs(rids) do
            if hit[i] == 1 then seen[rid] = true end
        end
    end
    local todo = {}
    for i, it in ipairs(items) do
        if seen[it.rid] then
            codes[i] = 1
        else
            seen[it.rid] = true
            todo[#todo + 1] = it
            if got[2 * i - 1] then
                -- what was reserved is what the hold says, whatever its sender
                -- knew: a lost reply leaves him without a receipt
                it.receipt = split_hold(got[2 * i - 1])
                it.held, it.code, codes[i] = true, "ok", 0
            elseif got[2 * i] then
                local cost, event = got[2 * i]:match("^(%d+)\t(.*)$")
                it.back, it.code, codes[i] = cost, "fix " .. cost, 0
                if it.event == "" then
                    it.event = event:gsub('"cost":"%d+"', '"cost":"0"', 1)
                end
            else
                it.code, codes[i] = "late", 2
                it.old = tonumber(sub(it.rid, 1, 12), 16) < now_ms - OLD_MS
            end
        end
    end
    return todo, codes
end


-- kt_settle: groups of 7 (rid, receipt, cost nusd, ucr, input tokens less
-- cached, output tokens, event JSON), at most 200 groups.  Without an event
-- the request is given up: no ledger row, its place in the window is free, and
-- an admission of this rid that is still on its way will be refused; the
-- receipt may then be empty.
-- Returns {watermark ms, now ms, code...}: 0 applied, 1 duplicate, 2 applied
-- though no hold stood.  {-1} while not ready: keep it and come again.
local function kt_settle(keys, a)
    local pre = prefix(keys)
    local now_s, now_ms = clock()
    local head = call("MGET", keys[1], pre .. "wm")
    if not head[1] then
        return { -1 }
    end
    local todo, codes = classify(pre, a, now_ms)
    if #todo > 0 then
        local gone, leases, by_hour, given_up = {}, {}, {}, {}
        for _, it in ipairs(todo) do
            gone[#gone + 1] = pre .. "h:" .. it.rid
            gone[#gone + 1] = pre .. "t:" .. it.rid
            leases[#leases + 1] = it.rid
            if it.code == "late" and it.event == "" then
                given_up[#given_up + 1] = it.rid
            end
            local h = by_hour[it.hour] or {}
            by_hour[it.hour] = h
            h[#h + 1] = it.rid
        end
        commit(pre, todo, now_s)
        call("DEL", unpack(gone))
        for _, rid in ipairs(given_up) do
            call("SET", pre .. "t:" .. rid, "0\t", "EX", 3600)
        end
        call("ZREM", pre .. "z", unpack(leases))
        done_mark(pre, by_hour)
    end
    return { head[2] or "0", fmt("%.0f", now_ms), unpack(codes) }
end


-- kt_sweep: 1 max n.  Charges expired leases their input estimate and leaves a
-- tombstone, so a settlement that still arrives corrects the charge.
local function kt_sweep(keys, a)
    local pre = prefix(keys)
    local now_s, now_ms = clock()
    if not call("GET", keys[1]) then
        return { 0, 0 }
    end
    local rids = call("ZRANGEBYSCORE", pre .. "z", "-inf",
                      fmt("%.0f", now_ms), "LIMIT", 0, min(200, tonumber(a[1])))
    if #rids == 0 then
        return { 0, 0 }
    end
    local probe, items = {}, {}
    for i, rid in ipairs(rids) do probe[i] = pre .. "h:" .. rid end
    for i, h in ipairs(call("MGET", unpack(probe))) do
        if h then
            local receipt, cost, event = split_hold(h)
            local it = { rid = rids[i], receipt = receipt,
                         event = event, code = "lost " .. cost, held = true,
                         tok_in = 0, tok_out = 0, ch = 0, cl = 0 }
            it.uh, it.ul = amount(cost)
            items[#items + 1] = it
            call("SET", pre .. "t:" .. rids[i], cost .. "\t" .. event, "EX",
                 DONE_TTL_S)
        end
    end
    commit(pre, items, now_s)
    call("DEL", unpack(probe))
    call("ZREM", pre .. "z", unpack(rids))
    return { #items, call("ZCARD", pre .. "z") }
end


-- kt_renew: 1 lease ms, then pairs (rid, hold text or "").  Extends leases of
-- running requests; with a hold text it puts back a hold that Redis lost.
-- Returns the number of leases that stand afterwards, -1 while not ready.
local function kt_renew(keys, a)
    local pre = prefix(keys)
    local now_s, now_ms = clock()
    if not call("GET", keys[1]) then
        return -1
    end
    local until_ms, n = fmt("%.0f", now_ms + tonumber(a[1])), 0
    for i = 2, #a, 2 do
        local rid, text = a[i], a[i + 1]
        local hold_key = pre .. "h:" .. rid
        if call("EXISTS", hold_key) == 1 then
            call("ZADD", pre .. "z", until_ms, rid)
            n = n + 1
        elseif text ~= "" and call("EXISTS", pre .. "t:" .. rid) == 0
               and call("SISMEMBER", done_key(pre, rid), rid) == 0 then
            local _, lines = parse_receipt(text)
            for _, l in ipairs(lines) do
                local raw = call("GET", pre .. "e:" .. l.name)
                local e = raw and load(l.name, raw)
                if e and not e.p.gone then
                    roll(e, now_s)
                    if e.pid == l.pid and not has(l.bits, B_NOHOLD) then
                        e.hh, e.hl = add(e.hh, e.hl, amount(l.held))
                    end
                    if has(l.bits, B_PAR) then e.par = e.par + 1 end
                    call("SET", pre .. "e:" .. l.name, dump(e))
                end
            end
            call("SET", hold_key, text)
            call("ZADD", pre .. "z", until_ms, rid)
            n = n + 1
        end
    end
    return n
end


-- ----------------------------------------------------------------- policy

local FIELDS = { "v", "t", "blocked", "status", "expires_ms", "strict", "gt",
                 "limit", "soft", "unit", "rpm", "tpm", "par", "tpm_type",
                 "models", "name", "refs", "sub", "win", "routes", "master" }

-- An amount from outside: decimal digits, exact as a pair.
local function checked(v)
    if type(v) ~= "string" or #v > 24 or not find(v, "^%d+$") then
        error("an amount is not a decimal string")
    end
    return v
end


local function given(v)
    return v ~= nil and v ~= cjson.null
end


local function compile(j)
    local p = {}
    for _, f in ipairs({ "limit", "soft", "used" }) do
        if given(j[f]) then checked(j[f]) end
    end
    for _, f in ipairs(FIELDS) do
        local v = j[f]
        if given(v) and v ~= false then p[f] = v end
    end
    if p.models and #p.models == 0 then p.models = nil end
    local per = j.period
    if per and per ~= cjson.null and per.kind ~= "none" then
        p.kind, p.len_s = per.kind, per.len_s ~= cjson.null and per.len_s or nil
    end
    return p, per ~= cjson.null and per or nil
end


local function fresh(name, bytes, per, used)
    local e = { name = name, bytes = bytes, p = policy(bytes), hh = 0, hl = 0,
                pid = per and per.id or 0, pend = per and per.end_s or 0,
                par = 0, sec = 0, rsum = 0, tsum = 0 }
    e.uh, e.ul = amount(used or "0")
    return e
end


-- kt_policy_set: pairs (name, policy JSON).  Live counters stay.
local function kt_policy_set(keys, a)
    local pre, out = prefix(keys), {}
    local now_s = clock()
    for i = 1, #a, 2 do
        local key = pre .. "e:" .. a[i]
        local j = cjson.decode(a[i + 1])
        local p, per = compile(j)
        local raw = call("GET", key)
        local old = raw and load(a[i], raw)
        if old and old.p.v > p.v then
            out[#out + 1] = "stale"
        else
            local bytes = cmsgpack.pack(p)
            local e
            if old and not old.p.gone then
                e = old
                roll(e, now_s)
                e.bytes, e.p = bytes, policy(bytes)
                -- a new rule never empties the period that is running
                if not p.kind then
                    e.pend = 0
                else
                    e.pend = per.end_s > now_s and per.end_s
                             or end_of(p, per.end_s, now_s)
                end
                if not (p.rpm or p.tpm) then e.rsum, e.tsum = 0, 0 end
                if not p.rpm then e.rsum = 0 end
                if not p.tpm then e.tsum = 0 end
            else
                e = fresh(a[i], bytes, per, given(j.used) and j.used)
            end
            e.rring = p.rpm and (e.rring or rep("\0", RING * 4)) or nil
            e.tring = p.tpm and (e.tring or rep("\0", RING * 4)) or nil
            call("SET", key, dump(e))
            out[#out + 1] = "ok"
        end
    end
    return out
end


-- kt_policy_del: pairs (name, v).
local function kt_policy_del(keys, a)
    local pre, out = prefix(keys), {}
    for i = 1, #a, 2 do
        local key, v = pre .. "e:" .. a[i], tonumber(a[i + 1])
        local raw = call("GET", key)
        local old = raw and load(a[i], raw)
        if old and old.p.v > v then
            out[#out + 1] = "stale"
        else
            local bytes = cmsgpack.pack({ v = v, gone = true })
            call("SET", key, pack("<I4", #bytes) .. bytes, "EX", 86400)
            out[#out + 1] = "ok"
        end
    end
    return out
end


-- kt_state (read only): names -> counters as strings, see the header of
-- controld/state.c for the order.
local function kt_state(keys, a)
    local pre, out = prefix(keys), {}
    local now_s = clock()
    for i, name in ipairs(a) do
        local raw = call("GET", pre .. "e:" .. name)
        local e = raw and load(name, raw)
        if not e or e.p.gone then
            out[i] = false
        else
            local p = e.p
            roll(e, now_s)
            advance(e, now_s)
            local num = function(v) return v and fmt("%.0f", v) or "" end
            out[i] = { num(p.v), decimal(e.uh, e.ul), decimal(e.hh, e.hl),
                       p.lh and decimal(p.lh, p.ll) or "", num(e.pid),
                       num(e.pend), num(e.rsum), num(p.rpm), num(e.tsum),
                       num(p.tpm), num(e.par), num(p.par),
                       p.blocked and "1" or "0", p.unit or "nusd" }
        end
    end
    return out
end


-- kt_used_set: triples (name, period id, used); rebuild only.
local function kt_used_set(keys, a)
    local pre, out = prefix(keys), {}
    if call("EXISTS", keys[1]) == 1 then
        return redis.error_reply("READY used may be set only while not ready")
    end
    local now_s = clock()
    for i = 1, #a, 3 do
        local key = pre .. "e:" .. a[i]
        local raw = call("GET", key)
        local e = raw and load(a[i], raw)
        if e and not e.p.gone then
            e.pid = tonumber(a[i + 1])
            e.uh, e.ul = amount(checked(a[i + 2]))
            if e.p.kind and e.pid >= e.pend then
                e.pend = end_of(e.p, e.pend, e.pid)
            end
            roll(e, now_s)
            call("SET", key, dump(e))
            out[#out + 1] = "ok"
        else
            out[#out + 1] = "none"
        end
    end
    return out
end


-- kt_adjust: 1 rid, 2 name, 3 signed delta, 4 event JSON.
local function kt_adjust(keys, a)
    local pre = prefix(keys)
    local now_s = clock()
    local hour = done_key(pre, a[1])
    if call("SISMEMBER", hour, a[1]) == 1 then
        return "dup"
    end
    local raw = call("GET", pre .. "e:" .. a[2])
    local e = raw and load(a[2], raw)
    if not e or e.p.gone then
        return "none"
    end
    roll(e, now_s)
    local neg = sub(a[3], 1, 1) == "-"
    local h, l = amount(checked(neg and sub(a[3], 2) or a[3]))
    if neg then
        e.uh, e.ul = minus(e.uh, e.ul, h, l)
    else
        e.uh, e.ul = add(e.uh, e.ul, h, l)
    end
    if e.uh < 0 then
        return "below"
    end
    call("SET", pre .. "e:" .. a[2], dump(e))
    done_mark(pre, { [hour] = { a[1] } })
    call("XADD", pre .. "s", "*", "e", a[4] or "{}", "r",
         "1\t" .. fmt("%.0f", now_s * 1000) .. "\t\n" .. a[2] .. "\t"
         .. fmt("%.0f", e.pid) .. "\t0\t0\t" .. B_MONEY + B_NOHOLD .. "\n",
         "c", "adj " .. a[2] .. " " .. a[3])
    return "ok"
end


-- kt_registry: 1 gen, 2 JSON.  Opens the gate after a rebuild: call it last.
local function kt_registry(keys, a)
    local pre = prefix(keys)
    local cur = call("GET", keys[1])
    if not cur or tonumber(cur) < tonumber(a[1]) then
        call("SET", pre .. "reg", a[2])
        call("SET", keys[1], fmt("%.0f", tonumber(a[1])))
    end
    return "ok"
end


redis.register_function("kt_admit", kt_admit)
redis.register_function("kt_settle", kt_settle)
redis.register_function("kt_renew", kt_renew)
redis.register_function("kt_sweep", kt_sweep)
redis.register_function("kt_policy_set", kt_policy_set)
redis.register_function("kt_policy_del", kt_policy_del)
redis.register_function("kt_used_set", kt_used_set)
redis.register_function("kt_adjust", kt_adjust)
redis.register_function("kt_registry", kt_registry)
redis.register_function{ function_name = "kt_state", callback = kt_state,
                         flags = { "no-writes" } }
