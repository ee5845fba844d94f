-- A call's place in its trace (W3C Trace Context), as `modelyard/domain/causes.py` reads and writes it.

local _M = {}

local V00 = [[\A00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})\z]]
local LATER = [[\A(?!ff|00)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?\z]]
local KNOWN_FLAGS = 0x03
local LONGEST = 512

-- The trace's id and flags as the caller told them; nil where it told none that is valid.
function _M.parse(text)
  if type(text) ~= "string" or #text > LONGEST then
    return nil
  end
  local found = ngx.re.match(text, V00, "jo") or ngx.re.match(text, LATER, "jos")
  if not found then
    return nil
  end
  return found[1], bit.band(tonumber(found[2], 16), KNOWN_FLAGS)
end

-- The value of `traceparent` for what is done here: below the caller's place, or in a trace that begins with this request. The place is
-- the second half of the request's id, which is drawn at random already.
function _M.here(told, request_id)
  if told then
    local trace, flags = _M.parse(told)
    if trace then
      return "00-" .. trace .. "-" .. request_id:sub(17) .. "-0" .. flags
    end
  end
  return "00-" .. request_id .. "-" .. request_id:sub(17) .. "-01"
end

return _M
