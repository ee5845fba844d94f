-- Reads a JSON object (RFC 8259) as strictly as signed text must be read: no member twice, nothing behind it, no invalid UTF-8.
-- The general decoder keeps the last of two members, and takes `NaN`, hexadecimal numbers and numbers too large for what they are.

local byte, find, sub = string.byte, string.find, string.sub

local _M = {}

local MOST_DEEP = 64
local ESCAPES = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }
local WORDS = { ["true"] = true, ["false"] = false }
local UTF8 = [=[\A(?:[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]]=]
  .. [=[|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2})*+\z]=]
_M.null = setmetatable({}, { __tostring = function() return "null" end })
local integers = setmetatable({}, { __mode = "k" }) -- the members of an object that were written as integers

local read_value

local function fail()
  error("not JSON", 0)
end

local function skip(text, at)
  return find(text, "[^ \t\r\n]", at) or #text + 1
end

local function utf8(code)
  if code < 0x80 then
    return string.char(code)
  elseif code < 0x800 then
    return string.char(0xC0 + math.floor(code / 0x40), 0x80 + code % 0x40)
  elseif code < 0x10000 then
    return string.char(0xE0 + math.floor(code / 0x1000), 0x80 + math.floor(code / 0x40) % 0x40, 0x80 + code % 0x40)
  end
  return string.char(0xF0 + math.floor(code / 0x40000), 0x80 + math.floor(code / 0x1000) % 0x40,
    0x80 + math.floor(code / 0x40) % 0x40, 0x80 + code % 0x40)
end

-- A surrogate alone stays one, as Python has it: it equals nothing that is asked for, and no form lets it pass.
local function read_escape(text, at)
  local plain = ESCAPES[sub(text, at, at)]
  if plain then
    return plain, at + 1
  end
  local high = text:match("^u(%x%x%x%x)", at)
  local code = high and tonumber(high, 16) or fail()
  at = at + 5
  if code >= 0xD800 and code < 0xDC00 then
    local low = tonumber(text:match("^\\u([dD][c-fC-F]%x%x)", at) or "", 16)
    if low then
      return utf8(0x10000 + (code - 0xD800) * 0x400 + low - 0xDC00), at + 6
    end
  end
  return utf8(code), at
end

local function read_string(text, at)
  local pieces = {}
  while true do
    local stop = find(text, '["\\%c]', at) or fail()
    local char = byte(text, stop)
    if char == 0x7F then -- a control character to Lua, and none to JSON
      pieces[#pieces + 1] = sub(text, at, stop)
      at = stop + 1
    else
      pieces[#pieces + 1] = sub(text, at, stop - 1)
      if char == 0x22 then
        return table.concat(pieces), stop + 1
      elseif char ~= 0x5C then
        fail()
      end
      pieces[#pieces + 1], at = read_escape(text, stop + 1)
    end
  end
end

local function read_number(text, at)
  local whole = text:match("^%-?0", at) or text:match("^%-?[1-9]%d*", at) or fail()
  local stop = at + #whole
  local fraction = text:match("^%.%d+", stop) or ""
  local power = text:match("^[eE][+-]?%d+", stop + #fraction) or ""
  stop = stop + #fraction + #power
  return tonumber(sub(text, at, stop - 1)), stop, fraction == "" and power == ""
end

local function read_object(text, at, deep)
  local found, whole = {}, {}
  at = skip(text, at + 1)
  if sub(text, at, at) == "}" then
    return found, at + 1
  end
  while true do
    if sub(text, at, at) ~= '"' then
      fail()
    end
    local name, value, is_integer
    name, at = read_string(text, at + 1)
    at = skip(text, at)
    if sub(text, at, at) ~= ":" or found[name] ~= nil then
      fail()
    end
    value, at, is_integer = read_value(text, skip(text, at + 1), deep + 1)
    found[name], whole[name] = value, is_integer
    at = skip(text, at)
    local mark = sub(text, at, at)
    if mark == "}" then
      integers[found] = whole
      return found, at + 1
    elseif mark ~= "," then
      fail()
    end
    at = skip(text, at + 1)
  end
end

local function read_array(text, at, deep)
  local found = {}
  at = skip(text, at + 1)
  if sub(text, at, at) == "]" then
    return found, at + 1
  end
  while true do
    found[#found + 1], at = read_value(text, at, deep + 1)
    at = skip(text, at)
    local mark = sub(text, at, at)
    if mark == "]" then
      return found, at + 1
    elseif mark ~= "," then
      fail()
    end
    at = skip(text, at + 1)
  end
end

function read_value(text, at, deep)
  if deep > MOST_DEEP then
    fail()
  end
  local first = sub(text, at, at)
  if first == "{" then
    return read_object(text, at, deep)
  elseif first == "[" then
    return read_array(text, at, deep)
  elseif first == '"' then
    return read_string(text, at + 1)
  elseif find(first, "[%-%d]") then
    return read_number(text, at)
  end
  local word = text:match("^%l+", at)
  if word == "null" then
    return _M.null, at + 4
  elseif WORDS[word] == nil then
    fail()
  end
  return WORDS[word], at + #word
end

-- The object that the text is, and nothing beside it; nil for any other text.
function _M.object(text)
  if not text or not ngx.re.find(text, UTF8, "jo") then
    return nil
  end
  local read, found, stop = pcall(read_value, text, skip(text, 1), 1)
  if not read or skip(text, 1) ~= find(text, "{", 1, true) or skip(text, stop) <= #text then
    return nil
  end
  return found
end

-- Whether the member of an object was written as an integer.
function _M.is_integer(object, name)
  return integers[object] ~= nil and integers[object][name] == true
end

return _M
