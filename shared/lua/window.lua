-- ---------------------------------------------------------------- windows

-- RPM and TPM: never more than the limit in any 60 s.  The current second's
-- counts stand among the counters; w: holds one bucket for each of the 61
-- seconds before, requests first, tokens behind.  It is read only when the
-- second changes or an older one is corrected.

local TOKENS = RING * 4       -- offset of the token buckets

local function bucket(w, at)
    return (unpack_s("<I4", w, at + 1))
end


local function set_bucket(w, at, v)
    return sub(w, 1, at) .. pack("<I4", v) .. sub(w, at + 5)
end


local function window(e, pre)
    if not e.w then
        e.w = (e.rsum ~= e.rcur or e.tsum ~= e.tcur)
              and call("GET", pre .. "w:" .. e.name) or EMPTY
    end
    return e.w
end


local function save_window(e, pre)
    if e.wdirty then
        call("SET", pre .. "w:" .. e.name, e.w, "EX", WINDOW_TTL_S)
    end
end


-- Moves the window to now_s, dropping the seconds that left it.
local function advance(e, now_s, pre)
    local d = now_s - e.sec
    if d <= 0 then
        return
    end
    if d >= RING then
        if e.rsum ~= e.rcur or e.tsum ~= e.tcur then
            e.w, e.wdirty = EMPTY, true
        end
        e.rsum, e.tsum = 0, 0
    elseif e.rsum ~= 0 or e.tsum ~= 0 then
        local w = window(e, pre)
        local at = e.sec % RING * 4
        if e.rcur ~= 0 then w = set_bucket(w, at, e.rcur) end
        if e.tcur ~= 0 then w = set_bucket(w, TOKENS + at, e.tcur) end
        for s = e.sec - RING + 1, now_s - RING do
            at = s % RING * 4
            local r, t = bucket(w, at), bucket(w, TOKENS + at)
            if r ~= 0 then
                e.rsum, w = e.rsum - r, set_bucket(w, at, 0)
            end
            if t ~= 0 then
                e.tsum, w = e.tsum - t, set_bucket(w, TOKENS + at, 0)
            end
        end
        e.w, e.wdirty = w, true
    end
    e.sec, e.rcur, e.tcur = now_s, 0, 0
end


-- Adds to the requests or tokens of the second `at`, which may be the current
-- one; never below zero.  Nothing when it has left the window.
local function correct(e, pre, token, at, delta, now_s)
    if max(now_s, e.sec) - at >= RING then
        return
    end
    advance(e, now_s, pre)
    if at >= e.sec then
        if token then
            delta = max(delta, -e.tcur)
            e.tcur = e.tcur + delta
        else
            delta = max(delta, -e.rcur)
            e.rcur = e.rcur + delta
        end
    else
        local w = window(e, pre)
        local o = (token and TOKENS or 0) + at % RING * 4
        local v = bucket(w, o)
        delta = max(delta, -v)
        e.w, e.wdirty = set_bucket(w, o, v + delta), true
    end
    if token then
        e.tsum = e.tsum + delta
    else
        e.rsum = e.rsum + delta
    end
end


-- The tokens of the second `at` that the window still counts.
local function tokens_at(e, pre, at, now_s)
    if max(now_s, e.sec) - at >= RING then
        return 0
    end
    advance(e, now_s, pre)
    if at >= e.sec then
        return e.tcur
    end
    return bucket(window(e, pre), TOKENS + at % RING * 4)
end


-- ms until `need` more fits under `limit`; -1 when it never will.
local function wait_ms(e, pre, token, limit, need, now_ms)
    if need > limit then
        return -1
    end
    local w, sum = window(e, pre), token and e.tsum or e.rsum
    local o, cur = token and TOKENS or 0, token and e.tcur or e.rcur
    for s = e.sec - RING + 1, e.sec do
        local v = s == e.sec and cur or bucket(w, o + s % RING * 4)
        if v ~= 0 then
            sum = sum - v
            if sum + need <= limit then
                return max(1, (s + RING) * 1000 - now_ms)
            end
        end
    end
    return 1
end


