-- The frames of WebSockets (RFC 6455, 5), as far as whoever passes them on must read and write them.

local _M = {}

local byte, char = string.byte, string.char

_M.CLOSE = 8
_M.NO_CODE = 1005 -- there was none (7.4.1)

-- The head of a frame as it was written, with what it says; nil where the connection ended, and why.
function _M.read_head(from)
  local head, why = from:receive(2)
  if not head then
    return nil, why
  end
  local first, second = byte(head, 1, 2)
  local size, masked = bit.band(second, 0x7f), second >= 0x80
  if size >= 126 then
    local more = from:receive(size == 126 and 2 or 8)
    if not more then
      return nil, "closed"
    end
    head, size = head .. more, 0
    for n = 1, #more do
      size = size * 256 + byte(more, n)
    end
  end
  local mask = ""
  if masked then
    mask = from:receive(4)
    if not mask then
      return nil, "closed"
    end
  end
  return { text = head .. mask, opcode = bit.band(first, 0x0f), is_final = first >= 0x80, size = size, mask = mask }
end

local function unmasked(text, mask)
  if mask == "" then
    return text
  end
  local bytes = {}
  for n = 1, #text do
    bytes[n] = char(bit.bxor(byte(text, n), byte(mask, (n - 1) % 4 + 1)))
  end
  return table.concat(bytes)
end

-- A close frame of this code and reason; one of a client is masked, by a key that hides nothing.
function _M.close(code, reason, is_masked)
  reason = reason:sub(1, 120)
  local body = code == _M.NO_CODE and "" or char(math.floor(code / 256), code % 256) .. reason
  if not is_masked then
    return char(0x88, #body) .. body
  end
  return char(0x88, 0x80 + #body) .. "\0\0\0\0" .. body
end

-- The code and the reason that the body of a close frame tells.
function _M.told_by(body, mask)
  body = unmasked(body, mask)
  return #body >= 2 and byte(body, 1) * 256 + byte(body, 2) or _M.NO_CODE, body:sub(3)
end

return _M
