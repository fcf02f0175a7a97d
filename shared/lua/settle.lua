-- ----------------------------------------------------------------- settle

-- Receipts repeat names, periods and bits; their numbers are remembered.
local numbers, numbers_n = {}, 0

local function number(s)
    local n = numbers[s]
    if not n then
        n = tonumber(s)
        if numbers_n >= CACHE_MAX then
            numbers, numbers_n = {}, 0
        end
        numbers[s], numbers_n = n, numbers_n + 1
    end
    return n
end


-- What the bits of a receipt line say, remembered.
local meanings = {}

local function meaning(s)
    local bits = tonumber(s)
    local m = { bits = bits, rpm = has(bits, B_RPM), tpm = has(bits, B_TPM),
                par = has(bits, B_PAR), ucr = has(bits, B_UCR),
                money = has(bits, B_MONEY), hold = not has(bits, B_NOHOLD),
                later = has(bits, B_LATER) }
    if bits < 128 then
        meanings[s] = m
    end
    return m
end


local function parse_receipt(receipt)
    local ms, lines, n = tonumber(receipt:match("^1\t(%d+)")), {}, 0
    for name, pid, held, tok, bits in
        receipt:gmatch("\n([^\t\n]+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)") do
        n = n + 1
        lines[n] = { name = name, pid = number(pid), held = held,
                     tok = number(tok), is = meanings[bits] or meaning(bits) }
    end
    return ms, lines
end


-- A request that passed while Redis was away names its key only: charge the
-- entities that the key has now, in the periods that run now.
local function resolve(pre, it, now_s)
    local key = it.lines[1].name
    local e = get(pre, key)
    it.lines = {}
    if not e or e.p.gone then
        return
    end
    local list = gather(pre, e, { model = it.receipt:match("^1\t%d+\t([^\n]*)"),
                                  customer = "", tags = "", any = true })
    local out = { it.receipt:match("^[^\n]*\n") }
    for i, x in ipairs(list) do
        roll(x, now_s)
        local bits = text(B_NOHOLD + (x.money and B_MONEY or 0))
        it.lines[i] = { name = x.name, pid = x.pid, held = "0", tok = 0,
                        is = meaning(bits) }
        out[i + 1] = x.name .. "\t" .. text(x.pid) .. "\t0\t0\t" .. bits .. "\n"
    end
    it.receipt = concat(out)
end


