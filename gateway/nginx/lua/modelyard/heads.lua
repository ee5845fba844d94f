-- The head of a request as it came: its fields, and whether it is written as every server reads it.

local base = require "resty.core.base"
local ffi = require "ffi"
require "resty.core.request" -- it and the next declare what is called here of the server
require "resty.core.var"

local _M = {}

local C, cast, text_at = ffi.C, ffi.cast, ffi.string
local get_request, get_string_buf, new_tab = base.get_request, base.get_string_buf, base.new_tab
local elements_t, bytes_t = ffi.typeof("ngx_http_lua_ffi_table_elt_t *"), ffi.typeof("const unsigned char *")
local ELEMENT_BYTES = ffi.sizeof("ngx_http_lua_ffi_table_elt_t")
local ALL = 0
local LOWER_CASE = 0
local OK = 0
local CR, LF = 13, 10
local END = "\r\n\r\n"
local LINE, LENGTH = "request", "request_length"
local LINE_FORM = [[\A\S+ /[!-~]* ]]
local ODD = [[\A(?!\S+ /[!-~]* )|(?<!\r)\n(?![ \t\r])]]

local is_cut, problem = ffi.new("int[1]"), ffi.new("char *[1]")
local told_at, told_size, scratch = ffi.new("char *[1]"), ffi.new("size_t[1]"), ffi.new("char[?]", #LENGTH)

-- Whether the head is in origin form, in visible ASCII, its lines ended by CRLF, going by the text that the server shows of it: with LF in the place
-- of blanks before the end of a line, so that its very end alone tells LF CRLF from a blank before CRLF.
function _M.is_plain_as_shown()
  local head = ngx.req.raw_header()
  return head:sub(-#END) == END and ngx.re.find(head, ODD, "jo") == nil
end

-- The place and the size of what the server's variable says.
local function variable(request, name)
  assert(C.ngx_http_lua_ffi_var_get(request, name, #name, scratch, 0, told_at, told_size, problem) == OK)
  return cast(bytes_t, told_at[0]), tonumber(told_size[0])
end

-- The place of the request line and its length, where it is in that form and CRLF ends it; else nil.
local function plain_line(request)
  local line, size = variable(request, LINE)
  if size == 0 or line[size] ~= CR or line[size + 1] ~= LF or not ngx.re.find(text_at(line, size), LINE_FORM, "jo") then
    return nil
  end
  return line, size
end

-- Whether the head is so long: what follows it may look like its end.
local function is_long(request, bytes)
  return tonumber(text_at(variable(request, LENGTH))) == bytes
end

-- The request's fields, all of them, by their names in lower case, a list of values where a name came more than once; whether the head is seen to be
-- plain by where its parts lie; and the names that do not pass, nil for none.
--
-- It is where each field begins behind the CRLF of the line before: the name, a colon, at most one blank, the value; and the head ends two CRLF behind
-- the last of them. No line that the server left out, and no other end of a line, has room there. Called before the body is read: the length that the
-- server tells grows with it. A copy of the head, and a search through it, cost more than all else of the access phase.
function _M.read(passes)
  local request = get_request()
  local count = C.ngx_http_lua_ffi_req_get_headers_count(request, ALL, is_cut)
  if count <= 0 then
    return {}, false
  end
  local line, ends = plain_line(request)
  local is_plain = line ~= nil
  local found = cast(elements_t, get_string_buf(count * ELEMENT_BYTES))
  C.ngx_http_lua_ffi_req_get_headers(request, found, count, LOWER_CASE)
  local fields, held = new_tab(0, count), nil
  for n = 0, count - 1 do
    local name, value = found[n].key, found[n].value
    if is_plain then
      local blanks = value.data - line - (ends + 2 + name.len + 1)
      ends = value.data - line + value.len
      is_plain = (blanks == 0 or blanks == 1) and value.data[value.len + 1] == LF
    end
    local key, text = text_at(name.data, name.len), text_at(value.data, value.len)
    if not passes[key] then
      held = held or {}
      held[#held + 1] = key
    end
    local known = fields[key]
    if not known then
      fields[key] = text
    elseif type(known) == "table" then
      known[#known + 1] = text
    else
      fields[key] = { known, text }
    end
  end
  return fields, is_plain and line[ends + 2] == CR and is_long(request, ends + 4), held
end

return _M
