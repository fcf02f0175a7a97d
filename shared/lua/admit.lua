-- ------------------------------------------------------------------ admit

-- A wildcard may name the provider: openai/* covers gpt-4o if openai serves it.
local function allowed(p, model, provider)
    if p.exact[model] then
        return true
    end
    local full = #p.globs > 0 and provider ~= "" and provider .. "/" .. model
    for _, g in ipairs(p.globs) do
        if find(model, g) or (full and find(full, g)) then
            return true
        end
    end
    return false
end


local route_allowed

do

-- What of OpenAI's own LiteLLM's openai_routes name besides those with a class.
local OPENAI = { assistants = true, batches = true, containers = true,
                 files = true, fine_tuning = true, realtime = true,
                 threads = true, uploads = true, vector_stores = true,
                 videos = true }

local function openai_route(class, path)
    if class == "other" then
        return OPENAI[path:match("/v1/([%w_%-]+)") or path:match("^/([%w_%-]+)")]
    end
    return class ~= "messages" and class ~= "gemini"
           and not find(path, "/messages/count_tokens", 1, true)
           and not find(path, ":%a+$")               -- Gemini's methods
end


local function in_group(group, class, path)
    if group == "llm_api_routes" then
        return true
    elseif group == "openai_routes" then
        return openai_route(class, path)
    end
    return group == "anthropic_routes"
           and (class == "messages"
                or find(path, "/messages/count_tokens", 1, true))
end


function route_allowed(p, class, path)
    if not p.routes or #p.routes == 0 then
        return true
    end
    for _, r in ipairs(p.routes) do
        if r == path or in_group(r, class, path)
           or sub(path, 1, #r + 1) == r .. "/"
           or (sub(r, -1) == "*" and sub(path, 1, #r - 1) == sub(r, 1, -2))
        then
            return true
        end
    end
    return false
end

end


local function refuse(code, e, now_ms, retry_ms, limit, used, need)
    local p = e and e.p or {}
    return { code, e and e.name or "", p.name or "",
             limit or (p.lh and decimal(p.lh, p.ll)) or "",
             used or (e and e.uh and decimal(e.uh, e.ul)) or "",
             e and e.hh and decimal(e.hh, e.hl) or "0",
             text(e and e.pend or 0), text(retry_ms or 0),
             need or "", fmt("%.0f", now_ms),
             code == ROUTE and concat(p.routes, "\t")
             or p.models and concat(p.models, "\t") or "",
             fmt("%.0f", p.expires_ms or 0), p.status or "" }
end


-- What a budget lets n requests hold that may cost (bh, bl) together: hi, lo and
-- the receipt bit; or the refusal code.
--
-- strict: the bound must fit whole.  last_call: while anything is left, a request
-- whose bound fits holds it, and one that does not fit may run as the last call,
-- one at a time, holding nothing.  So used + held stays at or below the limit
-- until a last call settles; it adds its cost, and if that crosses the limit
-- nothing is left and nothing is admitted until settlements below their bounds
-- bring used + held back.  Whatever the requests cost within their bounds, used
-- ends above the limit by at most the cost of one.  Holding nothing, a last call
-- that may be dear does not keep others from what is left.  With gt, 0 left is
-- something left.
--
-- Several at once pass only if they fit together; a refusal of several says
-- nothing about each.
local function money(e, bh, bl, n)
    local p = e.p
    local exceeded = p.unit == "ucr" and CREDITS or BUDGET
    if p.lh == 0 and p.ll == 0 then
        return exceeded
    end
    local rh, rl = minus(p.lh, p.ll, e.uh, e.ul)       -- limit - used
    local fh, fl = minus(rh, rl, e.hh, e.hl)           -- ... - held
    local fits = not less(fh, fl, bh, bl)
    if rh < 0 or (rh == 0 and rl == 0 and not p.gt) then
        return exceeded
    elseif p.strict then
        if fits and e.last == 0 then       -- none of another mode's either
            return nil, bh, bl
        end
        return less(rh, rl, bh, bl) and exceeded or HELD
    elseif fh < 0 or (fh == 0 and fl == 0 and not p.gt) then
        return HELD
    elseif fits then
        return nil, bh, bl
    elseif n == 1 and e.last == 0 then
        return nil, 0, 0, B_LAST
    end
    return HELD
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


-- What the key's policy says about whom to ask: their names, whose money
-- counts, before whom tags and the end user come.  A pure function of policy
-- and model, so remembered.
local function plan(p, model)
    local plans = p.plans
    local id = p.sub and model or ""
    if plans and plans[id] then
        return plans[id]
    end
    local names, counted, tags_at, last = {}, {}, nil, nil
    local function want(name, money)
        local n = #names + 1
        names[n], counted[n] = name, money
        if name == "global" then
            last = n
        elseif sub(name, 1, 7) == "member:" or sub(name, 1, 5) == "user:" then
            tags_at = tags_at or n
        end
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
    last = last or #names + 1
    local made = { names = names, counted = counted, maybe = {},
                   tags_at = min(tags_at or last, last), last = last }
    if not plans or p.plans_n > 64 then
        plans = {}
        p.plans, p.plans_n = plans, 0
    end
    plans[id], p.plans_n = made, p.plans_n + 1
    return made
end


-- The same with the tags and the end user of one request, who need not exist.
local function plan_for(made, r)
    if r.customer == "" and r.tags == "" then
        return made
    end
    local names, counted, maybe, seen = {}, {}, {}, {}
    local function want(name, money, may)
        local n = #names + 1
        names[n], counted[n], maybe[n] = name, money, may
    end
    for i = 1, #made.names + 1 do
        if i == made.tags_at then
            for tag in r.tags:gmatch("[^\t]+") do
                if not seen[tag] then
                    seen[tag] = true
                    want(tag, true, true)
                end
            end
        end
        if i == made.last and r.customer ~= "" then
            want(r.customer, true, true)
        end
        if made.names[i] then
            want(made.names[i], made.counted[i])
        end
    end
    return { names = names, counted = counted, maybe = maybe }
end


-- Reads the entities that are not in ents yet; missing counters stay a missing
-- fact.
local function fetch(b, names)
    local keys, new = {}, {}
    for i = 1, #names do
        if not b.ents[names[i]] then
            new[#new + 1] = names[i]
            keys[#keys + 1] = b.pre .. "e:" .. names[i]
            keys[#keys + 1] = b.pre .. "c:" .. names[i]
        end
    end
    if #new == 0 then
        return
    end
    local got = call("MGET", unpack(keys))
    for i = 1, #new do
        local bytes = got[2 * i - 1]
        local e = known(b.pre, new[i], bytes, got[2 * i], b.now_s)
        if bytes and not e then
            e = { name = new[i], p = {}, missing = true }
        end
        b.ents[new[i]] = e
    end
end


-- Windows and model limits of a team, user or other level, behind all others.
local function gather_more(b, list, r)
    local extra, money = {}, {}
    for i = 2, #list do
        local e = list[i]
        for _, w in ipairs(e.p.win or {}) do
            extra[#extra + 1], money[#extra + 1] = w, e.money
        end
        for _, s in ipairs(e.p.sub or {}) do
            if s.m == r.model then
                extra[#extra + 1], money[#extra + 1] = as_for(e.name, s.e), e.money
            end
        end
    end
    fetch(b, extra)
    for i = 1, #extra do
        local x = b.ents[extra[i]]
        if x and not x.missing and not x.p.gone then
            x.money = money[i]
            list[#list + 1] = x
        elseif (not x or x.missing) and not r.any then
            return extra[i]
        end
    end
end


-- The entities of a request in check order: the key, its windows and model
-- limit, team and organization, tags, user or member, end user, proxy, then
-- windows and model limits of all but the key.  nil and a name when one is
-- gone, but with r.any those that are left.
local function gather(b, key, r)
    local list = { key }
    local made = plan_for(plan(key.p, r.model), r)
    local names, maybe = made.names, made.maybe
    key.money = true
    if #names == 0 then
        return list
    end
    fetch(b, names)
    local more = false
    for i = 1, #names do
        local e = b.ents[names[i]]
        if not e or e.missing then
            if (e or not maybe[i]) and not r.any then
                return nil, MISSING, { name = names[i], p = {} }
            end
        elseif not e.p.gone then
            e.money = made.counted[i]
            e.whole = e.whole or e.p
            e.p = e.money and e.whole or rates_only(e.whole)
            list[#list + 1] = e
            more = more or e.p.sub or e.p.win
        elseif not maybe[i] and not r.any then
            return nil, ENT_BLOCKED, e
        end
    end
    local missing = more and gather_more(b, list, r)
    if missing then
        return nil, MISSING, { name = missing, p = {} }
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


local function check_level(e, r, now_ms, is_key)
    local p = e.p
    if p.blocked or (p.status and p.status ~= "active") then
        return refuse(is_key and KEY_BLOCKED or ENT_BLOCKED, e, now_ms)
    end
    if p.exact and r.model ~= "" and not allowed(p, r.model, r.provider) then
        return refuse(is_key and KEY_MODEL or ENT_MODEL, e, now_ms)
    end
    if p.expires_ms and p.expires_ms <= now_ms then
        return refuse(KEY_EXPIRED, e, now_ms)
    end
    return r.unread and check_route(e, r, now_ms)
end


-- The refusal, and the entities whose spent budgets come before it (litellm-api
-- 11.2): none before what the key itself may, its own before what its team,
-- user and organization may, all before its routes.
local function check_access(list, r, now_ms, path)
    local key = list[1]
    local no = check_level(key, r, now_ms, true)
    if no then
        return no
    end
    for i = 2, #list do
        no = check_level(list[i], r, now_ms, false)
        if no then
            local own = {}
            for _, e in ipairs(list) do
                if e == key or sub(e.name, 1, #key.name + 1) == key.name .. "~" then
                    own[#own + 1] = e
                end
            end
            return no, own
        end
    end
    if not route_allowed(key.p, r.class, path) then
        return refuse(ROUTE, key, now_ms), list
    end
end


-- The master key spends nobody's budget but that of the end user it names.
local function exempt(g, e)
    return g.master and sub(e.name, 1, 9) ~= "customer:"
end


local function check_money(list, g, r, now_s, now_ms)
    for i = 1, #list do
        local e = list[i]
        local p = e.p
        if e.pend ~= 0 then
            roll(e, now_s)
        end
        e.nh, e.slow = false, false
        if e.money and p.lh and not g.free and not exempt(g, e) then
            local code, h, l, bit
            if g.unpriced then
                return refuse(UNPRICED, e, now_ms)
            elseif p.unit == "ucr" then
                code, h, l, bit = money(e, r.ch, r.cl, r.n)
            else
                code, h, l, bit = money(e, r.bh, r.bl, r.n)
            end
            if code == BUDGET and slows(p) then
                e.slow, g.slow, h, l = true, true, false, false
            elseif code then
                local need = p.strict and (p.unit == "ucr"
                                           and decimal(r.ch, r.cl)
                                           or decimal(r.bh, r.bl))
                return refuse(code, e, now_ms, code == HELD and 1000 or 0,
                              nil, nil, need or "")
            end
            e.nh, e.nl, e.nbit = h, l, bit or 0
        end
    end
end


-- The first of two refusals by rates, with the wait for both, -1 if one never
-- fits; [18] is how long the first stands by itself.
local function both(no, other)
    if not no or not other then
        return no or other
    end
    local a, b = tonumber(no[8]), tonumber(other[8])
    no[18] = no[18] or no[8]
    no[8] = text((a < 0 or b < 0) and -1 or max(a, b))
    return no
end


local function check_rate(e, r, now_s, now_ms, pre)
    local p, no = e.p, nil
    local rpm, tpm, par = rate(e, p.rpm), rate(e, p.tpm), p.par
    if rpm or tpm then
        advance(e, now_s, pre)
    end
    if rpm and e.rsum + r.n > rpm then
        no = refuse(RPM, e, now_ms,
                    sooner(e, wait_ms(e, pre, false, rpm, 1, now_ms), now_ms),
                    text(rpm), text(e.rsum), "1")
    end
    if tpm then
        local n = tokens(p, r)
        if e.tsum + n > tpm then
            no = both(no, refuse(TPM, e, now_ms,
                                 sooner(e, wait_ms(e, pre, true, tpm, n, now_ms),
                                        now_ms),
                                 text(tpm), text(e.tsum), text(n)))
        end
        e.tok = n
    end
    if par and e.par + r.n > par then
        no = both(no, refuse(PARALLEL, e, now_ms, 1000, text(par), text(e.par), "1"))
    end
    return no
end


-- Whose limit is named when several are reached (litellm-api 11.5).
local RATE_ORDER = { key = 1, user = 2, team = 3, member = 4, orgmember = 5,
                     customer = 6, model = 7, org = 8, tag = 10, global = 11 }

local function rate_order(e)
    if e.p.t == "model" and sub(e.name, 1, 4) == "org:" then
        return 9
    end
    return RATE_ORDER[e.p.t] or 12
end


local function check_rates(list, r, now_s, now_ms, pre)
    local first, at
    for i = 1, #list do
        local e = list[i]
        local no = e.rated and check_rate(e, r, now_s, now_ms, pre)
        if no and (not first or rate_order(e) < at) then
            first, at = both(no, first), rate_order(e)
        elseif no then
            first = both(first, no)
        end
    end
    return first
end


-- Applies r.n admissions that passed every check; the bits of the receipt.
local function reserve(e, r)
    local p, bits = e.p, 0
    local changed = e.rated
    if changed then
        if p.rpm then
            e.rcur, e.rsum, bits = e.rcur + r.n, e.rsum + r.n, B_RPM
        end
        if p.tpm then
            local tok = e.tok
            e.tcur, e.tsum, bits = e.tcur + tok, e.tsum + tok, bits + B_TPM
            bits = bits + (p.tpm_type == "input" and B_IN
                           or p.tpm_type == "output" and B_OUT or 0)
        end
        if p.par then
            e.par, bits = e.par + r.n, bits + B_PAR
        end
    end
    if e.money then
        bits = bits + (p.unit == "ucr" and B_MONEY + B_UCR or B_MONEY)
    end
    if e.nh then
        e.hh, e.hl = add(e.hh, e.hl, e.nh, e.nl)
        if e.nbit == B_LAST then
            e.last = e.last + 1
        end
        bits, changed = bits + e.nbit, true
    else
        bits = bits + B_NOHOLD
    end
    if p.strict then
        bits = bits + B_STRICT
    end
    e.changed = e.changed or changed
    return bits
end


-- Reserves and returns the lines of the receipt, the same text for all that
-- are reserved alike.
local function reserve_all(list, r)
    local lines = {}
    for i = 1, #list do
        local e = list[i]
        local p, bits = e.p, reserve(e, r)
        if p.line_name ~= e.name or p.line_pid ~= e.pid or p.line_bits ~= bits then
            p.line_name, p.line_pid, p.line_bits = e.name, e.pid, bits
            p.line = e.name .. "\t" .. text(e.pid) .. "\t" .. text(bits) .. "\n"
        end
        lines[i] = p.line
    end
    return concat(lines)
end


-- Limits and what is left of them, six integers for each entity whose receipt
-- line has a rate bit; -1 is no limit.
local function rates(list)
    local out = {}
    for _, e in ipairs(list) do
        if e.rated then
            local rpm, tpm, par = rate(e, e.p.rpm), rate(e, e.p.tpm), e.p.par
            out[#out + 1] = pack("<i8i8i8i8i8i8",
                rpm or -1, rpm and rpm - e.rsum or -1,
                tpm or -1, tpm and max(0, tpm - e.tsum) or -1,
                par or -1, par and par - e.par or -1)
        end
    end
    return concat(out)
end


-- The requests of one kt_admit and what they write.
local function batch_new(pre, ents, now_s, now_ms)
    return { pre = pre, ents = ents, now_s = now_s, now_ms = now_ms,
             sets = {}, leases = {} }
end


local function batch_write(b)
    local sets, n = b.sets, #b.sets
    for name, e in pairs(b.ents) do
        if e.changed then
            sets[n + 1], sets[n + 2], n = b.pre .. "c:" .. name, dump(e), n + 2
            save_window(e, b.pre)
        end
    end
    if n > 0 then
        call("MSET", unpack(sets))
        call("ZADD", b.pre .. "z", unpack(b.leases))
    end
end


local function is_spent(e)
    local p = e.p
    local h, l = minus(p.lh, p.ll, e.uh, e.ul)
    return h < 0 or (h == 0 and l == 0 and not p.gt) or (p.lh == 0 and p.ll == 0)
end


-- The refusal of x for the first budget of these that is spent; one that is
-- only too small for x is none.
local function spent_first(b, g, list, x)
    local r = amounts(x.amounts, 1)
    for _, e in ipairs(list) do
        local no = check_money({ e }, g, r, b.now_s, b.now_ms)
        if no and (no[1] == BUDGET or no[1] == CREDITS) and is_spent(e) then
            return cheaper(no, list[1], g)
        end
    end
end


-- Reserves for the requests of list q together if that fits, else one by one;
-- sets x.verdict of each and g.receipt of those that passed.
local function admit_all(b, g, list, q)
    local now_s, now_ms, pre = b.now_s, b.now_ms, b.pre
    local r = amounts(q[1].amounts, 1)
    for i = 2, #q do
        add_amounts(r, q[i].amounts, 1)
    end
    local no = check_money(list, g, r, now_s, now_ms)
    if not no and g.must and g.must ~= g.seen then
        for _, x in ipairs(q) do x.verdict = { PARAMS, g.must } end
        return
    end
    no = no or check_rates(list, r, now_s, now_ms, pre)
    if no then
        for _, x in ipairs(q) do
            if #q == 1 then
                x.verdict = cheaper(no, list[1], g)
            else
                admit_all(b, g, list, { x })
            end
        end
        return
    elseif g.unknown then
        no = refuse(MODEL_UNKNOWN, list[1], now_ms)
        for _, x in ipairs(q) do x.verdict = no end
        return
    end
    local receipt = "2\t" .. fmt("%.0f", now_ms) .. "\t" .. g.model .. "\n"
                    .. reserve_all(list, r)
    g.receipt = g.receipt or receipt
    local sets, leases, n, m = b.sets, b.leases, #b.sets, #b.leases
    for i = 1, #q do
        local x = q[i]
        x.verdict = receipt == g.receipt and OK or { OK, receipt }
        sets[n + 1], sets[n + 2] = pre .. "h:" .. x.rid, "H" .. x.amounts
                                   .. receipt .. "=\t" .. x.event
        leases[m + 1], leases[m + 2] = b.lease, x.rid
        n, m = n + 2, m + 2
    end
end


