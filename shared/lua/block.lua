-- ----------------------------------------------------------------- blocks

-- A worker with a hot key takes a block: room for n requests, reserved like n
-- admissions under an id of the block's own, and admits from it without asking.
-- h:<bid> keeps what of it is not settled yet: "B", amounts (hold.lua), n, the
-- receipt.  Its requests' settlements take their share out, what is left when
-- the block ends is given back, and a block whose worker is gone ends with its
-- lease, charging nothing: the journals know what was sent.
--
-- A block ends with the second that it was taken in, so every request of it
-- leaves the window in time; with its periods, and with the key.  Near a limit
-- there are none.  b:<entity> stands while a block may be used that relies on
-- the entity, b:* while any may: who changes a policy, or the registry, waits
-- for its end (invariant 5).

local BLOCK_LEASE_MS = 60000
local BLOCK_PART = 4          -- takes at most a quarter of what is left
local BLOCK_HEAD = AMOUNTS_LEN + 10        -- where the receipt begins


local function is_block(s)
    return s and byte(s) == 66             -- "B"
end


local function block_text(r, receipt)
    return "B" .. pack(AMOUNTS, r.bh, r.bl, r.ch, r.cl, r.eh, r.el, r.in_bound,
                       r.in_typ, r.out_bound, r.out_typ)
           .. pack("<i8", r.n) .. receipt
end


-- (what is left of it, receipt)
local function block_parts(s)
    local r = amounts(s, 2)
    r.n = unpack_s("<i8", s, AMOUNTS_LEN + 2)
    return r, sub(s, BLOCK_HEAD)
end


-- What is left of a block as this call found it: {r, receipt}, or {} when it is
-- gone.
local function block_of(pre, blocks, bid)
    local k = blocks[bid]
    if not k then
        local s = call("GET", pre .. "h:" .. bid)
        k = {}
        if is_block(s) then
            k.r, k.receipt = block_parts(s)
        end
        blocks[bid] = k
    end
    return k
end


local function times(r, n)
    local m = { n = r.n * n, in_bound = r.in_bound * n, in_typ = r.in_typ * n,
                out_bound = r.out_bound * n, out_typ = r.out_typ * n, eh = 0,
                el = 0 }
    m.bh, m.bl = r.bh * n + floor(r.bl * n / BASE), r.bl * n % BASE
    m.ch, m.cl = r.ch * n + floor(r.cl * n / BASE), r.cl * n % BASE
    return m
end


-- Takes the share x out of r; false when nothing is left.
local function block_less(r, x)
    r.n = r.n - x.n
    r.bh, r.bl = minus(r.bh, r.bl, x.bh, x.bl)
    r.ch, r.cl = minus(r.ch, r.cl, x.ch, x.cl)
    r.in_bound, r.in_typ = r.in_bound - x.in_bound, r.in_typ - x.in_typ
    r.out_bound, r.out_typ = r.out_bound - x.out_bound, r.out_typ - x.out_typ
    return r.n > 0
end


local function block_write(pre, blocks)
    for bid, k in pairs(blocks) do
        if k.r.n > 0 then
            call("SET", pre .. "h:" .. bid, block_text(k.r, k.receipt))
        else
            call("DEL", pre .. "h:" .. bid)
            call("ZREM", pre .. "z", bid)
        end
    end
end


-- g.block = {rid, amounts of n requests, n}.  Returns when it ends, ms, and its
-- receipt; or 0.
local function take_block(b, g, list)
    local k, now_s, now_ms = g.block, b.now_s, b.now_ms
    local r = amounts(k.amounts, 1)
    r.n = k.n
    local big = times(r, BLOCK_PART)
    if k.n < 2 or g.unknown or g.must
       or check_money(list, g, big, now_s, now_ms)
       or check_rates(list, big, now_s, now_ms, b.pre)
       or check_money(list, g, r, now_s, now_ms)
       or g.slow or check_rates(list, r, now_s, now_ms, b.pre) then
        return 0, ""
    end
    local stop = (now_s + 1) * 1000
    for _, e in ipairs(list) do
        if e.pend ~= 0 then stop = min(stop, e.pend * 1000) end
        if e.p.expires_ms then stop = min(stop, e.p.expires_ms) end
    end
    local receipt = "2\t" .. fmt("%.0f", now_ms) .. "\t" .. g.model .. "\n"
                    .. reserve_all(list, r)
    local n, m = #b.sets, #b.leases
    b.sets[n + 1], b.sets[n + 2] = b.pre .. "h:" .. k.rid, block_text(r, receipt)
    b.leases[m + 1], b.leases[m + 2] = fmt("%.0f", now_ms + BLOCK_LEASE_MS), k.rid
    -- not of a shorter block: another's may last longer
    local ttl = fmt("%.0f", (now_s + 1) * 1000 - now_ms)
    call("SET", b.pre .. "b:*", "1", "PX", ttl)
    for _, e in ipairs(list) do
        call("SET", b.pre .. "b:" .. e.name, "1", "PX", ttl)
    end
    -- of these there may be no policy yet
    if g.customer ~= "" then
        call("SET", b.pre .. "b:" .. g.customer, "1", "PX", ttl)
    end
    for tag in g.tags:gmatch("[^\t]+") do
        call("SET", b.pre .. "b:" .. tag, "1", "PX", ttl)
    end
    return stop, receipt
end


