-- ----------------------------------------------------------------- policy

local FIELDS = { "v", "t", "blocked", "status", "expires_ms", "strict", "gt",
                 "limit", "soft", "unit", "rpm", "tpm", "par", "tpm_type",
                 "models", "name", "refs", "sub", "win", "routes", "master",
                 "aliases", "meter", "thin", "params", "sparams", "service",
                 "throttle", "falls" }

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


local function fresh(name, p, per, used)
    local e = { name = name, p = p, hh = 0, hl = 0, pid = per and per.id or 0,
                pend = per and per.end_s or 0, par = 0, sec = 0, rsum = 0,
                tsum = 0, rcur = 0, tcur = 0, last = 0 }
    e.uh, e.ul = amount(used or "0")
    return e
end


-- A new policy over counters that go on.  A new rule never empties the period
-- that is running; a limit that is gone stops counting.
local function change(e, p, per, now_s, pre)
    roll(e, now_s)
    e.p = p
    if not p.kind then
        e.pend = 0
    else
        e.pend = per.end_s > now_s and per.end_s or end_of(p, per.end_s, now_s)
    end
    if not p.rpm and e.rsum ~= 0 then
        e.w, e.wdirty = rep("\0", TOKENS) .. sub(window(e, pre), TOKENS + 1), true
        e.rsum, e.rcur = 0, 0
    end
    if not p.tpm and e.tsum ~= 0 then
        e.w, e.wdirty = sub(window(e, pre), 1, TOKENS) .. rep("\0", TOKENS), true
        e.tsum, e.tcur = 0, 0
    end
end


-- Tells of what changed, of "*" alone if that is among it.  Behind the answers, if
-- blocks rely on it: how many ms longer they may be used.
local function told(pre, names, out)
    local ms, all = 0, nil
    for _, name in ipairs(names) do
        ms = max(ms, call("PTTL", pre .. "b:" .. name))
        all = all or name == "*" and { name }
    end
    announce(pre, all or names)
    if ms > 0 then
        out[#out + 1] = ms
    end
    return out
end


-- kt_policy_set: pairs (name, policy JSON).  Live counters stay.
local function kt_policy_set(keys, a)
    local pre, out, changed = prefix(keys), {}, {}
    local now_s = clock()
    for i = 1, #a, 2 do
        local name = a[i]
        local j = cjson.decode(a[i + 1])
        local p, per = compile(j)
        local bytes = cmsgpack.pack(p)
        local got = call("MGET", pre .. "e:" .. name, pre .. "c:" .. name)
        local e = got[1] and load(name, got[1], got[2])
        if e and e.p.v > p.v then
            out[#out + 1] = "stale"
        else
            if (not got[1] or e and e.p.gone) and got[2]
               and sub(name, 1, 9) == "customer:"
            then
                -- heard of before it had a policy: it keeps what it used
                e = stranger(pre, name, got[2], now_s)
                    or load(name, bytes, got[2])
                local uh, ul = amount(given(j.used) and j.used or "0")
                roll(e, now_s)
                if (per and per.id or 0) == e.pid and less(e.uh, e.ul, uh, ul) then
                    e.uh, e.ul = uh, ul
                end
            end
            if e and not e.p.gone then
                change(e, policy(bytes), per, now_s, pre)
            else
                e = fresh(name, policy(bytes), per, given(j.used) and j.used)
            end
            call("MSET", pre .. "e:" .. name, bytes, pre .. "c:" .. name,
                 dump(e))
            save_window(e, pre)
            changed[#changed + 1] = as_for(nil, name)
            out[#out + 1] = "ok"
        end
    end
    return told(pre, changed, out)
end


-- kt_policy_del: pairs (name, v).
local function kt_policy_del(keys, a)
    local pre, out, changed = prefix(keys), {}, {}
    for i = 1, #a, 2 do
        local name, v = a[i], tonumber(a[i + 1])
        local old = call("GET", pre .. "e:" .. name)
        old = old and policy(old)
        if old and old.v > v then
            out[#out + 1] = "stale"
        else
            call("SET", pre .. "e:" .. name,
                 cmsgpack.pack({ v = v, gone = true }), "EX", 86400)
            call("DEL", pre .. "c:" .. name, pre .. "w:" .. name)
            changed[#changed + 1] = as_for(nil, name)
            out[#out + 1] = "ok"
        end
    end
    return told(pre, changed, out)
end


-- kt_state (read only): for each name false, or as strings {version, used,
-- held, limit, period id, period end s, requests in the window, their limit,
-- tokens, their limit, parallel leases, their limit, blocked 0 or 1, unit};
-- no limit is "".
local function kt_state(keys, a)
    local pre, out = prefix(keys), {}
    local now_s = clock()
    for i, name in ipairs(a) do
        local e = get(pre, name, now_s)
        if not e or e.p.gone then
            out[i] = false
        else
            local p = e.p
            roll(e, now_s)
            if p.rpm or p.tpm then advance(e, now_s, pre) end
            local num = function(v) return v and fmt("%.0f", v) or "" end
            out[i] = { num(p.v), decimal(e.uh, e.ul), decimal(e.hh, e.hl),
                       p.lh and decimal(p.lh, p.ll) or "", num(e.pid),
                       num(e.pend), num(p.rpm and e.rsum or 0), num(p.rpm),
                       num(p.tpm and e.tsum or 0), num(p.tpm), num(e.par), num(p.par),
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
        local e = get(pre, a[i], now_s)
        if e and not e.p.gone then
            e.pid = tonumber(a[i + 1])
            e.uh, e.ul = amount(checked(a[i + 2]))
            if e.p.kind and e.pid >= e.pend then
                e.pend = end_of(e.p, e.pend, e.pid)
            end
            roll(e, now_s)
            call("SET", pre .. "c:" .. a[i], dump(e))
            out[#out + 1] = "ok"
        else
            out[#out + 1] = "none"
        end
    end
    return out
end


-- kt_adjust: 1 rid, 2 name, 3 signed delta, 4 event JSON.  "later" while not
-- ready.
local function kt_adjust(keys, a)
    local pre = prefix(keys)
    local now_s = clock()
    local hour = done_key(pre, a[1])
    if call("EXISTS", keys[1]) == 0 then
        return "later"                 -- a rebuild would not see it
    elseif call("SISMEMBER", hour, a[1]) == 1 then
        return "dup"
    end
    local e = get(pre, a[2], now_s)
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
    call("SET", pre .. "c:" .. a[2], dump(e))
    announce(pre, { a[2] })
    done_mark(pre, { [hour] = { a[1] } })
    call("XADD", pre .. "s", "*", "e", a[4] or "{}", "r",
         "2\t" .. fmt("%.0f", now_s * 1000) .. "\t\n" .. a[2] .. "\t"
         .. fmt("%.0f", e.pid) .. "\t" .. B_MONEY + B_NOHOLD .. "\n",
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
        announce(pre, { "*" })
    end
    return "ok"
end


