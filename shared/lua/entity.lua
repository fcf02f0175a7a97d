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


-- What a level counts for that is asked for its rates only: a user on the keys
-- of a team.
local function rates_only(p)
    local r = p.rates
    if not r then
        r = { v = p.v, t = p.t, name = p.name, blocked = p.blocked, rpm = p.rpm,
              tpm = p.tpm, par = p.par, tpm_type = p.tpm_type,
              strict = p.strict, kind = p.kind, len_s = p.len_s }
        p.rates = r
    end
    return r
end


-- The counters: used (hi, lo), period id and end s; held (hi, lo), parallel leases
-- and last calls that run (one, or more after a failover); the current second,
-- requests and tokens of the window, and of this second.  Of an entity at rest,
-- which most are, only the first four are kept.
local COUNTERS = "<i8i4i5i5i8i4i4i2i5I4i6I4i6"
local RESTING = "<i8i4i5i5"
local RESTING_LEN = 22

-- bytes and c are the values of e:name and c:name.  nil when the counters of a
-- living entity are missing: a missing fact.
local function load(name, bytes, c)
    local p = memo[bytes] or policy(bytes)
    if p.gone then
        return { name = name, p = p }
    elseif not c then
        return nil
    end
    local uh, ul, pid, pend, hh, hl, par, last, sec, rsum, tsum, rcur, tcur
    if #c == RESTING_LEN then
        uh, ul, pid, pend = unpack_s(RESTING, c)
        hh, hl, par, last, sec, rsum, tsum, rcur, tcur = 0, 0, 0, 0, 0, 0, 0, 0, 0
    else
        uh, ul, pid, pend, hh, hl, par, last, sec, rsum, tsum, rcur, tcur
            = unpack_s(COUNTERS, c)
    end
    return { name = name, p = p, uh = uh, ul = ul, hh = hh, hl = hl, pid = pid,
             pend = pend, par = par, sec = sec, rsum = rsum, tsum = tsum,
             rcur = rcur, tcur = tcur, last = last, money = true, tok = 0, rated = false,
             nh = false, nl = false, slow = false, w = false, wdirty = false }
end


local function dump(e)
    if e.hh == 0 and e.hl == 0 and e.par == 0 and e.last == 0 and e.rsum == 0
       and e.tsum == 0
    then
        return pack(RESTING, e.uh, e.ul, e.pid, e.pend)
    end
    return pack(COUNTERS, e.uh, e.ul, e.pid, e.pend, e.hh, e.hl, e.par, e.last,
                e.sec, e.rsum, e.tsum, e.rcur, e.tcur)
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
    if e.pend == 0 or now_s < e.pend or e.p.orphan then
        return
    end
    if e.p.kind == "month" then
        e.pid, e.pend = month_bounds(now_s)
    else
        local len = max(1, e.p.len_s or 1)
        e.pid = e.pend + floor((now_s - e.pend) / len) * len
        e.pend = e.pid + len
    end
    e.uh, e.ul, e.hh, e.hl, e.last = 0, 0, 0, 0, 0
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


-- What end users have by default, they themselves and for models: whoever
-- follows it has a meter like each of its meters.
local DEFAULT = "default:customer"

-- A name, or a meter's, as it is for the end user `who` that follows the default;
-- without him for all, who are not known by name.
local function as_for(who, name)
    if sub(name, 1, #DEFAULT) ~= DEFAULT then
        return name
    end
    return who and who .. sub(name, #DEFAULT + 1) or "*"
end


-- An end user that no policy is known of, or his meter, has the default one, if
-- there is any: counters from nothing, or from c, in the period of the default.
-- nil without a default, and what is gone where only this meter of it is.
local function stranger(pre, name, c, now_s)
    if sub(name, 1, 9) ~= "customer:" then
        return nil
    end
    local at = find(name, "~", 10, true)
    local like = at and DEFAULT .. sub(name, at) or DEFAULT
    local got = call("MGET", pre .. "e:" .. like, pre .. "c:" .. like)
    local d = got[1] and load(like, got[1], got[2])
    if not d or d.p.gone then
        return nil, d and at and { name = name, p = d.p }
    end
    local e = load(name, got[1], c or got[2])
    roll(d, now_s)
    if not c then
        e.uh, e.ul, e.hh, e.hl, e.par = 0, 0, 0, 0, 0
        e.sec, e.rsum, e.tsum, e.rcur, e.tcur, e.last = 0, 0, 0, 0, 0, 0
        e.pid, e.pend = d.pid, d.pend
    elseif (e.pend == 0) ~= (d.pend == 0) then     -- the rule has changed since
        e.pend = d.pend
    end
    return e
end


-- The counters of an end user, or his meter, whom no policy limits any more, for
-- settlements of what was admitted before: in the period where they stand.
local function orphan(pre, name)
    local c = sub(name, 1, 9) == "customer:" and call("GET", pre .. "c:" .. name)
    if not c then
        return nil
    end
    local e = load(name, cmsgpack.pack({ v = 0 }), c)
    e.p = { orphan = true }
    return e
end


-- The entity of these two values, an end user also without them.
local function known(pre, name, bytes, c, now_s)
    local e
    if bytes then
        e = load(name, bytes, c)
        if not (e and e.p.gone) then
            return e
        end
    end
    local like, gone = stranger(pre, name, c, now_s)
    return like or e or gone or nil
end


local function get(pre, name, now_s)
    local got = call("MGET", pre .. "e:" .. name, pre .. "c:" .. name)
    return known(pre, name, got[1], got[2], now_s)
end
