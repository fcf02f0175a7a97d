-- ------------------------------------------------------------------ holds

-- What is kept of an admitted request under h:<rid>: "H", what it may cost,
-- packed, its receipt, "=\t" and the event that the ledger gets should it be
-- lost.
-- Amounts as (hi, lo): the bound in nano-USD, micro-credit, the input
-- estimate that a lost request is charged; then tokens: input bound and
-- typical, output bound and typical.
local AMOUNTS = "<i8i4i8i4i8i4i8i8i8i8"
local AMOUNTS_LEN = 68

local function amounts(s, at)
    local bh, bl, ch, cl, eh, el, in_bound, in_typ, out_bound, out_typ
        = unpack_s(AMOUNTS, s, at)
    return { n = 1, bh = bh, bl = bl, ch = ch, cl = cl, eh = eh, el = el,
             in_bound = in_bound, in_typ = in_typ,
             out_bound = out_bound, out_typ = out_typ }
end


-- Adds one more packed request to r.
local function add_amounts(r, s, at)
    local bh, bl, ch, cl, _, _, in_bound, in_typ, out_bound, out_typ
        = unpack_s(AMOUNTS, s, at)
    r.n = r.n + 1
    r.bh, r.bl = add(r.bh, r.bl, bh, bl)
    r.ch, r.cl = add(r.ch, r.cl, ch, cl)
    r.in_bound, r.in_typ = r.in_bound + in_bound, r.in_typ + in_typ
    r.out_bound, r.out_typ = r.out_bound + out_bound, r.out_typ + out_typ
end


-- A receipt says who was charged: "2", tab, ms, tab, model, then one line for
-- each entity: name, tab, period id, tab, bits.  Names cannot hold a line
-- break, so the first line that begins with "=" ends it.
local function receipt_of(hold)
    return sub(hold, AMOUNTS_LEN + 2,
               (find(hold, "\n=\t", AMOUNTS_LEN + 2, true)))
end


local function event_of(hold)
    return sub(hold, find(hold, "\n=\t", AMOUNTS_LEN + 2, true) + 3)
end


-- A tombstone: "T", tab, the charge, tab, the event.
local function is_hold(s)
    return s and byte(s) == 72             -- "H"
end


local function bury(pre, rid, cost, event, ttl_s)
    call("SET", pre .. "h:" .. rid, "T\t" .. cost .. "\t" .. event, "EX", ttl_s)
end


-- What a receipt line with these bits reserved of amounts r: money (hi, lo).
local function reserved_money(is, r)
    if is.last then
        return 0, 0
    elseif is.ucr then
        return r.ch, r.cl
    end
    return r.bh, r.bl
end


local function reserved_tokens(is, r)
    local i, o = r.in_typ, r.out_typ
    if is.strict then
        i, o = r.in_bound, r.out_bound
    end
    return is.only_in and i or is.only_out and o or i + o
end


-- What the bits of a receipt line say; remembered, there are few.
local meanings = {}

local function meaning(s)
    local bits = tonumber(s)
    local m = { bits = bits, rpm = has(bits, B_RPM), tpm = has(bits, B_TPM),
                par = has(bits, B_PAR), ucr = has(bits, B_UCR),
                money = has(bits, B_MONEY), hold = not has(bits, B_NOHOLD),
                later = has(bits, B_LATER), strict = has(bits, B_STRICT),
                only_in = has(bits, B_IN), only_out = has(bits, B_OUT),
                last = has(bits, B_LAST) }
    if bits < 2048 then
        meanings[s] = m
    end
    return m
end


-- The lines of a receipt, from its second line on.  A pure function of the
-- text, which a key's requests share, so remembered.
local tails, tails_n = {}, 0

local function tail_lines(tail)
    local lines = tails[tail]
    if lines then
        return lines
    end
    lines = {}
    for name, pid, bits in tail:gmatch("([^\t\n]+)\t(%d+)\t(%d+)\n") do
        lines[#lines + 1] = { name = name, pid = tonumber(pid),
                              is = meanings[bits] or meaning(bits) }
    end
    if tails_n >= CACHE_MAX then
        tails, tails_n = {}, 0
    end
    tails[tail], tails_n = lines, tails_n + 1
    return lines
end


local function parse_receipt(receipt)
    local at = find(receipt, "\n", 1, true)
    if not at then
        return nil, tail_lines("")
    end
    return tonumber(receipt:match("^2\t(%d+)")), tail_lines(sub(receipt, at + 1))
end


-- ---------------------------------------------------------- settled requests

-- The hour of a rid.  Nine digits of its time are 4 s; remembered where all of
-- them are in one hour.
local hours, hours_n = {}, 0

local function hour_of(rid)
    local head = sub(rid, 1, 9)
    local hour = hours[head]
    if not hour then
        local from = tonumber(head, 16) * 4096
        hour = fmt("%.0f", floor((tonumber(sub(rid, 1, 12), 16)) / 3600000))
        if floor(from / 3600000) == floor((from + 4095) / 3600000) then
            if hours_n >= CACHE_MAX then
                hours, hours_n = {}, 0
            end
            hours[head], hours_n = hour, hours_n + 1
        end
    end
    return hour
end


local function done_key(pre, rid)
    return pre .. "d:" .. hour_of(rid)
end


local function done_mark(pre, by_hour)
    for key, rids in pairs(by_hour) do
        call("SADD", key, unpack(rids))
        call("EXPIRE", key, DONE_TTL_S)
    end
end


