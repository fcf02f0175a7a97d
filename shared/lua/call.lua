-- One group: requests of one key, model, route, customer and tags.
local function admit_group(b, g, key)
    local now_ms, no, before, list, todo = b.now_ms, nil, nil, nil, {}
    if not key then
        no = refuse(KEY_UNKNOWN, nil, now_ms)
    elseif key.missing then
        no = refuse(MISSING, key, now_ms)
    elseif key.p.gone or (key.p.meter or now_ms) < now_ms then      -- regenerated under another hash
        no = refuse(KEY_UNKNOWN, nil, now_ms)
    else
        for _, x in ipairs(g.q) do
            if is_hold(x.hold) then             -- the same question again
                x.verdict = { OK, receipt_of(x.hold) }
            elseif x.hold then                  -- given up by its sender
                x.verdict = refuse(MISSING, nil, now_ms)
            else
                todo[#todo + 1] = x
            end
        end
        local asks = #todo > 0 or g.block
        local aliases = asks and not g.resolved and key.p.aliases
        if aliases and aliases[g.model] then
            no = { ALIAS, aliases[g.model] }
        elseif asks then
            local code, who
            g.master = key.p.master
            list, code, who = gather(b, key, g)
            if not list then
                no = refuse(code, who, now_ms)
            else
                no, before = check_access(list, g, now_ms, g.path)
            end
        end
    end
    if no then
        for _, x in ipairs(key and #todo > 0 and todo or g.q) do
            x.verdict = before and spent_first(b, g, before, x) or no
        end
    elseif list then
        local must
        for _, e in ipairs(list) do
            local p = e.p
            must = must or p.params or p.sparams
            e.rated = (p.rpm or p.tpm or p.par) and not exempt(g, e)
        end
        g.must = must and params_of(list, g)
        if #todo > 0 then
            admit_all(b, g, list, todo)
        end
    end
    if g.block and list and not no then
        g.stop, g.block_receipt = take_block(b, g, list)
        if g.stop == 0 then g.block_receipt = nil end
    end
    return list
end


-- Whether a request of this entity may be refused, or be another's.
local function is_limited(p)
    return p.lh or p.models or p.routes or p.expires_ms or p.aliases or p.sub
           or p.win
end


local answer

do

-- What every refusal of a group says besides: {limits, left}.  Of the key its
-- budget and its spend, and a line of each level with rates: "key", or "key:~"
-- of one for a model, its limits of requests, tokens and parallel requests by
-- tab, and what is left of them.
local function told(b, g, key, list)
    if key.pend ~= 0 then
        roll(key, b.now_s)
    end
    local limits = { key.p.lh and decimal(key.p.lh, key.p.ll) or "" }
    local left = { decimal(key.uh, key.ul) }
    local function want(n, used)
        return n and text(n) or "", n and text(max(0, n - used)) or ""
    end
    for _, e in ipairs(list) do
        local p = e.p
        if (p.rpm or p.tpm or p.par) and not exempt(g, e) then
            advance(e, b.now_s, b.pre)
            local rpm, r = want(rate(e, p.rpm), e.rsum)
            local tpm, t = want(rate(e, p.tpm), e.tsum)
            local par, n = want(p.par, e.par)
            limits[#limits + 1] = e.name:match("^[^:]+")
                                  .. (find(e.name, "~m~", 1, true) and ":~" or "")
                                  .. "\t" .. rpm .. "\t" .. tpm .. "\t" .. par
            left[#left + 1] = r .. "\t" .. t .. "\t" .. n
        end
    end
    return concat(limits, "\n"), concat(left, "\n")
end


-- Fills up the refusals.
local function tell(b, g, key, list)
    local limits, left
    if not list then
        limits, left = "", ""
    end
    for _, x in ipairs(g.q) do
        local v = x.verdict
        if type(v) == "table" and v[1] ~= OK and v[1] ~= ALIAS then
            if not limits then
                limits, left = told(b, g, key, list)
            end
            if v[1] == PARAMS then
                v[3], v[4] = limits, left
            else
                v[14], v[15] = v[14] or "", v[15] or ""
                v[16], v[17], v[18] = limits, left, v[18] or v[8]
            end
        end
    end
end


function answer(b, g, key, list)
    local out, limited = { "", "", "", "", "", 0 }, g.must and 1 or 0
    key = list and key.p.thin and list[2] or key
    tell(b, g, key, list)
    if g.receipt or g.block_receipt then
        for _, e in ipairs(list) do
            if e.rated or is_limited(e.p) then
                limited = 1
            end
        end
        local p = key.p
        out = { g.receipt or "", rates(list), p.name or "", decimal(key.uh, key.ul),
                p.lh and decimal(p.lh, p.ll) or "", limited }
    end
    for i, x in ipairs(g.q) do out[6 + i] = x.verdict end
    if g.block then
        out[7 + #g.q] = { fmt("%.0f", g.stop or 0), g.block_receipt or "" }
    end
    return out
end

end


-- NOT_READY or STALE, as kt_admit answers them, unless gen is the caller's.
local function stale(gen, caller, now_ms)
    if not gen or (gen ~= caller and tonumber(gen) < tonumber(caller)) then
        return { NOT_READY, fmt("%.0f", now_ms) }
    elseif gen ~= caller then
        return { STALE, gen }
    end
end


-- kt_known: 1 registry gen of the caller, then tokens: {0, "1" or "0" for each, as
-- there is such a key or not}, or as kt_admit answers for all at once.  It writes
-- nothing, but must not be asked of a replica, which may be behind.
local function kt_known(keys, a)
    local pre, ask, out = prefix(keys), { keys[1] }, {}
    local _, now_ms = clock()
    for i = 2, #a do ask[i] = pre .. "e:key:" .. a[i] end
    local got = call("MGET", unpack(ask))
    local no = stale(got[1], a[1], now_ms)
    if no then
        return no
    end
    for i = 2, #a do out[i - 1] = got[i] and "1" or "0" end
    return { OK, concat(out) }
end


-- kt_admit: 1 registry gen the caller priced with, 2 lease ms, then groups of
-- requests that differ only in cost: token, model, route class, path, flags
-- (1 free model, 2 model unknown, 4 no price, 8 a route whose body is not
-- read, 16 the model is what an alias meant, 64 no cheaper model is to be
-- offered; behind a \t what the body was found to have), customer entity, tag
-- entities by \t, the model's provider, n; then n times rid, amounts (hold.lua)
-- and the event should it be lost.  At most 128 requests.  The last
-- of a group may ask for a block instead: its id, the amounts of all its
-- requests, "*" and their number; the verdict is {its end, ms, or 0, receipt}.
-- Returns {0, now ms, group...}, each group {receipt of those admitted, rates,
-- alias, key used, key limit, 1 if anything limits it, verdict...}; a verdict
-- is 0, {0, another receipt}, {19, the model that the key's alias means: price
-- that and ask again with flag 16}, {20, what the body must have by \t: look for it
-- and ask again with that behind the flags; limits and left as below} or
-- {code, entity, alias, limit, used, held, period end s, retry ms, what a strict
-- budget or a rate needs free, now_ms, allowed models by \t, expires ms, status;
-- of code 21 models by \t to be asked for instead, with flag 16, and the code that
-- it is without them, else two empty texts; limits, left (told(); empty where the
-- key or a level is not known); ms that this refusal stands whatever a request needs,
-- where others refuse besides}.
-- For all at once {code, ...}: NOT_READY, or STALE with the generation.
local function kt_admit(keys, a)
    local pre = prefix(keys)
    local now_s, now_ms = clock()
    local ask, groups, i, n = { keys[1] }, {}, 3, 1
    while a[i] do
        local flags, seen, q = a[i + 4], nil, {}
        if find(flags, "\t", 1, true) then
            flags, seen = flags:match("^(%d+)\t(.*)$")
        end
        flags = tonumber(flags)
        local g = { name = "key:" .. a[i], model = a[i + 1], class = a[i + 2],
                    path = a[i + 3], customer = a[i + 5], tags = a[i + 6],
                    provider = a[i + 7], q = q,
                    free = has(flags, 1), unknown = has(flags, 2),
                    unpriced = has(flags, 4), unread = has(flags, 8),
                    resolved = has(flags, 16), tried = has(flags, 64),
                    seen = seen }
        groups[#groups + 1] = g
        ask[n + 1], ask[n + 2], n = pre .. "e:" .. g.name, pre .. "c:" .. g.name, n + 2
        local count = tonumber(a[i + 8])
        i = i + 9
        for k = 1, count do
            local x = { rid = a[i], amounts = a[i + 1], event = a[i + 2],
                        hold = false, verdict = false }
            if byte(x.event) == 42 then         -- "*", the last one
                g.block = x
                x.n = tonumber(sub(x.event, 2))
            else
                q[k] = x
                ask[n + 1], n = pre .. "h:" .. x.rid, n + 1
            end
            i = i + 3
        end
    end
    local got = call("MGET", unpack(ask))
    local old = stale(got[1], a[1], now_ms)
    if old then
        return old
    end
    local ents, at = {}, 2
    local b = batch_new(pre, ents, now_s, now_ms)
    b.lease = fmt("%.0f", now_ms + tonumber(a[2]))
    for _, g in ipairs(groups) do
        if got[at] and not ents[g.name] then
            ents[g.name] = load(g.name, got[at], got[at + 1])
                           or { name = g.name, p = {}, missing = true }
        end
        for k, x in ipairs(g.q) do x.hold = got[at + 1 + k] end
        at = at + 2 + #g.q
    end
    local out = { OK, fmt("%.0f", now_ms) }
    for k, g in ipairs(groups) do
        local key = ents[g.name]
        out[2 + k] = answer(b, g, key, admit_group(b, g, key))
    end
    batch_write(b)
    return out
end