local function load_all(pre, items, now_s)
    local names, seen = {}, {}
    for _, it in ipairs(items) do
        it.ms, it.lines = parse_receipt(it.receipt)
        it.at = floor((it.ms or 0) / 1000)
        if it.lines[1] and it.lines[1].is.later then
            resolve(pre, it, now_s)
        end
        for _, l in ipairs(it.lines) do
            if not seen[l.name] then
                seen[l.name] = true
                names[#names + 1] = l.name
            end
        end
    end
    local ents = {}
    for at = 1, #names, 2000 do
        local chunk = {}
        for i = at, min(at + 1999, #names) do
            chunk[#chunk + 1] = pre .. "e:" .. names[i]
            chunk[#chunk + 1] = pre .. "c:" .. names[i]
        end
        local got = call("MGET", unpack(chunk))
        for i = 1, #got, 2 do
            local e = got[i]
                      and load(names[at + (i - 1) / 2], got[i], got[i + 1])
            if e and not e.p.gone then ents[e.name] = e end
        end
    end
    return ents
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


-- One settlement on one entity.  it.held: the hold still stands and is
-- released; it.back: an earlier charge that this one replaces.
local function apply(e, l, it, now_s, pre)
    roll(e, now_s)
    local same, is = e.pid == l.pid, l.is
    if it.held then
        if same and is.hold then
            local h, lo = minus(e.hh, e.hl, amount(l.held))
            if h < 0 then h, lo = 0, 0 end
            e.hh, e.hl = h, lo
        end
        if is.par then
            e.par = max(0, e.par - 1)
        end
        if is.tpm and e.p.tpm then
            correct(e, pre, true, it.at, actual_tokens(e, it) - l.tok, now_s)
        end
        if is.rpm and it.event == "" and e.p.rpm then
            correct(e, pre, false, it.at, -1, now_s)
        end
    end
    if same and is.money then
        if is.ucr then
            e.uh, e.ul = add(e.uh, e.ul, it.ch, it.cl)
        else
            e.uh, e.ul = add(e.uh, e.ul, it.uh, it.ul)
            if it.back then
                e.uh, e.ul = minus(e.uh, e.ul, amount(it.back))
            end
        end
    end
end


-- Applies the items, writes the entities and one stream entry.
local function commit(pre, items, now_s)
    local ents = load_all(pre, items, now_s)
    local sets, stream, touched = {}, {}, {}
    for _, it in ipairs(items) do
        if not it.old then
            for i = 1, #it.lines do
                local l = it.lines[i]
                local e = ents[l.name]
                if e then
                    apply(e, l, it, now_s, pre)
                    touched[e.name] = e
                end
            end
        end
        if it.event ~= "" then
            local n = #stream
            stream[n + 1], stream[n + 2] = "e", it.event
            stream[n + 3], stream[n + 4] = "r", it.receipt
            stream[n + 5], stream[n + 6] = "c", it.code
        end
    end
    for name, e in pairs(touched) do
        sets[#sets + 1] = pre .. "c:" .. name
        sets[#sets + 1] = dump(e)
        save_window(e, pre)
        if #sets >= 4000 then
            call("MSET", unpack(sets))
            sets = {}
        end
    end
    if #sets > 0 then
        call("MSET", unpack(sets))
    end
    if #stream > 0 then
        call("XADD", pre .. "s", "*", unpack(stream))
    end
end


local function classify(pre, a, now_ms)
    local items, codes, probe, hours, seen = {}, {}, {}, {}, {}
    for i = 1, #a, 7 do
        local it = { rid = a[i], receipt = a[i + 1], event = a[i + 6],
                     tok_in = tonumber(a[i + 4]), tok_out = tonumber(a[i + 5]) }
        it.uh, it.ul = amount(a[i + 2])
        it.ch, it.cl = amount(a[i + 3])
        it.lost = find(it.event, '"end":"lost"', 1, true) and a[i + 2]
        items[#items + 1] = it
        probe[#probe + 1] = pre .. "h:" .. it.rid
        probe[#probe + 1] = pre .. "t:" .. it.rid
        it.hour = done_key(pre, it.rid)
        local h = hours[it.hour] or {}
        hours[it.hour] = h
        h[#h + 1] = it.rid
    end
    local got = call("MGET", unpack(probe))
    for key, rids in pairs(hours) do
        local hit = call("SMISMEMBER", key, unpack(rids))
        for i, rid in ipairs(rids) do
            if hit[i] == 1 then seen[rid] = true end
        end
    end
    local todo = {}
    for i, it in ipairs(items) do
        if seen[it.rid] or (it.lost and got[2 * i]) then
            codes[i] = 1
        else
            seen[it.rid] = true
            todo[#todo + 1] = it
            if got[2 * i - 1] then
                -- what was reserved is what the hold says, whatever its sender
                -- knew: a lost reply leaves him without a receipt
                it.receipt = split_hold(got[2 * i - 1])
                it.held, it.code, codes[i] = true, "ok", 0
            elseif got[2 * i] then
                local cost, event = got[2 * i]:match("^(%d+)\t(.*)$")
                it.back, it.code, codes[i] = cost, "fix " .. cost, 0
                if it.event == "" then
                    it.event = event:gsub('"cost":"%d+"', '"cost":"0"', 1)
                end
            else
                it.code, codes[i] = "late", 2
                it.old = tonumber(sub(it.rid, 1, 12), 16) < now_ms - OLD_MS
            end
        end
    end
    for _, it in ipairs(todo) do
        if it.lost then it.code = "lost " .. it.lost end
    end
    return todo, codes
end


-- kt_settle: groups of 7 (rid, receipt, cost nusd, ucr, input tokens less
-- cached, output tokens, event JSON), at most 200 groups.  Without an event
-- the request is given up: no ledger row, its place in the window is free, and
-- an admission of this rid that is still on its way will be refused; the
-- receipt may then be empty.  An event that says "end":"lost" (a journal whose
-- worker died) is charged like a swept one: a settlement that still arrives
-- corrects it.
-- Returns {watermark ms, now ms, code...}: 0 applied, 1 duplicate, 2 applied
-- though no hold stood.  {-1} while not ready: keep it and come again.
local function kt_settle(keys, a)
    local pre = prefix(keys)
    local now_s, now_ms = clock()
    local head = call("MGET", keys[1], pre .. "wm")
    if not head[1] then
        return { -1 }
    end
    local todo, codes = classify(pre, a, now_ms)
    if #todo > 0 then
        local gone, leases, by_hour, given_up = {}, {}, {}, {}
        for _, it in ipairs(todo) do
            gone[#gone + 1] = pre .. "h:" .. it.rid
            gone[#gone + 1] = pre .. "t:" .. it.rid
            leases[#leases + 1] = it.rid
            if it.code == "late" and it.event == "" then
                given_up[#given_up + 1] = it.rid
            end
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
                call("SET", pre .. "t:" .. it.rid, it.lost .. "\t" .. it.event,
                     "EX", TOMB_TTL_S)
            end
        end
        for _, rid in ipairs(given_up) do
            call("SET", pre .. "t:" .. rid, "0\t", "EX", 3600)
        end
        call("ZREM", pre .. "z", unpack(leases))
        done_mark(pre, by_hour)
    end
    return { head[2] or "0", fmt("%.0f", now_ms), unpack(codes) }
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
        if h then
            local receipt, cost, event = split_hold(h)
            local it = { rid = rids[i], receipt = receipt,
                         event = event, code = "lost " .. cost, held = true,
                         tok_in = 0, tok_out = 0, ch = 0, cl = 0 }
            it.uh, it.ul = amount(cost)
            items[#items + 1] = it
            call("SET", pre .. "t:" .. rids[i], cost .. "\t" .. event, "EX",
                 TOMB_TTL_S)
        end
    end
    commit(pre, items, now_s)
    call("DEL", unpack(probe))
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
        local rid, text = a[i], a[i + 1]
        local hold_key = pre .. "h:" .. rid
        if call("EXISTS", hold_key) == 1 then
            call("ZADD", pre .. "z", until_ms, rid)
            n = n + 1
        elseif text ~= "" and call("EXISTS", pre .. "t:" .. rid) == 0
               and call("SISMEMBER", done_key(pre, rid), rid) == 0 then
            local _, lines = parse_receipt(text)
            for _, l in ipairs(lines) do
                local e = get(pre, l.name)
                if e and not e.p.gone then
                    roll(e, now_s)
                    if e.pid == l.pid and l.is.hold then
                        e.hh, e.hl = add(e.hh, e.hl, amount(l.held))
                    end
                    if l.is.par then e.par = e.par + 1 end
                    call("SET", pre .. "c:" .. l.name, dump(e))
                end
            end
            call("SET", hold_key, text)
            call("ZADD", pre .. "z", until_ms, rid)
            n = n + 1
        end
    end
    return n
end


