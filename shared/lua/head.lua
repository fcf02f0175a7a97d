#!lua name=keytoll
-- version 3
--
-- A daemon loads it over older versions only: raise it with every change that a
-- gate or a daemon can see.
--
-- The one place that decides and counts.  The files of this folder, joined in
-- the order of the Makefile, are one library; keytoll-controld loads it with
-- FUNCTION LOAD, the gate's ACL user may FCALL it.
--
-- Owns every key under kt:{shard}: (KEYS[1] is always kt:{shard}:gen):
--   gen         registry generation; absent = not ready, nothing is admitted
--   reg         registry JSON, read by the gate when gen moved
--   e:<entity>  policy of one entity, msgpack
--   c:<entity>  its counters, packed integers (entity.lua)
--   w:<entity>  its window's past seconds (window.lua); gone when idle
--   h:<rid>     hold of an admitted, not yet settled request; or the tombstone
--               of a lost one that the sweeper charged (48 h), or of one that
--               was given up before its admission came (1 h), see hold.lua
--   b:<entity>  a block that relies on it may be used (block.lua); < 1 s
--   z           leases: rid by expiry, ms
--   d:<hour>    settled rids, by the hour in the rid; 2 h
--   s           ledger stream, wm its watermark in PostgreSQL, ms
-- and the channel kt:{shard}:changes, where the names of entities are announced
-- whose refusals may have become wrong, one a line; "*" is all of them.  Behind
-- a first line "~" no policy changed, only what is left.
--
-- Invariants (DESIGN 4):
--   a refusal writes nothing (1); used + held <= limit for strict meters, and
--   over by at most one request for the others (2, money() in admit.lua);
--   settling twice is a no-op by rid (3); a hold and a slot end at their lease
--   (4); a missing fact refuses (7).
-- Amounts are nano-USD or micro-credit, kept as a pair (hi, lo) with
-- value = hi * 1e9 + lo and 0 <= lo < 1e9, so both halves stay exact in a Lua
-- number up to 2^53 * 1e9.  No float ever enters.
--

local BASE = 1e9
local RING = 61               -- one-second buckets; any 60 s span is covered
local DONE_TTL_S = 7200       -- settled rids; longer than journals replay
local TOMB_TTL_S = 172800     -- lost requests that may still be settled
local OLD_MS = 6600000        -- 110 min: later replays go to the ledger only
local WINDOW_TTL_S = 125      -- longer than a window that can still count
local CACHE_MAX = 8192

-- Verdicts; the same numbers stand in shared/kt_reason.h.
local OK, NOT_READY, STALE = 0, 1, 2
local KEY_UNKNOWN, KEY_BLOCKED, KEY_MODEL, KEY_EXPIRED = 3, 4, 5, 6
local BUDGET, HELD, ENT_BLOCKED, ENT_MODEL, ROUTE = 7, 8, 9, 10, 11
local RPM, TPM, PARALLEL, MODEL_UNKNOWN, CREDITS = 12, 13, 14, 15, 16
local UNPRICED, MISSING, ALIAS, PARAMS, CHEAPER = 17, 18, 19, 20, 21

-- Receipt bits.
local B_RPM, B_TPM, B_PAR, B_UCR, B_MONEY, B_NOHOLD = 1, 2, 4, 8, 16, 32
local B_LATER = 64            -- admitted without Redis: resolve at settle
local B_STRICT = 128          -- of tokens, the bounds are reserved, else the typical
local B_IN, B_OUT = 256, 512  -- of tokens, only the input or output counts
local B_LAST = 1024           -- a last call: holds nothing, may cross the limit

-- FUNCTION LOAD runs with an empty environment: the libraries are bound when
-- the first function runs.
local call, floor, max, min, sub, rep, fmt, find, byte
local pack, unpack_s, concat, band
local EMPTY                   -- a window without anything in it

local function bind()
    call = redis.call
    floor, max, min = math.floor, math.max, math.min
    sub, rep, fmt, find = string.sub, string.rep, string.format, string.find
    byte = string.byte
    pack, unpack_s = struct.pack, struct.unpack
    concat, band = table.concat, bit.band
    EMPTY = rep("\0", 2 * RING * 4)
end


local function has(bits, b)
    return band(bits, b) ~= 0
end


local function clock()
    local t = call("TIME")
    local s, us = tonumber(t[1]), tonumber(t[2])
    return s, s * 1000 + floor(us / 1000)
end


-- relief: room came back, or a charge came without a hold; no policy changed.
local function announce(pre, names, relief)
    if #names > 0 then
        call("PUBLISH", pre .. "changes",
             (relief and "~\n" or "") .. concat(names, "\n"))
    end
end


local function prefix(keys)
    if not call then
        bind()
    end
    return sub(keys[1], 1, -4)             -- "kt:{shard}:gen" less "gen"
end


-- The text of a whole number; most come again and again.
local texts, texts_n = {}, 0

local function text(n)
    local t = texts[n]
    if not t then
        t = fmt("%.0f", n)
        if texts_n >= CACHE_MAX then
            texts, texts_n = {}, 0
        end
        texts[n], texts_n = t, texts_n + 1
    end
    return t
end


