-- ---------------------------------------------------------------- options

-- What some keys have besides limits.  Nothing here is asked of the others.

-- What a body must have, by tab; nil for nothing.  What the proxy asks of every
-- key it does not ask of the master key.
local function params_of(list, g)
    local names, seen = {}, {}
    local function want(more)
        for _, n in ipairs(more or {}) do
            if not seen[n] then
                seen[n], names[#names + 1] = true, n
            end
        end
    end
    for i = 1, #list do
        local p = list[i].p
        if not g.master or i == 1 then want(p.params) end
        if list[1].p.service then want(p.sparams) end
    end
    return names[1] and concat(names, "\t")
end


-- A refusal for want of money, as the question for another model if the key has
-- one for that case.
local function cheaper(no, key, g)
    local falls = not g.tried and key.p.falls
    falls = falls and falls[g.model]
    if falls and (no[1] == BUDGET or no[1] == HELD) then
        no[14], no[15], no[1] = concat(falls, "\t"), no[1], CHEAPER
    end
    return no
end


-- A key that goes on at p.throttle percent of its rates when its own budget is
-- spent.  A strict budget and one of 0 stay what they are, and without a rate
-- there would be no limit left.
local function slows(p)
    return p.throttle and not p.strict and (p.rpm or p.tpm)
           and not (p.lh == 0 and p.ll == 0)
end


-- The rate n of an entity now; e.slow says that its budget is spent.  Exact
-- also for rates beyond 2^53 / 100.
local function rate(e, n)
    if not n or not e.slow then
        return n
    end
    local pct = e.p.throttle
    return min(n, max(1, floor(n / 100) * pct + floor(n % 100 * pct / 100)))
end


-- A wait for room in a lowered rate ends with the period at the latest.
local function sooner(e, ms, now_ms)
    if not e.slow or e.pend == 0 then
        return ms
    end
    local left = max(1, e.pend * 1000 - now_ms)
    return ms < 0 and left or min(ms, left)
end


