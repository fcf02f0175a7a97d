-- ----------------------------------------------------------------- groups

-- Settlements of requests that reserved alike in the same second, told as one:
-- their rids one behind the other, "G", the amounts that they reserved
-- together, and the receipt that they share or, of a block, "b", tab, its id;
-- the sums of what they cost; their events, one a line.
--
-- It is taken when each of them stands as its sender says, and otherwise not
-- touched: its requests come again one by one, and each is told what is what.

local is_group, take_group

do                                         -- 200 locals are all a chunk may have

local RID_LEN = 32
local GROUP_HEAD = AMOUNTS_LEN + 2         -- where the receipt begins


function is_group(rid)
    return #rid > RID_LEN and #rid % RID_LEN == 0
end


-- (rids, keys of their holds) of requests of one hour, none of which is in
-- seen; or nil.
local function group_rids(pre, s, seen)
    local rids, keys, n = {}, {}, 0
    local hour = hour_of(s)
    for at = 1, #s, RID_LEN do
        local rid = sub(s, at, at + RID_LEN - 1)
        if seen[rid] or hour_of(rid) ~= hour then
            return nil
        end
        n, seen[rid] = n + 1, true
        rids[n], keys[n] = rid, pre .. "h:" .. rid
    end
    return rids, keys
end


-- Whether one of them was settled.
local function group_done(rids, done)
    for _, hit in ipairs(call("SMISMEMBER", done, unpack(rids))) do
        if hit == 1 then
            return true
        end
    end
    return false
end


-- Whether all of them are held: a hold and its lease come and go together.
local function group_held(pre, rids, done)
    for _, lease in ipairs(call("ZMSCORE", pre .. "z", unpack(rids))) do
        if not lease then
            return false
        end
    end
    return not group_done(rids, done)
end


-- Whether none of them was settled or has a hold of its own.
local function group_of_block(rids, keys, done)
    return call("EXISTS", unpack(keys)) == 0 and not group_done(rids, done)
end


-- Completes the item of a group, or takes its share of the block; false when it
-- is not taken.
function take_group(pre, it, seen, blocks)
    local bid = sub(it.receipt, GROUP_HEAD, GROUP_HEAD + 1) == "b\t"
                and sub(it.receipt, GROUP_HEAD + 2)
    local rids, keys = group_rids(pre, it.rid, seen)
    if not rids then
        return false
    end
    it.r, it.group = amounts(it.receipt, 2), rids
    it.r.n = #rids
    if bid then
        local k = block_of(pre, blocks, bid)
        if not k.r or k.r.n < #rids or not group_of_block(rids, keys, it.done) then
            return false
        end
        block_less(k.r, it.r)
        it.receipt, it.block = k.receipt, bid
    else
        if not group_held(pre, rids, it.done) then
            return false
        end
        it.receipt, it.holds = sub(it.receipt, GROUP_HEAD), keys
    end
    it.held, it.code = true, "ok"
    return true
end

end


