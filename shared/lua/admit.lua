-- ------------------------------------------------------------------ admit

local function allowed(p, model)
    if p.exact[model] then
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
             text(e and e.pend or 0), text(retry_ms or 0),
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


-- What the key's policy says about whom to ask: their names, their Redis keys,
-- whose money counts.  A pure function of policy and model, so remembered.
local function plan(p, pre, model)
    local plans = p.plans
    local id = p.sub and model or ""
    if plans and plans.pre == pre and plans[id] then
        return plans[id]
    end
    local names, keys, counted = {}, {}, {}
    local function want(name, money)
        names[#names + 1] = name
        counted[#names] = money
        keys[#keys + 1] = pre .. "e:" .. name
        keys[#keys + 1] = pre .. "c:" .. name
    end
    for _, w in ipairs(p.win or {}) do want(w, true) end
    for _, s in ipairs(p.sub or {}) do
        if s.m == model then want(s.e, true) end
    end
    for _, f in ipairs(p.refs or {}) do
        if type(f) == "table" then
            want(f.e, f.money ~= false)
        else
            want(f, true)
        end
    end
    local made = { names = names, keys = keys, counted = counted }
    if not plans or plans.pre ~= pre or plans.n > 64 then
        plans = { pre = pre, n = 0 }
        p.plans = plans
    end
    plans[id], plans.n = made, plans.n + 1
    return made
end


-- Extra windows and model limits of a team, user or other level.
local function gather_more(pre, list, e, r)
    local extra = {}
    for _, w in ipairs(e.p.win or {}) do extra[#extra + 1] = w end
    for _, s in ipairs(e.p.sub or {}) do
        if s.m == r.model then extra[#extra + 1] = s.e end
    end
    for _, name in ipairs(extra) do
        local x = get(pre, name)
        if x and not x.p.gone then
            x.money = e.money
            list[#list + 1] = x
        elseif not x and not r.any then
            return name
        end
    end
end


-- The entities of a request in check order; nil and a name when one is gone,
-- but with r.any those that are left.
local function gather(pre, key, r)
    local list = { key }
    local made = plan(key.p, pre, r.model)
    local names, keys, must = made.names, made.keys, #made.names
    if r.customer ~= "" or r.tags ~= "" then
        names, keys = { unpack(names) }, { unpack(keys) }
        local function want(name)
            names[#names + 1] = name
            keys[#keys + 1] = pre .. "e:" .. name
            keys[#keys + 1] = pre .. "c:" .. name
        end
        if r.customer ~= "" then want(r.customer) end
        for tag in r.tags:gmatch("[^\t]+") do want(tag) end
    end
    if #names == 0 then
        return list
    end
    local got, more = call("MGET", unpack(keys)), false
    for i = 1, #names do
        local bytes = got[2 * i - 1]
        local e = bytes and load(names[i], bytes, got[2 * i])
        if not e then
            if (i <= must or bytes) and not r.any then
                return nil, MISSING, { name = names[i], p = {} }
            end
        elseif not e.p.gone then
            e.money = i > must or made.counted[i]
            list[#list + 1] = e
            more = more or e.p.sub or e.p.win
        elseif i <= must and not r.any then
            return nil, ENT_BLOCKED, e
        end
    end
    for i = 2, more and #list or 1 do
        local missing = gather_more(pre, list, list[i], r)
        if missing then
            return nil, MISSING, { name = missing, p = {} }
        end
    end
    return list
end


-- A route whose body the gate does not read has no model, no tokens and no cost:
-- whoever is limited in one of these cannot use it.
local function check_route(e, r, now_ms)
    if r.unread and (e.p.exact or e.p.tpm) then
        return refuse(UNPRICED, e, now_ms)
    end
end


local function check_access(list, r, now_ms, path)
    for i = 1, #list do
        local e = list[i]
        local p = e.p
        if p.blocked or (p.status and p.status ~= "active") then
            return refuse(i == 1 and KEY_BLOCKED or ENT_BLOCKED, e, now_ms)
        end
        if p.exact and r.model ~= "" and not allowed(p, r.model) then
            return refuse(i == 1 and KEY_MODEL or ENT_MODEL, e, now_ms)
        end
        if p.expires_ms and p.expires_ms <= now_ms then
            return refuse(KEY_EXPIRED, e, now_ms)
        end
        local no = r.unread and check_route(e, r, now_ms)
        if no then
            return no
        end
    end
    if not route_allowed(list[1].p, r.class, path) then
        return refuse(ROUTE, list[1], now_ms)
    end
end


local function check_money(list, r, now_s, now_ms)
    for i = 1, #list do
        local e = list[i]
        local p = e.p
        if e.pend ~= 0 then
            roll(e, now_s)
        end
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


local function check_rates(list, r, now_s, now_ms, pre)
    for i = 1, #list do
        local e = list[i]
        local p = e.p
        local rpm, tpm, par = p.rpm, p.tpm, p.par
        if (rpm or tpm or par) and not (r.master and p.t ~= "customer") then
            if rpm or tpm then
                advance(e, now_s, pre)
            end
            if rpm and e.rsum + 1 > rpm then
                return refuse(RPM, e, now_ms,
                              wait_ms(e, pre, false, rpm, 1, now_ms),
                              text(rpm), text(e.rsum), "1")
            end
            if tpm then
                local n = tokens(p, r)
                if e.tsum + n > tpm then
                    return refuse(TPM, e, now_ms,
                                  wait_ms(e, pre, true, tpm, n, now_ms),
                                  text(tpm), text(e.tsum), text(n))
                end
                e.tok = n
            end
            if par and e.par + 1 > par then
                return refuse(PARALLEL, e, now_ms, 1000, text(par),
                              text(e.par), "1")
            end
            e.rated = true
        end
    end
end


-- Applies an admission that passed every check and writes its receipt line.
local function reserve(e)
    local p, bits, tok = e.p, 0, 0
    local changed = e.rated
    if changed then
        if p.rpm then
            e.rcur, e.rsum, bits = e.rcur + 1, e.rsum + 1, B_RPM
        end
        if p.tpm then
            tok = e.tok
            e.tcur, e.tsum, bits = e.tcur + tok, e.tsum + tok, bits + B_TPM
        end
        if p.par then
            e.par, bits = e.par + 1, bits + B_PAR
        end
    end
    if e.money then
        bits = bits + (p.unit == "ucr" and B_MONEY + B_UCR or B_MONEY)
    end
    local h, l = e.nh, e.nl
    if h then
        e.hh, e.hl = add(e.hh, e.hl, h, l)
        changed = true
    else
        h, l, bits = 0, 0, bits + B_NOHOLD
    end
    return changed, e.name .. "\t" .. text(e.pid) .. "\t" .. decimal(h, l)
                    .. "\t" .. text(tok) .. "\t" .. text(bits) .. "\n"
end


-- Limits and what is left of them, six integers for each entity whose receipt
-- line has a rate bit; -1 is no limit.
local function rates(list)
    local out = {}
    for _, e in ipairs(list) do
        if e.rated then
            local p = e.p
            out[#out + 1] = pack("<i8i8i8i8i8i8",
                p.rpm or -1, p.rpm and p.rpm - e.rsum or -1,
                p.tpm or -1, p.tpm and max(0, p.tpm - e.tsum) or -1,
                p.par or -1, p.par and p.par - e.par or -1)
        end
    end
    return concat(out)
end


local function granted(receipt, list, now_ms, gen)
    local k, limited = list[1], 0
    for _, e in ipairs(list) do
        if e.rated or e.p.lh then limited = 1 end
    end
    return { OK, receipt, rates(list), fmt("%.0f", now_ms), gen,
             k.p.name or "", decimal(k.uh, k.ul),
             k.p.lh and decimal(k.p.lh, k.p.ll) or "", limited }
end


-- kt_admit: 1 rid, 2 token, 3 model, 4 registry gen the caller priced with,
-- 5 route class, 6 path, 7 bound nusd, 8 typical nusd, 9 ucr, 10 input tokens
-- bound, 11 typical, 12 output tokens bound, 13 typical, 14 input estimate
-- nusd (charged if the request is lost), 15 lease ms, 16 flags (1 free model,
-- 2 model unknown, 4 no price, 8 a route whose body is not read), 17 customer entity, 18 tag entities by \t,
-- 19 event template for the sweeper.
-- Returns {0, receipt, rates, now_ms, gen, alias, key used, key limit,
-- 1 if anything limits it} or
-- {code, entity, alias, limit, used, held, period end s, retry ms, need,
-- now_ms, allowed models by \t, expires ms, status}.
local function kt_admit(keys, a)
    local pre = prefix(keys)
    local now_s, now_ms = clock()
    local name, hold_key = "key:" .. a[2], pre .. "h:" .. a[1]
    local got = call("MGET", keys[1], pre .. "e:" .. name, pre .. "c:" .. name,
                     hold_key, pre .. "t:" .. a[1])
    local gen = got[1]
    if not gen or (gen ~= a[4] and tonumber(gen) < tonumber(a[4])) then
        return refuse(NOT_READY, nil, now_ms)
    elseif gen ~= a[4] then
        return { STALE, gen }
    elseif not got[2] then
        return refuse(KEY_UNKNOWN, nil, now_ms)
    end
    local key = load(name, got[2], got[3])
    if not key then
        return refuse(MISSING, { name = name, p = {} }, now_ms)
    elseif key.p.gone then
        return refuse(KEY_UNKNOWN, nil, now_ms)
    elseif got[4] then
        return granted((split_hold(got[4])), { key }, now_ms, gen)
    elseif got[5] then
        return refuse(MISSING, nil, now_ms)         -- given up by its sender
    end
    local flags = tonumber(a[16])
    local r = { model = a[3], class = a[5], customer = a[17], tags = a[18],
                in_bound = tonumber(a[10]), in_typ = tonumber(a[11]),
                out_bound = tonumber(a[12]), out_typ = tonumber(a[13]),
                free = has(flags, 1), unpriced = has(flags, 4),
                unread = has(flags, 8),
                master = key.p.master, bh = 0, bl = 0, th = 0, tl = 0, ch = 0,
                cl = 0 }
    r.bh, r.bl = amount(a[7])
    r.th, r.tl = amount(a[8])
    r.ch, r.cl = amount(a[9])
    local list, code, who = gather(pre, key, r)
    if not list then
        return refuse(code, who, now_ms)
    end
    local no = check_access(list, r, now_ms, a[6])
               or check_money(list, r, now_s, now_ms)
               or check_rates(list, r, now_s, now_ms, pre)
    if no then
        return no
    elseif has(flags, 2) then
        return refuse(MODEL_UNKNOWN, key, now_ms)
    end
    local lines = { "1\t" .. fmt("%.0f", now_ms) .. "\t" .. r.model .. "\n" }
    local sets, n = {}, 0
    for i = 1, #list do
        local e = list[i]
        local changed, line = reserve(e)
        lines[i + 1] = line
        if changed then
            sets[n + 1], sets[n + 2], n = pre .. "c:" .. e.name, dump(e), n + 2
            save_window(e, pre)
        end
    end
    local receipt = concat(lines)
    sets[n + 1], sets[n + 2] = hold_key, receipt .. "=\t" .. a[14] .. "\t" .. a[19]
    call("MSET", unpack(sets))
    call("ZADD", pre .. "z", fmt("%.0f", now_ms + tonumber(a[15])), a[1])
    return granted(receipt, list, now_ms, gen)
end


