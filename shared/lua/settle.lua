-- ----------------------------------------------------------------- settle

-- A request that passed while Redis was away names its key, its end user and
-- its tags only: charge the entities that the key has now, in the periods that
-- run now.
local function resolve(b, it, now_s)
    local key, customer, tags = it.lines[1].name, "", {}
    for i = 2, #it.lines do
        local name = it.lines[i].name
        if sub(name, 1, 9) == "customer:" then
            customer = name
        else
            tags[#tags + 1] = name
        end
    end
    fetch(b, { key })
    local e = b.ents[key]
    it.lines = {}
    if not e or e.missing or e.p.gone then
        return
    end
    local list = gather(b, e, { model = it.receipt:match("^2\t%d+\t([^\n]*)"),
                                customer = customer, tags = concat(tags, "\t"),
                                any = true, provider = "" })
    local out = { it.receipt:match("^[^\n]*\n") }
    for i, x in ipairs(list) do
        roll(x, now_s)
        local bits = text(B_NOHOLD + (x.money and B_MONEY or 0)
                          + (x.money and x.p.unit == "ucr" and B_UCR or 0))
        it.lines[i] = { name = x.name, pid = x.pid, is = meaning(bits) }
        out[i + 1] = x.name .. "\t" .. text(x.pid) .. "\t" .. bits .. "\n"
    end
    it.receipt = concat(out)
end


local function load_all(b, items, now_s)
    local names, seen = {}, {}
    for _, it in ipairs(items) do
        local ms
        ms, it.lines = parse_receipt(it.receipt)
        it.at = floor((ms or 0) / 1000)
        if it.lines[1] and it.lines[1].is.later then
            resolve(b, it, now_s)
        end
        if not seen[it.lines] then
            seen[it.lines] = true
            for _, l in ipairs(it.lines) do
                if not seen[l.name] then
                    seen[l.name] = true
                    names[#names + 1] = l.name
                end
            end
        end
    end
    for at = 1, #names, 2000 do
        fetch(b, { unpack(names, at, min(at + 1999, #names)) })
    end
    for _, name in ipairs(names) do
        local e = b.ents[name]
        if not e or (e.p.gone and not e.missing) then
            b.ents[name] = orphan(b.pre, name) or e
        end
    end
end


-- Requests that reserved alike in the same second are settled as one; .items
-- are they.
local function bundles(items)
    local out, open = {}, {}
    for _, it in ipairs(items) do
        local held = it.held and it.event ~= ""
        local at = held and open[it.lines]
        local like = at and out[at]
        if it.old then
            -- known to the ledger only
        elseif it.group then
            out[#out + 1] = it
        elseif like and like.at == it.at then
            if not like.items then
                local sum = { items = { like } }
                for k, v in pairs(like) do sum[k] = v end
                sum.r = amounts(like.hold, 2)
                like, out[at] = sum, sum
            end
            like.items[#like.items + 1] = it
            add_amounts(like.r, it.hold, 2)
            like.uh, like.ul = add(like.uh, like.ul, it.uh, it.ul)
            like.sh, like.sl = add(like.sh, like.sl, it.sh, it.sl)
            like.tok_in = like.tok_in + it.tok_in
            like.tok_out = like.tok_out + it.tok_out
        else
            out[#out + 1] = it
            open[it.lines] = held and #out or nil
        end
    end
    return out
end


local function actual_tokens(e, it)
    local t = e.p.tpm_type
    if t == "input" then
        return it.tok_in
    elseif t == "output" then
        return it.tok_out
    end
    return it.tok_in + it.tok_out
end


-- A second never counts less than nothing, so the sum of several corrections
-- is that of each only while what they reserved is still there.  Of a group
-- there is only the sum: where a second was lost it may count too little.
local function correct_tokens(e, is, it, now_s, pre)
    local reserved = reserved_tokens(is, it.r)
    if it.items and reserved > tokens_at(e, pre, it.at, now_s) then
        for _, x in ipairs(it.items) do
            correct(e, pre, true, it.at,
                    actual_tokens(e, x) - reserved_tokens(is, x.r or amounts(x.hold, 2)),
                    now_s)
        end
    else
        correct(e, pre, true, it.at, actual_tokens(e, it) - reserved, now_s)
    end
end


-- One settlement, or several alike, on one entity.  it.held: the hold still
-- stands and is released; it.back: an earlier charge that this one replaces.
local function apply(e, l, it, now_s, pre)
    roll(e, now_s)
    local same, is = e.pid == l.pid, l.is
    if it.held then
        it.r = it.r or amounts(it.hold, 2)
        if same and is.hold then
            local h, lo = minus(e.hh, e.hl, reserved_money(is, it.r))
            if h < 0 then h, lo = 0, 0 end
            e.hh, e.hl = h, lo
            if is.last then
                e.last = max(0, e.last - it.r.n)
            end
        end
        if is.par then
            e.par = max(0, e.par - it.r.n)
        end
        if is.tpm and e.p.tpm and not it.swept then
            correct_tokens(e, is, it, now_s, pre)
        end
        if is.rpm and it.event == "" and e.p.rpm and not it.swept then
            correct(e, pre, false, it.at, -it.r.n, now_s)
        end
    end
    if same and is.money then
        if is.ucr then
            e.uh, e.ul = add(e.uh, e.ul, it.sh, it.sl)
        else
            e.uh, e.ul = add(e.uh, e.ul, it.uh, it.ul)
            if it.back then
                e.uh, e.ul = minus(e.uh, e.ul, amount(it.back))
            end
        end
    end
    e.changed = true
end


-- Applies the items, writes the entities and one stream entry.  Room that is
-- given back, or a charge without a hold, may make a kept refusal wrong.
local function commit(pre, items, now_s)
    local b = { pre = pre, ents = {}, now_s = now_s }
    local sets, stream, n, changed = {}, {}, 0, {}
    load_all(b, items, now_s)
    for _, it in ipairs(items) do
        if it.event ~= "" then
            stream[n + 1], stream[n + 2] = it.group and "es" or "e", it.event
            stream[n + 3], stream[n + 4] = "r", it.receipt
            stream[n + 5], stream[n + 6], n = "c", it.code, n + 6
        end
    end
    for _, it in ipairs(bundles(items)) do
        for _, l in ipairs(it.lines) do
            local e = b.ents[l.name]
            if e and not e.missing and not e.p.gone then
                apply(e, l, it, now_s, pre)
                if it.event == "" or not it.held then
                    changed[#changed + 1] = l.name
                end
            end
        end
    end
    for name, e in pairs(b.ents) do
        if e.changed then
            sets[#sets + 1] = pre .. "c:" .. name
            sets[#sets + 1] = dump(e)
            save_window(e, pre)
            if #sets >= 4000 then
                call("MSET", unpack(sets))
                sets = {}
            end
        end
    end
    if #sets > 0 then
        call("MSET", unpack(sets))
    end
    if n > 0 then
        call("XADD", pre .. "s", "*", unpack(stream))
    end
    announce(pre, changed, true)
end


-- What was reserved is what the hold says, whatever its sender knew.
local function take_hold(it, hold)
    it.receipt, it.held, it.hold = receipt_of(hold), true, hold
end


local classify

do

local function settlement(pre, a, i)
    local rid, cost, event = a[i], a[i + 2], a[i + 6]
    local uh, ul = amount(cost)
    local sh, sl = amount(a[i + 3])
    local receipt = a[i + 1]
    return { rid = rid, receipt = receipt, event = event,
             tok_in = tonumber(a[i + 4]), tok_out = tonumber(a[i + 5]),
             uh = uh, ul = ul, sh = sh, sl = sl, done = done_key(pre, rid),
             lost = find(event, 'end":"lost"', 1, true) and cost,
             block = sub(receipt, 1, 2) == "b\t" and sub(receipt, 3, 34),
             held = false, hold = false, back = false, code = false,
             old = false, lines = false, at = 0, group = false, r = false,
             holds = false }
end


-- (settlements of one request each, groups), and where each stood.
local function settlements(pre, a)
    local singles, groups, n = {}, {}, 0
    for i = 1, #a, 7 do
        n = n + 1
        local it = settlement(pre, a, i)
        it.i = n
        if is_group(it.rid) then
            groups[#groups + 1] = it
        else
            singles[#singles + 1] = it
        end
    end
    return singles, groups
end


-- (the holds or tombstones of these, which of them are settled)
local function look_up(pre, items)
    local probe, by_set, seen = {}, {}, {}
    for i, it in ipairs(items) do
        probe[i] = pre .. "h:" .. it.rid
        local of = by_set[it.done] or {}
        by_set[it.done] = of
        of[#of + 1] = it.rid
    end
    for key, rids in pairs(by_set) do
        local hit = call("SMISMEMBER", key, unpack(rids))
        for i, rid in ipairs(rids) do
            if hit[i] == 1 then seen[rid] = true end
        end
    end
    return #items > 0 and call("MGET", unpack(probe)) or {}, seen
end


-- One request, and what stands under its rid: its code.
local function take_one(it, got, blocks, pre, now_ms)
    local held = is_hold(got)
    local block = it.block and not got and block_of(pre, blocks, it.block)
    if block and block.r then
        it.hold, it.held, it.receipt = sub(it.receipt, 35), true, block.receipt
        block_less(block.r, amounts(it.hold, 2))
        it.code = "ok"
        return 0
    elseif it.block then
        it.receipt, it.block = "", false        -- the block is gone: all of it
    end
    if it.lost and got and not held then
        return 1
    elseif held then
        take_hold(it, got)
        it.code = "ok"
        return 0
    elseif it.receipt == "" and it.event ~= "" then
        return 3
    elseif got then
        local cost, event = got:match("^T\t(%d+)\t(.*)$")
        it.back, it.code = cost, "fix " .. cost
        if it.event == "" then
            it.event = event:gsub('"cost":"%d+"', '"cost":"0"', 1)
        end
        return 0
    end
    it.code = "late"
    it.old = tonumber(sub(it.rid, 1, 12), 16) < now_ms - OLD_MS
    return 2
end


-- (the settlements to apply, the code of each that came, the blocks that they
-- took of)
function classify(pre, a, now_ms)
    local todo, codes, blocks, used = {}, {}, {}, {}
    local singles, groups = settlements(pre, a)
    local got, seen = look_up(pre, singles)
    for i, it in ipairs(singles) do
        local code = seen[it.rid] and 1
                     or take_one(it, got[i], blocks, pre, now_ms)
        codes[it.i] = code
        if code ~= 1 and code ~= 3 then
            seen[it.rid] = true
            todo[#todo + 1] = it
            if it.lost then it.code = "lost " .. it.lost end
        end
    end
    for _, it in ipairs(groups) do
        local taken = take_group(pre, it, seen, blocks)
        codes[it.i] = taken and 0 or 3
        if taken then todo[#todo + 1] = it end
    end
    for _, it in ipairs(todo) do
        if it.block then used[it.block] = blocks[it.block] end
    end
    return todo, codes, used
end

end


-- What was applied is settled: its holds and leases go, its rids are marked.
local function close(pre, todo)
    local gone, leases, by_set = {}, {}, {}
    for _, it in ipairs(todo) do
        local of = by_set[it.done] or {}
        if it.group then
            for i, rid in ipairs(it.group) do
                of[#of + 1] = rid
                if it.holds then
                    gone[#gone + 1], leases[#leases + 1] = it.holds[i], rid
                end
            end
        else
            gone[#gone + 1] = pre .. "h:" .. it.rid
            leases[#leases + 1] = it.rid
            if not it.lost then of[#of + 1] = it.rid end
        end
        by_set[it.done] = #of > 0 and of or nil
    end
    if #gone > 0 then call("DEL", unpack(gone)) end
    if #leases > 0 then call("ZREM", pre .. "z", unpack(leases)) end
    done_mark(pre, by_set)
end


-- kt_settle: sevens (rid, receipt or "" or, of a request that was admitted
-- from a block, "b", tab, the block's id, tab, its amounts; cost nusd, ucr, input tokens less
-- cached, output tokens, event JSON), at most 200; or of several requests, a
-- group (group.lua).  Without an event
-- the request is given up: no ledger row, its place in the window is free, and
-- an admission of this rid that is still on its way will be refused; the
-- receipt may then be empty.  An event that says "end":"lost" (a journal whose
-- worker died) is charged like a swept one: a settlement that still arrives
-- corrects it.  A gate that sends groups asks for kt_settle_groups.
-- Returns {watermark ms, now ms, code...}: 0 applied, 1 duplicate, 2 applied
-- though no hold stood, 3 not applied: no hold stands, come again with the
-- receipt, and one by one.  {-1} while not ready: keep it and come again.
local function kt_settle(keys, a)
    local pre = prefix(keys)
    local now_s, now_ms = clock()
    local head = call("MGET", keys[1], pre .. "wm")
    if not head[1] then
        return { -1 }
    end
    local todo, codes, used = classify(pre, a, now_ms)
    if #todo > 0 then
        commit(pre, todo, now_s)
        close(pre, todo)
        for _, it in ipairs(todo) do
            if it.lost then
                bury(pre, it.rid, it.lost, it.event, TOMB_TTL_S)
            elseif it.code == "late" and it.event == "" then
                bury(pre, it.rid, "0", "", 3600)
            end
        end
        block_write(pre, used)
    end
    return { head[2] or "0", fmt("%.0f", now_ms), unpack(codes) }
end


-- The item that releases what is left of a block, or x of it, for nothing.
local function give_back(bid, text, x)
    local r, receipt = block_parts(text)
    return { rid = bid, receipt = receipt, event = "", held = true, r = x or r,
             uh = 0, ul = 0, sh = 0, sl = 0, tok_in = 0, tok_out = 0,
             old = false, code = "ok" }
end


-- kt_block_end: triples (bid, n, amounts): what of it was not used.  Not to be
-- sent twice: what is not given back ends with the block's lease.
local function kt_block_end(keys, a)
    local pre, items, blocks = prefix(keys), {}, {}
    local now_s = clock()
    for i = 1, #a, 3 do
        local text = call("GET", pre .. "h:" .. a[i])
        if is_block(text) then
            local x, n = amounts(a[i + 2], 1), tonumber(a[i + 1])
            local r, receipt = block_parts(text)
            x.n = n
            if n > 0 then
                items[#items + 1] = give_back(a[i], text, x)
                block_less(r, x)
            end
            blocks[a[i]] = { r = r, receipt = receipt }
        end
    end
    commit(pre, items, now_s)
    block_write(pre, blocks)
    return #items
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
        if is_hold(h) then
            local it = { rid = rids[i], tok_in = 0, tok_out = 0, sh = 0, sl = 0,
                         uh = 0, ul = 0, event = "", code = "ok" }
            local r, event = amounts(h, 2), event_of(h)
            take_hold(it, h)
            items[#items + 1] = it
            if call("SISMEMBER", done_key(pre, rids[i]), rids[i]) == 1 then
                -- charged already; the hold is of a replica that was behind
                it.swept = true
                call("DEL", probe[i])
            else
                local cost = decimal(r.eh, r.el)
                it.uh, it.ul, it.event, it.code = r.eh, r.el, event, "lost " .. cost
                bury(pre, rids[i], cost, event, TOMB_TTL_S)
            end
        elseif is_block(h) then
            items[#items + 1] = give_back(rids[i], h)
            items[#items].swept = true      -- who knows what was sent
            call("DEL", probe[i])
        end
    end
    commit(pre, items, now_s)
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
        local rid, hold = a[i], a[i + 1]
        local stands = call("GET", pre .. "h:" .. rid)
        if is_hold(stands) or is_block(stands) then
            call("ZADD", pre .. "z", until_ms, rid)
            n = n + 1
        elseif hold ~= "" and not stands
               and call("SISMEMBER", done_key(pre, rid), rid) == 0 then
            local r, _, lines = amounts(hold, 2), parse_receipt(receipt_of(hold))
            for _, l in ipairs(lines) do
                local e = get(pre, l.name, now_s)
                if e and not e.p.gone then
                    roll(e, now_s)
                    if e.pid == l.pid and l.is.hold then
                        e.hh, e.hl = add(e.hh, e.hl, reserved_money(l.is, r))
                        e.last = e.last + (l.is.last and 1 or 0)
                    end
                    if l.is.par then e.par = e.par + 1 end
                    call("SET", pre .. "c:" .. l.name, dump(e))
                end
            end
            call("SET", pre .. "h:" .. rid, hold)
            call("ZADD", pre .. "z", until_ms, rid)
            n = n + 1
        end
    end
    return n
end


