-- ----------------------------------------------------------------- settle

-- A request that passed while Redis was away names its key only: charge the
-- entities that the key has now, in the periods that run now.
local function resolve(b, it, now_s)
    local key = it.lines[1].name
    fetch(b, { key })
    local e = b.ents[key]
    it.lines = {}
    if not e or e.missing or e.p.gone then
        return
    end
    local list = gather(b, e, { model = it.receipt:match("^2\t%d+\t([^\n]*)"),
                                customer = "", tags = "", any = true,
                                provider = "" })
    local out = { it.receipt:match("^[^\n]*\n") }
    for i, x in ipairs(list) do
        roll(x, now_s)
        local bits = text(B_NOHOLD + (x.money and B_MONEY or 0))
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
-- is that of each only while what they reserved is still there.
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
            stream[n + 1], stream[n + 2] = "e", it.event
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


local function classify(pre, a, now_ms)
    local items, codes, probe, by_hour, seen, n = {}, {}, {}, {}, {}, 0
    local blocks, used = {}, {}
    for i = 1, #a, 7 do
        local rid, event, cost = a[i], a[i + 6], a[i + 2]
        local uh, ul = amount(cost)
        local sh, sl = amount(a[i + 3])
        local hour = done_key(pre, rid)
        n = n + 1
        items[n] = { rid = rid, receipt = a[i + 1], event = event,
                     tok_in = tonumber(a[i + 4]), tok_out = tonumber(a[i + 5]),
                     uh = uh, ul = ul, sh = sh, sl = sl, hour = hour,
                     lost = find(event, 'end":"lost"', 1, true) and cost,
                     held = false, hold = false, back = false, code = false,
                     old = false, lines = false, at = 0, block = false }
        probe[n] = pre .. "h:" .. rid
        local bid = sub(a[i + 1], 1, 2) == "b\t" and sub(a[i + 1], 3, 34)
        if bid then
            items[n].block = bid
            if not blocks[bid] then
                local text = call("GET", pre .. "h:" .. bid)
                blocks[bid] = {}
                if is_block(text) then
                    local r, receipt = block_parts(text)
                    blocks[bid] = { r = r, receipt = receipt }
                end
            end
        end
        local h = by_hour[hour]
        if not h then
            h = {}
            by_hour[hour] = h
        end
        h[#h + 1] = rid
    end
    local got = call("MGET", unpack(probe))
    for key, rids in pairs(by_hour) do
        local hit = call("SMISMEMBER", key, unpack(rids))
        for i, rid in ipairs(rids) do
            if hit[i] == 1 then seen[rid] = true end
        end
    end
    local todo = {}
    for i, it in ipairs(items) do
        local held = is_hold(got[i])
        local block = it.block and not got[i] and blocks[it.block]
        if block and block.r and not seen[it.rid] then
            held, got[i] = true, false
        elseif it.block then
            it.receipt = ""                     -- the block is gone: all of it
            block = nil
        end
        if seen[it.rid] or (it.lost and got[i] and not held) then
            codes[i] = 1
        elseif not held and it.receipt == "" and it.event ~= "" then
            codes[i] = 3
        else
            seen[it.rid] = true
            todo[#todo + 1] = it
            if held and not got[i] then
                it.hold, it.held, it.receipt = sub(it.receipt, 35), true,
                                               block.receipt
                block_less(block.r, amounts(it.hold, 2))
                used[it.block] = block
                it.code, codes[i] = "ok", 0
            elseif held then
                take_hold(it, got[i])
                it.code, codes[i] = "ok", 0
            elseif got[i] then
                local cost, event = got[i]:match("^T\t(%d+)\t(.*)$")
                it.back, it.code, codes[i] = cost, "fix " .. cost, 0
                if it.event == "" then
                    it.event = event:gsub('"cost":"%d+"', '"cost":"0"', 1)
                end
            else
                it.code, codes[i] = "late", 2
                it.old = tonumber(sub(it.rid, 1, 12), 16) < now_ms - OLD_MS
            end
            if it.lost then it.code = "lost " .. it.lost end
        end
    end
    return todo, codes, used
end


-- kt_settle: groups of 7 (rid, receipt or "" or, of a request that was admitted
-- from a block, "b", tab, the block's id, tab, its amounts; cost nusd, ucr, input tokens less
-- cached, output tokens, event JSON), at most 200 groups.  Without an event
-- the request is given up: no ledger row, its place in the window is free, and
-- an admission of this rid that is still on its way will be refused; the
-- receipt may then be empty.  An event that says "end":"lost" (a journal whose
-- worker died) is charged like a swept one: a settlement that still arrives
-- corrects it.
-- Returns {watermark ms, now ms, code...}: 0 applied, 1 duplicate, 2 applied
-- though no hold stood, 3 not applied: no hold stands, come again with the
-- receipt.  {-1} while not ready: keep it and come again.
local function kt_settle(keys, a)
    local pre = prefix(keys)
    local now_s, now_ms = clock()
    local head = call("MGET", keys[1], pre .. "wm")
    if not head[1] then
        return { -1 }
    end
    local todo, codes, used = classify(pre, a, now_ms)
    if #todo > 0 then
        local gone, leases, by_hour = {}, {}, {}
        for _, it in ipairs(todo) do
            gone[#gone + 1] = pre .. "h:" .. it.rid
            leases[#leases + 1] = it.rid
            if not it.lost then
                local h = by_hour[it.hour] or {}
                by_hour[it.hour] = h
                h[#h + 1] = it.rid
            end
        end
        commit(pre, todo, now_s)
        call("DEL", unpack(gone))
        for _, it in ipairs(todo) do
            if it.lost then
                bury(pre, it.rid, it.lost, it.event, TOMB_TTL_S)
            elseif it.code == "late" and it.event == "" then
                bury(pre, it.rid, "0", "", 3600)
            end
        end
        call("ZREM", pre .. "z", unpack(leases))
        block_write(pre, used)
        done_mark(pre, by_hour)
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
            local it = { rid = rids[i], tok_in = 0, tok_out = 0, sh = 0, sl = 0 }
            local r, event = amounts(h, 2), event_of(h)
            take_hold(it, h)
            local cost = decimal(r.eh, r.el)
            it.uh, it.ul = r.eh, r.el
            it.event, it.code = event, "lost " .. cost
            items[#items + 1] = it
            bury(pre, rids[i], cost, event, TOMB_TTL_S)
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


