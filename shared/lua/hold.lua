-- ------------------------------------------------------------------ holds

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


