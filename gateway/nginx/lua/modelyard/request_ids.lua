-- The ids of requests: drawn from the kernel for many requests at once, where the server's own `$request_id` asks OpenSSL for each.

local ffi = require "ffi"

ffi.cdef [[
  long getrandom(void *bytes, size_t size, unsigned int flags);
  unsigned char *ngx_hex_dump(unsigned char *digits, const unsigned char *bytes, size_t size);
]]

local _M = {}

local C, text_at = ffi.C, ffi.string
local ID_BYTES, DRAWN_BYTES = 16, 256 -- a call of getrandom(2) gives so much whole, whatever interrupts it
local drawn, digits = ffi.new("unsigned char[?]", DRAWN_BYTES), ffi.new("unsigned char[?]", 2 * ID_BYTES)
local used = DRAWN_BYTES -- so that each worker draws for itself, and none shares what the master drew

-- An id that was never given before, 32 hexadecimal digits.
function _M.draw()
  if used == DRAWN_BYTES then
    assert(C.getrandom(drawn, DRAWN_BYTES, 0) == DRAWN_BYTES)
    used = 0
  end
  C.ngx_hex_dump(digits, drawn + used, ID_BYTES)
  used = used + ID_BYTES
  return text_at(digits, 2 * ID_BYTES)
end

return _M
