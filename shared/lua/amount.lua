-- ---------------------------------------------------------------- amounts

local function amount(s)
    if #s <= 9 then
        return 0, tonumber(s) or 0
    end
    return tonumber(sub(s, 1, -10)), tonumber(sub(s, -9))
end


local function decimal(hi, lo)
    if hi == 0 then
        return text(lo)
    elseif hi < 0 then                     -- below zero: only by adjustment
        return "-" .. (lo == 0 and fmt("%.0f%09.0f", -hi, 0)
               or (hi == -1 and fmt("%.0f", BASE - lo)
                   or fmt("%.0f%09.0f", -hi - 1, BASE - lo)))
    end
    return fmt("%.0f%09.0f", hi, lo)
end


local function add(ah, al, bh, bl)
    local h, l = ah + bh, al + bl
    if l >= BASE then
        return h + 1, l - BASE
    end
    return h, l
end


local function minus(ah, al, bh, bl)
    local h, l = ah - bh, al - bl
    if l < 0 then
        return h - 1, l + BASE
    end
    return h, l
end


local function less(ah, al, bh, bl)
    return ah < bh or (ah == bh and al < bl)
end


